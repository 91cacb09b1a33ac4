package posting

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
)

func TestFactsThatWaitedForTheirOrderGoBeforeNewOnes(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		var now func()
		w.crash = func(step string) error {
			if do := now; step == "planned" && do != nil {
				now = nil
				do()
			}
			return nil
		}
		w.order("WO")
		w.start()
		for n := range 40 {
			no := fmt.Sprintf("WO-%d", n)
			waited, fresh := confirm(no, 1, "1"), confirm(no, 2, "2")
			w.deliver(waited)
			w.pass(time.Second)
			w.want(waited, store.PostingParked, CodeUnknownOrder)
			now = func() { w.order(no); w.deliver(fresh) } // while the engine looks elsewhere: it finds both
			w.deliver(confirm("WO", n, "1"))
			w.pass(time.Minute)
			if made := w.erp.madeOn(no); !slices.Equal(made, []string{waited.Position, fresh.Position}) {
				t.Fatalf("order %s: the effects came as %v", no, made)
			}
		}
	})
}

// TestOrderOfPostingsIsKeptWhateverGoesWrong runs random facts of random orders through a system that loses, delays, locks,
// refuses and cannot tell, and a hub that dies. A model says what must come out: the effects of facts that no person had to see
// to are made in the order of the facts; poisoned facts are parked, and all others are in the books before anybody acts; in
// the end the books hold everything.
func TestOrderOfPostingsIsKeptWhateverGoesWrong(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d (run again with -seed %d)", seed, seed)
	simulate(t, func(t *testing.T, w *world) {
		w.erp = newModel(seed, time.Now)
		w.opts.Connectors["erp"] = w.erp
		w.opts.Poll = 20 * time.Minute
		m := newOrderModel(rand.New(rand.NewPCG(seed, 3)), 6, 14)
		w.erp.set(m.bad)
		w.start()
		left := m.mixed()
		for round := 0; len(left) > 0 || round < 15; round++ {
			n := min(len(left), m.rng.IntN(8))
			w.deliver(left[:n]...)
			left = left[n:]
			if round < len(m.orders) {
				w.order(m.orders[round]) // some facts come before their order, some in the same moment
			}
			w.pass(time.Duration(m.rng.IntN(40_000)) * time.Millisecond)
			if m.rng.IntN(4) == 0 {
				w.die(m.rng)
			}
		}
		w.pass(48 * time.Hour)
		m.checkNeighbours(w)
		w.settleByHand()
		w.pass(48 * time.Hour)
		m.checkBooks(w)
	})
}

// orderModel is what was fed and what must come of it.
type orderModel struct {
	rng    *rand.Rand
	orders []string
	facts  map[string][]object.Fact // of each order, in their order
	bad    trouble
}

func newOrderModel(rng *rand.Rand, orders, each int) *orderModel {
	m := &orderModel{rng: rng, facts: map[string][]object.Fact{}, bad: trouble{
		down: 5, lostReply: 12, lostRequest: 6, delayed: 8, retry: 10, early: 4, unreadable: 10, reject: map[string]bool{}, dark: map[string]bool{},
	}}
	for o := range orders {
		no := fmt.Sprintf("WO-%d", o)
		m.orders = append(m.orders, no)
		all := []object.Fact{state(no, object.FloorStarted)}
		for n := range each {
			f := confirm(no, n, fmt.Sprint(1+rng.IntN(50)))
			switch rng.IntN(10) {
			case 0:
				m.bad.reject[f.Key.String()] = true
			case 1:
				m.bad.dark[f.Key.String()] = true
			case 2:
				all = append(all, f)
				f = reversal(f, "undo")
			}
			all = append(all, f)
		}
		m.facts[no] = append(all, state(no, object.FloorFinished))
	}
	return m
}

// mixed shuffles the facts of all orders and keeps each order's own sequence.
func (m *orderModel) mixed() (out []object.Fact) {
	next := map[string]int{}
	open := slices.Clone(m.orders)
	for len(open) > 0 {
		i := m.rng.IntN(len(open))
		no := open[i]
		out = append(out, m.facts[no][next[no]])
		if next[no]++; next[no] == len(m.facts[no]) {
			open = slices.Delete(open, i, i+1)
		}
	}
	return out
}

// seenByPersons reports whether a person had to see to a fact, or to the one it takes back.
func (w *world) seenByPersons(f object.Fact) bool {
	_, life, err := w.s.Life(context.Background(), f.Key.String())
	if err != nil {
		w.t.Fatal(err)
	}
	return slices.ContainsFunc(life, func(s store.LifeStep) bool {
		return s.Step == "rejected" || s.Step == "cannot tell" || s.Step == "differs"
	})
}

// checkNeighbours wants every fact that is not parked itself, and waits for none that is, to be in the books.
func (m *orderModel) checkNeighbours(w *world) {
	w.t.Helper()
	for no, facts := range m.facts {
		parked := map[string]bool{}
		for _, f := range facts {
			p := w.posting(f)
			switch {
			case p.State == store.PostingParked && (m.bad.reject[f.Key.String()] || m.bad.dark[f.Key.String()]):
				parked[f.Key.String()] = true
			case p.State == store.PostingParked && p.Code == CodeWaitsForOriginal && parked[f.Reverses.String()]:
			case f.OrderState != nil && f.OrderState.State == object.FloorFinished && len(parked) > 0:
				w.want(f, store.PostingDue, CodeWaitsForOthers)
			case p.State != store.PostingVerified:
				w.t.Errorf("order %s: fact %q is %s %q (%s), though nothing is wrong with it", no, f.Position, p.State, p.Code, p.Reason)
			}
		}
	}
}

// checkBooks wants all effects to be there, in the order of the facts.
func (m *orderModel) checkBooks(w *world) {
	w.t.Helper()
	parked, total := 0, 0
	for no, facts := range m.facts {
		var free []string
		for _, f := range facts {
			total++
			if p := w.posting(f); p.State != store.PostingVerified && p.State != store.PostingSettled {
				w.t.Errorf("order %s: fact %q is %s %q (%s)", no, f.Position, p.State, p.Code, p.Reason)
			}
			original := slices.IndexFunc(facts, func(o object.Fact) bool { return !f.Reverses.IsZero() && o.Key == f.Reverses })
			if w.seenByPersons(f) || original >= 0 && w.seenByPersons(facts[original]) {
				parked++
				continue
			}
			free = append(free, f.Position)
		}
		made := w.erp.madeOn(no)
		if len(made) != len(facts) {
			w.t.Errorf("order %s: %d effects of %d facts", no, len(made), len(facts))
		}
		got := slices.DeleteFunc(slices.Clone(made), func(p string) bool { return !slices.Contains(free, p) })
		if !slices.Equal(got, free) {
			w.t.Errorf("order %s: the effects came as\n%s\nwant\n%s", no, strings.Join(got, "\n"), strings.Join(free, "\n"))
		}
		if made[len(made)-1] != facts[len(facts)-1].Position {
			w.t.Errorf("order %s was finished before its last posting", no)
		}
	}
	w.t.Logf("%d facts, %d of them seen by a person, calls %v", total, parked, w.erp.calls)
}
