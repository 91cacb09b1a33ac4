package sparkplug

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/mqttlink"
)

const (
	batchMessages = 500
	heldAfter     = time.Second // a batch that becomes durable later than this means that the buffer holds the source back
	cursorEvery   = 10 * time.Second
	lingering     = 2 * time.Second // after saying OFFLINE, for what nodes had sent before they heard it
	quiet         = 300 * time.Millisecond
	lastEmit      = 2 * time.Second
	sayAgain      = 5 * time.Second // between two answers to somebody who says that this host is offline
	sayConflict   = 3               // such answers within sayConflictIn mean two hosts of one name
	sayConflictIn = time.Minute
	cutSoon       = 2 * time.Second
	cutOften      = 4
	suspicion     = 5 * time.Minute
	silence       = time.Hour // before a broker that refused to let this host say that it is online is tried again
)

var errOutdated = errors.New("somebody said of this host, under its own id, when it is online, with a later time than the agent's clock shows")

var errSpeakAgain = errors.New("the connection is made anew to say again that the host is online")

// hostRun is the host at work; one goroutine owns it.
type hostRun struct {
	*driver
	emit        signal.Emit
	host        *host
	pending     []signal.Signal // handed out by the host and not durable yet
	resumed     bool            // some of them came from the file of the last run
	stored      []byte          // the cursor that is durable
	storedAt    time.Time
	taken       []mqttlink.Message
	unacked     []mqttlink.Message
	denied      []time.Time // when somebody else spoke for this host
	conflict    bool        // that is shown
	cuts        int         // connections that ended right after the host said that it is online, one after the other
	silentUntil time.Time   // the broker does not let this host say how it is
	since       int64       // the time of what was last said of this host, in milliseconds
	outdated    bool        // somebody said something later than this connection can
}

// runHost reads edge nodes until ctx ends.
func (d *driver) runHost(ctx context.Context, cursor []byte, emit signal.Emit) {
	h := &d.config.Host
	r := &hostRun{driver: d, emit: emit}
	settings := hostSettings{reorderWait: h.ReorderWait, rebirthWait: h.RebirthWait, historyWait: h.HistoryWait, rebirth: h.Rebirth == "ask", maxSize: h.MaxSize}
	if p := d.config.Publish; p != nil {
		settings.own = nodeID{p.Group, p.Node}
	}
	var err error
	r.host, err = newHost(d.config.Metrics, settings, cursor)
	if err != nil {
		d.env.Logger.Warn("start without what the last run knew of the edge nodes", "source", d.env.Source, "err", err)
	}
	r.resume()
	d.again(ctx, roleHost, r.once)
	r.lastStore(context.WithoutCancel(ctx))
}

func (r *hostRun) pendingFile() string { return filepath.Join(r.env.Dir, "pending") }

// resume takes up what the last run could not make durable. A file that cannot be read is set aside.
func (r *hostRun) resume() {
	var err error
	if r.pending, err = readPending(r.pendingFile()); err == nil {
		r.resumed = len(r.pending) > 0
		return
	}
	r.env.Logger.Error("values of the last run cannot be read", "source", r.env.Source, "err", err)
	r.env.Reporter.Problem("pending", &signal.Problem{Code: "pending_unreadable", Item: r.pendingFile(), Reason: err.Error(),
		NextStep: "compare the counts of the last stop with the machine; the file was kept as pending.unreadable"})
	if err := os.Rename(r.pendingFile(), r.pendingFile()+".unreadable"); err != nil {
		r.env.Logger.Error("set the file aside", "source", r.env.Source, "err", err)
	}
}

// lastStore makes durable what came before the agent stopped.
func (r *hostRun) lastStore(ctx context.Context) {
	r.report()
	r.pending = append(r.pending, r.host.out.signals...)
	cursor := r.host.cursor()
	if len(r.pending) == 0 && bytes.Equal(cursor, r.stored) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lastEmit)
	defer cancel()
	err := r.emit(ctx, signal.Batch{Source: r.env.Source, Signals: r.pending, Cursor: cursor})
	if err == nil {
		r.forgetFile()
		return
	}
	if len(r.pending) == 0 {
		return
	}
	r.env.Logger.Warn("values came in while the buffer took none: they are kept for the next start", "source", r.env.Source, "values", len(r.pending), "err", err)
	if err := keepPending(r.pendingFile(), r.pending); err != nil {
		r.env.Logger.Error("values are lost unless their nodes send them again", "source", r.env.Source, "values", len(r.pending), "err", err)
	}
}

