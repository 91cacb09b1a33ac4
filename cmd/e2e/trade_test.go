package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/api"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// writeStep is how the steps of a write of a business object begin.
const writeStep = "write: "

// tradeBooks is a real Tryton of which everything that may change something can go wrong.
type tradeBooks struct{ *trytonBooks }

var tradeAsks = regexp.MustCompile(`"method":"(model\.[^"]*\.(read|search|search_read|search_count|fields_get|on_change|get_preferences)|common\.[^"]*)"`)

func (b tradeBooks) effect(_ *http.Request, body []byte) bool {
	return bytes.Contains(body, []byte(`"method":"model.`)) && !tradeAsks.Match(body)
}

// deal is a chain of writes of a caller that keeps its keys: each is wanted until it is verified, then comes the next.
type deal struct {
	name  string
	steps []func(d *deal) object.Business
	// documents are the numbers of what was made so far, writes the keys.
	documents []string
	writes    []string
}

func amount(value, unit string) object.Quantity {
	return object.Quantity{Value: decimal.RequireFromString(value), Unit: unit}
}

func costs(value, unit string) object.UnitPrice {
	return object.UnitPrice{Price: object.Money{Amount: decimal.RequireFromString(value), Currency: "EUR"}, Per: amount("1", unit)}
}

func (d *deal) day() string { return time.Now().UTC().Format(time.DateOnly) }

// bought is a purchase: made as a draft, confirmed, 60 of 100 received.
func bought(name string) *deal {
	return &deal{name: name, steps: []func(d *deal) object.Business{
		func(d *deal) object.Business {
			return object.Business{Kind: object.BusinessPurchase, Purchase: &object.PurchaseOrder{Reference: d.name, Supplier: "SUP-1", Currency: "EUR", ShipTo: "WH", OrderDate: d.day(),
				ReceiptBasedInvoicing: true, State: object.PurchaseDraft, Lines: []object.PurchaseLine{{LineNo: "10", Item: "RM-STEEL", Ordered: amount("100", "KGM"), Price: costs("2.10", "KGM")}}}}
		},
		func(d *deal) object.Business {
			return object.Business{Kind: object.BusinessPurchase, Purchase: &object.PurchaseOrder{Held: object.Held{ERPKey: d.documents[0]}, State: object.PurchaseSent}}
		},
		func(d *deal) object.Business {
			return object.Business{Kind: object.BusinessShipment, Shipment: &object.Shipment{Reference: "ASN " + d.name, Direction: object.Inbound, Partner: "SUP-1", Site: "WH",
				State: object.ShipmentDelivered, Lines: []object.ShipmentLine{{OrderNo: d.documents[1], OrderLine: "10", Item: "RM-STEEL", Quantity: amount("60", "KGM")}}}}
		},
	}}
}

// sold is a sale, confirmed and delivered.
func sold(name string) *deal {
	return &deal{name: name, steps: []func(d *deal) object.Business{
		func(d *deal) object.Business {
			return object.Business{Kind: object.BusinessSale, Sale: &object.SalesOrder{Reference: d.name, Customer: "CUST-1", Currency: "EUR", ShipFrom: "WH", OrderDate: d.day(),
				ShipmentBasedInvoices: true, State: object.SalesConfirmed, Lines: []object.SalesLine{{LineNo: "10", Item: "RM-SCREW", Ordered: amount("20", "C62"), Price: costs("0.50", "C62")}}}}
		},
		func(d *deal) object.Business {
			return object.Business{Kind: object.BusinessShipment, Shipment: &object.Shipment{Reference: "DN " + d.name, Direction: object.Outbound, Partner: "CUST-1",
				State: object.ShipmentGoodsIssued, Lines: []object.ShipmentLine{{OrderNo: d.documents[0], Item: "RM-SCREW", Quantity: amount("12", "C62")}}}}
		},
	}}
}

// counted is an inventory count.
func counted(name, value string) *deal {
	return &deal{name: name, steps: []func(d *deal) object.Business{func(d *deal) object.Business {
		return object.Business{Kind: object.BusinessCount, Count: &object.CycleCount{Location: "IN", CountedOn: d.day(), State: object.CountPosted,
			Lines: []object.CountLine{{Item: "RM-SCREW", Unit: "C62", Counted: decimal.NewNullDecimal(decimal.RequireFromString(value))}}}}
	}}}
}

