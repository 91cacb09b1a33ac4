package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/agent/status"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/hub/connector/sandbox/erp"
)

// jobLine is an ERP sandbox, a hub, an agent, and machines that take job orders.
type jobLine struct {
	*line
	erp      *erp.ERP
	machines *realparts.Plant
}

func newJobLine(t *testing.T) *jobLine {
	t.Helper()
	p := &jobLine{machines: realparts.NodeOPCUAJobs(t, realparts.JobOptions{Machines: []string{"Press1", "Press2"}, AcceptTwice: true})}
	var err error
	if p.erp, err = erp.Open(t.TempDir(), erp.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.erp.Close() })
	if err := p.erp.SeedDemo(t.Context()); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(p.erp.Handler())
	t.Cleanup(server.Close)
	p.line = newLine(t, func(dir string) (string, string) {
		realparts.WriteFile(t, filepath.Join(dir, "erp-password.txt"), "sandbox\n")
		return fmt.Sprintf(`
erps:
  - {name: erp, kind: sandbox, url: "%s", user: linekeeper, password_file: erp-password.txt, settle: 300ms, timeout: 5s}
routes:
  - {erp: erp, plant: ulm, agent: line1}
dispatch: {every: 200ms}
posting: {quiet: 1ms, close_after: 1ms}
`, server.URL), fmt.Sprintf(`
sources:
  - name: hall
    kind: opcua
    endpoint: %s
    security_policy: None
    anonymous: true
    work_orders:
      job_control:
        poll: 200ms
        start: store_and_start
        receivers:
          - {work_center: press1, node: "nsu=urn:plant:machines;s=Press1.JobOrderReceiver"}
          - {work_center: press2, node: "nsu=urn:plant:machines;s=Press2.JobOrderReceiver"}
rules: []
`, p.machines.Endpoint())
	})
	p.hub.Start(t)
	p.agent.Start(t)
	return p
}

// fates of an order whose cancellation crosses its start: each is right, another one is none.
const (
	notCancelled = "started: the ERP knew it in time and cancelled nothing"
	wasCancelled = "cancelled: the machine does not have it"
	wasStarted   = "started: the cancellation came too late"
)

// fate compares what machine, agent and hub say of an order.
func (p *jobLine) fate(t testing.TB, no string, machines map[string]realparts.JobMachine, page []status.Order) (string, error) {
	job, stored := "", 0
	for _, m := range machines {
		for _, j := range m.Jobs {
			if j.ID == no {
				job += j.State
			}
		}
		for _, e := range m.Effects {
			if e.ID == no && e.Method == "StoreAndStart" {
				stored++
			}
		}
	}
	var shown status.Order
	for _, o := range page {
		if o.OrderNo == no {
			shown = o
		}
	}
	var hub struct {
		Revision int64  `json:"revision"`
		State    string `json:"state"`
		Timeline []struct {
			Step     string `json:"step"`
			Revision int64  `json:"revision"`
		} `json:"timeline"`
	}
	if err := p.get(p.hubHTTP+"/v1/work-orders/"+no, &hub); err != nil {
		return "", err
	}
	steps := ""
	for _, s := range hub.Timeline {
		steps += fmt.Sprintf(" %s/%d", s.Step, s.Revision)
	}
	told := func(step string) bool { return strings.Contains(steps, " "+step+"/") }
	all := fmt.Sprintf("machine %q (stored %d times), page %s/%d %q, hub %s/%d:%s", job, stored, shown.State, shown.Revision, shown.Reason, hub.State, hub.Revision, steps)
	switch {
	case stored > 1:
		return "", fmt.Errorf("stored more than once: %s", all)
	case job == "Running" && shown.State == "started" && hub.State == "IN_PROGRESS" && told("STARTED"):
		return notCancelled, nil
	case hub.State != "CANCELLED" || shown.Revision != hub.Revision && stored > 0:
		return "", fmt.Errorf("not through yet: %s", all)
	case job == "" && stored == 0 && (shown.State == "cancelled" || shown.OrderNo == ""):
		return wasCancelled, nil
	case job == "" && shown.State == "cancelled" && told("CANCELLED") && !told("STARTED") && !told("REJECTED"):
		return wasCancelled, nil
	case job == "Running" && shown.State == "rejected" && told("STARTED") && strings.Contains(steps, fmt.Sprintf(" REJECTED/%d", hub.Revision)):
		return wasStarted, nil
	}
	return "", fmt.Errorf("they do not agree: %s", all)
}

// Orders are cancelled in the ERP in the moment in which their machine may start them, while replies are lost, the line is
// cut and the agent is killed.
func TestCancellationThatCrossesTheStartEndsTheSameOnMachineAgentAndHub(t *testing.T) {
	seed := seedOf(t)
	r := rand.New(rand.NewPCG(seed, 3))
	p := newJobLine(t)
	p.machines.Post(t, "/faults", map[string]any{"loseAfter": 0.2, "loseBefore": 0.05, "startsAfter": 4000, "cut": seed%2 == 0, "seed": seed % 1e9})
	n := 16
	if s := os.Getenv("E2E_ORDERS"); s != "" {
		n, _ = strconv.Atoi(s)
	}
	var orders []string
	var wg sync.WaitGroup
	for i := range n {
		no := fmt.Sprintf("X-%d", 100+i)
		orders = append(orders, no)
		release, cancel := time.Duration(r.IntN(3000))*time.Millisecond, time.Duration(r.IntN(6000))*time.Millisecond
		wg.Go(func() {
			time.Sleep(release) // a planner's pace, not a wait for something
			if _, err := p.erp.ReleaseOrder(context.Background(), erp.Order{No: no, Item: piece, Quantity: decimal.NewFromInt(100), Site: "1000",
				WorkCenter: fmt.Sprintf("press%d", 1+i%2), PlannedStart: time.Now(), PlannedEnd: time.Now().Add(time.Hour)}); err != nil {
				t.Error(err)
			}
			time.Sleep(cancel)
			if err := p.erp.Cancel(context.Background(), no); err != nil && !strings.Contains(err.Error(), "only a released order") {
				t.Error(err)
			}
		})
	}
	time.Sleep(time.Duration(2000+r.IntN(3000)) * time.Millisecond)
	p.link.Refuse(true)
	p.link.Cut()
	restart(t, p.agent, syscall.SIGKILL)
	time.Sleep(time.Duration(r.IntN(2000)) * time.Millisecond)
	p.link.Refuse(false)
	wg.Wait()

	count := map[string]int{}
	realparts.Eventually(t, 3*time.Minute, "machine, agent and hub agree on every order", func() error {
		clear(count)
		machines, _ := p.machines.JobMachines(t)
		s, err := p.status()
		if err != nil {
			return err
		}
		for _, no := range orders {
			fate, err := p.fate(t, no, machines, s.WorkOrders)
			if err != nil {
				return fmt.Errorf("order %s: %w", no, err)
			}
			count[fate]++
		}
		return nil
	})
	_, lost := p.machines.JobMachines(t)
	t.Logf("%d orders: %v; %d calls lost", n, count, lost)
}
