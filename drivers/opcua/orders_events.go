package opcua

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/opcua/jobcontrol"
)

// Events tell of states that last less than the pause between two looks at a list. They come through a session of their own:
// the publish loop of the values is never in their way. What they miss, the list tells.

// jobEvent is one change of a job's state, by the server's clock.
type jobEvent struct {
	source   string // the node that it is about
	order    string
	revision int64
	phase    jobcontrol.Phase
	at       time.Time
}

// news are events that wait for the follower.
type news struct {
	mu   sync.Mutex
	list []jobEvent
}

// maxNews bounds what waits; the oldest goes first, and the list tells the rest.
const maxNews = 1000

func (n *news) add(e jobEvent) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.list = append(n.list, e)
	if over := len(n.list) - maxNews; over > 0 {
		n.list = slices.Delete(n.list, 0, over)
	}
}

// take returns the events after one look at the list until the next one, in their order; earlier ones are in the first look
// already, later ones stay.
func (n *news) take(after, until time.Time) (due []jobEvent) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var later []jobEvent
	for _, e := range n.list {
		switch {
		case e.at.After(until):
			later = append(later, e)
		case e.at.After(after):
			due = append(due, e)
		}
	}
	n.list = later
	slices.SortStableFunc(due, func(a, b jobEvent) int { return a.at.Compare(b.at) })
	return due
}

// hear listens to the server's events until ctx ends.
func (o *orders) hear(ctx context.Context, d *driver) {
	const key, patience = "work_orders/events", 30 * time.Second
	for failures := 0; ctx.Err() == nil; failures++ {
		if _, err := o.lobby.wait(ctx); err != nil {
			return // who cannot get in with one session need not try with two
		}
		err := o.listen(ctx, d, func() {
			failures = 0
			o.env.Reporter.Problem(key, nil)
		})
		if ctx.Err() != nil {
			return
		}
		o.env.Reporter.Problem(key, &signal.Problem{Code: "no_job_events", Item: o.env.Source, Reason: plain(err),
			NextStep: "nothing for now: jobs are followed by the machines' lists, and the agent tries again"})
		if !pause(ctx, jitter(time.Second, patience, failures)) {
			return
		}
	}
}

// listen is one session for events, until it fails.
func (o *orders) listen(ctx context.Context, d *driver, heard func()) error {
	r := d.scout()
	if err := r.loadOwn(); err != nil {
		return err
	}
	l, err := r.connect(ctx)
	if err != nil {
		return err
	}
	defer func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_, err := call[*ua.CloseSessionResponse](last, l.client, time.Second, &ua.CloseSessionRequest{DeleteSubscriptions: true})
		_ = err // the server's timeout ends a session that could not be closed
		l.close(last)
	}()
	facts, err := l.facts(ctx)
	if err != nil {
		return err
	}
	if err := o.subscribe(ctx, &live{link: l, facts: facts}, &r.config); err != nil {
		return err
	}
	var acks []*ua.SubscriptionAcknowledgement
	for {
		res, err := call[*late](ctx, l.client, r.publishTimeout(), &ua.PublishRequest{SubscriptionAcknowledgements: acks})
		if err != nil {
			return fmt.Errorf("wait for events: %w", err)
		}
		heard()
		if acks, err = o.events(res.body); err != nil {
			return err
		}
	}
}

