package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/hub/connector/sandbox/erp"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/wire"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// buffer may be written and read at the same time.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// synchub runs a command line and checks its exit code.
func synchub(t *testing.T, want int, args ...string) (out, errOut string) {
	t.Helper()
	var o, e buffer
	if got := run(args, &o, &e); got != want {
		t.Fatalf("synchub %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, want, o.String(), e.String())
	}
	return o.String(), e.String()
}

// says checks that a text names things.
func says(t *testing.T, text string, names ...string) {
	t.Helper()
	for _, n := range names {
		if !strings.Contains(text, n) {
			t.Errorf("%q is not in:\n%s", n, text)
		}
	}
}

func save(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWrongUsageEndsWith64AndPointsToTheHelp(t *testing.T) {
	for _, args := range [][]string{{}, {"fly"}, {"serve", "--fly"}, {"fact"}, {"cert", "init"}, {"cert", "agent", "--plant", "ulm"}, {"token"}} {
		_, e := synchub(t, 64, args...)
		says(t, e, "synchub: ", "synchub --help")
	}
	_, e := synchub(t, 64, "replay")
	says(t, e, "choose what to replay", "--code", "--all")
	_, e = synchub(t, 64, "replay", "U7DOIRTV5EXVVADG", "--all")
	says(t, e, "one posting")
}

func TestEveryCommandShowsAnExample(t *testing.T) {
	out, _ := synchub(t, 0, "--help")
	commands := []string{"serve", "check", "sample", "cert", "cert init", "cert agent", "token", "agents", "fact", "inbox", "replay", "import", "version"}
	says(t, out, append(commands[:3:3], "cert init", "cert agent", "token", "agents", "fact", "inbox", "replay", "import", "version", "Example: synchub ")...)
	for _, c := range commands {
		out, _ := synchub(t, 0, append(strings.Fields(c), "--help")...)
		says(t, out, "Example: synchub "+c)
	}
}

func TestVersionIsPrinted(t *testing.T) {
	if out, _ := synchub(t, 0, "version"); out != version+"\n" {
		t.Errorf("version %q", out)
	}
}

func TestSampleIsValidOnceItsFilesExist(t *testing.T) {
	t.Chdir(t.TempDir())
	sample, _ := synchub(t, 0, "sample")
	save(t, "hub.yaml", sample)
	_, e := synchub(t, 78, "check")
	says(t, e, "hub.yaml", "tls.cert_file", "synchub cert init", "erp-password.txt", `ERP "erp1"`)
	synchub(t, 0, "cert", "init", "--host", "hub.example.com")
	save(t, "erp-password.txt", "secret\n")
	out, _ := synchub(t, 0, "check", "-c", "hub.yaml")
	says(t, out, "hub.yaml is valid", "Plants: 1", "ERPs: 1", "routes: 1")

	// What is commented out is right as well.
	head, erps, found := strings.Cut(sample, "\nerps:\n")
	if !found {
		t.Fatal("the sample has no erps")
	}
	head = regexp.MustCompile(`(?m)^( *)# ( *)(- \{erp|business:|posting:|  workers:|  quiet:|  close_after:|  policies:|    - erp: erp1|    - \{items|      (?:plant|late_facts|month_closes|doubtful_clock|over_delivery|tolerance_percent|closed_orders|order_end|collect):|alarms:|  agent_away:|  agent_unwell:|  order_waits:|data_dir:)`).ReplaceAllString(head, "$1$2$3")
	erps = regexp.MustCompile(`(?m)^# (  .*)$`).ReplaceAllString(erps, "$1") // a connector's own comments stay
	whole := head + "\nerps:\n" + erps
	if !strings.Contains(whole, "\n      collect: {") {
		t.Fatal("the policies are still commented out")
	}
	if !strings.Contains(whole, "\n  order_waits: ") {
		t.Fatal("the alarms are still commented out")
	}
	if strings.Count(whole, "#") >= strings.Count(sample, "#") {
		t.Fatal("nothing was taken out of its comment")
	}
	whole = strings.Replace(whole, "agents: [line1]", "agents: [line1, line2]", 1)
	if strings.Count(whole, "#") >= strings.Count(sample, "#") {
		t.Fatal("nothing was taken out of its comment")
	}
	save(t, "whole.yaml", whole)
	save(t, "sandbox-password.txt", "secret\n")
	save(t, "erp-database.txt", "postgres://synchub:secret@erp.example.com/interface\n")
	out, _ = synchub(t, 0, "check", "-c", "whole.yaml")
	says(t, out, fmt.Sprintf("ERPs: %d,", len(connectors())), "routes: 2")
}

func TestCheckNamesFileLineAndHint(t *testing.T) {
	t.Chdir(t.TempDir())
	_, e := synchub(t, 78, "check")
	says(t, e, "hub.yaml", "--config", "synchub sample")
	_, e = synchub(t, 78, "serve")
	says(t, e, "hub.yaml", "synchub sample")
	sample, _ := synchub(t, 0, "sample")
	save(t, "bad.yaml", strings.Replace(sample, "listen:", "lisden:", 1))
	for _, command := range []string{"check", "serve"} {
		_, e = synchub(t, 78, command, "-c", "bad.yaml")
		says(t, e, "bad.yaml:4", `"lisden"`, `did you mean "listen"?`)
	}
	save(t, "bad.yaml", strings.Replace(sample, "kind: tryton", "kind: abacus", 1))
	_, e = synchub(t, 78, "check", "-c", "bad.yaml")
	says(t, e, "bad.yaml:", `kind "abacus" is not known`, "use one of tryton, ")
}

func TestCertificatesAreNeverOverwritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	out, _ := synchub(t, 0, "cert", "init", "--dir", dir, "--host", "hub.example.com", "--host", "10.0.0.5")
	says(t, out, dir, "ca.key", "hub.pem", "hub.example.com, 10.0.0.5")
	agent := filepath.Join(t.TempDir(), "line1")
	out, _ = synchub(t, 0, "cert", "agent", "--dir", dir, "--plant", "ulm", "--agent", "line1", "--out", agent)
	says(t, out, agent, "agent.pem", "agent.key", "ca.pem")
	before := content(t, dir)
	_, e := synchub(t, 1, "cert", "init", "--dir", dir, "--host", "hub.example.com")
	says(t, e, dir, "one already")
	if after := content(t, dir); after != before {
		t.Error("the authority was changed")
	}
	_, e = synchub(t, 78, "cert", "agent", "--dir", t.TempDir(), "--plant", "ulm", "--agent", "line1", "--out", agent)
	says(t, e, "synchub cert init")
	_, e = synchub(t, 1, "cert", "agent", "--dir", dir, "--plant", "ulm/2", "--agent", "line1", "--out", agent)
	says(t, e, `"ulm/2"`)
	for _, key := range []string{filepath.Join(dir, "ca.key"), filepath.Join(dir, "hub.key"), filepath.Join(agent, "agent.key")} {
		if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("key %s: %v, %v", key, info.Mode(), err)
		}
	}
}

