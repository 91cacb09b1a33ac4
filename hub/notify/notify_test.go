package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/inbox"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/wire"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// receiver notes what arrives; fault decides, after the effect, what the sender hears of it.
type receiver struct {
	mu    sync.Mutex
	got   []store.Message
	at    []time.Time
	down  bool
	lost  func() bool // the message does not arrive, and nobody says so
	fault func(n int) error
}

func (r *receiver) send(_ context.Context, m store.Message) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down {
		return "", refuse(false, "start it", "connection refused")
	}
	if r.lost != nil && r.lost() {
		return "", context.Canceled
	}
	r.got, r.at = append(r.got, m), append(r.at, time.Now())
	if r.fault != nil {
		if err := r.fault(len(r.got)); err != nil {
			return "", err
		}
	}
	return "200 OK", nil
}

func (r *receiver) set(down bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = down
}

func (r *receiver) all() []store.Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

func (r *receiver) subjects() (list []string) {
	for _, m := range r.all() {
		list = append(list, m.Subject)
	}
	return list
}

func read(t *testing.T, m store.Message) (e event) {
	t.Helper()
	if err := json.Unmarshal([]byte(m.Body), &e); err != nil {
		t.Fatal(err)
	}
	return e
}

// world is a store in which things happen, and people who are told.
type world struct {
	t     *testing.T
	s     *store.Store
	cfg   Config
	who   map[string]*receiver
	agent store.Agent
	seq   int
	die   atomic.Pointer[context.CancelFunc] // ends the notifier that runs, and does not wait
	stop  func()
}

func simulate(t *testing.T, rules []RuleConfig, f func(t *testing.T, w *world)) {
	path := filepath.Join(t.TempDir(), "hub.db")
	t.Setenv("NOTIFY_SECRET", "secret")
	synctest.Test(t, func(t *testing.T) {
		s, err := store.Open(context.Background(), path, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		w := &world{t: t, s: s, who: map[string]*receiver{}, stop: func() {}}
		w.cfg.Rules = rules
		for _, r := range rules {
			for _, name := range r.Tell {
				if w.who[name] == nil {
					w.who[name] = &receiver{}
					hook := &WebhookConfig{URL: "https://" + name + ".example"}
					hook.Secret.Env = "NOTIFY_SECRET"
					w.cfg.Receivers = append(w.cfg.Receivers, ReceiverConfig{Name: name, Webhook: hook})
				}
			}
		}
		w.cfg.SetDefaults("")
		if faults := w.cfg.Check([]string{"ulm", "lyon"}); len(faults) > 0 {
			t.Fatal(faults)
		}
		w.update(func(tx *store.Tx) (err error) { w.agent, err = tx.AgentByName("ulm", "line1"); return err })
		defer func() {
			w.stop()
			s.Close()
		}()
		f(t, w)
	})
}

func (w *world) notifier() *Notifier {
	w.t.Helper()
	n, err := New(Options{Store: w.s, Config: w.cfg, Inbox: &inbox.Reader{Store: w.s, Policy: reconcile.DefaultPolicy(), Now: time.Now}})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, p := range n.ways {
		p.sender = w.who[p.receiver]
	}
	return n
}

func (w *world) start() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	n := w.notifier()
	go func() { ended <- n.Run(ctx) }()
	w.die.Store(&cancel)
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
	})
}

func (w *world) pass(d time.Duration) {
	time.Sleep(d) // fake time
	synctest.Wait()
}

func (w *world) update(f func(tx *store.Tx) error) {
	w.t.Helper()
	if err := w.s.Update(context.Background(), f); err != nil {
		w.t.Fatal(err)
	}
}

// park stores n facts whose postings were refused, and returns their ids.
func (w *world) park(n int, code string) (ids []int64) {
	w.t.Helper()
	return w.post(n, store.Posting{State: store.PostingParked, Class: "correctable", Code: code, Reason: "the system said no", NextStep: "do something"})
}

