package checking_test

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/posting"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/wire"
)

// confirm sends one confirmation of the first order that happened at a time.
func (p *plant) confirm(at time.Time, set func(*object.Fact)) object.Fact {
	p.t.Helper()
	p.seq++
	no := p.orders[0]
	f := p.fact(object.KindConfirmation)
	f.OccurredAt = at
	f.Confirmation = &object.Confirmation{OrderNo: no, Operation: "0010", Item: "BRACKET-10", Unit: "C62", Yield: decimal.NewFromInt(5)}
	set(&f)
	p.hand(f)
	return f
}

// hand sends a fact.
func (p *plant) hand(f object.Fact) {
	p.t.Helper()
	body, err := wire.EncodeFact(f)
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.s.AppendFacts(p.t.Context(), []store.Batch{{AgentID: p.agent.ID, Agent: "ulm/line1", Generation: "g", FirstSeq: p.seq,
		Records: []store.Record{{Key: f.Key, Body: body}}}}); err != nil {
		p.t.Fatal(err)
	}
	p.facts = append(p.facts, f)
}

func (p *plant) posting(f object.Fact) store.Posting {
	p.t.Helper()
	got, err := p.s.FactByKey(p.t.Context(), f.Key.String())
	if err != nil {
		p.t.Fatal(err)
	}
	if got.Posting == nil {
		return store.Posting{}
	}
	return *got.Posting
}

func (p *plant) becomes(f object.Fact, want string) store.Posting {
	p.t.Helper()
	realparts.Eventually(p.t, 20*time.Second, "the posting is "+want, func() error {
		if x := p.posting(f); strings.TrimSpace(string(x.State)+" "+x.Code) != want {
			return fmt.Errorf("it is %s %s: %s", x.State, x.Code, x.Reason)
		}
		return nil
	})
	return p.posting(f)
}

// document is what the ERP holds under a number.
func (p *plant) document(number string) map[string]string {
	p.t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(p.dir, "erp.db"))
	if err != nil {
		p.t.Fatal(err)
	}
	defer db.Close()
	var date, yield, key string
	if err := db.QueryRow("select posting_date, yield, external_key from document where number = ?", number).Scan(&date, &yield, &key); err != nil {
		p.t.Fatal(err)
	}
	return map[string]string{"date": date, "yield": yield, "key": key}
}

func (p *plant) only(typ reconcile.Type) store.Discrepancy {
	p.t.Helper()
	all, err := p.s.Discrepancies(p.t.Context(), store.DiscrepancyFilter{Type: string(typ)}, store.Page{})
	if err != nil || len(all) != 1 {
		p.t.Fatalf("%d of type %s, %v", len(all), typ, err)
	}
	d, err := p.s.Discrepancy(p.t.Context(), all[0].ID)
	if err != nil {
		p.t.Fatal(err)
	}
	return d
}

