package console_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"html"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/hub/api"
	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/console"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/posting"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/wire"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// books is a system without stock, until it is filled up.
type books struct {
	connector.Connector
	stock chan struct{}
}

func (b books) Capabilities() connector.Capabilities {
	return connector.Capabilities{Posts: []object.Kind{object.KindConsumption}, ExternalKey: true, QuantityScale: -1}
}

func (b books) Prepare(context.Context, connector.Posting) ([]byte, *connector.Outcome, error) {
	return []byte("intent"), nil, nil
}

func (b books) Post(context.Context, connector.Posting, []byte) connector.Outcome {
	select {
	case <-b.stock:
		return connector.Outcome{Result: connector.Posted, Document: connector.Document{Number: "4900000001"}}
	default:
		return connector.Outcome{
			Result: connector.Rejected, Class: connector.Correctable, Code: "no_stock", Reason: `item "STEEL" is out of stock <b>now</b>`, NextStep: "fill up the stock, then replay",
		}
	}
}

func (b books) Verify(context.Context, connector.Posting, []byte, connector.Document) (connector.Verification, error) {
	return connector.Verification{Matches: true}, nil
}

// world is a console over the real API, engine and store; it is empty until fill.
type world struct {
	t       *testing.T
	s       *store.Store
	erp     books
	handler http.Handler
	set     func(*http.Request)
}

const secret = "writer-secret"

func newWorld(t *testing.T, tokens ...api.Token) *world {
	t.Helper()
	w := &world{t: t, erp: books{stock: make(chan struct{})}, set: func(*http.Request) {}}
	var err error
	if w.s, err = store.Open(t.Context(), filepath.Join(t.TempDir(), "hub.db"), store.Options{}); err != nil {
		t.Fatal(err)
	}
	engine := posting.New(posting.Options{Store: w.s, Connectors: map[string]connector.Connector{"erp": w.erp}})
	w.handler = console.New(api.New(w.s, engine, api.Options{Tokens: tokens, Now: time.Now}))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- engine.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		w.s.Close()
	})
	return w
}

func (w *world) update(f func(tx *store.Tx) error) {
	w.t.Helper()
	if err := w.s.Update(w.t.Context(), f); err != nil {
		w.t.Fatal(err)
	}
}

func fact(name string, set func(*object.Fact)) object.Fact {
	position := factkey.Position("test", name)
	f := object.Fact{
		Key: factkey.Of(position), Plant: "ulm", Source: "mes", Rule: "r", TimeZone: "UTC", Position: position, OccurredAt: time.Now().UTC(), RecordedAt: time.Now().UTC(),
	}
	set(&f)
	return f
}

var (
	steel = fact("steel", func(f *object.Fact) {
		f.Kind = object.KindConsumption
		f.Consumption = &object.Consumption{OrderNo: "WO/1", Item: "STEEL", Quantity: object.Quantity{Value: decimal.RequireFromString("1.125"), Unit: "KGM"}, Movement: object.Issue}
	})
	held = fact("held", func(f *object.Fact) {
		f.Kind, f.OrderState = object.KindOrderState, &object.ShopFloorState{OrderNo: "WO/1", Revision: 1, State: object.FloorHeld, Reason: "tool broken"}
	})
	lost = fact("lost", func(f *object.Fact) {
		f.Kind = object.KindException
		f.Exception = &object.Exception{Code: "bad_payload", Item: "payload.qty", Reason: "is no number", NextStep: "mend the scale", Excerpt: []byte("<script>alert(1)</script>")}
	})
)

