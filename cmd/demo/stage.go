package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/linekeeper/linekeeper/agent/status"
	"github.com/linekeeper/linekeeper/cmd/demo/plant"
	"github.com/linekeeper/linekeeper/hub/connector/sandbox/erp"
)

// stage is everything that runs.
type stage struct {
	out    io.Writer
	began  time.Time
	dir    string
	erp    *erp.ERP
	erpSrv *http.Server
	plant  *plant.Plant
	link   *cable
	hub    *process
	agent  *process

	agentURL, hubURL, erpURL string
	down                     sync.Once
	mu                       sync.Mutex
}

// say prints a line with the time since the start.
func (s *stage) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := time.Since(s.began)
	fmt.Fprintf(s.out, "%02d:%02d  %s\n", int(d.Minutes()), int(d.Seconds())%60, fmt.Sprintf(format, args...))
}

func setUp(ctx context.Context, out io.Writer) (s *stage, err error) {
	s = &stage{out: out, began: time.Now()}
	defer func() {
		if err != nil {
			s.tearDown()
		}
	}()
	exe, err := os.Executable()
	if err != nil {
		return s, err
	}
	bin := filepath.Dir(exe)
	if s.dir, err = os.MkdirTemp("", "linekeeper-demo-"); err != nil {
		return s, err
	}
	s.say("files of this demo: %s", s.dir)
	if err := s.startERP(ctx); err != nil {
		return s, err
	}
	plantDir := filepath.Join(s.dir, "plant")
	if err := os.MkdirAll(plantDir, 0o755); err != nil {
		return s, err
	}
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		zone = time.UTC
	}
	// The plant outlives ctx: it is stopped after its last counts are shown.
	if s.plant, err = plant.Start(context.WithoutCancel(ctx), plant.Options{Dir: plantDir, Machines: 3, Rate: 5, Zone: zone}); err != nil {
		return s, fmt.Errorf("start the plant: %w", err)
	}
	if err := s.startProduct(bin); err != nil {
		return s, err
	}
	return s, nil
}

func (s *stage) startERP(ctx context.Context) (err error) {
	if s.erp, err = erp.Open(filepath.Join(s.dir, "erp.db"), erp.Options{User: "hub", Password: "sandbox"}); err != nil {
		return fmt.Errorf("start the ERP sandbox: %w", err)
	}
	if err := s.erp.SeedDemo(ctx); err != nil {
		return fmt.Errorf("fill the ERP sandbox: %w", err)
	}
	s.erp.SetFaults(erp.Faults{LoseReply: 0.1})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.erpURL = "http://" + l.Addr().String()
	s.erpSrv = &http.Server{Handler: s.erp.Handler(), ReadHeaderTimeout: 10 * time.Second}
	go s.erpSrv.Serve(l) // ends with Close in tearDown
	return nil
}

