package api_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/hub/api"
	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/posting"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/wire"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// books is a system that posts everything but the item "GONE", which is out of stock until it is filled up.
type books struct {
	connector.Connector
	stock chan struct{} // closed when there is stock again
}

func (b books) Capabilities() connector.Capabilities {
	return connector.Capabilities{
		System: "books", Posts: []object.Kind{object.KindConfirmation, object.KindConsumption}, ExternalKey: true, QuantityScale: -1,
	}
}

func (b books) Prepare(context.Context, connector.Posting) ([]byte, *connector.Outcome, error) {
	return []byte("intent"), nil, nil
}

func (b books) Post(_ context.Context, p connector.Posting, _ []byte) connector.Outcome {
	if c := p.Fact.Consumption; c != nil && c.Item == "GONE" {
		select {
		case <-b.stock:
		default:
			return connector.Outcome{
				Result: connector.Rejected, Class: connector.Correctable, Code: "no_stock",
				Reason: `item "GONE" is out of stock`, NextStep: "fill up the stock, then replay",
			}
		}
	}
	return connector.Outcome{Result: connector.Posted, Document: connector.Document{Number: "D-" + p.Fact.Key.String()[:4]}}
}

func (b books) Verify(context.Context, connector.Posting, []byte, connector.Document) (connector.Verification, error) {
	return connector.Verification{Matches: true}, nil
}

// poster gives the engine's refusals the API's mark, as the hub does.
type poster struct{ *posting.Engine }

func mark(err error) error {
	if errors.Is(err, posting.ErrNotParked) || errors.Is(err, posting.ErrNotNow) || errors.Is(err, posting.ErrNotHeld) {
		return fmt.Errorf("%w: %w", api.ErrConflict, err)
	}
	return err
}

func (p poster) ReplayFact(ctx context.Context, key, by string) error {
	return mark(p.Engine.ReplayFact(ctx, key, by))
}

func (p poster) Accept(ctx context.Context, key, document, note, by string) error {
	return mark(p.Engine.Accept(ctx, key, document, note, by))
}

func (p poster) Approve(ctx context.Context, key, date, note, by string) error {
	return mark(p.Engine.Approve(ctx, key, date, note, by))
}

func (p poster) PostAgain(ctx context.Context, key, note, by string) error {
	return mark(p.Engine.PostAgain(ctx, key, note, by))
}

func (p poster) Correct(ctx context.Context, key string, want store.Values, note, by string) error {
	return mark(p.Engine.Correct(ctx, key, want, note, by))
}

func (p poster) Reverse(ctx context.Context, key, note, by string) error {
	return mark(p.Engine.Reverse(ctx, key, note, by))
}

// world is a store with everything in it that the API can show, and the engine at work.
type world struct {
	t       *testing.T
	s       *store.Store
	erp     books
	engine  *posting.Engine
	tokens  []api.Token
	handler http.Handler
	agent   store.Agent

	good, gone, lost, unknown object.Fact
}

const (
	reader = "reader-secret"
	writer = "writer-secret"
)

func token(name, secret string, write bool) api.Token {
	sum := sha256.Sum256([]byte(secret))
	return api.Token{Name: name, SHA256: hex.EncodeToString(sum[:]), Write: write}
}

func newWorld(t *testing.T, tokens ...api.Token) *world {
	t.Helper()
	w := &world{t: t, tokens: tokens, erp: books{stock: make(chan struct{})}}
	var err error
	if w.s, err = store.Open(t.Context(), filepath.Join(t.TempDir(), "hub.db"), store.Options{}); err != nil {
		t.Fatal(err)
	}
	w.engine = posting.New(posting.Options{Store: w.s, Connectors: map[string]connector.Connector{"erp": w.erp}})
	w.handler = api.New(w.s, poster{w.engine}, api.Options{Version: "test", Tokens: tokens, Now: time.Now})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.engine.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		w.s.Close()
	})
	w.fill()
	return w
}

