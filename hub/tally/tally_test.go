package tally_test

import (
	"fmt"
	"math/rand"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/tally"
	"github.com/shopspring/decimal"
	"pgregory.net/rapid"
)

var d = decimal.RequireFromString

func key(order string) object.LedgerKey {
	return object.LedgerKey{Plant: "ulm", OrderNo: order, Operation: "0010", Item: "P", Kind: object.Yield, Unit: "C62"}
}

func edge(order, counted, stored string, pending uint64) object.EdgeLine {
	return object.EdgeLine{
		LedgerKey: key(order), Agent: "edge1", Source: "press1", Counted: d(counted), Stored: d(stored), Pending: pending, AsOf: time.Unix(0, 0),
	}
}

func fact(order, name, received, state, posted string) object.FactLine {
	return object.FactLine{LedgerKey: key(order), FactKey: name, Received: d(received), State: state, Posted: d(posted)}
}

func find(t *testing.T, r tally.Report, reason tally.Reason) tally.Difference {
	t.Helper()
	for _, o := range r.Orders {
		for _, x := range o.Differences {
			if x.Reason == reason {
				return x
			}
		}
	}
	t.Fatalf("no difference %q in %+v", reason, r)
	return tally.Difference{}
}

func TestColumnsThatAgreeHaveNoDifference(t *testing.T) {
	r := tally.Of([]object.EdgeLine{edge("1", "12", "12", 0)}, []object.FactLine{fact("1", "A", "5", "verified", "5"), fact("1", "B", "7.0", "posted", "7")})
	if got := r.Totals.String(); got != "tally: counted=12 stored=12 received=12 posted=12 missing=0 doubled=0" {
		t.Fatal(got)
	}
	if !r.Totals.Settled() || len(r.Orders) != 1 || len(r.Orders[0].Differences) != 0 {
		t.Fatalf("%+v", r)
	}
}

func TestEachDifferenceNamesItsRecordsAndItsReason(t *testing.T) {
	parked := fact("1", "P", "3", "parked", "0")
	parked.Code, parked.Reason = "period_closed", "period 11 is closed"
	policy := fact("1", "N", "2", "not_posted", "0")
	policy.Settled, policy.Code = d("2"), "policy"
	r := tally.Of([]object.EdgeLine{edge("1", "30", "28", 4)}, []object.FactLine{
		fact("1", "A", "5", "verified", "5"), parked, policy, fact("1", "W", "1", "due", "0"), fact("1", "U", "1", "", "0"),
		fact("1", "D", "4", "in_doubt", "0"), fact("1", "R", "1.25", "posted", "1.2"),
	})
	for reason, want := range map[tally.Reason]string{
		tally.Open: "2", tally.Buffered: "10.75", tally.Parked: "3", tally.NotPosted: "2", tally.InDoubt: "4", tally.Carried: "0.05",
	} {
		if got := find(t, r, reason).Quantity.String(); got != want {
			t.Errorf("%s is %s, want %s", reason, got, want)
		}
	}
	p := find(t, r, tally.Parked)
	if fmt.Sprint(p.Facts) != "[P]" || !strings.Contains(p.Text, "period_closed") || !strings.Contains(p.Text, "period 11 is closed") {
		t.Errorf("parked: %+v", p)
	}
	if !r.Totals.Missing.IsZero() || !r.Totals.Doubled.IsZero() {
		t.Errorf("explained differences were called %s", r.Totals)
	}
}

