package opcua

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

// located is what became of one browse path: the node's id, or why there is none.
type located struct {
	id  *ua.NodeID
	err error
}

// findPaths looks browse paths up. Its error is a fault of the connection; what is wrong with one path stands with that path.
func (l *link) findPaths(ctx context.Context, paths []browsePath, facts serverFacts) ([]located, error) {
	results := make([]located, len(paths))
	var asked []int
	var requests []*ua.BrowsePath
	for i, p := range paths {
		names, _, err := p.qualified(facts.namespaces)
		if err != nil {
			results[i].err = err
			continue
		}
		asked, requests = append(asked, i), append(requests, translation(names))
	}
	answers, err := l.translate(ctx, requests, facts.pathsPerCall)
	if err != nil && (connectionFault(err) || !unsupported(err)) {
		return nil, err
	}
	w := walker{link: l, facts: facts, children: map[string][]*ua.ReferenceDescription{}}
	for k, i := range asked {
		if err == nil {
			results[i] = target(answers[k], facts.namespaces)
			if results[i].err == nil || errors.Is(results[i].err, errSeveral) {
				continue
			}
		}
		// Without a namespace the name may stand in another one, and some servers do not translate at all.
		if _, named, _ := paths[i].qualified(facts.namespaces); !named || err != nil {
			if results[i], err = w.walk(ctx, paths[i]); connectionFault(err) {
				return nil, err
			}
			err = nil
		}
	}
	return results, nil
}

// unsupported reports whether a server does not have a service at all.
func unsupported(err error) bool {
	return errors.Is(err, ua.StatusBadServiceUnsupported) || errors.Is(err, ua.StatusBadNotImplemented) ||
		errors.Is(err, ua.StatusBadNotSupported)
}

// translate asks for many paths, in calls that the server bears.
func (l *link) translate(ctx context.Context, paths []*ua.BrowsePath, size int) ([]*ua.BrowsePathResult, error) {
	var results []*ua.BrowsePathResult
	if size < 1 {
		size = max(1, len(paths))
	}
	for len(results) < len(paths) {
		n := min(size, len(paths)-len(results))
		res, err := call[*ua.TranslateBrowsePathsToNodeIDsResponse](ctx, l.client, callTimeout,
			&ua.TranslateBrowsePathsToNodeIDsRequest{BrowsePaths: paths[len(results) : len(results)+n]})
		if tooMuch(err) && n > 1 {
			size = max(1, n/2)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look %d browse paths up: %w", n, err)
		}
		if len(res.Results) != n {
			return nil, fmt.Errorf("look %d browse paths up: %d answers", n, len(res.Results))
		}
		results = append(results, res.Results...)
	}
	return results, nil
}

// errSeveral is a path that leads to more than one node.
var errSeveral = errors.New("the path leads to several nodes")

// target is the one node that a path leads to.
func target(r *ua.BrowsePathResult, namespaces []string) located {
	if r.StatusCode != ua.StatusOK {
		if r.StatusCode == ua.StatusBadNoMatch {
			return located{err: errors.New("the server has no node at this path (BadNoMatch)")}
		}
		return located{err: fmt.Errorf("the server cannot follow the path: %s", statusName(r.StatusCode))}
	}
	var ids []string
	var one *ua.NodeID
	for _, t := range r.Targets {
		if t.RemainingPathIndex != math.MaxUint32 || t.TargetID == nil || t.TargetID.NodeID == nil {
			continue // it leads on to another server
		}
		one = t.TargetID.NodeID
		ids = append(ids, nodeText(one, namespaces))
	}
	switch len(ids) {
	case 0:
		return located{err: errors.New("the path leads to no node of this server")}
	case 1:
		return located{id: one}
	}
	return located{err: fmt.Errorf("%w: %s", errSeveral, strings.Join(ids, ", "))}
}

// walker follows paths by looking at what stands below each node, and remembers that for the next path.
type walker struct {
	*link
	facts    serverFacts
	children map[string][]*ua.ReferenceDescription
}

