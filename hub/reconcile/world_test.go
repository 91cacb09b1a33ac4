package reconcile_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

var now = time.Date(2026, 11, 26, 4, 0, 0, 0, time.UTC)

func d(s string) decimal.Decimal { return decimal.RequireFromString(s) }

// clean makes an order that all sides agree on: confirmations by counter ranges, consumption, an MES sum, a report of the agent.
func clean(n int, r *rand.Rand) reconcile.Order {
	no := fmt.Sprintf("10%05d", n)
	o := reconcile.Order{Now: now, Plant: "ulm", ERP: "erp", OrderNo: no, Asked: true, AsOf: now}
	parts := 1 + r.IntN(5)
	yields, counter := decimal.Zero, decimal.Zero
	for i := range parts {
		yield, scrap := decimal.NewFromInt(int64(1+r.IntN(50))), decimal.NewFromInt(int64(r.IntN(3)))
		at := now.Add(-3 * time.Hour).Add(time.Duration(i) * 10 * time.Minute)
		total := yield.Add(scrap)
		f := fact(no, fmt.Sprint("c", i), at, 30*time.Second)
		f.Kind, f.Confirmation = object.KindConfirmation, &object.Confirmation{OrderNo: no, Operation: "10", Item: "GEAR", Unit: "C62", Yield: yield, Scrap: scrap,
			CounterRange: &object.CounterRange{Tag: "good", Epoch: "1", From: counter, To: counter.Add(total)}}
		counter = counter.Add(total)
		book(&o, f, "GEAR")
		use := fact(no, fmt.Sprint("m", i), at, 30*time.Second)
		use.Kind = object.KindConsumption
		use.Consumption = &object.Consumption{OrderNo: no, Operation: "10", Item: "STEEL", Lot: "L1", Movement: object.Issue, Quantity: object.Quantity{Value: total.Mul(d("2.5")), Unit: "KGM"}}
		book(&o, use, "STEEL")
		yields = yields.Add(yield)
	}
	o.Work = &object.WorkOrder{OrderNo: no, Plant: "ulm", Item: "GEAR", Quantity: object.Quantity{Value: d("500"), Unit: "C62"}, State: object.OrderInProgress,
		Components: []object.Component{{Item: "STEEL", Required: object.Quantity{Value: d("1250"), Unit: "KGM"}}}}
	key := object.LedgerKey{Plant: "ulm", OrderNo: no, Operation: "10", Item: "GEAR", Kind: object.Yield, Unit: "C62"}
	o.MES = []reconcile.MESSum{{LedgerKey: key, Value: yields, AsOf: now.Add(-10 * time.Minute)}}
	o.Edge = []object.EdgeLine{{LedgerKey: key, Agent: "a1", Source: "press", Counted: yields, Stored: yields, AsOf: now.Add(-5 * time.Minute)}}
	o.Lots = map[string]reconcile.Lot{"STEEL/L1": {Item: "STEEL", Lot: "L1", Issued: true}}
	return o
}

func fact(order, id string, at time.Time, late time.Duration) reconcile.Fact {
	zone, _ := time.LoadLocation("Europe/Berlin")
	f := reconcile.Fact{ReceivedAt: at.Add(late), State: "verified", Since: at.Add(late + time.Minute)}
	f.Key, f.Plant, f.Source = factkey.Of(order+"|"+id), "ulm", "press"
	f.OccurredAt, f.RecordedAt, f.TimeZone = at.In(zone), at.Add(time.Second).In(zone), "Europe/Berlin"
	return f
}

// book adds a fact with its document.
func book(o *reconcile.Order, f reconcile.Fact, item string) {
	e := document(o, f)
	f.Document = e.Number
	o.Facts, o.Effects = append(o.Facts, f), append(o.Effects, e)
}