func (w *world) post(n int, p store.Posting) (ids []int64) {
	w.t.Helper()
	for n > 0 {
		some := min(n, 1000)
		n -= some
		var records []store.Record
		for range some {
			w.seq++
			position := factkey.Position("notify", fmt.Sprint(w.seq))
			f := object.Fact{Key: factkey.Of(position), Kind: object.KindConfirmation, Plant: "ulm", Source: "press", Rule: "r", TimeZone: "UTC", Position: position,
				OccurredAt: time.Now().UTC(), RecordedAt: time.Now().UTC(), Confirmation: &object.Confirmation{OrderNo: "WO-1", Item: "P", Unit: "C62", Yield: decimal.NewFromInt(12)}}
			body, err := wire.EncodeFact(f)
			if err != nil {
				w.t.Fatal(err)
			}
			records = append(records, store.Record{Key: f.Key, Body: body})
		}
		b := store.Batch{AgentID: w.agent.ID, Agent: "ulm/line1", Generation: "g", FirstSeq: uint64(w.seq - some + 1), Records: records}
		if _, err := w.s.AppendFacts(context.Background(), []store.Batch{b}); err != nil {
			w.t.Fatal(err)
		}
		_, facts, err := w.s.Unplanned(context.Background(), 1000)
		if err != nil {
			w.t.Fatal(err)
		}
		err = w.s.Repeat(context.Background(), func(tx *store.Tx) error {
			var all []store.Planned
			for _, f := range facts {
				x := p
				x.FactID, x.ERP, x.OrderNo, x.Plant, x.Since = f.ID, "s4", "WO-1", "ulm", tx.Now()
				all = append(all, store.Planned{Fact: f, Lines: f.Fact.FactQuantities(), Posting: &x})
			}
			return errors.Join(tx.AddPlanned(all), tx.SetPlanCursor(facts[len(facts)-1].ID))
		})
		if err != nil {
			w.t.Fatal(err)
		}
		for _, f := range facts {
			ids = append(ids, f.ID)
		}
	}
	return ids
}

func (w *world) become(id int64, change func(p *store.Posting)) {
	w.t.Helper()
	w.update(func(tx *store.Tx) error {
		p, err := tx.Posting(id)
		if err != nil {
			return err
		}
		p.Since = tx.Now()
		change(&p)
		return tx.PutPosting(p)
	})
}

func (w *world) alarm(subject, code string) {
	w.update(func(tx *store.Tx) error {
		return tx.RaiseAlarm(subject, code, "two agents use one certificate", "find the copy")
	})
}

func everything(names ...string) []RuleConfig { return []RuleConfig{{Tell: names, Severity: "low"}} }

func wants(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("told %q, want %q", got, want)
	}
}

func TestWhoOwnsAnExceptionIsToldWithinAMinuteAndRemindedOncePerTier(t *testing.T) {
	rules := []RuleConfig{{Tell: []string{"store"}, Owner: []string{"production"}, Plant: []string{"ulm"}}, {Tell: []string{"office"}, Owner: []string{"controlling"}}, {Tell: []string{"boss"}, Tier: 2}}
	simulate(t, rules, func(t *testing.T, w *world) {
		w.start()
		w.pass(time.Hour)
		w.park(1, "no_stock")
		w.pass(time.Minute)
		store, office, boss := w.who["store"], w.who["office"], w.who["boss"]
		if n := len(store.all()); n != 1 {
			t.Fatalf("%d messages after a minute", n)
		}
		e := read(t, store.all()[0])
		x := e.Data.Exceptions[0]
		if !strings.HasPrefix(e.Data.Title, "[ulm] 12 C62 yield of P: waits for a person (for ") || e.Subject != "ulm" || e.Type != typeNews || e.Data.Count != 1 || x.Owner != "production" ||
			x.Proposed != "do something" || x.Why != "the system said no" || x.OrderNo != "WO-1" || len(x.Amounts) != 1 || x.Amounts[0].Quantity != "12" || x.Since.IsZero() || x.Due.Sub(x.Since) != 8*time.Hour {
			t.Errorf("%+v", e)
		}
		w.pass(7 * time.Hour)
		if n := len(store.all()); n != 1 {
			t.Fatalf("%d messages before its time has passed: %q", n, store.subjects())
		}
		w.pass(time.Hour)
		w.pass(7 * time.Hour)
		wants(t, store.subjects()[1:], "[ulm] Reminder: 12 C62 yield of P: waits for a person (for 8 h)")
		w.pass(72 * time.Hour)
		wants(t, store.subjects()[2:], "[ulm] Second reminder: 12 C62 yield of P: waits for a person (for 16 h)")
		wants(t, boss.subjects(), "[ulm] Second reminder: 12 C62 yield of P: waits for a person (for 16 h)")
		wants(t, office.subjects())
	})
}

