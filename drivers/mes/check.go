package mes

import (
	"context"
	"fmt"
	"slices"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// Check is a table that must know a field of a work order before it is delivered.
type Check struct {
	Field  string `yaml:"field"` // one of checkedFields
	Table  string `yaml:"table"`
	Column string `yaml:"column"`
}

// checkedFields are the fields of an order that can be looked up.
var checkedFields = []string{"item", "unit", "work_center", "operation", "component"}

func (c *Check) validate() error {
	switch {
	case !slices.Contains(checkedFields, c.Field):
		return fmt.Errorf("check: field %q is none of item, unit, work_center, operation, component", c.Field)
	case !tableName.MatchString(c.Table):
		return fmt.Errorf("check: table %q is not a name such as mes.item", c.Table)
	case c.Column == "":
		return fmt.Errorf("check: column of table %q is empty", c.Table)
	}
	return nil
}

// fieldValues are an order's values of a field; what it leaves empty is not looked up.
func fieldValues(o signal.WorkOrder, field string) []string {
	var out []string
	switch field {
	case "item":
		out = []string{o.Item}
	case "unit":
		out = []string{o.Unit}
	case "work_center":
		out = []string{o.WorkCenter}
		for _, x := range o.Operations {
			out = append(out, x.WorkCenter)
		}
	case "operation":
		for _, x := range o.Operations {
			out = append(out, x.Operation)
		}
	case "component":
		for _, x := range o.Components {
			out = append(out, x.Item)
		}
	}
	slices.Sort(out)
	return slices.DeleteFunc(slices.Compact(out), func(v string) bool { return v == "" })
}

// CheckOrder implements signal.OrderChecker: the MES's own tables must know what the order names.
func (s *source) CheckOrder(ctx context.Context, o signal.WorkOrder) error {
	if s.config.WorkOrders == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, statementPatience)
	defer cancel()
	for _, c := range s.config.WorkOrders.Check {
		for _, v := range fieldValues(o, c.Field) {
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
