package object

import (
	"strings"
	"testing"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"
)

func dec(text string) decimal.Decimal { return decimal.RequireFromString(text) }

func euro(price, per, unit string) UnitPrice {
	return UnitPrice{Money{dec(price), "EUR"}, Quantity{dec(per), unit}}
}

func TestPriceOfAQuantityIsExactAndRoundedOnceHalfEven(t *testing.T) {
	for _, test := range []struct {
		price, per, quantity string
		places               int32
		want                 string
	}{
		{"2.10", "1", "60", 2, "126"},
		{"210", "100", "60", 2, "126"},
		{"0.125", "1", "1", 2, "0.12"}, {"0.135", "1", "1", 2, "0.14"}, {"0.1250001", "1", "1", 2, "0.13"},
		{"1", "3", "1", 2, "0.33"}, {"2", "3", "1", 2, "0.67"}, {"-0.125", "1", "1", 2, "-0.12"}, {"-2", "3", "1", 2, "-0.67"},
		{"5", "1000", "1", 0, "0"}, {"1500", "1000", "1", 0, "2"}, {"2500", "1000", "1", 0, "2"},
	} {
		got, err := euro(test.price, test.per, "KGM").Amount(Quantity{dec(test.quantity), "KGM"}, test.places)
		if err != nil || !got.Amount.Equal(dec(test.want)) || got.Currency != "EUR" {
			t.Errorf("%s per %s times %s is %s, %v; want %s", test.price, test.per, test.quantity, got, err, test.want)
		}
	}
	if _, err := euro("2", "1", "KGM").Amount(Quantity{dec("1"), "LTR"}, 2); err == nil {
		t.Error("a price per kilogram was applied to litres")
	}
	if !euro("2.10", "1", "KGM").Same(euro("210", "100", "KGM")) || euro("2.10", "1", "KGM").Same(euro("2.11", "1", "KGM")) {
		t.Error("prices are the same when they say the same of one unit, and only then")
	}
}

func TestRoundingIsNeverMoreThanHalfALastDigitOff(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := decimal.New(rapid.Int64Range(-1e9, 1e9).Draw(t, "n"), -4)
		d := decimal.New(rapid.Int64Range(1, 1e6).Draw(t, "d"), -2)
		places := rapid.Int32Range(0, 4).Draw(t, "places")
		got := halfEven(n, d, places)
		// |got*d - n| <= d/2 of the last digit, without a division.
		if off := got.Mul(d).Sub(n).Abs().Mul(decimal.NewFromInt(2)); off.GreaterThan(d.Mul(decimal.New(1, -places))) {
			t.Fatalf("%s / %s to %d places is %s", n, d, places, got)
		}
	})
}

