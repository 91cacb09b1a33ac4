package tryton

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

// intent is what the hub keeps between Prepare and Post: the state of the order that the posting is tied to, and the moves
// it will add.
type intent struct {
	Order     int    `json:"order"`
	Company   int    `json:"company"`
	Timestamp string `json:"timestamp"`
	// State is the order's when it was read: one that was not started is started after the posting.
	State string `json:"state"`
	// After is the newest move that the order had: ours will be newer.
	After int           `json:"after"`
	Moves []plannedMove `json:"moves,omitempty"`
	// Target is a planned output from which the yield is taken off; nil for none.
	Target *target `json:"target,omitempty"`
	// Adopt are drafts that already carry the fact's key: a hub that forgot them finishes them.
	Adopt []int `json:"adopt,omitempty"`
}

// plannedMove is a stock move to be made.
type plannedMove struct {
	Side     string          `json:"side"` // the order's field: inputs or outputs
	Product  int             `json:"product"`
	Unit     int             `json:"unit"`
	Digits   int32           `json:"digits"`
	Quantity decimal.Decimal `json:"quantity"`
	From     int             `json:"from"`
	To       int             `json:"to"`
	Lot      int             `json:"lot,omitempty"`
	NewLot   string          `json:"new_lot,omitempty"` // a lot number to be registered with the posting
}

// target is a planned output before and after the posting.
type target struct {
	Move int             `json:"move"`
	Was  decimal.Decimal `json:"was"`
	Rest decimal.Decimal `json:"rest"`
}

const (
	inputs  = "inputs"
	outputs = "outputs"
)

func parseIntent(b []byte) (intent, error) {
	var in intent
	if err := json.Unmarshal(b, &in); err != nil {
		return in, fmt.Errorf("read the intent of a posting to Tryton: %w", err)
	}
	if in.Order == 0 {
		return in, errors.New("read the intent of a posting to Tryton: it names no order")
	}
	return in, nil
}

// Prepare implements connector.Connector: it reads the order and works out the moves.
func (c *Connector) Prepare(ctx context.Context, p connector.Posting) ([]byte, *connector.Outcome, error) {
	in, early, err := c.prepare(ctx, p)
	if k := kindOf(err); err != nil && (k == refused || k == denied) {
		out := c.beforeEffect(p, err)
		return nil, &out, nil
	}
	if err != nil || early != nil {
		return nil, early, err
	}
	b, err := json.Marshal(in)
	if err != nil {
		return nil, nil, fmt.Errorf("write the intent of a posting to Tryton: %w", err)
	}
	return b, nil, nil
}

func (c *Connector) prepare(ctx context.Context, p connector.Posting) (*intent, *connector.Outcome, error) {
	number := p.Fact.OrderNo()
	o, err := c.find(ctx, number)
	switch {
	case errors.Is(err, connector.ErrNotFound):
		return nil, reject(connector.Fatal, "unknown_order", fmt.Sprintf("Tryton has no production order %q", number),
			"Correct the order number at the source, or create the order in Tryton and replay."), nil
	case errors.Is(err, errSeveral):
		return nil, reject(connector.Fatal, "ambiguous_order", fmt.Sprintf("Tryton has several production orders with the number %q", number),
			"Give each order in Tryton a number of its own and replay."), nil
	case err != nil:
		return nil, nil, err
	}
	in := &intent{Order: o.ID, Company: o.Company, Timestamp: o.Timestamp, State: o.State, After: o.highest()}
	switch p.Fact.Kind {
	case object.KindOrderState:
		early, err := c.prepareState(ctx, p, o)
		return in, early, err
	case object.KindConfirmation, object.KindConsumption:
		early, err := c.prepareMoves(ctx, p, o, in)
		return in, early, err
	}
	return nil, reject(connector.Fatal, "unsupported_fact", fmt.Sprintf("Tryton holds nothing like %q (order %q)", p.Fact.Kind, number),
		"Take this kind of fact out of the connector's policy."), nil
}

func (c *Connector) prepareMoves(ctx context.Context, p connector.Posting, o order, in *intent) (*connector.Outcome, error) {
	if early, err := c.known(ctx, p, o, in); early != nil || err != nil || in.Adopt != nil {
		return early, err
	}
	switch o.State {
	case stateWaiting, stateAssigned, stateRunning:
	case stateRequest, stateDraft:
		return reject(connector.Correctable, "order_not_released", fmt.Sprintf("order %q is only a draft in Tryton", o.Number),
			"Release the order in Tryton (Wait) and replay."), nil
	default:
		return reject(connector.Correctable, "order_closed", fmt.Sprintf("order %q is %s in Tryton", o.Number, o.State),
			"Post it by hand on another order or as an inventory difference, or move the fact to an open order and replay."), nil
	}
	early, err := c.reversible(ctx, p, o)
	if early != nil || err != nil {
		return early, err
	}
	early, err = c.plan(ctx, p, o, in)
	if early != nil || err != nil {
		return early, err
	}
	if len(in.Moves) == 0 { // a last confirmation without a quantity
		return &connector.Outcome{Result: connector.Posted, Document: connector.Document{Number: o.Number}}, nil
	}
	return nil, c.aim(ctx, o, in)
}

