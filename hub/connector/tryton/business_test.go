package tryton_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/connector/tryton"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
	"github.com/shopspring/decimal"
)

func num(text string) decimal.Decimal { return decimal.RequireFromString(text) }

func quantity(value, unit string) object.Quantity {
	return object.Quantity{Value: num(value), Unit: unit}
}

func price(value, unit string) object.UnitPrice {
	return object.UnitPrice{Price: object.Money{Amount: num(value), Currency: "EUR"}, Per: quantity("1", unit)}
}

func write(b object.Business) connector.Write {
	now := time.Now().UTC()
	return connector.Write{Key: factkey.Random(), Want: b, PostingDate: time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, time.UTC)}
}

// reference is a number that nobody else has.
func reference(prefix string) string { return prefix + "-" + factkey.Random().String()[:8] }

func today() string { return time.Now().UTC().Format(time.DateOnly) }

func purchaseOf(item, value, unit, each string) connector.Write {
	return write(object.Business{Kind: object.BusinessPurchase, Purchase: &object.PurchaseOrder{Reference: reference("REQ"), Supplier: "SUP-1", Currency: "EUR",
		ShipTo: "ulm", OrderDate: today(), ReceiptBasedInvoicing: true, State: object.PurchaseSent,
		Lines: []object.PurchaseLine{{LineNo: "10", Item: item, Ordered: quantity(value, unit), Price: price(each, unit)}}}})
}

func saleOf(item, value, unit, each string) connector.Write {
	return write(object.Business{Kind: object.BusinessSale, Sale: &object.SalesOrder{Reference: reference("CPO"), Customer: "CUST-1", Currency: "EUR",
		ShipFrom: "ulm", OrderDate: today(), ShipmentBasedInvoices: true, State: object.SalesConfirmed,
		Lines: []object.SalesLine{{LineNo: "10", Item: item, Ordered: quantity(value, unit), Price: price(each, unit)}}}})
}

func receiptOf(order, item, value, unit string) connector.Write {
	return write(object.Business{Kind: object.BusinessShipment, Shipment: &object.Shipment{Reference: reference("ASN"), Direction: object.Inbound, Partner: "SUP-1", Site: "ulm",
		State: object.ShipmentDelivered, Lines: []object.ShipmentLine{{OrderNo: order, Item: item, Quantity: quantity(value, unit)}}}})
}

func deliveryOf(order, item, value, unit string) connector.Write {
	return write(object.Business{Kind: object.BusinessShipment, Shipment: &object.Shipment{Reference: reference("DN"), Direction: object.Outbound, Partner: "CUST-1",
		State: object.ShipmentGoodsIssued, Lines: []object.ShipmentLine{{OrderNo: order, Item: item, Quantity: quantity(value, unit)}}}})
}

func invoiceOf(d object.Direction, partner, order, item, value, unit, each string) connector.Write {
	return write(object.Business{Kind: object.BusinessInvoice, Invoice: &object.Invoice{Reference: reference("INV"), Direction: d, Kind: object.InvoiceDebit, Partner: partner,
		InvoiceDate: today(), Currency: "EUR", State: object.InvoicePosted,
		Lines: []object.InvoiceLine{{OrderNo: order, OrderLine: "10", Item: item, Quantity: quantity(value, unit), Price: price(each, unit)}}}})
}

func countOf(location, item, value, unit string) connector.Write {
	return write(object.Business{Kind: object.BusinessCount, Count: &object.CycleCount{Location: location, CountedOn: today(), State: object.CountPosted,
		Lines: []object.CountLine{{Item: item, Unit: unit, Counted: decimal.NewNullDecimal(num(value))}}}})
}

func settleWrite(t testing.TB, c connector.Connector, w connector.Write) connectortest.Settlement {
	t.Helper()
	x := connectortest.DriveBusiness(t.Context(), c, w, patience)
	if x.End != connectortest.Settled {
		t.Fatalf("write of %s ended %s:\n  %s", w.Want.Kind, x.End, strings.Join(x.Why, "\n  "))
	}
	return x
}

func refuseWrite(t testing.TB, c connector.Connector, w connector.Write, class connector.Class, code string) {
	t.Helper()
	x := connectortest.DriveBusiness(t.Context(), c, w, patience)
	if x.End != connectortest.Refused || x.Outcome.Class != class || x.Outcome.Code != code || x.Outcome.NextStep == "" {
		t.Fatalf("write of %s ended %s as %s %q, want refused as %s %q:\n  %s", w.Want.Kind, x.End, x.Outcome.Class, x.Outcome.Code, class, code, strings.Join(x.Why, "\n  "))
	}
}

func get[T any](t testing.TB, c *tryton.Connector, kind object.BusinessKind, number string, field func(object.Business) *T) T {
	t.Helper()
	b, err := c.GetBusiness(t.Context(), kind, number)
	if err != nil {
		t.Fatalf("get %s %q: %v", kind, number, err)
	}
	return *field(b)
}

func purchaseField(b object.Business) *object.PurchaseOrder { return b.Purchase }
func saleField(b object.Business) *object.SalesOrder        { return b.Sale }
func shipmentField(b object.Business) *object.Shipment      { return b.Shipment }
func invoiceField(b object.Business) *object.Invoice        { return b.Invoice }
func countField(b object.Business) *object.CycleCount       { return b.Count }

