package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/payload"
)

// WorkOrders is where work orders go.
type WorkOrders struct {
	URL     string            `yaml:"url"`
	Method  string            `yaml:"method"` // default POST
	Headers map[string]string `yaml:"headers"`
	// KeyHeader is the header that is the same when an order is sent again; default Idempotency-Key.
	KeyHeader string   `yaml:"key_header"`
	Body      any      `yaml:"body"`
	Cancel    *Cancel  `yaml:"cancel"`
	Taken     []int    `yaml:"taken"` // codes besides 2xx that mean: it is there; default 409
	Again     []int    `yaml:"again"` // codes that mean: later; besides 5xx
	Reply     *Reply   `yaml:"reply"`
	Check     []Check  `yaml:"check"` // addresses that must know what an order names
	Answers   *Answers `yaml:"answers"`
}

// Cancel is how an order is cancelled when not by the same request.
type Cancel struct {
	URL    string `yaml:"url"`
	Method string `yaml:"method"` // default POST
	Body   any    `yaml:"body"`
}

// Reply reads whether the MES took an order out of an answer with a code of success.
type Reply struct {
	Field string   `yaml:"field"`
	Taken []string `yaml:"taken"`
	Words string   `yaml:"words"`
}

// Answers is where the MES's answers to work orders are read.
type Answers struct {
	Query  `yaml:",inline"`
	Fields Fields `yaml:"fields"`
}

// Fields are the paths in an answer to a work order.
type Fields struct {
	OrderNo   string            `yaml:"order_no"`
	Revision  string            `yaml:"revision"`
	Status    string            `yaml:"status"`
	Reason    string            `yaml:"reason"`
	ChangedAt string            `yaml:"changed_at"`
	Words     map[string]string `yaml:"words"`
}

var answerWords = []string{signal.AnswerAccepted, signal.AnswerRejected, signal.AnswerStarted, signal.AnswerHeld, signal.AnswerFinished, signal.AnswerCancelled}

// orderFields are what {name} in url and body may be.
var orderFields = []string{"message_id", "order_no", "revision", "cancelled", "plant", "work_center", "item", "description", "quantity", "unit", "priority", "lot",
	"planned_start", "planned_end", "operations", "components"}

func (w *WorkOrders) fill() {
	setDefault(&w.Method, http.MethodPost)
	setDefault(&w.KeyHeader, "Idempotency-Key")
	if w.Taken == nil {
		w.Taken = []int{http.StatusConflict}
	}
	if w.Again == nil { // these say that the request, not the order, is at fault
		w.Again = []int{401, 403, 404, 405, 407, 408, 425, 429}
	}
	if w.Cancel != nil {
		setDefault(&w.Cancel.Method, http.MethodPost)
	}
	if a := w.Answers; a != nil {
		setDefault(&a.Tag, signal.AnswerTag)
		a.Query.fill()
		a.Fields.fill()
		if len(a.Key) == 0 { // the same status twice is one answer, unless its time differs
			a.Key = slices.DeleteFunc([]string{a.Fields.OrderNo, a.Fields.Status}, func(s string) bool { return s == "" })
			setDefault(&a.Version, "content")
		}
	}
}

func (f *Fields) fill() {
	setDefault(&f.OrderNo, "order_no")
	setDefault(&f.Revision, "revision")
	setDefault(&f.Status, "status")
	setDefault(&f.Reason, "reason")
	setDefault(&f.ChangedAt, "changed_at")
}

func (f *Fields) validate() error {
	if f == nil {
		return nil
	}
	for word, to := range f.Words {
		if !slices.Contains(answerWords, to) {
			return fmt.Errorf("words: %q stands for %q, which is none of %s", word, to, strings.Join(answerWords, ", "))
		}
	}
	return nil
}

func (w *WorkOrders) validate(base string) error {
	var names []string
	for _, n := range orderFields[:14] {
		names = append(names, "{"+n+"}")
	}
	if err := checkURL(base, w.URL, names); err != nil {
		return err
	}
	if w.Method != http.MethodPost && w.Method != http.MethodPut {
		return fmt.Errorf("method %q is neither POST nor PUT", w.Method)
	}
	if err := checkTemplate(w.Body); err != nil {
		return fmt.Errorf("body: %w", err)
	}
	if c := w.Cancel; c != nil {
		if err := errors.Join(checkURL(base, c.URL, names), checkTemplate(c.Body)); err != nil {
			return fmt.Errorf("cancel: %w", err)
		}
		if !slices.Contains([]string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch}, c.Method) {
			return fmt.Errorf("cancel: method %q is none of POST, PUT, PATCH, DELETE", c.Method)
		}
	}
	for i := range w.Check {
		if err := w.Check[i].validate(base); err != nil {
			return err
		}
	}
	if r := w.Reply; r != nil && (r.Field == "" || len(r.Taken) == 0) {
		return errors.New("reply needs field and taken: the values that mean that the order was taken")
	}
	if a := w.Answers; a != nil {
		if err := errors.Join(a.Query.validate(base), a.Fields.validate()); err != nil {
			return fmt.Errorf("answers: %w", err)
		}
	}
	return nil
}

