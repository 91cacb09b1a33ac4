package translate

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/proto/exact"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
	"github.com/linekeeper/linekeeper/proto/sabotage"
)

// field is a target of a mapping.
type field uint8

const (
	fOrder field = iota
	fOperation
	fItem
	fQuantity
	fYield
	fScrap
	fRework
	fUnit
	fLot
	fSerial
	fScrapReason
	fReason
	fFinal
	fStartedAt
	fFinishedAt
	fOccurredAt
	fPerson
	fShift
	fEquipment
	fReservation
	fMovement
	fStatus
	fDisposition
	fState
	fRevision
	nFields
)

var fieldNames = [nFields]string{
	"order_no", "operation", "item", "quantity", "yield", "scrap", "rework", "unit", "lot", "serial", "scrap_reason", "reason",
	"final", "started_at", "finished_at", "occurred_at", "person", "shift", "equipment", "reservation", "movement", "status",
	"disposition", "state", "revision",
}

var fieldByName = func() map[string]field {
	m := map[string]field{"event": fState} // as state rules call it
	for f, name := range fieldNames {
		m[name] = field(f)
	}
	return m
}()

type factKind uint8

const (
	factConfirmation factKind = iota
	factConsumption
	factQuality
	factOrderState
)

type factSpec struct {
	kind             factKind
	fields, required []field
}

var factSpecs = map[string]factSpec{
	"production_confirmation": {factConfirmation, []field{
		fOrder, fOperation, fItem, fYield, fScrap, fRework, fUnit, fScrapReason, fFinal, fStartedAt, fFinishedAt, fLot, fPerson,
		fShift, fOccurredAt, fEquipment, fSerial}, []field{fOrder}},
	"material_consumption": {factConsumption, []field{
		fOrder, fOperation, fItem, fQuantity, fUnit, fLot, fReservation, fMovement, fOccurredAt, fEquipment},
		[]field{fOrder, fItem, fQuantity}},
	"quality_status": {factQuality, []field{
		fOrder, fItem, fLot, fSerial, fStatus, fDisposition, fReason, fQuantity, fUnit, fOccurredAt, fEquipment}, []field{fStatus}},
	"order_state": {factOrderState, []field{
		fOrder, fOperation, fState, fReason, fRevision, fOccurredAt, fEquipment, fItem, fUnit}, []field{fOrder, fState}},
}

// FieldNames lists the fields of a record's fact ("production_confirmation", ...), for help texts; nil for another word.
func FieldNames(fact string) []string {
	var names []string
	for _, f := range factSpecs[fact].fields {
		names = append(names, fieldNames[f])
	}
	return names
}

// draft is a fact that was read and checked but not yet booked.
type draft struct {
	rule     *rule
	key      factkey.Key
	position string // empty: the key is random
	hash     uint64 // of the mapped content, to tell a redelivery from another record under the same id
	text     [nFields]string
	yield    amount // also the quantity of a consumption or quality status
	scrap    amount
	rework   amount
	final    bool
	revision int64
	state    pb.OrderState_State
	returned bool
	occurred time.Time
	started  time.Time
	finished time.Time
	center   string // whose running order the state changes

	reasonText string // what the reason's code means
}

// fault is why an input cannot become a fact.
type fault struct {
	code, item, reason, next string
}

func (f *fault) problem() signal.Problem {
	return signal.Problem{Code: f.code, Item: f.item, Reason: f.reason, NextStep: f.next}
}

// record reads the facts that one rule makes of one signal. Faults of single elements do not stop the others.
func (w *work) record(r *rule, s *signal.Signal) (faults []*fault) {
	in := &w.scope
	*in = scope{sig: s, source: r.source, work: w}
	if s.Quality != signal.Good {
		return []*fault{{"bad_quality", s.Tag, fmt.Sprintf("tag %q has quality %s (%s)", s.Tag, s.Quality, s.Status), "mend the sensor or the connection at the source"}}
	}
	if r.each == nil {
		if f := w.draft(r, in, -1); f != nil {
			faults = append(faults, f)
		}
		return faults
	}
	v, err := r.each.eval(in)
	if err != nil {
		return []*fault{ruleFailed(r, "each", err)}
	}
	list, ok := v.([]any)
	if !ok {
		return []*fault{wrongType(r.each, v, "a list")}
	}
	for i, item := range list {
		in.item = item
		if f := w.draft(r, in, i); f != nil {
			faults = append(faults, f)
		}
	}
	return faults
}

