package opcua

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

// seed is that of a random test; ORDER_SEED gives it back.
func seed(t testing.TB) (*rand.Rand, uint64) {
	t.Helper()
	n := uint64(time.Now().UnixNano())
	if s := os.Getenv("ORDER_SEED"); s != "" {
		var err error
		if n, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("ORDER_SEED=%d", n)
	return rand.New(rand.NewPCG(n, n)), n
}

// shop is machines that take orders, and the driver that hands them over.
type shop struct {
	*bench
	at    string // the machine
	pace  orderPace
	plant *realparts.Plant
	d     *orderDriver
}

const quickOrders = `
endpoint: %s
security_policy: None
anonymous: true
publishing_interval: 50ms
keep_alive: 2s
work_orders: %s
`

// newShop starts a machine of its own. Each test waits a good deal, so that they go side by side.
func newShop(t *testing.T, o realparts.JobOptions, workOrders string) *shop {
	t.Helper()
	t.Parallel()
	return shopAt(t, realparts.NodeOPCUAJobs(t, o), "Press1", workOrders)
}

// shopAt is one of several machines of a server; AT stands for its name in the configuration.
func shopAt(t *testing.T, plant *realparts.Plant, machine, workOrders string) *shop {
	t.Helper()
	s := &shop{bench: newBench(t), plant: plant, at: machine}
	s.pace = orderPace{call: 5 * time.Second, settle: 600 * time.Millisecond, connect: 2 * time.Second}
	s.open(workOrders)
	return s
}

// hasty lets calls be given up soon: for machines whose replies are lost.
func (s *shop) hasty(workOrders string, settle time.Duration) {
	s.stop()
	s.pace.call, s.pace.settle = 400*time.Millisecond, settle
	s.open(workOrders)
}

// open makes the driver and runs it: after a crash on the same folder.
func (s *shop) open(workOrders string) {
	s.t.Helper()
	workOrders = strings.NewReplacer("AT", s.at, "ns=2;", "nsu=urn:plant:machines;").Replace(workOrders)
	d, err := Kind.New(s.env(), decodeYAML(fmt.Sprintf(quickOrders, s.plant.Endpoint(), workOrders)))
	if err != nil {
		s.t.Fatalf("make the driver: %v", err)
	}
	s.d = d.(*orderDriver)
	s.d.pace.retryMax = 300 * time.Millisecond
	s.d.orders.pace = s.pace
	ctx, cancel := context.WithCancel(s.t.Context())
	s.cancel, s.done = cancel, make(chan error, 1)
	go func() { s.done <- s.d.Run(ctx, s.cursor, s.emit) }()
	s.t.Cleanup(s.stop)
}

func testOrder(no string, revision int64) signal.WorkOrder {
	at := time.Date(2026, 3, 1, 6, 0, 0, 0, time.UTC)
	return signal.WorkOrder{
		OrderNo: no, Revision: revision, Item: "FG-GEAR", Description: "gear", Quantity: signal.Number(strconv.FormatInt(10*revision, 10)), Unit: "C62",
		Priority: 5, Lot: "L1", PlannedStart: at, PlannedEnd: at.Add(8 * time.Hour),
		Operations: []signal.Operation{{Operation: "10", Description: "press", WorkCenter: "Press1", Quantity: "10", Unit: "C62"}},
		Components: []signal.Component{{Item: "RM-STEEL", Required: "12.50", Unit: "KGM", Operation: "10", Reservation: "R1"}},
	}
}

func cancelled(o signal.WorkOrder) signal.WorkOrder {
	o.Cancelled = true
	return o
}

// deliver does what the agent does: it offers a revision again until the machine has it or refuses it.
func (s *shop) deliver(o signal.WorkOrder) error {
	s.t.Helper()
	var refused *signal.Refused
	var last error
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); {
		ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
		last = s.d.Deliver(ctx, o)
		cancel()
		if last == nil || errors.As(last, &refused) {
			return last
		}
		pause(s.t.Context(), 30*time.Millisecond)
	}
	s.t.Fatalf("deliver %s/%d: %v", o.OrderNo, o.Revision, last)
	return nil
}

