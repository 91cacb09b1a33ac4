package jobcontrol

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopcua/opcua/ua"
)

var compareVariants = cmp.Comparer(func(a, b *ua.Variant) bool {
	if a == nil || b == nil {
		return (a == nil || a.Value() == nil) && (b == nil || b.Value() == nil)
	}
	return a.Type() == b.Type() && cmp.Equal(a.Value(), b.Value())
})

// full is an order with everything in it.
func full() Order {
	priority := int16(-7)
	parts := []Parameter{{ID: "Speed", Value: ua.MustVariant(1.5), Description: []Text{{Locale: "de", Text: "Tempo"}}, Unit: UnitOf("C62")}}
	resource := Resource{ID: "R1", Description: []Text{{Text: "a resource"}}, Use: "Requested", Quantity: "1", Unit: UnitOf("HUR"), Properties: parts}
	return Order{
		ID: "WO-1", Description: []Text{{Locale: "en", Text: "gear"}, {Locale: "de", Text: "Zahnrad"}},
		WorkMasters: []WorkMaster{{ID: "FG-GEAR", Description: Text{Text: "gear"}, Parameters: parts}, {ID: "FG-OTHER"}},
		Start:       time.Date(2026, 3, 1, 6, 0, 0, 100, time.UTC), End: time.Date(2026, 3, 1, 14, 0, 0, 0, time.UTC), Priority: &priority,
		Parameters: []Parameter{{ID: "Revision", Value: ua.MustVariant(int64(3))}, {ID: "Nested", Value: ua.MustVariant("x"), Parts: parts}, {ID: "None"}},
		Personnel:  []Resource{resource}, Equipment: []Resource{resource, {ID: "bare"}}, Assets: []Resource{resource},
		Materials: []Material{
			{Class: "C", Definition: "RM-STEEL", Lot: "L1", Sublot: "S1", Description: []Text{{Text: "steel"}}, Use: "Consumed", Quantity: "12.50", Unit: UnitOf("KGM"), Properties: parts},
			{Definition: "bare"}, {},
		},
	}
}

func TestWhatIsWrittenReadsBackEqual(t *testing.T) {
	o := full()
	check := func(name string, v interface {
		Encode() ([]byte, error)
		Decode([]byte) (int, error)
	}, into interface{ Decode([]byte) (int, error) }) {
		t.Helper()
		b, err := v.Encode()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		n, err := into.Decode(append(b, 1, 2, 3))
		if err != nil || n != len(b) {
			t.Fatalf("%s: %d of %d bytes: %v", name, n, len(b), err)
		}
		if d := cmp.Diff(v, into, compareVariants); d != "" {
			t.Errorf("%s:\n%s", name, d)
		}
		for cut := range b { // every cut is noticed
			if _, err := into.Decode(b[:cut]); err == nil {
				t.Errorf("%s: cut at %d of %d reads without an error", name, cut, len(b))
			}
		}
	}
	check("order", &o, &Order{})
	check("bare order", &Order{ID: "x"}, &Order{})
	states := []State{{Text: Text{Text: "Running"}, Number: 3}, {Path: []string{"Interrupted", "Held"}, Text: Text{Locale: "en", Text: "Held"}, Number: 1}}
	check("job", &Job{Order: o, States: states}, &Job{})
	check("response", &Response{
		ID: "R", Description: Text{Text: "done"}, OrderID: "WO-1", Start: o.Start, End: o.End, States: states, Data: o.Parameters,
		Personnel: o.Personnel, Equipment: o.Equipment, Assets: o.Assets, Materials: o.Materials,
	}, &Response{})
}

