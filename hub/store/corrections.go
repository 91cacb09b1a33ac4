package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// Values are the four things of a posting that can be corrected. PostingDate is a date such as 2026-11-26.
type Values struct{ OrderNo, Item, Lot, PostingDate string }

// ValuesOf are those of a fact.
func ValuesOf(f object.Fact) Values {
	v := Values{OrderNo: f.OrderNo(), PostingDate: f.PostingDate}
	switch {
	case f.Confirmation != nil:
		v.Item, v.Lot = f.Confirmation.Item, f.Confirmation.Lot
	case f.Consumption != nil:
		v.Item, v.Lot = f.Consumption.Item, f.Consumption.Lot
	case f.Quality != nil:
		v.Item, v.Lot = f.Quality.Item, f.Quality.Lot
	}
	return v
}

// Correction is what was changed of one posting, by whom and why. The fact itself is never changed.
type Correction struct {
	ID       int64
	FactID   int64
	At       time.Time
	By, Note string
	// Key is the one that it is posted under from then on, zero for the fact's own: what was taken back in the outside system is
	// posted under a new one, because the old one still leads to the document that was reversed.
	Key           factkey.Key
	Before, After Values
}

// Apply returns the fact as it is posted after the correction: with its values, and its key where it has one. No correction
// leaves a fact as it is.
func (c *Correction) Apply(f object.Fact) object.Fact {
	if c == nil {
		return f
	}
	f = c.Values(f)
	if !c.Key.IsZero() {
		f.Key = c.Key
	}
	return f
}

// Values returns the fact with the correction's values under its own key.
func (c *Correction) Values(f object.Fact) object.Fact {
	if c == nil {
		return f
	}
	v := c.After
	f.PostingDate = v.PostingDate
	switch {
	case f.Confirmation != nil:
		x := *f.Confirmation
		x.OrderNo, x.Item, x.Lot = v.OrderNo, v.Item, v.Lot
		f.Confirmation = &x
	case f.Consumption != nil:
		x := *f.Consumption
		x.OrderNo, x.Item, x.Lot = v.OrderNo, v.Item, v.Lot
		f.Consumption = &x
	case f.Quality != nil:
		x := *f.Quality
		x.OrderNo, x.Item, x.Lot = v.OrderNo, v.Item, v.Lot
		f.Quality = &x
	case f.OrderState != nil:
		x := *f.OrderState
		x.OrderNo = v.OrderNo
		f.OrderState = &x
	}
	return f
}

// Text says what changed.
func (c *Correction) Text() string {
	var parts []string
	for _, x := range []struct{ name, before, after string }{
		{"order", c.Before.OrderNo, c.After.OrderNo}, {"item", c.Before.Item, c.After.Item}, {"lot", c.Before.Lot, c.After.Lot}, {"posting date", c.Before.PostingDate, c.After.PostingDate},
	} {
		if x.before != x.after {
			parts = append(parts, fmt.Sprintf("%s %q instead of %q", x.name, x.after, x.before))
		}
	}
	return strings.Join(append(parts, c.Note), ": ")
}

const correctionColumns = `SELECT id, fact_id, at, by_whom, note, key, old_order_no, old_item, old_lot, old_posting_date,
	new_order_no, new_item, new_lot, new_posting_date FROM corrections`

func scanCorrection(r *sql.Rows) (c Correction, err error) {
	var t int64
	var key []byte
	b, a := &c.Before, &c.After
	err = r.Scan(&c.ID, &c.FactID, &t, &c.By, &c.Note, &key, &b.OrderNo, &b.Item, &b.Lot, &b.PostingDate, &a.OrderNo, &a.Item, &a.Lot, &a.PostingDate)
	c.At = at(t)
	if err == nil && key != nil {
		if c.Key, err = factkey.FromBytes(key); err != nil {
			err = fmt.Errorf("stored correction %d: %w", c.ID, err)
		}
	}
	return c, err
}

// Correction returns the last correction of a posting, nil when there is none.
func (s *Store) Correction(ctx context.Context, factID int64) (*Correction, error) {
	return lastCorrection(ctx, s, factID)
}

// Correction is Store.Correction inside a transaction.
func (tx *Tx) Correction(factID int64) (*Correction, error) {
	return lastCorrection(tx.ctx, tx, factID)
}

func lastCorrection(ctx context.Context, db querier, factID int64) (*Correction, error) {
	c, err := optionalRow(lookup(ctx, db, scanCorrection, correctionColumns+" WHERE fact_id = $1 ORDER BY id DESC LIMIT 1", factID))
	if err != nil {
		return nil, fmt.Errorf("read what was corrected: %w", err)
	}
	return c, nil
}

