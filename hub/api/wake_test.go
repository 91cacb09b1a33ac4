package api_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/api"
	"github.com/linekeeper/linekeeper/hub/webhook"
)

const waker = "waker-secret"

// waking serves the same world with two systems that can be woken; woken counts.
func (w *world) waking(log *bytes.Buffer) (woken map[string]int) {
	woken = map[string]int{}
	events := token("events", waker, false)
	events.Wake = []string{"erp"}
	w.tokens = []api.Token{token("dashboard", reader, false), token("planner", writer, true), events}
	w.handler = api.New(w.s, poster{w.engine}, api.Options{
		Tokens: w.tokens, Now: time.Now, Wake: func(erp string) { woken[erp]++ }, ERPs: []string{"erp", "other"}, WakeKeys: map[string][]byte{"other": []byte("shared")},
		Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	return woken
}

func bearer(secret string) func(*http.Request) { return header("Authorization", "Bearer "+secret) }

func TestATokenOfNarrowScopeWakesItsERPAndNothingElse(t *testing.T) {
	w := newWorld(t)
	var log bytes.Buffer
	woken := w.waking(&log)
	w.call("POST", "/v1/erps/erp/wake", "", bearer(waker)).wants(202, `"erp"`)
	w.call("POST", "/v1/erps/erp/wake", "", bearer(writer)).wants(202)
	w.call("POST", "/v1/erps/erp/wake", "").problem(401, "token")
	w.call("POST", "/v1/erps/erp/wake", "", bearer(reader)).problem(403, "read only")
	w.call("POST", "/v1/erps/other/wake", "", bearer(waker)).problem(403, "events", "erp only")
	w.call("POST", "/v1/erps/nobody/wake", "", bearer(writer)).problem(404, `"nobody"`, "erps")
	for _, path := range []string{"/v1/agents", "/metrics", "/v1/erps/erp/wake", "/v1/inbox"} {
		w.call("GET", path, "", bearer(waker)).problem(403, "only")
	}
	w.call("POST", "/v1/postings/replay", `{"all":true}`, bearer(waker)).problem(403, "only")
	if woken["erp"] != 2 || len(woken) != 1 {
		t.Errorf("woken %v", woken)
	}
	if !strings.Contains(log.String(), "by=events") {
		t.Errorf("the log does not name the token: %s", log.String())
	}
}

func TestAnEventIsNeverReadAsDataAndOnlyItsTypeIsLogged(t *testing.T) {
	w := newWorld(t)
	var log bytes.Buffer
	woken := w.waking(&log)
	post := func(body string, set ...func(*http.Request)) answer {
		return w.call("POST", "/v1/erps/erp/wake", body, append(set, bearer(waker))...)
	}
	ce := header("Content-Type", "application/cloudevents+json")
	post(`{"specversion":"1.0","id":"1","source":"/s4","type":"sap.s4.ProductionOrder.Changed.v1","data":{"ManufacturingOrder":"WO-666"}}`, ce).wants(202)
	post(`{"ManufacturingOrder":"WO-666"}`, header("ce-type", "binary.mode"), header("Content-Type", "application/json")).wants(202)
	for _, body := range []string{"not json", `{"type":7}`, `[]`, "\x00\xff", `{"type":"` + strings.Repeat("x", 300) + `"}`} {
		post(body, ce).wants(202)
	}
	post("order=WO-666", header("Content-Type", "application/x-www-form-urlencoded")).wants(202)
	if woken["erp"] != 8 {
		t.Errorf("woken %v", woken)
	}
	for _, want := range []string{"sap.s4.ProductionOrder.Changed.v1", "binary.mode"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("%s is not in the log", want)
		}
	}
	if strings.Contains(log.String(), "WO-666") || strings.Contains(log.String(), strings.Repeat("x", 101)) {
		t.Errorf("more than the type is in the log: %s", log.String())
	}
}

func TestAnERPThatCanOnlySignWakesItself(t *testing.T) {
	w := newWorld(t)
	woken := w.waking(new(bytes.Buffer))
	body := `{"doctype":"Work Order"}`
	timed := func(key string, at time.Time) func(*http.Request) {
		return func(r *http.Request) { webhook.Sign(r.Header, []byte(key), "m1", at, []byte(body)) }
	}
	m := hmac.New(sha256.New, []byte("shared"))
	m.Write([]byte(body))
	plain := header("X-Hub-Signature-256", "sha256="+hex.EncodeToString(m.Sum(nil)))
	origin := header("Origin", "https://erp.example") // what the web hook of CloudEvents demands of senders
	w.call("POST", "/v1/erps/other/wake", body, timed("shared", time.Now()), origin).wants(202)
	w.call("POST", "/v1/erps/other/wake", body, plain).wants(202)
	w.call("POST", "/v1/erps/other/wake", body, timed("guessed", time.Now())).problem(401, "does not fit")
	w.call("POST", "/v1/erps/other/wake", body, timed("shared", time.Now().Add(-time.Hour))).problem(401, "clocks")
	w.call("POST", "/v1/erps/other/wake", body+" ", plain).problem(401, "does not fit")
	w.call("POST", "/v1/erps/other/wake", strings.Repeat("x", 70<<10), plain).problem(401, "64 KiB")
	w.call("POST", "/v1/erps/erp/wake", body, timed("shared", time.Now())).problem(401, "no secret", "api.wake_secrets")
	// A signature opens nothing else.
	w.call("POST", "/v1/postings/replay", body, plain).problem(401, "token")
	w.call("GET", "/v1/erps/other/wake", "", plain).problem(401, "token")
	if woken["other"] != 2 || len(woken) != 1 {
		t.Errorf("woken %v", woken)
	}
}

func TestASenderOfEventsAsksFirstWhetherItMay(t *testing.T) {
	w := newWorld(t)
	woken := w.waking(new(bytes.Buffer))
	a := w.call("OPTIONS", "/v1/erps/erp/wake", "", header("WebHook-Request-Origin", "events.example")).wants(200)
	if a.head.Get("WebHook-Allowed-Origin") != "events.example" || a.head.Get("WebHook-Allowed-Rate") == "" || a.head.Get("Allow") != "POST" {
		t.Errorf("%v", a.head)
	}
	w.call("OPTIONS", "/v1/postings/replay", "", header("WebHook-Request-Origin", "events.example")).problem(401)
	if len(woken) != 0 {
		t.Errorf("woken %v", woken)
	}
}

func TestAFloodOfEventsIsAnsweredWithWhenToComeAgain(t *testing.T) {
	w := newWorld(t)
	woken := w.waking(new(bytes.Buffer))
	refused := 0
	for range 1000 {
		a := w.call("POST", "/v1/erps/erp/wake", "", bearer(waker))
		if a.code == http.StatusTooManyRequests {
			refused++
			if a.head.Get("Retry-After") == "" {
				t.Fatalf("%v", a.head)
			}
			a.problem(429, "woken too often")
		}
	}
	if refused == 0 || woken["erp"]+refused != 1000 {
		t.Errorf("%d refused, woken %v", refused, woken)
	}
	w.call("POST", "/v1/erps/other/wake", "", bearer(writer)).wants(202) // has a measure of its own
}
