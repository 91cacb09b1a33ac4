package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/translate"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// hall is a source with several machines: each order takes its machine some time, and what they did is written down.
type hall struct {
	*fake
	source string
	log    *deliveries
	takes  time.Duration
	refuse func(o signal.WorkOrder) error
	check  func(o signal.WorkOrder) error
}

type deliveries struct {
	mu   sync.Mutex
	list []string
	now  map[string]int // deliveries under way by machine
}

func (d *deliveries) all() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.list, " ")
}

func (h *hall) TakesOrders() bool              { return true }
func (h *hall) HoldsOrders() bool              { return h.source == "opc" }
func (h *hall) Lane(o signal.WorkOrder) string { return o.WorkCenter }

func (h *hall) CheckOrder(_ context.Context, o signal.WorkOrder) error {
	if h.check == nil {
		return nil
	}
	return h.check(o)
}

func (h *hall) Deliver(ctx context.Context, o signal.WorkOrder) error {
	machine := h.source + "." + o.WorkCenter
	h.log.mu.Lock()
	if h.log.now[machine]++; h.log.now[machine] > 1 {
		h.log.list = append(h.log.list, "two at once on "+machine+"!")
	}
	h.log.mu.Unlock()
	select {
	case <-time.After(h.takes):
	case <-ctx.Done():
	}
	h.log.mu.Lock()
	defer h.log.mu.Unlock()
	h.log.now[machine]--
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if h.refuse != nil {
		if err := h.refuse(o); err != nil {
			return err
		}
	}
	word := fmt.Sprintf("%s:%s/%d", machine, o.OrderNo, o.Revision)
	if o.Cancelled {
		word += "x"
	}
	if o.Held {
		word += "h"
	}
	h.log.list = append(h.log.list, word)
	return nil
}

// halls is an agent with such sources, whose orders are passed on in a bubble of its own time.
func halls(t *testing.T, change func(*Config), list ...*hall) (started, *deliveries) {
	t.Helper()
	fs, log := fakes{}, &deliveries{now: map[string]int{}}
	for _, h := range list {
		h.fake, h.log = &fake{}, log
		fs[h.source] = h.fake
	}
	cfg := testConfig(t.TempDir(), fs)
	if change != nil {
		change(&cfg)
	}
	kinds := []signal.Kind{{Name: "fake", New: func(env signal.Env, _ func(any) error) (signal.Driver, error) {
		i := slices.IndexFunc(list, func(h *hall) bool { return h.source == env.Source })
		return list[i], nil
	}}}
	a, err := New(cfg, Options{Version: "test", Logger: slog.New(slog.NewTextHandler(testLog{t}, nil)), Kinds: kinds})
	if err != nil {
		t.Fatal(err)
	}
	g := newGroup(t.Context())
	g.run(a.runOrders)
	t.Cleanup(func() { g.stop(); a.Close() })
	return started{Agent: a}, log
}

func at(center string, d *pb.Delivery) *pb.Delivery {
	d.GetWorkOrder().WorkCenter = center
	return d
}

func TestSlowMachineDelaysNoOtherAndCancellationsOvertakeWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, log := halls(t, func(c *Config) {
			c.Orders.Receivers = []OrderRoute{{WorkCenter: "saw*", Source: "mes"}, {Source: "opc"}}
		}, &hall{source: "opc", takes: 10 * time.Second}, &hall{source: "mes", takes: time.Millisecond})
		for i := range 3 {
			store(t, a, int64(i+1), at("press1", workOrder(fmt.Sprintf("A%d", i), 1, pb.WorkOrder_STATE_RELEASED)))
		}
		store(t, a, 4, at("press2", workOrder("B", 1, pb.WorkOrder_STATE_RELEASED)))
		store(t, a, 5, at("ulm/saw7", workOrder("C", 1, pb.WorkOrder_STATE_RELEASED)))
		time.Sleep(10500 * time.Millisecond) // A0 is delivered, A1 is under way, A2 waits
		store(t, a, 6, at("press1", workOrder("A0", 2, pb.WorkOrder_STATE_CANCELLED)))
		time.Sleep(time.Minute)
		synctest.Wait()
		got := log.all()
		one := slices.DeleteFunc(strings.Fields(got), func(s string) bool { return !strings.Contains(s, "press1") })
		if want := "opc.press1:A0/1 opc.press1:A1/1 opc.press1:A0/2x opc.press1:A2/1"; strings.Join(one, " ") != want {
			t.Errorf("press1 got %s, want %s", strings.Join(one, " "), want)
		}
		if !strings.HasPrefix(got, "mes.ulm/saw7:C/1 ") || strings.Index(got, "press2:B/1") > strings.Index(got, "A1/1") || strings.Contains(got, "!") {
			t.Errorf("the machines got %s", got)
		}
	})
}

