package opcua

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gopcua/opcua/ua"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// session is what the publish loop needs of a connection.
type session interface {
	// publish waits for the next message of any subscription and carries acknowledgements.
	publish(ctx context.Context, acks []*ua.SubscriptionAcknowledgement) (*publishAnswer, error)
	// republish fetches one message again.
	republish(ctx context.Context, subscription, seq uint32) (*message, error)
	// touch keeps a subscription alive while nothing is fetched.
	touch(ctx context.Context, subscription uint32) error
	createItems(ctx context.Context, subscription uint32, items []*ua.MonitoredItemCreateRequest) ([]*ua.MonitoredItemCreateResult, error)
	deleteItems(ctx context.Context, subscription uint32, ids []uint32) error
	explainer
}

// result is the answer to a publish request, or to a republish request when seq is not 0.
type result struct {
	acks     []*ua.SubscriptionAcknowledgement
	response *publishAnswer
	message  *message
	seq      uint32
	err      error
}

// loop is the publish loop of one connection. All of its state belongs to one goroutine; the requests wait in goroutines of
// their own.
type loop struct {
	*reader
	session session
	facts   serverFacts
	results chan result
	// publishing and fetching count requests under way.
	publishing, fetching int
	// heard is when the server last answered, or when waiting for it began.
	heard time.Time
	// round counts messages.
	round uint64
}

// read publishes until the connection fails or ctx ends.
func (r *reader) read(ctx context.Context, s session, facts serverFacts) error {
	ctx, cancel := context.WithCancel(ctx)
	l := &loop{reader: r, session: s, facts: facts, results: make(chan result, outstanding+1), heard: time.Now()}
	err := l.run(ctx)
	cancel()
	for ; l.publishing+l.fetching > 0; l.publishing-- { // both kinds come through one channel; only their number counts
		<-l.results
	}
	return err
}

func (l *loop) run(ctx context.Context) error {
	tick := time.NewTicker(l.pace.tick)
	defer tick.Stop()
	for {
		l.launch(ctx)
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case res := <-l.results:
			err = l.handle(ctx, res)
		case d := <-l.emitter.out:
			l.durable(d)
		case <-tick.C:
			err = l.watch(ctx, time.Now())
		}
		if err != nil {
			return err
		}
	}
}

// launch sends as many requests as the window allows. While the buffer takes nothing it sends none.
func (l *loop) launch(ctx context.Context) {
	s := l.sub
	if l.fetching == 0 && len(l.pending) < window && (s.draining || s.order.overdue(time.Now(), l.pace.gap)) {
		l.fetching++
		seq, id := s.order.next, s.table.Subscription
		go func() {
			m, err := l.session.republish(ctx, id, seq)
			l.results <- result{seq: seq, message: m, err: err}
		}()
	}
	for !s.draining && l.publishing < l.publishLimit && l.publishing+len(l.pending)+len(s.order.early) < window {
		if l.publishing == 0 {
			l.heard = time.Now()
		}
		l.publishing++
		acks := s.takeAcks()
		go func() {
			res, err := l.session.publish(ctx, acks)
			l.results <- result{acks: acks, response: res, err: err}
		}()
	}
}

func (l *loop) handle(ctx context.Context, res result) error {
	if res.seq != 0 {
		l.fetching--
		return l.fetched(ctx, res)
	}
	l.publishing--
	if res.err != nil {
		return l.refused(res)
	}
	now := time.Now()
	l.alive(now)
	if res.response.subscription != l.sub.table.Subscription {
		l.log.Debug("message of another subscription", "source", l.env.Source, "subscription", res.response.subscription)
		return nil
	}
	if m := res.response.message; !m.empty {
		return l.accept(ctx, m, now)
	}
	l.sub.order.expect(res.response.message.seq, now) // a sign of life tells the number that comes next
	if o := l.sub.order; o.next == res.response.message.seq && !l.sub.draining {
		l.sub.heard = now // and that nothing waits
	}
	return nil
}

// alive notes that the server answered.
func (l *loop) alive(now time.Time) {
	l.heard = now
	l.failures = 0
	if l.state != signal.StateHeld {
		l.setState(signal.StateOK, "")
	}
	if l.complained {
		l.complained = false
		l.problem("connection", nil)
	}
}

// refused decides what an error of a publish request means.
func (l *loop) refused(res result) error {
	switch {
	case errors.Is(res.err, ua.StatusBadTooManyPublishRequests):
		l.publishLimit = max(1, l.publishLimit-1)
		for _, a := range res.acks {
			l.sub.acks = append(l.sub.acks, a.SequenceNumber)
		}
		return nil
	case subscriptionGone(res.err):
		why := "the server ended the subscription"
		if l.sub.transferred {
			why = "another client took the subscription over: does a second agent run with this identity?"
		}
		l.endSubscription(why)
	}
	return fmt.Errorf("publish: %w", res.err)
}

func sessionGone(err error) bool {
	return errors.Is(err, ua.StatusBadSessionIDInvalid) || errors.Is(err, ua.StatusBadSessionClosed) ||
		errors.Is(err, ua.StatusBadSessionNotActivated)
}