func content(t *testing.T, dir string) (all string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("files %v, %v", files, err)
	}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all += f + string(raw)
	}
	return all
}

// plant is a configured hub with an ERP in which one posting is refused until the ERP is mended.
type plant struct {
	t    *testing.T
	dir  string
	erp  *erp.ERP
	keys []string
}

var secret = regexp.MustCompile(`(?m)^# token, shown this once: (\S+)$`)

// newPlant writes a configuration whose token lines are pasted from the command's output.
func newPlant(t *testing.T) (p *plant, token string) {
	t.Helper()
	p = &plant{t: t, dir: t.TempDir()}
	var err error
	if p.erp, err = erp.Open(filepath.Join(p.dir, "erp.db"), erp.Options{User: "hub", Password: "sandbox"}); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(p.erp.Handler())
	t.Cleanup(func() { srv.Close(); p.erp.Close() })
	if err := p.erp.SeedDemo(t.Context()); err != nil {
		t.Fatal(err)
	}
	synchub(t, 0, "cert", "init", "--dir", filepath.Join(p.dir, "pki"), "--host", "hub.example.com")
	pasted, _ := synchub(t, 0, "token", "--name", "planner", "--write")
	m := secret.FindStringSubmatch(pasted)
	if m == nil {
		t.Fatalf("no token in %s", pasted)
	}
	save(t, filepath.Join(p.dir, "erp-password.txt"), "sandbox\n")
	save(t, filepath.Join(p.dir, "hub.yaml"), fmt.Sprintf(`listen: {grpc: "127.0.0.1:0", http: "127.0.0.1:0"}
tls: {cert_file: pki/hub.pem, key_file: pki/hub.key, agents_ca_file: pki/ca.pem, http: true}
plants: [{plant: ulm, time_zone: Europe/Berlin, agents: [line1]}]
routes: [{erp: erp, plant: ulm, agent: line1}]
erps: [{name: erp, kind: sandbox, url: %q, user: hub, password_file: erp-password.txt, settle: 100ms}]
dispatch: {every: 200ms}
`, srv.URL)+pasted)
	return p, m[1]
}