// answers are the answers of an order in the order they were told.
func (s *shop) answers(no string) string {
	var list []string
	seen := map[string]bool{}
	for _, a := range s.values(signal.AnswerTag) {
		v := a.Value.(map[string]any)
		if v["order_no"] != no {
			continue
		}
		if a.Position == "" || seen[a.Position] {
			s.t.Errorf("position %q is empty or comes twice", a.Position)
		}
		seen[a.Position] = true
		list = append(list, fmt.Sprintf("%s/%s", v["status"], v["revision"]))
	}
	return strings.Join(list, " ")
}

func (s *shop) awaitAnswers(no, want string) {
	s.t.Helper()
	realparts.Eventually(s.t, 15*time.Second, no+" is "+want, func() error {
		if got := s.answers(no); got != want {
			return fmt.Errorf("answers are %q", got)
		}
		return nil
	})
}

func (s *shop) awaitLast(no, want string) {
	s.t.Helper()
	realparts.Eventually(s.t, 15*time.Second, no+" is at last "+want, func() error {
		if got := s.answers(no); !strings.HasSuffix(got, want) {
			return fmt.Errorf("answers are %q", got)
		}
		return nil
	})
}

// machine is the truth about the machine.
func (s *shop) machine() realparts.JobMachine {
	s.t.Helper()
	all, _ := s.plant.JobMachines(s.t)
	return all[s.at]
}

// move changes a job's state as an operator would, step by step.
func (s *shop) move(id string, to ...string) {
	s.t.Helper()
	s.plant.Post(s.t, "/move", map[string]any{"machine": s.at, "id": id, "to": to})
}

func (s *shop) fault(f map[string]any) {
	s.t.Helper()
	f["machine"] = s.at
	s.plant.Post(s.t, "/faults", f)
}

// The machines of one server, each with a test of its own.
func TestMachinesTakeOrders(t *testing.T) {
	t.Parallel()
	plant := realparts.NodeOPCUAJobs(t, realparts.JobOptions{
		Machines: []string{"Cancelled", "Lossy", "Held", "Refusing", "Written", "Eventful", "Press1", "Press2", "Press3", "Press4"}})
	for name, test := range map[string]func(*testing.T, *realparts.Plant){
		"cancellation follows the job's state":                           testCancellationFollowsTheJobsState,
		"held order is paused and goes on only where the hold paused it": testHeldOrderIsPausedAndGoesOnOnlyWhereTheHoldPausedIt,
		"what the machine cannot take is refused by name":                testWhatTheMachineCannotTakeIsRefusedByName,
		"order is written into nodes once and taken before the next":     testOrderIsWrittenIntoNodesOnceAndTakenBeforeTheNext,
		"job that disappears is told, and nothing is guessed":            testJobThatDisappearsIsToldAndNothingIsGuessed,
		"probe finds the machines that take orders":                      testProbeFindsTheMachinesThatTakeOrders,
		"events tell of states that no look at the list sees":            testEventsTellOfStatesThatNoLookAtTheListSees,
		"each machine gets the orders of its work centre":                testEachMachineGetsTheOrdersOfItsWorkCentre,
		"machines of one server do not wait for each other":              testMachinesOfOneServerDoNotWaitForEachOther,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, plant)
		})
	}
}

// atJobs is the configuration of the receiver of the machine AT.
func atJobs(more string) string {
	return `{job_control: {receiver: "ns=2;s=AT.JobOrderReceiver", ` + more + `}}`
}

