// Package rest reads records from an MES's HTTP interface, takes its webhooks, and hands work orders to it.
//
// It owns the requests of one MES and one listening address. It promises that a record is emitted once under an identity of
// the MES's own, also when it turns up late, when the agent dies between two steps, or when an answer is lost; that a webhook
// is answered with success only after it is durable; that an order that is sent twice carries the same key; that numbers stay
// exact; and that credentials go to the configured host only and into no log. It never changes anything in the MES but by the
// work orders that it is given.
package rest

import (
	_ "embed"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
)

//go:embed sample.yaml
var sample string

// Kind is this driver in the agent's list.
var Kind = signal.Kind{Name: "rest", Sample: sample, New: newDriver, Discover: discover, Explore: exploreDriver, Tags: "queries"}

// Config is a source's section. Zero values mean the defaults that the sample names.
type Config struct {
	Base       string        `yaml:"base"`
	Auth       *Auth         `yaml:"auth"`
	TLS        *TLS          `yaml:"tls"`
	Zone       string        `yaml:"zone"`     // IANA name, of times that carry none; default: the plant's
	Timeout    time.Duration `yaml:"timeout"`  // of a request; default 30s
	MaxBody    int64         `yaml:"max_body"` // bytes; default 16 MiB
	Queries    []Query       `yaml:"queries"`
	Webhook    *Webhook      `yaml:"webhook"`
	WorkOrders *WorkOrders   `yaml:"work_orders"`
}

// Auth is how the MES knows the agent: one of these.
type Auth struct {
	Basic      *Basic  `yaml:"basic"`
	BearerFile string  `yaml:"bearer_file"`
	Header     *Header `yaml:"header"`
	OAuth2     *OAuth2 `yaml:"oauth2"`
}

// Basic is a user with a password.
type Basic struct {
	User         string `yaml:"user"`
	PasswordFile string `yaml:"password_file"`
}

// Header is a key in a header.
type Header struct {
	Name      string `yaml:"name"`
	ValueFile string `yaml:"value_file"`
}

// OAuth2 is the client credentials grant.
type OAuth2 struct {
	TokenURL         string            `yaml:"token_url"`
	ClientID         string            `yaml:"client_id"`
	ClientSecretFile string            `yaml:"client_secret_file"`
	Scopes           []string          `yaml:"scopes"`
	Parameters       map[string]string `yaml:"parameters"`
	InBody           bool              `yaml:"in_body"` // id and secret in the body instead of a header
}

// TLS is whom to trust and who we are.
type TLS struct {
	CAFile     string `yaml:"ca_file"`
	CertFile   string `yaml:"cert_file"`
	KeyFile    string `yaml:"key_file"`
	ServerName string `yaml:"server_name"`
}

// Query is one address that is polled.
type Query struct {
	Tag       string            `yaml:"tag"`
	URL       string            `yaml:"url"`
	Method    string            `yaml:"method"` // default GET
	Headers   map[string]string `yaml:"headers"`
	Body      string            `yaml:"body"`
	Records   string            `yaml:"records"` // path of the list; default: the answer itself
	Key       []string          `yaml:"key"`
	Version   string            `yaml:"version"` // a field, or "content"
	Time      string            `yaml:"time"`    // a field; becomes the signal's source time
	Cursor    *Place            `yaml:"cursor"`
	Next      *Place            `yaml:"next"`
	First     string            `yaml:"first"`
	Overlap   string            `yaml:"overlap"`   // a duration or a number
	PageSize  int               `yaml:"page_size"` // {limit}
	Unordered bool              `yaml:"unordered"`
	Poll      time.Duration     `yaml:"poll"` // default 5s

	overlap overlap
}

// Place is where an answer says how to go on: one of these.
type Place struct {
	Field  string `yaml:"field"`  // of the records: the highest value
	Body   string `yaml:"body"`   // a path in the answer
	Header string `yaml:"header"` // of the answer
	Link   string `yaml:"link"`   // the rel of a Link header
}

