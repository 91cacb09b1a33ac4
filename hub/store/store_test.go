package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/wire"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
	"github.com/shopspring/decimal"
)

func open(t testing.TB, path string) *store.Store {
	t.Helper()
	s, err := store.Open(context.Background(), path, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func agent(t testing.TB, s *store.Store, plant, name string) (a store.Agent) {
	t.Helper()
	err := s.Update(context.Background(), func(tx *store.Tx) (err error) {
		a, err = tx.AgentByName(plant, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func confirmation(n int, yield string) object.Fact {
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		panic(err)
	}
	position := factkey.Position("counter", "ulm", "press1", "good", "e1", fmt.Sprint(n))
	return object.Fact{
		Key: factkey.Of(position), Kind: object.KindConfirmation, Plant: "ulm", Source: "press1", Rule: "good", TimeZone: "Europe/Berlin",
		OccurredAt: time.Date(2026, 11, 24, 8, 0, n%60, 0, zone), RecordedAt: time.Date(2026, 11, 24, 8, 1, 0, 0, zone), Position: position,
		Confirmation: &object.Confirmation{OrderNo: "WO-1", Operation: "0010", Item: "P-100", Unit: "C62", Yield: decimal.RequireFromString(yield)},
	}
}

func record(t testing.TB, f object.Fact) store.Record {
	t.Helper()
	body, err := wire.EncodeFact(f)
	if err != nil {
		t.Fatal(err)
	}
	return store.Record{Key: f.Key, Body: body}
}

func appendFacts(t testing.TB, s *store.Store, a store.Agent, first uint64, records ...store.Record) []store.Verdict {
	t.Helper()
	v, err := s.AppendFacts(context.Background(), []store.Batch{{AgentID: a.ID, Agent: a.Name(), Generation: "g1", FirstSeq: first, Records: records}})
	if err != nil {
		t.Fatal(err)
	}
	return v[0]
}

func TestASecondHubOnTheSameFileIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.db")
	s := open(t, path)
	if _, err := store.Open(context.Background(), path, store.Options{}); !errors.Is(err, store.ErrLocked) {
		t.Fatalf("second open: %v, want ErrLocked", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, path) // the first one is gone: now it works
}

func TestFactsAndPositionsSurviveReopening(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "a folder", "hub?.db")
	s := open(t, path)
	a := agent(t, s, "ulm", "edge1")
	if v := appendFacts(t, s, a, 1, record(t, confirmation(1, "5")), record(t, confirmation(2, "7"))); len(v) != 0 {
		t.Fatalf("verdicts %v, want none", v)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path)
	f, err := s.FactByKey(ctx, confirmation(2, "7").Key.String())
	if err != nil {
		t.Fatal(err)
	}
	if f.Seq != 2 || f.Agent != "edge1" || !f.Fact.Confirmation.Yield.Equal(decimal.NewFromInt(7)) {
		t.Fatalf("read back %+v", f)
	}
	if byUUID, err := s.FactByKey(ctx, f.Fact.Key.UUID()); err != nil || byUUID.ID != f.ID {
		t.Fatalf("by UUID: %v, %v", byUUID.ID, err)
	}
	p, err := s.Positions(ctx, a.ID)
	if err != nil || len(p) != 1 || p[0].Seq != 2 {
		t.Fatalf("positions %+v, %v", p, err)
	}
}

func TestAKeyIsStoredOnceAndAnotherContentIsKeptAside(t *testing.T) {
	ctx := context.Background()
	s := open(t, filepath.Join(t.TempDir(), "hub.db"))
	a := agent(t, s, "ulm", "edge1")
	first, again, other := confirmation(1, "5"), confirmation(1, "5.0"), confirmation(1, "6")
	again.RecordedAt = again.RecordedAt.Add(time.Hour) // made anew by a restored agent
	appendFacts(t, s, a, 1, record(t, first), record(t, first))
	got := appendFacts(t, s, a, 3, record(t, again), record(t, other), store.Record{Body: []byte("junk"), Fault: "not a fact"})
	want := []store.VerdictKind{store.Duplicate, store.Conflict, store.Unreadable}
	if len(got) != 3 {
		t.Fatalf("verdicts %+v", got)
	}
	for i := range want {
		if got[i].Kind != want[i] {
			t.Errorf("verdict %d is %+v, want kind %d", i, got[i], want[i])
		}
	}
	appendFacts(t, s, a, 4, record(t, other)) // a resend of what is aside adds nothing
	conflicts, err := s.Conflicts(ctx, false, store.Page{})
	if err != nil || len(conflicts) != 1 || conflicts[0].Key != first.Key.String() {
		t.Fatalf("conflicts %+v, %v", conflicts, err)
	}
	if facts, err := s.FactsAfter(ctx, 0, 10); err != nil || len(facts) != 1 {
		t.Fatalf("%d facts, %v", len(facts), err)
	}
	unreadable, err := s.UnreadableRecords(ctx, false, store.Page{})
	if err != nil || len(unreadable) != 1 || string(unreadable[0].Body) != "junk" {
		t.Fatalf("unreadable %+v, %v", unreadable, err)
	}
	if err := s.ReplayUnreadable(ctx, unreadable[0].ID); err == nil {
		t.Fatal("junk became a fact")
	}
	if err := s.CloseUnreadable(ctx, unreadable[0].ID, "scrap"); err != nil {
		t.Fatal(err)
	}
}

func TestFunctionsThatShareACommitFailAlone(t *testing.T) {
	ctx := context.Background()
	s := open(t, filepath.Join(t.TempDir(), "hub.db"))
	release := make(chan struct{})
	begun := make(chan struct{})
	results := make(chan error, 21)
	go func() {
		results <- s.Update(ctx, func(tx *store.Tx) error { // holds the writer until all others wait
			close(begun)
			<-release
			return nil
		})
	}()
	<-begun
	bad := errors.New("not this one")
	for n := range 20 {
		go func() {
			results <- s.Update(ctx, func(tx *store.Tx) error {
				if err := tx.AddOrderStep(store.OrderStep{OrderNo: "WO-1", Step: fmt.Sprint(n), Origin: "test"}); err != nil {
					return err
				}
				if n%4 == 0 {
					return bad
				}
				return nil
			})
		}()
	}
	close(release)
	failed := 0
	for range 21 {
		if err := <-results; err != nil {
			if !errors.Is(err, bad) {
				t.Fatal(err)
			}
			failed++
		}
	}
	var steps []store.OrderStep
	err := s.Update(ctx, func(tx *store.Tx) (err error) {
		steps, err = tx.OrderSteps("WO-1")
		return err
	})
	if err != nil || failed != 5 || len(steps) != 15 {
		t.Fatalf("%d failed and %d stored, %v; want 5 and 15", failed, len(steps), err)
	}
}

// What an order was is never read any more once its change was committed, and never before.
func TestAnOrderIsReadAsItWasStoredLast(t *testing.T) {
	ctx := context.Background()
	s := open(t, filepath.Join(t.TempDir(), "hub.db"))
	put := func(revision int64, err error) error {
		return s.Update(ctx, func(tx *store.Tx) error {
			o := object.WorkOrder{OrderNo: "WO-1", ERP: "erp", Plant: "ulm", Revision: revision, State: object.OrderReleased}
			return errors.Join(tx.PutOrder(store.Order{Order: o, Content: []byte("content")}, false), err)
		})
	}
	if _, err := s.Order(ctx, "erp", "WO-1"); !errors.Is(err, store.ErrNotFound) {
		t.Fatal(err)
	}
	if err := put(1, nil); err != nil {
		t.Fatal(err)
	}
	var committed, asked atomic.Int64
	committed.Store(1)
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for {
				least := committed.Load()
				o, err := s.Order(ctx, "erp", "WO-1")
				if most := asked.Load(); err != nil || o.Order.Revision < least || o.Order.Revision > max(most, 1) {
					t.Errorf("revision %d, %v: between %d and %d are stored", o.Order.Revision, err, least, most)
					return
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	undone := errors.New("undone")
	for revision := int64(2); revision <= 300; revision++ {
		if err := put(1000, undone); !errors.Is(err, undone) {
			t.Fatal(err)
		}
		asked.Store(revision)
		if err := put(revision, nil); err != nil {
			t.Fatal(err)
		}
		committed.Store(revision)
	}
	close(done)
	readers.Wait()
}

// Whoever has time waits for company, and goes along with the first who has none.
func TestUnhurriedWritersShareACommit(t *testing.T) {
	ctx := context.Background()
	for name, c := range map[string]struct {
		unhurried int
		hurried   bool
		wait      time.Duration
	}{
		"enough of them":        {unhurried: 16, wait: time.Hour},
		"one who is in a hurry": {unhurried: 3, hurried: true, wait: time.Hour},
		"nobody else":           {unhurried: 1, wait: time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			var tick atomic.Int64 // one for each transaction
			s, err := store.Open(ctx, filepath.Join(t.TempDir(), "hub.db"), store.Options{Now: func() time.Time { return time.Unix(tick.Add(1), 0) }})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			s.SetCompanyTime(c.wait)
			times, results := make(chan time.Time, 20), make(chan error, 20)
			write := func(update func(context.Context, func(*store.Tx) error) error) {
				results <- update(ctx, func(tx *store.Tx) error { times <- tx.Now(); return nil })
			}
			n := c.unhurried
			for range n {
				go write(s.Unhurried)
			}
			if c.hurried {
				for late := time.Now().Add(10 * time.Second); s.Waiting() < n; runtime.Gosched() {
					if time.Now().After(late) {
						t.Fatal("the unhurried did not wait")
					}
				}
				go write(s.Update)
				n++
			}
			seen := map[time.Time]bool{}
			for range n {
				if err := <-results; err != nil {
					t.Fatal(err)
				}
				seen[<-times] = true
			}
			if len(seen) != 1 {
				t.Errorf("%d writers needed %d commits", n, len(seen))
			}
		})
	}
}

func TestWaitingForTheWriterHeedsItsContext(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "hub.db"))
	release, begun, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- s.Update(context.Background(), func(*store.Tx) error {
			close(begun)
			<-release
			return nil
		})
	}()
	<-begun
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Update(ctx, func(*store.Tx) error { t.Error("ran all the same"); return nil }); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	close(release)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	s.Close()
	if err := s.Update(context.Background(), func(*store.Tx) error { return nil }); !errors.Is(err, store.ErrClosed) {
		t.Fatalf("write after close: %v", err)
	}
}

func TestCommitWakesWhoWatchesItsTopicAndNobodyElse(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "hub.db"))
	a := agent(t, s, "ulm", "edge1")
	facts, end := s.Watch(store.TopicFacts)
	defer end()
	orders, end := s.Watch(store.TopicOrders)
	defer end()
	appendFacts(t, s, a, 1, record(t, confirmation(1, "5")))
	<-facts
	select {
	case <-orders:
		t.Fatal("a new fact announced orders")
	default:
	}
}

