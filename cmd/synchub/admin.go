package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/linekeeper/linekeeper/hub/api"
	"github.com/linekeeper/linekeeper/hub/fleet"
	"github.com/linekeeper/linekeeper/hub/mapping"
)

type certCmd struct {
	Init  certInitCmd  `cmd:"" help:"Make a certificate authority and the hub's own certificate."`
	Agent certAgentCmd `cmd:"" help:"Make the certificate of one agent."`
}

type certInitCmd struct {
	Dir  string   `default:"pki" help:"Folder of the authority." placeholder:"DIR"`
	Host []string `required:"" help:"Host name or address under which agents reach the hub; repeat for more."`
}

func (c certInitCmd) Run(e *env) error {
	ca, err := fleet.CreateAuthority(c.Dir, time.Now)
	if err != nil {
		return err
	}
	if err := ca.IssueHub(c.Dir, c.Host); err != nil {
		return err
	}
	fmt.Fprintf(e.out, "made in %s: ca.pem and ca.key (keep the key safe), hub.pem and hub.key for %s\n", c.Dir, strings.Join(c.Host, ", "))
	return nil
}

type certAgentCmd struct {
	Dir   string `default:"pki" help:"Folder of the authority." placeholder:"DIR"`
	Plant string `required:"" help:"Plant (ISA-95 site) of the agent."`
	Agent string `required:"" help:"Name of the agent in its plant."`
	Out   string `help:"Folder for the files; default: PLANT-AGENT." placeholder:"DIR"`
}

func (c certAgentCmd) Run(e *env) error {
	ca, err := fleet.OpenAuthority(c.Dir, time.Now)
	if err != nil {
		return err
	}
	out := c.Out
	if out == "" {
		out = c.Plant + "-" + c.Agent
	}
	if err := ca.IssueAgent(out, c.Plant, c.Agent); err != nil {
		return err
	}
	fmt.Fprintf(e.out, "made in %s: agent.pem, agent.key and ca.pem; carry the folder to the plant\n", out)
	return nil
}

type tokenCmd struct {
	Name  string `required:"" help:"Whose it is; it is written down with what the caller does."`
	Write bool   `help:"Allow replaying and settling; without it the token reads." xor:"scope"`
	Wake  string `help:"Allow nothing but to say that this ERP has changed something: it is then asked at once." placeholder:"ERP" xor:"scope"`
}

// newSecret makes the secret of a token. It never begins with a dash: as a value on a command line that would be taken for a flag.
func newSecret() string {
	raw := make([]byte, 32)
	for {
		rand.Read(raw)
		if s := base64.RawURLEncoding.EncodeToString(raw); s[0] != '-' {
			return s
		}
	}
}

func (t tokenCmd) Run(e *env) error {
	secret := newSecret()
	sum := sha256.Sum256([]byte(secret))
	scope := fmt.Sprintf("write: %t", t.Write)
	if t.Wake != "" {
		scope = fmt.Sprintf("wake: [%q]", t.Wake)
	}
	fmt.Fprintf(e.out, "# token, shown this once: %s\n# put this into the hub's configuration:\napi:\n  tokens:\n    - {name: %q, sha256: %s, %s}\n",
		secret, t.Name, hex.EncodeToString(sum[:]), scope)
	return nil
}

// remote is how the commands reach a running hub: over the same API that everybody uses.
type remote struct {
	URL   string `help:"Address of the hub's API; default: the one of the configuration." placeholder:"URL"`
	CA    string `name:"ca" help:"PEM file of the authority that issued the hub's certificate; default: the one of the configuration." placeholder:"FILE"`
	Token string `env:"SYNCHUB_TOKEN" help:"Token of the API." placeholder:"TOKEN"`
	JSON  bool   `help:"Print JSON."`
}

