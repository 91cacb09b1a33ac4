package connectortest

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// Ledger is a system of business objects in memory, a BusinessReader and a BusinessWriter that goes wrong on demand, for tests of
// those who use one. It holds no work orders. Like the real systems it keeps no key unique: a making is tied to what
// PrepareBusiness read of the key's gate, a move to what it read of the object. It knows no stock and no rules, so that a test may
// want what it likes.
type Ledger struct {
	// Forgetful: PrepareBusiness does not look whether the key has an effect already, so that whoever writes again without having
	// looked up doubles it.
	Forgetful bool
	// Cancels: purchases can be cancelled, too.
	Cancels bool

	mu      sync.Mutex
	books   books
	mishap  func(call string, w connector.Write) Mishap
	late    []func()
	broken  map[string]string // why an object cannot be read, by its ERPKey
	under   map[string]int    // calls under way by object
	most    int
	calls   map[string]int
	effects map[factkey.Key]int
}

// books is what a copy of the system would have.
type books struct {
	held    map[string]entry // by ERPKey
	gates   map[factkey.Key]int
	numbers int
	changes int64
}

type entry struct {
	b      object.Business
	key    factkey.Key // that made it
	change int64
	moved  []factkey.Key // that moved it on
}

// Mishap is what goes wrong with one call of a Ledger.
type Mishap string

// What can go wrong with a call of a Ledger.
const (
	NoMishap   Mishap = ""
	Down       Mishap = "fails before anything happens"
	Loses      Mishap = "does its work and loses the answer"
	Late       Mishap = "loses the answer and does its work when Deliver is called"
	Busy       Mishap = "refuses for now"
	RestWanted Mishap = "refuses and asks for a rest"
	Refuses    Mishap = "refuses"
	BreaksDown Mishap = "does its work and breaks down"
	CantTell   Mishap = "cannot tell"
	NotYet     Mishap = "does not see it yet"
	Differs    Mishap = "holds something else"
)

var _ interface {
	connector.Connector
	connector.BusinessReader
	connector.BusinessWriter
} = (*Ledger)(nil)

// NewLedger returns a system that holds nothing.
func NewLedger() *Ledger {
	return &Ledger{books: books{held: map[string]entry{}, gates: map[factkey.Key]int{}}, broken: map[string]string{}, under: map[string]int{}, calls: map[string]int{}, effects: map[factkey.Key]int{}}
}

// Mishaps lets f decide what goes wrong with each call; nil ends it. call is prepare, write, lookup, verify, list, get or find.
func (l *Ledger) Mishaps(f func(call string, w connector.Write) Mishap) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mishap = f
}

// Deliver lets the requests arrive that are late.
func (l *Ledger) Deliver() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, arrive := range l.late {
		arrive()
	}
	l.late = nil
}

// Effects is how often a key took effect.
func (l *Ledger) Effects(key factkey.Key) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.effects[key]
}

// Calls is how often a call was made, and Most how many calls about one object were under way at once.
func (l *Ledger) Calls(call string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calls[call]
}

// Most is the largest number of calls about one named object that were under way at once.
func (l *Ledger) Most() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.most
}

// Break lets an object be unreadable for a reason, or readable again when it is empty. Either is a change of it.
func (l *Ledger) Break(erpKey, reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken[erpKey] = reason
	if e, ok := l.books.held[erpKey]; ok {
		l.change(erpKey, e.b, e.key)
	}
}

// Put stores an object as somebody does past the hub, and returns its key.
func (l *Ledger) Put(b object.Business) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.make(b, factkey.Key{})
}

// Touch changes an object past the hub.
func (l *Ledger) Touch(erpKey string, change func(*object.Business)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.books.held[erpKey]
	b := deepCopy(e.b)
	change(&b)
	l.change(erpKey, b, e.key)
}