// fill stores what an agent would have sent: two confirmations, the second in a period that is closed.
func (p *plant) fill(no string) {
	p.t.Helper()
	s, err := store.Open(p.t.Context(), filepath.Join(p.dir, "data", "hub.db"), store.Options{})
	if err != nil {
		p.t.Fatal(err)
	}
	defer s.Close()
	var a store.Agent
	if err := s.Update(p.t.Context(), func(tx *store.Tx) (err error) { a, err = tx.AgentByName("ulm", "line1"); return err }); err != nil {
		p.t.Fatal(err)
	}
	b := store.Batch{AgentID: a.ID, Agent: "ulm/line1", Generation: "g", FirstSeq: 1}
	for _, day := range []int{10, 40} {
		position := factkey.Position("test", fmt.Sprint(day))
		at := time.Date(2026, 1, day, 12, 0, 0, 0, time.UTC)
		f := object.Fact{
			Key: factkey.Of(position), Kind: object.KindConfirmation, Plant: "ulm", Source: "press", TimeZone: "UTC", Position: position, OccurredAt: at, RecordedAt: at,
			Confirmation: &object.Confirmation{OrderNo: no, Operation: "0010", Item: "BRACKET-10", Unit: "C62", Yield: decimal.RequireFromString("3")},
		}
		body, err := wire.EncodeFact(f)
		if err != nil {
			p.t.Fatal(err)
		}
		b.Records = append(b.Records, store.Record{Key: f.Key, Body: body})
		p.keys = append(p.keys, f.Key.String())
	}
	if _, err := s.AppendFacts(p.t.Context(), []store.Batch{b}); err != nil {
		p.t.Fatal(err)
	}
}

var printed = regexp.MustCompile(`console and API: (\S+)\nagents: (\S+)`)

// serve runs the hub until the returned function interrupts it, and returns the address that it printed.
func (p *plant) serve() (url string, stop func() int) {
	p.t.Helper()
	var out, errOut buffer
	code := make(chan int, 1)
	go func() { code <- run([]string{"serve", "-c", filepath.Join(p.dir, "hub.yaml")}, &out, &errOut) }()
	realparts.Eventually(p.t, 90*time.Second, "the hub prints its addresses", func() error {
		m := printed.FindStringSubmatch(out.String())
		if m == nil {
			return fmt.Errorf("%s%s", out.String(), errOut.String())
		}
		url = m[1]
		return nil
	})
	stop = sync.OnceValue(func() int {
		self, err := os.FindProcess(os.Getpid())
		if err != nil {
			p.t.Fatal(err)
		}
		if err := self.Signal(os.Interrupt); err != nil { // as Ctrl-C does
			p.t.Fatal(err)
		}
		return <-code
	})
	p.t.Cleanup(func() {
		if c := stop(); c != 0 {
			p.t.Errorf("serve ended with %d:\n%s", c, errOut.String())
		}
	})
	return url, stop
}