func TestOrderBecomesAJobAndItsStatesComeBack(t *testing.T) {
	s := newShop(t, realparts.JobOptions{}, "{job_control: {poll: 100ms}}")
	if err := s.deliver(testOrder("WO-1", 1)); err != nil {
		t.Fatal(err)
	}
	s.awaitAnswers("WO-1", "accepted/1")
	m := s.machine()
	if len(m.Jobs) != 1 || m.Jobs[0].State != "NotAllowedToStart" || m.Jobs[0].Revision != "1" {
		t.Fatalf("the machine has %+v", m.Jobs)
	}
	for _, part := range []string{`"FG-GEAR"`, `"12.50"`, `"RM-STEEL"`, `"priority":5`, `"2026-03-01T06:00:00.000Z"`, `"KGM"`, `"Produced"`} {
		if !strings.Contains(string(m.Jobs[0].Order), part) {
			t.Errorf("the job has no %s: %s", part, m.Jobs[0].Order)
		}
	}
	if err := s.deliver(testOrder("WO-1", 2)); err != nil {
		t.Fatal(err)
	}
	s.awaitAnswers("WO-1", "accepted/1 accepted/2")
	s.move("WO-1", "Running")
	s.awaitAnswers("WO-1", "accepted/1 accepted/2 started/2")
	s.move("WO-1", "Interrupted")
	s.awaitAnswers("WO-1", "accepted/1 accepted/2 started/2 held/2")
	s.move("WO-1", "Running")
	s.awaitAnswers("WO-1", "accepted/1 accepted/2 started/2 held/2 started/2")

	// While the agent is away the job ends; it comes back and tells it, and nothing a second time.
	s.stop()
	s.move("WO-1", "Ended")
	s.open("{job_control: {poll: 100ms, clear: true}}")
	all := "accepted/1 accepted/2 started/2 held/2 started/2 finished/2"
	s.awaitAnswers("WO-1", all)
	realparts.Eventually(t, 10*time.Second, "the job is cleared", func() error {
		if m := s.machine(); len(m.Jobs) != 0 {
			return fmt.Errorf("%+v", m.Jobs)
		}
		return nil
	})
	pause(t.Context(), 500*time.Millisecond)
	s.awaitAnswers("WO-1", all)
	said := s.values(signal.AnswerTag)
	if got, want := fmt.Sprint(said[len(said)-1].Value), "data:map[Good:97 Text:ok]"; !strings.Contains(got, want) || !strings.Contains(got, "item:RM-STEEL lot:L7 quantity:12.25") {
		t.Errorf("the last answer is %s, want %s and the steel", got, want)
	}
	if err := s.deliver(testOrder("WO-1", 2)); err != nil { // the agent had not noted that it was delivered
		t.Error(err)
	}
	var refused *signal.Refused
	if err := s.deliver(testOrder("WO-1", 3)); !errors.As(err, &refused) || !strings.Contains(err.Error(), "twice") {
		t.Errorf("a new revision of an ended job gives %v", err)
	}
	if p := s.problem("work_orders/auto"); p != nil || s.tells("gave no answer") {
		t.Errorf("the page shows %+v, or answers were not understood", p)
	}
}

func testEventsTellOfStatesThatNoLookAtTheListSees(t *testing.T, plant *realparts.Plant) {
	s := shopAt(t, plant, "Eventful", atJobs("poll: 3s, events: true"))
	realparts.Eventually(t, 15*time.Second, "somebody listens", func() error {
		var events struct{ Listeners int }
		if s.plant.Get(t, "/events", &events); events.Listeners != 1 {
			return fmt.Errorf("%d do, page %+v", events.Listeners, s.problem("work_orders/events"))
		}
		return nil
	})
	// On a machine with much else to do events may come too late, and the list is right all the same: one job of five is enough.
	const all = "accepted/1 started/1 held/1 started/1 held/1 started/1 finished/1"
	for i := range 5 {
		no := fmt.Sprintf("E-%d", i)
		if err := s.deliver(testOrder(no, 1)); err != nil {
			t.Fatal(err)
		}
		s.awaitAnswers(no, "accepted/1")
		s.move(no, "Running", "Interrupted", "Running", "Interrupted", "Running", "Ended")
		if s.awaitLast(no, "finished/1"); s.answers(no) == all {
			break
		} else if i == 4 {
			t.Errorf("answers are %q, want %q", s.answers(no), all)
		}
	}
	times := s.values(signal.AnswerTag)
	for i := 1; i < len(times); i++ {
		if times[i].Value.(map[string]any)["order_no"] == times[i-1].Value.(map[string]any)["order_no"] && times[i].SourceTime.Before(times[i-1].SourceTime) {
			t.Errorf("%v comes after %v", times[i].SourceTime, times[i-1].SourceTime)
		}
	}
	if p := s.problem("work_orders/events"); p != nil {
		t.Errorf("the page shows %+v", p)
	}
}

// The worst receiver: it forgets replies, breaks connections, is slow, and would store one order twice if asked twice.
func TestReceiverThatLosesRepliesStoresEachOrderExactlyOnce(t *testing.T) {
	for name, fault := range map[string]map[string]any{
		"silence": {"loseAfter": 0.2, "loseBefore": 0.05}, "cut connections": {"loseAfter": 0.2, "loseBefore": 0.05, "cut": true},
	} {
		t.Run(name, func(t *testing.T) { loseReplies(t, fault) })
	}
}

