package opcua

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/gopcua/opcua/ua"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/opcua/jobcontrol"
)

// jobMachine is one receiver of ISA-95 Job Control.
type jobMachine struct {
	*orders
	receiver Receiver
	// turn is held by whoever talks to the machine; wake asks the follower to look now.
	turn, wake chan struct{}
	news       news

	// session and spot are where the receiver was found; they belong to whoever has the turn.
	session *live
	spot    *spot
	// found is spot for those who listen to events.
	found atomic.Pointer[spot]
}

func (m *jobMachine) name() string   { return m.receiver.Node }
func (m *jobMachine) center() string { return m.receiver.WorkCenter }

// jobs are what the machine lists, by order number.
type jobs map[string]*jobcontrol.Job

// listed is a look at the list, at a time by the server's clock; zero when it does not say.
type listed struct {
	jobs jobs
	at   time.Time
}

// rounds bounds how often one delivery looks at the list anew because the machine changed it meanwhile.
const rounds = 4

// errAgain says that the machine's list has to be looked at before it goes on.
var errAgain = errors.New("the machine changed the job meanwhile")

// deliver brings one revision of an order, or its cancellation, to the machine. The machine's list is read first, always:
// it alone knows what earlier calls did.
func (m *jobMachine) deliver(ctx context.Context, o signal.WorkOrder) error {
	release, err := turn(ctx, m.turn)
	if err != nil {
		return err
	}
	defer release()
	defer m.look()
	e := m.journal.get(m.name(), o.OrderNo)
	if !o.Cancelled && !o.Held && e.Done >= o.Revision && e.Cancelling != o.Revision && e.Open.IsZero() {
		return nil // the machine has had it, whatever became of it since
	}
	for range rounds {
		list, err := m.list(ctx)
		if err != nil {
			return err
		}
		switch job := list[o.OrderNo]; {
		case o.Cancelled:
			err = m.cancel(ctx, o, &e, job)
		case o.Held:
			err = m.hold(ctx, o, &e, job)
		case job == nil:
			err = m.store(ctx, o, &e, list)
		default:
			err = m.revise(ctx, o, &e, job)
		}
		if !errors.Is(err, errAgain) && !isLost(err) {
			return err
		}
		if isLost(err) && ctx.Err() != nil {
			return err
		}
	}
	return fmt.Errorf("%w, %d times in a row; it is tried again", errAgain, rounds)
}

// look lets the follower look at once.
func (m *jobMachine) look() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// here finds the receiver in the present session.
func (m *jobMachine) here(ctx context.Context) error {
	l, err := m.orders.session(ctx)
	if err != nil {
		return err
	}
	if l == m.session && m.spot != nil {
		return nil
	}
	s, err := l.locate(ctx, m.receiver.Node)
	if err != nil {
		return err
	}
	m.session, m.spot = l, s
	m.found.Store(s)
	return nil
}

// list reads the machine's jobs.
func (m *jobMachine) list(ctx context.Context) (jobs, error) {
	l, err := m.timedList(ctx)
	return l.jobs, err
}

