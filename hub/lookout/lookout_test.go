package lookout

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shopspring/decimal"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/posting"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/wire"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// world is a hub's store with agents that come and go, and a lookout over it. Its time is synctest's; off is how far the hub's wall clock
// was set.
type world struct {
	t      *testing.T
	s      *store.Store
	limits Limits
	off    atomic.Int64    // nanoseconds
	gone   map[string]bool // not configured
	mu     sync.Mutex
	heard  map[string]time.Time
	seq    int
	stop   func()
}

func simulate(t *testing.T, f func(t *testing.T, w *world)) {
	path := filepath.Join(t.TempDir(), "hub.db")
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, limits: Limits{10 * time.Minute, 5 * time.Minute, 15 * time.Minute}, gone: map[string]bool{}, heard: map[string]time.Time{}, stop: func() {}}
		var err error
		if w.s, err = store.Open(context.Background(), path, store.Options{Now: w.now}); err != nil {
			t.Fatal(err)
		}
		defer func() {
			w.stop()
			w.s.Close()
		}()
		f(t, w)
	})
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.off.Load())) }

// start begins a hub: nobody is connected.
func (w *world) start() {
	w.t.Helper()
	w.must(w.s.DisconnectAll(context.Background()))
	clear(w.heard)
	l := New(Options{Store: w.s, Limits: w.limits, Now: w.now, Zones: map[string]*time.Location{"ulm": time.FixedZone("CET", 3600)},
		Known: func(plant, agent string) bool { return !w.gone[plant+"/"+agent] },
		Heard: func() map[string]time.Time {
			w.mu.Lock()
			defer w.mu.Unlock()
			out := map[string]time.Time{}
			for k, v := range w.heard {
				out[k] = v
			}
			return out
		}})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
	})
}

func (w *world) restart() {
	w.stop()
	w.start()
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) update(f func(tx *store.Tx) error) {
	w.t.Helper()
	w.must(w.s.Update(context.Background(), f))
}

// pass lets time pass in which all who are connected are heard of.
func (w *world) pass(d time.Duration) {
	for d > 0 {
		step := min(d, 10*time.Second)
		d -= step
		w.mu.Lock()
		for name := range w.heard {
			w.heard[name] = w.now()
		}
		w.mu.Unlock()
		w.sleep(step)
	}
}

func (w *world) sleep(d time.Duration) {
	time.Sleep(d) // fake time
	synctest.Wait()
}

func (w *world) id(name string) (a store.Agent) {
	w.t.Helper()
	plant, agent, _ := strings.Cut(name, "/")
	w.update(func(tx *store.Tx) (err error) { a, err = tx.AgentByName(plant, agent); return err })
	return a
}

func (w *world) connect(names ...string) {
	w.t.Helper()
	for _, name := range names {
		a := w.id(name)
		w.update(func(tx *store.Tx) error { return tx.Connect(a.ID, "test", name) })
		w.mu.Lock()
		w.heard[name] = w.now()
		w.mu.Unlock()
	}
}

func (w *world) leave(names ...string) {
	w.t.Helper()
	for _, name := range names {
		w.mu.Lock()
		delete(w.heard, name)
		w.mu.Unlock()
		w.must(w.s.Disconnect(context.Background(), w.id(name).ID, name))
	}
}

func (w *world) says(name string, m *pb.AgentStatus) {
	w.t.Helper()
	said := proto.CloneOf(m)
	if said.At == nil {
		said.At = timestamppb.New(w.now())
	}
	w.must(w.s.SetStatus(context.Background(), w.id(name).ID, said))
}

// wants compares the open alarms, as "subject: code", in their order.
func (w *world) wants(when string, want ...string) {
	w.t.Helper()
	all, err := w.s.Alarms(context.Background(), false, store.Page{Limit: 1000})
	w.must(err)
	var got []string
	for _, a := range all {
		got = append(got, a.Subject+": "+a.Code)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		w.t.Fatalf("%s the alarms are %q, want %q", when, got, want)
	}
}

// all are the alarms there ever were, oldest first.
func (w *world) all() []store.Alarm {
	w.t.Helper()
	all, err := w.s.Alarms(context.Background(), true, store.Page{Limit: 1000})
	w.must(err)
	slices.Reverse(all)
	return all
}

