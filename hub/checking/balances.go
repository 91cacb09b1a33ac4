package checking

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/store"
)

// Watch is a stock whose balance is compared. Only orders may move it: any other movement, a goods receipt or a count for instance, is a
// drift that a person sees.
type Watch struct {
	Plant string // whose the discrepancies are; may be empty
	store.StockPlace
}

// Watchable says why the balances of a system cannot be compared; nil when they can.
func Watchable(c connector.Connector) error {
	_, lots := c.(connector.LotStockReader)
	_, items := c.(connector.StockReader)
	if !lots && !items {
		return errors.New("it cannot tell its stock")
	}
	if _, ok := c.(connector.EffectReader); !ok {
		return errors.New("it cannot list the documents that have moved it")
	}
	return nil
}

const (
	// readings is how often a stock is read in one round until it stands still.
	readings = 3
	// nearOpening is how near to the taking of an opening a document may be booked, by the outside system's clock, that nobody can say
	// on which side of it it belongs.
	nearOpening = 2 * time.Minute
)

// Balances compares the stocks that are watched: what was held once and what the orders' documents have moved since must be what is held
// now. Whatever does not stand still while it is read, and what is off for the first time, is read again in the next round. later says
// that something is.
func (c *Checker) Balances(ctx context.Context) (later bool, err error) {
	c.stocks.Lock()
	defer c.stocks.Unlock()
	var errs []error
	for _, erp := range c.watchedSystems() {
		again, err := c.balancesOf(ctx, erp)
		if err != nil && ctx.Err() == nil {
			errs = append(errs, fmt.Errorf("stock of system %q: %w", erp, err))
		}
		later = later || again
	}
	return later, errors.Join(errs...)
}

func (c *Checker) watchedSystems() (all []string) {
	for _, w := range c.o.Watches {
		if !slices.Contains(all, w.ERP) {
			all = append(all, w.ERP)
		}
	}
	return all
}

// stockRound is what was read of the watched stocks of one system.
type stockRound struct {
	erp     string
	watches []Watch
	whole   bool // also orders that nothing is known to have changed of
	held    []object.Balance
	seen    [][]object.Balance // what held is the sum of
	moving  []bool             // not the same before and after the orders were read
	bad     []error
	untold  map[string]error // by item: an order that cannot be read may have moved it
	asOf    time.Time
	// gone are facts whose document is not there any more, receipts those that will come into the books; busy says that something may
	// be happening right now.
	gone, receipts []stockFact
	busy           bool
}

// stockFact is a fact and what it does to a stock.
type stockFact struct {
	key, orderNo string
	moves        []store.StockMove
	more         bool // the system may take material by itself with it
}

// on is what a fact does to a place.
func (f *stockFact) on(p store.StockPlace) (sum decimal.Decimal) {
	for _, m := range f.moves {
		if m.Of(p) {
			sum = sum.Add(m.Moved)
		}
	}
	return sum
}

func (c *Checker) balancesOf(ctx context.Context, erp string) (later bool, err error) {
	r := &stockRound{erp: erp}
	for _, w := range c.o.Watches {
		if w.ERP == erp {
			r.watches = append(r.watches, w)
		}
	}
	if err := c.readCalm(ctx, r); err != nil {
		return true, err
	}
	if off, err := c.anyOff(ctx, r); err != nil || off {
		// Before that is believed all orders are read: documents may have gone of one that is long done.
		if r.whole = true; err == nil {
			err = c.readCalm(ctx, r)
		}
		if err != nil {
			return true, err
		}
	}
	if len(r.gone) > 1 || slices.ContainsFunc(r.gone, func(f stockFact) bool { return !r.plain(&f) }) {
		// That is no single movement, or none that is known to the last digit: the orders are compared, and what is missing is
		// healed as that.
		for _, f := range r.gone {
			if _, err := c.order(ctx, "", f.orderNo, nil); err != nil {
				return true, err
			}
		}
		return true, nil
	}
	if r.busy {
		return true, nil
	}
	var errs []error
	for i := range r.watches {
		again := r.moving[i]
		if !again {
			if again, err = c.judgeStock(ctx, r, i); err != nil {
				errs = append(errs, err) // of that stock only
			}
		}
		later = later || again
	}
	return later, errors.Join(errs...)
}

