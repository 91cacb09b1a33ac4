package object

import (
	"fmt"

	"github.com/shopspring/decimal"
)

// Money is an exact amount in an ISO 4217 currency, such as 12.50 EUR.
type Money struct {
	Amount   decimal.Decimal
	Currency string
}

// Check names what is wrong with an amount of money.
func (m Money) Check() error {
	if len(m.Currency) != 3 || m.Currency[0] < 'A' || m.Currency[0] > 'Z' || m.Currency[1] < 'A' || m.Currency[1] > 'Z' || m.Currency[2] < 'A' || m.Currency[2] > 'Z' {
		return fmt.Errorf("amount %s has the currency %q; want the three letters of ISO 4217, such as EUR", m.Amount, m.Currency)
	}
	return nil
}

func (m Money) String() string { return m.Amount.String() + " " + m.Currency }

// UnitPrice is the price of Per: 12.50 EUR for 100 KGM. The unit of Per need not be the one that was ordered.
type UnitPrice struct {
	Price Money
	Per   Quantity
}

// Check names what is wrong with a price.
func (p UnitPrice) Check() error {
	if err := p.Price.Check(); err != nil {
		return err
	}
	if !p.Per.Value.IsPositive() || p.Per.Unit == "" {
		return fmt.Errorf("price %s is for %s %q; want a quantity above zero and its unit", p.Price, p.Per.Value, p.Per.Unit)
	}
	return nil
}

func (p UnitPrice) String() string {
	return fmt.Sprintf("%s per %s %s", p.Price, p.Per.Value, p.Per.Unit)
}

// Amount is what a quantity costs, rounded half-even to so many decimals of the currency. It refuses a quantity in another
// unit than the price's: the item's factor is not known here.
func (p UnitPrice) Amount(q Quantity, places int32) (Money, error) {
	if err := p.Check(); err != nil {
		return Money{}, err
	}
	if q.Unit != p.Per.Unit {
		return Money{}, fmt.Errorf("price %s is for %s, the quantity is in %q; convert it first", p.Price, p.Per.Unit, q.Unit)
	}
	return Money{halfEven(p.Price.Amount.Mul(q.Value), p.Per.Value, places), p.Price.Currency}, nil
}

// Same reports whether two prices say the same of one unit: 2.10 EUR for 1 KGM is 210 EUR for 100 KGM.
func (p UnitPrice) Same(o UnitPrice) bool {
	return p.Price.Currency == o.Price.Currency && p.Per.Unit == o.Per.Unit &&
		p.Price.Amount.Mul(o.Per.Value).Equal(o.Price.Amount.Mul(p.Per.Value))
}

// halfEven divides exactly and rounds once.
func halfEven(n, d decimal.Decimal, places int32) decimal.Decimal {
	q, r := n.QuoRem(d, places)
	twice, unit := r.Abs().Mul(decimal.NewFromInt(2)), d.Abs().Mul(decimal.New(1, -places))
	odd := !q.Shift(places).Mod(decimal.NewFromInt(2)).IsZero()
	if c := twice.Cmp(unit); c > 0 || c == 0 && odd {
		step := decimal.New(1, -places)
		if n.IsNegative() != d.IsNegative() {
			step = step.Neg()
		}
		q = q.Add(step)
	}
	return q
}
