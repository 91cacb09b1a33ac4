package agent

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/translate"
	"github.com/linekeeper/linekeeper/agent/uplink"
)

// Config is the agent's one YAML file. A relative file name in it starts at the file's own folder.
type Config struct {
	// Plant is the ISA-95 site, Agent this installation's name in it; both are also in the agent's certificate.
	Plant string `yaml:"plant"`
	Agent string `yaml:"agent"`
	// TimeZone is the plant's IANA zone, such as "Europe/Berlin"; it decides posting dates.
	TimeZone string `yaml:"time_zone"`
	// DataDir holds the buffers, certificates and trust lists. Default: "data" beside the configuration file.
	DataDir string `yaml:"data_dir"`
	// Listen is the address of the operator's page. Default 127.0.0.1:8480; port 0 takes a free one.
	Listen string `yaml:"listen"`
	// AllowedHosts are further host names under which the page may be opened.
	AllowedHosts []string `yaml:"allowed_hosts"`
	// Hub is the line to the hub. An agent without one collects and stores.
	Hub    uplink.Config     `yaml:"hub"`
	Buffer BufferConfig      `yaml:"buffer"`
	Orders OrdersConfig      `yaml:"work_orders"`
	Rules  []translate.Rule  `yaml:"rules"`
	Units  map[string]string `yaml:"units"`
	Items  map[string]string `yaml:"items"`
	// Calendars are the plant's shifts, Reasons what machines call the causes of scrap; see package translate.
	Calendars []translate.Calendar             `yaml:"calendars"`
	Reasons   map[string]translate.ReasonTable `yaml:"reasons"`
	// PseudonymKeyFile holds the plant's secret for what rules pseudonymise. It is made at the first start when it is missing; all
	// agents of a plant need the same one. Default: "pseudonym.key" in the data folder.
	PseudonymKeyFile string    `yaml:"pseudonym_key_file"`
	Log              LogConfig `yaml:"log"`
	// Contact is whom an operator can call, shown on the page when something needs a person.
	Contact string `yaml:"contact"`

	// Sources are decoded by the drivers that their kinds name.
	Sources []SourceConfig `yaml:"-"`
	// Path is where the file was read from.
	Path string `yaml:"-"`
	// Lines maps keys such as "listen", "buffer.segment_size" or "rules[2].unit" to their lines in the file, for faults.
	// It may be nil.
	Lines map[string]int `yaml:"-"`
}

// BufferConfig limits what the agent keeps on its disk.
type BufferConfig struct {
	// BusinessLimit is how many bytes of facts may wait for the hub; at the limit the sources are held back, nothing is
	// dropped. Default 2GiB.
	BusinessLimit Size `yaml:"business_limit"`
	// TelemetryLimit is the same for readings; at the limit the oldest are dropped and counted. Default 256MiB.
	TelemetryLimit Size `yaml:"telemetry_limit"`
	// DiskReserve stays free on the disk whatever happens. Default 1GiB; "none" for no reserve.
	DiskReserve Size `yaml:"disk_reserve"`
	// SegmentSize is the size of one buffer file. Default 64MiB.
	SegmentSize Size `yaml:"segment_size"`
}

// LogConfig sets what is logged, to standard error.
type LogConfig struct {
	Level  string `yaml:"level"`  // debug, info (default), warn, error
	Format string `yaml:"format"` // text (default) or json
}

// SourceConfig is one source: its name, the kind of its driver, and the way to decode the rest.
type SourceConfig struct {
	Name string
	Kind string
	Line int
	// Decode fills into from the driver's own keys. Its error may be Faults, which then know their lines.
	Decode func(into any) error
}

// Size is a number of bytes, written as 67108864, 64MiB, 2GiB or "none".
type Size int64

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(text []byte) error {
	str := strings.TrimSpace(string(text))
	if str == "none" {
		*s = -1
		return nil
	}
	units := []struct {
		suffix string
		factor int64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"B", 1}, {"", 1}}
	for _, u := range units {
		digits, ok := strings.CutSuffix(str, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > (1<<62)/u.factor {
			break
		}
		*s = Size(n * u.factor)
		return nil
	}
	return fmt.Errorf("size %q is not a number of bytes: write for example 64MiB or 2GiB", str)
}

// Fault is one thing wrong with a configuration.
type Fault struct {
	// Where names the key or the source; Line is 0 when it is not known.
	Where string
	Line  int
	Text  string
	Hint  string
}

func (f Fault) String() string {
	s := f.Text
	if f.Where != "" {
		s = f.Where + ": " + s
	}
	if f.Hint != "" {
		s += " (" + f.Hint + ")"
	}
	return s
}

