// Package wire turns what travels on the uplink into the hub's canonical objects, and back.
//
// It owns the mapping between the generated messages and package object, the strict reading of decimal text, and the hash
// that tells "the same fact again" from "another fact under the same key". It promises that a fact it returned has exact
// quantities, known states and times in the plant's zone, and that its errors name the field at fault. It never fills in a
// value that was not sent, and it touches no clock, network or file other than the time zone database.
package wire

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
	"github.com/shopspring/decimal"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// DecodeFact reads one record of the business stream. The error is a sentence that names what is wrong with it.
func DecodeFact(record []byte) (object.Fact, error) {
	var m pb.Fact
	if err := proto.Unmarshal(record, &m); err != nil {
		return object.Fact{}, fmt.Errorf("decode fact: %w", err)
	}
	return FactFromProto(&m)
}

// EncodeFact is the inverse of DecodeFact.
func EncodeFact(f object.Fact) ([]byte, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(FactToProto(f))
	if err != nil {
		return nil, fmt.Errorf("encode fact %q: %w", f.Key, err)
	}
	return b, nil
}

// FactFromProto checks a fact and converts it. Quantities must be decimal text, times present, the zone known.
func FactFromProto(m *pb.Fact) (object.Fact, error) {
	key, err := factkey.FromBytes(m.GetKey())
	if err != nil {
		return object.Fact{}, err
	}
	f := object.Fact{Key: key}
	if err := header(&f, m.GetHeader()); err != nil {
		return object.Fact{}, fmt.Errorf("fact %q: %w", key, err)
	}
	if err := content(&f, m); err != nil {
		return object.Fact{}, fmt.Errorf("fact %q: %w", key, err)
	}
	return f, nil
}

func header(f *object.Fact, h *pb.Header) error {
	if h == nil || h.GetPlant() == "" || h.GetSource() == "" {
		return fmt.Errorf("header names no plant or no source")
	}
	zone, err := Zone(h.GetTimeZone())
	if err != nil {
		return err
	}
	f.Plant, f.Source, f.Rule, f.TimeZone = h.GetPlant(), h.GetSource(), h.GetRule(), h.GetTimeZone()
	f.Equipment, f.Position = h.GetEquipment(), h.GetPosition()
	if f.OccurredAt = instant(h.GetOccurredAt(), zone); f.OccurredAt.IsZero() {
		return fmt.Errorf("header has no valid occurred_at")
	}
	f.RecordedAt, f.ClockSuspect = instant(h.GetRecordedAt(), zone), h.GetClockSuspect()
	f.Shift, f.ShiftDate, f.PostingDate = h.GetShift(), h.GetShiftDate(), h.GetPostingDate()
	for _, date := range []string{f.ShiftDate, f.PostingDate} {
		if _, err := time.Parse(time.DateOnly, date); err != nil && date != "" {
			return fmt.Errorf("header has date %q, which is none like 2026-03-01", date)
		}
	}
	if r := h.GetReverses(); len(r) > 0 {
		if f.Reverses, err = factkey.FromBytes(r); err != nil {
			return fmt.Errorf("header reverses: %w", err)
		}
	}
	return nil
}

func content(f *object.Fact, m *pb.Fact) error {
	zone := f.OccurredAt.Location()
	switch c := m.GetContent().(type) {
	case *pb.Fact_ProductionConfirmation:
		f.Kind = object.KindConfirmation
		return confirmation(f, c.ProductionConfirmation, zone)
	case *pb.Fact_MaterialConsumption:
		f.Kind = object.KindConsumption
		return consumption(f, c.MaterialConsumption)
	case *pb.Fact_QualityStatus:
		f.Kind = object.KindQuality
		return quality(f, c.QualityStatus)
	case *pb.Fact_OrderState:
		f.Kind = object.KindOrderState
		return floorState(f, c.OrderState)
	case *pb.Fact_SourceException:
		e := c.SourceException
		f.Kind = object.KindException
		f.Exception = &object.Exception{
			Code: e.GetCode(), Item: e.GetItem(), Reason: e.GetReason(), NextStep: e.GetNextStep(), Excerpt: e.GetPayloadExcerpt(),
		}
		var err error
		f.Exception.Step, err = counterStep(e.GetCounterStep(), zone)
		return err
	}
	return fmt.Errorf("content is of a kind that this hub does not know")
}