func (w *world) update(f func(tx *store.Tx) error) {
	w.t.Helper()
	if err := w.s.Update(w.t.Context(), f); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) fill() {
	w.t.Helper()
	d := decimal.RequireFromString
	w.update(func(tx *store.Tx) (err error) {
		if w.agent, err = tx.AgentByName("ulm", "line1"); err != nil {
			return err
		}
		if err := tx.Connect(w.agent.ID, "1.2.3", "i1"); err != nil {
			return err
		}
		for i, no := range []string{"100", "101", "102"} {
			o := object.WorkOrder{
				OrderNo: no, ERP: "erp", ERPKey: "K" + no, Plant: "ulm", Revision: 1, State: object.OrderReleased, Item: "P", ItemDescription: "Part",
				Quantity: object.Quantity{Value: d("60.50"), Unit: "C62"}, RevisedAt: time.Now(),
				Operations: []object.Operation{{Operation: "0010", Quantity: object.Quantity{Value: d("60.5"), Unit: "C62"}}},
				Components: []object.Component{{Item: "STEEL", Required: object.Quantity{Value: d("7.25"), Unit: "KGM"}, Operation: "0010"}},
			}
			agent, why := "line1", ""
			if i == 2 {
				o.Plant, agent, why = "", "", `no route leads from site "X" to a plant`
			}
			if err := tx.PutOrder(store.Order{Order: o, Agent: agent, Unroutable: why, Content: []byte("c")}, true); err != nil {
				return err
			}
			if err := tx.AddOrderStep(store.OrderStep{OrderNo: no, Step: "RELEASED", Revision: 1, Origin: "erp erp"}); err != nil {
				return err
			}
		}
		if err := tx.SetCursor("erp", "c1"); err != nil {
			return err
		}
		return tx.RaiseAlarm("ulm/line1", "identity_in_use", "two agents use one certificate", "find the copy")
	})
	now := timestamppb.Now()
	if err := w.s.SetStatus(w.t.Context(), w.agent.ID, &pb.AgentStatus{
		At: now, State: "degraded", Reason: "a source does not answer", BusinessPending: 3, OldestPending: now,
		Sources: []*pb.SourceStatus{{Name: "press", Kind: "opcua", State: "failed", Reason: "no route to host", Since: now, Problems: []string{"tag x"}}},
		Ledger:  []*pb.LedgerRow{{Source: "press", OrderNo: "100", Operation: "0010", Item: "P", Kind: "yield", Unit: "C62", Counted: "12.5", Stored: "10.5"}},
	}); err != nil {
		w.t.Fatal(err)
	}
	w.good = fact(object.KindConfirmation, "good")
	w.good.Confirmation = &object.Confirmation{
		OrderNo: "100", Operation: "0010", Item: "P", Unit: "C62", Yield: d("10.5"), Scrap: d("0.25"),
		CounterRange: &object.CounterRange{Tag: "good", Epoch: "e1", From: d("0"), To: d("10.75")},
	}
	w.good.Shift, w.good.ShiftDate, w.good.PostingDate = "night", "2026-03-01", "2026-03-01"
	w.good.Confirmation.ScrapReason, w.good.Confirmation.ScrapReasonText, w.good.Confirmation.Serial = "S17", "burr", "0042"
	w.gone = fact(object.KindConsumption, "gone")
	w.gone.Consumption = &object.Consumption{OrderNo: "100", Item: "GONE", Quantity: object.Quantity{Value: d("1.125"), Unit: "KGM"}, Movement: object.Issue}
	w.unknown = fact(object.KindConfirmation, "unknown")
	w.unknown.Confirmation = &object.Confirmation{OrderNo: "999", Item: "P", Unit: "C62", Yield: d("1")}
	w.lost = fact(object.KindException, "lost")
	w.lost.Exception = &object.Exception{Code: "bad_payload", Item: "payload.qty", Reason: `"x" is no number`, NextStep: "mend the scale", Excerpt: []byte(`{"qty":"x"}`)}
	state := fact(object.KindOrderState, "started")
	state.OrderState = &object.ShopFloorState{OrderNo: "100", Revision: 1, State: object.FloorStarted}
	quality := fact(object.KindQuality, "quality")
	quality.Quality = &object.Quality{OrderNo: "100", Item: "P", Lot: "L1", Status: "BLOCKED", Quantity: object.Quantity{Value: d("2"), Unit: "C62"}}
	other := w.good
	c := *w.good.Confirmation
	c.Yield, c.CounterRange = d("11"), nil
	other.Confirmation = &c

	var records []store.Record
	for _, f := range []object.Fact{w.good, w.gone, w.unknown, w.lost, state, quality, other} {
		body, err := wire.EncodeFact(f)
		if err != nil {
			w.t.Fatal(err)
		}
		records = append(records, store.Record{Key: f.Key, Body: body})
	}
	records = append(records, store.Record{Body: []byte("\xff\xff"), Fault: "cannot be decoded"})
	if _, err := w.s.AppendFacts(w.t.Context(), []store.Batch{{AgentID: w.agent.ID, Agent: "ulm/line1", Generation: "g", FirstSeq: 1, Records: records}}); err != nil {
		w.t.Fatal(err)
	}
	w.becomes(w.good, "verified")
	w.becomes(w.gone, "parked")
	w.becomes(w.unknown, "parked")
	w.becomes(quality, "not_posted")
}

