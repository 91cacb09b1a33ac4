package store

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/wire"
	"github.com/linekeeper/linekeeper/proto/factkey"
	"github.com/linekeeper/linekeeper/proto/sabotage"
)

// Stream is one of the two buffers of an agent; the numbers are those of the uplink contract.
type Stream int32

// The streams.
const (
	Business  Stream = 1
	Telemetry Stream = 2
)

// Batch is consecutive records FirstSeq, FirstSeq+1, ... of one generation of an agent's business buffer.
type Batch struct {
	AgentID    int64
	Agent      string // for texts only: "plant/agent"
	Generation string
	FirstSeq   uint64
	Records    []Record
}

// Record is one encoded fact. Fault is the reason why it cannot be used as it is; Key counts only without one. Fact is what
// Body says, nil when nobody has read it: it saves the planner from reading it again.
type Record struct {
	Key   factkey.Key
	Body  []byte
	Fault string
	Fact  *object.Fact
}

// VerdictKind says what happened to a record that was not simply stored.
type VerdictKind int

// The verdicts.
const (
	Duplicate  VerdictKind = 1 // the same fact is stored already
	Conflict   VerdictKind = 2 // another fact is stored under this key: this one is kept aside
	Unreadable VerdictKind = 3 // kept aside as raw bytes
)

// Verdict is about the record with sequence Seq.
type Verdict struct {
	Seq    uint64
	Kind   VerdictKind
	Reason string
}

