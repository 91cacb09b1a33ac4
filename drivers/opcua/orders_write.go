package opcua

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gopcua/opcua/ua"
	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// blockMachine is a machine that takes orders from nodes: the block is written and read back, then a strobe counts up, then
// the machine echoes it. What stands in the block is read first: it tells whether the machine has the order already.
type blockMachine struct {
	*orders
	block *OrderBlock
	turn  chan struct{}
}

func (m *blockMachine) name() string   { return m.block.Nodes["order_no"] }
func (m *blockMachine) center() string { return m.block.WorkCenter }

// follow has nothing to do: such a machine tells its states by tags, which rules read.
func (m *blockMachine) follow(context.Context, signal.Emit) {}

func (m *blockMachine) deliver(ctx context.Context, o signal.WorkOrder) error {
	release, err := turn(ctx, m.turn)
	if err != nil {
		return err
	}
	defer release()
	e := m.journal.get(m.name(), o.OrderNo)
	if e.Done >= o.Revision {
		return nil
	}
	if o.Held {
		return refuse("machine %q cannot be told to hold an order: hold it by hand", m.center())
	}
	if o.Cancelled && m.block.Nodes["cancelled"] == "" {
		return refuse("machine %q cannot be told that an order is cancelled: it has no node for that (write cancelled: in nodes:)", m.center())
	}
	l, err := m.session(ctx)
	if err != nil {
		return err
	}
	b, err := m.read(ctx, l)
	if err != nil {
		return err
	}
	if err := m.others(b, o); err != nil {
		return err
	}
	want, err := b.values(o)
	if err != nil {
		return err
	}
	if !b.holds(want) || m.block.Strobe != "" && (e.Tried < o.Revision || b.strobe() != e.Strobe) {
		if err := m.write(ctx, l, b, want, o, &e); err != nil {
			return err
		}
	}
	if err := m.awaitEcho(ctx, l, &e); err != nil {
		return err
	}
	e.Done, e.Open = o.Revision, time.Time{}
	return m.journal.put(e)
}

// others looks after an order whose echo has not come: the block belongs to it until then, or to its own next revision.
func (m *blockMachine) others(b *blockState, o signal.WorkOrder) error {
	for _, e := range m.journal.of(m.name(), func(e *entry) bool { return e.Order != o.OrderNo && !e.Open.IsZero() }) {
		taken := m.block.Echo == "" || b.strobe() == e.Strobe && b.echo() == e.Strobe
		if m.block.Strobe != "" && b.strobe() != e.Strobe {
			continue // it was never offered, and will be offered anew
		}
		if !taken {
			return fmt.Errorf("the machine has not taken order %q yet, which stands in its nodes: order %q waits", e.Order, o.OrderNo)
		}
		e.Done, e.Open = e.Tried, time.Time{}
		if err := m.journal.put(e); err != nil {
			return err
		}
	}
	return nil
}

// blockState is what stands in a machine's nodes.
type blockState struct {
	fields []string
	nodes  map[string]*ua.NodeID
	now    map[string]*ua.Variant
}

func (b *blockState) strobe() uint64 { return strobeOf(b.now["strobe"]) }
func (b *blockState) echo() uint64   { return strobeOf(b.now["echo"]) }

func strobeOf(v *ua.Variant) uint64 {
	if v == nil {
		return 0
	}
	n, _ := strconv.ParseUint(fmt.Sprint(v.Value()), 10, 64)
	return n
}

// read reads the block, the strobe and the echo.
func (m *blockMachine) read(ctx context.Context, l *live) (*blockState, error) {
	names := maps.Clone(m.block.Nodes)
	if m.block.Strobe != "" {
		names["strobe"] = m.block.Strobe
	}
	if m.block.Echo != "" {
		names["echo"] = m.block.Echo
	}
	b := &blockState{nodes: map[string]*ua.NodeID{}, now: map[string]*ua.Variant{}}
	var ask []*ua.ReadValueID
	for _, field := range slices.Sorted(maps.Keys(names)) {
		n, err := parseNode(names[field])
		if err != nil {
			return nil, err
		}
		if b.nodes[field], err = n.resolve(l.facts.namespaces); err != nil {
			return nil, err
		}
		b.fields = append(b.fields, field)
		ask = append(ask, &ua.ReadValueID{NodeID: b.nodes[field], AttributeID: ua.AttributeIDValue, DataEncoding: &ua.QualifiedName{}})
	}
	ctx, cancel := context.WithTimeout(ctx, m.pace.call)
	defer cancel()
	values, err := l.read(ctx, ask, 0)
	if err != nil {
		return nil, fmt.Errorf("read the machine's nodes: %w", err)
	}
	for i, field := range b.fields {
		if quality(values[i].Status) == signal.Bad || values[i].Value == nil {
			return nil, fmt.Errorf("read the machine's node for %s (%s): %s", field, names[field], statusName(values[i].Status))
		}
		b.now[field] = values[i].Value
	}
	return b, nil
}

