package reconcile

import (
	"time"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
	"github.com/shopspring/decimal"
)

// Fact is one of our facts and how its posting stands.
type Fact struct {
	object.Fact
	ReceivedAt time.Time
	// State is the posting's: due, sending, in_doubt, posted, verified, parked, not_posted, settled; empty while not planned.
	State, Code, Reason string
	Document            string
	Since               time.Time // when the posting's state began
	Tries               int
	// Amounts are what was to be posted, by kind, after rounding; what is missing is the fact's own quantity.
	Amounts map[object.QuantityKind]decimal.Decimal
	// Aggregate is the key of the document that it was posted in with others; zero when it has its own. Opposite: it took back a
	// share of such a document by a movement of its own.
	Aggregate factkey.Key
	Opposite  bool
	// PostedOn is the date for the books that a policy chose in the place of the fact's own, which is MovedFrom; both are empty else,
	// and where somebody decided it.
	PostedOn, MovedFrom string
	// Closing: it ends its order, though it names an operation.
	Closing bool
	// CannotTell: the outside system cannot say whether it has the effect.
	CannotTell bool
	// Books is how the posting is said in the outside system's words; nil: as the fact says.
	Books *Words
	// Corrected says what was changed of the posting, empty when nothing was: Fact then has the values that are posted, AsCame
	// those that it came with. Keys are the keys beside its own that it was posted under, oldest first.
	Corrected string
	AsCame    *object.Fact
	Keys      []string

	members []string // of a sum of facts
}

// Words are an item, a unit and the amounts in it, above zero. What is empty is as the fact says.
type Words struct {
	Item, Unit string
	Amounts    map[object.QuantityKind]decimal.Decimal
}

// counted are the quantities as the plant counted them, whatever they were posted as.
func (f *Fact) counted() []object.FactLine {
	if f.AsCame != nil {
		return f.AsCame.FactQuantities()
	}
	return f.FactQuantities()
}

// keys are all keys that a fact was posted under.
func (f *Fact) keys() []string { return append([]string{f.Key.String()}, f.Keys...) }

// MESSum is what the MES says was made or used of an order, as of an instant.
type MESSum struct {
	object.LedgerKey
	Value decimal.Decimal
	AsOf  time.Time
}

// Lot is what is known of a lot of material.
type Lot struct {
	Item, Lot string
	// Issued: it was issued to the line. Blocked: quality has not released it.
	Issued, Blocked bool
	Expires         time.Time
}

// Order is everything that is known of one work order.
type Order struct {
	Now     time.Time
	Plant   string
	ERP     string
	OrderNo string
	// Work is the order as the outside system holds it; nil when it does not have it or was not asked.
	Work  *object.WorkOrder
	Facts []Fact
	// Elsewhere are facts that name this order and were corrected to be posted to another one.
	Elsewhere []Fact
	// Effects count only when Asked: an unreachable system never makes anything missing. AsOf is when they were read.
	Asked bool
	// Unasked says why a system that can list its documents has not, empty when it has.
	Unasked string
	// Lost: the system has not, because it does not have the order.
	Lost    bool
	AsOf    time.Time
	Effects []object.Effect
	Edge    []object.EdgeLine
	MES     []MESSum
	// Lots count only when not nil.
	Lots map[string]Lot
	// Receipts are items of which the ledger knows a receipt that is not posted yet: a deficit waits for it.
	Receipts map[string]bool
	// Locks names who holds an order, where the system tells it.
	LockHolder string
}

// Step is two successive values of one machine's counter.
type Step struct {
	Plant, Agent, Source, Tag string
	Last, New                 decimal.Decimal
	LastAt, At                time.Time
	// Modulus is where the counter turns over to zero (32768 counts 0 to 32767), zero when not known. MaxRate is counts a second.
	Modulus, MaxRate decimal.Decimal
	// NewEpoch: the epoch changed or the device says that it has booted.
	NewEpoch bool
	// HourOutput is the most that the machine makes in an hour, zero when not known.
	HourOutput decimal.Decimal
	// Made is what the agent has made of it, empty when nobody has decided yet.
	Made object.StepOutcome
	// Fact is the key of the record that told of it, empty where there is none.
	Fact string
}

