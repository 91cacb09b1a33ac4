package sim

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/shopspring/decimal"
	"google.golang.org/protobuf/proto"

	"github.com/linekeeper/linekeeper/agent/buffer"
	"github.com/linekeeper/linekeeper/hub/api"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// earlier is a copy of an agent's folder, as a snapshot of its machine has it.
type earlier struct {
	dir  string
	last uint64 // record that the buffer ended with
}

// keep takes a snapshot of a living agent.
func (m *agentMachine) keep() {
	m.copies = append(m.copies, earlier{m.w.image(m.p), m.a.Snapshot().Business.LastSeq})
	m.w.logf("%s is copied at record %d", m.name, m.copies[len(m.copies)-1].last)
}

// restore puts an earlier copy in the place of an agent's folder.
func (m *agentMachine) restore(plan *agenda, back time.Duration) {
	from := m.copies[m.w.rng.IntN(len(m.copies))]
	m.excuse()
	now := m.a.Snapshot()
	acked := now.Business.AckedSeq
	if m.wentBack && now.Uplink.LastAck.IsZero() && now.Uplink.State != "connected" && !m.noticed() {
		// The copy before this one never came to the hub: nobody can have noticed it.
		acked, m.mustAlarm = max(acked, m.hubHad), m.mustBefore
	}
	m.hubHad, m.copyEnd, m.mustBefore = acked, from.last, m.mustAlarm
	m.again.forget()
	m.w.logf("%s, of which the hub has record %d, is restored from its copy at record %d", m.name, acked, from.last)
	m.w.totals.Restores++
	m.abandon(m.w.bury(m.p, m.w.rng.IntN(2) == 0))
	m.dir = m.w.folder(m.name)
	if err := copyDir(from.dir, m.dir); err != nil {
		m.w.t.Fatal(err)
	}
	m.wentBack = true
	m.mustAlarm = m.mustAlarm || acked > from.last
	m.p, m.a = nil, nil
	plan.add(time.Now().Add(back), m.start)
}

// reinstall starts the agent on an empty folder.
func (m *agentMachine) reinstall(plan *agenda, back time.Duration) {
	m.w.logf("%s is installed from nothing", m.name)
	m.w.totals.Reinstalls++
	m.abandon(m.w.bury(m.p, m.w.rng.IntN(2) == 0))
	m.dir, m.wentBack, m.copies = m.w.folder(m.name), true, nil
	m.mustAlarm = false // what went back never came to the hub, perhaps
	m.p, m.a = nil, nil
	plan.add(time.Now().Add(back), m.start)
}

// known reports whether the hub knows where each counter stands. Before that, what an agent counted is gone with its disk.
func (m *agentMachine) known() bool {
	rules := map[string]bool{}
	for _, f := range m.facts("plc") {
		rules[f.Rule] = true
		if item, ok := f.Content["item"].(string); ok {
			rules[item] = true
		}
	}
	return rules["good"] && rules["scrap"] && rules["FG-4"] && rules["FG-5"]
}

// edit changes, in the MES, a row that the hub knows already, without a new version: a fault of the source. What was told
// first stays; should an agent read the row anew, the other content is kept aside.
func (m *agentMachine) edit(plan *agenda) {
	edits := 0
	for _, f := range m.facts("mes") {
		n := m.station.rowOf(f.Position)
		if edits < 4 && m.w.rng.IntN(3) == 0 && m.station.edit(n) {
			m.w.logf("row %d of %s is edited in place", n, m.name)
			m.edited = true
			edits++
		}
	}
	if edits > 0 && m.w.rng.IntN(2) == 0 {
		plan.add(time.Now().Add(m.w.seconds(1, 10)), func() {
			if m.p != nil && !m.p.frozen() && len(m.copies) > 0 {
				m.restore(plan, m.w.seconds(0, 20))
			}
		})
	}
}

// facts are the newest that the hub holds of a source; none when it cannot be asked.
func (m *agentMachine) facts(source string) []api.Fact {
	var l list[api.Fact]
	if m.w.hub.p == nil || m.w.hub.p.frozen() || m.w.hub.ask("GET", "/v1/facts?limit=500&source="+m.station.source(source), "", &l) != nil {
		return nil
	}
	return l.Items
}

// move takes the folder to another computer, in order.
func (m *agentMachine) move() {
	m.w.logf("%s moves to another computer", m.name)
	m.w.totals.Moves++
	if err := m.p.stop(); err != nil {
		m.w.failf("%s ended with %v", m.name, err)
	}
	to := m.w.folder(m.name)
	if err := copyDir(m.dir, to); err != nil {
		m.w.t.Fatal(err)
	}
	m.dir, m.clock = to, &clock{}
	m.clock.off.Store(int64(m.w.seconds(0, 20) - 10*time.Second))
	m.start()
}

// clone lets a second agent live with the same identity for a while; then one of the two is removed.
func (m *agentMachine) clone(plan *agenda, lives time.Duration) {
	m.w.logf("%s is cloned", m.name)
	m.w.totals.Clones++
	m.wentBack = true // nobody's ledger has it all
	p, a := m.launch(m.w.image(m.p), m.name+"-clone")
	m.clones = append(m.clones, p)
	takesOver := m.w.rng.IntN(2) == 0
	plan.add(time.Now().Add(lives), func() {
		m.unclone(p)
		if !takesOver || m.p == nil || m.p.frozen() {
			m.w.logf("the clone of %s is removed", m.name)
			m.abandon(m.w.bury(p, false))
			return
		}
		m.w.logf("the clone of %s takes its place", m.name)
		m.abandon(m.w.bury(m.p, false))
		m.p, m.a, m.dir = p, a, p.dir
		m.mustAlarm = false
		m.copies = nil
		m.station.serve(p)
	})
}

