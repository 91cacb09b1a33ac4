package sqltables_test

import (
	"database/sql"
	"errors"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/connector/sqltables"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// relay stands between one connector and a database, and cuts the line at one exchange.
type relay struct {
	listener net.Listener
	server   string
	mu       sync.Mutex
	left     int  // exchanges until the cut
	before   bool // the request gets lost, not the reply
	connectortest.Keeper
}

// newRelay cuts the nth exchange. Each cut has a relay of its own: the farewell of an earlier connection would count as an exchange
// whenever it came late.
func newRelay(t testing.TB, server string, nth int, before bool) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: l, server: server, left: nth, before: before}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go r.pass(c) // it ends with the connector's connection
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return r
}

func (r *relay) hasFired() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.left == 0
}

// cut says whether this request is the one, and whether it gets lost itself.
func (r *relay) cut() (now, before bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.left == 0 {
		return false, false
	}
	r.left--
	return r.left == 0, r.before
}

// pass counts exchanges, not reads: what the client sends until the server answers is one request, however it arrives.
func (r *relay) pass(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", r.server)
	if err != nil {
		return
	}
	defer server.Close()
	var mu sync.Mutex
	var asked, mute bool
	wait := func() {}
	go func() {
		defer client.Close()
		b := make([]byte, 64<<10)
		for {
			n, err := server.Read(b)
			if err != nil {
				return
			}
			mu.Lock()
			asked = false
			lost, held := mute, wait
			mu.Unlock()
			held()
			if lost { // the server has done its work
				return
			}
			client.Write(b[:n])
		}
	}()
	b := make([]byte, 64<<10)
	for {
		n, err := client.Read(b)
		if err != nil {
			return
		}
		silent := n == 9 && b[4] == 0x19 // MySQL's closing of a statement has no answer
		mu.Lock()
		first := !asked && !silent
		asked = asked || !silent
		mu.Unlock()
		if first {
			now, before := r.cut()
			if now && before {
				return
			}
			held := r.Take()
			mu.Lock()
			mute, wait = now, held
			mu.Unlock()
		}
		if _, err := server.Write(b[:n]); err != nil {
			return
		}
	}
}

// lost cuts the line at each exchange of a posting in turn, before and after the server did its work.
func (b *bench) lost(t *testing.T) {
	at := b.dsn[strings.Index(b.dsn, "127.0.0.1:"):]
	at = at[:strings.IndexAny(at, ")/")]
	cfg := b.config()
	cfg.Connections = 1
	doubts := 0
	for _, before := range []bool{true, false} {
		for nth := 1; nth <= 30; nth++ {
			no := b.create(t, "40")
			p := confirmation(no)
			r := newRelay(t, at, nth, before)
			cfg.DSN = strings.Replace(b.dsn, at, r.listener.Addr().String(), 1)
			c, err := sqltables.New(cfg) // with a connection of its own, so that every exchange has its turn
			if err != nil {
				t.Fatal(err)
			}
			x := connectortest.Drive(t.Context(), c, p, time.Minute)
			fired := r.hasFired()
			c.Close()
			if !fired {
				break
			}
			for _, why := range x.Why {
				if strings.Contains(why, "answer to the commit") {
					doubts++
				}
			}
			if e := b.effects(t, no); x.End != connectortest.Settled || e.Documents != 1 || !e.Yield.Equal(d("12")) {
				t.Errorf("request lost %t, exchange %d: ended %s with %+v:\n  %s", before, nth, x.End, e, strings.Join(x.Why, "\n  "))
			}
		}
	}
	if doubts < 2 {
		t.Errorf("the commit was cut %d times, want one before and one after", doubts)
	}
}

