package s4

import (
	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
)

// ownTypes are SAP's movement types where no mapping says others, codes those of the documents that make such movements.
var (
	ownTypes = map[object.MovementKind]string{object.ReceiptFromOrder: "101", object.ReceiptReversal: "102", object.IssueToOrder: "261",
		object.ReturnFromOrder: "262", object.ByProduct: "531", object.ByProductReversal: "532"}
	codes = map[object.MovementKind]string{object.ReceiptFromOrder: "02", object.ReceiptReversal: "02", object.IssueToOrder: "03",
		object.ReturnFromOrder: "06", object.ByProduct: "05", object.ByProductReversal: "05"}
)

// kindOf is what a movement type means: by the mapping, else by SAP's own; empty for one that neither knows.
func kindOf(t *object.MovementTypes, of string) object.MovementKind {
	if k := t.Kind(of); k != "" {
		return k
	}
	for k, own := range ownTypes {
		if own == of {
			return k
		}
	}
	return ""
}

// movementOf is the movement that a consumption means: what the order yields beside its item comes when it is given back.
func movementOf(p connector.Posting, m *sapComponent, f *object.Consumption) object.MovementKind {
	back := f.Movement == object.Return
	switch byProduct := m != nil && kindOf(p.Movements, m.GoodsMovementType) == object.ByProduct; {
	case byProduct && back:
		return object.ByProduct
	case byProduct:
		return object.ByProductReversal
	case back:
		return object.ReturnFromOrder
	}
	return object.IssueToOrder
}

// receiptType is the type of the receipt of a yield. Where SAP makes the receipt by itself, the type is SAP's own affair.
func (c *Connector) receiptType(p connector.Posting) (string, *connector.Outcome) {
	own := ownTypes[object.ReceiptFromOrder]
	if c.cfg.Movements == movementsSAP {
		return own, nil
	}
	return p.MovementType(object.ReceiptFromOrder, own)
}

// cancelType is the type that SAP's own cancellation of a confirmation gives a movement back with; empty where nobody knows.
func cancelType(t *object.MovementTypes, of string) string {
	back := kindOf(t, of).Back()
	if to, ok := t.Of(back, ownTypes[back]); ok {
		return to
	}
	return ""
}

// backType is the type and code of the document that takes back a movement.
func backType(p connector.Posting, of string) (kind, code string, no *connector.Outcome) {
	back := kindOf(p.Movements, of).Back()
	if back == "" {
		return "", "", reject(connector.Correctable, "MOVEMENT_TYPE", "Take it back in SAP, then accept this fact.",
			"Movement type %q of fact %s is not known, nor which one takes it back.", of, p.Fact.Reverses)
	}
	kind, no = p.MovementType(back, ownTypes[back])
	return kind, codes[back], no
}