// forgetFile removes the file of the last run when what was in it is durable.
func (r *hostRun) forgetFile() {
	if !r.resumed {
		return
	}
	if err := os.Remove(r.pendingFile()); err != nil {
		r.env.Logger.Error("remove values that are durable", "source", r.env.Source, "err", err)
		return
	}
	r.resumed = false
}

// once makes one connection and works with it until it ends.
func (r *hostRun) once(ctx context.Context) (*mqttlink.Options, error) {
	// The buffer must take data before nodes are told to send some.
	if !r.store(ctx, nil, true) {
		return nil, ctx.Err()
	}
	r.since = max(r.since+1, time.Now().UnixMilli())
	r.outdated = false
	state := &stateTopic{host: &r.config.Host, since: r.since, silent: r.config.Host.ListenOnly || time.Now().Before(r.silentUntil)}
	options := r.options(r.config.ClientID, state.will())
	s, err := mqttlink.Connect(ctx, options)
	if err != nil {
		return &options, err
	}
	state.session = s
	r.env.Reporter.Problem("connect:"+roleHost, nil)
	r.host.connected(time.Now())
	err = r.serve(ctx, s, state)
	if ctx.Err() != nil {
		r.farewell(ctx, s, state)
	} else {
		s.Close()
	}
	if ctx.Err() == nil {
		r.suspect(state)
	}
	for r.take(s, state) {
	}
	r.host.disconnected(time.Now())
	r.unacked = nil
	if ctx.Err() == nil {
		r.store(ctx, state, false)
	}
	return &options, err
}

// serve works until the connection ends or ctx does.
func (r *hostRun) serve(ctx context.Context, s *mqttlink.Session, state *stateTopic) error {
	granted := make(chan error, 1)
	var subscribing sync.WaitGroup
	defer subscribing.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	subscribing.Go(func() { granted <- r.subscribe(ctx, s) })
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	subscribed := false
	for {
		timer.Reset(r.untilNext())
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.Done():
			return s.Err()
		case err := <-granted:
			if err != nil {
				return err
			}
			subscribed = true
		case <-s.Ready():
			r.take(s, state)
		case <-timer.C:
			r.host.tick(time.Now())
			r.endConflict()
			if state.silent && !r.config.Host.ListenOnly && time.Now().After(r.silentUntil) {
				return errSpeakAgain
			}
		}
		if r.outdated {
			return errOutdated // the next connection is later
		}
		if !r.store(ctx, state, false) {
			return ctx.Err()
		}
		if err := r.acknowledge(s); err != nil {
			return err
		}
		r.request(ctx, s)
		if subscribed && !s.Full() {
			if err := r.sayOnline(ctx, state); err != nil {
				return err
			}
			r.status.set(roleHost, signal.StateOK, "")
		}
	}
}

// sayOnline tells nodes that they may send. A broker that does not let it is no reason to read nothing.
func (r *hostRun) sayOnline(ctx context.Context, state *stateTopic) error {
	err := state.say(ctx, true)
	var refused *mqttlink.Refused
	switch {
	case err == nil:
		if said := state.saidOnline(); !said.IsZero() && time.Since(said) > cutSoon {
			r.env.Reporter.Problem("state", nil)
		}
		return nil
	case errors.As(err, &refused):
		r.silentUntil = time.Now().Add(silence) // some brokers end the connection as well
		r.env.Reporter.Problem("state", &signal.Problem{Code: "state_refused", Item: r.config.Host.stateTopic(),
			Reason:   "nodes do not hear whether this host is online, and store nothing for it: " + refused.Error(),
			NextStep: "allow the agent's user to publish this topic at the broker (access list), or set host.listen_only: true"})
		return nil
	}
	return fmt.Errorf("say that this host is online: %w", err)
}

// suspect notices a broker that ends the connection whenever this host says that it is online: in MQTT 3.1.1 a refusal has no
// other sign.
func (r *hostRun) suspect(state *stateTopic) {
	if said := state.saidOnline(); said.IsZero() || time.Since(said) > cutSoon || r.outdated {
		r.cuts = 0
		return
	}
	if r.cuts++; r.cuts < cutOften {
		return
	}
	r.cuts, r.silentUntil = 0, time.Now().Add(suspicion)
	r.env.Reporter.Problem("state", &signal.Problem{Code: "state_suspect", Item: r.config.Host.stateTopic(),
		Reason:   "the broker ends the connection whenever this host says that it is online; for some minutes it says nothing and only reads",
		NextStep: "allow the agent's user to publish this topic at the broker (access list), or set host.listen_only: true"})
}