// values are the order's fields in the types that the nodes have.
func (b *blockState) values(o signal.WorkOrder) (map[string]*ua.Variant, error) {
	text := map[string]string{
		"order_no": o.OrderNo, "revision": strconv.FormatInt(o.Revision, 10), "cancelled": strconv.FormatBool(o.Cancelled), "item": o.Item,
		"description": o.Description, "quantity": string(o.Quantity), "unit": o.Unit, "priority": strconv.Itoa(int(o.Priority)), "lot": o.Lot,
		"work_center": centerOf(o), "planned_start": stamp(o.PlannedStart), "planned_end": stamp(o.PlannedEnd),
	}
	if len(o.Operations) > 0 {
		text["operation"] = o.Operations[0].Operation
	}
	want := map[string]*ua.Variant{}
	for _, field := range b.fields {
		if field == "strobe" || field == "echo" {
			continue
		}
		v, err := coerce(text[field], b.now[field].Type())
		if err != nil {
			return nil, refuse("%s %q does not fit into the machine's node: %v", field, text[field], err)
		}
		want[field] = v
	}
	return want, nil
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// coerce makes a text a value of a type, exactly or not at all.
func coerce(s string, t ua.TypeID) (*ua.Variant, error) {
	if n, ok := integers[t]; ok {
		d, err := decimalOf(s)
		if err != nil {
			return nil, err
		}
		if !d.IsInteger() {
			return nil, fmt.Errorf("the node takes whole numbers only")
		}
		return n(d.String())
	}
	switch t {
	case ua.TypeIDString:
		return ua.NewVariant(s)
	case ua.TypeIDLocalizedText:
		return ua.NewVariant(ua.NewLocalizedText(s))
	case ua.TypeIDBoolean:
		v, err := strconv.ParseBool(s)
		if err != nil {
			return nil, fmt.Errorf("it is not true or false")
		}
		return ua.NewVariant(v)
	case ua.TypeIDDateTime:
		if s == "" {
			return ua.NewVariant(time.Time{})
		}
		v, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			return nil, fmt.Errorf("it is not a time")
		}
		return ua.NewVariant(v.Truncate(time.Millisecond))
	case ua.TypeIDFloat:
		return float(s, 32)
	case ua.TypeIDDouble:
		return float(s, 64)
	}
	return nil, fmt.Errorf("the node's type %d cannot be written", t)
}

func decimalOf(s string) (decimal.Decimal, error) {
	if s == "" {
		return decimal.Zero, nil
	}
	d, err := decimal.NewFromString(s)
	if err != nil {
		return d, fmt.Errorf("it is not a number")
	}
	return d, nil
}

var integers = map[ua.TypeID]func(s string) (*ua.Variant, error){
	ua.TypeIDSByte: signed(8, func(n int64) any { return int8(n) }), ua.TypeIDInt16: signed(16, func(n int64) any { return int16(n) }),
	ua.TypeIDInt32: signed(32, func(n int64) any { return int32(n) }), ua.TypeIDInt64: signed(64, func(n int64) any { return n }),
	ua.TypeIDByte: unsigned(8, func(n uint64) any { return uint8(n) }), ua.TypeIDUint16: unsigned(16, func(n uint64) any { return uint16(n) }),
	ua.TypeIDUint32: unsigned(32, func(n uint64) any { return uint32(n) }), ua.TypeIDUint64: unsigned(64, func(n uint64) any { return n }),
}

func signed(bits int, as func(int64) any) func(string) (*ua.Variant, error) {
	return func(s string) (*ua.Variant, error) {
		n, err := strconv.ParseInt(s, 10, bits)
		if err != nil {
			return nil, fmt.Errorf("the node takes %d to %d", int64(-1)<<(bits-1), int64(1)<<(bits-1)-1)
		}
		return ua.NewVariant(as(n))
	}
}

func unsigned(bits int, as func(uint64) any) func(string) (*ua.Variant, error) {
	return func(s string) (*ua.Variant, error) {
		n, err := strconv.ParseUint(s, 10, bits)
		if err != nil {
			return nil, fmt.Errorf("the node takes 0 to %d", uint64(1)<<bits-1)
		}
		return ua.NewVariant(as(n))
	}
}

