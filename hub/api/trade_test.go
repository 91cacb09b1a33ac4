package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/hub/api"
	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/posting"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/trading"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// trader gives the trader's refusals the API's mark, as the hub does.
type trader struct{ *trading.Trader }

func traded(err error) error {
	switch {
	case errors.Is(err, trading.ErrInvalid):
		return fmt.Errorf("%w: %w", api.ErrInvalid, err)
	case errors.Is(err, trading.ErrOther), errors.Is(err, trading.ErrNotParked):
		return fmt.Errorf("%w: %w", api.ErrConflict, err)
	}
	return err
}

func (t trader) Submit(ctx context.Context, w store.Write) (store.Write, bool, error) {
	stored, known, err := t.Trader.Submit(ctx, w)
	return stored, known, traded(err)
}

func (t trader) Replay(ctx context.Context, key factkey.Key, accept []string, by string) error {
	return traded(t.Trader.Replay(ctx, key, accept, by))
}

func (t trader) Settle(ctx context.Context, key factkey.Key, document, note, by string) error {
	return traded(t.Trader.Settle(ctx, key, document, note, by))
}

func (t trader) WriteAgain(ctx context.Context, key factkey.Key, note, by string) error {
	return traded(t.Trader.WriteAgain(ctx, key, note, by))
}

// trade is a hub's API with a ledger behind it.
type trade struct {
	*world
	erp *connectortest.Ledger
}

func newTrade(t *testing.T, tokens ...api.Token) *trade {
	t.Helper()
	s, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "hub.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	x := &trade{&world{t: t, s: s}, connectortest.NewLedger()}
	connectors := map[string]connector.Connector{"ledger": x.erp}
	engine := posting.New(posting.Options{Store: s, Connectors: connectors})
	tr := trading.New(trading.Options{Store: s, Connectors: connectors, Posting: engine, Writes: []string{"ledger"},
		Mirrors: []trading.Mirror{{ERP: "ledger", Kinds: x.erp.ReadsBusiness(), Every: 50 * time.Millisecond}}})
	x.handler = api.New(s, poster{engine}, api.Options{Version: "test", Tokens: tokens, Now: time.Now, Trader: trader{tr}})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- tr.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		s.Close()
	})
	return x
}

// decoded reads an answer of any status.
func decoded[T any](a answer) (v T) {
	a.t.Helper()
	if err := json.Unmarshal(a.body, &v); err != nil {
		a.t.Fatalf("%s: %v\n%s", a.what, err, a.body)
	}
	return v
}

const purchaseBody = `{"object":{"kind":"purchase_order","purchase_order":{"supplier":"SUP-1","reference":"REQ-7","currency":"EUR","state":"SENT","lines":[
	{"line_no":"10","item":"STEEL","ordered":{"value":"100.50","unit":"KGM"},"price":{"price":{"amount":"2.10","currency":"EUR"},"per":{"value":"1","unit":"KGM"}}}]}}}`

func key(text string) func(*http.Request) { return header("Idempotency-Key", text) }

// reaches waits until a write is in a state.
func (x *trade) reaches(key, state string) (w api.WriteLife) {
	x.t.Helper()
	realparts.Eventually(x.t, 20*time.Second, "write "+key, func() error {
		w = read[api.WriteLife](x.call("GET", "/v1/writes/"+url.PathEscape(key), ""))
		if w.State != state {
			return fmt.Errorf("it is %s (%s): %s", w.State, w.Code, w.Reason)
		}
		return nil
	})
	return w
}

// mirrored waits until the mirror has an object, in a state.
func (x *trade) mirrored(kind, number, state string) (o api.ObjectLife) {
	x.t.Helper()
	path := "/v1/objects/" + kind + "/ledger/" + url.PathEscape(number)
	realparts.Eventually(x.t, 20*time.Second, path, func() error {
		a := x.call("GET", path, "")
		if a.code != http.StatusOK {
			return fmt.Errorf("%d: %s", a.code, a.body)
		}
		if o = read[api.ObjectLife](a); o.State != state {
			return fmt.Errorf("it is %s", o.State)
		}
		return nil
	})
	return o
}

