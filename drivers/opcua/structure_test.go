package opcua

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopcua/opcua/ua"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

// testStructures reads what a real server makes of an enumeration, a structure in a structure, a list of them, fields that may be
// missing, and a union.
func testStructures(t *testing.T, plant *realparts.Plant) {
	b := newBench(t)
	b.prepare(plant)
	config, _ := counterConfig(plant.Endpoint(), 0)
	for _, tag := range []string{"Type.Batch", "Type.Batches"} {
		config += fmt.Sprintf("  - {tag: %s, node: \"ns=2;s=%s\", sampling: 0s}\n", tag, tag)
	}
	plant.Post(t, "/batches", map[string]any{"list": []any{
		map[string]any{"lot": "L1", "operator": "Ann", "first": map[string]any{"mode": 2, "seconds": 7},
			"steps":   []any{map[string]any{"mode": 1, "seconds": 1}, map[string]any{"mode": 2, "seconds": 4294967295}},
			"outcome": map[string]any{"weight": 12.5}},
		map[string]any{"lot": "L2", "temperature": 180.5, "first": map[string]any{"mode": 1, "seconds": 0}, "steps": []any{},
			"outcome": map[string]any{"fault": "jam"}},
	}})
	b.start(b.driver(config, nil))
	slow, fast := map[string]any{"number": signal.Number("1"), "name": "Slow"}, map[string]any{"number": signal.Number("2"), "name": "Fast"}
	first := map[string]any{"Lot": "L1", "Operator": "Ann", "First": map[string]any{"Mode": fast, "Seconds": signal.Number("7")},
		"Steps":   []any{map[string]any{"Mode": slow, "Seconds": signal.Number("1")}, map[string]any{"Mode": fast, "Seconds": signal.Number("4294967295")}},
		"Outcome": map[string]any{"Weight": signal.Number("12.5")}}
	second := map[string]any{"Lot": "L2", "Temperature": signal.Number("180.5"), "First": map[string]any{"Mode": slow, "Seconds": signal.Number("0")},
		"Steps": []any{}, "Outcome": map[string]any{"Fault": "jam"}}
	for tag, want := range map[string]any{"Type.Batch": first, "Type.Batches": []any{first, second}} {
		realparts.Eventually(t, 20*time.Second, "a value of "+tag, func() error {
			if len(b.values(tag)) == 0 {
				return errors.New("none")
			}
			return nil
		})
		if d := cmp.Diff(want, b.values(tag)[0].Value); d != "" {
			t.Errorf("%s: %s", tag, d)
		}
	}
}

// dictionary explains types as a server does.
type dictionary struct {
	encodings   map[string]string // encoding to data type
	definitions map[string]any
	supertypes  map[string]string
	asked       int
	fault       error
	// files are for encodings that only the old way describes, as "name in file".
	files map[string]string
}

func nodeOf(s string) *ua.NodeID {
	if s == "" {
		return nil
	}
	return ua.MustParseNodeID(s)
}

func (d *dictionary) dataTypeOf(_ context.Context, encoding *ua.NodeID) (*ua.NodeID, error) {
	d.asked++
	return nodeOf(d.encodings[encoding.String()]), d.fault
}

func (d *dictionary) definition(_ context.Context, dataType *ua.NodeID) (string, any, error) {
	return dataType.String(), d.definitions[dataType.String()], nil
}

func (d *dictionary) supertypeOf(_ context.Context, dataType *ua.NodeID) (*ua.NodeID, error) {
	return nodeOf(d.supertypes[dataType.String()]), nil
}

func (d *dictionary) dictionary(_ context.Context, encoding *ua.NodeID) (string, []byte, error) {
	name, file, _ := strings.Cut(d.files[encoding.String()], " in ")
	return name, []byte(file), nil
}

const oldFile = `<?xml version="1.0"?>
<opc:TypeDictionary xmlns:opc="http://opcfoundation.org/BinarySchema/" xmlns:tns="urn:x" TargetNamespace="urn:x" DefaultByteOrder="LittleEndian">
  <opc:Import Namespace="http://opcfoundation.org/UA/"/>
  <opc:EnumeratedType Name="Mode" LengthInBits="32"><opc:EnumeratedValue Name="Slow" Value="1"/></opc:EnumeratedType>
  <opc:StructuredType Name="Step"><opc:Field Name="Mode" TypeName="tns:Mode"/><opc:Field Name="Seconds" TypeName="opc:UInt16"/></opc:StructuredType>
  <opc:StructuredType Name="Job" BaseType="ua:ExtensionObject">
    <opc:Field Name="Lot" TypeName="opc:CharArray"/>
    <opc:Field Name="NoOfSteps" TypeName="opc:Int32"/>
    <opc:Field Name="Steps" TypeName="tns:Step" LengthField="NoOfSteps"/>
    <opc:Field Name="Text" TypeName="ua:LocalizedText"/>
  </opc:StructuredType>
  <opc:StructuredType Name="Sometimes"><opc:Field Name="ASpecified" TypeName="opc:Bit"/><opc:Field Name="Rest" TypeName="opc:Bit" Length="31"/>
    <opc:Field Name="A" TypeName="opc:Int32" SwitchField="ASpecified"/></opc:StructuredType>
</opc:TypeDictionary>`

