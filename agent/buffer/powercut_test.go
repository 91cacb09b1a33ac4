package buffer

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/linekeeper/linekeeper/agent/buffer/faultdisk"
)

const roundsVariable = "LINEKEEPER_ROUNDS" // how long the random tests of the disk run

// holding is what a buffer must hold.
type holding struct {
	records    map[uint64]string // that the hub may not have, by sequence number
	last       uint64
	state      map[string]string
	quarantine []string
	generation string
}

func (h holding) clone() holding {
	h.records, h.state, h.quarantine = maps.Clone(h.records), maps.Clone(h.state), slices.Clone(h.quarantine)
	return h
}

// difference says in what a buffer is not as it must be. Records up to acked may be gone.
func (h holding) difference(b *Buffer, acked uint64) error {
	if g := b.Generation(); h.generation != "" && g != h.generation {
		return fmt.Errorf("generation %s, want %s", g, h.generation)
	}
	state := map[string]string{}
	b.EachState("", func(key string, v []byte) { state[key] = string(v) })
	if !maps.Equal(state, h.state) {
		return fmt.Errorf("state %s", different(state, h.state))
	}
	list, err := b.Quarantined(MaxQuarantined)
	if err != nil {
		return err
	}
	var quarantine []string
	for _, q := range slices.Backward(list) {
		quarantine = append(quarantine, q.Item)
	}
	if !slices.Equal(quarantine, h.quarantine) {
		return fmt.Errorf("quarantine %v, want %v", quarantine, h.quarantine)
	}
	return h.differentRecords(b, acked)
}

func (h holding) differentRecords(b *Buffer, acked uint64) error {
	next := uint64(0)
	for {
		entries, err := b.Read(next, 100, 1<<20)
		if err != nil {
			return err
		}
		if len(entries) == 0 {
			break
		}
		for _, e := range entries {
			if next > 0 && e.Seq != next+1 || next == 0 && e.Seq > acked+1 {
				return fmt.Errorf("record %d comes after %d, %d is acknowledged", e.Seq, next, acked)
			}
			if want, ok := h.records[e.Seq]; !ok || want != string(e.Body) {
				return fmt.Errorf("record %d is %.40q, want %.40q", e.Seq, e.Body, want)
			}
			next = e.Seq
		}
	}
	if next < h.last && h.last > acked {
		return fmt.Errorf("records end at %d, %d was promised, %d is acknowledged", next, h.last, acked)
	}
	return nil
}

// plant is a buffer on a disk that forgets, and what it promised. What goes wrong first is in err.
type plant struct {
	t     *testing.T
	rng   *rand.Rand
	disk  *faultdisk.Disk
	lies  bool // the disk says that it synced, and did not
	b     *Buffer
	now   holding   // promised
	maybe []holding // a commit that failed, or did not return yet, may be there after a cut
	acked uint64    // told to the buffer
	n     int
	err   error

	cutAt int    // the operation at which the power fails, counted down
	image string // what it left; empty while there is power
	cuts  int
	fails int // operations of the buffer that returned an error
}

func newPlant(t *testing.T, rng *rand.Rand, lies bool) *plant {
	p := &plant{t: t, rng: rng, lies: lies, now: holding{records: map[uint64]string{}, state: map[string]string{}}}
	p.start(t.TempDir())
	p.now.generation = p.b.Generation()
	t.Cleanup(func() { _ = p.b.Close() })
	return p
}

func (p *plant) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf(format, args...)
	}
}

// liar is a disk that only says that it synced.
type liar struct{ *faultdisk.Disk }

func (liar) Sync(*os.File) error { return nil }

// start opens the buffer as a power cut left it.
func (p *plant) start(dir string) {
	var err error
	if p.disk, err = faultdisk.New(dir, p.rng); err != nil {
		p.t.Fatal(err)
	}
	cfg := small(dir)
	cfg.Disk = p.disk
	if p.lies {
		cfg.Disk = liar{p.disk}
	}
	if p.b, err = Open(cfg); err != nil {
		p.fail("open after cut %d: %w", p.cuts, err)
	} else if damage := p.b.Damaged(); len(damage) > 0 {
		p.fail("cut %d counts as damage: %v (%s)", p.cuts, damage, damage[0].Reason)
	}
}

