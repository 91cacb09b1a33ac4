package tryton

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
)

// beforeEffect turns a failed call into the outcome of a posting that had no effect. A call that may have had one is in doubt.
func (c *Connector) beforeEffect(p connector.Posting, err error) connector.Outcome {
	if kindOf(err) == outdated {
		return changed(p)
	}
	return c.failedCall(fmt.Sprintf("order %q", p.Fact.OrderNo()), err)
}

// failedCall is what a failed call means for what was to be written.
func (c *Connector) failedCall(what string, err error) connector.Outcome {
	var e *callError
	if !errors.As(err, &e) {
		return *reject(connector.Retryable, "unreadable", err.Error(), "Nothing at first: it is tried again. If it stays, compare Tryton's version with the one this connector knows (6.0).")
	}
	switch e.kind {
	case notSent:
		return *reject(connector.Retryable, "unreachable", fmt.Sprintf("Tryton cannot be reached for %s: %s", what, err),
			"Check that Tryton runs and that the hub reaches it; it is tried again by itself.")
	case locked:
		out := *reject(connector.Retryable, "log_in_refused", e.text, "Set the right password for the connector's account; if it is right, wait until Tryton opens the account again.")
		out.RetryAfter = lockout
		return out
	case denied:
		if isExpired(err) {
			return *reject(connector.Retryable, "session_ended", fmt.Sprintf("%s: Tryton ended the session again and again: %s", what, e.Error()),
				"Nothing at first: it is tried again. If it stays, find out who ends the sessions of the connector's account.")
		}
		return *reject(connector.Fatal, "not_allowed", fmt.Sprintf("%s: %s", what, e.Error()), noRight)
	case failed:
		return *reject(connector.Retryable, "tryton_failed", fmt.Sprintf("Tryton broke down while posting to %s: %s", what, e.text),
			"Nothing at first: it is tried again. If it stays, look for this text in Tryton's log.")
	case refused, warned:
		return *refusedBy(what, e)
	case impossible:
		return *reject(connector.Fatal, "unreadable", err.Error(), "Compare Tryton's version with the one this connector knows (6.0).")
	}
	return doubt(err)
}

const noRight = "Give the connector's account the groups Stock and Production in Tryton, and Purchase, Sales and Account where it writes these, then replay."

// refusedBy reads Tryton's sentence. The connector asks for English, so that the sentences are known.
func refusedBy(what string, e *callError) *connector.Outcome {
	reason := fmt.Sprintf("Tryton refuses to post to %s: %s", what, strings.TrimSpace(e.text))
	has := func(words ...string) bool {
		for _, w := range words {
			if !strings.Contains(e.text, w) {
				return false
			}
		}
		return true
	}
	switch {
	case has("must reopen period"):
		return reject(connector.Correctable, "period_closed", reason, "Reopen the stock period in Tryton, or post with a date in an open period; where the order is still planned for the closed one, plan it anew. Then replay.")
	case has("To complete production", "finished"):
		return reject(connector.Correctable, "works_open", reason, "Finish the order's works in Tryton, or set finish_works, and replay.")
	case has("you must provide a stock lot"):
		return reject(connector.Correctable, "lot_required", reason, "Let the source name the lot; post this quantity in Tryton by hand with its lot, and settle the fact.")
	case has("not allowed to access"), has("not allowed to create"), has("not allowed to write"):
		return reject(connector.Fatal, "not_allowed", reason, noRight)
	case has("not allowed to read"):
		return reject(connector.Correctable, "not_visible", reason, "The record was deleted or belongs to another company: check the account's companies in Tryton, then replay.")
	case e.kind == warned:
		return reject(connector.Correctable, "needs_confirmation", reason, "Decide in Tryton what the warning is about, then replay.")
	}
	return reject(connector.Correctable, "refused", reason, "Correct in Tryton what it says, then replay.")
}

// tomorrow is the last posting date that a plant east of the server can mean by today.
func tomorrow() time.Time { return time.Now().UTC().AddDate(0, 0, 1) }
