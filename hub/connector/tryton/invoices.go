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

type invoiceRow struct {
	ID        int        `json:"id"`
	Number    string     `json:"number"`
	Reference string     `json:"reference"`
	Type      string     `json:"type"`
	State     string     `json:"state"`
	Date      *wireDate  `json:"invoice_date"`
	Posted    *wireDate  `json:"accounting_date"`
	Party     coded      `json:"party."`
	Currency  coded      `json:"currency."`
	Net       wireNumber `json:"untaxed_amount"`
	Tax       wireNumber `json:"tax_amount"`
	Gross     wireNumber `json:"total_amount"`
	Written   *wireTime  `json:"write_date"`
	Created   *wireTime  `json:"create_date"`
}

type invoiceLine struct {
	ID       int         `json:"id"`
	Invoice  int         `json:"invoice"`
	Sequence *int        `json:"sequence"`
	Product  *coded      `json:"product."`
	Text     string      `json:"description"`
	Quantity json.Number `json:"quantity"`
	Unit     *int        `json:"unit"`
	Price    wireNumber  `json:"unit_price"`
	Amount   wireNumber  `json:"amount"`
	Origin   string      `json:"origin"`
	Moves    []int       `json:"stock_moves"`
}

func (c *Connector) loadInvoices(ctx context.Context, model string, ids []int) ([]loaded, error) {
	var rows []invoiceRow
	err := c.client.call(ctx, &rows, nil, model+".search_read", []any{idsIn(ids)}, 0, nil, [][]string{{"id", "ASC"}}, []string{"number", "reference", "type", "state",
		"invoice_date", "accounting_date", "party.code", "currency.code", "untaxed_amount", "tax_amount", "total_amount", "write_date", "create_date"})
	if err != nil {
		return nil, err
	}
	fields := []string{"invoice", "sequence", "product.code", "description", "quantity", "unit", "unit_price", "amount", "origin"}
	byMoves, err := c.master.has(ctx, "account.invoice.line", "stock_moves")
	if err != nil {
		return nil, err
	}
	if byMoves {
		fields = append(fields, "stock_moves")
	}
	var lines []invoiceLine
	err = c.client.call(ctx, &lines, nil, "account.invoice.line.search_read", []any{[]any{"invoice", "in", ids}, []any{"type", "=", "line"}}, 0, nil,
		[][]string{{"sequence", "ASC NULLS LAST"}, {"id", "ASC"}}, fields)
	if err != nil {
		return nil, err
	}
	origins, moves := map[string]bool{}, []int{}
	for _, l := range lines {
		origins[l.Origin] = true
		moves = append(moves, l.Moves...)
	}
	orders, err := c.orderLines(ctx, origins)
	if err != nil {
		return nil, err
	}
	receipts, err := c.receiptsOf(ctx, moves)
	if err != nil {
		return nil, err
	}
	var out []loaded
	for _, r := range rows {
		v, err := c.invoice(ctx, model, r, lines, orders, receipts)
		out = append(out, finish(r.ID, object.Business{Kind: object.BusinessInvoice, Invoice: &v}, err))
	}
	return out, nil
}

// receiptsOf finds the numbers of the shipments that moves belong to.
func (c *Connector) receiptsOf(ctx context.Context, moves []int) (map[int]string, error) {
	if len(moves) == 0 {
		return nil, nil
	}
	var rows []struct {
		ID       int    `json:"id"`
		Shipment string `json:"shipment"`
	}
	if err := c.client.call(ctx, &rows, nil, "stock.move.search_read", []any{idsIn(moves)}, 0, nil, nil, []string{"shipment"}); err != nil {
		return nil, err
	}
	shipments := map[string][]int{}
	for _, r := range rows {
		if s, ok := parseRef(r.Shipment); ok && !slices.Contains(shipments[s.model], s.id) {
			shipments[s.model] = append(shipments[s.model], s.id)
		}
	}
	numbers := map[string]string{}
	for model, ids := range shipments {
		var named []struct {
			ID     int    `json:"id"`
			Number string `json:"number"`
		}
		if err := c.client.call(ctx, &named, nil, model+".search_read", []any{idsIn(ids)}, 0, nil, nil, []string{"number"}); err != nil {
			return nil, err
		}
		for _, n := range named {
			numbers[ref{model, n.ID}.String()] = n.Number
		}
	}
	out := map[int]string{}
	for _, r := range rows {
		out[r.ID] = numbers[r.Shipment]
	}
	return out, nil
}

