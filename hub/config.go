package hub

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/api"
	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/secret"
	"github.com/linekeeper/linekeeper/hub/lookout"
	"github.com/linekeeper/linekeeper/hub/notify"
	"github.com/linekeeper/linekeeper/hub/webhook"
)

// Config is the hub's one YAML file. A relative file name in it starts at the file's own folder.
type Config struct {
	Listen ListenConfig `yaml:"listen"`
	TLS    TLSConfig    `yaml:"tls"`
	// DataDir holds the store. Default: "data" beside the configuration file.
	DataDir  string         `yaml:"data_dir"`
	API      APIConfig      `yaml:"api"`
	Plants   []PlantConfig  `yaml:"plants"`
	Routes   []RouteConfig  `yaml:"routes"`
	Dispatch DispatchConfig `yaml:"dispatch"`
	Posting  PostingConfig  `yaml:"posting"`
	// Reconcile compares with what the ERPs hold.
	Reconcile ReconcileConfig `yaml:"reconcile"`
	// Alarms say when what is silent is an alarm.
	Alarms AlarmsConfig `yaml:"alarms"`
	// Notify tells people of what waits for them.
	Notify notify.Config `yaml:"notify"`
	// Business says which business objects are read and written.
	Business []BusinessConfig `yaml:"business"`
	Log      LogConfig        `yaml:"log"`

	// ERPs are decoded by the connectors that their kinds name.
	ERPs []ERPConfig `yaml:"-"`
	// Path is where the file was read from.
	Path string `yaml:"-"`
}

// ListenConfig says where the hub listens; port 0 takes a free one.
type ListenConfig struct {
	// GRPC is for agents. Default 0.0.0.0:9443.
	GRPC string `yaml:"grpc"`
	// HTTP is for the API and the console. Default 127.0.0.1:8080.
	HTTP string `yaml:"http"`
}

// TLSConfig names the hub's certificate and the authority of its agents; all are PEM files, made by `synchub cert`.
type TLSConfig struct {
	CertFile     string `yaml:"cert_file"`
	KeyFile      string `yaml:"key_file"`
	AgentsCAFile string `yaml:"agents_ca_file"`
	// HTTP makes the API speak TLS with the same certificate. Needed when it listens on more than this machine.
	HTTP bool `yaml:"http"`
}

// APIConfig says who may call.
type APIConfig struct {
	Tokens []api.Token `yaml:"tokens"`
	// WakeSecrets are for ERPs that can sign their events and cannot send a token.
	WakeSecrets []WakeSecret `yaml:"wake_secrets"`
}

// WakeSecret is what an ERP signs its events with.
type WakeSecret struct {
	ERP           string `yaml:"erp"`
	secret.Source `yaml:",inline"`
}

// PlantConfig is a plant and the agents that may connect for it.
type PlantConfig struct {
	Plant    string   `yaml:"plant"`
	TimeZone string   `yaml:"time_zone"`
	Agents   []string `yaml:"agents"`
}

// RouteConfig leads work orders to an agent; the first route that fits counts.
type RouteConfig struct {
	// ERP, Site and WorkCenter say which orders; an empty one fits all, and WorkCenter may end in "*".
	ERP        string `yaml:"erp"`
	Site       string `yaml:"site"`
	WorkCenter string `yaml:"work_center"`
	Plant      string `yaml:"plant"`
	Agent      string `yaml:"agent"`
}

// DispatchConfig tunes how work orders are fetched.
type DispatchConfig struct {
	// Every is the pause between two questions to an ERP. Default 5s.
	Every time.Duration `yaml:"every"`
}

// PostingConfig tunes the posting engine.
type PostingConfig struct {
	// Workers is how many calls one ERP is asked side by side, each about another order. Default 4.
	Workers int `yaml:"workers"`
	// Quiet is how long an order must have brought no new fact before it is closed in the ERP. Default 10s.
	Quiet time.Duration `yaml:"quiet"`
	// CloseAfter closes it all the same when the plant cannot say that nothing is left. Default 1h.
	CloseAfter time.Duration `yaml:"close_after"`
	// Policies say what is posted with which date, by whom, and how much of it.
	Policies []PolicyConfig `yaml:"policies"`
}

