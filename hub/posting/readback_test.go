package posting

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/exchange"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
)

// manyAtOnce is a model in which something happens while postings are read back together, or before their answers are given.
type manyAtOnce struct {
	*modelERP
	meanwhile func(all []connector.ToVerify)
	instead   func(all []connector.ToVerify, answers []connector.Verification) ([]connector.Verification, error)
	asked     []int // how many postings, of each question
}

func (m *manyAtOnce) VerifyMany(ctx context.Context, all []connector.ToVerify) ([]connector.Verification, error) {
	exchange.Note(ctx, "POST", "many", []byte("which are there?"), "200", []byte("these"))
	m.asked = append(m.asked, len(all))
	answers, err := m.modelERP.VerifyMany(ctx, all)
	if m.meanwhile != nil {
		m.meanwhile(all)
	}
	if m.instead != nil && err == nil {
		return m.instead(all, answers)
	}
	return answers, err
}

func (m *manyAtOnce) Verify(ctx context.Context, p connector.Posting, intent []byte, doc connector.Document) (connector.Verification, error) {
	exchange.Note(ctx, "POST", "one", []byte("is "+p.Fact.Key.String()+" there?"), "200", []byte("it is"))
	return m.modelERP.Verify(ctx, p, intent, doc)
}

// atOnce puts facts of one order into a world whose system reads many back at once.
func (w *world) atOnce(n int) (*manyAtOnce, []object.Fact) {
	m := &manyAtOnce{modelERP: w.erp}
	w.opts.Connectors["erp"] = m
	w.order("WO-1")
	var facts []object.Fact
	for i := range n {
		facts = append(facts, confirm("WO-1", i, "1"))
	}
	w.deliver(facts...)
	return m, facts
}

// steps is when a fact's posting came to a step of its life, for the first time.
func (w *world) stepAt(f object.Fact, step string) time.Time {
	w.t.Helper()
	_, life, err := w.s.Life(context.Background(), f.Key.String())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, l := range life {
		if l.Step == step {
			return l.At
		}
	}
	w.t.Fatalf("fact %q was never %s: %+v", f.Position, step, life)
	return time.Time{}
}

func TestPostingsOfAnOrderAreReadBackByFewCalls(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		m, facts := w.atOnce(3*store.ReadBackAtOnce + 5)
		w.start()
		w.pass(time.Minute)
		for _, f := range facts {
			w.want(f, store.PostingVerified, "")
		}
		if many, one := w.erp.called("verify many"), w.erp.called("verify"); many+one > 5 {
			t.Errorf("%d facts took %d calls about many and %d about one: %v", len(facts), many, one, m.asked)
		}
		if got, want := len(w.receipts()), 2*len(facts); got != want {
			t.Errorf("%d receipts, want %d: posted and verified of each", got, want)
		}
		w.agrees("WO-1", fmt.Sprint(len(facts)))
	})
}

// However many facts of its order are due, a posting is read back soon after its effect can be read.
func TestReadBackWaitsForCompanyOneSecondAndForNobodyElse(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		m, facts := w.atOnce(100)
		w.erp.takes = 100 * time.Millisecond // of each call, so that the lane is never without something to post
		w.start()
		w.pass(5 * time.Minute)
		settle := w.erp.Capabilities().Settle
		for _, f := range facts {
			if waited := w.stepAt(f, "verified").Sub(w.stepAt(f, "posted")); waited > settle+readBackWaits+500*time.Millisecond {
				t.Errorf("%q was read back %s after it was posted", f.Position, waited)
			}
		}
		if n := len(m.asked); n == 0 || n > len(facts)/4 {
			t.Errorf("%d facts were read back by %d calls: %v", len(facts), n, m.asked)
		}
	})
	simulate(t, func(t *testing.T, w *world) { // as many as go together are due before the second is over
		m, facts := w.atOnce(100)
		w.erp.takes = 10 * time.Millisecond
		w.start()
		w.pass(5 * time.Minute)
		for _, f := range facts {
			if waited := w.stepAt(f, "verified").Sub(w.stepAt(f, "posted")); waited > w.erp.Capabilities().Settle+700*time.Millisecond {
				t.Errorf("%q was read back %s after it was posted", f.Position, waited)
			}
		}
		if n := len(m.asked); n > len(facts)/10 {
			t.Errorf("%d facts were read back by %d calls: %v", len(facts), n, m.asked)
		}
	})
	simulate(t, func(t *testing.T, w *world) { // nothing else is due
		_, facts := w.atOnce(1)
		w.start()
		w.pass(time.Minute)
		if waited := w.stepAt(facts[0], "verified").Sub(w.stepAt(facts[0], "posted")); waited > w.erp.Capabilities().Settle+100*time.Millisecond {
			t.Errorf("the only fact was read back %s after it was posted", waited)
		}
	})
}

