package payload

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// Bounds of a message: a few bytes on the wire become a few hundred in memory.
const (
	maxParts = 100_000 // metrics, properties, cells and parameters together
	maxDepth = 12      // templates and property sets in one another
)

var (
	errParts = fmt.Errorf("the message has more than %d parts", maxParts)
	errDepth = fmt.Errorf("templates or properties stand more than %d levels deep", maxDepth)
)

// Decode reads a message. Its error means that nothing in it can be read; a metric that cannot be read by itself has a Fault.
// The result points into b.
func Decode(b []byte) (Payload, error) {
	var p Payload
	d := &decoder{}
	err := d.fields(b, func(n protowire.Number, f field) error {
		switch n {
		case 1:
			return f.number(&p.Timestamp)
		case 2:
			m, err := d.metricOrFault(f)
			p.Metrics = append(p.Metrics, m)
			return err
		case 3:
			p.HasSeq = true
			return f.number(&p.Seq)
		case 4:
			return f.text(&p.UUID)
		case 5:
			return f.bytes(&p.Body)
		}
		return nil
	})
	return p, err
}

// metricOrFault keeps a fault inside of its metric, unless it is one of the whole message.
func (d *decoder) metricOrFault(f field) (Metric, error) {
	if err := d.part(); err != nil {
		return Metric{}, err
	}
	var whole []byte
	if err := f.bytes(&whole); err != nil {
		return Metric{}, err
	}
	m, err := d.metric(whole, 0)
	if err != nil && !errors.Is(err, errParts) {
		m.Fault, err = err, nil
	}
	m.Bytes = whole
	return m, err
}

// decoder counts the parts of one message.
type decoder struct{ parts int }

func (d *decoder) part() error {
	if d.parts++; d.parts > maxParts {
		return errParts
	}
	return nil
}

// field is the content of one field.
type field struct {
	wire protowire.Type
	num  uint64
	raw  []byte
}

var errWire = errors.New("a field is written in another way than the format says")

func (f field) number(into *uint64) error {
	if f.wire != protowire.VarintType {
		return errWire
	}
	*into = f.num
	return nil
}

func (f field) flag(into *bool) error {
	if f.wire != protowire.VarintType {
		return errWire
	}
	*into = f.num != 0
	return nil
}

func (f field) bytes(into *[]byte) error {
	if f.wire != protowire.BytesType {
		return errWire
	}
	*into = f.raw
	return nil
}

func (f field) text(into *string) error {
	if f.wire != protowire.BytesType {
		return errWire
	}
	*into = string(f.raw)
	return nil
}

func (f field) kind(into *Type) error {
	if f.wire != protowire.VarintType {
		return errWire
	}
	*into = Type(uint32(f.num))
	return nil
}

// fields calls each for every field of a message.
func (d *decoder) fields(b []byte, each func(protowire.Number, field) error) error {
	for at := 0; at < len(b); {
		n, wire, size := protowire.ConsumeTag(b[at:])
		if size < 0 {
			return fmt.Errorf("not a Sparkplug message at byte %d: %w", at, protowire.ParseError(size))
		}
		start := at + size
		f := field{wire: wire}
		switch wire {
		case protowire.VarintType:
			f.num, size = protowire.ConsumeVarint(b[start:])
		case protowire.Fixed32Type:
			var v uint32
			v, size = protowire.ConsumeFixed32(b[start:])
			f.num = uint64(v)
		case protowire.Fixed64Type:
			f.num, size = protowire.ConsumeFixed64(b[start:])
		case protowire.BytesType:
			f.raw, size = protowire.ConsumeBytes(b[start:])
		default:
			size = protowire.ConsumeFieldValue(n, wire, b[start:])
		}
		if size < 0 {
			return fmt.Errorf("not a Sparkplug message at byte %d, field %d: %w", start, n, protowire.ParseError(size))
		}
		if err := each(n, f); err != nil {
			if errors.Is(err, errWire) {
				return fmt.Errorf("not a Sparkplug message at byte %d: field %d: %w", start, n, errWire)
			}
			return err
		}
		at = start + size
	}
	return nil
}

// metric reads one metric.
func (d *decoder) metric(b []byte, depth int) (Metric, error) {
	var m Metric
	if depth > maxDepth {
		return m, errDepth
	}
	err := d.fields(b, func(n protowire.Number, f field) (err error) {
		switch n {
		case 1:
			return f.text(&m.Name)
		case 2:
			m.HasAlias = true
			return f.number(&m.Alias)
		case 3:
			return f.number(&m.Timestamp)
		case 4:
			return f.kind(&m.Type)
		case 5:
			return f.flag(&m.Historical)
		case 6:
			return f.flag(&m.Transient)
		case 7:
			return f.flag(&m.Null)
		case 8:
			m.Meta, err = d.meta(f)
			return err
		case 9:
			m.Properties, err = d.set(f, depth+1)
			return err
		}
		return d.metricValue(&m.Value, n, f, depth)
	})
	return m, err
}

