package reconcile

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/object"
)

// Write is a business object that was written and read back, beside what its system holds of it now.
type Write struct {
	Key, ERP   string
	Want       object.Business
	Document   string // its number, or its technical key where it has none
	VerifiedAt time.Time
	// Former is the number that it had before it was brought forward; empty where it never was, or had none.
	Former string
	// Held are the objects that carry its key. Others are numbers of objects with its reference and partner that do not carry it.
	Held   []object.Business
	Others []string
	// Object is what it moves on, nil where that is not there; of a write that made its object, nil.
	Object *object.Business
	// Names are the objects that it is about: what it moves on, the orders and receipts of its lines.
	Names []NamedObject
	// Cancelled: a later write of ours took its object back.
	Cancelled bool
}

// NamedObject is an object that a write names, when that was made by a write of ours: By is its key, There says that it stands in
// the system under that name. Now is the name that it has there since it was brought forward, where that is another.
type NamedObject struct {
	Kind   object.BusinessKind
	Number string
	By     string
	There  bool
	Now    string
}

func (n NamedObject) String() string {
	return fmt.Sprintf("%s %q", strings.ReplaceAll(string(n.Kind), "_", " "), n.Number)
}

// WriteSubject is what a discrepancy of a write is about.
func WriteSubject(key string) string { return "write " + key }

var ownerOfKind = map[object.BusinessKind]Owner{object.BusinessPurchase: Planning, object.BusinessSale: Planning, object.BusinessShipment: Warehouse,
	object.BusinessCount: Warehouse, object.BusinessInvoice: Controlling}

// movesOn reports that the write named an object that was there.
func (w Write) movesOn() bool { n := w.Want.Names(); return n.Number != "" || n.ERPKey != "" }

// CheckWrite compares a write that was read back once with what is there now. Nil: it stands, or what it wanted is there without it.
func CheckWrite(w Write, p Policy) *Finding {
	if w.Cancelled {
		return nil // whether it is there or not: it was taken back
	}
	if len(w.Held) == 0 {
		return missingWrite(w, p)
	}
	says := ""
	for _, held := range w.Held { // one split off by people carries the key, too
		if says = w.Want.Stands(held); says == "" {
			break
		}
	}
	switch {
	case says != "":
		f := finding(WriteDiffers, w)
		f.Severity = Medium
		f.Right = Side{w.ERP, says}
		f.Evidence = append(f.Evidence, heldEvidence(w.Held[0]))
		f.Why = "somebody has changed it in the outside system since it was read back, or that was put back to an earlier copy"
		f.Proposed.Text = "accept it where the change is meant; otherwise correct it in the outside system, or write what is wanted under a new key"
		return &f
	case w.Former != "" && w.Former != w.Document:
		f := finding(WriteDiffers, w)
		f.Severity = Medium
		f.Left, f.Right = Side{"number before the outside system was put back", w.Former}, Side{w.ERP, w.Document}
		f.Evidence = append(f.Evidence, heldEvidence(w.Held[0]))
		f.Why = "it was brought forward, and the outside system gave it another number"
		f.Proposed.Text = fmt.Sprintf("tell whoever knows it as %s that it is %s, then accept this", w.Former, w.Document)
		return &f
	}
	return nil
}

// finding is what both types have in common; a person is asked.
func finding(t Type, w Write) Finding {
	f := Finding{Type: t, Subject: WriteSubject(w.Key), ERP: w.ERP, Owner: ownerOfKind[w.Want.Kind], Left: Side{"write, verified", w.Document}, Since: w.VerifiedAt,
		Evidence: []Evidence{{"write", w.Key, fmt.Sprintf("%s read back as %s and found equal, %s", strings.ReplaceAll(string(w.Want.Kind), "_", " "), w.Document, w.VerifiedAt.UTC().Format(time.RFC3339))}}}
	f.Proposed = Action{Kind: Ask, Write: w.Key, Document: w.Document}
	if lines := w.Want.Quantities(); len(lines) > 0 {
		f.Item, f.Delta, f.Unit = lines[0].Item, lines[0].Value, lines[0].Unit
		f.Proposed.Item, f.Proposed.Quantity, f.Proposed.Unit = f.Item, f.Delta, f.Unit
	}
	return f
}

func heldEvidence(b object.Business) Evidence {
	n := b.Names()
	return Evidence{"document", cmp.Or(n.Number, n.ERPKey), fmt.Sprintf("%s, held as %s", strings.ToLower(strings.ReplaceAll(n.State, "_", " ")), n.ERPKey)}
}

// missingWrite is about a write of whose key the system knows nothing. It may go forward without a person only where that can double
// nothing and reach nothing else: the key alone cannot tell what somebody has entered again by hand, nor what got a lost number since.
func missingWrite(w Write, p Policy) *Finding {
	if w.Object != nil && w.Want.Stands(*w.Object) == "" {
		return nil // by another hand
	}
	if w.movesOn() && w.Object == nil && w.Want.Withdrawn() {
		return nil // what was to be taken back is gone
	}
	f := finding(WriteMissing, w)
	f.Severity, f.Right = High, Side{w.ERP, "nothing with its key"}
	f.Proposed.Kind, f.Proposed.Text = LookUpAndSend, "look for its key once more, and write it anew under the same key when it is certainly not there"
	for _, n := range w.Names {
		if n.Now != "" {
			f.Proposed.Kind = Ask
			f.Proposed.Text = fmt.Sprintf("write it under a new key for %s, which is what %s is now; then accept this", n.Now, n)
			f.Why = fmt.Sprintf("it names %s, which was brought forward as %s: whatever has that number now is not what was meant", n, n.Now)
			return &f
		}
	}
	f.Why = w.forPerson(p)
	if f.Heal = f.Why == ""; f.Heal {
		f.Why = "it is gone: a look-up by key comes before the writing, so nothing is doubled"
	}
	if len(w.Others) > 0 {
		for _, other := range w.Others {
			f.Evidence = append(f.Evidence, Evidence{"document", other, "has the same reference and partner, and not the key"})
		}
		f.Proposed.Text = "accept this if " + strings.Join(w.Others, ", ") + " is the same, entered by hand; otherwise have it written anew"
	}
	return &f
}

// forPerson is why a missing write is not written anew without a person; empty when it may be.
func (w Write) forPerson(p Policy) string {
	for _, n := range w.Names {
		switch {
		case n.By == "":
			return fmt.Sprintf("it names %s, which was not made through the hub: whether that is still the same, a person must see", n)
		case !n.There:
			return fmt.Sprintf("it names %s, which is gone too and comes first", n)
		}
	}
	reference := w.Want.Names().Reference
	switch {
	case w.Want.Kind == object.BusinessCount:
		return "what was counted holds for its moment: post it again only if nothing has moved that stock since, otherwise count again"
	case w.Want.Invoice != nil && w.Want.Invoice.Direction == object.Outbound:
		return "the customer may have the invoice under its number: a person decides under which it stands in the books"
	case len(w.Others) > 0:
		return "somebody may have entered it again: " + strings.Join(w.Others, ", ") + " has the same reference"
	case reference == "" && !w.movesOn():
		return "it has no reference by which one would be found that was entered again by hand"
	}
	worth := decimal.Zero
	for _, l := range w.Want.Quantities() {
		worth = worth.Add(l.Value.Abs().Mul(p.Prices[l.Item]))
	}
	if worth.GreaterThan(p.Limits.Value) {
		return fmt.Sprintf("it moves %s, and %s is allowed without a person", worth, p.Limits.Value)
	}
	return ""
}
