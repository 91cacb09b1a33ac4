package checking

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// Trade is what is needed of who writes business objects.
type Trade interface {
	// Searchable reports whether what was written to a system can be looked for by key.
	Searchable(erp string) bool
	// Find returns what carries a write's key, or has a reference. An error: nothing is known.
	Find(ctx context.Context, erp string, kind object.BusinessKind, reference string) ([]object.Business, error)
	// Get returns an object by its number or technical key, nil when the system does not have it.
	Get(ctx context.Context, erp string, kind object.BusinessKind, number string) (*object.Business, error)
	// Renew writes anew what was verified and is gone, after one more look-up by its key.
	Renew(ctx context.Context, key factkey.Key, reason, by string) error
}

// writeCounts says what a round over writes came to.
type writeCounts struct{ compared, found, begun, unasked int64 }

// mostUnheard is how many writes of one system in a row cannot be read back before the rest waits for the next round.
const mostUnheard = 3

// Writes reads back the writes of business objects that were verified in the window, and those of live discrepancies, and compares
// them. What cannot be asked is left as it is.
func (c *Checker) Writes(ctx context.Context) error {
	_, err := c.writes(ctx)
	return err
}

func (c *Checker) writes(ctx context.Context) (n writeCounts, err error) {
	if c.o.Trade == nil {
		return n, nil
	}
	c.trade.Lock()
	defer c.trade.Unlock()
	lanes, err := c.o.Store.VerifiedLanes(ctx, c.o.Now().Add(-c.o.WritesWindow), c.o.Now().Add(-c.o.Policy.Settle))
	if err != nil {
		return n, err
	}
	live, err := c.liveWrites(ctx)
	if err != nil {
		return n, err
	}
	for l := range live {
		lanes = append(lanes, l)
	}
	return c.threads(ctx, lanes, live)
}

// writesAgain compares the threads again in which something is being brought forward: it is seen to have come, and what waited for
// it goes on.
func (c *Checker) writesAgain(ctx context.Context) error {
	if c.o.Trade == nil {
		return nil
	}
	c.trade.Lock()
	defer c.trade.Unlock()
	live, err := c.liveWrites(ctx)
	if err != nil {
		return err
	}
	var lanes []store.WriteLane
	for l, subjects := range live {
		for _, d := range subjects {
			if d.State == reconcile.Healing && c.o.Now().Sub(d.LastSeen) >= c.o.Every {
				lanes = append(lanes, l)
				break
			}
		}
	}
	_, err = c.threads(ctx, lanes, live)
	return err
}

// liveWrites are the live discrepancies about writes, by lane and subject.
func (c *Checker) liveWrites(ctx context.Context) (map[store.WriteLane]map[string]reconcile.Discrepancy, error) {
	all, err := c.o.Store.WriteDiscrepancies(ctx)
	if err != nil {
		return nil, err
	}
	out := map[store.WriteLane]map[string]reconcile.Discrepancy{}
	for _, d := range all {
		w, err := c.o.Store.WriteByKey(ctx, d.Proposed.Write)
		if err != nil {
			return nil, fmt.Errorf("discrepancy %d: %w", d.ID, err)
		}
		l := store.WriteLane{ERP: w.ERP, Lane: w.Lane}
		if out[l] == nil {
			out[l] = map[string]reconcile.Discrepancy{}
		}
		out[l][d.Subject] = d
	}
	return out, nil
}

func (c *Checker) threads(ctx context.Context, lanes []store.WriteLane, live map[store.WriteLane]map[string]reconcile.Discrepancy) (n writeCounts, err error) {
	unheard := map[string]int{}
	var begun []brought
	done := map[store.WriteLane]bool{}
	for _, l := range lanes {
		if done[l] || !c.o.Trade.Searchable(l.ERP) {
			continue
		}
		done[l] = true
		x := thread{c: c, lane: l, live: live[l], held: map[factkey.Key][]object.Business{}, unheard: unheard}
		if err := x.compare(ctx); err != nil {
			return n, fmt.Errorf("writes of lane %q of %q: %w", l.Lane, l.ERP, err)
		}
		n.compared, n.found, n.unasked = n.compared+x.n.compared, n.found+x.n.found, n.unasked+x.n.unasked
		begun = append(begun, x.begun...)
	}
	if n.begun, err = c.bringForward(ctx, begun, unheard); err != nil {
		return n, err
	}
	for erp, times := range unheard {
		if times > 0 {
			c.o.Logger.Warn("writes of business objects could not be read back, and nothing of them is called missing; they are again", "erp", erp, "unasked", n.unasked)
		}
	}
	return n, ctx.Err()
}

// brought is a write that is brought forward.
type brought struct {
	id     int64
	key    string
	lane   store.WriteLane
	change reconcile.Change
}

