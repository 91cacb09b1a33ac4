package filedrop

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/drivers/b2mml"
	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

func posting(no string) connector.Posting {
	at := time.Date(2026, 3, 1, 22, 30, 5, 0, time.UTC)
	p := connector.Posting{PostingDate: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)}
	p.Fact = object.Fact{Key: factkey.Of("filedrop"), Kind: object.KindConfirmation, OccurredAt: at, RecordedAt: at,
		Confirmation: &object.Confirmation{OrderNo: no, Item: "BRACKET", Unit: "C62", Yield: d("12"), Scrap: d("1.5")}}
	return p
}

func (e *erp) connector() *Connector {
	e.t.Helper()
	return e.connect(e.t).(*Connector)
}

func (e *erp) prepare(c *Connector, p connector.Posting) []byte {
	e.t.Helper()
	raw, early, err := c.Prepare(e.t.Context(), p)
	if err != nil || early != nil {
		e.t.Fatalf("prepare: %+v, %v", early, err)
	}
	return raw
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestHubDiesBetweenTheSteps stops the hub after each step of handing over: the ERP gets one file.
func TestHubDiesBetweenTheSteps(t *testing.T) {
	for done, step := range []string{"before_anything", "beside_its_place", "copy_half_written", "copy_kept", "renamed", "done"} {
		t.Run(step, func(t *testing.T) {
			e := newERP(t)
			no := e.create(t, "40")
			c, p := e.connector(), posting(no)
			raw := e.prepare(c, p)
			in, err := readIntent(raw)
			must(t, err)
			m, err := c.make(p, in)
			must(t, err)
			must(t, c.folders())
			steps := []func() error{
				func() error {
					return errors.Join(c.sameFolder(), c.store.write(c.temporary(m.ref), m.data))
				},
				func() error { return os.WriteFile(c.copied(m.ref)+".new", m.data[:9], 0o600) },
				func() error { return c.keep(m, in.Order) },
				func() error {
					return c.store.rename(c.temporary(m.ref), filepath.Join(e.cfg.Out.Folder, m.name))
				},
				func() error { return c.local.rename(c.pending(m.ref), c.copied(m.ref)) },
			}
			for _, do := range steps[:done] {
				must(t, do())
			}
			e.work() // the ERP takes what it sees, and e.idle counts
			if step == "renamed" || step == "done" {
				for _, f := range []string{e.cfg.Answers.Folder} {
					all, _ := filepath.Glob(filepath.Join(f, "*"))
					for _, a := range all { // as if it had not answered yet
						must(t, os.Rename(a, a+".later"))
					}
				}
			}
			again := e.connector() // the hub starts again, and knows only its intent
			f, err := again.Lookup(t.Context(), p, raw)
			if err != nil || (f.Presence == connector.Absent) != (done < 4) {
				t.Errorf("look up: %+v, %v", f, err)
			}
			e.run()
			later, _ := filepath.Glob(filepath.Join(e.cfg.Answers.Folder, "*.later"))
			for _, a := range later {
				must(t, os.Rename(a, strings.TrimSuffix(a, ".later")))
			}
			x := connectortest.Drive(t.Context(), again, p, time.Minute)
			if x.End != connectortest.Settled {
				t.Fatalf("ended %s:\n%s", x.End, strings.Join(x.Why, "\n"))
			}
			if b := e.effects(t, no); b.Documents != 1 || !b.Yield.Equal(d("12")) {
				t.Errorf("the ERP booked %+v", b)
			}
		})
	}
}

// TestAWriteThatArrivesLateHandsNothingOverAgain: a server did what it was told after the connection had broken.
func TestAWriteThatArrivesLateHandsNothingOverAgain(t *testing.T) {
	e := newERP(t)
	no := e.create(t, "40")
	c, p := e.connector(), posting(no)
	raw := e.prepare(c, p)
	e.faults.Arm(connectortest.DelayRequest, 4) // it looks what lies there, looks for the marker, makes it, writes
	if out := c.Post(t.Context(), p, raw); out.Result != connector.Rejected || out.Class != connector.Retryable || !strings.Contains(out.Reason, no) {
		t.Fatalf("post: %+v", out)
	}
	e.run()
	if x := connectortest.Drive(t.Context(), c, p, time.Minute); x.End != connectortest.Settled {
		t.Fatalf("ended %s:\n%s", x.End, strings.Join(x.Why, "\n"))
	}
	e.faults.Deliver()
	if x := connectortest.Drive(t.Context(), e.connector(), p, time.Minute); x.End != connectortest.Settled { // by a hub that forgot
		t.Fatalf("ended %s:\n%s", x.End, strings.Join(x.Why, "\n"))
	}
	e.idle()
	if b := e.effects(t, no); b.Documents != 1 {
		t.Errorf("the ERP booked %+v", b)
	}
}

// TestALostAnswerAndALateWriteHandNothingOverAgain: where nobody answers, only the names tell.
func TestALostAnswerAndALateWriteHandNothingOverAgain(t *testing.T) {
	e := newERP(t)
	no := e.create(t, "40")
	e.cfg.Answers, e.cfg.Orders, e.cfg.Out.HandoverIsEffect = nil, nil, true
	c, p := e.connector(), posting(no)
	raw := e.prepare(c, p)
	e.faults.Arm(connectortest.DelayRequest, 4) // it looks twice, makes the marker, writes
	if out := c.Post(t.Context(), p, raw); out.Class != connector.Retryable {
		t.Fatalf("post whose write is late: %+v", out)
	}
	e.faults.Arm(connectortest.LoseReply, 4) // it looks twice, writes, renames
	if out := c.Post(t.Context(), p, raw); out.Result != connector.InDoubt {
		t.Fatalf("post whose rename has no answer: %+v", out)
	}
	if f, err := c.Lookup(t.Context(), p, raw); err != nil || f.Presence != connector.Found {
		t.Fatalf("look up: %+v, %v", f, err)
	}
	e.faults.Deliver()
	handed := e.left(e.cfg.Out.Folder)
	must(t, os.Remove(filepath.Join(e.cfg.Out.Folder, "confirmation-"+p.Fact.Key.String()+".json"))) // the ERP takes it
	if x := connectortest.Drive(t.Context(), e.connector(), p, time.Minute); x.End != connectortest.Settled || x.Attempts != 0 {
		t.Errorf("ended %s after %d attempts; in the folder were %v:\n%s", x.End, x.Attempts, handed, strings.Join(x.Why, "\n"))
	}
}

// TestAShareThatIsNotMountedIsNotTakenForTheFolder: an empty folder stands in its place.
func TestAShareThatIsNotMountedIsNotTakenForTheFolder(t *testing.T) {
	e := newERP(t)
	no := e.create(t, "40")
	c, p := e.connector(), posting(no)
	raw := e.prepare(c, p)
	e.faults.Arm(connectortest.LoseRequest, 5) // it looks twice, makes the marker, writes, renames
	if out := c.Post(t.Context(), p, raw); out.Result != connector.InDoubt {
		t.Fatalf("post whose rename is lost: %+v", out)
	}
	away := e.cfg.Out.Folder + ".away"
	must(t, os.Rename(e.cfg.Out.Folder, away))
	must(t, os.Mkdir(e.cfg.Out.Folder, 0o755))
	if f, err := c.Lookup(t.Context(), p, raw); err == nil || !strings.Contains(err.Error(), "mount the share") {
		t.Errorf("look up: %+v, %v", f, err)
	}
	other := p
	other.Fact.Key = factkey.Of("another")
	if out := c.Post(t.Context(), other, raw); out.Result != connector.Rejected || out.Class != connector.Retryable || !strings.Contains(out.Reason, "mount the share") {
		t.Errorf("post: %+v", out)
	}
	must(t, os.Remove(e.cfg.Out.Folder))
	must(t, os.Rename(away, e.cfg.Out.Folder))
	if f, err := c.Lookup(t.Context(), p, raw); err != nil || f.Presence != connector.Absent {
		t.Errorf("look up when it is back: %+v, %v", f, err)
	}
	e.run()
	if x := connectortest.Drive(t.Context(), c, p, time.Minute); x.End != connectortest.Settled {
		t.Fatalf("ended %s:\n%s", x.End, strings.Join(x.Why, "\n"))
	}
	e.idle()
}

// TestCopiesThatWerePutBackHandNothingOverAgain, as long as the other side still has the file.
func TestCopiesThatWerePutBackHandNothingOverAgain(t *testing.T) {
	for _, where := range []string{"in the folder", "taken"} {
		t.Run(where, func(t *testing.T) {
			e := newERP(t)
			e.cfg.Out.Wait = time.Millisecond
			e.cfg.Out.Taken = []string{filepath.Join(t.TempDir(), "done")}
			must(t, os.Mkdir(e.cfg.Out.Taken[0], 0o755))
			no := e.create(t, "40")
			c, p := e.connector(), posting(no)
			if out := c.Post(t.Context(), p, e.prepare(c, p)); out.Result != connector.InDoubt {
				t.Fatalf("post: %+v", out)
			}
			must(t, os.RemoveAll(e.cfg.Out.Sent))
			if where == "taken" {
				all, _ := filepath.Glob(filepath.Join(e.cfg.Out.Folder, "*.json"))
				must(t, os.Rename(all[0], filepath.Join(e.cfg.Out.Taken[0], "2026-"+filepath.Base(all[0]))))
			}
			if _, early, err := e.connector().Prepare(t.Context(), p); err != nil || early == nil || early.Code != "PENDING" {
				t.Errorf("prepare: %+v, %v", early, err)
			}
		})
	}
}

func TestNoAnswerIsNotYetAndThenAPersonIsAskedOrTheHandoverCounts(t *testing.T) {
	e := newERP(t)
	e.cfg.Out.Wait, e.cfg.Answers.Within = time.Millisecond, time.Hour
	no := e.create(t, "40")
	c, p := e.connector(), posting(no)
	raw := e.prepare(c, p)
	if out := c.Post(t.Context(), p, raw); out.Result != connector.InDoubt {
		t.Errorf("post without an answer: %+v", out)
	}
	if f, err := c.Lookup(t.Context(), p, raw); err != nil || f.Presence != connector.NotFoundYet {
		t.Errorf("look up at once: %+v, %v", f, err)
	}
	if _, early, err := c.Prepare(t.Context(), p); err != nil || early == nil || early.Class != connector.Retryable {
		t.Errorf("prepare without an answer: %+v, %v", early, err)
	}
	e.cfg.Answers.Within = time.Nanosecond
	if f, err := e.connector().Lookup(t.Context(), p, raw); err != nil || f.Presence != connector.CannotTell || !strings.Contains(f.Reason, no) {
		t.Errorf("when the time is over: %+v, %v", f, err)
	}
	e.cfg.Out.HandoverIsEffect = true
	f, err := e.connector().Lookup(t.Context(), p, raw)
	if err != nil || f.Presence != connector.Found || f.Document.Number != p.Fact.Key.String() {
		t.Errorf("when the time is over and the hand-over counts: %+v, %v", f, err)
	}
	if v, err := e.connector().Verify(t.Context(), p, raw, f.Document); err != nil || !v.Matches {
		t.Errorf("verify: %+v, %v", v, err)
	}
}

func TestHandoverAlone(t *testing.T) {
	e := newERP(t)
	e.cfg.Answers, e.cfg.Orders, e.cfg.Out.HandoverIsEffect = nil, nil, true
	c, p := e.connector(), posting("4711/A")
	x := connectortest.Drive(t.Context(), c, p, time.Minute)
	if x.End != connectortest.Settled || x.Document.Number != p.Fact.Key.String() || x.Attempts != 1 {
		t.Fatalf("ended %s:\n%s", x.End, strings.Join(x.Why, "\n"))
	}
	if again := connectortest.Drive(t.Context(), e.connector(), p, time.Minute); again.End != connectortest.Settled || again.Attempts != 0 || again.Document != x.Document {
		t.Errorf("the second time it ended %s as %+v:\n%s", again.End, again.Document, strings.Join(again.Why, "\n"))
	}
	if got, err := c.ListChanged(t.Context(), ""); err != nil || len(got.Orders) != 0 {
		t.Errorf("orders: %+v, %v", got, err)
	}
	other := p
	other.Fact.Confirmation = &object.Confirmation{OrderNo: "4711/A", Item: "BRACKET", Unit: "C62", Yield: d("13")}
	if v, err := c.Verify(t.Context(), other, e.intentOf(t), x.Document); err != nil || v.Matches || v.Difference == "" {
		t.Errorf("another fact is verified as %+v, %v", v, err)
	}
}

func (e *erp) intentOf(testing.TB) []byte {
	return []byte(`{"at":"2026-03-01T00:00:00Z","try":1,"order":{}}`)
}

func TestAnAnswerCountsOnlyWhenItIsUnderstoodAndMeansThisFile(t *testing.T) {
	e := newERP(t)
	e.cfg.Out.Wait = time.Millisecond
	no := e.create(t, "40")
	c, p := e.connector(), posting(no)
	raw := e.prepare(c, p)
	if out := c.Post(t.Context(), p, raw); out.Result != connector.InDoubt {
		t.Fatalf("post: %+v", out)
	}
	ref := p.Fact.Key.String()
	for _, x := range []struct {
		name, text string
		want       connector.Presence
	}{
		{"answer-" + ref + ".json", `{"status":"boo`, connector.NotFoundYet},
		{"answer-" + ref + ".json", `{"status":"maybe"}`, connector.NotFoundYet},
		{"answer-" + ref + ".json", "\xff\xfe{}", connector.NotFoundYet},
		{"answer-" + ref + "-2.json", `{"status":"booked"}`, connector.NotFoundYet},
		{"answer-" + ref + ".json.part", `{"status":"booked"}`, connector.NotFoundYet},
		{"answer-AAAAAAAAAAAAAAAA.json", `{"status":"booked"}`, connector.NotFoundYet},
		{"answer-" + ref + ".json", `{"status":"refused","code":"PERIOD","reason":"closed"}`, connector.Absent},
		{"other-" + ref + ".json", `{"status":"booked","document":"D7"}`, connector.Found}, // what was booked counts, whatever was said before
	} {
		e.save(e.cfg.Answers.Folder, x.name, []byte(x.text))
		f, err := c.Lookup(t.Context(), p, raw)
		if err != nil || f.Presence != x.want {
			t.Errorf("%s %q: %+v, %v", x.name, x.text, f, err)
		}
		if x.want == connector.Absent && (f.Rejection == nil || f.Rejection.Code != "PERIOD" || f.Rejection.NextStep == "") {
			t.Errorf("%q: %+v", x.text, f.Rejection)
		}
	}
}

// inboxOf is a connector for orders of one format, with nothing to post.
func (e *erp) inboxOf(change func(*Orders)) *Connector {
	e.t.Helper()
	o := *e.cfg.Orders
	change(&o)
	e.cfg.Orders = &o
	return e.connector()
}

func (e *erp) left(folder string) (names []string) {
	all, err := os.ReadDir(folder)
	if err != nil {
		e.t.Fatal(err)
	}
	for _, f := range all {
		names = append(names, f.Name())
	}
	return names
}

func oneRow(no, quantity string) string {
	return fmt.Sprintf(`{"no":%q,"item":"X","quantity":%s,"unit":"PCS","state":"RELEASED","parts":[]}`, no, quantity)
}

func orderFile(rows ...string) []byte { return []byte(`{"orders":[` + strings.Join(rows, ",") + `]}`) }

func TestFilesWithOrders(t *testing.T) {
	e := newERP(t)
	c := e.inboxOf(func(*Orders) {})
	put := func(name string, data []byte) {
		t.Helper()
		must(t, os.WriteFile(filepath.Join(e.cfg.Orders.Folder, name), data, 0o644))
	}
	list := func(c *Connector, cursor string) connector.Changes {
		t.Helper()
		page, err := c.ListChanged(t.Context(), cursor)
		must(t, err)
		return page
	}
	put("a.json", orderFile(oneRow("1", "5"), strings.Replace(oneRow("2", "6"), "PCS", "BOX", 1), oneRow("3", "7.250")))
	put("b.json", []byte(`{"orders":[`))
	put("c.json", orderFile(`{"item":"X"}`))
	put("d.tmp", orderFile(oneRow("4", "1")))
	page := list(c, "")
	if len(page.Orders) != 2 || page.Orders[0].OrderNo != "1" || !page.Orders[1].Quantity.Value.Equal(d("7.25")) {
		t.Errorf("orders %+v", page.Orders)
	}
	var reasons []string
	for _, u := range page.Unreadable {
		reasons = append(reasons, u.Reason)
	}
	for _, want := range []string{"File b.json: it is no JSON", "File c.json: record 1 has no order number", `Order 2 of file a.json: unit "BOX" is not mapped`} {
		if !strings.Contains(strings.Join(reasons, "\n"), want) {
			t.Errorf("%q is not among\n%s", want, strings.Join(reasons, "\n"))
		}
	}
	if got := fmt.Sprint(e.left(e.cfg.Orders.Archive), e.left(e.cfg.Orders.Errors), e.left(e.cfg.Orders.Folder)); got != "[a.json] [b.json b.json.reason.txt c.json c.json.reason.txt] [d.tmp]" {
		t.Errorf("the files are at %s", got)
	}
	why, err := os.ReadFile(filepath.Join(e.cfg.Orders.Errors, "b.json.reason.txt"))
	if err != nil || !strings.Contains(string(why), "Reason: it is no JSON") || !strings.Contains(string(why), "Next step: ") {
		t.Errorf("the reason beside it is %q, %v", why, err)
	}

	// The same content is a repetition, whatever it is called; a hub that starts again knows what came.
	put("a.json", orderFile(oneRow("1", "8")))
	put("again.json", orderFile(oneRow("1", "5"), strings.Replace(oneRow("2", "6"), "PCS", "BOX", 1), oneRow("3", "7.250")))
	c = e.connector()
	next := list(c, page.Cursor)
	if len(next.Orders) != 1 || !next.Orders[0].Quantity.Value.Equal(d("8")) || len(next.Unreadable) != 0 {
		t.Errorf("the second page is %+v", next)
	}
	if got := e.left(e.cfg.Orders.Archive); len(got) != 3 {
		t.Errorf("the archive holds %v", got)
	}
	if w, err := c.Get(t.Context(), "3"); err != nil || w.OrderNo != "3" {
		t.Errorf("%+v, %v", w, err)
	}
	if _, err := c.Get(t.Context(), "2"); err == nil || errors.Is(err, connector.ErrNotFound) || !strings.Contains(err.Error(), "add it to units") {
		t.Errorf("an order that cannot be read: %v", err)
	}
	if none := list(c, next.Cursor); len(none.Orders) != 0 || none.Cursor != next.Cursor {
		t.Errorf("nothing changed, and the page is %+v", none)
	}
	// State that was made anew numbers from the beginning: a cursor from before must leave nothing out.
	must(t, os.RemoveAll(e.cfg.Orders.State))
	put("z.json", orderFile(oneRow("9", "1")))
	if fresh := list(e.connector(), next.Cursor); len(fresh.Orders) != 1 {
		t.Errorf("after the state was lost: %+v", fresh)
	}
}

func TestAnOlderRecordDoesNotReplaceANewerOne(t *testing.T) {
	e := newERP(t)
	c := e.inboxOf(func(*Orders) {})
	stamped := func(quantity, at string) []byte {
		return orderFile(strings.Replace(oneRow("1", quantity), "{", `{"changed":"`+at+`",`, 1))
	}
	for i, data := range [][]byte{stamped("5", "2026-03-01T10:00:00Z"), stamped("7", "2026-03-01T11:00:00Z"), stamped("6", "2026-03-01T11:30:00+01:00")} {
		e.save(e.cfg.Orders.Folder, fmt.Sprintf("%d.json", i), data)
		if _, err := c.ListChanged(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
	}
	if w, err := c.Get(t.Context(), "1"); err != nil || !w.Quantity.Value.Equal(d("7")) {
		t.Errorf("%+v, %v", w, err)
	}
}

// TestAFileIsTakenWhenItIsWhole by each of the ways to tell.
func TestAFileIsTakenWhenItIsWhole(t *testing.T) {
	t.Run("stable", func(t *testing.T) {
		e := newERP(t)
		c := e.inboxOf(func(o *Orders) { o.Ready, o.StableFor = "stable", 10*time.Second })
		name, data := filepath.Join(e.cfg.Orders.Folder, "a.json"), orderFile(oneRow("1", "5"))
		synctest.Test(t, func(t *testing.T) {
			count := func() int {
				page, err := c.ListChanged(t.Context(), "")
				must(t, err)
				return len(page.Orders) + len(page.Unreadable)
			}
			must(t, os.WriteFile(name, data[:20], 0o644))
			for range 3 {
				if n := count(); n != 0 {
					t.Fatalf("half of a file gives %d orders", n)
				}
				time.Sleep(4 * time.Second)
			}
			must(t, os.WriteFile(name, data, 0o644)) // at the last moment it goes on
			if n := count(); n != 0 {
				t.Fatalf("a file that just grew gives %d orders", n)
			}
			time.Sleep(11 * time.Second)
			if n := count(); n != 1 {
				t.Errorf("a file that stayed the same gives %d orders", n)
			}
		})
	})
	t.Run("marker", func(t *testing.T) {
		e := newERP(t)
		c := e.inboxOf(func(o *Orders) { o.Ready = "marker" })
		must(t, os.WriteFile(filepath.Join(e.cfg.Orders.Folder, "a.json"), orderFile(oneRow("1", "5")), 0o644))
		if page, err := c.ListChanged(t.Context(), ""); err != nil || len(page.Orders) != 0 {
			t.Fatalf("%+v, %v", page, err)
		}
		must(t, os.WriteFile(filepath.Join(e.cfg.Orders.Folder, "a.json.done"), nil, 0o644))
		if page, err := c.ListChanged(t.Context(), ""); err != nil || len(page.Orders) != 1 {
			t.Fatalf("%+v, %v", page, err)
		}
		if got := fmt.Sprint(e.left(e.cfg.Orders.Folder), e.left(e.cfg.Orders.Archive)); got != "[] [a.json a.json.done]" {
			t.Errorf("the files are at %s", got)
		}
	})
}

// TestHubDiesWhileItTakesAFile after each exchange: no order is left out, and the file is taken in the end.
func TestHubDiesWhileItTakesAFile(t *testing.T) {
	for nth := 1; ; nth++ {
		e := newERP(t)
		e.save(e.cfg.Orders.Folder, "a.json", orderFile(oneRow("1", "5"), oneRow("2", "6")))
		e.faults.Arm(connectortest.LoseReply, nth)
		c := e.connector()
		page, err := c.ListChanged(t.Context(), "")
		fired := e.faults.Fired()
		if (err != nil) != fired {
			t.Fatalf("exchange %d: %+v, %v", nth, page, err)
		}
		page, err = e.connector().ListChanged(t.Context(), "")
		if err != nil || len(page.Orders) != 2 {
			t.Errorf("exchange %d: after the restart %+v, %v", nth, page, err)
		}
		if got := fmt.Sprint(e.left(e.cfg.Orders.Folder), e.left(e.cfg.Orders.Archive)); got != "[] [a.json]" {
			t.Errorf("exchange %d: the files are at %s", nth, got)
		}
		if !fired {
			t.Logf("tried at %d exchanges", nth-1)
			break
		}
	}
}

func TestOrdersInCSV(t *testing.T) {
	e := newERP(t)
	c := e.inboxOf(func(o *Orders) {
		o.Format, o.Map.Components = "csv", nil
		o.Map.Quantity = "row.Menge.replace(',', '.')"
	})
	e.save(e.cfg.Orders.Folder, "a.csv", []byte("\xef\xbb\xbfno;item;Menge;unit;state\r\n1;\"X; large\";5,250;PCS;RELEASED\r\n2;Y;viel;PCS;RELEASED\r\n"))
	e.save(e.cfg.Orders.Folder, "b.csv", []byte("no;item\n1\n"))
	page, err := c.ListChanged(t.Context(), "")
	if err != nil || len(page.Orders) != 1 || page.Orders[0].Item != "X; large" || !page.Orders[0].Quantity.Value.Equal(d("5.25")) || len(page.Unreadable) != 2 {
		t.Errorf("%+v, %v", page, err)
	}
	if got := e.left(e.cfg.Orders.Errors); len(got) != 2 || got[0] != "b.csv" {
		t.Errorf("errors: %v", got)
	}
}

// TestSchedulesOfEveryVersionAreReadAsTheyWereMeant: written by the part of the agent that writes them.
func TestSchedulesOfEveryVersionAreReadAsTheyWereMeant(t *testing.T) {
	start := time.Date(2026, 3, 1, 6, 0, 0, 0, time.UTC)
	order := signal.WorkOrder{OrderNo: "4711", Revision: 3, Item: "BRACKET", Description: "Brackets", Quantity: "40.5", Unit: "C62", WorkCenter: "press1", Priority: 7, Lot: "L1",
		PlannedStart: start, PlannedEnd: start.Add(time.Hour), Operations: []signal.Operation{{Operation: "0010", Description: "press", WorkCenter: "press1", Quantity: "40.5", Unit: "C62"}},
		Components: []signal.Component{{Item: "STEEL", Description: "sheet", Required: "5.0625", Unit: "KGM", Operation: "0010", Reservation: "77", Backflush: true}}}
	want := object.WorkOrder{OrderNo: "4711", ERP: "files", ERPKey: "4711", WorkCenter: "press1", Item: "BRACKET", ItemDescription: "Brackets", Quantity: object.Quantity{Value: d("40.5"), Unit: "C62"},
		State: object.OrderReleased, Priority: 7, PlannedStart: start, PlannedEnd: start.Add(time.Hour), Lot: "L1", RevisedAt: start,
		Operations: []object.Operation{{Operation: "0010", Description: "press", WorkCenter: "press1", Quantity: object.Quantity{Value: d("40.5"), Unit: "C62"}}},
		Components: []object.Component{{Item: "STEEL", Description: "sheet", Required: object.Quantity{Value: d("5.0625"), Unit: "KGM"}, Operation: "0010", Reservation: "77", Backflush: true}}}
	for _, f := range []b2mml.Format{{Version: "V0401"}, {Version: "V0600"}, {Version: "V0700"}, {Version: "V0600", Model: "work"}, {Version: "V0700", Model: "work"}, {Version: "V0600", Model: "production"}} {
		for _, envelope := range []string{"process", "sync", "none"} {
			for _, cancelled := range []bool{false, true} {
				f.Envelope = envelope
				o, w := order, want
				if o.Cancelled = cancelled; cancelled {
					w.State = object.OrderCancelled
				}
				text, err := b2mml.Write(o, f, start)
				must(t, err)
				e := newERP(t)
				c := e.inboxOf(func(o *Orders) { o.Format = "b2mml"; o.Map = Orders{}.Map })
				e.save(e.cfg.Orders.Folder, "a.xml", text)
				page, err := c.ListChanged(t.Context(), "")
				if err != nil || len(page.Orders) != 1 {
					t.Errorf("%+v: %+v, %v\n%s", f, page, err, text)
					continue
				}
				if diff := cmp.Diff(w, page.Orders[0]); diff != "" {
					t.Errorf("%+v, cancelled %t:\n%s\n%s", f, cancelled, diff, text)
				}
			}
		}
	}
}

func TestPublishedScheduleIsRead(t *testing.T) {
	const sample = "../../../../shared/samples/b2mml/v0401_SyncProductionSchedule.xml"
	text, err := os.ReadFile(sample)
	if os.IsNotExist(err) {
		t.Logf("NOT TESTED: the published sample %s is not beside the checkout", sample)
		return
	}
	must(t, err)
	rows, err := schedules(text)
	must(t, err)
	row := rows[0].(map[string]any)
	if row["id"] != "258456" || row["item"] != "SO1215" || row["quantity"] != "1.000" || len(row["consumed"].([]any)) < 2 {
		t.Errorf("%d requests, the first is %v", len(rows), row)
	}
}

func TestDocumentsThatAreNoSchedulesAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		"<a>":  "no XML",
		"<a/>": `its root is "a"`,
		"":     "no root element",
		"<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><ProductionSchedule/>": "DOCTYPE",
		"<ProductionSchedule/>": "without any request",
		"<GetProductionSchedule><DataArea><ProductionSchedule/></DataArea></GetProductionSchedule>": "sends no orders",
		strings.Repeat("<a>", 100): "inside of each other",
	} {
		if rows, err := schedules([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, %v", text, rows, err)
		}
	}
}

func TestAnUnknownHostKeyIsRefusedBeforeAnythingSecretIsSaid(t *testing.T) {
	server := realparts.SFTP(t, realparts.SFTPOptions{})
	e := newERP(t)
	e.cfg.SFTP = &SFTP{Address: fmt.Sprintf("127.0.0.1:%d", server.Port), User: server.User, KeyFile: server.KeyFile, HostKey: []string{"SHA256:" + strings.Repeat("A", 43)}}
	_, err := e.connector().ListChanged(t.Context(), "")
	if err == nil || !strings.Contains(err.Error(), server.Fingerprint) || !strings.Contains(err.Error(), "correct host_key") {
		t.Errorf("%v", err)
	}
	const secret = "s3cr3t"
	password := realparts.WriteFile(t, filepath.Join(t.TempDir(), "password"), secret+"\n")
	e.cfg.SFTP = &SFTP{Address: e.cfg.SFTP.Address, User: server.User, PasswordFile: password, HostKey: []string{server.Fingerprint}}
	if _, err = e.connector().ListChanged(t.Context(), ""); err == nil || strings.Contains(err.Error(), secret) || !strings.Contains(err.Error(), server.User) {
		t.Errorf("%v", err)
	}
}

func TestAServerThatWasKilledIsConnectedAgain(t *testing.T) {
	server := realparts.SFTP(t, realparts.SFTPOptions{})
	e := newERP(t)
	e.cfg.SFTP = &SFTP{Address: fmt.Sprintf("127.0.0.1:%d", server.Port), User: server.User, KeyFile: server.KeyFile, HostKey: []string{server.Fingerprint}}
	e.cfg.Timeout = 5 * time.Second
	no := e.create(t, "40")
	c, p := e.connector(), posting(no)
	raw := e.prepare(c, p)
	server.Kill(syscall.SIGKILL)
	if out := c.Post(t.Context(), p, raw); out.Result == connector.Posted || out.Result == connector.Rejected && out.Class != connector.Retryable {
		t.Errorf("post to a server that is gone: %+v", out)
	}
	server.Start(t)
	defer c.Close() // the server's end waits for those whom it serves
	e.run()
	if x := connectortest.Drive(t.Context(), c, p, time.Minute); x.End != connectortest.Settled {
		t.Fatalf("ended %s:\n%s", x.End, strings.Join(x.Why, "\n"))
	}
	e.idle()
}

func TestConfigurationFaultsNameTheItemAndTheNextStep(t *testing.T) {
	for _, x := range []struct{ from, to, item, next string }{
		{"  folder: /srv/erp/inbound ", "  # ", "out.folder", "name the folder"},
		{"  sent: /srv/linekeeper/sent", "  sent: /srv/erp/inbound/", "out.folder and out.sent", "give each its own"},
		{`name: "confirmation-{ref}.json"`, `name: "confirmation.json"`, "production_confirmation.name", "needs {ref}"},
		{`name: "confirmation-{ref}.json"`, `name: "{ref}-{posting_date}.json"`, "production_confirmation.name", "put a dot"},
		{"      format: json\n", "      format: yaml\n", `format "yaml"`, "use json, csv or xml"},
		{"yield: fact.yield", "yield: fact.", "production_confirmation.body: yield", "not an expression"},
		{"value: fact.quantity", "value: quantity", "material_consumption.columns[4]", "it may use"},
		{`template: "<OrderState>`, `template: "{<OrderState>`, "order_state.template", "not an expression"},
		{"    order_state:", "    order_status:", `"order_status" is not known`, "use some of"},
		{`accepted: "answer.status == 'booked'"`, "", "answers.accepted is empty", "write when"},
		{`name: "*{ref}*.json"`, `name: "*.json"`, "answers.name", "write it like"},
		{"class: fatal", "class: bad", `class "bad"`, "use one of"},
		{"  state: /srv/linekeeper/orders", "  # ", "orders: folder", "name four folders"},
		{"  format: json                   # json, csv (a line", "  format: edi # ", `orders.format "edi"`, "use json, csv or b2mml"},
		{"    item: row.item\n", "", "orders.map: item is missing", "row.item"},
		{"out:\n", "units: {A: C62, B: C62}\nout:\n", `"A" and "B"`, "which one"},
		{"out:\n", "sftp: {address: a, user: b, key_file: c}\nout:\n", "sftp.host_key", "ask the server's administrator"},
		{"out:\n", "sftp: {address: a, user: b, key_file: c, host_key: [x]}\nout:\n", `host_key "x"`, "SHA256"},
		{"out:\n", "sftp: {address: a, user: b}\nout:\n", "sftp", "password_file or key_file"},
	} {
		text := strings.Replace(Sample, x.from, x.to, 1)
		if text == Sample {
			t.Fatalf("%q is not in the sample", x.from)
		}
		_, err := New(load(t, text))
		if err == nil || !strings.Contains(err.Error(), x.item) || !strings.Contains(err.Error(), x.next) || !strings.HasPrefix(err.Error(), "configure files: ") {
			t.Errorf("%q instead of %q: %v; want %q and %q in it", x.to, x.from, err, x.item, x.next)
		}
	}
	cfg := load(t, Sample)
	cfg.Answers = nil
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "handover_is_effect: true") {
		t.Errorf("neither answers nor hand-over: %v", err)
	}
}

