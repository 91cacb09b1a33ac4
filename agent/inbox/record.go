package inbox

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/status"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// States that an order's history shows. The first five are made here, the others come from the shop floor (as do accepted
// and rejected of some receivers).
const (
	stateSent       = "sent"       // when the hub saw the revision
	stateStored     = "stored"     // when it was durable here
	stateDelivered  = "delivered"  // when the receiver had it
	stateRejected   = "rejected"   // the receiver will not take it
	stateSuperseded = "superseded" // a newer revision came before this one was delivered
	stateAccepted   = "accepted"
	stateStarted    = "started"
	stateHeld       = "held"
	stateFinished   = "finished"
	stateCancelled  = "cancelled"
)

// none is no revision.
const none = -1

// maxHistory bounds an order's history; its first steps stay.
const maxHistory = 200

// record is all that is known of one order. In memory it is never changed but replaced by a changed clone.
type record struct {
	Arrival   uint64             `json:"arrival"`
	Order     []byte             `json:"order"` // encoded WorkOrder of the newest revision
	Revision  int64              `json:"revision"`
	Tried     int64              `json:"tried"` // newest revision offered to the receiver, delivered to it, refused by it
	Delivered int64              `json:"delivered"`
	Refused   int64              `json:"refused"`
	Why       string             `json:"why,omitempty"`   // of the refusal
	Place     string             `json:"place,omitempty"` // which receiver was offered it last, and as an order for which work centre
	Center    string             `json:"center,omitempty"`
	Note      string             `json:"note,omitempty"` // something odd about what the hub sent
	History   []status.OrderStep `json:"history"`

	order *pb.WorkOrder
}

func newRecord(arrival uint64) *record {
	return &record{Arrival: arrival, Revision: none, Tried: none, Delivered: none, Refused: none}
}

func (r *record) clone() *record {
	c := *r
	c.History = slices.Clone(r.History)
	return &c
}

// revise takes a newer revision over.
func (r *record) revise(o *pb.WorkOrder, now time.Time) error {
	body, err := proto.Marshal(o)
	if err != nil {
		return fmt.Errorf("write down work order %q: %w", o.GetOrderNo(), err)
	}
	if r.pending() {
		r.step(stateSuperseded, r.Revision, now, "")
	}
	r.Order, r.Revision, r.order, r.Note = body, o.GetRevision(), o, ""
	if at := timeOf(o.GetRevisedAt()); !at.IsZero() {
		r.step(stateSent, r.Revision, at, "")
	}
	r.step(stateStored, r.Revision, now, "")
	return nil
}

// compareRevision looks at a revision that is not newer. The same number with other content is a fault at the hub: it is
// shown and not taken, because the receiver knows a revision by its number.
func (r *record) compareRevision(o *pb.WorkOrder) error {
	if o.GetRevision() < r.Revision || proto.Equal(o, r.order) {
		return nil
	}
	a, b := proto.Clone(o).(*pb.WorkOrder), proto.Clone(r.order).(*pb.WorkOrder)
	a.RevisedAt, b.RevisedAt = nil, nil // a restored hub sees the same revision at another time
	if !proto.Equal(a, b) {
		r.Note = fmt.Sprintf("the hub sent revision %d again with other content; the first one stands", r.Revision)
	}
	return nil
}

func (r *record) step(state string, revision int64, at time.Time, reason string) {
	r.History = append(r.History, status.OrderStep{State: state, Revision: revision, At: at, Reason: reason})
	r.bound()
}

func (r *record) bound() {
	if len(r.History) > maxHistory {
		const keepFirst = 5
		r.History = slices.Delete(r.History, keepFirst, keepFirst+len(r.History)-maxHistory)
	}
}

func (r *record) delivered(revision int64, at time.Time) bool {
	if revision <= r.Delivered {
		return false
	}
	r.Delivered, r.Tried = revision, max(r.Tried, revision)
	r.step(stateDelivered, revision, at, "")
	return true
}

func (r *record) refused(revision int64, reason string, at time.Time) bool {
	if revision <= r.Refused {
		return false
	}
	r.Refused, r.Tried, r.Why = revision, max(r.Tried, revision), reason
	r.step(stateRejected, revision, at, reason)
	return true
}

// touched reports whether the receiver has, or may have, some revision.
func (r *record) touched() bool { return r.Delivered > none || r.Tried > r.Refused }

// pending reports whether the receiver has yet to be offered the newest revision. Orders that are not released yet or are
// closed in the ERP are nobody's business on the shop floor; a cancellation is, for whoever may have the order.
func (r *record) pending() bool {
	if r.Revision == none || r.Delivered >= r.Revision || r.Refused >= r.Revision {
		return false
	}
	switch r.order.GetState() {
	case pb.WorkOrder_STATE_UNSPECIFIED, pb.WorkOrder_STATE_RELEASED, pb.WorkOrder_STATE_IN_PROGRESS:
		return true
	case pb.WorkOrder_STATE_CANCELLED:
		return r.touched()
	}
	return false
}

