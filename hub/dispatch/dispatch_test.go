package dispatch_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/dispatch"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
	"github.com/shopspring/decimal"
	"google.golang.org/protobuf/proto"
)

// books is a system whose orders can be changed. It reports every change in the order of their coming, two at a time.
type books struct {
	connector.Connector
	mu      sync.Mutex
	log     []object.WorkOrder
	down    error
	listens int
	// mute are orders that cannot be read, and why.
	mute map[string]string
}

// cannotRead makes an order unreadable, or readable again with an empty reason.
func (b *books) cannotRead(no, reason string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mute == nil {
		b.mute = map[string]string{}
	}
	b.mute[no] = reason
}

func (b *books) put(o object.WorkOrder) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.log = append(b.log, o)
}

func (b *books) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = err
}

func (b *books) ListChanged(_ context.Context, cursor string) (connector.Changes, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.listens++
	if b.down != nil {
		return connector.Changes{}, b.down
	}
	from := 0
	fmt.Sscan(cursor, &from)
	to := min(from+2, len(b.log))
	out := connector.Changes{Cursor: fmt.Sprint(to), More: to < len(b.log)}
	for _, o := range b.log[from:to] {
		if reason := b.mute[o.OrderNo]; reason != "" {
			out.Unreadable = append(out.Unreadable, connector.Unreadable{OrderNo: o.OrderNo, Reason: reason})
		} else {
			out.Orders = append(out.Orders, o)
		}
	}
	return out, nil
}

func (b *books) Get(_ context.Context, no string) (object.WorkOrder, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := len(b.log) - 1; i >= 0; i-- {
		if b.log[i].OrderNo == no {
			if reason := b.mute[no]; reason != "" {
				return object.WorkOrder{}, errors.New(reason)
			}
			return b.log[i], nil
		}
	}
	return object.WorkOrder{}, fmt.Errorf("order %q: %w", no, connector.ErrNotFound)
}

type world struct {
	t      *testing.T
	s      *store.Store
	erp    *books
	other  *books
	routes []dispatch.Route
	d      *dispatch.Dispatcher
	stop   func()
	poll   time.Duration // 5 s when zero
}

