package tryton

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

type countRow struct {
	ID       int       `json:"id"`
	Number   string    `json:"number"`
	State    string    `json:"state"`
	Date     *wireDate `json:"date"`
	Location place     `json:"location."`
	Written  *wireTime `json:"write_date"`
	Created  *wireTime `json:"create_date"`
}

type countLine struct {
	ID        int          `json:"id"`
	Inventory int          `json:"inventory"`
	Product   coded        `json:"product."`
	Lot       *numbered    `json:"lot."`
	Quantity  *json.Number `json:"quantity"`
	Expected  json.Number  `json:"expected_quantity"`
	Unit      int          `json:"uom"`
}

func (l countLine) lot() string {
	if l.Lot == nil {
		return ""
	}
	return l.Lot.Number
}

func (c *Connector) countLines(ctx context.Context, ids []int) ([]countLine, error) {
	fields, err := c.withLots(ctx, []string{"inventory", "product.code", "quantity", "expected_quantity", "uom"})
	if err != nil {
		return nil, err
	}
	var lines []countLine
	err = c.client.call(ctx, &lines, nil, "stock.inventory.line.search_read", []any{[]any{"inventory", "in", ids}}, 0, nil, [][]string{{"id", "ASC"}}, fields)
	return lines, err
}

func (c *Connector) loadCounts(ctx context.Context, model string, ids []int) ([]loaded, error) {
	var rows []countRow
	err := c.client.call(ctx, &rows, nil, model+".search_read", []any{idsIn(ids)}, 0, nil, [][]string{{"id", "ASC"}}, []string{"number", "state", "date",
		"location.code", "location.name", "location.warehouse", "write_date", "create_date"})
	if err != nil {
		return nil, err
	}
	lines, err := c.countLines(ctx, ids)
	if err != nil {
		return nil, err
	}
	booked, err := c.booked(ctx, lines)
	if err != nil {
		return nil, err
	}
	var out []loaded
	for _, r := range rows {
		n, err := c.counted(ctx, model, r, lines, booked)
		out = append(out, finish(r.ID, object.Business{Kind: object.BusinessCount, Count: &n}, err))
	}
	return out, nil
}

// booked sums the differences that lines of counts brought about: above zero for a gain.
func (c *Connector) booked(ctx context.Context, lines []countLine) (map[string]decimal.Decimal, error) {
	if len(lines) == 0 {
		return nil, nil
	}
	origins := make([]string, len(lines))
	for i, l := range lines {
		origins[i] = ref{"stock.inventory.line", l.ID}.String()
	}
	var moves []struct {
		Origin   string      `json:"origin"`
		Quantity json.Number `json:"quantity"`
		Unit     int         `json:"uom"`
		To       location    `json:"to_location."`
	}
	err := c.client.call(ctx, &moves, nil, "stock.move.search_read", []any{[]any{"origin", "in", origins}, []any{"state", "=", "done"}}, 0, nil, nil,
		[]string{"origin", "quantity", "uom", "to_location.type"})
	if err != nil {
		return nil, err
	}
	units, err := c.master.allUnits(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]decimal.Decimal{}
	for _, m := range moves {
		q, err := exact(m.Quantity, units[m.Unit].Digits)
		if err != nil {
			return nil, err
		}
		if m.To.Type == "lost_found" {
			q = q.Neg()
		}
		out[m.Origin] = out[m.Origin].Add(q)
	}
	return out, nil
}

func (c *Connector) counted(ctx context.Context, model string, r countRow, lines []countLine, booked map[string]decimal.Decimal) (object.CycleCount, error) {
	n := object.CycleCount{Number: r.Number, Location: r.Location.name(), CountedOn: date(r.Date), Held: c.held(model, r.ID, r.Written, r.Created)}
	site, err := c.siteOf(ctx, r.Location.Warehouse)
	if err != nil {
		return n, err
	}
	n.Site = site
	all := true
	for _, l := range lines {
		if l.Inventory != r.ID {
			continue
		}
		u, err := c.master.unitOf(ctx, l.Unit)
		if err != nil {
			return n, err
		}
		x := object.CountLine{Item: l.Product.Code, Lot: l.lot(), Unit: u.code, Posted: booked[ref{"stock.inventory.line", l.ID}.String()]}
		if x.Book, err = exact(l.Expected, u.Digits); err != nil {
			return n, err
		}
		if l.Quantity != nil {
			q, err := exact(*l.Quantity, u.Digits)
			if err != nil {
				return n, err
			}
			x.Counted = decimal.NewNullDecimal(q)
		}
		all = all && l.Quantity != nil
		n.Lines = append(n.Lines, x)
	}
	switch {
	case r.State == "done":
		n.State = object.CountPosted
	case r.State == "cancelled":
		n.State = object.CountCancelled
	case all && len(n.Lines) > 0:
		n.State = object.CountCounted
	default:
		n.State = object.CountCreated
	}
	return n, nil
}