// checkTemplate looks for placeholders that nothing stands for.
func checkTemplate(v any) error {
	switch v := v.(type) {
	case string:
		for rest := v; ; {
			_, after, ok := strings.Cut(rest, "{")
			if !ok {
				return nil
			}
			name, more, ok := strings.Cut(after, "}")
			if !ok || !slices.Contains(orderFields, name) {
				return fmt.Errorf("%q has a placeholder that is none of %s", v, strings.Join(orderFields, ", "))
			}
			rest = more
		}
	case map[string]any:
		for _, x := range v {
			if err := checkTemplate(x); err != nil {
				return err
			}
		}
	case map[any]any:
		return errors.New("a key is no text: put it in quotation marks")
	case []any:
		for _, x := range v {
			if err := checkTemplate(x); err != nil {
				return err
			}
		}
	}
	return nil
}

// TakesOrders implements signal.OrderReceiver.
func (s *source) TakesOrders() bool { return s.config.WorkOrders != nil }

// Deliver implements signal.OrderReceiver: one request for each order and revision, with the same key when it is repeated. The
// MES must take a key once.
func (s *source) Deliver(ctx context.Context, o signal.WorkOrder) error {
	w := s.config.WorkOrders
	if w == nil {
		return &signal.Refused{Reason: "source " + s.env.Source + " is not configured to take work orders"}
	}
	r, err := s.orderRequest(w, o)
	if err != nil {
		return err
	}
	rep, err := s.client.do(ctx, r)
	if err == nil {
		err = s.outcome(w, o, rep)
	}
	var refused *signal.Refused
	if err == nil || errors.As(err, &refused) {
		s.env.Reporter.Problem("query:"+ordersSection+":deliver", nil)
		return err
	}
	p := explain(ordersSection, err, 0)
	s.env.Reporter.Problem("query:"+ordersSection+":deliver", p)
	return fmt.Errorf("hand order %q revision %d to the MES: %w", o.OrderNo, o.Revision, err)
}

// outcome reads the MES's decision out of its answer.
func (s *source) outcome(w *WorkOrders, o signal.WorkOrder, rep *reply) error {
	refuse := func(words string) error {
		return &signal.Refused{Reason: fmt.Sprintf("the MES refuses order %q revision %d: %s", o.OrderNo, o.Revision, words)}
	}
	switch {
	case slices.Contains(w.Taken, rep.code):
		return nil
	case rep.code >= 200 && rep.code < 300:
		if w.Reply == nil {
			return nil
		}
		body, err := payload.JSON(rep.body)
		if err != nil {
			return fmt.Errorf("the MES answers %d with what is no JSON: %w", rep.code, err)
		}
		said, ok := plain(find(body, w.Reply.Field))
		if !ok {
			return fmt.Errorf("the MES's answer has no %q: whether it took the order is not known", w.Reply.Field)
		}
		if slices.Contains(w.Reply.Taken, said) {
			return nil
		}
		words, _ := plain(find(body, w.Reply.Words))
		return refuse(strings.TrimSpace(said + " " + clip(words)))
	case rep.code >= 400 && rep.code < 500 && !slices.Contains(w.Again, rep.code):
		return refuse(strings.TrimSpace(fmt.Sprintf("%d %s", rep.code, rep.words())))
	}
	return rep.problem("work_orders.url")
}