func TestAStormIsOneMessageAndALongOneADigest(t *testing.T) {
	simulate(t, everything("ops"), func(t *testing.T, w *world) {
		w.start()
		w.pass(time.Minute)
		w.park(10_000, "period_closed")
		w.pass(time.Minute)
		ops := w.who["ops"]
		if got := ops.subjects(); len(got) != 1 || !strings.HasPrefix(got[0], "[ulm] 10,000 postings: period closed, ERP s4 (the oldest for ") {
			t.Fatalf("told %q", got)
		}
		e := read(t, ops.all()[0])
		if e.Data.Count != 10_000 || len(e.Data.Exceptions) != mostShown || len(e.Data.Groups) != 1 || e.Data.Groups[0].Count != 10_000 || !strings.Contains(e.Data.Text, "9,990 more") || len(ops.all()[0].Body) > 16<<10 {
			t.Errorf("%d bytes: %+v", len(ops.all()[0].Body), e)
		}
	})
}

func TestAStormThatGoesOnIsADigestAndWhatIsUrgentIsNotKeptForIt(t *testing.T) {
	simulate(t, everything("ops"), func(t *testing.T, w *world) {
		w.start()
		ops := w.who["ops"]
		w.park(100, "period_closed")
		w.pass(time.Minute)
		for range 180 { // one each twenty seconds for an hour
			w.park(1, "period_closed")
			w.pass(20 * time.Second)
		}
		w.alarm("ulm/line1", "identity_in_use")
		w.pass(time.Minute)
		if !slices.ContainsFunc(ops.subjects(), func(s string) bool { return strings.Contains(s, "[ulm] ulm/line1: identity in use") }) {
			t.Errorf("what is urgent is not told within a minute: %q", ops.subjects())
		}
		w.pass(10 * time.Minute)
		sum := 0
		for _, m := range ops.all() {
			if e := read(t, m); e.Data.Groups[0].Kind == store.InboxPosting {
				sum += e.Data.Count
			}
		}
		if n := len(ops.all()); sum != 280 || n > 10 {
			t.Errorf("%d postings were told in %d messages: %q", sum, n, ops.subjects())
		}
	})
}

func TestAReceiverThatIsDownForAnHourHoldsUpNobodyAndIsShown(t *testing.T) {
	simulate(t, everything("down", "up"), func(t *testing.T, w *world) {
		down, up := w.who["down"], w.who["up"]
		down.set(true)
		w.start()
		refs := map[string]bool{}
		park := func(n int) {
			for _, id := range w.park(n, "no_stock") {
				refs[fmt.Sprintf("posting:%d", id)] = true
			}
		}
		park(1)
		w.pass(time.Minute)
		if !strings.Contains(up.subjects()[0], "12 C62") {
			t.Fatalf("told %q", up.subjects())
		}
		for range 59 {
			park(1)
			w.pass(time.Minute)
		}
		rows, err := w.s.Inbox(t.Context(), store.InboxFilter{Kind: store.InboxAlarm}, store.InboxPlace{}, 10)
		if err != nil || len(rows) != 1 || rows[0].Code != store.AlarmNotDelivered {
			t.Fatalf("%+v %v", rows, err)
		}
		e, _, err := (&inbox.Reader{Store: w.s, Policy: reconcile.DefaultPolicy(), Now: time.Now}).Entry(t.Context(), rows[0])
		if err != nil || !strings.Contains(e.What, "receiver down") || !strings.Contains(e.Why, "connection refused") || e.Proposed != "start it" {
			t.Errorf("%+v %v", e, err)
		}
		if !slices.ContainsFunc(up.subjects(), func(s string) bool { return strings.Contains(s, "receiver down: not delivered") }) {
			t.Errorf("the other receiver was not told that this one cannot be reached: %q", up.subjects())
		}
		if counts, err := w.s.MessageCounts(t.Context()); err != nil || !slices.ContainsFunc(counts, func(c store.MessageCount) bool {
			return c.Receiver == "down" && c.State == store.MessageDue && c.Count == 1 && time.Since(c.Oldest) > 50*time.Minute
		}) {
			t.Errorf("%+v %v", counts, err)
		}
		down.set(false)
		w.pass(25 * time.Minute)
		sum := 0
		for _, m := range down.all() {
			e := read(t, m)
			if strings.Contains(m.Body, "receiver down") {
				t.Errorf("it is told that it could not be reached: %s", m.Subject)
			}
			sum += e.Data.Count
		}
		if sum != len(refs) || len(down.all()) > 3 {
			t.Errorf("%d of %d are told in %d messages: %q", sum, len(refs), len(down.all()), down.subjects())
		}
		if rows, err := w.s.Inbox(t.Context(), store.InboxFilter{Kind: store.InboxAlarm}, store.InboxPlace{}, 10); err != nil || len(rows) > 0 {
			t.Errorf("the alarm is still open: %+v %v", rows, err)
		}
		w.pass(6 * time.Hour)
		if n := len(down.all()); n > 3 {
			t.Errorf("told again: %q", down.subjects())
		}
	})
}

