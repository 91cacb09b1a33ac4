package erpnext_test

import (
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/connector/erpnext"
	"github.com/linekeeper/linekeeper/hub/connector/erpnext/erpnextdouble"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
	"go.yaml.in/yaml/v4"
)

func made(order, yield, scrap string) connector.Posting {
	now := time.Now().UTC()
	return connector.Posting{Attempt: 1, Order: object.WorkOrder{OrderNo: order, Item: maker}, PostingDate: now.Truncate(24 * time.Hour),
		Fact: object.Fact{Key: factkey.Random(), Kind: object.KindConfirmation, OccurredAt: now, TimeZone: "UTC",
			Confirmation: &object.Confirmation{OrderNo: order, Item: maker, Unit: "C62", Yield: d(yield), Scrap: d(scrap)}}}
}

func used(order, quantity string) connector.Posting {
	p := made(order, "1", "0")
	p.Fact.Kind, p.Fact.Confirmation = object.KindConsumption, nil
	p.Fact.Consumption = &object.Consumption{OrderNo: order, Item: taken, Movement: object.Issue, Quantity: object.Quantity{Value: d(quantity), Unit: "KGM"}}
	return p
}

func prepare(t *testing.T, c connector.Connector, p connector.Posting) []byte {
	t.Helper()
	intent, early, err := c.Prepare(t.Context(), p)
	if err != nil || early != nil {
		t.Fatalf("prepare: %+v, %v", early, err)
	}
	return intent
}

// settled drives a posting to its end, which has to be the good one.
func settled(t *testing.T, c connector.Connector, p connector.Posting) connectortest.Settlement {
	t.Helper()
	x := connectortest.Drive(t.Context(), c, p, time.Minute)
	if x.End != connectortest.Settled {
		t.Fatalf("posting ended %s:\n  %s", x.End, strings.Join(x.Why, "\n  "))
	}
	return x
}

func (b *bench) holds(t *testing.T, order string, documents, drafts int) {
	t.Helper()
	if x := b.Totals(order); x.Documents != documents || x.Drafts != drafts {
		t.Errorf("order %s holds %d submitted entries and %d drafts, want %d and %d", order, x.Documents, x.Drafts, documents, drafts)
	}
}

// The insert took effect and the submit was lost: the draft is not taken for a posting, and the look-up finishes it.
func TestDraftIsFinishedByTheLookUp(t *testing.T) {
	b := newBench(t, erpnextdouble.Traps{}, erpnextdouble.Options{})
	c, order := b.connect(t), b.order(t, "40")
	settled(t, c, made(order, "1", "0"))
	p := made(order, "12", "1")
	intent := prepare(t, c, p)
	b.proxy.Arm(connectortest.LoseRequest, 2) // 1 is the insert
	if out := c.Post(t.Context(), p, intent); out.Result != connector.InDoubt {
		t.Fatalf("post without a submit is answered %+v", out)
	}
	b.holds(t, order, 1, 1)
	if v, err := c.Verify(t.Context(), p, intent, connector.Document{}); err != nil || v.Matches || !strings.Contains(v.Difference, "draft") {
		t.Errorf("a draft is verified as %+v, %v", v, err)
	}
	f, err := c.Lookup(t.Context(), p, intent)
	if err != nil || f.Presence != connector.Found {
		t.Fatalf("look-up: %+v, %v", f, err)
	}
	if v, err := c.Verify(t.Context(), p, intent, f.Document); err != nil || !v.Matches {
		t.Errorf("verify: %+v, %v", v, err)
	}
	b.holds(t, order, 2, 0)
}

