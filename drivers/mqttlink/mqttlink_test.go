package mqttlink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

const patience = 20 * time.Second

var versions = []Version{V311, V5}

func broker(t testing.TB, address string) *url.URL {
	t.Helper()
	u, err := ParseBroker(address)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func connected(t testing.TB, o Options) *Session {
	t.Helper()
	if o.KeepAlive == 0 {
		o.KeepAlive = 2 * time.Second
	}
	s, err := Connect(t.Context(), o)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(s.Close)
	return s
}

func subscribed(t testing.TB, s *Session, filters ...string) {
	t.Helper()
	var all []Subscription
	for _, f := range filters {
		all = append(all, Subscription{Filter: f, QoS: 1})
	}
	grants, err := s.Subscribe(t.Context(), all)
	if err != nil {
		t.Fatalf("subscribe: %v", err)
	}
	for _, g := range grants {
		if g.Refused != nil || g.QoS != 1 {
			t.Fatalf("subscription is granted as %+v", g)
		}
	}
}

// next waits for one message and acknowledges it.
func next(t testing.TB, s *Session) Message {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		batch := s.Take(nil, 1)
		if len(batch) == 1 {
			if _, err := s.Acknowledge(batch); err != nil {
				t.Fatalf("acknowledge: %v", err)
			}
			return batch[0]
		}
		select {
		case <-s.Ready():
		case <-s.Done():
			t.Fatalf("connection ended: %v", s.Err())
		case <-deadline.C:
			t.Fatal("no message came")
		}
	}
}

func ended(t testing.TB, s *Session) error {
	t.Helper()
	select {
	case <-s.Done():
		return s.Err()
	case <-time.After(patience):
		t.Fatal("the connection did not end")
		return nil
	}
}

