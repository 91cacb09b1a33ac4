package sim

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/linekeeper/linekeeper/hub/api"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

func (t totals) String() string {
	return fmt.Sprintf("facts=%d crashes=%d cuts=%d stalls=%d restores=%d clones=%d moves=%d reinstalls=%d jumps=%d gone=%d conflicts=%d lost_replies=%d cannot_tell=%d missing=%d doubled=%d",
		t.Facts, t.Crashes, t.Cuts, t.Stalls, t.Restores, t.Clones, t.Moves, t.Reinstalls, t.Jumps, t.Gone, t.Conflicts, t.LostReplies, t.CannotTell, t.Missing, t.Doubled)
}

// compare is the reckoning: what the machines made, what the agents, the hub and the ERP hold.
func (w *world) compare() {
	var tally api.Tally
	if err := w.hub.ask("GET", "/v1/tally", "", &tally); err != nil {
		w.failf("%v", err)
		return
	}
	hub := map[line]api.TallyCounts{}
	for _, o := range tally.Orders {
		for _, l := range o.Lines {
			hub[line{o.OrderNo, l.Item, l.Kind, l.Unit}] = l.TallyCounts
		}
	}
	books, count := w.erp.books()
	w.totals.Facts += count
	seen := map[line]bool{}
	for _, a := range w.agents {
		a.forgo()
		a.alarmed()
		for l, made := range a.station.truth {
			seen[l] = true
			w.compareLine(a, l, made, hub[l], books[l])
		}
	}
	for l := range books {
		if !seen[l] {
			w.failf("the ERP has %s of %s, which nobody made", books[l], l)
		}
	}
	for l, c := range hub {
		if !seen[l] {
			w.failf("the hub has %+v of %s, which nobody made", c, l)
		}
	}
	for _, d := range tally.Differences {
		if d.Reason == "ahead" && w.wentBack(d.OrderNo) {
			continue // a ledger that went back knows less than the hub
		}
		w.failf("the tally is not clean: %s %s %s: %s %s: %s", d.OrderNo, d.Item, d.Kind, d.Quantity, d.Reason, d.Text)
	}
	w.compareFacts()
	w.asides()
	w.erp.mu.Lock()
	defer w.erp.mu.Unlock()
	for _, what := range w.erp.wrong {
		w.failf("%s", what)
	}
	w.totals.LostReplies, w.totals.Cuts = w.erp.lost, int(w.net.cuts.Load())
}

// wentBack tells of an order whether its agent's ledger went back.
func (w *world) wentBack(order string) bool {
	for _, a := range w.agents {
		if slices.Contains(a.station.orders(), order) {
			return a.wentBack
		}
	}
	return false
}

func (w *world) compareLine(a *agentMachine, l line, made decimal.Decimal, c api.TallyCounts, booked decimal.Decimal) {
	for _, col := range []struct{ name, value string }{
		{"agent counted", c.Counted}, {"agent stored", c.Stored}, {"hub received", c.Received}, {"hub posted", c.Posted}, {"ERP booked", booked.String()},
	} {
		v, err := decimal.NewFromString(col.value)
		if a.wentBack && strings.HasPrefix(col.name, "agent") && v.LessThanOrEqual(made) {
			continue
		}
		if err != nil || !v.Equal(made) {
			w.failf("%s: the machines made %s, %s is %q", l, made, col.name, col.value)
		}
	}
	if d := booked.Sub(made); d.IsPositive() {
		w.totals.Doubled += int(d.IntPart())
	} else {
		w.totals.Missing += int(-d.IntPart())
	}
}

// compareFacts compares each document with the fact that it is of, as the hub holds it now: nothing may have changed since.
func (w *world) compareFacts() {
	w.erp.mu.Lock()
	docs := slices.Clone(w.erp.docs)
	w.erp.mu.Unlock()
	held := map[string]api.Fact{}
	for before := int64(0); ; {
		var page struct {
			Items []api.Fact `json:"items"`
			Next  int64      `json:"next"`
		}
		if err := w.hub.ask("GET", fmt.Sprintf("/v1/facts?limit=500&before=%d", before), "", &page); err != nil {
			w.failf("list facts: %v", err)
			return
		}
		for _, f := range page.Items {
			held[f.Key] = f
		}
		if before = page.Next; before == 0 {
			break
		}
	}
	for _, d := range docs {
		f, ok := held[d.key]
		if !ok {
			w.failf("the ERP has document %s of fact %s, which the hub does not hold", d.number, d.key)
			continue
		}
		if len(d.lines) != 1 || f.Trimmed != "" {
			continue
		}
		if got := quantityOf(f.Content, d.lines[0].Kind); got != d.lines[0].Received.String() {
			w.failf("fact %s says %s now, %s was posted", d.key, got, d.lines[0].Received)
		}
	}
}

// quantityOf reads a quantity out of a fact as the API shows it.
func quantityOf(content map[string]any, kind object.QuantityKind) string {
	if q, ok := content["quantity"].(map[string]any); ok {
		return fmt.Sprint(q["value"])
	}
	return fmt.Sprint(content[string(kind)])
}

// asides fails on records that were kept aside, unless a source gave reason for it.
func (w *world) asides() {
	for _, kind := range []string{"conflict", "unreadable"} {
		var l list[api.Aside]
		if err := w.hub.ask("GET", "/v1/asides?kind="+kind, "", &l); err != nil {
			w.failf("%v", err)
		}
		for _, x := range l.Items {
			edited := slices.ContainsFunc(w.agents, func(a *agentMachine) bool { return a.edited && "ulm/"+a.name == x.Agent })
			if kind == "conflict" && edited {
				w.totals.Conflicts++
				continue
			}
			w.failf("a record of %s is kept aside: %s %s: %s", x.Agent, kind, x.Key, x.Reason)
		}
	}
}

// books sums the ERP's documents, and counts its facts. A key with two documents is a fault by itself.
func (e *erp) books() (map[line]decimal.Decimal, int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.appear()
	sums, keys := map[line]decimal.Decimal{}, map[string]int{}
	for _, d := range e.docs {
		keys[d.key]++
		for _, l := range d.lines {
			at := line{l.OrderNo, l.Item, string(l.Kind), l.Unit}
			sums[at] = sums[at].Add(l.Received)
		}
	}
	var twice []string
	for key, n := range keys {
		if n > 1 {
			twice = append(twice, fmt.Sprintf("fact %s has %d documents", key, n))
		}
	}
	sort.Strings(twice)
	e.wrong = append(e.wrong, twice...)
	return sums, len(keys)
}
