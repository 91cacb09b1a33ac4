package agent

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/linekeeper/linekeeper/agent/buffer"
	"github.com/linekeeper/linekeeper/agent/inbox"
	"github.com/linekeeper/linekeeper/agent/recording"
	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/status"
	"github.com/linekeeper/linekeeper/agent/translate"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
	"github.com/linekeeper/linekeeper/proto/sabotage"
)

const cursorPrefix = "cursor/"

// pipeline is the way of a batch from a driver to the disk.
type pipeline struct {
	rules     *translate.Translator
	apply     func(translate.State, time.Time, signal.Batch) translate.Result // rules.Translate
	business  *buffer.Buffer
	telemetry *buffer.Buffer
	inbox     *inbox.Inbox
	board     *status.Board
	recent    *recent
	latest    *latest // nil unless a source publishes it
	now       func() time.Time
	log       *slog.Logger
	// ticked is told when a new count may have an earlier closing time than the ticker waits for.
	ticked chan struct{}
	// recorder writes down what the rules are given, nil while nothing is recorded; tracer shows what they make of it.
	recorder atomic.Pointer[recorder]
	tracer   tracer
	// hubSuspects reports that the clock is known to differ from the hub's; nil without a hub.
	hubSuspects func() bool
}

// written is when this was: no clock that is right shows an earlier time.
var written = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// suspectHeader is a part of a fact that says that the clock was known to be wrong. Appended to an encoded fact it becomes
// part of its header: parts of one message are merged when they are read.
var suspectHeader = func() []byte {
	b, err := proto.Marshal(&pb.Fact{Header: &pb.Header{ClockSuspect: true}})
	if err != nil {
		panic(err)
	}
	return b
}()

// mark is what facts that are stored at now get appended: nothing, unless the clock is known to be wrong.
func (p *pipeline) mark(now time.Time) []byte {
	if now.After(written) && (p.hubSuspects == nil || !p.hubSuspects()) {
		return nil
	}
	return suspectHeader
}

// emit makes a batch durable: its facts, the source's cursor and the rules' state in one transaction.
func (p *pipeline) emit(ctx context.Context, b signal.Batch) error {
	if sabotage.Rule(2) {
		time.AfterFunc(time.Second, func() { p.store(context.WithoutCancel(ctx), b) })
		return nil
	}
	return p.store(ctx, b)
}

