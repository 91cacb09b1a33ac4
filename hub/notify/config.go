package notify

import (
	"cmp"
	"fmt"
	"net"
	"net/mail"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector/secret"
	"github.com/linekeeper/linekeeper/hub/reconcile"
)

// Config says who is told of exceptions, and how.
type Config struct {
	// Console is the address under which people reach the console, such as https://hub.example.com:8443. Messages lead there. Empty:
	// they name the exception only.
	Console   string           `yaml:"console"`
	Receivers []ReceiverConfig `yaml:"receivers"`
	Rules     []RuleConfig     `yaml:"rules"`
	SMTP      SMTPConfig       `yaml:"smtp"`
	// Collect is how long what comes together is gathered before it is told; it is four times that while ever more comes. Default 10s,
	// at most 10s, because an exception is told within a minute.
	Collect time.Duration `yaml:"collect"`
	// Digest is the pause after a message that tells of very many, or after several. Default 10m.
	Digest time.Duration `yaml:"digest"`
}

// ReceiverConfig is somebody who is told by one way.
type ReceiverConfig struct {
	Name    string         `yaml:"name"`
	Webhook *WebhookConfig `yaml:"webhook"`
	Email   *EmailConfig   `yaml:"email"`
}

// WebhookConfig is an address that takes CloudEvents, signed as Standard Webhooks has it.
type WebhookConfig struct {
	URL    string        `yaml:"url"`
	Secret secret.Source `yaml:"secret"`
	// CAFile is a PEM file of the authority of the receiver's certificate, where the system does not know it.
	CAFile string `yaml:"ca_file"`
	// Plain allows http: anybody on the way can read what is told, and nobody can change it unnoticed.
	Plain bool `yaml:"allow_http"`
}

// EmailConfig names mail addresses; each gets a message of its own.
type EmailConfig struct {
	To []string `yaml:"to"`
}

// SMTPConfig is the server that takes mail.
type SMTPConfig struct {
	Server string `yaml:"server"` // host:port
	// TLS is starttls (the default), implicit, or none, which sends no password.
	TLS      string        `yaml:"tls"`
	From     string        `yaml:"from"`
	User     string        `yaml:"user"`
	Password secret.Source `yaml:"password"`
	CAFile   string        `yaml:"ca_file"`
}

// The ways of TLS toward a mail server.
const (
	startTLS    = "starttls"
	implicitTLS = "implicit"
	noTLS       = "none"
)

// RuleConfig tells receivers of exceptions that fit. All rules that fit count; empty lists fit everything.
type RuleConfig struct {
	Tell  []string `yaml:"tell"`
	Owner []string `yaml:"owner"` // roles
	Plant []string `yaml:"plant"`
	// Severity is the lowest that is told: low, medium (the default), high.
	Severity string `yaml:"severity"`
	// Tier is the escalation from which on it is told: 0 (the default) at once, 1 when its time has passed, 2 when it has passed twice.
	Tier int `yaml:"tier"`
}

// Fault is one thing wrong with the configuration.
type Fault struct{ Where, Text, Hint string }

// Roles are those that an exception can belong to.
func Roles() []string {
	return []string{string(reconcile.Production), string(reconcile.Controlling), string(reconcile.Planning), string(reconcile.Warehouse), string(reconcile.Quality), string(reconcile.Masterdata), string(reconcile.Automation)}
}

var severities = []string{string(reconcile.Low), string(reconcile.Medium), string(reconcile.High)}

// SetDefaults fills in what is left out and finds files whose relative names start at dir.
func (c *Config) SetDefaults(dir string) {
	c.Collect = cmp.Or(c.Collect, 10*time.Second)
	c.Digest = cmp.Or(c.Digest, 10*time.Minute)
	c.SMTP.TLS = cmp.Or(c.SMTP.TLS, startTLS)
	for i := range c.Rules {
		c.Rules[i].Severity = cmp.Or(c.Rules[i].Severity, string(reconcile.Medium))
	}
	files := []*string{&c.SMTP.Password.File, &c.SMTP.CAFile}
	for _, r := range c.Receivers {
		if r.Webhook != nil {
			files = append(files, &r.Webhook.Secret.File, &r.Webhook.CAFile)
		}
	}
	for _, f := range files {
		if *f != "" && !filepath.IsAbs(*f) {
			*f = filepath.Join(dir, *f)
		}
	}
}

// Check finds everything wrong without touching the network; it reads the files that are named. plants are the hub's.
func (c *Config) Check(plants []string) []Fault {
	var faults []Fault
	add := func(where, hint, format string, args ...any) {
		faults = append(faults, Fault{Where: "notify." + where, Text: fmt.Sprintf(format, args...), Hint: hint})
	}
	if u, err := url.Parse(c.Console); c.Console != "" && (err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http") {
		add("console", "write it like https://hub.example.com:8443", "%q is no address of a console", c.Console)
	}
	if c.Collect < 0 || c.Collect > 10*time.Second {
		add("collect", "use up to 10s", "%s is out of range: an exception is told within a minute", c.Collect)
	}
	if c.Digest < 0 {
		add("digest", "write a duration such as 10m", "%s is negative", c.Digest)
	}
	c.checkReceivers(add)
	c.checkRules(add, plants)
	if len(faults) > 0 {
		return faults
	}
	_, wrong := c.ways()
	for _, f := range wrong {
		add(f.Where, f.Hint, "%s", f.Text)
	}
	return faults
}