// Gap is a jump in the sequence of one source's records.
type Gap struct {
	Plant, Agent, Source string
	Expected, Got        uint64
	At                   time.Time
	// Buffered: the agent still has the records in between. Otherwise Cause says why they are gone.
	Buffered bool
	Cause    string
}

// Missed is a jump in a source's own numbering, of which the agent told.
type Missed struct {
	Plant, Agent, Source, Item, Reason string
	// Records is how many never came, at least.
	Records uint64
	At      time.Time
}

// Balance is one stock at a stated instant, and what should be there.
type Balance struct {
	Plant, ERP, Site, Storage, Item, Lot, Unit string
	// Opening is the last balance that both sides agreed on, Movements the sum of everything since, facts whose documents have gone
	// among it, Held what the system holds.
	Opening, Movements, Held decimal.Decimal
	AsOf                     time.Time
	// ReadTwice: both sides were read again at one instant and are still off. Unposted are facts that Movements counts and whose
	// movement is not in the books, with their effect on the balance; Receipts those that are under way and will add to it.
	ReadTwice bool
	Unposted  map[string]decimal.Decimal
	Receipts  map[string]decimal.Decimal
}

// Factor says that one unit is so many of another, for one item or for all.
type Factor struct {
	Item, From, To string
	Times          decimal.Decimal
}

// Policy are the plant's rules.
type Policy struct {
	// Settle is how old a fact must be before it is compared.
	Settle time.Duration
	// Window is how far apart two documents without a key may be to be called the same posting twice.
	Window time.Duration
	// UseTolerance and YieldTolerance are shares: 0.05 is five in a hundred.
	UseTolerance, YieldTolerance decimal.Decimal
	// BackflushOwner is who posts material that is backflushed: "erp", "mes", or empty where nobody has decided.
	BackflushOwner string
	// MovementFor, LockFor, ReceiptFor are how long a failed movement, a lock, a deficit may last before a person is told.
	MovementFor, LockFor, ReceiptFor time.Duration
	// Skew is how far clocks may be apart.
	Skew time.Duration
	// LookUps is how many look-ups a missing effect gets before a person is told.
	LookUps int
	// FirstOpenDay and MayReopen allow those heals.
	FirstOpenDay, MayReopen bool
	Factors                 []Factor
	Limits                  Limits
	// Prices are per unit of the item; an item without one is worth nothing.
	Prices map[string]decimal.Decimal
	// Of are the rules of one plant and system, nil where those above hold for all.
	Of func(plant, erp string) Rules
	// SLA is how long a discrepancy of a severity may be open before it goes to the next tier.
	SLA map[Severity]time.Duration
}

// Rules are what a plant has decided for one system.
type Rules struct {
	// Owner is who posts an item's consumption: "erp", "mes", or empty where nobody has decided. m is the order's component, nil
	// where it plans none.
	Owner                   func(item string, m *object.Component) string
	YieldTolerance          decimal.Decimal // a share: 0.05 is five in a hundred
	FirstOpenDay, MayReopen bool
}

// of are the rules for an order.
func (p Policy) of(o *Order) Rules {
	if p.Of != nil {
		return p.Of(o.Plant, o.ERP)
	}
	return Rules{Owner: func(string, *object.Component) string { return p.BackflushOwner }, YieldTolerance: p.YieldTolerance, FirstOpenDay: p.FirstOpenDay, MayReopen: p.MayReopen}
}

// Limits bound what is healed without a person. Zero means none at all.
type Limits struct {
	PerOrder, PerDay int
	Value            decimal.Decimal // of one heal
}

// DefaultPolicy is careful.
func DefaultPolicy() Policy {
	return Policy{
		Settle: 2 * time.Minute, Window: 2 * time.Minute, UseTolerance: decimal.New(5, -2), MovementFor: time.Hour, LockFor: 30 * time.Minute,
		ReceiptFor: 30 * time.Minute, Skew: time.Minute, LookUps: 3, FirstOpenDay: true,
		Limits: Limits{PerOrder: 20, PerDay: 1000, Value: decimal.NewFromInt(10_000)},
		SLA:    map[Severity]time.Duration{High: time.Hour, Medium: 8 * time.Hour, Low: 48 * time.Hour},
	}
}