func newDriver(env signal.Env, decode func(into any) error) (signal.Driver, error) {
	return makeDriver(env, decode, false)
}

func exploreDriver(env signal.Env, decode func(into any) error) (signal.Driver, error) {
	return makeDriver(env, decode, true)
}

func makeDriver(env signal.Env, decode func(into any) error, explore bool) (signal.Driver, error) {
	var c Config
	if err := decode(&c); err != nil {
		return nil, err
	}
	c.fill(env)
	if err := c.validate(explore); err != nil {
		return nil, err
	}
	zone := env.Zone
	if c.Zone != "" {
		var err error
		if zone, err = time.LoadLocation(c.Zone); err != nil {
			return nil, fmt.Errorf("zone %q is unknown: write an IANA name such as Europe/Berlin", c.Zone)
		}
	}
	if zone == nil {
		zone = time.UTC
	}
	return newSource(env, c, zone)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (c *Config) fill(env signal.Env) {
	setDefault(&c.Timeout, 30*time.Second)
	setDefault(&c.MaxBody, 16<<20)
	inFolder := func(path *string) {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(env.ConfigDir, *path)
		}
	}
	if a := c.Auth; a != nil {
		inFolder(&a.BearerFile)
		if a.Basic != nil {
			inFolder(&a.Basic.PasswordFile)
		}
		if a.Header != nil {
			inFolder(&a.Header.ValueFile)
		}
		if a.OAuth2 != nil {
			inFolder(&a.OAuth2.ClientSecretFile)
		}
	}
	if t := c.TLS; t != nil {
		inFolder(&t.CAFile)
		inFolder(&t.CertFile)
		inFolder(&t.KeyFile)
	}
	for i := range c.Queries {
		c.Queries[i].fill()
	}
	if c.Webhook != nil {
		c.Webhook.fill(inFolder)
	}
	if c.WorkOrders != nil {
		c.WorkOrders.fill()
	}
}

func (q *Query) fill() {
	setDefault(&q.Method, "GET")
	q.Method = strings.ToUpper(q.Method)
	setDefault(&q.Poll, 5*time.Second)
	setDefault(&q.PageSize, 500)
}

func (c *Config) validate(explore bool) error {
	if c.Base != "" {
		if u, err := url.Parse(c.Base); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil {
			return errors.New("base is no address such as https://mes.example/api, or has a password in it: use auth")
		}
	}
	if c.Timeout < 100*time.Millisecond || c.MaxBody < 1024 {
		return errors.New("timeout must be at least 100ms and max_body at least 1024 bytes")
	}
	if err := errors.Join(c.Auth.validate(), c.TLS.validate()); err != nil {
		return err
	}
	if len(c.Queries) == 0 && c.Webhook == nil && c.WorkOrders == nil && !explore {
		return errors.New("neither queries nor webhook nor work_orders are configured: there is nothing to do")
	}
	tags := map[string]bool{ordersSection: true, "": true}
	for i := range c.Queries {
		q := &c.Queries[i]
		if tags[q.Tag] {
			return fmt.Errorf("queries: tag %q is empty, reserved or used twice", q.Tag)
		}
		tags[q.Tag] = true
		if err := q.validate(c.Base); err != nil {
			return fmt.Errorf("queries: %q: %w", q.Tag, err)
		}
	}
	if w := c.Webhook; w != nil {
		if err := w.validate(); err != nil {
			return fmt.Errorf("webhook: %w", err)
		}
	}
	if w := c.WorkOrders; w != nil {
		if err := w.validate(c.Base); err != nil {
			return fmt.Errorf("work_orders: %w", err)
		}
	}
	return nil
}