func TestStatesFollowTheirTables(t *testing.T) {
	may := func(may bool, text string) {
		t.Helper()
		if !may {
			t.Errorf("%s is not allowed", text)
		}
	}
	never := func(may bool, text string) {
		t.Helper()
		if may {
			t.Errorf("%s is allowed", text)
		}
	}
	may(OrderReleased.MayBecome(OrderInProgress), "starting a released order")
	may(OrderInProgress.MayBecome(OrderHeld) && OrderHeld.MayBecome(OrderInProgress), "holding and going on")
	may(OrderReleased.MayBecome(OrderCancelled), "cancelling a released order")
	never(OrderCompleted.MayBecome(OrderCancelled), "cancelling a completed order")
	never(OrderClosed.MayBecome(OrderReleased), "reopening a closed order")
	never(OrderCancelled.MayBecome(OrderReleased), "releasing a cancelled order")

	may(PurchaseDraft.MayBecome(PurchaseSent) && PurchaseSent.MayBecome(PurchasePartReceived), "sending, then receiving a part without an acknowledgement")
	may(PurchaseAcknowledged.MayBecome(PurchaseSent), "sending a change of an acknowledged order")
	never(PurchaseReceived.MayBecome(PurchaseSent), "sending a received order again")
	never(PurchasePartReceived.MayBecome(PurchaseCancelled), "cancelling what was received in part")

	may(SalesConfirmed.MayBecome(SalesPartShipped) && SalesPartShipped.MayBecome(SalesShipped), "shipping in parts")
	never(SalesShipped.MayBecome(SalesCancelled), "cancelling what was shipped")

	may(ShipmentPlanned.MayBecome(ShipmentPicked), "picking without a tender")
	may(ShipmentTendered.MayBecome(ShipmentDeclined) && ShipmentDeclined.MayBecome(ShipmentTendered), "asking the next carrier")
	may(ShipmentPacked.MayBecome(ShipmentCancelled), "cancelling before goods issue")
	never(ShipmentGoodsIssued.MayBecome(ShipmentCancelled), "cancelling after goods issue")
	never(ShipmentDeclined.MayBecome(ShipmentPicked), "picking for a carrier that declined")

	may(InvoiceMatching.MayBecome(InvoiceBlocked) && InvoiceBlocked.MayBecome(InvoiceMatching), "matching again after a block")
	may(InvoicePosted.MayBecome(InvoiceReversed), "reversing a posted invoice")
	never(InvoiceBlocked.MayBecome(InvoicePosted), "posting a blocked invoice")
	never(InvoiceDuplicate.MayBecome(InvoicePosted), "posting a duplicate")
	never(InvoicePosted.MayBecome(InvoiceCancelled), "cancelling a posted invoice")

	may(CountCounted.MayBecome(CountRecount) && CountRecount.MayBecome(CountCounted), "counting again")
	never(CountRecount.MayBecome(CountPosted), "posting a count that is to be repeated")
	never(CountPosted.MayBecome(CountCancelled), "cancelling a posted count")
	never(CountState("LOST").MayBecome("LOST"), "staying in an unknown state")
}

func TestReachedGoesAlongTheChainAndNowhereElse(t *testing.T) {
	for _, test := range []struct{ got, want bool }{
		{PurchaseReceived.Reached(PurchaseSent), true}, {PurchaseDraft.Reached(PurchaseSent), false}, {PurchaseCancelled.Reached(PurchaseSent), false},
		{PurchaseCancelled.Reached(PurchaseCancelled), true}, {ShipmentDelivered.Reached(ShipmentArrived), true}, {InvoiceBlocked.Reached(InvoiceValidated), false},
		{InvoicePaid.Reached(InvoicePosted), true}, {CountPosted.Reached(CountCounted), true}, {SalesShipped.Reached(SalesInvoiced), false},
	} {
		if test.got != test.want {
			t.Errorf("reached is %t, want %t", test.got, test.want)
		}
	}
}

func purchase() Business {
	return Business{Kind: BusinessPurchase, Purchase: &PurchaseOrder{Supplier: "SUP-1", Currency: "EUR", OrderDate: "2026-11-26", State: PurchaseSent,
		Lines: []PurchaseLine{{LineNo: "10", Item: "STEEL", Ordered: Quantity{dec("100"), "KGM"}, Price: euro("2.10", "1", "KGM")}}}}
}

func shipment() Business {
	return Business{Kind: BusinessShipment, Shipment: &Shipment{Direction: Inbound, Partner: "SUP-1", Reference: "ASN-1", State: ShipmentDelivered,
		Lines: []ShipmentLine{{OrderNo: "7", Item: "STEEL", Lot: "H1", Quantity: Quantity{dec("60"), "KGM"}}}}}
}

func invoice() Business {
	return Business{Kind: BusinessInvoice, Invoice: &Invoice{Direction: Inbound, Kind: InvoiceDebit, Partner: "SUP-1", Reference: "SI-1", Currency: "EUR",
		InvoiceDate: "2026-11-26", State: InvoicePosted, Lines: []InvoiceLine{{OrderNo: "7", Item: "STEEL", Quantity: Quantity{dec("60"), "KGM"}, Price: euro("2.10", "1", "KGM")}}}}
}

