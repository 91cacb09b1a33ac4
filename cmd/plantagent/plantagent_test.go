package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"text/template"
	"time"

	"go.uber.org/goleak"

	"github.com/linekeeper/linekeeper/agent/status"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "salvage-segment" {
		main() // the process that an agent of a test starts for a damaged file
	}
	goleak.VerifyTestMain(m)
}

// call runs the command and returns its exit code and what it wrote.
func call(args ...string) (code int, out, errOut string) {
	var o, e bytes.Buffer
	code = run(args, &o, &e)
	return code, o.String(), e.String()
}

const plain = `plant: ulm
agent: line1
listen: 127.0.0.1:0
buffer: {disk_reserve: none}
`

func writeFile(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func write(t *testing.T, text string) (path string) {
	t.Helper()
	return writeFile(t, filepath.Join(t.TempDir(), "agent.yaml"), text)
}

func TestHelpOfEveryCommandHasAnExample(t *testing.T) {
	code, out, _ := call("--help")
	if code != 0 || !strings.Contains(out, "Example: plantagent ") {
		t.Errorf("code %d:\n%s", code, out)
	}
	for _, name := range []string{"run", "check", "status", "doctor", "discover", "browse", "trust", "sample", "install", "start", "stop", "uninstall", "service", "version"} {
		code, out, _ := call(name, "--help")
		if code != 0 || !strings.Contains(out, "Example:\n\n    plantagent "+name) {
			t.Errorf("help of %s, code %d:\n%s", name, code, out)
		}
	}
}

func TestWrongUsageHasItsOwnCode(t *testing.T) {
	for _, args := range [][]string{{}, {"nonsense"}, {"check", "--nonsense"}, {"check", "more"}, {"status", "--addr"}} {
		if code, _, errOut := call(args...); code != exitUsage || !strings.Contains(errOut, "--help") {
			t.Errorf("%q: code %d, %q", args, code, errOut)
		}
	}
}

func TestVersionNamesProgramAndMachine(t *testing.T) {
	code, out, _ := call("version")
	if want := fmt.Sprintf("plantagent dev (%s, %s/%s)\n", runtime.Version(), runtime.GOOS, runtime.GOARCH); code != 0 || out != want {
		t.Errorf("code %d, %q, want %q", code, out, want)
	}
	var v map[string]string
	if _, out, _ := call("version", "--json"); json.Unmarshal([]byte(out), &v) != nil || v["version"] != "dev" || v["go"] == "" || v["os"] != runtime.GOOS || v["arch"] != runtime.GOARCH {
		t.Errorf("JSON is %q", out)
	}
}

func TestBuildSetsTheVersion(t *testing.T) {
	make, err := os.ReadFile(filepath.Join("..", "..", "Makefile"))
	if err != nil || !strings.Contains(string(make), "-X main.version=$(VERSION)") {
		t.Errorf("the Makefile does not (%v)", err)
	}
}

func TestSampleIsValid(t *testing.T) {
	code, sample, _ := call("sample")
	if code != 0 {
		t.Fatalf("code %d", code)
	}
	path := write(t, sample)
	dir := filepath.Dir(path)
	code, out, errOut := call("check", "-c", path)
	if code != 0 || !strings.Contains(out, fmt.Sprintf("is valid: plant ulm, agent line1, %d sources, 19 rules", len(drivers()))) {
		t.Errorf("code %d, %q, %q", code, out, errOut)
	}
	for _, key := range []string{"ca_file", "cert_file", "key_file"} {
		if !strings.Contains(errOut, "warning: hub."+key) {
			t.Errorf("no word on the missing %s: %q", key, errOut)
		}
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("the check made files: %v", files)
	}
	for _, name := range []string{"ca.pem", "agent.pem", "agent.key"} {
		writeFile(t, filepath.Join(dir, name), "x")
	}
	if _, _, errOut := call("check", "-c", path); errOut != "" {
		t.Errorf("with all files: %q", errOut)
	}
}

func TestCheckTellsEveryFaultWithItsLine(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"unknown keys", "plant: ulm\nagent: a\nlissten: x\nbuffer:\n  segmentsize: 1MiB\n", []string{
			`FILE:3: unknown key "lissten" (did you mean "listen"?)`, `FILE:5: unknown key "segmentsize" (did you mean "segment_size"?)`}},
		{"a size", "plant: ulm\nagent: a\nbuffer:\n  business_limit: lots\n", []string{`FILE:4: `, `size "lots" is not a number of bytes`}},
		{"everything else", `plant: ulm
listen: nowhere
rules:
  - {name: r1, rule: reading, source: bus, tag: x}
  - name: r2
    rule: counter
    source: buss
    tag: x
    counts: yield
sources:
  - name: bus
    kind: mqtt
    broker: tcp://127.0.0.1:1
    topixx: []
  - name: plc
    kind: opc
`, []string{
			`FILE: agent: it is missing (write for example agent: ulm)`, `FILE:2: listen: address "nowhere" is not valid`, `FILE:5: rules: rule "r2": unit `,
			`FILE:7: rules: rule "r2": source "buss" is not a source`, `FILE:14: source "bus": unknown key "topixx" (did you mean "topics"?)`,
			`FILE:15: source "plc": kind "opc" is not known (use one of opcua, mqtt, mes, `, "6 faults\n"}},
		{"empty", "", []string{"FILE: the file is empty"}},
		{"not YAML", "plant: [\n", []string{"FILE:"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := write(t, c.text)
			code, _, errOut := call("check", "-c", path)
			if code != exitConfig {
				t.Errorf("code %d", code)
			}
			for _, want := range c.want {
				if want = strings.ReplaceAll(want, "FILE", path); !strings.Contains(errOut, want) {
					t.Errorf("%q is missing in\n%s", want, errOut)
				}
			}
			// The others refuse it as well, before they do anything.
			for _, args := range [][]string{{"run"}, {"install"}} {
				if code, _, errOut := call(append(args, "-c", path)...); code != exitConfig || !strings.Contains(errOut, strings.ReplaceAll(c.want[0], "FILE", path)) {
					t.Errorf("%v: code %d, %s", args, code, errOut)
				}
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), "data")); err == nil {
				t.Error("a data folder was made")
			}
		})
	}
}