// bringForward writes anew what is gone, one after the other in the order in which it was wanted, and what waited for that in its place:
// so the system is the likeliest to give each the number that it had.
func (c *Checker) bringForward(ctx context.Context, queue []brought, unheard map[string]int) (n int64, err error) {
	for len(queue) > 0 && ctx.Err() == nil {
		slices.SortStableFunc(queue, func(a, b brought) int { return cmp.Compare(a.id, b.id) })
		next := queue[0]
		queue = queue[1:]
		n++
		c.heal(ctx, next.change)
		if err := c.verifiedAgain(ctx, next); err != nil {
			return n, err
		}
		x := thread{c: c, lane: next.lane, live: map[string]reconcile.Discrepancy{}, held: map[factkey.Key][]object.Business{}, unheard: unheard}
		if err := x.compare(ctx); err != nil {
			return n, fmt.Errorf("writes of lane %q of %q: %w", next.lane.Lane, next.lane.ERP, err)
		}
		queue = append(queue, x.begun...)
	}
	return n, nil
}

// longestWait is how long the next write waits for the one before it to be verified again. It only costs a number.
const longestWait = 30 * time.Second

func (c *Checker) verifiedAgain(ctx context.Context, x brought) error {
	changed, end := c.o.Store.Watch(store.TopicWrites)
	defer end()
	limit := time.NewTimer(longestWait)
	defer limit.Stop()
	for {
		w, err := c.o.Store.WriteByKey(ctx, x.key)
		if err != nil || w.State == store.PostingVerified || w.State == store.PostingParked || w.State == store.PostingSettled {
			return err
		}
		select {
		case <-changed:
		case <-limit.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// thread is one lane while it is compared.
type thread struct {
	c    *Checker
	lane store.WriteLane
	live map[string]reconcile.Discrepancy
	all  []store.Write
	held map[factkey.Key][]object.Business // what carries a key, as far as it was asked
	// unheard counts the questions of each system that failed in a row.
	unheard map[string]int
	n       writeCounts
	begun   []brought
}

func (x *thread) compare(ctx context.Context) (err error) {
	if x.all, err = x.c.o.Store.Thread(ctx, x.lane); err != nil {
		return err
	}
	var compared []store.CheckedWrite
	for _, w := range x.all {
		if w.State == store.PostingSettled && x.known(w) { // a person has decided
			compared = append(compared, store.CheckedWrite{Write: w})
		}
		if !x.due(w) {
			continue
		}
		if x.unheard[x.lane.ERP] >= mostUnheard {
			x.n.unasked++
			continue
		}
		side, err := x.read(ctx, w)
		var broken *unheard
		switch {
		case errors.As(err, &broken):
			if ctx.Err() != nil {
				return ctx.Err()
			}
			x.unheard[x.lane.ERP]++
			x.n.unasked++
			x.c.o.Logger.Debug("a write could not be read back", "erp", w.ERP, "write", w.Key.String(), "error", err)
			continue
		case err != nil:
			return err
		}
		x.unheard[x.lane.ERP] = 0
		x.n.compared++
		f := reconcile.CheckWrite(side, x.c.o.Policy)
		if f != nil {
			x.n.found++
		}
		compared = append(compared, store.CheckedWrite{Write: w, Found: f})
	}
	return x.merge(ctx, compared)
}

func (x *thread) merge(ctx context.Context, compared []store.CheckedWrite) error {
	news := false
	for _, w := range compared {
		news = news || w.Found != nil || w.Code != "" || x.known(w.Write)
	}
	if !news { // as of most threads: that needs no writer
		return nil
	}
	changes, err := x.c.o.Store.MergeWrites(ctx, compared, x.c.o.Policy)
	if err != nil {
		return err
	}
	for _, change := range changes {
		for _, w := range compared {
			if change.Begin && change.Proposed.Write == w.Key.String() {
				x.begun = append(x.begun, brought{w.ID, w.Key.String(), x.lane, change})
			}
		}
	}
	return nil
}

func (x *thread) known(w store.Write) bool {
	_, ok := x.live[reconcile.WriteSubject(w.Key.String())]
	return ok
}

// due reports that a write is to be compared: it was verified long enough ago, and in the window, unless something is known of it.
func (x *thread) due(w store.Write) bool {
	age := x.c.o.Now().Sub(w.Since)
	return w.State == store.PostingVerified && age >= x.c.o.Policy.Settle && (age <= x.c.o.WritesWindow || x.known(w))
}

// unheard says that a system was not asked, or did not answer.
type unheard struct{ error }

func (e *unheard) Unwrap() error { return e.error }

// carrying asks what carries a write's key, once in a round.
func (x *thread) carrying(ctx context.Context, w store.Write) ([]object.Business, error) {
	if found, ok := x.held[w.Key]; ok {
		return found, nil
	}
	found, err := x.c.o.Trade.Find(ctx, w.ERP, w.Want.Kind, w.Key.String())
	if err != nil {
		return nil, &unheard{err}
	}
	x.held[w.Key] = found
	return found, nil
}

// read gathers what is known of a write. Of one that is there that is one question.
func (x *thread) read(ctx context.Context, w store.Write) (side reconcile.Write, err error) {
	side = reconcile.Write{Key: w.Key.String(), ERP: w.ERP, Want: w.Want, Document: cmp.Or(w.Document, w.DocumentID), VerifiedAt: w.Since, Cancelled: x.cancelled(w)}
	if side.Cancelled {
		return side, nil
	}
	if side.Held, err = x.carrying(ctx, w); err != nil {
		return side, err
	}
	if side.Former, err = x.c.o.Store.FormerDocument(ctx, w.ID); err != nil {
		return side, err
	}
	if len(side.Held) > 0 {
		return side, nil
	}
	if err := x.names(ctx, w, &side); err != nil {
		return side, err
	}
	return side, x.others(ctx, w, &side)
}

// cancelled reports that a later write took the object of a write back, or is about to.
func (x *thread) cancelled(w store.Write) bool {
	for _, later := range x.all {
		if later.ID <= w.ID || !later.Want.Withdrawn() || later.State == store.PostingParked || later.State == store.PostingSettled && later.Document == "" {
			continue
		}
		n := later.Want.Names()
		same := later.Object != "" && later.Object == w.Object
		if made := w.Document != "" && w.Document == n.Number || w.DocumentID != "" && w.DocumentID == n.ERPKey; later.Want.Kind == w.Want.Kind && (same || made) {
			return true
		}
	}
	return false
}

// names finds out of what a write names whether that is what it was.
func (x *thread) names(ctx context.Context, w store.Write, side *reconcile.Write) error {
	n := w.Want.Names()
	own := cmp.Or(n.ERPKey, n.Number)
	all := w.Want.Links()
	if own != "" {
		all = append([]object.Link{{Kind: w.Want.Kind, Number: own}}, all...)
	}
	for _, l := range all {
		named := reconcile.NamedObject{Kind: l.Kind, Number: l.Number}
		var it *object.Business
		maker, err := x.c.o.Store.Maker(ctx, w.ERP, l.Kind, l.Number, w.MadeAt)
		switch {
		case errors.Is(err, store.ErrNotFound):
			if own != "" && l.Kind == w.Want.Kind && l.Number == own {
				if it, err = x.c.o.Trade.Get(ctx, w.ERP, l.Kind, l.Number); err != nil {
					return &unheard{err}
				}
			}
		case err != nil:
			return err
		default:
			if it, err = x.made(ctx, maker, &named); err != nil {
				return err
			}
		}
		if l.Kind == w.Want.Kind && l.Number == own {
			side.Object = it
		}
		side.Names = append(side.Names, named)
	}
	return nil
}

// made finds the object that a write made, by that write's key: what has its number now may be another one.
func (x *thread) made(ctx context.Context, maker store.Write, named *reconcile.NamedObject) (*object.Business, error) {
	named.By = maker.Key.String()
	if maker.State != store.PostingVerified && maker.State != store.PostingSettled {
		return nil, nil // it is being brought forward
	}
	held, err := x.carrying(ctx, maker)
	if err != nil {
		return nil, err
	}
	for i, b := range held {
		switch n := b.Names(); {
		case named.Number == n.Number || named.Number == n.ERPKey:
			named.There = true
			return &held[i], nil
		case n.ERPKey == maker.DocumentID || n.Number == maker.Document:
			named.Now = cmp.Or(n.Number, n.ERPKey)
		}
	}
	return nil, nil
}

// others looks for what somebody may have entered again by hand in place of a write that made an object and is gone.
func (x *thread) others(ctx context.Context, w store.Write, side *reconcile.Write) error {
	n := w.Want.Names()
	if n.Reference == "" || n.Number != "" || n.ERPKey != "" {
		return nil
	}
	found, err := x.c.o.Trade.Find(ctx, w.ERP, w.Want.Kind, n.Reference)
	if err != nil {
		return &unheard{err}
	}
	for _, b := range found {
		other := b.Names()
		if partner := w.Want.Partner(); partner == "" || partner == b.Partner() {
			side.Others = append(side.Others, cmp.Or(other.Number, other.ERPKey))
		}
	}
	return nil
}

// runWrites compares writes until ctx ends. What fails is logged and done again.
func (c *Checker) runWrites(ctx context.Context) {
	tick := time.NewTicker(c.o.Every)
	defer tick.Stop()
	next := c.o.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		do := c.writesAgain
		if now := c.o.Now(); !now.Before(next) || next.Sub(now) > c.o.WritesEvery { // or the clock was set back
			next = now.Add(c.o.WritesEvery)
			do = c.Writes
		}
		if err := do(ctx); err != nil && ctx.Err() == nil {
			c.o.Logger.Warn("writes of business objects could not be compared; they are again", "error", err)
		}
	}
}
