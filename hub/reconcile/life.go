package reconcile

import (
	"fmt"
	"slices"
	"time"
)

// State is where a discrepancy stands.
type State string

// The states of a discrepancy.
const (
	Open      State = "OPEN"      // a person has it in the inbox
	Healing   State = "HEALING"   // an action was begun without a person, or by one
	Healed    State = "HEALED"    // it is not seen any more
	Escalated State = "ESCALATED" // it is older than its SLA, or must not wait
	Accepted  State = "ACCEPTED"  // a person says that it stays as it is
)

// Live reports that something has to happen yet.
func (s State) Live() bool { return s == Open || s == Healing || s == Escalated }

// Discrepancy is a finding with its life.
type Discrepancy struct {
	ID int64
	Finding
	State               State
	FirstSeen, LastSeen time.Time
	Due                 time.Time // the end of the SLA
	// Tier counts escalations: 0 heals itself or lies in the inbox, 1 is the plant's owner, 2 stops business.
	Tier  int
	Times int
	// Assigned is the person who has it, empty for whoever has the role of Owner.
	Assigned string
	// Heals are how often an action was begun, BegunAt when the last one was; Note is a person's or the rules' last word.
	Heals   int
	BegunAt time.Time
	Note    string
}

// Change is what one check makes of a discrepancy. Begin says that its proposed action is to be carried out now.
type Change struct {
	Discrepancy
	Step  string // found, seen, healing, healed, escalated, changed
	Begin bool
}

// MostHeals is how often the rules begin an action for one discrepancy before a person gets it.
const MostHeals = 3

type identity struct {
	t Type
	s string
}

// Merge brings the known discrepancies of what was checked up to date. known are the live and the accepted ones whose subjects
// the check would have found again; used counts the heals so far and is counted on inside. There is at most one live
// discrepancy for a type and a subject, whatever is found.
func Merge(now time.Time, known []Discrepancy, found []Finding, used Used, p Policy) []Change {
	byID := map[identity]Discrepancy{}
	for _, d := range known {
		k := identity{d.Type, d.Subject}
		if old, ok := byID[k]; !ok || !old.State.Live() && d.State.Live() || old.State == d.State && d.ID > old.ID {
			byID[k] = d
		}
	}
	var out []Change
	seen := map[identity]bool{}
	for _, f := range found {
		k := identity{f.Type, f.Subject}
		if seen[k] {
			continue
		}
		seen[k] = true
		d, ok := byID[k]
		if ok && d.State == Accepted && d.Left == f.Left && d.Right == f.Right {
			continue // the same as was accepted
		}
		step := "seen"
		if !ok || !d.State.Live() {
			d = Discrepancy{FirstSeen: now, State: Open, Due: now.Add(p.sla(f.Severity))}
			step = "found"
		}
		d.Finding, d.LastSeen = f, now
		d.Times++
		c := Change{Discrepancy: d, Step: step}
		c.decide(now, &used, p)
		out = append(out, c)
	}
	for k, d := range byID {
		if d.State.Live() && !seen[k] {
			d.State, d.Note = Healed, "it is not seen any more"
			out = append(out, Change{Discrepancy: d, Step: "healed"})
		}
	}
	return out
}

// mostEvidence is how many pieces of evidence a discrepancy keeps: the first, and the last ones.
const mostEvidence = 20

// Happened brings an event into what is known: something that is told once, and that no later look would find again. open is the live
// discrepancy of its type and subject, nil when there is none; it takes the evidence in, and what was done about the event does not
// end it.
func Happened(now time.Time, open *Discrepancy, f Finding, p Policy) Change {
	if open == nil {
		c := Change{Discrepancy: Discrepancy{Finding: f, FirstSeen: now, LastSeen: now, State: Open, Due: now.Add(p.sla(f.Severity)), Times: 1}, Step: "found"}
		if f.Done != "" {
			c.State, c.Step, c.Note = Healed, "healed", f.Done
			return c
		}
		c.decide(now, &Used{}, p)
		return c
	}
	c := Change{Discrepancy: *open, Step: "seen"}
	c.Evidence = append(slices.Clone(c.Evidence), f.Evidence...)
	if n := len(c.Evidence); n > mostEvidence {
		c.Evidence = append(c.Evidence[:1:1], c.Evidence[n-mostEvidence+1:]...)
	}
	c.Facts = append(slices.Clone(c.Facts), f.Facts...)
	c.Facts = c.Facts[max(0, len(c.Facts)-mostEvidence):]
	c.LastSeen, c.Times = now, c.Times+1
	if f.Done != "" {
		return c
	}
	was, facts, evidence := c.Finding, c.Facts, c.Evidence
	c.Finding = f
	c.Facts, c.Evidence, c.Since = facts, evidence, was.Since
	if was.Escalate && !f.Escalate { // the graver one stays in front
		c.Finding = was
		c.Facts, c.Evidence = facts, evidence
	}
	c.decide(now, &Used{}, p)
	return c
}

// Aged moves a discrepancy up whose SLA has passed, as a comparison would. ok is false when there is nothing to change.
func Aged(now time.Time, d Discrepancy, p Policy) (c Change, ok bool) {
	c = Change{Discrepancy: d}
	c.age(now, p)
	return c, c.Step != ""
}

func (p *Policy) sla(s Severity) time.Duration {
	if d, ok := p.SLA[s]; ok {
		return d
	}
	return 8 * time.Hour
}

// healAgain is how long a heal may take until it is tried once more.
const healAgain = 5 * time.Minute

// decide heals, waits or escalates.
func (c *Change) decide(now time.Time, used *Used, p Policy) {
	d := Decide(c.Finding, *used, p)
	switch {
	case c.State == Escalated:
	case c.Escalate:
		c.State, c.Step, c.Note = Escalated, "escalated", c.Why
		c.Tier = max(c.Tier, 1)
	case c.State == Healing && c.Heals < MostHeals && now.Before(c.Due):
		// It was begun; when it takes too long it is begun again, after a look at what became of it.
		c.Begin = d.Heal && now.Sub(c.BegunAt) >= healAgain
	case d.Heal && c.Heals < MostHeals:
		c.State, c.Step, c.Begin, c.Note = Healing, "healing", true, d.Why
	default:
		c.State, c.Note = Open, d.Why
	}
	if c.Begin {
		c.Heals++
		c.BegunAt = now
		if c.Proposed.Kind.changesBooks() {
			used.Order++
			used.Day++
		}
	}
	c.age(now, p)
}

// age moves a discrepancy up when its SLA has passed: to the plant's owner, then to a stop of the business it concerns.
func (c *Change) age(now time.Time, p Policy) {
	if now.Before(c.Due) || c.Tier >= 2 {
		return
	}
	c.Tier++
	c.State, c.Step = Escalated, "escalated"
	c.Note = fmt.Sprintf("it was open for longer than %s", p.sla(c.Severity))
	c.Due = now.Add(p.sla(c.Severity))
}
