package opcua

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gopcua/opcua/ua"

	"github.com/linekeeper/linekeeper/agent/signal"
)

const (
	// maxNotifications bounds a notification message, and so one transaction and the memory for one. It is large because
	// values can be put into the order of time within one message only: an outage should fit into it.
	maxNotifications = 10_000
	// itemsPerCall is used where the server names no limit.
	itemsPerCall = 1000
	// maxNamed is how many bad nodes the log names one by one; the page names all of them.
	maxNamed = 20
	// minItemsAtOnce is what every server takes.
	minItemsAtOnce = 10
	// maxUndecodable is how often a message that cannot be decoded is asked for before it is given up.
	maxUndecodable = 3
)

// subscription is what the server has for us. It lives longer than connections and than the agent's process.
type subscription struct {
	table   table
	encoded []byte
	// dir is where large tables are kept; file is true when encoded is only the name of one.
	dir   string
	file  bool
	order *order
	// items in the order of the table, and by handle.
	list  []*item
	items map[uint32]*item
	// acks are durable and not yet acknowledged.
	acks []uint32
	// draining is true while messages from before this connection are fetched.
	draining bool
	// heard is up to when everything that the server had to say has come: a server that has fallen behind sends old values for a
	// while, and what it has not sent is lost with it.
	heard time.Time
	// transferred is true when the server said that another session has the subscription.
	transferred bool
	// unfilled is since when values are missing that the server's history may have.
	unfilled time.Time
	// undecodable counts failed attempts to read the message that is next.
	undecodable int
}

// item is one monitored item.
type item struct {
	tableItem
	print uint64
	// half is true while print came from a cursor, which holds its upper half only.
	half bool
	// repeated is true until the first value after a reconnect: servers then send the last one again.
	repeated bool
	// gone is true when the server said that the node does not exist any more.
	gone bool
	// at is the time of its last value, in steps of 100 ns since 1970; 0 when it had none.
	at int64
	// seen is when its last value came, or when waiting for one began.
	seen time.Time
	// told are the prints of the newest values from the server's history, which may come once more from the subscription.
	told map[uint64]bool
	// latest is the item's last time within the message that has this round.
	latest int64
	round  uint64
}

// waitingNode is a node that has no item because the server refused it.
type waitingNode struct {
	attempts int
	due      time.Time
}

func newSubscription(dir string, t table) *subscription {
	s := &subscription{table: t, dir: dir, order: newOrder(1, true), items: map[uint32]*item{}, heard: time.Now()}
	s.changed()
	return s
}

func resumeSubscription(dir string, t *table, p position) *subscription {
	s := &subscription{table: *t, dir: dir, order: newOrder(p.next, p.fresh), items: map[uint32]*item{}, heard: p.heard}
	s.unfilled = p.unfilled
	for i, ti := range t.Items {
		it := &item{tableItem: ti, seen: time.Now()}
		if len(p.lasts) > 0 {
			it.print, it.half, it.at = uint64(p.lasts[i].print)<<32, true, p.lasts[i].at
		}
		s.add(it)
	}
	s.changed()
	return s
}

func (s *subscription) add(i *item) {
	s.list = append(s.list, i)
	s.items[i.Handle] = i
}

func (s *subscription) remove(gone map[*item]bool) {
	kept := s.list[:0]
	for _, i := range s.list {
		if gone[i] {
			delete(s.items, i.Handle)
			continue
		}
		kept = append(kept, i)
	}
	s.list = kept
}

// changed encodes the table anew after its items changed.
func (s *subscription) changed() {
	s.table.Items = s.table.Items[:0]
	for _, i := range s.list {
		s.table.Items = append(s.table.Items, i.tableItem)
	}
	s.encoded, s.file = encodeTable(&s.table), false
	if len(s.encoded) <= inlineTable || s.dir == "" {
		return
	}
	// Where the file cannot be written, the cursor is large and right.
	if name, err := keepTable(s.dir, s.encoded); err == nil {
		s.encoded, s.file = name, true
	}
}

// cursor is the place after the message before next.
func (s *subscription) cursor(next uint32) []byte {
	p := position{next: next, fresh: s.order.fresh, heard: s.heard, unfilled: s.unfilled, file: s.file}
	if len(s.list) <= maxPrints {
		p.lasts = make([]last, len(s.list))
		for i, it := range s.list {
			p.lasts[i] = last{uint32(it.print >> 32), it.at}
		}
	}
	return encodeCursor(s.encoded, p)
}

