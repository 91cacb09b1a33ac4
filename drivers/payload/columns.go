package payload

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// Column says what one field of a record is. Without one a field is text: nothing is guessed from digits.
type Column struct {
	// Name is the field's name: in the header, or what it shall be called where the text has none.
	Name string `yaml:"name"`
	// As renames the field; empty keeps Name.
	As string `yaml:"as"`
	// Type is text (default), number, bool, time.
	Type string `yaml:"type"`
	// Layout of a time, such as dd.MM.yyyy HH:mm:ss or yyyyMMdd'T'HHmm; empty for the ISO forms.
	Layout string `yaml:"layout"`
	// With names a field whose text follows this one's after a space, for a date and a time that stand apart.
	With string `yaml:"with"`
	// Decimals are the places of a number that is written without a point: 1234 with 2 is 12.34.
	Decimals int `yaml:"decimals"`
	// Required fields may not be empty.
	Required bool `yaml:"required"`
	// Start and Length place the field in a fixed-width line, in characters; Start counts from 1.
	Start  int `yaml:"start"`
	Length int `yaml:"length"`
}

// Locale is how a text writes numbers and times.
type Locale struct {
	// Decimal is the decimal sign, "." (default) or ",". Thousands is what may stand between groups of three digits; empty: nothing.
	Decimal   string `yaml:"decimal"`
	Thousands string `yaml:"thousands"`
	// Zone is that of times that carry none; nil is UTC.
	Zone *time.Location `yaml:"-"`
}

// Validate reports what is wrong with a locale.
func (l Locale) Validate() error {
	switch {
	case l.Decimal != "" && l.Decimal != "." && l.Decimal != ",":
		return fmt.Errorf("decimal %q is neither . nor ,", l.Decimal)
	case l.Thousands != "" && !slices.Contains([]string{".", ",", "'", " ", "\u00a0", "\u202f", "\u2019"}, l.Thousands):
		return fmt.Errorf("thousands %q is none of . , ' and a space", l.Thousands)
	case l.Thousands != "" && l.Thousands == l.decimal():
		return fmt.Errorf("thousands and decimal are both %q", l.Thousands)
	}
	return nil
}

func (l Locale) decimal() string {
	if l.Decimal == "" {
		return "."
	}
	return l.Decimal
}

// Validate reports what is wrong with a column.
func (c Column) Validate() error {
	switch {
	case c.Name == "":
		return errors.New("a column has no name")
	case !slices.Contains([]string{"", "text", "number", "bool", "time"}, c.Type):
		return fmt.Errorf("column %q: type %q is none of text, number, bool, time", c.Name, c.Type)
	case (c.Layout != "" || c.With != "") && c.Type != "time":
		return fmt.Errorf("column %q: layout and with belong to type: time", c.Name)
	case c.Decimals < 0 || c.Decimals > 18 || c.Decimals > 0 && c.Type != "number":
		return fmt.Errorf("column %q: decimals %d: from 0 to 18, with type: number", c.Name, c.Decimals)
	}
	if _, err := goLayout(c.Layout); err != nil {
		return fmt.Errorf("column %q: %w", c.Name, err)
	}
	return nil
}

func (c Column) key() string {
	if c.As != "" {
		return c.As
	}
	return c.Name
}

// Value reads the text of a field. An empty text is nil unless the column is one of text.
func (c Column) Value(text string, l Locale) (any, error) {
	if c.Type == "" || c.Type == "text" {
		if c.Required && strings.TrimSpace(text) == "" {
			return nil, errors.New("is empty")
		}
		return text, nil
	}
	text = strings.TrimSpace(text)
	if text == "" {
		if c.Required {
			return nil, errors.New("is empty")
		}
		return nil, nil
	}
	switch c.Type {
	case "number":
		return c.number(text, l)
	case "bool":
		return boolean(text)
	}
	return c.time(text, l.Zone)
}

func boolean(text string) (any, error) {
	switch strings.ToLower(text) {
	case "true", "t", "yes", "y", "1", "x":
		return true, nil
	case "false", "f", "no", "n", "0":
		return false, nil
	}
	return nil, fmt.Errorf("is %q, neither true nor false", excerpt(text))
}

const maxDigits = 64

