package uplink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/linekeeper/linekeeper/agent/buffer"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
	"github.com/linekeeper/linekeeper/proto/pace"
	"github.com/linekeeper/linekeeper/proto/sabotage"
)

// deliveriesHeld bounds how many deliveries wait for the inbox. Beyond it they are let go unacknowledged and asked for
// again by a new hello, so that an inbox in trouble does not stop the records going up.
const deliveriesHeld = 4096

// session is one connection, from hello to its end.
type session struct {
	u      *Uplink
	way    way
	line   *attempt
	stream grpc.BidiStreamingClient[pb.Up, pb.Down]
	cancel context.CancelCauseFunc
	lanes  []*lane // in order of priority
	window int
	epoch  string // delivery epoch

	wake       chan struct{} // the sender has something to look at
	ackWake    chan struct{}
	deliveries chan *pb.Delivery

	mu         sync.Mutex
	watchdog   *time.Timer
	ended      bool
	pace       *pace.Pace // of what goes up
	storedDown int64      // last delivery stored
	ackedDown  int64      // last delivery acknowledged to the hub
	ahead      []int64    // deliveries stored ahead of their turn and not yet acknowledged
	overflowed bool
}

// lane is one buffer on its way up. Its numbers are guarded by the session's mutex.
type lane struct {
	kind       pb.Stream
	src        Source
	generation string
	sent       uint64   // last sequence handed to the stream
	acked      uint64   // last sequence the hub holds
	persisted  uint64   // last sequence acknowledged to the buffer
	durable    uint64   // last sequence whose acknowledgement is certainly on the disk
	flight     []flight // batches that are not wholly acknowledged, oldest first
	under      int      // their bytes
	dry        bool     // nothing to read; the waiter tells when there is
	began      bool     // something was sent in this session
	ask        chan uint64
}

// flight is a batch on its way: its last sequence, its size in bytes and its place on the line.
type flight struct {
	last   uint64
	size   int
	parcel pace.Parcel
}

// session connects once, the given way, and works until something ends it.
func (u *Uplink) session(parent context.Context, w way) outcome {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	a := &attempt{cfg: &u.cfg, way: w}
	conn, err := a.open()
	if err != nil {
		return outcome{err: a.explain(err)}
	}
	defer conn.Close()
	defer a.cut()

	s := &session{
		u: u, way: w, line: a, cancel: cancel, lanes: u.lanes(),
		wake: make(chan struct{}, 1), ackWake: make(chan struct{}, 1), deliveries: make(chan *pb.Delivery, deliveriesHeld),
		pace: pace.New(u.cfg.pace()),
	}
	note, err := s.begin(ctx, a, conn)
	if errors.Is(err, errAgain) {
		return outcome{reached: true, err: err}
	}
	if err != nil {
		f := a.explain(err)
		return outcome{err: u.judgeClock(parent, a, f), meddled: meddling[f.Code], cut: a.cutEarly(f)}
	}
	a.mu.Lock()
	a.greeted = true
	outer := a.outer
	a.mu.Unlock()
	u.setConnected(w, outer, note)
	began := time.Now()
	err = s.work(ctx)
	if !errors.Is(err, errAgain) && !errors.Is(err, errDirectAgain) {
		err = a.explain(err)
	}
	return outcome{held: time.Since(began), reached: true, err: err}
}

// alive is what a slow line brings of a long answer within ConnectTimeout at least; a hub that answers nothing but keepalive
// brings less.
const alive = 1024

// begin says hello within the time that it may take. On a slow line a long answer takes its time.
func (s *session) begin(ctx context.Context, a *attempt, conn *grpc.ClientConn) (note string, err error) {
	began, answered := context.WithCancel(ctx)
	var waiting sync.WaitGroup
	defer waiting.Wait()
	defer answered()
	waiting.Go(func() {
		for before := int64(0); ; {
			pause(began, s.u.cfg.ConnectTimeout)
			got := a.got.Load()
			if began.Err() != nil {
				return
			}
			if got < before+alive {
				s.cancel(&Fault{Code: "hub_timeout", Reason: "the hub does not answer", NextStep: "check the network, and whether the hub is healthy"})
				return
			}
			before = got
		}
	})
	note, err = s.greet(ctx, conn)
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, errAgain) && !a.failedBefore() {
		err = cause
	}
	return note, err
}

