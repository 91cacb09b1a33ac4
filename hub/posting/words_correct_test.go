package posting

import (
	"context"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/mapping"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
)

// What a person corrects is said in the outside system's words again: the words of what it says now, not of what it said before;
// and what rounding had carried on of the old words does not stay there.
func TestWhatIsCorrectedIsSaidInTheWordsOfItsNewItemAndOrder(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		withReverser(w)
		w.erp.scale = 0
		w.order("WO-1")
		w.order("WO-2")
		w.approve(weights, before, mapping.Row{From: "LBR", To: "KGM", Factor: "0.45359237"})
		w.approve(mapping.Set{Name: "items", Kind: mapping.Item}, before, mapping.Row{From: "P", To: "M-77"}, mapping.Row{From: "Q", To: "M-88"})
		item, order := weighed("WO-1", 1, "10"), weighed("WO-1", 2, "7") // 4.536 and 3.175 kg
		w.erp.set(trouble{reject: map[string]bool{item.Key.String(): true, order.Key.String(): true}})
		w.start()
		w.deliver(item, order)
		w.pass(time.Minute)
		ctx := context.Background()
		for _, f := range []object.Fact{item, order} {
			w.want(f, store.PostingParked, "period_closed")
		}
		w.erp.set(trouble{})
		if err := w.e.Correct(ctx, item.Key.String(), store.Values{Item: "Q"}, "it was the other item", "anna"); err != nil {
			t.Fatal(err)
		}
		if err := w.e.Correct(ctx, order.Key.String(), store.Values{OrderNo: "WO-2"}, "it was the other order", "anna"); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		w.want(item, store.PostingVerified, "")
		w.want(order, store.PostingVerified, "")
		if c := w.booked(item); c.Item != "M-88" || c.Unit != "KGM" || c.Yield.String() != "5" {
			t.Errorf("the system holds %+v of the corrected item", c)
		}
		if c := w.booked(order); c.Item != "M-77" || c.OrderNo != "WO-2" || c.Yield.String() != "3" {
			t.Errorf("the system holds %+v of the corrected order", c)
		}
		// Nothing is left on the lines that were corrected away: what comes there next is rounded alone.
		next := weighed("WO-1", 3, "1.2") // 0.544 kg
		w.deliver(next)
		w.pass(time.Minute)
		w.want(next, store.PostingVerified, "")
		undo := reversal(item, "undo")
		w.deliver(undo)
		w.pass(time.Minute)
		w.want(undo, store.PostingVerified, "")
		if sum := w.erp.yield("WO-1"); sum.String() != "1" {
			t.Errorf("after the reversal the system holds %s on WO-1, want 1", sum)
		}
	})
}
