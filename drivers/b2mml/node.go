package b2mml

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// node is an element. Prefixes are gone; namespaces serve to tell the version only.
type node struct {
	name, space string
	attrs       []xml.Attr
	kids        []*node
	text        string
	raw         []byte // text while it is being read
	line        int
	from, to    int64 // where it stands in the text
}

const (
	maxDepth = 64
	maxNodes = 2_000_000
	maxRaw   = 64 << 10
)

// parse reads a UTF-8 document as a tree.
func parse(text []byte) (*node, error) {
	dec := xml.NewDecoder(bytes.NewReader(text))
	dec.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	var (
		root  *node
		stack []*node
		count int
	)
	fail := func(reason string) (*node, error) {
		line, _ := dec.InputPos()
		return nil, &Error{signal.Problem{Code: "bad_xml", Item: path(stack), Reason: "not valid XML: " + reason,
			NextStep: "correct the sender; a document that ends too early was perhaps taken while it was being written"}, line}
	}
	if !utf8.Valid(text) {
		return nil, &Error{signal.Problem{Code: "bad_encoding", Item: "document", Reason: "the document holds characters that cannot be read",
			NextStep: "let the sender declare the encoding that it writes, or set encoding"}, 0}
	}
	for {
		from := dec.InputOffset()
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) && root != nil {
			return root, nil
		}
		if errors.Is(err, io.EOF) {
			return fail("there is no element in it")
		}
		var syntax *xml.SyntaxError
		if errors.As(err, &syntax) {
			return fail(syntax.Msg)
		}
		if err != nil {
			return fail(err.Error())
		}
		switch t := tok.(type) {
		case xml.Directive:
			if bytes.HasPrefix(bytes.ToUpper(bytes.TrimSpace(t)), []byte("DOCTYPE")) {
				return fail("the document has a document type declaration (DOCTYPE), which is never read")
			}
		case xml.StartElement:
			line, _ := dec.InputPos()
			n := &node{name: t.Name.Local, space: t.Name.Space, line: line, from: from}
			for _, a := range t.Attr {
				if a.Name.Space != "xmlns" && a.Name.Local != "xmlns" {
					n.attrs = append(n.attrs, a)
				}
			}
			if count++; count > maxNodes || len(stack) >= maxDepth {
				return fail(fmt.Sprintf("more than %d elements, or more than %d inside of each other", maxNodes, maxDepth))
			}
			if len(stack) > 0 {
				parent := stack[len(stack)-1]
				parent.kids = append(parent.kids, n)
			} else if root != nil {
				return fail("a second root element")
			} else {
				root = n
			}
			stack = append(stack, n)
		case xml.EndElement:
			n := stack[len(stack)-1]
			n.to, n.text, n.raw = dec.InputOffset(), string(bytes.TrimSpace(n.raw)), nil
			stack = stack[:len(stack)-1]
		case xml.CharData:
			if len(stack) > 0 {
				n := stack[len(stack)-1]
				n.raw = append(n.raw, t...)
			}
		}
	}
}

func path(stack []*node) string {
	if len(stack) == 0 {
		return "document"
	}
	names := make([]string, len(stack))
	for i, n := range stack {
		names[i] = n.name
	}
	return strings.Join(names, "/")
}

// kid is the first child of one of the names; nil without one.
func (n *node) kid(names ...string) *node {
	if n == nil {
		return nil
	}
	for _, name := range names {
		for _, k := range n.kids {
			if k.name == name {
				return k
			}
		}
	}
	return nil
}

func (n *node) all(names ...string) []*node {
	var out []*node
	if n == nil {
		return nil
	}
	for _, k := range n.kids {
		for _, name := range names {
			if k.name == name {
				out = append(out, k)
			}
		}
	}
	return out
}

// get is the text of the first child of one of the names that is not empty.
func (n *node) get(names ...string) string {
	for _, name := range names {
		for _, k := range n.all(name) {
			if k.text != "" {
				return k.text
			}
		}
	}
	return ""
}

// word is the text of an element of an open list: Other with an OtherValue is that value.
func (n *node) word() string {
	if n == nil {
		return ""
	}
	if strings.EqualFold(n.text, "Other") {
		if other := n.attr("OtherValue"); other != "" {
			return other
		}
	}
	return n.text
}

func (n *node) attr(name string) string {
	for _, a := range n.attrs {
		if strings.EqualFold(a.Name.Local, name) {
			return strings.TrimSpace(a.Value)
		}
	}
	return ""
}

// find returns the outermost elements of the names, at any depth.
func (n *node) find(names ...string) []*node {
	var out []*node
	if n == nil {
		return nil
	}
	for _, k := range n.kids {
		found := false
		for _, name := range names {
			found = found || k.name == name
		}
		if found {
			out = append(out, k)
		} else {
			out = append(out, k.find(names...)...)
		}
	}
	return out
}

// generic writes an element as maps, lists and texts, for what has no meaning here.
func (n *node) generic() any {
	if len(n.kids) == 0 && len(n.attrs) == 0 {
		return n.text
	}
	m := map[string]any{}
	for _, a := range n.attrs {
		m["@"+a.Name.Local] = a.Value
	}
	for _, k := range n.kids {
		addTo(m, k.name, k.generic())
	}
	if n.text != "" {
		m["#text"] = n.text
	}
	return m
}

func addTo(m map[string]any, name string, v any) {
	switch before := m[name].(type) {
	case nil:
		m[name] = v
	case []any:
		m[name] = append(before, v)
	default:
		m[name] = []any{before, v}
	}
}