// readCalm reads until nothing moves meanwhile, or often enough.
func (c *Checker) readCalm(ctx context.Context, r *stockRound) error {
	for range readings {
		before, err := c.held(ctx, r)
		if err != nil {
			return err
		}
		if err := c.readOrders(ctx, r); err != nil {
			return err
		}
		if r.held, err = c.held(ctx, r); err != nil {
			return err
		}
		r.moving, r.asOf = make([]bool, len(r.watches)), c.o.Now()
		for i, b := range r.held {
			r.moving[i] = !b.OnHand.Value.Equal(before[i].OnHand.Value)
		}
		if !r.busy && !slices.Contains(r.moving, true) {
			break
		}
	}
	return nil
}

// held is what the system holds at each watched place; what it does not name there is zero.
func (c *Checker) held(ctx context.Context, r *stockRound) ([]object.Balance, error) {
	var items []string
	for _, w := range r.watches {
		if !slices.Contains(items, w.Item) {
			items = append(items, w.Item)
		}
	}
	var all []object.Balance
	var err error
	switch x := c.o.Connectors[r.erp].(type) {
	case connector.LotStockReader:
		all, err = x.Balances(ctx, items)
	case connector.StockReader:
		all, err = x.Inventory(ctx, items)
	default:
		err = errors.New("it cannot tell its stock")
	}
	if err != nil {
		return nil, err
	}
	out := make([]object.Balance, len(r.watches))
	r.bad, r.seen = make([]error, len(r.watches)), make([][]object.Balance, len(r.watches))
	for i, w := range r.watches {
		for _, x := range all {
			if !w.holds(x) {
				continue
			}
			q := &out[i].OnHand
			switch {
			case x.CannotTell != "":
				r.bad[i] = fmt.Errorf("what is held of item %q cannot be told: %s", w.Item, x.CannotTell)
				continue
			case q.Unit != "" && q.Unit != x.OnHand.Unit:
				r.bad[i] = fmt.Errorf("item %q is held in %s and in %s: watch each by its storage", w.Item, q.Unit, x.OnHand.Unit)
			}
			q.Value, q.Unit = q.Value.Add(x.OnHand.Value), x.OnHand.Unit
			if !x.OnHand.Value.IsZero() {
				r.seen[i] = append(r.seen[i], x)
			}
		}
	}
	return out, nil
}

// holds reports that a balance is one of the watched stock. One that cannot be told, and does not say where, is one of every place.
func (w Watch) holds(b object.Balance) bool {
	of := func(want, have string) bool { return want == "" || want == have || have == "" && b.CannotTell != "" }
	return b.Item == w.Item && of(w.Site, b.Site) && of(w.Storage, b.Location) && of(w.Lot, b.Lot)
}

// plain reports that what a fact moves is known as the system would book it: in the unit in which it holds the item, at a place that
// need not be told, and without what the system takes by itself.
func (r *stockRound) plain(f *stockFact) bool {
	for i, w := range r.watches {
		for _, m := range f.moves {
			if m.Of(w.StockPlace) && (w.Storage != "" || m.Unit != r.held[i].OnHand.Unit) {
				return false
			}
		}
	}
	return !f.more
}

// readOrders reads the orders that may have moved a watched stock since they were read last: those whose postings took a step, and the
// open ones that need or make the item, on which others may post.
func (c *Checker) readOrders(ctx context.Context, r *stockRound) error {
	stored, err := c.o.Store.StockStep(ctx, r.erp)
	if err != nil {
		return err
	}
	orders := maps.Clone(c.unread[r.erp])
	if orders == nil {
		orders = map[string]bool{}
	}
	last := max(stored, c.steps[r.erp])
	for {
		changed, until, err := c.o.Store.OrdersChanged(ctx, last, c.o.Now(), stepsAtOnce)
		if err != nil {
			return err
		}
		for _, no := range changed {
			orders[no] = true
		}
		if until == last {
			break
		}
		last = until
	}
	if err := c.openOrders(ctx, r, orders); err != nil {
		return err
	}
	r.gone, r.receipts, r.busy, r.untold = nil, nil, false, map[string]error{}
	unread := map[string]bool{}
	for _, no := range slices.Sorted(maps.Keys(orders)) {
		read, err := c.takeOrder(ctx, r, no)
		if err != nil {
			return fmt.Errorf("order %q: %w", no, err)
		}
		if !read {
			unread[no] = true
		}
	}
	c.steps[r.erp], c.unread[r.erp] = last, unread
	if last == stored || len(unread) > 0 {
		return nil
	}
	return c.o.Store.SetStockStep(ctx, r.erp, last)
}

