package trading

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/connector/exchange"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
)

func TestWriteIsMadeOnceAndReadBack(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.mirrored()
		w.start()
		w.submit("po", purchase(object.PurchaseSent))
		w.pass(time.Minute)
		x := w.want("po", store.PostingVerified, "", 1)
		_, steps := w.write("po")
		var life []string
		for _, s := range steps {
			life = append(life, s.Step)
		}
		if got := strings.Join(life, " "); got != "due sending posted verified" || steps[0].By != "mes" || x.Document != "PO-1" {
			t.Errorf("its life is %s, by %q, document %q", got, steps[0].By, x.Document)
		}
		if all := w.objects(object.BusinessPurchase, false); len(all) != 1 || all[0].Object.Names().Number != "PO-1" {
			t.Errorf("the mirror has %+v", all)
		}
	})
}

func TestSameKeyIsTheSameWriteAndAnotherWishIsRefused(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.start()
		w.submit("po", purchase(object.PurchaseSent))
		w.pass(time.Minute)
		again, known, err := w.tr.Submit(context.Background(), store.Write{Key: key("po"), Want: purchase(object.PurchaseSent), By: "other"})
		if err != nil || !known || again.State != store.PostingVerified {
			t.Errorf("the same write again is %+v, known %t, %v", again, known, err)
		}
		other := purchase(object.PurchaseSent)
		other.Purchase.Lines[0].Ordered.Value = d("101")
		if _, _, err := w.tr.Submit(context.Background(), store.Write{Key: key("po"), Want: other}); !errors.Is(err, ErrOther) || !strings.Contains(err.Error(), "use a new key") {
			t.Errorf("another wish under the key is answered %v", err)
		}
		w.pass(time.Minute)
		w.want("po", store.PostingVerified, "", 1)
	})
}

func TestWhatCannotBeMeantIsRefusedWithItsField(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.start()
		for name, c := range map[string]struct {
			change func(*store.Write)
			want   string
		}{
			"system":      {func(x *store.Write) { x.ERP = "sap" }, `erp: "sap" takes no business objects; name one of erp`},
			"key":         {func(x *store.Write) { x.Key = [16]byte{} }, "key: is missing"},
			"kind":        {func(x *store.Write) { x.Want = object.Business{Kind: object.BusinessItem, Item: &object.Item{}} }, `object.kind: "item"`},
			"shape":       {func(x *store.Write) { x.Want.Sale = &object.SalesOrder{} }, "object: "},
			"state":       {func(x *store.Write) { x.Want.Purchase.State = "BOUGHT" }, `object.purchase_order.state: "BOUGHT" cannot be reached in "erp" through here; want one of DRAFT, SENT`},
			"line":        {func(x *store.Write) { x.Want.Purchase.Lines[0].Ordered.Value = d("0") }, `object.purchase_order: line "10" of purchase order "" is of 0 "KGM"`},
			"date":        {func(x *store.Write) { x.PostingDate = "26.11.2026" }, `posting_date: is "26.11.2026"`},
			"warning":     {func(x *store.Write) { x.Accept = []string{"two words"} }, `accept: "two words"`},
			"named lines": {func(x *store.Write) { x.Want.Purchase.Number = "PO-9"; x.Want.Purchase.Supplier = "" }, "has no supplier"},
		} {
			x := store.Write{Key: key("bad " + name), ERP: "erp", Want: purchase(object.PurchaseSent)}
			c.change(&x)
			if _, _, err := w.tr.Submit(context.Background(), x); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: answered %v, want %s", name, err, c.want)
			}
		}
		if all, err := w.s.Writes(context.Background(), store.WriteFilter{}, store.Page{}); err != nil || len(all) != 0 {
			t.Errorf("what was refused is stored: %+v, %v", all, err)
		}
	})
}

