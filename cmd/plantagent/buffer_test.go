package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/buffer"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

func TestHelpOfEachBufferCommandHasAnExample(t *testing.T) {
	for _, name := range []string{"inspect", "verify", "export", "import"} {
		code, out, _ := call("buffer", name, "--help")
		if code != 0 || !strings.Contains(out, "Example:\n\n") || !strings.Contains(out, "plantagent buffer "+name) {
			t.Errorf("help of %s, code %d:\n%s", name, code, out)
		}
	}
	if _, out, _ := call("--help"); strings.Contains(out, "salvage-segment") {
		t.Error("a command for the agent's own use is shown")
	}
}

// businessOf makes a data folder with facts.
func businessOf(t *testing.T, n int) (data string) {
	t.Helper()
	data = t.TempDir()
	b, err := buffer.Open(buffer.Config{Dir: filepath.Join(data, "business"), DiskReserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		err := b.Commit(context.Background(), func(tx *buffer.Tx) error {
			tx.Append(fmt.Appendf(nil, "record %06d %s", i+1, strings.Repeat("x", 500)))
			tx.SetState("cursor/mes", fmt.Append(nil, i))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	return data
}

func TestVerifyTellsWholeFromDamaged(t *testing.T) {
	data := businessOf(t, 50)
	code, out, errOut := call("buffer", "verify", "--data", data)
	if code != 0 || !strings.Contains(out, "all is whole: 1 file, 50 records") {
		t.Fatalf("code %d: %s%s", code, out, errOut)
	}
	paths, err := filepath.Glob(filepath.Join(data, "business", "*.segment"))
	if err != nil || len(paths) != 1 {
		t.Fatal(paths, err)
	}
	text, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, paths[0], strings.ReplaceAll(string(text), "record 000031", "RECORD 000031"))
	code, out, _ = call("buffer", "verify", "--data", data)
	if code != exitFailed || !strings.Contains(out, "checksum does not match") || !strings.Contains(out, "start the agent") {
		t.Errorf("code %d: %s", code, out)
	}
	code, out, _ = call("buffer", "verify", "--data", data, "--json")
	var in buffer.Inspection
	if err := json.Unmarshal([]byte(out), &in); code != exitFailed || err != nil || len(in.Faults) == 0 {
		t.Errorf("code %d: %v: %s", code, err, out)
	}

	// The agent saves what is whole, by a process of this program.
	b, err := buffer.Open(buffer.Config{Dir: filepath.Join(data, "business"), DiskReserve: -1, Salvager: salvager()})
	if err != nil {
		t.Fatal(err)
	}
	realparts.Eventually(t, 30*time.Second, "the salvage ends", func() error {
		if n := b.Stats().Salvaging; n > 0 {
			return fmt.Errorf("%d to go", n)
		}
		return nil
	})
	if d := b.Damaged(); len(d) != 1 || d[0].Records == 0 || d[0].Recovered+d[0].Records != 50 || d[0].OpenEnd || string(b.State("cursor/mes")) != "29" {
		t.Errorf("damage %+v, cursor %q", d, b.State("cursor/mes"))
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	code, out, _ = call("buffer", "inspect", "--data", data)
	if code != 0 || !strings.Contains(out, "record 31 is lost") || !strings.Contains(out, "49 that were saved") || !strings.Contains(out, "set aside") || !strings.Contains(out, "cursor/mes") {
		t.Errorf("code %d: %s", code, out)
	}
	if code, out, _ := call("buffer", "verify", "--data", data); code != 0 || !strings.Contains(out, "earlier") {
		t.Errorf("code %d: %s", code, out)
	}
}

func TestBufferCommandsSayWhatIsMissing(t *testing.T) {
	empty := t.TempDir()
	config := write(t, plain)
	for _, args := range [][]string{
		{"buffer", "inspect", "--data", empty}, {"buffer", "verify", "--data", empty}, {"buffer", "inspect", "-c", config},
		{"buffer", "export", "-c", config, "--out", filepath.Join(empty, "x")},
	} {
		if code, out, errOut := call(args...); code != exitFailed || !strings.Contains(errOut, "there is no buffer in") || !strings.Contains(errOut, "--data") {
			t.Errorf("%v: code %d: %s%s", args, code, out, errOut)
		}
	}
	if files, _ := os.ReadDir(empty); len(files) > 0 {
		t.Errorf("something was made: %v", files)
	}
	if code, _, errOut := call("buffer", "export", "-c", config); code != exitUsage || !strings.Contains(errOut, "--out") {
		t.Errorf("code %d: %s", code, errOut)
	}
}

// The agent runs at once on a buffer with a broken record, saves the others and says which one is lost.
func TestAgentOnADamagedBufferRunsAndSaysWhatIsLost(t *testing.T) {
	data := businessOf(t, 50)
	paths, err := filepath.Glob(filepath.Join(data, "business", "*.segment"))
	if err != nil || len(paths) != 1 {
		t.Fatal(paths, err)
	}
	text, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, paths[0], strings.ReplaceAll(string(text), "record 000031", "RECORD 000031"))
	config := write(t, plain+"data_dir: "+data+"\n")
	addr, stop := runAgent(t, config)
	realparts.Eventually(t, 30*time.Second, "the status names the record", func() error {
		_, out, errOut := call("status", "--json", "--addr", addr)
		var s struct {
			BufferDamage string `json:"buffer_damage"`
			Business     struct {
				Pending uint64 `json:"pending"`
			} `json:"business"`
		}
		if err := json.Unmarshal([]byte(out), &s); err != nil {
			return fmt.Errorf("%w: %s%s", err, out, errOut)
		}
		if !strings.Contains(s.BufferDamage, "record 31 is lost, 49 were saved") || s.Business.Pending != 49 {
			return fmt.Errorf("%d wait, damage %q", s.Business.Pending, s.BufferDamage)
		}
		return nil
	})
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}
