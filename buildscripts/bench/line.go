package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"encoding/json"
	"net/http"

	"github.com/linekeeper/linekeeper/agent/status"
)

const (
	messages     = 200_000
	messageBytes = 200
	rateGoal     = 15_000 // messages per second
	restGoal     = 40     // MB of resident memory at rest
)

// wholeLine runs broker, agent and hub as processes and publishes to the broker as a machine would.
func wholeLine(ctx context.Context, dir, binaries string) error {
	l := &benchLine{dir: dir, binaries: binaries}
	defer l.stop()
	if err := l.start(ctx); err != nil {
		return err
	}
	rest, err := residentMB(l.agent.Process.Pid)
	if err != nil {
		return err
	}
	before := l.cpu()
	begin := time.Now()
	if err := publish(ctx, l.broker, messages); err != nil {
		if ctx.Err() != nil {
			return ctx.Err() // which closed the publisher's connection
		}
		return fmt.Errorf("publish: %w", err)
	}
	published := time.Since(begin)
	if err := l.acknowledged(ctx, messages); err != nil {
		return err
	}
	took := time.Since(begin)
	used := l.cpu()
	peak, err := residentMB(l.agent.Process.Pid)
	if err != nil {
		return err
	}
	rate := float64(messages) / took.Seconds()
	fmt.Printf("  %d messages of %d B: published in %.1f s, all at the hub after %.1f s: %.0f/s\n", messages, messageBytes, published.Seconds(), took.Seconds(), rate)
	for i, p := range l.procs {
		fmt.Printf("  %s used %.1f us of processor time for each message\n", filepath.Base(p.Path), (used[i]-before[i]).Seconds()*1e6/messages)
	}
	fmt.Printf("  agent's resident memory: %.1f MB at rest, %.1f MB afterwards\n", rest, peak)
	fmt.Printf("ratio mqtt_to_hub_rate %.2f 1.00\n", rate/rateGoal)
	fmt.Printf("ratio agent_rest_memory %.2f 1.00\n", restGoal/rest)
	return nil
}

type benchLine struct {
	dir      string
	binaries string // folder of plantagent and synchub
	broker   string
	page     string
	procs    []*exec.Cmd
	agent    *exec.Cmd
}

func (l *benchLine) stop() {
	for _, p := range l.procs {
		p.Process.Kill()
		p.Wait()
	}
}

// cpu returns the processor time that each process has used.
func (l *benchLine) cpu() []time.Duration {
	var all []time.Duration
	for _, p := range l.procs {
		all = append(all, processorTime(p.Process.Pid))
	}
	return all
}