func simulate(t *testing.T, f func(t *testing.T, w *world)) {
	path := filepath.Join(t.TempDir(), "hub.db")
	synctest.Test(t, func(t *testing.T) {
		s, err := store.Open(context.Background(), path, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		w := &world{
			t: t, s: s, erp: &books{}, other: &books{}, stop: func() {},
			routes: []dispatch.Route{{Site: "1000", WorkCenter: "PRESS*", Plant: "ulm", Agent: "edge1"}, {Site: "2000", Plant: "lyon", Agent: "edge7"}},
		}
		defer func() {
			w.stop()
			s.Close()
		}()
		w.start()
		f(t, w)
	})
}

func (w *world) start() {
	w.d = dispatch.New(dispatch.Options{
		Store: w.s, Connectors: map[string]connector.Connector{"erp": w.erp, "other": w.other}, Routes: w.routes, Poll: cmp.Or(w.poll, 5*time.Second),
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.d.Run(ctx) }()
	w.stop = func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
		w.stop = func() {}
	}
}

// say lets the system report an order and waits until the hub has heard of it.
func (w *world) say(o object.WorkOrder) {
	w.erp.put(o)
	w.pass(time.Minute)
}

func (w *world) pass(d time.Duration) {
	time.Sleep(d) // fake time
	synctest.Wait()
}

func order(no string, s object.OrderState) object.WorkOrder {
	return object.WorkOrder{
		OrderNo: no, Site: "1000", WorkCenter: "PRESS1", Item: "P", State: s, Quantity: object.Quantity{Value: decimal.NewFromInt(100), Unit: "C62"},
		PlannedStart: time.Date(2000, 1, 2, 0, 0, 0, 0, time.UTC),
	}
}

// sent lists what waits for an agent, as "order/revision state".
func (w *world) sent(plant, agent string) string {
	w.t.Helper()
	a, err := w.s.Agent(context.Background(), plant, agent)
	if errors.Is(err, store.ErrNotFound) {
		return ""
	}
	if err != nil {
		w.t.Fatal(err)
	}
	list, err := w.s.DeliveriesAfter(context.Background(), a.ID, 0, 100)
	if err != nil {
		w.t.Fatal(err)
	}
	var all []string
	for _, d := range list {
		var o pb.WorkOrder
		if err := proto.Unmarshal(d.Body, &o); err != nil {
			w.t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("%s/%d %s %s", o.GetOrderNo(), o.GetRevision(), strings.TrimPrefix(o.GetState().String(), "STATE_"), o.GetQuantity().GetValue()))
	}
	return strings.Join(all, ", ")
}

func (w *world) want(plant, agent, sent string) {
	w.t.Helper()
	if got := w.sent(plant, agent); got != sent {
		w.t.Fatalf("%s/%s is sent %q, want %q", plant, agent, got, sent)
	}
}

// floor is what the planner writes for a fact of the shop floor.
func (w *world) floor(no string, s object.FloorState) {
	w.t.Helper()
	err := w.s.Update(context.Background(), func(tx *store.Tx) error {
		return tx.AddOrderStep(store.OrderStep{OrderNo: no, Step: string(s), Origin: "ulm/edge1", FactID: 1})
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func TestOrderGoesDownWhenReleasedAndAgainOnlyForWhatConcernsThePlant(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.say(order("WO-1", object.OrderPlanned))
		w.want("ulm", "edge1", "")
		w.say(order("WO-1", object.OrderReleased))
		w.want("ulm", "edge1", "WO-1/2 RELEASED 100")
		w.say(order("WO-1", object.OrderReleased))
		w.say(order("WO-1", object.OrderInProgress)) // ours, and no news for the plant in any case
		w.want("ulm", "edge1", "WO-1/2 RELEASED 100")
		more := order("WO-1", object.OrderInProgress)
		more.Quantity.Value = decimal.NewFromInt(120)
		w.say(more)
		more.State = object.OrderCancelled
		w.say(more)
		w.want("ulm", "edge1", "WO-1/2 RELEASED 100, WO-1/3 IN_PROGRESS 120, WO-1/4 CANCELLED 120")
		o, revisions, steps, err := w.s.OrderTimeline(context.Background(), "erp", "WO-1")
		if err != nil || o.Order.Revision != 4 || len(revisions) != 4 {
			t.Fatalf("revision %d of %d, %v", o.Order.Revision, len(revisions), err)
		}
		var names []string
		for _, s := range steps {
			names = append(names, s.Step)
		}
		if got := strings.Join(names, " "); got != "PLANNED RELEASED queued IN_PROGRESS queued CANCELLED queued" {
			t.Fatalf("timeline %s", got)
		}
	})
}

func TestOwnEffectsMakeNoRevisionAndOthersDo(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.say(order("OURS", object.OrderReleased))
		w.say(order("THEIRS", object.OrderReleased))
		w.floor("OURS", object.FloorHeld)
		w.say(order("OURS", object.OrderHeld))
		w.floor("OURS", object.FloorStarted)
		w.say(order("OURS", object.OrderInProgress))
		w.floor("OURS", object.FloorFinished)
		w.say(order("OURS", object.OrderCompleted))
		w.say(order("OURS", object.OrderClosed))
		w.say(order("THEIRS", object.OrderClosed))
		w.want("ulm", "edge1", "OURS/1 RELEASED 100, THEIRS/1 RELEASED 100, THEIRS/2 CLOSED 100")
		o, err := w.s.Order(context.Background(), "erp", "OURS")
		if err != nil || o.Order.State != object.OrderClosed {
			t.Fatalf("state %s, %v: the hub must know it all the same", o.Order.State, err)
		}
	})
}

func TestOrderThatIsReleasedAgainCanBeCancelledAgain(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		for range 2 {
			w.say(order("WO-1", object.OrderReleased))
			w.say(order("WO-1", object.OrderCancelled))
			w.floor("WO-1", object.FloorCancelled)
		}
		w.want("ulm", "edge1", "WO-1/1 RELEASED 100, WO-1/2 CANCELLED 100, WO-1/3 RELEASED 100, WO-1/4 CANCELLED 100")
	})
}

func TestOrderThatNobodyGetsIsVisibleAndGoesDownWhenARouteIsAdded(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		lost := order("WO-1", object.OrderReleased)
		lost.Site = "3000"
		w.say(lost)
		list, err := w.s.Orders(context.Background(), store.OrderFilter{Unroutable: true}, store.Page{})
		if err != nil || len(list) != 1 || !strings.Contains(list[0].Unroutable, `"3000"`) {
			t.Fatalf("unroutable %+v, %v", list, err)
		}
		w.stop()
		w.routes = append(w.routes, dispatch.Route{Site: "3000", Plant: "graz", Agent: "edge2"})
		w.start()
		w.pass(time.Minute)
		w.want("graz", "edge2", "WO-1/1 RELEASED 100")
		w.stop()
		w.routes = nil // a mistake
		w.start()
		w.pass(time.Minute)
		w.want("graz", "edge2", "WO-1/1 RELEASED 100")
	})
}

