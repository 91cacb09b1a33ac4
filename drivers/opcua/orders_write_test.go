package opcua

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

const writeBlock = `{write: [{work_center: press1, within: 300ms, strobe: "ns=2;s=AT.Strobe", echo: "ns=2;s=AT.Echo", nodes: {
  order_no: "ns=2;s=AT.Order", revision: "ns=2;s=AT.Revision", item: "ns=2;s=AT.Item", quantity: "ns=2;s=AT.Quantity",
  planned_end: "ns=2;s=AT.Due", cancelled: "ns=2;s=AT.Cancelled"}}]}`

func atPress1(o signal.WorkOrder) signal.WorkOrder {
	o.WorkCenter = "press1"
	return o
}

func testOrderIsWrittenIntoNodesOnceAndTakenBeforeTheNext(t *testing.T, plant *realparts.Plant) {
	s := shopAt(t, plant, "Written", writeBlock)
	if err := s.deliver(atPress1(testOrder("WO-1", 1))); err != nil {
		t.Fatal(err)
	}
	if m := s.machine(); len(m.Setups) != 1 || m.Setups[0].Order != "WO-1" || m.Setups[0].Quantity != 10 || m.Setups[0].Strobe != 1 {
		t.Fatalf("the machine took %+v", m.Setups)
	}
	// The machine takes it and its echo is lost: after a crash the order is not offered again, and the next one waits.
	s.fault(map[string]any{"echoAfter": 2000})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := s.d.Deliver(ctx, atPress1(testOrder("WO-2", 1))); err == nil || !strings.Contains(err.Error(), "has not echoed 2") {
		t.Errorf("without an echo: %v", err)
	}
	s.stop()
	s.open(writeBlock)
	if err := s.d.Deliver(ctx, atPress1(testOrder("WO-3", 1))); err == nil || !strings.Contains(err.Error(), `"WO-2" yet`) {
		t.Errorf("the next order while one is not taken: %v", err)
	}
	s.fault(map[string]any{})
	if err := s.deliver(atPress1(testOrder("WO-3", 1))); err != nil {
		t.Error(err)
	}
	if err := s.deliver(atPress1(testOrder("WO-2", 1))); err != nil {
		t.Error(err)
	}
	if err := s.deliver(cancelled(atPress1(testOrder("WO-3", 2)))); err != nil {
		t.Error(err)
	}
	var took []string
	for _, x := range s.machine().Setups {
		took = append(took, fmt.Sprintf("%s/%d/%v", x.Order, x.Revision, x.Cancelled))
	}
	if got, want := strings.Join(took, " "), "WO-1/1/false WO-2/1/false WO-3/1/false WO-3/2/true"; got != want {
		t.Errorf("the machine took %s, want %s", got, want)
	}
	o := atPress1(testOrder("WO-4", 1))
	o.Quantity = "1.00000000000000000001"
	var refused *signal.Refused
	if err := s.deliver(o); !errors.As(err, &refused) || !strings.Contains(refused.Reason, "quantity") {
		t.Errorf("a quantity that does not fit gives %v", err)
	}
}

func testMachinesOfOneServerDoNotWaitForEachOther(t *testing.T, plant *realparts.Plant) {
	s := shopAt(t, plant, "Press3", `{write: [
  {work_center: press1, within: 5s, strobe: "ns=2;s=AT.Strobe", echo: "ns=2;s=AT.Echo", nodes: {order_no: "ns=2;s=AT.Order", revision: "ns=2;s=AT.Revision"}},
  {work_center: press2, nodes: {order_no: "ns=2;s=Press4.Order", revision: "ns=2;s=Press4.Revision"}}]}`)
	s.fault(map[string]any{"deaf": true})
	one, two := atPress1(testOrder("WO-1", 1)), testOrder("WO-2", 1)
	two.WorkCenter = "press2"
	if s.d.Lane(one) == s.d.Lane(two) {
		t.Error("two machines share a lane")
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { s.d.Deliver(ctx, one) })
	if err := s.deliver(two); err != nil {
		t.Error(err)
	}
	cancel()
	wg.Wait()
}
