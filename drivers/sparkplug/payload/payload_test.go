package payload

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/binary"
	"io"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/linekeeper/linekeeper/agent/signal"
)

func integer(c Carrier, v uint64) Raw { return Raw{Carrier: c, Bits: v} }
func words(s string) Raw              { return Raw{Carrier: StringValue, Bytes: []byte(s)} }
func single(f float32) Raw            { return Raw{Carrier: FloatValue, Bits: uint64(math.Float32bits(f))} }
func double(f float64) Raw            { return Raw{Carrier: DoubleValue, Bits: math.Float64bits(f)} }
func packed(b ...byte) Raw            { return Raw{Carrier: BytesValue, Bytes: b} }

func minus(n int64) uint64 { return uint64(-n) }

// Each value goes over the wire once and comes back as what it was meant to be, by every carrier that is in use for it.
func TestEveryValueArrivesAsItWasMeant(t *testing.T) {
	n := func(s string) any { return signal.Number(s) }
	for _, c := range []struct {
		name string
		kind Type
		raw  Raw
		want any
	}{
		{"lowest int8 in its own bits", Int8, integer(IntValue, 0x80), n("-128")},
		{"int8 extended to 32 bits", Int8, integer(IntValue, 0xFFFFFFF4), n("-12")},
		{"int8 extended to 64 bits", Int8, integer(LongValue, minus(12)), n("-12")},
		{"int8 extended to 32 bits in a long", Int8, integer(LongValue, 0xFFFFFFF4), n("-12")},
		{"highest int8", Int8, integer(IntValue, 127), n("127")},
		{"lowest int16", Int16, integer(IntValue, 0x8000), n("-32768")},
		{"lowest int16 extended", Int16, integer(IntValue, 0xFFFF8000), n("-32768")},
		{"highest int16", Int16, integer(IntValue, 0x7FFF), n("32767")},
		{"lowest int32", Int32, integer(IntValue, 0x80000000), n("-2147483648")},
		{"lowest int32 in a long", Int32, integer(LongValue, minus(1<<31)), n("-2147483648")},
		{"lowest int64", Int64, integer(LongValue, 1<<63), n("-9223372036854775808")},
		{"highest int64", Int64, integer(LongValue, 1<<63-1), n("9223372036854775807")},
		{"minus one as int64", Int64, integer(LongValue, math.MaxUint64), n("-1")},
		{"highest uint8", UInt8, integer(IntValue, 255), n("255")},
		{"highest uint16", UInt16, integer(IntValue, 65535), n("65535")},
		{"highest uint32", UInt32, integer(IntValue, math.MaxUint32), n("4294967295")},
		{"highest uint32 in a long", UInt32, integer(LongValue, math.MaxUint32), n("4294967295")},
		{"highest uint64", UInt64, integer(LongValue, math.MaxUint64), n("18446744073709551615")},
		{"float", Float, single(0.1), n("0.1")},
		{"smallest float", Float, single(math.SmallestNonzeroFloat32), n("1e-45")},
		{"minus zero", Double, double(math.Copysign(0, -1)), n("-0")},
		{"largest double", Double, double(math.MaxFloat64), n("1.7976931348623157e+308")},
		{"double that a float is too short for", Double, double(16777217), n("16777217")},
		{"true", Boolean, integer(BooleanValue, 1), true},
		{"false", Boolean, integer(BooleanValue, 0), false},
		{"digits stay a text", String, words("00012345678901234567890"), "00012345678901234567890"},
		{"empty text", Text, words(""), ""},
		{"uuid", UUID, words("6e0a9a3c-0f2c-4d43-9d62-9b6e7b1c2a11"), "6e0a9a3c-0f2c-4d43-9d62-9b6e7b1c2a11"},
		{"time", DateTime, integer(LongValue, 1767225600123), time.Date(2026, 1, 1, 0, 0, 0, 123e6, time.UTC)},
		{"time before 1970", DateTime, integer(LongValue, minus(1)), time.Date(1969, 12, 31, 23, 59, 59, 999e6, time.UTC)},
		{"bytes", Bytes, packed(0, 255, 10), []byte{0, 255, 10}},
		{"array of int8", Int8Array, packed(0xEF, 0x7B), []any{n("-17"), n("123")}},
		{"array of int16", Int16Array, packed(0x00, 0x80, 0xFF, 0x7F), []any{n("-32768"), n("32767")}},
		{"array of int32", Int32Array, packed(0xFF, 0xFF, 0xFF, 0xFF, 1, 0, 0, 0), []any{n("-1"), n("1")}},
		{"array of int64", Int64Array, packed(0, 0, 0, 0, 0, 0, 0, 0x80), []any{n("-9223372036854775808")}},
		{"array of uint8", UInt8Array, packed(23, 250), []any{n("23"), n("250")}},
		{"array of uint16", UInt16Array, packed(0xFF, 0xFF), []any{n("65535")}},
		{"array of uint32", UInt32Array, packed(0xFF, 0xFF, 0xFF, 0xFF), []any{n("4294967295")}},
		{"array of uint64", UInt64Array, packed(bytes.Repeat([]byte{0xFF}, 8)...), []any{n("18446744073709551615")}},
		{"array of float", FloatArray, packed(binary.LittleEndian.AppendUint32(nil, math.Float32bits(0.1))...), []any{n("0.1")}},
		{"array of double", DoubleArray, packed(binary.LittleEndian.AppendUint64(nil, math.Float64bits(0.1))...), []any{n("0.1")}},
		{"array of boolean", BooleanArray, packed(12, 0, 0, 0, 0x34, 0xD0),
			[]any{false, false, true, true, false, true, false, false, true, true, false, true}},
		{"array of text", StringArray, packed([]byte("ABC\x00hello\x00")...), []any{"ABC", "hello"}},
		{"array of time", DateTimeArray, packed(binary.LittleEndian.AppendUint64(nil, 1256102875335)...),
			[]any{time.UnixMilli(1256102875335).UTC()}},
		{"empty array", Int32Array, packed(), []any{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			sent := Payload{Timestamp: 1, Seq: 0, HasSeq: true, Metrics: []Metric{{Name: "x", Type: c.kind, Value: c.raw}}}
			got, err := Decode(sent.Encode())
			if err != nil || len(got.Metrics) != 1 || got.Metrics[0].Fault != nil || !got.HasSeq {
				t.Fatalf("decode: %v, %+v", err, got)
			}
			v, err := got.Metrics[0].Convert(got.Metrics[0].Type)
			if err != nil || !reflect.DeepEqual(v.Value, c.want) {
				t.Errorf("got %#v (%v), want %#v", v.Value, err, c.want)
			}
		})
	}
}

