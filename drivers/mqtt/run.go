package mqtt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/mqttlink"
)

type driver struct {
	env     signal.Env
	config  Config
	broker  *url.URL
	rules   *rules
	orders  *journal                         // nil without work orders
	session atomic.Pointer[mqttlink.Session] // nil without a connection
	settled atomic.Pointer[time.Time]        // since when the connection has brought what waited; nil without one
	look    look
}

// Waiting times. A wait is drawn at random below the bound of its attempt (full jitter).
const (
	firstWait    = 500 * time.Millisecond
	longestWait  = 30 * time.Second
	probeWait    = 2 * time.Second // for a listener to answer
	heldAfter    = 2 * time.Second // a batch that becomes durable later than this means the buffer holds the source back
	flapping     = 4               // connections taken away within flappingSpan
	flappingSpan = 2 * time.Minute
)

var errNoAnswer = fmt.Errorf("subscribe: the broker gave no answer within %s", setupPatience)

// run is the state of one Run; one goroutine owns it.
type run struct {
	*driver
	emit     signal.Emit
	memory   memory
	ledger   ledger
	batch    []mqttlink.Message
	spoken   mqttlink.Version // of the last connection
	older    bool             // the broker said that it does not know version 5; asked again at the agent's next start
	lostAt   []time.Time
	lastUse  time.Time // when the last connection ended
	attempts int
}

// Run implements signal.Driver.
func (d *driver) Run(ctx context.Context, cursor []byte, emit signal.Emit) error {
	r := &run{driver: d, emit: emit}
	var left *memory
	var err error
	if r.memory, left, err = readMemory(cursor, d.broker.Host, d.config.ClientID); err != nil {
		d.env.Logger.Warn("start without the topics of the last run", "source", d.env.Source, "err", err)
	}
	if left != nil {
		d.env.Reporter.Problem("session_left", &signal.Problem{Code: "session_left", Item: left.Client,
			Reason: fmt.Sprintf("until %s the source was client %q of broker %s: what waited there for it is not delivered to the new session, and the broker goes on collecting",
				left.Seen.In(zoneOf(d.env.Zone)).Format(time.RFC3339), left.Client, left.Broker),
			NextStep: "to fetch it, run a second source with the old broker and client_id until it is empty; then delete the old session at the broker"})
	}
	r.ledger = newLedger(r.memory, r.config.Window)
	defer d.env.Reporter.State(signal.StateStopped, "")
	d.env.Reporter.State(signal.StateConnecting, "")
	r.rememberTopics(ctx)
	for ctx.Err() == nil {
		r.once(ctx)
	}
	return nil
}

// rememberTopics makes durable what is about to be subscribed, so that it can be unsubscribed when it leaves the
// configuration, whatever happens in between.
func (r *run) rememberTopics(ctx context.Context) {
	all := slices.Concat(r.memory.Topics, r.rules.filters())
	slices.Sort(all)
	all = slices.Compact(all)
	if slices.Equal(all, r.memory.Topics) {
		return
	}
	r.memory.Topics = all
	r.store(ctx, nil)
}

// once makes one connection, works with it until it ends, and waits before the next.
func (r *run) once(ctx context.Context) {
	s, err := r.connect(ctx)
	alive := false
	if err == nil {
		alive, err = r.use(ctx, s)
	}
	if ctx.Err() != nil {
		return
	}
	r.report(err, s != nil, alive)
	wait := time.NewTimer(jitter(r.attempts))
	defer wait.Stop()
	r.attempts++
	select {
	case <-wait.C:
	case <-ctx.Done():
	}
}

// use works with a connection until it ends. alive says that the broker went on listening then.
func (r *run) use(ctx context.Context, s *mqttlink.Session) (alive bool, err error) {
	r.session.Store(s)
	err = r.serve(ctx, s)
	r.session.Store(nil)
	r.settled.Store(nil)
	r.lastUse = time.Now()
	listens := make(chan bool, 1)
	go func() { listens <- r.listening(ctx) }() // at once: one that starts again may soon listen again
	r.farewell(ctx, s)
	if ctx.Err() == nil {
		r.drain(ctx, s)
	}
	return <-listens, err
}

