package e2e

import (
	"context"
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
)

// One reply in ten is lost after the ERP has posted: the hub looks before it posts again.
func TestNothingIsDoubledWhenTheERPLosesItsReplies(t *testing.T) {
	seed := seedOf(t)
	var proxy *connectortest.Proxy
	p := newPlantLine(t, seed, func(e *realparts.TrytonServer) string {
		proxy = connectortest.NewProxy(t, e.URL)
		u, err := url.Parse(e.URL)
		if err != nil {
			t.Fatal(err)
		}
		return proxy.URL + u.Path
	})
	p.mes.pace = 200 * time.Millisecond
	p.start(t)
	proxy.Lossy(int64(seed>>1), 0.1, 0)
	orders := p.release(t, 6, 20)

	ctx, cancel := context.WithCancel(context.Background())
	working := make(chan struct{})
	go func() { defer close(working); p.mes.run(ctx, machines) }()
	defer func() { cancel(); <-working }()
	realparts.Eventually(t, 3*time.Minute, "the machines finish all orders", func() error {
		if made, finished := p.mes.progress(); finished < len(orders) {
			return fmt.Errorf("%d pieces made, %d of %d orders finished; %s", made, finished, len(orders), p.stuck())
		}
		return nil
	})
	p.settle(t, orders)
	p.check(t, orders)
	exchanges, lost := proxy.Counts()
	t.Logf("%d exchanges with the ERP, %d replies lost after the effect", exchanges, lost)
	if lost == 0 {
		t.Error("no reply was lost: the run proves nothing")
	}
}

// A planner changes the quantity of an order and cancels another before they start: both follow the same way down, and
// every state has its time on both pages.
func TestChangedAndCancelledOrdersReachTheMESAndComeBack(t *testing.T) {
	p := newPlantLine(t, seedOf(t), func(e *realparts.TrytonServer) string { return e.URL })
	p.mes.pace = 200 * time.Millisecond
	p.start(t)
	ctx, cancel := context.WithCancel(context.Background())
	working := make(chan struct{})
	orders := p.release(t, 2, 30)
	changed, cancelled := orders[0], orders[1]
	// The MES takes orders, and no machine starts one yet.
	go func() { defer close(working); p.mes.takeOrders(ctx) }()
	defer func() { cancel(); <-working }()
	p.floorState(t, changed, "ACCEPTED")
	p.floorState(t, cancelled, "ACCEPTED")

	p.erp.ChangeQuantity(t, changed, "12")
	p.erp.CancelOrder(t, cancelled)
	p.floorState(t, cancelled, "CANCELLED")
	realparts.Eventually(t, time.Minute, "the MES has the new quantity", func() error {
		p.mes.mu.Lock()
		defer p.mes.mu.Unlock()
		if j := p.mes.jobs[changed]; j == nil || j.quantity != 12 {
			return fmt.Errorf("job %+v", j)
		}
		return nil
	})

	machinesWork, stop := context.WithCancel(ctx)
	made := make(chan struct{})
	go func() { defer close(made); p.mes.run(machinesWork, machines) }()
	defer func() { stop(); <-made }()
	p.floorState(t, changed, "FINISHED")
	p.settle(t, []string{changed})
	p.check(t, []string{changed})
	if s := p.erp.OrderState(t, cancelled); s != "cancelled" {
		t.Errorf("the cancelled order is %s in the ERP", s)
	}

	var life struct {
		Timeline []struct {
			Step string
			At   time.Time
		}
	}
	p.api(t, "/v1/work-orders/"+changed, &life)
	steps := ""
	for _, x := range life.Timeline {
		if x.At.IsZero() {
			t.Errorf("step %s has no time", x.Step)
		}
		steps += x.Step + " " + x.At.Format(time.TimeOnly) + ", "
	}
	t.Logf("hub:   %s", steps)
	s, err := p.status()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range s.WorkOrders {
		line := ""
		for _, h := range o.History {
			line += fmt.Sprintf("%s %s, ", h.State, h.At.Format(time.TimeOnly))
		}
		t.Logf("agent: %s rev. %d %s: %s", o.OrderNo, o.Revision, o.State, line)
		if want := map[string]string{changed: "finished", cancelled: "cancelled"}[o.OrderNo]; o.State != want {
			t.Errorf("the page shows order %s as %q, want %q", o.OrderNo, o.State, want)
		}
	}
}

// floorState waits until the hub knows that the shop floor brought an order into a state.
func (p *plantLine) floorState(t testing.TB, order, state string) {
	t.Helper()
	realparts.Eventually(t, 2*time.Minute, "order "+order+" is "+state+" on the shop floor", func() error {
		var o struct {
			FloorState string `json:"floor_state"`
			Timeline   []struct{ Step string }
		}
		if err := p.get(p.hubHTTP+"/v1/work-orders/"+order, &o); err != nil {
			return err
		}
		for _, x := range o.Timeline {
			if x.Step == state {
				return nil
			}
		}
		return fmt.Errorf("%+v", o)
	})
}
