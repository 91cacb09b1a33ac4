// Package mqtt reads messages from an MQTT 3.1.1 broker.
//
// It owns one persistent session at one broker. It promises that a message of QoS 1 is acknowledged only after emit made it
// durable, in the order of receipt; that what waits becomes durable in batches; that memory stays bounded by the window; and
// that a lost session, a refused topic or a stolen client name is shown. A message may come twice when the agent died
// between durable and acknowledged. It never publishes, and it never looks into a payload beyond decoding it.
package mqtt

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
var Kind = signal.Kind{Name: "mqtt", Sample: sample, New: newDriver}

// Config is a source's section. Zero values mean the defaults that the sample names.
type Config struct {
	Broker       string `yaml:"broker"`
	ClientID     string `yaml:"client_id"`
	Username     string `yaml:"username"`
	PasswordFile string `yaml:"password_file"`
	CA           string `yaml:"ca"`
	Cert         string `yaml:"cert"`
	Key          string `yaml:"key"`
	ServerName   string `yaml:"server_name"`
	// Version is auto (default), 3.1.1 or 5.
	Version   mqttlink.Version `yaml:"version"`
	KeepAlive time.Duration    `yaml:"keep_alive"` // default 20s
	// SessionExpiry is how long a version 5 broker keeps the session without a connection; default for ever.
	SessionExpiry time.Duration `yaml:"session_expiry"`
	Window        int           `yaml:"window"` // messages; default 5000
	Batch         int           `yaml:"batch"`  // messages; default 1500, or the window where that is less
	Topics        []Topic       `yaml:"topics"`
}

// Topic is one subscription and what becomes of its messages.
type Topic struct {
	Tag      string `yaml:"tag"`
	Filter   string `yaml:"topic"`
	Format   string `yaml:"format"`   // "json" (default), "text", "bytes"
	MaxSize  int    `yaml:"max_size"` // bytes; default 262144
	Retained string `yaml:"retained"` // "skip" (default), "use"
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
	return &driver{env: env, config: c, broker: u, rules: newRules(c.Topics)}, nil
}

func (c *Config) fill(env signal.Env) {
	if c.ClientID == "" {
		c.ClientID = strings.Join([]string{"linekeeper", env.Plant, env.Agent, env.Source}, "-")
	}
	if c.KeepAlive == 0 {
		c.KeepAlive = 20 * time.Second
	}
	if c.Version == "" {
		c.Version = mqttlink.Auto
	}
	if c.SessionExpiry == 0 {
		c.SessionExpiry = mqttlink.Forever
	}
	if c.Window == 0 {
		c.Window = 5000
	}
	if c.Batch == 0 {
		c.Batch = min(1500, c.Window)
	}
	for _, f := range []*string{&c.PasswordFile, &c.CA, &c.Cert, &c.Key} {
		if *f != "" && !filepath.IsAbs(*f) {
			*f = filepath.Join(env.ConfigDir, *f)
		}
	}
	for i := range c.Topics {
		t := &c.Topics[i]
		if t.Format == "" {
			t.Format = "json"
		}
		if t.MaxSize == 0 {
			t.MaxSize = 256 << 10
		}
		if t.Retained == "" {
			t.Retained = "skip"
		}
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
	case c.Version != mqttlink.Auto && c.Version != mqttlink.V311 && c.Version != mqttlink.V5:
		return nil, fmt.Errorf("version %q is none of auto, 3.1.1, 5", c.Version)
	case c.SessionExpiry < time.Hour:
		return nil, fmt.Errorf("session_expiry %s is below 1h: what waits at the broker for the agent would soon be thrown away", c.SessionExpiry)
	case c.Window < 1 || c.Batch < 1 || c.Batch > c.Window:
		return nil, fmt.Errorf("batch %d and window %d: both must be above 0 and batch not above window", c.Batch, c.Window)
	case len(c.Topics) == 0:
		return nil, errors.New("the list of topics is empty: name at least one")
	}
	return u, validateTopics(c.Topics)
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