// fetched handles a message that was asked for by its number.
func (l *loop) fetched(ctx context.Context, res result) error {
	s := l.sub
	switch {
	case res.err == nil && res.message != nil:
		l.alive(time.Now())
		s.undecodable = 0
		return l.accept(ctx, res.message, time.Now())
	case res.seq != s.order.next:
		return nil // it came by itself meanwhile
	case errors.Is(res.err, ua.StatusBadMessageNotAvailable), errors.Is(res.err, ua.StatusBadServiceUnsupported),
		errors.Is(res.err, ua.StatusBadNotImplemented), errors.Is(res.err, ua.StatusBadNotSupported):
		l.alive(time.Now())
		if s.order.missing() {
			return l.giveUp(ctx, "the server does not have the notification any more")
		}
		s.draining = false
		return nil
	case subscriptionGone(res.err):
		l.endSubscription("the server ended the subscription")
	case isDecoding(res.err):
		s.undecodable++
		if s.undecodable >= maxUndecodable {
			s.undecodable = 0
			s.order.expect(after(s.order.next), time.Now())
			return l.giveUp(ctx, "a notification cannot be decoded: "+res.err.Error())
		}
	}
	return fmt.Errorf("fetch notification %d again: %w", res.seq, res.err)
}

// isDecoding reports whether an answer came and made no sense.
func isDecoding(err error) bool {
	if isBadBytes(err) {
		return true
	}
	if !connectionFault(err) {
		return true
	}
	var status ua.StatusCode
	return !errors.As(err, &status) && !isNetwork(err)
}

// giveUp goes on behind messages that are lost.
func (l *loop) giveUp(ctx context.Context, why string) error {
	lost, ready := l.sub.order.skip()
	l.reportGap(l.sub.heard, fmt.Sprintf("%s (%d)", why, lost))
	return l.handOn(ctx, ready, time.Now())
}

// accept puts a message in its place. It asks for the types of structures first: should the connection break over that, the
// message was not taken and is fetched again.
func (l *loop) accept(ctx context.Context, m *message, now time.Time) error {
	if err := l.explain(ctx, m); err != nil {
		return err
	}
	ready := l.sub.order.take(m, now)
	if l.sub.order.behind > 2*window {
		l.endSubscription("the server numbers its notifications anew")
		return errors.New("the server numbers its notifications anew")
	}
	return l.handOn(ctx, ready, now)
}

