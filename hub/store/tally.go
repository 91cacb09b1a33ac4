package store

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

// TallyFilter chooses what is tallied; empty fields choose all.
type TallyFilter struct{ Plant, OrderNo string }

// TallyInput returns all rows that package tally compares: what the agents counted and stored, and every quantity of every
// fact with what became of it, those that no planner has seen included.
func (s *Store) TallyInput(ctx context.Context, f TallyFilter) (edge []object.EdgeLine, facts []object.FactLine, err error) {
	ro, err := s.ro.BeginTx(ctx, nil) // one snapshot for all three reads
	if err != nil {
		return nil, nil, fmt.Errorf("read tally: %w", err)
	}
	defer ro.Rollback()
	db := snapshot{ro}
	if edge, err = edgeLines(ctx, db, f); err != nil {
		return nil, nil, fmt.Errorf("read ledger: %w", err)
	}
	if facts, err = factLines(ctx, db, f); err != nil {
		return nil, nil, fmt.Errorf("read quantities: %w", err)
	}
	fresh, err := unplannedLines(ctx, db, f)
	if err != nil {
		return nil, nil, fmt.Errorf("read new facts: %w", err)
	}
	return edge, append(facts, fresh...), nil
}

type snapshot struct{ tx *sql.Tx }

func (s snapshot) query(ctx context.Context, q string, args ...any) (*sql.Rows, error) {
	return s.tx.QueryContext(ctx, q, args...)
}

func edgeLines(ctx context.Context, db querier, f TallyFilter) ([]object.EdgeLine, error) {
	agents, err := collect(ctx, db, scanAgent, agentColumns)
	if err != nil {
		return nil, err
	}
	byID := map[int64]Agent{}
	for _, a := range agents {
		byID[a.ID] = a
	}
	var w where
	w.andText("order_no = ?", f.OrderNo)
	w.andText("agent_id IN (SELECT id FROM agents WHERE plant = ?)", f.Plant)
	return collect(ctx, db, func(r *sql.Rows) (l object.EdgeLine, err error) {
		var id int64
		var counted, stored string
		if err := r.Scan(&id, &l.Source, &l.OrderNo, &l.Operation, &l.Item, &l.Kind, &l.Unit, &counted, &stored); err != nil {
			return l, err
		}
		a := byID[id]
		l.Plant, l.Agent, l.Pending, l.AsOf = a.Plant, a.Agent, a.Status.GetBusinessPending(), a.StatusAt
		if l.Counted, err = decimal.NewFromString(counted); err != nil {
			return l, fmt.Errorf("agent %q counted: %w", a.Name(), err)
		}
		if l.Stored, err = decimal.NewFromString(stored); err != nil {
			return l, fmt.Errorf("agent %q stored: %w", a.Name(), err)
		}
		return l, nil
	}, "SELECT agent_id, source, order_no, operation, item, kind, unit, counted, stored FROM ledger"+w.String(), w.args...)
}

// indexed is one fact's row of the index with its posting.
type indexed struct {
	key                                    []byte
	line                                   object.FactLine
	yield, scrap, rework, consumed, back   string
	postYield, postScrap, postRework, post string
}

func factLines(ctx context.Context, db querier, f TallyFilter) ([]object.FactLine, error) {
	var w where
	w.and("x.kind IN ('production_confirmation', 'material_consumption')")
	w.andText("x.order_no = ?", f.OrderNo)
	w.andText("x.plant = ?", f.Plant)
	rows, err := collect(ctx, db, func(r *sql.Rows) (x indexed, err error) {
		l := &x.line
		return x, r.Scan(&x.key, &l.Plant, &l.OrderNo, &l.Operation, &l.Item, &l.Unit, &x.yield, &x.scrap, &x.rework, &x.consumed, &x.back,
			&l.State, &l.Code, &l.Reason, &l.Document, &x.postYield, &x.postScrap, &x.postRework, &x.post)
	}, `SELECT f.key, x.plant, x.order_no, x.operation, x.item, x.unit, x.yield, x.scrap, x.rework, x.consumed, x.returned,
		COALESCE(p.state, ''), COALESCE(p.code, ''), COALESCE(p.reason, ''), COALESCE(p.document, ''),
		COALESCE(p.yield, ''), COALESCE(p.scrap, ''), COALESCE(p.rework, ''), COALESCE(p.quantity, '')
		FROM fact_index x JOIN facts f ON f.id = x.fact_id LEFT JOIN postings p ON p.fact_id = x.fact_id`+w.String()+" ORDER BY x.fact_id", w.args...)
	if err != nil {
		return nil, err
	}
	var all []object.FactLine
	for _, x := range rows {
		lines, err := x.lines()
		if err != nil {
			return nil, err
		}
		all = append(all, lines...)
	}
	return all, nil
}

func (x *indexed) lines() (out []object.FactLine, err error) {
	var k shortKey
	copy(k[:], x.key)
	x.line.FactKey = shortText(k)
	for _, q := range []struct {
		kind             object.QuantityKind
		received, posted string
	}{
		{object.Yield, x.yield, x.postYield}, {object.Scrap, x.scrap, x.postScrap}, {object.Rework, x.rework, x.postRework},
		{object.Consumed, x.consumed, x.post}, {object.Returned, x.back, x.post},
	} {
		if q.received == "0" {
			continue
		}
		l := x.line
		l.Kind = q.kind
		if l.Received, err = decimal.NewFromString(q.received); err != nil {
			return nil, fmt.Errorf("fact %q: %w", l.FactKey, err)
		}
		intended := l.Received
		if q.posted != "" {
			if intended, err = decimal.NewFromString(q.posted); err != nil {
				return nil, fmt.Errorf("posting of fact %q: %w", l.FactKey, err)
			}
		}
		switch state := PostingState(l.State); {
		case state == PostingPosted || state == PostingVerified || x.line.Document != "":
			l.Posted = intended
		case state == PostingNotPosted && q.posted != "":
			// Below the ERP's decimals: what was left over went to the next posting.
			l.Posted = intended
		case state.Settled():
			l.Settled = intended
		}
		out = append(out, l)
	}
	return out, nil
}

func unplannedLines(ctx context.Context, db querier, f TallyFilter) ([]object.FactLine, error) {
	facts, err := collect(ctx, db, scanFact, factColumns+" WHERE f.id > COALESCE((SELECT CAST(value AS BIGINT) FROM meta WHERE name = 'planned'), 0) ORDER BY f.id")
	if err != nil {
		return nil, err
	}
	var all []object.FactLine
	for _, fact := range facts {
		if f.Plant != "" && f.Plant != fact.Fact.Plant || f.OrderNo != "" && f.OrderNo != fact.Fact.OrderNo() {
			continue
		}
		all = append(all, fact.Fact.FactQuantities()...)
	}
	return all, nil
}
