package wire

import (
	"fmt"
	"time"

	"github.com/linekeeper/linekeeper/hub/object"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

var orderStates = map[object.OrderState]pb.WorkOrder_State{
	object.OrderPlanned:    pb.WorkOrder_STATE_PLANNED,
	object.OrderReleased:   pb.WorkOrder_STATE_RELEASED,
	object.OrderInProgress: pb.WorkOrder_STATE_IN_PROGRESS,
	object.OrderHeld:       pb.WorkOrder_STATE_HELD,
	object.OrderCompleted:  pb.WorkOrder_STATE_COMPLETED,
	object.OrderClosed:     pb.WorkOrder_STATE_CLOSED,
	object.OrderCancelled:  pb.WorkOrder_STATE_CANCELLED,
}

// WorkOrderToProto converts one revision of a work order to what travels to the plant. The ERP's own name of the site stays
// behind: the plant knows itself.
func WorkOrderToProto(o object.WorkOrder) *pb.WorkOrder {
	m := &pb.WorkOrder{
		OrderNo: o.OrderNo, Revision: o.Revision, Erp: o.ERP, ErpKey: o.ERPKey, Plant: o.Plant, WorkCenter: o.WorkCenter,
		Item: o.Item, ItemDescription: o.ItemDescription, Quantity: quantityToProto(o.Quantity), State: orderStates[o.State],
		Priority: o.Priority, PlannedStart: stamp(o.PlannedStart), PlannedEnd: stamp(o.PlannedEnd), Lot: o.Lot,
		RevisedAt: stamp(o.RevisedAt),
	}
	for _, op := range o.Operations {
		m.Operations = append(m.Operations, &pb.Operation{
			Operation: op.Operation, Description: op.Description, WorkCenter: op.WorkCenter, Quantity: quantityToProto(op.Quantity),
		})
	}
	for _, c := range o.Components {
		m.Components = append(m.Components, &pb.Component{
			Item: c.Item, Description: c.Description, Required: quantityToProto(c.Required), Operation: c.Operation,
			Reservation: c.Reservation, Backflush: c.Backflush,
		})
	}
	return m
}

// WorkOrderFromProto is the inverse of WorkOrderToProto; times come back in UTC.
func WorkOrderFromProto(m *pb.WorkOrder) (object.WorkOrder, error) {
	o := object.WorkOrder{
		OrderNo: m.GetOrderNo(), Revision: m.GetRevision(), ERP: m.GetErp(), ERPKey: m.GetErpKey(), Plant: m.GetPlant(),
		WorkCenter: m.GetWorkCenter(), Item: m.GetItem(), ItemDescription: m.GetItemDescription(), Priority: m.GetPriority(),
		PlannedStart: instant(m.GetPlannedStart(), time.UTC), PlannedEnd: instant(m.GetPlannedEnd(), time.UTC), Lot: m.GetLot(),
		RevisedAt: instant(m.GetRevisedAt(), time.UTC),
	}
	for state, wireState := range orderStates {
		if wireState == m.GetState() {
			o.State = state
		}
	}
	var err error
	if o.Quantity, err = quantity("quantity", m.GetQuantity()); err != nil {
		return o, fmt.Errorf("work order %q: %w", o.OrderNo, err)
	}
	for _, op := range m.GetOperations() {
		q, err := quantity("operation quantity", op.GetQuantity())
		if err != nil {
			return o, fmt.Errorf("work order %q operation %q: %w", o.OrderNo, op.GetOperation(), err)
		}
		o.Operations = append(o.Operations, object.Operation{
			Operation: op.GetOperation(), Description: op.GetDescription(), WorkCenter: op.GetWorkCenter(), Quantity: q,
		})
	}
	for _, c := range m.GetComponents() {
		q, err := quantity("required quantity", c.GetRequired())
		if err != nil {
			return o, fmt.Errorf("work order %q component %q: %w", o.OrderNo, c.GetItem(), err)
		}
		o.Components = append(o.Components, object.Component{
			Item: c.GetItem(), Description: c.GetDescription(), Required: q, Operation: c.GetOperation(),
			Reservation: c.GetReservation(), Backflush: c.GetBackflush(),
		})
	}
	return o, nil
}
