package opcua

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// types explains the structures of one server. Ids mean something at their server only, so each session has its own.
type types struct {
	namespaces []string
	// byEncoding has an entry for each structure that was asked for; one without fields could not be explained.
	byEncoding map[string]*structType
	byType     map[string]*structType
}

func newTypes(namespaces []string) *types {
	return &types{namespaces: namespaces, byEncoding: map[string]*structType{}, byType: map[string]*structType{}}
}

// The ways in which a structure's fields follow each other; the numbers are the specification's.
const (
	plainStructure = iota
	optionalFields
	union
	subtypedValues
	subtypedUnion
)

// structType is how a structure is written.
type structType struct {
	name   string
	kind   int
	fields []structField
	// why says why the structure cannot be explained.
	why string
}

// structField is one field. Exactly one of builtin and nested is set.
type structField struct {
	name     string
	builtin  byte
	nested   *structType
	names    map[int64]string // of an enumeration's numbers
	rank     int32
	optional bool
}

// The built-in types that stand for "any structure" and "any value".
const (
	builtinInt32     = 6
	builtinStructure = 22
	builtinVariant   = 24
)

// unknown lists the structures in a value that nobody has asked the server about yet.
func (t *types) unknown(v any, found []string) []string {
	switch x := v.(type) {
	case []any:
		for _, e := range x {
			found = t.unknown(e, found)
		}
	case map[string]any:
		for _, e := range x {
			found = t.unknown(e, found)
		}
	case *structure:
		if t.byEncoding[x.id] == nil {
			found = append(found, x.id)
		}
	}
	return found
}

// explain puts the fields of structures in the place of their bytes. A structure that nobody can explain stays readable as
// its type and its bytes. missing are structures within structures that were not asked for yet.
func (t *types) explain(v any) (explained any, missing []string) {
	switch x := v.(type) {
	case []any:
		for i, e := range x {
			var m []string
			x[i], m = t.explain(e)
			missing = append(missing, m...)
		}
	case map[string]any:
		for k, e := range x {
			var m []string
			x[k], m = t.explain(e)
			missing = append(missing, m...)
		}
	case *structure:
		return t.fields(x)
	}
	return v, missing
}

func (t *types) fields(x *structure) (any, []string) {
	st := t.byEncoding[x.id]
	if st == nil {
		return x, []string{x.id}
	}
	if st.why == "" {
		w := &wire{b: x.body}
		d := &dataValue{}
		m := st.read(w, d, 0)
		if w.err == nil && w.at == len(w.b) {
			return t.explain(m)
		}
	}
	return map[string]any{"structure": t.lasting(x.id), "bytes": x.body}, nil
}

// lasting is an id with its namespace's name: the index means nothing to who reads it later.
func (t *types) lasting(nodeID string) string {
	name, err := parseNode(nodeID)
	if err != nil {
		return nodeID
	}
	name = name.pinned(t.namespaces)
	if name.uri == "" {
		return nodeID
	}
	return "nsu=" + name.uri + ";" + name.id
}

// read reads a structure's fields by their names.
func (st *structType) read(w *wire, d *dataValue, depth int) map[string]any {
	m := map[string]any{}
	// Definitions come from the server as well: one that holds itself twice would have no end.
	if w.nested++; depth > maxNesting || w.nested > 1000+len(w.b) {
		w.fail("structures nest too deep")
		return m
	}
	switch st.kind {
	case union, subtypedUnion:
		if n := w.u32(); n > uint32(len(st.fields)) {
			w.fail("a union of %d kinds is of kind %d", len(st.fields), n)
		} else if n > 0 {
			f := &st.fields[n-1]
			m[f.name] = f.read(w, d, depth)
		}
		return m
	}
	mask, bit := ^uint32(0), 0
	if st.kind == optionalFields {
		mask = w.u32()
	}
	for i := range st.fields {
		f := &st.fields[i]
		if st.kind == optionalFields && f.optional {
			bit++
			if mask&(1<<(bit-1)) == 0 {
				continue
			}
		}
		m[f.name] = f.read(w, d, depth)
	}
	return m
}

func (f *structField) read(w *wire, d *dataValue, depth int) any {
	switch {
	case w.err != nil:
		return nil
	case f.rank == -1:
		return f.one(w, d, depth)
	case f.rank < 1: // may be anything
		return w.variant(depth+1, d)
	case f.rank == 1:
		return f.list(w, d, depth, w.count(1))
	}
	dims := w.count(4)
	total := 1
	sizes := w.at
	for range dims {
		n := int(int32(w.u32()))
		if n < 0 || n > len(w.b) || total > len(w.b) {
			w.fail("a dimension of %d", n)
			return nil
		}
		total *= n
	}
	if total > len(w.b)-w.at {
		w.fail("a list claims %d elements", total)
		return nil
	}
	list := f.list(w, d, depth, total)
	if w.err != nil {
		return nil
	}
	// The sizes again, as they stand behind a list elsewhere.
	return (&wire{b: w.b, at: sizes - 4}).shape(list)
}