func jitter(attempt int) time.Duration {
	bound := min(firstWait<<min(attempt, 10), longestWait)
	return rand.N(bound)
}

// report tells the operator why there is no connection.
func (r *run) report(err error, wasConnected, alive bool) {
	p := r.explain(err)
	r.env.Logger.Warn("connection to the broker is gone", "source", r.env.Source, "broker", r.broker.Host, "err", err)
	r.env.Reporter.State(signal.StateFailed, p.Reason)
	switch {
	case !wasConnected:
		r.env.Reporter.Problem("connect", p)
	case errors.Is(err, mqttlink.ErrTakenOver):
		r.env.Reporter.Problem("client_id", p)
		r.lostAt = append(r.lostAt, time.Now())
	default:
		r.watchForTwins(alive)
	}
}

// watchForTwins notices that somebody else uses our client name: the broker then gives the session to whoever came last, and
// goes on listening, which one that ends or starts again does not.
func (r *run) watchForTwins(alive bool) {
	if !alive {
		r.lostAt = nil
		return
	}
	now := time.Now()
	r.lostAt = append(slices.DeleteFunc(r.lostAt, func(t time.Time) bool { return now.Sub(t) > flappingSpan }), now)
	if len(r.lostAt) < flapping {
		return
	}
	r.env.Reporter.Problem("client_id", &signal.Problem{Code: "client_id_conflict", Item: r.config.ClientID,
		Reason: fmt.Sprintf("the broker took the connection away %d times within %s; most likely another client uses the same client_id, and messages go to whichever came last",
			len(r.lostAt), flappingSpan),
		NextStep: "look in the broker's log for this client_id, and stop the other agent or give it its own client_id"})
}

// listening reports whether something accepts connections at the broker's address.
func (d *driver) listening(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", d.broker.Host)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// serve works until the connection ends or ctx does. Messages are taken from the beginning: the answer to the
// subscription may come behind a whole night's queue.
func (r *run) serve(ctx context.Context, s *mqttlink.Session) error {
	watch := time.NewTicker(setupPatience / 10)
	defer watch.Stop()
	calm := time.NewTimer(flappingSpan)
	defer calm.Stop()
	setup := r.subscribe(ctx, s)
	defer setup.stop()
	answered := setup.answered
	progress := time.Now()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.Done():
			return s.Err()
		case <-answered:
			answered = nil
			if err := r.finish(ctx, setup); err != nil {
				return err
			}
			now := time.Now()
			r.settled.Store(&now)
			r.well()
		case <-s.Ready():
			if err := r.work(ctx, s); err != nil {
				return err
			}
			progress = time.Now()
			r.well() // the answer to the subscription may be far behind
		case <-watch.C:
			if answered != nil && !s.Full() && time.Since(progress) > setupPatience {
				return errNoAnswer
			}
		case <-calm.C:
			r.lostAt = nil
			r.env.Reporter.Problem("client_id", nil)
		}
	}
}

// well makes the next wait short: there is nothing wrong with this connection, if it is not one of many that are taken away.
func (r *run) well() {
	if len(r.lostAt) < flapping {
		r.attempts = 0
	}
}

// work makes one batch durable, then acknowledges it.
func (r *run) work(ctx context.Context, s *mqttlink.Session) error {
	r.batch = s.Take(r.batch, r.config.Batch)
	_, confirmed := s.Progress()
	r.ledger.forget(confirmed)
	if !r.store(ctx, r.batch) {
		return ctx.Err()
	}
	if err := r.acknowledge(s); err != nil {
		return fmt.Errorf("acknowledge messages: %w", err)
	}
	return nil
}

func (r *run) acknowledge(s *mqttlink.Session) error {
	before, _ := s.Progress()
	written, err := s.Acknowledge(r.batch)
	ids := make([]uint16, 0, written)
	for i := range r.batch {
		if r.batch[i].QoS > 0 && len(ids) < written {
			ids = append(ids, r.batch[i].ID)
		}
	}
	r.ledger.acknowledged(ids, before)
	return err
}

