package tryton

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
)

var _ connector.BusinessReader = (*Connector)(nil)

// shelf is how Tryton keeps one kind of business object.
type shelf struct {
	// models are those whose records are the objects, with the field that numbers them there and the one for a reference, empty
	// for none.
	models            []string
	number, reference string
	// only is what a record must be to count.
	only []any
	// parts are models whose changes are changes of an object.
	parts []part
	// load reads records of a model. What cannot be put into our words is an error of that record alone.
	load func(c *Connector, ctx context.Context, model string, ids []int) ([]loaded, error)
}

// part is a model of which field leads to the object: a record id, several, or a reference such as "stock.shipment.in,4". Via is
// a model between them, that the field refers to, and its own field.
type part struct {
	model, field string
	only         []any
	via          [2]string
}

// loaded is one record in our words, or why it cannot be put into them.
type loaded struct {
	id     int
	object object.Business
	err    error
	at     int64 // when it changed
}

var shelves = map[object.BusinessKind]shelf{
	object.BusinessItem: {models: []string{"product.product"}, number: "code", only: []any{[]any{"code", "!=", nil}, activeOrNot},
		parts: []part{{model: "product.template", field: "products", only: []any{activeOrNot}}}, load: (*Connector).loadItems},
	object.BusinessParty: {models: []string{"party.party"}, number: "code", only: []any{activeOrNot},
		parts: []part{{model: "party.address", field: "party"}, {model: "party.identifier", field: "party"}}, load: (*Connector).loadParties},
	object.BusinessPurchase: {models: []string{purchaseSide.order}, number: "number", reference: "reference",
		parts: purchaseSide.parts(), load: (*Connector).loadPurchases},
	object.BusinessSale: {models: []string{saleSide.order}, number: "number", reference: "reference",
		parts: saleSide.parts(), load: (*Connector).loadSales},
	object.BusinessShipment: {models: []string{shipmentIn, shipmentOut, shipmentInternal}, number: "number", reference: "reference",
		parts: []part{{model: "stock.move", field: "shipment", only: []any{[]any{"shipment", "!=", nil}}}}, load: (*Connector).loadShipments},
	object.BusinessInvoice: {models: []string{"account.invoice"}, number: "number", reference: "reference",
		parts: []part{{model: "account.invoice.line", field: "invoice", only: []any{[]any{"invoice", "!=", nil}}}}, load: (*Connector).loadInvoices},
	object.BusinessCount: {models: []string{"stock.inventory"}, number: "number",
		parts: []part{{model: "stock.inventory.line", field: "inventory"}}, load: (*Connector).loadCounts},
	object.BusinessMovement: {models: []string{"stock.move"}, number: "id", only: []any{[]any{"state", "=", "done"}, []any{"quantity", ">", 0}}, load: (*Connector).loadMovements},
}

// activeOrNot lets a search find records that are no longer active, too.
var activeOrNot = []any{"active", "in", []bool{true, false}}

// ReadsBusiness implements connector.BusinessReader. What Tryton's modules do not bring is listed all the same, and empty.
func (c *Connector) ReadsBusiness() []object.BusinessKind {
	return []object.BusinessKind{object.BusinessItem, object.BusinessParty, object.BusinessPurchase, object.BusinessSale,
		object.BusinessShipment, object.BusinessInvoice, object.BusinessCount, object.BusinessMovement}
}

func storageOf(kind object.BusinessKind) (shelf, error) {
	s, ok := shelves[kind]
	if !ok {
		return s, fmt.Errorf("read Tryton's objects of kind %q: it has none", kind)
	}
	return s, nil
}