func TestALostReplyBringsTheSameMessageAgain(t *testing.T) {
	simulate(t, everything("ops"), func(t *testing.T, w *world) {
		ops := w.who["ops"]
		ops.fault = func(n int) error {
			if n <= 2 {
				return errors.New("the connection was cut")
			}
			return nil
		}
		w.start()
		w.park(1, "no_stock")
		w.pass(10 * time.Minute)
		got := ops.all()
		if len(got) != 3 {
			t.Fatalf("it came %d times: %q", len(got), ops.subjects())
		}
		for _, m := range got[1:] {
			if m.MessageID != got[0].MessageID || m.Body != got[0].Body || m.Subject != got[0].Subject || !m.MadeAt.Equal(got[0].MadeAt) {
				t.Errorf("it came again as another: %+v, %+v", m, got[0])
			}
		}
	})
}

func seedOf(t *testing.T) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("NOTIFY_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("NOTIFY_SEED=%d", seed)
	return seed
}

// The hub dies before it looks, after it has stored a message, with the message on the way, after it arrived and before that is known, again and again,
// while things happen and replies are lost. Whoever drops what comes again is told of each exception once.
func TestHubThatDiesAtAnyStepTellsOfEverything(t *testing.T) {
	seed := seedOf(t)
	for round := range 10 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			simulate(t, everything("ops", "mes"), func(t *testing.T, w *world) {
				repeats := 0
				rng := rand.New(rand.NewPCG(seed, uint64(round)))
				for _, name := range []string{"ops", "mes"} {
					own := rand.New(rand.NewPCG(rng.Uint64(), 1)) // each receiver fails by itself
					w.who[name].lost = func() bool {
						if own.IntN(4) > 0 {
							return false
						}
						(*w.die.Load())() // the hub dies with the message on the way
						return true
					}
					w.who[name].fault = func(int) error {
						switch own.IntN(3) {
						case 0:
							return errors.New("the reply was lost")
						case 1:
							(*w.die.Load())() // the hub dies with the message at the receiver
							return context.Canceled
						}
						return nil
					}
				}
				want := 0
				for range 20 {
					w.start()
					n := 1 + rng.IntN(5)
					w.park(n, "no_stock")
					want += n
					w.pass(time.Duration(rng.Int64N(int64(time.Minute))))
					w.stop()
				}
				for _, r := range w.who {
					r.mu.Lock()
					r.fault, r.lost = nil, nil
					r.mu.Unlock()
				}
				w.start()
				w.pass(2 * time.Hour)
				for name, r := range w.who {
					byID := map[string]string{}
					told := map[string]int{}
					sum := 0
					for _, m := range r.all() {
						if body, again := byID[m.MessageID]; again {
							repeats++
							if body != m.Body {
								t.Errorf("%s: message %s came with other words", name, m.MessageID)
							}
							continue
						}
						byID[m.MessageID] = m.Body
						e := read(t, m)
						if e.Data.Plant == "" {
							continue // that the other receiver cannot be reached
						}
						sum += e.Data.Count
						for _, x := range e.Data.Exceptions {
							told[x.Ref]++
						}
					}
					if sum != want {
						t.Errorf("%s was told of %d of %d", name, sum, want)
					}
					for ref, n := range told {
						if n > 1 {
							t.Errorf("%s was told of %s %d times", name, ref, n)
						}
					}
				}
				if repeats == 0 {
					t.Error("no message ever came again: the test does not show what it should")
				}
			})
		})
	}
}