func TestEveryMishapOfAWriteEndsWithOneEffect(t *testing.T) {
	for call, mishaps := range map[string][]connectortest.Mishap{
		"prepare": {connectortest.Down},
		"write":   {connectortest.Down, connectortest.Loses, connectortest.Late, connectortest.Busy, connectortest.RestWanted, connectortest.BreaksDown},
		"lookup":  {connectortest.Down, connectortest.NotYet},
		"verify":  {connectortest.Down, connectortest.NotYet},
	} {
		for _, m := range mishaps {
			t.Run(call+" "+string(m), func(t *testing.T) {
				simulate(t, func(t *testing.T, w *world) {
					w.erp.Forgetful = true // nothing but looking up keeps it from doubling
					w.start()
					done, lost := false, false
					w.erp.Mishaps(func(c string, _ connector.Write) connectortest.Mishap {
						switch {
						case call == "lookup" && c == "write" && !lost:
							lost = true
							return connectortest.Loses
						case c == call && !done:
							done = true
							return m
						}
						return connectortest.NoMishap
					})
					w.submit("po", purchase(object.PurchaseSent))
					w.pass(10 * time.Minute)
					w.erp.Deliver()
					w.pass(10 * time.Minute)
					if !done {
						t.Fatal("it never happened")
					}
					w.want("po", store.PostingVerified, "", 1)
				})
			})
		}
	}
}

func TestHubThatDiesAtAnyStepOfAWriteWritesOnce(t *testing.T) {
	steps := []string{"submitting", "asking", "prepared", "storing sending", "saved sending", "sending", "written", "storing posted", "saved posted", "reading back", "read back",
		"storing verified", "saved verified"}
	doubtful := []string{"storing in_doubt", "saved in_doubt", "looking up", "looked up", "storing found", "saved found"}
	for _, lost := range []bool{false, true} {
		for _, step := range append(slices.Clone(steps), doubtful...) {
			if slices.Contains(doubtful, step) != lost && (lost && strings.HasSuffix(step, "posted") || !lost) {
				continue
			}
			t.Run(fmt.Sprintf("%s, reply lost %v", step, lost), func(t *testing.T) {
				simulate(t, func(t *testing.T, w *world) {
					w.erp.Forgetful = true
					dead := false
					w.crash = func(s string) error {
						if dead || s == "write: "+step {
							dead = true
							return errDies
						}
						return nil
					}
					if lost {
						w.mishapOnce("write", connectortest.Loses)
					}
					w.start()
					x := store.Write{Key: key("po"), ERP: "erp", Want: purchase(object.PurchaseSent)}
					if _, _, err := w.tr.Submit(context.Background(), x); (err != nil) != (step == "submitting") {
						t.Fatal(err)
					}
					w.pass(time.Hour)
					if !dead {
						t.Fatalf("step %q never came", step)
					}
					if err := w.stop(); err == nil && step != "submitting" {
						t.Fatal("the trader did not notice its death")
					}
					w.crash = func(string) error { return nil }
					w.s.Close()
					w.open()
					w.start()
					w.submit("po", x.Want) // the caller got no answer, or asks again
					w.pass(time.Hour)
					w.want("po", store.PostingVerified, "", 1)
				})
			})
		}
	}
}

func TestStoreThatFailsForAMomentLosesAndDoublesNoWrite(t *testing.T) {
	for _, step := range []string{"storing sending", "storing posted", "saved posted", "written"} {
		t.Run(step, func(t *testing.T) {
			simulate(t, func(t *testing.T, w *world) {
				w.erp.Forgetful = true
				failed := false
				w.crash = func(s string) error {
					if s == "write: "+step && !failed {
						failed = true
						return errDisk
					}
					return nil
				}
				w.start()
				w.submit("po", purchase(object.PurchaseSent))
				w.submit("cc", count("5"))
				w.pass(time.Hour)
				w.want("po", store.PostingVerified, "", 1)
				w.want("cc", store.PostingVerified, "", 1)
			})
		})
	}
}

func TestWritesOfOneThreadGoOneAfterTheOther(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.start()
		w.submit("draft", purchase(object.PurchaseDraft))
		w.pass(time.Minute)
		number := w.want("draft", store.PostingVerified, "", 1).Document
		var order []string
		busy, failed := 0, false
		w.erp.Mishaps(func(call string, x connector.Write) connectortest.Mishap {
			if call != "write" {
				return connectortest.NoMishap
			}
			if busy++; busy > 1 {
				t.Error("two writes of one thread are under way at once")
			}
			time.Sleep(time.Second)
			busy--
			if !failed {
				failed = true
				return connectortest.Down // looked up, and written again before anything else
			}
			order = append(order, x.Key.String())
			return connectortest.NoMishap
		})
		w.submit("sent", sent(number))
		w.submit("receipt", receipt(number, "60"))
		w.submit("invoice", invoice(number, "60"))
		w.pass(time.Hour)
		for _, name := range []string{"sent", "receipt", "invoice"} {
			w.want(name, store.PostingVerified, "", 1)
		}
		if want := []string{key("sent").String(), key("receipt").String(), key("invoice").String()}; !slices.Equal(order, want) {
			t.Errorf("written in the order %v, want %v", order, want)
		}
	})
}

