package posting

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/mapping"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
)

// less is a fact that takes back a part of another.
func less(of object.Fact, name, quantity string) object.Fact {
	f := reversal(of, name)
	q := decimal.RequireFromString(quantity)
	if of.Confirmation != nil {
		c := *of.Confirmation
		c.Yield, c.Scrap, c.CounterRange = q, decimal.Zero, nil
		f.Confirmation = &c
	} else {
		c := *of.Consumption
		c.Quantity.Value = q
		f.Consumption = &c
	}
	return f
}

// Part after part is taken back of a confirmation, in a system that can only cancel it whole, until nothing is left of it.
func TestAPartOfAConfirmationIsTakenBackAndWhatIsLeftIsPostedAnew(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		withReverser(w)
		w.order("WO-1")
		w.start()
		f, neighbour := confirm("WO-1", 1, "10"), confirm("WO-1", 2, "100")
		f.Confirmation.Scrap = decimal.NewFromInt(2)
		w.deliver(f, neighbour)
		w.pass(time.Minute)
		first := w.want(f, store.PostingVerified, "").Document
		three, both, all, more := less(f, "three", "3"), less(f, "both", "4"), less(f, "all", "3"), less(f, "more", "1")
		all.Confirmation.Scrap = decimal.NewFromInt(2)
		w.deliver(three)
		w.pass(time.Minute)
		p := w.want(f, store.PostingVerified, "")
		if q := w.want(three, store.PostingVerified, ""); q.Document != p.Document || p.Document == first {
			t.Errorf("what is left has document %q, what took a part back %q, the first was %q", p.Document, q.Document, first)
		}
		w.agrees("WO-1", "107")
		w.deliver(both, all) // one after the other, in one transaction of the planner
		w.pass(5 * time.Minute)
		w.want(both, store.PostingVerified, "")
		w.want(all, store.PostingVerified, "")
		w.agrees("WO-1", "100")
		w.deliver(more)
		w.pass(time.Minute)
		if p := w.want(more, store.PostingParked, CodeReversal); !strings.Contains(p.Reason, "0 are left") {
			t.Errorf("%s", p.Reason)
		}
		w.want(neighbour, store.PostingVerified, "")
		w.agrees("WO-1", "100")
		if made := w.erp.madeOn("WO-1"); len(made) != 5 { // two facts, what was left twice, and the last reversal
			t.Errorf("the effects are %v", made)
		}
	})
}

// Wherever the hub dies between the two steps, and whatever answer is lost, the part is taken back once.
func TestAHubThatDiesWhileAPartIsTakenBackDoesItOnce(t *testing.T) {
	for _, step := range []string{
		"plan", "planned", "parting", "parted", "remaining", "remained", "asking", "prepared", "storing sending", "saved sending", "sending", "posted",
		"storing posted", "saved posted", "reading back", "read back", "storing verified", "saved verified",
	} {
		for _, lost := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, reply lost %v", step, lost), func(t *testing.T) {
				simulate(t, func(t *testing.T, w *world) {
					erp := withReverser(w)
					w.order("WO-1")
					f := confirm("WO-1", 1, "10")
					w.start()
					w.deliver(f)
					w.pass(time.Minute)
					w.want(f, store.PostingVerified, "")
					w.stop()
					dead := false
					w.crash = func(s string) error {
						if dead || s == step {
							dead = true
							return errDies
						}
						return nil
					}
					if lost {
						erp.lose = true
						w.erp.set(trouble{lostReply: 100})
					}
					part := less(f, "part", "3")
					w.start()
					w.deliver(part)
					w.pass(time.Hour)
					if !dead {
						t.Fatalf("step %q never came", step)
					}
					if err := w.stop(); err == nil {
						t.Fatal("the engine did not notice its death")
					}
					w.crash = func(string) error { return nil }
					w.s.Close()
					w.open()
					w.start()
					w.pass(time.Hour)
					w.want(f, store.PostingVerified, "")
					w.want(part, store.PostingVerified, "")
					w.agrees("WO-1", "7")
				})
			})
		}
	}
}

