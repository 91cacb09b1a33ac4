package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/linekeeper/linekeeper/agent/buffer"
	"github.com/linekeeper/linekeeper/agent/inbox"
	"github.com/linekeeper/linekeeper/agent/localui"
	"github.com/linekeeper/linekeeper/agent/recording"
	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/status"
	"github.com/linekeeper/linekeeper/agent/translate"
	"github.com/linekeeper/linekeeper/agent/uplink"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// Agent is one plant agent. Make it with New, then Run it once.
type Agent struct {
	cfg     Config
	version string
	log     *slog.Logger
	now     func() time.Time

	board   *status.Board
	pipe    *pipeline
	inbox   *inbox.Inbox
	uplink  *uplink.Uplink
	orders  *orders
	sources []source
	ui      net.Listener
	page    localui.Deps

	started  time.Time
	judgment judgment
	lost     atomic.Pointer[lostRange]
	records  recordings

	publishers []signal.Publisher // sources that tell others how the agent is
}

// source is one driver and its name.
type source struct {
	name, kind string
	driver     signal.Driver
}

// ErrConfig says that the configuration has faults; the text lists them.
var ErrConfig = errors.New("configuration")

// Options are what the command decides.
type Options struct {
	Version string
	Logger  *slog.Logger
	Kinds   []signal.Kind
	// Salvager is the command that reads damaged buffer files, see buffer.Config; empty: this process does it.
	Salvager []string
	// Now is the clock by which facts and records are timed; nil means time.Now. Pauses are timed by the machine's own.
	Now func() time.Time
	// Listen opens the address of the operator's page; nil means net.Listen.
	Listen func(network, address string) (net.Listener, error)
	// Disk is what the buffers ask of the disk; nil means the real one.
	Disk buffer.Disk
	// Admin is what an admin can do on the page.
	Admin AdminOptions
}