// setDefaults fills what was left out. dir is the folder of the configuration file.
func (c *Config) setDefaults() {
	dir := filepath.Dir(c.Path)
	if c.DataDir == "" {
		c.DataDir = "data"
	}
	if !filepath.IsAbs(c.DataDir) {
		c.DataDir = filepath.Join(dir, c.DataDir)
	}
	if c.Listen == "" {
		c.Listen = "127.0.0.1:8480"
	}
	if c.TimeZone == "" {
		c.TimeZone = "UTC"
	}
	if c.PseudonymKeyFile == "" {
		c.PseudonymKeyFile = filepath.Join(c.DataDir, "pseudonym.key")
	}
	for _, file := range []*string{&c.PseudonymKeyFile, &c.Hub.CAFile, &c.Hub.CertFile, &c.Hub.KeyFile, &c.Hub.WebSocketCAFile} {
		if *file != "" && !filepath.IsAbs(*file) {
			*file = filepath.Join(dir, *file)
		}
	}
	if c.Buffer.TelemetryLimit == 0 {
		c.Buffer.TelemetryLimit = 256 << 20
	}
}

// sourceDir is where a source keeps its files.
func (c *Config) sourceDir(source string) string { return filepath.Join(c.DataDir, "sources", source) }

// Faults are several faults as one error.
type Faults []Fault

func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i := range f {
		lines[i] = f[i].String()
	}
	return strings.Join(lines, "\n")
}

// At is the fault with the place in the file.
func (f Fault) At(path string) string {
	if f.Line > 0 {
		path = fmt.Sprintf("%s:%d", path, f.Line)
	}
	return path + ": " + f.String()
}

// checker collects the faults of a configuration.
type checker struct {
	cfg    *Config
	faults []Fault
	takers []string // sources that can take work orders
}

// add notes a fault of a key of the agent's own.
func (k *checker) add(key, hint, format string, args ...any) {
	k.faults = append(k.faults, Fault{Where: key, Line: k.line(key), Text: fmt.Sprintf(format, args...), Hint: hint})
}

// line is that of a key, or of the nearest one around it.
func (k *checker) line(key string) int {
	for key != "" {
		if n := k.cfg.Lines[key]; n > 0 {
			return n
		}
		key = key[:max(strings.LastIndexAny(key, ".["), 0)]
	}
	return 0
}

// Check finds everything wrong with a configuration without touching the network, in the order of the file's lines as far
// as they are known. It also fills in the defaults and makes each driver read its own section. kinds are the drivers of
// this binary.
func (c *Config) Check(kinds []signal.Kind) []Fault {
	c.setDefaults()
	k := &checker{cfg: c}
	k.names()
	k.page()
	k.hub()
	k.sizes()
	k.log()
	k.sources(kinds)
	k.rules()
	k.orders()
	slices.SortStableFunc(k.faults, func(a, b Fault) int { return a.Line - b.Line })
	return k.faults
}

const nameHint = "use letters, digits, '-', '_' and '.'"

func (k *checker) names() {
	for _, id := range []struct{ key, value string }{{"plant", k.cfg.Plant}, {"agent", k.cfg.Agent}} {
		if id.value == "" {
			k.add(id.key, "write for example "+id.key+": ulm", "it is missing")
		} else if !validName(id.value) {
			k.add(id.key, nameHint, "name %q has a character that it must not have", id.value)
		}
	}
	if !knownZone(k.cfg.TimeZone) {
		k.add("time_zone", "use an IANA name such as Europe/Berlin", "zone %q is not known", k.cfg.TimeZone)
	}
}

// validName says that a name can be a folder on every system and part of a key.
func validName(s string) bool {
	if s == "" || s[0] == '.' || len(s) > 100 {
		return false
	}
	for _, r := range s {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-_.", r) {
			return false
		}
	}
	return s[len(s)-1] != '.'
}

func knownZone(name string) bool {
	_, err := time.LoadLocation(name)
	return err == nil && name != "" && name != "Local" // a plant's zone must not depend on its computer
}

func (k *checker) page() {
	host, _, err := net.SplitHostPort(k.cfg.Listen)
	if err != nil {
		k.add("listen", "write host:port, such as 127.0.0.1:8480", "address %q is not valid", k.cfg.Listen)
		return
	}
	ip := net.ParseIP(host)
	if host != "localhost" && (ip == nil || !ip.IsLoopback()) && len(k.cfg.AllowedHosts) == 0 {
		k.add("listen", "name the hosts in allowed_hosts, or listen on 127.0.0.1", "address %q opens the page to the network, but no allowed_hosts say under which names", k.cfg.Listen)
	}
}

func (k *checker) hub() {
	h := k.cfg.Hub
	if h.Address == "" {
		if h.ServerName+h.CAFile+h.CertFile+h.KeyFile+h.Proxy+h.WebSocketURL != "" {
			k.add("hub", "write for example address: hub.example.com:9443, or leave the whole section out to collect without a hub", "address is missing")
		}
		return
	}
	for _, err := range h.Validate() {
		k.add("hub", "", "%v", err)
	}
}

func (k *checker) sizes() {
	b := k.cfg.Buffer
	for _, s := range []struct {
		key  string
		size Size
	}{{"business_limit", b.BusinessLimit}, {"telemetry_limit", b.TelemetryLimit}, {"segment_size", b.SegmentSize}} {
		if s.size < 0 {
			k.add("buffer."+s.key, "write a size such as 2GiB", "only disk_reserve can be none")
		}
	}
}

