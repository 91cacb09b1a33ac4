package translate

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"cel.dev/cel-go/cel"
	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// The two environments: without and with "item".
var celEnvs = [2]func() (*cel.Env, error){
	sync.OnceValues(func() (*cel.Env, error) { return newCELEnv(false) }),
	sync.OnceValues(func() (*cel.Env, error) { return newCELEnv(true) }),
}

func newCELEnv(withItem bool) (*cel.Env, error) {
	dyn := cel.DynType
	binary := func(name string, f func(a, b decimal.Decimal) decimal.Decimal) cel.EnvOption {
		return cel.Function(name, cel.Overload(name+"_exact", []*cel.Type{dyn, dyn}, dyn,
			cel.BinaryBinding(func(a, b ref.Val) ref.Val {
				return exactly(func(d ...decimal.Decimal) decimal.Decimal { return f(d[0], d[1]) }, a, b)
			})))
	}
	opts := []cel.EnvOption{
		cel.CustomTypeAdapter(adapter{}),
		cel.Variable("payload", dyn), cel.Variable("topic", cel.StringType), cel.Variable("tag", cel.StringType),
		cel.Variable("source", cel.StringType), cel.Variable("position", cel.StringType),
		cel.Variable("topic_parts", cel.ListType(cel.StringType)),
		cel.Variable("labels", dyn), cel.Variable("tags", dyn),
		cel.Function("dec", cel.Overload("dec_exact", []*cel.Type{dyn}, dyn,
			cel.UnaryBinding(func(a ref.Val) ref.Val { return exactly(func(d ...decimal.Decimal) decimal.Decimal { return d[0] }, a) }))),
		binary("add", decimal.Decimal.Add),
		binary("sub", decimal.Decimal.Sub),
		binary("mul", decimal.Decimal.Mul),
		cel.Function("round", cel.Overload("round_exact", []*cel.Type{dyn, cel.IntType}, dyn, cel.BinaryBinding(roundExact))),
		cel.Function("div", cel.Overload("div_exact", []*cel.Type{dyn, dyn, cel.IntType}, dyn, cel.FunctionBinding(divExact))),
		cel.Function("string", cel.Overload("exact_to_string", []*cel.Type{exactType}, cel.StringType,
			cel.UnaryBinding(func(a ref.Val) ref.Val { return types.String(a.(exactVal).d.String()) }))),
	}
	if withItem {
		opts = append(opts, cel.Variable("item", dyn))
	}
	return cel.NewEnv(opts...)
}

func compileCEL(src string, withItem bool) (*expr, error) {
	n := 0
	if withItem {
		n = 1
	}
	env, err := celEnvs[n]()
	if err != nil {
		return nil, err
	}
	ast, iss := env.Compile(src)
	if err := iss.Err(); err != nil {
		return nil, fmt.Errorf("%q is not an expression: %s", src, firstLine(err.Error()))
	}
	if err := refuseNumberFirst(ast); err != nil {
		return nil, fmt.Errorf("%q: %w", src, err)
	}
	// Not optimized: that would look up "x in [1, 2]" by hash, where an exact decimal never equals an integer.
	prg, err := env.Program(ast, cel.CostLimit(costLimit))
	if err != nil {
		return nil, fmt.Errorf("%q: %w", src, err)
	}
	e := &expr{src: src, prg: prg}
	return e, e.roots(ast)
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return strings.TrimPrefix(line, "ERROR: <input>:")
}