// New checks the configuration, opens the buffers and the page's port, and makes the drivers. It reaches no other machine.
// The caller must Run the agent or Close it.
func New(cfg Config, o Options) (*Agent, error) {
	if faults := cfg.Check(o.Kinds); len(faults) > 0 {
		var list []error
		for _, f := range faults {
			list = append(list, errors.New(f.At(cfg.Path)))
		}
		return nil, fmt.Errorf("%w: %w", ErrConfig, errors.Join(list...))
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Listen == nil {
		o.Listen = net.Listen
	}
	a := &Agent{cfg: cfg, version: o.Version, log: o.Logger, now: o.Now, orders: newOrders(cfg)}
	a.started = a.now()
	if err := a.open(o); err != nil {
		a.Close()
		return nil, err
	}
	if err := a.makeSources(o.Kinds); err != nil {
		a.Close()
		return nil, err
	}
	if err := a.makeUplink(); err != nil {
		a.Close()
		return nil, err
	}
	admin, err := localui.NewAdmin(localui.TokenFile(a.cfg.DataDir), a.now)
	if err != nil {
		a.Close()
		return nil, err
	}
	a.page = localui.Deps{Snapshot: a.Snapshot, Hosts: a.cfg.AllowedHosts, Admin: admin, Tools: a.adminTools(o.Admin)}
	return a, nil
}

func (a *Agent) open(o Options) error {
	if err := os.MkdirAll(a.cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	tc := a.cfg.translateConfig()
	rules, err := translate.New(tc, factkey.Random)
	if err == nil && rules.Masks() {
		if tc.PseudonymKey, err = a.pseudonymKey(); err != nil {
			return err
		}
		rules, err = translate.New(tc, factkey.Random)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	a.board = status.NewBoard(a.now)
	a.pipe = &pipeline{rules: rules, apply: rules.Translate, board: a.board, recent: newRecent(500), now: a.now, log: a.log, ticked: make(chan struct{}, 1)}
	open := func(name string, limit Size, overflow buffer.Overflow) (*buffer.Buffer, error) {
		b, err := buffer.Open(buffer.Config{
			Dir: filepath.Join(a.cfg.DataDir, name), Limit: int64(limit), DiskReserve: int64(a.cfg.Buffer.DiskReserve),
			SegmentSize: int64(a.cfg.Buffer.SegmentSize), Overflow: overflow, Now: a.now, Logger: a.log, Salvager: o.Salvager, Disk: o.Disk,
		})
		if err != nil {
			return nil, inUse(a.cfg.DataDir, fmt.Errorf("open %s buffer: %w", name, err))
		}
		return b, nil
	}
	if a.pipe.business, err = open("business", a.cfg.Buffer.BusinessLimit, buffer.Block); err != nil {
		return err
	}
	if a.pipe.telemetry, err = open("telemetry", a.cfg.Buffer.TelemetryLimit, buffer.DropOldest); err != nil {
		return err
	}
	if a.inbox, err = inbox.Open(filepath.Join(a.cfg.DataDir, "inbox.db")); err != nil {
		return inUse(a.cfg.DataDir, err)
	}
	if note := a.inbox.Recovered(); note != "" {
		a.log.Error("the inbox was damaged", "what", note)
	}
	a.pipe.inbox = a.inbox
	a.pipe.recent.load(a.inbox.Facts(), a.pipe.business)
	if a.ui, err = o.Listen("tcp", a.cfg.Listen); err != nil {
		return fmt.Errorf("open the page's address %q: %w (choose another in listen:)", a.cfg.Listen, err)
	}
	return nil
}

// inUse adds the next step to the error of a data folder that another process works in.
func inUse(dir string, err error) error {
	if errors.Is(err, buffer.ErrInUse) || errors.Is(err, inbox.ErrInUse) {
		return fmt.Errorf("%w: another plantagent runs on data folder %q (stop it first, or give this one a data_dir of its own)", err, dir)
	}
	return err
}

// Addr is the address of the operator's page.
func (a *Agent) Addr() string { return a.ui.Addr().String() }

// Close lets go of everything New opened. Run does it by itself.
func (a *Agent) Close() error {
	var errs []error
	if a.ui != nil {
		errs = append(errs, ignoreClosed(a.ui.Close()))
	}
	if a.inbox != nil {
		errs = append(errs, a.inbox.Close())
	}
	if a.pipe != nil {
		for _, b := range []*buffer.Buffer{a.pipe.business, a.pipe.telemetry} {
			if b != nil {
				errs = append(errs, b.Close())
			}
		}
	}
	return errors.Join(errs...)
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (a *Agent) makeSources(kinds []signal.Kind) error {
	for _, sc := range a.cfg.Sources {
		dir := a.cfg.sourceDir(sc.Name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make folder of source %q: %w", sc.Name, err)
		}
		kind, _ := findKind(kinds, sc.Kind)
		d, err := kind.New(a.cfg.env(sc, &reporter{board: a.board, source: sc.Name}, a.log.With("source", sc.Name)), sc.Decode)
		if err != nil {
			return fmt.Errorf("%w: source %q: %w", ErrConfig, sc.Name, err)
		}
		a.board.AddSource(sc.Name, sc.Kind)
		a.sources = append(a.sources, source{name: sc.Name, kind: sc.Kind, driver: d})
		a.notePublisher(d)
		if to, ok := d.(signal.OrderReceiver); ok && to.TakesOrders() {
			a.orders.receivers = append(a.orders.receivers, receiver{name: sc.Name, to: to})
		}
	}
	return nil
}

func (a *Agent) makeUplink() (err error) {
	if a.cfg.Hub.Address == "" {
		return nil
	}
	cfg := a.cfg.Hub
	cfg.Plant, cfg.Agent, cfg.Version, cfg.Now = a.cfg.Plant, a.cfg.Agent, a.version, a.now
	cfg.StatusEvery = 10 * time.Second // the hub closes an order only after the plant said that nothing of it is left
	a.uplink, err = uplink.New(cfg, uplink.Deps{
		Business: a.pipe.business, Telemetry: a.pipe.telemetry, Inbox: a.inbox,
		Marks: a.resumeFrom, Verdict: a.verdict, HubLost: a.hubLost,
		Status: a.hubStatus, StatusChanged: a.board.Changed(), Logger: a.log,
	})
	if err != nil {
		return fmt.Errorf("%w: hub: %w", ErrConfig, err)
	}
	a.pipe.hubSuspects = a.uplink.ClockSuspect
	return nil
}

// resumePatience is how long taking over the hub's marks may wait for room in the buffer: only the line that waits for it
// here can make room.
const resumePatience = 2 * time.Second

// errFacts says that an Update would need room for facts.
var errFacts = errors.New("there are facts to store")

// resumeFrom lets the counters go on from what the hub knows, when this agent's data is older than the hub's or the
// counters are new here. A full buffer does not stop the line: the marks come again with the next hello, and until then the
// hub trims what it holds already.
func (a *Agent) resumeFrom(ctx context.Context, marks []*pb.SourceMark, wentBack bool) error {
	if wentBack {
		a.log.Warn("this agent's data went back in time (a restored copy?): counters resume from what the hub holds")
	}
	var res translate.Result
	var t told
	var seqs []uint64
	resume := func(room bool) func(*buffer.Tx) error {
		return func(tx *buffer.Tx) error {
			now := a.now()
			t = a.pipe.tell("", now)
			if res = a.pipe.rules.ResumeFrom(tx, now, marks); len(res.Facts) > 0 && !room {
				return errFacts
			}
			seqs = a.pipe.stage(tx, now, res)
			return nil
		}
	}
	err := a.pipe.business.Update(ctx, resume(false))
	if errors.Is(err, errFacts) {
		short, cancel := context.WithTimeout(ctx, resumePatience)
		defer cancel()
		err = a.pipe.business.Commit(short, resume(true))
	}
	if errors.Is(err, buffer.ErrFull) && ctx.Err() == nil {
		a.log.Warn("the buffer is full: the hub's counter marks are taken over at the next connect", "err", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("resume counters from the hub's marks: %w", err)
	}
	a.pipe.told(t, func(e *recording.Event) { e.Marks = recording.FromMarks(marks) })
	a.pipe.after(ctx, "", res, seqs)
	return nil
}

func (a *Agent) verdict(stream pb.Stream, generation string, v *pb.Verdict) {
	if v.Kind == pb.Verdict_KIND_DUPLICATE {
		a.log.Debug("the hub had this record already", "seq", v.Seq)
		return
	}
	a.log.Warn("the hub kept a record aside", "kind", v.Kind, "seq", v.Seq, "generation", generation, "reason", v.Reason)
}

// hubLost keeps the news for the page: the records are gone here too, only the plant's own books can tell what was in them.
func (a *Agent) hubLost(stream pb.Stream, generation string, from, to uint64) {
	a.log.Error("the hub no longer holds records that it once acknowledged: it was restored from an older copy", "from", from+1, "to", to, "generation", generation)
	if stream == pb.Stream_STREAM_BUSINESS {
		a.lost.Store(&lostRange{from + 1, to})
		a.board.Touch()
	}
}

// lostRange is business records that neither side holds any more.
type lostRange struct{ first, last uint64 }

// Run works until ctx ends, then stops in the order in which nothing can be lost: sources first, the page last.
func (a *Agent) Run(ctx context.Context) error {
	defer a.Close()
	if err := a.resume(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // stopped before it began
		}
		return err
	}
	serving := a.servePage()
	inner := newGroup(ctx) // uplink, orders, ticker: outlive the sources
	if a.uplink != nil {
		inner.run(func(ctx context.Context) {
			if err := a.uplink.Run(ctx); err != nil && ctx.Err() == nil {
				a.log.Error("the uplink ended", "err", err)
			}
		})
	}
	inner.run(a.runOrders)
	inner.run(a.pipe.runTicker)
	inner.run(a.runPublishers)
	inner.run(a.runNotes)

	outer := newGroup(ctx)
	for _, s := range a.sources {
		outer.run(func(ctx context.Context) { a.runSource(ctx, s) })
	}
	a.log.Info("the agent runs", "plant", a.cfg.Plant, "agent", a.cfg.Agent, "page", "http://"+a.Addr(), "version", a.version)
	<-ctx.Done()
	outer.stop()
	inner.stop()
	a.records.close()
	serving()
	a.log.Info("the agent has stopped")
	return a.Close()
}

// resume gives rules and inbox what a crash may have parted: orders that the rules' state does not know, and states of
// orders that the inbox missed.
func (a *Agent) resume(ctx context.Context) error {
	if err := a.tellRules(ctx); err != nil {
		return err
	}
	for _, s := range a.pipe.rules.OrderStates(readOnly{a.pipe.business}) {
		if err := a.inbox.Apply(s.State, s.At); err != nil {
			return fmt.Errorf("note state of work order %q: %w", s.State.GetOrderNo(), err)
		}
	}
	return nil
}

// The pause before a driver is started again doubles from restartMin to restartMax; a driver that worked for restartMax
// begins at the least again.
const (
	restartMin = time.Second
	restartMax = time.Minute
)

// runSource runs one driver for ever: a driver that ends or panics is shown as failed and started again, and its
// neighbours do not notice.
func (a *Agent) runSource(ctx context.Context, s source) {
	wait := restartMin
	for ctx.Err() == nil {
		began := time.Now()
		err := a.runOnce(ctx, s)
		if ctx.Err() != nil {
			break
		}
		if time.Since(began) >= restartMax {
			wait = restartMin
		}
		a.board.SetState(s.name, string(signal.StateFailed), fmt.Sprintf("%v; it is started again", err))
		a.log.Error("a driver ended", "source", s.name, "err", err, "again_in", wait)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
		case <-timer.C:
		}
		wait = min(2*wait, restartMax)
	}
	a.board.SetState(s.name, string(signal.StateStopped), "the agent stops")
}

// runOnce runs a driver from its durable cursor. Its error says why it ended, which it never should by itself.
func (a *Agent) runOnce(ctx context.Context, s source) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the driver panicked: %v", r)
			a.log.Error("a driver panicked", "source", s.name, "panic", r, "stack", string(debug.Stack()))
		}
	}()
	emit := func(ctx context.Context, b signal.Batch) error {
		b.Source = s.name // the cursor must come back to who sent it
		return a.pipe.emit(ctx, b)
	}
	if err := s.driver.Run(ctx, a.pipe.business.State(cursorPrefix+s.name), emit); err != nil {
		return fmt.Errorf("the driver ended: %w", err)
	}
	return errors.New("the driver ended without saying why")
}

