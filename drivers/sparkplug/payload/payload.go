// Package payload is the wire format of Sparkplug B: what an edge node and a host write into an MQTT message.
//
// It owns the fields of the format (protocol buffers, read and written by hand: the format is small and never changes) and
// the way from its types to the values that signals carry. It promises that every value arrives exactly as it was meant,
// whichever of the carriers in use brought it; that one metric which cannot be read does not take its neighbours along; and
// that no message makes it fail otherwise or use memory out of proportion. It knows no topic, session, network or clock.
package payload

import (
	"fmt"
)

// Type is a data type as the format numbers it.
type Type uint32

// The data types.
const (
	Unknown Type = iota
	Int8
	Int16
	Int32
	Int64
	UInt8
	UInt16
	UInt32
	UInt64
	Float
	Double
	Boolean
	String
	DateTime
	Text
	UUID
	DataSetType
	Bytes
	File
	TemplateType
	PropertySet
	PropertySetList
	Int8Array
	Int16Array
	Int32Array
	Int64Array
	UInt8Array
	UInt16Array
	UInt32Array
	UInt64Array
	FloatArray
	DoubleArray
	BooleanArray
	StringArray
	DateTimeArray
)

var typeNames = [...]string{"Unknown", "Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float", "Double", "Boolean",
	"String", "DateTime", "Text", "UUID", "DataSet", "Bytes", "File", "Template", "PropertySet", "PropertySetList", "Int8Array", "Int16Array",
	"Int32Array", "Int64Array", "UInt8Array", "UInt16Array", "UInt32Array", "UInt64Array", "FloatArray", "DoubleArray", "BooleanArray",
	"StringArray", "DateTimeArray"}

func (t Type) String() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return fmt.Sprintf("type %d", uint32(t))
}

// Payload is one message. A time is milliseconds since 1970 in UTC; zero means that there is none.
type Payload struct {
	Timestamp uint64
	Metrics   []Metric
	Seq       uint64
	HasSeq    bool
	UUID      string
	Body      []byte
}

// Metric is one value of a message. Which type it has may be known from an earlier message only.
type Metric struct {
	Name       string
	Alias      uint64
	HasAlias   bool
	Timestamp  uint64
	Type       Type // Unknown when the message does not say
	Historical bool
	Transient  bool
	Null       bool
	Meta       *Meta
	Properties []Property
	Value      Raw
	// Fault says why this metric cannot be read; everything else may then be missing.
	Fault error
	// Bytes are the metric as it was received.
	Bytes []byte
}

// Property is a named value about a metric, such as its unit or quality.
type Property struct {
	Key   string
	Type  Type
	Null  bool
	Value Raw
}

// Meta describes a metric's content.
type Meta struct {
	MultiPart   bool
	ContentType string
	Size, Seq   uint64
	FileName    string
	FileType    string
	MD5         string
	Description string
}

// Carrier is the field that a value came in.
type Carrier uint8

// The carriers.
const (
	None Carrier = iota
	IntValue
	LongValue
	FloatValue
	DoubleValue
	BooleanValue
	StringValue
	BytesValue
	DataSetValue
	TemplateValue
	SetValue
	SetsValue
	ExtensionValue
)

var carrierNames = [...]string{"none", "int", "long", "float", "double", "boolean", "string", "bytes", "data set", "template", "property set",
	"property set list", "extension"}

func (c Carrier) String() string { return carrierNames[c] }

// Raw is a value before its type is known.
type Raw struct {
	Carrier Carrier
	// Bits of an integer, a float (the lower 32), a double or a boolean.
	Bits uint64
	// Bytes of a text, of bytes or of an extension.
	Bytes    []byte
	DataSet  *DataSet
	Template *Template
	Sets     [][]Property // one for a set
}

// DataSet is a table.
type DataSet struct {
	Columns []string
	Types   []Type
	Rows    [][]Raw
}

// Template is a structure: an instance of one, or its definition.
type Template struct {
	Version    string
	Ref        string
	Definition bool
	Metrics    []Metric
	Parameters []Property
}
