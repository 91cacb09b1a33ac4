package idoc

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
)

var nameOf = regexp.MustCompile(`^[A-Z][A-Z0-9_]{1,29}$`)

// Limits of a file that somebody else wrote.
const (
	maxDepth = 32
	maxNodes = 500_000
)

// node is a segment or a field. Name spaces and attributes carry nothing that is needed.
type node struct {
	name  string
	text  string
	nodes []*node
}

// read reads one file and returns its root.
func read(data []byte) (*node, error) {
	d := xml.NewDecoder(bytes.NewReader(data))
	root := &node{}
	path, count := []*node{root}, 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("it is not XML: %w", err)
		}
		top := path[len(path)-1]
		switch t := token.(type) {
		case xml.StartElement:
			if count++; len(path) > maxDepth || count > maxNodes {
				return nil, errors.New("it has too many segments")
			}
			n := &node{name: t.Name.Local}
			top.nodes, path = append(top.nodes, n), append(path, n)
		case xml.EndElement:
			top.text = strings.TrimSpace(top.text)
			path = path[:len(path)-1]
		case xml.CharData:
			if len(top.nodes) == 0 {
				top.text += string(t)
			}
		}
	}
	if len(root.nodes) != 1 {
		return nil, errors.New("it has no root element")
	}
	return root.nodes[0], nil
}

// all are the children of that name.
func (n *node) all(name string) (found []*node) {
	for _, c := range n.nodes {
		if c.name == name {
			found = append(found, c)
		}
	}
	return found
}

// get is the first text that is not empty, of the fields of those names.
func (n *node) get(names ...string) string {
	for _, name := range names {
		for _, c := range n.all(name) {
			if c.text != "" {
				return c.text
			}
		}
	}
	return ""
}

// under is every segment of that name at any depth.
func (n *node) under(name string) (found []*node) {
	for _, c := range n.nodes {
		if c.name == name {
			found = append(found, c)
		}
		found = append(found, c.under(name)...)
	}
	return found
}

// field makes a field; seg a segment, without the fields that are empty.
func field(name, text string) *node { return &node{name: name, text: text} }

func seg(name string, nodes ...*node) *node {
	s := &node{name: name}
	for _, n := range nodes {
		if n.text != "" || len(n.nodes) > 0 {
			s.nodes = append(s.nodes, n)
		}
	}
	return s
}

// write writes an IDoc. Segments are marked as SAP marks them.
func write(idocType string, segments ...*node) []byte {
	var b bytes.Buffer
	b.WriteString(xml.Header + "<" + idocType + ">\n <IDOC BEGIN=\"1\">\n")
	for _, s := range segments {
		s.write(&b, "  ")
	}
	b.WriteString(" </IDOC>\n</" + idocType + ">\n")
	return b.Bytes()
}

func (n *node) write(b *bytes.Buffer, indent string) {
	if len(n.nodes) == 0 {
		b.WriteString(indent + "<" + n.name + ">")
		xml.EscapeText(b, []byte(n.text)) // a bytes.Buffer takes everything
		b.WriteString("</" + n.name + ">\n")
		return
	}
	b.WriteString(indent + "<" + n.name + " SEGMENT=\"1\">\n")
	for _, c := range n.nodes {
		c.write(b, indent+" ")
	}
	b.WriteString(indent + "</" + n.name + ">\n")
}
