package wire

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/object"
)

var kinds = []object.Business{
	{Kind: object.BusinessItem, Item: &object.Item{}}, {Kind: object.BusinessParty, Party: &object.Party{}},
	{Kind: object.BusinessPurchase, Purchase: &object.PurchaseOrder{}}, {Kind: object.BusinessSale, Sale: &object.SalesOrder{}},
	{Kind: object.BusinessShipment, Shipment: &object.Shipment{}}, {Kind: object.BusinessInvoice, Invoice: &object.Invoice{}},
	{Kind: object.BusinessCount, Count: &object.CycleCount{}}, {Kind: object.BusinessMovement, Movement: &object.InventoryMovement{}},
}

// fill gives every field a value of its own, so that none can be forgotten or exchanged.
func fill(v reflect.Value, n *int) {
	*n++
	switch v.Type() {
	case decimalType:
		v.Set(reflect.ValueOf(decimal.New(int64(*n), -2)))
		return
	case nullDecimalType:
		v.Set(reflect.ValueOf(decimal.NewNullDecimal(decimal.Zero))) // zero is a count
		return
	case timeType:
		v.Set(reflect.ValueOf(time.Date(2026, 11, 26, 9, 0, *n, 5000, time.FixedZone("", 3600))))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("text \"" + strings.Repeat("x", *n%5) + decimal.NewFromInt(int64(*n)).String())
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(int64(*n))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), n)
		fill(v.Index(1), n)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	default:
		panic("a kind of field that nobody has thought of: " + v.Kind().String())
	}
}

var equal = cmp.Comparer(func(a, b decimal.Decimal) bool { return a.Equal(b) })

func TestEveryFieldOfABusinessObjectComesBack(t *testing.T) {
	for _, b := range kinds {
		for _, full := range []bool{true, false} {
			o := b
			v := reflect.ValueOf(&o).Elem()
			for i := range v.NumField() {
				if f := v.Field(i); f.Kind() == reflect.Pointer && !f.IsNil() {
					f.Set(reflect.New(f.Type().Elem()))
					n := 0
					if full {
						fill(f.Elem(), &n)
					}
				}
			}
			raw, err := EncodeBusiness(o)
			if err != nil || !json.Valid(raw) {
				t.Fatalf("%s: %v\n%s", b.Kind, err, raw)
			}
			back, err := DecodeBusiness(raw)
			if err != nil {
				t.Fatalf("%s: %v\n%s", b.Kind, err, raw)
			}
			if diff := cmp.Diff(o, back, equal); diff != "" {
				t.Errorf("%s comes back otherwise:\n%s", b.Kind, diff)
			}
			if again, _ := EncodeBusiness(back); string(again) != string(raw) {
				t.Errorf("%s: equal objects are other bytes:\n%s\n%s", b.Kind, raw, again)
			}
		}
	}
}

func TestNamesOfBusinessFields(t *testing.T) {
	for in, want := range map[string]string{"LineNo": "line_no", "ERPKey": "erp_key", "GTINs": "gtins", "TaxIDs": "tax_ids", "EventID": "event_id", "ID": "id", "SSCC": "sscc",
		"OverPct": "over_pct", "ShipOn": "ship_on", "BillOfLading": "bill_of_lading", "ERP": "erp", "EDI": "edi"} {
		if got := small(in); got != want {
			t.Errorf("%s is written %s, want %s", in, got, want)
		}
	}
	o := object.Business{Kind: object.BusinessPurchase, Purchase: &object.PurchaseOrder{Number: "1", Lines: []object.PurchaseLine{{Item: "A",
		Ordered: object.Quantity{Value: decimal.RequireFromString("12.50"), Unit: "KGM"}}}}}
	raw, err := EncodeBusiness(o)
	want := `{"kind":"purchase_order","purchase_order":{"number":"1","lines":[{"item":"A","ordered":{"value":"12.5","unit":"KGM"},"over_pct":"0","under_pct":"0","received":"0","invoiced":"0"}]}}`
	if err != nil || string(raw) != want {
		t.Errorf("written as\n%s, %v; want\n%s", raw, err, want)
	}
}

func TestBusinessObjectThatIsNoneNamesTheField(t *testing.T) {
	for in, want := range map[string]string{
		`{"kind":"purchase_order","purchase_order":{"lines":[{"ordered":{"value":12.5,"unit":"KGM"}}]}}`: `purchase_order.lines[0].ordered.value: is 12.5; want a decimal number as text`,
		`{"kind":"purchase_order","purchase_order":{"lines":[{},{"ordered":{"value":"1e9"}}]}}`:          `purchase_order.lines[1].ordered.value: is "1e9"`,
		`{"kind":"purchase_order","purchase_order":{"Supplier":"S"}}`:                                    `purchase_order.Supplier: is not known here`,
		`{"kind":"purchase_order","purchase_order":{"supplier":"S","supplier":"T"}}`:                     `purchase_order.supplier: is there twice`,
		`{"kind":"purchase_order","purchase_order":{"supplier":1}}`:                                      `purchase_order.supplier: is 1; want text`,
		`{"kind":"purchase_order","purchase_order":{"revision":1.5}}`:                                    `purchase_order.revision: is 1.5; want a whole number`,
		`{"kind":"purchase_order","purchase_order":{"receipt_based_invoicing":"yes"}}`:                   `want true or false`,
		`{"kind":"purchase_order","purchase_order":{"lines":{}}}`:                                        `purchase_order.lines: is {}; want a list`,
		`{"kind":"shipment","shipment":{"milestones":[{"at":"2026-11-26"}]}}`:                            `shipment.milestones[0].at: is "2026-11-26"; want a time with its zone`,
		`{"kind":"purchase_order","sales_order":{}}`:                                                     `kind:`,
		`{"kind":"nothing"}`: `kind:`, `[]`: `want an object`, `{"kind":"item","item":{}} x`: `nothing behind it`, `{"kind":"item","item":{}`: `whole JSON`,
	} {
		_, err := DecodeBusiness([]byte(in))
		var f *FieldError
		if !errors.As(err, &f) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n is read as %v, want %s", in, err, want)
		}
	}
}

func FuzzBusiness(f *testing.F) {
	for _, b := range kinds {
		raw, _ := EncodeBusiness(b)
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		o, err := DecodeBusiness(raw)
		if err != nil {
			return
		}
		again, err := EncodeBusiness(o)
		if err != nil {
			t.Fatalf("%s is read and cannot be written: %v", raw, err)
		}
		if _, err := DecodeBusiness(again); err != nil {
			t.Errorf("%s is written as %s, which cannot be read: %v", raw, again, err)
		}
	})
}