var stepOutcomes = map[pb.CounterStep_Outcome]object.StepOutcome{
	pb.CounterStep_OUTCOME_WAITS:     object.StepWaits,
	pb.CounterStep_OUTCOME_HELD:      object.StepHeld,
	pb.CounterStep_OUTCOME_FROM_ZERO: object.StepFromZero,
	pb.CounterStep_OUTCOME_CORRECTED: object.StepCorrected,
}

// counterStep reads the evidence of a counter that went back. An outcome that this hub does not know stays empty: a person decides.
func counterStep(s *pb.CounterStep, zone *time.Location) (*object.CounterStep, error) {
	if s == nil {
		return nil, nil
	}
	out := &object.CounterStep{Tag: s.GetTag(), Epoch: s.GetEpoch(), LastAt: instant(s.GetLastAt(), zone), At: instant(s.GetAt(), zone), Booted: s.GetBooted(), Outcome: stepOutcomes[s.GetOutcome()]}
	var err error
	if out.Last, err = Decimal("counter_step.last", s.GetLast()); err != nil {
		return nil, err
	}
	if out.Now, err = Decimal("counter_step.now", s.GetNow()); err != nil {
		return nil, err
	}
	if out.Modulus, err = optional("counter_step.modulus", s.GetModulus()); err != nil {
		return nil, err
	}
	out.MaxPerSecond, err = optional("counter_step.max_per_second", s.GetMaxPerSecond())
	return out, err
}

func counterStepToProto(s *object.CounterStep) *pb.CounterStep {
	if s == nil {
		return nil
	}
	m := &pb.CounterStep{Tag: s.Tag, Epoch: s.Epoch, Last: s.Last.String(), Now: s.Now.String(), LastAt: stamp(s.LastAt), At: stamp(s.At), Modulus: nonZero(s.Modulus),
		MaxPerSecond: nonZero(s.MaxPerSecond), Booted: s.Booted}
	for o, is := range stepOutcomes {
		if is == s.Outcome {
			m.Outcome = o
		}
	}
	return m
}

func confirmation(f *object.Fact, c *pb.ProductionConfirmation, zone *time.Location) (err error) {
	out := &object.Confirmation{
		OrderNo: c.GetOrderNo(), Operation: c.GetOperation(), Item: c.GetItem(), Unit: c.GetUnit(), ScrapReason: c.GetScrapReason(),
		Final: c.GetFinal(), StartedAt: instant(c.GetStartedAt(), zone), FinishedAt: instant(c.GetFinishedAt(), zone),
		Lot: c.GetLot(), Person: c.GetPerson(), Shift: c.GetShift(),
		Serial: c.GetSerial(), ScrapReasonText: c.GetScrapReasonText(),
	}
	if out.Yield, err = optional("yield", c.GetYield()); err != nil {
		return err
	}
	if out.Scrap, err = optional("scrap", c.GetScrap()); err != nil {
		return err
	}
	if out.Rework, err = optional("rework", c.GetRework()); err != nil {
		return err
	}
	f.Confirmation = out
	out.CounterRange, err = counterRange(c.GetCounterRange())
	return err
}

func counterRange(r *pb.CounterRange) (*object.CounterRange, error) {
	if r == nil {
		return nil, nil
	}
	out := &object.CounterRange{Tag: r.GetTag(), Epoch: r.GetEpoch()}
	var err error
	if out.From, err = Decimal("counter_range.from", r.GetFrom()); err != nil {
		return nil, err
	}
	if out.To, err = Decimal("counter_range.to", r.GetTo()); err != nil {
		return nil, err
	}
	return out, nil
}

