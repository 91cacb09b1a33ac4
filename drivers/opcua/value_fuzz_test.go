package opcua

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// FuzzDataValue reads anything as a value that a server sends: it becomes a signal of the agent's vocabulary that can be
// written down, and a value that is none is never good.
func FuzzDataValue(f *testing.F) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, v := range []any{int32(-12), uint64(1<<64 - 1), "12345678901234567890", []float64{1.5}, true, at, ua.ByteArray{1}, [][]int32{{1}, {2}},
		&ua.LocalizedText{Text: "a"}, &ua.NodeID{}, ua.StatusBad, []*ua.Variant{ua.MustVariant("x")}} {
		variant, err := ua.NewVariant(v)
		if err != nil {
			f.Fatal(err)
		}
		d := &ua.DataValue{EncodingMask: ua.DataValueValue | ua.DataValueStatusCode | ua.DataValueSourceTimestamp, Value: variant, SourceTimestamp: at}
		raw, err := d.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		w := &wire{b: raw}
		var d dataValue
		w.dataValue(&d)
		if w.err != nil {
			return
		}
		r := fakeReader(newBench(t), 1)
		if err := r.explainValue(t.Context(), newFakeServer(t, 1, 1), "tag", &d); err != nil {
			t.Fatal(err)
		}
		var s signal.Signal
		fill(&s, &d)
		if !inVocabulary(s.Value) {
			t.Fatalf("%x became %#v", raw, s.Value)
		}
		if _, err := json.Marshal(s.Value); err != nil {
			t.Fatalf("%x became %#v, which can not be written down: %v", raw, s.Value, err)
		}
		if s.Status == "" {
			t.Fatal("a value without a status")
		}
	})
}

// FuzzAnswers reads anything as the answers that carry values: nothing panics, and what was read is not larger than what came
// allows.
func FuzzAnswers(f *testing.F) {
	f.Add(publishBytes(f, &ua.DataChangeNotification{MonitoredItems: []*ua.MonitoredItemNotification{{ClientHandle: 7,
		Value: &ua.DataValue{EncodingMask: 1, Value: ua.MustVariant([]string{"a", "b"})}}}}))
	f.Add(publishBytes(f, &ua.StatusChangeNotification{Status: ua.StatusBadTimeout, DiagnosticInfo: &ua.DiagnosticInfo{}}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		l := &late{}
		if _, err := l.Decode(raw); err != nil {
			l.body = raw
		}
		decodePublish(l.body)
		decodeRepublish(l.body)
		decodeHistory(l.body)
		typed[*ua.ReadResponse](l)
		typed[*ua.CallResponse](l)
	})
}

// FuzzDictionary reads anything as an old server's file of types, and anything by the types in it.
func FuzzDictionary(f *testing.F) {
	f.Add([]byte(oldFile), "Job", []byte{2, 0, 0, 0, 'L', '1', 1, 0, 0, 0, 1, 0, 0, 0, 7, 0, 2, 1, 0, 0, 0, 'x'})
	f.Add([]byte(`<d><StructuredType Name="S"><Field Name="A" TypeName="S"/><Field Name="B" TypeName="S"/></StructuredType></d>`), "S", []byte{})
	f.Fuzz(func(t *testing.T, file []byte, name string, body []byte) {
		st, err := fromDictionary(file, name)
		if err != nil {
			return
		}
		v := any(st.read(&wire{b: body}, &dataValue{}, 0))
		types := newTypes(nil)
		for range maxNesting {
			var missing []string
			if v, missing = types.explain(v); len(missing) == 0 {
				break
			}
			for _, id := range missing {
				types.byEncoding[id] = &structType{why: "nobody knows"}
			}
		}
		if !inVocabulary(v) {
			t.Fatalf("%x became %#v", body, v)
		}
	})
}

// publishBytes is the whole answer to a publish request.
func publishBytes(t testing.TB, notification any) []byte {
	t.Helper()
	b, err := ua.Encode(&ua.PublishResponse{
		ResponseHeader: &ua.ResponseHeader{ServiceDiagnostics: &ua.DiagnosticInfo{}, AdditionalHeader: ua.NewExtensionObject(nil)},
		SubscriptionID: 9, NotificationMessage: &ua.NotificationMessage{SequenceNumber: 5,
			NotificationData: []*ua.ExtensionObject{ua.NewExtensionObject(notification)}}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func inVocabulary(v any) bool {
	switch x := v.(type) {
	case nil, bool, string, []byte, time.Time:
		return true
	case signal.Number:
		return json.Valid([]byte(x))
	case []any:
		for _, e := range x {
			if !inVocabulary(e) {
				return false
			}
		}
		return true
	case map[string]any:
		for _, e := range x {
			if !inVocabulary(e) {
				return false
			}
		}
		return true
	}
	return false
}
