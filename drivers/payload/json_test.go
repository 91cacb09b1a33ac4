package payload

import (
	"bytes"
	"encoding/json"
	"io"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

var jsonTexts = []string{
	`{"id":"m1","order":"WO-1","good":12.50,"bad":-0,"big":123456789012345678901234567890.123456789,"exp":1.5E+3,"ok":true,"no":false,"nil":null}`,
	"\t{ \"a\" : [ 1 , 2.0 , [ ] , { } , \"x\" ] , \"a\" : \"last wins\" }\r\n", `"text"`, `"M\u00fcller \"\\\/ \ud83d\ude00"`, `"Müller"`, `[]`, `{}`, `0`, `-1e-9`,
	``, ` `, `{`, `[1,]`, `{"a":1,}`, `{"a" 1}`, `{a:1}`, `01`, `1.`, `.5`, `+1`, `1e`, `-`, `NaN`, `tru`, `nullx`, `"open`, `"bad \x escape"`, `"lone \ud83d half"`, "\"line\nbreak\"",
	`{"a":1} {"b":2}`, `1 2`, "\xef\xbb\xbf{}", "\"\xff\"", `{"":{"":[{"":""}]}}`, `"\u0000"`, "\"\x00\"",
	strings.Repeat("[", 100) + strings.Repeat("]", 100), `"` + strings.Repeat("x", 2*shortJSON) + `"`,
}

// FuzzJSON compares with encoding/json: what parseJSON reads must be the same value.
func FuzzJSON(f *testing.F) {
	for _, text := range jsonTexts {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		got, read := parseJSON(payload)
		dec := json.NewDecoder(bytes.NewReader(payload))
		dec.UseNumber()
		var want any
		err := dec.Decode(&want)
		if err == nil {
			if _, end := dec.Token(); end != io.EOF {
				err = io.ErrUnexpectedEOF
			}
		}
		switch {
		case read && err != nil:
			t.Fatalf("%q is read as %#v, and is wrong: %v", payload, got, err)
		case read && !reflect.DeepEqual(got, want):
			t.Fatalf("%q is read as %#v, want %#v", payload, got, want)
		case !read && err == nil && len(payload) <= flatJSON && utf8.Valid(payload):
			t.Fatalf("%q is not read, and is %#v", payload, want)
		}
	})
}
