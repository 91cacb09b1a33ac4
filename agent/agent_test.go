package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/linekeeper/linekeeper/agent/buffer"
	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/status"
	"github.com/linekeeper/linekeeper/agent/translate"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

func TestDriverThatPanicsOrEndsIsShownAndStartedAgainFromItsCursorWhileNeighboursGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var starts []string
		begin := func(cursor []byte) int {
			mu.Lock()
			defer mu.Unlock()
			starts = append(starts, string(cursor))
			return len(starts)
		}
		all := func() []string {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(starts)
		}
		release := make(chan struct{})
		fs := fakes{
			"bad": {run: func(ctx context.Context, cursor []byte, emit signal.Emit) error {
				n := begin(cursor)
				if err := emit(ctx, signal.Batch{Signals: rowsOf(n-1, n), Cursor: fmt.Appendf(nil, "after %d", n)}); err != nil {
					return err
				}
				switch n {
				case 1:
					panic("index out of range")
				case 2:
					return errors.New("cannot ever work")
				case 3:
					return nil
				case 4: // works for a while
					time.Sleep(restartMax)
					return errors.New("lost its way")
				}
				<-ctx.Done()
				return nil
			}},
			"good": {run: func(ctx context.Context, _ []byte, emit signal.Emit) error {
				for n := 0; ; n++ {
					select {
					case <-ctx.Done():
						return nil
					case <-release:
					}
					if err := emit(ctx, signal.Batch{Source: "somebody else", Signals: rowsOf(n, n+1), Cursor: fmt.Appendf(nil, "%d", n+1)}); err != nil {
						return err
					}
				}
			}},
		}
		a := newAgent(t, testConfig(t.TempDir(), fs), fs)
		defer a.Close()
		g := newGroup(t.Context())
		for _, s := range a.sources {
			g.run(func(ctx context.Context) { a.runSource(ctx, s) })
		}
		s := started{Agent: a}
		step := func(after time.Duration, wantStarts int, state, reason string) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			release <- struct{}{} // the neighbour works
			synctest.Wait()
			if got, n := s.source("bad"), len(all()); n != wantStarts || got.State != state || !strings.Contains(got.Reason, reason) {
				t.Errorf("started %d times and is %s (%s), want %d, %s (%s)", n, got.State, got.Reason, wantStarts, state, reason)
			}
		}
		step(0, 1, "failed", "panicked: index out of range; it is started again")
		step(restartMin, 2, "failed", "cannot ever work")
		step(2*restartMin-1, 2, "failed", "cannot ever work")
		step(1, 3, "failed", "without saying why")
		step(4*restartMin, 4, "ok", "")
		step(restartMax, 4, "failed", "lost its way")
		step(restartMin, 5, "ok", "") // it had worked: the pause is short again
		if got, want := fmt.Sprint(all()), "[ after 1 after 2 after 3 after 4]"; got != want {
			t.Errorf("cursors at the starts are %v, want %v", got, want)
		}
		if got := string(a.pipe.business.State(cursorPrefix + "good")); got != "7" {
			t.Errorf("the neighbour's cursor is %q, want 7", got)
		}
		g.stop()
		if got := s.source("bad"); got.State != "stopped" {
			t.Errorf("after the stop it is %s", got.State)
		}
	})
}