func (c *Connector) invoice(ctx context.Context, model string, r invoiceRow, lines []invoiceLine, orders map[string]orderLine, receipts map[int]string) (object.Invoice, error) {
	v := object.Invoice{Number: r.Number, Reference: r.Reference, Direction: object.Inbound, Kind: object.InvoiceDebit, Partner: r.Party.Code,
		InvoiceDate: date(r.Date), PostingDate: date(r.Posted), Currency: r.Currency.Code, Net: r.Net.Decimal, Tax: r.Tax.Decimal, Gross: r.Gross.Decimal,
		State: invoiceState(r), Held: c.held(model, r.ID, r.Written, r.Created)}
	if r.Type == "out" {
		v.Direction = object.Outbound
	}
	if v.State == "" {
		return v, fmt.Errorf("it has the unknown state %q", r.State)
	}
	sign := decimal.NewFromInt(1)
	if v.Net.IsNegative() { // Tryton's credit note is an invoice below zero
		v.Kind, sign = object.InvoiceCredit, decimal.NewFromInt(-1)
		v.Net, v.Tax, v.Gross = v.Net.Neg(), v.Tax.Neg(), v.Gross.Neg()
	}
	for _, l := range lines {
		if l.Invoice != r.ID {
			continue
		}
		x, err := c.invoiced(ctx, l, r.Currency.Code, sign)
		if err != nil {
			return v, err
		}
		if o, ok := orders[l.Origin]; ok {
			x.OrderNo, x.OrderLine = o.number, o.line
		}
		for _, m := range l.Moves {
			if n := receipts[m]; n != "" && !slices.Contains(x.Receipts, n) {
				x.Receipts = append(x.Receipts, n)
			}
		}
		slices.Sort(x.Receipts)
		v.Lines = append(v.Lines, x)
	}
	return v, nil
}

func invoiceState(r invoiceRow) object.InvoiceState {
	switch r.State {
	case "draft":
		return object.InvoiceReceived
	case "validated":
		return object.InvoiceValidated
	case "posted":
		return object.InvoicePosted
	case "paid":
		return object.InvoicePaid
	case "cancelled":
		if r.Number != "" {
			return object.InvoiceReversed
		}
		return object.InvoiceCancelled
	}
	return ""
}

func (c *Connector) invoiced(ctx context.Context, l invoiceLine, currency string, sign decimal.Decimal) (object.InvoiceLine, error) {
	x := object.InvoiceLine{LineNo: strconv.Itoa(l.ID), Description: l.Text, Amount: l.Amount.Decimal.Mul(sign)}
	x.Quantity.Unit = "C62"
	digits := int32(9)
	if l.Unit != nil {
		u, err := c.master.unitOf(ctx, *l.Unit)
		if err != nil {
			return x, err
		}
		x.Quantity.Unit, digits = u.code, u.Digits
	}
	q, err := exact(l.Quantity, digits)
	if err != nil {
		return x, err
	}
	x.Quantity.Value = q.Mul(sign)
	x.Price = object.UnitPrice{Price: object.Money{Amount: l.Price.Decimal, Currency: currency}, Per: object.Quantity{Value: decimal.NewFromInt(1), Unit: x.Quantity.Unit}}
	if l.Product != nil {
		x.Item = l.Product.Code
	}
	return x, nil
}

// planInvoice finds the draft that Tryton made of what was received or shipped, and completes it. It never changes what the draft
// says of quantities and prices: where the paper says otherwise, a match or a person decides.
func (c *Connector) planInvoice(ctx context.Context, w connector.Write, in *writeIntent) (*connector.Outcome, error) {
	v := w.Want.Invoice
	if v.Direction == object.Inbound && v.InvoiceDate == "" && v.State != object.InvoiceReceived && in.ID == 0 {
		return reject(connector.Fatal, "no_invoice_date", fmt.Sprintf("invoice %q of %q has no date", v.Reference, v.Partner), "Take over the date that is on the invoice."), nil
	}
	if in.ID == 0 {
		if early, err := c.findInvoice(ctx, v, in); early != nil || err != nil {
			return early, err
		}
	}
	now, err := c.loadOne(ctx, object.BusinessInvoice, ref{in.Model, in.ID})
	if err != nil {
		return nil, err
	}
	if now.Invoice.State != object.InvoiceReceived {
		return nil, nil
	}
	edit := map[string]any{"description": keyText(w.Key)}
	if v.Reference != "" {
		edit["reference"] = v.Reference
	}
	if v.InvoiceDate != "" {
		edit["invoice_date"] = dateText(v.InvoiceDate)
	}
	if !w.PostingDate.IsZero() && w.PostingDate.Format(time.DateOnly) != v.InvoiceDate {
		edit["accounting_date"] = dateOf(w.PostingDate)
	}
	in.Edit, err = json.Marshal(edit)
	return nil, err
}