// openOrders adds the orders that may be moved without a posting of ours.
func (c *Checker) openOrders(ctx context.Context, r *stockRound, orders map[string]bool) error {
	for _, w := range r.watches {
		if !r.whole {
			break
		}
		all, err := c.o.Store.OrdersMoved(ctx, r.erp, w.Item)
		if err != nil {
			return err
		}
		for _, no := range all {
			orders[no] = true
		}
	}
	for _, state := range []object.OrderState{object.OrderReleased, object.OrderInProgress, object.OrderHeld, object.OrderCompleted} {
		for page := (store.Page{Limit: ordersAtOnce}); ; {
			all, err := c.o.Store.Orders(ctx, store.OrderFilter{ERP: r.erp, State: string(state)}, page)
			if err != nil {
				return err
			}
			for _, o := range all {
				page.Before = o.ID
				if r.concerns(o.Order) {
					orders[o.Order.OrderNo] = true
				}
			}
			if len(all) < ordersAtOnce {
				break
			}
		}
	}
	return nil
}

// concerns reports that an order makes or needs a watched item.
func (r *stockRound) concerns(o object.WorkOrder) bool {
	return slices.ContainsFunc(r.watches, func(w Watch) bool {
		return w.Item == o.Item || slices.ContainsFunc(o.Components, func(m object.Component) bool { return m.Item == w.Item })
	})
}

// takeOrder reads an order's documents and what they have moved. Of one that the system cannot list now nobody can say what it has moved
// since it was read last; one that the system does not have any more, and that is done, keeps that.
func (c *Checker) takeOrder(ctx context.Context, r *stockRound, no string) (read bool, err error) {
	all, err := Read(ctx, c.o.Store, c.o.Connectors, c.o.Now, "", no)
	if err != nil {
		return false, err
	}
	all = slices.DeleteFunc(all, func(o reconcile.Order) bool { return o.ERP != r.erp })
	if len(all) == 0 { // only others post on it
		if _, err := c.o.Store.Order(ctx, r.erp, no); err != nil {
			return true, ignoreUnknown(err)
		}
		o := reconcile.Order{Now: c.o.Now(), ERP: r.erp, OrderNo: no}
		if err := ask(ctx, c.o.Store, c.o.Connectors[r.erp], &o); err != nil {
			return false, err
		}
		all = append(all, o)
	}
	for i := range all { // of several plants: the documents are the same ones
		if err := c.takeFacts(ctx, r, &all[i]); err != nil {
			return false, err
		}
	}
	o := all[0]
	if !o.Asked {
		return c.untold(ctx, r, all)
	}
	site := ""
	if o.Work != nil {
		site = o.Work.Site
	}
	return true, c.o.Store.PutStockMoves(ctx, r.erp, no, r.moves(o.Effects, site), func(p store.StockPlace, t time.Time) (decimal.Decimal, bool) {
		return movedBefore(o.Effects, site, p, t)
	})
}