func loseReplies(t *testing.T, fault map[string]any) {
	const config, orders = "{job_control: {poll: 200ms}}", 30
	r, n := seed(t)
	s := newShop(t, realparts.JobOptions{AcceptTwice: true}, config)
	s.hasty(config, 600*time.Millisecond)
	fault["seed"] = n % 1e9
	s.plant.Post(t, "/faults", fault)
	latest := map[string]int64{}
	for i := range orders {
		no := fmt.Sprintf("WO-%d", i)
		for revision := int64(1); revision <= 1+int64(r.IntN(2)); revision++ {
			if err := s.deliver(testOrder(no, revision)); err != nil {
				t.Fatal(err)
			}
			latest[no] = revision
		}
		switch i {
		case orders / 2: // the agent is killed once, and starts with what it wrote down
			s.stop()
			s.open(config)
		case orders / 3: // and the machine
			s.plant.Kill(syscall.SIGKILL)
			if err := s.plant.Run(); err != nil {
				t.Fatal(err)
			}
			s.plant.Post(t, "/faults", fault)
		}
	}
	all, lost := s.plant.JobMachines(t)
	m := all["Press1"]
	stored, updated := map[string]int{}, 0
	for _, e := range m.Effects {
		if e.Method == "Store" {
			stored[e.ID]++
		} else {
			updated++
		}
	}
	for _, j := range m.Jobs {
		if j.Revision != fmt.Sprint(latest[j.ID]) || stored[j.ID] != 1 {
			t.Errorf("%s was stored %d times and has revision %s, want %d", j.ID, stored[j.ID], j.Revision, latest[j.ID])
		}
	}
	if len(m.Jobs) != orders || lost == 0 {
		t.Errorf("%d jobs of %d, %d replies or requests lost", len(m.Jobs), orders, lost)
	}
	t.Logf("orders=%d stored=%d updates=%d calls_lost=%d doubled=%d", orders, len(stored), updated, lost, len(m.Jobs)-len(stored))
}

func TestReplyThatComesMuchTooLateMakesNoSecondJob(t *testing.T) {
	s := newShop(t, realparts.JobOptions{AcceptTwice: true}, "{job_control: {}}")
	s.hasty("{job_control: {}}", 3*time.Second)
	s.fault(map[string]any{"delay": 1500})
	if err := s.deliver(testOrder("WO-1", 1)); err != nil {
		t.Fatal(err)
	}
	s.fault(map[string]any{"delayBefore": 1500}) // even the effect comes when nobody waits any more
	if err := s.deliver(testOrder("WO-2", 1)); err != nil {
		t.Fatal(err)
	}
	if m := s.machine(); len(m.Jobs) != 2 || len(m.Effects) != 2 {
		t.Errorf("the machine has %+v by %+v", m.Jobs, m.Effects)
	}
}

func TestMachineThatForgetsParametersStillGetsEachRevisionOnce(t *testing.T) {
	s := newShop(t, realparts.JobOptions{ForgetParameters: true}, "{job_control: {poll: 100ms}}")
	s.hasty("{job_control: {poll: 100ms}}", 600*time.Millisecond)
	s.fault(map[string]any{"loseAfter": 1})
	for revision := range int64(3) {
		if err := s.deliver(testOrder("WO-1", revision+1)); err != nil {
			t.Fatal(err)
		}
	}
	m := s.machine()
	if len(m.Jobs) != 1 || len(m.Effects) != 3 || m.Effects[2].Method != "Update" || !strings.Contains(string(m.Jobs[0].Order), `"30"`) {
		t.Errorf("the machine has %+v by %+v", m.Jobs, m.Effects)
	}
}