// holding reports whether a receiver that may have the order has yet to be told that it is held.
func (r *record) holding() bool {
	return r.Revision > none && r.Delivered < r.Revision && r.Refused < r.Revision && isHeld(r.order) && r.touched()
}

// isHeld says that an order must not be worked on for now: the ERP holds it, or took its release back.
func isHeld(o *pb.WorkOrder) bool {
	return o.GetState() == pb.WorkOrder_STATE_HELD || o.GetState() == pb.WorkOrder_STATE_PLANNED
}

// settled reports that nothing more is expected of the order.
func (r *record) settled() bool {
	if r.pending() {
		return false
	}
	switch r.order.GetState() {
	case pb.WorkOrder_STATE_CANCELLED, pb.WorkOrder_STATE_COMPLETED, pb.WorkOrder_STATE_CLOSED:
		return true
	}
	s := r.floor()
	return s != nil && (s.State == stateFinished || s.State == stateCancelled)
}

var floorStates = map[pb.OrderState_State]string{
	pb.OrderState_STATE_DELIVERED: stateDelivered, pb.OrderState_STATE_ACCEPTED: stateAccepted, pb.OrderState_STATE_REJECTED: stateRejected,
	pb.OrderState_STATE_STARTED: stateStarted, pb.OrderState_STATE_HELD: stateHeld, pb.OrderState_STATE_FINISHED: stateFinished,
	pb.OrderState_STATE_CANCELLED: stateCancelled,
}

// ofOperation begins the steps that end one operation of an order which has others: the order goes on.
const ofOperation = "operation "

// operationEnd is the step of such an end; empty when it ends the order, or nothing.
func (r *record) operationEnd(s *pb.OrderState) string {
	state := floorStates[s.GetState()]
	if s.GetOperation() == "" || len(r.order.GetOperations()) < 2 || state != stateFinished && state != stateCancelled {
		return ""
	}
	return ofOperation + s.GetOperation() + " " + state
}

// isFloor says that the state was reported by the shop floor.
func isFloor(state string) bool {
	switch state {
	case stateAccepted, stateRejected, stateStarted, stateHeld, stateFinished, stateCancelled:
		return true
	}
	return false
}

// apply puts news of the shop floor where its time belongs.
func (r *record) apply(s *pb.OrderState, at time.Time) bool {
	state := floorStates[s.GetState()]
	revision := s.GetRevision()
	switch state {
	case "":
		return false
	case stateDelivered, stateRejected:
		if revision == 0 {
			revision = max(r.Tried, r.Delivered) // the only one it can mean
		}
		revision = min(revision, r.Revision)
		if state == stateDelivered {
			return r.delivered(revision, at)
		}
		return r.refused(revision, s.GetReason(), at)
	}
	if step := r.operationEnd(s); step != "" {
		state = step
	}
	return r.insert(status.OrderStep{State: state, Revision: revision, At: at, Reason: s.GetReason()})
}

// insert puts a step of the shop floor among its like by time. Of a run of equal steps the first and the last stay: one
// that comes late may belong between them.
func (r *record) insert(n status.OrderStep) bool {
	i := len(r.History)
	for i > 0 && (isFloor(r.History[i-1].State) || strings.HasPrefix(r.History[i-1].State, ofOperation)) && r.History[i-1].At.After(n.At) {
		i--
	}
	same := func(j int) bool {
		return j >= 0 && j < len(r.History) && r.History[j].State == n.State && r.History[j].Revision == n.Revision
	}
	for j := i - 1; same(j); j-- {
		if r.History[j].At.Equal(n.At) {
			return false
		}
	}
	switch {
	case same(i-1) && same(i):
		return false
	case same(i-1) && same(i-2):
		r.History[i-1] = n
	case same(i) && same(i+1):
		r.History[i] = n
	default:
		r.History = slices.Insert(r.History, i, n)
		r.bound()
	}
	return true
}

// floor returns the latest news of the shop floor, nil when there is none. A rejection counts for its own revision only.
func (r *record) floor() *status.OrderStep {
	var last *status.OrderStep
	for i := range r.History {
		s := &r.History[i]
		if !isFloor(s.State) || s.State == stateRejected && s.Revision < r.Revision {
			continue
		}
		if last == nil || !s.At.Before(last.At) {
			last = s
		}
	}
	return last
}

// state says where the order is, with a plain reason where one is needed.
func (r *record) state() (state, reason string) {
	erp := r.order.GetState()
	switch {
	case erp == pb.WorkOrder_STATE_CANCELLED && r.pending():
		return stateCancelled, "the shop floor does not know yet"
	case erp == pb.WorkOrder_STATE_CANCELLED && r.Refused >= r.Revision:
		return stateRejected, "the receiver did not take the cancellation: " + r.Why
	case erp == pb.WorkOrder_STATE_CANCELLED:
		return stateCancelled, ""
	}
	over := erp == pb.WorkOrder_STATE_COMPLETED || erp == pb.WorkOrder_STATE_CLOSED
	if s := r.floor(); s != nil && (!over || s.State == stateFinished || s.State == stateCancelled) {
		if r.pending() && r.Delivered > none {
			return s.State, fmt.Sprintf("revision %d is not delivered yet", r.Revision)
		}
		return s.State, s.Reason
	}
	switch {
	case over:
		return stateFinished, "completed in the ERP"
	case r.Delivered >= r.Revision:
		return stateDelivered, ""
	case erp == pb.WorkOrder_STATE_PLANNED:
		return stateStored, "not released in the ERP yet"
	case erp == pb.WorkOrder_STATE_HELD:
		return stateStored, "held in the ERP"
	case r.Delivered > none:
		return stateStored, fmt.Sprintf("revision %d is not delivered yet, the shop floor has revision %d", r.Revision, r.Delivered)
	}
	return stateStored, ""
}

