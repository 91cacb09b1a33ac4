package posting

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
)

// shutting is a system whose order is completed, and that can reopen it.
type shutting struct {
	*modelERP
	state            string
	opened, restored int
	fail             int // so many calls of Reopen and Restore are lost after their effect
}

func (s *shutting) Post(ctx context.Context, p connector.Posting, intent []byte) connector.Outcome {
	s.mu.Lock()
	shut := s.state != "open"
	s.mu.Unlock()
	if shut {
		return connector.Outcome{Result: connector.Rejected, Class: connector.Correctable, Code: "order_closed", Reason: "order is completed", NextStep: "reopen it"}
	}
	return s.modelERP.Post(ctx, p, intent)
}

func (s *shutting) Shut(context.Context, string) (connector.Lock, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return connector.Lock{State: s.state, Shut: s.state != "open", Final: s.state == "closed"}, nil
}

func (s *shutting) set(state string, count *int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != state {
		*count++
	}
	s.state = state
	if s.fail > 0 {
		s.fail--
		return errors.New("connection reset")
	}
	return nil
}

func (s *shutting) Reopen(context.Context, string) error { return s.set("open", &s.opened) }

func (s *shutting) Restore(_ context.Context, _ string, state string) error {
	return s.set(state, &s.restored)
}

func reopening(w *world) *shutting {
	s := &shutting{modelERP: w.erp, state: "completed"}
	w.opts.Connectors["erp"], w.opts.Policies = s, []Policy{{ClosedOrder: ClosedReopen}}
	w.order("WO-1")
	return s
}

func TestLateFactsHaveTheirOrderReopenedOnceAndItsStateRestored(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		s := reopening(w)
		s.fail = 2
		w.start()
		f, g := confirm("WO-1", 1, "5"), confirm("WO-1", 2, "7")
		w.deliver(f, g)
		w.pass(10 * time.Minute)
		w.want(f, store.PostingVerified, "")
		w.want(g, store.PostingVerified, "")
		if s.state != "completed" || s.opened != 1 || s.restored != 1 {
			t.Errorf("the order is %s, was opened %d times and restored %d times", s.state, s.opened, s.restored)
		}
		_, _, steps, err := w.s.OrderTimeline(context.Background(), "", "WO-1")
		var names []string
		for _, s := range steps {
			names = append(names, s.Step)
		}
		if got := strings.Join(names, " "); err != nil || !strings.HasSuffix(got, "reopened restored") {
			t.Errorf("timeline %s, %v", got, err)
		}
	})
}

func TestCompletedOrderStaysShutWithoutThePolicyAndAClosedOneAlways(t *testing.T) {
	for name, x := range map[string]struct {
		policy ClosedOrder
		state  string
		code   string
	}{
		"policy holds": {ClosedHold, "completed", "order_closed"},
		"no policy":    {"", "completed", "order_closed"},
		"closed":       {ClosedReopen, "closed", CodeOrderFinal},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(t *testing.T, w *world) {
				s := reopening(w)
				s.state = x.state
				w.opts.Policies = []Policy{{ClosedOrder: x.policy}}
				w.start()
				f := confirm("WO-1", 1, "5")
				w.deliver(f)
				w.pass(10 * time.Minute)
				w.want(f, store.PostingParked, x.code)
				if s.opened != 0 || s.state != x.state {
					t.Errorf("the order is %s and was opened %d times", s.state, s.opened)
				}
			})
		})
	}
}

func TestOrderIsNotReopenedForEver(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		s := reopening(w)
		w.erp.set(trouble{retry: 100}) // open, and still nothing can be posted
		w.start()
		f := confirm("WO-1", 1, "5")
		w.deliver(f)
		w.pass(12 * time.Hour)
		w.want(f, store.PostingParked, "order_closed")
		if s.opened != reopenMost || s.state != "completed" {
			t.Errorf("the order is %s and was opened %d times, want %d", s.state, s.opened, reopenMost)
		}
	})
}

func TestHubThatDiesWhileAnOrderIsReopenedRestoresIt(t *testing.T) {
	for _, step := range []string{"order shut", "reopening begun", "order reopened", "sending", "posted", "saved posted", "saved verified", "order restored"} {
		t.Run(step, func(t *testing.T) {
			simulate(t, func(t *testing.T, w *world) {
				s := reopening(w)
				dead := false
				w.crash = func(x string) error {
					if dead || x == step && (step != "sending" && step != "posted" || s.opened > 0) {
						dead = true
						return errDies
					}
					return nil
				}
				w.deliver(confirm("WO-1", 1, "5"), confirm("WO-1", 2, "7"))
				w.start()
				w.pass(30 * time.Minute)
				if !dead {
					t.Fatalf("step %q never came", step)
				}
				w.stop()
				w.crash = func(string) error { return nil }
				w.s.Close()
				w.open()
				w.start()
				w.pass(30 * time.Minute)
				for n, v := range []string{"5", "7"} {
					w.want(confirm("WO-1", n+1, v), store.PostingVerified, "")
				}
				w.agrees("WO-1", "12")
				if s.state != "completed" || s.opened > 2 || s.opened != s.restored {
					t.Errorf("the order is %s, was opened %d times and restored %d times", s.state, s.opened, s.restored)
				}
			})
		})
	}
}

func TestOrderThatSomebodyElseOpenedStaysOpen(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		s := reopening(w)
		w.crash = func(step string) error {
			if step == "order shut" {
				s.mu.Lock()
				s.state = "open"
				s.mu.Unlock()
			}
			return nil
		}
		w.start()
		f := confirm("WO-1", 1, "5")
		w.deliver(f, state("WO-1", object.FloorStarted))
		w.pass(10 * time.Minute)
		w.want(f, store.PostingVerified, "")
		if s.state != "open" || s.opened+s.restored != 0 {
			t.Errorf("the order is %s, %s", s.state, fmt.Sprint(s.opened, s.restored))
		}
	})
}
