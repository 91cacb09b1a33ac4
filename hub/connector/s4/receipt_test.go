package s4_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/connector/s4"
	"github.com/linekeeper/linekeeper/hub/connector/s4/s4double"
)

// separately is a confirmation that is in the books without its receipt, because the receipt's period is closed.
func (b *bench) separately(t *testing.T, c *s4.Connector, order string) (connector.Posting, connector.Document) {
	t.Helper()
	month := time.Now().UTC().Format("2006-01")
	end := b.set(func(t *s4double.Traps) { t.PeriodFailsMovements = true })
	b.SetPeriod(month, false)
	p := confirmation(order, "12", "0")
	x := ends(t, c, p, connectortest.Undecided, "verify", "101", maker)
	end()
	b.SetPeriod(month, true)
	return p, x.Document
}

// The receipt of a confirmation is a document of its own and was refused: it is posted once, by the request that was meant, and is then read
// back like any other.
func TestAReceiptThatWasRefusedIsPostedOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t, s4double.Traps{})
	c, order := b.connect(t, func(c *s4.Config) { c.Movements = "separate" }), b.order(t, "40")
	p, doc := b.separately(t, c, order)
	b.proxy.Watch(func(body []byte) {
		if bytes.Contains(body, []byte("GoodsMovementCode")) {
			b.proxy.Watch(nil)
			b.proxy.Arm(connectortest.LoseReply, 1)
		}
	})
	out, err := c.PostMovements(t.Context(), p, doc)
	if err != nil || out.Result != connector.InDoubt {
		t.Fatalf("the answer is lost, and it says %+v, %v", out, err)
	}
	out, err = c.PostMovements(t.Context(), p, doc)
	if err != nil || out.Result != connector.Posted || out.Document.Number == "" {
		t.Fatalf("%+v, %v", out, err)
	}
	settled(t, c, p)
	if x := b.Totals(order); !x.Received.Equal(d("12")) || x.Receipts != 1 || x.Confirmations != 1 {
		t.Errorf("the order holds %+v", x)
	}
	for _, e := range listed(t, c, order) {
		for _, m := range e.Movements {
			if m.Failed {
				t.Errorf("%s still lacks %+v", e.Number, m)
			}
		}
	}
	undone, err := c.ReverseDocument(t.Context(), out.Document.Number, p.Fact.Key.String())
	if err != nil || undone.Result != connector.Posted {
		t.Fatalf("%+v, %v", undone, err)
	}
	if x := b.Totals(order); !x.Received.IsZero() || !x.Yield.Equal(d("12")) {
		t.Errorf("after the receipt was taken back the order holds %+v", x)
	}
}

// What SAP keeps in its list of failed movements, and what could be booked twice, is left to a person.
func TestMovementsThatCouldBeBookedTwiceAreRefusedByName(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		traps     s4double.Traps
		movements string
		code      string
	}{{s4double.Traps{}, "explicit", "COGI"}, {s4double.Traps{}, "sap", "COGI"}, {s4double.Traps{NoRepeats: true}, "separate", "NOT_REPEATABLE"}} {
		b := newBench(t, x.traps)
		c, order := b.connect(t, func(c *s4.Config) { c.Movements = x.movements }), b.order(t, "40")
		out, err := c.PostMovements(t.Context(), confirmation(order, "12", "0"), connector.Document{Number: "1/1"})
		if err != nil || out.Result != connector.Rejected || out.Code != x.code || out.NextStep == "" || out.Class == connector.Retryable {
			t.Errorf("%s: %+v, %v", x.movements, out, err)
		}
	}
	b := newBench(t, s4double.Traps{})
	c, order := b.connect(t, func(c *s4.Config) { c.Movements = "separate" }), b.order(t, "40")
	if out, err := c.PostMovements(t.Context(), confirmation(order, "12", "0"), connector.Document{Number: "1/1"}); err != nil || out.Code != "NO_CONFIRMATION" {
		t.Errorf("without a confirmation: %+v, %v", out, err)
	}
	if x := b.Totals(order); x.Documents > 0 {
		t.Errorf("the order holds %+v", x)
	}
}
