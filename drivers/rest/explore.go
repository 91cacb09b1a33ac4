package rest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/payload"
	"github.com/linekeeper/linekeeper/drivers/polling"
)

// Probe implements signal.Prober: the way to the MES step by step, and one page of each query. Work orders are not tried: that
// would hand one over.
func (s *source) Probe(ctx context.Context) []signal.Step {
	var steps []signal.Step
	add := func(name, detail string, err error) bool {
		x := signal.Step{Name: name, Detail: detail}
		if err != nil {
			x.Problem = explain(name, err, 0)
		}
		steps = append(steps, x)
		return err == nil
	}
	for address := range s.client.hosts {
		u, err := url.Parse(address)
		if err != nil || !s.probeHost(ctx, u, add) {
			return steps
		}
	}
	if a := s.config.Auth; a != nil && a.OAuth2 != nil {
		hc, err := s.client.transport()
		if err == nil {
			_, err = s.client.oauthToken(ctx, hc)
		}
		if !add("token from "+a.OAuth2.TokenURL, "client credentials", err) {
			return steps
		}
	}
	for i := range s.config.Queries {
		q := &s.config.Queries[i]
		n, err := s.probeQuery(ctx, q, q.Tag, nil)
		add("query "+q.Tag, fmt.Sprintf("%d records on the first page", n), err)
	}
	if w := s.config.WorkOrders; w != nil && w.Answers != nil {
		n, err := s.probeQuery(ctx, &w.Answers.Query, ordersSection, w.Answers)
		add("answers to work orders", fmt.Sprintf("%d on the first page", n), err)
	}
	if w := s.config.Webhook; w != nil {
		s.probeHooks(ctx, w, add)
	}
	return steps
}

func (s *source) probeHost(ctx context.Context, u *url.URL, add func(name, detail string, err error) bool) bool {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	if proxy, err := http.ProxyFromEnvironment(&http.Request{URL: u}); err == nil && proxy != nil {
		return add("the way to "+u.Host, "through the proxy "+proxy.Host, nil) // the queries show whether it lets us pass
	}
	addresses, err := net.DefaultResolver.LookupHost(ctx, u.Hostname())
	if !add("name "+u.Hostname()+" is known", strings.Join(addresses, ", "), err) {
		return false
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", host)
	if !add("port of "+host+" is open", "", err) {
		return false
	}
	defer conn.Close()
	if u.Scheme != "https" {
		return true
	}
	hc, err := s.client.transport()
	if err != nil {
		return add("certificate of "+host, "", err)
	}
	secure := hc.Transport.(*http.Transport).TLSClientConfig.Clone()
	if secure.ServerName == "" {
		secure.ServerName = u.Hostname()
	}
	t := tls.Client(conn, secure)
	err = t.HandshakeContext(ctx)
	detail := ""
	if err == nil {
		detail = fmt.Sprintf("%s, valid until %s", t.ConnectionState().PeerCertificates[0].Subject, t.ConnectionState().PeerCertificates[0].NotAfter.Format(time.DateOnly))
	}
	return add("certificate of "+host+" is trusted", detail, err)
}

// probeQuery reads the first page of a query and says what Run would.
func (s *source) probeQuery(ctx context.Context, q *Query, section string, a *Answers) (int, error) {
	p := &poller{source: s, query: q, section: section, answers: a, pass: &pass{front: q.First}}
	rep, _, err := p.ask(ctx)
	if err != nil {
		return 0, err
	}
	body, err := payload.JSON(rep.body)
	if err != nil {
		return 0, &polling.ProblemError{Problem: signal.Problem{Code: "bad_json", Reason: fmt.Sprintf("the answer is no JSON: %v", err), NextStep: "compare url and headers with the MES's documentation"}}
	}
	items, err := p.items(body)
	if err != nil {
		return 0, err
	}
	for _, item := range items {
		if r := p.record(item); r.signal.Problem != nil {
			return len(items), &polling.ProblemError{Problem: *r.signal.Problem}
		}
	}
	return len(items), nil
}

func (s *source) probeHooks(ctx context.Context, w *Webhook, add func(name, detail string, err error) bool) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", w.Listen)
	if err == nil {
		l.Close()
	}
	add("address "+w.Listen+" is free for webhooks (it is taken while the agent runs)", "", err)
	if w.TLS != nil {
		_, err := w.TLS.config()
		add("certificate for webhooks", w.TLS.CertFile, err)
	}
	for _, h := range w.Hooks {
		lines, err := readSecrets(h.SecretFile)
		add("secret of "+h.Path, fmt.Sprintf("%d in the file", len(lines)), err)
	}
}

