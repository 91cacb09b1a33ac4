package mqtt

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

// cutter relays connections to a broker. Each of the next is ended after as many bytes of the broker's as ends says; when that
// is used up they live.
type cutter struct {
	listener net.Listener
	target   string
	ends     chan int64
}

func newCutter(t *testing.T, target string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c := &cutter{listener: l, target: target, ends: make(chan int64, 100)}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go c.relay(client)
		}
	}()
	return c
}

func (c *cutter) relay(client net.Conn) {
	defer client.Close()
	first := make([]byte, 1)
	if _, err := io.ReadFull(client, first); err != nil {
		return // somebody looked whether the broker listens
	}
	server, err := net.Dial("tcp", c.target)
	if err != nil {
		return
	}
	defer server.Close()
	server.Write(first)
	go func() { io.Copy(server, client); server.Close() }()
	select {
	case n := <-c.ends:
		io.CopyN(client, server, n)
	default:
		io.Copy(client, server)
	}
}

// A connection can end anywhere, also in the middle of the broker's first answers: the driver comes back soon each time, and what
// the broker keeps is lost nowhere and stored once.
func TestConnectionsThatEndAsTheyBeginLoseNothing(t *testing.T) {
	inBoth(t, testConnectionsThatEndAsTheyBegin)
}

func testConnectionsThatEndAsTheyBegin(t *testing.T, version string) {
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	c := newCutter(t, fmt.Sprintf("127.0.0.1:%d", b.Port))
	config := strings.Replace(section(b, version), b.URL(), "tcp://"+c.listener.Addr().String(), 1)
	p, m := newPlant(t), newMachine(t, b, nil)
	stop := p.start(config)
	p.awaitOK()
	p.learn(m)
	stop()
	m.publish("line/1/counts", 200)
	for _, n := range []int64{4, 13, 2000} { // behind the answer to a 3.1.1 connect, in the next packets, among messages
		c.ends <- n
	}
	p.start(config)
	p.awaitAll(m)
	p.awaitOK()
	m.publish("line/1/counts", 20)
	p.awaitAll(m)
	p.check(m)
	if len(c.ends) > 0 {
		t.Errorf("%d connections were not ended", len(c.ends))
	}
}

// A night's queue stands before the answer to the subscription: a connection that brings messages is a good one without it, and the
// next is made soon.
func TestConnectionThatBroughtMessagesIsFollowedSoon(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		var got []byte
		hear := func(what []byte) {
			for part := make([]byte, 512); !bytes.Contains(got, what); {
				n, err := c.Read(part)
				if err != nil {
					return
				}
				got = append(got, part[:n]...)
			}
		}
		hear([]byte("MQTT"))
		c.Write([]byte{0x20, 2, 1, 0, 0x32, 6, 0, 1, 'x', 0, 1, '5'}) // the session is there, and so is message 1
		hear([]byte{0x40, 2, 0, 1})
	}()
	p := newPlant(t)
	d, err := Kind.New(p.env(), decodeYAML(fmt.Sprintf("broker: tcp://%s\nversion: 3.1.1\ntopics: [{tag: x, topic: x}]\n", l.Addr())))
	if err != nil {
		t.Fatal(err)
	}
	r := &run{driver: d.(*driver), emit: p.emit, attempts: 5}
	s, err := r.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := r.serve(t.Context(), s); err == nil || p.count() != 1 {
		t.Fatalf("the connection ended with %v after %d messages", err, p.count())
	}
	if r.attempts != 0 {
		t.Errorf("the wait is that of attempt %d", r.attempts)
	}
}