func (m *jobMachine) timedList(ctx context.Context) (listed, error) {
	if err := m.here(ctx); err != nil {
		return listed{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, m.pace.call)
	defer cancel()
	values, err := m.session.read(ctx, []*ua.ReadValueID{{NodeID: m.spot.list, AttributeID: ua.AttributeIDValue, DataEncoding: &ua.QualifiedName{}}}, 0)
	if err != nil {
		return listed{}, fmt.Errorf("read the machine's list of jobs: %w", err)
	}
	v := values[0]
	if quality(v.Status) == signal.Bad {
		return listed{}, fmt.Errorf("read the machine's list of jobs: %s", statusName(v.Status))
	}
	list := jobs{}
	objects, _ := content(v).([]*ua.ExtensionObject)
	for _, x := range objects {
		var job jobcontrol.Job
		if err := decodeObject(x, job.Decode); err != nil {
			return listed{}, fmt.Errorf("read the machine's list of jobs: %w", err)
		}
		if old := list[job.Order.ID]; old == nil || jobcontrol.PhaseOf(old.States).Over() {
			list[job.Order.ID] = &job
		}
	}
	return listed{list, v.ServerTimestamp}, nil
}

// decodeObject reads a structure whose bytes were kept.
func decodeObject(x *ua.ExtensionObject, decode func([]byte) (int, error)) error {
	if x == nil {
		return errors.New("an element is null")
	}
	e, ok := x.Value.(*encoded)
	if !ok {
		return fmt.Errorf("structure %v is not the expected one", x.TypeID)
	}
	_, err := decode(e.bytes)
	return err
}

// object wraps a structure for sending.
func object(encoding *ua.NodeID, v interface{ Encode() ([]byte, error) }) *ua.Variant {
	return ua.MustVariant(&ua.ExtensionObject{TypeID: &ua.ExpandedNodeID{NodeID: encoding}, EncodingMask: ua.ExtensionObjectBinary, Value: v})
}

// call carries out a method of the receiver. Before, the intent is durable; after an answer the caller notes what it means.
// Its error is a *lostCall, a *jobcontrol.Answer, or the server's Bad status, which is no effect.
func (m *jobMachine) call(ctx context.Context, e *entry, name string, first *ua.Variant) error {
	method := m.spot.methods[name]
	if method == nil {
		return refuse("the machine has no method %s", name)
	}
	e.Open = time.Now().UTC()
	if err := m.journal.put(*e); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, m.pace.call)
	defer cancel()
	comment := ua.MustVariant([]*ua.LocalizedText{ua.NewLocalizedText(m.config.JobControl.Comment)})
	res, err := m.session.method(ctx, m.spot.object, method, []*ua.Variant{first, comment})
	if err != nil {
		m.env.Logger.Warn("a machine gave no answer to a call", "machine", m.name(), "method", name, "order", e.Order, "error", plain(err))
		return &lostCall{name, err}
	}
	e.Open = time.Time{}
	if quality(res.StatusCode) == signal.Bad {
		return fmt.Errorf("%s: the server answers %s", name, statusName(res.StatusCode))
	}
	var status uint64
	if len(res.OutputArguments) > 0 {
		status, _ = res.OutputArguments[0].Value().(uint64)
	}
	return jobcontrol.Check(name, status)
}

// done notes that the machine has a revision.
func (m *jobMachine) done(o signal.WorkOrder, e *entry) error {
	if e.Done >= o.Revision && e.Open.IsZero() {
		return nil
	}
	e.Done, e.Tried, e.Open = max(e.Done, o.Revision), max(e.Tried, o.Revision), time.Time{}
	e.Cancelling, e.Stop = none, false
	return m.journal.put(*e)
}

// settled reports whether a call whose answer was lost can no longer have an effect.
func (m *jobMachine) settled(e *entry) error {
	if e.Open.IsZero() {
		return nil
	}
	if left := m.pace.settle - time.Since(e.Open); left > 0 {
		return fmt.Errorf("a call got no answer and the job is not in the machine's list: it is sent again in %s, should it not appear until then",
			left.Round(time.Second))
	}
	return nil
}

// store hands a job over that the machine does not have.
func (m *jobMachine) store(ctx context.Context, o signal.WorkOrder, e *entry, list jobs) error {
	if err := m.settled(e); err != nil {
		return err
	}
	if e.Done > none && (e.Phase.Over() || e.Phase.Started()) {
		return refuse("the machine has had job %q already and it is %s: a new revision would make it twice", o.OrderNo, e.Phase)
	}
	name := "Store"
	if m.config.JobControl.Start == storeAndStart && m.spot.methods["StoreAndStart"] != nil || m.spot.methods["Store"] == nil {
		name = "StoreAndStart"
	}
	job := jobOrder(o)
	e.Tried, e.Phase, e.Cancelling, e.Stop = o.Revision, jobcontrol.Gone, none, false
	err := m.call(ctx, e, name, object(m.spot.order, job))
	switch {
	case err == nil:
		return m.done(o, e)
	case isLost(err):
		return m.afterLoss(ctx, err)
	case jobcontrol.Says(err, jobcontrol.UnableToAccept):
		now, again := m.list(ctx)
		if again != nil {
			return again
		}
		if now[o.OrderNo] != nil {
			return errors.Join(m.journal.put(*e), errAgain) // an earlier call came through after all
		}
		if limit := m.limit(ctx); limit > 0 && len(now) >= limit {
			return errors.Join(fmt.Errorf("the machine's list is full: it has %d jobs and takes %d", len(now), limit), m.journal.put(*e))
		}
		return m.refused(e, err)
	}
	return m.refused(e, err)
}