// A draft whose submit is refused for good is deleted; one that cannot be deleted is used by the replay.
func TestDraftWhoseSubmitIsRefused(t *testing.T) {
	b := newBench(t, erpnextdouble.Traps{}, erpnextdouble.Options{})
	c, order := b.connect(t), b.order(t, "40")
	b.PutStock(taken, wip, d("1"))
	p := used(order, "2.5")
	out := c.Post(t.Context(), p, prepare(t, c, p))
	if out.Result != connector.Rejected || out.Class != connector.Correctable || out.Code != "NegativeStockError" || !strings.Contains(out.Reason, taken) {
		t.Fatalf("post without stock is answered %+v", out)
	}
	b.holds(t, order, 0, 0)

	// The answer to the deletion is lost: nobody is told that nothing is there before it is known.
	intent := prepare(t, c, p)
	b.proxy.Arm(connectortest.LoseRequest, 5) // insert, submit, two of the search, deletion
	if out := c.Post(t.Context(), p, intent); out.Result != connector.InDoubt {
		t.Fatalf("post whose draft may be there is answered %+v", out)
	}
	b.holds(t, order, 0, 1)
	f, err := c.Lookup(t.Context(), p, intent)
	if err != nil || f.Presence != connector.Absent || f.Rejection == nil || f.Rejection.Code != "NegativeStockError" {
		t.Fatalf("look-up: %+v, %v", f, err)
	}
	b.holds(t, order, 0, 0)
	b.PutStock(taken, wip, d("100"))
	settled(t, c, p)
	b.holds(t, order, 1, 0)
}

// Somebody changes the draft between insert and submit: what is stale is not submitted, and it is posted once all the same.
func TestStaleSubmitIsRefusedAndLookedUp(t *testing.T) {
	b := newBench(t, erpnextdouble.Traps{}, erpnextdouble.Options{})
	c, order := b.connect(t), b.order(t, "40")
	settled(t, c, made(order, "1", "0"))
	p := made(order, "12", "0")
	intent := prepare(t, c, p)
	b.proxy.Arm(connectortest.DelayRequest, 2)
	if out := c.Post(t.Context(), p, intent); out.Result != connector.InDoubt {
		t.Fatalf("post: %+v", out)
	}
	f, err := c.Lookup(t.Context(), p, intent)
	if err != nil || f.Presence != connector.Found {
		t.Fatalf("look-up: %+v, %v", f, err)
	}
	b.proxy.Deliver() // the first submit arrives, with the draft's modified
	b.holds(t, order, 2, 0)
	settled(t, c, p)
	if got := b.Totals(order).Yield; !got.Equal(d("13")) {
		t.Errorf("the order holds %s, want 13", got)
	}
}

// A person changes the draft before the submit arrives: what was not seen is not submitted.
func TestDraftChangedByAPersonIsNotSubmittedUnseen(t *testing.T) {
	b := newBench(t, erpnextdouble.Traps{}, erpnextdouble.Options{})
	c, order := b.connect(t), b.order(t, "40")
	settled(t, c, made(order, "1", "0"))
	p := made(order, "12", "0")
	intent := prepare(t, c, p)
	b.proxy.Arm(connectortest.DelayRequest, 2)
	c.Post(t.Context(), p, intent)
	for _, e := range b.Entries() {
		if e["docstatus"] == 0 {
			r := httptest.NewRequest("PUT", "/api/resource/Stock%20Entry/"+e["name"].(string), strings.NewReader(`{"remarks":"looked at"}`))
			r.Header.Set("Authorization", "token "+erpnextdouble.Token)
			b.Handler().ServeHTTP(httptest.NewRecorder(), r)
		}
	}
	b.proxy.Deliver()
	b.holds(t, order, 1, 1)
	settled(t, c, p)
	b.holds(t, order, 2, 0)
}

// What ERPNext makes of the draft is looked at before it takes effect: with operations it has a process loss of its own.
func TestDraftWithAnotherLossIsNotSubmitted(t *testing.T) {
	b := newBench(t, erpnextdouble.Traps{LossFromJobCards: true}, erpnextdouble.Options{})
	c, order := b.connect(t), b.order(t, "40")
	p := made(order, "12", "2")
	out := c.Post(t.Context(), p, prepare(t, c, p))
	if out.Result != connector.Rejected || out.Class != connector.Correctable || out.Code != "DRAFT_CHANGED" || !strings.Contains(out.Reason, "process loss 0") {
		t.Errorf("post is answered %+v", out)
	}
	b.holds(t, order, 0, 0)
	settled(t, c, made(order, "12", "0"))
}

