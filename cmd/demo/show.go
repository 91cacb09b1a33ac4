package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/api"
)

const (
	openOrders    = 6
	disasterEvery = time.Minute
	cutFor        = 15 * time.Second
)

// perform releases work orders and strikes, until length has passed (0: until ctx ends).
func (s *stage) perform(ctx context.Context, length time.Duration) {
	if length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, length)
		defer cancel()
	}
	release := time.NewTicker(time.Second)
	defer release.Stop()
	report := time.NewTicker(5 * time.Second)
	defer report.Stop()
	// The first disaster comes early, so that a short demo shows one of each kind.
	strike := time.NewTimer(min(disasterEvery, max(length/6, 10*time.Second)))
	defer strike.Stop()
	var plug <-chan time.Time
	released := 0
	for {
		select {
		case <-ctx.Done():
			s.link.set(false)
			return
		case <-release.C:
			released += s.releaseOrders(ctx, released)
		case <-report.C:
			s.say("%s", s.now())
		case <-strike.C:
			plug = s.strike(plug)
			strike.Reset(min(disasterEvery, max(length/5, 12*time.Second)))
		case <-plug:
			s.link.set(false)
			s.say("the network is back")
			plug = nil
		}
	}
}

func (s *stage) releaseOrders(ctx context.Context, so int) int {
	open := 0
	for _, o := range s.plant.Truth().Orders {
		if o.State != "FINISHED" && o.State != "CANCELLED" {
			open++
		}
	}
	open += max(0, so-len(s.plant.Truth().Orders))
	if open >= openOrders {
		return 0
	}
	machines := s.plant.Machines()
	no, err := s.erp.ReleaseDemoOrder(ctx, "ULM", machines[so%len(machines)], so, 60)
	if err != nil {
		s.say("the ERP could not release an order: %v", err)
		return 0
	}
	s.say("the ERP releases work order %s", no)
	return 1
}

var strikes = []string{"cut", "agent", "hub"}

// strike does the next disaster and returns when a cut network is to be plugged in again.
func (s *stage) strike(plug <-chan time.Time) <-chan time.Time {
	what := strikes[0]
	strikes = append(strikes[1:], what)
	switch what {
	case "cut":
		s.say("DISASTER: the network between plant and hub is cut for %s", cutFor)
		s.link.set(true)
		return time.After(cutFor)
	case "agent":
		s.say("DISASTER: the agent is killed (kill -9)")
		s.again(s.agent)
	case "hub":
		s.say("DISASTER: the hub is killed (kill -9)")
		s.again(s.hub)
	}
	return plug
}

func (s *stage) again(p *process) {
	p.stop(os.Signal(syscall.SIGKILL))
	if err := p.start(); err != nil {
		s.say("%v", err)
		return
	}
	s.say("the %s runs again", p.name)
}

// sums are pieces, good and scrap together.
type sums struct {
	counted, stored, received, posted decimal.Decimal
	missing, doubled                  decimal.Decimal
}

func (t sums) String() string {
	return fmt.Sprintf("tally: counted=%s stored=%s received=%s posted=%s missing=%s doubled=%s", t.counted, t.stored, t.received, t.posted, t.missing, t.doubled)
}

func (t sums) balanced() bool {
	return t.counted.IsPositive() && t.counted.Equal(t.stored) && t.stored.Equal(t.received) && t.received.Equal(t.posted) && t.missing.IsZero() && t.doubled.IsZero()
}

// take reads each number from its own place: counted from the machines, stored from the agent, received from the hub,
// posted, missing and doubled from the ERP's books.
func (s *stage) take() (t sums, err error) {
	truth := s.plant.Truth()
	t.counted = decimal.NewFromInt(truth.Good + truth.Scrap)
	snap, err := s.agentStatus()
	if err != nil {
		return t, fmt.Errorf("ask the agent: %w", err)
	}
	for _, l := range snap.Ledger {
		if l.Kind == "yield" || l.Kind == "scrap" {
			t.stored = t.stored.Add(number(l.Stored))
		}
	}
	var y api.Tally
	if err := getJSON(s.hubURL+"/v1/tally", &y); err != nil {
		return t, fmt.Errorf("ask the hub: %w", err)
	}
	for _, l := range y.Totals {
		if l.Kind == "yield" || l.Kind == "scrap" {
			t.received = t.received.Add(number(l.Received))
		}
	}
	return t, s.compare(&t)
}

// compare holds the ERP's books against what really happened, order by order, material included.
func (s *stage) compare(t *sums) error {
	books, err := s.erp.Totals(context.Background())
	if err != nil {
		return fmt.Errorf("ask the ERP: %w", err)
	}
	add := func(want, got decimal.Decimal) {
		if d := want.Sub(got); d.IsPositive() {
			t.missing = t.missing.Add(d)
		} else {
			t.doubled = t.doubled.Sub(d)
		}
	}
	truth := s.plant.Truth()
	for no, o := range truth.Orders {
		b := books.Orders[no]
		add(decimal.NewFromInt(o.Good), b.Yield)
		add(decimal.NewFromInt(o.Scrap), b.Scrap)
		want := map[string]decimal.Decimal{}
		for _, material := range []map[string]decimal.Decimal{o.MES, o.MQTT} {
			for item, q := range material {
				want[item] = want[item].Add(q)
			}
		}
		for item := range b.Consumed {
			want[item] = want[item].Add(decimal.Zero)
		}
		for item, q := range want {
			add(q, b.Consumed[item])
		}
	}
	for no, b := range books.Orders {
		t.posted = t.posted.Add(b.Yield).Add(b.Scrap)
		if _, known := truth.Orders[no]; !known {
			t.doubled = t.doubled.Add(b.Yield).Add(b.Scrap)
		}
	}
	t.doubled = t.doubled.Add(decimal.NewFromInt(int64(len(books.Duplicates))))
	return nil
}

func number(s string) decimal.Decimal {
	d, err := decimal.NewFromString(s)
	if err != nil {
		return decimal.Zero
	}
	return d
}

// now is the live tally; what is on its way shows as missing.
func (s *stage) now() string {
	t, err := s.take()
	if err != nil {
		return "tally: not now (" + err.Error() + ")"
	}
	return strings.Replace(t.String(), "missing=", "on its way=", 1)
}

// settle lets the plant finish and waits until the books balance, at most five minutes.
func (s *stage) settle() (sums, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	s.link.set(false)
	if err := s.plant.Quiesce(ctx); err != nil {
		return sums{}, fmt.Errorf("stop the machines: %w", err)
	}
	poll := time.NewTicker(500 * time.Millisecond)
	defer poll.Stop()
	report := time.NewTicker(5 * time.Second)
	defer report.Stop()
	for {
		t, err := s.take()
		if err == nil && t.balanced() {
			return t, nil
		}
		select {
		case <-poll.C:
		case <-report.C:
			s.say("%s", s.now())
		case <-ctx.Done():
			if err != nil {
				return t, err
			}
			s.say("the books do not balance; look at %s/tally and keep the files with DEMO_KEEP=1", s.hubURL)
			return t, nil
		}
	}
}
