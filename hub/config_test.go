package hub

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/api"
	"github.com/linekeeper/linekeeper/hub/connector/secret"
)

func TestEveryFaultOfAConfigurationIsNamed(t *testing.T) {
	good := api.Token{Name: "planner", SHA256: strings.Repeat("ab", 32)}
	for name, x := range map[string]struct {
		spoil func(*Config)
		want  []string
	}{
		"no certificate":           {func(c *Config) { c.TLS.CertFile = "" }, []string{"tls.cert_file", "synchub cert init"}},
		"no key":                   {func(c *Config) { c.TLS.KeyFile = "" }, []string{"tls.key_file"}},
		"no authority":             {func(c *Config) { c.TLS.AgentsCAFile = "" }, []string{"tls.agents_ca_file"}},
		"certificate file missing": {func(c *Config) { c.TLS.CertFile = "no-such.pem" }, []string{"tls.cert_file", "no-such.pem", "synchub cert init"}},
		"authority file missing":   {func(c *Config) { c.TLS.AgentsCAFile = "no-such.pem" }, []string{"tls.agents_ca_file", "no-such.pem"}},
		"authority is no PEM":      {func(c *Config) { c.TLS.AgentsCAFile = write(t, "nonsense") }, []string{"tls.agents_ca_file", "no PEM certificate"}},
		"address for agents":       {func(c *Config) { c.Listen.GRPC = "9443" }, []string{"listen.grpc", `"9443"`}},
		"port for agents":          {func(c *Config) { c.Listen.GRPC = "0.0.0.0:99999" }, []string{"listen.grpc", "99999"}},
		"address of the API":       {func(c *Config) { c.Listen.HTTP = "localhost" }, []string{"listen.http", `"localhost"`}},
		"port of the API":          {func(c *Config) { c.Listen.HTTP = "localhost:http" }, []string{"listen.http", `"localhost:http"`}},
		"open without a token":     {func(c *Config) { c.Listen.HTTP, c.TLS.HTTP = "0.0.0.0:0", true }, []string{"listen.http", "synchub token"}},
		"tokens in the clear":      {func(c *Config) { c.Listen.HTTP, c.API.Tokens = ":0", []api.Token{good} }, []string{"listen.http", "tls.http"}},
		"token without a name":     {func(c *Config) { c.API.Tokens = []api.Token{{SHA256: good.SHA256}} }, []string{"api.tokens", "token 1"}},
		"token that is no hash":    {func(c *Config) { c.API.Tokens = []api.Token{{Name: "planner", SHA256: strings.Repeat("xy", 32)}} }, []string{"api.tokens", `"planner"`}},
		"token that is the secret": {func(c *Config) { c.API.Tokens = []api.Token{good, {Name: "x", SHA256: "secret"}} }, []string{"api.tokens", "token 2"}},
		"token for no ERP": {func(c *Config) {
			c.API.Tokens = []api.Token{{Name: "events", SHA256: good.SHA256, Wake: []string{"sap"}}}
		}, []string{"api.tokens", `"events"`, `"sap"`}},
		"token that writes and wakes": {func(c *Config) {
			c.API.Tokens = []api.Token{{Name: "events", SHA256: good.SHA256, Write: true, Wake: []string{"erp"}}}
		}, []string{"api.tokens", `"events"`, "write and wake"}},
		"secret for no ERP":          {wakeSecret("sap", "a secret"), []string{"api.wake_secrets", `"sap"`}},
		"secret that is not":         {wakeSecret("erp", ""), []string{"api.wake_secrets", `"erp"`, "empty"}},
		"no plant":                   {func(c *Config) { c.Plants, c.Routes = nil, nil }, []string{"plants", "no plant is named"}},
		"plant without agents":       {func(c *Config) { c.Plants[0].Agents, c.Routes = nil, nil }, []string{"plants", `"ulm"`, "at least one agent"}},
		"plant twice":                {func(c *Config) { c.Plants = append(c.Plants, c.Plants[0]) }, []string{"plants", `"ulm"`, "twice"}},
		"zone":                       {func(c *Config) { c.Plants[0].TimeZone = "CEST+1" }, []string{"plants", `"ulm"`, `"CEST+1"`, "Europe/Berlin"}},
		"route to nobody":            {func(c *Config) { c.Routes[0].Agent = "line9" }, []string{"routes", `"line9"`}},
		"route to another plant":     {func(c *Config) { c.Routes[0].Plant = "bern" }, []string{"routes", `"bern"`}},
		"route from no ERP":          {func(c *Config) { c.Routes[0].ERP = "sap" }, []string{"routes", `"sap"`}},
		"ERP without a name":         {func(c *Config) { c.ERPs[0].Name, c.Routes = "", nil }, []string{"ERP", "missing or used twice"}},
		"ERP twice":                  {func(c *Config) { c.ERPs = append(c.ERPs, c.ERPs[0]) }, []string{`ERP "erp"`, "used twice"}},
		"kind of ERP":                {func(c *Config) { c.ERPs[0].Kind = "sap" }, []string{`ERP "erp"`, `"sap"`, "sandbox"}},
		"section of an ERP":          {func(c *Config) { c.ERPs[0].Decode = func(any) error { return errors.New(`unknown key "urll"`) } }, []string{`ERP "erp"`, "urll"}},
		"URL of an ERP":              {func(c *Config) { c.ERPs[0].Decode = func(any) error { return nil } }, []string{`ERP "erp"`, "url"}},
		"pause":                      {func(c *Config) { c.Dispatch.Every = -time.Second }, []string{"dispatch.every", "-1s"}},
		"quiet time":                 {func(c *Config) { c.Posting.Quiet = -time.Second }, []string{"posting.quiet"}},
		"latest closing":             {func(c *Config) { c.Posting.CloseAfter = -time.Second }, []string{"posting.close_after"}},
		"alarm at once":              {func(c *Config) { c.Alarms.AgentAway = new(10 * time.Second) }, []string{"alarms.agent_away", "10s", "1m or more, or 0"}},
		"alarm before":               {func(c *Config) { c.Alarms.OrderWaits = new(-time.Second) }, []string{"alarms.order_waits", "-1s"}},
		"alarm of unwell":            {func(c *Config) { c.Alarms.AgentUnwell = new(-time.Second) }, []string{"alarms.agent_unwell"}},
		"policy for no ERP":          {policy(PolicyConfig{ERP: "sap"}), []string{"posting.policies[1].erp", `"sap"`, "name one of erps"}},
		"policy for no plant":        {policy(PolicyConfig{Plant: "bern"}), []string{"posting.policies[1].plant", `"bern"`}},
		"owner of backflush":         {policy(PolicyConfig{Backflush: "sap"}), []string{"backflush", `"sap"`, "erp, mes"}},
		"late facts":                 {policy(PolicyConfig{LateFacts: "tomorrow"}), []string{"late_facts", `"tomorrow"`, "first_open_day"}},
		"doubtful clock":             {policy(PolicyConfig{DoubtfulClock: "x"}), []string{"doubtful_clock", "received_date"}},
		"over-delivery":              {policy(PolicyConfig{OverDelivery: "ask"}), []string{"over_delivery", "allow, stop"}},
		"closed orders":              {policy(PolicyConfig{ClosedOrders: "open"}), []string{"closed_orders", "hold, reopen"}},
		"end of an order":            {policy(PolicyConfig{OrderEnd: "any"}), []string{"order_end", "reported_operations, all_operations, last_operation, order"}},
		"items without an owner":     {policy(PolicyConfig{Items: []string{"OIL"}}), []string{"items", "backflush: mes"}},
		"closing without a time":     {policy(PolicyConfig{MonthCloses: "3"}), []string{"month_closes", `"3"`, "3 18:00"}},
		"closing on no day":          {policy(PolicyConfig{MonthCloses: "32 18:00"}), []string{"month_closes", `"32 18:00"`}},
		"tolerance":                  {policy(PolicyConfig{TolerancePercent: "-1"}), []string{"tolerance_percent", `"-1"`}},
		"quantity to collect":        {policy(PolicyConfig{Collect: CollectConfig{Quantity: "0"}}), []string{"collect.quantity", `"0"`}},
		"time to collect":            {policy(PolicyConfig{Collect: CollectConfig{Every: 25 * time.Hour}}), []string{"collect.every", "24h"}},
		"workers":                    {func(c *Config) { c.Posting.Workers = -1 }, []string{"posting.workers"}},
		"log level":                  {func(c *Config) { c.Log.Level = "loud" }, []string{"log.level", `"loud"`}},
		"log format":                 {func(c *Config) { c.Log.Format = "xml" }, []string{"log.format", `"xml"`}},
		"business of no ERP":         {business(BusinessConfig{ERP: "sap", Kinds: []string{"all"}}), []string{"business[1].erp", `"sap"`, "name one of erps"}},
		"business of an ERP without": {business(BusinessConfig{ERP: "erp", Kinds: []string{"all"}}), []string{"business[1].kinds", "reads no business objects", "CONNECTORS.md"}},
		"business that is nothing":   {business(BusinessConfig{ERP: "erp"}), []string{"business[1].kinds", "write: true"}},
		"business that nobody takes": {business(BusinessConfig{ERP: "erp", Write: true}), []string{"business[1].write", "writes no business objects"}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := configured(t, "http://127.0.0.1:1")
			x.spoil(&cfg)
			h, err := New(t.Context(), cfg, Options{Kinds: kinds})
			if err == nil {
				h.Close()
				t.Fatal("the fault was not found")
			}
			if !errors.Is(err, ErrConfig) {
				t.Errorf("%v is no ErrConfig", err)
			}
			for _, w := range x.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not name %q", err, w)
				}
			}
			if n := len(cfg.Check(kinds)); n != 1 {
				t.Errorf("%d faults for one: %v", n, cfg.Check(kinds))
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(cfg.Path), "data")); err == nil {
				t.Error("a store was made for a configuration with faults")
			}
		})
	}
}

