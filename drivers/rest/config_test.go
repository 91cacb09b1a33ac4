package rest

import (
	"context"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	yaml "go.yaml.in/yaml/v4"

	"github.com/linekeeper/linekeeper/agent/signal"
)

func TestSampleIsAValidConfiguration(t *testing.T) {
	p := newPlant(t)
	s := p.make(sample).(*source)
	if q := s.config.Queries[0]; q.Poll != 5*time.Second || q.PageSize != 500 || q.Method != "GET" || s.config.Timeout != 30*time.Second || s.config.MaxBody != 16777216 {
		t.Errorf("the defaults in the text are not those of the code: %+v", s.config)
	}
	// Each part that is commented out is a configuration, too.
	_, rest, _ := strings.Cut(sample, "# webhook:")
	hook, orders, _ := strings.Cut("webhook:"+rest, "# Work orders")
	_, orders, _ = strings.Cut(orders, "# work_orders:")
	bare := regexp.MustCompile(`(?m)^# ?`)
	deeper := regexp.MustCompile(`(?m)^( {0,8})# ((  )?[a-z_0-9]+: )`)
	for _, part := range []string{bare.ReplaceAllString(hook, ""), bare.ReplaceAllString("work_orders:"+orders, "")} {
		for range 2 {
			s = p.make("base: https://mes.example\n" + part).(*source)
			part = deeper.ReplaceAllString(part, "$1$2")
		}
		if w := s.config.Webhook; w != nil && (w.Hooks[0].Tolerance != 5*time.Minute || w.Hooks[0].MaxBody != 1048576 || w.Hooks[0].Answers == nil) {
			t.Errorf("the webhook in the sample is %+v", w)
		}
		if w := s.config.WorkOrders; w != nil && (fmt.Sprint(w.Taken, w.Again) != "[409] [401 403 404 405 407 408 425 429]" || w.Body == nil || w.Cancel == nil || len(w.Check) != 1 || w.Reply == nil || w.Answers == nil) {
			t.Errorf("the work orders in the sample are %+v", w)
		}
	}
}

func TestMistakesInTheConfigurationAreNamed(t *testing.T) {
	base := "base: https://h/api\n"
	query := func(more string) string { return base + "queries: [{tag: a, " + more + "}]" }
	hook := func(more string) string { return "webhook: {listen: ':1', hooks: [{path: /a, tag: a, " + more + "}]}" }
	for _, c := range []struct{ text, want string }{
		{"base: ftp://h\nqueries: []", "base"},
		{"base: https://u:hidden@h\nqueries: []", "auth"},
		{base, "nothing to do"},
		{base + "surprise: 1", "surprise"},
		{base + "auth: {bearer_file: a, basic: {user: u, password_file: p}}\nqueries: []", "exactly one"},
		{query("url: '/x?since={cursor}'"), "belong together"},
		{query("url: '/x', cursor: {field: a}"), "belong together"},
		{query("url: '/x?p={page}'"), "next"},
		{query("url: '/x?p={colour}'"), "{colour}"},
		{query("url: '/x', overlap: 5m"), "overlap"},
		{query("url: '/x?c={cursor}', cursor: {field: a}, overlap: soon"), "soon"},
		{query("url: '/x', method: DELETE"), "DELETE"},
		{query("url: '/x', body: x"), "POST"},
		{"queries: [{tag: a, url: /x}]", "nor is there a base"},
		{hook(""), "secret"},
		{hook("secret_file: s, scheme: md5"), "md5"},
		{hook("secret_file: s, scheme: hmac, id: content"), "header"},
		{hook("secret_file: s, scheme: token"), "id is empty"},
		{base + "work_orders: {url: '/o/{colour}'}", "{colour}"},
		{base + "work_orders: {url: /o, body: {a: '{colour}'}}", "{colour}"},
		{base + "work_orders: {url: /o, method: GET}", "GET"},
		{base + "work_orders: {url: /o, check: [{field: colour, url: '/c/{value}'}]}", "colour"},
		{base + "work_orders: {url: /o, check: [{field: item, url: /c}]}", "{value}"},
		{base + "work_orders: {url: /o, answers: {url: /a, fields: {words: {OK: fine}}}}", "fine"},
	} {
		_, err := makeFor(newPlant(t), c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%q: error is %v, want one about %q", c.text, err, c.want)
		}
	}
}

