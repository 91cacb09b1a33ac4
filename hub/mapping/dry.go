package mapping

import (
	"cmp"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/object"
)

// Sample is a fact of the past, as a dry run looks at it.
type Sample struct {
	Fact object.Fact
	ERP  string
	// Sent says that something was posted of it; Applied is then how, nil for in its own words.
	Sent    bool
	Applied *Applied
	// Order is its work order as the outside system has it; OrderNo is empty where it is not known.
	Order object.WorkOrder
}

// Dry is what a version would change.
type Dry struct {
	Set     string `json:"set"`
	Version int    `json:"version"`
	// Against is the version in force that it was compared with, 0 for none.
	Against int `json:"against"`
	// Facts is how many facts the set concerns, Changed how many would be said otherwise, Stops how many would stop that go
	// today, Goes how many would go that stop today.
	Facts     int       `json:"facts"`
	Changed   int       `json:"changed"`
	Stops     int       `json:"stops"`
	Goes      int       `json:"goes"`
	Sums      []Sum     `json:"sums" nullable:"false"`
	Examples  []Example `json:"examples" nullable:"false"`
	Stopped   []Example `json:"stopped" nullable:"false"`
	Warnings  []Warning `json:"warnings" nullable:"false"`
	Truncated bool      `json:"truncated,omitempty" doc:"There are more facts than were looked at: the latest ones count"`
	// Orders is how many open work orders were looked at, and what would become of them on their way down.
	Orders        int         `json:"orders"`
	OrdersChanged int         `json:"orders_changed"`
	OrdersStop    int         `json:"orders_stop"`
	OrderExamples []OrderLine `json:"order_examples,omitempty"`
	Since         time.Time   `json:"since"`
}

// Sum is the quantities of all facts that are counted in one unit and posted in another.
type Sum struct {
	Unit       string          `json:"unit" doc:"Of the facts"`
	Facts      int             `json:"facts"`
	Counted    decimal.Decimal `json:"counted"`
	UnitBefore string          `json:"unit_before" doc:"Empty: it stops"`
	Before     decimal.Decimal `json:"before"`
	UnitAfter  string          `json:"unit_after" doc:"Empty: it would stop"`
	After      decimal.Decimal `json:"after"`
}

// Example is one fact.
type Example struct {
	Fact    string    `json:"fact"`
	At      time.Time `json:"at"`
	OrderNo string    `json:"order_no,omitempty"`
	Before  string    `json:"before"`
	After   string    `json:"after"`
}

// OrderLine is one work order that would stop, or go down otherwise.
type OrderLine struct {
	OrderNo string `json:"order_no"`
	ERP     string `json:"erp"`
	Before  string `json:"before"`
	After   string `json:"after"`
}

// Warning is something that is wrong as a rule. Whoever approves must name it.
type Warning struct {
	Name    string `json:"name" example:"ratio:KGM:GRM:1000"`
	Text    string `json:"text"`
	Facts   int    `json:"facts"`
	Example string `json:"example"`
}

// examplesShown bounds the lists of a dry run.
const examplesShown = 20

// Trial collects a dry run. Make it with NewTrial.
type Trial struct {
	draft         Version
	before, after *Rules
	now           time.Time
	out           Dry
	sums          map[[3]string]*Sum
	warnings      map[string]*Warning
	orders        map[string]*ordered
	packs         []decimal.Decimal
}

// ordered is what would be posted of one order beside what was ordered.
type ordered struct {
	work          object.WorkOrder
	before, after decimal.Decimal
	unit          string
	fact          string
}

// NewTrial begins a dry run of a version against the rules as they are. The version is taken as if it had been in force all
// the time.
func NewTrial(rules *Rules, draft Version, now, since time.Time) *Trial {
	draft.From = time.Time{}
	t := &Trial{
		draft: draft, before: rules, after: rules.With(draft), now: now, sums: map[[3]string]*Sum{}, warnings: map[string]*Warning{}, orders: map[string]*ordered{},
		out: Dry{Set: draft.Name, Version: draft.Number, Against: rules.InForce(draft.Name, now), Sums: []Sum{}, Examples: []Example{}, Stopped: []Example{}, Warnings: []Warning{}, Since: since},
	}
	for _, r := range draft.Content.Rows {
		if f, err := Ratio(r.Factor); err == nil && draft.Kind == Unit && f.Cmp(big.NewRat(1, 1)) != 0 {
			t.packs = append(t.packs, RoundTo(f, maxScale))
		}
	}
	return t
}