func (r *hostRun) untilNext() time.Duration {
	next := r.host.next()
	if next.IsZero() {
		return cursorEvery
	}
	return min(max(time.Until(next), 0), cursorEvery)
}

// subscriptions are everything that the host reads.
func (h *Host) subscriptions() (list []mqttlink.Subscription) {
	for _, g := range h.Groups {
		list = append(list, mqttlink.Subscription{Filter: namespace + "/" + g + "/#", QoS: 1})
	}
	if len(h.Groups) == 0 {
		list = append(list, mqttlink.Subscription{Filter: namespace + "/#", QoS: 1})
	}
	if !h.ListenOnly && (len(h.Groups) > 0 || h.StateFormat == format22) {
		list = append(list, mqttlink.Subscription{Filter: h.stateTopic(), QoS: 1})
	}
	return list
}

// subscribe asks for all of it, before the host says that it is online.
func (r *hostRun) subscribe(ctx context.Context, s *mqttlink.Session) error {
	grants, err := s.Subscribe(ctx, r.config.Host.subscriptions())
	if err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	for _, g := range grants {
		r.env.Reporter.Problem("topic:"+g.Filter, refusedTopic(g))
	}
	return nil
}

// take gives the host what has come; it reports false when that was nothing.
func (r *hostRun) take(s *mqttlink.Session, state *stateTopic) bool {
	r.taken = s.Take(r.taken, batchMessages)
	r.host.away = state.saidOffline()
	for i := range r.taken {
		m := &r.taken[i]
		if m.QoS > 0 {
			r.unacked = append(r.unacked, mqttlink.Message{ID: m.ID, QoS: m.QoS})
		}
		if state.about(m.Topic) {
			r.heardOfItself(m, state)
			continue
		}
		if len(m.Payload) > r.config.Host.MaxSize {
			r.host.out.signals = append(r.host.out.signals, r.tooLarge(m))
			continue
		}
		r.host.receive(&message{topic: m.Topic, payload: m.Payload, received: m.Received, retained: m.Retained}, m.Received)
	}
	return len(r.taken) > 0
}

// acknowledge acknowledges what is durable: deaths, the only messages that Sparkplug sends with an acknowledgement.
func (r *hostRun) acknowledge(s *mqttlink.Session) error {
	if len(r.unacked) == 0 {
		return nil
	}
	_, err := s.Acknowledge(r.unacked)
	r.unacked = r.unacked[:0]
	if err != nil {
		return fmt.Errorf("acknowledge messages: %w", err)
	}
	return nil
}

func (r *hostRun) tooLarge(m *mqttlink.Message) signal.Signal {
	return signal.Signal{Tag: m.Topic, Topic: m.Topic, Payload: bytes.Clone(m.Payload[:r.config.Host.MaxSize]), ReceivedTime: m.Received,
		Problem: &signal.Problem{Code: "too_large", Item: m.Topic,
			Reason:   fmt.Sprintf("the message has %d bytes, more than host.max_size %d; only the beginning is kept", len(m.Payload), r.config.Host.MaxSize),
			NextStep: "raise host.max_size, or make the node write smaller messages"}}
}

// heardOfItself answers whoever says that this host is offline while it is not: an old will, or a host of the same name.
func (r *hostRun) heardOfItself(m *mqttlink.Message, state *stateTopic) {
	online, at, ok := readState(r.config.Host.StateFormat, m.Payload)
	now := time.Now()
	for len(r.denied) > 0 && now.Sub(r.denied[0]) > sayConflictIn {
		r.denied = r.denied[1:]
	}
	switch n := len(r.denied); {
	case !ok:
		return
	case at > r.since && !r.outdated:
		// Nodes believe whoever speaks of the latest time: a clock was set back, or two hosts have one name.
		r.since, r.outdated = at, true
		r.denied = append(r.denied, now)
	case online || m.Retained || n > 0 && now.Sub(r.denied[n-1]) < sayAgain:
		return
	case state.deny():
		r.denied = append(r.denied, now)
	}
	if len(r.denied) >= sayConflict {
		r.conflict = true
		r.env.Reporter.Problem("host_id", &signal.Problem{Code: "host_id_conflict", Item: r.config.Host.ID,
			Reason:   "somebody else speaks for this host again and again; most likely another host uses the same id",
			NextStep: "give each host application its own host.id"})
	}
}

