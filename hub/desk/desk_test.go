package desk

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/wire"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// books notes what is taken up, and takes it out of what is parked.
type books struct {
	t     *testing.T
	s     *store.Store
	taken []time.Time
	keys  []string
	fail  string // the key that cannot be taken up
}

func (b *books) ReplayFact(ctx context.Context, key, by string) error {
	if key == b.fail {
		return errors.New("it is not parked any more")
	}
	if by != "anna" {
		b.t.Errorf("taken up by %q", by)
	}
	f, err := b.s.FactByKey(ctx, key)
	if err != nil {
		return err
	}
	b.taken, b.keys = append(b.taken, time.Now()), append(b.keys, key)
	return b.s.Update(ctx, func(tx *store.Tx) error {
		p := *f.Posting
		p.State = store.PostingVerified
		return tx.PutPosting(p)
	})
}

// parked stores n facts with a parked posting each.
func parked(t *testing.T, s *store.Store, first, n int) (keys []string) {
	t.Helper()
	ctx := context.Background()
	var agent store.Agent
	if err := s.Update(ctx, func(tx *store.Tx) (err error) { agent, err = tx.AgentByName("ulm", "line1"); return err }); err != nil {
		t.Fatal(err)
	}
	var records []store.Record
	for i := range n {
		position := factkey.Position("desk", fmt.Sprint(first+i))
		f := object.Fact{Key: factkey.Of(position), Kind: object.KindConfirmation, Plant: "ulm", Source: "press", Rule: "r", TimeZone: "UTC", Position: position, OccurredAt: time.Now().UTC(),
			RecordedAt: time.Now().UTC(), Confirmation: &object.Confirmation{OrderNo: "1", Item: "P", Unit: "C62", Yield: decimal.NewFromInt(1)}}
		body, err := wire.EncodeFact(f)
		if err != nil {
			t.Fatal(err)
		}
		records, keys = append(records, store.Record{Key: f.Key, Body: body}), append(keys, f.Key.String())
	}
	if _, err := s.AppendFacts(ctx, []store.Batch{{AgentID: agent.ID, Agent: "ulm/line1", Generation: "g", FirstSeq: uint64(first), Records: records}}); err != nil {
		t.Fatal(err)
	}
	_, facts, err := s.Unplanned(ctx, 1000)
	if err != nil {
		t.Fatal(err)
	}
	err = s.Repeat(ctx, func(tx *store.Tx) error {
		var all []store.Planned
		for _, f := range facts {
			all = append(all, store.Planned{Fact: f, Lines: f.Fact.FactQuantities(), Posting: &store.Posting{FactID: f.ID, ERP: "erp", OrderNo: "1", Plant: "ulm",
				State: store.PostingParked, Class: "correctable", Code: "no_stock", Since: tx.Now()}})
		}
		return errors.Join(tx.AddPlanned(all), tx.SetPlanCursor(facts[len(facts)-1].ID))
	})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func simulate(t *testing.T, f func(t *testing.T, path string, s *store.Store)) {
	path := filepath.Join(t.TempDir(), "hub.db")
	synctest.Test(t, func(t *testing.T) {
		s, err := store.Open(context.Background(), path, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		f(t, path, s)
	})
}

// work lets a desk work for a while.
func work(t *testing.T, d *Desk, during time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	time.Sleep(during) // fake time
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestAReplayKeepsItsRateAndGoesOnAfterARestart(t *testing.T) {
	simulate(t, func(t *testing.T, path string, s *store.Store) {
		keys := parked(t, s, 1, 10)
		ctx := context.Background()
		r := store.Replay{By: "anna", Note: "stock came", Filter: store.PostingFilter{Code: "no_stock"}, PerMinute: 6}
		if err := s.BeginReplay(ctx, &r); err != nil || r.Total != 10 {
			t.Fatal(r, err)
		}
		later := parked(t, s, 11, 3) // none of the replay's
		b := &books{t: t, s: s, fail: keys[4]}
		work(t, New(Options{Store: s, Books: b}), 35*time.Second)
		if len(b.taken) != 4 {
			t.Errorf("%d in 35 s, want 4", len(b.taken))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour) // the hub is down, and does not catch up in one go
		s, err := store.Open(ctx, path, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		b.s = s
		work(t, New(Options{Store: s, Books: b}), 65*time.Second)
		if len(b.taken) != 9 {
			t.Errorf("%d were taken up, want 9", len(b.taken))
		}
		for i := 1; i < len(b.taken); i++ {
			if gap := b.taken[i].Sub(b.taken[i-1]); gap < 10*time.Second-time.Millisecond {
				t.Errorf("%s between two", gap)
			}
		}
		if slices.ContainsFunc(b.keys, func(k string) bool { return slices.Contains(later, k) }) {
			t.Error("what was parked later was taken up too")
		}
		all, err := s.Replays(ctx, store.Page{})
		if err != nil || len(all) != 1 || all[0].State != store.ReplayDone || all[0].Taken != 9 || all[0].Skipped != 1 || all[0].Reason == "" {
			t.Errorf("%+v %v", all, err)
		}
	})
}

func TestACancelledReplayTakesNothingMore(t *testing.T) {
	simulate(t, func(t *testing.T, _ string, s *store.Store) {
		defer s.Close()
		parked(t, s, 1, 5)
		ctx := context.Background()
		r := store.Replay{By: "anna", Note: "stock came", PerMinute: 60}
		if err := s.BeginReplay(ctx, &r); err != nil {
			t.Fatal(err)
		}
		b := &books{t: t, s: s}
		d := New(Options{Store: s, Books: b})
		work(t, d, 1500*time.Millisecond)
		if err := s.CancelReplay(ctx, r.ID, "berta", "wrong ones"); err != nil {
			t.Fatal(err)
		}
		work(t, d, time.Minute)
		if len(b.taken) != 2 {
			t.Errorf("%d were taken up", len(b.taken))
		}
		all, err := s.Replays(ctx, store.Page{})
		if err != nil || all[0].State != store.ReplayCancelled || all[0].Taken != 2 {
			t.Errorf("%+v %v", all, err)
		}
	})
}

func TestOnlyOldEvidenceOfWhatIsSettledIsLetGo(t *testing.T) {
	simulate(t, func(t *testing.T, _ string, s *store.Store) {
		defer s.Close()
		ctx := context.Background()
		keys := parked(t, s, 1, 3)
		var ids []int64
		for i, key := range keys {
			f, err := s.FactByKey(ctx, key)
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, f.ID)
			if i == 2 {
				continue
			}
			if err := s.Update(ctx, func(tx *store.Tx) error {
				return tx.PutExchanges(f.ID, "post", []store.Exchange{{Method: "POST", Answer: "no"}})
			}); err != nil {
				t.Fatal(err)
			}
		}
		b := &books{t: t, s: s}
		for _, key := range []string{keys[0], keys[2]} {
			if err := b.ReplayFact(ctx, key, "anna"); err != nil {
				t.Fatal(err)
			}
		}
		write := store.Write{Key: factkey.Random(), ERP: "erp", Lane: "l", Hash: []byte{1}, Want: object.Business{Kind: object.BusinessCount, Count: &object.CycleCount{Location: "STO"}}}
		if err := s.Update(ctx, func(tx *store.Tx) error {
			if err := tx.AddWrite(&write); err != nil {
				return err
			}
			write.State = store.PostingVerified
			return errors.Join(tx.PutWrite(write, "verified", ""), tx.PutWriteExchanges(write.ID, "post", []store.Exchange{{Method: "POST"}}))
		}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(15 * 24 * time.Hour)
		if err := s.Update(ctx, func(tx *store.Tx) error { return tx.PutExchanges(ids[2], "post", []store.Exchange{{Method: "POST"}}) }); err != nil {
			t.Fatal(err)
		}
		work(t, New(Options{Store: s, Books: b}), time.Second)
		w, _, said, err := s.WriteLife(ctx, write.Key)
		if err != nil || len(said) != 0 || w.State != store.PostingVerified {
			t.Errorf("a write that is settled has %d exchanges, %v", len(said), err)
		}
		for i, want := range []int{0, 1, 1} {
			if said, err := s.Exchanges(ctx, ids[i]); err != nil || len(said) != want {
				t.Errorf("fact %d: %d exchanges, want %d (%v)", i, len(said), want, err)
			}
		}
	})
}
