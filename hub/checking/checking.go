package checking

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/store"
)

// Books is what is needed of the posting engine.
type Books interface {
	// Renew posts a fact anew whose effect is gone, after one more look-up.
	Renew(ctx context.Context, key, reason, by string) error
	// ReplayFact takes up a parked posting again.
	ReplayFact(ctx context.Context, key, by string) error
	// RetryOn makes what is not in the books due again with another posting date.
	RetryOn(ctx context.Context, key string, date time.Time, reason, by string) error
	// Convert takes back what is in the books of a fact and posts it again as it is meant; Reverse only takes it back.
	Convert(ctx context.Context, key, reason, by string) error
	Reverse(ctx context.Context, key, note, by string) error
	// PostMovements posts what a fact's document lacks of its goods movements.
	PostMovements(ctx context.Context, key, document, reason, by string) (connector.Outcome, error)
	// ReverseDocument takes back a document that is no posting's, while nothing else is asked about its order.
	ReverseDocument(ctx context.Context, erp, orderNo, number, key string) (connector.Outcome, error)
}

// Options of a Checker.
type Options struct {
	Store      *store.Store
	Connectors map[string]connector.Connector
	Books      Books
	Policy     reconcile.Policy
	// OpenDay says on which day a fact can be posted whose period is closed. Nil: the first of the month after the date that was
	// refused.
	OpenDay func(ctx context.Context, erp, plant string, refused time.Time) (time.Time, error)
	// Every is how often settled postings are looked for; 30 s when 0.
	Every time.Duration
	// Nightly is the time of day, from midnight UTC, of the comparison of everything; negative: never.
	Nightly time.Duration
	// Watches are the stocks whose balances are compared, every BalancesEvery (15 min when 0) and at night; none by default.
	Watches       []Watch
	BalancesEvery time.Duration
	// Trade reads back and renews writes of business objects; nil: none are compared. They are, every WritesEvery (an hour when 0), for
	// WritesWindow (three days when 0) after they were verified.
	Trade                     Trade
	WritesEvery, WritesWindow time.Duration
	Now                       func() time.Time
	Logger                    *slog.Logger
}

// Checker compares. Make it with New.
type Checker struct {
	o      Options
	stocks sync.Mutex // one comparison of balances at a time
	trade  sync.Mutex // and one of writes
	// steps is how far orders were looked at for what they moved, by system, unread those among them that could not be read. Both are
	// known again after a restart: the step that is stored stays before the first of these.
	steps  map[string]int64
	unread map[string]map[string]bool
}

// New returns a checker that does nothing by itself until Run.
func New(o Options) *Checker {
	if o.Every == 0 {
		o.Every = 30 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.BalancesEvery == 0 {
		o.BalancesEvery = 15 * time.Minute
	}
	if o.WritesEvery == 0 {
		o.WritesEvery = time.Hour
	}
	if o.WritesWindow == 0 {
		o.WritesWindow = 72 * time.Hour
	}
	return &Checker{o: o, steps: map[string]int64{}, unread: map[string]map[string]bool{}}
}

// By is the name under which heals are written down.
const By = "reconciliation"

// Run compares until ctx ends. What fails is logged and done again.
func (c *Checker) Run(ctx context.Context) error {
	var writes sync.WaitGroup
	defer writes.Wait()
	writes.Go(func() { c.runWrites(ctx) })
	tick := time.NewTicker(c.o.Every)
	defer tick.Stop()
	night := c.nextNight()
	balances := c.o.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := c.Sources(ctx); err != nil && ctx.Err() == nil {
			c.o.Logger.Warn("what agents told of counters and gaps could not be raised; it is again", "error", err)
		}
		if err := c.Settled(ctx); err != nil && ctx.Err() == nil {
			c.o.Logger.Warn("orders that have settled could not be compared; they are again", "error", err)
		}
		if now := c.o.Now(); !now.Before(balances) {
			balances = now.Add(c.o.BalancesEvery)
			if c.balancesNow(ctx) { // something is to be read again soon
				balances = now.Add(min(max(c.o.Policy.Settle, c.o.Every), c.o.BalancesEvery))
			}
		}
		if c.o.Nightly < 0 || c.o.Now().Before(night) {
			continue
		}
		if _, err := c.All(ctx, "nightly", store.Compared{}, nil); err != nil && ctx.Err() == nil {
			c.o.Logger.Warn("the nightly reconciliation failed; it runs again tomorrow", "error", err)
		}
		night = c.nextNight()
	}
}

// balancesNow compares the watched stocks. One that cannot be compared is logged: nothing is called off because of it.
func (c *Checker) balancesNow(ctx context.Context) (later bool) {
	later, err := c.Balances(ctx)
	if err != nil && ctx.Err() == nil {
		c.o.Logger.Warn("balances could not be compared; they are again", "error", err)
	}
	return later
}

