package status

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// patience is how long something may be on its way before it counts as trouble.
	patience = time.Minute
	// ClockTolerance is how far this computer's clock may be from the hub's before its times count as wrong and somebody should
	// look.
	ClockTolerance = time.Minute
	// fullSoon is the time until the buffer is full below which somebody should look.
	fullSoon = 24 * time.Hour
)

// ExitCode returns the exit code of "plantagent status" for an overall state: 0 ok, 1 degraded, 2 offline, 3 losing. A
// state that is not known counts as degraded.
func ExitCode(state string) int {
	if i := slices.Index([]string{OK, Degraded, Offline, Losing}, state); i >= 0 {
		return i
	}
	return 1
}

// Judge sets State, Reason, NextStep and Also of s from its other parts. The gravest finding decides; how many more there
// are is said in the reason. It looks at no clock but s.At.
func Judge(s *Snapshot) {
	s.State, s.Reason, s.NextStep, s.Also = OK, "", "", nil
	found := slices.Concat(losing(s), offline(s), degraded(s))
	if len(found) == 0 {
		return
	}
	// Stable: within a state the order of the checks is the order of importance.
	slices.SortStableFunc(found, func(a, b Finding) int { return ExitCode(b.State) - ExitCode(a.State) })
	worst := found[0]
	s.State, s.Reason, s.NextStep, s.Also = worst.State, worst.Reason, worst.NextStep, found[1:]
	if more := len(s.Also); more > 0 {
		s.Reason += fmt.Sprintf(" (and %d more)", more)
	}
}

func losing(s *Snapshot) []Finding {
	var out []Finding
	var held []string
	for _, src := range s.Sources {
		if src.State == "held" {
			held = append(held, src.Name)
		}
	}
	if s.Business.Held || len(held) > 0 {
		reason := "the buffer is full: new data is not taken"
		if len(held) > 0 {
			reason = "the buffer is full: sources are held back: " + strings.Join(held, ", ")
		}
		out = append(out, Finding{Losing, reason, "restore the line to the hub, free disk space, or raise the buffer's limit"})
	}
	// A buffer that drops gives up whole files: it is never far below its limit then.
	if t := s.Telemetry; t.Dropped > 0 && t.Limit > 0 && t.Bytes >= t.Limit/10*7 {
		out = append(out, Finding{Losing, fmt.Sprintf("readings are being dropped, %d so far; production facts are safe", t.Dropped), "restore the line to the hub, or raise the telemetry limit"})
	}
	return out
}

func offline(s *Snapshot) []Finding {
	u := s.Uplink
	switch {
	case u.State == "offline" || u.State == "refused":
		return []Finding{{Offline, orElse(u.Reason, "the hub is not reached"), u.NextStep}}
	case u.State == "connecting" && s.At.Sub(u.Since) > patience:
		return []Finding{{Offline, "the hub has not answered yet: " + orElse(u.Reason, "connecting"), orElse(u.NextStep, "check the network")}}
	case u.State == "connecting":
		return []Finding{{Degraded, "connecting to the hub", ""}}
	}
	return nil
}

func degraded(s *Snapshot) []Finding {
	var out []Finding
	add := func(next, format string, args ...any) {
		out = append(out, Finding{Degraded, fmt.Sprintf(format, args...), next})
	}
	for _, src := range s.Sources {
		switch {
		case src.State == "failed":
			add("check the source and the network to it; it is tried again by itself", "source %s: %s", src.Name, orElse(src.Reason, "not connected"))
		case src.State == "connecting" && s.At.Sub(src.Since) > patience:
			add("check the source and the network to it", "source %s does not connect: %s", src.Name, orElse(src.Reason, "no answer yet"))
		}
	}
	if s.BufferDamage != "" {
		add("check this computer's disk; keep the file, and compare the tally of the lost records with the source", "%s", s.BufferDamage)
	} else if s.Business.Dropped > 0 {
		add("look at the agent's log and keep its data folder", "%d production records were lost from the buffer", s.Business.Dropped)
	}
	if s.InboxDamage != "" {
		add("the hub sends work orders and receipts again by itself; keep the damaged file for the vendor", "%s", s.InboxDamage)
	}
	if s.Quarantined > 0 {
		add("look at them below, mend the rule or the source, then replay them", "%d inputs could not be used and are kept aside", s.Quarantined)
	}
	if s.QuarantineDropped > 0 {
		add("mend the rule or the source that sends them", "%d inputs that could not be used were pushed out by newer ones", s.QuarantineDropped)
	}
	for _, src := range s.Sources {
		for _, p := range src.Problems {
			add(p.NextStep, "source %s: %s: %s", src.Name, p.Item, p.Reason)
		}
	}
	for _, o := range s.WorkOrders {
		if o.State == "rejected" {
			add("correct the order in the ERP, or the receiver", "work order %s was not taken: %s", o.OrderNo, orElse(o.Reason, "no reason given"))
		}
	}
	if d, err := time.ParseDuration(s.HubClockSkew); err == nil && d.Abs() > ClockTolerance {
		add("set this computer's clock", "clock differs from the hub's by %s", s.HubClockSkew)
	}
	if f := time.Duration(s.Business.FullInSeconds) * time.Second; f > 0 && f < fullSoon {
		next := "restore the line to the hub before then; when it is full the sources are held back, nothing is dropped"
		if s.Uplink.State == "connected" {
			next = "see why the hub takes less than comes in"
		}
		add(next, "the buffer will be full in %s at the present rate", hours(f))
	}
	if s.Uplink.State == "connected" && s.Uplink.Reason != "" {
		add(s.Uplink.NextStep, "%s", s.Uplink.Reason)
	}
	return out
}

// hours says how long, as exactly as somebody needs who has to do something until then.
func hours(d time.Duration) string {
	switch {
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	case d >= time.Minute:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	}
	return "less than a minute"
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// NewestFirst sorts receipts by the last thing that happened to them.
func NewestFirst(list []Receipt) {
	latest := func(r Receipt) time.Time {
		if r.At.After(r.StoredAt) {
			return r.At
		}
		return r.StoredAt
	}
	slices.SortStableFunc(list, func(a, b Receipt) int { return latest(b).Compare(latest(a)) })
}