func count() Business {
	return Business{Kind: BusinessCount, Count: &CycleCount{Location: "A-01", CountedOn: "2026-11-26", State: CountPosted,
		Lines: []CountLine{{Item: "STEEL", Unit: "KGM", Book: dec("5"), Counted: decimal.NewNullDecimal(dec("3")), Posted: dec("-2")}}}}
}

func TestCheckNamesWhatIsWrong(t *testing.T) {
	for name, test := range map[string]struct {
		b    Business
		want string
	}{
		"two fields":            {Business{Kind: BusinessPurchase, Purchase: purchase().Purchase, Count: count().Count}, "2 fields"},
		"wrong kind":            {Business{Kind: BusinessInvoice, Purchase: purchase().Purchase}, `kind "invoice"`},
		"nothing":               {Business{Kind: BusinessInvoice}, "0 fields"},
		"no supplier":           {with(purchase(), func(b Business) { b.Purchase.Supplier = "" }), "no supplier"},
		"no lines":              {with(purchase(), func(b Business) { b.Purchase.Lines = nil }), "no lines"},
		"quantity zero":         {with(purchase(), func(b Business) { b.Purchase.Lines[0].Ordered.Value = dec("0") }), "above zero"},
		"other currency":        {with(purchase(), func(b Business) { b.Purchase.Lines[0].Price.Price.Currency = "USD" }), "USD"},
		"no currency":           {with(purchase(), func(b Business) { b.Purchase.Lines[0].Price.Price.Currency = "euro" }), "ISO 4217"},
		"price per nothing":     {with(purchase(), func(b Business) { b.Purchase.Lines[0].Price.Per.Value = dec("0") }), "above zero"},
		"line twice":            {with(purchase(), func(b Business) { b.Purchase.Lines = append(b.Purchase.Lines, b.Purchase.Lines[0]) }), "twice"},
		"date":                  {with(purchase(), func(b Business) { b.Purchase.OrderDate = "26.11.2026" }), "26.11.2026"},
		"no partner":            {with(shipment(), func(b Business) { b.Shipment.Partner = "" }), "partner"},
		"from nowhere":          {with(shipment(), func(b Business) { b.Shipment.Direction = Internal }), "two places"},
		"serials do not add up": {with(shipment(), func(b Business) { b.Shipment.Lines[0].Serials = []string{"1"} }), "serial"},
		"line of no order":      {with(shipment(), func(b Business) { b.Shipment.Lines[0].OrderNo, b.Shipment.Lines[0].OrderLine = "", "10" }), "no order"},
		"totals do not add up":  {with(invoice(), func(b Business) { b.Invoice.Net, b.Invoice.Gross = dec("1"), dec("2") }), "net 1"},
		"invoice direction":     {with(invoice(), func(b Business) { b.Invoice.Direction = Internal }), "direction"},
		"count of no place":     {with(count(), func(b Business) { b.Count.Location = "" }), "location"},
		"counted below zero":    {with(count(), func(b Business) { b.Count.Lines[0].Counted.Decimal = dec("-1") }), "-1"},
		"item twice in a count": {with(count(), func(b Business) { b.Count.Lines = append(b.Count.Lines, b.Count.Lines[0]) }), "twice"},
		"transfer to itself":    {Business{Kind: BusinessMovement, Movement: &InventoryMovement{Kind: Transfer, Item: "A", From: "X", To: "X", Quantity: Quantity{dec("1"), "C62"}}}, "two places"},
		"unit conversion":       {Business{Kind: BusinessItem, Item: &Item{Item: "A", BaseUnit: "C62", Conversions: []UnitConversion{{"XBX", 12, 0}}}}, "12/0"},
		"country":               {Business{Kind: BusinessParty, Party: &Party{Party: "P", Address: Address{Country: "GERMANY"}}}, "ISO 3166-1"},
	} {
		if err := test.b.Check(); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v; want an error that says %q", name, err, test.want)
		}
	}
	for _, b := range []Business{purchase(), shipment(), invoice(), count()} {
		if err := b.Check(); err != nil {
			t.Errorf("a good %s: %v", b.Kind, err)
		}
	}
	ack := PurchaseOrderAck{Number: "7", Revision: 1, Lines: []AckLine{{LineNo: "10", Status: AckAccepted}, {LineNo: "10", Status: AckBackordered}}}
	if err := ack.Check(); err != nil || !ack.Stale(PurchaseOrder{Revision: 2}) || ack.Stale(PurchaseOrder{Revision: 1}) {
		t.Errorf("an acknowledgement of revision 1 in two parts: %v", err)
	}
}

