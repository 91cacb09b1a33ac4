package tryton

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
	"github.com/shopspring/decimal"
)

// The models of shipments. Each numbers its own.
const (
	shipmentIn       = "stock.shipment.in"
	shipmentOut      = "stock.shipment.out"
	shipmentInternal = "stock.shipment.internal"
)

var shipmentModels = map[object.Direction]string{object.Inbound: shipmentIn, object.Outbound: shipmentOut, object.Internal: shipmentInternal}

// direction is how Tryton keeps shipments of one direction.
type direction struct {
	is      object.Direction
	partner string // field
	moves   string // field of the moves that leave or reach us
	states  map[string]object.ShipmentState
}

var directions = map[string]direction{
	shipmentIn: {object.Inbound, "supplier", "incoming_moves", map[string]object.ShipmentState{"draft": object.ShipmentPlanned,
		"received": object.ShipmentArrived, "done": object.ShipmentDelivered, "cancelled": object.ShipmentCancelled}},
	shipmentOut: {object.Outbound, "customer", "outgoing_moves", map[string]object.ShipmentState{"draft": object.ShipmentPlanned, "waiting": object.ShipmentPlanned,
		"assigned": object.ShipmentPlanned, "picked": object.ShipmentPicked, "packed": object.ShipmentPacked, "done": object.ShipmentGoodsIssued, "cancelled": object.ShipmentCancelled}},
	shipmentInternal: {object.Internal, "", "moves", map[string]object.ShipmentState{"request": object.ShipmentPlanned, "draft": object.ShipmentPlanned,
		"waiting": object.ShipmentPlanned, "assigned": object.ShipmentPlanned, "shipped": object.ShipmentInTransit, "done": object.ShipmentDelivered, "cancelled": object.ShipmentCancelled}},
}

type shipmentRow struct {
	ID        int       `json:"id"`
	Number    string    `json:"number"`
	Reference string    `json:"reference"`
	State     string    `json:"state"`
	Planned   *wireDate `json:"planned_date"`
	Effective *wireDate `json:"effective_date"`
	Warehouse *int      `json:"warehouse"`
	Supplier  *coded    `json:"supplier."`
	Customer  *coded    `json:"customer."`
	From      *place    `json:"from_location."`
	To        *place    `json:"to_location."`
	Incoming  []int     `json:"incoming_moves"`
	Outgoing  []int     `json:"outgoing_moves"`
	Moves     []int     `json:"moves"`
	Written   *wireTime `json:"write_date"`
	Created   *wireTime `json:"create_date"`
}

func (r shipmentRow) lines(model string) []int {
	switch model {
	case shipmentIn:
		return r.Incoming
	case shipmentOut:
		return r.Outgoing
	}
	return r.Moves
}

// shippedMove is a move of a shipment.
type shippedMove struct {
	ID        int         `json:"id"`
	State     string      `json:"state"`
	Quantity  json.Number `json:"quantity"`
	Unit      int         `json:"uom"`
	Product   coded       `json:"product."`
	Lot       *numbered   `json:"lot."`
	Origin    string      `json:"origin"`
	From      int         `json:"from_location"`
	To        int         `json:"to_location"`
	Price     wireNumber  `json:"unit_price"`
	Currency  *int        `json:"currency"`
	Company   int         `json:"company"`
	Timestamp string      `json:"_timestamp"`
}

// shipped reads moves of shipments that were not cancelled, oldest first.
func (c *Connector) shipped(ctx context.Context, domain ...any) ([]shippedMove, error) {
	fields, err := c.withLots(ctx, []string{"state", "quantity", "uom", "product.code", "origin", "from_location", "to_location", "unit_price", "currency", "company", "_timestamp"})
	if err != nil {
		return nil, err
	}
	var rows []shippedMove
	err = c.client.call(ctx, &rows, nil, "stock.move.search_read", append(domain, notCancelled), 0, nil, [][]string{{"id", "ASC"}}, fields)
	return rows, err
}