// ReconcileConfig tunes the comparison with what the ERPs hold, and what may be healed without a person.
type ReconcileConfig struct {
	// Every is how often orders are compared whose postings have settled. Without it nothing is compared by itself, also not at
	// night; a comparison can still be asked for.
	Every time.Duration `yaml:"every"`
	// Settle is how old a posting must be before it is compared. Default 2m.
	Settle time.Duration `yaml:"settle"`
	// Nightly is when everything is compared, as time since midnight UTC. Default 2h.
	Nightly time.Duration `yaml:"nightly"`
	// HealsPerOrder and HealsPerDay bound what changes the ERP's books without a person. Defaults 20 and 1000; -1 means none.
	HealsPerOrder int `yaml:"heals_per_order"`
	HealsPerDay   int `yaml:"heals_per_day"`
	// Prices are per unit of an item, as decimal text, in Currency: what the inbox says that an exception is worth, and what one heal
	// may move. An item without one is worth nothing to that limit, and the inbox says that it does not know.
	Prices   map[string]string `yaml:"prices"`
	Currency string            `yaml:"currency"`
	// Balances are the stocks that are compared with what the orders' documents have moved; none by default. BalancesEvery is how often.
	// Default 15m.
	Balances      []BalanceConfig `yaml:"balances"`
	BalancesEvery time.Duration   `yaml:"balances_every"`
	// WritesEvery is how often verified writes of business objects are read back, default 1h, and WritesWindow for how long after they
	// were verified, default 72h: longer than the oldest copy that the ERP may be put back to.
	WritesEvery  time.Duration `yaml:"writes_every"`
	WritesWindow time.Duration `yaml:"writes_window"`
}

// BalanceConfig is a stock that only work orders move: whatever else moves it shows as a drift. The words are the ERP's.
type BalanceConfig struct {
	ERP  string `yaml:"erp"`
	Item string `yaml:"item"`
	// Site, Storage and Lot choose a part of the stock; an empty one means all. Site is what work orders carry. What orders of a site move
	// counts for each of its storages: name a storage only where they all take from it. A lot needs documents that name lots.
	Site    string `yaml:"site"`
	Storage string `yaml:"storage"`
	Lot     string `yaml:"lot"`
	// Plant is whose discrepancies they are; it may be empty.
	Plant string `yaml:"plant"`
}

// AlarmsConfig says how long something must last before it is an alarm; 0 means never.
type AlarmsConfig struct {
	// AgentAway is for an agent that was not heard of. It is counted while the hub runs. Default 10m, at least 1m.
	AgentAway *time.Duration `yaml:"agent_away"`
	// AgentUnwell is for what an agent says of itself: a source that it does not reach, a clock that differs from the hub's, facts that
	// do not get through (twice as long); new data at risk after a minute at the latest. Default 5m.
	AgentUnwell *time.Duration `yaml:"agent_unwell"`
	// OrderWaits is for a released work order that no route leads to an agent or that cannot be said in its words, and for facts whose
	// order does not come. Default 15m.
	OrderWaits *time.Duration `yaml:"order_waits"`
}

func (a AlarmsConfig) limits() lookout.Limits {
	or := func(d *time.Duration, usual time.Duration) time.Duration {
		if d == nil {
			return usual
		}
		return *d
	}
	return lookout.Limits{AgentAway: or(a.AgentAway, 10*time.Minute), AgentUnwell: or(a.AgentUnwell, 5*time.Minute), OrderWaits: or(a.OrderWaits, 15*time.Minute)}
}

// LogConfig sets what is logged, to standard error.
type LogConfig struct {
	Level  string `yaml:"level"`  // debug, info (default), warn, error
	Format string `yaml:"format"` // text (default) or json
}

// ERPConfig is one outside system: its name, the kind of its connector, how often it is asked for changes, and the way to
// decode the rest.
type ERPConfig struct {
	Name   string
	Kind   string
	Line   int
	Decode func(into any) error
}

// ConnectorKind is a connector as the command's list names it.
type ConnectorKind struct {
	// Name is the value of "kind:" of an ERP's configuration, Sample its commented section.
	Name   string
	Sample string
	// New reads the section and returns the connector without touching the network. dir is the configuration's folder.
	New func(name, dir string, decode func(into any) error) (connector.Connector, error)
}

// Fault is one thing wrong with a configuration.
type Fault struct {
	Where string
	Line  int // 0 when it is not known
	Text  string
	Hint  string
}

func (f Fault) String() string {
	s := f.Where + ": " + f.Text
	if f.Hint != "" {
		s += " (" + f.Hint + ")"
	}
	return s
}

