package sim

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing/synctest"
	"time"

	"github.com/linekeeper/linekeeper/hub/api"
)

// deed is something that is to happen at a time.
type deed struct {
	at time.Time
	do func()
}

// agenda is what is to happen, in the order of time.
type agenda struct{ deeds []deed }

func (a *agenda) add(at time.Time, do func()) {
	a.deeds = append(a.deeds, deed{at, do})
	sort.SliceStable(a.deeds, func(i, j int) bool { return a.deeds[i].at.Before(a.deeds[j].at) })
}

func (w *world) seconds(from, to int) time.Duration {
	return time.Duration(from)*time.Second + time.Duration(w.rng.Int64N(int64(to-from)*int64(time.Second)))
}

// runSeed is the life of one world: disasters, healing, and the reckoning.
func (w *world) runSeed() {
	w.hub.start()
	for _, a := range w.agents {
		a.start()
	}
	w.erp.faulty = true
	var plan agenda
	end := time.Now().Add(w.seconds(70, 200))
	for at := time.Now().Add(w.seconds(2, 15)); at.Before(end); at = at.Add(w.seconds(2, 24)) {
		plan.add(at, func() { w.disaster(&plan) })
	}
	w.live(&plan, end)
	w.heal(&plan)
	w.reckon()
}

// live lets things happen until the end, and buries and revives what dies.
func (w *world) live(plan *agenda, end time.Time) {
	for {
		next := end
		if len(plan.deeds) > 0 && plan.deeds[0].at.Before(end) {
			next = plan.deeds[0].at
		}
		timer := time.NewTimer(time.Until(next))
		select {
		case p := <-w.crashed:
			w.died(p, plan)
		case <-timer.C:
			if !next.Before(end) {
				return
			}
			do := plan.deeds[0].do
			plan.deeds = plan.deeds[1:]
			do()
		}
		timer.Stop()
	}
}

// died buries a process and plans its return.
func (w *world) died(p *process, plan *agenda) {
	silent := w.rng.IntN(2) == 0
	back := time.Now().Add(w.seconds(0, 40))
	if w.hub.p == p {
		w.hub.dir = w.bury(p, silent)
		w.hub.p, w.hub.h = nil, nil
		plan.add(back, w.hub.start)
		return
	}
	for _, a := range w.agents {
		if a.p == p {
			a.dir = w.bury(p, silent)
			a.p, a.a = nil, nil
			plan.add(back, a.start)
		}
	}
}

// crash kills a process now, if it lives.
func (w *world) crash(p *process, plan *agenda) {
	if p == nil || p.frozen() {
		return
	}
	w.logf("%s is killed", p.machine)
	p.freeze()
	w.died(p, plan)
}

// anyone draws one of the agents.
func (w *world) anyone() *agentMachine { return w.agents[w.rng.IntN(len(w.agents))] }

var (
	agentPoints = []string{"emit", "emitted", "ack", "ack", "emitted"}
	hubPoints   = []string{"prepare", "post", "posting", "posted", "posted", "lookup", "verify"}
)

// disaster lets one thing go wrong.
func (w *world) disaster(plan *agenda) {
	a := w.anyone()
	w.copyOnce(a)
	kinds := 16
	if w.seed%3 == 0 { // a plant whose machines are copied more than is good for them
		kinds = 23
	}
	switch w.rng.IntN(kinds) {
	case 0:
		w.crash(a.p, plan)
	case 1:
		w.crash(w.hub.p, plan)
	case 2, 3:
		if a.p != nil {
			point, n := agentPoints[w.rng.IntN(len(agentPoints))], 1+w.rng.IntN(8)
			w.logf("%s shall die at %q number %d", a.name, point, n)
			a.p.arm(point, n)
		}
	case 4:
		if w.hub.p != nil {
			point, n := hubPoints[w.rng.IntN(len(hubPoints))], 1+w.rng.IntN(8)
			w.logf("the hub shall die at %q number %d", point, n)
			w.hub.p.arm(point, n)
		}
	case 5:
		if a.p != nil {
			w.logf("the line of %s is cut", a.name)
			w.net.cut(a.p)
		}
	case 6:
		if p := a.p; p != nil && !p.frozen() {
			w.logf("the line of %s is half-open for good", a.name)
			w.totals.Stalls++
			w.net.vanish(p)
		}
	case 8, 9, 10, 16, 17, 18, 19, 22:
		w.copied(a, plan)
	case 11:
		w.jump(a.name, a.clock)
	case 12:
		w.jump("the hub", w.hub.clock)
	case 14:
		w.sicken(a, plan)
	case 13, 20, 21:
		a.edit(plan)
	default:
		w.logf("%s is cut off", a.name)
		w.net.isolate(a.name, true)
		if a.p != nil {
			w.net.stall(a.p, true)
		}
		w.totals.Stalls++
		plan.add(time.Now().Add(w.seconds(1, 90)), func() {
			w.logf("%s is no longer cut off", a.name)
			w.net.isolate(a.name, false)
			if a.p != nil && !a.p.frozen() {
				w.net.stall(a.p, false)
			}
		})
	}
}