// Servers from before version 1.04 have a file of types instead of definitions.
func TestStructuresAreReadByTheFileOfAnOldServer(t *testing.T) {
	d := &dictionary{encodings: map[string]string{"ns=1;i=11": "ns=1;i=1"}, files: map[string]string{
		"ns=1;i=11": "Job in " + oldFile, "ns=1;i=12": "Sometimes in " + oldFile, "ns=1;i=13": "Absent in " + oldFile, "ns=1;i=14": "Job in <broken"}}
	job := []byte{2, 0, 0, 0, 'L', '1', 1, 0, 0, 0, 1, 0, 0, 0, 7, 0, 2, 1, 0, 0, 0, 'x'}
	raw := func(n string, b []byte) any { return map[string]any{"structure": "nsu=urn:x;i=" + n, "bytes": b} }
	for id, want := range map[string]any{
		"11": map[string]any{"Lot": "L1", "Steps": []any{map[string]any{"Mode": map[string]any{"number": signal.Number("1"), "name": "Slow"},
			"Seconds": signal.Number("7")}}, "Text": "x"},
		"12": raw("12", job), "13": raw("13", job), "14": raw("14", job),
	} {
		b := newBench(t)
		r := fakeReader(b, 1)
		r.types = newTypes([]string{"", "urn:x"})
		v := dataValue{value: &structure{id: "ns=1;i=" + id, body: job}, structures: true}
		if err := r.explainValue(t.Context(), d, "tag", &v); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, v.value); diff != "" {
			t.Errorf("%s: %s", id, diff)
		}
		if p := b.problem("structure:ns=1;i=" + id); (p == nil) != (id == "11") {
			t.Errorf("%s: the problem is %+v", id, p)
		}
	}
}

func structureOf(kind ua.StructureType, fields ...*ua.StructureField) *ua.StructureDefinition {
	return &ua.StructureDefinition{StructureType: kind, Fields: fields}
}

func field(name, dataType string, rank int32, optional bool) *ua.StructureField {
	return &ua.StructureField{Name: name, DataType: nodeOf(dataType), ValueRank: rank, IsOptional: optional}
}

