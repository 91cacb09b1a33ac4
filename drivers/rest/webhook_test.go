package rest

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

// hooks is a driver that takes webhooks, and the senders.
type hooks struct {
	*plant
	port   int
	secret string
}

const hookSecret = "whsec_c2VjcmV0IG9mIHRoZSBwbGFudA=="

func newHooks(t testing.TB) *hooks {
	h := &hooks{newPlant(t), realparts.FreePort(t), "secret"}
	h.file("secret", "old secret\n"+hookSecret+"\n")
	return h
}

func (h *hooks) section() string {
	return fmt.Sprintf(`webhook:
  listen: 127.0.0.1:%[1]d
  hooks:
  - {tag: e, path: /std, secret_file: %[2]s, records: items, time: at}
  - {tag: g, path: /git, scheme: github, secret_file: %[2]s, max_body: 1000}
  - {tag: x, path: /own, scheme: hmac, header: X-Sig, encoding: base64, timestamp: X-Time, id: 'body:id', secret_file: %[2]s}
  - {tag: t, path: /tok, scheme: token, id: content, secret_file: %[2]s}
  - {path: /ans, secret_file: %[2]s, answers: {order_no: order, words: {OK: accepted}}}
`, h.port, h.secret)
}

func (h *hooks) listening(t testing.TB) {
	realparts.Eventually(t, patience, "listening", realparts.Listening(h.port))
}

func macOf(key, text string) []byte {
	m := hmac.New(sha256.New, []byte(key))
	m.Write([]byte(text))
	return m.Sum(nil)
}

// post sends a body with headers given as name, value, name, value; code is 0 when no answer came.
func (h *hooks) post(path, body string, headers ...string) (code int, answer string) {
	req, err := http.NewRequest(http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d%s", h.port, path), strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	res, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(b) + res.Header.Get("Retry-After")
}

func (h *hooks) standard(path, id, body string, at time.Time) (int, string) {
	stamp := strconv.FormatInt(at.Unix(), 10)
	key, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(hookSecret, "whsec_"))
	signature := "v1,bm90IHRoaXM= v1," + base64.StdEncoding.EncodeToString(macOf(string(key), id+"."+stamp+"."+body)) + " v2,xx"
	return h.post(path, body, "webhook-id", id, "webhook-timestamp", stamp, "webhook-signature", signature)
}

