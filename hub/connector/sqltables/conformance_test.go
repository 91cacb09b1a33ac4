package sqltables_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/connector/sqltables"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

// trouble is what the ERP's job says of an order's rows, and how long it lets them lie.
type trouble struct {
	code, text string
	lie        time.Duration
}

// bench is an ERP that has tables only: orders, and a job that books the rows of an interface table.
type bench struct {
	t           testing.TB
	driver, dsn string // as the connector takes them
	db          *sql.DB
	mu          sync.Mutex // one transaction of the ERP at a time
	troubles    map[string]trouble
	seen        map[string]time.Time
	count       atomic.Int64
}

func newBench(t testing.TB, driver, dsn string) *bench {
	t.Helper()
	b := &bench{t: t, driver: driver, dsn: dsn, troubles: map[string]trouble{}, seen: map[string]time.Time{}}
	native, address := map[string]string{"postgres": "pgx", "mysql": "mysql", "sqlite": "sqlite"}[driver], dsn
	exact, stamp, day := "DECIMAL(15,3)", "TIMESTAMPTZ", "DATE"
	switch driver {
	case "mysql":
		stamp, address = "DATETIME(6)", dsn+"?parseTime=true"
	case "sqlite":
		exact, stamp, day, address = "TEXT", "INTEGER", "TEXT", dsn+"?_pragma=busy_timeout(10000)&_txlock=immediate&_pragma=journal_mode(WAL)"
	}
	var err error
	if b.db, err = sql.Open(native, address); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{
		"CREATE TABLE orders (no VARCHAR(20) PRIMARY KEY, item VARCHAR(20), qty " + exact + ", uom VARCHAR(10), state VARCHAR(10), changed " + stamp + ", plant VARCHAR(10))",
		"CREATE TABLE parts (no VARCHAR(20), item VARCHAR(20), qty " + exact + ", uom VARCHAR(10))",
		"CREATE TABLE feed (fact_key CHAR(16) NOT NULL UNIQUE, kind VARCHAR(40), no VARCHAR(20), item VARCHAR(20), uom VARCHAR(10), yield " + exact + ", scrap " + exact +
			", qty " + exact + ", move VARCHAR(10), day " + day + ", back VARCHAR(16), floor VARCHAR(20), status CHAR(1), err_code VARCHAR(20), err VARCHAR(200), doc VARCHAR(20))",
		"CREATE TABLE books (doc VARCHAR(20), fact_key VARCHAR(16), no VARCHAR(20), yield " + exact + ", scrap " + exact + ", issued " + exact + ", returned " + exact + ")",
	} {
		b.exec(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var job sync.WaitGroup
	job.Go(func() {
		for ctx.Err() == nil {
			if err := b.book(ctx); err != nil && ctx.Err() == nil {
				t.Errorf("the ERP's job: %v", err)
				return
			}
			select {
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	})
	t.Cleanup(func() { cancel(); job.Wait(); b.db.Close() })
	return b
}

// q puts the driver's parameters into a statement.
func (b *bench) q(s string) string {
	if b.driver == "postgres" {
		for n := 1; strings.Contains(s, "?"); n++ {
			s = strings.Replace(s, "?", fmt.Sprintf("$%d", n), 1)
		}
	}
	return s
}

func (b *bench) exec(s string, args ...any) {
	b.t.Helper()
	if _, err := b.db.Exec(b.q(s), args...); err != nil {
		b.t.Fatalf("%s: %v", s, err)
	}
}

// stamp is a value of the change column.
func (b *bench) stamp() any {
	if b.driver == "sqlite" {
		return b.count.Add(1)
	}
	return time.Now().UTC()
}

// book is one run of the ERP's job.
func (b *bench) book(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	rows, err := b.db.QueryContext(ctx, "SELECT fact_key, kind, no, item, yield, scrap, qty, move, back, floor FROM feed WHERE status = 'N'")
	if err != nil {
		return err
	}
	var all [][10]string
	for rows.Next() {
		var r [10]sql.NullString
		if err := rows.Scan(&r[0], &r[1], &r[2], &r[3], &r[4], &r[5], &r[6], &r[7], &r[8], &r[9]); err != nil {
			return err
		}
		var x [10]string
		for i := range r {
			x[i] = r[i].String
		}
		all = append(all, x)
	}
	rows.Close()
	for _, r := range all {
		if err := b.bookOne(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) bookOne(ctx context.Context, r [10]string) error {
	key, no := r[0], r[2]
	x := b.troubles[no]
	if _, has := b.seen[key]; !has {
		b.seen[key] = time.Now()
	}
	if time.Since(b.seen[key]) < x.lie {
		return nil
	}
	tx, err := b.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	do := func(s string, args ...any) {
		if err == nil {
			_, err = tx.ExecContext(ctx, b.q(s), args...)
		}
	}
	if x.code != "" {
		do("UPDATE feed SET status = 'E', err_code = ?, err = ? WHERE fact_key = ? AND status = 'N'", x.code, x.text, key)
	} else {
		doc := fmt.Sprintf("D%06d", b.count.Add(1))
		zero, back := "0", r[8] != ""
		sign := func(v string) string {
			if back {
				return d(v).Neg().String()
			}
			return v
		}
		switch object.Kind(r[1]) {
		case object.KindConfirmation:
			do("INSERT INTO books VALUES (?, ?, ?, ?, ?, ?, ?)", doc, key, no, sign(r[4]), sign(r[5]), zero, zero)
		case object.KindConsumption:
			issued, returned := sign(r[6]), zero
			if r[7] == "RETURN" {
				issued, returned = zero, sign(r[6])
			}
			do("INSERT INTO books VALUES (?, ?, ?, ?, ?, ?, ?)", doc, key, no, zero, zero, issued, returned)
		}
		state := "RUN"
		if r[9] == "FINISHED" {
			state = "DONE"
		}
		do("UPDATE orders SET state = ?, changed = ? WHERE no = ? AND state <> 'DONE'", state, b.stamp(), no)
		do("UPDATE feed SET status = 'P', doc = ? WHERE fact_key = ? AND status = 'N'", doc, key)
	}
	if err != nil {
		return err
	}
	return tx.Commit()
}

func (b *bench) create(t testing.TB, quantity string) string {
	no := fmt.Sprintf("PO-%d", 1000+b.count.Add(1))
	b.exec("INSERT INTO parts VALUES (?, ?, ?, ?)", no, "STEEL", d(quantity).Mul(d("0.125")).String(), "KG")
	b.exec("INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?, ?)", no, "BRACKET", quantity, "PCS", "REL", b.stamp(), "1000")
	return no
}

func (b *bench) setState(no, state string) {
	b.exec("UPDATE orders SET state = ?, changed = ? WHERE no = ?", state, b.stamp(), no)
}

func (b *bench) effects(t testing.TB, no string) (e connectortest.Effects) {
	t.Helper()
	rows, err := b.db.Query(b.q("SELECT yield, scrap, issued, returned FROM books WHERE no = ?"), no)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var v [4]decimal.Decimal
		if err := rows.Scan(&v[0], &v[1], &v[2], &v[3]); err != nil {
			t.Fatal(err)
		}
		e.Yield, e.Scrap, e.Issued, e.Returned = e.Yield.Add(v[0]), e.Scrap.Add(v[1]), e.Issued.Add(v[2]), e.Returned.Add(v[3])
		e.Documents++
	}
	var state string
	if err := b.db.QueryRow(b.q("SELECT state FROM orders WHERE no = ?"), no).Scan(&state); err != nil {
		t.Fatal(err)
	}
	e.State = object.OrderState(states[state])
	return e
}

var states = map[string]string{"NEW": "PLANNED", "REL": "RELEASED", "RUN": "IN_PROGRESS", "DONE": "COMPLETED", "CNC": "CANCELLED"}

func d(text string) decimal.Decimal { return decimal.RequireFromString(text) }

func (b *bench) config() sqltables.Config {
	kind := "time"
	if b.driver == "sqlite" {
		kind = "number"
	}
	return sqltables.Config{Driver: b.driver, DSN: b.dsn, States: states, Units: map[string]string{"PCS": "C62", "KG": "KGM"},
		Orders: sqltables.Orders{Table: "orders", Changed: kind, Columns: map[string]string{"order_no": "no", "item": "item", "quantity": "qty",
			"unit": "uom", "state": "state", "changed": "changed", "site": "plant"}},
		Components: sqltables.Components{Table: "parts", Columns: map[string]string{"order_no": "no", "item": "item", "quantity": "qty", "unit": "uom"}},
		Postings: sqltables.Postings{Table: "feed", Reversals: true, Kept: true, Kinds: []string{"production_confirmation", "material_consumption", "order_state"},
			ErrorClasses: map[string]string{"LOCK": "retryable", "BUSY": "retryable", "RIGHT": "fatal"},
			Columns: map[string]string{"fact_key": "fact_key", "kind": "kind", "order_no": "no", "item": "item", "unit": "uom", "yield": "yield", "scrap": "scrap",
				"quantity": "qty", "movement": "move", "posting_date": "day", "reverses": "back", "state": "floor", "status": "status", "error": "err",
				"error_code": "err_code", "document": "doc"}},
		Wait: 2 * time.Second, Settle: 200 * time.Millisecond, PageSize: 7,
	}
}

func (b *bench) connect(t testing.TB) connector.Connector {
	t.Helper()
	c, err := sqltables.New(b.config())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// says makes the ERP's job say x of an order's rows.
func (b *bench) says(x trouble) connectortest.Switch {
	return func(t testing.TB, order string) func() {
		own := x
		own.text = strings.ReplaceAll(x.text, "ORDER", order)
		b.mu.Lock()
		defer b.mu.Unlock()
		b.troubles[order] = own
		return func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			delete(b.troubles, order)
		}
	}
}

func (b *bench) inState(state string) connectortest.Switch {
	return func(_ testing.TB, order string) func() {
		b.setState(order, state)
		return func() { b.setState(order, "REL") }
	}
}

func (b *bench) conform(t *testing.T) { connectortest.Run(t, b.harness()) }

func (b *bench) harness() connectortest.Harness {
	const blind = "the row is all that can be read; the books behind it cannot"
	later := 2200 * time.Millisecond
	return connectortest.Harness{
		Connect: b.connect,
		Item:    "BRACKET", Component: "STEEL", ItemUnit: "C62", ComponentUnit: "KGM", PerItem: "0.125", Site: "1000",
		CreateOrder: b.create,
		ChangeQuantity: func(t testing.TB, no, quantity string) {
			b.exec("UPDATE parts SET qty = ? WHERE no = ?", d(quantity).Mul(d("0.125")).String(), no)
			b.exec("UPDATE orders SET qty = ?, changed = ? WHERE no = ?", quantity, b.stamp(), no)
		},
		CancelOrder: func(t testing.TB, no string) { b.setState(no, "CNC") },
		CloseOrder:  func(t testing.TB, no string) { b.setState(no, "DONE") },
		Effects:     b.effects,
		ChangeLate: func(t testing.TB, no, quantity string) func() {
			began := b.stamp()
			return func() { b.exec("UPDATE orders SET qty = ?, changed = ? WHERE no = ?", quantity, began, no) }
		},
		Troubles: map[connectortest.Trouble]connectortest.Switch{
			connectortest.OrderLocked:      b.says(trouble{code: "LOCK", text: "order ORDER is locked by PLANNER"}),
			connectortest.SystemBusy:       b.says(trouble{code: "BUSY", text: "the job is stopped"}),
			connectortest.PeriodClosed:     b.says(trouble{code: "PERIOD", text: "the period is closed"}),
			connectortest.StockMissing:     b.says(trouble{code: "STOCK", text: "too little of STEEL"}),
			connectortest.NoRight:          b.says(trouble{code: "RIGHT", text: "user may not post"}),
			connectortest.OrderNotReleased: b.inState("NEW"),
			connectortest.OrderComplete:    b.inState("DONE"),
			connectortest.BookedLater:      b.says(trouble{lie: later}),
			connectortest.BookedNever:      b.says(trouble{lie: later, code: "PERIOD", text: "the period is closed"}),
			connectortest.DuplicateKey:     func(testing.TB, string) func() { return func() {} }, // the key is always UNIQUE
		},
		CannotShow: map[connectortest.Trouble]string{
			connectortest.Throttled:       "a database does not say when it takes the next",
			connectortest.MovementFailed:  blind,
			connectortest.OnlyClaimed:     blind,
			connectortest.BookedOtherwise: blind,
			connectortest.ErrorInSuccess:  "a row has one status",
			connectortest.ReadLate:        "what is committed can be read",
			connectortest.NoSearch:        "the key is a column",
		},
		Listing: connectortest.Listing{
			Pending: b.says(trouble{lie: time.Hour}),
			Without: map[string]string{"Pages": "one statement reads all rows of an order", "ByHand": blind, "Double": "the database takes no second row with one key"},
		},
	}
}

func TestConformancePostgres(t *testing.T) {
	t.Parallel()
	b := newBench(t, "postgres", realparts.Postgres(t).NewDatabase(t))
	b.conform(t)
	t.Run("LineCutAtEachExchange", b.lost)
	t.Run("LineCutAtEachExchangeOfAList", b.lostList)
	t.Run("AnswerThatIsReadLateIsAsOldAsItsQuestion", b.late)
}

func TestConformanceMariaDB(t *testing.T) {
	t.Parallel()
	b := newBench(t, "mysql", realparts.MariaDB(t).NewDatabase(t))
	b.conform(t)
	t.Run("LineCutAtEachExchange", b.lost)
	t.Run("LineCutAtEachExchangeOfAList", b.lostList)
	t.Run("AnswerThatIsReadLateIsAsOldAsItsQuestion", b.late)
}

func TestConformanceSQLite(t *testing.T) {
	t.Parallel()
	newBench(t, "sqlite", filepath.Join(t.TempDir(), "erp.db")).conform(t)
}