func with(b Business, change func(Business)) Business { change(b); return b }

func TestDifferenceSeesWhatWasAskedForAndNothingElse(t *testing.T) {
	for name, test := range map[string]struct {
		want, held Business
		says       string
	}{
		"the same":              {purchase(), purchase(), ""},
		"further on":            {purchase(), with(purchase(), func(b Business) { b.Purchase.State = PurchaseReceived }), ""},
		"not so far":            {purchase(), with(purchase(), func(b Business) { b.Purchase.State = PurchaseDraft }), "DRAFT"},
		"price by another base": {purchase(), with(purchase(), func(b Business) { b.Purchase.Lines[0].Price = euro("210", "100", "KGM") }), ""},
		"another price":         {purchase(), with(purchase(), func(b Business) { b.Purchase.Lines[0].Price = euro("2.11", "1", "KGM") }), "2.11"},
		"less":                  {purchase(), with(purchase(), func(b Business) { b.Purchase.Lines[0].Ordered.Value = dec("99") }), "99"},
		"another item besides": {purchase(), with(purchase(), func(b Business) {
			b.Purchase.Lines = append(b.Purchase.Lines, PurchaseLine{Item: "BOLT", Ordered: Quantity{dec("1"), "C62"}})
		}), "BOLT"},
		"split lines": {shipment(), with(shipment(), func(b Business) {
			l := b.Shipment.Lines[0]
			l.Quantity.Value = dec("30")
			b.Shipment.Lines = []ShipmentLine{l, l}
		}), ""},
		"another lot":                {shipment(), with(shipment(), func(b Business) { b.Shipment.Lines[0].Lot = "H2" }), "H1"},
		"a lot that nobody asked of": {with(shipment(), func(b Business) { b.Shipment.Lines[0].Lot = "" }), shipment(), ""},
		"another reference":          {shipment(), with(shipment(), func(b Business) { b.Shipment.Reference = "ASN-2" }), "ASN-2"},
		"another order":              {shipment(), with(shipment(), func(b Business) { b.Shipment.Lines[0].OrderNo = "8" }), `order "7"`},
		"invoiced dearer":            {invoice(), with(invoice(), func(b Business) { b.Invoice.Lines[0].Price = euro("2.20", "1", "KGM") }), "132"},
		"a line nobody asked of":     {invoice(), with(invoice(), func(b Business) { b.Invoice.Lines[0].OrderLine = "10" }), ""},
		"invoiced more":              {invoice(), with(invoice(), func(b Business) { b.Invoice.Lines[0].Quantity.Value = dec("61") }), "61"},
		"counted otherwise":          {count(), with(count(), func(b Business) { b.Count.Lines[0].Counted.Decimal = dec("4") }), "4"},
		"booked otherwise":           {count(), with(count(), func(b Business) { b.Count.Lines[0].Posted = dec("-1") }), "-1"},
		"kinds":                      {count(), invoice(), "kind"},
	} {
		got := test.want.Difference(test.held)
		if (test.says == "") != (got == "") || !strings.Contains(got, test.says) {
			t.Errorf("%s: difference %q, want one that says %q", name, got, test.says)
		}
	}
}