func (f *structField) list(w *wire, d *dataValue, depth, n int) []any {
	list := make([]any, n)
	for i := range list {
		list[i] = f.one(w, d, depth)
		if w.err != nil {
			return nil
		}
	}
	return list
}

func (f *structField) one(w *wire, d *dataValue, depth int) any {
	if f.nested != nil {
		return f.nested.read(w, d, depth+1)
	}
	v := w.scalar(f.builtin, depth+1, d)
	if n, ok := v.(signal.Number); ok && f.names != nil {
		i, _ := strconv.ParseInt(string(n), 10, 64)
		return map[string]any{"number": n, "name": f.names[i]}
	}
	return v
}

// explainer asks a server for its types.
type explainer interface {
	// dataTypeOf is the data type of an encoding; nil when the server does not say.
	dataTypeOf(ctx context.Context, encoding *ua.NodeID) (*ua.NodeID, error)
	// definition reads a data type's name and definition, which is nil when it has none.
	definition(ctx context.Context, dataType *ua.NodeID) (name string, definition any, err error)
	// supertypeOf is nil at the top.
	supertypeOf(ctx context.Context, dataType *ua.NodeID) (*ua.NodeID, error)
	// dictionary is the file that describes an encoding at older servers, and the type's name in it; empty when there is none.
	dictionary(ctx context.Context, encoding *ua.NodeID) (name string, file []byte, err error)
}

// learn asks the server what a structure is. Only a fault of the connection is an error; what cannot be explained is noted
// with its reason.
func (t *types) learn(ctx context.Context, e explainer, encoding string) error {
	st, err := t.ask(ctx, e, encoding)
	var no *unexplained
	if connectionFault(err) && !errors.As(err, &no) {
		return fmt.Errorf("ask for the structure %s: %w", encoding, err)
	}
	if err != nil {
		st = &structType{name: encoding, why: plain(err)}
	}
	t.byEncoding[encoding] = st
	return nil
}

// unexplained is why a server's type stays bytes.
type unexplained struct{ why string }

func (u *unexplained) Error() string { return u.why }

func (t *types) ask(ctx context.Context, e explainer, encoding string) (*structType, error) {
	name, err := parseNode(encoding)
	if err != nil {
		return nil, &unexplained{"its id is not one of this server"}
	}
	nodeID, err := name.resolve(t.namespaces)
	if err != nil {
		return nil, &unexplained{err.Error()}
	}
	st, err := t.defined(ctx, e, nodeID)
	var no *unexplained
	if err == nil || !errors.As(err, &no) {
		return st, err
	}
	title, file, fault := e.dictionary(ctx, nodeID)
	switch {
	case fault != nil:
		return nil, fault
	case len(file) == 0:
		return nil, err
	}
	return fromDictionary(file, title)
}

// defined finds the definition of the type that has an encoding.
func (t *types) defined(ctx context.Context, e explainer, encoding *ua.NodeID) (*structType, error) {
	dataType, err := e.dataTypeOf(ctx, encoding)
	if err != nil {
		return nil, err
	}
	if dataType == nil {
		return nil, &unexplained{"the server does not say which data type has this encoding"}
	}
	st, err := t.structure(ctx, e, dataType)
	if err == nil && st == nil {
		err = &unexplained{"the server does not define the data type " + dataType.String()}
	}
	return st, err
}

// structure finds a data type's fields; nil when the server defines none.
func (t *types) structure(ctx context.Context, e explainer, dataType *ua.NodeID) (*structType, error) {
	if st := t.byType[dataType.String()]; st != nil {
		return st, nil
	}
	name, definition, err := e.definition(ctx, dataType)
	if err != nil {
		return nil, err
	}
	def, ok := definition.(*ua.StructureDefinition)
	if !ok {
		return nil, nil
	}
	st := &structType{name: name, kind: int(def.StructureType)}
	t.byType[dataType.String()] = st // before its fields: a structure may hold itself
	for _, f := range def.Fields {
		field := structField{name: f.Name, rank: f.ValueRank, optional: f.IsOptional}
		if err := t.field(ctx, e, &field, f.DataType, st.kind >= subtypedValues && f.IsOptional); err != nil {
			delete(t.byType, dataType.String())
			return nil, fmt.Errorf("field %q: %w", f.Name, err)
		}
		st.fields = append(st.fields, field)
	}
	return st, nil
}

