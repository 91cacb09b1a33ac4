package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/reconcile"
)

// ofWrites is the condition of discrepancies about writes.
const ofWrites = "type IN ('write_missing', 'write_differs')"

// VerifiedLanes lists the lanes of writes that were verified in a time; from is included, to is not.
func (s *Store) VerifiedLanes(ctx context.Context, from, to time.Time) ([]WriteLane, error) {
	all, err := collect(ctx, s, scanLane, "SELECT DISTINCT erp, lane FROM business_writes WHERE state = 'verified' AND since >= $1 AND since < $2 ORDER BY erp, lane", us(from), us(to))
	if err != nil {
		return nil, fmt.Errorf("list lanes of writes to be read back: %w", err)
	}
	return all, nil
}

func scanLane(r *sql.Rows) (l WriteLane, err error) { return l, r.Scan(&l.ERP, &l.Lane) }

// Thread returns all writes of a lane, settled ones too, oldest first.
func (s *Store) Thread(ctx context.Context, l WriteLane) ([]Write, error) {
	all, err := collect(ctx, s, scanWrite, writeColumns+" WHERE w.erp = $1 AND w.lane = $2 ORDER BY w.id", l.ERP, l.Lane)
	if err != nil {
		return nil, fmt.Errorf("read all writes of lane %q of %q: %w", l.Lane, l.ERP, err)
	}
	return all, nil
}

// WriteByKey returns the write with a key, as text.
func (s *Store) WriteByKey(ctx context.Context, key string) (Write, error) {
	return first(ctx, s, scanWrite, writeColumns+" WHERE w.key = $1", key)
}

// WriteDiscrepancies lists the live discrepancies about writes.
func (s *Store) WriteDiscrepancies(ctx context.Context) ([]reconcile.Discrepancy, error) {
	all, err := collect(ctx, s, scanDiscrepancy, "SELECT id, body FROM discrepancies WHERE closed_at = 0 AND "+ofWrites+" ORDER BY id")
	if err != nil {
		return nil, fmt.Errorf("list discrepancies of writes: %w", err)
	}
	return all, nil
}

// Maker returns the write that made the object which somebody named at a time, by its number or its technical key. ErrNotFound when
// no write did.
func (s *Store) Maker(ctx context.Context, erp string, kind object.BusinessKind, name string, at time.Time) (Write, error) {
	id, err := first(ctx, s, scanValue[int64], `SELECT write_id FROM (
		SELECT write_id, at FROM business_write_former WHERE erp = $1 AND kind = $2 AND document = $3 AND document <> ''
		UNION ALL SELECT write_id, at FROM business_write_former WHERE erp = $1 AND kind = $2 AND document_id = $3 AND document_id <> '') AS named
		WHERE at >= $4 ORDER BY at, write_id LIMIT 1`, erp, string(kind), name, us(at))
	if errors.Is(err, ErrNotFound) {
		id, err = first(ctx, s, scanValue[int64], `SELECT id FROM (
			SELECT id, object FROM business_writes WHERE erp = $1 AND kind = $2 AND document = $3 AND document <> ''
			UNION ALL SELECT id, object FROM business_writes WHERE erp = $1 AND kind = $2 AND document_id = $3 AND document_id <> '') AS made
			WHERE object = '' ORDER BY id LIMIT 1`, erp, string(kind), name)
	}
	if err != nil {
		return Write{}, err
	}
	return s.WriteByID(ctx, id)
}

// FormerDocument is the number that a write had before it was brought forward the first time; empty when it never was,
// or had none but its technical key.
func (s *Store) FormerDocument(ctx context.Context, id int64) (string, error) {
	text, err := first(ctx, s, scanValue[string], "SELECT document FROM business_write_former WHERE write_id = $1 AND document <> document_id ORDER BY at LIMIT 1", id)
	if errors.Is(err, ErrNotFound) {
		return "", nil
	}
	return text, err
}

// KeepFormer keeps the names that a write has now, before it is brought forward.
func (tx *Tx) KeepFormer(w Write) error {
	_, err := tx.exec("INSERT INTO business_write_former (write_id, erp, kind, document, document_id, at) VALUES ($1, $2, $3, $4, $5, $6)",
		w.ID, w.ERP, string(w.Want.Kind), w.Document, w.DocumentID, us(tx.now))
	return err
}

