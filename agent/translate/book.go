package translate

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// row returns the ledger's row of k, to be changed: it is written back at the end of the call.
func (w *work) row(k rowKey) *row {
	w.scratch = k.append(w.scratch[:0])
	if r, ok := w.rows[string(w.scratch)]; ok {
		return r
	}
	name, r := string(w.scratch), &row{}
	if b := w.st.State(name); len(b) > 0 {
		var err error
		if r, err = decodeRow(b); err != nil {
			panic(fmt.Sprintf("read own state: %v", err))
		}
	}
	r.name, r.day = name, w.now.Unix()/86400
	if w.rows == nil {
		w.rows = map[string]*row{}
	}
	w.rows[name] = r
	w.rowOrder = append(w.rowOrder, r)
	return r
}

// account is the rows of what a record is booked on, one for each kind of quantity, nil where it was not asked for yet.
type account struct {
	at   rowKey // without kind
	rows [len(kindsOfRecords)]*row
}

var kindsOfRecords = [...]string{kindYield, kindScrap, kindRework, kindConsumed, kindReturned}

const (
	ofYield = iota
	ofScrap
	ofRework
	ofConsumed
	ofReturned
)

// account returns what d is booked on. Records of an order mostly are booked on the same, so that it is found by the order alone.
func (w *work) account(d *draft) *account {
	at := rowKey{source: d.rule.source, order: d.text[fOrder], operation: d.text[fOperation], item: d.text[fItem], unit: d.text[fUnit]}
	a := w.accounts[at.order]
	if a == nil {
		if w.accounts == nil {
			w.accounts = map[string]*account{}
		}
		a = &account{at: at}
		w.accounts[at.order] = a
	} else if a.at != at {
		*a = account{at: at}
	}
	return a
}

func (w *work) rowOf(a *account, kind int) *row {
	if a.rows[kind] == nil {
		k := a.at
		k.kind = kindsOfRecords[kind]
		a.rows[kind] = w.row(k)
	}
	return a.rows[kind]
}

// book makes a draft a fact: ledger, order states, encoding. A record that came before makes nothing.
func (w *work) book(d *draft) *fault {
	if d.position != "" {
		before, same := w.seen(d.rule.source, d.key, d.hash)
		if before && !same {
			return &fault{"conflict", d.position, fmt.Sprintf("a record with the same identity and other content was taken before (fact %s)", d.key),
				"give a changed record a new id or row version at its source; a correction is a reversal and a new record"}
		}
		if before {
			if w.explain != nil {
				w.say(d.rule.name, "repeated", "fact %s was made of it before", d.key)
			}
			return nil
		}
	}
	switch d.rule.fact {
	case factConfirmation:
		w.bookConfirmation(d)
	case factConsumption:
		w.bookConsumption(d)
	case factQuality:
		w.bookQuality(d)
	case factOrderState:
		w.bookOrderState(d)
	}
	return nil
}

// settle books a quantity of a record in the ledger and returns its text for the fact; "" for none. text is the quantity as
// the source wrote it, which travels as it is where nothing has to be rounded.
func (w *work) settle(d *draft, a *account, kind int, q amount, text string) string {
	if q.isZero() {
		return ""
	}
	r := w.rowOf(a, kind)
	if q.big == nil && q.places <= d.rule.places && r.rest.isZero() {
		r.record(q)
		return text
	}
	exact := q.decimal()
	r.count(exact)
	return r.settle(exact, d.rule.places).String()
}

func (w *work) bookConfirmation(d *draft) {
	e, a := w.enc.confirmation(), w.account(d)
	e.Yield, e.Scrap, e.Rework = w.settle(d, a, ofYield, d.yield, d.text[fYield]), w.settle(d, a, ofScrap, d.scrap, d.text[fScrap]), w.settle(d, a, ofRework, d.rework, d.text[fRework])
	e.OrderNo, e.Operation, e.Item, e.Unit = d.text[fOrder], d.text[fOperation], d.text[fItem], d.text[fUnit]
	e.ScrapReason, e.Final, e.Lot, e.Person, e.Shift = d.text[fScrapReason], d.final, d.text[fLot], d.text[fPerson], d.text[fShift]
	e.StartedAt, e.FinishedAt = w.enc.time(&w.enc.started, d.started), w.enc.time(&w.enc.finished, d.finished)
	e.CounterRange, e.Serial, e.ScrapReasonText = nil, d.text[fSerial], d.reasonText
	w.emit(d.header(), e.OrderNo, nil)
}

func (w *work) bookConsumption(d *draft) {
	e := w.enc.consumption()
	kind := ofConsumed
	e.Movement = pb.MaterialConsumption_MOVEMENT_ISSUE
	if d.returned {
		kind, e.Movement = ofReturned, pb.MaterialConsumption_MOVEMENT_RETURN
	}
	w.enc.quantity.Value, w.enc.quantity.Unit = w.settle(d, w.account(d), kind, d.yield, d.text[fQuantity]), d.text[fUnit]
	if w.enc.quantity.Value == "" {
		w.enc.quantity.Value = "0"
	}
	e.OrderNo, e.Operation, e.Item, e.Quantity = d.text[fOrder], d.text[fOperation], d.text[fItem], &w.enc.quantity
	e.Lot, e.Reservation, e.CounterRange = d.text[fLot], d.text[fReservation], nil
	w.emit(d.header(), e.OrderNo, nil)
}