// known finds what an earlier posting of the same fact left behind, one that the hub does not remember.
func (c *Connector) known(ctx context.Context, p connector.Posting, o order, in *intent) (*connector.Outcome, error) {
	ids, err := c.noted(ctx, append(append([]int(nil), o.Inputs...), o.Outputs...), p)
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	moves, err := c.moves(ctx, idsIn(ids), notCancelled)
	if err != nil || len(moves) == 0 {
		return nil, err
	}
	in.Adopt = idsOf(moves)
	if allDone(moves) {
		return &connector.Outcome{Result: connector.Posted, Document: document(o.Number, in.Adopt)}, nil
	}
	return nil, nil
}

// reversible finds the moves of the fact that is taken back, by their notes: they must be done, and no other fact may have
// taken them back. Tryton itself would let any move be made any number of times.
func (c *Connector) reversible(ctx context.Context, p connector.Posting, o order) (*connector.Outcome, error) {
	key := p.Fact.Reverses
	if key.IsZero() {
		return nil, nil
	}
	notes, err := c.notes(ctx, slices.Concat(o.Inputs, o.Outputs))
	if err != nil {
		return nil, err
	}
	var original, reversals []int
	for id, text := range notes {
		own, reversed, _ := strings.Cut(strings.TrimPrefix(text, notePrefix), reversesWord)
		switch key.String() {
		case own:
			original = append(original, id)
		case reversed:
			reversals = append(reversals, id)
		}
	}
	there, err := c.anyDone(ctx, original)
	if err != nil {
		return nil, err
	}
	if !there {
		return reject(connector.Correctable, "nothing_to_reverse", fmt.Sprintf("order %q has no move of fact %s that could be taken back", o.Number, key),
			"Look in Tryton what became of that fact, then replay or settle this one."), nil
	}
	gone, err := c.anyDone(ctx, reversals)
	if err != nil || !gone {
		return nil, err
	}
	return reject(connector.Correctable, "already_reversed", fmt.Sprintf("order %q has moves already that take fact %s back", o.Number, key),
		"Check that the other reversal meant the same, then settle this fact."), nil
}

func (c *Connector) anyDone(ctx context.Context, moves []int) (bool, error) {
	if len(moves) == 0 {
		return false, nil
	}
	var n int
	err := c.client.call(ctx, &n, nil, "stock.move.search_count", []any{idsIn(moves), []any{"state", "=", "done"}})
	return n > 0, err
}

// plan works out the moves of a fact.
func (c *Connector) plan(ctx context.Context, p connector.Posting, o order, in *intent) (*connector.Outcome, error) {
	w, err := c.master.warehouseOf(ctx, o.Warehouse)
	if err != nil {
		return nil, err
	}
	if x := p.Fact.Consumption; x != nil {
		return c.planConsumption(ctx, p, o, w, in)
	}
	return c.planConfirmation(ctx, p, o, w, in)
}

func (c *Connector) planConsumption(ctx context.Context, p connector.Posting, o order, w warehouse, in *intent) (*connector.Outcome, error) {
	x := p.Fact.Consumption
	it, u, early, err := c.measured(ctx, x.Item, x.Quantity.Unit, x.Quantity.Value)
	if early != nil || err != nil {
		return early, err
	}
	from := w.picked()
	if from.Type == "view" {
		return reject(connector.Correctable, "no_storage_location", fmt.Sprintf("warehouse %q has only a view to take item %q from", c.config.site(w), x.Item),
			"Set the warehouse's Production Picking location in Tryton and replay."), nil
	}
	m := plannedMove{Side: inputs, Product: it.ID, Unit: u.ID, Digits: u.Digits, Quantity: x.Quantity.Value, From: from.ID, To: o.Location}
	back := (x.Movement == object.Return) != !p.Fact.Reverses.IsZero()
	if back {
		m.Side, m.From, m.To = outputs, m.To, m.From
	}
	if x.Lot != "" {
		if early, err := c.lot(ctx, x.Lot, it, back, &m); early != nil || err != nil {
			return early, err
		}
	}
	if c.config.CheckStock && !back {
		if early, err := c.covered(ctx, it, u, x.Quantity.Value, from); early != nil || err != nil {
			return early, err
		}
	}
	if m.Quantity.IsPositive() {
		in.Moves = append(in.Moves, m)
	}
	return nil, nil
}

