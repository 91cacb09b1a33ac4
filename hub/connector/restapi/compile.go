package restapi

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/connector/generic"
	"github.com/linekeeper/linekeeper/hub/object"
)

// Names that expressions may use, by where they stand.
var (
	ofRequest  = append([]string{"valid_until", "mark"}, generic.FactNames...)
	ofAnswer   = append([]string{"status", "body", "headers"}, ofRequest...)
	ofDocument = append([]string{"document"}, ofAnswer...)
	ofList     = []string{"cursor", "offset", "page_size", "order_no"}
	ofPage     = append([]string{"status", "body", "headers"}, ofList...)
)

// document, posting, lookup and so on are their namesakes of the configuration, compiled.
type document struct{ number, id generic.Expr }

type posting struct {
	cfg               *Posting
	method            string
	url               generic.Template
	headers           map[string]generic.Template
	body              generic.Tree
	success, accepted generic.Expr
	document          document
	errors            []generic.Refusal
	lookup            *lookup
	verify            *verify
	reverse           *posting
}

type lookup struct {
	url                                generic.Template
	found, pending, cannotTell, absent generic.Expr
	document                           document
	rejected                           []generic.Refusal
	absentAfter                        *time.Duration
	mark, reversedBy                   generic.Expr
}

type verify struct {
	url           generic.Template
	found, notYet generic.Expr
	within        time.Duration
	equal         []generic.Equal
	wrong         []generic.Refusal // when and reason only
}

type list struct {
	url                    generic.Template
	at, next, cursor, more generic.Expr
	get                    generic.Template
	getAt, missing         generic.Expr
	back                   overlap
}

type effects struct {
	url            generic.Template
	at, next, asOf generic.Expr
	fields         map[string]generic.Expr
	quantities     []effectQuantity
}

type effectQuantity struct {
	kind              object.QuantityKind
	item, value, unit generic.Expr
}

// overlap is how far a changed value is taken back.
type overlap struct {
	span   time.Duration
	number decimal.Decimal
}

func readOverlap(text string) (overlap, error) {
	if d, err := decimal.NewFromString(text); err == nil && !d.IsNegative() && d.Exponent() > -30 && d.Exponent() < 30 {
		return overlap{number: d}, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return overlap{span: d}, nil
	}
	return overlap{}, fmt.Errorf("overlap %q is neither a duration such as 5m nor a number", text)
}

// compiler compiles and keeps the first fault, with its place.
type compiler struct{ err error }

func (c *compiler) fail(place string, err error) {
	if c.err == nil && err != nil {
		c.err = wrong("%s: %w", place, err)
	}
}

func (c *compiler) expr(place, src string, names []string) generic.Expr {
	e, err := generic.Compile(src, names...)
	c.fail(place, err)
	return e
}

func (c *compiler) need(place, src, example string, names []string) generic.Expr {
	if strings.TrimSpace(src) == "" {
		c.fail(place, fmt.Errorf("is empty; write an expression such as %s", example))
	}
	return c.expr(place, src, names)
}

func (c *compiler) template(place, src string, names []string) generic.Template {
	t, err := generic.CompileTemplate(src, names...)
	c.fail(place, err)
	return t
}

func (c *compiler) document(place string, d Document, names []string) document {
	return document{c.expr(place+".document.number", d.Number, names), c.expr(place+".document.id", d.ID, names)}
}

func (c *compiler) rules(place string, all []generic.Rule, names []string, known ...string) []generic.Refusal {
	out, err := generic.CompileRules(place, all, known, names...)
	if err != nil && c.err == nil {
		c.err = wrong("%w", err)
	}
	return out
}

func (c *compiler) posting(place string, p *Posting, outer *posting, shared []generic.Refusal) *posting {
	out := &posting{cfg: p, method: cmp.Or(p.Method, "POST"), url: c.template(place+".url", p.URL, ofRequest), headers: map[string]generic.Template{},
		success: c.need(place+".success", p.Success, "\"status in [200, 201] && has(body.id)\"", ofAnswer), accepted: c.expr(place+".accepted", p.Accepted, ofAnswer),
		document: c.document(place, p.Document, ofAnswer)}
	if p.URL == "" {
		c.fail(place, fmt.Errorf("url is empty; write where the request goes, such as orders/{order_no}/confirmations"))
	}
	if !slices.Contains([]string{"POST", "PUT", "PATCH"}, out.method) {
		c.fail(place, fmt.Errorf("method %q is not known; use POST, PUT or PATCH", p.Method))
	}
	for _, name := range slices.Sorted(maps.Keys(p.Headers)) {
		out.headers[name] = c.template(place+".headers."+name, p.Headers[name], ofRequest)
	}
	body, err := generic.CompileTree(p.Body, ofRequest...)
	c.fail(place+".body", err)
	out.body = body
	out.errors = append(c.rules(place+".errors", p.Errors, ofAnswer, "retryable", "correctable", "fatal", "duplicate"), shared...)
	if i := p.Idempotency; i != nil && (i.Header == "" || i.Within <= 0 || !slices.Contains([]string{"", "key", "uuid"}, i.Value)) {
		c.fail(place+".idempotency", fmt.Errorf("needs header, within (how long the system remembers), and value key or uuid"))
	}
	if p.ValidFor < 0 {
		c.fail(place, fmt.Errorf("valid_for must not be below zero"))
	}
	switch {
	case p.Lookup != nil:
		out.lookup = c.lookup(place+".lookup", p.Lookup)
	case outer != nil:
		out.lookup = outer.lookup
	}
	switch {
	case p.Verify != nil:
		out.verify = c.verify(place+".verify", p.Verify, out.lookup)
	case outer != nil:
		out.verify = outer.verify
	}
	if p.Reverse != nil {
		if out.lookup == nil {
			c.fail(place+".reverse", fmt.Errorf("a reversal looks for what it takes back: add lookup to %s", place))
		}
		out.reverse = c.posting(place+".reverse", p.Reverse, out, shared)
	}
	return out
}

