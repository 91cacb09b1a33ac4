package mapping

import (
	"fmt"
	"math/big"

	"github.com/shopspring/decimal"
)

// test runs one test. It returns the name of the fault and a sentence, both empty when it passes.
func (t *table) test(x Test) (fault, text string) {
	way := x.Direction
	if way == "" {
		way = Up
	}
	if way != Up && way != Down || x.From == "" || x.Missing == (x.To != "") {
		return FaultTest, "write from and to (or missing: true), and direction: down for the way back"
	}
	r := t.find(way, x.From, x.Item)
	if x.Missing {
		if r != nil {
			return FaultTestFailed, fmt.Sprintf("%s must be unknown and is %q", of(x.From, x.Item), r.other(way))
		}
		return "", ""
	}
	if r == nil {
		return FaultTestFailed, fmt.Sprintf("%s must be %q and is unknown", of(x.From, x.Item), x.To)
	}
	if got := r.other(way); got != x.To {
		return FaultTestFailed, fmt.Sprintf("%s must be %q and is %q", of(x.From, x.Item), x.To, got)
	}
	return t.testValue(x, r, way)
}

func (t *table) testValue(x Test, r *compiled, way Direction) (fault, text string) {
	if t.kind != Unit {
		if x.Value != "" || x.Want != "" {
			return FaultTest, "value and want are for units"
		}
		return "", ""
	}
	value, err := decimal.NewFromString(x.Value)
	want, err2 := decimal.NewFromString(x.Want)
	if err != nil || err2 != nil {
		return FaultTest, fmt.Sprintf("value %q and want %q must be decimal numbers", x.Value, x.Want)
	}
	if got := r.convert(value.Rat(), way); !got.Equal(want) {
		return FaultTestFailed, fmt.Sprintf("%s %s must be %s %q and is %s", value, of(x.From, x.Item), want, x.To, got)
	}
	return "", ""
}

func (r *compiled) other(way Direction) string {
	if way == Down {
		return r.From
	}
	return r.To
}

// convert turns an amount and rounds it to what is kept where it goes.
func (r *compiled) convert(v *big.Rat, way Direction) decimal.Decimal {
	if way == Down {
		return RoundTo(new(big.Rat).Quo(v, r.factor), maxScale)
	}
	scale := int32(maxScale)
	if r.scale != nil {
		scale = *r.scale
	}
	return RoundTo(new(big.Rat).Mul(v, r.factor), scale)
}