// findInvoice looks among the drafts of the orders that the lines name for the one with the same content.
func (c *Connector) findInvoice(ctx context.Context, v *object.Invoice, in *writeIntent) (*connector.Outcome, error) {
	s, kind := purchaseSide, "in"
	if v.Direction == object.Outbound {
		s, kind = saleSide, "out"
	}
	var numbers []string
	for i, l := range v.Lines {
		if l.OrderNo == "" {
			return reject(connector.Correctable, "no_order", fmt.Sprintf("line %d of invoice %q names no order", i+1, v.Reference), "Name the order, or enter the invoice in Tryton by hand."), nil
		}
		if !slices.Contains(numbers, l.OrderNo) {
			numbers = append(numbers, l.OrderNo)
		}
	}
	var lines []int
	err := c.client.call(ctx, &lines, nil, s.line+".search", []any{[]any{s.parent + ".number", "in", numbers}}, 0, nil, nil)
	if err != nil {
		return nil, err
	}
	origins := make([]string, len(lines))
	for i, id := range lines {
		origins[i] = ref{s.line, id}.String()
	}
	var rows []struct {
		Invoice int `json:"invoice"`
	}
	err = c.client.call(ctx, &rows, nil, "account.invoice.line.search_read", []any{[]any{"origin", "in", origins}, []any{"invoice.state", "=", "draft"}, []any{"invoice.type", "=", kind}},
		0, nil, [][]string{{"id", "ASC"}}, []string{"invoice"})
	if err != nil {
		return nil, err
	}
	var drafts []int
	for _, r := range rows {
		if !slices.Contains(drafts, r.Invoice) {
			drafts = append(drafts, r.Invoice)
		}
	}
	if len(drafts) == 0 {
		return reject(connector.Correctable, "nothing_to_invoice", fmt.Sprintf("Tryton has no open invoice for the orders %q of invoice %q", numbers, v.Reference),
			"Receive or ship the goods first; where it was invoiced already, settle it."), nil
	}
	return c.sameInvoice(ctx, v, in, drafts)
}

// sameInvoice takes the draft that says the same. A draft that carries another key is another invoice's.
func (c *Connector) sameInvoice(ctx context.Context, v *object.Invoice, in *writeIntent, drafts []int) (*connector.Outcome, error) {
	var texts []struct {
		ID          int    `json:"id"`
		Description string `json:"description"`
	}
	if err := c.client.call(ctx, &texts, nil, "account.invoice.read", drafts, []string{"description"}); err != nil {
		return nil, err
	}
	free := map[int]bool{}
	for _, t := range texts {
		free[t.ID] = len(t.Description) != len("Linekeeper ")+16 || t.Description[:11] != "Linekeeper "
	}
	rows, err := c.loadInvoices(ctx, "account.invoice", drafts)
	if err != nil {
		return nil, err
	}
	bare := *v
	bare.Reference, bare.InvoiceDate, bare.State, bare.Number = "", "", "", ""
	says := "it is taken by another invoice"
	for _, r := range rows {
		if r.err != nil {
			return nil, r.err
		}
		if !free[r.id] {
			continue
		}
		difference := (object.Business{Kind: object.BusinessInvoice, Invoice: &bare}).Difference(r.object)
		if difference == "" {
			in.Model, in.ID = "account.invoice", r.id
			return nil, nil
		}
		says = difference
	}
	return reject(connector.Correctable, "invoice_differs", fmt.Sprintf("invoice %q of %q is not what Tryton expects: %s", v.Reference, v.Partner, says),
		"Match it against order and receipt; then correct the draft in Tryton or the invoice, and ask again."), nil
}

func reachedInvoice(w connector.Write, r record) bool {
	return invoiceState(invoiceRow{State: r.State}).Reached(w.Want.Invoice.State)
}

// stepInvoice validates a supplier's invoice, and posts. Posting wants a fresh log-in, which the client opens by itself.
func (c *Connector) stepInvoice(ctx context.Context, w connector.Write, r record) error {
	if r.State == "cancelled" {
		return &callError{kind: refused, method: r.model, text: "The invoice is cancelled."}
	}
	if w.Want.Invoice.Direction == object.Inbound && r.State == "draft" || w.Want.Invoice.State == object.InvoiceValidated {
		return c.press(ctx, w, r, "validate_invoice", nil)
	}
	return c.press(ctx, w, r, "post", nil)
}
