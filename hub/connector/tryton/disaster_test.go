package tryton_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/connector/tryton"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
	"github.com/shopspring/decimal"
)

const patience = 3 * time.Minute

func posting(order string) connector.Posting {
	now := time.Now().UTC()
	return connector.Posting{Attempt: 1, Order: object.WorkOrder{OrderNo: order, Item: "FG-GEAR"},
		PostingDate: time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, time.UTC),
		Fact:        object.Fact{Key: factkey.Random(), OccurredAt: now, RecordedAt: now, TimeZone: "UTC"}}
}

func confirmation(order, yield, scrap, rework string) connector.Posting {
	p := posting(order)
	dec := decimal.RequireFromString
	p.Fact.Kind = object.KindConfirmation
	p.Fact.Confirmation = &object.Confirmation{OrderNo: order, Item: "FG-GEAR", Unit: "C62", Yield: dec(yield), Scrap: dec(scrap), Rework: dec(rework)}
	return p
}

func consumption(order, quantity string) connector.Posting {
	p := posting(order)
	p.Fact.Kind = object.KindConsumption
	p.Fact.Consumption = &object.Consumption{OrderNo: order, Item: "RM-STEEL", Movement: object.Issue,
		Quantity: object.Quantity{Value: decimal.RequireFromString(quantity), Unit: "KGM"}}
	return p
}

func floorState(order string, s object.FloorState) connector.Posting {
	p := posting(order)
	p.Fact.Kind = object.KindOrderState
	p.Fact.OrderState = &object.ShopFloorState{OrderNo: order, State: s}
	return p
}

func drive(t testing.TB, c connector.Connector, p connector.Posting) connectortest.Settlement {
	t.Helper()
	return connectortest.Drive(t.Context(), c, p, patience)
}

func settle(t testing.TB, c connector.Connector, p connector.Posting) connectortest.Settlement {
	t.Helper()
	x := drive(t, c, p)
	if x.End != connectortest.Settled {
		t.Fatalf("posting %s ended %s:\n  %s", p.Fact.Kind, x.End, strings.Join(x.Why, "\n  "))
	}
	return x
}

// refuse wants a posting to be rejected with a code and a class, and the books to stay as they are.
func (pl *plant) refuse(t testing.TB, c connector.Connector, p connector.Posting, class connector.Class, code string) {
	t.Helper()
	before := pl.books(t, p.Fact.OrderNo())
	x := drive(t, c, p)
	if x.End != connectortest.Refused || x.Outcome.Class != class || x.Outcome.Code != code {
		t.Fatalf("posting ended %s as %s %q, want refused as %s %q:\n  %s", x.End, x.Outcome.Class, x.Outcome.Code, class, code, strings.Join(x.Why, "\n  "))
	}
	if x.Outcome.NextStep == "" {
		t.Errorf("rejection %q names no next step", code)
	}
	if after := pl.books(t, p.Fact.OrderNo()); after != before {
		t.Errorf("a refused posting changed the books from %+v to %+v", before, after)
	}
}

// books is everything that Tryton holds for an order, open moves included.
func (pl *plant) books(t testing.TB, order string) [2]any {
	t.Helper()
	return [2]any{pl.erp.Effects(t, order, "FG-GEAR"), pl.erp.Effects(t, order, "RM-STEEL")}
}

// once runs a disaster the first time that a request for the method comes by, before it is passed on.
func (pl *plant) once(t testing.TB, method string, disaster func()) {
	var first sync.Once
	happened := false
	pl.proxy.Watch(func(body []byte) {
		if bytes.Contains(body, []byte(`"method":"model.`+method+`"`)) {
			first.Do(func() { happened = true; disaster() })
		}
	})
	t.Cleanup(func() {
		pl.proxy.Watch(nil)
		if !happened {
			t.Errorf("the disaster at %s never happened", method)
		}
	})
}

func killedBetweenCreateAndDo(t *testing.T, pl *plant) {
	c, order := pl.connect(t), pl.order(t, "40")
	settle(t, c, confirmation(order, "1", "0", "0"))
	pl.once(t, "stock.move.do", func() {
		pl.erp.Kill(syscall.SIGKILL)
		if err := pl.erp.Run(); err != nil {
			t.Errorf("start trytond again: %v", err)
		}
		pl.proxy.Arm(connectortest.LoseRequest, 1) // what was sent to the dead one
	})
	x := settle(t, c, confirmation(order, "5", "2", "0"))
	if x.Lookups == 0 {
		t.Errorf("nothing was looked up: %v", x.Why)
	}
	if got := pl.erp.Effects(t, order, "FG-GEAR"); got.Yield != "6" || got.Scrap != "2" || got.Done != 3 {
		t.Errorf("after a crash between create and do Tryton holds %+v, want yield 6, scrap 2 in 3 moves", got)
	}
}

