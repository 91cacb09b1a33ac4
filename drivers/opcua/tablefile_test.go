package opcua

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func manyItems(n int) table {
	t := table{Endpoint: "opc.tcp://h:1", Started: time.Unix(5, 0).UTC(), Subscription: 7}
	for i := range n {
		t.Items = append(t.Items, tableItem{Handle: uint32(i + 1), ID: uint32(i * 7), Tag: fmt.Sprintf("c%x", i*i*31337), Node: fmt.Sprintf("ns=2;s=Count.%x", i*i*7919)})
	}
	return t
}

func TestALargeTableLiesInAFile(t *testing.T) {
	dir := t.TempDir()
	want := manyItems(10_000)
	s := resumeSubscription(dir, &want, position{next: 9})
	cursor := s.cursor(9)
	if len(cursor) > 200 {
		t.Errorf("the cursor has %d bytes", len(cursor))
	}
	got, p, err := decodeCursor(dir, cursor)
	if err != nil || p.next != 9 {
		t.Fatalf("%v, next %d", err, p.next)
	}
	if d := cmp.Diff(&s.table, got); d != "" {
		t.Error(d)
	}
	files, err := filepath.Glob(filepath.Join(dir, "items", "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("files: %v %v", files, err)
	}
	if err := os.WriteFile(files[0], []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := decodeCursor(dir, cursor); err == nil {
		t.Error("a damaged table is taken")
	}
	s.changed() // mends it
	if _, _, err := decodeCursor(dir, cursor); err != nil {
		t.Error(err)
	}
	if _, _, err := decodeCursor(t.TempDir(), cursor); err == nil {
		t.Error("a missing table is taken")
	}
}

func TestWhereNoFileCanBeWrittenTheCursorHoldsTheTable(t *testing.T) {
	blocked := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	want := manyItems(10_000)
	s := resumeSubscription(blocked, &want, position{next: 9})
	if got, _, err := decodeCursor(blocked, s.cursor(9)); err != nil || len(got.Items) != 10_000 {
		t.Errorf("%d items, %v", len(got.Items), err)
	}
}

func TestOldTablesAreRemoved(t *testing.T) {
	dir := t.TempDir()
	var cursor []byte
	for n := range 3 * keptTables {
		want := manyItems(9000 + n)
		cursor = resumeSubscription(dir, &want, position{}).cursor(1)
	}
	files, err := filepath.Glob(filepath.Join(dir, "items", "*"))
	if err != nil || len(files) != keptTables {
		t.Errorf("%d files, want %d: %v", len(files), keptTables, err)
	}
	if _, _, err := decodeCursor(dir, cursor); err != nil {
		t.Errorf("the newest is gone: %v", err)
	}
}