func (p *pipeline) store(ctx context.Context, b signal.Batch) error {
	b = p.rules.Mask(b) // nothing below sees what is pseudonymised
	var res translate.Result
	var t told
	var seqs []uint64
	err := p.business.Commit(ctx, func(tx *buffer.Tx) error {
		now := p.now()
		t = p.tell(b.Source, now)
		res, t.why = p.translate(tx, now, b)
		seqs = p.stage(tx, now, res)
		if b.Cursor != nil {
			tx.SetState(cursorPrefix+b.Source, b.Cursor)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("store batch of source %q: %w", b.Source, err)
	}
	p.told(t, func(e *recording.Event) { e.Batch = recording.FromBatch(b) })
	p.board.CountData(b.Source, len(b.Signals))
	p.latest.note(b)
	p.after(ctx, b.Source, res, seqs)
	return nil
}

// translate applies the rules to a batch. Should they break on it, each signal is tried by itself and the one that they
// break on goes into quarantine: a batch that can never be stored would hold its source back for ever.
func (p *pipeline) translate(tx *buffer.Tx, now time.Time, b signal.Batch) (translate.Result, []translate.Explained) {
	res, why, err := p.tryTranslate(tx, now, b)
	if err == nil {
		return res, why
	}
	p.log.Error("the rules broke on a batch: its signals are tried one by one", "source", b.Source, "signals", len(b.Signals), "err", err)
	var all translate.Result
	for _, s := range b.Signals {
		one := signal.Batch{Source: b.Source, Signals: []signal.Signal{s}}
		res, because, err := p.tryTranslate(tx, now, one)
		if err != nil {
			one.Signals[0].Problem = &signal.Problem{
				Code: "rules_broke", Item: s.Tag, Reason: fmt.Sprintf("the rules broke on a value of tag %q: %v", s.Tag, err),
				NextStep: "send this entry and the rules to the maintainers: it is a fault of the program",
			}
			res = p.apply(tx, now, one)
		}
		all.Facts = append(all.Facts, res.Facts...)
		all.Readings = append(all.Readings, res.Readings...)
		all.Quarantined = append(all.Quarantined, res.Quarantined...)
		all.Problems = append(all.Problems, res.Problems...)
		why = append(why, because...)
	}
	return all, why
}

// tryTranslate turns a panic of the rules into an error. They write their state back at the end only, so that nothing of
// a call that broke is left.
func (p *pipeline) tryTranslate(tx *buffer.Tx, now time.Time, b signal.Batch) (res translate.Result, why []translate.Explained, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	if p.tracer.on() {
		res, why = p.rules.TranslateExplained(tx, now, b)
		return res, why, nil
	}
	return p.apply(tx, now, b), nil, nil
}

// tick closes what is due by time and returns when it wants to be called again; zero means not before the next batch.
func (p *pipeline) tick(ctx context.Context) (time.Time, error) {
	var res translate.Result
	var next time.Time
	var t told
	var seqs []uint64
	err := p.business.Commit(ctx, func(tx *buffer.Tx) error {
		now := p.now()
		t = p.tell("", now)
		if p.tracer.on() {
			res, t.why = p.rules.TickExplained(tx, now)
		} else {
			res = p.rules.Tick(tx, now)
		}
		seqs = p.stage(tx, now, res)
		next = p.rules.NextTick(tx)
		return nil
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("close confirmations: %w", err)
	}
	p.told(t, func(e *recording.Event) { e.Tick = true })
	p.after(ctx, "", res, seqs)
	return next, nil
}

// stage adds what the rules made to a transaction and returns the numbers of the facts.
func (p *pipeline) stage(tx *buffer.Tx, now time.Time, res translate.Result) (seqs []uint64) {
	mark := p.mark(now)
	seqs = make([]uint64, 0, len(res.Facts))
	for _, f := range res.Facts {
		seqs = append(seqs, tx.Append(append(slices.Clip(f.Body), mark...)))
	}
	for _, q := range res.Quarantined {
		tx.Quarantine(buffer.Quarantined{At: now, Source: q.Source, Tag: q.Tag, Code: q.Code, Item: q.Item, Reason: q.Reason, NextStep: q.NextStep, Payload: q.Payload})
	}
	return seqs
}

// after does what may be lost in a crash: the page's list of recent facts, readings, and the inbox's copy of the states
// that facts already hold.
func (p *pipeline) after(ctx context.Context, source string, res translate.Result, seqs []uint64) {
	now := p.now()
	for _, sp := range res.Problems {
		(&reporter{board: p.board, source: cmp.Or(sp.Source, source)}).Problem("rules/"+sp.Key, sp.Problem)
	}
	p.recent.add(res.Facts, seqs, now)
	for _, f := range res.Facts {
		if f.OrderState != nil {
			if err := p.inbox.Apply(f.OrderState, occurred(f, now)); err != nil {
				p.log.Warn("note a work order's state", "order", f.OrderNo, "err", err)
			}
		}
	}
	if len(res.Facts) > 0 {
		p.board.Touch()
	}
	if len(res.Readings) > 0 {
		if err := p.keepReadings(ctx, res.Readings); err != nil {
			p.log.Warn("store readings", "err", err)
		}
	}
	select {
	case p.ticked <- struct{}{}:
	default:
	}
}

// occurred is when a fact happened: the time under which the rules remember it, so that a state applied again after a
// restart is recognised.
func occurred(f translate.Fact, now time.Time) time.Time {
	var body pb.Fact
	if err := proto.Unmarshal(f.Body, &body); err != nil || body.GetHeader().GetOccurredAt() == nil {
		return now
	}
	return body.GetHeader().GetOccurredAt().AsTime()
}

func (p *pipeline) keepReadings(ctx context.Context, readings []*pb.Reading) error {
	return p.telemetry.Commit(ctx, func(tx *buffer.Tx) error {
		for _, r := range readings {
			body, err := proto.Marshal(r)
			if err != nil {
				return fmt.Errorf("encode reading %q: %w", r.Tag, err)
			}
			tx.Append(body)
		}
		return nil
	})
}

// The ticker looks at least once a minute, because the wall clock that confirmations are due by may be set, and never more
// often than ten times a second.
const (
	tickAtMost  = time.Minute
	tickAtLeast = 100 * time.Millisecond
)

// runTicker closes confirmations by time until ctx ends.
func (p *pipeline) runTicker(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	due := time.Time{} // what the timer waits for; zero means no more than the next look
	wait := func() { timer.Reset(p.untilTick(due)) }
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.ticked:
			// A batch may have opened a count that is due earlier than the timer.
			next := p.rules.NextTick(readOnly{p.business})
			if next.IsZero() || !due.IsZero() && !next.Before(due) {
				continue
			}
			due = next
			wait()
		case <-timer.C:
			next, err := p.tick(ctx)
			if err != nil && ctx.Err() == nil {
				p.log.Warn("close confirmations by time", "err", err)
			}
			due = next
			wait()
		}
	}
}

func (p *pipeline) untilTick(due time.Time) time.Duration {
	if due.IsZero() {
		return tickAtMost
	}
	return min(max(due.Sub(p.now()), tickAtLeast), tickAtMost)
}

// readOnly lets the rules look at committed state outside of a transaction.
type readOnly struct{ b *buffer.Buffer }

func (r readOnly) State(key string) []byte { return r.b.State(key) }
func (r readOnly) EachState(prefix string, f func(key string, v []byte)) {
	r.b.EachState(prefix, f)
}
func (r readOnly) SetState(string, []byte) {}
