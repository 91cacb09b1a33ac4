package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/linekeeper/linekeeper/agent/buffer"
	"github.com/linekeeper/linekeeper/agent/recording"
	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/status"
	"github.com/linekeeper/linekeeper/agent/translate"
)

// The bounds of a recording.
const (
	recordFor     = time.Hour // unless something else is asked for
	recordForMost = 24 * time.Hour
	recordBytes   = 64 << 20 // unless something else is asked for
	recordMost    = 1 << 30
	recordQueue   = 4096 // events that wait to be written
)

// recorder is one recording. Recording never holds a source back: what cannot be written fast enough ends it.
type recorder struct {
	sources  map[string]bool // nil: all
	from     atomic.Uint64   // the last number drawn
	events   chan []byte
	stop     chan struct{}
	stopOnce sync.Once
	why      string

	mu     sync.Mutex
	status status.Recording
}

// draw numbers an event in the order in which the rules see it; 0 when it is not recorded. It must be called inside the
// transaction, which runs alone.
func (r *recorder) draw(source string) uint64 {
	if r == nil || r.sources != nil && source != "" && !r.sources[source] {
		return 0
	}
	return r.from.Add(1)
}

// add writes an event that a transaction has made durable.
func (r *recorder) add(e recording.Event) {
	b, err := json.Marshal(e)
	if err != nil {
		r.end(fmt.Sprintf("an event cannot be written down: %v", err))
		return
	}
	select {
	case r.events <- b:
	default:
		r.end("the disk did not keep up with the sources")
	}
}

func (r *recorder) end(why string) {
	r.stopOnce.Do(func() {
		r.why = why
		close(r.stop)
	})
}