func (c *Connector) loadShipments(ctx context.Context, model string, ids []int) ([]loaded, error) {
	d := directions[model]
	fields := []string{"number", "reference", "state", "planned_date", "effective_date", d.moves, "write_date", "create_date"}
	if d.partner == "" {
		fields = append(fields, "from_location.code", "from_location.name", "from_location.warehouse", "to_location.code", "to_location.name")
	} else {
		fields = append(fields, d.partner+".code", "warehouse")
	}
	var rows []shipmentRow
	if err := c.client.call(ctx, &rows, nil, model+".search_read", []any{idsIn(ids)}, 0, nil, [][]string{{"id", "ASC"}}, fields); err != nil {
		return nil, err
	}
	var all []int
	for _, r := range rows {
		all = append(all, r.lines(model)...)
	}
	moves := map[int]shippedMove{}
	if len(all) > 0 {
		found, err := c.shipped(ctx, idsIn(all))
		if err != nil {
			return nil, err
		}
		for _, m := range found {
			moves[m.ID] = m
		}
	}
	orders, err := c.originsOf(ctx, moves)
	if err != nil {
		return nil, err
	}
	var out []loaded
	for _, r := range rows {
		s, err := c.shipment(ctx, model, r, moves, orders)
		out = append(out, finish(r.ID, object.Business{Kind: object.BusinessShipment, Shipment: &s}, err))
	}
	return out, nil
}

func (c *Connector) shipment(ctx context.Context, model string, r shipmentRow, moves map[int]shippedMove, orders map[string]orderLine) (object.Shipment, error) {
	d := directions[model]
	s := object.Shipment{Number: r.Number, Reference: r.Reference, Direction: d.is, PlannedOn: date(r.Planned), EffectiveOn: date(r.Effective),
		State: d.states[r.State], Held: c.held(model, r.ID, r.Written, r.Created)}
	if s.State == "" {
		return s, fmt.Errorf("it has the unknown state %q", r.State)
	}
	switch {
	case r.Supplier != nil:
		s.Partner = r.Supplier.Code
	case r.Customer != nil:
		s.Partner = r.Customer.Code
	case r.From != nil && r.To != nil:
		s.From, s.To, r.Warehouse = r.From.name(), r.To.name(), r.From.Warehouse
	}
	site, err := c.siteOf(ctx, r.Warehouse)
	if err != nil {
		return s, err
	}
	s.Site = site
	ids := r.lines(model)
	slices.Sort(ids)
	for _, id := range ids {
		m, ok := moves[id]
		if !ok {
			continue
		}
		q, err := c.quantity(ctx, m.Quantity, m.Unit)
		if err != nil {
			return s, err
		}
		if q.Value.IsZero() { // nothing of it is shipped
			continue
		}
		l := object.ShipmentLine{LineNo: fmt.Sprint(id), Item: m.Product.Code, Quantity: q}
		if m.Lot != nil {
			l.Lot = m.Lot.Number
		}
		if o, ok := orders[m.Origin]; ok {
			l.OrderNo, l.OrderLine = o.number, o.line
		}
		s.Lines = append(s.Lines, l)
	}
	return s, nil
}

// orderLine is what a line of an order is known by.
type orderLine struct{ number, line string }

// originsOf finds the order lines that moves come from.
func (c *Connector) originsOf(ctx context.Context, moves map[int]shippedMove) (map[string]orderLine, error) {
	origins := map[string]bool{}
	for _, m := range moves {
		origins[m.Origin] = true
	}
	return c.orderLines(ctx, origins)
}

// orderLines reads the numbers of order lines by their references, such as "sale.line,4"; others are left out.
func (c *Connector) orderLines(ctx context.Context, origins map[string]bool) (map[string]orderLine, error) {
	ids := map[string][]int{}
	for origin := range origins {
		if r, ok := parseRef(origin); ok {
			ids[r.model] = append(ids[r.model], r.id)
		}
	}
	out := map[string]orderLine{}
	for _, s := range []side{purchaseSide, saleSide} {
		if len(ids[s.line]) == 0 {
			continue
		}
		var rows []struct {
			ID       int       `json:"id"`
			Purchase *numbered `json:"purchase."`
			Sale     *numbered `json:"sale."`
		}
		if err := c.client.call(ctx, &rows, nil, s.line+".search_read", []any{idsIn(ids[s.line])}, 0, nil, nil, []string{s.parent + ".number"}); err != nil {
			return nil, err
		}
		names, err := c.lineNames(ctx, s, ids[s.line])
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			if o := cmp.Or(r.Purchase, r.Sale); o != nil {
				out[ref{s.line, r.ID}.String()] = orderLine{o.Number, names[r.ID]}
			}
		}
	}
	return out, nil
}

