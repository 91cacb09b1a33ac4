package drivertest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// Start runs a driver from a stored cursor and returns what stops it and waits for its end; the end of the test does so too. A
// driver that ends with an error, or not within the patience, is at fault.
func Start(t testing.TB, d signal.Driver, cursor []byte, emit signal.Emit, patience time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx, cursor, emit) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run ended with %v", err)
			}
		case <-time.After(patience):
			t.Errorf("Run did not end with its context")
		}
	})
	t.Cleanup(stop)
	return stop
}
