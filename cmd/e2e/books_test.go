package e2e

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/hub/connector/s4/s4double"
	"github.com/linekeeper/linekeeper/hub/object"
)

// s4Books is the double of S/4HANA. It lives in the test's process, which the deaths of the hub don't touch. It is a system
// without repeatable requests: what is sent twice is booked twice, and nothing but looking up keeps it from that.
type s4Books struct {
	t *testing.T
	*s4double.System
	http.Handler
	at    time.Time
	traps s4double.Traps
}

const (
	s4Plant, s4Place = "1710", "171A"
	s4Made, s4Taken  = "MZ-FG-R10", "RM124"
)

func newS4Books(t *testing.T) *s4Books {
	s := s4double.New(s4double.Options{})
	b := &s4Books{t: t, System: s, Handler: s.Handler(), at: time.Now().UTC(), traps: s4double.Traps{SharedSessionsBreak: true, NoRepeats: true}}
	s.SetTraps(b.traps)
	s.PutMaterial(s4double.Material{Number: s4Made, Unit: "PC", UnitISO: "PCE"})
	s.PutMaterial(s4double.Material{Number: s4Taken, Unit: "KG", UnitISO: "KGM", Decimals: 3})
	s.PutStock(s4Taken, s4Plant, s4Place, decimal.NewFromInt(100_000_000))
	return b
}

func (b *s4Books) section(dir, url string) string {
	realparts.WriteFile(b.t, filepath.Join(dir, "erp-password.txt"), "secret\n")
	return fmt.Sprintf(`
erps:
  - {name: erp, kind: s4, url: "%s", user: LINEKEEPER, password_file: erp-password.txt, units: {PCE: C62, PC: C62, KG: KGM}, sessions: 8,
     timeout: 3s, settle: 3s, absent_after: 10s}
`, url)
}

func (b *s4Books) effect(r *http.Request, _ []byte) bool       { return r.Method == http.MethodPost }
func (b *s4Books) made(answer *httptest.ResponseRecorder) bool { return answer.Code < 300 }

// admit opens a session for a request that was let in long ago and is done only now: SAP no longer asks for its token.
func (b *s4Books) admit(r *http.Request) {
	service, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/sap/opu/odata/sap/"), "/")
	fetch := httptest.NewRequest(http.MethodGet, "/sap/opu/odata/sap/"+service+"/", nil)
	fetch.Header.Set("Authorization", r.Header.Get("Authorization"))
	fetch.Header.Set("X-CSRF-Token", "Fetch")
	answer := httptest.NewRecorder()
	b.ServeHTTP(answer, fetch)
	r.Header.Del("Cookie")
	for _, c := range answer.Result().Cookies() {
		r.AddCookie(c)
	}
	r.Header.Set("X-CSRF-Token", answer.Header().Get("X-CSRF-Token"))
}

func (b *s4Books) words() (item, unit, component, itsUnit string) {
	return s4Made, "C62", s4Taken, "KGM"
}
func (b *s4Books) day() time.Time   { return b.at }
func (b *s4Books) closed() string   { return "M7/053" }
func (b *s4Books) period(open bool) { b.SetPeriod(b.at.Format("2006-01"), open) }

func (b *s4Books) release() string {
	return b.CreateOrder(s4double.Order{Material: s4Made, Plant: s4Plant, StorageLocation: s4Place, Quantity: decimal.NewFromInt(1_000_000), Released: true, AutomaticReceipt: true,
		Operations: []s4double.Operation{{Number: "0010", Text: "Assemble", WorkCenter: "ASSEMBLY"}},
		Components: []s4double.Component{{Material: s4Taken, StorageLocation: s4Place, Operation: "0010", Required: decimal.NewFromInt(125_000)}}})
}

func (b *s4Books) spoil(c *object.Confirmation, n int) string {
	if n%2 == 0 {
		c.Operation = "0099"
		return "OPERATION"
	}
	c.Unit = "KGM"
	return "UNIT"
}

// disturb ends all sessions, lets a planner work on an order, or shows what is booked late.
func (b *s4Books) disturb(random *rand.Rand, order string) (end func()) {
	switch n := random.IntN(40); {
	case n < 10:
		b.ExpireSessions()
	case n < 25:
		b.Lock(order, "PLANNER")
		return func() { b.Unlock(order) }
	case n < 30:
		traps := b.traps
		traps.VisibleAfter = 500 * time.Millisecond
		b.SetTraps(traps)
		return func() { b.SetTraps(b.traps) }
	}
	return func() {}
}

