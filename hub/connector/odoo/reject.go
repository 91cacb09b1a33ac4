package odoo

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/linekeeper/linekeeper/hub/connector"
)

const byItself = "Wait: it is tried again by itself."

// reject makes a rejection. Nothing has happened in Odoo when it is given.
func reject(class connector.Class, code, next, reason string, args ...any) *connector.Outcome {
	return &connector.Outcome{Result: connector.Rejected, Class: class, Code: code, Reason: fmt.Sprintf(reason, args...), NextStep: next}
}

// rejection says what can be done about a refusal. Odoo has one exception for all that its users should mend, and tells them in words what.
func rejection(order string, r *refusal) *connector.Outcome {
	o := reject(connector.Correctable, r.name, "Mend in Odoo what it says, then replay the fact.", "Odoo refused a posting on order %s: %s.", order, strings.TrimRight(r.says, "."))
	o.RetryAfter = r.retryAfter
	switch {
	case (exception{Name: r.name}).contended(), r.status == http.StatusTooManyRequests, r.status == http.StatusServiceUnavailable:
		o.Class, o.NextStep = connector.Retryable, byItself
	case r.name == "odoo.exceptions.AccessDenied", r.status == http.StatusUnauthorized:
		o.Class, o.NextStep = connector.Retryable, "Make a new API key for the connector's user and put it in password_file: Odoo does not take this one."
	case r.name == "odoo.exceptions.AccessError":
		o.Class, o.NextStep = connector.Fatal, "Give the connector's user the rights Inventory: User and Manufacturing: User in Odoo, then replay the fact."
	case strings.HasPrefix(r.name, "werkzeug.exceptions."):
		o.Class, o.NextStep = connector.Fatal, "Check that the database has Inventory and Manufacturing installed, in a version from 15 to 19, then replay the fact."
	}
	return o
}

// resting is the outcome of a read that found the system, or something before it, asking for a rest; nil when it did not.
func resting(order string, err error) *connector.Outcome {
	if r, ok := refused(err); ok && (r.status == http.StatusTooManyRequests || r.status == http.StatusServiceUnavailable || (exception{Name: r.name}).contended()) {
		return rejection(order, r)
	}
	var l *lost
	if errors.As(err, &l) && (l.status == http.StatusTooManyRequests || l.status == http.StatusServiceUnavailable) {
		o := reject(connector.Retryable, fmt.Sprintf("HTTP_%d", l.status), byItself, "Odoo takes no request on order %s now: %v.", order, l.cause)
		o.RetryAfter = l.retryAfter
		return o
	}
	return nil
}

// outcome is what an error says of the effect of a change.
func (c *Connector) outcome(order string, err error) connector.Outcome {
	if r, ok := refused(err); ok {
		return *rejection(order, r)
	}
	var l *lost
	if errors.As(err, &l) {
		return connector.Outcome{Result: connector.InDoubt, RetryAfter: l.retryAfter, Reason: fmt.Sprintf("The outcome in Odoo is not known: %v.", err)}
	}
	return *reject(connector.Retryable, "UNREACHABLE", "Check that Odoo runs at "+c.cfg.URL+" and takes the key.", "Odoo could not be reached for order %s: %v.", order, err)
}