func databaseConnectionsCut(t *testing.T, pl *plant) {
	c, order := pl.connect(t), pl.order(t, "40")
	settle(t, c, confirmation(order, "1", "0", "0"))
	want := 1
	for _, method := range []string{"production.write", "ir.note.create", "stock.move.do"} {
		t.Run(method, func(t *testing.T) {
			pl.once(t, method, func() { pl.erp.CutDatabase(t) })
			settle(t, c, confirmation(order, "1", "0", "0"))
			want++
			if got := pl.erp.Effects(t, order, "FG-GEAR"); got.Done != want {
				t.Errorf("Tryton holds %+v, want %d moves of 1", got, want)
			}
		})
	}
}

// Tryton answers null to a transition that does not fit the order's state, as it does to one that worked.
func ignoredTransition(t *testing.T, pl *plant) {
	c, order := pl.connect(t), pl.order(t, "40")
	id := []int{pl.erp.OrderID(t, order)}
	pl.once(t, "production.assign_try", func() {
		if _, err := pl.erp.TryCall("production", "cancel", id); err != nil {
			t.Error(err)
		}
	})
	x := drive(t, c, floorState(order, object.FloorStarted))
	if x.End != connectortest.Refused || x.Outcome.Class != connector.Correctable {
		t.Errorf("an order that a planner cancelled under our hands was started as %s:\n  %s", x.End, strings.Join(x.Why, "\n  "))
	}
	if got := pl.erp.OrderState(t, order); got != "cancelled" {
		t.Errorf("order is %q, want cancelled", got)
	}
}

func plannedOutput(t *testing.T, pl *plant) {
	c, order := pl.connect(t), pl.order(t, "40")
	settle(t, c, confirmation(order, "12", "3", "0"))
	settle(t, c, confirmation(order, "8", "0", "0"))
	if got := pl.openOutput(t, order); got != 20 {
		t.Errorf("after a yield of 20 out of 40 Tryton still plans %v", got)
	}
	settle(t, c, confirmation(order, "30", "0", "0"))
	if got := pl.openOutput(t, order); got != 0 {
		t.Errorf("after a yield of 50 out of 40 Tryton still plans %v", got)
	}
	settle(t, c, floorState(order, object.FloorFinished))
	if got := pl.erp.Effects(t, order, "FG-GEAR"); got.Yield != "50" || got.Open != 0 {
		t.Errorf("a finished order holds %+v, want yield 50 and nothing open", got)
	}
}

func (pl *plant) openOutput(t testing.TB, order string) float64 {
	t.Helper()
	var rows []struct{ Quantity float64 }
	raw := pl.erp.Call(t, "stock.move", "search_read", []any{[]any{"production_output.number", "=", order}, []any{"state", "=", "draft"}}, 0, nil, nil, []string{"quantity"})
	if err := json.Unmarshal(raw, &rows); err != nil || len(rows) != 1 {
		t.Fatalf("open outputs of order %s: %s, %v", order, raw, err)
	}
	return rows[0].Quantity
}

func keyOnEveryMove(t *testing.T, pl *plant) {
	c, order := pl.connect(t), pl.order(t, "40")
	p := confirmation(order, "2", "1", "0")
	noted := 0
	count := func() int {
		var n int
		raw, err := pl.erp.TryCall("ir.note", "search_count", []any{[]any{"message", "ilike", "%" + p.Fact.Key.String() + "%"}})
		if err != nil || json.Unmarshal(raw, &n) != nil {
			t.Errorf("search the notes: %s, %v", raw, err)
		}
		return n
	}
	pl.once(t, "stock.move.do", func() { noted = count() })
	x := settle(t, c, p)
	if noted != 2 || count() != 2 {
		t.Errorf("key %s was on %d notes before the moves were done and is on %d after, want 2", p.Fact.Key, noted, count())
	}
	if ids := strings.Split(x.Document.ID, ","); len(ids) != 2 || !strings.HasPrefix(x.Document.Number, order+"/") {
		t.Errorf("document is %+v, want order %s and two moves", x.Document, order)
	}
}