// A submit that comes after somebody submitted and cancelled the entry deletes no record of the books.
func TestCancelledEntryIsNeverDeleted(t *testing.T) {
	b := newBench(t, erpnextdouble.Traps{}, erpnextdouble.Options{})
	c, order := b.connect(t), b.order(t, "40")
	settled(t, c, made(order, "1", "0"))
	p := made(order, "12", "0")
	b.proxy.Arm(connectortest.LoseRequest, 4) // the submit, after field checks that are done, search, order and insert
	intent := prepare(t, c, p)
	if out := c.Post(t.Context(), p, intent); out.Result != connector.InDoubt {
		t.Fatalf("post: %+v", out)
	}
	stale := prepare(t, c, p) // knows the draft
	doc := settled(t, c, p).Document
	r := made(order, "12", "0")
	r.Fact.Reverses, r.Original = p.Fact.Key, &connector.Original{Fact: p.Fact, Document: doc}
	settled(t, c, r)
	for _, again := range [][]byte{intent, stale} {
		out := c.Post(t.Context(), p, again)
		if out.Result != connector.Rejected || out.Code != "CANCELLED" {
			t.Errorf("post of a cancelled entry's fact is answered %+v", out)
		}
	}
	if x := b.Totals(order); x.Documents != 1 || x.Cancelled != 1 {
		t.Errorf("the books hold %+v", x)
	}
}

// The day for the books is another one than that of the work, or changes between two attempts: the entry stands on the last
// that was said, at a time that has been.
func TestPostingDateOfAnotherDay(t *testing.T) {
	b := newBench(t, erpnextdouble.Traps{}, erpnextdouble.Options{})
	c, order := b.connect(t), b.order(t, "40")
	settled(t, c, made(order, "1", "0"))
	p := made(order, "12", "0")
	today := p.PostingDate
	p.PostingDate = today.AddDate(0, 0, -1)
	intent := prepare(t, c, p)
	b.proxy.Arm(connectortest.LoseRequest, 2) // the submit
	if out := c.Post(t.Context(), p, intent); out.Result != connector.InDoubt {
		t.Fatalf("post: %+v", out)
	}
	p.PostingDate, p.Fact.OccurredAt = today, p.Fact.OccurredAt.AddDate(0, 0, -1)
	settled(t, c, p)
	late := made(order, "2", "0")
	late.PostingDate = today.AddDate(0, 0, -2)
	settled(t, c, late)
	if v, err := c.Verify(t.Context(), made(order, "2", "0"), nil, connector.Document{}); err != nil || v.Matches {
		t.Errorf("a fact that was never posted is verified as %+v, %v", v, err)
	}
	late.PostingDate = today
	if v, err := c.Verify(t.Context(), late, nil, connector.Document{}); err != nil || v.Matches || !strings.Contains(v.Difference, "posting date") {
		t.Errorf("an entry on another day is verified as %+v, %v", v, err)
	}
}

// Without a unique field for the key nothing can be made to happen once, so nothing happens.
func TestNothingIsPostedWithoutAUniqueKey(t *testing.T) {
	for word, traps := range map[string]erpnextdouble.Traps{"missing": {NoKeyField: true}, "not unique": {KeyNotUnique: true}} {
		b := newBench(t, traps, erpnextdouble.Options{})
		c, order := b.connect(t), b.order(t, "40")
		if _, early, err := c.Prepare(t.Context(), made(order, "12", "0")); err == nil || early != nil || !strings.Contains(err.Error(), word) || !strings.Contains(err.Error(), "linekeeper_key") {
			t.Errorf("prepare at a site where the field is %s: %+v, %v", word, early, err)
		}
		b.holds(t, order, 0, 0)
	}
}

// What ERPNext refuses is told in its own words, and nothing is left behind.
func TestRefusalsOfERPNextsOwn(t *testing.T) {
	for _, x := range []struct {
		traps      erpnextdouble.Traps
		yield      string
		code, says string
	}{
		{erpnextdouble.Traps{}, "41", "StockOverProductionError", "allowed quantity 40"},
		{erpnextdouble.Traps{NeedsRawMaterial: true}, "4", "ValidationError", "raw material"},
	} {
		for _, api := range []string{"v1", "v2"} {
			b := newBench(t, x.traps, erpnextdouble.Options{})
			c, order := b.connect(t, func(c *erpnext.Config) { c.API = api }), b.order(t, "40")
			p := made(order, x.yield, "0")
			out := c.Post(t.Context(), p, prepare(t, c, p))
			if out.Result != connector.Rejected || out.Class != connector.Correctable || out.Code != x.code || !strings.Contains(out.Reason, x.says) {
				t.Errorf("%s: post is answered %+v", api, out)
			}
			b.holds(t, order, 0, 0)
		}
	}
}

