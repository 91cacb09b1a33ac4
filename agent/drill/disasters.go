package drill

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/linekeeper/linekeeper/agent/buffer"
	"github.com/linekeeper/linekeeper/agent/status"
)

// disaster is one drill.
type disaster struct {
	word, title, what, why, limit string
	run                           func(context.Context, *rig) error
}

var disasters = []disaster{
	{"outage", "The line to the hub fails",
		"The network is cut, the plant computer is restarted meanwhile, a connection goes dead without a word, and a line flaps.",
		"Everything that was counted while the hub was away, across a restart in the middle of it, is at the receiver afterwards, once. A line that looks alive and carries nothing is noticed, because only the receiver's own word counts as delivery.",
		"", outage},
	{"powercut", "The plant computer dies",
		"The agent's process is killed without warning at random moments, while it works and while it starts.",
		"A source is acknowledged only after fact, cursor and rules' state are on disk in one transaction: whatever the moment, the next start goes on from there, and nothing is in the books once more or once less.",
		"A killed process leaves the operating system's cache alone. That the disk keeps what it has confirmed (fsync) is the disk's word; cut a test machine's real power to see it.", powercut},
	{"corrupt", "The disk returns garbage",
		"Bytes in the middle of a full, not yet delivered buffer file are overwritten, and the agent is started on it. Then the newest file loses its beginning.",
		"A damaged file does not stop the agent and does not take its neighbours along: it is set aside, what it cost is named, and what is whole in it and everything else arrives, once.",
		"What lay in the overwritten bytes can not be sent any more; the drill passes when each missing record lies in a range that the agent itself reported.", corrupt},
	{"snapshot", "The plant computer is restored from an older copy",
		"The data folder is copied, the agent runs on, and the copy is put back in its place.",
		"The agent that went back in time is recognised at its next hello. Rows and counters are read again from where the copy stood; what the receiver knows already is recognised by key and counter range and does not count again.",
		"Messages that a broker has given out and that were not yet delivered when the disk was rolled back are gone with the disk; the drill lets the broker rest in that moment.", snapshot},
	{"clone", "The plant computer is copied, and both run",
		"A second agent starts on a copy of the first one's data, with the same identity and the same sources.",
		"The newer of the two is refused and says so on its page, the first goes on unharmed; when the first is switched off, the copy takes over, and what both have read counts once.",
		"", clone},
	{"slowlink", "The line is thin and bad",
		"The line carries 64 kbit/s with a third of a second there and back, and breaks now and then.",
		"A slow line delays and does not lose; what was under way when it broke is sent again as the same bytes and recognised.",
		"", slowlink},
	{"proxy", "The proxy wants a password, and somebody changes it",
		"The line goes through an HTTP proxy with a login. The login is changed, later changed back, and connections are cut.",
		"The agent collects while the proxy refuses it and names the proxy and the next step on its page; it goes on by itself when the proxy lets it.",
		"", proxy},
	{"diskfull", "The disk runs full",
		"The line is cut until the buffer's limit is reached, the agent is killed in that state, and then the disk's reserve is made to be reached.",
		"At the limit the sources are held back instead of anything being dropped, the page says so, and what waited at the sources comes in when there is room again.",
		"The reserve is reached by demanding more of it than the disk has free; the disk itself is not filled.", diskfull},
}

// Words are the drills there are.
func Words() (list []string) {
	for _, d := range disasters {
		list = append(list, d.word)
	}
	return list
}