// planCount makes a count, or enters what was found into one.
func (c *Connector) planCount(ctx context.Context, w connector.Write, in *writeIntent) (*connector.Outcome, error) {
	n := w.Want.Count
	if n.State == object.CountCounted || n.State == object.CountPosted {
		for i, l := range n.Lines {
			if _, ok := l.Found(); !ok {
				return reject(connector.Correctable, "not_counted", fmt.Sprintf("line %d of count %q, item %q, is not counted", i+1, n.Number, l.Item), "Count it, or leave the line out."), nil
			}
		}
	}
	if n.State == object.CountCancelled || in.ID != 0 && len(n.Lines) == 0 {
		return nil, nil
	}
	if in.ID != 0 {
		return c.enterCount(ctx, n, in)
	}
	if len(n.Lines) == 0 {
		return reject(connector.Fatal, "no_lines", fmt.Sprintf("the count at %q names nothing to be counted", n.Location), "Name the items to be counted."), nil
	}
	place, early, err := c.placeOf(ctx, n.Location)
	if early != nil || err != nil {
		return early, err
	}
	company, err := c.client.company(ctx)
	if err != nil {
		return nil, err
	}
	var rows []any
	for _, l := range n.Lines {
		row, early, err := c.newCountLine(ctx, l)
		if early != nil || err != nil {
			return early, err
		}
		rows = append(rows, row)
	}
	day := dateOf(time.Now().UTC())
	if n.CountedOn != "" {
		day = dateText(n.CountedOn)
	}
	values := map[string]any{"location": place, "date": day, "company": company, "number": w.Key.String(), "empty_quantity": "keep"}
	return nil, in.make("stock.inventory", values, "lines", rows, "moves")
}

func (c *Connector) newCountLine(ctx context.Context, l object.CountLine) (map[string]any, *connector.Outcome, error) {
	found, counted := l.Found()
	it, u, early, err := c.measured(ctx, l.Item, l.Unit, found)
	if early != nil || err != nil {
		return nil, early, err
	}
	if u.ID != it.Unit.ID {
		return nil, reject(connector.Fatal, "unit_mismatch", fmt.Sprintf("item %q is counted in %q; Tryton counts in the item's own unit", l.Item, l.Unit), "Convert the count at the source."), nil
	}
	row := map[string]any{"product": it.ID}
	if counted {
		row["quantity"] = number(found)
	}
	lot, early, err := c.lotFor(ctx, l.Lot, it, true)
	if early != nil || err != nil {
		return nil, early, err
	}
	if lot != 0 {
		row["lot"] = lot
	}
	return row, nil, nil
}

// enterCount writes what was found into the lines of a count that somebody else made.
func (c *Connector) enterCount(ctx context.Context, n *object.CycleCount, in *writeIntent) (*connector.Outcome, error) {
	held, err := c.countLines(ctx, []int{in.ID})
	if err != nil {
		return nil, err
	}
	now, err := c.state(ctx, ref{in.Model, in.ID})
	if err != nil || now.State != "draft" {
		return nil, err
	}
	var edits, made []any
	for _, l := range n.Lines {
		row, early, err := c.newCountLine(ctx, l)
		if early != nil || err != nil {
			return early, err
		}
		i := slices.IndexFunc(held, func(h countLine) bool { return h.Product.Code == l.Item && h.lot() == l.Lot })
		if i < 0 {
			made = append(made, row)
			continue
		}
		if q, ok := row["quantity"]; ok {
			edits = append(edits, []any{"write", []int{held[i].ID}, map[string]any{"quantity": q}})
		}
	}
	if len(made) > 0 {
		edits = append(edits, []any{"create", made})
	}
	in.Edit, err = json.Marshal(map[string]any{"lines": edits})
	return nil, err
}

func reachedCount(w connector.Write, r record) bool {
	switch w.Want.Count.State {
	case object.CountPosted:
		return r.State == "done"
	case object.CountCancelled:
		return r.State == "cancelled"
	}
	return r.State != "cancelled"
}

