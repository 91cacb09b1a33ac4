package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/agent"
	"github.com/linekeeper/linekeeper/agent/buffer"
	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/translate"
	"github.com/linekeeper/linekeeper/agent/uplink"
	"github.com/linekeeper/linekeeper/hub"
)

const hubAddress = "127.0.0.1:9443"

// world is everything of one seed.
type world struct {
	t       *testing.T
	seed    uint64
	rng     *rand.Rand // of the events; only the main goroutine draws from it
	dir     string
	certs   string
	net     *network
	erp     *erp
	hub     *hubMachine
	agents  []*agentMachine
	crashed chan *process
	totals  totals
	copies  atomic.Int64
	cutNo   atomic.Uint64
	started uint64
	stopAll context.CancelFunc
	working sync.WaitGroup

	logMu sync.Mutex
	log   []string
}

// totals are what a seed did.
type totals struct {
	Facts, Crashes, Cuts, Stalls, Restores, Clones, Moves, Reinstalls, Jumps, Gone, Conflicts, LostReplies, CannotTell, Missing, Doubled int
}

func (t *totals) add(o totals) {
	t.Facts, t.Crashes, t.Cuts, t.Stalls, t.Restores = t.Facts+o.Facts, t.Crashes+o.Crashes, t.Cuts+o.Cuts, t.Stalls+o.Stalls, t.Restores+o.Restores
	t.Clones, t.Moves, t.Reinstalls, t.Jumps = t.Clones+o.Clones, t.Moves+o.Moves, t.Reinstalls+o.Reinstalls, t.Jumps+o.Jumps
	t.Gone, t.Conflicts = t.Gone+o.Gone, t.Conflicts+o.Conflicts
	t.LostReplies, t.CannotTell, t.Missing, t.Doubled = t.LostReplies+o.LostReplies, t.CannotTell+o.CannotTell, t.Missing+o.Missing, t.Doubled+o.Doubled
}

func newWorld(t *testing.T, seed uint64, agents int) *world {
	rng := func(n uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, n)) }
	w := &world{t: t, seed: seed, rng: rng(1), dir: scratch(t), certs: certificates, net: newNetwork(rng(2)), erp: newERP(rng(3)), crashed: make(chan *process, 16)}
	ctx, cancel := context.WithCancel(context.Background())
	w.stopAll = cancel
	w.hub = &hubMachine{w: w, clock: &clock{}, dir: w.folder("hub")}
	for n := range agents {
		name := fmt.Sprintf("line%d", n+1)
		a := &agentMachine{w: w, name: name, clock: &clock{}, dir: w.folder(name), station: newStation(name, rng(10+uint64(n))), mourned: map[string]decimal.Decimal{}}
		for i, no := range a.station.orders() {
			w.erp.plan(no, fmt.Sprintf("FG-%d", i+1), name)
		}
		w.agents = append(w.agents, a)
		w.working.Go(func() { a.station.produce(ctx) })
	}
	return w
}

