package opcua

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gopcua/opcua/ua"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/opcua/jobcontrol"
)

// follower tells what becomes of one machine's jobs. The list is the truth: what happened while nobody looked is told when it
// is read again.
type follower struct {
	*jobMachine
	emit signal.Emit
	// gone says since when a job is missing in the list.
	gone map[string]time.Time
	// seen is when the list was last looked at, by the server's clock.
	seen time.Time
}

func (m *jobMachine) follow(ctx context.Context, emit signal.Emit) {
	f := &follower{jobMachine: m, emit: emit, gone: map[string]time.Time{}}
	tick := time.NewTicker(m.config.JobControl.Poll)
	defer tick.Stop()
	failures := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
		case <-tick.C:
		}
		if m.lobby.present() == nil {
			clear(f.gone)
			continue // the source's own state tells that
		}
		err := f.round(ctx)
		if ctx.Err() != nil {
			return
		}
		if failures++; err == nil {
			failures = 0
		}
		if failures <= fewFailures && isNetwork(err) {
			continue // a connection that breaks is told by the source's state
		}
		m.show(err)
	}
}

// fewFailures in a row are not worth a line on the page.
const fewFailures = 3

// show tells on the page why jobs are not followed.
func (m *jobMachine) show(err error) {
	key := "work_orders/" + m.name()
	if err == nil {
		m.env.Reporter.Problem(key, nil)
		return
	}
	p := &signal.Problem{Code: "jobs_not_followed", Item: m.name(), Reason: err.Error(), NextStep: "nothing for now: the agent tries again by itself"}
	var u *unusable
	if errors.As(err, &u) {
		p.Code, p.Reason, p.NextStep = "no_job_control", u.reason, u.nextStep
	}
	m.env.Reporter.Problem(key, p)
}

