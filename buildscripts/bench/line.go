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
	"time"

	"github.com/linekeeper/linekeeper/agent/status"
)

const (
	messages     = 200_000 // of every part but the backlog
	messageBytes = 200
	rateGoal     = 25_000 // messages per second
	restGoal     = 30     // MB of resident memory at rest
)

// wholeLine runs broker, agent and hub as processes and publishes to the broker as a machine would.
func wholeLine(ctx context.Context, dir, binaries string) error {
	l, err := newLine(ctx, dir, binaries, messages)
	if err != nil {
		return err
	}
	defer l.stop()
	if err := errors.Join(l.startBroker(ctx), l.startHub(ctx), l.startAgent(ctx)); err != nil {
		return err
	}
	if err := l.connected(ctx); err != nil {
		return err
	}
	rest, err := residentMB(l.agent.Process.Pid)
	if err != nil {
		return err
	}
	before := l.cpu()
	begin := time.Now()
	if err := l.publish(ctx, nil); err != nil {
		return err
	}
	published := time.Since(begin)
	if err := l.acknowledged(ctx, messages, 100*time.Millisecond); err != nil {
		return err
	}
	took := time.Since(begin)
	used := l.cpu()
	peak, err := residentMB(l.agent.Process.Pid)
	if err != nil {
		return err
	}
	procs := l.processes()
	tally, err := l.tally(ctx)
	if err != nil {
		return err
	}
	rate := float64(messages) / took.Seconds()
	fmt.Printf("  %d messages of %d B: published in %.1f s, all at the hub after %.1f s: %.0f/s\n", messages, messageBytes, published.Seconds(), took.Seconds(), rate)
	fmt.Printf("  %s\n", tally)
	all := 0.0
	for i, p := range procs {
		each := (used[i] - before[i]).Seconds() * 1e6 / messages
		all += each
		fmt.Printf("  %s used %.1f us of processor time for each message\n", filepath.Base(p.Path), each)
	}
	fmt.Printf("  in all %.1f us: %.0f/s for each processor that nothing else uses\n", all, 1e6/all)
	fmt.Printf("  agent's resident memory: %.1f MB at rest, %.1f MB afterwards\n", rest, peak)
	fmt.Printf("ratio mqtt_to_hub_rate %.2f 1.00\n", rate/rateGoal)
	fmt.Printf("ratio mqtt_to_hub_exact %.2f 1.00\n", tally.exact())
	fmt.Printf("ratio agent_rest_memory %.2f 1.00\n", restGoal/rest)
	return nil
}

// benchLine is a line from a broker over an agent to a hub, each a process of its own in one folder.
type benchLine struct {
	dir      string
	binaries string // folder of plantagent and synchub
	messages int    // to be published
	broker   string // address
	uplink   string // address
	page     string // the agent's
	ready    string // the hub's

	mosquitto, hub, agent *process
}

