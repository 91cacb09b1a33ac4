package payload

import (
	"google.golang.org/protobuf/encoding/protowire"
)

// Encode writes a message. Values may have the six simple carriers and bytes; the others are only ever read.
func (p *Payload) Encode() []byte {
	var b []byte
	if p.Timestamp != 0 {
		b = appendNumber(b, 1, p.Timestamp)
	}
	for i := range p.Metrics {
		b = appendBytes(b, 2, p.Metrics[i].encode())
	}
	if p.HasSeq {
		b = appendNumber(b, 3, p.Seq)
	}
	if p.UUID != "" {
		b = appendBytes(b, 4, []byte(p.UUID))
	}
	if p.Body != nil {
		b = appendBytes(b, 5, p.Body)
	}
	return b
}

func (m *Metric) encode() []byte {
	var b []byte
	if m.Name != "" {
		b = appendBytes(b, 1, []byte(m.Name))
	}
	if m.HasAlias {
		b = appendNumber(b, 2, m.Alias)
	}
	if m.Timestamp != 0 {
		b = appendNumber(b, 3, m.Timestamp)
	}
	if m.Type != Unknown {
		b = appendNumber(b, 4, uint64(m.Type))
	}
	for n, set := range []bool{m.Historical, m.Transient, m.Null} {
		if set {
			b = appendNumber(b, protowire.Number(5+n), 1)
		}
	}
	if len(m.Properties) > 0 {
		b = appendBytes(b, 9, encodeSet(m.Properties))
	}
	if m.Value.Carrier == BytesValue {
		return appendBytes(b, 16, m.Value.Bytes)
	}
	return m.Value.append(b, 10)
}

func encodeSet(set []Property) []byte {
	var b []byte
	for i := range set {
		b = appendBytes(b, 1, []byte(set[i].Key))
	}
	for i := range set {
		v := appendNumber(nil, 1, uint64(set[i].Type))
		if set[i].Null {
			v = appendNumber(v, 2, 1)
		}
		b = appendBytes(b, 2, set[i].Value.append(v, 3))
	}
	return b
}

// append writes a value of a simple carrier; first is the number of the field for integers.
func (v *Raw) append(b []byte, first protowire.Number) []byte {
	n := first + protowire.Number(v.Carrier) - protowire.Number(IntValue)
	switch v.Carrier {
	case IntValue, LongValue, BooleanValue:
		return appendNumber(b, n, v.Bits)
	case FloatValue:
		return protowire.AppendFixed32(protowire.AppendTag(b, n, protowire.Fixed32Type), uint32(v.Bits))
	case DoubleValue:
		return protowire.AppendFixed64(protowire.AppendTag(b, n, protowire.Fixed64Type), v.Bits)
	case StringValue:
		return appendBytes(b, n, v.Bytes)
	}
	return b
}

func appendNumber(b []byte, n protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), v)
}

func appendBytes(b []byte, n protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), v)
}
