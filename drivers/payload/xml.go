package payload

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// XMLOptions say how an XML text becomes records.
type XMLOptions struct {
	// Encoding is used when the text neither has a byte order mark nor declares one.
	Encoding string `yaml:"encoding"`
	// Record is the element of one record, by local names from the root: Orders/Order. Empty: the document is one record.
	Record string `yaml:"record"`
	// Lists names elements that become a list even when there is only one.
	Lists []string `yaml:"lists"`
	// Columns give elements and attributes at the record's first level a type: Qty, @id. Others stay text.
	Columns []Column `yaml:"columns"`
	Locale  `yaml:",inline"`
	// MaxRecord bounds a record in bytes; 16 MiB when 0.
	MaxRecord int `yaml:"max_record"`
}

const (
	defaultMaxXML = 16 << 20
	maxXMLDepth   = 64
)

// Validate reports what is wrong with the options.
func (o XMLOptions) Validate() error {
	if !KnownEncoding(o.Encoding) {
		return fmt.Errorf("encoding %q is none of %s", o.Encoding, strings.Join(Encodings(), ", "))
	}
	if o.MaxRecord < 0 || strings.HasPrefix(o.Record, "/") || strings.HasSuffix(o.Record, "/") || strings.Contains(o.Record, "//") {
		return fmt.Errorf("record %q is no path such as Orders/Order, or max_record is negative", o.Record)
	}
	return validate(o.Columns, o.Locale)
}

// XML reads an XML text. An element with neither attributes nor children is its text; another is a map: children by local
// name, attributes as @name, text as #text; what occurs several times is a list. Namespaces and their prefixes are left out.
// A document type declaration is refused, and so are deep and large records: nothing is ever fetched or expanded.
func XML(r io.Reader, o XMLOptions) Reader {
	if o.MaxRecord == 0 {
		o.MaxRecord = defaultMaxXML
	}
	x := &xmlReader{o: o, lists: map[string]bool{}}
	for _, name := range o.Lists {
		x.lists[name] = true
	}
	if o.Record != "" {
		x.path = strings.Split(o.Record, "/")
	}
	x.window.in = XMLText(r, o.Encoding)
	x.dec = NewXMLDecoder(&x.window)
	return x
}

// NewXMLDecoder reads XML that is UTF-8 already, whatever its prolog says.
func NewXMLDecoder(r io.Reader) *xml.Decoder {
	dec := xml.NewDecoder(r)
	dec.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	return dec
}

type xmlReader struct {
	o      XMLOptions
	lists  map[string]bool
	path   []string
	dec    *xml.Decoder
	window window
	at     []string // the open elements
	roots  int
	parent bool // an element was seen that records may stand in
}

// errTooMuch stops a record that is larger than allowed.
var errTooMuch = errors.New("too large")

func (x *xmlReader) Next() (Record, error) {
	for {
		x.window.from(x.dec.InputOffset())
		x.window.most = x.dec.InputOffset() + int64(x.o.MaxRecord)
		begin := x.dec.InputOffset()
		line, _ := x.dec.InputPos()
		tok, err := x.dec.Token()
		if errors.Is(err, io.EOF) && x.roots > 0 {
			return Record{}, x.end()
		}
		if err != nil {
			return Record{}, x.fault(err)
		}
		switch t := tok.(type) {
		case xml.Directive:
			if err := refuse(t); err != nil {
				return Record{}, x.fault(err)
			}
		case xml.EndElement:
			x.at = x.at[:len(x.at)-1]
		case xml.StartElement:
			if len(x.at) == 0 {
				x.roots++
			}
			x.at = append(x.at, t.Name.Local)
			if x.roots > 1 || len(x.at) > maxXMLDepth {
				return Record{}, x.fault(errors.New("the document has a second root, or elements too deep inside of each other"))
			}
			if !x.matches(x.path) {
				x.parent = x.parent || x.matches(x.path[:max(len(x.path)-1, 0)])
				continue
			}
			x.parent = true
			v, err := x.element(t, len(x.at))
			if err != nil {
				return Record{}, x.fault(err)
			}
			x.at = x.at[:len(x.at)-1]
			return x.record(v, string(x.window.text(begin, x.dec.InputOffset())), line), nil
		}
	}
}

func refuse(d xml.Directive) error {
	if bytes.HasPrefix(bytes.ToUpper(bytes.TrimSpace(d)), []byte("DOCTYPE")) {
		return errors.New("the document has a document type declaration (DOCTYPE), which is never read")
	}
	return nil
}

// end tells a text without records from one whose records the configuration does not find.
func (x *xmlReader) end() error {
	if x.parent {
		return io.EOF
	}
	return &Fault{signal.Problem{Code: "record_missing", Item: x.o.Record, Reason: fmt.Sprintf("the document has no place for %q", x.o.Record), NextStep: "correct record: the element's path by local names from the root, such as Orders/Order"}, 0}
}