func TestOneOfManyThatDiffersIsParkedWithItsOwnEvidence(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		_, facts := w.atOnce(5)
		bad, early := facts[2], facts[3]
		w.crash = func(step string) error {
			if step == "reading back" {
				w.erp.mu.Lock()
				defer w.erp.mu.Unlock()
				e := w.erp.effects[bad.Key.String()]
				e.document = "D99"
				w.erp.effects[bad.Key.String()] = e
				w.erp.notYet = map[string]time.Time{early.Key.String(): time.Now().Add(20 * time.Second)}
				w.crash, w.e.crash = nil, func(string) error { return nil }
			}
			return nil
		}
		w.start()
		w.pass(10 * time.Second)
		for i, f := range facts {
			switch i {
			case 2:
				if p := w.want(f, store.PostingParked, CodeDiffers); p.Class != ClassMismatch || !strings.Contains(p.Reason, "is not there") {
					t.Errorf("parked as %+v", p)
				}
			case 3:
				if p := w.want(f, store.PostingPosted, ""); p.Tries == 0 || !p.NextAt.After(time.Now()) {
					t.Errorf("not there yet: %+v", p)
				}
			default:
				w.want(f, store.PostingVerified, "")
			}
		}
		said, err := w.s.Exchanges(t.Context(), w.posting(bad).FactID)
		if err != nil || len(said) != 1 || !strings.Contains(said[0].Request, bad.Key.String()) || said[0].Purpose != "read back" {
			t.Errorf("the evidence is %+v, %v", said, err)
		}
		w.pass(10 * time.Minute)
		w.want(early, store.PostingVerified, "")
	})
}

func TestWhatSomebodyChangedWhileManyWereReadBackStays(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		m, facts := w.atOnce(6)
		once := false
		m.meanwhile = func(all []connector.ToVerify) {
			if once {
				return
			}
			once = true
			w.update(func(tx *store.Tx) error {
				for i, change := range []func(p *store.Posting){
					func(p *store.Posting) { park(p, ClassMismatch, CodeDiffers, "seen by a person", "look") },
					func(p *store.Posting) { p.State, p.Code, p.Document = store.PostingSettled, CodeAccepted, "4711" },
					func(p *store.Posting) { p.NextAt = p.NextAt.Add(time.Hour) },
				} {
					f, err := tx.FactByKey(all[i].Posting.Fact.Key)
					if err != nil {
						return err
					}
					p, err := tx.Posting(f.ID)
					if err != nil {
						return err
					}
					change(&p)
					if err := tx.PutPosting(p); err != nil {
						return err
					}
				}
				return nil
			})
		}
		w.start()
		w.pass(time.Minute)
		w.want(facts[0], store.PostingParked, CodeDiffers)
		if p := w.want(facts[1], store.PostingSettled, CodeAccepted); p.Document != "4711" {
			t.Errorf("document %q", p.Document)
		}
		w.want(facts[2], store.PostingPosted, "")
		for _, f := range facts[3:] {
			w.want(f, store.PostingVerified, "")
		}
		w.pass(2 * time.Hour)
		w.want(facts[2], store.PostingVerified, "")
	})
}

