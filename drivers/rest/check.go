package rest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// Check is an address that must know a field of a work order before it is delivered.
type Check struct {
	Field string `yaml:"field"` // one of signal.CheckedFields
	URL   string `yaml:"url"`   // with {value}
}

func (c *Check) validate(base string) error {
	switch {
	case !slices.Contains(signal.CheckedFields, c.Field):
		return fmt.Errorf("check: field %q is none of item, unit, work_center, operation, component", c.Field)
	case !strings.Contains(c.URL, "{value}"):
		return errors.New("check: url needs {value}: what is looked up")
	}
	return checkURL(base, c.URL, []string{"{value}"})
}

// CheckOrder implements signal.OrderChecker: the MES must know what the order names. 200 says that it does, 404 that it does not.
func (s *source) CheckOrder(ctx context.Context, o signal.WorkOrder) error {
	if s.config.WorkOrders == nil {
		return nil
	}
	for _, c := range s.config.WorkOrders.Check {
		for _, v := range o.Values(c.Field) {
			u, err := join(s.config.Base, replaceIn(c.URL, map[string]string{"{value}": v}))
			if err != nil {
				return err
			}
			rep, err := s.client.do(ctx, request{method: http.MethodGet, url: u.String()})
			switch {
			case err != nil:
				return fmt.Errorf("look up %s %q in the MES: %w", c.Field, v, err)
			case rep.code == http.StatusNotFound:
				return &signal.Refused{Reason: fmt.Sprintf("the MES does not know %s %q of order %q: add it there, or correct the order", c.Field, v, o.OrderNo)}
			case rep.code != http.StatusOK && rep.code != http.StatusNoContent:
				return fmt.Errorf("look up %s %q in the MES: %w", c.Field, v, rep.problem("work_orders.check"))
			}
		}
	}
	return nil
}
