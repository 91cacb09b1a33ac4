package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/wire"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// StepBack is an open exception about a counter that went back.
type StepBack struct {
	ID, FactID           int64
	Plant, Agent, Source string
	Fact                 string // the exception's own key
	Step                 object.CounterStep
}

// StepsBack lists open exceptions about counters that went back, oldest first.
func (s *Store) StepsBack(ctx context.Context, limit int) ([]StepBack, error) {
	all, err := collect(ctx, s, func(r *sql.Rows) (x StepBack, err error) {
		var step string
		var key []byte
		if err := r.Scan(&x.ID, &x.FactID, &x.Plant, &x.Agent, &x.Source, &step, &key); err != nil {
			return x, err
		}
		var k factkey.Key
		copy(k[:], key)
		x.Fact = k.String()
		if err := json.Unmarshal([]byte(step), &x.Step); err != nil {
			return x, fmt.Errorf("exception %d: %w", x.ID, err)
		}
		return x, nil
	}, `SELECT e.id, e.fact_id, a.plant, a.agent, e.source, e.step, f.key FROM exceptions e JOIN agents a ON a.id = e.agent_id JOIN facts f ON f.id = e.fact_id
		WHERE e.id > 0 AND e.closed_at = 0 AND e.step <> '' ORDER BY e.id LIMIT `+fmt.Sprint(limit))
	if err != nil {
		return nil, fmt.Errorf("list counters that went back: %w", err)
	}
	return all, nil
}

// Gap is a range of an agent's records that never came, or that this hub has no more.
type Gap struct {
	ID           int64
	Plant, Agent string
	AgentID      int64
	Generation   string
	First, Last  uint64
	// Code is that of the alarm which told of it, Reason the alarm's sentence.
	Code, Reason string
	At           time.Time
	// Discrepancy is the number of what it became, 0 while it is none.
	Discrepancy int64
	afterFact   int64
}

// Finding is what reconciliation makes of a gap: nobody but a person can bring the records.
func (g Gap) Finding() reconcile.Finding {
	return *reconcile.CheckGap(reconcile.Gap{Plant: g.Plant, Agent: g.Agent, Source: "generation " + g.Generation, Expected: g.First, Got: g.Last + 1, At: g.At, Cause: g.Reason})
}

// AddGap notes a gap, once, and raises the alarm that tells of it; with a policy it is a discrepancy at once, otherwise when
// reconciliation looks.
func (tx *Tx) AddGap(g Gap, nextStep string, p *reconcile.Policy) error {
	last, err := first(tx.ctx, tx, scanValue[int64], "SELECT COALESCE(MAX(id), 0) FROM facts")
	if err != nil {
		return err
	}
	g.At = tx.now
	_, err = tx.exec(`INSERT INTO gaps (agent_id, generation, first_seq, last_seq, code, reason, at, after_fact) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (agent_id, generation, first_seq, last_seq) DO NOTHING`, g.AgentID, g.Generation, int64(g.First), int64(g.Last), g.Code, g.Reason, us(tx.now), last)
	if err != nil {
		return err
	}
	type row struct{ id, discrepancy int64 }
	known, err := first(tx.ctx, tx, func(r *sql.Rows) (x row, err error) { return x, r.Scan(&x.id, &x.discrepancy) },
		"SELECT id, discrepancy_id FROM gaps WHERE agent_id = $1 AND generation = $2 AND first_seq = $3 AND last_seq = $4", g.AgentID, g.Generation, int64(g.First), int64(g.Last))
	if err != nil || known.discrepancy != 0 {
		return err
	}
	g.ID = known.id
	if err := tx.RaiseAlarm(g.Plant+"/"+g.Agent, g.Code, g.Reason, nextStep); err != nil || p == nil {
		return err
	}
	return tx.raiseGap(g, *p)
}

// raiseGap makes a gap a discrepancy, and settles the alarm that told of it: from then on the discrepancy stands for it.
func (tx *Tx) raiseGap(g Gap, p reconcile.Policy) error {
	c, err := tx.happened(g.Finding(), p)
	if err != nil {
		return err
	}
	_, err = tx.exec("UPDATE gaps SET discrepancy_id = $1 WHERE id = $2", c.ID, g.ID)
	return errors.Join(err, tx.SettleAlarm(g.Plant+"/"+g.Agent, g.Code, fmt.Sprintf("it is discrepancy %d", c.ID)))
}

