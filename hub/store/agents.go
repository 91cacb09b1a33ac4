package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"
	"unicode/utf8"

	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
	"google.golang.org/protobuf/proto"
)

// Agent is what the hub knows of one agent.
type Agent struct {
	ID             int64
	Plant, Agent   string
	Version        string
	Instance       string
	ConnectedAt    time.Time // zero when it never was
	DisconnectedAt time.Time // zero while it is connected
	SeenAt         time.Time
	// Status is what the agent said of itself last, at StatusAt; nil when it never did.
	Status   *pb.AgentStatus
	StatusAt time.Time
	// Deliveries are numbered 1..DeliveryLast within DeliveryEpoch; those up to DeliveryStored are at the plant.
	DeliveryEpoch  string
	DeliveryLast   int64
	DeliveryStored int64
}

// Connected reports whether the agent has a stream open now.
func (a Agent) Connected() bool { return !a.ConnectedAt.IsZero() && a.DisconnectedAt.IsZero() }

// Name is "plant/agent".
func (a Agent) Name() string { return a.Plant + "/" + a.Agent }

const agentColumns = `SELECT id, plant, agent, version, instance, connected_at, disconnected_at, seen_at, status, status_at,
	delivery_epoch, delivery_last, delivery_stored FROM agents`

func scanAgent(r *sql.Rows) (a Agent, err error) {
	var connected, disconnected, seen, statusAt int64
	var status []byte
	err = r.Scan(&a.ID, &a.Plant, &a.Agent, &a.Version, &a.Instance, &connected, &disconnected, &seen, &status, &statusAt,
		&a.DeliveryEpoch, &a.DeliveryLast, &a.DeliveryStored)
	if err != nil {
		return a, err
	}
	a.ConnectedAt, a.DisconnectedAt, a.SeenAt, a.StatusAt = at(connected), at(disconnected), at(seen), at(statusAt)
	if status != nil {
		a.Status = &pb.AgentStatus{}
		err = proto.Unmarshal(status, a.Status)
	}
	return a, err
}

// Agents lists all agents by plant and name.
func (s *Store) Agents(ctx context.Context) ([]Agent, error) {
	return collect(ctx, s, scanAgent, agentColumns+" ORDER BY plant, agent")
}

// Agent returns one agent. ErrNotFound when it was never seen and nothing waits for it.
func (s *Store) Agent(ctx context.Context, plant, agent string) (Agent, error) {
	a, err := first(ctx, s, scanAgent, agentColumns+" WHERE plant = $1 AND agent = $2", plant, agent)
	if err != nil {
		return a, fmt.Errorf("find agent \"%s/%s\": %w", plant, agent, err)
	}
	return a, nil
}

// AgentByName is Agent inside a transaction; it makes the agent's row when it is not there.
func (tx *Tx) AgentByName(plant, agent string) (Agent, error) {
	const byName = agentColumns + " WHERE plant = $1 AND agent = $2"
	a, err := first(tx.ctx, tx, scanAgent, byName, plant, agent)
	if !errors.Is(err, ErrNotFound) {
		return a, err
	}
	if _, err := tx.exec("INSERT INTO agents (plant, agent, delivery_epoch) VALUES ($1, $2, $3)", plant, agent, randomText()); err != nil {
		return a, err
	}
	tx.touch(TopicAgents)
	return first(tx.ctx, tx, scanAgent, byName, plant, agent)
}

// Position is where one buffer of an agent stands: Seq is the highest sequence that the hub holds.
type Position struct {
	id         int64
	Stream     Stream
	Generation string
	Seq        uint64
	ChangedAt  time.Time
}

const positionColumns = "SELECT id, stream, generation, seq, changed_at FROM positions"

func scanPosition(r *sql.Rows) (p Position, err error) {
	var stream, seq, changed int64
	err = r.Scan(&p.id, &stream, &p.Generation, &seq, &changed)
	p.Stream, p.Seq, p.ChangedAt = Stream(stream), uint64(seq), at(changed)
	return p, err
}

// Positions lists all generations of an agent's buffers, oldest first.
func (s *Store) Positions(ctx context.Context, agentID int64) ([]Position, error) {
	return collect(ctx, s, scanPosition, positionColumns+" WHERE agent_id = $1 ORDER BY id", agentID)
}

