package wire_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/wire"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// FuzzWorkOrder reads anything as a work order: what is accepted comes back the same from the way out and in.
func FuzzWorkOrder(f *testing.F) {
	for _, o := range []object.WorkOrder{
		{OrderNo: "WO-1", Revision: 3, State: object.OrderReleased, Item: "P", Quantity: object.Quantity{Value: d("12.500"), Unit: "KGM"}},
		{OrderNo: "WO-2", State: object.OrderCancelled, Quantity: object.Quantity{Value: d("0"), Unit: "C62"},
			Components: []object.Component{{Item: "R", Required: object.Quantity{Value: d("0.001"), Unit: "KGM"}, Backflush: true}},
			Operations: []object.Operation{{Operation: "0010", Quantity: object.Quantity{Value: d("1"), Unit: "C62"}}}},
	} {
		raw, err := proto.Marshal(wire.WorkOrderToProto(o))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var m pb.WorkOrder
		if proto.Unmarshal(raw, &m) != nil {
			return
		}
		o, err := wire.WorkOrderFromProto(&m)
		if err != nil {
			return
		}
		out, err := proto.Marshal(wire.WorkOrderToProto(o))
		if err != nil {
			t.Fatalf("accepted, but can not travel again: %v", err)
		}
		var again pb.WorkOrder
		if err := proto.Unmarshal(out, &again); err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(wire.WorkOrderToProto(o), &again) {
			t.Fatalf("the way out and back makes another order:\n%v\n%v", wire.WorkOrderToProto(o), &again)
		}
		if _, err := wire.WorkOrderFromProto(&again); err != nil {
			t.Fatalf("accepted once, refused after the way back: %v", err)
		}
	})
}
