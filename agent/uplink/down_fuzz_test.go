package uplink

import (
	"context"
	"encoding/binary"
	"io"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/linekeeper/linekeeper/agent/buffer"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
	"github.com/linekeeper/linekeeper/proto/pace"
)

// spoken is a stream that says what a hub, or something that calls itself one, may say.
type spoken struct {
	grpc.BidiStreamingClient[pb.Up, pb.Down]
	downs []*pb.Down
}

func (s *spoken) Recv() (*pb.Down, error) {
	if len(s.downs) == 0 {
		return nil, io.EOF
	}
	d := s.downs[0]
	s.downs = s.downs[1:]
	return d, nil
}

// frames cuts bytes into messages, each after its length, and keeps those that are a Down.
func frames(raw []byte) (downs []*pb.Down) {
	for len(raw) > 0 {
		size, n := binary.Uvarint(raw)
		if n <= 0 || size > uint64(len(raw)-n) {
			return downs
		}
		var d pb.Down
		if proto.Unmarshal(raw[n:n+int(size)], &d) == nil {
			downs = append(downs, &d)
		}
		raw = raw[n+int(size):]
	}
	return downs
}

func framed(downs ...*pb.Down) (raw []byte) {
	for _, d := range downs {
		body, err := proto.Marshal(d)
		if err != nil {
			panic(err)
		}
		raw = append(binary.AppendUvarint(raw, uint64(len(body))), body...)
	}
	return raw
}

// shelf is a buffer that remembers what it was told.
type shelf struct {
	acked   uint64
	renewed int
}

func (s *shelf) Generation() string { return "g" }
func (s *shelf) Stats() buffer.Stats {
	return buffer.Stats{Generation: "g", LastSeq: 100, AckedSeq: s.acked}
}
func (s *shelf) Read(uint64, int, int) ([]buffer.Entry, error) { return nil, nil }
func (s *shelf) Wait(ctx context.Context, _ uint64) error      { <-ctx.Done(); return ctx.Err() }
func (s *shelf) Ack(seq uint64) error                          { s.acked = max(s.acked, seq); return nil }
func (s *shelf) NewGeneration() error                          { s.renewed++; return nil }

// FuzzDown reads anything as what a hub sends: nothing is acknowledged to the buffer that was never sent, a session ends with
// a reason that a person can read, and nothing waits for ever.
func FuzzDown(f *testing.F) {
	ack := func(seq uint64) *pb.Down {
		return &pb.Down{Kind: &pb.Down_BatchAck{BatchAck: &pb.BatchAck{Stream: pb.Stream_STREAM_BUSINESS, Generation: "g", Seq: seq}}}
	}
	f.Add(framed(ack(20), ack(50)))
	f.Add(framed(ack(51)))
	f.Add(framed(ack(1 << 63)))
	f.Add(framed(&pb.Down{Kind: &pb.Down_Refusal{Refusal: &pb.Refusal{Code: 99, Reason: "no"}}}))
	f.Add(framed(&pb.Down{Kind: &pb.Down_Delivery{Delivery: &pb.Delivery{Seq: -1}}}, &pb.Down{}))
	f.Add(framed(&pb.Down{Kind: &pb.Down_HelloAck{HelloAck: &pb.HelloAck{NewGenerationRequired: true, Streams: []*pb.StreamPosition{
		{Stream: pb.Stream_STREAM_BUSINESS, Generation: "g", AckedSeq: 500}}}}}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		downs := frames(raw)
		src := &shelf{acked: 10}
		u := &Uplink{deps: Deps{Business: src}}
		u.cfg.setDefaults()
		s := &session{u: u, lanes: u.lanes(), wake: make(chan struct{}, 1), ackWake: make(chan struct{}, 1),
			deliveries: make(chan *pb.Delivery, 2), stream: &spoken{downs: downs}, pace: pace.New(u.cfg.pace()), watchdog: time.NewTimer(time.Hour)}
		defer s.watchdog.Stop()
		hello := s.hello()
		l := s.lanes[0]
		l.sent = 50
		err := s.receive(t.Context())
		if err == nil {
			t.Fatal("the line ended without a reason")
		}
		if fault := asFault(err); fault.Reason == "" || fault.Code == "" {
			t.Fatalf("%v has no code or no reason: %+v", err, fault)
		}
		if err := s.persistAcks(); err != nil {
			t.Fatal(err)
		}
		if src.acked > 50 || l.acked > l.sent {
			t.Fatalf("the buffer was told %d, the lane knows %d, and %d was sent", src.acked, l.acked, l.sent)
		}
		for _, d := range downs {
			if ack := d.GetHelloAck(); ack != nil {
				if _, err := s.compare(t.Context(), hello, ack); err != nil && asFault(err).Reason == "" {
					t.Fatalf("an answer to hello ends with %v", err)
				}
			}
		}
	})
}
