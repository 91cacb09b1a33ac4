package sim

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

const filePage = 4096

// crashAndDamage kills an agent, harms its newest buffer file, and starts it again.
func (m *agentMachine) crashAndDamage(what string, harm func(pages [][]byte)) {
	m.w.logf("%s is killed, and its newest buffer file loses %s", m.name, what)
	m.dir = m.w.bury(m.p, true)
	m.p, m.a = nil, nil
	paths, err := filepath.Glob(filepath.Join(m.dir, "business", "*.segment"))
	if err != nil || len(paths) == 0 {
		m.w.t.Fatalf("no buffer file in %s: %v", m.dir, err)
	}
	path := slices.Max(paths)
	content, err := os.ReadFile(path)
	if err != nil {
		m.w.t.Fatal(err)
	}
	harm(slices.Collect(slices.Chunk(content, filePage)))
	if err := os.WriteFile(path, content, 0o600); err != nil {
		m.w.t.Fatal(err)
	}
	m.wentBack = true
	m.start()
}

// isCommitRoot says that a page is one from which the tree of a commit hangs.
func isCommitRoot(page []byte) bool {
	for _, bucket := range []string{"info", "meta", "quarantine", "records", "state"} {
		if !bytes.Contains(page, []byte(bucket)) {
			return false
		}
	}
	return true
}

// A disk that loses pages of the newest buffer file, though not of records, sends cursors, rules and counters back in time. The
// records come out of the file again, the sources are asked again, and keys and the hub's marks keep everything single.
func TestDamagedBufferFileLosesNothingAndDoublesNothing(t *testing.T) {
	for what, harm := range map[string]func(pages [][]byte){
		"a page that names the last commit": func(pages [][]byte) { clear(pages[1]) },
		"both pages that name commits":      func(pages [][]byte) { clear(pages[0]); clear(pages[1]) },
		"the roots of all commits": func(pages [][]byte) {
			for _, page := range pages[2:] {
				if isCommitRoot(page) {
					clear(page)
				}
			}
		},
		"all that leads to its records": func(pages [][]byte) {
			for i, page := range pages {
				if i < 2 || isCommitRoot(page) || page[8] == 1 {
					clear(page)
				}
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			scene(t, func(w *world, a *agentMachine) {
				for range 3 {
					w.pass(20 * time.Second)
					a.crashAndDamage(what, harm)
					w.pass(time.Second)
					if a.a.Snapshot().BufferDamage == "" {
						w.failf("nobody was told of the damage")
					}
				}
				w.pass(30 * time.Second)
			})
		})
	}
}
