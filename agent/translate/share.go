package translate

import (
	"slices"

	"github.com/shopspring/decimal"
)

// maxShare bounds the sum of the shares of a rule.
const maxShare = 1000

// portion is the part of a counter's steps that one output gets when they are dealt out like cards: which step goes to whom is a
// function of what the counter shows alone, so that nothing needs to be remembered, the parts add up at any time, and a counter
// that is known by other positions (an agent installed anew) deals the same step to the same output.
type portion struct {
	from    dealt
	round   int             // steps until the dealing begins again
	modulus decimal.Decimal // of the counter: behind it the dealing begins anew; zero: it never rolls over
	got     []int           // how many of the first n steps of a round are this output's, for n from 0 to round
}

// deal spreads a round over outputs as evenly as their weights allow: each step goes to who is furthest behind.
func deal(weights []int, round int, modulus decimal.Decimal) []*portion {
	out := make([]*portion, len(weights))
	for i := range out {
		out[i] = &portion{from: dealt{weights, i, modulus}, round: round, modulus: modulus, got: make([]int, 1, round+1)}
	}
	behind := make([]int, len(weights))
	for range round {
		most := 0
		for i, n := range weights {
			if behind[i] += n; behind[i] > behind[most] {
				most = i
			}
		}
		behind[most] -= round
		for i, s := range out {
			n := s.got[len(s.got)-1]
			if i == most {
				n++
			}
			s.got = append(s.got, n)
		}
	}
	return out
}

// of returns how much of the positions from 0 to at is the output's. A step of less than one goes to whom the whole would.
func (s *portion) of(at decimal.Decimal) decimal.Decimal {
	if !s.modulus.IsPositive() || at.LessThan(s.modulus) {
		return s.shown(at)
	}
	turns, rest := at.QuoRem(s.modulus, 0)
	return turns.Mul(s.shown(s.modulus)).Add(s.shown(rest))
}

// shown is of for a counter that has not rolled over.
func (s *portion) shown(at decimal.Decimal) decimal.Decimal {
	rounds, rest := at.QuoRem(decimal.NewFromInt(int64(s.round)), 0)
	n := int(rest.IntPart())
	got := rounds.Mul(decimal.NewFromInt(int64(s.got[s.round]))).Add(decimal.NewFromInt(int64(s.got[n])))
	if s.got[min(n+1, s.round)] > s.got[n] {
		got = got.Add(rest.Sub(decimal.NewFromInt(int64(n))))
	}
	return got
}

// at is the first position up to which the output got so much.
func (s *portion) at(got decimal.Decimal) decimal.Decimal {
	if !s.modulus.IsPositive() {
		return s.shownAt(got)
	}
	turns, rest := lastRound(got, s.shown(s.modulus))
	return turns.Mul(s.modulus).Add(s.shownAt(rest))
}

// lastRound divides got into whole rounds and the rest of the round in which it ends, which is not the one that it only begins.
func lastRound(got, per decimal.Decimal) (rounds, rest decimal.Decimal) {
	if !per.IsPositive() {
		return decimal.Decimal{}, decimal.Decimal{}
	}
	if rounds, rest = got.QuoRem(per, 0); rest.IsZero() && rounds.IsPositive() {
		return rounds.Sub(decimal.NewFromInt(1)), per
	}
	return rounds, rest
}

// shownAt is at for a counter that has not rolled over.
func (s *portion) shownAt(got decimal.Decimal) decimal.Decimal {
	per := decimal.NewFromInt(int64(s.got[s.round]))
	rounds, rest := lastRound(got, per)
	at := rounds.Mul(decimal.NewFromInt(int64(s.round)))
	if rest.IsZero() {
		return at
	}
	for n := 1; n <= s.round; n++ {
		if have := decimal.NewFromInt(int64(s.got[n])); have.GreaterThanOrEqual(rest) {
			return at.Add(decimal.NewFromInt(int64(n))).Sub(have.Sub(rest))
		}
	}
	return at // not reached: a round holds all of its own steps
}

// gain is what is counted between two positions, before the factor: all of it without a share. Of a step back it is negative.
func (s *portion) gain(from, to decimal.Decimal) decimal.Decimal {
	if s == nil {
		return to.Sub(from)
	}
	return s.of(to).Sub(s.of(from))
}

// told is how the hub is told of a position: of dealt steps it hears only of those that are the output's, so that each of them
// is worth the same.
func (s *portion) told(at decimal.Decimal) decimal.Decimal {
	if s == nil {
		return at
	}
	return s.of(at)
}

// heard is the inverse of told.
func (s *portion) heard(to decimal.Decimal) decimal.Decimal {
	if s == nil {
		return to
	}
	return s.at(to)
}

// dealt is a share as the state remembers it, so that a change of the rule does not change what positions of before mean.
type dealt struct {
	Weights []int           `json:"w"`
	Index   int             `json:"i"`
	Modulus decimal.Decimal `json:"m"`
}

func (d *dealt) equal(s *portion) bool {
	if d == nil || s == nil {
		return d == nil && s == nil
	}
	return d.Index == s.from.Index && slices.Equal(d.Weights, s.from.Weights) && d.Modulus.Equal(s.from.Modulus)
}

// share deals anew what was remembered.
func (d *dealt) share() *portion {
	if d == nil || d.Index < 0 || d.Index >= len(d.Weights) {
		return nil
	}
	sum := 0
	for _, n := range d.Weights {
		sum += min(max(n, 0), maxShare)
	}
	if sum == 0 || sum > maxShare {
		return nil
	}
	return deal(d.Weights, sum, d.Modulus)[d.Index]
}
