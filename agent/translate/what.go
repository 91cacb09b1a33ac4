package translate

import (
	"strings"

	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// What says of a fact in words what it is, for the operator's page: "12 pcs yield of FG-GEAR"; and which order it belongs to.
func What(f *pb.Fact) (what, orderNo string) {
	switch {
	case f.GetProductionConfirmation() != nil:
		e := f.GetProductionConfirmation()
		return confirmed(e), e.GetOrderNo()
	case f.GetMaterialConsumption() != nil:
		e := f.GetMaterialConsumption()
		return consumed(e), e.GetOrderNo()
	case f.GetQualityStatus() != nil:
		e := f.GetQualityStatus()
		about := e.GetLot()
		fallback(&about, e.GetSerial())
		fallback(&about, e.GetItem())
		return "quality " + e.GetStatus() + " of " + about, e.GetOrderNo()
	case f.GetOrderState() != nil:
		e := f.GetOrderState()
		return whatOfOrder(e), e.GetOrderNo()
	case f.GetSourceException() != nil:
		e := f.GetSourceException()
		return "exception " + e.GetCode() + ": " + excerptText(e.GetItem()), ""
	}
	return "", ""
}

// whatOfOrder names a change of an order's state, or of one of its operations.
func whatOfOrder(e *pb.OrderState) string {
	about := "order " + e.GetOrderNo()
	if e.GetOperation() != "" {
		about += " operation " + e.GetOperation()
	}
	return about + " " + stateWord(e.GetState())
}

// confirmed is a confirmation in words: "12 pcs yield, 1 pcs scrap of FG-GEAR".
func confirmed(e *pb.ProductionConfirmation) string {
	var parts []string
	for _, p := range [...]struct{ q, kind string }{{e.GetYield(), kindYield}, {e.GetScrap(), kindScrap}, {e.GetRework(), kindRework}} {
		if p.q != "" {
			parts = append(parts, p.q+" "+spoken(e.GetUnit())+" "+p.kind)
		}
	}
	if len(parts) == 0 {
		parts = []string{"0 " + spoken(e.GetUnit())}
	}
	what := strings.Join(parts, ", ")
	if e.GetItem() != "" {
		what += " of " + e.GetItem()
	}
	return what
}

// consumed is a consumption in words: "2.5 kg of RM-STEEL consumed".
func consumed(e *pb.MaterialConsumption) string {
	kind := kindConsumed
	if e.GetMovement() == pb.MaterialConsumption_MOVEMENT_RETURN {
		kind = kindReturned
	}
	return e.GetQuantity().GetValue() + " " + spoken(e.GetQuantity().GetUnit()) + " of " + e.GetItem() + " " + kind
}
