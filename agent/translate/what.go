package translate

import (
	"strings"

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
		word := strings.ToLower(strings.TrimPrefix(e.GetState().String(), "STATE_"))
		return "order " + e.GetOrderNo() + " " + word, e.GetOrderNo()
	case f.GetSourceException() != nil:
		e := f.GetSourceException()
		return "exception " + e.GetCode() + ": " + excerptText(e.GetItem()), ""
	}
	return "", ""
}
