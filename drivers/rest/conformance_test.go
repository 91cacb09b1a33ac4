package rest

import (
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/signal/drivertest"
)

// polled is an MES that is asked.
type polled struct {
	*mes
	way string
}

func (p *polled) Section() string { return section(p.mes, p.way) }
func (p *polled) Produce(n int)   { p.add(n) }

func (p *polled) Spoil() {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := p.items[len(p.items)-1]
	last.bad = true
	p.items = append(p.items, last)
}

func (p *polled) Number(s signal.Signal) (int, bool) { return number(s) }

func number(s signal.Signal) (int, bool) {
	v, ok := s.Value.(map[string]any)
	if !ok {
		return 0, false
	}
	n, err := strconv.Atoi(fmt.Sprint(v["n"]))
	return n, err == nil
}

func (p *polled) Restart() {
	p.server.Close()
	p.start()
}

func TestPollingIsADriverLikeOthers(t *testing.T) {
	drivertest.Run(t, drivertest.Options{Kind: Kind, Start: func(t testing.TB) drivertest.Source { return &polled{newMES(t), ways["number"]} }})
}

// calling is an MES that calls, and repeats each call until it is taken.
type calling struct {
	*hooks
	mu    sync.Mutex
	queue []string
	made  int
	news  chan struct{}
}

func (c *calling) Section() string { return c.section() }

func (c *calling) Number(s signal.Signal) (int, bool) { return number(s) }

func (c *calling) push(bodies ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = append(c.queue, bodies...)
	select {
	case c.news <- struct{}{}:
	default:
	}
}

func (c *calling) Produce(n int) {
	for range n {
		c.made++
		c.push(fmt.Sprintf(`{"items": [{"n": %d}]}`, c.made))
	}
}

func (c *calling) Spoil() { c.push("torn") }

func (c *calling) Restart() {} // it is the one that calls: the driver cannot see that

// send works until the test ends.
func (c *calling) send(done <-chan struct{}) {
	for sent := 0; ; {
		c.mu.Lock()
		body := ""
		if sent < len(c.queue) {
			body = c.queue[sent]
		}
		c.mu.Unlock()
		if body != "" {
			if code, _ := c.standard("/std", fmt.Sprint("m", sent), body, time.Now()); code == 200 {
				sent++
				continue
			}
		}
		select {
		case <-c.news:
		case <-time.After(20 * time.Millisecond):
		case <-done:
			return
		}
	}
}

func TestWebhooksAreADriverLikeOthers(t *testing.T) {
	drivertest.Run(t, drivertest.Options{Kind: Kind, Start: func(t testing.TB) drivertest.Source {
		c := &calling{hooks: newHooks(t), news: make(chan struct{}, 1)}
		c.absolute()
		done, ended := make(chan struct{}), make(chan struct{})
		go func() { defer close(ended); c.send(done) }()
		t.Cleanup(func() { close(done); <-ended })
		return c
	}})
}

// absolute lets the suite's drivers, which have folders of their own, find the secret.
func (c *calling) absolute() { c.secret = c.dir + "/secret" }