// one reads a number straight from the database.
func (pl *plant) one(t testing.TB, query string, args ...any) (n int) {
	t.Helper()
	pl.rows(t, query, func(scan func(...any)) { scan(&n) }, args...)
	return n
}

// placed is a confirmed order of one line, made past the connector; it returns its number.
func (pl *plant) placed(t testing.TB, model string, item int, unit int, quantity, each string) string {
	t.Helper()
	party := pl.erp.IDs["supplier"]
	values := map[string]any{"company": pl.erp.IDs["company"], "warehouse": pl.erp.IDs["warehouse"], "currency": 1, "invoice_method": "shipment"}
	if model == "sale.sale" {
		party = pl.erp.IDs["customer"]
		values["shipment_method"] = "order"
	}
	var addresses []int
	if err := json.Unmarshal(pl.erp.Call(t, "party.address", "search", []any{[]any{"party", "=", party}}, 0, 1, nil), &addresses); err != nil || len(addresses) != 1 {
		t.Fatalf("addresses of party %d: %v, %v", party, addresses, err)
	}
	address := addresses[0]
	line := map[string]any{"type": "line", "product": item, "unit": unit, "quantity": json.Number(quantity), "unit_price": map[string]string{"__class__": "Decimal", "decimal": each}, "sequence": 10}
	values["party"], values["invoice_address"], values["lines"] = party, address, []any{[]any{"create", []any{line}}}
	if model == "sale.sale" {
		values["shipment_address"] = address
	}
	var made []int
	if err := json.Unmarshal(pl.erp.Call(t, model, "create", []any{values}), &made); err != nil {
		t.Fatal(err)
	}
	pl.erp.Call(t, model, "quote", made)
	pl.erp.Call(t, model, "confirm", made)
	var rows []struct{ Number string }
	if err := json.Unmarshal(pl.erp.Call(t, model, "read", made, []string{"number"}), &rows); err != nil {
		t.Fatal(err)
	}
	return rows[0].Number
}

func (pl *plant) purchase(t testing.TB) string {
	return pl.placed(t, "purchase.purchase", pl.erp.IDs["steel"], pl.erp.IDs["kg"], "100", "2.10")
}

func (pl *plant) sale(t testing.TB) string {
	return pl.placed(t, "sale.sale", pl.erp.IDs["screw"], pl.erp.IDs["unit"], "20", "0.50")
}

// received is a purchase of which 60 of 100 have come, past the connector.
func (pl *plant) received(t testing.TB) string {
	t.Helper()
	order := pl.purchase(t)
	var moves []int
	if err := json.Unmarshal(pl.erp.Call(t, "stock.move", "search", []any{[]any{"purchase.number", "=", order}}, 0, 1, nil), &moves); err != nil {
		t.Fatal(err)
	}
	var made []int
	if err := json.Unmarshal(pl.erp.Call(t, "stock.shipment.in", "create", []any{map[string]any{"supplier": pl.erp.IDs["supplier"], "company": pl.erp.IDs["company"], "warehouse": pl.erp.IDs["warehouse"],
		"incoming_moves": []any{[]any{"add", moves}, []any{"write", moves, map[string]any{"quantity": 60}}}}}), &made); err != nil {
		t.Fatal(err)
	}
	pl.erp.Call(t, "stock.shipment.in", "receive", made)
	pl.erp.Call(t, "stock.shipment.in", "done", made)
	return order
}

// asks are the methods that change nothing.
var asks = regexp.MustCompile(`\.(read|search|search_read|search_count|fields_get|on_change|get_preferences)$`)

// longPages is for tests that read all there is.
func longPages(c *tryton.Config) { c.PageSize = 500 }

