package mes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/polling"
)

// numbered finds rows numbered from 1 on, some at each poll, until it fails or there are no more.
type numbered struct {
	at, last, each int
	fails          int // at the first number from here on; 0 for never
	wide           string
	polls          int
	limits         []int // of the polls
}

var errFinder = errors.New("the server has gone")

func (f *numbered) find(_ context.Context, p *poller) (rows []row, more bool, err error) {
	f.polls, f.limits = f.polls+1, append(f.limits, p.limit())
	for range f.each {
		if f.at == f.last {
			return rows, false, nil
		}
		f.at++
		p.state.ID.High = int64(f.at) // also of what is never returned
		if f.fails > 0 && f.at >= f.fails {
			return nil, false, errFinder
		}
		p.read += len(f.wide)
		n := signal.Number(fmt.Sprint(f.at))
		rows = append(rows, row{key: []any{n}, values: map[string]any{"n": n, "wide": f.wide}})
	}
	return rows, true, nil
}

// aheadLab runs a poller on rows that are found at once and become durable slowly.
type aheadLab struct {
	p       *poller
	plant   *plant
	batches []int // sizes
}

func newAheadLab(t *testing.T, f *numbered, change string) *aheadLab {
	l := &aheadLab{plant: newPlant(t)}
	env := signal.Env{Source: "s", Reporter: l.plant, Logger: slog.New(slog.NewTextHandler(l.plant, nil))}
	q := &Query{Tag: "q", Table: "t", Key: []string{"n"}, Change: change, Batch: 2000}
	book, err := polling.Open(&env, nil, func(ctx context.Context, b signal.Batch) error {
		l.batches = append(l.batches, len(b.Signals))
		time.Sleep(time.Second) // of a clock that goes on when all wait
		return l.plant.emit(ctx, b)
	}, &buffering)
	if err != nil {
		t.Fatal(err)
	}
	l.p = &poller{source: newSource(env, Config{Driver: "sqlite"}, time.UTC), book: book, query: q, ready: true, finder: f}
	l.p.state = state{Change: change, ID: &byID{}}
	return l
}

// steps polls until there is no more, and returns the error that ended it.
func (l *aheadLab) steps(t *testing.T) error {
	t.Helper()
	for range 1000 {
		if more, err := l.p.step(t.Context()); err != nil || !more {
			return err
		}
	}
	t.Fatal("it does not end")
	return nil
}

// check compares what is durable with the numbers up to last, and the cursor with that.
func (l *aheadLab) check(t *testing.T, last int) {
	t.Helper()
	for i, s := range l.plant.all() {
		if want := fmt.Sprintf("t|%d|", i+1); s.Position != want {
			t.Fatalf("signal %d is %q, want %q", i, s.Position, want)
		}
	}
	if n := len(l.plant.all()); n != last {
		t.Fatalf("%d rows are durable, want %d", n, last)
	}
	if want := fmt.Sprintf(`"high":%d`, last); !strings.Contains(string(l.plant.cursor), want) {
		t.Fatalf("the cursor is %s, want it at %s", l.plant.cursor, want)
	}
}

func TestWhatIsFoundMeanwhileBecomesDurableAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &numbered{last: 50_007, each: 2000}
		l := newAheadLab(t, f, "id")
		if err := l.steps(t); err != nil {
			t.Fatal(err)
		}
		l.check(t, 50_007)
		if want := []int{2000, 16_000, 16_000, 16_000, 7}; fmt.Sprint(l.batches) != fmt.Sprint(want) {
			t.Errorf("portions of %v rows, want %v: as much as was found meanwhile, within the bound", l.batches, want)
		}
		if want := []int{2000, 2000, 4000, 4000}; !slices.Equal(f.limits[:4], want) || slices.Max(f.limits) > 4000 || l.p.limit() != 2000 {
			t.Errorf("polls for %v rows and then for %d, want %v and as many as the last of these, and then the usual 2000", f.limits, l.p.limit(), want)
		}
		if l.p.used != nil || l.p.spare != nil || l.p.reading != nil {
			t.Error("at rest the poller still holds room for rows")
		}
	})
}

func TestWideRowsAreNotHeldInMasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &numbered{last: 100, each: 10, wide: strings.Repeat("x", 300<<10)}
		l := newAheadLab(t, f, "id")
		if err := l.steps(t); err != nil {
			t.Fatal(err)
		}
		l.check(t, 100)
		if want := []int{10, 30, 30, 30}; fmt.Sprint(l.batches) != fmt.Sprint(want) { // 3 MB a poll
			t.Errorf("portions of %v rows, want %v", l.batches, want)
		}
		if slices.Max(f.limits) > 2000 {
			t.Errorf("polls of wide rows for %v", f.limits)
		}
	})
}

func TestWhatWasFoundBeforeAFailureBecomesDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &numbered{last: 50_000, each: 2000, fails: 9000}
		l := newAheadLab(t, f, "id")
		if err := l.steps(t); !errors.Is(err, errFinder) {
			t.Fatalf("ended with %v, want the finder's error", err)
		}
		l.check(t, 8000) // the poll that failed had moved the position on
		if l.p.ready || l.p.reading != nil {
			t.Error("the poller goes on without looking at the durable position")
		}
	})
}

func TestMarkedRowsAreNotReadAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &numbered{last: 6, each: 2}
		l := newAheadLab(t, f, "outbox")
		if more, err := l.p.step(t.Context()); err != nil || !more {
			t.Fatal(more, err)
		}
		if f.polls != 1 {
			t.Errorf("polled %d times before the first rows were durable and taken away", f.polls)
		}
	})
}
