package mapping

import (
	"fmt"
	"maps"
	"math/big"
	"regexp"
	"slices"
	"strings"

	"github.com/linekeeper/linekeeper/hub/object"
)

// Fault is one thing wrong with a set or one of its versions. Name is stable. Row and Test count from 1, 0 for none.
type Fault struct {
	Name string `json:"name"`
	Row  int    `json:"row,omitempty"`
	Test int    `json:"test,omitempty"`
	Text string `json:"text"`
}

func (f Fault) String() string {
	at := ""
	switch {
	case f.Row > 0:
		at = fmt.Sprintf("row %d: ", f.Row)
	case f.Test > 0:
		at = fmt.Sprintf("test %d: ", f.Test)
	}
	return at + f.Text + " (" + f.Name + ")"
}

// The names of faults.
const (
	FaultName        = "name"             // of the set
	FaultKind        = "kind"             // unknown, or it has no such field
	FaultEmpty       = "empty"            // no rows, or a row without a word
	FaultTooMany     = "too_many"         // rows or tests
	FaultMovement    = "unknown_movement" // no kind of movement
	FaultDirection   = "direction"
	FaultScale       = "scale"
	FaultUnlisted    = "unlisted"
	FaultUnknownUnit = "unknown_unit"        // no code of UN/ECE Recommendation 20
	FaultDimension   = "dimension"           // the units measure different things
	FaultFactor      = "factor"              // missing, or not readable
	FaultStandard    = "factor_not_standard" // the units themselves say another factor
	FaultLossy       = "lossy"               // one of From does not come back from To
	FaultDuplicate   = "duplicate"           // two rows for one word
	FaultAmbiguous   = "ambiguous"           // on the way down two rows fit
	FaultLoop        = "loop"                // rows lead in a circle
	FaultNoTests     = "no_tests"
	FaultTest        = "test" // not readable
	FaultTestFailed  = "test_failed"
)

const (
	maxRows  = 50_000
	maxTests = 5_000
	maxWord  = 200
)

var nameText = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

// CheckSet names what is wrong with the head of a set.
func CheckSet(s Set) (faults []Fault) {
	if !nameText.MatchString(s.Name) {
		faults = append(faults, Fault{Name: FaultName, Text: fmt.Sprintf("name %q is not possible: use small letters, digits, dots and dashes, at most 64", s.Name)})
	}
	if !slices.Contains(Kinds(), s.Kind) {
		faults = append(faults, Fault{Name: FaultKind, Text: fmt.Sprintf("kind %q is not known: use one of %v", s.Kind, Kinds())})
	}
	if s.Kind == Site && s.Plant != "" {
		faults = append(faults, Fault{Name: FaultKind, Text: "sites say which plant an order is for: such a set cannot belong to one plant"})
	}
	return faults
}

// Check names everything that is wrong with a version, its tests among them. Without faults it can be proposed.
func Check(s Set, c Content) []Fault {
	t, faults := compile(s, c)
	if len(c.Tests) == 0 {
		faults = append(faults, Fault{Name: FaultNoTests, Text: "a set needs tests of its own: an input and what must come out of it"})
	}
	if len(c.Tests) > maxTests {
		return append(faults, Fault{Name: FaultTooMany, Text: fmt.Sprintf("%d tests are more than %d", len(c.Tests), maxTests)})
	}
	for i, x := range c.Tests {
		if name, text := t.test(x); name != "" {
			faults = append(faults, Fault{Name: name, Test: i + 1, Text: text})
		}
	}
	return faults
}

// compiled is a row that can be used.
type compiled struct {
	Row
	factor *big.Rat
	scale  *int32
}

type word struct{ text, item string }

// table finds the row for a word, in both directions.
type table struct {
	kind     Kind
	up, down map[word]*compiled
	keep     bool
}

// find prefers the row for the item.
func (t *table) find(way Direction, text, item string) *compiled {
	rows := t.up
	if way == Down {
		rows = t.down
	}
	if r := rows[word{text, item}]; r != nil || item == "" {
		return r
	}
	return rows[word{text, ""}]
}

