package mqtt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/mqttlink"
)

const (
	setupPatience    = 30 * time.Second // without an answer and without messages
	farewellPatience = 2 * time.Second
)

// connect makes a connection and nothing more.
func (r *run) connect(ctx context.Context) (*mqttlink.Session, error) {
	o := r.options()
	if r.older {
		o.Version = mqttlink.V311
	}
	s, err := mqttlink.Connect(ctx, o)
	if err != nil {
		return nil, err
	}
	r.older = r.older || s.Older
	if s.Version != r.spoken {
		r.spoken = s.Version
		r.env.Logger.Info("connected to the broker", "source", r.env.Source, "broker", r.broker.Host, "mqtt", string(s.Version))
	}
	r.ledger.connected(s.Present)
	r.env.Reporter.Problem("connect", nil)
	r.judgeExpiry(s)
	if r.memory.Joined && !s.Present {
		r.reportGap()
	}
	return s, nil
}

func (d *driver) options() mqttlink.Options {
	c := &d.config
	o := mqttlink.Options{Broker: d.broker, ClientID: c.ClientID, Username: c.Username, Password: c.password,
		TLS:     mqttlink.TLS{CA: c.CA, Cert: c.Cert, Key: c.Key, ServerName: c.ServerName},
		Version: c.Version, KeepAlive: c.KeepAlive, SessionExpiry: c.SessionExpiry, Window: c.Window}
	if c.StatusTopic != "" {
		will := d.status(false)
		o.Will = &will
	}
	return o
}

// status is what the status topic says. A retained message tells also those who come later.
func (d *driver) status(online bool) mqttlink.Publication {
	word := "offline"
	if online {
		word = "online"
	}
	text, err := json.Marshal(map[string]any{"plant": d.env.Plant, "agent": d.env.Agent, "source": d.env.Source, "status": word})
	if err != nil {
		panic(err) // strings only
	}
	return mqttlink.Publication{Topic: d.config.StatusTopic, Payload: text, QoS: 1, Retain: true}
}

// greet says on the status topic that the agent is there.
func (r *run) greet(ctx context.Context, s *mqttlink.Session) error {
	if r.config.StatusTopic == "" {
		return nil
	}
	err := s.Publish(ctx, r.status(true))
	var refused *mqttlink.Refused
	if !errors.As(err, &refused) {
		r.env.Reporter.Problem("status_topic", nil)
		return err
	}
	r.env.Reporter.Problem("status_topic", &signal.Problem{Code: "topic_refused", Item: r.config.StatusTopic, Reason: err.Error(),
		NextStep: "allow the agent's user to publish on status_topic at the broker (access list), or take the key out"})
	return nil
}

// farewell ends a connection. A broker publishes no will after a farewell, so the agent says by itself that it goes.
func (r *run) farewell(ctx context.Context, s *mqttlink.Session) {
	if r.config.StatusTopic != "" && ctx.Err() != nil && s.Err() == nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewellPatience)
		defer cancel()
		if err := s.Publish(ctx, r.status(false)); err != nil {
			s.Abandon() // then the broker does
			return
		}
	}
	s.Close()
}

// judgeExpiry shows that the broker keeps the session for less time than it was asked to.
func (r *run) judgeExpiry(s *mqttlink.Session) {
	if s.Limits.SessionExpiry >= r.config.SessionExpiry {
		r.env.Reporter.Problem("session_expiry", nil)
		return
	}
	r.env.Reporter.Problem("session_expiry", &signal.Problem{Code: "session_short", Item: r.config.ClientID,
		Reason:   fmt.Sprintf("the broker keeps what waits for the agent only %s after a connection was lost", s.Limits.SessionExpiry),
		NextStep: "let the broker keep sessions for longer than your longest outage, or set session_expiry to what is enough for you"})
}

// setup is what is to be settled with the broker at the start of a connection, beside the messages that come meanwhile.
type setup struct {
	answered chan struct{}
	grants   []mqttlink.Grant
	err      error
	cancel   context.CancelFunc
}

