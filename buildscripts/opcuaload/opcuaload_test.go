package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

// stats is what opcuaagent tells of what it has made durable.
type stats struct {
	Values, Missing, Doubled, Jumps int64
	Tags                            int
	Least, Most                     int64
	Batches                         int64
	CursorBytes                     int
	Bad, Marked                     int64
	State                           string
	Gaps                            []string
}

const items = 10_000

// stage is a server of 10,000 tags that count once a second, the way to it, and the agent's side, each a process.
type stage struct {
	t              *testing.T
	dir            string
	status, ctl    int
	proxy          *realparts.Proxy
	server, agent  *realparts.Process
	queueOfSeconds int
}

func newStage(t *testing.T, queue int) *stage {
	t.Helper()
	s := &stage{t: t, dir: t.TempDir(), status: realparts.FreePort(t), ctl: realparts.FreePort(t), queueOfSeconds: queue}
	build := exec.Command("go", "build", "-o", s.dir, "./buildscripts/opcuaload", "./buildscripts/opcuaagent")
	build.Dir = realparts.Root()
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for _, d := range []string{"server", "agent/trusted"} {
		if err := os.MkdirAll(filepath.Join(s.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	port := realparts.FreePort(t)
	base := strconv.FormatInt(time.Now().UnixMilli(), 10)
	s.server = &realparts.Process{Name: "opcuaload", Command: func() *exec.Cmd {
		return exec.Command(filepath.Join(s.dir, "opcuaload"), "serve", "-dir", filepath.Join(s.dir, "server"), "-port", strconv.Itoa(port),
			"-control", strconv.Itoa(s.ctl), "-items", strconv.Itoa(items), "-base", base)
	}, Ready: s.serverAnswers}
	s.server.Start(t)
	s.proxy = realparts.NewProxy(t, fmt.Sprintf("127.0.0.1:%d", port))
	cert, err := os.ReadFile(filepath.Join(s.dir, "server", "cert.der"))
	if err != nil {
		t.Fatal(err)
	}
	realparts.WriteFile(t, filepath.Join(s.dir, "agent", "trusted", "plant.der"), string(cert))
	realparts.WriteFile(t, filepath.Join(s.dir, "password.txt"), password+"\n")
	realparts.WriteFile(t, filepath.Join(s.dir, "source.yaml"), section("opc.tcp://"+s.proxy.Addr(), "nsu="+namespace+";", items, queue))
	s.agent = &realparts.Process{Name: "opcuaagent", Command: func() *exec.Cmd {
		return exec.Command(filepath.Join(s.dir, "opcuaagent"), "-dir", filepath.Join(s.dir, "agent"), "-config", filepath.Join(s.dir, "source.yaml"),
			"-status", strconv.Itoa(s.status))
	}, Ready: func() error { return s.ask(new(stats)) }}
	s.agent.Start(t)
	return s
}

// section is the source's configuration.
func section(endpoint, prefix string, items, queue int) string {
	var y strings.Builder
	fmt.Fprintf(&y, "endpoint: %s\nuser: {name: %s, password_file: password.txt}\nkeep_alive: 1s\nnodes:\n", endpoint, user)
	for i := range items {
		fmt.Fprintf(&y, "  - {tag: c%d, node: \"%ss=%s\", sampling: 0s, queue: %d}\n", i, prefix, tag(i), queue)
	}
	return y.String()
}

func (s *stage) serverAnswers() error { return get(s.ctl, "/ready", nil) }

func (s *stage) ask(into *stats) error { return get(s.status, "/stats", into) }

func get(port int, path string, into any) error {
	res, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d%s", port, path))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if into == nil {
		return nil
	}
	return json.NewDecoder(res.Body).Decode(into)
}

func (s *stage) stats() (now stats) {
	s.t.Helper()
	if err := s.ask(&now); err != nil {
		s.t.Fatal(err)
	}
	return now
}

// caughtUp waits until everything that the server has counted until now has come.
func (s *stage) caughtUp(what string) stats {
	s.t.Helper()
	var want int64
	if err := get(s.ctl, "/count", &want); err != nil {
		s.t.Fatal(err)
	}
	var now stats
	realparts.Eventually(s.t, 90*time.Second, what+": all tags count", func() error {
		now = s.stats()
		if now.Tags < items || now.Least < want {
			return fmt.Errorf("%d tags, the slowest at %d, want %d; %s", now.Tags, now.Least, want, now.State)
		}
		return nil
	})
	return now
}

// nothingLost fails where a fault cost values.
func (s *stage) nothingLost(what string, began time.Time) {
	s.t.Helper()
	now := s.caughtUp(what)
	s.t.Logf("%-34s %8d values, %d missing, %d doubled, after %s", what, now.Values, now.Missing, now.Doubled, time.Since(began).Round(time.Millisecond))
	if now.Missing+now.Doubled+now.Bad > 0 || len(now.Gaps) > 0 {
		s.t.Errorf("%s: %d missing, %d doubled, %d bad, gaps %v", what, now.Missing, now.Doubled, now.Bad, now.Gaps)
	}
}

// lasting keeps a fault up until the plant has counted on for a time: it counts by the clock.
func (s *stage) lasting(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	<-t.C
}

// TestTenThousandTagsThroughFaults has 10,000 tags at 1/s with SignAndEncrypt. OPCUA_LOAD=10m makes it as long as a plant engineer
// would, with cuts of 30 s.
func TestTenThousandTagsThroughFaults(t *testing.T) {
	steady, cut := 2*time.Second, 2*time.Second
	if v := os.Getenv("OPCUA_LOAD"); v != "" {
		d, err := time.ParseDuration(v)
		if err != nil {
			t.Fatalf("OPCUA_LOAD: %v", err)
		}
		steady, cut = d, 30*time.Second
	}
	s := newStage(t, 100)
	s.caughtUp("start")
	s.steady(steady)

	began := time.Now()
	for range 3 {
		s.proxy.Cut()
		s.lasting(300 * time.Millisecond)
	}
	s.nothingLost("reset by TCP three times", began)

	began = time.Now()
	s.server.Signal(syscall.SIGSTOP)
	s.lasting(cut)
	s.server.Signal(syscall.SIGCONT)
	s.nothingLost(fmt.Sprintf("server paused for %s", cut), began)

	began = time.Now()
	s.proxy.Refuse(true)
	s.proxy.Cut()
	s.lasting(cut)
	s.proxy.Refuse(false)
	s.nothingLost(fmt.Sprintf("cut for %s", cut), began)

	// Not longer than until the agent has noticed: the library's server accepts nobody any more after a connection that said nothing.
	const swallowed = 3 * time.Second
	began = time.Now()
	s.proxy.Swallow(true)
	s.lasting(min(cut, swallowed))
	s.proxy.Swallow(false)
	s.nothingLost(fmt.Sprintf("bytes swallowed for %s", min(cut, swallowed)), began)

	s.killed(cut)
}

// steady prints what the agent's side takes of the machine.
func (s *stage) steady(d time.Duration) {
	pid := s.agent.PID()
	before, cpu, began := s.stats(), processorTime(pid), time.Now()
	s.lasting(d)
	now, used, took := s.stats(), processorTime(pid)-cpu, time.Since(began)
	s.t.Logf("steady for %s: %.0f values/s, %.3f core, %.1f MB resident (%.1f of it the pages of the buffer's file), cursor of %d bytes in each of %.1f transactions/s", took.Round(time.Second),
		float64(now.Values-before.Values)/took.Seconds(), used.Seconds()/took.Seconds(), residentMB(pid, "VmRSS:"), residentMB(pid, "RssFile:"), now.CursorBytes,
		float64(now.Batches-before.Batches)/took.Seconds())
	s.nothingLost("steady", began)
}

// killed kills the server: what it counted meanwhile exists nowhere, and that is told with its length.
func (s *stage) killed(down time.Duration) {
	before := s.stats()
	began := time.Now()
	s.server.Kill(syscall.SIGKILL)
	s.lasting(down)
	if err := s.server.Run(); err != nil {
		s.t.Fatal(err)
	}
	now := s.caughtUp("server killed")
	if len(now.Gaps) == 0 {
		s.t.Fatal("the server was killed and no gap was reported")
	}
	gap := now.Gaps[len(now.Gaps)-1]
	s.t.Logf("server killed, down for %s: %d jumps of tags, %d values missing; %s", down, now.Jumps, now.Missing, gap)
	if now.Jumps > items {
		s.t.Errorf("%d jumps of %d tags", now.Jumps, items)
	}
	length := gapLength(s.t, gap)
	if longest := time.Since(began); length < down || length > longest+time.Second {
		s.t.Errorf("the gap is said to be %s long, the server was down for %s of %s", length, down, longest)
	}
	// A tag counts once a second: more than the gap's length can not be missing.
	if most := int64(length/time.Second+1) * items; now.Missing-before.Missing > most {
		s.t.Errorf("%d values are missing, the reported gap explains %d", now.Missing-before.Missing, most)
	}
	if now.Doubled > 0 || now.Bad > 0 {
		s.t.Errorf("%d doubled, %d bad", now.Doubled, now.Bad)
	}
}

// gapLength reads "values between A and B (3.2s) may be missing".
func gapLength(t *testing.T, gap string) time.Duration {
	t.Helper()
	_, rest, _ := strings.Cut(gap, "(")
	text, _, _ := strings.Cut(rest, ")")
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("the gap %q has no length: %v", gap, err)
	}
	return d
}

// processorTime is how long a process has run in user and kernel mode.
func processorTime(pid int) time.Duration {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(raw), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	u, errU := strconv.ParseInt(f[11], 10, 64)
	k, errK := strconv.ParseInt(f[12], 10, 64)
	if errors.Join(errU, errK) != nil {
		return 0
	}
	return time.Duration(u+k) * (time.Second / 100) // the kernel counts in hundredths
}

func residentMB(pid int, field string) float64 {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == field {
			kb, _ := strconv.ParseFloat(f[1], 64)
			return kb / 1024
		}
	}
	return 0
}