func TestAFactOfAClosedPeriodIsPostedOnTheFirstOpenDayAndThatCanBeTakenBack(t *testing.T) {
	p := newPlant(t)
	now := time.Now().UTC()
	last := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, -3)
	if err := p.erp.SetPeriod(t.Context(), last.Format("2006-01"), false); err != nil {
		t.Fatal(err)
	}
	f := p.confirm(last.Add(12*time.Hour).In(time.FixedZone("", 3600)), func(*object.Fact) {})
	p.becomes(f, "parked M7/053")
	said, err := p.s.Exchanges(t.Context(), p.posting(f).FactID)
	if text := fmt.Sprint(said); err != nil || len(said) == 0 || !strings.Contains(text, f.Key.String()) || !strings.Contains(text, "M7/053") || strings.Contains(text, "Bearer ") || strings.Contains(text, "Basic ") {
		t.Errorf("what was said with the ERP: %+v %v", said, err)
	}
	if run := p.all(); run.Found != 1 || run.Begun != 1 {
		t.Fatalf("%+v", run)
	}
	posted := p.becomes(f, "verified")
	first := now.Format("2006-01") + "-01"
	if d := p.document(posted.Document); d["date"] != first || d["key"] != f.Key.String() {
		t.Errorf("%v, want %s under the fact's own key", d, first)
	}
	if run := p.all(); run.Found != 0 {
		t.Errorf("%+v", run)
	}
	d := p.only(reconcile.PeriodClosed)
	if d.State != reconcile.Healed || len(d.Heals) != 1 || !d.Heals[0].Books || d.Heals[0].Note != "done" {
		t.Errorf("%+v", d)
	}
	// It was wrong: a person takes it back, corrects the date and it is posted anew.
	if err := p.check.Undo(t.Context(), d.ID, "anna", "it belongs to the month before", false); err != nil {
		t.Fatal(err)
	}
	p.becomes(f, "settled "+posting.CodeTakenBack)
	if n, err := p.s.CountHeals(t.Context()); err != nil || n.Made != 1 || n.Undone != 1 {
		t.Errorf("%+v %v", n, err)
	}
	if err := p.erp.SetPeriod(t.Context(), last.Format("2006-01"), true); err != nil {
		t.Fatal(err)
	}
	if err := p.engine.Correct(t.Context(), f.Key.String(), store.Values{PostingDate: last.Format(time.DateOnly)}, "the period is open again", "anna"); err != nil {
		t.Fatal(err)
	}
	again := p.becomes(f, "verified")
	if d := p.document(again.Document); d["date"] != last.Format(time.DateOnly) || d["key"] == f.Key.String() || d["yield"] != "5" {
		t.Errorf("%v", d)
	}
	if totals, err := p.erp.Totals(t.Context()); err != nil || !totals.Orders[p.orders[0]].Yield.Equal(decimal.NewFromInt(5)) || len(totals.Duplicates) > 0 {
		t.Errorf("%+v %v", totals, err)
	}
	if run := p.all(); run.Found != 0 {
		t.Errorf("%+v", run)
	}
	var documents []string
	for _, row := range p.statement("plant=ulm") {
		if row["agrees"] != "true" || row["level"] == "document" {
			t.Errorf("%v", row)
		}
		if row["level"] == "fact" && row["documents"] != "" {
			documents = append(documents, row["documents"])
			if !strings.Contains(row["correction"], "anna") {
				t.Errorf("the statement does not say who corrected: %v", row)
			}
		}
	}
	if len(documents) != 1 || len(strings.Fields(documents[0])) != 3 {
		t.Errorf("the statement names %q, want the document, its reversal and the new one", documents)
	}
}

func TestAPeriodThatIsClosedUpToTodayIsLeftToAPerson(t *testing.T) {
	p := newPlant(t)
	now := time.Now()
	if err := p.erp.SetPeriod(t.Context(), now.UTC().Format("2006-01"), false); err != nil {
		t.Fatal(err)
	}
	f := p.confirm(now.UTC().Truncate(time.Second), func(*object.Fact) {})
	p.becomes(f, "parked M7/053")
	if run := p.all(); run.Found != 1 {
		t.Fatalf("%+v", run)
	}
	for range 2 { // it is no heal, and nothing is begun again by itself
		if d := p.only(reconcile.PeriodClosed); len(d.Heals) != 0 || d.State != reconcile.Open || !strings.Contains(d.Steps[len(d.Steps)-1].Note, "open the period, or wait") {
			t.Errorf("%+v", d)
		}
		if run := p.all(); run.Begun != 0 {
			t.Errorf("%+v", run)
		}
	}
	if n, err := p.s.CountHeals(t.Context()); err != nil || n.Made != 0 {
		t.Errorf("%+v %v", n, err)
	}
	p.becomes(f, "parked M7/053")
}

func TestADateOfAWrongZoneIsCorrectedBeforeItIsPosted(t *testing.T) {
	p := newPlant(t)
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC()
	at := time.Date(now.Year(), now.Month(), now.Day(), 23, 30, 0, 0, time.UTC).AddDate(0, 0, -2)
	p.erp.Lock(p.orders[0], "PLANNER")
	f := p.confirm(at.In(zone), func(f *object.Fact) { f.TimeZone, f.PostingDate = "Europe/Berlin", at.Format(time.DateOnly) })
	realparts.Eventually(t, 20*time.Second, "it waits for the lock", func() error {
		if x := p.posting(f); x.State != store.PostingDue || x.Tries == 0 {
			return fmt.Errorf("%s after %d tries", x.State, x.Tries)
		}
		return nil
	})
	p.all()
	p.erp.Unlock(p.orders[0])
	posted := p.becomes(f, "verified")
	if d := p.document(posted.Document); d["date"] != at.In(zone).Format(time.DateOnly) {
		t.Errorf("%v, want the date in Berlin, %s", d, at.In(zone).Format(time.DateOnly))
	}
}

