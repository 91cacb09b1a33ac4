package hub

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/hub/api"
	"github.com/linekeeper/linekeeper/hub/connector/sandbox/erp"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
)

// gaps are the discrepancies of missing records, in any state.
func (r *running) gaps() (all []api.Discrepancy, err error) {
	var list struct{ Items []api.Discrepancy }
	err = r.get("/v1/discrepancies?type=sequence_gap", &list)
	return list.Items, err
}

// gap waits for the only one, in a state.
func (r *running) gap(state string) (d api.Discrepancy) {
	r.t.Helper()
	realparts.Eventually(r.t, 20*time.Second, "the gap is "+state, func() error {
		all, err := r.gaps()
		if err == nil && (len(all) != 1 || all[0].State != state) {
			err = fmt.Errorf("gaps are %+v", all)
		}
		if err == nil {
			d = all[0]
		}
		return err
	})
	return d
}

// shown are the kinds and codes in the inbox.
func (r *running) shown() (all []string) {
	r.t.Helper()
	var list struct{ Items []api.InboxEntry }
	if err := r.get("/v1/inbox", &list); err != nil {
		r.t.Fatal(err)
	}
	for _, e := range list.Items {
		all = append(all, e.Kind+" "+e.Code)
	}
	return all
}

// posted waits until counts of an order are in the books.
func (r *running) posted(no string, counts ...string) {
	r.t.Helper()
	for _, name := range counts {
		r.state(count(name, no), "verified", "")
	}
}

// compare asks for a comparison.
func (r *running) compare() {
	r.t.Helper()
	res, err := http.Post(r.h.URL()+"/v1/reconciliations", "application/json", strings.NewReader(`{"plant":"ulm"}`))
	if err != nil {
		r.t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		r.t.Fatal(res.Status)
	}
}

// comparing is a configuration whose hub compares soon.
func comparing(t *testing.T) (Config, *erp.ERP) {
	e, url := books(t)
	cfg := configured(t, url)
	cfg.Reconcile = ReconcileConfig{Every: 50 * time.Millisecond, Settle: time.Millisecond}
	return cfg, e
}