// late has a statement's answer read late.
func (b *bench) late(t *testing.T) {
	at := b.dsn[strings.Index(b.dsn, "127.0.0.1:"):]
	at = at[:strings.IndexAny(at, ")/")]
	r := newRelay(t, at, 0, false) // which cuts nothing
	cfg := b.config()
	cfg.DSN = strings.Replace(b.dsn, at, r.listener.Addr().String(), 1)
	h := b.harness()
	h.Connect = func(t testing.TB) connector.Connector {
		c, err := sqltables.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	connectortest.RunLateAnswers(t, h, r, 0)
}

// lostList cuts the line at each exchange of a list in turn: it is whole, or an error.
func (b *bench) lostList(t *testing.T) {
	at := b.dsn[strings.Index(b.dsn, "127.0.0.1:"):]
	at = at[:strings.IndexAny(at, ")/")]
	cfg := b.config()
	cfg.Connections = 1
	no, whole := b.create(t, "400"), b.connect(t)
	for range 5 {
		if x := connectortest.Drive(t.Context(), whole, confirmation(no), time.Minute); x.End != connectortest.Settled {
			t.Fatalf("%+v", x)
		}
	}
	failed := 0
	for nth := 1; nth <= 30; nth++ {
		r := newRelay(t, at, nth, nth%2 == 0)
		cfg.DSN = strings.Replace(b.dsn, at, r.listener.Addr().String(), 1)
		c, err := sqltables.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		all, err := c.Effects(t.Context(), no)
		fired := r.hasFired()
		c.Close()
		if err == nil && len(all.Documents) != 5 || errors.Is(err, connector.ErrNotFound) {
			t.Errorf("cut at exchange %d: %d of 5 documents and the error %v", nth, len(all.Documents), err)
		}
		if err != nil {
			failed++
		}
		if !fired {
			break
		}
	}
	if failed == 0 {
		t.Error("no cut made an error")
	}
}

func confirmation(no string) (p connector.Posting) {
	now := time.Now().UTC()
	p.Fact = object.Fact{Key: factkey.Random(), Kind: object.KindConfirmation, OccurredAt: now, RecordedAt: now,
		Confirmation: &object.Confirmation{OrderNo: no, Item: "BRACKET", Unit: "C62", Yield: d("12")}}
	p.PostingDate = now.Truncate(24 * time.Hour)
	return p
}

// Rows that may be tidied away are not listed: what is gone would be taken for missing and posted again.
func TestRowsThatMayBeTidiedAwayAreNotListed(t *testing.T) {
	b := newBench(t, "sqlite", t.TempDir()+"/erp.db")
	cfg := b.config()
	cfg.Postings.Kept = false
	c, err := sqltables.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if all, err := c.Effects(t.Context(), b.create(t, "40")); err == nil || errors.Is(err, connector.ErrNotFound) || !strings.Contains(err.Error(), "kept") {
		t.Errorf("%d documents, %v", len(all.Documents), err)
	}
}

func TestToleranceOfAnOrderIsReadFromItsColumns(t *testing.T) {
	b := newBench(t, "sqlite", t.TempDir()+"/erp.db")
	b.exec("CREATE TABLE tolerant (no TEXT, item TEXT, qty TEXT, uom TEXT, state TEXT, changed INTEGER, plant TEXT, over TEXT, free TEXT)")
	b.exec("INSERT INTO tolerant VALUES ('T-1', 'BRACKET', '1', 'PCS', 'REL', 1, '1000', '2.5', NULL), ('T-2', 'BRACKET', '1', 'PCS', 'REL', 2, '1000', NULL, 'X'), ('T-3', 'BRACKET', '1', 'PCS', 'REL', 3, '1000', 'much', '0')")
	cfg := b.config()
	cfg.Orders.Table, cfg.Orders.Columns = "tolerant", maps.Clone(cfg.Orders.Columns)
	cfg.Orders.Columns["over_percent"], cfg.Orders.Columns["over_unlimited"] = "over", "free"
	c, err := sqltables.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got, err := c.ListChanged(t.Context(), "")
	if err != nil || len(got.Orders) != 2 || len(got.Unreadable) != 1 || !strings.Contains(got.Unreadable[0].Reason, `over_percent "much"`) {
		t.Fatalf("%+v, %v", got, err)
	}
	if o := got.Orders[0]; o.OverPercent == nil || !o.OverPercent.Equal(d("2.5")) || o.OverUnlimited {
		t.Errorf("%+v", o)
	}
	if o := got.Orders[1]; o.OverPercent != nil || !o.OverUnlimited {
		t.Errorf("%+v", o)
	}
}

// The state of one operation is a row of its own where the job takes it, and the order's has none.
func TestStateOfAnOperationNamesItInItsRow(t *testing.T) {
	b := newBench(t, "sqlite", t.TempDir()+"/erp.db")
	b.exec("ALTER TABLE feed ADD COLUMN op TEXT")
	cfg := b.config()
	cfg.Postings.OperationStates, cfg.Postings.Columns = true, maps.Clone(cfg.Postings.Columns)
	if _, err := sqltables.New(cfg); err == nil || !strings.Contains(err.Error(), "operation") {
		t.Errorf("without a column for the operation: %v", err)
	}
	cfg.Postings.Columns["operation"] = "op"
	c, err := sqltables.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if can := c.Capabilities(); !slices.Contains(can.OperationStates, object.FloorFinished) {
		t.Errorf("%+v", can)
	}
	no := b.create(t, "40")
	for _, x := range []struct {
		closes bool
		want   string
	}{{false, "0010"}, {true, ""}} {
		p := confirmation(no)
		p.Fact.Kind, p.Fact.Confirmation = object.KindOrderState, nil
		p.Fact.OrderState, p.ClosesOrder = &object.ShopFloorState{OrderNo: no, State: object.FloorFinished, Operation: "0010"}, x.closes
		if s := connectortest.Drive(t.Context(), c, p, time.Minute); s.End != connectortest.Settled {
			t.Fatalf("%+v", s)
		}
		var op sql.NullString
		if err := b.db.QueryRow("SELECT op FROM feed WHERE fact_key = ?", p.Fact.Key.String()).Scan(&op); err != nil || op.String != x.want {
			t.Errorf("the row names operation %q, %v, want %q", op.String, err, x.want)
		}
	}
}

// TestWhatNoRowCanCarryIsRefused names what would be lost or rounded.
func TestWhatNoRowCanCarryIsRefused(t *testing.T) {
	b := newBench(t, "sqlite", t.TempDir()+"/erp.db")
	c := b.connect(t)
	no := b.create(t, "40")
	for code, change := range map[string]func(*object.Confirmation){
		"NO_COLUMN": func(x *object.Confirmation) { x.Rework = d("1") },
		"SCALE":     func(x *object.Confirmation) { x.Yield = d("1.2345") },
		"UNIT":      func(x *object.Confirmation) { x.Unit = "XBX" },
	} {
		p := confirmation(no)
		change(p.Fact.Confirmation)
		if _, early, err := c.Prepare(t.Context(), p); err != nil || early == nil || early.Code != code {
			t.Errorf("%s: prepare gives %+v, %v", code, early, err)
		}
	}
	b.mu.Lock() // the ERP's job must not look for the table now
	b.exec("DROP TABLE feed")
	b.exec("CREATE TABLE feed (fact_key CHAR(16), kind TEXT, no TEXT, item TEXT, uom TEXT, yield TEXT, scrap TEXT, qty TEXT, move TEXT, day TEXT, back TEXT, floor TEXT, status TEXT, err_code TEXT, err TEXT, doc TEXT, UNIQUE (fact_key, kind))")
	b.mu.Unlock()
	if _, early, err := b.connect(t).Prepare(t.Context(), confirmation(no)); err != nil || early == nil || early.Code != "NOT_UNIQUE" {
		t.Errorf("without a unique key prepare gives %+v, %v", early, err)
	}
	b.exec("CREATE TABLE floats (no TEXT, item TEXT, qty REAL, uom TEXT, state TEXT, changed INTEGER, plant TEXT)")
	b.exec("INSERT INTO floats VALUES ('F-2', 'BRACKET', 0.1, 'PCS', 'REL', 1, '1000'), ('F-3', 'BRACKET', 1, 'BOX', 'REL', 2, '1000'), ('F-4', 'BRACKET', 1, 'PCS', 'ODD', 3, '1000')")
	cfg := b.config()
	cfg.Orders.Table = "floats"
	f, err := sqltables.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := f.ListChanged(t.Context(), "")
	if err != nil || len(got.Orders) != 0 || len(got.Unreadable) != 3 {
		t.Fatalf("orders that cannot be read: %+v, %v", got, err)
	}
	for i, word := range []string{"floating-point", `"BOX"`, `"ODD"`} {
		if !strings.Contains(got.Unreadable[i].Reason, word) {
			t.Errorf("%q does not name %s", got.Unreadable[i].Reason, word)
		}
	}
}

// A mapping's movement type stands in a column of its own, where there is one, and is read back.
func TestMovementTypeOfAMappingStandsInItsColumn(t *testing.T) {
	b := newBench(t, "sqlite", t.TempDir()+"/erp.db")
	b.mu.Lock()
	b.exec("ALTER TABLE feed ADD COLUMN mvt TEXT")
	b.mu.Unlock()
	cfg := b.config()
	if c := b.connect(t); c.Capabilities().MovementTypes {
		t.Error("without a column for them, types are asked for")
	}
	cfg.Postings.Columns["movement_type"] = "mvt"
	c, err := sqltables.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	no := b.create(t, "40")
	p := confirmation(no)
	p.Movements = &object.MovementTypes{Set: "movements", Version: 2, Types: map[object.MovementKind]string{object.ReceiptFromOrder: "Z01"}}
	if x := connectortest.Drive(t.Context(), c, p, time.Minute); x.End != connectortest.Settled {
		t.Fatalf("ended %s:\n%s", x.End, strings.Join(x.Why, "\n"))
	}
	var kind string
	b.mu.Lock()
	err = b.db.QueryRow("SELECT mvt FROM feed WHERE fact_key = ?", p.Fact.Key.String()).Scan(&kind)
	b.mu.Unlock()
	if err != nil || kind != "Z01" {
		t.Errorf("the column holds %q, %v", kind, err)
	}
	back := p
	back.Fact.Key, back.Fact.Reverses, back.Original = factkey.Random(), p.Fact.Key, &connector.Original{Fact: p.Fact}
	if _, early, err := c.Prepare(t.Context(), back); err != nil || early == nil || early.Code != connector.CodeMappingMissing || !strings.Contains(early.Reason, "RECEIPT_REVERSAL") {
		t.Errorf("taken back: %+v, %v", early, err)
	}
}