// float takes a decimal that the node shows as it was written.
func float(s string, bits int) (*ua.Variant, error) {
	d, err := decimalOf(s)
	if err != nil {
		return nil, err
	}
	f, err := strconv.ParseFloat(d.String(), bits)
	if err != nil {
		return nil, fmt.Errorf("it is out of the node's range")
	}
	back, err := decimal.NewFromString(strconv.FormatFloat(f, 'f', -1, bits))
	if err != nil || !back.Equal(d) {
		return nil, fmt.Errorf("the node has too few digits for it")
	}
	if bits == 32 {
		return ua.NewVariant(float32(f))
	}
	return ua.NewVariant(f)
}

// holds reports whether the block has exactly these values.
func (b *blockState) holds(want map[string]*ua.Variant) bool {
	for field, v := range want {
		if !equalValue(v, b.now[field]) {
			return false
		}
	}
	return true
}

func equalValue(a, b *ua.Variant) bool {
	if b == nil || a.Type() != b.Type() {
		return false
	}
	switch x := a.Value().(type) {
	case time.Time:
		y, _ := b.Value().(time.Time)
		return x.Equal(y) || x.IsZero() && y.Unix() <= 0
	case *ua.LocalizedText:
		y, _ := b.Value().(*ua.LocalizedText)
		return y != nil && x.Text == y.Text
	}
	return a.Value() == b.Value()
}

// write writes the block, reads it back, and strobes.
func (m *blockMachine) write(ctx context.Context, l *live, b *blockState, want map[string]*ua.Variant, o signal.WorkOrder, e *entry) error {
	next, err := m.nextStrobe(b)
	if err != nil {
		return err
	}
	e.Tried, e.Strobe, e.Open = o.Revision, strobeOf(next), time.Now().UTC()
	if err := m.journal.put(*e); err != nil {
		return err
	}
	if err := m.put(ctx, l, b, want); err != nil {
		return err
	}
	back, err := m.read(ctx, l)
	if err != nil {
		return err
	}
	for field, v := range want {
		if !equalValue(v, back.now[field]) {
			return fmt.Errorf("the machine shows %v for %s where %v was written", back.now[field].Value(), field, v.Value())
		}
	}
	if next == nil {
		return nil
	}
	return m.put(ctx, l, b, map[string]*ua.Variant{"strobe": next})
}

// nextStrobe counts up, over the end of the node's type to 1: 0 is a machine that has just been switched on.
func (m *blockMachine) nextStrobe(b *blockState) (*ua.Variant, error) {
	if m.block.Strobe == "" {
		return nil, nil
	}
	t := b.now["strobe"].Type()
	if _, ok := integers[t]; !ok {
		return nil, refuse("the strobe %s is no whole number", m.block.Strobe)
	}
	for _, n := range []uint64{b.strobe() + 1, 1} {
		if v, err := coerce(strconv.FormatUint(n, 10), t); err == nil && n > 0 {
			return v, nil
		}
	}
	return nil, refuse("the strobe %s cannot count", m.block.Strobe)
}

func (m *blockMachine) put(ctx context.Context, l *live, b *blockState, values map[string]*ua.Variant) error {
	fields := slices.Sorted(maps.Keys(values))
	var list []*ua.WriteValue
	for _, field := range fields {
		list = append(list, &ua.WriteValue{NodeID: b.nodes[field], AttributeID: ua.AttributeIDValue,
			Value: &ua.DataValue{EncodingMask: ua.DataValueValue, Value: values[field]}})
	}
	ctx, cancel := context.WithTimeout(ctx, m.pace.call)
	defer cancel()
	status, err := l.write(ctx, list)
	if err != nil {
		return fmt.Errorf("write the machine's nodes: %w", err)
	}
	var bad []string
	for i, s := range status {
		if quality(s) == signal.Bad {
			bad = append(bad, fields[i]+": "+statusName(s))
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("the machine does not let its nodes be written: %s", strings.Join(bad, ", "))
	}
	return nil
}

// awaitEcho waits until the machine has taken the order.
func (m *blockMachine) awaitEcho(ctx context.Context, l *live, e *entry) error {
	if m.block.Echo == "" {
		return nil
	}
	end := time.Now().Add(m.block.Within)
	for {
		b, err := m.read(ctx, l)
		if err != nil {
			return err
		}
		switch {
		case b.echo() == e.Strobe:
			return nil
		case b.strobe() != e.Strobe:
			return fmt.Errorf("somebody else has written the strobe %s: it is %d and was %d", m.block.Strobe, b.strobe(), e.Strobe)
		case time.Now().After(end):
			return fmt.Errorf("the machine has not echoed %d within %s: %s shows %d", e.Strobe, m.block.Within, m.block.Echo, b.echo())
		}
		if !pause(ctx, min(50*time.Millisecond, m.block.Within/4)) {
			return ctx.Err()
		}
	}
}