// Position returns where a generation stands inside a transaction; Seq is 0 when it is not known.
func (tx *Tx) Position(agentID int64, stream Stream, generation string) (Position, error) {
	p, err := first(tx.ctx, tx, scanPosition, positionColumns+" WHERE agent_id = $1 AND stream = $2 AND generation = $3",
		agentID, int64(stream), generation)
	if errors.Is(err, ErrNotFound) {
		return Position{Stream: stream, Generation: generation}, nil
	}
	return p, err
}

// Connect records that an agent opened a stream.
func (tx *Tx) Connect(agentID int64, version, instance string) error {
	tx.touch(TopicAgents)
	_, err := tx.exec(`UPDATE agents SET version = $1, instance = $2, connected_at = $3, disconnected_at = 0, seen_at = $3 WHERE id = $4`,
		version, instance, us(tx.now), agentID)
	return err
}

// Disconnect records that the agent's stream with this instance ended; a newer stream is left alone.
func (s *Store) Disconnect(ctx context.Context, agentID int64, instance string) error {
	return s.Update(ctx, func(tx *Tx) error {
		tx.touch(TopicAgents)
		_, err := tx.exec(`UPDATE agents SET disconnected_at = $1, seen_at = $1 WHERE id = $2 AND instance = $3 AND disconnected_at = 0`,
			us(tx.now), agentID, instance)
		return err
	})
}

// DisconnectAll records that no agent is connected: what a hub says when it starts.
func (s *Store) DisconnectAll(ctx context.Context) error {
	return s.Update(ctx, func(tx *Tx) error {
		tx.touch(TopicAgents)
		_, err := tx.exec("UPDATE agents SET disconnected_at = $1 WHERE connected_at > 0 AND disconnected_at = 0", us(tx.now))
		return err
	})
}

// SetStatus stores what an agent says of itself and replaces its ledger. The ledger stands in its own table only, of which
// what is as before is not written.
func (s *Store) SetStatus(ctx context.Context, agentID int64, m *pb.AgentStatus) error {
	body, ledger, err := encodeStatus(m)
	if err != nil {
		return fmt.Errorf("encode agent status: %w", err)
	}
	err = s.Update(ctx, func(tx *Tx) error {
		tx.touch(TopicAgents)
		if _, err := tx.exec("UPDATE agents SET status = $1, status_at = $2, seen_at = $2 WHERE id = $3", body, us(tx.now), agentID); err != nil {
			return err
		}
		if s.ledgers.swap(agentID, ledger) {
			return nil
		}
		err := tx.setLedger(agentID, m.GetLedger())
		if err != nil {
			s.ledgers.forget(agentID)
		}
		return err
	})
	if err != nil {
		s.ledgers.forget(agentID)
		return fmt.Errorf("store agent status: %w", err)
	}
	return nil
}

// encodeStatus encodes a status without its ledger, and the hash of that.
func encodeStatus(m *pb.AgentStatus) (body []byte, ledger [32]byte, err error) {
	rest := proto.CloneOf(m)
	rest.Ledger = nil
	if body, err = proto.Marshal(rest); err != nil {
		return nil, ledger, err
	}
	only, err := proto.MarshalOptions{Deterministic: true}.Marshal(&pb.AgentStatus{Ledger: m.GetLedger()})
	return body, sha256.Sum256(only), err
}

// ledgers remembers the hash of each agent's ledger as it was written last. It is changed inside the transactions that write
// them, whose order is that of the commits, and forgets what was not committed.
type ledgers struct {
	mu     sync.Mutex
	hashes map[int64][32]byte
}

// swap remembers a hash and reports whether it was known.
func (l *ledgers) swap(agentID int64, hash [32]byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	old, known := l.hashes[agentID]
	if l.hashes == nil {
		l.hashes = map[int64][32]byte{}
	}
	l.hashes[agentID] = hash
	return known && old == hash
}

func (l *ledgers) forget(agentID int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.hashes, agentID)
}

// ledgerLine is a row of the ledger without its quantities.
type ledgerLine struct{ source, order, operation, item, kind, unit string }

