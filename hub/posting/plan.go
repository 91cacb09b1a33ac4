package posting

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
	"github.com/linekeeper/linekeeper/proto/sabotage"
	"github.com/shopspring/decimal"
)

// Codes of postings that are parked or not posted before any outside system was asked. They are stable.
const (
	CodeUnknownOrder      = "unknown_order"       // waits until the hub knows the order
	CodeOrderWithoutPlant = "order_without_plant" // waits until a route leads from the order to a plant
	CodeNoConnector       = "no_connector"        // the order's system is not configured, or none at all
	CodeWrongPlant        = "wrong_plant"
	CodeNoOrder           = "no_order"           // the fact names no order
	CodeReversal          = "reversal"           // takes a fact back, and cannot by itself
	CodeWaitsForOriginal  = "waits_for_original" // takes a fact back that is not in the books yet
	CodeNothingToReverse  = "nothing_to_reverse" // not posted: the fact it takes back has no effect
	CodeNegative          = "negative_quantity"
	CodeRangeOverlap      = "range_overlap"
	CodeRangeKnown        = "range_known" // not posted: superseded
	CodeZero              = "zero"        // not posted: nothing to post
	CodePolicy            = "policy"      // not posted: the system takes no facts of this kind
	CodeBelowScale        = "below_scale" // not posted: less than the system's last decimal, carried on
	CodeUnreachable       = "unreachable" // due: the system cannot be asked now
	CodeWaitsForOthers    = "waits_for"   // due: finishes the order, waits for its other postings
	CodeCannotTell        = "cannot_tell" // parked: nobody but a person can find out
	CodeDiffers           = "differs"     // parked: the effect is there and is not what was intended
	CodeAccepted          = "accepted"    // settled by a person
)

// Classes of parked postings beside those of package connector.
const (
	ClassWaiting    = "waiting" // for something that is missing; goes on by itself
	ClassCannotTell = "cannot_tell"
	ClassMismatch   = "mismatch"
)

// Facts in one transaction of the planner: fewer while new ones arrive, because what arrives must not wait long for it. Many
// are much cheaper than few: the pages of the indexes are written once for all facts of a transaction. Each takes some 10 us.
const (
	planBusy = 2000
	planMany = 5000
)

// planAtOnce is how many postings are looked at again in one transaction; each of them is read and written alone.
const planAtOnce = 200

// planned is what a round of planning found to do.
type planned struct {
	facts   int
	lanes   []store.Lane
	waiting []wait
	took    time.Duration // of the transaction, without waiting for it
}

// wait is what a parked posting waits for: that its order comes (CodeUnknownOrder), or that it gets a plant
// (CodeOrderWithoutPlant).
type wait struct{ code, orderNo string }

// plan takes the next facts through the planner, with their results and the cursor in one transaction.
func (e *Engine) plan(ctx context.Context, limit int) (out planned, err error) {
	cursor, facts, err := e.o.Store.Unplanned(ctx, limit)
	if err != nil || len(facts) == 0 {
		return planned{}, err
	}
	var began time.Time
	err = e.o.Store.Repeat(ctx, func(tx *store.Tx) error {
		out, began = planned{facts: len(facts)}, time.Now()
		if now, err := tx.PlanCursor(); err != nil || now != cursor {
			return errors.Join(err, fmt.Errorf("planner's cursor is at %d, not at %d: somebody else plans", now, cursor))
		}
		all := make([]store.Planned, 0, len(facts))
		var seen marks
		for _, f := range facts {
			if err := e.planFact(tx, f, &seen, &all, &out); err != nil {
				return fmt.Errorf("fact %q: %w", f.Fact.Key, err)
			}
		}
		if err := errors.Join(tx.AddPlanned(all), seen.store(tx)); err != nil {
			return err
		}
		for _, p := range all {
			if p.Posting == nil {
				continue
			}
			if err := e.releaseReversals(tx, p.Fact); err != nil {
				return err
			}
			ended := ofOperation(p.Fact.Fact) != nil
			if ended || p.Fact.Fact.Confirmation != nil && p.Fact.Fact.Confirmation.Final {
				out.lanes = append(out.lanes, store.Lane{ERP: p.Posting.ERP, OrderNo: p.Posting.OrderNo}) // its order's closing may wait for that
			}
			if p.Posting.Closing || ended && p.Posting.State == store.PostingDue {
				lanes, err := e.sealOrder(tx, p.Posting.OrderNo)
				if err != nil {
					return err
				}
				out.lanes = append(out.lanes, lanes...)
			}
		}
		if err := e.crash("plan"); err != nil {
			return err
		}
		return tx.SetPlanCursor(facts[len(facts)-1].ID)
	})
	if err != nil {
		return planned{}, fmt.Errorf("plan facts: %w", err)
	}
	if err := e.crash("planned"); err != nil {
		return planned{}, err
	}
	out.took = time.Since(began)
	return out, nil
}