// What has no place in ERPNext is refused by name and before anything is sent.
func TestWhatHasNoPlaceIsRefused(t *testing.T) {
	b := newBench(t, erpnextdouble.Traps{}, erpnextdouble.Options{})
	c, order := b.connect(t), b.order(t, "40")
	rework, empty, digits := made(order, "1", "0"), made(order, "0", "0"), used(order, "2.5001")
	rework.Fact.Confirmation.Rework = d("1")
	place := made(order, "0", "2")
	b.change(t, order, func(o map[string]any) { o["scrap_warehouse"] = "" })
	for code, p := range map[string]connector.Posting{"REWORK": rework, "EMPTY": empty, "QUANTITY_SCALE": digits, "NO_WAREHOUSE": place} {
		_, early, err := c.Prepare(t.Context(), p)
		if err != nil || early == nil || early.Result != connector.Rejected || early.Code != code || early.NextStep == "" {
			t.Errorf("%s: prepare is answered %+v, %v", code, early, err)
		}
	}
	b.holds(t, order, 0, 0)
}

// A cancelled entry is neither posted again nor taken for the effect.
func TestEntryCancelledByHand(t *testing.T) {
	b := newBench(t, erpnextdouble.Traps{}, erpnextdouble.Options{})
	c, order := b.connect(t), b.order(t, "40")
	p := made(order, "12", "0")
	doc := settled(t, c, p).Document
	r := made(order, "12", "0")
	r.Fact.Reverses, r.Original = p.Fact.Key, &connector.Original{Fact: p.Fact, Document: doc}
	settled(t, c, r)
	x := connectortest.Drive(t.Context(), c, p, time.Minute)
	if x.End != connectortest.Refused || x.Outcome.Code != "CANCELLED" {
		t.Errorf("a cancelled entry's fact ended %s: %+v", x.End, x.Outcome)
	}
	if v, err := c.Verify(t.Context(), p, nil, doc); err != nil || v.Matches || !strings.Contains(v.Difference, "cancelled") {
		t.Errorf("a cancelled entry is verified as %+v, %v", v, err)
	}
	if x := b.Totals(order); x.Documents != 0 || x.Cancelled != 1 || !b.Stock(maker, "Finished - U").IsZero() {
		t.Errorf("the books hold %+v", x)
	}
}

// Orders that change while pages are read, and orders that share one stamp, are left out by no page.
func TestPagesLeaveNothingOut(t *testing.T) {
	b := newBench(t, erpnextdouble.Traps{}, erpnextdouble.Options{})
	c := b.connect(t, func(c *erpnext.Config) { c.PageSize = 3 })
	same := time.Now().Add(-time.Hour)
	want := map[string]bool{}
	for i := range 11 {
		order := b.order(t, fmt.Sprint(i+1))
		want[order] = true
		if i < 7 {
			if err := b.Change(order, same, func(map[string]any) {}); err != nil {
				t.Fatal(err)
			}
		}
	}
	cursor := ""
	for page := 0; ; page++ {
		x, err := c.ListChanged(t.Context(), cursor)
		if err != nil || page > 20 {
			t.Fatalf("page %d: %v", page, err)
		}
		for _, o := range x.Orders {
			delete(want, o.OrderNo)
		}
		if page == 0 { // moves to the end, and shifts the others
			b.change(t, x.Orders[0].OrderNo, func(map[string]any) {})
		}
		if cursor = x.Cursor; !x.More {
			break
		}
	}
	if len(want) > 0 {
		t.Errorf("left out: %v", want)
	}
}

// An unknown unit or status stops its own order, by name, and no other.
func TestUnreadableOrderStopsNoNeighbour(t *testing.T) {
	b := newBench(t, erpnextdouble.Traps{}, erpnextdouble.Options{})
	c := b.connect(t)
	b.PutItem("Rod", "Furlong")
	odd, strange, many, good := b.CreateOrder("Rod", d("3")), b.order(t, "4"), b.order(t, "6"), b.order(t, "5")
	b.change(t, strange, status("Pondering", 1))
	b.change(t, many, func(o map[string]any) { o["qty"] = "many" })
	x, err := c.ListChanged(t.Context(), "")
	if err != nil || len(x.Orders) != 1 || x.Orders[0].OrderNo != good || len(x.Unreadable) != 3 {
		t.Fatalf("listed %+v, %v", x, err)
	}
	reasons := map[string]string{}
	for _, u := range x.Unreadable {
		reasons[u.OrderNo] = u.Reason
	}
	if !strings.Contains(reasons[odd], "Furlong") || !strings.Contains(reasons[strange], "Pondering") || !strings.Contains(reasons[many], "many") {
		t.Errorf("reasons are %v", reasons)
	}
}