func TestTallyRowsIncludeFactsThatNoPlannerHasSeen(t *testing.T) {
	ctx := context.Background()
	s := open(t, filepath.Join(t.TempDir(), "hub.db"))
	a := agent(t, s, "ulm", "edge1")
	appendFacts(t, s, a, 1, record(t, confirmation(1, "5")), record(t, confirmation(2, "7")))
	_, fresh, err := s.Unplanned(ctx, 1)
	if err != nil || len(fresh) != 1 {
		t.Fatal(fresh, err)
	}
	f := fresh[0]
	err = s.Update(ctx, func(tx *store.Tx) error { // what the planner does with the first
		p := store.Posting{FactID: f.ID, ERP: "erp", OrderNo: "WO-1", Plant: "ulm", State: store.PostingPosted, Document: "D1"}
		p.Amounts = &store.Amounts{Yield: decimal.NewFromInt(5)}
		if err := tx.AddPlanned([]store.Planned{{Fact: f, Lines: f.Fact.FactQuantities(), Posting: &p}}); err != nil {
			return err
		}
		return tx.SetPlanCursor(f.ID)
	})
	if err != nil {
		t.Fatal(err)
	}
	_, facts, err := s.TallyInput(ctx, store.TallyFilter{Plant: "ulm", OrderNo: "WO-1"})
	if err != nil || len(facts) != 2 {
		t.Fatalf("%+v, %v", facts, err)
	}
	if facts[0].Posted.String() != "5" || facts[0].State != "posted" || facts[1].Received.String() != "7" || facts[1].State != "" {
		t.Fatalf("%+v", facts)
	}
	if _, other, err := s.TallyInput(ctx, store.TallyFilter{Plant: "lyon"}); err != nil || len(other) != 0 {
		t.Fatalf("another plant's rows: %+v, %v", other, err)
	}
	listed, err := s.Facts(ctx, store.FactFilter{OrderNo: "WO-1", Outcome: "posted"}, store.Page{})
	if err != nil || len(listed) != 1 || listed[0].Posting.Document != "D1" {
		t.Fatalf("listed %+v, %v", listed, err)
	}
}