func TestWebhooksAreTakenOnlyFromWhoKnowsASecret(t *testing.T) {
	h := newHooks(t)
	h.start(h.section())
	h.listening(t)
	now := time.Now()
	stamp := strconv.FormatInt(now.Unix(), 10)
	git := func(key, body string) string { return "sha256=" + hex.EncodeToString(macOf(key, body)) }
	own := func(key, stamp, body string) string {
		return base64.StdEncoding.EncodeToString(macOf(key, stamp+"."+body))
	}
	for _, c := range []struct {
		name string
		do   func() (int, string)
		want int
	}{
		{"standard", func() (int, string) {
			return h.standard("/std", "m1", `{"items": [{"n": 1, "at": "2026-01-02T03:04:05Z"}, {"n": 2}]}`, now)
		}, 200},
		{"standard, old", func() (int, string) { return h.standard("/std", "m2", `{}`, now.Add(-6*time.Minute)) }, 401},
		{"standard, early", func() (int, string) { return h.standard("/std", "m2", `{}`, now.Add(6*time.Minute)) }, 401},
		{"standard, other id", func() (int, string) {
			return h.post("/std", `{}`, "webhook-id", "m3", "webhook-timestamp", stamp, "webhook-signature", "v1,"+own("old secret", "m2."+stamp, `{}`))
		}, 401},
		{"standard, the other secret", func() (int, string) {
			return h.post("/std", `{"items": []}`, "webhook-id", "m3", "webhook-timestamp", stamp, "webhook-signature", "v1,"+own("old secret", "m3."+stamp, `{"items": []}`))
		}, 200},
		{"standard, nothing", func() (int, string) { return h.post("/std", `{}`) }, 401},
		{"github", func() (int, string) {
			return h.post("/git", `{"n": 3}`, "X-Hub-Signature-256", git(hookSecret, `{"n": 3}`), "X-GitHub-Delivery", "d1")
		}, 200},
		{"github, changed body", func() (int, string) {
			return h.post("/git", `{"n": 4}`, "X-Hub-Signature-256", git(hookSecret, `{"n": 3}`), "X-GitHub-Delivery", "d2")
		}, 401},
		{"github, cut signature", func() (int, string) {
			return h.post("/git", `{"n": 4}`, "X-Hub-Signature-256", git(hookSecret, `{"n": 4}`)[:20], "X-GitHub-Delivery", "d2")
		}, 401},
		{"github, no id", func() (int, string) { return h.post("/git", `{}`, "X-Hub-Signature-256", git(hookSecret, `{}`)) }, 400},
		{"github, too large", func() (int, string) { return h.post("/git", strings.Repeat(" ", 1001)) }, 413},
		{"own", func() (int, string) {
			return h.post("/own", `{"id": 7, "n": 5}`, "X-Sig", own("old secret", stamp, `{"id": 7, "n": 5}`), "X-Time", stamp)
		}, 200},
		{"own, time not signed", func() (int, string) {
			return h.post("/own", `{"id": 8}`, "X-Sig", base64.StdEncoding.EncodeToString(macOf("old secret", `{"id": 8}`)), "X-Time", stamp)
		}, 401},
		{"own, no id", func() (int, string) {
			return h.post("/own", `{}`, "X-Sig", own("old secret", stamp, `{}`), "X-Time", stamp)
		}, 400},
		{"token", func() (int, string) { return h.post("/tok", `{"n": 6}`, "Authorization", "Bearer old secret") }, 200},
		{"token, wrong", func() (int, string) { return h.post("/tok", `{"n": 6}`, "Authorization", "Bearer old") }, 401},
		{"no JSON", func() (int, string) { return h.post("/tok", `torn`, "Authorization", "Bearer old secret") }, 200},
		{"answer", func() (int, string) { return h.standard("/ans", "a1", `{"order": "O1", "status": "OK"}`, now) }, 200},
		{"nowhere", func() (int, string) { return h.post("/else", `{}`) }, 404},
	} {
		if code, text := c.do(); code != c.want || strings.Contains(text, "secret of") {
			t.Errorf("%s: answer %d %q, want %d", c.name, code, text, c.want)
		}
	}
	var got []string
	for _, s := range h.all() {
		line := s.Tag + " " + s.Position
		if v, ok := s.Value.(map[string]any); ok {
			line += fmt.Sprint(" ", v["n"], v["status"])
		} else if s.Problem != nil {
			line += " " + s.Problem.Code
		}
		got = append(got, line)
	}
	want := []string{"e /std|m1|0 1<nil>", "e /std|m1|1 2<nil>", "g /git|d1 3<nil>", "x /own|7 5<nil>", "t /tok|" + contentHash([]byte(`{"n": 6}`)) + " 6<nil>",
		"t /tok|" + contentHash([]byte("torn")) + " bad_json", "work_order_answer /ans|a1 <nil>accepted"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("signals are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if at := h.all()[0].SourceTime; !at.Equal(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) {
		t.Errorf("source time is %s", at)
	}
	h.file("secret", "new secret\n") // the old ones are good no more
	if code, _ := h.post("/tok", `{"n": 7}`, "Authorization", "Bearer old secret"); code != 401 {
		t.Errorf("a secret that was taken out is answered with %d", code)
	}
	if code, _ := h.post("/tok", `{"n": 7}`, "Authorization", "Bearer new secret"); code != 200 {
		t.Errorf("the new secret is answered with %d", code)
	}
	if strings.Contains(h.log.String(), "new secret") || strings.Contains(h.log.String(), hookSecret) {
		t.Error("a secret is in what the driver reported")
	}
}

// A sender that repeats until it gets 200 loses nothing and doubles nothing, however often the agent dies before or after its
// buffer has the records.
func TestSendersAreToldOnlyWhatIsSafe(t *testing.T) {
	h := newHooks(t)
	r := dice(t)
	const events = 200
	var group sync.WaitGroup
	begin := make(chan struct{})
	for sender := range 4 {
		group.Go(func() {
			<-begin
			for n := sender; n < events; n += 4 {
				for deadline := time.Now().Add(patience); ; {
					code, _ := h.standard("/std", fmt.Sprint("m", n), fmt.Sprintf(`{"items": [{"n": %d}]}`, n+1), time.Now())
					if code == 200 {
						break
					}
					if code != 0 && code != 503 || time.Now().After(deadline) {
						t.Errorf("event %d: answer %d", n, code)
						return
					}
				}
			}
		})
	}
	close(begin)
	done := make(chan struct{})
	go func() { group.Wait(); close(done) }()
	deaths := 0
	for ended := false; !ended; {
		emit, last := h.emit, deaths == 20
		if !last {
			emit = h.dying(r.IntN(20), r.IntN(2) == 0)
			deaths++
		}
		stop := h.run(h.make(h.section()), emit)
		select {
		case <-done:
			ended = true
		case <-time.After(time.Duration(20+r.IntN(60)) * time.Millisecond):
			if last {
				<-done
				ended = true
			}
		}
		stop()
	}
	got, positions := map[string]bool{}, map[string]string{}
	for _, s := range h.all() {
		n := fmt.Sprint(s.Value.(map[string]any)["n"])
		got[n] = true
		if before, ok := positions[s.Position]; ok && before != n {
			t.Errorf("position %q is of %s and %s", s.Position, before, n)
		}
		positions[s.Position] = n
	}
	t.Logf("events=%d deaths=%d stored=%d different=%d", events, deaths, len(h.all()), len(positions))
	if len(got) != events || len(positions) != events {
		t.Errorf("%d events at %d positions, want %d", len(got), len(positions), events)
	}
}

func TestAPortThatIsTakenIsNamed(t *testing.T) {
	h, other := newHooks(t), newHooks(t)
	other.port = h.port
	stop := h.start(h.section())
	h.listening(t)
	other.start(other.section())
	other.awaitProblem("query:webhook", "not_listening")
	stop()
	other.await("listening", func() bool { return len(other.problems) == 0 && other.state == signal.StateOK })
}

// FuzzWebhook reads anything as a request: nothing unsigned passes, and nothing makes it fail.
func FuzzWebhook(f *testing.F) {
	f.Add("standard", "m1", "1790000000", "v1,AAAA", `{"a":1}`)
	f.Add("github", "", "", "sha256=00", `[]`)
	f.Add("hmac", "x", "-1", "v1, v1,", ``)
	f.Fuzz(func(t *testing.T, scheme, id, stamp, signature, body string) {
		h := Hook{Scheme: scheme, Header: "X-Sig", Prefix: "sha256=", Encoding: "hex", Timestamp: "X-Time", Tolerance: time.Hour, ID: "body:a.0", Path: "/p", Tag: "t"}
		header := http.Header{"Webhook-Id": {id}, "Webhook-Timestamp": {stamp}, "Webhook-Signature": {signature}, "X-Sig": {signature}, "X-Time": {stamp}}
		if h.verify(header, []byte(body), []string{"a secret that nobody can guess", hookSecret}, time.Unix(1_790_000_000, 0)) == nil {
			t.Fatal("a request without a signature passes")
		}
		if _, err := h.identity(header, []byte(body)); err == nil {
			s := (&hookServer{source: &source{zone: time.UTC}}).signals(&h, "id", []byte(body))
			for _, x := range s {
				if x.Position == "" || !bytes.Equal(s[0].Payload, x.Payload) && x.Problem != nil {
					t.Fatalf("signal is %+v", x)
				}
			}
		}
	})
}