func (b *s4Books) keysOf(f object.Fact) map[string]int {
	switch f.Kind {
	case object.KindConfirmation:
		return map[string]int{f.Key.UUID(): 1}
	case object.KindConsumption:
		return map[string]int{f.Key.String(): 1}
	}
	return nil
}

func (b *s4Books) keys() map[string]int { return b.Keys() }

func (b *s4Books) book(order string) page {
	t := b.Totals(order)
	if !t.Received.Equal(t.Yield) { // the goods receipt belongs to the confirmation
		t.Yield = t.Received
	}
	return page{yield: t.Yield, scrap: t.Scrap, issued: t.Issued[s4Taken], finished: t.Order.TechnicallyComplete}
}

// trytonBooks is a real Tryton on PostgreSQL.
type trytonBooks struct {
	t   *testing.T
	erp *realparts.TrytonServer
	*httputil.ReverseProxy
	db    *sql.DB
	at    time.Time
	shut  []int    // the stock period
	ready []string // orders that are not given out yet
}

func newTrytonBooks(t *testing.T) *trytonBooks {
	b := &trytonBooks{t: t, erp: realparts.Tryton(t), at: time.Now().UTC().AddDate(0, 0, -1)}
	to, err := url.Parse(b.erp.URL)
	if err != nil {
		t.Fatal(err)
	}
	b.ReverseProxy = &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = to.Scheme, to.Host }}
	if b.db, err = sql.Open("pgx", b.erp.DSN); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.db.Close() })
	return b
}

func (b *trytonBooks) section(dir, url string) string {
	realparts.WriteFile(b.t, filepath.Join(dir, "erp-password.txt"), b.erp.Password+"\n")
	return fmt.Sprintf(`
erps:
  - {name: erp, kind: tryton, url: "%s/erp/", user: %s, password_file: erp-password.txt, parallel: 4}
`, url, b.erp.User)
}

// effect is what changes something in Tryton; everything else reads.
func (b *trytonBooks) effect(_ *http.Request, body []byte) bool {
	for _, method := range []string{"production.write", "stock.move.do", "ir.note.create", "production.assign_try", "production.run", "production.done"} {
		if bytes.Contains(body, []byte(`"method":"model.`+method+`"`)) {
			return true
		}
	}
	return false
}

func (b *trytonBooks) admit(*http.Request) {}

func (b *trytonBooks) made(answer *httptest.ResponseRecorder) bool {
	return answer.Code == http.StatusOK && !bytes.Contains(answer.Body.Bytes(), []byte(`"error"`))
}

func (b *trytonBooks) words() (item, unit, component, itsUnit string) {
	return "FG-GEAR", "C62", "RM-STEEL", "KGM"
}
func (b *trytonBooks) day() time.Time { return b.at }
func (b *trytonBooks) closed() string { return "period_closed" }

// release copies many orders at a time, because Tryton takes long to work one out.
func (b *trytonBooks) release() string {
	b.t.Helper()
	const atOnce = 40
	if len(b.ready) == 0 {
		first := b.erp.OrderID(b.t, b.erp.CreateProductionOrder(b.t, realparts.TrytonOrder{Item: "FG-GEAR", Quantity: "1000"}))
		var copies []int
		var read []struct{ Number string }
		b.call(&copies, "copy", slices.Repeat([]int{first}, atOnce))
		b.call(nil, "wait", copies)
		b.call(&read, "read", append(copies, first), []string{"number"})
		for _, r := range read {
			b.ready = append(b.ready, r.Number)
		}
	}
	no := b.ready[0]
	b.ready = b.ready[1:]
	return no
}

func (b *trytonBooks) call(into any, method string, args ...any) {
	b.t.Helper()
	raw := b.erp.Call(b.t, "production", method, args...)
	if into == nil {
		return
	}
	if err := json.Unmarshal(raw, into); err != nil {
		b.t.Fatalf("read Tryton's answer %.200s: %v", raw, err)
	}
}

func (b *trytonBooks) spoil(c *object.Confirmation, n int) string {
	if n%2 == 0 {
		c.Rework = decimal.NewFromInt(1)
		return "rework_unsupported"
	}
	c.Unit = "KGM"
	return "unit_mismatch"
}

// disturb ends all sessions, lets a planner change an order under the hub's hands, or cuts Tryton's own connections.
func (b *trytonBooks) disturb(random *rand.Rand, order string) (end func()) {
	switch n := random.IntN(400); {
	case n < 2:
		b.exec(`DELETE FROM ir_session WHERE create_uid = $1`, b.erp.IDs["user"])
	case n < 80:
		b.exec(`UPDATE production SET write_date = clock_timestamp() WHERE number = $1`, order)
	case n < 81:
		b.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
	}
	return func() {}
}