func document(o *reconcile.Order, f reconcile.Fact) object.Effect {
	e := object.Effect{Number: fmt.Sprintf("49%s%03d", o.OrderNo, len(o.Effects)), Key: f.Key.String(), Kind: f.Kind, OrderNo: o.OrderNo, Operation: "10", State: object.EffectBooked,
		PostingDate: f.OccurredAt.Format(time.DateOnly), BookedAt: f.Since, User: "linekeeper"}
	for _, l := range f.FactQuantities() {
		q := object.Quantity{Value: l.Received, Unit: l.Unit}
		e.Quantities = append(e.Quantities, object.EffectQuantity{Kind: l.Kind, Item: l.Item, Quantity: q})
		if l.Kind == object.Yield || l.Kind == object.Consumed {
			e.Movements = append(e.Movements, object.EffectMovement{Kind: l.Kind, Item: l.Item, Quantity: q})
		}
	}
	return e
}

// refuse takes a fact's document away and parks the fact.
func refuse(o *reconcile.Order, code string, ago time.Duration) *reconcile.Fact {
	f := &o.Facts[0]
	drop(o, f.Key.String())
	f.State, f.Code, f.Reason, f.Document, f.Since = "parked", code, "refused", "", now.Add(-ago)
	return f
}

func drop(o *reconcile.Order, key string) {
	kept := o.Effects[:0]
	for _, e := range o.Effects {
		if e.Key != key {
			kept = append(kept, e)
		}
	}
	o.Effects = kept
}

// seed spoils an order, or makes a finding of a device or a stock; heals says what must become of it.
type seed struct {
	name  string
	want  reconcile.Type
	heals bool
	spoil func(o *reconcile.Order, p *reconcile.Policy) []reconcile.Finding
}

func order(f func(o *reconcile.Order, p *reconcile.Policy)) func(*reconcile.Order, *reconcile.Policy) []reconcile.Finding {
	return func(o *reconcile.Order, p *reconcile.Policy) []reconcile.Finding {
		f(o, p)
		return reconcile.CheckOrder(*o, *p)
	}
}

func other(f *reconcile.Finding) func(*reconcile.Order, *reconcile.Policy) []reconcile.Finding {
	return func(o *reconcile.Order, p *reconcile.Policy) []reconcile.Finding {
		all := reconcile.CheckOrder(*o, *p)
		if f != nil {
			all = append(all, *f)
		}
		return all
	}
}

func counter(last, next string, change func(*reconcile.Step)) *reconcile.Finding {
	s := reconcile.Step{Plant: "ulm", Agent: "a1", Source: "press", Tag: "good", Last: d(last), New: d(next), LastAt: now.Add(-time.Minute), At: now, HourOutput: d("600")}
	change(&s)
	return reconcile.CheckStep(s)
}

func stock(change func(*reconcile.Balance)) *reconcile.Finding {
	b := reconcile.Balance{Plant: "ulm", ERP: "erp", Site: "ulm", Item: "STEEL", Unit: "KGM", Opening: d("1000"), Movements: d("-200"), Held: d("800"), AsOf: now, ReadTwice: true}
	change(&b)
	return reconcile.CheckBalance(b)
}

