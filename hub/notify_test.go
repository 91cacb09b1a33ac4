package hub

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/hub/connector/sandbox/erp"
	"github.com/linekeeper/linekeeper/hub/connector/secret"
	"github.com/linekeeper/linekeeper/hub/notify"
	"github.com/linekeeper/linekeeper/hub/notify/notifytest"
	"github.com/linekeeper/linekeeper/hub/webhook"
)

// The ERP refuses, and nobody looks: within a minute the one who owns it has a mail and a signed event, with the reason and the next
// step. A receiver that does not work holds up neither, and stands in the inbox itself.
func TestWhatTheERPRefusesIsToldToItsOwnerWithinAMinute(t *testing.T) {
	e, url := books(t)
	no, err := e.ReleaseDemoOrder(t.Context(), "ULM", "press1", 0, 60)
	if err != nil {
		t.Fatal(err)
	}
	post := notifytest.Start(t, false, notifytest.Faults{WantsLogin: true, Refuse: []string{"left@example.com"}})
	var mu sync.Mutex
	var events []string
	ops := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		if err := webhook.Verify(r.Header, []byte("shared"), time.Now(), body); err != nil {
			t.Error(err)
		}
		events = append(events, string(body))
	}))
	defer ops.Close()
	cfg := configured(t, url)
	for name, text := range map[string]string{"ops.txt": "shared\n", "mail.txt": post.Password + "\n"} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(cfg.Path), name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg.Notify = notify.Config{
		Console: "https://hub.example.com",
		Receivers: []notify.ReceiverConfig{
			{Name: "ops", Webhook: &notify.WebhookConfig{URL: ops.URL, Secret: secret.Source{File: "ops.txt"}}},
			{Name: "lead", Email: &notify.EmailConfig{To: []string{"left@example.com", "lead@example.com"}}},
		},
		SMTP:  notify.SMTPConfig{Server: post.Addr, From: "hub@example.com", User: post.User, Password: secret.Source{File: "mail.txt"}, CAFile: post.CAFile},
		Rules: []notify.RuleConfig{{Tell: []string{"ops", "lead"}, Severity: "low"}},
	}
	r := run(t, cfg)
	realparts.Eventually(t, 20*time.Second, "order at the hub", func() error { return r.get("/v1/work-orders/"+no, nil) })
	e.SetFaults(erp.Faults{Deny: 1})
	p := r.dial()
	f := count("refused", no)
	begin := time.Now()
	p.deliver(f)

	realparts.Eventually(t, time.Minute, "a mail to the owner", func() error {
		if len(post.Letters()) == 0 {
			return fmt.Errorf("none came")
		}
		return nil
	})
	t.Logf("the mail came after %s", time.Since(begin))
	l := post.Letters()[0]
	t.Logf("%s\n\n%s", l.Subject, l.Text)
	var inbox struct {
		Items []struct{ Ref, Owner, Proposed, Why, What string }
	}
	if err := r.get("/v1/inbox?kind=posting", &inbox); err != nil || len(inbox.Items) != 1 {
		t.Fatalf("%+v %v", inbox, err)
	}
	x := inbox.Items[0]
	if !strings.HasPrefix(l.Subject, "[ulm] "+x.What) || l.To != "lead@example.com" {
		t.Errorf("%+v", l)
	}
	for _, want := range []string{x.What, "why: " + x.Why, "next step: " + x.Proposed, "whose: " + x.Owner, "order: " + no, "https://hub.example.com/inbox/" + x.Ref, "https://hub.example.com/inbox?plant=ulm"} {
		if !strings.Contains(l.Text, want) {
			t.Errorf("%q is not in the mail:\n%s", want, l.Text)
		}
	}
	realparts.Eventually(t, time.Minute, "an event", func() error {
		mu.Lock()
		defer mu.Unlock()
		if len(events) == 0 {
			return fmt.Errorf("none came")
		}
		return nil
	})
	mu.Lock()
	var event struct {
		Type, Subject string
		Data          struct {
			Exceptions []struct{ Ref, Why, Proposed string }
		}
	}
	if err := json.Unmarshal([]byte(events[0]), &event); err != nil || event.Subject != "ulm" || len(event.Data.Exceptions) != 1 || event.Data.Exceptions[0].Ref != x.Ref || event.Data.Exceptions[0].Proposed != x.Proposed {
		t.Errorf("%s %v", events[0], err)
	}
	mu.Unlock()

	// Whose address is refused is shown, with what the mail server said.
	realparts.Eventually(t, time.Minute, "the receiver that does not work in the inbox", func() error {
		var l struct {
			Items []struct{ What, Why, Proposed string }
		}
		if err := r.get("/v1/inbox?kind=alarm", &l); err != nil || len(l.Items) != 1 || !strings.Contains(l.Items[0].What, "lead/1") || !strings.Contains(l.Items[0].Why, "550") || !strings.Contains(l.Items[0].Proposed, "notify.receivers") {
			return fmt.Errorf("%+v %v", l, err)
		}
		return nil
	})
	var life struct{ Steps []struct{ Step string } }
	if err := r.get("/v1/inbox/"+x.Ref, &life); err != nil || !strings.Contains(fmt.Sprint(life), "message to ops") || !strings.Contains(fmt.Sprint(life), "message to lead/2") {
		t.Errorf("the exception does not say who was told: %+v %v", life, err)
	}
	var messages struct {
		Items []struct{ Receiver, State, Answer, Reason string }
	}
	realparts.Eventually(t, 20*time.Second, "what the mail server said", func() error {
		if err := r.get("/v1/messages?state=delivered&receiver=lead/2", &messages); err != nil || len(messages.Items) == 0 || !strings.Contains(messages.Items[0].Answer, "queued as") {
			return fmt.Errorf("%+v %v", messages, err)
		}
		return nil
	})
	res, err := http.Get(r.h.URL() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	for _, want := range []string{`linekeeper_messages{receiver="lead/1",state="due"} `, `linekeeper_message_oldest_seconds{receiver="lead/1"} `, `linekeeper_messages{receiver="lead/2",state="delivered"} `} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s is not in the metrics", want)
		}
	}
}

