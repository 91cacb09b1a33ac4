package opcua

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
	"go.yaml.in/yaml/v4"

	"github.com/linekeeper/linekeeper/agent/signal"
)

const (
	// maxVisited bounds the nodes of a Find: a server whose tree has no end must not take all of our memory.
	maxVisited = 200_000
	// findBatch is how many matches are looked at together.
	findBatch = 100
)

// explore lends f the driver's present session, or one of its own for the time of the call: small servers have few.
func (d *driver) explore(ctx context.Context, f func(*link, serverFacts) error) error {
	if l := d.lobby.present(); l != nil {
		return f(l.link, l.facts)
	}
	r := d.scout()
	if err := r.loadOwn(); err != nil {
		return actionable(err)
	}
	l, err := r.connect(ctx)
	if err != nil {
		return actionable(err)
	}
	defer func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		l.leave(last)
	}()
	facts, err := l.facts(ctx)
	if err != nil {
		return actionable(err)
	}
	return f(l, facts)
}

// actionable is an error with its next step in it, for whoever has no page to show that on.
func actionable(err error) error {
	var t *trouble
	var d *distrust
	switch {
	case errors.As(err, &d):
		return fmt.Errorf("%s: %s", d.reason, d.nextStep)
	case errors.As(err, &t):
		return fmt.Errorf("%s: %s", plain(t), t.nextStep)
	}
	return errors.New(plain(err))
}

// Browse lists what stands below a node, which at names by its id or its browse path; the server's objects when it is empty.
// See signal.Browser.
func (d *driver) Browse(ctx context.Context, at, page string, limit int) (entries []signal.Entry, next string, err error) {
	from := 0
	if page != "" {
		if from, err = strconv.Atoi(page); err != nil || from < 0 {
			return nil, "", fmt.Errorf("page %q is not one that was handed out", page)
		}
	}
	if limit < 1 {
		limit = findBatch
	}
	err = d.explore(ctx, func(l *link, facts serverFacts) error {
		top, path, err := l.start(ctx, at, facts)
		if err != nil {
			return err
		}
		refs, err := l.browse(ctx, top, from+limit+1)
		if err != nil {
			return err
		}
		if len(refs) > from+limit {
			next = strconv.Itoa(from + limit)
		}
		var nodes []node
		for _, r := range refs[min(from, len(refs)):min(from+limit, len(refs))] {
			nodes = append(nodes, node{ref: r, path: append(path[:len(path):len(path)], nameOf(r))})
		}
		entries, err = l.entries(ctx, nodes, facts)
		return err
	})
	return entries, next, err
}

// start finds where to begin, and the names that lead there.
func (l *link) start(ctx context.Context, at string, facts serverFacts) (*ua.NodeID, []browseName, error) {
	if at == "" {
		return ua.NewNumericNodeID(0, id.ObjectsFolder), nil, nil
	}
	if name, err := parseNode(at); err == nil {
		n, err := name.resolve(facts.namespaces)
		if err != nil {
			return nil, nil, err
		}
		path, err := l.pathOf(ctx, n)
		return n, path, err
	}
	p, err := parsePath(at)
	if err != nil {
		return nil, nil, err
	}
	results, err := l.findPaths(ctx, []browsePath{p}, facts)
	if err != nil {
		return nil, nil, err
	}
	if results[0].err != nil {
		return nil, nil, fmt.Errorf("path %q: %w", at, results[0].err)
	}
	path, err := l.pathOf(ctx, results[0].id)
	return results[0].id, path, err
}

// browseName is a name with its namespace's index.
type browseName struct {
	ns   uint16
	name string
}

func nameOf(r *ua.ReferenceDescription) browseName {
	if r.BrowseName == nil {
		return browseName{}
	}
	return browseName{r.BrowseName.NamespaceIndex, r.BrowseName.Name}
}

// node is one that was met, with the names that lead to it from the server's objects.
type node struct {
	ref  *ua.ReferenceDescription
	path []browseName
}

// pathOf finds the shortest way down to a node from the server's objects, by going up. A node that hangs nowhere that this user
// may see has its own name only.
func (l *link) pathOf(ctx context.Context, n *ua.NodeID) ([]browseName, error) {
	values, err := l.read(ctx, []*ua.ReadValueID{{NodeID: n, AttributeID: ua.AttributeIDBrowseName, DataEncoding: &ua.QualifiedName{}}}, 1)
	if err != nil {
		return nil, err
	}
	q, ok := content(values[0]).(*ua.QualifiedName)
	if !ok {
		return nil, fmt.Errorf("the server does not give node %s: %s", n, statusName(values[0].Status))
	}
	if isObjects(n) {
		return nil, nil
	}
	type climb struct {
		id   *ua.NodeID
		path []browseName
	}
	own := []browseName{{q.NamespaceIndex, q.Name}}
	seen := map[string]bool{n.String(): true}
	for level := []climb{{n, own}}; len(level) > 0 && len(seen) < 1000; {
		var next []climb
		for _, c := range level {
			refs, err := l.above(ctx, c.id)
			if connectionFault(err) {
				return nil, err
			}
			for _, r := range refs {
				id := r.NodeID.NodeID
				if isObjects(id) {
					return c.path, nil
				}
				if !seen[id.String()] {
					seen[id.String()] = true
					next = append(next, climb{id, append([]browseName{nameOf(r)}, c.path...)})
				}
			}
		}
		level = next
	}
	return own, nil
}

