package mqttlink

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/log"
	"github.com/eclipse/paho.golang/paho/session"
	"github.com/eclipse/paho.golang/paho/session/state"
)

// v5 is the client library for version 5.
type v5 struct {
	client  *paho.Client
	session *Session
}

func connect5(ctx context.Context, o *Options, s *Session, password string) error {
	v := &v5{session: s}
	v.client = paho.NewClient(paho.ClientConfig{
		Conn:               &wholePackets{link: s.link},
		Session:            acknowledgedByUs{state.NewInMemory()},
		PingHandler:        pingedByUs{},
		PacketTimeout:      forever, // the caller's context decides
		OnPublishReceived:  []func(paho.PublishReceived) (bool, error){v.received},
		OnServerDisconnect: func(d *paho.Disconnect) { s.end(disconnected(d)) },
		OnClientError:      func(err error) { s.end(err) },
	})
	answer, err := v.client.Connect(ctx, v.connect(o, password))
	if answer != nil && answer.ReasonCode >= 0x80 {
		return &Refused{Code: answer.ReasonCode, Words: words[answer.ReasonCode], Text: answer.Properties.ReasonString}
	}
	if err != nil {
		return err
	}
	s.library, s.Present, s.Version = v, answer.SessionPresent, V5
	s.limit(o, answer.Properties)
	return nil
}

func (v *v5) connect(o *Options, password string) *paho.Connect {
	c := &paho.Connect{ClientID: o.ClientID, CleanStart: o.Clean, KeepAlive: uint16(min(o.KeepAlive/time.Second, math.MaxUint16)),
		Username: o.Username, UsernameFlag: o.Username != "", Password: []byte(password), PasswordFlag: password != "",
		Properties: &paho.ConnectProperties{RequestProblemInfo: true, SessionExpiryInterval: seconds(o.SessionExpiry),
			// No topic alias is allowed: brokers exist that keep an abbreviated message and send it again on the next connection,
			// where nobody knows what it was about.
			ReceiveMaximum: paho.Uint16(uint16(min(o.Window, math.MaxUint16)))}}
	if w := o.Will; w != nil {
		p := outgoing(*w)
		c.WillMessage = &paho.WillMessage{Topic: w.Topic, Payload: w.Payload, QoS: w.QoS, Retain: w.Retain}
		c.WillProperties = &paho.WillProperties{MessageExpiry: p.MessageExpiry, ContentType: p.ContentType,
			ResponseTopic: p.ResponseTopic, CorrelationData: p.CorrelationData, User: p.User}
	}
	return c
}

// seconds is how MQTT 5 writes a session's expiry.
func seconds(d time.Duration) *uint32 {
	if d/time.Second >= math.MaxUint32 {
		return paho.Uint32(math.MaxUint32)
	}
	return paho.Uint32(uint32(d / time.Second))
}

// limit notes what the broker can do.
func (s *Session) limit(o *Options, p *paho.ConnackProperties) {
	s.Limits.Retain, s.Limits.Wildcards, s.Limits.Shared = p.RetainAvailable, p.WildcardSubAvailable, p.SharedSubAvailable
	if p.MaximumQoS != nil {
		s.Limits.MaxQoS = *p.MaximumQoS
	}
	if p.SessionExpiryInterval != nil {
		s.Limits.SessionExpiry = Forever
		if *p.SessionExpiryInterval != math.MaxUint32 {
			s.Limits.SessionExpiry = time.Duration(*p.SessionExpiryInterval) * time.Second
		}
	}
	if p.ServerKeepAlive != nil && *p.ServerKeepAlive > 0 {
		s.Limits.KeepAlive = min(o.KeepAlive, time.Duration(*p.ServerKeepAlive)*time.Second)
	}
}

// errNoTopic ends a connection on which a message came whose topic nobody can tell.
var errNoTopic = errors.New("the broker sent a message with an abbreviated topic, which it was not allowed to")

func (v *v5) received(r paho.PublishReceived) (bool, error) {
	p := r.Packet
	if p.Topic == "" {
		v.session.end(errNoTopic) // and it is not acknowledged
		return true, nil
	}
	v.session.received(Message{Topic: p.Topic, Payload: p.Payload, ID: p.PacketID, QoS: p.QoS, Dup: p.Duplicate(), Retained: p.Retain,
		Properties: incoming(p.Properties)})
	return true, nil
}

