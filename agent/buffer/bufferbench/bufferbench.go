// Package bufferbench measures the buffer against the least that any durable queue must do: append to a file and sync it.
//
// It owns the comparison and the plain log that is compared with. It promises that both store the same bytes (records,
// cursor, state) in the same folder of the same disk, in short turns one after the other, so that a busy moment of the
// disk hits both. It never judges: it returns figures with their goals.
package bufferbench

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/agent/buffer"
)

// Result compares one way of storing.
type Result struct {
	Name   string
	Buffer float64 // records per second, median of the rounds
	Log    float64 // of the plain log, likewise
	Ratio  float64 // median of the rounds' Buffer/Log
	Goal   float64 // what Ratio should reach; 0 without one
}

const (
	recordSize = 256
	stateKeys  = 200
	stateSize  = 100
	turns      = 8 // turns in a round
)

type job struct {
	name    string
	group   int // records in a commit
	callers int // goroutines that each have one commit under way
	commits int // in a turn, all callers together
	goal    float64
}

var jobs = []job{
	{"buffer_intake_1", 1, 1, 40, 0.55},
	{"buffer_intake_10", 10, 1, 40, 0.55},
	{"buffer_intake_100", 100, 1, 40, 0.50},
	{"buffer_intake_1000", 1000, 1, 40, 0.45},
	{"buffer_intake_64_callers", 1, 64, 1280, 0.50},
}

// store is what both sides do: make a group of records durable, with a cursor and one key of state.
type store interface {
	commit(records [][]byte, cursor []byte, key string, state []byte) error
	close() error
}

// Compare runs the given number of rounds in new folders below dir and returns one Result for each way of storing.
func Compare(ctx context.Context, dir string, rounds int) ([]Result, error) {
	results := make([]Result, 0, len(jobs))
	for _, j := range jobs {
		r, err := j.compare(ctx, dir, rounds)
		if err != nil {
			return nil, fmt.Errorf("measure %q: %w", j.name, err)
		}
		results = append(results, r)
	}
	return results, nil
}

func (j job) compare(ctx context.Context, dir string, rounds int) (Result, error) {
	var ours, logs, ratios []float64
	for range rounds {
		if err := ctx.Err(); err != nil {
			return Result{}, err
		}
		our, log, err := j.round(dir)
		if err != nil {
			return Result{}, err
		}
		records := float64(turns * j.commits * j.group)
		ours, logs = append(ours, records/our.Seconds()), append(logs, records/log.Seconds())
		ratios = append(ratios, log.Seconds()/our.Seconds())
	}
	return Result{Name: j.name, Buffer: median(ours), Log: median(logs), Ratio: median(ratios), Goal: j.goal}, nil
}

// round returns the time that each side took for the same work.
func (j job) round(dir string) (ours, logs time.Duration, err error) {
	dir, err = os.MkdirTemp(dir, "round-")
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	buf, err := openBuffer(dir)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = buf.close() }()
	log, err := openLog(dir, j.callers > 1)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = log.close() }()
	for range turns {
		took, err := j.turn(buf)
		if err != nil {
			return 0, 0, err
		}
		ours += took
		if took, err = j.turn(log); err != nil {
			return 0, 0, err
		}
		logs += took
	}
	return ours, logs, nil
}

// turn runs the commits of one turn.
func (j job) turn(s store) (time.Duration, error) {
	var wg sync.WaitGroup
	errs := make([]error, j.callers)
	start := time.Now()
	for i := range j.callers {
		wg.Go(func() { errs[i] = j.caller(s, i) })
	}
	wg.Wait()
	took := time.Since(start)
	for _, err := range errs {
		if err != nil {
			return 0, err
		}
	}
	return took, nil
}

func (j job) caller(s store, number int) error {
	records := make([][]byte, j.group)
	for i := range records {
		records[i] = filled(recordSize, byte(i))
	}
	for i := range j.commits / j.callers {
		key := stateKey(i*j.callers + number)
		if err := s.commit(records, filled(24, byte(i)), key, filled(stateSize, byte(i))); err != nil {
			return err
		}
	}
	return nil
}

func stateKey(i int) string { return fmt.Sprintf("counter/line-%03d", i%stateKeys) }

func filled(size int, start byte) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = start + byte(i*7)
	}
	return b
}

// theBuffer is our side.
type theBuffer struct{ b *buffer.Buffer }

func openBuffer(dir string) (store, error) {
	b, err := buffer.Open(buffer.Config{Dir: dir + "/buffer", DiskReserve: -1})
	if err != nil {
		return nil, err
	}
	err = b.Update(context.Background(), func(tx *buffer.Tx) error {
		for i := range stateKeys {
			tx.SetState(stateKey(i), filled(stateSize, byte(i)))
		}
		return nil
	})
	return theBuffer{b}, err
}

func (s theBuffer) commit(records [][]byte, cursor []byte, key string, state []byte) error {
	return s.b.Commit(context.Background(), func(tx *buffer.Tx) error {
		for _, r := range records {
			tx.Append(r)
		}
		tx.SetState("cursor/mes", cursor)
		tx.SetState(key, state)
		return nil
	})
}

func (s theBuffer) close() error { return s.b.Close() }

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// Print writes a table for people and one line "ratio NAME VALUE GOAL" for each result with a goal.
func Print(w io.Writer, results []Result) {
	fmt.Fprintf(w, "%-26s %14s %14s %7s\n", "records of 256 B", "buffer rec/s", "plain log", "ratio")
	for _, r := range results {
		fmt.Fprintf(w, "%-26s %14.0f %14.0f %7.2f\n", r.Name, r.Buffer, r.Log, r.Ratio)
	}
	for _, r := range results {
		if r.Goal > 0 {
			fmt.Fprintf(w, "ratio %s %.2f %.2f\n", r.Name, r.Ratio, r.Goal)
		}
	}
}
