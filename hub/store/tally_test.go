package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/wire"
	"github.com/linekeeper/linekeeper/proto/factkey"
	"github.com/shopspring/decimal"
)

// seed of a random test; SEED chooses it.
func seed(t *testing.T) uint64 {
	n, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64)
	if err != nil {
		n = rand.Uint64()
	}
	t.Logf("SEED=%d", n)
	return n
}

// books is a store with facts that are planned and whose postings change at random.
type books struct {
	t     *testing.T
	s     *Store
	rng   *rand.Rand
	agent Agent
	n     int
	facts map[int64]Fact
}

func (b *books) fact() object.Fact {
	b.n++
	at := time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)
	f := object.Fact{Key: factkey.Of(fmt.Sprint("f", b.n)), Plant: "ulm", Source: "s", TimeZone: "UTC", OccurredAt: at, RecordedAt: at}
	number := func() decimal.Decimal { return decimal.New(int64(b.rng.IntN(5)), -int32(b.rng.IntN(3))) }
	order := fmt.Sprintf("WO-%d", b.rng.IntN(4))
	switch b.rng.IntN(4) {
	case 0:
		f.Kind = object.KindQuality
		f.Quality = &object.Quality{OrderNo: order, Status: "OK"}
	case 1:
		f.Kind = object.KindConsumption
		movement := []object.Movement{object.Issue, object.Return}[b.rng.IntN(2)]
		f.Consumption = &object.Consumption{OrderNo: order, Item: "M", Movement: movement, Quantity: object.Quantity{Value: number(), Unit: "KGM"}}
	default:
		f.Kind = object.KindConfirmation
		f.Confirmation = &object.Confirmation{OrderNo: order, Operation: "10", Item: "P", Unit: "C62", Yield: number(), Scrap: number(), Rework: number()}
	}
	if b.rng.IntN(5) == 0 {
		f.Reverses = factkey.Of("other")
	}
	return f
}

// arrive stores some facts, some of them again.
func (b *books) arrive() {
	var records []Record
	for range 1 + b.rng.IntN(6) {
		if b.rng.IntN(4) == 0 && b.n > 0 {
			b.n-- // the next one has the key of one that is there, and perhaps another content
		}
		f := b.fact()
		body, err := wire.EncodeFact(f)
		if err != nil {
			b.t.Fatal(err)
		}
		records = append(records, Record{Key: f.Key, Body: body, Fact: []*object.Fact{nil, &f}[b.rng.IntN(2)]})
	}
	batch := Batch{AgentID: b.agent.ID, Agent: b.agent.Name(), Generation: "g", FirstSeq: uint64(b.n), Records: records}
	if _, err := b.s.AppendFacts(context.Background(), []Batch{batch}); err != nil {
		b.t.Fatal(err)
	}
}

// plan plans some facts, in a transaction that is sometimes undone.
func (b *books) plan() {
	cursor, facts, err := b.s.Unplanned(context.Background(), 1+b.rng.IntN(8))
	if err != nil || len(facts) == 0 {
		return
	}
	for i, f := range facts {
		if f.ID != cursor+1+int64(i) {
			b.t.Fatalf("unplanned facts behind %d begin with %d at %d", cursor, f.ID, i)
		}
	}
	fails := b.rng.IntN(4) == 0
	err = b.s.Repeat(context.Background(), func(tx *Tx) error {
		var all []Planned
		for _, f := range facts {
			p := Planned{Fact: f, Lines: f.Fact.FactQuantities()}
			if len(p.Lines) == 1 && b.rng.IntN(3) == 0 { // a range that is known in part
				p.Lines[0].Received, p.Trimmed = p.Lines[0].Received.Div(decimal.NewFromInt(2)), "half"
			}
			if b.rng.IntN(8) > 0 {
				p.Posting = &Posting{FactID: f.ID, OrderNo: f.Fact.OrderNo(), Plant: "ulm"}
				b.alter(p.Posting)
			}
			all = append(all, p)
		}
		if err := tx.AddPlanned(all); err != nil {
			return err
		}
		if fails {
			return errUndone
		}
		return tx.SetPlanCursor(facts[len(facts)-1].ID)
	})
	if err == nil {
		for _, f := range facts {
			b.facts[f.ID] = f
		}
	}
}

var errUndone = fmt.Errorf("undone")

// alter puts a posting into any state.
func (b *books) alter(p *Posting) {
	states := []PostingState{PostingDue, PostingSending, PostingInDoubt, PostingPosted, PostingVerified, PostingParked, PostingNotPosted, PostingSettled}
	p.State = states[b.rng.IntN(len(states))]
	p.ERP = []string{"", "erp"}[b.rng.IntN(2)]
	p.Code = []string{"", "no_stock"}[b.rng.IntN(2)]
	p.Reason = []string{"", "out of stock"}[b.rng.IntN(2)]
	p.Document = []string{"", "", "D1"}[b.rng.IntN(3)]
	p.Since = time.UnixMicro(1_700_000_000_000_000 + b.rng.Int64N(1000))
	p.Amounts = nil
	if b.rng.IntN(3) > 0 {
		v := func() decimal.Decimal { return decimal.NewFromInt(int64(b.rng.IntN(4))) }
		p.Amounts = &Amounts{Yield: v(), Scrap: v(), Rework: v(), Quantity: v()}
	}
}

