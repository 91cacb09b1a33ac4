package mqtt

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/drivers/mqttlink"
)

// press publishes the numbers of one topic with QoS 1, one after the other, each again until the broker has acknowledged it.
type press struct {
	topic     string
	published int         // numbers 1 to published are acknowledged
	sent      map[int]int // how often, of those that were sent more than once: the broker may have had each of these
}

func (p *press) run(t *testing.T, b *realparts.Broker, stop *atomic.Bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	u, err := mqttlink.ParseBroker(b.URL())
	if err != nil {
		t.Error(err)
		return
	}
	for n := 1; !stop.Load(); {
		s, err := mqttlink.Connect(ctx, mqttlink.Options{Broker: u, ClientID: p.topic, Clean: true, KeepAlive: time.Second})
		if err != nil {
			if ctx.Err() != nil {
				t.Errorf("publish on %s: %v", p.topic, err)
				return
			}
			continue
		}
		for !stop.Load() {
			p.sent[n]++
			one, enough := context.WithTimeout(ctx, patience)
			err := s.Publish(one, mqttlink.Publication{Topic: p.topic, Payload: fmt.Appendf(nil, `{"n":%d}`, n), QoS: 1})
			if one.Err() != nil {
				t.Errorf("publish %d on %s with MQTT %s: neither an answer nor the end of the connection within %s", n, p.topic, s.Version, patience)
			}
			enough()
			if err != nil {
				break
			}
			if p.published = n; p.sent[n] == 1 {
				delete(p.sent, n)
			}
			n++
		}
		s.Close()
	}
}

// The queue of a broker that is told to end is on its disk. Every message must become durable once, in the order of its topic.
func TestFiftyBrokerRestartsUnderLoadLoseAndDoubleNothing(t *testing.T) {
	inBoth(t, testFiftyBrokerRestarts)
}

func testFiftyBrokerRestarts(t *testing.T, version string) {
	restarts := 50
	if version != "version: 5" {
		restarts = 20 // the same code above the library
	}
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{MaxInflight: 500})
	p := newPlant(t)
	stopDriver := p.start(section(b, version+"\nbatch: 100"))
	p.awaitOK()
	p.learn(newMachine(t, b, nil))
	var stop atomic.Bool
	var working sync.WaitGroup
	presses := make([]*press, 2)
	for i := range presses {
		presses[i] = &press{topic: fmt.Sprintf("line/%d/counts", i+2), sent: map[int]int{}}
		working.Go(func() { presses[i].run(t, b, &stop) })
	}
	for i := range restarts {
		before, failures := p.count(), 0
		p.await("new messages", func() bool { failures = p.failures; return len(p.signals) >= before+50 })
		b.Kill(15)
		if i%2 == 1 { // else it may be back before the driver has noticed, as after somebody else took the session over
			p.await("that the end is noticed", func() bool { return p.failures > failures })
		}
		if err := b.Run(); err != nil {
			t.Fatal(err)
		}
	}
	stop.Store(true)
	working.Wait()
	p.awaitWhileTheyCome("the last messages", func() bool {
		last := map[string]int{}
		for _, s := range p.signals[max(0, len(p.signals)-5000):] {
			last[s.Topic] = numberOf(s)
		}
		for _, x := range presses {
			if last[x.topic] < x.published {
				return false
			}
		}
		return true
	})
	stopDriver()
	p.account(presses, restarts)
	if x := p.problems["client_id"]; x != nil {
		t.Errorf("restarts are taken for a twin: %+v", x)
	}
}

func numberOf(s signal.Signal) int {
	n, err := s.Value.(map[string]any)["n"].(signal.Number).Int64()
	if err != nil {
		return -1
	}
	return int(n)
}

// account compares what became durable with what was published, number by number.
func (p *plant) account(presses []*press, restarts int) {
	p.t.Helper()
	published, durable, again, lost, doubled, told := 0, 0, 0, 0, 0, 0
	wrong := func(format string, args ...any) {
		if told++; told <= 10 {
			p.t.Errorf(format, args...)
		}
	}
	for _, x := range presses {
		times, last := map[int]int{}, 0
		for _, s := range p.signals {
			if s.Topic != x.topic {
				continue
			}
			n := numberOf(s)
			if n < last {
				wrong("%s: number %d after %d", x.topic, n, last)
			}
			times[n]++
			last = n
		}
		for n := 1; n <= x.published; n++ {
			allowed := max(1, x.sent[n])
			again += allowed - 1
			switch got := times[n]; {
			case got == 0:
				lost++
				wrong("%s: number %d is lost", x.topic, n)
			case got > allowed:
				doubled++
				wrong("%s: number %d, sent %d times, is durable %d times", x.topic, n, allowed, got)
			}
			durable += times[n]
		}
		published += x.published
	}
	if told > 10 {
		p.t.Errorf("and %d more", told-10)
	}
	p.t.Logf("restarts=%d published=%d (%d of them sent again by their publisher) durable=%d lost=%d doubled=%d", restarts, published, again, durable, lost, doubled)
}
