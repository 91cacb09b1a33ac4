package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	uaItems      = 10_000
	uaRounds     = 5
	uaLength     = 3 * time.Second
	uaSteady     = 15 * time.Second
	uaGoal       = 0.7 // of what the bare client library counts
	uaCoreGoal   = 0.2
	uaMemoryGoal = 60 // MB
)

// opcuaValues measures the driver with 10,000 tags and SignAndEncrypt: how many values a second become durable when the server has
// always more, against the client library that only counts; and what 10,000 values a second take of the machine.
func opcuaValues(ctx context.Context, dir, _ string) error {
	u := &uaBench{dir: dir}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", dir, "./buildscripts/opcuaload", "./buildscripts/opcuaagent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	var counted, stored []float64
	for range uaRounds {
		c, s, err := u.compare(ctx)
		if err != nil {
			return err
		}
		fmt.Printf("  %8.0f values/s counted by the bare library, %8.0f/s durable through the driver, %d tags in a message\n", c, s, uaItems)
		counted, stored = append(counted, c), append(stored, s)
	}
	slices.Sort(counted)
	slices.Sort(stored)
	core, memory, err := u.steady(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("ratio opcua_durable_rate %.2f %.2f\n", stored[uaRounds/2]/counted[uaRounds/2], uaGoal)
	fmt.Printf("ratio opcua_10000_core %.2f 1.00\n", uaCoreGoal/max(core, 0.001))
	fmt.Printf("ratio opcua_10000_memory %.2f 1.00\n", uaMemoryGoal/memory)
	return nil
}

// uaBench is a server and the agent's side, each a process.
type uaBench struct {
	dir           string
	run           int
	server, agent *process
	status        int
	endpoint      string
}

func (u *uaBench) program(name string) string { return filepath.Join(u.dir, name) }

// start starts a server in a role, with a folder of its own.
func (u *uaBench) start(ctx context.Context, role string) (folder string, err error) {
	ports, err := freePorts(3)
	if err != nil {
		return "", err
	}
	u.run++
	folder = filepath.Join(u.dir, "run"+strconv.Itoa(u.run))
	if err := os.MkdirAll(filepath.Join(folder, "trusted"), 0o755); err != nil {
		return "", err
	}
	u.endpoint, u.status = fmt.Sprintf("opc.tcp://127.0.0.1:%d", ports[0]), ports[2]
	cert := filepath.Join(folder, "cert.der")
	u.server, err = launch(ctx, folder, func() error { _, err := os.Stat(cert); return errors.Join(err, listens(ports[0])) }, u.program("opcuaload"), role,
		"-dir", folder, "-port", strconv.Itoa(ports[0]), "-control", strconv.Itoa(ports[1]), "-items", strconv.Itoa(uaItems))
	if err != nil {
		return "", err
	}
	raw, err := os.ReadFile(cert)
	if err != nil {
		return "", err
	}
	prefix := "nsu=urn:linekeeper:load;"
	if role == "blast" {
		prefix = "ns=1;"
	}
	var y strings.Builder
	fmt.Fprintf(&y, "endpoint: %s\nuser: {name: operator, password_file: password.txt}\ntolerate: [application_uri]\nnodes:\n", u.endpoint)
	for i := range uaItems {
		fmt.Fprintf(&y, "  - {tag: c%d, node: \"%ss=Count.%d\", sampling: 0s, queue: 100}\n", i, prefix, i)
	}
	return folder, errors.Join(os.WriteFile(filepath.Join(folder, "trusted", "server.der"), raw, 0o644),
		os.WriteFile(filepath.Join(folder, "password.txt"), []byte("secret\n"), 0o600),
		os.WriteFile(filepath.Join(folder, "source.yaml"), []byte(y.String()), 0o644))
}

func listens(port int) error {
	c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
	if err != nil {
		return err
	}
	return c.Close()
}

// agentSide starts driver and buffer and waits until each tag has had a value.
func (u *uaBench) agentSide(ctx context.Context, folder string) (err error) {
	u.agent, err = launch(ctx, folder, func() error {
		s, err := u.stats()
		if err == nil && s.Tags < uaItems {
			err = fmt.Errorf("%d tags: %s", s.Tags, s.State)
		}
		return err
	}, u.program("opcuaagent"), "-dir", folder, "-config", filepath.Join(folder, "source.yaml"), "-status", strconv.Itoa(u.status))
	return err
}

type uaStats struct {
	Values, Missing, Doubled int64
	Tags                     int
	State                    string
}

func (u *uaBench) stats() (s uaStats, err error) {
	res, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/stats", u.status))
	if err != nil {
		return s, err
	}
	defer res.Body.Close()
	return s, json.NewDecoder(res.Body).Decode(&s)
}

func (u *uaBench) stop() {
	u.agent.kill()
	u.server.kill()
	u.agent, u.server = nil, nil
}

// compare measures the counting library and the driver one after the other at the same server.
func (u *uaBench) compare(ctx context.Context) (counted, stored float64, err error) {
	folder, err := u.start(ctx, "blast")
	defer u.stop()
	if err != nil {
		return 0, 0, err
	}
	out, err := exec.CommandContext(ctx, u.program("opcuaload"), "count", "-dir", folder, "-endpoint", u.endpoint, "-items", strconv.Itoa(uaItems),
		"-length", uaLength.String()).Output()
	if err != nil {
		return 0, 0, fmt.Errorf("count: %w", err)
	}
	var c struct{ Values, Seconds float64 }
	if err := json.Unmarshal(out, &c); err != nil {
		return 0, 0, fmt.Errorf("count: %w", err)
	}
	if err := u.agentSide(ctx, folder); err != nil {
		return 0, 0, err
	}
	rate, _, err := u.watch(ctx, uaLength)
	return c.Values / c.Seconds, rate, err
}

// watch measures the agent's side for a time: values made durable and processor time, each for a second.
func (u *uaBench) watch(ctx context.Context, d time.Duration) (rate, core float64, err error) {
	before, err := u.stats()
	if err != nil {
		return 0, 0, err
	}
	cpu, began := processorTime(u.agent.Process.Pid), time.Now()
	late := time.NewTimer(d)
	defer late.Stop()
	select {
	case <-late.C:
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	now, err := u.stats()
	if err == nil && now.Missing+now.Doubled > 0 {
		err = fmt.Errorf("%d values are missing, %d doubled", now.Missing, now.Doubled)
	}
	took := time.Since(began).Seconds()
	return float64(now.Values-before.Values) / took, (processorTime(u.agent.Process.Pid) - cpu).Seconds() / took, err
}

// steady measures 10,000 tags that count once a second.
func (u *uaBench) steady(ctx context.Context) (core, memory float64, err error) {
	folder, err := u.start(ctx, "serve")
	defer u.stop()
	if err != nil {
		return 0, 0, err
	}
	if err := u.agentSide(ctx, folder); err != nil {
		return 0, 0, err
	}
	rate, core, err := u.watch(ctx, uaSteady)
	if err != nil {
		return 0, 0, err
	}
	memory, err = residentMB(u.agent.Process.Pid)
	fmt.Printf("  %d tags at 1/s: %.0f values/s, %.3f core, %.1f MB resident\n", uaItems, rate, core, memory)
	return core, memory, err
}
