package rest

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/payload"
	"github.com/linekeeper/linekeeper/drivers/polling"
)

// Webhook is what the MES may call.
type Webhook struct {
	Listen string     `yaml:"listen"`
	TLS    *ServerTLS `yaml:"tls"`
	Hooks  []Hook     `yaml:"hooks"`
}

// ServerTLS is our certificate, and whose certificate the MES must show.
type ServerTLS struct {
	CertFile     string `yaml:"cert_file"`
	KeyFile      string `yaml:"key_file"`
	ClientCAFile string `yaml:"client_ca_file"`
}

// Hook is one path.
type Hook struct {
	Tag        string        `yaml:"tag"`
	Path       string        `yaml:"path"`
	Scheme     string        `yaml:"scheme"` // "standard" (default), "github", "hmac", "token"
	SecretFile string        `yaml:"secret_file"`
	Header     string        `yaml:"header"`    // of the signature or token
	Prefix     string        `yaml:"prefix"`    // before a signature, such as sha256=
	Encoding   string        `yaml:"encoding"`  // "hex" (default), "base64"
	Timestamp  string        `yaml:"timestamp"` // header with seconds since 1970, signed in front of the body with a dot
	Tolerance  time.Duration `yaml:"tolerance"` // default 5m
	ID         string        `yaml:"id"`        // header, body:path, or content
	Records    string        `yaml:"records"`
	Time       string        `yaml:"time"`
	MaxBody    int64         `yaml:"max_body"` // bytes; default 1 MiB
	Answers    *Fields       `yaml:"answers"`  // the records are answers to work orders
}

func (w *Webhook) fill(inFolder func(*string)) {
	if w.TLS != nil {
		inFolder(&w.TLS.CertFile)
		inFolder(&w.TLS.KeyFile)
		inFolder(&w.TLS.ClientCAFile)
	}
	for i := range w.Hooks {
		h := &w.Hooks[i]
		inFolder(&h.SecretFile)
		setDefault(&h.Scheme, "standard")
		setDefault(&h.Tolerance, 5*time.Minute)
		setDefault(&h.MaxBody, 1<<20)
		setDefault(&h.Encoding, "hex")
		switch h.Scheme {
		case "standard":
			setDefault(&h.ID, "webhook-id")
		case "github":
			setDefault(&h.Header, "X-Hub-Signature-256")
			setDefault(&h.Prefix, "sha256=")
			setDefault(&h.ID, "X-GitHub-Delivery")
		case "token":
			setDefault(&h.Header, "Authorization")
			if h.Header == "Authorization" {
				setDefault(&h.Prefix, "Bearer ")
			}
		}
		if h.Answers != nil {
			h.Answers.fill()
			setDefault(&h.Tag, signal.AnswerTag)
		}
	}
}

func (w *Webhook) validate() error {
	if _, _, err := net.SplitHostPort(w.Listen); err != nil {
		return fmt.Errorf("listen %q is no address such as 0.0.0.0:8490", w.Listen)
	}
	if w.TLS != nil && (w.TLS.CertFile == "" || w.TLS.KeyFile == "") {
		return errors.New("tls needs cert_file and key_file")
	}
	if len(w.Hooks) == 0 {
		return errors.New("hooks is empty: name at least one path")
	}
	paths := map[string]bool{}
	for i := range w.Hooks {
		h := &w.Hooks[i]
		if paths[h.Path] || !strings.HasPrefix(h.Path, "/") || strings.ContainsAny(h.Path, "{} ?#") {
			return fmt.Errorf("path %q does not begin with /, has signs that a path has not, or is used twice", h.Path)
		}
		paths[h.Path] = true
		if err := h.validate(); err != nil {
			return fmt.Errorf("path %q: %w", h.Path, err)
		}
	}
	return nil
}

