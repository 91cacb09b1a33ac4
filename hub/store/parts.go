package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/linekeeper/linekeeper/proto/factkey"
)

// Part is what a fact takes back of another that has more.
type Part struct {
	FactID, OriginalID int64
	// Taken is what it takes of what was posted, Counted what it says, both above zero.
	Taken, Counted Amounts
	// Own: by a document of its own. Otherwise Document is the one that is taken back whole for it, once that has begun; Ended
	// says that what is left was made due.
	Own      bool
	Document string
	Ended    bool
	Key      factkey.Key // of what is left
}

const partColumns = "SELECT fact_id, original_id, taken, counted, own, document, ended, key FROM part_reversals"

func scanPart(r *sql.Rows) (p Part, err error) {
	var taken, counted string
	var key []byte
	if err = r.Scan(&p.FactID, &p.OriginalID, &taken, &counted, &p.Own, &p.Document, &p.Ended, &key); err != nil {
		return p, err
	}
	copy(p.Key[:], key)
	if err = errors.Join(json.Unmarshal([]byte(taken), &p.Taken), json.Unmarshal([]byte(counted), &p.Counted)); err != nil {
		err = fmt.Errorf("stored part of fact %d: %w", p.OriginalID, err)
	}
	return p, err
}

// PutPart stores a part.
func (tx *Tx) PutPart(p Part) error {
	taken, err := json.Marshal(p.Taken)
	counted, err2 := json.Marshal(p.Counted)
	if err = errors.Join(err, err2); err != nil {
		return err
	}
	var key []byte
	if !p.Key.IsZero() {
		key = p.Key[:]
	}
	_, err = tx.exec(`INSERT INTO part_reversals (fact_id, original_id, taken, counted, own, document, ended, key) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (fact_id) DO UPDATE SET document = excluded.document, ended = excluded.ended, key = excluded.key`,
		p.FactID, p.OriginalID, string(taken), string(counted), p.Own, p.Document, p.Ended, key)
	return err
}

// Part is the part that a fact takes back; nil for one that takes back all, or nothing.
func (tx *Tx) Part(factID int64) (*Part, error) {
	return optionalRow(first(tx.ctx, tx, scanPart, partColumns+" WHERE fact_id = $1", factID))
}

// Part is Tx.Part outside a transaction.
func (s *Store) Part(ctx context.Context, factID int64) (*Part, error) {
	p, err := optionalRow(first(ctx, s, scanPart, partColumns+" WHERE fact_id = $1", factID))
	if err != nil {
		return nil, fmt.Errorf("read what part fact %d takes back: %w", factID, err)
	}
	return p, nil
}

// PartsOf are the parts that facts take back of one, oldest first.
func (tx *Tx) PartsOf(originalID int64) ([]Part, error) {
	return collect(tx.ctx, tx, scanPart, partColumns+" WHERE original_id = $1 ORDER BY fact_id", originalID)
}

// Parted reports whether a posting's document is being taken back whole because a part of it shall go.
func (tx *Tx) Parted(factID int64) (bool, error) {
	n, err := first(tx.ctx, tx, scanValue[int64], `SELECT EXISTS (SELECT 1 FROM part_reversals WHERE document <> '' AND NOT ended AND (original_id = $1
		OR original_id IN (SELECT o.fact_id FROM aggregate_members o JOIN aggregate_members m ON m.aggregate_id = o.aggregate_id WHERE m.fact_id = $1)))`, factID)
	return n != 0, err
}

// leftKeys adds to the facts of an order the keys under which what was left of their documents was posted.
func (s *Store) leftKeys(ctx context.Context, orderNo string, all []OrderFact) error {
	parts, err := collect(ctx, s, scanPart, partColumns+" WHERE key IS NOT NULL AND original_id IN "+factsOfOrder+" ORDER BY fact_id", orderNo)
	for _, p := range parts {
		for i := range all {
			if all[i].id == p.OriginalID {
				all[i].Keys = append(all[i].Keys, p.Key.String())
			}
		}
	}
	return err
}
