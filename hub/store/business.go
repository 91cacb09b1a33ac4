package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/wire"
)

// BusinessObject is the newest revision of a business object as an outside system holds it.
type BusinessObject struct {
	ID     int64
	Object object.Business
	// Key is the system's technical key of it, or its number where it has none.
	Key      string
	Revision int64
	// Seq grows with every revision of every object: whoever has seen everything up to one asks for what is after it.
	Seq       int64
	ChangedAt time.Time // when the hub stored the newest revision
	// GoneAt is when the system was read from the beginning and did not list it; zero while it does.
	GoneAt time.Time
}

const businessColumns = "SELECT o.id, o.object_key, o.revision, o.seq, o.body, o.changed_at, o.gone_at FROM business_objects o"

func scanBusiness(r *sql.Rows) (o BusinessObject, err error) {
	var body string
	var changed, gone int64
	if err := r.Scan(&o.ID, &o.Key, &o.Revision, &o.Seq, &body, &changed, &gone); err != nil {
		return o, err
	}
	o.ChangedAt, o.GoneAt = at(changed), at(gone)
	if o.Object, err = wire.DecodeBusiness([]byte(body)); err != nil {
		return o, fmt.Errorf("stored business object %d: %w", o.ID, err)
	}
	return o, nil
}

// PutBusiness stores an object as a system holds it now, and reports whether that is another content than the hub had: only then
// is there a new revision. When it was changed in the system, and by whom it is held, is no content.
func (tx *Tx) PutBusiness(erp string, b object.Business) (revised bool, err error) {
	body, err := wire.EncodeBusiness(b)
	if err != nil {
		return false, err
	}
	hash, err := contentHash(body)
	if err != nil {
		return false, err
	}
	n := b.Names()
	key := objectKey(n)
	type known struct {
		id, revision int64
		hash         []byte
	}
	old, err := first(tx.ctx, tx, func(r *sql.Rows) (k known, err error) { return k, r.Scan(&k.id, &k.revision, &k.hash) },
		"SELECT id, revision, hash FROM business_objects WHERE erp = $1 AND kind = $2 AND object_key = $3", erp, string(b.Kind), key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return false, err
	}
	if old.id != 0 && bytes.Equal(old.hash, hash) {
		return false, tx.SeenBusiness(erp, b.Kind, key)
	}
	tx.touch(TopicObjects)
	return true, tx.reviseBusiness(erp, b, old.id, old.revision+1, key, hash, body)
}

func (tx *Tx) reviseBusiness(erp string, b object.Business, id, revision int64, key string, hash, body []byte) error {
	n := b.Names()
	if id == 0 {
		res, err := tx.exec(`INSERT INTO business_objects (erp, kind, object_key, number, reference, partner, state, revision, seq, hash, body, revised_at, changed_at, sweep)
			VALUES ($1, $2, $3, '', '', '', '', 0, 0, $4, '', 0, 0, 0)`, erp, string(b.Kind), key, hash)
		if err != nil {
			return err
		}
		if id, err = res.LastInsertId(); err != nil {
			return err
		}
	}
	res, err := tx.exec("INSERT INTO business_revisions (object_id, revision, state, body, at) VALUES ($1, $2, $3, $4, $5)", id, revision, n.State, string(body), us(tx.now))
	if err != nil {
		return err
	}
	seq, err := res.LastInsertId()
	if err != nil {
		return err
	}
	_, err = tx.exec(`UPDATE business_objects SET number = $1, reference = $2, partner = $3, state = $4, revision = $5, seq = $6, hash = $7, body = $8,
		revised_at = $9, changed_at = $10 WHERE id = $11`,
		n.Number, n.Reference, b.Partner(), n.State, revision, seq, hash, string(body), us(n.RevisedAt), us(tx.now), id)
	if err != nil {
		return err
	}
	if err := tx.SeenBusiness(erp, b.Kind, key); err != nil {
		return err
	}
	if _, err := tx.exec("DELETE FROM business_links WHERE object_id = $1", id); err != nil {
		return err
	}
	for _, l := range b.Links() {
		if _, err := tx.exec("INSERT INTO business_links (object_id, erp, kind, number) VALUES ($1, $2, $3, $4)", id, erp, string(l.Kind), l.Number); err != nil {
			return err
		}
	}
	return nil
}

func objectKey(n object.Names) string {
	if n.ERPKey != "" {
		return n.ERPKey
	}
	return n.Number
}

// contentHash is of what an object says.
func contentHash(body []byte) ([]byte, error) {
	b, err := wire.DecodeBusiness(body) // a copy
	if err != nil {
		return nil, err
	}
	*b.Held() = object.Held{}
	content, err := wire.EncodeBusiness(b)
	sum := sha256.Sum256(content)
	return sum[:], err
}

const sweepOfKind = "COALESCE((SELECT c.sweep FROM business_cursors c WHERE c.erp = $1 AND c.kind = $2), 0)"