// compile makes the table of a version and names what is wrong. A row with a fault is not in the table.
func compile(s Set, c Content) (*table, []Fault) {
	k := &checker{set: s, content: c, t: &table{kind: s.Kind, up: map[word]*compiled{}, down: map[word]*compiled{}, keep: c.Unlisted == Keep}}
	k.faults = CheckSet(s)
	k.head()
	if len(c.Rows) > maxRows {
		k.add(FaultTooMany, 0, "%d rows are more than %d: make several sets", len(c.Rows), maxRows)
		return k.t, k.faults
	}
	for i := range c.Rows {
		k.row(i+1, c.Rows[i])
	}
	k.loops()
	return k.t, k.faults
}

type checker struct {
	set     Set
	content Content
	t       *table
	faults  []Fault
}

func (k *checker) add(name string, row int, format string, args ...any) {
	k.faults = append(k.faults, Fault{Name: name, Row: row, Text: fmt.Sprintf(format, args...)})
}

func (k *checker) head() {
	c := k.content
	if len(c.Rows) == 0 {
		k.add(FaultEmpty, 0, "there are no rows")
	}
	switch c.Unlisted {
	case "", Stop:
	case Keep:
		if k.set.Kind == Unit {
			k.add(FaultUnlisted, 0, "a unit that no row names stops its fact: unlisted: keep is not for units")
		}
	default:
		k.add(FaultUnlisted, 0, "unlisted is %q: use stop or keep", c.Unlisted)
	}
	if c.Scale != nil && (*c.Scale < 0 || *c.Scale > maxScale) {
		k.add(FaultScale, 0, "scale %d is not possible: use 0 to %d", *c.Scale, maxScale)
	}
}

func (k *checker) row(n int, r Row) {
	before := len(k.faults)
	for _, w := range []string{r.From, r.To} {
		if w == "" || strings.TrimSpace(w) != w || len(w) > maxWord {
			k.add(FaultEmpty, n, "%q is no word: it is empty, too long, or has blanks around it", w)
		}
	}
	if !slices.Contains([]Direction{"", Up, Down, Both}, r.Direction) {
		k.add(FaultDirection, n, "direction %q is not known: use up, down or both", r.Direction)
	}
	if k.set.Kind == Movement && r.From != "" && !slices.Contains(object.MovementKinds(), object.MovementKind(r.From)) {
		k.add(FaultMovement, n, "movement %q is not known: use one of %v", r.From, object.MovementKinds())
	}
	x := &compiled{Row: r, scale: r.Scale}
	if x.scale == nil {
		x.scale = k.content.Scale
	}
	if k.set.Kind == Unit {
		k.unit(n, x)
	} else if r.Factor != "" || r.Item != "" || r.Dimension != "" || r.Scale != nil || r.FromScale != 0 {
		k.add(FaultKind, n, "factor, item, dimension and scale are for units, this is a set of kind %q", k.set.Kind)
	}
	if len(k.faults) == before {
		k.keep(n, x)
	}
}

// keep puts a row into the table, if none is there for the same word.
func (k *checker) keep(n int, x *compiled) {
	if x.Direction.has(Up) {
		w := word{x.From, x.Item}
		if old := k.t.up[w]; old != nil {
			k.add(FaultDuplicate, n, "%s is there twice, as %q and as %q", of(x.From, x.Item), old.To, x.To)
			return
		}
		k.t.up[w] = x
	}
	if x.Direction.has(Down) {
		w := word{x.To, x.Item}
		if old := k.t.down[w]; old != nil {
			k.add(FaultAmbiguous, n, "on the way down %s could be %q or %q: give all but one of them direction: up", of(x.To, x.Item), old.From, x.From)
			return
		}
		k.t.down[w] = x
	}
}

func of(text, item string) string {
	if item == "" {
		return fmt.Sprintf("%q", text)
	}
	return fmt.Sprintf("%q of item %q", text, item)
}