// Gaps lists the gaps whose records have not come, oldest first.
func (s *Store) Gaps(ctx context.Context) ([]Gap, error) {
	all, err := collect(ctx, s, func(r *sql.Rows) (g Gap, err error) {
		var from, to, t int64
		err = r.Scan(&g.ID, &g.AgentID, &g.Plant, &g.Agent, &g.Generation, &from, &to, &g.Code, &g.Reason, &t, &g.Discrepancy, &g.afterFact)
		g.First, g.Last, g.At = uint64(from), uint64(to), at(t)
		return g, err
	}, `SELECT g.id, g.agent_id, a.plant, a.agent, g.generation, g.first_seq, g.last_seq, g.code, g.reason, g.at, g.discrepancy_id, g.after_fact
		FROM gaps g JOIN agents a ON a.id = g.agent_id WHERE g.closed_at = 0 ORDER BY g.id`)
	if err != nil {
		return nil, fmt.Errorf("list gaps: %w", err)
	}
	return all, nil
}

// GapFilled reports whether all records of a gap have come after it was noticed. It reads the facts that came since.
func (s *Store) GapFilled(ctx context.Context, g Gap) (bool, error) {
	n, err := first(ctx, s, scanValue[int64], `SELECT COUNT(DISTINCT f.seq) FROM facts f JOIN positions p ON p.id = f.position_id
		WHERE f.id > $1 AND p.agent_id = $2 AND p.stream = $3 AND p.generation = $4 AND f.seq BETWEEN $5 AND $6`,
		g.afterFact, g.AgentID, int64(Business), g.Generation, int64(g.First), int64(g.Last))
	if err != nil {
		return false, fmt.Errorf("look whether gap %d was filled: %w", g.ID, err)
	}
	return uint64(n) == g.Last-g.First+1, nil
}

// RaiseStep makes an exception about a counter that went back what is found of it, and closes the exception: from then on the
// discrepancy stands for it.
func (tx *Tx) RaiseStep(x StepBack, p reconcile.Policy) error {
	tx.touch(TopicFacts)
	note := "the counter only went up"
	if found := reconcile.CheckStep(reconcile.StepOf(x.Plant, x.Agent, x.Source, x.Fact, x.Step)); found != nil {
		c, err := tx.happened(*found, p)
		if err != nil {
			return err
		}
		note = fmt.Sprintf("it is discrepancy %d", c.ID)
	}
	_, err := tx.exec("UPDATE exceptions SET closed_at = $1, note = $2 WHERE fact_id = $3 AND closed_at = 0", us(tx.now), note, x.FactID)
	return err
}

// RaiseSteps does that for exceptions that were stored before. Each is a transaction of its own.
func (s *Store) RaiseSteps(ctx context.Context, all []StepBack, p reconcile.Policy) error {
	for _, x := range all {
		if err := s.Update(ctx, func(tx *Tx) error { return tx.RaiseStep(x, p) }); err != nil {
			return fmt.Errorf("raise what exception %d tells: %w", x.ID, err)
		}
	}
	return nil
}

// RaiseGap makes a gap that was noted before a discrepancy.
func (s *Store) RaiseGap(ctx context.Context, g Gap, p reconcile.Policy) error {
	if err := s.Update(ctx, func(tx *Tx) error { return tx.raiseGap(g, p) }); err != nil {
		return fmt.Errorf("raise gap %d: %w", g.ID, err)
	}
	return nil
}

// RaiseMissed makes what an agent told of a source's numbering a discrepancy. An agent says it again and again: what is evidence of
// one of the subject's discrepancies already, whatever became of that, is no news.
func (s *Store) RaiseMissed(ctx context.Context, f reconcile.Finding, p reconcile.Policy) error {
	known, err := s.knows(ctx, s, f)
	if err != nil || known {
		return err
	}
	err = s.Update(ctx, func(tx *Tx) error {
		if known, err := s.knows(tx.ctx, tx, f); err != nil || known {
			return err
		}
		_, err := tx.happened(f, p)
		return err
	})
	if err != nil {
		return fmt.Errorf("raise what is missing of %s: %w", f.Subject, err)
	}
	return nil
}

