package opcua

import (
	"context"
	"errors"
	"fmt"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// nodes reads each configured node once.
func (p *prober) nodes(ctx context.Context) bool {
	const name = "the nodes can be read"
	if err := p.locate(ctx, p.link, p.facts, nil); err != nil {
		return p.fail(name, err)
	}
	var ids []*ua.NodeID
	var at []int
	steps := make([]signal.Step, len(p.config.Nodes))
	for i, n := range p.config.Nodes {
		id, err := p.resolve(n, p.facts.namespaces)
		if err != nil {
			steps[i] = p.badNode(n, err.Error())
			continue
		}
		ids, at = append(ids, id), append(at, i)
	}
	looks, err := p.link.look(ctx, ids, p.facts)
	if err != nil {
		return p.fail(name, err)
	}
	good := 0
	for k, i := range at {
		n := p.config.Nodes[i]
		if why := looks[k].refusal(); why != "" {
			steps[i] = p.badNode(n, why)
			continue
		}
		good++
		steps[i] = signal.Step{Name: fmt.Sprintf("tag %q can be read", n.Tag), Detail: looks[k].text()}
	}
	for _, s := range steps {
		if s.Problem != nil || len(steps) <= manyNodes {
			p.steps = append(p.steps, s)
		}
	}
	if len(steps) > manyNodes && good > 0 {
		p.ok(name, fmt.Sprintf("%d of %d", good, len(steps)))
	}
	return true
}

func (p *prober) badNode(n Node, why string) signal.Step {
	if n.Node != "" {
		why = fmt.Sprintf("node %q: %s", n.Node, why)
	}
	return signal.Step{Name: fmt.Sprintf("tag %q can be read", n.Tag), Problem: &signal.Problem{
		Code: "bad_node", Item: n.Tag, Reason: "the server does not give " + why,
		NextStep: fmt.Sprintf("look for it with `plantagent browse %s`, or ask for the user's right to read it", p.env.Source)}}
}

// glance is one look at a node: its value, and what may be done with it.
type glance struct {
	value  dataValue
	access byte
	typ    *ua.NodeID
	rank   int32
}

// lookAt are the attributes of a glance, in their order.
var lookAt = []ua.AttributeID{ua.AttributeIDValue, ua.AttributeIDUserAccessLevel, ua.AttributeIDDataType, ua.AttributeIDValueRank}

// look reads nodes once. What is wrong with one node stands in its status; the error is a fault of the connection.
func (l *link) look(ctx context.Context, nodes []*ua.NodeID, facts serverFacts) ([]glance, error) {
	var asked []*ua.ReadValueID
	for _, n := range nodes {
		for _, a := range lookAt {
			asked = append(asked, &ua.ReadValueID{NodeID: n, AttributeID: a, DataEncoding: &ua.QualifiedName{}})
		}
	}
	values, err := l.values(ctx, asked, facts.readsPerCall)
	if err != nil {
		return nil, err
	}
	list := make([]glance, len(nodes))
	for i := range list {
		v := values[i*len(lookAt):]
		g := glance{value: v[0], access: byte(smallInt(v[1])), rank: int32(smallInt(v[3]))}
		if v[1].status != ua.StatusOK {
			g.access = 1 // a server without rights of users lets everybody read
		}
		if text, ok := v[2].value.(string); ok {
			g.typ, _ = ua.ParseNodeID(text)
		}
		list[i] = g
	}
	return list, nil
}

// smallInt is a value that is a small whole number, 0 when it is none.
func smallInt(d dataValue) int64 {
	n, ok := d.value.(signal.Number)
	if !ok {
		return 0
	}
	i, err := n.Int64()
	if err != nil {
		return 0
	}
	return i
}

// values reads attributes, at most size in one call and fewer where the server finds that too many.
func (l *link) values(ctx context.Context, nodes []*ua.ReadValueID, size int) ([]dataValue, error) {
	list := make([]dataValue, 0, len(nodes))
	if size < 1 {
		size = max(1, len(nodes))
	}
	for len(list) < len(nodes) {
		n := min(size, len(nodes)-len(list))
		got, err := l.valuesOnce(ctx, nodes[len(list):len(list)+n])
		if (tooMuch(err) || isBadBytes(err)) && n > 1 {
			size = max(1, n/2) // one value that makes no sense must not hide its neighbours
			continue
		}
		if isBadBytes(err) {
			got, err = []dataValue{{status: ua.StatusBadDecodingError}}, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read %d attributes: %w", n, err)
		}
		list = append(list, got...)
	}
	return list, nil
}

func (l *link) valuesOnce(ctx context.Context, nodes []*ua.ReadValueID) ([]dataValue, error) {
	res, err := call[*late](ctx, l.client, callTimeout, &ua.ReadRequest{TimestampsToReturn: ua.TimestampsToReturnBoth, NodesToRead: nodes})
	if err != nil {
		return nil, err
	}
	w := &wire{b: res.body}
	list := w.readResults()
	if w.err != nil {
		return nil, w.err
	}
	if len(list) != len(nodes) {
		return nil, errors.New("the number of answers is another")
	}
	return list, nil
}

// refusal says why a node gives no value, empty when it does. A value of bad quality is one: the node is there.
func (g glance) refusal() string {
	switch ua.StatusCode(uint32(g.value.status) & nameMask) {
	case ua.StatusBadNodeIDUnknown, ua.StatusBadNodeIDInvalid:
		return "it does not know the node (" + statusName(g.value.status) + ")"
	case ua.StatusBadAttributeIDInvalid:
		return "it is no variable (" + statusName(g.value.status) + ")"
	case ua.StatusBadNotReadable, ua.StatusBadUserAccessDenied:
		return "the user may not read it (" + statusName(g.value.status) + ")"
	}
	if g.access&1 == 0 {
		return "the user may not read it"
	}
	return ""
}

// text is the value for people, with its type and status.
func (g glance) text() string {
	var s signal.Signal
	fill(&s, &g.value)
	text := s.Status
	if s.Value != nil {
		text = shortText(s.Value)
	}
	if name := g.typeName(); name != "" {
		text += ", " + name
	}
	if s.Value != nil && s.Quality != signal.Good {
		text += ", " + s.Status
	}
	return text
}

// shortText is a value in a few words.
func shortText(v any) string {
	text := oneLine(fmt.Sprint(v))
	if b, ok := v.([]byte); ok {
		text = fmt.Sprintf("%d bytes", len(b))
	}
	if r := []rune(text); len(r) > 60 {
		return string(r[:57]) + "..."
	}
	return text
}

// standardTypes are the specification's data types that variables of machines have. The library's table of all names costs each
// agent a megabyte.
var standardTypes = map[uint32]string{
	id.Boolean: "Boolean", id.SByte: "SByte", id.Byte: "Byte", id.Int16: "Int16", id.UInt16: "UInt16", id.Int32: "Int32", id.UInt32: "UInt32",
	id.Int64: "Int64", id.UInt64: "UInt64", id.Float: "Float", id.Double: "Double", id.String: "String", id.DateTime: "DateTime", id.GUID: "Guid",
	id.ByteString: "ByteString", id.XMLElement: "XmlElement", id.NodeID: "NodeId", id.ExpandedNodeID: "ExpandedNodeId",
	id.StatusCode: "StatusCode", id.QualifiedName: "QualifiedName", id.LocalizedText: "LocalizedText", id.Structure: "Structure",
	id.DataValue: "DataValue", id.BaseDataType: "BaseDataType", id.Number: "Number", id.Integer: "Integer", id.UInteger: "UInteger",
	id.Enumeration: "Enumeration", id.Duration: "Duration", id.UtcTime: "UtcTime", id.LocaleID: "LocaleId", id.Range: "Range",
	id.EUInformation: "EUInformation", id.ServerStatusDataType: "ServerStatusDataType", id.ServerState: "ServerState", id.Argument: "Argument",
}

// typeName is the data type's standard name, or its id.
func (g glance) typeName() string {
	if g.typ == nil || g.typ.IntID() == 0 && g.typ.Namespace() == 0 {
		return ""
	}
	name := g.typ.String()
	if known := standardTypes[g.typ.IntID()]; known != "" && g.typ.Namespace() == 0 {
		name = known
	}
	if g.rank >= 1 {
		name += "[]"
	}
	return name
}
