package filedrop

import (
	"bytes"
	"encoding/csv"
	"encoding/xml"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/linekeeper/linekeeper/hub/connector/generic"
)

// file says how the file of a fact is made.
type file struct {
	name      generic.Template
	body      generic.Tree
	columns   []string
	values    []generic.Expr
	template  generic.Template
	delimiter rune
	header    bool
}

var afterRef = regexp.MustCompile(`\{ref\}[-0-9{]`)

// compileFile checks a Posting. Errors begin with the field.
func compileFile(p Posting) (*file, error) {
	f := &file{header: !p.NoHeader, delimiter: ';'}
	var err error
	if f.name, err = generic.CompileTemplate(p.Name, ofFile...); err != nil {
		return nil, fmt.Errorf("name: %w", err)
	}
	if !f.name.Uses("ref") || strings.ContainsAny(p.Name, `/\`) || strings.HasSuffix(p.Name, ".tmp") {
		return nil, fmt.Errorf("name %q needs {ref}, no folder, and another ending than .tmp; write it like {kind}-{ref}.json", p.Name)
	}
	if afterRef.MatchString(p.Name) {
		return nil, fmt.Errorf("name %q: what stands behind {ref} could be taken for a part of it; put a dot or _ there", p.Name)
	}
	switch p.Format {
	case "json":
		if p.Body == nil {
			return nil, errors.New("body is missing; write names and expressions, such as yield: fact.yield")
		}
		if f.body, err = generic.CompileTree(p.Body, ofFile...); err != nil {
			return nil, fmt.Errorf("body: %w", err)
		}
	case "csv":
		return f, f.compileColumns(p)
	case "xml":
		if p.Template == "" {
			return nil, errors.New("template is missing; write the document with expressions in braces")
		}
		if f.template, err = generic.CompileTemplate(p.Template, ofFile...); err != nil {
			return nil, fmt.Errorf("template: %w", err)
		}
	default:
		return nil, fmt.Errorf("format %q is not known; use json, csv or xml", p.Format)
	}
	return f, nil
}

func (f *file) compileColumns(p Posting) error {
	if len(p.Columns) == 0 {
		return errors.New("columns is empty; list names and expressions")
	}
	if p.Delimiter != "" {
		r, n := utf8.DecodeRuneInString(p.Delimiter)
		if n != len(p.Delimiter) || r == '"' || r == '\r' || r == '\n' || r == utf8.RuneError {
			return fmt.Errorf("delimiter %q is not one character", p.Delimiter)
		}
		f.delimiter = r
	}
	for i, c := range p.Columns {
		e, err := generic.Compile(c.Value, ofFile...)
		if err != nil {
			return fmt.Errorf("columns[%d]: %w", i, err)
		}
		f.columns, f.values = append(f.columns, c.Name), append(f.values, e)
	}
	return nil
}

// build makes the file's content. The same names give the same bytes.
func (f *file) build(vars map[string]any) ([]byte, error) {
	switch {
	case f.body.IsSet():
		v, err := f.body.Fill(vars)
		if err != nil {
			return nil, fmt.Errorf("body: %w", err)
		}
		b, err := generic.JSON(v)
		return append(b, '\n'), err
	case f.template.IsSet():
		text, err := f.template.Fill(vars, escaped)
		return []byte(text), err
	}
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	w.Comma = f.delimiter
	if f.header {
		if err := w.Write(f.columns); err != nil {
			return nil, err
		}
	}
	line := make([]string, len(f.values))
	for i, e := range f.values {
		text, err := e.Text(vars)
		if err != nil {
			return nil, fmt.Errorf("column %q: %w", f.columns[i], err)
		}
		line[i] = text
	}
	if err := w.Write(line); err != nil {
		return nil, err
	}
	w.Flush()
	return b.Bytes(), w.Error()
}

// escaped writes a value into XML.
func escaped(text string) (string, error) {
	var b bytes.Buffer
	err := xml.EscapeText(&b, []byte(text))
	return b.String(), err
}

// inName writes a value into a name.
func inName(text string) (string, error) {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_", r) {
			return r
		}
		return '_'
	}, text), nil
}
