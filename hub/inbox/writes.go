package inbox

import (
	"cmp"
	"context"
	"fmt"
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
	for _, l := range w.Want.Quantities() {
		e.Stock = append(e.Stock, Stock{Item: l.Item, Quantity: l.Value, Unit: l.Unit})
	}
	return nil
}

// aboutWrite names the write that a discrepancy is about. One that is in the list itself is not shown twice.
func (rd *Reader) aboutWrite(ctx context.Context, d reconcile.Discrepancy, e *Entry) (shown bool, err error) {
	w, err := rd.Store.WriteByKey(ctx, d.Proposed.Write)
	if err != nil {
		return true, err
	}
	e.Write = w.Key.String()
	e.What = fmt.Sprintf("%s, verified as %s: %s says %s", wished(w.Want), cmp.Or(w.Document, w.DocumentID), d.Right.Name, d.Right.Value)
	for _, l := range w.Want.Quantities() {
		e.Stock = append(e.Stock, Stock{Item: l.Item, Quantity: l.Value, Unit: l.Unit})
	}
	return w.State != store.PostingParked && w.State != store.PostingInDoubt, nil
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