func TestWhatIsNoNumberSaysSo(t *testing.T) {
	for f, want := range map[doubleBits]string{{math.Float64bits(math.NaN())}: "NaN", {math.Float64bits(math.Inf(1))}: "Infinity", {math.Float64bits(math.Inf(-1))}: "-Infinity"} {
		m := Metric{Value: integer(DoubleValue, f.bits)}
		if v, err := m.Convert(Double); err != nil || v.Value != nil || v.NotNumber != want {
			t.Errorf("%s came as %+v (%v)", want, v, err)
		}
	}
}

// doubleBits is the bits of a double as a map's key: NaN itself is none.
type doubleBits struct{ bits uint64 }

// A value that contradicts its type must not be bent until it fits.
func TestWhatContradictsItsTypeIsRefused(t *testing.T) {
	for name, m := range map[string]Metric{
		"int8 too large":          {Type: Int8, Value: integer(IntValue, 300)},
		"int32 too large":         {Type: Int32, Value: integer(LongValue, 1<<32)},
		"uint8 negative":          {Type: UInt8, Value: integer(IntValue, 0xFFFFFFFF)},
		"uint32 too large":        {Type: UInt32, Value: integer(LongValue, 1<<32)},
		"a number as text":        {Type: Int32, Value: words("5")},
		"a text as number":        {Type: String, Value: integer(IntValue, 5)},
		"a boolean as number":     {Type: Boolean, Value: integer(IntValue, 1)},
		"text that is no UTF-8":   {Type: String, Value: Raw{Carrier: StringValue, Bytes: []byte{0xFF}}},
		"a time out of the world": {Type: DateTime, Value: integer(LongValue, 1<<62)},
		"no value":                {Type: Int32},
		"unknown type":            {Type: 99, Value: integer(IntValue, 5)},
		"no type":                 {Value: integer(IntValue, 5)},
		"half an element":         {Type: Int32Array, Value: packed(1, 2, 3)},
		"too few booleans":        {Type: BooleanArray, Value: packed(9, 0, 0, 0, 1)},
	} {
		if v, err := m.Convert(m.Type); err == nil {
			t.Errorf("%s: became %#v", name, v.Value)
		}
	}
}

func TestNullIsNull(t *testing.T) {
	m := Metric{Type: Int32, Null: true}
	if v, err := m.Convert(Int32); err != nil || v.Value != nil || v.NotNumber != "" {
		t.Errorf("null became %+v (%v)", v, err)
	}
}

// One metric that is torn leaves the others as they are.
func TestOneTornMetricLeavesItsNeighbours(t *testing.T) {
	good := (&Metric{Name: "good", Type: Int32, Value: integer(IntValue, 1)}).encode()
	b := appendBytes(nil, 2, good)
	b = appendBytes(b, 2, []byte{0x0A, 0x20, 'x'}) // a name longer than its metric
	b = appendBytes(b, 2, good)
	p, err := Decode(b)
	if err != nil || len(p.Metrics) != 3 {
		t.Fatalf("decode: %v, %d metrics", err, len(p.Metrics))
	}
	if p.Metrics[0].Fault != nil || p.Metrics[1].Fault == nil || p.Metrics[2].Name != "good" || len(p.Metrics[1].Bytes) != 3 {
		t.Errorf("got %+v", p.Metrics)
	}
}