func TestAnAgentThatIsAwayIsAnAlarmUntilItIsHeardOfForAMinute(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.connect("ulm/line1", "ulm/line2")
		w.start()
		w.connect("ulm/line1", "ulm/line2")
		w.pass(time.Hour)
		w.wants("while all are there")
		last := w.now()
		w.sleep(3 * time.Second)
		w.leave("ulm/line1")
		w.pass(9*time.Minute - 5*time.Second)
		w.wants("before its time")
		w.pass(2 * time.Minute)
		w.wants("after its time", "ulm/line1: agent_silent")
		a := w.all()[0]
		if want := last.In(time.FixedZone("CET", 3600)).Add(-10 * time.Second).Format("2006-01-02 15:04 CET"); !strings.Contains(a.Reason, `agent "ulm/line1" has not been heard of since `+want) || !strings.Contains(a.NextStep, "plantagent doctor") {
			t.Errorf("%+v, want it since %s", a, want)
		}
		w.pass(24 * time.Hour)
		w.wants("a day later", "ulm/line1: agent_silent")
		for range 20 { // it comes and goes
			w.connect("ulm/line1")
			w.pass(40 * time.Second)
			w.leave("ulm/line1")
			w.pass(20 * time.Second)
		}
		w.wants("while it comes and goes", "ulm/line1: agent_silent")
		w.connect("ulm/line1")
		w.pass(90 * time.Second)
		w.wants("when it is back")
		all := w.all()
		if len(all) != 1 || all[0].Times != 1 || !all[0].EndedItself() || all[0].Note != store.EndedHeard {
			t.Errorf("%+v", all)
		}
		for range 60 { // never for long
			w.leave("ulm/line1")
			w.pass(8 * time.Minute)
			w.connect("ulm/line1")
			w.pass(10 * time.Second)
		}
		w.wants("of one that comes back each time")
	})
}

func TestAnAgentThatIsConnectedAndSaysNothingIsMissedAsWell(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.start()
		w.connect("ulm/line1")
		w.pass(time.Hour)
		w.sleep(11 * time.Minute) // no pass: it is not heard of
		w.wants("when it says nothing", "ulm/line1: agent_silent")
		if r := w.all()[0].Reason; !strings.Contains(r, "though it is connected") {
			t.Error(r)
		}
		w.pass(2 * time.Minute)
		w.wants("when it speaks again")
	})
}

func TestNeitherAHubThatWasDownNorAFrozenOneNorASetClockMissesAgents(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		var names []string
		for i := range 30 {
			names = append(names, fmt.Sprintf("ulm/line%d", i))
		}
		w.start()
		w.connect(names...)
		w.pass(time.Hour)
		w.stop()
		w.sleep(72 * time.Hour) // the hub is down
		w.start()
		w.pass(9*time.Minute - 5*time.Second)
		w.wants("after the hub was down for days")
		w.connect(names...)
		w.pass(30 * time.Minute)
		w.wants("after they are back")
		for _, off := range []time.Duration{365 * 24 * time.Hour, -365 * 24 * time.Hour, 0} {
			w.off.Store(int64(off))
			w.pass(30 * time.Minute)
			w.wants("after the hub's clock was set by " + off.String())
		}
		w.leave(names[0])
		w.pass(5 * time.Minute)
		w.off.Store(int64(24 * time.Hour))
		w.pass(3 * time.Minute)
		w.wants("when the clock is set while one is away, before its time")
		w.pass(3 * time.Minute)
		w.wants("and after it", names[0]+": agent_silent")
	})
	// A hub that was frozen finds that an hour has passed since it looked.
	simulate(t, func(t *testing.T, w *world) {
		w.connect("ulm/line1")
		w.must(w.s.DisconnectAll(t.Context()))
		l := New(Options{Store: w.s, Limits: w.limits, Now: w.now, Known: func(string, string) bool { return true }, Heard: func() map[string]time.Time { return nil }})
		now := time.Now()
		for range 5 {
			w.must(l.lookAtAgents(t.Context(), now))
			now = now.Add(time.Hour)
		}
		w.wants("after a hub was frozen")
		for range 12 * 10 {
			w.must(l.lookAtAgents(t.Context(), now))
			now = now.Add(agentsEvery)
		}
		w.wants("when it has looked for ten minutes", "ulm/line1: agent_silent")
	})
}