func isObjects(n *ua.NodeID) bool { return n.Namespace() == 0 && n.IntID() == id.ObjectsFolder }

// entries looks at nodes that were met: what they are, what they hold now, and how a configuration would name them.
func (l *link) entries(ctx context.Context, nodes []node, facts serverFacts) ([]signal.Entry, error) {
	list := make([]signal.Entry, len(nodes))
	var variables []*ua.NodeID
	var at []int
	for i, n := range nodes {
		list[i] = signal.Entry{ID: nodeText(n.ref.NodeID.NodeID, facts.namespaces), Path: pathText(n.path), Name: displayName(n.ref),
			Kind: strings.TrimPrefix(n.ref.NodeClass.String(), "NodeClass"), Children: n.ref.NodeClass == ua.NodeClassObject}
		if n.ref.NodeClass == ua.NodeClassVariable {
			variables, at = append(variables, n.ref.NodeID.NodeID), append(at, i)
		}
	}
	if len(variables) == 0 {
		return list, nil
	}
	looks, err := l.look(ctx, variables, facts)
	if err != nil {
		return nil, err
	}
	parts, err := l.partsOf(ctx, variables, facts)
	if err != nil {
		return nil, err
	}
	types, err := l.typeNames(ctx, looks, facts)
	if err != nil {
		return nil, err
	}
	for k, i := range at {
		e, g := &list[i], looks[k]
		e.Readable, e.Writable = g.refusal() == "", g.access&2 != 0
		e.Children, e.Unit, e.Type = parts[k].more, parts[k].unit, types[k]
		var s signal.Signal
		fill(&s, &g.value)
		e.Quality = s.Quality
		if s.Value != nil {
			e.Value = shortText(s.Value)
		}
		if e.Readable {
			e.Tag = tagOf(nodes[i], e.ID, facts)
		}
	}
	return list, nil
}

func displayName(r *ua.ReferenceDescription) string {
	return cmp.Or(textOf(r.DisplayName), nameOf(r).name)
}

// pathText is a path as a person reads it.
func pathText(path []browseName) string {
	var names []string
	for _, n := range path {
		names = append(names, strings.NewReplacer("&", "&&", "/", "&/").Replace(n.name))
	}
	return strings.Join(names, "/")
}

// tagOf is the element of a source's nodes that reads this one.
func tagOf(n node, nodeID string, facts serverFacts) string {
	tag := struct {
		Tag  string `yaml:"tag"`
		Node string `yaml:"node"`
		Path string `yaml:"path,omitempty"`
	}{Tag: tagName(n.path), Node: nodeID}
	if facts.profile.idsChange {
		tag.Path = namedPath(n.path, facts.namespaces)
	}
	text, err := yaml.Dump(tag)
	if err != nil {
		return "" // it holds nothing but strings
	}
	return string(text)
}

// tagName is made of the last two names of a path, which are mostly the machine and what is counted.
func tagName(path []browseName) string {
	var names []string
	for _, n := range path[max(0, len(path)-2):] {
		name := strings.Map(func(r rune) rune {
			switch {
			case r == '"', r == '\'':
				return -1
			case r <= ' ', r == '/', r == '\\', r == ':':
				return '_'
			}
			return r
		}, strings.ToLower(n.name))
		if name != "" {
			names = append(names, name)
		}
	}
	return strings.Join(names, ".")
}

// namedPath is a path with its namespaces written out.
func namedPath(path []browseName, namespaces []string) string {
	p := browsePath{{name: "Objects"}}
	for i, n := range path {
		step := pathStep{name: n.name, index: -1}
		var before uint16 // that of Objects
		if i > 0 {
			before = path[i-1].ns
		}
		if before != n.ns {
			step.index = int(n.ns)
			if n.ns != 0 && int(n.ns) < len(namespaces) && !strings.ContainsAny(namespaces[n.ns], "<>") {
				step.uri, step.index = namespaces[n.ns], -1
			}
		}
		p = append(p, step)
	}
	return p.String()
}

// parts is what hangs on a variable.
type parts struct {
	// more is true when it has variables of its own below, beside its properties.
	more bool
	unit string
}