// Corrections returns all corrections of a posting, oldest first.
func (s *Store) Corrections(ctx context.Context, factID int64) ([]Correction, error) {
	all, err := collect(ctx, s, scanCorrection, correctionColumns+" WHERE fact_id = $1 ORDER BY id", factID)
	if err != nil {
		return nil, fmt.Errorf("read what was corrected: %w", err)
	}
	return all, nil
}

// Shared reports that a posting is made together with others as one document, which is of all of them.
func (tx *Tx) Shared(factID int64) (bool, error) {
	n, err := first(tx.ctx, tx, scanValue[int64], "SELECT COUNT(*) FROM aggregate_members WHERE fact_id = $1", factID)
	return n > 0, err
}

// AddCorrection stores a correction, with its number and time.
func (tx *Tx) AddCorrection(c *Correction) error {
	var key []byte
	if !c.Key.IsZero() {
		key = c.Key[:]
	}
	c.At = tx.now
	b, a := c.Before, c.After
	res, err := tx.exec(`INSERT INTO corrections (fact_id, at, by_whom, note, key, old_order_no, old_item, old_lot, old_posting_date,
		new_order_no, new_item, new_lot, new_posting_date) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`,
		c.FactID, us(tx.now), c.By, c.Note, key, b.OrderNo, b.Item, b.Lot, b.PostingDate, a.OrderNo, a.Item, a.Lot, a.PostingDate)
	if err == nil {
		c.ID, err = res.LastInsertId()
	}
	return err
}

// Exchange is one request to an outside system and its answer, as they may be shown: without secrets, and cut to a size.
type Exchange struct {
	Purpose string    `json:"-"` // post, look up, read back
	At      time.Time `json:"at"`
	Method  string    `json:"method"`
	Address string    `json:"address"`
	Request string    `json:"request,omitempty"`
	Status  string    `json:"status,omitempty"`
	Answer  string    `json:"answer,omitempty"`
	Cut     bool      `json:"cut,omitempty"`
}

// PutExchanges keeps what was said about a posting for one purpose, in place of what was said before.
func (tx *Tx) PutExchanges(factID int64, purpose string, all []Exchange) error {
	body, err := json.Marshal(all)
	if err != nil {
		return nil // evidence is no reason for a posting to fail
	}
	_, err = tx.exec(`INSERT INTO exchanges (fact_id, purpose, at, body) VALUES ($1, $2, $3, $4)
		ON CONFLICT (fact_id, purpose) DO UPDATE SET at = excluded.at, body = excluded.body`, factID, purpose, us(tx.now), string(body))
	return err
}

// Exchanges returns what was said with the outside system about a posting, oldest first.
func (s *Store) Exchanges(ctx context.Context, factID int64) (all []Exchange, err error) {
	return readExchanges(ctx, s, "SELECT purpose, body FROM exchanges WHERE fact_id = $1 ORDER BY at, purpose", factID)
}

func readExchanges(ctx context.Context, s *Store, q string, id int64) (all []Exchange, err error) {
	type row struct{ purpose, body string }
	rows, err := collect(ctx, s, func(r *sql.Rows) (x row, err error) { return x, r.Scan(&x.purpose, &x.body) }, q, id)
	if err != nil {
		return nil, fmt.Errorf("read exchanges: %w", err)
	}
	for _, x := range rows {
		var some []Exchange
		if err := json.Unmarshal([]byte(x.body), &some); err != nil {
			return nil, fmt.Errorf("stored exchange of %d: %w", id, err)
		}
		for _, e := range some {
			e.Purpose = x.purpose
			all = append(all, e)
		}
	}
	return all, nil
}