// fill stores an order, a posting that was refused, and something of everything that a person must see to.
func (w *world) fill() {
	w.t.Helper()
	var a store.Agent
	w.update(func(tx *store.Tx) (err error) {
		if a, err = tx.AgentByName("ulm", "line1"); err != nil {
			return err
		}
		if err := tx.Connect(a.ID, "1", "i"); err != nil {
			return err
		}
		for _, no := range []string{"WO/1", "WO-2"} {
			o := store.Order{Agent: "line1", Content: []byte("c"), Order: object.WorkOrder{
				OrderNo: no, ERP: "erp", Plant: "ulm", Revision: 1, State: object.OrderReleased, Item: "P", Quantity: object.Quantity{Value: decimal.NewFromInt(60), Unit: "C62"},
			}}
			if no == "WO-2" {
				o.Agent, o.Order.Plant, o.Unroutable = "", "", `no route leads from site "X"`
			}
			if err := tx.PutOrder(o, true); err != nil {
				return err
			}
			for _, s := range []store.OrderStep{{Step: "RELEASED", Origin: "erp erp"}, {Step: "queued", Origin: "hub", Reason: "ulm/line1"}, {Step: "sent", Origin: "hub"}, {Step: "stored", Origin: "hub"}} {
				s.OrderNo, s.Revision = no, 1
				if err := tx.AddOrderStep(s); err != nil {
					return err
				}
			}
		}
		return tx.RaiseAlarm("ulm/line1", "identity_in_use", "two agents use one certificate", "find the copy")
	})
	if err := w.s.SetStatus(w.t.Context(), a.ID, &pb.AgentStatus{At: timestamppb.Now(), State: "ok", Sources: []*pb.SourceStatus{{Name: "mes", Kind: "mes", State: "ok"}}}); err != nil {
		w.t.Fatal(err)
	}
	b := store.Batch{AgentID: a.ID, Agent: "ulm/line1", Generation: "g", FirstSeq: 1}
	for _, f := range []object.Fact{steel, held, lost} {
		body, err := wire.EncodeFact(f)
		if err != nil {
			w.t.Fatal(err)
		}
		b.Records = append(b.Records, store.Record{Key: f.Key, Body: body})
	}
	b.Records = append(b.Records, store.Record{Body: []byte("\xff"), Fault: "cannot be decoded"})
	if _, err := w.s.AppendFacts(w.t.Context(), []store.Batch{b}); err != nil {
		w.t.Fatal(err)
	}
	w.becomes("parked")
}

func (w *world) becomes(state string) {
	w.t.Helper()
	realparts.Eventually(w.t, 30*time.Second, "the posting", func() error {
		f, err := w.s.FactByKey(w.t.Context(), steel.Key.String())
		if err != nil || f.Posting == nil || string(f.Posting.State) != state {
			return fmt.Errorf("posting %+v, %v; want %s", f.Posting, err, state)
		}
		return nil
	})
}

func (w *world) call(method, path string, form url.Values) *httptest.ResponseRecorder {
	w.t.Helper()
	req := httptest.NewRequestWithContext(w.t.Context(), method, path, strings.NewReader(form.Encode()))
	req.Host = "localhost"
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	w.set(req)
	rec := httptest.NewRecorder()
	w.handler.ServeHTTP(rec, req)
	return rec
}

// page opens a page and checks that its text holds words.
func (w *world) page(path string, names ...string) string {
	w.t.Helper()
	rec := w.call("GET", path, nil)
	if rec.Code != http.StatusOK || !strings.HasPrefix(rec.Header().Get("Content-Type"), "text/html") {
		w.t.Fatalf("%s: %d %v\n%s", path, rec.Code, rec.Header(), rec.Body)
	}
	text := html.UnescapeString(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(rec.Body.String(), ""))
	for _, n := range names {
		if !strings.Contains(text, n) {
			w.t.Errorf("%s does not say %q:\n%s", path, n, text)
		}
	}
	return rec.Body.String()
}

var every = []string{"/", "/orders", "/orders/WO%2F1", "/facts", "/facts?state=parked", "/facts?state=parked&code=no_stock&erp=erp", "/facts/" + steel.Key.String(), "/facts/" + lost.Key.UUID(), "/tally", "/agents", "/settle?kind=alarm&id=1", "/mappings", "/objects", "/objects?kind=invoice", "/writes"}

func TestEmptyHubSaysWhatComesNext(t *testing.T) {
	w := newWorld(t)
	w.page("/", "Everything is accounted for", "Nothing was counted yet", "synchub cert agent", "No work orders yet", "No ERP has been asked yet")
	w.page("/orders", "No work orders yet")
	w.page("/orders?state=HELD", "No work order matches")
	w.page("/facts", "No facts yet")
	w.page("/facts?state=parked", "no posting waits for a person")
	w.page("/facts?state=in_doubt", "the ERP has answered everything")
	w.page("/tally", "all columns agree", "Nothing was counted yet")
	w.page("/agents", "No agent has connected yet")
}

func TestOverviewNamesASystemThatTakesNoPostings(t *testing.T) {
	w := newWorld(t)
	since := time.Now().Add(-time.Hour)
	w.handler = console.New(api.New(w.s, nil, api.Options{Now: time.Now, Health: func() map[string]api.ERPHealth {
		return map[string]api.ERPHealth{"books": {Since: since, Reason: "connection refused", PausedUntil: since.Add(2 * time.Hour)}}
	}}))
	w.page("/", "ERP books takes no postings", "connection refused", "postings then go on by themselves", "not asked yet")
}

