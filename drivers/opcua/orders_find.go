package opcua

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"github.com/linekeeper/linekeeper/drivers/opcua/jobcontrol"
)

// The walk that looks for receivers ends at these bounds: a receiver beyond them has to be named.
const (
	findNodes = 20_000
	findDepth = 10
)

// spot is a receiver in one session: the nodes it is reached by there.
type spot struct {
	object, list *ua.NodeID
	methods      map[string]*ua.NodeID
	// order is the encoding that an order is sent with.
	order *ua.NodeID
	// provider answers how a job went; nil where the machine has none.
	provider, response *ua.NodeID
}

// is reports whether a node is the receiver or its response provider: events come from either.
func (s *spot) is(node string) bool {
	return node == s.object.String() || s.provider != nil && node == s.provider.String()
}

// unusable is a receiver that is not as it should be; trying again soon does not help.
type unusable struct{ reason, nextStep string }

func (e *unusable) Error() string { return e.reason + " (" + e.nextStep + ")" }

// children browses a node's references of a kind and its subtypes, all pages.
func (l *live) children(ctx context.Context, node *ua.NodeID, reference uint32, classes ua.NodeClass) ([]*ua.ReferenceDescription, error) {
	res, err := call[*ua.BrowseResponse](ctx, l.client, callTimeout, &ua.BrowseRequest{View: &ua.ViewDescription{ViewID: ua.NewTwoByteNodeID(0)},
		NodesToBrowse: []*ua.BrowseDescription{{NodeID: node, BrowseDirection: ua.BrowseDirectionForward, IncludeSubtypes: true,
			ReferenceTypeID: ua.NewNumericNodeID(0, reference), NodeClassMask: uint32(classes), ResultMask: uint32(ua.BrowseResultMaskAll)}}})
	if err != nil {
		return nil, fmt.Errorf("browse %s: %w", node, err)
	}
	var list []*ua.ReferenceDescription
	for {
		if len(res.Results) != 1 {
			return nil, fmt.Errorf("browse %s: %d answers", node, len(res.Results))
		}
		r := res.Results[0]
		if r.StatusCode != ua.StatusOK {
			return nil, fmt.Errorf("browse %s: %w", node, r.StatusCode)
		}
		list = append(list, r.References...)
		if len(r.ContinuationPoint) == 0 {
			return list, nil
		}
		next, err := call[*ua.BrowseNextResponse](ctx, l.client, callTimeout,
			&ua.BrowseNextRequest{ContinuationPoints: [][]byte{r.ContinuationPoint}})
		if err != nil {
			return nil, fmt.Errorf("browse %s: %w", node, err)
		}
		res = &ua.BrowseResponse{Results: next.Results}
	}
}

// controlNamespace is the index of the job control's types.
func (l *live) controlNamespace() (uint16, error) {
	for i, uri := range l.facts.namespaces {
		if uri == jobcontrol.Namespace {
			return uint16(i), nil
		}
	}
	for _, uri := range l.facts.namespaces {
		if strings.TrimSuffix(uri, "/") == jobcontrol.NamespaceV1 {
			return 0, &unusable{"the server speaks version 1 of ISA-95 Job Control (a method ReceiveJobOrder), the agent version 2",
				"ask the machine's maker for version 2, or use write: in its place"}
		}
	}
	return 0, &unusable{"the server has no ISA-95 Job Control: its namespaces are " + strings.Join(l.facts.namespaces, ", "),
		"switch job control on in the server, or use write: in its place"}
}

// found is what a walk finds.
type found struct{ receivers, providers []*ua.NodeID }

// findReceivers walks the server's objects.
func (l *live) findReceivers(ctx context.Context, ns uint16) (found, error) {
	var f found
	seen := map[string]bool{}
	level := []*ua.NodeID{ua.NewNumericNodeID(0, id.ObjectsFolder)}
	for depth := 0; depth < findDepth && len(level) > 0; depth++ {
		var next []*ua.NodeID
		for _, n := range level {
			refs, err := l.children(ctx, n, id.HierarchicalReferences, ua.NodeClassObject)
			if err != nil {
				if ctx.Err() != nil || connectionFault(err) {
					return f, err
				}
				continue // a node that may not be browsed hides no other
			}
			for _, r := range refs {
				node := r.NodeID.NodeID
				if seen[node.String()] || len(seen) > findNodes || node.Namespace() == 0 {
					continue
				}
				seen[node.String()] = true
				switch t := r.TypeDefinition.NodeID; {
				case isType(t, ns, jobcontrol.ReceiverType, jobcontrol.ReceiverSubStatesType):
					f.receivers = append(f.receivers, node)
				case isType(t, ns, jobcontrol.ResponseProviderType):
					f.providers = append(f.providers, node)
				default:
					next = append(next, node)
				}
			}
		}
		level = next
	}
	return f, nil
}

func isType(t *ua.NodeID, ns uint16, types ...uint32) bool {
	return t != nil && t.Namespace() == ns && t.Type() != ua.NodeIDTypeString && slices.Contains(types, t.IntID())
}

