package translate

import (
	"sort"
	"strings"
	"time"

	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

const (
	// keepOver is how long an order that is over, and its lines of the ledger, are remembered; keepIdle is that for an order
	// of which nothing was heard.
	keepOver = 7 * 24 * time.Hour
	keepIdle = 90 * 24 * time.Hour
)

// Ledger returns what was counted at each source and what of it is stored in facts, per order, operation, item, kind and
// unit. The difference is what no confirmation has closed yet.
func (t *Translator) Ledger(st State) []*pb.LedgerRow {
	var out []*pb.LedgerRow
	st.EachState(prefixLedger, func(key string, v []byte) {
		k, ok := parseRowKey(key)
		r, err := decodeRow(v)
		if !ok || err != nil {
			return // not ours: book would have refused to write it
		}
		out = append(out, &pb.LedgerRow{
			Source: k.source, OrderNo: k.order, Operation: k.operation, Item: k.item, Kind: k.kind, Unit: k.unit,
			Counted: string(r.counted.append(nil)), Stored: string(r.stored.append(nil)),
		})
	})
	sort.Slice(out, func(i, j int) bool { return rowText(out[i]) < rowText(out[j]) })
	return out
}

func rowText(r *pb.LedgerRow) string {
	return strings.Join([]string{r.Source, r.OrderNo, r.Operation, r.Item, r.Kind, r.Unit}, sep)
}

// prune forgets, at most once an hour, orders that are over or idle for long, their lines of the ledger, and exceptions
// that nobody repeats.
func (w *work) prune() {
	last := readTimeState(w.st, keyPruned)
	if w.now.Sub(last) < time.Hour && !w.now.Before(last) {
		return
	}
	writeTimeState(w.st, keyPruned, w.now)
	if gap := w.now.Sub(last); !last.IsZero() && gap > keepOver {
		w.rested(gap)
		return
	}
	for _, key := range keysUnder(w.st, prefixLedger) {
		w.pruneRow(prefixLedger + key)
	}
	for _, no := range keysUnder(w.st, prefixOrder) {
		o := w.order(no)
		if age := w.now.Sub(o.v.Touched); !o.dirty && (age > keepIdle || age > keepOver && o.v.over()) {
			w.st.SetState(prefixOrder+no, nil)
		}
	}
	for _, key := range keysUnder(w.st, prefixMerge) {
		if m := w.merges.get(w.st, key); !m.dirty && m.v.N == 0 && w.now.Sub(m.v.At) > keepOver {
			w.st.SetState(prefixMerge+key, nil)
		}
	}
}

// rested takes a time in which nobody looked, because the agent was off or the clock was set ahead, out of the age of what is
// remembered: otherwise a wrong clock would make the ledger forget orders that run.
func (w *work) rested(gap time.Duration) {
	for _, key := range keysUnder(w.st, prefixLedger) {
		r, err := decodeRow(w.st.State(prefixLedger + key))
		if _, ok := parseRowKey(prefixLedger + key); ok && err == nil && w.rows[prefixLedger+key] == nil {
			r.day += int64(gap / (24 * time.Hour))
			w.st.SetState(prefixLedger+key, r.append(nil))
		}
	}
	for _, no := range keysUnder(w.st, prefixOrder) {
		o := w.order(no)
		o.v.Touched, o.dirty = o.v.Touched.Add(gap), true
	}
}

func (w *work) pruneRow(key string) {
	k, ok := parseRowKey(key)
	if _, used := w.rows[key]; used || !ok {
		return
	}
	r, err := decodeRow(w.st.State(key))
	if err != nil || !r.counted.equal(r.stored.plus(r.rest)) {
		return
	}
	age := w.now.Sub(time.Unix((r.day+1)*86400, 0)) // from the end of that day
	if age > keepIdle || age > keepOver && w.order(k.order).v.over() {
		w.st.SetState(key, nil)
	}
}
