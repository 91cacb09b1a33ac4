package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/agent/buffer"
	"github.com/linekeeper/linekeeper/agent/inbox"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/wire"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// island is a plant and a hub without a line between them: all goes by files.
type island struct {
	t          *testing.T
	dir        string
	agentYAML  string
	hubYAML    string
	counter    int
	generation string
}

func newIsland(t *testing.T) *island {
	t.Helper()
	i := &island{t: t, dir: t.TempDir()}
	pki := filepath.Join(i.dir, "pki")
	mustRun(t, "synchub", "cert", "init", "--dir", pki, "--host", "hub.example.com")
	for _, name := range []string{"line1", "line2"} {
		mustRun(t, "synchub", "cert", "agent", "--dir", pki, "--plant", "ulm", "--agent", name, "--out", filepath.Join(i.dir, name))
	}
	i.agentYAML, i.hubYAML = i.configure("line1"), filepath.Join(i.dir, "hub.yaml")
	i.save(i.hubYAML, fmt.Sprintf("tls: {cert_file: %[1]s/hub.pem, key_file: %[1]s/hub.key, agents_ca_file: %[1]s/ca.pem}\n"+
		"plants: [{plant: ulm, time_zone: UTC, agents: [line1, line2]}]\nerps: []\nroutes: []\n", pki))
	return i
}

// configure writes the configuration of an agent with a data folder of its own.
func (i *island) configure(name string) string {
	folder := filepath.Join(i.dir, name)
	path := filepath.Join(folder, "agent.yaml")
	i.save(path, fmt.Sprintf("plant: ulm\nagent: %s\nlisten: 127.0.0.1:0\nbuffer: {disk_reserve: none}\n"+
		"hub: {address: \"hub.example.com:9443\", ca_file: ca.pem, cert_file: agent.pem, key_file: agent.key}\n", name))
	return path
}

func (i *island) save(path, text string) {
	i.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		i.t.Fatal(err)
	}
}

// open opens the agent's buffer, as the agent does.
func (i *island) open() *buffer.Buffer {
	i.t.Helper()
	b, err := buffer.Open(buffer.Config{Dir: filepath.Join(i.dir, "line1", "data", "business"), DiskReserve: -1})
	if err != nil {
		i.t.Fatal(err)
	}
	return b
}

// collect stores facts as the agent does.
func (i *island) collect(n int) {
	i.t.Helper()
	b := i.open()
	for range n {
		i.counter++
		position := factkey.Position("test", fmt.Sprint(i.counter))
		at := time.Date(2026, 1, 10, 12, 0, i.counter, 0, time.UTC)
		body, err := wire.EncodeFact(object.Fact{
			Key: factkey.Of(position), Kind: object.KindConfirmation, Plant: "ulm", Source: "press", TimeZone: "UTC", Position: position, OccurredAt: at, RecordedAt: at,
			Confirmation: &object.Confirmation{OrderNo: "1000", Operation: "0010", Item: "BRACKET-10", Unit: "C62", Yield: decimal.RequireFromString("3")},
		})
		if err != nil {
			i.t.Fatal(err)
		}
		if err := b.Commit(i.t.Context(), func(tx *buffer.Tx) error { tx.Append(body); return nil }); err != nil {
			i.t.Fatal(err)
		}
	}
	i.generation = b.Generation()
	if err := b.Close(); err != nil {
		i.t.Fatal(err)
	}
}

func (i *island) pending() uint64 {
	i.t.Helper()
	var in buffer.Inspection
	if err := json.Unmarshal([]byte(mustRun(i.t, "plantagent", "buffer", "inspect", "-c", i.agentYAML, "--json")), &in); err != nil {
		i.t.Fatal(err)
	}
	return in.Pending
}

func (i *island) file(name string) string { return filepath.Join(i.dir, name) }

func (i *island) export(name string, more ...string) string {
	i.t.Helper()
	return mustRun(i.t, "plantagent", append([]string{"buffer", "export", "-c", i.agentYAML, "--out", i.file(name)}, more...)...)
}

func (i *island) hubImport(args ...string) (out string, code int) {
	i.t.Helper()
	return command(i.t, "synchub", append([]string{"import", "-c", i.hubYAML}, args...)...)
}

// atHub is all that the hub holds: the keys of its facts and its open alarms.
func (i *island) atHub() (facts int, alarms string) {
	i.t.Helper()
	s, err := store.Open(i.t.Context(), filepath.Join(i.dir, "data", "hub.db"), store.Options{})
	if err != nil {
		i.t.Fatal(err)
	}
	defer s.Close()
	for n := 1; n <= i.counter; n++ {
		if _, err := s.FactByKey(i.t.Context(), factkey.Of(factkey.Position("test", fmt.Sprint(n))).String()); err == nil {
			facts++
		}
	}
	list, err := s.Alarms(i.t.Context(), false, store.Page{})
	if err != nil {
		i.t.Fatal(err)
	}
	for _, a := range list {
		alarms += a.Code + " "
	}
	return facts, alarms
}