// failedBefore reports whether a step of the attempt failed by itself: that says more than that time ran out.
func (a *attempt) failedBefore() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.dialErr != nil || a.tlsErr != nil
}

func (u *Uplink) lanes() []*lane {
	lanes := []*lane{{kind: pb.Stream_STREAM_BUSINESS, src: u.deps.Business, ask: make(chan uint64, 1)}}
	if u.deps.Telemetry != nil {
		lanes = append(lanes, &lane{kind: pb.Stream_STREAM_TELEMETRY, src: u.deps.Telemetry, ask: make(chan uint64, 1)})
	}
	return lanes
}

// greet says hello and heeds the answer. note is set when the hub is reached but has bad news.
func (s *session) greet(ctx context.Context, conn *grpc.ClientConn) (note string, err error) {
	if s.stream, err = pb.NewUplinkClient(conn).Connect(ctx); err != nil {
		return "", err
	}
	hello := s.hello()
	sent := time.Now()
	if err := s.stream.Send(&pb.Up{Kind: &pb.Up_Hello{Hello: hello}}); err != nil && err != io.EOF {
		return "", err
	}
	down, err := s.stream.Recv() // tells the real reason where Send only said EOF
	if err != nil {
		return "", err
	}
	if r := down.GetRefusal(); r != nil {
		return "", refusalFault(r)
	}
	ack := down.GetHelloAck()
	if ack == nil {
		return "", &Fault{Code: "not_a_hub", Reason: "the hub did not answer hello", NextStep: "check that agent and hub fit together", Refused: true}
	}
	s.u.noteSkew(ack.GetHubTime().AsTime(), sent, time.Now())
	s.u.mu.Lock()
	s.u.hubVersion = ack.GetHubVersion()
	s.u.mu.Unlock()
	if s.window = int(ack.GetWindow()); s.window <= 0 {
		s.window = s.u.cfg.Window
	}
	s.epoch = ack.GetDeliveryEpoch()
	return s.compare(ctx, hello, ack)
}

func (s *session) hello() *pb.Hello {
	c := s.u.cfg
	h := &pb.Hello{Protocol: Protocol, AgentVersion: c.Version, Plant: c.Plant, Agent: c.Agent, Instance: s.u.instance, TakesAhead: true}
	for _, l := range s.lanes {
		st := l.src.Stats()
		l.generation = st.Generation
		l.sent, l.acked, l.persisted, l.durable = st.AckedSeq, st.AckedSeq, st.AckedSeq, st.AckedSeq
		h.Streams = append(h.Streams, &pb.StreamPosition{Stream: l.kind, Generation: l.generation, LastSeq: st.LastSeq, AckedSeq: st.AckedSeq})
	}
	if s.u.deps.Inbox != nil {
		h.DeliveryEpoch, h.DeliverySeq = s.u.deps.Inbox.Position()
	}
	return h
}

// compare finds out whether one of the two sides went back in time, and starts new generations if so.
func (s *session) compare(ctx context.Context, hello *pb.Hello, ack *pb.HelloAck) (note string, err error) {
	wentBack := ack.GetNewGenerationRequired()
	renew := wentBack
	for _, ours := range hello.Streams {
		for _, theirs := range ack.GetStreams() {
			if theirs.GetStream() != ours.GetStream() || theirs.GetGeneration() != ours.GetGeneration() {
				continue
			}
			if theirs.GetAckedSeq() > ours.GetLastSeq() && !sabotage.Rule(5) {
				// The hub holds records of this generation that we never wrote: our disk is an older copy.
				wentBack, renew = true, true
			}
			if theirs.GetAckedSeq() < ours.GetAckedSeq() {
				// The hub is an older copy. What it lost is gone here too; under the old generation the rest would not fit.
				renew = true
				s.hubLost(ours, theirs.GetAckedSeq())
			}
		}
	}
	marks := ack.GetMarks()
	if sabotage.Rule(5) {
		marks = nil
	}
	if s.u.deps.Marks != nil {
		if err := s.u.deps.Marks(ctx, marks, wentBack); err != nil {
			return "", &Fault{Code: "marks", Reason: "the hub's counter marks cannot be taken over: " + oneLine(err.Error()), NextStep: "look at the agent's log and its disk", cause: err}
		}
	}
	if !renew {
		return "", nil
	}
	for _, l := range s.lanes {
		if err := l.src.NewGeneration(); err != nil {
			return "", bufferFault("start a new generation", err)
		}
	}
	s.u.log().Warn("started new buffer generations", "agent_went_back", wentBack)
	return "", errAgain
}