func (h *Hook) validate() error {
	switch {
	case h.Tag == "":
		return errors.New("tag is empty")
	case h.Scheme != "standard" && h.Scheme != "github" && h.Scheme != "hmac" && h.Scheme != "token":
		return fmt.Errorf("scheme %q is none of standard, github, hmac, token", h.Scheme)
	case h.SecretFile == "":
		return errors.New("secret_file is empty: without a secret anybody could send production")
	case h.Scheme == "hmac" && h.Header == "":
		return errors.New("scheme hmac needs header: which one holds the signature")
	case h.ID == "":
		return errors.New("id is empty: name the header, or body:path, that is the same when the MES sends again; or content")
	case h.Encoding != "hex" && h.Encoding != "base64":
		return fmt.Errorf("encoding %q is neither hex nor base64", h.Encoding)
	case h.Tolerance < time.Second || h.MaxBody < 1:
		return errors.New("tolerance must be at least 1s and max_body at least 1")
	}
	return h.Answers.validate()
}

const (
	atOnce      = 64               // requests that are worked on at a time
	storeWithin = 10 * time.Second // after that the sender is asked to come again
)

// hookServer takes webhooks.
type hookServer struct {
	*source
	emit signal.Emit
}

// serve listens until ctx ends or the listener breaks.
func (s *hookServer) serve(ctx context.Context) (bool, error) {
	w := s.config.Webhook
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", w.Listen)
	if err != nil {
		return false, &polling.ProblemError{Problem: signal.Problem{Code: "not_listening", Item: w.Listen, Reason: "no webhooks can be taken: " + err.Error(), NextStep: "choose an address of this computer and a port that nobody uses"}}
	}
	defer l.Close()
	if w.TLS != nil {
		secure, err := w.TLS.config()
		if err != nil {
			return false, &polling.ProblemError{Problem: signal.Problem{Code: "file_unreadable", Item: "webhook.tls", Reason: err.Error(), NextStep: "correct webhook.tls, or the files"}}
		}
		l = tls.NewListener(l, secure)
	}
	server := &http.Server{Handler: s.handler(ctx), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: s.config.Timeout, IdleTimeout: time.Minute, MaxHeaderBytes: 32 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx }, ErrorLog: nil}
	s.health.Well(hookSection)
	s.env.Reporter.Problem("query:"+hookSection, nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-ctx.Done()
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if server.Shutdown(closing) != nil {
			server.Close()
		}
	}()
	err = server.Serve(l)
	if ctx.Err() != nil {
		<-done // the requests under way were answered
		return false, nil
	}
	return false, fmt.Errorf("take webhooks at %s: %w", w.Listen, err)
}

// config reads the certificate anew for each connection, so that a renewed one needs no restart.
func (t *ServerTLS) config() (*tls.Config, error) {
	if _, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile); err != nil {
		return nil, fmt.Errorf("read the certificate: %w", err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		return &pair, err
	}}
	if t.ClientCAFile != "" {
		pem, err := os.ReadFile(t.ClientCAFile)
		if err != nil {
			return nil, fmt.Errorf("read client_ca_file: %w", err)
		}
		c.ClientCAs, c.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		if !c.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("client_ca_file %q holds no certificate in PEM form", t.ClientCAFile)
		}
	}
	return c, nil
}

func (s *hookServer) handler(ctx context.Context) http.Handler {
	slots := make(chan struct{}, atOnce)
	mux := http.NewServeMux()
	for i := range s.config.Webhook.Hooks {
		h := &s.config.Webhook.Hooks[i]
		mux.HandleFunc("POST "+h.Path, func(w http.ResponseWriter, r *http.Request) {
			select {
			case slots <- struct{}{}:
				defer func() { <-slots }()
			default:
				later(w, "too many requests at once")
				return
			}
			s.take(ctx, h, w, r)
		})
	}
	return mux
}

func later(w http.ResponseWriter, text string) {
	w.Header().Set("Retry-After", "30")
	http.Error(w, text, http.StatusServiceUnavailable)
}