// Add looks at one fact.
func (t *Trial) Add(s Sample) {
	item, unit, reason := words(s.Fact)
	word := map[Kind]string{Unit: unit, Item: item, Reason: reason, Movement: string(s.Fact.Moves())}[t.draft.Kind]
	if !t.draft.fits(t.draft.Kind, s.ERP, s.Fact.Plant) || word == "" {
		return
	}
	t.out.Facts++
	before, stopped := s.Applied, (*Missing)(nil)
	if !s.Sent {
		before, stopped = t.before.Of(s.Fact, s.ERP, t.now)
	} else if before == nil {
		before = &Applied{}
	}
	after, stops := t.after.Of(s.Fact, s.ERP, t.now)
	if t.draft.Kind == Movement {
		stopped, stops = cmp.Or(stopped, unmoved(s.Fact, before)), cmp.Or(stops, unmoved(s.Fact, after))
	}
	b, a := said(s.Fact, before, stopped), said(s.Fact, after, stops)
	x := Example{s.Fact.Key.String(), s.Fact.OccurredAt, s.Fact.OrderNo(), b, a}
	switch {
	case stops != nil && stopped == nil:
		t.out.Stops++
		if len(t.out.Stopped) < examplesShown {
			t.out.Stopped = append(t.out.Stopped, x)
		}
	case stops == nil && stopped != nil:
		t.out.Goes++
	}
	if a != b {
		t.out.Changed++
		if len(t.out.Examples) < examplesShown {
			t.out.Examples = append(t.out.Examples, x)
		}
	}
	if t.draft.Kind == Unit {
		t.quantities(s, before, after, stopped, stops)
	}
}

// AddOrder looks at one open work order, as the outside system has it. Those that stop stand first among the examples.
func (t *Trial) AddOrder(w object.WorkOrder) {
	if !t.draft.fits(t.draft.Kind, w.ERP, w.Plant) {
		return
	}
	t.out.Orders++
	b, bm := t.told(t.before, w)
	a, am := t.told(t.after, w)
	if a == b {
		return
	}
	t.out.OrdersChanged++
	x := OrderLine{w.OrderNo, w.ERP, b, a}
	if am != nil && bm == nil {
		t.out.OrdersStop++
		t.out.OrderExamples = slices.Insert(t.out.OrderExamples, min(t.out.OrdersStop-1, len(t.out.OrderExamples)), x)
	} else {
		t.out.OrderExamples = append(t.out.OrderExamples, x)
	}
	t.out.OrderExamples = t.out.OrderExamples[:min(len(t.out.OrderExamples), examplesShown)]
}

// told is a work order in the plant's words.
func (t *Trial) told(r *Rules, w object.WorkOrder) (string, *Missing) {
	out, _, missing := r.Order(w, t.now)
	if t.draft.Kind == Site {
		var m *Missing
		if out.Site, m = r.Place(w.ERP, w.Site, t.now); m != nil {
			missing = m
		}
	}
	if missing != nil {
		return "stops: " + missing.Reason(), missing
	}
	text := fmt.Sprintf("%s %s of %s", out.Quantity.Value, out.Quantity.Unit, out.Item)
	for _, c := range out.Components {
		text += fmt.Sprintf(", %s %s of %s", c.Required.Value, c.Required.Unit, c.Item)
	}
	if out.Site != "" {
		text += ", site " + out.Site
	}
	return text, nil
}

// said is a fact in the outside system's words, as far as mapping goes.
func said(f object.Fact, a *Applied, m *Missing) string {
	if m != nil {
		return "stops: " + m.Reason()
	}
	item, unit, reason := words(f)
	item, unit, reason = cmp.Or(a.Item, item), cmp.Or(a.Unit, unit), cmp.Or(a.Reason, reason)
	var parts []string
	for _, l := range f.FactQuantities() {
		parts = append(parts, fmt.Sprintf("%s %s %s", l.Kind, RoundTo(new(big.Rat).Mul(l.Received.Rat(), a.Ratio()), maxScale), unit))
	}
	if item != "" {
		parts = append(parts, "item "+item)
	}
	if reason != "" {
		parts = append(parts, "reason "+reason)
	}
	if a.Movements != nil && f.Moves() != "" {
		to, _ := a.Movements.Of(f.Moves(), "the connector's own type")
		parts = append(parts, "movement "+to)
	}
	return strings.Join(parts, ", ")
}

