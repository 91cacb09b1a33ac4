package agent

import (
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/linekeeper/linekeeper/agent/buffer"
	"github.com/linekeeper/linekeeper/agent/status"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// judgment remembers since when the overall state is what it is.
type judgment struct {
	mu    sync.Mutex
	state string
	since time.Time
}

func (j *judgment) set(state string, now time.Time) time.Time {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.state != state {
		j.state, j.since = state, now
	}
	return j.since
}

// damageShown is how long a damaged buffer file stays on the page.
const damageShown = 7 * 24 * time.Hour

// Snapshot is everything that page, command line, metrics and hub are told of the agent.
func (a *Agent) Snapshot() status.Snapshot {
	now := a.now()
	b := a.pipe.business.Stats()
	s := status.Snapshot{
		At: now, Version: a.version, Plant: a.cfg.Plant, Agent: a.cfg.Agent, StartedAt: a.started,
		Business: bufferStatus(b), Telemetry: bufferStatus(a.pipe.telemetry.Stats()),
		Quarantined: b.Quarantined, QuarantineDropped: b.QuarantineDropped, InboxDamage: a.inbox.Recovered(), FreeDisk: b.FreeDisk, Sources: a.heldSources(b), WorkOrders: a.inbox.Orders(),
		Receipts: a.receipts(b.AckedSeq), Quarantine: a.quarantine(), Ledger: ledgerStatus(a.pipe.rules.Ledger(readOnly{a.pipe.business})),
		ConfigPath: a.cfg.Path, DataDir: a.cfg.DataDir, Contact: a.cfg.Contact,
	}
	s.Uplink = status.Uplink{State: "offline", Since: a.started, Reason: "no hub is configured", NextStep: "set hub.address in the configuration"}
	if a.uplink != nil {
		s.Uplink = a.uplink.Status()
		if skew, ok := a.uplink.ClockSkew(); ok && skew.Abs() > 2*time.Second {
			s.HubClockSkew = skew.Round(time.Second).String()
		}
		if lost := a.lost.Load(); lost != nil && s.Uplink.State == "connected" && s.Uplink.Reason == "" {
			s.Uplink.Reason = fmt.Sprintf("the hub was restored from an older copy: records %d to %d, which it once acknowledged, are gone", lost.first, lost.last)
			s.Uplink.NextStep = "compare the orders of that time with the ERP; restart the agent when it is done"
		}
	}
	for _, d := range a.pipe.business.Damaged() {
		s.Business.Dropped += d.Records
		if now.Sub(d.At) < damageShown {
			s.BufferDamage = d.String() // the latest one
		}
	}
	status.Judge(&s)
	s.Since = a.judgment.set(s.State, now)
	return s
}

func bufferStatus(st buffer.Stats) status.Buffer {
	return status.Buffer{
		Pending: st.Pending, Bytes: st.Bytes, Limit: st.Limit, Oldest: st.Oldest, LastSeq: st.LastSeq, AckedSeq: st.AckedSeq,
		Dropped: st.Dropped, Generation: st.Generation, FullInSeconds: int64(st.FullIn / time.Second), Held: st.Held,
	}
}

// heldSources shows sources that the buffer holds back, because it is full or its disk fails, as what they are.
func (a *Agent) heldSources(st buffer.Stats) []status.Source {
	sources := a.board.Sources()
	why := "the buffer is full (" + st.HeldReason + ")"
	if st.Trouble != "" {
		why = "the buffer cannot be written: " + st.Trouble
	}
	if !st.Held && st.Trouble == "" {
		return sources
	}
	for i := range sources {
		if sources[i].State == "ok" {
			sources[i].State, sources[i].Reason = "held", why+": the source is held back, nothing is dropped"
		}
	}
	return sources
}

// receipts joins what came down with the newest facts, newest first.
func (a *Agent) receipts(acked uint64) []status.Receipt {
	list := a.inbox.Receipts(200)
	came := make(map[string]int, len(list))
	for i, r := range list {
		came[r.Key] = i
	}
	facts := a.pipe.recent.all()
	known := make(map[string]*stored, len(facts))
	for i := range facts {
		f := &facts[i]
		key := f.key.String()
		known[key] = f
		if at, ok := came[key]; ok {
			list[at].StoredAt = f.at
		} else {
			list = append(list, f.receipt(key, acked))
		}
	}
	status.NewestFirst(list)
	// What needs a person must not be pushed out by what only waits.
	slices.SortStableFunc(list, func(a, b status.Receipt) int { return urgency(a) - urgency(b) })
	list = list[:min(len(list), 200)]
	status.NewestFirst(list)
	for i := range list {
		if r, ok := known[list[i].Key]; ok { // in words only what is shown: it costs more than all else of it
			list[i].What = r.words()
		}
	}
	return list
}

func urgency(r status.Receipt) int {
	if r.Outcome == "rejected" || r.Outcome == "in_doubt" {
		return 0
	}
	return 1
}

func (a *Agent) quarantine() []status.Entry {
	list, err := a.pipe.business.Quarantined(100)
	if err != nil {
		a.log.Warn("read the quarantine", "err", err)
	}
	out := make([]status.Entry, 0, len(list))
	for _, q := range list {
		out = append(out, status.Entry{
			ID: q.ID, At: q.At, Source: q.Source, Code: q.Code, Item: q.Item, Reason: q.Reason, NextStep: q.NextStep, Payload: excerpt(q.Payload),
		})
	}
	return out
}

// excerpt makes the beginning of a payload readable.
func excerpt(p []byte) string {
	const most = 1024
	p = p[:min(len(p), most)]
	if utf8.Valid(p) {
		return string(p)
	}
	return strconv.QuoteToASCII(string(p))
}

func ledgerStatus(rows []*pb.LedgerRow) []status.Ledger {
	out := make([]status.Ledger, 0, len(rows))
	for _, r := range rows {
		out = append(out, status.Ledger{
			Source: r.Source, OrderNo: r.OrderNo, Operation: r.Operation, Item: r.Item, Kind: r.Kind, Unit: r.Unit, Counted: r.Counted, Stored: r.Stored,
		})
	}
	return out
}

// hubStatus is what the hub is told.
func (a *Agent) hubStatus() *pb.AgentStatus {
	s := a.Snapshot()
	out := &pb.AgentStatus{
		At: timestamppb.New(s.At), State: s.State, Reason: s.Reason, Ledger: a.pipe.rules.Ledger(readOnly{a.pipe.business}),
		BusinessPending: s.Business.Pending, BusinessBytes: s.Business.Bytes, Quarantined: s.Quarantined,
		TelemetryDropped: s.Telemetry.Dropped, OldestPending: stamp(s.Business.Oldest),
	}
	for _, src := range s.Sources {
		row := &pb.SourceStatus{Name: src.Name, Kind: src.Kind, State: src.State, Reason: src.Reason, Since: stamp(src.Since), LastData: stamp(src.LastData), Signals: src.Signals}
		for _, p := range src.Problems {
			row.Problems = append(row.Problems, fmt.Sprintf("%s: %s: %s", p.Code, p.Item, p.Reason))
			if p.Missing > 0 {
				row.Gaps = append(row.Gaps, &pb.SourceGap{Item: p.Item, Reason: p.Reason, Missing: p.Missing, At: stamp(p.Since)})
			}
		}
		out.Sources = append(out.Sources, row)
	}
	return out
}

func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
