package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/smtp"
	"net/textproto"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/store"
)

// postOffice is the server that takes mail.
type postOffice struct {
	SMTPConfig
	password string
	secure   *tls.Config
}

// mailer brings mail to one address.
type mailer struct {
	*postOffice
	to string
}

func (m mailer) send(ctx context.Context, msg store.Message) (string, error) {
	letter, err := m.letter(msg)
	if err != nil {
		return "", err
	}
	answer, err := m.hand(ctx, letter)
	if err != nil {
		return "", m.explain(err)
	}
	return oneLine(answer), nil
}

// explain says what is to be done, and names no address: it is shown to others too.
func (m mailer) explain(err error) error {
	var r *refusal
	if errors.As(err, &r) {
		return err
	}
	text := oneLine(strings.ReplaceAll(err.Error(), m.to, "the address"))
	var said *textproto.Error
	if !errors.As(err, &said) {
		return refuse(false, "look whether the mail server runs and can be reached from the hub; it is tried again by itself", "%s", text)
	}
	next := "look at the mail server; it is tried again by itself"
	switch {
	case said.Code == 530 || said.Code == 534 || said.Code == 535 || said.Code == 538:
		next = "set user and password under notify.smtp as the mail server wants them"
	case said.Code >= 500:
		next = "compare the addresses in notify.receivers and notify.smtp.from with what the mail server accepts"
	}
	return refuse(said.Code >= 500, next, "the mail server said %s", text)
}

// hand gives a letter to the server and returns what it said. An error after the last line leaves open whether the letter was taken.
func (m mailer) hand(ctx context.Context, letter []byte) (answer string, err error) {
	host, _, err := net.SplitHostPort(m.Server)
	if err != nil {
		return "", err
	}
	line, err := (&net.Dialer{}).DialContext(ctx, "tcp", m.Server)
	if err != nil {
		return "", err
	}
	defer line.Close()
	stop := context.AfterFunc(ctx, func() { line.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	secure := m.secure.Clone()
	secure.ServerName = host
	conn := line
	if m.TLS == implicitTLS {
		conn = tls.Client(line, secure)
	}
	c, err := smtp.NewClient(conn, host)
	if err != nil {
		return "", err
	}
	if err := m.open(c, secure); err != nil {
		return "", err
	}
	if err := c.Mail(m.From); err != nil {
		return "", err
	}
	if err := c.Rcpt(m.to); err != nil {
		return "", err
	}
	if err := say(c, 354, "DATA"); err != nil {
		return "", err
	}
	w := c.Text.DotWriter()
	if _, err := w.Write(letter); err != nil {
		return "", err
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	code, text, err := c.Text.ReadResponse(250)
	if err != nil {
		return "", err
	}
	_ = c.Quit() // it has the letter, whatever becomes of the connection
	return fmt.Sprintf("%d %s", code, text), nil
}

func say(c *smtp.Client, want int, command string) error {
	id, err := c.Text.Cmd("%s", command)
	if err != nil {
		return err
	}
	c.Text.StartResponse(id)
	defer c.Text.EndResponse(id)
	_, _, err = c.Text.ReadResponse(want)
	return err
}

// open greets, encrypts and logs in, in this order: nothing secret is said before.
func (m mailer) open(c *smtp.Client, secure *tls.Config) error {
	self, err := os.Hostname()
	if err != nil || self == "" || strings.ContainsAny(self, " \r\n") {
		self = "localhost"
	}
	if err := c.Hello(self); err != nil {
		return err
	}
	if m.TLS == startTLS {
		if ok, _ := c.Extension("STARTTLS"); !ok {
			return refuse(true, "set notify.smtp.tls and the port as the mail server wants them", "the mail server offers no STARTTLS: nothing was sent")
		}
		if err := c.StartTLS(secure); err != nil {
			return fmt.Errorf("encrypt the connection: %w", err)
		}
	}
	if m.User == "" {
		return nil
	}
	host, _, _ := net.SplitHostPort(m.Server)
	_, offered := c.Extension("AUTH")
	auth := smtp.PlainAuth("", m.User, m.password, host)
	if ways := strings.Fields(strings.ToUpper(offered)); !slices.Contains(ways, "PLAIN") && slices.Contains(ways, "LOGIN") {
		auth = &login{m.User, m.password, 0}
	}
	if _, ok := c.TLSConnectionState(); !ok {
		return refuse(true, "set notify.smtp.tls", "the connection to the mail server is not encrypted: no password was sent")
	}
	return c.Auth(auth)
}

// login is the manner of servers that know PLAIN not: they ask for the name, then for the password.
type login struct {
	user, password string
	asked          int
}

func (l *login) Start(s *smtp.ServerInfo) (string, []byte, error) {
	if !s.TLS {
		return "", nil, errors.New("the connection is not encrypted")
	}
	return "LOGIN", nil, nil
}

func (l *login) Next(_ []byte, more bool) ([]byte, error) {
	if !more {
		return nil, nil
	}
	l.asked++
	switch l.asked {
	case 1:
		return []byte(l.user), nil
	case 2:
		return []byte(l.password), nil
	}
	return nil, errors.New("the mail server asks for more than name and password")
}

// letter is the message as mail. It is the same whenever it is made: only then is a repeat one.
func (m mailer) letter(msg store.Message) ([]byte, error) {
	var e event
	if err := json.Unmarshal([]byte(msg.Body), &e); err != nil {
		return nil, fmt.Errorf("read message %s: %w", msg.MessageID, err)
	}
	_, domain, _ := strings.Cut(m.From, "@")
	var b bytes.Buffer
	for _, h := range [][2]string{
		{"From", m.From}, {"To", m.to}, {"Subject", mime.QEncoding.Encode("utf-8", oneLine(msg.Subject))}, {"Date", msg.MadeAt.Format(time.RFC1123Z)},
		{"Message-ID", "<" + msg.MessageID + "@" + domain + ">"}, {"Auto-Submitted", "auto-generated"}, {"X-Linekeeper-Message", msg.MessageID},
		{"MIME-Version", "1.0"}, {"Content-Type", "text/plain; charset=utf-8"}, {"Content-Transfer-Encoding", "quoted-printable"},
	} {
		b.WriteString(h[0] + ": " + h[1] + "\r\n")
	}
	b.WriteString("\r\n")
	w := quotedprintable.NewWriter(&b)
	if _, err := w.Write([]byte(strings.ReplaceAll(e.Data.Text, "\n", "\r\n"))); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
