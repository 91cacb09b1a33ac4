package oracle_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/connector/oracle"
	"github.com/linekeeper/linekeeper/hub/connector/oracle/oracledouble"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

func confirmation(order, yield, scrap string) connector.Posting {
	now := time.Now().UTC()
	return connector.Posting{PostingDate: now.Truncate(24 * time.Hour), Attempt: 1, Fact: object.Fact{Key: factkey.Random(), Kind: object.KindConfirmation, OccurredAt: now, TimeZone: "UTC",
		Confirmation: &object.Confirmation{OrderNo: order, Item: maker, Unit: "C62", Yield: d(yield), Scrap: d(scrap)}}}
}

// The answer is lost where others post too and nothing can be searched: a person decides, whatever became of it.
func TestOthersPostTooSoNobodyCanTell(t *testing.T) {
	b := newBench(t, oracledouble.Traps{NoCompletedRead: true})
	c := b.connect(t, func(c *oracle.Config) { c.Lookup, c.SingleWriter = "totals", false })
	for _, f := range []connectortest.Fault{connectortest.LoseReply, connectortest.LoseRequest} {
		order := b.order(t, "40")
		b.proxy.Arm(f, 2) // the order is read first
		x := connectortest.Drive(t.Context(), c, confirmation(order, "12", "0"), 10*time.Second)
		if !b.proxy.Fired() || x.End != connectortest.Undecided || x.Attempts != 1 || x.Lookups != 1 {
			t.Errorf("%s: ended %s after %d attempts and %d look-ups, want undecided after one of each: %v", f, x.End, x.Attempts, x.Lookups, x.Why)
		}
	}
	order := b.order(t, "40")
	if x := connectortest.Drive(t.Context(), c, confirmation(order, "12", "0"), 10*time.Second); x.End != connectortest.Settled {
		t.Errorf("a posting whose answer came ended %s: %v", x.End, x.Why)
	}
}

// Somebody completes pieces by hand while the answer is lost: the totals fit nothing, and the connector does not pretend.
func TestTotalsThatFitNothingAreForAPerson(t *testing.T) {
	b := newBench(t, oracledouble.Traps{})
	c := b.connect(t, func(c *oracle.Config) { c.Lookup = "totals" })
	order := b.order(t, "40")
	p := confirmation(order, "12", "0")
	intent, early, err := c.Prepare(t.Context(), p)
	if err != nil || early != nil {
		t.Fatal(early, err)
	}
	b.PostByHand(order, d("5"))
	f, err := c.Lookup(t.Context(), p, intent)
	if err != nil || f.Presence != connector.CannotTell || !strings.Contains(f.Reason, order) {
		t.Errorf("look-up found %+v, %v; want cannot tell, naming the order", f, err)
	}
}

// A late request after Absent, when somebody also completed by hand: it is parked and not posted again.
func TestRequestTakenForLostAndTotalsMovedIsParked(t *testing.T) {
	b := newBench(t, oracledouble.Traps{})
	c := b.connect(t, func(c *oracle.Config) { c.Lookup = "totals"; c.AbsentAfter = settle })
	order := b.order(t, "40")
	p := confirmation(order, "12", "0")
	intent, _, err := c.Prepare(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		f, err := c.Lookup(t.Context(), p, intent)
		if err != nil || time.Now().After(deadline) {
			t.Fatal(f, err)
		}
		if f.Presence == connector.Absent {
			break
		}
	}
	b.PostByHand(order, d("5"))
	_, early, err := c.Prepare(t.Context(), p)
	if err != nil || early == nil || early.Code != "TOTALS_MOVED" || early.Class != connector.Correctable {
		t.Errorf("prepared again as %+v, %v; want rejected as TOTALS_MOVED", early, err)
	}
}