func (c *Checker) nextNight() time.Time {
	now := c.o.Now().UTC()
	at := time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, time.UTC).Add(max(c.o.Nightly, 0))
	if !at.After(now) {
		at = at.AddDate(0, 0, 1)
	}
	return at
}

const (
	stepsAtOnce  = 2000
	ordersAtOnce = 500
)

// Settled compares the orders whose postings took a step that is older than the settle time and was not compared yet.
func (c *Checker) Settled(ctx context.Context) error {
	after, err := c.o.Store.Compared(ctx)
	if err != nil {
		return err
	}
	for {
		orders, last, err := c.o.Store.OrdersChanged(ctx, after, c.o.Now().Add(-c.o.Policy.Settle), stepsAtOnce)
		if err != nil {
			return err
		}
		if last == after {
			return c.again(ctx)
		}
		for _, no := range orders {
			if _, err := c.order(ctx, "", no, nil); err != nil {
				return err
			}
		}
		if err := c.o.Store.SetCompared(ctx, last); err != nil {
			return err
		}
		after = last
	}
}

// again compares the orders of live discrepancies: what was healed is seen to be, and what lasts too long is escalated.
func (c *Checker) again(ctx context.Context) error {
	done := map[string]bool{}
	for page := (store.Page{Limit: ordersAtOnce}); ; {
		live, err := c.o.Store.Discrepancies(ctx, store.DiscrepancyFilter{Live: true}, page)
		if err != nil || len(live) == 0 {
			return err
		}
		for _, d := range live {
			page.Before = d.ID
			if d.OrderNo == "" || done[d.OrderNo] || c.o.Now().Sub(d.LastSeen) < c.o.Every {
				continue
			}
			done[d.OrderNo] = true
			if _, err := c.order(ctx, "", d.OrderNo, nil); err != nil {
				return err
			}
		}
	}
}

// Each is told each order that All compares, with what was found.
type Each func(o reconcile.Order, found []reconcile.Finding) error

// All compares all orders that match, one after the other, and writes the run down.
func (c *Checker) All(ctx context.Context, kind string, f store.Compared, each Each) (store.Reconciliation, error) {
	run := store.Reconciliation{Kind: kind, Plant: f.Plant, StartedAt: c.o.Now()}
	if err := c.o.Store.PutReconciliation(ctx, &run); err != nil {
		return run, fmt.Errorf("begin reconciliation: %w", err)
	}
	err := errors.Join(c.Sources(ctx), c.refill(ctx), c.all(ctx, f, &run, each))
	if f == (store.Compared{}) { // everything
		err = errors.Join(err, c.allWrites(ctx, &run))
	}
	c.balancesNow(ctx)
	run.EndedAt = c.o.Now()
	if err != nil {
		run.Error = err.Error()
	}
	return run, errors.Join(err, c.o.Store.PutReconciliation(context.WithoutCancel(ctx), &run))
}

func (c *Checker) allWrites(ctx context.Context, run *store.Reconciliation) error {
	n, err := c.writes(ctx)
	run.Writes, run.UnaskedWrites = n.compared, n.unasked
	run.Found, run.Begun = run.Found+n.found, run.Begun+n.begun
	return err
}

func (c *Checker) all(ctx context.Context, f store.Compared, run *store.Reconciliation, each Each) error {
	why := ""
	defer func() {
		if why != "" {
			c.o.Logger.Warn("orders were not compared with the ERP's documents, and nothing of them is called missing; see CONNECTORS.md", "orders", run.Unasked, "first", why)
		}
	}()
	for after := ""; ; {
		orders, err := c.o.Store.OrdersToCompare(ctx, f, after, ordersAtOnce)
		if err != nil || len(orders) == 0 {
			return err
		}
		for _, no := range orders {
			n, err := c.order(ctx, f.Plant, no, each)
			if err != nil {
				return fmt.Errorf("order %q: %w", no, err)
			}
			run.Orders++
			run.Facts, run.Documents, run.Found = run.Facts+n.facts, run.Documents+n.documents, run.Found+n.found
			run.Begun, run.Unasked = run.Begun+n.begun, run.Unasked+n.unasked
			why = cmp.Or(why, n.why)
			after = no
		}
	}
}

type counts struct {
	facts, documents, found, begun, unasked int64
	why                                     string // one order was not asked
}