func (r remote) call(e *env, method, path string, body, into any) error {
	client, base, err := r.client(e)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	var send io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return err
		}
		send = bytes.NewReader(raw)
	}
	req, err := http.NewRequest(method, strings.TrimSuffix(base, "/")+path, send)
	if err != nil {
		return fmt.Errorf("ask the hub: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	if r.Token != "" {
		req.Header.Set("Authorization", "Bearer "+r.Token)
	}
	res, err := client.Do(req)
	var untrusted *tls.CertificateVerificationError
	if errors.As(err, &untrusted) {
		return fmt.Errorf("ask the hub: %w (name its authority with --ca, and use a name of its certificate in --url)", err)
	}
	if err != nil {
		return fmt.Errorf("ask the hub: %w (is it running? name another with --url)", err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return fmt.Errorf("ask the hub: %w", err)
	}
	if res.StatusCode >= 300 {
		return refusal(res, raw)
	}
	if r.JSON {
		_, err := e.out.Write(raw)
		return err
	}
	return json.Unmarshal(raw, into)
}

// refusal puts the hub's problem into words.
func refusal(res *http.Response, raw []byte) error {
	var problem struct {
		Detail string
		Errors []struct{ Location, Message string }
	}
	if json.Unmarshal(raw, &problem) != nil || problem.Detail == "" {
		return fmt.Errorf("the hub answered %s", res.Status)
	}
	text := problem.Detail
	for _, x := range problem.Errors {
		text += "; " + strings.TrimPrefix(x.Location+": ", ": ") + x.Message
	}
	if res.StatusCode == http.StatusUnauthorized {
		text += " (give it with --token or in SYNCHUB_TOKEN)"
	}
	return fmt.Errorf("the hub says: %s", text)
}

// client returns how and where to ask. What is not given comes from the configuration.
func (r remote) client(e *env) (*http.Client, string, error) {
	base, file, name := r.URL, r.CA, ""
	if base == "" {
		cfg, err := load(e.cli.Config)
		if err != nil {
			return nil, "", err
		}
		cfg.SetDefaults()
		base = "http://" + reachable(cfg.Listen.HTTP)
		if cfg.TLS.HTTP {
			base = strings.Replace(base, "http:", "https:", 1)
			if file == "" {
				file = cfg.TLS.AgentsCAFile
			}
			if name, err = certified(cfg.TLS.CertFile); err != nil {
				return nil, "", err
			}
		}
	}
	t := &tls.Config{ServerName: name, MinVersion: tls.VersionTLS12}
	if file != "" {
		raw, err := os.ReadFile(file)
		if err != nil {
			return nil, "", fmt.Errorf("read the hub's authority: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(raw) {
			return nil, "", fmt.Errorf("read the hub's authority: %q holds no PEM certificate", file)
		}
	}
	return &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: t, Proxy: http.ProxyFromEnvironment}}, base, nil
}

// reachable turns an address to listen on into one to call on this machine.
func reachable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// certified returns the first name in the hub's own certificate: on this machine the hub is called by its address.
func certified(file string) (string, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read the hub's certificate: %w", err)
	}
	block, _ := pem.Decode(raw)
	if block == nil {
		return "", fmt.Errorf("read the hub's certificate: %q holds no PEM certificate", file)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	switch {
	case err != nil:
		return "", fmt.Errorf("read the hub's certificate %q: %w", file, err)
	case len(cert.DNSNames) > 0:
		return cert.DNSNames[0], nil
	case len(cert.IPAddresses) > 0:
		return cert.IPAddresses[0].String(), nil
	}
	return "", nil
}

type agentsCmd struct{ remote }

func (c agentsCmd) Run(e *env) error {
	var list struct{ Items []api.Agent }
	if err := c.call(e, "GET", "/v1/agents", nil, &list); err != nil || c.JSON {
		return err
	}
	w := tabwriter.NewWriter(e.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PLANT\tAGENT\tCONNECTED\tSTATE\tPENDING\tREASON")
	for _, a := range list.Items {
		fmt.Fprintf(w, "%s\t%s\t%t\t%s\t%d\t%s\n", a.Plant, a.Agent, a.Connected, a.State, a.Pending, a.Reason)
	}
	return w.Flush()
}

type factCmd struct {
	Key string `arg:"" help:"16 characters, or the UUID form."`
	remote
}

func (c factCmd) Run(e *env) error {
	var f api.FactLife
	if err := c.call(e, "GET", "/v1/facts/"+url.PathEscape(c.Key), nil, &f); err != nil || c.JSON {
		return err
	}
	content, err := json.Marshal(f.Content)
	if err != nil {
		return err
	}
	fmt.Fprintf(e.out, "%s  %s of %s/%s, source %s", f.Key, strings.ReplaceAll(f.Kind, "_", " "), f.Plant, f.Agent, f.Source)
	if f.OrderNo != "" {
		fmt.Fprintf(e.out, ", order %s", f.OrderNo)
	}
	fmt.Fprintf(e.out, "\nUUID %s, made from %s\n%s\n", f.UUID, f.Position, content)
	if m := f.Mapping; m != nil {
		for _, v := range m.Values {
			fmt.Fprintln(e.out, "posted with", mapping.Value(v))
		}
	}
	if p := f.Posting; p != nil && p.NextStep != "" {
		fmt.Fprintf(e.out, "next step: %s\n", p.NextStep)
	}
	w := tabwriter.NewWriter(e.out, 0, 0, 2, ' ', 0)
	for _, s := range f.Life {
		fmt.Fprintf(w, "%s\t%s\t%s\n", s.At.Format("2006-01-02 15:04:05.000 -07:00"), s.Step, words(s.Document, s.Code, s.Reason, s.By))
	}
	return w.Flush()
}

func words(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), "  ")
}