// scratch makes a folder on a disk in memory where there is one: real syncs would cost most of the time.
func scratch(t *testing.T) string {
	if st, err := os.Stat("/dev/shm"); err != nil || !st.IsDir() {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp("/dev/shm", "linekeeper-sim")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// folder names a new folder.
func (w *world) folder(of string) string {
	return filepath.Join(w.dir, fmt.Sprintf("%s-%d", of, w.copies.Add(1)))
}

func (w *world) logf(format string, args ...any) {
	w.logMu.Lock()
	defer w.logMu.Unlock()
	w.log = append(w.log, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

// logger keeps what a process says from warnings on, in the event log.
func (w *world) logger(who string) *slog.Logger {
	return slog.New(slog.NewTextHandler(&logTo{w, who}, &slog.HandlerOptions{Level: logLevel()}))
}

func logLevel() slog.Level {
	var l slog.Level
	if l.UnmarshalText([]byte(os.Getenv("SIM_LOG"))) != nil {
		l = slog.LevelWarn
	}
	return l
}

type logTo struct {
	w   *world
	who string
}

func (l *logTo) Write(b []byte) (int, error) {
	_, rest, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	l.w.logf("%s: %s", l.who, rest)
	return len(b), nil
}

// hubMachine is the computer that the hub runs on.
type hubMachine struct {
	w     *world
	clock *clock
	dir   string
	p     *process
	h     *hub.Hub
}

func (m *hubMachine) start() {
	p := m.w.newProcess("hub", m.dir, m.clock)
	vfs := ""
	if m.w.forgetful() {
		if err := p.forgetfulStore(m.w.nextRand()); err != nil {
			m.w.t.Fatal(err)
		}
		vfs = p.vfs.Name()
	}
	cfg := hub.Config{
		Path: filepath.Join(m.dir, "hub.yaml"), DataDir: m.dir, Listen: hub.ListenConfig{GRPC: hubAddress, HTTP: "127.0.0.1:8080"},
		TLS:  hub.TLSConfig{CertFile: filepath.Join(m.w.certs, "hub.pem"), KeyFile: filepath.Join(m.w.certs, "hub.key"), AgentsCAFile: filepath.Join(m.w.certs, "ca.pem")},
		ERPs: []hub.ERPConfig{{Name: "erp", Kind: "model", Decode: func(any) error { return nil }}},
	}
	plant := hub.PlantConfig{Plant: "ulm", TimeZone: "Europe/Berlin"}
	for _, a := range m.w.agents {
		plant.Agents = append(plant.Agents, a.name)
		cfg.Routes = append(cfg.Routes, hub.RouteConfig{WorkCenter: a.name, Plant: "ulm", Agent: a.name})
	}
	cfg.Plants = []hub.PlantConfig{plant}
	h, err := hub.New(context.Background(), cfg, hub.Options{
		Version: "sim", Logger: m.w.logger("hub"), Kinds: []hub.ConnectorKind{m.w.erp.kind(p)}, Now: m.clock.now, VFS: vfs,
		Listen: func(_, at string) (net.Listener, error) { return m.w.net.listen(p, at) },
	})
	if err != nil {
		m.w.t.Fatalf("start the hub: %v", err)
	}
	m.p, m.h = p, h
	p.run(h.Run)
}

// ask calls the hub's API in the process.
func (m *hubMachine) ask(method, path, body string, into any) error {
	if m.p == nil {
		return errors.New("the hub is down")
	}
	req := httptest.NewRequest(method, "http://127.0.0.1:8080"+path, strings.NewReader(body))
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	rec := httptest.NewRecorder()
	m.h.Handler().ServeHTTP(rec, req)
	if rec.Code != http.StatusOK {
		return fmt.Errorf("%s %s: %d %s", method, path, rec.Code, rec.Body)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(rec.Body.Bytes(), into)
}

// agentMachine is the computer that an agent runs on, with its station.
type agentMachine struct {
	w       *world
	name    string
	clock   *clock
	dir     string
	station *station
	p       *process
	a       *agent.Agent
	copies  []earlier
	clones  []*process

	wentBack  bool // its ledger does not know everything
	edited    bool // rows were changed after they had been told
	mustAlarm bool // the hub must have noticed that it went back
	// What the hub had of it, where the copy ended, and whether an alarm was due, when it was last restored.
	hubHad, copyEnd uint64
	mustBefore      bool
	again           retold
	mourned         map[string]decimal.Decimal // pieces by the keys of facts that may be gone with a disk
}

func (m *agentMachine) config(dir string, p *process) agent.Config {
	w := m.w
	no := func(any) error { return nil }
	c := agent.Config{
		Plant: "ulm", Agent: m.name, TimeZone: "Europe/Berlin", DataDir: dir, Listen: "127.0.0.1:8480", Path: filepath.Join(dir, "agent.yaml"),
		Buffer: agent.BufferConfig{DiskReserve: -1, SegmentSize: 128 << 10, BusinessLimit: 4 << 20},
		Hub: uplink.Config{
			Address: hubAddress, ServerName: "hub.test", Proxy: "direct", CAFile: filepath.Join(w.certs, "ca.pem"),
			CertFile: filepath.Join(w.certs, m.name+".pem"), KeyFile: filepath.Join(w.certs, m.name+".key"),
			BatchRecords: 16, Window: 4,
			Dial: func(ctx context.Context, _, to string) (net.Conn, error) { return w.net.dial(ctx, p, to) },
		},
	}
	plc, mes, broker := m.station.source("plc"), m.station.source("mes"), m.station.source("broker")
	for _, name := range []string{plc, mes, broker} {
		c.Sources = append(c.Sources, agent.SourceConfig{Name: name, Kind: "sim", Decode: no})
	}
	record := func(name, source, tag, fact string, id string, fields map[string]string) translate.Rule {
		fields["order_no"], fields["occurred_at"] = "payload.order", "payload.at"
		return translate.Rule{Name: name, Rule: "record", Source: source, Tag: tag, Fact: fact, ID: id, Fields: fields}
	}
	c.Rules = []translate.Rule{
		{Name: "press order", Rule: "state", Source: plc, Tag: "order", WorkCenter: "press"},
		{Name: "good", Rule: "counter", Source: plc, Tag: "good", Counts: "yield", WorkCenter: "press", Item: "FG-1", Unit: "C62", Close: translate.Close{Every: 5 * time.Second, Quantity: "20"}},
		{Name: "scrap", Rule: "counter", Source: plc, Tag: "scrap", Counts: "scrap", WorkCenter: "press", Item: "FG-1", Unit: "C62", Modulus: "65536", Close: translate.Close{Every: 5 * time.Second}},
		{Name: "strokes", Rule: "counter", Source: plc, Tag: "strokes", Counts: "consumed", WorkCenter: "press", Item: "RM-1", Unit: "KGM", Factor: "0.25", StartFromZero: true, Close: translate.Close{Every: 7 * time.Second}},
		{Name: "shots", Rule: "counter", Source: plc, Tag: "shots", Counts: "yield", WorkCenter: "press", Unit: "C62", Factor: "2", Modulus: "65536", Close: translate.Close{Every: 6 * time.Second},
			Outputs: []translate.Output{{Name: "a", Item: "FG-4", Share: 2}, {Name: "b", Item: "FG-5", Share: 1}}},
		{Name: "temperature", Rule: "reading", Source: plc, Tag: "temperature"},
		record("rows", mes, "rows", "production_confirmation", "", map[string]string{"item": "payload.item", "yield": "payload.qty", "unit": "'C62'"}),
		record("issues", mes, "issues", "material_consumption", "", map[string]string{"item": "payload.item", "quantity": "payload.qty", "unit": "'KGM'"}),
		record("states", mes, "states", "order_state", "", map[string]string{"state": "payload.state"}),
		record("packs", broker, "packs", "production_confirmation", "payload.id", map[string]string{"item": "payload.item", "yield": "payload.qty", "unit": "'C62'"}),
	}
	return c
}

func (m *agentMachine) start() {
	m.p, m.a = m.launch(m.dir, m.name)
	m.station.serve(m.p)
}

// launch starts an agent of this identity on a folder.
func (m *agentMachine) launch(dir, machine string) (*process, *agent.Agent) {
	p := m.w.newProcess(machine, dir, m.clock)
	var disk buffer.Disk = quick{}
	if m.w.forgetful() {
		if err := errors.Join(os.MkdirAll(dir, 0o700), p.forgetful(m.w.nextRand())); err != nil {
			m.w.t.Fatal(err)
		}
		disk = p.disk
	}
	a, err := agent.New(m.config(dir, p), agent.Options{
		Disk:    disk,
		Version: "sim", Logger: slog.New(listening{m.w.logger(machine).Handler(), &m.again}), Kinds: []signal.Kind{m.station.kind(p)}, Now: m.clock.now,
		Listen: func(_, at string) (net.Listener, error) {
			return m.w.net.listen(p, m.name+"/"+filepath.Base(dir)+"/"+at)
		},
	})
	if err != nil {
		m.w.t.Fatalf("start agent %s: %v", m.name, err)
	}
	p.run(a.Run)
	return p, a
}

// nextRand is the source of chance of the next process' disk.
func (w *world) nextRand() *rand.Rand {
	w.started++
	return rand.New(rand.NewPCG(w.seed, 100+w.started))
}

// quick is a disk whose syncs cost nothing: what is killed leaves all that it wrote.
type quick struct{}

func (quick) BeforeWrite(string, int64) error        { return nil }
func (quick) Sync(*os.File) error                    { return nil }
func (quick) SyncDir(string) error                   { return nil }
func (quick) Rename(from, to string) error           { return os.Rename(from, to) }
func (quick) Remove(path string) error               { return os.Remove(path) }
func (quick) Truncate(path string, size int64) error { return os.Truncate(path, size) }
func (quick) Free(string) (int64, error)             { return 1 << 50, nil }

// image copies a process' folder as it lies there now. All goroutines stand still.
func (w *world) image(p *process) string {
	synctest.Wait()
	if p.left != "" {
		return p.left
	}
	if p.frozen() && (p.disk != nil || p.vfs != nil) {
		p.leave()
		return p.left
	}
	to := w.folder(p.machine)
	if err := copyDir(p.dir, to); err != nil {
		w.t.Fatalf("copy the folder of %s: %v", p.machine, err)
	}
	return to
}

// cutPower writes what a power cut leaves of a process' forgetful disk.
func (w *world) cutPower(p *process) (to string, err error) {
	to = w.folder(p.machine)
	n := w.cutNo.Add(1)
	rng := rand.New(rand.NewPCG(w.seed, 1000+n))
	if p.vfs != nil {
		return to, p.vfs.Crash(rng, filepath.Join(p.dir, "hub.db"), to)
	}
	return to, p.disk.Crash(rng, to)
}

// forgetful says that this seed's disks forget what was not synced; it costs time.
func (w *world) forgetful() bool { return w.seed%4 == 1 }

// bury does what remains to be done about a process that died: its folder is what the crash left.
func (w *world) bury(p *process, silent bool) (left string) {
	p.freeze()
	left = w.image(p)
	w.totals.Crashes++
	p.end(silent)
	if err := os.RemoveAll(p.dir); err != nil {
		w.t.Fatal(err)
	}
	return left
}

var _ io.Writer = (*logTo)(nil)
