package sim

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/linekeeper/linekeeper/hub/api"
	"github.com/shopspring/decimal"
)

func (t totals) String() string {
	return fmt.Sprintf("facts=%d crashes=%d cuts=%d stalls=%d restores=%d clones=%d moves=%d reinstalls=%d jumps=%d gone=%d lost_replies=%d cannot_tell=%d missing=%d doubled=%d",
		t.Facts, t.Crashes, t.Cuts, t.Stalls, t.Restores, t.Clones, t.Moves, t.Reinstalls, t.Jumps, t.Gone, t.LostReplies, t.CannotTell, t.Missing, t.Doubled)
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