func (s *session) hubLost(ours *pb.StreamPosition, holds uint64) {
	s.u.log().Error("hub no longer holds records that it acknowledged: it was restored from an older copy",
		"stream", ours.GetStream().String(), "generation", ours.GetGeneration(), "after", holds, "to", ours.GetAckedSeq())
	if s.u.deps.HubLost != nil {
		s.u.deps.HubLost(ours.GetStream(), ours.GetGeneration(), holds, ours.GetAckedSeq())
	}
}

func bufferFault(what string, err error) *Fault {
	return &Fault{Code: "buffer", Reason: "the buffer cannot " + what + ": " + oneLine(err.Error()), NextStep: "look at the agent's disk", cause: err}
}

// work runs the parts of a session until the first of them ends, and waits for all.
func (s *session) work(ctx context.Context) error {
	s.watchdog = time.AfterFunc(time.Hour, s.starved)
	s.watchdog.Stop()
	var wg sync.WaitGroup
	part := func(f func(context.Context) error) {
		wg.Go(func() {
			if err := f(ctx); err != nil {
				s.cancel(err)
			}
		})
	}
	part(s.receive)
	part(s.send)
	part(s.store)
	part(s.persist)
	for _, l := range s.lanes {
		part(func(ctx context.Context) error { return s.await(ctx, l) })
	}
	if s.way.url != "" && s.u.cfg.WebSocket != wsAlways {
		part(s.watchDirect)
	}
	<-ctx.Done()
	wg.Wait() // all of them heed ctx, the stream included
	s.mu.Lock()
	s.ended = true
	s.watchdog.Stop()
	s.mu.Unlock()
	return context.Cause(ctx)
}

func kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// starved is the watchdog: batches are in flight and nothing was acknowledged for too long.
func (s *session) starved() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.inFlight() == 0 {
		return
	}
	s.cancel(&Fault{
		Code: "no_acknowledgement", Reason: "the hub acknowledged nothing for " + span(s.patience()),
		NextStep: "the line is opened anew by itself; if it stays, look at the hub and at what is between",
	})
}

// patience is how long what is in flight may stay without any acknowledgement. A slow line needs its time for a large record.
func (s *session) patience() time.Duration { return s.u.cfg.AckTimeout + s.pace.Needs() }

func (s *session) inFlight() int {
	n := 0
	for _, l := range s.lanes {
		n += len(l.flight)
	}
	return n
}

// receive takes what comes down. It never waits for disk or for the sender.
func (s *session) receive(context.Context) error {
	for {
		down, err := s.stream.Recv()
		if err == io.EOF {
			return &Fault{Code: "line_lost", Reason: "the hub closed the line", NextStep: "it is tried again by itself"}
		}
		if err != nil {
			return err
		}
		switch k := down.GetKind().(type) {
		case *pb.Down_BatchAck:
			if err := s.acknowledged(k.BatchAck); err != nil {
				return err
			}
		case *pb.Down_Delivery:
			s.take(k.Delivery)
		case *pb.Down_Refusal:
			return refusalFault(k.Refusal)
		}
	}
}