// The MES has a certificate of its own authority and wants to see ours: what fails on the way is named on its side.
func TestCertificatesAreChecked(t *testing.T) {
	p := newPlant(t)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `[{"n": 1, "id": 1}]`) }))
	defer server.Close()
	text := "base: " + server.URL + "\nqueries: [{tag: q, url: /x, key: [id], poll: 10ms}]\n"
	stop := p.start(text)
	if x := p.awaitProblem("query:q", "certificate_refused"); !strings.Contains(x.NextStep, "tls.ca_file") {
		t.Errorf("problem is %+v", x)
	}
	p.await("failed", func() bool { return p.state == signal.StateFailed })
	stop()
	p.file("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	text += "tls: {ca_file: ca.pem}\n"
	steps := p.make(text).(signal.Prober).Probe(context.Background())
	if len(steps) != 4 || steps[3].Problem != nil || steps[3].Detail != "1 records on the first page" {
		t.Errorf("steps are %+v", steps)
	}
	p.start(text)
	p.awaitCount(1)
	offers, err := Kind.Discover(context.Background(), signal.Env{}, strings.TrimPrefix(server.URL, "https://"))
	if err != nil || len(offers) == 0 || !offers[0].Secure || !strings.Contains(offers[0].Section, "tls: {ca_file: mes-ca.pem}") {
		t.Errorf("offers are %+v, %v", offers, err)
	}
	for _, o := range offers {
		if _, err := explore(newPlant(t), o.Section); err != nil {
			t.Errorf("the offer %q is no configuration: %v", o.Section, err)
		}
	}
}

func explore(p *plant, section string) (signal.Driver, error) {
	return Kind.Explore(signal.Env{Reporter: p, ConfigDir: p.dir, Zone: time.UTC}, func(into any) error { return yaml.Load([]byte(section), into, yaml.WithKnownFields()) })
}

func TestProbeNamesTheStepThatFails(t *testing.T) {
	m, p := newMES(t), newPlant(t)
	m.add(2)
	steps := p.make(section(m, ways["number"])).(signal.Prober).Probe(context.Background())
	if len(steps) != 3 || steps[2].Problem != nil || steps[2].Detail != "2 records on the first page" {
		t.Errorf("steps are %+v", steps)
	}
	steps = p.make(section(m, "url: /items, records: data.items, key: [nothing]")).(signal.Prober).Probe(context.Background())
	if x := steps[len(steps)-1].Problem; x == nil || x.Code != "key_missing" {
		t.Errorf("steps are %+v", steps)
	}
	m.server.Close()
	steps = p.make(section(m, ways["number"])).(signal.Prober).Probe(context.Background())
	if x := steps[len(steps)-1].Problem; x == nil || x.Code != "no_connection" {
		t.Errorf("steps are %+v", steps)
	}
}

func TestBrowsingProposesAQuery(t *testing.T) {
	m, p := newMES(t), newPlant(t)
	m.add(2)
	d, err := explore(p, "base: "+m.url())
	if err != nil {
		t.Fatal(err)
	}
	b := d.(signal.Browser)
	entries, _, err := b.Browse(context.Background(), "/items", "", 100)
	if err != nil || len(entries) != 5 {
		t.Fatalf("entries are %+v, %v", entries, err)
	}
	e := entries[1]
	if e.Name != "good" || e.Type != "number" || e.Value != "12.500000000000000001" || !strings.Contains(e.Tag, "records: data.items") {
		t.Errorf("entry is %+v", e)
	}
	var found []string
	if err := b.Find(context.Background(), "/items", "**/n", func(e signal.Entry) bool { found = append(found, e.ID); return true }); err != nil || fmt.Sprint(found) != "[/items#n]" {
		t.Errorf("found %v, %v", found, err)
	}
	q := newPlant(t)
	q.start("base: " + m.url() + "\nqueries:\n- " + strings.ReplaceAll(strings.TrimSpace(entries[2].Tag), "\n", "\n  "))
	q.awaitCount(2)
}
