package opcua

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gopcua/opcua/id"
	uaserver "github.com/gopcua/opcua/server"
	"github.com/gopcua/opcua/ua"
	"github.com/gopcua/opcua/uasc"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// wrongServer is the library's own server with services that answer what no sane server does. It has the nodes "ns=1;s=n0",
// "ns=1;s=n1", ... which read as what value says.
type wrongServer struct {
	*uaserver.Server
	endpoint string

	mu       sync.Mutex
	services map[uint16]func(ua.Request) (ua.Response, error)
	notes    [][]byte // the bodies of the notifications to send, in their order
	seq      uint32
	values   map[string]*ua.DataValue
	calls    map[string]int
	// handles are those of the items that were made last.
	handles map[string]uint32
}

func newWrongServer(t *testing.T, nodes int) *wrongServer {
	t.Helper()
	log.SetOutput(io.Discard) // the library writes there
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	w := &wrongServer{endpoint: fmt.Sprintf("opc.tcp://127.0.0.1:%d", port), values: map[string]*ua.DataValue{}, calls: map[string]int{}, handles: map[string]uint32{},
		services: map[uint16]func(ua.Request) (ua.Response, error){}}
	w.Server = uaserver.New(uaserver.EndPoint("127.0.0.1", port), uaserver.EnableSecurity("None", ua.MessageSecurityModeNone),
		uaserver.EnableAuthMode(ua.UserTokenTypeAnonymous))
	ns := uaserver.NewNodeNameSpace(w.Server, "urn:wrong")
	for i := range nodes {
		name := fmt.Sprintf("n%d", i)
		w.set(name, uint32(0))
		ns.AddNode(uaserver.NewVariableNode(ua.NewStringNodeID(ns.ID(), name), name, func() *ua.DataValue { return w.value(name) }))
	}
	// The library answers with the endpoints of the very address only.
	w.handle(id.GetEndpointsRequest_Encoding_DefaultBinary, func(r ua.Request) (ua.Response, error) {
		return &ua.GetEndpointsResponse{ResponseHeader: answerTo(r), Endpoints: w.Endpoints()}, nil
	})
	w.handle(id.CreateSubscriptionRequest_Encoding_DefaultBinary, w.createSubscription)
	w.handle(id.CreateMonitoredItemsRequest_Encoding_DefaultBinary, w.createItems)
	w.handle(id.PublishRequest_Encoding_DefaultBinary, w.publish)
	w.handle(id.RepublishRequest_Encoding_DefaultBinary, func(ua.Request) (ua.Response, error) { return nil, ua.StatusBadMessageNotAvailable })
	w.handle(id.DeleteSubscriptionsRequest_Encoding_DefaultBinary, func(ua.Request) (ua.Response, error) { return nil, ua.StatusBadSubscriptionIDInvalid })
	if err := w.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { go w.Close() }) // it waits ten seconds for connections that are gone
	return w
}

// handle puts a service in the place of the one before. A status as its error becomes a fault. Only services that were handled
// before the start can be replaced later.
func (w *wrongServer) handle(typeID uint16, h func(ua.Request) (ua.Response, error)) {
	w.mu.Lock()
	w.services[typeID] = h
	w.mu.Unlock()
	w.RegisterHandler(typeID, func(_ *uasc.SecureChannel, r ua.Request, _ uint32) (ua.Response, error) {
		w.mu.Lock()
		w.calls[fmt.Sprintf("%T", r)]++
		h := w.services[typeID]
		w.mu.Unlock()
		return h(r)
	})
}

func (w *wrongServer) called(request ua.Request) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calls[fmt.Sprintf("%T", request)]
}

func (w *wrongServer) set(name string, v any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now().UTC()
	w.values[name] = &ua.DataValue{EncodingMask: ua.DataValueValue | ua.DataValueSourceTimestamp | ua.DataValueServerTimestamp,
		Value: ua.MustVariant(v), SourceTimestamp: now, ServerTimestamp: now}
}

func (w *wrongServer) value(name string) *ua.DataValue {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.values[name]
}

