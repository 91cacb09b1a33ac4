package connectortest

import (
	"sync"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

// Harness is an outside system under test and what a test may do to it past the connector. Fields said to be optional may
// be nil; the cases that need them are then not part of the run, and Run logs which.
type Harness struct {
	// Connect makes a connector to the system. It is called more than once: a second one is a hub that started again.
	Connect func(t testing.TB) connector.Connector

	// Item is what orders make, Component what they need: PerItem of it for each piece. There is plenty of it in stock.
	Item, Component         string
	ItemUnit, ComponentUnit string // UN/ECE Recommendation 20
	PerItem                 string // decimal
	// Site is what the connector reports as the orders' site.
	Site string

	// CreateOrder makes a released order for so many of Item and returns its number. ChangeQuantity, CancelOrder and
	// CloseOrder are what a planner does to it; CloseOrder leaves it finished. They may be called while nothing is posted.
	CreateOrder    func(t testing.TB, quantity string) string
	ChangeQuantity func(t testing.TB, order, quantity string)
	CancelOrder    func(t testing.TB, order string)
	CloseOrder     func(t testing.TB, order string)

	// Effects reads the truth from the system's own books.
	Effects func(t testing.TB, order string) Effects

	// Faults stands between the connector and the system. Optional.
	Faults Faults

	// ChangeLate changes an order's quantity in a transaction that began now but is visible only after commit. Optional.
	ChangeLate func(t testing.TB, order, quantity string) (commit func())

	// ExpireSessions ends every log-in that the connector holds. Optional.
	ExpireSessions func(t testing.TB)

	// Troubles are what the system itself can be made to do, on demand. CannotShow says of each Trouble that is not among them
	// why it cannot be shown there: Run fails for one of which nothing is said.
	Troubles   map[Trouble]Switch
	CannotShow map[Trouble]string

	// Listing is needed where the connector is a connector.EffectReader.
	Listing Listing
	// Stock is needed where the connector tells how much the system holds.
	Stock Stock
	// FinishedEmpty is what an order is in the system after it was finished with nothing made; COMPLETED when empty.
	FinishedEmpty object.OrderState

	// Sparse tries the faults that look like another one to the system at a third of the exchanges only, for systems that take
	// long for each.
	Sparse bool

	// LossyPostings is how many postings the run under lost replies makes; 100 when zero.
	LossyPostings int
}

// Effects is what the outside system holds for one order.
type Effects struct {
	Yield, Scrap     decimal.Decimal // of the order's item
	Issued, Returned decimal.Decimal // of the component
	// Documents counts the effects on stock, so that a doubled one is seen even where the sums agree by chance.
	Documents int
	State     object.OrderState
}

// Fault is what goes wrong with one exchange between connector and system.
type Fault string

// The faults.
const (
	// LoseReply lets the system do its work and loses the answer.
	LoseReply Fault = "lose the reply"
	// HalfReply lets the system do its work and cuts the answer in the middle.
	HalfReply Fault = "cut the reply in half"
	// LoseRequest loses the request before it reaches the system.
	LoseRequest Fault = "lose the request"
	// DelayRequest looks to the connector like LoseRequest, but the request arrives when Deliver is called.
	DelayRequest Fault = "delay the request"
	// ServerError answers 503 without asking the system, as a gateway does.
	ServerError Fault = "answer 503"
	// TooMany answers 429 with Retry-After without asking the system.
	TooMany Fault = "answer 429"
	// WebPage answers 200 with a web page without asking the system, as a gateway's log-in form does.
	WebPage Fault = "answer a web page"
	// WebPageAfter lets the system do its work and answers 200 with a web page.
	WebPageAfter Fault = "replace the reply by a web page"
	// EmptyReply lets the system do its work and answers 200 with nothing.
	EmptyReply Fault = "empty the reply"
	// SendTwice sends the request twice, as a gateway does that missed the first answer, and passes the second answer on.
	SendTwice Fault = "send the request twice"
	// EndSession ends all sessions just before the request is passed on. It needs Proxy.EndSessions.
	EndSession Fault = "end the session"
)

// Faults makes exchanges between the connector and the system go wrong. Proxy is one for systems that speak HTTP.
type Faults interface {
	// Arm makes f happen to the nth exchange from now (1 is the next); it replaces what was armed before.
	Arm(f Fault, nth int)
	// Fired reports whether the armed fault has happened, and disarms it.
	Fired() bool
	// Deliver lets the delayed requests through and returns when the system has answered them all.
	Deliver()
	// Lossy loses the given shares of replies (some of them cut in half) and of requests (some of them answered 503) from now
	// on, drawn from a source with that seed; shares of zero end it.
	Lossy(seed int64, replies, requests float64)
}

// Holder is implemented by Faults that can keep an answer back which the system has given.
type Holder interface {
	// Hold does so with the next exchange until release is called, which may be called again; came then says when the request was there.
	Hold() (came <-chan time.Time, release func())
}

// Keeper is a Holder for what passes exchanges on: it calls Take at each request, and what that returned before it passes the answer on.
type Keeper struct {
	mu   sync.Mutex
	next *held
}

type held struct {
	came chan time.Time
	free chan struct{}
}

// Hold implements Holder.
func (k *Keeper) Hold() (came <-chan time.Time, release func()) {
	h := &held{came: make(chan time.Time, 1), free: make(chan struct{})}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.next = h
	return h.came, sync.OnceFunc(func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.next == h { // nothing came
			k.next = nil
		}
		close(h.free)
	})
}

// Take says that a request came. The function it returns waits while its answer is held.
func (k *Keeper) Take() (wait func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h := k.next
	if h == nil {
		return func() {}
	}
	k.next = nil
	h.came <- time.Now()
	return func() { <-h.free }
}