// knows reports that a finding's evidence is known of one of its subject's last discrepancies.
func (s *Store) knows(ctx context.Context, db querier, f reconcile.Finding) (bool, error) {
	last, err := collect(ctx, db, scanDiscrepancy, "SELECT id, body FROM discrepancies WHERE type = $1 AND subject = $2 ORDER BY id DESC LIMIT 3", string(f.Type), f.Subject)
	return slices.ContainsFunc(last, func(d reconcile.Discrepancy) bool {
		return len(f.Evidence) > 0 && slices.Contains(d.Evidence, f.Evidence[0])
	}), err
}

// CloseGap ends a gap whose records have come, and its discrepancy when that is live.
func (s *Store) CloseGap(ctx context.Context, g Gap, note string) error {
	err := s.Update(ctx, func(tx *Tx) error {
		if _, err := tx.exec("UPDATE gaps SET closed_at = $1 WHERE id = $2", us(tx.now), g.ID); err != nil {
			return err
		}
		d, err := optionalRow(first(tx.ctx, tx, scanDiscrepancy, "SELECT id, body FROM discrepancies WHERE id = $1", g.Discrepancy))
		if err != nil || d == nil || !d.State.Live() {
			return err
		}
		d.State, d.Note = reconcile.Healed, note
		return errors.Join(tx.putDiscrepancy(d), tx.AddDiscrepancyStep(d.ID, "healed", "", note))
	})
	if err != nil {
		return fmt.Errorf("close gap %d: %w", g.ID, err)
	}
	return nil
}

// happened stores an event as a discrepancy: the live one of its type and subject takes it in.
func (tx *Tx) happened(f reconcile.Finding, p reconcile.Policy) (reconcile.Change, error) {
	open, err := optionalRow(first(tx.ctx, tx, scanDiscrepancy, "SELECT id, body FROM discrepancies WHERE type = $1 AND subject = $2 AND closed_at = 0", string(f.Type), f.Subject))
	if err != nil {
		return reconcile.Change{}, err
	}
	c := reconcile.Happened(tx.now, open, f, p)
	return c, tx.putChange(&c)
}

// AgeDiscrepancies moves the live discrepancies up that belong to no order and whose SLA has passed.
func (s *Store) AgeDiscrepancies(ctx context.Context, p reconcile.Policy) error {
	late, err := collect(ctx, s, scanDiscrepancy, "SELECT id, body FROM discrepancies WHERE order_no = '' AND closed_at = 0 AND due_at <= $1 ORDER BY id", us(s.now()))
	if err != nil || len(late) == 0 {
		return err
	}
	return s.Update(ctx, func(tx *Tx) error {
		for _, d := range late {
			d, err := optionalRow(first(tx.ctx, tx, scanDiscrepancy, "SELECT id, body FROM discrepancies WHERE id = $1 AND closed_at = 0", d.ID))
			if err != nil {
				return err
			}
			if d == nil {
				continue
			}
			if c, ok := reconcile.Aged(tx.now, *d, p); ok {
				if err := tx.putChange(&c); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// LotStates returns what quality has said last of the lots of an item, by lot: the newest statement that has a disposition counts, also
// one that names the lot without its item.
func (s *Store) LotStates(ctx context.Context, plant, item string) (map[string]object.Quality, error) {
	type row struct {
		body []byte
		id   int64
	}
	all, err := collect(ctx, s, func(r *sql.Rows) (x row, err error) { return x, r.Scan(&x.id, &x.body) },
		`SELECT x.fact_id, f.body FROM fact_index x JOIN facts f ON f.id = x.fact_id WHERE x.kind = 'quality_status' AND x.plant = $1 AND x.item IN ($2, '') ORDER BY x.fact_id`, plant, item)
	if err != nil {
		return nil, fmt.Errorf("read what quality says of item %q: %w", item, err)
	}
	out := map[string]object.Quality{}
	at := map[string]time.Time{}
	for _, x := range all {
		f, err := wire.DecodeFact(x.body)
		if err != nil || f.Quality == nil || f.Quality.Lot == "" || f.Quality.Disposition == "" || f.OccurredAt.Before(at[f.Quality.Lot]) {
			continue // what cannot be read is kept aside already
		}
		out[f.Quality.Lot], at[f.Quality.Lot] = *f.Quality, f.OccurredAt
	}
	return out, nil
}