func TestCommandsAskARunningHub(t *testing.T) {
	p, token := newPlant(t)
	no, err := p.erp.ReleaseDemoOrder(t.Context(), "ULM", "press1", 0, 60)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.erp.SetPeriod(context.Background(), "2026-02", false); err != nil {
		t.Fatal(err)
	}
	p.fill(no)
	url, stop := p.serve()
	ca := filepath.Join(p.dir, "pki", "ca.pem")
	// The certificate names hub.example.com, the address is 127.0.0.1: the file is given its port, as on the hub's own machine.
	cfg := filepath.Join(p.dir, "client.yaml")
	raw, err := os.ReadFile(filepath.Join(p.dir, "hub.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	save(t, cfg, strings.Replace(string(raw), `http: "127.0.0.1:0"`, fmt.Sprintf("http: %q", strings.TrimPrefix(url, "https://")), 1))
	ask := func(want int, args ...string) (string, string) {
		t.Helper()
		return synchub(t, want, append(args, "-c", cfg, "--token", token)...)
	}

	_, e := synchub(t, 1, "agents", "-c", cfg)
	says(t, e, "a token is needed", "--token", "SYNCHUB_TOKEN")
	_, e = synchub(t, 1, "agents", "-c", cfg, "--token", "wrong")
	says(t, e, "not known")
	_, e = synchub(t, 1, "agents", "--url", url, "--ca", ca, "--token", token)
	says(t, e, "127.0.0.1", "--ca", "--url") // the name is checked

	realparts.Eventually(t, 90*time.Second, "the second posting is parked", func() error {
		var o, e buffer
		if run([]string{"fact", p.keys[1], "-c", cfg, "--token", token}, &o, &e) != 0 || !strings.Contains(o.String(), "2026-02 is closed") {
			return fmt.Errorf("%s%s", o.String(), e.String())
		}
		return nil
	})
	out, _ := ask(0, "agents")
	says(t, out, "PLANT", "ulm", "line1", "false")
	out, _ = ask(0, "agents", "--json")
	var list struct{ Items []struct{ Agent string } }
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list.Items) != 1 || list.Items[0].Agent != "line1" {
		t.Errorf("agents %v, %v", list, err)
	}
	out, _ = ask(0, "fact", strings.ToLower(p.keys[1]))
	says(t, out, p.keys[1], "production confirmation of ulm/line1", "order "+no, "next step: ", "occurred", "received", "rejected", "2026-02-09 12:00:00.000")
	out, _ = ask(0, "fact", p.keys[1], "--json")
	var f struct {
		Key     string
		Content map[string]any
	}
	if err := json.Unmarshal([]byte(out), &f); err != nil || f.Key != p.keys[1] || f.Content["yield"] != "3" {
		t.Errorf("fact %+v, %v", f, err)
	}
	_, e = ask(1, "fact", "AAAAAAAAAAAAAAAA")
	says(t, e, "AAAAAAAAAAAAAAAA", "not known")
	_, e = ask(1, "fact", "nonsense")
	says(t, e, `"nonsense"`, "neither")

	out, _ = ask(0, "inbox")
	says(t, out, "posting:", "controlling", "unknown", "waits for a person", "posting date")
	out, _ = ask(0, "inbox", "--owner", "quality")
	says(t, out, "nothing waits for a person")
	out, _ = ask(0, "replay", "--code", "no_such_code", "--per-minute", "30", "--note", "only a try")
	says(t, out, "replay 1 has begun: 0 postings, 30 a minute")
	_, e = ask(exitUsage, "replay", p.keys[1], "--per-minute", "30")
	says(t, e, "--per-minute")
	if err := p.erp.SetPeriod(context.Background(), "2026-02", true); err != nil {
		t.Fatal(err)
	}
	out, _ = ask(0, "replay", "--code", "no_such_code")
	says(t, out, "no parked posting matches")
	out, _ = ask(0, "replay", "--order", no)
	says(t, out, "1 posting is taken up again")
	realparts.Eventually(t, 90*time.Second, "the posting is verified", func() error {
		if out, _ := ask(0, "fact", p.keys[1]); !strings.Contains(out, "verified") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	out, _ = ask(0, "fact", p.keys[1])
	says(t, out, "replayed", "planner")
	_, e = ask(1, "replay", p.keys[1])
	says(t, e, p.keys[1], "verified")
	out, _ = ask(0, "replay", "--all", "--json")
	says(t, out, `{"count":0}`)

	_, e = synchub(t, exitLocked, "serve", "-c", filepath.Join(p.dir, "hub.yaml"))
	says(t, e, "another hub has it open")
	if code := stop(); code != 0 {
		t.Errorf("interrupted hub ended with %d", code)
	}
	_, e = ask(1, "agents")
	says(t, e, "ask the hub", "is it running?")
}

func TestTokenOfAReaderIsPrintedWithoutItsSecretInTheConfiguration(t *testing.T) {
	out, _ := synchub(t, 0, "token", "--name", `the "wall" board`)
	m := secret.FindStringSubmatch(out)
	if m == nil {
		t.Fatal(out)
	}
	_, pasted, _ := strings.Cut(out, "api:")
	if strings.Contains(pasted, m[1]) {
		t.Error("the secret stands in what is to be pasted")
	}
	says(t, pasted, `name: "the \"wall\" board"`, "write: false")
	other, _ := synchub(t, 0, "token", "--name", "x")
	if secret.FindStringSubmatch(other)[1] == m[1] {
		t.Error("two tokens are equal")
	}
}
