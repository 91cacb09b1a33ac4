// Package sandbox connects the hub to the ERP sandbox.
//
// It owns the translation between the hub's vocabulary and the sandbox's HTTP API. It promises that a fact's key goes with
// every document as its external key, that nothing is sent twice by itself, and that an answer which was lost is reported
// as in doubt and can be looked up: each request carries an end of validity by the ERP's clock, so that after it a document
// that is not there cannot appear any more. It never takes an HTTP status for an effect: Verify reads the document back.
package sandbox

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/secret"
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
		if c.Password, err = secret.FirstLine(c.PasswordFile); err != nil {
			return fmt.Errorf("read password_file: %w", err)
		}
	}
	if c.PageSize < 0 || c.PageSize > 1000 {
		return fmt.Errorf("page_size %d is out of range: use 1 to 1000", c.PageSize)
	}
	c.Name = cmp.Or(c.Name, "sandbox")
	c.PageSize = cmp.Or(c.PageSize, 200)
	c.Overlap = cmp.Or(c.Overlap, 5*time.Minute)
	c.Timeout = cmp.Or(c.Timeout, 10*time.Second)
	c.Settle = cmp.Or(c.Settle, 3*time.Second)
	return nil
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
		Reverses:      []object.Kind{object.KindConfirmation, object.KindConsumption},
		ExternalKey:   true,
		QuantityScale: 3,
		Settle:        c.cfg.Settle,
		Backflush:     connector.BackflushMarked,
	}
}

// intent is what Prepare found out for Post, Lookup and Verify.
type intent struct {
	// ValidUntil is when, by the ERP's clock, the ERP no longer takes the request.
	ValidUntil time.Time `json:"valid_until"`
	// Reverses is the number of the document to take back.
	Reverses string `json:"reverses,omitempty"`
	// Failed is the last request with the key that the ERP had accepted and refused later, before this one.
	Failed int64 `json:"failed,omitempty"`
	// Blind: nothing could be found out, because the ERP offers no search. The request then has no end of validity.
	Blind bool `json:"blind,omitempty"`
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
	finding, found, err := c.find(ctx, p)
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
	in := intent{ValidUntil: found.AsOf.Add(c.cfg.Settle)}
	if finding.Presence == connector.CannotTell {
		in = intent{Blind: true}
	}
	if found.Failed != nil {
		in.Failed = found.Failed.Ticket
	}
	if !p.Fact.Reverses.IsZero() {
		number, early, err := c.documentToReverse(ctx, p)
		if err != nil || early != nil {
			return nil, early, err
		}
		in.Reverses = number
	}
	text, err := json.Marshal(in)
	return text, nil, err
}

// documentToReverse finds the document of the fact that is taken back.
func (c *Connector) documentToReverse(ctx context.Context, p connector.Posting) (string, *connector.Outcome, error) {
	key := p.Fact.Reverses
	found, err := c.client.find(ctx, key.String())
	if unsearchable(err) && p.Original != nil && p.Original.Document.Number != "" {
		return p.Original.Document.Number, nil, nil // the ERP refuses it when it is reversed already
	}
	if err != nil {
		return "", nil, err
	}
	refuse := func(class connector.Class, code, next, reason string, args ...any) (string, *connector.Outcome, error) {
		return "", &connector.Outcome{Result: connector.Rejected, Class: class, Code: code, Reason: fmt.Sprintf(reason, args...), NextStep: next}, nil
	}
	for _, d := range found.Documents {
		if d.ReversedBy == "" {
			return d.Number, nil, nil
		}
	}
	switch {
	case len(found.Documents) > 0:
		d := found.Documents[0]
		return refuse(connector.Correctable, "ALREADY_REVERSED", "Check that the other reversal meant the same, then accept this fact with its document.",
			"Document %s of fact %s is reversed already, by %s.", d.Number, key, d.ReversedBy)
	case found.Pending:
		return refuse(connector.Retryable, "PENDING", "Wait: it is looked at again by itself.", "The document of fact %s is not booked yet.", key)
	}
	return refuse(connector.Correctable, "NOTHING_TO_REVERSE", "Look in the ERP what became of that fact, then replay or accept this one.",
		"No document of fact %s is there to be reversed.", key)
}

