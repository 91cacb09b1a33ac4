package opcua

import (
	"encoding/binary"
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
		if hugeArray(raw) {
			t.Skip("the library allocates what a length claims; the secure channel bounds a message to what was negotiated")
		}
		d := &ua.DataValue{}
		if !decodes(d, raw) {
			return
		}
		var s signal.Signal
		fill(&s, d)
		printOf(&s)
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

// decodes reports that the library reads raw. Version 0.9.0 panics on an array of a length below -1; that is its own matter,
// here it is what comes out that counts.
func decodes(d *ua.DataValue, raw []byte) (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	_, err := d.Decode(raw)
	return err == nil
}

// hugeArray reports that some four bytes of a small input claim a length that the input can not have.
func hugeArray(raw []byte) bool {
	for i := 0; i+4 <= len(raw); i++ {
		if n := int32(binary.LittleEndian.Uint32(raw[i:])); n > 1<<20 {
			return true
		}
	}
	return false
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
