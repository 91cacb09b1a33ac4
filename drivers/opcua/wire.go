package opcua

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gopcua/opcua/ua"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// wire reads the binary encoding that a server sent, for values straight into what signals carry. No length in it is believed
// before the bytes are there, nothing nests deeper than maxNesting, and after the first fault everything reads as zero.
type wire struct {
	b   []byte
	at  int
	err error
	// nested counts structures that were read by their definition.
	nested int
	// structures are the ids of the structures among the values.
	structures []string
}

// maxNesting bounds values within values.
const maxNesting = 32

func (w *wire) fail(format string, args ...any) {
	if w.err == nil {
		w.err = &badBytes{fmt.Sprintf("at byte %d of %d: ", w.at, len(w.b)) + fmt.Sprintf(format, args...)}
	}
}

// take gives the next n bytes, nil when they are not there.
func (w *wire) take(n int) []byte {
	if w.err != nil {
		return nil
	}
	if n < 0 || n > len(w.b)-w.at {
		w.fail("%d bytes are missing", n-(len(w.b)-w.at))
		return nil
	}
	b := w.b[w.at : w.at+n]
	w.at += n
	return b
}

func (w *wire) u8() byte {
	if b := w.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (w *wire) u16() uint16 {
	if b := w.take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (w *wire) u32() uint32 {
	if b := w.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (w *wire) u64() uint64 {
	if b := w.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// count reads the length of a list whose elements have at least size bytes. A negative one is an empty list: servers write
// others than -1.
func (w *wire) count(size int) int {
	n := int32(w.u32())
	if n <= 0 {
		return 0
	}
	if int(n) > (len(w.b)-w.at)/size {
		w.fail("a list claims %d elements", n)
		return 0
	}
	return int(n)
}

// bytes reads a byte string; nil when it is null.
func (w *wire) bytes() []byte {
	n := int32(w.u32())
	if n < 0 || w.err != nil {
		return nil
	}
	return w.take(int(n))
}

func (w *wire) text() string { return string(w.bytes()) }

// The protocol counts 100 ns since 1601; 0 and less is no time, and from lastTick on it means the end of all times.
const (
	ticksTo1970 = 116444736000000000
	lastTick    = 2650467743990000000
)

// time reads a point in time; false when it is none.
func (w *wire) time() (t time.Time, ok bool) {
	n := int64(w.u64())
	if n <= 0 {
		return time.Time{}, false
	}
	n = min(n, lastTick) - ticksTo1970
	s, rest := n/1e7, n%1e7
	if rest < 0 {
		s, rest = s-1, rest+1e7
	}
	return time.Unix(s, rest*100).UTC(), true
}

func (w *wire) guid() string {
	b := w.take(16)
	if b == nil {
		return ""
	}
	return strings.ToUpper(fmt.Sprintf("%08x-%04x-%04x-%s-%s", binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint16(b[4:]),
		binary.LittleEndian.Uint16(b[6:]), hex.EncodeToString(b[8:10]), hex.EncodeToString(b[10:])))
}

// nodeID reads a node id as text, an expanded one with what is expanded in it.
func (w *wire) nodeID(expanded bool) string {
	kind := w.u8()
	namespace, rest := uint16(0), ""
	switch kind & 0x3f {
	case 0:
		rest = "i=" + strconv.Itoa(int(w.u8()))
	case 1:
		namespace = uint16(w.u8())
		rest = "i=" + strconv.Itoa(int(w.u16()))
	case 2:
		namespace = w.u16()
		rest = "i=" + strconv.FormatUint(uint64(w.u32()), 10)
	case 3:
		namespace = w.u16()
		rest = "s=" + w.text()
	case 4:
		namespace = w.u16()
		rest = "g=" + w.guid()
	case 5:
		namespace = w.u16()
		rest = "b=" + base64.StdEncoding.EncodeToString(w.bytes())
	default:
		w.fail("a node id of kind %d", kind)
	}
	id := rest
	if namespace != 0 {
		id = "ns=" + strconv.Itoa(int(namespace)) + ";" + rest
	}
	if expanded && kind&0x80 != 0 {
		id = "nsu=" + strings.NewReplacer("%", "%25", ";", "%3B").Replace(w.text()) + ";" + rest
	}
	if expanded && kind&0x40 != 0 {
		id = "svr=" + strconv.FormatUint(uint64(w.u32()), 10) + ";" + id
	}
	return id
}

// structure is a value of a type that only its server can explain.
type structure struct {
	// id is the type's encoding as this server numbers it.
	id   string
	body []byte
	xml  bool
	// null is true when there is no body at all.
	null bool
}

func (w *wire) structure() structure {
	s := structure{id: w.nodeID(true)}
	switch mask := w.u8(); mask {
	case 0:
		s.null = true
	case 1, 2:
		s.xml = mask == 2
		s.body = w.bytes()
	default:
		w.fail("a structure of encoding %d", mask)
	}
	return s
}

func (w *wire) diagnostics() {
	for range w.count(1) {
		w.diagnostic(0)
	}
}

// diagnostic reads what a server tells to programmers.
func (w *wire) diagnostic(depth int) map[string]any {
	if depth > maxNesting {
		w.fail("diagnostics nest too deep")
		return nil
	}
	m := map[string]any{}
	mask := w.u8()
	for bit, name := range []string{"symbolic_id", "namespace", "locale", "text"} {
		// The bits of locale and text stand the other way round than their fields.
		if mask&[]byte{1, 2, 8, 4}[bit] != 0 {
			m[name] = signal.Number(strconv.Itoa(int(int32(w.u32()))))
		}
	}
	if mask&16 != 0 {
		m["additional"] = w.text()
	}
	if mask&32 != 0 {
		m["status"] = statusName(ua.StatusCode(w.u32()))
	}
	if mask&64 != 0 && w.err == nil {
		m["inner"] = w.diagnostic(depth + 1)
	}
	return m
}

// dataValue is one value with what the server says about it.
type dataValue struct {
	value          any
	status         ua.StatusCode
	source, server time.Time
	// notNumber is "NaN" or an infinity that stands in the value: such a value is none.
	notNumber string
	// structures is true while structures in the value wait for their types.
	structures bool
	// print tells value, status and source time from all others of its item, however a server writes them: in a message, in one
	// that repeats the value, in its history.
	print uint64
	// content tells value and status only.
	content uint64
}

func (w *wire) dataValue(d *dataValue) { w.nestedValue(d, 0) }

func (w *wire) nestedValue(d *dataValue, depth int) {
	mask := w.u8()
	from := w.at
	if mask&1 != 0 {
		d.value = w.variant(depth, d)
		if d.notNumber != "" {
			if _, list := d.value.([]any); !list {
				d.value = nil
			}
		}
	}
	if w.err != nil {
		return
	}
	content := hash(fnvStart, w.b[from:w.at])
	d.print = content
	if mask&2 != 0 {
		d.status = ua.StatusCode(w.u32())
	}
	if mask&4 != 0 {
		from = w.at
		d.source, _ = w.time()
		d.print = hash(d.print, w.b[from:w.at])
	}
	status := []byte{byte(d.status >> 16), byte(d.status >> 24)}
	d.print, d.content = hash(d.print, status), hash(content, status)
	if mask&16 != 0 {
		w.u16()
	}
	if mask&8 != 0 {
		d.server, _ = w.time()
	}
	if mask&32 != 0 {
		w.u16()
	}
}

// fnvStart and hash are FNV-1a.
const fnvStart = 14695981039346656037

func hash(h uint64, b []byte) uint64 {
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

// variant reads a value of any type, alone or as a list or as lists of lists.
func (w *wire) variant(depth int, d *dataValue) any {
	if depth > maxNesting {
		w.fail("values nest too deep")
		return nil
	}
	mask := w.u8()
	kind := mask & 0x3f
	if kind > 25 {
		w.fail("a value of type %d", kind)
	}
	if kind == 0 || w.err != nil {
		return nil
	}
	if mask&0x80 == 0 {
		return w.scalar(kind, depth, d)
	}
	var list []any
	if n := int32(w.u32()); n >= 0 {
		list = w.list(int(n), kind, depth, d)
	}
	if mask&0x40 != 0 {
		list = w.shape(list)
	}
	if list == nil {
		return nil
	}
	return list
}

func (w *wire) list(n int, kind byte, depth int, d *dataValue) []any {
	if n > len(w.b)-w.at {
		w.fail("a list claims %d elements", n)
		return nil
	}
	list := make([]any, n)
	for i := range list {
		list[i] = w.scalar(kind, depth, d)
		if w.err != nil {
			return nil
		}
	}
	return list
}

// shape puts a flat list into the dimensions that follow it; a list that does not fill them stays flat.
func (w *wire) shape(list []any) []any {
	n := w.count(4)
	sizes := make([]int, n)
	product := 1
	for i := range sizes {
		sizes[i] = int(int32(w.u32()))
		if sizes[i] < 1 || product > len(list) {
			product = -1
		}
		if product > 0 {
			product *= sizes[i]
		}
	}
	if n < 2 || n > maxNesting || product != len(list) {
		return list
	}
	for i := n - 1; i > 0; i-- {
		rows := make([]any, 0, len(list)/sizes[i])
		for len(list) > 0 {
			rows = append(rows, list[:sizes[i]:sizes[i]])
			list = list[sizes[i]:]
		}
		list = rows
	}
	return list
}

// scalar reads one value of a built-in type.
func (w *wire) scalar(kind byte, depth int, d *dataValue) any {
	switch kind {
	case 1:
		return w.u8() != 0
	case 2:
		return whole(int64(int8(w.u8())))
	case 3:
		return whole(int64(w.u8()))
	case 4:
		return whole(int64(int16(w.u16())))
	case 5:
		return whole(int64(w.u16()))
	case 6:
		return whole(int64(int32(w.u32())))
	case 7:
		return whole(int64(w.u32()))
	case 8:
		return whole(int64(w.u64()))
	case 9:
		return signal.Number(strconv.FormatUint(w.u64(), 10))
	case 10:
		return d.float(float64(math.Float32frombits(w.u32())), 32)
	case 11:
		return d.float(math.Float64frombits(w.u64()), 64)
	}
	return w.complexScalar(kind, depth, d)
}

func (w *wire) complexScalar(kind byte, depth int, d *dataValue) any {
	switch kind {
	case 12, 16:
		return w.text()
	case 13:
		if t, ok := w.time(); ok {
			return t
		}
		return nil
	case 14:
		return w.guid()
	case 15:
		if b := w.bytes(); b != nil {
			return append([]byte{}, b...)
		}
		return nil
	case 17:
		return w.nodeID(false)
	case 18:
		return w.nodeID(true)
	case 19:
		return statusName(ua.StatusCode(w.u32()))
	case 20:
		return w.qualifiedName()
	case 21:
		return w.localizedText()
	case 22:
		return w.keep(w.structure(), d)
	case 23:
		return w.dataValueInside(depth, d)
	case 24:
		return w.variant(depth+1, d)
	}
	return w.diagnostic(depth)
}

func whole(n int64) any { return signal.Number(strconv.FormatInt(n, 10)) }

// float writes the shortest text that reads back as the same float of this size.
func (d *dataValue) float(f float64, bits int) any {
	switch {
	case math.IsNaN(f):
		d.notNumber = "NaN"
		return nil
	case math.IsInf(f, 1):
		d.notNumber = "Infinity"
		return nil
	case math.IsInf(f, -1):
		d.notNumber = "-Infinity"
		return nil
	}
	format := byte('f')
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		format = 'e'
	}
	return signal.Number(strconv.FormatFloat(f, format, -1, bits))
}

func (w *wire) qualifiedName() string {
	namespace := w.u16()
	name := w.text()
	if namespace == 0 {
		return name
	}
	return strconv.Itoa(int(namespace)) + ":" + name
}

func (w *wire) localizedText() string {
	mask := w.u8()
	if mask&1 != 0 {
		w.bytes() // the language
	}
	if mask&2 != 0 {
		return w.text()
	}
	return ""
}

// keep holds a structure until its type is known. The bytes of the message are not kept alive for it.
func (w *wire) keep(s structure, d *dataValue) any {
	if w.err != nil || s.null {
		return nil
	}
	s.body = append([]byte{}, s.body...)
	if s.xml {
		return string(s.body)
	}
	d.structures = true
	if !slices.Contains(w.structures, s.id) {
		w.structures = append(w.structures, s.id)
	}
	return &s
}

// dataValueInside reads a value with a status of its own inside another one.
func (w *wire) dataValueInside(depth int, outer *dataValue) any {
	if depth > maxNesting {
		w.fail("values nest too deep")
		return nil
	}
	var d dataValue
	w.nestedValue(&d, depth+1)
	outer.structures = outer.structures || d.structures
	m := map[string]any{"value": d.value, "status": statusName(d.status)}
	if d.notNumber != "" {
		m["status"] = d.notNumber
	}
	if quality(d.status) == signal.Bad {
		m["value"] = nil
	}
	if !d.source.IsZero() {
		m["source_time"] = d.source
	}
	return m
}