// Snapshot returns a function that puts the books back to what they are now.
func (l *Ledger) Snapshot() (restore func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.books
	old.held, old.gates = maps.Clone(old.held), maps.Clone(old.gates)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.books = old
	}
}

func (l *Ledger) change(erpKey string, b object.Business, key factkey.Key) {
	l.books.changes++
	b.Held().RevisedAt = time.Unix(l.books.changes, 0).UTC()
	l.books.held[erpKey] = entry{b, key, l.books.changes, l.books.held[erpKey].moved}
}

var prefixes = map[object.BusinessKind]string{object.BusinessPurchase: "PO", object.BusinessSale: "SO", object.BusinessShipment: "SH", object.BusinessInvoice: "INV", object.BusinessCount: "CC"}

func (l *Ledger) make(b object.Business, key factkey.Key) string {
	l.books.numbers++
	erpKey := fmt.Sprintf("%s,%d", b.Kind, l.books.numbers)
	b = deepCopy(b)
	b.Held().ERPKey = erpKey
	number := fmt.Sprintf("%s-%d", prefixes[b.Kind], l.books.numbers)
	switch {
	case b.Purchase != nil:
		b.Purchase.Number = number
	case b.Sale != nil:
		b.Sale.Number = number
	case b.Shipment != nil:
		b.Shipment.Number = number
	case b.Invoice != nil:
		b.Invoice.Number = number
	case b.Count != nil:
		b.Count.Number = number
	}
	setState(&b, b)
	l.change(erpKey, b, key)
	return erpKey
}

func deepCopy(b object.Business) (out object.Business) {
	raw, err := json.Marshal(b)
	if err == nil {
		err = json.Unmarshal(raw, &out)
	}
	if err != nil {
		panic(err) // a struct of texts, numbers and times
	}
	return out
}

// setState moves an object to the state that another has.
func setState(b *object.Business, as object.Business) {
	switch {
	case b.Purchase != nil:
		b.Purchase.State = as.Purchase.State
	case b.Sale != nil:
		b.Sale.State = as.Sale.State
	case b.Shipment != nil:
		b.Shipment.State = as.Shipment.State
	case b.Invoice != nil:
		b.Invoice.State = as.Invoice.State
	case b.Count != nil:
		b.Count.State = as.Count.State
		for i := range b.Count.Lines {
			if line := &b.Count.Lines[i]; b.Count.State == object.CountPosted {
				line.Posted = line.Difference()
			}
		}
	}
}

// enter counts a call and decides what goes wrong with it. The lock is held afterwards.
func (l *Ledger) enter(call string, w connector.Write) (m Mishap, leave func()) {
	l.mu.Lock()
	l.calls[call]++
	name := ""
	if n := w.Want.Names(); n.Number != "" || n.ERPKey != "" {
		name = fmt.Sprint(w.Want.Kind, n.Number, n.ERPKey)
		l.under[name]++
		l.most = max(l.most, l.under[name])
	}
	if f := l.mishap; f != nil {
		l.mu.Unlock() // it may take its time
		m = f(call, w)
		l.mu.Lock()
	}
	return m, func() {
		if name != "" {
			l.under[name]--
		}
		l.mu.Unlock()
	}
}

// Capabilities implements connector.Connector.
func (*Ledger) Capabilities() connector.Capabilities {
	return connector.Capabilities{System: "ledger", ExternalKey: true, CompareAndSet: true, QuantityScale: -1}
}

// ListChanged implements connector.Connector.
func (*Ledger) ListChanged(context.Context, string) (connector.Changes, error) {
	return connector.Changes{Cursor: "none"}, nil
}

// Get implements connector.Connector.
func (*Ledger) Get(_ context.Context, no string) (object.WorkOrder, error) {
	return object.WorkOrder{}, fmt.Errorf("work order %q: %w", no, connector.ErrNotFound)
}

