package hub

import (
	"fmt"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/hub/connector/sandbox/erp"
	"github.com/linekeeper/linekeeper/hub/object"
)

// An ERP that closes what is finished, and a plant that finishes one operation after the other.
func TestFinishOfAnOperationDoesNotCloseTheOrderInAnERP(t *testing.T) {
	e, url := books(t)
	ten := decimal.NewFromInt(10)
	no, err := e.ReleaseOrder(t.Context(), erp.Order{Item: "BRACKET-10", Quantity: ten, Site: "ULM", WorkCenter: "press1", PlannedStart: time.Now(), PlannedEnd: time.Now(),
		Operations: []erp.Operation{{Operation: "0010", WorkCenter: "press1", Quantity: ten}, {Operation: "0020", WorkCenter: "press1", Quantity: ten}}})
	if err != nil {
		t.Fatal(err)
	}
	r := run(t, configured(t, url))
	realparts.Eventually(t, 20*time.Second, "order at the hub", func() error { return r.get("/v1/work-orders/"+no, nil) })
	p := r.dial()
	state := func(name, operation string, s object.FloorState) object.Fact {
		f := fact(name, func(x *object.Fact) {
			x.Kind, x.OrderState = object.KindOrderState, &object.ShopFloorState{OrderNo: no, Revision: 1, State: s, Operation: operation}
		})
		p.deliver(f)
		p.status()
		return f
	}
	erpSays := func(want string) {
		t.Helper()
		realparts.Eventually(t, 30*time.Second, "the order is "+want+" in the ERP", func() error {
			p.status()
			all, err := e.Totals(t.Context())
			if x := all.Orders[no]; err == nil && x.State != want {
				err = fmt.Errorf("order is %s", x.State)
			}
			return err
		})
	}
	state("started", "0010", object.FloorStarted)
	erpSays("STARTED")
	r.state(state("first", "0010", object.FloorFinished), "not_posted", "operation_ended")
	second := count("second", no)
	second.Confirmation.Operation = "0020"
	p.deliver(second)
	r.state(second, "verified", "")
	erpSays("STARTED")
	odd := state("odd", "0030", object.FloorFinished)
	r.state(odd, "parked", "operation_not_of_order")
	var life struct {
		Timeline []struct{ Step, Operation, Origin string }
	}
	if err := r.get("/v1/work-orders/"+no, &life); err != nil {
		t.Fatal(err)
	}
	told := false
	for _, s := range life.Timeline {
		told = told || s.Step == "FINISHED" && s.Operation == "0010"
		if s.Step == "FINISHED" && s.Operation == "" || s.Step == "posted FINISHED" {
			t.Errorf("the timeline says that the order is finished: %+v", s)
		}
	}
	if !told {
		t.Errorf("the timeline does not name the operation: %+v", life.Timeline)
	}
	last := state("last", "0020", object.FloorFinished)
	r.state(last, "due", "waits_for") // for a person who sees to the odd one
	if err := r.h.posting.Accept(t.Context(), odd.Key.String(), "", "there is no such operation", "anna"); err != nil {
		t.Fatal(err)
	}
	erpSays("FINISHED")
	r.state(last, "verified", "")
}
