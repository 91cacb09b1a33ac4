package connectortest

import (
	"cmp"
	"fmt"
	"slices"
	"testing"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
)

// Stock is what a test does to a system whose connector tells how much it holds. Of each thing that is nil or empty Without has to say
// why it cannot be shown, by the name of the field.
type Stock struct {
	// Pages makes a connector that reads stock in pages so small that the items, of which there is stock, take several.
	Pages func(t testing.TB) connector.Connector
	Items []string
	// Empty is an item that the system keeps and holds none of, Service one that it does not keep, Unmapped one that it holds in a unit
	// that the configuration does not map.
	Empty, Service, Unmapped string
	// Without says why something is missing.
	Without map[string]string
}

const (
	expectMoved   = "each place is changed by what the documents say they have moved there, in the unit in which it is held"
	expectWhole   = "the same balances as on one page"
	expectSame    = "an error or the same balances, never a shorter list"
	expectUntold  = "no quantity, and its neighbours as ever"
	expectNothing = "no quantity and no reason"
	expectReason  = "the reason, and its neighbours as ever"
)

// stocks runs the cases of connectors that tell their stock.
func (s *suite) stocks(t *testing.T, posts bool) {
	_, lots := s.c.(connector.LotStockReader)
	_, items := s.c.(connector.StockReader)
	if !lots && !items {
		t.Log("not part of this run: stock (the connector cannot tell it)")
		return
	}
	without := func(field string, has bool) string {
		why := s.Stock.Without[field]
		if has == (why != "") {
			t.Errorf("the harness must give Stock.%s, or say in Stock.Without why it cannot, and not both", field)
		}
		return unless(has, cmp.Or(why, "the harness does not say"))
	}
	_, lists := s.c.(connector.EffectReader)
	before := s.rows
	s.rows = nil
	s.row(t, "StockMovesAsTheDocumentsSay", "postings, and what takes them back", expectMoved, unless(posts && lists && s.Listing.Not == "", "the connector does not list documents"), s.stockMoves)
	s.row(t, "StockInManyPages", "more items than come at once", expectWhole, without("Pages", s.Stock.Pages != nil), s.stockPages)
	s.row(t, "StockWithAFailingReading", "a reading fails at each exchange", expectSame, unless(s.Faults != nil, "the harness has no Faults"), s.stockThough)
	s.row(t, "StockOfAnUnknownItem", "an item that the system does not have", expectUntold, "", func(t *testing.T) { s.stockUntold(t, "NO-SUCH-ITEM", false) })
	s.row(t, "StockOfAnItemThatThereIsNoneOf", "an item that there is none of", expectNothing, without("Empty", s.Stock.Empty != ""), s.stockEmpty)
	s.row(t, "StockOfAService", "an item that is not kept in stock", expectReason, without("Service", s.Stock.Service != ""), func(t *testing.T) { s.stockUntold(t, s.Stock.Service, true) })
	s.row(t, "StockInAnUnmappedUnit", "a unit that is not mapped", expectReason, without("Unmapped", s.Stock.Unmapped != ""), func(t *testing.T) { s.stockUntold(t, s.Stock.Unmapped, true) })
	t.Log(s.table("readings of stock"))
	s.rows = before
}

// stockOf reads balances the way reconciliation does.
func stockOf(t testing.TB, c connector.Connector, items ...string) ([]object.Balance, error) {
	if x, ok := c.(connector.LotStockReader); ok {
		return x.Balances(t.Context(), items)
	}
	return c.(connector.StockReader).Inventory(t.Context(), items)
}

// shelf is where something lies; a place that is not told is empty.
type shelf struct{ item, site, place, lot, unit string }

type shelves map[shelf]decimal.Decimal

func (h shelves) String() string {
	var texts []string
	for k, q := range h {
		texts = append(texts, fmt.Sprintf("%s %s of %s, lot %q, at %s/%s", q, k.unit, k.item, k.lot, k.site, k.place))
	}
	slices.Sort(texts)
	return fmt.Sprint(texts)
}

func (h shelves) equal(o shelves) bool {
	for k, q := range h {
		if !o[k].Equal(q) {
			return false
		}
	}
	return len(h) == len(o)
}

// sums sums balances of which each has its quantity, without those that are zero.
func sums(t testing.TB, all []object.Balance) shelves {
	t.Helper()
	out := shelves{}
	for _, b := range all {
		if b.CannotTell != "" || b.AsOf.IsZero() || b.OnHand.Unit == "" {
			t.Errorf("balance is %+v, want a quantity in a unit, at an instant", b)
		}
		k := shelf{b.Item, b.Site, b.Location, b.Lot, b.OnHand.Unit}
		if out[k] = out[k].Add(b.OnHand.Value); out[k].IsZero() {
			delete(out, k)
		}
	}
	return out
}

func (s *suite) heldNow(t testing.TB, items ...string) shelves {
	t.Helper()
	all, err := stockOf(t, s.c, items...)
	if err != nil {
		t.Fatalf("read stock: %v", err)
	}
	return sums(t, all)
}

