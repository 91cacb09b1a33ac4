package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/store/faultvfs"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

const roundsVariable = "LINEKEEPER_ROUNDS" // how long the random tests of the disk run

// random returns a generator whose seed is printed, and taken from LINEKEEPER_SEED when that is set.
func random(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("LINEKEEPER_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Printf("%s: LINEKEEPER_SEED=%d\n", t.Name(), seed)
	return rand.New(rand.NewPCG(seed, seed))
}

func rounds(normal int) int {
	if n, err := strconv.Atoi(os.Getenv(roundsVariable)); err == nil {
		return n
	}
	return normal
}

// holding is what a store must hold.
type holding struct {
	facts  int            // of agent 1, with sequence numbers 1, 2, ...
	cursor int            // of the ERP
	marks  map[string]int // of counters, each written together with the cursor
}

func (h holding) clone() holding {
	h.marks = maps.Clone(h.marks)
	return h
}

// office is a store on a disk that forgets, and what it promised. What goes wrong first is in err.
type office struct {
	t     *testing.T
	rng   *rand.Rand
	disk  *faultvfs.FS
	ahead time.Duration // of the store's clock
	path  string
	s     *store.Store
	agent store.Agent
	now   holding
	maybe []holding // what failed, or has not returned yet
	err   error

	cutAt int    // the operation at which the power fails, counted down
	image string // what it left; empty while there is power
	cuts  int
	fails int
	extra int // updates that were there although nobody was told
}

func newOffice(t *testing.T, rng *rand.Rand) *office {
	disk, err := faultvfs.New(rng)
	if err != nil {
		t.Fatal(err)
	}
	o := &office{t: t, rng: rng, disk: disk, now: holding{marks: map[string]int{}}}
	t.Cleanup(func() {
		_ = o.s.Close()
		if err := disk.Close(); err != nil {
			t.Error(err)
		}
	})
	o.start(t.TempDir())
	if o.err != nil {
		t.Fatal(o.err)
	}
	return o
}

func (o *office) fail(format string, args ...any) {
	if o.err == nil {
		o.err = fmt.Errorf(format, args...)
	}
}

func (o *office) start(dir string) {
	o.path = filepath.Join(dir, "hub.db")
	s, err := store.Open(o.t.Context(), o.path, store.Options{
		VFS: o.disk.Name(), Now: func() time.Time { return time.Now().Add(o.ahead) },
	})
	if err != nil {
		o.fail("open after cut %d: %w", o.cuts, err)
		return
	}
	o.s, o.agent = s, agent(o.t, s, "ulm", "a1")
}

// operation is asked by the disk: it may be the one at which the power fails.
func (o *office) operation(op faultvfs.Op, _ string) faultvfs.Code {
	if op == faultvfs.Read {
		return faultvfs.OK
	}
	if o.cutAt--; o.cutAt == 0 {
		o.image = o.t.TempDir()
		if err := o.disk.Crash(o.rng, o.path, o.image); err != nil {
			o.fail("%w", err)
		}
	}
	return faultvfs.OK
}

func (o *office) do(want holding, fn func() error) {
	o.maybe = append(o.maybe, want)
	err := fn()
	switch {
	case o.image != "":
	case err != nil:
		o.fails++
		if text := err.Error(); !strings.Contains(text, o.path) || !strings.Contains(text, "by itself") {
			o.fail("the error does not name the store and what to do: %w", err)
		}
	default:
		o.now, o.maybe = want, nil
	}
}

func (o *office) record(n int) store.Record { return record(o.t, confirmation(n, "1")) }

func (o *office) appendFacts() {
	want := o.now.clone()
	first := want.facts + 1
	want.facts += 1 + o.rng.IntN(30)
	batch := store.Batch{AgentID: o.agent.ID, Agent: o.agent.Name(), Generation: "g1", FirstSeq: uint64(first)}
	for n := first; n <= want.facts; n++ {
		batch.Records = append(batch.Records, o.record(n))
	}
	o.do(want, func() error {
		verdicts, err := o.s.AppendFacts(o.t.Context(), []store.Batch{batch})
		for _, v := range verdicts {
			for _, v := range v {
				// What failed, or was cut off, before may have been stored all the same.
				if v.Kind != store.Duplicate {
					o.fail("record %d: %s", v.Seq, v.Reason)
				}
			}
		}
		return err
	})
}

func (o *office) update() {
	want := o.now.clone()
	want.cursor++
	tag := strconv.Itoa(o.rng.IntN(50))
	want.marks[tag] = want.cursor
	o.do(want, func() error {
		return o.s.Update(o.t.Context(), func(tx *store.Tx) error {
			cursor := strconv.Itoa(want.cursor)
			if err := tx.SetCursor("erp", cursor+strings.Repeat("c", o.rng.IntN(3000))); err != nil {
				return err
			}
			return tx.SetMark(store.Mark{Plant: "ulm", Source: "press1", Tag: tag, Epoch: "e1", AgentID: o.agent.ID, CounterTo: cursor})
		})
	})
}

// checkpoint copies the log into the database, as now and then happens by itself.
func (o *office) checkpoint() {
	db, err := sql.Open("sqlite", "file:"+o.path+"?vfs="+url.QueryEscape(o.disk.Name())+"&_pragma=synchronous(FULL)")
	if err != nil {
		o.t.Fatal(err)
	}
	defer db.Close()
	_, err = db.Exec("PRAGMA wal_checkpoint(" + []string{"PASSIVE", "FULL", "RESTART", "TRUNCATE"}[o.rng.IntN(4)] + ")")
	if err != nil {
		o.fails++
	}
}

func (o *office) step() {
	switch n := o.rng.IntN(20); {
	case n < 10:
		o.appendFacts()
	case n < 19:
		o.update()
	default:
		o.checkpoint()
	}
}

// difference says in what a store is not as it must be.
func (h holding) difference(ctx context.Context, s *store.Store, a store.Agent) error {
	facts, err := s.FactsAfter(ctx, 0, 1<<30)
	if err != nil {
		return err
	}
	positions, err := s.Positions(ctx, a.ID)
	if err != nil {
		return err
	}
	last := uint64(0)
	if len(positions) > 0 {
		last = positions[0].Seq
	}
	keys := map[factkey.Key]bool{}
	for _, f := range facts {
		keys[f.Fact.Key] = true
	}
	if len(facts) != h.facts || len(keys) != h.facts || last != uint64(h.facts) {
		return fmt.Errorf("%d facts with %d keys up to record %d, want %d", len(facts), len(keys), last, h.facts)
	}
	cursor, err := s.Cursor(ctx, "erp")
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if got := strings.TrimRight(cursor.Cursor, "c"); got != strconv.Itoa(h.cursor) && h.cursor > 0 {
		return fmt.Errorf("cursor %s, want %d", got, h.cursor)
	}
	marks, err := s.Marks(ctx, a.ID)
	if err != nil {
		return err
	}
	got := map[string]int{}
	for _, m := range marks {
		got[m.Tag], _ = strconv.Atoi(m.CounterTo)
	}
	if !maps.Equal(got, h.marks) {
		return fmt.Errorf("marks %v, want %v", got, h.marks)
	}
	return nil
}

// adopt finds out which of the possible holdings the store has.
func (o *office) adopt(after string) {
	if o.err != nil {
		return
	}
	var differences []error
	for i, h := range append([]holding{o.now}, o.maybe...) {
		err := h.difference(o.t.Context(), o.s, o.agent)
		if err == nil {
			o.extra += min(i, 1)
			o.now, o.maybe = h, nil
			return
		}
		differences = append(differences, err)
	}
	o.fail("after %s: %w", after, errors.Join(differences...))
}

// check compares the running store, and asks SQLite for its own opinion.
func (o *office) check() {
	if err := o.now.difference(o.t.Context(), o.s, o.agent); err != nil {
		o.fail("%w", err)
	}
	db, err := sql.Open("sqlite", "file:"+o.path+"?vfs="+url.QueryEscape(o.disk.Name()))
	if err != nil {
		o.t.Fatal(err)
	}
	defer db.Close()
	var verdict string
	if err := db.QueryRow("PRAGMA integrity_check").Scan(&verdict); err != nil || verdict != "ok" {
		o.fail("the database says %q (%w)", verdict, err)
	}
}

// cut runs the store until the power fails, and then starts on what is left.
func (o *office) cut() {
	o.cutAt = 1 + o.rng.IntN(80)
	o.disk.Before(o.operation)
	for o.image == "" && o.err == nil {
		o.step()
	}
	o.disk.Before(nil)
	if o.err != nil {
		return
	}
	_ = o.s.Close() // the process that is gone: it only frees its lock
	o.cuts++
	image := o.image
	o.image = ""
	o.start(image)
	o.adopt("cut " + strconv.Itoa(o.cuts))
	o.check()
}

// The power fails before any operation on the disk, also those of checkpoints: every commit that returned nil is there, none
// is there in part, the database is whole and opens again.
func TestPowerCutLosesNoCommit(t *testing.T) {
	o := newOffice(t, random(t))
	for o.cuts < rounds(40) && o.err == nil {
		o.cut()
	}
	t.Logf("%d cuts, %d facts, %d updates; %d were there although nobody was told", o.cuts, o.now.facts, o.now.cursor, o.extra)
	if o.err != nil {
		t.Fatal(o.err)
	}
}

// The test above is worth something only if it finds a store whose disk forgets what it promised to keep.
func TestPowerCutOnADiskThatLiesIsNoticed(t *testing.T) {
	o := newOffice(t, random(t))
	o.disk.Lie(true)
	for o.cuts < 30 && o.err == nil {
		o.cut()
	}
	if o.err == nil {
		t.Errorf("%d cuts on a disk that synced nothing were not noticed", o.cuts)
	}
}

// While the disk fails, or is full, callers get errors and nothing is acknowledged; as soon as it is well, the same open store
// goes on by itself.
func TestFailingDiskIsToldToTheCallerAndTheStoreGoesOn(t *testing.T) {
	o := newOffice(t, random(t))
	faults := map[string]func(){
		"log: sync":       func() { o.disk.Fail(faultvfs.SyncFail, "-wal", faultvfs.Sync) },
		"log: write":      func() { o.disk.Fail(faultvfs.WriteFail, "-wal", faultvfs.Write) },
		"log: full":       func() { o.disk.Fail(faultvfs.FullDisk, "-wal", faultvfs.Write) },
		"database: sync":  func() { o.disk.Fail(faultvfs.SyncFail, ".db", faultvfs.Sync) },
		"database: write": func() { o.disk.Fail(faultvfs.WriteFail, ".db", faultvfs.Write) },
		"truncate":        func() { o.disk.Fail(faultvfs.CutFail, "", faultvfs.Truncate) },
		"full":            func() { o.disk.Full(true) },
		"everything":      func() { o.disk.Fail(faultvfs.WriteFail, "", faultvfs.Write, faultvfs.Sync, faultvfs.Truncate) },
		"reads too": func() {
			o.disk.Fail(faultvfs.ReadFault, "", faultvfs.Read, faultvfs.Write, faultvfs.Sync, faultvfs.Truncate)
		},
	}
	told := map[string]int{}
	for range rounds(12) {
		for name, begin := range faults {
			begin()
			before := o.fails
			for range 1 + o.rng.IntN(6) {
				o.step()
			}
			if o.rng.IntN(2) == 0 {
				o.checkpoint()
			}
			told[name] += o.fails - before
			o.disk.Before(nil)
			o.disk.Full(false)
			before = o.fails
			o.update()
			if o.fails > before {
				o.fail("%s: the store did not go on", name)
			}
			if o.rng.IntN(10) == 0 {
				o.cut()
			} else {
				o.check()
			}
			if o.err != nil {
				t.Fatalf("%s: %v", name, o.err)
			}
		}
	}
	t.Logf("errors told: %v; %d cuts, %d facts, %d updates", told, o.cuts, o.now.facts, o.now.cursor)
	for name := range faults {
		if told[name] == 0 && name != "truncate" {
			t.Errorf("fault %q was never met: the test did not test", name)
		}
	}
}

// Whoever watches the hub learns from its readiness that the disk is full, and that it is well again.
func TestFullDiskIsVisibleUntilItIsOver(t *testing.T) {
	o := newOffice(t, random(t))
	if err := o.s.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.disk.Full(true)
	for o.fails == 0 {
		o.update()
	}
	if err := o.s.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "the disk is full: free some of it") {
		t.Errorf("on a full disk the store says %v", err)
	}
	o.disk.Full(false)
	if err := o.s.Ping(t.Context()); err == nil {
		t.Error("one small write is no proof that there is room, and the store says that it is well")
	}
	o.update()
	if err := o.s.Ping(t.Context()); err != nil {
		t.Errorf("after a write went well the store says %v", err)
	}
	o.disk.Full(true)
	for before := o.fails; o.fails == before; {
		o.update()
	}
	o.disk.Full(false)
	o.ahead = 2 * time.Minute
	if err := o.s.Ping(t.Context()); err != nil {
		t.Errorf("when nothing failed for a minute the store says %v", err)
	}
	o.check()
	if o.err != nil {
		t.Error(o.err)
	}
}