// draft reads one fact and stages it; index is the element of a list, -1 without one.
func (w *work) draft(r *rule, in *scope, index int) *fault {
	if r.when != nil {
		v, err := r.when.eval(in)
		if err != nil {
			return ruleFailed(r, "when", err)
		}
		if v == nil {
			v = false
		}
		yes, ok := v.(bool)
		if !ok {
			return wrongType(r.when, v, "true or false")
		}
		if !yes {
			if w.explain != nil {
				w.say(r.name, "skipped", "when: %s is false", r.when.src)
			}
			return nil
		}
	}
	if r.serial && w.blank(r, in) {
		return nil
	}
	w.staged = append(w.staged, draft{rule: r})
	d := &w.staged[len(w.staged)-1]
	f := w.fill(d, in)
	if f == nil {
		f = w.identify(d, in, index)
	}
	if f != nil {
		w.staged = w.staged[:len(w.staged)-1]
	}
	return f
}

func ruleFailed(r *rule, key string, err error) *fault {
	return &fault{"rule_failed", r.name + "." + key, fmt.Sprintf("rule %q, %s: %v", r.name, key, err),
		"correct the rule, or the message; where a key may be absent, ask has(payload.key) first"}
}

func wrongType(e *expr, v any, want string) *fault {
	return &fault{"wrong_type", e.src, fmt.Sprintf("%s is %s, not %s", e.src, describe(v), want), "correct the message at its source, or the rule"}
}

// describe says in few words what a value is.
func describe(v any) string {
	switch v := v.(type) {
	case nil:
		return "absent"
	case string:
		return fmt.Sprintf("the text %q", excerptText(v))
	case signal.Number:
		return fmt.Sprintf("the number %q", excerptText(string(v)))
	case bool:
		return strconv.FormatBool(v)
	case time.Time:
		return "a time"
	case []byte:
		return "bytes"
	case []any:
		return "a list"
	case map[string]any, *signal.Row:
		return "an object"
	}
	return fmt.Sprintf("a %T", v)
}

