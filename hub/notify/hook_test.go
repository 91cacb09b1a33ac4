package notify

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/webhook"
)

// hookTo serves a receiver and returns the way to it.
func hookTo(t *testing.T, serve http.HandlerFunc) sender {
	t.Helper()
	srv := httptest.NewServer(serve)
	t.Cleanup(srv.Close)
	t.Setenv("NOTIFY_SECRET", "whsec_c2VjcmV0")
	c := WebhookConfig{URL: srv.URL + "/hooks/linekeeper?key=in-the-address"}
	c.Secret.Env = "NOTIFY_SECRET"
	w, f := c.open("webhook")
	if f != nil {
		t.Fatal(f)
	}
	t.Cleanup(w.(*hook).http.CloseIdleConnections)
	return w
}

func TestWebhookIsASignedCloudEvent(t *testing.T) {
	w := writer{console: "https://hub.example.com:8443/"}
	m, err := w.test("ops", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	taken := 0
	way := hookTo(t, func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if err := webhook.Verify(r.Header, []byte("secret"), time.Now(), body); err != nil {
			t.Error(err)
		}
		if webhook.Verify(r.Header, []byte("another"), time.Now(), body) == nil {
			t.Error("any secret will do")
		}
		var e map[string]any
		if err := json.Unmarshal(body, &e); err != nil {
			t.Error(err)
		}
		if r.Header.Get("Content-Type") != "application/cloudevents+json; charset=utf-8" || e["specversion"] != "1.0" || e["id"] != r.Header.Get("webhook-id") || e["id"] == "" || e["type"] != typeTest ||
			e["source"] != "https://hub.example.com:8443/" || e["datacontenttype"] != "application/json" || e["time"] == nil || e["data"].(map[string]any)["title"] != "[hub] test message" {
			t.Errorf("%v %s", r.Header, body)
		}
		taken++
		rw.WriteHeader(http.StatusAccepted)
		io.WriteString(rw, "thanks\x00\n a lot")
	})
	answer, err := way.send(t.Context(), m)
	if err != nil || taken != 1 || answer != "202 Accepted thanks  a lot" {
		t.Errorf("%q %v", answer, err)
	}
}

func TestRefusalOfAWebhookNamesTheNextStep(t *testing.T) {
	elsewhere := false
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere = true }))
	defer other.Close()
	for name, x := range map[string]struct {
		serve   http.HandlerFunc
		lasting bool
		next    string
		after   time.Duration
	}{
		"wrong secret": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, true, "secret", 0},
		"gone":         {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(410) }, true, "address", 0},
		"elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		}, true, "leads to", 0},
		"throttled": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "77")
			w.WriteHeader(429)
		}, false, "by itself", 77 * time.Second},
		"broken":  {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, false, "by itself", 0},
		"cut off": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, false, "can be reached", 0},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := hookTo(t, x.serve).send(t.Context(), store.Message{MessageID: "m", Body: "{}"})
			var r *refusal
			if !errors.As(err, &r) || r.lasting != x.lasting || r.after != x.after || !strings.Contains(r.next, x.next) || strings.Contains(err.Error(), "in-the-address") {
				t.Errorf("%v %+v", err, r)
			}
		})
	}
	if elsewhere {
		t.Error("a message was taken elsewhere")
	}
}