func (w *walker) walk(ctx context.Context, p browsePath) (located, error) {
	here := []*ua.NodeID{ua.NewNumericNodeID(0, id.RootFolder)}
	for i, step := range p {
		var next []*ua.NodeID
		var ids []string
		for _, n := range here {
			refs, err := w.below(ctx, n)
			if err != nil {
				return located{err: err}, err
			}
			for _, r := range refs {
				if step.fits(r.BrowseName, w.facts.namespaces) {
					next = append(next, r.NodeID.NodeID)
					ids = append(ids, nodeText(r.NodeID.NodeID, w.facts.namespaces))
				}
			}
		}
		switch {
		case len(next) == 0:
			return located{err: fmt.Errorf("the server has no %q below %q", step.name, p[:i].String())}, nil
		case i == len(p)-1 && len(next) > 1:
			return located{err: fmt.Errorf("%w: %s; write the namespace into the path, <urn:...>%s", errSeveral, strings.Join(ids, ", "), step.name)}, nil
		}
		here = next
	}
	return located{id: here[0]}, nil
}

func (w *walker) below(ctx context.Context, n *ua.NodeID) ([]*ua.ReferenceDescription, error) {
	key := n.String()
	if refs, ok := w.children[key]; ok {
		return refs, nil
	}
	refs, err := w.browse(ctx, n, 0)
	if err != nil {
		return nil, err
	}
	w.children[key] = refs
	return refs, nil
}

// fits reports whether a node bears the step's name.
func (s pathStep) fits(name *ua.QualifiedName, namespaces []string) bool {
	if name == nil || name.Name != s.name {
		return false
	}
	switch {
	case s.uri != "":
		index, err := namespaceIndex(s.uri, namespaces)
		return err == nil && index == int(name.NamespaceIndex)
	case s.index >= 0:
		return s.index == int(name.NamespaceIndex)
	}
	return true
}

// pathFinder is a session that can look browse paths up.
type pathFinder interface {
	findPaths(ctx context.Context, paths []browsePath, facts serverFacts) ([]located, error)
}

// locate gives the nodes that have a browse path the ids that they have now, in this reader's copy of the configuration: all
// of them, or those with the tags. A node whose path leads nowhere keeps the id that the configuration names; without one it
// cannot be read, and lost says why.
func (r *reader) locate(ctx context.Context, l pathFinder, facts serverFacts, tags map[string]bool) error {
	var paths []browsePath
	var at []int
	for i, n := range r.written {
		if n.Path == "" || tags != nil && !tags[n.Tag] {
			continue
		}
		p, err := parsePath(n.Path)
		if err != nil {
			return err // Validate has seen to it
		}
		paths, at = append(paths, p), append(at, i)
	}
	if len(paths) == 0 {
		return nil
	}
	results, err := l.findPaths(ctx, paths, facts)
	if err != nil {
		return fmt.Errorf("find nodes by their browse paths: %w", err)
	}
	nodes := append([]Node{}, r.config.Nodes...)
	for k, i := range at {
		n := r.written[i]
		delete(r.lost, n.Tag)
		switch res := results[k]; {
		case res.err == nil:
			nodes[i].Node = nodeText(res.id, facts.namespaces)
			if n.Node != "" && nodes[i].Node != n.Node {
				r.log.Debug("node has another id", "source", r.env.Source, "tag", n.Tag, "path", n.Path, "id", nodes[i].Node)
			}
		case n.Node != "":
			nodes[i].Node = n.Node
			r.log.Warn("path leads nowhere, the id is used", "source", r.env.Source, "tag", n.Tag, "path", n.Path, "reason", res.err)
		default:
			r.lost[n.Tag] = fmt.Sprintf("path %q: %v", n.Path, res.err)
		}
	}
	r.config.Nodes = nodes
	return nil
}

// relocate looks the paths of some nodes up again, and returns these nodes as they are named now.
func (r *reader) relocate(ctx context.Context, s any, facts serverFacts, due []Node) ([]Node, error) {
	l, ok := s.(pathFinder)
	tags := map[string]bool{}
	for _, n := range due {
		tags[n.Tag] = true
	}
	if !ok {
		return due, nil
	}
	if err := r.locate(ctx, l, facts, tags); err != nil {
		return nil, err
	}
	now := due[:0]
	for _, n := range r.config.Nodes {
		if tags[n.Tag] {
			now = append(now, n)
		}
	}
	return now, nil
}