// field finds how a field of a data type is written.
func (t *types) field(ctx context.Context, e explainer, f *structField, dataType *ua.NodeID, subtyped bool) error {
	for at := dataType; at != nil; {
		if b, ok := builtinOf(at); ok {
			f.builtin = b
			return nil
		}
		if subtyped && at == dataType {
			if st, err := t.structure(ctx, e, at); err != nil || st != nil {
				f.builtin = builtinStructure // which of the subtypes stands with the value
				return err
			}
		}
		_, definition, err := e.definition(ctx, at)
		if err != nil {
			return err
		}
		switch def := definition.(type) {
		case *ua.StructureDefinition:
			f.nested, err = t.structure(ctx, e, at)
			return err
		case *ua.EnumDefinition:
			f.builtin, f.names = builtinInt32, map[int64]string{}
			for _, v := range def.Fields {
				f.names[v.Value] = v.Name
			}
			if base, err := e.supertypeOf(ctx, at); err != nil {
				return err
			} else if b, ok := builtinOf(base); ok {
				f.builtin = b // a set of options is a number of its own size
			}
			return nil
		}
		if at, err = e.supertypeOf(ctx, at); err != nil {
			return err
		}
	}
	return &unexplained{"the server does not define the data type " + dataType.String()}
}

// builtinOf is the encoding of the specification's own types.
func builtinOf(dataType *ua.NodeID) (byte, bool) {
	if dataType == nil || dataType.Namespace() != 0 || dataType.IntID() == 0 {
		return 0, false
	}
	switch n := dataType.IntID(); {
	case n <= 25:
		return byte(n), true
	case n == id.Number, n == id.Integer, n == id.UInteger:
		return builtinVariant, true
	case n == id.Enumeration:
		return builtinInt32, true
	}
	return 0, false
}

func (l *link) dataTypeOf(ctx context.Context, encoding *ua.NodeID) (*ua.NodeID, error) {
	return l.reference(ctx, encoding, id.HasEncoding, ua.BrowseDirectionInverse)
}

func (l *link) supertypeOf(ctx context.Context, dataType *ua.NodeID) (*ua.NodeID, error) {
	return l.reference(ctx, dataType, id.HasSubtype, ua.BrowseDirectionInverse)
}

func (l *link) definition(ctx context.Context, dataType *ua.NodeID) (string, any, error) {
	values, err := l.read(ctx, []*ua.ReadValueID{
		{NodeID: dataType, AttributeID: ua.AttributeIDBrowseName, DataEncoding: &ua.QualifiedName{}},
		{NodeID: dataType, AttributeID: ua.AttributeIDDataTypeDefinition, DataEncoding: &ua.QualifiedName{}}}, 0)
	if err != nil {
		return "", nil, err
	}
	name := ""
	if q, ok := content(values[0]).(*ua.QualifiedName); ok {
		name = q.Name
	}
	if x, ok := content(values[1]).(*ua.ExtensionObject); ok && x != nil {
		return name, x.Value, nil
	}
	return name, nil, nil
}

// explainValue puts the fields of structures into a value, and shows which structures stay bytes.
func (r *reader) explainValue(ctx context.Context, e explainer, tag string, d *dataValue) error {
	missing := r.types.unknown(d.value, nil)
	for range maxNesting {
		for _, encoding := range missing {
			if r.types.byEncoding[encoding] != nil {
				continue
			}
			if err := r.types.learn(ctx, e, encoding); err != nil {
				return err
			}
			r.showUnexplained(encoding, tag)
		}
		if d.value, missing = r.types.explain(d.value); len(missing) == 0 {
			break
		}
	}
	d.structures = false
	return nil
}

func (r *reader) showUnexplained(encoding, tag string) {
	key := "structure:" + encoding
	st := r.types.byEncoding[encoding]
	if st.why == "" {
		r.problem(key, nil)
		return
	}
	id := r.types.lasting(encoding)
	r.log.Warn("structure cannot be explained, its bytes are kept", "source", r.env.Source, "tag", tag, "type", id, "reason", st.why)
	r.problem(key, &signal.Problem{Code: "structure", Item: tag,
		Reason:   fmt.Sprintf("tag %q has a structure of type %s that cannot be explained: %s; its bytes are kept", tag, id, st.why),
		NextStep: "read the structure's fields as nodes of their own, or let the server publish the type's definition"})
}