// SetDefaults fills in what zero means and makes file names absolute. Check and New do it by themselves.
func (c *Config) SetDefaults() {
	dir, err := filepath.Abs(filepath.Dir(c.Path)) // absolute: setting the defaults again must change nothing
	if err != nil {
		dir = filepath.Dir(c.Path)
	}
	c.Listen.GRPC = cmp.Or(c.Listen.GRPC, "0.0.0.0:9443")
	c.Listen.HTTP = cmp.Or(c.Listen.HTTP, "127.0.0.1:8080")
	c.DataDir = cmp.Or(c.DataDir, "data")
	c.Posting.Quiet = cmp.Or(c.Posting.Quiet, 10*time.Second)
	c.Posting.CloseAfter = cmp.Or(c.Posting.CloseAfter, time.Hour)
	c.Notify.SetDefaults(dir)
	files := []*string{&c.DataDir, &c.TLS.CertFile, &c.TLS.KeyFile, &c.TLS.AgentsCAFile}
	for i := range c.API.WakeSecrets {
		files = append(files, &c.API.WakeSecrets[i].File)
	}
	for _, f := range files {
		if *f != "" && !filepath.IsAbs(*f) {
			*f = filepath.Join(dir, *f)
		}
	}
}

// Check finds everything wrong with a configuration without touching the network. It reads the files that it names.
func (c *Config) Check(kinds []ConnectorKind) []Fault {
	c.SetDefaults()
	faults := c.checkListen()
	faults = append(faults, c.checkTLS()...)
	faults = append(faults, c.checkTuning()...)
	faults = append(faults, c.checkPlants()...)
	faults = append(faults, c.checkERPs(kinds)...)
	faults = append(faults, c.checkBalances()...)
	faults = append(faults, c.checkBusiness(kinds)...)
	faults = append(faults, c.checkPolicies(kinds)...)
	for _, f := range c.Notify.Check(c.plantNames()) {
		faults = append(faults, Fault{Where: f.Where, Text: f.Text, Hint: f.Hint})
	}
	return faults
}

func (c *Config) checkListen() []Fault {
	var faults []Fault
	add := func(where, hint, format string, args ...any) {
		faults = append(faults, Fault{Where: where, Text: fmt.Sprintf(format, args...), Hint: hint})
	}
	if _, ok := address(c.Listen.GRPC); !ok {
		add("listen.grpc", "write host:port, such as 0.0.0.0:9443", "address %q is not valid", c.Listen.GRPC)
	}
	host, ok := address(c.Listen.HTTP)
	if !ok {
		add("listen.http", "write host:port, such as 127.0.0.1:8080", "address %q is not valid", c.Listen.HTTP)
	} else if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		if len(c.API.Tokens) == 0 {
			add("listen.http", "make a token with `synchub token`, or listen on 127.0.0.1", "address %q opens the API to the network without a token", c.Listen.HTTP)
		}
		if !c.TLS.HTTP {
			add("listen.http", "set tls.http: true, or listen on 127.0.0.1 behind a proxy", "address %q would send tokens over the network in the clear", c.Listen.HTTP)
		}
	}
	faults = append(faults, c.checkWaking()...)
	for i, t := range c.API.Tokens {
		if sum, err := hex.DecodeString(t.SHA256); t.Name == "" || err != nil || len(sum) != sha256.Size {
			add("api.tokens", "make it with `synchub token`", "token %d (%q) needs a name and the SHA-256 of its secret in hex", i+1, t.Name)
		}
	}
	return faults
}

// checkWaking looks at who may wake which ERP.
func (c *Config) checkWaking() []Fault {
	var faults []Fault
	for _, t := range c.API.Tokens {
		for _, erp := range t.Wake {
			if !slices.Contains(c.erpNames(), erp) {
				faults = append(faults, Fault{Where: "api.tokens", Text: fmt.Sprintf("token %q: ERP %q is not configured", t.Name, erp), Hint: "name one of erps"})
			}
		}
		if t.Write && len(t.Wake) > 0 {
			faults = append(faults, Fault{Where: "api.tokens", Text: fmt.Sprintf("token %q has write and wake: one that writes may wake every ERP", t.Name), Hint: "leave one of them out"})
		}
	}
	if _, err := c.wakeKeys(); err != nil {
		faults = append(faults, Fault{Where: "api.wake_secrets", Text: err.Error(), Hint: "write {erp: NAME, file: FILE} or {erp: NAME, env: VARIABLE}"})
	}
	return faults
}

