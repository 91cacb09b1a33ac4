package opcua

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/gopcua/opcua/ua"
)

// nodeName is a node's id as a configuration writes it, before the server's namespace table is known.
type nodeName struct {
	// uri names the namespace, or index does when uri is empty.
	uri   string
	index uint16
	// id is the rest: "s=Press1.Good".
	id string
}

// parseNode reads "ns=2;s=...", "nsu=urn:...;s=..." or "i=...".
func parseNode(s string) (nodeName, error) {
	n := nodeName{id: s}
	switch {
	case strings.HasPrefix(s, "nsu="):
		uri, id, found := strings.Cut(s[len("nsu="):], ";")
		if !found || uri == "" {
			return n, badNode(s)
		}
		// A semicolon inside a URI is written %3B, a percent sign %25.
		n.uri, n.id = strings.NewReplacer("%3B", ";", "%3b", ";", "%25", "%").Replace(uri), id
	case strings.HasPrefix(s, "ns="):
		index, id, found := strings.Cut(s[len("ns="):], ";")
		i, err := strconv.ParseUint(index, 10, 16)
		if !found || err != nil {
			return n, badNode(s)
		}
		n.index, n.id = uint16(i), id
	}
	if len(n.id) < 3 || n.id[1] != '=' || !strings.ContainsRune("isgb", rune(n.id[0])) {
		return n, badNode(s)
	}
	if _, err := ua.ParseNodeID("ns=1;" + n.id); err != nil {
		return n, fmt.Errorf("node %q: %w", s, err)
	}
	return n, nil
}

func badNode(s string) error {
	return fmt.Errorf("node %q is not a node id: write it as ns=2;s=Press1.Good or nsu=urn:maker:press;s=Press1.Good", s)
}

// resolve gives the id that is valid at a server with these namespaces.
func (n nodeName) resolve(namespaces []string) (*ua.NodeID, error) {
	index := int(n.index)
	if n.uri != "" {
		var err error
		if index, err = namespaceIndex(n.uri, namespaces); err != nil {
			return nil, err
		}
	}
	return ua.ParseNodeID("ns=" + strconv.Itoa(index) + ";" + n.id)
}

// namespaceIndex finds a namespace in the server's table.
func namespaceIndex(uri string, namespaces []string) (int, error) {
	for i, ns := range namespaces {
		if ns == uri {
			return i, nil
		}
	}
	return 0, fmt.Errorf("the server has no namespace %q: it has %q", uri, namespaces)
}

// nodeText writes an id with its namespace's name, as a configuration should: indexes may change.
func nodeText(n *ua.NodeID, namespaces []string) string {
	text := n.String()
	index := int(n.Namespace())
	if index == 0 || index >= len(namespaces) {
		return text
	}
	_, rest, _ := strings.Cut(text, ";")
	return "nsu=" + strings.NewReplacer("%", "%25", ";", "%3B").Replace(namespaces[index]) + ";" + rest
}

// pinned is the name with its namespace written out, so that it keeps its meaning when the server's table changes.
func (n nodeName) pinned(namespaces []string) nodeName {
	if n.uri == "" && n.index != 0 && int(n.index) < len(namespaces) {
		n.uri, n.index = namespaces[n.index], 0
	}
	return n
}
