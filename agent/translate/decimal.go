package translate

import (
	"fmt"
	"math"
	"strconv"
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

// exactly is d as an amount.
func exactly(d decimal.Decimal) amount {
	if d.IsZero() {
		return amount{}
	}
	return amount{big: &d}
}

func (a amount) equal(b amount) bool { return a.decimal().Equal(b.decimal()) }

// plus is a + b.
func (a amount) plus(b amount) amount {
	if a.big == nil && b.big == nil {
		if sum, ok := addShort(a, b); ok {
			return sum
		}
	}
	return exactly(a.decimal().Add(b.decimal()))
}

// addShort is plus as long as that fits.
func addShort(a, b amount) (amount, bool) {
	for ; a.places < b.places; a.places++ {
		if a.n > math.MaxInt64/10 || a.n < math.MinInt64/10 {
			return a, false
		}
		a.n *= 10
	}
	if b.places < a.places {
		return addShort(b, a)
	}
	sum := a.n + b.n
	return amount{n: sum, places: a.places}, (sum > a.n) == (b.n > 0)
}

// append appends the number as decimal.Decimal writes it: without an exponent, and without zeros that say nothing.
func (a amount) append(b []byte) []byte {
	if a.big != nil {
		return append(b, a.big.String()...)
	}
	n := uint64(a.n)
	if a.n < 0 {
		b, n = append(b, '-'), -n
	}
	places := int(a.places)
	for ; places > 0 && n%10 == 0; places-- {
		n /= 10
	}
	var text [20]byte
	digits := strconv.AppendUint(text[:0], n, 10)
	if places == 0 {
		return append(b, digits...)
	}
	if len(digits) <= places {
		b = append(b, "0."...)
		for range places - len(digits) {
			b = append(b, '0')
		}
		return append(b, digits...)
	}
	point := len(digits) - places
	return append(append(append(b, digits[:point]...), '.'), digits[point:]...)
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
