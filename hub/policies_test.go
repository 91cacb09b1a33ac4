package hub

import (
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/posting"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/shopspring/decimal"
)

// takesNothing is an ERP that is told with each confirmation to move no material.
type takesNothing struct{ connector.Connector }

func (takesNothing) Capabilities() connector.Capabilities {
	return connector.Capabilities{Backflush: connector.BackflushNever, CannotReopen: "it has no such function"}
}

func TestPolicyThatTheERPDoesNotCarryOutIsAFault(t *testing.T) {
	never := []ConnectorKind{{Name: "sandbox", New: func(string, string, func(any) error) (connector.Connector, error) { return takesNothing{}, nil }}}
	for _, p := range []PolicyConfig{{Backflush: "erp"}, {ERP: "erp", Backflush: "erp", Items: []string{"OIL"}}, {ClosedOrders: "reopen"}} {
		cfg := configured(t, "http://127.0.0.1:1")
		cfg.Posting.Policies = []PolicyConfig{p}
		if faults := cfg.Check(never); len(faults) != 1 || faults[0].Hint == "" {
			t.Errorf("%+v: %v", p, faults)
		}
	}
}

// Where a system offers no way to reopen an order, the check says why, and takes a policy for all others.
func TestReopeningThatTheERPDoesNotOfferIsExplained(t *testing.T) {
	never := []ConnectorKind{{Name: "sandbox", New: func(string, string, func(any) error) (connector.Connector, error) { return takesNothing{}, nil }}}
	cfg := configured(t, "http://127.0.0.1:1")
	cfg.Posting.Policies = []PolicyConfig{{ClosedOrders: "reopen"}}
	if faults := cfg.Check(never); len(faults) != 1 || !strings.Contains(faults[0].Text, "it has no such function") || !strings.Contains(faults[0].Hint, "before this one") {
		t.Errorf("%v", faults)
	}
	cfg.Posting.Policies = []PolicyConfig{{ERP: "erp", ClosedOrders: "hold"}, {ClosedOrders: "reopen"}}
	if faults := cfg.Check(never); len(faults) != 0 {
		t.Errorf("%v", faults)
	}
	cfg.Posting.Policies = []PolicyConfig{{ERP: "erp", Plant: cfg.Plants[0].Plant, ClosedOrders: "hold"}, {ClosedOrders: "reopen"}}
	if faults := cfg.Check(never); len(faults) != 1 {
		t.Errorf("another plant's orders would be reopened: %v", faults)
	}
}

func TestPoliciesOfTheFileReachTheEngineAndTheComparison(t *testing.T) {
	cfg := configured(t, "http://127.0.0.1:1")
	cfg.Posting.Policies = []PolicyConfig{
		{Plant: "ulm", LateFacts: "hold", MonthCloses: "3 18:30", TolerancePercent: "2.5", OverDelivery: "stop", Collect: CollectConfig{Every: time.Minute, Quantity: "12.5", OrderEnd: true}},
		{Items: []string{"OIL"}, Backflush: "mes"},
	}
	if faults := cfg.Check(kinds); len(faults) > 0 {
		t.Fatal(faults)
	}
	all, _ := cfg.policies()
	if p := all[0]; *p.Closing != (posting.Closing{Day: 3, Hour: 18, Minute: 30}) || p.Late != posting.LateHold || p.Collect.Quantity.String() != "12.5" || !p.Collect.OrderEnd || p.Delivery != posting.DeliveryStop {
		t.Errorf("%+v", p)
	}
	if z := cfg.zones()["ulm"]; z == nil || z.String() != cfg.Plants[0].TimeZone {
		t.Errorf("zone %v", z)
	}
	of := rules(all, map[string]connector.Connector{"erp": takesNothing{}}, reconcile.DefaultPolicy())
	ulm, bern := of("ulm", "erp"), of("bern", "erp")
	marked := &object.Component{Item: "STEEL", Backflush: true}
	if ulm.FirstOpenDay || !bern.FirstOpenDay || ulm.MayReopen || !ulm.YieldTolerance.Equal(decimal.RequireFromString("0.025")) || !bern.YieldTolerance.IsZero() {
		t.Errorf("ulm %+v, bern %+v", ulm, bern)
	}
	if ulm.Owner("OIL", nil) != "mes" || ulm.Owner("STEEL", marked) != "" || of("ulm", "other").Owner("STEEL", marked) != "erp" {
		t.Error("owners of consumption")
	}
}