// untold notes which stocks cannot be told because of an order that was not read, in all plants of it; true when there is none. An order
// that the system does not have has moved nothing, or is done and keeps what was read last; one that is open was lost with what it moved.
func (c *Checker) untold(ctx context.Context, r *stockRound, all []reconcile.Order) (bool, error) {
	read, o := true, all[0]
	for _, w := range r.watches {
		moved, err := c.o.Store.OrdersMoved(ctx, r.erp, w.Item)
		if err != nil {
			return false, err
		}
		has := slices.Contains(moved, o.OrderNo)
		if o.Lost && (!has || o.Work == nil || o.Work.State.Over()) || !has && !mayMove(all, w.Item) {
			continue
		}
		read = false
		if r.untold[w.Item] == nil {
			r.untold[w.Item] = fmt.Errorf("what order %q has moved of item %q cannot be told: %s", o.OrderNo, w.Item, cmp.Or(o.Unasked, "the system does not list documents"))
		}
	}
	return read, nil
}

// mayMove reports that an order makes or needs an item, or that a fact of it does, or that nobody knows.
func mayMove(all []reconcile.Order, item string) bool {
	return slices.ContainsFunc(all, func(o reconcile.Order) bool {
		return o.Work == nil || o.Work.Item == item || slices.ContainsFunc(o.Work.Components, func(m object.Component) bool { return m.Item == item }) ||
			slices.ContainsFunc(o.Facts, func(f reconcile.Fact) bool {
				return slices.ContainsFunc(f.Lines(), func(l object.FactLine) bool { return l.Item == item })
			})
	})
}

