package s4_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/connector/s4/s4double"
	"github.com/linekeeper/linekeeper/hub/object"
)

// Two changes within one second have one ETag; and nothing says that a changed operation lifts its order's stamp.
func TestChangesThatTheOrdersStampDoesNotShowAreListed(t *testing.T) {
	t.Parallel()
	b := newBench(t, s4double.Traps{})
	c, order := b.connect(t), b.order(t, "40")
	at := time.Now()
	list := func(cursor string) (map[string]object.WorkOrder, string) {
		t.Helper()
		found := map[string]object.WorkOrder{}
		for {
			x, err := c.ListChanged(t.Context(), cursor)
			if err != nil || len(x.Unreadable) > 0 {
				t.Fatalf("list: %+v, %v", x.Unreadable, err)
			}
			for _, o := range x.Orders {
				found[o.OrderNo] = o
			}
			if cursor = x.Cursor; !x.More {
				return found, cursor
			}
		}
	}
	for _, quantity := range []string{"41", "42"} {
		if err := b.ChangeAt(order, at, resize(quantity)); err != nil {
			t.Fatal(err)
		}
	}
	_, cursor := list("")
	if err := b.ChangeAt(order, at, resize("43")); err != nil {
		t.Fatal(err)
	}
	found, cursor := list(cursor)
	if got := found[order].Quantity.Value; !got.Equal(d("43")) {
		t.Errorf("the second change of a second is listed as %s, want 43", got)
	}
	if err := b.ChangeAt(order, at.Add(-time.Hour), resize("43")); err != nil { // beyond the overlap, which would show it anyway
		t.Fatal(err)
	}
	b.order(t, "1")
	_, cursor = list(cursor)
	if err := b.ChangeParts(order, at.Add(2*time.Second), func(o *s4double.Order) { o.Operations[0].WorkCenter = "TESTING" }); err != nil {
		t.Fatal(err)
	}
	found, cursor = list(cursor)
	if got := found[order].WorkCenter; got != "TESTING" {
		t.Errorf("a change of an operation only is listed with work center %q, want TESTING", got)
	}
	if found, _ = list(cursor); len(found) > 0 {
		t.Errorf("unchanged orders are listed again: %+v", found)
	}
}

// An order that nobody changed since it was made may have no stamp of a change: it is listed all the same, and once.
func TestNewOrderWithoutAStampIsListedOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t, s4double.Traps{NoStampAtCreation: true})
	c := b.connect(t)
	list := func(cursor string) (orders []string, next string) {
		t.Helper()
		x, err := c.ListChanged(t.Context(), cursor)
		if err != nil || x.More {
			t.Fatalf("list: more %t, %v", x.More, err)
		}
		for _, o := range x.Orders {
			orders = append(orders, o.OrderNo)
		}
		return orders, x.Cursor
	}
	changed := b.order(t, "1")
	b.change(t, changed, resize("2"))
	_, cursor := list("")
	fresh := b.order(t, "3")
	got, cursor := list(cursor)
	if len(got) != 1 || got[0] != fresh {
		t.Errorf("listed %v, want the new order %s", got, fresh)
	}
	for range 3 {
		if got, cursor = list(cursor); len(got) > 0 {
			t.Errorf("listed %v again", got)
		}
	}
	b.change(t, fresh, resize("4"))
	if got, _ = list(cursor); len(got) != 1 || got[0] != fresh {
		t.Errorf("listed %v, want the changed order %s", got, fresh)
	}
}