// A posting date beyond tomorrow makes Tryton ask for a confirmation that nobody is there to give.
func refusedDraft(t *testing.T, pl *plant) {
	c, order := pl.connect(t), pl.order(t, "40")
	settle(t, c, confirmation(order, "1", "0", "0"))
	p := confirmation(order, "7", "1", "0")
	p.PostingDate = p.PostingDate.AddDate(0, 0, 9)
	pl.refuse(t, c, p, connector.Correctable, "needs_confirmation")
	if got := pl.openOutput(t, order); got != 39 {
		t.Errorf("after a refused posting Tryton plans %v, want 39 as before", got)
	}
}

// Tryton marks the session as used after its commit. When somebody ends the session just then, Tryton answers a refusal to
// what it has done; in the server's language.
func endedAfterCommit(t *testing.T, pl *plant) {
	to, err := url.Parse(pl.erp.URL)
	if err != nil {
		t.Fatal(err)
	}
	for method, text := range map[string]string{
		"production.write":       `You are trying to read records \"30\" of \"Session\" that don't exist anymore.`,
		"production.write ":      `Sie versuchen die Datensätze \"30\" aus \"Sitzung\" zu lesen, die nicht mehr existieren.`,
		"stock.move.do":          `You are trying to read records \"30\" of \"Session\" that don't exist anymore.`,
		"production.search_read": `You are trying to read records \"30\" of \"Session\" that don't exist anymore.`,
	} {
		var first sync.Once
		proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = to.Scheme, to.Host }}
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			if bytes.Contains(body, []byte(`"method":"model.`+strings.TrimSpace(method)+`"`)) {
				first.Do(func() {
					proxy.ServeHTTP(httptest.NewRecorder(), r)
					io.WriteString(w, `{"id":0,"error":["UserError",["`+text+`","",null]]}`)
					r = nil
				})
			}
			if r != nil {
				proxy.ServeHTTP(w, r)
			}
		}))
		c, order := pl.connect(t, func(c *tryton.Config) { c.URL = server.URL + "/erp/" }), pl.order(t, "40")
		settle(t, c, confirmation(order, "4", "1", "0"))
		server.Close()
		if got := pl.erp.Effects(t, order, "FG-GEAR"); got.Yield != "4" || got.Scrap != "1" || got.Done != 2 || got.Loose != 0 {
			t.Errorf("%s: Tryton holds %+v, want yield 4 and scrap 1 in 2 moves", method, got)
		}
	}
}

func postedTomorrow(t *testing.T, pl *plant) {
	c, order := pl.connect(t), pl.order(t, "40")
	p := confirmation(order, "7", "0", "0")
	p.PostingDate = p.PostingDate.AddDate(0, 0, 1)
	settle(t, c, p)
	if got := pl.erp.Effects(t, order, "FG-GEAR"); got.Yield != "7" {
		t.Errorf("Tryton holds %+v, want yield 7", got)
	}
}

func closedPeriod(t *testing.T, pl *plant) {
	c, order := pl.connect(t), pl.order(t, "40")
	settle(t, c, confirmation(order, "1", "0", "0"))
	day := time.Now().UTC().AddDate(0, 0, -30)
	date := map[string]any{"__class__": "date", "year": day.Year(), "month": int(day.Month()), "day": day.Day()}
	var ids []int
	if err := json.Unmarshal(pl.erp.Call(t, "stock.period", "create", []any{map[string]any{"date": date, "company": pl.erp.IDs["company"]}}), &ids); err != nil {
		t.Fatal(err)
	}
	pl.erp.Call(t, "stock.period", "close", ids)
	p := confirmation(order, "7", "0", "0")
	p.PostingDate = day
	pl.refuse(t, c, p, connector.Correctable, "period_closed")
}

func checkedStock(t *testing.T, pl *plant) {
	c, order := pl.connect(t, func(c *tryton.Config) { c.CheckStock = true }), pl.order(t, "40")
	pl.refuse(t, c, consumption(order, "99999999"), connector.Correctable, "insufficient_stock")
	settle(t, c, consumption(order, "2.5"))
	grams := consumption(order, "250")
	grams.Fact.Consumption.Quantity.Unit = "GRM"
	settle(t, c, grams)
	if got := pl.erp.Effects(t, order, "RM-STEEL"); got.Issued != "2.75" {
		t.Errorf("Tryton holds %+v, want 2.75 issued", got)
	}
}