// Prepare implements connector.Connector.
func (*Ledger) Prepare(context.Context, connector.Posting) ([]byte, *connector.Outcome, error) {
	return nil, &connector.Outcome{Result: connector.Rejected, Class: connector.Fatal, Code: "no_work_orders", Reason: "the ledger has no work orders"}, nil
}

// Post implements connector.Connector.
func (*Ledger) Post(context.Context, connector.Posting, []byte) connector.Outcome {
	return connector.Outcome{Result: connector.Rejected, Class: connector.Fatal, Code: "no_work_orders", Reason: "the ledger has no work orders"}
}

// Lookup implements connector.Connector.
func (*Ledger) Lookup(context.Context, connector.Posting, []byte) (connector.Finding, error) {
	return connector.Finding{Presence: connector.Absent}, nil
}

// Verify implements connector.Connector.
func (*Ledger) Verify(context.Context, connector.Posting, []byte, connector.Document) (connector.Verification, error) {
	return connector.Verification{Difference: "the ledger has no work orders"}, nil
}

// ReadsBusiness implements connector.BusinessReader.
func (*Ledger) ReadsBusiness() []object.BusinessKind {
	return []object.BusinessKind{object.BusinessPurchase, object.BusinessSale, object.BusinessShipment, object.BusinessInvoice, object.BusinessCount}
}

// ledgerPage is how many objects a page of a Ledger has.
const ledgerPage = 3

// ListBusiness implements connector.BusinessReader.
func (l *Ledger) ListBusiness(_ context.Context, kind object.BusinessKind, cursor string) (page connector.BusinessChanges, err error) {
	m, leave := l.enter("list", connector.Write{})
	defer leave()
	if m == Down {
		return page, fmt.Errorf("list %s: the ledger is down", kind)
	}
	from, _ := strconv.ParseInt(cursor, 10, 64)
	var all []entry
	for _, e := range l.books.held {
		if e.b.Kind == kind && e.change >= from {
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b entry) int { return int(a.change - b.change) })
	page.Cursor = cursor
	for i, e := range all {
		if i == ledgerPage {
			page.More = true
			break
		}
		page.Cursor = fmt.Sprint(e.change + 1)
		if n := e.b.Names(); l.broken[n.ERPKey] != "" {
			page.Unreadable = append(page.Unreadable, connector.Unreadable{OrderNo: n.Number, ERPKey: n.ERPKey, Reason: l.broken[n.ERPKey]})
			continue
		}
		page.Objects = append(page.Objects, deepCopy(e.b))
	}
	return page, nil
}

// GetBusiness implements connector.BusinessReader.
func (l *Ledger) GetBusiness(_ context.Context, kind object.BusinessKind, number string) (object.Business, error) {
	m, leave := l.enter("get", connector.Write{})
	defer leave()
	e, ok := l.find(kind, number)
	switch {
	case m == Down:
		return object.Business{}, fmt.Errorf("get %s %q: the ledger is down", kind, number)
	case !ok:
		return object.Business{}, fmt.Errorf("%s %q: %w", kind, number, connector.ErrNotFound)
	case l.broken[e.b.Names().ERPKey] != "":
		return object.Business{}, fmt.Errorf("%s %q: %s", kind, number, l.broken[e.b.Names().ERPKey])
	}
	return deepCopy(e.b), nil
}

// FindBusiness implements connector.BusinessReader.
func (l *Ledger) FindBusiness(_ context.Context, kind object.BusinessKind, reference string) (all []object.Business, err error) {
	m, leave := l.enter("find", connector.Write{})
	defer leave()
	if m == Down {
		return nil, fmt.Errorf("find %s of %q: the ledger is down", kind, reference)
	}
	for _, e := range l.books.held {
		carries := e.key.String() == reference || slices.ContainsFunc(e.moved, func(k factkey.Key) bool { return k.String() == reference })
		if e.b.Kind == kind && (carries || e.b.Names().Reference == reference) {
			all = append(all, deepCopy(e.b))
		}
	}
	return all, nil
}

