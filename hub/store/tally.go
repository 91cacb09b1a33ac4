package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

// TallyFilter chooses what is tallied; empty fields choose all.
type TallyFilter struct{ Plant, OrderNo string }

// TallyInput returns all rows that package tally compares: what the agents counted and stored, and the quantities of the facts
// with what became of them. Facts of one line that share state, code and reason are one row; facts that no planner has seen are
// rows of their own. It reads kept sums: its cost grows with the lines of the ledger, not with the facts.
func (s *Store) TallyInput(ctx context.Context, f TallyFilter) (edge []object.EdgeLine, facts []object.FactLine, err error) {
	ro, err := s.ro.BeginTx(ctx, nil) // one snapshot for all reads
	if err != nil {
		return nil, nil, fmt.Errorf("read tally: %w", err)
	}
	defer ro.Rollback()
	db := snapshot{s, ro}
	if edge, err = edgeLines(ctx, db, f); err != nil {
		return nil, nil, fmt.Errorf("read ledger: %w", err)
	}
	if facts, err = sumLines(ctx, db, f); err != nil {
		return nil, nil, fmt.Errorf("read quantities: %w", err)
	}
	fresh, err := unplannedLines(ctx, db, f)
	if err != nil {
		return nil, nil, fmt.Errorf("read new facts: %w", err)
	}
	return edge, append(facts, fresh...), nil
}

// EdgeLines is the part of TallyInput that the agents reported.
func (s *Store) EdgeLines(ctx context.Context, f TallyFilter) ([]object.EdgeLine, error) {
	edge, err := edgeLines(ctx, s, f)
	if err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	return edge, nil
}

type snapshot struct {
	s  *Store
	tx *sql.Tx
}

func (s snapshot) query(ctx context.Context, q string, args ...any) (*sql.Rows, error) {
	st, err := s.s.reader(ctx, q)
	if err != nil {
		return nil, err
	}
	return s.tx.StmtContext(ctx, st).QueryContext(ctx, args...)
}

