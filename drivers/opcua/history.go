package opcua

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/gopcua/opcua/ua"

	"github.com/linekeeper/linekeeper/agent/signal"
)

const (
	// historyNodes is how many nodes are asked for in one call, historyValues about how many values are in memory at a time.
	historyNodes  = 100
	historyValues = 50_000
	// historyMargin is how far before the gap a history is read: what was stored already is recognised by its time.
	historyMargin = 10 * time.Second
	// historyRead is the bit of a node's access level that says that it has a history one may read.
	historyRead = 4
)

// historian is a server that may keep histories.
type historian interface {
	explainer
	read(ctx context.Context, nodes []*ua.ReadValueID, size int) ([]*ua.DataValue, error)
	// history reads at most limit values of each node from start until end. An answer that has more says so.
	history(ctx context.Context, nodes []*ua.NodeID, start, end time.Time, limit int) ([]historyResult, error)
}

func (l *link) history(ctx context.Context, nodes []*ua.NodeID, start, end time.Time, limit int) ([]historyResult, error) {
	req := &ua.HistoryReadRequest{TimestampsToReturn: ua.TimestampsToReturnBoth, HistoryReadDetails: ua.NewExtensionObject(
		&ua.ReadRawModifiedDetails{StartTime: start, EndTime: end, NumValuesPerNode: uint32(limit)})}
	for _, n := range nodes {
		req.NodesToRead = append(req.NodesToRead, &ua.HistoryReadValueID{NodeID: n, DataEncoding: &ua.QualifiedName{}})
	}
	res, err := call[*late](ctx, l.client, callTimeout, req)
	if err != nil {
		return nil, err
	}
	results, err := decodeHistory(res.body)
	if err != nil {
		return nil, err
	}
	if len(results) != len(nodes) {
		return nil, &badBytes{fmt.Sprintf("%d histories of %d nodes", len(results), len(nodes))}
	}
	return results, l.release(ctx, req, results)
}

// release gives back what the server keeps for going on, which is never used: servers have few such places.
func (l *link) release(ctx context.Context, req *ua.HistoryReadRequest, results []historyResult) error {
	given := &ua.HistoryReadRequest{HistoryReadDetails: req.HistoryReadDetails, TimestampsToReturn: req.TimestampsToReturn,
		ReleaseContinuationPoints: true}
	for i, h := range results {
		if len(h.more) > 0 {
			n := *req.NodesToRead[i]
			n.ContinuationPoint = h.more
			given.NodesToRead = append(given.NodesToRead, &n)
		}
	}
	if len(given.NodesToRead) == 0 {
		return nil
	}
	_, err := call[*late](ctx, l.client, callTimeout, given)
	if connectionFault(err) {
		return err
	}
	return nil // a server that cannot release them does so by itself
}

// filler reads the histories of a gap and stores them in the order of time over all nodes, so that a count and the order that
// it belongs to stay together.
type filler struct {
	*reader
	historian historian
	facts     serverFacts
	tracks    []*track
	asked     int
	values    int
	refused   string
}

// track is one node's way through its history.
type track struct {
	item *item
	node *ua.NodeID
	page []dataValue
	// more is true when the page ends before the history does.
	more bool
}

func (f *filler) words() string {
	switch {
	case f.asked == 0:
		return ""
	case f.values == 0 && len(f.tracks) == 0:
		return "the server keeps no history of these nodes"
	}
	words := fmt.Sprintf("the server's history gave %d values of %d of %d tags", f.values, len(f.tracks), f.asked)
	if f.refused != "" {
		words += " (it refuses others: " + f.refused + ")"
	}
	return words
}

func (f *filler) run(ctx context.Context) error {
	if err := f.find(ctx); err != nil || len(f.tracks) == 0 {
		return err
	}
	now := f.facts.now
	if now.IsZero() {
		now = time.Now()
	}
	// The gap by the server's clock: values carry that one.
	start := f.sub.unfilled.Add(f.skew - historyMargin)
	end := now.Add(time.Hour)
	for len(f.tracks) > 0 {
		cut, err := f.fetch(ctx, start, end)
		if err != nil {
			return err
		}
		if err := f.hand(ctx, cut); err != nil {
			return err
		}
		if cut == math.MaxInt64 {
			return nil
		}
		next := timeOf(cut + 1)
		if !next.After(start) {
			next = start.Add(100 * time.Nanosecond)
		}
		start = next
	}
	return nil
}

func timeOf(clock int64) time.Time { return time.Unix(clock/1e7, clock%1e7*100).UTC() }

