package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

// What the README shows is true: the demo ends by itself, its last line balances, and it exits with 0.
func TestDemoSettlesTheBooks(t *testing.T) {
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", dir, "./cmd/plantagent", "./cmd/synchub", "./cmd/demo")
	build.Dir = realparts.Root()
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	cmd := exec.Command(filepath.Join(dir, "demo"))
	cmd.Env = append(os.Environ(), "DEMO_FOR=40s")
	out, err := cmd.Output()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	last := lines[len(lines)-1]
	if err != nil {
		t.Fatalf("the demo ended with %v:\n%s", err, out)
	}
	m := regexp.MustCompile(`^tally: counted=(\d+) stored=(\d+) received=(\d+) posted=(\d+) missing=0 doubled=0$`).FindStringSubmatch(last)
	if m == nil || m[1] == "0" || m[1] != m[2] || m[2] != m[3] || m[3] != m[4] {
		t.Errorf("the last line is %q", last)
	}
	t.Log(last)
	for _, want := range []string{"operator's page  http://127.0.0.1:", "hub console      http://127.0.0.1:", "DISASTER: "} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the demo never said %q", want)
		}
	}
}
