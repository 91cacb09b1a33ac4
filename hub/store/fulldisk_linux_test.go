package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/hub/store"
)

// A real file system without a free block. What was committed is there, the caller is told, and when somebody makes room the
// open store goes on.
func TestRealDiskWithoutRoomLosesNothing(t *testing.T) {
	dir := realparts.SmallDisk(t, "6m")
	if dir == "" {
		return
	}
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, filepath.Join(dir, "hub.db"))
	a := agent(t, s, "ulm", "a1")
	stored := 0
	put := func() error {
		batch := store.Batch{AgentID: a.ID, Agent: a.Name(), Generation: "g1", FirstSeq: uint64(stored) + 1}
		for n := range 100 {
			batch.Records = append(batch.Records, record(t, confirmation(stored+1+n, "1")))
		}
		_, err := s.AppendFacts(t.Context(), []store.Batch{batch})
		if err == nil {
			stored += len(batch.Records)
		}
		return err
	}
	check := func() {
		t.Helper()
		if err := (holding{facts: stored}).difference(t.Context(), s, a); err != nil {
			t.Fatal(err)
		}
	}
	told := 0
	for told < 20 {
		if err := put(); err != nil {
			if told++; !strings.Contains(err.Error(), "by itself") {
				t.Fatalf("the caller is told %v", err)
			}
			if err := s.Ping(t.Context()); err == nil {
				t.Error("the store says that it is well")
			}
			check()
		}
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := errors.Join(put(), s.Ping(t.Context())); err != nil {
			t.Fatalf("there is room again, and the store says %v", err)
		}
	}
	check()
	t.Logf("%d facts stored, %d errors told", stored, told)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
