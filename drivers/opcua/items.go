package opcua

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/gopcua/opcua/ua"

	"github.com/linekeeper/linekeeper/agent/signal"
)

func (r *reader) node(tag string) (Node, bool) {
	i, ok := r.nodes[tag]
	if !ok {
		return Node{}, false
	}
	return r.config.Nodes[i], true
}

func (i *item) matches(n Node) bool {
	return i.Node == n.Node && i.Sampling == *n.Sampling && i.Queue == n.Queue && i.Deadband == n.Deadband && i.Percent == n.DeadbandPercent
}

// monitor creates items for nodes. A node that the server refuses waits for its next turn; only a fault of the connection
// is an error.
func (r *reader) monitor(ctx context.Context, s session, nodes []Node, facts serverFacts) error {
	size := itemsPerCall
	if facts.itemsPerCall > 0 {
		size = int(min(facts.itemsPerCall, itemsPerCall))
	}
	if r.itemsAtOnce > 0 {
		size = min(size, r.itemsAtOnce)
	}
	requests, nodes := r.itemRequests(nodes, facts)
	var again []Node
	for len(nodes) > 0 {
		n := min(size, len(nodes))
		results, err := s.createItems(ctx, r.sub.table.Subscription, requests[:n])
		if tooMuch(err) && size > 1 {
			size = max(1, n/2) // some servers keep other limits than they name
			continue
		}
		if subscriptionGone(err) {
			r.endSubscription("the server ended the subscription")
			return fmt.Errorf("create monitored items: %w", err)
		}
		if connectionFault(err) {
			// Some servers hang up on a request that is too large for them: the next connection asks for less.
			r.itemsAtOnce = max(minItemsAtOnce, n/2)
			return fmt.Errorf("create monitored items: %w", err)
		}
		for i, node := range nodes[:n] {
			switch {
			case err != nil:
				r.refuse(node, err.Error())
			case r.filterRefused(node, requests[i], results[i].StatusCode):
				again = append(again, node)
			default:
				r.created(node, requests[i].RequestedParameters.ClientHandle, results[i])
			}
		}
		requests, nodes = requests[n:], nodes[n:]
	}
	if len(again) > 0 {
		return r.monitor(ctx, s, again, facts)
	}
	return nil
}

// filterRefused notes a node whose deadband the server does not take; it is asked for without one.
func (r *reader) filterRefused(n Node, request *ua.MonitoredItemCreateRequest, status ua.StatusCode) bool {
	if request.RequestedParameters.Filter == nil {
		return false
	}
	switch ua.StatusCode(uint32(status) & nameMask) {
	case ua.StatusBadMonitoredItemFilterUnsupported, ua.StatusBadMonitoredItemFilterInvalid, ua.StatusBadFilterNotAllowed,
		ua.StatusBadDeadbandFilterInvalid:
		r.withoutDeadband(n, "the server refuses it ("+statusName(status)+")")
		return true
	}
	return false
}

func (r *reader) withoutDeadband(n Node, why string) {
	if r.unfiltered[n.Tag] {
		return
	}
	r.unfiltered[n.Tag] = true
	r.log.Info("deadband is not used", "source", r.env.Source, "tag", n.Tag, "reason", why)
	r.problem("deadband:"+n.Tag, &signal.Problem{Code: "deadband", Item: n.Tag,
		Reason:   fmt.Sprintf("the deadband of tag %q is not used, every change is read: %s", n.Tag, why),
		NextStep: "remove the deadband from the configuration; one in percent needs a node with a range (EURange)"})
}

func subscriptionGone(err error) bool {
	return errors.Is(err, ua.StatusBadSubscriptionIDInvalid) || errors.Is(err, ua.StatusBadNoSubscription)
}

func tooMuch(err error) bool {
	return errors.Is(err, ua.StatusBadTooManyOperations) || errors.Is(err, ua.StatusBadEncodingLimitsExceeded) ||
		errors.Is(err, ua.StatusBadRequestTooLarge) || errors.Is(err, ua.StatusBadResponseTooLarge)
}