// setLedger makes an agent's ledger what rows say, writing what differs. Of two rows of one line the first counts.
func (tx *Tx) setLedger(agentID int64, rows []*pb.LedgerRow) error {
	type quantities struct{ counted, stored string }
	old := map[ledgerLine]quantities{}
	_, err := collect(tx.ctx, tx, func(r *sql.Rows) (none struct{}, err error) {
		var l ledgerLine
		var q quantities
		err = r.Scan(&l.source, &l.order, &l.operation, &l.item, &l.kind, &l.unit, &q.counted, &q.stored)
		old[l] = q
		return none, err
	}, "SELECT source, order_no, operation, item, kind, unit, counted, stored FROM ledger WHERE agent_id = $1", agentID)
	if err != nil {
		return err
	}
	met := make(map[ledgerLine]bool, len(rows))
	for _, r := range rows {
		l := ledgerLine{r.GetSource(), r.GetOrderNo(), r.GetOperation(), r.GetItem(), r.GetKind(), r.GetUnit()}
		q := quantities{zeroText(r.GetCounted()), zeroText(r.GetStored())}
		was, known := old[l]
		if met[l] || known && was == q {
			met[l] = true
			continue
		}
		met[l] = true
		_, err := tx.exec(`INSERT INTO ledger (agent_id, source, order_no, operation, item, kind, unit, counted, stored)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (agent_id, source, order_no, operation, item, kind, unit)
			DO UPDATE SET counted = excluded.counted, stored = excluded.stored`,
			agentID, l.source, l.order, l.operation, l.item, l.kind, l.unit, q.counted, q.stored)
		if err != nil {
			return err
		}
	}
	for l := range old {
		if met[l] {
			continue
		}
		_, err := tx.exec(`DELETE FROM ledger WHERE agent_id = $1 AND source = $2 AND order_no = $3 AND operation = $4 AND item = $5
			AND kind = $6 AND unit = $7`, agentID, l.source, l.order, l.operation, l.item, l.kind, l.unit)
		if err != nil {
			return err
		}
	}
	return nil
}

func zeroText(s string) string {
	if s == "" {
		return "0"
	}
	return s
}

// Reading is the latest value of one tag.
type Reading struct {
	Source, Tag, Value, Quality, Equipment string
	At                                     time.Time
}

// AppendReadings keeps the latest reading of each source and tag and moves the agent's telemetry position. Nil says that it
// is committed.
func (s *Store) AppendReadings(ctx context.Context, agentID int64, generation string, lastSeq uint64, readings []Reading) error {
	err := s.Update(ctx, func(tx *Tx) error {
		tx.touch(TopicAgents)
		for _, r := range readings {
			_, err := tx.exec(`INSERT INTO readings (agent_id, source, tag, value, quality, equipment, at) VALUES ($1, $2, $3, $4, $5, $6, $7)
				ON CONFLICT (agent_id, source, tag) DO UPDATE SET value = excluded.value, quality = excluded.quality,
				equipment = excluded.equipment, at = excluded.at WHERE excluded.at >= readings.at`,
				agentID, r.Source, r.Tag, r.Value, r.Quality, r.Equipment, us(r.At))
			if err != nil {
				return err
			}
		}
		_, _, err := tx.advance(agentID, Telemetry, generation, lastSeq)
		return err
	})
	if err != nil {
		return fmt.Errorf("append readings: %w", err)
	}
	return nil
}

// Readings lists the latest readings of an agent by source and tag.
func (s *Store) Readings(ctx context.Context, agentID int64) ([]Reading, error) {
	return collect(ctx, s, func(r *sql.Rows) (v Reading, err error) {
		var t int64
		err = r.Scan(&v.Source, &v.Tag, &v.Value, &v.Quality, &v.Equipment, &t)
		v.At = at(t)
		return v, err
	}, "SELECT source, tag, value, quality, equipment, at FROM readings WHERE agent_id = $1 ORDER BY source, tag", agentID)
}

// Alarm is something a person must look at. There is one open alarm for each subject and code.
type Alarm struct {
	ID              int64
	Subject         string // "plant/agent", the name of an ERP, or what the code says
	Code            string // "identity_in_use", "went_back_in_time", "sequence_reused", "hub_went_back_in_time"
	Reason          string
	NextStep        string
	FirstAt, LastAt time.Time
	Times           int64
	ClosedAt        time.Time
	Note            string
}

// RaiseAlarm opens an alarm, or counts it once more when it is open already.
func (tx *Tx) RaiseAlarm(subject, code, reason, nextStep string) error {
	tx.touch(TopicAgents)
	_, err := tx.exec(`INSERT INTO alarms (subject, code, reason, next_step, first_at, last_at) VALUES ($1, $2, $3, $4, $5, $5)
		ON CONFLICT (subject, code) WHERE closed_at = 0 DO UPDATE SET reason = excluded.reason, next_step = excluded.next_step,
		last_at = excluded.last_at, times = alarms.times + 1`, subject, code, reason, nextStep, us(tx.now))
	return err
}

