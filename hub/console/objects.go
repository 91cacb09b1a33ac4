package console

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/linekeeper/linekeeper/hub/api"
)

// Business objects as the outside systems hold them, and the writes that bring them there.

func (c *console) objectRoutes(mux *http.ServeMux) {
	mux.Handle("GET /objects", c.page("objects", c.objects))
	mux.Handle("GET /objects/{kind}/{erp}/{number}", c.page("object", c.object))
	mux.Handle("GET /writes", c.page("writes", c.writes))
	mux.Handle("GET /writes/{key}", c.page("write", c.write))
	mux.Handle("POST /writes/{key}", secure(http.HandlerFunc(c.decideWrite)))
}

// objects lists the kinds, and the objects of one.
func (c *console) objects(r *http.Request) (view, error) {
	var kinds list[api.ObjectKind]
	if err := c.ask(r, http.MethodGet, "/v1/objects", nil, &kinds); err != nil {
		return view{}, err
	}
	q := r.URL.Query()
	kind := q.Get("kind")
	data := map[string]any{"Kinds": kinds.Items, "Kind": kind, "ERP": q.Get("erp"), "Number": q.Get("number"), "Reference": q.Get("reference"), "Partner": q.Get("partner"),
		"Filtered": q.Get("number")+q.Get("reference")+q.Get("partner")+q.Get("state") != ""}
	v := view{Title: "Business objects", Refresh: 10, Data: data}
	if kind == "" {
		return v, nil
	}
	l, older, err := listed[api.BusinessObject](c, r, "/v1/objects/"+url.PathEscape(kind), "erp", "number", "reference", "partner", "state", "gone", "changed_since")
	if older != "" {
		older += "&kind=" + url.QueryEscape(kind)
	}
	data["List"], data["Older"] = l.Items, older
	v.Title = heading(kind)
	return v, err
}

func (c *console) object(r *http.Request) (view, error) {
	path := "/v1/objects/" + url.PathEscape(r.PathValue("kind")) + "/" + url.PathEscape(r.PathValue("erp")) + "/" + url.PathEscape(r.PathValue("number"))
	var o api.ObjectLife
	err := c.ask(r, http.MethodGet, path, nil, &o)
	slices.Reverse(o.Revisions)
	return view{Title: heading(r.PathValue("kind")) + " " + r.PathValue("number"), Refresh: 10, Data: map[string]any{"O": o, "Sheet": sheetOf(o.Object)}}, err
}

func (c *console) writes(r *http.Request) (view, error) {
	l, older, err := listed[api.Write](c, r, "/v1/writes", "state", "erp", "kind", "by")
	return view{Title: "Writes", Refresh: 5, Data: map[string]any{"List": l.Items, "Older": older, "State": r.URL.Query().Get("state")}}, err
}

func (c *console) write(r *http.Request) (view, error) {
	var w api.WriteLife
	err := c.ask(r, http.MethodGet, "/v1/writes/"+url.PathEscape(r.PathValue("key")), nil, &w)
	v := view{Title: "Write " + r.PathValue("key"), Refresh: 5, Data: map[string]any{"W": w, "Sheet": sheetOf(w.Object)}}
	if w.State == "parked" {
		v.Refresh = 0 // somebody may be writing into its forms
	}
	return v, err
}

// decideWrite does what a person decided about a parked write.
func (c *console) decideWrite(w http.ResponseWriter, r *http.Request) {
	page := "/writes/" + url.PathEscape(r.PathValue("key"))
	switch action := r.PostFormValue("action"); action {
	case "replay":
		body := map[string]any{}
		if code := r.PostFormValue("accept"); code != "" {
			body["accept"] = []string{code}
		}
		if err := c.ask(r, http.MethodPost, "/v1"+page+"/replay", body, &struct{}{}); err != nil {
			c.fail(w, err)
			return
		}
		http.Redirect(w, r, page, http.StatusSeeOther)
	case "settle":
		c.done(w, r, "/v1"+page+"/settle", map[string]string{"document": r.PostFormValue("document"), "note": r.PostFormValue("note")}, page)
	case "write-again":
		c.done(w, r, "/v1"+page+"/write-again", map[string]string{"note": r.PostFormValue("note")}, page)
	default:
		c.fail(w, &refused{code: http.StatusBadRequest, detail: "choose what to do about the write"})
	}
}

// sheet is a business object as a person reads it.
type sheet struct {
	Head  []pair
	Lines []sheetLine
	// More are the columns that the lines have beside item and quantity.
	More []string
}

type pair struct{ Name, Text string }

type sheetLine struct {
	No, Item, Quantity, Price string
	More                      []string
}

func (s *sheet) head(pairs ...string) {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			s.Head = append(s.Head, pair{pairs[i], pairs[i+1]})
		}
	}
}

func measure(value fmt.Stringer, code string) string {
	if code == "" {
		return ""
	}
	return value.String() + " " + unit(code)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return ""
}

// cost is a price of so much.
func cost(price, per fmt.Stringer, code string) string {
	switch {
	case code == "":
		return ""
	case per.String() == "1":
		return price.String() + " / " + unit(code)
	}
	return price.String() + " / " + measure(per, code)
}