func TestNothingIsPostedWhileTheSearchIsRefused(t *testing.T) {
	b := newBench(t, oracledouble.Traps{NoCompletedRead: true})
	c := b.connect(t)
	order := b.order(t, "40")
	if _, early, err := c.Prepare(t.Context(), confirmation(order, "12", "0")); err == nil || early != nil {
		t.Errorf("prepared as %+v, %v; want an error", early, err)
	}
	if got := b.Totals(order, taken).Requests; got != 0 {
		t.Errorf("%d requests were booked", got)
	}
}

// A hub whose database was put back finds by reference what it posted.
func TestHubThatForgotFindsByReference(t *testing.T) {
	b := newBench(t, oracledouble.Traps{})
	c := b.connect(t)
	order := b.order(t, "40")
	p := confirmation(order, "12", "1")
	first := connectortest.Drive(t.Context(), c, p, 10*time.Second)
	connectortest.Drive(t.Context(), c, confirmation(order, "5", "0"), 10*time.Second)
	second := connectortest.Drive(t.Context(), b.connect(t), p, 10*time.Second)
	if first.End != connectortest.Settled || second.End != connectortest.Settled || first.Document != second.Document || second.Attempts != 0 {
		t.Errorf("ended %s as %+v, then %s as %+v after %d attempts", first.End, first.Document, second.End, second.Document, second.Attempts)
	}
	if x := b.Totals(order, taken); !x.Completed.Equal(d("17")) || !x.Scrapped.Equal(d("1")) {
		t.Errorf("the order holds %s and %s", x.Completed, x.Scrapped)
	}
}

// One unmapped unit stops its order by name and no neighbour.
func TestUnknownUnitStopsItsOrderOnly(t *testing.T) {
	b := newBench(t, oracledouble.Traps{})
	good := b.order(t, "40")
	bad := b.CreateOrder(oracledouble.Order{Organization: "M1", Item: maker, Unit: "Dozen", Status: "ORA_RELEASED", Quantity: d("2")})
	ch, err := b.connect(t).ListChanged(t.Context(), "")
	if err != nil || len(ch.Orders) != 1 || ch.Orders[0].OrderNo != good || len(ch.Unreadable) != 1 || ch.Unreadable[0].OrderNo != bad || !strings.Contains(ch.Unreadable[0].Reason, `"Dozen"`) {
		t.Errorf("changes are %+v, %v", ch, err)
	}
}

func TestWhatOracleHasNoPlaceForIsRefused(t *testing.T) {
	b := newBench(t, oracledouble.Traps{})
	c := b.connect(t)
	order := b.CreateOrder(oracledouble.Order{Organization: "M1", Item: maker, Unit: "Ea", Status: "ORA_RELEASED", Quantity: d("40"),
		Operations: []oracledouble.Operation{{Sequence: 10}, {Sequence: 20}},
		Components: []oracledouble.Component{{Item: taken, Unit: "KG", Operation: 10, Required: d("5"), Supply: "OPERATION_PULL"}}})
	pulled := confirmation(order, "1", "0")
	pulled.Fact.Confirmation, pulled.Fact.Consumption = nil, &object.Consumption{OrderNo: order, Item: taken, Movement: object.Issue, Quantity: object.Quantity{Value: d("1"), Unit: "KGM"}}
	for code, change := range map[string]func(*object.Confirmation){
		"LOT":       func(c *object.Confirmation) { c.Lot = "L1" },
		"REWORK":    func(c *object.Confirmation) { c.Rework = d("1") },
		"OPERATION": func(*object.Confirmation) {}, // which of two
		"ITEM":      func(c *object.Confirmation) { c.Item = "OTHER" },
		"NOTHING":   func(c *object.Confirmation) { c.Yield = d("0") },
	} {
		p := confirmation(order, "1", "0")
		change(p.Fact.Confirmation)
		if _, early, err := c.Prepare(t.Context(), p); err != nil || early == nil || early.Code != code || early.Class != connector.Fatal || early.NextStep == "" {
			t.Errorf("want %s, got %+v, %v", code, early, err)
		}
	}
	if _, early, err := c.Prepare(t.Context(), pulled); err != nil || early == nil || early.Code != "BACKFLUSHED" {
		t.Errorf("material that Oracle takes by itself: %+v, %v", early, err)
	}
}

