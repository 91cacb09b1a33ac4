package payload

import (
	"bufio"
	"bytes"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

// encodings by the names that configurations and XML prologs use, in lower case. Nil is UTF-8, which needs no decoding.
var encodings = map[string]encoding.Encoding{
	"utf-8": nil, "utf8": nil, "us-ascii": nil, "ascii": nil,
	"utf-16":   unicode.UTF16(unicode.LittleEndian, unicode.UseBOM),
	"utf-16le": unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM), "utf-16be": unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM),
	"windows-1250": charmap.Windows1250, "windows-1251": charmap.Windows1251, "windows-1252": charmap.Windows1252, "cp1252": charmap.Windows1252,
	"iso-8859-1": charmap.ISO8859_1, "latin1": charmap.ISO8859_1, "iso-8859-2": charmap.ISO8859_2, "iso-8859-15": charmap.ISO8859_15,
	"cp437": charmap.CodePage437, "cp850": charmap.CodePage850,
}

// Encodings lists the names that an encoding can have.
func Encodings() []string {
	names := []string{"auto"}
	for name := range encodings {
		names = append(names, name)
	}
	slices.Sort(names[1:])
	return names
}

// KnownEncoding reports whether name is one of Encodings; empty means auto.
func KnownEncoding(name string) bool {
	_, ok := encodings[strings.ToLower(name)]
	return ok || name == "" || strings.EqualFold(name, "auto")
}

// UTF8 reads text of the named encoding as UTF-8 and takes a byte order mark off. With "auto", or without a name, the mark
// decides, or else the zero bytes that UTF-16 has; without either it is UTF-8. What is no valid UTF-8 passes unchanged, so that
// the fault can be named where it stands. What another encoding does not know becomes U+FFFD. An unknown name is taken as auto.
func UTF8(r io.Reader, name string) io.Reader {
	in := bufio.NewReaderSize(r, 64<<10)
	head, _ := in.Peek(4)
	name = strings.ToLower(name)
	if marked := byMark(head); marked != "" {
		name = marked // a mark is never wrong; a configuration can be
	}
	if _, ok := encodings[name]; !ok {
		name = byZeros(head)
	}
	if e := encodings[name]; e != nil {
		in = bufio.NewReaderSize(transform.NewReader(in, e.NewDecoder()), 64<<10)
	}
	if head, _ := in.Peek(3); bytes.HasPrefix(head, []byte("\xEF\xBB\xBF")) {
		in.Discard(3)
	}
	return in
}

func byMark(head []byte) string {
	switch {
	case bytes.HasPrefix(head, []byte("\xEF\xBB\xBF")):
		return "utf-8"
	case bytes.HasPrefix(head, []byte{0xFF, 0xFE}):
		return "utf-16le"
	case bytes.HasPrefix(head, []byte{0xFE, 0xFF}):
		return "utf-16be"
	}
	return ""
}

func byZeros(head []byte) string {
	switch {
	case len(head) == 4 && head[0] != 0 && head[1] == 0 && head[2] != 0 && head[3] == 0:
		return "utf-16le"
	case len(head) == 4 && head[0] == 0 && head[1] != 0 && head[2] == 0 && head[3] != 0:
		return "utf-16be"
	}
	return "utf-8"
}

// broken reports whether text holds what could not be decoded.
func broken(text string) bool {
	return !utf8.ValidString(text) || strings.ContainsRune(text, utf8.RuneError)
}

// XMLText reads an XML document as UTF-8: by its byte order mark, by the name given (empty or auto: none), or else by the
// encoding that its prolog declares.
func XMLText(r io.Reader, name string) io.Reader {
	in := bufio.NewReaderSize(r, 64<<10)
	if name == "" || strings.EqualFold(name, "auto") {
		head, _ := in.Peek(1024)
		if byMark(head[:min(4, len(head))]) == "" && byZeros(head[:min(4, len(head))]) == "utf-8" {
			name = declared(head)
		}
	}
	return UTF8(in, name)
}

// declared is the encoding that an XML prolog names; empty without one. A prolog that can be read here byte by byte is no
// UTF-16, whatever it says: programs write it from texts that they held as UTF-16.
func declared(head []byte) string {
	head = bytes.TrimLeft(head, " \t\r\n")
	if !bytes.HasPrefix(head, []byte("<?xml")) {
		return ""
	}
	prolog, _, _ := bytes.Cut(head, []byte("?>"))
	_, value, ok := bytes.Cut(prolog, []byte("encoding"))
	if !ok {
		return ""
	}
	value = bytes.TrimLeft(value, " \t\r\n=")
	if len(value) < 2 || value[0] != '"' && value[0] != '\'' {
		return ""
	}
	end := bytes.IndexByte(value[1:], value[0])
	if end < 0 {
		return ""
	}
	name := strings.ToLower(string(value[1 : 1+end]))
	if strings.HasPrefix(name, "utf-16") || strings.HasPrefix(name, "ucs-2") || strings.HasPrefix(name, "utf-32") {
		return "utf-8"
	}
	return name
}
