package mes

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
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

// number reports whether text is a JSON number. It is asked of nearly every value.
func number(text string) bool {
	text = strings.TrimPrefix(text, "-")
	whole := digits(text)
	if whole == 0 || whole > 1 && text[0] == '0' {
		return false
	}
	if text = text[whole:]; text != "" && text[0] == '.' {
		n := digits(text[1:])
		if n == 0 {
			return false
		}
		text = text[1+n:]
	}
	if text != "" && (text[0] == 'e' || text[0] == 'E') {
		if text = text[1:]; text != "" && (text[0] == '+' || text[0] == '-') {
			text = text[1:]
		}
		return text != "" && digits(text) == len(text)
	}
	return text == ""
}

// digits is how many digits text begins with.
func digits(text string) int {
	n := 0
	for n < len(text) && text[n] >= '0' && text[n] <= '9' {
		n++
	}
	return n
}

// timeLayouts are the forms in which databases write times; a fraction of any length is read with each.
var timeLayouts = []string{"2006-01-02 15:04:05", "2006-01-02T15:04:05", "2006-01-02 15:04:05Z07", "2006-01-02 15:04:05Z07:00",
	"2006-01-02T15:04:05Z07:00", "2006-01-02 15:04:05 Z07:00", "2006-01-02 15:04", "2006-01-02"}

func parseTime(text string, zone *time.Location) (time.Time, bool) {
	if t, ok := parsePlain(text, zone); ok {
		return t, true
	}
	t, layout := parseLayout(text, zone)
	return t, layout != ""
}

// parsePlain reads the form that nearly all times have, "2006-01-02 15:04:05.999999", without zone or in UTC as PostgreSQL
// writes it ("+00"). What it does not read is for parseLayout: that is right for all forms, and takes several times as long.
func parsePlain(text string, zone *time.Location) (t time.Time, ok bool) {
	if len(text) < 19 || text[4] != '-' || text[7] != '-' || text[10] != ' ' || text[13] != ':' || text[16] != ':' {
		return t, false
	}
	var n [6]int
	for i, at := range [...][2]int{{0, 4}, {5, 7}, {8, 10}, {11, 13}, {14, 16}, {17, 19}} {
		if n[i], ok = decimals(text[at[0]:at[1]]); !ok {
			return t, false
		}
	}
	rest, nanos := text[19:], 0
	if rest != "" && rest[0] == '.' {
		d := digits(rest[1:])
		if d == 0 || d > 9 {
			return t, false
		}
		nanos, _ = decimals(rest[1 : 1+d])
		for range 9 - d {
			nanos *= 10
		}
		rest = rest[1+d:]
	}
	if n[0] == 0 || n[1] < 1 || n[1] > 12 || n[2] < 1 || n[3] > 23 || n[4] > 59 || n[5] > 59 {
		return t, false
	}
	if rest == "+00" {
		rest, zone = "", time.UTC
	}
	if rest != "" || n[2] > 28 && time.Date(n[0], time.Month(n[1]), n[2], 0, 0, 0, 0, time.UTC).Day() != n[2] {
		return t, false
	}
	return time.Date(n[0], time.Month(n[1]), n[2], n[3], n[4], n[5], nanos, zone), true
}

// decimals is the number that a few digits make.
func decimals(text string) (n int, ok bool) {
	for i := range len(text) {
		c := text[i] - '0'
		if c > 9 {
			return 0, false
		}
		n = n*10 + int(c)
	}
	return n, text != ""
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
func keyText(values []any) string { return string(appendKey(nil, values)) }

func appendKey(text []byte, values []any) []byte {
	for i, v := range values {
		if i > 0 {
			text = append(text, ',')
		}
		text = append(text, escape(keyPart(v))...)
	}
	return text
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

func escape(text string) string {
	if !strings.ContainsAny(text, `\|,`) {
		return text
	}
	return escapes.Replace(text)
}

var escapes = strings.NewReplacer(`\`, `\\`, `|`, `\|`, `,`, `\,`)
