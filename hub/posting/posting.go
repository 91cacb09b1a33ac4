package posting

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/store"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Options of New. Store and Connectors are needed; zero fields mean the documented default.
type Options struct {
	Store *store.Store
	// Connectors by the name that work orders carry as their ERP.
	Connectors map[string]connector.Connector
	// FetchOrder brings an order that facts name and the hub has never seen into the store. It returns nil when that is done or
	// when no system has the order, and an error when it could not find out. Nil: nobody is asked.
	FetchOrder func(ctx context.Context, orderNo string) error
	// MayClose is asked, when everything known of an order is settled, whether its plant may still hold something of it; f is
	// the fact that finishes the order. A reason lets the closing wait and is shown. Nil: nothing is asked. CloseAfter closes
	// all the same after so long; 1 h.
	MayClose   func(ctx context.Context, f store.Fact) (reason string, err error)
	CloseAfter time.Duration
	// Policies are what was decided about dates, owners of consumption, quantities and completed orders; none: see Policy. Zones
	// are the zones of the plants' calendars; a plant without one has that of its facts.
	Policies []Policy
	Zones    map[string]*time.Location
	// Judge makes what agents tell of counters that went back a discrepancy at once. Nil: it stays an exception until something
	// compares.
	Judge *reconcile.Policy
	// Workers is how many calls one system is asked side by side; 4. Each is about another order.
	Workers int
	// RetryFor is how long a retryable rejection is tried again before a person is asked, DoubtFor how long an effect that may
	// still appear is waited for; 24 h each.
	RetryFor, DoubtFor time.Duration
	// CallTimeout bounds one call of a connector; 2 min. Grace is how long a running call may take after Run was told to
	// end; 15 s.
	CallTimeout, Grace time.Duration
	// Poll is how often the engine looks for work that nobody announced; 30 s.
	Poll time.Duration
	// Now is the clock; time.Now.
	Now    func() time.Time
	Logger *slog.Logger
}