func (i *island) wantAtHub(want int) {
	i.t.Helper()
	if facts, alarms := i.atHub(); facts != want || alarms != "" {
		i.t.Fatalf("the hub holds %d facts, want %d; alarms %q", facts, want, alarms)
	}
}

func refused(t *testing.T, out string, code int, says ...string) {
	t.Helper()
	if code == 0 {
		t.Errorf("it was taken: %s", out)
	}
	for _, s := range says {
		if !strings.Contains(out, s) {
			t.Errorf("%q is not in: %s", s, out)
		}
	}
}

func TestFactsTravelByHandAndComeOnce(t *testing.T) {
	i := newIsland(t)
	i.collect(10)
	i.export("1.bundle")
	i.collect(5)
	i.export("2.bundle") // all that is not acknowledged: 1 to 15
	i.collect(5)
	i.export("3.bundle", "--after", "15") // 16 to 20

	out, code := i.hubImport(i.file("3.bundle"))
	refused(t, out, code, "records before it are missing", "import the bundle before it first")
	i.wantAtHub(0)
	// Out of order, and twice.
	for _, name := range []string{"2.bundle", "1.bundle", "2.bundle"} {
		if out, code := i.hubImport(i.file(name)); code != 0 {
			t.Fatal(out)
		}
		i.wantAtHub(15)
	}
	if out, code := i.hubImport("--answer", i.file("all.answer"), i.file("3.bundle"), i.file("1.bundle"), i.file("2.bundle")); code != 0 {
		t.Fatal(out)
	}
	i.wantAtHub(20)

	if got := i.pending(); got != 20 {
		t.Errorf("%d wait at the agent before the answer came, want 20", got)
	}
	for range 2 {
		mustRun(t, "plantagent", "buffer", "import", "-c", i.agentYAML, i.file("all.answer"))
		if got := i.pending(); got != 0 {
			t.Errorf("%d wait at the agent after the answer, want none", got)
		}
	}
	// It goes on from there, and an old answer changes nothing.
	i.collect(3)
	i.export("4.bundle")
	out, code = i.hubImport("--json", "--answer", i.file("4.answer"), i.file("4.bundle"))
	if code != 0 || !strings.Contains(out, `"stored":3`) || !strings.Contains(out, `"number":4`) {
		t.Fatalf("code %d: %s", code, out)
	}
	i.wantAtHub(23)
	mustRun(t, "plantagent", "buffer", "import", "-c", i.agentYAML, i.file("all.answer"))
	if got := i.pending(); got != 3 {
		t.Errorf("%d wait after an old answer, want 3", got)
	}
	mustRun(t, "plantagent", "buffer", "import", "-c", i.agentYAML, i.file("4.answer"))
	if got := i.pending(); got != 0 {
		t.Errorf("%d wait, want none", got)
	}
	mustRun(t, "plantagent", "buffer", "verify", "-c", i.agentYAML)
}