func (c *compiler) lookup(place string, l *Lookup) *lookup {
	out := &lookup{url: c.template(place+".url", l.URL, ofRequest), found: c.need(place+".found", l.Found, "\"size(body.items) == 1\"", ofAnswer),
		pending: c.expr(place+".pending", l.Pending, ofAnswer), cannotTell: c.expr(place+".cannot_tell", l.CannotTell, ofAnswer),
		absent:   c.need(place+".absent", l.Absent, "\"status == 200 && size(body.items) == 0\"", ofAnswer),
		document: c.document(place, l.Document, ofAnswer), rejected: c.rules(place+".rejected", l.Rejected, ofAnswer, "retryable", "correctable", "fatal"),
		absentAfter: l.AbsentAfter, mark: c.expr(place+".mark", l.Mark, ofAnswer), reversedBy: c.expr(place+".reversed_by", l.ReversedBy, ofAnswer)}
	if l.URL == "" {
		c.fail(place, fmt.Errorf("url is empty; write where the effect of a key is found, such as documents?external_key={key}"))
	}
	if l.AbsentAfter != nil && *l.AbsentAfter < 0 {
		c.fail(place, fmt.Errorf("absent_after must not be below zero; leave it out when absence proves nothing"))
	}
	return out
}

func (c *compiler) verify(place string, v *Verify, l *lookup) *verify {
	out := &verify{url: c.template(place+".url", v.URL, append([]string{"document"}, ofRequest...)), found: c.expr(place+".found", v.Found, ofDocument),
		notYet: c.expr(place+".not_yet", v.NotYet, ofDocument), within: v.Within}
	if !out.url.IsSet() {
		if l == nil {
			c.fail(place, fmt.Errorf("url is empty, and there is no lookup: write where the document is read, such as documents/{document.number}"))
			return out
		}
		out.url = l.url
	}
	if !out.found.IsSet() && l != nil && v.URL == "" {
		out.found = l.found
	}
	if !out.found.IsSet() {
		c.fail(place+".found", fmt.Errorf("is empty; write when the document is there, such as \"status == 200\""))
	}
	var err error
	out.equal, err = generic.CompileEquals(v.Equal, ofRequest, ofDocument)
	c.fail(place+".equal", err)
	for i, w := range v.Wrong {
		at := fmt.Sprintf("%s.wrong[%d]", place, i)
		out.wrong = append(out.wrong, generic.Refusal{When: c.need(at+".when", w.When, "\"size(body.failed) > 0\"", ofDocument), Reason: c.need(at+".reason", w.Reason, "\"'a movement failed'\"", ofDocument)})
	}
	return out
}

func (c *compiler) list(o Orders) list {
	back, err := readOverlap(o.Overlap)
	c.fail("orders", err)
	out := list{url: c.template("orders.url", o.URL, ofList[:3]), at: c.expr("orders.at", o.At, ofPage), next: c.expr("orders.next", o.Next, ofPage),
		cursor: c.expr("orders.cursor", o.Cursor, ofPage), more: c.expr("orders.more", o.More, ofPage), get: c.template("orders.get.url", o.Get.URL, ofList[3:]),
		getAt: c.expr("orders.get.at", o.Get.At, ofPage), missing: c.expr("orders.get.missing", o.Get.Missing, ofPage), back: back}
	if o.Map.Changed == "" && out.byChange() {
		c.fail("orders.map", fmt.Errorf("changed is missing: the next page begins at the last change, unless next, cursor or {offset} in url says otherwise"))
	}
	return out
}

// byChange reports that the next page begins at the last change.
func (l *list) byChange() bool { return !l.next.IsSet() && !l.cursor.IsSet() && !l.url.Uses("offset") }

func (c *compiler) effects(e *Effects) *effects {
	if e == nil {
		return nil
	}
	names := append([]string{"row"}, ofPage...)
	m := e.Map
	out := &effects{url: c.template("effects.url", e.URL, []string{"order_no", "offset"}), at: c.expr("effects.at", cmp.Or(e.At, "body"), ofPage),
		next: c.expr("effects.next", e.Next, ofPage), asOf: c.expr("effects.as_of", e.AsOf, ofPage), fields: map[string]generic.Expr{}}
	if e.URL == "" || m.Number == "" || m.Key == "" || m.Kind == "" {
		c.fail("effects", fmt.Errorf("url, map.number, map.key and map.kind are needed: a document without them cannot be compared"))
	}
	for name, src := range map[string]string{"number": m.Number, "id": m.ID, "key": m.Key, "kind": m.Kind, "operation": m.Operation, "pending": m.Pending,
		"reverses": m.Reverses, "reversed_by": m.ReversedBy, "posting_date": m.PostingDate, "booked_at": m.BookedAt, "user": m.User} {
		out.fields[name] = c.expr("effects.map."+name, src, names)
	}
	for i, q := range m.Quantities {
		at := fmt.Sprintf("effects.map.quantities[%d]", i)
		kind := object.QuantityKind(q.Kind)
		if !slices.Contains([]object.QuantityKind{object.Yield, object.Scrap, object.Rework, object.Consumed, object.Returned}, kind) {
			c.fail(at, fmt.Errorf("kind %q is not known; use yield, scrap, rework, consumed or returned", q.Kind))
		}
		out.quantities = append(out.quantities, effectQuantity{kind, c.need(at+".item", q.Item, "row.item", names), c.need(at+".value", q.Value, "row.yield", names),
			c.need(at+".unit", q.Unit, "row.unit", names)})
	}
	return out
}