// operation is asked by the disk: it may be the one at which the power fails.
func (p *plant) operation(faultdisk.Op, string) error {
	if p.cutAt--; p.cutAt == 0 {
		p.image = p.t.TempDir()
		if err := p.disk.Crash(p.rng, p.image); err != nil {
			p.fail("%w", err)
		}
	}
	return nil
}

// do runs something that makes want of the holding.
func (p *plant) do(want holding, fn func() error) {
	p.maybe = append(p.maybe, want)
	err := fn()
	if p.image != "" {
		return // it never happened, or nobody heard of it
	}
	if err != nil {
		p.fails++
		if !strings.Contains(err.Error(), p.b.cfg.Dir) {
			p.fail("the error does not name the folder: %w", err)
		}
		return
	}
	p.now, p.maybe = want, nil
}

// commit appends, sets and puts aside a bit of everything.
func (p *plant) commit(records int) {
	p.n++
	want := p.now.clone()
	var steps []func(tx *Tx)
	for range records {
		body := fmt.Sprintf("%d %s", p.n, strings.Repeat("r", p.rng.IntN(900)))
		want.last++
		want.records[want.last] = body
		steps = append(steps, func(tx *Tx) { tx.Append([]byte(body)) })
	}
	for range 1 + p.rng.IntN(3) {
		key, v := fmt.Sprintf("key/%02d", p.rng.IntN(30)), fmt.Sprintf("value %d", p.n)
		if p.rng.IntN(10) == 0 {
			v = fmt.Sprintf("%d %s", p.n, strings.Repeat("S", 1500))
		}
		want.state[key] = v
		steps = append(steps, func(tx *Tx) { tx.SetState(key, []byte(v)) })
	}
	if p.rng.IntN(5) == 0 && len(want.quarantine) < 50 {
		item := strconv.Itoa(p.n)
		want.quarantine = append(want.quarantine, item)
		steps = append(steps, func(tx *Tx) { tx.Quarantine(Quarantined{Item: item}) })
	}
	p.do(want, func() error {
		return p.b.Commit(p.t.Context(), func(tx *Tx) error {
			for _, step := range steps {
				step(tx)
			}
			return nil
		})
	})
}

func (p *plant) newGeneration() {
	want := p.now.clone()
	want.generation = "" // known only afterwards
	p.do(want, p.b.NewGeneration)
	if p.image == "" {
		p.now.generation = p.b.Generation()
	}
}

func (p *plant) release() {
	if len(p.now.quarantine) == 0 {
		return
	}
	want := p.now.clone()
	want.quarantine = want.quarantine[1:]
	list, err := p.b.Quarantined(MaxQuarantined)
	if err != nil || len(list) == 0 {
		p.fail("%d inputs in quarantine instead of %d: %w", len(list), len(p.now.quarantine), err)
		return
	}
	p.do(want, func() error { return p.b.RemoveQuarantined(list[len(list)-1].ID) })
}

func (p *plant) ack() {
	if p.now.last > p.acked {
		p.acked += 1 + p.rng.Uint64N(p.now.last-p.acked)
		if err := p.b.Ack(p.acked); err != nil {
			p.fail("%w", err)
		}
	}
}

// step does one thing.
func (p *plant) step() {
	switch n := p.rng.IntN(40); {
	case n < 25:
		p.commit(p.rng.IntN(6))
	case n < 30:
		p.commit(20 + p.rng.IntN(60))
	case n < 36:
		p.ack()
	case n < 37:
		p.newGeneration()
	case n < 39:
		p.release()
	default:
		p.reopen()
	}
}

// reopen is an orderly restart. While the disk fails it is tried until the disk is well.
func (p *plant) reopen() {
	err := p.b.Close()
	if p.image != "" {
		return
	}
	if err != nil {
		p.fails++
	}
	cfg := p.b.cfg
	b, err := Open(cfg)
	if err != nil {
		p.fails++
		if !strings.Contains(err.Error(), cfg.Dir) {
			p.fail("the error does not name the folder: %w", err)
		}
		p.disk.Before(nil)
		b, err = Open(cfg)
	}
	if err != nil {
		p.fail("open again: %w", err)
		return
	}
	p.b = b
	p.adopt("an orderly restart")
}