// Renamed returns the write that made the object which had a name before it was brought forward under another; ok is false when none
// did, or it has the name again.
func (tx *Tx) Renamed(erp string, kind object.BusinessKind, name string) (w Write, ok bool, err error) {
	id, err := first(tx.ctx, tx, scanValue[int64], `SELECT write_id FROM (
		SELECT write_id, at FROM business_write_former WHERE erp = $1 AND kind = $2 AND document = $3 AND document <> ''
		UNION ALL SELECT write_id, at FROM business_write_former WHERE erp = $1 AND kind = $2 AND document_id = $3 AND document_id <> '') AS named
		ORDER BY at DESC, write_id LIMIT 1`, erp, string(kind), name)
	if errors.Is(err, ErrNotFound) {
		return w, false, nil
	}
	if err != nil {
		return w, false, err
	}
	w, err = tx.WriteByID(id)
	return w, err == nil && w.Document != name && w.DocumentID != name, err
}

// BroughtForward reports that a write was verified once and brought forward since.
func (tx *Tx) BroughtForward(id int64) (bool, error) {
	n, err := first(tx.ctx, tx, scanValue[int], "SELECT COUNT(*) FROM business_write_former WHERE write_id = $1", id)
	return n > 0, err
}

// The codes of verified writes that do not stand any more; the discrepancy says more.
const (
	CodeWriteMissing = string(reconcile.WriteMissing)
	CodeWriteDiffers = string(reconcile.WriteDiffers)
)

// CheckedWrite is a write that was compared, as it was read before, and what was found of it.
type CheckedWrite struct {
	Write
	Found *reconcile.Finding
}

// MergeWrites brings the discrepancies of writes that were compared up to date, and says in each write that does not stand that it
// does not, in one transaction. What has changed meanwhile was not compared. It returns what changed, with the ids.
func (s *Store) MergeWrites(ctx context.Context, all []CheckedWrite, p reconcile.Policy) (changes []reconcile.Change, err error) {
	err = s.Update(ctx, func(tx *Tx) error {
		var known []reconcile.Discrepancy
		var found []reconcile.Finding
		used, err := tx.healed("")
		used.Order = 0
		for _, x := range all {
			if err != nil {
				return err
			}
			var now Write
			if now, err = tx.WriteByID(x.ID); err != nil || now.State != x.State || !now.Since.Equal(x.Since) {
				continue
			}
			subject := reconcile.WriteSubject(x.Key.String())
			var old []reconcile.Discrepancy
			if old, err = collect(tx.ctx, tx, scanDiscrepancy, "SELECT id, body FROM discrepancies WHERE "+ofWrites+" AND subject = $1 AND (closed_at = 0 OR state = 'ACCEPTED') ORDER BY id", subject); err != nil {
				continue
			}
			var heals int
			heals, err = first(tx.ctx, tx, scanValue[int], "SELECT COUNT(*) FROM heals h JOIN discrepancies d ON d.id = h.discrepancy_id WHERE d."+ofWrites+" AND d.subject = $1 AND h.books = 1", subject)
			used.Order += heals
			known = append(known, old...)
			if x.Found != nil {
				found = append(found, *x.Found)
			}
			if err == nil && now.State == PostingVerified {
				err = tx.tellOfWrite(now, x.Found)
			}
		}
		if err != nil {
			return err
		}
		changes = reconcile.Merge(tx.now, known, found, used, p)
		for i := range changes {
			if err := tx.putChange(&changes[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("store discrepancies of writes: %w", err)
	}
	return changes, nil
}

// tellOfWrite lets a verified write say whether it stands.
func (tx *Tx) tellOfWrite(w Write, f *reconcile.Finding) error {
	was := w.Code
	w.Code, w.Reason, w.NextStep = "", "", ""
	step := "stands again"
	if f != nil {
		w.Code, w.Reason, w.NextStep = string(f.Type), fmt.Sprintf("%s says %s, %s: %s", f.Left.Name, f.Left.Value, f.Right.Name, f.Right.Value), f.Proposed.Text
		step = string(f.Type)
	}
	if was == w.Code {
		return nil
	}
	return tx.PutWrite(w, step, "")
}