// FuzzOrders decodes anything as a file with orders: no record is made up, and none has the number of none.
func FuzzOrders(f *testing.F) {
	f.Add([]byte(`{"orders":[{"no":"1","item":"X","quantity":"5","unit":"C62","state":"RELEASED","parts":[]}]}`), uint8(0))
	f.Add([]byte(`{"orders":[{"no":{},"quantity":1e999}]}`), uint8(0))
	f.Add([]byte("no;item;quantity;unit;state\n1;X;5;C62;RELEASED\n"), uint8(1))
	f.Add([]byte("\"no\n"), uint8(1))
	f.Add([]byte(`<ProductionSchedule><ProductionRequest><ID>1</ID><SegmentRequirement><ID>2</ID><MaterialRequirement><MaterialDefinitionID>X</MaterialDefinitionID><MaterialUse>Produced</MaterialUse><Quantity><QuantityString>5</QuantityString><UnitOfMeasure>C62</UnitOfMeasure></Quantity></MaterialRequirement></SegmentRequirement></ProductionRequest></ProductionSchedule>`), uint8(2))
	f.Add([]byte(`<CancelOperationsSchedule><DataArea><Cancel/><OperationsSchedule><OperationsRequest><ID>1</ID></OperationsRequest></OperationsSchedule></DataArea></CancelOperationsSchedule>`), uint8(2))
	var all []*inbox
	for _, format := range []string{"json", "csv", "b2mml"} {
		cfg := load(f, Sample)
		cfg.Orders.Format = format
		if format == "b2mml" {
			cfg.Orders.Map = Orders{}.Map
		}
		c, err := New(cfg)
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, c.inbox)
	}
	f.Fuzz(func(t *testing.T, data []byte, format uint8) {
		b := all[int(format)%len(all)]
		rows, err := b.decode(data)
		if err != nil {
			return
		}
		for _, row := range rows {
			b.older(row, row)
			w, err := b.orders.Read(row)
			if err == nil && (w.OrderNo == "" || w.Item == "" || w.Quantity.Unit == "" || b.orders.Number(row) == "") {
				t.Errorf("order %+v", w)
			}
		}
	})
}