func TestFullBufferHoldsTheSourcesUntilTheHubAcknowledgesAndNothingIsLost(t *testing.T) {
	const rows = 3000
	h := serveHub(t)
	open := h.shut()
	defer open()
	var emitted atomic.Int64
	fs := fakes{"mes": {run: func(ctx context.Context, cursor []byte, emit signal.Emit) error {
		from := 0
		fmt.Sscan(string(cursor), &from)
		for ; from < rows; from += 20 {
			if err := emit(ctx, signal.Batch{Signals: rowsOf(from, from+20), Cursor: fmt.Append(nil, from+20)}); err != nil {
				return err
			}
			emitted.Store(int64(from + 20))
		}
		<-ctx.Done()
		return nil
	}}, "calm": {}}
	cfg := testConfig(t.TempDir(), fs)
	cfg.Hub = h.line()
	cfg.Buffer.BusinessLimit = 128 << 10
	a := start(t, cfg, fs)
	eventually(t, "the source is held back", func() error {
		s := a.Snapshot()
		if s.State != status.Losing || !strings.Contains(s.Reason, "held back: ") || a.source("mes").State != "held" || !s.Business.Held {
			return fmt.Errorf("state %s (%s), source %+v", s.State, s.Reason, a.source("mes"))
		}
		return nil
	})
	n := emitted.Load()
	if n >= rows {
		t.Fatal("everything fitted in: the test is wrong")
	}
	eventually(t, "the hub is told", func() error {
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, st := range h.statuses {
			for _, src := range st.Sources {
				if st.State == "losing" && src.State == "held" {
					return nil
				}
			}
		}
		return fmt.Errorf("none of %d statuses says so", len(h.statuses))
	})
	open()
	eventually(t, "the hub has all rows", func() error { return h.holds(rows) })
	eventually(t, "the agent is well again", func() error {
		if s := a.Snapshot(); s.State != status.OK || s.Business.Pending != 0 || a.source("mes").State != "ok" {
			return fmt.Errorf("state %s (%s), %d pending", s.State, s.Reason, s.Business.Pending)
		}
		return nil
	})
}

func TestMarksOfTheHubDoNotStopTheLineWhenTheBufferIsFull(t *testing.T) {
	h := serveHub(t)
	// The hub knows another life of this counter, further on: taking that over makes a fact, and there is no room for it.
	h.marks = func() []*pb.SourceMark {
		return []*pb.SourceMark{{Source: "mes", Tag: "count", Epoch: "0001.1", CounterTo: "500"}}
	}
	full := make(chan struct{})
	fs := fakes{"mes": {run: func(ctx context.Context, cursor []byte, emit signal.Emit) error {
		if cursor != nil {
			<-ctx.Done()
			return nil
		}
		for n := 0; ; n += 20 {
			err := emit(ctx, signal.Batch{Signals: append(rowsOf(n, n+20), count(7, time.Now())), Cursor: []byte("x")})
			if err != nil {
				close(full)
				return nil
			}
		}
	}}}
	cfg := testConfig(t.TempDir(), fs)
	cfg.Buffer.BusinessLimit = 128 << 10
	for i := range cfg.Rules {
		cfg.Rules[i].StartFromZero = false
	}
	a := start(t, cfg, fs)
	eventually(t, "the buffer is full", func() error {
		if s := a.Snapshot(); !s.Business.Held {
			return fmt.Errorf("%d bytes", s.Business.Bytes)
		}
		return nil
	})
	a.stop()
	<-full
	cfg.Hub = h.line()
	a = start(t, cfg, fs)
	eventually(t, "everything is sent", func() error {
		if s := a.Snapshot(); s.Business.Pending > 0 || s.Uplink.State != "connected" {
			return fmt.Errorf("%d pending, line %+v", s.Business.Pending, s.Uplink)
		}
		return nil
	})
	a.stop()
	a = start(t, cfg, fs) // the next hello has room for it
	eventually(t, "the gap is told", func() error {
		for _, f := range h.all() {
			if f.GetSourceException().GetCode() == "counter_gap" {
				return nil
			}
		}
		return errors.New("no exception tells of it")
	})
}

func TestHubThatIsAbsentDoesNotStopTheCollecting(t *testing.T) {
	h := serveHub(t)
	done := make(chan struct{})
	fs := fakes{"mes": {run: func(ctx context.Context, _ []byte, emit signal.Emit) error {
		defer close(done)
		if err := emit(ctx, signal.Batch{Signals: rowsOf(0, 50)}); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	}}}
	cfg := testConfig(t.TempDir(), fs)
	cfg.Hub = h.line()
	cfg.Hub.Address = "127.0.0.1:1"
	a := start(t, cfg, fs)
	eventually(t, "it is offline and keeps what comes", func() error {
		if s := a.Snapshot(); s.State != status.Offline || s.Business.Pending != 50 || s.Uplink.Code == "" || s.Reason == "" || s.NextStep == "" {
			return fmt.Errorf("state %s, %d pending, %+v", s.State, s.Business.Pending, s.Uplink)
		}
		return nil
	})
	a.stop()
	<-done
	cfg.Hub.Address = h.address
	fs["mes"].run = nil
	start(t, cfg, fs)
	eventually(t, "the hub has it", func() error { return h.holds(50) })
}

