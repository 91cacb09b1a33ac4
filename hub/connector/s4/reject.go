package s4

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/linekeeper/linekeeper/hub/connector"
)

var classes = map[string]connector.Class{"retryable": connector.Retryable, "correctable": connector.Correctable, "fatal": connector.Fatal}

// advice says by message class and number what can be done about a refusal. M7/021, M7/053 and CO/688 were read in SAP's own
// texts; the others are what such systems are known to say, and messages in the configuration adds to them. A message that is
// not here is correctable: nothing was done, and a person reads it.
var advice = map[string]struct {
	class connector.Class
	next  string
}{
	"CO/469": {connector.Retryable, "Wait until the user has left the order: it is tried again by itself."},
	"C1/005": {connector.Retryable, "Wait until the user has left the order: it is tried again by itself."},
	"MC/601": {connector.Retryable, "Wait until the lock is gone: it is tried again by itself."},
	"M3/897": {connector.Retryable, "Wait until the user has left the material: it is tried again by itself."},
	"M3/024": {connector.Retryable, "Wait until the user has left the material: it is tried again by itself."},
	"M7/021": {connector.Correctable, "Post the missing receipt of the item in SAP, then replay the fact."},
	"M7/053": {connector.Correctable, "Open the posting period in SAP, or give the fact a posting date in an open one, then replay it."},
	"M7/018": {connector.Correctable, "Name a storage location in the order's component in SAP, or in storage_locations, then replay the fact."},
	"M7/061": {connector.Correctable, "Check that the other reversal meant the same, then accept this fact with its document."},
	"RU/013": {connector.Correctable, "Release or reopen the order in SAP, then replay the fact."},
	"RU/016": {connector.Correctable, "Check that the other reversal meant the same, then accept this fact with its document."},
	"CO/101": {connector.Correctable, "Release the order in SAP, then replay the fact."},
	"CO/688": {connector.Correctable, "Process the order's failed goods movements in SAP (transaction COGI), then replay the fact."},
	"CO/017": {connector.Fatal, "Check the order number at the source; SAP does not have it."},
	"RU/002": {connector.Fatal, "Correct the operation in the rule of the source: the order does not have it."},
	"M3/305": {connector.Fatal, "Create the item in SAP or correct its mapping, then replay the fact."},
	"BM/302": {connector.Fatal, "Correct the unit in the rule of the source, or units in the configuration."},
}

// rejection is the outcome of a refusal. Status goes before message where it is clear by itself.
func (c *Connector) rejection(order string, r *refusal) connector.Outcome {
	o := connector.Outcome{Result: connector.Rejected, Class: connector.Correctable, Code: r.code, RetryAfter: r.retryAfter,
		Reason:   fmt.Sprintf("SAP refused a posting on order %s: %s.", order, strings.TrimRight(r.text, ".")),
		NextStep: "Look up SAP's message " + r.code + ", mend what it says, then replay the fact."}
	if a, known := advice[r.code]; known {
		o.Class, o.NextStep = a.class, a.next
	}
	switch r.status {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests, http.StatusLocked:
		o.Class, o.NextStep = connector.Retryable, "Wait: it is tried again by itself, no sooner than SAP asked."
	case http.StatusForbidden:
		o.Class, o.NextStep = connector.Fatal, "Give the connector's user the right to post in SAP, then replay the fact."
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		o.Class, o.NextStep = connector.Fatal, "Activate the service in SAP, and check url and client in the configuration."
	}
	if class, ok := classes[c.cfg.Messages[r.code]]; ok {
		o.Class = class
	}
	return o
}