// Carry is how many objects the books hold that a key has made.
func (l *Ledger) Carry(key factkey.Key) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.books.held {
		if e.key == key {
			n++
		}
	}
	return n
}

// Remove takes an object out of the books, as a person does.
func (l *Ledger) Remove(erpKey string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.books.held, erpKey)
}

func (l *Ledger) find(kind object.BusinessKind, name string) (entry, bool) {
	for _, e := range l.books.held {
		if n := e.b.Names(); e.b.Kind == kind && name != "" && (n.ERPKey == name || n.Number == name) {
			return e, true
		}
	}
	return entry{}, false
}

// WritesBusiness implements connector.BusinessWriter.
func (l *Ledger) WritesBusiness() map[object.BusinessKind][]string {
	states := map[object.BusinessKind][]string{
		object.BusinessPurchase: {string(object.PurchaseDraft), string(object.PurchaseSent)},
		object.BusinessSale:     {string(object.SalesDraft), string(object.SalesConfirmed)},
		object.BusinessShipment: {string(object.ShipmentPlanned), string(object.ShipmentDelivered)},
		object.BusinessInvoice:  {string(object.InvoiceReceived), string(object.InvoicePosted)},
		object.BusinessCount:    {string(object.CountCounted), string(object.CountPosted)},
	}
	if l.Cancels {
		states[object.BusinessPurchase] = append(states[object.BusinessPurchase], string(object.PurchaseCancelled))
	}
	return states
}

// tie is what a write is tied to.
type tie struct {
	ERPKey string
	Change int64 // of the object, or
	Gate   int   // of the key, for a new one
}

// done is the object of a write that has had its effect already.
func (l *Ledger) done(w connector.Write) (entry, bool) {
	if n := w.Want.Names(); n.Number != "" || n.ERPKey != "" {
		e, ok := l.find(w.Want.Kind, n.ERPKey)
		if !ok {
			e, ok = l.find(w.Want.Kind, n.Number)
		}
		return e, ok && w.Want.Difference(e.b) == ""
	}
	for _, e := range l.books.held {
		if e.key == w.Key && e.b.Kind == w.Want.Kind {
			return e, true
		}
	}
	return entry{}, false
}

func documentOf(e entry) connector.Document {
	n := e.b.Names()
	return connector.Document{Number: n.Number, ID: n.ERPKey}
}

// PrepareBusiness implements connector.BusinessWriter.
func (l *Ledger) PrepareBusiness(_ context.Context, w connector.Write) ([]byte, *connector.Outcome, error) {
	m, leave := l.enter("prepare", w)
	defer leave()
	switch m {
	case Down:
		return nil, nil, fmt.Errorf("prepare write %s: the ledger is down", w.Key)
	case Refuses:
		return nil, refusal(connector.Correctable, "stopped", w), nil
	case BreaksDown:
		panic("a write that nobody can prepare")
	}
	e, done := l.done(w)
	if done && !l.Forgetful {
		return nil, &connector.Outcome{Result: connector.Posted, Document: documentOf(e)}, nil
	}
	t := tie{Gate: l.books.gates[w.Key]}
	if n := w.Want.Names(); n.Number != "" || n.ERPKey != "" {
		if e.b.Kind == "" {
			return nil, refusal(connector.Fatal, "unknown_object", w), nil
		}
		t = tie{ERPKey: e.b.Names().ERPKey, Change: e.change}
	}
	intent, err := json.Marshal(t)
	return intent, nil, err
}

func refusal(class connector.Class, code string, w connector.Write) *connector.Outcome {
	return &connector.Outcome{Result: connector.Rejected, Class: class, Code: code, Reason: fmt.Sprintf("the ledger refuses write %s of %s", w.Key, w.Want.Kind), NextStep: "Mend it and replay the write."}
}

