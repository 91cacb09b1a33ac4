package e2e

import (
	"database/sql"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/agent/status"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/hub/api"
	"github.com/linekeeper/linekeeper/hub/connector/sandbox/erp"
)

// shopFloor is an MES in a file, the real agent and hub, and an ERP that can be switched off.
type shopFloor struct {
	*line
	t    *testing.T
	mes  *sql.DB
	erp  *erp.ERP
	down atomic.Bool
	n    int
}

func newShopFloor(t *testing.T) *shopFloor {
	t.Helper()
	f := &shopFloor{t: t}
	var err error
	if f.erp, err = erp.Open(t.TempDir(), erp.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.erp.Close() })
	if err := f.erp.SeedDemo(t.Context()); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f.down.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		f.erp.Handler().ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	path := filepath.Join(t.TempDir(), "mes.db")
	if f.mes, err = sql.Open("sqlite", path+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(wal)"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.mes.Close() })
	if _, err := f.mes.Exec("CREATE TABLE confirmation (id INTEGER PRIMARY KEY AUTOINCREMENT, order_no TEXT, operation TEXT, good TEXT)"); err != nil {
		t.Fatal(err)
	}
	f.line = newLine(t, func(dir string) (string, string) {
		realparts.WriteFile(t, filepath.Join(dir, "erp-password.txt"), "sandbox\n")
		hub := fmt.Sprintf(`
erps:
  - {name: erp, kind: sandbox, url: "%s", user: linekeeper, password_file: erp-password.txt, settle: 300ms, timeout: 5s}
routes:
  - {erp: erp, plant: ulm, agent: line1}
dispatch: {every: 200ms}
`, server.URL)
		agent := fmt.Sprintf(`
sources:
  - name: mes
    kind: mes
    driver: sqlite
    dsn: %s
    queries:
      - {tag: confirmations, table: confirmation, key: [id], poll: 300ms}
rules:
  - name: confirmations
    rule: record
    source: mes
    tag: confirmations
    fact: production_confirmation
    fields: {order_no: payload.order_no, operation: payload.operation, item: "'%s'", yield: payload.good, unit: "'C62'"}
`, path, piece)
		return hub, agent
	})
	return f
}

func (f *shopFloor) release() string {
	f.t.Helper()
	no, err := f.erp.ReleaseOrder(f.t.Context(), erp.Order{Item: piece, Quantity: decimal.NewFromInt(1000), Site: "1000", WorkCenter: "press1", PlannedStart: time.Now(), PlannedEnd: time.Now().Add(time.Hour),
		Operations: []erp.Operation{{Operation: "0010"}}})
	if err != nil {
		f.t.Fatal(err)
	}
	realparts.Eventually(f.t, 30*time.Second, "the hub knows the order", func() error { return f.get(f.hubHTTP+"/v1/work-orders/"+no, nil) })
	return no
}

// confirm lets the MES confirm pieces, of a quantity that tells the confirmation from the others.
func (f *shopFloor) confirm(order, operation string) string {
	f.t.Helper()
	f.n++
	if _, err := f.mes.Exec("INSERT INTO confirmation (order_no, operation, good) VALUES (?, ?, ?)", order, operation, fmt.Sprint(f.n)); err != nil {
		f.t.Fatal(err)
	}
	return fmt.Sprintf("%d pcs yield of %s", f.n, piece)
}

// onPage is how long the page may take to tell the truth.
const onPage = 5 * time.Second

// shows waits until the page says of a confirmation what it is to say, and fails when that is later than the operator may wait.
func (f *shopFloor) shows(what, outcome string, check func(status.Receipt) error) {
	f.t.Helper()
	since := time.Now()
	realparts.Eventually(f.t, 30*time.Second, "the page says that "+what+" is "+outcome, func() error {
		s, err := f.status()
		if err != nil {
			return err
		}
		for _, r := range s.Receipts {
			if r.What == what && r.Outcome == outcome && r.OrderNo != "" && !r.StoredAt.IsZero() {
				return check(r)
			}
		}
		return fmt.Errorf("it shows %+v", s.Receipts)
	})
	if took := time.Since(since); took > onPage {
		f.t.Errorf("%s: %s was shown after %s", what, outcome, took)
	} else {
		f.t.Logf("%s: %s after %s", what, outcome, took.Round(10*time.Millisecond))
	}
}

func anything(status.Receipt) error { return nil }

func withDocument(r status.Receipt) error {
	if r.Document == "" {
		return fmt.Errorf("no document: %+v", r)
	}
	return nil
}

// TestTheOperatorSeesWhatBecameOfEachConfirmation: buffered, at the hub, the ERP's document, or refused and why; within seconds, and
// after both were killed.
func TestTheOperatorSeesWhatBecameOfEachConfirmation(t *testing.T) {
	f := newShopFloor(t)
	f.hub.Start(t)
	f.agent.Start(t)
	order := f.release()
	f.sourcesOK(t)

	posted := f.confirm(order, "0010")
	f.shows(posted, "verified", withDocument)
	refused := f.confirm(order, "9999")
	because := func(r status.Receipt) error {
		if !strings.Contains(r.Reason, "9999") {
			return fmt.Errorf("it does not say why: %+v", r)
		}
		return nil
	}
	f.shows(refused, "rejected", because)

	f.down.Store(true)
	atHub := f.confirm(order, "0010")
	f.shows(atHub, "received", anything)
	time.Sleep(2 * time.Second) // the agent notes it within one
	f.link.Refuse(true)
	f.link.Cut()
	buffered := f.confirm(order, "0010")
	f.shows(buffered, "buffered", anything)

	restart(t, f.agent, syscall.SIGKILL)
	restart(t, f.hub, syscall.SIGKILL)
	f.shows(posted, "verified", withDocument)
	f.shows(refused, "rejected", because)
	f.shows(atHub, "received", anything)
	f.shows(buffered, "buffered", anything)

	f.link.Refuse(false)
	realparts.Eventually(t, time.Minute, "the line is back", func() error {
		s, err := f.status()
		if err == nil && s.Uplink.State != "connected" {
			err = fmt.Errorf("it is %s", s.Uplink.State)
		}
		return err
	})
	f.shows(buffered, "received", anything)
	f.down.Store(false)
	realparts.Eventually(t, time.Minute, "the hub has asked the ERP again", func() error {
		var l struct{ Items []api.Fact }
		if err := f.get(f.hubHTTP+"/v1/postings?state=due", &l); err != nil || len(l.Items) > 0 {
			return fmt.Errorf("%d are due, %w", len(l.Items), err)
		}
		return nil
	})
	f.shows(atHub, "verified", withDocument)
	f.shows(buffered, "verified", withDocument)

	// What a person corrects at the hub comes to the operator too.
	var parked struct{ Items []api.Fact }
	f.api(t, "/v1/postings?state=parked", &parked)
	if len(parked.Items) != 1 {
		t.Fatalf("%+v", parked.Items)
	}
	res, err := http.Post(f.hubHTTP+"/v1/postings/"+parked.Items[0].Key+"/accept", "application/json", strings.NewReader(`{"document":"4900009999","note":"booked by hand"}`))
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%v %v", res, err)
	}
	res.Body.Close()
	f.shows(refused, "verified", withDocument)
	if totals, err := f.erp.Totals(t.Context()); err != nil || len(totals.Duplicates) > 0 || totals.Orders[order].Yield.String() != "8" { // 1 + 3 + 4
		t.Errorf("%+v %v", totals, err)
	}
}