func TestReadingsReachTheHub(t *testing.T) {
	h := serveHub(t)
	fs := fakes{"press": {run: func(ctx context.Context, _ []byte, emit signal.Emit) error {
		for range 10 {
			if err := emit(ctx, signal.Batch{Signals: []signal.Signal{{Tag: "temperature", Value: signal.Number("21.5"), ReceivedTime: time.Now()}}}); err != nil {
				return err
			}
		}
		<-ctx.Done()
		return nil
	}}}
	cfg := testConfig(t.TempDir(), fs)
	cfg.Hub = h.line()
	a := start(t, cfg, fs)
	eventually(t, "10 readings", func() error {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.readings != 10 {
			return fmt.Errorf("there are %d", h.readings)
		}
		return nil
	})
	if s := a.source("press"); s.Signals != 10 || s.LastData.IsZero() {
		t.Errorf("the page counts %d signals", s.Signals)
	}
}

func TestReceiptsWithDocumentNumbersStayOverARestart(t *testing.T) {
	h := serveHub(t)
	fs := fakes{"mes": {run: func(ctx context.Context, cursor []byte, emit signal.Emit) error {
		if cursor == nil {
			if err := emit(ctx, signal.Batch{Signals: rowsOf(0, 3), Cursor: []byte("x")}); err != nil {
				return err
			}
		}
		<-ctx.Done()
		return nil
	}}}
	cfg := testConfig(t.TempDir(), fs)
	cfg.Hub = h.line()
	a := start(t, cfg, fs)
	eventually(t, "the hub has the rows, and the agent knows", func() error {
		if err := h.holds(3); err != nil {
			return err
		}
		if n := a.Snapshot().Business.AckedSeq; n != 3 {
			return fmt.Errorf("acknowledged up to %d", n)
		}
		return nil
	})
	if s := a.Snapshot(); len(s.Receipts) != 3 || s.Receipts[0].Outcome != "received" || s.Receipts[0].What == "" {
		t.Errorf("before the receipts the page shows %+v", s.Receipts)
	}
	for i, f := range h.all() {
		h.push(&pb.Delivery{Kind: &pb.Delivery_Receipt{Receipt: &pb.Receipt{
			FactKey: f.Key, Outcome: pb.Receipt_OUTCOME_POSTED, Document: fmt.Sprintf("DOC-%d", i), At: timestamppb.Now(), OrderNo: "WO-1",
		}}})
	}
	documents := func(a started) error {
		found := map[string]bool{}
		list := a.Snapshot().Receipts
		for _, r := range list {
			found[r.Document] = r.Outcome == "posted"
		}
		if len(list) != 3 || !found["DOC-0"] || !found["DOC-1"] || !found["DOC-2"] {
			return fmt.Errorf("the page shows %+v", list)
		}
		return nil
	}
	eventually(t, "the documents are shown", func() error { return documents(a) })
	for _, r := range a.Snapshot().Receipts {
		if r.What == "" || r.StoredAt.IsZero() {
			t.Errorf("a receipt does not say what it is about: %+v", r)
		}
	}
	a.stop()
	fs["mes"].run = nil
	cfg.Hub.Address = "127.0.0.1:1"
	if err := documents(start(t, cfg, fs)); err != nil {
		t.Error("after a restart without the hub:", err)
	}
}

