package api

import (
	"time"

	"github.com/linekeeper/linekeeper/hub/tally"
)

// Tally is the quantity ledger: what was counted at the sources, stored by the agents, received by the hub and posted to
// the ERP. Sums over different units only tell whether the columns agree.
type Tally struct {
	At       time.Time `json:"at"`
	Balanced bool      `json:"balanced" doc:"Counted = stored = received = posted + not posted everywhere, and nothing is unexplained"`
	// Sum adds all lines whatever their unit; Totals are per kind and unit; Orders are the lines per plant and order.
	Sum         TallyCounts       `json:"sum"`
	Totals      []TallyLine       `json:"totals" nullable:"false"`
	Orders      []OrderTally      `json:"orders" nullable:"false"`
	Differences []TallyDifference `json:"differences" nullable:"false"`
}

// TallyCounts are the columns of the ledger.
type TallyCounts struct {
	Counted   string `json:"counted"`
	Stored    string `json:"stored"`
	Received  string `json:"received"`
	Posted    string `json:"posted"`
	NotPosted string `json:"not_posted" doc:"Received, and needs no effect by policy or by a person's decision"`
	Missing   string `json:"missing"`
	Doubled   string `json:"doubled"`
}

// OrderTally is one work order of one plant; order_no is empty for what was counted while no order ran.
type OrderTally struct {
	Plant    string      `json:"plant"`
	OrderNo  string      `json:"order_no"`
	Balanced bool        `json:"balanced"`
	Lines    []TallyLine `json:"lines" nullable:"false"`
}

// TallyLine is one line of the ledger.
type TallyLine struct {
	Operation string `json:"operation,omitempty"`
	Item      string `json:"item,omitempty"`
	Kind      string `json:"kind" enum:"yield,scrap,rework,consumed,returned"`
	Unit      string `json:"unit"`
	TallyCounts
}

// TallyDifference names a quantity that is not in every column, why, and the records.
type TallyDifference struct {
	Plant    string   `json:"plant"`
	OrderNo  string   `json:"order_no"`
	Item     string   `json:"item"`
	Kind     string   `json:"kind"`
	Unit     string   `json:"unit"`
	Quantity string   `json:"quantity"`
	Reason   string   `json:"reason" enum:"open,buffered,ahead,waiting,in_doubt,parked,not_posted,carried,missing,doubled"`
	Text     string   `json:"text" doc:"One sentence for a person"`
	Facts    []string `json:"facts,omitempty" doc:"Keys of the records concerned, at most 50"`
}

func tallyView(now time.Time, r tally.Report) Tally {
	v := Tally{At: now, Balanced: r.Totals.Settled(), Sum: tallyCounts(r.Totals), Totals: []TallyLine{}, Orders: []OrderTally{}, Differences: []TallyDifference{}}
	type group struct{ kind, unit string }
	sums := map[group]*tally.Counts{}
	var order []group
	for _, o := range r.Orders {
		x := OrderTally{Plant: o.Plant, OrderNo: o.OrderNo, Balanced: true, Lines: []TallyLine{}}
		for _, l := range o.Lines {
			x.Lines = append(x.Lines, TallyLine{l.Operation, l.Item, string(l.Kind), l.Unit, tallyCounts(l.Counts)})
			x.Balanced = x.Balanced && l.Settled()
			g := group{string(l.Kind), l.Unit}
			if sums[g] == nil {
				sums[g] = &tally.Counts{}
				order = append(order, g)
			}
			addCounts(sums[g], l.Counts)
		}
		v.Orders = append(v.Orders, x)
		for _, d := range o.Differences {
			v.Differences = append(v.Differences, TallyDifference{
				Plant: d.Plant, OrderNo: d.OrderNo, Item: d.Item, Kind: string(d.Kind), Unit: d.Unit, Quantity: d.Quantity.String(),
				Reason: string(d.Reason), Text: d.Text, Facts: d.Facts[:min(len(d.Facts), 50)],
			})
		}
	}
	for _, g := range order {
		v.Totals = append(v.Totals, TallyLine{Kind: g.kind, Unit: g.unit, TallyCounts: tallyCounts(*sums[g])})
	}
	return v
}

func tallyCounts(c tally.Counts) TallyCounts {
	return TallyCounts{c.Counted.String(), c.Stored.String(), c.Received.String(), c.Posted.String(), c.NotPosted.String(), c.Missing.String(), c.Doubled.String()}
}

func addCounts(sum *tally.Counts, c tally.Counts) {
	sum.Counted, sum.Stored, sum.Received = sum.Counted.Add(c.Counted), sum.Stored.Add(c.Stored), sum.Received.Add(c.Received)
	sum.Posted, sum.NotPosted = sum.Posted.Add(c.Posted), sum.NotPosted.Add(c.NotPosted)
	sum.Missing, sum.Doubled = sum.Missing.Add(c.Missing), sum.Doubled.Add(c.Doubled)
}
