package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/mgr"
)

// setRecovery makes Windows start the agent again after a crash: the library sets one action at most, and none for a
// service that ends with an error.
func setRecovery() error {
	m, err := mgr.Connect()
	if err != nil {
		return fmt.Errorf("reach the service manager: %w", err)
	}
	defer m.Disconnect()
	s, err := m.OpenService(serviceName)
	if err != nil {
		return fmt.Errorf("open service %q: %w", serviceName, err)
	}
	defer s.Close()
	const day = 86400
	err = s.SetRecoveryActions([]mgr.RecoveryAction{
		{Type: mgr.ServiceRestart, Delay: 5 * time.Second},
		{Type: mgr.ServiceRestart, Delay: 30 * time.Second},
		{Type: mgr.ServiceRestart, Delay: 2 * time.Minute},
	}, day)
	if err != nil {
		return fmt.Errorf("set recovery of service %q: %w", serviceName, err)
	}
	// Some Windows-like systems do not know this level; recovery after a crash is set all the same.
	if err := s.SetRecoveryActionsOnNonCrashFailures(true); err != nil && !errors.Is(err, windows.ERROR_INVALID_LEVEL) {
		return fmt.Errorf("set recovery of service %q: %w", serviceName, err)
	}
	return nil
}

// runService runs work under the service control manager: Running is reported at once and everything slow happens behind
// it, so that a slow disk or a missing network never lets the start time out.
func runService(work func(ctx context.Context) error) error {
	h := &handler{work: work}
	if err := svc.Run(serviceName, h); err != nil {
		return fmt.Errorf("run as a Windows service: %w (to run by hand use `plantagent run`)", err)
	}
	if h.err != nil {
		os.Exit(1) // an exit that is not zero starts the recovery actions
	}
	return nil
}

type handler struct {
	work func(ctx context.Context) error
	err  error
}

func (h *handler) Execute(_ []string, requests <-chan svc.ChangeRequest, changes chan<- svc.Status) (bool, uint32) {
	changes <- svc.Status{State: svc.StartPending}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- h.work(ctx) }()
	const accepts = svc.AcceptStop | svc.AcceptShutdown | svc.AcceptPreShutdown
	status := svc.Status{State: svc.Running, Accepts: accepts}
	changes <- status
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case h.err = <-done:
			changes <- svc.Status{State: svc.Stopped}
			if h.err != nil {
				return true, 1
			}
			return false, 0
		case r := <-requests:
			switch r.Cmd {
			case svc.Interrogate:
				changes <- status
			case svc.Stop, svc.Shutdown, svc.PreShutdown:
				status = svc.Status{State: svc.StopPending, WaitHint: 30_000, CheckPoint: 1}
				changes <- status
				cancel()
			}
		case <-tick.C:
			if status.State == svc.StopPending {
				status.CheckPoint++
				changes <- status
			}
		}
	}
}

func defaultConfigPath() string {
	base := os.Getenv("ProgramData")
	if base == "" {
		base = `C:\ProgramData`
	}
	return base + `\Linekeeper\plantagent.yaml`
}
