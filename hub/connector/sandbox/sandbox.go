// Package sandbox connects the hub to the ERP sandbox.
//
// It owns the translation between the hub's vocabulary and the sandbox's HTTP API. It promises that a fact's key goes with
// every document as its external key, that nothing is sent twice by itself, and that an answer which was lost is reported
// as in doubt and can be looked up: each request carries an end of validity by the ERP's clock, so that after it a document
// that is not there cannot appear any more. It never takes an HTTP status for an effect: Verify reads the document back.
package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// Config of the connector.
type Config struct {
	// Name is what the hub calls this ERP; "sandbox" when empty.
	Name string `yaml:"name"`
	// URL is where the ERP's API begins, such as http://erp.example:8000.
	URL string `yaml:"url"`
	// User logs in with Password, or with the first line of PasswordFile.
	User         string `yaml:"user"`
	Password     string `yaml:"password"`
	PasswordFile string `yaml:"password_file"`
	// Sites limits ListChanged to orders of these sites; empty means all.
	Sites []string `yaml:"sites"`
	// PageSize is how many orders are read at once, 1 to 1000; 200 when 0.
	PageSize int `yaml:"page_size"`
	// Overlap is how far each reading of changes goes back behind the newest change seen; 5 min when 0.
	Overlap time.Duration `yaml:"overlap"`
	// Timeout is how long one request may take; 10 s when 0.
	Timeout time.Duration `yaml:"timeout"`
	// Settle is how long a request stays valid after it was prepared: a posting of which nothing is found after that time can
	// be sent again. 3 s when 0.
	Settle time.Duration `yaml:"settle"`
}

func (c *Config) complete() error {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return fmt.Errorf("url %q is not a web address: write it like http://erp.example:8000", c.URL)
	}
	if c.PasswordFile != "" {
		text, err := os.ReadFile(c.PasswordFile)
		if err != nil {
			return fmt.Errorf("read password_file: %w", err)
		}
		c.Password, _, _ = strings.Cut(string(text), "\n")
		c.Password = strings.TrimRight(c.Password, "\r")
	}
	if c.PageSize < 0 || c.PageSize > 1000 {
		return fmt.Errorf("page_size %d is out of range: use 1 to 1000", c.PageSize)
	}
	c.Name = orDefault(c.Name, "sandbox")
	c.PageSize = orDefault(c.PageSize, 200)
	c.Overlap = orDefault(c.Overlap, 5*time.Minute)
	c.Timeout = orDefault(c.Timeout, 10*time.Second)
	c.Settle = orDefault(c.Settle, 3*time.Second)
	return nil
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// Connector implements connector.Connector and connector.StockReader.
type Connector struct {
	cfg    Config
	client *client
}

var (
	_ connector.Connector   = (*Connector)(nil)
	_ connector.StockReader = (*Connector)(nil)
)

// New returns a connector without touching the network.
func New(cfg Config) (*Connector, error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("configure ERP sandbox: %w", err)
	}
	return &Connector{cfg: cfg, client: newClient(cfg)}, nil
}

// Capabilities of the sandbox.
func (c *Connector) Capabilities() connector.Capabilities {
	return connector.Capabilities{
		System:        c.cfg.Name,
		Posts:         []object.Kind{object.KindConfirmation, object.KindConsumption, object.KindOrderState},
		States:        []object.FloorState{object.FloorStarted, object.FloorFinished},
		ExternalKey:   true,
		QuantityScale: 3,
		Settle:        c.cfg.Settle,
	}
}

// intent is what Prepare found out for Post, Lookup and Verify.
type intent struct {
	// ValidUntil is when, by the ERP's clock, the ERP no longer takes the request.
	ValidUntil time.Time `json:"valid_until"`
	// Reverses is the number of the document to take back.
	Reverses string `json:"reverses,omitempty"`
}

// stateID marks a Document that is no document but the state of the order whose number it has.
const stateID = "state"

func readIntent(raw []byte) (in intent, err error) {
	if len(raw) == 0 {
		return in, nil
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return in, fmt.Errorf("read intent %.100q: %w", raw, err)
	}
	return in, nil
}

