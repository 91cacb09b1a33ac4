package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sort"
	"sync"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub"
	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
)

// erp is a model of an outside system. It keeps every document under the fact's key, prevents nothing by itself, and while it
// has faults it loses requests and replies, shows effects late, and sometimes cannot tell.
type erp struct {
	mu      sync.Mutex
	rng     *rand.Rand
	orders  map[string]*object.WorkOrder
	numbers []string
	docs    []document
	pending []document      // accepted, shown from their time on
	unclear map[string]bool // keys that it cannot answer about: a person must look
	calls   map[string]int  // under way, by order
	wrong   []string

	faulty       bool
	lost, late   int // replies, effects
	cannotTell   int
	lookups      int
	unreachables int
}

// document is one effect.
type document struct {
	number string
	key    string
	order  string
	state  object.FloorState // of an order's change of state
	lines  []object.FactLine
	at     time.Time
}

func newERP(rng *rand.Rand) *erp {
	return &erp{rng: rng, orders: map[string]*object.WorkOrder{}, unclear: map[string]bool{}, calls: map[string]int{}}
}

func (e *erp) plan(no, item, center string) {
	e.numbers = append(e.numbers, no)
	e.orders[no] = &object.WorkOrder{
		OrderNo: no, ERPKey: no, Site: "ULM", WorkCenter: center, Item: item, State: object.OrderReleased,
		Quantity: object.Quantity{Value: decimal.NewFromInt(100000), Unit: "C62"},
	}
}

// chance is true once in n times while the ERP has faults. mu is held.
func (e *erp) chance(n int) bool { return e.faulty && e.rng.IntN(n) == 0 }

func (e *erp) fail(format string, args ...any) {
	e.wrong = append(e.wrong, fmt.Sprintf(format, args...))
}

// appear books what was late and is due. mu is held.
func (e *erp) appear() {
	now, kept := time.Now(), e.pending[:0]
	for _, d := range e.pending {
		if d.at.After(now) {
			kept = append(kept, d)
			continue
		}
		e.book(d)
	}
	e.pending = kept
}

// book makes a document. mu is held.
func (e *erp) book(d document) {
	o := e.orders[d.order]
	if o.State == object.OrderCompleted {
		e.fail("document for %s of order %s is booked after the order was finished", d.key, d.order)
	}
	if d.state == object.FloorFinished {
		o.State = object.OrderCompleted
	}
	d.number = fmt.Sprintf("D%05d", len(e.docs)+1)
	e.docs = append(e.docs, d)
}

// find returns the number of a key's document. mu is held.
func (e *erp) find(key string) (number string, pending bool) {
	e.appear()
	for _, d := range e.docs {
		if d.key == key {
			return d.number, false
		}
	}
	for _, d := range e.pending {
		if d.key == key {
			return "", true
		}
	}
	return "", false
}

// truth is what a person finds out who looks long enough.
func (e *erp) truth(key string) (number string, pending bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.find(key)
}

// kind makes the connector for one process of the hub.
func (e *erp) kind(p *process) hub.ConnectorKind {
	return hub.ConnectorKind{Name: "model", New: func(string, string, func(any) error) (connector.Connector, error) {
		return &erpClient{e, p}, nil
	}}
}

// erpClient is the way of one process of the hub to the ERP.
type erpClient struct {
	*erp
	p *process
}

func (c *erpClient) Capabilities() connector.Capabilities {
	return connector.Capabilities{
		System: "model", Posts: []object.Kind{object.KindConfirmation, object.KindConsumption, object.KindOrderState},
		States: []object.FloorState{object.FloorStarted, object.FloorFinished}, ExternalKey: true, QuantityScale: 3, Settle: time.Second,
	}
}

// reach is the way to the ERP and back; it takes a while.
func (c *erpClient) reach(ctx context.Context, point string) error {
	if err := c.p.pass(point); err != nil {
		return err
	}
	c.mu.Lock()
	wait := 5*time.Millisecond + time.Duration(c.rng.IntN(60))*time.Millisecond
	down := c.chance(25)
	c.mu.Unlock()
	if err := pause(ctx, wait); err != nil {
		return err
	}
	if err := c.p.pass(point); err != nil {
		return err
	}
	if down {
		c.mu.Lock()
		c.unreachables++
		c.mu.Unlock()
		return errors.New("the ERP does not answer")
	}
	return nil
}

// busy notes a call about an order; there must never be two at once.
func (c *erpClient) busy(order string) (done func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls[order]++; c.calls[order] > 1 && !c.p.frozen() {
		c.fail("two calls about order %s at once", order)
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.calls[order]--
	}
}