func (s *session) acknowledged(a *pb.BatchAck) error {
	l := s.lane(a.GetStream())
	if l == nil || a.GetGeneration() != l.generation {
		return nil
	}
	s.mu.Lock()
	if a.GetSeq() > l.sent {
		sent := l.sent
		s.mu.Unlock()
		return &Fault{Code: "hub_confused", Reason: fmt.Sprintf("the hub acknowledged record %d, but only %d was sent", a.GetSeq(), sent), NextStep: "look at the hub's log"}
	}
	if a.GetSeq() > l.acked {
		l.acked = a.GetSeq()
		now, done := time.Now(), 0
		for done < len(l.flight) && l.flight[done].last <= l.acked {
			s.pace.Arrived(now, l.flight[done].parcel)
			l.under -= l.flight[done].size
			done++
		}
		l.flight = l.flight[:copy(l.flight, l.flight[done:])]
		if rate, sure := s.pace.Rate(); sure {
			s.line.fit(rate)
		}
		if s.inFlight() > 0 {
			s.watchdog.Reset(s.patience())
		} else {
			s.watchdog.Stop()
		}
	}
	s.mu.Unlock()
	s.u.acked()
	kick(s.ackWake)
	kick(s.wake)
	if s.u.deps.Verdict != nil {
		for _, v := range a.GetVerdicts() {
			s.u.deps.Verdict(l.kind, l.generation, v)
		}
	}
	return nil
}

func (s *session) lane(kind pb.Stream) *lane {
	for _, l := range s.lanes {
		if l.kind == kind {
			return l
		}
	}
	return nil
}

