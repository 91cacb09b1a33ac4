package posting

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
	"google.golang.org/protobuf/proto"
)

// told is what the plant was told of a fact, in the order in which it arrives.
func (w *world) told(f object.Fact) (outcomes string, last *pb.Receipt) {
	w.t.Helper()
	all, err := w.s.DeliveriesAfter(context.Background(), w.agent.ID, 0, 1000)
	if err != nil {
		w.t.Fatal(err)
	}
	var names []string
	for _, d := range all {
		if d.Kind != store.DeliverReceipt || d.Ref != f.Key.String() {
			continue
		}
		var r pb.Receipt
		if err := proto.Unmarshal(d.Body, &r); err != nil {
			w.t.Fatal(err)
		}
		if last != nil && r.GetAt().AsTime().Before(last.GetAt().AsTime()) {
			w.t.Errorf("receipt %s is older than the one before it", r.GetOutcome())
		}
		last = &r
		names = append(names, strings.TrimPrefix(r.GetOutcome().String(), "OUTCOME_"))
	}
	return strings.Join(names, " "), last
}

func (w *world) wantTold(f object.Fact, outcomes, reason string) {
	w.t.Helper()
	got, last := w.told(f)
	if got != outcomes || last.GetReason() != reason {
		w.t.Fatalf("the plant was told %q of fact %q, at last %q; want %q and %q", got, f.Position, last.GetReason(), outcomes, reason)
	}
}

// The operator's page shows the last receipt: a refusal must not stand there while the posting is under way again.
func TestRefusalThatIsTakenUpAgainIsToldToThePlant(t *testing.T) {
	ctx := context.Background()
	for name, again := range map[string]func(w *world, f object.Fact) error{
		"replay": func(w *world, f object.Fact) error { return w.e.ReplayFact(ctx, f.Key.String(), "anna") },
		"replay of many": func(w *world, f object.Fact) error {
			n, err := w.e.Replay(ctx, store.PostingFilter{Code: "period_closed"}, "anna")
			if err == nil && n != 1 {
				err = fmt.Errorf("%d were replayed", n)
			}
			return err
		},
		"correction": func(w *world, f object.Fact) error {
			return w.e.Correct(ctx, f.Key.String(), store.Values{PostingDate: "2000-01-01"}, "open", "anna")
		},
		"approval": func(w *world, f object.Fact) error {
			return w.e.Approve(ctx, f.Key.String(), "2000-01-01", "open", "anna")
		},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(t *testing.T, w *world) {
				w.order("WO-1")
				f := confirm("WO-1", 1, "5")
				reject := map[string]bool{f.Key.String(): true}
				w.erp.set(trouble{reject: reject})
				w.start()
				w.deliver(f)
				w.pass(time.Minute)
				w.wantTold(f, "REJECTED", "period is closed")
				w.erp.set(trouble{reject: reject, down: 100}) // it is due, and cannot be posted for now
				if err := again(w, f); err != nil {
					t.Fatal(err)
				}
				w.pass(time.Minute)
				w.wantTold(f, "REJECTED RECEIVED", postedAgain)
				w.stop()
				w.s.Close()
				w.open()
				w.start()
				w.pass(time.Hour)
				w.wantTold(f, "REJECTED RECEIVED", postedAgain) // a hub that starts again has nothing new to say
				w.erp.set(trouble{reject: reject})
				w.pass(time.Hour)
				w.wantTold(f, "REJECTED RECEIVED REJECTED", "period is closed")
				w.erp.set(trouble{})
				if err := again(w, f); err != nil && name != "correction" {
					t.Fatal(err)
				} else if name == "correction" { // once more the same is no correction
					if err := w.e.ReplayFact(ctx, f.Key.String(), "anna"); err != nil {
						t.Fatal(err)
					}
				}
				w.pass(time.Hour)
				w.wantTold(f, "REJECTED RECEIVED REJECTED RECEIVED POSTED VERIFIED", "")
			})
		})
	}
}

