package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/cmd/demo/plant/uaserver"
)

// pressConfig reads one counter of a plant.
func pressConfig(t *testing.T, endpoint string) string {
	t.Helper()
	path := write(t, plain+fmt.Sprintf(`sources:
  - name: press1
    kind: opcua
    endpoint: %s
    user: {name: operator, password_file: password.txt}
    nodes:
      - {tag: good, node: "nsu=urn:plant:machines;s=Press1.Good"}
rules:
  - {name: good, rule: reading, source: press1, tag: good}
`, endpoint))
	writeFile(t, filepath.Join(filepath.Dir(path), "password.txt"), "secret\n")
	return path
}

type doctorSaid struct {
	OK    bool
	Parts []struct {
		Name, Kind string
		OK         bool
		Steps      []struct {
			Name, Detail, Result, Code, Reason string
			NextStep                           string `json:"next_step"`
		}
	}
}

// TestFromAnUnknownServerToAFirstLookAtItsNodes is what a plant engineer does with a server that has a list of trusted clients.
func TestFromAnUnknownServerToAFirstLookAtItsNodes(t *testing.T) {
	plant := realparts.NodeOPCUA(t, realparts.PlantOptions{Machines: 2, TrustList: true, Tree: 30})
	code, out, errOut := call("discover", "opcua", fmt.Sprintf("127.0.0.1:%d", plant.Port), "--name", "press1", "-c", "/nowhere.yaml")
	if code != 0 || !strings.Contains(out, "1. opc.tcp://127.0.0.1:") || !strings.Contains(out, "security_policy: Aes256_Sha256_RsaPss") || !strings.Contains(out, "   - name: press1\n     kind: opcua\n     endpoint: ") {
		t.Errorf("discover, code %d:\n%s%s", code, out, errOut)
	}
	path := pressConfig(t, plant.Endpoint())
	doctor := func(args ...string) (int, string) {
		t.Helper()
		code, out, errOut := call(append([]string{"doctor", "press1", "-c", path}, args...)...)
		if strings.Contains(out+errOut, "secret") {
			t.Error("a password was shown")
		}
		return code, out + errOut
	}
	code, out = doctor()
	_, print, found := strings.Cut(out, "plantagent trust press1 ")
	if code != 1 || !found || !strings.Contains(out, "FAIL  this agent trusts the server's certificate\n        this agent does not trust the server's certificate yet") {
		t.Fatalf("first look, code %d:\n%s", code, out)
	}
	if code, out, errOut := call("trust", "press1", strings.Fields(print)[0], "-c", path); code != 0 {
		t.Fatalf("trust: %s%s", out, errOut)
	}
	code, out = doctor()
	if code != 1 || !strings.Contains(out, "FAIL  the server opens a secure channel to this agent\n        the server refuses this agent's certificate") || !strings.Contains(out, filepath.Join("press1", "own", "cert.der")) {
		t.Fatalf("second look, code %d:\n%s", code, out)
	}
	// What the doctor names can be carried to the server; here it is there already, among the refused ones.
	code, own, errOut := call("trust", "press1", "--own", "-c", path)
	if code != 0 || !strings.Contains(own, "-----BEGIN CERTIFICATE-----") || !strings.Contains(own, "urn:linekeeper:ulm:line1") {
		t.Fatalf("own certificate: code %d, %s%s", code, own, errOut)
	}
	realparts.Eventually(t, 30*time.Second, "the doctor is content", func() error {
		if err := plant.TrustRefused(); err != nil {
			return err
		}
		if code, out = doctor(); code != 0 {
			return errors.New(out)
		}
		return nil
	})
	if !strings.Contains(out, `ok    tag "good" can be read: 0, UInt32`) {
		t.Errorf("third look:\n%s", out)
	}
	lookAround(t, path)
}

func lookAround(t *testing.T, path string) {
	t.Helper()
	code, out, errOut := call("browse", "press1", "Plant/**/Good", "-c", path)
	if code != 0 || !strings.Contains(out, "Plant/Press1/Good  Variable  UInt32  0      nsu=urn:plant:machines;s=Press1.Good") || strings.Count(out, "/Good") != 2 {
		t.Errorf("a pattern, code %d:\n%s%s", code, out, errOut)
	}
	code, out, errOut = call("browse", "press1", "Plant/Press2", "--tags", "-c", path)
	if code != 0 || !strings.Contains(out, "  - tag: press2.good\n    node: nsu=urn:plant:machines;s=Press2.Good\n") {
		t.Errorf("tags, code %d:\n%s%s", code, out, errOut)
	}
	var names []string
	page := ""
	for range 20 {
		args := []string{"browse", "press1", "Plant/Tree", "--json", "--limit", "7", "-c", path}
		if page != "" {
			args = append(args, "--page", page)
		}
		code, out, errOut := call(args...)
		var l struct {
			Entries []struct{ Name, Value, Unit string }
			Next    string
		}
		if err := json.Unmarshal([]byte(out), &l); err != nil || code != 0 || len(l.Entries) > 7 {
			t.Fatalf("page %q, code %d: %v\n%s%s", page, code, err, out, errOut)
		}
		for _, e := range l.Entries {
			names = append(names, e.Name)
		}
		if page = l.Next; page == "" {
			break
		}
	}
	if len(names) != 32 { // 30 leaves, a temperature, and the way back
		t.Errorf("%d entries: %v", len(names), names)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"browse", "press9"}, `there is no source "press9": there are press1`},
		{[]string{"browse", "press1", "Plant/Nowhere"}, "Nowhere"},
		{[]string{"doctor", "press9"}, "there is no source"},
		{[]string{"discover", "plc", "10.0.0.1"}, "these can: opcua"},
	} {
		if code, out, errOut := call(append(c.args, "-c", path)...); code != 1 || !strings.Contains(errOut, c.want) {
			t.Errorf("%v: code %d, %s%s", c.args, code, out, errOut)
		}
	}
}