// Prepare looks whether the effect is there already, and which document a reversal takes back.
func (c *Connector) Prepare(ctx context.Context, p connector.Posting) ([]byte, *connector.Outcome, error) {
	if early := unsuitable(p); early != nil {
		return nil, early, nil
	}
	finding, now, err := c.find(ctx, p)
	if err != nil {
		return nil, nil, fmt.Errorf("prepare %s: %w", p.Fact.Key, err)
	}
	switch finding.Presence {
	case connector.Found:
		return nil, &connector.Outcome{Result: connector.Posted, Document: finding.Document}, nil
	case connector.NotFoundYet:
		return nil, &connector.Outcome{Result: connector.Rejected, Class: connector.Retryable, Code: "PENDING", Reason: finding.Reason,
			NextStep: "Wait: it is looked at again by itself."}, nil
	}
	in := intent{ValidUntil: now.Add(c.cfg.Settle)}
	if !p.Fact.Reverses.IsZero() {
		number, early, err := c.documentToReverse(ctx, p.Fact.Reverses)
		if err != nil || early != nil {
			return nil, early, err
		}
		in.Reverses = number
	}
	text, err := json.Marshal(in)
	return text, nil, err
}

func (c *Connector) documentToReverse(ctx context.Context, key factkey.Key) (string, *connector.Outcome, error) {
	found, err := c.client.find(ctx, key.String())
	if err != nil {
		return "", nil, err
	}
	for _, d := range found.Documents {
		if d.ReversedBy == "" {
			return d.Number, nil, nil
		}
	}
	return "", &connector.Outcome{Result: connector.Rejected, Class: connector.Retryable, Code: "NOTHING_TO_REVERSE",
		Reason:   fmt.Sprintf("No open document of fact %s is there to be reversed.", key),
		NextStep: "Look whether that fact is still to be posted: the reversal follows it by itself."}, nil
}

// Post makes the document.
func (c *Connector) Post(ctx context.Context, p connector.Posting, raw []byte) connector.Outcome {
	if early := unsuitable(p); early != nil {
		return *early
	}
	in, err := readIntent(raw)
	if err != nil || in.ValidUntil.IsZero() {
		return connector.Outcome{Result: connector.Rejected, Class: connector.Retryable, Code: "NO_INTENT",
			Reason: fmt.Sprintf("Posting %s was not prepared, or its intent was damaged.", p.Fact.Key), NextStep: "Replay the fact: it is prepared again."}
	}
	path, body := request(p, in)
	return settleState(p, c.outcome(c.client.call(ctx, "POST", path, body)))
}

// settleState turns "is already in that state" into the effect it is.
func settleState(p connector.Posting, o connector.Outcome) connector.Outcome {
	if p.Fact.OrderState != nil && o.Result == connector.Rejected && o.Code == "CO/101" {
		return connector.Outcome{Result: connector.Posted, Document: connector.Document{Number: orderNo(p), ID: stateID}}
	}
	return o
}

// Lookup searches by the fact's key. A document that is not there may still appear while the request is valid.
func (c *Connector) Lookup(ctx context.Context, p connector.Posting, raw []byte) (connector.Finding, error) {
	in, err := readIntent(raw)
	if err != nil {
		return connector.Finding{}, fmt.Errorf("look up %s: %w", p.Fact.Key, err)
	}
	finding, now, err := c.find(ctx, p)
	if err != nil {
		return connector.Finding{}, fmt.Errorf("look up %s: %w", p.Fact.Key, err)
	}
	if finding.Presence == connector.Absent && !now.After(in.ValidUntil) {
		return connector.Finding{Presence: connector.NotFoundYet, Reason: fmt.Sprintf("No document has key %s yet; the request is valid for another %s.",
			p.Fact.Key, in.ValidUntil.Sub(now).Round(time.Millisecond))}, nil
	}
	return finding, nil
}

