package mapping

import (
	"cmp"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/object"
)

// Rules are all approved versions of all sets. They do not change and may be used from several goroutines.
type Rules struct {
	// Generation names what they were made from; 0 where there is no set at all.
	Generation int64
	sets       []*history
}

// history is a set with its approved versions, by rising number.
type history struct {
	Set
	versions []version
}

type version struct {
	number int
	from   time.Time
	said   Content
	table  *table // of what is said; nil until it counts
}

// NewRules makes rules of approved versions; others are left out. Versions are expected to have passed Check.
func NewRules(generation int64, all []Version) *Rules {
	r := &Rules{Generation: generation}
	for _, v := range all {
		if v.State == Approved {
			r.take(v)
		}
	}
	r.sort()
	return r
}

func (r *Rules) take(v Version) {
	x := version{number: v.Number, from: v.From, said: v.Content}
	for _, h := range r.sets {
		if h.Name == v.Name {
			h.versions = append(h.versions, x)
			return
		}
	}
	r.sets = append(r.sets, &history{Set: v.Set, versions: []version{x}})
}

func (r *Rules) sort() {
	slices.SortStableFunc(r.sets, func(a, b *history) int { return cmp.Or(b.rank()-a.rank(), cmp.Compare(a.Name, b.Name)) })
	for _, h := range r.sets {
		slices.SortFunc(h.versions, func(a, b version) int { return cmp.Compare(a.number, b.number) })
		h.versions = counting(h.versions)
		for i := range h.versions {
			if v := &h.versions[i]; v.table == nil {
				v.table, _ = compile(h.Set, v.said)
				v.said = Content{}
			}
		}
	}
}

// counting leaves out the versions that count at no time: a later one came into force no later. What a version said that was
// taken back must not be found when a word is looked for in later versions.
func counting(all []version) []version {
	out := make([]version, 0, len(all))
	for i, v := range all {
		if !slices.ContainsFunc(all[i+1:], func(o version) bool { return !o.from.After(v.from) }) {
			out = append(out, v)
		}
	}
	return out
}

// With returns the rules as they would be with one more version of a set, in force from v.From.
func (r *Rules) With(v Version) *Rules {
	out := &Rules{Generation: r.Generation}
	for _, h := range r.sets {
		out.sets = append(out.sets, &history{Set: h.Set, versions: slices.Clone(h.versions)})
	}
	v.State = Approved
	out.take(v)
	out.sort()
	return out
}

// Empty reports that there is nothing to map by.
func (r *Rules) Empty() bool { return r == nil || len(r.sets) == 0 }

// Next is when the next version comes into force after a time; zero for never.
func (r *Rules) Next(now time.Time) (next time.Time) {
	for _, h := range r.sets {
		for _, v := range h.versions {
			if v.from.After(now) && (next.IsZero() || v.from.Before(next)) {
				next = v.from
			}
		}
	}
	return next
}

// at is the place in versions of the one in force at a time, -1 for none.
func (h *history) at(t time.Time) int {
	for i := len(h.versions) - 1; i >= 0; i-- {
		if !h.versions[i].from.After(t) {
			return i
		}
	}
	return -1
}

// InForce is the number of the version of a set that is in force at a time, 0 for none.
func (r *Rules) InForce(set string, t time.Time) int {
	for _, h := range r.sets {
		if h.Name == set {
			if i := h.at(t); i >= 0 {
				return h.versions[i].number
			}
		}
	}
	return 0
}

// Value says which row made a value.
type Value struct {
	Field   string `json:"field" enum:"unit,item,reason,site,movement"`
	Set     string `json:"set"`
	Version int    `json:"version"`
	From    string `json:"from"`
	To      string `json:"to"`
	Factor  string `json:"factor,omitempty"`
}

func (v Value) String() string {
	text := fmt.Sprintf("%s %q as %q", v.Field, v.From, v.To)
	if v.Factor != "" {
		text += ", factor " + v.Factor
	}
	return fmt.Sprintf("%s, by version %d of %s", text, v.Version, v.Set)
}

// Missing is a value that no version in force knows.
type Missing struct {
	Kind    Kind
	Value   string
	Item    string // of a unit
	Set     string
	Version int
}

// Reason is the sentence for a person, and NextStep what to do.
func (m *Missing) Reason() string {
	return fmt.Sprintf("%s %s is not in mapping set %q, of which version %d is in force", m.Kind, of(m.Value, m.Item), m.Set, m.Version)
}

// NextStep is what a person should do.
func (m *Missing) NextStep() string {
	return fmt.Sprintf("add it in a new version of %q and have that approved; then this goes on by itself", m.Set)
}