// RestateAlarm gives the open alarm of a subject and code, if there is one, other words: it is the same one, which has not happened again.
func (tx *Tx) RestateAlarm(subject, code, reason, nextStep string) error {
	tx.touch(TopicAgents)
	_, err := tx.exec("UPDATE alarms SET reason = $1, next_step = $2 WHERE subject = $3 AND code = $4 AND closed_at = 0", reason, nextStep, subject, code)
	return err
}

// SettleAlarm closes the open alarm of a subject and code, if there is one, with a note.
func (tx *Tx) SettleAlarm(subject, code, note string) error {
	tx.touch(TopicAgents)
	_, err := tx.exec("UPDATE alarms SET closed_at = $1, note = $2 WHERE subject = $3 AND code = $4 AND closed_at = 0", us(tx.now), note, subject, code)
	return err
}

// OpenAlarms lists the open alarms of a code whose subject begins with a prefix, by their subjects: their reasons.
func (s *Store) OpenAlarms(ctx context.Context, code, prefix string) (map[string]string, error) {
	type alarm struct{ subject, reason string }
	all, err := collect(ctx, s, func(r *sql.Rows) (a alarm, err error) { return a, r.Scan(&a.subject, &a.reason) },
		"SELECT subject, reason FROM alarms WHERE code = $1 AND closed_at = 0 AND SUBSTR(subject, 1, $2) = $3", code, utf8.RuneCountInString(prefix), prefix)
	if err != nil {
		return nil, fmt.Errorf("read open alarms: %w", err)
	}
	open := make(map[string]string, len(all))
	for _, a := range all {
		open[a.subject] = a.reason
	}
	return open, nil
}

// Alarms lists alarms, newest first; open ones only unless closed is true.
func (s *Store) Alarms(ctx context.Context, closed bool, page Page) ([]Alarm, error) {
	return collect(ctx, s, scanAlarm, alarmColumns+" WHERE id < $1 AND (closed_at = 0 OR $2) ORDER BY id DESC LIMIT $3", page.before(), closed, page.limit())
}

// CloseAlarm settles an alarm with a note. ErrNotFound when none is open there.
func (s *Store) CloseAlarm(ctx context.Context, id int64, note string) error {
	return s.closeRow(ctx, "alarms", id, note)
}

// Mark is what the hub knows of one counter.
type Mark struct {
	Plant, Source, Tag, Epoch string
	AgentID                   int64
	CounterTo                 string
	Covered                   string // merged intervals: "0-1250,1300-1400"
}

const markColumns = "SELECT plant, source, tag, epoch, agent_id, counter_to, covered FROM marks"

func scanMark(r *sql.Rows) (m Mark, err error) {
	return m, r.Scan(&m.Plant, &m.Source, &m.Tag, &m.Epoch, &m.AgentID, &m.CounterTo, &m.Covered)
}

// Marks lists the marks of the counters that an agent reported.
func (s *Store) Marks(ctx context.Context, agentID int64) ([]Mark, error) {
	return collect(ctx, s, scanMark, markColumns+` WHERE plant = (SELECT plant FROM agents WHERE id = $1)
		AND agent_id = $1 ORDER BY source, tag, changed_at`, agentID)
}

// Mark returns the mark of a counter; its CounterTo is empty when the counter is not known.
func (tx *Tx) Mark(plant, source, tag, epoch string) (Mark, error) {
	m, err := first(tx.ctx, tx, scanMark, markColumns+" WHERE plant = $1 AND source = $2 AND tag = $3 AND epoch = $4", plant, source, tag, epoch)
	if errors.Is(err, ErrNotFound) {
		return Mark{Plant: plant, Source: source, Tag: tag, Epoch: epoch}, nil
	}
	return m, err
}

// SetMark stores a mark.
func (tx *Tx) SetMark(m Mark) error {
	_, err := tx.exec(`INSERT INTO marks (plant, source, tag, epoch, agent_id, counter_to, covered, changed_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (plant, source, tag, epoch) DO UPDATE SET agent_id = excluded.agent_id,
		counter_to = excluded.counter_to, covered = excluded.covered, changed_at = excluded.changed_at`,
		m.Plant, m.Source, m.Tag, m.Epoch, m.AgentID, m.CounterTo, m.Covered, us(tx.now))
	return err
}
