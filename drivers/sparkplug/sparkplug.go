// Package sparkplug is a Sparkplug B host application that reads edge nodes, and an edge node that tells other hosts how the
// agent is.
//
// It owns one or two connections to one MQTT broker, the births, deaths, aliases and sequence numbers of every edge node, and
// the agent's own. It promises that the host says ONLINE only while the buffer takes data, and OFFLINE before it stops or is
// held back, so that edge nodes that store and forward keep what they have; that what they send again is recognised; that
// stored values reach the rules in the order of time and never become the present value; that a gap is shown, and a birth
// asked for without hammering; that what cannot be understood is put aside with its reason; and that what came while the agent
// stopped with a full buffer waits in a file. It never sends a command to a node but the request for its birth. Sparkplug sends data without acknowledgement: what a node neither stores nor sends
// again is lost when agent, broker or line fail.
package sparkplug

import (
	_ "embed"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/mqttlink"
)

//go:embed sample.yaml
var sample string

// Kind is this driver in the agent's list.
var Kind = signal.Kind{Name: "sparkplug", Sample: sample, New: newDriver, Explore: newExplorer, Tags: "metrics"}

// Config is a source's section. Zero values mean the defaults that the sample names.
type Config struct {
	Broker       string        `yaml:"broker"`
	ClientID     string        `yaml:"client_id"`
	Username     string        `yaml:"username"`
	PasswordFile string        `yaml:"password_file"`
	CA           string        `yaml:"ca"`
	Cert         string        `yaml:"cert"`
	Key          string        `yaml:"key"`
	ServerName   string        `yaml:"server_name"`
	Version      string        `yaml:"version"`    // "auto" (default), "3.1.1", "5"
	KeepAlive    time.Duration `yaml:"keep_alive"` // default 20s
	Host         Host          `yaml:"host"`
	Metrics      []Metrics     `yaml:"metrics"`
	Publish      *Publish      `yaml:"publish"`
}

// Host is how the agent behaves toward edge nodes.
type Host struct {
	ID          string        `yaml:"id"`
	ListenOnly  bool          `yaml:"listen_only"`
	StateFormat string        `yaml:"state_format"` // "3.0" (default), "2.2"
	Groups      []string      `yaml:"groups"`       // default all
	ReorderWait time.Duration `yaml:"reorder_wait"` // default 2s
	Rebirth     string        `yaml:"rebirth"`      // "ask" (default), "never"
	RebirthWait time.Duration `yaml:"rebirth_wait"` // default 10s
	HistoryWait time.Duration `yaml:"history_wait"` // default 3s
	MaxSize     int           `yaml:"max_size"`     // bytes; default 1048576
}

// Publish makes the agent an edge node.
type Publish struct {
	Group       string   `yaml:"group"`        // default the plant
	Node        string   `yaml:"node"`         // default the agent
	PrimaryHost string   `yaml:"primary_host"` // default none
	StateFormat string   `yaml:"state_format"` // of the primary host; "3.0" (default), "2.2"
	Stored      int      `yaml:"stored"`       // values kept while the primary host is away; default 10000
	Tags        []string `yaml:"tags"`         // globs of source/tag; default none
}

const (
	format30 = "3.0"
	format22 = "2.2"
)

type driver struct {
	env    signal.Env
	config Config
	broker *url.URL
	status *status
	edge   *edge // nil unless the agent publishes
	look   look
}

func newDriver(env signal.Env, decode func(into any) error) (signal.Driver, error) {
	var c Config
	if err := decode(&c); err != nil {
		return nil, err
	}
	c.fill(env)
	u, err := c.validate()
	if err != nil {
		return nil, err
	}
	d := &driver{env: env, config: c, broker: u, status: &status{reporter: env.Reporter, roles: map[string]said{}}}
	if c.Publish != nil {
		d.edge = newEdge(c.Publish)
	}
	return d, nil
}

func (c *Config) fill(env signal.Env) {
	orDefault(&c.ClientID, strings.Join([]string{"linekeeper", env.Plant, env.Agent, env.Source}, "-"))
	orDefault(&c.Version, string(mqttlink.Auto))
	orDefault(&c.Host.ID, "linekeeper-"+env.Plant+"-"+env.Agent)
	orDefault(&c.Host.StateFormat, format30)
	orDefault(&c.Host.Rebirth, "ask")
	orDefault(&c.KeepAlive, 20*time.Second)
	orDefault(&c.Host.ReorderWait, 2*time.Second)
	orDefault(&c.Host.RebirthWait, 10*time.Second)
	orDefault(&c.Host.HistoryWait, 3*time.Second)
	orDefault(&c.Host.MaxSize, 1<<20)
	for _, f := range []*string{&c.PasswordFile, &c.CA, &c.Cert, &c.Key} {
		if *f != "" && !filepath.IsAbs(*f) {
			*f = filepath.Join(env.ConfigDir, *f)
		}
	}
	for i := range c.Metrics {
		c.Metrics[i].fill()
	}
	if p := c.Publish; p != nil {
		orDefault(&p.Group, env.Plant)
		orDefault(&p.Node, env.Agent)
		orDefault(&p.StateFormat, format30)
		orDefault(&p.Stored, 10_000)
	}
}