func TestAnAlarmIsNotRaisedAgainAtEachStart(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.start()
		w.connect("ulm/line1", "ulm/line2", "ulm/line3")
		w.pass(time.Hour)
		w.leave("ulm/line1", "ulm/line2")
		w.pass(20 * time.Minute)
		w.must(w.s.CloseAlarm(t.Context(), w.all()[0].ID, "the line is shut until Monday (planner)"))
		closed := w.all()[0].Subject
		for range 5 {
			w.restart()
			w.connect("ulm/line3")
			w.pass(30 * time.Minute)
		}
		all := w.all()
		if len(all) != 2 || all[1].Times != 1 {
			t.Fatalf("%+v", all)
		}
		w.wants("after five starts", all[1].Subject+": agent_silent")
		w.connect(closed)
		w.pass(2 * time.Minute)
		if all := w.all(); all[0].EndedItself() || !strings.Contains(all[0].Note, "planner") {
			t.Errorf("%+v", all[0])
		}
		w.leave(closed) // another absence
		w.pass(12 * time.Minute)
		w.wants("when the one that was closed is away anew", "ulm/line1: agent_silent", "ulm/line2: agent_silent")
	})
}

func TestWhoNeverCameOrIsNotConfiguredIsNotMissed(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.id("ulm/never")
		w.start()
		w.connect("ulm/line1", "ulm/old")
		w.pass(time.Minute)
		w.leave("ulm/line1", "ulm/old")
		w.gone["ulm/old"] = true
		w.restart()
		w.pass(time.Hour)
		w.wants("of those that are configured", "ulm/line1: agent_silent")
		w.gone["ulm/line1"] = true
		w.restart()
		w.pass(2 * time.Minute)
		w.wants("when it is not configured any more")
		if a := w.all()[0]; a.Note != store.EndedUnknown {
			t.Errorf("%+v", a)
		}
		delete(w.gone, "ulm/line1")
		w.restart()
		w.pass(20 * time.Minute)
		w.wants("when it is configured again", "ulm/line1: agent_silent")
		w.limits.AgentAway = 0
		w.restart()
		w.pass(time.Hour)
		w.wants("when nobody looks for it")
		if a := w.all()[1]; a.Note != store.EndedUnlooked {
			t.Errorf("%+v", a)
		}
	})
}

// A cut line takes agents one after the other, as each notices; they are raised at one moment.
func TestThreeHundredAgentsBehindACutLineAreRaisedAtOnce(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.start()
		var names []string
		for i := range 300 {
			names = append(names, fmt.Sprintf("plant%d/line%d", i/10, i%10))
		}
		w.connect(names...)
		w.pass(time.Minute)
		for _, some := range slices.Collect(slices.Chunk(names, 60)) {
			w.leave(some...)
			w.pass(10 * time.Second)
		}
		w.pass(15 * time.Minute)
		all := w.all()
		if len(all) != 300 || all[0].FirstAt != all[299].FirstAt {
			t.Fatalf("%d alarms, from %s to %s", len(all), all[0].FirstAt, all[len(all)-1].FirstAt)
		}
	})
}

func TestWhatAnAgentSaysOfItselfIsAnAlarmWhileItLasts(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.start()
		w.connect("ulm/line1")
		since := timestamppb.New(w.now())
		status := func() *pb.AgentStatus {
			return &pb.AgentStatus{State: "degraded", Sources: []*pb.SourceStatus{
				{Name: "press1", Kind: "opcua", State: "failed", Reason: "connection refused", Since: since}, {Name: "press2", Kind: "mqtt", State: "ok"}, {Name: "old", State: "stopped"},
			}}
		}
		w.says("ulm/line1", status())
		w.pass(4 * time.Minute)
		w.wants("of a source that is away for a moment")
		w.pass(2 * time.Minute)
		w.wants("of one that stays away", "ulm/line1/press1: source_down")
		if a := w.all()[0]; !strings.Contains(a.Reason, `does not reach its source "press1" (opcua) since 2000-01-01 01:00 CET: connection refused`) {
			t.Error(a.Reason)
		}
		both := status()
		both.Sources[1].State, both.Sources[1].Since = "connecting", timestamppb.New(w.now())
		w.says("ulm/line1", both)
		w.pass(6 * time.Minute)
		w.wants("of a second one", "ulm/line1/press1: source_down", "ulm/line1/press2: source_down")
		w.leave("ulm/line1")
		w.pass(15 * time.Minute)
		w.wants("while it is away", "ulm/line1: agent_silent", "ulm/line1/press1: source_down", "ulm/line1/press2: source_down")
		w.restart()
		w.connect("ulm/line1")
		w.says("ulm/line1", both)
		w.pass(20 * time.Minute)
		w.wants("after a start of the hub", "ulm/line1/press1: source_down", "ulm/line1/press2: source_down")
		w.says("ulm/line1", &pb.AgentStatus{State: "ok"})
		w.pass(2 * time.Minute)
		w.wants("when they are reached")

		w.says("ulm/line1", &pb.AgentStatus{State: "losing", Reason: "the buffer is full: sources are held back: press1"})
		w.pass(75 * time.Second)
		w.wants("of a full buffer", "ulm/line1: agent_losing_data")
		w.says("ulm/line1", &pb.AgentStatus{State: "ok", At: timestamppb.New(w.now().Add(-41 * time.Minute))})
		w.pass(6 * time.Minute)
		w.wants("of a wrong clock", "ulm/line1: clock_differs")
		if a := w.all()[len(w.all())-1]; !strings.Contains(a.Reason, "41m0s behind the hub's") {
			t.Error(a.Reason)
		}
		w.says("ulm/line1", &pb.AgentStatus{State: "ok", At: timestamppb.New(w.now().Add(-time.Minute))})
		w.pass(2 * time.Minute)
		w.wants("of a status that took a minute")
	})
}

