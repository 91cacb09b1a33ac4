package buffer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// sharedDisk has so much room for the folders of several buffers.
type sharedDisk struct {
	systemDisk
	t    testing.TB
	size int64
	dirs []string
}

func (d *sharedDisk) Free(string) (int64, error) {
	free := d.size
	for _, dir := range d.dirs {
		free -= dirSize(d.t, dir)
	}
	return free, nil
}

// A flood of readings on the same disk costs no fact: it drops its own oldest, and the facts are held back only by their own
// limit, which is forecast before it is reached.
func TestFloodOfTelemetryCostsNoFact(t *testing.T) {
	disk := &sharedDisk{t: t, size: 6 << 20, dirs: []string{t.TempDir(), t.TempDir()}}
	var clock atomic.Int64
	now := func() time.Time { return time.Unix(1_800_000_000+clock.Load(), 0) }
	business := small(disk.dirs[0])
	business.Limit, business.DiskReserve, business.Disk, business.Now = 1<<20, 1<<20, disk, now
	telemetry := small(disk.dirs[1])
	telemetry.Limit, telemetry.DiskReserve, telemetry.Overflow, telemetry.Disk, telemetry.Now = 2<<20, 1<<20, DropOldest, disk, now
	facts, readings := open(t, business), open(t, telemetry)

	ctx, stop := context.WithCancel(t.Context())
	var flooded atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		body := []byte(strings.Repeat("r", 2000))
		for ctx.Err() == nil {
			err := readings.Commit(ctx, func(tx *Tx) error {
				for range 50 {
					tx.Append(body)
				}
				return nil
			})
			if err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
			flooded.Add(50)
		}
	})
	defer wg.Wait()
	defer stop()

	stored, forecast := 0, time.Duration(0)
	for n := 1; ; n++ {
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		err := facts.Commit(short, func(tx *Tx) error { tx.Append(fmt.Appendf(nil, "%06d%s", n, strings.Repeat("f", 4000))); return nil })
		cancel()
		if errors.Is(err, ErrFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		stored = n
		clock.Add(60) // a fact each minute
		if s := facts.Stats(); s.FullIn > 0 {
			forecast = s.FullIn
			if left := s.Limit - s.Bytes; left > 100<<10 {
				want := time.Duration(left/4096) * time.Minute
				if ratio := s.FullIn.Hours() / want.Hours(); ratio < 0.85 || ratio > 1.15 {
					t.Errorf("with %d bytes left it will be full in %v, want about %v", left, s.FullIn, want)
				}
			}
		}
	}
	stop()
	wg.Wait()
	s, r := facts.Stats(), readings.Stats()
	if s.Dropped != 0 || s.Pending != uint64(stored) || s.Bytes < s.Limit || s.FreeDisk < s.DiskReserve {
		t.Errorf("facts: %+v, %d were stored", s, stored)
	}
	if forecast == 0 || forecast > time.Hour {
		t.Errorf("just before it was full the forecast was %v", forecast)
	}
	if r.Dropped == 0 || r.Bytes > r.Limit+minSegmentSize {
		t.Errorf("of %d readings: %+v", flooded.Load(), r)
	}
	for n, line := range bodies(t, facts, 0) {
		if !strings.HasPrefix(line, fmt.Sprintf("%d:%06d", n+1, n+1)) {
			t.Fatalf("fact %d is %.20q", n+1, line)
		}
	}
	// Room lets it go on.
	if err := facts.Ack(uint64(stored)); err != nil {
		t.Fatal(err)
	}
	commit(t, facts, "goes on")
}
