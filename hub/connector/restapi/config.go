package restapi

import (
	"cmp"
	_ "embed"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector/generic"
	"github.com/linekeeper/linekeeper/hub/object"
)

// Sample is the commented section of a configuration file.
//
//go:embed sample.yaml
var Sample string

// Config says where the system is and what its requests and answers mean. Fields of type string that are named so are
// expressions (CEL) or addresses with expressions in braces.
type Config struct {
	// Name is what work orders call this ERP; "rest" when empty.
	Name string `yaml:"name"`
	// URL is where relative addresses begin. Other hosts are never asked, but for the token.
	URL  string `yaml:"url"`
	Auth Auth   `yaml:"auth"`
	TLS  TLS    `yaml:"tls"`
	// Headers go with every request, as they are.
	Headers map[string]string `yaml:"headers"`
	// Units maps the system's units to UN/ECE Recommendation 20, one to one; States its order states to ours.
	Units  map[string]string `yaml:"units"`
	States map[string]string `yaml:"states"`
	// Site of all orders where no expression says it. TimeZone is that of times that carry none (IANA); UTC when empty.
	Site     string `yaml:"site"`
	TimeZone string `yaml:"time_zone"`

	Orders Orders `yaml:"orders"`
	// Postings by kind of fact: production_confirmation, material_consumption, quality_status, order_state.
	Postings map[string]*Posting `yaml:"postings"`
	Effects  *Effects            `yaml:"effects"`
	// Errors are looked at after those of a posting, for every answer.
	Errors []generic.Rule `yaml:"errors"`

	// Scale is how many decimals the system keeps; 3 when nil, -1 for any. A quantity with more is refused, never rounded.
	Scale *int32 `yaml:"scale"`
	// Settle is how long an effect may take to be readable after it was answered; 0 by default.
	Settle time.Duration `yaml:"settle"`
	// Timeout of one request; 30 s when 0.
	Timeout time.Duration `yaml:"timeout"`
}

// Auth says who we are; at most one of its parts.
type Auth struct {
	Basic  *Basic  `yaml:"basic"`
	Bearer *Secret `yaml:"bearer"`
	Header *Header `yaml:"header"`
	OAuth2 *OAuth2 `yaml:"oauth2"`
}

// Secret is the first line of a file, or an environment variable.
type Secret struct {
	File string `yaml:"file"`
	Env  string `yaml:"env"`
}

// Basic is user and password.
type Basic struct {
	User     string `yaml:"user"`
	Password Secret `yaml:"password"`
}

// Header is a header of the system's own, for an API key.
type Header struct {
	Name  string `yaml:"name"`
	Value Secret `yaml:"value"`
}

// OAuth2 is the grant of client credentials.
type OAuth2 struct {
	TokenURL     string   `yaml:"token_url"`
	ClientID     string   `yaml:"client_id"`
	ClientSecret Secret   `yaml:"client_secret"`
	Scopes       []string `yaml:"scopes"`
	// InBody sends id and secret in the body instead of a header. Parameters are sent with them, such as audience.
	InBody     bool              `yaml:"in_body"`
	Parameters map[string]string `yaml:"parameters"`
}

// TLS is for systems whose certificate the operating system does not know, or that want one of ours.
type TLS struct {
	CAFile     string `yaml:"ca_file"`
	CertFile   string `yaml:"cert_file"`
	KeyFile    string `yaml:"key_file"`
	ServerName string `yaml:"server_name"` // that stands in the certificate, where it is not the host of url
}

