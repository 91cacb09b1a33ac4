package drill

import (
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/linekeeper/linekeeper/agent"
	"github.com/linekeeper/linekeeper/agent/translate"
)

// kindName is the kind of the sources that stand in for the live ones.
const kindName = "drill"

// closeEvery is how long confirmations stay open at most in a drill: a plant's own hour would make it a long one.
const closeEvery = time.Second

// spec is what a drilled agent is told beside the configuration's copy. It travels as a JSON file.
type spec struct {
	Config  string `json:"config"`  // the copy of the live file
	DataDir string `json:"data"`    // scratch
	Machine string `json:"machine"` // address of the scratch plant
	Hub     string `json:"hub"`     // address of the relay or the receiver
	Proxy   string `json:"proxy"`
	Certs   string `json:"certs"` // folder of ca.pem, agent.pem, agent.key

	Limit   int64 `json:"limit"`   // bytes of facts; 0: the live limit, at most 64 MiB
	Reserve int64 `json:"reserve"` // bytes that stay free on the disk; -1: none
	Segment int64 `json:"segment"` // bytes of a buffer file; 0: the live size
	Patient bool  `json:"patient"` // the product's own time-outs instead of short ones

	Sabotage string `json:"sabotage"`
}

// own are the sources and rules that every drill has, whatever the live configuration has.
type own struct{ rows, messages string }

func ownSources(cfg *agent.Config) own {
	free := func(name string) string {
		for i := 0; slices.ContainsFunc(cfg.Sources, func(s agent.SourceConfig) bool { return s.Name == name }); i++ {
			name = fmt.Sprintf("drill-%d", i)
		}
		return name
	}
	return own{rows: free("drill"), messages: free("drill-messages")}
}

func (o own) rules() []translate.Rule {
	return []translate.Rule{
		{Name: "drill: a counter", Rule: "counter", Source: o.rows, Tag: "parts", Counts: "yield", Unit: "C62", Close: translate.Close{Quantity: "40", Every: closeEvery}},
		{Name: "drill: rows of an MES", Rule: "record", Source: o.rows, Tag: "rows", Fact: "production_confirmation", Fields: map[string]string{
			"order_no": "payload.order", "yield": "payload.good", "scrap": "payload.bad", "unit": "'C62'", "shift": "payload.note"}},
		{Name: "drill: messages of a broker", Rule: "record", Source: o.messages, Tag: "messages", Fact: "material_consumption", ID: "payload.id", Fields: map[string]string{
			"order_no": "payload.order", "item": "payload.item", "quantity": "payload.qty", "unit": "'KGM'", "lot": "payload.lot"}},
	}
}

// adapt turns the live configuration into that of a drill: the plant, its rules, units, items and time zone stay; data
// folder, hub, page and sources are the drill's own. Nothing of what it returns leads to anything live.
func adapt(cfg agent.Config, s spec) agent.Config {
	o := ownSources(&cfg)
	sources := []agent.SourceConfig{}
	for _, live := range cfg.Sources {
		sources = append(sources, standIn(live.Name))
	}
	cfg.Sources = append(sources, standIn(o.rows), standIn(o.messages))
	cfg.Rules = append(slices.Clone(cfg.Rules), o.rules()...)
	for i := range cfg.Rules {
		if r := &cfg.Rules[i]; r.Rule == "counter" && (r.Close.Every == 0 || r.Close.Every > closeEvery) {
			r.Close.Every = closeEvery
		}
	}
	cfg.DataDir, cfg.Listen, cfg.AllowedHosts = s.DataDir, "127.0.0.1:0", nil
	cfg.Orders, cfg.Lines, cfg.Path = agent.OrdersConfig{}, nil, filepath.Join(filepath.Dir(s.DataDir), "drill.yaml")
	cfg.PseudonymKeyFile = filepath.Join(s.DataDir, "pseudonym.key")
	cfg.Log = agent.LogConfig{Level: "info", Format: "text"}
	adaptBuffer(&cfg, s)
	adaptHub(&cfg, s)
	return cfg
}

func standIn(name string) agent.SourceConfig {
	return agent.SourceConfig{Name: name, Kind: kindName, Decode: func(any) error { return nil }}
}

// mostLimit bounds what a drill takes of the disk.
const mostLimit = 64 << 20

func adaptBuffer(cfg *agent.Config, s spec) {
	b := &cfg.Buffer
	b.DiskReserve = agent.Size(s.Reserve)
	if b.BusinessLimit == 0 || b.BusinessLimit > mostLimit {
		b.BusinessLimit = mostLimit
	}
	if b.TelemetryLimit == 0 || b.TelemetryLimit > mostLimit {
		b.TelemetryLimit = mostLimit
	}
	if s.Limit > 0 {
		b.BusinessLimit = agent.Size(s.Limit)
	}
	if s.Segment > 0 {
		b.SegmentSize = agent.Size(s.Segment)
	}
}

func adaptHub(cfg *agent.Config, s spec) {
	h := &cfg.Hub
	h.Address, h.ServerName, h.Proxy = s.Hub, "127.0.0.1", s.Proxy
	h.CAFile, h.CertFile, h.KeyFile = filepath.Join(s.Certs, "ca.pem"), filepath.Join(s.Certs, "agent.pem"), filepath.Join(s.Certs, "agent.key")
	if s.Patient {
		return
	}
	h.AckTimeout, h.ConnectTimeout = 4*time.Second, 6*time.Second
	h.BackoffMax, h.RefusedMin, h.RefusedMax = time.Second, time.Second, 2*time.Second
}
