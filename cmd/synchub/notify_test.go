package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/notify/notifytest"
	"github.com/linekeeper/linekeeper/hub/webhook"
)

// notifying writes the sample with its section about messages taken out of the comment, toward these addresses.
func notifying(t *testing.T, hook string, post *notifytest.Server) {
	t.Helper()
	sample, _ := synchub(t, 0, "sample")
	head, rest, found := strings.Cut(sample, "# notify:\n")
	section, rest, ends := strings.Cut(rest, "\nerps:\n")
	if !found || !ends {
		t.Fatal("the sample has no section about messages")
	}
	section = regexp.MustCompile(`(?m)^# `).ReplaceAllString(section, "")
	for old, text := range map[string]string{"https://ops.example.com/hooks/linekeeper": hook, "mail.example.com:587": post.Addr, "    password: {file: mail-password.txt}": "    password: {file: mail-password.txt}\n    ca_file: " + post.CAFile} {
		if !strings.Contains(section, old) {
			t.Fatalf("the sample does not name %s", old)
		}
		section = strings.Replace(section, old, text, 1)
	}
	save(t, "hub.yaml", head+"notify:\n"+section+"\nerps:\n"+rest)
	save(t, "erp-password.txt", "secret\n")
}

func TestATestMessageShowsWhatEachReceiverSays(t *testing.T) {
	t.Chdir(t.TempDir())
	post := notifytest.Start(t, false, notifytest.Faults{WantsLogin: true})
	code := 204
	ops := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if err := webhook.Verify(r.Header, []byte("shared"), time.Now(), body); err != nil || !strings.Contains(string(body), "linekeeper.test") {
			t.Errorf("%v: %s", err, body)
		}
		w.WriteHeader(code)
	}))
	defer ops.Close()
	notifying(t, ops.URL, post)
	synchub(t, 0, "cert", "init", "--host", "hub.example.com")
	_, e := synchub(t, 78, "check")
	says(t, e, "notify.receivers[2].webhook.secret", "ops-secret.txt")
	save(t, "ops-secret.txt", "shared\n")
	save(t, "mail-password.txt", post.Password+"\n")
	out, _ := synchub(t, 0, "check")
	says(t, out, "hub.yaml is valid")

	out, _ = synchub(t, 0, "notify", "test")
	says(t, out, "shift-lead took it: 250 2.0.0 queued as 1", "ops took it: 204 No Content")
	if l := post.Letters(); len(l) != 1 || l[0].To != "lead.ulm@example.com" || l[0].Subject != "[hub] test message" || !strings.Contains(l[0].Text, "nothing is to be done") {
		t.Errorf("%+v", l)
	}
	out, _ = synchub(t, 0, "notify", "test", "--receiver", "shift-lead")
	if strings.Contains(out, "ops") {
		t.Error(out)
	}
	code = 401
	out, e = synchub(t, 1, "notify", "test")
	says(t, out, "ops did not take it: the receiver said 401 Unauthorized", "next step: compare the secret")
	says(t, e, "not every receiver")
	_, e = synchub(t, 1, "notify", "test", "--receiver", "nobody")
	says(t, e, "notify.receivers")
	save(t, "ops-secret.txt", "\n")
	_, e = synchub(t, 78, "notify", "test")
	says(t, e, "hub.yaml", "notify.receivers[2].webhook.secret", "empty")
}

func TestWhatAnERPSignsItsEventsWithIsConfigured(t *testing.T) {
	t.Chdir(t.TempDir())
	sample, _ := synchub(t, 0, "sample")
	lines := "#   wake_secrets:           # for ERPs that sign their events and cannot send a token; file or env\n#     - {file: erp1-events.txt, erp: erp1}\n"
	if !strings.Contains(sample, lines) {
		t.Fatal("the sample does not show it")
	}
	save(t, "hub.yaml", strings.Replace(sample, lines, "api:\n  wake_secrets:\n    - {file: erp1-events.txt, erp: erp1}\n", 1))
	save(t, "erp-password.txt", "secret\n")
	synchub(t, 0, "cert", "init", "--host", "hub.example.com")
	_, e := synchub(t, 78, "check")
	says(t, e, "api.wake_secrets", `"erp1"`, "erp1-events.txt")
	save(t, "erp1-events.txt", "shared\n")
	synchub(t, 0, "check")
}

func TestATokenCanBeMadeThatOnlyWakesAnERP(t *testing.T) {
	out, _ := synchub(t, 0, "token", "--name", "events", "--wake", "s4")
	says(t, out, `name: "events"`, `wake: ["s4"]`)
	_, e := synchub(t, 64, "token", "--name", "events", "--wake", "s4", "--write")
	says(t, e, "--wake")
}

// "--token -abc" is refused by the parser, so that one token of 64 could not be used as the help shows.
func TestATokenCanBeAValueOnTheCommandLine(t *testing.T) {
	for range 1000 {
		if s := newSecret(); len(s) != 43 || s[0] == '-' {
			t.Fatalf("token %q", s)
		}
	}
}