// The state is read from the order's flags, so that no message number of SAP's has to be known for it.
func TestOrderThatTakesNothingIsRefusedByItsState(t *testing.T) {
	t.Parallel()
	b := newBench(t, s4double.Traps{})
	c := b.connect(t)
	next := map[string]string{"not released": "Release", "locked": "unlock", "technically complete": "Revoke the technical completion", "closed": "another order", "deletion": "another order"}
	if can := c.Capabilities(); !strings.Contains(can.CannotReopen, "TechlyCmpltOrder") {
		t.Errorf("why no order is reopened: %q", can.CannotReopen)
	}
	for words, change := range map[string]func(*s4double.Order){
		"not released":         func(o *s4double.Order) { o.Released = false },
		"locked":               func(o *s4double.Order) { o.Locked = true },
		"technically complete": func(o *s4double.Order) { o.TechnicallyComplete = true },
		"closed":               func(o *s4double.Order) { o.Closed = true },
		"deletion":             func(o *s4double.Order) { o.DeletionMarked = true },
	} {
		order := b.order(t, "40")
		b.change(t, order, change)
		for _, p := range []connector.Posting{confirmation(order, "1", "0"), consumption(order, "1", object.Issue)} {
			if x := ends(t, c, p, connectortest.Refused, "ORDER_STATE", words, order); x.Attempts > 0 || x.Outcome.Class != connector.Correctable || !strings.Contains(x.Outcome.NextStep, next[words]) {
				t.Errorf("%s: %d attempts, %+v", words, x.Attempts, x.Outcome)
			}
		}
	}
}

func TestOrderWithAnUnknownUnitStopsNoNeighbour(t *testing.T) {
	t.Parallel()
	b := newBench(t, s4double.Traps{PageSize: 1})
	c := b.connect(t)
	b.PutMaterial(s4double.Material{Number: "ODD", Unit: "KAR", UnitISO: "CT"})
	good := b.order(t, "1")
	odd := b.CreateOrder(s4double.Order{Material: "ODD", Plant: plant, Quantity: d("1"), Released: true, Operations: []s4double.Operation{{Number: "0010"}}})
	better := b.order(t, "2")
	seen, unreadable, cursor := map[string]bool{}, map[string]string{}, ""
	for {
		x, err := c.ListChanged(t.Context(), cursor)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range x.Orders {
			seen[o.OrderNo] = true
		}
		for _, u := range x.Unreadable {
			unreadable[u.OrderNo] = u.Reason
		}
		if cursor = x.Cursor; !x.More {
			break
		}
	}
	if !seen[good] || !seen[better] || seen[odd] || !strings.Contains(unreadable[odd], "CT") {
		t.Errorf("listed %v, unreadable %v", seen, unreadable)
	}
	if _, err := c.Get(t.Context(), odd); err == nil || errors.Is(err, connector.ErrNotFound) || !strings.Contains(err.Error(), "CT") {
		t.Errorf("get of it says %v", err)
	}
}

// Many orders of which only a part changed are all listed, with a question for each twenty and not for each of them.
func TestManyOrdersOfWhichOnlyAPartChangedAreReadTogether(t *testing.T) {
	t.Parallel()
	b := newBench(t, s4double.Traps{PageSize: 50})
	c := b.connect(t)
	var orders []string
	for range 45 {
		orders = append(orders, b.order(t, "10"))
	}
	list := func(cursor string) (found []string, next string) {
		t.Helper()
		for {
			x, err := c.ListChanged(t.Context(), cursor)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range x.Orders {
				found = append(found, o.OrderNo)
			}
			if cursor = x.Cursor; !x.More {
				return found, cursor
			}
		}
	}
	_, cursor := list("")
	for _, no := range orders {
		if err := b.ChangeParts(no, time.Now().Add(2*time.Second), func(o *s4double.Order) { o.Operations[0].WorkCenter = "TESTING" }); err != nil {
			t.Fatal(err)
		}
	}
	before, _ := b.proxy.Counts()
	found, cursor := list(cursor)
	after, _ := b.proxy.Counts()
	slices.Sort(found)
	if !slices.Equal(found, orders) || after-before > 8 {
		t.Errorf("%d of %d orders were listed with %d calls", len(found), len(orders), after-before)
	}
	if found, _ = list(cursor); len(found) > 0 {
		t.Errorf("%v are listed again", found)
	}
}
