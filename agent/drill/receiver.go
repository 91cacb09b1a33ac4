package drill

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// receiver is the scratch hub's end of the line: it stores what comes, knows a key once, and acknowledges after that.
type receiver struct {
	pb.UnimplementedUplinkServer
	led   *ledger
	early bool // sabotage: acknowledge first, store a little later, and not at all when the line is cut before

	srv *grpc.Server
	ln  net.Listener
	wg  sync.WaitGroup

	mu        sync.Mutex
	positions map[string]uint64 // by stream and generation
	live      *hearing
	refused   []string // instances that were refused because another one lives
	flagged   []string // instances that live and were contested
	wentBack  int
	batches   int
	lastStore time.Time
}

// hearing is a connected agent.
type hearing struct {
	instance string
	heard    time.Time
	cancel   context.CancelFunc
	done     chan struct{}
}

// deadAfter is the silence after which another process may take over an identity. An agent speaks every ten seconds.
const deadAfter = 14 * time.Second

// drillWindow is how many batches may be under way; drillProtocol is the version of the contract.
const (
	drillWindow   = 16
	drillProtocol = 1
)

func newReceiver(certs string, led *ledger) (*receiver, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(certs, "hub.pem"), filepath.Join(certs, "hub.key"))
	if err != nil {
		return nil, fmt.Errorf("start the scratch receiver: %w", err)
	}
	ca, err := os.ReadFile(filepath.Join(certs, "ca.pem"))
	if err != nil {
		return nil, fmt.Errorf("start the scratch receiver: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start the scratch receiver: %w", err)
	}
	r := &receiver{led: led, ln: ln, positions: map[string]uint64{}}
	r.srv = grpc.NewServer(
		grpc.Creds(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert})),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 15 * time.Second, Timeout: 5 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.MaxRecvMsgSize(64<<20),
	)
	pb.RegisterUplinkServer(r.srv, r)
	r.wg.Go(func() { _ = r.srv.Serve(ln) }) // ends with Stop
	return r, nil
}

func (r *receiver) addr() string { return r.ln.Addr().String() }

func (r *receiver) close() {
	r.srv.Stop()
	r.wg.Wait()
}

// Connect serves one stream.
func (r *receiver) Connect(stream grpc.BidiStreamingServer[pb.Up, pb.Down]) error {
	up, err := stream.Recv()
	if err != nil {
		return err
	}
	h := up.GetHello()
	if h == nil || h.GetProtocol() != drillProtocol {
		return status.Error(codes.InvalidArgument, "the first message is not a hello of version 1")
	}
	ctx, cancel := context.WithCancel(stream.Context())
	me := &hearing{instance: h.GetInstance(), heard: time.Now(), cancel: cancel, done: make(chan struct{})}
	defer close(me.done)
	defer cancel()
	if !r.claim(ctx, me) {
		return stream.Send(&pb.Down{Kind: &pb.Down_Refusal{Refusal: &pb.Refusal{Code: pb.Refusal_CODE_IDENTITY_IN_USE,
			Reason:   fmt.Sprintf("agent %q is connected already as another process", h.GetPlant()+"/"+h.GetAgent()),
			NextStep: "stop one of the two; a copied machine needs a name and a certificate of its own"}}})
	}
	defer r.leave(me)
	if err := stream.Send(&pb.Down{Kind: &pb.Down_HelloAck{HelloAck: r.compare(h)}}); err != nil {
		return err
	}
	return r.listen(ctx, stream, me)
}

// claim makes me the live process of the identity, unless another one lives.
func (r *receiver) claim(ctx context.Context, me *hearing) bool {
	for {
		r.mu.Lock()
		old := r.live
		if old == nil {
			r.live = me
			r.mu.Unlock()
			return true
		}
		if old.instance != me.instance && time.Since(old.heard) < deadAfter {
			r.refused, r.flagged = append(r.refused, me.instance), append(r.flagged, old.instance)
			r.mu.Unlock()
			return false
		}
		r.mu.Unlock()
		old.cancel()
		select {
		case <-old.done:
		case <-ctx.Done():
			return false
		}
	}
}

func (r *receiver) leave(me *hearing) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.live == me {
		r.live = nil
	}
}

func (r *receiver) compare(h *pb.Hello) *pb.HelloAck {
	ack := &pb.HelloAck{HubVersion: "drill", Marks: r.led.marks(), HubTime: timestamppb.Now(), Window: drillWindow, DeliveryEpoch: "drill"}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range h.GetStreams() {
		held := r.positions[p.GetStream().String()+p.GetGeneration()]
		if held == 0 {
			continue
		}
		ack.Streams = append(ack.Streams, &pb.StreamPosition{Stream: p.GetStream(), Generation: p.GetGeneration(), LastSeq: held, AckedSeq: held})
		if p.GetStream() == pb.Stream_STREAM_BUSINESS && held > p.GetLastSeq() {
			ack.NewGenerationRequired = true
			r.wentBack++
		}
	}
	return ack
}

// listen takes what comes until the stream ends or another stream of the same agent takes over.
func (r *receiver) listen(ctx context.Context, stream grpc.BidiStreamingServer[pb.Up, pb.Down], me *hearing) error {
	type message struct {
		up  *pb.Up
		err error
	}
	in := make(chan message)
	go func() { // ends when this handler has returned: Recv heeds the stream's context
		for {
			up, err := stream.Recv()
			select {
			case in <- message{up, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return status.Error(codes.Aborted, "a newer stream took over")
		case msg := <-in:
			if msg.err != nil {
				return msg.err
			}
			r.mu.Lock()
			me.heard = time.Now()
			r.mu.Unlock()
			if b := msg.up.GetBatch(); b != nil {
				if err := stream.Send(&pb.Down{Kind: &pb.Down_BatchAck{BatchAck: r.take(ctx, b)}}); err != nil {
					return err
				}
			}
		}
	}
}

// take stores a batch and returns its acknowledgement.
func (r *receiver) take(ctx context.Context, b *pb.Batch) *pb.BatchAck {
	last := b.GetFirstSeq() + uint64(len(b.GetRecords())) - 1
	ack := &pb.BatchAck{Stream: b.GetStream(), Generation: b.GetGeneration(), Seq: last}
	if b.GetStream() != pb.Stream_STREAM_BUSINESS {
		r.led.mu.Lock()
		r.led.readings += len(b.GetRecords())
		r.led.mu.Unlock()
		return ack
	}
	if r.early {
		r.wg.Go(func() {
			wait(ctx, 700*time.Millisecond)
			if ctx.Err() == nil {
				r.store(b, ack)
			}
		})
		return ack
	}
	r.store(b, ack)
	return ack
}

func (r *receiver) store(b *pb.Batch, ack *pb.BatchAck) {
	for i, record := range b.GetRecords() {
		if kind, reason := r.led.take(record); kind != 0 && !r.early {
			ack.Verdicts = append(ack.Verdicts, &pb.Verdict{Seq: b.GetFirstSeq() + uint64(i), Kind: kind, Reason: reason})
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	key := b.GetStream().String() + b.GetGeneration()
	r.positions[key] = max(r.positions[key], b.GetFirstSeq()+uint64(len(b.GetRecords()))-1)
	r.batches++
	r.lastStore = time.Now()
}