func consumption(f *object.Fact, c *pb.MaterialConsumption) (err error) {
	out := &object.Consumption{
		OrderNo: c.GetOrderNo(), Operation: c.GetOperation(), Item: c.GetItem(), Lot: c.GetLot(), Reservation: c.GetReservation(),
	}
	if out.Quantity, err = quantity("quantity", c.GetQuantity()); err != nil {
		return err
	}
	switch c.GetMovement() {
	case pb.MaterialConsumption_MOVEMENT_ISSUE:
		out.Movement = object.Issue
	case pb.MaterialConsumption_MOVEMENT_RETURN:
		out.Movement = object.Return
	default:
		return fmt.Errorf("movement %d is neither issue nor return", c.GetMovement())
	}
	f.Consumption = out
	out.CounterRange, err = counterRange(c.GetCounterRange())
	return err
}

func quality(f *object.Fact, c *pb.QualityStatus) (err error) {
	out := &object.Quality{
		OrderNo: c.GetOrderNo(), Item: c.GetItem(), Lot: c.GetLot(), Serial: c.GetSerial(),
		Status: c.GetStatus(), Disposition: c.GetDisposition(), Reason: c.GetReason(),
	}
	if q := c.GetQuantity(); q != nil {
		if out.Quantity, err = quantity("quantity", q); err != nil {
			return err
		}
	}
	f.Quality = out
	return nil
}

var floorStates = map[pb.OrderState_State]object.FloorState{
	pb.OrderState_STATE_DELIVERED: object.FloorDelivered,
	pb.OrderState_STATE_ACCEPTED:  object.FloorAccepted,
	pb.OrderState_STATE_REJECTED:  object.FloorRejected,
	pb.OrderState_STATE_STARTED:   object.FloorStarted,
	pb.OrderState_STATE_HELD:      object.FloorHeld,
	pb.OrderState_STATE_FINISHED:  object.FloorFinished,
	pb.OrderState_STATE_CANCELLED: object.FloorCancelled,
}

func floorState(f *object.Fact, c *pb.OrderState) error {
	state, ok := floorStates[c.GetState()]
	if !ok {
		return fmt.Errorf("order state %d is not known", c.GetState())
	}
	if c.GetOrderNo() == "" {
		return fmt.Errorf("order state names no order")
	}
	f.OrderState = &object.ShopFloorState{
		OrderNo: c.GetOrderNo(), Revision: c.GetRevision(), State: state, Reason: c.GetReason(), Operation: c.GetOperation(),
	}
	return nil
}

func quantity(field string, q *pb.Quantity) (object.Quantity, error) {
	v, err := Decimal(field, q.GetValue())
	return object.Quantity{Value: v, Unit: q.GetUnit()}, err
}

func optional(field, text string) (decimal.Decimal, error) {
	if text == "" {
		return decimal.Decimal{}, nil
	}
	return Decimal(field, text)
}

// Decimal reads decimal text as the contract defines it: an optional minus, 1 to 22 digits, at most 9 decimals. field names
// the text in the error.
func Decimal(field, text string) (decimal.Decimal, error) {
	if !decimalText(text) {
		return decimal.Decimal{}, fmt.Errorf("%s %q is not decimal text (22 digits, at most 9 decimals)", field, text)
	}
	v, err := decimal.NewFromString(text)
	if err != nil {
		return decimal.Decimal{}, fmt.Errorf("%s %q: %w", field, text, err)
	}
	return v, nil
}

func decimalText(s string) bool {
	if s != "" && s[0] == '-' {
		s = s[1:]
	}
	whole := digits(s)
	if whole < 1 || whole > 22 {
		return false
	}
	if s = s[whole:]; s == "" {
		return true
	}
	if s[0] != '.' {
		return false
	}
	s = s[1:]
	n := digits(s)
	return n >= 1 && n <= 9 && n == len(s)
}

