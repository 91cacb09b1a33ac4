package localui

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/status"
)

// bench is a page with tools and a browser.
type toolBench struct {
	t       *testing.T
	server  *httptest.Server
	token   string
	client  *http.Client
	now     time.Time
	trusted []string
	adopted []Proposal
}

func newToolBench(t *testing.T) *toolBench {
	b := &toolBench{t: t, now: time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)}
	file := filepath.Join(t.TempDir(), "admin.token")
	admin, err := NewAdmin(file, func() time.Time { return b.now })
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(file); info.Mode().Perm() != 0o600 {
		t.Errorf("the token's file has mode %s", info.Mode())
	}
	b.token = strings.TrimSpace(string(raw))
	entry := signal.Entry{ID: "ns=2;s=Good", Path: "Objects/Press1/Good", Name: "Good", Kind: "Variable", Type: "UInt32", Value: "17", Readable: true, Tag: "tag: Good\nnode: ns=2;s=Good"}
	b.server = httptest.NewServer(New(Deps{Snapshot: func() status.Snapshot { return status.Snapshot{} }, Admin: admin, Tools: Tools{
		Sources: []string{"press"},
		Browse: func(_ context.Context, source, at, page string, _ int) ([]signal.Entry, string, error) {
			if source != "press" {
				return nil, "", errors.New("there is no source " + source)
			}
			return []signal.Entry{{ID: "o", Name: "Objects", Path: "Objects", Children: true}, entry}, "more", nil
		},
		Find: func(_ context.Context, _, glob string, _ int) ([]signal.Entry, bool, error) {
			return []signal.Entry{entry}, true, nil
		},
		Propose: func(_ context.Context, source string, picked []signal.Entry) (Proposal, error) {
			return Proposal{Source: source, Tags: "- " + picked[0].Tag, Rules: "- rule: <counter>"}, nil
		},
		Adopt: func(p Proposal) (string, error) {
			if strings.Contains(p.Rules, "bad") {
				return "", errors.New("line 3 is wrong")
			}
			b.adopted = append(b.adopted, p)
			return "written", nil
		},
		Certificates: func() ([]Refused, error) {
			return []Refused{{Source: "press", Fingerprint: "ab12", About: "CN=x"}}, nil
		},
		Trust: func(source, fingerprint string) error {
			b.trusted = append(b.trusted, source+" "+fingerprint)
			return nil
		},
	}}))
	t.Cleanup(b.server.Close)
	jar, _ := cookiejar.New(nil)
	b.client = &http.Client{Jar: jar}
	return b
}

