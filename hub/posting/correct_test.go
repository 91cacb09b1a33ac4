package posting

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/exchange"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/tally"
)

// reversing is the model with a door to take back any document.
type reversing struct {
	*modelERP
	lose, refuse bool
	dates        map[string]string // by fact key: date for the books, and the fact's own where that is another
}

func (m *reversing) Post(ctx context.Context, p connector.Posting, intent []byte) connector.Outcome {
	exchange.Note(ctx, "POST", "/"+p.Order.OrderNo, []byte(`{"key": "`+p.Fact.Key.String()+`", "password": "hunter2"}`), "200 OK", []byte("taken"))
	m.mu.Lock()
	m.dates[p.Fact.Key.String()] = p.PostingDate.Format(time.DateOnly)
	if !p.EventDate.IsZero() {
		m.dates[p.Fact.Key.String()] += " for " + p.EventDate.Format(time.DateOnly)
	}
	m.mu.Unlock()
	return m.modelERP.Post(ctx, p, intent)
}

func (m *reversing) ReverseDocument(_ context.Context, number, key string) (connector.Outcome, error) {
	defer m.enter("reverse", m.orderOf(number))()
	if m.refuse {
		return connector.Outcome{Result: connector.Rejected, Class: connector.Correctable, Code: "M7/053", Reason: "period is closed"}, nil
	}
	of := ""
	for k, e := range m.effects {
		if e.document == number {
			of = k
		}
	}
	if e, done := m.effects[key]; done {
		return connector.Outcome{Result: connector.Posted, Document: connector.Document{Number: e.document}}, nil
	}
	if of == "" || m.undone[of] != "" {
		m.fault("document %q is taken back and is not there, or was taken back", number)
	}
	e := m.effects[of]
	e.fact.Reverses, e.document, e.at = e.fact.Key, "R"+number, m.now()
	m.effects[key], m.undone[of] = e, key
	if m.lose {
		return connector.Outcome{}, errors.New("connection reset")
	}
	return connector.Outcome{Result: connector.Posted, Document: connector.Document{Number: e.document}}, nil
}

// orderOf is the order of a document.
func (m *reversing) orderOf(number string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.effects {
		if e.document == number {
			return e.fact.OrderNo()
		}
	}
	return ""
}

func withReverser(w *world) *reversing {
	r := &reversing{modelERP: w.erp, dates: map[string]string{}}
	w.opts.Connectors = map[string]connector.Connector{"erp": r}
	return r
}

func (w *world) balanced(want string) {
	w.t.Helper()
	edge, lines, err := w.s.TallyInput(context.Background(), store.TallyFilter{})
	if err != nil {
		w.t.Fatal(err)
	}
	if sums := tally.Of(edge, lines).Totals; !sums.Missing.IsZero() || !sums.Doubled.IsZero() || sums.Posted.String() != want {
		w.t.Errorf("the ledger says %s, want %s posted", sums, want)
	}
}

func TestCorrectedPostingGoesToTheRightOrderUnderTheFactsOwnKey(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		erp := withReverser(w)
		w.order("WO-1")
		w.order("WO-2")
		bad := confirm("WO-1", 1, "5")
		w.erp.set(trouble{reject: map[string]bool{bad.Key.String(): true}})
		w.start()
		w.deliver(bad)
		w.pass(time.Minute)
		w.want(bad, store.PostingParked, "period_closed")
		w.erp.set(trouble{})
		ctx, key := context.Background(), bad.Key.String()
		for _, wrong := range []store.Values{{}, {OrderNo: "WO-9"}, {PostingDate: "26.11.2026"}, {OrderNo: "WO-1"}} {
			if err := w.e.Correct(ctx, key, wrong, "no", "anna"); !errors.Is(err, ErrNotNow) {
				t.Errorf("%+v: %v", wrong, err)
			}
		}
		if err := w.e.Correct(ctx, key, store.Values{OrderNo: "WO-2", Lot: "L7", PostingDate: "2026-12-01"}, "the terminal named the order before", "anna"); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		p := w.want(bad, store.PostingVerified, "")
		if e := w.erp.effects[key]; p.OrderNo != "WO-2" || e.fact.OrderNo() != "WO-2" || e.fact.Confirmation.Lot != "L7" || erp.dates[key] != "2026-12-01 for "+bad.OccurredAt.Format(time.DateOnly) || w.erp.yield("WO-1").String() != "0" {
			t.Errorf("posting %+v, effect %+v", p, e.fact)
		}
		w.balanced("5")
		all, err := w.s.Corrections(ctx, p.FactID)
		if err != nil || len(all) != 1 || all[0].By != "anna" || all[0].Before.OrderNo != "WO-1" || all[0].After.OrderNo != "WO-2" || all[0].Before.Lot != "" || all[0].After.PostingDate != "2026-12-01" {
			t.Errorf("%+v %v", all, err)
		}
		f, life, err := w.s.Life(ctx, key)
		if err != nil || f.Fact.OrderNo() != "WO-1" || !slices.ContainsFunc(life, func(s store.LifeStep) bool {
			return s.Step == stepCorrected && s.By == "anna" && strings.Contains(s.Reason, `order "WO-2" instead of "WO-1"`)
		}) {
			t.Errorf("the fact must stay as it came: %+v %+v %v", f.Fact, life, err)
		}
		said, err := w.s.Exchanges(ctx, p.FactID)
		if err != nil || len(said) != 1 || said[0].Purpose != "post" || said[0].Address != "/WO-2" || !strings.Contains(said[0].Request, key) || strings.Contains(said[0].Request, "hunter2") {
			t.Errorf("said: %+v %v", said, err)
		}
		for order, want := range map[string]int{"WO-1": 1, "WO-2": 1} {
			if found, err := w.s.Postings(ctx, store.PostingFilter{OrderNo: order}, store.Page{}); err != nil || order == "WO-2" && len(found) != want {
				t.Errorf("postings of %s: %d, %v", order, len(found), err)
			}
		}
		undo := reversal(bad, "undo") // goes where its original went
		w.deliver(undo)
		w.pass(time.Minute)
		w.want(undo, store.PostingVerified, "")
		if sum := w.erp.yield("WO-2"); !sum.IsZero() {
			t.Errorf("the outside system holds %s", sum)
		}
	})
}