func incoming(p *paho.PublishProperties) *Properties {
	if p.ContentType == "" && p.ResponseTopic == "" && p.CorrelationData == nil && p.MessageExpiry == nil && len(p.User) == 0 {
		return nil
	}
	out := &Properties{ContentType: p.ContentType, ResponseTopic: p.ResponseTopic, Correlation: p.CorrelationData}
	if p.MessageExpiry != nil {
		out.Expiry = time.Duration(*p.MessageExpiry) * time.Second
	}
	for _, u := range p.User {
		out.User = append(out.User, Property{Name: u.Key, Value: u.Value})
	}
	return out
}

func outgoing(p Publication) *paho.PublishProperties {
	out := &paho.PublishProperties{ContentType: p.Properties.ContentType, ResponseTopic: p.Properties.ResponseTopic,
		CorrelationData: p.Properties.Correlation}
	if p.Properties.Expiry > 0 {
		out.MessageExpiry = seconds(max(p.Properties.Expiry, time.Second))
	}
	for _, u := range p.Properties.User {
		out.User.Add(u.Name, u.Value)
	}
	return out
}

func (v *v5) subscribe(ctx context.Context, subscriptions []Subscription) ([]Grant, error) {
	request := &paho.Subscribe{}
	grants := make([]Grant, 0, len(subscriptions))
	for _, s := range subscriptions {
		request.Subscriptions = append(request.Subscriptions, paho.SubscribeOptions{Topic: s.Filter, QoS: s.QoS,
			RetainHandling: s.Retained, RetainAsPublished: s.AsPublished, NoLocal: s.NotOwn})
	}
	ctx, cancel := v.session.during(ctx)
	defer cancel()
	answer, err := v.client.Subscribe(ctx, request)
	if answer == nil { // an error of the library's about some refused topic has the answer beside it
		return nil, v.failed(err)
	}
	for i, s := range subscriptions {
		if i >= len(answer.Reasons) {
			return nil, errors.New("the broker answered fewer subscriptions than were asked for")
		}
		g := grant(s.Filter, answer.Reasons[i])
		if g.Refused != nil && answer.Properties != nil {
			g.Refused.Text = answer.Properties.ReasonString
		}
		grants = append(grants, g)
	}
	return grants, nil
}

func (v *v5) unsubscribe(ctx context.Context, filters []string) error {
	ctx, cancel := v.session.during(ctx)
	defer cancel()
	answer, err := v.client.Unsubscribe(ctx, &paho.Unsubscribe{Topics: filters})
	if answer != nil {
		return nil
	}
	return v.failed(err)
}

func (v *v5) publish(ctx context.Context, p Publication) error {
	ctx, cancel := v.session.during(ctx) // the library would wait for another connection
	defer cancel()
	answer, err := v.client.Publish(ctx, &paho.Publish{Topic: p.Topic, Payload: p.Payload, QoS: p.QoS, Retain: p.Retain, Properties: outgoing(p)})
	if answer != nil && answer.ReasonCode >= 0x80 {
		r := &Refused{Code: answer.ReasonCode, Words: words[answer.ReasonCode]}
		if answer.Properties != nil {
			r.Text = answer.Properties.ReasonString
		}
		return r
	}
	return v.failed(err)
}

// failed says why the connection was lost, where that is the reason.
func (v *v5) failed(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, session.ErrNoConnection) || errors.Is(err, paho.ErrConnectionLost) {
		<-v.session.ended // soon: the library tells of a loss here before it says why
	}
	select {
	case <-v.session.ended:
		return fmt.Errorf("connection lost: %w", v.session.lost())
	default:
		return err
	}
}

func (v *v5) close(farewell bool) {
	if farewell {
		v.client.Disconnect(&paho.Disconnect{}) // waits for the library's goroutines
		return
	}
	v.session.link.Close()
	<-v.client.Done()
}

// acknowledgedByUs keeps the library from acknowledging: that happens after a batch is durable, for the whole batch.
type acknowledgedByUs struct{ *state.State }

func (acknowledgedByUs) Ack(*packets.Publish) error { return nil }

// pingedByUs keeps the library from pinging and from taking a full window for a dead broker.
type pingedByUs struct{}

func (pingedByUs) Run(context.Context, net.Conn, uint16) error { return nil }
func (pingedByUs) PacketSent()                                 {}
func (pingedByUs) PacketReceived()                             {}
func (pingedByUs) PingResp()                                   {}
func (pingedByUs) SetDebug(log.Logger)                         {}
