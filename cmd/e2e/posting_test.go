package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"google.golang.org/protobuf/proto"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/hub/connector/sandbox/erp"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// ledgerHub is a hub before an ERP sandbox.
type ledgerHub struct {
	*soleHub
	erp     *erp.ERP
	facts   []object.Fact
	intents map[string]*intent

	mu     sync.Mutex
	before func(*http.Request) // called before the ERP sees a request for a posting, after when it has answered
	after  func(*http.Request)
	down   bool
}

// intent is what the books of an order must say in the end.
type intent struct {
	yield, issued decimal.Decimal
	documents     int
}

const (
	piece = "BRACKET-10"
	steel = "STEEL-S235"
)

func newLedgerHub(t *testing.T, program string) *ledgerHub {
	h := &ledgerHub{intents: map[string]*intent{}}
	var err error
	if h.erp, err = erp.Open(t.TempDir(), erp.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.erp.Close() })
	if err := h.erp.SeedDemo(t.Context()); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(h.serve))
	t.Cleanup(server.Close)
	h.soleHub = newSoleHub(t, program, func(dir string) string {
		realparts.WriteFile(t, filepath.Join(dir, "erp-password.txt"), "sandbox\n")
		return fmt.Sprintf(`
erps:
  - {name: erp, kind: sandbox, url: "%s", user: linekeeper, password_file: erp-password.txt, settle: 300ms, timeout: 5s}
routes:
  - {erp: erp, plant: ulm, agent: line1}
dispatch: {every: 200ms}
posting: {quiet: 1ms, close_after: 1ms}
log: {level: warn}
`, server.URL)
	})
	return h
}

// serve is the ERP on the line, with a moment before and after each posting.
func (h *ledgerHub) serve(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	before, after, down := h.before, h.after, h.down
	h.mu.Unlock()
	posting := r.Method == http.MethodPost && !strings.HasSuffix(r.URL.Path, "/login")
	if down {
		panic(http.ErrAbortHandler)
	}
	if posting && before != nil {
		before(r)
	}
	h.erp.Handler().ServeHTTP(w, r)
	if posting && after != nil {
		after(r)
	}
}

func (h *ledgerHub) trouble(f erp.Faults, down bool, before, after func(*http.Request)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.erp.SetFaults(f)
	h.down, h.before, h.after = down, before, after
}

// release makes an order in the ERP, unless it shall only be named.
func (h *ledgerHub) release(no string) string {
	h.t.Helper()
	no, err := h.erp.ReleaseOrder(context.Background(), erp.Order{No: no, Item: piece, Quantity: decimal.NewFromInt(1000), Site: "1000", WorkCenter: "press1",
		PlannedStart: time.Now(), PlannedEnd: time.Now().Add(time.Hour)})
	if err != nil {
		h.t.Fatal(err)
	}
	return no
}

// feed puts facts of an order into the store: started, two confirmations, a consumption, one confirmation taken back, finished.
func (h *ledgerHub) feed(order string) {
	h.t.Helper()
	n := len(h.facts)
	next := func(kind object.Kind) object.Fact {
		n++
		position := factkey.Position("test", order, fmt.Sprint(n))
		at := time.Now().UTC()
		return object.Fact{Key: factkey.Of(position), Kind: kind, Plant: "ulm", Source: "test", TimeZone: "UTC", Position: position, OccurredAt: at, RecordedAt: at}
	}
	state := func(s object.FloorState) object.Fact {
		f := next(object.KindOrderState)
		f.OrderState = &object.ShopFloorState{OrderNo: order, Revision: 1, State: s}
		return f
	}
	made := func(yield int64) object.Fact {
		f := next(object.KindConfirmation)
		f.Confirmation = &object.Confirmation{OrderNo: order, Item: piece, Unit: "C62", Yield: decimal.NewFromInt(yield)}
		return f
	}
	used := next(object.KindConsumption)
	used.Consumption = &object.Consumption{OrderNo: order, Item: steel, Movement: object.Issue, Quantity: object.Quantity{Value: decimal.RequireFromString("2.5"), Unit: "KGM"}}
	wrong := made(7)
	undo := made(7)
	undo.Reverses = wrong.Key
	facts := []object.Fact{state(object.FloorStarted), made(5), wrong, used, undo, made(3), state(object.FloorFinished)}
	h.intents[order] = &intent{yield: decimal.NewFromInt(8), issued: decimal.RequireFromString("2.5"), documents: 5}

	h.put(facts)
	h.facts = append(h.facts, facts...)
}

