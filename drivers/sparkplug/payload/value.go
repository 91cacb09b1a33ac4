package payload

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// Value is a metric's value as signals carry it.
type Value struct {
	// Value is nil, bool, string, signal.Number, time.Time, []byte, []any or map[string]any.
	Value any
	// NotNumber is "NaN", "Infinity" or "-Infinity" when the value is that and so none.
	NotNumber string
}

var (
	errMissing = errors.New("it has no value and is not marked as null")
	errRange   = errors.New("the number is outside of its type's range")
	errText    = errors.New("the text is not valid UTF-8")
	errTime    = errors.New("the time is not between the years 1 and 9999")
)

// Convert gives the metric's value by a type: its own, or the one that its birth told. Its error says why there is none.
func (m *Metric) Convert(t Type) (Value, error) {
	var c converter
	if m.Fault != nil {
		return Value{}, m.Fault
	}
	if m.Null {
		return Value{}, nil
	}
	v, err := c.convert(t, &m.Value)
	if err != nil {
		return Value{}, err
	}
	if t == File && m.Meta != nil {
		v = m.Meta.file(v)
	}
	out := Value{Value: v}
	if v == nil {
		out.NotNumber = c.notNumber
	}
	return out, nil
}

// file is a file's content with what is known of it.
func (m *Meta) file(content any) any {
	return map[string]any{"file_name": text(m.FileName), "file_type": text(m.FileType), "content_type": text(m.ContentType), "md5": text(m.MD5),
		"description": text(m.Description), "content": content}
}

// text is a text that only describes: what is no UTF-8 in it is replaced.
func text(s string) string { return string(bytes.ToValidUTF8([]byte(s), []byte("\uFFFD"))) }

// converter remembers the last number that was none.
type converter struct{ notNumber string }

func (c *converter) convert(t Type, r *Raw) (any, error) {
	if r.Carrier == None {
		return nil, errMissing
	}
	switch t {
	case Int8, Int16, Int32, Int64:
		return r.signed(bitsOf[t])
	case UInt8, UInt16, UInt32, UInt64:
		return r.unsigned(bitsOf[t])
	case Float, Double:
		return c.real(r)
	case Boolean:
		if r.Carrier == BooleanValue {
			return r.Bits != 0, nil
		}
	case String, Text, UUID:
		if r.Carrier == StringValue {
			return checkedText(r.Bytes)
		}
	case DateTime:
		if r.Carrier == LongValue || r.Carrier == IntValue {
			return moment(r.Bits)
		}
	case Bytes, File:
		if r.Carrier == BytesValue {
			return bytes.Clone(r.Bytes), nil
		}
	case DataSetType:
		if r.Carrier == DataSetValue {
			return c.table(r.DataSet)
		}
	case TemplateType:
		if r.Carrier == TemplateValue {
			return c.structure(r.Template)
		}
	case PropertySet, PropertySetList:
		return c.properties(t, r)
	case Unknown:
		return nil, errors.New("its type is not told")
	default:
		if t >= Int8Array && t <= DateTimeArray && r.Carrier == BytesValue {
			return c.array(t, r.Bytes)
		}
		if t > DateTimeArray {
			return nil, fmt.Errorf("%s is not known", t)
		}
	}
	return nil, fmt.Errorf("it is said to be a %s and came as %s", t, r.Carrier)
}

var bitsOf = map[Type]uint{Int8: 8, Int16: 16, Int32: 32, Int64: 64, UInt8: 8, UInt16: 16, UInt32: 32, UInt64: 64}

func (r *Raw) integer() error {
	if r.Carrier != IntValue && r.Carrier != LongValue {
		return fmt.Errorf("it is said to be an integer and came as %s", r.Carrier)
	}
	return nil
}

// signed reads two's complement as it is in use: cut to the type's own bits, or extended to 32 or 64.
func (r *Raw) signed(bits uint) (any, error) {
	if err := r.integer(); err != nil {
		return nil, err
	}
	shift := 64 - bits
	own := int64(r.Bits<<shift) >> shift
	if r.Bits>>(bits-1)>>1 == 0 || r.Bits == uint64(own) || r.Bits == uint64(uint32(own)) && bits < 32 && own < 0 {
		return signal.Number(strconv.FormatInt(own, 10)), nil
	}
	return nil, errRange
}

func (r *Raw) unsigned(bits uint) (any, error) {
	if err := r.integer(); err != nil {
		return nil, err
	}
	if r.Bits>>(bits-1)>>1 != 0 {
		return nil, errRange
	}
	return signal.Number(strconv.FormatUint(r.Bits, 10)), nil
}

// real takes a float for a double and the other way round: each is exact as it came.
func (c *converter) real(r *Raw) (any, error) {
	switch r.Carrier {
	case FloatValue:
		return c.float(float64(math.Float32frombits(uint32(r.Bits))), 32), nil
	case DoubleValue:
		return c.float(math.Float64frombits(r.Bits), 64), nil
	}
	return nil, fmt.Errorf("it is said to be a floating-point number and came as %s", r.Carrier)
}

// float writes the shortest text that reads back as the same float of this size.
func (c *converter) float(f float64, bits int) any {
	switch {
	case math.IsNaN(f):
		c.notNumber = "NaN"
		return nil
	case math.IsInf(f, 1):
		c.notNumber = "Infinity"
		return nil
	case math.IsInf(f, -1):
		c.notNumber = "-Infinity"
		return nil
	}
	format := byte('f')
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		format = 'e'
	}
	return signal.Number(strconv.FormatFloat(f, format, -1, bits))
}