// lineNames names lines among all lines of their orders.
func (c *Connector) lineNames(ctx context.Context, s side, ids []int) (map[int]string, error) {
	var lines []*tradeLine
	err := c.client.call(ctx, &lines, nil, s.line+".search_read", []any{[]any{s.parent + ".lines", "in", ids}, []any{"type", "=", "line"}}, 0, nil, nil, []string{s.parent, "sequence"})
	if err != nil {
		return nil, err
	}
	of := map[int][]*tradeLine{}
	for _, l := range lines {
		of[l.order()] = append(of[l.order()], l)
	}
	names := map[int]string{}
	for _, ls := range of {
		nameLines(ls)
		for _, l := range ls {
			names[l.ID] = l.name
		}
	}
	return names, nil
}

// refer replaces the key, which a shipment was made with, by the other side's number. It is never taken from anybody else.
func (c *Connector) refer(ctx context.Context, w connector.Write, r ref) error {
	want := w.Want.Shipment.Reference
	if want == "" {
		return nil
	}
	var rows []struct {
		Reference string `json:"reference"`
		Timestamp string `json:"_timestamp"`
	}
	if err := c.client.call(ctx, &rows, nil, r.model+".read", []int{r.id}, []string{"reference", "_timestamp"}); err != nil {
		return err
	}
	if len(rows) != 1 || rows[0].Reference != "" && rows[0].Reference != w.Key.String() {
		return nil
	}
	return c.client.call(ctx, nil, map[string]any{"_timestamp": map[string]string{r.String(): rows[0].Timestamp}}, r.model+".write", []int{r.id}, map[string]any{"reference": want})
}

// planShipment works out what is to be shipped.
func (c *Connector) planShipment(ctx context.Context, w connector.Write, in *writeIntent) (*connector.Outcome, error) {
	s := w.Want.Shipment
	wrong := func(state object.ShipmentState) *connector.Outcome {
		return reject(connector.Fatal, "unsupported_write", fmt.Sprintf("Tryton's %s shipment cannot become %s", s.Direction, state), "Ask for a state that this direction has.")
	}
	if in.ID != 0 && directions[in.Model].is != s.Direction {
		return reject(connector.Fatal, "wrong_direction", fmt.Sprintf("shipment %q is %s in Tryton, not %s", s.Number, directions[in.Model].is, s.Direction), "Name it by its key."), nil
	}
	can := false
	for _, state := range directions[shipmentModels[s.Direction]].states {
		can = can || state == s.State
	}
	if !can {
		return wrong(s.State), nil
	}
	switch {
	case s.Direction == object.Outbound:
		return c.planDelivery(ctx, w, in)
	case in.ID != 0:
		return nil, nil // it is as somebody announced it, and is only moved on
	case s.Direction == object.Inbound:
		return c.planReceipt(ctx, w, in)
	}
	return c.planTransfer(ctx, w, in)
}

// openMoves finds the moves of an order that are in no shipment yet.
func (c *Connector) openMoves(ctx context.Context, s side, number string) ([]shippedMove, *connector.Outcome, error) {
	order, early, err := c.named(ctx, s.order, "order", number, "Correct the order number at the source, or enter the order in Tryton and replay.", []any{"number", "=", number})
	if early != nil || err != nil {
		return nil, early, err
	}
	moves, err := c.shipped(ctx, []any{s.parent, "=", order}, []any{"shipment", "=", nil}, []any{"state", "=", "draft"})
	return moves, nil, err
}

