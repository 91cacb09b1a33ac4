package lookout

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/store"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// track is what this hub has seen of an agent.
type track struct {
	connected, heard time.Time     // of the latest stream, and what came last
	linked, at       time.Duration // where the watch's clock stood when the first changed, and when one of them did
	oldest           time.Time     // when the fact was stored that waits longest at the agent
	oldestAt         time.Duration // where the clock stood when that changed
}

// clockOff is from where on a clock is told. A status takes a while on a slow line.
const clockOff = 2 * time.Minute

func (l *Lookout) lookAtAgents(ctx context.Context, now time.Time) error {
	agents, err := l.o.Store.Agents(ctx)
	if err != nil {
		return err
	}
	if err := l.agents.begin(ctx); err != nil {
		return err
	}
	l.agents.tick(now)
	heard := l.o.Heard()
	var found []finding
	here, known := map[string]bool{}, map[string]bool{}
	for _, a := range agents {
		if !l.o.Known(a.Plant, a.Agent) {
			delete(l.tracks, a.Name())
			continue
		}
		known[a.Name()], here[a.Name()] = true, a.Connected()
		found = append(found, l.findings(a, heard[a.Name()])...)
	}
	// What an agent said of itself is neither true nor over while it is away.
	unclear := func(k key) bool {
		return k.code != store.AlarmAgentSilent && k.code != store.AlarmAgentNever && known[agentOf(k)] && !here[agentOf(k)] && l.o.Limits.AgentUnwell > 0
	}
	return l.agents.settle(ctx, found, unclear, func(k key) string {
		switch limit := l.limit(k.code); {
		case !known[agentOf(k)]:
			return store.EndedUnknown
		case limit == 0:
			return store.EndedUnlooked
		case k.code == store.AlarmAgentSilent || k.code == store.AlarmAgentNever:
			return store.EndedHeard
		}
		return store.EndedWell
	})
}

// limit is that of an alarm's code.
func (l *Lookout) limit(code string) time.Duration {
	switch code {
	case store.AlarmAgentSilent:
		return l.o.Limits.AgentAway
	case store.AlarmAgentLosing, store.AlarmSourceDown, store.AlarmClock, store.AlarmFactsStuck:
		return l.o.Limits.AgentUnwell
	}
	return l.o.Limits.OrderWaits
}

// agentOf is the agent that an alarm is about; its subject may name a source behind it.
func agentOf(k key) string {
	if k.code != store.AlarmSourceDown {
		return k.subject
	}
	plant, rest, _ := strings.Cut(k.subject, "/")
	agent, _, _ := strings.Cut(rest, "/")
	return plant + "/" + agent
}

// findings are what is wrong with one agent.
func (l *Lookout) findings(a store.Agent, heard time.Time) []finding {
	if a.ConnectedAt.IsZero() {
		return l.never(a)
	}
	t := l.tracks[a.Name()]
	if t == nil {
		t = &track{connected: a.ConnectedAt, linked: l.agents.ran, at: l.agents.ran}
		l.tracks[a.Name()] = t
	}
	if !t.connected.Equal(a.ConnectedAt) {
		t.connected, t.linked, t.at = a.ConnectedAt, l.agents.ran, l.agents.ran
	}
	if !heard.IsZero() && !heard.Equal(t.heard) {
		t.heard, t.at = heard, l.agents.ran
	}
	var found []finding
	add := func(after time.Duration, subject, code, next, format string, args ...any) *finding {
		found = append(found, finding{key: key{subject, code}, reason: fmt.Sprintf(format, args...), next: next, after: after, since: seenNow})
		return &found[len(found)-1]
	}
	if limit := l.o.Limits.AgentAway; limit > 0 && (!a.Connected() || l.agents.ran-t.at >= limit) {
		l.away(a, t, add)
	}
	if a.Connected() && l.o.Limits.AgentUnwell > 0 && a.Status != nil {
		l.unwell(a, t, a.Status, add)
	}
	return found
}

type adder func(after time.Duration, subject, code, next, format string, args ...any) *finding