// SeenBusiness notes that a system lists an object, by its technical key or else its number.
func (tx *Tx) SeenBusiness(erp string, kind object.BusinessKind, key string) error {
	_, err := tx.exec("UPDATE business_objects SET sweep = "+sweepOfKind+", gone_at = 0 WHERE erp = $1 AND kind = $2 AND object_key = $3", erp, string(kind), key)
	return err
}

// BeginSweep notes that a kind is read from the beginning now.
func (tx *Tx) BeginSweep(erp string, kind object.BusinessKind) error {
	_, err := tx.exec("INSERT INTO business_cursors (erp, kind, sweep) VALUES ($1, $2, 1) ON CONFLICT (erp, kind) DO UPDATE SET sweep = business_cursors.sweep + 1", erp, string(kind))
	return err
}

// EndSweep marks the objects of a kind that were not seen since BeginSweep: the system does not have them any more. What is seen
// again is there again. It returns how many there are.
func (tx *Tx) EndSweep(erp string, kind object.BusinessKind) (int64, error) {
	tx.touch(TopicObjects)
	res, err := tx.exec("UPDATE business_objects SET gone_at = $3 WHERE erp = $1 AND kind = $2 AND gone_at = 0 AND sweep < "+sweepOfKind, erp, string(kind), us(tx.now))
	if err != nil {
		return 0, err
	}
	n, err := res.RowsAffected()
	if err == nil {
		_, err = tx.exec("UPDATE business_cursors SET whole_at = $3 WHERE erp = $1 AND kind = $2", erp, string(kind), us(tx.now))
	}
	return n, err
}

// BusinessFilter chooses business objects; empty fields choose all.
type BusinessFilter struct {
	Kind, ERP, Number, Reference, Partner, State string
	// Since chooses those whose newest revision was stored then or later.
	Since time.Time
	// Gone also chooses those that their system does not list any more.
	Gone bool
	// After lists what was revised after that Seq, the oldest first, instead of the newest.
	After int64
	// LinkedTo chooses those that name this object of the ERP.
	LinkedTo object.Link
}

// Business lists business objects, the ones first that changed last. Page.Before is a Seq.
func (s *Store) Business(ctx context.Context, f BusinessFilter, page Page) ([]BusinessObject, error) {
	var w where
	w.and("o.seq < ?", page.before())
	w.andText("o.kind = ?", f.Kind)
	w.andText("o.erp = ?", f.ERP)
	w.andText("o.number = ?", f.Number)
	w.andText("o.reference = ?", f.Reference)
	w.andText("o.partner = ?", f.Partner)
	w.andText("o.state = ?", f.State)
	if !f.Since.IsZero() {
		w.and("o.changed_at >= ?", us(f.Since))
	}
	if !f.Gone {
		w.and("o.gone_at = 0")
	}
	if f.LinkedTo.Number != "" {
		w.and("o.id IN (SELECT l.object_id FROM business_links l WHERE l.erp = ? AND l.kind = ? AND l.number = ?)", f.ERP, string(f.LinkedTo.Kind), f.LinkedTo.Number)
	}
	order := " ORDER BY o.seq DESC LIMIT "
	if f.After > 0 {
		w.and("o.seq > ?", f.After)
		order = " ORDER BY o.seq LIMIT "
	}
	all, err := collect(ctx, s, scanBusiness, businessColumns+w.String()+order+fmt.Sprint(page.limit()), w.args...)
	if err != nil {
		return nil, fmt.Errorf("list business objects: %w", err)
	}
	return all, nil
}

// BusinessRevision is what one revision of an object said.
type BusinessRevision struct {
	Revision int64
	Object   object.Business
	At       time.Time
}

// FindBusiness returns the objects of a system with a number, or the one with that technical key; none is no error.
func (s *Store) FindBusiness(ctx context.Context, erp string, kind object.BusinessKind, number string) ([]BusinessObject, error) {
	all, err := collect(ctx, s, scanBusiness, businessColumns+" WHERE o.erp = $1 AND o.kind = $2 AND o.object_key = $3", erp, string(kind), number)
	if err == nil && len(all) == 0 {
		all, err = collect(ctx, s, scanBusiness, businessColumns+" WHERE o.erp = $1 AND o.kind = $2 AND o.number = $3 ORDER BY o.gone_at <> 0, o.seq DESC", erp, string(kind), number)
	}
	if err != nil {
		return nil, fmt.Errorf("find %s %q of %q: %w", kind, number, erp, err)
	}
	return all, nil
}

// BusinessRevisions returns the revisions of an object, oldest first.
func (s *Store) BusinessRevisions(ctx context.Context, id int64) ([]BusinessRevision, error) {
	return collect(ctx, s, func(r *sql.Rows) (x BusinessRevision, err error) {
		var body string
		var t int64
		if err := r.Scan(&x.Revision, &body, &t); err != nil {
			return x, err
		}
		x.At = at(t)
		if x.Object, err = wire.DecodeBusiness([]byte(body)); err != nil {
			return x, fmt.Errorf("stored revision %d of business object %d: %w", x.Revision, id, err)
		}
		return x, nil
	}, "SELECT revision, body, at FROM business_revisions WHERE object_id = $1 ORDER BY revision", id)
}