func TestOverviewNamesWhatIsStuckSinceWhenWhyAndWhatToDo(t *testing.T) {
	w := newWorld(t)
	w.fill()
	body := w.page("/",
		"need a person", "No quantity is missing",
		"1 posting waits for a person: no stock", `item "STEEL" is out of stock <b>now</b>`, "fill up the stock, then replay", "since ", "Replay these",
		"identity in use", "find the copy",
		"payload.qty", "mend the scale", "<script>alert(1)</script>",
		"cannot be read", "Work order WO-2 goes to no plant", "add a route")
	for _, raw := range []string{"<script", "<b>now</b>"} {
		if strings.Contains(body, raw) {
			t.Errorf("text from outside reached the page as HTML: %s", raw)
		}
	}
	w.page("/facts?state=parked", "1.125 kg of STEEL consumed", "out of stock", "fill up the stock")
}

func TestOverviewOfAWellHubWithADisconnectedPlantSaysWhereToLook(t *testing.T) {
	w := newWorld(t)
	w.update(func(tx *store.Tx) error {
		a, err := tx.AgentByName("ulm", "line1")
		if err == nil {
			err = tx.Connect(a.ID, "1", "i")
		}
		return err
	})
	w.page("/", "Everything is accounted for")
	a, err := w.s.Agent(t.Context(), "ulm", "line1")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.s.Disconnect(t.Context(), a.ID, "i"); err != nil {
		t.Fatal(err)
	}
	w.page("/", "1 thing needs a person", "Agent ulm/line1 is not connected", "plantagent status", "since ")
	w.page("/agents", "not connected", "plantagent status")
	if err := w.s.SetCursorError(t.Context(), "erp", "dial tcp: connection refused"); err != nil {
		t.Fatal(err)
	}
	w.page("/", "ERP erp cannot be read", "connection refused", "go on by themselves")
}

func TestWorkOrderTellsEachStateWithItsTimeInPlainWords(t *testing.T) {
	w := newWorld(t)
	w.fill()
	body := w.page("/orders/WO%2F1", "Work order WO/1", "60 pcs", "ERP erp says: released", "Queued for the plant", "Sent to the plant", "Stored by the plant's agent",
		"Held on the shop floor", "tool broken", "1.125 kg of STEEL consumed")
	_, body, _ = strings.Cut(body, `<ol class="timeline">`)
	timeline, _, _ := strings.Cut(body, "</ol>")
	if steps, times := strings.Count(timeline, "<li"), strings.Count(timeline, "<time datetime="); steps != 5 || times != steps {
		t.Errorf("%d steps with %d times:\n%s", steps, times, timeline)
	}
	w.page("/orders?search=O%2F1", "WO/1")
	w.page("/orders?unroutable=true", "WO-2", `no route leads from site "X"`)
}

func TestParkedPostingShowsReasonNextStepAndAReplayThatWorks(t *testing.T) {
	w := newWorld(t)
	w.fill()
	path := "/facts/" + steel.Key.String()
	body := w.page(path, "1.125 kg of STEEL consumed", "parked", "out of stock", "fill up the stock, then replay", "Refused by the ERP", "code no_stock", "The key was made from")
	if strings.Contains(body, `http-equiv="refresh"`) {
		t.Error("the page renews itself under the hands of whoever writes into its forms")
	}
	form := url.Values{}
	_, rest, _ := strings.Cut(body, `action="/decide"`)
	rest, _, _ = strings.Cut(rest, "</form>")
	if !strings.Contains(rest, "<button>Replay</button>") {
		t.Fatalf("the first form is no replay: %s", rest)
	}
	for _, m := range regexp.MustCompile(`name="(\w+)" value="(\w+)"`).FindAllStringSubmatch(rest, -1) {
		form.Set(m[1], m[2])
	}
	close(w.erp.stock)
	rec := w.call("POST", "/decide", form)
	if rec.Code != http.StatusSeeOther || rec.Header().Get("Location") != path {
		t.Fatalf("replay: %d %v %s", rec.Code, rec.Header(), rec.Body)
	}
	w.becomes("verified")
	w.page(path, "verified", "4900000001", "Taken up again", "Read back from the ERP and found equal")
}

func TestAllPostingsWithOneCodeAreReplayedFromTheOverview(t *testing.T) {
	w := newWorld(t)
	w.fill()
	close(w.erp.stock)
	rec := w.call("POST", "/decide", url.Values{"action": {"replay"}, "code": {"no_stock"}, "erp": {"erp"}})
	if rec.Code != http.StatusSeeOther || rec.Header().Get("Location") != "/" {
		t.Fatalf("replay: %d %v", rec.Code, rec.Header())
	}
	w.becomes("verified")
}

