// Package mqtt reads messages from an MQTT broker, 3.1.1 or 5, and hands work orders to receivers behind it.
//
// It owns one persistent session at one broker, and the journal of the work orders that it published. It promises that a
// message of QoS 1 is acknowledged only after emit made it durable, in the order of receipt; that what waits becomes durable in
// batches; that memory stays bounded by the window; and that a lost session, a refused topic or a stolen client name is shown.
// A message may come twice when the agent died between durable and acknowledged. A work order's revision is published under
// one id, with the same bytes each time, and counts as delivered when its receiver said so. It publishes nothing but work
// orders and its own status, and looks into no payload but answers to orders beyond decoding it.
package mqtt

import (
	_ "embed"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/mqttlink"
	"github.com/linekeeper/linekeeper/drivers/payload"
)

//go:embed sample.yaml
var sample string

// Kind is this driver in the agent's list.
var Kind = signal.Kind{Name: "mqtt", Sample: sample, New: newDriver, Discover: discover, Explore: newExplorer, Tags: "topics"}

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
	// StatusTopic is where the agent says that it is online, and the broker that it is not; empty: nowhere.
	StatusTopic string      `yaml:"status_topic"`
	Topics      []Topic     `yaml:"topics"`
	WorkOrders  *WorkOrders `yaml:"work_orders"`
}

// Topic is one subscription and what becomes of its messages.
type Topic struct {
	Tag string `yaml:"tag"`
	// Topic is a filter, in which {name} stands for one level that becomes a label; or $share/group/ and a filter.
	Topic string `yaml:"topic"`
	// Equipment makes the label "equipment" of the named levels: "{site}/{line}".
	Equipment string `yaml:"equipment"`
	Format    string `yaml:"format"` // "json" (default), "csv", "number", "text", "bytes"
	// CSV says how csv is written, Number how number is.
	CSV    payload.CSVOptions `yaml:"csv"`
	Number payload.Locale     `yaml:"number"`
	// Properties makes the value a map of payload and properties (MQTT 5: content_type, response_topic, correlation, expiry_s, user).
	Properties bool   `yaml:"with_properties"`
	MaxSize    int    `yaml:"max_size"` // bytes; default 262144
	Retained   string `yaml:"retained"` // "skip" (default), "use"

	pattern pattern
	answers bool // of work orders
}

func newDriver(env signal.Env, decode func(into any) error) (signal.Driver, error) {
	return makeDriver(env, decode, false)
}

// makeDriver makes a driver; one that only explores needs no topics.
func makeDriver(env signal.Env, decode func(into any) error, explores bool) (signal.Driver, error) {
	var c Config
	if err := decode(&c); err != nil {
		return nil, err
	}
	c.fill(env)
	u, err := c.validate(explores)
	if err != nil {
		return nil, err
	}
	d := &driver{env: env, config: c, broker: u, rules: newRules(c.Topics)}
	if c.WorkOrders != nil {
		d.orders = newOrders(env, c.WorkOrders)
	}
	return d, nil
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
	if c.WorkOrders != nil {
		c.WorkOrders.fill()
		if t, ok := c.WorkOrders.answersTopic(); ok {
			c.Topics = append(slices.Clip(c.Topics), t)
		}
	}
	for i := range c.Topics {
		c.Topics[i].fill(env.Zone)
	}
}

func (t *Topic) fill(zone *time.Location) {
	if t.Format == "" {
		t.Format = "json"
	}
	if t.MaxSize == 0 {
		t.MaxSize = 256 << 10
	}
	if t.Retained == "" {
		t.Retained = "skip"
	}
	t.CSV.Zone = zone
}

func (c *Config) validate(explores bool) (*url.URL, error) {
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
	case len(c.Topics) == 0 && c.WorkOrders == nil && !explores:
		return nil, errors.New("the list of topics is empty: name at least one, or work_orders")
	case strings.ContainsAny(c.StatusTopic, "+#\x00"):
		return nil, fmt.Errorf("status_topic %q: + and # cannot stand in a topic that is published", c.StatusTopic)
	}
	if c.WorkOrders != nil {
		if err := c.WorkOrders.validate(); err != nil {
			return nil, fmt.Errorf("work_orders: %w", err)
		}
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
