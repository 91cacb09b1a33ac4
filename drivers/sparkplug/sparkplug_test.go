package sparkplug

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/signal/drivertest"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

// source is an edge node that stores and forwards, for the suite of every driver.
type source struct {
	t      testing.TB
	broker *realparts.Broker
	edge   *realparts.Edge
}

func (s *source) Section() string { return section(s.broker) }

func (s *source) Produce(n int) { s.edge.Post(s.t, "/produce", map[string]any{"n": n}) }

func (s *source) Number(sig signal.Signal) (int, bool) { return part(&sig) }

func (s *source) Restart() {
	s.broker.Kill(syscall.SIGTERM)
	if err := s.broker.Run(); err != nil {
		s.t.Fatalf("start the broker again: %v", err)
	}
}

func (s *source) Spoil() {
	s.edge.Post(s.t, "/say", map[string]any{"type": "NDATA", "metrics": []any{map[string]any{"alias": 2, "type": "String", "value": "many"}},
		"raw": []any{map[string]any{"alias": 2, "datatype": 4, "stringValue": "many"}}})
}

func TestDriverKeepsTheContract(t *testing.T) {
	drivertest.Run(t, drivertest.Options{
		Kind: Kind,
		Start: func(t testing.TB) drivertest.Source {
			b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
			return &source{t: t, broker: b, edge: realparts.SparkplugEdge(t, realparts.EdgeOptions{Broker: clients(b), PrimaryHost: "here", Rolling: 1000})}
		},
		// The node sends its last parts again whenever its host comes back, so repetitions are to be expected.
		OnlyRunning: true,
	})
}

// child is the driver in a process of its own, to be killed.
func child(t *testing.T, b *realparts.Broker, file string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SPARKPLUG_TEST_CHILD="+section(b), "SPARKPLUG_TEST_FILE="+file, "SPARKPLUG_TEST_DIR="+t.TempDir())
	log, err := os.OpenFile(file+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// records reads what the child made durable: for each part the positions under which it came.
func records(t *testing.T, file string) map[int]map[string]int {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	parts := map[int]map[string]int{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var r record
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			continue // the kill tore it
		}
		// A host that comes in the middle of a session which then ends puts aside what it could not understand.
		if strings.HasPrefix(r.Value, "problem") && r.Value != "problem no_birth" {
			t.Errorf("a value was put aside: %+v", r)
		}
		if r.Tag != "parts" {
			continue
		}
		n, err := strconv.Atoi(r.Value)
		if err != nil {
			t.Errorf("part %q", r.Value)
		}
		if parts[n] == nil {
			parts[n] = map[string]int{}
		}
		parts[n][r.Position]++
	}
	return parts
}

func TestKilledHostLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("seed: SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	const kills = 9
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	edge := realparts.SparkplugEdge(t, realparts.EdgeOptions{Broker: clients(b), PrimaryHost: "here", Rolling: 2000})
	file := filepath.Join(t.TempDir(), "records")
	done := make(chan struct{})
	made := make(chan int)
	go func() { // the line does not stop for the agent
		defer close(made)
		for n := 0; ; n += 2 {
			select {
			case <-done:
				made <- n
				return
			default:
				if err := tryProduce(edge, 2); err != nil {
					t.Errorf("produce: %v", err)
					made <- n
					return
				}
				time.Sleep(8 * time.Millisecond) // the pace of the line
			}
		}
	}()
	restarts, cuts := 0, 0
	for range kills {
		before := edge.State(t).Births
		cmd := child(t, b, file)
		realparts.Eventually(t, testPatience, "a birth for the new host", func() error {
			if edge.State(t).Births > before {
				return nil
			}
			return errors.New("none yet")
		})
		time.Sleep(time.Duration(random.IntN(400)) * time.Millisecond) // anywhere in its work
		switch random.IntN(5) {
		case 0:
			b.Kill(syscall.SIGTERM)
			if err := b.Run(); err != nil {
				t.Fatalf("start the broker again: %v", err)
			}
			restarts++
		case 1:
			edge.Post(t, "/cut", nil)
			cuts++
		}
		cmd.Process.Kill()
		cmd.Wait()
	}
	last := child(t, b, file)
	defer func() { last.Process.Kill(); last.Wait() }()
	close(done)
	total := <-made
	realparts.Eventually(t, testPatience, "the last part", func() error {
		if n := len(records(t, file)); n < total {
			return fmt.Errorf("%d of %d parts are durable", n, total)
		}
		return nil
	})
	lost, doubled, repeated := 0, 0, 0
	parts := records(t, file)
	for n := 1; n <= total; n++ {
		switch {
		case len(parts[n]) == 0:
			lost++
		case len(parts[n]) > 1:
			doubled++
		}
		for _, times := range parts[n] {
			repeated += times - 1
		}
	}
	s := edge.State(t)
	t.Logf("parts=%d kills=%d broker restarts=%d cuts=%d live=%d flushed=%d births=%d lost=%d doubled=%d recognised again=%d", total, kills, restarts, cuts, s.Live, s.Flushed, s.Births, lost, doubled, repeated)
	if lost != 0 || doubled != 0 || len(parts) != total || total < 100 || s.Flushed == 0 {
		t.Errorf("lost %d, doubled %d, %d numbers of %d parts", lost, doubled, len(parts), total)
	}
}

func tryProduce(e *realparts.Edge, n int) error { return e.Try("/produce", map[string]any{"n": n}) }
