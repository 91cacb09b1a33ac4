package odoo

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

// family is one order of the plant's: a manufacturing order, and what Odoo split off it as backorders.
type family struct {
	number  string
	members []production // in the order in which they were split off
}

var suffix = regexp.MustCompile(`-\d+$`)

// number is the order's name before it was split. Odoo appends -001 to the order that is split and -002 and so on to its backorders, and
// counts them in backorder_sequence, which is 0 for what was never split.
func (p *production) number() string {
	if p.Sequence > 0 {
		return suffix.ReplaceAllString(string(p.Name), "")
	}
	return string(p.Name)
}

// open is the member that takes postings: the first that is confirmed and not over.
func (f *family) open() *production {
	for i := range f.members {
		if s := f.members[i].State; s == "confirmed" || s == "progress" || s == "to_close" {
			return &f.members[i]
		}
	}
	return nil
}

func (f *family) opens() (ids []int) {
	for _, m := range f.members {
		if m.State != "done" && m.State != "cancel" {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

func (f *family) ids() []int {
	ids := make([]int, len(f.members))
	for i, m := range f.members {
		ids[i] = m.ID
	}
	return ids
}

func (f *family) made() decimal.Decimal {
	sum := decimal.Zero
	for _, m := range f.members {
		sum = sum.Add(m.Made.Decimal)
	}
	return sum
}

// families puts productions that bear one number, in one company, together.
func families(all []production) []*family {
	type key struct {
		number  string
		company int
	}
	at := map[key]*family{}
	var list []*family
	for _, p := range all {
		k := key{p.number(), p.Company.ID}
		f := at[k]
		if f == nil {
			f = &family{number: k.number}
			at[k] = f
			list = append(list, f)
		}
		f.members = append(f.members, p)
	}
	for _, f := range list {
		slices.SortStableFunc(f.members, func(a, b production) int { return a.Sequence - b.Sequence })
	}
	return list
}

func escape(pattern string) string {
	return strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(pattern)
}

func (c *Connector) companies(domain []any) []any {
	if len(c.cfg.Companies) > 0 {
		domain = append(domain, where("company_id.name", "in", c.cfg.Companies))
	}
	return domain
}

// find reads an order by the number that the plant knows. The number of one of its parts leads to the whole.
func (c *Connector) find(ctx context.Context, s *setup, number string) (*family, error) {
	if number == "" {
		return nil, fmt.Errorf("order without a number: %w", connector.ErrNotFound)
	}
	all, err := c.productions(ctx, s, c.companies([]any{"|", where("name", "=", number), where("name", "=like", escape(number)+"-%")}))
	if err != nil {
		return nil, err
	}
	var found []*family
	part := ""
	for _, f := range families(all) {
		if f.number == number {
			found = append(found, f)
		} else if slices.ContainsFunc(f.members, func(p production) bool { return string(p.Name) == number }) {
			part = f.number
		}
	}
	switch {
	case len(found) == 0 && part != "":
		return c.find(ctx, s, part)
	case len(found) == 0:
		return nil, fmt.Errorf("manufacturing order %q: %w", number, connector.ErrNotFound)
	case len(found) > 1:
		return nil, fmt.Errorf("manufacturing order %q is there in %d companies: name one in companies", number, len(found))
	}
	return found[0], found[0].oneGroup()
}

// oneGroup refuses members that Odoo did not split off each other: a name that looks like a part's proves nothing.
func (f *family) oneGroup() error {
	for _, m := range f.members[1:] {
		if m.Group.ID != f.members[0].Group.ID {
			return fmt.Errorf("manufacturing orders %s and %s have one number and are not split off each other: %w", f.members[0].Name, m.Name, errAmbiguous)
		}
	}
	return nil
}

var errAmbiguous = errors.New("rename one of them in Odoo")

// state is the state of the whole: what is open decides.
func (f *family) state(onlyReady bool) object.OrderState {
	has := map[string]bool{}
	ready := false
	for _, m := range f.members {
		has[m.State] = true
		ready = ready || m.State == "confirmed" && m.Ready == "assigned"
	}
	started := f.made().IsPositive() || has["done"]
	switch {
	case has["progress"], has["confirmed"] && (started || has["to_close"]):
		return object.OrderInProgress
	case has["confirmed"] && (ready || !onlyReady):
		return object.OrderReleased
	case has["confirmed"], has["draft"]:
		return object.OrderPlanned
	case has["to_close"], has["done"]:
		return object.OrderCompleted
	}
	return object.OrderCancelled
}

// details are what an order's parts consist of.
type details struct {
	moves    []move
	work     []workOrder
	products map[int]product
}

// detail reads what several orders consist of, in three calls.
func (c *Connector) detail(ctx context.Context, s *setup, fs []*family) (*details, error) {
	var ids, items []int
	for _, f := range fs {
		ids = append(ids, f.ids()...)
		for _, m := range f.members {
			items = append(items, m.Product.ID)
		}
	}
	d := &details{}
	var err error
	if d.moves, err = c.moves(ctx, s, []any{where("raw_material_production_id", "in", ids)}); err != nil {
		return nil, err
	}
	for _, m := range d.moves {
		items = append(items, m.Product.ID)
	}
	if err = c.client.list(ctx, "mrp.workorder", []any{where("production_id", "in", ids)}, []string{"name", "state", "production_id", "workcenter_id"}, "id", 0, &d.work); err != nil {
		return nil, err
	}
	slices.Sort(items)
	d.products, err = c.products(ctx, slices.Compact(items))
	return d, err
}

// item is a product's internal reference, which is what the plant knows it by.
func (d *details) item(p ref) (string, error) {
	if code := string(d.products[p.ID].Code); code != "" {
		return code, nil
	}
	return "", fmt.Errorf("product %q has no internal reference: give it one in Odoo", p.Name)
}

func (c *Connector) workOrder(f *family, d *details) (w object.WorkOrder, err error) {
	first := &f.members[0]
	item, err := d.item(first.Product)
	if err != nil {
		return w, err
	}
	unit, err := c.unit(first.Unit)
	if err != nil {
		return w, err
	}
	w = object.WorkOrder{OrderNo: f.number, ERP: c.cfg.Name, ERPKey: f.number, Site: c.site(first), Item: item, ItemDescription: string(d.products[first.Product.ID].Name),
		State: f.state(c.cfg.OnlyReady), Lot: string(first.Lot), Quantity: object.Quantity{Unit: unit}}
	if first.Priority == "1" {
		w.Priority = 1
	}
	for _, m := range f.members {
		if m.Unit.ID != first.Unit.ID || m.Product.ID != first.Product.ID {
			return object.WorkOrder{}, fmt.Errorf("part %s is of another product or unit than %s", m.Name, first.Name)
		}
		if m.State != "cancel" || w.State == object.OrderCancelled {
			w.Quantity.Value = w.Quantity.Value.Add(m.Quantity.Round(c.cfg.Precision))
		}
		w.PlannedStart = earliest(w.PlannedStart, instant(m.Start))
		if end := instant(m.End); end.After(w.PlannedEnd) {
			w.PlannedEnd = end
		}
		if at := instant(m.Written); at.After(w.RevisedAt) {
			w.RevisedAt = at
		}
	}
	for _, o := range d.work {
		if o.Production.ID == first.ID {
			w.WorkCenter = cmp.Or(w.WorkCenter, o.Center.Name)
			w.Operations = append(w.Operations, object.Operation{Operation: string(o.Name), Description: string(o.Name), WorkCenter: o.Center.Name, Quantity: w.Quantity})
		}
	}
	w.Components, err = c.components(f, d, w.State == object.OrderCancelled)
	return w, err
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// components sums what the parts of an order need. Moves of a transfer are what was taken, not what is needed; of a part that is over, Odoo
// has cancelled the need that was left, which changes nothing of what was planned.
func (c *Connector) components(f *family, d *details, cancelled bool) ([]object.Component, error) {
	over := map[int]bool{}
	mine := map[int]bool{}
	for _, m := range f.members {
		mine[m.ID] = m.State != "cancel" || cancelled
		over[m.ID] = m.State == "done" || m.State == "cancel"
	}
	var all []object.Component
	for _, m := range d.moves {
		if !mine[m.RawOf.ID] || m.Transfer.ID != 0 || m.State == "cancel" && !over[m.RawOf.ID] {
			continue
		}
		item, err := d.item(m.Product)
		if err != nil {
			return nil, err
		}
		unit, err := c.unit(m.Unit)
		if err != nil {
			return nil, err
		}
		need := m.Demand.Round(c.cfg.Precision)
		i := slices.IndexFunc(all, func(x object.Component) bool { return x.Item == item && x.Required.Unit == unit })
		if i >= 0 {
			all[i].Required.Value = all[i].Required.Value.Add(need)
			continue
		}
		all = append(all, object.Component{Item: item, Description: string(d.products[m.Product.ID].Name), Required: object.Quantity{Value: need, Unit: unit}})
	}
	return all, nil
}

func (c *Connector) site(p *production) string {
	if s := c.cfg.Sites[p.Source.Name]; s != "" {
		return s
	}
	return cmp.Or(c.cfg.Sites[p.Company.Name], p.Company.Name)
}

// Get reads one order.
func (c *Connector) Get(ctx context.Context, number string) (object.WorkOrder, error) {
	fail := func(err error) (object.WorkOrder, error) {
		return object.WorkOrder{}, fmt.Errorf("get order %q: %w", number, err)
	}
	s, err := c.known(ctx)
	if err != nil {
		return fail(err)
	}
	f, err := c.find(ctx, s, number)
	if err != nil {
		return fail(err)
	}
	d, err := c.detail(ctx, s, []*family{f})
	if err != nil {
		return fail(err)
	}
	w, err := c.workOrder(f, d)
	if err != nil {
		return fail(err)
	}
	return w, nil
}

// feeds are the records whose changes change an order. Odoo stamps an order neither for a change of its material nor of its work orders.
var feeds = []struct{ model, order string }{
	{"mrp.production", ""}, {"stock.move", "raw_material_production_id"}, {"mrp.workorder", "production_id"},
}

// cursor is where the reading of changes stands, for each feed. Odoo stamps a record before it commits it, so each sweep starts an overlap before
// the newest stamp seen. It shows whole seconds and sorts by microseconds: so a second that was begun is gone through by id, behind After.
type cursor struct {
	Feed int      `json:"feed,omitempty"`
	At   []stands `json:"at,omitempty"`
}

type stands struct {
	From  string `json:"from,omitempty"`
	After int    `json:"after,omitempty"`
	High  string `json:"high,omitempty"`
}

type change struct {
	ID      int
	Written text
	Order   int
}

// changes reads one page of a feed.
func (c *Connector) changes(ctx context.Context, feed int, at *stands) (page []change, more bool, err error) {
	from := cmp.Or(at.From, "1970-01-01 00:00:00")
	if at.From != "" {
		if page, err = c.page(ctx, feed, []any{where("write_date", ">=", from), where("write_date", "<", later(from, time.Second)), where("id", ">", at.After)}, "id", c.cfg.PageSize); err != nil {
			return nil, false, err
		}
	}
	if len(page) == c.cfg.PageSize {
		at.After = page[len(page)-1].ID
		at.High = max(at.High, from)
		return page, true, nil
	}
	if at.From != "" {
		from = later(from, time.Second)
	}
	limit := c.cfg.PageSize - len(page)
	rest, err := c.page(ctx, feed, []any{where("write_date", ">=", from)}, "write_date, id", limit)
	if err != nil {
		return nil, false, err
	}
	for _, x := range append(slices.Clone(page), rest...) {
		at.High = max(at.High, string(x.Written))
	}
	page = append(page, rest...)
	if len(rest) == limit { // the last second may have more than was read of it: the next page starts with it again
		at.From, at.After = string(rest[len(rest)-1].Written), 0
		return page, true, nil
	}
	if at.High != "" {
		at.From, at.After = later(at.High, -c.cfg.Overlap), 0
	}
	return page, false, nil
}

func (c *Connector) page(ctx context.Context, feed int, domain []any, order string, limit int) ([]change, error) {
	f := feeds[feed]
	fields := []string{"write_date"}
	if f.order == "" {
		domain = c.companies(domain)
	} else {
		fields = append(fields, f.order)
		domain = append(domain, where(f.order, "!=", false))
	}
	var rows []struct {
		ID      int  `json:"id"`
		Written text `json:"write_date"`
		Raw     ref  `json:"raw_material_production_id"`
		Of      ref  `json:"production_id"`
	}
	if err := c.client.list(ctx, f.model, domain, fields, order, limit, &rows); err != nil {
		return nil, err
	}
	all := make([]change, len(rows))
	for i, r := range rows {
		all[i] = change{r.ID, r.Written, r.ID}
		if f.order != "" {
			all[i].Order = max(r.Raw.ID, r.Of.ID)
		}
		if instant(r.Written).IsZero() {
			return nil, fmt.Errorf("%s %d has write date %q, which is no time", f.model, r.ID, r.Written)
		}
	}
	return all, nil
}

// ListChanged reads one page of changed orders.
func (c *Connector) ListChanged(ctx context.Context, text string) (connector.Changes, error) {
	var cur cursor
	fail := func(err error) (connector.Changes, error) {
		return connector.Changes{}, fmt.Errorf("list changed orders: %w", err)
	}
	if text != "" {
		if err := json.Unmarshal([]byte(text), &cur); err != nil || cur.Feed < 0 || cur.Feed >= len(feeds) || len(cur.At) != len(feeds) {
			return fail(fmt.Errorf("cursor %.100q was not made by this connector: clear it to read all orders again", text))
		}
	}
	if len(cur.At) == 0 {
		cur.At = make([]stands, len(feeds))
	}
	s, err := c.known(ctx)
	if err != nil {
		return fail(err)
	}
	page, more, err := c.changes(ctx, cur.Feed, &cur.At[cur.Feed])
	if err != nil {
		return fail(err)
	}
	out := connector.Changes{More: more}
	if !more {
		cur.Feed = (cur.Feed + 1) % len(feeds)
		out.More = cur.Feed != 0
	}
	if err := c.read(ctx, s, page, &out); err != nil {
		return fail(err)
	}
	next, err := json.Marshal(cur)
	out.Cursor = string(next)
	return out, err
}

// read reads the orders of a page whole. When something in them has another form than it should, it reads them one by one: the others are
// none the worse for it.
func (c *Connector) read(ctx context.Context, s *setup, page []change, out *connector.Changes) error {
	var ids []int
	for _, x := range page {
		if !slices.Contains(ids, x.Order) {
			ids = append(ids, x.Order)
		}
	}
	err := c.readAll(ctx, s, ids, out)
	if !errors.Is(err, errForm) {
		return err
	}
	for _, id := range ids {
		err := c.readAll(ctx, s, []int{id}, out)
		if errors.Is(err, errForm) {
			key := fmt.Sprintf("mrp.production %d", id)
			out.Unreadable = append(out.Unreadable, connector.Unreadable{OrderNo: key, ERPKey: key, Reason: err.Error()})
		} else if err != nil {
			return err
		}
	}
	return nil
}

func (c *Connector) readAll(ctx context.Context, s *setup, ids []int, out *connector.Changes) error {
	if len(ids) == 0 {
		return nil
	}
	parts, err := c.productions(ctx, s, c.companies([]any{where("id", "in", ids)}))
	if err != nil {
		return err
	}
	var groups []int
	for _, p := range parts {
		if p.Group.ID != 0 {
			groups = append(groups, p.Group.ID)
		}
	}
	all, err := c.productions(ctx, s, c.companies([]any{"|", where("id", "in", ids), where(s.group, "in", groups)}))
	if err != nil {
		return err
	}
	fs := families(all)
	fs = slices.DeleteFunc(fs, func(f *family) bool {
		return !slices.ContainsFunc(f.members, func(p production) bool { return slices.Contains(ids, p.ID) })
	})
	first := func(f *family) (at int) {
		for at = range ids {
			if slices.ContainsFunc(f.members, func(p production) bool { return p.ID == ids[at] }) {
				break
			}
		}
		return at
	}
	slices.SortStableFunc(fs, func(a, b *family) int { return first(a) - first(b) })
	if len(fs) == 0 {
		return nil
	}
	d, err := c.detail(ctx, s, fs)
	if err != nil {
		return err
	}
	for _, f := range fs {
		w, err := c.workOrder(f, d)
		if err == nil {
			err = f.oneGroup()
		}
		if err != nil {
			out.Unreadable = append(out.Unreadable, connector.Unreadable{OrderNo: f.number, ERPKey: f.number, Reason: err.Error()})
			continue
		}
		out.Orders = append(out.Orders, w)
	}
	return nil
}