func TestBackupIsACompleteStore(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "hub.db"))
	a := agent(t, s, "ulm", "edge1")
	appendFacts(t, s, a, 1, record(t, confirmation(1, "5")))
	if err := s.Backup(ctx, filepath.Join(dir, "copy.db")); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, filepath.Join(dir, "copy.db")).FactByKey(ctx, confirmation(1, "5").Key.String()); err != nil {
		t.Fatal(err)
	}
}

// TestFunctionThatFailsTakesNobodyAlong lets functions wait for one commit: those that may be called again and those that may
// not, failing and not.
func TestFunctionThatFailsTakesNobodyAlong(t *testing.T) {
	ctx := context.Background()
	s := open(t, filepath.Join(t.TempDir(), "hub.db"))
	broken := errors.New("broken")
	begun, free := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // holds the writer until all others wait
		err := s.Update(ctx, func(*store.Tx) error { close(begun); <-free; return nil })
		if err != nil {
			t.Error(err)
		}
	})
	<-begun
	var started sync.WaitGroup
	const each = 8
	for n := range each {
		for what, call := range map[string]func(context.Context, func(*store.Tx) error) error{"update": s.Update, "repeat": s.Repeat} {
			for _, fails := range []error{nil, broken} {
				started.Add(1)
				wg.Go(func() {
					started.Done()
					err := call(ctx, func(tx *store.Tx) error {
						if err := tx.RaiseAlarm(fmt.Sprint(what, n), fmt.Sprint(fails), "", ""); err != nil {
							return err
						}
						return fails
					})
					if err != fails {
						t.Errorf("%s: %v, want %v", what, err, fails)
					}
				})
			}
		}
	}
	started.Wait()
	close(free)
	wg.Wait()
	alarms, err := s.Alarms(ctx, false, store.Page{})
	if err != nil || len(alarms) != 2*each {
		t.Fatalf("%d alarms, %v: want %d", len(alarms), err, 2*each)
	}
	for _, a := range alarms {
		if a.Times != 1 || a.Code != fmt.Sprint(nil) {
			t.Errorf("alarm %+v of a function that failed, or twice", a)
		}
	}
}