// itemRequests returns the requests for those nodes whose names mean something at this server, and these nodes.
func (r *reader) itemRequests(nodes []Node, facts serverFacts) ([]*ua.MonitoredItemCreateRequest, []Node) {
	var requests []*ua.MonitoredItemCreateRequest
	var resolved []Node
	for _, n := range nodes {
		id, err := r.resolve(n, facts.namespaces)
		if err != nil {
			r.refuse(n, err.Error())
			continue
		}
		p := &ua.MonitoringParameters{ClientHandle: r.sub.table.NextHandle, SamplingInterval: milliseconds(max(*n.Sampling, facts.profile.sampling)),
			QueueSize: n.Queue, DiscardOldest: true, Filter: r.filter(n, facts.profile)}
		if q := facts.profile.queue; q > 0 {
			p.QueueSize = min(p.QueueSize, q)
		}
		r.sub.table.NextHandle++
		requests = append(requests, &ua.MonitoredItemCreateRequest{
			ItemToMonitor:  &ua.ReadValueID{NodeID: id, AttributeID: ua.AttributeIDValue, DataEncoding: &ua.QualifiedName{}},
			MonitoringMode: ua.MonitoringModeReporting, RequestedParameters: p})
		resolved = append(resolved, n)
	}
	return requests, resolved
}

// filter is the node's deadband as the protocol says it; nil when it has none.
func (r *reader) filter(n Node, p profile) *ua.ExtensionObject {
	kind, value := ua.DeadbandTypeAbsolute, n.Deadband
	if n.DeadbandPercent > 0 {
		kind, value = ua.DeadbandTypePercent, n.DeadbandPercent
	}
	if value > 0 && p.noDeadband {
		r.withoutDeadband(n, "a "+p.name+" has none")
	}
	if value == 0 || r.unfiltered[n.Tag] {
		return nil
	}
	return ua.NewExtensionObject(&ua.DataChangeFilter{Trigger: ua.DataChangeTriggerStatusValue,
		DeadbandType: uint32(kind), DeadbandValue: value})
}

func (r *reader) resolve(n Node, namespaces []string) (*ua.NodeID, error) {
	if reason := r.lost[n.Tag]; reason != "" {
		return nil, errors.New(reason)
	}
	name, ok := r.pins[n.Node]
	if !ok {
		parsed, err := parseNode(n.Node)
		if err != nil {
			return nil, err
		}
		name = parsed.pinned(namespaces)
	}
	id, err := name.resolve(namespaces)
	if err == nil {
		r.pins[n.Node] = name
	}
	return id, err
}

func (r *reader) created(n Node, handle uint32, res *ua.MonitoredItemCreateResult) {
	if quality(res.StatusCode) == signal.Bad {
		r.refuse(n, statusName(res.StatusCode))
		return
	}
	it := &item{seen: time.Now(), tableItem: tableItem{Handle: handle, ID: res.MonitoredItemID, Tag: n.Tag, Node: n.Node,
		URI: r.pins[n.Node].uri, Sampling: *n.Sampling, Queue: n.Queue, Deadband: n.Deadband, Percent: n.DeadbandPercent,
		Granted: res.RevisedQueueSize, Rate: time.Duration(res.RevisedSamplingInterval * float64(time.Millisecond))}}
	if before := r.lasts[n.Tag]; before != nil && before.Node == n.Node {
		it.print, it.half, it.at, it.repeated = before.print, before.half, before.at, true
	}
	delete(r.lasts, n.Tag)
	r.sub.add(it)
	if r.waiting[n.Tag] != nil {
		delete(r.waiting, n.Tag)
		r.problem("node:"+n.Tag, nil)
	}
}