// refused turns the machine's answer into a refusal; a Bad status of the server is tried again.
func (m *jobMachine) refused(e *entry, err error) error {
	if err2 := m.journal.put(*e); err2 != nil {
		return err2
	}
	var a *jobcontrol.Answer
	if errors.As(err, &a) {
		return refuse("%v", err)
	}
	return err
}

// afterLoss gives an answer that was lost the chance to be seen in the list at once, while the session lives.
func (m *jobMachine) afterLoss(ctx context.Context, err error) error {
	if l := m.lobby.present(); l == nil || l != m.session {
		return fmt.Errorf("%w", errors.Join(errAfterLoss, errors.Unwrap(err)))
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

var errAfterLoss = errors.New("the connection broke before the machine answered: what it did is looked up first")

// limit is how many jobs the machine takes; 0 when it does not say.
func (m *jobMachine) limit(ctx context.Context) int {
	refs, err := m.session.children(ctx, m.spot.object, hasProperty, ua.NodeClassVariable)
	if err != nil {
		return 0
	}
	for _, r := range refs {
		if r.BrowseName == nil || r.BrowseName.Name != "MaxDownloadableJobOrders" {
			continue
		}
		values, err := m.session.read(ctx, []*ua.ReadValueID{{NodeID: r.NodeID.NodeID, AttributeID: ua.AttributeIDValue, DataEncoding: &ua.QualifiedName{}}}, 0)
		if err == nil {
			n, _ := content(values[0]).(uint16)
			return int(n)
		}
	}
	return 0
}

const hasProperty = 46

// revise brings a job that the machine lists to the order's revision.
func (m *jobMachine) revise(ctx context.Context, o signal.WorkOrder, e *entry, job *jobcontrol.Job) error {
	want, has := jobOrder(o), revisionOf(&job.Order)
	phase := jobcontrol.PhaseOf(job.States)
	if e.Paused || e.Revoked {
		return m.goOn(ctx, o, e, phase)
	}
	same := sameJob(want, &job.Order)
	switch {
	case has == o.Revision, has == none && same && (e.Tried == none || e.Tried >= o.Revision):
		return m.allow(ctx, o, e, phase)
	case has > o.Revision:
		return refuse("the machine has revision %d of job %q already", has, o.OrderNo)
	case phase.Over():
		return refuse("job %q is %s at the machine: revision %d comes too late", o.OrderNo, phase, o.Revision)
	case phase.Started() && same:
		return m.done(o, e) // nothing of it concerns the machine
	case phase.Started():
		return refuse("job %q is %s at the machine, which does not change jobs that run: finish it there, or stop it and send a new order", o.OrderNo, phase)
	}
	e.Tried = o.Revision
	err := m.call(ctx, e, "Update", object(m.spot.order, want))
	switch {
	case err == nil:
		return m.done(o, e)
	case isLost(err):
		return m.afterLoss(ctx, err)
	case jobcontrol.Says(err, jobcontrol.InvalidStatus|jobcontrol.UnknownOrder):
		return errors.Join(m.journal.put(*e), errAgain)
	}
	return m.refused(e, err)
}

// hold keeps a job from running on, or from starting.
func (m *jobMachine) hold(ctx context.Context, o signal.WorkOrder, e *entry, job *jobcontrol.Job) error {
	if job == nil {
		if err := m.settled(e); err != nil {
			return err
		}
		return m.done(o, e) // there is nothing to hold
	}
	switch phase := jobcontrol.PhaseOf(job.States); phase {
	case jobcontrol.Running:
		e.Paused = true
		return m.command(ctx, e, "Pause", o.OrderNo, errAgain)
	case jobcontrol.Allowed:
		e.Revoked = true
		return m.command(ctx, e, "RevokeStart", o.OrderNo, errAgain)
	case jobcontrol.Ended, jobcontrol.Aborted:
		return refuse("job %q is %s at the machine: it can no longer be held", o.OrderNo, phase)
	}
	return m.done(o, e)
}

// goOn takes a hold back before anything else is done with the job.
func (m *jobMachine) goOn(ctx context.Context, o signal.WorkOrder, e *entry, phase jobcontrol.Phase) error {
	paused, revoked := e.Paused, e.Revoked
	switch {
	case paused && phase == jobcontrol.Interrupted:
		return m.command(ctx, e, "Resume", o.OrderNo, errAgain)
	case revoked && phase == jobcontrol.NotAllowed:
		return m.command(ctx, e, "Start", o.OrderNo, errAgain)
	}
	e.Paused, e.Revoked = false, false
	return errors.Join(m.journal.put(*e), errAgain)
}

// command calls a method of one job. After a success the caller's error says how to go on; the list tells what came of it.
func (m *jobMachine) command(ctx context.Context, e *entry, method, order string, success error) error {
	err := m.call(ctx, e, method, ua.MustVariant(order))
	switch {
	case err == nil:
		return errors.Join(m.journal.put(*e), success)
	case isLost(err):
		return m.afterLoss(ctx, err)
	case jobcontrol.Says(err, jobcontrol.InvalidStatus|jobcontrol.UnknownOrder):
		return errors.Join(m.journal.put(*e), errAgain)
	}
	return m.refused(e, err)
}

// allow lets a job that is only stored start, where that is wanted and a lost answer had left it undone.
func (m *jobMachine) allow(ctx context.Context, o signal.WorkOrder, e *entry, phase jobcontrol.Phase) error {
	missing := m.config.JobControl.Start == storeAndStart && m.spot.methods["StoreAndStart"] == nil
	if phase != jobcontrol.NotAllowed || !missing {
		return m.done(o, e)
	}
	return m.command(ctx, e, "Start", o.OrderNo, errAgain)
}

// cancel takes a job back. What runs already is left, stopped or aborted, as the configuration says; nothing is cancelled
// that a machine has begun without its being told so.
func (m *jobMachine) cancel(ctx context.Context, o signal.WorkOrder, e *entry, job *jobcontrol.Job) error {
	if job == nil {
		if err := m.settled(e); err != nil {
			return err // it may still appear
		}
		if e.Phase.Over() && e.Cancelling == none {
			return refuse("job %q was %s at the machine before", o.OrderNo, e.Phase)
		}
		e.Cancelling = o.Revision
		return m.cancelled(o, e)
	}
	phase, method := jobcontrol.PhaseOf(job.States), "Cancel"
	switch {
	case phase == jobcontrol.Ended && (e.Cancelling == none || !e.Stop):
		return m.tooLate(e, "job %q has ended at the machine: the cancellation comes too late", o.OrderNo)
	case phase.Over():
		e.Cancelling = max(e.Cancelling, o.Revision)
		return m.cancelled(o, e)
	case phase.Started():
		switch m.config.JobControl.CancelRunning {
		case refuseCancel:
			return m.tooLate(e, "job %q is %s at the machine: the cancellation comes too late; stop it there, or let it end", o.OrderNo, phase)
		case stopCancel:
			method = "Stop"
		default:
			method = "Abort"
		}
	}
	e.Cancelling, e.Stop = o.Revision, method == "Stop"
	err := m.call(ctx, e, method, ua.MustVariant(o.OrderNo))
	switch {
	case err == nil:
		return m.cancelled(o, e)
	case isLost(err):
		return m.afterLoss(ctx, err)
	case jobcontrol.Says(err, jobcontrol.InvalidStatus|jobcontrol.UnknownOrder):
		return errors.Join(m.journal.put(*e), errAgain) // it has started, or gone, in this moment
	}
	e.Cancelling, e.Stop = none, false
	return m.refused(e, err)
}

// cancelled notes that the machine does not make the order any more.
func (m *jobMachine) cancelled(o signal.WorkOrder, e *entry) error {
	e.Done, e.Tried, e.Open = max(e.Done, o.Revision), max(e.Tried, o.Revision), time.Time{}
	return m.journal.put(*e)
}

// tooLate refuses a cancellation: the job goes its way and is followed as before.
func (m *jobMachine) tooLate(e *entry, format string, args ...any) error {
	e.Cancelling, e.Stop, e.Open = none, false, time.Time{}
	if err := m.journal.put(*e); err != nil {
		return err
	}
	return refuse(format, args...)
}
