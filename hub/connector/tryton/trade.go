package tryton

import (
	"cmp"
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

// side is one of Tryton's two mirror images: purchases and sales.
type side struct {
	order, line, parent string // models, and the line's field for its order
	date                string // field
	outside             string // type of the location where goods come from or go to
}

var (
	purchaseSide = side{"purchase.purchase", "purchase.line", "purchase", "purchase_date", "supplier"}
	saleSide     = side{"sale.sale", "sale.line", "sale", "sale_date", "customer"}
)

// parts are what changes without touching the order's own record.
func (s side) parts() []part {
	of := []any{[]any{"origin", "like", s.line + ",%"}}
	via := [2]string{s.line, s.parent}
	return []part{{model: s.line, field: s.parent}, {model: "stock.move", field: "origin", only: of, via: via},
		{model: "account.invoice.line", field: "origin", only: of, via: via}}
}

// tradeOrder is a purchase or a sale.
type tradeOrder struct {
	ID        int       `json:"id"`
	Number    string    `json:"number"`
	Reference string    `json:"reference"`
	State     string    `json:"state"`
	Method    string    `json:"invoice_method"`
	Purchased *wireDate `json:"purchase_date"`
	Sold      *wireDate `json:"sale_date"`
	Warehouse *int      `json:"warehouse"`
	Party     coded     `json:"party."`
	Currency  coded     `json:"currency."`
	Terms     *named    `json:"payment_term."`
	Written   *wireTime `json:"write_date"`
	Created   *wireTime `json:"create_date"`
}

type coded struct {
	ID   int    `json:"id"`
	Code string `json:"code"`
}

type named struct {
	Name string `json:"name"`
}

// tradeLine is a line of one.
type tradeLine struct {
	ID       int         `json:"id"`
	Purchase int         `json:"purchase"`
	Sale     int         `json:"sale"`
	Sequence *int        `json:"sequence"`
	Quantity json.Number `json:"quantity"`
	Unit     *int        `json:"unit"`
	Price    wireNumber  `json:"unit_price"`
	Date     *wireDate   `json:"delivery_date"`
	ShipOn   *wireDate   `json:"shipping_date"`
	Product  *coded      `json:"product."`
	Text     string      `json:"description"`

	name           string
	moved, charged decimal.Decimal // in the line's unit
}

func (l tradeLine) order() int { return cmp.Or(l.Purchase, l.Sale) }

// trade reads orders of a side and their lines, with what was moved and invoiced of each.
func (c *Connector) trade(ctx context.Context, s side, ids []int) ([]tradeOrder, map[int][]*tradeLine, error) {
	var orders []tradeOrder
	err := c.client.call(ctx, &orders, nil, s.order+".search_read", []any{idsIn(ids)}, 0, nil, [][]string{{"id", "ASC"}},
		[]string{"number", "reference", "state", "invoice_method", s.date, "warehouse", "party.code", "currency.code", "payment_term.name", "write_date", "create_date"})
	if err != nil {
		return nil, nil, err
	}
	var lines []*tradeLine
	date := "delivery_date"
	if s == saleSide {
		date = "shipping_date"
	}
	err = c.client.call(ctx, &lines, nil, s.line+".search_read", []any{[]any{s.parent, "in", ids}, []any{"type", "=", "line"}}, 0, nil,
		[][]string{{"sequence", "ASC NULLS LAST"}, {"id", "ASC"}}, []string{s.parent, "sequence", "quantity", "unit", "unit_price", date, "product.code", "description"})
	if err != nil || len(lines) == 0 {
		return orders, nil, err
	}
	of, byID := map[int][]*tradeLine{}, map[string]*tradeLine{}
	var origins []string
	for _, l := range lines {
		of[l.order()] = append(of[l.order()], l)
		origin := ref{s.line, l.ID}.String()
		byID[origin] = l
		origins = append(origins, origin)
	}
	for _, ls := range of {
		nameLines(ls)
	}
	return orders, of, c.progress(ctx, s, origins, byID)
}

// nameLines numbers the lines of one order: by their sequence, by their record where it has none of its own.
func nameLines(lines []*tradeLine) {
	times := map[int]int{}
	for _, l := range lines {
		if l.Sequence != nil {
			times[*l.Sequence]++
		}
	}
	for _, l := range lines {
		l.name = "#" + strconv.Itoa(l.ID)
		if l.Sequence != nil && times[*l.Sequence] == 1 {
			l.name = strconv.Itoa(*l.Sequence)
		}
	}
}

// progress sums what was moved and invoiced of lines.
func (c *Connector) progress(ctx context.Context, s side, origins []string, lines map[string]*tradeLine) error {
	var moves []struct {
		Origin   string      `json:"origin"`
		Quantity json.Number `json:"quantity"`
		Unit     int         `json:"uom"`
		From     location    `json:"from_location."`
	}
	err := c.client.call(ctx, &moves, nil, "stock.move.search_read", []any{[]any{"origin", "in", origins}, []any{"state", "=", "done"}}, 0, nil, nil,
		[]string{"origin", "quantity", "uom", "from_location.type"})
	if err != nil {
		return err
	}
	for _, m := range moves {
		l := lines[m.Origin]
		back := (s == saleSide) == (m.From.Type == s.outside)
		if err := c.count(ctx, &l.moved, l, m.Quantity, m.Unit, back); err != nil {
			return err
		}
	}
	var invoiced []struct {
		Origin   string      `json:"origin"`
		Quantity json.Number `json:"quantity"`
		Unit     *int        `json:"unit"`
	}
	err = c.client.call(ctx, &invoiced, nil, "account.invoice.line.search_read", []any{[]any{"origin", "in", origins},
		[]any{"invoice.state", "in", []string{"validated", "posted", "paid"}}}, 0, nil, nil, []string{"origin", "quantity", "unit"})
	if err != nil {
		return err
	}
	for _, m := range invoiced {
		l := lines[m.Origin]
		if l.Unit == nil || m.Unit == nil {
			continue
		}
		if err := c.count(ctx, &l.charged, l, m.Quantity, *m.Unit, false); err != nil {
			return err
		}
	}
	return nil
}

// count adds a quantity to a sum that is in the line's unit.
func (c *Connector) count(ctx context.Context, sum *decimal.Decimal, l *tradeLine, n json.Number, unitID int, back bool) error {
	units, err := c.master.allUnits(ctx)
	if err != nil {
		return err
	}
	from, to := units[unitID], units[*l.Unit]
	q, err := exact(n, from.Digits)
	if err != nil {
		return err
	}
	if from.ID != to.ID {
		if to.Factor.IsZero() {
			return fmt.Errorf("read Tryton's unit %q: it has no factor", to.Symbol)
		}
		q = q.Mul(from.Factor).Div(to.Factor).Round(to.Digits)
	}
	if back {
		q = q.Neg()
	}
	*sum = sum.Add(q)
	return nil
}

// wireNumber is Tryton's Decimal.
type wireNumber struct {
	Decimal decimal.Decimal `json:"decimal"`
}

func date(d *wireDate) string {
	if d == nil {
		return ""
	}
	return d.instant().Format(time.DateOnly)
}

func (o tradeOrder) held(c *Connector, model string) object.Held {
	return object.Held{ERP: c.config.Name, ERPKey: ref{model, o.ID}.String(), RevisedAt: cmp.Or(o.Written, o.Created).instant()}
}

// ordered is what a line orders, and at what price.
func (c *Connector) ordered(ctx context.Context, l *tradeLine, currency string) (item string, q object.Quantity, p object.UnitPrice, err error) {
	q.Unit = "C62"
	digits := int32(9)
	if l.Unit != nil {
		u, err := c.master.unitOf(ctx, *l.Unit)
		if err != nil {
			return "", q, p, err
		}
		q.Unit, digits = u.code, u.Digits
	}
	if q.Value, err = exact(l.Quantity, digits); err != nil {
		return "", q, p, err
	}
	p = object.UnitPrice{Price: object.Money{Amount: l.Price.Decimal, Currency: currency}, Per: object.Quantity{Value: decimal.NewFromInt(1), Unit: q.Unit}}
	if l.Product != nil {
		return l.Product.Code, q, p, nil
	}
	return l.Text, q, p, nil // a charge is known by its text only
}

func (c *Connector) loadPurchases(ctx context.Context, model string, ids []int) ([]loaded, error) {
	orders, lines, err := c.trade(ctx, purchaseSide, ids)
	if err != nil {
		return nil, err
	}
	var out []loaded
	for _, o := range orders {
		p := object.PurchaseOrder{Number: o.Number, Reference: o.Reference, Supplier: o.Party.Code, OrderDate: date(o.Purchased), Currency: o.Currency.Code,
			ReceiptBasedInvoicing: o.Method == "shipment", Held: o.held(c, model)}
		if o.Terms != nil {
			p.PaymentTerms = o.Terms.Name
		}
		p.ShipTo, err = c.siteOf(ctx, o.Warehouse)
		all := progressed{}
		for _, l := range lines[o.ID] {
			x := object.PurchaseLine{LineNo: l.name, DeliverOn: date(l.Date), Received: l.moved, Invoiced: l.charged, ReceiptExpected: true, InvoiceExpected: o.Method != "manual"}
			var lineErr error
			if x.Item, x.Ordered, x.Price, lineErr = c.ordered(ctx, l, o.Currency.Code); lineErr != nil {
				err = lineErr
			}
			x.State = purchaseStates[all.add(o.State, x.Ordered.Value, l.moved, l.charged)]
			p.Lines = append(p.Lines, x)
		}
		p.State = purchaseStates[all.stage(o.State)]
		out = append(out, finish(o.ID, object.Business{Kind: object.BusinessPurchase, Purchase: &p}, err))
	}
	return out, nil
}

func (c *Connector) loadSales(ctx context.Context, model string, ids []int) ([]loaded, error) {
	orders, lines, err := c.trade(ctx, saleSide, ids)
	if err != nil {
		return nil, err
	}
	var out []loaded
	for _, o := range orders {
		p := object.SalesOrder{Number: o.Number, Reference: o.Reference, Customer: o.Party.Code, OrderDate: date(o.Sold), Currency: o.Currency.Code,
			ShipmentBasedInvoices: o.Method == "shipment", Held: o.held(c, model)}
		if o.Terms != nil {
			p.PaymentTerms = o.Terms.Name
		}
		p.ShipFrom, err = c.siteOf(ctx, o.Warehouse)
		all := progressed{}
		for _, l := range lines[o.ID] {
			x := object.SalesLine{LineNo: l.name, ShipOn: date(l.ShipOn), Shipped: l.moved, Invoiced: l.charged}
			var lineErr error
			if x.Item, x.Ordered, x.Price, lineErr = c.ordered(ctx, l, o.Currency.Code); lineErr != nil {
				err = lineErr
			}
			x.State = salesStates[all.add(o.State, x.Ordered.Value, l.moved, l.charged)]
			p.Lines = append(p.Lines, x)
		}
		p.State = salesStates[all.stage(o.State)]
		out = append(out, finish(o.ID, object.Business{Kind: object.BusinessSale, Sale: &p}, err))
	}
	return out, nil
}

// finish says of an unreadable record which it is.
func finish(id int, b object.Business, err error) loaded {
	if err != nil {
		err = fmt.Errorf("read %s %q of Tryton: %w", b.Kind, cmp.Or(b.Names().Number, b.Names().ERPKey), err)
	}
	return loaded{id: id, object: b, err: err}
}

// siteOf is how routing knows a warehouse; empty for none.
func (c *Connector) siteOf(ctx context.Context, id *int) (string, error) {
	if id == nil {
		return "", nil
	}
	w, err := c.master.warehouseOf(ctx, *id)
	if err != nil {
		return "", err
	}
	return c.config.site(w), nil
}

// stage is how far an order, or a line, is. Tryton itself keeps less.
type stage int

const (
	stageDraft stage = iota
	stagePlaced
	stagePart
	stageMoved
	stageInvoiced
	stageClosed
	stageCancelled
)

var purchaseStates = map[stage]object.PurchaseState{stageDraft: object.PurchaseDraft, stagePlaced: object.PurchaseSent, stagePart: object.PurchasePartReceived,
	stageMoved: object.PurchaseReceived, stageInvoiced: object.PurchaseInvoiced, stageClosed: object.PurchaseClosed, stageCancelled: object.PurchaseCancelled}

var salesStates = map[stage]object.SalesState{stageDraft: object.SalesDraft, stagePlaced: object.SalesConfirmed, stagePart: object.SalesPartShipped,
	stageMoved: object.SalesShipped, stageInvoiced: object.SalesInvoiced, stageClosed: object.SalesClosed, stageCancelled: object.SalesCancelled}

// progressed gathers how far the lines of an order are: the order is where its last line is.
type progressed struct {
	seen        bool
	least, most stage
}

func (p *progressed) add(state string, ordered, moved, charged decimal.Decimal) stage {
	s := stagePlaced
	switch {
	case moved.GreaterThanOrEqual(ordered) && charged.GreaterThanOrEqual(ordered):
		s = stageInvoiced
	case moved.GreaterThanOrEqual(ordered):
		s = stageMoved
	case moved.IsPositive():
		s = stagePart
	}
	if !p.seen || s < p.least {
		p.least = s
	}
	p.seen, p.most = true, max(p.most, s)
	return fixed(state, s)
}

// fixed lets the order's own state decide where it says more than the quantities.
func fixed(state string, s stage) stage {
	switch state {
	case "draft", "quotation":
		return stageDraft
	case "cancelled":
		return stageCancelled
	case "done":
		return stageClosed
	}
	return s
}

func (p progressed) stage(state string) stage {
	s := max(p.least, stagePlaced)
	if s == stagePlaced && p.most > stagePlaced {
		s = stagePart
	}
	return fixed(state, s)
}

// planPurchase works out a new purchase. Tryton's own client lets the server fill in what follows from party and product; so
// does this.
func (c *Connector) planPurchase(ctx context.Context, w connector.Write, in *writeIntent) (*connector.Outcome, error) {
	if in.ID != 0 { // it is only moved on
		return nil, nil
	}
	o := w.Want.Purchase
	values, early, err := c.newOrder(ctx, purchaseSide, w, o.Supplier, o.ShipTo, o.Currency, o.OrderDate, o.ReceiptBasedInvoicing)
	if early != nil || err != nil {
		return early, err
	}
	var lines []any
	for i, l := range o.Lines {
		line, early, err := c.newLine(ctx, purchaseSide, values, i, l.LineNo, l.Item, l.Ordered, l.Price)
		if early != nil || err != nil {
			return early, err
		}
		if l.DeliverOn != "" {
			line["delivery_date_edit"], line["delivery_date_store"] = true, dateText(l.DeliverOn)
		}
		lines = append(lines, line)
	}
	values["reference"] = o.Reference
	return nil, in.make(purchaseSide.order, values, "lines", lines, "moves_ignored")
}

func (c *Connector) planSale(ctx context.Context, w connector.Write, in *writeIntent) (*connector.Outcome, error) {
	if in.ID != 0 {
		return nil, nil
	}
	o := w.Want.Sale
	values, early, err := c.newOrder(ctx, saleSide, w, o.Customer, o.ShipFrom, o.Currency, o.OrderDate, o.ShipmentBasedInvoices)
	if early != nil || err != nil {
		return early, err
	}
	values["shipment_method"] = "order"
	var lines []any
	for i, l := range o.Lines {
		line, early, err := c.newLine(ctx, saleSide, values, i, l.LineNo, l.Item, l.Ordered, l.Price)
		if early != nil || err != nil {
			return early, err
		}
		lines = append(lines, line)
	}
	values["reference"] = o.Reference
	return nil, in.make(saleSide.order, values, "lines", lines, "moves_ignored")
}

// newOrder is the header of a new order.
func (c *Connector) newOrder(ctx context.Context, s side, w connector.Write, partyCode, site, currency, day string, byShipment bool) (map[string]any, *connector.Outcome, error) {
	party, early, err := c.partyOf(ctx, partyCode)
	if early != nil || err != nil {
		return nil, early, err
	}
	house, early, err := c.warehouseAt(ctx, site)
	if early != nil || err != nil {
		return nil, early, err
	}
	money, early, err := c.currencyOf(ctx, currency)
	if early != nil || err != nil {
		return nil, early, err
	}
	company, err := c.client.company(ctx)
	if err != nil {
		return nil, nil, err
	}
	var follows []map[string]any
	err = c.client.call(ctx, &follows, nil, s.order+".on_change", map[string]any{"id": -1, "party": party, "company": company, "lines": []any{}}, []string{"party"})
	if err != nil {
		return nil, nil, err
	}
	values := map[string]any{}
	for _, f := range follows {
		for _, name := range []string{"payment_term", "invoice_party", "invoice_address", "shipment_party", "shipment_address"} {
			if v, ok := f[name]; ok && v != nil {
				values[name] = v
			}
		}
	}
	values["party"], values["company"], values["warehouse"], values["currency"] = party, company, house.ID, money
	values["description"] = keyText(w.Key)
	values["invoice_method"] = "order"
	if byShipment {
		values["invoice_method"] = "shipment"
	}
	if day != "" {
		values[s.date] = dateText(day)
	}
	return values, nil, nil
}

// priceDigits is how many decimals Tryton keeps of a price, as it comes.
const priceDigits = 4

// newLine is a line of a new order.
func (c *Connector) newLine(ctx context.Context, s side, order map[string]any, i int, name, code string, q object.Quantity, p object.UnitPrice) (map[string]any, *connector.Outcome, error) {
	it, u, early, err := c.measured(ctx, code, q.Unit, q.Value)
	if early != nil || err != nil {
		return nil, early, err
	}
	price, early := eachPrice(code, q.Unit, p)
	if early != nil {
		return nil, early, nil
	}
	form := map[string]any{"id": -1, "type": "line", "product": it.ID, "quantity": number(q.Value), "unit": nil, "company": order["company"], "currency": order["currency"],
		"_parent_" + s.parent + ".party": order["party"], "_parent_" + s.parent + ".company": order["company"], "_parent_" + s.parent + ".currency": order["currency"]}
	var follows []map[string]any
	if err := c.client.call(ctx, &follows, nil, s.line+".on_change", form, []string{"product"}); err != nil {
		return nil, nil, err
	}
	line := map[string]any{"type": "line", "product": it.ID, "unit": u.ID, "quantity": number(q.Value), "unit_price": wireDecimal(price.String()), "sequence": 10 * (i + 1)}
	if n, err := strconv.Atoi(name); err == nil {
		line["sequence"] = n
	}
	for _, f := range follows {
		if taxes := taxIDs(f["taxes"]); len(taxes) > 0 {
			line["taxes"] = []any{[]any{"add", taxes}}
		}
	}
	return line, nil, nil
}

// eachPrice is the price of one unit, which must be exact in Tryton.
func eachPrice(item, unit string, p object.UnitPrice) (decimal.Decimal, *connector.Outcome) {
	if p.Per.Unit != unit {
		return decimal.Zero, reject(connector.Fatal, "price_unit", fmt.Sprintf("item %q is ordered in %q and priced per %q; Tryton prices the unit that is ordered", item, unit, p.Per.Unit),
			"Convert quantity or price at the source, so that both are in one unit.")
	}
	each := p.Price.Amount.DivRound(p.Per.Value, priceDigits)
	if !each.Mul(p.Per.Value).Equal(p.Price.Amount) {
		return decimal.Zero, reject(connector.Fatal, "price_not_exact", fmt.Sprintf("item %q costs %s, which Tryton cannot keep exactly for one %s", item, p, unit),
			"Agree on a price with four decimals for each unit, or order in the price's unit.")
	}
	return each, nil
}

// taxIDs reads what a form says of its taxes: a list, or what was added to one.
func taxIDs(v any) []int {
	var ids []int
	add := func(x any) {
		if n, ok := x.(json.Number); ok {
			if id, err := strconv.Atoi(n.String()); err == nil && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	switch x := v.(type) {
	case []any:
		for _, e := range x {
			add(e)
		}
	case map[string]any:
		added, _ := x["add"].([]any)
		for _, e := range added {
			if pair, ok := e.([]any); ok && len(pair) == 2 {
				if row, ok := pair[1].(map[string]any); ok {
					add(row["id"])
				}
			}
		}
	}
	return ids
}

// dateText is a calendar date that Check has let pass.
func dateText(day string) wireDate {
	t, _ := time.Parse(time.DateOnly, day)
	return dateOf(t)
}
