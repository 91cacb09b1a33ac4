package opcua

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

// counters is how many counters the plant of the loss proofs has; they tick 40 times in a second.
const (
	counters = 20
	period   = 25
)

// TestAgainstNodeOPCUA holds what is tried on one plant, which counts all the while. Each part has an agent of its own.
func TestAgainstNodeOPCUA(t *testing.T) {
	t.Parallel()
	plant := realparts.NodeOPCUA(t, realparts.PlantOptions{Counters: counters, Machines: 1,
		Users: map[string]string{"operator": "secret", "token": issuedToken}})
	plant.Post(t, "/tick", map[string]any{"period": period})
	for _, part := range []struct {
		name string
		test func(*testing.T, *realparts.Plant)
	}{
		{"every policy and mode reads with a user name", testPolicies},
		{"every type arrives exactly", testTypes},
		{"structures are explained by their server", testStructures},
		{"a wrong password is said once and tried rarely", testWrongPassword},
		{"an X509 user is let in", testCertificateUser},
		{"an issued token lets in, and a new one is taken up by itself", testIssuedToken},
		{"thirty resets lose nothing", testResets},
		{"held and swallowed bytes lose nothing", testStall},
		{"sessions closed by the server lose nothing", testSessionsClosed},
		{"a subscription ended by the server is made anew and the gap is said", testSubscriptionEnded},
		{"a gap is filled from the server's history", testHistory},
		{"a source that is polled goes through faults", testPolling},
		{"a deadband in percent needs a range", testDeadband},
		{"a missing node stops no other and comes back", testMissingNode},
		{"a buffer that refuses and blocks loses nothing", testBuffer},
		{"a clean stop goes on where it was", testCleanStop},
		{"an agent killed at any moment loses and doubles nothing", testAgentKilled},
		{"a full queue in the server is said", testOverflow},
		{"a killed server is found again and the gap is said", testServerKilled},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(t, plant) })
	}
}

func testPolicies(t *testing.T, plant *realparts.Plant) {
	for _, policy := range []string{"Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"} {
		for _, mode := range []string{"Sign", "SignAndEncrypt"} {
			t.Run(policy+" "+mode, func(t *testing.T) {
				b := newBench(t)
				b.prepare(plant)
				config, tags := counterConfig(plant.Endpoint(), 5)
				b.start(b.driver(config+fmt.Sprintf("security_policy: %s\nsecurity_mode: %s\n", policy, mode), nil))
				b.awaitState(signal.StateOK)
				b.catchUp(plant, tags)
			})
		}
	}
}

func logins(t *testing.T, plant *realparts.Plant) (accepted, refused int) {
	t.Helper()
	var l struct{ Accepted, Refused int }
	plant.Get(t, "/logins", &l)
	return l.Accepted, l.Refused
}

func testWrongPassword(t *testing.T, plant *realparts.Plant) {
	b := newBench(t)
	b.prepare(plant)
	b.password("guess")
	_, before := logins(t, plant)
	config, tags := counterConfig(plant.Endpoint(), 1)
	began := time.Now()
	b.start(b.driver(config, func(p *pace) { p.login = time.Second }))
	realparts.Eventually(t, 20*time.Second, "three refused logins", func() error {
		if _, refused := logins(t, plant); refused-before < 3 {
			return fmt.Errorf("%d", refused-before)
		}
		return nil
	})
	if d := time.Since(began); d < 3*time.Second {
		t.Errorf("three logins within %s: the pause does not double", d)
	}
	p := b.problem("connection")
	if p == nil || p.Code != "login_refused" || !strings.Contains(p.Reason, "operator") {
		t.Errorf("problem is %+v", p)
	}
	b.password("secret")
	b.awaitState(signal.StateOK)
	b.catchUp(plant, tags)
	if p := b.problem("connection"); p != nil {
		t.Errorf("problem remains: %+v", p)
	}
	if b.tells("guess") || b.tells("secret") {
		t.Error("a password was shown")
	}
}

