// Package ingest takes what plant agents send and gives them what waits for them.
//
// It owns the hub's end of the uplink stream: who may speak (the certificate's identity must be the hello's, one live
// instance each), the comparison of both sides' positions, the commit of what waits on all streams in one transaction, the
// acknowledgement after it, and the deliveries downwards. It promises that an acknowledgement is sent only after the hub's
// own commit holds the records; that a key is stored once, whatever is sent again; that a record which cannot be used is kept
// aside with its reason and stops nobody; and that a store which cannot commit is answered with a refusal, never with an
// acknowledgement. It never reads a fact's meaning beyond its form and never skips a record because of its sequence.
package ingest

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/store"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// Protocol is the version of the uplink contract that this hub speaks.
const Protocol = 1

// Directory knows which agents are configured.
type Directory interface {
	// Known reports whether the agent of the plant may connect. It does no I/O.
	Known(plant, agent string) bool
}

// Options of New. Store and Directory are needed; zero fields mean the documented default.
type Options struct {
	Store     *store.Store
	Directory Directory
	// Version of the hub, told to agents.
	Version string
	// Window is how many batches an agent may have unacknowledged; 32.
	Window int
	// DeadAfter is the silence after which another instance may take over an identity; 40 s (an agent speaks every 30 s).
	DeadAfter time.Duration
	// HellosPerSecond is how many agents are let in a second, after a calm time as many at once; 50. Others get a turn.
	HellosPerSecond float64
	// Poll is how often a stream looks for deliveries that nobody announced; 10 s.
	Poll time.Duration
	// Judge makes records that are gone a discrepancy at once. Nil: they are an alarm until something compares.
	Judge *reconcile.Policy
	// Now is the clock; time.Now.
	Now    func() time.Time
	Logger *slog.Logger
}

func (o *Options) setDefaults() {
	if o.Window <= 0 {
		o.Window = 32
	}
	if o.DeadAfter <= 0 {
		o.DeadAfter = 40 * time.Second
	}
	if o.HellosPerSecond <= 0 {
		o.HellosPerSecond = 50
	}
	if o.Poll <= 0 {
		o.Poll = 10 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// Server is the uplink service. Make one with New, register it with pb.RegisterUplinkServer on a grpc.Server made with
// ServerOptions and mutual TLS, and keep Run running as long as that server serves.
type Server struct {
	pb.UnimplementedUplinkServer
	o    Options
	door *admission
	jobs chan *job

	mu      sync.Mutex
	live    map[string]*session // by "plant/agent"
	stopped bool
	under   map[int64]int64 // the highest delivery that was put on a stream in its turn, by agent
	wg      sync.WaitGroup  // all goroutines of all sessions

	sessions atomic.Int64 // since the start

	counts struct{ accepted, duplicates, conflicts, unreadable, commits atomic.Uint64 }
}

// New returns a server that accepts streams and commits nothing until Run runs.
func New(o Options) *Server {
	o.setDefaults()
	return &Server{o: o, door: newAdmission(o.HellosPerSecond), jobs: make(chan *job, 64), live: map[string]*session{}, under: map[int64]int64{}}
}

// ServerOptions are the options that the grpc.Server needs beside its credentials: keepalive that finds a dead line within
// three quarters of a minute, leaves a slow one that loses packets its time, and tolerates agents that ask more often; and
// room for large batches.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 20 * time.Second, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.ConnectionTimeout(30 * time.Second), // for TLS and the first word: strangers hold nothing open
		grpc.MaxRecvMsgSize(16 << 20),
		// A silent agent holds nothing: TLS has a buffer for reading, and one stream needs no table of headers.
		grpc.ReadBufferSize(0), grpc.WriteBufferSize(32 << 10), grpc.HeaderTableSize(0),
	}
}

// Run commits what the streams bring until ctx ends, then ends all streams and waits for them. It is called once. What the
// store still says of connections of a hub before this one is cleared by its owner, before anybody is served.
func (s *Server) Run(ctx context.Context) error {
	s.wg.Go(func() { s.pollLoop(ctx) })
	s.commitLoop(ctx)
	s.mu.Lock()
	s.stopped = true
	for _, ss := range s.live {
		ss.cancel(errStopped)
	}
	s.mu.Unlock()
	s.wg.Wait()
	return nil
}

// pollTurns is into how many turns a round of pollLoop is divided: agents that came together are not looked after together.
const pollTurns = 8

