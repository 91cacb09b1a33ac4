package agent

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// Facts are kept while the clock is wrong, and say so; everything else of them stays as it was.
func TestFactsTakenWhileTheClockIsWrongAreMarked(t *testing.T) {
	right := time.Date(2026, 11, 25, 10, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name string
		now  time.Time
		hub  func() bool
		want bool
	}{
		{"right, no hub", right, nil, false},
		{"right, the hub agrees", right, func() bool { return false }, false},
		{"the hub disagrees", right, func() bool { return true }, true},
		{"dead battery, no hub yet", time.Date(2009, 1, 1, 0, 0, 0, 0, time.UTC), nil, true},
	} {
		fact := &pb.Fact{
			Key: []byte("0123456789abcdef"),
			Header: &pb.Header{
				Plant: "ulm", Source: "press1", Rule: "good", RecordedAt: timestamppb.New(c.now), OccurredAt: timestamppb.New(c.now), TimeZone: "Europe/Berlin", Position: "counter|1",
			},
			Content: &pb.Fact_ProductionConfirmation{ProductionConfirmation: &pb.ProductionConfirmation{OrderNo: "1004711", Yield: "12.500"}},
		}
		body, err := proto.Marshal(fact)
		if err != nil {
			t.Fatal(err)
		}
		p := &pipeline{hubSuspects: c.hub}
		got := &pb.Fact{}
		if err := proto.Unmarshal(append(slices.Clip(body), p.mark(c.now)...), got); err != nil {
			t.Fatal(err)
		}
		if got.Header.ClockSuspect != c.want {
			t.Errorf("%s: suspect %v, want %v", c.name, got.Header.ClockSuspect, c.want)
		}
		got.Header.ClockSuspect = false
		if !proto.Equal(got, fact) {
			t.Errorf("%s: the fact became %v", c.name, got)
		}
	}
}
