package translate

import (
	"fmt"
	"strings"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/proto/exact"
)

// maxDecimals is how many digits a quantity can have behind the point.
const maxDecimals = 9

// amount is an exact number: n * 10^-places, or big where that does not fit.
type amount struct {
	n      int64
	places int32
	big    *decimal.Decimal
}

func (a amount) decimal() decimal.Decimal {
	if a.big != nil {
		return *a.big
	}
	return decimal.New(a.n, -a.places)
}

func (a amount) isZero() bool {
	if a.big != nil {
		return a.big.IsZero()
	}
	return a.n == 0
}

func (a amount) isNegative() bool {
	if a.big != nil {
		return a.big.IsNegative()
	}
	return a.n < 0
}

// parse reads an exact number as a source wrote it: digits, a point, an exponent. It refuses "NaN" and the like, and texts
// so long or exponents so large that working with them would cost memory.
func parse(s string) (decimal.Decimal, error) {
	a, err := parseAmount(s)
	if err != nil {
		return decimal.Decimal{}, err
	}
	return a.decimal(), nil
}

func parseAmount(s string) (amount, error) {
	if a, ok := parseShort(s); ok {
		return a, nil
	}
	d, err := exact.Parse(s)
	if err != nil {
		return amount{}, err
	}
	return amount{big: &d}, nil
}

// parseShort is parse for what nearly all numbers look like: at most 18 digits and at most one point.
func parseShort(s string) (amount, bool) {
	digits := s
	if len(s) > 0 && s[0] == '-' {
		digits = s[1:]
	}
	if len(digits) == 0 || len(digits) > 18 {
		return amount{}, false
	}
	var n int64
	point := -1
	for i := 0; i < len(digits); i++ {
		switch c := digits[i]; {
		case c >= '0' && c <= '9':
			n = n*10 + int64(c-'0')
		case c == '.' && point < 0 && i > 0 && i < len(digits)-1:
			point = i
		default:
			return amount{}, false
		}
	}
	if len(digits) < len(s) {
		n = -n
	}
	if point < 0 {
		return amount{n: n}, true
	}
	return amount{n: n, places: int32(len(digits) - point - 1)}, true
}

// significant is a plain decimal text without what does not change its value: zeros at the end of its decimals.
func significant(s string) string {
	if strings.IndexByte(s, '.') < 0 {
		return s
	}
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

// positive reads a decimal of the configuration that must be above zero; "" gives absent.
func positive(text, absent string) (decimal.Decimal, error) {
	if text == "" {
		text = absent
	}
	d, err := parse(text)
	switch {
	case err != nil:
		return d, fmt.Errorf("%q %w", text, err)
	case !d.IsPositive():
		return d, fmt.Errorf("%q is not above zero", text)
	}
	return d, nil
}