// number reads an exact number of the locale's form and writes it as JSON does.
func (c Column) number(text string, l Locale) (any, error) {
	wrong := func() (any, error) { return nil, fmt.Errorf("is %q, which is no number of this form", excerpt(text)) }
	if len(text) > maxDigits {
		return wrong()
	}
	rest, sign := text, ""
	if last := rest[len(rest)-1]; last == '-' || last == '+' { // as SAP writes negative numbers
		rest = string(last) + rest[:len(rest)-1]
	}
	if rest[0] == '-' || rest[0] == '+' {
		if rest[0] == '-' {
			sign = "-"
		}
		rest = rest[1:]
	}
	mantissa, exponent := rest, ""
	if i := strings.IndexAny(rest, "eE"); i >= 0 {
		mantissa, exponent = rest[:i], rest[i:]
	}
	whole, fraction, hasFraction := strings.Cut(mantissa, l.decimal())
	whole, ok := ungroup(whole, l.Thousands)
	if !ok || !digits(whole) && whole != "" || !digits(fraction) && fraction != "" || whole+fraction == "" || hasFraction && c.Decimals > 0 {
		return wrong()
	}
	if c.Decimals > 0 {
		whole = strings.Repeat("0", max(0, c.Decimals-len(whole))) + whole
		whole, fraction = whole[:len(whole)-c.Decimals], whole[len(whole)-c.Decimals:]
	}
	if whole = strings.TrimLeft(whole, "0"); whole == "" {
		whole = "0"
	}
	n := sign + whole
	if fraction != "" {
		n += "." + fraction
	}
	if n += exponent; !json.Valid([]byte(n)) {
		return wrong()
	}
	return signal.Number(n), nil
}

// spaces are what programs write between groups of digits instead of a plain space.
var spaces = strings.NewReplacer("\u00a0", " ", "\u202f", " ")

// ungroup takes the separators out; each group but the first has three digits.
func ungroup(whole, separator string) (string, bool) {
	if separator == " " {
		whole = spaces.Replace(whole)
	}
	if separator == "" || !strings.Contains(whole, separator) {
		return whole, true
	}
	groups := strings.Split(whole, separator)
	for i, g := range groups {
		if i == 0 && (g == "" || len(g) > 3) || i > 0 && len(g) != 3 {
			return "", false
		}
	}
	return strings.Join(groups, ""), true
}

func digits(text string) bool {
	for i := range len(text) {
		if text[i] < '0' || text[i] > '9' {
			return false
		}
	}
	return text != ""
}

// isoLayouts are what a time without a layout may look like; a fraction of any length is read with each.
var isoLayouts = []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05 Z07:00", "2006-01-02 15:04:05",
	"2006-01-02T15:04Z07:00", "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02Z07:00", "2006-01-02", "20060102T150405Z07:00", "20060102T150405", "20060102150405", "20060102"}

func (c Column) time(text string, zone *time.Location) (any, error) {
	layout, err := goLayout(c.Layout)
	if err != nil {
		return nil, err
	}
	if t, ok := parseTime(text, layout, zone); ok {
		return t, nil
	}
	if c.Layout == "" {
		return nil, fmt.Errorf("is %q, which is no ISO time: give the column a layout", excerpt(text))
	}
	return nil, fmt.Errorf("is %q, which is no time of the form %s", excerpt(text), c.Layout)
}

// Time reads an ISO time; zone is that of texts that carry none, nil is UTC.
func Time(text string, zone *time.Location) (time.Time, bool) {
	return parseTime(strings.TrimSpace(text), "", zone)
}

func parseTime(text, layout string, zone *time.Location) (time.Time, bool) {
	if zone == nil {
		zone = time.UTC
	}
	layouts := isoLayouts
	if layout != "" {
		layouts = []string{layout}
	}
	for _, l := range layouts {
		if t, err := time.ParseInLocation(l, text, zone); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

var layoutParts = strings.NewReplacer("yyyy", "2006", "yy", "06", "MM", "01", "M", "1", "dd", "02", "d", "2", "HH", "15", "H", "15", "hh", "03", "h", "3",
	"mm", "04", "m", "4", "ss", "05", "s", "5", "SSSSSS", "000000", "SSS", "000", "XXX", "Z07:00", "XX", "Z0700", "a", "PM")

// goLayout turns a pattern such as dd.MM.yyyy HH:mm into Go's. What stands between quotation marks ' is meant as it is.
func goLayout(pattern string) (string, error) {
	if pattern == "" {
		return "", nil
	}
	if !strings.Contains(pattern, "yy") {
		return "", fmt.Errorf("layout %q has no year: write it like dd.MM.yyyy HH:mm:ss", pattern)
	}
	parts := strings.Split(pattern, "'")
	for i := 0; i < len(parts); i += 2 {
		parts[i] = layoutParts.Replace(parts[i])
	}
	return strings.Join(parts, ""), nil
}