func (e *Engine) planFact(tx *store.Tx, f store.Fact, seen *marks, all *[]store.Planned, out *planned) error {
	if f.Fault != "" {
		return tx.RaiseAlarm(f.Agent, "stored_fact_unreadable", fmt.Sprintf("fact %s (row %d) is stored and cannot be read: %s", f.Fact.Key, f.ID, f.Fault),
			"nothing is lost: it stays in the store; report it with the hub's version")
	}
	if f.Fact.Exception != nil {
		*all = append(*all, store.Planned{Fact: f})
		return e.except(tx, f)
	}
	if s := f.Fact.OrderState; s != nil {
		step := store.OrderStep{
			OrderNo: s.OrderNo, Step: string(s.State), Revision: s.Revision, At: f.Fact.OccurredAt, Origin: f.Fact.Plant + "/" + f.Agent,
			FactID: f.ID, Reason: s.Reason, Operation: s.Operation,
		}
		if err := tx.AddOrderStep(step); err != nil {
			return err
		}
	}
	left, err := seen.known(tx, f)
	if err = errors.Join(err, noteFinal(tx, f)); err != nil {
		return err
	}
	p := store.Posting{FactID: f.ID, OrderNo: f.Fact.OrderNo(), Plant: f.Fact.Plant, Closing: closes(f.Fact), Since: tx.Now()}
	p.Amounts = amounts(f.Fact, left.lines)
	switch {
	case left.known:
		notPosted(&p, CodeRangeKnown, left.note)
	case left.split:
		park(&p, string(connector.Correctable), CodeRangeOverlap, left.note+", and its quantities cannot be divided exactly",
			"book what is missing by hand, then accept this fact")
	default:
		if err := e.admit(tx, &p, f); err != nil {
			return err
		}
	}
	done := store.Planned{Fact: f, Lines: left.lines, Trimmed: left.note, Posting: &p}
	switch {
	case p.State == store.PostingDue:
		out.lanes = append(out.lanes, store.Lane{ERP: p.ERP, OrderNo: p.OrderNo})
	case p.Class == ClassWaiting:
		out.waiting = append(out.waiting, wait{p.Code, p.OrderNo})
	case p.State == store.PostingNotPosted:
		done.Receipt = receiptOf(tx, p, f, pb.Receipt_OUTCOME_NOT_POSTED)
	default:
		done.Receipt = receiptOf(tx, p, f, pb.Receipt_OUTCOME_REJECTED)
	}
	*all = append(*all, done)
	return nil
}

// except keeps a record of why there is no fact.
func (e *Engine) except(tx *store.Tx, f store.Fact) error {
	step := f.Fact.Exception.Step
	if err := tx.AddException(f); err != nil || step == nil || e.o.Judge == nil {
		return err
	}
	x := store.StepBack{FactID: f.ID, Plant: f.Fact.Plant, Agent: strings.TrimPrefix(f.Agent, f.Fact.Plant+"/"), Source: f.Fact.Source, Fact: f.Fact.Key.String(), Step: *step}
	return tx.RaiseStep(x, *e.o.Judge)
}

// marks are the counters that the facts of one transaction name: each is read once, and written once at the end.
type marks struct {
	byKey map[markKey]*mark
	order []*mark
}

type markKey struct{ plant, source, tag, epoch string }

type mark struct {
	store.Mark
	covered spans
}