// last reports whether a print is that of the item's last value.
func (i *item) last(print uint64) bool {
	return print == i.print || i.half && print>>32 == i.print>>32
}

// takeAcks gives the acknowledgements that travel with the next publish request.
func (s *subscription) takeAcks() []*ua.SubscriptionAcknowledgement {
	var list []*ua.SubscriptionAcknowledgement
	for _, seq := range s.acks {
		list = append(list, &ua.SubscriptionAcknowledgement{SubscriptionID: s.table.Subscription, SequenceNumber: seq})
	}
	s.acks = nil
	return list
}

// attach makes the session deliver: with the subscription from before where the server still has it, else with a new one.
func (r *reader) attach(ctx context.Context, l *link, facts serverFacts) error {
	if err := r.locate(ctx, l, facts, nil); err != nil {
		return err
	}
	if r.sub != nil {
		if err := r.resume(ctx, l, facts); err != nil {
			return err
		}
	}
	if r.sub == nil {
		if err := r.subscribe(ctx, l, facts); err != nil {
			return err
		}
	}
	return r.reconcile(ctx, l, facts)
}

// resume takes the subscription over into this session, and gives it up where the server does not have it.
func (r *reader) resume(ctx context.Context, l *link, facts serverFacts) error {
	s := r.sub
	// Acknowledgements under way when the connection broke may have arrived: a server must not get one twice.
	s.acks = nil
	if !l.resumed {
		if d := facts.started.Sub(s.table.Started).Abs(); d > 2*time.Second {
			// Ids are used again by the server's next life: its subscription of that number may be somebody else's.
			r.endSubscription("the server was restarted")
			return nil
		}
		available, err := l.transfer(ctx, s.table.Subscription)
		var status ua.StatusCode
		switch {
		case errors.As(err, &status) && !connectionFault(err):
			r.endSubscription("the server did not hand over the subscription: " + statusName(status))
			return nil
		case err != nil:
			return fmt.Errorf("transfer the subscription: %w", err)
		}
		r.compare(available)
	}
	s.draining, s.transferred = true, false
	for _, i := range s.list {
		i.repeated = true
	}
	r.log.Info("subscription taken over", "source", r.env.Source, "subscription", s.table.Subscription,
		"same_session", l.resumed, "next", s.order.next)
	return nil
}

// compare takes the numbers of the messages that the server still has: those that are durable need an acknowledgement,
// those to come are expected.
func (r *reader) compare(available []uint32) {
	s := r.sub
	for _, seq := range available {
		switch {
		case seq == s.order.next || ahead(s.order.next, seq):
			s.order.expect(after(seq), time.Now())
		case !r.isPending(seq):
			s.acks = append(s.acks, seq)
		}
	}
}

func (r *reader) isPending(seq uint32) bool {
	for _, d := range r.pending {
		if d.sub == r.sub && d.seq == seq {
			return true
		}
	}
	return false
}

// endSubscription forgets a subscription that the server does not have any more. What is known of its items' last values is kept
// for the next one.
func (r *reader) endSubscription(why string) {
	from := r.sub.heard
	if !r.sub.unfilled.IsZero() {
		from = r.sub.unfilled // the gap before was not filled yet
	}
	if r.gap == nil {
		r.gap = &gap{from: from}
	}
	r.gap.why = why
	r.showGap(r.gap, time.Now())
	for _, i := range r.sub.list {
		if i.print != 0 {
			r.lasts[i.Tag] = i
		}
	}
	if r.sub.table.Subscription != 0 {
		r.abandoned = append(r.abandoned, r.sub.table.Subscription)
	}
	r.sub = nil
}

// sweep deletes abandoned subscriptions that this session still has, so that their messages don't come for ever. A server that
// was restarted may have given the new subscription an old one's number.
func (r *reader) sweep(ctx context.Context, l *link) {
	r.abandoned = slices.DeleteFunc(r.abandoned, func(id uint32) bool { return id == r.sub.table.Subscription })
	if len(r.abandoned) == 0 {
		return
	}
	_, err := call[*ua.DeleteSubscriptionsResponse](ctx, l.client, callTimeout,
		&ua.DeleteSubscriptionsRequest{SubscriptionIDs: r.abandoned})
	if !connectionFault(err) {
		r.abandoned = nil
	}
}