// A backlog that gets less is none, however old: a plant that was away for days has much to hand over.
func TestFactsThatDoNotGetThroughAreAnAlarmAndABacklogThatDrainsIsNone(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.start()
		w.connect("ulm/line1")
		oldest := w.now().Add(-72 * time.Hour)
		waits := func() {
			w.says("ulm/line1", &pb.AgentStatus{State: "ok", BusinessPending: 100_000, OldestPending: timestamppb.New(oldest)})
		}
		for range 30 {
			waits()
			w.pass(time.Minute)
			oldest = oldest.Add(time.Hour)
		}
		w.wants("of a backlog that drains")
		waits()
		w.pass(11 * time.Minute)
		w.wants("of one that does not", "ulm/line1: facts_stuck")
		w.leave("ulm/line1")
		w.pass(time.Minute)
		w.connect("ulm/line1")
		oldest = oldest.Add(time.Minute)
		waits()
		w.pass(90 * time.Second)
		w.wants("when it gets through", "ulm/line1: facts_stuck") // its time begins anew, and it is not over as long as facts wait
		w.says("ulm/line1", &pb.AgentStatus{State: "ok"})
		w.pass(2 * time.Minute)
		w.wants("when nothing waits")
		waits()
		w.pass(9 * time.Minute)
		w.leave("ulm/line1")
		w.pass(time.Minute)
		w.connect("ulm/line1")
		waits()
		w.pass(8 * time.Minute)
		w.wants("of one that waited while the line was cut")
	})
}

func (w *world) order(erp, no, center, unroutable string, state object.OrderState, sent int64) {
	w.t.Helper()
	w.update(func(tx *store.Tx) error {
		return tx.PutOrder(store.Order{Unroutable: unroutable, Sent: sent, Content: []byte{1}, Order: object.WorkOrder{ERP: erp, OrderNo: no, Item: "P", Site: "WH2", WorkCenter: center, State: state, Revision: 1, RevisedAt: w.now().UTC()}}, true)
	})
}