func rework(t *testing.T, pl *plant) {
	c, order := pl.connect(t), pl.order(t, "40")
	pl.refuse(t, c, confirmation(order, "2", "0", "1"), connector.Fatal, "rework_unsupported")
	c = pl.connect(t, func(c *tryton.Config) { c.ReworkLocation = "REWORK" })
	settle(t, c, confirmation(order, "2", "1", "1"))
	if got := pl.erp.Effects(t, order, "FG-GEAR"); got.Done != 3 || got.Scrap != "1" {
		t.Errorf("Tryton holds %+v, want three moves", got)
	}
	c = pl.connect(t, func(c *tryton.Config) { c.ScrapLocation = "NOWHERE" })
	pl.refuse(t, c, confirmation(order, "0", "1", "0"), connector.Correctable, "no_scrap_location")
}

func lots(t *testing.T, pl *plant) {
	c, order := pl.connect(t), pl.order(t, "40")
	p := consumption(order, "2.5")
	p.Fact.Consumption.Lot = "HEAT-4711"
	pl.refuse(t, c, p, connector.Correctable, "unknown_lot")
	for range 2 {
		p = confirmation(order, "2", "0", "0")
		p.Fact.Confirmation.Lot = "G-2026-1"
		settle(t, c, p)
	}
	var n int
	raw := pl.erp.Call(t, "stock.move", "search_count", []any{[]any{"lot.number", "=", "G-2026-1"}, []any{"state", "=", "done"}})
	if err := json.Unmarshal(raw, &n); err != nil || n != 2 {
		t.Errorf("lot G-2026-1 is on %s done moves, want 2", raw)
	}
}

func reversal(t *testing.T, pl *plant) {
	c, order := pl.connect(t), pl.order(t, "40")
	first := confirmation(order, "5", "0", "0")
	settle(t, c, first)
	p := confirmation(order, "5", "0", "0")
	p.Fact.Reverses = first.Fact.Key
	settle(t, c, p)
	if got := pl.erp.Effects(t, order, "FG-GEAR"); got.Yield != "5" || got.Issued != "5" {
		t.Errorf("Tryton holds %+v, want 5 made and 5 taken back", got)
	}
	used := consumption(order, "2.5")
	settle(t, c, used)
	q := consumption(order, "2.5")
	q.Fact.Reverses = used.Fact.Key
	settle(t, c, q)
	if got := pl.erp.Effects(t, order, "RM-STEEL"); got.Returned != "2.5" || got.Issued != "2.5" {
		t.Errorf("Tryton holds %+v, want 2.5 issued and 2.5 returned", got)
	}
	scrapped := confirmation(order, "0", "1", "0")
	settle(t, c, scrapped)
	p = confirmation(order, "0", "1", "0")
	p.Fact.Reverses = scrapped.Fact.Key
	pl.refuse(t, c, p, connector.Correctable, "scrap_reversed")
}

func openWorks(t *testing.T, pl *plant) {
	c, order := pl.connect(t), pl.order(t, "40")
	var category, operation []int
	create := func(into *[]int, model string, values map[string]any) {
		t.Helper()
		if err := json.Unmarshal(pl.erp.Call(t, model, "create", []any{values}), into); err != nil {
			t.Fatal(err)
		}
	}
	create(&category, "production.work.center.category", map[string]any{"name": "Milling"})
	create(&operation, "production.routing.operation", map[string]any{"name": "Mill", "work_center_category": category[0]})
	var work []int
	create(&work, "production.work", map[string]any{"production": pl.erp.OrderID(t, order), "operation": operation[0], "company": pl.erp.IDs["company"]})
	settle(t, c, floorState(order, object.FloorStarted))
	pl.refuse(t, c, floorState(order, object.FloorFinished), connector.Correctable, "works_open")
	o, err := c.Get(t.Context(), order)
	if err != nil || len(o.Operations) != 1 || o.Operations[0].Description != "Mill" {
		t.Errorf("order has the operations %+v, %v; want Mill", o.Operations, err)
	}
}

func withoutRights(t *testing.T, pl *plant) {
	order := pl.order(t, "40")
	pl.erp.Call(t, "res.user", "create", []any{map[string]any{"name": "Guest", "login": "guest", "password": "lk-Guest-9315",
		"companies": []any{[]any{"add", []int{pl.erp.IDs["company"]}}}, "company": pl.erp.IDs["company"]}})
	c := pl.connect(t, func(c *tryton.Config) { c.User, c.Password = "guest", "lk-Guest-9315" })
	pl.refuse(t, c, confirmation(order, "1", "0", "0"), connector.Fatal, "not_allowed")
}

