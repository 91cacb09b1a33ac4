package s4_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/s4"
	"github.com/linekeeper/linekeeper/hub/connector/s4/s4double"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

func listed(t *testing.T, c *s4.Connector, order string) []object.Effect {
	t.Helper()
	all, err := c.Effects(t.Context(), order)
	if err != nil {
		t.Fatal(err)
	}
	return all.Documents
}

func byNumber(t *testing.T, all []object.Effect, number string) object.Effect {
	t.Helper()
	i := slices.IndexFunc(all, func(e object.Effect) bool { return e.Number == number })
	if i < 0 {
		t.Fatalf("document %s is not among %+v", number, all)
	}
	return all[i]
}

// What SAP takes by itself beside what the plant reports is marked, and can be taken back without the confirmation.
func TestBackflushIsListedAndTakenBackAlone(t *testing.T) {
	t.Parallel()
	b := newBench(t, s4double.Traps{AlwaysBackflush: true})
	c, order := b.connect(t), b.order(t, "40")
	b.change(t, order, func(o *s4double.Order) { o.Components[0].Backflush = true })
	p := confirmation(order, "8", "0")
	intent, early, err := c.Prepare(t.Context(), p)
	if err != nil || early != nil {
		t.Fatalf("%+v %v", early, err)
	}
	out := c.Post(t.Context(), p, intent)
	settled(t, c, consumption(order, "1", object.Issue))
	e := byNumber(t, listed(t, c, order), out.Document.Number)
	i := slices.IndexFunc(e.Movements, func(m object.EffectMovement) bool { return m.Backflush })
	if i < 0 || e.Movements[i].Item != taken || !e.Movements[i].Value.Equal(d("1")) || strings.Count(e.Movements[i].Document, "/") != 2 || len(e.Movements) != 2 {
		t.Fatalf("the movements are %+v, want the receipt and a backflush of 1 with a number of its own", e.Movements)
	}
	for range 2 {
		out, err := c.ReverseDocument(t.Context(), e.Movements[i].Document, factkey.Random().String())
		if err != nil || out.Result != connector.Posted {
			t.Fatalf("%+v %v", out, err)
		}
	}
	x := b.Totals(order)
	if !x.Yield.Equal(d("8")) || !x.Received.Equal(d("8")) || !x.Issued[taken].Sub(x.Returned[taken]).Equal(d("1")) {
		t.Errorf("the books hold %+v, want 8 made and 1 taken", x)
	}
	net := d("0")
	for _, e := range listed(t, c, order) {
		for _, m := range e.Movements {
			if m.Backflush {
				net = net.Add(m.Value)
				if m.Document != "" {
					t.Errorf("the backflush that was taken back could be taken back once more: %+v", m)
				}
			}
		}
	}
	if !net.IsZero() {
		t.Errorf("the backflush adds up to %s, want 0", net)
	}
}

// Where SAP takes the components, one that it could not take is shown, in the quantity that the parts list asks for.
func TestBackflushThatFailedIsListed(t *testing.T) {
	t.Parallel()
	b := newBench(t, s4double.Traps{})
	c, order := b.connect(t, func(c *s4.Config) { c.Movements = "sap" }), b.order(t, "40")
	b.change(t, order, func(o *s4double.Order) { o.Components[0].Backflush = true })
	settled(t, c, confirmation(order, "8", "0"))
	b.PutStock(taken, plant, place, d("0"))
	ends(t, c, confirmation(order, "4", "4"), "undecided", "COGI")
	var failed []object.EffectMovement
	for _, e := range listed(t, c, order) {
		for _, m := range e.Movements {
			if m.Failed {
				failed = append(failed, m)
			}
		}
	}
	if len(failed) != 1 || failed[0].Item != taken || !failed[0].Value.Equal(d("1")) || failed[0].Kind != object.Consumed || failed[0].Code != "COGI" || failed[0].Unit != "KGM" {
		t.Errorf("%+v failed, want 1 KGM of %s", failed, taken)
	}
}

