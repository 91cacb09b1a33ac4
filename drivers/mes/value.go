package mes

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	mssql "github.com/microsoft/go-mssqldb"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// column is one column of a query's table.
type column struct {
	name string
	kind kind
}

// kind is what a column holds, as far as its values need care.
type kind int

const (
	kindPlain  kind = iota // by the type that the database library gives
	kindNumber             // text that is an exact number
	kindLocal              // a time without a zone
	kindTime               // a time with a zone
	kindDate
	kindJSON
	kindUUID // SQL Server's byte order
	kindText
	kindBool
	kindBytes
	kindFloat32 // a float that the library hands over as a longer one
)

// kindOf reads a database's name of a column type. SQLite's is free text of the table's maker.
func kindOf(driver, typeName string) kind {
	name, _, _ := strings.Cut(strings.ToUpper(typeName), "(")
	name = strings.TrimSpace(name)
	switch name {
	case "DECIMAL", "NUMERIC", "MONEY", "SMALLMONEY", "NUMBER":
		return kindNumber
	case "DATE":
		return kindDate
	case "JSON", "JSONB":
		return kindJSON
	case "UNIQUEIDENTIFIER":
		return kindUUID
	case "DATETIME", "DATETIME2", "SMALLDATETIME":
		return kindLocal
	case "TIMESTAMPTZ", "DATETIMEOFFSET":
		return kindTime
	case "TIMESTAMP":
		if driver == "mysql" { // stored in UTC, and that is the session's zone
			return kindTime
		}
		return kindLocal
	case "BOOL", "BOOLEAN":
		return kindBool
	case "FLOAT4":
		return kindFloat32
	case "REAL":
		if driver == "sqlserver" {
			return kindFloat32
		}
	case "BYTEA", "VARBINARY", "BINARY", "BLOB", "IMAGE", "ROWVERSION":
		return kindBytes
	}
	if driver == "mysql" {
		switch {
		case strings.HasSuffix(name, "INT"), name == "YEAR", name == "FLOAT", name == "DOUBLE":
			return kindNumber
		case strings.HasSuffix(name, "CHAR"), strings.HasSuffix(name, "TEXT"), name == "ENUM", name == "SET", name == "TIME":
			return kindText
		}
	}
	return kindPlain
}

// value turns what the database library returned into a signal's value.
func (c column) value(raw any, zone *time.Location) (any, error) {
	switch v := raw.(type) {
	case nil:
		return nil, nil
	case bool:
		return v, nil
	case int64:
		if c.kind == kindBool {
			return v != 0, nil
		}
		return signal.Number(strconv.FormatInt(v, 10)), nil
	case uint64:
		return signal.Number(strconv.FormatUint(v, 10)), nil
	case float64:
		if c.kind == kindFloat32 {
			return float(v, 32), nil
		}
		return float(v, 64), nil
	case float32:
		return float(float64(v), 32), nil
	case time.Time:
		return c.time(v, zone), nil
	case string:
		return c.text(v, zone)
	case []byte:
		if c.kind == kindUUID {
			var u mssql.UniqueIdentifier
			if err := u.Scan(v); err != nil {
				return nil, err
			}
			return u.String(), nil
		}
		if c.kind == kindPlain || c.kind == kindBytes {
			return bytes.Clone(v), nil
		}
		return c.text(string(v), zone)
	}
	return nil, fmt.Errorf("column %q has a value of type %T", c.name, raw)
}

// float is the shortest decimal that reads back equal; what is no number stays text.
func float(v float64, bits int) any {
	text := strconv.FormatFloat(v, 'g', -1, bits)
	if math.IsInf(v, 0) || math.IsNaN(v) {
		return text
	}
	return signal.Number(text)
}

func (c column) time(v time.Time, zone *time.Location) any {
	switch c.kind {
	case kindDate:
		return v.Format(time.DateOnly)
	case kindLocal: // the library put the clock's reading into UTC
		return time.Date(v.Year(), v.Month(), v.Day(), v.Hour(), v.Minute(), v.Second(), v.Nanosecond(), zone)
	}
	return v
}