// Orders says how changed orders are listed. URL may use cursor, offset and page_size.
type Orders struct {
	URL string `yaml:"url"`
	// At gives the list out of the answer; "body" when empty. It may use status, body and headers.
	At string `yaml:"at"`
	// Next gives the address of the next page, Cursor what {cursor} shall be in the next request; nil or empty at the end of
	// Next, and at the end of Cursor when More is empty. Without both, and without {offset} in URL, the next page begins at the
	// last change seen.
	Next   string `yaml:"next"`
	Cursor string `yaml:"cursor"`
	More   string `yaml:"more"` // with Cursor: there is more right now
	// First is what {cursor} is in the very first request; 1970-01-01T00:00:00Z when empty.
	First string `yaml:"first"`
	// Overlap is how far the changed value is taken back: a duration such as 5m (default), or a number.
	Overlap string `yaml:"overlap"`
	// PageSize is how many orders a page holds; 100 when 0.
	PageSize int              `yaml:"page_size"`
	Map      generic.OrderMap `yaml:"map"`
	Get      Get              `yaml:"get"`
}

// Get says how one order is read. URL may use order_no.
type Get struct {
	URL string `yaml:"url"`
	// At gives the order, or a list in which it stands; "body" when empty. Missing says that there is none; "status == 404" when empty.
	At      string `yaml:"at"`
	Missing string `yaml:"missing"`
}

// Posting says how a fact is posted. Expressions may use the names of a fact (see the package generic), valid_until and mark;
// those over an answer also status, body (nil when it is not JSON) and headers (names in lower case).
type Posting struct {
	Method  string            `yaml:"method"` // POST when empty
	URL     string            `yaml:"url"`
	Headers map[string]string `yaml:"headers"` // templates
	// Body is a document whose texts are expressions.
	Body any `yaml:"body"`
	// States are those of the shop floor that have an effect, for order_state only; STARTED and FINISHED when empty. Operations: the
	// system keeps them of a single operation too (fact.operation); fact.closes_order tells the end of an operation from the order's.
	States     []string `yaml:"states"`
	Operations bool     `yaml:"operations"`

	// Success says that the effect is there. Accepted says that the request was taken and will be worked on later.
	Success  string         `yaml:"success"`
	Accepted string         `yaml:"accepted"`
	Document Document       `yaml:"document"`
	Errors   []generic.Rule `yaml:"errors"`

	Once        bool          `yaml:"once"`
	ValidFor    time.Duration `yaml:"valid_for"`
	Idempotency *Idempotency  `yaml:"idempotency"`
	Lookup      *Lookup       `yaml:"lookup"`
	Verify      *Verify       `yaml:"verify"`
	// Reverse posts the fact that takes one of this kind back. Lookup and Verify are this posting's where it has none.
	Reverse *Posting `yaml:"reverse"`
}

// Document gives the system's own key; the fact's key when Number is empty.
type Document struct {
	Number string `yaml:"number"`
	ID     string `yaml:"id"`
}

// Idempotency is a header by which the system knows a request again. Value is key or uuid (default).
type Idempotency struct {
	Header string        `yaml:"header"`
	Value  string        `yaml:"value"`
	Within time.Duration `yaml:"within"` // how long the system remembers
}

// Lookup says how the effect of a fact is found by its key. The first of Found, Rejected, Pending, CannotTell and Absent that is
// true counts; an answer of which none is true is no answer.
type Lookup struct {
	URL   string `yaml:"url"`
	Found string `yaml:"found"`
	// Document as of a posting, over this answer.
	Document Document `yaml:"document"`
	// Rejected are what a system says later of what it had taken. Pending: it still works on it.
	Rejected   []generic.Rule `yaml:"rejected"`
	Pending    string         `yaml:"pending"`
	CannotTell string         `yaml:"cannot_tell"`
	Absent     string         `yaml:"absent"`
	// AbsentAfter makes a proof of Absent, so long after the request could have been sent last; nil: never.
	AbsentAfter *time.Duration `yaml:"absent_after"`
	// Mark is evaluated over this answer before the request is made.
	Mark string `yaml:"mark"`
	// ReversedBy gives the key of the fact that took this one back, empty when none did.
	ReversedBy string `yaml:"reversed_by"`
}