// Browse implements signal.Browser: the addresses of the queries at the top (an MES tells nobody which ones it has), and below an
// address the fields of the first record that it answers with. Any address below the base can be asked for by its path.
func (s *source) Browse(ctx context.Context, at, _ string, limit int) ([]signal.Entry, string, error) {
	if at == "" {
		out := []signal.Entry{}
		for _, q := range s.config.Queries {
			if q.Method == http.MethodGet {
				out = append(out, signal.Entry{ID: q.URL, Path: strings.Trim(q.URL, "/"), Name: q.Tag, Kind: "address", Children: true})
			}
		}
		if len(out) == 0 && s.config.Base != "" {
			return s.fields(ctx, "/", limit)
		}
		return out, "", nil
	}
	return s.fields(ctx, at, limit)
}

func (s *source) fields(ctx context.Context, at string, limit int) ([]signal.Entry, string, error) {
	u, err := join(s.config.Base, fillURL(at, map[string]string{"{cursor}": "", "{page}": "", "{limit}": "10"}))
	if err != nil {
		return nil, "", err
	}
	rep, err := s.client.do(ctx, request{method: http.MethodGet, url: u.String()})
	if err != nil {
		return nil, "", err
	}
	if rep.code != http.StatusOK {
		return nil, "", rep.problem(at)
	}
	body, err := payload.JSON(rep.body)
	if err != nil {
		return nil, "", fmt.Errorf("%s answers with what is no JSON: %w", u.Path, err)
	}
	records, list := firstList(body, "")
	if len(list) == 0 {
		return nil, "", nil
	}
	first, ok := list[0].(map[string]any)
	if !ok {
		return nil, "", fmt.Errorf("%s answers with a list of what are no objects", u.Path)
	}
	names := make([]string, 0, len(first))
	for name := range first {
		names = append(names, name)
	}
	slices.Sort(names)
	if len(names) > limit {
		names = names[:limit]
	}
	out := make([]signal.Entry, len(names))
	for i, name := range names {
		text, single := plain(first[name])
		out[i] = signal.Entry{ID: at + "#" + name, Path: strings.Trim(u.Path, "/") + "/" + name, Name: name, Kind: "field", Type: typeName(first[name]),
			Value: clip(text), Readable: single, Tag: proposal(u.Path, at, records, name, names)}
	}
	return out, "", nil
}

// proposal is a query for an address, with the field as key.
func proposal(p, at, records, key string, names []string) string {
	text := fmt.Sprintf("tag: %s\nurl: %q\nkey: [%s]\n", path.Base(p), at, key)
	if records != "" {
		text += "records: " + records + "\n"
	}
	for _, n := range names {
		if slices.Contains([]string{"updated_at", "updatedAt", "modified", "changed_at", "changedAt"}, n) {
			return text + "version: " + n + "\n"
		}
	}
	return text
}

// firstList finds the list of records in an answer: the answer itself, or the first list of objects in it.
func firstList(v any, at string) (string, []any) {
	switch v := v.(type) {
	case []any:
		return at, v
	case map[string]any:
		names := make([]string, 0, len(v))
		for name := range v {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			if list, ok := v[name].([]any); ok {
				return strings.TrimPrefix(at+"."+name, "."), list
			}
		}
		for _, name := range names {
			if m, ok := v[name].(map[string]any); ok && strings.Count(at, ".") < 3 {
				if p, list := firstList(m, strings.TrimPrefix(at+"."+name, ".")); len(list) > 0 {
					return p, list
				}
			}
		}
		if at == "" {
			return "", []any{v}
		}
	}
	return at, nil
}

