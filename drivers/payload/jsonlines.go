package payload

import (
	"fmt"
	"io"
	"strings"
)

// JSONLines reads a text with one JSON value on each line. A bad line is a fault of its record only. maxRecord bounds a line in
// bytes; 1 MiB when 0.
func JSONLines(r io.Reader, encoding string, maxRecord int) Reader {
	if maxRecord == 0 {
		maxRecord = 1 << 20
	}
	return &jsonLines{newLines(UTF8(r, encoding), maxRecord)}
}

type jsonLines struct{ lines *lines }

func (j *jsonLines) Next() (Record, error) {
	for {
		l, err := j.lines.next()
		if err != nil {
			return Record{}, err
		}
		if strings.TrimSpace(l.text) == "" {
			continue
		}
		if l.cut {
			return bad(l.text, l.number, "too_large", lineItem(l.number), fmt.Sprintf("the line is longer than %d bytes", j.lines.most), "raise max_record, or let the sender write one value on each line"), nil
		}
		if broken(l.text) {
			return bad(l.text, l.number, "bad_encoding", lineItem(l.number), "the line holds characters that cannot be read", badEncodingStep), nil
		}
		v, err := JSON([]byte(l.text))
		if err != nil {
			return bad(l.text, l.number, "bad_json", lineItem(l.number), err.Error(), "correct the line at its source"), nil
		}
		return Record{Value: v, Raw: raw(l.text), Line: l.number}, nil
	}
}