func testCancellationFollowsTheJobsState(t *testing.T, plant *realparts.Plant) {
	s := shopAt(t, plant, "Cancelled", atJobs("poll: 100ms"))
	var refused *signal.Refused
	if err := s.deliver(testOrder("WO-1", 1)); err != nil {
		t.Fatal(err)
	}
	s.awaitAnswers("WO-1", "accepted/1")
	if err := s.deliver(cancelled(testOrder("WO-1", 2))); err != nil {
		t.Fatal(err)
	}
	s.awaitAnswers("WO-1", "accepted/1 cancelled/2")
	if err := s.deliver(testOrder("WO-1", 3)); err != nil { // released again
		t.Fatal(err)
	}
	s.awaitAnswers("WO-1", "accepted/1 cancelled/2 accepted/3")
	s.move("WO-1", "Running")
	if err := s.deliver(cancelled(testOrder("WO-1", 4))); !errors.As(err, &refused) || !strings.Contains(refused.Reason, "too late") {
		t.Errorf("a job that runs is cancelled with %v", err)
	}
	s.awaitAnswers("WO-1", "accepted/1 cancelled/2 accepted/3 started/3")
	if err := s.deliver(cancelled(testOrder("WO-9", 1))); err != nil { // the machine never had it
		t.Error(err)
	}
	s.stop()
	s.open(atJobs("poll: 100ms, cancel_running: stop"))
	if err := s.deliver(cancelled(testOrder("WO-1", 5))); err != nil {
		t.Error(err)
	}
	s.awaitAnswers("WO-1", "accepted/1 cancelled/2 accepted/3 started/3 cancelled/5")
	if m := s.machine(); m.Jobs[0].State != "Ended" {
		t.Errorf("the machine has %+v", m.Jobs)
	}
	s.stop()
	s.open(atJobs("poll: 100ms, cancel_running: abort, start: store_and_start"))
	if err := s.deliver(testOrder("WO-2", 1)); err != nil {
		t.Fatal(err)
	}
	if m := s.machine(); m.Jobs[1].State != "AllowedToStart" {
		t.Errorf("the machine has %+v", m.Jobs)
	}
	s.move("WO-2", "Running")
	s.awaitAnswers("WO-2", "accepted/1 started/1")
	if err := s.deliver(cancelled(testOrder("WO-2", 2))); err != nil {
		t.Error(err)
	}
	s.awaitAnswers("WO-2", "accepted/1 started/1 cancelled/2")
}

func testJobThatDisappearsIsToldAndNothingIsGuessed(t *testing.T, plant *realparts.Plant) {
	s := shopAt(t, plant, "Lossy", atJobs("poll: 100ms"))
	remove := func() { plant.Post(t, "/remove", map[string]any{"machine": s.at, "id": "WO-1"}) }
	if err := s.deliver(testOrder("WO-1", 1)); err != nil {
		t.Fatal(err)
	}
	s.awaitAnswers("WO-1", "accepted/1")
	remove()
	s.awaitAnswers("WO-1", "accepted/1 rejected/1")
	if err := s.deliver(testOrder("WO-1", 2)); err != nil { // released again
		t.Fatal(err)
	}
	s.move("WO-1", "Running")
	s.awaitLast("WO-1", "started/2")
	remove()
	realparts.Eventually(t, 10*time.Second, "the page asks a person", func() error {
		if p := s.problem("work_orders/nsu=urn:plant:machines;s=Lossy.JobOrderReceiver"); p == nil || !strings.Contains(p.Reason, "whether it has ended is not known") {
			return fmt.Errorf("it shows %+v", p)
		}
		return nil
	})
	s.awaitLast("WO-1", "started/2")
	var refused *signal.Refused
	if err := s.deliver(testOrder("WO-1", 3)); !errors.As(err, &refused) {
		t.Errorf("a new revision of a job that ran gives %v", err)
	}
}

func testProbeFindsTheMachinesThatTakeOrders(t *testing.T, plant *realparts.Plant) {
	s := shopAt(t, plant, "Written", `{job_control: {receivers: [
  {work_center: a, node: "ns=2;s=AT.JobOrderReceiver"}, {work_center: b, node: "ns=2;s=AT.JobResponses"}]},
  write: [{work_center: c, nodes: {order_no: "ns=2;s=AT.Order", revision: "ns=2;s=AT.Revision"}},
    {work_center: d, nodes: {order_no: "ns=2;s=Nobody.Order", revision: "ns=2;s=AT.Revision"}}]}`)
	var got []string
	for _, step := range s.d.Probe(t.Context()) {
		if !strings.Contains(step.Name, "takes orders") {
			continue
		}
		word := "ok"
		if p := step.Problem; p != nil {
			word = p.Reason
			if p.NextStep == "" || p.Code != "machine_takes_no_orders" {
				t.Errorf("step %+v", step)
			}
		}
		got = append(got, word)
	}
	want := []string{"ok", "no receiver of job orders", "ok", "BadNodeIdUnknown"}
	if len(got) != len(want) {
		t.Fatalf("steps are %q", got)
	}
	for i := range want {
		if !strings.Contains(got[i], want[i]) {
			t.Errorf("step %d is %q, want %q", i, got[i], want[i])
		}
	}
}

