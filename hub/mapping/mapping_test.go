package mapping

import (
	"flag"
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the random run; 0 draws one")

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func scale(n int32) *int32 { return &n }

func kgToG() (Set, Content) {
	return Set{Name: "units", Kind: Unit, ERP: "erp"}, Content{
		Rows:  []Row{{From: "KGM", To: "GRM", Factor: "1000/1"}, {From: "C62", To: "C62"}, {From: "XBX", Item: "4711", To: "C62", Factor: "12", Direction: Up}},
		Tests: []Test{{From: "KGM", Value: "1.5", To: "GRM", Want: "1500"}, {Direction: Down, From: "GRM", Value: "250", To: "KGM", Want: "0.25"}, {From: "XBX", Missing: true}},
	}
}

func names(faults []Fault) (all []string) {
	for _, f := range faults {
		all = append(all, f.Name)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func TestASoundSetHasNoFault(t *testing.T) {
	s, c := kgToG()
	if faults := Check(s, c); len(faults) > 0 {
		t.Fatal(faults)
	}
}

func TestEachFaultHasItsName(t *testing.T) {
	unit := func(rows ...Row) Content { return Content{Rows: rows} }
	for _, x := range []struct {
		name string
		kind Kind
		c    Content
	}{
		{FaultDimension, Unit, unit(Row{From: "KGM", To: "LTR", Factor: "1"})},
		{FaultDimension, Unit, unit(Row{From: "KGM", To: "GRM", Factor: "1000", Dimension: "length"})},
		{FaultStandard, Unit, unit(Row{From: "KGM", To: "GRM", Factor: "100"})},
		{FaultStandard, Unit, unit(Row{From: "KGM", To: "KGM", Factor: "1000"})},
		{FaultFactor, Unit, unit(Row{From: "KGM", To: "GRM"})},
		{FaultFactor, Unit, unit(Row{From: "XBX", To: "C62", Factor: "0"})},
		{FaultFactor, Unit, unit(Row{From: "XBX", To: "C62", Factor: "12/0"})},
		{FaultFactor, Unit, unit(Row{From: "XBX", To: "C62", Factor: "-3"})},
		{FaultFactor, Unit, unit(Row{From: "XBX", To: "C62", Factor: "1e9"})},
		{FaultUnknownUnit, Unit, unit(Row{From: "KG", To: "KGM", Factor: "1"})},
		{FaultUnknownUnit, Unit, unit(Row{From: "KGM", To: "KG", Factor: "1"})},
		{FaultDuplicate, Unit, unit(Row{From: "XBX", To: "C62", Factor: "12", Direction: Up}, Row{From: "XBX", To: "C62", Factor: "10", Direction: Up})},
		{FaultAmbiguous, Unit, unit(Row{From: "KGM", To: "GRM", Factor: "1000"}, Row{From: "TNE", To: "GRM", Factor: "1000000"})},
		{FaultLoop, Unit, unit(Row{From: "KGM", To: "GRM", Factor: "1000"}, Row{From: "GRM", To: "KGM", Factor: "1/1000"})},
		{FaultLoop, Item, unit(Row{From: "A", To: "B"}, Row{From: "B", To: "C"}, Row{From: "C", To: "A"})},
		{FaultLossy, Unit, Content{Scale: scale(2), Rows: []Row{{From: "GRM", To: "KGM", Factor: "1/1000"}}}},
		{FaultLossy, Unit, unit(Row{From: "GRM", To: "KGM", Factor: "1/1000", Scale: scale(3), FromScale: 1})},
		{FaultScale, Unit, unit(Row{From: "C62", To: "C62", Scale: scale(10)})},
		{FaultUnlisted, Unit, Content{Unlisted: Keep, Rows: []Row{{From: "C62", To: "C62"}}}},
		{FaultUnlisted, Item, Content{Unlisted: "guess", Rows: []Row{{From: "A", To: "B"}}}},
		{FaultKind, Item, unit(Row{From: "A", To: "B", Factor: "2"})},
		{FaultKind, "colour", unit(Row{From: "A", To: "B"})},
		{FaultDirection, Item, unit(Row{From: "A", To: "B", Direction: "sideways"})},
		{FaultEmpty, Item, Content{}},
		{FaultEmpty, Item, unit(Row{From: "A ", To: "B"})},
		{FaultNoTests, Item, unit(Row{From: "A", To: "B"})},
		{FaultTestFailed, Item, Content{Rows: []Row{{From: "A", To: "B"}}, Tests: []Test{{From: "A", To: "C"}}}},
		{FaultTestFailed, Item, Content{Rows: []Row{{From: "A", To: "B"}}, Tests: []Test{{From: "A", Missing: true}}}},
		{FaultTestFailed, Item, Content{Rows: []Row{{From: "A", To: "B", Direction: Up}}, Tests: []Test{{From: "B", To: "A", Direction: Down}}}},
		{FaultTestFailed, Unit, Content{Rows: []Row{{From: "KGM", To: "GRM", Factor: "1000"}}, Tests: []Test{{From: "KGM", Value: "1", To: "GRM", Want: "1"}}}},
		{FaultMovement, Movement, unit(Row{From: "ISSUE", To: "261"})},
		{FaultTest, Unit, Content{Rows: []Row{{From: "KGM", To: "GRM", Factor: "1000"}}, Tests: []Test{{From: "KGM", Value: "x", To: "GRM", Want: "1"}}}},
	} {
		faults := Check(Set{Name: "s", Kind: x.kind}, x.c)
		if got := names(faults); !slices.Contains(got, x.name) {
			t.Errorf("%+v: %v, want %s", x.c, faults, x.name)
		}
		for _, f := range faults {
			if f.Text == "" {
				t.Errorf("%s says nothing", f.Name)
			}
		}
	}
	if got := names(CheckSet(Set{Name: "My Set", Kind: Unit})); !slices.Equal(got, []string{FaultName}) {
		t.Error(got)
	}
	if got := names(CheckSet(Set{Name: "sites", Kind: Site, Plant: "ulm"})); !slices.Equal(got, []string{FaultKind}) {
		t.Error(got)
	}
}

func TestPiecesOfOneItemMayBeWeighed(t *testing.T) {
	c := Content{Rows: []Row{{From: "C62", Item: "4711", To: "KGM", Factor: "1/4"}}, Tests: []Test{{From: "C62", Item: "4711", Value: "10", To: "KGM", Want: "2.5"}, {From: "C62", Missing: true}}}
	if faults := Check(Set{Name: "weights", Kind: Unit}, c); len(faults) > 0 {
		t.Fatal(faults)
	}
}

func TestRoundIsHalfEvenAndExact(t *testing.T) {
	for _, x := range []struct {
		in    string
		scale int32
		want  string
	}{{"5/2", 0, "2"}, {"7/2", 0, "4"}, {"-5/2", 0, "-2"}, {"-7/2", 0, "-4"}, {"1/3", 3, "0.333"}, {"2/3", 3, "0.667"}, {"-2/3", 3, "-0.667"}, {"1/8", 2, "0.12"}, {"3/8", 2, "0.38"}, {"12", 2, "12"}} {
		r, _ := new(big.Rat).SetString(x.in)
		if got := Round(r, x.scale); got.String() != x.want {
			t.Errorf("%s to %d decimals is %s, want %s", x.in, x.scale, got, x.want)
		}
	}
}

// Against shopspring's own rounding, which is exact for decimals, and against the greatest possible error for fractions.
func TestRoundRandom(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 20_000 {
		n, scale := rng.Int64N(2_000_000)-1_000_000, int32(rng.IntN(5))
		d := decimal.New(n, -int32(rng.IntN(7)))
		if got, want := Round(d.Rat(), scale), d.RoundBank(scale); !got.Equal(want) {
			t.Fatalf("%s to %d decimals: %s, want %s", d, scale, got, want)
		}
		r := big.NewRat(n, rng.Int64N(1000)+1)
		off := new(big.Rat).Sub(r, Round(r, scale).Rat())
		if off.Abs(off).Cmp(new(big.Rat).Mul(tenth(scale), big.NewRat(1, 2))) > 0 {
			t.Fatalf("%s to %d decimals is off by %s", r, scale, off)
		}
	}
}

func approved(s Set, number int, from time.Time, c Content) Version {
	return Version{Set: s, Number: number, State: Approved, Content: c, From: from}
}

func fact(unit, item, value string) object.Fact {
	return object.Fact{Key: factkey.Of("test/" + unit + item + value), Kind: object.KindConfirmation, Plant: "ulm", OccurredAt: noon,
		Confirmation: &object.Confirmation{OrderNo: "WO-1", Item: item, Unit: unit, Yield: decimal.RequireFromString(value)}}
}

func TestTheVersionOfTheFactsOwnTimeCounts(t *testing.T) {
	s := Set{Name: "items", Kind: Item}
	to := func(item string) Content { return Content{Rows: []Row{{From: "A", To: item}}} }
	r := NewRules(7, []Version{
		approved(s, 1, noon.Add(-2*time.Hour), to("v1")), approved(s, 2, noon.Add(time.Hour), to("v2")),
		{Set: s, Number: 3, State: Proposed, Content: to("v3")},
		approved(s, 4, noon.Add(3*time.Hour), to("v4")), approved(s, 5, noon.Add(2*time.Hour), to("v5")),
	})
	for _, x := range []struct {
		at   time.Duration
		want string
		n    int
	}{{-3 * time.Hour, "", 0}, {-2 * time.Hour, "v1", 1}, {0, "v1", 1}, {time.Hour, "v2", 2}, {2 * time.Hour, "v5", 5}, {4 * time.Hour, "v5", 5}} {
		f := fact("KGM", "A", "1")
		f.OccurredAt = noon.Add(x.at)
		a, missing := r.Of(f, "erp", noon.Add(10*time.Hour))
		if missing != nil || a.Item != x.want || a.Generation != 7 {
			t.Errorf("at %s: %+v, %v, want %q", x.at, a, missing, x.want)
		}
		if n := r.InForce("items", f.OccurredAt); n != x.n {
			t.Errorf("at %s version %d is in force, want %d", x.at, n, x.n)
		}
	}
	if next := r.Next(noon); !next.Equal(noon.Add(time.Hour)) {
		t.Errorf("next %s", next)
	}
}

func TestWhatNoVersionKnowsStopsAndIsNeverGuessed(t *testing.T) {
	s, c := kgToG()
	r := NewRules(1, []Version{approved(s, 1, noon.Add(-time.Hour), c)})
	for _, f := range []object.Fact{fact("LBR", "x", "1"), fact("XBX", "4712", "1"), fact("kgm", "x", "1")} {
		a, missing := r.Of(f, "erp", noon)
		if missing == nil || missing.Set != "units" || missing.Version != 1 || missing.Value != f.Confirmation.Unit {
			t.Errorf("%s: %+v, %+v", f.Confirmation.Unit, a, missing)
		} else if !strings.Contains(missing.Reason(), f.Confirmation.Unit) || !strings.Contains(missing.NextStep(), "units") {
			t.Errorf("%s: %s: %s", f.Confirmation.Unit, missing.Reason(), missing.NextStep())
		}
	}
	for _, erp := range []string{"other"} { // another system has no set
		if a, missing := r.Of(fact("LBR", "x", "1"), erp, noon); missing != nil || a.Unit != "" {
			t.Errorf("%s: %+v, %+v", erp, a, missing)
		}
	}
}

func TestAValueThatWasAddedLaterIsTakenFromThere(t *testing.T) {
	s, c := kgToG()
	more := c
	more.Rows = append(slices.Clone(c.Rows), Row{From: "LBR", To: "GRM", Factor: "453.59237", Direction: Up})
	more.Rows[0] = Row{From: "KGM", To: "KGM"}
	r := NewRules(1, []Version{approved(s, 1, noon.Add(-time.Hour), c), approved(s, 2, noon.Add(time.Hour), more)})
	if _, missing := r.Of(fact("LBR", "x", "1"), "erp", noon.Add(30*time.Minute)); missing == nil {
		t.Error("a version that is not in force yet is used")
	}
	a, missing := r.Of(fact("LBR", "x", "2"), "erp", noon.Add(2*time.Hour))
	if missing != nil || a.Unit != "GRM" || a.Values[0].Version != 2 {
		t.Errorf("%+v, %+v", a, missing)
	}
	a, missing = r.Of(fact("KGM", "x", "2"), "erp", noon.Add(2*time.Hour))
	if missing != nil || a.Unit != "GRM" || a.Values[0].Version != 1 {
		t.Errorf("what its own time's version knows comes from there: %+v, %+v", a, missing)
	}
}

// A version that was taken back counts at no time, also not for what the versions before it lack.
func TestAVersionThatWasTakenBackIsNotSearched(t *testing.T) {
	s, c := kgToG()
	wrong := c
	wrong.Rows = append(slices.Clone(c.Rows), Row{From: "LBR", To: "GRM", Factor: "453.59237", Direction: Up})
	r := NewRules(1, []Version{approved(s, 1, noon.Add(-time.Hour), c), approved(s, 2, noon.Add(time.Hour), wrong), approved(s, 3, noon.Add(time.Hour), c)})
	if a, missing := r.Of(fact("LBR", "x", "2"), "erp", noon.Add(2*time.Hour)); missing == nil {
		t.Errorf("%+v", a)
	}
}

func TestTheNarrowerSetGoesFirst(t *testing.T) {
	row := func(to string) Content { return Content{Rows: []Row{{From: "A", To: to}}} }
	all := []Version{
		approved(Set{Name: "a-all", Kind: Item}, 1, noon, Content{Rows: []Row{{From: "A", To: "all"}, {From: "B", To: "all"}}}),
		approved(Set{Name: "b-plant", Kind: Item, Plant: "ulm"}, 1, noon, row("plant")),
		approved(Set{Name: "c-erp", Kind: Item, ERP: "erp"}, 1, noon, row("erp")),
		approved(Set{Name: "d-both", Kind: Item, ERP: "erp", Plant: "ulm"}, 1, noon, row("both")),
	}
	for i, want := range []string{"both", "erp", "plant", "all"} {
		r := NewRules(1, all[:len(all)-i])
		if a, missing := r.Of(fact("KGM", "A", "1"), "erp", noon); missing != nil || a.Item != want {
			t.Errorf("%+v %v, want %s", a, missing, want)
		}
		if a, missing := r.Of(fact("KGM", "B", "1"), "erp", noon); missing != nil || a.Item != "all" {
			t.Errorf("the wider set is not asked: %+v %v", a, missing)
		}
	}
}

func TestUnlistedItemsStayWhereTheSetSaysSo(t *testing.T) {
	s := Set{Name: "items", Kind: Item}
	c := Content{Unlisted: Keep, Rows: []Row{{From: "A", To: "B"}}, Tests: []Test{{From: "A", To: "B"}}}
	if faults := Check(s, c); len(faults) > 0 {
		t.Fatal(faults)
	}
	if a, missing := NewRules(1, []Version{approved(s, 1, noon, c)}).Of(fact("KGM", "Z", "1"), "erp", noon); missing != nil || a.Item != "" {
		t.Error(a, missing)
	}
}

func TestAFactIsSaidInTheSystemsWordsAndStaysAsItIs(t *testing.T) {
	s, c := kgToG()
	r := NewRules(1, []Version{approved(s, 1, noon, c), approved(Set{Name: "items", Kind: Item}, 1, noon, Content{Rows: []Row{{From: "steel", To: "M-1"}}}),
		approved(Set{Name: "reasons", Kind: Reason}, 3, noon, Content{Rows: []Row{{From: "bent", To: "0042"}}})})
	f := fact("KGM", "steel", "1.5")
	f.Confirmation.ScrapReason = "bent"
	a, missing := r.Of(f, "erp", noon)
	if missing != nil {
		t.Fatal(missing.Reason())
	}
	a.Amounts = []Amount{{Kind: object.Yield, Counted: f.Confirmation.Yield, Posted: decimal.NewFromInt(1500)}}
	g := a.Apply(f).Confirmation
	if g.Unit != "GRM" || g.Item != "M-1" || g.ScrapReason != "0042" || g.Yield.String() != "1500" {
		t.Errorf("%+v", g)
	}
	if f.Confirmation.Unit != "KGM" || f.Confirmation.Item != "steel" || f.Confirmation.Yield.String() != "1.5" {
		t.Errorf("the fact was changed: %+v", f.Confirmation)
	}
	if len(a.Values) != 3 || a.Ratio().RatString() != "1000" {
		t.Errorf("%+v", a)
	}
}

func TestAWorkOrderGoesDownInThePlantsWords(t *testing.T) {
	s, c := kgToG()
	r := NewRules(1, []Version{approved(s, 1, noon, c), approved(Set{Name: "items", Kind: Item}, 1, noon, Content{Rows: []Row{{From: "steel", To: "M-1"}, {From: "part", To: "M-2"}}}),
		approved(Set{Name: "sites", Kind: Site}, 1, noon, Content{Rows: []Row{{From: "ulm", To: "1010"}}})})
	q := func(v, u string) object.Quantity {
		return object.Quantity{Value: decimal.RequireFromString(v), Unit: u}
	}
	w := object.WorkOrder{OrderNo: "WO-1", ERP: "erp", Plant: "ulm", Item: "M-2", Quantity: q("10", "C62"), Operations: []object.Operation{{Operation: "10", Quantity: q("10", "C62")}},
		Components: []object.Component{{Item: "M-1", Required: q("250", "GRM")}}}
	got, values, missing := r.Order(w, noon)
	if missing != nil || got.Item != "part" || got.Components[0].Item != "steel" || got.Components[0].Required.Value.String() != "0.25" || got.Components[0].Required.Unit != "KGM" {
		t.Errorf("%+v, %v, %v", got, values, missing)
	}
	if w.Components[0].Item != "M-1" || w.Item != "M-2" {
		t.Errorf("the system's order was changed: %+v", w)
	}
	w.Components[0].Required.Unit = "XXX"
	if got, _, missing := r.Order(w, noon); missing == nil || missing.Value != "XXX" || got.Item != "M-2" {
		t.Errorf("%+v, %v", got, missing)
	}
	if site, missing := r.Place("erp", "1010", noon); site != "ulm" || missing != nil {
		t.Error(site, missing)
	}
	if _, missing := r.Place("erp", "9999", noon); missing == nil {
		t.Error("an unknown site went through")
	}
	if site, v, missing := r.SiteOf("erp", "ulm", noon, noon); site != "1010" || v.Version != 1 || missing != nil {
		t.Error(site, v, missing)
	}
	if site, missing := NewRules(1, nil).Place("erp", "9999", noon); site != "9999" || missing != nil {
		t.Error(site, missing)
	}
}

// What was counted in kilograms and posted as kilograms would become grams: that must not be approved unseen.
func TestDryRunCatchesKilogramsThatBecomeGrams(t *testing.T) {
	s, c := kgToG()
	order := object.WorkOrder{OrderNo: "WO-1", ERP: "erp", Item: "steel", Quantity: object.Quantity{Value: decimal.NewFromInt(500), Unit: "KGM"}}
	trial := NewTrial(NewRules(0, nil), Version{Set: s, Number: 1, Content: c}, noon, noon.Add(-time.Hour))
	for i := range 30 {
		trial.Add(Sample{Fact: fact("KGM", "steel", fmt.Sprint(10+i)), ERP: "erp", Sent: true, Order: order})
	}
	trial.Add(Sample{Fact: fact("LBR", "steel", "1"), ERP: "erp", Order: order})
	trial.Add(Sample{Fact: fact("KGM", "steel", "77"), ERP: "elsewhere"}) // is not its business
	d := trial.Result()
	if d.Facts != 31 || d.Changed != 31 || d.Stops != 1 || len(d.Examples) != examplesShown || len(d.Stopped) != 1 {
		t.Errorf("%+v", d)
	}
	var got []string
	for _, w := range d.Warnings {
		got = append(got, w.Name)
		if w.Text == "" || w.Example == "" {
			t.Errorf("%+v", w)
		}
	}
	if want := []string{"order_unit:GRM:KGM", "ordered:GRM", "ratio:KGM:GRM:1000"}; !slices.Equal(got, want) {
		t.Errorf("warnings %v, want %v", got, want)
	}
	if left := d.Unacknowledged([]string{"ratio:KGM:GRM:1000", "ordered:GRM"}); !slices.Equal(left, []string{"order_unit:GRM:KGM"}) {
		t.Errorf("left %v", left)
	}
	if len(d.Sums) != 2 || d.Sums[0].Before.String() != "735" || d.Sums[0].After.String() != "735000" || d.Sums[1].UnitAfter != "" {
		t.Errorf("sums %+v", d.Sums)
	}
}

func TestDryRunNamesOrdersThatWouldStop(t *testing.T) {
	s, c := kgToG()
	trial := NewTrial(NewRules(0, nil), Version{Set: s, Number: 1, Content: c}, noon, noon)
	order := func(no, erp, unit string) object.WorkOrder {
		return object.WorkOrder{OrderNo: no, ERP: erp, Item: "M-1", Quantity: object.Quantity{Value: decimal.NewFromInt(5), Unit: unit}}
	}
	for _, w := range []object.WorkOrder{order("same", "erp", "C62"), order("other", "erp", "GRM"), order("stops", "erp", "KGM"), order("elsewhere", "else", "KGM")} {
		trial.AddOrder(w)
	}
	d := trial.Result()
	if d.Orders != 3 || d.OrdersChanged != 2 || d.OrdersStop != 1 || len(d.OrderExamples) != 2 || d.OrderExamples[0].OrderNo != "stops" || !strings.Contains(d.OrderExamples[0].After, `"KGM"`) ||
		d.OrderExamples[1].After != "0.005 KGM of M-1" {
		t.Errorf("%+v", d)
	}
}

func TestDryRunCatchesPackSizesDimensionsAndTheWayBack(t *testing.T) {
	for _, x := range []struct {
		row, before Row
		unit, want  string
	}{
		{Row{From: "XBX", To: "C62", Factor: "24"}, Row{From: "XBX", To: "XBX"}, "XBX", "ratio:XBX:C62:24"},
		{Row{From: "KGM", To: "KGM"}, Row{From: "KGM", To: "GRM", Factor: "1000"}, "KGM", "ratio:GRM:KGM:1/1000"},
		{Row{From: "C62", To: "KGM", Item: "steel", Factor: "1"}, Row{From: "C62", To: "C62"}, "C62", "dimension:C62:KGM"},
		{Row{From: "XBX", To: "C62", Factor: "12"}, Row{From: "XBX", To: "C62", Factor: "1"}, "XBX", "ratio:C62:C62:12"},
	} {
		s := Set{Name: "units", Kind: Unit}
		rules := NewRules(1, []Version{approved(s, 1, noon.Add(-time.Hour), Content{Rows: []Row{x.before}})})
		trial := NewTrial(rules, Version{Set: s, Number: 2, Content: Content{Rows: []Row{x.row}}}, noon, noon)
		trial.Add(Sample{Fact: fact(x.unit, "steel", "3"), ERP: "erp"})
		if d := trial.Result(); len(d.Warnings) != 1 || d.Warnings[0].Name != x.want || d.Against != 1 {
			t.Errorf("%s: %+v, want %s", x.row, d.Warnings, x.want)
		}
	}
}

func TestDryRunOfAHarmlessVersionWarnsOfNothing(t *testing.T) {
	s := Set{Name: "units", Kind: Unit}
	rules := NewRules(1, []Version{approved(s, 1, noon.Add(-time.Hour), Content{Rows: []Row{{From: "KGM", To: "GRM", Factor: "1000"}}})})
	trial := NewTrial(rules, Version{Set: s, Number: 2, Content: Content{Rows: []Row{{From: "KGM", To: "GRM", Factor: "1000"}, {From: "C62", To: "C62"}}}}, noon, noon)
	a, _ := rules.Of(fact("KGM", "x", "1"), "erp", noon)
	trial.Add(Sample{Fact: fact("KGM", "x", "1"), ERP: "erp", Sent: true, Applied: a})
	trial.Add(Sample{Fact: fact("C62", "x", "1"), ERP: "erp"})
	if d := trial.Result(); len(d.Warnings) != 0 || d.Goes != 1 || d.Stops != 0 || d.Changed != 1 {
		t.Errorf("%+v", d)
	}
}

func TestASetGoesThroughCSVAndYAMLUnchanged(t *testing.T) {
	s, c := kgToG()
	c.Scale, c.Rows[0].Scale, c.Rows[0].FromScale, c.Rows[0].Text = scale(3), scale(0), 3, "with, a \"comma\"\nand a line"
	want := File{s, c}
	csv, err := want.CSV()
	if err != nil {
		t.Fatal(err)
	}
	yaml, err := want.YAML()
	if err != nil {
		t.Fatal(err)
	}
	for name, read := range map[string]func() (File, error){
		"csv": func() (File, error) { return ReadCSV(csv) }, "yaml": func() (File, error) { return ReadYAML(yaml) },
		"csv with a byte order mark": func() (File, error) { return ReadCSV(append([]byte("\xef\xbb\xbf"), csv...)) },
	} {
		got, err := read()
		if err != nil || cmp.Diff(got, want) != "" {
			t.Errorf("%s: %v\n%s\n%s", name, err, cmp.Diff(got, want), csv)
		}
	}
	for _, bad := range []string{"", "from,to\nA,B\n", "line,from,to\nrow,A,B\n", "line,name,kind,from,to,scale\nset,a,item,,,\nrow,,,A,B,x\n", "line,name,kind,from,to\nset,a,item,,\nwhat,,,A,B\n"} {
		if f, err := ReadCSV([]byte(bad)); err == nil {
			t.Errorf("%q was read as %+v", bad, f)
		}
	}
	if _, err := ReadYAML([]byte("name: a\nkind: item\ncolour: red\n")); err == nil {
		t.Error("an unknown key was read")
	}
}

func TestDiffNamesTheRowsThatChanged(t *testing.T) {
	a := Content{Rows: []Row{{From: "A", To: "B"}, {From: "C", To: "D"}, {From: "E", To: "F"}}}
	b := Content{Rows: []Row{{From: "E", To: "F"}, {From: "A", To: "X"}, {From: "G", To: "H"}}}
	want := []Change{{"A → B", "A → X"}, {"C → D", ""}, {"", "G → H"}}
	if got := Diff(a, b); !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
}

func TestStateAt(t *testing.T) {
	s := Set{Name: "s"}
	all := []Version{approved(s, 1, noon, Content{}), approved(s, 2, noon.Add(time.Hour), Content{}), approved(s, 3, noon.Add(3*time.Hour), Content{}), {Set: s, Number: 4, State: Proposed}}
	for i, want := range []State{Superseded, Effective, Scheduled, Proposed} {
		if got := StateAt(all[i], all, noon.Add(2*time.Hour)); got != want {
			t.Errorf("version %d is %s, want %s", i+1, got, want)
		}
	}
}

func FuzzReadCSV(f *testing.F) {
	s, c := kgToG()
	csv, _ := File{s, c}.CSV()
	f.Add(csv)
	f.Fuzz(func(t *testing.T, raw []byte) {
		file, err := ReadCSV(raw)
		if err != nil {
			return
		}
		again, err := file.CSV()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := ReadCSV(again); err != nil || len(back.Rows) != len(file.Rows) {
			t.Fatalf("%v: %q", err, again)
		}
		Check(file.Set, file.Content)
	})
}

func movements(rows ...Row) *Rules {
	return NewRules(3, []Version{approved(Set{Name: "movements", Kind: Movement, ERP: "erp"}, 2, noon.Add(-time.Hour), Content{Rows: rows})})
}

// A posting gets the types of all movements, because only the connector knows which of them it makes. What is not listed stops.
func TestMovementsAreSaidByTheSetOrStop(t *testing.T) {
	rows := []Row{{From: "ISSUE_TO_ORDER", To: "Z61"}, {From: "RECEIPT_FROM_ORDER", To: "Z01"}}
	f := fact("KGM", "A", "1")
	a, missing := movements(rows...).Of(f, "erp", noon)
	if missing != nil || len(a.Values) != 1 || a.Values[0].From != "RECEIPT_FROM_ORDER" || a.Values[0].Version != 2 {
		t.Fatalf("%+v, %v", a, missing)
	}
	for kind, want := range map[object.MovementKind]string{object.IssueToOrder: "Z61", object.ReceiptFromOrder: "Z01"} {
		if got, ok := a.Movements.Of(kind, "own"); !ok || got != want || a.Movements.Kind(got) != kind {
			t.Errorf("%s is %q, %t", kind, got, ok)
		}
	}
	if got, ok := a.Movements.Of(object.ByProduct, "531"); ok || a.Movements.Set != "movements" || a.Movements.Version != 2 {
		t.Errorf("a by-product is %q by %+v: want it to stop", got, a.Movements)
	}
	if b, _ := movements(rows...).Of(f, "other", noon); b.Movements != nil || !b.Same(&Applied{}) || b.Same(a) {
		t.Errorf("another system: %+v", b.Movements)
	}
	if got, ok := (*object.MovementTypes)(nil).Of(object.ByProduct, "531"); !ok || got != "531" {
		t.Errorf("without a set: %q, %t", got, ok)
	}
	kept := NewRules(1, []Version{approved(Set{Name: "m", Kind: Movement}, 1, noon.Add(-time.Hour), Content{Unlisted: Keep, Rows: rows})})
	a, _ = kept.Of(f, "erp", noon)
	if got, ok := a.Movements.Of(object.ByProduct, "531"); !ok || got != "531" {
		t.Errorf("unlisted: keep gives %q, %t", got, ok)
	}
}

// What was posted keeps its type; only what was not known then is added for the reversal.
func TestTypesOfMovementsAreAddedAndNeverChanged(t *testing.T) {
	f := fact("KGM", "A", "1")
	a, _ := movements(Row{From: "ISSUE_TO_ORDER", To: "Z61"}).Of(f, "erp", noon)
	now := movements(Row{From: "ISSUE_TO_ORDER", To: "Y61"}, Row{From: "RETURN_FROM_ORDER", To: "Y62"})
	b := a.WithMovements(now, f, "erp", noon)
	if b.Movements.Types[object.IssueToOrder] != "Z61" || b.Movements.Types[object.ReturnFromOrder] != "Y62" {
		t.Errorf("%+v", b.Movements)
	}
	if len(a.Movements.Types) != 1 {
		t.Errorf("the original's were changed: %+v", a.Movements)
	}
	if none := (*Applied)(nil).WithMovements(now, f, "erp", noon); none != nil {
		t.Errorf("what was posted in the connector's own types gets %+v", none)
	}
}

// A component of the system's own type is looked at on its way down: a by-product is nothing that the plant takes, and an unknown type
// stops the order.
func TestComponentsOfOwnMovementTypesGoDownByTheMapping(t *testing.T) {
	w := object.WorkOrder{OrderNo: "1", ERP: "erp", Plant: "ulm", Components: []object.Component{{Item: "STEEL"}, {Item: "CHIPS", MovementType: "Z31"}, {Item: "OIL", MovementType: "Z61"}}}
	r := movements(Row{From: "BY_PRODUCT", To: "Z31"}, Row{From: "ISSUE_TO_ORDER", To: "Z61"})
	out, _, missing := r.Order(w, noon)
	if missing != nil || len(out.Components) != 2 || out.Components[0].Item != "STEEL" || out.Components[1].Item != "OIL" {
		t.Errorf("%+v, %v", out.Components, missing)
	}
	w.Components[2].MovementType = "999"
	if _, _, missing = r.Order(w, noon); missing == nil || missing.Kind != Movement || missing.Value != "999" {
		t.Errorf("%+v", missing)
	}
}

func TestDryRunOfMovementsSaysWhatWouldStop(t *testing.T) {
	draft := Version{Set: Set{Name: "movements", Kind: Movement, ERP: "erp"}, Number: 3, State: Proposed, Content: Content{Rows: []Row{{From: "RETURN_FROM_ORDER", To: "Z62"}}}}
	trial := NewTrial(movements(Row{From: "RECEIPT_FROM_ORDER", To: "Z01"}), draft, noon, noon)
	trial.Add(Sample{Fact: fact("KGM", "A", "1"), ERP: "erp"})
	if d := trial.Result(); d.Facts != 1 || d.Stops != 1 || d.Changed != 1 || !strings.Contains(d.Examples[0].Before, "movement Z01") || !strings.Contains(d.Stopped[0].After, "RECEIPT_FROM_ORDER") {
		t.Errorf("%+v", d)
	}
}

// A list is asked for by its name: its version counts as any other's, and what it does not know is missing.
func TestACodeIsLookedUpInAListByItsName(t *testing.T) {
	partners := Set{Name: "partners", Kind: List, ERP: "erp"}
	r := NewRules(1, []Version{
		approved(partners, 1, noon.Add(-2*time.Hour), Content{Rows: []Row{{From: "ACME", To: "100"}, {From: "DOWN", To: "9", Direction: Down}}}),
		approved(partners, 2, noon.Add(time.Hour), Content{Rows: []Row{{From: "ACME", To: "200"}, {From: "NEW", To: "300"}}}),
		approved(Set{Name: "kept", Kind: List}, 1, noon.Add(-time.Hour), Content{Unlisted: Keep, Rows: []Row{{From: "A", To: "B"}}}),
		approved(Set{Name: "items", Kind: Item}, 1, noon.Add(-time.Hour), Content{Rows: []Row{{From: "ACME", To: "no list"}}}),
	})
	for _, x := range []struct {
		list, word, erp string
		way             Direction
		at, now         time.Duration
		want            string
		ok, missing     bool
	}{
		{"partners", "ACME", "erp", Up, 0, 0, "100", true, false},
		{"partners", "ACME", "erp", Up, time.Hour, time.Hour, "200", true, false},
		{"partners", "NEW", "erp", Up, 0, 2 * time.Hour, "300", true, false}, // was added for it
		{"partners", "NEW", "erp", Up, 0, 0, "", true, true},
		{"partners", "9", "erp", Down, 0, 0, "DOWN", true, false},
		{"partners", "DOWN", "erp", Up, 0, 0, "", true, true},
		{"partners", "ACME", "other", Up, 0, 0, "", false, false},
		{"partners", "ACME", "erp", Up, -3 * time.Hour, 0, "", false, false},
		{"kept", "C", "erp", Up, 0, 0, "C", true, false},
		{"items", "ACME", "erp", Up, 0, 0, "", false, false},
		{"nothing", "ACME", "erp", Up, 0, 0, "", false, false},
	} {
		got, ok, missing := r.Code(x.list, x.word, x.erp, "ulm", x.way, noon.Add(x.at), noon.Add(x.now))
		if got != x.want || ok != x.ok || (missing != nil) != x.missing {
			t.Errorf("%+v gives %q, %t, %v", x, got, ok, missing)
		}
		if missing != nil && (missing.Set != x.list || missing.Value != x.word || missing.Kind != List) {
			t.Errorf("%+v: %+v", x, missing)
		}
	}
}