func sheetOf(b api.Content) (s sheet) {
	switch {
	case b.Purchase != nil:
		o := b.Purchase
		s.head("Supplier", o.Supplier, "Reference", o.Reference, "Ordered on", o.OrderDate, "Ship to", o.ShipTo, "Terms", strings.TrimSpace(o.Incoterm+" "+o.PaymentTerms), "Currency", o.Currency)
		s.More = []string{"Received", "Invoiced", "Deliver on", "State"}
		for _, l := range o.Lines {
			s.Lines = append(s.Lines, sheetLine{l.LineNo, l.Item, measure(l.Ordered.Value, l.Ordered.Unit), cost(l.Price.Price, l.Price.Per.Value, l.Price.Per.Unit), []string{l.Received.String(), l.Invoiced.String(), l.DeliverOn, words(string(l.State))}})
		}
	case b.Sale != nil:
		o := b.Sale
		s.head("Customer", o.Customer, "Reference", o.Reference, "Ordered on", o.OrderDate, "Ship from", o.ShipFrom, "Terms", strings.TrimSpace(o.Incoterm+" "+o.PaymentTerms), "Currency", o.Currency)
		s.More = []string{"Shipped", "Invoiced", "Ship on", "State"}
		for _, l := range o.Lines {
			s.Lines = append(s.Lines, sheetLine{l.LineNo, l.Item, measure(l.Ordered.Value, l.Ordered.Unit), cost(l.Price.Price, l.Price.Per.Value, l.Price.Per.Unit), []string{l.Shipped.String(), l.Invoiced.String(), l.ShipOn, words(string(l.State))}})
		}
	case b.Shipment != nil:
		o := b.Shipment
		s.head("Direction", words(string(o.Direction)), "Partner", o.Partner, "Reference", o.Reference, "Site", o.Site, "From", o.From, "To", o.To, "Planned on", o.PlannedOn, "Effective on", o.EffectiveOn,
			"Carrier", o.Carrier)
		s.More = []string{"Order", "Lot", "Serials"}
		for _, l := range o.Lines {
			s.Lines = append(s.Lines, sheetLine{l.LineNo, l.Item, measure(l.Quantity.Value, l.Quantity.Unit), "", []string{strings.TrimSpace(l.OrderNo + " " + l.OrderLine), l.Lot, strings.Join(l.Serials, ", ")}})
		}
	case b.Invoice != nil:
		o := b.Invoice
		total := func(d string) string { return d + " " + o.Currency }
		s.head("Kind", words(string(o.Kind)), "Direction", words(string(o.Direction)), "Partner", o.Partner, "Reference", o.Reference, "Invoice date", o.InvoiceDate, "Posted on", o.PostingDate,
			"Net", total(o.Net.String()), "Tax", total(o.Tax.String()), "Gross", total(o.Gross.String()))
		s.More = []string{"Amount", "Order", "Receipts", "Blocked for"}
		for _, l := range o.Lines {
			item := l.Item
			if item == "" {
				item = l.Description
			}
			s.Lines = append(s.Lines, sheetLine{l.LineNo, item, measure(l.Quantity.Value, l.Quantity.Unit), cost(l.Price.Price, l.Price.Per.Value, l.Price.Per.Unit), []string{total(l.Amount.String()), strings.TrimSpace(l.OrderNo + " " + l.OrderLine),
				strings.Join(l.Receipts, ", "), words(string(l.Block))}})
		}
	case b.Count != nil:
		o := b.Count
		s.head("Location", o.Location, "Site", o.Site, "Counted on", o.CountedOn, "Counter", o.Counter)
		s.More = []string{"Book", "Difference posted", "Lot", "Reason"}
		for _, l := range o.Lines {
			found := ""
			if n, ok := l.Found(); ok {
				found = n.String() + " " + unit(l.Unit)
			}
			s.Lines = append(s.Lines, sheetLine{"", l.Item, found, "", []string{l.Book.String(), l.Posted.String(), l.Lot, l.Reason}})
		}
	case b.Movement != nil:
		o := b.Movement
		s.head("Kind", words(string(o.Kind)), "Item", o.Item, "Quantity", measure(o.Quantity.Value, o.Quantity.Unit), "Lot", o.Lot, "From", o.From, "To", o.To, "Order", strings.TrimSpace(o.OrderNo+" "+o.OrderLine),
			"Document", o.Document, "Moved on", o.MovedOn, "Reason", o.Reason)
	case b.Item != nil:
		o := b.Item
		s.head("Description", o.Description, "Base unit", unit(o.BaseUnit), "Lot-controlled", yesNo(o.LotControlled), "Serial-controlled", yesNo(o.SerialControlled), "GTIN", strings.Join(o.GTINs, ", "),
			"Active", yesNo(o.Active))
	case b.Party != nil:
		o := b.Party
		var roles []string
		for _, x := range o.Roles {
			roles = append(roles, string(x))
		}
		s.head("Name", o.Name, "Roles", strings.Join(roles, ", "), "GLN", o.GLN, "Tax", strings.Join(o.TaxIDs, ", "),
			"Address", strings.Join(strings.Fields(strings.Join([]string{o.Address.Street, o.Address.PostalCode, o.Address.City, o.Address.Country}, " ")), " "), "Active", yesNo(o.Active))
	}
	return s
}
