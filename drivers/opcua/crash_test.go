package opcua

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

// ledgerLine is one transaction of the agent that is killed.
type ledgerLine struct {
	Cursor []byte
	Values []ledgerValue
}

type ledgerValue struct{ Tag, Value string }

// readLedger returns the transactions that are whole. What a crash cut off was never durable.
func readLedger(path string) (lines []ledgerLine, size int64) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, 0
	}
	in := bufio.NewReader(bytes.NewReader(b))
	for {
		text, err := in.ReadBytes('\n')
		var l ledgerLine
		if err != nil || json.Unmarshal(text, &l) != nil {
			return lines, size
		}
		lines = append(lines, l)
		size += int64(len(text))
	}
}

// crashingAgent is the process that the test kills: a driver over a ledger file with one line for each transaction.
func crashingAgent(dir string) {
	config, err := os.ReadFile(filepath.Join(dir, "source.yaml"))
	if err != nil {
		panic(err)
	}
	env := signal.Env{Plant: "hamburg", Agent: "line1", Source: "press", Dir: dir, ConfigDir: dir, Zone: time.UTC,
		Reporter: nobody{}, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	d, err := Kind.New(env, decodeYAML(string(config)))
	if err != nil {
		panic(err)
	}
	path := filepath.Join(dir, "ledger")
	lines, size := readLedger(path)
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		panic(err)
	}
	if err := file.Truncate(size); err != nil {
		panic(err)
	}
	var cursor []byte
	for _, l := range lines {
		cursor = l.Cursor
	}
	var mu sync.Mutex
	emit := func(_ context.Context, b signal.Batch) error {
		mu.Lock()
		defer mu.Unlock()
		l := ledgerLine{Cursor: b.Cursor}
		for _, s := range b.Signals {
			l.Values = append(l.Values, ledgerValue{s.Tag, fmt.Sprint(s.Value)})
		}
		text, err := json.Marshal(l)
		if err != nil {
			return err
		}
		if _, err := file.WriteAt(append(text, '\n'), size); err != nil {
			return err
		}
		size += int64(len(text)) + 1
		return file.Sync()
	}
	d.Run(context.Background(), cursor, emit)
}

type nobody struct{}

func (nobody) State(signal.State, string)      {}
func (nobody) Problem(string, *signal.Problem) {}

func testAgentKilled(t *testing.T, plant *realparts.Plant) {
	seed := testSeed(t)
	random := rand.New(rand.NewPCG(seed, 2))
	b := newBench(t)
	b.prepare(plant)
	config, tags := counterConfig(plant.Endpoint(), counters)
	realparts.WriteFile(t, filepath.Join(b.dir, "source.yaml"), config)
	ledger := filepath.Join(b.dir, "ledger")
	agent := &realparts.Process{
		Name: "agent",
		Command: func() *exec.Cmd {
			c := exec.Command(os.Args[0])
			c.Env = append(os.Environ(), "OPCUA_TEST_AGENT="+b.dir)
			return c
		},
		Ready: func() error { return nil },
	}
	agent.Start(t)
	const kills = 6
	for range kills {
		before, _ := readLedger(ledger)
		goal := len(before) + 3 + random.IntN(15)
		realparts.Eventually(t, 30*time.Second, "the agent works", func() error {
			if now, _ := readLedger(ledger); len(now) < goal {
				return fmt.Errorf("%d transactions, want %d", len(now), goal)
			}
			return nil
		})
		agent.Kill(syscall.SIGKILL)
		if err := agent.Run(); err != nil {
			t.Fatal(err)
		}
	}
	truth := plant.Counts(t).Counters["Count.0"]
	var sums map[string][]string
	realparts.Eventually(t, 30*time.Second, "the agent has caught up", func() error {
		lines, _ := readLedger(ledger)
		sums = map[string][]string{}
		for _, l := range lines {
			for _, v := range l.Values {
				sums[v.Tag] = append(sums[v.Tag], v.Value)
			}
		}
		for _, tag := range tags {
			list := sums[tag]
			if len(list) == 0 {
				return fmt.Errorf("no value of %s", tag)
			}
			if last := atoi(t, list[len(list)-1]); last < truth {
				return fmt.Errorf("%s is %d, want %d", tag, last, truth)
			}
		}
		return nil
	})
	agent.Kill(syscall.SIGKILL)
	values, missing, doubled := 0, 0, 0
	for _, tag := range tags {
		for i, v := range sums[tag] {
			values++
			if i == 0 {
				continue
			}
			switch step := atoi(t, v) - atoi(t, sums[tag][i-1]); {
			case step > 1:
				missing += int(step - 1)
			case step < 1:
				doubled++
			}
		}
	}
	t.Logf("agent killed %d times: %d values, %d missing, %d doubled", kills, values, missing, doubled)
	if missing+doubled > 0 {
		t.Errorf("%d missing, %d doubled; last output:\n%s", missing, doubled, agent.Output())
	}
}

func atoi(t *testing.T, s string) int64 {
	t.Helper()
	var n int64
	if _, err := fmt.Sscan(s, &n); err != nil {
		t.Fatalf("value %q is not a number", s)
	}
	return n
}