func TestOrdersThatLeadToNobodyAreOneAlarmPerReasonWithTheKeyToAdd(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.start()
		none := func(center string) string {
			return `no route leads from erp "s4", site "WH2", work centre "` + center + `" to an agent`
		}
		for i := range 40 {
			w.order("s4", fmt.Sprintf("WO-%d", i), "Mill", none("Mill"), object.OrderReleased, 0)
		}
		w.order("s4", "WO-90", "Saw", none("Saw"), object.OrderHeld, 0)
		w.order("s4", "WO-91", "Lathe", none("Lathe"), object.OrderPlanned, 0)   // nobody needs it yet
		w.order("s4", "WO-92", "Lathe", none("Lathe"), object.OrderReleased, 1)  // it stays where it is
		w.order("s4", "WO-93", "Lathe", none("Lathe"), object.OrderCompleted, 0) // nobody needs it any more
		w.order("s4", "WO-94", "Lathe", `mapping_missing: unit "STK" is not in mapping set "units", of which version 3 is in force; add it in a new version of "units"`, object.OrderReleased, 0)
		w.pass(13 * time.Minute)
		w.wants("before their time")
		w.pass(3 * time.Minute)
		w.wants("after it", "s4/WH2/Mill: order_unrouted", "s4/WH2/Saw: order_unrouted", `s4: unit "STK": order_unmapped`)
		for _, a := range w.all() {
			switch {
			case a.Subject == "s4/WH2/Mill":
				if !strings.Contains(a.Reason, `40 work orders reach no plant, such as "WO-0" (item "P"), known since 2000-01-01 00:00 UTC: no route leads from`) ||
					!strings.Contains(a.NextStep, `add {erp: "s4", site: "WH2", work_center: "Mill", plant: PLANT, agent: AGENT} under routes:`) {
					t.Errorf("%+v", a)
				}
			case a.Code == store.AlarmNotMapped:
				if !strings.Contains(a.Reason, `"WO-94"`) || !strings.HasPrefix(a.NextStep, `add it in a new version of "units"`) {
					t.Errorf("%+v", a)
				}
			}
		}
		w.order("s4", "WO-95", "Mill", none("Mill"), object.OrderReleased, 0)
		w.pass(time.Minute)
		for _, a := range w.all() {
			if a.Subject == "s4/WH2/Mill" && !strings.HasPrefix(a.Reason, "41 work orders") || a.Times != 1 {
				t.Errorf("%+v", a)
			}
			if a.Subject == "s4/WH2/Saw" {
				w.must(w.s.CloseAlarm(t.Context(), a.ID, "not ours (planner)"))
			}
		}
		w.restart()
		w.pass(time.Hour)
		w.wants("after a start", "s4/WH2/Mill: order_unrouted", `s4: unit "STK": order_unmapped`)
		for i := range 40 {
			w.order("s4", fmt.Sprintf("WO-%d", i), "Mill", "", object.OrderReleased, 1)
		}
		w.order("s4", "WO-95", "Mill", "", object.OrderReleased, 1)
		w.pass(2 * time.Minute)
		w.wants("when there is a route", `s4: unit "STK": order_unmapped`)
	})
}

func TestOrdersForAnAgentThatNeverCameAreAnAlarm(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.start()
		a := w.id("ulm/line9")
		w.pass(time.Hour)
		w.wants("without an order")
		w.update(func(tx *store.Tx) error {
			return tx.DeliverOrder(a.ID, object.WorkOrder{ERP: "s4", OrderNo: "WO-1", Plant: "ulm", State: object.OrderReleased})
		})
		w.pass(16 * time.Minute)
		w.wants("with one", "ulm/line9: agent_never_came")
		w.connect("ulm/line9")
		w.pass(2 * time.Minute)
		w.wants("when it came")
	})
}

// park stores n facts of one order each, or of one order, whose postings wait, and returns their ids.
func (w *world) park(n int, order func(i int) string, code string) (ids []int64) {
	w.t.Helper()
	a := w.id("ulm/line1")
	first := w.seq + 1
	var records []store.Record
	for range n {
		w.seq++
		position := factkey.Position("lookout", strconv.Itoa(w.seq))
		f := object.Fact{Key: factkey.Of(position), Kind: object.KindConfirmation, Plant: "ulm", Source: "press", Rule: "r", TimeZone: "UTC", Position: position,
			OccurredAt: w.now().UTC(), RecordedAt: w.now().UTC(), Confirmation: &object.Confirmation{OrderNo: order(w.seq), Item: "P", Unit: "C62", Yield: decimal.NewFromInt(12)}}
		body, err := wire.EncodeFact(f)
		w.must(err)
		records = append(records, store.Record{Key: f.Key, Body: body})
	}
	_, err := w.s.AppendFacts(context.Background(), []store.Batch{{AgentID: a.ID, Agent: "ulm/line1", Generation: "g", FirstSeq: uint64(first), Records: records}})
	w.must(err)
	_, facts, err := w.s.Unplanned(context.Background(), 1000)
	w.must(err)
	w.must(w.s.Repeat(context.Background(), func(tx *store.Tx) error {
		var all []store.Planned
		for _, f := range facts {
			p := store.Posting{FactID: f.ID, OrderNo: f.Fact.OrderNo(), Plant: "ulm", Since: tx.Now(), State: store.PostingParked, Class: posting.ClassWaiting, Code: code, Reason: "r"}
			all = append(all, store.Planned{Fact: f, Lines: f.Fact.FactQuantities(), Posting: &p})
		}
		return errors.Join(tx.AddPlanned(all), tx.SetPlanCursor(facts[len(facts)-1].ID))
	}))
	for _, f := range facts {
		ids = append(ids, f.ID)
	}
	return ids
}