// newLine writes what the processes need; none of them runs yet.
func newLine(ctx context.Context, dir, binaries string, messages int) (*benchLine, error) {
	l := &benchLine{dir: dir, binaries: binaries, messages: messages}
	for _, args := range [][]string{
		{"cert", "init", "--dir", dir + "/pki", "--host", "127.0.0.1"},
		{"cert", "agent", "--dir", dir + "/pki", "--plant", "ulm", "--agent", "line1", "--out", dir + "/line1"},
	} {
		if out, err := exec.CommandContext(ctx, l.program("synchub"), args...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("synchub %v: %w\n%s", args, err, out)
		}
	}
	ports, err := freePorts(4)
	if err != nil {
		return nil, err
	}
	at := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", ports[i]) }
	l.broker, l.uplink, l.ready, l.page = at(0), at(1), "http://"+at(2)+"/readyz", "http://"+at(3)
	files := map[string]string{
		// The settings that the peers were measured with.
		"mosquitto.conf": fmt.Sprintf("listener %d 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location %s/\nmax_queued_messages 0\nmax_inflight_messages 5000\n", ports[0], dir),
		"hub.yaml":       fmt.Sprintf("listen: {grpc: %q, http: %q}\ntls: {cert_file: pki/hub.pem, key_file: pki/hub.key, agents_ca_file: pki/ca.pem}\nplants: [{plant: ulm, agents: [line1]}]\n", at(1), at(2)),
		"agent.yaml": fmt.Sprintf(`{plant: ulm, agent: line1, listen: %q, hub: {address: %q, ca_file: line1/ca.pem, cert_file: line1/agent.pem, key_file: line1/agent.key},
log: {level: debug}, sources: [{name: bus, kind: mqtt, broker: "tcp://%s", topics: [{tag: q, topic: bench/q}]}],
rules: [{name: q, rule: record, source: bus, tag: q, fact: quality_status, id: payload.id, fields: {order_no: payload.order, lot: payload.lot, status: payload.status, occurred_at: payload.ts}}]}
`, at(3), at(1), at(0)),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	return l, nil
}

func freePorts(n int) ([]int, error) {
	ports := make([]int, n)
	for i := range ports {
		x, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer x.Close()
		ports[i] = x.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}

func (l *benchLine) program(name string) string { return filepath.Join(l.binaries, name) }

func (l *benchLine) processes() []*process { return []*process{l.mosquitto, l.hub, l.agent} }

func (l *benchLine) stop() {
	for _, p := range l.processes() {
		p.kill()
	}
}

// cpu returns the processor time that each process has used.
func (l *benchLine) cpu() []time.Duration {
	var all []time.Duration
	for _, p := range l.processes() {
		all = append(all, processorTime(p.Process.Pid))
	}
	return all
}

func (l *benchLine) startBroker(ctx context.Context) (err error) {
	listening := func() error {
		c, err := net.Dial("tcp", l.broker)
		if err == nil {
			c.Close()
		}
		return err
	}
	mosquitto, err := exec.LookPath("mosquitto")
	if err != nil {
		mosquitto = "/usr/sbin/mosquitto"
	}
	l.mosquitto, err = launch(ctx, l.dir, listening, mosquitto, "-c", filepath.Join(l.dir, "mosquitto.conf"))
	return err
}

func (l *benchLine) startHub(ctx context.Context) (err error) {
	l.hub, err = launch(ctx, l.dir, answers(l.ready), l.program("synchub"), "serve", "-c", filepath.Join(l.dir, "hub.yaml"))
	return err
}

// startAgent waits until the agent reads the broker.
func (l *benchLine) startAgent(ctx context.Context) (err error) {
	reading := func() error {
		s, err := l.status()
		if err == nil && s.Sources[0].State != "ok" {
			return fmt.Errorf("source %s", s.Sources[0].State)
		}
		return err
	}
	l.agent, err = launch(ctx, l.dir, reading, l.program("plantagent"), "run", "-c", filepath.Join(l.dir, "agent.yaml"))
	return err
}

// connected waits until the agent has reached the hub.
func (l *benchLine) connected(ctx context.Context) error {
	return await(ctx, 20*time.Second, 20*time.Millisecond, func() error {
		s, err := l.status()
		if err == nil && s.Uplink.State != "connected" {
			return fmt.Errorf("uplink %s: %s", s.Uplink.State, s.Uplink.Reason)
		}
		return err
	})
}

func (l *benchLine) status() (s status.Snapshot, err error) {
	res, err := http.Get(l.page + "/api/v1/status")
	if err != nil {
		return s, err
	}
	defer res.Body.Close()
	return s, json.NewDecoder(res.Body).Decode(&s)
}

// publish sends all messages; each is called before the message of that number.
func (l *benchLine) publish(ctx context.Context, each func(i int)) error {
	err := publish(ctx, l.broker, l.messages, each)
	if ctx.Err() != nil {
		return ctx.Err() // which closed the publisher's connection
	}
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// stored waits until the agent has made all messages durable.
func (l *benchLine) stored(ctx context.Context) error {
	n := uint64(l.messages)
	return await(ctx, 5*time.Minute, 50*time.Millisecond, func() error {
		s, err := l.status()
		if err == nil && s.Business.LastSeq < n {
			return fmt.Errorf("%d of %d stored at the agent", s.Business.LastSeq, n)
		}
		return err
	})
}

// acknowledged waits until the hub has acknowledged n facts, looking that often.
func (l *benchLine) acknowledged(ctx context.Context, n int, every time.Duration) error {
	return await(ctx, 5*time.Minute, every, func() error {
		s, err := l.status()
		if err == nil && s.Business.AckedSeq < uint64(n) {
			return fmt.Errorf("%d of %d at the hub", s.Business.AckedSeq, n)
		}
		return err
	})
}