func TestParkedPostingIsSettledWithADocumentAndAReason(t *testing.T) {
	w := newWorld(t)
	w.fill()
	key := steel.Key.String()
	if rec := w.call("POST", "/decide", url.Values{"action": {"accept"}, "key": {key}, "note": {""}}); rec.Code != 422 || !strings.Contains(rec.Body.String(), "note") {
		t.Errorf("settled without a reason: %d", rec.Code)
	}
	rec := w.call("POST", "/decide", url.Values{"action": {"accept"}, "key": {key}, "document": {"4711"}, "note": {"booked by hand"}})
	if rec.Code != http.StatusSeeOther {
		t.Fatalf("settle: %d %s", rec.Code, rec.Body)
	}
	w.page("/facts/"+key, "settled", "4711", "booked by hand", "Settled by a person")
	for _, form := range []url.Values{{}, {"action": {"replay"}}, {"action": {"accept"}}, {"key": {key}}, {"action": {"melt"}, "key": {key}}} {
		if rec := w.call("POST", "/decide", form); rec.Code != http.StatusBadRequest {
			t.Errorf("%v: %d", form, rec.Code)
		}
	}
}

func TestAlarmLeavesTheOverviewWithANote(t *testing.T) {
	w := newWorld(t)
	w.fill()
	body := w.page("/")
	link := regexp.MustCompile(`/settle\?kind=alarm&amp;id=\d+`).FindString(body)
	if link == "" {
		t.Fatalf("no way to settle the alarm:\n%s", body)
	}
	w.page(html.UnescapeString(link), "Settle alarm 1", "What was done about it")
	for _, kind := range []string{"alarm", "exception", "unreadable"} {
		rec := w.call("POST", "/settle", url.Values{"kind": {kind}, "id": {"1"}, "note": {"seen to"}})
		if rec.Code != http.StatusSeeOther || rec.Header().Get("Location") != "/" {
			t.Errorf("settle %s: %d %s", kind, rec.Code, rec.Body)
		}
	}
	if body := w.page("/"); strings.Contains(body, "identity in use") || strings.Contains(body, "payload.qty") || strings.Contains(body, "cannot be read") {
		t.Errorf("settled entries are still there:\n%s", body)
	}
	if rec := w.call("GET", "/settle?kind=melt&id=1", nil); rec.Code != 404 {
		t.Errorf("unknown kind: %d", rec.Code)
	}
}

func TestRefusalOfTheAPIReachesTheBrowserAsSuch(t *testing.T) {
	sum := sha256.Sum256([]byte(secret))
	reader := sha256.Sum256([]byte("reader"))
	w := newWorld(t, api.Token{Name: "planner", SHA256: hex.EncodeToString(sum[:]), Write: true}, api.Token{Name: "board", SHA256: hex.EncodeToString(reader[:])})
	w.fill()
	replay := url.Values{"action": {"replay"}, "key": {steel.Key.String()}}
	for _, path := range every {
		rec := w.call("GET", path, nil)
		if rec.Code != 401 || !strings.HasPrefix(rec.Header().Get("WWW-Authenticate"), "Basic ") || !strings.Contains(rec.Body.String(), "a token is needed") {
			t.Errorf("%s: %d %v", path, rec.Code, rec.Header())
		}
	}
	if rec := w.call("POST", "/decide", replay); rec.Code != 401 {
		t.Errorf("replay without a token: %d", rec.Code)
	}
	w.set = func(r *http.Request) { r.SetBasicAuth("me", "reader") }
	w.page("/", "no stock")
	if rec := w.call("POST", "/decide", replay); rec.Code != 403 || !strings.Contains(rec.Body.String(), "read only") {
		t.Errorf("replay with a token that reads: %d", rec.Code)
	}
	w.set = func(r *http.Request) {
		r.SetBasicAuth("me", secret)
		r.Header.Set("Sec-Fetch-Site", "cross-site")
	}
	if rec := w.call("POST", "/decide", replay); rec.Code != 403 || !strings.Contains(rec.Body.String(), "another site") {
		t.Errorf("replay from another site: %d", rec.Code)
	}
	w.set = func(r *http.Request) { r.SetBasicAuth("me", secret) }
	close(w.erp.stock)
	if rec := w.call("POST", "/decide", replay); rec.Code != http.StatusSeeOther {
		t.Errorf("replay: %d", rec.Code)
	}
	w.becomes("verified")

	w = newWorld(t)
	w.set = func(r *http.Request) { r.Host = "evil.example" }
	if rec := w.call("GET", "/", nil); rec.Code != 403 {
		t.Errorf("under another name: %d", rec.Code)
	}
}

