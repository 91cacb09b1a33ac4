package drill

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent"
	"github.com/linekeeper/linekeeper/agent/status"
)

// Sabotage breaks a part of the drill's own, so that a test can see that a broken product is noticed.
const (
	AckBeforeStored = "source-acked-early" // the source is acknowledged before the agent has stored
	HubAckEarly     = "hub-acks-early"     // the receiver acknowledges before it has stored
	HubForgetsKeys  = "hub-forgets-keys"   // the receiver lets a fact take effect as often as it comes
)

// Options say what is drilled, and how.
type Options struct {
	// Config is the live configuration, loaded and checked; ConfigFile is where it stands, Load reads such a file.
	Config     agent.Config
	ConfigFile string
	Load       func(path string) (agent.Config, error)
	// Command starts RunAgent in a process of its own; the name of a file follows it.
	Command []string
	Version string
	// Scratch is an empty folder that the drill may fill. It should lie on the disk that the agent uses.
	Scratch string
	// Seed draws the times of the disasters.
	Seed uint64
	// Long makes each disaster last longer and lets the agent use its own time-outs.
	Long bool
	// Say is told what happens, line by line; it may be nil.
	Say func(line string)
	// Sabotage is empty but in tests.
	Sabotage string
}

// rig is one drill's plant, network, receiver and agent.
type rig struct {
	o       Options
	dir     string
	base    spec
	plan    *plan
	machine *machine
	led     *ledger
	recv    *receiver
	relay   *relay
	rand    *rand.Rand
	began   time.Time
	res     *Result
	procs   []*process
}

func newRig(o Options, res *Result) (*rig, error) {
	r := &rig{o: o, dir: filepath.Join(o.Scratch, res.Word), led: newLedger(), rand: rand.New(rand.NewPCG(o.Seed, hash(res.Word))), began: time.Now(), res: res}
	if err := r.build(); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// hash gives each drill random numbers of its own.
func hash(s string) (h uint64) {
	for _, c := range []byte(s) {
		h = h*131 + uint64(c)
	}
	return h
}

func (r *rig) build() (err error) {
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return fmt.Errorf("make the scratch folder: %w", err)
	}
	copied := filepath.Join(r.dir, filepath.Base(r.o.ConfigFile))
	if err := copyFile(r.o.ConfigFile, copied); err != nil {
		return err
	}
	r.base = spec{Config: copied, DataDir: filepath.Join(r.dir, "data"), Certs: filepath.Join(r.dir, "certs"), Reserve: -1, Patient: r.o.Long, Sabotage: r.o.Sabotage}
	if err := makeCerts(r.base.Certs, r.o.Config.Plant, r.o.Config.Agent, time.Now()); err != nil {
		return err
	}
	if r.plan, err = makePlan(adapt(r.o.Config, r.base), brokers(r.o.Config), time.Now()); err != nil {
		return err
	}
	if r.machine, err = newMachine(r.plan, r.o.Seed); err != nil {
		return err
	}
	r.led.blind = r.o.Sabotage == HubForgetsKeys
	if r.recv, err = newReceiver(r.base.Certs, r.led); err != nil {
		return err
	}
	r.recv.early = r.o.Sabotage == HubAckEarly
	if r.relay, err = newRelay(r.recv.addr()); err != nil {
		return err
	}
	r.base.Machine, r.base.Hub, r.base.Proxy = r.machine.addr(), r.relay.addr(), "direct"
	return nil
}

// brokers are the sources that give a message out until it is acknowledged.
func brokers(cfg agent.Config) map[string]bool {
	m := map[string]bool{ownSources(&cfg).messages: true}
	for _, s := range cfg.Sources {
		m[s.Name] = s.Kind == "mqtt"
	}
	return m
}

func (r *rig) close() {
	for _, p := range r.procs {
		if !p.ended() {
			p.kill()
		}
	}
	if r.relay != nil {
		r.relay.close()
	}
	if r.recv != nil {
		r.recv.close()
	}
	if r.machine != nil {
		r.machine.close()
	}
}

// step notes what is done or was seen.
func (r *rig) step(format string, args ...any) {
	s := Step{At: time.Since(r.began), Text: fmt.Sprintf(format, args...)}
	r.res.Steps = append(r.res.Steps, s)
	if r.o.Say != nil {
		r.o.Say(fmt.Sprintf("%-9s %6.1f s  %s", r.res.Word, s.At.Seconds(), s.Text))
	}
}