// place is where and when something is mapped.
type place struct {
	erp, plant string
	at, now    time.Time
	way        Direction
}

// find looks a word up. The row is nil where no set is in force, or where what is not listed stays as it is.
func (r *Rules) find(kind Kind, p place, text, item string) (*compiled, Value, *Missing) {
	var first *history
	keep := false
	for _, h := range r.sets {
		i := -1
		if h.fits(kind, p.erp, p.plant) {
			i = h.at(p.at)
		}
		if i < 0 {
			continue
		}
		v := h.versions[i]
		if row := v.table.find(p.way, text, item); row != nil {
			return row, value(h, v, row, p.way), nil
		}
		keep = keep || v.table.keep
		if first == nil {
			first = h
		}
	}
	if first == nil || keep {
		return nil, Value{}, nil
	}
	return r.later(kind, p, text, item, first)
}

// later looks a word up that no version of its time knows.
func (r *Rules) later(kind Kind, p place, text, item string, first *history) (*compiled, Value, *Missing) {
	for _, h := range r.sets {
		i := -1
		if h.fits(kind, p.erp, p.plant) {
			i = h.at(p.at)
		}
		if i < 0 {
			continue
		}
		for _, v := range h.versions[i+1:] {
			if v.from.After(p.now) {
				continue
			}
			if row := v.table.find(p.way, text, item); row != nil {
				return row, value(h, v, row, p.way), nil
			}
		}
	}
	return nil, Value{}, &Missing{Kind: kind, Value: text, Item: item, Set: first.Name, Version: first.versions[first.at(p.at)].number}
}

func value(h *history, v version, row *compiled, way Direction) Value {
	x := Value{Field: string(h.Kind), Set: h.Name, Version: v.number, From: row.From, To: row.To}
	if row.factor != nil {
		x.Factor = row.factor.String()
	}
	if way == Down {
		x.From, x.To = x.To, x.From
	}
	return x
}

// Applied is how a fact is said in the words of an outside system, and which versions made that so. Empty fields stay as the
// fact says.
type Applied struct {
	// Generation is of the rules that it was made by.
	Generation int64  `json:"generation"`
	Item       string `json:"item,omitempty"`
	Unit       string `json:"unit,omitempty"`
	Factor     string `json:"factor,omitempty"`
	Scale      *int32 `json:"scale,omitempty"`
	Reason     string `json:"reason,omitempty"`
	Site       string `json:"site,omitempty"`
	// Movements are the system's types of goods movements; nil where no mapping says them.
	Movements *object.MovementTypes `json:"movements,omitempty"`
	Values    []Value               `json:"values,omitempty"`
	// Amounts are the quantities of a fact whose unit was mapped.
	Amounts []Amount `json:"amounts,omitempty"`
}

// Amount is one quantity in the outside system's unit, rounded as it is posted. Counted is what counts of the fact, in its own unit.
type Amount struct {
	Kind    object.QuantityKind `json:"kind"`
	Counted decimal.Decimal     `json:"counted"`
	Posted  decimal.Decimal     `json:"posted"`
}

// Ratio is the factor, one where no unit was mapped.
func (a *Applied) Ratio() *big.Rat {
	if r, ok := new(big.Rat).SetString(a.Factor); ok && r.Sign() > 0 {
		return r
	}
	return big.NewRat(1, 1)
}

// Converts reports that quantities are posted in another unit or by a factor.
func (a *Applied) Converts() bool { return a != nil && a.Unit != "" }

// Same reports that two postings are said in the same words and amounts, by whichever versions.
func (a *Applied) Same(b *Applied) bool {
	words := func(a *Applied) string {
		if a == nil {
			a = &Applied{}
		}
		return fmt.Sprint(a.Item, "\x00", a.Unit, "\x00", a.Factor, "\x00", a.Reason, "\x00", a.Site, "\x00", a.Amounts, "\x00", movementWords(a.Movements))
	}
	return words(a) == words(b)
}

func movementWords(t *object.MovementTypes) string {
	if t == nil {
		return ""
	}
	return fmt.Sprint(t.Types, t.Set) // a map is printed in the order of its keys
}

// Posted is the amount of a kind; ok is false when there is none.
func (a *Applied) Posted(kind object.QuantityKind) (decimal.Decimal, bool) {
	for _, x := range a.Amounts {
		if x.Kind == kind {
			return x.Posted, true
		}
	}
	return decimal.Decimal{}, false
}