// ListBusiness implements connector.BusinessReader. Its cursor holds a position in each model that is looked at.
func (c *Connector) ListBusiness(ctx context.Context, kind object.BusinessKind, text string) (connector.BusinessChanges, error) {
	var page connector.BusinessChanges
	s, err := storageOf(kind)
	if err != nil {
		return page, err
	}
	at := map[string]feed{}
	if text != "" {
		if err := json.Unmarshal([]byte(text), &at); err != nil {
			return page, fmt.Errorf("read the cursor %q of Tryton's objects of kind %q: %w; start again with an empty one", text, kind, err)
		}
	}
	changed := map[ref]int64{} // when
	add := func(model string, id int, at int64) { changed[ref{model, id}] = max(changed[ref{model, id}], at) }
	for _, p := range s.parts { // before the objects: what changes in between is seen with these
		f, known := at[p.model]
		if !known {
			if f, err = c.newest(ctx, p.model); err != nil {
				return page, err
			}
		}
		rows, more, err := c.changes(ctx, p.model, &f, p.only, p.field)
		if err != nil {
			return page, err
		}
		at[p.model], page.More = f, page.More || more
		if err := c.owners(ctx, s, p, rows, add); err != nil {
			return page, err
		}
	}
	for _, model := range s.models {
		f := at[model]
		rows, more, err := c.changes(ctx, model, &f, s.only)
		if err != nil {
			return page, err
		}
		at[model], page.More = f, page.More || more
		for _, x := range rows {
			add(model, x.ID, x.at)
		}
	}
	if err := c.fill(ctx, s, changed, &page); err != nil {
		return page, err
	}
	b, err := json.Marshal(at)
	page.Cursor = string(b)
	return page, err
}

// newest is a position behind everything that is there: from the beginning, all objects come by themselves.
func (c *Connector) newest(ctx context.Context, model string) (feed, error) {
	var f feed
	var rows []change
	err := c.client.call(ctx, &rows, nil, model+".search_read", []any{}, 0, 1, [][]string{{"write_date", "DESC NULLS LAST"}, {"id", "DESC"}}, []string{"_timestamp"})
	if err != nil || len(rows) == 0 {
		return f, err
	}
	f.Since, err = microseconds(rows[0].Stamp)
	return f, err
}

// owners finds the objects that changed parts belong to.
func (c *Connector) owners(ctx context.Context, s shelf, p part, rows []change, add func(model string, id int, at int64)) error {
	var between []int
	var at int64
	for _, x := range rows {
		for _, r := range refs(x.raw[p.field]) {
			switch {
			case p.via[0] != "" && r.model == p.via[0]:
				between, at = append(between, r.id), max(at, x.at)
			case p.via[0] == "" && r.model == "":
				add(s.models[0], r.id, x.at)
			case slices.Contains(s.models, r.model):
				add(r.model, r.id, x.at)
			}
		}
	}
	if len(between) == 0 {
		return nil
	}
	var parents []map[string]json.RawMessage
	if err := c.client.call(ctx, &parents, nil, p.via[0]+".search_read", []any{idsIn(between)}, 0, nil, nil, []string{p.via[1]}); err != nil {
		return err
	}
	for _, row := range parents {
		for _, r := range refs(row[p.via[1]]) {
			add(s.models[0], r.id, at)
		}
	}
	return nil
}

// ref is a record; the model is empty where the field says it.
type ref struct {
	model string
	id    int
}

func (r ref) String() string { return r.model + "," + strconv.Itoa(r.id) }

// parseRef reads "stock.move,4".
func parseRef(text string) (ref, bool) {
	model, number, ok := strings.Cut(text, ",")
	id, err := strconv.Atoi(number)
	return ref{model, id}, ok && err == nil
}

// refs reads a field that leads to records.
func refs(raw json.RawMessage) []ref {
	var id int
	var ids []int
	var text string
	switch {
	case json.Unmarshal(raw, &id) == nil && id != 0:
		return []ref{{id: id}}
	case json.Unmarshal(raw, &ids) == nil:
		out := make([]ref, len(ids))
		for i, id := range ids {
			out[i].id = id
		}
		return out
	case json.Unmarshal(raw, &text) == nil:
		if r, ok := parseRef(text); ok {
			return []ref{r}
		}
	}
	return nil
}

