// Command bench measures the product: tables for people, then one line "ratio NAME VALUE GOAL" for each figure that has a
// goal; higher is better.
//
// It owns the order of the measurements and their printing. It promises that every ratio compares two things of the same
// run on the same machine, or a rate with its stated limit, and that it leaves neither processes nor files behind, also when
// it is interrupted. It never ends with an error because a figure misses its goal: a slow machine is not a defect.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/pprof"
	"slices"
	"strings"
	"syscall"

	"github.com/linekeeper/linekeeper/agent/buffer/bufferbench"
	"github.com/linekeeper/linekeeper/hub/ingest/ingestbench"
)

func main() {
	ingestbench.HubProcess()
	erpProcess()
	only := flag.String("only", "", "parts to measure, separated by commas: "+strings.Join(partNames(), ", ")+"; all when empty")
	binaries := flag.String("binaries", "", "folder with plantagent and synchub to measure; built from this tree when empty")
	flag.IntVar(&stored, "stored", stored, "facts that the hub's store holds before the part ingest; 10 million take 3 GB and some minutes, a negative number means none")
	profile := flag.String("profile", "", "file that takes a profile of this process's work, for go tool pprof; none when empty")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := profiled(*profile, func() error { return run(ctx, *only, *binaries) }); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

var stored = 10_000_000

// part is one measurement; dir is an empty folder of its own.
type part struct {
	name, title string
	measure     func(ctx context.Context, dir, binaries string) error
}

var parts = []part{
	{"buffer", "Agent buffer: durable intake against a plain log with the same syncs", func(ctx context.Context, dir, _ string) error {
		intake, err := bufferbench.Compare(ctx, dir, 5)
		if err == nil {
			bufferbench.Print(os.Stdout, intake)
		}
		return err
	}},
	{"backlog", "Agent buffer with a backlog: rates, start and memory", func(ctx context.Context, dir, _ string) error {
		backlog, err := bufferbench.Backlog(ctx, dir, bufferbench.BacklogOptions{})
		if err == nil {
			backlog.Print(os.Stdout)
		}
		return err
	}},
	{"ingest", "Hub ingest: deduplicated, committed and acknowledged over TLS, against a bare idempotent insert", func(ctx context.Context, dir, _ string) error {
		ingest, err := ingestbench.Run(ctx, ingestbench.Options{Dir: dir, Stored: stored})
		if err == nil {
			ingest.Print(os.Stdout)
		}
		return err
	}},
	{"idle", "Agents that are connected and silent: the hub's memory", func(ctx context.Context, dir, _ string) error {
		idle, err := ingestbench.RunIdle(ctx, ingestbench.IdleOptions{Dir: dir})
		if err == nil {
			idle.Print(os.Stdout)
		}
		return err
	}},
	{"mqtt", "MQTT driver: a night's queue made durable and acknowledged, against the client library that only counts", mqttDriver},
	{"line", "Whole line: MQTT QoS 1 through Mosquitto to the hub's acknowledgement, every message durable on the way", wholeLine},
	{"outage", "Outage: all messages while the hub is down, then the hub comes up", outage},
	{"kills", "Kill -9 of the agent at 30 % of publishing and at half of the drain", kills},
	{"million", "Backlog of a million messages over MQTT: the agent's memory while it fills and drains", million},
	{"sql", "MES rows from PostgreSQL until durable, against the same library that only counts", sqlRows},
	{"opcua", "OPC UA values until durable, against the same library that only counts; 10,000 tags at 1/s", opcuaValues},
	{"posting", "Posting: facts verified in an ERP that takes 1, 50 and 500 ms for each call, against the same connector that keeps nothing", postings},
	{"reconcile", "Reconciliation: the facts of the hub against as many documents of an ERP that answers at once", reconciling},
	{"latency", "Idle line: single facts, from the commit at the agent to the hub's acknowledgement", latency},
}

// ofProcesses are the parts that run plantagent and synchub.
var ofProcesses = []string{"line", "outage", "kills", "million", "sql", "latency"}

func partNames() (names []string) {
	for _, p := range parts {
		names = append(names, p.name)
	}
	return names
}

func run(ctx context.Context, only, binaries string) error {
	chosen := partNames()
	if only != "" {
		chosen = strings.Split(only, ",")
	}
	for _, name := range chosen {
		if !slices.Contains(partNames(), name) {
			return fmt.Errorf("there is no part %q: choose from %s", name, strings.Join(partNames(), ", "))
		}
	}
	if binaries == "" && slices.ContainsFunc(chosen, func(name string) bool { return slices.Contains(ofProcesses, name) }) {
		dir, err := buildPrograms(ctx)
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		binaries = dir
	}
	for _, p := range parts {
		if !slices.Contains(chosen, p.name) {
			continue
		}
		fmt.Printf("%s (machine's load %s)\n", p.title, load())
		if err := inFolder(ctx, p, binaries); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		fmt.Println()
	}
	return nil
}

// profiled writes a profile of the processor's work that this process does meanwhile, where a file is named.
func profiled(file string, work func() error) error {
	if file == "" {
		return work()
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return errors.Join(err, f.Close())
	}
	err = work()
	pprof.StopCPUProfile()
	return errors.Join(err, f.Close())
}

func inFolder(ctx context.Context, p part, binaries string) error {
	dir, err := os.MkdirTemp("", "linekeeper-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	return p.measure(ctx, dir, binaries)
}

// load is how many processes wanted a processor in the last minute, where the system tells.
func load() string {
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(raw), " ")
	return one
}
