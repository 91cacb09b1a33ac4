package payload

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// CSVOptions say how a text with separated fields is written. The zero value is UTF-8 or what a byte order mark says, with a
// header, and the delimiter that the header shows.
type CSVOptions struct {
	Encoding string `yaml:"encoding"`
	// Delimiter is one character, or "auto" (default): of ; tab | , the one that the header has most of; a comma without a header.
	Delimiter string `yaml:"delimiter"`
	// Quote is one character, `"` by default, or "none".
	Quote string `yaml:"quote"`
	// Header false says that the first line is a record; Columns then names the fields in their order.
	Header *bool `yaml:"header"`
	// SkipLines at the beginning are passed over. Lines that begin with Comment are, everywhere.
	SkipLines int    `yaml:"skip_lines"`
	Comment   string `yaml:"comment"`
	// Columns give fields a type. Fields that are not listed stay text.
	Columns []Column `yaml:"columns"`
	// Trim takes spaces off unquoted fields.
	Trim   bool `yaml:"trim"`
	Locale `yaml:",inline"`
	// MaxRecord bounds a record in bytes; 64 KiB when 0. A quotation mark that is never closed costs no more than its line.
	MaxRecord int `yaml:"max_record"`
}

const defaultMaxRecord = 64 << 10

// Validate reports what is wrong with the options.
func (o CSVOptions) Validate() error {
	switch {
	case !KnownEncoding(o.Encoding):
		return fmt.Errorf("encoding %q is none of %s", o.Encoding, strings.Join(Encodings(), ", "))
	case o.Delimiter != "" && o.Delimiter != "auto" && (!oneCharacter(o.Delimiter)):
		return fmt.Errorf("delimiter %q is neither auto nor one character (a tab is written \"\\t\")", o.Delimiter)
	case o.Quote != "" && o.Quote != "none" && (!oneCharacter(o.Quote) || o.Quote == o.Delimiter):
		return fmt.Errorf("quote %q is neither none nor one character other than the delimiter", o.Quote)
	case o.SkipLines < 0 || o.MaxRecord < 0:
		return errors.New("skip_lines and max_record are not negative")
	case o.Header != nil && !*o.Header && len(o.Columns) == 0:
		return errors.New("header: false needs columns that name the fields in their order")
	}
	return validate(o.Columns, o.Locale)
}

func oneCharacter(s string) bool {
	r, n := utf8.DecodeRuneInString(s)
	return n == len(s) && n > 0 && r != utf8.RuneError && r != '\r' && r != '\n'
}

func validate(columns []Column, l Locale) error {
	keys := map[string]bool{}
	for _, c := range columns {
		if err := c.Validate(); err != nil {
			return err
		}
		if keys[c.key()] {
			return fmt.Errorf("column %q is listed twice", c.key())
		}
		keys[c.key()] = true
	}
	return l.Validate()
}

// CSV reads a text with separated fields, such as r holds. Records are maps by column. A line with too few or too many fields,
// a field that is not of its type, a torn quotation and a broken character are faults of their record only.
func CSV(r io.Reader, o CSVOptions) Reader {
	c := &csvReader{o: o, lines: newLines(UTF8(r, o.Encoding), o.MaxRecord), quote: '"'}
	if o.Quote == "none" {
		c.quote = -1
	} else if o.Quote != "" {
		c.quote, _ = utf8.DecodeRuneInString(o.Quote)
	}
	if o.Delimiter != "" && o.Delimiter != "auto" {
		c.delimiter, _ = utf8.DecodeRuneInString(o.Delimiter)
	}
	return c
}

type csvReader struct {
	o         CSVOptions
	lines     *lines
	delimiter rune // 0 until it is known
	quote     rune // -1: none
	fields    []Column
	started   bool
}

func (c *csvReader) Next() (Record, error) {
	if !c.started {
		if err := c.start(); err != nil {
			return Record{}, err
		}
		c.started = true
	}
	first, values, problem, err := c.row()
	if err != nil {
		return Record{}, err
	}
	if problem != "" {
		return bad(first.text, first.number, "bad_csv", lineItem(first.number), problem, "correct the line at its source and deliver it in a new file"), nil
	}
	return c.record(first, values), nil
}

