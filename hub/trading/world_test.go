package trading

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/posting"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// world is a hub's store with a trader at work on a ledger, in a time of its own.
type world struct {
	t       *testing.T
	path    string
	s       *store.Store
	erp     *connectortest.Ledger
	other   connector.Connector // is written to in place of erp, where it is set
	mirrors []Mirror
	crash   func(string) error
	now     func() time.Time // the clock, where it is set
	asking  sync.Mutex
	tr      *Trader
	barred  bool // the system may not be written to
	cancel  context.CancelFunc
	ended   chan error
}

func simulate(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hub.db")
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, path: path, erp: connectortest.NewLedger(), crash: func(string) error { return nil }}
		w.open()
		defer func() {
			w.stop()
			w.s.Close()
		}()
		f(t, w)
	})
}

func (w *world) open() {
	w.t.Helper()
	s, err := store.Open(context.Background(), w.path, store.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	w.s = s
}

// build makes a trader that does nothing yet.
func (w *world) build() {
	connectors := map[string]connector.Connector{"erp": w.erp}
	if w.other != nil {
		connectors["erp"] = w.other
	}
	w.tr = New(Options{Store: w.s, Connectors: connectors, Posting: posting.New(posting.Options{Store: w.s, Connectors: connectors}), Mirrors: w.mirrors, Writes: map[bool][]string{false: {"erp"}}[w.barred], Now: w.now})
	crash := w.crash
	w.tr.crash = func(step string) error { // lanes and callers ask at once
		w.asking.Lock()
		defer w.asking.Unlock()
		return crash(step)
	}
}

func (w *world) start() {
	w.build()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.tr.Run(ctx) }()
	w.cancel, w.ended = cancel, ended
}

// mirrored lets everything be read, in its turn.
func (w *world) mirrored() {
	w.mirrors = []Mirror{{ERP: "erp", Kinds: w.erp.ReadsBusiness(), Every: 10 * time.Second}}
}

// stop ends the trader and returns what it ended with.
func (w *world) stop() error {
	if w.cancel == nil {
		return nil
	}
	w.cancel()
	w.cancel = nil
	return <-w.ended
}

// pass lets time go by.
func (w *world) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func d(text string) decimal.Decimal { return decimal.RequireFromString(text) }

func quantity(value, unit string) object.Quantity {
	return object.Quantity{Value: d(value), Unit: unit}
}

func price(value, unit string) object.UnitPrice {
	return object.UnitPrice{Price: object.Money{Amount: d(value), Currency: "EUR"}, Per: quantity("1", unit)}
}

func purchase(state object.PurchaseState) object.Business {
	return object.Business{Kind: object.BusinessPurchase, Purchase: &object.PurchaseOrder{Supplier: "SUP-1", Currency: "EUR", State: state,
		Lines: []object.PurchaseLine{{LineNo: "10", Item: "STEEL", Ordered: quantity("100", "KGM"), Price: price("2.10", "KGM")}}}}
}

func receipt(order, value string) object.Business {
	return object.Business{Kind: object.BusinessShipment, Shipment: &object.Shipment{Direction: object.Inbound, Partner: "SUP-1", State: object.ShipmentDelivered,
		Lines: []object.ShipmentLine{{OrderNo: order, OrderLine: "10", Item: "STEEL", Quantity: quantity(value, "KGM")}}}}
}

func invoice(order, value string) object.Business {
	return object.Business{Kind: object.BusinessInvoice, Invoice: &object.Invoice{Direction: object.Inbound, Kind: object.InvoiceDebit, Partner: "SUP-1", Currency: "EUR", State: object.InvoiceReceived,
		Lines: []object.InvoiceLine{{OrderNo: order, OrderLine: "10", Item: "STEEL", Quantity: quantity(value, "KGM"), Price: price("2.10", "KGM")}}}}
}

// sent moves a purchase on.
func sent(number string) object.Business {
	return object.Business{Kind: object.BusinessPurchase, Purchase: &object.PurchaseOrder{Number: number, State: object.PurchaseSent}}
}

func count(value string) object.Business {
	return object.Business{Kind: object.BusinessCount, Count: &object.CycleCount{Location: "STO", State: object.CountPosted,
		Lines: []object.CountLine{{Item: "STEEL", Unit: "KGM", Counted: decimal.NewNullDecimal(d(value))}}}}
}

func key(text string) factkey.Key { return factkey.Of(factkey.Position("test", text)) }

func (w *world) submit(name string, b object.Business) store.Write {
	w.t.Helper()
	x, _, err := w.tr.Submit(context.Background(), store.Write{Key: key(name), ERP: "erp", Want: b, By: "mes"})
	if err != nil {
		w.t.Fatal(err)
	}
	return x
}

func (w *world) write(name string) (store.Write, []store.WriteStep) {
	w.t.Helper()
	x, steps, _, err := w.s.WriteLife(context.Background(), key(name))
	if err != nil {
		w.t.Fatal(err)
	}
	return x, steps
}

// want checks the state of a write and how often it took effect.
func (w *world) want(name string, state store.PostingState, code string, effects int) store.Write {
	w.t.Helper()
	x, steps := w.write(name)
	if x.State != state || x.Code != code {
		w.t.Errorf("write %q is %s (%s): %s; want %s (%s)\n%s", name, x.State, x.Code, x.Reason, state, code, lifeText(steps))
	}
	if n := w.erp.Effects(key(name)); n != effects {
		w.t.Errorf("write %q took effect %d times, want %d\n%s", name, n, effects, lifeText(steps))
	}
	return x
}

func lifeText(steps []store.WriteStep) (text string) {
	for _, x := range steps {
		text += fmt.Sprintf("  %s %s %s %s\n", x.At.Format(time.TimeOnly), x.Step, x.Code, x.Reason)
	}
	return text
}

// objects is what the mirror has of a kind.
func (w *world) objects(kind object.BusinessKind, gone bool) []store.BusinessObject {
	w.t.Helper()
	all, err := w.s.Business(context.Background(), store.BusinessFilter{Kind: string(kind), Gone: gone}, store.Page{Limit: 1000})
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// mishapOnce lets the first such call go wrong.
func (w *world) mishapOnce(call string, m connectortest.Mishap) {
	done := false
	w.erp.Mishaps(func(c string, _ connector.Write) connectortest.Mishap {
		if c != call || done {
			return connectortest.NoMishap
		}
		done = true
		return m
	})
}

var errDisk = errors.New("disk is full")

func seed(t *testing.T) uint64 {
	n := rand.Uint64()
	if text := os.Getenv("TRADING_SEED"); text != "" {
		var err error
		if n, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("TRADING_SEED=%d", n)
	return n
}
