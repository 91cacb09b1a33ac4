package erp_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/hub/connector/sandbox/erp"
	"github.com/shopspring/decimal"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func d(s string) decimal.Decimal { return decimal.RequireFromString(s) }

// open opens an ERP with the demo's items and returns one released order of 10 brackets.
func open(t *testing.T, o erp.Options) (*erp.ERP, string) {
	t.Helper()
	e, err := erp.Open(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	if err := e.SeedDemo(t.Context()); err != nil {
		t.Fatal(err)
	}
	no, err := e.ReleaseDemoOrder(t.Context(), "1000", "press1", 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	return e, no
}

func confirm(no, key, yield, scrap string) erp.Request {
	return erp.Request{Kind: erp.KindConfirmation, ExternalKey: key, OrderNo: no, Yield: d(yield), Scrap: d(scrap), Unit: "C62"}
}

func issue(no, key, item, quantity string) erp.Request {
	return erp.Request{Kind: erp.KindMovement, ExternalKey: key, OrderNo: no, Movement: "261", Item: item, Quantity: d(quantity), Unit: "KGM"}
}

func post(t *testing.T, e *erp.ERP, r erp.Request) erp.Document {
	t.Helper()
	doc, err := e.Post(t.Context(), r)
	if err != nil {
		t.Fatalf("post %+v: %v", r, err)
	}
	return doc
}

func onHand(t *testing.T, e *erp.ERP, item string) decimal.Decimal {
	t.Helper()
	stock, err := e.Stock(t.Context(), []string{item})
	if err != nil || len(stock) != 1 {
		t.Fatalf("stock of %s: %v %v", item, stock, err)
	}
	return stock[0].OnHand
}

func TestPostingsMoveStockAndSumUp(t *testing.T) {
	e, no := open(t, erp.Options{})
	post(t, e, confirm(no, "K1", "6", "1"))
	post(t, e, confirm(no, "K2", "3", "0"))
	post(t, e, issue(no, "K3", "STEEL-S235", "1.125"))
	post(t, e, erp.Request{Kind: erp.KindMovement, ExternalKey: "K4", OrderNo: no, Movement: "262", Item: "STEEL-S235", Quantity: d("0.125"), Unit: "KGM"})
	if got := onHand(t, e, "BRACKET-10"); !got.Equal(d("9")) {
		t.Errorf("brackets on hand %s, want 9", got)
	}
	if got := onHand(t, e, "STEEL-S235"); !got.Equal(d("999999")) {
		t.Errorf("steel on hand %s, want 999999", got)
	}
	totals, err := e.Totals(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	o := totals.Orders[no]
	if !o.Yield.Equal(d("9")) || !o.Scrap.Equal(d("1")) || !o.Consumed["STEEL-S235"].Equal(d("1")) || totals.Documents != 4 || len(totals.Duplicates) != 0 {
		t.Errorf("totals %+v", totals)
	}
}

func TestReversalTakesAllOfADocumentBackOnce(t *testing.T) {
	e, no := open(t, erp.Options{})
	first := post(t, e, confirm(no, "K1", "6", "1"))
	undo := post(t, e, erp.Request{ExternalKey: "K2", Reverses: first.Number})
	if !undo.Yield.Equal(d("-6")) || !undo.Scrap.Equal(d("-1")) || !onHand(t, e, "BRACKET-10").IsZero() {
		t.Errorf("reversal %+v, on hand %s", undo, onHand(t, e, "BRACKET-10"))
	}
	_, err := e.Post(t.Context(), erp.Request{ExternalKey: "K3", Reverses: first.Number})
	wantCode(t, err, "M7/061")
}

func TestBackflushedComponentIsIssuedWithTheConfirmation(t *testing.T) {
	e, _ := open(t, erp.Options{})
	no, err := e.ReleaseOrder(t.Context(), erp.Order{Item: "BRACKET-10", Quantity: d("10"),
		Components: []erp.Component{{Item: "STEEL-S235", Required: d("1.2"), Backflush: true}}})
	if err != nil {
		t.Fatal(err)
	}
	doc := post(t, e, confirm(no, "K1", "4", "1"))
	if len(doc.Lines) != 2 || doc.Lines[1].Movement != "261" || !doc.Lines[1].Quantity.Equal(d("0.6")) {
		t.Errorf("lines %+v", doc.Lines)
	}
}

func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	var refused *erp.Error
	if !errors.As(err, &refused) || refused.Code != code {
		t.Errorf("got %v, want a refusal with %s", err, code)
	}
}

func TestRefusalsBookNothing(t *testing.T) {
	e, no := open(t, erp.Options{})
	cancelled, err := e.ReleaseDemoOrder(t.Context(), "1000", "press1", 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Cancel(t.Context(), cancelled); err != nil {
		t.Fatal(err)
	}
	if err := e.SetPeriod(t.Context(), "2026-10", false); err != nil {
		t.Fatal(err)
	}
	closed := confirm(no, "K", "1", "0")
	closed.PostingDate = "2026-10-31"
	for name, c := range map[string]struct {
		r    erp.Request
		code string
	}{
		"stock":     {issue(no, "K", "STEEL-S235", "1000000.001"), "M7/021"},
		"period":    {closed, "M7/053"},
		"order":     {confirm("4711", "K", "1", "0"), "CO/017"},
		"cancelled": {confirm(cancelled, "K", "1", "0"), "CO/688"},
		"unit":      {issue(no, "K", "BAG-30", "1"), "BM/302"},
		"item":      {issue(no, "K", "GOLD", "1"), "M3/305"},
		"decimals":  {issue(no, "K", "STEEL-S235", "0.0001"), "BM/314"},
		"negative":  {confirm(no, "K", "-1", "0"), "M7/018"},
	} {
		_, err := e.Post(t.Context(), c.r)
		t.Run(name, func(t *testing.T) { wantCode(t, err, c.code) })
	}
	totals, _ := e.Totals(t.Context())
	if totals.Documents != 0 || !onHand(t, e, "STEEL-S235").Equal(d("1000000")) {
		t.Errorf("something was booked: %+v", totals)
	}
}

func TestExternalKeyDoesNotStopADuplicateButShowsIt(t *testing.T) {
	e, no := open(t, erp.Options{})
	a, b := post(t, e, confirm(no, "SAME", "1", "0")), post(t, e, confirm(no, "SAME", "1", "0"))
	totals, err := e.Totals(t.Context())
	if err != nil || len(totals.Duplicates) != 1 || totals.Duplicates[0].ExternalKey != "SAME" {
		t.Fatalf("duplicates %+v %v", totals.Duplicates, err)
	}
	found, err := e.Find(t.Context(), "SAME")
	if err != nil || len(found.Documents) != 2 || found.Documents[0].Number != a.Number || found.Documents[1].Number != b.Number {
		t.Errorf("found %+v %v", found, err)
	}
}

func TestChangedQuantityScalesComponentsAndCountsTheVersion(t *testing.T) {
	e, no := open(t, erp.Options{})
	if err := e.ChangeQuantity(t.Context(), no, d("20")); err != nil {
		t.Fatal(err)
	}
	post(t, e, erp.Request{Kind: erp.KindStatus, OrderNo: no, State: erp.Started})
	if err := e.Cancel(t.Context(), no); err == nil {
		t.Error("a started order was cancelled")
	}
	post(t, e, erp.Request{Kind: erp.KindStatus, OrderNo: no, State: erp.Finished})
	_, err := e.Post(t.Context(), erp.Request{Kind: erp.KindStatus, OrderNo: no, State: erp.Started})
	wantCode(t, err, "CO/101")
	post(t, e, confirm(no, "LATE", "1", "0")) // a finished order still takes the last counts
}

func TestConcurrentPostingsAreAllThereOnce(t *testing.T) {
	e, no := open(t, erp.Options{})
	errs := make(chan error)
	const writers, each = 8, 25
	for w := range writers {
		go func() {
			var err error
			for i := range each {
				if _, e := e.Post(context.Background(), confirm(no, fmt.Sprintf("K%d-%d", w, i), "1", "0")); e != nil {
					err = e
				}
			}
			errs <- err
		}()
	}
	for range writers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	totals, err := e.Totals(t.Context())
	if err != nil || !totals.Orders[no].Yield.Equal(decimal.NewFromInt(writers*each)) || totals.Documents != writers*each {
		t.Errorf("totals %+v %v", totals, err)
	}
}

func TestDocumentsAndDelayedPostingsSurviveARestart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "erp #1 100%.db")
	now := time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)
	e, err := erp.Open(file, erp.Options{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.SeedDemo(t.Context()); err != nil {
		t.Fatal(err)
	}
	no, err := e.ReleaseDemoOrder(t.Context(), "1000", "press1", 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	post(t, e, confirm(no, "K1", "1", "0"))
	e.SetFaults(erp.Faults{Delay: 1, DelayFor: erp.Duration(time.Hour)})
	s := serve(t, e)
	if status := s.post(t, "/api/orders/"+no+"/confirmations", `{"external_key":"K2","yield":"2","unit":"C62"}`); status != 202 {
		t.Fatalf("status %d, want 202", status)
	}
	if status := s.post(t, "/api/orders/"+no+"/movements", `{"external_key":"K3","item":"STEEL-S235","movement":"261","quantity":"2000000","unit":"KGM"}`); status != 202 {
		t.Fatalf("status %d, want 202", status)
	}
	if found, err := e.Find(t.Context(), "K2"); err != nil || !found.Pending || len(found.Documents) != 0 {
		t.Fatalf("found %+v %v, want it pending", found, err)
	}
	s.Close()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Fatal(err)
	}

	e, err = erp.Open(file, erp.Options{Now: func() time.Time { return now.Add(2 * time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	realparts.Eventually(t, 20*time.Second, "delayed postings are booked", func() error {
		if n, err := e.Waiting(t.Context()); err != nil || n > 0 {
			return fmt.Errorf("%d waiting, %w", n, err)
		}
		return nil
	})
	totals, _ := e.Totals(t.Context())
	if o := totals.Orders[no]; !o.Yield.Equal(d("3")) || !o.Consumed["STEEL-S235"].IsZero() {
		t.Errorf("totals %+v", o)
	}
	found, err := e.Find(t.Context(), "K3")
	if err != nil || found.Pending || found.Failed == nil || found.Failed.Code != "M7/021" {
		t.Errorf("found %+v %v, want the refusal of the delayed posting", found, err)
	}
}