// refuse notes that a node cannot be read now.
func (r *reader) refuse(n Node, reason string) {
	w := r.waiting[n.Tag]
	if w == nil {
		w = &waitingNode{}
		r.waiting[n.Tag] = w
		if len(r.waiting) <= maxNamed {
			r.log.Warn("node cannot be read", "source", r.env.Source, "tag", n.Tag, "node", n.Node, "reason", reason, "so_far", len(r.waiting))
		}
	}
	w.due = time.Now().Add(jitter(r.pace.item, r.pace.itemMax, w.attempts))
	w.attempts++
	r.problem("node:"+n.Tag, &signal.Problem{Code: "bad_node", Item: n.Tag,
		Reason:   fmt.Sprintf("node %q of tag %q cannot be read: %s", n.Node, n.Tag, reason),
		NextStep: "correct the node in the configuration, or bring it back in the server; the agent tries again by itself"})
}

// retryItems tries those refused nodes whose time has come.
func (r *reader) retryItems(ctx context.Context, s session, facts serverFacts, now time.Time) error {
	var due []Node
	for _, n := range r.config.Nodes {
		if w := r.waiting[n.Tag]; w != nil && now.After(w.due) {
			due = append(due, n)
		}
	}
	if len(due) == 0 {
		return nil
	}
	due, err := r.relocate(ctx, s, facts, due)
	if err != nil {
		return err
	}
	before := len(r.sub.list)
	old := map[*item]bool{}
	var ids []uint32
	for _, i := range r.sub.list {
		if w := r.waiting[i.Tag]; i.gone && w != nil && now.After(w.due) {
			old[i] = true
			ids = append(ids, i.ID)
		}
	}
	if len(ids) > 0 {
		if err := s.deleteItems(ctx, r.sub.table.Subscription, ids); connectionFault(err) {
			return fmt.Errorf("remove monitored items: %w", err)
		}
		r.sub.remove(old)
	}
	err = r.monitor(ctx, s, due, facts)
	if len(r.sub.list) != before || len(old) > 0 {
		r.tableChanged()
	}
	return err
}

// checkLimits says where the server grants less than was asked for: it decides how long an outage may last.
func (r *reader) checkLimits(p profile) {
	var short []string
	if n := len(r.config.Nodes); p.items > 0 && n > p.items {
		short = append(short, fmt.Sprintf("%d of %d nodes (a %s bears no more)", p.items, n, p.name))
	}
	if r.session != nil && r.session.RevisedTimeout() < r.config.SessionTimeout {
		short = append(short, fmt.Sprintf("session_timeout %s", r.session.RevisedTimeout()))
	}
	if t := r.sub.table.Lifetime; t < r.config.Lifetime-max(r.config.PublishingInterval, r.sub.table.Publishing) {
		short = append(short, fmt.Sprintf("lifetime %s", t.Round(time.Second)))
	}
	short = append(short, r.shortItems()...)
	if short == nil {
		r.problem("server_limits", nil)
		return
	}
	r.problem("server_limits", &signal.Problem{Code: "server_limits", Item: r.config.Endpoint,
		Reason:   "the server grants less than the configuration asks for: " + strings.Join(short, ", "),
		NextStep: "an outage longer than that may lose values, and so may changes that are faster; raise the server's limits where it can be done"})
}

// shortItems names the smallest queue and the slowest sampling that are worse than was asked for.
func (r *reader) shortItems() (short []string) {
	queue, rate, queueTag, rateTag := uint32(math.MaxUint32), time.Duration(0), "", ""
	for _, i := range r.sub.list {
		if i.Granted < i.Queue && i.Granted < queue {
			queue, queueTag = i.Granted, i.Tag
		}
		// A tenth more is a matter of the server's clock. 0 asks for each change, and any answer is as fast as the server can.
		if i.Sampling > 0 && i.Rate > i.Sampling+i.Sampling/10 && i.Rate > rate {
			rate, rateTag = i.Rate, i.Tag
		}
	}
	if queueTag != "" {
		short = append(short, fmt.Sprintf("queue %d (tag %q)", queue, queueTag))
	}
	if rateTag != "" {
		short = append(short, fmt.Sprintf("sampling %s (tag %q)", rate, rateTag))
	}
	return short
}
