package hub

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/hub/api"
	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/object"
)

// withLedger is a configuration with a ledger beside the sandbox.
func withLedger(t *testing.T, b ...BusinessConfig) (Config, []ConnectorKind, *connectortest.Ledger) {
	l := connectortest.NewLedger()
	cfg := configured(t, "http://127.0.0.1:1")
	cfg.ERPs = append(cfg.ERPs, ERPConfig{Name: "books", Kind: "ledger", Decode: func(any) error { return nil }})
	cfg.Business = b
	return cfg, append(kinds, ConnectorKind{Name: "ledger", New: func(string, string, func(any) error) (connector.Connector, error) { return l, nil }}), l
}

func TestBusinessObjectsAreReadAndWrittenAsConfigured(t *testing.T) {
	cfg, all, ledger := withLedger(t, BusinessConfig{ERP: "books", Kinds: []string{"all"}, Every: 50 * time.Millisecond, Write: true})
	ledger.Put(object.Business{Kind: object.BusinessPurchase, Purchase: &object.PurchaseOrder{Supplier: "SUP", State: object.PurchaseDraft}})
	r := runKinds(t, cfg, all)
	body := `{"key":"planner/1","object":{"kind":"purchase_order","purchase_order":{"number":"PO-1","state":"SENT"}}}`
	res, err := http.Post(r.h.URL()+"/v1/writes", "application/json", bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusAccepted {
		t.Fatalf("a write is answered %s", res.Status)
	}
	realparts.Eventually(t, 20*time.Second, "the purchase to be sent and read back", func() error {
		var o api.ObjectLife
		if err := r.get("/v1/objects/purchase_order/books/PO-1", &o); err != nil {
			return err
		}
		if o.State != "SENT" {
			return fmt.Errorf("it is %s", o.State)
		}
		return nil
	})
}

func TestNothingOfBusinessIsReadOrWrittenWithoutBeingAllowed(t *testing.T) {
	cfg, all, ledger := withLedger(t)
	r := runKinds(t, cfg, all)
	body := `{"key":"planner/1","erp":"books","object":{"kind":"purchase_order","purchase_order":{"number":"PO-1","state":"SENT"}}}`
	res, err := http.Post(r.h.URL()+"/v1/writes", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusUnprocessableEntity || ledger.Calls("list")+ledger.Calls("prepare") != 0 {
		t.Errorf("a write that nobody allowed is answered %s; %d listings", res.Status, ledger.Calls("list"))
	}
}

func TestFaultsOfBusinessAreNamed(t *testing.T) {
	for want, b := range map[string]BusinessConfig{
		"use all alone, or some of purchase_order": {ERP: "books", Kinds: []string{"item"}},
		`"shipment" is there twice`:                {ERP: "books", Kinds: []string{"shipment", "shipment"}},
		`does not read "all"`:                      {ERP: "books", Kinds: []string{"shipment", "all"}},
	} {
		cfg, all, _ := withLedger(t, b)
		text := fmt.Sprint(cfg.Check(all))
		if !strings.Contains(text, want) {
			t.Errorf("%+v has the faults %s, want %s", b, text, want)
		}
	}
	for want, entries := range map[string][]BusinessConfig{
		`business[2].erp: ERP "books" is there twice`: {{ERP: "books", Write: true}, {ERP: "books", Write: true}},
		"business[1].every: -1s is negative":          {{ERP: "books", Write: true, Every: -time.Second}},
	} {
		cfg, all, _ := withLedger(t, entries...)
		if f := cfg.Check(all); len(f) != 1 || !strings.Contains(fmt.Sprint(f[0].Where, ": ", f[0].Text), want) {
			t.Errorf("%+v has the faults %v, want %s", entries, f, want)
		}
	}
	cfg, all, _ := withLedger(t, BusinessConfig{ERP: "books", Kinds: []string{"shipment", "invoice"}, Write: true})
	if f := cfg.Check(all); len(f) != 0 {
		t.Errorf("what is right has faults: %v", f)
	}
}
