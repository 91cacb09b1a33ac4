package sandbox_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/sandbox"
	"github.com/linekeeper/linekeeper/hub/connector/sandbox/erp"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
	"github.com/shopspring/decimal"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the random tests; 0 draws one")

func seed(t *testing.T) uint64 {
	s := *seedFlag
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("seed %d (repeat with -seed=%d)", s, s)
	return s
}

func d(s string) decimal.Decimal { return decimal.RequireFromString(s) }

// start starts an ERP with the demo's items and a connector to it, whose requests stay valid for settle.
func start(t *testing.T, o erp.Options, settle time.Duration) (*erp.ERP, *sandbox.Connector) {
	t.Helper()
	e, err := erp.Open(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	if err := e.SeedDemo(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(e.Handler())
	t.Cleanup(s.Close)
	return e, connect(t, sandbox.Config{URL: s.URL, Settle: settle})
}

func connect(t *testing.T, cfg sandbox.Config) *sandbox.Connector {
	t.Helper()
	if cfg.User == "" {
		cfg.User, cfg.Password = "linekeeper", "sandbox"
	}
	c, err := sandbox.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func release(t *testing.T, e *erp.ERP) string {
	t.Helper()
	no, err := e.ReleaseDemoOrder(t.Context(), "1000", "press1", 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	return no
}

func confirmation(no, key, yield, scrap string) connector.Posting {
	return connector.Posting{PostingDate: time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC), Attempt: 1, Fact: object.Fact{Key: factkey.Of(key), Kind: object.KindConfirmation,
		Confirmation: &object.Confirmation{OrderNo: no, Operation: "0010", Item: "BRACKET-10", Yield: d(yield), Scrap: d(scrap), Unit: "C62"}}}
}

func consumption(no, key, quantity string, m object.Movement) connector.Posting {
	return connector.Posting{PostingDate: time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC), Attempt: 1, Fact: object.Fact{Key: factkey.Of(key), Kind: object.KindConsumption,
		Consumption: &object.Consumption{OrderNo: no, Item: "STEEL-S235", Quantity: object.Quantity{Value: d(quantity), Unit: "KGM"}, Movement: m}}}
}

func state(no, key string, s object.FloorState) connector.Posting {
	return connector.Posting{Attempt: 1, Fact: object.Fact{Key: factkey.Of(key), Kind: object.KindOrderState, OrderState: &object.ShopFloorState{OrderNo: no, State: s}}}
}

// attempt prepares and posts once.
func attempt(t *testing.T, c *sandbox.Connector, p connector.Posting) ([]byte, connector.Outcome) {
	t.Helper()
	intent, early, err := c.Prepare(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	if early != nil {
		return intent, *early
	}
	return intent, c.Post(t.Context(), p, intent)
}

// settled posts once, wants it done and verified, and returns the document.
func settled(t *testing.T, c *sandbox.Connector, p connector.Posting) connector.Document {
	t.Helper()
	intent, out := attempt(t, c, p)
	if out.Result != connector.Posted {
		t.Fatalf("post %s: %+v", p.Fact.Key, out)
	}
	v, err := c.Verify(t.Context(), p, intent, out.Document)
	if err != nil || !v.Matches {
		t.Fatalf("verify %s: %+v %v", p.Fact.Key, v, err)
	}
	return out.Document
}

func totals(t *testing.T, e *erp.ERP) erp.Totals {
	t.Helper()
	sum, err := e.Totals(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

func TestEveryKindOfFactTakesEffectAndIsVerified(t *testing.T) {
	e, c := start(t, erp.Options{}, 0)
	no := release(t, e)
	settled(t, c, state(no, "started", object.FloorStarted))
	settled(t, c, confirmation(no, "c1", "12", "1"))
	settled(t, c, consumption(no, "m1", "1.5", object.Issue))
	settled(t, c, consumption(no, "m2", "0.25", object.Return))
	settled(t, c, state(no, "finished", object.FloorFinished))
	o := totals(t, e).Orders[no]
	if !o.Yield.Equal(d("12")) || !o.Scrap.Equal(d("1")) || !o.Consumed["STEEL-S235"].Equal(d("1.25")) {
		t.Errorf("totals %+v", o)
	}
	got, err := c.Get(t.Context(), no)
	if err != nil || got.State != object.OrderCompleted || got.Site != "1000" || len(got.Components) != 2 || got.ERP != "sandbox" {
		t.Errorf("order %+v %v", got, err)
	}
	if _, err := c.Get(t.Context(), "4711"); !errors.Is(err, connector.ErrNotFound) {
		t.Errorf("unknown order: %v", err)
	}
}

func TestReversalTakesTheFactBack(t *testing.T) {
	e, c := start(t, erp.Options{}, 0)
	no := release(t, e)
	reversal := confirmation(no, "undo", "12", "1")
	reversal.Fact.Reverses = factkey.Of("c1")
	if _, out := attempt(t, c, reversal); out.Result != connector.Rejected || out.Class != connector.Correctable {
		t.Errorf("reversal before its fact: %+v", out)
	}
	settled(t, c, confirmation(no, "c1", "12", "1"))
	settled(t, c, consumption(no, "m1", "1.5", object.Issue))
	settled(t, c, reversal)
	back := consumption(no, "undo m1", "1.5", object.Issue)
	back.Fact.Reverses = factkey.Of("m1")
	settled(t, c, back)
	if o := totals(t, e).Orders[no]; !o.Yield.IsZero() || !o.Scrap.IsZero() || !o.Consumed["STEEL-S235"].IsZero() {
		t.Errorf("totals %+v", o)
	}
}

func TestStateThatIsReachedAlreadyIsPosted(t *testing.T) {
	e, c := start(t, erp.Options{}, 0)
	no := release(t, e)
	settled(t, c, confirmation(no, "c1", "1", "0")) // starts the order by itself
	settled(t, c, state(no, "started", object.FloorStarted))
	settled(t, c, state(no, "finished", object.FloorFinished))
	settled(t, c, state(no, "late start", object.FloorStarted))
}

func TestRejectionsSayWhoCanDoWhat(t *testing.T) {
	e, c := start(t, erp.Options{}, 0)
	no, closed := release(t, e), release(t, e)
	if err := e.CloseOrder(t.Context(), closed); err != nil {
		t.Fatal(err)
	}
	if err := e.SetPeriod(t.Context(), "2026-10", false); err != nil {
		t.Fatal(err)
	}
	october := confirmation(no, "period", "1", "0")
	october.PostingDate = time.Date(2026, 10, 31, 0, 0, 0, 0, time.UTC)
	unit := confirmation(no, "unit", "1", "0")
	unit.Fact.Confirmation.Unit = "KGM"
	item := confirmation(no, "item", "1", "0")
	item.Fact.Confirmation.Item = "CLIP-5"
	quality := connector.Posting{Fact: object.Fact{Kind: object.KindQuality, Quality: &object.Quality{OrderNo: no}}}
	locked := release(t, e)
	e.Lock(locked, "MILLER")
	for _, x := range []struct {
		p     connector.Posting
		class connector.Class
		code  string
		names string
	}{
		{consumption(no, "stock", "2000000", object.Issue), connector.Correctable, "M7/021", "STEEL-S235"},
		{october, connector.Correctable, "M7/053", "2026-10"},
		{confirmation(closed, "closed", "1", "0"), connector.Correctable, "CO/688", closed},
		{confirmation(locked, "locked", "1", "0"), connector.Retryable, "C1/005", "MILLER"},
		{confirmation("4711", "order", "1", "0"), connector.Fatal, "CO/017", "4711"},
		{unit, connector.Fatal, "BM/302", "KGM"},
		{item, connector.Fatal, "CO/119", "CLIP-5"},
		{consumption(no, "decimals", "0.0005", object.Issue), connector.Fatal, "BM/314", "0.0005"},
		{confirmation("", "no order", "1", "0"), connector.Fatal, "NO_ORDER", "order"},
		{state(no, "held", object.FloorHeld), connector.Fatal, "NOT_SUPPORTED", "HELD"},
		{quality, connector.Fatal, "NOT_SUPPORTED", "quality"},
	} {
		_, out := attempt(t, c, x.p)
		if out.Result != connector.Rejected || out.Class != x.class || out.Code != x.code || !strings.Contains(out.Reason, x.names) || out.NextStep == "" {
			t.Errorf("want %s %s naming %q, got %+v", x.class, x.code, x.names, out)
		}
	}
	if n := totals(t, e).Documents; n != 0 {
		t.Errorf("%d documents after nothing but rejections", n)
	}
}

func TestBusyERPSaysWhenToComeBack(t *testing.T) {
	e, c := start(t, erp.Options{}, 0)
	e.SetFaults(erp.Faults{Busy: 1, BusyAfter: erp.Duration(7 * time.Second)})
	_, out := attempt(t, c, confirmation(release(t, e), "c1", "1", "0"))
	if out.Result != connector.Rejected || out.Class != connector.Retryable || out.RetryAfter != 7*time.Second {
		t.Errorf("%+v", out)
	}
}

func TestLostReplyIsInDoubtAndFoundByKey(t *testing.T) {
	e, c := start(t, erp.Options{}, time.Hour)
	p := confirmation(release(t, e), "c1", "3", "0")
	e.SetFaults(erp.Faults{LoseReply: 1})
	intent, out := attempt(t, c, p)
	if out.Result != connector.InDoubt || out.Reason == "" {
		t.Fatalf("%+v", out)
	}
	f, err := c.Lookup(t.Context(), p, intent)
	if err != nil || f.Presence != connector.Found {
		t.Fatalf("%+v %v", f, err)
	}
	if v, err := c.Verify(t.Context(), p, intent, f.Document); err != nil || !v.Matches {
		t.Errorf("%+v %v", v, err)
	}
	// A hub that forgot all of it prepares again and learns that it is done.
	if _, early, err := c.Prepare(t.Context(), p); err != nil || early == nil || early.Result != connector.Posted || early.Document != f.Document {
		t.Errorf("%+v %v", early, err)
	}
}

func TestLostRequestIsAbsentOnlyWhenItCannotArriveAnyMore(t *testing.T) {
	now := time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)
	var mu sync.Mutex
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	e, c := start(t, erp.Options{Now: clock}, 3*time.Second)
	p := confirmation(release(t, e), "c1", "3", "0")
	e.SetFaults(erp.Faults{LoseRequest: 1})
	intent, out := attempt(t, c, p)
	if out.Result != connector.InDoubt {
		t.Fatalf("%+v", out)
	}
	e.SetFaults(erp.Faults{})
	if f, err := c.Lookup(t.Context(), p, intent); err != nil || f.Presence != connector.NotFoundYet {
		t.Errorf("while it is valid: %+v %v", f, err)
	}
	mu.Lock()
	now = now.Add(3*time.Second + 1)
	mu.Unlock()
	if f, err := c.Lookup(t.Context(), p, intent); err != nil || f.Presence != connector.Absent {
		t.Errorf("after its time: %+v %v", f, err)
	}
	// The request arrives after all.
	if out := c.Post(t.Context(), p, intent); out.Result != connector.Rejected || out.Class != connector.Retryable || totals(t, e).Documents != 0 {
		t.Errorf("late arrival: %+v, %d documents", out, totals(t, e).Documents)
	}
}

func TestAcceptedPostingIsInDoubtUntilItIsBooked(t *testing.T) {
	now := time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)
	var mu sync.Mutex
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	e, c := start(t, erp.Options{Now: clock}, time.Second)
	e.SetFaults(erp.Faults{Delay: 1, DelayFor: erp.Duration(time.Minute)})
	no := release(t, e)
	good, bad := confirmation(no, "c1", "3", "0"), consumption(no, "m1", "2000000", object.Issue)
	goodIntent, out := attempt(t, c, good)
	if out.Result != connector.InDoubt {
		t.Fatalf("%+v", out)
	}
	badIntent, _ := attempt(t, c, bad)
	mu.Lock()
	now = now.Add(30 * time.Second)
	mu.Unlock()
	if f, err := c.Lookup(t.Context(), good, goodIntent); err != nil || f.Presence != connector.NotFoundYet {
		t.Errorf("%+v %v", f, err)
	}
	if _, early, err := c.Prepare(t.Context(), good); err != nil || early == nil || early.Class != connector.Retryable {
		t.Errorf("prepared again while it waits: %+v %v", early, err)
	}
	mu.Lock()
	now = now.Add(time.Minute)
	mu.Unlock()
	eventually(t, "it is booked", func() bool {
		f, err := c.Lookup(t.Context(), good, goodIntent)
		return err == nil && f.Presence == connector.Found
	})
	eventually(t, "it is refused with a reason", func() bool {
		f, err := c.Lookup(t.Context(), bad, badIntent)
		return err == nil && f.Presence == connector.Absent && strings.Contains(f.Reason, "M7/021")
	})
}

func eventually(t *testing.T, what string, check func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for !check() {
		if !pause(ctx, 20*time.Millisecond) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func TestVerifyNamesWhatIsDifferentAndSeesADouble(t *testing.T) {
	e, c := start(t, erp.Options{}, 0)
	no := release(t, e)
	doc := settled(t, c, confirmation(no, "c1", "3", "0"))
	v, err := c.Verify(t.Context(), confirmation(no, "c1", "4", "0"), nil, doc)
	if err != nil || v.Matches || !strings.Contains(v.Difference, "yield") {
		t.Errorf("%+v %v", v, err)
	}
	if _, err := e.Post(t.Context(), erp.Request{Kind: erp.KindConfirmation, ExternalKey: factkey.Of("c1").String(), OrderNo: no, Yield: d("3"), Unit: "C62", PostingDate: "2026-11-24"}); err != nil {
		t.Fatal(err)
	}
	v, err = c.Verify(t.Context(), confirmation(no, "c1", "3", "0"), nil, doc)
	if err != nil || v.Matches || !strings.Contains(v.Difference, "2 documents") {
		t.Errorf("%+v %v", v, err)
	}
}

func TestReadingBackTogetherIsLeftToVerifyWhereNothingCanBeSearched(t *testing.T) {
	e, c := start(t, erp.Options{}, time.Second)
	no := release(t, e)
	var all []connector.ToVerify
	for _, p := range []connector.Posting{confirmation(no, "K1", "2", "0"), confirmation(no, "K2", "3", "1"), state(no, "K3", object.FloorFinished)} {
		intent, out := attempt(t, c, p)
		all = append(all, connector.ToVerify{Posting: p, Intent: intent, Document: out.Document})
	}
	damaged := all[0]
	damaged.Intent = []byte("{")
	answers, err := c.VerifyMany(t.Context(), append(all, damaged))
	if want := []connector.Verification{{Matches: true}, {Matches: true}, {Matches: true}, {Alone: true}}; err != nil || !slices.Equal(answers, want) {
		t.Errorf("%+v, %v; want %+v", answers, err, want)
	}
	e.SetFaults(erp.Faults{NoSearch: true})
	answers, err = c.VerifyMany(t.Context(), all)
	if want := slices.Repeat([]connector.Verification{{Alone: true}}, 3); err != nil || !slices.Equal(answers, want) {
		t.Errorf("without a search: %+v, %v; want %+v", answers, err, want)
	}
}

func TestExpiredSessionIsRenewedUnseen(t *testing.T) {
	e, c := start(t, erp.Options{}, 0)
	no := release(t, e)
	settled(t, c, confirmation(no, "c1", "1", "0"))
	e.ExpireTokens()
	settled(t, c, confirmation(no, "c2", "1", "0"))
}

func TestUnreachableERPHasNoEffectAndSaysSo(t *testing.T) {
	s := httptest.NewServer(nil)
	s.Close()
	c := connect(t, sandbox.Config{URL: s.URL})
	if _, _, err := c.Prepare(t.Context(), confirmation("1", "c1", "1", "0")); err == nil {
		t.Error("prepared without an ERP")
	}
	out := c.Post(t.Context(), confirmation("1", "c1", "1", "0"), []byte(`{"valid_until":"2026-11-24T08:00:00Z"}`))
	if out.Result != connector.Rejected || out.Class != connector.Retryable || out.Code != "UNREACHABLE" {
		t.Errorf("%+v", out)
	}
}

func TestConfigIsCheckedWithAHint(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("sandbox\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e, _ := start(t, erp.Options{}, 0)
	s := httptest.NewServer(e.Handler())
	defer s.Close()
	c := connect(t, sandbox.Config{URL: s.URL, User: "linekeeper", PasswordFile: file})
	if _, err := c.Inventory(t.Context(), nil); err != nil {
		t.Error(err)
	}
	for _, bad := range []sandbox.Config{{URL: "erp.example"}, {URL: s.URL, PasswordFile: file + "x"}, {URL: s.URL, PageSize: 5000}} {
		if _, err := sandbox.New(bad); err == nil {
			t.Errorf("config %+v was taken", bad)
		}
	}
}

func TestInventoryGivesTheNamedBalances(t *testing.T) {
	e, c := start(t, erp.Options{}, 0)
	settled(t, c, consumption(release(t, e), "m1", "0.125", object.Issue))
	b, err := c.Inventory(t.Context(), []string{"STEEL-S235", "WIRE-2"})
	if err != nil || len(b) != 2 || !b[0].OnHand.Value.Equal(d("999999.875")) || b[0].OnHand.Unit != "KGM" || b[0].AsOf.IsZero() {
		t.Errorf("%+v %v", b, err)
	}
}

// TestNoChangeIsLeftOut changes orders whose change times lie up to three minutes before they can be read, while they are
// listed in small pages, and wants the last content of each order to have been listed.
func TestNoChangeIsLeftOut(t *testing.T) {
	s := seed(t)
	e, err := erp.Open(t.TempDir(), erp.Options{Seed: s})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if err := e.SeedDemo(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.SetFaults(erp.Faults{LateCommit: erp.Duration(3 * time.Minute)})
	server := httptest.NewServer(e.Handler())
	defer server.Close()
	c := connect(t, sandbox.Config{URL: server.URL, PageSize: 3})
	dice := rand.New(rand.NewPCG(s, 1))
	var orders []string
	want, listed := map[string]decimal.Decimal{}, map[string]decimal.Decimal{}
	cursor, returned := "", 0
	list := func() bool {
		page, err := c.ListChanged(t.Context(), cursor)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range page.Orders {
			listed[o.OrderNo] = o.Quantity.Value
			returned++
		}
		cursor = page.Cursor
		return page.More
	}
	changes := 0
	for range 300 {
		switch n := dice.IntN(10); {
		case n < 2 || len(orders) == 0:
			no := release(t, e)
			orders = append(orders, no)
			want[no] = d("1000")
			changes++
		case n < 6:
			no, q := orders[dice.IntN(len(orders))], decimal.NewFromInt(int64(dice.IntN(1000)+1))
			if err := e.ChangeQuantity(t.Context(), no, q); err != nil {
				t.Fatal(err)
			}
			want[no] = q
			changes++
		default:
			list()
		}
	}
	for list() {
	}
	for list() { // a whole sweep from its beginning
	}
	for no, q := range want {
		if !listed[no].Equal(q) {
			t.Errorf("order %s listed with %s, want %s", no, listed[no], q)
		}
	}
	before := returned
	for list() {
	}
	if returned != before {
		t.Errorf("%d orders were listed again without a change", returned-before)
	}
	t.Logf("%d orders, %d changes, %d listings", len(orders), changes, returned)
}

func TestOnlyTheConfiguredSitesAreListed(t *testing.T) {
	e, _ := start(t, erp.Options{}, 0)
	release(t, e)
	other, err := e.ReleaseDemoOrder(t.Context(), "2000", "press9", 1, 5)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(e.Handler())
	defer s.Close()
	page, err := connect(t, sandbox.Config{URL: s.URL, Sites: []string{"2000"}}).ListChanged(t.Context(), "")
	if err != nil || len(page.Orders) != 1 || page.Orders[0].OrderNo != other || page.Orders[0].State != object.OrderReleased {
		t.Errorf("%+v %v", page, err)
	}
}

// TestNothingMissingAndNothingDoubledUnderLostReplies takes hundreds of facts through an ERP that loses replies and
// requests, books late, locks orders and is busy, with one worker for each order.
func TestNothingMissingAndNothingDoubledUnderLostReplies(t *testing.T) {
	s := seed(t)
	e, c := start(t, erp.Options{Seed: s}, 200*time.Millisecond)
	e.SetFaults(erp.Faults{LoseReply: 0.10, LoseRequest: 0.03, Delay: 0.05, DelayFor: erp.Duration(30 * time.Millisecond), Lock: 0.05})
	const orders, each = 6, 80
	want := map[string]decimal.Decimal{}
	var workers sync.WaitGroup
	var mu sync.Mutex
	doubts, problems := 0, []string{}
	for i := range orders {
		no := release(t, e)
		dice := rand.New(rand.NewPCG(s, uint64(i)))
		workers.Go(func() {
			for n := range each {
				q := decimal.New(int64(dice.IntN(5000)+1), -3)
				doubted, problem := drive(t.Context(), c, consumption(no, fmt.Sprintf("%s/%d", no, n), q.String(), object.Issue))
				mu.Lock()
				want[no] = want[no].Add(q)
				doubts += doubted
				if problem != "" {
					problems = append(problems, problem)
				}
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	sum := totals(t, e)
	missing, doubled := orders*each-(sum.Documents-len(sum.Duplicates)), len(sum.Duplicates)
	t.Logf("postings %d, in doubt %d, documents %d, missing %d, doubled %d", orders*each, doubts, sum.Documents, missing, doubled)
	if missing != 0 || doubled != 0 || len(problems) > 0 || doubts == 0 {
		t.Errorf("missing %d doubled %d doubts %d problems %v", missing, doubled, doubts, problems)
	}
	for no, q := range want {
		if got := sum.Orders[no].Consumed["STEEL-S235"]; !got.Equal(q) {
			t.Errorf("order %s: consumed %s, want %s", no, got, q)
		}
	}
}

// drive takes one posting to its end the way the hub does: never blindly again.
func drive(ctx context.Context, c *sandbox.Connector, p connector.Posting) (doubts int, problem string) {
	for pause(ctx, time.Millisecond) {
		intent, early, err := c.Prepare(ctx, p)
		if err != nil {
			continue
		}
		var out connector.Outcome
		if early != nil {
			out = *early
		} else {
			out = c.Post(ctx, p, intent)
		}
		if out.Result == connector.InDoubt {
			doubts++
			f := lookUp(ctx, c, p, intent)
			if f.Presence != connector.Found {
				continue
			}
			out = connector.Outcome{Result: connector.Posted, Document: f.Document}
		}
		if out.Result == connector.Posted {
			v, err := c.Verify(ctx, p, intent, out.Document)
			if err != nil || !v.Matches {
				return doubts, fmt.Sprintf("verify %s: %+v %v", p.Fact.Key, v, err)
			}
			return doubts, ""
		}
		if out.Class != connector.Retryable {
			return doubts, fmt.Sprintf("%s: %+v", p.Fact.Key, out)
		}
	}
	return doubts, "out of time"
}

func lookUp(ctx context.Context, c *sandbox.Connector, p connector.Posting, intent []byte) connector.Finding {
	for {
		f, err := c.Lookup(ctx, p, intent)
		if err == nil && f.Presence != connector.NotFoundYet {
			return f
		}
		if !pause(ctx, 10*time.Millisecond) {
			return f
		}
	}
}

func TestToleranceOfAnOrderIsRead(t *testing.T) {
	e, c := start(t, erp.Options{}, 0)
	ten := d("10")
	for _, want := range []*decimal.Decimal{nil, &ten} {
		no, err := e.ReleaseOrder(t.Context(), erp.Order{Item: "BRACKET-10", Quantity: ten, Site: "ULM", OverPercent: want})
		if err != nil {
			t.Fatal(err)
		}
		o, err := c.Get(t.Context(), no)
		if err != nil || (o.OverPercent == nil) != (want == nil) || want != nil && !o.OverPercent.Equal(*want) {
			t.Errorf("%v, %v, want %v", o.OverPercent, err, want)
		}
	}
}