func TestMessagesAndWillsGoBothWaysInBothVersions(t *testing.T) {
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	for _, v := range versions {
		t.Run(string(v), func(t *testing.T) {
			prefix := "v" + string(v)
			here := connected(t, Options{Broker: broker(t, b.URL()), ClientID: "here" + prefix, Version: v, SessionExpiry: Forever})
			there := connected(t, Options{Broker: broker(t, b.URL()), ClientID: "there" + prefix, Version: v, Clean: true,
				Will: &Publication{Topic: prefix + "/will", Payload: []byte("gone"), QoS: 1}})
			if here.Version != v || here.Present {
				t.Fatalf("version %s, session present %v", here.Version, here.Present)
			}
			subscribed(t, here, prefix+"/#")
			p := Publication{Topic: prefix + "/x", Payload: []byte("hello"), QoS: 1, Properties: Properties{ContentType: "text/plain",
				ResponseTopic: "answer", Correlation: []byte{1, 0}, Expiry: time.Minute, User: []Property{{"a", "1"}, {"a", "2"}}}}
			if err := there.Publish(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			m := next(t, here)
			if m.Topic != p.Topic || string(m.Payload) != "hello" || m.QoS != 1 || m.ID == 0 || m.Received.IsZero() {
				t.Errorf("message is %+v", m)
			}
			if v == V5 {
				if m.Properties == nil || m.Properties.Expiry < 50*time.Second {
					t.Fatalf("properties are %+v", m.Properties)
				}
				m.Properties.Expiry = time.Minute
				if !reflect.DeepEqual(*m.Properties, p.Properties) {
					t.Errorf("properties are %+v", m.Properties)
				}
			}
			there.Abandon()
			if m := next(t, here); m.Topic != prefix+"/will" || string(m.Payload) != "gone" {
				t.Errorf("instead of the will came %+v", m)
			}
			here.Close()
			again := connected(t, Options{Broker: broker(t, b.URL()), ClientID: "here" + prefix, Version: v, SessionExpiry: Forever})
			if !again.Present {
				t.Error("the broker forgot the session")
			}
			if err := again.Unsubscribe(t.Context(), prefix+"/#", "never/subscribed"); err != nil {
				t.Errorf("unsubscribe: %v", err)
			}
		})
	}
}

func TestFarewellKeepsTheWillBack(t *testing.T) {
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	for _, v := range versions {
		watch := connected(t, Options{Broker: broker(t, b.URL()), ClientID: "watch" + string(v), Version: v, Clean: true})
		subscribed(t, watch, "will/"+string(v))
		s := connected(t, Options{Broker: broker(t, b.URL()), ClientID: "mortal" + string(v), Version: v, Clean: true,
			Will: &Publication{Topic: "will/" + string(v), Payload: []byte("gone"), QoS: 1}})
		s.Close()
		if err := watch.Publish(t.Context(), Publication{Topic: "will/" + string(v), Payload: []byte("end"), QoS: 1}); err != nil {
			t.Fatal(err)
		}
		if m := next(t, watch); string(m.Payload) != "end" {
			t.Errorf("version %s: a will came in spite of the farewell: %q", v, m.Payload)
		}
	}
}

// Nothing is acknowledged but by Acknowledge: what was only taken comes again on the next connection.
func TestWhatWasNotAcknowledgedComesAgain(t *testing.T) {
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	for _, v := range versions {
		o := Options{Broker: broker(t, b.URL()), ClientID: "reader" + string(v), Version: v, SessionExpiry: Forever}
		s := connected(t, o)
		subscribed(t, s, "x"+string(v))
		for i := range 5 {
			if err := s.Publish(t.Context(), Publication{Topic: "x" + string(v), Payload: fmt.Append(nil, i), QoS: 1}); err != nil {
				t.Fatal(err)
			}
		}
		next(t, s)
		next(t, s)
		s.Close()
		s = connected(t, o)
		for i := 2; i < 5; i++ {
			if m := next(t, s); string(m.Payload) != fmt.Sprint(i) {
				t.Errorf("version %s: %q came again, want %d", v, m.Payload, i)
			}
		}
		s.Close()
	}
}

// Mosquitto only closes the connection, so a broker that says why stands in.
func TestTwinWithTheSameClientIDIsNamedInVersion5(t *testing.T) {
	_, address := inProcess(t)
	o := Options{Broker: broker(t, address), ClientID: "twin", Version: V5}
	first := connected(t, o)
	connected(t, o)
	err := ended(t, first)
	if !errors.Is(err, ErrTakenOver) {
		t.Fatalf("connection ended with %v", err)
	}
	if p := Explain(err, &o); p.Code != "client_id_conflict" || p.Item != "twin" {
		t.Errorf("explained as %+v", p)
	}
}

func TestHalfOpenConnectionEnds(t *testing.T) {
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	for _, v := range versions {
		t.Run(string(v), func(t *testing.T) {
			t.Parallel()
			proxy := realparts.NewProxy(t, fmt.Sprintf("127.0.0.1:%d", b.Port))
			s := connected(t, Options{Broker: broker(t, "tcp://"+proxy.Addr()), ClientID: "half" + string(v), Version: v, KeepAlive: time.Second})
			proxy.Stall()
			answer := make(chan error, 1)
			go func() { answer <- s.Publish(t.Context(), Publication{Topic: "x", QoS: 1}) }()
			if err := ended(t, s); !errors.Is(err, ErrSilent) {
				t.Errorf("connection ended with %v", err)
			}
			if err := <-answer; !errors.Is(err, ErrSilent) {
				t.Errorf("what was published meanwhile ended with %v", err)
			}
		})
	}
}

// old311 answers a connect of version 5 as brokers do that know 3.1.1 only, and passes all others to a real one. With silent
// it closes the connection instead, as some do.
func old311(t *testing.T, target string, silent bool) string {
	t.Helper()
	return serving(t, func(c net.Conn) {
		defer c.Close()
		head := make([]byte, 9)
		if _, err := io.ReadFull(c, head); err != nil {
			return
		}
		if head[8] == 5 {
			if !silent {
				c.Write([]byte{0x20, 2, 0, 1})
			}
			return
		}
		up, err := net.Dial("tcp", target)
		if err != nil {
			return
		}
		defer up.Close()
		up.Write(head)
		go func() { io.Copy(up, c); up.Close() }()
		io.Copy(c, up)
	})
}

// serving gives each connection to serve until the test ends, and returns the address.
func serving(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return "tcp://" + l.Addr().String()
}

func TestAutoGoesBackToWhatTheBrokerSpeaks(t *testing.T) {
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	if s := connected(t, Options{Broker: broker(t, b.URL()), ClientID: "auto"}); s.Version != V5 {
		t.Errorf("a broker that speaks 5 was met in %s", s.Version)
	}
	target := fmt.Sprintf("127.0.0.1:%d", b.Port)
	for _, silent := range []bool{false, true} {
		old := old311(t, target, silent)
		s := connected(t, Options{Broker: broker(t, old), ClientID: "auto"})
		if s.Version != V311 || s.Older == silent {
			t.Errorf("a broker that speaks 3.1.1 was met in %s", s.Version)
		}
		s.Close()
	}
	o := Options{Broker: broker(t, old311(t, target, false)), ClientID: "auto", Version: V5, KeepAlive: time.Second}
	_, err := Connect(t.Context(), o)
	if !errors.Is(err, ErrVersion) {
		t.Fatalf("version 5 alone: %v", err)
	}
	if p := Explain(err, &o); p.Code != "version_refused" {
		t.Errorf("explained as %+v", p)
	}
}

func TestRefusedLoginIsToldInWords(t *testing.T) {
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{User: "agent", Password: "right"})
	for _, v := range versions {
		o := Options{Broker: broker(t, b.URL()), ClientID: "x", Version: v, Username: "agent", KeepAlive: time.Second,
			Password: func() (string, error) { return "wrong-secret", nil }}
		_, err := Connect(t.Context(), o)
		var refused *Refused
		if !errors.As(err, &refused) {
			t.Fatalf("version %s: %v", v, err)
		}
		if p := Explain(err, &o); p.Code != "login_refused" || strings.Contains(fmt.Sprint(*p), "wrong-secret") {
			t.Errorf("version %s: explained as %+v", v, p)
		}
	}
}

