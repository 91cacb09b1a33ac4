package posting

import (
	"fmt"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
)

func TestFactsThatHadNoConnectorAreAdmittedInFewTransactions(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.opts.Connectors = nil
		w.start()
		const n = 2*planMany + 500
		var facts []object.Fact
		for i := range n {
			facts = append(facts, confirm(fmt.Sprintf("WO-%d", i%70), i, "1"))
		}
		w.deliver(facts...)
		w.pass(time.Hour)
		if got, want := w.counts(), fmt.Sprintf("%d parked no_connector", n); got != want {
			t.Fatalf("%s, want %s", got, want)
		}
		w.stop()
		transactions := 0
		w.crash = func(step string) error {
			if step == "changing many" {
				transactions++
			}
			return nil
		}
		w.opts.Connectors = map[string]connector.Connector{"erp": w.erp}
		w.start()
		w.pass(time.Hour)
		if got, want := w.counts(), fmt.Sprintf("%d parked unknown_order", n); got != want {
			t.Fatalf("%s, want %s", got, want)
		}
		if transactions > n/planMany+2 { // one more for each list that is empty
			t.Errorf("%d transactions for %d facts", transactions, n)
		}
	})
}
