package generic

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/ext"

	"github.com/linekeeper/linekeeper/proto/exact"
)

// costLimit bounds the work of one expression.
const costLimit = 1_000_000

// Expr is an expression that was checked. The zero value is none: its value is nil.
type Expr struct {
	src string
	prg cel.Program
}

// environments are CEL's, by the names that they know.
var environments sync.Map

func environment(names []string) (*cel.Env, error) {
	names = slices.Sorted(slices.Values(names))
	key := strings.Join(names, " ")
	if env, ok := environments.Load(key); ok {
		return env.(*cel.Env), nil
	}
	opts := append(exact.Library(), cel.OptionalTypes(), ext.Strings())
	for _, n := range names {
		opts = append(opts, cel.Variable(n, cel.DynType))
	}
	env, err := cel.NewEnv(opts...)
	if err == nil {
		environments.Store(key, env)
	}
	return env, err
}

// Compile reads an expression that may use names. An empty one gives the zero Expr.
func Compile(src string, names ...string) (Expr, error) {
	src = strings.TrimSpace(src)
	if src == "" {
		return Expr{}, nil
	}
	env, err := environment(names)
	if err != nil {
		return Expr{}, err
	}
	ast, issues := env.Compile(src)
	if err := issues.Err(); err != nil {
		line, _, _ := strings.Cut(err.Error(), "\n")
		return Expr{}, fmt.Errorf("%q is not an expression: %s; it may use: %s", src, strings.TrimPrefix(line, "ERROR: <input>:"), strings.Join(names, ", "))
	}
	if err := exact.RefuseNumberFirst(ast); err != nil {
		return Expr{}, fmt.Errorf("%q: %w", src, err)
	}
	prg, err := env.Program(ast, cel.CostLimit(costLimit))
	if err != nil {
		return Expr{}, fmt.Errorf("%q: %w", src, err)
	}
	return Expr{src, prg}, nil
}

// IsSet reports that there is an expression.
func (e Expr) IsSet() bool { return e.prg != nil }

// String is the expression as it was written.
func (e Expr) String() string { return e.src }

// Value returns nil, a bool, string, json.Number, time.Time, []any or map[string]any.
func (e Expr) Value(vars map[string]any) (any, error) {
	if e.prg == nil {
		return nil, nil
	}
	out, _, err := e.prg.Eval(vars)
	if err != nil {
		return nil, fmt.Errorf("expression %q: %w", e.src, err)
	}
	v, err := plain(out, 0)
	if err != nil {
		return nil, fmt.Errorf("expression %q: %w", e.src, err)
	}
	return v, nil
}

// True reports that the expression is true. One that cannot be evaluated is not: an answer of another form proves nothing.
func (e Expr) True(vars map[string]any) bool {
	v, err := e.Value(vars)
	return err == nil && v == true
}

// Text is the value as text: empty for nil, numbers and times as they are written in JSON. A list or map is an error.
func (e Expr) Text(vars map[string]any) (string, error) {
	v, err := e.Value(vars)
	if err != nil {
		return "", err
	}
	text, ok := Text(v)
	if !ok {
		return "", fmt.Errorf("expression %q gives a list or an object, not a text", e.src)
	}
	return text, nil
}

// Text is a single value as text; false for what is none.
func Text(v any) (string, bool) {
	switch v := v.(type) {
	case nil:
		return "", true
	case string:
		return v, true
	case json.Number:
		return v.String(), true
	case bool:
		return strconv.FormatBool(v), true
	case time.Time:
		return v.Format(time.RFC3339Nano), true
	}
	return "", false
}

const maxDepth = 64

// plain brings a value of CEL into Go's words.
func plain(v ref.Val, depth int) (any, error) {
	if depth > maxDepth {
		return nil, errors.New("the value is nested too deep")
	}
	switch v := v.(type) {
	case exact.Number:
		return json.Number(v.Decimal.String()), nil
	case types.String:
		return string(v), nil
	case types.Bool:
		return bool(v), nil
	case types.Int:
		return json.Number(strconv.FormatInt(int64(v), 10)), nil
	case types.Uint:
		return json.Number(strconv.FormatUint(uint64(v), 10)), nil
	case types.Double: // of a literal: its shortest text is what was written
		return json.Number(strconv.FormatFloat(float64(v), 'f', -1, 64)), nil
	case types.Timestamp:
		return v.Time, nil
	case types.Null:
		return nil, nil
	case *types.Optional:
		if !v.HasValue() {
			return nil, nil
		}
		return plain(v.GetValue(), depth)
	case traits.Mapper:
		return plainMap(v, depth)
	case traits.Lister:
		return plainList(v, depth)
	}
	return nil, fmt.Errorf("a %s is no value of JSON", v.Type().TypeName())
}

func plainMap(m traits.Mapper, depth int) (any, error) {
	if native, ok := m.Value().(map[string]any); ok {
		return native, nil
	}
	out := map[string]any{}
	for it := m.Iterator(); it.HasNext() == types.True; {
		k := it.Next()
		name, ok := k.(types.String)
		if !ok {
			return nil, fmt.Errorf("a key is a %s, not a text", k.Type().TypeName())
		}
		v, err := plain(m.Get(k), depth+1)
		if err != nil {
			return nil, err
		}
		out[string(name)] = v
	}
	return out, nil
}

func plainList(l traits.Lister, depth int) (any, error) {
	if native, ok := l.Value().([]any); ok {
		return native, nil
	}
	out := []any{}
	for it := l.Iterator(); it.HasNext() == types.True; {
		v, err := plain(it.Next(), depth+1)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}