func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}

func instant(t *timestamppb.Timestamp, zone *time.Location) time.Time {
	if t == nil || t.CheckValid() != nil {
		return time.Time{}
	}
	return t.AsTime().In(zone)
}

var zones sync.Map // IANA name -> *time.Location

// Zone returns the location of an IANA zone name, read once. An empty or unknown name is an error: a posting date must
// never depend on a guess.
func Zone(name string) (*time.Location, error) {
	if z, ok := zones.Load(name); ok {
		return z.(*time.Location), nil
	}
	if name == "" || name == "Local" {
		return nil, fmt.Errorf("header names no time zone")
	}
	z, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("time zone %q is not known: %w", name, err)
	}
	zones.Store(name, z)
	return z, nil
}

// ContentHash is the hash of a fact's business content. Two facts with equal keys and equal hashes are the same fact.
//
// It leaves out the key itself and what an agent restored from an old copy makes anew: when the fact was recorded, the name
// of the rule, the shift, what a reason's code means, and, for a fact with a counter range or an order's change of state, the times at which that was read.
// Quantities count by value, so that 1.0 equals 1.00.
func ContentHash(f object.Fact) [32]byte {
	w := hasher{sha256.New()}
	w.text(string(f.Kind), f.Plant, f.Source, f.Equipment, string(f.Reverses[:]))
	observed := f.CounterRange()
	// What is observed, not told, is seen again at another time by an agent whose memory went back: counts, and the order that
	// runs. Their key says which one it is.
	if observed == nil && f.OrderState == nil {
		w.time(f.OccurredAt)
	}
	switch {
	case f.Confirmation != nil:
		c := f.Confirmation
		w.text(c.OrderNo, c.Operation, c.Item, c.Unit, c.ScrapReason, c.Lot, c.Person, c.Shift, fmt.Sprint(c.Final))
		w.number(c.Yield, c.Scrap, c.Rework)
		if c.Serial != "" { // only then, so that facts of before keep their hash
			w.text(c.Serial)
		}
		if observed == nil {
			w.time(c.StartedAt, c.FinishedAt)
		}
	case f.Consumption != nil:
		c := f.Consumption
		w.text(c.OrderNo, c.Operation, c.Item, c.Lot, string(c.Movement), c.Reservation, c.Quantity.Unit)
		w.number(c.Quantity.Value)
	case f.Quality != nil:
		c := f.Quality
		w.text(c.OrderNo, c.Item, c.Lot, c.Serial, c.Status, c.Disposition, c.Reason, c.Quantity.Unit)
		w.number(c.Quantity.Value)
	case f.OrderState != nil:
		c := f.OrderState
		w.text(c.OrderNo, fmt.Sprint(c.Revision), string(c.State), c.Reason, c.Operation)
	case f.Exception != nil:
		w.text(f.Exception.Code, f.Exception.Item, string(f.Exception.Excerpt))
	}
	if observed != nil {
		w.text(observed.Tag, observed.Epoch)
		w.number(observed.From, observed.To)
	}
	return [32]byte(w.Sum(nil))
}

// hasher writes values so that no two lists of values give the same bytes.
type hasher struct{ hash.Hash }

func (w hasher) text(values ...string) {
	for _, v := range values {
		fmt.Fprintf(w, "%d:%s", len(v), v)
	}
}

func (w hasher) number(values ...decimal.Decimal) {
	for _, v := range values {
		w.text(v.String()) // without trailing zeros: equal numbers give equal text
	}
}

func (w hasher) time(values ...time.Time) {
	for _, v := range values {
		if v.IsZero() {
			w.text("")
			continue
		}
		w.text(v.UTC().Format(time.RFC3339Nano))
	}
}