func TestMissingConfigurationSaysWhereToStart(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.yaml")
	for _, name := range []string{"run", "check", "status", "trust", "install"} {
		if code, _, errOut := call(name, "-c", missing); code != exitConfig || !strings.Contains(errOut, missing) || !strings.Contains(errOut, "plantagent sample") {
			t.Errorf("%s: code %d, %q", name, code, errOut)
		}
	}
}

// runAgent runs the agent as the command does, until the test ends, and returns its page's address.
func runAgent(t *testing.T, path string) (addr string, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out := &firstLine{line: make(chan string, 1)}
	done := make(chan error, 1)
	e := &env{cli: &cli{Config: path}, out: out, err: &bytes.Buffer{}}
	go func() { done <- e.work(ctx) }()
	once := sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { once() })
	select {
	case line := <-out.line:
		return strings.TrimSpace(strings.TrimPrefix(line, "operator's page: http://")), once
	case err := <-done:
		done <- err
		t.Fatalf("the agent ended: %v", err)
	}
	return "", nil
}

type firstLine struct {
	once sync.Once
	line chan string
}

func (f *firstLine) Write(b []byte) (int, error) {
	f.once.Do(func() { f.line <- string(b) })
	return len(b), nil
}

func TestStatusOfARealAgent(t *testing.T) {
	path := write(t, plain)
	addr, stop := runAgent(t, path)
	code, out, errOut := call("status", "--addr", addr)
	if code != 2 || !strings.Contains(out, "ulm/line1  OFFLINE since ") || !strings.Contains(out, "next step: set hub.address") {
		t.Errorf("code %d\n%s%s", code, out, errOut)
	}
	var snap status.Snapshot
	if code, out, _ := call("status", "--json", "--addr", addr); code != 2 || json.Unmarshal([]byte(out), &snap) != nil || snap.Plant != "ulm" || snap.State != status.Offline {
		t.Errorf("code %d\n%s", code, out)
	}
	if code, _, errOut := call("run", "-c", path); code != exitFailed || !strings.Contains(errOut, "another plantagent runs on data folder") {
		t.Errorf("a second one: code %d, %s", code, errOut)
	}
	if code, _, errOut := call("status", "-c", path); code != exitNotRunning || !strings.Contains(errOut, "--addr") {
		t.Errorf("port 0 in the file: code %d, %s", code, errOut)
	}
	if err := stop(); err != nil {
		t.Errorf("the agent ended with %v", err)
	}
	if code, _, errOut := call("status", "--addr", addr); code != exitNotRunning || !strings.Contains(errOut, "nothing answers at "+addr) {
		t.Errorf("after its end: code %d, %s", code, errOut)
	}
}

