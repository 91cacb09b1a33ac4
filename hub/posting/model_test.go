package posting

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/shopspring/decimal"
)

// modelERP is an outside system with a bad line. It judges the engine: an effect made twice, two calls about one order at a
// time, and a posting out of order are faults.
type modelERP struct {
	scale int32
	posts []object.Kind
	parts []object.Kind // of which it takes back a part
	types bool          // it is told types of movements
	// operations are the states that it keeps of an operation.
	operations []object.FloorState

	mu  sync.Mutex
	rng *rand.Rand
	now func() time.Time
	trouble
	orders  map[string]object.WorkOrder
	effects map[string]effect    // by fact key
	late    map[string]time.Time // effects that will appear
	busy    map[string]bool      // orders with a call under way
	made    map[string][]string  // positions in the order of their effects, by order
	undone  map[string]string    // by fact key: the key of the fact that took it back
	closed  map[string]string    // orders that were finished, by the fact that came first
	calls   map[string]int       // by method
	notYet  map[string]time.Time // by fact key: until then the effect is not to be read
	takes   time.Duration        // how long a call takes; 1 ms when zero
	faults  []string
}

// trouble is how often, of 100 calls, what goes wrong.
type trouble struct {
	down, lostReply, lostRequest, delayed, retry, early, unreadable, alone int
	// reject names fact keys that are refused until somebody mends them; dark ones whose look-up cannot tell.
	reject, dark map[string]bool
}

type effect struct {
	document string
	fact     object.Fact
	at       time.Time
	date     time.Time
	move     string // the type of its movement
}

// oneByOne is a system that reads postings back one by one only.
type oneByOne struct{ connector.Connector }

func newModel(seed uint64, now func() time.Time) *modelERP {
	return &modelERP{
		scale: 3, posts: []object.Kind{object.KindConfirmation, object.KindConsumption, object.KindOrderState},
		rng: rand.New(rand.NewPCG(seed, 1)), now: now, orders: map[string]object.WorkOrder{}, effects: map[string]effect{},
		late: map[string]time.Time{}, busy: map[string]bool{}, made: map[string][]string{}, undone: map[string]string{}, closed: map[string]string{}, calls: map[string]int{},
		trouble: trouble{reject: map[string]bool{}, dark: map[string]bool{}},
	}
}

func (m *modelERP) fault(format string, args ...any) {
	m.faults = append(m.faults, fmt.Sprintf(format, args...))
}

// enter begins a call about an order.
func (m *modelERP) enter(method, order string) func() {
	m.mu.Lock()
	m.calls[method]++
	if m.busy[order] {
		m.fault("two calls about order %s at a time", order)
	}
	m.busy[order] = true
	m.mu.Unlock()
	time.Sleep(max(m.takes, time.Millisecond)) // fake time: lets others run into each other
	m.mu.Lock()
	return func() {
		m.busy[order] = false
		m.mu.Unlock()
	}
}

func (m *modelERP) chance(percent int) bool { return m.rng.IntN(100) < percent }

func (m *modelERP) Capabilities() connector.Capabilities {
	return connector.Capabilities{
		System: "model", Posts: m.posts, States: []object.FloorState{object.FloorStarted, object.FloorFinished},
		Reverses: []object.Kind{object.KindConfirmation, object.KindConsumption}, ExternalKey: true, QuantityScale: m.scale, Settle: time.Second,
		ReversesPart: m.parts, MovementTypes: m.types, OperationStates: m.operations,
	}
}

func (m *modelERP) ListChanged(context.Context, string) (connector.Changes, error) {
	return connector.Changes{}, errors.New("not asked in this test")
}

func (m *modelERP) Get(context.Context, string) (object.WorkOrder, error) {
	return object.WorkOrder{}, connector.ErrNotFound
}

func (m *modelERP) Prepare(_ context.Context, p connector.Posting) ([]byte, *connector.Outcome, error) {
	defer m.enter("prepare", p.Order.OrderNo)()
	key := p.Fact.Key.String()
	if _, no := m.moves(p); no != nil {
		return nil, no, nil
	}
	switch {
	case m.chance(m.down):
		return nil, nil, errors.New("connection refused")
	case m.chance(m.early):
		if e, ok := m.effects[key]; ok {
			return nil, &connector.Outcome{Result: connector.Posted, Document: connector.Document{Number: e.document}}, nil
		}
		return nil, &connector.Outcome{Result: connector.Rejected, Class: connector.Retryable, Code: "locked", Reason: "order is locked"}, nil
	}
	return []byte("intent of " + key), nil, nil
}