// An operator must see where a fact is also when the computer was switched off in between.
func TestWhatIsBufferedAndWhatIsAtTheHubIsToldApartAfterARestart(t *testing.T) {
	h := serveHub(t)
	n := make(chan int)
	fs := fakes{"mes": {run: func(ctx context.Context, _ []byte, emit signal.Emit) error {
		for {
			select {
			case i := <-n:
				if err := emit(ctx, signal.Batch{Signals: rowsOf(i, i+2), Cursor: []byte("x")}); err != nil {
					return err
				}
			case <-ctx.Done():
				return nil
			}
		}
	}}}
	cfg := testConfig(t.TempDir(), fs)
	cfg.Hub = h.line()
	page := func(a started) string {
		var all []string
		for _, r := range a.Snapshot().Receipts {
			if r.What != "1 pcs yield of FG-GEAR" || !strings.HasPrefix(r.OrderNo, "WO-") || r.StoredAt.IsZero() {
				t.Errorf("it does not say what it is about: %+v", r)
			}
			all = append(all, r.Outcome)
		}
		slices.Sort(all)
		return strings.Join(all, " ")
	}
	a := start(t, cfg, fs)
	n <- 0
	eventually(t, "the page says that two are at the hub", func() error {
		if got := page(a); got != "received received" {
			return errors.New(got)
		}
		return nil
	})
	a.stop()
	cfg.Hub.Address = "127.0.0.1:1" // nobody there
	a = start(t, cfg, fs)
	n <- 2
	const want = "buffered buffered received received"
	eventually(t, "two more are in the buffer", func() error {
		if got := page(a); got != want {
			return errors.New(got)
		}
		return nil
	})
	a.stop()
	if got := page(start(t, cfg, fs)); got != want {
		t.Errorf("after a restart: %s", got)
	}
}

