package mes

import (
	"context"
	"fmt"
	"slices"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// Check is a table that must know a field of a work order before it is delivered.
type Check struct {
	Field  string `yaml:"field"` // one of signal.CheckedFields
	Table  string `yaml:"table"`
	Column string `yaml:"column"`
}

func (c *Check) validate() error {
	switch {
	case !slices.Contains(signal.CheckedFields, c.Field):
		return fmt.Errorf("check: field %q is none of item, unit, work_center, operation, component", c.Field)
	case !tableName.MatchString(c.Table):
		return fmt.Errorf("check: table %q is not a name such as mes.item", c.Table)
	case c.Column == "":
		return fmt.Errorf("check: column of table %q is empty", c.Table)
	}
	return nil
}

// CheckOrder implements signal.OrderChecker: the MES's own tables must know what the order names.
func (s *source) CheckOrder(ctx context.Context, o signal.WorkOrder) error {
	if s.config.WorkOrders == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, statementPatience)
	defer cancel()
	for _, c := range s.config.WorkOrders.Check {
		for _, v := range o.Values(c.Field) {
			q, column := &statement{d: s.dialect}, s.dialect.quoteOne(c.Column)
			if s.config.Driver == "postgres" { // the others compare a number with a text
				column += "::text"
			}
			q.add("SELECT COUNT(*) FROM %s WHERE %s = %s", s.dialect.quote(c.Table), column, s.dialect.cast("text", q.arg(v)))
			var n int
			if err := s.db().QueryRowContext(ctx, q.text.String(), q.args...).Scan(&n); err != nil {
				p := s.problemOf("work_orders.check", c.Table, err)
				return fmt.Errorf("look up %s %q in %q: %s (%s)", c.Field, v, c.Table, p.Reason, p.NextStep)
			}
			if n == 0 {
				return &signal.Refused{Reason: fmt.Sprintf("%s %q of order %q is not in the MES's table %q: add it there, or correct the order", c.Field, v, o.OrderNo, c.Table)}
			}
		}
	}
	return nil
}