// planReceipt takes the open moves of purchase orders into a new shipment. A move is of one lot: what arrives of others becomes
// moves of its own. What is left of the order Tryton plans again by itself.
func (c *Connector) planReceipt(ctx context.Context, w connector.Write, in *writeIntent) (*connector.Outcome, error) {
	s := w.Want.Shipment
	supplier, early, err := c.partyOf(ctx, s.Partner)
	if early != nil || err != nil {
		return early, err
	}
	house, early, err := c.warehouseAt(ctx, s.Site)
	if early != nil || err != nil {
		return early, err
	}
	company, err := c.client.company(ctx)
	if err != nil {
		return nil, err
	}
	r := &receipt{open: map[string][]shippedMove{}, day: effectiveDay(w)}
	for i, l := range s.Lines {
		if l.OrderNo == "" {
			return reject(connector.Fatal, "no_order", fmt.Sprintf("line %d of shipment %q names no purchase order", i+1, s.Reference), "Name the order that it fulfils: Tryton receives goods for orders."), nil
		}
		if _, known := r.open[l.OrderNo]; !known {
			moves, early, err := c.openMoves(ctx, purchaseSide, l.OrderNo)
			if early != nil || err != nil {
				return early, err
			}
			r.open[l.OrderNo] = moves
		}
		if early, err := c.receive(ctx, r, l); early != nil || err != nil {
			return early, err
		}
	}
	values := map[string]any{"supplier": supplier, "company": company, "warehouse": house.ID, "reference": w.Key.String()}
	if s.PlannedOn != "" {
		values["planned_date"] = dateText(s.PlannedOn)
	}
	if r.day != nil {
		values["effective_date"] = *r.day
	}
	values["incoming_moves"] = append(r.rows(), touched(in.Gates)...)
	in.Stamps = r.stamps
	return nil, in.make(shipmentIn, values, "", nil, "")
}

// effectiveDay is the date for the books where it is not the system's own today.
func effectiveDay(w connector.Write) *wireDate {
	if w.PostingDate.IsZero() || w.PostingDate.Format(time.DateOnly) == time.Now().UTC().Format(time.DateOnly) {
		return nil
	}
	d := dateOf(w.PostingDate)
	return &d
}

// receipt gathers what a shipment takes.
type receipt struct {
	open   map[string][]shippedMove // by order
	taken  []taken
	made   []any
	stamps map[string]string
	day    *wireDate
}

// taken is a planned move as it will be.
type taken struct {
	id     int
	values map[string]any
}

func (r *receipt) rows() []any {
	var out []any
	for _, t := range r.taken {
		out = append(out, []any{"add", []int{t.id}}, []any{"write", []int{t.id}, t.values})
	}
	if len(r.made) > 0 {
		out = append(out, []any{"create", r.made})
	}
	return out
}

// receive finds the planned moves for one line, oldest first; the last takes what is more than was planned.
func (c *Connector) receive(ctx context.Context, r *receipt, l object.ShipmentLine) (*connector.Outcome, error) {
	it, u, early, err := c.measured(ctx, l.Item, l.Quantity.Unit, l.Quantity.Value)
	if early != nil || err != nil {
		return early, err
	}
	var origins map[string]orderLine
	if l.OrderLine != "" {
		all := map[string]bool{}
		for _, m := range r.open[l.OrderNo] {
			all[m.Origin] = true
		}
		if origins, err = c.orderLines(ctx, all); err != nil {
			return nil, err
		}
	}
	var fits []shippedMove
	for _, m := range r.open[l.OrderNo] {
		if m.Product.ID == it.ID && m.Unit == u.ID && (l.OrderLine == "" || origins[m.Origin].line == l.OrderLine) {
			fits = append(fits, m)
		}
	}
	if len(fits) == 0 {
		return reject(connector.Correctable, "nothing_to_receive", fmt.Sprintf("purchase order %q has nothing open of item %q in %s", l.OrderNo, l.Item, l.Quantity.Unit),
			"Look in Tryton whether it was received already, or is ordered in another unit; then correct the line or settle it."), nil
	}
	lot, early, err := c.lotFor(ctx, l.Lot, it, true)
	if early != nil || err != nil {
		return early, err
	}
	left := l.Quantity.Value
	for i, m := range fits {
		planned, err := exact(m.Quantity, u.Digits)
		if err != nil {
			return nil, err
		}
		take := left
		used := slices.ContainsFunc(r.taken, func(t taken) bool { return t.id == m.ID })
		if i < len(fits)-1 && !used {
			take = decimal.Min(left, planned)
		}
		if used && i < len(fits)-1 {
			continue
		}
		r.take(m, take, lot, used, r.day)
		if left = left.Sub(take); left.IsZero() {
			break
		}
	}
	return nil, nil
}