// TrimExchanges lets go of at most limit exchanges from before a time of postings that are settled, and returns how many.
func (s *Store) TrimExchanges(ctx context.Context, before time.Time, limit int) (n int64, err error) {
	err = s.Update(ctx, func(tx *Tx) error {
		res, err := tx.exec(`DELETE FROM exchanges WHERE rowid IN (SELECT e.rowid FROM exchanges e CROSS JOIN postings p ON p.fact_id = e.fact_id
			WHERE e.at < $1 AND p.state IN ('verified', 'not_posted', 'settled') ORDER BY e.at LIMIT $2)`, us(before), limit)
		if err == nil {
			n, err = res.RowsAffected()
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("let old exchanges go: %w", err)
	}
	return n, nil
}

// Replay takes parked postings up again, one after the other and not faster than PerMinute.
type Replay struct {
	ID        int64
	At        time.Time
	By, Note  string
	Filter    PostingFilter
	PerMinute int
	State     ReplayState
	// Total is how many postings matched when it began; those that are parked later are not taken. LastID is the last of them.
	Total  int64
	LastID int64
	// AfterID is the last posting that was taken up or left out, Taken and Skipped count them.
	AfterID        int64
	Taken, Skipped int64
	NextAt         time.Time
	EndedAt        time.Time
	Reason         string
}

// ReplayState is where a replay stands.
type ReplayState string

// The states of a replay.
const (
	ReplayRunning   ReplayState = "running"
	ReplayDone      ReplayState = "done"
	ReplayCancelled ReplayState = "cancelled"
)

const replayColumns = `SELECT id, at, by_whom, note, filter, per_minute, state, total, last_id, after_id, taken, skipped, next_at, ended_at, reason FROM replays`

func scanReplay(r *sql.Rows) (x Replay, err error) {
	var t, next, ended int64
	var filter string
	err = r.Scan(&x.ID, &t, &x.By, &x.Note, &filter, &x.PerMinute, &x.State, &x.Total, &x.LastID, &x.AfterID, &x.Taken, &x.Skipped, &next, &ended, &x.Reason)
	x.At, x.NextAt, x.EndedAt = at(t), at(next), at(ended)
	if err == nil {
		err = json.Unmarshal([]byte(filter), &x.Filter)
	}
	return x, err
}

// BeginReplay stores a replay of all postings that are parked now and match. It sets its number, time, total and last posting.
func (s *Store) BeginReplay(ctx context.Context, r *Replay) error {
	r.Filter.State = PostingParked
	filter, err := json.Marshal(r.Filter)
	if err != nil {
		return err
	}
	err = s.Update(ctx, func(tx *Tx) error {
		var w where
		r.Filter.where(&w)
		type span struct{ n, last int64 }
		all, err := first(tx.ctx, tx, func(q *sql.Rows) (x span, err error) { return x, q.Scan(&x.n, &x.last) },
			"SELECT COUNT(*), COALESCE(MAX(p.fact_id), 0) FROM postings p"+w.String(), w.args...)
		if err != nil {
			return err
		}
		r.At, r.State, r.Total, r.LastID = tx.now, ReplayRunning, all.n, all.last
		res, err := tx.exec("INSERT INTO replays (at, by_whom, note, filter, per_minute, state, total, last_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
			us(tx.now), r.By, r.Note, string(filter), r.PerMinute, string(r.State), r.Total, r.LastID)
		if err == nil {
			r.ID, err = res.LastInsertId()
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("begin replay: %w", err)
	}
	return nil
}

// PutReplay stores how far a replay is, unless somebody cancelled it meanwhile: then it returns ErrNotFound.
func (s *Store) PutReplay(ctx context.Context, r Replay) error {
	return s.Update(ctx, func(tx *Tx) error {
		ended := int64(0)
		if r.State != ReplayRunning {
			ended = us(tx.now)
		}
		return mustChange(tx.exec(`UPDATE replays SET state = $2, after_id = $3, taken = $4, skipped = $5, next_at = $6, ended_at = $7, reason = $8
			WHERE id = $1 AND state = 'running'`, r.ID, string(r.State), r.AfterID, r.Taken, r.Skipped, us(r.NextAt), ended, r.Reason))
	})
}

// CancelReplay ends a replay; what it has taken up already goes on. ErrNotFound when none runs under that number.
func (s *Store) CancelReplay(ctx context.Context, id int64, by, note string) error {
	return s.Update(ctx, func(tx *Tx) error {
		return mustChange(tx.exec("UPDATE replays SET state = 'cancelled', ended_at = $2, reason = $3 WHERE id = $1 AND state = 'running'", id, us(tx.now), note+" ("+by+")"))
	})
}

// RunningReplays lists the replays that are not at their end, oldest first.
func (s *Store) RunningReplays(ctx context.Context) ([]Replay, error) {
	return collect(ctx, s, scanReplay, replayColumns+" WHERE state = 'running' ORDER BY id")
}

// Replays lists replays, newest first.
func (s *Store) Replays(ctx context.Context, page Page) ([]Replay, error) {
	return collect(ctx, s, scanReplay, replayColumns+" WHERE id < $1 ORDER BY id DESC LIMIT $2", page.before(), page.limit())
}

// NextParked returns the key of the first parked posting that matches a replay and was not taken up by it. ErrNotFound when
// there is none.
func (s *Store) NextParked(ctx context.Context, r Replay) (id int64, key factkey.Key, err error) {
	var w where
	w.and("p.fact_id > ?", r.AfterID)
	w.and("p.fact_id <= ?", r.LastID)
	r.Filter.where(&w)
	id, err = first(ctx, s, scanValue[int64], "SELECT p.fact_id FROM postings p"+w.String()+" ORDER BY p.fact_id LIMIT 1", w.args...)
	if err != nil {
		return 0, key, err
	}
	f, err := s.FactByID(ctx, id)
	if errors.Is(err, ErrNotFound) {
		err = fmt.Errorf("fact %d of a posting is not there", id)
	}
	return id, f.Fact.Key, err
}
