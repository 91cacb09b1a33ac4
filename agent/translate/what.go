package translate

import (
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// What says of a stored fact in words what Fact.What said when it was made, and which order it belongs to.
func What(f *pb.Fact) (what, orderNo string) {
	switch {
	case f.GetProductionConfirmation() != nil:
		e := f.GetProductionConfirmation()
		return confirmed(e), e.GetOrderNo()
	case f.GetMaterialConsumption() != nil:
		e := f.GetMaterialConsumption()
		return string(appendConsumed(nil, e)), e.GetOrderNo()
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