func TestWhatNeverCameToASystemIsToldToBePostedWhenItIs(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.put(store.Order{Agent: "edge1", Order: object.WorkOrder{OrderNo: "WO-1", ERP: "erp", Plant: "elsewhere", Revision: 1, State: object.OrderReleased}})
		w.start()
		f := confirm("WO-1", 1, "5")
		w.deliver(f)
		w.pass(time.Minute)
		w.want(f, store.PostingParked, CodeWrongPlant)
		if got, _ := w.told(f); got != "REJECTED" {
			t.Fatalf("the plant was told %q", got)
		}
		if err := w.e.ReplayFact(context.Background(), f.Key.String(), "anna"); err != nil { // nothing has changed
			t.Fatal(err)
		}
		w.pass(time.Minute)
		if got, _ := w.told(f); got != "REJECTED" {
			t.Fatalf("a replay that changes nothing tells the plant %q", got)
		}
		w.order("WO-1")
		if err := w.e.ReplayFact(context.Background(), f.Key.String(), "anna"); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		w.wantTold(f, "REJECTED RECEIVED POSTED VERIFIED", "")
	})
}

// What waited for its order was never refused: the plant knows that it is at the hub, and nothing is sent for thousands of them.
func TestWhatWaitedForItsOrderNeedsNoReceiptOfThat(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.start()
		f := confirm("WO-1", 1, "5")
		w.deliver(f)
		w.pass(time.Minute)
		w.order("WO-1")
		w.pass(time.Minute)
		w.wantTold(f, "POSTED VERIFIED", "")
	})
}

func TestDoubtThatIsOverIsToldToThePlant(t *testing.T) {
	ctx := context.Background()
	simulate(t, func(t *testing.T, w *world) {
		w.order("WO-1")
		lost, dark := confirm("WO-1", 1, "5"), confirm("WO-1", 2, "7")
		w.erp.set(trouble{lostRequest: 100})
		w.start()
		w.deliver(lost)
		w.pass(time.Minute)
		w.erp.set(trouble{retry: 100}) // it is found not to be there, and refused for now
		w.pass(10 * time.Minute)
		w.wantTold(lost, "IN_DOUBT RECEIVED", postedAgain)
		w.erp.set(trouble{})
		w.pass(time.Hour)
		w.wantTold(lost, "IN_DOUBT RECEIVED POSTED VERIFIED", "")

		w.erp.set(trouble{lostRequest: 100, dark: map[string]bool{dark.Key.String(): true}})
		w.deliver(dark)
		w.pass(time.Hour)
		w.want(dark, store.PostingParked, CodeCannotTell)
		w.erp.set(trouble{})
		if err := w.e.PostAgain(ctx, dark.Key.String(), "not there", "anna"); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Hour)
		if got, _ := w.told(dark); got != "IN_DOUBT IN_DOUBT RECEIVED POSTED VERIFIED" {
			t.Fatalf("the plant was told %q", got)
		}
		if err := w.e.Renew(ctx, lost.Key.String(), "the books were restored", "anna"); err != nil {
			t.Fatal(err)
		}
		w.erp.mu.Lock()
		delete(w.erp.effects, lost.Key.String())
		w.erp.mu.Unlock()
		w.pass(time.Hour)
		w.wantTold(lost, "IN_DOUBT RECEIVED POSTED VERIFIED RECEIVED POSTED VERIFIED", "")
	})
}

// TestReceiptsEndWithTheTruthThoughTheHubDies lets the hub die at each step around a replay.
func TestReceiptsEndWithTheTruthThoughTheHubDies(t *testing.T) {
	for dies := range 12 {
		simulate(t, func(t *testing.T, w *world) {
			w.order("WO-1")
			f := confirm("WO-1", 1, "5")
			w.erp.set(trouble{reject: map[string]bool{f.Key.String(): true}})
			var armed atomic.Bool
			var steps atomic.Int64
			w.crash = func(string) error {
				if armed.Load() && steps.Add(1) > int64(dies) {
					return errDies
				}
				return nil
			}
			w.start()
			w.deliver(f)
			w.pass(time.Minute)
			w.erp.set(trouble{})
			armed.Store(true)
			replayed := w.e.ReplayFact(context.Background(), f.Key.String(), "anna") == nil
			w.pass(time.Minute)
			w.stop()
			armed.Store(false)
			w.s.Close()
			w.open()
			w.start()
			w.pass(time.Hour)
			got, last := w.told(f)
			switch {
			case !replayed && got != "REJECTED":
				t.Errorf("dies at %d: a replay that was not made tells %q", dies, got)
			case replayed && (!strings.HasPrefix(got, "REJECTED RECEIVED") || !strings.HasSuffix(got, "POSTED VERIFIED") || last.GetReason() != ""):
				t.Errorf("dies at %d: the plant was told %q", dies, got)
			case strings.Count(got, "REJECTED") != 1:
				t.Errorf("dies at %d: the plant was told of a refusal that is over: %q", dies, got)
			}
		})
	}
}