func (c *Config) erpNames() []string {
	var names []string
	for _, e := range c.ERPs {
		names = append(names, e.Name)
	}
	return names
}

func (c *Config) plantNames() []string {
	var names []string
	for _, p := range c.Plants {
		names = append(names, p.Plant)
	}
	return names
}

// wakeKeys reads what ERPs sign their events with.
func (c *Config) wakeKeys() (map[string][]byte, error) {
	keys := map[string][]byte{}
	for _, w := range c.API.WakeSecrets {
		text, err := w.Read()
		if err == nil {
			keys[w.ERP], err = webhook.Key(text)
		}
		if err != nil {
			return nil, fmt.Errorf("the secret of ERP %q %w", w.ERP, err)
		}
		if !slices.Contains(c.erpNames(), w.ERP) {
			return nil, fmt.Errorf("ERP %q is not configured", w.ERP)
		}
	}
	return keys, nil
}

// address returns the host of an address whose port is a number.
func address(hostport string) (host string, ok bool) {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return "", false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return host, err == nil
}

func (c *Config) checkTLS() []Fault {
	var faults []Fault
	for _, f := range []struct{ key, value string }{{"cert_file", c.TLS.CertFile}, {"key_file", c.TLS.KeyFile}, {"agents_ca_file", c.TLS.AgentsCAFile}} {
		if f.value == "" {
			faults = append(faults, Fault{Where: "tls." + f.key, Text: "it is missing: agents are only served with mutual TLS", Hint: "make it with `synchub cert init`"})
		}
	}
	if len(faults) > 0 {
		return faults
	}
	if _, err := c.TLS.load(); err != nil {
		where, text, _ := strings.Cut(strings.TrimPrefix(err.Error(), ErrConfig.Error()+": "), ": ")
		return []Fault{{Where: where, Text: text}}
	}
	return nil
}

func (c *Config) checkTuning() []Fault {
	var faults []Fault
	add := func(where, hint, format string, args ...any) {
		faults = append(faults, Fault{Where: where, Text: fmt.Sprintf(format, args...), Hint: hint})
	}
	for where, d := range map[string]time.Duration{"dispatch.every": c.Dispatch.Every, "posting.quiet": c.Posting.Quiet, "posting.close_after": c.Posting.CloseAfter,
		"alarms.agent_away": c.Alarms.limits().AgentAway, "alarms.agent_unwell": c.Alarms.limits().AgentUnwell, "alarms.order_waits": c.Alarms.limits().OrderWaits,
		"reconcile.every": c.Reconcile.Every, "reconcile.balances_every": c.Reconcile.BalancesEvery,
		"reconcile.writes_every": c.Reconcile.WritesEvery, "reconcile.writes_window": c.Reconcile.WritesWindow, "reconcile.settle": c.Reconcile.Settle, "reconcile.nightly": c.Reconcile.Nightly} {
		if d < 0 {
			add(where, "write a duration such as 10s", "%s is negative", d)
		}
	}
	if d := c.Alarms.limits().AgentAway; d > 0 && d < time.Minute {
		add("alarms.agent_away", "use 1m or more, or 0 for never", "%s is too short: an agent may say nothing for half a minute, and a dead line is found after three quarters of one", d)
	}
	if c.Posting.Workers < 0 || c.Posting.Workers > 100 {
		add("posting.workers", "use 1 to 100", "%d is out of range", c.Posting.Workers)
	}
	if c.Reconcile.Nightly >= 24*time.Hour {
		add("reconcile.nightly", "write the time since midnight UTC, such as 2h", "%s is no time of day", c.Reconcile.Nightly)
	}
	for item, text := range c.Reconcile.Prices {
		if d, err := decimal.NewFromString(text); err != nil || d.IsNegative() {
			add("reconcile.prices", "write a decimal number, such as \"1.35\"", "the price %q of item %q is none", text, item)
		}
	}
	if c.Reconcile.HealsPerOrder < -1 || c.Reconcile.HealsPerDay < -1 {
		add("reconcile", "use -1 for none", "a limit of heals is below -1")
	}
	if err := new(slog.Level).UnmarshalText([]byte(cmp.Or(c.Log.Level, "info"))); err != nil {
		add("log.level", "use debug, info, warn or error", "level %q is not known", c.Log.Level)
	}
	if f := c.Log.Format; f != "" && f != "text" && f != "json" {
		add("log.format", "use text or json", "format %q is not known", f)
	}
	slices.SortFunc(faults, func(a, b Fault) int { return cmp.Compare(a.Where, b.Where) })
	return faults
}

