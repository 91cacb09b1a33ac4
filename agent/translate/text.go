package translate

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// FNV-1a, 64 bits.
const (
	fnvStart uint64 = 14695981039346656037
	fnvPrime uint64 = 1099511628211
)

func fnvByte(h uint64, b byte) uint64 { return (h ^ uint64(b)) * fnvPrime }

func fnvText(h uint64, s string) uint64 {
	for i := 0; i < len(s); i++ {
		h = fnvByte(h, s[i])
	}
	return fnvByte(h, 0)
}

// texts keeps short texts one behind the other, in pieces that grow, so that a record needs no memory for each of its own.
type texts struct{ piece strings.Builder }

const (
	leastTexts = 256
	mostTexts  = 16 << 10
)

func (t *texts) keep(text []byte) string {
	if t.piece.Cap()-t.piece.Len() < len(text) {
		size := max(min(2*t.piece.Cap(), mostTexts), leastTexts, len(text))
		t.piece = strings.Builder{}
		t.piece.Grow(size)
	}
	at := t.piece.Len()
	t.piece.Write(text)
	return t.piece.String()[at:]
}

// plain writes any value as text, for readings and evidence.
func plain(v any) string {
	v = signal.Whole(v)
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return strings.ToValidUTF8(v, "\uFFFD")
	case signal.Number:
		return string(v)
	case bool:
		return strconv.FormatBool(v)
	case time.Time:
		return v.Format(time.RFC3339Nano)
	case []byte:
		return base64.StdEncoding.EncodeToString(v)
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // a person reads it
	if err := enc.Encode(v); err != nil {
		return fmt.Sprintf("%v", v)
	}
	return strings.TrimSuffix(b.String(), "\n")
}