func fact(kind object.Kind, name string) object.Fact {
	position := factkey.Position("test", name)
	now := time.Now().In(time.FixedZone("", 3600)).Truncate(time.Second)
	return object.Fact{
		Key: factkey.Of(position), Kind: kind, Plant: "ulm", Source: "press", Rule: "r", TimeZone: "Europe/Berlin", Position: position,
		OccurredAt: now, RecordedAt: now, Equipment: "ulm/hall1/press1",
	}
}

// becomes waits until a fact's posting is in a state.
func (w *world) becomes(f object.Fact, state string) {
	w.t.Helper()
	realparts.Eventually(w.t, 20*time.Second, "posting of "+f.Position, func() error {
		x, err := w.s.FactByKey(w.t.Context(), f.Key.String())
		if err != nil {
			return err
		}
		if x.Posting == nil || string(x.Posting.State) != state {
			return fmt.Errorf("posting is %+v, want %s", x.Posting, state)
		}
		return nil
	})
}

// answer is what came back.
type answer struct {
	t    *testing.T
	what string
	code int
	head http.Header
	body []byte
}

// call asks under the name localhost; set changes the request.
func (w *world) call(method, path, body string, set ...func(*http.Request)) answer {
	w.t.Helper()
	req := httptest.NewRequestWithContext(w.t.Context(), method, path, strings.NewReader(body))
	req.Host = "localhost:8080"
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, f := range set {
		f(req)
	}
	rec := httptest.NewRecorder()
	w.handler.ServeHTTP(rec, req)
	return answer{w.t, method + " " + path, rec.Code, rec.Header(), rec.Body.Bytes()}
}

func header(k, v string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(k, v) }
}

func host(name string) func(*http.Request) {
	return func(r *http.Request) { r.Host = name }
}

// wants checks the status and that the text names something.
func (a answer) wants(code int, names ...string) answer {
	a.t.Helper()
	if a.code != code {
		a.t.Fatalf("%s: status %d, want %d\n%s", a.what, a.code, code, a.body)
	}
	for _, n := range names {
		if !bytes.Contains(a.body, []byte(n)) {
			a.t.Errorf("%s: %q is not in\n%s", a.what, n, a.body)
		}
	}
	return a
}

// problem checks that an error is a problem document whose sentence names something.
func (a answer) problem(code int, names ...string) {
	a.t.Helper()
	a.wants(code)
	var p struct {
		Status        int
		Title, Detail string
		Errors        []struct{ Message, Location string }
	}
	if err := json.Unmarshal(a.body, &p); err != nil || p.Status != code || p.Title == "" || p.Detail == "" {
		a.t.Errorf("%s: not a problem document (%v): %s", a.what, err, a.body)
	}
	if got := a.head.Get("Content-Type"); got != "application/problem+json" {
		a.t.Errorf("%s: content type %q", a.what, got)
	}
	text := p.Detail
	for _, e := range p.Errors {
		text += " " + e.Message + " " + e.Location
	}
	for _, n := range names {
		if !strings.Contains(text, n) {
			a.t.Errorf("%s: the problem does not name %q: %s", a.what, n, text)
		}
	}
}

// read decodes the answer, strictly: a field that the type does not know is an error.
func read[T any](a answer) (v T) {
	a.t.Helper()
	a.wants(http.StatusOK)
	d := json.NewDecoder(bytes.NewReader(a.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		a.t.Fatalf("%s: %v\n%s", a.what, err, a.body)
	}
	return v
}

type page[T any] struct {
	Items []T
	Next  int64
}
