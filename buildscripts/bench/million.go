package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	millionMessages = 1_000_000
	millionOwnGoal  = 40  // MB of the agent's own memory
	millionAllGoal  = 150 // MB of the agent's resident memory, mapped files included
)

// million fills the agent with a million messages while the hub is down and drains it, and looks at the memory all the time.
func million(ctx context.Context, dir, binaries string) error {
	l, err := newPlant(ctx, dir, binaries, millionMessages)
	if err != nil {
		return err
	}
	defer l.stop()
	watching, stop := context.WithCancel(ctx)
	var most memoryPeak
	var wg sync.WaitGroup
	wg.Go(func() { most = watch(watching, l.agent.Process.Pid, l.mosquitto.Process.Pid) })
	defer wg.Wait()
	defer stop()
	if err := l.fill(ctx); err != nil {
		return err
	}
	first, rest, err := l.drain(ctx)
	if err != nil {
		return err
	}
	stop()
	wg.Wait()
	tally, err := l.tally(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("  hub up: the first record after %.2f s, all %.1f s later: %.0f/s\n  %s\n", first.Seconds(), rest.Seconds(), millionMessages/rest.Seconds(), tally)
	fmt.Printf("  most memory at any time: agent %.0f MB resident, of it %.0f MB its own; broker %.0f MB resident\n", most.agent, most.own, most.broker)
	fmt.Printf("ratio million_own_memory %.2f 1.00\n", millionOwnGoal/most.own)
	fmt.Printf("ratio million_resident_memory %.2f 1.00\n", millionAllGoal/most.agent)
	fmt.Printf("ratio million_exact %.2f 1.00\n", tally.exact())
	return nil
}

// memoryPeak is memory in MB.
type memoryPeak struct{ agent, own, broker float64 }

// watch returns the highest figures seen until ctx ends.
func watch(ctx context.Context, agent, broker int) (most memoryPeak) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return most
		case <-tick.C:
		}
		// A process that is gone counts as nothing.
		all, _ := memoryMB(agent, "VmRSS:")
		own, _ := memoryMB(agent, "RssAnon:")
		its, _ := memoryMB(broker, "VmRSS:")
		most = memoryPeak{max(most.agent, all), max(most.own, own), max(most.broker, its)}
	}
}