func (s *stage) startProduct(bin string) (err error) {
	synchub, plantagent := filepath.Join(bin, "synchub"), filepath.Join(bin, "plantagent")
	pki := filepath.Join(s.dir, "pki")
	for _, args := range [][]string{
		{"cert", "init", "--dir", pki, "--host", "localhost", "--host", "127.0.0.1"},
		{"cert", "agent", "--dir", pki, "--plant", "ulm", "--agent", "line1", "--out", filepath.Join(s.dir, "line1")},
	} {
		if out, err := exec.Command(synchub, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("synchub %v: %w\n%s", args, err, out)
		}
	}
	ports, err := freePorts(3)
	if err != nil {
		return err
	}
	if s.link, err = newCable(fmt.Sprintf("127.0.0.1:%d", ports[0])); err != nil {
		return err
	}
	s.hubURL, s.agentURL = fmt.Sprintf("http://127.0.0.1:%d", ports[1]), fmt.Sprintf("http://127.0.0.1:%d", ports[2])
	files := map[string]string{
		"hub.yaml": hubConfig(ports[0], ports[1], s.erpURL), "erp-password.txt": "sandbox\n",
		"agent.yaml": agentConfig(ports[2], s.link.addr(), s.plant), "press-password.txt": plant.Password + "\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	// An engineer would compare the fingerprint and say `plantagent trust`; the demo made the certificate itself.
	trusted := filepath.Join(s.dir, "agent-data", "sources", "press", "trusted")
	if err := os.MkdirAll(trusted, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(trusted, "plant.der"), s.plant.OPCUACertificate(), 0o600); err != nil {
		return err
	}
	s.hub = &process{name: "hub", log: filepath.Join(s.dir, "hub.log"), args: []string{synchub, "serve", "-c", filepath.Join(s.dir, "hub.yaml")}, ready: s.hubURL + "/readyz"}
	s.agent = &process{name: "agent", log: filepath.Join(s.dir, "agent.log"), args: []string{plantagent, "run", "-c", filepath.Join(s.dir, "agent.yaml")}, ready: s.agentURL + "/healthz"}
	if err := s.hub.start(); err != nil {
		return err
	}
	return s.agent.start()
}

// tearDown stops everything; it may be called again.
func (s *stage) tearDown() {
	s.down.Do(func() {
		for _, p := range []*process{s.agent, s.hub} {
			if p != nil {
				p.stop(syscall.SIGTERM)
			}
		}
		if s.link != nil {
			s.link.close()
		}
		if s.plant != nil {
			s.plant.Close()
		}
		if s.erpSrv != nil {
			s.erpSrv.Close()
		}
		if s.erp != nil {
			s.erp.Close()
		}
		if s.dir != "" && os.Getenv("DEMO_KEEP") == "" {
			os.RemoveAll(s.dir)
		}
	})
}

func freePorts(n int) (ports []int, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // all are held until all are found, so that they differ
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// process is the agent or the hub.
type process struct {
	name  string
	log   string
	args  []string
	ready string

	cmd  *exec.Cmd
	done chan struct{}
}

// start starts the process and waits until it answers.
func (p *process) start() error {
	f, err := os.OpenFile(p.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	p.cmd = exec.Command(p.args[0], p.args[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = f, f
	ownGroup(p.cmd)
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start the %s: %w", p.name, err)
	}
	done := make(chan struct{})
	p.done = done
	go func(cmd *exec.Cmd) { cmd.Wait(); close(done) }(p.cmd)
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	for {
		if err := getJSON(p.ready, nil); err == nil {
			return nil
		}
		select {
		case <-done:
			return fmt.Errorf("the %s ended at once; its log says:\n%s", p.name, tailOf(p.log))
		case <-deadline.C:
			return fmt.Errorf("the %s does not answer; its log says:\n%s", p.name, tailOf(p.log))
		case <-poll.C:
		}
	}
}

// stop ends the process with sig and waits for it.
func (p *process) stop(sig os.Signal) {
	if p.cmd == nil || p.cmd.Process == nil {
		return
	}
	p.cmd.Process.Signal(sig)
	patience := time.NewTimer(20 * time.Second)
	defer patience.Stop()
	select {
	case <-p.done:
	case <-patience.C:
		p.cmd.Process.Kill()
		<-p.done
	}
}

func tailOf(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(raw), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-15):], []byte("\n")))
}

// getJSON reads url into into; nil only asks whether it answers well.
func getJSON(url string, into any) error {
	client := http.Client{Timeout: 5 * time.Second}
	res, err := client.Get(url)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, res.Status)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(raw, into)
}

func (s *stage) agentStatus() (snap status.Snapshot, err error) {
	return snap, getJSON(s.agentURL+"/api/v1/status", &snap)
}

// cable is the network between agent and hub.
type cable struct {
	l      net.Listener
	target string
	mu     sync.Mutex
	cut    bool
	conns  map[net.Conn]bool
	wg     sync.WaitGroup
}

func newCable(target string) (*cable, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &cable{l: l, target: target, conns: map[net.Conn]bool{}}
	c.wg.Go(c.accept)
	return c, nil
}

func (c *cable) addr() string { return c.l.Addr().String() }

func (c *cable) accept() {
	for {
		in, err := c.l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		out, err := net.Dial("tcp", c.target)
		if err != nil || !c.keep(in, out) {
			in.Close()
			if out != nil {
				out.Close()
			}
			continue
		}
		c.wg.Go(func() { c.relay(in, out) })
		c.wg.Go(func() { c.relay(out, in) })
	}
}

func (c *cable) keep(conns ...net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		return false
	}
	for _, x := range conns {
		c.conns[x] = true
	}
	return true
}

func (c *cable) relay(to, from net.Conn) {
	io.Copy(to, from)
	to.Close()
	from.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, to)
	delete(c.conns, from)
}

// set cuts the cable or plugs it in again.
func (c *cable) set(cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = cut
	if cut {
		for x := range c.conns {
			x.Close()
		}
	}
}

func (c *cable) close() {
	c.l.Close()
	c.set(true)
	c.wg.Wait()
}