func TestAPartOfMaterialGoesTheOtherWayByItself(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.erp.scale = 1
		w.order("WO-1")
		w.start()
		f := consume("WO-1", 1, "OIL", "10.44")
		first, second, more := less(f, "first", "3.02"), less(f, "second", "7.42"), less(f, "more", "0.1")
		w.deliver(f)
		w.pass(time.Minute)
		document := w.want(f, store.PostingVerified, "").Document
		w.deliver(first)
		w.pass(time.Minute)
		w.want(first, store.PostingVerified, "")
		if got := w.erp.consumed("WO-1").String(); got != "7.4" {
			t.Errorf("%s are consumed, want 7.4", got)
		}
		w.deliver(second, more)
		w.pass(time.Minute)
		w.want(second, store.PostingVerified, "")
		w.want(more, store.PostingParked, CodeReversal)
		if got := w.erp.consumed("WO-1"); !got.IsZero() || w.want(f, store.PostingVerified, "").Document != document {
			t.Errorf("%s are consumed, want none; the document is still %s", got, document)
		}
		w.deliver(consume("WO-1", 2, "OIL", "0.04"), consume("WO-1", 3, "OIL", "0.06")) // nothing of rounding is left over
		w.pass(time.Minute)
		if got := w.erp.consumed("WO-1").String(); got != "0.1" {
			t.Errorf("%s are consumed, want 0.1", got)
		}
	})
}

// A part of what is still collected never comes into the books; one of what was posted with others leaves these as they are.
func TestAPartOfOneOfSeveralFactsOfOneDocument(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		withReverser(w)
		w.opts.Policies = collecting(time.Minute)
		w.order("WO-1")
		w.start()
		f, g := confirm("WO-1", 1, "10"), confirm("WO-1", 2, "5")
		early, late, whole := less(f, "early", "3"), less(f, "late", "2"), reversal(g, "whole")
		w.deliver(f, g)
		w.pass(time.Second)
		w.deliver(early)
		w.pass(2 * time.Minute)
		w.want(early, store.PostingVerified, "")
		w.agrees("WO-1", "12")
		if n := w.documents("WO-1"); n != 1 {
			t.Errorf("%d documents, want 1", n)
		}
		w.deliver(late)
		w.pass(2 * time.Minute)
		w.want(late, store.PostingVerified, "")
		w.agrees("WO-1", "10")
		w.deliver(whole)
		w.pass(2 * time.Minute)
		w.want(whole, store.PostingVerified, "")
		w.agrees("WO-1", "5")
		for _, f := range []object.Fact{f, g, early} {
			w.want(f, store.PostingVerified, "")
		}
	})
}

// A document that is not taken back leaves everything as it was; the part waits for a person, and meanwhile nobody else takes it back.
func TestAPartThatIsRefusedChangesNothing(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		erp := withReverser(w)
		w.order("WO-1")
		w.start()
		f := confirm("WO-1", 1, "10")
		part := less(f, "part", "3")
		w.deliver(f)
		w.pass(time.Minute)
		erp.refuse = true
		w.deliver(part)
		w.pass(time.Minute)
		w.want(part, store.PostingParked, "M7/053")
		w.want(f, store.PostingVerified, "")
		w.agrees("WO-1", "10")
		erp.refuse, erp.lose = false, true
		ctx := context.Background()
		if err := w.e.ReplayFact(ctx, part.Key.String(), "anna"); err != nil {
			t.Fatal(err)
		}
		w.crash = func(step string) error {
			if step == "parted" {
				w.crash = func(string) error { return nil }
				if err := w.e.Convert(ctx, f.Key.String(), "n", "anna"); !errors.Is(err, ErrNotNow) || !strings.Contains(err.Error(), "in part") && !strings.Contains(err.Error(), "a part") {
					t.Errorf("taken back meanwhile: %v", err)
				}
			}
			return nil
		}
		w.e.crash = func(step string) error { return w.crash(step) }
		w.pass(time.Hour)
		w.want(part, store.PostingVerified, "")
		w.agrees("WO-1", "7")
	})
}