// FuzzAnswer decodes anything as an answer: it counts as booked or refused only where the configuration says so.
func FuzzAnswer(f *testing.F) {
	for _, text := range []string{`{"status":"booked","document":"D1"}`, `{"status":"refused","code":"LOCK"}`, `{"status":`, `[]`, "", "\xff", `{"status":"booked","document":{}}`} {
		f.Add([]byte(text))
	}
	c, err := New(load(f, Sample))
	if err != nil {
		f.Fatal(err)
	}
	p := posting("1")
	f.Fuzz(func(t *testing.T, data []byte) {
		k := known{entry: entry{name: "x"}, ref: p.Fact.Key.String()}
		c.decode(&k, data)
		s := c.judge(p, intent{Try: 1}, k)
		switch {
		case s.booked && (s.refusal != nil || s.document.Number == "" || !bytes.Contains(data, []byte("boo")) && !bytes.Contains(data, []byte(`\u`))):
			t.Errorf("%q is taken for %+v", data, s)
		case !s.booked && s.refusal == nil && s.why == "":
			t.Errorf("nobody is told why %q does not count", data)
		}
	})
}

// A file whose expressions ask for a movement's type is made with what the mapping says, and not at all where that does not know it.
func TestMovementTypeIsAskedForByExpressions(t *testing.T) {
	e := newERP(t)
	e.cfg.Out.Postings["production_confirmation"].Body = map[string]any{"ref": "ref", "type": "fact.movement_type"}
	e.cfg.Out.Postings["production_confirmation"].Format = "json"
	c := e.connector()
	p := posting(e.create(t, "40"))
	p.Movements = &object.MovementTypes{Set: "movements", Version: 2}
	if _, early, err := c.Prepare(t.Context(), p); err != nil || early == nil || early.Code != connector.CodeMappingMissing || !c.Capabilities().MovementTypes {
		t.Fatalf("%+v, %v", early, err)
	}
	p.Movements.Types = map[object.MovementKind]string{object.ReceiptFromOrder: "Z01"}
	in, err := readIntent(e.prepare(c, p))
	must(t, err)
	m, err := c.make(p, in)
	must(t, err)
	if !strings.Contains(string(m.data), `"type":"Z01"`) {
		t.Errorf("%s", m.data)
	}
}
