package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/mapping"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
)

var weights = mapping.Set{Name: "weights", Kind: mapping.Unit, ERP: "erp"}

func toGrams(tests ...mapping.Test) mapping.Content {
	return mapping.Content{Rows: []mapping.Row{{From: "KGM", To: "GRM", Factor: "1000"}},
		Tests: append(tests, mapping.Test{From: "KGM", Value: "1", To: "GRM", Want: "1000"})}
}

func toTons() mapping.Content {
	return mapping.Content{Rows: []mapping.Row{{From: "KGM", To: "TNE", Factor: "1/1000"}}, Tests: []mapping.Test{{From: "KGM", Value: "1", To: "TNE", Want: "0.001"}}}
}

func approve(t *testing.T, s *store.Store, number int, by string, from time.Time, dry mapping.Dry, named ...string) (mapping.Version, error) {
	t.Helper()
	dry.Set, dry.Version = weights.Name, number
	return s.ChangeMapping(t.Context(), weights.Name, number, "approved", by, "it is right", func(v *mapping.Version, all []mapping.Version, now time.Time) error {
		return v.Approve(all, by, "it is right", from, now, dry, named)
	})
}

func rules(t *testing.T, s *store.Store) *mapping.Rules {
	t.Helper()
	r, err := s.MappingRules(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestMappingGoesThroughItsLifeWithFourEyesAndATrail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.db")
	s := open(t, path)
	if r := rules(t, s); !r.Empty() || r.Generation != 0 {
		t.Fatalf("%+v", r)
	}
	v, err := s.AddMappingVersion(t.Context(), weights, 0, toGrams(), "anna", "grams it is", false)
	if err != nil || v.Number != 1 || v.State != mapping.Draft {
		t.Fatal(v, err)
	}
	if _, err := approve(t, s, 1, "bert", time.Time{}, mapping.Dry{}); !errors.Is(err, mapping.ErrState) {
		t.Errorf("a draft was approved: %v", err)
	}
	propose := func(v *mapping.Version, _ []mapping.Version, now time.Time) error { return v.Propose("carl", now) }
	if _, err := s.ChangeMapping(t.Context(), "weights", 1, "proposed", "carl", "please look", propose); err != nil {
		t.Fatal(err)
	}
	for _, same := range []string{"anna", "carl", " Carl "} { // who made it and who proposed it
		if _, err := approve(t, s, 1, same, time.Time{}, mapping.Dry{}); !errors.Is(err, mapping.ErrFourEyes) || !strings.Contains(err.Error(), strings.TrimSpace(same)) {
			t.Errorf("%s approved it: %v", same, err)
		}
	}
	warned := mapping.Dry{Warnings: []mapping.Warning{{Name: "ratio:KGM:GRM:1000", Text: "a thousand times"}}}
	if _, err := approve(t, s, 1, "bert", time.Time{}, warned); !errors.Is(err, mapping.ErrUnacknowledged) || !strings.Contains(err.Error(), "ratio:KGM:GRM:1000") {
		t.Errorf("the warning was not in the way: %v", err)
	}
	if !rules(t, s).Empty() {
		t.Error("refused approvals left rules behind")
	}
	if v, err = approve(t, s, 1, "bert", time.Time{}, warned, "ratio:KGM:GRM:1000"); err != nil || v.State != mapping.Approved || v.From.IsZero() {
		t.Fatal(v, err)
	}
	if _, err := approve(t, s, 1, "dora", time.Time{}, mapping.Dry{}); !errors.Is(err, mapping.ErrState) {
		t.Errorf("it was approved twice: %v", err)
	}
	first := rules(t, s)
	if first.Empty() || first.Generation == 0 || first.InForce("weights", time.Now()) != 1 {
		t.Fatalf("%+v", first)
	}
	s.Close()
	s = open(t, path)
	all, steps, err := s.MappingVersions(t.Context(), "weights")
	if err != nil || len(all) != 1 || cmp.Diff(all[0].Content, toGrams()) != "" || all[0].DecidedBy != "bert" || all[0].ProposedBy != "carl" || all[0].MadeBy != "anna" || len(all[0].Acknowledged) != 1 {
		t.Errorf("%+v, %v", all, err)
	}
	var trail []string
	for _, x := range steps {
		trail = append(trail, fmt.Sprintf("%d %s by %s: %s", x.Number, x.Step, x.By, x.Note))
		if x.At.IsZero() {
			t.Error("a step has no time")
		}
	}
	if want := []string{"1 made by anna: grams it is", "1 proposed by carl: please look", "1 approved by bert: it is right"}; !cmp.Equal(trail, want) {
		t.Errorf("trail %q", trail)
	}
	if r := rules(t, s); r.Generation != first.Generation {
		t.Error("the rules are others after a restart")
	}
}

func TestMappingWithFaultsIsADraftAndCannotBeProposed(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "hub.db"))
	bad := toGrams(mapping.Test{From: "KGM", Value: "1", To: "GRM", Want: "1"})
	if _, err := s.AddMappingVersion(t.Context(), weights, 0, bad, "anna", "n", true); !errors.Is(err, mapping.ErrFaulty) || !strings.Contains(err.Error(), mapping.FaultTestFailed) {
		t.Errorf("%v", err)
	}
	if sets, err := s.MappingSets(t.Context()); err != nil || len(sets) != 0 {
		t.Errorf("a refused version left a set behind: %v, %v", sets, err)
	}
	if _, err := s.AddMappingVersion(t.Context(), weights, 0, bad, "anna", "n", false); err != nil {
		t.Fatal(err)
	}
	_, err := s.ChangeMapping(t.Context(), "weights", 1, "proposed", "anna", "n", func(v *mapping.Version, _ []mapping.Version, now time.Time) error { return v.Propose("anna", now) })
	var faulty *mapping.Faulty
	if !errors.As(err, &faulty) || len(faulty.Faults) != 1 {
		t.Errorf("%v", err)
	}
}

