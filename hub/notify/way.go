package notify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/webhook"
)

// way brings messages to one receiver. A receiver with several mail addresses has several, so that one that is refused holds up no
// other.
type way struct {
	name     string // the receiver's, with a number where it has several
	receiver string
	sender
}

// sender brings one message. answer is what the receiver said. An error is a refusal when it can be told what is wrong.
type sender interface {
	send(ctx context.Context, m store.Message) (answer string, err error)
}

// rest lets go of connections that are kept for the next message.
func (w way) rest() {
	if h, ok := w.sender.(*hook); ok {
		h.http.CloseIdleConnections()
	}
}

// refusal is a failure with what is to be done about it.
type refusal struct {
	err  error
	next string
	// lasting ones are the same again soon: they are tried more rarely. after is when the receiver wants to be asked again.
	lasting bool
	after   time.Duration
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

func refuse(lasting bool, next, format string, args ...any) error {
	return &refusal{err: fmt.Errorf(format, args...), next: next, lasting: lasting}
}

// ways makes them as configured. They are of use only when there are no faults. It reads secrets and certificates and touches no network.
func (c *Config) ways() (all []way, faults []Fault) {
	var post *postOffice
	for i, r := range c.Receivers {
		where := fmt.Sprintf("receivers[%d]", i+1)
		if w := r.Webhook; w != nil {
			hook, f := w.open(where + ".webhook")
			if f != nil {
				faults = append(faults, *f)
			}
			all = append(all, way{r.Name, r.Name, hook})
			continue
		}
		if post == nil {
			var f *Fault
			if post, f = c.SMTP.open(); f != nil {
				faults = append(faults, *f)
			}
		}
		for n, to := range r.Email.To {
			name := r.Name
			if len(r.Email.To) > 1 {
				name = fmt.Sprintf("%s/%d", r.Name, n+1)
			}
			all = append(all, way{name, r.Name, mailer{post, to}})
		}
	}
	return all, faults
}

func (w *WebhookConfig) open(where string) (sender, *Fault) {
	text, err := w.Secret.Read()
	if err != nil {
		return nil, &Fault{where + ".secret", "it " + err.Error(), "make one with `openssl rand -base64 32`; the receiver needs the same"}
	}
	key, err := webhook.Key(text)
	if err != nil {
		return nil, &Fault{where + ".secret", err.Error(), "write whsec_ and base64, or any text"}
	}
	secure, err := tlsConfig(w.CAFile)
	if err != nil {
		return nil, &Fault{where + ".ca_file", err.Error(), ""}
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = secure
	return &hook{url: w.URL, key: key, http: &http.Client{
		Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func (s *SMTPConfig) open() (*postOffice, *Fault) {
	p := &postOffice{SMTPConfig: *s}
	var err error
	if p.secure, err = tlsConfig(s.CAFile); err != nil {
		return p, &Fault{"smtp.ca_file", err.Error(), ""}
	}
	if s.User != "" {
		if p.password, err = s.Password.Read(); err != nil {
			return p, &Fault{"smtp.password", "it " + err.Error(), "write {file: FILE} or {env: VARIABLE}"}
		}
	}
	return p, nil
}

func tlsConfig(caFile string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile == "" {
		return c, nil
	}
	text, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(text) {
		return nil, errors.New("it holds no certificate; it begins with -----BEGIN CERTIFICATE-----")
	}
	return c, nil
}