func TestEachStepMayBeTheLast(t *testing.T) {
	simulate(t, everything("ops"), func(t *testing.T, w *world) {
		ctx := context.Background()
		ops := w.who["ops"]
		w.park(1, "no_stock") // and the hub dies
		look := func() *Notifier {
			n := w.notifier()
			for range 3 {
				if err := n.look(ctx); err != nil {
					t.Fatal(err)
				}
				w.pass(10 * time.Second)
			}
			return n
		}
		first := look() // stores the message, and the hub dies
		if len(ops.all()) != 0 {
			t.Fatal("it was sent already")
		}
		m, err := w.s.NextMessage(ctx, "ops")
		if err != nil {
			t.Fatal(err)
		}
		look() // tells nothing twice
		if _, err := first.ways[0].send(ctx, m); err != nil {
			t.Fatal(err) // sent, and the hub dies
		}
		w.start()
		w.pass(time.Hour)
		got := ops.all()
		if len(got) != 2 || got[0].MessageID != got[1].MessageID || got[0].Body != got[1].Body {
			t.Errorf("%d messages: %q", len(got), ops.subjects())
		}
	})
}

func TestWhatHappensAgainIsToldAgain(t *testing.T) {
	simulate(t, everything("ops"), func(t *testing.T, w *world) {
		w.start()
		id := w.park(1, "no_stock")[0]
		w.pass(time.Minute)
		w.become(id, func(p *store.Posting) { p.State = store.PostingDue })
		w.pass(time.Minute)
		if all, err := w.s.Notices(t.Context()); err != nil || len(all) != 0 {
			t.Fatalf("what is settled is still noted: %+v %v", all, err)
		}
		w.become(id, func(p *store.Posting) { p.State = store.PostingParked })
		w.pass(time.Minute)
		// Parked anew between two looks.
		w.become(id, func(p *store.Posting) { p.State = store.PostingDue })
		w.become(id, func(p *store.Posting) { p.State = store.PostingParked })
		w.pass(time.Minute)
		if n := len(w.who["ops"].all()); n != 3 {
			t.Errorf("%d messages of three times: %q", n, w.who["ops"].subjects())
		}
		// Settled before anybody could be told: nothing is said.
		w.become(w.park(1, "no_stock")[0], func(p *store.Posting) { p.State = store.PostingVerified })
		w.pass(time.Hour)
		if n := len(w.who["ops"].all()); n != 3 {
			t.Errorf("%q", w.who["ops"].subjects())
		}
	})
}

func TestWhatGoesOnByItselfIsToldOnlyWhenItTakesTooLong(t *testing.T) {
	simulate(t, everything("ops"), func(t *testing.T, w *world) {
		w.start()
		w.post(1, store.Posting{State: store.PostingInDoubt, Reason: "no answer"})
		f := reconcile.Finding{Type: reconcile.BalanceDrift, Subject: "stock P", Plant: "lyon", ERP: "s4", Severity: reconcile.Medium, Owner: reconcile.Warehouse, Heal: true,
			Proposed: reconcile.Action{Kind: reconcile.Replay, Text: "replay it"}}
		changes, err := w.s.MergeDiscrepancies(t.Context(), "lyon", "s4", "", []reconcile.Finding{f}, reconcile.DefaultPolicy())
		if err != nil || len(changes) != 1 || changes[0].State != reconcile.Healing {
			t.Fatalf("%+v %v", changes, err)
		}
		w.pass(7 * time.Hour)
		wants(t, w.who["ops"].subjects())
		w.pass(time.Hour + time.Minute)
		wants(t, w.who["ops"].subjects(), "[ulm] Reminder: 12 C62 yield of P: the outside system did not answer (for 8 h)")
	})
}