// round looks once at all jobs that were handed over.
func (f *follower) round(ctx context.Context) error {
	release, err := turn(ctx, f.turn)
	if err != nil {
		return err
	}
	defer release()
	entries := f.journal.of(f.name(), func(e *entry) bool { return len(e.Telling) > 0 || !e.Phase.Over() || f.config.JobControl.Clear })
	list, err := f.timedList(ctx)
	if err != nil {
		return err
	}
	if f.config.JobControl.Events && f.differs(entries, list.jobs) && !pause(ctx, eventDelay) {
		return ctx.Err()
	}
	events := f.news.take(f.seen, list.at)
	if f.seen.IsZero() {
		events = nil // the first look tells all
	}
	f.seen = list.at
	var errs []error
	for i := range entries {
		if err := f.one(ctx, &entries[i], list.jobs[entries[i].Order], events); err != nil {
			errs = append(errs, err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return errors.Join(errs...)
}

// eventDelay is how long events may be on their way: those from before a look at the list must not come after it.
const eventDelay = 300 * time.Millisecond

// differs reports whether the list has something new.
func (f *follower) differs(entries []entry, list jobs) bool {
	return slices.ContainsFunc(entries, func(e entry) bool {
		job := list[e.Order]
		return job != nil && jobcontrol.PhaseOf(job.States) != e.Phase
	})
}

func (f *follower) one(ctx context.Context, e *entry, job *jobcontrol.Job, events []jobEvent) error {
	if err := f.tell(ctx, e); err != nil { // what a crash interrupted
		return err
	}
	for _, x := range events {
		if x.order == e.Order && x.phase != e.Phase && !e.Phase.Over() {
			f.advance(e, x.phase, max(x.revision, e.Revision, 0), moments{x.at, x.at, x.at})
			e.attach(f.ask(ctx, e, x.phase))
		}
	}
	if err := f.compare(ctx, e, job); err != nil {
		return err
	}
	if len(e.Telling) > 0 {
		if err := f.journal.put(*e); err != nil {
			return err
		}
		if err := f.tell(ctx, e); err != nil {
			return err
		}
	}
	if job != nil && f.config.JobControl.Clear && e.Phase.Over() && jobcontrol.PhaseOf(job.States).Over() {
		return f.clear(ctx, e)
	}
	return nil
}

// compare finds what is new about a job and prepares the answers.
func (f *follower) compare(ctx context.Context, e *entry, job *jobcontrol.Job) error {
	phase := jobcontrol.Gone
	revision := max(e.Done, 0)
	if job != nil {
		delete(f.gone, e.Order)
		if phase = jobcontrol.PhaseOf(job.States); phase == jobcontrol.UnknownPhase {
			return &unusable{fmt.Sprintf("job %q has a state that ISA-95 Job Control does not know: %v", e.Order, job.States), "ask the machine's maker"}
		}
		if r := revisionOf(&job.Order); r != none {
			revision = r
		}
	}
	switch {
	case phase == jobcontrol.Gone:
		return f.missing(ctx, e)
	case phase == e.Phase && (revision <= e.Revision || e.Phase.Started() || e.Phase.Over()):
		return nil
	}
	r := f.ask(ctx, e, phase)
	f.advance(e, phase, revision, momentsOf(r))
	e.attach(r)
	return nil
}

// attach adds what a response tells of a job that is over to its last answer; r may be nil.
func (e *entry) attach(r *jobcontrol.Response) {
	if r == nil || !e.Phase.Over() || len(e.Telling) == 0 {
		return
	}
	a := &e.Telling[len(e.Telling)-1]
	for _, p := range r.Data {
		if s, ok := valueText(p.Value); ok {
			if a.Data == nil {
				a.Data = map[string]string{}
			}
			a.Data[p.ID] = s
		}
	}
	for _, m := range r.Materials {
		x := actual{Use: m.Use, Item: m.Definition, Lot: m.Lot, Quantity: m.Quantity}
		if m.Unit != nil {
			x.Unit = m.Unit.Name.Text
		}
		a.Materials = append(a.Materials, x)
	}
}

// moments are when a job began, when it ended, and when its present state was seen.
type moments struct{ begun, ended, now time.Time }

// momentsOf takes what a response tells, and the present for the rest; r may be nil.
func momentsOf(r *jobcontrol.Response) moments {
	now := time.Now().UTC().Truncate(time.Millisecond)
	m := moments{now, now, now}
	if r != nil && !r.Start.IsZero() {
		m.begun = r.Start
	}
	if r != nil && !r.End.IsZero() {
		m.ended = r.End
	}
	return m
}

// advance adds the answers for the way from the phase that was told to the present one.
func (f *follower) advance(e *entry, phase jobcontrol.Phase, revision int64, at moments) {
	wasStarted := e.Phase.Started()
	switch {
	case !phase.Started() && !phase.Over():
		f.waits(e, phase, revision, at.now)
	case phase == jobcontrol.Running && wasStarted:
		e.say(revision, signal.AnswerStarted, "resumed at the machine", at.now)
	case phase == jobcontrol.Running:
		e.say(revision, signal.AnswerStarted, "", at.begun)
	case phase == jobcontrol.Interrupted:
		if !wasStarted {
			e.say(revision, signal.AnswerStarted, "", at.begun)
		}
		e.say(revision, signal.AnswerHeld, "interrupted at the machine", at.now)
	case phase == jobcontrol.Ended && e.Stop && e.Cancelling > none:
		e.say(e.Cancelling, signal.AnswerCancelled, "the job ran and was stopped", at.ended)
	case phase == jobcontrol.Ended:
		if !wasStarted {
			e.say(revision, signal.AnswerStarted, "", at.begun)
		}
		e.say(revision, signal.AnswerFinished, "", at.ended)
	case phase == jobcontrol.Aborted:
		reason := "aborted at the machine"
		if e.Cancelling > none {
			revision, reason = max(revision, e.Cancelling), ""
		}
		e.say(revision, signal.AnswerCancelled, reason, at.ended)
	}
	e.Phase, e.Revision = phase, max(revision, e.Revision)
}

// waits adds the answer for a job that has not started: it is accepted, or held by the ERP's own wish.
func (f *follower) waits(e *entry, phase jobcontrol.Phase, revision int64, now time.Time) {
	switch before := e.Phase == jobcontrol.NotAllowed || e.Phase == jobcontrol.Allowed; {
	case e.Revoked && phase == jobcontrol.NotAllowed:
		e.say(revision, signal.AnswerHeld, "may not start", now)
	case before && revision <= e.Revision && e.Last != signal.AnswerHeld:
		// whether it may start concerns the machine only
	default:
		e.say(revision, signal.AnswerAccepted, "", now)
	}
}

// say adds an answer. Its position counts the answers of its kind, so that a second start of a job is another one. Its time is
// not before that of the answer before: the machine's clock and ours differ, and whoever sorts by time must see the last one
// last.
func (e *entry) say(revision int64, status, reason string, at time.Time) {
	if e.Times == nil {
		e.Times = map[string]int{}
	}
	if at.Before(e.LastAt) {
		at = e.LastAt
	}
	e.Times[status]++
	e.Last, e.LastAt = status, at
	position := strings.Join([]string{"job", e.Machine, e.Order, strconv.FormatInt(revision, 10), status, strconv.Itoa(e.Times[status])}, "|")
	e.Telling = append(e.Telling, answer{Position: position, Revision: revision, Status: status, Reason: reason, At: at})
}

// missing decides what it means that a job is not in the list.
func (f *follower) missing(ctx context.Context, e *entry) error {
	switch {
	case e.Phase.Over():
		return nil // removed after its end
	case e.Cancelling > none && e.Done >= e.Cancelling:
		if e.Revision < e.Cancelling {
			e.say(e.Cancelling, signal.AnswerCancelled, "", time.Now().UTC().Truncate(time.Millisecond))
			e.Phase, e.Revision = jobcontrol.Gone, e.Cancelling
		}
		return nil
	case e.Phase == jobcontrol.Gone, e.Cancelling > none:
		return nil // it was never seen, or whoever cancels it is about to find out
	}
	since, ok := f.gone[e.Order]
	if !ok {
		f.gone[e.Order] = time.Now()
		return nil
	}
	if time.Since(since) < f.pace.settle {
		return nil // a server that has just started may not have its list yet
	}
	if r := f.ask(ctx, e, jobcontrol.Ended); r != nil {
		if phase := jobcontrol.PhaseOf(r.States); phase.Over() {
			f.advance(e, phase, e.Revision, momentsOf(r))
			e.attach(r)
			return nil
		}
	}
	if e.Phase.Started() {
		return &unusable{fmt.Sprintf("job %q ran and has disappeared from the machine's list: whether it has ended is not known", e.Order),
			"look at the machine, and book the order's end by hand"}
	}
	// Removed by an operator, or lost with the machine's memory: a person knows which.
	e.say(max(e.Revision, 0), signal.AnswerRejected, "the machine has it no longer and had not started it: release it again, or cancel it",
		time.Now().UTC().Truncate(time.Millisecond))
	e.Phase, e.Done = jobcontrol.Gone, none
	return nil
}

// ask gets the response of a job that has started, for its times; nil where there is none.
func (f *follower) ask(ctx context.Context, e *entry, phase jobcontrol.Phase) *jobcontrol.Response {
	if f.spot.response == nil || !phase.Started() && !phase.Over() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, f.pace.call)
	defer cancel()
	res, err := f.session.method(ctx, f.spot.provider, f.spot.response, []*ua.Variant{ua.MustVariant(e.Order)})
	if err != nil || len(res.OutputArguments) == 0 {
		return nil
	}
	x, _ := res.OutputArguments[0].Value().(*ua.ExtensionObject)
	var r jobcontrol.Response
	if x == nil || decodeObject(x, r.Decode) != nil || r.OrderID != e.Order {
		return nil
	}
	return &r
}

// tell hands the prepared answers on; after a crash the same again.
func (f *follower) tell(ctx context.Context, e *entry) error {
	if len(e.Telling) == 0 {
		return nil
	}
	b := signal.Batch{Source: f.env.Source}
	for _, a := range e.Telling {
		b.Signals = append(b.Signals, signal.Signal{Tag: signal.AnswerTag, Position: a.Position, SourceTime: a.At, ReceivedTime: time.Now(),
			Status: "Good", Value: a.value(e)})
	}
	if err := f.emit(ctx, b); err != nil {
		return fmt.Errorf("store what became of work order %q: %w", e.Order, err)
	}
	e.Telling = nil
	return f.journal.put(*e)
}

// value is an answer as rules see it.
func (a *answer) value(e *entry) map[string]any {
	v := map[string]any{"order_no": e.Order, "revision": signal.Number(strconv.FormatInt(a.Revision, 10)), "status": a.Status,
		"reason": a.Reason, "changed_at": a.At, "machine": e.Machine}
	if len(a.Data) > 0 {
		data := map[string]any{}
		for id, text := range a.Data {
			data[id] = text
		}
		v["data"] = data
	}
	var materials []any
	for _, m := range a.Materials {
		materials = append(materials, map[string]any{"use": m.Use, "item": m.Item, "lot": m.Lot, "quantity": m.Quantity, "unit": m.Unit})
	}
	if materials != nil {
		v["materials"] = materials
	}
	return v
}

// clear removes a job whose end is told from the machine's list. It does no harm when it comes twice.
func (f *follower) clear(ctx context.Context, e *entry) error {
	method := f.spot.methods["Clear"]
	if method == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, f.pace.call)
	defer cancel()
	comment := ua.MustVariant([]*ua.LocalizedText{ua.NewLocalizedText(f.config.JobControl.Comment)})
	if _, err := f.session.method(ctx, f.spot.object, method, []*ua.Variant{ua.MustVariant(e.Order), comment}); err != nil {
		return fmt.Errorf("clear job %q: %w", e.Order, err)
	}
	return nil
}
