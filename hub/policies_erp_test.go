package hub

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/hub/checking"
	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/store"
)

func (r *running) post(path, body string) error {
	res, err := http.Post(r.h.URL()+path, "application/json", bytes.NewReader([]byte(body)))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, res.Status)
	}
	return nil
}

// state waits until a fact's posting is in a state.
func (r *running) state(f object.Fact, state, code string) (document string) {
	r.t.Helper()
	type life struct {
		Posting struct{ State, Code, Reason, Document string }
	}
	var l life
	realparts.Eventually(r.t, 30*time.Second, fmt.Sprintf("fact %s is %s %s", f.Position, state, code), func() error {
		l = life{}
		if err := r.get("/v1/facts/"+f.Key.String(), &l); err != nil || l.Posting.State != state || l.Posting.Code != code {
			return fmt.Errorf("posting %+v, %v", l.Posting, err)
		}
		return nil
	})
	return l.Posting.Document
}

// An ERP whose month is closed, whose order is completed in between, and that gets one document of several facts.
func TestPoliciesHoldAgainstARealERP(t *testing.T) {
	e, url := books(t)
	ctx := t.Context()
	no, err := e.ReleaseDemoOrder(ctx, "ULM", "press1", 0, 60)
	if err != nil {
		t.Fatal(err)
	}
	cfg := configured(t, url)
	cfg.Posting.Policies = []PolicyConfig{{ERP: "erp", LateFacts: "first_open_day", ClosedOrders: "reopen", OverDelivery: "stop", Collect: CollectConfig{Quantity: "6", Every: time.Hour}}}
	r := run(t, cfg)
	realparts.Eventually(t, 20*time.Second, "order at the hub", func() error { return r.get("/v1/work-orders/"+no, nil) })
	p := r.dial()
	now := time.Now()
	late := now.AddDate(0, -1, -now.Day()+1) // in the month before
	if err := e.SetPeriod(ctx, late.Format("2006-01"), false); err != nil {
		t.Fatal(err)
	}
	made := func(name string, at time.Time) object.Fact {
		f := count(name, no)
		f.OccurredAt, f.RecordedAt = at, at
		return f
	}
	a, b, c := made("a", late), made("b", late.Add(time.Minute)), made("c", late.Add(2*time.Minute))
	p.deliver(a, b, c)
	document := r.state(a, "verified", "")
	if other := r.state(c, "verified", ""); document == "" || other != document {
		t.Errorf("documents %q and %q", document, other)
	}

	if err := e.CompleteOrder(ctx, no); err != nil {
		t.Fatal(err)
	}
	var o struct{ State string }
	state := func(want string) {
		t.Helper()
		realparts.Eventually(t, 20*time.Second, "the order is "+want+" at the hub", func() error {
			if err := r.get("/v1/work-orders/"+no, &o); err != nil || o.State != want {
				return fmt.Errorf("%+v, %v", o, err)
			}
			return nil
		})
	}
	state("COMPLETED")
	after := made("after", now)
	after.Confirmation.Yield = decimal.NewFromInt(10)
	p.deliver(after)
	r.state(after, "verified", "")
	realparts.Eventually(t, 20*time.Second, "the order's state is restored", func() error {
		all, err := e.Totals(ctx)
		if x := all.Orders[no]; err == nil && x.State != "COMPLETED" {
			err = fmt.Errorf("order is %s", x.State)
		}
		return err
	})
	state("COMPLETED")
	var steps []store.OrderStep
	realparts.Eventually(t, 20*time.Second, "the hub has written down that it restored the order", func() (err error) { // after the ERP did
		if _, _, steps, err = r.h.store.OrderTimeline(ctx, "erp", no); err == nil && !slices.ContainsFunc(steps, func(s store.OrderStep) bool { return s.Step == "restored" }) {
			err = fmt.Errorf("the steps are %+v", steps)
		}
		return err
	})
	i := slices.IndexFunc(steps, func(s store.OrderStep) bool { return s.Step == "reopened" })
	if i < 0 || len(steps) != i+2 || steps[i+1].Step != "restored" {
		t.Errorf("the reopened order is news to the plant: %+v", steps)
	}

	much := made("much", now.Add(time.Second))
	much.Confirmation.Yield = decimal.NewFromInt(50)
	p.deliver(much)
	r.state(much, "parked", "over_delivery")
	if err := r.post("/v1/postings/"+much.Key.String()+"/approve", `{"note":"the customer takes it"}`); err != nil {
		t.Fatal(err)
	}
	r.state(much, "verified", "")

	// The comparison knows the shared document, and shows that it is in another month than its facts.
	erp, err := kinds[0].New("erp", "", cfg.ERPs[0].Decode)
	if err != nil {
		t.Fatal(err)
	}
	connectors := map[string]connector.Connector{"erp": erp}
	all, err := checking.Read(ctx, r.h.store, connectors, func() time.Time { return time.Now().Add(time.Hour) }, "ulm", no)
	if err != nil || len(all) != 1 || !all[0].Asked {
		t.Fatalf("%+v, %v", all, err)
	}
	policy := reconcile.DefaultPolicy()
	found := map[reconcile.Type]int{}
	for _, f := range reconcile.CheckOrder(all[0], policy) {
		found[f.Type]++
		if f.Type != reconcile.PeriodClosed && f.Type != reconcile.OverDelivery && f.Type != reconcile.UseOff {
			t.Errorf("%+v", f)
		}
	}
	if found[reconcile.PeriodClosed] != 3 || found[reconcile.OverDelivery] != 1 {
		t.Errorf("found %v", found)
	}
	for _, l := range reconcile.Statement(all[0], nil) {
		if !l.Agrees && l.Level != "document" || l.Level == "document" && l.Kind == "yield" {
			t.Errorf("line %+v", l)
		}
	}
	gone := all[0]
	gone.Effects = nil
	missing := 0
	for _, f := range reconcile.CheckOrder(gone, policy) {
		if f.Type == reconcile.Missing && len(f.Facts) == 3 {
			missing++
			stored, err := r.h.store.FactByKey(ctx, f.Proposed.Fact)
			if err != nil || stored.Fact.Key != a.Key {
				t.Errorf("the key of the missing document leads to %v, %v", stored.Fact.Position, err)
			}
		}
	}
	if missing != 1 {
		t.Errorf("a document of three facts that is gone is missing %d times", missing)
	}
}