// take answers one request. It says 200 only when its records are durable.
func (s *hookServer) take(ctx context.Context, h *Hook, w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, h.MaxBody))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		s.refuse(h, w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is larger than max_body, %d bytes", h.MaxBody), "raise max_body of the hook, or let the MES send less at a time")
		return
	}
	if err != nil {
		http.Error(w, "the body was not received", http.StatusBadRequest)
		return
	}
	secrets, err := readSecrets(h.SecretFile)
	if err != nil { // our own fault: the sender shall come again
		s.show(h, "file_unreadable", err.Error(), "write the secret into secret_file, one a line")
		later(w, "not ready")
		return
	}
	if err := h.verify(r.Header, body, secrets, time.Now()); err != nil {
		s.refuse(h, w, http.StatusUnauthorized, err.Error(), "compare scheme, header and secret with the MES's settings; if the time is at fault, compare the clocks")
		return
	}
	id, err := h.identity(r.Header, body)
	if err != nil {
		s.refuse(h, w, http.StatusBadRequest, err.Error(), "correct id: what stays the same when the MES sends again")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, storeWithin)
	defer cancel()
	signals := s.signals(h, id, body)
	if len(signals) > 0 {
		if err := s.emit(ctx, signal.Batch{Source: s.env.Source, Signals: signals}); err != nil {
			s.env.Reporter.State(signal.StateHeld, "store a webhook: "+err.Error())
			later(w, "not stored, send it again later")
			return
		}
	}
	s.health.Well(hookSection)
	s.env.Reporter.Problem("hook:"+h.Path, nil)
	w.WriteHeader(http.StatusOK)
}

func (s *hookServer) refuse(h *Hook, w http.ResponseWriter, code int, reason, next string) {
	s.show(h, "webhook_refused", reason, next)
	http.Error(w, reason, code)
}

func (s *hookServer) show(h *Hook, code, reason, next string) {
	s.env.Logger.Warn("take webhook", "source", s.env.Source, "path", h.Path, "err", reason)
	s.env.Reporter.Problem("hook:"+h.Path, &signal.Problem{Code: code, Item: h.Path, Reason: "a webhook was not taken: " + reason, NextStep: next})
}

// signals makes signals of a body. One that is no JSON is kept like any other: it ends in quarantine.
func (s *hookServer) signals(h *Hook, id string, body []byte) []signal.Signal {
	base := signal.Signal{Tag: h.Tag, Payload: body, Position: h.Path + "|" + escape(id), ReceivedTime: time.Now()}
	v, err := payload.JSON(body)
	if err != nil {
		base.Problem = &signal.Problem{Code: "bad_json", Item: h.Path, Reason: "the body of a webhook is no JSON: " + err.Error(), NextStep: "correct the MES's settings for this webhook"}
		return []signal.Signal{base}
	}
	list, isList := find(v, h.Records).([]any)
	if !isList {
		list = []any{find(v, h.Records)}
	}
	out := make([]signal.Signal, len(list))
	for i, item := range list {
		x := base
		x.Value = item
		if isList {
			x.Payload = canonical(item)
			x.Position += "|" + strconv.Itoa(i)
		}
		if text, ok := plain(find(item, h.Time)); ok && h.Time != "" {
			x.SourceTime, _ = payload.Time(text, s.zone)
		}
		if h.Answers != nil {
			h.Answers.complete(&x, s.zone)
		}
		out[i] = x
	}
	return out
}

// identity is what stays the same when the sender repeats a request.
func (h *Hook) identity(header http.Header, body []byte) (string, error) {
	if h.ID == "content" {
		return contentHash(body), nil
	}
	if path, ok := strings.CutPrefix(h.ID, "body:"); ok {
		v, err := payload.JSON(body)
		if err != nil {
			return contentHash(body), nil // it ends in quarantine, once
		}
		if id, ok := plain(find(v, path)); ok {
			return id, nil
		}
		return "", fmt.Errorf("the body has no id at %q", path)
	}
	if id := header.Get(h.ID); id != "" {
		return id, nil
	}
	return "", fmt.Errorf("there is no header %q with an id", h.ID)
}

// secrets are cached for as long as their file does not change.
var secretFiles sync.Map

type secretFile struct {
	changed time.Time
	size    int64
	lines   []string
}

