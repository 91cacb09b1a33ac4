package opcua

import (
	"context"
	"fmt"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

// referencesPerCall is how many references a server may put into one answer.
const referencesPerCall = 1000

// browse returns what stands below a node, page by page of the server; at most enough references when that is not 0. What the
// server still keeps for us then is released: small ones have a handful of places for it.
func (l *link) browse(ctx context.Context, n *ua.NodeID, enough int) ([]*ua.ReferenceDescription, error) {
	res, err := call[*ua.BrowseResponse](ctx, l.client, callTimeout, &ua.BrowseRequest{
		View:                          &ua.ViewDescription{ViewID: ua.NewTwoByteNodeID(0)},
		RequestedMaxReferencesPerNode: referencesPerCall,
		NodesToBrowse: []*ua.BrowseDescription{{NodeID: n, BrowseDirection: ua.BrowseDirectionForward,
			ReferenceTypeID: ua.NewNumericNodeID(0, id.HierarchicalReferences), IncludeSubtypes: true,
			ResultMask: uint32(ua.BrowseResultMaskAll)}}})
	if err != nil {
		return nil, fmt.Errorf("browse %s: %w", n, err)
	}
	var list []*ua.ReferenceDescription
	results := res.Results
	for {
		if len(results) != 1 {
			return nil, fmt.Errorf("browse %s: %d answers", n, len(results))
		}
		if results[0].StatusCode != ua.StatusOK {
			return nil, fmt.Errorf("browse %s: %w", n, results[0].StatusCode)
		}
		for _, r := range results[0].References {
			if r.NodeID != nil && r.NodeID.NodeID != nil && r.NodeID.ServerIndex == 0 && r.NodeID.NamespaceURI == "" {
				list = append(list, r)
			}
		}
		point := results[0].ContinuationPoint
		if len(point) == 0 {
			return list, nil
		}
		done := enough > 0 && len(list) >= enough
		next, err := call[*ua.BrowseNextResponse](ctx, l.client, callTimeout,
			&ua.BrowseNextRequest{ReleaseContinuationPoints: done, ContinuationPoints: [][]byte{point}})
		if done {
			return list, nil // a point that could not be released ends with the session
		}
		if err != nil {
			return nil, fmt.Errorf("browse %s: %w", n, err)
		}
		results = next.Results
	}
}
