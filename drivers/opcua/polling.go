package opcua

import (
	"context"
	"fmt"
	"time"

	"github.com/gopcua/opcua/ua"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// cursorEvery is how often the cursor is stored while no polled value changes, so that a restarted agent knows how long it was
// away.
const cursorEvery = 30 * time.Second

// valueReader is what polling needs of a connection.
type valueReader interface {
	explainer
	// readValues reads the values of nodes, at most size in one call.
	readValues(ctx context.Context, nodes []*ua.NodeID, size int) ([]dataValue, error)
}

func (l *link) readValues(ctx context.Context, nodes []*ua.NodeID, size int) ([]dataValue, error) {
	var values []dataValue
	if size < 1 {
		size = max(1, len(nodes))
	}
	for len(values) < len(nodes) {
		n := min(size, len(nodes)-len(values))
		req := &ua.ReadRequest{TimestampsToReturn: ua.TimestampsToReturnBoth}
		for _, node := range nodes[len(values) : len(values)+n] {
			req.NodesToRead = append(req.NodesToRead, &ua.ReadValueID{NodeID: node, AttributeID: ua.AttributeIDValue, DataEncoding: &ua.QualifiedName{}})
		}
		res, err := call[*late](ctx, l.client, callTimeout, req)
		if tooMuch(err) && n > 1 {
			size = max(1, n/2)
			continue
		}
		if err != nil {
			return nil, err
		}
		w := &wire{b: res.body}
		list := w.readResults()
		if w.err == nil && len(list) != n {
			w.fail("%d values of %d nodes", len(list), n)
		}
		if w.err != nil {
			return nil, w.err
		}
		values = append(values, list...)
	}
	return values, nil
}

// polls reports whether this server's nodes are read again and again instead of being subscribed to.
func (r *reader) polls() bool { return r.config.Read == readPoll || r.noSubscriptions != "" }

// cannotSubscribe decides what a refused subscription means: a server that has none is polled.
func (r *reader) cannotSubscribe(err error) bool {
	if r.config.Read == readSubscribe || !unsupported(err) {
		return false
	}
	r.noSubscriptions = plain(err)
	r.problem("polling", &signal.Problem{Code: "polling", Item: r.config.Endpoint,
		Reason: fmt.Sprintf("the server has no subscriptions (%s): its nodes are read every %s, and what changes twice between two readings "+
			"is seen once", r.noSubscriptions, r.config.PollEvery),
		NextStep: "nothing for counters; for single records let the machine keep them until they were read, or write `read: poll` to accept this"})
	return true
}

// poller is the state of polling over one connection.
type poller struct {
	*loop
	values valueReader
	nodes  []*ua.NodeID
	items  []*item
	stored time.Time
}

// poll reads the nodes until the connection fails or ctx ends.
func (r *reader) poll(ctx context.Context, l interface {
	session
	valueReader
}, facts serverFacts) error {
	now := time.Now()
	if r.sub != nil && r.sub.table.Subscription != 0 {
		r.endSubscription("the source is polled now")
	}
	if r.sub == nil {
		r.sub, r.polled = r.polled, nil
	}
	if r.sub == nil {
		r.sub = newSubscription(r.env.Dir, table{Endpoint: r.config.Endpoint, NextHandle: 1})
	} else if away := now.Sub(r.sub.heard); away > 3*r.config.PollEvery+cursorEvery {
		r.reportGap(r.sub.heard, "nothing was read")
	}
	p := &poller{loop: &loop{reader: r, session: l, facts: facts, heard: now}, values: l, stored: now}
	p.choose()
	tick := time.NewTicker(r.config.PollEvery)
	defer tick.Stop()
	for {
		if err := p.once(ctx); err != nil {
			return err
		}
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case d := <-r.emitter.out:
				r.durable(d)
			case <-tick.C:
				waiting = false
			}
		}
	}
}

// choose makes the list of nodes; one whose name means nothing here is tried again at the next connection.
func (p *poller) choose() {
	before := map[string]*item{}
	for _, it := range p.sub.list {
		before[it.Tag] = it
	}
	p.sub.list, p.sub.items = nil, map[uint32]*item{}
	for i, n := range p.config.Nodes {
		id, err := p.resolve(n, p.facts.namespaces)
		if err != nil {
			p.refuse(n, err.Error())
			continue
		}
		it := &item{seen: time.Now(), tableItem: tableItem{Handle: uint32(i + 1), Tag: n.Tag, Node: n.Node, URI: p.pins[n.Node].uri, Sampling: p.config.PollEvery}}
		if b := before[n.Tag]; b != nil && b.Node == n.Node {
			it.print, it.half, it.at = b.print, b.half, b.at
		}
		p.sub.add(it)
		p.items, p.nodes = append(p.items, it), append(p.nodes, id)
	}
	p.sub.changed()
}

// once reads all nodes and hands on what changed. While the buffer takes nothing it reads nothing.
func (p *poller) once(ctx context.Context) error {
	now := time.Now()
	p.forgetOld(now)
	p.showHeld(now)
	if len(p.pending) >= window {
		return nil
	}
	values, err := p.values.readValues(ctx, p.nodes, p.facts.readsPerCall)
	if err != nil {
		return fmt.Errorf("read %d nodes: %w", len(p.nodes), err)
	}
	p.alive(now)
	now = time.Now()
	var signals []signal.Signal
	for i := range values {
		it, v := p.items[i], &values[i]
		if p.isBad(it, v) || it.last(v.content) {
			continue
		}
		if v.structures {
			if err := p.explainValue(ctx, p.values, it.Tag, v); err != nil {
				return err
			}
		}
		it.print, it.half, it.seen, it.at = v.content, false, now, max(0, v.clock())
		if p.silent[it.Tag] {
			p.heardAgain(it)
		}
		s := signal.Signal{Tag: it.Tag, ReceivedTime: now}
		fill(&s, v)
		s.Status += " (polled)"
		signals = append(signals, s)
	}
	p.watchItems(now)
	p.sub.heard = now
	if len(signals) > 0 || now.Sub(p.stored) >= cursorEvery {
		p.stored = now
		p.hand(&delivery{sub: p.sub, at: now, batch: signal.Batch{Source: p.env.Source, Signals: signals, Cursor: p.sub.cursor(1)}})
	}
	return nil
}

// isBad shows a node that the server does not have, or does not let us read. Its status is a value like others.
func (p *poller) isBad(it *item, v *dataValue) bool {
	n, ok := p.node(it.Tag)
	if !ok {
		return true
	}
	switch ua.StatusCode(uint32(v.status) & nameMask) {
	case ua.StatusBadNodeIDUnknown, ua.StatusBadNodeIDInvalid, ua.StatusBadAttributeIDInvalid, ua.StatusBadNotReadable, ua.StatusBadUserAccessDenied:
		if p.waiting[it.Tag] == nil {
			p.refuse(n, statusName(v.status))
		}
	default:
		if p.waiting[it.Tag] != nil {
			delete(p.waiting, it.Tag)
			p.problem("node:"+it.Tag, nil)
		}
	}
	return false
}