// Two people make a version on top of the same one: one of them is told.
func TestVersionNumberIsComparedAndSet(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "hub.db"))
	if _, err := s.AddMappingVersion(t.Context(), weights, 0, toGrams(), "anna", "n", false); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = s.AddMappingVersion(t.Context(), weights, 1, toTons(), fmt.Sprint("p", i), "n", true)
		})
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if !errors.Is(err, mapping.ErrStale) {
			t.Error(err)
		}
	}
	if all, _, err := s.MappingVersions(t.Context(), "weights"); won != 1 || err != nil || len(all) != 2 {
		t.Errorf("%d of 8 won, %d versions, %v", won, len(all), err)
	}
	for _, other := range []mapping.Set{{Name: "weights", Kind: mapping.Unit, ERP: "other"}, {Name: "weights", Kind: mapping.Item, ERP: "erp"}, {Name: "more-weights", Kind: mapping.Unit, ERP: "erp"}} {
		base := 0
		if other.Name == "weights" {
			base = 2
		}
		if _, err := s.AddMappingVersion(t.Context(), other, base, toGrams(), "anna", "n", false); !errors.Is(err, store.ErrMappingSet) {
			t.Errorf("%+v: %v", other, err)
		}
	}
	for _, list := range []string{"carriers", "incoterms"} { // lists are asked for by name
		if _, err := s.AddMappingVersion(t.Context(), mapping.Set{Name: list, Kind: mapping.List}, 0, mapping.Content{}, "anna", "n", false); err != nil {
			t.Error(err)
		}
	}
}

func TestReturnBringsTheContentBeforeBackInOneStep(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "hub.db"))
	started := time.Now().Add(-time.Hour)
	if _, err := s.ReturnMapping(t.Context(), "weights", 0, 0, "bert", "n", time.Time{}); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
	for i, c := range []mapping.Content{toGrams(), toTons()} {
		if _, err := s.AddMappingVersion(t.Context(), weights, i, c, "anna", "n", true); err != nil {
			t.Fatal(err)
		}
		if _, err := approve(t, s, i+1, "bert", started.Add(time.Duration(i)*time.Minute), mapping.Dry{}); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if _, err := s.ReturnMapping(t.Context(), "weights", 1, 0, "bert", "n", time.Time{}); !errors.Is(err, mapping.ErrState) {
				t.Error("there is nothing to return to:", err)
			}
		}
	}
	if _, err := s.ReturnMapping(t.Context(), "weights", 1, 0, "bert", "n", time.Time{}); !errors.Is(err, mapping.ErrStale) {
		t.Error(err)
	}
	v, err := s.ReturnMapping(t.Context(), "weights", 2, 0, "dora", "tons are wrong", time.Time{})
	if err != nil || v.Number != 3 || v.Returns != 1 || v.State != mapping.Approved || cmp.Diff(v.Content, toGrams()) != "" {
		t.Fatalf("%+v, %v", v, err)
	}
	r := rules(t, s)
	for _, at := range []time.Duration{time.Minute, 30 * time.Minute, 2 * time.Hour} { // the wrong one is in force at no time any more
		if n := r.InForce("weights", started.Add(at)); n != 3 {
			t.Errorf("after %s version %d is in force", at, n)
		}
	}
	if n := r.InForce("weights", started); n != 1 {
		t.Errorf("at first version %d is in force", n)
	}
	all, steps, err := s.MappingVersions(t.Context(), "weights")
	if err != nil || len(all) != 3 || cmp.Diff(all[1].Content, toTons()) != "" || all[1].State != mapping.Approved {
		t.Errorf("history was changed: %+v, %v", all, err)
	}
	if last := steps[len(steps)-1]; last.By != "dora" || last.Note != "tons are wrong" || last.Step != "returned to version 1" {
		t.Errorf("%+v", last)
	}
}