// FactToProto converts a fact to what travels.
func FactToProto(f object.Fact) *pb.Fact {
	m := &pb.Fact{Key: f.Key[:], Header: &pb.Header{
		Plant: f.Plant, Source: f.Source, Rule: f.Rule, OccurredAt: stamp(f.OccurredAt), RecordedAt: stamp(f.RecordedAt),
		TimeZone: f.TimeZone, Equipment: f.Equipment, Position: f.Position, ClockSuspect: f.ClockSuspect,
		Shift: f.Shift, ShiftDate: f.ShiftDate, PostingDate: f.PostingDate,
	}}
	if !f.Reverses.IsZero() {
		m.Header.Reverses = f.Reverses[:]
	}
	switch {
	case f.Confirmation != nil:
		m.Content = &pb.Fact_ProductionConfirmation{ProductionConfirmation: confirmationToProto(f.Confirmation)}
	case f.Consumption != nil:
		c := f.Consumption
		movement := pb.MaterialConsumption_MOVEMENT_ISSUE
		if c.Movement == object.Return {
			movement = pb.MaterialConsumption_MOVEMENT_RETURN
		}
		m.Content = &pb.Fact_MaterialConsumption{MaterialConsumption: &pb.MaterialConsumption{
			OrderNo: c.OrderNo, Operation: c.Operation, Item: c.Item, Quantity: quantityToProto(c.Quantity), Lot: c.Lot,
			Movement: movement, Reservation: c.Reservation, CounterRange: counterRangeToProto(c.CounterRange),
		}}
	case f.Quality != nil:
		c := f.Quality
		q := &pb.QualityStatus{
			OrderNo: c.OrderNo, Item: c.Item, Lot: c.Lot, Serial: c.Serial,
			Status: c.Status, Disposition: c.Disposition, Reason: c.Reason,
		}
		if !c.Quantity.Value.IsZero() || c.Quantity.Unit != "" {
			q.Quantity = quantityToProto(c.Quantity)
		}
		m.Content = &pb.Fact_QualityStatus{QualityStatus: q}
	case f.OrderState != nil:
		c := f.OrderState
		s := &pb.OrderState{OrderNo: c.OrderNo, Revision: c.Revision, Reason: c.Reason, Operation: c.Operation}
		for wireState, state := range floorStates {
			if state == c.State {
				s.State = wireState
			}
		}
		m.Content = &pb.Fact_OrderState{OrderState: s}
	case f.Exception != nil:
		e := f.Exception
		m.Content = &pb.Fact_SourceException{SourceException: &pb.SourceException{
			Code: e.Code, Item: e.Item, Reason: e.Reason, NextStep: e.NextStep, PayloadExcerpt: e.Excerpt,
			CounterStep: counterStepToProto(e.Step),
		}}
	}
	return m
}

func confirmationToProto(c *object.Confirmation) *pb.ProductionConfirmation {
	m := &pb.ProductionConfirmation{
		OrderNo: c.OrderNo, Operation: c.Operation, Item: c.Item, Yield: nonZero(c.Yield), Scrap: nonZero(c.Scrap),
		Rework: nonZero(c.Rework), Unit: c.Unit, ScrapReason: c.ScrapReason, Final: c.Final, StartedAt: stamp(c.StartedAt),
		FinishedAt: stamp(c.FinishedAt), Lot: c.Lot, Person: c.Person, Shift: c.Shift,
		Serial: c.Serial, ScrapReasonText: c.ScrapReasonText,
	}
	m.CounterRange = counterRangeToProto(c.CounterRange)
	return m
}

func counterRangeToProto(r *object.CounterRange) *pb.CounterRange {
	if r == nil {
		return nil
	}
	return &pb.CounterRange{Tag: r.Tag, Epoch: r.Epoch, From: r.From.String(), To: r.To.String()}
}

func nonZero(v decimal.Decimal) string {
	if v.IsZero() {
		return ""
	}
	return v.String()
}

func quantityToProto(q object.Quantity) *pb.Quantity {
	return &pb.Quantity{Value: q.Value.String(), Unit: q.Unit}
}

func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