func (l *Lookout) away(a store.Agent, t *track, add adder) {
	last := t.heard
	if last.IsZero() {
		last = a.SeenAt
	}
	how, next := "", "look whether the plant's computer runs and reaches the hub: its own page, or `plantagent doctor` there, names what refuses; when several are away, look at the line between. What it collects meanwhile it keeps and hands over by itself"
	if a.Connected() {
		how, next = ", though it is connected", "restart the agent, and keep its log for the vendor"
	}
	f := add(l.o.Limits.AgentAway, a.Name(), store.AlarmAgentSilent, next, "agent %q has not been heard of since %s%s: what its plant counts does not reach the hub", a.Name(), l.clock(a.Plant, last), how)
	f.since, f.from = t.at, last
}

// never is about work orders that wait for an agent that was never there.
func (l *Lookout) never(a store.Agent) []finding {
	waits := a.DeliveryLast - a.DeliveryStored
	if waits <= 0 || l.o.Limits.OrderWaits <= 0 {
		return nil
	}
	return []finding{{
		key: key{a.Name(), store.AlarmAgentNever}, after: l.o.Limits.OrderWaits, since: seenNow, counts: true,
		reason: fmt.Sprintf("work orders are routed to agent %q, which has never connected (%d messages wait for it)", a.Name(), waits),
		next:   "install and enrol the agent, or lead the orders to another one under routes: in the hub's configuration and restart the hub",
	}}
}

// unwell is about what the agent says of itself.
func (l *Lookout) unwell(a store.Agent, t *track, s *pb.AgentStatus, add adder) {
	limit := l.o.Limits.AgentUnwell
	if s.GetState() == "losing" {
		add(min(limit, time.Minute), a.Name(), store.AlarmAgentLosing, "see why the hub takes less than comes in, free disk space at the plant's computer, or raise the buffer's limit there; what is stored is safe",
			"agent %q says that new data is at risk: %s", a.Name(), s.GetReason())
	}
	for _, src := range s.GetSources() {
		if state := src.GetState(); state == "failed" || state == "connecting" {
			since, from := "", time.Time{}
			if src.GetSince() != nil {
				from = src.GetSince().AsTime()
				since = " since " + l.clock(a.Plant, from)
			}
			f := add(limit, a.Name()+"/"+src.GetName(), store.AlarmSourceDown, "check the source and the network to it: `plantagent doctor` at the plant's computer names what refuses; it is tried again by itself",
				"agent %q does not reach its source %q (%s)%s: %s", a.Name(), src.GetName(), src.GetKind(), since, cmp.Or(src.GetReason(), "no answer yet"))
			f.from = from
		}
	}
	if off := s.GetAt().AsTime().Sub(a.StatusAt); s.GetAt() != nil && off.Abs() >= clockOff {
		way := "ahead of"
		if off < 0 {
			way = "behind"
		}
		add(limit, a.Name(), store.AlarmClock, "set the clock that is wrong, and have it kept by NTP; when it is so for many agents, it is the hub's. Facts of this time may wait as doubtful",
			"the clock of agent %q is %s %s the hub's", a.Name(), off.Abs().Round(time.Second), way)
	}
	l.stuck(a, t, s, add)
}

// stuck is about facts that wait at an agent although it is connected.
func (l *Lookout) stuck(a store.Agent, t *track, s *pb.AgentStatus, add adder) {
	var oldest time.Time
	if s.GetBusinessPending() > 0 && s.GetOldestPending() != nil {
		oldest = s.GetOldestPending().AsTime()
	}
	if !oldest.Equal(t.oldest) {
		t.oldest, t.oldestAt = oldest, l.agents.ran
	}
	if oldest.IsZero() {
		return
	}
	f := add(2*l.o.Limits.AgentUnwell, a.Name(), store.AlarmFactsStuck, "look at the hub's log and disk, and at the agent's page: both say what is refused",
		"facts of %s wait at agent %q although it is connected, and do not get through", l.clock(a.Plant, oldest), a.Name())
	f.since, f.from = max(t.oldestAt, t.linked), oldest
}