// sicken lets a process die in the middle of what its disk does, or lets a disk fail for a while. Only in seeds whose disks
// can do that.
func (w *world) sicken(a *agentMachine, plan *agenda) {
	p, disk := a.p, a.p != nil && a.p.disk != nil
	if w.rng.IntN(2) == 0 {
		p, disk = w.hub.p, w.hub.p != nil && w.hub.p.vfs != nil
	}
	if !disk || p.frozen() {
		return
	}
	if w.rng.IntN(3) > 0 {
		op, n := []string{"disk write", "disk sync"}[w.rng.IntN(2)], 1+w.rng.IntN(25)
		w.logf("%s shall die at %q number %d", p.machine, op, n)
		p.arm(op, n)
		return
	}
	w.logf("the disk of %s fails", p.machine)
	p.sick.Store(true)
	plan.add(time.Now().Add(w.seconds(1, 20)), func() {
		w.logf("the disk of %s works again", p.machine)
		p.sick.Store(false)
	})
}

// copyOnce sees to it that an agent was copied some time, so that it can be restored.
func (w *world) copyOnce(a *agentMachine) {
	if a.p != nil && !a.p.frozen() && w.rng.IntN(3) == 0 {
		a.keep()
	}
}

// copied lets happen what has to do with copies of an agent's folder.
func (w *world) copied(a *agentMachine, plan *agenda) {
	if a.p == nil || a.p.frozen() {
		return
	}
	switch w.rng.IntN(5) {
	case 0, 1:
		if len(a.copies) > 0 {
			a.restore(plan, w.seconds(0, 30))
		}
	case 2:
		if !a.known() {
			return
		}
		a.reinstall(plan, w.seconds(0, 30))
	case 3:
		a.move()
	case 4:
		a.clone(plan, w.seconds(10, 150))
	}
}

// heal mends everything and lets the plant finish its orders.
func (w *world) heal(plan *agenda) {
	w.logf("everything is healed")
	w.settle(plan)
	for len(plan.deeds) > 0 { // whoever is down returns, clones end; one of them may die of what was laid out for it
		for len(plan.deeds) > 0 {
			do := plan.deeds[0].do
			plan.deeds = plan.deeds[1:]
			do()
		}
		for _, p := range w.living() {
			p.disarm()
		}
		w.settle(plan)
	}
	if w.hub.p == nil {
		w.hub.start()
	}
	w.hub.p.disarm()
	w.hub.p.sick.Store(false)
	for _, a := range w.agents {
		if a.p == nil {
			a.start()
		}
		a.p.disarm()
		a.p.sick.Store(false)
		w.perhapsCorrect(a.name, a.clock)
	}
	w.perhapsCorrect("the hub", w.hub.clock)
	w.net.healAll()
	w.erp.mu.Lock()
	w.erp.faulty = false
	w.erp.mu.Unlock()
	w.stopAll()
	for _, a := range w.agents {
		a.station.finish()
	}
}

// settle takes note of all who have died.
func (w *world) settle(plan *agenda) {
	for {
		synctest.Wait()
		select {
		case p := <-w.crashed:
			w.died(p, plan)
		default:
			return
		}
	}
}

// living lists the processes of hub and agents that are there.
func (w *world) living() (all []*process) {
	if w.hub.p != nil {
		all = append(all, w.hub.p)
	}
	for _, a := range w.agents {
		if a.p != nil {
			all = append(all, a.p)
		}
	}
	return all
}

// perhapsCorrect sets a clock right, or leaves it wrong.
func (w *world) perhapsCorrect(who string, c *clock) {
	if c.off.Load() != 0 && w.rng.IntN(2) == 0 {
		w.logf("the clock of %s is set right", who)
		c.off.Store(0)
	}
}

// reckon waits until nothing moves any more and compares.
func (w *world) reckon() {
	var open []string
	wait := 5 * time.Second
	for end := time.Now().Add(3 * time.Hour); time.Now().Before(end); time.Sleep(wait) {
		wait = min(wait*5/4, 2*time.Minute)
		synctest.Wait()
		w.person()
		if open = w.open(); len(open) == 0 {
			break
		}
	}
	w.logf("it is quiet")
	for _, what := range open {
		w.failf("3 hours after everything was healed: %s", what)
	}
	w.compare()
}

