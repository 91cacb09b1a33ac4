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
	"github.com/linekeeper/linekeeper/hub/wire"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// Write is a business object as somebody wants it to be in an outside system, and how far that is. Its states are those of a
// posting.
type Write struct {
	ID  int64
	Key factkey.Key
	ERP string
	// Lane is the thread of objects that belong together: their writes go one after the other. Object is the one that is moved on,
	// empty for a new one: a write waits for the earlier ones of its object, parked ones too.
	Lane, Object string
	Want         object.Business
	// Hash is of everything that was asked for: the same key with another one is another write.
	Hash        []byte
	PostingDate string // 2026-11-26, for the books; empty leaves it to the system
	Accept      []string
	By          string
	MadeAt      time.Time

	State    PostingState
	Class    string
	Code     string
	Reason   string
	NextStep string
	// Attempt counts what was sent, Tries the attempts of the present step (for the back-off).
	Attempt, Tries int
	Intent         []byte
	Document       string
	DocumentID     string
	Since, NextAt  time.Time
}

// WriteLane is a thread of one system's objects.
type WriteLane struct{ ERP, Lane string }

const writeColumns = `SELECT w.id, w.key_bytes, w.erp, w.lane, w.object, w.body, w.hash, w.posting_date, w.accept, w.by_whom, w.made_at, w.state, w.class, w.code,
	w.reason, w.next_step, w.document, w.document_id, w.intent, w.attempt, w.tries, w.since, w.next_at FROM business_writes w`

func scanWrite(r *sql.Rows) (w Write, err error) {
	var key []byte
	var body, accept string
	var made, since, next int64
	err = r.Scan(&w.ID, &key, &w.ERP, &w.Lane, &w.Object, &body, &w.Hash, &w.PostingDate, &accept, &w.By, &made, &w.State, &w.Class, &w.Code,
		&w.Reason, &w.NextStep, &w.Document, &w.DocumentID, &w.Intent, &w.Attempt, &w.Tries, &since, &next)
	if err != nil {
		return w, err
	}
	w.MadeAt, w.Since, w.NextAt, w.Accept = at(made), at(since), at(next), strings.Fields(accept)
	if w.Key, err = factkey.FromBytes(key); err == nil {
		w.Want, err = wire.DecodeBusiness([]byte(body))
	}
	if err != nil {
		return w, fmt.Errorf("stored write %d: %w", w.ID, err)
	}
	return w, nil
}

// AddWrite stores a new write as due, with its lane.
func (tx *Tx) AddWrite(w *Write) error {
	body, err := wire.EncodeBusiness(w.Want)
	if err != nil {
		return err
	}
	tx.touch(TopicWrites)
	w.MadeAt, w.Since, w.NextAt, w.State = tx.now, tx.now, tx.now, PostingDue
	res, err := tx.exec(`INSERT INTO business_writes (key, key_bytes, erp, kind, lane, object, body, hash, posting_date, accept, by_whom, made_at, state, since, next_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $12, $12)`, w.Key.String(), w.Key[:], w.ERP, string(w.Want.Kind), w.Lane, w.Object,
		string(body), w.Hash, w.PostingDate, strings.Join(w.Accept, " "), w.By, us(tx.now), string(w.State))
	if err != nil {
		return err
	}
	if w.ID, err = res.LastInsertId(); err != nil {
		return err
	}
	return tx.addWriteStep(*w, "due", w.By)
}

// PutWrite stores a write that changed; a step that is not empty goes into its life, with who made it.
func (tx *Tx) PutWrite(w Write, step, by string) error {
	tx.touch(TopicWrites)
	_, err := tx.exec(`UPDATE business_writes SET accept = $1, state = $2, class = $3, code = $4, reason = $5, next_step = $6, document = $7, document_id = $8,
		intent = $9, attempt = $10, tries = $11, since = $12, next_at = $13 WHERE id = $14`, strings.Join(w.Accept, " "), string(w.State), w.Class, w.Code, w.Reason, w.NextStep,
		w.Document, w.DocumentID, w.Intent, w.Attempt, w.Tries, us(w.Since), us(w.NextAt), w.ID)
	if err != nil || step == "" {
		return err
	}
	return tx.addWriteStep(w, step, by)
}

