package ingestbench

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/linekeeper/linekeeper/hub/store"
)

// fill makes a store that holds n facts already, all planned. It goes around the store for speed: the rows are made inside
// SQLite in the order of their keys, so that the index over the keys is written from left to right, and nothing is synced.
// Keys that are hashes then fall everywhere between them.
func fill(ctx context.Context, path string, n int, body []byte) (err error) {
	s, err := store.Open(ctx, path, store.Options{})
	if err != nil {
		return err
	}
	if err := s.Close(); err != nil || n == 0 {
		return err
	}
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(OFF)&_pragma=synchronous(OFF)&_pragma=cache_size(-65536)")
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	for _, q := range []struct {
		text string
		args []any
	}{
		{"INSERT INTO agents (id, plant, agent, delivery_epoch) VALUES (1, 'ulm', 'before', 'before')", nil},
		{"INSERT INTO positions (id, agent_id, stream, generation, seq, changed_at) VALUES (1, 1, 1, 'before', $1, 1)", []any{n}},
		{`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1)
			INSERT INTO facts (id, key, position_id, seq, received_at, body)
			SELECT i, unhex(printf('%010x%010x', i * ((1 << 40) / ($1 + 1)), i)), 1, i, 1, $2 FROM n`, []any{n, body}},
		{"INSERT INTO meta (name, value) VALUES ('planned', $1)", []any{fmt.Sprint(n)}},
	} {
		if _, err := db.ExecContext(ctx, q.text, q.args...); err != nil {
			return fmt.Errorf("fill store with %d facts: %w", n, err)
		}
	}
	// The mode belongs to the file.
	_, err = db.ExecContext(ctx, "PRAGMA journal_mode = WAL")
	return err
}
