package mapping

import (
	"fmt"
	"math/big"
	"regexp"
	"strings"
	"time"

	"github.com/shopspring/decimal"
)

// Kind is what a set maps.
type Kind string

// The kinds of sets. Lists are asked for by name (Rules.Code).
const (
	Unit     Kind = "unit"     // quantities, with a factor
	Item     Kind = "item"     // items of facts, orders and their components
	Site     Kind = "site"     // our names of places, and the system's
	Movement Kind = "movement" // kinds of goods movements (object.MovementKind), and the types that a system books them with
	Reason   Kind = "reason"   // reasons of scrap and of quality decisions
	List     Kind = "list"     // any other code list, of a partner for instance
)

// Kinds lists all kinds.
func Kinds() []Kind { return []Kind{Unit, Item, Site, Movement, Reason, List} }

// Set is what all versions of a definition share.
type Set struct {
	Name string `json:"name" yaml:"name"`
	Kind Kind   `json:"kind" yaml:"kind"`
	// ERP and Plant say where it counts; empty means everywhere.
	ERP   string `json:"erp,omitempty" yaml:"erp,omitempty"`
	Plant string `json:"plant,omitempty" yaml:"plant,omitempty"`
}

// rank orders the sets that fit one fact: the narrower goes first.
func (s Set) rank() int {
	rank := 0
	if s.ERP != "" {
		rank += 2
	}
	if s.Plant != "" {
		rank++
	}
	return rank
}

func (s Set) fits(kind Kind, erp, plant string) bool {
	return s.Kind == kind && (s.ERP == "" || s.ERP == erp) && (s.Plant == "" || s.Plant == plant)
}

// Direction says on which way a row counts.
type Direction string

// The directions. An empty one is Both.
const (
	Up   Direction = "up"   // from the plant to the outside system
	Down Direction = "down" // from the outside system to the plant
	Both Direction = "both"
)

func (d Direction) has(way Direction) bool { return d == "" || d == Both || d == way }

// Content is what one version says.
type Content struct {
	// Scale is how many decimals the outside system keeps of a unit; nil: what it says of itself. A row may say otherwise.
	Scale *int32 `json:"scale,omitempty" yaml:"scale,omitempty"`
	// Unlisted is "stop" or empty (what no row names stops the fact) or "keep" (it stays as it is; not for units).
	Unlisted string `json:"unlisted,omitempty" yaml:"unlisted,omitempty"`
	Rows     []Row  `json:"rows" yaml:"rows" nullable:"false"`
	Tests    []Test `json:"tests" yaml:"tests" nullable:"false"`
}

// What Content.Unlisted may be.
const (
	Stop = "stop"
	Keep = "keep"
)

// Row says that From, in our words, is To in those of the outside system.
type Row struct {
	From string `json:"from" yaml:"from" doc:"In our words"`
	To   string `json:"to" yaml:"to" doc:"In the outside system's words"`
	// Factor is how many To one From is: "1000/1", "12", "0.45359237". Units only; empty for a unit that stays what it is.
	Factor string `json:"factor,omitempty" yaml:"factor,omitempty" example:"1000/1"`
	// Item limits a row for units to one item of ours: the size of a pack, or pieces that are weighed.
	Item string `json:"item,omitempty" yaml:"item,omitempty"`
	// Dimension makes From known that is no unit of UN/ECE Recommendation 20.
	Dimension string    `json:"dimension,omitempty" yaml:"dimension,omitempty"`
	Direction Direction `json:"direction,omitempty" yaml:"direction,omitempty" enum:"up,down,both"`
	// Scale is how many decimals the system keeps of To, FromScale how many we keep of From.
	Scale     *int32 `json:"scale,omitempty" yaml:"scale,omitempty"`
	FromScale int32  `json:"from_scale,omitempty" yaml:"from_scale,omitempty"`
	Text      string `json:"text,omitempty" yaml:"text,omitempty" doc:"For people"`
}

// Test is an input and what must come out. Down turns it round: From is then in the outside system's words.
type Test struct {
	Direction Direction `json:"direction,omitempty" yaml:"direction,omitempty" enum:"up,down"`
	From      string    `json:"from" yaml:"from"`
	Item      string    `json:"item,omitempty" yaml:"item,omitempty"`
	Value     string    `json:"value,omitempty" yaml:"value,omitempty" doc:"Decimal text; units only"`
	To        string    `json:"to,omitempty" yaml:"to,omitempty"`
	Want      string    `json:"want,omitempty" yaml:"want,omitempty" doc:"Decimal text; units only"`
	// Missing: no row may know From.
	Missing bool `json:"missing,omitempty" yaml:"missing,omitempty"`
}

// State is how far a version has come.
type State string

// The states of a version. What an approved one is at a time (Scheduled, Effective, Superseded) is not stored: StateAt says it.
const (
	Draft    State = "draft"
	Proposed State = "proposed"
	Approved State = "approved"
	Rejected State = "rejected"

	Scheduled  State = "scheduled"
	Effective  State = "effective"
	Superseded State = "superseded"
)

// Version is one version of a set. Its content never changes.
type Version struct {
	Set
	Number  int
	State   State
	Content Content
	// From is when it comes into force; zero while it is not approved.
	From time.Time
	Life
}

// StateAt says what a version is at a time, beside all versions of its set.
func StateAt(v Version, all []Version, now time.Time) State {
	if v.State != Approved {
		return v.State
	}
	if v.From.After(now) {
		return Scheduled
	}
	for _, o := range all {
		if o.State == Approved && o.Number > v.Number && !o.From.After(now) {
			return Superseded
		}
	}
	return Effective
}

// ratioText is what a factor may look like. Length is bounded so that no factor is a burden.
var ratioText = regexp.MustCompile(`^([0-9]{1,30}/[0-9]{1,30}|[0-9]{1,22}([.][0-9]{1,18})?)$`)

// Ratio reads a factor: a fraction, a whole number or a decimal number, above zero.
func Ratio(text string) (*big.Rat, error) {
	text = strings.TrimSpace(text)
	r := new(big.Rat)
	ok := ratioText.MatchString(text)
	if _, below, fraction := strings.Cut(text, "/"); fraction && strings.Trim(below, "0") == "" {
		ok = false
	}
	if ok {
		_, ok = r.SetString(text)
	}
	if !ok || r.Sign() <= 0 {
		return nil, fmt.Errorf("factor %q is none: write a fraction above zero such as 1000/1, or a number such as 0.45359237", text)
	}
	return r, nil
}

// maxScale is the most decimals that a quantity has anywhere.
const maxScale = 9

// Round rounds half-even to a number of decimals.
func Round(r *big.Rat, scale int32) decimal.Decimal {
	scale = max(scale, 0)
	n := new(big.Int).Mul(r.Num(), new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(scale)), nil))
	q, rest := new(big.Int).QuoRem(n, r.Denom(), new(big.Int))
	twice := new(big.Int).Mul(new(big.Int).Abs(rest), big.NewInt(2))
	if c := twice.Cmp(r.Denom()); c > 0 || c == 0 && q.Bit(0) == 1 {
		q.Add(q, big.NewInt(int64(n.Sign())))
	}
	return decimal.NewFromBigInt(q, -scale)
}

// RoundTo rounds to what a system keeps: its own decimals, or 9 where it keeps any number.
func RoundTo(r *big.Rat, scale int32) decimal.Decimal {
	if scale < 0 || scale > maxScale {
		scale = maxScale
	}
	return Round(r, scale)
}
