package wire_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/wire"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
	"github.com/shopspring/decimal"
	"google.golang.org/protobuf/proto"
)

var d = decimal.RequireFromString

func fact(content func(*object.Fact)) object.Fact {
	zone, err := wire.Zone("Europe/Berlin")
	if err != nil {
		panic(err)
	}
	f := object.Fact{
		Key: factkey.Of("p"), Plant: "ulm", Source: "press1", Rule: "good", TimeZone: "Europe/Berlin", Equipment: "ulm/press1", Position: "p",
		OccurredAt: time.Date(2026, 10, 25, 2, 30, 0, 5000, zone), RecordedAt: time.Date(2026, 10, 25, 4, 0, 0, 0, zone),
	}
	content(&f)
	return f
}

var facts = map[string]object.Fact{
	"confirmation": fact(func(f *object.Fact) {
		f.Kind, f.Reverses = object.KindConfirmation, factkey.Of("q")
		f.Confirmation = &object.Confirmation{
			OrderNo: "WO-1", Operation: "0010", Item: "P", Yield: d("12.345"), Scrap: d("1"), Unit: "C62", ScrapReason: "7", Final: true,
			StartedAt: f.OccurredAt.Add(-time.Hour), FinishedAt: f.OccurredAt, Lot: "L", Person: "p1", Shift: "early",
			Serial: "0042", ScrapReasonText: "burr",
		}
		f.Shift, f.ShiftDate, f.PostingDate = "night", "2026-10-24", "2026-10-24"
	}),
	"counter": fact(func(f *object.Fact) {
		f.Kind = object.KindConfirmation
		f.Confirmation = &object.Confirmation{
			OrderNo: "WO-1", Unit: "C62", Yield: d("5"), CounterRange: &object.CounterRange{Tag: "good", Epoch: "e", From: d("10"), To: d("15")},
			StartedAt: f.OccurredAt.Add(-time.Hour), FinishedAt: f.OccurredAt,
		}
	}),
	"consumption": fact(func(f *object.Fact) {
		f.Kind = object.KindConsumption
		f.Consumption = &object.Consumption{
			OrderNo: "WO-1", Operation: "0010", Item: "RAW", Quantity: object.Quantity{Value: d("0.001"), Unit: "KGM"}, Lot: "L", Movement: object.Return, Reservation: "77/1",
		}
	}),
	"meter": fact(func(f *object.Fact) {
		f.Kind = object.KindConsumption
		f.Consumption = &object.Consumption{
			OrderNo: "WO-1", Item: "OIL", Quantity: object.Quantity{Value: d("2.5"), Unit: "LTR"}, Movement: object.Issue,
			CounterRange: &object.CounterRange{Tag: "flow", Epoch: "e", From: d("100"), To: d("102.5")},
		}
	}),
	"quality": fact(func(f *object.Fact) {
		f.Kind = object.KindQuality
		f.Quality = &object.Quality{OrderNo: "WO-1", Item: "P", Lot: "L", Serial: "S", Status: "ok", Disposition: "UnRestricted", Reason: "r", Quantity: object.Quantity{Value: d("3"), Unit: "C62"}}
	}),
	"order state": fact(func(f *object.Fact) {
		f.Kind = object.KindOrderState
		f.OrderState = &object.ShopFloorState{OrderNo: "WO-1", Revision: 3, State: object.FloorHeld, Reason: "tool", Operation: "0010"}
	}),
	"exception": fact(func(f *object.Fact) {
		f.Kind = object.KindException
		f.Exception = &object.Exception{Code: "bad_json", Item: "topic", Reason: "not JSON", NextStep: "mend it", Excerpt: []byte("{")}
	}),
	"counter that went back": fact(func(f *object.Fact) {
		f.Kind = object.KindException
		f.Exception = &object.Exception{Code: "counter_reset", Item: "good", Reason: "it went back", NextStep: "count", Step: &object.CounterStep{Tag: "good", Epoch: "l.1", Last: d("510"), Now: d("3.5"),
			LastAt: f.OccurredAt.Add(-time.Minute), At: f.OccurredAt, Modulus: d("32768"), MaxPerSecond: d("2"), Booted: true, Outcome: object.StepHeld}}
	}),
}

var equal = cmp.Options{
	cmp.Comparer(func(a, b decimal.Decimal) bool { return a.Equal(b) }),
	cmp.Comparer(func(a, b time.Time) bool {
		return a.Equal(b) && (a.IsZero() || a.Location().String() == b.Location().String())
	}),
}

func TestEveryKindOfFactComesBackAsItWent(t *testing.T) {
	for name, f := range facts {
		body, err := wire.EncodeFact(f)
		if err != nil {
			t.Fatal(err)
		}
		back, err := wire.DecodeFact(body)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(f, back, equal); diff != "" {
			t.Errorf("%s changed on the way:\n%s", name, diff)
		}
	}
}