func TestEveryFaultOfTheConfigurationIsNamed(t *testing.T) {
	t.Setenv("NOTIFY_SECRET", "secret")
	good := func() Config {
		c := Config{
			Console: "https://hub.example.com", Rules: []RuleConfig{{Tell: []string{"ops", "lead"}}},
			Receivers: []ReceiverConfig{{Name: "ops", Webhook: &WebhookConfig{URL: "https://ops.example.com"}}, {Name: "lead", Email: &EmailConfig{To: []string{"lead@example.com"}}}},
			SMTP:      SMTPConfig{Server: "mail.example.com:587", From: "hub@example.com", User: "hub"},
		}
		c.Receivers[0].Webhook.Secret.Env, c.SMTP.Password.Env = "NOTIFY_SECRET", "NOTIFY_SECRET"
		c.SetDefaults("/etc")
		return c
	}
	if c := good(); len(c.Check([]string{"ulm"})) > 0 {
		t.Fatal(c.Check([]string{"ulm"}))
	}
	if c := (Config{}); len(c.Check(nil)) > 0 {
		t.Error("to tell nobody is no fault")
	}
	for name, x := range map[string]struct {
		spoil func(*Config)
		want  []string
	}{
		"console":                {func(c *Config) { c.Console = "hub" }, []string{"notify.console", `"hub"`}},
		"collects too long":      {func(c *Config) { c.Collect = time.Minute }, []string{"notify.collect", "within a minute"}},
		"digest":                 {func(c *Config) { c.Digest = -1 }, []string{"notify.digest"}},
		"no name":                {func(c *Config) { c.Receivers[0].Name, c.Rules[0].Tell = "", []string{"lead", ""} }, []string{"notify.receivers[1]", "name"}},
		"name twice":             {func(c *Config) { c.Receivers[1].Name, c.Rules[0].Tell = "ops", []string{"ops"} }, []string{"notify.receivers[2]", `"ops"`}},
		"two ways":               {func(c *Config) { c.Receivers[0].Email = &EmailConfig{} }, []string{"notify.receivers[1]", "either"}},
		"no address":             {func(c *Config) { c.Receivers[0].Webhook.URL = "ops" }, []string{"notify.receivers[1].webhook.url"}},
		"password in an address": {func(c *Config) { c.Receivers[0].Webhook.URL = "https://a:b@ops.example.com" }, []string{"webhook.url", "password"}},
		"in the clear":           {func(c *Config) { c.Receivers[0].Webhook.URL = "http://ops.example.com" }, []string{"webhook.url", "allow_http"}},
		"no secret":              {func(c *Config) { c.Receivers[0].Webhook.Secret.Env = "" }, []string{"notify.receivers[1].webhook.secret", "file or an env"}},
		"secret that is empty":   {func(c *Config) { c.Receivers[0].Webhook.Secret.Env = "NO_SUCH_SECRET" }, []string{"webhook.secret", "empty"}},
		"authority":              {func(c *Config) { c.Receivers[0].Webhook.CAFile = "/no/such" }, []string{"webhook.ca_file"}},
		"no mail address":        {func(c *Config) { c.Receivers[1].Email.To = nil }, []string{"notify.receivers[2].email.to"}},
		"mail address":           {func(c *Config) { c.Receivers[1].Email.To = []string{"Lead <lead@example.com>"} }, []string{"email.to", "Lead"}},
		"mail server":            {func(c *Config) { c.SMTP.Server = "mail" }, []string{"notify.smtp.server", `"mail"`}},
		"sender":                 {func(c *Config) { c.SMTP.From = "" }, []string{"notify.smtp.from"}},
		"way of TLS":             {func(c *Config) { c.SMTP.TLS = "ssl" }, []string{"notify.smtp.tls", "starttls, implicit"}},
		"password in the clear":  {func(c *Config) { c.SMTP.TLS = noTLS }, []string{"notify.smtp.tls", "clear"}},
		"no password":            {func(c *Config) { c.SMTP.Password.Env = "" }, []string{"notify.smtp.password"}},
		"nobody tells":           {func(c *Config) { c.Rules[0].Tell = []string{"lead"} }, []string{"notify.receivers[1]", "no rule"}},
		"tells nobody":           {func(c *Config) { c.Rules = append(c.Rules, RuleConfig{Severity: "low"}) }, []string{"notify.rules[2].tell"}},
		"tells a stranger":       {func(c *Config) { c.Rules[0].Tell = append(c.Rules[0].Tell, "boss") }, []string{"notify.rules[1].tell", `"boss"`}},
		"role":                   {func(c *Config) { c.Rules[0].Owner = []string{"janitor"} }, []string{"notify.rules[1].owner", `"janitor"`, "warehouse"}},
		"plant":                  {func(c *Config) { c.Rules[0].Plant = []string{"bern"} }, []string{"notify.rules[1].plant", `"bern"`}},
		"severity":               {func(c *Config) { c.Rules[0].Severity = "bad" }, []string{"notify.rules[1].severity", `"bad"`}},
		"tier":                   {func(c *Config) { c.Rules[0].Tier = 3 }, []string{"notify.rules[1].tier"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := good()
			x.spoil(&c)
			faults := c.Check([]string{"ulm"})
			if len(faults) != 1 {
				t.Fatalf("%d faults: %+v", len(faults), faults)
			}
			text := faults[0].Where + ": " + faults[0].Text + " (" + faults[0].Hint + ")"
			for _, w := range x.want {
				if !strings.Contains(text, w) {
					t.Errorf("%q does not name %q", text, w)
				}
			}
		})
	}
}
