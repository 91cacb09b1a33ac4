package opcua

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/gopcua/opcua/ua"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// pace is how patient the driver is.
type pace struct {
	tick time.Duration
	// gap is how long a missing message may still be under way before it is asked for.
	gap time.Duration
	// retry and retryMax bound the waits between attempts to connect; login and loginMax those after a refused login.
	retry, retryMax time.Duration
	login, loginMax time.Duration
	// item and itemMax bound the waits before a bad node is tried again.
	item, itemMax time.Duration
	// held is how long a notification may wait for the buffer before the page says so.
	held time.Duration
	// emit is the first wait after a failed emit.
	emit time.Duration
	// remember is how long a gap or an overflow stays on the page.
	remember time.Duration
}

var defaultPace = pace{
	tick: 200 * time.Millisecond, gap: 300 * time.Millisecond,
	retry: 250 * time.Millisecond, retryMax: 8 * time.Second,
	login: time.Minute, loginMax: 15 * time.Minute,
	item: 5 * time.Second, itemMax: 5 * time.Minute,
	held: 5 * time.Second, emit: 100 * time.Millisecond, remember: 24 * time.Hour,
}

type driver struct {
	env    signal.Env
	config Config
	pace   pace
	lobby  lobby
}

// Run reads the server until ctx ends; see signal.Driver.
func (d *driver) Run(ctx context.Context, cursor []byte, emit signal.Emit) error {
	r := newReader(d, emit)
	r.restore(cursor)
	var wg sync.WaitGroup
	wg.Go(func() { r.emitter.run(ctx) })
	wg.Go(func() { d.tend(ctx) })
	r.run(ctx)
	wg.Wait()
	return nil
}

// reader is one run of a driver. Its fields belong to the goroutine of run.
type reader struct {
	env    signal.Env
	config Config
	pace   pace
	log    signal.Logger
	store  store
	lobby  *lobby
	// written are the nodes as the configuration names them, lost why a browse path leads nowhere, by tag.
	written []Node
	lost    map[string]string
	// judged is what was found about the server's certificate.
	judged judgement

	own       identity
	endpoints []*ua.EndpointDescription
	candidate int

	session *userSession

	emitter *emitter
	pending []*delivery

	sub *subscription
	// abandoned are subscriptions that the session may still have.
	abandoned []uint32
	// pins are the namespaces that node names meant when they were first resolved, by the text of the configuration.
	pins map[string]nodeName
	// waiting are the nodes without an item, by tag.
	waiting map[string]*waitingNode
	// publishLimit is how many publish requests the server takes.
	publishLimit int
	// nodes are the places of the nodes in the configuration, by tag.
	nodes map[string]int
	// unfiltered are the tags whose deadband the server does not take.
	unfiltered map[string]bool
	// polled is what was polled by the process before; nil when that had a subscription.
	polled *subscription
	// noSubscriptions is why the server is polled though nobody wrote so; empty when it is not.
	noSubscriptions string
	// gap is the time without a subscription that has not ended, or is not dealt with, yet; nil when there is none.
	gap *gap
	// gaps and gapTime are how many there were since the start, and how long together.
	gaps    int
	gapTime time.Duration
	// lasts are the items of the subscription before, by tag, for their last values.
	lasts map[string]*item
	// silent are the tags of which the page says so.
	silent map[string]bool
	// nextLook is when to look for silent nodes.
	nextLook time.Time
	// itemsAtOnce bounds a request for items after the server hung up on a larger one; 0 is no bound.
	itemsAtOnce int
	// skew is how far the server's clock is ahead of ours.
	skew time.Duration
	// types are the structures of the present session's server.
	types *types

	failures, refusals int
	state              signal.State
	reason             string
	complained         bool
	hostWarning        string
	overflows          overflows
	expiry             map[string]time.Time
	strangers          int
}

