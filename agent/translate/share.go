package translate

import (
	"slices"

	"github.com/shopspring/decimal"
)

// maxShare bounds the sum of the shares of a rule.
const maxShare = 1000

// portion is the part of a counter's steps that one output gets when they are dealt out like cards: which step goes to whom is a
// function of the counter's position alone, so that nothing needs to be remembered and the parts add up at any time.
type portion struct {
	from  dealt
	round int   // steps until the dealing begins again
	got   []int // how many of the first n steps of a round are this output's, for n from 0 to round
}

// deal spreads a round over outputs as evenly as their weights allow: each step goes to who is furthest behind.
func deal(weights []int, round int) []*portion {
	out := make([]*portion, len(weights))
	for i := range out {
		out[i] = &portion{from: dealt{weights, i}, round: round, got: make([]int, 1, round+1)}
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
	per := decimal.NewFromInt(int64(s.got[s.round]))
	rounds, rest := got.QuoRem(per, 0)
	if rest.IsZero() && rounds.IsPositive() { // within the round that it ends, not at the next one's beginning
		rounds, rest = rounds.Sub(decimal.NewFromInt(1)), per
	}
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
	Weights []int `json:"w"`
	Index   int   `json:"i"`
}

func (d *dealt) equal(s *portion) bool {
	if d == nil || s == nil {
		return d == nil && s == nil
	}
	return d.Index == s.from.Index && slices.Equal(d.Weights, s.from.Weights)
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
	return deal(d.Weights, sum)[d.Index]
}