// metricValue reads the fields of a metric that carry its value.
func (d *decoder) metricValue(v *Raw, n protowire.Number, f field, depth int) (err error) {
	switch n {
	case 10, 11, 12, 13, 14, 15:
		return v.scalar(Carrier(n-10)+IntValue, f)
	case 16:
		*v = Raw{Carrier: BytesValue}
		return f.bytes(&v.Bytes)
	case 17:
		*v = Raw{Carrier: DataSetValue}
		v.DataSet, err = d.dataSet(f)
		return err
	case 18:
		*v = Raw{Carrier: TemplateValue}
		v.Template, err = d.template(f, depth+1)
		return err
	case 19:
		*v = Raw{Carrier: ExtensionValue}
		return f.bytes(&v.Bytes)
	}
	return nil // a field of a later format
}

// scalar reads one of the six simple carriers, which stand in this order wherever the format has values.
func (v *Raw) scalar(c Carrier, f field) error {
	*v = Raw{Carrier: c}
	switch c {
	case IntValue:
		if err := f.number(&v.Bits); err != nil {
			return err
		}
		v.Bits = uint64(uint32(v.Bits)) // a negative number may come in ten bytes
		return nil
	case LongValue:
		return f.number(&v.Bits)
	case FloatValue:
		if f.wire != protowire.Fixed32Type {
			return errWire
		}
	case DoubleValue:
		if f.wire != protowire.Fixed64Type {
			return errWire
		}
	case BooleanValue:
		if f.wire != protowire.VarintType {
			return errWire
		}
		if f.num != 0 {
			f.num = 1
		}
	case StringValue:
		return f.bytes(&v.Bytes)
	}
	v.Bits = f.num
	return nil
}

func (d *decoder) meta(f field) (*Meta, error) {
	var b []byte
	if err := f.bytes(&b); err != nil {
		return nil, err
	}
	m := &Meta{}
	return m, d.fields(b, func(n protowire.Number, f field) error {
		switch n {
		case 1:
			return f.flag(&m.MultiPart)
		case 2:
			return f.text(&m.ContentType)
		case 3:
			return f.number(&m.Size)
		case 4:
			return f.number(&m.Seq)
		case 5:
			return f.text(&m.FileName)
		case 6:
			return f.text(&m.FileType)
		case 7:
			return f.text(&m.MD5)
		case 8:
			return f.text(&m.Description)
		}
		return nil
	})
}

// set reads a property set: keys and values in two lists.
func (d *decoder) set(f field, depth int) ([]Property, error) {
	if depth > maxDepth {
		return nil, errDepth
	}
	var b []byte
	if err := f.bytes(&b); err != nil {
		return nil, err
	}
	var keys []string
	var values []Property
	err := d.fields(b, func(n protowire.Number, f field) error {
		switch n {
		case 1:
			var key string
			keys = append(keys, "")
			err := errors.Join(d.part(), f.text(&key))
			keys[len(keys)-1] = key
			return err
		case 2:
			p, err := d.property(f, depth)
			values = append(values, p)
			return err
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(keys) != len(values) {
		return nil, fmt.Errorf("a property set has %d keys and %d values", len(keys), len(values))
	}
	for i := range values {
		values[i].Key = keys[i]
	}
	return values, nil
}

func (d *decoder) property(f field, depth int) (Property, error) {
	var p Property
	var b []byte
	if err := errors.Join(d.part(), f.bytes(&b)); err != nil {
		return p, err
	}
	err := d.fields(b, func(n protowire.Number, f field) error {
		switch n {
		case 1:
			return f.kind(&p.Type)
		case 2:
			return f.flag(&p.Null)
		case 3, 4, 5, 6, 7, 8:
			return p.Value.scalar(Carrier(n-3)+IntValue, f)
		case 9:
			set, err := d.set(f, depth+1)
			p.Value = Raw{Carrier: SetValue, Sets: [][]Property{set}}
			return err
		case 10:
			sets, err := d.sets(f, depth+1)
			p.Value = Raw{Carrier: SetsValue, Sets: sets}
			return err
		case 11:
			p.Value = Raw{Carrier: ExtensionValue}
			return f.bytes(&p.Value.Bytes)
		}
		return nil
	})
	return p, err
}

func (d *decoder) sets(f field, depth int) (sets [][]Property, err error) {
	var b []byte
	if err := f.bytes(&b); err != nil {
		return nil, err
	}
	err = d.fields(b, func(n protowire.Number, f field) error {
		if n != 1 {
			return nil
		}
		if err := d.part(); err != nil {
			return err
		}
		set, err := d.set(f, depth)
		sets = append(sets, set)
		return err
	})
	return sets, err
}