// Each wrong password slows the next log-in, and the sixth locks the account for everybody.
func wrongPassword(t *testing.T, pl *plant) {
	order := pl.order(t, "40")
	c := pl.connect(t, func(c *tryton.Config) { c.User, c.Password = "nobody", "wrong" })
	for range 3 {
		if _, _, err := c.Prepare(t.Context(), confirmation(order, "1", "0", "0")); err == nil || !strings.Contains(err.Error(), "nobody") {
			t.Errorf("a wrong password gives %v, want an error that names the user", err)
		}
	}
	before, _ := pl.proxy.Counts()
	if _, err := c.ListChanged(t.Context(), ""); err == nil {
		t.Error("a wrong password lists orders")
	}
	if after, _ := pl.proxy.Counts(); after != before {
		t.Errorf("after a refused log-in %d more were tried", after-before)
	}
}

func unmappedUnit(t *testing.T, pl *plant) {
	order := pl.order(t, "40")
	c := pl.connect(t, func(c *tryton.Config) { c.Units = map[string]string{"kg": ""}; c.PageSize = 500 })
	page, err := c.ListChanged(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(page.Unreadable, func(u connector.Unreadable) bool { return u.OrderNo == order })
	if i < 0 || !strings.Contains(page.Unreadable[i].Reason, `"kg"`) {
		t.Errorf("order %s with an unmapped unit is not named: %+v", order, page.Unreadable)
	}
	if page.Cursor == "" {
		t.Error("the page has no cursor")
	}
	if _, err := c.Get(t.Context(), order); err == nil || !strings.Contains(err.Error(), `"kg"`) {
		t.Errorf("get of an order with an unmapped unit gives %v", err)
	}
}

// A planner who corrects a line in the list of moves does not touch the order itself.
func changedLine(t *testing.T, pl *plant) {
	c, order := pl.connect(t), pl.order(t, "40")
	cursor := pl.listAll(t, c, "", nil)
	var lines []int
	raw := pl.erp.Call(t, "stock.move", "search", []any{[]any{"production_input.number", "=", order}, []any{"product.code", "=", "RM-STEEL"}}, 0, nil, nil)
	if err := json.Unmarshal(raw, &lines); err != nil {
		t.Fatal(err)
	}
	pl.erp.Call(t, "stock.move", "write", lines, map[string]any{"quantity": json.Number("77.5")})
	seen := map[string]object.WorkOrder{}
	pl.listAll(t, c, cursor, seen)
	for _, x := range seen[order].Components {
		if x.Item == "RM-STEEL" && x.Required.Value.String() == "77.5" {
			return
		}
	}
	t.Errorf("a changed line is not listed: %+v", seen[order].Components)
}

func (pl *plant) listAll(t testing.TB, c *tryton.Connector, cursor string, seen map[string]object.WorkOrder) string {
	t.Helper()
	for {
		page, err := c.ListChanged(t.Context(), cursor)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range page.Orders {
			if seen != nil {
				seen[o.OrderNo] = o
			}
		}
		cursor = page.Cursor
		if !page.More {
			return cursor
		}
	}
}

// One transaction stamps all its records alike, so a page can end amidst them.
func paging(t *testing.T, pl *plant) {
	c := pl.connect(t, func(c *tryton.Config) { c.PageSize = 3 })
	cursor := pl.listAll(t, pl.connect(t), "", nil)
	id := pl.erp.OrderID(t, pl.order(t, "5"))
	var copies []int
	if err := json.Unmarshal(pl.erp.Call(t, "production", "copy", slices.Repeat([]int{id}, 1)), &copies); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		var more []int
		if err := json.Unmarshal(pl.erp.Call(t, "production", "copy", copies), &more); err != nil {
			t.Fatal(err)
		}
		copies = append(copies, more...)
	}
	pl.exec(t, `UPDATE production SET write_date = CURRENT_TIMESTAMP, reference = 'bulk' WHERE id >= $1`, id)
	seen := map[string]object.WorkOrder{}
	pl.listAll(t, c, cursor, seen)
	if len(seen) < len(copies)+1 {
		t.Errorf("%d orders changed at one instant, %d were listed", len(copies)+1, len(seen))
	}
}