func excerptText(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

// fill evaluates the fields and checks each.
func (w *work) fill(d *draft, in *scope) *fault {
	r := d.rule
	d.hash = fnvStart
	row, places := w.inRow(r, in)
	for i := range r.fields {
		m := &r.fields[i]
		var v any
		var err error
		if places != nil && places[i] != elsewhere {
			if at := places[i]; at >= 0 {
				v = row.Values[at]
			}
		} else if v, err = m.expr.eval(in); err != nil {
			return ruleFailed(r, "fields."+fieldNames[m.field], err)
		}
		d.hash = fnvByte(d.hash, byte(m.field))
		if v == nil {
			continue
		}
		if f := w.set(d, m, v); f != nil {
			return f
		}
	}
	if d.occurred.IsZero() {
		if d.occurred = d.finished; d.occurred.IsZero() {
			d.occurred = w.timeOf(in.sig)
		}
	}
	if r.serial { // what else is said of it may differ when it is scanned again
		d.hash = fnvText(fnvStart, d.text[fSerial])
	}
	return w.complete(d, in.sig)
}

// elsewhere is the place of a field that is not simply a column of the row.
const elsewhere = -2

// rowPlaces says where a rule's fields stand in the rows of a table: found once for many rows.
type rowPlaces struct {
	rule    *rule
	columns *signal.Columns
	at      []int // by field of the rule; -1 is a column that the table does not have
}

// inRow returns the row that a signal is, and where the rule's fields stand in it; nil for other signals.
func (w *work) inRow(r *rule, in *scope) (*signal.Row, []int) {
	row, ok := in.sig.Value.(*signal.Row)
	if !ok {
		return nil, nil
	}
	p := &w.places
	if p.rule == r && p.columns == row.Columns {
		return row, p.at
	}
	*p = rowPlaces{r, row.Columns, p.at[:0]}
	for i := range r.fields {
		at := elsewhere
		if e := r.fields[i].expr; e.root == "payload" && len(e.steps) == 1 && e.steps[0].key != "" && e.other == nil {
			at = row.Place(e.steps[0].key)
		}
		p.at = append(p.at, at)
	}
	return row, p.at
}

// set reads one field.
func (w *work) set(d *draft, m *mapped, v any) *fault {
	switch m.field {
	case fQuantity, fYield:
		return d.number(m, v, &d.yield)
	case fScrap:
		return d.number(m, v, &d.scrap)
	case fRework:
		return d.number(m, v, &d.rework)
	case fStartedAt:
		return w.readTime(d, m, v, &d.started)
	case fFinishedAt:
		return w.readTime(d, m, v, &d.finished)
	case fOccurredAt:
		return w.readTime(d, m, v, &d.occurred)
	case fFinal:
		final, ok := readBool(v)
		if !ok {
			return wrongType(m.expr, v, "true or false")
		}
		d.final = final
		d.hash = fnvByte(d.hash, map[bool]byte{true: 1}[final])
		return nil
	}
	var text string
	switch v := v.(type) {
	case string:
		text = trimmed(v)
	case signal.Number:
		text = string(v)
	default:
		return wrongType(m.expr, v, "a text")
	}
	hash, ok := fnvPrintable(d.hash, text)
	if !ok {
		return &fault{"bad_encoding", m.expr.src, fmt.Sprintf("%s is not readable text: %q", m.expr.src, excerptText(text)), "correct the character set of the source"}
	}
	if most := longest(m.field); len(text) > most {
		return &fault{"too_long", m.expr.src, fmt.Sprintf("%s has %d bytes, more than %d: %q", m.expr.src, len(text), most, excerptText(text)), "check that the field is mapped to the right part of the message"}
	}
	d.hash = hash
	return w.setText(d, m, text)
}

// longest is how many bytes a text may have: names become parts of keys, other texts only travel.
func longest(f field) int {
	if f == fReason || f == fStatus || f == fScrapReason {
		return 1024
	}
	return maxName
}

const (
	maxName = 200
	maxID   = 1024
)

func (w *work) setText(d *draft, m *mapped, text string) *fault {
	switch m.field {
	case fItem:
		text = w.t.item(text)
	case fUnit:
		code, ok := w.t.unit(text)
		if !ok && text != "" {
			return &fault{"unknown_unit", m.expr.src, fmt.Sprintf("unit %q is neither in the units table nor a known Rec 20 code", text),
				fmt.Sprintf("add %q to units with its Rec 20 code, then replay the quarantined records", text)}
		}
		text = code
	case fRevision:
		n, err := strconv.ParseInt(text, 10, 64)
		if text != "" && (err != nil || n < 0) {
			return wrongType(m.expr, text, "a revision number")
		}
		d.revision = n
	case fMovement:
		switch strings.ToLower(text) {
		case "", "issue":
		case "return":
			d.returned = true
		default:
			return &fault{"unknown_movement", m.expr.src, fmt.Sprintf("movement %q is neither issue nor return", text), "map the source's word with an expression, such as payload.m == '261' ? 'issue' : 'return'"}
		}
	case fScrapReason:
		raw := text
		if text, d.reasonText = d.rule.reason(raw); d.reasonText == "" && d.rule.reasons != nil {
			w.tellReason(d.rule, w.scope.sig, raw)
		}
	case fState:
		s, ok := d.rule.states[text]
		if !ok && text != "" {
			return &fault{"unknown_state", m.expr.src, fmt.Sprintf("order state %q has no meaning in rule %q", text, d.rule.name), fmt.Sprintf("add %q to the rule's states or events", text)}
		}
		d.state = s
	}
	d.text[m.field] = text
	return nil
}

// number reads a quantity, from a number or from strictly decimal text.
func (d *draft) number(m *mapped, v any, into *amount) *fault {
	var text string
	switch v := v.(type) {
	case signal.Number:
		text = string(v)
	case string:
		if text = strings.TrimSpace(v); text == "" {
			return nil
		}
	default:
		return wrongType(m.expr, v, "a number")
	}
	n, err := parseAmount(text)
	switch {
	case errors.Is(err, exact.ErrTooLarge):
		return &fault{"too_large", m.expr.src, fmt.Sprintf("%s is %q, which %v", m.expr.src, excerptText(text), err), "correct the message at its source"}
	case err != nil:
		return wrongType(m.expr, v, "a number")
	case n.isNegative():
		return &fault{"negative_count", m.expr.src, fmt.Sprintf("%s is %s; a quantity must not be negative", m.expr.src, text), "correct it at the source: a correction is a reversal or a return, not a negative quantity"}
	}
	if n.big != nil {
		text = n.big.String()
	}
	d.hash = fnvText(d.hash, significant(text))
	*into = n
	d.text[m.field] = text
	return nil
}

func (w *work) readTime(d *draft, m *mapped, v any, into *time.Time) *fault {
	if s, ok := v.(string); ok && strings.TrimSpace(s) == "" {
		return nil
	}
	t, ok := readTime(v, w.t.zone)
	if !ok {
		return &fault{"bad_time", m.expr.src, fmt.Sprintf("%s is %s, not a time", m.expr.src, describe(v)), "write times as 2026-03-01T12:00:00+01:00; without zone they are read in the plant's"}
	}
	for n := uint64(t.Unix())<<30 | uint64(t.Nanosecond()); n != 0; n >>= 8 {
		d.hash = fnvByte(d.hash, byte(n))
	}
	*into = t
	return nil
}

func readBool(v any) (value, ok bool) {
	switch v := v.(type) {
	case bool:
		return v, true
	case signal.Number:
		return v == "1", v == "0" || v == "1"
	case string:
		b, err := strconv.ParseBool(v)
		return b, err == nil
	}
	return false, false
}

// trimmed is strings.TrimSpace, for texts that mostly have nothing to be taken away.
func trimmed(s string) string {
	if s == "" || s[0] > ' ' && s[0] < utf8.RuneSelf && s[len(s)-1] > ' ' && s[len(s)-1] < utf8.RuneSelf {
		return s
	}
	return strings.TrimSpace(s)
}

// fnvPrintable is fnvText of a text that is printable, and says whether it is.
func fnvPrintable(h uint64, s string) (uint64, bool) {
	for i := 0; i < len(s); i++ {
		b := s[i]
		if b < ' ' || b == 0x7f {
			return h, false
		}
		if b >= utf8.RuneSelf {
			return fnvText(h, s[i:]), printable(s[i:])
		}
		h = fnvByte(h, b)
	}
	return fnvByte(h, 0), true
}

func printable(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] == 0x7f {
			return false
		}
	}
	return utf8.ValidString(s)
}

