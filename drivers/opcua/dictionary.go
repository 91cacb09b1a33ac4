package opcua

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"strconv"
	"strings"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// Servers older than version 1.04 of the specification describe their structures in XML files of their address space, and nowhere else.

// maxDictionary bounds such a file.
const maxDictionary = 8 << 20

type dictionaryFile struct {
	Structures []struct {
		Name   string `xml:"Name,attr"`
		Fields []struct {
			Name        string `xml:"Name,attr"`
			Type        string `xml:"TypeName,attr"`
			LengthField string `xml:"LengthField,attr"`
			Switch      string `xml:"SwitchField,attr"`
			Length      string `xml:"Length,attr"`
		} `xml:"Field"`
	} `xml:"StructuredType"`
	Enumerations []struct {
		Name   string `xml:"Name,attr"`
		Bits   int    `xml:"LengthInBits,attr"`
		Values []struct {
			Name  string `xml:"Name,attr"`
			Value int64  `xml:"Value,attr"`
		} `xml:"EnumeratedValue"`
	} `xml:"EnumeratedType"`
}

// dictionaryTypes are the built-in types as the files name them, whatever prefix stands before.
var dictionaryTypes = map[string]byte{
	"Boolean": 1, "SByte": 2, "Byte": 3, "Int16": 4, "UInt16": 5, "Int32": 6, "UInt32": 7, "Int64": 8, "UInt64": 9, "Float": 10, "Double": 11,
	"String": 12, "CharArray": 12, "DateTime": 13, "Guid": 14, "ByteString": 15, "XmlElement": 16, "NodeId": 17, "ExpandedNodeId": 18, "StatusCode": 19,
	"QualifiedName": 20, "LocalizedText": 21, "ExtensionObject": 22, "DataValue": 23, "Variant": 24, "DiagnosticInfo": 25,
}

// fromDictionary finds a structure in such a file. What it cannot read exactly it does not read at all: fields of bits, and fields
// that depend on others.
func fromDictionary(file []byte, name string) (*structType, error) {
	if len(file) > maxDictionary {
		return nil, &unexplained{"the server's file of types is too large"}
	}
	var d dictionaryFile
	if err := xml.NewDecoder(bytes.NewReader(file)).Decode(&d); err != nil {
		return nil, &unexplained{"the server's file of types is not readable: " + err.Error()}
	}
	return d.structure(name, map[string]*structType{})
}

func (d *dictionaryFile) structure(name string, found map[string]*structType) (*structType, error) {
	if st := found[name]; st != nil {
		return st, nil
	}
	for _, s := range d.Structures {
		if s.Name != name {
			continue
		}
		st := &structType{name: name, kind: plainStructure}
		found[name] = st
		lengths := map[string]bool{}
		for _, f := range s.Fields {
			lengths[f.LengthField] = true
		}
		for _, f := range s.Fields {
			if f.Switch != "" || f.Length != "" || local(f.Type) == "Bit" {
				return nil, &unexplained{fmt.Sprintf("field %q of %q is there only sometimes, and the server does not define the type as version 1.04 does", f.Name, name)}
			}
			if lengths[f.Name] {
				continue // it is read with its list
			}
			field := structField{name: f.Name, rank: -1}
			if f.LengthField != "" {
				field.rank = 1
			}
			if err := d.field(&field, local(f.Type), found); err != nil {
				return nil, err
			}
			st.fields = append(st.fields, field)
		}
		return st, nil
	}
	return nil, &unexplained{fmt.Sprintf("the server's file of types does not have %q", name)}
}

func (d *dictionaryFile) field(f *structField, typeName string, found map[string]*structType) (err error) {
	if b, ok := dictionaryTypes[typeName]; ok {
		f.builtin = b
		return nil
	}
	for _, e := range d.Enumerations {
		if e.Name != typeName {
			continue
		}
		sizes := map[int]byte{8: 3, 16: 5, 32: builtinInt32, 0: builtinInt32}
		var ok bool
		if f.builtin, ok = sizes[e.Bits]; !ok {
			return &unexplained{fmt.Sprintf("enumeration %q has %d bits", typeName, e.Bits)}
		}
		f.names = map[int64]string{}
		for _, v := range e.Values {
			f.names[v.Value] = v.Name
		}
		return nil
	}
	f.nested, err = d.structure(typeName, found)
	return err
}

// local is a name without its prefix.
func local(name string) string {
	_, rest, prefixed := strings.Cut(name, ":")
	if prefixed {
		return rest
	}
	return name
}

// dictionary reads the file of types that describes an encoding, and the name that the type has in it; no file where the server has
// none.
func (l *link) dictionary(ctx context.Context, encoding *ua.NodeID) (name string, file []byte, err error) {
	description, err := l.reference(ctx, encoding, id.HasDescription, ua.BrowseDirectionForward)
	if err != nil || description == nil {
		return "", nil, err
	}
	dictionary, err := l.reference(ctx, description, id.HasComponent, ua.BrowseDirectionInverse)
	if err != nil || dictionary == nil {
		return "", nil, err
	}
	values, err := l.read(ctx, []*ua.ReadValueID{
		{NodeID: description, AttributeID: ua.AttributeIDValue, DataEncoding: &ua.QualifiedName{}},
		{NodeID: dictionary, AttributeID: ua.AttributeIDValue, DataEncoding: &ua.QualifiedName{}}}, 0)
	if err != nil {
		return "", nil, err
	}
	name, _ = content(values[0]).(string)
	file, _ = content(values[1]).([]byte)
	return name, file, nil
}

// reference is the node at the other end of a reference; nil when there is none.
func (l *link) reference(ctx context.Context, node *ua.NodeID, kind uint32, direction ua.BrowseDirection) (*ua.NodeID, error) {
	res, err := call[*ua.BrowseResponse](ctx, l.client, callTimeout, &ua.BrowseRequest{
		View: &ua.ViewDescription{ViewID: ua.NewTwoByteNodeID(0)}, RequestedMaxReferencesPerNode: 10,
		NodesToBrowse: []*ua.BrowseDescription{{NodeID: node, BrowseDirection: direction,
			ReferenceTypeID: ua.NewNumericNodeID(0, kind), ResultMask: uint32(ua.BrowseResultMaskNone)}}})
	if err != nil {
		return nil, err
	}
	if len(res.Results) != 1 {
		return nil, &unexplained{strconv.Itoa(len(res.Results)) + " answers to one question"}
	}
	r := res.Results[0]
	if quality(r.StatusCode) == signal.Bad || len(r.References) == 0 || r.References[0].NodeID == nil {
		return nil, nil
	}
	return r.References[0].NodeID.NodeID, nil
}