func (c *Connector) planConfirmation(ctx context.Context, p connector.Posting, o order, w warehouse, in *intent) (*connector.Outcome, error) {
	x := p.Fact.Confirmation
	code := x.Item
	if code == "" && o.Product != nil {
		code = o.Product.Code
	}
	it, u, early, err := c.measured(ctx, code, x.Unit, x.Yield, x.Scrap, x.Rework)
	if early != nil || err != nil {
		return early, err
	}
	if early, err := c.belongs(ctx, it, o); early != nil || err != nil {
		return early, err
	}
	if early, err := c.lastOperation(ctx, x, o); early != nil || err != nil {
		return early, err
	}
	reversed := !p.Fact.Reverses.IsZero()
	add := func(q decimal.Decimal, to location) *connector.Outcome {
		m := plannedMove{Side: outputs, Product: it.ID, Unit: u.ID, Digits: u.Digits, Quantity: q, From: o.Location, To: to.ID}
		if reversed {
			m.Side, m.From, m.To = inputs, m.To, m.From
			if to.Type != "storage" {
				return reject(connector.Correctable, "scrap_reversed", fmt.Sprintf("Tryton takes nothing back from a waste location to order %q", o.Number),
					"Correct the scrap in Tryton by hand, as an inventory difference, and settle this fact.")
			}
		}
		in.Moves = append(in.Moves, m)
		return nil
	}
	if x.Yield.IsPositive() {
		if early := add(x.Yield, w.made()); early != nil {
			return early, nil
		}
	}
	if x.Scrap.IsPositive() {
		to, early := c.config.scrap(w)
		if early == nil {
			early = add(x.Scrap, to)
		}
		if early != nil {
			return early, nil
		}
	}
	if x.Rework.IsPositive() {
		to, early, err := c.rework(ctx, w, o)
		if early == nil && err == nil {
			early = add(x.Rework, to)
		}
		if early != nil || err != nil {
			return early, err
		}
	}
	for i := range in.Moves {
		if x.Lot != "" {
			if early, err := c.lot(ctx, x.Lot, it, !reversed, &in.Moves[i]); early != nil || err != nil {
				return early, err
			}
		}
	}
	return nil, nil
}

// measured finds an item and its unit, and checks that Tryton can hold the quantities.
func (c *Connector) measured(ctx context.Context, code, rec20 string, quantities ...decimal.Decimal) (item, unit, *connector.Outcome, error) {
	it, early, err := c.master.itemFor(ctx, code)
	if early != nil || err != nil {
		return it, unit{}, early, err
	}
	u, early, err := c.master.unitFor(ctx, rec20, it)
	if early != nil || err != nil {
		return it, u, early, err
	}
	for _, q := range quantities {
		if q.IsNegative() {
			return it, u, reject(connector.Fatal, "negative_quantity", fmt.Sprintf("%s %s of item %q is negative", q, rec20, code),
				"Report a return or a reversal instead of a negative quantity."), nil
		}
		if !q.Equal(q.Round(u.Digits)) {
			return it, u, reject(connector.Fatal, "too_many_decimals", fmt.Sprintf("%s %s of item %q has more than the %d decimals that Tryton keeps in %q", q, rec20, code, u.Digits, u.Symbol),
				"Round at the source's rule, or raise the unit's digits in Tryton."), nil
		}
	}
	return it, u, nil, nil
}

// belongs checks that an order makes the item: as its product or as one of its planned outputs.
func (c *Connector) belongs(ctx context.Context, it item, o order) (*connector.Outcome, error) {
	if o.Product != nil && o.Product.ID == it.ID {
		return nil, nil
	}
	var n int
	err := c.client.call(ctx, &n, nil, "stock.move.search_count", []any{[]any{"production_output", "=", o.ID}, []any{"product", "=", it.ID}})
	if err != nil || n > 0 {
		return nil, err
	}
	return reject(connector.Fatal, "item_not_of_order", fmt.Sprintf("order %q does not make item %q", o.Number, it.Code),
		"Correct the item or the order number at the source."), nil
}

