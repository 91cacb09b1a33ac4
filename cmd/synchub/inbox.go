package main

import (
	"cmp"
	"fmt"
	"net/url"
	"strconv"
	"text/tabwriter"

	"github.com/linekeeper/linekeeper/hub/api"
)

// inboxCmd lists what a person must see to.
type inboxCmd struct {
	Owner  string `help:"Only of this role: production, controlling, planning, warehouse, quality, master data, automation."`
	Person string `help:"Only what this person has."`
	Plant  string `help:"Only of this plant." placeholder:"PLANT"`
	Late   bool   `help:"Only what has outlasted its time."`
	Limit  int    `help:"How many at most." default:"100"`
	remote
}

// Run implements the command.
func (c inboxCmd) Run(e *env) error {
	q := url.Values{"limit": {strconv.Itoa(c.Limit)}}
	for k, v := range map[string]string{"owner": c.Owner, "person": c.Person, "plant": c.Plant} {
		if v != "" {
			q.Set(k, v)
		}
	}
	if c.Late {
		q.Set("late", "true")
	}
	var l struct {
		Items []api.InboxEntry `json:"items"`
		Next  string           `json:"next"`
	}
	if err := c.call(e, "GET", "/v1/inbox?"+q.Encode(), nil, &l); err != nil || c.JSON {
		return err
	}
	if len(l.Items) == 0 {
		fmt.Fprintln(e.out, "nothing waits for a person")
		return nil
	}
	w := tabwriter.NewWriter(e.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "REF\tSINCE\tSEVERITY\tWHOSE\tWORTH\tWHAT\tPROPOSED")
	for _, x := range l.Items {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s %s\t%s\t%s\n", x.Ref, x.Since.Local().Format("2006-01-02 15:04"), x.Severity, cmp.Or(x.Person, x.Owner), x.Money, x.Currency, x.What, x.Proposed)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if l.Next != "" {
		fmt.Fprintln(e.err, "there are more: --limit shows up to 500, the console all")
	}
	return nil
}

// atRate lets the hub take postings up one after the other.
func (c replayCmd) atRate(e *env) error {
	body := map[string]any{"per_minute": c.Rate, "note": c.Note}
	for k, v := range map[string]string{"erp": c.ERP, "order_no": c.OrderNo, "code": c.Code} {
		if v != "" {
			body[k] = v
		}
	}
	if c.All {
		body["all"] = true
	}
	var r api.BulkReplay
	if err := c.call(e, "POST", "/v1/replays", body, &r); err != nil || c.JSON {
		return err
	}
	fmt.Fprintf(e.out, "replay %d has begun: %d postings, %d a minute\n", r.ID, r.Total, r.PerMinute)
	return nil
}
