package realparts

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// EdgeOptions say what kind of node SparkplugEdge starts.
type EdgeOptions struct {
	// Broker is the broker's address for its clients, "mqtt://127.0.0.1:1883". It may be a proxy's.
	Broker string
	// Group and Node name it; "plant" and "line1" when empty.
	Group, Node string
	// PrimaryHost is the host it waits for and stores for; empty to speak at once and always.
	PrimaryHost string
	// OldState reads the host's state as nodes before version 3.0 of the format do.
	OldState bool
	// Rolling is how many of the last parts are sent again, as history, when the primary host comes back.
	Rolling int
	// Devices are born behind the node, each with a metric Counts/Good.
	Devices []string
	// Client leaves the protocol to a client library: such a node does nothing wrong, stores nothing and has one device,
	// "press", which makes the same parts. Of the actions it knows /produce only. Compress makes it pack what it sends.
	Client, Compress bool
}

// Edge is a Sparkplug B edge node (not ours) under a test's control. It counts parts: each is a new value of Counts/Good, a
// counter, and of PartDone, an event. Its count does not outlive the process.
type Edge struct {
	*Process
	control
}

// EdgeState is what an edge node knows of itself.
type EdgeState struct {
	Made          int  `json:"made"`
	Births        int  `json:"births"`
	RebirthsAsked int  `json:"rebirthsAsked"`
	Live          int  `json:"live"`
	Flushed       int  `json:"flushed"`
	Born          bool `json:"born"`
	BdSeq         int  `json:"bdSeq"`
	HostOnline    bool `json:"hostOnline"`
	Stored        int  `json:"stored"`
}

// SparkplugEdge starts an edge node and stops it when the test ends.
func SparkplugEdge(t testing.TB, o EdgeOptions) *Edge {
	t.Helper()
	if o.Group == "" {
		o.Group = "plant"
	}
	if o.Node == "" {
		o.Node = "line1"
	}
	e := &Edge{control: control{name: "edge node", port: FreePort(t)}}
	program := "edge.js"
	if o.Client {
		program = "clientedge.js"
	}
	e.Process = sparkplugProcess(t, program, e.control, map[string]any{
		"broker": o.Broker, "group": o.Group, "node": o.Node, "primaryHost": o.PrimaryHost, "oldState": o.OldState, "rolling": o.Rolling,
		"devices": o.Devices, "compress": o.Compress, "controlPort": e.port,
	})
	e.Start(t)
	return e
}

// State returns the truth.
func (e *Edge) State(t testing.TB) EdgeState {
	t.Helper()
	var s EdgeState
	e.Get(t, "/state", &s)
	return s
}

// HostApplication is a Sparkplug B host (not ours) that keeps what it reads.
type HostApplication struct {
	*Process
	control
}

// SparkplugHost starts a host application at a broker and stops it when the test ends.
func SparkplugHost(t testing.TB, broker string) *HostApplication {
	t.Helper()
	h := &HostApplication{control: control{name: "host application", port: FreePort(t)}}
	h.Process = sparkplugProcess(t, "host.js", h.control, map[string]any{"broker": broker, "controlPort": h.port})
	h.Start(t)
	Eventually(t, 20*time.Second, "connection of the host application", func() error {
		var s struct{ Connected bool }
		h.Get(t, "/", &s)
		if !s.Connected {
			return fmt.Errorf("not connected")
		}
		return nil
	})
	return h
}

func sparkplugProcess(t testing.TB, program string, c control, options map[string]any) *Process {
	t.Helper()
	node := Need(t, "node", "nodejs")
	home := filepath.Join(Root(), "buildscripts", "sparkplug")
	if _, err := os.Stat(filepath.Join(home, "node_modules", "sparkplug-payload", "package.json")); err != nil {
		t.Fatalf("sparkplug-payload is missing: run `make setup`, or `npm ci --prefix buildscripts/sparkplug --no-audit --no-fund`: %v", err)
	}
	text, err := json.Marshal(options)
	if err != nil {
		t.Fatalf("encode the options of %s: %v", program, err)
	}
	return &Process{
		Name:    program,
		Command: func() *exec.Cmd { return exec.Command(node, filepath.Join(home, program), string(text)) },
		Ready:   func() error { return c.call(http.MethodGet, "/", nil, nil) },
	}
}

// control is the loopback HTTP port by which a test steers a part.
type control struct {
	name string
	port int
}

// Get asks the part and decodes the answer.
func (c control) Get(t testing.TB, path string, into any) {
	t.Helper()
	if err := c.call(http.MethodGet, path, nil, into); err != nil {
		t.Fatal(err)
	}
}

// Post tells the part to do something; its program lists what it can do. body becomes JSON.
func (c control) Post(t testing.TB, path string, body map[string]any) {
	t.Helper()
	if err := c.call(http.MethodPost, path, body, nil); err != nil {
		t.Fatal(err)
	}
}

// Try is Post for what may go wrong, and for goroutines other than the test's own.
func (c control) Try(path string, body map[string]any) error {
	return c.call(http.MethodPost, path, body, nil)
}

func (c control) call(method, path string, body map[string]any, into any) error {
	b := []byte(nil)
	if body != nil {
		var err error
		if b, err = json.Marshal(body); err != nil {
			return fmt.Errorf("encode %s: %w", path, err)
		}
	}
	req, err := http.NewRequest(method, fmt.Sprintf("http://127.0.0.1:%d%s", c.port, path), bytes.NewReader(b))
	if err != nil {
		return err
	}
	res, err := plantClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s %s: %s", c.name, method, path, answer)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer, into)
}
