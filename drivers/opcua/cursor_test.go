package opcua

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopcua/opcua/ua"

	"github.com/linekeeper/linekeeper/agent/signal"
)

func TestACursorComesBackAsItWas(t *testing.T) {
	for _, lasts := range [][]last{nil, {{1, 5}, {1 << 31, 0}, {3, 1 << 60}}} {
		want := table{Endpoint: "opc.tcp://h:1", Started: time.Unix(5, 0).UTC(), Subscription: 1<<32 - 1, Lifetime: time.Minute, NextHandle: 9}
		for i := range 3 {
			want.Items = append(want.Items, tableItem{Handle: uint32(i), ID: 7, Tag: "t", Node: "ns=2;s=A", URI: "urn:x", Queue: 3, Deadband: 0.5})
		}
		p := position{next: 1<<32 - 1, fresh: true, heard: time.Unix(0, 1234567890123), unfilled: time.Unix(7, 0), lasts: lasts}
		got, q, err := decodeCursor("", encodeCursor(encodeTable(&want), p))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(&want, got); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff(p, q, cmp.AllowUnexported(position{}, last{})); d != "" {
			t.Error(d)
		}
	}
}

// A cursor of the version before has no times and no gap, and still names the subscription.
func TestACursorOfTheVersionBeforeIsRead(t *testing.T) {
	packed := encodeTable(&table{Subscription: 4, Items: []tableItem{{Handle: 1}}})
	b := binary.AppendUvarint([]byte{1}, uint64(len(packed)))
	b = append(b, packed...)
	b = binary.LittleEndian.AppendUint32(b, 77)
	b = append(b, 0)
	b = binary.LittleEndian.AppendUint64(b, 5e9)
	b = append(b, 1, 9, 0, 0, 0)
	got, p, err := decodeCursor("", b)
	if err != nil || got.Subscription != 4 {
		t.Fatalf("%+v, %v", got, err)
	}
	want := position{next: 77, heard: time.Unix(5, 0), lasts: []last{{print: 9}}}
	if d := cmp.Diff(want, p, cmp.AllowUnexported(position{}, last{})); d != "" {
		t.Error(d)
	}
}

func TestABrokenCursorIsSaidAndReadingBeginsAnew(t *testing.T) {
	b := newBench(t)
	d := b.driver("endpoint: opc.tcp://h:1\nanonymous: true\nnodes: [{tag: a, node: i=2258}]", nil)
	r := newReader(d, b.emit)
	r.restore([]byte{1, 200, 200})
	if r.sub != nil || b.problem("gap") == nil {
		t.Errorf("subscription %v, problem %v", r.sub, b.problem("gap"))
	}
}

func TestAnotherEndpointIsAnotherSubscription(t *testing.T) {
	b := newBench(t)
	d := b.driver("endpoint: opc.tcp://h:1\nanonymous: true\nnodes: [{tag: a, node: i=2258}]", nil)
	for endpoint, want := range map[string]bool{"opc.tcp://h:1": true, "opc.tcp://old:1": false} {
		r := newReader(d, b.emit)
		r.restore(encodeCursor(encodeTable(&table{Endpoint: endpoint, Subscription: 4}), position{next: 5}))
		if got := r.sub != nil; got != want {
			t.Errorf("%s: goes on %v, want %v", endpoint, got, want)
		}
	}
}

func FuzzCursor(f *testing.F) {
	f.Add(encodeCursor(encodeTable(&table{Items: []tableItem{{Handle: 1}}}), position{next: 3, lasts: []last{{4, 9}}}))
	f.Add([]byte{1, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		table, p, err := decodeCursor("", b)
		if err == nil {
			resumeSubscription("", table, p).cursor(p.next)
		}
	})
}

func FuzzNodeName(f *testing.F) {
	f.Add("nsu=urn:a;s=b")
	f.Add("ns=1;i=3")
	f.Fuzz(func(t *testing.T, s string) {
		n, err := parseNode(s)
		if err != nil {
			return
		}
		if _, err := n.pinned([]string{"", "a"}).resolve([]string{"", "a", n.uri}); err != nil {
			t.Errorf("%q is accepted and cannot be resolved: %v", s, err)
		}
	})
}