func TestOrderThatMovesIsTakenBackFromTheFirstMachineBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running atomic.Bool
		h := &hall{source: "opc", refuse: func(o signal.WorkOrder) error {
			if running.Load() && o.Cancelled {
				return &signal.Refused{Reason: "it runs"}
			}
			return nil
		}}
		a, log := halls(t, nil, h)
		store(t, a, 1, at("press1", workOrder("WO-1", 1, pb.WorkOrder_STATE_RELEASED)))
		store(t, a, 2, at("press2", workOrder("WO-1", 2, pb.WorkOrder_STATE_RELEASED)))
		store(t, a, 3, at("press3", workOrder("WO-1", 3, pb.WorkOrder_STATE_CANCELLED))) // whoever has it
		time.Sleep(time.Second)
		synctest.Wait()
		if got, want := log.all(), "opc.press1:WO-1/1 opc.press1:WO-1/2x opc.press2:WO-1/2 opc.press2:WO-1/3x"; got != want {
			t.Errorf("the machines got %s, want %s", got, want)
		}
		store(t, a, 4, at("press1", workOrder("WO-2", 1, pb.WorkOrder_STATE_RELEASED)))
		running.Store(true)
		store(t, a, 5, at("press2", workOrder("WO-2", 2, pb.WorkOrder_STATE_RELEASED)))
		time.Sleep(time.Minute)
		synctest.Wait()
		if o := a.order("WO-2"); o.State != "rejected" || !strings.Contains(o.Reason, `"press1", which does not give it back: it runs`) || strings.Contains(log.all(), "press2:WO-2") {
			t.Errorf("it is %+v after %s", o, log.all())
		}
	})
}

func TestHeldOrderIsHeldWhereTheMachineCanDoThat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, log := halls(t, func(c *Config) {
			c.Orders.Receivers = []OrderRoute{{WorkCenter: "saw", Source: "mes"}, {Source: "opc"}}
		}, &hall{source: "opc"}, &hall{source: "mes"})
		seq := int64(0)
		for _, center := range []string{"press", "saw"} {
			for rev, state := range []pb.WorkOrder_State{pb.WorkOrder_STATE_RELEASED, pb.WorkOrder_STATE_HELD, pb.WorkOrder_STATE_RELEASED} {
				seq++
				store(t, a, seq, at(center, workOrder("WO-"+center, int64(rev+1), state)))
				time.Sleep(time.Second)
			}
		}
		store(t, a, 10, at("press", workOrder("WO-3", 1, pb.WorkOrder_STATE_HELD))) // nobody has it
		time.Sleep(time.Second)
		want := "opc.press:WO-press/1 opc.press:WO-press/2h opc.press:WO-press/3 mes.saw:WO-saw/1 mes.saw:WO-saw/3"
		if got := log.all(); got != want {
			t.Errorf("the machines got %s, want %s", got, want)
		}
	})
}

func TestOrderForNobodyWaitsAndThePageSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, log := halls(t, func(c *Config) { c.Orders.Receivers = []OrderRoute{{WorkCenter: "press*", Source: "opc"}} }, &hall{source: "opc"})
		store(t, a, 1, at("lathe", workOrder("WO-1", 1, pb.WorkOrder_STATE_RELEASED)))
		p := a.source("opc").Problems
		if len(p) != 1 || p[0].Code != "no_receiver" || !strings.Contains(p[0].Reason, `"WO-1" (work centre "lathe")`) {
			t.Errorf("the page shows %+v", p)
		}
		store(t, a, 2, at("press9", workOrder("WO-1", 2, pb.WorkOrder_STATE_RELEASED)))
		if p := a.source("opc").Problems; len(p) != 0 || log.all() != "opc.press9:WO-1/2" {
			t.Errorf("the page shows %+v after %s", p, log.all())
		}
	})
}

func TestRefusalReachesTheHubAsAFactOnce(t *testing.T) {
	h := serveHub(t)
	fs := fakes{"mes": {deliver: func(context.Context, signal.WorkOrder) error { return &signal.Refused{Reason: "no mould for it"} }}}
	cfg := testConfig(t.TempDir(), fs)
	cfg.Hub = h.line()
	a := start(t, cfg, fs)
	bad := workOrder("WO-2", 4, pb.WorkOrder_STATE_RELEASED)
	bad.GetWorkOrder().Quantity.Unit = "pieces"
	h.push(workOrder("WO-1", 3, pb.WorkOrder_STATE_RELEASED))
	h.push(bad)
	check := func() error {
		var got []string
		for _, f := range h.all() {
			if s := f.GetOrderState(); s != nil {
				got = append(got, fmt.Sprintf("%s/%d %s", s.OrderNo, s.Revision, s.State))
			}
		}
		if slices.Sort(got); strings.Join(got, ", ") != "WO-1/3 STATE_REJECTED, WO-2/4 STATE_REJECTED" {
			return fmt.Errorf("the hub has %v", got)
		}
		return nil
	}
	eventually(t, "the hub knows", check)
	a.stop()
	a = start(t, cfg, fs)
	if o := a.order("WO-2"); o.State != "rejected" || !strings.Contains(o.Reason, `unit "pieces"`) || !strings.Contains(o.Reason, "add it to units") {
		t.Errorf("the page shows %+v", o)
	}
	if err := check(); err != nil {
		t.Error(err)
	}
}