func (pl *plant) businessHarness(t *testing.T) connectortest.BusinessHarness {
	described := func(table, state string) func(testing.TB, connector.Write) int {
		return func(t testing.TB, w connector.Write) int {
			t.Helper()
			all := pl.one(t, `SELECT count(*) FROM `+table+` WHERE description LIKE '%' || $1 || '%'`, w.Key.String())
			if good := pl.one(t, `SELECT count(*) FROM `+table+` WHERE description LIKE '%' || $1 || '%' AND state = '`+state+`'`, w.Key.String()); good != all {
				t.Errorf("%d of %d records in %s are %s", good, all, table, state)
			}
			return all
		}
	}
	// moved counts the moves of an order between our places and the outside, the open rest not among them.
	moved := func(line, header, parent, outside string) func(testing.TB, connector.Write) int {
		return func(t testing.TB, w connector.Write) int {
			t.Helper()
			l := w.Want.Shipment.Lines[0]
			n := pl.one(t, `SELECT count(*) FROM stock_move m JOIN `+line+` l ON m.origin = $1 || ',' || l.id JOIN `+header+` o ON o.id = l.`+parent+`
				WHERE o.number = $2 AND m.state = 'done' AND m.quantity > 0`, strings.Replace(line, "_", ".", 1), l.OrderNo)
			right := pl.one(t, `SELECT count(*) FROM stock_move m JOIN `+line+` l ON m.origin = $1 || ',' || l.id JOIN `+header+` o ON o.id = l.`+parent+`
				WHERE o.number = $2 AND m.state = 'done' AND m.quantity = $3`, strings.Replace(line, "_", ".", 1), l.OrderNo, l.Quantity.Value.InexactFloat64())
			if n != right {
				t.Errorf("%d of %d moves of order %s %s are of %s", right, n, l.OrderNo, outside, l.Quantity.Value)
			}
			return n
		}
	}
	counted := 100
	return connectortest.BusinessHarness{
		Connect: func(t testing.TB) connector.Connector { return pl.connect(t, longPages) },
		Faults:  pl.proxy,
		Changes: func(body []byte) bool {
			var call struct{ Method string }
			return json.Unmarshal(body, &call) == nil && strings.HasPrefix(call.Method, "model.") && !asks.MatchString(call.Method)
		},
		Cases: []connectortest.BusinessCase{
			{Name: "Purchase", New: func(t testing.TB) connector.Write { return purchaseOf("RM-STEEL", "100", "KGM", "2.10") },
				Held:   described("purchase_purchase", "processing"),
				Change: func(w *connector.Write) { w.Want.Purchase.Lines[0].Price = price("2.11", "KGM") }},
			{Name: "Receipt", New: func(t testing.TB) connector.Write { return receiptOf(pl.purchase(t), "RM-STEEL", "60", "KGM") },
				Held:   moved("purchase_line", "purchase_purchase", "purchase", "from the supplier"),
				Change: func(w *connector.Write) { w.Want.Shipment.Lines[0].Quantity.Value = num("61") }},
			{Name: "SupplierInvoice", New: func(t testing.TB) connector.Write {
				return invoiceOf(object.Inbound, "SUP-1", pl.received(t), "RM-STEEL", "60", "KGM", "2.10")
			},
				Held:   described("account_invoice", "posted"),
				Change: func(w *connector.Write) { w.Want.Invoice.Reference = "ANOTHER" }},
			{Name: "Sale", Alike: true, New: func(t testing.TB) connector.Write { return saleOf("RM-SCREW", "20", "C62", "0.50") },
				Held:   described("sale_sale", "processing"),
				Change: func(w *connector.Write) { w.Want.Sale.Lines[0].Ordered.Value = num("21") }},
			{Name: "Delivery", New: func(t testing.TB) connector.Write { return deliveryOf(pl.sale(t), "RM-SCREW", "12", "C62") },
				Held:   moved("sale_line", "sale_sale", "sale", "to the customer"),
				Change: func(w *connector.Write) { w.Want.Shipment.Partner = "SUP-1" }},
			{Name: "Transfer", Alike: true, New: func(t testing.TB) connector.Write {
				return write(object.Business{Kind: object.BusinessShipment, Shipment: &object.Shipment{Reference: reference("T"), Direction: object.Internal, From: "STO", To: "REWORK",
					State: object.ShipmentDelivered, Lines: []object.ShipmentLine{{Item: "RM-SCREW", Quantity: quantity("5", "C62")}}}})
			},
				Held: func(t testing.TB, w connector.Write) int {
					return pl.one(t, `SELECT count(*) FROM stock_shipment_internal WHERE reference IN ($1, $2)`, w.Want.Shipment.Reference, w.Key.String())
				},
				Change: func(w *connector.Write) { w.Want.Shipment.To = "IN" }},
			{Name: "Count", New: func(t testing.TB) connector.Write {
				counted += 7
				return countOf("IN", "RM-SCREW", fmt.Sprint(counted), "C62")
			},
				Held: func(t testing.TB, w connector.Write) int {
					return pl.one(t, `SELECT count(*) FROM stock_inventory WHERE number = $1 AND state = 'done'`, w.Key.String())
				},
				Change: func(w *connector.Write) { w.Want.Count.Lines[0].Counted.Decimal = num("1") }},
		},
	}
}

func TestTrytonBusiness(t *testing.T) {
	t.Parallel() // with TestTryton, on a Tryton of its own
	p := startPlant(t)
	t.Run("Conformance", func(t *testing.T) { connectortest.RunBusiness(t, p.businessHarness(t)) })
	for _, test := range []struct {
		name string
		run  func(*testing.T, *plant)
	}{
		{"PurchaseReceiptInvoice", procureToPay},
		{"SaleDeliveryInvoice", orderToCash},
		{"CountWithADifference", countDifference},
		{"LotsOfAReceipt", receiptOfLots},
		{"KilledBetweenMakingAndReceiving", killedBetween},
		{"OrderChangedUnderOurHands", changedUnderOurHands},
		{"WarningIsConfirmedOnlyWhenAccepted", warningAccepted},
		{"InvoiceThatDiffersIsNotTaken", invoiceDiffers},
		{"NotEnoughStockReservesNothing", notEnough},
		{"TwoDeliveriesOfOneOrderSideBySide", twoDeliveries},
		{"OpenedForChangesAndTheReplyLost", openedAndLost},
		{"ExpiredSessionPostsAllTheSame", expiredSession},
		{"MasterDataAndMovementsAreRead", masterRead},
		{"WritesThatCannotBe", impossibleWrites},
		{"PutBackToACopy", putBack}, // the last: it takes a while
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, p) })
	}
}