func TestAnObjectIsWrittenThroughTheAPIAndReadBackWithItsRevisions(t *testing.T) {
	x := newTrade(t)
	w := decoded[api.Write](x.call("POST", "/v1/writes", purchaseBody, key("mes1/purchase/4711")).wants(http.StatusAccepted))
	if w.ERP != "ledger" || w.State != "due" || w.By != "local" || len(w.Key) != 16 {
		t.Errorf("a new write is %+v", w)
	}
	life := x.reaches("mes1/purchase/4711", "verified")
	if life.Document != "PO-1" || life.Life[0].Step != "due" || life.Life[0].By != "local" {
		t.Errorf("it ended as %+v", life)
	}
	x.call("POST", "/v1/writes", purchaseBody, key("mes1/purchase/4711")).wants(http.StatusOK, `"verified"`)
	if n := x.erp.Calls("write"); n != 1 {
		t.Errorf("what was wanted twice was sent %d times", n)
	}
	x.call("POST", "/v1/writes", strings.Replace(purchaseBody, "100.50", "101", 1), key("mes1/purchase/4711")).problem(http.StatusConflict, w.Key, "use a new key")

	o := x.mirrored("purchase_order", "PO-1", "SENT")
	if l := o.Object.Purchase.Lines[0]; o.Reference != "REQ-7" || o.Partner != "SUP-1" || !l.Ordered.Value.Equal(decimal.RequireFromString("100.5")) || o.Object.Purchase.ERP != "ledger" {
		t.Errorf("it is read back as %+v", o.Object.Purchase)
	}
	x.call("GET", "/v1/objects/purchase_order/ledger/PO-1", "").wants(http.StatusOK, `"value":"100.5"`, `"amount":"2.1"`, `"changed_at":"20`)
	x.erp.Touch(o.Key, func(b *object.Business) { b.Purchase.State = object.PurchasePartReceived })
	o = x.mirrored("purchase_order", o.Key, "PART_RECEIVED")
	if len(o.Revisions) != 2 || o.Revisions[0].State != "SENT" || o.Revision != 2 {
		t.Errorf("its revisions are %+v", o.Revisions)
	}
	move := `{"key":"mes1/receipt/1","object":{"kind":"shipment","shipment":{"direction":"INBOUND","partner":"SUP-1","state":"DELIVERED","lines":[{"order_no":"PO-1","item":"STEEL","quantity":{"value":"60","unit":"KGM"}}]}}}`
	x.call("POST", "/v1/writes", move).wants(http.StatusAccepted)
	shipment := x.reaches("mes1/receipt/1", "verified").Document
	s := x.mirrored("shipment", shipment, "DELIVERED")
	if len(s.Names) != 1 || s.Names[0] != (api.ObjectLink{Kind: "purchase_order", Number: "PO-1", Key: o.Key, State: "PART_RECEIVED"}) {
		t.Errorf("the receipt names %+v", s.Names)
	}
	if o = x.mirrored("purchase_order", "PO-1", "PART_RECEIVED"); len(o.NamedBy) != 1 || o.NamedBy[0].Number != shipment {
		t.Errorf("the order is named by %+v", o.NamedBy)
	}
	kinds := read[page[api.ObjectKind]](x.call("GET", "/v1/objects", ""))
	if len(kinds.Items) != 5 {
		t.Errorf("the kinds are %+v", kinds.Items)
	}
}

func TestObjectsAreListedByFilterAndPage(t *testing.T) {
	x := newTrade(t)
	start := time.Now().Add(-time.Second)
	for i := range 7 {
		x.erp.Put(object.Business{Kind: object.BusinessSale, Sale: &object.SalesOrder{Customer: fmt.Sprint("C", i%2), Reference: fmt.Sprint("R", i), State: object.SalesDraft}})
	}
	list := func(query string) page[api.BusinessObject] {
		return read[page[api.BusinessObject]](x.call("GET", "/v1/objects/sales_order?"+query, ""))
	}
	realparts.Eventually(t, 20*time.Second, "seven sales", func() error {
		if n := len(list("").Items); n != 7 {
			return fmt.Errorf("%d are listed", n)
		}
		return nil
	})
	for query, want := range map[string]int{"erp=ledger": 7, "erp=other": 0, "number=SO-3": 1, "reference=R3": 1, "partner=C0": 4, "state=DRAFT": 7, "state=CONFIRMED": 0,
		"changed_since=" + url.QueryEscape(start.Format(time.RFC3339)): 7, "changed_since=2999-01-01T00:00:00Z": 0} {
		if n := len(list(query).Items); n != want {
			t.Errorf("%s lists %d, want %d", query, n, want)
		}
	}
	var seen []int64
	for next := int64(0); ; {
		p := list(fmt.Sprintf("limit=3&before=%d", next))
		for _, o := range p.Items {
			seen = append(seen, o.Seq)
		}
		if next = p.Next; next == 0 {
			break
		}
	}
	if len(seen) != 7 {
		t.Errorf("pages list %v", seen)
	}
	follow := list(fmt.Sprintf("limit=3&after=%d", seen[6]))
	if len(follow.Items) != 3 || follow.Items[0].Seq != seen[5] || follow.Next != follow.Items[2].Seq {
		t.Errorf("what follows %d is %+v", seen[6], follow)
	}
	x.call("GET", "/v1/objects/sales_order/ledger/NONE", "").problem(http.StatusNotFound, "NONE", "hub.yaml")
	x.call("GET", "/v1/objects/thing", "").problem(http.StatusUnprocessableEntity)
}