func TestDifferentObjectsAreWrittenSideBySide(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.start()
		now, most := 0, 0
		enter := func(n int) {
			w.asking.Lock()
			defer w.asking.Unlock()
			now += n
			most = max(most, now)
		}
		w.erp.Mishaps(func(call string, _ connector.Write) connectortest.Mishap {
			if call == "write" {
				enter(1)
				time.Sleep(time.Second)
				enter(-1)
			}
			return connectortest.NoMishap
		})
		for i := range 8 {
			w.submit(fmt.Sprint(i), count(fmt.Sprint(i)))
		}
		w.pass(time.Minute)
		if most != 4 { // posting.workers
			t.Errorf("at most %d writes were under way at once, want as many as postings may be: 4", most)
		}
	})
}

func TestRefusedWriteIsParkedItsNeighboursGoOnAndReplayWritesIt(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		refuses := true
		w.erp.Mishaps(func(call string, x connector.Write) connectortest.Mishap {
			if call == "write" && x.Key == key("sent") && refuses {
				return connectortest.Refuses
			}
			return connectortest.NoMishap
		})
		w.start()
		w.submit("draft", purchase(object.PurchaseDraft))
		w.pass(time.Minute)
		number := w.want("draft", store.PostingVerified, "", 1).Document
		w.submit("sent", sent(number))
		w.submit("again", sent(number))
		w.submit("receipt", receipt(number, "60"))
		w.pass(time.Minute)
		x := w.want("sent", store.PostingParked, "stopped", 0)
		if x.Class != "correctable" || x.NextStep == "" {
			t.Errorf("it is parked as %+v", x)
		}
		held := w.want("again", store.PostingDue, CodeWaits, 0)
		if !strings.Contains(held.Reason, x.Key.String()) {
			t.Errorf("a later write of the object waits for %q", held.Reason)
		}
		w.want("receipt", store.PostingVerified, "", 1) // another object
		if err := w.tr.Replay(context.Background(), key("receipt"), nil, "anna"); !errors.Is(err, ErrNotParked) {
			t.Errorf("a replay of what is done gives %v", err)
		}
		refuses = false
		if err := w.tr.Replay(context.Background(), key("sent"), []string{"future_date"}, "anna"); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		if x := w.want("sent", store.PostingVerified, "", 1); !slices.Equal(x.Accept, []string{"future_date"}) {
			t.Errorf("the warning that was accepted is %v", x.Accept)
		}
		w.want("again", store.PostingVerified, "", 0) // it is there already
		if _, steps := w.write("sent"); !slices.ContainsFunc(steps, func(s store.WriteStep) bool { return s.Step == "replayed" && s.By == "anna" }) {
			t.Error("nobody wrote down who replayed it")
		}
	})
}

func TestNobodyCanTellOfAWriteIsDecidedByAPerson(t *testing.T) {
	for _, there := range []bool{true, false} {
		simulate(t, func(t *testing.T, w *world) {
			w.erp.Forgetful = true
			w.erp.Mishaps(func(call string, _ connector.Write) connectortest.Mishap {
				switch {
				case call == "lookup":
					return connectortest.CantTell
				case call == "write" && w.erp.Calls("write") == 1 && there:
					return connectortest.Loses
				case call == "write" && w.erp.Calls("write") == 1:
					return connectortest.Down
				}
				return connectortest.NoMishap
			})
			w.start()
			w.submit("po", purchase(object.PurchaseSent))
			w.pass(time.Hour)
			effects := map[bool]int{true: 1}[there]
			w.want("po", store.PostingParked, "cannot_tell", effects)
			if n := w.erp.Calls("write"); n != 1 {
				t.Fatalf("it was sent %d times: a blind retry", n)
			}
			if err := w.tr.Replay(context.Background(), key("po"), nil, "anna"); err != nil { // asks again, sends nothing
				t.Fatal(err)
			}
			w.pass(time.Hour)
			w.want("po", store.PostingParked, "cannot_tell", effects)
			if there {
				if err := w.tr.Settle(context.Background(), key("po"), "PO-1", "I looked", "anna"); err != nil {
					t.Fatal(err)
				}
				w.pass(time.Hour)
				if x := w.want("po", store.PostingSettled, "accepted", 1); x.Document != "PO-1" {
					t.Errorf("it is settled with %q", x.Document)
				}
				return
			}
			if err := w.tr.WriteAgain(context.Background(), key("po"), "I looked", "anna"); err != nil {
				t.Fatal(err)
			}
			w.pass(time.Hour)
			w.want("po", store.PostingVerified, "", 1)
		})
	}
}

