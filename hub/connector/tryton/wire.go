package tryton

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/shopspring/decimal"
)

// Tryton's typed values, as JSON carries them.

type wireDate struct {
	Class string `json:"__class__"`
	Year  int    `json:"year"`
	Month int    `json:"month"`
	Day   int    `json:"day"`
}

func dateOf(t time.Time) wireDate {
	return wireDate{Class: "date", Year: t.Year(), Month: int(t.Month()), Day: t.Day()}
}

// instant is a calendar date at midnight UTC; zero for none.
func (d *wireDate) instant() time.Time {
	if d == nil {
		return time.Time{}
	}
	return time.Date(d.Year, time.Month(d.Month), d.Day, 0, 0, 0, 0, time.UTC)
}

// wireTime is a naive timestamp, which Tryton means as UTC.
type wireTime struct {
	Class       string `json:"__class__"`
	Year        int    `json:"year"`
	Month       int    `json:"month"`
	Day         int    `json:"day"`
	Hour        int    `json:"hour"`
	Minute      int    `json:"minute"`
	Second      int    `json:"second"`
	Microsecond int    `json:"microsecond"`
}

func wireTimeOf(t time.Time) wireTime {
	t = t.UTC()
	return wireTime{Class: "datetime", Year: t.Year(), Month: int(t.Month()), Day: t.Day(),
		Hour: t.Hour(), Minute: t.Minute(), Second: t.Second(), Microsecond: t.Nanosecond() / 1000}
}

func (w *wireTime) instant() time.Time {
	if w == nil {
		return time.Time{}
	}
	return time.Date(w.Year, time.Month(w.Month), w.Day, w.Hour, w.Minute, w.Second, w.Microsecond*1000, time.UTC)
}

func wireDecimal(text string) map[string]string {
	return map[string]string{"__class__": "Decimal", "decimal": text}
}

// number writes a quantity as the JSON literal of its exact text. Tryton keeps quantities as floats; the text is what
// its nearest float is printed as.
func number(d decimal.Decimal) json.Number { return json.Number(d.String()) }

// exact reads a quantity that Tryton keeps as a float, rounded to the digits of its unit: that undoes what binary fractions
// did to it.
func exact(n json.Number, digits int32) (decimal.Decimal, error) {
	if n == "" {
		return decimal.Zero, nil
	}
	d, err := decimal.NewFromString(n.String())
	if err != nil {
		return decimal.Zero, fmt.Errorf("read Tryton's quantity %q: %w", n, err)
	}
	return d.Round(digits), nil
}

// same compares what was read back with what was written, within half of the unit's last digit.
func same(a, b decimal.Decimal, digits int32) bool {
	return a.Sub(b).Abs().LessThan(decimal.New(5, -digits-1))
}
