// Package payload decodes what sources send as bytes into values that signals carry.
//
// It owns the formats that several drivers share. It promises that numbers stay exactly as they were written, that a fault is
// named with its place, and that no input makes it fail otherwise. It never touches a network or a file.
package payload

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// JSON decodes one JSON value: nil, bool, string, json.Number, []any and map[string]any. Its error says what is wrong and at
// which byte.
func JSON(text []byte) (any, error) {
	if v, ok := parseJSON(text); ok {
		return v, nil
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var v any
	err := dec.Decode(&v)
	at := dec.InputOffset()
	if err == nil {
		if _, end := dec.Token(); end == io.EOF {
			return v, nil
		}
		err = errors.New("more text follows after the end of the value")
	}
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		at = syntax.Offset
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		err, at = errors.New("the message ends too early"), int64(len(text))
	}
	return nil, fmt.Errorf("not valid JSON at byte %d: %s", at, strings.TrimPrefix(err.Error(), "json: "))
}

// Bounds of what parseJSON reads. The parts of a value point into one copy of its message, so that a long message would be
// held in memory by its shortest part.
const (
	shortJSON = 4096 // bytes
	flatJSON  = 64   // levels
)

// parseJSON reads a short message as encoding/json would with UseNumber, several times as fast. It reports false for one
// that it does not read: then encoding/json decides what that is, and says what is wrong with it.
func parseJSON(payload []byte) (any, bool) {
	if len(payload) > shortJSON || !utf8.Valid(payload) {
		return nil, false
	}
	p := jsonText{text: string(payload)}
	v, ok := p.value(0)
	p.space()
	return v, ok && p.at == len(p.text)
}

// jsonText is a text and how far it is read.
type jsonText struct {
	text string
	at   int
}

func (p *jsonText) space() {
	for p.at < len(p.text) {
		switch p.text[p.at] {
		case ' ', '\t', '\r', '\n':
			p.at++
		default:
			return
		}
	}
}

// take reads one character, which white space may precede.
func (p *jsonText) take(c byte) bool {
	p.space()
	if p.at < len(p.text) && p.text[p.at] == c {
		p.at++
		return true
	}
	return false
}

func (p *jsonText) value(level int) (any, bool) {
	if p.space(); p.at >= len(p.text) || level > flatJSON {
		return nil, false
	}
	switch c := p.text[p.at]; c {
	case '{':
		return p.object(level)
	case '[':
		return p.array(level)
	case '"':
		return p.string()
	case 't':
		return true, p.word("true")
	case 'f':
		return false, p.word("false")
	case 'n':
		return nil, p.word("null")
	}
	return p.number()
}

func (p *jsonText) word(w string) bool {
	if !strings.HasPrefix(p.text[p.at:], w) {
		return false
	}
	p.at += len(w)
	return true
}

func (p *jsonText) object(level int) (any, bool) {
	p.at++
	m := map[string]any{}
	if p.take('}') {
		return m, true
	}
	for {
		if p.space(); p.at >= len(p.text) || p.text[p.at] != '"' {
			return nil, false
		}
		key, ok := p.string()
		if !ok || !p.take(':') {
			return nil, false
		}
		v, ok := p.value(level + 1)
		if !ok {
			return nil, false
		}
		m[key] = v
		if p.take('}') {
			return m, true
		}
		if !p.take(',') {
			return nil, false
		}
	}
}

func (p *jsonText) array(level int) (any, bool) {
	p.at++
	list := []any{}
	if p.take(']') {
		return list, true
	}
	for {
		v, ok := p.value(level + 1)
		if !ok {
			return nil, false
		}
		list = append(list, v)
		if p.take(']') {
			return list, true
		}
		if !p.take(',') {
			return nil, false
		}
	}
}

// string reads from a quotation mark on; texts with escapes are read by encoding/json.
func (p *jsonText) string() (string, bool) {
	start := p.at
	escaped := false
	for i := start + 1; i < len(p.text); i++ {
		switch c := p.text[i]; {
		case c == '"':
			p.at = i + 1
			if !escaped {
				return p.text[start+1 : i], true
			}
			var s string
			err := json.Unmarshal([]byte(p.text[start:p.at]), &s)
			return s, err == nil
		case c == '\\':
			escaped = true
			i++
		case c < ' ':
			return "", false
		}
	}
	return "", false
}

// number reads -?(0|[1-9][0-9]*)(.[0-9]+)?([eE][+-]?[0-9]+)?
func (p *jsonText) number() (any, bool) {
	start := p.at
	p.skip("-")
	if !p.skip("0") && !p.digits() {
		return nil, false
	}
	if p.skip(".") && !p.digits() {
		return nil, false
	}
	if p.skip("eE") {
		p.skip("+-")
		if !p.digits() {
			return nil, false
		}
	}
	return json.Number(p.text[start:p.at]), true
}

func (p *jsonText) skip(any string) bool {
	if p.at < len(p.text) && strings.IndexByte(any, p.text[p.at]) >= 0 {
		p.at++
		return true
	}
	return false
}

func (p *jsonText) digits() bool {
	start := p.at
	for p.at < len(p.text) && p.text[p.at] >= '0' && p.text[p.at] <= '9' {
		p.at++
	}
	return p.at > start
}