func answerTo(r ua.Request) *ua.ResponseHeader {
	return &ua.ResponseHeader{Timestamp: time.Now(), RequestHandle: r.Header().RequestHandle, ServiceDiagnostics: &ua.DiagnosticInfo{},
		StringTable: []string{}, AdditionalHeader: ua.NewExtensionObject(nil)}
}

func (w *wrongServer) createSubscription(r ua.Request) (ua.Response, error) {
	return &ua.CreateSubscriptionResponse{ResponseHeader: answerTo(r), SubscriptionID: 7, RevisedPublishingInterval: 50,
		RevisedLifetimeCount: 1000, RevisedMaxKeepAliveCount: 20}, nil
}

func (w *wrongServer) createItems(r ua.Request) (ua.Response, error) {
	res := &ua.CreateMonitoredItemsResponse{ResponseHeader: answerTo(r)}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, item := range r.(*ua.CreateMonitoredItemsRequest).ItemsToCreate {
		w.handles[item.ItemToMonitor.NodeID.StringID()] = item.RequestedParameters.ClientHandle
		res.Results = append(res.Results, &ua.MonitoredItemCreateResult{MonitoredItemID: uint32(i + 1), FilterResult: ua.NewExtensionObject(nil),
			RevisedSamplingInterval: item.RequestedParameters.SamplingInterval, RevisedQueueSize: item.RequestedParameters.QueueSize})
	}
	return res, nil
}

// rawBody is sent as it is.
type rawBody []byte

func (b rawBody) Encode() ([]byte, error) { return b, nil }

func (w *wrongServer) publish(r ua.Request) (ua.Response, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	res := &ua.PublishResponse{ResponseHeader: answerTo(r), SubscriptionID: 7, NotificationMessage: &ua.NotificationMessage{
		SequenceNumber: w.seq + 1, NotificationData: []*ua.ExtensionObject{}}}
	if len(w.notes) > 0 {
		w.seq++
		res.NotificationMessage.NotificationData = []*ua.ExtensionObject{{TypeID: ua.NewFourByteExpandedNodeID(0, id.DataChangeNotification_Encoding_DefaultBinary),
			EncodingMask: ua.ExtensionObjectBinary, Value: rawBody(w.notes[0])}}
		w.notes = w.notes[1:]
		return res, nil
	}
	time.Sleep(20 * time.Millisecond) // a sign of life must not come as fast as the asking
	return res, nil
}

// changeOf is a data change notification of values whose encodings are given.
func changeOf(values ...[]byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(values)))
	for _, v := range values {
		b = append(binary.LittleEndian.AppendUint32(b, 1), v...)
	}
	return append(b, 0, 0, 0, 0)
}

// counted is the encoding of a good value.
func counted(n int) []byte {
	b := binary.LittleEndian.AppendUint32([]byte{ua.DataValueValue | ua.DataValueSourceTimestamp, byte(ua.TypeIDUint32)}, uint32(n))
	return binary.LittleEndian.AppendUint64(b, uint64(ticksTo1970+n*1e7))
}

// listOf is the encoding of a list that claims a length.
func listOf(length int32) []byte {
	return binary.LittleEndian.AppendUint32([]byte{ua.DataValueValue, byte(ua.TypeIDUint32) | ua.VariantArrayValues}, uint32(length))
}

const wrongConfig = "endpoint: %s\nsecurity_policy: None\nanonymous: true\npublishing_interval: 50ms\nkeep_alive: 1s\nnodes:\n  - {tag: c0, node: \"ns=1;s=n0\"}\n"

