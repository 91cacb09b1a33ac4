package inbox

import (
	"cmp"
	"context"
	"strings"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/store"
)

// triageWrite is whose a write is that is parked or in doubt.
func triageWrite(r store.InboxRow) reconcile.Triage {
	t := reconcile.TriagePosting(r.State, r.Class, r.Code)
	if t.Owner == reconcile.Production { // nothing of it comes from the floor
		t.Owner = reconcile.Planning
	}
	return t
}

// waits is what is said behind a posting or a write, by its state.
var waits = map[string]string{"parked": ": waits for a person", "in_doubt": ": the outside system did not answer"}

// writeEntry makes a write of the inbox readable.
func (rd *Reader) writeEntry(ctx context.Context, r store.InboxRow, e *Entry) error {
	w, err := rd.Store.WriteByID(ctx, r.ID)
	if err != nil {
		return err
	}
	e.Write, e.Why, e.Proposed = w.Key.String(), w.Reason, ""
	e.What = wished(w.Want) + waits[r.State]
	if r.State == "parked" {
		e.Proposed = w.NextStep
	}
	e.Stock = append(e.Stock, quantities(w.Want)...)
	return nil
}

// wished says in a few words what a write is about.
func wished(b object.Business) string {
	n := b.Names()
	text := strings.ReplaceAll(string(b.Kind), "_", " ")
	if name := cmp.Or(n.Number, n.Reference, n.ERPKey); name != "" {
		text += " " + name
	}
	if p := b.Partner(); p != "" {
		text += " of " + p
	}
	if n.State != "" {
		text += " to be " + strings.ToLower(strings.ReplaceAll(n.State, "_", " "))
	}
	return text
}

// quantities are those of the lines.
func quantities(b object.Business) (all []Stock) {
	add := func(item string, q object.Quantity) {
		all = append(all, Stock{Item: item, Quantity: q.Value, Unit: q.Unit})
	}
	switch {
	case b.Purchase != nil:
		for _, l := range b.Purchase.Lines {
			add(l.Item, l.Ordered)
		}
	case b.Sale != nil:
		for _, l := range b.Sale.Lines {
			add(l.Item, l.Ordered)
		}
	case b.Shipment != nil:
		for _, l := range b.Shipment.Lines {
			add(l.Item, l.Quantity)
		}
	case b.Invoice != nil:
		for _, l := range b.Invoice.Lines {
			add(l.Item, l.Quantity)
		}
	case b.Count != nil:
		for _, l := range b.Count.Lines {
			if found, ok := l.Found(); ok {
				add(l.Item, object.Quantity{Value: found, Unit: l.Unit})
			}
		}
	}
	return all
}