func TestWhatNothingExplainsIsMissingOrDoubled(t *testing.T) {
	gone := tally.Of([]object.EdgeLine{edge("1", "10", "10", 0)}, []object.FactLine{fact("1", "A", "6", "verified", "6")})
	if gone.Totals.Missing.String() != "4" {
		t.Errorf("missing: %s", gone.Totals)
	}
	over := tally.Of([]object.EdgeLine{edge("1", "6", "6", 0)}, []object.FactLine{fact("1", "A", "6", "verified", "12")})
	if over.Totals.Doubled.String() != "6" {
		t.Errorf("posted too much: %s", over.Totals)
	}
	twice := tally.Of([]object.EdgeLine{edge("1", "6", "6", 0)}, []object.FactLine{fact("1", "A", "6", "verified", "6"), fact("1", "A", "6", "verified", "6")})
	if twice.Totals.Doubled.String() != "6" || find(t, twice, tally.Doubled).Facts[0] != "A" {
		t.Errorf("posted twice: %s", twice.Totals)
	}
}

// TestEveryQuantityHasExactlyOnePlace draws ledgers and checks that each column equals the next one and the differences
// between them, and that the order of the rows does not matter.
func TestEveryQuantityHasExactlyOnePlace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		states := []string{"", "due", "sending", "in_doubt", "posted", "verified", "parked", "not_posted", "settled"}
		number := func(name string) decimal.Decimal { return decimal.New(rapid.Int64Range(0, 100_000).Draw(t, name), -3) }
		var edges []object.EdgeLine
		var facts []object.FactLine
		for i := range rapid.IntRange(0, 6).Draw(t, "edges") {
			stored := number("stored")
			e := edge(fmt.Sprint(i%2), "0", "0", uint64(rapid.IntRange(0, 2).Draw(t, "pending")))
			e.Source, e.Stored, e.Counted = fmt.Sprint(i), stored, stored.Add(number("open"))
			edges = append(edges, e)
		}
		for i := range rapid.IntRange(0, 20).Draw(t, "facts") {
			f := fact(fmt.Sprint(i%2), fmt.Sprintf("F%d", i), "0", rapid.SampledFrom(states).Draw(t, "state"), "0")
			f.Received = number("received")
			switch f.State {
			case "posted", "verified":
				f.Posted = f.Received.RoundBank(int32(rapid.IntRange(0, 3).Draw(t, "scale")))
			case "not_posted", "settled":
				f.Settled = f.Received
			}
			facts = append(facts, f)
		}
		r := tally.Of(edges, facts)
		sum := map[tally.Reason]decimal.Decimal{}
		for _, o := range r.Orders {
			for _, x := range o.Differences {
				sum[x.Reason] = sum[x.Reason].Add(x.Quantity)
			}
		}
		c := r.Totals
		if want := c.Stored.Add(sum[tally.Open]); !c.Counted.Equal(want) {
			t.Fatalf("counted %s, stored and open %s", c.Counted, want)
		}
		late := c.Missing
		for _, o := range r.Orders { // what is missing between received and posted belongs to the other side
			for _, x := range o.Differences {
				if x.Reason == tally.Missing && x.Text == "less was posted than received" {
					late = late.Sub(x.Quantity)
				}
			}
		}
		if want := c.Received.Add(sum[tally.Buffered]).Add(sum[tally.Ahead]).Add(late); !c.Stored.Equal(want) {
			t.Fatalf("stored %s, received and on the way %s", c.Stored, want)
		}
		there := c.Posted.Add(c.NotPosted).Add(sum[tally.Waiting]).Add(sum[tally.InDoubt]).Add(sum[tally.Parked]).Add(sum[tally.Carried]).
			Add(c.Missing.Sub(late)).Sub(c.Doubled)
		if !c.Received.Equal(there) {
			t.Fatalf("received %s, all its places %s", c.Received, there)
		}
		rand.Shuffle(len(facts), func(i, j int) { facts[i], facts[j] = facts[j], facts[i] })
		rand.Shuffle(len(edges), func(i, j int) { edges[i], edges[j] = edges[j], edges[i] })
		same := cmp.Comparer(func(a, b decimal.Decimal) bool { return a.Equal(b) })
		if diff := cmp.Diff(r, tally.Of(edges, facts), same); diff != "" {
			t.Fatalf("the order of the rows matters:\n%s", diff)
		}
	})
}