func edgeLines(ctx context.Context, db querier, f TallyFilter) ([]object.EdgeLine, error) {
	var w where
	w.andText("order_no = ?", f.OrderNo)
	w.andText("agent_id IN (SELECT id FROM agents WHERE plant = ?)", f.Plant)
	agents, err := collect(ctx, db, scanAgent, agentColumns+" WHERE id IN (SELECT agent_id FROM ledger"+w.String()+")", w.args...)
	if err != nil {
		return nil, err
	}
	byID := map[int64]Agent{}
	for _, a := range agents {
		byID[a.ID] = a
	}
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

const sumColumns = "SELECT order_no, plant, operation, item, kind, unit, state, code, reason, facts, received, posted, settled FROM tally"

// tallySum is a row of the table tally.
type tallySum struct {
	tallyKey
	facts                     int64
	received, posted, settled decimal.Decimal
}

func scanSum(r *sql.Rows) (t tallySum, err error) {
	var received, posted, settled string
	if err := r.Scan(&t.OrderNo, &t.Plant, &t.Operation, &t.Item, &t.Kind, &t.Unit, &t.state, &t.code, &t.reason,
		&t.facts, &received, &posted, &settled); err != nil {
		return t, err
	}
	t.received, t.posted, t.settled, _, err = four(received, posted, settled, "0")
	return t, err
}

// Facts that are named in the rows of TallyInput.
const (
	factsNamed = 50  // of a row
	rowsNamed  = 200 // rows that name their facts: asked for one order or plant, it is all of them as a rule
)

func sumLines(ctx context.Context, db querier, f TallyFilter) ([]object.FactLine, error) {
	var w where
	w.andText("order_no = ?", f.OrderNo)
	w.andText("plant = ?", f.Plant)
	sums, err := collect(ctx, db, scanSum, sumColumns+w.String()+" ORDER BY order_no, plant, operation, item, kind, unit, state, code, reason", w.args...)
	if err != nil {
		return nil, err
	}
	var all []object.FactLine
	named := 0
	for _, t := range sums {
		l := object.FactLine{
			LedgerKey: t.LedgerKey, Count: t.facts, Received: t.received, Posted: t.posted, Settled: t.settled, State: t.state, Code: t.code, Reason: t.reason,
		}
		if t.state != string(PostingPosted) && named < rowsNamed {
			named++
			if l.Facts, err = factsOf(ctx, db, t); err != nil {
				return nil, err
			}
			if t.facts == 1 && len(l.Facts) == 1 {
				l.FactKey = l.Facts[0]
			}
		}
		all = append(all, l)
	}
	return all, nil
}

// factsOf names some facts of a row of the tally. Of postings that are over, it looks through the latest of the order only.
func factsOf(ctx context.Context, db querier, t tallySum) ([]string, error) {
	const latest = `(SELECT fact_id FROM fact_index WHERE order_no = $1 ORDER BY fact_id DESC LIMIT 10000) latest
		CROSS JOIN postings p ON p.fact_id = latest.fact_id`
	from, states := "postings p", "p.order_no = $1 AND p.state NOT IN ('verified', 'not_posted', 'settled') AND p.state || '' = $2"
	switch {
	case PostingState(t.state).Settled():
		from, states = latest, "p.state || '' = $2"
	case t.state == string(PostingDue):
		states = "p.order_no = $1 AND p.state NOT IN ('verified', 'not_posted', 'settled') AND p.state || '' IN ($2, 'sending')"
	}
	switch t.Kind {
	case object.Yield, object.Scrap, object.Rework, object.Consumed, object.Returned:
	default:
		return nil, fmt.Errorf("sum of order %q is of kind %q", t.OrderNo, t.Kind)
	}
	keys, err := factsIn(ctx, db, t, from, states)
	if err != nil || int64(len(keys)) >= min(t.facts, factsNamed) || PostingState(t.state).Settled() {
		return keys, err
	}
	// The others are posted to another order than the one that the fact names: somebody has corrected that.
	moved, err := factsIn(ctx, db, t, "(SELECT DISTINCT fact_id FROM corrections WHERE old_order_no = $1) moved CROSS JOIN postings p ON p.fact_id = moved.fact_id",
		"p.order_no <> $1 AND x.order_no = $1 AND p.state || '' = $2")
	return append(keys, moved...), err
}

// factsIn reads the keys of at most factsNamed postings of a row of the tally.
func factsIn(ctx context.Context, db querier, t tallySum, from, states string) ([]string, error) {
	return collect(ctx, db, func(r *sql.Rows) (string, error) {
		var key []byte
		if err := r.Scan(&key); err != nil {
			return "", err
		}
		var k shortKey
		copy(k[:], key)
		return shortText(k), nil
	}, "SELECT f.key FROM "+from+` CROSS JOIN fact_index x ON x.fact_id = p.fact_id CROSS JOIN facts f ON f.id = p.fact_id
		WHERE `+states+` AND p.document = '' AND NOT (p.state = 'not_posted' AND p.yield <> '') AND p.code = $3 AND p.reason = $4
		AND x.plant = $5 AND x.operation = $6 AND x.item = $7 AND x.unit = $8 AND x.`+string(t.Kind)+` <> '0' LIMIT $9`,
		t.OrderNo, t.state, t.code, t.reason, t.Plant, t.Operation, t.Item, t.Unit, factsNamed)
}

// tallyKey names a row of the table tally: a line of the ledger, and what its facts share.
type tallyKey struct {
	object.LedgerKey
	state, code, reason string
}

// rowOf says which row counts a quantity. All that has its effect is one row, whatever its posting is called and says.
func rowOf(l object.FactLine) tallyKey {
	k := tallyKey{LedgerKey: l.LedgerKey, state: l.State, code: l.Code, reason: l.Reason}
	switch state := PostingState(l.State); {
	case l.Document != "" || state == PostingPosted || state == PostingVerified || state == PostingNotPosted && l.Settled.IsZero():
		k.state, k.code, k.reason = string(PostingPosted), "", ""
	case state == PostingSending:
		k.state = string(PostingDue)
	}
	return k
}

// sums collects changes of the tables tally and posting_counts, in the order in which they were first met.
type sums struct {
	rows   map[tallyKey]*tallySum
	order  []tallyKey
	counts map[postingKind]int64
	kinds  []postingKind
}

type postingKind struct {
	erp   string
	state PostingState
	code  string
}

// add counts the quantities of one fact n times: 1 when they come, -1 when they go.
func (s *sums) add(lines []object.FactLine, n int64) {
	if s.rows == nil {
		s.rows = map[tallyKey]*tallySum{}
	}
	for _, l := range lines {
		k := rowOf(l)
		t := s.rows[k]
		if t == nil {
			t = &tallySum{tallyKey: k}
			s.rows[k], s.order = t, append(s.order, k)
		}
		times := decimal.NewFromInt(n)
		t.facts += n
		t.received = t.received.Add(l.Received.Mul(times))
		t.posted = t.posted.Add(l.Posted.Mul(times))
		t.settled = t.settled.Add(l.Settled.Mul(times))
	}
}

func (s *sums) count(erp string, state PostingState, code string, n int64) {
	if s.counts == nil {
		s.counts = map[postingKind]int64{}
	}
	k := postingKind{erp, state, code}
	if _, met := s.counts[k]; !met {
		s.kinds = append(s.kinds, k)
	}
	s.counts[k] += n
}

// addSums stores the changes; those of the counts come with the commit.
func (tx *Tx) addSums(s *sums) error {
	for _, k := range s.order {
		if t := s.rows[k]; t.facts != 0 || !t.received.IsZero() || !t.posted.IsZero() || !t.settled.IsZero() {
			if err := tx.addSum(*t); err != nil {
				return err
			}
		}
	}
	if tx.counts == nil && len(s.kinds) > 0 {
		tx.counts = map[postingKind]int64{}
	}
	for _, k := range s.kinds {
		tx.counts[k] += s.counts[k]
	}
	return nil
}

// storeCounts stores how the numbers of postings have changed by all that is about to be committed: those who share a commit change
// the same few rows.
func (tx *Tx) storeCounts(group []*update) error {
	counts := map[postingKind]int64{}
	for _, u := range group {
		if u.failed {
			continue
		}
		for k, n := range u.tx.counts {
			counts[k] += n
		}
	}
	for k, n := range counts {
		if n == 0 {
			continue
		}
		_, err := tx.exec(`INSERT INTO posting_counts (erp, state, code, n) VALUES ($1, $2, $3, $4)
			ON CONFLICT (erp, state, code) DO UPDATE SET n = posting_counts.n + excluded.n`, k.erp, string(k.state), k.code, n)
		if err != nil {
			return fmt.Errorf("count postings: %w", err)
		}
	}
	return nil
}

func (tx *Tx) addSum(t tallySum) error {
	const same = ` WHERE order_no = $1 AND plant = $2 AND operation = $3 AND item = $4 AND kind = $5 AND unit = $6
		AND state = $7 AND code = $8 AND reason = $9`
	key := []any{t.OrderNo, t.Plant, t.Operation, t.Item, string(t.Kind), t.Unit, t.state, t.code, t.reason}
	old, err := first(tx.ctx, tx, scanSum, sumColumns+same, key...)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	t.facts += old.facts
	if t.facts == 0 {
		_, err := tx.exec("DELETE FROM tally"+same, key...)
		return err
	}
	_, err = tx.exec(`INSERT INTO tally (order_no, plant, operation, item, kind, unit, state, code, reason, facts, received, posted, settled)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
		ON CONFLICT (order_no, plant, operation, item, kind, unit, state, code, reason) DO UPDATE SET
		facts = excluded.facts, received = excluded.received, posted = excluded.posted, settled = excluded.settled`, append(key, t.facts,
		old.received.Add(t.received).String(), old.posted.Add(t.posted).String(), old.settled.Add(t.settled).String())...)
	return err
}

// posted is a fact's row of the index with its posting, as far as the tally goes.
type posted struct {
	key                                    []byte
	line                                   object.FactLine
	erp                                    string
	yield, scrap, rework, consumed, back   string
	postYield, postScrap, postRework, post string
}

const postedColumns = "SELECT " + ofPosted + fromPosted

const ofPosted = `f.key, x.plant, x.order_no, x.operation, x.item, x.unit, x.yield, x.scrap, x.rework, x.consumed, x.returned,
	COALESCE(p.erp, ''), COALESCE(p.state, ''), COALESCE(p.code, ''), COALESCE(p.reason, ''), COALESCE(p.document, ''),
	COALESCE(p.yield, ''), COALESCE(p.scrap, ''), COALESCE(p.rework, ''), COALESCE(p.quantity, '')`

const fromPosted = ` FROM fact_index x JOIN facts f ON f.id = x.fact_id LEFT JOIN postings p ON p.fact_id = x.fact_id`

func (x *posted) columns() []any {
	l := &x.line
	return []any{&x.key, &l.Plant, &l.OrderNo, &l.Operation, &l.Item, &l.Unit, &x.yield, &x.scrap, &x.rework, &x.consumed, &x.back,
		&x.erp, &l.State, &l.Code, &l.Reason, &l.Document, &x.postYield, &x.postScrap, &x.postRework, &x.post}
}

func scanPosted(r *sql.Rows) (x posted, err error) { return x, r.Scan(x.columns()...) }

// take gives the row the posting that it has or is about to have.
func (x *posted) take(p *Posting) {
	x.erp, x.line.State, x.line.Code, x.line.Reason, x.line.Document = p.ERP, string(p.State), p.Code, p.Reason, p.Document
	x.postYield, x.postScrap, x.postRework, x.post = "", "", "", ""
	if a := p.Amounts; a != nil {
		x.postYield, x.postScrap, x.postRework, x.post = a.Yield.String(), a.Scrap.String(), a.Rework.String(), a.Quantity.String()
	}
}

// lines are the quantities of the fact that are not zero, with what became of them.
func (x *posted) lines() (out []object.FactLine, err error) {
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
		l.Kind, l.Count = q.kind, 1
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

// changeSums moves the quantities of a fact from what its posting was to what it becomes, and keeps the first step of a posting
// that changes for the first time. It is called before the posting is stored.
func (tx *Tx) changeSums(p *Posting) error {
	var begins bool
	x, err := first(tx.ctx, tx, func(r *sql.Rows) (x posted, err error) { return x, r.Scan(append(x.columns(), &begins)...) },
		"SELECT "+ofPosted+", NOT EXISTS (SELECT 1 FROM posting_steps WHERE fact_id = $1)"+fromPosted+" WHERE x.fact_id = $1", p.FactID)
	if errors.Is(err, ErrNotFound) {
		return tx.keepFirstStep(p.FactID) // the planner counts it when it has read the fact
	}
	if err == nil && begins {
		err = tx.keepFirstStep(p.FactID)
	}
	if err != nil {
		return err
	}
	was, err := x.lines()
	if err != nil {
		return err
	}
	var s sums
	s.add(was, -1)
	if x.line.State != "" {
		s.count(x.erp, PostingState(x.line.State), x.line.Code, -1)
	}
	x.take(p)
	is, err := x.lines()
	if err != nil {
		return err
	}
	s.add(is, 1)
	s.count(p.ERP, p.State, p.Code, 1)
	return tx.addSums(&s)
}

// sumAll makes the sums of a database that has none yet.
func (tx *Tx) sumAll() error {
	for _, q := range []string{"DELETE FROM tally", "DELETE FROM posting_counts"} {
		if _, err := tx.exec(q); err != nil {
			return err
		}
	}
	s, err := recount(tx.ctx, tx)
	if err != nil {
		return err
	}
	return tx.addSums(s)
}

// recount makes the sums from every planned fact.
func recount(ctx context.Context, db querier) (*sums, error) {
	rows, err := db.query(ctx, postedColumns+" ORDER BY x.fact_id")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var s sums
	for rows.Next() {
		x, err := scanPosted(rows)
		if err != nil {
			return nil, err
		}
		lines, err := x.lines()
		if err != nil {
			return nil, err
		}
		s.add(lines, 1)
		if x.line.State != "" {
			s.count(x.erp, PostingState(x.line.State), x.line.Code, 1)
		}
	}
	return &s, rows.Err()
}

func unplannedLines(ctx context.Context, db querier, f TallyFilter) ([]object.FactLine, error) {
	facts, err := collect(ctx, db, scanFact, unplannedColumns+" WHERE f.id > COALESCE((SELECT CAST(value AS BIGINT) FROM meta WHERE name = 'planned'), 0) ORDER BY f.id")
	if err != nil {
		return nil, err
	}
	var all []object.FactLine
	for _, fact := range facts {
		if f.Plant != "" && f.Plant != fact.Fact.Plant || f.OrderNo != "" && f.OrderNo != fact.Fact.OrderNo() {
			continue
		}
		for _, l := range fact.Fact.FactQuantities() {
			l.Count = 1
			all = append(all, l)
		}
	}
	return all, nil
}