// drain stores what a lost connection had brought. It cannot be acknowledged there; the ledger recognises it when it
// comes again, and if the broker has lost the session as well, it is saved.
func (r *run) drain(ctx context.Context, s *mqttlink.Session) {
	for {
		r.batch = s.Take(r.batch, r.config.Batch)
		if len(r.batch) == 0 || !r.store(ctx, r.batch) {
			return
		}
	}
}

// store makes messages and the memory durable, for as long as it takes; without messages (nil) the memory alone. It returns
// false only when ctx ended before.
func (r *run) store(ctx context.Context, batch []mqttlink.Message) bool {
	signals := make([]signal.Signal, 0, len(batch)) // the receiver may keep it
	deliveries := make([]delivery, 0, len(batch))
	var answers []answer
	for i := range batch {
		m := &batch[i]
		if m.QoS > 0 {
			h := hash(m)
			if r.ledger.repeats(m, h) {
				continue
			}
			deliveries = append(deliveries, delivery{id: m.ID, hash: h})
		}
		signals, answers = r.signals(signals, answers, m)
	}
	r.ledger.add(deliveries)
	if batch != nil && len(signals) == 0 {
		return true // nothing to keep: to acknowledge is enough
	}
	r.memory.Cycles, r.memory.Unconfirmed, r.memory.Cut = r.ledger.cycles, r.ledger.bytes(), r.ledger.cut || r.ledger.durable() > 0
	r.memory.Seen = time.Now().UTC().Truncate(time.Second)
	cursor, err := json.Marshal(r.memory)
	if err != nil {
		panic(err) // strings and bytes only
	}
	return r.emitUntilDurable(ctx, signal.Batch{Source: r.env.Source, Signals: signals, Cursor: cursor}, answers)
}

// signals decodes a message, unless the configuration does not want it.
func (r *run) signals(out []signal.Signal, answers []answer, m *mqttlink.Message) ([]signal.Signal, []answer) {
	t := r.rules.find(m.Topic)
	if m.Retained && t != nil && t.Retained == "skip" {
		return out, answers
	}
	if m.QoS == 0 && t != nil && !m.Retained && !r.rules.warned[t.Tag] {
		r.rules.warned[t.Tag] = true
		r.env.Reporter.Problem("qos:"+t.Tag, &signal.Problem{Code: "qos_0", Item: m.Topic,
			Reason:   "the sender publishes with QoS 0: a message is lost whenever the connection or the agent is down",
			NextStep: "make the sender publish with QoS 1"})
	}
	out = decode(out, m, t)
	if last := &out[len(out)-1]; t != nil && t.answers && last.Problem == nil {
		answers = append(answers, r.answer(last, m))
	}
	return out, answers
}

// emitUntilDurable repeats a refused batch. It returns false when ctx ended before the batch was durable.
func (r *run) emitUntilDurable(ctx context.Context, b signal.Batch, answers []answer) bool {
	held := time.AfterFunc(heldAfter, func() {
		r.env.Reporter.State(signal.StateHeld, "the buffer does not take more at present; the broker keeps the messages")
	})
	wasHeld := false
	for attempt := 0; ; attempt++ {
		err := r.note(answers)
		if err == nil {
			err = r.emit(ctx, b)
		}
		if err == nil {
			if !held.Stop() || wasHeld {
				r.env.Reporter.State(signal.StateOK, "")
			}
			return true
		}
		if ctx.Err() != nil {
			held.Stop()
			return false
		}
		wasHeld = true
		r.env.Reporter.State(signal.StateHeld, "store messages: "+err.Error())
		r.env.Logger.Warn("store messages", "source", r.env.Source, "err", err)
		select {
		case <-time.After(jitter(attempt)):
		case <-ctx.Done():
			held.Stop()
			return false
		}
	}
}

// missing lists the filters of a that are not in b.
func missing(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(f string) bool { return slices.Contains(b, f) })
}

// address is the broker as a person would name it.
func (c *Config) address() string { return strings.TrimSpace(c.Broker) }
