package hub

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/posting"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/wire"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// floor is a hub whose clock stands where the test sets it, with two agents of plant ulm: "mes" says that an order is
// finished, "line1" counts it.
type floor struct {
	t          *testing.T
	h          *Hub
	clock      time.Time
	mes, line1 store.Agent
	seq        uint64
	finished   store.Fact
}

const order = "WO-1"

func newFloor(t *testing.T) *floor {
	f := &floor{t: t, clock: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	now := func() time.Time { return f.clock }
	s, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "hub.db"), store.Options{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	f.h = &Hub{store: s, now: now}
	f.h.cfg.Posting.Quiet = 10 * time.Second
	f.update(func(tx *store.Tx) error {
		for name, into := range map[string]*store.Agent{"mes": &f.mes, "line1": &f.line1} {
			a, err := tx.AgentByName("ulm", name)
			if err != nil {
				return err
			}
			*into = a
			if err := tx.Connect(a.ID, "1", name); err != nil {
				return err
			}
		}
		return nil
	})
	f.finished = f.deliver(f.mes, fact("finished", func(x *object.Fact) {
		x.Kind, x.OrderState = object.KindOrderState, &object.ShopFloorState{OrderNo: order, Revision: 1, State: object.FloorFinished}
	}))
	f.clock = f.clock.Add(time.Minute)
	f.says(f.mes, nil)
	f.clock = f.clock.Add(time.Minute)
	return f
}

func fact(name string, set func(*object.Fact)) object.Fact {
	position := factkey.Position("test", name)
	x := object.Fact{
		Key: factkey.Of(position), Plant: "ulm", Source: "mes", TimeZone: "UTC", Position: position,
		OccurredAt: time.Date(2026, 3, 1, 11, 59, 0, 0, time.UTC), RecordedAt: time.Date(2026, 3, 1, 11, 59, 0, 0, time.UTC),
	}
	set(&x)
	return x
}

func (f *floor) update(do func(tx *store.Tx) error) {
	f.t.Helper()
	if err := f.h.store.Update(context.Background(), do); err != nil {
		f.t.Fatal(err)
	}
}

// deliver stores a fact and lets the engine plan it; no system is configured, so nothing else happens to it.
func (f *floor) deliver(a store.Agent, x object.Fact) store.Fact {
	f.t.Helper()
	body, err := wire.EncodeFact(x)
	if err != nil {
		f.t.Fatal(err)
	}
	f.seq++
	b := store.Batch{AgentID: a.ID, Agent: a.Name(), Generation: "g", FirstSeq: f.seq, Records: []store.Record{{Key: x.Key, Body: body}}}
	if _, err := f.h.store.AppendFacts(context.Background(), []store.Batch{b}); err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	planned := make(chan error, 1)
	changed, stop := f.h.store.Watch(store.TopicPostings)
	defer stop()
	go func() { planned <- posting.New(posting.Options{Store: f.h.store, Now: f.h.now}).Run(ctx) }()
	for {
		stored, err := f.h.store.FactByKey(context.Background(), x.Key.String())
		if err != nil {
			f.t.Fatal(err)
		}
		if stored.Posting != nil {
			cancel()
			if err := <-planned; err != nil {
				f.t.Fatal(err)
			}
			return stored
		}
		<-changed
	}
}

// says stores a report of an agent whose sources are well and which holds nothing; set changes it.
func (f *floor) says(a store.Agent, set func(*pb.AgentStatus)) {
	f.t.Helper()
	m := &pb.AgentStatus{At: timestamppb.New(f.clock), State: "ok", Sources: []*pb.SourceStatus{{Name: "press", Kind: "opcua", State: "ok"}}}
	if set != nil {
		set(m)
	}
	if err := f.h.store.SetStatus(context.Background(), a.ID, m); err != nil {
		f.t.Fatal(err)
	}
}

func (f *floor) counts(order, counted, stored string) func(*pb.AgentStatus) {
	return func(m *pb.AgentStatus) {
		m.Ledger = []*pb.LedgerRow{{Source: "press", OrderNo: order, Item: "P", Kind: "yield", Unit: "C62", Counted: counted, Stored: stored}}
	}
}

// waitsFor checks the reason why the order may not be closed; with no words it may be.
func (f *floor) waitsFor(words ...string) {
	f.t.Helper()
	reason, err := f.h.mayClose(f.t.Context(), f.finished)
	if err != nil {
		f.t.Fatal(err)
	}
	if len(words) == 0 && reason != "" {
		f.t.Fatalf("the order may not be closed: %s", reason)
	}
	if len(words) > 0 && reason == "" {
		f.t.Fatalf("the order may be closed, although it %v", words)
	}
	for _, w := range words {
		if !strings.Contains(reason, w) {
			f.t.Errorf("%q does not name %q", reason, w)
		}
	}
}

func TestOrderMayBeClosedWhenThePlantSaysThatNothingIsLeft(t *testing.T) {
	f := newFloor(t)
	f.waitsFor()
	f.says(f.line1, f.counts(order, "60", "60"))
	f.waitsFor()
}

func TestOrderWaitsWhileFactsOfItStillCome(t *testing.T) {
	f := newFloor(t)
	f.deliver(f.line1, fact("late", func(x *object.Fact) {
		x.Kind, x.Confirmation = object.KindConfirmation, &object.Confirmation{OrderNo: order, Item: "P", Unit: "C62", Yield: decimal.NewFromInt(1)}
	}))
	f.waitsFor("nothing new", "10s")
	f.clock = f.clock.Add(9 * time.Second)
	f.waitsFor("nothing new")
	f.clock = f.clock.Add(2 * time.Second)
	f.waitsFor()
	f.deliver(f.line1, fact("another order", func(x *object.Fact) {
		x.Kind, x.Confirmation = object.KindConfirmation, &object.Confirmation{OrderNo: "WO-2", Item: "P", Unit: "C62", Yield: decimal.NewFromInt(1)}
	}))
	f.waitsFor()
}

func TestOrderWaitsForAnAgentThatIsNotConnected(t *testing.T) {
	f := newFloor(t)
	if err := f.h.store.Disconnect(t.Context(), f.mes.ID, "mes"); err != nil {
		t.Fatal(err)
	}
	f.waitsFor("ulm/mes", "not connected")
}

func TestOrderWaitsUntilTheAgentHasSpokenAfterTheEnd(t *testing.T) {
	f := newFloor(t)
	f.finished.ReceivedAt = f.clock // what the agent said before tells nothing
	f.h.cfg.Posting.Quiet = time.Nanosecond
	f.waitsFor("ulm/mes", "says that nothing")
	f.clock = f.clock.Add(time.Second)
	f.says(f.mes, nil)
	f.waitsFor()
}

func TestOrderWaitsForFactsThatTheAgentHolds(t *testing.T) {
	f := newFloor(t)
	pending := func(at time.Time, ahead time.Duration) {
		f.says(f.mes, func(m *pb.AgentStatus) {
			m.BusinessPending, m.OldestPending, m.At = 1, timestamppb.New(at.Add(ahead)), timestamppb.New(f.clock.Add(ahead))
		})
	}
	for _, ahead := range []time.Duration{0, 10 * time.Minute, -10 * time.Minute} { // a wrong clock at the plant changes nothing
		pending(f.finished.ReceivedAt.Add(-time.Second), ahead)
		f.waitsFor("ulm/mes", "not handed over")
		pending(f.finished.ReceivedAt.Add(10*time.Second), ahead) // facts of the next order
		f.waitsFor()
	}
}

func TestOrderWaitsForASourceThatDoesNotSpeak(t *testing.T) {
	f := newFloor(t)
	for _, state := range []string{"connecting", "failed", "stopped", "held"} {
		f.says(f.mes, func(m *pb.AgentStatus) { m.Sources[0].State = state })
		f.waitsFor(`"press"`, "ulm/mes", state)
	}
}

func TestOrderWaitsForCountsThatNoConfirmationHasClosed(t *testing.T) {
	f := newFloor(t)
	f.says(f.line1, f.counts(order, "60", "57.5"))
	f.waitsFor("2.5 C62 of yield", `"press"`, "ulm/line1")
	f.says(f.line1, f.counts("WO-2", "60", "57.5"))
	f.waitsFor()
}

func TestOrderWaitsForEveryAgentThatCountsOrGotIt(t *testing.T) {
	f := newFloor(t)
	if err := f.h.store.Disconnect(t.Context(), f.line1.ID, "line1"); err != nil {
		t.Fatal(err)
	}
	f.waitsFor() // line1 has nothing to do with the order
	f.says(f.line1, f.counts(order, "60", "60"))
	f.waitsFor("ulm/line1", "not connected")

	f = newFloor(t)
	f.update(func(tx *store.Tx) error {
		return tx.PutOrder(store.Order{Agent: "line1", Sent: 1, Content: []byte("c"), Order: object.WorkOrder{OrderNo: order, ERP: "erp", Plant: "ulm", Revision: 1}}, true)
	})
	f.waitsFor("ulm/line1", "says that nothing")
	f.says(f.line1, nil)
	f.waitsFor()
}

// One source that does not work must hold up the orders that it feeds, and no others of its agent.
func TestOrderOfAnotherWorkCentreDoesNotWaitForASourceThatDoesNotSpeak(t *testing.T) {
	f := newFloor(t)
	f.update(func(tx *store.Tx) error {
		for no, center := range map[string]string{order: "PRESS-1", "WO-2": "PRESS-2", "WO-3": "PRESS-1"} {
			o := store.Order{Agent: "mes", Content: []byte("c"), Order: object.WorkOrder{OrderNo: no, ERP: "erp", Plant: "ulm", Revision: 1, WorkCenter: center}}
			if err := tx.PutOrder(o, true); err != nil {
				return err
			}
		}
		return nil
	})
	broken := func(order string) {
		t.Helper()
		f.says(f.mes, func(m *pb.AgentStatus) {
			if order != "" {
				f.counts(order, "60", "60")(m)
			}
			m.Sources = append(m.Sources, &pb.SourceStatus{Name: "scale", Kind: "opcua", State: "ok"})
			m.Sources[0].State = "failed"
		})
	}
	broken("") // nothing is known of the source yet
	f.waitsFor(`"press"`, "ulm/mes", "failed")
	broken("WO-2") // it works for another press
	f.waitsFor()
	broken("WO-3") // it works for this one
	f.waitsFor(`"press"`, "ulm/mes", "failed")

	f = newFloor(t) // a source that only sends facts is known by these
	f.update(func(tx *store.Tx) error {
		for no, center := range map[string]string{order: "PRESS-1", "WO-2": "PRESS-2"} {
			o := store.Order{Agent: "mes", Content: []byte("c"), Order: object.WorkOrder{OrderNo: no, ERP: "erp", Plant: "ulm", Revision: 1, WorkCenter: center}}
			if err := tx.PutOrder(o, true); err != nil {
				return err
			}
		}
		return nil
	})
	started := func(name, no string) {
		f.deliver(f.mes, fact(name, func(x *object.Fact) {
			x.Source, x.Kind, x.OrderState = "press", object.KindOrderState, &object.ShopFloorState{OrderNo: no, Revision: 1, State: object.FloorStarted}
		}))
		f.clock = f.clock.Add(time.Minute)
		f.says(f.mes, func(m *pb.AgentStatus) { m.Sources[0].State = "failed" })
	}
	started("other", "WO-2")
	f.waitsFor()
	started("this", order)
	f.waitsFor(`"press"`, "failed")
}