func TestStructuresAreReadAsTheirServerDefinesThem(t *testing.T) {
	u32 := func(n byte) []byte { return []byte{n, 0, 0, 0} }
	join := func(parts ...[]byte) (b []byte) {
		for _, p := range parts {
			b = append(b, p...)
		}
		return b
	}
	d := &dictionary{
		encodings: map[string]string{"ns=1;i=11": "ns=1;i=1", "ns=1;i=12": "ns=1;i=2", "ns=1;i=13": "ns=1;i=3", "ns=1;i=14": "ns=1;i=4", "ns=1;i=15": "ns=1;i=5",
			"ns=1;i=16": "ns=1;i=6"},
		definitions: map[string]any{
			"ns=1;i=1":  structureOf(optionalFields, field("A", "i=7", -1, true), field("B", "i=7", -1, false), field("C", "i=12", -1, true)),
			"ns=1;i=2":  structureOf(plainStructure, field("Left", "ns=1;i=2", 1, false), field("N", "i=3", -1, false)),
			"ns=1;i=3":  structureOf(plainStructure, field("M", "i=3", 2, false), field("Duration", "i=290", -1, false)),
			"ns=1;i=4":  structureOf(plainStructure, field("Any", "i=24", -1, false), field("Either", "i=12", -2, false)),
			"ns=1;i=5":  structureOf(plainStructure, field("X", "ns=1;i=99", -1, false)),
			"ns=1;i=6":  structureOf(subtypedValues, field("S", "ns=1;i=1", -1, true), field("Flags", "ns=1;i=98", -1, false)),
			"ns=1;i=98": &ua.EnumDefinition{Fields: []*ua.EnumField{{Value: 3, Name: "Both"}}},
		},
		supertypes: map[string]string{"i=290": "i=11", "ns=1;i=98": "i=3"},
	}
	number := func(s string) signal.Number { return signal.Number(s) }
	for _, tt := range []struct {
		name, id string
		body     []byte
		want     any
	}{
		{"one optional field is there", "ns=1;i=11", join(u32(2), u32(9), u32(1), []byte("x")), map[string]any{"B": number("9"), "C": "x"}},
		{"no optional field is there", "ns=1;i=11", join(u32(0), u32(9)), map[string]any{"B": number("9")}},
		{"a structure of its own kind", "ns=1;i=12", join(u32(1), u32(0), []byte{5}, []byte{6}),
			map[string]any{"Left": []any{map[string]any{"Left": []any{}, "N": number("5")}}, "N": number("6")}},
		{"a matrix and a subtype", "ns=1;i=13", join(u32(2), u32(2), u32(3), []byte{1, 2, 3, 4, 5, 6}, []byte{0, 0, 0, 0, 0, 0, 0xf8, 0x3f}),
			map[string]any{"M": []any{[]any{number("1"), number("2"), number("3")}, []any{number("4"), number("5"), number("6")}}, "Duration": number("1.5")}},
		{"values of any type", "ns=1;i=14", join([]byte{1, 1}, []byte{12}, u32(1), []byte("y")), map[string]any{"Any": true, "Either": "y"}},
		{"a subtype inside", "ns=1;i=16", join([]byte{1, 1, 11, 0, 1}, u32(8), u32(0), u32(4), []byte{3}),
			map[string]any{"S": map[string]any{"B": number("4")}, "Flags": map[string]any{"number": number("3"), "name": "Both"}}},
		{"a field of an unknown type", "ns=1;i=15", []byte{1}, map[string]any{"structure": "nsu=urn:x;i=15", "bytes": []byte{1}}},
		{"bytes left over", "ns=1;i=11", join(u32(0), u32(9), []byte{1}), map[string]any{"structure": "nsu=urn:x;i=11", "bytes": join(u32(0), u32(9), []byte{1})}},
		{"bytes missing", "ns=1;i=11", u32(2), map[string]any{"structure": "nsu=urn:x;i=11", "bytes": u32(2)}},
		{"an encoding that nobody knows", "ns=1;i=77", []byte{7}, map[string]any{"structure": "nsu=urn:x;i=77", "bytes": []byte{7}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			r := fakeReader(b, 1)
			r.types = newTypes([]string{"", "urn:x"})
			v := dataValue{value: &structure{id: tt.id, body: tt.body}, structures: true}
			if err := r.explainValue(t.Context(), d, "tag", &v); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, v.value); diff != "" {
				t.Error(diff)
			}
			asked := d.asked
			again := dataValue{value: []any{&structure{id: tt.id, body: tt.body}}, structures: true}
			if err := r.explainValue(t.Context(), d, "tag", &again); err != nil || d.asked != asked {
				t.Errorf("the server was asked again: %v", err)
			}
			if diff := cmp.Diff([]any{tt.want}, again.value); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Two servers may use one number for two types.
func TestTheSameNumberMeansAnotherTypeAtAnotherServer(t *testing.T) {
	for _, name := range []string{"Height", "Width"} {
		d := &dictionary{encodings: map[string]string{"ns=1;i=11": "ns=1;i=1"},
			definitions: map[string]any{"ns=1;i=1": structureOf(plainStructure, field(name, "i=3", -1, false))}}
		r := fakeReader(newBench(t), 1)
		r.types = newTypes([]string{"", "urn:x"})
		v := dataValue{value: &structure{id: "ns=1;i=11", body: []byte{4}}, structures: true}
		if err := r.explainValue(t.Context(), d, "tag", &v); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(any(map[string]any{name: signal.Number("4")}), v.value); diff != "" {
			t.Error(diff)
		}
	}
}

// A connection that breaks while a type is asked for must not make bytes of what can be explained a moment later.
func TestABrokenConnectionExplainsNothing(t *testing.T) {
	b := newBench(t)
	r := fakeReader(b, 1)
	v := dataValue{value: &structure{id: "i=11", body: []byte{4}}, structures: true}
	err := r.explainValue(t.Context(), &dictionary{fault: ua.StatusBadConnectionClosed}, "tag", &v)
	if !errors.Is(err, ua.StatusBadConnectionClosed) || r.types.byEncoding["i=11"] != nil {
		t.Errorf("error is %v, and the type is known as %v", err, r.types.byEncoding["i=11"])
	}
	if p := b.problem("structure:i=11"); p != nil {
		t.Errorf("a problem is shown: %s", p.Reason)
	}
	if err := r.explainValue(t.Context(), &dictionary{}, "tag", &v); err != nil {
		t.Error(err)
	}
	if p := b.problem("structure:i=11"); p == nil || !strings.Contains(p.Reason, "does not say which data type") {
		t.Errorf("the problem is %+v", p)
	}
}
