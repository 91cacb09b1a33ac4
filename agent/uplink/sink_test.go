package uplink

import (
	"crypto/tls"
	"net"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// sinkHub acknowledges and forgets.
type sinkHub struct {
	pb.UnimplementedUplinkServer
	want uint64
	done chan struct{}
}

func (h *sinkHub) Connect(stream grpc.BidiStreamingServer[pb.Up, pb.Down]) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	if err := stream.Send(&pb.Down{Kind: &pb.Down_HelloAck{HelloAck: &pb.HelloAck{Window: 32}}}); err != nil {
		return err
	}
	for {
		up, err := stream.Recv()
		if err != nil {
			return err
		}
		b := up.GetBatch()
		if b == nil {
			continue
		}
		seq := b.FirstSeq + uint64(len(b.Records)) - 1
		if err := stream.Send(&pb.Down{Kind: &pb.Down_BatchAck{BatchAck: &pb.BatchAck{Stream: b.Stream, Generation: b.Generation, Seq: seq}}}); err != nil {
			return err
		}
		if seq == h.want {
			close(h.done)
		}
	}
}

func serveSink(h *sinkHub, l net.Listener, conf *tls.Config) (stop func()) {
	srv := grpc.NewServer(grpc.Creds(credentials.NewTLS(conf)))
	pb.RegisterUplinkServer(srv, h)
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(l) })
	return func() { srv.Stop(); wg.Wait() }
}