// Exact numbers: a quantity with many digits goes out and comes back as it is.
func TestQuantitiesKeepTheirText(t *testing.T) {
	b := newBench(t, oracledouble.Traps{})
	c := b.connect(t)
	order := b.order(t, "123456789012345.678901")
	p := confirmation(order, "123456789012345.678901", "0")
	var sent string
	b.proxy.Watch(func(body []byte) {
		if len(body) > 0 {
			sent = string(body)
		}
	})
	if x := connectortest.Drive(t.Context(), c, p, 10*time.Second); x.End != connectortest.Settled {
		t.Fatalf("ended %s: %v", x.End, x.Why)
	}
	if !strings.Contains(sent, `"TransactionQuantity":123456789012345.678901`) {
		t.Errorf("sent %s", sent)
	}
	if !b.Totals(order, taken).Completed.Equal(d("123456789012345.678901")) {
		t.Errorf("booked %s", b.Totals(order, taken).Completed)
	}
}

func TestConfigurationIsChecked(t *testing.T) {
	good := oracle.Config{URL: "https://x.example.com", User: "u", Password: "p", SourceSystem: "S"}
	for want, change := range map[string]func(*oracle.Config){
		"url":           func(c *oracle.Config) { c.URL = "x" },
		"user":          func(c *oracle.Config) { c.User = "" },
		"source_system": func(c *oracle.Config) { c.SourceSystem = "" },
		"lookup":        func(c *oracle.Config) { c.Lookup = "luck" },
		"absent_after":  func(c *oracle.Config) { c.AbsentAfter = time.Second },
		"page_size":     func(c *oracle.Config) { c.PageSize = 500 },
		"messages":      func(c *oracle.Config) { c.Messages = map[string]string{"X": "soon"} },
	} {
		cfg := good
		change(&cfg)
		if _, err := oracle.New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error that names %s, got %v", want, err)
		}
	}
}

// FuzzAnswer gives any text as Oracle's answer to a posting: it is taken for posted only where Oracle says that no errors exist.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{`{"ErrorsExistFlag":"false"}`, `{"ErrorsExistFlag":false,"OperationTransactionDetail":[{"InvTransactionId":30010000000001}]}`,
		`{"ErrorsExistFlag":"true","OperationTransactionDetail":[{"ErrorMessages":"no","ErrorMessageNames":"A,B"}]}`, `{}`, ``, `<html>`, `[]`, `{"ErrorsExistFlag":null}`} {
		f.Add(s)
	}
	b := newBench(f, oracledouble.Traps{})
	order := b.order(f, "40")
	p := confirmation(order, "1", "0")
	c := b.connect(f)
	intent, _, err := c.Prepare(f.Context(), p)
	if err != nil {
		f.Fatal(err)
	}
	var in map[string]any
	if err := json.Unmarshal(intent, &in); err != nil {
		f.Fatal(err)
	}
	in["at"] = time.Now().Add(24 * time.Hour)
	intent, _ = json.Marshal(in)
	var text string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) }))
	f.Cleanup(server.Close)
	c = b.connect(f, func(c *oracle.Config) { c.URL = server.URL })
	f.Fuzz(func(t *testing.T, answer string) {
		text = answer
		out := c.Post(t.Context(), p, intent)
		if !slices.Contains([]connector.Result{connector.Posted, connector.Rejected, connector.InDoubt}, out.Result) {
			t.Errorf("result is %q", out.Result)
		}
		if out.Result == connector.Posted && (!strings.Contains(strings.ToLower(answer), "false") || out.Document.Number == "") {
			t.Errorf("%q was taken for posted as %+v", answer, out)
		}
		if out.Result == connector.Rejected && !strings.Contains(strings.ToLower(answer), "true") {
			t.Errorf("%q was taken for rejected as %+v", answer, out)
		}
	})
}