func outage(ctx context.Context, r *rig) error {
	p, err := r.start(ctx, r.base)
	if err != nil {
		return err
	}
	r.machine.run(1)
	r.step("the agent runs and delivers")
	wait(ctx, r.scale(2*time.Second))

	r.relay.set(mode{down: true})
	r.step("the line to the hub is cut")
	wait(ctx, r.scale(3*time.Second))
	s := r.pageSays(ctx, p, "the hub is not reached", offline)
	r.step("the page says: %s", s.Uplink.Reason)
	before := r.machine.made() - r.machine.backlog()
	p.kill()
	if p, err = r.start(ctx, r.base); err != nil {
		return err
	}
	r.step("the agent was killed and has started again, with no hub to be reached")
	wait(ctx, r.scale(3*time.Second))
	after := r.machine.made() - r.machine.backlog()
	r.must(after > before, "nothing was stored after the restart without a hub (%d before, %d after)", before, after)

	r.relay.set(mode{})
	r.pageSays(ctx, p, "the hub is reached", connected)
	r.step("the line is back")
	wait(ctx, time.Second)
	r.relay.set(mode{stall: true})
	r.step("the connection goes dead without a word: what is sent vanishes")
	s = r.pageSays(ctx, p, "the dead line was noticed", offline)
	r.step("the page says: %s", s.Uplink.Reason)
	r.relay.set(mode{})
	cuts := 8
	if r.o.Long {
		cuts = 200
	}
	for range cuts {
		wait(ctx, between(r.rand, 50*time.Millisecond, 500*time.Millisecond))
		r.relay.cut()
	}
	r.step("the line was cut %d times more, at random moments", cuts)
	r.recovered(ctx, p)
	return nil
}

// recovered waits for the last count and notes how long it took.
func (r *rig) recovered(ctx context.Context, p *process) {
	took := r.settle(ctx, p)
	r.res.Recovered = max(r.res.Recovered, took)
	r.step("the machines rest; the last count was there after %.1f s", took.Seconds())
}

func powercut(ctx context.Context, r *rig) error {
	kills := 24
	if r.o.Long {
		kills = 300
	}
	r.machine.run(1)
	working := 0
	for i := range kills {
		if i%2 == 0 {
			p, err := r.start(ctx, r.base)
			if err != nil {
				return err
			}
			wait(ctx, between(r.rand, 0, 1200*time.Millisecond))
			p.kill()
			working++
			continue
		}
		if err := r.killStarting(ctx, between(r.rand, 0, 400*time.Millisecond)); err != nil {
			return err
		}
	}
	r.step("the agent was killed %d times, %d times while it worked and %d times while it started", kills, working, kills-working)
	p, err := r.start(ctx, r.base)
	if err != nil {
		return err
	}
	r.step("the agent started by itself on what was left")
	wait(ctx, time.Second)
	r.recovered(ctx, p)
	return nil
}

// killStarting starts an agent and kills it after a moment, whatever it does then.
func (r *rig) killStarting(ctx context.Context, after time.Duration) error {
	specFile, err := writeSpec(r.dir, "agent-data.json", r.base)
	if err != nil {
		return err
	}
	p, _, err := spawn(r.o.Command, specFile, filepath.Join(r.dir, "agent.log"))
	if err != nil {
		return err
	}
	wait(ctx, after)
	p.kill()
	return nil
}

func corrupt(ctx context.Context, r *rig) error {
	s := r.base
	s.Segment, s.Limit = 128<<10, 8<<20
	p, err := r.start(ctx, s)
	if err != nil {
		return err
	}
	r.machine.run(1)
	wait(ctx, time.Second)
	r.relay.set(mode{down: true})
	r.machine.run(12)
	folder := filepath.Join(s.DataDir, "business")
	for began := time.Now(); len(segments(folder)) < 5 && time.Since(began) < 60*time.Second && ctx.Err() == nil; {
		wait(ctx, 100*time.Millisecond)
	}
	r.machine.halt()
	if err := p.stop(); err != nil {
		return err
	}
	files := segments(folder)
	if len(files) < 4 {
		return errors.New("the buffer did not fill enough files to damage one of them")
	}
	victim := files[1+r.rand.IntN(len(files)-2)]
	if err := r.scramble(victim); err != nil {
		return err
	}
	r.step("the line is cut, %d buffer files wait; bytes of %q were overwritten", len(files), filepath.Base(victim))
	if p, err = r.start(ctx, s); err != nil {
		return err
	}
	r.step("the agent has started on it")
	r.relay.set(mode{})
	r.machine.run(1)
	wait(ctx, time.Second)
	r.recovered(ctx, p)
	if err := p.stop(); err != nil {
		return err
	}
	if err := r.nameDamage(folder); err != nil {
		return err
	}
	return r.beheadNewest(ctx, s, folder)
}