// partsOf asks what hangs on variables: members of structures, and the property that names the unit.
func (l *link) partsOf(ctx context.Context, nodes []*ua.NodeID, facts serverFacts) ([]parts, error) {
	list := make([]parts, len(nodes))
	var units []*ua.ReadValueID
	var unitOf []int
	for i := 0; i < len(nodes); {
		n := min(max(1, facts.browsesPerCall), len(nodes)-i)
		results, err := l.aggregates(ctx, nodes[i:i+n])
		if tooMuch(err) && n > 1 {
			facts.browsesPerCall = max(1, n/2)
			continue
		}
		if connectionFault(err) {
			return nil, err
		}
		for k, refs := range results {
			for _, r := range refs {
				property := r.ReferenceTypeID != nil && r.ReferenceTypeID.Namespace() == 0 && r.ReferenceTypeID.IntID() == id.HasProperty
				list[i+k].more = list[i+k].more || !property
				if property && nameOf(r) == (browseName{0, "EngineeringUnits"}) && r.NodeID != nil && r.NodeID.NodeID != nil {
					units = append(units, &ua.ReadValueID{NodeID: r.NodeID.NodeID, AttributeID: ua.AttributeIDValue, DataEncoding: &ua.QualifiedName{}})
					unitOf = append(unitOf, i+k)
				}
			}
		}
		i += n
	}
	if len(units) == 0 {
		return list, nil
	}
	values, err := l.read(ctx, units, facts.readsPerCall)
	if connectionFault(err) {
		return nil, err
	}
	for k, v := range values {
		if x, ok := content(v).(*ua.ExtensionObject); ok {
			if u, ok := x.Value.(*ua.EUInformation); ok {
				list[unitOf[k]].unit = textOf(u.DisplayName)
			}
		}
	}
	return list, nil
}

// aggregates browses what belongs to nodes. A list that the server cuts is good enough; its place there is released.
func (l *link) aggregates(ctx context.Context, nodes []*ua.NodeID) ([][]*ua.ReferenceDescription, error) {
	req := &ua.BrowseRequest{View: &ua.ViewDescription{ViewID: ua.NewTwoByteNodeID(0)}}
	for _, n := range nodes {
		req.NodesToBrowse = append(req.NodesToBrowse, &ua.BrowseDescription{NodeID: n, BrowseDirection: ua.BrowseDirectionForward,
			ReferenceTypeID: ua.NewNumericNodeID(0, id.Aggregates), IncludeSubtypes: true, ResultMask: uint32(ua.BrowseResultMaskAll)})
	}
	res, err := call[*ua.BrowseResponse](ctx, l.client, callTimeout, req)
	if err != nil {
		return nil, fmt.Errorf("browse %d nodes: %w", len(nodes), err)
	}
	if len(res.Results) != len(nodes) {
		return nil, fmt.Errorf("browse %d nodes: %d answers", len(nodes), len(res.Results))
	}
	var list [][]*ua.ReferenceDescription
	var points [][]byte
	for _, r := range res.Results {
		list = append(list, r.References)
		if len(r.ContinuationPoint) > 0 {
			points = append(points, r.ContinuationPoint)
		}
	}
	if points != nil {
		_, err := call[*ua.BrowseNextResponse](ctx, l.client, callTimeout, &ua.BrowseNextRequest{ReleaseContinuationPoints: true, ContinuationPoints: points})
		if connectionFault(err) {
			return nil, err
		}
	}
	return list, nil
}

// typeNames are the data types' names: standard ones by their ids, others as the server calls them.
func (l *link) typeNames(ctx context.Context, looks []glance, facts serverFacts) ([]string, error) {
	own := map[string]string{}
	var asked []*ua.ReadValueID
	for _, g := range looks {
		if g.typ == nil || g.typ.Namespace() == 0 || own[g.typ.String()] != "" {
			continue
		}
		own[g.typ.String()] = g.typ.String()
		asked = append(asked, &ua.ReadValueID{NodeID: g.typ, AttributeID: ua.AttributeIDBrowseName, DataEncoding: &ua.QualifiedName{}})
	}
	if len(asked) > 0 {
		values, err := l.read(ctx, asked, facts.readsPerCall)
		if connectionFault(err) {
			return nil, err
		}
		for i, v := range values {
			if q, ok := content(v).(*ua.QualifiedName); ok && q.Name != "" {
				own[asked[i].NodeID.String()] = oneLine(q.Name)
			}
		}
	}
	names := make([]string, len(looks))
	for i, g := range looks {
		names[i] = g.typeName()
		if g.typ != nil && g.typ.Namespace() != 0 {
			names[i] = strings.Replace(names[i], g.typ.String(), own[g.typ.String()], 1)
		}
	}
	return names, nil
}