type replayCmd struct {
	Key     string `arg:"" optional:"" help:"Key of one fact; without it every parked posting that matches."`
	ERP     string `help:"Only postings of this ERP."`
	OrderNo string `name:"order" help:"Only postings of this work order."`
	Code    string `help:"Only postings parked with this code."`
	All     bool   `help:"Really all parked postings."`
	DryRun  bool   `name:"dry-run" help:"Only count what would be taken up again."`
	Rate    int    `name:"per-minute" help:"Take them up one after the other, so many a minute; the hub goes on with it after a restart, and the console cancels it."`
	Note    string `help:"Why; kept with a replay that has a rate." default:"asked for by synchub replay"`
	remote
}

func (c replayCmd) Run(e *env) error {
	if c.Key != "" && (c.ERP != "" || c.OrderNo != "" || c.Code != "" || c.All) {
		return usage("a key names one posting: leave out the other choices")
	}
	if c.Key == "" && c.ERP == "" && c.OrderNo == "" && c.Code == "" && !c.All {
		return usage("choose what to replay: a key, --order, --code, --erp, or --all")
	}
	if c.Key != "" && c.Rate != 0 {
		return usage("a key names one posting: leave out --per-minute")
	}
	if c.Rate != 0 && !c.DryRun {
		return c.atRate(e)
	}
	body := map[string]any{}
	for k, v := range map[string]bool{"all": c.All, "dry_run": c.DryRun} {
		if v {
			body[k] = true
		}
	}
	for k, v := range map[string]string{"key": c.Key, "erp": c.ERP, "order_no": c.OrderNo, "code": c.Code} {
		if v != "" {
			body[k] = v
		}
	}
	var done api.Done
	if err := c.call(e, "POST", "/v1/postings/replay", body, &done); err != nil || c.JSON {
		return err
	}
	is, are := "is taken up again", "are taken up again"
	if done.DryRun {
		is, are = "would be taken up again", "would be taken up again"
	}
	switch done.Count {
	case 0:
		fmt.Fprintln(e.out, "no parked posting matches")
	case 1:
		fmt.Fprintln(e.out, "1 posting", is)
	default:
		fmt.Fprintln(e.out, done.Count, "postings", are)
	}
	return nil
}