// person answers what nobody else can: whether the ERP has a document.
func (w *world) person() {
	for _, f := range w.parked() {
		if f.Posting.Class != "cannot_tell" {
			continue
		}
		number, pending := w.erp.truth(f.Key)
		var err error
		switch {
		case pending:
			continue
		case number != "":
			err = w.hub.ask("POST", "/v1/postings/"+f.Key+"/accept", fmt.Sprintf(`{"document":%q,"note":"is in the journal"}`, number), nil)
		default:
			err = w.hub.ask("POST", "/v1/postings/"+f.Key+"/post-again", `{"note":"is not in the journal"}`, nil)
		}
		w.logf("a person answers about %s: %q", f.Key, number)
		w.totals.CannotTell++
		if err != nil {
			w.failf("answer about %s: %v", f.Key, err)
		}
		w.erp.mu.Lock()
		delete(w.erp.unclear, f.Key)
		w.erp.mu.Unlock()
	}
}

// list is the API's answer for a list.
type list[T any] struct {
	Items []T `json:"items"`
}

func (w *world) parked() []api.Fact {
	var l list[api.Fact]
	if err := w.hub.ask("GET", "/v1/postings?state=parked&limit=500", "", &l); err != nil {
		w.failf("list what is parked: %v", err)
	}
	return l.Items
}

// open says what is not settled yet.
func (w *world) open() (open []string) {
	for _, a := range w.agents {
		s := a.a.Snapshot()
		if s.Business.Pending > 0 {
			open = append(open, fmt.Sprintf("%s holds %d facts (%s: %s)", a.name, s.Business.Pending, s.Uplink.State, s.Uplink.Reason))
		}
		a.station.mu.Lock()
		if n := len(a.station.queue); n > 0 {
			open = append(open, fmt.Sprintf("the broker of %s holds %d messages", a.name, n))
		}
		a.station.mu.Unlock()
	}
	var counts list[api.PostingCount]
	if err := w.hub.ask("GET", "/v1/postings/counts", "", &counts); err != nil {
		return append(open, err.Error())
	}
	for _, c := range counts.Items {
		switch c.State {
		case "verified", "settled", "not_posted":
		default:
			open = append(open, fmt.Sprintf("%d postings are %s %s", c.Count, c.State, c.Code))
		}
	}
	var tally api.Tally
	if err := w.hub.ask("GET", "/v1/tally", "", &tally); err != nil {
		return append(open, err.Error())
	}
	for _, d := range tally.Differences {
		switch d.Reason {
		case "open", "buffered", "waiting", "in_doubt", "parked":
			open = append(open, fmt.Sprintf("%s %s %s: %s %s: %s", d.OrderNo, d.Item, d.Kind, d.Quantity, d.Reason, d.Text))
		}
	}
	for _, no := range w.erp.numbers {
		if o := w.erp.orders[no]; o.State != "COMPLETED" {
			open = append(open, fmt.Sprintf("order %s is %s in the ERP", no, o.State))
		}
	}
	return open
}

func (w *world) failf(format string, args ...any) {
	w.t.Helper()
	w.logf("FAILED: "+format, args...)
	w.t.Errorf("SIM_SEED=%d: "+format, append([]any{w.seed}, args...)...)
}

// close stops everything and keeps the log of a seed that failed.
func (w *world) close() {
	w.stopAll()
	w.working.Wait()
	if w.t.Failed() {
		w.ranges()
	}
	for _, a := range w.agents {
		if a.p != nil {
			if err := a.p.stop(); err != nil {
				w.failf("%s ended with %v", a.name, err)
			}
		}
	}
	if w.hub.p != nil {
		if err := w.hub.p.stop(); err != nil {
			w.failf("the hub ended with %v", err)
		}
	}
	if w.t.Failed() {
		w.keep()
	}
}

// ranges writes the counter ranges that the hub holds into the log of a seed that failed.
func (w *world) ranges() {
	for _, a := range w.agents {
		facts := a.facts("plc")
		slices.Reverse(facts)
		for _, f := range facts {
			if f.Kind != "order_state" {
				w.logf("hub holds %s %s %v %v %q", f.Position, f.ReceivedAt.Format(time.TimeOnly), f.Content["yield"], f.Content["scrap"], f.Trimmed)
			}
		}
	}
}

func (w *world) keep() {
	text := strings.Join(w.log, "\n") + "\n"
	dir := os.Getenv("SIM_KEEP")
	if dir == "" {
		w.t.Logf("the end of its log:\n%s", text[max(0, len(text)-6000):])
		return
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		w.t.Log(err)
		return
	}
	path := filepath.Join(dir, fmt.Sprintf("seed-%d.log", w.seed))
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		w.t.Log(err)
		return
	}
	w.t.Logf("its log is in %s", path)
}