type postingRow struct {
	Key     string `json:"key"`
	OrderNo string `json:"order_no"`
	Posting struct {
		State  string `json:"state"`
		Code   string `json:"code"`
		Reason string `json:"reason"`
	} `json:"posting"`
}

func (h *ledgerHub) parked(code string) (rows []postingRow, err error) {
	var list struct {
		Items []postingRow `json:"items"`
	}
	err = h.call("GET", "/v1/postings?state=parked&limit=500&code="+code, nil, &list)
	return list.Items, err
}

// decide is the person: what could not be told is looked up in the ERP, the rest is replayed.
func (h *ledgerHub) decide() error {
	rows, err := h.parked("")
	if err != nil {
		return err
	}
	for _, r := range rows {
		if r.Posting.Code != "cannot_tell" {
			if err := h.call("POST", "/v1/postings/replay", map[string]any{"key": r.Key}, nil); err != nil {
				return err
			}
			continue
		}
		found, err := h.erp.Find(context.Background(), r.Key)
		if err != nil {
			return err
		}
		if len(found.Documents) > 0 {
			err = h.call("POST", "/v1/postings/"+r.Key+"/accept", map[string]any{"document": found.Documents[0].Number, "note": "seen in the ERP"}, nil)
		} else {
			err = h.call("POST", "/v1/postings/"+r.Key+"/post-again", map[string]any{"note": "not in the ERP"}, nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// settled waits until nothing is open, deciding what is a person's.
func (h *ledgerHub) settled() {
	h.t.Helper()
	realparts.Eventually(h.t, 4*time.Minute, "all postings are settled", func() error {
		var counts struct {
			Items []struct {
				State, Code string
				Count       int64
			} `json:"items"`
		}
		if err := h.call("GET", "/v1/postings/counts", nil, &counts); err != nil {
			return err
		}
		done := int64(0)
		for _, n := range counts.Items {
			switch n.State {
			case "verified", "settled", "not_posted":
				done += n.Count
			case "parked":
				if err := h.decide(); err != nil {
					return err
				}
			}
		}
		if done != int64(len(h.facts)) {
			return fmt.Errorf("%d of %d facts are settled: %+v", done, len(h.facts), counts.Items)
		}
		return nil
	})
}

// check compares the ERP's books with what was intended, and returns how many documents are missing or doubled.
func (h *ledgerHub) check() (missing, doubled int) {
	h.t.Helper()
	totals, err := h.erp.Totals(context.Background())
	if err != nil {
		h.t.Fatal(err)
	}
	for order, want := range h.intents {
		got := totals.Orders[order]
		missing, doubled = missing+max(want.documents-got.Documents, 0), doubled+max(got.Documents-want.documents, 0)
		if !got.Yield.Equal(want.yield) || !got.Consumed[steel].Equal(want.issued) || got.Documents != want.documents || got.State != erp.Finished {
			h.t.Errorf("order %s is %s with yield %s, %s consumed, %d documents; want FINISHED, %s, %s, %d",
				order, got.State, got.Yield, got.Consumed[steel], got.Documents, want.yield, want.issued, want.documents)
		}
	}
	for _, d := range totals.Duplicates {
		h.t.Errorf("fact %s has the documents %v", d.ExternalKey, d.Numbers)
	}
	return missing, doubled
}

// checkReceipts wants the plant to have been told how each fact ended.
func (h *ledgerHub) checkReceipts() {
	h.t.Helper()
	h.withStore(func(s *store.Store) {
		last := map[string]pb.Receipt_Outcome{}
		for after, n := int64(0), 1; n > 0; {
			all, err := s.DeliveriesAfter(context.Background(), 1, after, 500)
			if err != nil {
				h.t.Fatal(err)
			}
			n = len(all)
			for _, d := range all {
				after = d.Seq
				var r pb.Receipt
				if proto.Unmarshal(d.Body, &r) == nil && len(r.GetFactKey()) > 0 {
					last[fmt.Sprintf("%x", r.GetFactKey())] = r.GetOutcome()
				}
			}
		}
		for _, f := range h.facts {
			if got := last[fmt.Sprintf("%x", f.Key[:])]; got != pb.Receipt_OUTCOME_VERIFIED {
				h.t.Errorf("the last receipt of fact %s (%s) says %s", f.Key, f.Position, got)
			}
		}
	})
}

// crash is one moment at which the hub is killed, and the trouble that brings it about.
type crash struct {
	step   string
	faults erp.Faults
	down   bool // the ERP hangs up
	first  string
	late   bool // the order comes after its facts
}

var crashes = []crash{
	{step: "plan"}, {step: "planned"}, {step: "asking"}, {step: "prepared"}, {step: "storing sending"}, {step: "saved sending"}, {step: "sending"},
	{step: "posted"}, {step: "storing posted"}, {step: "saved posted"}, {step: "reading back"}, {step: "read back"}, {step: "storing verified"},
	{step: "saved verified"},
	{step: "storing in_doubt", faults: erp.Faults{LoseReply: 1}}, {step: "saved in_doubt", faults: erp.Faults{LoseRequest: 1}},
	{step: "looking up", faults: erp.Faults{LoseReply: 1}}, {step: "looked up", faults: erp.Faults{LoseRequest: 1}},
	{step: "storing absent", faults: erp.Faults{LoseRequest: 1}}, {step: "saved absent", faults: erp.Faults{LoseRequest: 1}},
	{step: "storing not found yet", faults: erp.Faults{Delay: 1, DelayFor: erp.Duration(5 * time.Second)}},
	{step: "saved not found yet", faults: erp.Faults{Delay: 1, DelayFor: erp.Duration(5 * time.Second)}},
	{step: "storing retry", faults: erp.Faults{Lock: 1}}, {step: "saved retry", faults: erp.Faults{Throttle: 1}},
	{step: "storing rejected", faults: erp.Faults{Deny: 1}}, {step: "saved rejected", faults: erp.Faults{ErrorFlag: 1}},
	{step: "storing unreachable", down: true}, {step: "saved unreachable", down: true},
	{step: "posted", faults: erp.Faults{NoSearch: true}}, // what follows cannot find it either
	{step: "storing cannot tell", faults: erp.Faults{NoSearch: true, LoseReply: 1}},
	{step: "saved cannot tell", faults: erp.Faults{NoSearch: true, LoseRequest: 1}},
	{step: "storing differs", faults: erp.Faults{HalfApply: 1}}, {step: "saved differs", faults: erp.Faults{HalfApply: 1}},
	{step: "recovering", first: "sending"}, {step: "changing many", first: "saved sending"}, {step: "recovered", first: "posted", faults: erp.Faults{LoseReply: 1}},
	{step: "held closing", faults: erp.Faults{Deny: 1}},
	{step: "admitting", late: true},
}

// TestHubKilledAtEveryStepOfAPostingLosesAndDoublesNothing kills a real hub without warning at every step that the engine
// names, then while a request is on its way to the ERP and while the answer is on its way back.
func TestHubKilledAtEveryStepOfAPostingLosesAndDoublesNothing(t *testing.T) {
	h := newLedgerHub(t, "crashhub")
	buildCrashHub(t)
	log := filepath.Join(h.dir, "steps")
	hit := 0
	for i, c := range crashes {
		order := fmt.Sprintf("LATE-%d", i)
		if !c.late {
			order = h.release("")
		}
		h.feed(order)
		h.trouble(c.faults, false, nil, nil)
		if c.late { // what waits for orders that came meanwhile must not be admitted before this one
			p := h.start()
			h.waiting(order)
			p.kill()
		}
		if c.first != "" {
			p := h.start("LINEKEEPER_CRASH_AT="+c.first, "LINEKEEPER_CRASH_LOG="+log)
			if s := p.waitEnd(t, c.first); s.Signal() != syscall.SIGKILL {
				t.Fatalf("at %q the hub ended with %v", c.first, s)
			}
		}
		p := h.start("LINEKEEPER_CRASH_AT="+c.step, "LINEKEEPER_CRASH_LOG="+log)
		if c.down { // only when it knows the order: before, nothing is posted
			h.known(order)
			h.trouble(c.faults, true, nil, nil)
		}
		if c.late {
			h.waiting(order)
			h.release(order)
		}
		if s := p.waitEnd(t, c.step); s.Signal() != syscall.SIGKILL {
			t.Fatalf("at %q the hub ended with %v", c.step, s)
		}
		hit++
	}
	for _, moment := range []string{"on its way there", "on its way back"} {
		h.feed(h.release(""))
		var p *hubProcess
		started := make(chan struct{})
		var once sync.Once
		die := func(*http.Request) { once.Do(func() { <-started; p.kill() }) }
		if moment == "on its way there" {
			h.trouble(erp.Faults{}, false, die, nil)
		} else {
			h.trouble(erp.Faults{}, false, nil, die)
		}
		p = h.start()
		close(started)
		p.waitEnd(t, moment)
		hit++
	}
	h.trouble(erp.Faults{}, false, nil, nil)
	if _, err := h.erp.Reprocess(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := h.start("LINEKEEPER_CRASH_LOG=" + log)
	h.settled()
	p.kill()
	missing, doubled := h.check()
	h.checkReceipts()
	h.checkSteps(log)
	t.Logf("%d points, all hit: %d facts of %d orders, %d missing, %d doubled", hit, len(h.facts), len(h.intents), missing, doubled)
}

// known waits until the hub has read an order.
func (h *ledgerHub) known(order string) {
	h.t.Helper()
	realparts.Eventually(h.t, time.Minute, "the hub knows order "+order, func() error { return h.call("GET", "/v1/work-orders/"+order, nil, nil) })
}

// waiting waits until facts of an order, and of no other, are parked, because the order is not known.
func (h *ledgerHub) waiting(order string) {
	h.t.Helper()
	realparts.Eventually(h.t, time.Minute, "facts wait for order "+order+" alone", func() error {
		rows, err := h.parked("unknown_order")
		if err == nil && len(rows) == 0 {
			err = errors.New("none is parked")
		}
		for _, r := range rows {
			if r.OrderNo != order {
				err = fmt.Errorf("order %s is waited for, too", r.OrderNo)
			}
		}
		return err
	})
}

// checkSteps wants every step that the engine went through in all these starts to be one that the hub was killed at.
func (h *ledgerHub) checkSteps(log string) {
	h.t.Helper()
	text, err := os.ReadFile(log)
	if err != nil {
		h.t.Fatal(err)
	}
	died := map[string]bool{}
	for _, c := range crashes {
		died[c.step] = true
	}
	for _, c := range crashes {
		if !strings.Contains(string(text), "dies at "+c.step+"\n") {
			h.t.Errorf("no process died at %q", c.step)
		}
	}
	var untested []string
	for step := range strings.Lines(string(text)) {
		step = strings.TrimSpace(step)
		if !strings.HasPrefix(step, "dies at ") && !died[step] && !slices.Contains(untested, step) {
			untested = append(untested, step)
		}
	}
	// A person's decisions are stored by the same transactions; these two are their names.
	untested = slices.DeleteFunc(untested, func(s string) bool { return s == "deciding" || s == "decided" || strings.HasPrefix(s, writeStep) })
	if len(untested) > 0 {
		h.t.Errorf("the engine has steps that no hub was killed at: %q", untested)
	}
}

var built sync.Map // program: *sync.Once

// buildHub builds a hub with a build tag, under a name of its own.
func buildHub(t *testing.T, program, tag string) {
	once, _ := built.LoadOrStore(program, &sync.Once{})
	once.(*sync.Once).Do(func() {
		cmd := exec.Command("go", "build", "-tags", tag, "-o", filepath.Join(bin, program), "./cmd/synchub")
		cmd.Dir = realparts.Root()
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", program, err, out)
		}
	})
}

// buildCrashHub builds the hub that kills itself at a named step.
func buildCrashHub(t *testing.T) { buildHub(t, "crashhub", "crashpoints") }

const exitLocked = 75

func (h *ledgerHub) refused(why string) {
	h.t.Helper()
	out, code := command(h.t, "synchub", "serve", "-c", h.hubCfg)
	if code != exitLocked || !strings.Contains(out, "another hub has it open") {
		h.t.Fatalf("%s: the second hub ended with %d, want %d:\n%s", why, code, exitLocked, out)
	}
}

// TestSecondHubIsRefusedAndTakesOverFromADeadOne starts a second hub process on one store, with the lock file and without it.
func TestSecondHubIsRefusedAndTakesOverFromADeadOne(t *testing.T) {
	h := newLedgerHub(t, "synchub")
	for range 5 {
		h.feed(h.release(""))
	}
	h.trouble(erp.Faults{LoseReply: 0.3}, false, nil, nil)
	first := h.start()
	if !h.runs(first) {
		t.Fatal("the first hub ended")
	}
	h.refused("while the first lives")
	if err := os.Remove(h.db() + ".lock"); err != nil {
		t.Fatal(err)
	}
	h.refused("while the first lives, with the lock file deleted")
	select {
	case <-first.ended:
		t.Fatal("the first hub ended although the second was refused")
	default:
	}
	first.kill()
	second := h.start()
	h.settled()
	second.kill()
	missing, doubled := h.check()
	t.Logf("%d facts, %d missing, %d doubled", len(h.facts), missing, doubled)
}

// runs waits until a hub works; false when it ended instead.
func (h *ledgerHub) runs(p *hubProcess) (ok bool) {
	h.t.Helper()
	realparts.Eventually(h.t, time.Minute, "the hub runs or ends", func() error {
		select {
		case <-p.ended:
			return nil
		default:
		}
		err := h.call("GET", "/readyz", nil, nil)
		ok = err == nil
		return err
	})
	return ok
}

// TestFrozenHubThatWakesUpPostsNothingMore freezes a hub just before it asks the ERP, and while the ERP works on its request,
// lets another take over without the lock file, and wakes the first one up.
func TestFrozenHubThatWakesUpPostsNothingMore(t *testing.T) {
	t.Run("before it asks", func(t *testing.T) {
		h := newLedgerHub(t, "crashhub")
		buildCrashHub(t)
		log := filepath.Join(h.dir, "steps")
		for range 5 {
			h.feed(h.release(""))
		}
		first := h.start("LINEKEEPER_STOP_AT=sending", "LINEKEEPER_CRASH_LOG="+log)
		stops := 0
		stop := func() {
			stops++
			realparts.Eventually(t, time.Minute, "the first hub stops", func() error {
				text, err := os.ReadFile(log)
				if err == nil && strings.Count(string(text), "stops at sending") < stops {
					err = errors.New("it has not come there yet")
				}
				return err
			})
		}
		stop()
		h.takeOver(first, func() { // another part of it was stopped in the middle of a write: nobody else can write then
			first.Process.Signal(syscall.SIGCONT)
			stop()
		})
	})
	t.Run("while the ERP works", func(t *testing.T) {
		h := newLedgerHub(t, "synchub")
		for range 5 {
			h.feed(h.release(""))
		}
		var first *hubProcess
		started := make(chan struct{})
		freeze := func(after time.Duration) <-chan struct{} { // while the ERP works on the next request, so long after it came
			frozen := make(chan struct{})
			var once sync.Once
			h.trouble(erp.Faults{}, false, func(*http.Request) {
				once.Do(func() {
					<-started
					<-time.After(after)
					first.Process.Signal(syscall.SIGSTOP)
					close(frozen)
				})
			}, nil)
			return frozen
		}
		frozen := freeze(0)
		first = h.start()
		close(started)
		first.await(t, frozen)
		after := time.Duration(0)
		h.takeOver(first, func() { // what it does when it wakes up, such as to write down that its requests failed, is over soon
			after += 20 * time.Millisecond
			frozen := freeze(after)
			first.Process.Signal(syscall.SIGCONT)
			first.await(t, frozen)
		})
	})
}

// takeOver starts a second hub without the lock file, lets it settle everything, and wakes the first one up, which must find
// out and end. again is called when the second hub is refused.
func (h *ledgerHub) takeOver(first *hubProcess, again func()) {
	t := h.t
	if err := os.Remove(h.db() + ".lock"); err != nil {
		t.Fatal(err)
	}
	second := h.start()
	for tries := 0; !h.runs(second); tries++ {
		if s := second.waitEnd(t, "it does not run"); s.ExitStatus() != exitLocked || tries == 10 {
			t.Fatalf("the second hub ended with %v, want %d", s, exitLocked)
		}
		again()
		second = h.start()
	}
	h.settled()
	realparts.Eventually(t, time.Minute, "the hub that was taken over ends", func() error { // it may stop several times
		first.Process.Signal(syscall.SIGCONT)
		select {
		case <-first.ended:
			return nil
		default:
			return errors.New("it runs")
		}
	})
	if s := first.waitEnd(t, "it was taken over"); s.ExitStatus() != exitLocked {
		t.Errorf("the hub that was taken over ended with %v, want exit code %d", s, exitLocked)
	}
	if err := h.call("GET", "/readyz", nil, nil); err != nil {
		t.Errorf("the second hub: %v", err)
	}
	second.kill()
	missing, doubled := h.check()
	t.Logf("%d facts, %d missing, %d doubled", len(h.facts), missing, doubled)
}