// pollLoop lets each stream look for deliveries that nobody announced, and send what it kept for a full line.
func (s *Server) pollLoop(ctx context.Context) {
	tick := time.NewTicker(s.o.Poll / pollTurns)
	defer tick.Stop()
	for turn := int64(0); ; turn = (turn + 1) % pollTurns {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.mu.Lock()
		for _, ss := range s.live {
			if ss.turn == turn {
				ss.sendSoon(true)
			}
		}
		s.mu.Unlock()
	}
}

// Counts are totals since the start.
type Counts struct{ Accepted, Duplicates, Conflicts, Unreadable, Commits, Streams uint64 }

// Counts returns the totals and the number of live streams.
func (s *Server) Counts() Counts {
	s.mu.Lock()
	streams := uint64(len(s.live))
	s.mu.Unlock()
	c := &s.counts
	return Counts{c.accepted.Load(), c.duplicates.Load(), c.conflicts.Load(), c.unreadable.Load(), c.commits.Load(), streams}
}

// Heard says when each agent that is connected sent something last, by "plant/agent".
func (s *Server) Heard() map[string]time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]time.Time, len(s.live))
	for name, ss := range s.live {
		out[name] = ss.heard()
	}
	return out
}

// Connect serves one stream until it ends.
func (s *Server) Connect(stream grpc.BidiStreamingServer[pb.Up, pb.Down]) error {
	if !s.enter() {
		return status.Error(codes.Unavailable, "the hub stops")
	}
	defer s.wg.Done()
	var ss *session
	var refusal *pb.Refusal
	var err error
	apart(func() { ss, refusal, err = s.greet(stream) })
	if err != nil {
		return err
	}
	if refusal != nil {
		level := slog.LevelWarn
		if refusal.GetCode() == pb.Refusal_CODE_BUSY {
			level = slog.LevelDebug
		}
		s.o.Logger.Log(stream.Context(), level, "refused an agent", "code", refusal.GetCode().String(), "reason", refusal.GetReason())
		return stream.Send(&pb.Down{Kind: &pb.Down_Refusal{Refusal: refusal}})
	}
	defer s.leave(ss)
	return ss.serve()
}

// apart runs f in a goroutine of its own and waits for it. A transaction takes a deep stack once; in the stream's own goroutine,
// half of that would be kept as long as the agent is connected.
func apart(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
}

// enter counts a goroutine of a stream, unless the server stops.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopped {
		s.wg.Add(1)
	}
	return !s.stopped
}

// claim makes ss the live session of its identity. A session that is dead, or of the same process, is ended first; the
// error says that a living one has the identity.
func (s *Server) claim(ss *session) error {
	for {
		s.mu.Lock()
		old := s.live[ss.name]
		if s.stopped {
			s.mu.Unlock()
			return status.Error(codes.Unavailable, errStopped.Error())
		}
		if old == nil {
			s.live[ss.name] = ss
			s.mu.Unlock()
			return nil
		}
		if old.ctx.Err() == nil && old.instance != ss.instance && s.o.Now().Sub(old.heard()) < s.o.DeadAfter {
			old.contest(ss.instance)
			s.mu.Unlock()
			return errInUse
		}
		s.mu.Unlock()
		old.cancel(errReplaced)
		select {
		case <-old.done:
		case <-ss.ctx.Done():
			return ss.ctx.Err()
		}
	}
}

// handed returns the highest delivery in its turn that an agent can have of this hub.
func (s *Server) handed(agentID int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(s.o.Store.NumberedBefore(agentID), s.under[agentID])
}

func (s *Server) hand(agentID, seq int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.under[agentID] = max(s.under[agentID], seq)
}

var (
	errInUse    = errors.New("another live instance has the identity")
	errReplaced = errors.New("a newer stream of the same agent took over")
	errStopped  = errors.New("the hub stops")
)

func (s *Server) leave(ss *session) {
	ss.cancel(nil)
	s.mu.Lock()
	if s.live[ss.name] == ss {
		delete(s.live, ss.name)
	}
	s.mu.Unlock()
	close(ss.done)
	if err := s.o.Store.Disconnect(context.WithoutCancel(ss.ctx), ss.agentID, ss.instance); err != nil && !errors.Is(err, store.ErrClosed) {
		s.o.Logger.Error("record that an agent left", "agent", ss.name, "error", err)
	}
}
