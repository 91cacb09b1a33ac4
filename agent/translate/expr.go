package translate

import (
	"fmt"
	"strconv"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/proto/exact"
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
		switch m := v.(type) {
		case map[string]any:
			return m[s.key]
		case *signal.Row:
			v, _ := m.Get(s.key)
			return v
		}
		return nil
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
		return signal.Whole(in.sig.Value), true
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
	case exact.Number:
		return signal.Number(v.Decimal.String())
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