func orDefault[T comparable](v *T, otherwise T) {
	var zero T
	if *v == zero {
		*v = otherwise
	}
}

func (c *Config) validate() (*url.URL, error) {
	u, err := mqttlink.ParseBroker(c.Broker)
	if err != nil {
		return nil, err
	}
	secure := u.Scheme == "tls"
	switch {
	case !secure && (c.CA != "" || c.Cert != "" || c.ServerName != ""):
		return nil, fmt.Errorf("use ca, cert or server_name with broker %q: it is not encrypted (write tls:// instead of tcp://)", c.Broker)
	case (c.Cert == "") != (c.Key == ""):
		return nil, errors.New("use a client certificate: cert and key belong together, one of them is missing")
	case c.PasswordFile != "" && c.Username == "":
		return nil, errors.New("use password_file: it needs a username")
	case c.KeepAlive < time.Second || c.KeepAlive > time.Hour:
		return nil, fmt.Errorf("keep_alive %s is not between 1s and 1h", c.KeepAlive)
	case c.Version != string(mqttlink.Auto) && c.Version != string(mqttlink.V311) && c.Version != string(mqttlink.V5):
		return nil, fmt.Errorf("version %q is none of auto, 3.1.1, 5", c.Version)
	case len(c.Metrics) == 0 && c.Publish == nil:
		return nil, errors.New("the list of metrics is empty: name at least one, or \"**\" for all; or let the agent publish")
	}
	if err := c.Host.validate(); err != nil {
		return nil, err
	}
	for i := range c.Metrics {
		if err := c.Metrics[i].validate(); err != nil {
			return nil, err
		}
	}
	if c.Publish != nil {
		return u, c.Publish.validate()
	}
	return u, nil
}

func (h *Host) validate() error {
	if err := validID("host.id", h.ID); err != nil {
		return err
	}
	for _, g := range h.Groups {
		if err := validID("host.groups", g); err != nil {
			return err
		}
	}
	if err := validFormat("host.state_format", h.StateFormat); err != nil {
		return err
	}
	for _, w := range []struct {
		key   string
		value time.Duration
	}{{"reorder_wait", h.ReorderWait}, {"rebirth_wait", h.RebirthWait}, {"history_wait", h.HistoryWait}} {
		if w.value < 100*time.Millisecond || w.value > 5*time.Minute {
			return fmt.Errorf("host.%s %s is not between 100ms and 5m", w.key, w.value)
		}
	}
	if h.Rebirth != "ask" && h.Rebirth != "never" {
		return fmt.Errorf("host.rebirth %q is neither ask nor never", h.Rebirth)
	}
	if h.MaxSize < 1024 || h.MaxSize > 32<<20 {
		return fmt.Errorf("host.max_size %d is not between 1024 and %d bytes", h.MaxSize, 32<<20)
	}
	return nil
}

func (p *Publish) validate() error {
	if err := errors.Join(validID("publish.group", p.Group), validID("publish.node", p.Node), validFormat("publish.state_format", p.StateFormat)); err != nil {
		return err
	}
	if p.PrimaryHost != "" {
		if err := validID("publish.primary_host", p.PrimaryHost); err != nil {
			return err
		}
	}
	if p.Stored < 1 || p.Stored > 1_000_000 {
		return fmt.Errorf("publish.stored %d is not between 1 and 1000000", p.Stored)
	}
	return nil
}

// validID checks a part of a topic.
func validID(key, s string) error {
	if s == "" || len(s) > 200 || strings.ContainsAny(s, "/+#\x00") {
		return fmt.Errorf("%s %q: a name in a topic must not be empty or hold /, + or #", key, s)
	}
	return nil
}

func validFormat(key, s string) error {
	if s != format30 && s != format22 {
		return fmt.Errorf("%s %q is neither 3.0 nor 2.2", key, s)
	}
	return nil
}

// options are those of a connection; the agent's edge node has one of its own, because a connection has one will.
func (d *driver) options(clientID string, will *mqttlink.Publication) mqttlink.Options {
	c := &d.config
	return mqttlink.Options{
		Broker: d.broker, ClientID: clientID, Username: c.Username, Password: c.password, Version: mqttlink.Version(c.Version),
		TLS:       mqttlink.TLS{CA: c.CA, Cert: c.Cert, Key: c.Key, ServerName: c.ServerName},
		KeepAlive: c.KeepAlive, Clean: true, Will: will,
	}
}

// password reads the first line of the password file.
func (c *Config) password() (string, error) {
	if c.PasswordFile == "" {
		return "", nil
	}
	b, err := os.ReadFile(c.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("read password_file: %w", err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSuffix(line, "\r"), nil
}