func typeName(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		return "string"
	case signal.Number:
		return "number"
	case []any:
		return "list"
	}
	return "object"
}

// Find implements signal.Browser.
func (s *source) Find(ctx context.Context, at, glob string, f func(signal.Entry) bool) error {
	match, err := globExpression(glob)
	if err != nil {
		return err
	}
	top, _, err := s.Browse(ctx, at, "", 1000)
	if err != nil {
		return err
	}
	for _, e := range top {
		below := []signal.Entry{e}
		if e.Children {
			if below, _, err = s.Browse(ctx, e.ID, "", 1000); err != nil {
				return err
			}
		}
		for _, x := range below {
			if x.Readable && match.MatchString(x.Path) && !f(x) {
				return nil
			}
		}
	}
	return nil
}

func globExpression(glob string) (*regexp.Regexp, error) {
	text := regexp.QuoteMeta(glob)
	text = strings.NewReplacer(`\*\*`, `.*`, `\*`, `[^/]*`, `\?`, `[^/]`).Replace(text)
	return regexp.Compile("^" + text + "$")
}

// discover asks an address, https before http, whether it answers at all.
func discover(ctx context.Context, _ signal.Env, address string) ([]signal.Offer, error) {
	bare := address
	for _, scheme := range []string{"https://", "http://"} {
		bare = strings.TrimPrefix(bare, scheme)
	}
	if bare == "" || strings.ContainsAny(bare, " @") {
		return nil, fmt.Errorf("%q is no address such as mes.example:8443/api", address)
	}
	var (
		offers []signal.Offer
		failed []error
	)
	for _, scheme := range []string{"https://", "http://"} {
		if strings.Contains(address, "://") && !strings.HasPrefix(address, scheme) {
			continue
		}
		offer, err := tryAddress(ctx, scheme+strings.TrimSuffix(bare, "/"))
		if err != nil {
			failed = append(failed, fmt.Errorf("%s%s: %w", scheme, bare, err))
			continue
		}
		offers = append(offers, offer)
	}
	if len(offers) == 0 {
		return nil, errors.Join(failed...)
	}
	return offers, nil
}

func tryAddress(ctx context.Context, base string) (signal.Offer, error) {
	c := Config{Base: base}
	c.fill(signal.Env{})
	c.Timeout = 5 * time.Second
	cl, err := newClient(&c)
	if err != nil {
		return signal.Offer{}, err
	}
	defer cl.close()
	o := signal.Offer{Secure: strings.HasPrefix(base, "https:"), Section: fmt.Sprintf("base: %q\n", base)}
	rep, err := cl.do(ctx, request{method: http.MethodGet, url: base + "/"})
	var unknown *tls.CertificateVerificationError
	switch {
	case errors.As(err, &unknown):
		o.Title = base + ", its certificate is not known to this computer"
		o.Section += "tls: {ca_file: mes-ca.pem}\n"
		o.Notes = []string{"Get the certificate of the authority that signed the MES's certificate from its administrator, and save it as mes-ca.pem beside the configuration."}
		return o, nil
	case err != nil:
		return o, err
	}
	o.Title = fmt.Sprintf("%s, answers %d", base, rep.code)
	if server := clip(rep.header.Get("Server")); server != "" {
		o.Title += ", " + server
	}
	if rep.code == http.StatusUnauthorized || rep.code == http.StatusForbidden {
		o.Section += "auth: {bearer_file: mes.token}\n"
		o.Notes = append(o.Notes, "The MES asks who we are ("+clip(rep.header.Get("WWW-Authenticate"))+"): choose basic, bearer_file, header or oauth2 for auth.")
	}
	if !o.Secure {
		o.Notes = append(o.Notes, "Not encrypted: whoever is in the network can read and change everything.")
	}
	return o, nil
}