func (c *Config) checkBalances() []Fault {
	var faults []Fault
	seen := map[BalanceConfig]bool{}
	for _, b := range c.Reconcile.Balances {
		add := func(hint, format string, args ...any) {
			faults = append(faults, Fault{Where: "reconcile.balances", Text: fmt.Sprintf(format, args...), Hint: hint})
		}
		if b.Item == "" {
			add("write {erp: erp, item: STEEL}", "a balance names no item")
		}
		if !slices.ContainsFunc(c.ERPs, func(e ERPConfig) bool { return e.Name == b.ERP }) {
			add("name one of erps", "ERP %q is not configured", b.ERP)
		}
		if b.Plant != "" && !slices.ContainsFunc(c.Plants, func(p PlantConfig) bool { return p.Plant == b.Plant }) {
			add("name one of plants", "plant %q is not configured", b.Plant)
		}
		plant := b.Plant
		if b.Plant = ""; seen[b] {
			add("watch a stock once", "item %q of ERP %q (plant %q) is there twice", b.Item, b.ERP, plant)
		}
		seen[b] = true
	}
	return faults
}

func (c *Config) checkPlants() []Fault {
	var faults []Fault
	if len(c.Plants) == 0 {
		faults = append(faults, Fault{Where: "plants", Text: "no plant is named: no agent could connect", Hint: "write plants: [{plant: ulm, agents: [line1]}]"})
	}
	seen := map[string]bool{}
	for _, p := range c.Plants {
		if p.Plant == "" || len(p.Agents) == 0 || slices.Contains(p.Agents, "") {
			faults = append(faults, Fault{Where: "plants", Text: fmt.Sprintf("plant %q needs a name and at least one agent", p.Plant), Hint: "write {plant: ulm, agents: [line1]}"})
		}
		if seen[p.Plant] {
			faults = append(faults, Fault{Where: "plants", Text: fmt.Sprintf("plant %q is there twice", p.Plant), Hint: "name all of its agents in one entry"})
		}
		seen[p.Plant] = true
		if _, err := time.LoadLocation(p.TimeZone); err != nil {
			faults = append(faults, Fault{Where: "plants", Text: fmt.Sprintf("plant %q: zone %q is not known", p.Plant, p.TimeZone), Hint: "use an IANA name such as Europe/Berlin"})
		}
	}
	for _, r := range c.Routes {
		if r.ERP != "" && !slices.ContainsFunc(c.ERPs, func(e ERPConfig) bool { return e.Name == r.ERP }) {
			faults = append(faults, Fault{Where: "routes", Text: fmt.Sprintf("ERP %q is not configured", r.ERP), Hint: "name one of erps"})
		}
		if !c.Known(r.Plant, r.Agent) {
			faults = append(faults, Fault{Where: "routes", Text: fmt.Sprintf("agent %q of plant %q is not configured", r.Agent, r.Plant), Hint: "name it in plants"})
		}
	}
	return faults
}

func (c *Config) checkERPs(kinds []ConnectorKind) []Fault {
	var faults []Fault
	seen := map[string]bool{}
	for _, e := range c.ERPs {
		fault := func(hint, format string, args ...any) {
			faults = append(faults, Fault{Where: fmt.Sprintf("ERP %q", e.Name), Line: e.Line, Text: fmt.Sprintf(format, args...), Hint: hint})
		}
		if e.Name == "" || seen[e.Name] {
			fault("give each its own name", "the name is missing or used twice")
		}
		seen[e.Name] = true
		k, ok := findKind(kinds, e.Kind)
		if !ok {
			var names []string
			for _, k := range kinds {
				names = append(names, k.Name)
			}
			fault("use one of "+strings.Join(names, ", "), "kind %q is not known", e.Kind)
			continue
		}
		if _, err := k.New(e.Name, filepath.Dir(c.Path), e.Decode); err != nil {
			fault("", "%v", err)
		}
	}
	return faults
}

func findKind(kinds []ConnectorKind, name string) (ConnectorKind, bool) {
	for _, k := range kinds {
		if k.Name == name {
			return k, true
		}
	}
	return ConnectorKind{}, false
}

// Known reports whether the agent of the plant may connect.
func (c *Config) Known(plant, agent string) bool {
	return slices.ContainsFunc(c.Plants, func(p PlantConfig) bool { return p.Plant == plant && slices.Contains(p.Agents, agent) })
}