// WriteBusiness implements connector.BusinessWriter.
func (l *Ledger) WriteBusiness(_ context.Context, w connector.Write, intent []byte) connector.Outcome {
	m, leave := l.enter("write", w)
	defer leave()
	lost := connector.Outcome{Result: connector.InDoubt, Reason: "the ledger did not answer"}
	switch m {
	case Down:
		return lost
	case Busy:
		return *refusal(connector.Retryable, "busy", w)
	case RestWanted:
		out := refusal(connector.Retryable, "rest", w)
		out.RetryAfter = 50 * time.Millisecond
		return *out
	case Refuses:
		return *refusal(connector.Correctable, "stopped", w)
	case Late:
		l.late = append(l.late, func() { l.effect(w, intent) })
		return lost
	}
	out := l.effect(w, intent)
	switch m {
	case Loses:
		return lost
	case BreaksDown:
		panic("the ledger's connector breaks down")
	}
	return out
}

func (l *Ledger) effect(w connector.Write, intent []byte) connector.Outcome {
	var t tie
	if err := json.Unmarshal(intent, &t); err != nil {
		return *refusal(connector.Fatal, "no_intent", w)
	}
	erpKey := t.ERPKey
	if erpKey == "" {
		if l.books.gates[w.Key] != t.Gate {
			return *refusal(connector.Retryable, "object_changed", w)
		}
		l.books.gates[w.Key]++
		erpKey = l.make(w.Want, w.Key)
	} else {
		e := l.books.held[erpKey]
		if e.change != t.Change {
			return *refusal(connector.Retryable, "object_changed", w)
		}
		b := deepCopy(e.b)
		setState(&b, w.Want)
		l.change(erpKey, b, e.key)
		e = l.books.held[erpKey]
		e.moved = append(slices.Clone(e.moved), w.Key)
		l.books.held[erpKey] = e
	}
	l.effects[w.Key]++
	return connector.Outcome{Result: connector.Posted, Document: documentOf(l.books.held[erpKey])}
}

// LookupBusiness implements connector.BusinessWriter. What is absent can no longer appear: what is late finds its gate changed.
func (l *Ledger) LookupBusiness(_ context.Context, w connector.Write, intent []byte) (connector.Finding, error) {
	m, leave := l.enter("lookup", w)
	defer leave()
	switch m {
	case Down:
		return connector.Finding{}, fmt.Errorf("look up write %s: the ledger is down", w.Key)
	case CantTell:
		return connector.Finding{Presence: connector.CannotTell, Reason: "the ledger cannot tell"}, nil
	case NotYet:
		return connector.Finding{Presence: connector.NotFoundYet}, nil
	}
	if e, ok := l.done(w); ok {
		return connector.Finding{Presence: connector.Found, Document: documentOf(e)}, nil
	}
	var t tie
	if err := json.Unmarshal(intent, &t); err == nil && t.ERPKey != "" {
		if e, ok := l.books.held[t.ERPKey]; ok && e.change == t.Change {
			l.change(t.ERPKey, e.b, e.key)
		}
	} else {
		l.books.gates[w.Key]++
	}
	return connector.Finding{Presence: connector.Absent}, nil
}

// VerifyBusiness implements connector.BusinessWriter.
func (l *Ledger) VerifyBusiness(_ context.Context, w connector.Write, _ []byte, doc connector.Document) (connector.Verification, error) {
	m, leave := l.enter("verify", w)
	defer leave()
	switch m {
	case Down:
		return connector.Verification{}, fmt.Errorf("read back write %s: the ledger is down", w.Key)
	case NotYet:
		return connector.Verification{NotYet: true}, nil
	case Differs:
		return connector.Verification{Difference: "it holds something else"}, nil
	}
	e, ok := l.books.held[doc.ID]
	if !ok {
		return connector.Verification{Difference: fmt.Sprintf("there is no %s %q", w.Want.Kind, doc.Number)}, nil
	}
	says := w.Want.Difference(e.b)
	return connector.Verification{Matches: says == "", Difference: says}, nil
}