// exec changes the database. A transaction of Tryton's may be in the way; then it was trouble enough.
func (b *trytonBooks) exec(statement string, args ...any) {
	if _, err := b.db.Exec(statement, args...); err != nil && !strings.Contains(err.Error(), "could not serialize") {
		b.t.Errorf("make trouble in Tryton's database: %v", err)
	}
}

func (b *trytonBooks) period(open bool) {
	b.t.Helper()
	if open {
		b.erp.Call(b.t, "stock.period", "draft", b.shut)
		return
	}
	if b.shut == nil {
		date := map[string]any{"__class__": "date", "year": b.at.Year(), "month": int(b.at.Month()), "day": b.at.Day()}
		made := b.erp.Call(b.t, "stock.period", "create", []any{map[string]any{"date": date, "company": b.erp.IDs["company"]}})
		if err := json.Unmarshal(made, &b.shut); err != nil {
			b.t.Fatal(err)
		}
	}
	b.erp.Call(b.t, "stock.period", "close", b.shut)
}

// keysOf: each quantity of a fact is a move with the key on a note of its own.
func (b *trytonBooks) keysOf(f object.Fact) map[string]int {
	n := 0
	if c := f.Confirmation; c != nil {
		for _, q := range []decimal.Decimal{c.Yield, c.Scrap} {
			if q.IsPositive() {
				n++
			}
		}
	}
	if f.Consumption != nil {
		n++
	}
	if n == 0 {
		return nil
	}
	return map[string]int{f.Key.String(): n}
}

func (b *trytonBooks) keys() map[string]int {
	b.t.Helper()
	rows, err := b.db.Query(`SELECT split_part(n.message, ' ', 3), count(DISTINCT m.id) FROM ir_note n
		JOIN stock_move m ON n.resource = 'stock.move,' || m.id WHERE m.state = 'done' AND n.message LIKE 'Linekeeper fact %' GROUP BY 1`)
	if err != nil {
		b.t.Fatal(err)
	}
	defer rows.Close()
	n := map[string]int{}
	for rows.Next() {
		var key string
		var count int
		if err := rows.Scan(&key, &count); err != nil {
			b.t.Fatal(err)
		}
		n[key] = count
	}
	if err := rows.Err(); err != nil {
		b.t.Fatal(err)
	}
	return n
}

func (b *trytonBooks) book(order string) page {
	b.t.Helper()
	made, used := b.erp.Effects(b.t, order, "FG-GEAR"), b.erp.Effects(b.t, order, "RM-STEEL")
	d := decimal.RequireFromString
	return page{yield: d(made.Yield), scrap: d(made.Scrap), issued: d(used.Issued), finished: b.erp.OrderState(b.t, order) == "done"}
}

// What the books say in the end when everything went wrong on the way. LINEKEEPER_POSTINGS is how many confirmations there are
// (make soak: 100,000), LINEKEEPER_SEED makes the same traffic again.
func TestManyPostingsToS4AreInTheBooksOnceWhateverHappens(t *testing.T) {
	b := newBigRun(t, "synchub", newS4Books(t), int(numberFrom(t, "LINEKEEPER_POSTINGS", 2000)), usual)
	b.passed("s4", b.run())
}

// The run before can fail: a hub that posts again without looking doubles documents, and the count says so.
func TestHubThatPostsAgainWithoutLookingDoublesDocumentsInS4(t *testing.T) {
	buildHub(t, "blindhub", "sabotage")
	b := newBigRun(t, "blindhub", newS4Books(t), 250, share{lost: 0.1, late: 0.2})
	b.env = []string{"LINEKEEPER_SABOTAGE=6"}
	x := b.run()
	if x.doubled == 0 {
		t.Errorf("no document is doubled though the hub does not look before it posts again: %s", x)
	}
	t.Log(x)
}

// The same as with S/4HANA, at a real Tryton. LINEKEEPER_TRYTON_POSTINGS is how many confirmations there are (make soak: 5,000).
func TestManyPostingsToTrytonAreInTheBooksOnceWhateverHappens(t *testing.T) {
	b := newBigRun(t, "synchub", newTrytonBooks(t), int(numberFrom(t, "LINEKEEPER_TRYTON_POSTINGS", 100)), usual)
	b.passed("tryton", b.run())
}