func (w *world) settleAll(ids []int64) {
	w.t.Helper()
	w.update(func(tx *store.Tx) error {
		for _, id := range ids {
			p, err := tx.Posting(id)
			if err == nil {
				p.State, p.Code = store.PostingVerified, ""
				err = tx.PutPosting(p)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func TestFactsWhoseOrderDoesNotComeAreOneAlarmPerPlant(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.start()
		w.connect("ulm/line1")
		for range 30 { // orders that are a little late, one after the other
			ids := w.park(10, func(i int) string { return fmt.Sprintf("WO-%d", i) }, posting.CodeUnknownOrder)
			w.pass(10 * time.Minute)
			w.settleAll(ids)
		}
		w.wants("of orders that come")
		ids := w.park(200, func(i int) string { return fmt.Sprintf("WO-%d", i/2) }, posting.CodeUnknownOrder)
		w.off.Add(int64(24 * time.Hour)) // the clock is set: they look old
		w.pass(50 * time.Second)
		w.wants("when the clock is set")
		w.off.Add(-int64(24 * time.Hour))
		w.pass(13 * time.Minute)
		w.wants("before their time, though the clock was set")
		w.pass(4 * time.Minute)
		w.wants("after it", "ulm: facts_without_order")
		a := w.all()[0]
		if !strings.Contains(a.Reason, `200 facts of plant "ulm" wait for 101 work orders, the oldest since `) || !strings.Contains(a.Reason, `for order "WO-150"`) || !strings.Contains(a.NextStep, "order number") {
			t.Errorf("%+v", a)
		}
		more := w.park(1, func(int) string { return "WO-X" }, posting.CodeOrderWithoutPlant)
		w.pass(20 * time.Minute)
		w.wants("of two reasons", "ulm: facts_without_order", "ulm: facts_without_plant")
		rows, err := w.s.Inbox(t.Context(), store.InboxFilter{Kind: store.InboxAlarm, Plant: "ulm"}, store.InboxPlace{}, 10)
		if err != nil || len(rows) != 2 {
			t.Errorf("the plant's inbox has %+v, %v", rows, err)
		}
		w.settleAll(append(ids, more...))
		w.pass(2 * time.Minute)
		w.wants("when their orders came")
	})
}

// Agents come, go, flap, hubs start anew and clocks are set at random: an agent that is there for two minutes has no alarm, and one that
// was away for as long as the limit under one hub has one.
func TestWhateverHappensTheAlarmsSayWhoIsAway(t *testing.T) {
	seed := rand.Uint64()
	if text := os.Getenv("LOOKOUT_SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	t.Logf("LOOKOUT_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	simulate(t, func(t *testing.T, w *world) {
		w.start()
		names := []string{"ulm/a", "ulm/b", "lyon/a", "lyon/b"}
		there, since := map[string]bool{}, map[string]time.Time{}
		came, began := map[string]bool{}, time.Now()
		for range 400 {
			switch name := names[rng.IntN(len(names))]; rng.IntN(6) {
			case 0, 1:
				if !there[name] {
					w.connect(name)
					there[name], since[name], came[name] = true, time.Now(), true
				}
			case 2, 3:
				if there[name] {
					w.leave(name)
					there[name], since[name] = false, time.Now()
				}
			case 4:
				w.off.Store(rng.Int64N(int64(1000*time.Hour)) - int64(500*time.Hour))
			case 5:
				w.stop()
				w.sleep(time.Duration(rng.Int64N(int64(time.Hour))))
				w.start()
				began = time.Now()
				for _, n := range names {
					if there[n] {
						there[n], since[n] = false, began
					}
				}
			}
			w.pass(time.Duration(rng.Int64N(int64(8 * time.Minute))))
			open, err := w.s.OpenAlarms(t.Context(), store.AlarmAgentSilent, "")
			w.must(err)
			for _, n := range names {
				_, alarm := open[n]
				lasts := time.Since(since[n])
				if began.After(since[n]) {
					lasts = time.Since(began)
				}
				switch {
				case alarm && !came[n]:
					t.Fatalf("%s was never there and is missed", n)
				case alarm && there[n] && lasts > 80*time.Second:
					t.Fatalf("%s is there for %s and is missed", n, lasts)
				case !alarm && came[n] && !there[n] && lasts > 10*time.Minute+30*time.Second:
					t.Fatalf("%s is away for %s and is not missed", n, lasts)
				}
			}
		}
	})
}