func testCertificateUser(t *testing.T, plant *realparts.Plant) {
	b := newBench(t)
	b.prepare(plant)
	user, err := createOwn(filepath.Join(b.dir, "user"), "urn:user:operator")
	if err != nil {
		t.Fatal(err)
	}
	plant.TrustUser(t, user.der)
	config, tags := counterConfig(plant.Endpoint(), 1)
	config = strings.Replace(config, "{name: operator, password_file: password.txt}",
		"{certificate: user/own/cert.der, key: user/own/key.pem}", 1)
	b.start(b.driver(config, func(p *pace) { p.login = time.Second }))
	b.awaitState(signal.StateOK)
	b.catchUp(plant, tags)
}

// issuedToken is longer than what one block of the server's key encrypts.
var issuedToken = "issued." + strings.Repeat("0123456789abcdef", 40)

func testIssuedToken(t *testing.T, plant *realparts.Plant) {
	for _, policy := range []string{"Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"} {
		t.Run(policy, func(t *testing.T) {
			b := newBench(t)
			b.prepare(plant)
			token := func(text string) {
				t.Helper()
				if err := os.WriteFile(filepath.Join(b.dir, "token.jwt"), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			token("issued.yesterday\n")
			config, tags := counterConfig(plant.Endpoint(), 1)
			config = strings.Replace(config, "{name: operator, password_file: password.txt}", "{token_file: token.jwt}\nsecurity_policy: "+policy, 1)
			b.start(b.driver(config, func(p *pace) { p.login = 24 * time.Hour }))
			realparts.Eventually(t, 20*time.Second, "the old token refused", func() error {
				if p := b.problem("connection"); p == nil || p.Code != "login_refused" || !strings.Contains(p.NextStep, "token.jwt") {
					return fmt.Errorf("problem is %+v", p)
				}
				return nil
			})
			token("  " + issuedToken + "\r\n")
			b.awaitState(signal.StateOK)
			b.catchUp(plant, tags)
			if b.tells("issued.") {
				t.Error("a token was shown")
			}
		})
	}
}

type plantSessions struct {
	Sessions      int
	Subscriptions []struct{ ID, LifetimeCount, KeepAliveCount, Items int }
}

func sessionsOf(t *testing.T, plant *realparts.Plant) (s plantSessions) {
	t.Helper()
	plant.Get(t, "/sessions", &s)
	return s
}

func testResets(t *testing.T, plant *realparts.Plant) {
	proxy := realparts.NewProxy(t, fmt.Sprintf("127.0.0.1:%d", plant.Port))
	b := newBench(t)
	b.prepare(plant)
	config, tags := counterConfig(plant.EndpointAt(proxy.Addr()), counters)
	b.start(b.driver(config, nil))
	b.awaitState(signal.StateOK)
	others := sessionsOf(t, plant).Sessions
	goroutines := runtime.NumGoroutine()
	const resets = 30
	for range resets {
		have := len(b.values("c0"))
		proxy.Cut()
		realparts.Eventually(t, 20*time.Second, "values after a reset", func() error {
			if n := len(b.values("c0")); n < have+5 {
				return fmt.Errorf("%d values, %d before the reset; state: %s", n, have, b.state())
			}
			return nil
		})
	}
	values := b.catchUp(plant, tags)
	t.Logf("%d resets: %d values, 0 lost; %d goroutines before, %d after", resets, values, goroutines, runtime.NumGoroutine())
	if n := runtime.NumGoroutine(); n > goroutines+25 {
		t.Errorf("%d goroutines after %d resets, %d before", n, resets, goroutines)
	}
	if n := sessionsOf(t, plant).Sessions; n > others {
		t.Errorf("%d sessions at the server, %d before the resets", n, others)
	}
	if p := b.problem("gap"); p != nil {
		t.Errorf("a gap was reported: %s", p.Reason)
	}
}

// awaitTicks lets the plant count on for this many ticks.
func awaitTicks(t *testing.T, plant *realparts.Plant, n int64) {
	t.Helper()
	goal := plant.Counts(t).Counters["Count.0"] + n
	realparts.Eventually(t, 60*time.Second, "the plant counts", func() error {
		if now := plant.Counts(t).Counters["Count.0"]; now < goal {
			return fmt.Errorf("%d of %d", now, goal)
		}
		return nil
	})
}

func testStall(t *testing.T, plant *realparts.Plant) {
	proxy := realparts.NewProxy(t, fmt.Sprintf("127.0.0.1:%d", plant.Port))
	b := newBench(t)
	b.prepare(plant)
	config, tags := counterConfig(plant.EndpointAt(proxy.Addr()), counters)
	b.start(b.driver(config, nil))
	b.awaitState(signal.StateOK)
	proxy.Stall()
	awaitTicks(t, plant, 5000/period)
	proxy.Resume()
	held := b.catchUp(plant, tags)
	proxy.Swallow(true)
	awaitTicks(t, plant, 3000/period)
	proxy.Swallow(false)
	swallowed := b.catchUp(plant, tags)
	t.Logf("5 s held: %d values; 3 s swallowed: %d values; 0 lost", held, swallowed)
	proxy.SetDelay(50 * time.Millisecond)
	b.catchUp(plant, tags)
	if p := b.problem("gap"); p != nil {
		t.Errorf("a gap was reported: %s", p.Reason)
	}
}

func testSessionsClosed(t *testing.T, plant *realparts.Plant) {
	b := newBench(t)
	b.prepare(plant)
	config, tags := counterConfig(plant.Endpoint(), counters)
	b.start(b.driver(config, nil))
	b.awaitState(signal.StateOK)
	for range 3 {
		plant.Post(t, "/close-sessions", nil)
		awaitTicks(t, plant, 10)
		b.catchUp(plant, tags)
	}
	if p := b.problem("gap"); p != nil {
		t.Errorf("a gap was reported: %s", p.Reason)
	}
}

func testSubscriptionEnded(t *testing.T, plant *realparts.Plant) {
	b := newBench(t)
	b.prepare(plant)
	config, tags := counterConfig(plant.Endpoint(), counters)
	b.start(b.driver(config, nil))
	b.awaitState(signal.StateOK)
	b.catchUp(plant, tags)
	plant.Post(t, "/end-subscriptions", nil)
	truth := plant.Counts(t).Counters["Count.0"]
	b.awaitCount("c0", truth)
	b.awaitProblem("gap", "gap")
	b.awaitState(signal.StateOK)
}

func (b *bench) awaitProblem(key, code string) {
	b.t.Helper()
	realparts.Eventually(b.t, 30*time.Second, "problem "+code, func() error {
		if p := b.problem(key); p == nil || p.Code != code {
			return fmt.Errorf("it is %+v; state: %s", p, b.state())
		}
		return nil
	})
}

func testMissingNode(t *testing.T, plant *realparts.Plant) {
	b := newBench(t)
	b.prepare(plant)
	config, tags := counterConfig(plant.Endpoint(), 5)
	config += `
  - {tag: absent, node: "ns=2;s=Press1.Absent"}
  - {tag: strange, node: "nsu=urn:nobody;s=Press1.Good"}
  - {tag: named, node: "nsu=urn:plant:machines;s=Press1.Good"}
`
	b.start(b.driver(config, func(p *pace) { p.item, p.itemMax = 500*time.Millisecond, time.Second }))
	b.awaitProblem("node:absent", "bad_node")
	b.awaitProblem("node:strange", "bad_node")
	plant.Post(t, "/count", map[string]any{"machine": "Press1", "good": 1})
	b.awaitCount("named", plant.Counts(t).Machines["Press1"].Good)
	b.catchUp(plant, tags)

	plant.Post(t, "/add", map[string]any{"node": "Press1.Absent"})
	b.awaitCount("absent", 0)
	if p := b.problem("node:absent"); p != nil {
		t.Errorf("problem remains: %+v", p)
	}

	plant.Post(t, "/remove", map[string]any{"node": "Press1.Absent"})
	b.awaitProblem("node:absent", "bad_node")
	plant.Post(t, "/close-sessions", nil)
	awaitTicks(t, plant, 10)
	b.catchUp(plant, tags)
	plant.Post(t, "/add", map[string]any{"node": "Press1.Absent"})
	plant.Post(t, "/change", map[string]any{"node": "Press1.Absent", "value": 7})
	b.awaitCount("absent", 7)
	if p := b.problem("node:absent"); p != nil {
		t.Errorf("problem remains: %+v", p)
	}
	plant.Post(t, "/remove", map[string]any{"node": "Press1.Absent"})
}

func testBuffer(t *testing.T, plant *realparts.Plant) {
	proxy := realparts.NewProxy(t, fmt.Sprintf("127.0.0.1:%d", plant.Port))
	b := newBench(t)
	b.prepare(plant)
	config, tags := counterConfig(plant.EndpointAt(proxy.Addr()), counters)
	b.start(b.driver(config, func(p *pace) { p.held = time.Second }))
	b.awaitState(signal.StateOK)
	b.mu.Lock()
	b.refuse = 5
	b.mu.Unlock()
	b.awaitState(signal.StateHeld)
	b.catchUp(plant, tags)

	gate := make(chan struct{})
	b.mu.Lock()
	b.gate = gate
	b.mu.Unlock()
	b.awaitState(signal.StateHeld)
	proxy.Cut() // the connection breaks while the buffer is full
	awaitTicks(t, plant, 2000/period)
	b.mu.Lock()
	b.gate = nil
	b.mu.Unlock()
	close(gate)
	b.awaitState(signal.StateOK)
	t.Logf("buffer refused 5 times and blocked: %d values, 0 lost", b.catchUp(plant, tags))
	if p := b.problem("gap"); p != nil {
		t.Errorf("a gap was reported: %s", p.Reason)
	}
}

func testCleanStop(t *testing.T, plant *realparts.Plant) {
	b := newBench(t)
	b.prepare(plant)
	config, tags := counterConfig(plant.Endpoint(), counters)
	before := sessionsOf(t, plant).Sessions
	for range 3 {
		b.start(b.driver(config, nil))
		awaitTicks(t, plant, 20)
		b.catchUp(plant, tags)
		b.stop()
		if n := sessionsOf(t, plant).Sessions; n > before {
			t.Errorf("%d sessions after the stop, %d before", n, before)
		}
		awaitTicks(t, plant, 20)
	}
	b.start(b.driver(config, nil))
	b.catchUp(plant, tags)
	if p := b.problem("gap"); p != nil {
		t.Errorf("a gap was reported: %s", p.Reason)
	}
}

func testOverflow(t *testing.T, plant *realparts.Plant) {
	b := newBench(t)
	b.prepare(plant)
	config, _ := counterConfig(plant.Endpoint(), 0)
	config += "  - {tag: small, node: \"ns=2;s=Count.0\", sampling: 0s, queue: 2}\n"
	b.start(b.driver(strings.Replace(config, "publishing_interval: 50ms", "publishing_interval: 500ms", 1), nil))
	b.awaitProblem("overflow", "overflow")
	realparts.Eventually(t, 20*time.Second, "a marked value", func() error {
		for _, s := range b.values("small") {
			if strings.Contains(s.Status, "overflow") {
				if s.Quality != signal.Good {
					t.Errorf("a good value with lost ones before it is %s", s.Quality)
				}
				return nil
			}
		}
		return errors.New("none")
	})
}

func testServerKilled(t *testing.T, plant *realparts.Plant) {
	b := newBench(t)
	b.prepare(plant)
	config, _ := counterConfig(plant.Endpoint(), counters)
	b.start(b.driver(config, nil))
	b.awaitState(signal.StateOK)
	plant.Kill(syscall.SIGKILL)
	b.awaitState(signal.StateFailed)
	if err := plant.Run(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	b.awaitState(signal.StateOK)
	t.Logf("state is ok %s after the server answers", time.Since(began).Round(time.Millisecond))
	awaitTicks(t, plant, 10)
	b.awaitCount("c0", plant.Counts(t).Counters["Count.0"])
	b.awaitProblem("gap", "gap")
	if p := b.problem("gap"); !strings.Contains(p.Reason, "restarted") {
		t.Errorf("the gap's reason is %q", p.Reason)
	}
}

func TestUnknownCertificatesAreRefusedOnBothSidesUntilTrusted(t *testing.T) {
	t.Parallel()
	plant := realparts.NodeOPCUA(t, realparts.PlantOptions{Counters: 1, TrustList: true})
	b := newBench(t)
	b.password("secret")
	config, _ := counterConfig(plant.Endpoint(), 1)
	b.start(b.driver(config, func(p *pace) { p.login = 500 * time.Millisecond }))
	b.awaitProblem("connection", "certificate_unknown")
	p := b.problem("connection")
	list, err := ListRejected(b.dir)
	if err != nil || len(list) != 1 {
		t.Fatalf("refused certificates: %v %v", list, err)
	}
	if p.Item != list[0].Fingerprint || !strings.Contains(p.NextStep, "plantagent trust press "+list[0].Fingerprint) {
		t.Errorf("problem is %+v", p)
	}
	if list[0].ApplicationURI != realparts.PlantURI || cmp.Diff([]string{"127.0.0.1"}, list[0].Hosts) != "" {
		t.Errorf("listed as %+v", list[0])
	}
	if _, err := os.Stat(filepath.Join(b.dir, "rejected", p.Item+".der")); err != nil {
		t.Error(err)
	}
	if err := Trust(b.dir, "00000000"); err == nil {
		t.Error("an unknown fingerprint is trusted")
	}
	if err := Trust(b.dir, strings.ToUpper(p.Item[:16])); err != nil {
		t.Fatal(err)
	}

	// Now it is the server that does not know the agent.
	b.awaitProblem("connection", "agent_not_trusted")
	accepted, refused := logins(t, plant)
	if accepted+refused != 0 {
		t.Errorf("%d logins reached the server before both sides trusted each other", accepted+refused)
	}
	if p := b.problem("connection"); !strings.Contains(p.NextStep, "cert.der") {
		t.Errorf("problem is %+v", p)
	}
	trustClient(t, plant, func() error {
		if s := b.state(); !strings.HasPrefix(s, string(signal.StateOK)) {
			return fmt.Errorf("it is %q", s)
		}
		return nil
	})
	b.awaitCount("c0", 0)
	if p := b.problem("connection"); p != nil {
		t.Errorf("problem remains: %+v", p)
	}
}

// trustClient lets the server trust the agent's certificate, until it has understood.
func trustClient(t *testing.T, plant *realparts.Plant, understood func() error) {
	t.Helper()
	realparts.Eventually(t, 40*time.Second, "the server trusts the agent", func() error {
		if err := plant.TrustRefused(); err != nil {
			return err
		}
		return understood()
	})
}

func testTypes(t *testing.T, plant *realparts.Plant) {
	b := newBench(t)
	b.prepare(plant)
	moment := time.Date(2024, 2, 29, 23, 59, 59, 123e6, time.UTC)
	tests := []struct {
		node, kind string
		value      any
		array      bool
		status     string
		want       any
		quality    signal.Quality
		says       string
	}{
		{"Type.Boolean", "Boolean", true, false, "", true, signal.Good, "Good"},
		{"Type.SByte", "SByte", -12, false, "", signal.Number("-12"), signal.Good, "Good"},
		{"Type.Byte", "Byte", 255, false, "", signal.Number("255"), signal.Good, "Good"},
		{"Type.Int16", "Int16", -32768, false, "", signal.Number("-32768"), signal.Good, "Good"},
		{"Type.UInt16", "UInt16", 65535, false, "", signal.Number("65535"), signal.Good, "Good"},
		{"Type.Int32", "Int32", -2147483648, false, "", signal.Number("-2147483648"), signal.Good, "Good"},
		{"Type.UInt32", "UInt32", 4294967295, false, "", signal.Number("4294967295"), signal.Good, "Good"},
		{"Type.Int64", "Int64", "-9223372036854775808", false, "", signal.Number("-9223372036854775808"), signal.Good, "Good"},
		{"Type.UInt64", "UInt64", "18446744073709551614", false, "", signal.Number("18446744073709551614"), signal.Good, "Good"},
		{"Type.Float", "Float", 0.1, false, "", signal.Number("0.1"), signal.Good, "Good"},
		{"Type.Double", "Double", 12345678.125, false, "", signal.Number("12345678.125"), signal.Good, "Good"},
		{"Type.Double", "Double", 1000000, false, "", signal.Number("1000000"), signal.Good, "Good"},
		{"Type.Double", "Double", "NaN", false, "", nil, signal.Bad, "NaN"},
		{"Type.Double", "Double", "-Infinity", false, "", nil, signal.Bad, "-Infinity"},
		{"Type.Double", "Double", 0, false, "BadSensorFailure", nil, signal.Bad, "BadSensorFailure"},
		{"Type.Double", "Double", 3, false, "UncertainLastUsableValue", signal.Number("3"), signal.Uncertain, "UncertainLastUsableValue"},
		{"Type.String", "String", "00000000000000012345", false, "", "00000000000000012345", signal.Good, "Good"},
		{"Type.String", "String", "Größe 5 µm", false, "", "Größe 5 µm", signal.Good, "Good"},
		{"Type.DateTime", "DateTime", moment, false, "", moment, signal.Good, "Good"},
		{"Type.Guid", "Guid", "72962B91-FA75-4AE6-8D28-B404DC7DAF63", false, "", "72962B91-FA75-4AE6-8D28-B404DC7DAF63", signal.Good, "Good"},
		{"Type.ByteString", "ByteString", []byte{0, 1, 254, 255}, false, "", []byte{0, 1, 254, 255}, signal.Good, "Good"},
		{"Type.LocalizedText", "LocalizedText", "läuft", false, "", "läuft", signal.Good, "Good"},
		{"Type.StatusCode", "StatusCode", "BadOutOfService", false, "", "BadOutOfService", signal.Good, "Good"},
		{"Array.Int32", "Int32", []int{1, -2, 3}, true, "", []any{signal.Number("1"), signal.Number("-2"), signal.Number("3")}, signal.Good, "Good"},
		{"Array.String", "String", []string{"a", ""}, true, "", []any{"a", ""}, signal.Good, "Good"},
		{"Array.Double", "Double", []any{0.5, "NaN"}, true, "", []any{signal.Number("0.5"), nil}, signal.Bad, "NaN"},
		{"Type.Int32", "Int32", nil, false, "", nil, signal.Good, "Good"},
		{"Type.Int32", "Int32", nil, false, "BadNoCommunication", nil, signal.Bad, "BadNoCommunication"},
	}
	nodes := map[string]bool{"Type.Recipe": true}
	config, _ := counterConfig(plant.Endpoint(), 0)
	config += "  - {tag: Type.Recipe, node: \"ns=2;s=Type.Recipe\", sampling: 0s}\n"
	for _, tt := range tests {
		if !nodes[tt.node] {
			nodes[tt.node] = true
			config += fmt.Sprintf("  - {tag: %s, node: \"ns=2;s=%s\", sampling: 0s}\n", tt.node, tt.node)
		}
	}
	b.start(b.driver(config, nil))
	b.awaitState(signal.StateOK)
	for tag := range nodes {
		realparts.Eventually(t, 20*time.Second, "first value of "+tag, func() error {
			if len(b.values(tag)) == 0 {
				return errors.New("none")
			}
			return nil
		})
	}
	for i, tt := range tests {
		sourceTime := moment.AddDate(0, 0, i)
		plant.Post(t, "/set", map[string]any{"node": tt.node, "type": tt.kind, "value": tt.value, "array": tt.array,
			"status": tt.status, "sourceTime": sourceTime})
		realparts.Eventually(t, 20*time.Second, fmt.Sprintf("%s %v", tt.node, tt.value), func() error {
			list := b.values(tt.node)
			last := list[len(list)-1]
			if !last.SourceTime.Equal(sourceTime) {
				return fmt.Errorf("the last one is %v from %s", last.Value, last.SourceTime)
			}
			return nil
		})
		list := b.values(tt.node)
		got := list[len(list)-1]
		if d := cmp.Diff(tt.want, got.Value); d != "" || got.Quality != tt.quality || got.Status != tt.says {
			t.Errorf("%s %v %s: %s %s %s", tt.node, tt.value, tt.status, got.Quality, got.Status, d)
		}
		if got.ReceivedTime.IsZero() {
			t.Errorf("%s: no received time", tt.node)
		}
	}

	// A structure of a type that only this server knows.
	want := map[string]any{"Name": "blue", "Speed": signal.Number("1.5")}
	got := b.values("Type.Recipe")[0]
	if d := cmp.Diff(any(want), got.Value); d != "" || got.Quality != signal.Good || got.Status != "Good" {
		t.Errorf("structure: %s %s %s", got.Quality, got.Status, d)
	}
}