// find says what the ERP holds under the fact's key, without regard to requests that may still be on their way, and what
// the ERP's clock showed just before it looked.
func (c *Connector) find(ctx context.Context, p connector.Posting) (connector.Finding, time.Time, error) {
	found, err := c.client.find(ctx, p.Fact.Key.String())
	if err != nil {
		return connector.Finding{}, time.Time{}, err
	}
	finding, err := c.judge(ctx, p, found)
	return finding, found.AsOf, err
}

func (c *Connector) judge(ctx context.Context, p connector.Posting, found found) (connector.Finding, error) {
	key := p.Fact.Key.String()
	switch n := len(found.Documents); {
	case n > 1:
		return connector.Finding{Presence: connector.Found, Document: connector.Document{Number: found.Documents[0].Number},
			Reason: fmt.Sprintf("%d documents carry key %s.", n, key)}, nil
	case n == 1:
		return connector.Finding{Presence: connector.Found, Document: connector.Document{Number: found.Documents[0].Number}}, nil
	case found.Pending:
		return connector.Finding{Presence: connector.NotFoundYet, Reason: fmt.Sprintf("The ERP has accepted %s and not booked it yet.", key)}, nil
	}
	if s := p.Fact.OrderState; s != nil {
		o, err := c.client.order(ctx, orderNo(p))
		if err != nil && !errors.Is(err, connector.ErrNotFound) {
			return connector.Finding{}, err
		}
		if err == nil && reached(o.State, s.State) {
			return connector.Finding{Presence: connector.Found, Document: connector.Document{Number: o.No, ID: stateID}}, nil
		}
	}
	reason := fmt.Sprintf("No document has key %s.", key)
	if f := found.Failed; f != nil {
		reason = fmt.Sprintf("The ERP accepted %s and then refused to book it: %s %s.", key, f.Code, f.Message)
	}
	return connector.Finding{Presence: connector.Absent, Reason: reason}, nil
}

// Verify reads the document back and compares it with what was meant.
func (c *Connector) Verify(ctx context.Context, p connector.Posting, raw []byte, doc connector.Document) (connector.Verification, error) {
	if doc.ID == stateID {
		return c.verifyState(ctx, p)
	}
	found, err := c.client.find(ctx, p.Fact.Key.String())
	if err != nil {
		return connector.Verification{}, fmt.Errorf("verify %s: %w", p.Fact.Key, err)
	}
	if len(found.Documents) == 0 && found.Pending {
		return connector.Verification{NotYet: true}, nil
	}
	in, err := readIntent(raw)
	if err != nil {
		return connector.Verification{}, fmt.Errorf("verify %s: %w", p.Fact.Key, err)
	}
	return compare(p, in, doc, found.Documents), nil
}

func (c *Connector) verifyState(ctx context.Context, p connector.Posting) (connector.Verification, error) {
	o, err := c.client.order(ctx, orderNo(p))
	if err != nil {
		return connector.Verification{}, fmt.Errorf("verify %s: %w", p.Fact.Key, err)
	}
	if !reached(o.State, p.Fact.OrderState.State) {
		return connector.Verification{Difference: fmt.Sprintf("Order %s is %s in the ERP, and %s on the shop floor.", o.No, o.State, p.Fact.OrderState.State)}, nil
	}
	return connector.Verification{Matches: true}, nil
}

// Get reads one order.
func (c *Connector) Get(ctx context.Context, no string) (object.WorkOrder, error) {
	o, err := c.client.order(ctx, no)
	if err != nil {
		return object.WorkOrder{}, fmt.Errorf("get order %q: %w", no, err)
	}
	return c.workOrder(o), nil
}

// Inventory reads balances.
func (c *Connector) Inventory(ctx context.Context, items []string) ([]object.Balance, error) {
	stock, err := c.client.stock(ctx, items)
	if err != nil {
		return nil, fmt.Errorf("read stock: %w", err)
	}
	balances := make([]object.Balance, len(stock.Stock))
	for i, s := range stock.Stock {
		balances[i] = object.Balance{Item: s.Item, OnHand: object.Quantity{Value: s.OnHand, Unit: s.Unit}, AsOf: stock.AsOf}
	}
	return balances, nil
}
