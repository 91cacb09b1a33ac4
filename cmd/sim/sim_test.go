package sim

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/linekeeper/linekeeper/hub/fleet"
)

// certificates is the folder with the certificates of all simulated hosts.
var certificates string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "linekeeper-sim-certificates")
	if err == nil {
		defer os.RemoveAll(dir)
		err = issue(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "make certificates:", err)
		return 1
	}
	certificates = dir
	return m.Run()
}

// issue makes certificates that are valid in the simulation, which begins in the year 2000.
func issue(dir string) error {
	then := func() time.Time { return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) }
	ca, err := fleet.CreateAuthority(dir, then)
	if err != nil {
		return err
	}
	if err := ca.IssueHub(dir, []string{"hub.test"}); err != nil {
		return err
	}
	for _, name := range []string{"line1", "line2"} {
		if err := ca.IssueAgent(filepath.Join(dir, name), "ulm", name); err != nil {
			return err
		}
	}
	return nil
}

// number reads a number from the environment.
func number(t *testing.T, name string, otherwise uint64) (n uint64, given bool) {
	text := os.Getenv(name)
	if text == "" {
		return otherwise, false
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n, true
}

// TestNothingIsLostAndNothingIsDoubledWhateverHappens runs many seeds. SIM_SEED=n runs only that one, SIM_SEEDS=n so many,
// from SIM_FIRST on.
func TestNothingIsLostAndNothingIsDoubledWhateverHappens(t *testing.T) {
	first, given := number(t, "SIM_FIRST", uint64(time.Now().UnixNano())%1_000_000_000)
	count, _ := number(t, "SIM_SEEDS", 20)
	if n, one := number(t, "SIM_SEED", 0); one {
		first, count, given = n, 1, true
	}
	if !given {
		t.Logf("seeds begin at SIM_FIRST=%d", first)
	}
	var mu sync.Mutex
	var sum totals
	t.Run("seed", func(t *testing.T) {
		for n := first; n < first+count; n++ {
			t.Run(fmt.Sprint(n), func(t *testing.T) {
				t.Parallel()
				got := simulate(t, n)
				mu.Lock()
				defer mu.Unlock()
				sum.add(got)
			})
		}
	})
	t.Logf("seeds=%d %s", count, sum)
}

// simulate runs one seed in a bubble of fake time.
func simulate(t *testing.T, seed uint64) (sum totals) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, seed, 1+int(seed%2))
		defer w.close()
		w.runSeed()
		sum = w.totals
	})
	return sum
}