// locate finds a receiver's nodes in this session. name is a node or "auto".
func (l *live) locate(ctx context.Context, name string) (*spot, error) {
	ns, err := l.controlNamespace()
	if err != nil {
		return nil, err
	}
	s := &spot{methods: map[string]*ua.NodeID{}, order: ua.NewNumericNodeID(ns, jobcontrol.OrderEncoding)}
	if name == autoReceiver {
		f, err := l.findReceivers(ctx, ns)
		if err != nil {
			return nil, fmt.Errorf("look for the job order receiver: %w", err)
		}
		if s.object, err = only(f.receivers); err != nil {
			return nil, err
		}
		if len(f.providers) == 1 {
			s.provider = f.providers[0]
		}
	} else {
		n, err := parseNode(name)
		if err != nil {
			return nil, err
		}
		if s.object, err = n.resolve(l.facts.namespaces); err != nil {
			return nil, &unusable{err.Error(), "correct the receiver's node"}
		}
	}
	if err := l.members(ctx, ns, s); err != nil {
		return nil, err
	}
	keepBytesOf(ua.NewNumericNodeID(ns, jobcontrol.OrderAndStateEncoding))
	keepBytesOf(ua.NewNumericNodeID(ns, jobcontrol.ResponseEncoding))
	return s, l.findProvider(ctx, ns, s)
}

func only(nodes []*ua.NodeID) (*ua.NodeID, error) {
	switch len(nodes) {
	case 0:
		return nil, &unusable{"the server has the types of ISA-95 Job Control and no receiver of job orders", "name the receiver's node in receiver:"}
	case 1:
		return nodes[0], nil
	}
	var names []string
	for _, n := range nodes {
		names = append(names, n.String())
	}
	return nil, &unusable{fmt.Sprintf("the server has %d receivers of job orders: %s", len(nodes), strings.Join(names, ", ")),
		"list them in receivers: with their work centres"}
}

// members finds a receiver's methods and its list.
func (l *live) members(ctx context.Context, ns uint16, s *spot) error {
	refs, err := l.children(ctx, s.object, id.HasComponent, ua.NodeClassMethod|ua.NodeClassVariable)
	if err != nil {
		return fmt.Errorf("look at the receiver: %w", err)
	}
	for _, r := range refs {
		switch {
		case r.BrowseName == nil:
		case r.NodeClass == ua.NodeClassMethod:
			s.methods[r.BrowseName.Name] = r.NodeID.NodeID
		case r.BrowseName.Name == "JobOrderList":
			s.list = r.NodeID.NodeID
		}
	}
	if s.list == nil || s.methods["Store"] == nil && s.methods["StoreAndStart"] == nil {
		return &unusable{fmt.Sprintf("node %s is no receiver of job orders: it has no JobOrderList or no method Store", s.object),
			"name an object of type ISA95JobOrderReceiverObjectType"}
	}
	return nil
}

// findProvider looks for the response provider beside a receiver that was named.
func (l *live) findProvider(ctx context.Context, ns uint16, s *spot) error {
	if s.provider == nil {
		parents, err := l.parents(ctx, s.object)
		if err != nil {
			return err
		}
		for _, p := range parents {
			refs, err := l.children(ctx, p, id.HierarchicalReferences, ua.NodeClassObject)
			if err != nil {
				return err
			}
			for _, r := range refs {
				if isType(r.TypeDefinition.NodeID, ns, jobcontrol.ResponseProviderType) {
					s.provider = r.NodeID.NodeID
				}
			}
		}
	}
	if s.provider == nil {
		return nil
	}
	refs, err := l.children(ctx, s.provider, id.HasComponent, ua.NodeClassMethod)
	if err != nil {
		return fmt.Errorf("look at the response provider: %w", err)
	}
	for _, r := range refs {
		if r.BrowseName != nil && r.BrowseName.Name == "RequestJobResponseByJobOrderID" {
			s.response = r.NodeID.NodeID
		}
	}
	return nil
}

func (l *live) parents(ctx context.Context, node *ua.NodeID) (list []*ua.NodeID, err error) {
	res, err := call[*ua.BrowseResponse](ctx, l.client, callTimeout, &ua.BrowseRequest{View: &ua.ViewDescription{ViewID: ua.NewTwoByteNodeID(0)},
		NodesToBrowse: []*ua.BrowseDescription{{NodeID: node, BrowseDirection: ua.BrowseDirectionInverse, IncludeSubtypes: true,
			ReferenceTypeID: ua.NewNumericNodeID(0, id.HierarchicalReferences), ResultMask: uint32(ua.BrowseResultMaskAll)}}})
	if err != nil {
		return nil, fmt.Errorf("browse what is around %s: %w", node, err)
	}
	for _, r := range res.Results {
		for _, ref := range r.References {
			list = append(list, ref.NodeID.NodeID)
		}
	}
	return list, nil
}