// wakeSecret has an ERP sign its events with what stands in a file.
func wakeSecret(erp, text string) func(*Config) {
	return func(c *Config) {
		file := filepath.Join(filepath.Dir(c.Path), "events.txt")
		os.WriteFile(file, []byte(text), 0o600)
		c.API.WakeSecrets = []WakeSecret{{ERP: erp, Source: secret.Source{File: "events.txt"}}}
	}
}

func policy(p PolicyConfig) func(*Config) {
	return func(c *Config) { c.Posting.Policies = []PolicyConfig{p} }
}

func business(b BusinessConfig) func(*Config) {
	return func(c *Config) { c.Business = []BusinessConfig{b} }
}

func TestGoodConfigurationHasNoFaultHoweverOftenItIsChecked(t *testing.T) {
	cfg := configured(t, "http://127.0.0.1:1")
	t.Chdir(filepath.Dir(filepath.Dir(cfg.Path)))
	cfg.Path = filepath.Join(filepath.Base(filepath.Dir(cfg.Path)), "hub.yaml") // relative names start at the file's folder
	for range 3 {
		if faults := cfg.Check(kinds); len(faults) > 0 {
			t.Fatal(faults)
		}
	}
	if cfg.Posting.Quiet == 0 || cfg.Posting.CloseAfter != time.Hour {
		t.Errorf("defaults %+v", cfg.Posting)
	}
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.pem")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
