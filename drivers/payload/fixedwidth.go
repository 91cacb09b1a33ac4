package payload

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// FixedOptions say how a text with fields of fixed width is written.
type FixedOptions struct {
	Encoding string `yaml:"encoding"`
	// Columns place the fields: each has Start and Length, in characters.
	Columns []Column `yaml:"columns"`
	// SkipLines at the beginning are passed over. Lines that begin with Comment are, everywhere.
	SkipLines int    `yaml:"skip_lines"`
	Comment   string `yaml:"comment"`
	Locale    `yaml:",inline"`
	// MaxRecord bounds a line in bytes; 64 KiB when 0.
	MaxRecord int `yaml:"max_record"`
}

// Validate reports what is wrong with the options.
func (o FixedOptions) Validate() error {
	if !KnownEncoding(o.Encoding) {
		return fmt.Errorf("encoding %q is none of %s", o.Encoding, strings.Join(Encodings(), ", "))
	}
	if len(o.Columns) == 0 {
		return errors.New("columns is empty: give each field a name, start and length")
	}
	if o.SkipLines < 0 || o.MaxRecord < 0 {
		return errors.New("skip_lines and max_record are not negative")
	}
	for _, c := range o.Columns {
		if c.Start < 1 || c.Length < 1 || c.Start+c.Length > 1<<16 {
			return fmt.Errorf("column %q: start %d counts from 1, length %d is at least 1", c.Name, c.Start, c.Length)
		}
	}
	return validate(o.Columns, o.Locale)
}

// Fixed reads a text with fields of fixed width. Spaces around a field are taken off; a line that ends before a field leaves
// it empty, because editors and mail programs cut spaces at the end.
func Fixed(r io.Reader, o FixedOptions) Reader {
	return &fixedReader{o: o, lines: newLines(UTF8(r, o.Encoding), o.MaxRecord)}
}

type fixedReader struct {
	o       FixedOptions
	lines   *lines
	started bool
}

func (f *fixedReader) Next() (Record, error) {
	if !f.started {
		for range f.o.SkipLines {
			if _, err := f.lines.next(); err != nil {
				return Record{}, err
			}
		}
		f.started = true
	}
	for {
		l, err := f.lines.next()
		if err != nil {
			return Record{}, err
		}
		if strings.TrimSpace(l.text) == "" || l.text == "\x1a" || f.o.Comment != "" && strings.HasPrefix(l.text, f.o.Comment) {
			continue // \x1a: the end of a DOS file
		}
		if l.cut {
			return bad(l.text, l.number, "bad_line", lineItem(l.number), fmt.Sprintf("the line is longer than %d bytes", f.lines.most), "check that the file has line ends"), nil
		}
		characters := []rune(l.text)
		values := make([]string, len(f.o.Columns))
		for i, c := range f.o.Columns {
			from, to := min(c.Start-1, len(characters)), min(c.Start-1+c.Length, len(characters))
			values[i] = strings.TrimSpace(string(characters[from:to]))
		}
		return typed(l, values, f.o.Columns, f.o.Locale), nil
	}
}