func seeds() []seed {
	type O = *reconcile.Order
	type P = *reconcile.Policy
	key := func(o O) string { return o.Facts[0].Key.String() }
	again := func(o O, change func(e *object.Effect)) {
		e := document(o, o.Facts[0])
		e.Number, e.BookedAt = "4999999999", e.BookedAt.Add(30*time.Second)
		e.Movements = e.Movements[:min(1, len(e.Movements))]
		change(&e)
		o.Effects = append(o.Effects, e)
	}
	return []seed{
		{"two documents, one key", reconcile.Duplicate, true, order(func(o O, _ P) { again(o, func(*object.Effect) {}) })},
		{"two documents, another user", reconcile.Duplicate, false, order(func(o O, _ P) { again(o, func(e *object.Effect) { e.User = "MILLER" }) })},
		{"two documents, no key", reconcile.Duplicate, false, order(func(o O, _ P) { again(o, func(e *object.Effect) { e.Key = "" }) })},
		{"effect gone", reconcile.Missing, true, order(func(o O, _ P) { drop(o, key(o)) })},
		{"effect gone after 3 look-ups", reconcile.Missing, false, order(func(o O, _ P) { drop(o, key(o)); o.Facts[0].Tries = 3 })},
		{"nobody can tell", reconcile.Missing, false, order(func(o O, _ P) {
			drop(o, key(o))
			o.Facts[0].State, o.Facts[0].Code, o.Facts[0].CannotTell, o.Facts[0].Document = "parked", "cannot_tell", true, ""
		})},
		{"movement failed", reconcile.MovementFailed, true, order(func(o O, _ P) {
			o.Effects[0].Movements = []object.EffectMovement{{Kind: object.Yield, Item: "GEAR", Quantity: o.Effects[0].Quantities[0].Quantity, Failed: true}}
			o.Effects[0].BookedAt = now.Add(-10 * time.Minute)
		})},
		{"movement failed for two hours", reconcile.MovementFailed, false, order(func(o O, _ P) { o.Effects[0].Movements = nil })},
		{"backflush and MES", reconcile.DoubleUse, true, order(func(o O, p P) {
			p.BackflushOwner = "mes"
			o.Effects[0].Movements = append(o.Effects[0].Movements, object.EffectMovement{Kind: object.Consumed, Item: "STEEL", Quantity: object.Quantity{Value: d("20"), Unit: "KGM"}, Backflush: true, Document: "4900000009/2026/2"})
		})},
		{"backflush inside of a confirmation", reconcile.DoubleUse, false, order(func(o O, p P) {
			p.BackflushOwner = "mes"
			o.Effects[0].Movements = append(o.Effects[0].Movements, object.EffectMovement{Kind: object.Consumed, Item: "STEEL", Quantity: object.Quantity{Value: d("20"), Unit: "KGM"}, Backflush: true})
		})},
		{"backflush and MES, no policy", reconcile.DoubleUse, false, order(func(o O, _ P) {
			o.Effects[0].Movements = append(o.Effects[0].Movements, object.EffectMovement{Kind: object.Consumed, Item: "STEEL", Quantity: object.Quantity{Value: d("20"), Unit: "KGM"}, Backflush: true})
		})},
		{"too much material", reconcile.UseOff, false, order(func(o O, _ P) {
			f := fact(o.OrderNo, "more", now.Add(-time.Hour), time.Second)
			f.Kind = object.KindConsumption
			f.Consumption = &object.Consumption{OrderNo: o.OrderNo, Operation: "10", Item: "STEEL", Lot: "L1", Movement: object.Issue, Quantity: object.Quantity{Value: d("1300"), Unit: "KGM"}}
			book(o, f, "STEEL")
		})},
		{"too little material at the end", reconcile.UseOff, false, order(func(o O, _ P) {
			o.Work.State, o.Work.Components[0].Required.Value = object.OrderCompleted, d("2500")
		})},
		{"more than ordered", reconcile.OverDelivery, false, order(func(o O, _ P) { o.Work.Quantity.Value, o.Work.Components = d("0.5"), nil })},
		{"grams for kilograms", reconcile.UnitMismatch, true, order(func(o O, p P) {
			p.Factors = []reconcile.Factor{{Item: "STEEL", From: "KGM", To: "GRM", Times: d("1000")}}
			e := &o.Effects[1]
			e.Quantities[0].Value = e.Quantities[0].Value.Mul(d("1000"))
			e.Movements[0].Value = e.Quantities[0].Value
		})},
		{"dozens for pieces, no factor", reconcile.UnitMismatch, false, order(func(o O, _ P) {
			e := &o.Effects[1]
			e.Quantities[0].Value = e.Quantities[0].Value.Mul(d("12"))
			e.Movements[0].Value = e.Quantities[0].Value
		})},
		{"unit refused", reconcile.UnitMismatch, false, order(func(o O, _ P) { refuse(o, "BM/302", 10*time.Minute) })},
		{"word that no mapping knows", reconcile.MasterMissing, false, order(func(o O, _ P) { refuse(o, "mapping_missing", 10*time.Minute) })},
		{"period closed", reconcile.PeriodClosed, true, order(func(o O, _ P) { refuse(o, "M7/053", 10*time.Minute) })},
		{"period closed, policy asks", reconcile.PeriodClosed, false, order(func(o O, p P) { p.FirstOpenDay = false; refuse(o, "period_closed", 10*time.Minute) })},
		{"order locked", reconcile.OrderLocked, true, order(func(o O, _ P) { refuse(o, "C1/005", 10*time.Minute).State = "due" })},
		{"order locked for 40 min", reconcile.OrderLocked, false, order(func(o O, _ P) { refuse(o, "C1/005", 40*time.Minute).State = "due" })},
		{"technically complete", reconcile.OrderClosed, true, order(func(o O, p P) {
			p.MayReopen = true
			o.Work.State = object.OrderCompleted
			refuse(o, "CO/688", 10*time.Minute)
		})},
		{"closed", reconcile.OrderClosed, false, order(func(o O, p P) {
			p.MayReopen = true
			o.Work.State = object.OrderClosed
			refuse(o, "CO/688", 10*time.Minute)
		})},
		{"deficit", reconcile.Deficit, true, order(func(o O, _ P) { refuse(o, "M7/021", 10*time.Minute) })},
		{"deficit, no receipt for 40 min", reconcile.Deficit, false, order(func(o O, _ P) { refuse(o, "insufficient_stock", 40*time.Minute) })},
		{"balance below zero", reconcile.Deficit, false, other(stock(func(b *reconcile.Balance) { b.Held = d("-5") }))},
		{"another plant", reconcile.WrongPlace, false, order(func(o O, _ P) { o.Facts[0].Plant = "jena" })},
		{"date by UTC near midnight", reconcile.WrongPlace, true, order(func(o O, _ P) {
			f := refuse(o, "", time.Hour)
			f.State, f.OccurredAt, f.PostingDate = "due", time.Date(2026, 11, 25, 23, 30, 0, 0, time.UTC), "2026-11-25" // 00:30 of the 26th in Berlin
			f.RecordedAt, f.ReceivedAt = f.OccurredAt, f.OccurredAt
		})},
		{"clock ahead", reconcile.ClockSkew, true, order(func(o O, _ P) { o.Facts[0].OccurredAt = o.Facts[0].ReceivedAt.Add(2 * time.Minute) })},
		{"clock ahead again and again", reconcile.ClockSkew, false, order(func(o O, _ P) {
			for i := range o.Facts {
				o.Facts[i].ClockSuspect = true
			}
			for i := len(o.Facts); i < 3; i++ {
				f := fact(o.OrderNo, fmt.Sprint("s", i), now.Add(-time.Hour), time.Second)
				f.Kind, f.ClockSuspect, f.State = object.KindException, true, "not_posted"
				o.Facts = append(o.Facts, f)
			}
		})},
		{"reset held by the rule", reconcile.CounterReset, false, other(counter("5000", "3", func(s *reconcile.Step) { s.Made = object.StepHeld }))},
		{"below what is confirmed", reconcile.CounterStep, false, other(counter("5000", "4990", func(s *reconcile.Step) { s.Made, s.HourOutput = object.StepWaits, d("0") }))},
		{"rework over the rollover, more than an hour's", reconcile.CounterStep, false, other(counter("4", "9000", func(s *reconcile.Step) { s.Made, s.Modulus = object.StepCorrected, d("10000") }))},
		{"rollover", reconcile.CounterReset, true, other(counter("32760", "5", func(s *reconcile.Step) { s.Modulus, s.MaxRate = d("32768"), d("2") }))},
		{"reset with a boot", reconcile.CounterReset, true, other(counter("5000", "3", func(s *reconcile.Step) { s.NewEpoch = true }))},
		{"reset without a mark", reconcile.CounterReset, false, other(counter("5000", "3", func(*reconcile.Step) {}))},
		{"rework", reconcile.CounterStep, true, other(counter("5000", "4990", func(*reconcile.Step) {}))},
		{"rework of a day", reconcile.CounterStep, false, other(counter("5000", "4000", func(*reconcile.Step) {}))},
		{"gap, still buffered", reconcile.SequenceGap, true, other(reconcile.CheckGap(reconcile.Gap{Plant: "ulm", Agent: "a1", Source: "press", Expected: 10, Got: 14, At: now, Buffered: true}))},
		{"gap, buffer lost", reconcile.SequenceGap, false, order(func(o O, _ P) { o.Edge[0].Stored = o.Edge[0].Stored.Add(d("7")) })},
		{"lot not issued", reconcile.LotMismatch, false, order(func(o O, _ P) { o.Facts[1].Consumption.Lot = "L9" })},
		{"lot blocked", reconcile.LotMismatch, false, order(func(o O, _ P) {
			o.Lots["STEEL/L1"] = reconcile.Lot{Item: "STEEL", Lot: "L1", Issued: true, Blocked: true}
		})},
		{"balance read at two instants", reconcile.BalanceDrift, true, other(stock(func(b *reconcile.Balance) { b.Held, b.ReadTwice = d("790"), false }))},
		{"balance explained by a fact", reconcile.BalanceDrift, true, other(stock(func(b *reconcile.Balance) { b.Held, b.Unposted = d("790"), map[string]decimal.Decimal{"K1": d("10")} }))},
		{"balance off", reconcile.BalanceDrift, false, other(stock(func(b *reconcile.Balance) { b.Held = d("790") }))},
		{"unknown item", reconcile.MasterMissing, true, order(func(o O, _ P) { refuse(o, "unknown_item", 10*time.Minute) })},
		{"unknown item after the pull", reconcile.MasterMissing, false, order(func(o O, _ P) { refuse(o, "M3/305", 40*time.Minute) })},
	}
}