func TestAnOlderProposalCannotBeApprovedOverANewerOne(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "hub.db"))
	for i, c := range []mapping.Content{toGrams(), toTons()} {
		if _, err := s.AddMappingVersion(t.Context(), weights, i, c, "anna", "n", true); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := approve(t, s, 2, "bert", time.Time{}, mapping.Dry{}); err != nil {
		t.Fatal(err)
	}
	if _, err := approve(t, s, 1, "bert", time.Time{}, mapping.Dry{}); !errors.Is(err, mapping.ErrState) {
		t.Errorf("%v", err)
	}
	_, err := s.ChangeMapping(t.Context(), "weights", 1, "rejected", "anna", "old", func(v *mapping.Version, _ []mapping.Version, now time.Time) error {
		return v.Reject("anna", "old", now)
	})
	if err != nil {
		t.Error(err)
	}
}

// A transaction that approves and is undone must leave no rules behind that a later one could meet.
func TestRulesOfATransactionThatWasUndoneAreForgotten(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "hub.db"))
	if _, err := s.AddMappingVersion(t.Context(), weights, 0, toGrams(), "anna", "n", true); err != nil {
		t.Fatal(err)
	}
	undone := errors.New("undone")
	_, err := s.ChangeMapping(t.Context(), "weights", 1, "approved", "bert", "n", func(v *mapping.Version, all []mapping.Version, now time.Time) error {
		if err := v.Approve(all, "bert", "n", time.Time{}, now, mapping.Dry{Set: "weights", Version: 1}, nil); err != nil {
			return err
		}
		return undone
	})
	if !errors.Is(err, undone) || !rules(t, s).Empty() {
		t.Errorf("%v, %+v", err, rules(t, s))
	}
}

func TestMappingWakesWhoWatchesIt(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "hub.db"))
	told, end := s.Watch(store.TopicMappings)
	defer end()
	if _, err := s.AddMappingVersion(t.Context(), weights, 0, toGrams(), "anna", "n", true); err != nil {
		t.Fatal(err)
	}
	select {
	case <-told:
	default:
		t.Error("nobody was told")
	}
}

