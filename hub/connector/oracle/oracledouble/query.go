package oracledouble

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/shopspring/decimal"
)

type row map[string]any

// query is a parsed q.
type query func(row) bool

var token = regexp.MustCompile(`\s*(\(|\)|>=|<=|!=|=|>|<|'(?:[^']|'')*'|"[^"]*"|[A-Za-z0-9_.:+-]+)`)

type parser struct{ words []string }

// parse reads q of framework version 2 and above.
func parse(text string) (query, error) {
	p := &parser{}
	for rest := text; strings.TrimSpace(rest) != ""; {
		m := token.FindStringSubmatchIndex(rest)
		if m == nil || m[0] != 0 {
			return nil, fmt.Errorf("q %q cannot be read at %q", text, rest)
		}
		p.words = append(p.words, rest[m[2]:m[3]])
		rest = rest[m[1]:]
	}
	q, err := p.either()
	if err == nil && len(p.words) > 0 {
		err = fmt.Errorf("q %q has %q too much", text, p.words[0])
	}
	return q, err
}

func (p *parser) take() string {
	if len(p.words) == 0 {
		return ""
	}
	w := p.words[0]
	p.words = p.words[1:]
	return w
}

func (p *parser) is(word string) bool {
	if len(p.words) > 0 && strings.EqualFold(p.words[0], word) {
		p.take()
		return true
	}
	return false
}

func (p *parser) either() (query, error) {
	a, err := p.both()
	for err == nil && p.is("or") {
		left := a
		var b query
		b, err = p.both()
		a = func(r row) bool { return left(r) || b(r) }
	}
	return a, err
}

func (p *parser) both() (query, error) {
	a, err := p.one()
	for err == nil && p.is("and") {
		left := a
		var b query
		b, err = p.one()
		a = func(r row) bool { return left(r) && b(r) }
	}
	return a, err
}

func (p *parser) one() (query, error) {
	if p.is("(") {
		q, err := p.either()
		if err == nil && !p.is(")") {
			err = fmt.Errorf("a bracket is not closed")
		}
		return q, err
	}
	name, op, value := p.take(), strings.ToUpper(p.take()), p.take()
	if value == "" || !strings.Contains(" = != > >= < <= LIKE ", " "+op+" ") {
		return nil, fmt.Errorf("attribute %q lacks operator or value", name)
	}
	if strings.HasPrefix(value, "'") {
		value = strings.ReplaceAll(strings.Trim(value, "'"), "''", "'")
	}
	value = strings.Trim(value, `"`)
	return func(r row) bool { return matches(fmt.Sprint(r[name]), op, value) }, nil
}

func matches(have, op, want string) bool {
	if op == "LIKE" {
		pattern := "^" + strings.ReplaceAll(regexp.QuoteMeta(want), "%", ".*") + "$"
		ok, _ := regexp.MatchString(pattern, have)
		return ok
	}
	c := strings.Compare(have, want)
	if a, err := decimal.NewFromString(have); err == nil {
		if b, err := decimal.NewFromString(want); err == nil {
			c = a.Cmp(b)
		}
	}
	switch op {
	case "=":
		return c == 0
	case "!=":
		return c != 0
	case ">":
		return c > 0
	case ">=":
		return c >= 0
	case "<":
		return c < 0
	}
	return c <= 0
}
