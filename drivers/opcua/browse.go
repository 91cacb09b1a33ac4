package opcua

import (
	"context"
	"fmt"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

// referencesPerCall is how many references of a node a server may put into one answer.
const referencesPerCall = 1000

// browse returns what stands below a node, page by page of the server; when enough is not 0, no more pages than give that many
// references. What the server still keeps for us then is released: small ones have a handful of places for it.
func (l *link) browse(ctx context.Context, n *ua.NodeID, enough int) ([]*ua.ReferenceDescription, error) {
	results, err := l.browseOnce(ctx, []*ua.NodeID{n})
	if err != nil {
		return nil, fmt.Errorf("browse %s: %w", n, err)
	}
	if results[0].StatusCode != ua.StatusOK {
		return nil, fmt.Errorf("browse %s: %w", n, results[0].StatusCode)
	}
	return l.rest(ctx, n, results[0], enough)
}

// browseMany is browse for several nodes, in calls that the server bears. A node that the server refuses has nothing below it;
// the error is a fault of the connection.
func (l *link) browseMany(ctx context.Context, nodes []*ua.NodeID, size int) ([][]*ua.ReferenceDescription, error) {
	var list [][]*ua.ReferenceDescription
	if size < 1 {
		size = 100
	}
	for len(list) < len(nodes) {
		n := min(size, len(nodes)-len(list))
		some := nodes[len(list) : len(list)+n]
		results, err := l.browseOnce(ctx, some)
		if tooMuch(err) && n > 1 {
			size = max(1, n/2)
			continue
		}
		if connectionFault(err) {
			return nil, fmt.Errorf("browse %d nodes: %w", n, err)
		}
		if err != nil {
			results = make([]*ua.BrowseResult, n)
		}
		for i, r := range results {
			refs, err := l.whole(ctx, some[i], r, true)
			if connectionFault(err) {
				return nil, err
			}
			list = append(list, refs)
		}
	}
	return list, nil
}

// whole is everything below one of many nodes.
func (l *link) whole(ctx context.Context, n *ua.NodeID, r *ua.BrowseResult, forward bool) ([]*ua.ReferenceDescription, error) {
	switch {
	case r == nil:
		return nil, nil
	case r.StatusCode == ua.StatusBadNoContinuationPoints && forward:
		return l.browse(ctx, n, 0) // alone it has the place that it needs
	case r.StatusCode != ua.StatusOK:
		return nil, nil
	}
	return l.rest(ctx, n, r, 0)
}

// above returns the nodes that a node stands below.
func (l *link) above(ctx context.Context, n *ua.NodeID) ([]*ua.ReferenceDescription, error) {
	results, err := l.browseTo(ctx, ua.BrowseDirectionInverse, []*ua.NodeID{n})
	if err != nil {
		return nil, fmt.Errorf("browse %s upwards: %w", n, err)
	}
	return l.whole(ctx, n, results[0], false)
}

func (l *link) browseOnce(ctx context.Context, nodes []*ua.NodeID) ([]*ua.BrowseResult, error) {
	return l.browseTo(ctx, ua.BrowseDirectionForward, nodes)
}

func (l *link) browseTo(ctx context.Context, direction ua.BrowseDirection, nodes []*ua.NodeID) ([]*ua.BrowseResult, error) {
	req := &ua.BrowseRequest{View: &ua.ViewDescription{ViewID: ua.NewTwoByteNodeID(0)}, RequestedMaxReferencesPerNode: referencesPerCall}
	for _, n := range nodes {
		req.NodesToBrowse = append(req.NodesToBrowse, &ua.BrowseDescription{NodeID: n, BrowseDirection: direction,
			ReferenceTypeID: ua.NewNumericNodeID(0, id.HierarchicalReferences), IncludeSubtypes: true,
			ResultMask: uint32(ua.BrowseResultMaskAll)})
	}
	res, err := call[*ua.BrowseResponse](ctx, l.client, callTimeout, req)
	if err != nil {
		return nil, err
	}
	if len(res.Results) != len(nodes) {
		return nil, fmt.Errorf("%d answers to %d nodes", len(res.Results), len(nodes))
	}
	return res.Results, nil
}

// rest fetches the pages behind the first.
func (l *link) rest(ctx context.Context, n *ua.NodeID, r *ua.BrowseResult, enough int) ([]*ua.ReferenceDescription, error) {
	var list []*ua.ReferenceDescription
	for {
		for _, ref := range r.References {
			if ref.NodeID != nil && ref.NodeID.NodeID != nil && ref.NodeID.ServerIndex == 0 && ref.NodeID.NamespaceURI == "" {
				list = append(list, ref)
			}
		}
		point := r.ContinuationPoint
		if len(point) == 0 {
			return list, nil
		}
		done := enough > 0 && len(list) >= enough
		next, err := call[*ua.BrowseNextResponse](ctx, l.client, callTimeout,
			&ua.BrowseNextRequest{ReleaseContinuationPoints: done, ContinuationPoints: [][]byte{point}})
		switch {
		case done:
			return list, nil // a place that could not be released ends with the session
		case err != nil:
			return nil, fmt.Errorf("browse %s further: %w", n, err)
		case len(next.Results) != 1:
			return nil, fmt.Errorf("browse %s further: %d answers", n, len(next.Results))
		case next.Results[0].StatusCode != ua.StatusOK:
			return nil, fmt.Errorf("browse %s further: %w", n, next.Results[0].StatusCode)
		case len(next.Results[0].References) == 0 && len(next.Results[0].ContinuationPoint) > 0:
			return nil, fmt.Errorf("browse %s further: the server promises more and gives nothing", n)
		}
		r = next.Results[0]
	}
}
