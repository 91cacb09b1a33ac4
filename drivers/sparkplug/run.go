package sparkplug

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/mqttlink"
)

// Waiting times. A wait is drawn at random below the bound of its attempt (full jitter).
const (
	firstWait   = 500 * time.Millisecond
	longestWait = 30 * time.Second
	settled     = 30 * time.Second // a connection that lived so long was a good one
	patience    = 5 * time.Second  // for the broker's answer to a message
)

// Run implements signal.Driver.
func (d *driver) Run(ctx context.Context, cursor []byte, emit signal.Emit) error {
	defer d.env.Reporter.State(signal.StateStopped, "")
	var roles sync.WaitGroup
	if len(d.config.Metrics) > 0 {
		d.status.set(roleHost, signal.StateConnecting, "")
		roles.Go(func() { d.runHost(ctx, cursor, emit) })
	}
	if d.edge != nil {
		d.status.set(roleEdge, signal.StateConnecting, "")
		roles.Go(func() { d.runEdge(ctx) })
	}
	roles.Wait()
	return nil
}

// again makes one connection after another until ctx ends. once works with one and returns why it ended; options are those
// that it was made with.
func (d *driver) again(ctx context.Context, role string, once func(context.Context) (*mqttlink.Options, error)) {
	for attempt := 0; ctx.Err() == nil; attempt++ {
		began := time.Now()
		options, err := once(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > settled {
			attempt = 0
		}
		if err == nil {
			attempt = 0
			continue // it ended on purpose
		}
		d.env.Logger.Warn("connection to the broker is gone", "source", d.env.Source, "role", role, "err", err)
		p := &signal.Problem{Code: "no_connection", Item: d.config.Broker, Reason: err.Error(), NextStep: "see the agent's log"}
		if options != nil {
			p = mqttlink.Explain(err, options)
		}
		d.status.set(role, signal.StateFailed, p.Reason)
		d.env.Reporter.Problem("connect:"+role, p)
		wait(ctx, jitter(attempt))
	}
}

// publish sends a message and waits for the broker's answer no longer than patience or the connection last.
func publish(ctx context.Context, s *mqttlink.Session, p mqttlink.Publication) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	sent := make(chan error, 1)
	go func() { sent <- s.Publish(ctx, p) }()
	select {
	case err := <-sent:
		return err
	case <-s.Done():
		cancel()
		return errors.Join(s.Err(), <-sent)
	}
}

func jitter(attempt int) time.Duration {
	return rand.N(min(firstWait<<min(attempt, 10), longestWait))
}

// wait returns after d or when ctx ends.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// The two things that a source can be.
const (
	roleHost = "host"
	roleEdge = "edge node"
)

// status makes one state of what both roles say.
type status struct {
	reporter signal.Reporter
	mu       sync.Mutex
	roles    map[string]said
}

type said struct {
	state  signal.State
	reason string
}

// set tells the worst of the roles' states.
func (s *status) set(role string, state signal.State, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roles[role] = said{state, reason}
	worst := said{state: signal.StateOK}
	for name, r := range s.roles {
		if badness(r.state) > badness(worst.state) {
			worst = r
			if len(s.roles) > 1 && r.reason != "" {
				worst.reason = name + ": " + r.reason
			}
		}
	}
	s.reporter.State(worst.state, worst.reason)
}

func badness(s signal.State) int {
	switch s {
	case signal.StateOK:
		return 0
	case signal.StateConnecting:
		return 1
	case signal.StateHeld:
		return 2
	}
	return 3
}
