package s4_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/linekeeper/linekeeper/hub/connector/s4"
	"github.com/linekeeper/linekeeper/hub/connector/s4/s4double"
	"github.com/linekeeper/linekeeper/hub/object"
)

// samples is the folder of published sample documents beside the checkout.
func samples(t *testing.T) string {
	t.Helper()
	dir := filepath.Join("..", "..", "..", "..", "shared", "samples", "sap-odata")
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		t.Logf("LEFT OUT: the sample documents are not beside the checkout (%s)", dir)
		return ""
	}
	return dir
}

// entities reads the entities in the "message" of a sample.
func entities(t *testing.T, file string) (all []map[string]any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var in struct {
		Message []map[string]any `json:"message"`
	}
	if err := json.Unmarshal(text, &in); err != nil || len(in.Message) == 0 {
		t.Fatalf("%s: %d entities, %v", file, len(in.Message), err)
	}
	return in.Message
}

// Every field that a sample has is a field of the double, and the values have the form in which the double writes them.
func TestDoubleKnowsEveryFieldOfTheSamples(t *testing.T) {
	t.Parallel()
	dir := samples(t)
	if dir == "" {
		return
	}
	for file, set := range map[string]string{"production_order_header.json": "A_ProductionOrder_2", "production_order_item.json": "A_ProductionOrderItem_2",
		"confirmations_by_order.json": "ProdnOrdConf2", "confirmation_goods_movements.json": "ProdnOrdConfMatlDocItm", "confirmation_material_movements.json": "ProdnOrdConfMatlDocItm"} {
		fields := 0
		for _, e := range entities(t, filepath.Join(dir, file)) {
			for name := range e {
				if !strings.HasPrefix(name, "to_") && !s4double.Schemas[set].Has(name) {
					t.Errorf("%s: %s has no field %s", file, set, name)
				}
				fields++
			}
		}
		t.Logf("%s: %d fields", file, fields)
	}
	for file, nested := range map[string]string{"material_document_create_header.json": "MaterialDocumentItem", "material_document_create_item.json": "MaterialDocumentItem"} {
		var in struct{ MaterialDocument map[string]any }
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err == nil {
			err = json.Unmarshal(text, &in)
		}
		if err != nil {
			t.Fatal(err)
		}
		for name, v := range in.MaterialDocument {
			if name == nested {
				for item := range v.(map[string]any) {
					if !s4double.Schemas["A_MaterialDocumentItem"].Has(item) {
						t.Errorf("%s: an item has no field %s", file, item)
					}
				}
			} else if !s4double.Schemas["A_MaterialDocumentHeader"].Has(name) {
				t.Errorf("%s: a header has no field %s", file, name)
			}
		}
	}
}

// The orders and confirmations of the samples, replayed in the double, are what the connector reads and makes.
func TestSamplesReplayThroughDoubleAndConnector(t *testing.T) {
	t.Parallel()
	dir := samples(t)
	if dir == "" {
		return
	}
	b := newBench(t, s4double.Traps{})
	c := b.connect(t, func(c *s4.Config) { c.Sites = map[string]string{"1710": "ulm"} })
	text := func(e map[string]any, name string) string { v, _ := e[name].(string); return v }

	order := entities(t, filepath.Join(dir, "production_order_header.json"))[0]
	b.CreateOrder(s4double.Order{Number: text(order, "ManufacturingOrder"), Type: text(order, "ManufacturingOrderType"), Material: text(order, "Material"), Plant: text(order, "ProductionPlant"),
		StorageLocation: text(order, "StorageLocation"), Quantity: d(text(order, "TotalQuantity")), Released: true, TechnicallyComplete: text(order, "OrderIsTechnicallyCompleted") == "X"})
	w, err := c.Get(t.Context(), "1000000")
	if err != nil || w.Item != "MZ-FG-R10" || w.Site != "ulm" || w.State != object.OrderCompleted || !w.Quantity.Value.Equal(d("500")) || w.Quantity.Unit != "C62" {
		t.Errorf("the sample's order is read as %+v, %v", w, err)
	}

	// The four confirmations of an order with four operations: their groups follow each other as the operations do.
	confs := entities(t, filepath.Join(dir, "confirmations_by_order.json"))
	b.PutMaterial(s4double.Material{Number: "FG226", Unit: "PC", UnitISO: "PCE"})
	made := s4double.Order{Number: text(confs[0], "OrderID"), Type: text(confs[0], "OrderType"), Material: text(confs[0], "Material"), Plant: "1710", StorageLocation: "171A",
		Quantity: d(text(confs[0], "OrderPlannedTotalQty")), Released: true}
	for _, conf := range confs {
		made.Operations = append(made.Operations, s4double.Operation{Number: text(conf, "OrderOperation"), WorkCenter: text(conf, "WorkCenter")})
	}
	b.CreateOrder(made)
	for i, conf := range confs {
		p := confirmation(text(conf, "OrderID"), text(conf, "ConfirmationYieldQuantity"), text(conf, "ConfirmationScrapQuantity"))
		p.Fact.Confirmation.Item, p.Fact.Confirmation.Operation, p.Fact.Confirmation.Final = text(conf, "Material"), text(conf, "OrderOperation"), true
		doc := settled(t, c, p).Document
		if want := text(conf, "ConfirmationGroup") + "/" + text(conf, "ConfirmationCount"); doc.Number != want {
			t.Errorf("confirmation %d is %s, in the sample %s", i+1, doc.Number, want)
		}
	}
	receipt := entities(t, filepath.Join(dir, "confirmation_material_movements.json"))[0]
	if x := b.Totals(made.Number); !x.Received.Equal(d(text(receipt, "QuantityInEntryUnit"))) || x.Confirmations != 4 {
		t.Errorf("order %s received %s by %d confirmations, in the sample %s by 4", made.Number, x.Received, x.Confirmations, text(receipt, "QuantityInEntryUnit"))
	}
	if w, err := c.Get(t.Context(), made.Number); err != nil || w.State != object.OrderCompleted || w.WorkCenter != "ASSEMBLY" || len(w.Operations) != 4 {
		t.Errorf("the order is read as %+v, %v", w, err)
	}

	// The issue of a component, from the goods movements of a confirmation.
	issue := entities(t, filepath.Join(dir, "confirmation_goods_movements.json"))[0]
	b.PutMaterial(s4double.Material{Number: text(issue, "Material"), Unit: text(issue, "EntryUnit"), UnitISO: "PCE"})
	b.PutStock(text(issue, "Material"), text(issue, "Plant"), text(issue, "StorageLocation"), d("100"))
	b.CreateOrder(s4double.Order{Number: text(issue, "OrderID"), Material: "FG226", Plant: text(issue, "Plant"), StorageLocation: "171A", Quantity: d("100"), Released: true,
		Operations: []s4double.Operation{{Number: "0010"}},
		Components: []s4double.Component{{Item: text(issue, "ReservationItem"), Material: text(issue, "Material"), StorageLocation: text(issue, "StorageLocation"), Operation: "0010", Required: d("100")}}})
	p := consumption(text(issue, "OrderID"), text(issue, "QuantityInEntryUnit"), object.Issue)
	p.Fact.Consumption.Item, p.Fact.Consumption.Quantity.Unit = text(issue, "Material"), "C62"
	settled(t, c, p)
	if got := b.StockOf(text(issue, "Material"), text(issue, "Plant"), text(issue, "StorageLocation")); !got.IsZero() {
		t.Errorf("%s are left of 100", got)
	}
}