// Of maps a fact for a system by the rules of its own time; now bounds what is taken from later versions. Amounts are left to
// the caller, who knows what counts and what was carried.
func (r *Rules) Of(f object.Fact, erp string, now time.Time) (*Applied, *Missing) {
	a := &Applied{Generation: r.Generation}
	m := &mapper{r: r, p: place{erp: erp, plant: f.Plant, at: f.OccurredAt, now: now, way: Up}}
	m.fact(f, a)
	a.Values = m.values
	return a, m.missing
}

type mapper struct {
	r       *Rules
	p       place
	values  []Value
	missing *Missing
}

// word maps one word; empty where it stays as it is.
func (m *mapper) word(kind Kind, text string) string {
	if text == "" || m.missing != nil {
		return ""
	}
	row, v, missing := m.r.find(kind, m.p, text, "")
	m.missing = missing
	if row == nil {
		return ""
	}
	m.values = append(m.values, v)
	return v.To
}

func (m *mapper) unit(unit, item string) *compiled {
	if unit == "" || m.missing != nil {
		return nil
	}
	row, v, missing := m.r.find(Unit, m.p, unit, item)
	m.missing = missing
	if row != nil {
		m.values = append(m.values, v)
	}
	return row
}

func (m *mapper) fact(f object.Fact, a *Applied) {
	item, unit, reason := words(f)
	if row := m.unit(unit, item); row != nil {
		a.Unit, a.Factor, a.Scale = row.To, row.factor.String(), row.scale
	}
	a.Item = m.word(Item, item)
	a.Reason = m.word(Reason, reason)
	if m.missing == nil && (f.Confirmation != nil || f.Consumption != nil) {
		a.Movements = m.movements(f.Moves())
	}
}

// movements are the types of all movements on work orders: which of them a posting makes, the connector finds out from the order.
// The one that the fact is about is noted among the values.
func (m *mapper) movements(about object.MovementKind) *object.MovementTypes {
	if !slices.ContainsFunc(m.r.sets, func(h *history) bool { return h.fits(Movement, m.p.erp, m.p.plant) }) {
		return nil
	}
	t := &object.MovementTypes{Types: map[object.MovementKind]string{}}
	for _, k := range object.OrderMovements() {
		row, v, missing := m.r.find(Movement, m.p, string(k), "")
		switch {
		case row != nil:
			t.Types[k] = row.To
			if k == about {
				m.values = append(m.values, v)
			}
		case missing != nil:
			t.Set, t.Version = missing.Set, missing.Version
		}
	}
	if len(t.Types) == 0 && t.Set == "" {
		return nil
	}
	return t
}

// WithMovements adds to how a fact was posted the types of movements that no version knew then, by the rules of now. What is there
// stays: it was posted with it.
func (a *Applied) WithMovements(r *Rules, f object.Fact, erp string, now time.Time) *Applied {
	if a == nil || a.Movements == nil || a.Movements.Set == "" {
		return a
	}
	out := *a
	out.Generation = r.Generation
	m := &mapper{r: r, p: place{erp: erp, plant: f.Plant, at: f.OccurredAt, now: now, way: Up}}
	if t := m.movements(""); t != nil {
		maps.Copy(t.Types, a.Movements.Types)
		out.Movements = t
	}
	return &out
}

// WithoutMovements is for a system that is told no types of movements.
func (a *Applied) WithoutMovements() {
	a.Movements = nil
	a.Values = slices.DeleteFunc(a.Values, func(v Value) bool { return v.Field == string(Movement) })
}

// Code looks a word up in a list by the list's name, for a system and a plant as of a time; now bounds what is taken from later
// versions. A word that the list does not know is Missing, unless the list keeps what it does not name. ok is false where there is no
// such list in force, or it is not for that system and plant.
func (r *Rules) Code(list, word, erp, plant string, way Direction, at, now time.Time) (to string, ok bool, missing *Missing) {
	if r.Empty() {
		return "", false, nil
	}
	only := &Rules{}
	for _, h := range r.sets {
		if h.Name == list && h.fits(List, erp, plant) && h.at(at) >= 0 {
			only.sets = append(only.sets, h)
		}
	}
	if len(only.sets) == 0 {
		return "", false, nil
	}
	row, v, missing := only.find(List, place{erp: erp, plant: plant, at: at, now: now, way: way}, word, "")
	switch {
	case missing != nil:
		return "", true, missing
	case row == nil:
		return word, true, nil
	}
	return v.To, true, nil
}

// words are what a fact says that can be mapped.
func words(f object.Fact) (item, unit, reason string) {
	switch {
	case f.Confirmation != nil:
		return f.Confirmation.Item, f.Confirmation.Unit, f.Confirmation.ScrapReason
	case f.Consumption != nil:
		return f.Consumption.Item, f.Consumption.Quantity.Unit, ""
	case f.Quality != nil:
		return f.Quality.Item, f.Quality.Quantity.Unit, f.Quality.Reason
	}
	return "", "", ""
}

