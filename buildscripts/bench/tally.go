package main

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"

	"google.golang.org/protobuf/proto"
	_ "modernc.org/sqlite" // the hub's store

	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// tally is what became of the published messages, by their own ids.
type tally struct{ published, stored, missing, doubled int }

func (t tally) String() string {
	return fmt.Sprintf("at the hub: published=%d stored=%d missing=%d doubled=%d", t.published, t.stored, t.missing, t.doubled)
}

// exact is 1 when nothing is missing and nothing doubled, else 0.
func (t tally) exact() float64 {
	if t.missing == 0 && t.doubled == 0 && t.stored == t.published {
		return 1
	}
	return 0
}

// tally stops the hub and reads its store.
func (l *benchLine) tally(ctx context.Context) (t tally, err error) {
	hub := l.hub
	l.hub = nil
	if err := hub.end(); err != nil {
		return t, fmt.Errorf("stop the hub: %w", err)
	}
	db, err := sql.Open("sqlite", filepath.Join(l.dir, "data", "hub.db"))
	if err != nil {
		return t, err
	}
	defer db.Close()
	rows, err := db.QueryContext(ctx, "SELECT body FROM facts")
	if err != nil {
		return t, fmt.Errorf("read the hub's store: %w", err)
	}
	defer rows.Close()
	t.published = l.messages
	seen := make(map[string]bool, l.messages)
	for rows.Next() {
		var body sql.RawBytes
		var fact pb.Fact
		if err := rows.Scan(&body); err != nil {
			return t, err
		}
		if err := proto.Unmarshal(body, &fact); err != nil {
			return t, err
		}
		position := fact.GetHeader().GetPosition()
		id := position[strings.LastIndexByte(position, '|')+1:]
		if t.stored++; seen[id] {
			t.doubled++
		}
		seen[id] = true
	}
	for i := range l.messages {
		if !seen[messageID(i)] {
			t.missing++
		}
	}
	return t, rows.Err()
}
