package tryton

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
)

// named finds the one record that a name should mean.
func (c *Connector) named(ctx context.Context, model, what, name, next string, domain ...any) (int, *connector.Outcome, error) {
	var ids []int
	if err := c.client.call(ctx, &ids, nil, model+".search", domain, 0, 2, nil); err != nil {
		return 0, nil, err
	}
	switch len(ids) {
	case 1:
		return ids[0], nil, nil
	case 0:
		return 0, reject(connector.Fatal, "unknown_"+what, fmt.Sprintf("Tryton has no %s %q", what, name), next), nil
	}
	return 0, reject(connector.Fatal, "ambiguous_"+what, fmt.Sprintf("Tryton has more than one %s %q", what, name), "Give each in Tryton a code of its own and replay."), nil
}

func (c *Connector) partyOf(ctx context.Context, code string) (int, *connector.Outcome, error) {
	return c.named(ctx, "party.party", "party", code, "Correct the party at the source or in its mapping, or create it in Tryton and replay.", []any{"code", "=", code})
}

func (c *Connector) currencyOf(ctx context.Context, code string) (int, *connector.Outcome, error) {
	return c.named(ctx, "currency.currency", "currency", code, "Create the currency in Tryton and replay.", []any{"code", "=", code})
}

// placeOf is a storage location by its code, or by its name where it has none.
func (c *Connector) placeOf(ctx context.Context, name string) (int, *connector.Outcome, error) {
	return c.named(ctx, "stock.location", "location", name, "Correct the location at the source or in its mapping, or create it in Tryton and replay.",
		[]any{"type", "=", "storage"}, []any{"OR", []any{"code", "=", name}, []any{[]any{"code", "=", nil}, []any{"name", "=", name}}})
}

// warehouseAt is the warehouse of a site; the only one where no site is named.
func (c *Connector) warehouseAt(ctx context.Context, site string) (warehouse, *connector.Outcome, error) {
	var ids []int
	err := c.client.call(ctx, &ids, nil, "stock.location.search", []any{[]any{"type", "=", "warehouse"}}, 0, nil, [][]string{{"id", "ASC"}})
	if err != nil {
		return warehouse{}, nil, err
	}
	var found []warehouse
	for _, id := range ids {
		w, err := c.master.warehouseOf(ctx, id)
		if err != nil {
			return w, nil, err
		}
		if site == "" || c.config.site(w) == site {
			found = append(found, w)
		}
	}
	if len(found) != 1 {
		return warehouse{}, reject(connector.Fatal, "unknown_site", fmt.Sprintf("Tryton has %d warehouses for the site %q", len(found), site),
			"Name the site of one warehouse, or map it under sites in the connector's configuration."), nil
	}
	return found[0], nil, nil
}

func (c *Connector) held(model string, id int, written, created *wireTime) object.Held {
	return object.Held{ERP: c.config.Name, ERPKey: ref{model, id}.String(), RevisedAt: cmp.Or(written, created).instant()}
}

// productRow is an item as the hub knows items.
type productRow struct {
	ID          int       `json:"id"`
	Code        string    `json:"code"`
	Name        string    `json:"name"`
	Unit        *int      `json:"default_uom"`
	Active      bool      `json:"active"`
	LotRequired []string  `json:"lot_required"`
	Written     *wireTime `json:"write_date"`
	Created     *wireTime `json:"create_date"`
	Identifiers []struct {
		Type, Code string
	} `json:"identifiers."`
}

func (c *Connector) loadItems(ctx context.Context, model string, ids []int) ([]loaded, error) {
	fields := []string{"code", "name", "default_uom", "active", "write_date", "create_date", "identifiers.type", "identifiers.code"}
	lots, err := c.master.has(ctx, "product.product", "lot_required")
	if err != nil {
		return nil, err
	}
	if lots {
		fields = append(fields, "lot_required")
	}
	var rows []productRow
	if err := c.client.call(ctx, &rows, nil, model+".search_read", []any{idsIn(ids), activeOrNot}, 0, nil, nil, fields); err != nil {
		return nil, err
	}
	var out []loaded
	for _, r := range rows {
		i := object.Item{Item: r.Code, Description: r.Name, Active: r.Active, LotControlled: len(r.LotRequired) > 0, Held: c.held(model, r.ID, r.Written, r.Created)}
		for _, x := range r.Identifiers {
			if x.Type == "ean" {
				i.GTINs = append(i.GTINs, x.Code)
			}
		}
		var err error
		if r.Unit != nil {
			var u unit
			u, err = c.master.unitOf(ctx, *r.Unit)
			i.BaseUnit, i.Scale = u.code, u.Digits
		}
		out = append(out, finish(r.ID, object.Business{Kind: object.BusinessItem, Item: &i}, err))
	}
	return out, nil
}

type addressRow struct {
	ID         int    `json:"id"`
	Street     string `json:"street"`
	PostalCode string `json:"postal_code"`
	City       string `json:"city"`
}

type partyRow struct {
	ID          int          `json:"id"`
	Code        string       `json:"code"`
	Name        string       `json:"name"`
	Active      bool         `json:"active"`
	Written     *wireTime    `json:"write_date"`
	Created     *wireTime    `json:"create_date"`
	Addresses   []addressRow `json:"addresses."`
	Identifiers []struct {
		ID         int
		Type, Code string
	} `json:"identifiers."`
}

func (c *Connector) loadParties(ctx context.Context, model string, ids []int) ([]loaded, error) {
	var rows []partyRow
	err := c.client.call(ctx, &rows, nil, model+".search_read", []any{idsIn(ids), activeOrNot}, 0, nil, nil, []string{"code", "name", "active", "write_date", "create_date",
		"addresses.street", "addresses.postal_code", "addresses.city", "identifiers.type", "identifiers.code"})
	if err != nil {
		return nil, err
	}
	var out []loaded
	for _, r := range rows {
		p := object.Party{Party: r.Code, Name: r.Name, Active: r.Active, Held: c.held(model, r.ID, r.Written, r.Created)}
		slices.SortFunc(r.Addresses, func(a, b addressRow) int { return cmp.Compare(a.ID, b.ID) })
		if len(r.Addresses) > 0 {
			a := r.Addresses[0]
			p.Address = object.Address{Street: a.Street, PostalCode: a.PostalCode, City: a.City}
		}
		for _, x := range r.Identifiers {
			if x.Type == "eu_vat" {
				p.TaxIDs = append(p.TaxIDs, x.Code)
			}
		}
		out = append(out, finish(r.ID, object.Business{Kind: object.BusinessParty, Party: &p}, nil))
	}
	return out, nil
}