// launch starts a process that stop ends, and waits until it is ready.
func (l *benchLine) launch(ctx context.Context, ready func() error, name string, args ...string) (*exec.Cmd, error) {
	cmd := exec.Command(name, args...)
	log, err := os.Create(filepath.Join(l.dir, filepath.Base(name)+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	l.procs = append(l.procs, cmd)
	patience := time.NewTimer(20 * time.Second)
	defer patience.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready()
		if err == nil {
			return cmd, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-patience.C:
			said, _ := os.ReadFile(log.Name())
			return nil, fmt.Errorf("%s does not answer: %w\n%s", name, err, said)
		}
	}
}

func (l *benchLine) start(ctx context.Context) error {
	if l.binaries == "" {
		l.binaries = l.dir
		if out, err := exec.CommandContext(ctx, "go", "build", "-o", l.dir, "./cmd/plantagent", "./cmd/synchub").CombinedOutput(); err != nil {
			return fmt.Errorf("build: %w\n%s", err, out)
		}
	}
	synchub, plantagent := filepath.Join(l.binaries, "synchub"), filepath.Join(l.binaries, "plantagent")
	for _, args := range [][]string{
		{"cert", "init", "--dir", l.dir + "/pki", "--host", "127.0.0.1"},
		{"cert", "agent", "--dir", l.dir + "/pki", "--plant", "ulm", "--agent", "line1", "--out", l.dir + "/line1"},
	} {
		if out, err := exec.CommandContext(ctx, synchub, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("synchub %v: %w\n%s", args, err, out)
		}
	}
	ports := make([]int, 4)
	for i := range ports {
		x, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer x.Close()
		ports[i] = x.Addr().(*net.TCPAddr).Port
		x.Close()
	}
	l.broker, l.page = fmt.Sprintf("127.0.0.1:%d", ports[0]), fmt.Sprintf("http://127.0.0.1:%d", ports[3])
	files := map[string]string{
		// The settings that the peers were measured with.
		"mosquitto.conf": fmt.Sprintf("listener %d 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location %s/\nmax_queued_messages 0\nmax_inflight_messages 5000\n", ports[0], l.dir),
		"hub.yaml":       fmt.Sprintf("listen: {grpc: \"127.0.0.1:%d\", http: \"127.0.0.1:%d\"}\ntls: {cert_file: pki/hub.pem, key_file: pki/hub.key, agents_ca_file: pki/ca.pem}\nplants: [{plant: ulm, agents: [line1]}]\n", ports[1], ports[2]),
		"agent.yaml": fmt.Sprintf(`{plant: ulm, agent: line1, listen: "127.0.0.1:%d", hub: {address: "127.0.0.1:%d", ca_file: line1/ca.pem, cert_file: line1/agent.pem, key_file: line1/agent.key},
sources: [{name: bus, kind: mqtt, broker: "tcp://%s", topics: [{tag: q, topic: bench/q}]}],
rules: [{name: q, rule: record, source: bus, tag: q, fact: quality_status, id: payload.id, fields: {order_no: payload.order, lot: payload.lot, status: payload.status, occurred_at: payload.ts}}]}
`, ports[3], ports[1], l.broker),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(l.dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
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
	if _, err := l.launch(ctx, listening, mosquitto, "-c", filepath.Join(l.dir, "mosquitto.conf")); err != nil {
		return err
	}
	if _, err = l.launch(ctx, answers(fmt.Sprintf("http://127.0.0.1:%d/readyz", ports[2])), synchub, "serve", "-c", filepath.Join(l.dir, "hub.yaml")); err != nil {
		return err
	}
	connected := func() error {
		s, err := l.status()
		if err == nil && (s.Uplink.State != "connected" || s.Sources[0].State != "ok") {
			return fmt.Errorf("uplink %s, source %s", s.Uplink.State, s.Sources[0].State)
		}
		return err
	}
	l.agent, err = l.launch(ctx, connected, plantagent, "run", "-c", filepath.Join(l.dir, "agent.yaml"))
	return err
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

func (l *benchLine) status() (s status.Snapshot, err error) {
	res, err := http.Get(l.page + "/api/v1/status")
	if err != nil {
		return s, err
	}
	defer res.Body.Close()
	return s, json.NewDecoder(res.Body).Decode(&s)
}

// acknowledged waits until the hub has acknowledged n facts.
func (l *benchLine) acknowledged(ctx context.Context, n uint64) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	patience := time.NewTimer(5 * time.Minute)
	defer patience.Stop()
	for {
		s, err := l.status()
		if err == nil && s.Business.AckedSeq >= n {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-patience.C:
			return fmt.Errorf("only %d of %d at the hub after five minutes (last error: %v)", s.Business.AckedSeq, n, err)
		case <-tick.C:
		}
	}
}

// publish sends n messages at QoS 1 with at most 1,000 unacknowledged. It speaks MQTT 3.1.1 itself, because a full client
// would take the processor that is to be measured.
func publish(ctx context.Context, broker string, n int) error {
	c, err := net.Dial("tcp", broker)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	w := bufio.NewWriterSize(c, 64<<10)
	w.Write([]byte("\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05bench"))
	if err := w.Flush(); err != nil {
		return err
	}
	r := bufio.NewReaderSize(c, 64<<10)
	if _, err := io.ReadFull(r, make([]byte, 4)); err != nil {
		return err
	}
	const window = 1000
	slots := make(chan struct{}, window)
	read := make(chan error, 1)
	go func() {
		ack := make([]byte, 4)
		for range n {
			if _, err := io.ReadFull(r, ack); err != nil {
				read <- err
				return
			}
			<-slots
		}
		read <- nil
	}()
	now := time.Now().UTC().Format(time.RFC3339Nano)
	for i := range n {
		select {
		case slots <- struct{}{}:
		default:
			if err := w.Flush(); err != nil {
				return err
			}
			select {
			case slots <- struct{}{}:
			case err := <-read:
				return err
			}
		}
		writePublish(w, i, now)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return <-read
}

func writePublish(w *bufio.Writer, i int, now string) {
	body := fmt.Sprintf(`{"id":"m%09d","order":"WO-%05d","lot":"L%06d","status":"OK","ts":%q,"note":"`, i, i%500, i%1000, now)
	body += strings.Repeat("x", max(0, messageBytes-len(body)-2)) + `"}`
	const topic = "bench/q"
	length := 2 + len(topic) + 2 + len(body)
	w.WriteByte(0x32)
	for length > 127 {
		w.WriteByte(byte(length&127 | 128))
		length >>= 7
	}
	w.WriteByte(byte(length))
	var n [2]byte
	binary.BigEndian.PutUint16(n[:], uint16(len(topic)))
	w.Write(n[:])
	w.WriteString(topic)
	binary.BigEndian.PutUint16(n[:], uint16(i%65535+1))
	w.Write(n[:])
	w.WriteString(body)
}

// residentMB reads a process's resident memory.
func residentMB(pid int) (float64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "VmRSS:" {
			kb, err := strconv.ParseFloat(f[1], 64)
			return kb / 1024, err
		}
	}
	return 0, fmt.Errorf("process %d has no VmRSS", pid)
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