// persist tells the buffers what the hub holds; cumulative positions merge while one is being written.
func (s *session) persist(ctx context.Context) error {
	for {
		select {
		case <-s.ackWake:
		case <-ctx.Done():
			// What was acknowledged until the end need not be sent again.
			return s.persistAcks()
		}
		if err := s.persistAcks(); err != nil {
			return err
		}
		if err := s.keepAcks(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// keeper is a Source whose acknowledgements become durable with its next commit, and that can be asked for one.
type keeper interface {
	Update(ctx context.Context, fn func(tx *buffer.Tx) error) error
}

// keepAcks makes acknowledgements durable at each quarter of a window: while a backlog drains and nothing new comes there is
// no other commit, and a power cut would else make this agent send all of it again.
func (s *session) keepAcks(ctx context.Context) error {
	s.mu.Lock()
	few := s.unkept() < max(1, (s.window-1)*s.u.cfg.BatchRecords/4)
	s.mu.Unlock()
	if few {
		return nil
	}
	for _, l := range s.lanes {
		k, ok := l.src.(keeper)
		if !ok || l.persisted == l.durable {
			continue
		}
		if err := k.Update(ctx, func(*buffer.Tx) error { return nil }); err != nil {
			return bufferFault("make an acknowledgement durable", err)
		}
		s.mu.Lock()
		l.durable = l.persisted
		s.mu.Unlock()
	}
	kick(s.wake)
	return nil
}

// unkept is how many records are acknowledged, but perhaps not durably. The mutex is held.
func (s *session) unkept() int {
	n := 0
	for _, l := range s.lanes {
		if _, ok := l.src.(keeper); ok {
			n += int(l.acked - l.durable)
		}
	}
	return n
}

// wouldRepeat is how many batches a power cut would make this agent send again: those in flight, and those whose
// acknowledgement is not durable. The mutex is held.
func (s *session) wouldRepeat() int {
	most := s.u.cfg.BatchRecords
	return s.inFlight() + (s.unkept()+most-1)/most
}

func (s *session) persistAcks() error {
	for _, l := range s.lanes {
		s.mu.Lock()
		acked := l.acked
		s.mu.Unlock()
		if acked == l.persisted {
			continue
		}
		if err := l.src.Ack(acked); err != nil {
			return bufferFault("take an acknowledgement", err)
		}
		l.persisted = acked
	}
	return nil
}

// await waits for records that a lane did not have.
func (s *session) await(ctx context.Context, l *lane) error {
	for {
		var after uint64
		select {
		case <-ctx.Done():
			return nil
		case after = <-l.ask:
		}
		err := l.src.Wait(ctx, after)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return bufferFault("be waited for", err)
		}
		s.mu.Lock()
		l.dry = false
		s.mu.Unlock()
		kick(s.wake)
	}
}

// send is the only goroutine that writes to the stream: acknowledgements first, then status, business, telemetry.
func (s *session) send(ctx context.Context) error {
	st := statusClock{every: s.u.cfg.StatusEvery, least: s.u.cfg.StatusGap, off: s.u.deps.Status == nil}
	for ctx.Err() == nil {
		select {
		case <-s.u.deps.StatusChanged:
			st.soon(time.Now())
		default:
		}
		up, err := s.next(&st)
		if err != nil {
			return err
		}
		if up != nil {
			if err := s.stream.Send(up); err == io.EOF {
				return nil // receive gets the reason
			} else if err != nil {
				return err
			}
			continue
		}
		s.idle(ctx, &st)
	}
	return nil
}

// idle waits until there may be something to send.
func (s *session) idle(ctx context.Context, st *statusClock) {
	due := time.NewTimer(st.wait(time.Now()))
	defer due.Stop()
	select {
	case <-ctx.Done():
	case <-s.wake:
	case <-due.C:
	case <-s.u.deps.StatusChanged:
		st.soon(time.Now())
	}
}

// next returns the most urgent message, nil when there is none.
func (s *session) next(st *statusClock) (*pb.Up, error) {
	s.mu.Lock()
	stored, acked, ahead := s.storedDown, s.ackedDown, s.ahead
	s.ackedDown, s.ahead = stored, nil
	s.mu.Unlock()
	if stored > acked || len(ahead) > 0 {
		return &pb.Up{Kind: &pb.Up_DownAck{DownAck: &pb.DownAck{Seq: stored, Ahead: ahead}}}, nil
	}
	if now := time.Now(); st.due(now) {
		if as := s.u.deps.Status(); as != nil {
			st.done(now, s.takes(proto.Size(as)))
			return &pb.Up{Kind: &pb.Up_Status{Status: as}}, nil
		}
		st.done(now, 0)
	}
	for i, l := range s.lanes {
		if up, err := s.nextBatch(l, i == 0); up != nil || err != nil {
			return up, err
		}
	}
	return nil, nil
}

// takes is how long the line is busy with so many bytes. One that was never full may be faster than it showed; it is
// thought to do 16 KiB/s at least.
func (s *session) takes(size int) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	rate, sure := s.pace.Rate()
	if !sure {
		rate = max(rate, 16<<10)
	}
	return time.Duration(float64(size) / rate * float64(time.Second))
}

// nextBatch reads the lane's next batch if the window and the line have room. Only business may use all of them: telemetry
// leaves half free, so that a fact never waits behind a line full of readings.
func (s *session) nextBatch(l *lane, first bool) (*pb.Up, error) {
	s.mu.Lock()
	room := s.wouldRepeat() < s.window && s.pace.Room()
	if !first && len(l.flight) > 0 {
		room = room && len(l.flight) < max(1, s.window/2) && l.under < s.pace.Budget()/2
	}
	dry, after, size := l.dry, l.sent, s.pace.Piece(s.u.cfg.BatchBytes)
	s.mu.Unlock()
	if !room || dry {
		return nil, nil
	}
	entries, err := l.src.Read(after, s.u.cfg.BatchRecords, size)
	if err != nil {
		return nil, bufferFault("be read", err)
	}
	if g := l.src.Generation(); g != l.generation {
		// Somebody renewed the generation below us (an operator's command): what was read belongs to the new one.
		return nil, errAgain
	}
	if len(entries) == 0 {
		s.mu.Lock()
		l.dry = true
		s.mu.Unlock()
		l.ask <- after // has room: it is asked once for each time it ran dry
		return nil, nil
	}
	if first && entries[0].Seq != after+1 && s.mustDrain(l) {
		return nil, s.gap(l)
	}
	return s.batch(l, consecutive(entries)), nil
}

// mustDrain reports that the lane sent something in this session. Business records after a gap (a damaged file took some
// along) may only open a session: within one the hub takes a gap for a fault of the line.
func (s *session) mustDrain(l *lane) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return l.began
}

// gap waits, by returning nil, until everything before a gap is acknowledged, and then asks for a new session.
func (s *session) gap(l *lane) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(l.flight) > 0 {
		return nil
	}
	s.u.log().Warn("records are missing in the buffer: the rest is sent in a new session", "stream", l.kind.String(), "after", l.sent)
	return errAgain
}