func TestStatusCodesAreTheAgentsOwnWord(t *testing.T) {
	answer := ""
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if answer == "" {
			http.NotFound(w, nil)
		}
		fmt.Fprint(w, answer)
	}))
	defer srv.Close()
	addr := srv.Listener.Addr().String()
	for state, want := range map[string]int{"ok": 0, "degraded": 1, "offline": 2, "losing": 3} {
		snap, err := json.Marshal(status.Snapshot{
			Plant: "ulm", State: state, Reason: "because", NextStep: "do this",
			Sources: []status.Source{{Name: "press1", State: "failed", Reason: "no route", Problems: []status.Problem{{Item: "ns=2", Reason: "gone"}}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		answer = string(snap)
		code, out, _ := call("status", "--addr", addr)
		if code != want {
			t.Errorf("%s: code %d, want %d", state, code, want)
		}
		for _, part := range []string{strings.ToUpper(state), "because", "next step: do this", "press1", "no route", "ns=2: gone"} {
			if !strings.Contains(out, part) {
				t.Errorf("%q is missing in\n%s", part, out)
			}
		}
	}
	for _, other := range []string{"", "<html>", "{}"} {
		answer = other
		if code, _, errOut := call("status", "--addr", addr); code != exitNotRunning {
			t.Errorf("%q: code %d, %s", other, code, errOut)
		}
	}
}

func TestStatusFindsAnAgentThatListensEverywhere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	path := write(t, strings.Replace(plain, "127.0.0.1:0", `":`+port+`"`, 1)+"allowed_hosts: [plant-pc]\n")
	_, stop := runAgent(t, path)
	if code, _, errOut := call("status", "-c", path); code != 2 {
		t.Errorf("code %d, %s", code, errOut)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// refuse puts a certificate where the OPC UA driver leaves those that nobody trusts.
func refuse(t *testing.T, dir, name string) (fingerprint string) {
	t.Helper()
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now(), NotAfter: time.Date(2037, 5, 6, 12, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	fingerprint = hex.EncodeToString(sum[:])
	folder := filepath.Join(dir, "rejected")
	if err := errors.Join(os.MkdirAll(folder, 0o755), os.WriteFile(filepath.Join(folder, fingerprint+".der"), der, 0o600)); err != nil {
		t.Fatal(err)
	}
	return fingerprint
}

func TestRefusedCertificatesAreListedAndTrusted(t *testing.T) {
	path := write(t, plain+`sources:
  - {name: press1, kind: opcua, endpoint: "opc.tcp://127.0.0.1:1", nodes: [{tag: good, node: "ns=2;s=x"}]}
  - {name: press2, kind: opcua, endpoint: "opc.tcp://127.0.0.1:1", nodes: [{tag: good, node: "ns=2;s=x"}]}
  - {name: bus, kind: mqtt, broker: "tcp://127.0.0.1:1", topics: [{tag: x, topic: x}]}
`)
	if code, out, _ := call("trust", "-c", path); code != 0 || out != "no certificate waits for a decision\n" {
		t.Errorf("without any: code %d, %q", code, out)
	}
	dir := filepath.Join(filepath.Dir(path), "data", "sources")
	one, two := refuse(t, filepath.Join(dir, "press1"), "press one"), refuse(t, filepath.Join(dir, "press2"), "press two")
	code, out, errOut := call("trust", "-c", path)
	if code != 0 || strings.Contains(out, "{") {
		t.Fatalf("code %d, %s%s", code, out, errOut)
	}
	lines := strings.Split(out, "\n")
	if len(lines) < 4 {
		t.Fatalf("the table is\n%s", out)
	}
	for i, want := range [][]string{
		{"SOURCE", "FIRST SEEN", "VALID UNTIL", "SUBJECT", "FINGERPRINT"},
		{"press1 ", time.Now().Format("2006-01"), "2037-05-06", "press one", one}, {"press2 ", "2037-05-06", "press two", two},
	} {
		for _, part := range want {
			if !strings.Contains(lines[i], part) {
				t.Errorf("line %d lacks %q:\n%s", i+1, part, out)
			}
		}
	}
	var list []refused
	if _, out, _ := call("trust", "press2", "--json", "-c", path); json.Unmarshal([]byte(out), &list) != nil || len(list) != 1 ||
		list[0].Source != "press2" || len(list[0].Rejected) != 1 || list[0].Rejected[0].Fingerprint != two || list[0].Rejected[0].Seen.IsZero() {
		t.Errorf("JSON is %s", out)
	}
	for want, args := range map[string][]string{
		"no OPC UA source \"bus\"": {"bus"}, "too short": {"press1", one[:4]}, "no refused certificate": {"press1", two[:12]},
	} {
		if code, _, errOut := call(append([]string{"trust", "-c", path}, args...)...); code != exitFailed || !strings.Contains(errOut, want) {
			t.Errorf("%v: code %d, %s", args, code, errOut)
		}
	}
	if code, out, errOut := call("trust", "press1", strings.ToUpper(one[:12]), "-c", path); code != 0 || !strings.Contains(out, "source press1 trusts") {
		t.Errorf("code %d, %s%s", code, out, errOut)
	}
	if _, out, _ := call("trust", "-c", path); strings.Contains(out, one) || !strings.Contains(out, two) {
		t.Errorf("afterwards the list is\n%s", out)
	}
}

func TestUnitEscapesItsPaths(t *testing.T) {
	text := unitText(`/opt/line keeper/100%/plant"agent`, `/etc/a b/$x/50%h.yaml`, `/data/my "50%" plant`)
	for _, want := range []string{
		`ExecStart="/opt/line keeper/100%%/plant\"agent" service --config "/etc/a b/$$x/50%%h.yaml"` + "\n",
		`ReadWritePaths="-/data/my \"50%%\" plant"` + "\n", "Restart=always\n", "RestartPreventExitStatus=78\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if strings.Contains(text, "@") || strings.Contains(unitText("/a{{b", "/c", "/d"), `/a{{b`) {
		t.Error("a place was not filled in, or the library would take a path for its own words")
	}
}

// templated does what the library does with the text.
func templated(t *testing.T, text string) string {
	t.Helper()
	var b strings.Builder
	if err := template.Must(template.New("").Parse(text)).Execute(&b, nil); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// systemd itself reads the unit, with every awkward character in the paths.
func TestSystemdUnderstandsTheUnit(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("systemd is Linux's")
	}
	verify, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Fatal("systemd-analyze is missing: install the package systemd")
	}
	dir := filepath.Join(t.TempDir(), `50% of "a" $b plant`)
	// Of a program's name systemd takes less than of everything else.
	exe := filepath.Join(t.TempDir(), `50%h of $b plant {{x}}`, "plantagent")
	if err := os.MkdirAll(filepath.Dir(exe), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, exe, "#!/bin/sh\n")
	if err := os.Chmod(exe, 0o755); err != nil {
		t.Fatal(err)
	}
	check := func(text string) string {
		t.Helper()
		file := writeFile(t, filepath.Join(t.TempDir(), "plantagent.service"), text)
		out, _ := exec.Command(verify, "verify", "--man=no", "--recursive-errors=no", file).CombinedOutput()
		var own []string // what it says of other units of this machine is not ours
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, "plantagent.service") {
				own = append(own, line)
			}
		}
		return strings.Join(own, "")
	}
	for path, fit := range map[string]bool{exe: true, "/opt/a\"b/plantagent": false, "/opt/a'b/plantagent": false, `/opt/a\b/plantagent`: false} {
		if err := fitForUnit(path); (err == nil) != fit {
			t.Errorf("%s: %v", path, err)
		}
		if says := check(templated(t, unitText(path, "/c", "/d"))); (says == "" || strings.Contains(says, "is not executable")) != fit {
			t.Errorf("%s: systemd says %q", path, says)
		}
	}
	text := templated(t, unitText(exe, filepath.Join(dir, "a.yaml"), filepath.Join(dir, "data")))
	if out := check(text); out != "" {
		t.Errorf("systemd says:\n%s", out)
	}
	if out := check(strings.Replace(text, "50%%h of", "50%h of", 1)); out == "" {
		t.Error("systemd finds no fault in a path that is not escaped: this test cannot fail")
	}
}

func TestServiceCommandsSayWhyTheyCannotWork(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("about machines without systemd")
	}
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		t.Skip("this machine runs systemd: nothing may be installed on it by a test")
	}
	path := write(t, plain)
	for _, name := range []string{"install", "start", "stop", "uninstall"} {
		if code, _, errOut := call(name, "-c", path); code != exitFailed || !strings.Contains(errOut, "does not run systemd") || !strings.Contains(errOut, "plantagent run") {
			t.Errorf("%s: code %d, %s", name, code, errOut)
		}
	}
}