func TestWhatTheOutsideSystemMayHaveIsNotCorrected(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.order("WO-1")
		w.order("WO-2")
		posted, dark := confirm("WO-1", 1, "5"), confirm("WO-1", 2, "3")
		w.erp.set(trouble{lostReply: 100, dark: map[string]bool{dark.Key.String(): true, posted.Key.String(): true}})
		w.start()
		w.deliver(dark)
		w.pass(time.Minute)
		w.want(dark, store.PostingParked, CodeCannotTell)
		w.erp.set(trouble{})
		w.deliver(posted)
		w.pass(time.Minute)
		w.want(posted, store.PostingVerified, "")
		for _, f := range []object.Fact{posted, dark} {
			if err := w.e.Correct(context.Background(), f.Key.String(), store.Values{OrderNo: "WO-2"}, "try", "anna"); !errors.Is(err, ErrNotNow) {
				t.Errorf("%v", err)
			}
			if err := w.e.Reverse(context.Background(), f.Key.String(), "try", "anna"); !errors.Is(err, ErrNotNow) { // nobody can
				t.Errorf("%v", err)
			}
		}
		w.want(posted, store.PostingVerified, "")
	})
}

func TestAPostingThatWasTakenBackIsPostedAnewUnderANewKey(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		erp := withReverser(w)
		w.order("WO-1")
		w.order("WO-2")
		f, g := confirm("WO-1", 1, "5"), confirm("WO-1", 2, "7")
		w.start()
		w.deliver(f, g)
		w.pass(time.Minute)
		w.want(f, store.PostingVerified, "")
		ctx, key := context.Background(), f.Key.String()

		erp.refuse = true
		if err := w.e.Reverse(ctx, key, "wrong order", "anna"); !errors.Is(err, ErrNotNow) || !strings.Contains(err.Error(), "M7/053") {
			t.Fatalf("%v", err)
		}
		w.want(f, store.PostingVerified, "") // as before
		erp.refuse = false

		erp.lose = true
		if err := w.e.Reverse(ctx, key, "wrong order", "anna"); err == nil || errors.Is(err, ErrNotNow) {
			t.Fatalf("%v", err)
		}
		if p := w.want(f, store.PostingParked, CodeReversing); p.Document == "" || !strings.Contains(p.Reason, "not known") {
			t.Errorf("%+v", p)
		}
		erp.lose = false
		if err := w.e.Reverse(ctx, key, "wrong order", "anna"); err != nil {
			t.Fatal(err)
		}
		if p := w.want(f, store.PostingSettled, CodeTakenBack); p.Document != "" {
			t.Errorf("%+v", p)
		}
		if sum := w.erp.yield("WO-1"); sum.String() != "7" {
			t.Errorf("the outside system holds %s", sum)
		}
		w.balanced("7")
		if err := w.e.Reverse(ctx, key, "once more", "anna"); !errors.Is(err, ErrNotNow) {
			t.Errorf("%v", err)
		}
		if err := w.e.Correct(ctx, key, store.Values{OrderNo: "WO-2"}, "the right one", "anna"); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		p := w.want(f, store.PostingVerified, "")
		if a, b := w.erp.yield("WO-1"), w.erp.yield("WO-2"); a.String() != "7" || b.String() != "5" || p.Document == "" {
			t.Errorf("%s and %s, %+v", a, b, p)
		}
		w.balanced("12")

		// The same at once, as a heal does it: and again, so that the keys stay different.
		for range 2 {
			if err := w.e.Convert(ctx, key, "the unit was wrong", "reconciliation"); err != nil {
				t.Fatal(err)
			}
			w.pass(time.Minute)
			w.want(f, store.PostingVerified, "")
		}
		if b := w.erp.yield("WO-2"); b.String() != "5" {
			t.Errorf("%s", b)
		}
		all, err := w.s.Corrections(ctx, p.FactID)
		keys := map[string]bool{}
		for _, c := range all {
			keys[c.Key.String()] = true
		}
		if err != nil || len(all) != 3 || len(keys) != 3 || keys[key] {
			t.Errorf("%+v %v", all, err)
		}
		w.balanced("12")
	})
}

