package translate

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// maxKept is how many bytes the last value of a tag may have, as Typed: contexts are small, and they travel with the state.
const maxKept = 16 << 10

// keptTag is the source and tag that a name in tags.name or tags["@source/name"] means, seen from a rule of source.
func keptTag(source, name string) [2]string {
	if other, tag, ok := strings.Cut(name, "/"); ok && strings.HasPrefix(other, "@") {
		return [2]string{other[1:], tag}
	}
	return [2]string{source, name}
}

// keep remembers the last good value of a tag that expressions look at, and says whether it changed.
func (w *work) keep(source string, s *signal.Signal) bool {
	if s.Quality != signal.Good {
		if w.explain != nil {
			w.say("", "kept", "quality is %s: its last good value stays", s.Quality)
		}
		return false
	}
	b, err := json.Marshal(Typed{s.Value})
	if err != nil || len(b) > maxKept {
		w.reject(source, s, "", signal.Problem{
			Code: "too_large", Item: s.Tag, Reason: fmt.Sprintf("the value of tag %q cannot be remembered for the rules that look at it (%d bytes)", s.Tag, len(b)),
			NextStep: "let the rules look at a tag that holds the one value they need",
		})
		return false
	}
	key := prefixKept + source + sep + s.Tag
	if string(w.st.State(key)) == string(b) {
		return false
	}
	w.say("", "kept", "remembered for the rules that look at it")
	w.st.SetState(key, b)
	return true
}

// last is the last good value of a tag; nil when there was none.
func (in *scope) last(name string) any {
	if in.work == nil {
		return nil
	}
	at := keptTag(in.source, name)
	b := in.work.st.State(prefixKept + at[0] + sep + at[1])
	if len(b) == 0 {
		return nil
	}
	var v Typed
	if err := json.Unmarshal(b, &v); err != nil {
		panic(fmt.Sprintf("read own state of tag %q: %v", at[1], err))
	}
	return v.Value
}

// withTags is a scope in which CEL finds the tags that its program looks at.
type withTags struct {
	*scope
	names []string
}

func (in withTags) ResolveName(name string) (any, bool) {
	if name != "tags" {
		return in.scope.ResolveName(name)
	}
	tags := make(map[string]any, len(in.names))
	for _, n := range in.names {
		if v := in.last(n); v != nil {
			tags[n] = v
		}
	}
	return tags, true
}

// roots finds what a CEL program reads: the tags it looks at, each by a literal name, and whether it reads the signal.
func (e *expr) roots(ast *cel.Ast) error {
	root := celast.NavigateAST(ast.NativeRep())
	named := 0
	for _, n := range celast.MatchDescendants(root, func(celast.NavigableExpr) bool { return true }) {
		switch n.Kind() {
		case celast.SelectKind:
			if s := n.AsSelect(); isTags(s.Operand()) {
				named, e.looksAt = named+1, append(e.looksAt, s.FieldName())
			}
		case celast.CallKind:
			args := n.AsCall().Args()
			if f := n.AsCall().FunctionName(); f == "_[_]" && isTags(args[0]) {
				if text, ok := literalText(args[1]); ok {
					named, e.looksAt = named+1, append(e.looksAt, text)
				}
			} else if f == "@in" && isTags(args[1]) {
				if text, ok := literalText(args[0]); ok {
					named, e.looksAt = named+1, append(e.looksAt, text)
				}
			}
		}
	}
	for _, n := range celast.MatchDescendants(root, celast.KindMatcher(celast.IdentKind)) {
		switch n.AsIdent() {
		case "tags":
			named--
		case "payload", "topic", "topic_parts", "labels", "tag", "position", "item":
			e.ofSignal = true
		}
	}
	if named != 0 {
		return fmt.Errorf("%q: a tag must be named literally, as tags.lot or tags[\"lot\"], so that it can be remembered", e.src)
	}
	slices.Sort(e.looksAt)
	e.looksAt = slices.Compact(e.looksAt)
	return nil
}

func isTags(x celast.Expr) bool { return x.Kind() == celast.IdentKind && x.AsIdent() == "tags" }

func literalText(x celast.Expr) (string, bool) {
	if x.Kind() != celast.LiteralKind {
		return "", false
	}
	text, ok := x.AsLiteral().(types.String)
	return string(text), ok
}