// Apply returns the fact in the outside system's words, with the amounts that are posted. The fact itself stays as it is.
func (a *Applied) Apply(f object.Fact) object.Fact {
	if a == nil {
		return f
	}
	amount := func(into *decimal.Decimal, kinds ...object.QuantityKind) {
		for _, k := range kinds {
			if v, ok := a.Posted(k); ok {
				*into = v
			}
		}
	}
	if f.Confirmation != nil {
		c := *f.Confirmation
		c.Item, c.Unit, c.ScrapReason = cmp.Or(a.Item, c.Item), cmp.Or(a.Unit, c.Unit), cmp.Or(a.Reason, c.ScrapReason)
		amount(&c.Yield, object.Yield)
		amount(&c.Scrap, object.Scrap)
		amount(&c.Rework, object.Rework)
		f.Confirmation = &c
	}
	if f.Consumption != nil {
		c := *f.Consumption
		c.Item, c.Quantity.Unit = cmp.Or(a.Item, c.Item), cmp.Or(a.Unit, c.Quantity.Unit)
		amount(&c.Quantity.Value, object.Consumed, object.Returned)
		f.Consumption = &c
	}
	if f.Quality != nil {
		q := *f.Quality
		q.Item, q.Quantity.Unit, q.Reason = cmp.Or(a.Item, q.Item), cmp.Or(a.Unit, q.Quantity.Unit), cmp.Or(a.Reason, q.Reason)
		if a.Unit != "" {
			q.Quantity.Value = RoundTo(new(big.Rat).Mul(q.Quantity.Value.Rat(), a.Ratio()), scaleOr(a.Scale, -1))
		}
		f.Quality = &q
	}
	return f
}

func scaleOr(scale *int32, other int32) int32 {
	if scale != nil {
		return *scale
	}
	return other
}

// DecimalsOf is how many decimals are posted: the system's, or fewer where the row says so.
func (a *Applied) DecimalsOf(system int32) int32 {
	if a.Scale == nil || system >= 0 && system < *a.Scale {
		return system
	}
	return *a.Scale
}

// Order maps a work order into the plant's words, by the rules of now. What is missing leaves the order as it is.
func (r *Rules) Order(w object.WorkOrder, now time.Time) (object.WorkOrder, []Value, *Missing) {
	m := &mapper{r: r, p: place{erp: w.ERP, plant: w.Plant, at: now, now: now, way: Down}}
	out := w
	item := func(of *string) { *of = cmp.Or(m.word(Item, *of), *of) }
	quantity := func(q *object.Quantity, of string) {
		if row := m.unit(q.Unit, of); row != nil {
			*q = object.Quantity{Value: row.convert(q.Value.Rat(), Down), Unit: row.From}
		}
	}
	item(&out.Item)
	quantity(&out.Quantity, out.Item)
	out.Operations = slices.Clone(w.Operations)
	for i := range out.Operations {
		quantity(&out.Operations[i].Quantity, out.Item)
	}
	out.Components = m.components(w.Components)
	for i := range out.Components {
		c := &out.Components[i]
		item(&c.Item)
		quantity(&c.Required, c.Item)
	}
	if m.missing != nil {
		return w, nil, m.missing
	}
	return out, m.values, nil
}

// components leaves out what an order yields beside its item: the plant does not take it. Only a mapping knows a system's own type for
// that.
func (m *mapper) components(all []object.Component) []object.Component {
	return slices.DeleteFunc(slices.Clone(all), func(c object.Component) bool {
		kind := object.MovementKind(m.word(Movement, c.MovementType))
		return kind == object.ByProduct || kind == object.ReceiptFromOrder
	})
}

// Place maps a system's site into our name for it. It is asked before an order's plant is known.
func (r *Rules) Place(erp, site string, now time.Time) (string, *Missing) {
	m := &mapper{r: r, p: place{erp: erp, at: now, now: now, way: Down}}
	return cmp.Or(m.word(Site, site), site), m.missing
}

// SiteOf maps our name of a plant into the system's, for an order that names no site itself.
func (r *Rules) SiteOf(erp, plant string, at, now time.Time) (string, Value, *Missing) {
	row, v, missing := r.find(Site, place{erp: erp, plant: plant, at: at, now: now, way: Up}, plant, "")
	if row == nil {
		return "", Value{}, missing
	}
	return row.To, v, nil
}