func (m *modelERP) Post(_ context.Context, p connector.Posting, intent []byte) connector.Outcome {
	defer m.enter("post", p.Order.OrderNo)()
	key := p.Fact.Key.String()
	if string(intent) != "intent of "+key {
		m.fault("intent of fact %s is %q", key, intent)
	}
	switch {
	case m.reject[key]:
		return connector.Outcome{Result: connector.Rejected, Class: connector.Correctable, Code: "period_closed", Reason: "period is closed", NextStep: "open it"}
	case m.chance(m.retry):
		return connector.Outcome{Result: connector.Rejected, Class: connector.Retryable, Code: "locked", Reason: "order is locked"}
	case m.chance(m.lostRequest):
		m.late[key] = m.now().Add(3 * time.Minute) // until then nobody can be sure that it does not come
		return connector.Outcome{Result: connector.InDoubt, Reason: "timeout"}
	case m.chance(m.delayed):
		m.effect(p, m.now().Add(time.Duration(m.rng.IntN(180))*time.Second))
		return connector.Outcome{Result: connector.InDoubt, Reason: "timeout"}
	}
	document := m.effect(p, m.now())
	if m.chance(m.lostReply) {
		return connector.Outcome{Result: connector.InDoubt, Reason: "connection reset"}
	}
	return connector.Outcome{Result: connector.Posted, Document: connector.Document{Number: document}}
}

func (m *modelERP) effect(p connector.Posting, at time.Time) string {
	key := p.Fact.Key.String()
	if _, twice := m.effects[key]; twice {
		m.fault("fact %s takes effect twice", key)
	}
	if o := p.Original; (o != nil) != !p.Fact.Reverses.IsZero() {
		m.fault("fact %s reverses %s, and its original is %+v", key, p.Fact.Reverses, o)
	} else if o != nil {
		m.takeBack(p.Fact, *o)
	}
	m.end(p)
	document := fmt.Sprintf("D%d", len(m.effects)+1)
	move, no := m.moves(p)
	if no != nil {
		m.fault("fact %s is posted with a movement that nobody knows: %s", key, no.Reason)
	}
	m.effects[key] = effect{document, p.Fact, at, p.PostingDate, move}
	m.made[p.Order.OrderNo] = append(m.made[p.Order.OrderNo], p.Fact.Position)
	return document
}

// moves is the type of a posting's movement: 261 and 262 are its own.
func (m *modelERP) moves(p connector.Posting) (string, *connector.Outcome) {
	kind := p.Fact.Moves()
	if !m.types || p.Fact.Consumption == nil {
		return "", nil
	}
	if !p.Fact.Reverses.IsZero() {
		kind = kind.Back()
	}
	return p.MovementType(kind, map[object.MovementKind]string{object.IssueToOrder: "261", object.ReturnFromOrder: "262"}[kind])
}

// end notes that an order is finished. A state of an operation must be one that the system keeps.
func (m *modelERP) end(p connector.Posting) {
	s := p.Fact.OrderState
	switch {
	case s == nil || s.State != object.FloorFinished:
		return
	case s.Operation != "" && !slices.Contains(m.operations, s.State):
		m.fault("order %s is told that its operation %s is %s", p.Order.OrderNo, s.Operation, s.State)
	case s.Operation == "" || p.ClosesOrder:
		if m.closed[p.Order.OrderNo] == "" {
			m.closed[p.Order.OrderNo] = p.Fact.Position
		}
	}
}

// closedBy is the fact that finished an order; empty while it is open.
func (m *modelERP) closedBy(order string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.closed[order]
}

// takeBack judges a reversal: of something that is there, with just that, and once.
func (m *modelERP) takeBack(f object.Fact, o connector.Original) {
	key := o.Fact.Key.String()
	e, there := m.effects[key]
	switch by, twice := m.undone[key]; {
	case o.Part:
		if !there || o.Document.Number != e.document || !f.Confirmation.Yield.LessThan(e.fact.Confirmation.Yield) {
			m.fault("a part of %+v is taken back, and there is %+v", o, e)
		}
		return
	case twice:
		m.fault("fact %s is taken back by %s and by %s", key, by, f.Key)
	case !there:
		m.fault("fact %s is taken back and has no effect", key)
	case o.Document.Number != e.document:
		m.fault("fact %s has document %q, its reversal names %q", key, e.document, o.Document.Number)
	case f.Confirmation != nil && !f.Confirmation.Yield.Equal(e.fact.Confirmation.Yield):
		m.fault("fact %s has yield %s in the books, %s of it is taken back", key, e.fact.Confirmation.Yield, f.Confirmation.Yield)
	}
	m.undone[key] = f.Key.String()
}

