package exchange

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestARecordHoldsWhatWasSaidAndNoSecret(t *testing.T) {
	const hidden = "hunter2"
	for name, x := range map[string]struct{ body, keeps string }{
		"JSON":             {`{"yield": 12.50, "Password": "` + hidden + `", "deep": [{"client_secret": {"a": "` + hidden + `"}, "lot": "L1"}]}`, `"yield":12.50`},
		"JSON cut off":     {`{"yield": 12.50, "access_token": "` + hidden, `"yield": 12.50`},
		"form":             {"grant_type=client_credentials&client_secret=" + hidden + "&scope=x", "grant_type=client_credentials"},
		"XML":              {"<Order><No>7</No><sessionId a='b'>" + hidden + "</sessionId></Order>", "<No>7</No>"},
		"an attribute":     {`<Order no="7" authToken="` + hidden + `"/>`, `no="7"`},
		"a header in text": {"Authorization: Bearer " + hidden + "xyz and more", "and more"},
		"no secret":        {`{"b": 1, "a": 0.10}`, `{"b": 1, "a": 0.10}`},
	} {
		got, cut := shown([]byte(x.body))
		if strings.Contains(got, hidden) || !strings.Contains(got, x.keeps) || cut {
			t.Errorf("%s: %q (cut %v)", name, got, cut)
		}
	}
	if got, cut := shown([]byte(strings.Repeat("ä", mostRead))); len(got) > mostShown+3 || !cut {
		t.Errorf("%d bytes, cut %v", len(got), cut)
	}
	if got, _ := shown([]byte{0xff, 0, 1}); got != "[not text]" {
		t.Errorf("%q", got)
	}
}

func TestDoRecordsWhereTheContextAsksForIt(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Set-Cookie", "sid=hunter2")
		if r.URL.Query().Get("n") == "lost" {
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write([]byte(`{"number": "4900000001"}`))
	}))
	defer s.Close()
	ctx, rec := Recording(t.Context())
	send := func(ctx context.Context, query string) error {
		req, err := http.NewRequestWithContext(ctx, "POST", strings.Replace(s.URL, "http://", "http://user:hunter2@", 1)+"/post?token=hunter2&n="+query, strings.NewReader(`{"yield": 12}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer hunter2")
		_, _, err = Do(s.Client(), req, func(cause error) error { return errors.Join(errLost, cause) })
		return err
	}
	for _, q := range []string{"1", "2", "3", "4"} {
		if err := send(ctx, q); err != nil {
			t.Fatal(err)
		}
	}
	if err := send(ctx, "lost"); !errors.Is(err, errLost) {
		t.Fatal(err)
	}
	if err := send(t.Context(), "unheard"); err != nil {
		t.Fatal(err)
	}
	all := rec.Records()
	if len(all) != mostKept {
		t.Fatalf("%d are kept", len(all))
	}
	if x := all[0]; x.Request != `{"yield": 12}` || x.Answer != `{"number": "4900000001"}` || x.Status != "200 OK" || x.Method != "POST" || !strings.Contains(x.Address, "n=2") {
		t.Errorf("%+v", x)
	}
	if x := all[3]; x.Status != "" || x.Answer == "" || !strings.Contains(x.Address, "n=lost") {
		t.Errorf("the lost one: %+v", x)
	}
	for _, x := range all {
		if strings.Contains(x.Address+x.Request+x.Answer, "hunter2") {
			t.Errorf("a secret is recorded: %+v", x)
		}
	}
}

// A secret that stands where no name gives it away is removed where the context says so, in a request, an answer and a failure.
func TestHiddenSecretIsNotRecorded(t *testing.T) {
	const key = `k"ey-7f3a`
	for _, body := range []string{`{"args":["db",7,"k\"ey-7f3a","x"]}`, `k"ey-7f3a`, `{"error":"no user with k\"ey-7f3a"}`} {
		ctx, rec := Recording(Hiding(t.Context(), key))
		Note(ctx, "POST", "http://x/y", []byte(body), "200 OK", []byte(body))
		all := rec.Records()
		if len(all) != 1 || strings.Contains(all[0].Request+all[0].Answer, "7f3a") || !strings.Contains(all[0].Request, removed) {
			t.Errorf("%s is recorded as %+v", body, all)
		}
	}
}

// What an expression finds, the quick look before it must find.
func TestNoSecretIsTakenForNone(t *testing.T) {
	words := []string{"password", "Passwd", "client_secret", "accessToken", "Authorization", "authorisation", "Set-Cookie", "apikey", "api-key", "API_KEY",
		"sessionId", "credentials", "x-csrf", "signature"}
	schemes := []string{"bearer abcdefgh", "Basic abcdefgh", "negotiate abcdefgh"}
	found := 0
	for _, w := range append(words, schemes...) {
		for _, v := range []string{w, strings.ToUpper(w), strings.ToLower(w), strings.ReplaceAll(w, "s", "\u017f"), strings.ReplaceAll(w, "k", "\u212a")} {
			for _, text := range []string{v, "ä" + v, v + "ä", " p" + v + "se", `{"äß` + v + `": 1}`} {
				if secretName.MatchString(text) && !hinted(text, &secretHints) || inScheme.MatchString(text) && !hinted([]byte(text), &schemeHints) {
					t.Errorf("%q is taken for a text without a secret", text)
				}
				if secretName.MatchString(text) || inScheme.MatchString(text) {
					found++
				}
			}
		}
	}
	if least := 20 * (len(words) + len(schemes)); found < least {
		t.Errorf("only %d texts have a secret, want at least %d", found, least)
	}
	for _, text := range []string{"", "p", `{"number": "4900000001", "yield": 12, "state": "POSTED", "as_of": "2026-11-24T07:00:00Z"}`, "external_key"} {
		if hinted(text, &secretHints) || hinted(text, &schemeHints) {
			t.Errorf("%q is looked through", text)
		}
	}
}

// A record is no reason for a posting to fail, whatever the bytes are.
func FuzzShown(f *testing.F) {
	for _, s := range []string{`{"token": "x`, "<a token='", "a=b&token=", "Bearer xxxxxxxx", "\x00\xff", `[{"password":{}}]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, _ := shown(b)
		if len(got) > mostShown+3 {
			t.Errorf("%d bytes", len(got))
		}
	})
}

// Secrets are removed when a record is asked for, and of what was said then, whatever became of the buffers since.
func TestARecordIsOfWhatWasSaidAtTheTime(t *testing.T) {
	ctx, rec := Recording(Hiding(t.Context(), "hunter2"))
	request := []byte(`{"yield": 12, "key": "hunter2"}`)
	Note(ctx, "POST", "https://user:hunter2@erp/post?token=hunter2", request, "200 OK", []byte(strings.Repeat("a", mostRead+10)))
	for i := range request {
		request[i] = 'x'
	}
	all := rec.Records()
	if len(all) != 1 || all[0].Request != `{"yield": 12, "key": "[removed]"}` || !all[0].Cut || len(all[0].Answer) != mostShown || strings.Contains(all[0].Address, "hunter2") {
		t.Errorf("%+v", all)
	}
}
