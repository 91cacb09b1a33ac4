package opcua

import (
	"errors"
	"fmt"
	"reflect"
	"unsafe" // for linkname, too

	gopcua "github.com/gopcua/opcua"
	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

// The library decodes an answer in a goroutine of its own, and some bytes make it panic there (an array length below -1) or
// allocate without bounds: one faulty server would end the agent with all of its sources. It also drops the bytes of every
// structure whose type nobody registered, for the whole process, under an id that means something else at the next server.
// So answers that carry values are taken from it as bytes and decoded here, by the goroutine that asked.
//
// The library has no way to change how an answer is decoded, which is why its table of services is replaced, once, before any
// connection is made. Should a new version of it name the table differently, the program does not link.
//
//go:linkname services github.com/gopcua/opcua/ua.svcreg
var services *ua.TypeRegistry

// lateAnswers are the answers that carry values, each with the type that the library knows it by.
var lateAnswers = map[uint16]ua.Response{
	id.PublishResponse_Encoding_DefaultBinary:     new(ua.PublishResponse),
	id.RepublishResponse_Encoding_DefaultBinary:   new(ua.RepublishResponse),
	id.ReadResponse_Encoding_DefaultBinary:        new(ua.ReadResponse),
	id.HistoryReadResponse_Encoding_DefaultBinary: new(ua.HistoryReadResponse),
	id.CallResponse_Encoding_DefaultBinary:        new(ua.CallResponse),
	// These come from servers that nobody trusts yet, or can be large.
	id.GetEndpointsResponse_Encoding_DefaultBinary:                  new(ua.GetEndpointsResponse),
	id.FindServersResponse_Encoding_DefaultBinary:                   new(ua.FindServersResponse),
	id.CreateSessionResponse_Encoding_DefaultBinary:                 new(ua.CreateSessionResponse),
	id.ActivateSessionResponse_Encoding_DefaultBinary:               new(ua.ActivateSessionResponse),
	id.BrowseResponse_Encoding_DefaultBinary:                        new(ua.BrowseResponse),
	id.BrowseNextResponse_Encoding_DefaultBinary:                    new(ua.BrowseNextResponse),
	id.TranslateBrowsePathsToNodeIDsResponse_Encoding_DefaultBinary: new(ua.TranslateBrowsePathsToNodeIDsResponse),
}

// serviceNumbers are where the ids lie that the specification gives its services, first and behind the last. Looking everywhere
// would cost each start of the agent ten times as long, and memory.
var serviceNumbers = [][2]uint16{{1, 1024}, {12200, 12220}}

func init() {
	mine := ua.NewTypeRegistry()
	for _, numbers := range serviceNumbers {
		copyServices(mine, numbers[0], numbers[1])
	}
	services = mine
}

// copyServices takes services over from the library's table, those with values to be decoded later.
func copyServices(mine *ua.TypeRegistry, from, to uint16) {
	for n := from; n < to; n++ {
		typeID := ua.NewFourByteNodeID(0, n)
		known := services.New(typeID)
		if known == nil {
			continue
		}
		if answer := lateAnswers[n]; answer != nil {
			known = new(late)
			// A server in the same process sends the library's type: it finds the number under this id, and nobody else does.
			must(mine.Register(ua.NewFourByteNodeID(1, n), answer))
		}
		must(mine.Register(typeID, known))
	}
}

func must(err error) {
	if err != nil {
		panic(fmt.Sprintf("replace the library's table of services: %v", err)) // a broken invariant of this file
	}
}

// largestMessage is how much a server may say at once: an outage's values come in few messages, and one that is refused for its size
// is refused each time that it is asked for. The number of chunks bounds it as well.
const largestMessage = 64 << 20

// liftLimit lets the library take large messages. It takes the server's limit for what may be sent to it for one on what comes from
// it, and 2 MB where the server names none; neither can be told from outside. It reports whether the limit was found.
func liftLimit(c *gopcua.Client) bool {
	conn := reflect.ValueOf(c).Elem().FieldByName("conn")
	if !conn.IsValid() || conn.Kind() != reflect.Pointer || conn.IsNil() {
		return false
	}
	ack := conn.Elem().FieldByName("ack")
	if !ack.IsValid() || ack.Kind() != reflect.Pointer || ack.IsNil() {
		return false
	}
	limit := ack.Elem().FieldByName("MaxMessageSize")
	if !limit.IsValid() || limit.Kind() != reflect.Uint32 {
		return false
	}
	*(*uint32)(unsafe.Pointer(limit.UnsafeAddr())) = largestMessage
	return true
}

// late is an answer whose header only is decoded.
type late struct {
	header ua.ResponseHeader
	body   []byte
}

// Header is the answer's header, with the status.
func (l *late) Header() *ua.ResponseHeader { return &l.header }

// SetHeader replaces it.
func (l *late) SetHeader(h *ua.ResponseHeader) { l.header = *h }

// Decode reads the header. It is called by the library's goroutine and never panics.
func (l *late) Decode(b []byte) (int, error) {
	w := &wire{b: b}
	l.header.Timestamp, _ = w.time()
	l.header.RequestHandle = w.u32()
	l.header.ServiceResult = ua.StatusCode(w.u32())
	w.diagnostic(0)
	for range w.count(4) {
		w.bytes()
	}
	w.structure()
	if w.err != nil {
		return 0, w.err
	}
	l.body = b[w.at:]
	return len(b), nil
}

// emptyHeader stands before a body that the library decodes after all: no time, no diagnostics, no texts, no more.
var emptyHeader = append(make([]byte, 8+4+4+1), 0, 0, 0, 0, 0, 0, 0)

// typed gives the answer as the library's type, after a look at its bytes. A panic of the library becomes an error.
func typed[T any](l *late) (answer T, err error) {
	w := &wire{b: l.body}
	var into ua.Response
	switch any(answer).(type) {
	case *ua.ReadResponse:
		w.readResults()
		into = new(ua.ReadResponse)
	case *ua.CallResponse:
		w.callResults()
		into = new(ua.CallResponse)
	default:
		if !w.walk(answer) {
			return answer, fmt.Errorf("decode the answer: a %T is not expected", answer)
		}
		into = reflect.New(reflect.TypeOf(answer).Elem()).Interface().(ua.Response)
	}
	if w.err != nil {
		return answer, w.err
	}
	// The library drops what stands in a structure that nobody registered.
	for _, x := range w.structures {
		if typeID, err := ua.ParseNodeID(x); err == nil && typeID.Namespace() != 0 {
			keepBytesOf(typeID)
		}
	}
	defer func() {
		if p := recover(); p != nil {
			err = &badBytes{fmt.Sprintf("the library cannot decode it: %v", p)}
		}
	}()
	if _, err := ua.Decode(append(emptyHeader[:len(emptyHeader):len(emptyHeader)], l.body...), into); err != nil {
		return answer, &badBytes{err.Error()}
	}
	into.SetHeader(&l.header)
	return any(into).(T), nil
}

// badBytes is an answer that came whole and makes no sense: to ask again brings the same.
type badBytes struct{ what string }

func (e *badBytes) Error() string { return "the server's answer cannot be read: " + e.what }

func isBadBytes(err error) bool {
	var bad *badBytes
	return errors.As(err, &bad)
}

// message is a notification message.
type message struct {
	seq     uint32
	changes []change
	// ended is what the server says about the subscription itself.
	ended *ua.StatusCode
	// others counts notifications of kinds that were not asked for.
	others int
	// broken is why the message could not be read to its end; changes are what stands before.
	broken error
	// empty is true for a sign of life: it has the number of the message that comes next.
	empty bool
	// last is true when the server had nothing more to say when it sent the message.
	last bool
}

type change struct {
	handle uint32
	value  dataValue
	// item is what the handle means, once that was looked up.
	item *item
}

// publishAnswer is the answer to a publish request.
type publishAnswer struct {
	subscription uint32
	message      *message
	results      []ua.StatusCode
}

func decodePublish(b []byte) (*publishAnswer, error) {
	w := &wire{b: b}
	a := &publishAnswer{subscription: w.u32()}
	for range w.count(4) {
		w.u32() // what else is available: a gap shows itself by the numbers
	}
	more := w.u8() != 0
	a.message = w.message()
	a.message.last = !more
	if a.message.broken != nil {
		return a, nil // the results, which nobody needs, stand behind
	}
	for range w.count(4) {
		a.results = append(a.results, ua.StatusCode(w.u32()))
	}
	return a, w.err
}

func decodeRepublish(b []byte) (*message, error) {
	w := &wire{b: b}
	return w.message(), w.err
}

const (
	typeDataChange   = "i=811"
	typeStatusChange = "i=820"
)

func (w *wire) message() *message {
	m := &message{seq: w.u32()}
	w.time()
	n := w.count(3)
	m.empty = n == 0
	for range n {
		x := w.structure()
		if w.err != nil {
			break
		}
		m.add(x)
	}
	if w.err != nil {
		m.broken, w.err = w.err, nil
	}
	return m
}

func (m *message) add(x structure) {
	in := &wire{b: x.body}
	switch x.id {
	case typeDataChange:
		n := in.count(5)
		if m.changes == nil {
			m.changes = make([]change, 0, n)
		}
		for range n {
			c := change{handle: in.u32()}
			in.dataValue(&c.value)
			if in.err != nil {
				break
			}
			m.changes = append(m.changes, c)
		}
	case typeStatusChange:
		status := ua.StatusCode(in.u32())
		if in.err == nil {
			m.ended = &status
		}
	default:
		m.others++
	}
	if in.err != nil && m.broken == nil {
		m.broken = in.err
	}
}

// readResults looks through the answer to a read request.
func (w *wire) readResults() (list []dataValue) {
	n := w.count(1)
	list = make([]dataValue, n)
	for i := range list {
		w.dataValue(&list[i])
	}
	w.diagnostics()
	return list
}

func (w *wire) callResults() {
	for range w.count(4) {
		w.u32()
		for range w.count(4) {
			w.u32()
		}
		w.diagnostics()
		for range w.count(1) {
			w.variant(0, &dataValue{})
		}
	}
	w.diagnostics()
}

// historyResult is the part of a history that one node's answer has.
type historyResult struct {
	status ua.StatusCode
	// more continues the answer; nil at its end.
	more   []byte
	values []dataValue
}

const typeHistoryData = "i=658"

func decodeHistory(b []byte) (list []historyResult, err error) {
	w := &wire{b: b}
	for range w.count(4) {
		h := historyResult{status: ua.StatusCode(w.u32())}
		h.more = append(h.more, w.bytes()...)
		x := w.structure()
		if w.err == nil && x.id == typeHistoryData {
			in := &wire{b: x.body}
			h.values = make([]dataValue, in.count(1))
			for i := range h.values {
				in.dataValue(&h.values[i])
			}
			if in.err != nil {
				return list, in.err
			}
		}
		list = append(list, h)
	}
	return list, w.err
}