// A connector outlives that Tryton's database is put back: what it knows of records that are gone, its gates among them, hinders nothing.
func putBack(t *testing.T, pl *plant) {
	pl.exec(t, `DELETE FROM ir_note WHERE message LIKE 'Linekeeper gate%'`) // so that they are made after the copy
	pl.erp.Backup(t)
	c := pl.connect(t)
	draft := purchaseOf("RM-STEEL", "100", "KGM", "2.10")
	draft.Want.Purchase.State = object.PurchaseDraft
	made := settleWrite(t, c, draft).Document
	confirm := write(object.Business{Kind: object.BusinessPurchase, Purchase: &object.PurchaseOrder{Held: object.Held{ERPKey: made.ID}, State: object.PurchaseSent}})
	intent, early, err := c.PrepareBusiness(t.Context(), confirm)
	if err != nil || early != nil {
		t.Fatal(early, err)
	}
	pl.erp.Restore(t)
	if found, err := c.FindBusiness(t.Context(), object.BusinessPurchase, draft.Key.String()); err != nil || len(found) != 0 {
		t.Errorf("after the restore %d carry the key, %v", len(found), err)
	}
	if found, err := c.LookupBusiness(t.Context(), confirm, intent); err != nil || found.Presence != connector.Absent {
		t.Errorf("a step of a record that is gone is %s, %v", found.Presence, err)
	}
	again := settleWrite(t, c, draft).Document
	if n := pl.one(t, `SELECT count(*) FROM purchase_purchase WHERE description = $1`, "Linekeeper "+draft.Key.String()); n != 1 {
		t.Errorf("the purchase %s is there %d times, was %s", again.Number, n, made.Number)
	}
	if found, err := c.FindBusiness(t.Context(), object.BusinessPurchase, draft.Key.String()); err != nil || len(found) != 1 {
		t.Errorf("written anew %d carry the key, %v", len(found), err)
	}
}

func procureToPay(t *testing.T, pl *plant) {
	c := pl.connect(t, longPages)
	draft := purchaseOf("RM-STEEL", "100", "KGM", "2.10")
	draft.Want.Purchase.State = object.PurchaseDraft
	x := settleWrite(t, c, draft)
	confirm := write(object.Business{Kind: object.BusinessPurchase, Purchase: &object.PurchaseOrder{Held: object.Held{ERPKey: x.Document.ID}, State: object.PurchaseSent}})
	order := settleWrite(t, c, confirm).Document.Number
	if o := get(t, c, object.BusinessPurchase, order, purchaseField); o.State != object.PurchaseSent || o.ShipTo != "ulm" || o.Lines[0].LineNo != "10" {
		t.Fatalf("a confirmed purchase is read as %+v", o)
	}
	_, cursor := listAll(t, c, object.BusinessPurchase, "")
	asn := receiptOf(order, "RM-STEEL", "60", "KGM")
	asn.Want.Shipment.Lines[0].OrderLine = "10"
	asn.Want.Shipment.State = object.ShipmentPlanned
	announced := settleWrite(t, c, asn).Document
	if n := pl.one(t, `SELECT count(*) FROM stock_move WHERE shipment = $1 AND state = 'done'`, announced.ID); n != 0 {
		t.Errorf("an announcement moved stock %d times", n)
	}
	arrived := write(object.Business{Kind: object.BusinessShipment, Shipment: &object.Shipment{Direction: object.Inbound, Held: object.Held{ERPKey: announced.ID}, State: object.ShipmentDelivered}})
	settleWrite(t, c, arrived)
	o := get(t, c, object.BusinessPurchase, order, purchaseField)
	if o.State != object.PurchasePartReceived || !o.Lines[0].Received.Equal(num("60")) {
		t.Errorf("after 60 of 100 the order is %s with %s received", o.State, o.Lines[0].Received)
	}
	if seen, _ := listAll(t, c, object.BusinessPurchase, cursor); seen[order].Purchase == nil || seen[order].Purchase.State != object.PurchasePartReceived {
		t.Errorf("a receipt is not listed as a change of its order: %+v", seen[order])
	}
	if open := pl.one(t, `SELECT sum(m.quantity)::int FROM stock_move m JOIN purchase_line l ON m.origin = 'purchase.line,' || l.id JOIN purchase_purchase p ON p.id = l.purchase
		WHERE p.number = $1 AND m.state = 'draft'`, order); open != 40 {
		t.Errorf("%d of the order are open, want 40", open)
	}
	inv := invoiceOf(object.Inbound, "SUP-1", order, "RM-STEEL", "60", "KGM", "2.10")
	number := settleWrite(t, c, inv).Document.Number
	v := get(t, c, object.BusinessInvoice, number, invoiceField)
	if l := v.Lines[0]; v.State != object.InvoicePosted || !v.Gross.Equal(num("126")) || l.OrderNo != order || l.OrderLine != "10" || len(l.Receipts) != 1 || l.Receipts[0] != announced.Number {
		t.Errorf("the invoice is read as %+v; want 126 for line 10 of order %s, receipt %s", v, order, announced.Number)
	}
	settleWrite(t, c, receiptOf(order, "RM-STEEL", "40", "KGM"))
	if o := get(t, c, object.BusinessPurchase, order, purchaseField); o.State != object.PurchaseReceived || !o.Lines[0].Invoiced.Equal(num("60")) {
		t.Errorf("after all came the order is %s with %s invoiced", o.State, o.Lines[0].Invoiced)
	}
	refuseWrite(t, c, receiptOf(order, "RM-STEEL", "1", "KGM"), connector.Correctable, "nothing_to_receive")
}

