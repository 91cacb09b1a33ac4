package ingestbench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/linekeeper/linekeeper/hub/ingest"
	"github.com/linekeeper/linekeeper/hub/store"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// IdleGoal is how many KiB a hub may keep for each agent that is connected and silent.
const IdleGoal = 60.0

// IdleOptions of RunIdle. Zero means the default.
type IdleOptions struct {
	// Streams, each on a connection of its own and of an agent of its own; 1,000.
	Streams int
	// Dir is where the hub's database is made; a temporary folder that is removed again when empty.
	Dir string
}

// Idle is the hub's memory after collection, and what belongs to each stream.
type Idle struct {
	Streams       int
	Before, After float64 // MB resident
	Goroutines    float64 // of each stream
}

// Each is how many KiB each stream takes.
func (r Idle) Each() float64 { return (r.After - r.Before) * 1024 / float64(r.Streams) }

// Print writes a line for people and one for machines.
func (r Idle) Print(w io.Writer) {
	fmt.Fprintf(w, "idle streams: %d agents connected over mutual TLS: hub's resident memory %.1f MB without, %.1f MB with them: %.1f KiB and %.1f goroutines each\n",
		r.Streams, r.Before, r.After, r.Each(), r.Goroutines)
	fmt.Fprintf(w, "ratio hub_idle_stream_memory %.2f 1.00\n", IdleGoal/r.Each())
}

// hubVariable names the folder of the hub that this process is to be; see HubProcess.
const hubVariable = "LINEKEEPER_BENCH_HUB"

// HubProcess turns the process into the hub of RunIdle when it was started as that, and then does not return. Commands and
// tests that call RunIdle call it first: the hub must be a process of its own for its memory to be told from the agents'.
func HubProcess() {
	dir := os.Getenv(hubVariable)
	if dir == "" {
		return
	}
	if err := serveIdle(context.Background(), dir); err != nil {
		fmt.Fprintln(os.Stderr, "hub of the benchmark:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serveIdle serves agents and answers each line of its input with its memory, until the input ends.
func serveIdle(ctx context.Context, dir string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := store.Open(ctx, filepath.Join(dir, "hub.db"), store.Options{})
	if err != nil {
		return err
	}
	defer s.Close()
	tlsConfig, err := readServer(dir)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	hub := ingest.New(ingest.Options{Store: s, Directory: everybody{}})
	server := grpc.NewServer(append(ingest.ServerOptions(), grpc.Creds(credentials.NewTLS(tlsConfig)))...)
	pb.RegisterUplinkServer(server, hub)
	var parts sync.WaitGroup
	parts.Go(func() { hub.Run(ctx) })
	parts.Go(func() { server.Serve(l) })
	fmt.Println(l.Addr())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		for range 3 { // stacks shrink by half at a time
			runtime.GC()
		}
		debug.FreeOSMemory()
		kb, err := residentKB()
		if err != nil {
			return err
		}
		fmt.Println(kb, runtime.NumGoroutine())
	}
	server.Stop()
	cancel()
	parts.Wait()
	return nil
}

func residentKB() (int, error) {
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "VmRSS:" {
			return strconv.Atoi(f[1])
		}
	}
	return 0, errors.New("/proc/self/status tells no resident memory")
}

// RunIdle connects agents to a hub in a process of its own, each with a certificate and a connection of its own, lets each say
// its status once, and measures. Linux only.
func RunIdle(ctx context.Context, o IdleOptions) (r Idle, err error) {
	if r.Streams = o.Streams; r.Streams <= 0 {
		r.Streams = 1000
	}
	dir, err := os.MkdirTemp(o.Dir, "idlebench")
	if err != nil {
		return r, fmt.Errorf("make folder of the benchmark: %w", err)
	}
	defer os.RemoveAll(dir)
	ca, err := NewAuthority()
	if err != nil {
		return r, err
	}
	if err := ca.writeServer(dir); err != nil {
		return r, err
	}
	h, err := startHub(ctx, dir)
	if err != nil {
		return r, fmt.Errorf("start hub: %w", err)
	}
	defer h.stop()
	agents := make([]*idleAgent, r.Streams+1)
	defer func() {
		for _, a := range agents {
			a.close()
		}
	}()
	if agents[0], err = connectIdle(ctx, ca, h.address, 0); err != nil { // what the first one takes is not each one's
		return r, err
	}
	before, idle, err := h.memory()
	if err != nil {
		return r, err
	}
	for i := 1; i <= r.Streams; i++ {
		if agents[i], err = connectIdle(ctx, ca, h.address, i); err != nil {
			return r, fmt.Errorf("connect agent %d: %w", i, err)
		}
	}
	after, busy, err := h.memory()
	r.Before, r.After, r.Goroutines = before, after, float64(busy-idle)/float64(r.Streams)
	return r, err
}

// hubProcess is the hub as a child.
type hubProcess struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
	address string
}

