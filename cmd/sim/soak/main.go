// Command soak runs any number of seeds of the simulation and says what came of them.
//
// Its last line is "soak: seeds=n facts=n crashes=n missing=n doubled=n"; it exits with 1 unless every seed passed and nothing
// was missing or doubled. The logs of seeds that failed are kept in a folder, and each seed can be run again by itself.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

func main() {
	seeds := flag.Uint64("seeds", 2000, "how many seeds to run")
	first := flag.Uint64("first", 0, "the first seed; 0 draws one")
	keep := flag.String("keep", ".bin/soak", "folder for the logs of failing seeds")
	flag.Parse()
	if *first == 0 {
		*first = uint64(time.Now().UnixNano())%1_000_000_000 + 1
	}
	if err := run(*first, *seeds, *keep); err != nil {
		if !errors.Is(err, errFailed) {
			fmt.Fprintln(os.Stderr, "soak:", err)
		}
		os.Exit(1)
	}
}

// errFailed says that seeds failed, which was told already.
var errFailed = errors.New("seeds failed")

// chunk is how many seeds one process runs: what it has allocated ends with it, and progress is seen.
const chunk = 100

func run(first, seeds uint64, keep string) error {
	keep, err := filepath.Abs(keep)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(keep, 0o755); err != nil {
		return err
	}
	binary := filepath.Join(keep, "sim.test")
	build := exec.Command("go", "test", "-c", "-o", binary, "./cmd/sim")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build the simulation: %w", err)
	}
	fmt.Printf("%d seeds from %d on; logs of failing ones go to %s\n", seeds, first, keep)
	sum := map[string]int{}
	failed := false
	for done := uint64(0); done < seeds; done += chunk {
		n := min(chunk, seeds-done)
		ok, err := runChunk(binary, keep, first+done, n, sum)
		if err != nil {
			return err
		}
		failed = failed || !ok
		fmt.Printf("%d of %d seeds: %s\n", done+n, seeds, totals(sum, "facts", "crashes", "cuts", "restores", "clones", "reinstalls", "lost_replies", "missing", "doubled"))
	}
	fmt.Println("soak: " + totals(sum, "seeds", "facts", "crashes", "missing", "doubled"))
	if failed || sum["missing"] > 0 || sum["doubled"] > 0 || uint64(sum["seeds"]) != seeds {
		return errFailed
	}
	return nil
}

// runChunk runs n seeds and adds up their totals. What a failing seed says is shown.
func runChunk(binary, keep string, first, n uint64, sum map[string]int) (ok bool, err error) {
	cmd := exec.Command(binary, "-test.run", "^TestNothingIsLostAndNothingIsDoubledWhateverHappens$", "-test.timeout", "0")
	cmd.Dir = "cmd/sim"
	cmd.Env = append(os.Environ(), fmt.Sprintf("SIM_FIRST=%d", first), fmt.Sprintf("SIM_SEEDS=%d", n), "SIM_SEED=", "SIM_KEEP="+keep)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return false, err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return false, fmt.Errorf("run the simulation: %w", err)
	}
	read(out, sum)
	var exit *exec.ExitError
	if err = cmd.Wait(); errors.As(err, &exit) {
		return false, nil
	}
	return err == nil, err
}

var total = regexp.MustCompile(`(\w+)=(\d+)`)

func read(out io.Reader, sum map[string]int) {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		totalsLine, is := strings.CutPrefix(line, "simulation: ")
		if !is {
			if strings.Contains(line, "SIM_SEED=") || strings.Contains(line, "its log is in") || strings.HasPrefix(line, "panic") {
				fmt.Println(strings.TrimSpace(line))
			}
			continue
		}
		for _, m := range total.FindAllStringSubmatch(totalsLine, -1) {
			n, _ := strconv.Atoi(m[2]) // digits only
			sum[m[1]] += n
		}
	}
}

func totals(sum map[string]int, names ...string) string {
	parts := make([]string, len(names))
	for i, name := range names {
		parts[i] = fmt.Sprintf("%s=%d", name, sum[name])
	}
	return strings.Join(parts, " ")
}
