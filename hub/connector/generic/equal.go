package generic

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/shopspring/decimal"
)

// Equal compares what shall be with what is.
type Equal struct{ Want, Got Expr }

// CompileEquals reads a map from expressions over wants to expressions over gots, in the order of the former.
func CompileEquals(pairs map[string]string, wants, gots []string) (out []Equal, err error) {
	for _, src := range slices.Sorted(maps.Keys(pairs)) {
		var e Equal
		if e.Want, err = Compile(src, wants...); err != nil {
			return nil, err
		}
		if e.Got, err = Compile(pairs[src], gots...); err != nil {
			return nil, fmt.Errorf("%s: %w", src, err)
		}
		if !e.Want.IsSet() || !e.Got.IsSet() {
			return nil, fmt.Errorf("%q: one side is empty; write expressions such as fact.yield: body.yield", src)
		}
		out = append(out, e)
	}
	return out, nil
}

// Different says in half a sentence what is different, empty when nothing is. Numbers are compared at a scale, below zero
// exactly, where one side is a number; all else as text.
func (e Equal) Different(vars map[string]any, scale int32) string {
	want, errW := e.Want.Value(vars)
	got, errG := e.Got.Value(vars)
	switch {
	case errW != nil:
		return errW.Error()
	case errG != nil:
		return errG.Error()
	case same(want, got, scale):
		return ""
	}
	return fmt.Sprintf("%s is %s in the ERP, and %s in the fact", e.Want, shown(got), shown(want))
}

func same(want, got any, scale int32) bool {
	_, numberW := want.(json.Number)
	_, numberG := got.(json.Number)
	if numberW || numberG {
		a, errA := Decimal(want)
		b, errB := Decimal(got)
		if errA != nil || errB != nil {
			return false
		}
		if scale < 0 {
			return a.Equal(b)
		}
		return a.Sub(b).Abs().LessThan(decimal.New(5, -scale-1)) // systems that compute with floats are off by less
	}
	a, okA := Text(want)
	b, okB := Text(got)
	return okA && okB && a == b
}

func shown(v any) string {
	if text, ok := Text(v); ok {
		if _, isText := v.(string); isText || text == "" {
			return fmt.Sprintf("%q", text)
		}
		return text
	}
	if m, ok := v.(map[string]any); ok {
		return fmt.Sprintf("an object with %s", strings.Join(slices.Sorted(maps.Keys(m)), ", "))
	}
	return "a list"
}