// listAll pages to the end, by number.
func listAll(t testing.TB, c *tryton.Connector, kind object.BusinessKind, cursor string) (map[string]object.Business, string) {
	t.Helper()
	seen := map[string]object.Business{}
	for range 1000 {
		page, err := c.ListBusiness(t.Context(), kind, cursor)
		if err != nil {
			t.Fatalf("list %s: %v", kind, err)
		}
		for _, u := range page.Unreadable {
			t.Errorf("%s is unreadable: %s", u.ERPKey, u.Reason)
		}
		for _, o := range page.Objects {
			seen[o.Names().Number] = o
		}
		if cursor = page.Cursor; !page.More {
			return seen, cursor
		}
	}
	t.Fatalf("list %s: no end", kind)
	return nil, ""
}

func orderToCash(t *testing.T, pl *plant) {
	c := pl.connect(t)
	order := settleWrite(t, c, saleOf("RM-SCREW", "20", "C62", "0.50")).Document.Number
	picked := deliveryOf(order, "RM-SCREW", "12", "C62")
	picked.Want.Shipment.State = object.ShipmentPicked
	doc := settleWrite(t, c, picked).Document
	next := func(state object.ShipmentState) {
		t.Helper()
		settleWrite(t, c, write(object.Business{Kind: object.BusinessShipment, Shipment: &object.Shipment{Direction: object.Outbound, Held: object.Held{ERPKey: doc.ID}, State: state}}))
		if s := get(t, c, object.BusinessShipment, doc.ID, shipmentField); s.State != state || !s.Lines[0].Quantity.Value.Equal(num("12")) || s.Lines[0].OrderNo != order {
			t.Errorf("the delivery is read as %+v, want %s of 12 for order %s", s, state, order)
		}
	}
	next(object.ShipmentPacked)
	next(object.ShipmentGoodsIssued)
	o := get(t, c, object.BusinessSale, order, saleField)
	if o.State != object.SalesPartShipped || !o.Lines[0].Shipped.Equal(num("12")) {
		t.Errorf("after 12 of 20 the order is %s with %s shipped", o.State, o.Lines[0].Shipped)
	}
	inv := invoiceOf(object.Outbound, "CUST-1", order, "RM-SCREW", "12", "C62", "0.50")
	v := get(t, c, object.BusinessInvoice, settleWrite(t, c, inv).Document.Number, invoiceField)
	if v.State != object.InvoicePosted || !v.Gross.Equal(num("6")) || v.Lines[0].Receipts[0] != doc.Number {
		t.Errorf("the customer's invoice is read as %+v, want 6.00 for delivery %s", v, doc.Number)
	}
	settleWrite(t, c, deliveryOf(order, "RM-SCREW", "8", "C62")) // what Tryton planned again
	if o := get(t, c, object.BusinessSale, order, saleField); o.State != object.SalesShipped {
		t.Errorf("after all was shipped the order is %s", o.State)
	}
}

func countDifference(t *testing.T, pl *plant) {
	c := pl.connect(t)
	settleWrite(t, c, countOf("OUT", "RM-SCREW", "50", "C62"))
	ordered := countOf("OUT", "RM-SCREW", "0", "C62")
	ordered.Want.Count.State, ordered.Want.Count.Lines[0].Counted.Valid = object.CountCreated, false
	doc := settleWrite(t, c, ordered).Document
	if n := get(t, c, object.BusinessCount, doc.Number, countField); n.State != object.CountCreated || !n.Lines[0].Book.Equal(num("50")) || n.Lines[0].Counted.Valid {
		t.Errorf("a count that waits is read as %+v, want a book quantity of 50 and nothing counted", n)
	}
	refuseWrite(t, c, write(object.Business{Kind: object.BusinessCount, Count: &object.CycleCount{Number: doc.Number, Location: "OUT", State: object.CountPosted,
		Lines: []object.CountLine{{Item: "RM-SCREW", Unit: "C62"}}}}), connector.Correctable, "not_counted")
	found := countOf("OUT", "RM-SCREW", "47", "C62")
	found.Want.Count.Number = doc.Number
	settleWrite(t, c, found)
	n := get(t, c, object.BusinessCount, doc.Number, countField)
	if l := n.Lines[0]; n.State != object.CountPosted || !l.Difference().Equal(num("-3")) || !l.Posted.Equal(num("-3")) {
		t.Errorf("a posted count is read as %+v, want a difference of -3 found and booked", n)
	}
	settleWrite(t, c, countOf("OUT", "RM-SCREW", "0", "C62")) // nothing there is a count, too
	balances, err := c.Balances(t.Context(), []string{"RM-SCREW"})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range balances {
		if b.Location == "OUT" {
			t.Errorf("after a count of nothing the location holds %+v", b)
		}
	}
}

