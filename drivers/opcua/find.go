package opcua

import (
	"context"
	"fmt"
	"strings"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// Find calls f for each readable variable below a node whose path fits the glob; see signal.Browser. The server's own Server
// object, thousands of nodes about itself, is left out unless the glob names it. With ** a node that can be reached in several
// ways is found on the first one only, so that a tree with loops comes to an end.
func (d *driver) Find(ctx context.Context, at, pattern string, f func(signal.Entry) bool) error {
	g := parseGlob(pattern)
	return d.explore(ctx, func(l *link, facts serverFacts) error {
		top, path, err := l.start(ctx, at, facts)
		if err != nil {
			return err
		}
		s := &search{link: l, facts: facts, glob: g, give: f, met: map[string]bool{top.String(): true},
			server: len(g) > 0 && matchName(g[0], "server") && !strings.ContainsAny(g[0], "*?")}
		for level := []branch{{top, path}}; len(level) > 0 && !s.stopped; {
			if level, err = s.down(ctx, level); err != nil {
				return err
			}
		}
		return s.flush(ctx)
	})
}

// search is one Find.
type search struct {
	*link
	facts serverFacts
	glob  glob
	give  func(signal.Entry) bool
	// server says that the glob asks for the Server object.
	server bool
	// met are the nodes that a glob without end has met; visited counts all.
	met     map[string]bool
	visited int
	// matches wait to be looked at together.
	matches []node
	stopped bool
}

// branch is a node to go down from.
type branch struct {
	id   *ua.NodeID
	path []browseName
}

// down looks at what stands below the nodes of one level, and returns those of the next. A node that this user may not browse
// has nothing below it: its neighbours go on.
func (s *search) down(ctx context.Context, level []branch) (next []branch, err error) {
	for len(level) > 0 && !s.stopped {
		n := min(findBatch, len(level))
		var ids []*ua.NodeID
		for _, b := range level[:n] {
			ids = append(ids, b.id)
		}
		lists, err := s.browseMany(ctx, ids, s.facts.browsesPerCall)
		if err != nil {
			return nil, err
		}
		for i, refs := range lists {
			for _, r := range refs {
				if next, err = s.meet(ctx, level[i], r, next); err != nil {
					return nil, err
				}
			}
		}
		level = level[n:]
	}
	return next, nil
}

// meet decides about one node below a branch.
func (s *search) meet(ctx context.Context, from branch, r *ua.ReferenceDescription, next []branch) ([]branch, error) {
	key := r.NodeID.NodeID.String()
	if s.glob.deep() && s.met[key] || s.aboutItself(r) {
		return next, nil
	}
	if s.glob.deep() {
		s.met[key] = true
	}
	if s.visited++; s.visited > maxVisited {
		return nil, fmt.Errorf("more than %d nodes: name more of the path, such as Plant/Press1/**", maxVisited)
	}
	here := node{ref: r, path: append(from.path[:len(from.path):len(from.path)], nameOf(r))}
	levels := splitPath(strings.ToLower(pathText(here.path)))
	if r.NodeClass == ua.NodeClassVariable && s.glob.match(levels) {
		if s.matches = append(s.matches, here); len(s.matches) >= findBatch {
			if err := s.flush(ctx); err != nil {
				return nil, err
			}
		}
	}
	if s.glob.below(levels) && (r.NodeClass == ua.NodeClassObject || r.NodeClass == ua.NodeClassVariable) {
		next = append(next, branch{r.NodeID.NodeID, here.path})
	}
	return next, nil
}

// aboutItself reports whether a node is what the server says of itself, or a property, which is no tag.
func (s *search) aboutItself(r *ua.ReferenceDescription) bool {
	n := r.NodeID.NodeID
	if n.Namespace() == 0 && n.IntID() == id.Server && !s.server {
		return true
	}
	return r.ReferenceTypeID != nil && r.ReferenceTypeID.Namespace() == 0 && r.ReferenceTypeID.IntID() == id.HasProperty
}

// flush looks at the matches so far and gives the readable ones.
func (s *search) flush(ctx context.Context) error {
	nodes := s.matches
	s.matches = nil
	if len(nodes) == 0 || s.stopped {
		return nil
	}
	entries, err := s.entries(ctx, nodes, s.facts)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Readable && !s.give(e) {
			s.stopped = true
			return nil
		}
	}
	return nil
}
