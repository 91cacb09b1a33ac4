package opcua

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gopcua/opcua/ua"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// severity is the part of a status code that says good, uncertain or bad; name the part that has a name.
const (
	severityMask = 0xC0000000
	nameMask     = 0xFFFF0000
	// overflow marks a value behind which the server's queue lost others.
	overflow = 0x0480
)

func quality(c ua.StatusCode) signal.Quality {
	switch uint32(c) & severityMask {
	case 0:
		return signal.Good
	case 0x40000000:
		return signal.Uncertain
	}
	return signal.Bad
}

// specSpelling undoes the library's Go spelling of abbreviations.
var specSpelling = strings.NewReplacer("ID", "Id", "URI", "Uri", "URL", "Url", "TCP", "Tcp")

// statusName is the status as the specification spells it.
func statusName(c ua.StatusCode) string {
	if uint32(c)&nameMask == 0 {
		return "Good"
	}
	if d, ok := ua.StatusCodes[ua.StatusCode(uint32(c)&nameMask)]; ok {
		return specSpelling.Replace(strings.TrimPrefix(d.Name, "Status"))
	}
	return fmt.Sprintf("0x%08X", uint32(c))
}

// converted is a value as signals carry it.
type converted struct {
	value any
	// notNumber is "NaN" or an infinity: such a value is none.
	notNumber string
	// structure is the type of an encoded structure in the value, as a node id of this server.
	structure string
	// unknown are the types of structures whose bytes the decoder threw away.
	unknown []*ua.NodeID
}

func convert(v *ua.Variant) converted {
	var c converted
	if v == nil || v.Type() == ua.TypeIDNull {
		return c
	}
	c.value = c.any(v.Value())
	if c.notNumber != "" && !v.Has(ua.VariantArrayValues) {
		c.value = nil
	}
	return c
}

func (c *converted) any(v any) any {
	switch x := v.(type) {
	case nil:
		return nil
	case bool, string:
		return x
	case time.Time:
		return x.UTC()
	case []byte:
		return x
	case float32:
		return c.float(float64(x), 32)
	case float64:
		return c.float(x, 64)
	case ua.ByteArray:
		return c.slice(reflect.ValueOf(x))
	case ua.StatusCode:
		return statusName(x)
	case ua.XMLElement:
		return string(x)
	case *ua.GUID:
		return x.String()
	case *ua.NodeID:
		return x.String()
	case *ua.ExpandedNodeID:
		return x.String()
	case *ua.LocalizedText:
		return x.Text
	case *ua.QualifiedName:
		return qualifiedName(x)
	case *ua.ExtensionObject:
		return c.object(x)
	case *ua.DataValue:
		return c.nested(x)
	case *ua.Variant:
		return c.any(x.Value())
	}
	return c.other(v)
}

func (c *converted) other(v any) any {
	r := reflect.ValueOf(v)
	switch r.Kind() {
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return signal.Number(strconv.FormatInt(r.Int(), 10))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return signal.Number(strconv.FormatUint(r.Uint(), 10))
	case reflect.Slice:
		return c.slice(r)
	}
	return fmt.Sprint(v)
}

func (c *converted) slice(r reflect.Value) any {
	if r.IsNil() {
		return nil
	}
	list := make([]any, r.Len())
	for i := range list {
		list[i] = c.any(r.Index(i).Interface())
	}
	return list
}

// float writes the shortest text that reads back as the same float of this size.
func (c *converted) float(f float64, bits int) any {
	switch {
	case math.IsNaN(f):
		c.notNumber = "NaN"
		return nil
	case math.IsInf(f, 0):
		c.notNumber = "Infinity"
		if f < 0 {
			c.notNumber = "-Infinity"
		}
		return nil
	}
	format := byte('f')
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		format = 'e'
	}
	return signal.Number(strconv.FormatFloat(f, format, -1, bits))
}

func qualifiedName(q *ua.QualifiedName) string {
	if q.NamespaceIndex == 0 {
		return q.Name
	}
	return strconv.Itoa(int(q.NamespaceIndex)) + ":" + q.Name
}

func (c *converted) nested(d *ua.DataValue) any {
	m := map[string]any{"value": c.any(d.Value.Value()), "status": statusName(d.Status)}
	if !d.SourceTimestamp.IsZero() {
		m["source_time"] = d.SourceTimestamp
	}
	return m
}

// object keeps a structure as its encoded bytes: what they mean is known by the server's own types only.
func (c *converted) object(x *ua.ExtensionObject) any {
	if x == nil || x.EncodingMask == ua.ExtensionObjectEmpty || x.TypeID == nil {
		return nil
	}
	id := ua.NewNodeIDFromExpandedNodeID(x.TypeID)
	c.structure = id.String()
	switch v := x.Value.(type) {
	case nil:
		c.unknown = append(c.unknown, id)
		return nil
	case *encoded:
		return v.bytes
	case *ua.XMLElement:
		return string(*v)
	default:
		b, err := ua.Encode(v)
		if err != nil {
			return nil
		}
		return b
	}
}

// encoded is a structure of any type, kept as bytes.
type encoded struct{ bytes []byte }

// Decode keeps a copy of the bytes.
func (e *encoded) Decode(b []byte) (int, error) {
	e.bytes = append([]byte{}, b...)
	return len(b), nil
}

// Encode gives them back.
func (e *encoded) Encode() ([]byte, error) { return e.bytes, nil }

// The decoder's table of types belongs to the process and panics when an id comes twice: every driver asks here. Two
// servers may use one id for two types, which is why nothing but bytes is ever registered.
var (
	knownMu sync.Mutex
	known   = map[string]bool{}
)

// keepBytesOf makes the decoder keep the bytes of a structure's type, and reports whether it did not before.
func keepBytesOf(id *ua.NodeID) (added bool) {
	knownMu.Lock()
	defer knownMu.Unlock()
	if known[id.String()] {
		return false
	}
	known[id.String()] = true
	defer func() {
		if recover() != nil {
			added = false // the library itself knows the type under this id
		}
	}()
	ua.RegisterExtensionObject(id, new(encoded))
	return true
}

// fill sets a signal's value, status and times from a data value.
func fill(s *signal.Signal, d *ua.DataValue) (c converted) {
	s.Quality, s.Status = quality(d.Status), statusName(d.Status)
	s.SourceTime = d.SourceTimestamp
	if s.SourceTime.IsZero() {
		s.SourceTime = d.ServerTimestamp
	}
	if uint32(d.Status)&overflow == overflow {
		s.Status += " (overflow)"
	}
	c = convert(d.Value)
	switch {
	case s.Quality == signal.Bad:
		// Servers send a 0 along with a bad status. It is not a measurement.
		return c
	case c.notNumber != "":
		s.Quality, s.Status = signal.Bad, c.notNumber
	case len(c.unknown) > 0:
		s.Quality, s.Status = signal.Bad, "BadDataTypeIdUnknown (structure "+c.structure+")"
		return c
	case c.structure != "":
		s.Status += " (structure " + c.structure + ")"
	}
	s.Value = c.value
	return c
}

// printOf tells a value with its time and status from all others of its item.
func printOf(s *signal.Signal) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d\x00%s\x00%T\x00", s.SourceTime.UnixNano(), s.Status, s.Value)
	if b, err := json.Marshal(s.Value); err == nil {
		h.Write(b)
	}
	return h.Sum64()
}
