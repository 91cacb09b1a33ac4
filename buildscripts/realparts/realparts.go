// Package realparts starts the real servers that tests run against: brokers, databases, OPC UA servers, an ERP, a browser.
//
// It owns one file for each part. It promises that a part listens on a free loopback port, keeps its files in the test's
// temporary directory, can be killed and started again on the same port with the same files, and is gone when the test
// ends. A part that is not installed fails the test by name: it is never skipped. Only tests import it.
package realparts

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// FreePort returns a loopback TCP port that nothing listens on now.
func FreePort(t testing.TB) int {
	t.Helper()
	given.Lock()
	defer given.Unlock()
	for range 1000 {
		port := lowestPort + rand.IntN(temporaryPorts()-lowestPort)
		if given.ports[port] {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		l.Close()
		given.ports[port] = true
		return port
	}
	t.Fatalf("no port between %d and %d is free", lowestPort, temporaryPorts())
	return 0
}

const lowestPort = 18_000 // below it stand the ports of well-known servers

// given are the ports that this process gave away.
var given = struct {
	sync.Mutex
	ports map[int]bool
}{ports: map[int]bool{}}

// temporaryPorts is where the ports begin that the system itself gives to connections: one of those may be taken before the server
// that it was found for listens, or while that server is down.
func temporaryPorts() int {
	low := 0
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		fmt.Sscan(string(b), &low)
	}
	if low < lowestPort+1000 {
		return 32768
	}
	return low
}

// Need returns the path of a program, or fails the test with the package that brings it.
func Need(t testing.TB, program, debianPackage string, alsoIn ...string) string {
	t.Helper()
	if p, err := exec.LookPath(program); err == nil {
		return p
	}
	for _, dir := range alsoIn {
		matches, _ := filepath.Glob(filepath.Join(dir, program))
		if len(matches) > 0 {
			return matches[len(matches)-1]
		}
	}
	t.Fatalf("%s is missing: run `make setup`, which installs the Debian package %s", program, debianPackage)
	return ""
}

// Root returns the top folder of the source tree.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// Process is a server under a test's control.
type Process struct {
	Name string
	// Command makes the command for each start; its process group is the process's own.
	Command func() *exec.Cmd
	// Ready reports whether the server takes work now.
	Ready func() error
	// Patience is how long a start may take; 60 s when zero.
	Patience time.Duration

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
	out  tail
}

// Start starts the process, waits until it is ready, and stops it when the test ends.
func (p *Process) Start(t testing.TB) {
	t.Helper()
	if err := p.Run(); err != nil {
		t.Fatalf("start %s: %v\n%s", p.Name, err, p.Output())
	}
	t.Cleanup(func() {
		p.Kill(syscall.SIGKILL)
		if t.Failed() {
			t.Logf("last output of %s:\n%s", p.Name, p.Output())
		}
	})
}

// Run starts the process (again) and waits until it is ready.
func (p *Process) Run() error {
	p.mu.Lock()
	cmd := p.Command()
	if cmd.Stdout == nil {
		cmd.Stdout, cmd.Stderr = &p.out, &p.out
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if err := cmd.Start(); err != nil {
		p.mu.Unlock()
		return err
	}
	done := make(chan struct{})
	p.cmd, p.done = cmd, done
	go func() { cmd.Wait(); close(done) }()
	p.mu.Unlock()

	patience := p.Patience
	if patience == 0 {
		patience = time.Minute
	}
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	var last error
	for {
		if last = p.Ready(); last == nil {
			return nil
		}
		select {
		case <-done:
			return fmt.Errorf("%s ended before it was ready: %v", p.Name, cmd.ProcessState)
		case <-deadline.C:
			return fmt.Errorf("%s was not ready within %s: %w", p.Name, patience, last)
		case <-poll.C:
		}
	}
}

// Kill sends sig to the process group and waits until the process is gone. A process that does not run is left alone.
func (p *Process) Kill(sig syscall.Signal) {
	p.mu.Lock()
	cmd, done := p.cmd, p.done
	p.mu.Unlock()
	if cmd == nil {
		return
	}
	select {
	case <-done:
		return
	default:
	}
	syscall.Kill(-cmd.Process.Pid, sig)
	<-done
}

// Signal sends sig to the process group and does not wait: SIGSTOP and SIGCONT freeze and wake a server.
func (p *Process) Signal(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		syscall.Kill(-p.cmd.Process.Pid, sig)
	}
}

// PID is the process id of the running server.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd.Process.Pid
}

// Output returns the last output of the process.
func (p *Process) Output() string { return p.out.String() }

// Listening returns a Ready function that is satisfied when something accepts connections on a loopback port.
func Listening(port int) func() error {
	return func() error {
		c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
		if err != nil {
			return err
		}
		return c.Close()
	}
}

// Eventually waits until check returns nil, and fails the test with check's last error after patience.
func Eventually(t testing.TB, patience time.Duration, what string, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %s: %v", what, patience, err)
		case <-poll.C:
		}
	}
}

// tail keeps the last output of a process.
type tail struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	const keep = 32 << 10
	t.b.Write(p)
	if extra := t.b.Len() - keep; extra > 0 {
		t.b.Next(extra)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}

// WriteFile writes a file of a test and fails the test when it cannot.
func WriteFile(t testing.TB, path, content string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatalf("write %s: %v", path, err)
	}
	return path
}