// What is left is posted in the words of the original, whatever a mapping says now; of what was converted, a person takes the part.
func TestWhatIsLeftIsSaidAsWhatWasTakenBack(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		withReverser(w)
		items := mapping.Set{Name: "items", Kind: mapping.Item}
		w.order("WO-1")
		w.order("WO-2")
		w.approve(items, before, mapping.Row{From: "P", To: "M-77"})
		w.start()
		f, pounds := confirm("WO-1", 1, "10"), weighed("WO-2", 1, "10")
		w.deliver(f)
		w.pass(time.Minute)
		w.approve(items, before, mapping.Row{From: "P", To: "M-78"})
		w.approve(weights, before, mapping.Row{From: "LBR", To: "KGM", Factor: "0.45359237"}, mapping.Row{From: "C62", To: "C62"})
		part, heavy := less(f, "part", "3"), less(pounds, "heavy", "3")
		w.deliver(part, pounds)
		w.pass(time.Minute)
		w.want(part, store.PostingVerified, "")
		w.agrees("WO-1", "7")
		w.erp.mu.Lock()
		for _, e := range w.erp.effects {
			if c := e.fact.Confirmation; c.OrderNo == "WO-1" && c.Item != "M-77" {
				t.Errorf("%s is posted as item %q", e.document, c.Item)
			}
		}
		w.erp.mu.Unlock()
		w.deliver(heavy)
		w.pass(time.Minute)
		if p := w.want(heavy, store.PostingParked, CodeReversal); !strings.Contains(p.Reason, `"KGM"`) {
			t.Errorf("%s", p.Reason)
		}
	})
}

// Parts of many facts, with lost answers, delays and hubs that die: the books end up with what the facts say.
func TestRandomPartsUnderTroubleAndCrashesAddUp(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d (run again with -seed %d)", seed, seed)
	simulate(t, func(t *testing.T, w *world) {
		rng := rand.New(rand.NewPCG(seed, 3))
		w.erp = newModel(seed, time.Now)
		withReverser(w)
		if rng.IntN(2) == 0 {
			w.opts.Policies = collecting(10 * time.Minute)
		}
		w.opts.Poll = 20 * time.Minute
		w.erp.set(trouble{down: 5, lostReply: 10, lostRequest: 8, delayed: 8, retry: 8, early: 3, unreadable: 10})
		want, used := decimal.Zero, decimal.Zero
		w.order("WO-1")
		w.start()
		for n := range 12 {
			f, m := confirm("WO-1", n, fmt.Sprint(10+rng.IntN(20))), consume("WO-1", n, "OIL", fmt.Sprint(10+rng.IntN(20)))
			facts := []object.Fact{f, m}
			want, used = want.Add(f.Confirmation.Yield), used.Add(m.Consumption.Quantity.Value)
			for i := range rng.IntN(3) {
				q := fmt.Sprint(1 + rng.IntN(5))
				facts = append(facts, less(f, fmt.Sprint("part", i), q), less(m, fmt.Sprint("part", i), q))
				want, used = want.Sub(decimal.RequireFromString(q)), used.Sub(decimal.RequireFromString(q))
			}
			rng.Shuffle(len(facts), func(i, j int) { facts[i], facts[j] = facts[j], facts[i] })
			for len(facts) > 0 {
				k := 1 + rng.IntN(len(facts))
				w.deliver(facts[:k]...)
				facts = facts[k:]
				w.pass(time.Duration(rng.IntN(400)) * time.Second)
				if rng.IntN(3) == 0 {
					w.die(rng)
				}
			}
		}
		w.pass(48 * time.Hour)
		w.erp.set(trouble{})
		w.pass(48 * time.Hour)
		if got := w.counts(); strings.Contains(got, "parked") || strings.Contains(got, "due") || strings.Contains(got, "doubt") {
			t.Errorf("the postings are %s", got)
		}
		w.agrees("WO-1", want.String())
		if got := w.erp.consumed("WO-1"); !got.Equal(used) {
			t.Errorf("the outside system took %s, want %s", got, used)
		}
	})
}