func TestAFactThatIsTakenBackWhileOthersOfItsOrderAreReadBackIsTakenBackOnce(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		_, facts := w.atOnce(6)
		w.start()
		w.pass(900 * time.Millisecond) // posted and not read back
		w.want(facts[1], store.PostingPosted, "")
		w.deliver(reversal(facts[1], "r1"), reversal(facts[4], "r4"))
		w.pass(time.Minute)
		for _, f := range append(facts, reversal(facts[1], "r1"), reversal(facts[4], "r4")) {
			w.want(f, store.PostingVerified, "")
		}
		w.agrees("WO-1", "4")
	})
}

func TestQuestionAboutManyThatIsLostIsAskedOfEach(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		m, facts := w.atOnce(8)
		m.instead = func([]connector.ToVerify, []connector.Verification) ([]connector.Verification, error) {
			return nil, errors.New("414 request line too long")
		}
		w.start()
		w.pass(1100 * time.Millisecond)
		for _, f := range facts {
			if p := w.want(f, store.PostingPosted, CodeUnreachable); p.Tries != 1 || !strings.Contains(p.Reason, "too long") {
				t.Errorf("%+v", p)
			}
		}
		if h := w.e.Health()["erp"]; h.OK {
			t.Errorf("health %+v", h)
		}
		w.pass(time.Minute)
		for _, f := range facts {
			w.want(f, store.PostingVerified, "")
		}
		if len(m.asked) != 1 || w.erp.called("verify") != len(facts) {
			t.Errorf("asked about %v at once, and %d times about one", m.asked, w.erp.called("verify"))
		}
	})
}

// What a connector cannot say of many, or says so that nobody knows of which, or breaks down over, is asked of each.
func TestWhatIsNotToldOfManyIsAskedOfEach(t *testing.T) {
	for name, instead := range map[string]func(all []connector.ToVerify, answers []connector.Verification) ([]connector.Verification, error){
		"alone": func(all []connector.ToVerify, answers []connector.Verification) ([]connector.Verification, error) {
			for i := range answers {
				answers[i] = connector.Verification{Alone: true}
			}
			return answers, nil
		},
		"too few": func(all []connector.ToVerify, answers []connector.Verification) ([]connector.Verification, error) {
			return answers[1:], nil
		},
		"none": func([]connector.ToVerify, []connector.Verification) ([]connector.Verification, error) {
			return nil, nil
		},
		"breaks down": func(all []connector.ToVerify, _ []connector.Verification) ([]connector.Verification, error) {
			panic("index out of range")
		},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(t *testing.T, w *world) {
				m, facts := w.atOnce(5)
				m.instead = instead
				w.start()
				w.pass(time.Minute)
				for _, f := range facts {
					w.want(f, store.PostingVerified, "")
				}
				if n := w.erp.called("verify"); n != len(facts) {
					t.Errorf("%d of %d postings were read back alone", n, len(facts))
				}
			})
		})
	}
}

