package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/linekeeper/linekeeper/agent/translate"
)

// tracer hands what the rules made of each signal to whoever looks on. With nobody looking the rules explain nothing.
type tracer struct {
	watched atomic.Int32
	mu      sync.Mutex
	watches map[*watch]bool
}

// watch is one who looks on.
type watch struct {
	source, tag string
	news        chan translate.Explained
	missed      atomic.Uint64
}

// traceQueue is how many explanations wait for one who looks on; of more, the newest are left out and counted.
const traceQueue = 1024

func (t *tracer) on() bool { return t.watched.Load() > 0 }

// publish never waits: whoever is too slow misses something, and is told.
func (t *tracer) publish(all []translate.Explained) {
	if len(all) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for w := range t.watches {
		for _, e := range all {
			if w.source != "" && e.Source != w.source || w.tag != "" && e.Tag != w.tag && e.Tag != "" {
				continue
			}
			select {
			case w.news <- e:
			default:
				w.missed.Add(1)
			}
		}
	}
}

func (t *tracer) add(w *watch) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.watches == nil {
		t.watches = map[*watch]bool{}
	}
	t.watches[w] = true
	t.watched.Store(int32(len(t.watches)))
}

func (t *tracer) remove(w *watch) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.watches, w)
	t.watched.Store(int32(len(t.watches)))
}

// TraceMissed is sent between explanations when some were left out because they were not taken fast enough.
type TraceMissed struct {
	Missed uint64 `json:"missed"`
}

// Trace calls emit with what the rules make of each signal of a source and tag (empty: all), from now on until ctx ends or emit
// fails: a translate.Explained, or a TraceMissed. It calls emit with nil when it has begun, and every beat without news.
func (a *Agent) Trace(ctx context.Context, source, tag string, beat time.Duration, emit func(any) error) error {
	if source != "" && !slices.Contains(a.sourceNames(), source) {
		return fmt.Errorf("there is no source %q; there are %s", source, strings.Join(a.sourceNames(), ", "))
	}
	w := &watch{source: source, tag: tag, news: make(chan translate.Explained, traceQueue)}
	a.pipe.tracer.add(w)
	defer a.pipe.tracer.remove(w)
	if err := emit(nil); err != nil {
		return err
	}
	quiet := time.NewTicker(beat)
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-quiet.C:
			if err := emit(nil); err != nil {
				return err
			}
		case e := <-w.news:
			if n := w.missed.Swap(0); n > 0 {
				if err := emit(TraceMissed{n}); err != nil {
					return err
				}
			}
			if err := emit(e); err != nil {
				return err
			}
			quiet.Reset(beat)
		}
	}
}

func (a *Agent) sourceNames() []string {
	names := make([]string, len(a.sources))
	for i, s := range a.sources {
		names[i] = s.name
	}
	return names
}