func readSecrets(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read secret_file: %w", err)
	}
	if known, ok := secretFiles.Load(path); ok {
		if k := known.(secretFile); k.changed.Equal(info.ModTime()) && k.size == info.Size() {
			return k.lines, nil
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read secret_file: %w", err)
	}
	var lines []string
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("secret_file %q is empty", path)
	}
	secretFiles.Store(path, secretFile{info.ModTime(), info.Size(), lines})
	return lines, nil
}

// verify checks who sent a body. Any of the secrets will do, so that they can be changed while the MES goes on.
func (h *Hook) verify(header http.Header, body []byte, secrets []string, now time.Time) error {
	switch h.Scheme {
	case "token":
		given, ok := strings.CutPrefix(header.Get(h.Header), h.Prefix)
		if !ok || given == "" {
			return fmt.Errorf("there is no header %q with a token", h.Header)
		}
		return anyOf(secrets, func(s string) bool { return subtle.ConstantTimeCompare([]byte(given), []byte(s)) == 1 })
	case "standard":
		return verifyStandard(header, body, secrets, h.Tolerance, now)
	}
	signed := body
	if h.Timestamp != "" {
		stamp := header.Get(h.Timestamp)
		if err := fresh(stamp, h.Tolerance, now); err != nil {
			return err
		}
		signed = append([]byte(stamp+"."), body...)
	}
	given, ok := strings.CutPrefix(header.Get(h.Header), h.Prefix)
	if !ok || given == "" {
		return fmt.Errorf("there is no header %q with a signature that begins with %q", h.Header, h.Prefix)
	}
	decode := hex.DecodeString
	if h.Encoding == "base64" {
		decode = base64.StdEncoding.DecodeString
	}
	signature, err := decode(strings.TrimSpace(given))
	if err != nil {
		return fmt.Errorf("the signature is not written in %s", h.Encoding)
	}
	return anyOf(secrets, func(s string) bool { return hmac.Equal(signature, mac([]byte(s), signed)) })
}

func anyOf(secrets []string, fits func(string) bool) error {
	found := false
	for _, s := range secrets {
		found = fits(s) || found // each is looked at: the time tells nothing
	}
	if !found {
		return errors.New("the signature or token does not fit any secret")
	}
	return nil
}

// verifyStandard checks a signature of the Standard Webhooks: HMAC-SHA256 of id, timestamp and body, in base64 after "v1,".
func verifyStandard(header http.Header, body []byte, secrets []string, tolerance time.Duration, now time.Time) error {
	id, stamp := header.Get("webhook-id"), header.Get("webhook-timestamp")
	if id == "" {
		return errors.New("there is no header \"webhook-id\"")
	}
	if err := fresh(stamp, tolerance, now); err != nil {
		return err
	}
	signed := append([]byte(id+"."+stamp+"."), body...)
	var given [][]byte
	for part := range strings.FieldsSeq(header.Get("webhook-signature")) {
		if text, ok := strings.CutPrefix(part, "v1,"); ok {
			if b, err := base64.StdEncoding.DecodeString(text); err == nil {
				given = append(given, b)
			}
		}
	}
	if len(given) == 0 {
		return errors.New("there is no header \"webhook-signature\" with a signature of version v1")
	}
	return anyOf(secrets, func(s string) bool {
		key := []byte(s)
		if text, ok := strings.CutPrefix(s, "whsec_"); ok {
			if b, err := base64.StdEncoding.DecodeString(text); err == nil {
				key = b
			}
		}
		want, fits := mac(key, signed), false
		for _, g := range given {
			fits = hmac.Equal(g, want) || fits
		}
		return fits
	})
}

func fresh(stamp string, tolerance time.Duration, now time.Time) error {
	n, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil || n < 0 || n > 1<<40 {
		return errors.New("there is no timestamp in seconds since 1970")
	}
	if d := now.Sub(time.Unix(n, 0)); d.Abs() > tolerance {
		return fmt.Errorf("the timestamp is %s away from this computer's clock, more than tolerance, %s", d.Abs().Round(time.Second), tolerance)
	}
	return nil
}

func mac(key, text []byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write(text)
	return m.Sum(nil)
}