func (r *recorder) state() status.Recording {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

func (r *recorder) note(events uint64, bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.Events, r.status.Bytes = r.status.Events+events, bytes
}

// recordings is what the agent knows of its recordings: the one that runs, or the last one.
type recordings struct {
	mu      sync.Mutex
	last    *recorder
	running sync.WaitGroup
}

// ErrRecording says that a recording runs already.
var ErrRecording = errors.New("a recording runs already: wait until it ends, or stop it")

// StartRecording records what sources say, into a file of the data folder's "recordings". It returns when the first event that
// happens from now on will be in it.
func (a *Agent) StartRecording(ctx context.Context, req status.RecordRequest) (status.Recording, error) {
	if err := a.checkRequest(&req); err != nil {
		return status.Recording{}, err
	}
	a.records.mu.Lock()
	defer a.records.mu.Unlock()
	if last := a.records.last; last != nil && last.state().Running {
		return last.state(), ErrRecording
	}
	dir, err := filepath.Abs(filepath.Join(a.cfg.DataDir, "recordings")) // whoever asks may be in another folder
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return status.Recording{}, fmt.Errorf("start a recording: %w", err)
	}
	since := a.now()
	name := cmp.Or(strings.Join(req.Sources, "+"), "all")
	f, err := os.OpenFile(filepath.Join(dir, since.UTC().Format("20060102T150405")+"-"+name[:min(len(name), 60)]+".jsonl.gz"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return status.Recording{}, fmt.Errorf("start a recording: %w", err)
	}
	if len(req.Sources) > 0 {
		req.Sources = a.pipe.rules.Feeds(req.Sources)
	}
	r := &recorder{
		events: make(chan []byte, recordQueue), stop: make(chan struct{}),
		status: status.Recording{File: f.Name(), Sources: req.Sources, Since: since, Until: since.Add(req.For), Running: true},
	}
	for _, s := range req.Sources {
		if r.sources == nil {
			r.sources = map[string]bool{}
		}
		r.sources[s] = true
	}
	out, err := a.beginRecording(ctx, r, req, f)
	if err != nil {
		a.pipe.recorder.CompareAndSwap(r, nil)
		return status.Recording{}, errors.Join(fmt.Errorf("start a recording: %w", err), f.Close(), os.Remove(f.Name()))
	}
	a.records.last = r
	a.log.Info("a recording begins", "file", f.Name(), "until", r.status.Until)
	a.records.running.Go(func() { a.writeRecording(r, out, f, req.For) })
	return r.state(), nil
}

func (a *Agent) checkRequest(req *status.RecordRequest) error {
	for _, s := range req.Sources {
		if !slices.Contains(a.sourceNames(), s) {
			return fmt.Errorf("there is no source %q; there are %s", s, strings.Join(a.sourceNames(), ", "))
		}
	}
	req.For, req.MaxBytes = cmp.Or(req.For, recordFor), cmp.Or(req.MaxBytes, recordBytes)
	switch {
	case req.For < time.Second || req.For > recordForMost:
		return fmt.Errorf("a recording of %v is not possible: it takes from 1s to %v", req.For, recordForMost)
	case req.MaxBytes < 1<<20 || req.MaxBytes > recordMost:
		return fmt.Errorf("a recording of %d bytes is not possible: it may have from 1 MiB to 1 GiB", req.MaxBytes)
	}
	if free := a.pipe.business.Stats().FreeDisk; free > 0 && int64(free) < 2*req.MaxBytes {
		return fmt.Errorf("there is room for %d bytes on the disk: too little beside a recording of up to %d; ask for a smaller one", free, req.MaxBytes)
	}
	return nil
}

// beginRecording writes the state of one moment down, from which on each event is numbered.
func (a *Agent) beginRecording(ctx context.Context, r *recorder, req status.RecordRequest, f *os.File) (out *recording.Writer, err error) {
	var h recording.Header
	err = a.pipe.business.Update(ctx, func(tx *buffer.Tx) error {
		if h, err = recording.NewHeader(a.cfg.translateConfig(), a.version, req.Sources, a.now(), tx); err != nil {
			return err
		}
		a.pipe.recorder.Store(r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if out, err = recording.NewWriter(f, h, req.MaxBytes); err != nil {
		return nil, err
	}
	return out, out.Flush()
}

// writeRecording writes until the time is over, the size is reached, or somebody stops it.
func (a *Agent) writeRecording(r *recorder, out *recording.Writer, f *os.File, lasts time.Duration) {
	timer := time.NewTimer(lasts)
	defer timer.Stop()
	flush := time.NewTicker(time.Second)
	defer flush.Stop()
	var err error
	for running := true; running && err == nil; {
		select {
		case b := <-r.events:
			err = out.Line(b)
			r.note(1, out.Bytes())
		case <-flush.C:
			err = out.Flush()
			r.note(0, out.Bytes())
		case <-timer.C:
			r.end("its time is over")
		case <-r.stop:
			running = false
		}
	}
	if errors.Is(err, recording.ErrFull) {
		r.end("it has reached its size")
	} else if err != nil {
		r.end(err.Error())
	}
	a.pipe.recorder.CompareAndSwap(r, nil)
	a.endRecording(r, out, f, err != nil)
}

func (a *Agent) endRecording(r *recorder, out *recording.Writer, f *os.File, broke bool) {
	for len(r.events) > 0 && !broke { // what was drawn before it was stopped
		if err := out.Line(<-r.events); err != nil {
			break
		}
		r.note(1, out.Bytes())
	}
	err := errors.Join(out.Close(), f.Sync(), f.Close())
	r.mu.Lock()
	r.status.Running, r.status.Ended, r.status.Bytes = false, r.why, out.Bytes()
	if err != nil {
		r.status.Ended += ": " + err.Error()
	}
	ended := r.status.Ended
	r.mu.Unlock()
	a.log.Info("a recording has ended", "file", f.Name(), "why", ended)
}

// StopRecording ends the recording that runs and waits until its file is whole.
func (a *Agent) StopRecording() (status.Recording, error) {
	a.records.mu.Lock()
	defer a.records.mu.Unlock()
	r := a.records.last
	if r == nil || !r.state().Running {
		return status.Recording{}, errors.New("no recording runs")
	}
	r.end("it was stopped")
	a.records.running.Wait()
	return r.state(), nil
}

// Recording is the recording that runs, or the last one since the agent started; ok is false without any.
func (a *Agent) Recording() (s status.Recording, ok bool) {
	a.records.mu.Lock()
	defer a.records.mu.Unlock()
	if a.records.last == nil {
		return status.Recording{}, false
	}
	return a.records.last.state(), true
}

// close ends what runs when the agent stops.
func (r *recordings) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last != nil {
		r.last.end("the agent stops")
	}
	r.running.Wait()
}

// told is what a transaction gave the rules, to be recorded and traced once it is durable.
type told struct {
	rec *recorder
	seq uint64
	at  time.Time
	why []translate.Explained
}

// tell numbers an event for the recording that runs, inside the transaction.
func (p *pipeline) tell(source string, now time.Time) told {
	rec := p.recorder.Load()
	return told{rec: rec, seq: rec.draw(source), at: now}
}

// told records and shows what is durable now.
func (p *pipeline) told(t told, fill func(*recording.Event)) {
	if t.seq > 0 {
		e := recording.Event{Seq: t.seq, At: t.at}
		fill(&e)
		t.rec.add(e)
	}
	p.tracer.publish(t.why)
}

// dispatched tells the rules of a work order. Telling it twice changes nothing, so it may be recorded before it is durable.
func (p *pipeline) dispatched(tx *buffer.Tx, now time.Time, o signal.WorkOrder) {
	t := p.tell("", now)
	p.rules.Dispatched(tx, now, o)
	p.told(t, func(e *recording.Event) { e.Order = &o })
}