func TestAggregatesAreReadBackTogetherEachOnce(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		m := &manyAtOnce{modelERP: w.erp}
		w.opts.Connectors["erp"], w.opts.Policies = m, collecting(time.Minute)
		w.order("WO-1")
		w.start()
		var facts []object.Fact
		for n := range 12 { // four documents of three facts
			f := confirm("WO-1", n, "1")
			f.Confirmation.Operation = fmt.Sprintf("%04d", 10*(n%4+1))
			facts = append(facts, f)
		}
		m.instead = func(all []connector.ToVerify, answers []connector.Verification) ([]connector.Verification, error) {
			if len(m.asked) == 1 {
				answers[0], answers[1] = connector.Verification{NotYet: true}, connector.Verification{NotYet: true}
			}
			return answers, nil
		}
		w.deliver(facts...)
		w.pass(62 * time.Second)
		states := map[store.PostingState]int{}
		for _, f := range facts {
			p := w.posting(f)
			states[p.State]++
			if p.State == store.PostingPosted && (p.Tries != 1 || !p.NextAt.After(time.Now())) {
				t.Errorf("of a document that is not there yet, %q is %+v", f.Position, p)
			}
		}
		if states[store.PostingPosted] != 6 || states[store.PostingVerified] != 6 {
			t.Errorf("%v; want the facts of two documents verified, and of two not", states)
		}
		w.pass(10 * time.Minute)
		for _, f := range facts {
			w.want(f, store.PostingVerified, "")
		}
		if n := w.documents("WO-1"); n != 4 {
			t.Errorf("%d documents, want 4", n)
		}
		if fmt.Sprint(m.asked) != "[4 2]" || w.erp.called("verify") != 0 {
			t.Errorf("asked about %v at once, and %d times about one", m.asked, w.erp.called("verify"))
		}
		w.agrees("WO-1", "12")
	})
}

// A hub that dies between the answer and the store asks again, and nothing is stored of a part of the postings.
func TestHubThatDiesWhileManyAreReadBackReadsAllBackAgain(t *testing.T) {
	for _, step := range []string{"reading back", "read back", "storing verified", "saved verified", "storing unreachable", "saved unreachable"} {
		t.Run(step, func(t *testing.T) {
			simulate(t, func(t *testing.T, w *world) {
				m, facts := w.atOnce(9)
				if strings.HasSuffix(step, "unreachable") {
					m.instead = func([]connector.ToVerify, []connector.Verification) ([]connector.Verification, error) {
						return nil, errors.New("connection reset")
					}
				}
				dead := false
				w.crash = func(s string) error {
					if dead || s == step {
						dead = true
						return errDies
					}
					return nil
				}
				w.start()
				w.pass(time.Minute)
				if err := w.stop(); err == nil || !dead {
					t.Fatalf("the engine did not die at %q: %v", step, err)
				}
				w.crash = func(string) error { return nil }
				w.s.Close()
				w.open()
				verified := 0
				for _, f := range facts {
					if w.posting(f).State == store.PostingVerified {
						verified++
					}
				}
				if stored := step == "saved verified"; stored != (verified == len(facts)) || !stored && verified != 0 {
					t.Errorf("%d of %d are verified after the death at %q", verified, len(facts), step)
				}
				m.instead = nil
				w.start()
				w.pass(time.Hour)
				for _, f := range facts {
					w.want(f, store.PostingVerified, "")
				}
				w.agrees("WO-1", fmt.Sprint(len(facts)))
			})
		})
	}
}

// A posting that is in doubt comes before everything that is to be read back, and while it holds its order up nothing waits for company.
func TestWhatIsInDoubtComesBeforeReadingBack(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		_, facts := w.atOnce(4)
		w.start()
		w.pass(500 * time.Millisecond)
		w.erp.set(trouble{lostRequest: 100})
		doubtful, next := confirm("WO-1", 50, "1"), confirm("WO-1", 51, "1")
		w.deliver(doubtful, next)
		w.pass(time.Minute)
		w.want(doubtful, store.PostingInDoubt, "")
		w.want(next, store.PostingDue, "")
		for _, f := range facts {
			w.want(f, store.PostingVerified, "")
			if waited := w.stepAt(f, "verified").Sub(w.stepAt(f, "posted")); waited > w.erp.Capabilities().Settle+500*time.Millisecond {
				t.Errorf("%q was read back %s after it was posted", f.Position, waited)
			}
		}
		w.erp.set(trouble{})
		w.pass(time.Hour)
		w.want(doubtful, store.PostingVerified, "")
		w.want(next, store.PostingVerified, "")
	})
}
