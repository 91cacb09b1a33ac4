package s4double

import (
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strings"

	"github.com/shopspring/decimal"
)

// filter is a parsed $filter.
type filter interface {
	match(row) bool
	// pinned returns the values of which the property must have one for a match, when the filter says so.
	pinned(name string) ([]string, bool)
}

type comparison struct {
	name, op, text string
	kind           string // of the literal: "", guid, datetime, number, bool
}

type both struct{ a, b filter }
type either struct{ a, b filter }

func (f both) match(r row) bool   { return f.a.match(r) && f.b.match(r) }
func (f either) match(r row) bool { return f.a.match(r) || f.b.match(r) }

func (f both) pinned(name string) ([]string, bool) {
	if v, ok := f.a.pinned(name); ok {
		return v, true
	}
	return f.b.pinned(name)
}

func (f either) pinned(name string) ([]string, bool) {
	a, first := f.a.pinned(name)
	b, second := f.b.pinned(name)
	return slices.Concat(a, b), first && second
}

func (f comparison) pinned(name string) ([]string, bool) {
	return []string{f.text}, f.name == name && f.op == "eq"
}

func (f comparison) match(r row) bool {
	have := fmt.Sprint(r[f.name])
	want := f.text
	c := strings.Compare(have, want)
	switch f.kind {
	case "guid":
		c = strings.Compare(strings.ToLower(have), strings.ToLower(want))
	case "datetime":
		c = strings.Compare(day(have), want)
	case "number":
		a, err := decimal.NewFromString(have)
		if err != nil {
			return false
		}
		c = a.Cmp(decimal.RequireFromString(want))
	}
	switch f.op {
	case "eq":
		return c == 0
	case "ne":
		return c != 0
	case "gt":
		return c > 0
	case "ge":
		return c >= 0
	case "lt":
		return c < 0
	}
	return c <= 0
}

var tokenPattern = regexp.MustCompile(`^\s*(\(|\)|(?:guid|datetime)?'(?:[^']|'')*'|-?\d+(?:\.\d+)?[mM]?|[A-Za-z_][A-Za-z0-9_]*)`)

// parseFilter reads comparisons joined by and, or and parentheses; the original knows more.
func parseFilter(text string, s *Schema) (filter, error) {
	p := &filterParser{schema: s}
	for rest := text; strings.TrimSpace(rest) != ""; {
		m := tokenPattern.FindStringSubmatch(rest)
		if m == nil {
			return nil, fmt.Errorf("syntax error in $filter at %q", rest)
		}
		p.tokens = append(p.tokens, m[1])
		rest = rest[len(m[0]):]
	}
	f, err := p.or(0)
	if err == nil && len(p.tokens) > 0 {
		err = fmt.Errorf("syntax error in $filter at %q", p.tokens[0])
	}
	return f, err
}

type filterParser struct {
	tokens []string
	schema *Schema
}

func (p *filterParser) next() string {
	if len(p.tokens) == 0 {
		return ""
	}
	t := p.tokens[0]
	p.tokens = p.tokens[1:]
	return t
}

func (p *filterParser) is(word string) bool {
	if len(p.tokens) > 0 && p.tokens[0] == word {
		p.tokens = p.tokens[1:]
		return true
	}
	return false
}

func (p *filterParser) or(depth int) (filter, error) {
	f, err := p.and(depth)
	for err == nil && p.is("or") {
		var g filter
		g, err = p.and(depth)
		f = either{f, g}
	}
	return f, err
}

func (p *filterParser) and(depth int) (filter, error) {
	f, err := p.primary(depth)
	for err == nil && p.is("and") {
		var g filter
		g, err = p.primary(depth)
		f = both{f, g}
	}
	return f, err
}

func (p *filterParser) primary(depth int) (filter, error) {
	if depth > 50 {
		return nil, fmt.Errorf("$filter is nested too deeply")
	}
	if p.is("(") {
		f, err := p.or(depth + 1)
		if err == nil && !p.is(")") {
			err = fmt.Errorf("parenthesis is not closed in $filter")
		}
		return f, err
	}
	c := comparison{name: p.next(), op: p.next()}
	literal := p.next()
	if !p.schema.Has(c.name) {
		return nil, fmt.Errorf("property %s not found in type %s", c.name, p.schema.Name)
	}
	if !strings.Contains(" eq ne gt ge lt le ", " "+c.op+" ") || literal == "" {
		return nil, fmt.Errorf("invalid operator %q in $filter", c.op)
	}
	return c.literal(literal, p.schema.byName[c.name])
}

// literal takes the value, which must have the type of the property: a GUID as text is refused.
func (c comparison) literal(text string, f field) (filter, error) {
	kind, quoted, isQuoted := "", "", strings.HasSuffix(text, "'")
	if isQuoted {
		kind, quoted, _ = strings.Cut(text, "'")
		c.text = strings.ReplaceAll(strings.TrimSuffix(quoted, "'"), "''", "'")
	} else {
		c.text = strings.TrimRight(text, "mM")
	}
	want := map[string]string{"": "", "guid": "guid", "date": "datetime", "decimal": "", "bool": "", "time": "time", "int": ""}[f.kind]
	if kind != want || (f.kind == "" && !isQuoted) {
		return nil, fmt.Errorf("operator %q incompatible with operand types of %s", c.op, c.name)
	}
	c.kind = kind
	switch f.kind {
	case "date":
		c.text = strings.SplitN(c.text, "T", 2)[0]
	case "decimal", "int":
		if _, err := decimal.NewFromString(c.text); err != nil {
			return nil, fmt.Errorf("%q is not a number", text)
		}
		c.kind = "number"
	}
	return c, nil
}

// order sorts rows by $orderby.
func order(rows []row, by string, s *Schema) error {
	type key struct {
		name string
		desc bool
	}
	var keys []key
	for _, part := range strings.Split(by, ",") {
		words := strings.Fields(part)
		if len(words) == 0 || !s.Has(words[0]) {
			return fmt.Errorf("property %s not found in type %s", part, s.Name)
		}
		keys = append(keys, key{words[0], len(words) > 1 && words[1] == "desc"})
	}
	sort.SliceStable(rows, func(i, j int) bool {
		for _, k := range keys {
			if c := strings.Compare(fmt.Sprint(rows[i][k.name]), fmt.Sprint(rows[j][k.name])); c != 0 {
				return (c < 0) != k.desc
			}
		}
		return false
	})
	return nil
}
