package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/checking"
	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/wire"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

var compared = flag.Int("compared", 1_000_000, "facts, and as many documents, that the part reconcile compares")

const (
	factsOfOrder = 100
	flatGoal     = 0.7 // most memory with a tenth of the facts, as a share of the most with all
	missingOf    = 50_000
)

// reconciling compares many facts with as many documents, once a tenth of them and once all.
func reconciling(ctx context.Context, dir, _ string) error {
	var peaks []float64
	for _, n := range []int{*compared / 10, *compared} {
		b := &ledger{orders: max(n/factsOfOrder, 1), n: n}
		peak, err := b.measure(ctx, filepath.Join(dir, fmt.Sprint(n)))
		if err != nil {
			return err
		}
		peaks = append(peaks, peak)
	}
	fmt.Printf("ratio reconcile_memory_flat %.2f %.2f\n", peaks[0]/peaks[1], flatGoal)
	return nil
}

// ledger is a system that holds a document for each fact but a few. It makes them when it is asked and keeps none.
type ledger struct {
	connector.Connector
	orders, n int
}

func (b *ledger) Capabilities() connector.Capabilities {
	return connector.Capabilities{System: "erp", ExternalKey: true}
}

func (b *ledger) order(i int) string { return fmt.Sprintf("%08d", i%b.orders) }

var benchTime = time.Date(2026, 11, 25, 6, 0, 0, 0, time.UTC)

func (b *ledger) fact(i int) object.Fact {
	position := factkey.Position("bench", fmt.Sprint(i))
	at := benchTime.Add(time.Duration(i) * time.Millisecond)
	from := decimal.NewFromInt(int64(i / b.orders * 3))
	return object.Fact{Key: factkey.Of(position), Kind: object.KindConfirmation, Plant: "ulm", Source: "press", Rule: "r", TimeZone: "Europe/Berlin", Position: position, OccurredAt: at, RecordedAt: at,
		Confirmation: &object.Confirmation{OrderNo: b.order(i), Operation: "0010", Item: "P", Unit: "C62", Yield: decimal.NewFromInt(3),
			CounterRange: &object.CounterRange{Tag: "good", Epoch: "1", From: from, To: from.Add(decimal.NewFromInt(3))}}}
}

// Effects implements connector.EffectReader. One document in missingOf is not there.
func (b *ledger) Effects(_ context.Context, no string) (connector.Effects, error) {
	var o int
	if _, err := fmt.Sscanf(no, "%d", &o); err != nil {
		return connector.Effects{}, err
	}
	out := connector.Effects{Order: object.WorkOrder{OrderNo: no, Item: "P", State: object.OrderInProgress, Quantity: object.Quantity{Value: decimal.NewFromInt(1_000_000), Unit: "C62"}}}
	for i := o; i < b.n; i += b.orders {
		if i%missingOf == missingOf/2 {
			continue
		}
		q := object.Quantity{Value: decimal.NewFromInt(3), Unit: "C62"}
		out.Documents = append(out.Documents, object.Effect{Number: fmt.Sprint(4_900_000_000 + i), Key: b.fact(i).Key.String(), Kind: object.KindConfirmation, OrderNo: no, Operation: "0010",
			State: object.EffectBooked, PostingDate: "2026-11-25", BookedAt: benchTime, Quantities: []object.EffectQuantity{{Kind: object.Yield, Item: "P", Quantity: q}},
			Movements: []object.EffectMovement{{Kind: object.Yield, Item: "P", Quantity: q}}})
	}
	return out, nil
}

func (b *ledger) measure(ctx context.Context, dir string) (peak float64, err error) {
	s, err := store.Open(ctx, filepath.Join(dir, "hub.db"), store.Options{})
	if err != nil {
		return 0, err
	}
	defer s.Close()
	if err := b.fill(ctx, s); err != nil {
		return 0, fmt.Errorf("fill the store: %w", err)
	}
	policy := reconcile.DefaultPolicy()
	policy.Limits = reconcile.Limits{} // nothing is healed: there are no books
	c := checking.New(checking.Options{Store: s, Connectors: map[string]connector.Connector{"erp": b}, Policy: policy, Now: func() time.Time { return time.Now().Add(time.Hour) }})
	runtime.GC()
	watching, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { peak = mostHeap(watching) })
	began, worked := time.Now(), processorTime(os.Getpid())
	run, err := c.All(ctx, "asked", store.Compared{}, nil)
	took := time.Since(began)
	worked = processorTime(os.Getpid()) - worked
	stop()
	wg.Wait()
	if err != nil {
		return 0, err
	}
	want := int64(b.n / missingOf)
	if b.n%missingOf > missingOf/2 {
		want++
	}
	fmt.Printf("  %d facts against %d documents in %d orders: %.1f s, %.0f/s, %.1f s of a processor, most memory %.0f MB; %d missing of %d that are\n",
		run.Facts, run.Documents, run.Orders, took.Seconds(), float64(run.Facts)/took.Seconds(), worked.Seconds(), peak, run.Found, want)
	if run.Found != want || run.Facts != int64(b.n) {
		return 0, fmt.Errorf("found %d of %d missing documents in %d facts", run.Found, want, run.Facts)
	}
	return peak, nil
}

// mostHeap is the most memory in MB that the process's objects took until ctx ended.
func mostHeap(ctx context.Context) (most float64) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		most = max(most, float64(m.HeapAlloc)/1e6)
		select {
		case <-ctx.Done():
			return most
		case <-tick.C:
		}
	}
}

// fill stores the facts as they are after they were posted and read back.
func (b *ledger) fill(ctx context.Context, s *store.Store) error {
	const atOnce = 2000
	var agent store.Agent
	if err := s.Update(ctx, func(tx *store.Tx) (err error) { agent, err = tx.AgentByName("ulm", "line1"); return err }); err != nil {
		return err
	}
	for first := 0; first < b.n; first += atOnce {
		var records []store.Record
		for i := first; i < min(first+atOnce, b.n); i++ {
			f := b.fact(i)
			body, err := wire.EncodeFact(f)
			if err != nil {
				return err
			}
			records = append(records, store.Record{Key: f.Key, Body: body, Fact: &f})
		}
		if _, err := s.AppendFacts(ctx, []store.Batch{{AgentID: agent.ID, Agent: "ulm/line1", Generation: "g", FirstSeq: uint64(first) + 1, Records: records}}); err != nil {
			return err
		}
		_, facts, err := s.Unplanned(ctx, atOnce)
		if err != nil {
			return err
		}
		err = s.Repeat(ctx, func(tx *store.Tx) error {
			all := make([]store.Planned, 0, len(facts))
			for _, f := range facts {
				all = append(all, store.Planned{Fact: f, Lines: f.Fact.FactQuantities(), Posting: &store.Posting{FactID: f.ID, ERP: "erp", OrderNo: f.Fact.OrderNo(), Plant: "ulm", State: store.PostingVerified,
					Amounts: &store.Amounts{Yield: f.Fact.Confirmation.Yield}, Document: fmt.Sprint(4_900_000_000 + f.ID), Since: tx.Now()}})
			}
			if err := tx.AddPlanned(all); err != nil {
				return err
			}
			return tx.SetPlanCursor(facts[len(facts)-1].ID)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