func TestAWriteThatIsNotValidIsRefusedWithItsField(t *testing.T) {
	x := newTrade(t)
	for change, want := range map[[2]string][]string{
		{`"100.50"`, `100.50`}:                             {"body.object.purchase_order.lines[0].ordered.value", "string"},
		{`"100.50"`, `"1e9"`}:                              {"body.object.purchase_order.lines[0].ordered.value", "pattern"},
		{`"supplier"`, `"suplier"`}:                        {"body.object.purchase_order.suplier", "unexpected"},
		{`"SENT"`, `"BOUGHT"`}:                             {"object.purchase_order.state", "DRAFT, SENT"},
		{`"100.50"`, `"0"`}:                                {"object.purchase_order", `line "10"`, "above zero"},
		{`{"object"`, `{"erp":"sap","object"`}:             {"erp", `"sap"`, "ledger"},
		{`"kind":"purchase_order"`, `"kind":"x"`}:          {"body.object.kind"},
		{`{"object"`, `{"key":"other-key","object"`}:       {"Idempotency-Key", "differ"},
		{`{"object"`, `{"posting_date":"26.11.","object"`}: {"posting_date", "2026-11-26"},
	} {
		body := strings.Replace(purchaseBody, change[0], change[1], 1)
		x.call("POST", "/v1/writes", body, key("mes1/bad/1")).problem(http.StatusUnprocessableEntity, want...)
	}
	x.call("POST", "/v1/writes", purchaseBody).problem(http.StatusUnprocessableEntity, "Idempotency-Key")
	x.call("POST", "/v1/writes", purchaseBody, key("short")).problem(http.StatusUnprocessableEntity, "short", "8 to 200")
	if all := read[page[api.Write]](x.call("GET", "/v1/writes", "")); len(all.Items) != 0 {
		t.Errorf("what was refused is stored: %+v", all.Items)
	}
	x.call("GET", "/v1/writes/never-wanted", "").problem(http.StatusNotFound, "never-wanted")
}

func TestAParkedWriteIsInTheInboxWithItsEvidenceAndIsReplayedOrSettled(t *testing.T) {
	x := newTrade(t, token("reader", reader, false), token("writer", writer, true))
	asWriter, asReader := header("Authorization", "Bearer "+writer), header("Authorization", "Bearer "+reader)
	call := x.call
	refuses := make(chan struct{})
	x.erp.Mishaps(func(c string, _ connector.Write) connectortest.Mishap {
		select {
		case <-refuses:
		default:
			if c == "write" {
				return connectortest.Refuses
			}
		}
		return connectortest.NoMishap
	})
	call("POST", "/v1/writes", purchaseBody, key("mes1/purchase/1"), asReader).problem(http.StatusForbidden, "read only")
	var inbox page2
	parked := func(n int) {
		realparts.Eventually(t, 20*time.Second, "parked writes", func() error {
			inbox = read[page2](call("GET", "/v1/inbox?kind=write", "", asReader))
			if len(inbox.Items) != n {
				return fmt.Errorf("%d are in the inbox, want %d", len(inbox.Items), n)
			}
			return nil
		})
	}
	call("POST", "/v1/writes", purchaseBody, key("mes1/purchase/1"), asWriter).wants(http.StatusAccepted, `"by":"writer"`)
	parked(1) // so that it is the older one
	call("POST", "/v1/writes", purchaseBody, key("mes1/purchase/2"), asWriter).wants(http.StatusAccepted)
	parked(2)
	e := inbox.Items[0]
	if !strings.Contains(e.What, "purchase order REQ-7 of SUP-1 to be sent: waits for a person") || e.Owner != "planning" || e.Stock[0].Quantity != "100.5" || e.Code != "stopped" || e.Proposed == "" {
		t.Errorf("it stands in the inbox as %+v", e)
	}
	full := read[api.InboxEntryLife](call("GET", "/v1/inbox/"+e.Ref, "", asReader))
	if n := len(full.Steps); n < 2 || full.Steps[0].By != "writer" || full.Steps[n-1].Step != "rejected" {
		t.Errorf("its evidence is %+v", full)
	}
	call("POST", "/v1/inbox/"+e.Ref+"/assign", `{"person":"anna","note":"hers"}`, asWriter).wants(http.StatusOK)
	call("POST", "/v1/writes/"+e.Write+"/replay", `{}`, asReader).problem(http.StatusForbidden, "read only")
	call("POST", "/v1/writes/"+inbox.Items[1].Write+"/settle", `{"note":"done by hand","document":"X-1"}`, asWriter).wants(http.StatusOK)
	close(refuses)
	call("POST", "/v1/writes/"+e.Write+"/replay", `{"accept":["future_date"]}`, asWriter).wants(http.StatusOK)
	realparts.Eventually(t, 20*time.Second, "the replayed write", func() error {
		w := read[api.WriteLife](call("GET", "/v1/writes/"+e.Write, "", asReader))
		if w.State != "verified" {
			return fmt.Errorf("it is %s", w.State)
		}
		return nil
	})
	settled := read[api.WriteLife](call("GET", "/v1/writes/mes1%2Fpurchase%2F2", "", asReader))
	if settled.State != "settled" || settled.Document != "X-1" || settled.Life[len(settled.Life)-1].By != "writer" {
		t.Errorf("the settled write is %+v", settled)
	}
	call("POST", "/v1/writes/"+e.Write+"/replay", `{}`, asWriter).problem(http.StatusConflict, "not parked")
	call("POST", "/v1/writes/"+e.Write+"/write-again", `{"note":"looked"}`, asWriter).problem(http.StatusConflict, "not parked")
}

type page2 struct {
	Items []api.InboxEntry
	Next  string
}