// A hub that was put back to its backup has lost what the agent let go of because the hub had it: nobody can send it again, and a person
// is told which records those are. When they are brought from a copy the gap closes.
func TestARestoredHubNamesTheRecordsThatAreGoneUntilTheyAreBroughtBack(t *testing.T) {
	cfg, e := comparing(t)
	no, err := e.ReleaseDemoOrder(t.Context(), "ULM", "press1", 0, 60)
	if err != nil {
		t.Fatal(err)
	}
	r := run(t, cfg)
	p := r.dial()
	p.deliver(count("a", no), count("b", no))
	r.posted(no, "a", "b") // before the order is known, or in doubt, they would be shown, too
	p.close()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	db := filepath.Join(r.dir, "data", "hub.db")
	backup, err := os.ReadFile(db)
	if err != nil {
		t.Fatal(err)
	}
	r = run(t, cfg)
	p = r.dialAt(5, 2)
	p.deliver(count("c", no), count("d", no), count("e", no))
	r.posted(no, "c", "d", "e")
	p.close()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	for _, ending := range []string{"-wal", "-shm"} {
		if err := os.Remove(db + ending); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	realparts.WriteFile(t, db, string(backup))

	r = run(t, cfg)
	p = r.dialAt(5, 5)
	if all := r.shown(); len(all) != 1 || all[0] != "discrepancy sequence_gap" {
		t.Errorf("the first thing shown is %v", all)
	}
	d := r.gap("ESCALATED")
	if d.Plant != "ulm" || d.Left.Value != "3" || d.Right.Value != "6" || d.Delta != "3" || d.Owner != "automation" || !strings.Contains(d.Proposed.Text, "records 3 to 5") || !strings.Contains(d.Why, "the hub was restored from an older copy") || len(d.Evidence) == 0 {
		t.Errorf("%+v", d)
	}
	realparts.Eventually(t, 20*time.Second, "the discrepancy is the only thing shown", func() error {
		if all := r.shown(); len(all) != 1 || all[0] != "discrepancy sequence_gap" {
			return fmt.Errorf("the inbox shows %v", all)
		}
		return nil
	})
	// It says so once, however often the agent comes.
	p.close()
	p = r.dialAt(5, 5)
	r.compare()
	r.gap("ESCALATED")
	// Two of the three are not all of them.
	p.seq = 2
	p.deliver(count("c", no), count("d", no))
	r.compare()
	r.gap("ESCALATED")
	p.deliver(count("e", no))
	r.compare()
	r.gap("HEALED")
	realparts.Eventually(t, 20*time.Second, "nothing is shown any more", func() error {
		if all := r.shown(); len(all) > 0 {
			return fmt.Errorf("the inbox shows %v", all)
		}
		return nil
	})
	realparts.Eventually(t, 30*time.Second, "each count is in the books once", func() error {
		totals, err := e.Totals(t.Context())
		if x := totals.Orders[no]; err == nil && (x.Yield.String() != "10" || len(totals.Duplicates) > 0) {
			err = fmt.Errorf("%+v %+v", x, totals.Duplicates)
		}
		return err
	})
}

// An agent whose damaged segment could not be saved sends on behind the hole.
func TestRecordsThatAnAgentLostAreAGapUntilAPersonDecides(t *testing.T) {
	cfg, e := comparing(t)
	no, err := e.ReleaseDemoOrder(t.Context(), "ULM", "press1", 0, 60)
	if err != nil {
		t.Fatal(err)
	}
	r := run(t, cfg)
	p := r.dial()
	p.deliver(count("a", no), count("b", no))
	p.close()
	p = r.dialAt(9, 2)
	p.seq = 6
	p.deliver(count("g", no))
	d := r.gap("ESCALATED")
	if d.Delta != "4" || !strings.Contains(d.Proposed.Text, "records 3 to 6") || !strings.Contains(d.Why, "never came") {
		t.Errorf("%+v", d)
	}
	res, err := http.Post(fmt.Sprintf("%s/v1/discrepancies/%d/accept", r.h.URL(), d.ID), "application/json", strings.NewReader(`{"note":"4 records counted by hand"}`))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	r.compare()
	r.gap("ACCEPTED")
	r.posted(no, "a", "b", "g")
	if all := r.shown(); len(all) > 0 {
		t.Errorf("the inbox shows %v", all)
	}
}

// Neither a plain resend nor an agent that went back in time is a gap.
func TestWhatComesTwiceOrFromAnOldCopyIsNoGap(t *testing.T) {
	cfg, e := comparing(t)
	no, err := e.ReleaseDemoOrder(t.Context(), "ULM", "press1", 0, 60)
	if err != nil {
		t.Fatal(err)
	}
	r := run(t, cfg)
	p := r.dial()
	p.deliver(count("a", no), count("b", no), count("c", no))
	p.close()
	p = r.dialAt(3, 1)
	p.deliver(count("b", no), count("c", no))
	p.close()
	r.dialAt(2, 1).close()
	r.compare()
	if all, err := r.gaps(); err != nil || len(all) > 0 {
		t.Errorf("%+v %v", all, err)
	}
}

// A system that cannot show what a balance needs is refused at the start.
func TestBalancesThatCannotBeComparedAreRefusedAtTheStart(t *testing.T) {
	cfg, _ := comparing(t)
	cfg.Reconcile.Balances = []BalanceConfig{{ERP: "erp", Item: "STEEL-S235"}, {ERP: "erp", Item: "STEEL-S235"}, {ERP: "other", Item: ""}}
	var texts []string
	for _, f := range cfg.Check(kinds) {
		texts = append(texts, f.String())
	}
	for _, want := range []string{"is there twice", "names no item", `ERP "other" is not configured`} {
		if !strings.Contains(strings.Join(texts, "\n"), want) {
			t.Errorf("%q is not among %v", want, texts)
		}
	}
	cfg.Reconcile.Balances = cfg.Reconcile.Balances[:1]
	if faults := cfg.Check(kinds); len(faults) > 0 {
		t.Error(faults)
	}
	if _, err := cfg.Reconcile.watches(nil); err == nil || !strings.Contains(err.Error(), "it cannot tell its stock") {
		t.Errorf("%v", err)
	}
}

// The hub compares by its clock: stock that went past the orders comes to the warehouse, what orders move never does.
func TestAStockThatIsWatchedIsComparedByTheClock(t *testing.T) {
	cfg, e := comparing(t)
	cfg.Reconcile.Balances, cfg.Reconcile.BalancesEvery = []BalanceConfig{{ERP: "erp", Item: "BRACKET-10", Plant: "ulm"}}, 50*time.Millisecond
	no, err := e.ReleaseDemoOrder(t.Context(), "ULM", "press1", 0, 60)
	if err != nil {
		t.Fatal(err)
	}
	r := run(t, cfg)
	realparts.Eventually(t, 20*time.Second, "order at the hub", func() error { return r.get("/v1/work-orders/"+no, nil) })
	place := store.StockPlace{ERP: "erp", Item: "BRACKET-10"}
	opened := func(held string) {
		t.Helper()
		realparts.Eventually(t, 20*time.Second, "both sides agree on "+held, func() error {
			o, err := r.h.store.StockOpening(t.Context(), place)
			if err == nil && o.Held.String() != held {
				err = fmt.Errorf("held is %s", o.Held)
			}
			return err
		})
	}
	opened("0")
	p := r.dial()
	p.deliver(count("a", no), count("b", no), count("c", no))
	opened("6")
	if err := e.PutItem(t.Context(), erp.Item{Item: "BRACKET-10", OnHand: decimal.NewFromInt(-1)}); err != nil {
		t.Fatal(err)
	}
	realparts.Eventually(t, 20*time.Second, "the drift is with the warehouse", func() error {
		var list struct{ Items []api.InboxEntry }
		err := r.get("/v1/inbox", &list)
		if err == nil && (len(list.Items) != 1 || list.Items[0].Code != "balance_drift" || list.Items[0].Owner != "warehouse" || list.Items[0].Proposed != "count the stock" || list.Items[0].Stock[0].Quantity != "-1") {
			err = fmt.Errorf("the inbox shows %+v", list.Items)
		}
		return err
	})
	p.deliver(count("d", no))
	if err := e.PutItem(t.Context(), erp.Item{Item: "BRACKET-10", OnHand: decimal.NewFromInt(1)}); err != nil {
		t.Fatal(err)
	}
	opened("8")
	realparts.Eventually(t, 20*time.Second, "nothing is shown any more", func() error {
		if all := r.shown(); len(all) > 0 {
			return fmt.Errorf("the inbox shows %v", all)
		}
		return nil
	})
}

// Where the hub compares, a counter that went back is a discrepancy from the first moment on: nobody is told of it twice.
func TestACounterThatWentBackIsADiscrepancyAtOnce(t *testing.T) {
	cfg, _ := comparing(t)
	cfg.Reconcile.Every = time.Hour // nothing is compared in this test
	r := run(t, cfg)
	p := r.dial()
	at := time.Now().UTC().Truncate(time.Second)
	p.deliver(fact("step", func(f *object.Fact) {
		f.Kind, f.Source = object.KindException, "press"
		f.Exception = &object.Exception{Code: "counter_decrement", Item: "good", Reason: "it went back", Step: &object.CounterStep{Tag: "good", Epoch: "1.1", Last: decimal.NewFromInt(510), Now: decimal.NewFromInt(490),
			LastAt: at.Add(-time.Second), At: at, Outcome: object.StepWaits}}
	}))
	realparts.Eventually(t, 20*time.Second, "it is shown", func() error {
		switch all := r.shown(); {
		case len(all) == 0:
			return errors.New("nothing is shown")
		case len(all) != 1 || all[0] != "discrepancy counter_decrement":
			t.Fatalf("the inbox shows %v", all)
		}
		return nil
	})
	var list struct{ Items []api.Discrepancy }
	if err := r.get("/v1/discrepancies", &list); err != nil || len(list.Items) != 1 || list.Items[0].Subject != "counter ulm/line1/press/good" || list.Items[0].State != "ESCALATED" {
		t.Errorf("%+v %v", list.Items, err)
	}
}
