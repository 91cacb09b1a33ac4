package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// buildPrograms builds plantagent and synchub, as they are shipped, in a new folder.
func buildPrograms(ctx context.Context) (dir string, err error) {
	if dir, err = os.MkdirTemp("", "linekeeper-bench-"); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", dir, "./cmd/plantagent", "./cmd/synchub")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		os.RemoveAll(dir)
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return dir, nil
}

// process is a program that runs until stop or kill.
type process struct {
	*exec.Cmd
	log string
}

// launch starts a program and waits until it is ready. What it says is added to a log file in dir.
func launch(ctx context.Context, dir string, ready func() error, name string, args ...string) (*process, error) {
	p := &process{exec.Command(name, args...), filepath.Join(dir, filepath.Base(name)+".log")}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.Stdout, p.Stderr = log, log
	if err := p.Start(); err != nil {
		return nil, err
	}
	err = await(ctx, 20*time.Second, 5*time.Millisecond, ready)
	if err == nil {
		return p, nil
	}
	p.kill()
	said, _ := os.ReadFile(p.log)
	return nil, fmt.Errorf("%s does not answer: %w\n%s", name, err, said)
}

// kill ends the program at once, as a power cut would, but for what the kernel holds.
func (p *process) kill() {
	if p != nil {
		p.Process.Kill()
		p.Wait()
	}
}

// end lets the program close its files, within a minute.
func (p *process) end() error {
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		p.kill()
		return err
	}
	late := time.AfterFunc(time.Minute, func() { p.Process.Kill() })
	defer late.Stop()
	return p.Wait()
}

// await asks again and again until done has no error.
func await(ctx context.Context, patience, every time.Duration, done func() error) error {
	late := time.NewTimer(patience)
	defer late.Stop()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := done()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-late.C:
			return fmt.Errorf("after %s: %w", patience, err)
		}
	}
}

func answers(url string) func() error {
	return func() error {
		res, err := http.Get(url)
		if err != nil {
			return err
		}
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return errors.New(res.Status)
		}
		return nil
	}
}

// residentMB reads a process's resident memory.
func residentMB(pid int) (float64, error) { return memoryMB(pid, "VmRSS:") }

// memoryMB reads a field of a process's status.
func memoryMB(pid int, field string) (float64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == field {
			kb, err := strconv.ParseFloat(f[1], 64)
			return kb / 1024, err
		}
	}
	return 0, fmt.Errorf("process %d has no %s", pid, field)
}

// processorTime reads how long a process has run in user and kernel mode; 0 when it is gone.
func processorTime(pid int) time.Duration {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(raw), ") ") // the name may hold spaces
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(f[11], 10, 64)
	kernel, _ := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+kernel) * (time.Second / 100) // the kernel counts in hundredths
}