// tradeRun drives deals through a hub that is killed again and again.
type tradeRun struct {
	*soleHub
	front *front
	deals []*deal

	parked map[string]string // lives of the writes that wait for a person
	asked  int
}

// advance wants the next write of a deal, again if need be, and notes what became of it. The hub may be dead.
func (r *tradeRun) advance(d *deal) (done bool, err error) {
	n := len(d.documents)
	if n == len(d.steps) {
		return true, nil
	}
	key := fmt.Sprintf("e2e/%s/%d", d.name, n)
	var w api.Write
	body := map[string]any{"key": key, "erp": "erp", "object": api.Content{Business: d.steps[n](d)}, "posting_date": d.day()}
	r.asked++
	if err := r.call("POST", "/v1/writes", body, &w); err != nil {
		return false, err
	}
	switch w.State {
	case "verified":
		document := w.Document
		if document == "" {
			document = w.DocumentKey // a draft has no number
		}
		d.documents, d.writes = append(d.documents, document), append(d.writes, w.Key)
	case "parked":
		r.note(w)
		return false, fmt.Errorf("%s is parked: %s", key, w.Reason)
	}
	return false, nil
}

// note keeps the life of a write that is parked, for the report.
func (r *tradeRun) note(w api.Write) {
	var life api.WriteLife
	if err := r.call("GET", "/v1/writes/"+w.Key, nil, &life); err != nil {
		return // it is asked for again
	}
	text := fmt.Sprintf("%s of %s, %s: %s", w.Key, w.Kind, w.Code, w.Reason)
	for _, x := range life.Life {
		text += fmt.Sprintf("\n  %s %s %s %s", x.At.Format(time.TimeOnly), x.Step, x.Code, x.Reason)
	}
	for _, x := range life.Said {
		text += fmt.Sprintf("\n  %s: %.300s -> %s %.300s", x.Purpose, x.Request, x.Status, x.Answer)
	}
	r.parked[w.Key] = text
}

// drive goes round until all deals are done, or stop.
func (r *tradeRun) drive(stop <-chan struct{}) (done bool) {
	for {
		done = true
		for _, d := range r.deals {
			ended, err := r.advance(d)
			done = done && ended && err == nil
		}
		pause := time.NewTimer(300 * time.Millisecond)
		select {
		case <-stop:
			pause.Stop()
			return done
		case <-pause.C:
		}
		if done {
			return true
		}
	}
}

// tradeCrashes are the steps of a write, and whether every reply is lost until the hub dies there.
var tradeCrashes = []struct {
	step string
	lost bool
}{
	{"submitting", false}, {"asking", false}, {"prepared", false}, {"storing sending", false}, {"saved sending", false}, {"sending", false}, {"recovering", false}, {"written", false}, {"storing posted", false},
	{"saved posted", false}, {"reading back", false}, {"read back", false}, {"storing verified", false}, {"saved verified", false},
	{"storing in_doubt", true}, {"saved in_doubt", true}, {"looking up", true}, {"looked up", true},
}

