package ingest_test

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

// plainStream is what a stream of another gRPC could offer: what the interface names, and no way to end it from outside.
type plainStream struct{}

func (plainStream) Method() string               { return "" }
func (plainStream) SetHeader(metadata.MD) error  { return nil }
func (plainStream) SendHeader(metadata.MD) error { return nil }
func (plainStream) SetTrailer(metadata.MD) error { return nil }

type plain struct{ grpc.ServerStream }

func (p plain) Context() context.Context {
	return grpc.NewContextWithServerTransportStream(p.ServerStream.Context(), plainStream{})
}

// A session ends from outside in three ways: it is replaced, it is refused, or the hub stops. Whatever gRPC offers, the agent
// hears how.
func TestASessionEndsFromOutsideWhileItsAgentIsSilent(t *testing.T) {
	for name, options := range map[string][]grpc.ServerOption{
		"by the stream's own means": nil,
		"by a stream that only its handler ends": {grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
			return handle(srv, plain{ss})
		})},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHub(t)
			h.stop()
			h.options = options
			h.start()
			first, _ := h.connect(hello("one"))
			h.connect(hello("one"))
			if _, err := first.stream.Recv(); status.Code(err) != codes.Aborted {
				t.Errorf("the replaced stream ended with %v, want Aborted", err)
			}
			h.stop()
			h.start()
			l, _ := h.connect(hello("two"))
			var stopping sync.WaitGroup
			stopping.Go(func() { h.stop() })
			if _, err := l.stream.Recv(); status.Code(err) != codes.Unavailable {
				t.Errorf("the stream of a hub that stops ended with %v, want Unavailable", err)
			}
			stopping.Wait()
		})
	}
}

// Hundreds of agents are silent most of the time: beside gRPC's own three goroutines of a connection, a stream has one.
func TestASilentAgentKeepsOneGoroutineBusy(t *testing.T) {
	h := newHub(t)
	h.connect(hello("one"))
	stacks := func() (n int) {
		buf := make([]byte, 4<<20)
		all := string(buf[:runtime.Stack(buf, true)])
		for g := range strings.SplitSeq(all, "\n\n") {
			if strings.Contains(g, "hub/ingest.(*session)") {
				n++
			}
		}
		return n
	}
	realparts.Eventually(t, 10*time.Second, "one goroutine of a session", func() error {
		if n := stacks(); n != 1 {
			return status.Errorf(codes.Internal, "%d goroutines run a session, want 1", n)
		}
		return nil
	})
}