func newReader(d *driver, emit signal.Emit) *reader {
	r := &reader{
		env: d.env, config: d.config, pace: d.pace, log: d.env.Logger, store: store{d.env.Dir}, lobby: &d.lobby,
		written: d.config.Nodes, lost: map[string]string{},
		emitter: newEmitter(emit, d.pace.emit), pins: map[string]nodeName{}, waiting: map[string]*waitingNode{},
		publishLimit: outstanding, expiry: map[string]time.Time{},
		nodes: map[string]int{}, unfiltered: map[string]bool{}, lasts: map[string]*item{}, silent: map[string]bool{},
	}
	for i := range r.config.Nodes {
		r.nodes[r.config.Nodes[i].Tag] = i
	}
	return r
}

// restore takes up where the cursor was written.
func (r *reader) restore(cursor []byte) {
	if cursor == nil {
		return
	}
	t, p, err := decodeCursor(r.env.Dir, cursor)
	if err != nil {
		r.log.Warn("cursor is unreadable, values since the last run may be missing", "source", r.env.Source, "error", err)
		r.reportGap(time.Time{}, "the place where the agent stopped reading is unreadable")
		return
	}
	for _, i := range t.Items {
		if n, err := parseNode(i.Node); err == nil {
			if i.URI != "" {
				n.uri, n.index = i.URI, 0
			}
			r.pins[i.Node] = n
		}
	}
	switch {
	case t.Endpoint != r.config.Endpoint:
	case t.Subscription != 0:
		r.sub = resumeSubscription(r.env.Dir, t, p)
	default:
		r.polled = resumeSubscription(r.env.Dir, t, p)
	}
}

func (r *reader) run(ctx context.Context) {
	r.setState(signal.StateConnecting, "connecting to "+r.config.Endpoint)
	for ctx.Err() == nil {
		err := r.round(ctx)
		if ctx.Err() != nil {
			break
		}
		r.complain(err)
		r.rest(ctx, err)
	}
	r.setState(signal.StateStopped, "the agent stops")
}

// round is one connection, from the first byte to the fault that ended it.
func (r *reader) round(ctx context.Context) error {
	if err := r.loadOwn(); err != nil {
		return err
	}
	l, err := r.connect(ctx)
	if err != nil {
		return err
	}
	defer r.disconnect(ctx, l)
	r.refusals = 0
	err = r.deliver(ctx, l)
	if sessionGone(err) {
		r.session = nil
	}
	return err
}

func (r *reader) deliver(ctx context.Context, l *link) error {
	facts, err := l.facts(ctx)
	if err != nil {
		return err
	}
	if r.skew = 0; !facts.now.IsZero() {
		r.skew = time.Until(facts.now)
	}
	if r.types == nil || !l.resumed {
		r.types = newTypes(facts.namespaces)
	}
	r.lobby.open(&live{link: l, facts: facts})
	defer r.lobby.close()
	if r.polls() {
		if err := r.locate(ctx, l, facts, nil); err != nil {
			return err
		}
		return r.poll(ctx, l, facts)
	}
	err = r.attach(ctx, l, facts)
	if r.sub == nil && r.cannotSubscribe(err) {
		return r.poll(ctx, l, facts)
	}
	if err != nil {
		return err
	}
	if err := r.closeGap(ctx, l, facts); err != nil {
		return err
	}
	return r.read(ctx, l, facts)
}

func (r *reader) disconnect(ctx context.Context, l *link) {
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if ctx.Err() != nil {
		l.leave(last)
		return
	}
	l.close(last)
}

// publishTimeout is how long one publish request may wait: each sign of life answers only one of those that wait.
func (r *reader) publishTimeout() time.Duration {
	keepAlive := r.config.KeepAlive
	if r.sub != nil && r.sub.table.KeepAlive > keepAlive {
		keepAlive = r.sub.table.KeepAlive
	}
	return keepAlive*(outstanding+2) + 10*time.Second
}

// complain shows why the connection ended.
func (r *reader) complain(err error) {
	if reason := plain(err); reason != r.reason {
		r.log.Warn("not connected", "source", r.env.Source, "error", reason)
	}
	p := &signal.Problem{Code: "connection_lost", Item: r.config.Endpoint, Reason: plain(err),
		NextStep: "nothing for now: the agent tries again by itself"}
	var t *trouble
	var d *distrust
	switch {
	case errors.As(err, &d):
		p = &signal.Problem{Code: d.code, Item: d.fingerprint, Reason: d.Error(), NextStep: d.nextStep}
	case errors.As(err, &t):
		p = &signal.Problem{Code: t.code, Item: r.config.Endpoint, Reason: plain(t), NextStep: t.nextStep}
	}
	r.setState(signal.StateFailed, p.Reason)
	r.complained = true
	r.problem("connection", p)
}

