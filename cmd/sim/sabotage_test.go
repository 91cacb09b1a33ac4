package sim

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
)

// TestEachRuleThatIsBrokenIsNoticed builds the simulation with each rule of how once is once broken in turn (package
// sabotage), and wants it to fail within few seeds. With no rule broken the same seeds pass.
func TestEachRuleThatIsBrokenIsNoticed(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "sim.test")
	if out, err := exec.Command("go", "test", "-c", "-tags", "sabotage", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("build the simulation with sabotage: %v\n%s", err, out)
	}
	const first, most = 1, 30
	noticed := map[int]bool{}
	for _, rule := range []struct {
		n    int
		what string
	}{
		{1, "random key at each attempt"}, {2, "source acknowledged before the commit"}, {3, "record released when sent"},
		{4, "key stored again"}, {5, "restored copy not noticed, ranges not trimmed"}, {6, "posted again without looking"},
		{7, "conflict replaces what is stored"},
	} {
		t.Run(fmt.Sprintf("rule %d: %s", rule.n, rule.what), func(t *testing.T) {
			out, failed := sabotaged(binary, rule.n, first, most)
			if !failed {
				t.Errorf("%d seeds passed with rule %d broken:\n%s", most, rule.n, out)
				return
			}
			said := regexp.MustCompile(`SIM_SEED=(\d+): .*`).FindStringSubmatch(out)
			if said == nil {
				t.Fatalf("it failed, and named no seed:\n%s", out)
			}
			seed, _ := strconv.Atoi(said[1])
			noticed[seed] = true
			t.Logf("noticed after %d seeds: %s", seedsRun(out), said[0])
		})
	}
	t.Run("no rule broken", func(t *testing.T) {
		for seed := range noticed {
			if out, failed := sabotaged(binary, 0, seed, 1); failed {
				t.Errorf("seed %d fails with no rule broken:\n%s", seed, out)
			}
		}
	})
}

// sabotaged runs seeds until the first that fails.
func sabotaged(binary string, rule, first, count int) (out string, failed bool) {
	cmd := exec.Command(binary, "-test.run", "^TestNothingIsLostAndNothingIsDoubledWhateverHappens$", "-test.timeout", "20m")
	cmd.Env = append(os.Environ(), fmt.Sprintf("LINEKEEPER_SABOTAGE=%d", rule), fmt.Sprintf("SIM_FIRST=%d", first), fmt.Sprintf("SIM_SEEDS=%d", count), "SIM_STOP=1", "SIM_KEEP=", "SIM_SEED=")
	text, err := cmd.CombinedOutput()
	return string(text), err != nil
}

func seedsRun(out string) int {
	n := 0
	if m := regexp.MustCompile(`simulation: seeds=(\d+)`).FindStringSubmatch(out); m != nil {
		fmt.Sscan(m[1], &n)
	}
	return n
}
