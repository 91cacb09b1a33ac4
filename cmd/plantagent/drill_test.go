package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/linekeeper/linekeeper/agent/drill"
)

// realBinary builds plantagent: a drill starts itself again and kills it.
func realBinary(t *testing.T, flags ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "plantagent")
	if runtime.GOOS == "windows" {
		path += ".exe"
	}
	args := append(append([]string{"build", "-o", path}, flags...), ".")
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		t.Fatalf("build plantagent: %v\n%s", err, out)
	}
	return path
}

// drillIt runs a drill with the real binary, and returns its exit code, report file and what it printed.
func drillIt(t *testing.T, env, program, config string, args ...string) (code int, report, out, errOut string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "report.txt")
	args = append([]string{"drill", "-c", config, "--scratch", t.TempDir(), "--report", file}, args...)
	var o, e bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), env)
	cmd.Stdout, cmd.Stderr = &o, &e
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(text), o.String(), e.String()
}

// untouchable listens where the live hub, broker, page and proxy would be, and fails the test when anybody calls.
func untouchable(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			t.Errorf("a drill called the live address %s from %s", ln.Addr(), c.RemoteAddr())
			c.Close()
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return ln.Addr().String()
}

// livePlant is a configuration as a plant has it, whose hub, broker and data must stay alone.
func livePlant(t *testing.T) (config string, fingerprint func() string) {
	t.Helper()
	dir := t.TempDir()
	address := untouchable(t)
	data := filepath.Join(dir, "data", "business")
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(data, "000000000001-00000000000000000001.segment"), "the live buffer")
	sample := bytes.Buffer{}
	if err := writeSample(&sample); err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(sample.String(), "hub.example.com:9443", address)
	if !strings.Contains(text, "address: "+address) {
		t.Fatal("the sample names its hub in another way")
	}
	path := writeFile(t, filepath.Join(dir, "live.yaml"), text)
	return path, func() string {
		var b strings.Builder
		err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
			if err != nil {
				return err
			}
			fmt.Fprintln(&b, path, info.Mode(), info.ModTime().UnixNano(), info.Size())
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
}

func TestEveryDrillPassesAndTouchesNothingLive(t *testing.T) {
	program := realBinary(t)
	config, fingerprint := livePlant(t)
	before := fingerprint()
	raw, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(raw)
	t.Run("drills", func(t *testing.T) {
		for _, word := range drill.Words() {
			t.Run(word, func(t *testing.T) {
				t.Parallel()
				code, report, _, errOut := drillIt(t, "", program, config, word, "--seed", "42")
				if code != 0 || !strings.Contains(report, "\nVERDICT: PASS: 1 of 1 drills passed, ") {
					t.Fatalf("exit code %d\n%s\n%s", code, report, errOut)
				}
				for _, want := range []string{hex.EncodeToString(sum[:]), "--seed 42", "plant, agent   ulm, line1", "doubled 0", "drill: messages of a broker", "press1 good parts"} {
					if !strings.Contains(report, want) {
						t.Errorf("the report does not say %q:\n%s", want, report)
					}
				}
				if word != "corrupt" && !strings.Contains(report, ", lost 0, doubled 0\n") {
					t.Errorf("something was lost:\n%s", report)
				}
			})
		}
	})
	if after := fingerprint(); after != before {
		t.Errorf("the live folder has changed:\n%s\nwas\n%s", after, before)
	}
}

// A drill that can not fail shows nothing.
func TestADrillNoticesABrokenProduct(t *testing.T) {
	program := realBinary(t)
	config, _ := livePlant(t)
	for _, c := range []struct{ broken, word, says string }{
		{"source-acked-early", "powercut", "counts are missing at the receiver"},
		{"hub-acks-early", "outage", "counts are missing at the receiver"},
		{"hub-forgets-keys", "snapshot", "counts took effect twice"},
	} {
		t.Run(c.broken, func(t *testing.T) {
			t.Parallel()
			code, _, out, errOut := drillIt(t, "", program, config, c.word, "--sabotage", c.broken, "--json")
			var rep drill.Report
			if err := json.Unmarshal([]byte(out), &rep); err != nil {
				t.Fatalf("%v\n%s\n%s", err, out, errOut)
			}
			if code != exitFailed || rep.Pass || len(rep.Drills) != 1 || !strings.Contains(strings.Join(rep.Drills[0].Failures, "\n"), c.says) {
				t.Errorf("exit code %d, seed %d, pass %v, failures %q", code, rep.Seed, rep.Pass, rep.Drills[0].Failures)
			}
			if !strings.Contains(rep.Text(), "sabotage       "+c.broken) {
				t.Error("the report does not say that a part was broken on purpose")
			}
		})
	}
}

// The agent itself is broken in the places where package sabotage guards how once is once.
func TestADrillNoticesAnAgentThatBreaksARule(t *testing.T) {
	program := realBinary(t, "-tags", "sabotage")
	config, _ := livePlant(t)
	for _, c := range []struct{ rule, word, says string }{
		{"1", "snapshot", "its facts get random keys"},
		{"2", "powercut", "counts are missing at the receiver"},
		{"3", "outage", "counts are missing at the receiver"},
	} {
		t.Run("rule "+c.rule, func(t *testing.T) {
			t.Parallel()
			code, report, _, errOut := drillIt(t, "LINEKEEPER_SABOTAGE="+c.rule, program, config, c.word)
			if code != exitFailed || !strings.Contains(report, c.says) || !strings.Contains(report, "VERDICT: FAIL") {
				t.Errorf("exit code %d\n%s\n%s", code, report, errOut)
			}
		})
	}
}

func TestADrillRefusesWhatItCanNotDo(t *testing.T) {
	if code, _, errOut := call("drill", "flood", "-c", write(t, plain)); code != exitUsage || !strings.Contains(errOut, "outage") {
		t.Errorf("unknown drill: code %d, %q", code, errOut)
	}
	if code, _, errOut := call("drill", "all", "-c", write(t, "plant: ulm\nagent: line1\nlisten: nowhere\n")); code != exitConfig || !strings.Contains(errOut, "listen") {
		t.Errorf("faulty configuration: code %d, %q", code, errOut)
	}
	if code, out, _ := call("drill", "--help"); code != 0 || !strings.Contains(out, "Example:\n\n    plantagent drill all") {
		t.Errorf("help: code %d\n%s", code, out)
	}
}