// subscribe asks for the events of jobs.
func (o *orders) subscribe(ctx context.Context, l *live, c *Config) error {
	ns, err := l.controlNamespace()
	if err != nil {
		return err
	}
	for _, encoding := range []uint32{jobcontrol.OrderEncoding, jobcontrol.StateEncoding} {
		keepBytesOf(ua.NewNumericNodeID(ns, encoding))
	}
	sub, err := l.createSubscription(ctx, &ua.CreateSubscriptionRequest{RequestedPublishingInterval: milliseconds(eventDelay / 3),
		RequestedMaxKeepAliveCount: max(1, uint32(3*c.KeepAlive/eventDelay)), RequestedLifetimeCount: 1000, PublishingEnabled: true})
	if err != nil {
		return fmt.Errorf("subscribe to events: %w", err)
	}
	field := func(t *ua.NodeID, ns uint16, name string) *ua.SimpleAttributeOperand {
		return &ua.SimpleAttributeOperand{TypeDefinitionID: t, BrowsePath: []*ua.QualifiedName{{NamespaceIndex: ns, Name: name}}, AttributeID: ua.AttributeIDValue}
	}
	base, job := ua.NewNumericNodeID(0, id.BaseEventType), ua.NewNumericNodeID(ns, jobcontrol.StatusEventType)
	filter := &ua.EventFilter{
		SelectClauses: []*ua.SimpleAttributeOperand{field(base, 0, "Time"), field(job, ns, "JobOrder"), field(job, ns, "JobState"), field(base, 0, "SourceNode")},
		WhereClause: &ua.ContentFilter{Elements: []*ua.ContentFilterElement{{FilterOperator: ua.FilterOperatorOfType,
			FilterOperands: []*ua.ExtensionObject{ua.NewExtensionObject(&ua.LiteralOperand{Value: ua.MustVariant(job)})}}}},
	}
	results, err := l.createItems(ctx, sub.SubscriptionID, []*ua.MonitoredItemCreateRequest{{
		ItemToMonitor:  &ua.ReadValueID{NodeID: ua.NewNumericNodeID(0, id.Server), AttributeID: ua.AttributeIDEventNotifier, DataEncoding: &ua.QualifiedName{}},
		MonitoringMode: ua.MonitoringModeReporting,
		RequestedParameters: &ua.MonitoringParameters{ClientHandle: 1, QueueSize: maxNews, DiscardOldest: true,
			Filter: ua.NewExtensionObject(filter)},
	}})
	if err != nil {
		return fmt.Errorf("subscribe to events: %w", err)
	}
	if code := results[0].StatusCode; quality(code) == signal.Bad {
		return fmt.Errorf("the server has no events of jobs: %s", statusName(code))
	}
	return nil
}

const typeEvents = "i=916"

// events hands on what a publish answer tells, and returns its acknowledgement.
func (o *orders) events(body []byte) ([]*ua.SubscriptionAcknowledgement, error) {
	w := &wire{b: body}
	ack := &ua.SubscriptionAcknowledgement{SubscriptionID: w.u32()}
	for range w.count(4) {
		w.u32()
	}
	w.u8()
	ack.SequenceNumber = w.u32()
	w.time()
	n := w.count(3)
	for range n {
		x := w.structure()
		if w.err != nil {
			break
		}
		switch x.id {
		case typeStatusChange:
			return nil, errors.New("the server ended the subscription of events")
		case typeEvents:
			list, err := jobcontrol.DecodeEvents(x.body)
			if err != nil {
				return nil, fmt.Errorf("an event cannot be read: %w", err)
			}
			for _, fields := range list {
				o.event(fields)
			}
		}
	}
	if w.err != nil || n == 0 {
		return nil, w.err
	}
	return []*ua.SubscriptionAcknowledgement{ack}, nil
}

// event tells the machines of one event. What it says is used by the machine that it comes from, where it can be read; all
// others look at their lists.
func (o *orders) event(fields []*ua.Variant) {
	e, ok := readEvent(fields)
	for _, m := range o.machines {
		j, is := m.(*jobMachine)
		if !is {
			continue
		}
		if s := j.found.Load(); ok && s != nil && s.is(e.source) {
			j.news.add(e)
		}
		j.look()
	}
}

func readEvent(fields []*ua.Variant) (e jobEvent, ok bool) {
	if len(fields) != 4 {
		return e, false
	}
	if source, _ := fields[3].Value().(*ua.NodeID); source != nil {
		e.source = source.String()
	}
	e.at, _ = fields[0].Value().(time.Time)
	x, _ := fields[1].Value().(*ua.ExtensionObject)
	var order jobcontrol.Order
	if x == nil || e.at.IsZero() || decodeObject(x, order.Decode) != nil {
		return e, false
	}
	var states []jobcontrol.State
	list, _ := fields[2].Value().([]*ua.ExtensionObject)
	for _, x := range list {
		err := decodeObject(x, func(b []byte) (int, error) {
			s, err := jobcontrol.DecodeState(b)
			states = append(states, s)
			return len(b), err
		})
		if err != nil {
			return e, false
		}
	}
	e.order, e.revision, e.phase = order.ID, revisionOf(&order), jobcontrol.PhaseOf(states)
	return e, e.phase != jobcontrol.UnknownPhase
}