// Each of these would end the whole agent, or take gigabytes, if the library decoded it.
func TestBytesThatMakeNoSenseEndNothing(t *testing.T) {
	t.Parallel()
	shape := func(dims ...uint32) []byte {
		b := []byte{ua.DataValueValue, byte(ua.TypeIDByte) | ua.VariantArrayValues | ua.VariantArrayDimensions, 0, 0, 0, 0}
		b = binary.LittleEndian.AppendUint32(b, uint32(len(dims)))
		for _, d := range dims {
			b = binary.LittleEndian.AppendUint32(b, d)
		}
		return b
	}
	deep := append([]byte{ua.DataValueValue}, bytes.Repeat([]byte{byte(ua.TypeIDVariant)}, 500_000)...)
	for _, tt := range []struct {
		name  string
		value []byte
		gap   string // what is said of it; empty where the rest of the message can still be read
	}{
		{"a list of length -2", listOf(-2), ""},
		{"a list of the least length", listOf(-1 << 31), ""},
		{"a list of two thousand million", listOf(1<<31 - 1), "claims 2147483647 elements"},
		{"dimensions whose product overflows", shape(1<<16, 1<<16), ""},
		{"two thousand million dimensions", append(shape()[:6:6], 0xff, 0xff, 0xff, 0x7f), "claims 2147483647 elements"},
		{"values within values", deep, "nest too deep"},
		{"a type that does not exist", []byte{ua.DataValueValue, 0x3e}, "type 62"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWrongServer(t, 1)
			b := newBench(t)
			w.notes = [][]byte{changeOf(counted(1)), changeOf(counted(2), tt.value, counted(3)), changeOf(counted(4))}
			b.start(b.driver(fmt.Sprintf(wrongConfig, w.endpoint), nil))
			b.awaitCount("c0", 4)
			var got []string
			for _, s := range b.values("c0") {
				if n, ok := s.Value.(signal.Number); ok {
					got = append(got, string(n))
				}
			}
			want := "1 2 3 4"
			if tt.gap != "" {
				want = "1 2 4"
				b.awaitProblem("gap", "gap")
				if p := b.problem("gap"); !strings.Contains(p.Reason, tt.gap) {
					t.Errorf("the gap's reason is %q", p.Reason)
				}
			}
			if have := strings.Join(got, " "); have != want {
				t.Errorf("values are %s, want %s", have, want)
			}
		})
	}
}

// A server's limit on what it takes is none on what it says. Refused for its size, the values of an outage would be lost.
func TestAMessageOfManyMegabytesIsTaken(t *testing.T) {
	t.Parallel()
	const long = 5 << 20
	w := newWrongServer(t, 1)
	b := newBench(t)
	text := binary.LittleEndian.AppendUint32([]byte{ua.DataValueValue, byte(ua.TypeIDString)}, long)
	w.notes = [][]byte{changeOf(counted(1), append(text, bytes.Repeat([]byte("x"), long)...), counted(2)), changeOf(counted(3))}
	b.start(b.driver(fmt.Sprintf(wrongConfig, w.endpoint), nil))
	b.awaitCount("c0", 3)
	list := b.values("c0")
	if len(list) != 4 {
		t.Fatalf("%d values, want 4", len(list))
	}
	found := false
	for _, s := range list {
		v, ok := s.Value.(string)
		found = found || ok && len(v) == long
	}
	if !found {
		t.Error("the long text has not come")
	}
	if p := b.problem("gap"); p != nil {
		t.Errorf("a gap was reported: %s", p.Reason)
	}
}

// The answer to a read is decoded by the library after a look at its bytes.
func TestAnAnswerToAReadThatMakesNoSenseIsAnError(t *testing.T) {
	header := make([]byte, 24)
	for _, tt := range []struct {
		name string
		body []byte
	}{
		{"two thousand million results", []byte{0xff, 0xff, 0xff, 0x7f}},
		{"a list of two thousand million", append([]byte{1, 0, 0, 0}, listOf(1<<31-1)...)},
		{"a list of length -2", append(append([]byte{1, 0, 0, 0}, listOf(-2)...), 0, 0, 0, 0)},
		{"nothing", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := &late{}
			if _, err := l.Decode(append(header[:24:24], tt.body...)); err != nil {
				t.Fatal(err)
			}
			if answer, err := typed[*ua.ReadResponse](l); !isBadBytes(err) {
				t.Errorf("got %v, %v", answer, err)
			}
		})
	}
}

func TestAServerInTheSameProcessKeepsItsOwnEncoding(t *testing.T) {
	for n, answer := range lateAnswers {
		if got := ua.ServiceTypeID(answer); got != n {
			t.Errorf("%T has the id %d, want %d", answer, got, n)
		}
	}
	if got := ua.ServiceTypeID(new(ua.PublishRequest)); got != id.PublishRequest_Encoding_DefaultBinary {
		t.Errorf("a publish request has the id %d", got)
	}
}