// change changes some postings, each in a function that is sometimes undone; they share a commit as a rule.
func (b *books) change() {
	if len(b.facts) == 0 {
		return
	}
	var all sync.WaitGroup
	defer all.Wait()
	for range 1 + max(0, b.rng.IntN(8)-4) {
		id, fails := b.any(), b.rng.IntN(4) == 0
		own := &books{t: b.t, s: b.s, rng: rand.New(rand.NewPCG(b.rng.Uint64(), 1)), facts: b.facts}
		all.Go(func() { own.changeOne(id, fails) })
	}
}

func (b *books) any() int64 {
	ids := make([]int64, 0, len(b.facts))
	for id := range b.facts {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids[b.rng.IntN(len(ids))]
}

func (b *books) changeOne(id int64, fails bool) {
	err := b.s.Unhurried(context.Background(), func(tx *Tx) error {
		p, err := tx.Posting(id)
		if err != nil {
			f := b.facts[id].Fact
			p = Posting{FactID: id, OrderNo: f.OrderNo(), Plant: "ulm"}
		}
		for range 1 + b.rng.IntN(2) {
			b.alter(&p)
			if err := tx.PutPosting(p); err != nil {
				return err
			}
		}
		if fails {
			return errUndone
		}
		return nil
	})
	if err != nil && !fails {
		b.t.Error(err)
	}
}

// check compares what is kept with what is counted anew from the facts and postings.
func (b *books) check() {
	ctx := context.Background()
	want, err := recount(ctx, b.s)
	if err != nil {
		b.t.Fatal(err)
	}
	kept, err := collect(ctx, b.s, scanSum, sumColumns)
	if err != nil {
		b.t.Fatal(err)
	}
	text := func(t tallySum) string {
		return fmt.Sprint(t.tallyKey, " of ", t.facts, ": ", t.received, " ", t.posted, " ", t.settled)
	}
	var got, due []string
	for _, t := range kept {
		got = append(got, text(t))
	}
	for _, t := range want.rows {
		due = append(due, text(*t))
	}
	counts, err := b.s.PostingCounts(ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, c := range counts {
		got = append(got, fmt.Sprint(c.ERP, c.State, c.Code, c.Count, b.oldest(c).Equal(c.Oldest)))
	}
	for k, n := range want.counts {
		due = append(due, fmt.Sprint(k.erp, k.state, k.code, n, true))
	}
	slices.Sort(got)
	slices.Sort(due)
	if !slices.Equal(got, due) {
		b.t.Fatalf("kept sums\n%q\nare not those of the facts\n%q", got, due)
	}
	b.checkNames()
}

func (b *books) oldest(c PostingCount) time.Time {
	if c.State.Settled() {
		return time.Time{}
	}
	v, err := first(context.Background(), b.s, scanValue[int64], "SELECT MIN(since + 0) FROM postings WHERE erp = $1 AND state = $2 AND code = $3", c.ERP, string(c.State), c.Code)
	if err != nil {
		b.t.Fatal(err)
	}
	return at(v)
}

// checkNames sees that each row names as many facts as it has.
func (b *books) checkNames() {
	_, lines, err := b.s.TallyInput(context.Background(), TallyFilter{})
	if err != nil {
		b.t.Fatal(err)
	}
	for _, l := range lines {
		if l.FactKey == "" && l.State != string(PostingPosted) && l.State != "" && len(l.Facts) != int(l.Count) {
			b.t.Fatalf("%d facts are named of %+v", len(l.Facts), l)
		}
	}
}

func TestKeptSumsAreThoseOfTheFactsWhateverHappens(t *testing.T) {
	seed := seed(t)
	path := filepath.Join(t.TempDir(), "hub.db")
	b := &books{t: t, rng: rand.New(rand.NewPCG(seed, 1)), facts: map[int64]Fact{}}
	reopen := func() {
		var err error
		if b.s, err = Open(context.Background(), path, Options{}); err != nil {
			t.Fatal(err)
		}
	}
	reopen()
	defer func() { b.s.Close() }()
	err := b.s.Update(context.Background(), func(tx *Tx) (err error) {
		b.agent, err = tx.AgentByName("ulm", "edge1")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 400 {
		switch n := b.rng.IntN(100); {
		case n < 30:
			b.arrive()
		case n < 55:
			b.plan()
		case n < 98:
			b.change()
		case n < 99:
			b.s.Close()
			reopen()
		default: // a database of a version that kept no sums
			err := b.s.Update(context.Background(), func(tx *Tx) error {
				_, err := tx.exec("DELETE FROM meta WHERE name = 'summed_at'")
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			b.s.Close()
			reopen()
		}
		if b.rng.IntN(10) == 0 {
			b.check()
		}
	}
	b.check()
	if len(b.facts) < 50 {
		t.Fatalf("only %d facts were planned", len(b.facts))
	}
}