func (tx *Tx) addWriteStep(w Write, step, by string) error {
	_, err := tx.exec("INSERT INTO business_write_steps (write_id, at, step, attempt, code, reason, document, by_whom) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
		w.ID, us(tx.now), step, w.Attempt, w.Code, w.Reason, w.Document, by)
	return err
}

// Write returns the write with a key; ok is false when there is none.
func (tx *Tx) Write(key factkey.Key) (w Write, ok bool, err error) {
	w, err = first(tx.ctx, tx, scanWrite, writeColumns+" WHERE w.key = $1", key.String())
	if errors.Is(err, ErrNotFound) {
		return w, false, nil
	}
	return w, err == nil, err
}

// WriteByID returns a write.
func (tx *Tx) WriteByID(id int64) (Write, error) {
	return first(tx.ctx, tx, scanWrite, writeColumns+" WHERE w.id = $1", id)
}

// WriteByID returns a write.
func (s *Store) WriteByID(ctx context.Context, id int64) (Write, error) {
	return first(ctx, s, scanWrite, writeColumns+" WHERE w.id = $1", id)
}

// LaneOf returns the lane of the write that made the object with a number or a technical key, empty when none did.
func (tx *Tx) LaneOf(erp string, kind object.BusinessKind, number string) (string, error) {
	lane, err := first(tx.ctx, tx, scanValue[string], `SELECT lane FROM (
		SELECT id, lane FROM business_writes WHERE erp = $1 AND kind = $2 AND document = $3 AND document <> ''
		UNION ALL SELECT id, lane FROM business_writes WHERE erp = $1 AND kind = $2 AND document_id = $3 AND document_id <> '') AS made ORDER BY id LIMIT 1`,
		erp, string(kind), number)
	if errors.Is(err, ErrNotFound) {
		return "", nil
	}
	return lane, err
}

// laneWrites is the query of LaneWrites.
// openWrites is the condition of the partial indexes, word for word.
const openWrites = "w.state NOT IN ('verified', 'settled')"

const laneWrites = writeColumns + " WHERE w.erp = $1 AND w.lane = $2 AND " + openWrites + " ORDER BY w.id"

// LaneWrites is LaneWrites of the store, in a transaction.
func (tx *Tx) LaneWrites(l WriteLane) ([]Write, error) {
	return collect(tx.ctx, tx, scanWrite, laneWrites, l.ERP, l.Lane)
}

// LaneWrites returns the writes of a lane that are not settled, oldest first: nothing of a lane is done before what is first.
func (s *Store) LaneWrites(ctx context.Context, l WriteLane) ([]Write, error) {
	all, err := collect(ctx, s, scanWrite, laneWrites, l.ERP, l.Lane)
	if err != nil {
		return nil, fmt.Errorf("read the writes of lane %q of %q: %w", l.Lane, l.ERP, err)
	}
	return all, nil
}

// ActiveWriteLanes lists the lanes in which something is to be done.
func (s *Store) ActiveWriteLanes(ctx context.Context) ([]WriteLane, error) {
	all, err := collect(ctx, s, func(r *sql.Rows) (l WriteLane, err error) { return l, r.Scan(&l.ERP, &l.Lane) },
		"SELECT DISTINCT w.erp, w.lane FROM business_writes w WHERE "+openWrites+" AND w.state <> 'parked'")
	if err != nil {
		return nil, fmt.Errorf("list lanes of writes: %w", err)
	}
	return all, nil
}

// SendingWrites lists writes that a hub which died may have been sending.
func (tx *Tx) SendingWrites() ([]Write, error) {
	return collect(tx.ctx, tx, scanWrite, writeColumns+" WHERE w.state = 'sending' AND "+openWrites+" ORDER BY w.id")
}

// WriteFilter chooses writes; empty fields choose all.
type WriteFilter struct {
	ERP, Kind, By, Code string
	State               PostingState
}