func (c *Connector) rework(ctx context.Context, w warehouse, o order) (location, *connector.Outcome, error) {
	if c.config.ReworkLocation == "" {
		return location{}, reject(connector.Fatal, "rework_unsupported", fmt.Sprintf("Tryton knows no rework, and no place is set for the pieces of order %q", o.Number),
			"Create a storage location for rework in Tryton and name its code in rework_location, or report the pieces as scrap."), nil
	}
	var rows []location
	err := c.client.call(ctx, &rows, nil, "stock.location.search_read",
		[]any{[]any{"code", "=", c.config.ReworkLocation}, []any{"parent", "child_of", []int{w.ID}}}, 0, 2, nil, []string{"code", "type"})
	if err != nil {
		return location{}, nil, err
	}
	if len(rows) != 1 || rows[0].Type != "storage" {
		return location{}, reject(connector.Correctable, "no_rework_location", fmt.Sprintf("warehouse %q has no storage location %q for rework", c.config.site(w), c.config.ReworkLocation),
			"Create it in Tryton or correct rework_location, and replay."), nil
	}
	return rows[0], nil, nil
}

// lot finds the lot of a move where Tryton keeps lots; a new one may be registered when goods are made, not when they are taken.
func (c *Connector) lot(ctx context.Context, number string, it item, mayBeNew bool, m *plannedMove) (*connector.Outcome, error) {
	has, err := c.master.keepsLots(ctx)
	if err != nil || !has {
		return nil, err
	}
	id, err := c.findLot(ctx, number, it.ID)
	switch {
	case err != nil:
		return nil, err
	case id != 0:
		m.Lot = id
	case mayBeNew:
		m.NewLot = number
	default:
		return reject(connector.Correctable, "unknown_lot", fmt.Sprintf("Tryton has no lot %q of item %q", number, it.Code),
			"Register the lot in Tryton, or correct its number at the source, and replay."), nil
	}
	return nil, nil
}

func (c *Connector) findLot(ctx context.Context, number string, product int) (int, error) {
	var ids []int
	err := c.client.call(ctx, &ids, nil, "stock.lot.search", []any{[]any{"number", "=", number}, []any{"product", "=", product}}, 0, 1, [][]string{{"id", "ASC"}})
	if err != nil || len(ids) == 0 {
		return 0, err
	}
	return ids[0], nil
}

// covered checks the book stock, which Tryton itself does not do when a move is done.
func (c *Connector) covered(ctx context.Context, it item, u unit, need decimal.Decimal, from location) (*connector.Outcome, error) {
	units, err := c.master.allUnits(ctx)
	if err != nil {
		return nil, err
	}
	own := units[it.Unit.ID]
	rows, err := c.stock(ctx, from.ID, []any{[]any{"id", "=", it.ID}}, 0)
	if err != nil {
		return nil, err
	}
	have := decimal.Zero
	if len(rows) == 1 {
		if have, err = exact(rows[0].Quantity, own.Digits); err != nil {
			return nil, err
		}
	}
	if !own.Factor.IsZero() && have.LessThan(need.Mul(u.Factor).Div(own.Factor).Round(own.Digits)) {
		return reject(connector.Correctable, "insufficient_stock", fmt.Sprintf("Tryton holds %s %s of item %q in %q, less than the %s %s that was consumed", have, own.Symbol, it.Code, from.Code, need, u.Symbol),
			"Post the missing receipt or transfer in Tryton, or count the item, and replay."), nil
	}
	return nil, nil
}

// aim finds the planned output that the yield fulfils. It only keeps Tryton's forecast right; with no match nothing is aimed at.
func (c *Connector) aim(ctx context.Context, o order, in *intent) error {
	m := in.Moves[0]
	if m.Side != outputs || o.Product == nil || m.Product != o.Product.ID {
		return nil
	}
	uid, err := c.client.uid(ctx)
	if err != nil {
		return err
	}
	open, err := c.moves(ctx, []any{"production_output", "=", o.ID}, []any{"state", "=", "draft"}, []any{"create_uid", "!=", uid},
		[]any{"product", "=", m.Product}, []any{"uom", "=", m.Unit}, []any{"to_location", "=", m.To})
	if err != nil || len(open) != 1 {
		return err
	}
	was, err := exact(open[0].Quantity, m.Digits)
	if err != nil {
		return err
	}
	rest := decimal.Max(decimal.Zero, was.Sub(m.Quantity))
	in.Target = &target{Move: open[0].ID, Was: was, Rest: rest}
	return nil
}

// values are what a move is created with.
func (m plannedMove) values(company int, date time.Time) map[string]any {
	v := map[string]any{"product": m.Product, "uom": m.Unit, "quantity": number(m.Quantity), "from_location": m.From, "to_location": m.To,
		"company": company, "effective_date": dateOf(date)}
	if m.Side == outputs {
		v["unit_price"] = wireDecimal("0") // Tryton works out the cost when the order is done
	}
	if m.Lot != 0 {
		v["lot"] = m.Lot
	}
	return v
}