// endConflict takes the word back when nobody else has spoken for this host for a while.
func (r *hostRun) endConflict() {
	if n := len(r.denied); r.conflict && time.Since(r.denied[n-1]) > sayConflictIn {
		r.conflict, r.denied = false, nil
		r.env.Reporter.Problem("host_id", nil)
	}
}

// request sends the host's requests for births.
func (r *hostRun) request(ctx context.Context, s *mqttlink.Session) {
	asked := r.host.out.rebirths
	r.host.out.rebirths = nil
	for _, id := range asked {
		if err := askBirth(ctx, s, id); err != nil {
			r.env.Logger.Warn("ask an edge node for its birth", "source", r.env.Source, "node", id.String(), "err", err)
		}
	}
}

// report shows the host's problems.
func (r *hostRun) report() {
	for key, p := range r.host.out.problems {
		r.env.Reporter.Problem(key, p)
	}
	clear(r.host.out.problems)
}

// store makes durable what the host has handed out, for as long as it takes; always says to store the cursor alone, too.
// It returns false only when ctx ended before. state may be nil.
func (r *hostRun) store(ctx context.Context, state *stateTopic, always bool) bool {
	r.report()
	r.pending = append(r.pending, r.host.out.signals...)
	r.host.out.signals = nil
	if len(r.pending) == 0 && !always && time.Since(r.storedAt) < cursorEvery {
		return true
	}
	cursor := r.host.cursor()
	if len(r.pending) == 0 && !always && bytes.Equal(cursor, r.stored) {
		r.storedAt = time.Now()
		return true
	}
	if !r.emitUntilDurable(ctx, state, signal.Batch{Source: r.env.Source, Signals: r.pending, Cursor: cursor}) {
		return false
	}
	r.pending, r.stored, r.storedAt = nil, cursor, time.Now()
	r.forgetFile()
	return true
}

// emitUntilDurable repeats a refused batch. While it does not become durable the host is offline.
func (r *hostRun) emitUntilDurable(ctx context.Context, state *stateTopic, b signal.Batch) bool {
	done := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() { r.watchHeld(ctx, state, done) })
	defer watch.Wait()
	defer close(done)
	for attempt := 0; ; attempt++ {
		err := r.emit(ctx, b)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		r.env.Logger.Warn("store values", "source", r.env.Source, "err", err)
		r.holdBack(ctx, state, "store values: "+err.Error())
		wait(ctx, jitter(attempt))
	}
}

// watchHeld notices a batch that takes long.
func (r *hostRun) watchHeld(ctx context.Context, state *stateTopic, done <-chan struct{}) {
	t := time.NewTimer(heldAfter)
	defer t.Stop()
	select {
	case <-done:
	case <-ctx.Done():
	case <-t.C:
		r.holdBack(ctx, state, "the buffer does not take more at present; the host is offline, so that edge nodes store what they have")
	}
}

// holdBack says that the host is offline.
func (r *hostRun) holdBack(ctx context.Context, state *stateTopic, reason string) {
	r.status.set(roleHost, signal.StateHeld, reason)
	if state == nil {
		return
	}
	if err := state.say(ctx, false); err != nil && ctx.Err() == nil {
		r.env.Logger.Warn("say that the host is offline", "source", r.env.Source, "err", err)
	}
}

// farewell says that the host goes offline, waits for what nodes had sent before they heard that, and ends the connection.
func (r *hostRun) farewell(ctx context.Context, s *mqttlink.Session, state *stateTopic) {
	if err := state.say(context.WithoutCancel(ctx), false); err != nil {
		r.env.Logger.Warn("say that the host is offline", "source", r.env.Source, "err", err)
	}
	r.linger(s, state)
	s.Close()
}

// linger takes what still comes, until nothing has come for a moment.
func (r *hostRun) linger(s *mqttlink.Session, state *stateTopic) {
	last := time.NewTimer(lingering)
	defer last.Stop()
	calm := time.NewTimer(quiet)
	defer calm.Stop()
	for {
		select {
		case <-s.Ready():
			r.take(s, state)
			calm.Reset(quiet)
		case <-calm.C:
			return
		case <-last.C:
			return
		case <-s.Done():
			return
		}
	}
}