// Post makes the document.
func (c *Connector) Post(ctx context.Context, p connector.Posting, raw []byte) connector.Outcome {
	if early := unsuitable(p); early != nil {
		return *early
	}
	in, err := readIntent(raw)
	if err != nil || in.ValidUntil.IsZero() && !in.Blind {
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
	finding, found, err := c.find(ctx, p)
	if err != nil {
		return connector.Finding{}, fmt.Errorf("look up %s: %w", p.Fact.Key, err)
	}
	if finding.Presence != connector.Absent {
		return finding, nil
	}
	if in.Blind {
		return connector.Finding{Presence: connector.CannotTell,
			Reason: fmt.Sprintf("No document has key %s, but its request was sent without an end of validity: it may still arrive.", p.Fact.Key)}, nil
	}
	if !found.AsOf.After(in.ValidUntil) {
		return connector.Finding{Presence: connector.NotFoundYet, Reason: fmt.Sprintf("No document has key %s yet; the request is valid for another %s.",
			p.Fact.Key, in.ValidUntil.Sub(found.AsOf).Round(time.Millisecond))}, nil
	}
	if f := found.Failed; f != nil && f.Ticket > in.Failed {
		out := rejection(&f.refusal)
		finding.Rejection = &out
	}
	return finding, nil
}

// find says what the ERP holds under the fact's key, without regard to requests that may still be on their way. AsOf of what
// was found is what the ERP's clock showed just before it looked.
func (c *Connector) find(ctx context.Context, p connector.Posting) (connector.Finding, found, error) {
	found, err := c.client.find(ctx, p.Fact.Key.String())
	if unsearchable(err) {
		return connector.Finding{Presence: connector.CannotTell,
			Reason: fmt.Sprintf("The ERP offers no search by external key: whether it holds %s must be looked up by hand.", p.Fact.Key)}, found, nil
	}
	if err != nil {
		return connector.Finding{}, found, err
	}
	finding, err := c.judge(ctx, p, found)
	return finding, found, err
}

// unsearchable reports that the ERP offers no search by external key.
func unsearchable(err error) bool {
	var r *refusal
	return errors.As(err, &r) && r.Code == noSearch
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
	in, err := readIntent(raw)
	if err != nil {
		return connector.Verification{}, fmt.Errorf("verify %s: %w", p.Fact.Key, err)
	}
	docs, yet, err := c.readBack(ctx, p, in, doc)
	if err == nil && len(docs) > 0 && in.Reverses == "" && !p.Fact.Reverses.IsZero() {
		in.Reverses, err = c.reversedBy(ctx, p.Fact.Reverses, docs[0].Number)
	}
	if err != nil {
		return connector.Verification{}, fmt.Errorf("verify %s: %w", p.Fact.Key, err)
	}
	return readAs(p, in, doc, docs, yet), nil
}

// readAs says what the documents with a fact's key mean for its posting; yet: one may only not be to be seen yet.
func readAs(p connector.Posting, in intent, doc connector.Document, docs []document, yet bool) connector.Verification {
	if len(docs) == 0 && yet {
		return connector.Verification{NotYet: true}
	}
	return compare(p, in, doc, docs)
}

// mayAppear reports that a document which was not found may only not be to be seen yet.
func (f found) mayAppear(in intent) bool { return f.Pending || !f.AsOf.After(in.ValidUntil) }

// readBack reads the documents with the fact's key, and whether one may only not be to be seen yet. Where there is no search,
// it reads the document that the answer named.
func (c *Connector) readBack(ctx context.Context, p connector.Posting, in intent, doc connector.Document) (docs []document, yet bool, err error) {
	found, err := c.client.find(ctx, p.Fact.Key.String())
	if !unsearchable(err) {
		return found.Documents, found.mayAppear(in), err
	}
	d, err := c.client.document(ctx, doc.Number)
	if errors.Is(err, connector.ErrNotFound) {
		return nil, false, nil
	}
	return []document{d}, false, err
}

// reversedBy finds the document of a fact that another document reverses, empty when that does not.
func (c *Connector) reversedBy(ctx context.Context, key factkey.Key, reversal string) (string, error) {
	found, err := c.client.find(ctx, key.String())
	for _, d := range found.Documents {
		if d.ReversedBy == reversal {
			return d.Number, nil
		}
	}
	return "", err
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