func TestWorkOrdersComeWithTheAnswer(t *testing.T) {
	i := newIsland(t)
	i.collect(1)
	i.export("1.bundle")
	if out, code := i.hubImport(i.file("1.bundle")); code != 0 {
		t.Fatal(out)
	}
	s, err := store.Open(t.Context(), filepath.Join(i.dir, "data", "hub.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Update(t.Context(), func(tx *store.Tx) error {
		a, err := tx.AgentByName("ulm", "line1")
		if err != nil {
			return err
		}
		return tx.DeliverOrder(a.ID, object.WorkOrder{OrderNo: "1000", Revision: 1, Plant: "ulm", ERP: "erp", Item: "BRACKET-10", State: object.OrderReleased,
			Quantity: object.Quantity{Value: decimal.RequireFromString("50"), Unit: "C62"}})
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if out, code := i.hubImport("--answer", i.file("1.answer"), i.file("1.bundle")); code != 0 {
		t.Fatal(out)
	}
	for n, want := range []string{"1 work orders and receipts came", "0 work orders and receipts came"} {
		out := mustRun(t, "plantagent", "buffer", "import", "-c", i.agentYAML, i.file("1.answer"))
		if !strings.Contains(out, want) {
			t.Errorf("time %d: %s", n+1, out)
		}
	}
	in, err := inbox.Open(filepath.Join(i.dir, "line1", "data", "inbox.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if orders := in.Orders(); len(orders) != 1 || orders[0].OrderNo != "1000" {
		t.Errorf("work orders at the agent: %+v", orders)
	}
}

func TestBundlesThatAreNotWhatTheyShouldBeAreRefused(t *testing.T) {
	i := newIsland(t)
	i.collect(5)
	i.export("1.bundle")
	text, err := os.ReadFile(i.file("1.bundle"))
	if err != nil {
		t.Fatal(err)
	}
	i.save(i.file("cut.bundle"), string(text[:len(text)*2/3]))
	changed := append([]byte(nil), text...)
	changed[len(changed)/2] ^= 1
	i.save(i.file("changed.bundle"), string(changed))
	out, code := i.hubImport(i.file("cut.bundle"))
	refused(t, out, code, "broken", "copy it again", "nothing was imported")
	out, code = i.hubImport(i.file("1.bundle"), i.file("changed.bundle"))
	refused(t, out, code, "changed.bundle", "broken", "nothing was imported")
	out, code = i.hubImport(i.hubYAML)
	refused(t, out, code, "no bundle")

	// Of an agent that the hub does not know.
	i.save(i.hubYAML+".other", strings.Replace(read(t, i.hubYAML), "agents: [line1, line2]", "agents: [line2]", 1))
	out, code = command(t, "synchub", "import", "-c", i.hubYAML+".other", i.file("1.bundle"))
	refused(t, out, code, "ulm/line1", "not configured")

	// Signed by another agent, or by nobody.
	forged := i.file("line1/forged.yaml")
	i.save(forged, strings.NewReplacer("agent.pem", "../line2/agent.pem", "agent.key", "../line2/agent.key").Replace(read(t, i.agentYAML)))
	mustRun(t, "plantagent", "buffer", "export", "-c", forged, "--out", i.file("forged.bundle"))
	out, code = i.hubImport(i.file("forged.bundle"))
	refused(t, out, code, "signature", "ulm/line2")
	unsigned := i.file("line1/unsigned.yaml")
	i.save(unsigned, "plant: ulm\nagent: line1\nbuffer: {disk_reserve: none}\n")
	mustRun(t, "plantagent", "buffer", "export", "-c", unsigned, "--out", i.file("unsigned.bundle"))
	out, code = i.hubImport(i.file("unsigned.bundle"))
	refused(t, out, code, "not signed", "--accept-unsigned")
	i.wantAtHub(0)
	if out, code := i.hubImport("--accept-unsigned", "--answer", i.file("1.answer"), i.file("unsigned.bundle")); code != 0 {
		t.Fatal(out)
	}
	i.wantAtHub(5)

	// Answers.
	plant := func(config, file string, says ...string) {
		t.Helper()
		out, code := command(t, "plantagent", "buffer", "import", "-c", config, file)
		refused(t, out, code, says...)
	}
	plant(i.agentYAML, i.file("1.bundle"), "goes to the hub")
	plant(i.configure("line2"), i.file("1.answer"), "ulm/line1", "ulm/line2", "nothing was changed")
	answer := []byte(read(t, i.file("1.answer")))
	answer[len(answer)/3] ^= 1
	i.save(i.file("changed.answer"), string(answer))
	plant(i.agentYAML, i.file("changed.answer"), "nothing was changed")
	out, code = i.hubImport(i.file("1.answer"))
	refused(t, out, code, "goes to the plant")
	b := i.open()
	if err := b.NewGeneration(); err != nil {
		t.Fatal(err)
	}
	out, code = command(t, "plantagent", "buffer", "export", "-c", i.agentYAML, "--out", i.file("5.bundle"))
	refused(t, out, code, "the agent is running", "plantagent stop")
	out, code = command(t, "plantagent", "buffer", "verify", "-c", i.agentYAML)
	refused(t, out, code, "the agent is running", "plantagent stop")
	if out := mustRun(t, "plantagent", "buffer", "inspect", "-c", i.agentYAML); !strings.Contains(out, "the agent is running") || !strings.Contains(out, "5 wait for it") {
		t.Errorf("inspect says %s", out)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	plant(i.agentYAML, i.file("1.answer"), "generation", "nothing was changed")
	if got := i.pending(); got != 5 {
		t.Errorf("%d wait at the agent, want 5", got)
	}
	out, code = command(t, "plantagent", "buffer", "export", "-c", i.agentYAML, "--out", i.file("1.bundle"))
	refused(t, out, code, "there already")
	out, code = command(t, "plantagent", "buffer", "export", "-c", i.agentYAML, "--out", i.file("6.bundle"), "--after", "99")
	refused(t, out, code, "the last record is 5")
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