func (w *work) bookQuality(d *draft) {
	e := w.enc.qualityStatus()
	e.OrderNo, e.Item, e.Lot, e.Serial = d.text[fOrder], d.text[fItem], d.text[fLot], d.text[fSerial]
	e.Status, e.Disposition, e.Reason, e.Quantity = d.text[fStatus], d.text[fDisposition], d.text[fReason], nil
	if d.text[fQuantity] != "" {
		w.enc.quantity.Value, w.enc.quantity.Unit = d.yield.decimal().RoundBank(d.rule.places).String(), d.text[fUnit]
		e.Quantity = &w.enc.quantity
	}
	w.emit(d.header(), e.OrderNo, nil)
}

// head is what a fact's header is filled from.
type head struct {
	key                               factkey.Key
	source, rule, equipment, position string
	occurred                          time.Time
	center                            string // whose calendar counts
	shift                             worked // of a count that a shift closed; otherwise that of occurred
	exception                         bool
}

func (d *draft) header() head {
	return head{key: d.key, source: d.rule.source, rule: d.rule.name, equipment: d.text[fEquipment], position: d.position, occurred: d.occurred, center: d.rule.center}
}

// emit encodes the content that the encoder holds under a header and adds it to the result.
func (w *work) emit(h head, orderNo string, state *pb.OrderState) {
	e := &w.enc
	e.key = h.key
	e.fact.Key, e.fact.Header = e.key[:], &e.header
	e.header.Plant, e.header.Source, e.header.Rule = w.t.plant, h.source, h.rule
	e.header.OccurredAt, e.header.RecordedAt = e.time(&e.occurred, h.occurred), e.time(&e.recorded, w.now)
	e.header.TimeZone, e.header.Equipment, e.header.Position = w.t.zoneName, h.equipment, h.position
	w.setShift(&h)
	if w.explain != nil && !h.exception {
		what, _ := What(&e.fact)
		w.explain.add(h.source, w.now, Step{Rule: h.rule, Outcome: "fact", Text: what, Key: h.key.String(), OrderNo: orderNo})
	}
	w.res.Facts = append(w.res.Facts, Fact{Key: h.key, Body: e.encode(), OrderNo: orderNo, OrderState: state})
}

// setShift names the shift in which it happened, and with it the date for the books where the calendar says so.
func (w *work) setShift(h *head) {
	e := &w.enc.header
	e.Shift, e.ShiftDate, e.PostingDate = "", "", ""
	c := w.t.calendarOf(h.center)
	if c == nil {
		return
	}
	s := h.shift
	if s.name == "" {
		s = w.shift(c, h.occurred)
	}
	if e.Shift, e.ShiftDate = s.name, s.date; c.byShift {
		e.PostingDate = s.date
	}
}

// encoder holds one message of each kind, filled anew for each fact, so that a record costs no tree of small objects.
type encoder struct {
	key                                   factkey.Key
	fact                                  pb.Fact
	header                                pb.Header
	occurred, recorded, started, finished timestamppb.Timestamp
	quantity                              pb.Quantity
	counter                               pb.CounterRange
	piece                                 []byte // of what was encoded, the last
	was                                   written

	confirmationIn pb.Fact_ProductionConfirmation
	consumptionIn  pb.Fact_MaterialConsumption
	qualityIn      pb.Fact_QualityStatus
}

func (e *encoder) confirmation() *pb.ProductionConfirmation {
	if e.confirmationIn.ProductionConfirmation == nil {
		e.confirmationIn.ProductionConfirmation = &pb.ProductionConfirmation{}
	}
	e.fact.Content = &e.confirmationIn
	return e.confirmationIn.ProductionConfirmation
}

func (e *encoder) consumption() *pb.MaterialConsumption {
	if e.consumptionIn.MaterialConsumption == nil {
		e.consumptionIn.MaterialConsumption = &pb.MaterialConsumption{}
	}
	e.fact.Content = &e.consumptionIn
	return e.consumptionIn.MaterialConsumption
}

func (e *encoder) qualityStatus() *pb.QualityStatus {
	if e.qualityIn.QualityStatus == nil {
		e.qualityIn.QualityStatus = &pb.QualityStatus{}
	}
	e.fact.Content = &e.qualityIn
	return e.qualityIn.QualityStatus
}

func (e *encoder) time(into *timestamppb.Timestamp, t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	into.Seconds, into.Nanos = t.Unix(), int32(t.Nanosecond())
	return into
}

func stamp(t time.Time) *timestamppb.Timestamp { return timestamppb.New(t) }
