package d365_test

import (
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/connector/d365"
	"github.com/linekeeper/linekeeper/hub/connector/d365/d365double"
)

// What D365 takes by itself is marked; a field that this version's entity calls otherwise is an error that names it.
func TestJournalsOfOthersAreListed(t *testing.T) {
	t.Parallel()
	b := newBench(t, d365double.Traps{KeyField: "LinekeeperFactKey"})
	c, order := b.connect(t), b.order(t, "40")
	if err := b.ReportByHand(order, d("8"), d365double.Component{Item: taken, Required: d("1")}); err != nil {
		t.Fatal(err)
	}
	all, err := c.Effects(t.Context(), order)
	if err != nil || len(all.Documents) != 2 || all.Documents[0].Number == all.Documents[1].Number {
		t.Fatalf("%+v %v", all.Documents, err)
	}
	if m := all.Documents[1].Movements; len(m) != 1 || !m[0].Backflush || m[0].Item != taken || !m[0].Value.Equal(d("1")) {
		t.Errorf("%+v", all.Documents[1])
	}
	other := b.connect(t, func(c *d365.Config) { c.KeyField = "FactKey" })
	if all, err := other.Effects(t.Context(), order); err == nil || !strings.Contains(err.Error(), `"FactKey"`) {
		t.Errorf("%d documents by a field that is not there, %v", len(all.Documents), err)
	}
}

// A message that was given up has no effect and is no document: the fact is parked with D365's reason.
func TestFailedMessageIsNoDocument(t *testing.T) {
	t.Parallel()
	b := newBench(t, d365double.Traps{KeyField: "LinekeeperFactKey"})
	c, order := b.connect(t), b.order(t, "40")
	end := b.set(func(t *d365double.Traps) { t.FailWith = "Voucher is missing." })
	if x := connectortest.Drive(t.Context(), c, confirmation(order, "8", "0"), time.Minute); x.End != connectortest.Refused {
		t.Fatalf("%+v", x)
	}
	end()
	if all, err := c.Effects(t.Context(), order); err != nil || len(all.Documents) != 0 {
		t.Errorf("%+v %v", all.Documents, err)
	}
}