// beheadNewest takes the newest file's first pages away when everything is delivered: with it go cursors and counters.
func (r *rig) beheadNewest(ctx context.Context, s spec, folder string) error {
	files := segments(folder)
	if len(files) == 0 {
		return errors.New("the buffer has no file")
	}
	newest := files[len(files)-1]
	f, err := os.OpenFile(newest, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("damage the newest buffer file: %w", err)
	}
	_, err = f.WriteAt(make([]byte, 32<<10), 0)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("damage the newest buffer file: %w", err)
	}
	p, err := r.start(ctx, s)
	if err != nil {
		return err
	}
	r.step("the first 32 KiB of the newest file, which holds cursors and counters, were zeroed; the agent has started on it")
	before := r.led.repeats()
	r.machine.run(1)
	wait(ctx, r.scale(2*time.Second))
	r.recovered(ctx, p)
	r.step("%d facts that came a second time did not count", r.led.repeats()-before)
	return nil
}

// segments are the buffer's files, the oldest first.
func segments(folder string) []string {
	files, err := filepath.Glob(filepath.Join(folder, "*.segment"))
	if err != nil {
		return nil // the pattern is good
	}
	slices.Sort(files)
	return files
}

// scramble overwrites pieces of a file behind its first pages.
func (r *rig) scramble(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("damage a buffer file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("damage a buffer file: %w", err)
	}
	const page = 4 << 10
	pages := int(info.Size() / page)
	garbage := make([]byte, 48)
	for i := range max(3, pages/3) {
		for j := range garbage {
			garbage[j] = byte(r.rand.Uint32())
		}
		at := 4 + r.rand.IntN(max(1, pages-4))
		if i == 0 {
			at = pages / 2
		}
		if _, err := f.WriteAt(garbage, int64(at*page+16+r.rand.IntN(page-128))); err != nil {
			return fmt.Errorf("damage a buffer file: %w", err)
		}
	}
	return f.Sync()
}

// nameDamage compares what is missing with what the agent says that it lost.
func (r *rig) nameDamage(folder string) error {
	b, err := buffer.Open(buffer.Config{Dir: folder, DiskReserve: -1})
	if err != nil {
		return fmt.Errorf("look into the drilled buffer: %w", err)
	}
	defer b.Close()
	damage := b.Damaged()
	if len(damage) == 0 {
		r.step("the agent reports no damage: the overwritten places were not in use")
	}
	var named uint64
	for _, d := range damage {
		r.step("the agent reports: %s", d)
		named += d.Records
	}
	var entries int64
	for _, c := range tally(r.machine, r.led) {
		r.res.Named += c.Lost
		if c.Kind != "counter" {
			entries += c.Lost
			continue
		}
		r.must(c.Lost == 0 || named > 0, "rule %q: steps are missing and the agent names no loss", c.Rule)
	}
	r.must(uint64(entries) <= named, "%d entries are missing, the agent names %d records", entries, named)
	return nil
}