// subscribe asks for every topic again: a broker that lost only the subscriptions would else stay silent. Then it
// unsubscribes what left the configuration.
func (r *run) subscribe(ctx context.Context, s *mqttlink.Session) *setup {
	ctx, cancel := context.WithCancel(ctx)
	u := &setup{answered: make(chan struct{}), cancel: cancel}
	wanted := r.rules.subscriptions()
	gone := missing(r.memory.Topics, r.rules.filters())
	go func() {
		defer close(u.answered)
		if u.grants, u.err = subscribe(ctx, s, wanted); u.err != nil {
			u.err = fmt.Errorf("subscribe: %w", u.err)
			return
		}
		if len(gone) > 0 {
			if err := s.Unsubscribe(ctx, gone...); err != nil {
				u.err = fmt.Errorf("unsubscribe %q: %w", gone, err)
				return
			}
		}
		if err := r.greet(ctx, s); err != nil {
			u.err = fmt.Errorf("publish the status: %w", err)
		}
	}()
	return u
}

// subscribe leaves out what the broker said that it cannot do: it would end the connection over it.
func subscribe(ctx context.Context, s *mqttlink.Session, wanted []mqttlink.Subscription) ([]mqttlink.Grant, error) {
	grants := make([]mqttlink.Grant, len(wanted))
	var possible []mqttlink.Subscription
	var places []int
	for i, w := range wanted {
		no := byte(0)
		switch {
		case strings.HasPrefix(w.Filter, "$share/") && !s.Limits.Shared:
			no = 0x9E
		case strings.ContainsAny(w.Filter, "+#") && !s.Limits.Wildcards:
			no = 0xA2
		default:
			possible, places = append(possible, w), append(places, i)
			continue
		}
		grants[i] = mqttlink.NotGranted(w.Filter, no)
	}
	if len(possible) == 0 {
		return grants, nil
	}
	answers, err := s.Subscribe(ctx, possible)
	if err != nil {
		return nil, err
	}
	for i, a := range answers {
		grants[places[i]] = a
	}
	return grants, nil
}

// stop waits for the end of what was begun.
func (u *setup) stop() {
	u.cancel()
	<-u.answered
}

// finish takes the broker's answers.
func (r *run) finish(ctx context.Context, u *setup) error {
	for i := range u.grants {
		r.env.Reporter.Problem("topic:"+r.rules.topics[i].Tag, judge(&u.grants[i]))
	}
	if u.err != nil {
		return u.err
	}
	r.env.Reporter.State(signal.StateOK, "")
	return r.joined(ctx)
}

// joined notes that the session at the broker is what the configuration wants.
func (r *run) joined(ctx context.Context) error {
	wanted := r.rules.filters()
	if r.memory.Joined && slices.Equal(r.memory.Topics, wanted) {
		return nil
	}
	r.memory.Topics, r.memory.Joined = wanted, true
	r.store(ctx, nil)
	return nil
}

func judge(g *mqttlink.Grant) *signal.Problem {
	switch {
	case g.Refused != nil:
		return &signal.Problem{Code: "topic_refused", Item: g.Filter, Reason: "the broker refuses this subscription: " + g.Refused.String(),
			NextStep: "allow the agent's user to read the topic at the broker (access list); the other topics go on"}
	case g.QoS == 0:
		return &signal.Problem{Code: "qos_downgraded", Item: g.Filter, Reason: "the broker grants QoS 0 only: messages can be lost",
			NextStep: "allow QoS 1 for this topic at the broker"}
	}
	return nil
}

// reportGap says from when to when messages may be missing: since the session was last in use.
func (r *run) reportGap() {
	from := r.memory.Seen
	if r.lastUse.After(from) {
		from = r.lastUse
	}
	span := "until " + r.clock(time.Now())
	if !from.IsZero() {
		span = "from " + r.clock(from) + " " + span
	}
	r.env.Logger.Warn("the broker did not know the session any more", "source", r.env.Source, "broker", r.broker.Host, "possible_gap", span)
	r.env.Reporter.Problem("session", &signal.Problem{Code: "possible_gap", Item: r.config.ClientID,
		Reason:   "the broker did not know the agent's session any more: messages published " + span + " may be lost",
		NextStep: "compare the counts of this time with the machine; let the broker keep sessions on disk (mosquitto: persistence true, a short autosave_interval, no persistent_client_expiration)"})
}

func (r *run) clock(t time.Time) string { return t.In(zoneOf(r.env.Zone)).Format(time.RFC3339) }

// explain says why a connection failed or ended, and what to do.
func (r *run) explain(err error) *signal.Problem {
	o := r.options()
	p := mqttlink.Explain(err, &o)
	if p.Item == o.Broker.String() {
		p.Item = r.config.address()
	}
	if errors.Is(err, errNoAnswer) {
		p.Code, p.NextStep = "no_answer", "look in the broker's log for this client_id; the agent connects again"
	}
	return p
}