func receiptOfLots(t *testing.T, pl *plant) {
	c := pl.connect(t)
	order := settleWrite(t, c, purchaseOf("RM-ALLOY", "100", "KGM", "9")).Document.Number
	w := receiptOf(order, "RM-ALLOY", "30", "KGM")
	refuseWrite(t, c, w, connector.Correctable, "lot_required")
	first := reference("HEAT")
	w = receiptOf(order, "RM-ALLOY", "30", "KGM")
	w.Want.Shipment.Lines[0].Lot = first
	w.Want.Shipment.Lines = append(w.Want.Shipment.Lines, object.ShipmentLine{OrderNo: order, Item: "RM-ALLOY", Quantity: quantity("20", "KGM"), Lot: reference("HEAT")})
	// The announcement without a lot is still a draft that holds the order's move: a person takes it back.
	drafts := pl.drafts(t, order)
	pl.erp.Call(t, "stock.shipment.in", "write", drafts, map[string]any{"moves": []any{[]any{"remove", pl.movesOf(t, order)}}})
	pl.erp.Call(t, "stock.shipment.in", "delete", drafts)
	settleWrite(t, c, w)
	balances, err := c.Balances(t.Context(), []string{"RM-ALLOY"})
	if err != nil {
		t.Fatal(err)
	}
	held := map[string]string{}
	for _, b := range balances {
		held[b.Lot] = b.OnHand.Value.String()
	}
	if held[first] != "30" || held[w.Want.Shipment.Lines[1].Lot] != "20" {
		t.Errorf("the lots hold %v, want 30 and 20", held)
	}
	if o := get(t, c, object.BusinessPurchase, order, purchaseField); !o.Lines[0].Received.Equal(num("50")) {
		t.Errorf("%s of the order are received, want 50", o.Lines[0].Received)
	}
}

func (pl *plant) drafts(t testing.TB, order string) (ids []int) {
	t.Helper()
	if err := json.Unmarshal(pl.erp.Call(t, "stock.shipment.in", "search", []any{[]any{"state", "=", "draft"}, []any{"moves.purchase.number", "=", order}}, 0, nil, nil), &ids); err != nil {
		t.Fatal(err)
	}
	return ids
}

func (pl *plant) movesOf(t testing.TB, order string) (ids []int) {
	t.Helper()
	if err := json.Unmarshal(pl.erp.Call(t, "stock.move", "search", []any{[]any{"purchase.number", "=", order}, []any{"state", "=", "draft"}}, 0, nil, nil), &ids); err != nil {
		t.Fatal(err)
	}
	return ids
}

func killedBetween(t *testing.T, pl *plant) {
	c := pl.connect(t)
	order := pl.purchase(t)
	pl.once(t, "stock.shipment.in.receive", func() {
		pl.erp.Kill(syscall.SIGKILL)
		if err := pl.erp.Run(); err != nil {
			t.Errorf("start trytond again: %v", err)
		}
		pl.proxy.Arm(connectortest.LoseRequest, 1) // what was sent to the dead one
	})
	w := receiptOf(order, "RM-STEEL", "60", "KGM")
	x := settleWrite(t, c, w)
	if n := pl.one(t, `SELECT count(*) FROM stock_shipment_in WHERE reference IN ($1, $2)`, w.Want.Shipment.Reference, w.Key.String()); n != 1 || x.Lookups == 0 {
		t.Errorf("after a crash between making and receiving there are %d receipts, %d look-ups", n, x.Lookups)
	}
}

func changedUnderOurHands(t *testing.T, pl *plant) {
	c := pl.connect(t)
	order := pl.purchase(t)
	w := receiptOf(order, "RM-STEEL", "60", "KGM")
	intent, early, err := c.PrepareBusiness(t.Context(), w)
	if err != nil || early != nil {
		t.Fatalf("prepare: %+v, %v", early, err)
	}
	pl.erp.Call(t, "stock.move", "write", pl.movesOf(t, order), map[string]any{"quantity": 90}) // a buyer
	if out := c.WriteBusiness(t.Context(), w, intent); out.Result != connector.Rejected || out.Class != connector.Retryable || out.Code != "object_changed" {
		t.Errorf("a write over a change is answered %+v, want retryable", out)
	}
	if n := pl.one(t, `SELECT count(*) FROM stock_shipment_in WHERE reference = $1`, w.Key.String()); n != 0 {
		t.Errorf("it made %d receipts", n)
	}
	settleWrite(t, c, w)
}

func warningAccepted(t *testing.T, pl *plant) {
	c := pl.connect(t)
	w := countOf("OUT", "RM-SCREW", "5", "C62")
	w.PostingDate = w.PostingDate.AddDate(0, 0, 9)
	w.Want.Count.CountedOn = w.PostingDate.Format(time.DateOnly)
	refuseWrite(t, c, w, connector.Correctable, "date_in_future")
	if n := pl.one(t, `SELECT count(*) FROM stock_inventory WHERE number = $1 AND state = 'done'`, w.Key.String()); n != 0 {
		t.Error("a warning that nobody accepted was passed over")
	}
	w.Accept = []string{"no_origin"}
	refuseWrite(t, c, w, connector.Correctable, "date_in_future")
	w.Accept = []string{"date_in_future"}
	settleWrite(t, c, w)
	if n := pl.one(t, `SELECT count(*) FROM stock_inventory WHERE number = $1`, w.Key.String()); n != 1 {
		t.Errorf("the count was made %d times", n)
	}
}