// plain is an error's text with the status by its name.
func plain(err error) string {
	var status ua.StatusCode
	if !errors.As(err, &status) {
		return err.Error()
	}
	return strings.ReplaceAll(err.Error(), status.Error(), statusName(status))
}

// rest waits before the next attempt: shortly after a fault of the network, long after a refused login, and until a file
// changed where a person has to act.
func (r *reader) rest(ctx context.Context, err error) {
	var t *trouble
	var d *distrust
	switch {
	case errors.As(err, &d):
		r.endpoints = nil
		r.await(ctx, r.pace.loginMax/3, r.store.trusted(), r.store.issuers())
	case errors.As(err, &t) && t.pause:
		wait := min(r.pace.login<<min(r.refusals, 10), r.pace.loginMax)
		r.refusals++
		var files []string
		if u := r.config.User; u != nil {
			files = []string{u.PasswordFile, u.Certificate, u.Key, u.TokenFile}
		}
		r.await(ctx, wait, files...)
	default:
		pause(ctx, jitter(r.pace.retry, r.pace.retryMax, r.failures))
		r.failures++
	}
}

// await waits for d, or until one of the files or folders changes.
func (r *reader) await(ctx context.Context, d time.Duration, paths ...string) {
	end := time.Now().Add(d)
	before := look(paths)
	for time.Now().Before(end) {
		if !pause(ctx, min(time.Second, d)) || look(paths) != before {
			return
		}
	}
}

// look is a print of what lies at the paths.
func look(paths []string) string {
	s := ""
	for _, p := range paths {
		info, err := os.Stat(p)
		if p == "" || err != nil {
			continue
		}
		s += fmt.Sprint(p, info.Size(), info.ModTime().UnixNano())
		entries, _ := os.ReadDir(p)
		for _, e := range entries {
			s += "/" + e.Name()
		}
	}
	return s
}

func (r *reader) setState(s signal.State, reason string) {
	if s == r.state && reason == r.reason {
		return
	}
	r.state, r.reason = s, reason
	r.env.Reporter.State(s, reason)
}

func (r *reader) problem(key string, p *signal.Problem) { r.env.Reporter.Problem(key, p) }

// passing shows a problem that is about something that is over, and takes it away when a person had time to see it.
func (r *reader) passing(key string, p *signal.Problem, now time.Time) {
	r.expiry[key] = now.Add(r.pace.remember)
	r.problem(key, p)
}

func (r *reader) forgetOld(now time.Time) {
	for key, end := range r.expiry {
		if now.After(end) {
			delete(r.expiry, key)
			r.problem(key, nil)
		}
	}
}

func (r *reader) warnHost(warning string) {
	if warning == r.hostWarning {
		return
	}
	r.hostWarning = warning
	if warning == "" {
		r.problem("certificate_host", nil)
		return
	}
	r.problem("certificate_host", &signal.Problem{Code: "certificate_host", Item: r.config.Endpoint, Reason: warning,
		NextStep: "nothing while you trust this very certificate; otherwise use an address that it names"})
}

func (r *reader) zone() *time.Location {
	if r.env.Zone == nil {
		return time.Local
	}
	return r.env.Zone
}

// overflows counts values that the server lost because a queue was full.
type overflows struct {
	total int
	tag   string
	at    time.Time
	shown int
}

func (r *reader) showOverflows(now time.Time) {
	o := &r.overflows
	if o.total == o.shown {
		return
	}
	o.shown = o.total
	r.log.Warn("server queue overflowed", "source", r.env.Source, "times", o.total, "tag", o.tag)
	r.passing("overflow", &signal.Problem{Code: "overflow", Item: o.tag,
		Reason: fmt.Sprintf("the server's queue was full %d times and lost values, last for tag %q at %s", o.total, o.tag,
			o.at.In(r.zone()).Format(time.DateTime)),
		NextStep: "raise queue or sampling of the node, so that the queue holds the longest outage"}, now)
}