func snapshot(ctx context.Context, r *rig) error {
	p, err := r.start(ctx, r.base)
	if err != nil {
		return err
	}
	r.machine.run(1)
	wait(ctx, r.scale(2*time.Second))
	if err := p.stop(); err != nil {
		return err
	}
	copied := filepath.Join(r.dir, "copy")
	if err := copyFolder(r.base.DataDir, copied); err != nil {
		return err
	}
	if p, err = r.start(ctx, r.base); err != nil {
		return err
	}
	r.step("the data folder was copied; the agent runs on")
	wait(ctx, r.scale(3*time.Second))
	r.machine.holdMessages(true)
	r.drain(ctx, p)
	r.relay.set(mode{down: true})
	r.step("the broker rests, the line is cut; rows and counters go on")
	wait(ctx, r.scale(2*time.Second))
	p.kill()
	if err := os.RemoveAll(r.base.DataDir); err != nil {
		return err
	}
	if err := copyFolder(copied, r.base.DataDir); err != nil {
		return err
	}
	before := r.led.repeats()
	r.relay.set(mode{})
	if p, err = r.start(ctx, r.base); err != nil {
		return err
	}
	r.step("the copy was put back, the agent has started on it, and the line is back")
	r.machine.holdMessages(false)
	wait(ctx, r.scale(2*time.Second))
	r.recovered(ctx, p)
	r.recv.mu.Lock()
	back := r.recv.wentBack
	r.recv.mu.Unlock()
	r.must(back > 0, "the receiver did not notice that the agent went back in time")
	r.step("the receiver noticed that the agent went back in time; %d facts that came a second time did not count", r.led.repeats()-before)
	return nil
}

// repeats is how many facts came again, whole or in part.
func (l *ledger) repeats() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.duplicates + l.conflicts + l.trimmed
}

// drain waits until everything that the broker gave out is at the receiver. What never comes is found by the tally.
func (r *rig) drain(ctx context.Context, p *process) {
	began := time.Now()
	r.until(ctx, p, func(f flow) bool {
		if time.Since(began) > settleStuck/2 {
			return true // new rows come all the time: something always moves
		}
		for _, c := range tally(r.machine, r.led) {
			if c.Kind == "message" && c.Lost > 0 {
				return false
			}
		}
		return f.pending < 20
	})
}

func clone(ctx context.Context, r *rig) error {
	first, err := r.start(ctx, r.base)
	if err != nil {
		return err
	}
	r.machine.run(1)
	wait(ctx, r.scale(2*time.Second))
	if err := first.stop(); err != nil {
		return err
	}
	copied := r.base
	copied.DataDir = filepath.Join(r.dir, "clone")
	if err := copyFolder(r.base.DataDir, copied.DataDir); err != nil {
		return err
	}
	if first, err = r.start(ctx, r.base); err != nil {
		return err
	}
	r.pageSays(ctx, first, "the first is connected", connected)
	second, err := r.start(ctx, copied)
	if err != nil {
		return err
	}
	r.step("a copy of the agent runs beside it, with the same identity and sources")
	s := r.pageSays(ctx, second, "the copy is refused", func(s status.Snapshot) bool { return s.Uplink.State == "refused" })
	r.step("the copy's page says: %s; %s", s.Uplink.Reason, s.Uplink.NextStep)
	wait(ctx, r.scale(2*time.Second))
	s, err = first.look(ctx)
	r.must(err == nil && connected(s), "the first agent was disturbed: line %q, %s", s.Uplink.State, s.Uplink.Reason)
	r.machine.halt()
	// In this order: what the first took of a source is with nobody else, and what it took last must have left it, too.
	r.pageSays(ctx, first, "the first has taken everything", func(status.Snapshot) bool { return r.machine.backlog() == 0 })
	r.pageSays(ctx, first, "the first has delivered everything", func(s status.Snapshot) bool { return s.Business.Pending == 0 })
	if err := first.stop(); err != nil {
		return err
	}
	r.step("the first was switched off")
	r.pageSays(ctx, second, "the copy is connected", connected)
	r.machine.run(1)
	r.step("the copy has taken over")
	wait(ctx, r.scale(2*time.Second))
	r.recovered(ctx, second)
	r.step("%d facts that both had read did not count twice", r.led.repeats())
	return nil
}

func slowlink(ctx context.Context, r *rig) error {
	r.relay.set(mode{rate: 8 << 10, delay: 150 * time.Millisecond})
	s := r.base
	s.Patient = true // a short time-out would give up a line that is only slow
	p, err := r.start(ctx, s)
	if err != nil {
		return err
	}
	r.step("the line carries 8 KiB a second, each piece takes 150 ms")
	r.machine.run(0.3)
	for range 2 {
		wait(ctx, between(r.rand, r.scale(time.Second), r.scale(3*time.Second)))
		r.relay.cut()
		r.step("the line broke")
	}
	wait(ctx, r.scale(time.Second))
	r.recovered(ctx, p)
	r.step("%d facts came a second time and did not count", r.led.repeats())
	return nil
}