func TestOrdersAreCheckedWhenTheyArrive(t *testing.T) {
	good := signal.WorkOrder{OrderNo: "1", Item: "FG-GEAR", Unit: "C62", WorkCenter: "ulm/press1",
		Operations: []signal.Operation{{Operation: "10", WorkCenter: "press1", Unit: "Stk"}}}
	rules := []translate.Rule{{Rule: "counter", WorkCenter: "press1"}, {Rule: "record", Fact: "order_state"}}
	booksAll := []translate.Rule{{Rule: "counter", WorkCenter: "press1"}, {Rule: "record", Fact: "production_confirmation"}}
	for _, c := range []struct {
		name             string
		rules            []translate.Rule
		check            OrderCheck
		change           func(o *signal.WorkOrder)
		warning, refusal string
	}{
		{name: "good", rules: rules},
		{name: "nothing known", rules: booksAll, change: func(o *signal.WorkOrder) { o.WorkCenter, o.Item = "lathe", "" }},
		{name: "unit", change: func(o *signal.WorkOrder) { o.Unit = "kilos" }, refusal: `unit "kilos" is neither`},
		{name: "unit of an operation", change: func(o *signal.WorkOrder) { o.Operations[0].Unit = "st" }, refusal: `unit "st" is neither`},
		{name: "rare unit", change: func(o *signal.WorkOrder) { o.Unit = "D63" }, warning: `unit "D63" is not a known code`},
		{name: "rare unit, strictly", check: OrderCheck{Strict: true}, change: func(o *signal.WorkOrder) { o.Unit = "D63" }, refusal: `unit "D63"`},
		{name: "no unit", change: func(o *signal.WorkOrder) { o.Unit = "" }},
		{name: "work centre", rules: rules, change: func(o *signal.WorkOrder) { o.WorkCenter = "lathe" }, warning: `names work centre "lathe"`},
		{name: "work centre, strictly", rules: rules, check: OrderCheck{Strict: true}, change: func(o *signal.WorkOrder) { o.WorkCenter = "lathe" }, refusal: `names work centre "lathe"`},
		{name: "listed", rules: rules, check: OrderCheck{Items: []string{"FG-*"}, Units: []string{"C62"}, Operations: []string{"10"}, WorkCenters: []string{"press*"}}},
		{name: "item", check: OrderCheck{Items: []string{"RM-*", "FG"}}, refusal: `item "FG-GEAR" is not one that this plant makes`},
		{name: "operation", check: OrderCheck{Operations: []string{"20"}}, refusal: `operation "10" is not known here`},
		{name: "listed units", check: OrderCheck{Units: []string{"KGM"}}, refusal: `unit "C62" is not one of`},
		{name: "listed centres", check: OrderCheck{WorkCenters: []string{"lathe"}}, refusal: `work centre "ulm/press1" is not one of`},
		{name: "cancellation", check: OrderCheck{Items: []string{"RM-*"}}, change: func(o *signal.WorkOrder) { o.Cancelled = true }},
		{name: "off", check: OrderCheck{Off: true}, change: func(o *signal.WorkOrder) { o.Unit = "kilos" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newOrderCheck(Config{Rules: c.rules, Orders: OrdersConfig{Check: c.check}, Units: map[string]string{"Stk": "C62"}})
			o := good
			o.Operations = slices.Clone(good.Operations)
			if c.change != nil {
				c.change(&o)
			}
			for range 2 { // the second answer is the first one's
				warning, refusal := k.look(o)
				if (warning == "") != (c.warning == "") || !strings.Contains(warning, c.warning) || (refusal == "") != (c.refusal == "") || !strings.Contains(refusal, c.refusal) {
					t.Errorf("warning %q, refusal %q; want %q, %q", warning, refusal, c.warning, c.refusal)
				}
			}
		})
	}
}

func TestReceiverRefusesByNameBeforeDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		down.Store(true)
		a, log := halls(t, nil, &hall{source: "opc", check: func(o signal.WorkOrder) error {
			if down.Load() {
				return errors.New("the MES does not answer")
			}
			if o.OrderNo == "WO-1" {
				return &signal.Refused{Reason: `item "FG-GEAR" is blocked in the MES`}
			}
			return nil
		}})
		store(t, a, 1, workOrder("WO-1", 1, pb.WorkOrder_STATE_RELEASED))
		store(t, a, 2, workOrder("WO-2", 1, pb.WorkOrder_STATE_RELEASED))
		if log.all() != "" || len(a.source("opc").Problems) != 1 {
			t.Errorf("delivered %s unchecked, the page shows %+v", log.all(), a.source("opc").Problems)
		}
		down.Store(false)
		time.Sleep(time.Minute)
		synctest.Wait()
		if o := a.order("WO-1"); o.State != "rejected" || log.all() != "opc.press:WO-2/1" {
			t.Errorf("it is %+v, delivered was %s", o, log.all())
		}
	})
}