// The mask is worth a test of its own: a bit too far and a machine reads a priority as a time.
func TestMaskHasABitForEachOptionalFieldInItsOrder(t *testing.T) {
	priority := int16(5)
	b, err := (&Order{ID: "A", Priority: &priority}).Encode()
	if want := "\x10\x00\x00\x00\x01\x00\x00\x00A\x05\x00"; err != nil || string(b) != want {
		t.Errorf("order is %q, %v, want %q", b, err, want)
	}
	b, err = (&Order{ID: "A", Materials: []Material{{Quantity: "2"}}}).Encode()
	if want := "\x00\x02\x00\x00\x01\x00\x00\x00A\x01\x00\x00\x00\x40\x00\x00\x00\x01\x00\x00\x002"; err != nil || string(b) != want {
		t.Errorf("material is %q, %v, want %q", b, err, want)
	}
	if _, err := (&Order{}).Decode([]byte("\x00\x00\x00\x80\xff\xff\xff\xff")); err == nil || !strings.Contains(err.Error(), "mask") {
		t.Errorf("a mask with unknown fields gives %v", err)
	}
}

func TestPhaseIsThatOfTheJobItselfAndNotOfAStateWithin(t *testing.T) {
	within := State{Path: []string{"Running", "Setup"}, Number: 1, Text: Text{Text: "Setup"}}
	for _, c := range []struct {
		states []State
		want   Phase
	}{
		{[]State{{Number: 3}, within}, Running},
		{[]State{within, {Number: 3}}, Running},
		{[]State{{Text: Text{Text: "allowedtostart"}}}, Allowed},
		{[]State{{Number: 6, Text: Text{Text: "Abgebrochen"}}}, Aborted},
		{[]State{{Number: 4294967295}}, UnknownPhase},
		{nil, UnknownPhase},
	} {
		if got := PhaseOf(c.states); got != c.want {
			t.Errorf("%v is %s, want %s", c.states, got, c.want)
		}
	}
}

func TestReturnStatusIsAMapOfBitsAndZeroIsNoSuccess(t *testing.T) {
	for status, want := range map[uint64]string{
		1: "", 1 | 1<<40: "", 0: "no reason", 2: "does not know", 8: "state does not allow", 16: "cannot accept",
		1 << 32: "not valid", 1<<33 | 16: "the maker's own reason 0x200000000",
	} {
		err := Check("Store", status)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("status %#x is %v, want %q", status, err, want)
		}
	}
	if !Says(Check("Store", 24), UnableToAccept) || Says(Check("Store", 24), UnknownOrder) || Says(nil, 1) {
		t.Error("the bits of an answer are not found")
	}
}

func TestEventsAreReadFieldByField(t *testing.T) {
	// Two events; the first has a time and a text, the second nothing.
	b := []byte("\x02\x00\x00\x00" + "\x01\x00\x00\x00\x02\x00\x00\x00" + "\x0d\x00\x80\x3e\xd5\xde\xb1\x9d\x01" + "\x0c\x01\x00\x00\x00x" + "\x01\x00\x00\x00\x00\x00\x00\x00")
	events, err := DecodeEvents(b)
	if err != nil || len(events) != 2 || len(events[0]) != 2 || len(events[1]) != 0 {
		t.Fatalf("%v, %v", events, err)
	}
	if at, _ := events[0][0].Value().(time.Time); at.Unix() != 0 || events[0][1].Value() != "x" {
		t.Errorf("fields are %v and %v", events[0][0].Value(), events[0][1].Value())
	}
	for cut := range b {
		if _, err := DecodeEvents(b[:cut]); err == nil {
			t.Errorf("cut at %d it reads without an error", cut)
		}
	}
}

func FuzzDecode(f *testing.F) {
	o := full()
	b, err := (&Job{Order: o, States: []State{{Path: []string{"a"}, Number: 3}}}).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("\x20\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\x7f"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var j Job
		if n, err := j.Decode(b); err == nil {
			again, err := j.Encode()
			if err != nil {
				return // a value that the library reads and cannot write
			}
			var k Job
			if _, err := k.Decode(again); err != nil {
				t.Errorf("%d bytes read, and what was written of them does not: %v", n, err)
			}
		}
		(&Response{}).Decode(b)
		DecodeEvents(b)
		DecodeState(b)
	})
}
