package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/wire"
)

// soleHub is a real hub process without any plant: facts are put into its store while it is down.
type soleHub struct {
	*line
	t       *testing.T
	program string
	hub     *hubProcess // the one that is asked
	seq     uint64
}

// newSoleHub writes the configuration of a hub, to which section adds from erps: on, and starts nothing.
func newSoleHub(t *testing.T, program string, section func(dir string) string) *soleHub {
	h := &soleHub{t: t, program: program}
	h.line = newLine(t, func(dir string) (string, string) { return section(dir), "sources: []\nrules: []\n" })
	// Ports of its own choice: hubs come and go here, and a second may run beside the first.
	text, err := os.ReadFile(h.hubCfg)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "listen:") })
	lines[i] = `listen: {grpc: "127.0.0.1:0", http: "127.0.0.1:0"}`
	realparts.WriteFile(t, h.hubCfg, strings.Join(lines, "\n"))
	return h
}

func (h *soleHub) db() string { return filepath.Join(h.dir, "hub-data", "hub.db") }

// withStore opens the store of the hub that is down.
func (h *soleHub) withStore(f func(s *store.Store)) {
	h.t.Helper()
	s, err := store.Open(context.Background(), h.db(), store.Options{})
	if err != nil {
		h.t.Fatal(err)
	}
	defer s.Close()
	f(s)
}

// put stores facts as the agent line1 of plant ulm would have brought them.
func (h *soleHub) put(facts []object.Fact) {
	h.t.Helper()
	const atOnce = 2000
	h.withStore(func(s *store.Store) {
		var agent store.Agent
		err := s.Update(context.Background(), func(tx *store.Tx) (err error) { agent, err = tx.AgentByName("ulm", "line1"); return err })
		if err != nil {
			h.t.Fatal(err)
		}
		for some := range slices.Chunk(facts, atOnce) {
			b := store.Batch{AgentID: agent.ID, Agent: agent.Name(), Generation: "g", FirstSeq: h.seq + 1}
			for _, f := range some {
				body, err := wire.EncodeFact(f)
				if err != nil {
					h.t.Fatal(err)
				}
				b.Records = append(b.Records, store.Record{Key: f.Key, Body: body})
			}
			if _, err := s.AppendFacts(context.Background(), []store.Batch{b}); err != nil {
				h.t.Fatal(err)
			}
			h.seq += uint64(len(some))
		}
	})
}

// hubProcess is one start of a hub.
type hubProcess struct {
	*exec.Cmd
	ended chan struct{}
	mu    sync.Mutex
	out   bytes.Buffer
}

func (p *hubProcess) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Write(b)
}

func (p *hubProcess) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// url is where its API answers, empty before it has said so.
func (p *hubProcess) url() string {
	_, after, _ := strings.Cut(p.output(), "console and API: ")
	url, _, whole := strings.Cut(after, "\n")
	if !whole {
		return ""
	}
	return url
}

func (h *soleHub) start(env ...string) *hubProcess {
	h.t.Helper()
	p := &hubProcess{Cmd: exec.Command(filepath.Join(bin, h.program), "serve", "-c", h.hubCfg), ended: make(chan struct{})}
	p.Env, p.Stdout, p.Stderr = append(os.Environ(), env...), p, p
	if err := p.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.hub = p
	go func() { p.Wait(); close(p.ended) }()
	h.t.Cleanup(func() {
		p.kill()
		if h.t.Failed() {
			h.t.Logf("output of process %d:\n%.2000s", p.Process.Pid, p.output())
		}
	})
	return p
}

func (p *hubProcess) kill() {
	p.Process.Signal(syscall.SIGCONT)
	p.Process.Kill()
	<-p.ended
}

// await waits for something that happens while the hub runs.
func (p *hubProcess) await(t *testing.T, what <-chan struct{}) {
	t.Helper()
	patience := time.NewTimer(90 * time.Second)
	defer patience.Stop()
	select {
	case <-what:
	case <-p.ended:
		t.Fatal("the hub ended before")
	case <-patience.C:
		t.Fatal("it has not come to that")
	}
}

// waitEnd returns how the process ended.
func (p *hubProcess) waitEnd(t *testing.T, what string) syscall.WaitStatus {
	t.Helper()
	patience := time.NewTimer(90 * time.Second)
	defer patience.Stop()
	select {
	case <-p.ended:
	case <-patience.C:
		t.Fatalf("the hub did not end: %s", what)
	}
	return p.ProcessState.Sys().(syscall.WaitStatus)
}

// call asks the hub's API.
func (h *soleHub) call(method, path string, body, into any) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequest(method, h.hub.url()+path, bytes.NewReader(raw))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode >= 300 {
		return fmt.Errorf("%s %s answered %s", method, path, res.Status)
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(res.Body).Decode(into)
}