// Writes lists writes, newest first. Page.Before is a Write.ID.
func (s *Store) Writes(ctx context.Context, f WriteFilter, page Page) ([]Write, error) {
	var w where
	w.and("w.id < ?", page.before())
	w.andText("w.erp = ?", f.ERP)
	w.andText("w.kind = ?", f.Kind)
	w.andText("w.by_whom = ?", f.By)
	w.andText("w.code = ?", f.Code)
	w.andText("w.state = ?", string(f.State))
	all, err := collect(ctx, s, scanWrite, writeColumns+w.String()+" ORDER BY w.id DESC LIMIT "+fmt.Sprint(page.limit()), w.args...)
	if err != nil {
		return nil, fmt.Errorf("list writes: %w", err)
	}
	return all, nil
}

// WriteStep is one point in the life of a write.
type WriteStep struct {
	At       time.Time
	Step     string
	Attempt  int
	Code     string
	Reason   string
	Document string
	By       string
}

// WriteLife returns a write by its key, with its life and what was said with the outside system about it, oldest first.
func (s *Store) WriteLife(ctx context.Context, key factkey.Key) (w Write, steps []WriteStep, said []Exchange, err error) {
	w, err = first(ctx, s, scanWrite, writeColumns+" WHERE w.key = $1", key.String())
	if err == nil {
		steps, err = collect(ctx, s, func(r *sql.Rows) (x WriteStep, err error) {
			var t int64
			err = r.Scan(&t, &x.Step, &x.Attempt, &x.Code, &x.Reason, &x.Document, &x.By)
			x.At = at(t)
			return x, err
		}, "SELECT at, step, attempt, code, reason, document, by_whom FROM business_write_steps WHERE write_id = $1 ORDER BY id", w.ID)
	}
	if err == nil {
		said, err = s.writeExchanges(ctx, w.ID)
	}
	if err != nil {
		return w, nil, nil, fmt.Errorf("find write %q: %w", key, err)
	}
	return w, steps, said, nil
}

// PutWriteExchanges is PutExchanges for a write.
func (tx *Tx) PutWriteExchanges(id int64, purpose string, all []Exchange) error {
	body, err := json.Marshal(all)
	if err != nil {
		return nil // evidence is no reason for a write to fail
	}
	_, err = tx.exec(`INSERT INTO business_exchanges (write_id, purpose, at, body) VALUES ($1, $2, $3, $4)
		ON CONFLICT (write_id, purpose) DO UPDATE SET at = excluded.at, body = excluded.body`, id, purpose, us(tx.now), string(body))
	return err
}

func (s *Store) writeExchanges(ctx context.Context, id int64) ([]Exchange, error) {
	return readExchanges(ctx, s, "SELECT purpose, body FROM business_exchanges WHERE write_id = $1 ORDER BY at, purpose", id)
}

// TrimWriteExchanges is TrimExchanges for writes.
func (s *Store) TrimWriteExchanges(ctx context.Context, before time.Time, limit int) (n int64, err error) {
	err = s.Update(ctx, func(tx *Tx) error {
		res, err := tx.exec(`DELETE FROM business_exchanges WHERE rowid IN (SELECT e.rowid FROM business_exchanges e JOIN business_writes w ON w.id = e.write_id
			WHERE e.at < $1 AND w.state IN ('verified', 'settled') ORDER BY e.at LIMIT $2)`, us(before), limit)
		if err == nil {
			n, err = res.RowsAffected()
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("let go of old exchanges about writes: %w", err)
	}
	return n, nil
}

// WriteCounts returns how many writes of each system are in each state that is not settled.
func (s *Store) WriteCounts(ctx context.Context) ([]PostingCount, error) {
	all, err := collect(ctx, s, func(r *sql.Rows) (c PostingCount, err error) {
		var oldest int64
		err = r.Scan(&c.ERP, &c.State, &c.Code, &c.Count, &oldest)
		c.Oldest = at(oldest)
		return c, err
	}, "SELECT erp, state, code, COUNT(*), MIN(since) FROM business_writes w WHERE "+openWrites+" GROUP BY erp, state, code ORDER BY erp, state, code")
	if err != nil {
		return nil, fmt.Errorf("count writes: %w", err)
	}
	return all, nil
}