func TestTheDoctorLooksAtEverything(t *testing.T) {
	path := pressConfig(t, fmt.Sprintf("opc.tcp://127.0.0.1:%d", realparts.FreePort(t)))
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, string(raw)+fmt.Sprintf("hub: {address: \"127.0.0.1:%d\", ca_file: ca.pem, cert_file: agent.pem, key_file: agent.key}\n", realparts.FreePort(t)))
	code, out, _ := call("doctor", "-c", path, "--json")
	var said doctorSaid
	if err := json.Unmarshal([]byte(out), &said); err != nil || code != 1 || said.OK {
		t.Fatalf("code %d, %v:\n%s", code, err, out)
	}
	codes := map[string]bool{}
	var names []string
	for _, p := range said.Parts {
		names = append(names, p.Name)
		for _, s := range p.Steps {
			if s.Result != "ok" && (s.Reason == "" || s.NextStep == "" || s.Code == "") {
				t.Errorf("%s: a step without reason, code or next step: %+v", p.Name, s)
			}
			codes[s.Code] = true
		}
	}
	if got := strings.Join(names, " "); got != "configuration computer press1 hub" {
		t.Errorf("parts are %s", got)
	}
	for _, want := range []string{"not_running", "port_closed", "own_files"} {
		if !codes[want] {
			t.Errorf("no word on %s:\n%s", want, out)
		}
	}
	// A wrong configuration is no reason not to look at the rest.
	writeFile(t, path, strings.Replace(string(raw), "plant: ulm", "plant: ulm/1", 1))
	if code, out, _ := call("doctor", "-c", path); code != 1 || !strings.Contains(out, "FAIL  the configuration is valid") || !strings.Contains(out, "nothing listens at its port") {
		t.Errorf("code %d:\n%s", code, out)
	}
}

func TestWhatHasNoFaultIsNoReasonForTheDoctorToComplain(t *testing.T) {
	path := write(t, plain)
	if code, out, errOut := call("doctor", "-c", path); code != 0 || !strings.Contains(out, "warn  there is a hub") || !strings.Contains(out, "ok    the disk has room") {
		t.Errorf("code %d:\n%s%s", code, out, errOut)
	}
	// A clock that went back, as after a dead battery.
	later := time.Now().AddDate(0, 0, 2)
	if err := os.Chtimes(path, later, later); err != nil {
		t.Fatal(err)
	}
	if code, out, _ := call("doctor", "-c", path); code != 1 || !strings.Contains(out, "FAIL  the clock is right") {
		t.Errorf("code %d:\n%s", code, out)
	}
}

// TestASmallServerCanBeLookedAt has the demo's server, which knows few services: no limits, no further pages, no paths.
func TestASmallServerCanBeLookedAt(t *testing.T) {
	s, err := uaserver.Start(t.Context(), uaserver.Config{Dir: t.TempDir(), URI: "urn:demo", User: "operator", Password: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.AddTag("press1.Good", uint32(7))
	s.AddTag("press1.Order", "")
	path := write(t, plain+fmt.Sprintf(`sources:
  - name: press1
    kind: opcua
    endpoint: %s
    user: {name: operator, password_file: password.txt}
    nodes:
      - {tag: good, node: "nsu=urn:demo;s=press1.Good"}
      - {tag: by-path, path: "urn:demo/press1.Good"}
rules:
  - {name: good, rule: reading, source: press1, tag: good}
`, s.Endpoint()))
	writeFile(t, filepath.Join(filepath.Dir(path), "password.txt"), "secret\n")
	_, out, _ := call("doctor", "press1", "-c", path)
	_, print, _ := strings.Cut(out, "plantagent trust press1 ")
	if code, out, errOut := call("trust", "press1", strings.Fields(print)[0], "-c", path); code != 0 {
		t.Fatalf("trust: %s%s", out, errOut)
	}
	code, out, _ := call("doctor", "press1", "-c", path)
	if code != 0 || !strings.Contains(out, `ok    tag "good" can be read: 7`) {
		t.Errorf("code %d:\n%s", code, out)
	}
	code, out, errOut := call("browse", "press1", "**", "-c", path)
	if code != 0 || !strings.Contains(out, "nsu=urn:demo;s=press1.Good") {
		t.Errorf("code %d:\n%s%s", code, out, errOut)
	}
	code, out, errOut = call("discover", "opcua", strings.TrimPrefix(s.Endpoint(), "opc.tcp://"), "-c", path)
	if code != 0 || !strings.Contains(out, "security_policy: Basic256Sha256") {
		t.Errorf("code %d:\n%s%s", code, out, errOut)
	}
}