func (c column) text(v string, zone *time.Location) (any, error) {
	switch c.kind {
	case kindNumber:
		if number(v) {
			return signal.Number(v), nil
		}
	case kindJSON:
		dec := json.NewDecoder(strings.NewReader(v))
		dec.UseNumber()
		var out any
		if dec.Decode(&out) == nil {
			if _, end := dec.Token(); end == io.EOF {
				return out, nil
			}
		}
	case kindLocal:
		if t, ok := parseTime(v, zone); ok {
			return t, nil
		}
	case kindTime:
		if t, ok := parseTime(v, time.UTC); ok {
			return t, nil
		}
	}
	return v, nil
}

// number reports whether text is a JSON number.
func number(text string) bool {
	return text != "" && (text[0] == '-' || text[0] >= '0' && text[0] <= '9') && json.Valid([]byte(text))
}

// timeLayouts are the forms in which databases write times; a fraction of any length is read with each.
var timeLayouts = []string{"2006-01-02 15:04:05", "2006-01-02T15:04:05", "2006-01-02 15:04:05Z07", "2006-01-02 15:04:05Z07:00",
	"2006-01-02T15:04:05Z07:00", "2006-01-02 15:04:05 Z07:00", "2006-01-02 15:04", "2006-01-02"}

func parseTime(text string, zone *time.Location) (time.Time, bool) {
	t, layout := parseLayout(text, zone)
	return t, layout != ""
}

func parseLayout(text string, zone *time.Location) (time.Time, string) {
	for _, layout := range timeLayouts {
		if len(text) > 10 && len(layout) > 10 && text[10] != layout[10] {
			continue // a failed attempt costs more than all other work on a value
		}
		if len(text) > 19 && zoned(text[19:]) != strings.HasPrefix(strings.TrimSpace(layout[min(19, len(layout)):]), "Z") {
			continue
		}
		if t, err := time.ParseInLocation(layout, text, zone); err == nil {
			return t, layout
		}
	}
	return time.Time{}, ""
}

// zoned reports whether what follows the seconds has a zone.
func zoned(rest string) bool { return strings.ContainsAny(rest, "+-Z") }

// keyText writes key values so that no two keys look alike.
func keyText(values []any) string {
	parts := make([]string, len(values))
	for i, v := range values {
		parts[i] = escape(keyPart(v))
	}
	return strings.Join(parts, ",")
}

func keyPart(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case signal.Number:
		return string(v)
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano)
	case []byte:
		return fmt.Sprintf("%x", v)
	}
	return fmt.Sprint(v)
}

var escape = strings.NewReplacer(`\`, `\\`, `|`, `\|`, `,`, `\,`).Replace

// payload is a row as JSON, for a person who has to look at it. It is made of every row, so it is made by hand. The columns
// come in their order, what else the row has behind them.
func payload(row map[string]any, columns []column) []byte {
	b := append(make([]byte, 0, 32*(len(row)+1)), '{')
	n := 0
	for _, c := range columns {
		if v, ok := row[c.name]; ok {
			b = appendField(b, c.name, v)
			n++
		}
	}
	if n < len(row) {
		for _, name := range slices.Sorted(maps.Keys(row)) {
			if !slices.ContainsFunc(columns, func(c column) bool { return c.name == name }) {
				b = appendField(b, name, row[name])
			}
		}
	}
	return append(b, '}')
}

func appendField(b []byte, name string, v any) []byte {
	if len(b) > 1 {
		b = append(b, ',')
	}
	return appendValue(append(appendText(b, name), ':'), v)
}

func appendValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...)
	case bool:
		return strconv.AppendBool(b, v)
	case string:
		return appendText(b, v)
	case signal.Number:
		if number(string(v)) {
			return append(b, v...)
		}
		return appendText(b, string(v))
	case time.Time:
		return append(v.AppendFormat(append(b, '"'), time.RFC3339Nano), '"')
	}
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return appendText(b, fmt.Sprint(v))
	}
	return append(b, bytes.TrimSuffix(text.Bytes(), []byte("\n"))...)
}

func appendText(b []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x80 {
			var quoted bytes.Buffer
			enc := json.NewEncoder(&quoted)
			enc.SetEscapeHTML(false)
			if enc.Encode(text) != nil {
				return append(b, `""`...)
			}
			return append(b, bytes.TrimSuffix(quoted.Bytes(), []byte("\n"))...)
		}
	}
	b = append(b, '"')
	b = append(b, text...)
	return append(b, '"')
}