// Verify says how the effect is compared with the fact. Expressions may also use document.number and document.id.
type Verify struct {
	// URL and Found are the look-up's when empty.
	URL   string `yaml:"url"`
	Found string `yaml:"found"`
	// NotYet: it cannot be read yet. Within is how long Found may be false before that is a difference.
	NotYet string        `yaml:"not_yet"`
	Within time.Duration `yaml:"within"`
	// Equal names by an expression what it shall be, and by another over the answer what it is; numbers are compared at Scale.
	Equal map[string]string `yaml:"equal"`
	// Wrong are conditions under which the effect is not what it should be.
	Wrong []Wrong `yaml:"wrong"`
}

// Wrong is one of them; Reason is an expression.
type Wrong struct {
	When   string `yaml:"when"`
	Reason string `yaml:"reason"`
}

// Effects says how all documents of an order are listed, for reconciliation. URL may use order_no and offset. Expressions of Map may
// use row, a document.
type Effects struct {
	URL  string    `yaml:"url"`
	At   string    `yaml:"at"`
	Next string    `yaml:"next"`
	AsOf string    `yaml:"as_of"` // the system's clock in the answer; ours before the request when empty
	Map  EffectMap `yaml:"map"`
}

// EffectMap says what a document holds. Kind must give a kind of fact; Pending is true for what is not in the books yet.
type EffectMap struct {
	Number      string `yaml:"number"`
	ID          string `yaml:"id"`
	Key         string `yaml:"key"`
	Kind        string `yaml:"kind"`
	Operation   string `yaml:"operation"`
	Pending     string `yaml:"pending"`
	Reverses    string `yaml:"reverses"`
	ReversedBy  string `yaml:"reversed_by"`
	PostingDate string `yaml:"posting_date"`
	BookedAt    string `yaml:"booked_at"`
	User        string `yaml:"user"`
	// Quantities are the document's own, below zero where it takes something back. One that is zero or nil is left out.
	Quantities []EffectQuantity `yaml:"quantities"`
}

// EffectQuantity is one of them: Kind is yield, scrap, rework, consumed or returned, the others are expressions.
type EffectQuantity struct {
	Kind  string `yaml:"kind"`
	Item  string `yaml:"item"`
	Value string `yaml:"value"`
	Unit  string `yaml:"unit"`
}

// Files are the fields that name files, for whoever knows where relative names begin.
func (c *Config) Files() []*string {
	all := []*string{&c.TLS.CAFile, &c.TLS.CertFile, &c.TLS.KeyFile}
	if b := c.Auth.Basic; b != nil {
		all = append(all, &b.Password.File)
	}
	if b := c.Auth.Bearer; b != nil {
		all = append(all, &b.File)
	}
	if h := c.Auth.Header; h != nil {
		all = append(all, &h.Value.File)
	}
	if o := c.Auth.OAuth2; o != nil {
		all = append(all, &o.ClientSecret.File)
	}
	return all
}

func wrong(format string, args ...any) error { return fmt.Errorf("configure REST: "+format, args...) }