// stockMoves is what the comparison of balances stands on: what the documents of an order say is what its stocks do.
func (s *suite) stockMoves(t *testing.T) {
	before := s.heldNow(t, s.Item, s.Component)
	order := s.CreateOrder(t, "40")
	s.settle(t, s.confirmation(order, "7", s.scrap("2")))
	s.settle(t, s.consumption(order, "2.75", object.Issue))
	s.settle(t, s.consumption(order, "0.5", object.Return))
	if s.Listing.ByHand != nil {
		s.Listing.ByHand(t, order, "3")
	}
	if s.reverses(object.KindConfirmation) {
		made := s.confirmation(order, "4", "0")
		s.settle(t, reversal(made, s.settle(t, made).Document))
	}
	all, err := s.c.(connector.EffectReader).Effects(t.Context(), order)
	if err != nil {
		t.Fatal(err)
	}
	moved, told := shelves{}, true
	for i := range all.Documents {
		for _, m := range all.Documents[i].StockMoves(all.Order.Site) {
			told = told && m.Location != ""
			moved[shelf{m.Item, m.Site, m.Location, m.Lot, m.Unit}] = moved[shelf{m.Item, m.Site, m.Location, m.Lot, m.Unit}].Add(m.Value)
		}
	}
	change := shelves{}
	for k, q := range s.heldNow(t, s.Item, s.Component) {
		change[k] = change[k].Add(q)
	}
	for k, q := range before {
		change[k] = change[k].Sub(q)
	}
	if change, moved = change.by(told), moved.by(told); !change.equal(moved) || len(moved) == 0 {
		t.Errorf("the stock changed by %s, and the documents of the order moved %s", change, moved)
	}
}

// by leaves out what is zero, and the places unless they are told.
func (h shelves) by(places bool) shelves {
	out := shelves{}
	for k, q := range h {
		if !places {
			k.site, k.place, k.lot = "", "", ""
		}
		out[k] = out[k].Add(q)
	}
	for k, q := range out {
		if q.IsZero() {
			delete(out, k)
		}
	}
	return out
}

func (s *suite) stockPages(t *testing.T) {
	if len(s.Stock.Items) < 3 {
		t.Fatalf("%d items are no several pages", len(s.Stock.Items))
	}
	want := s.heldNow(t, s.Stock.Items...)
	all, err := stockOf(t, s.Stock.Pages(t), s.Stock.Items...)
	if err != nil {
		t.Fatal(err)
	}
	if have := sums(t, all); !have.equal(want) || len(have) < len(s.Stock.Items) {
		t.Errorf("in small pages the stock is %s, at once it is %s", have, want)
	}
}

func (s *suite) stockThough(t *testing.T) {
	step := 1
	if s.Sparse {
		step = 3
	}
	want := s.heldNow(t, s.Component, s.Item)
	for _, f := range []Fault{LoseReply, LoseRequest, HalfReply, ServerError, TooMany, WebPage, WebPageAfter, EmptyReply, EndSession} {
		if s.lineReason(f, true) != "" {
			continue
		}
		tried := 0
		for ; ; tried += step {
			s.Faults.Arm(f, tried+1)
			all, err := stockOf(t, s.c, s.Component, s.Item)
			if !s.Faults.Fired() {
				if err != nil || !sums(t, all).equal(want) {
					t.Errorf("after %s: %s and the error %v, want %s", f, sums(t, all), err, want)
				}
				break
			}
			if err == nil && !sums(t, all).equal(want) {
				t.Errorf("%s at exchange %d: %s, want %s", f, tried+1, sums(t, all), want)
			}
		}
		if tried == 0 {
			t.Errorf("%s never happened: the connector's exchanges do not pass through Faults", f)
		}
	}
}

// stockUntold reads an item of which nothing can be told beside one of which all can.
func (s *suite) stockUntold(t *testing.T, item string, reason bool) {
	want := s.heldNow(t, s.Component)
	all, err := stockOf(t, s.c, item, s.Component)
	if err != nil {
		t.Fatalf("an item that cannot be told stops its neighbour: %v", err)
	}
	told := ""
	all = slices.DeleteFunc(all, func(b object.Balance) bool {
		if b.Item != item {
			return false
		}
		if b.CannotTell == "" {
			t.Errorf("%+v of an item that cannot be told", b)
		}
		told = b.CannotTell
		return true
	})
	if reason && told == "" {
		t.Errorf("nothing says why the stock of %q cannot be told", item)
	}
	if have := sums(t, all); !have.equal(want) {
		t.Errorf("its neighbour is %s, want %s", have, want)
	}
}

func (s *suite) stockEmpty(t *testing.T) {
	if have := s.heldNow(t, s.Stock.Empty); len(have) > 0 {
		t.Errorf("of %q there is %s, want nothing", s.Stock.Empty, have)
	}
}