// find chooses the nodes that have a history and of which it is known from where on it is news.
func (f *filler) find(ctx context.Context) error {
	var reads []*ua.ReadValueID
	for _, i := range f.sub.list {
		n, ok := f.node(i.Tag)
		if !ok || i.at == 0 {
			continue
		}
		node, err := f.resolve(n, f.facts.namespaces)
		if err != nil {
			continue
		}
		f.tracks = append(f.tracks, &track{item: i, node: node})
		reads = append(reads, &ua.ReadValueID{NodeID: node, AttributeID: ua.AttributeIDUserAccessLevel, DataEncoding: &ua.QualifiedName{}})
	}
	f.asked = len(f.tracks)
	if f.asked == 0 {
		return nil
	}
	levels, err := f.historian.read(ctx, reads, f.facts.readsPerCall)
	if connectionFault(err) {
		return err
	}
	kept := f.tracks[:0]
	for k, t := range f.tracks {
		if err == nil {
			if level, ok := content(levels[k]).(byte); ok && level&historyRead != 0 {
				kept = append(kept, t)
			}
		}
	}
	f.tracks = kept
	return nil
}

// fetch reads a page of each history, and returns up to which time all of them are known.
func (f *filler) fetch(ctx context.Context, start, end time.Time) (cut int64, err error) {
	limit := max(100, historyValues/len(f.tracks))
	cut = math.MaxInt64
	size := historyNodes
	kept := f.tracks[:0:0]
	for rest := f.tracks; len(rest) > 0; {
		n := min(size, len(rest))
		nodes := make([]*ua.NodeID, n)
		for i, t := range rest[:n] {
			nodes[i] = t.node
		}
		results, err := f.historian.history(ctx, nodes, start, end, limit)
		if tooMuch(err) && n > 1 {
			size = max(1, n/2)
			continue
		}
		if connectionFault(err) {
			return 0, err
		}
		for i, t := range rest[:n] {
			if err != nil || quality(results[i].status) == signal.Bad {
				f.refuse(err, results, i)
				continue
			}
			t.take(results[i])
			if t.more {
				cut = min(cut, t.page[len(t.page)-1].clock())
			}
			kept = append(kept, t)
		}
		rest = rest[n:]
	}
	f.tracks = kept
	return cut, nil
}

func (f *filler) refuse(err error, results []historyResult, i int) {
	if f.refused != "" {
		return
	}
	var status ua.StatusCode
	switch {
	case err == nil:
		f.refused = statusName(results[i].status)
	case errors.As(err, &status):
		f.refused = statusName(status)
	default:
		f.refused = err.Error()
	}
}

func (t *track) take(h historyResult) {
	t.page, t.more = h.values, len(h.more) > 0 && len(h.values) > 0
	for i := range t.page {
		// Bits about how the historian came by the value are not the value's own.
		t.page[i].status = ua.StatusCode(uint32(t.page[i].status) & nameMask)
	}
}

// hand stores what is known of all histories: the values up to cut.
func (f *filler) hand(ctx context.Context, cut int64) error {
	type told struct {
		item  *item
		value *dataValue
		at    int64
	}
	var list []told
	for _, t := range f.tracks {
		for i := range t.page {
			v := &t.page[i]
			if at := v.clock(); at > t.item.at && at <= cut && !t.item.last(v.print) {
				list = append(list, told{t.item, v, at})
			}
		}
	}
	slices.SortStableFunc(list, func(a, b told) int { return cmp.Compare(a.at, b.at) })
	now := time.Now()
	// The subscription may tell once more what came to be while the history was read.
	again := now.Add(-time.Minute).Unix() * 1e7
	if !f.facts.now.IsZero() {
		again = f.facts.now.Add(-time.Minute).Unix() * 1e7
	}
	for len(list) > 0 {
		n := min(len(list), maxNotifications)
		signals := make([]signal.Signal, 0, n)
		for _, v := range list[:n] {
			if v.value.structures {
				if err := f.explainValue(ctx, f.historian, v.item.Tag, v.value); err != nil {
					return err
				}
			}
			s := signal.Signal{Tag: v.item.Tag, ReceivedTime: now}
			fill(&s, v.value)
			s.Status += " (history)"
			signals = append(signals, s)
			v.item.print, v.item.half, v.item.at = v.value.print, false, v.at
			if v.at >= again {
				if v.item.told == nil {
					v.item.told = map[uint64]bool{}
				}
				v.item.told[v.value.print] = true
			}
		}
		if err := f.handAndWait(ctx, signals); err != nil {
			return err
		}
		f.values += n
		list = list[n:]
	}
	return nil
}