const sampleHead = `# Linekeeper sync hub. Unknown keys are refused; check this file with: synchub check -c FILE
# A relative file name starts at this file's own folder.

listen:
  grpc: 0.0.0.0:9443        # plant agents, mutual TLS
  http: 127.0.0.1:8080      # API and console; on other addresses tokens and tls.http are needed
tls:
  cert_file: pki/hub.pem    # made by: synchub cert init --dir pki --host hub.example.com
  key_file: pki/hub.key
  agents_ca_file: pki/ca.pem
  # http: true              # the API speaks TLS with the same certificate
# data_dir: data

# api:
#   tokens:                 # made by: synchub token --name planner
#     - {name: planner, sha256: ..., write: true}
#     - {name: erp1 events, sha256: ..., wake: [erp1]}   # may only have erp1 asked at once: POST /v1/erps/erp1/wake
#   wake_secrets:           # for ERPs that sign their events and cannot send a token; file or env
#     - {file: erp1-events.txt, erp: erp1}

plants:
  - plant: ulm
    time_zone: Europe/Berlin
    agents: [line1]

# Which agent gets a work order. The first route that fits; an empty key fits everything.
routes:
  - {erp: erp1, plant: ulm, agent: line1}
  # - {erp: erp1, site: WH2, work_center: Line 1, plant: ulm, agent: line2}

# posting:
#   workers: 4              # calls that one ERP is asked side by side, each about another order
#   quiet: 10s              # an order is closed in the ERP when it brought no new fact for so long
#   close_after: 1h         # at the latest, when the plant cannot say that nothing is left
#   policies:               # of those that fit, the first that says something about a matter counts
#     - erp: erp1           # empty: all; so is plant
#       plant: ulm
#       late_facts: first_open_day    # or hold (a person approves), or event_date (the default: the ERP refuses it)
#       month_closes: "3 18:00"       # day of the next month and time of the plant; else it is learned from refusals
#       doubtful_clock: hold          # or received_date (the default), or event_date
#       over_delivery: stop           # or allow (the default)
#       tolerance_percent: "2.5"      # of the order's quantity
#       closed_orders: hold           # the default; or reopen, post and restore, where the ERP can
#       order_end: all_operations      # or last_operation, order (only a finish without an operation), reported_operations (the default)
#       collect: {every: 10m, quantity: "500", order_end: true}   # one document of several facts
#     - {items: [OIL], backflush: mes}  # who posts the consumption: erp or mes; without it, the order's mark decides

# Business objects (purchases, sales, shipments, invoices, counts, items, parties) of ERPs whose connector offers them. Without an
# entry nothing is read or written.
# business:
#   - {erp: erp1, kinds: [all], every: 30s, write: true}   # or some of item, party, purchase_order, sales_order, shipment, invoice, cycle_count, inventory_movement

# Compare with what the ERPs hold. Without "every" nothing is compared by itself.
# reconcile:
#   every: 30s              # orders whose postings have settled
#   settle: 2m              # how old a posting must be before it is compared
#   nightly: 2h             # everything, as time since midnight UTC
#   balances: [{erp: erp, item: STEEL-S235}]   # stocks that only orders move; also site, storage, lot, plant
#   balances_every: 15m
#   writes_every: 1h        # written business objects are read back, for writes_window after they were verified
#   writes_window: 72h
#   heals_per_order: 20     # what may change the ERP's books without a person; -1 means nothing
#   heals_per_day: 1000
#   prices: {STEEL-S235: "1.35"}   # per unit of an item: the inbox says what an exception is worth, and no heal without a person moves more than 10000
#   currency: EUR

# When something silent is an alarm in the inbox; 0 means never.
# alarms:
#   agent_away: 10m         # an agent that was not heard of, counted while the hub runs
#   agent_unwell: 5m        # a source that an agent does not reach, a clock that differs from the hub's, facts that do not get through
#   order_waits: 15m        # a released work order that no route leads to an agent, facts whose order does not come

# Tell people of what waits for them in the inbox. Try it with: synchub notify test -c FILE
# notify:
#   console: https://hub.example.com:8443   # where messages lead
#   receivers:
#     - name: shift-lead
#       email: {to: [lead.ulm@example.com]}
#     - name: ops
#       webhook: {url: "https://ops.example.com/hooks/linekeeper", secret: {file: ops-secret.txt}}   # or env: VARIABLE
#   smtp:
#     server: mail.example.com:587
#     tls: starttls           # or implicit (port 465), or none, which sends no password
#     from: linekeeper@example.com
#     user: linekeeper
#     password: {file: mail-password.txt}
#   rules:                    # all that fit count; an empty key fits everything
#     - {tell: [shift-lead], plant: [ulm], owner: [production, warehouse], severity: medium}
#     - {tell: [ops], tier: 1}   # 1: its time has passed, 2: twice
#   digest: 10m               # the pause after a message that tells of very many

erps:
`

const trytonSample = `url: https://erp.example.com/plant/
user: linekeeper            # an account of the hub's own, groups Stock and Production (Purchase, Sales, Account for documents)
password_file: erp-password.txt
# sites: {WH: ulm}          # warehouse code to site
# units: {Stk: C62}         # unit symbols to UN/ECE Rec 20; adds to the built-in map
# scrap_location: SCRAP
# check_stock: true
# finish_works: true
`

const sandboxSample = `url: http://127.0.0.1:8000
user: hub
password_file: sandbox-password.txt
`

type sampleCmd struct{}

func (sampleCmd) Run(e *env) error { return writeSample(e.out) }

// writeSample prints one whole file: the first connector to use, the others commented out.
func writeSample(w io.Writer) error {
	var b strings.Builder
	b.WriteString(sampleHead)
	for i, k := range connectors() {
		comment := ""
		if i > 0 {
			comment = "# "
		}
		fmt.Fprintf(&b, "%s  - name: erp%d\n%s    kind: %s\n", comment, i+1, comment, k.Name)
		for line := range strings.Lines(k.Sample) {
			b.WriteString(comment + "    " + line)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
