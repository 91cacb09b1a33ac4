package notify

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/notify/notifytest"
	"github.com/linekeeper/linekeeper/hub/store"
)

// letter is a message as it would be stored.
func letter(t *testing.T, title string) store.Message {
	t.Helper()
	body, err := json.Marshal(event{Data: content{Title: title, Text: "Zwölf Stück warten.\n.\n" + strings.Repeat("long ", 40) + "\n"}})
	if err != nil {
		t.Fatal(err)
	}
	return store.Message{MessageID: "msg_1", Subject: title, Body: string(body), MadeAt: time.Now()}
}

func mailTo(t *testing.T, s *notifytest.Server, to string, change func(*SMTPConfig)) sender {
	t.Helper()
	t.Setenv("MAIL_PASSWORD", s.Password)
	c := SMTPConfig{Server: s.Addr, TLS: startTLS, From: "hub@example.com", User: s.User, CAFile: s.CAFile}
	c.Password.Env = "MAIL_PASSWORD"
	if change != nil {
		change(&c)
	}
	post, f := c.open()
	if f != nil {
		t.Fatal(f)
	}
	return mailer{post, to}
}

func TestMailArrivesEncryptedAndReadable(t *testing.T) {
	for name, x := range map[string]struct {
		implicit bool
		faults   notifytest.Faults
		change   func(*SMTPConfig)
		user     string
	}{
		"STARTTLS":       {false, notifytest.Faults{WantsLogin: true}, nil, "linekeeper"},
		"TLS":            {true, notifytest.Faults{WantsLogin: true}, func(c *SMTPConfig) { c.TLS = implicitTLS }, "linekeeper"},
		"AUTH LOGIN":     {false, notifytest.Faults{WantsLogin: true, OnlyLogin: true}, nil, "linekeeper"},
		"no log-in":      {false, notifytest.Faults{}, func(c *SMTPConfig) { c.User = "" }, ""},
		"relay in clear": {false, notifytest.Faults{NoStartTLS: true}, func(c *SMTPConfig) { c.TLS, c.User = noTLS, "" }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := notifytest.Start(t, x.implicit, x.faults)
			m := letter(t, "[ulm] zwölf Stück von BRACKET-10 warten (seit 3 min)\r\nBcc: all@example.com")
			answer, err := mailTo(t, s, "lead@example.com", x.change).send(t.Context(), m)
			if err != nil || !strings.Contains(answer, "queued as 1") {
				t.Fatal(answer, err)
			}
			l := s.Letters()[0]
			if l.From != "hub@example.com" || l.To != "lead@example.com" || l.User != x.user || l.Header.Get("Bcc") != "" || l.Header.Get("Message-ID") != "<msg_1@example.com>" ||
				l.Subject != "[ulm] zwölf Stück von BRACKET-10 warten (seit 3 min) Bcc: all@example.com" || l.Header.Get("Auto-Submitted") != "auto-generated" || l.Header.Get("X-Linekeeper-Message") != "msg_1" {
				t.Errorf("%+v", l)
			}
			if want := "Zwölf Stück warten.\r\n.\r\n" + strings.Repeat("long ", 40) + "\r\n"; strings.TrimRight(l.Text, "\r\n") != strings.TrimRight(want, "\r\n") {
				t.Errorf("%q, want %q", l.Text, want)
			}
			if _, err := l.Header.Date(); err != nil {
				t.Error(err)
			}
			if s := s.Clear(); name != "relay in clear" && strings.Contains(s, "MAIL") {
				t.Errorf("said in the clear: %s", s)
			}
		})
	}
}

// The password must not be heard by who sits on the way, whatever the server offers.
func TestPasswordIsNeverSaidInTheClear(t *testing.T) {
	for name, x := range map[string]struct {
		faults notifytest.Faults
		change func(*SMTPConfig)
		next   string
	}{
		"somebody took STARTTLS away":    {notifytest.Faults{NoStartTLS: true}, nil, "notify.smtp.tls"},
		"no TLS is wanted":               {notifytest.Faults{NoStartTLS: true}, func(c *SMTPConfig) { c.TLS = noTLS }, "notify.smtp.tls"},
		"LOGIN without TLS":              {notifytest.Faults{NoStartTLS: true, OnlyLogin: true}, func(c *SMTPConfig) { c.TLS = noTLS }, "notify.smtp.tls"},
		"certificate of somebody else's": {notifytest.Faults{}, func(c *SMTPConfig) { c.CAFile = "" }, "mail server"},
	} {
		t.Run(name, func(t *testing.T) {
			s := notifytest.Start(t, false, x.faults)
			_, err := mailTo(t, s, "lead@example.com", x.change).send(t.Context(), letter(t, "title"))
			var r *refusal
			if !errors.As(err, &r) || !strings.Contains(r.next, x.next) {
				t.Fatalf("%v, next step %+v", err, r)
			}
			heard := s.Clear()
			for _, secret := range []string{s.Password, base64.StdEncoding.EncodeToString([]byte(s.Password)), base64.StdEncoding.EncodeToString([]byte("\x00" + s.User + "\x00" + s.Password)), "AUTH", "MAIL"} {
				if strings.Contains(heard, secret) {
					t.Errorf("%q was said in the clear:\n%s", secret, heard)
				}
			}
			if len(s.Letters()) > 0 {
				t.Error("a letter arrived")
			}
		})
	}
}

func TestRefusalOfTheMailServerNamesTheNextStepAndNoAddress(t *testing.T) {
	for name, x := range map[string]struct {
		faults  notifytest.Faults
		change  func(*SMTPConfig)
		lasting bool
		next    string
		why     string
	}{
		"unknown address": {notifytest.Faults{Refuse: []string{"lead@example.com"}}, nil, true, "notify.receivers", "550"},
		"wrong password":  {notifytest.Faults{}, func(c *SMTPConfig) { c.User = "somebody" }, true, "notify.smtp", "535"},
		"wants a log-in":  {notifytest.Faults{WantsLogin: true}, func(c *SMTPConfig) { c.User = "" }, true, "notify.smtp", "530"},
		"busy":            {notifytest.Faults{Busy: true}, nil, false, "by itself", "421"},
	} {
		t.Run(name, func(t *testing.T) {
			s := notifytest.Start(t, false, x.faults)
			_, err := mailTo(t, s, "lead@example.com", x.change).send(t.Context(), letter(t, "title"))
			var r *refusal
			if !errors.As(err, &r) || r.lasting != x.lasting || !strings.Contains(r.next, x.next) || !strings.Contains(err.Error(), x.why) || strings.Contains(err.Error(), "lead@") {
				t.Errorf("%v, %+v", err, r)
			}
		})
	}
}

func TestMailServerThatNeverAnswersIsLeftInTime(t *testing.T) {
	s := notifytest.Start(t, true, notifytest.Faults{}) // waits for TLS while we wait for its greeting
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := mailTo(t, s, "lead@example.com", nil).send(ctx, letter(t, "title")); err == nil {
		t.Error("it was taken")
	}
}