func TestTradeThroughARealERPThatLosesRepliesAndAHubThatIsKilled(t *testing.T) {
	seed := uint64(numberFrom(t, "LINEKEEPER_SEED", time.Now().UnixNano()%1_000_000_000))
	t.Logf("LINEKEEPER_SEED=%d", seed)
	books := tradeBooks{newTrytonBooks(t)}
	buildCrashHub(t)
	usually := share{lost: 0.10, late: 0.05, asked: 0.01}
	r := &tradeRun{parked: map[string]string{}, front: &front{books: books, share: usually, random: rand.New(rand.NewPCG(seed, 3))}}
	server := httptest.NewServer(r.front)
	t.Cleanup(server.Close)
	t.Cleanup(r.front.calm)
	r.soleHub = newSoleHub(t, "crashhub", func(dir string) string {
		return books.section(dir, server.URL) + `
business:
  - {erp: erp, kinds: [purchase_order, sales_order, shipment, invoice, cycle_count], every: 2s, write: true}
log: {level: error}
`
	})
	for i := range 4 {
		r.deals = append(r.deals, bought(fmt.Sprintf("PR-%d-%d", seed, i)), sold(fmt.Sprintf("CO-%d-%d", seed, i)), counted(fmt.Sprintf("CC-%d-%d", seed, i), fmt.Sprint(107+7*i)))
	}
	began := time.Now()
	deaths := r.killAgainAndAgain(usually)
	p := r.start()
	stop := make(chan struct{})
	time.AfterFunc(6*time.Minute, func() { close(stop) })
	if !r.drive(stop) {
		for _, life := range r.parked {
			t.Errorf("parked: %s", life)
		}
		t.Fatal("not all is done")
	}
	r.front.calm()
	lost, doubled := r.check(books)
	r.checkMirror()
	p.kill()
	r.front.mu.Lock()
	defer r.front.mu.Unlock()
	writes := 0
	for _, d := range r.deals {
		writes += len(d.steps)
	}
	t.Logf("writes=%d asked=%d lost_replies=%d delayed=%d kills=%d lost=%d doubled=%d seconds=%.0f", writes, r.asked, r.front.lost, r.front.delayed, deaths, lost, doubled, time.Since(began).Seconds())
	if r.front.lost == 0 {
		t.Error("no reply was lost: nothing was tried")
	}
}

// killAgainAndAgain lets a hub die at each step of a write, while the callers go on.
func (r *tradeRun) killAgainAndAgain(usually share) (deaths int) {
	log := filepath.Join(r.dir, "trade-steps")
	for _, c := range tradeCrashes {
		r.front.mu.Lock()
		if r.front.share = usually; c.lost {
			r.front.share = share{lost: 1}
		}
		r.front.mu.Unlock()
		p := r.start("LINEKEEPER_CRASH_AT="+writeStep+c.step, "LINEKEEPER_CRASH_LOG="+log)
		stop, driven := make(chan struct{}), make(chan struct{})
		go func() { r.drive(stop); close(driven) }()
		patience := time.NewTimer(90 * time.Second)
		select {
		case <-p.ended:
			if s := p.ProcessState.Sys().(syscall.WaitStatus); s.Signal() != syscall.SIGKILL {
				r.t.Errorf("at %q the hub ended with %v", c.step, s)
			}
			deaths++
		case <-driven: // nothing was left to die of
		case <-patience.C:
			r.t.Logf("step %q has not come", c.step)
			p.kill()
		}
		patience.Stop()
		close(stop)
		<-driven
	}
	r.front.mu.Lock()
	r.front.share = usually
	r.front.mu.Unlock()
	text, err := os.ReadFile(log)
	if err != nil {
		r.t.Fatal(err)
	}
	var missed []string
	for _, c := range tradeCrashes {
		if !strings.Contains(string(text), "dies at "+writeStep+c.step+"\n") {
			missed = append(missed, c.step)
		}
	}
	if len(missed) > 0 {
		r.t.Errorf("no hub died at %q", missed)
	}
	return deaths
}