// Every type is seeded, found, called by its name, and healed or handed to a person as stated. What else a seed brings is an error.
func TestSeededDiscrepanciesAreFoundAndClassified(t *testing.T) {
	types := reconcile.Types()
	table := map[reconcile.Type]map[reconcile.Type]int{}
	healed, handed := map[reconcile.Type]int{}, map[reconcile.Type]int{}
	for _, s := range seeds() {
		for n := range 20 {
			o, p := clean(n, rand.New(rand.NewPCG(uint64(n), 7))), reconcile.DefaultPolicy()
			found := s.spoil(&o, &p)
			if table[s.want] == nil {
				table[s.want] = map[reconcile.Type]int{}
			}
			if len(found) == 0 {
				table[s.want]["none"]++
				t.Errorf("%s: nothing was found", s.name)
			}
			for _, f := range found {
				table[s.want][f.Type]++
				if f.Type != s.want {
					t.Errorf("%s: found %s of %s (%s)", s.name, f.Type, f.Subject, f.Why)
					continue
				}
				changes := reconcile.Merge(now, nil, []reconcile.Finding{f}, reconcile.Used{}, p)
				if len(changes) != 1 || changes[0].Begin != s.heals || (changes[0].State == reconcile.Healing) != s.heals || (changes[0].State == reconcile.Escalated) == s.heals {
					t.Errorf("%s: %+v, want healing %v", s.name, changes, s.heals)
				}
				if s.heals {
					healed[s.want]++
				} else {
					handed[s.want]++
				}
				if f.Subject == "" || f.Owner == "" || f.Severity == "" || f.Proposed.Text == "" || f.Why == "" || len(f.Evidence) == 0 && f.Type != reconcile.OverDelivery && f.Type != reconcile.SequenceGap {
					t.Errorf("%s: the finding lacks something: %+v", s.name, f)
				}
			}
		}
	}
	t.Log("confusion table: a row for what was seeded, a column for what was found; then healed, handed to a person")
	head := fmt.Sprintf("%-26s", "")
	for i := range types {
		head += fmt.Sprintf("%4d", i+1)
	}
	t.Log(head + " none  heal  hand")
	for i, want := range types {
		row := fmt.Sprintf("%2d %-23s", i+1, want)
		for _, got := range types {
			row += fmt.Sprintf("%4s", strings.ReplaceAll(fmt.Sprint(table[want][got]), " ", ""))
		}
		t.Logf("%s%5d%6d%6d", row, table[want]["none"], healed[want], handed[want])
		if table[want][want] == 0 {
			t.Errorf("type %s was never seeded", want)
		}
	}
}