func TestADocumentInAWrongUnitIsReversedAndPostedAnew(t *testing.T) {
	p := newPlant(t)
	p.produce(1)
	f := p.facts[0]
	number := p.posting(f).Document
	db, err := sql.Open("sqlite", filepath.Join(p.dir, "erp.db"))
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{"update document set yield = yield * 1000 where number = ?", "update document_line set quantity = quantity * 1000 where number = ?"} {
		if _, err := db.Exec(q, number); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.Exec("update item set on_hand = on_hand + 1000000"); err != nil {
		t.Fatal(err)
	}
	db.Close()
	p.policy(func(x *reconcile.Policy) {
		x.Factors = []reconcile.Factor{{Item: "BRACKET-10", From: "C62", To: "MIL", Times: decimal.NewFromInt(1000)}}
	})
	if run := p.all(); run.Begun != 1 {
		t.Fatalf("%+v", run)
	}
	p.becomes(f, "verified")
	if x := p.posting(f); x.Document == number {
		t.Errorf("%+v", x)
	}
	if run := p.all(); run.Found != 0 {
		t.Errorf("%+v", run)
	}
	p.balanced()
}

func TestWhatNobodyCarriesOutSaysSoAndIsNoHeal(t *testing.T) {
	p := newPlant(t)
	d := reconcile.Finding{Type: reconcile.CounterReset, Subject: "counter x", Plant: "ulm", ERP: "erp", OrderNo: "x", Severity: reconcile.High, Owner: reconcile.Automation, Escalate: true,
		Proposed: reconcile.Action{Kind: reconcile.CountRollover, Text: "count 12: the counter turned over"}}
	changes, err := p.s.MergeDiscrepancies(t.Context(), "ulm", "erp", "x", []reconcile.Finding{d}, reconcile.DefaultPolicy())
	if err != nil || len(changes) != 1 {
		t.Fatal(changes, err)
	}
	if err := p.check.Act(t.Context(), changes[0].ID, "anna", "please"); err == nil || !strings.Contains(err.Error(), "by hand") {
		t.Errorf("%v", err)
	}
	if got := p.only(reconcile.CounterReset); got.State != reconcile.Escalated || len(got.Heals) != 0 || got.Steps[len(got.Steps)-1].Step != "not carried out" {
		t.Errorf("%+v", got)
	}
}

func TestWhatAPersonStartedCountsWhenItWasWrong(t *testing.T) {
	p := newPlant(t)
	p.copyTo("empty.db")
	p.produce(1)
	p.restore("empty.db")
	p.policy(func(x *reconcile.Policy) { x.Limits.PerOrder = 0 }) // nothing without a person
	if run := p.all(); run.Found != 8 || run.Begun != 0 {
		t.Fatalf("%+v", run)
	}
	live, err := p.s.Discrepancies(t.Context(), store.DiscrepancyFilter{Live: true}, store.Page{})
	if err != nil {
		t.Fatal(err)
	}
	id := live[0].ID
	if err := p.check.Act(t.Context(), id, "anna", "the ERP was restored"); err != nil {
		t.Fatal(err)
	}
	f, err := p.s.FactByKey(t.Context(), live[0].Facts[0])
	if err != nil {
		t.Fatal(err)
	}
	p.becomes(f.Fact, "verified")
	d, err := p.s.Discrepancy(t.Context(), id)
	if err != nil || len(d.Heals) != 1 || d.Heals[0].By != "anna" || d.Heals[0].Books {
		t.Fatalf("%+v %v", d, err)
	}
	if err := p.check.Undo(t.Context(), id, "berta", "taken back in the ERP", true); err != nil {
		t.Fatal(err)
	}
	if n, err := p.s.CountHeals(t.Context()); err != nil || n.Made != 1 || n.Undone != 1 {
		t.Errorf("%+v %v", n, err)
	}
}
