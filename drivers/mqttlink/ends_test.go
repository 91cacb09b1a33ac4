package mqttlink

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	paho5 "github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session"
	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
	"go.uber.org/goleak"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// brokerThatEnds lets every client in, says the given bytes behind that, and ends the connection once gone is closed.
func brokerThatEnds(t *testing.T, last []byte, gone <-chan struct{}) *url.URL {
	t.Helper()
	return broker(t, serving(t, func(c net.Conn) {
		defer c.Close()
		connect := make([]byte, 512)
		if n, err := c.Read(connect); err != nil || n < 9 {
			return
		}
		answer := []byte{0x20, 2, 0, 0}
		if connect[8] == 5 {
			answer = []byte{0x20, 3, 0, 0, 0}
		}
		c.Write(append(answer, last...))
		<-gone
		c.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, c) // to close with something unread would reset the connection
	}))
}

// inTime fails when the library's half minute passes instead.
func inTime(t *testing.T, request func() error) error {
	t.Helper()
	answer := make(chan error, 1)
	go func() { answer <- request() }()
	select {
	case err := <-answer:
		return err
	case <-time.After(patience):
		t.Fatal("the request went on after the connection had ended")
		return nil
	}
}

var requests = map[string]func(*Session, context.Context) error{
	"subscribe": func(s *Session, ctx context.Context) error {
		_, err := s.Subscribe(ctx, []Subscription{{Filter: "x", QoS: 1}})
		return err
	},
	"unsubscribe": func(s *Session, ctx context.Context) error { return s.Unsubscribe(ctx, "x") },
	"publish":     func(s *Session, ctx context.Context) error { return s.Publish(ctx, Publication{Topic: "x", QoS: 1}) },
}

// held keeps a request in the library, between the look at the connection and the handing over, until the connection is lost.
type held struct {
	nowhere
	begun chan<- struct{}
	lost  <-chan struct{}
}

func (h held) Put(string, packets.ControlPacket) {
	close(h.begun)
	<-h.lost
}

// The connection is lost after the library has found it open and before the request is taken: nobody ever takes it.
func TestRequestThatTheLibraryNeverTakesEndsWithTheConnection(t *testing.T) {
	for name, request := range requests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begun := make(chan struct{})
			o := Options{Broker: brokerThatEnds(t, nil, begun), ClientID: "x", Version: V311}
			o.fill()
			s, err := connect(t.Context(), &o, func(ctx context.Context, o *Options, s *Session, password string) error {
				v := &v311{session: s}
				v.client = paho.NewClient(v.options(o, password).SetResumeSubs(true).SetStore(held{begun: begun, lost: s.ended}))
				return v.shakeHands(ctx, o)
			})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			err = inTime(t, func() error { return request(s, context.Background()) })
			if !errors.Is(err, io.EOF) {
				t.Errorf("ended with %v", err)
			}
		})
	}
}

// answered is a token with an answer.
type answered struct {
	paho.Token
	err error
}

func (answered) Done() <-chan struct{} { done := make(chan struct{}); close(done); return done }
func (a answered) Error() error        { return a.err }

type open struct{ paho.Client }

func (open) IsConnectionOpen() bool { return true }

// A connection on which nothing can be written for a while: what was not sent is handed over again, until somebody has it or it is
// not wanted any more.
func TestRequestThatWasGivenUpIsHandedOverAgain(t *testing.T) {
	s := &Session{}
	s.life, s.die = context.WithCancel(t.Context())
	s.ended = s.life.Done()
	v := &v311{session: s, client: open{}}
	calls := 0
	_, err := ask(t.Context(), v, func() answered {
		if calls++; calls < 3 {
			return answered{err: errors.New("subscribe was broken by timeout")}
		}
		return answered{}
	})
	if err != nil || calls != 3 {
		t.Errorf("after %d calls: %v", calls, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	calls = 0
	_, err = ask(ctx, v, func() answered {
		calls++
		cancel()
		return answered{err: errors.New("publish was broken by timeout")}
	})
	if !errors.Is(err, context.Canceled) || calls != 1 {
		t.Errorf("after %d calls: %v", calls, err)
	}
	refused := errors.New("the broker said no")
	if _, err = ask(t.Context(), v, func() answered { return answered{err: refused} }); !errors.Is(err, refused) {
		t.Errorf("refused with %v", err)
	}
}

// Wherever the end of the connection meets a request, the request ends with the reason.
func TestRequestOnAConnectionThatEndsAtOnceSaysWhy(t *testing.T) {
	gone := make(chan struct{})
	close(gone)
	for _, c := range []struct {
		name    string
		version Version
		last    []byte
		want    error
	}{
		{"3.1.1", V311, nil, io.EOF},
		{"5", V5, nil, io.EOF},
		{"5 taken over", V5, []byte{0xE0, 2, 0x8E, 0}, ErrTakenOver},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := Options{Broker: brokerThatEnds(t, c.last, gone), ClientID: "x", Version: c.version, SessionExpiry: Forever, KeepAlive: time.Minute}
			for range 50 {
				for name, request := range requests {
					s := connected(t, o)
					if err := inTime(t, func() error { return request(s, t.Context()) }); !errors.Is(err, c.want) {
						t.Errorf("%s: ended with %v", name, err)
					}
					s.Close()
				}
			}
		})
	}
}