// fill reads changed records into a page, oldest change first.
func (c *Connector) fill(ctx context.Context, s shelf, changed map[ref]int64, page *connector.BusinessChanges) error {
	var rows []loaded
	for _, model := range s.models {
		var ids []int
		for r := range changed {
			if r.model == model {
				ids = append(ids, r.id)
			}
		}
		if len(ids) == 0 {
			continue
		}
		some, err := s.load(c, ctx, model, ids)
		if err != nil {
			return err
		}
		for i := range some {
			some[i].at = changed[ref{model, some[i].id}]
		}
		rows = append(rows, some...)
	}
	slices.SortStableFunc(rows, func(a, b loaded) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.id, b.id)) })
	for _, r := range rows {
		if r.err == nil {
			r.err = r.object.Check()
		}
		if r.err != nil {
			names := r.object.Names()
			page.Unreadable = append(page.Unreadable, connector.Unreadable{OrderNo: names.Number, ERPKey: names.ERPKey, Reason: r.err.Error()})
			continue
		}
		page.Objects = append(page.Objects, r.object)
	}
	return nil
}

// search finds the records of a kind that meet a condition, which may name no model.
func (c *Connector) search(ctx context.Context, s shelf, condition ...any) ([]ref, error) {
	var found []ref
	for _, model := range s.models {
		var ids []int
		if err := c.client.call(ctx, &ids, nil, model+".search", append(slices.Clone(s.only), condition...), 0, nil, [][]string{{"id", "ASC"}}); err != nil {
			return nil, err
		}
		for _, id := range ids {
			found = append(found, ref{model, id})
		}
	}
	return found, nil
}

// locate finds the one object on a shelf that a number or a technical key means.
func (c *Connector) locate(ctx context.Context, kind object.BusinessKind, s shelf, number string) (ref, error) {
	condition := []any{s.number, "=", number}
	r, technical := parseRef(number)
	switch {
	case technical && !slices.Contains(s.models, r.model):
		return r, fmt.Errorf("find %s %q in Tryton: %w", kind, number, connector.ErrNotFound)
	case technical:
		s.models, condition = []string{r.model}, []any{"id", "=", r.id}
	case s.number == "id":
		id, err := strconv.Atoi(number)
		if err != nil {
			return r, fmt.Errorf("find %s %q in Tryton: %w", kind, number, connector.ErrNotFound)
		}
		condition = []any{"id", "=", id}
	}
	found, err := c.search(ctx, s, condition)
	if err != nil {
		return r, err
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return r, fmt.Errorf("find %s %q in Tryton: %w", kind, number, connector.ErrNotFound)
	}
	return r, fmt.Errorf("find %s %q in Tryton: %w; name it by its key, such as %q", kind, number, errSeveral, found[0])
}

// GetBusiness implements connector.BusinessReader. Shipments in, out and internal are numbered apart: where a number means
// several, the error names a key that does not.
func (c *Connector) GetBusiness(ctx context.Context, kind object.BusinessKind, number string) (object.Business, error) {
	s, err := storageOf(kind)
	if err != nil {
		return object.Business{}, err
	}
	r, err := c.locate(ctx, kind, s, number)
	if err != nil {
		return object.Business{}, err
	}
	return c.loadOne(ctx, kind, r)
}

func (c *Connector) loadOne(ctx context.Context, kind object.BusinessKind, r ref) (object.Business, error) {
	rows, err := shelves[kind].load(c, ctx, r.model, []int{r.id})
	if err != nil {
		return object.Business{}, err
	}
	if len(rows) != 1 {
		return object.Business{}, fmt.Errorf("read %s %q of Tryton: %w", kind, r, connector.ErrNotFound)
	}
	return rows[0].object, rows[0].err
}

// FindBusiness implements connector.BusinessReader.
func (c *Connector) FindBusiness(ctx context.Context, kind object.BusinessKind, reference string) ([]object.Business, error) {
	s, err := storageOf(kind)
	if err != nil {
		return nil, err
	}
	var found []ref
	if s.reference != "" {
		if found, err = c.search(ctx, s, []any{s.reference, "=", reference}); err != nil {
			return nil, err
		}
	}
	byKey, err := c.keyed(ctx, kind, s, reference)
	if err != nil {
		return nil, err
	}
	for _, r := range byKey {
		if !slices.Contains(found, r) {
			found = append(found, r)
		}
	}
	var out []object.Business
	var unreadable error
	for _, r := range found {
		b, err := c.loadOne(ctx, kind, r)
		var broken *callError
		switch {
		case errors.As(err, &broken):
			return nil, err
		case err != nil:
			unreadable = err
		default:
			out = append(out, b)
		}
	}
	if len(out) == 0 {
		return nil, unreadable
	}
	return out, nil
}