// unit checks a row of a set for units and fills in its factor.
func (k *checker) unit(n int, x *compiled) {
	from, known := units[x.From]
	if !known && x.Dimension != "" {
		from, known = unitInfo{dimension: x.Dimension, free: true}, true
	}
	to, toKnown := units[x.To]
	if !known {
		k.add(FaultUnknownUnit, n, "unit %q is no code of UN/ECE Recommendation 20: correct it, or say its dimension if it is your own", x.From)
	}
	if !toKnown {
		k.add(FaultUnknownUnit, n, "unit %q is no code of UN/ECE Recommendation 20: the connector's own map turns the code into the system's", x.To)
	}
	if x.Scale != nil && (*x.Scale < 0 || *x.Scale > maxScale) || x.FromScale < 0 || x.FromScale > maxScale {
		k.add(FaultScale, n, "a scale is not possible: use 0 to %d", maxScale)
		return
	}
	if !known || !toKnown {
		return
	}
	if known && x.Dimension != "" && x.Dimension != from.dimension {
		k.add(FaultDimension, n, "unit %q measures %s, the row says %s", x.From, from.dimension, x.Dimension)
		return
	}
	// Pieces of one item have a weight; pieces have none.
	if from.dimension != to.dimension && x.Item == "" {
		k.add(FaultDimension, n, "unit %q measures %s, unit %q measures %s: only the row of one item can lead from one to the other", x.From, from.dimension, x.To, to.dimension)
		return
	}
	k.factor(n, x, standard(from, to))
}

func (k *checker) factor(n int, x *compiled, want *big.Rat) {
	switch {
	case x.Factor == "" && x.From == x.To:
		x.factor = big.NewRat(1, 1)
	case x.Factor == "" && want != nil:
		k.add(FaultFactor, n, "from %q to %q the factor is missing: it is %s", x.From, x.To, want)
		return
	case x.Factor == "":
		k.add(FaultFactor, n, "from %q to %q the factor is missing: how many %q is one %q?", x.From, x.To, x.To, x.From)
		return
	default:
		var err error
		if x.factor, err = Ratio(x.Factor); err != nil {
			k.add(FaultFactor, n, "%v", err)
			return
		}
	}
	if want != nil && want.Cmp(x.factor) != 0 {
		k.add(FaultStandard, n, "one %q is %s %q, the row says %s", x.From, want, x.To, x.Factor)
		return
	}
	scale := int32(maxScale)
	if x.scale != nil {
		scale = *x.scale
	}
	if step := new(big.Rat).Mul(x.factor, tenth(x.FromScale)); x.Direction.has(Up) && step.Cmp(tenth(scale)) < 0 {
		k.add(FaultLossy, n, "with %d decimals %s %q become %s %q and do not come back: the target needs more decimals", scale, tenth(x.FromScale).FloatString(int(x.FromScale)), x.From, Round(step, scale), x.To)
	}
}

// tenth is the last of so many decimals.
func tenth(scale int32) *big.Rat {
	return new(big.Rat).SetFrac(big.NewInt(1), new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(scale)), nil))
}

// loops looks for rows that lead in a circle on the way up: whoever wrote them took a direction for the other.
func (k *checker) loops() {
	next := map[string][]string{}
	for w, r := range k.t.up {
		if r.From != r.To && !slices.Contains(next[w.text], r.To) {
			next[w.text] = append(next[w.text], r.To)
		}
	}
	const open, done = 1, 2
	state := map[string]int{}
	var path []string
	var visit func(string) bool
	visit = func(at string) bool {
		state[at] = open
		path = append(path, at)
		slices.Sort(next[at])
		for _, to := range next[at] {
			if state[to] == open {
				path = append(path[slices.Index(path, to):], to)
				return true
			}
			if state[to] == 0 && visit(to) {
				return true
			}
		}
		path = path[:len(path)-1]
		state[at] = done
		return false
	}
	for _, from := range slices.Sorted(maps.Keys(next)) {
		if state[from] == 0 && visit(from) {
			k.add(FaultLoop, 0, "the rows lead in a circle: %s", strings.Join(path, " to "))
			return
		}
	}
}