func (a *Auth) validate() error {
	if a == nil {
		return nil
	}
	ways := 0
	for _, used := range []bool{a.Basic != nil, a.BearerFile != "", a.Header != nil, a.OAuth2 != nil} {
		if used {
			ways++
		}
	}
	switch {
	case ways != 1:
		return errors.New("auth needs exactly one of basic, bearer_file, header, oauth2")
	case a.Basic != nil && (a.Basic.User == "" || a.Basic.PasswordFile == ""):
		return errors.New("auth: basic needs user and password_file")
	case a.Header != nil && (a.Header.Name == "" || a.Header.ValueFile == ""):
		return errors.New("auth: header needs name and value_file")
	case a.OAuth2 != nil && (a.OAuth2.TokenURL == "" || a.OAuth2.ClientID == "" || a.OAuth2.ClientSecretFile == ""):
		return errors.New("auth: oauth2 needs token_url, client_id and client_secret_file")
	}
	return nil
}

func (t *TLS) validate() error {
	if t != nil && (t.CertFile == "") != (t.KeyFile == "") {
		return errors.New("tls: cert_file and key_file belong together")
	}
	return nil
}

// place parts an address from the MES's own words for a place in it.
var placeholders = []string{"{cursor}", "{page}", "{limit}"}

func (q *Query) validate(base string) error {
	if err := checkURL(base, q.URL, placeholders); err != nil {
		return err
	}
	var err error
	if q.overlap, err = parseOverlap(q.Overlap); err != nil {
		return err
	}
	asks := strings.Contains(q.URL+q.Body+fmt.Sprint(q.Headers), "{cursor}")
	pages := strings.Contains(q.URL+q.Body+fmt.Sprint(q.Headers), "{page}")
	switch {
	case q.Method != "GET" && q.Method != "POST":
		return fmt.Errorf("method %q is neither GET nor POST", q.Method)
	case q.Method == "GET" && q.Body != "":
		return errors.New("body has no use with GET: set method: POST")
	case asks != (q.Cursor != nil):
		return errors.New("cursor and a {cursor} in url, headers or body belong together")
	case pages && q.Next == nil:
		return errors.New("{page} needs next: where an answer names the next page")
	case q.Poll < 10*time.Millisecond || q.PageSize < 1:
		return errors.New("poll must be at least 10ms and page_size at least 1")
	case q.Overlap != "" && (q.Cursor == nil || q.Cursor.Field == ""):
		return errors.New("overlap needs cursor: {field}: only a field's value can be taken back a little")
	case q.Version != "" && q.Version != "content" && len(q.Key) == 0:
		return errors.New("version needs key")
	case q.Cursor != nil && q.Cursor.Link != "":
		return errors.New("cursor: link is no place to come back to: use next")
	case q.Next != nil && q.Next.Field != "":
		return errors.New("next: field is a cursor: use cursor")
	}
	return errors.Join(q.Cursor.validate("cursor"), q.Next.validate("next"))
}

func (p *Place) validate(name string) error {
	if p == nil {
		return nil
	}
	used := slices.DeleteFunc([]string{p.Field, p.Body, p.Header, p.Link}, func(s string) bool { return s == "" })
	if len(used) != 1 {
		return fmt.Errorf("%s needs exactly one of field, body, header, link", name)
	}
	return nil
}

// checkURL reads an address with placeholders, of which only the named are allowed.
func checkURL(base, address string, allowed []string) error {
	if address == "" {
		return errors.New("url is empty")
	}
	bare := address
	for _, p := range allowed {
		bare = strings.ReplaceAll(bare, p, "x")
	}
	if strings.ContainsAny(bare, "{}") {
		return fmt.Errorf("url %q has a placeholder that is none of %s", address, strings.Join(allowed, ", "))
	}
	if _, err := join(base, bare); err != nil {
		return err
	}
	return nil
}

// join puts an address below the base.
func join(base, address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err == nil && u.Host == "" && base != "" {
		u, err = url.Parse(strings.TrimSuffix(base, "/") + "/" + strings.TrimPrefix(address, "/"))
	}
	if err != nil {
		return nil, fmt.Errorf("url %q cannot be read", address)
	}
	if u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil {
		return nil, fmt.Errorf("url %q is no address such as https://mes.example/api/confirmations, nor is there a base for it, or it has a password in it", address)
	}
	return u, nil
}