func proxy(ctx context.Context, r *rig) error {
	const login = "plant:right"
	r.relay.setLogin(login)
	s := r.base
	s.Hub, s.Proxy = r.recv.addr(), "http://"+login+"@"+r.relay.addr()
	p, err := r.start(ctx, s)
	if err != nil {
		return err
	}
	r.machine.run(1)
	r.pageSays(ctx, p, "the hub is reached", connected)
	r.step("the agent delivers through the proxy")
	wait(ctx, r.scale(2*time.Second))
	r.relay.setLogin("plant:changed")
	r.relay.cut()
	r.step("the proxy's password was changed, and the connection cut")
	seen := r.pageSays(ctx, p, "the proxy asks for a login", func(s status.Snapshot) bool { return s.Uplink.Code == "proxy_login" })
	r.step("the page says: %s; %s", seen.Uplink.Reason, seen.Uplink.NextStep)
	wait(ctx, r.scale(2*time.Second))
	r.relay.setLogin(login)
	r.step("the proxy takes the old password again")
	r.pageSays(ctx, p, "the hub is reached", connected)
	for range 3 {
		wait(ctx, between(r.rand, 100*time.Millisecond, 700*time.Millisecond))
		r.relay.cut()
	}
	r.step("the proxy cut its connections 3 times")
	r.recovered(ctx, p)
	return nil
}

func diskfull(ctx context.Context, r *rig) error {
	s := r.base
	s.Limit = 512 << 10
	p, err := r.start(ctx, s)
	if err != nil {
		return err
	}
	r.relay.set(mode{down: true})
	r.machine.run(12)
	r.step("the line is cut; the buffer may hold 512 KiB")
	seen := r.pageSays(ctx, p, "the sources are held back", func(s status.Snapshot) bool { return s.Business.Held })
	r.step("the page says: %s (%s)", seen.State, seen.Reason)
	r.machine.run(1)
	before := r.machine.backlog()
	wait(ctx, r.scale(2*time.Second))
	r.must(r.machine.backlog() > before, "the sources were not held back: %d entries waited before, %d after", before, r.machine.backlog())
	r.must(seen.Business.Dropped == 0, "%d facts were dropped", seen.Business.Dropped)
	p.kill()
	if p, err = r.start(ctx, s); err != nil {
		return err
	}
	r.step("the agent was killed with its buffer full and has started again; %d entries wait at the sources", r.machine.backlog())
	r.machine.halt()
	r.relay.set(mode{})
	r.step("the line is back")
	r.drained(ctx, p)
	if err := p.stop(); err != nil {
		return err
	}
	return r.reserve(ctx, s, seen.FreeDisk)
}

func (r *rig) drained(ctx context.Context, p *process) {
	all := r.until(ctx, p, func(f flow) bool { return f.pending == 0 && f.waiting == 0 })
	r.must(all, "what waited was not delivered when there was room again")
}

// reserve lets the disk's reserve be reached and then gives room again.
func (r *rig) reserve(ctx context.Context, s spec, free int64) error {
	full := s
	full.Reserve = free + 1<<30
	p, err := r.start(ctx, full)
	if err != nil {
		return err
	}
	r.machine.run(1)
	seen := r.pageSays(ctx, p, "the sources are held back", func(s status.Snapshot) bool { return s.Business.Held })
	r.step("the disk's reserve is reached; the page says: %s (%s)", seen.State, seen.Reason)
	r.must(seen.Business.Dropped == 0, "%d facts were dropped", seen.Business.Dropped)
	wait(ctx, r.scale(time.Second))
	if err := p.stop(); err != nil {
		return err
	}
	if p, err = r.start(ctx, s); err != nil {
		return err
	}
	r.step("the disk has room again")
	r.recovered(ctx, p)
	return nil
}