// explain turns structures into their fields.
func (l *loop) explain(ctx context.Context, m *message) error {
	for i := range m.changes {
		if v := &m.changes[i].value; v.structures {
			it := l.sub.items[m.changes[i].handle]
			if it == nil {
				continue
			}
			if err := l.explainValue(ctx, l.session, it.Tag, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// handOn turns messages, which are in order, into deliveries.
func (l *loop) handOn(ctx context.Context, ready []*message, now time.Time) error {
	for _, m := range ready {
		signals := l.signals(m, now)
		before := l.sub.heard
		l.sub.heard = l.heardUpTo(m, now)
		l.hand(&delivery{sub: l.sub, seq: m.seq, at: now, batch: signal.Batch{Source: l.env.Source, Signals: signals,
			Cursor: l.sub.cursor(after(m.seq))}})
		if m.broken != nil {
			l.reportGap(before, fmt.Sprintf("notification %d is broken after %d values: %v", m.seq, len(m.changes), m.broken))
		}
		if m.ended != nil {
			if err := l.statusChanged(*m.ended); err != nil {
				return err
			}
		}
	}
	l.showOverflows(now)
	return nil
}

// heardUpTo is up to when everything has come once a message is taken. While the server has more to say it is the time of the
// newest value, by the server's clock; a time that cannot be right changes nothing.
func (l *loop) heardUpTo(m *message, now time.Time) time.Time {
	if m.last {
		return now
	}
	up := l.sub.heard
	for i := range m.changes {
		t := m.changes[i].value.server
		if t.IsZero() {
			t = m.changes[i].value.source
		}
		if t = t.Add(-l.skew); t.After(up) && t.Before(now) {
			up = t
		}
	}
	return up
}

// hand gives a delivery to the emitter, which always has room for what the window allows.
func (r *reader) hand(d *delivery) {
	if d.at.IsZero() {
		d.at = time.Now()
	}
	r.pending = append(r.pending, d)
	r.emitter.in <- d
}

// durable notes that a delivery is stored: now its message may be acknowledged.
func (r *reader) durable(d *delivery) {
	r.pending = r.pending[1:]
	if d.seq != 0 && d.sub == r.sub {
		r.sub.acks = append(r.sub.acks, d.seq)
	}
}

// signals gives the values of a message in the order in which they came to be, without those that the server only repeated, and
// notes what they say about their items.
func (l *loop) signals(m *message, now time.Time) []signal.Signal {
	list := make([]signal.Signal, 0, len(m.changes))
	for _, i := range l.inTimeOrder(m.changes) {
		c := &m.changes[i]
		it := c.item
		if it == nil {
			l.stranger(c.handle)
			continue
		}
		if s := (signal.Signal{Tag: it.Tag, ReceivedTime: now}); l.note(it, &c.value, &s) {
			list = append(list, s)
		}
	}
	return list
}

// inTimeOrder gives the places of a message's values in the order of their times. Servers list them item by item: after an
// outage all values of a counter would stand before, or behind, the change of the order that they belong to. Within an item
// the server's order stays, also when its clock was set back.
func (l *loop) inTimeOrder(changes []change) []int32 {
	sorted := true
	places := make([]int32, len(changes))
	times := make([]int64, len(changes))
	l.round++
	for i := range changes {
		places[i] = int32(i)
		at := changes[i].value.clock()
		it := l.sub.items[changes[i].handle]
		if changes[i].item = it; it != nil {
			if it.round == l.round {
				at = max(at, it.latest)
			}
			it.round, it.latest = l.round, at
		}
		times[i] = at
		sorted = sorted && (i == 0 || times[i-1] <= at)
	}
	if !sorted {
		slices.SortStableFunc(places, func(a, b int32) int { return cmp.Compare(times[a], times[b]) })
	}
	return places
}

// clock is when the value came to be, as far as anybody said, in steps of 100 ns.
func (d *dataValue) clock() int64 {
	t := d.source
	if t.IsZero() {
		t = d.server
	}
	return t.Unix()*1e7 + int64(t.Nanosecond())/100
}

// note makes a value a signal, and reports whether it is news.
func (l *loop) note(it *item, d *dataValue, s *signal.Signal) bool {
	// One time, one value: it is the same one. Without a time it is so only where servers repeat, after a reconnect.
	same := it.last(d.print) && (!d.source.IsZero() || it.repeated)
	it.print, it.half, it.repeated = d.print, false, false
	it.seen = s.ReceivedTime
	if l.silent[it.Tag] {
		l.heardAgain(it)
	}
	if same || it.told[d.print] {
		return false
	}
	it.told = nil
	if it.at = d.clock(); it.at < 0 {
		it.at = 0
	}
	fill(s, d)
	if uint32(d.status)&overflow == overflow {
		l.overflows.total++
		l.overflows.tag, l.overflows.at = it.Tag, s.ReceivedTime
	}
	if c := ua.StatusCode(uint32(d.status) & nameMask); c == ua.StatusBadNodeIDUnknown || c == ua.StatusBadNodeIDInvalid {
		it.gone = true
		if n, ok := l.node(it.Tag); ok {
			l.refuse(n, statusName(c))
		}
	}
	return true
}

// stranger counts values of items that are not in the table: they were removed, or come from an item made just before the
// agent was killed, which has been made again since.
func (l *loop) stranger(handle uint32) {
	l.strangers++
	l.log.Debug("value of an unknown item", "source", l.env.Source, "handle", handle, "so_far", l.strangers)
}

// statusChanged handles the server's word about the subscription itself.
func (l *loop) statusChanged(status ua.StatusCode) error {
	if status == ua.StatusGoodSubscriptionTransferred {
		// Meant for the session that lost the subscription. A server may keep it for whoever fetches old messages, and then
		// it speaks of our own taking over: only what the server answers next tells.
		l.sub.transferred = true
		return nil
	}
	if quality(status) != signal.Bad {
		l.log.Info("subscription status", "source", l.env.Source, "status", statusName(status))
		return nil
	}
	why := "the server ended the subscription: " + statusName(status)
	l.endSubscription(why)
	return errors.New(why)
}

// watch looks at everything that no message brings.
func (l *loop) watch(ctx context.Context, now time.Time) error {
	l.forgetOld(now)
	l.watchItems(now)
	l.showHeld(now)
	silence := now.Sub(l.heard)
	patience := l.sub.table.KeepAlive*3/2 + 2*time.Second
	switch {
	case l.publishing > 0 && silence > patience:
		return fmt.Errorf("the server has said nothing for %s", silence.Round(time.Second))
	case l.publishing == 0 && l.fetching == 0 && silence > l.sub.table.KeepAlive:
		// Held back by the buffer: the server must not forget us meanwhile.
		if err := l.session.touch(ctx, l.sub.table.Subscription); err != nil {
			if subscriptionGone(err) {
				l.endSubscription("the server ended the subscription")
			}
			return fmt.Errorf("keep the subscription alive: %w", err)
		}
		l.heard = time.Now()
	}
	return l.retryItems(ctx, l.session, l.facts, now)
}

// showHeld says when the buffer holds the source back.
func (l *loop) showHeld(now time.Time) {
	held := len(l.pending) > 0 && now.Sub(l.pending[0].at) > l.pace.held
	fault := l.emitter.fault.Load()
	switch {
	case fault != nil:
		l.setState(signal.StateHeld, "the buffer refuses: "+*fault)
	case held:
		l.setState(signal.StateHeld, "the buffer has taken nothing since "+l.pending[0].at.In(l.zone()).Format(time.TimeOnly))
	case l.state == signal.StateHeld:
		l.setState(signal.StateOK, "")
	}
}