// A person's cancellation has no text of ours: it is paired by group and quantity. What an operation before the last yields is
// no receipt and lacks none.
func TestCancellationsByHandAndEarlierOperationsAreListed(t *testing.T) {
	t.Parallel()
	b := newBench(t, s4double.Traps{})
	c := b.connect(t)
	order := b.CreateOrder(s4double.Order{Material: maker, Plant: plant, StorageLocation: place, Quantity: d("40"), Released: true, AutomaticReceipt: true,
		Operations: []s4double.Operation{{Number: "0010", WorkCenter: "SAW"}, {Number: "0020", WorkCenter: "ASSEMBLY"}},
		Components: []s4double.Component{{Material: taken, StorageLocation: place, Operation: "0020", Required: d("5")}}})
	var numbers []string
	for i, op := range []string{"0010", "0020", "0020", "0020"} {
		p := confirmation(order, []string{"12", "12", "5", "12"}[i], "0")
		p.Fact.Confirmation.Operation = op
		numbers = append(numbers, settled(t, c, p).Document.Number)
	}
	for _, i := range []int{2, 1} { // the later one first
		if err := b.CancelByHand(numbers[i]); err != nil {
			t.Fatal(err)
		}
	}
	used := settled(t, c, consumption(order, "2.5", object.Issue)).Document.Number
	if err := b.CancelByHand(used); err != nil {
		t.Fatal(err)
	}
	all := listed(t, c, order)
	if len(all) != 8 {
		t.Fatalf("%d documents, want 8: %+v", len(all), all)
	}
	for _, number := range []string{numbers[1], numbers[2], used} {
		old := byNumber(t, all, number)
		if back := byNumber(t, all, old.ReversedBy); back.Reverses != number || !back.Quantities[0].Value.Equal(old.Quantities[0].Value.Neg()) {
			t.Errorf("%+v and %+v are not a pair", old, back)
		}
	}
	if e := byNumber(t, all, numbers[3]); e.ReversedBy != "" || e.Interim {
		t.Errorf("the last confirmation of the last operation is %+v", e)
	}
	if e := byNumber(t, all, numbers[0]); !e.Interim || e.Operation != "0010" || len(e.Movements) != 0 {
		t.Errorf("the confirmation of the first operation is %+v", e)
	}
}

// A reading that ends early without saying so is an error: what it left out would be taken for missing.
func TestListThatIsCutOffIsAnError(t *testing.T) {
	t.Parallel()
	b := newBench(t, s4double.Traps{})
	whole, order := b.connect(t), b.order(t, "40")
	for range 5 {
		settled(t, whole, confirmation(order, "2", "0"))
		settled(t, whole, consumption(order, "0.3", object.Issue))
	}
	for name, cut := range map[string]func(path string, body []byte) []byte{
		"confirmations without a next page": func(path string, body []byte) []byte {
			if strings.Contains(path, "ProdnOrdConf2") {
				return regexp.MustCompile(`"__next":"[^"]*",`).ReplaceAll(body, nil)
			}
			return body
		},
		"items without a next page": func(path string, body []byte) []byte {
			if strings.Contains(path, "A_MaterialDocumentItem") {
				return regexp.MustCompile(`"__next":"[^"]*",`).ReplaceAll(body, nil)
			}
			return body
		},
		"no headers": func(path string, body []byte) []byte {
			if strings.Contains(path, "A_MaterialDocumentHeader") {
				return []byte(`{"d":{"results":[]}}`)
			}
			return body
		},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			req, err := http.NewRequestWithContext(r.Context(), r.Method, b.proxy.URL+r.URL.RequestURI(), r.Body)
			if err != nil {
				t.Error(err)
				return
			}
			req.Header = r.Header.Clone()
			req.Header.Del("Accept-Encoding")
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Error(err)
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(resp.StatusCode)
			w.Write(cut(r.URL.Path, body))
		}))
		t.Cleanup(server.Close)
		c := b.connect(t, func(cfg *s4.Config) { cfg.URL = server.URL })
		if all, err := c.Effects(t.Context(), order); err == nil {
			t.Errorf("%s: %d documents and no error", name, len(all.Documents))
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}

// Numbers of SAP's are taken apart, never guessed: what cancels something is not cancelled itself, and what a fact took back is not
// taken back again.
func TestWhatCannotBeTakenBackIsRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t, s4double.Traps{})
	c, order := b.connect(t), b.order(t, "40")
	p := consumption(order, "2.5", object.Issue)
	doc := settled(t, c, p).Document
	back := p
	back.Fact.Key, back.Fact.Reverses, back.Original = factkey.Random(), p.Fact.Key, &connector.Original{Fact: p.Fact, Document: doc}
	settled(t, c, back)
	conf := settled(t, c, confirmation(order, "3", "0")).Document.Number
	out, err := c.ReverseDocument(t.Context(), conf, factkey.Random().String())
	if err != nil || out.Result != connector.Posted {
		t.Fatalf("%+v %v", out, err)
	}
	held := b.Totals(order)
	for number, code := range map[string]string{doc.Number: "ALREADY_REVERSED", out.Document.Number: "IS_REVERSAL"} {
		no, err := c.ReverseDocument(t.Context(), number, factkey.Random().String())
		if err != nil || no.Result != connector.Rejected || no.Code != code || no.NextStep == "" {
			t.Errorf("document %s: %+v %v, want %s", number, no, err, code)
		}
	}
	for _, number := range []string{"", "1", "1/2/3/4", "999/1", "4900000001/2020", doc.Number + "/9", "a/b"} {
		if no, err := c.ReverseDocument(t.Context(), number, factkey.Random().String()); err == nil {
			t.Errorf("document %q: %+v", number, no)
		}
	}
	if now := b.Totals(order); !now.Issued[taken].Equal(held.Issued[taken]) || now.Confirmations != held.Confirmations || now.Documents != held.Documents {
		t.Errorf("the books went from %+v to %+v", held, now)
	}
}