func checkedText(b []byte) (any, error) {
	if !utf8.Valid(b) {
		return nil, errText
	}
	return string(b), nil
}

func moment(ms uint64) (any, error) {
	t := time.UnixMilli(int64(ms)).UTC()
	if y := t.Year(); y < 1 || y > 9999 {
		return nil, errTime
	}
	return t, nil
}

// table makes a data set readable: a list of rows, each by column name.
func (c *converter) table(s *DataSet) (any, error) {
	columns := make([]any, len(s.Columns))
	for i, name := range s.Columns {
		columns[i] = map[string]any{"name": text(name), "type": s.Types[i].String()}
	}
	rows := make([]any, len(s.Rows))
	for i, row := range s.Rows {
		cells := make(map[string]any, len(row))
		for j := range row {
			var v any
			if row[j].Carrier != None { // the format has no other way to say null here
				var err error
				if v, err = c.convert(s.Types[j], &row[j]); err != nil {
					return nil, fmt.Errorf("row %d, column %q: %w", i+1, s.Columns[j], err)
				}
			}
			cells[text(s.Columns[j])] = v
		}
		rows[i] = cells
	}
	return map[string]any{"columns": columns, "rows": rows}, nil
}

// structure makes a template readable: its metrics by name. A part that cannot be read makes the whole unreadable: half a
// structure would look like a whole one.
func (c *converter) structure(t *Template) (any, error) {
	metrics := make(map[string]any, len(t.Metrics))
	for i := range t.Metrics {
		m := &t.Metrics[i]
		name := m.Name
		if name == "" && m.HasAlias {
			name = strconv.FormatUint(m.Alias, 10)
		}
		var v any
		if !m.Null && (m.Value.Carrier != None || !t.Definition) {
			var err error
			if v, err = c.convert(m.Type, &m.Value); err != nil {
				return nil, fmt.Errorf("member %q: %w", name, err)
			}
		}
		metrics[text(name)] = v
	}
	parameters, err := c.named(t.Parameters)
	if err != nil {
		return nil, err
	}
	return map[string]any{"template": text(t.Ref), "version": text(t.Version), "definition": t.Definition, "parameters": parameters,
		"metrics": metrics}, nil
}

// named are properties or parameters by name.
func (c *converter) named(list []Property) (map[string]any, error) {
	out := make(map[string]any, len(list))
	for i := range list {
		p := &list[i]
		var v any
		if !p.Null && p.Value.Carrier != None {
			var err error
			if v, err = c.convert(p.Type, &p.Value); err != nil {
				return nil, fmt.Errorf("property %q: %w", p.Key, err)
			}
		}
		out[text(p.Key)] = v
	}
	return out, nil
}

func (c *converter) properties(t Type, r *Raw) (any, error) {
	list := make([]any, len(r.Sets))
	for i, set := range r.Sets {
		named, err := c.named(set)
		if err != nil {
			return nil, err
		}
		list[i] = named
	}
	switch {
	case t == PropertySetList && r.Carrier == SetsValue:
		return list, nil
	case t == PropertySet && r.Carrier == SetValue:
		return list[0], nil
	}
	return nil, fmt.Errorf("it is said to be a %s and came as %s", t, r.Carrier)
}

// array reads a packed array: little endian, booleans as bits behind their number, texts each ended by a zero byte.
func (c *converter) array(t Type, b []byte) (any, error) {
	switch t {
	case BooleanArray:
		return booleans(b)
	case StringArray:
		return texts(b)
	}
	width := widths[t-Int8Array]
	if len(b)%width != 0 {
		return nil, fmt.Errorf("%d bytes are no whole number of elements of a %s", len(b), t)
	}
	list := make([]any, 0, len(b)/width)
	for ; len(b) > 0; b = b[width:] {
		var wide [8]byte
		copy(wide[:], b[:width])
		v, err := c.element(t, binary.LittleEndian.Uint64(wide[:]))
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}

var widths = [...]int{1, 2, 4, 8, 1, 2, 4, 8, 4, 8, 0, 0, 8}

func (c *converter) element(t Type, bits uint64) (any, error) {
	r := Raw{Carrier: LongValue, Bits: bits}
	switch t {
	case FloatArray:
		return c.float(float64(math.Float32frombits(uint32(bits))), 32), nil
	case DoubleArray:
		return c.float(math.Float64frombits(bits), 64), nil
	case DateTimeArray:
		return moment(bits)
	case Int8Array, Int16Array, Int32Array, Int64Array:
		return r.signed(8 << (t - Int8Array))
	}
	return r.unsigned(8 << (t - UInt8Array))
}

func booleans(b []byte) (any, error) {
	if len(b) < 4 {
		return nil, errors.New("an array of booleans has no number of elements")
	}
	n := uint64(binary.LittleEndian.Uint32(b))
	if bits := b[4:]; n > 8*uint64(len(bits)) {
		return nil, fmt.Errorf("an array of %d booleans has only %d bytes", n, len(bits))
	}
	list := make([]any, n)
	for i := range list {
		list[i] = b[4+i/8]&(0x80>>(i%8)) != 0
	}
	return list, nil
}

func texts(b []byte) (any, error) {
	list := []any{}
	for len(b) > 0 {
		one, rest, _ := bytes.Cut(b, []byte{0})
		v, err := checkedText(one)
		if err != nil {
			return nil, err
		}
		list, b = append(list, v), rest
	}
	return list, nil
}
