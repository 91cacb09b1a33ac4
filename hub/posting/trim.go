package posting

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

// span is the counter values (from, to].
type span struct{ from, to decimal.Decimal }

// spans are disjoint spans in rising order, written as "0..1250,1300..1400".
type spans []span

func parseSpans(text string) (spans, error) {
	var all spans
	if text == "" {
		return all, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		from, to, ok := strings.Cut(part, "..")
		f, err1 := decimal.NewFromString(from)
		t, err2 := decimal.NewFromString(to)
		if !ok || err1 != nil || err2 != nil {
			return nil, fmt.Errorf("stored counter range %q is not readable", part)
		}
		all = append(all, span{f, t})
	}
	return all, nil
}

func (s spans) String() string {
	parts := make([]string, len(s))
	for i, p := range s {
		parts[i] = p.from.String() + ".." + p.to.String()
	}
	return strings.Join(parts, ",")
}

// free is how much of x is not in s.
func (s spans) free(x span) decimal.Decimal {
	free := x.to.Sub(x.from)
	for _, p := range s {
		if overlap := decimal.Min(p.to, x.to).Sub(decimal.Max(p.from, x.from)); overlap.IsPositive() {
			free = free.Sub(overlap)
		}
	}
	return free
}

// with returns s and x, merged.
func (s spans) with(x span) spans {
	if n := len(s); n > 0 && s[n-1].to.Equal(x.from) { // the counter went on
		out := slices.Clone(s)
		out[n-1].to = decimal.Max(x.to, x.from)
		return out
	}
	all := append(slices.Clone(s), x)
	slices.SortFunc(all, func(a, b span) int { return cmp.Or(a.from.Cmp(b.from), a.to.Cmp(b.to)) })
	out := all[:1]
	for _, p := range all[1:] {
		last := &out[len(out)-1]
		if p.from.GreaterThan(last.to) {
			out = append(out, p)
		} else {
			last.to = decimal.Max(last.to, p.to)
		}
	}
	return out
}

func (s spans) top() decimal.Decimal { return s[len(s)-1].to }

// trimmed is what is left of a fact whose counter range the hub knows in part.
type trimmed struct {
	lines []object.FactLine
	// note says what was left out, empty for nothing. known: all of it. split: it cannot be divided exactly.
	note         string
	known, split bool
}

// trim leaves of a fact's quantities what belongs to counter values that the hub did not know. A quantity can be
// divided only when the range has one quantity, of which each counter value has an equal, exact share.
func trim(lines []object.FactLine, covered spans, r span) trimmed {
	whole := r.to.Sub(r.from)
	free := covered.free(r)
	switch {
	case !whole.IsPositive() || free.Equal(whole):
		return trimmed{lines: lines}
	case free.IsZero():
		return trimmed{known: true, note: fmt.Sprintf("superseded: counter range %s to %s is known already", r.from, r.to)}
	case len(lines) == 0:
		return trimmed{}
	}
	note := fmt.Sprintf("counter range %s to %s overlaps what is known: %s of %s counts", r.from, r.to, free, whole)
	if len(lines) > 1 {
		return trimmed{split: true, note: note}
	}
	l := lines[0]
	part := l.Received.Mul(free).DivRound(whole, 9)
	if !part.Mul(whole).Equal(l.Received.Mul(free)) {
		return trimmed{split: true, note: note}
	}
	l.Received = part
	return trimmed{lines: []object.FactLine{l}, note: note}
}