func testHeldOrderIsPausedAndGoesOnOnlyWhereTheHoldPausedIt(t *testing.T, plant *realparts.Plant) {
	s := shopAt(t, plant, "Held", atJobs("poll: 100ms, start: store_and_start"))
	s.hasty(atJobs("poll: 100ms, start: store_and_start"), 600*time.Millisecond)
	held := func(revision int64) signal.WorkOrder {
		o := testOrder("WO-1", 1) // a hold changes nothing but the revision
		o.Revision, o.Held = revision, true
		return o
	}
	released := func(revision int64) signal.WorkOrder {
		o := held(revision)
		o.Held = false
		return o
	}
	s.fault(map[string]any{"loseAfter": 0.5})
	for i, c := range []struct {
		o    signal.WorkOrder
		move string
		want string
	}{
		{released(1), "", "AllowedToStart"}, {held(2), "", "NotAllowedToStart"}, {released(3), "", "AllowedToStart"},
		{held(4), "Running", "Interrupted"}, {released(5), "", "Running"},
		{held(6), "Interrupted", "Interrupted"}, {released(7), "", "Interrupted"}, // an operator paused it
	} {
		if c.move != "" {
			s.move("WO-1", c.move)
		}
		if err := s.deliver(c.o); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		if m := s.machine(); len(m.Jobs) != 1 || m.Jobs[0].State != c.want {
			t.Errorf("step %d: the machine has %+v, want %s", i, m.Jobs, c.want)
		}
	}
	s.awaitLast("WO-1", "held/3") // the machine has no other revision
	s.move("WO-1", "Ended")
	var refused *signal.Refused
	if err := s.deliver(held(8)); !errors.As(err, &refused) {
		t.Errorf("a job that has ended is held with %v", err)
	}
}

func testEachMachineGetsTheOrdersOfItsWorkCentre(t *testing.T, plant *realparts.Plant) {
	s := shopAt(t, plant, "Press1", `{job_control: {receivers: [
  {work_center: press1, node: "nsu=urn:plant:machines;s=Press1.JobOrderReceiver"},
  {work_center: "press2*", node: "nsu=urn:plant:machines;s=Press2.JobOrderReceiver"}]}}`)
	var refused *signal.Refused
	for center, want := range map[string]string{"press1": "Press1", "ulm/hall1/press1": "Press1", "press2-left": "Press2", "lathe": ""} {
		o := testOrder("WO-"+center, 1)
		o.WorkCenter = center
		err := s.deliver(o)
		if want == "" {
			if !errors.As(err, &refused) || !strings.Contains(refused.Reason, `"lathe"`) {
				t.Errorf("an order for nobody gives %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		all, _ := plant.JobMachines(t)
		if m := all[want]; !strings.Contains(fmt.Sprintf("%+v", m.Jobs), o.OrderNo) {
			t.Errorf("%s is not at %s: %+v", o.OrderNo, want, m.Jobs)
		}
	}
	s.stop()
	s.open("{job_control: {}}")
	realparts.Eventually(t, 10*time.Second, "the page says that there are several", func() error {
		if p := s.problem("work_orders/auto"); p == nil || !strings.Contains(p.Reason, "receivers of job orders") {
			return fmt.Errorf("it shows %+v", p)
		}
		return nil
	})
}

func testWhatTheMachineCannotTakeIsRefusedByName(t *testing.T, plant *realparts.Plant) {
	s := shopAt(t, plant, "Refusing", atJobs(""))
	s.fault(map[string]any{"refuse": 16})
	var refused *signal.Refused
	if err := s.deliver(testOrder("WO-1", 1)); !errors.As(err, &refused) || !strings.Contains(refused.Reason, "cannot accept") {
		t.Errorf("delivered with %v", err)
	}
	s.fault(map[string]any{"bad": "BadResourceUnavailable"})
	if err := s.d.Deliver(t.Context(), testOrder("WO-2", 1)); err == nil || errors.As(err, &refused) || !strings.Contains(err.Error(), "BadResourceUnavailable") {
		t.Errorf("a server that is busy gives %v", err)
	}
}