func (s *marks) of(tx *store.Tx, k markKey) (*mark, error) {
	if m := s.byKey[k]; m != nil {
		return m, nil
	}
	stored, err := tx.Mark(k.plant, k.source, k.tag, k.epoch)
	if err != nil {
		return nil, err
	}
	covered, err := parseSpans(stored.Covered)
	if err != nil {
		return nil, err
	}
	if s.byKey == nil {
		s.byKey = map[markKey]*mark{}
	}
	m := &mark{stored, covered}
	s.byKey[k], s.order = m, append(s.order, m)
	return m, nil
}

// store writes the counters as they are known now.
func (s *marks) store(tx *store.Tx) error {
	for _, m := range s.order {
		m.Covered, m.CounterTo = m.covered.String(), m.covered.top().String()
		if err := tx.SetMark(m.Mark); err != nil {
			return err
		}
	}
	return nil
}

// known trims a fact by what the hub knows of its counter, and adds its range to that.
func (s *marks) known(tx *store.Tx, f store.Fact) (trimmed, error) {
	lines := f.Fact.FactQuantities()
	c := f.Fact.CounterRange()
	if !f.Fact.Reverses.IsZero() {
		c = nil // it names what is taken back, and counts nothing new
	}
	if c == nil || !c.To.GreaterThan(c.From) {
		return trimmed{lines: lines}, nil
	}
	m, err := s.of(tx, markKey{f.Fact.Plant, f.Fact.Source, c.Tag, c.Epoch})
	if err != nil {
		return trimmed{}, err
	}
	r := span{c.From, c.To}
	left := trim(lines, m.covered, r)
	if sabotage.Rule(5) {
		left = trimmed{lines: lines}
	}
	m.AgentID, m.covered = f.AgentID, m.covered.with(r)
	return left, nil
}

func amounts(f object.Fact, lines []object.FactLine) *store.Amounts {
	a := &store.Amounts{}
	for _, l := range lines {
		*amount(a, l.Kind) = l.Received
	}
	if f.Quality != nil {
		a.Quantity = f.Quality.Quantity.Value
	}
	return a
}

func park(p *store.Posting, class, code, reason, nextStep string) {
	p.State, p.Class, p.Code, p.Reason, p.NextStep = store.PostingParked, class, code, reason, nextStep
}

func notPosted(p *store.Posting, code, reason string) {
	p.State, p.Class, p.Code, p.Reason, p.NextStep = store.PostingNotPosted, "", code, reason, ""
	p.Amounts = nil
}

// admit decides whether a posting can be made, and where. It is asked again when what was missing has come.
func (e *Engine) admit(tx *store.Tx, p *store.Posting, f store.Fact) error {
	a := p.Amounts
	switch {
	case below(f.Fact, a):
		park(p, string(connector.Fatal), CodeNegative, "quantity is negative: a correction is a reversal and a new fact", "correct it in the outside system by hand, then accept this fact")
		return nil
	case f.Fact.Confirmation != nil && a.Yield.IsZero() && a.Scrap.IsZero() && a.Rework.IsZero(), f.Fact.Consumption != nil && a.Quantity.IsZero():
		notPosted(p, CodeZero, "quantity is zero")
		return nil
	case !e.anybodyPosts(f.Fact) && (p.OrderNo == "" || len(e.o.Connectors) > 0):
		notPosted(p, CodePolicy, "no outside system takes this kind of fact")
		return nil
	case len(e.o.Connectors) == 0:
		park(p, ClassWaiting, CodeNoConnector, "no outside system is configured", "add the connector to the hub's configuration")
		return nil
	case p.OrderNo == "":
		park(p, string(connector.Correctable), CodeNoOrder, "fact names no work order", "book it on an order in the outside system by hand, then accept this fact with the document's number")
		return nil
	}
	return e.route(tx, p, f)
}

// below reports that a quantity of a fact is below zero; those of a reversal are in the ledger.
func below(f object.Fact, a *store.Amounts) bool {
	if !f.Reverses.IsZero() {
		a = negated(a)
	}
	return a.Yield.IsNegative() || a.Scrap.IsNegative() || a.Rework.IsNegative() || a.Quantity.IsNegative()
}