type adder func(where, hint, format string, args ...any)

func (c *Config) checkReceivers(add adder) {
	seen := map[string]bool{}
	mails := false
	for i, r := range c.Receivers {
		where := fmt.Sprintf("receivers[%d]", i+1)
		if r.Name == "" || strings.ContainsAny(r.Name, "/\n") || seen[r.Name] {
			add(where, "give each its own name, without a slash", "the name %q is missing, not usable or there twice", r.Name)
		}
		seen[r.Name] = true
		if (r.Webhook == nil) == (r.Email == nil) {
			add(where, "write webhook: {url: ..., secret: {file: ...}} or email: {to: [...]}", "receiver %q needs either a webhook or an email", r.Name)
			continue
		}
		if r.Email != nil {
			mails = true
			checkAddresses(add, where, r)
			continue
		}
		u, err := url.Parse(r.Webhook.URL)
		switch {
		case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil:
			add(where+".webhook.url", "write it like https://host/path, without a password", "receiver %q has no usable address", r.Name)
		case u.Scheme == "http" && !r.Webhook.Plain && !loopback(u.Hostname()):
			add(where+".webhook.url", "use https, or allow_http: true where nobody else is on the way", "receiver %q would be told in the clear", r.Name)
		}
		if !slices.ContainsFunc(c.Rules, func(rule RuleConfig) bool { return slices.Contains(rule.Tell, r.Name) }) {
			add(where, "name it in tell: of a rule", "no rule tells receiver %q anything", r.Name)
		}
	}
	if mails {
		c.checkSMTP(add)
	}
}

func checkAddresses(add adder, where string, r ReceiverConfig) {
	if len(r.Email.To) == 0 {
		add(where+".email.to", "write to: [lead@example.com]", "receiver %q has no mail address", r.Name)
	}
	for _, to := range r.Email.To {
		if a, err := mail.ParseAddress(to); err != nil || a.Address != to {
			add(where+".email.to", "write it like lead@example.com", "%q is no mail address", to)
		}
	}
}

func (c *Config) checkSMTP(add adder) {
	s := c.SMTP
	if host, port, err := net.SplitHostPort(s.Server); err != nil || host == "" || port == "" {
		add("smtp.server", "write host:port, such as mail.example.com:587", "address %q of the mail server is not valid", s.Server)
	}
	if a, err := mail.ParseAddress(s.From); err != nil || a.Address != s.From {
		add("smtp.from", "write it like linekeeper@example.com", "%q is no mail address", s.From)
	}
	switch {
	case s.TLS != startTLS && s.TLS != implicitTLS && s.TLS != noTLS:
		add("smtp.tls", "use starttls, implicit or none", "%q is not known", s.TLS)
	case s.TLS == noTLS && s.User != "":
		add("smtp.tls", "use starttls or implicit, or leave out the user", "the password would be sent in the clear")
	}
}

func (c *Config) checkRules(add adder, plants []string) {
	if len(c.Rules) == 0 && len(c.Receivers) > 0 {
		add("rules", "write rules: [{tell: [NAME]}] to tell of everything", "there is no rule: nobody is told anything")
	}
	for i, r := range c.Rules {
		where := fmt.Sprintf("rules[%d]", i+1)
		if len(r.Tell) == 0 {
			add(where+".tell", "name receivers", "the rule tells nobody")
		}
		for _, name := range r.Tell {
			if !slices.ContainsFunc(c.Receivers, func(x ReceiverConfig) bool { return x.Name == name }) {
				add(where+".tell", "name one of receivers", "receiver %q is not configured", name)
			}
		}
		for _, o := range r.Owner {
			if !slices.Contains(Roles(), o) {
				add(where+".owner", "use one of "+strings.Join(Roles(), ", "), "role %q is not known", o)
			}
		}
		for _, p := range r.Plant {
			if !slices.Contains(plants, p) {
				add(where+".plant", "name one of plants", "plant %q is not configured", p)
			}
		}
		if !slices.Contains(severities, r.Severity) {
			add(where+".severity", "use "+strings.Join(severities, ", "), "severity %q is not known", r.Severity)
		}
		if r.Tier < 0 || r.Tier > 2 {
			add(where+".tier", "use 0, 1 or 2", "%d is out of range", r.Tier)
		}
	}
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// fits reports whether a rule tells of an exception.
func (r RuleConfig) fits(plant, owner string, severity reconcile.Severity, tier int) bool {
	in := func(list []string, v string) bool { return len(list) == 0 || slices.Contains(list, v) }
	return in(r.Owner, owner) && in(r.Plant, plant) && tier >= r.Tier && slices.Index(severities, string(severity)) >= slices.Index(severities, r.Severity)
}
