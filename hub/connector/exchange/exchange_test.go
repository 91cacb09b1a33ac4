package exchange

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

var errLost = errors.New("lost")

func post(t *testing.T, address string) (*http.Response, []byte, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, strings.NewReader("a posting"))
	if err != nil {
		t.Fatal(err)
	}
	return Do(&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, req, func(cause error) error { return errors.Join(errLost, cause) })
}

func TestNothingIsLostWithoutAConnection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, _, err := post(t, "http://"+l.Addr().String()); err == nil || errors.Is(err, errLost) {
		t.Errorf("error = %v, want the connection's own", err)
	}
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	if _, _, err := post(t, strings.Replace(plain.URL, "http", "https", 1)); err == nil || errors.Is(err, errLost) {
		t.Errorf("error after a failed handshake = %v, want the handshake's own", err)
	}
}

func TestWhatHasNoWholeAnswerIsLost(t *testing.T) {
	for name, answer := range map[string]string{
		"no answer":         "",
		"half of a head":    "HTTP/1.1 201 Cre",
		"half of an answer": "HTTP/1.1 201 Created\r\nContent-Length: 10\r\n\r\nhalf",
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				c, _, err := w.(http.Hijacker).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				_, _ = io.WriteString(c, answer)
			}))
			defer s.Close()
			if _, _, err := post(t, s.URL); !errors.Is(err, errLost) {
				t.Errorf("error = %v, want it lost", err)
			}
		})
	}
}

func TestAnAnswerIsReadWhateverItSays(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.WriteHeader(http.StatusBadGateway)
		_, _ = w.Write(append([]byte("not "), body...))
	}))
	defer s.Close()
	resp, body, err := post(t, s.URL)
	if err != nil || resp.StatusCode != http.StatusBadGateway || string(body) != "not a posting" {
		t.Errorf("Do = %v, %q, %v", resp, body, err)
	}
}

func TestRetryAfter(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"": 0, "soon": 0, "0": 0, "-5": 0, "7": 7 * time.Second, "999999": 24 * time.Hour, "999999999999999999": 24 * time.Hour,
		"Fri, 01 Jan 2021 00:00:00 GMT": 0, "Fri, 01 Jan 2100 00:00:00 GMT": 24 * time.Hour,
	} {
		if got := RetryAfter(http.Header{"Retry-After": {text}}); got != want {
			t.Errorf("RetryAfter(%q) = %v, want %v", text, got, want)
		}
	}
	in := time.Now().Add(10 * time.Minute)
	if got := RetryAfter(http.Header{"Retry-After": {in.UTC().Format(http.TimeFormat)}}); got <= 8*time.Minute || got > 10*time.Minute {
		t.Errorf("RetryAfter in ten minutes = %v", got)
	}
}