func TestWrongSecretIsNamedAndNotShown(t *testing.T) {
	b := newBench(t, erpnextdouble.Traps{}, erpnextdouble.Options{})
	c := b.connect(t, func(c *erpnext.Config) { c.Password = "wrong-secret" })
	_, err := c.ListChanged(t.Context(), "")
	if err == nil || !strings.Contains(err.Error(), "AuthenticationError") || strings.Contains(err.Error(), "wrong-secret") {
		t.Errorf("a wrong secret gives %v", err)
	}
}

func TestSampleParsesAndConfigIsChecked(t *testing.T) {
	parse := func(text string) (cfg erpnext.Config) {
		t.Helper()
		dec := yaml.NewDecoder(strings.NewReader(text))
		dec.KnownFields(true)
		if err := dec.Decode(&cfg); err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	all := strings.ReplaceAll("\n"+erpnext.Sample, "\n# ", "\n")
	for _, text := range []string{erpnext.Sample, all} {
		cfg := parse(text)
		cfg.PasswordFile, cfg.Password = "", "secret"
		if _, err := erpnext.New(cfg); err != nil {
			t.Error(err)
		}
	}
	for _, wrong := range []func(*erpnext.Config){
		func(c *erpnext.Config) { c.URL = "erp" }, func(c *erpnext.Config) { c.User = "" }, func(c *erpnext.Config) { c.API = "v3" },
		func(c *erpnext.Config) { c.Precision = 12 }, func(c *erpnext.Config) { c.PageSize = 9999 }, func(c *erpnext.Config) { c.Overlap = time.Second },
		func(c *erpnext.Config) { c.TimeZone = "Mars" }, func(c *erpnext.Config) { c.User = "key:secret" },
	} {
		cfg := parse(erpnext.Sample)
		cfg.PasswordFile, cfg.Password = "", "secret"
		wrong(&cfg)
		if _, err := erpnext.New(cfg); err == nil {
			t.Errorf("taken: %+v", cfg)
		}
	}
}

// A mapping's movement type is the entry's type; its purpose stays what it is.
func TestMovementTypeOfAMappingIsTheEntrysType(t *testing.T) {
	b := newBench(t, erpnextdouble.Traps{}, erpnextdouble.Options{})
	c, order := b.connect(t), b.order(t, "40")
	p := used(order, "1.5")
	p.Movements = &object.MovementTypes{Set: "movements", Version: 2, Types: map[object.MovementKind]string{object.IssueToOrder: "Plant Material Consumption for Manufacture"}}
	x := settled(t, c, p)
	i := slices.IndexFunc(b.Entries(), func(e map[string]any) bool { return e["name"] == x.Document.Number })
	if i < 0 {
		t.Fatalf("entry %q is not there", x.Document.Number)
	}
	e := b.Entries()[i]
	if e["stock_entry_type"] != p.Movements.Types[object.IssueToOrder] || e["purpose"] != "Material Consumption for Manufacture" {
		t.Errorf("%+v", e)
	}
	q := made(order, "12", "0")
	q.Movements = p.Movements
	if _, early, err := c.Prepare(t.Context(), q); err != nil || early == nil || early.Code != connector.CodeMappingMissing {
		t.Errorf("%+v, %v", early, err)
	}
}

func TestAllowanceOfTheSiteIsEveryOrders(t *testing.T) {
	b := newBench(t, erpnextdouble.Traps{}, erpnextdouble.Options{OverPercent: 30})
	c, order := b.connect(t), b.order(t, "40")
	if o, err := c.Get(t.Context(), order); err != nil || o.OverPercent == nil || !o.OverPercent.Equal(d("30")) {
		t.Errorf("%+v, %v", o.OverPercent, err)
	}
	hidden := newBench(t, erpnextdouble.Traps{HiddenSettings: true}, erpnextdouble.Options{OverPercent: 30})
	c, order = hidden.connect(t), hidden.order(t, "40")
	if o, err := c.Get(t.Context(), order); err != nil || o.OverPercent != nil {
		t.Errorf("an allowance that nobody may read: %v, %v", o.OverPercent, err)
	}
}