// order compares one order, in each plant and system that its facts name.
func (c *Checker) order(ctx context.Context, plant, no string, each Each) (n counts, err error) {
	all, err := Read(ctx, c.o.Store, c.o.Connectors, c.o.Now, plant, no)
	if err != nil {
		return n, err
	}
	for _, o := range all {
		found := reconcile.CheckOrder(o, c.o.Policy)
		merge := c.o.Store.MergeDiscrepancies
		if !o.Asked {
			merge = c.o.Store.MergeUnasked // what cannot be seen now is not gone
		}
		changes, err := merge(ctx, o.Plant, o.ERP, no, found, c.o.Policy)
		if err != nil {
			return n, err
		}
		for _, x := range changes {
			if x.Begin {
				n.begun++
				c.heal(ctx, x)
			}
		}
		if each != nil {
			if err := each(o, found); err != nil {
				return n, err
			}
		}
		n.facts, n.documents, n.found = n.facts+int64(len(o.Facts)), n.documents+int64(len(o.Effects)), n.found+int64(len(found))
		if !o.Asked {
			n.unasked++
			n.why = cmp.Or(n.why, o.Unasked)
		}
	}
	return n, nil
}

// Read reads all sides of one order: one reconcile.Order for each plant and outside system that its facts name.
func Read(ctx context.Context, s *store.Store, connectors map[string]connector.Connector, now func() time.Time, plant, no string) ([]reconcile.Order, error) {
	facts, err := s.OrderFacts(ctx, plant, no)
	if err != nil {
		return nil, err
	}
	type side struct{ plant, erp string }
	only := map[string]string{} // the system of a plant's facts, empty where there are several
	for _, f := range facts {
		if erp, met := only[f.Plant]; f.ERP != "" && (!met || erp == f.ERP) {
			only[f.Plant] = f.ERP
		} else if f.ERP != "" {
			only[f.Plant] = ""
		}
	}
	var sides []side
	byside := map[side]*reconcile.Order{}
	for _, f := range facts {
		k := side{f.Plant, cmp.Or(f.ERP, only[f.Plant])} // a fact that nobody posts belongs to the others
		if f.Plant == "" {
			continue // unreadable: it is kept aside
		}
		if byside[k] == nil {
			byside[k] = &reconcile.Order{Now: now(), Plant: k.plant, ERP: k.erp, OrderNo: no}
			sides = append(sides, k)
		}
		if f.AsCame != nil && f.OrderNo() != no {
			byside[k].Elsewhere = append(byside[k].Elsewhere, f.Fact)
			continue
		}
		byside[k].Facts = append(byside[k].Facts, f.Fact)
	}
	var out []reconcile.Order
	for _, k := range sides {
		o := byside[k]
		if err := ask(ctx, s, connectors[k.erp], o); err != nil {
			return nil, err
		}
		if o.Lots, err = lots(ctx, s, o); err != nil {
			return nil, err
		}
		if o.Edge, err = s.EdgeLines(ctx, store.TallyFilter{Plant: k.plant, OrderNo: no}); err != nil {
			return nil, err
		}
		if len(sides) > 1 && only[k.plant] == "" {
			o.Edge = nil // the agents' sums are of all systems together
		}
		out = append(out, *o)
	}
	return out, nil
}

// restricted is the ISA-95 disposition of a lot that may not be used.
const restricted = "restricted"

// lots are those that the order used, blocked where quality says so. Nothing here knows which lots were issued to a line or expire:
// each counts as issued. Nil when no lot was used.
func lots(ctx context.Context, s *store.Store, o *reconcile.Order) (map[string]reconcile.Lot, error) {
	var all map[string]reconcile.Lot
	states := map[string]map[string]object.Quality{}
	for _, f := range o.Facts {
		use := f.Consumption
		if use == nil || use.Lot == "" {
			continue
		}
		if states[use.Item] == nil {
			var err error
			if states[use.Item], err = s.LotStates(ctx, f.Plant, use.Item); err != nil {
				return nil, err
			}
		}
		if all == nil {
			all = map[string]reconcile.Lot{}
		}
		blocked := strings.EqualFold(states[use.Item][use.Lot].Disposition, restricted)
		all[use.Item+"/"+use.Lot] = reconcile.Lot{Item: use.Item, Lot: use.Lot, Issued: true, Blocked: blocked}
	}
	return all, nil
}

// ask reads the outside system's side. What it cannot tell leaves the order unasked, and nothing of it is called missing.
func ask(ctx context.Context, s *store.Store, erp connector.Connector, o *reconcile.Order) error {
	known, err := s.Order(ctx, o.ERP, o.OrderNo)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if err == nil {
		o.Work = &known.Order
	}
	reader, ok := erp.(connector.EffectReader)
	if !ok {
		return nil
	}
	all, err := reader.Effects(ctx, o.OrderNo)
	if err != nil {
		o.Unasked, o.Lost = err.Error(), errors.Is(err, connector.ErrNotFound)
		return ctx.Err() // unasked, also when the system has lost the order itself: a person must bring that back first
	}
	o.Asked, o.AsOf, o.Effects = true, o.Now, all.Documents
	work := all.Order
	if o.Work != nil {
		work.Plant = o.Work.Plant // routing is the hub's
	}
	o.Work = &work
	return nil
}