func TestValuesThatFewServersSendAreKeptAsWell(t *testing.T) {
	one := func(v any) *ua.Variant { return ua.MustVariant(v) }
	for _, tt := range []struct {
		name string
		in   *ua.Variant
		want any
	}{
		{"matrix", one([][]int32{{1, 2}, {3, 4}}), []any{[]any{signal.Number("1"), signal.Number("2")}, []any{signal.Number("3"), signal.Number("4")}}},
		{"bytes as an array", one(ua.ByteArray{1, 2}), []any{signal.Number("1"), signal.Number("2")}},
		{"variants", one([]*ua.Variant{one("a"), one(uint64(1<<64 - 1))}), []any{"a", signal.Number("18446744073709551615")}},
		{"qualified name", one(&ua.QualifiedName{NamespaceIndex: 2, Name: "x"}), "2:x"},
		{"node id", one(ua.NewStringNodeID(2, "x")), "ns=2;s=x"},
		{"data value", one(&ua.DataValue{EncodingMask: 3, Value: one(true), Status: ua.StatusUncertainSubNormal}), map[string]any{"value": true, "status": "UncertainSubNormal"}},
		{"bad data value", one(&ua.DataValue{EncodingMask: 3, Value: one(true), Status: ua.StatusBadNodeIDUnknown}), map[string]any{"value": nil, "status": "BadNodeIdUnknown"}},
		{"structure that nobody explains", one(ua.NewExtensionObject(&ua.AnonymousIdentityToken{PolicyID: "ab"})),
			map[string]any{"structure": "i=321", "bytes": []byte{2, 0, 0, 0, 'a', 'b'}}},
		{"no structure", one(&ua.ExtensionObject{TypeID: ua.NewTwoByteExpandedNodeID(0)}), nil},
		{"tiny", one(1e-7), signal.Number("1e-07")},
		{"large", one(1.5e21), signal.Number("1.5e+21")},
		{"float in its own precision", one(float32(16777216.0)), signal.Number("16777216")},
		{"nothing", nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, explained(t, tt.in)); d != "" {
				t.Error(d)
			}
		})
	}
}

// explained is a value after its way through the encoding, at a server that explains nothing.
func explained(t *testing.T, v *ua.Variant) any {
	t.Helper()
	d := &ua.DataValue{Value: v}
	d.UpdateMask()
	got := sent(t, d)
	r := fakeReader(newBench(t), 1)
	if err := r.explainValue(t.Context(), newFakeServer(t, 1, 1), "tag", &got); err != nil {
		t.Fatal(err)
	}
	return got.value
}

func TestStatusAndTimesTravelWithTheValue(t *testing.T) {
	source, server := time.Unix(100, 0).UTC(), time.Unix(200, 0).UTC()
	for _, tt := range []struct {
		name string
		in   ua.DataValue
		want signal.Signal
	}{
		{"source time", ua.DataValue{Value: ua.MustVariant(int8(-1)), SourceTimestamp: source, ServerTimestamp: server},
			signal.Signal{Value: signal.Number("-1"), Status: "Good", SourceTime: source, ServerTime: server}},
		{"server time where there is no other", ua.DataValue{Value: ua.MustVariant("x"), ServerTimestamp: server},
			signal.Signal{Value: "x", Status: "Good", SourceTime: server, ServerTime: server}},
		{"overflow", ua.DataValue{Value: ua.MustVariant("x"), Status: 0x480},
			signal.Signal{Value: "x", Status: "Good (overflow)"}},
		{"a code that has no name", ua.DataValue{Value: ua.MustVariant("x"), Status: 0x8FFF0000},
			signal.Signal{Status: "0x8FFF0000", Quality: signal.Bad}},
		{"uncertain", ua.DataValue{Value: ua.MustVariant(true), Status: ua.StatusUncertainSubNormal},
			signal.Signal{Value: true, Status: "UncertainSubNormal", Quality: signal.Uncertain}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got signal.Signal
			tt.in.UpdateMask()
			d := sent(t, &tt.in)
			fill(&got, &d)
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}