func (x *xmlReader) matches(path []string) bool {
	if len(path) == 0 {
		return len(x.path) == 0 && len(x.at) == 1
	}
	if len(path) != len(x.at) {
		return false
	}
	for i, p := range path {
		if p != "*" && p != x.at[i] {
			return false
		}
	}
	return true
}

// fault explains an error of the whole text; an error of the reader below stays as it is.
func (x *xmlReader) fault(err error) error {
	line, _ := x.dec.InputPos()
	var syntax *xml.SyntaxError
	switch {
	case errors.Is(err, errTooMuch):
		return &Fault{signal.Problem{Code: "too_large", Item: strings.Join(x.at, "/"), Reason: fmt.Sprintf("a record is larger than max_record %d bytes", x.o.MaxRecord),
			NextStep: "name the element of one record in record, or raise max_record"}, line}
	case errors.As(err, &syntax):
		line, err = syntax.Line, errors.New(syntax.Msg)
	case x.window.err != nil && !errors.Is(x.window.err, io.EOF):
		return x.window.err
	case errors.Is(err, io.EOF):
		err = errors.New("there is no element in it")
	}
	return &Fault{signal.Problem{Code: "bad_xml", Item: cmpText(strings.Join(x.at, "/"), "document"), Reason: "not valid XML: " + err.Error(),
		NextStep: "correct the sender; a document that ends too early was perhaps taken while it was being written"}, line}
}

// element reads an element to its end.
func (x *xmlReader) element(start xml.StartElement, depth int) (any, error) {
	if depth > maxXMLDepth {
		return nil, fmt.Errorf("elements are more than %d deep inside of each other", maxXMLDepth)
	}
	m := map[string]any{}
	for _, a := range start.Attr {
		if a.Name.Space != "xmlns" && a.Name.Local != "xmlns" {
			m["@"+a.Name.Local] = a.Value
		}
	}
	var text strings.Builder
	for {
		tok, err := x.dec.Token()
		if err != nil {
			return nil, err
		}
		switch t := tok.(type) {
		case xml.Directive:
			return nil, errors.New("a directive stands inside of an element")
		case xml.CharData:
			text.Write(t)
		case xml.StartElement:
			v, err := x.element(t, depth+1)
			if err != nil {
				return nil, err
			}
			x.add(m, t.Name.Local, v)
		case xml.EndElement:
			return elementValue(m, text.String()), nil
		}
	}
}

func (x *xmlReader) add(m map[string]any, name string, v any) {
	before, ok := m[name]
	list, isList := before.([]any)
	switch {
	case isList:
		m[name] = append(list, v)
	case ok:
		m[name] = []any{before, v}
	case x.lists[name]:
		m[name] = []any{v}
	default:
		m[name] = v
	}
}

func elementValue(m map[string]any, text string) any {
	if len(m) == 0 {
		if strings.TrimSpace(text) == "" {
			return ""
		}
		return text
	}
	if strings.TrimSpace(text) != "" {
		m["#text"] = text
	}
	return m
}

func (x *xmlReader) record(v any, text string, line int) Record {
	if broken(text) {
		return bad(text, line, "bad_encoding", lineItem(line), "the record holds characters that cannot be read", badEncodingStep)
	}
	m, ok := v.(map[string]any)
	if !ok {
		m = map[string]any{"#text": v}
	}
	for _, c := range x.o.Columns {
		old, there := m[c.Name]
		s, isText := old.(string)
		if there && !isText {
			return bad(text, line, "bad_value", c.Name, fmt.Sprintf("line %d: %q is not a single text", line, c.Name), "correct columns, or the sender")
		}
		value, err := c.Value(s, x.o.Locale)
		if err != nil {
			return bad(text, line, "bad_value", c.Name, fmt.Sprintf("line %d: %q %v", line, c.Name, err), "correct the value at its source, or the column's type")
		}
		if !there && (c.Type == "" || c.Type == "text") {
			value = nil
		}
		delete(m, c.Name)
		m[c.key()] = value
	}
	return Record{Value: m, Raw: raw(text), Line: line}
}

// window hands bytes to the decoder and keeps those of the present record.
type window struct {
	in    io.Reader
	kept  []byte
	start int64 // offset of kept[0]
	most  int64 // offset beyond which the record is too large
	err   error
}

func (w *window) Read(p []byte) (int, error) {
	if end := w.start + int64(len(w.kept)); w.most > 0 && end > w.most {
		return 0, errTooMuch
	}
	n, err := w.in.Read(p)
	w.kept = append(w.kept, p[:n]...)
	w.err = err
	return n, err
}

// from lets go of what stands before an offset.
func (w *window) from(offset int64) {
	if n := offset - w.start; n > 0 && n <= int64(len(w.kept)) {
		w.kept = append(w.kept[:0], w.kept[n:]...)
		w.start = offset
	}
}

func (w *window) text(from, to int64) []byte {
	from, to = max(from-w.start, 0), min(to-w.start, int64(len(w.kept)))
	if from > to {
		return nil
	}
	return w.kept[from:to]
}