func (o *Options) setDefaults() {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	set(&o.RetryFor, 24*time.Hour)
	set(&o.DoubtFor, 24*time.Hour)
	set(&o.CloseAfter, time.Hour)
	set(&o.CallTimeout, 2*time.Minute)
	set(&o.Grace, 15*time.Second)
	set(&o.Poll, 30*time.Second)
	if o.Workers <= 0 {
		o.Workers = 4
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// Engine plans and posts. Make one with New; one Run at a time on one store.
type Engine struct {
	o     Options
	gates map[string]*gate  // of each outside system
	turns map[string]*turns // of each outside system
	wake  chan struct{}

	mu      sync.Mutex
	poked   []store.Lane
	waited  []wait
	closing map[int64]time.Time // since when the plant is asked whether an order may be closed, by fact
	// reopened are the lanes whose orders are reopened, or may be.
	reopened map[store.Lane]bool

	reversals reversals
	onOrder   onOrder
	// collects: there are, or may be, postings that are made as one document.
	collects atomic.Bool

	// crash is asked at each step whether the process dies there (errDies), or the store fails (any other); tests set it.
	crash func(step string) error
}

// New returns an engine that does nothing until Run runs.
func New(o Options) *Engine {
	o.setDefaults()
	e := &Engine{
		o: o, gates: map[string]*gate{}, turns: map[string]*turns{}, wake: make(chan struct{}, 1), closing: map[int64]time.Time{}, crash: crashPoint,
	}
	for _, p := range o.Policies {
		if p.Collect != nil {
			e.collects.Store(true)
		}
	}
	for name := range o.Connectors {
		e.gates[name] = &gate{health: Health{OK: true, Since: o.Now()}}
		e.turns[name] = &turns{free: o.Workers}
	}
	return e
}

// Health returns how the talk with each outside system goes.
func (e *Engine) Health() map[string]Health {
	out := map[string]Health{}
	for name, g := range e.gates {
		out[name] = g.at(time.Now())
	}
	return out
}

func (e *Engine) takePoked() ([]store.Lane, []wait) {
	e.mu.Lock()
	defer e.mu.Unlock()
	lanes, waiting := e.poked, e.waited
	e.poked, e.waited = nil, nil
	return lanes, waiting
}

// replayed wakes the lane of a posting that a person took up again, or remembers what it waits for.
func (e *Engine) replayed(all ...store.Posting) {
	e.mu.Lock()
	for _, p := range all {
		if p.Class == ClassWaiting {
			e.waited = append(e.waited, wait{p.Code, p.OrderNo})
		}
		e.poked = append(e.poked, store.Lane{ERP: p.ERP, OrderNo: p.OrderNo})
	}
	e.mu.Unlock()
	kick(e.wake)
}

func kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run plans and posts until ctx ends, then waits for the calls that are under way. When the store fails it starts over a
// little later from what the store says, as after a crash. Its only errors are those of a store that was closed or that another
// hub has taken over.
func (e *Engine) Run(ctx context.Context) error {
	for {
		err := e.runOnce(ctx)
		if ctx.Err() != nil && !errors.Is(err, errDies) {
			return nil
		}
		if errors.Is(err, errDies) || errors.Is(err, store.ErrClosed) || errors.Is(err, store.ErrTakenOver) {
			return err
		}
		e.o.Logger.Error("postings stopped and start over", "error", err)
		pause := time.NewTimer(5 * time.Second)
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
		pause.Stop()
	}
}

func (e *Engine) runOnce(ctx context.Context) error {
	if err := e.recover(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	r := newRunner(e)
	defer r.stop()
	defer cancel()
	followed := make(chan error, 1)
	go func() {
		defer cancel() // what fails there starts all over
		followed <- e.followMappings(ctx)
	}()
	err := r.run(ctx)
	cancel()
	return errors.Join(err, <-followed)
}

// errDies is how a test's crash ends Run.
var errDies = errors.New("the hub dies")

// recover takes what a hub that died had under way for in doubt, and looks again at what lacked a connector.
func (e *Engine) recover(ctx context.Context) error {
	if any, err := e.o.Store.AnyAggregate(ctx); err != nil {
		return fmt.Errorf("recover postings: %w", err)
	} else if any {
		e.collects.Store(true)
	}
	err := e.each(ctx, store.PostingFilter{State: store.PostingSending}, func(tx *store.Tx, p *store.Posting, f store.Fact) error {
		doubt(p, tx.Now(), "the hub ended while it was posting")
		p.NextAt = tx.Now()
		if err := e.changed(tx, *p, f, "in_doubt", "", pb.Receipt_OUTCOME_IN_DOUBT); err != nil {
			return err
		}
		return e.crash("recovering")
	})
	if err == nil {
		err = e.crash("recovered")
	}
	if err == nil {
		err = e.loadReversals(ctx)
	}
	if err == nil && len(e.o.Connectors) > 0 {
		err = e.each(ctx, store.PostingFilter{State: store.PostingParked, Code: CodeNoConnector}, e.readmit(""))
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("recover postings: %w", err)
	}
	return err
}

// each changes all postings that match, many in a transaction.
func (e *Engine) each(ctx context.Context, filter store.PostingFilter, change func(*store.Tx, *store.Posting, store.Fact) error) error {
	for after, n := int64(0), planMany; n == planMany; {
		err := e.o.Store.Update(ctx, func(tx *store.Tx) error {
			facts, err := tx.PostingsAfter(filter, after, planMany)
			if err != nil {
				return err
			}
			for _, f := range facts {
				p := *f.Posting
				f.Posting = nil
				after = f.ID
				if past, err := e.past(tx, p); err != nil || past {
					if err != nil {
						return err
					}
					continue
				}
				if err := change(tx, &p, f); err != nil {
					return err
				}
			}
			n = len(facts)
			return e.crash("changing many")
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) one(tx *store.Tx, id int64, change func(*store.Tx, *store.Posting, store.Fact) error) error {
	p, err := tx.Posting(id)
	if err != nil {
		return err
	}
	f, err := tx.FactByID(id)
	if err != nil {
		return err
	}
	return change(tx, &p, f)
}

// changed stores a posting that changed, with those that are made as one document with it: each with the step in its life, and
// the receipt for the plant (none when unspecified). Whatever takes a posting up again of which the plant was told an end says so in
// the same transaction: the operator's page must not show a refusal that is over.
func (e *Engine) changed(tx *store.Tx, p store.Posting, f store.Fact, step, by string, outcome pb.Receipt_Outcome) error {
	return e.changedFor(tx, p, f, store.PostingStep{Step: step, Code: p.Code, Reason: p.Reason, Document: p.Document, By: by}, outcome)
}

// changedFor is changed with a step that says more than the posting does.
func (e *Engine) changedFor(tx *store.Tx, p store.Posting, f store.Fact, step store.PostingStep, outcome pb.Receipt_Outcome) error {
	all, err := e.together(tx, p, f)
	for _, m := range all {
		if err == nil {
			err = e.changedOne(tx, *m.Posting, m, step, outcome)
		}
	}
	return err
}

func (e *Engine) changedOne(tx *store.Tx, p store.Posting, f store.Fact, step store.PostingStep, outcome pb.Receipt_Outcome) error {
	step.FactID, step.Attempt = p.FactID, p.Attempt
	err := tx.PutPostingStep(p, step)
	if err == nil && (inBooks(p) || p.State == store.PostingParked) {
		err = e.releaseReversals(tx, f)
	}
	if err != nil || outcome == pb.Receipt_OUTCOME_UNSPECIFIED {
		return err
	}
	return receipt(tx, p, f, outcome)
}

func receipt(tx *store.Tx, p store.Posting, f store.Fact, outcome pb.Receipt_Outcome) error {
	return tx.DeliverReceipt(f.AgentID, f.Fact.Key.String(), receiptOf(tx, p, f, outcome))
}

// postedAgain is what the plant reads of a posting that goes on after it was refused, in doubt or taken back.
const postedAgain = "is being posted again"

func receiptOf(tx *store.Tx, p store.Posting, f store.Fact, outcome pb.Receipt_Outcome) *pb.Receipt {
	r := &pb.Receipt{
		FactKey: f.Fact.Key[:], Outcome: outcome, Document: p.Document, Reason: p.Reason, At: timestamppb.New(tx.Now()), Erp: p.ERP, OrderNo: p.OrderNo,
	}
	if outcome == pb.Receipt_OUTCOME_RECEIVED && p.State == store.PostingDue && p.Code == "" {
		r.Reason = postedAgain
	}
	return r
}

func doubt(p *store.Posting, now time.Time, reason string) {
	p.State, p.Class, p.Code, p.Reason = store.PostingInDoubt, "", "", reason
	p.NextStep = "nothing to do: the outside system is asked until it is known"
	p.Since, p.Tries = now, 0
	p.NextAt = now.Add(LookupAfter(0))
}

// LookupAfter is the pause before look-up n: 2, 10, 60 seconds, then doubling up to 10 minutes.
func LookupAfter(n int) time.Duration {
	first := []time.Duration{2 * time.Second, 10 * time.Second, time.Minute}
	if n < len(first) {
		return first[n]
	}
	return min(time.Minute<<min(n-2, 4), 10*time.Minute)
}

// RetryAfter is the pause after failure n of an attempt: full jitter up to a limit that doubles from 4 seconds to 5 minutes.
func RetryAfter(n int) time.Duration {
	limit := min(2*time.Second<<min(n, 10), 5*time.Minute)
	return 100*time.Millisecond + rand.N(limit)
}

// the fact as it is to be posted: with the amounts that were decided.
func adjusted(f object.Fact, a *store.Amounts) object.Fact {
	if a == nil {
		return f
	}
	if f.Confirmation != nil {
		c := *f.Confirmation
		c.Yield, c.Scrap, c.Rework = a.Yield, a.Scrap, a.Rework
		f.Confirmation = &c
	}
	if f.Consumption != nil {
		c := *f.Consumption
		c.Quantity.Value = a.Quantity
		f.Consumption = &c
	}
	return f
}

// postingDate is the date that the plant's calendar gave it, or else the calendar date at the plant when it happened, as
// midnight UTC.
func postingDate(f object.Fact) time.Time {
	if d, err := time.Parse(time.DateOnly, f.PostingDate); err == nil {
		return d
	}
	y, m, d := f.OccurredAt.Date() // in the plant's zone
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
}
