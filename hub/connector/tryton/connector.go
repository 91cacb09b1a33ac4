package tryton

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
)

// Connector is a connector.Connector and a connector.StockReader for one Tryton database.
type Connector struct {
	config Config
	client *client
	master *master
	gates  gatekeeper
	// stockPage is how many records of stock are read at a time.
	stockPage int
}

// New makes a connector. It reads the password file and does no other I/O: the first call logs in.
func New(c Config) (*Connector, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	client := newClient(c)
	return &Connector{config: c, client: client, master: newMaster(client, c), gates: gatekeeper{moves: map[int][]gateRow{}}, stockPage: stockPage}, nil
}

// Close gives up the connections to Tryton. The session ends by itself there.
func (c *Connector) Close() error {
	c.client.http.CloseIdleConnections()
	return nil
}

// Capabilities implements connector.Connector. Tryton's quantities have as many decimals as their unit, so there is no one
// scale; a quantity with more is rejected as "too_many_decimals".
func (c *Connector) Capabilities() connector.Capabilities {
	return connector.Capabilities{
		System:          "Tryton",
		Posts:           []object.Kind{object.KindConfirmation, object.KindConsumption, object.KindOrderState},
		States:          []object.FloorState{object.FloorStarted, object.FloorFinished, object.FloorCancelled},
		OperationStates: []object.FloorState{object.FloorStarted, object.FloorFinished},
		Reverses:        []object.Kind{object.KindConfirmation, object.KindConsumption},
		ExternalKey:     true,
		CompareAndSet:   true,
		QuantityScale:   -1,
	}
}

// reject makes a rejection. Nothing has happened in Tryton when it is given.
func reject(class connector.Class, code, reason, next string) *connector.Outcome {
	return &connector.Outcome{Result: connector.Rejected, Class: class, Code: code, Reason: reason, NextStep: next}
}

func doubt(err error) connector.Outcome {
	return connector.Outcome{Result: connector.InDoubt, Reason: err.Error()}
}

// order is a production as postings need it.
type order struct {
	ID        int    `json:"id"`
	Number    string `json:"number"`
	State     string `json:"state"`
	Timestamp string `json:"_timestamp"`
	Warehouse int    `json:"warehouse"`
	Location  int    `json:"location"`
	Company   int    `json:"company"`
	Inputs    []int  `json:"inputs"`
	Outputs   []int  `json:"outputs"`
	Product   *struct {
		ID   int    `json:"id"`
		Code string `json:"code"`
	} `json:"product."`
}

var orderFields = []string{"number", "state", "_timestamp", "warehouse", "location", "company", "inputs", "outputs", "product.code"}

// The states of a production.
const (
	stateRequest   = "request"
	stateDraft     = "draft"
	stateWaiting   = "waiting"
	stateAssigned  = "assigned"
	stateRunning   = "running"
	stateDone      = "done"
	stateCancelled = "cancelled"
)

// find reads an order by its number. connector.ErrNotFound when there is none.
func (c *Connector) find(ctx context.Context, number string) (order, error) {
	var rows []order
	err := c.client.call(ctx, &rows, nil, "production.search_read", []any{[]any{"number", "=", number}}, 0, 2, nil, orderFields)
	if err != nil {
		return order{}, err
	}
	return one(rows, number)
}

// errSeveral says that a number means more than one order; Tryton does not keep them apart.
var errSeveral = errors.New("there are several with that number")

func one[T any](rows []T, number string) (none T, err error) {
	switch len(rows) {
	case 1:
		return rows[0], nil
	case 0:
		return none, fmt.Errorf("find order %q in Tryton: %w", number, connector.ErrNotFound)
	}
	return none, fmt.Errorf("find order %q in Tryton: %w", number, errSeveral)
}

// read reads an order again.
func (c *Connector) read(ctx context.Context, id int) (order, error) {
	var rows []order
	if err := c.client.call(ctx, &rows, nil, "production.read", []int{id}, orderFields); err != nil {
		return order{}, err
	}
	if len(rows) != 1 {
		return order{}, fmt.Errorf("read order record %d of Tryton: got %d records", id, len(rows))
	}
	return rows[0], nil
}

// whole is an order with the states of its moves and works. Only changes of state need it: an order can have thousands of moves.
type whole struct {
	order
	Consumed []withState `json:"inputs."`
	Made     []withState `json:"outputs."`
	Works    []withState `json:"works."`
}

type withState struct {
	ID    int    `json:"id"`
	State string `json:"state"`
}

// open returns the moves that are neither done nor cancelled.
func open(moves []withState) []int {
	var ids []int
	for _, m := range moves {
		if m.State == "draft" || m.State == "assigned" {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

func (o whole) posted() bool {
	done := func(m withState) bool { return m.State == "done" }
	return slices.ContainsFunc(o.Consumed, done) || slices.ContainsFunc(o.Made, done)
}

func (o whole) openWorks() int {
	n := 0
	for _, w := range o.Works {
		if w.State != "finished" {
			n++
		}
	}
	return n
}

// readWhole reads an order with the states of what belongs to it.
func (c *Connector) readWhole(ctx context.Context, id int) (whole, error) {
	fields := append(slices.Clone(orderFields), "inputs.state", "outputs.state")
	has, err := c.master.keepsWorks(ctx)
	if err != nil {
		return whole{}, err
	}
	if has {
		fields = append(fields, "works.state")
	}
	var rows []whole
	if err := c.client.call(ctx, &rows, nil, "production.read", []int{id}, fields); err != nil {
		return whole{}, err
	}
	if len(rows) != 1 {
		return whole{}, fmt.Errorf("read order record %d of Tryton: got %d records", id, len(rows))
	}
	return rows[0], nil
}

// asRead is the context that lets a write happen only to the order as it was read.
func asRead(id int, timestamp string) map[string]any {
	return map[string]any{"_timestamp": map[string]string{fmt.Sprintf("production,%d", id): timestamp}}
}

// highest is the newest of an order's moves.
func (o order) highest() int {
	top := 0
	for _, id := range o.Inputs {
		top = max(top, id)
	}
	for _, id := range o.Outputs {
		top = max(top, id)
	}
	return top
}
