package rest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/payload"
)

// find follows a path such as data.items or lines.0.id; nil where it leads nowhere. The empty path is the value itself.
func find(v any, path string) any {
	if path == "" {
		return v
	}
	for part := range strings.SplitSeq(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[part]
		case []any:
			i, err := strconv.Atoi(part)
			if err != nil || i < 0 || i >= len(x) {
				return nil
			}
			v = x[i]
		default:
			return nil
		}
	}
	return v
}

// plain is a value as text, for identities and places; false for what is no single value.
func plain(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, v != ""
	case signal.Number:
		return string(v), true
	case bool:
		return strconv.FormatBool(v), true
	}
	return "", false
}

var escape = strings.NewReplacer(`\`, `\\`, `|`, `\|`, `,`, `\,`).Replace

// canonical is a record as JSON, the same for the same record however its fields were ordered.
func canonical(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return []byte(fmt.Sprint(v))
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

func contentHash(text []byte) string {
	sum := sha256.Sum256(text)
	return "h" + hex.EncodeToString(sum[:16])
}

// value is a cursor's value that can be compared: a number, a time, or text.
type value struct {
	text   string
	number *big.Rat
	at     time.Time
}

const longestNumber = 60 // characters of a cursor that is compared as a number

func readValue(v any, zone *time.Location) (value, bool) {
	text, ok := plain(v)
	if !ok {
		return value{}, false
	}
	out := value{text: text}
	_, isNumber := v.(signal.Number)
	if digits := strings.Trim(text, "0123456789") == ""; (isNumber || digits) && len(text) <= longestNumber && !strings.ContainsAny(text, "eE") {
		out.number, _ = new(big.Rat).SetString(text)
	}
	if out.number == nil {
		if at, ok := payload.Time(text, zone); ok {
			out.at = at
		}
	}
	return out, true
}

// compare is like strings.Compare. Values of different kinds are compared as text.
func (v value) compare(w value) int {
	switch {
	case v.number != nil && w.number != nil:
		return v.number.Cmp(w.number)
	case !v.at.IsZero() && !w.at.IsZero():
		return v.at.Compare(w.at)
	}
	return strings.Compare(v.text, w.text)
}

// overlap is how far a cursor is taken back before each poll.
type overlap struct {
	span   time.Duration
	number int64
}

func parseOverlap(text string) (overlap, error) {
	if text == "" {
		return overlap{}, nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n >= 0 {
		return overlap{number: n}, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return overlap{span: d}, nil
	}
	return overlap{}, fmt.Errorf("overlap %q is neither a duration such as 10m nor a number", text)
}

// back takes a value back; it is left alone when it is of another kind.
func (o overlap) back(v value) string {
	switch {
	case o.number > 0 && v.number != nil && v.number.IsInt():
		n := new(big.Int).Sub(v.number.Num(), big.NewInt(o.number))
		if n.Sign() < 0 && v.number.Sign() >= 0 {
			n.SetInt64(0)
		}
		return n.String()
	case o.span > 0 && !v.at.IsZero():
		return like(v.text, v.at.Add(-o.span))
	}
	return v.text
}

// like writes a time in the form of another text: with a zone where that has one, with T or a blank between.
func like(text string, at time.Time) string {
	layout := "2006-01-02T15:04:05.999999999"
	if len(text) > 10 && text[10] == ' ' {
		layout = "2006-01-02 15:04:05.999999999"
	}
	if len(text) > 10 && (strings.HasSuffix(text, "Z") || strings.ContainsAny(text[10:], "+-")) {
		layout += "Z07:00"
	}
	return at.Format(layout)
}

// suits reports whether an overlap can be taken from such a value.
func (o overlap) suits(v value) bool {
	return o == overlap{} || o.number > 0 && v.number != nil || o.span > 0 && !v.at.IsZero()
}