func (c *Connector) stepCount(ctx context.Context, w connector.Write, r record) error {
	if r.State != "draft" {
		return &callError{kind: refused, method: r.model, text: fmt.Sprintf("The count is %s and cannot become %s.", r.State, w.Want.Count.State)}
	}
	if w.Want.Count.State == object.CountCancelled {
		return c.press(ctx, w, r, "cancel", nil)
	}
	return c.press(ctx, w, r, "confirm", nil)
}

// movementRow is a done move of any kind.
type movementRow struct {
	ID       int         `json:"id"`
	Quantity json.Number `json:"quantity"`
	Unit     int         `json:"uom"`
	Product  coded       `json:"product."`
	Lot      *numbered   `json:"lot."`
	From     typedPlace  `json:"from_location."`
	To       typedPlace  `json:"to_location."`
	Origin   string      `json:"origin"`
	Shipment string      `json:"shipment"`
	Input    *madeOrder  `json:"production_input."`
	Output   *madeOrder  `json:"production_output."`
	Date     *wireDate   `json:"effective_date"`
	Written  *wireTime   `json:"write_date"`
	Created  *wireTime   `json:"create_date"`
}

type typedPlace struct {
	place
	Type string `json:"type"`
}

type madeOrder struct {
	Number  string `json:"number"`
	Product *int   `json:"product"`
}

func (c *Connector) loadMovements(ctx context.Context, model string, ids []int) ([]loaded, error) {
	fields, err := c.withLots(ctx, []string{"quantity", "uom", "product.code", "from_location.code", "from_location.name", "from_location.type", "to_location.code",
		"to_location.name", "to_location.type", "origin", "shipment", "production_input.number", "production_input.product", "production_output.number",
		"production_output.product", "effective_date", "write_date", "create_date"})
	if err != nil {
		return nil, err
	}
	var rows []movementRow
	err = c.client.call(ctx, &rows, nil, model+".search_read", []any{idsIn(ids), []any{"state", "=", "done"}}, 0, nil, [][]string{{"id", "ASC"}}, fields)
	if err != nil {
		return nil, err
	}
	origins := map[string]bool{}
	var moves []int
	for _, r := range rows {
		origins[r.Origin] = true
		if r.Shipment != "" {
			moves = append(moves, r.ID)
		}
	}
	orders, err := c.orderLines(ctx, origins)
	if err != nil {
		return nil, err
	}
	shipments, err := c.receiptsOf(ctx, moves)
	if err != nil {
		return nil, err
	}
	var out []loaded
	for _, r := range rows {
		m := object.InventoryMovement{Number: strconv.Itoa(r.ID), Item: r.Product.Code, Document: shipments[r.ID], MovedOn: date(r.Date), Held: c.held(model, r.ID, r.Written, r.Created)}
		if r.Lot != nil {
			m.Lot = r.Lot.Number
		}
		if r.From.Type == "storage" {
			m.From = r.From.name()
		}
		if r.To.Type == "storage" {
			m.To = r.To.name()
		}
		o := orders[r.Origin]
		m.OrderNo, m.OrderLine = o.number, o.line
		m.Kind = r.kind()
		switch {
		case r.Input != nil:
			m.OrderNo = r.Input.Number
		case r.Output != nil:
			m.OrderNo = r.Output.Number
		}
		var err error
		if m.Quantity, err = c.quantity(ctx, r.Quantity, r.Unit); err == nil && m.Kind == "" {
			err = fmt.Errorf("it goes from a %s to a %s location, which is no movement that we know", r.From.Type, r.To.Type)
		}
		out = append(out, finish(r.ID, object.Business{Kind: object.BusinessMovement, Movement: &m}, err))
	}
	return out, nil
}

// kind reads what a move is from the places that it goes between.
func (r movementRow) kind() object.MovementKind {
	count, _ := parseRef(r.Origin)
	isCount := count.model == "stock.inventory.line"
	from, to := r.From.Type, r.To.Type
	switch {
	case to == "production":
		return object.IssueToOrder
	case from == "production" && to == "lost_found":
		return object.ScrapMovement
	case from == "production" && r.Output != nil && r.Output.Product != nil && *r.Output.Product == r.Product.ID:
		return object.ReceiptFromOrder
	case from == "production" && r.Output != nil:
		return object.ReturnFromOrder
	case from == "supplier":
		return object.ReceiptFromPO
	case to == "supplier":
		return object.ReturnToSupplier
	case to == "customer":
		return object.IssueToDelivery
	case from == "customer":
		return object.ReturnFromCustomer
	case from == "lost_found":
		return object.CountGain
	case to == "lost_found" && isCount:
		return object.CountLoss
	case to == "lost_found":
		return object.ScrapMovement
	case from == "storage" && to == "storage":
		return object.Transfer
	}
	return ""
}
