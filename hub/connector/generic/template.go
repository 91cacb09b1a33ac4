package generic

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// Template is a text with expressions in braces, such as orders/{order_no}.
type Template struct {
	src   string
	texts []string // one more than exprs
	exprs []Expr
}

// CompileTemplate reads a text with expressions that may use names.
func CompileTemplate(src string, names ...string) (Template, error) {
	t := Template{src: src}
	rest := src
	for {
		before, after, found := strings.Cut(rest, "{")
		t.texts = append(t.texts, before)
		if !found {
			break
		}
		inner, left, closed := strings.Cut(after, "}")
		if !closed {
			return t, fmt.Errorf("%q has a { without a }", src)
		}
		e, err := Compile(inner, names...)
		if err != nil {
			return t, fmt.Errorf("%q: %w", src, err)
		}
		if !e.IsSet() {
			return t, fmt.Errorf("%q has nothing between { and }", src)
		}
		t.exprs, rest = append(t.exprs, e), left
	}
	return t, nil
}

// IsSet reports that there is a template.
func (t Template) IsSet() bool { return t.src != "" }

// Uses reports that an expression of the template is just name.
func (t Template) Uses(name string) bool {
	return slices.ContainsFunc(t.exprs, func(e Expr) bool { return e.src == name })
}

// Fill puts the values in, each as escape writes it.
func (t Template) Fill(vars map[string]any, escape func(string) (string, error)) (string, error) {
	var b strings.Builder
	for i, e := range t.exprs {
		text, err := e.Text(vars)
		if err == nil {
			text, err = escape(text)
		}
		if err != nil {
			return "", fmt.Errorf("fill %q: %w", t.src, err)
		}
		b.WriteString(t.texts[i])
		b.WriteString(text)
	}
	if len(t.texts) > 0 {
		b.WriteString(t.texts[len(t.texts)-1])
	}
	return b.String(), nil
}

// Tree is a document whose texts are expressions. A number of an expression is written as a number, digit by digit; string()
// makes a text of it. What is nil is left out.
type Tree struct {
	node any // map[string]Tree, []Tree, Expr, or a constant bool or json.Number
}

// CompileTree reads a tree as YAML gives it: maps, lists, texts that are expressions, whole numbers and true or false.
func CompileTree(v any, names ...string) (Tree, error) {
	switch v := v.(type) {
	case nil:
		return Tree{}, nil
	case string:
		e, err := Compile(v, names...)
		return Tree{e}, err
	case bool:
		return Tree{v}, nil
	case int, int64, uint64:
		return Tree{json.Number(fmt.Sprint(v))}, nil
	case float64, time.Time:
		return Tree{}, fmt.Errorf("%v is written without quotation marks: write it as an expression, such as \"dec('0.5')\" or \"'2026-03-01'\"", v)
	case map[string]any:
		out := map[string]Tree{}
		for _, k := range slices.Sorted(maps.Keys(v)) {
			t, err := CompileTree(v[k], names...)
			if err != nil {
				return Tree{}, fmt.Errorf("%s: %w", k, err)
			}
			out[k] = t
		}
		return Tree{out}, nil
	case []any:
		out := make([]Tree, len(v))
		for i := range v {
			t, err := CompileTree(v[i], names...)
			if err != nil {
				return Tree{}, fmt.Errorf("[%d]: %w", i, err)
			}
			out[i] = t
		}
		return Tree{out}, nil
	}
	return Tree{}, fmt.Errorf("%v cannot stand in a document", v)
}

// IsSet reports that there is a document.
func (t Tree) IsSet() bool { return t.node != nil }

// Fill makes the document.
func (t Tree) Fill(vars map[string]any) (any, error) {
	switch n := t.node.(type) {
	case Expr:
		return n.Value(vars)
	case map[string]Tree:
		out := map[string]any{}
		for k, sub := range n {
			v, err := sub.Fill(vars)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", k, err)
			}
			if v != nil {
				out[k] = v
			}
		}
		return out, nil
	case []Tree:
		out := []any{}
		for i, sub := range n {
			v, err := sub.Fill(vars)
			if err != nil {
				return nil, fmt.Errorf("[%d]: %w", i, err)
			}
			if v != nil {
				out = append(out, v)
			}
		}
		return out, nil
	}
	return t.node, nil
}

// JSON writes a value with the names of objects in order, so that the same value always gives the same bytes.
func JSON(v any) ([]byte, error) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return []byte(strings.TrimSuffix(b.String(), "\n")), nil
}

// ReadJSON decodes one JSON value; its numbers keep their text.
func ReadJSON(text []byte) (any, error) {
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("more text follows after the end of the value")
	}
	return v, nil
}