// complete fills what the order knows and refuses what is still missing.
func (w *work) complete(d *draft, s *signal.Signal) *fault {
	r := d.rule
	d.center = r.center
	if d.text[fEquipment] == "" {
		d.text[fEquipment] = r.equipment
	}
	if r.orderOfRun {
		run := w.running(r.center)
		d.text[fOrder] = run.Order
		fallback(&d.text[fOperation], run.Operation)
		fallback(&d.text[fItem], run.Item)
		fallback(&d.text[fUnit], run.Unit)
	}
	if r.knownOnly && !w.order(d.text[fOrder]).v.Known {
		return &fault{"unknown_order", d.text[fOrder], fmt.Sprintf("order %q was never sent to this plant", d.text[fOrder]), "check the order number; when the order arrives, replay the quarantined record"}
	}
	if r.fact == factConfirmation || r.fact == factQuality {
		w.fromOrder(d)
	}
	return d.missing(s)
}

func fallback(text *string, other string) {
	if *text == "" {
		*text = other
	}
}

// fromOrder takes item and unit of a confirmation or a quality status from its order.
func (w *work) fromOrder(d *draft) {
	if d.text[fOrder] == "" || d.text[fItem] != "" && d.text[fUnit] != "" {
		return
	}
	o := w.order(d.text[fOrder])
	if d.text[fItem] == "" || d.text[fItem] == o.v.Item {
		fallback(&d.text[fItem], o.v.Item)
		fallback(&d.text[fUnit], o.v.Unit)
	}
}

