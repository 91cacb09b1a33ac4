package object

import (
	"strings"
	"testing"

	"github.com/shopspring/decimal"
)

func TestWhatPeopleDidSinceIsNoDifference(t *testing.T) {
	d := decimal.RequireFromString
	lines := func(q string) []ShipmentLine {
		return []ShipmentLine{{Item: "STEEL", Quantity: Quantity{Value: d(q), Unit: "KGM"}}}
	}
	ordered := func(q string) []PurchaseLine {
		return []PurchaseLine{{Item: "STEEL", Ordered: Quantity{Value: d(q), Unit: "KGM"}}}
	}
	counted := func(q string) []CountLine {
		return []CountLine{{Item: "STEEL", Unit: "KGM", Counted: decimal.NewNullDecimal(d(q)), Posted: d(q)}}
	}
	purchase := func(s PurchaseState, q string) Business {
		return Business{Kind: BusinessPurchase, Purchase: &PurchaseOrder{Supplier: "SUP", State: s, Lines: ordered(q)}}
	}
	sale := func(s SalesState) Business { return Business{Kind: BusinessSale, Sale: &SalesOrder{State: s}} }
	shipment := func(s ShipmentState, q string) Business {
		return Business{Kind: BusinessShipment, Shipment: &Shipment{Direction: Outbound, State: s, Lines: lines(q)}}
	}
	invoice := func(s InvoiceState, total string) Business {
		return Business{Kind: BusinessInvoice, Invoice: &Invoice{State: s, Gross: d(total)}}
	}
	count := func(s CountState, q string) Business {
		return Business{Kind: BusinessCount, Count: &CycleCount{State: s, Lines: counted(q)}}
	}
	for name, c := range map[string]struct {
		want, held Business
		says       string // a part of it
	}{
		"purchase further on":           {purchase(PurchaseSent, "5"), purchase(PurchaseReceived, "5"), ""},
		"purchase closed":               {purchase(PurchaseSent, "5"), purchase(PurchaseClosed, "5"), ""},
		"purchase of another quantity":  {purchase(PurchaseSent, "5"), purchase(PurchaseSent, "6"), "not 5"},
		"purchase that fell back":       {purchase(PurchaseSent, "5"), purchase(PurchaseDraft, "5"), "it is DRAFT, not SENT"},
		"purchase cancelled":            {purchase(PurchaseSent, "5"), purchase(PurchaseCancelled, "5"), "it is CANCELLED"},
		"draft that was worked on":      {purchase(PurchaseDraft, "5"), purchase(PurchaseSent, "8"), ""},
		"draft cancelled":               {purchase(PurchaseDraft, "5"), purchase(PurchaseCancelled, "5"), "it is CANCELLED"},
		"sale shipped":                  {sale(SalesConfirmed), sale(SalesShipped), ""},
		"cancelled and still so":        {sale(SalesCancelled), sale(SalesCancelled), ""},
		"cancelled and live again":      {sale(SalesCancelled), sale(SalesConfirmed), "it is CONFIRMED, not CANCELLED"},
		"planned shipment in two parts": {shipment(ShipmentPlanned, "5"), shipment(ShipmentGoodsIssued, "3"), ""},
		"goods issued and under way":    {shipment(ShipmentGoodsIssued, "5"), shipment(ShipmentDelivered, "5"), ""},
		"other goods issued":            {shipment(ShipmentGoodsIssued, "5"), shipment(ShipmentGoodsIssued, "3"), "not 5"},
		"invoice paid":                  {invoice(InvoicePosted, "10"), invoice(InvoicePaid, "10"), ""},
		"invoice credited":              {invoice(InvoicePosted, "10"), invoice(InvoiceCredited, "10"), ""},
		"invoice of another total":      {invoice(InvoicePosted, "10"), invoice(InvoicePosted, "11"), "11, not 10"},
		"invoice received and approved": {invoice(InvoiceReceived, "10"), invoice(InvoiceApproved, "11"), ""},
		"count booked":                  {count(CountPosted, "5"), count(CountPosted, "5"), ""},
		"count of another quantity":     {count(CountPosted, "5"), count(CountPosted, "4"), "not 5"},
		"count that is counted again":   {count(CountCounted, "5"), count(CountPosted, "4"), ""},
	} {
		if says := c.want.Stands(c.held); (says == "") != (c.says == "") || !strings.Contains(says, c.says) {
			t.Errorf("%s: says %q, want %q", name, says, c.says)
		}
	}
	if !sale(SalesCancelled).Withdrawn() || sale(SalesConfirmed).Withdrawn() {
		t.Error("a cancelled sale is not told from one that is not")
	}
}