// AppendFacts stores batches of facts in one transaction, each key once, and moves the agents' positions. It returns the
// verdicts of each batch. When it returns an error nothing was stored.
func (s *Store) AppendFacts(ctx context.Context, batches []Batch) ([][]Verdict, error) {
	verdicts := make([][]Verdict, len(batches))
	var fresh []Fact
	err := s.Repeat(ctx, func(tx *Tx) error {
		clear(verdicts)
		a := appender{tx: tx, batches: batches, verdicts: verdicts, seen: map[shortKey]*Record{}, fresh: fresh[:0]}
		err := a.run()
		fresh = a.fresh
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("append facts: %w", err)
	}
	s.fresh.add(fresh)
	return verdicts, nil
}

// shortKey is the part of a key by which hub and ERP know a fact.
type shortKey [10]byte

func short(k factkey.Key) shortKey { return shortKey(k[:10]) }

// appender is the state of one AppendFacts.
type appender struct {
	tx       *Tx
	batches  []Batch
	verdicts [][]Verdict
	before   int64 // the highest fact id before this transaction
	seen     map[shortKey]*Record
	rows     []row
	values   [][]any
	fresh    []Fact // what was inserted, as it came
}

// row is one record on its way into the table.
type row struct {
	batch    int
	position int64
	seq      uint64
	rec      *Record
}

func (a *appender) run() error {
	var err error
	a.before, err = first(a.tx.ctx, a.tx, scanValue[int64], "SELECT COALESCE(MAX(id), 0) FROM facts")
	if err != nil {
		return err
	}
	held := make([]uint64, len(a.batches))
	for i := range a.batches {
		if held[i], err = a.take(i); err != nil {
			return err
		}
	}
	for start := 0; start < len(a.rows); start += bulkRows {
		if err := a.insert(a.rows[start:min(start+bulkRows, len(a.rows))]); err != nil {
			return err
		}
	}
	for i, b := range a.batches {
		slices.SortFunc(a.verdicts[i], func(x, y Verdict) int { return cmp.Compare(x.Seq, y.Seq) })
		if err := a.watchReuse(b, held[i], a.verdicts[i]); err != nil {
			return err
		}
	}
	a.tx.touch(TopicFacts)
	return nil
}

// take moves the position of a batch and sorts its records: those to insert, and those to keep aside.
func (a *appender) take(i int) (held uint64, err error) {
	b := &a.batches[i]
	last := b.FirstSeq + uint64(len(b.Records)) - 1
	id, held, err := a.tx.advance(b.AgentID, Business, b.Generation, last)
	if err != nil {
		return 0, err
	}
	for n := range b.Records {
		rec, seq := &b.Records[n], b.FirstSeq+uint64(n)
		if rec.Fault != "" {
			if err := a.setAside(b, id, seq, rec); err != nil {
				return 0, err
			}
			a.verdict(i, seq, Unreadable, rec.Fault)
			continue
		}
		r := row{i, id, seq, rec}
		if known := a.seen[short(rec.Key)]; known != nil {
			if err := a.meet(r, known.Body); err != nil {
				return 0, err
			}
			continue
		}
		a.seen[short(rec.Key)] = rec
		a.rows = append(a.rows, r)
	}
	return held, nil
}

func (a *appender) verdict(batch int, seq uint64, kind VerdictKind, reason string) {
	a.verdicts[batch] = append(a.verdicts[batch], Verdict{seq, kind, reason})
}

func (a *appender) setAside(b *Batch, position int64, seq uint64, rec *Record) error {
	hash := sha256.Sum256(rec.Body)
	_, err := a.tx.exec(`INSERT INTO unreadable (hash, agent_id, position_id, seq, received_at, reason, body)
		VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING`,
		hash[:], b.AgentID, position, int64(seq), us(a.tx.now), rec.Fault, rec.Body)
	return err
}

// insert stores a slice of rows in one statement and looks closer only when some keys were there already.
func (a *appender) insert(rows []row) error {
	a.values = a.values[:0]
	now := us(a.tx.now)
	for _, r := range rows {
		a.values = append(a.values, []any{r.rec.Key[:10], r.position, int64(r.seq), now, r.rec.Body})
	}
	res, err := a.tx.insertSome("facts (key, position_id, seq, received_at, body)", a.values, " ON CONFLICT DO NOTHING")
	if err != nil {
		return err
	}
	n, err := res.RowsAffected()
	if err != nil {
		return err
	}
	if n == int64(len(rows)) {
		last, err := res.LastInsertId()
		a.keep(rows, last-n+1)
		return err
	}
	stored, err := a.stored(rows)
	if err != nil {
		return err
	}
	for _, r := range rows {
		if body, ok := stored[short(r.rec.Key)]; ok {
			if err := a.meet(r, body); err != nil {
				return err
			}
		}
	}
	return nil
}

// keep remembers rows that were all inserted, with ids from first on: a statement that inserts all of its rows numbers them
// one after the other.
func (a *appender) keep(rows []row, first int64) {
	for i, r := range rows {
		if f := r.rec.Fact; f != nil {
			b := &a.batches[r.batch]
			a.fresh = append(a.fresh, Fact{
				ID: first + int64(i), AgentID: b.AgentID, Agent: strings.TrimPrefix(b.Agent, f.Plant+"/"), Generation: b.Generation, Seq: r.seq,
				ReceivedAt: at(us(a.tx.now)), Fact: *f,
			})
		}
	}
}

// stored returns what was there before under the keys of rows.
func (a *appender) stored(rows []row) (map[shortKey][]byte, error) {
	args := []any{a.before}
	for _, r := range rows {
		args = append(args, r.rec.Key[:10])
	}
	type pair struct{ key, body []byte }
	all, err := collect(a.tx.ctx, a.tx, func(r *sql.Rows) (p pair, err error) { return p, r.Scan(&p.key, &p.body) },
		"SELECT key, body FROM facts WHERE id <= $1 AND key IN ("+in(1, len(rows))+")", args...)
	if err != nil {
		return nil, err
	}
	out := make(map[shortKey][]byte, len(all))
	for _, p := range all {
		out[shortKey(p.key)] = p.body
	}
	return out, nil
}

// meet decides between the same fact again and another fact under the same key, which is kept aside.
func (a *appender) meet(r row, known []byte) error {
	same, hash := sameContent(known, r.rec.Body)
	switch {
	case same && sabotage.Rule(4):
		again := row{r.batch, r.position, r.seq, &Record{Key: factkey.Random(), Body: r.rec.Body}}
		return a.insert([]row{again})
	case !same && sabotage.Rule(7):
		_, err := a.tx.exec("UPDATE facts SET body = $1 WHERE key = $2", r.rec.Body, r.rec.Key[:10])
		return err
	}
	if same {
		a.verdict(r.batch, r.seq, Duplicate, "")
		return nil
	}
	reason := fmt.Sprintf("another fact is stored under key %s: this one is kept aside", r.rec.Key)
	a.verdict(r.batch, r.seq, Conflict, reason)
	_, err := a.tx.exec(`INSERT INTO conflicts (key, hash, agent_id, seq, received_at, body) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT DO NOTHING`, r.rec.Key[:10], hash, a.batches[r.batch].AgentID, int64(r.seq), us(a.tx.now), r.rec.Body)
	return err
}

func sameContent(known, again []byte) (same bool, hash []byte) {
	if bytes.Equal(known, again) {
		return true, nil
	}
	k, err1 := wire.DecodeFact(known)
	f, err2 := wire.DecodeFact(again)
	if err1 != nil || err2 != nil {
		h := sha256.Sum256(again)
		return false, h[:]
	}
	h := wire.ContentHash(f)
	return h == wire.ContentHash(k) && f.Key == k.Key, h[:]
}

// watchReuse raises an alarm when sequence numbers that were acknowledged before carry new facts: the buffer they come from
// is a copy that went its own way.
func (a *appender) watchReuse(b Batch, held uint64, verdicts []Verdict) error {
	again := min(held+1-min(b.FirstSeq, held+1), uint64(len(b.Records)))
	known := uint64(0)
	for _, v := range verdicts {
		if v.Seq <= held {
			known++
		}
	}
	if again <= known {
		return nil
	}
	return a.tx.RaiseAlarm(b.Agent, "sequence_reused",
		fmt.Sprintf("%d new facts came under sequence numbers that had been acknowledged before: the buffer is a copy", again-known),
		"Nothing is lost and nothing counts twice. Find out whether the plant computer was restored or cloned.")
}

// advance raises the position of a buffer to seq and returns its id and where it stood.
func (tx *Tx) advance(agentID int64, stream Stream, generation string, seq uint64) (id int64, held uint64, err error) {
	p, err := first(tx.ctx, tx, scanPosition, positionColumns+" WHERE agent_id = $1 AND stream = $2 AND generation = $3",
		agentID, int64(stream), generation)
	if err == ErrNotFound {
		id, err = first(tx.ctx, tx, scanValue[int64], `INSERT INTO positions (agent_id, stream, generation, seq, changed_at)
			VALUES ($1, $2, $3, $4, $5) RETURNING id`, agentID, int64(stream), generation, int64(seq), us(tx.now))
		return id, 0, err
	}
	if err != nil || p.Seq >= seq {
		return p.id, p.Seq, err
	}
	_, err = tx.exec("UPDATE positions SET seq = $1, changed_at = $2 WHERE id = $3", int64(seq), us(tx.now), p.id)
	return p.id, p.Seq, err
}

// Fact is a stored fact with what the hub knows about it. Trimmed says what an overlapping counter range cost it; Plant and
// PlannedAt come from the planner and PlannedAt is zero until it has been there.
type Fact struct {
	ID         int64
	AgentID    int64
	Agent      string
	Generation string
	Seq        uint64
	ReceivedAt time.Time
	PlannedAt  time.Time
	Trimmed    string
	Fact       object.Fact
	// Fault says why the stored record cannot be read by this hub (of its Fact only the key is set then), empty when it can.
	Fault string
	// Posting is nil for facts that are not planned yet and for source exceptions.
	Posting *Posting
}

const factColumns = "SELECT " + ofFact + `
	FROM facts f JOIN positions pos ON pos.id = f.position_id JOIN agents a ON a.id = pos.agent_id
	LEFT JOIN fact_index x ON x.fact_id = f.id`

const ofFact = `f.id, f.key, pos.agent_id, a.agent, pos.generation, f.seq, f.received_at, f.body,
	COALESCE(x.planned_at, 0), COALESCE(x.trimmed, '')`

// unplannedColumns is factColumns for facts that no planner has seen.
const unplannedColumns = `SELECT f.id, f.key, p.agent_id, a.agent, p.generation, f.seq, f.received_at, f.body, 0, ''
	FROM facts f JOIN positions p ON p.id = f.position_id JOIN agents a ON a.id = p.agent_id`

func scanFact(r *sql.Rows) (Fact, error) {
	var x factRow
	if err := r.Scan(x.columns()...); err != nil {
		return x.f, err
	}
	return x.fact(), nil
}

// factRow is what factColumns read.
type factRow struct {
	f                      Fact
	received, planned, seq int64
	key, body              []byte
}

func (x *factRow) columns() []any {
	f := &x.f
	return []any{&f.ID, &x.key, &f.AgentID, &f.Agent, &f.Generation, &x.seq, &x.received, &x.body, &x.planned, &f.Trimmed}
}

func (x *factRow) fact() Fact {
	f := x.f
	f.Seq, f.ReceivedAt, f.PlannedAt = uint64(x.seq), at(x.received), at(x.planned)
	var err error
	if f.Fact, err = wire.DecodeFact(x.body); err != nil {
		f.Fault = err.Error()
		copy(f.Fact.Key[:], x.key)
	}
	return f
}

// FactsAfter returns up to limit facts with ids above id, in their order.
func (s *Store) FactsAfter(ctx context.Context, id int64, limit int) ([]Fact, error) {
	return collect(ctx, s, scanFact, factColumns+" WHERE f.id > $1 ORDER BY f.id LIMIT $2", id, limit)
}

// FactFilter chooses facts; empty fields choose all. Outcome is a posting state.
type FactFilter struct {
	Plant, OrderNo, Kind, Source, Outcome string
}

// Facts lists facts, newest first, with their postings. Facts that are not planned yet are not in the list.
func (s *Store) Facts(ctx context.Context, f FactFilter, page Page) ([]Fact, error) {
	// One index is to be used, the one that leaves the fewest rows: the other conditions are written so that none serves them.
	var w where
	w.and("x.fact_id < ?", page.before())
	from := "JOIN fact_index"
	switch {
	case f.OrderNo != "":
		w.and("x.order_no = ?", f.OrderNo)
		w.andText("x.plant || '' = ?", f.Plant)
		w.andText("EXISTS (SELECT 1 FROM postings p WHERE p.fact_id = x.fact_id AND p.state || '' = ?)", f.Outcome)
	case f.Outcome != "":
		from = "JOIN postings o ON o.fact_id = f.id JOIN fact_index"
		w.and("o.state = ?", f.Outcome)
		w.and("o.fact_id < ?", page.before())
		w.andText("x.plant || '' = ?", f.Plant)
	default:
		w.andText("x.plant = ?", f.Plant)
	}
	w.andText("x.kind = ?", f.Kind)
	w.andText("x.source = ?", f.Source)
	order := " ORDER BY x.fact_id DESC LIMIT "
	if f.Outcome != "" && f.OrderNo == "" {
		order = " ORDER BY o.fact_id DESC LIMIT "
	}
	q := strings.Replace(factColumns, "LEFT JOIN fact_index", from, 1) + w.String() + order + fmt.Sprint(page.limit())
	facts, err := collect(ctx, s, scanFact, q, w.args...)
	if err != nil {
		return nil, fmt.Errorf("list facts: %w", err)
	}
	for i := range facts {
		if p, err := s.Posting(ctx, facts[i].ID); err == nil {
			facts[i].Posting = &p
		}
	}
	return facts, nil
}

// FactByKey finds a fact by either written form of its key. ErrNotFound when the hub does not hold it.
func (s *Store) FactByKey(ctx context.Context, key string) (Fact, error) {
	from, err := factkey.Parse(key)
	if err != nil {
		return Fact{}, err
	}
	to := append(bytes.Clone(from), bytes.Repeat([]byte{0xff}, 10-len(from))...)
	f, err := first(ctx, s, scanFact, factColumns+" WHERE f.key >= $1 AND f.key <= $2 ORDER BY f.key LIMIT 1", from, to)
	if errors.Is(err, ErrNotFound) {
		f, err = s.firstMember(ctx, from)
	}
	if err != nil {
		return Fact{}, fmt.Errorf("find fact %q: %w", key, err)
	}
	if p, err := s.Posting(ctx, f.ID); err == nil {
		f.Posting = &p
	}
	return f, nil
}

// LifeStep is one thing that happened to a fact.
type LifeStep struct {
	At       time.Time
	Step     string // "occurred", "recorded", "received", "planned", a posting step, "receipt sent", "receipt stored", "conflict"
	Attempt  int
	Code     string
	Reason   string
	Document string
	By       string
}

// Life returns a fact and everything that is known to have happened to it, in the order of time.
func (s *Store) Life(ctx context.Context, key string) (Fact, []LifeStep, error) {
	f, err := s.FactByKey(ctx, key)
	if err != nil {
		return f, nil, err
	}
	steps := []LifeStep{{At: f.Fact.OccurredAt, Step: "occurred"}}
	if !f.Fact.RecordedAt.IsZero() {
		recorded := LifeStep{At: f.Fact.RecordedAt, Step: "recorded", By: f.Fact.Plant + "/" + f.Agent}
		if f.Fact.ClockSuspect {
			recorded.Code, recorded.Reason = "clock_suspect", "the agent knew its clock to be wrong: the times before \"received\" are doubtful"
		}
		steps = append(steps, recorded)
	}
	steps = append(steps, LifeStep{At: f.ReceivedAt, Step: "received"})
	if !f.PlannedAt.IsZero() {
		steps = append(steps, LifeStep{At: f.PlannedAt, Step: "planned", Reason: f.Trimmed})
	}
	more, err := s.laterSteps(ctx, f)
	if err != nil {
		return f, nil, fmt.Errorf("read life of fact %q: %w", key, err)
	}
	return f, append(steps, more...), nil
}

func (s *Store) laterSteps(ctx context.Context, f Fact) ([]LifeStep, error) {
	k := f.Fact.Key
	// Each was made in the transaction of a step.
	const receipts = `agent_id = $4 AND created_at IN (SELECT at FROM posting_steps WHERE fact_id = $1
		UNION SELECT planned_at FROM fact_index WHERE fact_id = $1) AND ref = $3 AND kind = 'receipt'`
	return collect(ctx, s, func(r *sql.Rows) (l LifeStep, err error) {
		var t int64
		err = r.Scan(&t, &l.Step, &l.Attempt, &l.Code, &l.Reason, &l.Document, &l.By)
		l.At = at(t)
		return l, err
	}, `SELECT at, step, attempt, code, reason, document, by_whom FROM (
		SELECT at, step, attempt, code, reason, document, by_whom, id FROM posting_steps WHERE fact_id = $1
		UNION ALL SELECT changed_at, state, attempt, code, reason, document, '', 0 FROM postings
			WHERE fact_id = $1 AND NOT EXISTS (SELECT 1 FROM posting_steps WHERE fact_id = $1)
		UNION ALL SELECT received_at, 'conflict', 0, '', 'another fact came under the same key and is kept aside', '', '', 0
			FROM conflicts WHERE key = $2
		UNION ALL SELECT sent_at, 'receipt sent', 0, '', '', '', '', -1 FROM deliveries WHERE `+receipts+` AND sent_at > 0
		UNION ALL SELECT stored_at, 'receipt stored', 0, '', '', '', '', 0 FROM deliveries WHERE `+receipts+` AND stored_at > 0
		) steps ORDER BY at, id`, f.ID, k[:10], k.String(), f.AgentID)
}

// Aside is a record that was kept aside: a conflict (with the key of the fact that is stored) or raw bytes that could not be
// read.
type Aside struct {
	ID         int64
	Key        string // conflicts only
	Agent      string // "plant/agent"
	Seq        uint64
	ReceivedAt time.Time
	Reason     string
	Body       []byte
	Stored     []byte // conflicts only: the body of the fact that is stored
	ClosedAt   time.Time
	Note       string
}

// Conflicts lists facts that came under the key of another one, newest first; open ones only unless closed is true.
func (s *Store) Conflicts(ctx context.Context, closed bool, page Page) ([]Aside, error) {
	return collect(ctx, s, func(r *sql.Rows) (a Aside, err error) {
		var key []byte
		var received, closedAt, seq int64
		err = r.Scan(&a.ID, &key, &a.Agent, &seq, &received, &a.Body, &a.Stored, &closedAt, &a.Note)
		if err == nil {
			var k factkey.Key
			copy(k[:], key)
			a.Key, a.Reason = k.String(), "another fact is stored under this key"
		}
		a.Seq, a.ReceivedAt, a.ClosedAt = uint64(seq), at(received), at(closedAt)
		return a, err
	}, `SELECT c.id, c.key, a.plant || '/' || a.agent, c.seq, c.received_at, c.body, f.body, c.closed_at, c.note
		FROM conflicts c JOIN agents a ON a.id = c.agent_id JOIN facts f ON f.key = c.key
		WHERE c.id < $1 AND (c.closed_at = 0 OR $2) ORDER BY c.id DESC LIMIT $3`, page.before(), closed, page.limit())
}

// UnreadableRecords lists records that could not be read, newest first; open ones only unless closed is true.
func (s *Store) UnreadableRecords(ctx context.Context, closed bool, page Page) ([]Aside, error) {
	return collect(ctx, s, func(r *sql.Rows) (a Aside, err error) {
		var received, closedAt, seq int64
		err = r.Scan(&a.ID, &a.Agent, &seq, &received, &a.Reason, &a.Body, &closedAt, &a.Note)
		a.Seq, a.ReceivedAt, a.ClosedAt = uint64(seq), at(received), at(closedAt)
		return a, err
	}, `SELECT u.id, a.plant || '/' || a.agent, u.seq, u.received_at, u.reason, u.body, u.closed_at, u.note
		FROM unreadable u JOIN agents a ON a.id = u.agent_id
		WHERE u.id < $1 AND (u.closed_at = 0 OR $2) ORDER BY u.id DESC LIMIT $3`, page.before(), closed, page.limit())
}

// CloseConflict settles a conflict with a note; the fact that is stored stays as it is. ErrNotFound when none is open there.
func (s *Store) CloseConflict(ctx context.Context, id int64, note string) error {
	return s.closeRow(ctx, "conflicts", id, note)
}

// CloseUnreadable settles an unreadable record with a note. ErrNotFound when none is open there.
func (s *Store) CloseUnreadable(ctx context.Context, id int64, note string) error {
	return s.closeRow(ctx, "unreadable", id, note)
}

func (s *Store) closeRow(ctx context.Context, table string, id int64, note string) error {
	err := s.Update(ctx, func(tx *Tx) error {
		tx.touch(TopicFacts)
		tx.touch(TopicAgents)
		res, err := tx.exec("UPDATE "+table+" SET closed_at = $1, note = $2 WHERE id = $3 AND closed_at = 0", us(tx.now), note, id)
		return mustChange(res, err)
	})
	if err != nil {
		return fmt.Errorf("close %d of %s: %w", id, table, err)
	}
	return nil
}

func mustChange(res sql.Result, err error) error {
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n > 0 {
		return err
	}
	return ErrNotFound
}

// ErrUnreadable says that a record cannot be read by this hub.
var ErrUnreadable = errors.New("it still cannot be read")

// ReplayUnreadable tries to read the open unreadable record once more, as the hub is now, and stores its fact. The error wraps
// ErrUnreadable, with the reason, when it still cannot be read, and ErrNotFound when no record is open there.
func (s *Store) ReplayUnreadable(ctx context.Context, id int64) error {
	err := s.Update(ctx, func(tx *Tx) error {
		type raw struct {
			agent, position, seq int64
			body                 []byte
		}
		u, err := first(tx.ctx, tx, func(r *sql.Rows) (u raw, err error) { return u, r.Scan(&u.agent, &u.position, &u.seq, &u.body) },
			"SELECT agent_id, position_id, seq, body FROM unreadable WHERE id = $1 AND closed_at = 0", id)
		if err != nil {
			return err
		}
		f, err := wire.DecodeFact(u.body)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrUnreadable, err)
		}
		a := appender{tx: tx, batches: []Batch{{AgentID: u.agent}}, verdicts: make([][]Verdict, 1)}
		if a.before, err = first(tx.ctx, tx, scanValue[int64], "SELECT COALESCE(MAX(id), 0) FROM facts"); err != nil {
			return err
		}
		if err := a.insert([]row{{0, u.position, uint64(u.seq), &Record{Key: f.Key, Body: u.body}}}); err != nil {
			return err
		}
		tx.touch(TopicFacts)
		_, err = tx.exec("UPDATE unreadable SET closed_at = $1, note = 'replayed' WHERE id = $2", us(tx.now), id)
		return err
	})
	if err != nil {
		return fmt.Errorf("replay unreadable record %d: %w", id, err)
	}
	return nil
}

func shortText(k shortKey) string {
	var full factkey.Key
	copy(full[:], k[:])
	return full.String()
}