// must notes a failure unless ok.
func (r *rig) must(ok bool, format string, args ...any) {
	if !ok {
		text := fmt.Sprintf(format, args...)
		r.res.Failures = append(r.res.Failures, text)
		r.step("FAILED: %s", text)
	}
}

// scale is a time of the short drill, or what it is in the long one.
func (r *rig) scale(d time.Duration) time.Duration {
	if r.o.Long {
		return 8 * d
	}
	return d
}

// start starts an agent and waits until it works.
func (r *rig) start(ctx context.Context, s spec) (*process, error) {
	specFile, err := writeSpec(r.dir, "agent-"+filepath.Base(s.DataDir)+".json", s)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	p, err := launch(ctx, r.o.Command, specFile, filepath.Join(r.dir, "agent.log"))
	if err != nil {
		return nil, err
	}
	r.procs = append(r.procs, p)
	r.res.slowest(time.Since(began))
	return p, nil
}

// How long a drill waits for the last count.
const (
	settleAtMost = 3 * time.Minute
	settleStuck  = 60 * time.Second // while there is something to take or to send, and nothing moves
	settleQuiet  = 6 * time.Second  // when there is nothing any more: what is missing then is lost
	settleAfter  = 1500 * time.Millisecond
)

// settle stops the machines and waits until the receiver holds everything, or nothing comes any more. It returns how long
// that took.
func (r *rig) settle(ctx context.Context, p *process) time.Duration {
	r.machine.halt()
	began := time.Now()
	all := r.until(ctx, p, func(f flow) bool { return f.waiting == 0 && complete(tally(r.machine, r.led)) })
	took := time.Since(began)
	if all {
		wait(ctx, settleAfter) // a double may come after the last count
	}
	return took
}

// flow is what waits where. It changes as long as something moves.
type flow struct {
	waiting int64  // at the sources
	pending uint64 // in the agent
	arrived int    // at the receiver
}

func (r *rig) flow(ctx context.Context, p *process) flow {
	f := flow{waiting: r.machine.backlog(), arrived: r.led.size()}
	if s, err := p.look(ctx); err == nil {
		f.pending = s.Business.Pending
	}
	return f
}

// until waits for something as long as anything moves, and reports whether it came.
func (r *rig) until(ctx context.Context, p *process, want func(flow) bool) bool {
	last, since := flow{}, time.Now()
	for began := time.Now(); ctx.Err() == nil && time.Since(began) < r.scale(settleAtMost); {
		f := r.flow(ctx, p)
		if want(f) {
			return true
		}
		patience := settleStuck
		if f.waiting == 0 && f.pending == 0 {
			patience = settleQuiet
		}
		if f.waiting != last.waiting || f.pending != last.pending || f.waiting == 0 && f.arrived != last.arrived {
			last, since = f, time.Now()
		} else if time.Since(since) > patience {
			r.step("%d entries wait at the sources, %d records in the agent, and nothing moves", f.waiting, f.pending)
			return false
		}
		wait(ctx, 100*time.Millisecond)
	}
	return false
}

func complete(list []Count) bool {
	for _, c := range list {
		if c.Lost > 0 {
			return false
		}
	}
	return true
}

// pagePatience is how long the page may take to say what is the matter: the product's own promise.
const pagePatience = 60 * time.Second

// pageSays waits until the agent's page fulfils want, and notes a failure when it does not in time.
func (r *rig) pageSays(ctx context.Context, p *process, what string, want func(status.Snapshot) bool) (last status.Snapshot) {
	for began := time.Now(); ctx.Err() == nil && time.Since(began) < pagePatience; {
		if s, err := p.look(ctx); err == nil {
			if last = s; want(s) {
				return s
			}
		}
		wait(ctx, 200*time.Millisecond)
	}
	r.must(false, "within a minute the page did not say that %s; it said: state %q, %s; line %q, %s", what, last.State, last.Reason, last.Uplink.State, last.Uplink.Reason)
	return last
}

func offline(s status.Snapshot) bool   { return s.Uplink.State != "connected" }
func connected(s status.Snapshot) bool { return s.Uplink.State == "connected" }

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copy %q: %w", from, err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("copy %q: %w", from, err)
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("copy %q: %w", from, err)
	}
	return nil
}

// copyFolder copies a data folder while no agent has it open.
func copyFolder(from, to string) error {
	return filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(to, strings.TrimPrefix(path, from))
		if d.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		return copyFile(path, target)
	})
}