// What an agent says twice a minute must not be written again where it is as before.
func TestStatusWritesOnlyWhatChanged(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "hub.db")
	s := open(t, path)
	a := agent(t, s, "ulm", "edge1")
	rng := rand.New(rand.NewPCG(1, 2))
	rows := map[int]*pb.LedgerRow{}
	for round := range 60 {
		changed := 0
		for range rng.IntN(3) {
			i := rng.IntN(30)
			if rows[i] != nil && rng.IntN(3) == 0 {
				delete(rows, i)
			} else {
				rows[i] = &pb.LedgerRow{Source: "s", OrderNo: fmt.Sprint("WO-", i), Kind: "yield", Unit: "C62", Counted: fmt.Sprint(round + 1)}
			}
			changed++
		}
		m := &pb.AgentStatus{State: "ok"}
		for _, r := range rows {
			m.Ledger = append(m.Ledger, r)
		}
		if round%10 == 5 { // a hub that starts knows nothing of what it wrote
			s.Close()
			s = open(t, path)
		}
		before := writes(t, s)
		if err := s.SetStatus(ctx, a.ID, m); err != nil {
			t.Fatal(err)
		}
		if n := writes(t, s) - before; n > changed+1 {
			t.Fatalf("round %d: %d rows were written where %d changed beside the agent's own", round, n, changed)
		}
		edge, err := s.EdgeLines(ctx, store.TallyFilter{})
		if err != nil || len(edge) != len(rows) {
			t.Fatalf("round %d: ledger %+v, %v; want %d rows", round, edge, err, len(rows))
		}
		for _, l := range edge {
			if r := rows[orderIndex(l.OrderNo)]; r == nil || r.Counted != l.Counted.String() || !l.Stored.IsZero() {
				t.Fatalf("round %d: line %+v, want %v", round, l, r)
			}
		}
	}
}

func orderIndex(no string) (i int) {
	fmt.Sscanf(no, "WO-%d", &i)
	return i
}

