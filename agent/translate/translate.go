package translate

import (
	"strconv"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// Fact is one record for the business stream.
type Fact struct {
	Key factkey.Key
	// Body is the encoded pb.Fact: encoded once, sent as it is.
	Body []byte
	// OrderNo is for the operator's page; What reads the rest of what that says.
	OrderNo string
	// OrderState is set when the fact is one.
	OrderState *pb.OrderState
}

// Quarantined is an input that did not become a fact, under the key of the exception fact that tells of it.
type Quarantined struct {
	Key                          factkey.Key
	Source, Tag, Topic, Rule     string
	Code, Item, Reason, NextStep string
	Payload                      []byte
	At                           time.Time
}

// SourceProblem shows (or, with a nil Problem, removes) a fault of one tag on the operator's page: what signal.Reporter
// takes. It appears only when something changed.
type SourceProblem struct {
	Source, Key string
	Problem     *signal.Problem
}

// Result is what a call made.
type Result struct {
	Facts       []Fact
	Readings    []*pb.Reading
	Quarantined []Quarantined
	Problems    []SourceProblem
}

// work is one call: it reads each piece of state once and writes it back once.
type work struct {
	t      *Translator
	st     State
	now    time.Time
	res    Result
	scope  scope
	staged []draft
	enc    encoder
	texts  texts
	// scratch is for a text that is put together, until it is kept.
	scratch []byte
	signals int // of the batch
	replay  bool
	muted   bool // exceptions were told by another output of the same counter
	turned  bool // what counts are booked on changed with this signal

	explain *explainer // nil: nobody asks
	shifts  map[*calendar]worked

	counters table[counter]
	contexts table[running]
	orders   table[order]
	merges   table[merge]
	tags     table[string]   // last value of order tags
	rows     map[string]*row // by their keys in the state
	rowOrder []*row
	accounts map[string]*account // order: the last one of it
	memos    map[string]*memo
	dueSoon  time.Time

	tag    tagged
	places rowPlaces
}

// tagged is what the rules have to do with a tag: found once for many signals of it.
type tagged struct {
	name       string
	rules, all []*rule
	kept       bool
}

func (t *Translator) begin(st State, now time.Time) *work {
	return &work{
		t: t, st: st, now: now,
		counters: table[counter]{prefix: prefixCounter},
		contexts: table[running]{prefix: prefixContext},
		orders:   table[order]{prefix: prefixOrder},
		merges:   table[merge]{prefix: prefixMerge},
		tags:     table[string]{prefix: prefixTag},
	}
}

// end writes the state back.
func (w *work) end() Result {
	w.counters.flush(w.st)
	w.contexts.flush(w.st)
	w.orders.flush(w.st)
	w.merges.flush(w.st)
	w.tags.flush(w.st)
	for _, r := range w.rowOrder {
		w.scratch = r.append(w.scratch[:0])
		w.st.SetState(r.name, w.scratch)
	}
	for _, m := range w.memos {
		m.flush(w.st)
	}
	if !w.dueSoon.IsZero() {
		if due := readTimeState(w.st, keyDue); due.IsZero() || w.dueSoon.Before(due) {
			writeTimeState(w.st, keyDue, w.dueSoon)
		}
	}
	return w.res
}

// Translate turns a batch into facts. It must be called in the transaction that stores them; when that is lost, so is all
// that the call remembered.
func (t *Translator) Translate(st State, now time.Time, b signal.Batch) Result {
	return t.begin(st, now).batch(b)
}

func (w *work) batch(b signal.Batch) Result {
	w.signals = len(b.Signals)
	w.res.Facts = make([]Fact, 0, w.signals)
	byTag := w.t.byTag[b.Source]
	for i := range b.Signals {
		s := &b.Signals[i]
		if i == 0 || s.Tag != w.tag.name {
			w.tag = tagged{s.Tag, byTag[s.Tag], byTag["*"], w.t.kept[[2]string{b.Source, s.Tag}]}
		}
		if w.explain != nil {
			w.explain.begin(b.Source, s, w.timeOf(s))
		}
		w.signal(b.Source, s)
	}
	return w.end()
}

// Replay is Translate for inputs that come out of the quarantine, after the rules or the units were corrected: only record
// rules and state rules with events look at them, because an old counter value or order tag would be taken for the present.
func (t *Translator) Replay(st State, now time.Time, b signal.Batch) Result {
	w := t.begin(st, now)
	w.replay = true
	return w.batch(b)
}

func (w *work) signal(source string, s *signal.Signal) {
	if s.Problem != nil {
		w.reject(source, s, "", *s.Problem)
		return
	}
	rules, all := w.tag.rules, w.tag.all
	if w.tag.kept && !w.replay {
		w.turned = w.keep(source, s)
		if len(rules)+len(all) == 0 {
			w.turnNow(s)
			return
		}
	}
	if len(rules) == 0 && s.Tag == signal.AnswerTag {
		w.answer(source, s)
	} else if len(rules)+len(all) == 0 {
		w.ignored(source, s)
		return
	}
	w.staged = w.staged[:0]
	for _, r := range all {
		if !w.replay {
			w.reading(r, s)
		}
	}
	// Order first, then what is counted on it.
	for _, r := range rules {
		if r.kind == kindState && !(w.replay && r.orderTag) {
			w.state(r, s)
		}
	}
	w.turnNow(s)
	var faults []*fault
	var faulty *rule
	for _, r := range rules {
		switch {
		case r.kind == kindRecord:
			if f := w.record(r, s); len(f) > 0 {
				faults, faulty = append(faults, f...), r
			}
		case w.replay:
		case r.kind == kindReading:
			w.reading(r, s)
		case r.kind == kindCounter:
			w.count(r, s)
		}
	}
	w.bookAll(source, s, faults, faulty)
}

// turnNow notes a change of what counts are booked on, before anything is counted on it.
func (w *work) turnNow(s *signal.Signal) {
	if w.turned && len(w.t.byTime) > 0 {
		w.turn(s)
	}
	w.turned = false
}

// bookAll books what a signal gave. A signal that failed in part is booked in part only when each part has a key of its
// own: then a replay of the signal out of the quarantine cannot double it.
func (w *work) bookAll(source string, s *signal.Signal, faults []*fault, faulty *rule) {
	for i := range w.staged {
		if w.staged[i].position == "" && len(faults) > 0 {
			w.staged = w.staged[:0]
		}
	}
	for i := range w.staged {
		if f := w.book(&w.staged[i]); f != nil {
			faults, faulty = append(faults, f), w.staged[i].rule
		}
	}
	for _, f := range faults {
		w.reject(source, s, faulty.name, f.problem())
	}
}

// timeOf is when a signal happened: by the source's clock where it has one.
func (w *work) timeOf(s *signal.Signal) time.Time {
	switch {
	case plausible(s.SourceTime):
		return s.SourceTime
	case plausible(s.ReceivedTime):
		return s.ReceivedTime
	}
	return w.now
}

// plausible refuses the zero values of clocks (1601, 1970) and years that no timestamp can carry.
func plausible(t time.Time) bool { return t.Year() > 1970 && t.Year() <= 9999 }

// reading takes a value as it is. A tag that is no text is written readably: it would keep all readings of its batch from
// being stored.
func (w *work) reading(r *rule, s *signal.Signal) {
	w.say(r.name, "reading", "kept as telemetry")
	w.res.Readings = append(w.res.Readings, &pb.Reading{
		Source: r.source, Tag: readable(s.Tag), Value: plain(s.Value), Quality: s.Quality.String(), At: stamp(w.timeOf(s)), Equipment: r.equipment,
	})
}

// due notes that Tick has something to do at t.
func (w *work) due(t time.Time) {
	if w.dueSoon.IsZero() || t.Before(w.dueSoon) {
		w.dueSoon = t
	}
}

func readTimeState(st State, key string) time.Time {
	n, err := strconv.ParseInt(string(st.State(key)), 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMilli(n).UTC()
}

func writeTimeState(st State, key string, t time.Time) {
	if t.IsZero() {
		st.SetState(key, nil)
		return
	}
	st.SetState(key, strconv.AppendInt(nil, t.UnixMilli(), 10))
}

// NextTick returns when Tick has something to do next; zero when nothing is open. It may be earlier than needed, never
// later.
func (t *Translator) NextTick(st State) time.Time { return readTimeState(st, keyDue) }

// Tick closes confirmations that are due by time and reports exceptions that were merged. Calling it early or often does no
// harm.
func (t *Translator) Tick(st State, now time.Time) Result {
	return t.begin(st, now).tick()
}

func (w *work) tick() Result {
	st := w.st
	writeTimeState(st, keyDue, time.Time{})
	for _, key := range keysUnder(st, prefixCounter) {
		w.tickCounter(w.counters.get(st, key))
	}
	for _, key := range keysUnder(st, prefixMerge) {
		w.tickMerge(key)
	}
	w.prune()
	return w.end()
}
