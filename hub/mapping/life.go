package mapping

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The refusals of a version's life; the errors wrap them and say the rest.
var (
	// ErrStale says that somebody else made a version in between.
	ErrStale = errors.New("another version was made in between")
	// ErrState says that a version is not in a state in which that can be done.
	ErrState = errors.New("not possible in this state")
	// ErrFourEyes says that the same person cannot do both.
	ErrFourEyes = errors.New("four eyes are needed")
	// ErrFaulty says that a version has faults; *Faulty lists them.
	ErrFaulty = errors.New("the mapping set has faults")
	// ErrUnacknowledged says that warnings of the dry run were not acknowledged by name.
	ErrUnacknowledged = errors.New("warnings must be acknowledged by name")
)

// Faulty lists faults. It is an ErrFaulty.
type Faulty struct{ Faults []Fault }

func (f *Faulty) Error() string {
	lines := make([]string, len(f.Faults))
	for i, x := range f.Faults {
		lines[i] = x.String()
	}
	return ErrFaulty.Error() + ": " + strings.Join(lines, "; ")
}

// Is implements errors.Is.
func (f *Faulty) Is(target error) bool { return target == ErrFaulty }

func faulty(s Set, c Content) error {
	if faults := Check(s, c); len(faults) > 0 {
		return &Faulty{faults}
	}
	return nil
}

// Life is who made a version what it is, and when.
type Life struct {
	// Base is the latest version when this one was made.
	Base       int       `json:"base"`
	Note       string    `json:"note,omitempty"`
	MadeBy     string    `json:"made_by"`
	MadeAt     time.Time `json:"made_at"`
	ProposedBy string    `json:"proposed_by,omitempty"`
	ProposedAt time.Time `json:"proposed_at,omitzero"`
	// DecidedBy approved or rejected it.
	DecidedBy    string    `json:"decided_by,omitempty"`
	DecidedAt    time.Time `json:"decided_at,omitzero"`
	DecisionNote string    `json:"decision_note,omitempty"`
	// Acknowledged are the warnings that the approver named.
	Acknowledged []string `json:"acknowledged,omitempty"`
	// Returns is the version whose content this one has again; 0 for one of its own.
	Returns int `json:"returns,omitempty"`
}

// Next makes a new version on top of all others. base is the latest one that its maker has seen, 0 for none: it must be so.
func Next(s Set, all []Version, base int, c Content, by, note string, now time.Time) (Version, error) {
	latest := 0
	for _, v := range all {
		latest = max(latest, v.Number)
	}
	if base != latest {
		return Version{}, fmt.Errorf("%w: the latest of %q is %d, this one is made on top of %d: look at the latest, and make it on top of that", ErrStale, s.Name, latest, base)
	}
	if faults := CheckSet(s); len(faults) > 0 {
		return Version{}, &Faulty{faults}
	}
	if len(c.Rows) > maxRows || len(c.Tests) > maxTests {
		return Version{}, faulty(s, c)
	}
	return Version{Set: s, Number: latest + 1, State: Draft, Content: c, Life: Life{Base: base, Note: note, MadeBy: by, MadeAt: now}}, nil
}

// Propose puts a draft without faults up for approval.
func (v *Version) Propose(by string, now time.Time) error {
	if v.State != Draft {
		return fmt.Errorf("%w: version %d of %q is %s, only a draft can be proposed", ErrState, v.Number, v.Name, v.State)
	}
	if err := faulty(v.Set, v.Content); err != nil {
		return err
	}
	v.State, v.ProposedBy, v.ProposedAt = Proposed, by, now
	return nil
}

// sameCaller compares the names of tokens: who writes a name in another way is no other person.
func sameCaller(a, b string) bool {
	return strings.EqualFold(strings.TrimSpace(a), strings.TrimSpace(b))
}

// Approve brings a proposed version into force at from, at once when that is zero; it may lie in the past. Neither who made it
// nor who proposed it may approve it. dry is its dry run, of which all warnings must be named.
func (v *Version) Approve(all []Version, by, note string, from, now time.Time, dry Dry, acknowledged []string) error {
	if v.State != Proposed {
		return fmt.Errorf("%w: version %d of %q is %s, only a proposed one can be approved", ErrState, v.Number, v.Name, v.State)
	}
	if sameCaller(by, v.ProposedBy) || sameCaller(by, v.MadeBy) {
		return fmt.Errorf("%w: %q made or proposed version %d of %q and cannot approve it: somebody else must, with a token of their own", ErrFourEyes, by, v.Number, v.Name)
	}
	for _, o := range all {
		if o.State == Approved && o.Number > v.Number {
			return fmt.Errorf("%w: version %d of %q was approved since: make a new version on top of the latest", ErrState, o.Number, v.Name)
		}
	}
	if err := faulty(v.Set, v.Content); err != nil {
		return err
	}
	if dry.Set != v.Name || dry.Version != v.Number {
		return fmt.Errorf("%w: the dry run is of version %d of %q", ErrState, dry.Version, dry.Set)
	}
	if left := dry.Unacknowledged(acknowledged); len(left) > 0 {
		var texts []string
		for _, w := range dry.Warnings {
			if slices.Contains(left, w.Name) {
				texts = append(texts, fmt.Sprintf("%s (%s; facts: %d, such as %s)", w.Name, w.Text, w.Facts, w.Example))
			}
		}
		return fmt.Errorf("%w: %s", ErrUnacknowledged, strings.Join(texts, "; "))
	}
	if from.IsZero() {
		from = now
	}
	v.State, v.From, v.DecidedBy, v.DecidedAt, v.DecisionNote, v.Acknowledged = Approved, from, by, now, note, slices.Clone(acknowledged)
	return nil
}

// Reject ends a draft or a proposed version. Anybody may, its maker too.
func (v *Version) Reject(by, note string, now time.Time) error {
	if v.State != Proposed && v.State != Draft {
		return fmt.Errorf("%w: version %d of %q is %s", ErrState, v.Number, v.Name, v.State)
	}
	v.State, v.DecidedBy, v.DecidedAt, v.DecisionNote = Rejected, by, now, note
	return nil
}

// Return makes and approves a version with the content of an earlier one: to, or when that is 0 the approved one before the one
// that is in force. It is the urgent path: one pair of eyes is enough, because that content was approved by two before. It comes
// into force when the one that it replaces did, so that this one counts at no time any more, or at from where that is not zero.
func Return(s Set, all []Version, base, to int, by, note string, from, now time.Time) (Version, error) {
	current, before := (*Version)(nil), (*Version)(nil)
	for i := range all {
		if v := &all[i]; v.State == Approved && (current == nil || v.Number > current.Number) {
			current = v
		}
	}
	if current == nil {
		return Version{}, fmt.Errorf("%w: no version of %q was ever approved", ErrState, s.Name)
	}
	for i := range all {
		v := &all[i]
		if v.State == Approved && v.Number < current.Number && (to == 0 || v.Number == to) && (before == nil || v.Number > before.Number) {
			before = v
		}
	}
	if before == nil {
		return Version{}, fmt.Errorf("%w: %q has no approved version to return to before version %d", ErrState, s.Name, current.Number)
	}
	v, err := Next(s, all, base, before.Content, by, note, now)
	if err != nil {
		return v, err
	}
	if from.IsZero() {
		from = current.From
	}
	v.State, v.From, v.Returns = Approved, from, cmp.Or(before.Returns, before.Number)
	v.ProposedBy, v.ProposedAt, v.DecidedBy, v.DecidedAt, v.DecisionNote = by, now, by, now, note
	return v, nil
}