func (s *source) orderRequest(w *WorkOrders, o signal.WorkOrder) (request, error) {
	address, method, template := w.URL, w.Method, w.Body
	if o.Cancelled && w.Cancel != nil {
		address, method, template = w.Cancel.URL, w.Cancel.Method, w.Cancel.Body
	}
	values := orderValues(o)
	texts := map[string]string{}
	for _, name := range orderFields[:14] {
		texts["{"+name+"}"], _ = plain(values[name])
	}
	u, err := join(s.config.Base, replaceIn(address, texts))
	if err != nil {
		return request{}, err
	}
	r := request{method: method, url: u.String(), headers: map[string]string{w.KeyHeader: messageID(o)}}
	for k, v := range w.Headers {
		r.headers[k] = v
	}
	if method == http.MethodDelete && template == nil {
		return r, nil
	}
	var body any = values
	if template != nil {
		body = fillTemplate(template, values)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(body); err != nil {
		return request{}, &signal.Refused{Reason: fmt.Sprintf("order %q cannot be written as JSON: %v", o.OrderNo, err)}
	}
	r.body = b.Bytes()
	return r, nil
}

// replaceIn puts order fields into an address.
func replaceIn(address string, texts map[string]string) string {
	path, query, found := strings.Cut(address, "?")
	path = replace(path, texts, url.PathEscape)
	if !found {
		return path
	}
	return path + "?" + replace(query, texts, url.QueryEscape)
}

// fillTemplate puts an order into a body. A text that is nothing but {name} becomes the value itself, a number exact; within a
// longer text it becomes text.
func fillTemplate(t any, values map[string]any) any {
	switch t := t.(type) {
	case string:
		if name, ok := strings.CutPrefix(t, "{"); ok {
			if name, ok = strings.CutSuffix(name, "}"); ok && !strings.Contains(name, "{") {
				return values[name]
			}
		}
		texts := map[string]string{}
		for name, v := range values {
			texts["{"+name+"}"], _ = plain(v)
		}
		return replace(t, texts, func(s string) string { return s })
	case map[string]any:
		out := make(map[string]any, len(t))
		for k, v := range t {
			out[k] = fillTemplate(v, values)
		}
		return out
	case []any:
		out := make([]any, len(t))
		for i, v := range t {
			out[i] = fillTemplate(v, values)
		}
		return out
	}
	return t
}

func messageID(o signal.WorkOrder) string { return fmt.Sprintf("%s/%d", o.OrderNo, o.Revision) }

// orderValues is an order as the default body has it: unknown numbers and times are null.
func orderValues(o signal.WorkOrder) map[string]any {
	number := func(n signal.Number) any {
		if n == "" {
			return nil
		}
		return n
	}
	at := func(t time.Time) any {
		if t.IsZero() {
			return nil
		}
		return t.Format(time.RFC3339Nano)
	}
	operations := []any{}
	for _, x := range o.Operations {
		operations = append(operations, map[string]any{"operation": x.Operation, "description": x.Description, "work_center": x.WorkCenter, "quantity": number(x.Quantity), "unit": x.Unit})
	}
	components := []any{}
	for _, x := range o.Components {
		components = append(components, map[string]any{"item": x.Item, "description": x.Description, "required": number(x.Required), "unit": x.Unit,
			"operation": x.Operation, "reservation": x.Reservation, "backflush": x.Backflush})
	}
	return map[string]any{"message_id": messageID(o), "order_no": o.OrderNo, "revision": signal.Number(fmt.Sprint(o.Revision)), "cancelled": o.Cancelled, "plant": o.Plant,
		"work_center": o.WorkCenter, "item": o.Item, "description": o.Description, "quantity": number(o.Quantity), "unit": o.Unit,
		"priority": signal.Number(fmt.Sprint(o.Priority)), "lot": o.Lot, "planned_start": at(o.PlannedStart), "planned_end": at(o.PlannedEnd),
		"operations": operations, "components": components}
}

// answer makes an answer to a work order of a polled record.
func (r *record) answer(p *poller) { p.answers.Fields.complete(&r.signal, p.zone) }

// complete gives a signal the fields that answers have, and keeps the others.
func (f *Fields) complete(x *signal.Signal, zone *time.Location) {
	from, ok := x.Value.(map[string]any)
	order, known := plain(find(from, f.OrderNo))
	status, said := plain(find(from, f.Status))
	if !ok || !known || !said {
		x.Value = nil
		x.Problem = &signal.Problem{Code: "bad_record", Item: x.Tag, Reason: fmt.Sprintf("an answer to a work order lacks %q or %q", f.OrderNo, f.Status), NextStep: "correct fields, or the MES"}
		return
	}
	value := make(map[string]any, len(from)+5)
	for k, v := range from {
		value[k] = v
	}
	value["order_no"], value["status"] = order, f.word(status)
	value["revision"] = signal.Number("0")
	if n, ok := find(from, f.Revision).(signal.Number); ok {
		value["revision"] = n
	}
	value["reason"], _ = plain(find(from, f.Reason))
	value["changed_at"] = nil
	if text, ok := plain(find(from, f.ChangedAt)); ok {
		if at, ok := payload.Time(text, zone); ok {
			value["changed_at"], x.SourceTime = at, at
		}
	}
	x.Value = value
}

func (f *Fields) word(status string) string {
	if to, ok := f.Words[status]; ok {
		return to
	}
	if w := strings.ToLower(strings.TrimSpace(status)); slices.Contains(answerWords, w) {
		return w
	}
	return status
}
