package ingest

import (
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// FuzzUp reads anything as what an agent sends: each record is either a fact with its key or kept aside with a reason that
// can travel back, and no sequence number of a batch breaks the bookkeeping.
func FuzzUp(f *testing.F) {
	key := factkey.Of("p")
	good := &pb.Fact{Key: key[:], Header: &pb.Header{Plant: "ulm", Source: "s"}}
	body, err := proto.Marshal(good)
	if err != nil {
		f.Fatal(err)
	}
	for _, up := range []*pb.Up{
		{Kind: &pb.Up_Batch{Batch: &pb.Batch{Stream: pb.Stream_STREAM_BUSINESS, Generation: "g", FirstSeq: 1, Records: [][]byte{body, {0xff}}}}},
		{Kind: &pb.Up_Batch{Batch: &pb.Batch{Stream: pb.Stream_STREAM_BUSINESS, Generation: "g", FirstSeq: 1<<64 - 1, Records: [][]byte{body, body}}}},
		{Kind: &pb.Up_Batch{Batch: &pb.Batch{Stream: 77, Generation: "\x00"}}},
		{Kind: &pb.Up_DownAck{DownAck: &pb.DownAck{Seq: -1}}},
		{Kind: &pb.Up_Status{Status: &pb.AgentStatus{}}},
	} {
		raw, err := proto.Marshal(up)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var up pb.Up
		if proto.Unmarshal(raw, &up) != nil {
			return
		}
		ss := &session{plant: "ulm", name: "ulm/line1"}
		for _, record := range up.GetBatch().GetRecords() {
			r := ss.check(record)
			switch {
			case r.Fault == "" && r.Key.IsZero():
				t.Fatalf("record %x was taken without a key", record)
			case !utf8.ValidString(r.Fault):
				t.Fatalf("the reason %q can not travel back", r.Fault)
			case len(r.Fault) > 4096+len(record):
				t.Fatalf("the reason has %d bytes for a record of %d", len(r.Fault), len(record))
			}
			v := &pb.BatchAck{Verdicts: []*pb.Verdict{{Reason: r.Fault}}}
			if _, err := proto.Marshal(v); err != nil {
				t.Fatal(err)
			}
		}
	})
}