// writes is how many rows the store's writer has written since it was opened.
func writes(t *testing.T, s *store.Store) (n int) {
	t.Helper()
	n, err := s.RowsWritten(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// The step that a posting was planned with is written down only when something follows it; its life tells it all the same, and the
// receipts that were stored.
func TestLifeHasThePlannedStepAndTheReceipts(t *testing.T) {
	ctx := context.Background()
	s := open(t, filepath.Join(t.TempDir(), "hub.db"))
	a := agent(t, s, "ulm", "edge1")
	appendFacts(t, s, a, 1, record(t, confirmation(1, "5")), record(t, confirmation(2, "5")), record(t, confirmation(3, "5")))
	_, facts, err := s.Unplanned(ctx, 10)
	if err != nil || len(facts) != 3 {
		t.Fatal(facts, err)
	}
	put := func(f func(tx *store.Tx) error) {
		t.Helper()
		if err := s.Update(ctx, f); err != nil {
			t.Fatal(err)
		}
	}
	posting := func(i int) store.Posting {
		return store.Posting{FactID: facts[i].ID, ERP: "erp", OrderNo: "WO-1", Plant: "ulm", State: store.PostingParked, Code: "unknown_order"}
	}
	put(func(tx *store.Tx) error {
		var all []store.Planned
		for i, f := range facts {
			p := posting(i)
			all = append(all, store.Planned{Fact: f, Lines: f.Fact.FactQuantities(), Posting: &p})
		}
		all[0].Receipt = &pb.Receipt{Outcome: pb.Receipt_OUTCOME_REJECTED}
		return tx.AddPlanned(all)
	})
	put(func(tx *store.Tx) error { // what the engine does
		p := posting(1)
		p.State, p.Code = store.PostingDue, ""
		if err := tx.PutPosting(p); err != nil {
			return err
		}
		if err := tx.DeliverReceipt(a.ID, facts[1].Fact.Key.String(), &pb.Receipt{Outcome: pb.Receipt_OUTCOME_POSTED}); err != nil {
			return err
		}
		return tx.AddPostingStep(store.PostingStep{FactID: p.FactID, Step: "due"})
	})
	if err := s.MarkStored(ctx, a.ID, 2); err != nil {
		t.Fatal(err)
	}
	put(func(tx *store.Tx) error { // a note about a posting that has not changed
		return tx.AddPostingStep(store.PostingStep{FactID: facts[2].ID, Step: "reversed"})
	})
	for i, want := range []string{"[parked receipt stored]", "[parked due receipt stored]", "[parked reversed]"} {
		_, life, err := s.Life(ctx, facts[i].Fact.Key.String())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, l := range life {
			if slices.Contains([]string{"parked", "due", "reversed", "receipt stored"}, l.Step) {
				got = append(got, l.Step)
			}
		}
		if fmt.Sprint(got) != want {
			t.Errorf("life of fact %d has %v, want %s", i+1, got, want)
		}
	}
}

// However the notes of an order's way to its agent come, doubled, overtaken or never, and whatever the clock does between: it was sent
// before it was stored, both once.
func TestAnOrderWasSentBeforeItWasStored(t *testing.T) {
	ctx := context.Background()
	now := time.Now()
	s, err := store.Open(ctx, filepath.Join(t.TempDir(), "hub.db"), store.Options{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	a := agent(t, s, "ulm", "edge1")
	const (
		sent = iota
		orderSent
		stored
		orderStored
		renewed // the agent comes with an empty inbox
	)
	marks := []func(seq int64) error{
		sent:        func(seq int64) error { return s.MarkSent(ctx, a.ID, seq) },
		orderSent:   func(seq int64) error { return s.MarkOrdersSent(ctx, a.ID, []int64{seq}) },
		stored:      func(seq int64) error { return s.MarkStored(ctx, a.ID, seq) },
		orderStored: func(seq int64) error { return s.MarkOrdersStored(ctx, a.ID, []int64{seq}) },
		renewed: func(int64) error {
			return s.Update(ctx, func(tx *store.Tx) error {
				_, err := tx.NewDeliveryEpoch(a.ID)
				return err
			})
		},
	}
	for n := range len(marks) * len(marks) * len(marks) {
		order := []int{n % len(marks), n / len(marks) % len(marks), n / len(marks) / len(marks)}
		no, seq := fmt.Sprint("WO-", n), int64(n+1)
		err := s.Update(ctx, func(tx *store.Tx) error { return tx.DeliverOrder(a.ID, object.WorkOrder{OrderNo: no, Revision: 1}) })
		if err != nil {
			t.Fatal(err)
		}
		want := []string{}
		for i, m := range order {
			now = now.Add([]time.Duration{-time.Second, 2 * time.Second, 0}[(i+n)%3])
			if err := marks[m](seq); err != nil {
				t.Fatal(err)
			}
			switch {
			case m == stored || m == orderStored:
				want = []string{"sent", "stored"}
			case m != renewed && len(want) == 0:
				want = []string{"sent"}
			}
			steps, err := s.OrderSteps(ctx, no)
			if err != nil {
				t.Fatal(err)
			}
			got := []string{}
			for _, step := range steps {
				got = append(got, step.Step)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("after marks %v the timeline is %v, want %v", order[:i+1], got, want)
			}
		}
	}
}