func (r *reader) subscribe(ctx context.Context, l *link, facts serverFacts) error {
	c := &r.config
	publishing := max(c.PublishingInterval, facts.profile.publishing)
	keepAlive := max(1, uint32(c.KeepAlive/publishing))
	res, err := l.createSubscription(ctx, &ua.CreateSubscriptionRequest{
		RequestedPublishingInterval: milliseconds(publishing),
		RequestedMaxKeepAliveCount:  keepAlive,
		RequestedLifetimeCount:      max(3*keepAlive, uint32(c.Lifetime/publishing)),
		MaxNotificationsPerPublish:  maxNotifications,
		PublishingEnabled:           true,
	})
	if err != nil {
		return fmt.Errorf("create a subscription: %w", err)
	}
	interval := time.Duration(res.RevisedPublishingInterval * float64(time.Millisecond))
	r.sub = newSubscription(r.env.Dir, table{
		Endpoint: c.Endpoint, Started: facts.started, Subscription: res.SubscriptionID, Publishing: interval,
		KeepAlive:  interval * time.Duration(max(1, res.RevisedMaxKeepAliveCount)),
		Lifetime:   interval * time.Duration(res.RevisedLifetimeCount),
		NextHandle: 1,
	})
	if r.gap != nil {
		r.sub.unfilled = r.gap.from
	}
	r.publishLimit = outstanding
	r.sweep(ctx, l)
	r.log.Info("subscription created", "source", r.env.Source, "subscription", res.SubscriptionID, "publishing", interval,
		"keep_alive", r.sub.table.KeepAlive, "lifetime", r.sub.table.Lifetime)
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// reconcile makes the items of the subscription those of the configuration.
func (r *reader) reconcile(ctx context.Context, l *link, facts serverFacts) error {
	s := r.sub
	have := map[string]bool{}
	gone := map[*item]bool{}
	var goneIDs []uint32
	for _, i := range s.list {
		if n, ok := r.node(i.Tag); ok && i.matches(n) && !i.gone {
			have[i.Tag] = true
			continue
		}
		gone[i] = true
		goneIDs = append(goneIDs, i.ID)
	}
	if len(gone) > 0 {
		if err := l.deleteItems(ctx, s.table.Subscription, goneIDs); connectionFault(err) {
			return fmt.Errorf("remove monitored items: %w", err)
		}
		s.remove(gone)
	}
	var missing []Node
	for _, n := range r.config.Nodes {
		if !have[n.Tag] {
			missing = append(missing, n)
		}
	}
	if err := r.monitor(ctx, l, missing, facts); err != nil {
		return err
	}
	r.checkLimits(facts.profile)
	if len(gone)+len(missing) > 0 {
		r.tableChanged()
	}
	return nil
}

// tableChanged makes the new item table durable before the values that need it.
func (r *reader) tableChanged() {
	r.sub.changed()
	if len(r.pending) < window {
		r.hand(&delivery{batch: signal.Batch{Source: r.env.Source, Cursor: r.sub.cursor(r.sub.order.next)}, sub: r.sub})
	}
}

// connectionFault reports whether an error is about the way to the server, not about what was asked.
func connectionFault(err error) bool {
	if err == nil || isBadBytes(err) {
		return false
	}
	var status ua.StatusCode
	if !errors.As(err, &status) {
		return true
	}
	switch status {
	case ua.StatusBadTimeout, ua.StatusBadServerNotConnected, ua.StatusBadShutdown, ua.StatusBadServerHalted,
		ua.StatusBadSessionIDInvalid, ua.StatusBadSessionClosed, ua.StatusBadSessionNotActivated,
		ua.StatusBadSecureChannelIDInvalid, ua.StatusBadSecureChannelClosed, ua.StatusBadSecureChannelTokenUnknown,
		ua.StatusBadConnectionClosed, ua.StatusBadCommunicationError, ua.StatusBadTCPInternalError,
		ua.StatusBadSecurityChecksFailed, ua.StatusBadNoCommunication:
		return true
	}
	return false
}
