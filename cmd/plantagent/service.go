package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/kardianos/service"
)

const (
	serviceName    = "plantagent"
	serviceDisplay = "Linekeeper plant agent"
	serviceAbout   = "Reads machines and MES, keeps every business fact safe and streams it to the sync hub."
)

// controller is what the commands need of the operating system's service manager. kardianos/service is one way to it;
// nothing else in the product knows which way was taken.
type controller interface {
	Install() error
	Uninstall() error
	Start() error
	Stop(ctx context.Context) error
	// Status is "running", "stopped" or "not installed".
	Status() (string, error)
}

// unit is the systemd unit. Its paths are escaped in unitText: the library would not.
const unit = `[Unit]
Description=` + serviceDisplay + `
Documentation=https://github.com/linekeeper/linekeeper
Wants=network-online.target
After=network-online.target time-sync.target
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart=@EXE@ service --config @CONFIG@
Restart=always
RestartSec=2
RestartPreventExitStatus=78
TimeoutStopSec=30
KillMode=mixed
StateDirectory=linekeeper
ConfigurationDirectory=linekeeper
ConfigurationDirectoryMode=0750
UMask=0077
NoNewPrivileges=yes
ProtectSystem=full
ProtectHome=read-only
ReadWritePaths=@DATA@
PrivateTmp=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes
LockPersonality=yes

[Install]
WantedBy=multi-user.target
`

// unitText fills the unit in. systemd splits at blanks, expands % and, in arguments but not in the program's name, $; the
// library takes the whole for a template.
func unitText(exe, config, dataDir string) string {
	quote := func(s string) string {
		s = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `%`, `%%`, "{{", `{{"{{"}}`).Replace(s)
		return `"` + s + `"`
	}
	return strings.NewReplacer(
		"@EXE@", quote(exe), "@CONFIG@", quote(strings.ReplaceAll(config, "$", "$$")), "@DATA@", quote("-"+dataDir),
	).Replace(unit)
}

// fitForUnit refuses what systemd does in a program's name.
func fitForUnit(exe string) error {
	if runtime.GOOS == "linux" && strings.ContainsAny(exe, "\"'\\\n\t") {
		return fmt.Errorf("systemd starts no program whose path has a quote or a backslash, as in %q: move the program", exe)
	}
	return nil
}

// kardianos drives the service manager through kardianos/service. Its own run loop is not used: see runService.
type kardianos struct {
	svc service.Service
}

// idle is given to the library because it wants something to run; the library never runs it.
type idle struct{}

func (idle) Start(service.Service) error { return nil }
func (idle) Stop(service.Service) error  { return nil }

// newController reaches the service manager; dataDir is needed to install only.
func newController(config, dataDir string) (controller, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own program file: %w", err)
	}
	config, err = filepath.Abs(config)
	if err != nil {
		return nil, fmt.Errorf("find configuration %q: %w", config, err)
	}
	if runtime.GOOS == "linux" {
		// Without systemd the library would write a script for a System V init, silently.
		if _, err := os.Stat("/run/systemd/system"); err != nil {
			return nil, errors.New("this machine does not run systemd: start `plantagent run` from its own service manager")
		}
	}
	if err := fitForUnit(exe); err != nil {
		return nil, err
	}
	s, err := service.New(idle{}, &service.Config{
		Name:        serviceName,
		DisplayName: serviceDisplay,
		Description: serviceAbout,
		Executable:  exe,
		Arguments:   []string{"service", "--config", config},
		Option: service.KeyValue{
			"SystemdScript":    unitText(exe, config, dataDir),
			"StartType":        "automatic",
			"DelayedAutoStart": false,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("reach the service manager: %w", err)
	}
	return &kardianos{svc: s}, nil
}

func (k *kardianos) Status() (string, error) {
	st, err := k.svc.Status()
	switch {
	case errors.Is(err, service.ErrNotInstalled):
		return "not installed", nil
	case err != nil && strings.Contains(err.Error(), "failed state"):
		return "stopped", nil
	case err != nil:
		return "", err
	case st == service.StatusRunning:
		return "running", nil
	}
	return "stopped", nil
}

// Install is all or nothing: what a failed attempt left behind is taken away again.
func (k *kardianos) Install() error {
	st, err := k.Status()
	if err != nil {
		return fmt.Errorf("ask the service manager: %w", err)
	}
	if st != "not installed" {
		return fmt.Errorf("service %q is installed already (%s): uninstall it first to change its configuration file", serviceName, st)
	}
	if err := k.svc.Install(); err != nil {
		k.svc.Uninstall() // takes away a unit file that was written but not enabled
		return fmt.Errorf("install service %q: %w", serviceName, err)
	}
	return setRecovery()
}

// Uninstall stops the service first: a service that runs on after its removal is nobody's.
func (k *kardianos) Uninstall() error {
	st, err := k.Status()
	if err != nil {
		return fmt.Errorf("ask the service manager: %w", err)
	}
	if st == "not installed" {
		return fmt.Errorf("service %q is not installed", serviceName)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	if err := k.Stop(ctx); err != nil {
		return err
	}
	if err := k.svc.Uninstall(); err != nil && !strings.Contains(err.Error(), "RemoveEventLogSource") {
		return fmt.Errorf("uninstall service %q: %w", serviceName, err)
	}
	return nil
}

func (k *kardianos) Start() error {
	if err := k.svc.Start(); err != nil {
		return fmt.Errorf("start service %q: %w", serviceName, err)
	}
	return nil
}

// Stop returns when the service has stopped; the library's own limit does not end its wait, ours does.
func (k *kardianos) Stop(ctx context.Context) error {
	if st, err := k.Status(); err == nil && st != "running" {
		return nil
	}
	done := make(chan error, 1)
	go func() { done <- k.svc.Stop() }()
	poll := time.NewTicker(200 * time.Millisecond)
	defer poll.Stop()
	for asked := false; ; {
		select {
		case err := <-done:
			if err != nil {
				return fmt.Errorf("stop service %q: %w", serviceName, err)
			}
			asked, done = true, nil
		case <-poll.C:
			if st, err := k.Status(); asked && err == nil && st != "running" {
				return nil
			}
		case <-ctx.Done():
			return fmt.Errorf("service %q did not stop in time: look into its log", serviceName)
		}
	}
}

func control(config, dataDir, verb string, out io.Writer) error {
	c, err := newController(config, dataDir)
	if err != nil {
		return err
	}
	if verb == "install" {
		// The service may write below it, but not make it where the rest of the disk is read-only to it.
		if err := os.MkdirAll(dataDir, 0o700); err != nil {
			return fmt.Errorf("make data folder: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	switch verb {
	case "install":
		err = c.Install()
	case "uninstall":
		err = c.Uninstall()
	case "start":
		err = c.Start()
	case "stop":
		err = c.Stop(ctx)
	}
	if err != nil {
		return err
	}
	st, err := c.Status()
	if err != nil {
		return fmt.Errorf("ask the service manager: %w", err)
	}
	fmt.Fprintf(out, "service %s: %s\n", serviceName, st)
	return nil
}