func (m *agentMachine) unclone(p *process) {
	for i, c := range m.clones {
		if c == p {
			m.clones = append(m.clones[:i:i], m.clones[i+1:]...)
			return
		}
	}
}

// abandon notes what is on a disk that nobody will read again: messages that the broker has let go and that no hub has yet
// are gone with it, which nobody can prevent. What counters and MES rows told can be read again.
func (m *agentMachine) abandon(dir string) {
	b, err := buffer.Open(buffer.Config{Dir: filepath.Join(dir, "business"), DiskReserve: -1})
	if err != nil {
		m.w.t.Fatalf("read what is lost with a disk: %v", err)
	}
	defer b.Close()
	for after := b.Stats().AckedSeq; ; {
		entries, err := b.Read(after, 1000, 1<<20)
		if err != nil {
			m.w.t.Fatalf("read what is lost with a disk: %v", err)
		}
		if len(entries) == 0 {
			return
		}
		after = entries[len(entries)-1].Seq
		for _, e := range entries {
			m.mourn(e.Body)
		}
	}
}

// mourn remembers a message that may be gone.
func (m *agentMachine) mourn(body []byte) {
	var f pb.Fact
	if err := proto.Unmarshal(body, &f); err != nil {
		m.w.t.Fatal(err)
	}
	c := f.GetProductionConfirmation()
	if f.GetHeader().GetRule() != "packs" || c == nil {
		return
	}
	var key factkey.Key
	copy(key[:], f.GetKey())
	n, err := decimal.NewFromString(c.GetYield())
	if err != nil {
		m.w.t.Fatal(err)
	}
	m.mourned[key.String()] = n
}

// forgo takes from the truth what is gone with a disk.
func (m *agentMachine) forgo() {
	for key, n := range m.mourned {
		var f api.Fact
		if err := m.w.hub.ask("GET", "/v1/facts/"+key, "", &f); err == nil {
			continue
		}
		m.w.totals.Gone++
		l := line{m.station.orderNo(2), "FG-3", "yield", "C62"}
		m.station.truth[l] = m.station.truth[l].Sub(n)
		m.w.logf("%s of %s are gone with a disk (%s)", n, l, key)
	}
}

// noticed reports whether the hub has an alarm of the agent's going back; a hub that is down has none.
func (m *agentMachine) noticed() bool {
	return m.w.hub.p != nil && (m.w.hub.alarm("ulm/"+m.name, "went_back_in_time") || m.w.hub.alarm("ulm/"+m.name, "sequence_reused"))
}

// excuse asks for no alarm of a copy that made, record for record, what the hub had of the one before: nothing went another way, and
// nobody can tell it from an agent whose acknowledgements were lost.
func (m *agentMachine) excuse() {
	if m.mustAlarm && !m.mustBefore && m.again.all(m.copyEnd+1, m.hubHad) {
		m.w.logf("%s made what the hub had already, up to record %d", m.name, m.hubHad)
		m.mustAlarm = false
	}
}

// retold is which records the hub said it had already.
type retold struct {
	mu   sync.Mutex
	seqs map[uint64]bool
}

func (r *retold) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seqs = map[uint64]bool{}
}

func (r *retold) note(seq uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seqs != nil {
		r.seqs[seq] = true
	}
}

// all reports whether every record of a range was retold.
func (r *retold) all(from, to uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for seq := from; seq <= to; seq++ {
		if !r.seqs[seq] {
			return false
		}
	}
	return true
}

// listening is an agent's log in which the hub's word for a known record is noted.
type listening struct {
	slog.Handler
	again *retold
}

func (l listening) Enabled(context.Context, slog.Level) bool { return true }

func (l listening) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "the hub had this record already" {
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == "seq" {
				l.again.note(a.Value.Uint64())
			}
			return true
		})
	}
	if !l.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return l.Handler.Handle(ctx, r)
}

func (l listening) WithAttrs(attrs []slog.Attr) slog.Handler {
	return listening{l.Handler.WithAttrs(attrs), l.again}
}

func (l listening) WithGroup(name string) slog.Handler {
	return listening{l.Handler.WithGroup(name), l.again}
}

// alarmed fails unless the hub noticed that an agent went back.
func (m *agentMachine) alarmed() {
	m.excuse()
	if !m.mustAlarm || m.noticed() {
		return
	}
	m.w.failf("%s was restored from an older copy, and nobody was told", m.name)
}

// alarm reports whether the hub has raised an alarm.
func (m *hubMachine) alarm(subject, code string) bool {
	var l list[api.Alarm]
	if err := m.ask("GET", "/v1/alarms?limit=500", "", &l); err != nil {
		m.w.failf("list alarms: %v", err)
	}
	for _, a := range l.Items {
		if a.Subject == subject && a.Code == code {
			return true
		}
	}
	return false
}

// jump sets a clock.
func (w *world) jump(who string, c *clock) {
	by := []time.Duration{time.Second, time.Minute, time.Hour, 24 * time.Hour, 400 * 24 * time.Hour}[w.rng.IntN(5)]
	by = time.Duration(w.rng.Int64N(int64(by)))
	if w.rng.IntN(2) == 0 {
		by = -by
	}
	w.totals.Jumps++
	w.logf("the clock of %s jumps by %s", who, by)
	c.off.Add(int64(by))
}