func ignoreUnknown(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// takeFacts looks for what the order's facts say of stocks beside its documents.
func (c *Checker) takeFacts(ctx context.Context, r *stockRound, o *reconcile.Order) error {
	for i := range o.Facts {
		f := &o.Facts[i]
		switch store.PostingState(f.State) {
		case "", store.PostingSending, store.PostingInDoubt:
			r.busy = r.busy || o.Work == nil || r.concerns(*o.Work)
		case store.PostingPosted:
			listed := slices.ContainsFunc(o.Effects, func(e object.Effect) bool { return e.Key == f.Key.String() || e.Number == f.Document })
			r.busy = r.busy || !listed && (o.Work == nil || r.concerns(*o.Work)) // it may be in one of the two lists already
		case store.PostingDue, store.PostingParked:
			if x := movesOfFact(o, f); slices.ContainsFunc(x.moves, func(m store.StockMove) bool { return m.Moved.IsPositive() }) {
				r.receipts = append(r.receipts, x)
			}
		}
	}
	if !o.Asked {
		return nil
	}
	for _, found := range reconcile.CheckOrder(*o, c.o.Policy) {
		if found.Type != reconcile.Missing || !found.Heal || found.Proposed.Kind != reconcile.LookUpAndSend {
			continue
		}
		known, err := c.o.Store.Discrepancies(ctx, store.DiscrepancyFilter{OrderNo: o.OrderNo, Type: string(reconcile.Missing)}, store.Page{})
		if err != nil {
			return err
		}
		if slices.ContainsFunc(known, func(d reconcile.Discrepancy) bool {
			return d.Subject == found.Subject && (d.State.Live() || d.State == reconcile.Accepted)
		}) {
			continue // it is dealt with already, and in neither side of the balance
		}
		for i := range o.Facts {
			if o.Facts[i].Key.String() == found.Proposed.Fact {
				gone := movesOfFact(o, &o.Facts[i])
				gone.more = o.Facts[i].Kind == object.KindConfirmation && c.o.Connectors[r.erp].Capabilities().Backflush == connector.BackflushMarked
				r.gone = append(r.gone, gone)
			}
		}
	}
	return nil
}

// moves sums what documents have moved of the watched items.
func (r *stockRound) moves(all []object.Effect, site string) (out []store.StockMove) {
	for i := range all {
		for _, m := range movesOf(&all[i], site) {
			if !slices.ContainsFunc(r.watches, func(w Watch) bool { return w.Item == m.Item }) {
				continue
			}
			i := slices.IndexFunc(out, func(x store.StockMove) bool { x.Moved = m.Moved; return x == m })
			if i < 0 {
				out = append(out, m)
				continue
			}
			out[i].Moved = out[i].Moved.Add(m.Moved)
		}
	}
	return out
}

func movesOf(e *object.Effect, site string) (out []store.StockMove) {
	for _, m := range e.StockMoves(site) {
		out = append(out, store.StockMove{Item: m.Item, Lot: m.Lot, Unit: m.Unit, Site: m.Site, Storage: m.Location, Moved: m.Value})
	}
	return out
}

// movedBefore is what documents had moved at a place when its opening was taken; false when nobody can say that of one of them.
func movedBefore(all []object.Effect, site string, p store.StockPlace, t time.Time) (sum decimal.Decimal, sure bool) {
	for i := range all {
		e := &all[i]
		for _, m := range movesOf(e, site) {
			if !m.Of(p) {
				continue
			}
			switch near := e.BookedAt.Sub(t); {
			case e.BookedAt.IsZero(), near.Abs() <= nearOpening:
				return sum, false
			case near < 0:
				sum = sum.Add(m.Moved)
			}
		}
	}
	return sum, true
}

// movesOfFact is what a fact moves, in the outside system's words. What a system takes by itself for it is not known.
func movesOfFact(o *reconcile.Order, f *reconcile.Fact) stockFact {
	out := stockFact{key: f.Key.String(), orderNo: o.OrderNo}
	site := ""
	if o.Work != nil {
		site = o.Work.Site
	}
	for _, l := range f.Lines() {
		q, moves := l.Kind.Stocked(l.Received)
		if !moves || l.Kind == object.Yield && before(o.Work, l.Operation) {
			continue
		}
		out.moves = append(out.moves, store.StockMove{Item: l.Item, Lot: store.ValuesOf(f.Fact).Lot, Unit: l.Unit, Site: site, Moved: q})
	}
	return out
}

// before reports that an operation is not the order's last: what it yields comes into no stock.
func before(o *object.WorkOrder, operation string) bool {
	return o != nil && len(o.Operations) > 1 && !object.SameOperation(o.Last(), operation)
}

// balance puts both sides of the i-th stock together; false when nothing can be said of it yet.
func (c *Checker) balance(ctx context.Context, r *stockRound, i int) (b reconcile.Balance, o store.StockOpening, opened bool, err error) {
	w, held := r.watches[i], r.held[i]
	if err := cmp.Or(r.bad[i], r.untold[w.Item]); err != nil {
		return b, o, false, err
	}
	b = reconcile.Balance{Plant: w.Plant, ERP: w.ERP, Site: w.Site, Storage: w.Storage, Item: w.Item, Lot: w.Lot, Unit: held.OnHand.Unit, Held: held.OnHand.Value, AsOf: r.asOf,
		Unposted: map[string]decimal.Decimal{}, Receipts: map[string]decimal.Decimal{}}
	moves, err := c.o.Store.StockMoves(ctx, w.ERP, w.Item)
	if err != nil {
		return b, o, false, err
	}
	moved := decimal.Zero
	for _, m := range moves {
		if w.Lot != "" && m.Lot == "" && !m.Moved.IsZero() {
			return b, o, false, fmt.Errorf("documents move item %q without a lot: watch it without lot %q", w.Item, w.Lot)
		}
		if !m.Of(w.StockPlace) || m.Moved.IsZero() {
			continue
		}
		if w.Storage != "" && m.Storage == "" {
			return b, o, false, fmt.Errorf("documents do not say where they move item %q: watch it without storage %q", w.Item, w.Storage)
		}
		if b.Unit = cmp.Or(b.Unit, m.Unit); m.Unit != b.Unit {
			return b, o, false, fmt.Errorf("item %q is held in %s and moved in %s: the balance is not compared", w.Item, b.Unit, m.Unit)
		}
		moved = moved.Add(m.Moved)
	}
	o, err = c.o.Store.StockOpening(ctx, w.StockPlace)
	if errors.Is(err, store.ErrNotFound) {
		return b, store.StockOpening{StockPlace: w.StockPlace, Unit: b.Unit, Held: b.Held, Moved: moved, AsOf: r.asOf, BasedAt: r.asOf}, false, nil
	}
	if err != nil {
		return b, o, false, err
	}
	accepted, err := c.o.Store.StockAccepted(ctx, b.Subject(), o.Accepted)
	if err != nil {
		return b, o, false, err
	}
	for _, d := range accepted { // a person says that the stock is right with that difference
		o.Held, o.Accepted = o.Held.Add(d.Delta), d.ID
	}
	b.Opening, b.Movements = o.Held, moved.Sub(o.Moved)
	for _, f := range r.gone {
		if q := f.on(w.StockPlace); !q.IsZero() {
			b.Unposted[f.key], b.Movements = q, b.Movements.Add(q)
		}
	}
	for _, f := range r.receipts {
		if q := f.on(w.StockPlace); q.IsPositive() {
			b.Receipts[f.key] = q
		}
	}
	return b, o, true, nil
}

// anyOff reports that a stock is not what it should be by what was read.
func (c *Checker) anyOff(ctx context.Context, r *stockRound) (bool, error) {
	for i := range r.watches {
		b, _, opened, err := c.balance(ctx, r, i)
		if ctx.Err() != nil {
			return false, err
		}
		if err == nil && opened && reconcile.CheckBalance(b) != nil {
			return true, nil
		}
	}
	return false, nil
}

// judgeStock compares one stock and brings its discrepancy up to date. later says that it must be read once more to be believed.
func (c *Checker) judgeStock(ctx context.Context, r *stockRound, i int) (later bool, err error) {
	b, o, opened, err := c.balance(ctx, r, i)
	if err != nil {
		return false, err
	}
	if !opened {
		c.o.Logger.Info("a stock is watched from now on", "stock", b.Subject(), "held", b.Held, "unit", b.Unit)
		return false, c.o.Store.PutStockOpening(ctx, o)
	}
	f := reconcile.CheckBalance(b)
	switch {
	case f == nil && len(b.Unposted) > 0:
		return true, nil // what was posted comes into the books just now
	case f == nil:
		o.Unit, o.Held, o.Moved, o.AsOf, o.Doubt, o.DoubtAt = b.Unit, b.Held, o.Moved.Add(b.Movements), b.AsOf, decimal.Zero, time.Time{}
	case f.Type == reconcile.Deficit:
	case o.DoubtAt.IsZero() || !o.Doubt.Equal(f.Delta):
		o.Doubt, o.DoubtAt = f.Delta, b.AsOf
		return true, c.o.Store.PutStockOpening(ctx, o)
	case b.AsOf.Sub(o.DoubtAt) < c.o.Policy.Settle:
		return true, nil
	default:
		b.ReadTwice = true
		f = reconcile.CheckBalance(b)
		f.Since = o.DoubtAt
		f.Evidence = append(f.Evidence, reconcile.Evidence{Kind: "balance", Ref: b.Item, Text: fmt.Sprintf("agreed on last at %s, off since %s", o.AsOf.Format(time.RFC3339), o.DoubtAt.Format(time.RFC3339))})
		f.Evidence = append(f.Evidence, places(r.seen[i])...)
	}
	var found []reconcile.Finding
	if f != nil {
		found = append(found, *f)
	}
	changes, err := c.o.Store.MergeStock(ctx, b.Subject(), found, c.o.Policy)
	if err != nil {
		return false, err
	}
	for _, x := range changes {
		if x.Begin {
			c.heal(ctx, x)
		}
	}
	return false, c.o.Store.PutStockOpening(ctx, o)
}

// mostPlaces is how many places a discrepancy names.
const mostPlaces = 10

// places says where a stock lies that is the sum of several, for who goes and counts.
func places(all []object.Balance) (out []reconcile.Evidence) {
	if len(all) < 2 {
		return nil
	}
	for i, b := range all {
		if i == mostPlaces {
			return append(out, reconcile.Evidence{Kind: "balance", Ref: b.Item, Text: fmt.Sprintf("and %d places more", len(all)-i)})
		}
		text := fmt.Sprintf("%s %s at %q", b.OnHand.Value, b.OnHand.Unit, strings.Trim(b.Site+"/"+b.Location, "/"))
		if b.Lot != "" {
			text += fmt.Sprintf(" of lot %q", b.Lot)
		}
		out = append(out, reconcile.Evidence{Kind: "balance", Ref: b.Item, Text: text})
	}
	return out
}