func invoiceDiffers(t *testing.T, pl *plant) {
	c := pl.connect(t)
	order := pl.received(t)
	refuseWrite(t, c, invoiceOf(object.Inbound, "SUP-1", order, "RM-STEEL", "61", "KGM", "2.10"), connector.Correctable, "invoice_differs")
	refuseWrite(t, c, invoiceOf(object.Inbound, "SUP-1", order, "RM-STEEL", "60", "KGM", "2.20"), connector.Correctable, "invoice_differs")
	settleWrite(t, c, invoiceOf(object.Inbound, "SUP-1", order, "RM-STEEL", "60", "KGM", "2.10"))
	refuseWrite(t, c, invoiceOf(object.Inbound, "SUP-1", order, "RM-STEEL", "60", "KGM", "2.10"), connector.Correctable, "nothing_to_invoice")
	refuseWrite(t, c, invoiceOf(object.Inbound, "SUP-1", pl.purchase(t), "RM-STEEL", "60", "KGM", "2.10"), connector.Correctable, "nothing_to_invoice")
}

func notEnough(t *testing.T, pl *plant) {
	c := pl.connect(t)
	order := settleWrite(t, c, saleOf("FG-GEAR", "30", "C62", "180")).Document.Number
	w := deliveryOf(order, "FG-GEAR", "10", "C62")
	refuseWrite(t, c, w, connector.Correctable, "insufficient_stock")
	if n := pl.one(t, `SELECT count(*) FROM stock_move m JOIN product_product p ON p.id = m.product WHERE p.code = 'FG-GEAR' AND m.state IN ('assigned', 'done')`); n != 0 {
		t.Errorf("%d moves of what is not there are reserved or done", n)
	}
	settleWrite(t, c, countOf("STO", "FG-GEAR", "30", "C62"))
	pl.once(t, "stock.shipment.out.write", func() { pl.proxy.Arm(connectortest.LoseRequest, 1) })
	settleWrite(t, c, w) // the same write, after it was mended: still 10 of 30, though saying so once more got lost
	settleWrite(t, c, countOf("STO", "FG-GEAR", "0", "C62"))
}

// twoDeliveries are written at one time: the second waits for what the first leaves.
func twoDeliveries(t *testing.T, pl *plant) {
	c, order := pl.connect(t), pl.sale(t)
	first, second := deliveryOf(order, "RM-SCREW", "12", "C62"), deliveryOf(order, "RM-SCREW", "8", "C62")
	one, early1, err1 := c.PrepareBusiness(t.Context(), first)
	two, early2, err2 := c.PrepareBusiness(t.Context(), second)
	if err1 != nil || err2 != nil || early1 != nil || early2 != nil {
		t.Fatalf("prepare: %+v %v, %+v %v", early1, err1, early2, err2)
	}
	pl.once(t, "stock.shipment.out.pick", func() { // the first is edited and claimed, and not picked yet
		if out := c.WriteBusiness(t.Context(), second, two); out.Class != connector.Retryable {
			t.Errorf("a second delivery over the first is answered %+v", out)
		}
		if _, early, err := c.PrepareBusiness(t.Context(), second); err != nil || early == nil || early.Code != "shipment_taken" {
			t.Errorf("a delivery of what another write has taken is prepared as %+v, %v", early, err)
		}
	})
	if out := c.WriteBusiness(t.Context(), first, one); out.Result != connector.Posted {
		t.Fatalf("the first delivery is answered %+v", out)
	}
	settleWrite(t, c, first)
	settleWrite(t, c, second)
	if o := get(t, c, object.BusinessSale, order, saleField); o.State != object.SalesShipped || !o.Lines[0].Shipped.Equal(num("20")) {
		t.Errorf("the order is %s with %s shipped, want all 20", o.State, o.Lines[0].Shipped)
	}
}

// openedAndLost is a delivery that an earlier attempt of the same write has claimed and a planner has reserved since, whole: it is to
// be opened and changed, and Tryton's answer to the opening is lost. What was asked for is shipped, not what stood there.
func openedAndLost(t *testing.T, pl *plant) {
	c, order := pl.connect(t), pl.sale(t)
	w := deliveryOf(order, "RM-SCREW", "12", "C62")
	var sales []struct{ Shipments []int }
	if err := json.Unmarshal(pl.erp.Call(t, "sale.sale", "search_read", []any{[]any{"number", "=", order}}, 0, 1, nil, []string{"shipments"}), &sales); err != nil || len(sales) != 1 {
		t.Fatalf("shipments of sale %s: %v, %v", order, sales, err)
	}
	pl.erp.Call(t, "stock.shipment.out", "write", sales[0].Shipments, map[string]any{"reference": w.Key.String()})
	pl.erp.Call(t, "stock.shipment.out", "assign_try", sales[0].Shipments)
	lost := false
	pl.once(t, "stock.shipment.out.wait", func() { lost = true; pl.proxy.Arm(connectortest.LoseReply, 1) })
	settleWrite(t, c, w)
	if !lost {
		t.Fatal("it was not opened: nothing was tried")
	}
	if o := get(t, c, object.BusinessSale, order, saleField); !o.Lines[0].Shipped.Equal(num("12")) {
		t.Errorf("%s are shipped, want 12", o.Lines[0].Shipped)
	}
}