func (d *draft) missing(s *signal.Signal) *fault {
	need := func(f field, why string) *fault {
		if d.text[f] != "" {
			return nil
		}
		return &fault{"missing_field", fieldNames[f], fmt.Sprintf("%s is missing%s", fieldNames[f], why), fmt.Sprintf("correct the message at its source, or fields.%s of rule %q", fieldNames[f], d.rule.name)}
	}
	needs := factNeeds[d.rule.fact]
	for _, f := range needs {
		why := ""
		if f == fOrder && d.rule.orderOfRun {
			why = fmt.Sprintf(": no order runs on work centre %q", d.rule.center)
		}
		if fl := need(f, why); fl != nil {
			return fl
		}
	}
	switch d.rule.fact {
	case factConfirmation:
		if d.text[fYield] == "" && d.text[fScrap] == "" && d.text[fRework] == "" {
			return need(fQuantity, ": neither yield nor scrap nor rework has a value")
		}
		return need(fUnit, " and the order is not known")
	case factQuality:
		if d.text[fOrder] == "" && d.text[fLot] == "" && d.text[fSerial] == "" {
			return need(fLot, ", and so are order_no and serial: it is not known what the status is about")
		}
		if d.text[fQuantity] != "" {
			return need(fUnit, " and the order is not known")
		}
	}
	return nil
}

var factNeeds = [...][]field{
	factConfirmation: {fOrder},
	factConsumption:  {fOrder, fItem, fQuantity, fUnit},
	factQuality:      {fStatus},
	factOrderState:   {fOrder, fState},
}

// identify makes the key from what the source guarantees.
func (w *work) identify(d *draft, in *scope, index int) *fault {
	r := d.rule
	id, perItem := in.sig.Position, false
	if r.id != nil {
		v, err := r.id.eval(in)
		if err != nil {
			return ruleFailed(r, "id", err)
		}
		switch v := v.(type) {
		case nil:
		case string:
			id, perItem = v, r.idPerItem
		case signal.Number:
			id, perItem = string(v), r.idPerItem
		default:
			return wrongType(r.id, v, "a text or a number")
		}
		if len(id) > maxID {
			return &fault{"too_long", r.id.src, fmt.Sprintf("%s has %d bytes, more than %d", r.id.src, len(id), maxID), "use a shorter id"}
		}
		if !printable(id) {
			return &fault{"bad_encoding", r.id.src, fmt.Sprintf("%s is not readable text: %q", r.id.src, excerptText(id)), "correct the character set of the source"}
		}
	}
	if id == "" {
		d.key = w.t.newKey()
		return nil
	}
	at := append(append(w.scratch[:0], r.position...), '|')
	if utf8.ValidString(id) {
		at = factkey.AppendPosition(at, id)
	} else {
		at = append(at, readable(factkey.Position(id))...)
	}
	if index >= 0 && !perItem {
		at = strconv.AppendInt(append(at, '|'), int64(index), 10)
	}
	w.scratch, d.position, d.key = at, w.texts.keep(at), factkey.OfBytes(at)
	if sabotage.Rule(1) {
		d.key = w.t.newKey()
	}
	return nil
}

// readable writes bytes that are no UTF-8 as \xNN: a driver's position may hold what a table has in another character set,
// and a fact can not. Nothing else in an escaped part looks like that.
func readable(part string) string {
	if utf8.ValidString(part) {
		return part
	}
	var b strings.Builder
	for i := 0; i < len(part); {
		r, n := utf8.DecodeRuneInString(part[i:])
		if r == utf8.RuneError && n == 1 {
			fmt.Fprintf(&b, `\x%02x`, part[i])
		} else {
			b.WriteString(part[i : i+n])
		}
		i += n
	}
	return b.String()
}