// refuseNumberFirst finds a number literal left of an operator: numbers of a payload are exact decimals, which know how to
// deal with a literal on their right, while a literal on the left would never equal them.
func refuseNumberFirst(ast *cel.Ast) error {
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

// adapter brings a signal's values into CEL: numbers stay exact.
type adapter struct{}

func (a adapter) NativeToValue(v any) ref.Val {
	switch v := v.(type) {
	case signal.Number:
		d, err := parse(string(v))
		if err != nil {
			return types.NewErr("number %q %v", string(v), err)
		}
		return exactVal{d}
	case map[string]any:
		return types.NewStringInterfaceMap(a, v)
	case []any:
		return types.NewDynamicList(a, v)
	case []string:
		return types.NewStringList(a, v)
	}
	return types.DefaultTypeAdapter.NativeToValue(v)
}

// exactType is the CEL type of exact decimals.
var exactType = types.NewObjectType("linekeeper.Decimal", traits.AdderType, traits.SubtractorType, traits.MultiplierType,
	traits.ComparerType, traits.NegatorType)

// exactVal is an exact decimal in CEL.
type exactVal struct{ d decimal.Decimal }

func toExact(v ref.Val, texts bool) (decimal.Decimal, error) {
	switch v := v.(type) {
	case exactVal:
		return v.d, nil
	case types.Int:
		return decimal.NewFromInt(int64(v)), nil
	case types.Uint:
		return parse(strconv.FormatUint(uint64(v), 10))
	case types.Double: // a literal: its shortest text is what was written
		return parse(strconv.FormatFloat(float64(v), 'f', -1, 64))
	case types.String:
		if texts {
			d, err := parse(strings.TrimSpace(string(v)))
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
		d, err := toExact(a, true)
		if err != nil {
			return types.NewErr("%v", err)
		}
		ds[i] = d
	}
	return exactVal{f(ds...)}
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
	if d, err := toExact(args[1], true); err == nil && d.IsZero() {
		return types.NewErr("division by zero")
	}
	return exactly(func(d ...decimal.Decimal) decimal.Decimal { return divide(d[0], d[1], n) }, args[0], args[1])
}

// divide returns a/b rounded half-even to n decimals.
func divide(a, b decimal.Decimal, n int32) decimal.Decimal {
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

func (v exactVal) with(o ref.Val, f func(a, b decimal.Decimal) decimal.Decimal) ref.Val {
	d, err := toExact(o, false)
	if err != nil {
		return types.NewErr("%v", err)
	}
	return exactVal{f(v.d, d)}
}

// Add, Subtract, Multiply, Negate, Compare and Equal are CEL's operators.
func (v exactVal) Add(o ref.Val) ref.Val      { return v.with(o, decimal.Decimal.Add) }
func (v exactVal) Subtract(o ref.Val) ref.Val { return v.with(o, decimal.Decimal.Sub) }
func (v exactVal) Multiply(o ref.Val) ref.Val { return v.with(o, decimal.Decimal.Mul) }
func (v exactVal) Negate() ref.Val            { return exactVal{v.d.Neg()} }

func (v exactVal) Compare(o ref.Val) ref.Val {
	d, err := toExact(o, false)
	if err != nil {
		return types.NewErr("%v", err)
	}
	return types.Int(v.d.Cmp(d))
}

func (v exactVal) Equal(o ref.Val) ref.Val {
	d, err := toExact(o, false)
	return types.Bool(err == nil && v.d.Equal(d))
}

func (v exactVal) ConvertToNative(reflect.Type) (any, error) { return json.Number(v.d.String()), nil }

func (v exactVal) ConvertToType(t ref.Type) ref.Val {
	switch t {
	case types.StringType:
		return types.String(v.d.String())
	case types.TypeType:
		return exactType
	}
	return types.NewErr("a number cannot become a %s", t.TypeName())
}

func (v exactVal) Type() ref.Type { return exactType }
func (v exactVal) Value() any     { return json.Number(v.d.String()) }

// localTimes are the forms of a time without a zone, read in the plant's.
var localTimes = []string{"2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999", "2006-01-02T15:04"}

// readTime reads a time of a payload: a time, RFC 3339, or a local time of the plant.
func readTime(v any, zone *time.Location) (time.Time, bool) {
	var t time.Time
	switch v := v.(type) {
	case time.Time:
		t = v
	case string:
		var err error
		if t, err = time.Parse(time.RFC3339Nano, v); err == nil {
			break
		}
		for _, layout := range localTimes {
			if t, err = time.ParseInLocation(layout, v, zone); err == nil {
				break
			}
		}
		if err != nil {
			return t, false
		}
	default:
		return t, false
	}
	return t, !t.IsZero() && t.Year() >= 1 && t.Year() <= 9999
}