// servePage serves the operator's page; the returned function stops it.
func (a *Agent) servePage() (stop func()) {
	srv := &http.Server{
		Handler:           localui.New(a.page),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := srv.Serve(a.ui); !errors.Is(err, http.ErrServerClosed) {
			a.log.Error("the page ended", "err", err)
		}
	})
	return func() {
		srv.Close() // a page view is not worth waiting for
		wg.Wait()
	}
}

// group is goroutines that end together.
type group struct {
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// newGroup returns a group that outlives parent's end until stop is called: the agent decides the order of stopping.
func newGroup(parent context.Context) *group {
	ctx, cancel := context.WithCancel(context.WithoutCancel(parent))
	return &group{ctx: ctx, cancel: cancel}
}

func (g *group) run(f func(ctx context.Context)) { g.wg.Go(func() { f(g.ctx) }) }

func (g *group) stop() {
	g.cancel()
	g.wg.Wait()
}

// reporter puts what a driver says of itself on the board.
type reporter struct {
	board  *status.Board
	source string
}

func (r *reporter) State(s signal.State, reason string) {
	r.board.SetState(r.source, string(s), reason)
}

func (r *reporter) Problem(key string, p *signal.Problem) {
	sp := status.Problem{Key: key}
	if p != nil {
		sp.Code, sp.Item, sp.Reason, sp.NextStep, sp.Missing = p.Code, p.Item, p.Reason, p.NextStep, p.Missing
	}
	r.board.SetProblem(r.source, sp)
}