func TestAFactIsToldOnceThoughThereIsADiscrepancyToo(t *testing.T) {
	simulate(t, everything("ops"), func(t *testing.T, w *world) {
		id := w.park(1, "no_stock")[0]
		f, err := w.s.FactByID(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		key := f.Fact.Key.String()
		for _, x := range []reconcile.Finding{
			{Type: reconcile.Deficit, Subject: "fact " + key, Facts: []string{key}, Plant: "ulm", ERP: "s4", OrderNo: "WO-1", Severity: reconcile.Medium, Owner: reconcile.Warehouse},
			{Type: reconcile.BalanceDrift, Subject: "stock P", Plant: "ulm", ERP: "s4", OrderNo: "WO-1", Severity: reconcile.Medium, Owner: reconcile.Controlling},
		} {
			if _, err := w.s.MergeDiscrepancies(t.Context(), "ulm", "s4", x.OrderNo, []reconcile.Finding{x}, reconcile.DefaultPolicy()); err != nil {
				t.Fatal(err)
			}
		}
		w.start()
		w.pass(time.Hour)
		told := map[string]int{}
		for _, m := range w.who["ops"].all() {
			for _, x := range read(t, m).Data.Exceptions {
				told[x.Ref]++
			}
		}
		if want := map[string]int{fmt.Sprintf("posting:%d", id): 1, "discrepancy:2": 1}; fmt.Sprint(told) != fmt.Sprint(want) {
			t.Errorf("%v, want %v", told, want)
		}
	})
}

func TestWhoIsNotConfiguredAnyMoreIsLetGo(t *testing.T) {
	simulate(t, everything("ops", "old"), func(t *testing.T, w *world) {
		w.who["old"].set(true)
		w.start()
		w.park(1, "no_stock")
		w.pass(time.Hour)
		w.stop()
		w.cfg.Receivers = slices.DeleteFunc(w.cfg.Receivers, func(r ReceiverConfig) bool { return r.Name == "old" })
		w.start()
		w.pass(time.Hour)
		counts, err := w.s.MessageCounts(t.Context())
		if err != nil || !slices.ContainsFunc(counts, func(c store.MessageCount) bool { return c.Receiver == "old" && c.State == store.MessageDropped }) {
			t.Errorf("%+v %v", counts, err)
		}
		if alarms, err := w.s.OpenAlarms(t.Context(), store.AlarmNotDelivered, ""); err != nil || len(alarms) > 0 {
			t.Errorf("%v %v", alarms, err)
		}
		// Nobody at all.
		w.stop()
		w.cfg = Config{}
		w.start()
		w.pass(time.Minute)
		if all, err := w.s.Notices(t.Context()); err != nil || len(all) > 0 {
			t.Errorf("%v %v", all, err)
		}
	})
}

func TestNobodysNameAndNothingThatWasReceivedIsTold(t *testing.T) {
	simulate(t, everything("ops"), func(t *testing.T, w *world) {
		id := w.park(1, "no_stock")[0]
		if err := w.s.AssignInbox(t.Context(), fmt.Sprintf("posting:%d", id), "quality", "Anna Schmidt", "Bert Maier", "his"); err != nil {
			t.Fatal(err)
		}
		w.update(func(tx *store.Tx) error {
			return tx.AddException(store.Fact{ID: 9999, AgentID: w.agent.ID, Fact: object.Fact{Source: "mes", OccurredAt: time.Now(), Exception: &object.Exception{
				Code: "bad_value", Item: "row 7", Reason: "no number " + strings.Repeat("z", 1000), NextStep: "mend it", Excerpt: []byte("operator=Carla Weber")}}})
		})
		w.start()
		w.pass(time.Hour)
		text := ""
		for _, m := range w.who["ops"].all() {
			text += m.Body
		}
		for _, secret := range []string{"Anna", "Schmidt", "Bert", "Carla", strings.Repeat("z", 400)} {
			if strings.Contains(text, secret) {
				t.Errorf("%q is told: %s", secret, text)
			}
		}
		for _, want := range []string{"quality", "row 7", "mend it"} {
			if !strings.Contains(text, want) {
				t.Errorf("%q is not told: %s", want, text)
			}
		}
	})
}

func TestAMessageIsGivenUpAfterAWeekAndSaysSo(t *testing.T) {
	simulate(t, everything("ops"), func(t *testing.T, w *world) {
		w.who["ops"].set(true)
		w.start()
		w.park(1, "no_stock")
		w.pass(time.Hour)
		w.stop()
		w.pass(7 * 24 * time.Hour)
		w.start()
		w.pass(time.Hour)
		counts, err := w.s.MessageCounts(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		states := map[store.MessageState]int64{}
		for _, c := range counts {
			states[c.State] += c.Count
		}
		if states[store.MessageDropped] == 0 || states[store.MessageDelivered] != 0 || states[store.MessageDue] > 4 {
			t.Errorf("%v", states)
		}
	})
}

func TestEverySortOfEntryHasAName(t *testing.T) {
	for _, kind := range []string{store.InboxPosting, store.InboxDiscrepancy, store.InboxException, store.InboxConflict, store.InboxUnreadable, store.InboxAlarm, store.InboxWrite} {
		for n, want := range map[int]string{1: "1 ", 3: "3 "} {
			if got := sort(group{Kind: kind, Count: n}); !strings.HasPrefix(got, want) || len(got) < 6 {
				t.Errorf("%d of kind %q are called %q", n, kind, got)
			}
		}
	}
}

// settle ends an alarm as the hub does by itself.
func (w *world) settle(subject, code, note string) {
	w.update(func(tx *store.Tx) error { return tx.SettleAlarm(subject, code, note) })
}

// fleet makes agents of many plants known.
func (w *world) fleet(n int) (names []string) {
	w.update(func(tx *store.Tx) error {
		names = names[:0]
		for i := range n {
			a, err := tx.AgentByName(fmt.Sprintf("plant%d", i/10), fmt.Sprintf("line%d", i%10))
			if err != nil {
				return err
			}
			names = append(names, a.Name())
		}
		return nil
	})
	return names
}

func (w *world) silent(names ...string) {
	w.update(func(tx *store.Tx) error {
		for _, name := range names {
			if err := tx.RaiseAlarm(name, store.AlarmAgentSilent, "agent "+name+" has not been heard of", "look at the line"); err != nil {
				return err
			}
		}
		return nil
	})
}

// A network cut takes three hundred agents in thirty plants: one message says so, and one that it is over, though they come back one
// after the other.
func TestACutLineThatTakesThreeHundredAgentsIsOneMessageAndItsEndAnother(t *testing.T) {
	simulate(t, everything("ops", "boss"), func(t *testing.T, w *world) {
		w.start()
		names := w.fleet(300)
		w.pass(time.Minute)
		w.silent(names...)
		w.pass(time.Minute)
		for _, who := range []string{"ops", "boss"} {
			got := w.who[who].all()
			if len(got) != 1 || !strings.HasPrefix(got[0].Subject, "[30 plants] 300 alarms: agent silent (the oldest for ") {
				t.Fatalf("%s was told %q", who, w.who[who].subjects())
			}
			if e := read(t, got[0]); e.Data.Count != 300 || len(e.Data.Plants) != 30 || len(e.Data.Exceptions) != mostShown || !strings.Contains(e.Data.Text, "plants: plant0, plant1, ") || len(got[0].Body) > 16<<10 {
				t.Errorf("%d bytes: %+v", len(got[0].Body), e)
			}
		}
		w.pass(20 * time.Minute)
		for _, some := range slices.Collect(slices.Chunk(names[:288], 24)) { // two minutes
			for _, name := range some {
				w.settle(name, store.AlarmAgentSilent, store.EndedHeard)
			}
			w.pass(10 * time.Second)
		}
		w.pass(time.Minute)
		for _, who := range []string{"ops", "boss"} {
			got := w.who[who].all()
			if len(got) != 2 || got[1].Subject != "[hub] Over: 288 alarms: agent silent (12 still open)" {
				t.Fatalf("%s was told %q", who, w.who[who].subjects())
			}
			if e := read(t, got[1]); e.Type != typeOver || e.Data.Count != 288 || e.Data.Still != 12 || len(e.Data.Over) != mostShown || !strings.Contains(e.Data.Text, "278 more are over") {
				t.Errorf("%+v", e)
			}
		}
	})
}

func TestThatAnAlarmIsOverIsToldToThoseWhoWereToldOfItAndOnce(t *testing.T) {
	rules := []RuleConfig{{Tell: []string{"ulm"}, Plant: []string{"ulm"}}, {Tell: []string{"lyon"}, Plant: []string{"lyon"}}}
	simulate(t, rules, func(t *testing.T, w *world) {
		w.start()
		w.silent("ulm/line1")
		w.alarm("ulm/line1", "identity_in_use")
		w.pass(time.Minute)
		ulm := w.who["ulm"]
		if n := len(ulm.all()); n == 0 {
			t.Fatal("nobody was told")
		}
		before := len(ulm.all())
		w.settle("ulm/line1", store.AlarmAgentSilent, store.EndedHeard)
		id := w.openAlarm("identity_in_use")
		if err := w.s.CloseAlarm(t.Context(), id, "found the copy (Erika Mustermann)"); err != nil {
			t.Fatal(err)
		}
		for range 5 { // the hub starts anew meanwhile
			w.stop()
			w.start()
			w.pass(20 * time.Second)
		}
		w.pass(time.Minute)
		got := ulm.all()[before:]
		if len(got) != 1 || !strings.HasPrefix(got[0].Subject, "[hub] Over: ulm/line1: agent silent, after 1 min") || strings.Contains(got[0].Body, "Erika") {
			t.Fatalf("told %q", ulm.subjects())
		}
		if x := read(t, got[0]).Data.Over[0]; x.Note != store.EndedHeard || !x.Until.After(x.Since) {
			t.Errorf("%+v", x)
		}
		// What was over before anybody was told is nothing to tell.
		w.silent("ulm/line1")
		w.settle("ulm/line1", store.AlarmAgentSilent, store.EndedHeard)
		w.pass(time.Hour)
		wants(t, ulm.subjects()[before+1:])
		wants(t, w.who["lyon"].subjects())
	})
}

func (w *world) openAlarm(code string) int64 {
	w.t.Helper()
	all, err := w.s.Alarms(context.Background(), false, store.Page{})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, a := range all {
		if a.Code == code {
			return a.ID
		}
	}
	w.t.Fatalf("no alarm %q is open", code)
	return 0
}

// Nobody hears first that something is over, and then that it is not.
func TestTheEndOfAnAlarmOvertakesItsBeginningNowhere(t *testing.T) {
	simulate(t, everything("ops"), func(t *testing.T, w *world) {
		ops := w.who["ops"]
		w.start()
		for round := range 4 {
			ops.set(true)
			w.silent("ulm/line1")
			w.pass(50 * time.Minute) // it is tried each ten minutes now
			w.settle("ulm/line1", store.AlarmAgentSilent, store.EndedHeard)
			w.pass(20 * time.Second)
			ops.set(false)
			w.pass(time.Hour)
			got := ops.subjects()
			if len(got) != 2*(round+1) || !strings.Contains(got[2*round], "] ulm/line1: agent silent") || !strings.HasPrefix(got[2*round+1], "[hub] Over: ulm/line1: agent silent") {
				t.Fatalf("told %q", got)
			}
		}
	})
}

// The hub dies again and again between what it stores and what it sends, while alarms begin and end: everybody ends up with each beginning
// before its end, and no alarm open that is over.
func TestEachBeginningHasItsEndHoweverTheHubDies(t *testing.T) {
	seed := rand.Uint64()
	if text := os.Getenv("NOTIFY_SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	t.Logf("NOTIFY_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	simulate(t, everything("ops"), func(t *testing.T, w *world) {
		ops := w.who["ops"]
		names := w.fleet(8)
		ops.fault = func(int) error {
			if rng.IntN(3) == 0 {
				(*w.die.Load())() // before it is stored that it was sent
			}
			return nil
		}
		w.start()
		open := map[string]bool{}
		for range 60 {
			name := names[rng.IntN(len(names))]
			if open[name] = !open[name]; open[name] {
				w.silent(name)
			} else {
				w.settle(name, store.AlarmAgentSilent, store.EndedHeard)
			}
			w.pass(time.Duration(rng.IntN(180)) * time.Second)
			w.stop()
			w.start()
		}
		ops.fault = nil
		for _, name := range names {
			if open[name] {
				w.settle(name, store.AlarmAgentSilent, store.EndedHeard)
			}
		}
		w.pass(2 * time.Hour)
		told, over := map[string]bool{}, map[string]bool{}
		seen := map[string]string{}
		for _, m := range ops.all() {
			if body, again := seen[m.MessageID]; again {
				if body != m.Body {
					t.Fatal("a message came again with other words")
				}
				continue
			}
			seen[m.MessageID] = m.Body
			e := read(t, m)
			for _, x := range e.Data.Exceptions {
				told[x.Ref] = true
			}
			for _, x := range e.Data.Over {
				if !told[x.Ref] || over[x.Ref] {
					t.Fatalf("%s is over, told before: %t, over before: %t", x.Ref, told[x.Ref], over[x.Ref])
				}
				over[x.Ref] = true
			}
		}
		if len(told) < 5 || len(over) != len(told) {
			t.Fatalf("%d alarms were told, and the end of %d", len(told), len(over))
		}
	})
}
