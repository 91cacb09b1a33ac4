package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/agent/status"
)

const (
	drainGoal = 60_000                // messages per second
	firstGoal = 2 * time.Second       // from the hub's readiness to the first record that it holds
	flight    = 32 * 256              // records in a full window
	repeated  = "hub had this record" // what the agent says of each
)

// outage publishes everything while the hub is down, then starts the hub.
func outage(ctx context.Context, dir, binaries string) error {
	l, err := newPlant(ctx, dir, binaries, messages)
	if err != nil {
		return err
	}
	defer l.stop()
	if err := l.fill(ctx); err != nil {
		return err
	}
	first, rest, err := l.drain(ctx)
	if err != nil {
		return err
	}
	tally, err := l.tally(ctx)
	if err != nil {
		return err
	}
	rate := messages / rest.Seconds()
	fmt.Printf("  hub up: the first record after %.2f s, all %.2f s later: %.0f/s\n  %s\n", first.Seconds(), rest.Seconds(), rate, tally)
	fmt.Printf("ratio outage_drain_rate %.2f 1.00\n", rate/drainGoal)
	fmt.Printf("ratio outage_first_record %.2f 1.00\n", firstGoal.Seconds()/first.Seconds())
	fmt.Printf("ratio outage_exact %.2f 1.00\n", tally.exact())
	return nil
}

// newPlant makes a line of which broker and agent run and the hub does not.
func newPlant(ctx context.Context, dir, binaries string, messages int) (*benchLine, error) {
	l, err := newLine(ctx, dir, binaries, messages)
	if err != nil {
		return nil, err
	}
	if err = l.startBroker(ctx); err == nil {
		err = l.startAgent(ctx)
	}
	if err != nil {
		l.stop()
		return nil, err
	}
	return l, nil
}

// fill publishes everything while there is no hub.
func (l *benchLine) fill(ctx context.Context) error {
	begin := time.Now()
	if err := l.publish(ctx, nil); err != nil {
		return err
	}
	if err := l.stored(ctx); err != nil {
		return err
	}
	took := time.Since(begin)
	fmt.Printf("  hub down: %d messages stored at the agent in %.1f s: %.0f/s\n", l.messages, took.Seconds(), float64(l.messages)/took.Seconds())
	return nil
}

// drain starts the hub and returns how long after it was ready it held the first record, and how long then the last.
func (l *benchLine) drain(ctx context.Context) (first, rest time.Duration, err error) {
	if err := l.startHub(ctx); err != nil {
		return 0, 0, err
	}
	up := time.Now()
	if err := l.acknowledged(ctx, 1, 5*time.Millisecond); err != nil {
		return 0, 0, err
	}
	began := time.Now()
	if err := l.acknowledged(ctx, l.messages, 25*time.Millisecond); err != nil {
		return 0, 0, err
	}
	return began.Sub(up), time.Since(began), nil
}

// kills does the same, but the agent is killed at 30 % of the publishing and again at half of the drain.
func kills(ctx context.Context, dir, binaries string) error {
	l, err := newPlant(ctx, dir, binaries, messages)
	if err != nil {
		return err
	}
	defer l.stop()
	died := make(chan struct{})
	restarted := make(chan error, 1)
	go func() {
		<-died
		l.agent.kill()
		restarted <- l.startAgent(ctx)
	}()
	die := sync.OnceFunc(func() { close(died) })
	err = l.publish(ctx, func(i int) {
		if i == messages*3/10 {
			die()
		}
	})
	die() // also when publishing failed: the other goroutine must end before this one
	if fault := <-restarted; err == nil && fault != nil {
		err = fmt.Errorf("start the agent after the first kill: %w", fault)
	}
	if err != nil {
		return err
	}
	stored, err := l.settled(ctx, func(s status.Snapshot) bool { return s.Business.LastSeq >= messages })
	if err != nil {
		return err
	}
	again, err := l.killInDrain(ctx, stored)
	if err != nil {
		return err
	}
	tally, err := l.tally(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("  given again by the broker after the first kill and not known any more by the agent: %d\n", stored-messages)
	fmt.Printf("  %s; sent again after the kill in the drain: %d (a full window holds %d)\n", tally, again, flight)
	fmt.Printf("ratio kills_exact %.2f 1.00\n", tally.exact())
	fmt.Printf("ratio kills_sent_again %.2f 1.00\n", min(flight/max(float64(again), 1), 99))
	return nil
}

// killInDrain starts the hub, kills the agent when half of what it stored is there, and returns how many records it then
// sent again.
func (l *benchLine) killInDrain(ctx context.Context, stored int) (again int, err error) {
	if err := l.startHub(ctx); err != nil {
		return 0, err
	}
	if err := l.acknowledged(ctx, stored/2, 5*time.Millisecond); err != nil {
		return 0, err
	}
	l.agent.kill()
	before, err := l.repeats()
	if err != nil {
		return 0, err
	}
	if err := l.startAgent(ctx); err != nil {
		return 0, fmt.Errorf("start the agent after the second kill: %w", err)
	}
	if _, err := l.settled(ctx, func(s status.Snapshot) bool { return s.Business.AckedSeq >= uint64(stored) && s.Business.Pending == 0 }); err != nil {
		return 0, err
	}
	after, err := l.repeats()
	return after - before, err
}

// repeats counts how often the agent was told that the hub had a record already.
func (l *benchLine) repeats() (int, error) {
	said, err := os.ReadFile(l.agent.log)
	return strings.Count(string(said), repeated), err
}

// settled waits until done holds and the agent has stored nothing more for two seconds, and returns how many records it
// has stored. After a kill the broker gives messages again; the agent knows the latest 16,000, the hub knows all.
func (l *benchLine) settled(ctx context.Context, done func(status.Snapshot) bool) (stored int, err error) {
	since := time.Now()
	err = await(ctx, 5*time.Minute, 50*time.Millisecond, func() error {
		s, err := l.status()
		if err != nil {
			return err
		}
		if n := int(s.Business.LastSeq); n != stored || !done(s) {
			stored, since = n, time.Now()
		}
		if time.Since(since) < 2*time.Second {
			return fmt.Errorf("%d stored at the agent, %d of them at the hub", s.Business.LastSeq, s.Business.AckedSeq)
		}
		return nil
	})
	return stored, err
}