func (k *checker) log() {
	if l := k.cfg.Log.Level; l != "" && !slices.Contains([]string{"debug", "info", "warn", "error"}, l) {
		k.add("log.level", "use debug, info, warn or error", "level %q is not known", l)
	}
	if f := k.cfg.Log.Format; f != "" && f != "text" && f != "json" {
		k.add("log.format", "use text or json", "format %q is not known", f)
	}
}

func (k *checker) rules() {
	tc := k.cfg.translateConfig()
	if !knownZone(tc.Zone) {
		tc.Zone = "UTC" // told already
	}
	for _, err := range tc.Validate(k.sourceNames()) {
		f := Fault{Where: "rules", Line: k.line("rules"), Text: err.Error()}
		var rule *translate.RuleFault
		if errors.As(err, &rule) {
			f.Line = k.line(fmt.Sprintf("rules[%d].%s", rule.Index, rule.Key))
		} else if key, text, ok := strings.Cut(f.Text, ": "); ok && (key == "units" || key == "calendars") {
			f.Where, f.Line, f.Text = key, k.line(key), text
		}
		k.faults = append(k.faults, f)
	}
}

func (k *checker) sourceNames() []string {
	names := make([]string, len(k.cfg.Sources))
	for i, s := range k.cfg.Sources {
		names[i] = s.Name
	}
	return names
}

func (k *checker) sources(kinds []signal.Kind) {
	seen := map[string]bool{}
	for _, s := range k.cfg.Sources {
		k.source(s, kinds, seen)
		seen[strings.ToLower(s.Name)] = true
	}
}

func (k *checker) source(s SourceConfig, kinds []signal.Kind, seen map[string]bool) {
	fault := func(hint, format string, args ...any) {
		k.faults = append(k.faults, Fault{Where: fmt.Sprintf("source %q", s.Name), Line: s.Line, Text: fmt.Sprintf(format, args...), Hint: hint})
	}
	switch {
	case s.Name == "":
		fault("give it one that says what it is, such as press1", "a source has no name")
		return
	case !validName(s.Name):
		fault(nameHint, "the name has a character that it must not have")
		return
	case seen[strings.ToLower(s.Name)]:
		fault("names must differ in more than upper and lower case", "another source has the same name")
	}
	kind, ok := findKind(kinds, s.Kind)
	if !ok {
		fault("use one of "+strings.Join(kindNames(kinds), ", "), "kind %q is not known", s.Kind)
		return
	}
	d, err := kind.New(k.cfg.env(s, nil, nil), s.Decode)
	var own Faults
	switch to, ok := d.(signal.OrderReceiver); {
	case errors.As(err, &own):
		for _, f := range own {
			f.Where = fmt.Sprintf("source %q", s.Name)
			k.faults = append(k.faults, f)
		}
	case err != nil:
		for line := range strings.Lines(err.Error()) { // drivers join what they find
			fault("", "%s", strings.TrimSpace(line))
		}
	case ok && to.TakesOrders():
		k.takers = append(k.takers, s.Name)
	}
}

func findKind(kinds []signal.Kind, name string) (signal.Kind, bool) {
	for _, k := range kinds {
		if k.Name == name {
			return k, true
		}
	}
	return signal.Kind{}, false
}

func kindNames(kinds []signal.Kind) []string {
	var out []string
	for _, k := range kinds {
		out = append(out, k.Name)
	}
	return out
}

// TranslateConfig is the part of the configuration that is the rules'.
func (c *Config) TranslateConfig() translate.Config {
	d := *c
	d.setDefaults()
	return d.translateConfig()
}

func (c *Config) translateConfig() translate.Config {
	return translate.Config{Plant: c.Plant, Agent: c.Agent, Zone: c.TimeZone, Rules: c.Rules, Units: c.Units, Items: c.Items, Calendars: c.Calendars, Reasons: c.Reasons, AwaitHub: c.Hub.Address != ""}
}

// silent takes the reports of drivers that are made for a check only.
type silent struct{}

func (silent) State(signal.State, string)      {}
func (silent) Problem(string, *signal.Problem) {}
func (silent) Debug(string, ...any)            {}
func (silent) Info(string, ...any)             {}
func (silent) Warn(string, ...any)             {}
func (silent) Error(string, ...any)            {}

func (c *Config) env(s SourceConfig, r signal.Reporter, log signal.Logger) signal.Env {
	zone, err := time.LoadLocation(c.TimeZone)
	if err != nil {
		zone = time.UTC // reported by Check
	}
	if r == nil {
		r, log = silent{}, silent{}
	}
	return signal.Env{
		Plant: c.Plant, Agent: c.Agent, Source: s.Name, Dir: filepath.Join(c.DataDir, "sources", s.Name),
		ConfigDir: filepath.Dir(c.Path), Zone: zone, Reporter: r, Logger: log,
	}
}
