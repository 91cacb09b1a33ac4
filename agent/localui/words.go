package localui

import (
	"fmt"
	"strconv"
	"time"

	"github.com/shopspring/decimal"
)

const narrow = "\u202f" // narrow no-break space

// count writes a number with its thousands apart.
func count[T ~int | ~int64 | ~uint64](n T) string {
	s := strconv.FormatInt(int64(n), 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + narrow + s[i:]
	}
	return s
}

// size writes a number of bytes.
func size(n int64) string {
	f, unit := float64(n), "B"
	for _, u := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if f < 1024 {
			break
		}
		f, unit = f/1024, u
	}
	if unit == "B" || f >= 100 {
		return fmt.Sprintf("%.0f%s%s", f, narrow, unit)
	}
	return fmt.Sprintf("%.1f%s%s", f, narrow, unit)
}

// span writes a duration with its two largest units.
func span(d time.Duration) string {
	d = d.Abs()
	day := 24 * time.Hour
	two := func(a int64, ua string, b int64, ub string) string {
		if b == 0 {
			return fmt.Sprintf("%d%s%s", a, narrow, ua)
		}
		return fmt.Sprintf("%d%s%s %d%s%s", a, narrow, ua, b, narrow, ub)
	}
	switch {
	case d < time.Minute:
		return two(int64(d/time.Second), "s", 0, "")
	case d < time.Hour:
		return two(int64(d/time.Minute), "min", int64(d%time.Minute/time.Second), "s")
	case d < 2*day:
		return two(int64(d/time.Hour), "h", int64(d%time.Hour/time.Minute), "min")
	}
	return two(int64(d/day), "d", int64(d%day/time.Hour), "h")
}

// instant is a time on the page: short for the eye, exact for the tooltip.
type instant struct{ Short, Exact string }

func (v *view) instant(t time.Time) instant {
	if t.IsZero() {
		return instant{"–", ""}
	}
	local, now := t.In(v.zone), v.at.In(v.zone)
	layout := "15:04:05"
	switch {
	case local.Year() != now.Year():
		layout = "2 Jan 2006 15:04"
	case local.YearDay() != now.YearDay():
		layout = "2 Jan 15:04"
	}
	return instant{local.Format(layout), t.UTC().Format("2006-01-02 15:04:05 UTC")}
}

// ago writes how long before the snapshot something was.
func (v *view) ago(t time.Time) string {
	switch d := v.at.Sub(t); {
	case t.IsZero():
		return "never"
	case d < time.Second:
		return "now"
	default:
		return span(d)
	}
}

// remainder is counted minus stored, exactly; empty when one of them is no number.
func remainder(counted, stored string) string {
	a, errA := decimal.NewFromString(orZero(counted))
	b, errB := decimal.NewFromString(orZero(stored))
	if errA != nil || errB != nil {
		return ""
	}
	return a.Sub(b).String()
}

func orZero(s string) string {
	if s == "" {
		return "0"
	}
	return s
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// skewWords says how this computer's clock differs from the hub's.
func skewWords(skew string) string {
	d, err := time.ParseDuration(skew)
	switch {
	case err != nil:
		return skew
	case d < 0:
		return span(d) + " behind the hub’s"
	}
	return span(d) + " ahead of the hub’s"
}

var unitWords = map[string]string{
	"C62": "pcs", "H87": "pcs", "EA": "each", "KGM": "kg", "GRM": "g", "TNE": "t", "LTR": "l", "MLT": "ml", "MTR": "m", "MTK": "m²", "MTQ": "m³",
	"HUR": "h", "MIN": "min", "SEC": "s", "DAY": "d",
}

// unitWord writes a Recommendation 20 code the way people say it; the code itself stays in the tooltip and the JSON.
func unitWord(code string) string {
	if w, ok := unitWords[code]; ok {
		return w
	}
	return code
}