// check counts in Tryton's own database what each write made.
func (r *tradeRun) check(b tradeBooks) (lost, doubled int) {
	r.t.Helper()
	one := func(what, query string, args ...any) {
		r.t.Helper()
		var n int
		if err := b.db.QueryRow(query, args...).Scan(&n); err != nil {
			r.t.Fatal(err)
		}
		lost, doubled = lost+max(1-n, 0), doubled+max(n-1, 0)
		if n != 1 {
			r.t.Errorf("%s is there %d times", what, n)
		}
	}
	for _, d := range r.deals {
		key := func(n int) string { return keyOf(r.t, fmt.Sprintf("e2e/%s/%d", d.name, n)) }
		switch d.name[:2] {
		case "PR":
			one("purchase "+d.name, `SELECT count(*) FROM purchase_purchase WHERE description LIKE '%' || $1 || '%' AND state = 'processing'`, key(0))
			one("purchase by reference "+d.name, `SELECT count(*) FROM purchase_purchase WHERE reference = $1`, d.name)
			one("receipt of "+d.name, `SELECT count(*) FROM stock_move m JOIN purchase_line l ON m.origin = 'purchase.line,' || l.id JOIN purchase_purchase o ON o.id = l.purchase
				WHERE o.number = $1 AND m.state = 'done' AND m.quantity = 60`, d.documents[1])
			one("movement of "+d.name, `SELECT count(*) FROM stock_move m JOIN purchase_line l ON m.origin = 'purchase.line,' || l.id JOIN purchase_purchase o ON o.id = l.purchase
				WHERE o.number = $1 AND m.state = 'done' AND m.quantity > 0`, d.documents[1])
		case "CO":
			one("sale "+d.name, `SELECT count(*) FROM sale_sale WHERE description LIKE '%' || $1 || '%' AND state = 'processing'`, key(0))
			one("sale by reference "+d.name, `SELECT count(*) FROM sale_sale WHERE reference = $1`, d.name)
			one("delivery of "+d.name, `SELECT count(*) FROM stock_move m JOIN sale_line l ON m.origin = 'sale.line,' || l.id JOIN sale_sale o ON o.id = l.sale
				WHERE o.number = $1 AND m.state = 'done' AND m.quantity > 0 AND m.quantity = 12`, d.documents[0])
		case "CC":
			one("count "+d.name, `SELECT count(*) FROM stock_inventory WHERE number = $1 AND state = 'done'`, key(0))
		}
	}
	return lost, doubled
}

func keyOf(t *testing.T, text string) string {
	t.Helper()
	return factkey.Of(factkey.Position("write", text)).String()
}

// checkMirror reads what was traded as canonical objects: each order with its receipt or delivery, and the draft of the invoice that
// the ERP made by itself when the goods came.
func (r *tradeRun) checkMirror() {
	r.t.Helper()
	get := func(kind, number string) (o api.ObjectLife, err error) {
		return o, r.call("GET", "/v1/objects/"+kind+"/erp/"+number, nil, &o)
	}
	for _, d := range r.deals {
		d := d
		look := func() error {
			switch d.name[:2] {
			case "PR":
				o, err := get("purchase_order", d.documents[1])
				if err != nil {
					return err
				}
				kinds := map[string]int{}
				for _, l := range o.NamedBy {
					kinds[l.Kind]++
				}
				if line := o.Object.Purchase.Lines[0]; o.State != "PART_RECEIVED" || !line.Received.Equal(decimal.NewFromInt(60)) || kinds["shipment"] != 1 || kinds["invoice"] != 1 {
					return fmt.Errorf("purchase %s is %s with %s received, named by %+v", o.Number, o.State, line.Received, o.NamedBy)
				}
				if len(o.Revisions) < 2 {
					return fmt.Errorf("purchase %s has %d revisions", o.Number, len(o.Revisions))
				}
				for _, l := range o.NamedBy {
					if l.Kind == "invoice" {
						if l.Number == "" { // a draft has none
							l.Number = l.Key
						}
						v, err := get("invoice", l.Number)
						if err != nil {
							return err
						}
						if x := v.Object.Invoice; v.State != "RECEIVED" || x.Partner != "SUP-1" || !x.Lines[0].Quantity.Value.Equal(decimal.NewFromInt(60)) || !x.Net.Equal(decimal.NewFromInt(126)) {
							return fmt.Errorf("the invoice's draft is %s: %+v", v.State, x)
						}
					}
				}
			case "CO":
				o, err := get("sales_order", d.documents[0])
				if err != nil {
					return err
				}
				if line := o.Object.Sale.Lines[0]; !line.Shipped.Equal(decimal.NewFromInt(12)) || len(o.NamedBy) == 0 {
					return fmt.Errorf("sale %s is %s with %s shipped, named by %+v", o.Number, o.State, line.Shipped, o.NamedBy)
				}
			case "CC":
				o, err := get("cycle_count", d.documents[0])
				if err != nil {
					return err
				}
				if o.State != "POSTED" || len(o.Object.Count.Lines) == 0 {
					return errors.New("the count is " + o.State)
				}
			}
			return nil
		}
		var err error
		for range 120 {
			if err = look(); err == nil {
				break
			}
			time.Sleep(500 * time.Millisecond)
		}
		if err != nil {
			text, _ := json.Marshal(err.Error())
			r.t.Errorf("the mirror does not show %s as it is: %s", d.name, text)
		}
	}
}