func TestContentHashTellsTheSameFactFromAnother(t *testing.T) {
	seen := map[[32]byte]string{}
	for name, f := range facts {
		h := wire.ContentHash(f)
		if other, ok := seen[h]; ok {
			t.Errorf("%s and %s have one hash", name, other)
		}
		seen[h] = name
		again := f
		again.RecordedAt, again.Rule = again.RecordedAt.Add(time.Hour), "renamed"
		if wire.ContentHash(again) != h {
			t.Errorf("%s: recorded again, it is another fact", name)
		}
	}
	for _, name := range []string{"counter", "meter", "order state"} {
		later := facts[name]
		later.OccurredAt = later.OccurredAt.Add(time.Minute) // the restored agent read the counter later
		if wire.ContentHash(later) != wire.ContentHash(facts[name]) {
			t.Errorf("%s: a value read at another time is another fact", name)
		}
	}
	counter := facts["counter"]
	later := counter
	more := *counter.Confirmation
	more.Yield = d("6")
	later.Confirmation = &more
	if wire.ContentHash(later) == wire.ContentHash(counter) {
		t.Error("another quantity is the same fact")
	}
	meter := facts["meter"]
	onward := *meter.Consumption
	onward.CounterRange = &object.CounterRange{Tag: "flow", Epoch: "e", From: d("102.5"), To: d("105")}
	meter.Consumption = &onward
	if wire.ContentHash(meter) == wire.ContentHash(facts["meter"]) {
		t.Error("the same quantity of another counter range is the same fact")
	}
	consumption := facts["consumption"]
	consumption.OccurredAt = consumption.OccurredAt.Add(time.Minute)
	if wire.ContentHash(consumption) == wire.ContentHash(facts["consumption"]) {
		t.Error("material taken at another time is the same fact")
	}
}

func TestUnusableFactsAreRefusedByName(t *testing.T) {
	for _, c := range []struct {
		name, want string
		change     func(*pb.Fact)
	}{
		{"short key", "7 bytes", func(m *pb.Fact) { m.Key = m.Key[:7] }},
		{"no plant", "plant", func(m *pb.Fact) { m.Header.Plant = "" }},
		{"no zone", "time zone", func(m *pb.Fact) { m.Header.TimeZone = "" }},
		{"zone nobody knows", `"Mars/Base"`, func(m *pb.Fact) { m.Header.TimeZone = "Mars/Base" }},
		{"no time", "occurred_at", func(m *pb.Fact) { m.Header.OccurredAt = nil }},
		{"a float's text", `yield "1e3"`, func(m *pb.Fact) { m.GetProductionConfirmation().Yield = "1e3" }},
		{"a comma", `scrap "1,5"`, func(m *pb.Fact) { m.GetProductionConfirmation().Scrap = "1,5" }},
		{"too many decimals", "rework", func(m *pb.Fact) { m.GetProductionConfirmation().Rework = "0.1234567890" }},
		{"too many digits", "yield", func(m *pb.Fact) { m.GetProductionConfirmation().Yield = strings.Repeat("9", 23) }},
		{"a counter range without an end", "counter_range.to", func(m *pb.Fact) {
			m.Content = wire.FactToProto(facts["meter"]).Content
			m.GetMaterialConsumption().CounterRange.To = ""
		}},
		{"content of the future", "kind", func(m *pb.Fact) { m.Content = nil }},
	} {
		m := wire.FactToProto(facts["confirmation"])
		c.change(m)
		_, err := wire.FactFromProto(m)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error that names %s", c.name, err, c.want)
		}
	}
}

func TestWorkOrderComesBackAsItWent(t *testing.T) {
	o := object.WorkOrder{
		OrderNo: "WO-1", Revision: 2, ERP: "erp", ERPKey: "k", Plant: "ulm", WorkCenter: "PRESS1", Item: "P", ItemDescription: "part",
		Quantity: object.Quantity{Value: d("100"), Unit: "C62"}, State: object.OrderReleased, Priority: 3, Lot: "L",
		PlannedStart: time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC), RevisedAt: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC),
		Operations: []object.Operation{{Operation: "0010", WorkCenter: "PRESS1", Quantity: object.Quantity{Value: d("100"), Unit: "C62"}}},
		Components: []object.Component{{Item: "RAW", Required: object.Quantity{Value: d("12.5"), Unit: "KGM"}, Reservation: "77/1", Backflush: true}},
	}
	back, err := wire.WorkOrderFromProto(wire.WorkOrderToProto(o))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(o, back, equal); diff != "" {
		t.Errorf("work order changed on the way:\n%s", diff)
	}
}

// FuzzDecodeFact feeds what another machine may have written: whatever is accepted must survive the way out and back.
func FuzzDecodeFact(f *testing.F) {
	for _, x := range facts {
		body, err := wire.EncodeFact(x)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		x, err := wire.DecodeFact(body)
		if err != nil {
			return
		}
		out, err := proto.Marshal(wire.FactToProto(x))
		if err != nil {
			return // texts that are not UTF-8 cannot come from the wire again
		}
		again, err := wire.DecodeFact(out)
		if err != nil {
			t.Fatalf("accepted once, refused after the way back: %v", err)
		}
		if wire.ContentHash(again) != wire.ContentHash(x) {
			t.Fatal("the way out and back makes another fact")
		}
	})
}
