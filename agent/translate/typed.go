package translate

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// Typed is a value of a signal as JSON that keeps its type: texts, true, false and null stand for themselves, a list is a
// list; {"n":"1.50"} is a number as its source wrote it, {"t":"2026-03-01T12:00:00+01:00"} a time, {"b":"..."} bytes in base64,
// {"x":"..."} a text that is no UTF-8 in base64, {"m":{...}} an object.
type Typed struct{ Value any }

// MarshalJSON writes the value. It refuses a value that a signal cannot have.
func (t Typed) MarshalJSON() ([]byte, error) {
	v, err := toTyped(t.Value)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (t *Typed) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return err
	}
	var err error
	t.Value, err = fromTyped(v)
	return err
}

func toTyped(v any) (any, error) {
	switch v := v.(type) {
	case nil, bool:
		return v, nil
	case string:
		if !utf8.ValidString(v) {
			return map[string]any{"x": []byte(v)}, nil
		}
		return v, nil
	case signal.Number:
		return map[string]any{"n": string(v)}, nil
	case time.Time:
		return map[string]any{"t": v.Format(time.RFC3339Nano)}, nil
	case []byte:
		return map[string]any{"b": v}, nil
	case []any:
		out := make([]any, len(v))
		for i := range v {
			var err error
			if out[i], err = toTyped(v[i]); err != nil {
				return nil, err
			}
		}
		return out, nil
	case *signal.Row:
		return toTyped(v.Map())
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, x := range v {
			var err error
			if out[k], err = toTyped(x); err != nil {
				return nil, err
			}
		}
		return map[string]any{"m": out}, nil
	}
	return nil, fmt.Errorf("a %T is no value of a signal", v)
}

var errTyped = errors.New("is no typed value")

func fromTyped(v any) (any, error) {
	switch v := v.(type) {
	case nil, bool, string:
		return v, nil
	case []any:
		for i := range v {
			var err error
			if v[i], err = fromTyped(v[i]); err != nil {
				return nil, err
			}
		}
		return v, nil
	case map[string]any:
		return fromTypedObject(v)
	}
	return nil, fmt.Errorf("%v %w", v, errTyped)
}

func fromTypedObject(v map[string]any) (any, error) {
	if len(v) != 1 {
		return nil, fmt.Errorf("an object of %d keys %w", len(v), errTyped)
	}
	for kind, in := range v {
		if m, ok := in.(map[string]any); ok && kind == "m" {
			for k := range m {
				var err error
				if m[k], err = fromTyped(m[k]); err != nil {
					return nil, err
				}
			}
			return m, nil
		}
		text, ok := in.(string)
		if !ok {
			break
		}
		switch kind {
		case "n":
			return signal.Number(text), nil
		case "t":
			return time.Parse(time.RFC3339Nano, text)
		case "b":
			return base64.StdEncoding.DecodeString(text)
		case "x":
			b, err := base64.StdEncoding.DecodeString(text)
			return string(b), err
		}
	}
	return nil, fmt.Errorf("an object of another kind %w", errTyped)
}
