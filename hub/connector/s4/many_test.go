package s4_test

import (
	"math/rand"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/connector/s4"
	"github.com/linekeeper/linekeeper/hub/connector/s4/s4double"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

// number reads a number from the environment, so that a longer run or one that failed can be had.
func number(t *testing.T, name string, def int64) int64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return def
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatalf("read %s=%q: %v", name, text, err)
	}
	return n
}

// Everything goes wrong at once: a tenth of the replies and a fiftieth of the requests are lost, sessions end, users lock
// orders, effects appear late, the period closes in the middle. The sums are those of the intents, and nothing is there twice.
func TestSumsAreRightAfterEverythingAtOnce(t *testing.T) {
	t.Parallel()
	seed, postings := number(t, "S4_SEED", time.Now().UnixNano()), int(number(t, "S4_POSTINGS", 1500))
	t.Logf("S4_SEED=%d S4_POSTINGS=%d", seed, postings)
	const lines = 30
	b := newBench(t, s4double.Traps{})
	c := b.connect(t, func(c *s4.Config) { c.Sessions = 16 })
	var orders [lines]string
	for i := range orders {
		orders[i] = b.order(t, "100000")
	}
	b.proxy.Lossy(seed, 0.10, 0.02)
	over := make(chan struct{})
	var chaos, wg sync.WaitGroup
	chaos.Go(func() { disturb(b, rand.New(rand.NewSource(seed)), orders[:], over) })

	var mu sync.Mutex
	attempts, lookups, parked := 0, 0, 0
	var want [lines]connectortest.Effects
	for i, order := range orders {
		wg.Go(func() {
			random := rand.New(rand.NewSource(seed + int64(i) + 1))
			for range (postings + lines - 1) / lines {
				p, e := confirmation(order, strconv.Itoa(random.Intn(9)), strconv.Itoa(1+random.Intn(3))), &want[i]
				if random.Intn(3) == 0 {
					p = consumption(order, "0."+strconv.Itoa(1+random.Intn(99)), object.Issue)
					e.Issued = e.Issued.Add(p.Fact.Consumption.Quantity.Value)
				} else {
					e.Yield, e.Scrap = e.Yield.Add(p.Fact.Confirmation.Yield), e.Scrap.Add(p.Fact.Confirmation.Scrap)
				}
				e.Documents++
				for {
					x := connectortest.Drive(t.Context(), c, p, time.Minute)
					mu.Lock()
					attempts, lookups = attempts+x.Attempts, lookups+x.Lookups
					mu.Unlock()
					if x.End == connectortest.Refused && x.Outcome.Code == "M7/053" { // a person opens the period and replays
						mu.Lock()
						parked++
						mu.Unlock()
						time.Sleep(5 * time.Millisecond)
						continue
					}
					if x.End != connectortest.Settled {
						t.Errorf("posting on order %s ended %s:\n  %s", order, x.End, strings.Join(x.Why, "\n  "))
					}
					break
				}
			}
		})
	}
	wg.Wait()
	close(over)
	chaos.Wait()
	b.proxy.Lossy(seed, 0, 0)
	if n := b.BrokenSessions(); n > 0 {
		t.Errorf("a session was used by two requests at once %d times", n)
	}
	sum := decimal.Zero
	for i, order := range orders {
		got := b.effects(t, order)
		if !got.Yield.Equal(want[i].Yield) || !got.Scrap.Equal(want[i].Scrap) || !got.Issued.Equal(want[i].Issued) || got.Documents != want[i].Documents {
			t.Errorf("order %s holds %+v, want %+v", order, got, want[i])
		}
		sum = sum.Add(got.Yield)
	}
	exchanges, lost := b.proxy.Counts()
	t.Logf("%d postings: %s pieces, 0 lost, 0 doubled; %d attempts, %d look-ups, %d parked by the closed period; %d of %d exchanges went wrong",
		postings, sum, attempts, lookups, parked, lost, exchanges)
}

// disturb makes one trouble after the other until over is closed, and leaves none behind.
func disturb(b *bench, random *rand.Rand, orders []string, over chan struct{}) {
	month := time.Now().UTC().Format("2006-01")
	for closed := false; ; {
		order, end := orders[random.Intn(len(orders))], func() {}
		switch n := random.Intn(40); {
		case n < 10:
			b.ExpireSessions()
		case n < 25:
			b.Lock(order, "PLANNER")
			end = func() { b.Unlock(order) }
		case n < 38:
			end = b.set(func(t *s4double.Traps) { t.VisibleAfter = 60 * time.Millisecond })
		case !closed:
			closed = true
			b.SetPeriod(month, false)
			end = func() { b.SetPeriod(month, true) }
		}
		timer := time.NewTimer(30 * time.Millisecond)
		select {
		case <-timer.C:
			end()
		case <-over:
			timer.Stop()
			end()
			return
		}
	}
}
