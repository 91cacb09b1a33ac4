package translate

import (
	"bytes"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"

	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// fillMessage sets the fields that are wanted to values that are not zero; of a oneof the field that is chosen.
func fillMessage(m protoreflect.Message, chosen protoreflect.FullName, want func(protoreflect.FieldDescriptor) bool, value func(protoreflect.FieldDescriptor) protoreflect.Value) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		switch f := fields.Get(i); {
		case f.ContainingOneof() != nil && f.FullName() != chosen, !want(f):
		case f.Message() != nil:
			fillMessage(m.Mutable(f).Message(), chosen, want, value)
		default:
			m.Set(f, value(f))
		}
	}
}

// contents are the fields of a fact of which it has one.
func contents() (names []protoreflect.FullName) {
	fields := (&pb.Fact{}).ProtoReflect().Descriptor().Oneofs().ByName("content").Fields()
	for i := range fields.Len() {
		names = append(names, fields.Get(i).FullName())
	}
	return names
}

func checkEncoding(t failer, f *pb.Fact) {
	t.Helper()
	want, err := proto.Marshal(f)
	if err != nil {
		t.Fatalf("%v", err)
	}
	before := []byte("what was before")
	for range 2 { // behind another fact, and behind one with the same header
		got, err := appendFact(bytes.Clone(before), f, &factBefore)
		if err != nil {
			t.Fatalf("%v: %v", f, err)
		}
		got, ok := bytes.CutPrefix(got, before)
		if !ok || !bytes.Equal(got, want) {
			t.Fatalf("%v\nencoded to %x\nby the library to %x", f, got, want)
		}
	}
}

// factBefore is what the header of the fact before was written as: that of another test, too.
var factBefore written

// TestEveryFieldOfAFactIsEncoded finds fields that the contract got and the encoder does not know.
func TestEveryFieldOfAFactIsEncoded(t *testing.T) {
	all := func(protoreflect.FieldDescriptor) bool { return true }
	value := func(f protoreflect.FieldDescriptor) protoreflect.Value {
		switch f.Kind() {
		case protoreflect.StringKind:
			return protoreflect.ValueOfString("text of " + string(f.Name()))
		case protoreflect.BytesKind:
			return protoreflect.ValueOfBytes([]byte(f.Name()))
		case protoreflect.BoolKind:
			return protoreflect.ValueOfBool(true)
		case protoreflect.EnumKind:
			return protoreflect.ValueOfEnum(2)
		case protoreflect.Int32Kind:
			return protoreflect.ValueOfInt32(999_999_999)
		case protoreflect.Int64Kind:
			return protoreflect.ValueOfInt64(1_772_000_000)
		}
		t.Fatalf("field %s has a kind that the encoder does not know: %s", f.FullName(), f.Kind())
		return protoreflect.Value{}
	}
	for _, content := range append(contents(), "") {
		f := &pb.Fact{}
		fillMessage(f.ProtoReflect(), content, all, value)
		checkEncoding(t, f)
	}
}

func TestFactsAreEncodedAsTheLibraryDoes(t *testing.T) {
	kinds := append(contents(), "")
	text := rapid.OneOf(rapid.String(), rapid.StringN(0, 200, -1), rapid.Just(strings.Repeat("long", 5000)))
	rapid.Check(t, func(t *rapid.T) {
		some := func(protoreflect.FieldDescriptor) bool { return rapid.Bool().Draw(t, "set") }
		value := func(f protoreflect.FieldDescriptor) protoreflect.Value {
			switch f.Kind() {
			case protoreflect.StringKind:
				return protoreflect.ValueOfString(text.Draw(t, "text"))
			case protoreflect.BytesKind:
				return protoreflect.ValueOfBytes(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"))
			case protoreflect.BoolKind:
				return protoreflect.ValueOfBool(rapid.Bool().Draw(t, "flag"))
			case protoreflect.EnumKind:
				return protoreflect.ValueOfEnum(protoreflect.EnumNumber(rapid.Int32().Draw(t, "enum")))
			case protoreflect.Int32Kind:
				return protoreflect.ValueOfInt32(rapid.Int32().Draw(t, "number"))
			}
			return protoreflect.ValueOfInt64(rapid.Int64().Draw(t, "number"))
		}
		f := &pb.Fact{}
		fillMessage(f.ProtoReflect(), rapid.SampledFrom(kinds).Draw(t, "content"), some, value)
		checkEncoding(t, f)
	})
}

// TestTextThatIsNoUTF8IsNotEncoded: the hub could not read such a fact, and it would hold up all that come behind it.
func TestTextThatIsNoUTF8IsNotEncoded(t *testing.T) {
	for _, f := range []*pb.Fact{
		{Header: &pb.Header{Plant: "a\xff"}, Content: &pb.Fact_ProductionConfirmation{ProductionConfirmation: &pb.ProductionConfirmation{}}},
		{Header: &pb.Header{TimeZone: "a\xff"}, Content: &pb.Fact_ProductionConfirmation{ProductionConfirmation: &pb.ProductionConfirmation{}}},
		{Header: &pb.Header{Position: "a\xff"}, Content: &pb.Fact_ProductionConfirmation{ProductionConfirmation: &pb.ProductionConfirmation{}}},
		{Content: &pb.Fact_ProductionConfirmation{ProductionConfirmation: &pb.ProductionConfirmation{Lot: "a\xff"}}},
		{Content: &pb.Fact_MaterialConsumption{MaterialConsumption: &pb.MaterialConsumption{Quantity: &pb.Quantity{Unit: "\xc3"}}}},
		{Content: &pb.Fact_QualityStatus{QualityStatus: &pb.QualityStatus{Status: "\xc3"}}},
	} {
		for range 2 {
			if b, err := appendFact(nil, f, &factBefore); err == nil {
				t.Errorf("%v was encoded to %x", f, b)
			}
		}
	}
}

// TestFactsOfACallDoNotTouchEachOther: their bodies lie in one piece of memory, and are appended to.
func TestFactsOfACallDoNotTouchEachOther(t *testing.T) {
	var e encoder
	var bodies, want [][]byte
	for i := range 300 {
		e.fact.Key = bytes.Repeat([]byte{byte(i)}, 16)
		e.header.Position = strings.Repeat("p", i*i%3000)
		e.fact.Header = &e.header
		e.confirmation().Item = strings.Repeat("i", i)
		body, err := proto.Marshal(&e.fact)
		if err != nil {
			t.Fatal(err)
		}
		bodies, want = append(bodies, e.encode()), append(want, body)
	}
	for i := range bodies {
		_ = append(bodies[i], "another part"...)
	}
	for i := range bodies {
		if !bytes.Equal(bodies[i], want[i]) {
			t.Fatalf("fact %d is\n%x, want\n%x", i, bodies[i], want[i])
		}
	}
}
