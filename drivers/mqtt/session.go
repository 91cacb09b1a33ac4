package mqtt

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/mqttlink"
)

const setupPatience = 30 * time.Second // without an answer and without messages

// connect makes a connection and nothing more.
func (r *run) connect(ctx context.Context) (*mqttlink.Session, error) {
	o := r.options()
	s, err := mqttlink.Connect(ctx, o)
	if err != nil {
		return nil, err
	}
	if s.Version != r.spoken {
		r.spoken = s.Version
		r.env.Logger.Info("connected to the broker", "source", r.env.Source, "broker", r.broker.Host, "mqtt", string(s.Version))
	}
	r.ledger.connected(s.Present)
	r.env.Reporter.Problem("connect", nil)
	if r.memory.Joined && !s.Present {
		r.reportGap()
	}
	return s, nil
}

func (d *driver) options() mqttlink.Options {
	c := &d.config
	return mqttlink.Options{Broker: d.broker, ClientID: c.ClientID, Username: c.Username, Password: c.password,
		TLS:     mqttlink.TLS{CA: c.CA, Cert: c.Cert, Key: c.Key, ServerName: c.ServerName},
		Version: c.Version, KeepAlive: c.KeepAlive, SessionExpiry: c.SessionExpiry, Window: c.Window}
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
		if u.grants, u.err = s.Subscribe(ctx, wanted); u.err != nil || len(gone) == 0 {
			return
		}
		if err := s.Unsubscribe(ctx, gone...); err != nil {
			u.err = fmt.Errorf("unsubscribe %q: %w", gone, err)
		}
	}()
	return u
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
		return fmt.Errorf("subscribe: %w", u.err)
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

func (r *run) reportGap() {
	r.env.Logger.Warn("the broker did not know the session any more", "source", r.env.Source, "broker", r.broker.Host)
	r.env.Reporter.Problem("session", &signal.Problem{Code: "possible_gap", Item: r.config.ClientID,
		Reason: fmt.Sprintf("at %s the broker did not know the agent's session any more: messages published while the agent was not connected may be lost",
			time.Now().Format(time.RFC3339)),
		NextStep: "compare the counts of this time with the machine; let the broker keep sessions on disk (mosquitto: persistence true, a short autosave_interval, no persistent_client_expiration)"})
}

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
