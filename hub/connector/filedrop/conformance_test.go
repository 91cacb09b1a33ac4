package filedrop

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	yaml "go.yaml.in/yaml/v4"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/object"
)

func d(text string) decimal.Decimal { return decimal.RequireFromString(text) }

// trouble is what the ERP says of an order's files.
type trouble struct {
	code, reason string
	lie          time.Duration // so long it leaves a file lying
	mute         bool          // takes the file and says nothing
	less         bool          // books one less, and says so
}

// erp is a system at the other end of the folders. The connector knows it by the sample of its configuration alone.
type erp struct {
	t        testing.TB
	cfg      Config
	faults   *shaky
	mu       sync.Mutex
	serial   int
	orders   map[string]map[string]any
	books    map[string]connectortest.Effects
	troubles map[string]trouble
	seen     map[string]time.Time
	taken    map[string]int // how often a reference was booked
}

func load(t testing.TB, text string) Config {
	t.Helper()
	var cfg Config
	if err := yaml.Load([]byte(text), &cfg, yaml.WithKnownFields(), yaml.WithUniqueKeys()); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func newERP(t testing.TB) *erp {
	t.Helper()
	dir := t.TempDir()
	e := &erp{t: t, cfg: load(t, Sample), faults: &shaky{}, orders: map[string]map[string]any{}, books: map[string]connectortest.Effects{},
		troubles: map[string]trouble{}, seen: map[string]time.Time{}, taken: map[string]int{}}
	for key, f := range map[string]*string{"in": &e.cfg.Out.Folder, "answers": &e.cfg.Answers.Folder, "orders": &e.cfg.Orders.Folder, "archive": &e.cfg.Orders.Archive, "errors": &e.cfg.Orders.Errors} {
		*f = filepath.Join(dir, key)
		if err := os.Mkdir(*f, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	e.cfg.Out.Sent, e.cfg.Orders.State = filepath.Join(dir, "sent"), filepath.Join(dir, "state")
	e.cfg.Units = map[string]string{"PCS": "C62", "KG": "KGM"}
	return e
}

// run lets the ERP work until the test ends.
func (e *erp) run() *erp {
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() {
		for ctx.Err() == nil {
			e.work()
			select {
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	})
	e.t.Cleanup(func() { cancel(); work.Wait() })
	return e
}

func (e *erp) save(folder, name string, data []byte) {
	path := filepath.Join(folder, name)
	if err := os.WriteFile(path+".tmp", data, 0o644); err != nil {
		e.t.Error(err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		e.t.Error(err)
	}
}

// export writes an order as it stands, or as it stood.
func (e *erp) export(o map[string]any) {
	e.serial++
	data, err := json.Marshal(map[string]any{"orders": []any{o}, "number": e.serial})
	if err != nil {
		e.t.Error(err)
	}
	e.save(e.cfg.Orders.Folder, fmt.Sprintf("orders-%06d.json", e.serial), data)
}

func (e *erp) change(no string, with map[string]any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	o := map[string]any{}
	for k, v := range e.orders[no] {
		o[k] = v
	}
	for k, v := range with {
		o[k] = v
	}
	o["changed"] = time.Now().UTC()
	e.orders[no] = o
	e.export(o)
}

func (e *erp) create(_ testing.TB, quantity string) string {
	e.mu.Lock()
	e.serial++
	no := fmt.Sprintf("PO/%d", 1000+e.serial)
	e.mu.Unlock()
	e.change(no, map[string]any{"no": no, "item": "BRACKET", "quantity": json.Number(quantity), "unit": "PCS", "state": "RELEASED", "site": "1000",
		"parts": []any{map[string]any{"item": "STEEL", "quantity": d(quantity).Mul(d("0.125")).String(), "unit": "KG"}}})
	return no
}

// order is a file's content by field.
func content(path string, data []byte) (map[string]string, error) {
	out := map[string]string{}
	switch filepath.Ext(path) {
	case ".json":
		var all map[string]any
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.UseNumber()
		if err := dec.Decode(&all); err != nil {
			return nil, err
		}
		for k, v := range all {
			out[k] = fmt.Sprint(v)
		}
	case ".csv":
		rows, err := readCSV(data, ";")
		if err != nil || len(rows) != 1 {
			return nil, fmt.Errorf("%d rows, %v", len(rows), err)
		}
		for k, v := range rows[0].(map[string]any) {
			out[k] = v.(string)
		}
	case ".xml":
		var x struct{ Ref, Kind, OrderNo, State string }
		if err := xml.Unmarshal(data, &x); err != nil {
			return nil, err
		}
		out = map[string]string{"ref": x.Ref, "kind": x.Kind, "order_no": x.OrderNo, "state": x.State}
	}
	return out, nil
}

// work takes the files and books them.
func (e *erp) work() {
	e.mu.Lock()
	defer e.mu.Unlock()
	paths, _ := filepath.Glob(filepath.Join(e.cfg.Out.Folder, "*"))
	for _, path := range paths {
		if strings.HasSuffix(path, ".tmp") {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			e.t.Error(err)
			continue
		}
		x, err := content(path, data)
		if err != nil || x["ref"] == "" {
			e.t.Errorf("the ERP cannot read %s: %v\n%s", path, err, data)
			os.Remove(path)
			continue
		}
		e.book(path, x)
	}
}

func (e *erp) book(path string, x map[string]string) {
	ref, no := x["ref"], x["order_no"]
	tr := e.troubles[no]
	if _, has := e.seen[ref]; !has {
		e.seen[ref] = time.Now()
	}
	if time.Since(e.seen[ref]) < tr.lie {
		return
	}
	if err := os.Remove(path); err != nil {
		e.t.Error(err)
		return
	}
	answer := map[string]any{"status": "booked", "document": fmt.Sprintf("D%06d", e.serial)}
	if tr.code != "" {
		answer = map[string]any{"status": "refused", "code": tr.code, "reason": strings.ReplaceAll(tr.reason, "ORDER", no)}
	} else {
		e.taken[ref]++
		b := e.books[no]
		value := func(name string) decimal.Decimal {
			if x[name] == "" {
				return decimal.Zero
			}
			return d(x[name])
		}
		made := value("yield")
		if tr.less {
			made = made.Sub(decimal.NewFromInt(1))
		}
		answer["yield"] = made
		b.Yield, b.Scrap = b.Yield.Add(made), b.Scrap.Add(value("scrap"))
		if x["movement"] == "RETURN" {
			b.Returned = b.Returned.Add(value("quantity"))
		} else {
			b.Issued = b.Issued.Add(value("quantity"))
		}
		state := "IN_PROGRESS"
		if x["state"] == "" {
			b.Documents++
		} else if x["state"] == "FINISHED" {
			state = "COMPLETED"
		}
		e.books[no] = b
		if o := e.orders[no]; o != nil && o["state"] != "COMPLETED" && o["state"] != state {
			next := map[string]any{}
			for k, v := range o {
				next[k] = v
			}
			next["state"], next["changed"] = state, time.Now().UTC()
			e.orders[no] = next
			e.export(next)
		}
	}
	e.serial++
	if !tr.mute {
		text, err := json.Marshal(answer)
		if err != nil {
			e.t.Error(err)
		}
		e.save(e.cfg.Answers.Folder, "answer-"+ref+".json", text)
	}
}

func (e *erp) effects(_ testing.TB, no string) connectortest.Effects {
	e.mu.Lock()
	defer e.mu.Unlock()
	b := e.books[no]
	b.State = object.OrderState(e.orders[no]["state"].(string))
	return b
}

func (e *erp) says(x trouble) connectortest.Switch {
	return func(_ testing.TB, no string) func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.troubles[no] = x
		return func() {
			e.mu.Lock()
			defer e.mu.Unlock()
			delete(e.troubles, no)
		}
	}
}

func (e *erp) connect(t testing.TB) connector.Connector {
	t.Helper()
	c, err := New(e.cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.store = behind{e.faults, c.store}
	t.Cleanup(func() { c.Close() })
	return c
}

func (e *erp) inState(state string) connectortest.Switch {
	return func(_ testing.TB, no string) func() {
		e.change(no, map[string]any{"state": state})
		return func() { e.change(no, map[string]any{"state": "RELEASED"}) }
	}
}

// idle waits until the ERP has taken everything, and counts.
func (e *erp) idle() {
	e.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; e.work() {
		left, err := filepath.Glob(filepath.Join(e.cfg.Out.Folder, "*.*"))
		left = slicesWithout(left, ".tmp")
		if err == nil && len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			e.t.Fatalf("the ERP leaves %v", left)
		}
	}
	for ref, n := range e.taken {
		if n != 1 {
			e.t.Errorf("the ERP booked %s %d times", ref, n)
		}
	}
}

func slicesWithout(all []string, suffix string) (out []string) {
	for _, s := range all {
		if !strings.HasSuffix(s, suffix) {
			out = append(out, s)
		}
	}
	return out
}

func (e *erp) conform(t *testing.T) {
	const blind = "a file is booked or not, by the answer; the books cannot be read"
	later := 2200 * time.Millisecond
	e.cfg.Answers.Equal = map[string]string{"fact.yield": "answer.yield"}
	connectortest.Run(t, connectortest.Harness{
		Connect: e.connect,
		Item:    "BRACKET", Component: "STEEL", ItemUnit: "C62", ComponentUnit: "KGM", PerItem: "0.125", Site: "1000",
		CreateOrder: e.create,
		ChangeQuantity: func(_ testing.TB, no, quantity string) {
			e.change(no, map[string]any{"quantity": quantity, "parts": []any{map[string]any{"item": "STEEL", "quantity": d(quantity).Mul(d("0.125")).String(), "unit": "KG"}}})
		},
		CancelOrder: func(_ testing.TB, no string) { e.change(no, map[string]any{"state": "CANCELLED"}) },
		CloseOrder:  func(_ testing.TB, no string) { e.change(no, map[string]any{"state": "COMPLETED"}) },
		Effects:     e.effects,
		Faults:      e.faults,
		ChangeLate: func(_ testing.TB, no, quantity string) func() {
			began := time.Now().UTC()
			return func() {
				e.mu.Lock()
				defer e.mu.Unlock()
				o := map[string]any{}
				for k, v := range e.orders[no] {
					o[k] = v
				}
				o["quantity"], o["changed"] = quantity, began
				e.orders[no] = o
				e.export(o)
			}
		},
		Troubles: map[connectortest.Trouble]connectortest.Switch{
			connectortest.OrderLocked:      e.says(trouble{code: "LOCK", reason: "order ORDER is locked by PLANNER"}),
			connectortest.SystemBusy:       e.says(trouble{code: "BUSY", reason: "the job is stopped"}),
			connectortest.PeriodClosed:     e.says(trouble{code: "PERIOD", reason: "the period is closed"}),
			connectortest.StockMissing:     e.says(trouble{code: "STOCK", reason: "too little of STEEL"}),
			connectortest.NoRight:          e.says(trouble{code: "RIGHT", reason: "user may not post"}),
			connectortest.OrderNotReleased: e.inState("PLANNED"),
			connectortest.OrderComplete:    e.inState("COMPLETED"),
			connectortest.BookedLater:      e.says(trouble{lie: later}),
			connectortest.BookedNever:      e.says(trouble{lie: later, code: "PERIOD", reason: "the period is closed"}),
			connectortest.BookedOtherwise:  e.says(trouble{less: true}),
			connectortest.DuplicateKey:     func(testing.TB, string) func() { return func() {} }, // the ERP books what it gets: the copy must keep a second file away
		},
		CannotShow: map[connectortest.Trouble]string{
			connectortest.Throttled:      "a folder does not say when it takes the next",
			connectortest.ErrorInSuccess: "an answer is one of both",
			connectortest.MovementFailed: blind,
			connectortest.OnlyClaimed:    blind,
			connectortest.ReadLate:       "an answer that is there can be read",
			connectortest.NoSearch:       "the name is made from the key",
		},
	})
	e.idle()
}

func TestConformanceOfFolders(t *testing.T) {
	t.Parallel()
	newERP(t).run().conform(t)
}

// TestConformanceOfAnSFTPServer runs against OpenSSH.
func TestConformanceOfAnSFTPServer(t *testing.T) {
	t.Parallel()
	server := realparts.SFTP(t, realparts.SFTPOptions{})
	e := newERP(t)
	e.cfg.SFTP = &SFTP{Address: fmt.Sprintf("127.0.0.1:%d", server.Port), User: server.User, KeyFile: server.KeyFile, HostKey: []string{server.Fingerprint}}
	e.run().conform(t)
}