// What an operation before the last yields is received nowhere and is not what the order made; a person who confirms may also
// receive.
func TestOperationsBeforeTheLastAndConfirmationsByHandRaiseNoFalseAlarm(t *testing.T) {
	o := clean(1, rand.New(rand.NewPCG(1, 7)))
	o.MES, o.Edge = nil, nil
	for i := range o.Facts {
		f := o.Facts[i]
		if f.Confirmation == nil {
			continue
		}
		f.Key = factkey.Of("before|" + f.Key.String())
		c := *f.Confirmation
		c.Operation, c.Yield, c.Scrap = "5", d("450"), d("0")
		f.Confirmation = &c
		e := document(&o, f)
		e.Interim, e.Operation, e.Movements = true, "5", nil
		o.Facts, o.Effects = append(o.Facts, f), append(o.Effects, e)
	}
	byHand := document(&o, o.Facts[0])
	byHand.Key, byHand.Movements, byHand.BookedAt = "", nil, now.Add(-24*time.Hour)
	o.Effects = append(o.Effects, byHand)
	for _, f := range reconcile.CheckOrder(o, reconcile.DefaultPolicy()) {
		t.Errorf("%s of %s: %s", f.Type, f.Subject, f.Why)
	}
}

// What the system has accepted and not booked is neither missing nor in any sum, and not a second document either.
func TestPendingDocumentsAreNeitherMissingNorHeld(t *testing.T) {
	o := clean(2, rand.New(rand.NewPCG(2, 7)))
	o.MES, o.Edge = nil, nil
	o.Effects[0].State, o.Effects[0].BookedAt = object.EffectPending, time.Time{}
	first, second := o.Facts[0].Key.String(), document(&o, o.Facts[1])
	second.State = object.EffectPending
	o.Effects = append(o.Effects, second)
	for _, f := range reconcile.CheckOrder(o, reconcile.DefaultPolicy()) {
		t.Errorf("%s of %s: %s", f.Type, f.Subject, f.Why)
	}
	for _, l := range reconcile.Statement(o, nil) {
		pending := l.Fact == first
		if pending != strings.Contains(l.Documents, "(pending)") && l.Fact != second.Key || pending && (!l.Held.IsZero() || l.Agrees && !l.Intended.IsZero()) {
			t.Errorf("%+v", l)
		}
	}
	o.Work.Quantity.Value, o.Work.Components = d("1"), nil
	o.Effects = []object.Effect{o.Effects[0]}
	o.Effects[0].Quantities[0].Value = d("999")
	for _, f := range reconcile.CheckOrder(o, reconcile.DefaultPolicy()) {
		if f.Type == reconcile.OverDelivery {
			t.Errorf("what waits was called delivered: %+v", f)
		}
	}
}

