package jobcontrol

import (
	"errors"
	"fmt"
	"strings"
)

// State is one state of a job: Path names the state machine within the job's own, empty for that itself.
type State struct {
	Path   []string
	Text   Text
	Number uint32
}

func codeState(c *coder, s *State) {
	c.path(&s.Path)
	c.text(&s.Text)
	c.uint32(&s.Number)
}

// path codes a RelativePath; of its elements the names are kept.
func (c *coder) path(v *[]string) {
	n := int32(len(*v))
	c.int32(&n)
	if c.reading {
		*v = nil
		if c.err == nil && int(n) > len(c.b)/10 {
			c.fail(errShort)
		}
	}
	for i := 0; i < int(n) && c.err == nil; i++ {
		var name string
		if !c.reading {
			name = (*v)[i]
		}
		c.node()
		inverse, subtypes := byte(0), byte(1)
		c.byte(&inverse)
		c.byte(&subtypes)
		namespace := int16(0)
		c.int16(&namespace)
		c.string(&name)
		if c.reading {
			*v = append(*v, name)
		}
	}
}

// node reads over a node id, and writes the null one.
func (c *coder) node() {
	var kind byte
	c.byte(&kind)
	if !c.reading {
		c.byte(&kind)
		return
	}
	switch kind {
	case 0:
		c.take(1)
	case 1:
		c.take(3)
	case 2:
		c.take(6)
	case 3, 5:
		c.take(2)
		var s string
		c.string(&s)
	case 4:
		c.take(18)
	default:
		c.fail(fmt.Errorf("a node id has the unknown form %d", kind))
	}
}

// Phase is where a job is.
type Phase int

// The phases of a job, by the numbers of its states. Gone is no job at all.
const (
	Gone         Phase = 0
	NotAllowed   Phase = 1 // stored, and may not start yet
	Allowed      Phase = 2 // may start
	Running      Phase = 3
	Interrupted  Phase = 4
	Ended        Phase = 5
	Aborted      Phase = 6
	UnknownPhase Phase = -1
	firstPhase         = NotAllowed
	lastPhase          = Aborted
)

var phaseNames = map[Phase]string{
	Gone: "Gone", NotAllowed: "NotAllowedToStart", Allowed: "AllowedToStart", Running: "Running", Interrupted: "Interrupted", Ended: "Ended",
	Aborted: "Aborted", UnknownPhase: "unknown",
}

func (p Phase) String() string { return phaseNames[p] }

// Started reports whether the job has begun: it can no longer be cancelled, only stopped or aborted.
func (p Phase) Started() bool { return p == Running || p == Interrupted }

// Over reports whether nothing more comes of the job.
func (p Phase) Over() bool { return p == Ended || p == Aborted }

// PhaseOf finds a job's own state among its states: by its number, or by its name where a server gives none.
func PhaseOf(states []State) Phase {
	var own *State
	for i := range states {
		if own == nil || len(states[i].Path) < len(own.Path) {
			own = &states[i]
		}
	}
	if own == nil {
		return UnknownPhase
	}
	if p := Phase(own.Number); own.Number <= uint32(lastPhase) && p >= firstPhase {
		return p
	}
	for p := firstPhase; p <= lastPhase; p++ {
		if strings.EqualFold(own.Text.Text, p.String()) {
			return p
		}
	}
	return UnknownPhase
}

// The bits of a method's return status.
const (
	NoError        uint64 = 1 << 0
	UnknownOrder   uint64 = 1 << 1
	InvalidCommand uint64 = 1 << 2
	InvalidStatus  uint64 = 1 << 3
	UnableToAccept uint64 = 1 << 4
	InvalidRequest uint64 = 1 << 32
)

// Answer is the error of a method that a receiver carried out without success.
type Answer struct {
	Method string
	Status uint64
}

// Check turns a return status into an error: nil only when the receiver says that there was none. Zero says nothing and is
// no success.
func Check(method string, status uint64) error {
	if status&NoError != 0 {
		return nil
	}
	return &Answer{Method: method, Status: status}
}

func (a *Answer) Error() string {
	var words []string
	for _, w := range []struct {
		bit  uint64
		word string
	}{
		{UnknownOrder, "it does not know the job order"}, {InvalidCommand, "the command is not valid"},
		{InvalidStatus, "the job's state does not allow it"}, {UnableToAccept, "it cannot accept the job order"},
		{InvalidRequest, "the request is not valid"},
	} {
		if a.Status&w.bit != 0 {
			words = append(words, w.word)
		}
	}
	if vendor := a.Status >> 33; vendor != 0 {
		words = append(words, fmt.Sprintf("the maker's own reason %#x", a.Status&^(1<<33-1)))
	}
	if len(words) == 0 {
		words = append(words, "it gives no reason")
	}
	return fmt.Sprintf("%s: the receiver answers status %#x: %s", a.Method, a.Status, strings.Join(words, ", "))
}

// Says reports whether err is a receiver's answer with one of those bits.
func Says(err error, bits uint64) bool {
	var a *Answer
	return errors.As(err, &a) && a.Status&bits != 0
}
