package opcua

import (
	_ "embed"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gopcua/opcua/ua"

	"github.com/linekeeper/linekeeper/agent/signal"
)

//go:embed opcua.sample.yaml
var sample string

// Kind is the driver as the agent's list names it.
var Kind = signal.Kind{Name: "opcua", Sample: sample, New: newDriver, Discover: discover, Explore: newExplorer, Tags: "nodes"}

// Config is the section of one OPC UA source.
type Config struct {
	// Endpoint is the server's address, such as opc.tcp://host:4840/path. The agent never connects to another one, even if
	// the server names it.
	Endpoint string `yaml:"endpoint"`
	// SecurityPolicy is Basic256Sha256 (default), Aes128_Sha256_RsaOaep, Aes256_Sha256_RsaPss or None; with AllowDeprecated
	// also Basic128Rsa15 or Basic256. Policies with elliptic curves are not possible.
	SecurityPolicy string `yaml:"security_policy"`
	// AllowDeprecated allows policies that are not safe any more.
	AllowDeprecated bool `yaml:"allow_deprecated"`
	// SecurityMode is SignAndEncrypt (default) or Sign.
	SecurityMode string `yaml:"security_mode"`
	// User is whom the agent logs in as; Anonymous true instead of it logs in as nobody.
	User      *User `yaml:"user"`
	Anonymous bool  `yaml:"anonymous"`
	// AllowInsecurePassword lets a password out where it is not protected by an encrypted, verified channel.
	AllowInsecurePassword bool `yaml:"allow_insecure_password"`
	// ApplicationURI names the agent in its certificate; when empty it is the one in Certificate, or else
	// urn:linekeeper:<plant>:<agent>.
	ApplicationURI string `yaml:"application_uri"`
	// Certificate and Key are the agent's own when an authority of the plant issued them (RSA, PEM or DER, file names relative to
	// the configuration's folder). Empty, the agent makes a pair of its own and renews it.
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`
	// Tolerate lists faults of a trusted certificate that are accepted: "expired", "application_uri".
	Tolerate []string `yaml:"tolerate"`
	// PublishingInterval is how often the server sends changes; 250 ms when zero.
	PublishingInterval time.Duration `yaml:"publishing_interval"`
	// KeepAlive is how often it sends a sign of life when nothing changed; 2 s when zero.
	KeepAlive time.Duration `yaml:"keep_alive"`
	// SessionTimeout and Lifetime are how long the server keeps session and subscription of an agent that is away; 10
	// minutes each when zero.
	SessionTimeout time.Duration `yaml:"session_timeout"`
	Lifetime       time.Duration `yaml:"lifetime"`
	// Read is how values are read: "subscribe", or "poll" for servers whose subscriptions do not work; empty subscribes, and polls
	// where the server has no subscriptions. PollEvery is how often polled nodes are read; 1 s when zero.
	Read      string        `yaml:"read"`
	PollEvery time.Duration `yaml:"poll_every"`
	// SkipHistory leaves a gap as it is where the server's history could fill it.
	SkipHistory bool `yaml:"skip_history"`
	// Nodes are what is read.
	Nodes []Node `yaml:"nodes"`
	// WorkOrders is how the server's machines take work orders; nil when they take none.
	WorkOrders *OrdersConfig `yaml:"work_orders"`

	explores bool // it is never run
}

// User is an identity at the server: Name with PasswordFile, Certificate with Key, or TokenFile. File names are relative to the
// configuration's folder.
type User struct {
	Name         string `yaml:"name"`
	PasswordFile string `yaml:"password_file"`
	Certificate  string `yaml:"certificate"`
	Key          string `yaml:"key"`
	// TokenFile holds a JSON Web Token that an authorization server issued (OPC 10000-6, 6.5); who has it renewed writes the
	// file anew. It is read at every login.
	TokenFile string `yaml:"token_file"`
}

// Node is one monitored value.
type Node struct {
	// Tag names the signals; unique in a source.
	Tag string `yaml:"tag"`
	// Node is the node's id: "ns=2;s=Press1.Good" or "nsu=urn:maker:press;s=Press1.Good".
	Node string `yaml:"node"`
	// Path is the node's browse path, such as "Objects/<urn:maker:press>Press1/Good": it is looked up at each connect and when
	// the id is unknown, so that it survives ids that change. With Node as well, the path counts where the server knows it.
	Path string `yaml:"path"`
	// Sampling is how often the server looks at the value: 100 ms when nil, 0 where it notices each change by itself.
	Sampling *time.Duration `yaml:"sampling"`
	// Queue is how many values the server keeps for the node; 1000 when zero.
	Queue uint32 `yaml:"queue"`
	// Deadband is the change of a number that is not worth reporting; 0 reports every change. DeadbandPercent is the same in
	// percent of the node's range (EURange), where it has one. A server that takes neither reports every change.
	Deadband        float64 `yaml:"deadband"`
	DeadbandPercent float64 `yaml:"deadband_percent"`
	// ExpectEvery is how long the node may be silent before the page says so; 0 says nothing.
	ExpectEvery time.Duration `yaml:"expect_every"`
}

const (
	defaultPublishing = 250 * time.Millisecond
	defaultKeepAlive  = 2 * time.Second
	defaultTimeout    = 10 * time.Minute
	defaultSampling   = 100 * time.Millisecond
	defaultQueue      = 1000
)

func newDriver(env signal.Env, decode func(into any) error) (signal.Driver, error) {
	return makeDriver(env, decode, false)
}

// newExplorer makes a driver that only looks around: it needs no nodes.
func newExplorer(env signal.Env, decode func(into any) error) (signal.Driver, error) {
	return makeDriver(env, decode, true)
}

func makeDriver(env signal.Env, decode func(into any) error, explores bool) (signal.Driver, error) {
	var c Config
	if err := decode(&c); err != nil {
		return nil, err
	}
	c.explores = explores
	c.setDefaults(env)
	if err := c.Validate(); err != nil {
		return nil, err
	}
	files := []*string{&c.Certificate, &c.Key}
	if c.User != nil {
		files = append(files, &c.User.PasswordFile, &c.User.Certificate, &c.User.Key, &c.User.TokenFile)
	}
	for _, f := range files {
		if *f != "" && !filepath.IsAbs(*f) {
			*f = filepath.Join(env.ConfigDir, *f)
		}
	}
	d := &driver{env: env, config: c, pace: defaultPace}
	if c.WorkOrders != nil {
		return &orderDriver{driver: d, orders: newOrders(env, c.WorkOrders, &d.lobby)}, nil
	}
	return d, nil
}

func (c *Config) setDefaults(env signal.Env) {
	if c.SecurityPolicy == "" {
		c.SecurityPolicy = "Basic256Sha256"
	}
	if c.SecurityPolicy != "None" && c.SecurityMode == "" {
		c.SecurityMode = "SignAndEncrypt"
	}
	if c.ApplicationURI == "" && c.Certificate == "" {
		c.ApplicationURI = "urn:linekeeper:" + url.PathEscape(env.Plant) + ":" + url.PathEscape(env.Agent)
	}
	if c.WorkOrders != nil {
		c.WorkOrders.setDefaults()
	}
	setDefault(&c.PublishingInterval, defaultPublishing)
	setDefault(&c.KeepAlive, defaultKeepAlive)
	setDefault(&c.PollEvery, defaultPolling)
	setDefault(&c.SessionTimeout, defaultTimeout)
	setDefault(&c.Lifetime, defaultTimeout)
	for i := range c.Nodes {
		n := &c.Nodes[i]
		if n.Sampling == nil {
			d := defaultSampling
			n.Sampling = &d
		}
		if n.Queue == 0 {
			n.Queue = defaultQueue
		}
	}
}

func setDefault(d *time.Duration, to time.Duration) {
	if *d == 0 {
		*d = to
	}
}

// Validate says what in the section can never work.
func (c *Config) Validate() error {
	if err := c.validateEndpoint(); err != nil {
		return err
	}
	if err := c.validateSecurity(); err != nil {
		return err
	}
	if err := c.validateUser(); err != nil {
		return err
	}
	if err := c.validateTimes(); err != nil {
		return err
	}
	if c.WorkOrders != nil {
		if err := c.WorkOrders.Validate(); err != nil {
			return err
		}
	}
	if err := c.validateReading(); err != nil {
		return err
	}
	return c.validateNodes()
}

func (c *Config) validateEndpoint() error {
	u, err := url.Parse(c.Endpoint)
	if err != nil || u.Scheme != "opc.tcp" || u.Hostname() == "" {
		return fmt.Errorf("endpoint %q is not an OPC UA address: write it as opc.tcp://host:4840", c.Endpoint)
	}
	return nil
}

func (c *Config) validateSecurity() error {
	switch c.SecurityPolicy {
	case "None":
		if c.SecurityMode != "" && c.SecurityMode != "None" {
			return fmt.Errorf("security_mode %q is not possible with security_policy None: leave it out", c.SecurityMode)
		}
	case "Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss":
		if c.SecurityMode != "Sign" && c.SecurityMode != "SignAndEncrypt" {
			return fmt.Errorf("security_mode %q is unknown: write Sign or SignAndEncrypt", c.SecurityMode)
		}
	case "Basic128Rsa15", "Basic256":
		if !c.AllowDeprecated {
			return fmt.Errorf("security_policy %s is not safe any more: choose Basic256Sha256 or better in the server, or write "+
				"`allow_deprecated: true`", c.SecurityPolicy)
		}
		if c.SecurityMode != "Sign" && c.SecurityMode != "SignAndEncrypt" {
			return fmt.Errorf("security_mode %q is unknown: write Sign or SignAndEncrypt", c.SecurityMode)
		}
	default:
		if strings.HasPrefix(c.SecurityPolicy, "ECC_") {
			return fmt.Errorf("security_policy %q is not possible: this agent has no elliptic curves; enable Basic256Sha256, "+
				"Aes128_Sha256_RsaOaep or Aes256_Sha256_RsaPss in the server", c.SecurityPolicy)
		}
		return fmt.Errorf("security_policy %q is unknown: write Basic256Sha256, Aes128_Sha256_RsaOaep, Aes256_Sha256_RsaPss "+
			"or None", c.SecurityPolicy)
	}
	for _, t := range c.Tolerate {
		if t != "expired" && t != "application_uri" {
			return fmt.Errorf("tolerate %q is unknown: write expired or application_uri", t)
		}
	}
	if (c.Certificate == "") != (c.Key == "") {
		return errors.New("certificate and key belong together: name both files, or none and the agent makes its own")
	}
	if u, err := url.Parse(c.ApplicationURI); c.ApplicationURI != "" && (err != nil || u.Scheme == "") {
		return fmt.Errorf("application_uri %q is not a URI: write it as urn:company:plant:agent", c.ApplicationURI)
	}
	return nil
}

func (c *Config) validateUser() error {
	if c.User == nil {
		if !c.Anonymous {
			return errors.New("user is missing: name a user and password_file, or write `anonymous: true`")
		}
		return nil
	}
	u := c.User
	byName, byCertificate, byToken := u.Name != "" || u.PasswordFile != "", u.Certificate != "" || u.Key != "", u.TokenFile != ""
	switch {
	case c.Anonymous:
		return errors.New("user and anonymous exclude each other: remove one of them")
	case byName && byCertificate:
		return errors.New("user has a name and a certificate: remove one of them")
	case byToken && (byName || byCertificate):
		return errors.New("user has token_file and a name or certificate: remove one of them")
	case byName && (u.Name == "" || u.PasswordFile == ""):
		return errors.New("user needs both name and password_file")
	case byCertificate && (u.Certificate == "" || u.Key == ""):
		return errors.New("user needs both certificate and key")
	case !byName && !byCertificate && !byToken:
		return errors.New("user is empty: set name and password_file, certificate and key, or token_file")
	case c.SecurityPolicy == "None" && byName && !c.AllowInsecurePassword:
		return fmt.Errorf("user %q would send its password without encryption to a server that nobody checked: choose another "+
			"security_policy, or write `allow_insecure_password: true`", u.Name)
	case c.SecurityPolicy == "None" && byToken && !c.AllowInsecurePassword:
		return errors.New("the token of token_file would go without encryption to a server that nobody checked: choose another " +
			"security_policy, or write `allow_insecure_password: true`")
	}
	return nil
}

func (c *Config) validateTimes() error {
	const longest = 7 * 24 * time.Hour
	for _, t := range []struct {
		name     string
		value    time.Duration
		min, max time.Duration
	}{
		{"publishing_interval", c.PublishingInterval, 10 * time.Millisecond, time.Minute},
		{"keep_alive", c.KeepAlive, 500 * time.Millisecond, 5 * time.Minute},
		{"session_timeout", c.SessionTimeout, 10 * time.Second, longest},
		{"lifetime", c.Lifetime, 10 * time.Second, longest},
	} {
		if t.value < t.min || t.value > t.max {
			return fmt.Errorf("%s %s is out of range: choose %s to %s", t.name, t.value, t.min, t.max)
		}
	}
	if c.Lifetime < 3*c.KeepAlive {
		return fmt.Errorf("lifetime %s is too short: it must be at least three times keep_alive %s", c.Lifetime, c.KeepAlive)
	}
	return nil
}

func (c *Config) validateNodes() error {
	if len(c.Nodes) == 0 && c.WorkOrders == nil && !c.explores {
		return errors.New("nodes is empty: name at least one tag and node")
	}
	seen := map[string]bool{}
	for i, n := range c.Nodes {
		if n.Tag == "" {
			return fmt.Errorf("node %d (%q) has no tag", i+1, n.Node)
		}
		if seen[n.Tag] {
			return fmt.Errorf("tag %q is used twice: tags are unique in a source", n.Tag)
		}
		seen[n.Tag] = true
		if err := n.validateName(); err != nil {
			return fmt.Errorf("tag %q: %w", n.Tag, err)
		}
		if *n.Sampling < 0 || *n.Sampling > time.Hour {
			return fmt.Errorf("tag %q: sampling %s is out of range: choose 0s to 1h", n.Tag, *n.Sampling)
		}
	}
	return nil
}

// validateName checks what the node is found by: its id, its path, or both.
func (n *Node) validateName() error {
	if n.Node == "" && n.Path == "" {
		return errors.New("it has neither node nor path: name the node's id, or its browse path")
	}
	if n.Path != "" {
		if _, err := parsePath(n.Path); err != nil {
			return err
		}
	}
	if n.Node != "" {
		if _, err := parseNode(n.Node); err != nil {
			return err
		}
	}
	return nil
}

// policyURI is the security policy as the protocol names it.
func (c *Config) policyURI() string { return ua.FormatSecurityPolicyURI(c.SecurityPolicy) }

// mode is the security mode as the protocol names it.
func (c *Config) mode() ua.MessageSecurityMode {
	switch c.SecurityMode {
	case "Sign":
		return ua.MessageSecurityModeSign
	case "SignAndEncrypt":
		return ua.MessageSecurityModeSignAndEncrypt
	}
	return ua.MessageSecurityModeNone
}

// tolerates reports whether a certificate's fault is accepted.
func (c *Config) tolerates(fault string) bool {
	for _, t := range c.Tolerate {
		if t == fault {
			return true
		}
	}
	return false
}

// secret reads what the user is let in with: the password, the first line of its file, as an editor or echo leaves it, or the
// token, all of its file without blanks around it.
func (u *User) secret() (string, error) {
	if u.TokenFile == "" {
		return u.password()
	}
	b, err := os.ReadFile(u.TokenFile)
	token := strings.TrimSpace(string(b))
	switch {
	case err != nil:
		return "", fmt.Errorf("read the user's token: %w", err)
	case token == "" || strings.ContainsAny(token, " \t\r\n"):
		return "", fmt.Errorf("token file %q does not hold one token: write the token alone, as it was issued", u.TokenFile)
	}
	return token, nil
}

// password reads the user's password: the first line of its file, as an editor or echo leaves it.
func (u *User) password() (string, error) {
	b, err := os.ReadFile(u.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("read the password of user %q: %w", u.Name, err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSuffix(line, "\r"), nil
}