// A version that came into force while its follower worked must not wait for the next one.
func TestMappingThatComesIntoForceUnseenIsNotWaitedFor(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "hub.db"))
	if _, err := s.AddMappingVersion(t.Context(), weights, 0, toGrams(), "anna", "new", true); err != nil {
		t.Fatal(err)
	}
	since := time.Now().Add(time.Hour)
	if _, err := approve(t, s, 1, "bert", since.Add(time.Minute), mapping.Dry{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s.AwaitMappings(ctx, nil, since, func() time.Time { return since.Add(2 * time.Minute) }, time.Hour)
	if ctx.Err() != nil {
		t.Error("it waited though a version had come into force")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	s.AwaitMappings(ended, nil, since.Add(2*time.Minute), func() time.Time { return since.Add(2 * time.Minute) }, time.Hour) // nothing comes: ctx ends it
}

func TestSamplesAreTheFactsOfATimeWithTheirPostingsAndOrders(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "hub.db"))
	a := agent(t, s, "ulm", "edge1")
	var records []store.Record
	for n := range 30 {
		records = append(records, record(t, confirmation(n, "5")))
	}
	appendFacts(t, s, a, 1, records...)
	_, facts, err := s.Unplanned(t.Context(), 100)
	if err != nil {
		t.Fatal(err)
	}
	how := &mapping.Applied{Generation: 7, Unit: "GRM", Factor: "1000/1", Amounts: []mapping.Amount{{Kind: object.Yield, Counted: decimal.NewFromInt(5), Posted: decimal.NewFromInt(5000)}}}
	err = s.Update(t.Context(), func(tx *store.Tx) error {
		var all []store.Planned
		for i, f := range facts {
			p := store.Posting{FactID: f.ID, ERP: "erp", OrderNo: "WO-1", Plant: "ulm", State: store.PostingDue, Since: tx.Now()}
			if i == 3 {
				p.State = store.PostingVerified
				if err := tx.SetApplied(f.ID, how); err != nil {
					return err
				}
			}
			all = append(all, store.Planned{Fact: f, Lines: f.Fact.FactQuantities(), Posting: &p})
		}
		w := object.WorkOrder{OrderNo: "WO-1", ERP: "erp", Plant: "ulm", Revision: 1, Quantity: object.Quantity{Value: decimal.NewFromInt(9), Unit: "C62"}}
		return errors.Join(tx.AddPlanned(all), tx.PutOrder(store.Order{Order: w, Content: []byte("c")}, true))
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []mapping.Sample
	take := func(x mapping.Sample) { got = append(got, x) }
	truncated, err := s.Samples(t.Context(), store.TrialFilter{Since: facts[2].Fact.OccurredAt}, take)
	if err != nil || truncated || len(got) != 28 {
		t.Fatalf("%d facts, %v, %v", len(got), truncated, err)
	}
	sent := 0
	for i, x := range got {
		if x.ERP != "erp" || x.Order.Quantity.Value.String() != "9" || i > 0 && x.Fact.OccurredAt.After(got[i-1].Fact.OccurredAt) {
			t.Errorf("%+v", x)
		}
		if x.Sent {
			sent++
			if cmp.Diff(x.Applied, how) != "" {
				t.Errorf("%+v", x.Applied)
			}
		}
	}
	if sent != 1 {
		t.Errorf("%d were sent", sent)
	}
	got = nil
	if truncated, err = s.Samples(t.Context(), store.TrialFilter{Limit: 10, OrderNo: "WO-1"}, take); err != nil || !truncated || len(got) != 10 {
		t.Errorf("%d facts, %v, %v", len(got), truncated, err)
	}
}

func TestMappedResidueIsAnExactFraction(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "hub.db"))
	line := store.MappedLine{ERP: "erp", Line: object.LedgerKey{OrderNo: "WO-1", Item: "P", Kind: object.Yield, Unit: "KGM"}, ToUnit: "GRM"}
	err := s.Update(t.Context(), func(tx *store.Tx) error {
		rest, own, err := tx.MappedResidue(line)
		if err != nil || rest.Sign() != 0 || !own.IsZero() {
			t.Errorf("%s %s %v", rest, own, err)
		}
		if err := tx.SetMappedResidue(line, big.NewRat(-1, 3), decimal.RequireFromString("-0.000333333")); err != nil {
			return err
		}
		if rest, own, err = tx.MappedResidue(line); err != nil || rest.RatString() != "-1/3" || own.String() != "-0.000333333" {
			t.Errorf("%s %s %v", rest, own, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestDryRunIsKept(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "hub.db"))
	d := mapping.NewTrial(rules(t, s), mapping.Version{Set: weights, Number: 1, Content: toGrams()}, time.Now(), time.Now().UTC().Truncate(time.Second)).Result()
	if err := s.PutDryRun(t.Context(), d, "anna"); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
	if _, err := s.AddMappingVersion(t.Context(), weights, 0, toGrams(), "anna", "n", true); err != nil {
		t.Fatal(err)
	}
	if _, err := s.LastDryRun(t.Context(), "weights", 1); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
	if err := s.PutDryRun(t.Context(), d, "anna"); err != nil {
		t.Fatal(err)
	}
	if got, err := s.LastDryRun(t.Context(), "weights", 1); err != nil || got.By != "anna" || got.At.IsZero() || cmp.Diff(got.Dry, d) != "" {
		t.Errorf("%+v, %v", got, err)
	}
}