func (c *erpClient) ListChanged(ctx context.Context, cursor string) (connector.Changes, error) {
	if err := c.reach(ctx, "list"); err != nil {
		return connector.Changes{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []object.WorkOrder
	sort.Strings(c.numbers)
	for _, no := range c.numbers {
		all = append(all, *c.orders[no])
	}
	return connector.Changes{Orders: all, Cursor: "all"}, nil
}

func (c *erpClient) Get(ctx context.Context, no string) (object.WorkOrder, error) {
	if err := c.reach(ctx, "get"); err != nil {
		return object.WorkOrder{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.orders[no]
	if o == nil {
		return object.WorkOrder{}, fmt.Errorf("order %q: %w", no, connector.ErrNotFound)
	}
	return *o, nil
}

func (c *erpClient) Prepare(ctx context.Context, p connector.Posting) ([]byte, *connector.Outcome, error) {
	defer c.busy(p.Fact.OrderNo())()
	if err := c.reach(ctx, "prepare"); err != nil {
		return nil, nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.chance(40) {
		return nil, &connector.Outcome{Result: connector.Rejected, Class: connector.Retryable, Code: "LOCKED", Reason: "the order is locked by somebody"}, nil
	}
	return []byte("intent of " + p.Fact.Key.String()), nil, nil
}

func (c *erpClient) Post(ctx context.Context, p connector.Posting, intent []byte) connector.Outcome {
	defer c.busy(p.Fact.OrderNo())()
	doubt := func(why string) connector.Outcome { return connector.Outcome{Result: connector.InDoubt, Reason: why} }
	if string(intent) != "intent of "+p.Fact.Key.String() {
		c.mu.Lock()
		c.fail("posting of %s came without its intent", p.Fact.Key)
		c.mu.Unlock()
	}
	if err := c.p.pass("post"); err != nil {
		return doubt(err.Error())
	}
	if err := c.reach(ctx, "posting"); err != nil {
		return doubt("the request was lost: " + err.Error())
	}
	out := c.effect(p)
	if err := c.p.pass("posted"); err != nil { // the effect is there, the hub dies before it hears of it
		return doubt(err.Error())
	}
	return out
}

// effect books, or does not, and says what the hub hears of it.
func (c *erpClient) effect(p connector.Posting) connector.Outcome {
	c.mu.Lock()
	defer c.mu.Unlock()
	key, order := p.Fact.Key.String(), p.Fact.OrderNo()
	c.appear()
	if o := c.orders[order]; o == nil {
		return connector.Outcome{Result: connector.Rejected, Class: connector.Fatal, Code: "NO_ORDER", Reason: "no such order"}
	} else if o.State == object.OrderCompleted {
		return connector.Outcome{Result: connector.Rejected, Class: connector.Correctable, Code: "CLOSED", Reason: "order " + order + " is finished", NextStep: "reopen it"}
	}
	d := document{key: key, order: order, lines: p.Fact.FactQuantities(), at: time.Now()}
	if s := p.Fact.OrderState; s != nil {
		d.state = s.State
	}
	switch {
	case c.chance(30):
		c.lost++
		return connector.Outcome{Result: connector.InDoubt, Reason: "the request was lost"}
	case c.chance(12):
		c.lost, c.late = c.lost+1, c.late+1
		d.at = d.at.Add(time.Duration(1+c.rng.IntN(90)) * time.Second)
		c.pending = append(c.pending, d)
		c.perhapsUnclear(key)
		return connector.Outcome{Result: connector.InDoubt, Reason: "the ERP took the request and did not answer"}
	}
	c.book(d)
	if c.chance(6) {
		c.lost++
		c.perhapsUnclear(key)
		return connector.Outcome{Result: connector.InDoubt, Reason: "the reply was lost"}
	}
	return connector.Outcome{Result: connector.Posted, Document: connector.Document{Number: c.docs[len(c.docs)-1].number}}
}

func (c *erpClient) perhapsUnclear(key string) {
	if c.chance(10) {
		c.unclear[key] = true
	}
}

func (c *erpClient) Lookup(ctx context.Context, p connector.Posting, _ []byte) (connector.Finding, error) {
	defer c.busy(p.Fact.OrderNo())()
	if err := c.reach(ctx, "lookup"); err != nil {
		return connector.Finding{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lookups++
	key := p.Fact.Key.String()
	if c.unclear[key] {
		c.cannotTell++
		return connector.Finding{Presence: connector.CannotTell, Reason: "the journal of that hour is archived"}, nil
	}
	switch number, pending := c.find(key); {
	case number != "":
		return connector.Finding{Presence: connector.Found, Document: connector.Document{Number: number}}, nil
	case pending:
		return connector.Finding{Presence: connector.NotFoundYet, Reason: "still in the queue"}, nil
	}
	return connector.Finding{Presence: connector.Absent}, nil
}

func (c *erpClient) Verify(ctx context.Context, p connector.Posting, _ []byte, doc connector.Document) (connector.Verification, error) {
	defer c.busy(p.Fact.OrderNo())()
	if err := c.reach(ctx, "verify"); err != nil {
		return connector.Verification{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.appear()
	for _, d := range c.docs {
		if d.number != doc.Number {
			continue
		}
		if want := p.Fact.FactQuantities(); d.key != p.Fact.Key.String() || fmt.Sprint(d.lines) != fmt.Sprint(want) {
			return connector.Verification{Difference: fmt.Sprintf("document %s has %v, the fact %v", d.number, d.lines, want)}, nil
		}
		return connector.Verification{Matches: true}, nil
	}
	return connector.Verification{Difference: "there is no document " + doc.Number}, nil
}