func TestRejectedReceiptIsNotPushedOutByNewerFacts(t *testing.T) {
	fs := fakes{"mes": {}}
	a := newAgent(t, testConfig(t.TempDir(), fs), fs)
	defer a.Close()
	key := make([]byte, 16)
	key[0] = 1
	err := a.inbox.Store("e", []*pb.Delivery{{Seq: 1, Kind: &pb.Delivery_Receipt{Receipt: &pb.Receipt{
		FactKey: key, Outcome: pb.Receipt_OUTCOME_REJECTED, Reason: "no such order", At: timestamppb.New(time.Now().Add(-time.Hour)),
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.pipe.emit(t.Context(), signal.Batch{Source: "mes", Signals: rowsOf(0, 300)}); err != nil {
		t.Fatal(err)
	}
	list := a.Snapshot().Receipts
	if len(list) != 200 || list[199].Outcome != "rejected" {
		t.Errorf("%d receipts, the last is %+v", len(list), list[len(list)-1])
	}
}

// The page is looked at again and again: its lines must not change their places.
func TestFactsOfOneMomentKeepTheirOrderOnThePage(t *testing.T) {
	fs := fakes{"mes": {}}
	a := newAgent(t, testConfig(t.TempDir(), fs), fs)
	defer a.Close()
	noon := time.Now()
	a.pipe.now = func() time.Time { return noon }
	if err := a.pipe.emit(t.Context(), signal.Batch{Source: "mes", Signals: rowsOf(0, 40)}); err != nil {
		t.Fatal(err)
	}
	var want []string
	for n := 39; n >= 0; n-- {
		want = append(want, row(n).Value.(map[string]any)["order"].(string))
	}
	var got []string
	for _, r := range a.Snapshot().Receipts {
		got = append(got, r.OrderNo)
	}
	if !slices.Equal(got, want) {
		t.Errorf("the page shows\n%v, want the newest first\n%v", got, want)
	}
}

func TestSecondProcessOnTheSameDataFolderIsToldSo(t *testing.T) {
	fs := fakes{"mes": {}}
	cfg := testConfig(t.TempDir(), fs)
	start(t, cfg, fs)
	_, err := New(cfg, Options{Logger: newDiscard(), Kinds: fs.kinds()})
	if !errors.Is(err, buffer.ErrInUse) || !strings.Contains(err.Error(), "another plantagent runs on data folder") {
		t.Errorf("got %v", err)
	}
}

func TestPageWhosePortIsTakenIsAClearError(t *testing.T) {
	fs := fakes{"mes": {}}
	a := start(t, testConfig(t.TempDir(), fs), fs)
	cfg := testConfig(t.TempDir(), fs)
	cfg.Listen = a.Addr()
	_, err := New(cfg, Options{Logger: newDiscard(), Kinds: fs.kinds()})
	if err == nil || !strings.Contains(err.Error(), a.Addr()) || !strings.Contains(err.Error(), "listen:") {
		t.Errorf("got %v", err)
	}
	cfg.Listen = "127.0.0.1:0"
	start(t, cfg, fs).stop() // the failed one let go of its files
}

func TestStopUnderLoadTakesSecondsAndTheRestGoesOnLater(t *testing.T) {
	h := serveHub(t)
	fs := fakes{}
	var stored sync.Map
	for s := range 8 {
		name := fmt.Sprintf("s%d", s)
		fs[name] = &fake{run: func(ctx context.Context, cursor []byte, emit signal.Emit) error {
			n := 0
			fmt.Sscan(string(cursor), &n)
			for ; ctx.Err() == nil; n++ {
				if err := emit(ctx, signal.Batch{Signals: rowsOf(n, n+1), Cursor: fmt.Append(nil, n+1)}); err != nil {
					break
				}
				stored.Store(name, n+1)
			}
			return nil
		}}
	}
	cfg := testConfig(t.TempDir(), fs)
	cfg.Hub = h.line()
	want := func() (sum int) {
		stored.Range(func(_, n any) bool { sum += n.(int); return true })
		return sum
	}
	for round := range 3 {
		a := start(t, cfg, fs)
		eventually(t, "load", func() error {
			if n := want(); n < 300*(round+1) {
				return fmt.Errorf("only %d", n)
			}
			return nil
		})
		began := time.Now()
		a.stop()
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("the stop took %s", took)
		}
	}
	for _, f := range fs {
		f.run = nil
	}
	start(t, cfg, fs)
	eventually(t, "the hub has what was acknowledged, once", func() error { return h.holds(want()) })
}

func TestCommitThatFailsChangesNothing(t *testing.T) {
	fs := fakes{"mes": {}}
	a := newAgent(t, testConfig(t.TempDir(), fs), fs)
	defer a.Close()
	before := a.Snapshot()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.pipe.emit(ctx, signal.Batch{Source: "mes", Signals: rowsOf(0, 5), Cursor: []byte("x")}); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled emit returned %v", err)
	}
	a.pipe.apply = func(st translate.State, now time.Time, b signal.Batch) translate.Result {
		st.SetState("", nil) // an impossible key fails the commit
		return a.pipe.rules.Translate(st, now, b)
	}
	if err := a.pipe.emit(t.Context(), signal.Batch{Source: "mes", Signals: rowsOf(0, 5), Cursor: []byte("x")}); err == nil || !strings.Contains(err.Error(), `store batch of source "mes"`) {
		t.Errorf("got %v", err)
	}
	a.pipe.apply = a.pipe.rules.Translate
	after := a.Snapshot()
	if after.Business.LastSeq != before.Business.LastSeq || after.Sources[0].Signals != 0 || len(after.Receipts) != 0 || len(after.Ledger) != 0 || a.pipe.business.State(cursorPrefix+"mes") != nil {
		t.Errorf("something is left: %+v", after)
	}
	if err := a.pipe.emit(t.Context(), signal.Batch{Source: "mes", Signals: rowsOf(0, 5), Cursor: []byte("x")}); err != nil {
		t.Errorf("the next one: %v", err)
	}
	if n := a.Snapshot().Business.Pending; n != 5 {
		t.Errorf("%d facts, want 5", n)
	}
}

func TestValueOnWhichTheRulesBreakIsPutAsideAndItsNeighboursAreKept(t *testing.T) {
	fs := fakes{"mes": {}}
	a := newAgent(t, testConfig(t.TempDir(), fs), fs)
	defer a.Close()
	a.pipe.apply = func(st translate.State, now time.Time, b signal.Batch) translate.Result {
		for _, s := range b.Signals {
			if s.Position == "rows|2" && s.Problem == nil {
				panic("nil pointer")
			}
		}
		return a.pipe.rules.Translate(st, now, b)
	}
	if err := a.pipe.emit(t.Context(), signal.Batch{Source: "mes", Signals: rowsOf(0, 5), Cursor: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	s := a.Snapshot()
	if s.Business.Pending != 5 || s.Quarantined != 1 || len(s.Quarantine) != 1 { // 4 rows and the exception
		t.Fatalf("%d facts, %d put aside", s.Business.Pending, s.Quarantined)
	}
	if e := s.Quarantine[0]; e.Code != "rules_broke" || !strings.Contains(e.Reason, "nil pointer") || !strings.Contains(e.Payload, "FG-GEAR") {
		t.Errorf("the quarantine says %+v", e)
	}
}
