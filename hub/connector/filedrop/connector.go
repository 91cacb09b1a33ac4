package filedrop

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/generic"
	"github.com/linekeeper/linekeeper/hub/object"
)

// Connector implements connector.Connector.
type Connector struct {
	cfg   Config
	store store // of the folders for exchange
	local disk  // of sent and state
	units generic.Units
	can   connector.Capabilities
	files map[object.Kind]*file

	answerName *regexp.Regexp // its first group is the reference
	accepted   generic.Expr
	number     generic.Expr
	rejected   []generic.Refusal
	equal      []generic.Equal

	putting sync.Mutex // one file is handed over at a time
	made    sync.Once  // the folders of our own
	madeErr error

	reading sync.Mutex
	known   map[string]known // answers by name, as long as they lie in the folder

	inbox *inbox // nil without orders
}

var _ connector.Connector = (*Connector)(nil)

// Names that expressions may use, by where they stand.
var (
	ofFile   = append([]string{"ref"}, generic.FactNames...)
	ofAnswer = append([]string{"name", "answer", "text"}, ofFile...)
)

// New returns a connector. It reads the files with secrets and does no other I/O.
func New(cfg Config) (*Connector, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := cfg.checkKinds(); err != nil {
		return nil, err
	}
	c := &Connector{cfg: cfg, store: disk{}, files: map[object.Kind]*file{}, known: map[string]known{},
		can: connector.Capabilities{System: cfg.Name, ExternalKey: true, QuantityScale: *cfg.Scale, MovementTypes: generic.AsksForMovementType(cfg.Out.Postings)}}
	zone, err := time.LoadLocation(cfg.TimeZone)
	if err != nil {
		return nil, wrong("time_zone %q is not known; use an IANA name such as Europe/Berlin", cfg.TimeZone)
	}
	if c.units, err = generic.NewUnits(cfg.Units); err != nil {
		return nil, wrong("%w", err)
	}
	if err := c.compile(); err != nil {
		return nil, err
	}
	if cfg.SFTP != nil {
		if c.store, err = newRemote(*cfg.SFTP, cfg.Timeout); err != nil {
			return nil, err
		}
	}
	if cfg.Orders != nil {
		c.inbox, err = newInbox(c, zone)
	}
	return c, err
}

func (c *Connector) compile() error {
	for _, kind := range kinds {
		p := c.cfg.Out.Postings[string(kind)]
		if p == nil {
			continue
		}
		f, err := compileFile(*p)
		if err != nil {
			return wrong("out.postings.%s.%w", kind, err)
		}
		c.files[kind] = f
		c.can.Posts = append(c.can.Posts, kind)
	}
	if p := c.cfg.Out.Postings[string(object.KindOrderState)]; p != nil {
		states := p.States
		if len(states) == 0 {
			states = []string{string(object.FloorStarted), string(object.FloorFinished)}
		}
		for _, s := range states {
			c.can.States = append(c.can.States, object.FloorState(s))
		}
		if p.Operations {
			c.can.OperationStates = c.can.States
		}
	}
	a := c.cfg.Answers
	if a == nil {
		return nil
	}
	c.can.Settle = a.Within
	before, after, _ := strings.Cut(a.Name, "{ref}")
	any := func(text string) string { return strings.ReplaceAll(regexp.QuoteMeta(text), `\*`, `.*`) }
	c.answerName = regexp.MustCompile(`^` + any(before) + `([A-Z2-7]{16}(?:-[0-9]+)?)` + any(after) + `$`)
	var err error
	if strings.TrimSpace(a.Accepted) == "" {
		return wrong("answers.accepted is empty; write when the file was booked, such as \"answer.status == 'OK'\", or \"true\" when every answer says so")
	}
	if c.accepted, err = generic.Compile(a.Accepted, ofAnswer...); err != nil {
		return wrong("answers.accepted: %w", err)
	}
	if c.number, err = generic.Compile(a.Number, ofAnswer...); err != nil {
		return wrong("answers.number: %w", err)
	}
	if c.rejected, err = generic.CompileRules("answers.rejected", a.Rejected, []string{"retryable", "correctable", "fatal"}, ofAnswer...); err != nil {
		return wrong("%w", err)
	}
	if c.equal, err = generic.CompileEquals(a.Equal, ofFile, ofAnswer); err != nil {
		return wrong("answers.equal: %w", err)
	}
	return nil
}

// Close ends the connection to the server.
func (c *Connector) Close() error { return c.store.close() }

// Capabilities as configured.
func (c *Connector) Capabilities() connector.Capabilities { return c.can }

// folders makes the folders of our own, once.
func (c *Connector) folders() error {
	c.made.Do(func() { c.madeErr = c.cfg.makeFolders() })
	return c.madeErr
}

// ListChanged takes the files that have come, and returns the orders that changed behind the cursor.
func (c *Connector) ListChanged(_ context.Context, from string) (connector.Changes, error) {
	if c.inbox == nil {
		return connector.Changes{Cursor: from}, nil
	}
	changes, err := c.inbox.changes(from)
	if err != nil {
		return changes, fmt.Errorf("list changed orders: %w", err)
	}
	return changes, nil
}

// Get returns the latest record of an order.
func (c *Connector) Get(_ context.Context, no string) (object.WorkOrder, error) {
	if c.inbox == nil {
		return object.WorkOrder{}, fmt.Errorf("get order %q: no folder with orders is configured: %w", no, connector.ErrNotFound)
	}
	w, err := c.inbox.order(no)
	if err != nil {
		return w, fmt.Errorf("get order %q: %w", no, err)
	}
	return w, nil
}

// misfit refuses a posting that does not fit its order, and completes the order where there are orders.
func (c *Connector) misfit(ctx context.Context, p *connector.Posting) (*connector.Outcome, error) {
	if c.inbox == nil {
		return nil, nil
	}
	o, err := c.Get(ctx, generic.OrderNo(*p))
	if errors.Is(err, connector.ErrNotFound) {
		return generic.NoOrder(*p, c.cfg.Name), nil
	}
	if err != nil {
		return nil, err
	}
	o.Plant, o.Revision = p.Order.Plant, p.Order.Revision
	p.Order = o
	return generic.Misfit(*p, o), nil
}

// fits reports that a fact has a file of its own.
func (c *Connector) fits(p connector.Posting) *connector.Outcome {
	if !slices.Contains(c.can.Posts, p.Fact.Kind) || !p.Fact.Reverses.IsZero() {
		return generic.Reject(connector.Fatal, "NOT_POSTED", "Do it in the ERP by hand, then accept the fact with its document.", "No file is there for fact %s.", p.Fact.Key)
	}
	return generic.Unsuitable(p, c.can, c.units)
}