// BusinessCursor is how far the hub has read one kind of a system's business objects.
type BusinessCursor struct {
	ERP    string
	Kind   object.BusinessKind
	Cursor string
	// ChangedAt is when it moved, OKAt when the system answered last, FailedAt when it failed since, WholeAt when the kind was
	// last read from its beginning to its end; zero when that never was.
	ChangedAt, OKAt, FailedAt, WholeAt time.Time
	Error                              string
	// Objects is how many there are, those that are gone not among them; only BusinessCursors counts them.
	Objects int64
}

const (
	businessCursorColumns = "SELECT c.erp, c.kind, c.cursor, c.changed_at, c.ok_at, c.failed_at, c.whole_at, c.error, "
	businessObjectsOfIt   = "(SELECT COUNT(*) FROM business_objects o WHERE o.erp = c.erp AND o.kind = c.kind AND o.gone_at = 0)"
	businessCursors       = " FROM business_cursors c"
)

func scanBusinessCursor(r *sql.Rows) (c BusinessCursor, err error) {
	var changed, ok, failed, whole int64
	err = r.Scan(&c.ERP, &c.Kind, &c.Cursor, &changed, &ok, &failed, &whole, &c.Error, &c.Objects)
	c.ChangedAt, c.OKAt, c.FailedAt, c.WholeAt = at(changed), at(ok), at(failed), at(whole)
	return c, err
}

// BusinessCursors lists all kinds that were ever read.
func (s *Store) BusinessCursors(ctx context.Context) ([]BusinessCursor, error) {
	all, err := collect(ctx, s, scanBusinessCursor, businessCursorColumns+businessObjectsOfIt+businessCursors+" ORDER BY c.erp, c.kind")
	if err != nil {
		return nil, fmt.Errorf("list what is read of business objects: %w", err)
	}
	return all, nil
}

// BusinessCursor returns the cursor of a kind; it is empty before the first answer. It is asked for before each page, and so does not
// count the objects.
func (s *Store) BusinessCursor(ctx context.Context, erp string, kind object.BusinessKind) (BusinessCursor, error) {
	c, err := first(ctx, s, scanBusinessCursor, businessCursorColumns+"0"+businessCursors+" WHERE c.erp = $1 AND c.kind = $2", erp, string(kind))
	if errors.Is(err, ErrNotFound) {
		return BusinessCursor{ERP: erp, Kind: kind}, nil
	}
	return c, err
}

// SetBusinessCursor moves the cursor of a kind that was read.
func (tx *Tx) SetBusinessCursor(erp string, kind object.BusinessKind, cursor string) error {
	_, err := tx.exec(`INSERT INTO business_cursors (erp, kind, cursor, changed_at, ok_at) VALUES ($1, $2, $3, $4, $4)
		ON CONFLICT (erp, kind) DO UPDATE SET changed_at = CASE WHEN business_cursors.cursor = excluded.cursor THEN business_cursors.changed_at ELSE excluded.changed_at END,
		cursor = excluded.cursor, ok_at = excluded.ok_at, failed_at = 0, error = ''`, erp, string(kind), cursor, us(tx.now))
	return err
}

// BusinessKey returns the key under which an object of a system is stored that has a technical key or a number; empty when it is not
// known, or the number is that of several.
func (tx *Tx) BusinessKey(erp string, kind object.BusinessKind, name string) (string, error) {
	keys, err := collect(tx.ctx, tx, scanValue[string], `SELECT DISTINCT k FROM (
		SELECT object_key AS k FROM business_objects WHERE erp = $1 AND kind = $2 AND object_key = $3
		UNION ALL SELECT object_key FROM business_objects WHERE erp = $1 AND kind = $2 AND number = $3
		UNION ALL SELECT document_id FROM business_writes WHERE erp = $1 AND kind = $2 AND document = $3 AND document <> '' AND document_id <> '') AS named`, erp, string(kind), name)
	if err != nil || len(keys) != 1 {
		return "", err
	}
	return keys[0], nil
}

// SetBusinessCursorError records that a kind could not be read.
func (s *Store) SetBusinessCursorError(ctx context.Context, erp string, kind object.BusinessKind, reason string) error {
	return s.Update(ctx, func(tx *Tx) error {
		tx.touch(TopicObjects)
		_, err := tx.exec(`INSERT INTO business_cursors (erp, kind, failed_at, error) VALUES ($1, $2, $3, $4)
			ON CONFLICT (erp, kind) DO UPDATE SET failed_at = excluded.failed_at, error = excluded.error`, erp, string(kind), us(tx.now), reason)
		return err
	})
}
