// Package exact brings exact decimals into CEL, for the expressions of the agent's rules and of the hub's connectors.
//
// It owns the value, its operators and the functions dec, add, sub, mul, div, round and string. It promises that no number goes
// through binary floating point but a literal, whose shortest text is what was written. It knows no variable and no rule.
package exact

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"cel.dev/cel-go/cel"
	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"github.com/shopspring/decimal"
)

// maxWhole is how many digits a quantity can have before the point.
const maxWhole = 22

// What is wrong with a text that Parse refuses.
var (
	ErrNotNumber = errors.New("is not a number")
	ErrTooLarge  = errors.New("has more digits than a quantity can have")
)

// Parse reads an exact number as a source wrote it: digits, a point, an exponent. It refuses "NaN" and the like, and texts
// so long or exponents so large that working with them would cost memory.
func Parse(s string) (decimal.Decimal, error) {
	if s == "" || len(s) > 64 || strings.Trim(s, "+-.0123456789eE") != "" {
		return decimal.Decimal{}, ErrNotNumber
	}
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		if e, err := strconv.Atoi(s[i+1:]); err != nil || e < -64 || e > 64 {
			return decimal.Decimal{}, ErrTooLarge
		}
	}
	d, err := decimal.NewFromString(s)
	if err != nil {
		return decimal.Decimal{}, ErrNotNumber
	}
	if d.NumDigits()+int(d.Exponent()) > maxWhole {
		return decimal.Decimal{}, ErrTooLarge
	}
	return d, nil
}

// Library is the options of a CEL environment in which numbers are exact.
func Library() []cel.EnvOption {
	dyn := cel.DynType
	binary := func(name string, f func(a, b decimal.Decimal) decimal.Decimal) cel.EnvOption {
		return cel.Function(name, cel.Overload(name+"_exact", []*cel.Type{dyn, dyn}, dyn,
			cel.BinaryBinding(func(a, b ref.Val) ref.Val {
				return exactly(func(d ...decimal.Decimal) decimal.Decimal { return f(d[0], d[1]) }, a, b)
			})))
	}
	return []cel.EnvOption{
		cel.CustomTypeAdapter(Adapter{}),
		cel.Function("dec", cel.Overload("dec_exact", []*cel.Type{dyn}, dyn,
			cel.UnaryBinding(func(a ref.Val) ref.Val { return exactly(func(d ...decimal.Decimal) decimal.Decimal { return d[0] }, a) }))),
		binary("add", decimal.Decimal.Add),
		binary("sub", decimal.Decimal.Sub),
		binary("mul", decimal.Decimal.Mul),
		cel.Function("round", cel.Overload("round_exact", []*cel.Type{dyn, cel.IntType}, dyn, cel.BinaryBinding(roundExact))),
		cel.Function("div", cel.Overload("div_exact", []*cel.Type{dyn, dyn, cel.IntType}, dyn, cel.FunctionBinding(divExact))),
		cel.Function("string", cel.Overload("exact_to_string", []*cel.Type{Type}, cel.StringType,
			cel.UnaryBinding(func(a ref.Val) ref.Val { return types.String(a.(Number).Decimal.String()) }))),
	}
}

// Adapter brings decoded values into CEL: numbers stay exact.
type Adapter struct{}

// NativeToValue implements types.Adapter.
func (a Adapter) NativeToValue(v any) ref.Val {
	switch v := v.(type) {
	case json.Number:
		d, err := Parse(string(v))
		if err != nil {
			return types.NewErr("number %q %v", string(v), err)
		}
		return Number{d}
	case map[string]any:
		return types.NewStringInterfaceMap(a, v)
	case []any:
		return types.NewDynamicList(a, v)
	case []string:
		return types.NewStringList(a, v)
	}
	return types.DefaultTypeAdapter.NativeToValue(v)
}

// Type is the CEL type of exact decimals.
var Type = types.NewObjectType("linekeeper.Decimal", traits.AdderType, traits.SubtractorType, traits.MultiplierType,
	traits.ComparerType, traits.NegatorType)

// Number is an exact decimal in CEL.
type Number struct{ Decimal decimal.Decimal }

// Of reads a number of CEL; a text only where texts says so.
func Of(v ref.Val, texts bool) (decimal.Decimal, error) {
	switch v := v.(type) {
	case Number:
		return v.Decimal, nil
	case types.Int:
		return decimal.NewFromInt(int64(v)), nil
	case types.Uint:
		return Parse(strconv.FormatUint(uint64(v), 10))
	case types.Double: // a literal: its shortest text is what was written
		return Parse(strconv.FormatFloat(float64(v), 'f', -1, 64))
	case types.String:
		if texts {
			d, err := Parse(strings.TrimSpace(string(v)))
			if err != nil {
				err = fmt.Errorf("text %q %w", string(v), err)
			}
			return d, err
		}
	}
	return decimal.Decimal{}, fmt.Errorf("a %s is not a number", v.Type().TypeName())
}

