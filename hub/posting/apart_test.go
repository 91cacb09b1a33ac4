package posting

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
)

func TestMemberThatIsCorrectedLeavesARefusedAggregateAndTheOthersGoOnAlone(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		r := &refusing{w.erp, true}
		w.opts.Connectors["erp"], w.opts.Policies = r, collecting(time.Minute)
		w.order("WO-1")
		w.start()
		f, g, h := confirm("WO-1", 1, "5"), confirm("WO-1", 2, "7"), confirm("WO-1", 3, "1")
		w.deliver(f, g, h)
		w.pass(5 * time.Minute)
		w.want(g, store.PostingParked, "no_stock")
		w.erp.mu.Lock()
		r.next = false
		w.erp.mu.Unlock()
		ctx := context.Background()
		if err := w.e.Correct(ctx, g.Key.String(), store.Values{Lot: "L7"}, "wrong lot", "anna"); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		w.want(g, store.PostingVerified, "")
		w.want(f, store.PostingParked, "no_stock")
		if n, err := w.e.Replay(ctx, store.PostingFilter{Code: "no_stock"}, "anna"); err != nil || n != 2 {
			t.Fatal(n, err)
		}
		w.pass(time.Minute)
		w.want(f, store.PostingVerified, "")
		w.want(h, store.PostingVerified, "")
		w.agrees("WO-1", "13")
		if c := w.booked(g); c.Lot != "L7" || w.documents("WO-1") != 3 {
			t.Errorf("booked %+v, %d documents", c, w.documents("WO-1"))
		}
	})
}

func TestDateThatIsCorrectedWhileAFactIsCollectedOrItsDocumentPrepared(t *testing.T) {
	for _, step := range []string{"", "prepared", "sealed"} {
		t.Run("at "+step, func(t *testing.T) {
			simulate(t, func(t *testing.T, w *world) {
				erp := withReverser(w)
				w.opts.Policies = collecting(time.Minute)
				w.order("WO-1")
				f, g := confirm("WO-1", 1, "5"), confirm("WO-1", 2, "7")
				undo := reversal(f, "undo")
				correct := func() {
					if err := w.e.RetryOn(context.Background(), g.Key.String(), time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC), "wrong zone", "anna"); err != nil {
						t.Error(err)
					}
				}
				once := false
				w.crash = func(s string) error {
					if s == step && !once {
						once = true
						correct()
					}
					return nil
				}
				w.start()
				w.deliver(f, g)
				w.pass(time.Second)
				w.deliver(undo)
				w.pass(time.Second)
				if step == "" {
					correct()
				}
				w.pass(30 * time.Minute)
				for _, f := range []object.Fact{f, g, undo} {
					if p := w.posting(f); !p.State.Settled() {
						t.Errorf("fact %q: %+v", f.Position, p)
					}
				}
				if date := erp.dates[g.Key.String()]; !strings.HasPrefix(date, "2026-12-01 for ") {
					t.Errorf("posted with date %q", date)
				}
				w.agrees("WO-1", "7")
			})
		})
	}
}

func TestSharedDocumentIsNotTakenBackForOneOfItsFacts(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		withReverser(w)
		w.opts.Policies = collecting(time.Minute)
		w.order("WO-1")
		w.start()
		f, g := confirm("WO-1", 1, "5"), confirm("WO-1", 2, "7")
		w.deliver(f, g)
		w.pass(5 * time.Minute)
		w.want(f, store.PostingVerified, "")
		if err := w.e.Reverse(context.Background(), g.Key.String(), "wrong", "anna"); !errors.Is(err, ErrNotNow) || !strings.Contains(err.Error(), "together with other facts") {
			t.Errorf("taken back: %v", err)
		}
		w.agrees("WO-1", "12")
	})
}

func TestMappingThatComesWhileFactsAreCollectedIsUsedForEach(t *testing.T) {
	for name, late := range map[string]bool{"before": false, "while collected": true} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(t *testing.T, w *world) {
				w.opts.Policies = collecting(time.Minute)
				w.order("WO-1")
				if !late {
					w.approve(weights, before, pounds)
				}
				w.start()
				f, g := weighed("WO-1", 1, "3"), weighed("WO-1", 2, "5.5")
				w.deliver(f, g)
				w.pass(time.Second)
				if late {
					w.want(f, store.PostingDue, CodeCollecting)
					w.approve(weights, before, pounds)
				}
				w.pass(30 * time.Minute)
				for i, f := range []object.Fact{f, g} {
					w.want(f, store.PostingVerified, "")
					if c, want := w.booked(f), []string{"1.361", "2.495"}[i]; c.Unit != "KGM" || c.Yield.String() != want {
						t.Errorf("%+v, want %s", c, want)
					}
				}
			})
		})
	}
}