// unmoved is the movement of a fact that no version knows. Where the system is told no types, or the order says that it is another
// movement, the posting goes all the same: a dry run does not know.
func unmoved(f object.Fact, a *Applied) *Missing {
	if a == nil || f.Moves() == "" {
		return nil
	}
	if _, ok := a.Movements.Of(f.Moves(), ""); ok {
		return nil
	}
	return &Missing{Kind: Movement, Value: string(f.Moves()), Set: a.Movements.Set, Version: a.Movements.Version}
}

func (t *Trial) quantities(s Sample, before, after *Applied, stopped, stops *Missing) {
	_, unit, _ := words(s.Fact)
	unitOf := func(a *Applied, m *Missing) string {
		if m != nil {
			return ""
		}
		return cmp.Or(a.Unit, unit)
	}
	ub, ua := unitOf(before, stopped), unitOf(after, stops)
	sum := t.sums[[3]string{unit, ub, ua}]
	if sum == nil {
		sum = &Sum{Unit: unit, UnitBefore: ub, UnitAfter: ua}
		t.sums[[3]string{unit, ub, ua}] = sum
	}
	sum.Facts++
	key := s.Fact.Key.String()
	for _, l := range s.Fact.FactQuantities() {
		b, a := decimal.Zero, decimal.Zero
		if stopped == nil {
			b = RoundTo(new(big.Rat).Mul(l.Received.Rat(), before.Ratio()), maxScale)
		}
		if stops == nil {
			a = RoundTo(new(big.Rat).Mul(l.Received.Rat(), after.Ratio()), maxScale)
		}
		sum.Counted, sum.Before, sum.After = sum.Counted.Add(l.Received), sum.Before.Add(b), sum.After.Add(a)
		if l.Kind == object.Yield {
			t.order(s, key, ua, b, a)
		}
	}
	if stops != nil {
		return
	}
	compared := before
	if stopped != nil {
		compared = &Applied{} // what the plant counted is all there is to compare with
		ub = unit
	}
	t.plausible(s, key, ub, ua, new(big.Rat).Quo(after.Ratio(), compared.Ratio()))
}

func (t *Trial) order(s Sample, key, unit string, before, after decimal.Decimal) {
	if s.Order.OrderNo == "" {
		return
	}
	k := s.ERP + "\x00" + s.Order.OrderNo
	o := t.orders[k]
	if o == nil {
		o = &ordered{work: s.Order, unit: unit, fact: key}
		t.orders[k] = o
	}
	o.before, o.after = o.before.Add(before), o.after.Add(after)
}

// known are the ratios that a wrong unit makes.
var known = []decimal.Decimal{
	decimal.NewFromInt(1000), decimal.NewFromInt(12), decimal.NewFromInt(144), decimal.NewFromInt(100), decimal.NewFromInt(10), decimal.NewFromInt(60), decimal.NewFromInt(3600),
	decimal.NewFromInt(1_000_000), decimal.New(45359237, -8),
}

// plausible compares with what was posted, or would be today.
func (t *Trial) plausible(s Sample, key, before, after string, ratio *big.Rat) {
	if r := RoundTo(ratio, maxScale); ratio.Cmp(big.NewRat(1, 1)) != 0 {
		if name, near := t.near(r); near {
			t.warn(fmt.Sprintf("ratio:%s:%s:%s", before, after, name), key, "quantities would be %s times what they are today (%s today, %s then): that is the ratio of a wrong unit", r, before, after)
		}
	}
	if db, da := units[before].dimension, units[after].dimension; db != da && db != "" && da != "" {
		t.warn(fmt.Sprintf("dimension:%s:%s", before, after), key, "%s measures %s, %s measures %s", before, db, after, da)
	}
	w := s.Order
	if c := s.Fact.Confirmation; c != nil && w.Quantity.Unit != "" && after != w.Quantity.Unit && before == w.Quantity.Unit {
		t.warn(fmt.Sprintf("order_unit:%s:%s", after, w.Quantity.Unit), key, "the system has the orders in %s, and would get confirmations in %s", w.Quantity.Unit, after)
	}
}

