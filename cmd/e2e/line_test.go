package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/status"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

// bin holds the product's binaries, built once for all tests.
var bin string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "linekeeper-e2e")
	if err != nil {
		panic(err)
	}
	bin = dir
	cmd := exec.Command("go", "build", "-o", dir, "./cmd/plantagent", "./cmd/synchub")
	cmd.Dir = realparts.Root()
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the product: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// command runs one of the binaries to its end and returns what it printed.
func command(t testing.TB, program string, args ...string) (out string, code int) {
	t.Helper()
	cmd := exec.Command(filepath.Join(bin, program), args...)
	raw, err := cmd.CombinedOutput()
	if _, isExit := err.(*exec.ExitError); err != nil && !isExit {
		t.Fatalf("run %s %v: %v", program, args, err)
	}
	return string(raw), cmd.ProcessState.ExitCode()
}

func mustRun(t testing.TB, program string, args ...string) string {
	t.Helper()
	out, code := command(t, program, args...)
	if code != 0 {
		t.Fatalf("%s %v ended with %d:\n%s", program, args, code, out)
	}
	return out
}

// line is one plant agent and one hub, as processes.
type line struct {
	dir      string
	hub      *realparts.Process
	agent    *realparts.Process
	link     *realparts.Proxy // between agent and hub
	hubHTTP  string
	page     string
	agentCfg string
	hubCfg   string
}

// newLine writes certificates and configurations and starts nothing. sections returns what comes into the hub's and the
// agent's file: erps: and routes:, sources: and rules:. It may put files beside them.
func newLine(t testing.TB, sections func(dir string) (hub, agent string)) *line {
	t.Helper()
	l := &line{dir: t.TempDir()}
	erps, agent := sections(l.dir)
	grpc, http, page := realparts.FreePort(t), realparts.FreePort(t), realparts.FreePort(t)
	pki := filepath.Join(l.dir, "pki")
	mustRun(t, "synchub", "cert", "init", "--dir", pki, "--host", "127.0.0.1", "--host", "localhost")
	mustRun(t, "synchub", "cert", "agent", "--dir", pki, "--plant", "ulm", "--agent", "line1", "--out", filepath.Join(l.dir, "line1"))
	l.link = realparts.NewProxy(t, fmt.Sprintf("127.0.0.1:%d", grpc))
	l.hubHTTP = fmt.Sprintf("http://127.0.0.1:%d", http)
	l.page = fmt.Sprintf("http://127.0.0.1:%d", page)
	l.hubCfg = realparts.WriteFile(t, filepath.Join(l.dir, "hub.yaml"), fmt.Sprintf(`
listen: {grpc: "127.0.0.1:%d", http: "127.0.0.1:%d"}
tls: {cert_file: pki/hub.pem, key_file: pki/hub.key, agents_ca_file: pki/ca.pem}
data_dir: hub-data
plants:
  - {plant: ulm, time_zone: Europe/Berlin, agents: [line1]}
%s`, grpc, http, erps))
	l.agentCfg = realparts.WriteFile(t, filepath.Join(l.dir, "agent.yaml"), fmt.Sprintf(`
plant: ulm
agent: line1
time_zone: Europe/Berlin
data_dir: agent-data
listen: "127.0.0.1:%d"
buffer: {disk_reserve: none}
hub:
  address: "%s"
  server_name: 127.0.0.1
  ca_file: line1/ca.pem
  cert_file: line1/agent.pem
  key_file: line1/agent.key
%s`, page, l.link.Addr(), agent))
	l.hub = &realparts.Process{
		Name:    "hub",
		Command: func() *exec.Cmd { return exec.Command(filepath.Join(bin, "synchub"), "serve", "-c", l.hubCfg) },
		Ready:   func() error { return l.get(l.hubHTTP+"/readyz", nil) },
	}
	l.agent = &realparts.Process{
		Name:    "agent",
		Command: func() *exec.Cmd { return exec.Command(filepath.Join(bin, "plantagent"), "run", "-c", l.agentCfg) },
		Ready:   func() error { return l.get(l.page+"/healthz", nil) },
	}
	return l
}

// get reads JSON from a page or the hub.
func (l *line) get(url string, into any) error {
	c := http.Client{Timeout: 10 * time.Second}
	res, err := c.Get(url)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s: %s", url, res.Status, raw)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(raw, into)
}

// status reads the agent's page.
func (l *line) status() (s status.Snapshot, err error) {
	return s, l.get(l.page+"/api/v1/status", &s)
}

// api reads from the hub.
func (l *line) api(t testing.TB, path string, into any) {
	t.Helper()
	if err := l.get(l.hubHTTP+path, into); err != nil {
		t.Fatal(err)
	}
}

// restart kills a process without warning and starts it again.
func restart(t testing.TB, p interface {
	Kill(syscall.Signal)
	Run() error
}, sig syscall.Signal) {
	t.Helper()
	p.Kill(sig)
	if err := p.Run(); err != nil {
		t.Errorf("start again: %v", err)
	}
}

// trust lets the agent trust the OPC UA server that it refused, the way a plant engineer does.
func (l *line) trust(t testing.TB, source string) {
	t.Helper()
	var fingerprint string
	realparts.Eventually(t, time.Minute, "the unknown server certificate is listed on the page", func() error {
		s, err := l.status()
		if err != nil {
			return err
		}
		for _, src := range s.Sources {
			for _, p := range src.Problems {
				if _, after, ok := strings.Cut(p.NextStep, "plantagent trust "+source+" "); ok {
					fingerprint = strings.FieldsFunc(after, func(r rune) bool { return !strings.ContainsRune("0123456789abcdefABCDEF:", r) })[0]
					return nil
				}
			}
		}
		return fmt.Errorf("sources: %+v", s.Sources)
	})
	mustRun(t, "plantagent", "-c", l.agentCfg, "trust", source, fingerprint)
}

// sourcesOK waits until all sources work.
func (l *line) sourcesOK(t testing.TB) {
	t.Helper()
	realparts.Eventually(t, time.Minute, "all sources are ok", func() error {
		s, err := l.status()
		if err != nil {
			return err
		}
		for _, src := range s.Sources {
			if src.State != "ok" {
				return fmt.Errorf("source %s is %s: %s %+v", src.Name, src.State, src.Reason, src.Problems)
			}
		}
		if s.Uplink.State != "connected" {
			return fmt.Errorf("uplink: %+v", s.Uplink)
		}
		return nil
	})
}