func (b *toolBench) do(method, path string, form url.Values, header ...string) (int, string) {
	b.t.Helper()
	req, err := http.NewRequest(method, b.server.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", b.server.URL)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := b.client.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func (b *toolBench) login() {
	b.t.Helper()
	if code, body := b.do("POST", "/login", url.Values{"token": {b.token}}); code != 200 || !strings.Contains(body, "Pick tags") {
		b.t.Fatalf("login: %d %s", code, body)
	}
}

func TestOnlyWhoKnowsTheTokenGetsIn(t *testing.T) {
	b := newToolBench(t)
	for _, path := range []string{"/admin", "/admin/tags?source=press"} {
		if _, body := b.do("GET", path, nil); !strings.Contains(body, "The admin token") || strings.Contains(body, "Press1") {
			t.Errorf("%s without a session: %s", path, body)
		}
	}
	if code, _ := b.do("POST", "/admin/trust", url.Values{"source": {"press"}, "fingerprint": {"ab12"}}); len(b.trusted) > 0 {
		t.Errorf("a stranger's trust was taken with %d", code)
	}
	if code, _ := b.do("GET", "/admin", nil, "Authorization", "Bearer wrong"); code != http.StatusUnauthorized {
		t.Errorf("a wrong token is answered with %d", code)
	}
	if code, body := b.do("GET", "/admin", nil, "Authorization", "Bearer "+b.token); code != 200 || !strings.Contains(body, "Pick tags") {
		t.Errorf("the right token is answered with %d %s", code, body)
	}
	b.login()
	if code, _ := b.do("GET", "/admin", nil); code != 200 {
		t.Errorf("after the login: %d", code)
	}
	b.now = b.now.Add(adminSession + time.Second)
	if _, body := b.do("GET", "/admin", nil); !strings.Contains(body, "The admin token") {
		t.Error("the session did not end")
	}
}

func TestWhoGuessesTheTokenIsShutOut(t *testing.T) {
	b := newToolBench(t)
	for range 5 {
		b.do("POST", "/login", url.Values{"token": {"guess"}})
	}
	if code, _ := b.do("POST", "/login", url.Values{"token": {b.token}}); code != http.StatusUnprocessableEntity {
		t.Errorf("the right token right after five wrong ones: %d", code)
	}
	b.now = b.now.Add(time.Minute + time.Second)
	b.login()
}

func TestAnotherPageCannotActForTheAdmin(t *testing.T) {
	b := newToolBench(t)
	b.login()
	form := url.Values{"source": {"press"}, "fingerprint": {"ab12"}}
	for _, header := range [][]string{{"Origin", "http://evil.example"}, {"Origin", "null"}, {"Sec-Fetch-Site", "cross-site"}} {
		if code, _ := b.do("POST", "/admin/trust", form, header...); code != http.StatusForbidden || len(b.trusted) > 0 {
			t.Errorf("%v: %d", header, code)
		}
	}
	if code, _ := b.do("POST", "/admin/trust", form); code != 200 || len(b.trusted) != 1 || b.trusted[0] != "press ab12" {
		t.Errorf("%d, trusted %v", code, b.trusted)
	}
}

func TestTagsArePickedProposedAndAdopted(t *testing.T) {
	b := newToolBench(t)
	b.login()
	_, body := b.do("GET", "/admin/tags?source=press", nil)
	for _, want := range []string{"Objects", "Good", "UInt32", "17", "next page", `at=o`} {
		if !strings.Contains(body, want) {
			t.Errorf("the list lacks %q:\n%s", want, body)
		}
	}
	if _, body := b.do("GET", "/admin/tags?source=press&find=**", nil); !strings.Contains(body, "Objects/Press1/Good") || !strings.Contains(body, "There is more") {
		t.Error(body)
	}
	if code, body := b.do("GET", "/admin/tags?source=nobody", nil); code != http.StatusUnprocessableEntity || !strings.Contains(body, "there is no source nobody") {
		t.Errorf("%d %s", code, body)
	}
	code, body := b.do("POST", "/admin/tags", url.Values{"source": {"press"}, "pick": {`{"id":"x","tag":"tag: Good"}`}})
	if code != 200 || !strings.Contains(body, "- tag: Good") || !strings.Contains(body, "&lt;counter&gt;") {
		t.Errorf("%d %s", code, body)
	}
	if code, body := b.do("POST", "/admin/tags", url.Values{"source": {"press"}}); code != http.StatusUnprocessableEntity || !strings.Contains(body, "nothing is picked") {
		t.Errorf("%d %s", code, body)
	}
	if code, body := b.do("POST", "/admin/adopt", url.Values{"source": {"press"}, "tags": {"t"}, "rules": {"bad"}}); code != http.StatusUnprocessableEntity || !strings.Contains(body, "line 3 is wrong") {
		t.Errorf("%d %s", code, body)
	}
	if code, body := b.do("POST", "/admin/adopt", url.Values{"source": {"press"}, "tags": {"t"}, "rules": {"r"}}); code != 200 || !strings.Contains(body, "written") || len(b.adopted) != 1 {
		t.Errorf("%d %s, adopted %v", code, body, b.adopted)
	}
}

func TestWithoutAnAdminThePageOnlyReads(t *testing.T) {
	s := httptest.NewServer(New(Deps{Snapshot: func() status.Snapshot { return status.Snapshot{} }}))
	defer s.Close()
	for _, path := range []string{"/login", "/admin", "/admin/trust"} {
		res, err := http.Post(s.URL+path, "application/x-www-form-urlencoded", nil)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("%s: %s", path, res.Status)
		}
	}
}

func TestAnHourIsRecordedFromThePage(t *testing.T) {
	var running *status.Recording
	admin, err := NewAdmin(filepath.Join(t.TempDir(), "admin.token"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(New(Deps{Snapshot: func() status.Snapshot {
		return status.Snapshot{Sources: []status.Source{{Name: "press"}, {Name: "mes"}}}
	}, Admin: admin, Tools: Tools{
		StartRecording: func(_ context.Context, req status.RecordRequest) (status.Recording, error) {
			if req.For > 24*time.Hour {
				return status.Recording{}, errors.New("at most 24h")
			}
			running = &status.Recording{File: "hour.rec", Sources: req.Sources, Running: true}
			return *running, nil
		},
		StopRecording: func() (status.Recording, error) {
			running.Running, running.Ended = false, "stopped"
			return *running, nil
		},
		Recording: func() (status.Recording, bool) {
			if running == nil {
				return status.Recording{}, false
			}
			return *running, true
		},
	}}))
	defer s.Close()
	jar, _ := cookiejar.New(nil)
	b := &toolBench{t: t, server: s, client: &http.Client{Jar: jar}}
	value := httptest.NewRecorder()
	admin.mu.Lock()
	admin.sessions[sha256.Sum256([]byte("session"))] = time.Now().Add(time.Hour)
	admin.mu.Unlock()
	http.SetCookie(value, &http.Cookie{Name: adminCookie, Value: "session", Path: "/"})
	u, _ := url.Parse(s.URL)
	jar.SetCookies(u, value.Result().Cookies())
	if _, body := b.do("GET", "/admin", nil); !strings.Contains(body, "Start recording") || !strings.Contains(body, "mes") {
		t.Error(body)
	}
	if code, body := b.do("POST", "/admin/recording", url.Values{"for": {"48h"}}); code != http.StatusUnprocessableEntity || !strings.Contains(body, "at most 24h") {
		t.Errorf("%d %s", code, body)
	}
	if code, body := b.do("POST", "/admin/recording", url.Values{"for": {"1h"}, "source": {"press"}}); code != 200 || !strings.Contains(body, "Stop recording") || running == nil || len(running.Sources) != 1 {
		t.Errorf("%d %s", code, body)
	}
	if _, body := b.do("POST", "/admin/recording", url.Values{"stop": {"yes"}}); !strings.Contains(body, "hour.rec") || running.Running {
		t.Error(body)
	}
}