func (e *Engine) anybodyPosts(f object.Fact) bool {
	for _, c := range e.o.Connectors {
		if posts(c.Capabilities(), f) {
			return true
		}
	}
	return false
}

// route finds the order's system and gives the posting to it.
func (e *Engine) route(tx *store.Tx, p *store.Posting, f store.Fact) error {
	order, ok, err := tx.FindOrder(p.Plant, p.OrderNo)
	if err != nil {
		return err
	}
	w := order.Order
	c := e.o.Connectors[w.ERP]
	p.ERP = w.ERP
	switch {
	case !ok:
		park(p, ClassWaiting, CodeUnknownOrder, fmt.Sprintf("work order %q is not known", p.OrderNo), "check the order number; when the outside system has the order, this goes on by itself")
	case w.Plant == "":
		park(p, ClassWaiting, CodeOrderWithoutPlant, fmt.Sprintf("work order %q belongs to no plant: %s", p.OrderNo, order.Unroutable), "add a route to the hub's configuration")
	case w.Plant != p.Plant:
		park(p, string(connector.Fatal), CodeWrongPlant, fmt.Sprintf("work order %q belongs to plant %q, the fact comes from %q", p.OrderNo, w.Plant, p.Plant),
			"correct the order number at the source, or the route, then replay")
	case c == nil:
		park(p, ClassWaiting, CodeNoConnector, fmt.Sprintf("system %q of work order %q is not configured", w.ERP, p.OrderNo), "add the connector to the hub's configuration")
	case !posts(c.Capabilities(), f.Fact):
		notPosted(p, CodePolicy, fmt.Sprintf("system %q takes no facts of this kind", w.ERP))
	case !f.Fact.Reverses.IsZero():
		return e.admitReversal(tx, p, f, c.Capabilities())
	case ofOperation(f.Fact) != nil:
		return e.admitOperation(tx, p, f, w, c.Capabilities())
	case e.owned(p, inItsWords(tx, p.ERP, f.Fact), w, c.Capabilities().Backflush):
	default:
		return e.say(tx, p, f, w, c.Capabilities())
	}
	return nil
}

func posts(c connector.Capabilities, f object.Fact) bool {
	kind := false
	for _, k := range c.Posts {
		kind = kind || k == f.Kind
	}
	if !kind || f.OrderState == nil {
		return kind
	}
	return slices.Contains(c.States, f.OrderState.State) || f.OrderState.Operation != "" && slices.Contains(c.OperationStates, f.OrderState.State)
}

// round makes the posting due, with quantities that the system can keep.
func (e *Engine) round(tx *store.Tx, p *store.Posting, f store.Fact, scale int32) error {
	due(p, tx)
	if scale < 0 || f.Fact.Confirmation == nil && f.Fact.Consumption == nil {
		return nil
	}
	any := false
	for _, l := range f.Fact.FactQuantities() {
		v := amount(p.Amounts, l.Kind)
		carried, err := tx.Residue(p.ERP, l.LedgerKey)
		if err != nil {
			return err
		}
		exact := v.Add(carried)
		*v = decimal.Max(exact.RoundBank(scale), decimal.Zero) // a reversal may have left more to take off than this has
		if rest := exact.Sub(*v); !rest.Equal(carried) {
			if err := tx.SetResidue(p.ERP, l.LedgerKey, rest); err != nil {
				return err
			}
		}
		any = any || !v.IsZero()
	}
	if !any {
		belowScale(p, carriedOn)
	}
	return nil
}

// carriedOn is why a posting of which rounding left nothing is not posted.
const carriedOn = "less than the outside system can keep: it goes to the next posting of the same thing"

// belowScale settles a posting of which rounding left nothing. Its amounts stay: the tally counts them.
func belowScale(p *store.Posting, reason string) {
	amounts := p.Amounts
	notPosted(p, CodeBelowScale, reason)
	p.Amounts = amounts
}

// amount is the field of the amounts that a kind of quantity is kept in.
func amount(a *store.Amounts, k object.QuantityKind) *decimal.Decimal {
	switch k {
	case object.Yield:
		return &a.Yield
	case object.Scrap:
		return &a.Scrap
	case object.Rework:
		return &a.Rework
	}
	return &a.Quantity
}