func (m *modelERP) Lookup(_ context.Context, p connector.Posting, intent []byte) (connector.Finding, error) {
	defer m.enter("lookup", p.Order.OrderNo)()
	key := p.Fact.Key.String()
	if string(intent) != "intent of "+key {
		m.fault("fact %s is looked up with intent %q", key, intent)
	}
	if m.chance(m.down) {
		return connector.Finding{}, errors.New("connection refused")
	}
	if m.dark[key] {
		return connector.Finding{Presence: connector.CannotTell, Reason: "the system keeps no key"}, nil
	}
	if e, ok := m.effects[key]; ok {
		if e.at.After(m.now()) {
			return connector.Finding{Presence: connector.NotFoundYet}, nil
		}
		return connector.Finding{Presence: connector.Found, Document: connector.Document{Number: e.document}}, nil
	}
	if m.late[key].After(m.now()) {
		return connector.Finding{Presence: connector.NotFoundYet}, nil
	}
	return connector.Finding{Presence: connector.Absent}, nil
}

func (m *modelERP) Verify(_ context.Context, p connector.Posting, intent []byte, doc connector.Document) (connector.Verification, error) {
	defer m.enter("verify", p.Order.OrderNo)()
	if m.chance(m.down) {
		return connector.Verification{}, errors.New("connection refused")
	}
	return m.compare(connector.ToVerify{Posting: p, Intent: intent, Document: doc}), nil
}

// VerifyMany judges that the questions are of one order and each of another document.
func (m *modelERP) VerifyMany(_ context.Context, all []connector.ToVerify) (answers []connector.Verification, err error) {
	defer m.enter("verify many", all[0].Posting.Order.OrderNo)()
	if len(all) < 2 || len(all) > store.ReadBackAtOnce {
		m.fault("%d postings are read back together", len(all))
	}
	asked := map[string]bool{}
	for _, q := range all {
		key := q.Posting.Fact.Key.String()
		if asked[key] || q.Posting.Order.OrderNo != all[0].Posting.Order.OrderNo {
			m.fault("fact %s of order %s is read back together with others twice, or with order %s", key, q.Posting.Order.OrderNo, all[0].Posting.Order.OrderNo)
		}
		asked[key] = true
		answer := connector.Verification{Alone: true}
		if !m.chance(m.alone) {
			answer = m.compare(q)
		}
		answers = append(answers, answer)
	}
	if m.chance(m.down) {
		return nil, errors.New("connection refused")
	}
	return answers, nil
}

func (m *modelERP) compare(q connector.ToVerify) connector.Verification {
	p := q.Posting
	key := p.Fact.Key.String()
	e, ok := m.effects[key]
	switch {
	case len(q.Intent) > 0 && string(q.Intent) != "intent of "+key:
		m.fault("fact %s is read back with intent %q", key, q.Intent)
	case m.chance(m.unreadable), m.notYet[key].After(m.now()):
		return connector.Verification{NotYet: true}
	case !ok || e.document != q.Document.Number:
		return connector.Verification{Difference: fmt.Sprintf("document %q is not there", q.Document.Number)}
	case e.fact.Confirmation != nil && !e.fact.Confirmation.Yield.Equal(p.Fact.Confirmation.Yield):
		return connector.Verification{Difference: "quantities differ"}
	case e.move != must(m.moves(p)):
		return connector.Verification{Difference: "the movement is another"}
	case !e.date.Equal(p.PostingDate):
		return connector.Verification{Difference: "the date is another"}
	case e.fact.Consumption != nil && !e.fact.Consumption.Quantity.Value.Equal(p.Fact.Consumption.Quantity.Value):
		return connector.Verification{Difference: "material differs"}
	}
	return connector.Verification{Matches: true}
}

func must(move string, _ *connector.Outcome) string { return move }

// yield is the sum of what was confirmed on an order.
func (m *modelERP) yield(order string) decimal.Decimal {
	m.mu.Lock()
	defer m.mu.Unlock()
	var sum decimal.Decimal
	for _, e := range m.effects {
		if c := e.fact.Confirmation; c != nil && c.OrderNo == order {
			if e.fact.Reverses.IsZero() {
				sum = sum.Add(c.Yield)
			} else {
				sum = sum.Sub(c.Yield)
			}
		}
	}
	return sum
}

// consumed is the sum of what was taken to an order.
func (m *modelERP) consumed(order string) decimal.Decimal {
	m.mu.Lock()
	defer m.mu.Unlock()
	var sum decimal.Decimal
	for _, e := range m.effects {
		if c := e.fact.Consumption; c != nil && c.OrderNo == order {
			if (c.Movement == object.Return) == e.fact.Reverses.IsZero() {
				sum = sum.Sub(c.Quantity.Value)
			} else {
				sum = sum.Add(c.Quantity.Value)
			}
		}
	}
	return sum
}

func (m *modelERP) madeOn(order string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.made[order])
}

func (m *modelERP) set(t trouble) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if t.reject == nil {
		t.reject = map[string]bool{}
	}
	if t.dark == nil {
		t.dark = map[string]bool{}
	}
	m.trouble = t
}

func (m *modelERP) called(method string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls[method]
}