func TestAHubThatDiesWhileItTakesBackDoesItOnceWhenAskedAgain(t *testing.T) {
	for _, at := range []string{"reversing", "reversed"} {
		simulate(t, func(t *testing.T, w *world) {
			withReverser(w)
			w.order("WO-1")
			f := confirm("WO-1", 1, "5")
			dies := false
			w.crash = func(step string) error {
				if dies && step == at {
					return errDies
				}
				return nil
			}
			w.start()
			w.deliver(f)
			w.pass(time.Minute)
			w.want(f, store.PostingVerified, "")
			dies = true
			if err := w.e.Convert(context.Background(), f.Key.String(), "unit", "reconciliation"); !errors.Is(err, errDies) {
				t.Fatalf("%s: %v", at, err)
			}
			w.stop()
			dies = false
			w.start()
			w.pass(time.Minute)
			w.want(f, store.PostingParked, CodeReversing)
			if err := w.e.Convert(context.Background(), f.Key.String(), "unit", "anna"); err != nil {
				t.Fatal(err)
			}
			w.pass(time.Minute)
			w.want(f, store.PostingVerified, "")
			if sum := w.erp.yield("WO-1"); sum.String() != "5" {
				t.Errorf("%s: the outside system holds %s", at, sum)
			}
			w.balanced("5")
		})
	}
}

func TestADateThatIsCorrectedWhileAPostingIsPreparedIsTheOneThatIsSent(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		erp := withReverser(w)
		w.order("WO-1")
		f := confirm("WO-1", 1, "5")
		once := false
		w.crash = func(step string) error {
			if step == "prepared" && !once {
				once = true
				if err := w.e.RetryOn(context.Background(), f.Key.String(), time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC), "wrong zone", "reconciliation"); err != nil {
					t.Error(err)
				}
			}
			return nil
		}
		w.start()
		w.deliver(f)
		w.pass(time.Minute)
		w.want(f, store.PostingVerified, "")
		if date := erp.dates[f.Key.String()]; !once || !strings.HasPrefix(date, "2026-12-01 for ") {
			t.Errorf("posted with date %q", date)
		}
	})
}

func TestAPostingWithoutADocumentOfItsOwnIsLeftAlone(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		withReverser(w)
		w.order("WO-1")
		f := confirm("WO-1", 1, "5")
		w.start()
		w.deliver(f)
		w.pass(time.Minute)
		p := w.want(f, store.PostingVerified, "")
		db, err := sql.Open("sqlite", w.path)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := db.Exec("INSERT INTO aggregate_members (fact_id, aggregate_id) VALUES (?, 1)", p.FactID); err != nil {
			t.Fatal(err)
		}
		if err := w.e.Reverse(context.Background(), f.Key.String(), "try", "anna"); !errors.Is(err, ErrNotNow) || !strings.Contains(err.Error(), "together with other facts") {
			t.Errorf("%v", err)
		}
	})
}

func TestNothingElseIsAskedAboutAnOrderWhileADocumentOfItIsTakenBack(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		withReverser(w)
		w.order("WO-1")
		w.start()
		first := confirm("WO-1", 0, "5")
		w.deliver(first)
		w.pass(time.Minute)
		w.want(first, store.PostingVerified, "")
		for i := range 200 {
			w.deliver(confirm("WO-1", 1+i, "1"))
		}
		time.Sleep(100 * time.Millisecond) // in the middle of their postings
		if err := w.e.Convert(context.Background(), first.Key.String(), "the unit was wrong", "anna"); err != nil {
			t.Fatal(err)
		}
		if n := w.erp.called("post"); n > 150 {
			t.Errorf("it was taken back after %d postings: the test shows nothing", n)
		}
		w.pass(10 * time.Minute) // the model names two calls at a time
		if sum := w.erp.yield("WO-1"); sum.String() != "205" {
			t.Errorf("the outside system holds %s", sum)
		}
	})
}