func TestOrderThatMovesIsWithdrawnWhereItWas(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		o := order("WO-1", object.OrderReleased)
		w.say(o)
		o.Site = "2000"
		w.say(o)
		w.want("ulm", "edge1", "WO-1/1 RELEASED 100, WO-1/2 CANCELLED 100")
		w.want("lyon", "edge7", "WO-1/2 RELEASED 100")
	})
}

func TestSystemThatFailsIsNamedAndStopsNoOther(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.erp.fail(errors.New("log-in refused"))
		w.other.put(order("WO-7", object.OrderReleased))
		w.pass(time.Hour)
		w.want("ulm", "edge1", "WO-7/1 RELEASED 100")
		c, err := w.s.Cursor(context.Background(), "erp")
		if err != nil || c.Error != "log-in refused" || c.FailedAt.IsZero() {
			t.Fatalf("cursor %+v, %v", c, err)
		}
		if w.erp.listens > 60 {
			t.Fatalf("a dead system was asked %d times in an hour", w.erp.listens)
		}
		w.erp.fail(nil)
		w.erp.put(order("WO-8", object.OrderReleased))
		w.d.Wake("erp")
		w.pass(30 * time.Second)
		w.want("ulm", "edge1", "WO-7/1 RELEASED 100, WO-8/1 RELEASED 100")
		if c, _ := w.s.Cursor(context.Background(), "erp"); c.Error != "" || c.Cursor != "1" {
			t.Fatalf("cursor %+v", c)
		}
	})
}

// hourly lets the systems be asked once an hour, the first time now.
func (w *world) hourly() {
	w.stop()
	w.poll = time.Hour
	w.start()
	w.pass(time.Minute)
}

func (b *books) asked() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.listens
}

func TestSystemThatSaysThatSomethingChangedIsAskedAtOnce(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.hourly()
		others := w.other.asked()
		w.erp.put(order("WO-1", object.OrderReleased))
		w.pass(time.Minute)
		w.want("ulm", "edge1", "")
		w.d.Wake("erp")
		synctest.Wait()
		w.want("ulm", "edge1", "WO-1/1 RELEASED 100")
		// Again right behind it: within a second.
		w.erp.put(order("WO-2", object.OrderReleased))
		w.d.Wake("erp")
		w.pass(time.Second)
		w.want("ulm", "edge1", "WO-1/1 RELEASED 100, WO-2/1 RELEASED 100")
		w.d.Wake("nobody")
		if n := w.other.asked(); n != others {
			t.Errorf("the other system was asked %d times more", n-others)
		}
	})
}

func TestFloodOfEventsMakesBoundedCalls(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.hourly()
		flood := func() int {
			before := w.erp.asked()
			for range 6000 { // a hundred a second for a minute
				w.d.Wake("erp")
				w.pass(10 * time.Millisecond)
			}
			return w.erp.asked() - before
		}
		if n := flood(); n < 50 || n > 62 {
			t.Errorf("a system that answers was asked %d times in a minute, want about one a second", n)
		}
		w.erp.fail(errors.New("overloaded"))
		if n := flood(); n > 4 {
			t.Errorf("a system that does not answer was asked %d times in a minute", n)
		}
	})
}

func TestFetchBringsAnOrderThatWasNeverReported(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.erp.fail(errors.New("lists nothing today"))
		w.erp.put(order("WO-5", object.OrderReleased))
		if err := w.d.Fetch(context.Background(), "WO-5"); err != nil {
			t.Fatal(err)
		}
		w.want("ulm", "edge1", "WO-5/1 RELEASED 100")
		if err := w.d.Fetch(context.Background(), "WO-6"); err != nil {
			t.Fatalf("an order that nobody has is no failure: %v", err)
		}
	})
}

func TestToBeStoppedWhileOrdersAreRoutedIsNoError(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.stop()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := w.d.Run(ctx); err != nil {
			t.Errorf("Run of a hub that is stopped = %v, want no error", err)
		}
	})
}
