//go:build !windows

package main

import (
	"context"
	"os/signal"
	"syscall"
)

// setRecovery has nothing to do: the unit restarts the agent.
func setRecovery() error { return nil }

// runService runs work until the service manager ends it.
func runService(work func(ctx context.Context) error) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return work(ctx)
}

func defaultConfigPath() string { return "/etc/linekeeper/plantagent.yaml" }