// The library of version 5 lets a request fail before it says why the connection is over.
func TestRequestThatFailsBeforeTheReasonIsKnownWaitsForIt(t *testing.T) {
	for _, early := range []error{session.ErrNoConnection, paho5.ErrConnectionLost} {
		synctest.Test(t, func(t *testing.T) {
			s := &Session{}
			s.life, s.die = context.WithCancel(t.Context())
			s.ended = s.life.Done()
			answer := make(chan error, 1)
			go func() { answer <- (&v5{session: s}).failed(early) }()
			synctest.Wait()
			s.end(ErrTakenOver)
			if err := <-answer; !errors.Is(err, ErrTakenOver) {
				t.Errorf("%v ended with %v", early, err)
			}
		})
	}
}

// lateClient is told by the broker that it is in, and its context ends before it can use that.
type lateClient struct {
	paho.Client
	late func()
}

func (c lateClient) Connect() paho.Token {
	token := c.Client.Connect()
	<-token.Done()
	c.late()
	return token
}

func TestConnectThatIsTooLateIsNoConnection(t *testing.T) {
	gone := make(chan struct{})
	defer close(gone)
	o := Options{Broker: brokerThatEnds(t, nil, gone), ClientID: "x", Version: V311}
	o.fill()
	ctx, cancel := context.WithCancel(t.Context())
	s, err := connect(ctx, &o, func(ctx context.Context, o *Options, s *Session, password string) error {
		v := &v311{session: s}
		v.client = lateClient{paho.NewClient(v.options(o, password)), cancel}
		return v.shakeHands(ctx, o)
	})
	if !errors.Is(err, context.Canceled) || s != nil {
		t.Errorf("%v, %v", s, err)
	}
}

// goneAtOnce accepts one connection, lets speak say something on it and resets it; gone is closed then.
func goneAtOnce(t *testing.T, speak func(net.Conn)) (address string, gone <-chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		speak(c)
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}()
	return l.Addr().String(), done
}

// The end of a broker may be noticed by writing first: what it said before is read all the same.
func TestLastWordsAreReadAfterAWriteFailed(t *testing.T) {
	words := []byte{0xE0, 2, 0x8E, 0}
	address, gone := goneAtOnce(t, func(c net.Conn) {
		io.ReadFull(c, make([]byte, 1))
		c.Write(words)
	})
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	l := newLink(c, time.Minute, func() bool { return false })
	defer l.Close()
	l.spoken.Store(true) // the connect and its answer
	if _, err := c.Write([]byte{0}); err != nil {
		t.Fatal(err)
	}
	<-gone
	w := &wholePackets{link: l}
	w.Lock()
	w.Write([]byte{pingreqPacket, 0})
	w.Unlock()
	if _, err := l.Conn.Write([]byte{pingreqPacket, 0}); err == nil {
		t.Fatal("the write did not fail")
	}
	if got, _ := io.ReadAll(l); !bytes.Equal(got, words) {
		t.Errorf("read %x", got)
	}
}

// stubborn takes half of the first write.
type stubborn struct {
	net.Conn
	got []byte
}

func (s *stubborn) SetWriteDeadline(time.Time) error { return nil }

func (s *stubborn) Write(p []byte) (int, error) {
	n := len(p)
	var err error
	if len(s.got) == 0 {
		n, err = n/2, os.ErrDeadlineExceeded
	}
	s.got = append(s.got, p[:n]...)
	return n, err
}

// Behind a piece of a packet the broker would take the next one for its rest.
func TestNothingIsWrittenBehindAPieceOfAPacket(t *testing.T) {
	c := &stubborn{}
	l := newLink(c, time.Minute, func() bool { return false })
	l.spoken.Store(true)
	if n, err := l.acknowledge([]uint16{1, 2}); n != 2 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d may be written, %v", n, err)
	}
	if err := l.ping(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("ping: %v", err)
	}
	if n, err := l.acknowledge([]uint16{3}); n != 0 || err == nil {
		t.Errorf("%d may be written, %v", n, err)
	}
	if len(c.got) != 5 {
		t.Errorf("written are %x", c.got)
	}
}

// A broker of TLS 1.3 says that it wants a certificate when the client is through with the handshake, and may be gone before the
// client has written anything.
func TestRefusedCertificateIsToldAlsoWhenTheBrokerIsGoneAlready(t *testing.T) {
	web := httptest.NewTLSServer(nil) // for its certificate
	defer web.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	realparts.WriteFile(t, ca, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})))
	for _, with := range []func(context.Context, *Options, *Session, string) error{connect311, connect5} {
		address, gone := goneAtOnce(t, func(c net.Conn) {
			tls.Server(c, &tls.Config{Certificates: web.TLS.Certificates, ClientAuth: tls.RequireAnyClientCert}).Handshake()
		})
		o := Options{Broker: broker(t, "tls://"+address), ClientID: "x", TLS: TLS{CA: ca}}
		o.fill()
		_, err := connect(t.Context(), &o, func(ctx context.Context, o *Options, s *Session, password string) error {
			<-gone
			return with(ctx, o, s, password)
		})
		if err == nil {
			t.Fatal("connected")
		}
		if p := Explain(err, &o); p.Code != "certificate_refused" {
			t.Errorf("explained as %+v", p)
		}
	}
}
