package files

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/b2mml"
	"github.com/linekeeper/linekeeper/drivers/payload"
)

// maxDocument bounds the formats that are read as one document.
const maxDocument = 64 << 20

// reader gives the records of a content in this feed's format.
func (f *feed) reader(in io.Reader) (payload.Reader, error) {
	c := &f.config
	switch c.Format {
	case "csv":
		c.CSV.Zone = f.zone
		return payload.CSV(in, c.CSV), nil
	case "fixed":
		c.Fixed.Zone = f.zone
		return payload.Fixed(in, c.Fixed), nil
	case "xml":
		c.XML.Zone = f.zone
		return payload.XML(in, c.XML), nil
	case "jsonl":
		return payload.JSONLines(in, c.JSON.Encoding, 0), nil
	case "json":
		return f.json(payload.UTF8(in, c.JSON.Encoding))
	}
	return f.b2mml(payload.XMLText(in, c.B2MML.Encoding))
}

// readDocument reads a whole text of bounded length.
func readDocument(in io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(in, maxDocument+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxDocument {
		return nil, &payload.Fault{Problem: signal.Problem{Code: "too_large", Item: "document", Reason: fmt.Sprintf("the document is larger than %d bytes", maxDocument),
			NextStep: "let the sender write smaller documents, or a format that is read record by record (jsonl, csv, xml with record)"}}
	}
	return text, nil
}

// list is a Reader of records that are all there.
type list struct {
	records []payload.Record
	next    int
}

func (l *list) Next() (payload.Record, error) {
	if l.next == len(l.records) {
		return payload.Record{}, io.EOF
	}
	l.next++
	return l.records[l.next-1], nil
}

func (f *feed) json(in io.Reader) (payload.Reader, error) {
	text, err := readDocument(in)
	if err != nil {
		return nil, err
	}
	if !utf8.Valid(text) {
		return nil, &payload.Fault{Problem: signal.Problem{Code: "bad_encoding", Item: "document", Reason: "the document holds characters that cannot be read", NextStep: "set json: encoding to what the sender writes, or let it write UTF-8"}}
	}
	v, err := payload.JSON(text)
	if err != nil {
		return nil, &payload.Fault{Problem: signal.Problem{Code: "bad_json", Item: "document", Reason: err.Error(),
			NextStep: "correct the sender; a document that ends too early was perhaps taken while it was being written"}}
	}
	if p := f.config.JSON.Record; p != "" {
		found, ok := dig(v, p)
		if !ok {
			return nil, &payload.Fault{Problem: signal.Problem{Code: "record_missing", Item: p, Reason: fmt.Sprintf("the document has no %q", p), NextStep: "correct json: record, or the sender"}}
		}
		v = found
	}
	values, ok := v.([]any)
	if !ok {
		values = []any{v}
	}
	out := &list{}
	for _, v := range values {
		rec := payload.Record{Value: v, Raw: rawOf(v)}
		if len(values) == 1 && len(text) <= maxPayload {
			rec.Raw = text
		}
		out.records = append(out.records, rec)
	}
	return out, nil
}

const maxPayload = 64 << 10

// rawOf writes a value as JSON, for a person who has to look at it.
func rawOf(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		return []byte(fmt.Sprint(v))
	}
	return raw[:min(len(raw), maxPayload)]
}

// dig follows a path such as data.rows through maps.
func dig(v any, path string) (any, bool) {
	for _, part := range strings.Split(path, ".") {
		m, ok := v.(map[string]any)
		if !ok {
			return nil, false
		}
		if v, ok = m[part]; !ok {
			return nil, false
		}
	}
	return v, true
}

// at is a field of a record, by its own name or by a path.
func at(v any, name string) (any, bool) {
	if m, ok := v.(map[string]any); ok {
		if field, ok := m[name]; ok {
			return field, true
		}
	}
	return dig(v, name)
}

func (f *feed) b2mml(in io.Reader) (payload.Reader, error) {
	text, err := readDocument(in)
	if err != nil {
		return nil, err
	}
	c := f.config.B2MML
	doc, err := b2mml.Read(text, b2mml.Options{Zone: f.zone, Verbs: c.Verbs, Actions: c.Actions, MaterialUse: c.MaterialUse})
	var bad *b2mml.Error
	if errors.As(err, &bad) {
		return nil, &payload.Fault{Problem: bad.Problem, Line: bad.Line}
	}
	if err != nil {
		return nil, err
	}
	records := doc.Records
	answers := f.answers != nil || len(records) == 0 // a ConfirmBOD among reports is an answer nevertheless
	if answers {
		records = doc.Answers
		if len(records) == 0 {
			return nil, &payload.Fault{Problem: signal.Problem{Code: "no_answer", Item: doc.Root, Reason: "the document answers no work order",
				NextStep: "let only ConfirmBOD, Acknowledge, Respond and Performance documents be laid into the answers' folder"}}
		}
	}
	out := &list{}
	for _, r := range records {
		rec := payload.Record{Raw: bytes.Clone(r.Raw), Line: r.Line, At: r.At, Problem: r.Problem}
		if r.Problem == nil && answers {
			rec.Value = answer(r.Value)
		} else if r.Problem == nil {
			rec.Value = r.Value
		}
		out.records = append(out.records, rec)
	}
	return out, nil
}

// answer is a record that answers a work order, whatever feed it comes in.
type answer map[string]any

// wanted reports whether a record passes where. In formats whose records all have the same fields, one that is not there is
// a fault: it would leave out everything.
func (f *feed) wanted(v any) (bool, *signal.Problem) {
	for name, text := range f.config.Where {
		field, ok := at(v, name)
		if !ok && (f.config.Format == "csv" || f.config.Format == "fixed") {
			return false, &signal.Problem{Code: "field_missing", Item: name, Reason: fmt.Sprintf("where asks for %q, which the records do not have", name), NextStep: "correct where: fields are named as columns name them"}
		}
		if !ok || strings.TrimSpace(textOf(field)) != text {
			return false, nil
		}
	}
	return true, nil
}

func textOf(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano)
	}
	return fmt.Sprint(v)
}

// when is the time that a record carries; zero when it carries none.
func (f *feed) when(rec payload.Record) time.Time {
	if f.config.Time == "" {
		return rec.At
	}
	field, _ := at(rec.Value, f.config.Time)
	switch t := field.(type) {
	case time.Time:
		return t
	case string:
		if parsed, ok := payload.Time(t, f.zone); ok {
			return parsed
		}
	}
	return time.Time{}
}

var escape = strings.NewReplacer(`\`, `\\`, `|`, `\|`, `,`, `\,`).Replace

// position is a record's identity: its key where the configuration names one, or else its content and its place in it.
func (f *feed) position(v any, hash string, n int) (string, *signal.Problem) {
	if len(f.config.Key) == 0 {
		return fmt.Sprintf("%s|%d", hash, n), nil
	}
	parts := make([]string, len(f.config.Key))
	for i, name := range f.config.Key {
		field, ok := at(v, name)
		if parts[i] = escape(textOf(field)); !ok || parts[i] == "" {
			return "", &signal.Problem{Code: "key_missing", Item: name, Reason: fmt.Sprintf("the record has no %q, which is a part of its key", name),
				NextStep: "correct the record at its source, or key"}
		}
	}
	return "key|" + strings.Join(parts, ","), nil
}
