package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/api"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/wire"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// mappingHub is the API over a store with one planned fact of 5 KGM.
func mappingHub(t *testing.T) (url string) {
	t.Helper()
	s, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "hub.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC()
	f := object.Fact{Key: factkey.Of("cli"), Kind: object.KindConsumption, Plant: "ulm", Source: "scale", TimeZone: "UTC", Position: "cli", OccurredAt: now, RecordedAt: now,
		Consumption: &object.Consumption{OrderNo: "1", Item: "STEEL", Quantity: object.Quantity{Value: decimal.NewFromInt(5), Unit: "KGM"}, Movement: object.Issue}}
	body, err := wire.EncodeFact(f)
	if err != nil {
		t.Fatal(err)
	}
	var a store.Agent
	if err := s.Update(t.Context(), func(tx *store.Tx) (err error) { a, err = tx.AgentByName("ulm", "line1"); return err }); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AppendFacts(t.Context(), []store.Batch{{AgentID: a.ID, Agent: "ulm/line1", Generation: "g", FirstSeq: 1, Records: []store.Record{{Key: f.Key, Body: body}}}}); err != nil {
		t.Fatal(err)
	}
	_, facts, err := s.Unplanned(t.Context(), 10)
	if err != nil {
		t.Fatal(err)
	}
	err = s.Update(t.Context(), func(tx *store.Tx) error {
		p := store.Posting{FactID: facts[0].ID, ERP: "erp", OrderNo: "1", Plant: "ulm", State: store.PostingVerified, Document: "D1", Since: tx.Now()}
		return errors.Join(tx.AddPlanned([]store.Planned{{Fact: facts[0], Lines: facts[0].Fact.FactQuantities(), Posting: &p}}), tx.SetPlanCursor(facts[0].ID))
	})
	if err != nil {
		t.Fatal(err)
	}
	var tokens []api.Token
	for _, name := range []string{"anna", "bert"} {
		sum := sha256.Sum256([]byte(name + "-secret"))
		tokens = append(tokens, api.Token{Name: name, SHA256: hex.EncodeToString(sum[:]), Write: true})
	}
	srv := httptest.NewServer(api.New(s, nil, api.Options{Tokens: tokens, Now: time.Now}))
	t.Cleanup(func() { srv.Close(); s.Close() })
	return srv.URL
}

func TestMappingIsProposedTriedApprovedAndReturnedFromTheCommandLine(t *testing.T) {
	url := mappingHub(t)
	file := filepath.Join(t.TempDir(), "weights.yaml")
	save(t, file, "name: weights\nkind: unit\nerp: erp\nrows: [{from: KGM, to: KGM}]\ntests: [{from: KGM, value: \"1\", to: KGM, want: \"1\"}]\n")
	ask := func(want int, who string, args ...string) string {
		t.Helper()
		out, errOut := synchub(t, want, append(args, "--url", url, "--token", who+"-secret")...)
		return out + errOut
	}
	out, _ := synchub(t, 0, "mapping", "check", file)
	says(t, out, "is sound", "1 rows", "1 tests passed")
	says(t, ask(0, "anna", "mapping", "propose", file, "--note", "begin"), "version 1 is proposed")
	says(t, ask(1, "anna", "mapping", "approve", "weights", "1", "--note", "fine"), "four eyes")
	says(t, ask(0, "bert", "mapping", "approve", "weights", "1", "--note", "fine", "--from", "2026-01-01"), "version 1 is effective from 2026-01-01")

	save(t, file, "name: weights\nkind: unit\nerp: erp\nrows: [{from: KGM, to: GRM, factor: 100/1}]\ntests: [{from: KGM, value: \"1\", to: GRM, want: \"1000\"}]\n")
	_, errOut := synchub(t, 1, "mapping", "check", file)
	says(t, errOut, "faults: ")
	says(t, ask(1, "anna", "mapping", "propose", file, "--base", "1", "--note", "grams"), "factor_not_standard", "1000")
	save(t, file, "name: weights\nkind: unit\nerp: erp\nrows: [{from: KGM, to: GRM, factor: 1000/1}]\ntests: [{from: KGM, value: \"1\", to: GRM, want: \"1000\"}]\n")
	says(t, ask(1, "anna", "mapping", "propose", file, "--note", "grams"), "another version was made", "1")
	says(t, ask(0, "anna", "mapping", "propose", file, "--base", "1", "--note", "grams"), "version 2 is proposed")
	says(t, ask(1, "anna", "mapping", "dry-run", "weights", "2"), "said otherwise: 1", "5 KGM", "5000 GRM", "warning ratio:KGM:GRM:1000", "--acknowledge")
	says(t, ask(1, "bert", "mapping", "approve", "weights", "2", "--note", "fine"), "ratio:KGM:GRM:1000")
	says(t, ask(0, "bert", "mapping", "approve", "weights", "2", "--note", "fine", "--acknowledge", "ratio:KGM:GRM:1000"), "version 2 is effective")
	says(t, ask(0, "anna", "mapping", "list"), "weights", "unit", "IN FORCE")
	says(t, ask(0, "anna", "mapping", "show", "weights"), "superseded", "effective", "approved", "bert", "grams")
	says(t, ask(0, "anna", "mapping", "show", "weights", "--version", "2"), "KGM → GRM × 1000/1", "against version 1")
	says(t, ask(0, "anna", "mapping", "return", "weights", "--base", "2", "--note", "it was wrong"), "version 3 is effective")
	csv := ask(0, "anna", "mapping", "export", "weights", "3", "--format", "csv")
	again := filepath.Join(filepath.Dir(file), "weights.csv")
	save(t, again, csv)
	if out, _ := synchub(t, 0, "mapping", "check", again); out == "" {
		t.Error("the exported file is not sound")
	}
	says(t, ask(0, "bert", "mapping", "propose", again, "--base", "3", "--note", "the same", "--draft"), "version 4 is draft")
	says(t, ask(0, "bert", "mapping", "reject", "weights", "4", "--note", "needless"), "version 4 is rejected")
	var life api.MappingLife
	if err := json.Unmarshal([]byte(ask(0, "anna", "mapping", "show", "weights", "--json")), &life); err != nil || life.InForce != 3 || len(life.Trail) != 9 {
		t.Errorf("%+v, %v", life, err)
	}
	synchub(t, 64, "mapping", "approve", "weights", "4", "--note", "x", "--from", "tomorrow", "--url", url, "--token", "bert-secret")
	other := filepath.Join(filepath.Dir(file), "weights.txt")
	if err := os.Rename(again, other); err != nil {
		t.Fatal(err)
	}
	synchub(t, 64, "mapping", "check", other)
}

func TestEveryMappingCommandShowsAnExample(t *testing.T) {
	for _, c := range []string{"list", "show", "export", "check", "propose", "dry-run", "approve", "reject", "return"} {
		out, _ := synchub(t, 0, "mapping", c, "--help")
		says(t, out, "Example: synchub mapping "+c)
	}
}