func TestBrokerThatDoesNotAnswerEndsWithTheContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, v := range versions {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		_, err := Connect(ctx, Options{Broker: broker(t, "tcp://"+l.Addr().String()), ClientID: "x", Version: v, KeepAlive: time.Second})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("version %s: %v", v, err)
		}
		cancel()
	}
}

// openToAll lets anybody do anything.
type openToAll struct{ mochi.HookBase }

func (*openToAll) Provides(b byte) bool {
	return b == mochi.OnConnectAuthenticate || b == mochi.OnACLCheck
}
func (*openToAll) OnConnectAuthenticate(*mochi.Client, packets.Packet) bool { return true }
func (*openToAll) OnACLCheck(*mochi.Client, string, bool) bool              { return true }

func inProcess(t *testing.T) (server *mochi.Server, address string) {
	t.Helper()
	server = mochi.New(&mochi.Options{InlineClient: true, Logger: slog.New(slog.DiscardHandler)})
	if err := server.AddHook(new(openToAll), nil); err != nil {
		t.Fatal(err)
	}
	address = fmt.Sprintf("127.0.0.1:%d", realparts.FreePort(t))
	if err := server.AddListener(listeners.NewTCP(listeners.Config{ID: "t", Address: address})); err != nil {
		t.Fatal(err)
	}
	if err := server.Serve(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return server, "tcp://" + address
}

// A broker keeps a message as it was to be sent, with its topic abbreviated if this connection allowed that, and sends it again on
// the next one, where the abbreviation means nothing or another topic. Mosquitto abbreviates nothing, so a broker that does stands
// in.
func TestMessagesThatComeAgainHaveTheirTopics(t *testing.T) {
	server, address := inProcess(t)
	o := Options{Broker: broker(t, address), ClientID: "x", Version: V5, SessionExpiry: time.Hour}
	s := connected(t, o)
	subscribed(t, s, "long/#")
	publish := func(i int) {
		t.Helper()
		if err := server.Publish(fmt.Sprintf("long/name/of/a/topic/%d", i%2), fmt.Append(nil, i), false, 1); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 2 { // from here on the broker could abbreviate
		publish(i)
		next(t, s)
	}
	publish(2)
	publish(3)
	got := 0
	realparts.Eventually(t, patience, "both came, and are not acknowledged", func() error {
		if got += len(s.Take(nil, 10)); got < 2 {
			return fmt.Errorf("%d came", got)
		}
		return nil
	})
	s.Abandon()
	s = connected(t, o)
	again := map[string]string{}
	for range 2 { // this broker does not keep the order
		m := next(t, s)
		again[string(m.Payload)] = m.Topic
	}
	if again["2"] != "long/name/of/a/topic/0" || again["3"] != "long/name/of/a/topic/1" {
		t.Errorf("the messages came again as %q", again)
	}
}