func TestWhatIsNotThereIsNamedUnderItsStatus(t *testing.T) {
	w := newWorld(t)
	for path, x := range map[string]struct {
		code int
		name string
	}{
		"/orders/NOPE": {404, "NOPE"}, "/facts/AAAAAAAAAAAAAAAA": {404, "AAAAAAAAAAAAAAAA"}, "/facts/zz": {422, "zz"}, "/nowhere": {404, "/nowhere"}, "/orders?state=melted": {422, "query.state"},
	} {
		rec := w.call("GET", path, nil)
		if rec.Code != x.code || !strings.Contains(rec.Body.String(), x.name) || !strings.Contains(rec.Body.String(), `<a href="/">`) {
			t.Errorf("%s: %d\n%s", path, rec.Code, rec.Body)
		}
	}
}

func TestPagesNeedNoScriptAndLoadNothingFromElsewhere(t *testing.T) {
	w := newWorld(t)
	w.fill()
	load := regexp.MustCompile(`(?i)<script|<iframe| on\w+=| style=|(src|href|action)="(https?:)?//|@import|url\(`)
	for _, path := range every {
		rec := w.call("GET", path, nil)
		if m := load.FindString(rec.Body.String()); m != "" || rec.Code != 200 {
			t.Errorf("%s: %d %q", path, rec.Code, m)
		}
		h := rec.Header()
		for _, rule := range []string{"default-src 'none'", "style-src 'self'", "form-action 'self'", "frame-ancestors 'none'"} {
			if !strings.Contains(h.Get("Content-Security-Policy"), rule) {
				t.Errorf("%s: policy %q", path, h.Get("Content-Security-Policy"))
			}
		}
		if h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %v", path, h)
		}
		for _, need := range []string{`<html lang="en">`, `name="viewport"`, `aria-label="Pages"`, "<h1", `href="#main"`} {
			if !strings.Contains(rec.Body.String(), need) {
				t.Errorf("%s lacks %s", path, need)
			}
		}
	}
	for _, asset := range []string{"/assets/console.css", "/assets/icon.svg"} {
		rec := w.call("GET", asset, nil)
		if rec.Code != 200 || load.MatchString(rec.Body.String()) {
			t.Errorf("%s: %d", asset, rec.Code)
		}
	}
	css := w.call("GET", "/assets/console.css", nil).Body.String()
	for _, need := range []string{"prefers-color-scheme:dark", ":focus-visible", "max-width:600px"} {
		if !strings.Contains(css, need) {
			t.Errorf("the style lacks %s", need)
		}
	}
	err := fs.WalkDir(os.DirFS("assets"), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && filepath.Ext(name) == ".js" {
			t.Errorf("%s is a script", name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestPageThatRenewsItselfCanBeStopped(t *testing.T) {
	w := newWorld(t)
	body := w.page("/facts?state=parked", "renewed every 10 s", "stop")
	if !strings.Contains(body, `href="/facts?state=parked&amp;still=1"`) || !strings.Contains(body, `http-equiv="refresh"`) {
		t.Errorf("no way to stop it:\n%s", body)
	}
	if body := w.page("/facts?state=parked&still=1"); strings.Contains(body, `http-equiv="refresh"`) {
		t.Error("it goes on")
	}
}

func TestOlderEntriesKeepTheChoice(t *testing.T) {
	w := newWorld(t)
	w.update(func(tx *store.Tx) error {
		for i := range 101 {
			o := store.Order{Agent: "line1", Content: []byte("c"), Order: object.WorkOrder{OrderNo: fmt.Sprintf("A-%03d", i), ERP: "erp", Plant: "ulm", Revision: 1, State: object.OrderReleased}}
			if err := tx.PutOrder(o, true); err != nil {
				return err
			}
		}
		return nil
	})
	body := w.page("/orders?search=A-&state=RELEASED", "A-100", "Older work orders")
	older := regexp.MustCompile(`href="(/orders\?before=[^"]*)"`).FindStringSubmatch(body)
	if older == nil {
		t.Fatal("no way on")
	}
	next := html.UnescapeString(older[1])
	if !strings.Contains(next, "search=A-") || !strings.Contains(next, "state=RELEASED") {
		t.Errorf("the choice is lost: %s", next)
	}
	if body := w.page(next, "A-000"); strings.Contains(body, "A-001") || strings.Contains(body, "Older work orders") {
		t.Error("the last page holds more than it should")
	}
}