func TestObjectThatDiffersIsParkedAndComparedAgain(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.mishapOnce("verify", connectortest.Differs)
		w.start()
		w.submit("po", purchase(object.PurchaseSent))
		w.pass(time.Minute)
		w.want("po", store.PostingParked, "differs", 1)
		if err := w.tr.Replay(context.Background(), key("po"), nil, "anna"); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		w.want("po", store.PostingVerified, "", 1)
	})
}

func TestWritesOfASystemThatMayNotBeWrittenToAnyMoreAreShownAndGoOnLater(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.erp.Forgetful = true
		w.erp.Mishaps(func(call string, x connector.Write) connectortest.Mishap {
			switch {
			case x.Key == key("doubt") && call == "write" && w.erp.Calls("write") <= 3:
				return connectortest.Loses
			case x.Key == key("doubt") && call == "lookup", x.Key == key("posted") && call == "verify":
				return connectortest.NotYet
			case x.Key == key("due"):
				return connectortest.Busy
			}
			return connectortest.NoMishap
		})
		w.start()
		for _, name := range []string{"doubt", "posted", "due"} {
			w.submit(name, count("5"))
		}
		w.pass(time.Minute)
		w.stop()
		w.barred = true
		w.start()
		w.pass(time.Minute)
		for name, effects := range map[string]int{"doubt": 1, "posted": 1, "due": 0} {
			if x := w.want(name, store.PostingParked, "no_connector", effects); !strings.Contains(x.NextStep, "hub.yaml") {
				t.Errorf("the next step is %q", x.NextStep)
			}
		}
		w.stop()
		w.barred = false
		w.erp.Mishaps(nil)
		w.start()
		w.pass(10 * time.Minute)
		for _, name := range []string{"doubt", "posted", "due"} {
			w.want(name, store.PostingVerified, "", 1)
		}
	})
}

// The hub's computer sleeps for longer than anything is waited for, just before it reads that an object is not there yet. Much may have
// happened meanwhile, so the system is asked again before a person is.
func TestAnswerThatIsReadLateIsNoReasonToAskAPerson(t *testing.T) {
	for call, step := range map[string]string{"lookup": "write: looked up", "verify": "write: read back"} {
		t.Run(call, func(t *testing.T) {
			simulate(t, func(t *testing.T, w *world) {
				var off atomic.Int64
				w.now = func() time.Time { return time.Now().Add(time.Duration(off.Load())).Round(0) }
				var asleep atomic.Bool
				w.crash = func(s string) error {
					if s == step && asleep.Load() && off.Load() == 0 {
						off.Store(int64(48 * time.Hour))
						w.erp.Mishaps(nil)
					}
					return nil
				}
				lost := false
				w.erp.Mishaps(func(c string, _ connector.Write) connectortest.Mishap {
					switch {
					case c == call:
						return connectortest.NotYet
					case c == "write" && call == "lookup" && !lost:
						lost = true
						return connectortest.Loses
					}
					return connectortest.NoMishap
				})
				w.start()
				w.submit("po", purchase(object.PurchaseSent))
				w.pass(5 * time.Hour)
				if n := w.erp.Calls(call); n <= leastTries {
					t.Fatalf("it was asked for %d times only", n)
				}
				asleep.Store(true)
				w.pass(time.Hour)
				w.want("po", store.PostingVerified, "", 1)
			})
		})
	}
}

func TestConnectorThatBreaksDownOnAWriteStopsNoNeighbour(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.erp.Mishaps(func(call string, x connector.Write) connectortest.Mishap {
			if call == "prepare" && x.Key == key("po") {
				return connectortest.BreaksDown
			}
			return connectortest.NoMishap
		})
		w.start()
		w.submit("po", purchase(object.PurchaseSent))
		w.submit("cc", count("5"))
		w.pass(time.Minute)
		w.want("po", store.PostingParked, "connector_broke", 0)
		w.want("cc", store.PostingVerified, "", 1)
	})
}