// start reads what stands before the first record.
func (c *csvReader) start() error {
	for range c.o.SkipLines {
		if _, err := c.lines.next(); err != nil {
			return err
		}
	}
	if c.o.Header != nil && !*c.o.Header {
		c.fields = c.o.Columns
		if c.delimiter == 0 {
			c.delimiter = ','
		}
		return nil
	}
	line, err := c.skipEmpty()
	if err != nil {
		return err
	}
	if d, ok := strings.CutPrefix(line.text, "sep="); ok && oneCharacter(d) { // Excel's way to say it
		if c.delimiter == 0 {
			c.delimiter, _ = utf8.DecodeRuneInString(d)
		}
		if line, err = c.skipEmpty(); err != nil {
			return err
		}
	}
	if c.delimiter == 0 {
		c.delimiter = guessDelimiter(line.text)
	}
	c.lines.back(line)
	first, names, problem, err := c.row()
	if err != nil {
		return err
	}
	if problem != "" || broken(first.text) {
		return &Fault{signal.Problem{Code: "bad_header", Item: "header", Reason: "the header cannot be read: " + cmpText(problem, "its characters are broken"), NextStep: badEncodingStep}, first.number}
	}
	return c.header(names, first.number)
}

func cmpText(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func (c *csvReader) header(names []string, line int) error {
	listed := map[string]Column{}
	for _, col := range c.o.Columns {
		listed[col.Name] = col
	}
	seen := map[string]bool{}
	for len(names) > 1 && strings.TrimSpace(names[len(names)-1]) == "" { // a delimiter at the end of each line
		names = names[:len(names)-1]
	}
	for i, name := range names {
		name = strings.TrimSpace(name)
		if name == "" {
			name = fmt.Sprintf("column_%d", i+1)
		}
		if seen[name] {
			return &Fault{signal.Problem{Code: "column_twice", Item: name, Reason: fmt.Sprintf("the header names column %q twice", name),
				NextStep: "let the sender give each column a name of its own, or set header: false with skip_lines: 1 and columns"}, line}
		}
		seen[name] = true
		col, ok := listed[name]
		if !ok {
			col = Column{Name: name}
		}
		c.fields = append(c.fields, col)
	}
	for _, col := range c.o.Columns {
		if !seen[col.Name] {
			return &Fault{signal.Problem{Code: "column_missing", Item: col.Name,
				Reason:   fmt.Sprintf("the header has no column %q; it has %s, separated by %q", col.Name, quoted(names), c.delimiter),
				NextStep: "correct columns or delimiter, or let the sender write the column"}, line}
		}
	}
	return nil
}

func quoted(names []string) string {
	const most = 30
	out := make([]string, 0, most+1)
	for i, n := range names {
		if i == most {
			out = append(out, "...")
			break
		}
		out = append(out, fmt.Sprintf("%q", excerpt(n)))
	}
	return strings.Join(out, ", ")
}

func guessDelimiter(header string) rune {
	best, most := ',', strings.Count(header, ",")
	for _, d := range ";\t|" {
		if n := strings.Count(header, string(d)); n > most {
			best, most = d, n
		}
	}
	return best
}

// skipEmpty returns the next line that is neither empty nor a comment.
func (c *csvReader) skipEmpty() (line, error) {
	for {
		l, err := c.lines.next()
		if err != nil || strings.TrimSpace(l.text) != "" && (c.o.Comment == "" || !strings.HasPrefix(l.text, c.o.Comment)) {
			return l, err
		}
	}
}

const neverClosed = "a quotation mark is opened and never closed"

// row reads the fields of one record, which may go over several lines.
func (c *csvReader) row() (first line, values []string, problem string, err error) {
	first, err = c.skipEmpty()
	if err != nil {
		return first, nil, "", err
	}
	if first.cut {
		return first, nil, fmt.Sprintf("the line is longer than %d bytes", c.lines.most), nil
	}
	text := first.text
	var more []line
	for {
		values, open, problem := split(text, c.delimiter, c.quote, c.o.Trim)
		if !open && len(more) > 0 && (problem != "" || len(c.fields) > 0 && len(values) != len(c.fields)) {
			// The mark that closed it belongs to another record.
			c.lines.back(more...)
			return first, nil, neverClosed, nil
		}
		if !open {
			first.text = text
			return first, values, problem, nil
		}
		next, err := c.lines.next()
		if err != nil && !errors.Is(err, io.EOF) {
			return first, nil, "", err
		}
		if err == nil {
			more = append(more, next)
		}
		if err != nil || next.cut || len(text)+len(next.text) > c.lines.most {
			c.lines.back(more...)
			return first, nil, neverClosed, nil
		}
		text += "\n" + next.text
	}
}

// split takes a record's text apart. open says that a quotation is not closed yet.
func split(text string, delimiter, quote rune, trim bool) (values []string, open bool, problem string) {
	width := utf8.RuneLen(delimiter)
	for {
		body := text
		if trim {
			body = strings.TrimLeft(text, " ")
		}
		if r, n := utf8.DecodeRuneInString(body); quote < 0 || r != quote || n == 0 {
			end := strings.IndexRune(text, delimiter)
			field := text
			if end >= 0 {
				field = text[:end]
			}
			if trim {
				field = strings.TrimSpace(field)
			}
			values = append(values, field)
			if end < 0 {
				return values, false, ""
			}
			text = text[end+width:]
			continue
		}
		field, rest, closed := quotedField(body, quote)
		if !closed {
			return nil, true, ""
		}
		values = append(values, field)
		rest = strings.TrimLeft(rest, " ")
		if rest == "" {
			return values, false, ""
		}
		if r, _ := utf8.DecodeRuneInString(rest); r != delimiter {
			return values, false, fmt.Sprintf("field %d has text after its closing quotation mark: %q", len(values), excerpt(rest))
		}
		text = rest[width:]
	}
}

// quotedField reads a field that begins with a quotation mark; two of them inside are one.
func quotedField(text string, quote rune) (field, rest string, closed bool) {
	q := string(quote)
	var b strings.Builder
	text = text[len(q):]
	for {
		part, after, ok := strings.Cut(text, q)
		if !ok {
			return "", "", false
		}
		b.WriteString(part)
		if !strings.HasPrefix(after, q) {
			return b.String(), after, true
		}
		b.WriteString(q)
		text = after[len(q):]
	}
}

func (c *csvReader) record(l line, values []string) Record {
	for len(values) > len(c.fields) && values[len(values)-1] == "" { // a delimiter at the end of each line
		values = values[:len(values)-1]
	}
	if len(values) != len(c.fields) {
		return bad(l.text, l.number, "bad_csv", lineItem(l.number), fmt.Sprintf("the line has %d fields, not %d", len(values), len(c.fields)),
			"correct the line at its source; a delimiter inside of a field needs quotation marks")
	}
	return typed(l, values, c.fields, c.o.Locale)
}

// typed makes a record of the texts of its fields.
func typed(l line, values []string, columns []Column, locale Locale) Record {
	if broken(l.text) {
		return bad(l.text, l.number, "bad_encoding", lineItem(l.number), "the line holds characters that cannot be read", badEncodingStep)
	}
	m := make(map[string]any, len(values))
	for i, text := range values {
		if with := columns[i].With; with != "" {
			j := slices.IndexFunc(columns, func(c Column) bool { return c.Name == with })
			if j < 0 {
				return bad(l.text, l.number, "column_missing", with, fmt.Sprintf("line %d: column %q is to be read with %q, which is not there", l.number, columns[i].Name, with), "correct with")
			}
			text = strings.TrimSpace(text + " " + values[j])
		}
		v, err := columns[i].Value(text, locale)
		if err != nil {
			return bad(l.text, l.number, "bad_value", columns[i].Name, fmt.Sprintf("line %d: column %q %v", l.number, columns[i].Name, err),
				"correct the value at its source, or type, layout, decimal and thousands of the column")
		}
		m[columns[i].key()] = v
	}
	return Record{Value: m, Raw: raw(l.text), Line: l.number}
}

// line is one line without its end.
type line struct {
	text   string
	number int
	cut    bool // longer than allowed; text is its beginning
}

// lines reads lines of bounded length, and takes lines back.
type lines struct {
	in     *bufio.Reader
	most   int
	number int
	taken  []line // came back, the next one last
}

func newLines(r io.Reader, most int) *lines {
	if most == 0 {
		most = defaultMaxRecord
	}
	return &lines{in: bufio.NewReaderSize(r, 64<<10), most: most}
}

func (s *lines) back(l ...line) {
	slices.Reverse(l)
	s.taken = append(s.taken, l...)
}

func (s *lines) next() (line, error) {
	if n := len(s.taken); n > 0 {
		l := s.taken[n-1]
		s.taken = s.taken[:n-1]
		return l, nil
	}
	s.number++
	l := line{number: s.number}
	var text []byte
	for {
		part, err := s.in.ReadSlice('\n')
		if room := s.most + 2 - len(text); len(part) > room {
			part, l.cut = part[:room], true
		}
		text = append(text, part...)
		switch {
		case err == nil || errors.Is(err, io.EOF) && len(text) > 0:
			l.text = strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
			l.cut = l.cut || len(l.text) > s.most
			return l, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return line{}, err
		}
	}
}