func TestMemoryStaysInProportion(t *testing.T) {
	var b []byte
	for range maxParts + 1 {
		b = appendBytes(b, 2, nil)
	}
	if _, err := Decode(b); err == nil || !strings.Contains(err.Error(), "parts") {
		t.Errorf("a message of empty metrics was taken: %v", err)
	}
	deep := []byte{}
	for range 4 * maxDepth {
		deep = appendBytes(nil, 18, appendBytes(nil, 2, deep))
	}
	p, err := Decode(appendBytes(nil, 2, deep))
	if err != nil || p.Metrics[0].Fault == nil {
		t.Errorf("templates without end were taken: %v", err)
	}
}

// A field that this format does not know, and types that come packed, are what later writers send.
func TestLaterWritersAreRead(t *testing.T) {
	b := protowire.AppendFixed32(protowire.AppendTag(nil, 90, protowire.Fixed32Type), 7)
	set := appendNumber(nil, 1, 2)
	set = appendBytes(appendBytes(set, 2, []byte("a")), 2, []byte("b"))
	set = appendBytes(set, 3, []byte{byte(Int32), byte(String)})
	row := appendBytes(nil, 1, appendNumber(nil, 1, 5))
	row = appendBytes(row, 1, nil)
	set = appendBytes(set, 4, row)
	b = appendBytes(b, 2, appendBytes(appendNumber(nil, 4, uint64(DataSetType)), 17, set))
	p, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	v, err := p.Metrics[0].Convert(DataSetType)
	want := map[string]any{"columns": []any{map[string]any{"name": "a", "type": "Int32"}, map[string]any{"name": "b", "type": "String"}},
		"rows": []any{map[string]any{"a": signal.Number("5"), "b": nil}}}
	if err != nil || !reflect.DeepEqual(v.Value, want) {
		t.Errorf("got %#v (%v)", v.Value, err)
	}
}

// A compressed message is unpacked, and not beyond the bound.
func TestCompressedMessagesAreRead(t *testing.T) {
	inner := Payload{Seq: 7, HasSeq: true, Metrics: []Metric{{Name: strings.Repeat("x", 5000), Type: Int32, Value: integer(IntValue, 1)}}}
	pack := func(w io.WriteCloser, b *bytes.Buffer) []byte {
		w.Write(inner.Encode())
		w.Close()
		outer := Payload{UUID: compressed, Body: b.Bytes()}
		return outer.Encode()
	}
	var z, g bytes.Buffer
	for name, b := range map[string][]byte{"deflate": pack(zlib.NewWriter(&z), &z), "gzip": pack(gzip.NewWriter(&g), &g)} {
		if p, err := Read(b, 10_000); err != nil || p.Seq != 7 || len(p.Metrics) != 1 || len(p.Metrics[0].Name) != 5000 {
			t.Errorf("%s: %v, %+v", name, err, p)
		}
		if _, err := Read(b, 1000); err == nil {
			t.Errorf("%s: a message beyond the bound was read", name)
		}
		if _, err := Read(b[:len(b)-20], 10_000); err == nil {
			t.Errorf("%s: a torn message was read", name)
		}
	}
}

func FuzzDecode(f *testing.F) {
	p := Payload{Timestamp: 5, Seq: 3, HasSeq: true, Metrics: []Metric{
		{Name: "a", Alias: 7, HasAlias: true, Type: Int8, Value: integer(IntValue, 0xF4), Historical: true},
		{Name: "b", Type: String, Value: words("x"), Properties: []Property{{Key: "Quality", Type: Int32, Value: integer(IntValue, 192)}}},
		{Name: "c", Type: DoubleArray, Value: packed(1, 2, 3, 4, 5, 6, 7, 8)},
	}}
	f.Add(p.Encode())
	f.Add(appendBytes(nil, 2, appendBytes(appendNumber(nil, 4, uint64(DataSetType)), 17, appendNumber(nil, 1, 2))))
	f.Add(appendBytes(nil, 2, appendBytes(appendNumber(nil, 4, uint64(TemplateType)), 18, appendBytes(nil, 2, nil))))
	f.Fuzz(func(t *testing.T, b []byte) {
		Read(b, 1<<16)
		p, err := Decode(b)
		if err != nil {
			return
		}
		for i := range p.Metrics {
			for kind := Unknown; kind <= DateTimeArray; kind++ {
				p.Metrics[i].Convert(kind)
			}
		}
		again, err := Decode(p.Encode())
		if err != nil || len(again.Metrics) != len(p.Metrics) || again.Seq != p.Seq || again.Timestamp != p.Timestamp {
			t.Fatalf("what was written does not read back: %v\n%+v\n%+v", err, p, again)
		}
		for i := range p.Metrics {
			a, b := &p.Metrics[i], &again.Metrics[i]
			if a.Fault != nil || a.Value.Carrier >= DataSetValue {
				continue
			}
			if a.Name != b.Name || a.Alias != b.Alias || a.HasAlias != b.HasAlias || a.Type != b.Type || a.Historical != b.Historical ||
				a.Value.Bits != b.Value.Bits || !bytes.Equal(a.Value.Bytes, b.Value.Bytes) {
				t.Fatalf("metric %d does not read back:\n%+v\n%+v", i, a, b)
			}
		}
	})
}