// What happens is drawn from a seed: every mishap, deaths at any step, requests that come late, and callers that ask again.
func TestNothingIsLostOrDoubledWhateverHappensToWrites(t *testing.T) {
	from := seed(t)
	for run := range 3 {
		random := rand.New(rand.NewPCG(from, uint64(run)))
		simulate(t, func(t *testing.T, w *world) {
			w.erp.Forgetful = random.IntN(2) == 0
			calm := false
			w.erp.Mishaps(func(call string, _ connector.Write) connectortest.Mishap {
				w.asking.Lock()
				defer w.asking.Unlock()
				if calm || random.IntN(3) > 0 {
					return connectortest.NoMishap
				}
				all := map[string][]connectortest.Mishap{"prepare": {connectortest.Down}, "list": {connectortest.Down}, "get": {connectortest.Down},
					"write":  {connectortest.Down, connectortest.Loses, connectortest.Late, connectortest.Busy, connectortest.RestWanted, connectortest.BreaksDown},
					"lookup": {connectortest.Down, connectortest.NotYet}, "verify": {connectortest.Down, connectortest.NotYet}}[call]
				return all[random.IntN(len(all))]
			})
			w.mirrored()
			w.mirrors[0].Every = 5 * time.Minute
			w.crash = func(string) error {
				if !calm && random.IntN(60) == 0 {
					return errDies
				}
				return nil
			}
			names := map[string]object.Business{}
			for i := range 20 {
				names[fmt.Sprint("po", i)] = purchase(object.PurchaseSent)
				names[fmt.Sprint("cc", i)] = count(fmt.Sprint(i))
				names[fmt.Sprint("sh", i)] = receipt(fmt.Sprint("PO-", i%4), fmt.Sprint(i+1))
			}
			draw := func(n int) int { // the lanes draw, too
				w.asking.Lock()
				defer w.asking.Unlock()
				return random.IntN(n)
			}
			deaths := 0
			for round := range 40 {
				w.asking.Lock()
				calm = round > 30
				w.asking.Unlock()
				w.start()
				for name, b := range names {
					if calm || draw(8) == 0 {
						_, _, _ = w.tr.Submit(context.Background(), store.Write{Key: key(name), ERP: "erp", Want: b}) // what fails is asked again
					}
				}
				w.pass(time.Duration(draw(300)) * time.Second)
				w.erp.Deliver()
				if calm {
					w.pass(30 * time.Minute)
				}
				if w.stop() != nil {
					deaths++
				}
				w.s.Close()
				w.open()
			}
			for name := range names {
				w.want(name, store.PostingVerified, "", 1)
			}
			if deaths == 0 {
				t.Error("the hub never died: nothing was tried")
			}
			t.Logf("%d deaths, %d writes sent, %d look-ups", deaths, w.erp.Calls("write"), w.erp.Calls("lookup"))
		})
	}
}

// talking notes what is said with it: it loses its answer to a write, and says later that it has refused it.
type talking struct{ *connectortest.Ledger }

func (talking) WriteBusiness(ctx context.Context, _ connector.Write, _ []byte) connector.Outcome {
	exchange.Note(ctx, "POST", "/orders", []byte("the write"), "", []byte("no answer"))
	return connector.Outcome{Result: connector.InDoubt, Reason: "no answer"}
}

func (talking) LookupBusiness(ctx context.Context, _ connector.Write, _ []byte) (connector.Finding, error) {
	exchange.Note(ctx, "GET", "/orders", []byte("the question"), "200 OK", []byte("refused"))
	return connector.Finding{Presence: connector.Absent, Rejection: &connector.Outcome{Result: connector.Rejected, Class: connector.Correctable, Code: "REFUSED", Reason: "refused"}}, nil
}

func TestWhatWasWrittenStaysBesideTheQuestionForIt(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.other = talking{w.erp}
		w.start()
		w.submit("po", purchase(object.PurchaseSent))
		w.pass(time.Minute)
		w.want("po", store.PostingParked, "REFUSED", 0)
		_, _, said, err := w.s.WriteLife(context.Background(), key("po"))
		var got []string
		for _, x := range said {
			got = append(got, x.Purpose+": "+x.Request)
		}
		if want := []string{"post: the write", "look up: the question"}; err != nil || !slices.Equal(got, want) {
			t.Errorf("what was said is %q %v, want %q", got, err, want)
		}
	})
}
