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

// expr is one mapping expression. A literal or a plain path is looked up directly; everything else is a CEL program.
type expr struct {
	src   string
	lit   any // when steps is nil and prg is nil
	root  string
	steps []pathStep
	prg   cel.Program
	other *expr // taken where a path leads to nothing
	// looksAt are the tags whose last value it asks for; ofSignal says that it reads the signal itself.
	looksAt  []string
	ofSignal bool
}

// pathStep is a key of a map, or an index when key is empty.
type pathStep struct {
	key   string
	index int
}

// scope is what an expression sees.
type scope struct {
	sig    *signal.Signal
	source string
	item   any   // the list element with "each"
	work   *work // knows the last values of other tags
}

// costLimit bounds the work of one expression on one message.
const costLimit = 1_000_000

// compile reads an expression; withItem says whether "item" has a meaning.
func compile(src string, withItem bool) (*expr, error) {
	src = strings.TrimSpace(src)
	if src == "" {
		return nil, fmt.Errorf("is empty")
	}
	if e := compileLiteral(src); e != nil {
		return e, nil
	}
	e, err := compilePath(src, withItem), error(nil)
	if e == nil {
		e, err = compileCEL(src, withItem)
	}
	return e, err
}

func compileLiteral(src string) *expr {
	if q := src[0]; (q == '\'' || q == '"') && len(src) >= 2 && src[len(src)-1] == q {
		if in := src[1 : len(src)-1]; !strings.ContainsAny(in, string(q)+`\`) {
			return &expr{src: src, lit: in}
		}
		return nil
	}
	if src == "true" || src == "false" {
		return &expr{src: src, lit: src == "true"}
	}
	if _, err := parse(src); err == nil {
		return &expr{src: src, lit: signal.Number(src)}
	}
	return nil
}

// compilePath reads root, root.name, root["any key"], root[3] and their chains; nil when src is something else.
func compilePath(src string, withItem bool) *expr {
	root, rest := ident(src)
	switch root {
	case "payload":
	case "item":
		if !withItem {
			return nil
		}
	case "topic", "tag", "source", "position":
		if rest != "" {
			return nil
		}
	case "topic_parts", "labels", "tags":
		if rest == "" {
			return nil
		}
	default:
		return nil
	}
	e := &expr{src: src, root: root, steps: []pathStep{}}
	for rest != "" {
		step, after, ok := readStep(rest)
		if !ok {
			return nil
		}
		e.steps, rest = append(e.steps, step), after
	}
	switch root {
	case "topic_parts":
		if len(e.steps) != 1 || e.steps[0].key != "" {
			return nil
		}
	case "labels":
		if len(e.steps) != 1 || e.steps[0].key == "" {
			return nil
		}
	case "tags":
		if e.steps[0].key == "" {
			return nil
		}
		e.looksAt = []string{e.steps[0].key}
	}
	e.ofSignal = root != "tags" && root != "source"
	return e
}

func ident(s string) (name, rest string) {
	i := 0
	for i < len(s) && (s[i] == '_' || s[i] >= 'a' && s[i] <= 'z' || s[i] >= 'A' && s[i] <= 'Z' || i > 0 && s[i] >= '0' && s[i] <= '9') {
		i++
	}
	return s[:i], s[i:]
}

func readStep(s string) (step pathStep, rest string, ok bool) {
	if s[0] == '.' {
		name, rest := ident(s[1:])
		return pathStep{key: name}, rest, name != ""
	}
	end := strings.IndexByte(s, ']')
	if s[0] != '[' || end < 2 {
		return step, "", false
	}
	in := s[1:end]
	if n, err := strconv.Atoi(in); err == nil && n >= 0 {
		return pathStep{index: n}, s[end+1:], true
	}
	if q := in[0]; len(in) > 2 && (q == '\'' || q == '"') && in[len(in)-1] == q && !strings.ContainsAny(in[1:len(in)-1], `'"\[`) {
		return pathStep{key: in[1 : len(in)-1]}, s[end+1:], true
	}
	return step, "", false
}

// eval returns the expression's value in the vocabulary of signal.Signal.Value; nil when a plain path leads nowhere.
func (e *expr) eval(in *scope) (any, error) {
	if e.prg != nil {
		return e.run(in)
	}
	if e.steps == nil {
		return e.lit, nil
	}
	var v any
	switch e.root {
	case "payload":
		v = in.sig.Value
	case "item":
		v = in.item
	case "topic":
		return in.sig.Topic, nil
	case "tag":
		return in.sig.Tag, nil
	case "source":
		return in.source, nil
	case "position":
		return in.sig.Position, nil
	case "topic_parts":
		return topicPart(in.sig.Topic, e.steps[0].index), nil
	case "labels":
		if v, ok := in.sig.Labels[e.steps[0].key]; ok {
			return v, nil
		}
		return nil, nil
	case "tags":
		v = in.last(e.steps[0].key)
		for i := range e.steps[1:] {
			v = e.steps[i+1].of(v)
		}
		return v, nil
	}
	for i := range e.steps {
		v = e.steps[i].of(v)
	}
	if e.other != nil && (v == nil || v == "") {
		return e.other.eval(in)
	}
	return v, nil
}

func (s *pathStep) of(v any) any {
	if s.key != "" {
		m, _ := v.(map[string]any)
		return m[s.key]
	}
	if l, _ := v.([]any); s.index < len(l) {
		return l[s.index]
	}
	return nil
}

func topicPart(topic string, n int) any {
	for ; n > 0; n-- {
		_, rest, ok := strings.Cut(topic, "/")
		if !ok {
			return nil
		}
		topic = rest
	}
	part, _, _ := strings.Cut(topic, "/")
	return part
}

// ResolveName and Parent make a scope the activation of a CEL program.
func (in *scope) ResolveName(name string) (any, bool) {
	switch name {
	case "payload":
		return in.sig.Value, true
	case "item":
		return in.item, true
	case "topic":
		return in.sig.Topic, true
	case "topic_parts":
		return strings.Split(in.sig.Topic, "/"), true
	case "tag":
		return in.sig.Tag, true
	case "source":
		return in.source, true
	case "position":
		return in.sig.Position, true
	case "labels":
		labels := make(map[string]any, len(in.sig.Labels))
		for k, v := range in.sig.Labels {
			labels[k] = v
		}
		return labels, true
	}
	return nil, false
}

// Parent is nil: a scope stands alone.
func (in *scope) Parent() cel.Activation { return nil }

func (e *expr) run(in *scope) (any, error) {
	var vars cel.Activation = in
	if len(e.looksAt) > 0 {
		vars = withTags{in, e.looksAt}
	}
	out, _, err := e.prg.Eval(vars)
	if err != nil {
		return nil, fmt.Errorf("expression %q: %w", e.src, err)
	}
	return fromCEL(out), nil
}

func fromCEL(v ref.Val) any {
	switch v := v.(type) {
	case exactVal:
		return signal.Number(v.d.String())
	case types.String:
		return string(v)
	case types.Bool:
		return bool(v)
	case types.Int:
		return signal.Number(strconv.FormatInt(int64(v), 10))
	case types.Uint:
		return signal.Number(strconv.FormatUint(uint64(v), 10))
	case types.Double:
		return signal.Number(strconv.FormatFloat(float64(v), 'f', -1, 64))
	case types.Timestamp:
		return v.Time
	case types.Null:
		return nil
	}
	return v.Value()
}

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
