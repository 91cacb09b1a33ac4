package erpnext

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/linekeeper/linekeeper/hub/connector"
)

const byItself = "Wait: it is tried again by itself."

// advice says by exception class what can be done about a refusal. A class that is not here is correctable: nothing was
// done, and a person reads what ERPNext said.
var advice = map[string]struct {
	class connector.Class
	next  string
}{
	"DocumentLockedError":             {connector.Retryable, byItself},
	"QueryDeadlockError":              {connector.Retryable, byItself},
	"QueryTimeoutError":               {connector.Retryable, byItself},
	"TimestampMismatchError":          {connector.Retryable, byItself},
	"InReadOnlyMode":                  {connector.Retryable, byItself},
	"NegativeStockError":              {connector.Correctable, "Post the missing receipt of the item in ERPNext, then replay the fact."},
	"StockFreezeError":                {connector.Correctable, "Open the frozen period in ERPNext, or give the fact a posting date in an open one, then replay it."},
	"ClosedAccountingPeriod":          {connector.Correctable, "Open the accounting period in ERPNext, or give the fact a posting date in an open one, then replay it."},
	"FiscalYearError":                 {connector.Correctable, "Create the fiscal year in ERPNext, then replay the fact."},
	"StockOverProductionError":        {connector.Correctable, "Raise the order's quantity or the allowance for overproduction in ERPNext, then replay the fact."},
	"DuplicateEntryForWorkOrderError": {connector.Correctable, "Raise the order's quantity in ERPNext, or submit or delete its other drafts, then replay the fact."},
	"OperationsNotCompleteError":      {connector.Correctable, "Complete the order's job cards in ERPNext, then replay the fact."},
	"FinishedGoodError":               {connector.Correctable, "Check the work order's item in ERPNext, then replay the fact."},
	"LinkValidationError":             {connector.Fatal, "Create what is missing in ERPNext or correct its mapping, then replay the fact."},
	"PermissionError":                 {connector.Fatal, "Give the connector's user the right in ERPNext, then replay the fact."},
}

// reject makes a rejection. Nothing has happened in ERPNext when it is given.
func reject(class connector.Class, code, next, reason string, args ...any) *connector.Outcome {
	return &connector.Outcome{Result: connector.Rejected, Class: class, Code: code, Reason: fmt.Sprintf(reason, args...), NextStep: next}
}

func rejection(order string, r *refusal) *connector.Outcome {
	o := reject(connector.Correctable, r.kind, "Mend in ERPNext what it says, then replay the fact.", "ERPNext refused a posting on order %s: %s.", order, strings.TrimRight(r.says, "."))
	o.RetryAfter = r.retryAfter
	if a, known := advice[r.kind]; known {
		o.Class, o.NextStep = a.class, a.next
	}
	switch r.status {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests, http.StatusLocked:
		o.Class, o.NextStep = connector.Retryable, "Wait: it is tried again by itself, no sooner than ERPNext asked."
	case http.StatusForbidden:
		o.Class, o.NextStep = connector.Fatal, advice["PermissionError"].next
	case http.StatusUnauthorized:
		o.Class, o.NextStep = connector.Retryable, "Correct user and password in the configuration: ERPNext does not take them."
	}
	return o
}

// there reports a refusal because the key is used already.
func (r *refusal) there() bool {
	return r.kind == "UniqueValidationError" || r.kind == "DuplicateEntryError"
}

// stale reports a refusal because the document is no longer what it was.
func (r *refusal) stale() bool {
	return r.kind == "TimestampMismatchError" || r.kind == "UpdateAfterSubmitError" || r.kind == "DocstatusTransitionError" || r.status == http.StatusNotFound
}
