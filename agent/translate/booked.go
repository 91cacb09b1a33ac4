package translate

import (
	"fmt"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// open is what is counted and not yet confirmed, and what it is booked on.
type open struct {
	Booked booked          `json:"k"`
	From   decimal.Decimal `json:"f"`
	Qty    decimal.Decimal `json:"q"`
	// Since is the agent's time of the first count; First and Last are the source's times of the first and last.
	Since time.Time `json:"s"`
	First time.Time `json:"1"`
	Last  time.Time `json:"2"`
	// Until is when the shift ends with which it is closed; zero where shifts close nothing.
	Until time.Time `json:"u,omitzero"`
}

// booked is what a count is booked on; a change of it closes what is open.
type booked struct {
	Rule      string `json:"r"`
	Counts    string `json:"c"`
	Order     string `json:"o,omitempty"`
	Operation string `json:"p,omitempty"`
	Item      string `json:"i,omitempty"`
	Unit      string `json:"u"`
	Equipment string `json:"e,omitempty"`
	Center    string `json:"w,omitempty"`
	Places    int32  `json:"d"`

	Reason     string `json:"n,omitempty"`
	ReasonText string `json:"nt,omitempty"`
	Lot        string `json:"l,omitempty"`
	Person     string `json:"h,omitempty"`
	// Factor is set where it changes while the machine runs.
	Factor string `json:"x,omitempty"`
	// Shift and ShiftDate are set where the end of a shift closes.
	Shift     string `json:"sh,omitempty"`
	ShiftDate string `json:"sd,omitempty"`
}

func (b *booked) row(source string) rowKey {
	return rowKey{source, b.Order, b.Operation, b.Item, b.Counts, b.Unit}
}

// factor is what a step is multiplied by.
func (b *booked) factor(r *rule) decimal.Decimal {
	if b.Factor != "" {
		if d, err := parse(b.Factor); err == nil {
			return d
		}
	}
	return r.factor
}

// nothing is a signal that says nothing: what expressions read of a counter's message when there is none.
var nothing signal.Signal

// bookOn says what a count of r is booked on at present. s is the counter's signal, nil when it is not the counter that spoke:
// then what would be read from its message is left empty.
func (w *work) bookOn(r *rule, s *signal.Signal) (booked, *fault) {
	b := booked{
		Rule: r.name, Counts: r.counts, Item: r.item, Unit: r.unit, Equipment: r.equipment, Center: w.centerOf(r, s), Places: r.places,
	}
	fallback(&b.Equipment, b.Center)
	run := running{}
	if r.orderOf == nil {
		run = w.running(b.Center)
	} else if run.Order = w.ask(r, "order", r.orderOf, s); run.Order == "0" {
		run.Order = ""
	} else if run.Order != "" {
		w.fromDispatch(&run, b.Center)
	}
	if r.operationOf != nil {
		run.Operation = w.ask(r, "operation", r.operationOf, s)
	}
	b.Order, b.Operation = run.Order, run.Operation
	fallback(&b.Item, run.Item)
	b.Lot, b.Person = w.ask(r, "lot", r.lotOf, s), w.ask(r, "person", r.personOf, s)
	b.Reason = w.ask(r, "reason", r.reasonOf, s)
	b.Reason, b.ReasonText = r.reason(b.Reason)
	var f *fault
	b.Factor, f = w.factorNow(r, s)
	return b, f
}

// inShift is b in the shift at t, for rules that the end of a shift closes.
func (w *work) inShift(r *rule, b booked, t time.Time) booked {
	if r.closeAtShift {
		s := w.shift(w.t.calendarOf(b.Center), t)
		b.Shift, b.ShiftDate = s.name, s.date
	}
	return b
}

// centerOf is the work centre at which is counted now.
func (w *work) centerOf(r *rule, s *signal.Signal) string {
	if r.centerOf == nil {
		return r.center
	}
	text := w.ask(r, "work_center_from", r.centerOf, s)
	center := r.centers[text]
	if center == "" && text != "" && s != nil {
		w.note(r, s, "unknown_work_center", fmt.Sprintf("%s is %q, for which rule %q has no work centre; what is counted has no order", r.centerOf.src, excerptText(text), r.name),
			fmt.Sprintf("add %q to work_centers of the rule", excerptText(text)))
	}
	return center
}

// reason is what a machine's word for a cause means to the plant. A word that the table does not have stays as it is.
func (r *rule) reason(word string) (code, text string) {
	meant, known := r.reasons[word]
	if word == "" || !known {
		return word, ""
	}
	code = meant.Code
	fallback(&code, word)
	return code, meant.Text
}

// tellReason shows a word that is not in the table of reasons, when a count is booked on it first.
func (w *work) tellReason(r *rule, s *signal.Signal, word string) {
	if word == "" || r.reasons == nil || s == nil {
		return
	}
	for raw, meant := range r.reasons {
		if raw == word || meant.Code == word {
			return
		}
	}
	w.note(r, s, "unknown_reason", fmt.Sprintf("reason %q is not in the table of rule %q; it is kept as it is", word, r.name),
		fmt.Sprintf("add %q to reasons with the plant's code and its text", word))
}

// ask evaluates an expression that only says what a count is booked on: should it fail, the count is kept without that, and
// the failure is shown.
func (w *work) ask(r *rule, key string, e *expr, s *signal.Signal) string {
	if e == nil {
		return ""
	}
	in := scope{sig: s, source: r.source, work: w}
	if s == nil {
		in.sig = &nothing
	}
	v, err := e.eval(&in)
	text, f := "", (*fault)(nil)
	if err != nil {
		f = ruleFailed(r, key, err)
	} else {
		text, f = readText(e, v)
	}
	if f != nil && s != nil {
		w.note(r, s, f.code, f.reason+"; what is counted goes on without its "+key, f.next)
	}
	return text
}

func readText(e *expr, v any) (string, *fault) {
	var text string
	switch v := v.(type) {
	case nil:
	case string:
		text = strings.TrimSpace(v)
	case signal.Number, bool:
		text = plain(v)
	default:
		return "", wrongType(e, v, "a text")
	}
	switch {
	case !printable(text):
		return "", &fault{"bad_encoding", e.src, fmt.Sprintf("%s is not readable text: %q", e.src, excerptText(text)), "correct the character set of the source"}
	case len(text) > maxName:
		return "", &fault{"too_long", e.src, fmt.Sprintf("%s has %d bytes, more than %d: %q", e.src, len(text), maxName, excerptText(text)), "check that the rule points at the right part of the message"}
	}
	return text, nil
}

// factorNow reads the factor of this moment. Without one nothing can be counted: the count waits in the counter.
func (w *work) factorNow(r *rule, s *signal.Signal) (string, *fault) {
	if r.factorOf == nil {
		return "", nil
	}
	in := scope{sig: s, source: r.source, work: w}
	if s == nil {
		in.sig = &nothing
	}
	v, err := r.factorOf.eval(&in)
	if err != nil {
		return "", ruleFailed(r, "factor_from", err)
	}
	d, err := positive(plain(v), "")
	if err != nil || -d.Exponent() > maxDecimals {
		return "", &fault{"no_factor", r.factorOf.src, fmt.Sprintf("%s is %s, not a factor above zero; the counter's steps are counted when there is one", r.factorOf.src, describe(v)),
			"let the machine say how many pieces a step makes, or give the rule a fixed factor"}
	}
	return d.String(), nil
}
