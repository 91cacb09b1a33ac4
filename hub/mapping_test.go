package hub

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/hub/api"
	"github.com/linekeeper/linekeeper/hub/object"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// as asks the API in a person's name.
func (r *running) as(name, method, path string, body, into any) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequest(method, r.h.URL()+path, strings.NewReader(string(raw)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+name+"-secret")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if raw, err = io.ReadAll(res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", path, res.Status, raw)
	}
	return json.Unmarshal(raw, into)
}

// order waits for the next work order that goes down.
func (p *plant) order() *pb.WorkOrder {
	p.t.Helper()
	for {
		down, err := p.stream.Recv()
		if err != nil {
			p.t.Fatal(err)
		}
		if d := down.GetDelivery(); d.GetWorkOrder() != nil {
			return d.GetWorkOrder()
		}
	}
}

// From the ERP to the machine and back: the plant counts boxes of its own item and weighs in grams, the ERP keeps pieces and
// kilograms of its own.
func TestPlantAndERPEachKeepTheirOwnWords(t *testing.T) {
	e, url := books(t)
	cfg := configured(t, url)
	for _, name := range []string{"anna", "bert"} {
		sum := sha256.Sum256([]byte(name + "-secret"))
		cfg.API.Tokens = append(cfg.API.Tokens, api.Token{Name: name, SHA256: hex.EncodeToString(sum[:]), Write: true})
	}
	r := run(t, cfg)
	p := r.dial()
	for name, text := range map[string]string{
		"units": "name: units\nkind: unit\nerp: erp\nrows:\n  - {from: XBX, to: C62, item: P-7, factor: 12}\n  - {from: GRM, to: KGM, factor: 1/1000, item: S-1}\n  - {from: C62, to: C62}\n  - {from: KGM, to: KGM}\n" +
			"tests:\n  - {from: XBX, item: P-7, value: \"2\", to: C62, want: \"24\"}\n  - {direction: down, from: KGM, item: S-1, value: \"0.12\", to: GRM, want: \"120\"}\n",
		"items": "name: items\nkind: item\nerp: erp\nunlisted: keep\nrows:\n  - {from: P-7, to: BRACKET-10}\n  - {from: S-1, to: STEEL-S235}\ntests:\n  - {from: P-7, to: BRACKET-10}\n",
	} {
		if err := r.as("anna", "POST", "/v1/mappings", map[string]any{"format": "yaml", "text": text, "base": 0, "note": "as agreed", "propose": true}, &struct{}{}); err != nil {
			t.Fatal(err)
		}
		if err := r.as("bert", "POST", "/v1/mappings/"+name+"/versions/1/approve", map[string]any{"note": "seen", "effective_from": time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)}, &struct{}{}); err != nil {
			t.Fatal(err)
		}
	}
	no, err := e.ReleaseDemoOrder(t.Context(), "ULM", "press1", 0, 60)
	if err != nil {
		t.Fatal(err)
	}
	o := p.order()
	if o.GetOrderNo() != no || o.GetItem() != "P-7" || o.GetQuantity().GetValue() != "5" || o.GetQuantity().GetUnit() != "XBX" {
		t.Errorf("the plant is told %v", o)
	}
	steel := false
	for _, c := range o.GetComponents() {
		steel = steel || c.GetItem() == "S-1" && c.GetRequired().GetUnit() == "GRM" && c.GetRequired().GetValue() == "7200"
	}
	if !steel {
		t.Errorf("the components are %v", o.GetComponents())
	}
	made, used := count("boxes", no), fact("steel", func(x *object.Fact) {
		x.Kind, x.Source = object.KindConsumption, "scale"
		x.Consumption = &object.Consumption{OrderNo: no, Item: "S-1", Movement: object.Issue, Quantity: object.Quantity{Value: decimal.NewFromInt(2880), Unit: "GRM"}}
	})
	made.Confirmation.Item, made.Confirmation.Unit = "P-7", "XBX"
	p.deliver(made, used)
	for _, f := range []object.Fact{made, used} {
		var life api.FactLife
		realparts.Eventually(t, 30*time.Second, f.Position+" is verified", func() error {
			err := r.as("anna", "GET", "/v1/facts/"+f.Key.String(), nil, &life)
			if err == nil && (life.Posting == nil || life.Posting.State != "verified") {
				err = fmt.Errorf("posting %+v", life.Posting)
			}
			return err
		})
		if life.Mapping == nil || len(life.Mapping.Values) != 2 {
			t.Errorf("%s is said with %+v", f.Position, life.Mapping)
		}
	}
	totals, err := e.Totals(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := totals.Orders[no]; got.Yield.String() != "24" || got.Consumed["STEEL-S235"].String() != "2.88" {
		t.Errorf("the ERP holds %+v", got)
	}
	var tally api.Tally
	if err := r.as("anna", "GET", "/v1/tally?order_no="+no, nil, &tally); err != nil || tally.Sum.Received != tally.Sum.Posted || tally.Sum.Missing != "0" || tally.Sum.Doubled != "0" {
		t.Errorf("the tally says %+v, %v", tally.Sum, err)
	}
}