// The most common trouble: the ERP is gone. Its postings wait and are no exceptions; that it is gone is one.
func TestThatTheERPIsGoneIsToldWithinAMinute(t *testing.T) {
	t.Parallel()
	e, _ := books(t)
	var gone atomic.Bool
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if gone.Load() {
			panic(http.ErrAbortHandler)
		}
		e.Handler().ServeHTTP(w, r)
	}))
	defer srv.Close()
	var told atomic.Value
	ops := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		told.Store(string(body))
	}))
	defer ops.Close()
	cfg := configured(t, srv.URL)
	if err := os.WriteFile(filepath.Join(filepath.Dir(cfg.Path), "ops.txt"), []byte("shared\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.Notify = notify.Config{
		Receivers: []notify.ReceiverConfig{{Name: "ops", Webhook: &notify.WebhookConfig{URL: ops.URL, Secret: secret.Source{File: "ops.txt"}}}},
		Rules:     []notify.RuleConfig{{Tell: []string{"ops"}, Owner: []string{"automation"}}},
	}
	r := run(t, cfg)
	realparts.Eventually(t, 20*time.Second, "the ERP was asked", func() error {
		var l struct {
			Items []struct {
				OKAt *time.Time `json:"ok_at"`
			}
		}
		if err := r.get("/v1/erps", &l); err != nil || len(l.Items) != 1 || l.Items[0].OKAt == nil {
			return fmt.Errorf("%+v, %v", l, err)
		}
		return nil
	})
	gone.Store(true)
	begin := time.Now()
	realparts.Eventually(t, time.Minute, "a message", func() error {
		if text, _ := told.Load().(string); !strings.Contains(text, "erp: erp does not answer") || !strings.Contains(text, "look whether the ERP runs") {
			return fmt.Errorf("told %q", text)
		}
		return nil
	})
	t.Logf("it was told after %s", time.Since(begin))
}

// An order that no route leads anywhere, and an agent that leaves: both reach those who look at no page, with the next step.
func TestAnOrderWithoutARouteAndAnAgentThatIsAwayAreTold(t *testing.T) {
	t.Parallel()
	e, url := books(t)
	no, err := e.ReleaseDemoOrder(t.Context(), "ULM", "press1", 0, 60)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var events []string
	ops := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		events = append(events, string(body))
	}))
	defer ops.Close()
	told := func(parts ...string) error {
		mu.Lock()
		defer mu.Unlock()
		for _, text := range events {
			if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(text, p) }) {
				return nil
			}
		}
		return fmt.Errorf("%q is in none of %q", parts, events)
	}
	cfg := configured(t, url)
	if err := os.WriteFile(filepath.Join(filepath.Dir(cfg.Path), "ops.txt"), []byte("shared\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.Notify = notify.Config{
		Receivers: []notify.ReceiverConfig{{Name: "ops", Webhook: &notify.WebhookConfig{URL: ops.URL, Secret: secret.Source{File: "ops.txt"}}}},
		Rules:     []notify.RuleConfig{{Tell: []string{"ops"}}},
	}
	cfg.Routes[0].Site = "BERN"
	cfg.Alarms = AlarmsConfig{AgentAway: new(time.Minute), OrderWaits: new(time.Second)}
	r := run(t, cfg)
	r.dial().close()
	realparts.Eventually(t, 90*time.Second, "a message about the order", func() error {
		return told("order unrouted", no, `no route leads from erp \"erp\", site \"ULM\"`, `site: \"ULM\", work_center: \"press1\", plant: PLANT, agent: AGENT} under routes:`)
	})
	realparts.Eventually(t, 2*time.Minute, "a message about the agent", func() error {
		return told("[ulm] ulm/line1: agent silent", `agent \"ulm/line1\" has not been heard of since `, "plantagent doctor", `"subject":"ulm"`)
	})
	var l struct {
		Items []struct{ Subject, Code string }
	}
	if err := r.get("/v1/alarms", &l); err != nil || len(l.Items) != 2 {
		t.Errorf("%+v %v", l, err)
	}
	res, err := http.Get(r.h.URL() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	for _, want := range []string{`linekeeper_alarms{code="agent_silent"} 1`, `linekeeper_alarms{code="order_unrouted"} 1`, `linekeeper_alarms{code="source_down"} 0`, `linekeeper_orders_unrouted{erp="erp"} `, `linekeeper_agent_seen_age_seconds{agent="line1",plant="ulm"} `} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s is not in the metrics", want)
		}
	}
}