func (r *record) view() status.Order {
	state, reason := r.state()
	if reason == "" {
		reason = r.Note
	}
	return status.Order{
		OrderNo: r.order.GetOrderNo(), Revision: r.Revision, WorkCenter: r.order.GetWorkCenter(), Item: r.order.GetItem(),
		Quantity: r.order.GetQuantity().GetValue(), Unit: r.order.GetQuantity().GetUnit(), State: state, Reason: reason,
		History: slices.CompactFunc(slices.Clone(r.History), func(a, b status.OrderStep) bool {
			// A machine that shows its order knows no revision: what the MES says of the same state is the same news.
			return isFloor(a.State) && a.State == b.State && (a.Revision == b.Revision || a.Revision == 0 || b.Revision == 0)
		}),
	}
}

func convert(o *pb.WorkOrder) signal.WorkOrder {
	w := signal.WorkOrder{
		OrderNo: o.GetOrderNo(), Revision: o.GetRevision(), Cancelled: o.GetState() == pb.WorkOrder_STATE_CANCELLED,
		Held:  isHeld(o),
		Plant: o.GetPlant(), WorkCenter: o.GetWorkCenter(), Item: o.GetItem(), Description: o.GetItemDescription(),
		Quantity: signal.Number(o.GetQuantity().GetValue()), Unit: o.GetQuantity().GetUnit(), Priority: o.GetPriority(), Lot: o.GetLot(),
		PlannedStart: timeOf(o.GetPlannedStart()), PlannedEnd: timeOf(o.GetPlannedEnd()),
	}
	for _, op := range o.GetOperations() {
		w.Operations = append(w.Operations, signal.Operation{
			Operation: op.GetOperation(), Description: op.GetDescription(), WorkCenter: op.GetWorkCenter(),
			Quantity: signal.Number(op.GetQuantity().GetValue()), Unit: op.GetQuantity().GetUnit(),
		})
	}
	for _, c := range o.GetComponents() {
		w.Components = append(w.Components, signal.Component{
			Item: c.GetItem(), Description: c.GetDescription(), Required: signal.Number(c.GetRequired().GetValue()), Unit: c.GetRequired().GetUnit(),
			Operation: c.GetOperation(), Reservation: c.GetReservation(), Backflush: c.GetBackflush(),
		})
	}
	return w
}

func timeOf(t *timestamppb.Timestamp) time.Time {
	if !t.IsValid() { // a year that JSON cannot write must not keep the rest from being stored
		return time.Time{}
	}
	return t.AsTime()
}

// arrived is a receipt and its place in the order of arrival.
type arrived struct {
	arrival uint64
	receipt *pb.Receipt
}

// newestReceipts returns up to n receipts of a list, the newest first.
func newestReceipts(tx *bbolt.Tx, list []byte, n int) ([]arrived, error) {
	var out []arrived
	all := tx.Bucket(buckets.receipts)
	cur := tx.Bucket(list).Cursor()
	for k, v := cur.Last(); k != nil && len(out) < n; k, v = cur.Prev() {
		key, err := unseal(v)
		if err != nil {
			return nil, err
		}
		rc, arrival, err := readReceipt(all.Get(key))
		if err != nil {
			return nil, err
		}
		if rc != nil {
			out = append(out, arrived{arrival, rc})
		}
	}
	return out, nil
}

var outcomes = map[pb.Receipt_Outcome]string{
	pb.Receipt_OUTCOME_RECEIVED: "received", pb.Receipt_OUTCOME_POSTED: "posted", pb.Receipt_OUTCOME_VERIFIED: "verified",
	pb.Receipt_OUTCOME_REJECTED: "rejected", pb.Receipt_OUTCOME_IN_DOUBT: "in_doubt", pb.Receipt_OUTCOME_NOT_POSTED: "not_posted",
}

func viewReceipt(rc *pb.Receipt) status.Receipt {
	key, _ := factkey.FromBytes(rc.GetFactKey()) // was checked when it came
	outcome, known := outcomes[rc.GetOutcome()]
	if !known {
		outcome = "received"
	}
	return status.Receipt{
		Key: key.String(), OrderNo: rc.GetOrderNo(), Outcome: outcome, Document: rc.GetDocument(), Reason: rc.GetReason(), At: timeOf(rc.GetAt()),
	}
}