func exactly(f func(d ...decimal.Decimal) decimal.Decimal, args ...ref.Val) ref.Val {
	ds := make([]decimal.Decimal, len(args))
	for i, a := range args {
		d, err := Of(a, true)
		if err != nil {
			return types.NewErr("%v", err)
		}
		ds[i] = d
	}
	return Number{f(ds...)}
}

func places(v ref.Val) (int32, ref.Val) {
	n, ok := v.(types.Int)
	if !ok || n < 0 || n > 18 {
		return 0, types.NewErr("number of decimals %v is not from 0 to 18", v.Value())
	}
	return int32(n), nil
}

func roundExact(a, b ref.Val) ref.Val {
	n, bad := places(b)
	if bad != nil {
		return bad
	}
	return exactly(func(d ...decimal.Decimal) decimal.Decimal { return d[0].RoundBank(n) }, a)
}

func divExact(args ...ref.Val) ref.Val {
	n, bad := places(args[2])
	if bad != nil {
		return bad
	}
	if d, err := Of(args[1], true); err == nil && d.IsZero() {
		return types.NewErr("division by zero")
	}
	return exactly(func(d ...decimal.Decimal) decimal.Decimal { return Divide(d[0], d[1], n) }, args[0], args[1])
}

// Divide returns a/b rounded half-even to n decimals.
func Divide(a, b decimal.Decimal, n int32) decimal.Decimal {
	q, rest := a.QuoRem(b, n)
	unit := decimal.New(1, -n)
	up := rest.Abs().Mul(decimal.NewFromInt(2)).Cmp(b.Abs().Mul(unit))
	if odd := !q.Shift(n).Mod(decimal.NewFromInt(2)).IsZero(); up < 0 || up == 0 && !odd {
		return q
	}
	if a.Sign() != b.Sign() {
		return q.Sub(unit)
	}
	return q.Add(unit)
}

func (v Number) with(o ref.Val, f func(a, b decimal.Decimal) decimal.Decimal) ref.Val {
	d, err := Of(o, false)
	if err != nil {
		return types.NewErr("%v", err)
	}
	return Number{f(v.Decimal, d)}
}

// Add, Subtract, Multiply, Negate, Compare and Equal are CEL's operators.
func (v Number) Add(o ref.Val) ref.Val      { return v.with(o, decimal.Decimal.Add) }
func (v Number) Subtract(o ref.Val) ref.Val { return v.with(o, decimal.Decimal.Sub) }
func (v Number) Multiply(o ref.Val) ref.Val { return v.with(o, decimal.Decimal.Mul) }
func (v Number) Negate() ref.Val            { return Number{v.Decimal.Neg()} }

func (v Number) Compare(o ref.Val) ref.Val {
	d, err := Of(o, false)
	if err != nil {
		return types.NewErr("%v", err)
	}
	return types.Int(v.Decimal.Cmp(d))
}

func (v Number) Equal(o ref.Val) ref.Val {
	d, err := Of(o, false)
	return types.Bool(err == nil && v.Decimal.Equal(d))
}

// ConvertToNative implements ref.Val.
func (v Number) ConvertToNative(reflect.Type) (any, error) {
	return json.Number(v.Decimal.String()), nil
}

// ConvertToType implements ref.Val.
func (v Number) ConvertToType(t ref.Type) ref.Val {
	switch t {
	case types.StringType:
		return types.String(v.Decimal.String())
	case types.TypeType:
		return Type
	}
	return types.NewErr("a number cannot become a %s", t.TypeName())
}

// Type implements ref.Val.
func (v Number) Type() ref.Type { return Type }

// Value implements ref.Val.
func (v Number) Value() any { return json.Number(v.Decimal.String()) }

// RefuseNumberFirst finds a number literal left of an operator: numbers of a document are exact decimals, which know how to
// deal with a literal on their right, while a literal on the left would never equal them.
func RefuseNumberFirst(ast *cel.Ast) error {
	root := celast.NavigateAST(ast.NativeRep())
	for _, n := range celast.MatchDescendants(root, celast.KindMatcher(celast.CallKind)) {
		args := n.AsCall().Args()
		if len(args) != 2 || !strings.HasPrefix(n.AsCall().FunctionName(), "_") && n.AsCall().FunctionName() != "@in" || args[0].Kind() != celast.LiteralKind || args[1].Kind() == celast.LiteralKind {
			continue
		}
		switch args[0].AsLiteral().(type) {
		case types.Int, types.Uint, types.Double:
			return fmt.Errorf("number %v stands left of an operator; write it on the right (payload.x > 5), or use add, sub, mul or div", args[0].AsLiteral())
		}
	}
	return nil
}
