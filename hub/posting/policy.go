package posting

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/shopspring/decimal"
)

// Policy is what a company has decided for some systems, plants and items. An empty field decides nothing: of the policies that
// fit, the first that says something about a matter counts, and where none does, the first value of its type.
type Policy struct {
	// ERP and Plant say for which postings; empty: for all. Items concern Backflush only; none: all.
	ERP, Plant string
	Items      []string

	Backflush   Owner
	Late        Late
	Closing     *Closing
	Doubtful    Doubtful
	Delivery    Delivery
	Tolerance   *decimal.Decimal // in percent of the order's quantity
	ClosedOrder ClosedOrder
	Collect     *Collect
	End         OrderEnd
}

// Owner says who posts the consumption of a component.
type Owner string

// The owners.
const (
	OwnerByOrder Owner = ""    // the outside system where it takes what the order marks, else the plant
	OwnerERP     Owner = "erp" // the outside system: what the plant reports is not posted
	OwnerMES     Owner = "mes" // the plant
)

// Late says with which date a fact is posted whose own is in a closed period.
type Late string

// What happens to late facts.
const (
	LateEventDate    Late = "event_date" // its own: the system refuses it, and a person is asked
	LateFirstOpenDay Late = "first_open_day"
	LateHold         Late = "hold" // a person approves it and chooses the date
)

// Closing is when a month closes: on a day of the next month, at a time of the plant's clock.
type Closing struct {
	Day          int // 1 to 31; in a shorter month its last
	Hour, Minute int
}

// Doubtful says with which date a fact is posted whose clock was known to be wrong, when its date is in another month than the
// day on which the hub received it.
type Doubtful string

// What happens to facts with doubtful times.
const (
	DoubtfulReceivedDate Doubtful = "received_date"
	DoubtfulHold         Doubtful = "hold"
	DoubtfulEventDate    Doubtful = "event_date"
)

// Delivery says what happens when more is made than was ordered.
type Delivery string

// What happens to more than was ordered.
const (
	DeliveryAllow Delivery = "allow"
	DeliveryStop  Delivery = "stop" // a person raises the order or rejects it
)

// ClosedOrder says what happens to facts of an order that is completed already.
type ClosedOrder string

// What happens to facts of completed orders.
const (
	ClosedHold   ClosedOrder = "hold"   // a person reopens it, and replays
	ClosedReopen ClosedOrder = "reopen" // the hub does, and restores its state after the posting
)

// Collect makes one document of several facts of the same thing. What is zero ends no collecting.
type Collect struct {
	Every    time.Duration
	Quantity decimal.Decimal
	// OrderEnd: at the end of the order, which ends it always; then Every is 24 h when zero.
	OrderEnd bool
}

// decided is the first policy that fits and says something, or what was given for none.
func decided[T comparable](all []Policy, erp, plant string, of func(Policy) T, otherwise T) T {
	var nothing T
	for _, p := range all {
		if p.ERP != "" && p.ERP != erp || p.Plant != "" && p.Plant != plant {
			continue
		}
		if v := of(p); v != nothing {
			return v
		}
	}
	return otherwise
}

// BackflushOwner is who posts the consumption of an item: OwnerERP or OwnerMES where a policy says so, else OwnerERP where the
// system takes it by itself, else OwnerByOrder, and then the plant does. marked is the order's mark of the component, takes what
// the connector says of its system.
func BackflushOwner(all []Policy, erp, plant, item string, marked bool, takes connector.Backflush) Owner {
	byOrder := OwnerByOrder
	if marked && takes != connector.BackflushNever {
		byOrder = OwnerERP
	}
	return decided(all, erp, plant, func(p Policy) Owner {
		if len(p.Items) > 0 && !slices.Contains(p.Items, item) {
			return ""
		}
		return p.Backflush
	}, byOrder)
}

// Tolerance is by how many percent an order may be over-delivered, and what happens beyond.
func Tolerance(all []Policy, erp, plant string) (decimal.Decimal, Delivery) {
	percent := decimal.Zero
	if t := decided(all, erp, plant, func(p Policy) *decimal.Decimal { return p.Tolerance }, nil); t != nil {
		percent = *t
	}
	return percent, decided(all, erp, plant, func(p Policy) Delivery { return p.Delivery }, DeliveryAllow)
}

// LateBy is what happens to late facts of a plant, otherwise where no policy says it.
func LateBy(all []Policy, erp, plant string, otherwise Late) Late {
	return decided(all, erp, plant, func(p Policy) Late { return p.Late }, otherwise)
}

// ClosedBy is what happens to facts of completed orders of a plant.
func ClosedBy(all []Policy, erp, plant string) ClosedOrder {
	return decided(all, erp, plant, func(p Policy) ClosedOrder { return p.ClosedOrder }, ClosedHold)
}

func closingOf(all []Policy, erp, plant string) *Closing {
	return decided(all, erp, plant, func(p Policy) *Closing { return p.Closing }, nil)
}

func doubtfulBy(all []Policy, erp, plant string) Doubtful {
	return decided(all, erp, plant, func(p Policy) Doubtful { return p.Doubtful }, DoubtfulReceivedDate)
}

func collectOf(all []Policy, erp, plant string) *Collect {
	return decided(all, erp, plant, func(p Policy) *Collect { return p.Collect }, nil)
}

// Codes of what policies decide. They are stable.
const (
	CodeBackflushed   = "backflushed_by_erp" // not posted: the outside system takes the component by itself
	CodeLate          = "late_fact"          // parked: its date is in a closed period, and a person approves it
	CodeDoubtfulClock = "doubtful_clock"     // parked: its time is not to be believed, and a person approves its date
	CodeOverDelivery  = "over_delivery"      // parked: the order's quantity is exceeded
)

// owned settles a consumption that the outside system posts by itself, and reports whether it did.
func (e *Engine) owned(p *store.Posting, f object.Fact, w object.WorkOrder, takes connector.Backflush) bool {
	c := f.Consumption
	if c == nil {
		return false
	}
	marked := slices.ContainsFunc(w.Components, func(m object.Component) bool {
		return m.Backflush && m.Item == c.Item && (c.Reservation == "" || c.Reservation == m.Reservation) && (c.Operation == "" || m.Operation == "" || c.Operation == m.Operation)
	})
	if BackflushOwner(e.o.Policies, w.ERP, p.Plant, c.Item, marked, takes) != OwnerERP {
		return false
	}
	notPosted(p, CodeBackflushed, fmt.Sprintf("system %q takes item %q of order %q by itself with each confirmation: it owns the consumption, and posting it here would take it twice", w.ERP, c.Item, w.OrderNo))
	return true
}

// zone is the zone of a plant's calendar: as configured, else the fact's own.
func (e *Engine) zone(f object.Fact) *time.Location {
	if z := e.o.Zones[f.Plant]; z != nil {
		return z
	}
	if z, err := time.LoadLocation(cmp.Or(f.TimeZone, "UTC")); err == nil {
		return z
	}
	return time.UTC
}