// take plans a move of so much: the planned one itself, or one more of the same order line.
func (r *receipt) take(m shippedMove, q decimal.Decimal, lot int, again bool, day *wireDate) {
	values := map[string]any{"quantity": number(q)}
	if lot != 0 {
		values["lot"] = lot
	}
	if day != nil {
		values["effective_date"] = *day
	}
	if again {
		for name, v := range map[string]any{"product": m.Product.ID, "uom": m.Unit, "from_location": m.From, "to_location": m.To, "company": m.Company, "origin": m.Origin,
			"unit_price": wireDecimal(m.Price.Decimal.String()), "currency": m.Currency} {
			values[name] = v
		}
		r.made = append(r.made, values)
		return
	}
	if r.stamps == nil {
		r.stamps = map[string]string{}
	}
	r.stamps[ref{"stock.move", m.ID}.String()] = m.Timestamp
	r.taken = append(r.taken, taken{m.ID, values})
}

// lotFor finds the record of a lot, and registers a new one where it may be new. A lot without goods changes no stock.
func (c *Connector) lotFor(ctx context.Context, lotNumber string, it item, mayBeNew bool) (int, *connector.Outcome, error) {
	if lotNumber == "" {
		return 0, nil, nil
	}
	var m plannedMove
	if early, err := c.lot(ctx, lotNumber, it, mayBeNew, &m); early != nil || err != nil || m.NewLot == "" {
		return m.Lot, early, err
	}
	id, err := c.makeLot(ctx, m.NewLot, it.ID)
	return id, nil, err
}

// planTransfer makes moves from one place to another.
func (c *Connector) planTransfer(ctx context.Context, w connector.Write, in *writeIntent) (*connector.Outcome, error) {
	s := w.Want.Shipment
	from, early, err := c.placeOf(ctx, s.From)
	if early != nil || err != nil {
		return early, err
	}
	to, early, err := c.placeOf(ctx, s.To)
	if early != nil || err != nil {
		return early, err
	}
	company, err := c.client.company(ctx)
	if err != nil {
		return nil, err
	}
	var rows []any
	for _, l := range s.Lines {
		it, u, early, err := c.measured(ctx, l.Item, l.Quantity.Unit, l.Quantity.Value)
		if early != nil || err != nil {
			return early, err
		}
		lot, early, err := c.lotFor(ctx, l.Lot, it, false)
		if early != nil || err != nil {
			return early, err
		}
		row := map[string]any{"product": it.ID, "uom": u.ID, "quantity": number(l.Quantity.Value), "from_location": from, "to_location": to, "company": company}
		if lot != 0 {
			row["lot"] = lot
		}
		rows = append(rows, row)
	}
	day := dateOf(time.Now().UTC())
	if s.PlannedOn != "" {
		day = dateText(s.PlannedOn)
	}
	values := map[string]any{"company": company, "from_location": from, "to_location": to, "reference": w.Key.String(), "planned_date": day, "planned_start_date": day,
		"moves": append([]any{[]any{"create", rows}}, touched(in.Gates)...)}
	if d := effectiveDay(w); d != nil {
		values["effective_date"] = *d
	}
	return nil, in.make(shipmentInternal, values, "", nil, "")
}

