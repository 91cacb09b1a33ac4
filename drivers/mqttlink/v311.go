package mqttlink

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
)

// v311 is the client library for version 3.1.1. It is made anew for each connection, so nothing of a dead one is carried on.
type v311 struct {
	client  paho.Client
	session *Session

	mu     sync.Mutex // of beginning to ask
	asking sync.WaitGroup
}

// handOver is how long the library tries to take a request.
const handOver = 500 * time.Millisecond

func connect311(ctx context.Context, o *Options, s *Session, password string) error {
	v := &v311{session: s}
	v.client = paho.NewClient(v.options(o, password))
	return v.shakeHands(ctx, o)
}

// shakeHands waits for the broker's answer to the connect.
func (v *v311) shakeHands(ctx context.Context, o *Options) error {
	s := v.session
	shaken := context.AfterFunc(ctx, func() { s.link.Close() })
	token := v.client.Connect().(*paho.ConnectToken)
	<-token.Done() // ends with ctx too: that closes the connection beneath
	inTime := shaken()
	if err := token.Error(); err != nil {
		if code := token.ReturnCode(); code >= 1 && code <= 5 {
			return &Refused{Code: codes311[code], Words: words[codes311[code]]}
		}
		return err
	}
	if !inTime { // the library says nothing of a connection that is closed beneath it
		v.client.Disconnect(0)
		return ctx.Err()
	}
	s.library, s.Present, s.Version = v, token.SessionPresent(), V311
	if !o.Clean {
		s.Limits.SessionExpiry = Forever
	}
	return nil
}

// codes311 turns the answers of 3.1.1 to a connect into those of 5.
var codes311 = [...]byte{0, 0x84, 0x85, 0x88, 0x86, 0x87}

func (v *v311) options(o *Options, password string) *paho.ClientOptions {
	c := paho.NewClientOptions().AddBroker(o.Broker.String()).SetClientID(o.ClientID)
	c.SetUsername(o.Username).SetPassword(password)
	c.SetProtocolVersion(4).SetCleanSession(o.Clean).SetStore(nowhere{})
	c.SetAutoReconnect(false).SetConnectRetry(false).SetConnectTimeout(connectPatience)
	// The library would take a full window for a dead broker: it waits for answers to its pings. We watch by ourselves.
	c.SetKeepAlive(o.KeepAlive).SetPingTimeout(forever)
	c.SetWriteTimeout(handOver) // the link has its own patience for a write
	c.SetOrderMatters(true).SetAutoAckDisabled(true)
	if w := o.Will; w != nil {
		c.SetBinaryWill(w.Topic, w.Payload, w.QoS, w.Retain)
	}
	c.SetCustomOpenConnectionFn(func(*url.URL, paho.ClientOptions) (net.Conn, error) { return v.session.link, nil })
	c.SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) {
		v.session.received(Message{Topic: m.Topic(), Payload: m.Payload(), ID: m.MessageID(), QoS: m.Qos(), Dup: m.Duplicate(), Retained: m.Retained()})
	})
	c.SetConnectionLostHandler(func(_ paho.Client, err error) { v.session.end(err) })
	return c
}

// ask hands a request to the library and waits for the broker's answer, until the connection or ctx ends. When the connection is
// lost just before the library takes a request, nobody ever does: so it is asked aside, and gives up after handOver. While the
// connection lives a request that was given up, which was not sent, is handed over again, and none is left in the library: a later
// one could overtake it.
func ask[T paho.Token](ctx context.Context, v *v311, request func() T) (T, error) {
	var token T
	if err := ctx.Err(); err != nil {
		return token, err
	}
	taken := make(chan T, 1)
	if !v.begin() {
		return token, v.lost()
	}
	go func() {
		defer v.asking.Done()
		token := request()
		for givenUp(token) && v.session.life.Err() == nil && ctx.Err() == nil {
			token = request()
		}
		taken <- token
	}()
	select {
	case token = <-taken:
	case <-v.session.ended:
		return token, v.lost()
	}
	if givenUp(token) && ctx.Err() != nil {
		return token, ctx.Err()
	}
	select {
	case <-token.Done():
		err := token.Error()
		if err != nil && !v.client.IsConnectionOpen() {
			select {
			case <-v.session.ended: // soon: the library tells of a loss here before it says why
				err = v.lost()
			case <-ctx.Done():
			}
		}
		return token, err
	case <-v.session.ended:
		return token, v.lost()
	case <-ctx.Done():
		return token, ctx.Err()
	}
}

// begin counts a request until asking.Done, unless the connection is over.
func (v *v311) begin() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.session.life.Err() != nil {
		return false
	}
	v.asking.Add(1)
	return true
}

// givenUp tells a request that the library did not send. Its error has no type of its own.
func givenUp(token paho.Token) bool {
	select {
	case <-token.Done():
		err := token.Error()
		return err != nil && strings.HasSuffix(err.Error(), "was broken by timeout")
	default:
		return false
	}
}

func (v *v311) lost() error { return fmt.Errorf("connection lost: %w", v.session.lost()) }

func (v *v311) subscribe(ctx context.Context, subscriptions []Subscription) ([]Grant, error) {
	filters := make(map[string]byte, len(subscriptions))
	for _, s := range subscriptions {
		filters[s.Filter] = s.QoS
	}
	token, err := ask(ctx, v, func() *paho.SubscribeToken { return v.client.SubscribeMultiple(filters, nil).(*paho.SubscribeToken) })
	if err != nil {
		return nil, err
	}
	answers := token.Result()
	grants := make([]Grant, len(subscriptions))
	for i, s := range subscriptions {
		grants[i] = grant(s.Filter, answers[s.Filter])
	}
	return grants, nil
}

func (v *v311) unsubscribe(ctx context.Context, filters []string) error {
	_, err := ask(ctx, v, func() paho.Token { return v.client.Unsubscribe(filters...) })
	return err
}

func (v *v311) publish(ctx context.Context, p Publication) error {
	_, err := ask(ctx, v, func() paho.Token { return v.client.Publish(p.Topic, p.QoS, p.Retain, p.Payload) })
	return err
}

func (v *v311) close(farewell bool) {
	if !farewell {
		v.session.link.Close()
	}
	v.client.Disconnect(1000)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.asking.Wait()
}

// nowhere is the library's store of unfinished work. There is none: the broker has it.
type nowhere struct{}

func (nowhere) Open()                             {}
func (nowhere) Put(string, packets.ControlPacket) {}
func (nowhere) Get(string) packets.ControlPacket  { return nil }
func (nowhere) All() []string                     { return nil }
func (nowhere) Del(string)                        {}
func (nowhere) Close()                            {}
func (nowhere) Reset()                            {}
