package erp

import (
	"encoding/json"
	"fmt"
	"time"
)

// Faults says how the API misbehaves. Probabilities go from 0 (never, the default) to 1 (always) and count per posting.
type Faults struct {
	// LoseReply closes the connection without an answer after the posting was committed.
	LoseReply float64 `json:"lose_reply"`
	// LoseRequest closes the connection without an answer before anything was done.
	LoseRequest float64 `json:"lose_request"`
	// Delay accepts a posting (202) and books it DelayFor later; a refusal then shows in the search by external key.
	Delay    float64  `json:"delay"`
	DelayFor Duration `json:"delay_for"`
	// Lock refuses a posting because somebody else works on the order.
	Lock float64 `json:"lock"`
	// Busy answers 503 with Retry-After, in whole seconds and at least 1.
	Busy      float64  `json:"busy"`
	BusyAfter Duration `json:"busy_after"`
	// Throttle answers 429 with Retry-After, like Busy.
	Throttle float64 `json:"throttle"`
	// DropSession ends all sessions, that of the posting first: it answers 401, and nothing was done.
	DropSession float64 `json:"drop_session"`
	// Deny refuses a posting for want of a right.
	Deny float64 `json:"deny"`
	// HTMLPage answers 200 with a web page before anything was done, HTMLReply and EmptyReply after the posting was committed,
	// the last with no page at all.
	HTMLPage   float64 `json:"html_page"`
	HTMLReply  float64 `json:"html_reply"`
	EmptyReply float64 `json:"empty_reply"`
	// ErrorFlag answers 201 with "errors_exist" in the body: nothing was booked.
	ErrorFlag float64 `json:"error_flag"`
	// Phantom answers 201 with a document that was never booked, as a system does that only queued it or waits for a yes.
	Phantom float64 `json:"phantom"`
	// HalfApply books a document without its goods movements; Reprocess books these later.
	HalfApply float64 `json:"half_apply"`
	// Misbook books one less than the yield that was asked for.
	Misbook float64 `json:"misbook"`
	// NoSearch offers no search by external key (405).
	NoSearch bool `json:"no_search"`
	// UniqueKeys answers 409 to a second document with an external key.
	UniqueKeys bool `json:"unique_keys"`
	// ReadLag shows documents and the instant of a search only so much later, as a copy of the database does.
	ReadLag Duration `json:"read_lag"`
	// LateCommit stamps a change of an order up to so long before it can be read.
	LateCommit Duration `json:"late_commit"`
}

// Duration is a time.Duration that is written "1.5s" in JSON.
type Duration time.Duration

// MarshalJSON writes the duration as text.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

// UnmarshalJSON reads "1.5s".
func (d *Duration) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return fmt.Errorf("duration %s: write it as text such as \"1.5s\"", b)
	}
	v, err := time.ParseDuration(text)
	*d = Duration(v)
	return err
}

// SetFaults replaces the faults from the next request on.
func (e *ERP) SetFaults(f Faults) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.faults = f
}

// Faults returns the faults as they are set.
func (e *ERP) Faults() Faults {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.faults
}

// Lock lets user hold an order, so that every posting to it is refused, until Unlock.
func (e *ERP) Lock(orderNo, user string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.locks[orderNo] = user
}

// Unlock ends a Lock.
func (e *ERP) Unlock(orderNo string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.locks, orderNo)
}

// ExpireTokens makes every client log in again.
func (e *ERP) ExpireTokens() {
	e.mu.Lock()
	defer e.mu.Unlock()
	clear(e.tokens)
}

// fate is what the dice say about one posting.
type fate struct {
	loseRequest, loseReply            bool
	htmlPage, htmlReply, emptyReply   bool
	errorFlag, phantom, half, misbook bool
	refuse                            *Error
	delay                             time.Duration // 0 when it is booked at once
}

func (e *ERP) roll(orderNo string) fate {
	e.mu.Lock()
	defer e.mu.Unlock()
	hit := func(p float64) bool { return p > 0 && e.dice.Float64() < p }
	f := fate{
		loseRequest: hit(e.faults.LoseRequest), loseReply: hit(e.faults.LoseReply), htmlPage: hit(e.faults.HTMLPage), htmlReply: hit(e.faults.HTMLReply),
		emptyReply: hit(e.faults.EmptyReply), errorFlag: hit(e.faults.ErrorFlag), phantom: hit(e.faults.Phantom), half: hit(e.faults.HalfApply),
		misbook: hit(e.faults.Misbook),
	}
	if hit(e.faults.Delay) {
		f.delay = max(time.Duration(e.faults.DelayFor), time.Millisecond)
	}
	holder, locked := e.locks[orderNo]
	if !locked && hit(e.faults.Lock) {
		holder, locked = "PLANNER", true
	}
	if locked {
		f.refuse = &Error{Status: 423, Code: "C1/005", Message: fmt.Sprintf("Order %s is being processed by user %s", orderNo, holder)}
	}
	after := max(time.Duration(e.faults.BusyAfter), time.Second)
	switch {
	case hit(e.faults.Busy):
		f.refuse = &Error{Status: 503, Code: "SY/503", Message: "All work processes are busy", RetryAfter: after}
	case hit(e.faults.Throttle):
		f.refuse = &Error{Status: 429, Code: "SY/429", Message: "Too many requests", RetryAfter: after}
	case hit(e.faults.DropSession):
		clear(e.tokens)
		f.refuse = sessionEnded()
	case hit(e.faults.Deny):
		f.refuse = &Error{Status: 403, Code: "SY/403", Message: fmt.Sprintf("User %s has no authorisation to post to order %s", e.user, orderNo)}
	}
	return f
}

// enter notes that a request with an external key is being worked on, and leave that it no longer is.
func (e *ERP) enter(key string) (leave func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.inFlight[key]++
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.inFlight[key]--; e.inFlight[key] == 0 {
			delete(e.inFlight, key)
		}
	}
}
