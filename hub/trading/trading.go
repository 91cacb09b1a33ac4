// Package trading keeps the business objects of outside systems: purchases, sales, shipments, invoices, counts, items and parties.
//
// It owns the mirror, which reads them and stores each revision, and the writer, which brings an object into the state that
// somebody wants, as a small state machine for each write. It promises that what a system lists is stored with the cursor in one
// transaction, that a reading which says the same makes no revision, and that an object which cannot be read stops no other and
// is visible with the reason; that a write is stored before anything is asked, takes effect at most once while the system can be
// asked, and is decided by a person where it cannot; and that writes of one thread of objects go one after the other. It never
// writes again without having looked up, never calls a system more than postings may, and decides nothing about what is written.
//
// # A write
//
// Its states are those of a posting, and mean the same (package posting): due, sending, in_doubt, posted, verified, parked, settled.
// A rejection that no time mends is parked: with the reason, until somebody replays or settles it. A warning of the system is one
// of these; whoever accepts it names its code in the replay. One that is gone after it was verified is in doubt again (class gone):
// then its key alone is looked for, and it is written anew when nothing carries that.
//
// # Order
//
// Objects that belong together are a lane: an order with its receipts, deliveries and invoices. A lane does one thing at a time:
// first what is in doubt, then what is to be read back, then the next that is due. What is parked lets others pass, except writes
// of the same object: these wait, and say for what.
//
// # The mirror
//
// Each kind is read by a cursor, and from the beginning once a day: then what a system that was put back has lost or has otherwise
// is seen too. What is not listed then is marked as gone and kept.
package trading

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/posting"
	"github.com/linekeeper/linekeeper/hub/store"
)

// Mirror says what is read of a system.
type Mirror struct {
	ERP   string
	Kinds []object.BusinessKind
	// Every is the pause between two questions; 30 s. Whole is how often a kind is read from its beginning; 24 h.
	Every, Whole time.Duration
}

// Options of New. Store, Connectors and Posting are needed; zero fields mean the documented default.
type Options struct {
	Store      *store.Store
	Connectors map[string]connector.Connector
	// Posting is the engine with whose postings the systems are shared: calls here keep to its limits.
	Posting *posting.Engine
	Mirrors []Mirror
	// Writes names the systems that may be written to.
	Writes []string
	// Workers is how many lanes of one system are worked on; 8. How many calls it is asked at a time is the posting engine's.
	Workers int
	// RetryFor is how long a retryable rejection is tried again before a person is asked, DoubtFor how long an effect that may
	// still appear is waited for; 24 h each.
	RetryFor, DoubtFor time.Duration
	// Poll is how often the writer looks for work that nobody announced; 30 s. Backoff is the longest pause of the mirror after
	// failures; 5 min. CallTimeout bounds one reading; 2 min.
	Poll, Backoff, CallTimeout time.Duration
	// Now is the clock; time.Now.
	Now    func() time.Time
	Logger *slog.Logger
}

func (o *Options) setDefaults() {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	set(&o.RetryFor, 24*time.Hour)
	set(&o.DoubtFor, 24*time.Hour)
	set(&o.Poll, 30*time.Second)
	set(&o.Backoff, 5*time.Minute)
	set(&o.CallTimeout, 2*time.Minute)
	for i := range o.Mirrors {
		set(&o.Mirrors[i].Every, 30*time.Second)
		set(&o.Mirrors[i].Whole, 24*time.Hour)
	}
	if o.Workers <= 0 {
		o.Workers = 8
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// Trader reads and writes. Make one with New; one Run at a time on one store.
type Trader struct {
	o       Options
	writers map[string]guarded
	kinds   []*reading
	wake    chan struct{}

	mu    sync.Mutex
	poked []store.WriteLane

	// crash is asked at each step whether the process dies there (errDies), or the store fails (any other); tests set it.
	crash func(step string) error
}

// New returns a trader that does nothing until Run runs.
func New(o Options) *Trader {
	o.setDefaults()
	t := &Trader{o: o, writers: map[string]guarded{}, wake: make(chan struct{}, 1), crash: posting.CrashPoint}
	for _, name := range o.Writes {
		if w, ok := o.Connectors[name].(connector.BusinessWriter); ok {
			t.writers[name] = guarded{w, name, o.Logger}
		}
	}
	for _, m := range o.Mirrors {
		r, ok := o.Connectors[m.ERP].(connector.BusinessReader)
		if !ok {
			continue
		}
		alone := make(chan struct{}, 1)
		alone <- struct{}{}
		for _, kind := range m.Kinds {
			t.kinds = append(t.kinds, &reading{t: t, m: m, kind: kind, from: r, wake: make(chan struct{}, 1), alone: alone})
		}
	}
	return t
}

// errDies is how a test's crash ends Run.
var errDies = errors.New("the hub dies")

// Run reads and writes until ctx ends, then waits for the calls that are under way. When the store fails, the writer starts over a
// little later from what the store says, as after a crash. Its only errors are those of a store that was closed or that another
// hub has taken over.
func (t *Trader) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mirrors sync.WaitGroup
	defer mirrors.Wait()
	defer cancel()
	for _, r := range t.kinds {
		mirrors.Go(func() { r.run(ctx) })
	}
	for {
		err := t.runOnce(ctx)
		if ctx.Err() != nil && !errors.Is(err, errDies) {
			return nil
		}
		if errors.Is(err, errDies) || errors.Is(err, store.ErrClosed) || errors.Is(err, store.ErrTakenOver) {
			return err
		}
		t.o.Logger.Error("writes of business objects stopped and start over", "error", err)
		sleep(ctx, 5*time.Second)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Wake lets all kinds of a system be read soon: something has changed there. An unknown name is ignored.
func (t *Trader) Wake(erp string) {
	for _, r := range t.kinds {
		if r.m.ERP == erp {
			kick(r.wake)
		}
	}
}

// visit waits until a system may be asked.
func (t *Trader) visit(ctx context.Context, erp string) (*posting.Visit, error) {
	for {
		v, wait, err := t.o.Posting.Visit(erp)
		if v != nil || err != nil {
			return v, err
		}
		if sleep(ctx, wait); ctx.Err() != nil {
			return nil, fmt.Errorf("wait for %q to be asked: %w", erp, ctx.Err())
		}
	}
}
