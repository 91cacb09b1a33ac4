package s4_test

import (
	"bytes"
	"testing"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/connector/s4"
	"github.com/linekeeper/linekeeper/hub/connector/s4/s4double"
	"github.com/linekeeper/linekeeper/hub/object"
)

// routed creates an order with two operations.
func (b *bench) routed() string {
	return b.CreateOrder(s4double.Order{Material: maker, Plant: plant, StorageLocation: place, Quantity: d("40"), Released: true, AutomaticReceipt: true,
		Operations: []s4double.Operation{{Number: "0010", WorkCenter: "TURN"}, {Number: "0020", WorkCenter: "ASSEMBLY"}}})
}

func ended(order, operation string) connector.Posting {
	p := finished(order)
	p.Fact.OrderState.Operation = operation
	return p
}

func confirming(c *s4.Config) { c.FinishOperations = "confirm" }

func TestEndOfAnOperationConfirmsItFinallyAndLeavesTheOrderOpen(t *testing.T) {
	t.Parallel()
	b := newBench(t, s4double.Traps{})
	c, order := b.connect(t, confirming), b.routed()
	if can := c.Capabilities(); len(can.OperationStates) != 1 || can.OperationStates[0] != object.FloorFinished {
		t.Fatalf("%+v", can)
	}
	made := confirmation(order, "12", "0")
	made.Fact.Confirmation.Operation = "0010"
	settled(t, c, made)
	p := ended(order, "10")
	settled(t, c, p)
	settled(t, c, p)                    // again is the same
	settled(t, c, ended(order, "0010")) // so is the same said by somebody else: it is confirmed finally already
	x := b.Totals(order)
	if x.Confirmations != 2 || !x.Yield.Equal(d("12")) || !x.Received.IsZero() || x.Order.Confirmed || x.Order.TechnicallyComplete {
		t.Fatalf("after the end of one operation SAP holds %+v", x)
	}
	if o, err := c.Get(t.Context(), order); err != nil || o.State != object.OrderInProgress {
		t.Errorf("the order is %s, %v", o.State, err)
	}
	effects, err := c.Effects(t.Context(), order)
	if err != nil || len(effects.Documents) != 2 || effects.Documents[1].Key != p.Fact.Key.String() || len(effects.Documents[1].Quantities) != 0 {
		t.Errorf("%+v, %v", effects.Documents, err)
	}
	last := ended(order, "0020")
	last.ClosesOrder = true
	settled(t, c, last)
	if x := b.Totals(order); !x.Order.TechnicallyComplete || x.Confirmations != 2 {
		t.Errorf("after the end of the last operation SAP holds %+v", x)
	}
	ends(t, c, ended(order, "0030"), connectortest.Refused, "0030")
}

func TestEndOfAnOperationHasNoEffectUnlessItIsConfigured(t *testing.T) {
	t.Parallel()
	b := newBench(t, s4double.Traps{})
	c, order := b.connect(t), b.routed()
	if can := c.Capabilities(); len(can.OperationStates) != 0 || len(can.States) != 1 {
		t.Fatalf("%+v", can)
	}
	ends(t, c, ended(order, "0010"), connectortest.Refused, "FINISHED")
	if x := b.Totals(order); x.Confirmations != 0 || x.Order.TechnicallyComplete {
		t.Errorf("%+v", x)
	}
	c = b.connect(t, func(c *s4.Config) { c.Finish, c.FinishOperations = "none", "confirm" })
	settled(t, c, ended(order, "0010"))
	ends(t, c, finished(order), connectortest.Refused, "FINISHED")
	if x := b.Totals(order); x.Confirmations != 1 || x.Order.TechnicallyComplete {
		t.Errorf("%+v", x)
	}
}

func TestEndOfAnOperationWhoseAnswerIsLostIsMadeOnce(t *testing.T) {
	t.Parallel()
	for _, fault := range []connectortest.Fault{connectortest.LoseReply, connectortest.LoseRequest, connectortest.DelayRequest} {
		for _, repeats := range []bool{true, false} {
			b := newBench(t, s4double.Traps{NoRepeats: !repeats})
			c, order := b.connect(t, confirming), b.routed()
			b.proxy.Watch(func(body []byte) {
				if bytes.Contains(body, []byte("IsFinalConfirmation")) {
					b.proxy.Watch(nil)
					b.proxy.Arm(fault, 1)
				}
			})
			settled(t, c, ended(order, "0010"))
			fired := b.proxy.Fired()
			b.proxy.Deliver()
			x := b.Totals(order)
			if !fired || x.Order.TechnicallyComplete || x.Confirmations != 1 && (repeats || fault != connectortest.DelayRequest) {
				t.Errorf("%s, repeatable %t: fired %t, SAP holds %+v", fault, repeats, fired, x)
			}
		}
	}
}
