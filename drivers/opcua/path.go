package opcua

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

// browsePath is a way from the server's root to a node, by the names that a person sees in a browser.
type browsePath []pathStep

// pathStep is one browse name. Its namespace is that of uri, or else index, or else (both absent) that of the step before, and
// where the server knows none of that name there, any.
type pathStep struct {
	name  string
	uri   string
	index int // -1 when the step names none
}

// parsePath reads "Objects/<urn:maker>Press1/Good" or "Objects/2:Press1/Good". A leading "/" and "Objects" may be left out.
// An & takes the meaning from the character behind it: "Line&/1" is one name.
func parsePath(s string) (browsePath, error) {
	var p browsePath
	rest := strings.TrimPrefix(s, "/")
	for more := true; more; {
		var step pathStep
		var err error
		if step, rest, more, err = nextStep(rest); err != nil {
			return nil, fmt.Errorf("path %q: %w", s, err)
		}
		p = append(p, step)
	}
	if p[0].standard("Root") && len(p) > 1 && p[1].top() {
		p = p[1:]
	}
	if !p[0].top() {
		p = append(browsePath{{name: "Objects"}}, p...)
	}
	p[0].index = 0
	return p, nil
}

// standard reports whether the step is one of the names that each server has.
func (s pathStep) standard(name string) bool { return s.name == name && s.uri == "" && s.index <= 0 }

// top reports whether the step stands right below the root.
func (s pathStep) top() bool {
	return s.standard("Objects") || s.standard("Types") || s.standard("Views")
}

// nextStep cuts the first step off.
func nextStep(s string) (step pathStep, rest string, more bool, err error) {
	step.index = -1
	if strings.HasPrefix(s, "<") {
		uri, behind, found := strings.Cut(s[1:], ">")
		if !found || uri == "" {
			return step, "", false, fmt.Errorf("the namespace %q does not end: write <urn:maker:press>Press1", s)
		}
		step.uri, s = uri, behind
	}
	var name strings.Builder
	escaped := false
	for i, c := range s {
		switch {
		case escaped:
			escaped = false
			name.WriteRune(c)
		case c == '&':
			escaped = true
		case c == '/':
			rest, more = s[i+1:], true
		case c == ':' && step.uri == "" && step.index < 0 && isIndex(s[:i]):
			step.index, _ = strconv.Atoi(s[:i])
			name.Reset()
		default:
			name.WriteRune(c)
		}
		if more {
			break
		}
	}
	step.name = name.String()
	if step.name == "" || escaped {
		return step, "", false, fmt.Errorf("a name is missing: write it as Objects/<urn:maker:press>Press1/Good")
	}
	return step, rest, more, nil
}

func isIndex(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}

// String is the path as parsePath reads it.
func (p browsePath) String() string {
	var b strings.Builder
	for i, s := range p {
		if i > 0 {
			b.WriteByte('/')
		}
		switch {
		case s.uri != "":
			b.WriteString("<" + s.uri + ">")
		case s.index > 0 || s.index == 0 && i > 0:
			b.WriteString(strconv.Itoa(s.index) + ":")
		}
		b.WriteString(escapeName(s.name, s.uri == "" && s.index < 0))
	}
	return b.String()
}

// escapeName writes a browse name so that it cannot be taken for more; first is true when no namespace stands before it.
func escapeName(name string, first bool) string {
	name = strings.NewReplacer("&", "&&", "/", "&/").Replace(name)
	if !first {
		return name
	}
	if strings.HasPrefix(name, "<") {
		return "&" + name
	}
	if before, behind, found := strings.Cut(name, ":"); found && isIndex(before) {
		return before + "&:" + behind
	}
	return name
}

// qualified gives the names as the server's namespace table spells them now. named is false when a step leaves its namespace
// open, so that it may stand elsewhere.
func (p browsePath) qualified(namespaces []string) (names []*ua.QualifiedName, named bool, err error) {
	index := 0
	named = true
	for i, s := range p {
		switch {
		case s.uri != "":
			if index, err = namespaceIndex(s.uri, namespaces); err != nil {
				return nil, false, err
			}
		case s.index >= 0:
			index = s.index
		case i > 0:
			named = false
		}
		names = append(names, &ua.QualifiedName{NamespaceIndex: uint16(index), Name: s.name})
	}
	return names, named, nil
}

// translation is the request that looks a path up.
func translation(names []*ua.QualifiedName) *ua.BrowsePath {
	p := &ua.BrowsePath{StartingNode: ua.NewNumericNodeID(0, id.RootFolder), RelativePath: &ua.RelativePath{}}
	for _, n := range names {
		p.RelativePath.Elements = append(p.RelativePath.Elements, &ua.RelativePathElement{
			ReferenceTypeID: ua.NewNumericNodeID(0, id.HierarchicalReferences), IncludeSubtypes: true, TargetName: n})
	}
	return p
}