// consecutive returns the entries up to the first gap: a batch names only its first sequence.
func consecutive(entries []buffer.Entry) []buffer.Entry {
	for i := range entries {
		if entries[i].Seq != entries[0].Seq+uint64(i) {
			return entries[:i]
		}
	}
	return entries
}

func (s *session) batch(l *lane, entries []buffer.Entry) *pb.Up {
	records := make([][]byte, len(entries))
	size := 0
	for i := range entries {
		records[i] = entries[i].Body
		size += len(entries[i].Body)
	}
	last := entries[len(entries)-1].Seq
	s.mu.Lock()
	// Booked before it is sent: a line that takes nothing blocks the sending, and the watchdog must see it.
	idle := s.inFlight() == 0
	l.flight = append(l.flight, flight{last, size, s.pace.Send(time.Now(), size)})
	l.under += size
	l.sent, l.began = last, true
	if idle {
		s.watchdog.Reset(s.patience())
	}
	s.mu.Unlock()
	if sabotage.Rule(3) {
		l.src.Ack(last)
	}
	return &pb.Up{Kind: &pb.Up_Batch{Batch: &pb.Batch{Stream: l.kind, Generation: l.generation, FirstSeq: entries[0].Seq, Records: records}}}
}

// take puts a delivery in line for the inbox.
func (s *session) take(d *pb.Delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.overflowed {
		return
	}
	select {
	case s.deliveries <- d:
	default:
		// From here on nothing may be stored: an acknowledgement is cumulative and would cover this one.
		s.overflowed = true
		s.u.log().Warn("inbox does not keep up: deliveries are asked for again later", "held", deliveriesHeld)
	}
}

// store hands deliveries to the inbox, as many at once as have come, and tries again for as long as that fails.
func (s *session) store(ctx context.Context) error {
	for {
		var batch []*pb.Delivery
		select {
		case <-ctx.Done():
			return nil
		case d := <-s.deliveries:
			batch = append(batch, d)
		}
		for more := true; more && len(batch) < deliveriesHeld; {
			select {
			case d := <-s.deliveries:
				batch = append(batch, d)
			default:
				more = false
			}
		}
		if s.u.deps.Inbox == nil {
			continue
		}
		if !s.storeBatch(ctx, batch) {
			return nil
		}
		if s.drained() {
			return errAgain
		}
	}
}

func (s *session) storeBatch(ctx context.Context, batch []*pb.Delivery) bool {
	for wait := time.Second; ; wait = min(2*wait, 30*time.Second) {
		err := s.u.deps.Inbox.Store(s.epoch, batch)
		if err == nil {
			break
		}
		s.u.log().Error("store deliveries", "count", len(batch), "error", err)
		pause(ctx, wait)
		if ctx.Err() != nil {
			return false
		}
	}
	s.mu.Lock()
	for _, d := range batch {
		if d.GetAhead() {
			s.ahead = append(s.ahead, d.GetSeq())
		} else {
			s.storedDown = max(s.storedDown, d.GetSeq())
		}
	}
	s.mu.Unlock()
	kick(s.wake)
	return true
}

// drained reports that deliveries were let go and everything before them is stored: time to ask for them.
func (s *session) drained() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.overflowed && len(s.deliveries) == 0
}

// statusClock decides when the agent's status is sent: at once, then when it changed but not too often, else regularly.
type statusClock struct {
	every, least time.Duration
	gap          time.Duration // until the next one
	last, at     time.Time
	off          bool
}

func (c *statusClock) due(now time.Time) bool { return !c.off && !now.Before(c.at) }

// statusShare is the part of the line that statuses may take: one in so many.
const statusShare = 8

// done notes that a status was sent that keeps the line busy for so long.
func (c *statusClock) done(now time.Time, busy time.Duration) {
	c.last, c.gap = now, max(c.least, statusShare*busy)
	c.at = now.Add(max(c.every, c.gap))
}

func (c *statusClock) soon(now time.Time) {
	at := c.last.Add(c.gap)
	if at.Before(now) {
		at = now
	}
	if at.Before(c.at) {
		c.at = at
	}
}

func (c *statusClock) wait(now time.Time) time.Duration {
	if c.off {
		return time.Hour
	}
	return c.at.Sub(now)
}