// planDelivery finds the delivery that Tryton planned for a sales order, and what is to be changed on it: what is not shipped now
// Tryton plans again by itself. The change also claims the delivery, by its reference, so that no other write takes it meanwhile.
func (c *Connector) planDelivery(ctx context.Context, w connector.Write, in *writeIntent) (*connector.Outcome, error) {
	s := w.Want.Shipment
	if in.ID == 0 {
		early, err := c.findDelivery(ctx, w, in)
		if early != nil || err != nil {
			return early, err
		}
	}
	if len(s.Lines) == 0 {
		return nil, nil
	}
	held, err := c.loadOne(ctx, object.BusinessShipment, ref{in.Model, in.ID})
	if err != nil {
		return nil, err
	}
	edit := map[string]any{}
	if held.Shipment.Reference == "" {
		edit["reference"] = w.Key.String()
	}
	same := *s
	same.Number, same.Reference, same.State, same.EffectiveOn = "", "", "", ""
	if says := (object.Business{Kind: object.BusinessShipment, Shipment: &same}).Difference(held); says != "" {
		if held.Shipment.State != object.ShipmentPlanned {
			return reject(connector.Correctable, "already_picked", fmt.Sprintf("shipment %q is %s in Tryton with other goods: %s", held.Shipment.Number, held.Shipment.State, says),
				"Correct the shipment in Tryton, or what was reported of it."), nil
		}
		if early, err := c.pickedMoves(ctx, s, in, edit); early != nil || err != nil {
			return early, err
		}
	}
	if len(edit) > 0 {
		in.Edit, err = json.Marshal(edit)
	}
	return nil, err
}

// findDelivery finds the one open delivery of the sales order that the lines name.
func (c *Connector) findDelivery(ctx context.Context, w connector.Write, in *writeIntent) (*connector.Outcome, error) {
	s := w.Want.Shipment
	if len(s.Lines) == 0 || s.Lines[0].OrderNo == "" {
		return reject(connector.Fatal, "no_order", fmt.Sprintf("shipment %q names no sales order", s.Reference), "Name the order that it fulfils, or the shipment's number."), nil
	}
	var rows []struct {
		ID        int   `json:"id"`
		Shipments []int `json:"shipments"`
	}
	err := c.client.call(ctx, &rows, nil, "sale.sale.search_read", []any{[]any{"number", "=", s.Lines[0].OrderNo}}, 0, 2, nil, []string{"shipments"})
	if err != nil {
		return nil, err
	}
	if len(rows) != 1 {
		return reject(connector.Fatal, "unknown_order", fmt.Sprintf("Tryton has %d sales orders %q", len(rows), s.Lines[0].OrderNo), "Correct the order number at the source, or enter the order in Tryton and replay."), nil
	}
	var open []int
	if len(rows[0].Shipments) > 0 {
		err = c.client.call(ctx, &open, nil, shipmentOut+".search", []any{idsIn(rows[0].Shipments), []any{"state", "in", []string{"draft", "waiting", "assigned"}}}, 0, nil, [][]string{{"id", "ASC"}})
		if err != nil {
			return nil, err
		}
	}
	taken, err := c.taken(ctx, open)
	if err != nil {
		return nil, err
	}
	free := slices.DeleteFunc(slices.Clone(open), func(id int) bool { return taken[id] })
	if len(free) == 0 && len(open) > 0 {
		return reject(connector.Retryable, "shipment_taken", fmt.Sprintf("the open shipment of sales order %q is being written under another key", s.Lines[0].OrderNo),
			"Nothing: it is tried again, with what is left of the order. If it stays, look what became of the other."), nil
	}
	open = free
	if len(open) != 1 {
		return reject(connector.Correctable, "no_open_shipment", fmt.Sprintf("sales order %q has %d open shipments in Tryton", s.Lines[0].OrderNo, len(open)),
			"Confirm the order, or name the shipment by its number."), nil
	}
	in.Model, in.ID = shipmentOut, open[0]
	return nil, nil
}