// withDefaults fills in what zero means and checks what needs no compiling. What the caller gave stays as it was.
func (c Config) withDefaults() (Config, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || u.RawQuery != "" || u.User != nil {
		return c, wrong("url is not scheme, host and path; write it like https://erp.example.com/api")
	}
	c.URL = strings.TrimRight(c.URL, "/")
	c.Name, c.TimeZone, c.Timeout = cmp.Or(c.Name, "rest"), cmp.Or(c.TimeZone, "UTC"), cmp.Or(c.Timeout, 30*time.Second)
	if c.Scale == nil {
		three := int32(3)
		c.Scale = &three
	}
	o := &c.Orders
	o.At, o.First, o.Overlap, o.PageSize = cmp.Or(o.At, "body"), cmp.Or(o.First, "1970-01-01T00:00:00Z"), cmp.Or(o.Overlap, "5m"), cmp.Or(o.PageSize, 100)
	o.Get.At, o.Get.Missing = cmp.Or(o.Get.At, "body"), cmp.Or(o.Get.Missing, "status == 404")
	switch {
	case *c.Scale < -1 || *c.Scale > 12:
		return c, wrong("scale %d is out of range; use 0 to 12, or -1 for any", *c.Scale)
	case c.Settle < 0 || c.Timeout < 0:
		return c, wrong("settle and timeout must not be below zero")
	case o.URL == "" || o.Get.URL == "":
		return c, wrong("orders.url or orders.get.url is empty; write where orders are listed and where one is read")
	case o.PageSize < 2 || o.PageSize > 10_000:
		return c, wrong("orders.page_size %d is out of range; use 2 to 10000", o.PageSize)
	case o.Next != "" && o.Cursor != "":
		return c, wrong("orders: next and cursor are two ways to the next page; keep one")
	case o.More != "" && o.Cursor == "":
		return c, wrong("orders.more is for answers with a cursor; add cursor, or leave more out")
	case len(c.Postings) == 0:
		return c, wrong("postings is empty; name at least one kind of fact, such as production_confirmation")
	case (c.TLS.CertFile == "") != (c.TLS.KeyFile == ""):
		return c, wrong("tls: cert_file and key_file belong together")
	}
	return c, c.checkAuth()
}

func (c *Config) checkAuth() error {
	n := 0
	for _, has := range []bool{c.Auth.Basic != nil, c.Auth.Bearer != nil, c.Auth.Header != nil, c.Auth.OAuth2 != nil} {
		if has {
			n++
		}
	}
	o := c.Auth.OAuth2
	switch {
	case n > 1:
		return wrong("auth has %d ways to log in; keep one of basic, bearer, header, oauth2", n)
	case c.Auth.Basic != nil && c.Auth.Basic.User == "":
		return wrong("auth.basic.user is empty; name the user")
	case c.Auth.Header != nil && c.Auth.Header.Name == "":
		return wrong("auth.header.name is empty; name the header, such as X-Api-Key")
	case o != nil && (o.ClientID == "" || o.TokenURL == ""):
		return wrong("auth.oauth2 needs token_url, client_id and client_secret")
	}
	if o != nil {
		if u, err := url.Parse(o.TokenURL); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return wrong("auth.oauth2.token_url is not an address; write it like https://login.example.com/token")
		}
	}
	return nil
}

// kinds are the kinds of facts that can be posted, in the order of capabilities.
var kinds = []object.Kind{object.KindConfirmation, object.KindConsumption, object.KindQuality, object.KindOrderState}

// checkKinds checks the keys of postings and the states.
func (c *Config) checkKinds() error {
	for _, k := range slices.Sorted(maps.Keys(c.Postings)) {
		if !slices.Contains(kinds, object.Kind(k)) {
			return wrong("postings: %q is not known; use some of %v", k, kinds)
		}
		p := c.Postings[k]
		switch {
		case p == nil:
			return wrong("postings.%s is empty; write url, body and success", k)
		case len(p.States) > 0 && object.Kind(k) != object.KindOrderState:
			return wrong("postings.%s.states is for order_state only", k)
		case p.Operations && object.Kind(k) != object.KindOrderState:
			return wrong("postings.%s.operations is for order_state only", k)
		case p.Reverse != nil && p.Reverse.Reverse != nil:
			return wrong("postings.%s.reverse.reverse: a reversal is not reversed; leave it out", k)
		}
		for _, s := range p.States {
			if !slices.Contains([]object.FloorState{object.FloorStarted, object.FloorHeld, object.FloorFinished, object.FloorCancelled}, object.FloorState(s)) {
				return wrong("postings.%s.states: %q is not known; use STARTED, HELD, FINISHED or CANCELLED", k, s)
			}
		}
	}
	return nil
}