// near names the ratio that a change of quantities is near to, also turned round; a change by five or more is always named.
func (t *Trial) near(r decimal.Decimal) (string, bool) {
	one := decimal.NewFromInt(1)
	within := func(a, b decimal.Decimal) bool {
		return a.Sub(b).Abs().LessThanOrEqual(b.Abs().Mul(decimal.New(1, -2)))
	}
	for _, k := range append(slices.Clone(known), t.packs...) {
		if within(r, k) {
			return k.String(), true
		}
		if back := r.Mul(k); within(back, one) {
			return "1/" + k.String(), true
		}
	}
	five := decimal.NewFromInt(5)
	return r.Round(3).String(), r.GreaterThanOrEqual(five) || r.Mul(five).LessThanOrEqual(one)
}

func (t *Trial) warn(name, fact, format string, args ...any) {
	w := t.warnings[name]
	if w == nil {
		w = &Warning{Name: name, Text: fmt.Sprintf(format, args...), Example: fact}
		t.warnings[name] = w
	}
	w.Facts++
}

// Result ends the dry run.
func (t *Trial) Result() Dry {
	for _, o := range t.orders {
		want := o.work.Quantity.Value
		five, two := decimal.NewFromInt(5), decimal.NewFromInt(2)
		if want.IsPositive() && o.after.GreaterThan(want.Mul(five)) && o.before.LessThanOrEqual(want.Mul(two)) {
			t.warn("ordered:"+o.unit, o.fact, "order %q is of %s %s, and %s %s would be posted of it", o.work.OrderNo, want, o.work.Quantity.Unit, o.after, o.unit)
		}
	}
	for _, s := range t.sums {
		t.out.Sums = append(t.out.Sums, *s)
	}
	slices.SortFunc(t.out.Sums, func(a, b Sum) int {
		return cmp.Or(cmp.Compare(a.Unit, b.Unit), cmp.Compare(a.UnitBefore, b.UnitBefore), cmp.Compare(a.UnitAfter, b.UnitAfter))
	})
	for _, name := range slices.Sorted(maps.Keys(t.warnings)) {
		t.out.Warnings = append(t.out.Warnings, *t.warnings[name])
	}
	return t.out
}

// Unacknowledged names the warnings that a list of names leaves out.
func (d Dry) Unacknowledged(names []string) (left []string) {
	for _, w := range d.Warnings {
		if !slices.Contains(names, w.Name) {
			left = append(left, w.Name)
		}
	}
	return left
}

// Change is one row that two versions do not say alike. Before or After is empty where a version does not have it.
type Change struct {
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
}

func (r Row) String() string {
	text := r.From
	if r.Item != "" {
		text += " of item " + r.Item
	}
	text += " → " + r.To
	if r.Factor != "" {
		text += " × " + r.Factor
	}
	if r.Direction != "" && r.Direction != Both {
		text += " (" + string(r.Direction) + " only)"
	}
	if r.Scale != nil {
		text += fmt.Sprintf(", %d decimals", *r.Scale)
	}
	if r.Text != "" {
		text += ", " + r.Text
	}
	return text
}

// Diff lists the rows in which two versions differ.
func Diff(before, after Content) []Change {
	type slot struct {
		word
		way Direction
	}
	rows := func(c Content) map[slot]string {
		m := map[slot]string{}
		for _, r := range c.Rows {
			m[slot{word{r.From, r.Item}, cmp.Or(r.Direction, Both)}] = r.String()
		}
		return m
	}
	b, a := rows(before), rows(after)
	all := maps.Clone(b)
	maps.Copy(all, a)
	out := []Change{}
	for _, k := range slices.SortedFunc(maps.Keys(all), func(x, y slot) int {
		return cmp.Or(cmp.Compare(x.text, y.text), cmp.Compare(x.item, y.item), cmp.Compare(x.way, y.way))
	}) {
		if b[k] != a[k] {
			out = append(out, Change{b[k], a[k]})
		}
	}
	return out
}