// afterCut starts on what the power cut left, and compares.
func (p *plant) afterCut() {
	p.disk.Before(nil)
	_ = p.b.Close() // the process that is gone: it only frees its lock
	p.cuts++
	p.start(p.image)
	p.image = ""
	if p.err == nil {
		p.adopt("cut " + strconv.Itoa(p.cuts))
	}
}

// adopt finds out which of the possible holdings the buffer has.
func (p *plant) adopt(after string) {
	var differences []error
	for _, h := range append([]holding{p.now}, p.maybe...) {
		err := h.difference(p.b, p.acked)
		if err == nil {
			p.now, p.maybe = h, nil
			p.now.generation = p.b.Generation()
			return
		}
		differences = append(differences, err)
	}
	p.fail("after %s: %w", after, errors.Join(differences...))
}

// check compares the running buffer.
func (p *plant) check() {
	if err := p.now.difference(p.b, p.acked); err != nil {
		p.fail("%w", err)
	}
	if damage := p.b.Damaged(); len(damage) > 0 {
		p.fail("segments were set aside: %v (%s)", damage, damage[0].Reason)
	}
}

// cut runs the buffer until the power fails, and then starts on what is left.
func (p *plant) cut() {
	p.cutAt = 1 + p.rng.IntN(60)
	p.disk.Before(p.operation)
	for p.image == "" && p.err == nil {
		p.step()
	}
	if p.err == nil {
		p.afterCut()
	}
}

func rounds(normal int) int {
	if n, err := strconv.Atoi(os.Getenv(roundsVariable)); err == nil {
		return n
	}
	return normal
}

// The power fails before any operation on the disk: within commits, at a segment's roll, while segments are deleted, at a
// new generation, at the start itself.
func TestPowerCutLosesNothingThatWasPromised(t *testing.T) {
	p := newPlant(t, random(t), false)
	for p.cuts < rounds(150) && p.err == nil {
		p.cut()
	}
	t.Logf("%d cuts, %d records promised, %d acknowledged", p.cuts, p.now.last, p.acked)
	if p.err != nil {
		t.Fatal(p.err)
	}
}

// The test above is worth something only if it finds a buffer whose disk forgets what it promised to keep.
func TestPowerCutOnADiskThatLiesIsNoticed(t *testing.T) {
	p := newPlant(t, random(t), true)
	for p.cuts < 50 && p.err == nil {
		p.cut()
	}
	if p.err == nil {
		t.Errorf("%d cuts on a disk that synced nothing were not noticed", p.cuts)
	}
}

// While syncs fail, callers get errors; what was promised before can be read all the time, and after a power cut too; as
// soon as syncs work again, so does the buffer.
func TestFailedSyncLosesNothingThatWasPromised(t *testing.T) {
	p := newPlant(t, random(t), false)
	for range rounds(100) {
		p.disk.FailSync(1 + p.rng.IntN(3))
		for steps, before := 0, p.fails; p.fails == before && p.err == nil && steps < 20; steps++ {
			p.step()
			p.check()
		}
		for range p.rng.IntN(10) {
			p.step()
			p.check()
		}
		p.disk.Before(nil)
		if p.rng.IntN(3) == 0 {
			p.cut()
		}
		before := p.fails
		p.commit(1)
		if p.check(); p.fails > before {
			p.fail("a commit failed after the fault had ended")
		}
		if p.err != nil {
			t.Fatal(p.err)
		}
	}
	t.Logf("%d errors, %d cuts, %d records promised, %d acknowledged", p.fails, p.cuts, p.now.last, p.acked)
}

// different lists what is not the same.
func different(got, want map[string]string) string {
	var text []string
	for key := range want {
		if got[key] != want[key] {
			text = append(text, fmt.Sprintf("%s=%.20q, want %.20q", key, got[key], want[key]))
		}
	}
	for key := range got {
		if _, ok := want[key]; !ok {
			text = append(text, fmt.Sprintf("%s=%.20q, want none", key, got[key]))
		}
	}
	slices.Sort(text)
	return strings.Join(text, "; ")
}