func startHub(ctx context.Context, dir string) (*hubProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	h := &hubProcess{cmd: exec.CommandContext(ctx, self)}
	h.cmd.Env, h.cmd.Stderr = append(os.Environ(), hubVariable+"="+dir), os.Stderr
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if h.in, err = h.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := h.cmd.Start(); err != nil {
		return nil, err
	}
	h.out = bufio.NewReader(out)
	h.address, err = h.out.ReadString('\n')
	h.address = strings.TrimSpace(h.address)
	if err != nil {
		h.stop()
	}
	return h, err
}

func (h *hubProcess) stop() {
	h.in.Close()
	h.cmd.Wait()
}

// memory asks for the hub's resident memory in MB and its goroutines.
func (h *hubProcess) memory() (mb float64, goroutines int, err error) {
	if _, err := fmt.Fprintln(h.in); err != nil {
		return 0, 0, err
	}
	var kb int
	_, err = fmt.Fscanln(h.out, &kb, &goroutines)
	return float64(kb) / 1024, goroutines, err
}

// idleAgent is a connection that says hello and its status, and then nothing.
type idleAgent struct{ conn *grpc.ClientConn }

func (a *idleAgent) close() {
	if a != nil {
		a.conn.Close()
	}
}

func connectIdle(ctx context.Context, ca *Authority, address string, n int) (*idleAgent, error) {
	name := fmt.Sprintf("line%d", n)
	tlsConfig, err := ca.Agent("ulm", name)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(tlsConfig)))
	if err != nil {
		return nil, err
	}
	a := &idleAgent{conn}
	for {
		err := a.greet(ctx, name)
		var busy busyError
		if errors.As(err, &busy) { // the hub takes so many agents at once
			pause := time.NewTimer(time.Duration(busy))
			select {
			case <-pause.C:
				continue
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		if err != nil {
			a.close()
			return nil, err
		}
		return a, nil
	}
}

// busyError is how long the hub asks an agent to wait.
type busyError time.Duration

func (e busyError) Error() string { return fmt.Sprintf("hub is busy for %s", time.Duration(e)) }

func (a *idleAgent) greet(ctx context.Context, name string) error {
	stream, err := pb.NewUplinkClient(a.conn).Connect(ctx)
	if err != nil {
		return err
	}
	hello := &pb.Hello{Protocol: ingest.Protocol, Plant: "ulm", Agent: name, Instance: name}
	said := &pb.AgentStatus{State: "ok", Ledger: []*pb.LedgerRow{{OrderNo: "1000001", Kind: "yield", Unit: "C62", Counted: "5", Stored: "5"}}}
	record, _, err := facts(0, 1)
	if err != nil {
		return err
	}
	batch := &pb.Batch{Stream: pb.Stream_STREAM_BUSINESS, Generation: "idle", FirstSeq: 1, Records: record}
	for _, up := range []*pb.Up{{Kind: &pb.Up_Hello{Hello: hello}}, {Kind: &pb.Up_Status{Status: said}}, {Kind: &pb.Up_Batch{Batch: batch}}} {
		if err := stream.Send(up); err != nil && err != io.EOF { // then Recv tells why
			return err
		}
	}
	for {
		down, err := stream.Recv()
		if err != nil {
			return err
		}
		if down.GetBatchAck() != nil { // a duplicate for all but the first
			return nil
		}
		if r := down.GetRefusal(); r.GetCode() == pb.Refusal_CODE_BUSY {
			return busyError(r.GetRetryAfter().AsDuration())
		} else if r != nil {
			return fmt.Errorf("hub refuses: %v", r)
		}
	}
}