func TestCleanOrdersRaiseNoFalseAlarm(t *testing.T) {
	facts, documents := 0, 0
	for n := range 1000 {
		o := clean(n, rand.New(rand.NewPCG(uint64(n), 11)))
		facts, documents = facts+len(o.Facts), documents+len(o.Effects)
		for _, f := range reconcile.CheckOrder(o, reconcile.DefaultPolicy()) {
			t.Errorf("order %s: %s of %s: %s", o.OrderNo, f.Type, f.Subject, f.Why)
		}
		for _, l := range reconcile.Statement(o, nil) {
			if !l.Agrees {
				t.Errorf("order %s: %v", o.OrderNo, l.Fields())
			}
		}
	}
	t.Logf("1000 clean orders with %d facts and %d documents: 0 alarms", facts, documents)
}

// The end of an operation is no document of its own everywhere, and an order that goes on says nothing against it.
func TestEndOfAnOperationIsNotMissedInAnOrderThatGoesOn(t *testing.T) {
	now := time.Now()
	for _, x := range []struct {
		operation string
		closing   bool
		found     int
	}{{"10", false, 0}, {"10", true, 1}, {"", true, 1}} {
		f := reconcile.Fact{State: "verified", Document: "D1", Since: now.Add(-time.Hour), Closing: x.closing}
		f.Key, f.Kind, f.Plant, f.OccurredAt = factkey.Of(x.operation), object.KindOrderState, "ulm", now.Add(-time.Hour)
		f.OrderState = &object.ShopFloorState{OrderNo: "WO-1", State: object.FloorFinished, Operation: x.operation}
		o := reconcile.Order{Plant: "ulm", ERP: "erp", OrderNo: "WO-1", Asked: true, Now: now, AsOf: now, Work: &object.WorkOrder{OrderNo: "WO-1", State: object.OrderInProgress}, Facts: []reconcile.Fact{f}}
		found := 0
		for _, d := range reconcile.CheckOrder(o, reconcile.DefaultPolicy()) {
			if d.Type == reconcile.Missing {
				found++
			}
		}
		if found != x.found {
			t.Errorf("%+v: %d are missing", x, found)
		}
	}
}
