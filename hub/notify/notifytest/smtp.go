// Package notifytest has a small mail server for tests.
//
// It owns a server that takes mail as strictly as a real one and can fail in the ways that real ones do. It promises to remember every
// letter and every line that was said in the clear. It is no part of the hub.
package notifytest

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Letter is mail that was taken.
type Letter struct {
	From, To, User string
	Header         mail.Header
	Subject, Text  string // decoded
	Raw            string
}

// Faults are what the server does wrong, or how it is set up.
type Faults struct {
	NoStartTLS bool
	// OnlyLogin offers AUTH LOGIN and no PLAIN.
	OnlyLogin bool
	// WantsLogin takes nothing from who has not logged in.
	WantsLogin bool
	// Refuse are addresses that it does not know.
	Refuse []string
	// Busy answers with a temporary failure; LoseReply takes so many letters and hangs up instead of saying so.
	Busy      bool
	LoseReply int
}

// Server is a mail server on a loopback port.
type Server struct {
	// Addr is host:port, CAFile the authority of its certificate.
	Addr, CAFile   string
	User, Password string

	t        *testing.T
	implicit bool
	cert     tls.Certificate
	listener net.Listener
	wait     sync.WaitGroup

	mu      sync.Mutex
	faults  Faults
	letters []Letter
	clear   []string
	open    map[net.Conn]bool
}

// Start runs a server until the test ends; implicit speaks TLS from the first byte on.
func Start(t *testing.T, implicit bool, f Faults) *Server {
	t.Helper()
	s := &Server{t: t, implicit: implicit, faults: f, User: "linekeeper", Password: "correct horse", open: map[net.Conn]bool{}}
	s.certify()
	var err error
	if s.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	s.Addr = s.listener.Addr().String()
	s.wait.Go(s.accept)
	t.Cleanup(s.stop)
	return s
}

func (s *Server) stop() {
	s.listener.Close()
	s.mu.Lock()
	for c := range s.open {
		c.Close()
	}
	s.mu.Unlock()
	s.wait.Wait()
}

func (s *Server) certify() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mail server of a test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		s.t.Fatal(err)
	}
	s.cert = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	s.CAFile = filepath.Join(s.t.TempDir(), "mail-ca.pem")
	if err := os.WriteFile(s.CAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// Set changes the faults from the next line on.
func (s *Server) Set(f Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = f
}

func (s *Server) now() Faults {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.faults
}

// Letters are those that were taken so far.
func (s *Server) Letters() []Letter {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Letter(nil), s.letters...)
}

// Clear is what was said without encryption.
func (s *Server) Clear() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.clear, "\n")
}

func (s *Server) accept() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.open[c] = true
		s.mu.Unlock()
		s.wait.Go(func() {
			defer func() {
				s.mu.Lock()
				delete(s.open, c)
				s.mu.Unlock()
				c.Close()
			}()
			(&session{s: s, conn: c}).serve()
		})
	}
}

type session struct {
	s      *Server
	conn   net.Conn
	in     *bufio.Reader
	secure bool
	user   string
	from   string
	to     string
}

func (x *session) encrypt() {
	x.conn = tls.Server(x.conn, &tls.Config{Certificates: []tls.Certificate{x.s.cert}})
	x.in, x.secure = bufio.NewReader(x.conn), true
}

func (x *session) say(format string, args ...any) { fmt.Fprintf(x.conn, format+"\r\n", args...) }

func (x *session) hear() (string, bool) {
	line, err := x.in.ReadString('\n')
	line = strings.TrimRight(line, "\r\n")
	if err == nil && !x.secure {
		x.s.mu.Lock()
		x.s.clear = append(x.s.clear, line)
		x.s.mu.Unlock()
	}
	return line, err == nil
}

func (x *session) serve() {
	x.in = bufio.NewReader(x.conn)
	if x.s.implicit {
		x.encrypt()
	}
	x.say("220 mail.test ESMTP")
	for {
		line, ok := x.hear()
		if !ok {
			return
		}
		verb, rest, _ := strings.Cut(line, " ")
		if !x.command(strings.ToUpper(verb), rest) {
			return
		}
	}
}

// command answers one line; false ends the session.
func (x *session) command(verb, rest string) bool {
	f := x.s.now()
	switch verb {
	case "EHLO":
		x.say("250-mail.test")
		if !x.secure && !f.NoStartTLS {
			x.say("250-STARTTLS")
		}
		if f.OnlyLogin {
			x.say("250-AUTH LOGIN")
		} else {
			x.say("250-AUTH PLAIN LOGIN")
		}
		x.say("250 8BITMIME")
	case "STARTTLS":
		x.say("220 go ahead")
		x.encrypt()
	case "AUTH":
		return x.login(rest)
	case "MAIL":
		switch {
		case f.Busy:
			x.say("421 4.3.2 too busy")
			return false
		case f.WantsLogin && x.user == "":
			x.say("530 5.7.0 log in first")
		default:
			x.from = address(rest)
			x.say("250 2.1.0 ok")
		}
	case "RCPT":
		x.to = address(rest)
		for _, a := range f.Refuse {
			if a == x.to {
				x.say("550 5.1.1 <%s> is not known here", x.to)
				return true
			}
		}
		x.say("250 2.1.5 ok")
	case "DATA":
		return x.data()
	case "QUIT":
		x.say("221 bye")
		return false
	default:
		x.say("500 what is %s", verb)
	}
	return true
}

func address(rest string) string {
	_, a, _ := strings.Cut(rest, "<")
	a, _, _ = strings.Cut(a, ">")
	return a
}

func (x *session) login(rest string) bool {
	way, first, _ := strings.Cut(rest, " ")
	var user, password string
	switch strings.ToUpper(way) {
	case "PLAIN":
		raw, _ := base64.StdEncoding.DecodeString(first)
		if parts := strings.Split(string(raw), "\x00"); len(parts) == 3 {
			user, password = parts[1], parts[2]
		}
	case "LOGIN":
		for _, ask := range []struct {
			text string
			into *string
		}{{"Username:", &user}, {"Password:", &password}} {
			x.say("334 %s", base64.StdEncoding.EncodeToString([]byte(ask.text)))
			line, ok := x.hear()
			if !ok {
				return false
			}
			raw, _ := base64.StdEncoding.DecodeString(line)
			*ask.into = string(raw)
		}
	}
	if user != x.s.User || password != x.s.Password {
		x.say("535 5.7.8 name or password is wrong")
		return true
	}
	x.user = user
	x.say("235 2.7.0 welcome")
	return true
}

func (x *session) data() bool {
	x.say("354 go on")
	var b strings.Builder
	for {
		line, ok := x.hear()
		if !ok {
			return false
		}
		if line == "." {
			break
		}
		b.WriteString(strings.TrimPrefix(line, ".") + "\r\n")
	}
	return x.s.take(x, b.String())
}

func (s *Server) take(x *session, raw string) bool {
	l := Letter{From: x.from, To: x.to, User: x.user, Raw: raw}
	m, err := mail.ReadMessage(strings.NewReader(raw))
	if err != nil {
		x.say("554 5.6.0 that is no mail: %v", err)
		return true
	}
	l.Header = m.Header
	l.Subject, _ = new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
	text, _ := io.ReadAll(quotedprintable.NewReader(m.Body))
	l.Text = string(text)
	s.mu.Lock()
	s.letters = append(s.letters, l)
	n := len(s.letters)
	lose := s.faults.LoseReply > 0
	if lose {
		s.faults.LoseReply--
	}
	s.mu.Unlock()
	if lose {
		return false
	}
	x.say("250 2.0.0 queued as %d", n)
	return true
}