// taken tells which deliveries carry a key: of another write, because one's own is found before.
func (c *Connector) taken(ctx context.Context, ids []int) (map[int]bool, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	refs := make([]string, len(ids))
	for i, id := range ids {
		refs[i] = ref{shipmentOut, id}.String()
	}
	var notes []struct{ Resource string }
	err := c.client.call(ctx, &notes, nil, "ir.note.search_read", []any{[]any{"resource", "in", refs}, []any{"message", "like", "Linekeeper ________________"}}, 0, nil, nil, []string{"resource"})
	if err != nil {
		return nil, err
	}
	var rows []struct {
		ID        int    `json:"id"`
		Reference string `json:"reference"`
	}
	if err := c.client.call(ctx, &rows, nil, shipmentOut+".read", ids, []string{"reference"}); err != nil {
		return nil, err
	}
	out := map[int]bool{}
	for _, n := range notes {
		if r, ok := parseRef(n.Resource); ok {
			out[r.id] = true
		}
	}
	for _, r := range rows {
		if prefix, err := factkey.Parse(r.Reference); err == nil && len(prefix) == 10 {
			out[r.ID] = true
		}
	}
	return out, nil
}

// pickedMoves plans the picking as it was reported: each planned move with its lot, and nothing of what is not shipped.
func (c *Connector) pickedMoves(ctx context.Context, s *object.Shipment, in *writeIntent, edit map[string]any) (*connector.Outcome, error) {
	var rows []struct {
		Picking []int  `json:"inventory_moves"`
		State   string `json:"state"`
	}
	if err := c.client.call(ctx, &rows, nil, shipmentOut+".read", []int{in.ID}, []string{"inventory_moves", "state"}); err != nil {
		return nil, err
	}
	if rows[0].State != "waiting" { // what is reserved cannot be changed, and a draft has no moves to pick yet
		in.Before = "wait"
		clear(edit)
		return nil, nil
	}
	moves, err := c.shipped(ctx, idsIn(rows[0].Picking))
	if err != nil {
		return nil, err
	}
	left := slices.Clone(s.Lines)
	var edits []any
	for _, m := range moves {
		values := map[string]any{"quantity": 0}
		i := slices.IndexFunc(left, func(l object.ShipmentLine) bool { return l.Item == m.Product.Code })
		if i >= 0 {
			l := left[i]
			it, u, early, err := c.measured(ctx, l.Item, l.Quantity.Unit, l.Quantity.Value)
			if early != nil || err != nil {
				return early, err
			}
			lot, early, err := c.lotFor(ctx, l.Lot, it, false)
			if early != nil || err != nil {
				return early, err
			}
			values["quantity"], values["uom"] = number(l.Quantity.Value), u.ID
			if lot != 0 {
				values["lot"] = lot
			}
			left = slices.Delete(left, i, i+1)
		}
		edits = append(edits, []any{"write", []int{m.ID}, values})
	}
	if len(left) > 0 {
		return reject(connector.Correctable, "not_planned", fmt.Sprintf("shipment %q plans no move for item %q, lot %q", s.Number, left[0].Item, left[0].Lot),
			"Ship each item of an order in one lot, or split the move in Tryton; then ask again."), nil
	}
	edit["inventory_moves"] = edits
	return nil, nil
}

func reachedShipment(w connector.Write, r record) bool {
	return directions[r.model].states[r.State].Reached(w.Want.Shipment.State)
}

// stepShipment makes the next step of a shipment.
func (c *Connector) stepShipment(ctx context.Context, w connector.Write, r record) error {
	if r.State == "cancelled" {
		return &callError{kind: refused, method: r.model, text: "The shipment is cancelled."}
	}
	steps := map[string]string{"draft": "receive", "received": "done"}
	switch r.model {
	case shipmentOut:
		steps = map[string]string{"draft": "wait", "waiting": "assign_try", "assigned": "pick", "picked": "pack", "packed": "done"}
	case shipmentInternal:
		steps = map[string]string{"request": "draft", "draft": "wait", "waiting": "assign_try", "assigned": "done", "shipped": "done"}
		if w.Want.Shipment.State == object.ShipmentInTransit {
			steps["assigned"] = "ship"
		}
	}
	button := steps[r.State]
	if button != "assign_try" {
		return c.press(ctx, w, r, button, nil)
	}
	var reserved bool
	if err := c.press(ctx, w, r, button, &reserved); err != nil || reserved {
		return err
	}
	if err := c.client.call(ctx, nil, nil, r.model+".wait", []int{r.id}); err != nil { // gives back what was reserved in part
		return err
	}
	return &callError{kind: missing, method: r.model + "." + button, text: "there is not enough in stock"}
}
