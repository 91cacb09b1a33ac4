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
	p := &parser{dec: xml.NewDecoder(bytes.NewReader(text))}
	p.dec.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	if !utf8.Valid(text) {
		return nil, &Error{signal.Problem{Code: "bad_encoding", Item: "document", Reason: "the document holds characters that cannot be read",
			NextStep: "let the sender declare the encoding that it writes, or set encoding"}, 0}
	}
	for {
		from := p.dec.InputOffset()
		tok, err := p.dec.Token()
		var syntax *xml.SyntaxError
		switch {
		case errors.Is(err, io.EOF) && p.root != nil:
			return p.root, nil
		case errors.Is(err, io.EOF):
			return nil, p.fail("there is no element in it")
		case errors.As(err, &syntax):
			return nil, p.fail(syntax.Msg)
		case err != nil:
			return nil, p.fail(err.Error())
		}
		if reason := p.token(tok, from); reason != "" {
			return nil, p.fail(reason)
		}
	}
}

type parser struct {
	dec   *xml.Decoder
	root  *node
	stack []*node
	count int
}

func (p *parser) fail(reason string) error {
	line, _ := p.dec.InputPos()
	return &Error{signal.Problem{Code: "bad_xml", Item: path(p.stack), Reason: "not valid XML: " + reason,
		NextStep: "correct the sender; a document that ends too early was perhaps taken while it was being written"}, line}
}

// token adds one token to the tree; it returns what is wrong with it.
func (p *parser) token(tok xml.Token, from int64) string {
	switch t := tok.(type) {
	case xml.Directive:
		if bytes.HasPrefix(bytes.ToUpper(bytes.TrimSpace(t)), []byte("DOCTYPE")) {
			return "the document has a document type declaration (DOCTYPE), which is never read"
		}
	case xml.StartElement:
		return p.start(t, from)
	case xml.EndElement:
		n := p.stack[len(p.stack)-1]
		n.to, n.text, n.raw = p.dec.InputOffset(), string(bytes.TrimSpace(n.raw)), nil
		p.stack = p.stack[:len(p.stack)-1]
	case xml.CharData:
		if len(p.stack) > 0 {
			n := p.stack[len(p.stack)-1]
			n.raw = append(n.raw, t...)
		}
	}
	return ""
}

func (p *parser) start(t xml.StartElement, from int64) string {
	line, _ := p.dec.InputPos()
	n := &node{name: t.Name.Local, space: t.Name.Space, line: line, from: from}
	for _, a := range t.Attr {
		if a.Name.Space != "xmlns" && a.Name.Local != "xmlns" {
			n.attrs = append(n.attrs, a)
		}
	}
	if p.count++; p.count > maxNodes || len(p.stack) >= maxDepth {
		return fmt.Sprintf("more than %d elements, or more than %d inside of each other", maxNodes, maxDepth)
	}
	switch {
	case len(p.stack) > 0:
		parent := p.stack[len(p.stack)-1]
		parent.kids = append(parent.kids, n)
	case p.root != nil:
		return "a second root element"
	default:
		p.root = n
	}
	p.stack = append(p.stack, n)
	return ""
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