func expiredSession(t *testing.T, pl *plant) {
	c := pl.connect(t)
	w := invoiceOf(object.Inbound, "SUP-1", pl.received(t), "RM-STEEL", "60", "KGM", "2.10")
	old := 0
	pl.once(t, "account.invoice.post", func() { // idle for longer than Tryton lets anybody post
		old = pl.one(t, `SELECT max(id) FROM ir_session WHERE create_uid = $1`, pl.erp.IDs["user"])
		pl.exec(t, `UPDATE ir_session SET write_date = now() - interval '1 hour', create_date = now() - interval '1 hour' WHERE id = $1`, old)
	})
	logins := 0
	settleWrite(t, c, w)
	if n := pl.one(t, `SELECT count(*) FROM ir_session WHERE id = $1`, old); n != 0 {
		t.Error("Tryton let a stale session post: nothing was tried")
	}
	pl.rows(t, `SELECT count(*) FROM res_user_login_attempt`, func(scan func(...any)) { scan(&logins) })
	if logins != 0 {
		t.Errorf("%d log-ins failed", logins)
	}
}

func masterRead(t *testing.T, pl *plant) {
	c := pl.connect(t, longPages)
	items, _ := listAll(t, c, object.BusinessItem, "")
	if i := items["RM-ALLOY"].Item; i == nil || !i.LotControlled || i.BaseUnit != "KGM" || !i.Active {
		t.Errorf("item RM-ALLOY is read as %+v", i)
	}
	parties, cursor := listAll(t, c, object.BusinessParty, "")
	if p := parties["SUP-1"].Party; p == nil || p.Name != "Steel Supplier AG" || p.Address.City != "Ulm" {
		t.Errorf("party SUP-1 is read as %+v", p)
	}
	var address []int
	if err := json.Unmarshal(pl.erp.Call(t, "party.address", "search", []any{[]any{"party", "=", pl.erp.IDs["supplier"]}}, 0, 1, nil), &address); err != nil {
		t.Fatal(err)
	}
	pl.erp.Call(t, "party.address", "write", address, map[string]any{"city": "Neu-Ulm"})
	if parties, _ = listAll(t, c, object.BusinessParty, cursor); parties["SUP-1"].Party == nil || parties["SUP-1"].Party.Address.City != "Neu-Ulm" {
		t.Errorf("a change of an address is listed as %+v", parties["SUP-1"].Party)
	}
	before, cursor := listAll(t, c, object.BusinessMovement, "")
	if len(before) == 0 {
		t.Error("no movements are read")
	}
	order := pl.order(t, "4")
	settle(t, c, consumption(order, "2.5"))
	settle(t, c, confirmation(order, "3", "1", "0"))
	settleWrite(t, c, receiptOf(pl.purchase(t), "RM-STEEL", "60", "KGM"))
	settleWrite(t, c, deliveryOf(pl.sale(t), "RM-SCREW", "20", "C62"))
	settleWrite(t, c, countOf("OUT", "RM-SCREW", "3", "C62"))
	moved, _ := listAll(t, c, object.BusinessMovement, cursor)
	kinds := map[object.MovementKind]int{}
	for number, m := range moved {
		if before[number].Movement == nil {
			kinds[m.Movement.Kind]++
		}
	}
	for kind, n := range map[object.MovementKind]int{object.IssueToOrder: 1, object.ReceiptFromOrder: 1, object.ScrapMovement: 1, object.ReceiptFromPO: 1, object.IssueToDelivery: 1} {
		if kinds[kind] != n {
			t.Errorf("%d movements %s are listed, want %d: %v", kinds[kind], kind, n, kinds)
		}
	}
	if kinds[object.CountGain]+kinds[object.CountLoss] != 1 || kinds[object.Transfer] < 2 {
		t.Errorf("counted, put away and picked goods are listed as %v", kinds)
	}
}

func impossibleWrites(t *testing.T, pl *plant) {
	c := pl.connect(t)
	w := purchaseOf("RM-STEEL", "100", "KGM", "2.10")
	w.Want.Purchase.Supplier = "NOBODY"
	refuseWrite(t, c, w, connector.Fatal, "unknown_party")
	refuseWrite(t, c, purchaseOf("NO-SUCH-ITEM", "100", "KGM", "2.10"), connector.Fatal, "unknown_item")
	refuseWrite(t, c, purchaseOf("RM-STEEL", "100", "HUR", "2.10"), connector.Fatal, "unit_mismatch")
	refuseWrite(t, c, purchaseOf("RM-STEEL", "100", "KGM", "2.12345"), connector.Fatal, "price_not_exact")
	refuseWrite(t, c, purchaseOf("RM-STEEL", "0", "KGM", "2.10"), connector.Fatal, "invalid")
	w = purchaseOf("RM-STEEL", "100", "KGM", "2.10")
	w.Want.Purchase.State = object.PurchaseReceived
	refuseWrite(t, c, w, connector.Fatal, "unsupported_write")
	cancel := write(object.Business{Kind: object.BusinessPurchase, Purchase: &object.PurchaseOrder{Number: pl.purchase(t), State: object.PurchaseCancelled}})
	refuseWrite(t, c, cancel, connector.Correctable, "refused")
	refuseWrite(t, c, receiptOf("NO-SUCH-ORDER", "RM-STEEL", "1", "KGM"), connector.Fatal, "unknown_order")
	refuseWrite(t, c, receiptOf("", "RM-STEEL", "1", "KGM"), connector.Fatal, "no_order")
	if _, err := c.GetBusiness(t.Context(), object.BusinessPurchase, "NO-SUCH-ORDER"); !errors.Is(err, connector.ErrNotFound) {
		t.Errorf("get of an unknown purchase gives %v, want ErrNotFound", err)
	}
}
