package ingest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/wire"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
	"github.com/linekeeper/linekeeper/proto/pace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// session is one stream of an agent that was admitted. The stream's own goroutine receives, checks and hands on. Two more are
// there only while they have work: send, and file, which writes what is no fact. An agent is silent most of the time, and a
// hub has hundreds of them.
type session struct {
	server   *Server
	stream   grpc.BidiStreamingServer[pb.Up, pb.Down]
	ctx      context.Context
	cancel   context.CancelCauseFunc
	done     chan struct{} // closed when the session has left the registry
	name     string        // "plant/agent"
	plant    string
	instance string
	agentID  int64

	next    map[string]uint64 // receive: the next business sequence of each generation
	started map[string]bool   // receive: generations that this stream has sent of
	room    chan struct{}     // a token for each batch that is not yet answered

	fileWake  chan struct{} // file: there is news to write
	telemetry chan *pb.Batch
	sent      int64 // send: last delivery put on the stream in its turn
	looked    int64 // send: up to where work orders that may go ahead were looked for
	all       bool  // send: receipts that were stored once are needed, too

	takesAhead bool // the agent takes work orders ahead of their turn

	work sync.WaitGroup // the goroutines that send and file

	turn int64 // of pollLoop

	mu        sync.Mutex
	greeted   bool       // the hello was answered: others may send
	sends     bool       // the one that sends runs
	files     bool       // the one that files runs
	ends      bool       // and neither is started any more
	due       bool       // there may be something to send
	look      bool       // deliveries among it
	pace      *pace.Pace // of what goes down
	under     []sentDown // sent in their turn and not acknowledged
	early     []sentDown // sent ahead of their turn and not acknowledged
	earlyAcks []int64    // of those that were, to be filed
	lastHeard time.Time
	contested string
	acks      []*pb.BatchAck
	refusal   *pb.Refusal
	broken    bool // a batch could not be stored: nothing after it may be acknowledged
	status    *pb.AgentStatus
	downAck   int64
}

func newSession(s *Server, stream grpc.BidiStreamingServer[pb.Up, pb.Down], h *pb.Hello) *session {
	ctx, cancel := context.WithCancelCause(stream.Context())
	return &session{
		server: s, stream: stream, ctx: ctx, cancel: cancel, done: make(chan struct{}),
		name: h.GetPlant() + "/" + h.GetAgent(), plant: h.GetPlant(), instance: h.GetInstance(),
		next: map[string]uint64{}, started: map[string]bool{}, room: make(chan struct{}, 2*s.o.Window),
		fileWake: make(chan struct{}, 1), telemetry: make(chan *pb.Batch, 4), lastHeard: s.o.Now(),
		pace: pace.New(downPace), takesAhead: h.GetTakesAhead(), turn: s.sessions.Add(1) % pollTurns,
	}
}

func (ss *session) heard() time.Time {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return ss.lastHeard
}

// contest remembers that another instance wanted the identity. When this one is heard again, both live.
func (ss *session) contest(instance string) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.contested = instance
}

func kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// finisher is what gRPC's server streams can do beside what grpc.ServerTransportStream names: end a stream with a status, from
// any goroutine, which also interrupts a Recv.
type finisher interface {
	WriteStatus(*status.Status) error
}

// serve runs the session until the stream ends, and returns when its other goroutines have ended.
func (ss *session) serve() error {
	unwatch := ss.server.o.Store.WatchFunc(func() { ss.sendSoon(true) }, store.DeliveriesTo(ss.agentID))
	defer unwatch()
	stream, _ := grpc.ServerTransportStreamFromContext(ss.stream.Context()).(finisher)
	ended := make(chan error, 1)
	context.AfterFunc(ss.ctx, func() { ended <- ss.end(stream) })
	ss.mu.Lock()
	ss.greeted = true
	ss.mu.Unlock()
	ss.sendSoon(true)
	if stream != nil {
		ss.cancel(ss.receive())
		return <-ended
	}
	// A gRPC that cannot interrupt a Recv: it ends when this handler has returned.
	if !ss.server.enter() {
		ss.cancel(errStopped)
		return <-ended
	}
	go func() {
		defer ss.server.wg.Done()
		ss.cancel(ss.receive())
	}()
	return <-ended
}

// end says what is still to be said, ends the stream and returns how it ended.
func (ss *session) end(stream finisher) error {
	how := func() error {
		switch cause := context.Cause(ss.ctx); cause {
		case errReplaced: // the line may be dead: nothing more can be said on it
			return status.Error(codes.Aborted, errReplaced.Error())
		case errStopped:
			return status.Error(codes.Unavailable, errStopped.Error())
		default:
			ss.rest()
			return ss.lastWords(cause)
		}
	}()
	if stream != nil {
		st := status.New(codes.OK, "")
		if how != nil {
			st = status.Convert(how)
		}
		if err := stream.WriteStatus(st); err != nil {
			ss.server.o.Logger.Debug("end a stream", "agent", ss.name, "error", err)
		}
	}
	ss.rest()
	return how
}

// lastWords sends what is left to say after the end of the session and returns the stream's status.
func (ss *session) lastWords(cause error) error {
	if err := ss.sendAcks(); err != nil {
		return err
	}
	ss.mu.Lock()
	r := ss.refusal
	ss.mu.Unlock()
	if r != nil {
		return ss.stream.Send(&pb.Down{Kind: &pb.Down_Refusal{Refusal: r}})
	}
	if failed, ok := errors.AsType[sendError](cause); ok {
		return failed.error
	}
	return nil
}

// sendError is why something could not be sent; the stream ends with it.
type sendError struct{ error }

// sendSoon lets what is new be sent, deliveries too when look is true. It never blocks.
func (ss *session) sendSoon(look bool) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.due, ss.look = true, ss.look || look
	if ss.greeted && !ss.sends && !ss.ends {
		ss.sends = true
		ss.work.Go(ss.send)
	}
}

// send sends acknowledgements and deliveries until there is nothing more to send.
func (ss *session) send() {
	for {
		ss.mu.Lock()
		if !ss.due || ss.ctx.Err() != nil {
			ss.sends = false
			ss.mu.Unlock()
			return
		}
		look := ss.look
		ss.due, ss.look = false, false
		ss.mu.Unlock()
		err := ss.sendAcks()
		if err == nil && look {
			err = ss.sendDeliveries()
		}
		if err != nil {
			ss.cancel(sendError{err})
		}
	}
}

// refuse ends the session with a refusal; the first one counts.
func (ss *session) refuse(r *pb.Refusal) {
	ss.mu.Lock()
	if ss.refusal == nil {
		ss.refusal = r
	}
	ss.mu.Unlock()
	ss.cancel(fmt.Errorf("refused: %s", r.GetReason()))
}

func (ss *session) sendAcks() error {
	ss.mu.Lock()
	acks := ss.acks
	ss.acks = nil
	ss.mu.Unlock()
	for _, a := range acks {
		if err := ss.stream.Send(&pb.Down{Kind: &pb.Down_BatchAck{BatchAck: a}}); err != nil {
			return err
		}
	}
	return nil
}

// receive takes what comes up until the stream ends.
func (ss *session) receive() error {
	for {
		up, err := ss.stream.Recv()
		if err != nil {
			return err
		}
		if err := ss.hear(); err != nil {
			return err
		}
		switch k := up.GetKind().(type) {
		case *pb.Up_Batch:
			err = ss.take(k.Batch)
		case *pb.Up_Status:
			ss.mu.Lock()
			ss.status = k.Status
			ss.mu.Unlock()
			ss.fileSoon()
		case *pb.Up_DownAck:
			ss.delivered(k.DownAck)
		case *pb.Up_Hello:
			err = status.Error(codes.InvalidArgument, "a second hello on one stream")
		}
		if err != nil {
			return err
		}
	}
}

// hear notes that the agent lives; if another instance asked for its identity meanwhile, there are two.
func (ss *session) hear() error {
	ss.mu.Lock()
	ss.lastHeard = ss.server.o.Now()
	other := ss.contested
	ss.contested = ""
	ss.mu.Unlock()
	if other == "" {
		return nil
	}
	return ss.server.o.Store.Update(ss.ctx, func(tx *store.Tx) error {
		return tx.RaiseAlarm(ss.name, "identity_in_use",
			fmt.Sprintf("two live processes use this identity: %q is connected, %q was refused", ss.instance, other),
			"A plant computer or its disk was copied: stop one of the two, or give it a name and a certificate of its own.")
	})
}

func (ss *session) take(b *pb.Batch) error {
	if len(b.GetRecords()) == 0 {
		return nil
	}
	if b.GetStream() != pb.Stream_STREAM_BUSINESS {
		select {
		case ss.telemetry <- b:
			ss.startFiling()
			return nil
		case <-ss.ctx.Done():
			return ss.ctx.Err()
		}
	}
	if err := ss.inSequence(b); err != nil {
		return err
	}
	j := &job{session: ss, batch: store.Batch{AgentID: ss.agentID, Agent: ss.name, Generation: b.GetGeneration(), FirstSeq: b.GetFirstSeq()}}
	j.batch.Records = make([]store.Record, len(b.GetRecords()))
	for i, body := range b.GetRecords() {
		j.batch.Records[i] = ss.check(body)
	}
	return ss.submit(j)
}

func (ss *session) submit(j *job) error {
	select {
	case ss.room <- struct{}{}:
	case <-ss.ctx.Done():
		return ss.ctx.Err()
	}
	select {
	case ss.server.jobs <- j:
		return nil
	case <-ss.ctx.Done():
		return ss.ctx.Err()
	}
}

// check reads a record's form. A fact must be of the plant that its agent is of.
func (ss *session) check(body []byte) store.Record {
	f, err := wire.DecodeFact(body)
	if err != nil {
		return store.Record{Body: body, Fault: err.Error()}
	}
	if f.Plant != ss.plant {
		return store.Record{Body: body, Fault: fmt.Sprintf("fact %q names plant %q, its agent is %q", f.Key, f.Plant, ss.name)}
	}
	return store.Record{Key: f.Key, Body: body, Fact: &f}
}

// inSequence refuses a batch that does not follow the one before. A stream that begins behind a gap is believed: the agent
// sends from what was acknowledged on, so what is missing is gone there, and refusing it for ever would lose the rest.
func (ss *session) inSequence(b *pb.Batch) error {
	next, known := ss.next[b.GetGeneration()]
	begun := ss.started[b.GetGeneration()]
	ss.started[b.GetGeneration()] = true
	ss.next[b.GetGeneration()] = max(next, b.GetFirstSeq()+uint64(len(b.GetRecords())))
	if !known || b.GetFirstSeq() <= next {
		return nil
	}
	if begun {
		err := fmt.Errorf("batch begins at record %d, expected %d", b.GetFirstSeq(), next)
		ss.refuse(refuse(pb.Refusal_CODE_OUT_OF_SEQUENCE, err.Error(), "it is sent again by itself"))
		return err
	}
	return ss.server.o.Store.Update(ss.ctx, func(tx *store.Tx) error {
		return ss.lost(tx, b.GetGeneration(), next, b.GetFirstSeq()-1, "records_lost",
			fmt.Sprintf("records %d to %d of generation %q never came: the agent has them no more", next, b.GetFirstSeq()-1, b.GetGeneration()),
			"Look at the agent's page for a damaged segment; compare the tally with the source and book the difference.")
	})
}

func (ss *session) isBroken() bool {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return ss.broken
}

// fail is called by the committer when a batch could not be stored: it ends the stream without an acknowledgement.
func (ss *session) fail(err error) {
	ss.mu.Lock()
	ss.broken = true
	ss.mu.Unlock()
	ss.refuse(storeRefusal(err))
}

// answer is called by the committer when a batch is stored.
func (ss *session) answer(b store.Batch, verdicts []store.Verdict) {
	<-ss.room
	ack := &pb.BatchAck{Stream: pb.Stream_STREAM_BUSINESS, Generation: b.Generation, Seq: b.FirstSeq + uint64(len(b.Records)) - 1}
	for _, v := range verdicts {
		ack.Verdicts = append(ack.Verdicts, &pb.Verdict{Seq: v.Seq, Kind: pb.Verdict_Kind(v.Kind), Reason: v.Reason})
	}
	ss.acknowledge(ack)
}

func (ss *session) acknowledge(ack *pb.BatchAck) {
	ss.mu.Lock()
	ss.acks = append(ss.acks, ack)
	ss.mu.Unlock()
	ss.sendSoon(false)
}

// fileSoon lets what is news be written.
func (ss *session) fileSoon() {
	kick(ss.fileWake)
	ss.startFiling()
}

// startFiling starts the goroutine that files unless it runs: most agents say something twice a minute, and a goroutine that
// waits holds the stack of its last transaction.
func (ss *session) startFiling() {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if !ss.files && !ss.ends {
		ss.files = true
		ss.work.Go(ss.file)
	}
}

// rest waits until nothing is sent or filed any more, and lets nothing new begin.
func (ss *session) rest() {
	ss.mu.Lock()
	ss.ends = true
	ss.mu.Unlock()
	ss.work.Wait()
}

// file writes what is no fact (telemetry, the agent's status, what it has stored) until nothing of it is left.
func (ss *session) file() {
	for {
		var err error
		select {
		case b := <-ss.telemetry:
			err = ss.fileReadings(b)
		case <-ss.fileWake:
			err = ss.fileNews()
		default:
			if ss.nothingToFile() {
				return
			}
		}
		if err != nil && ss.ctx.Err() == nil {
			ss.server.o.Logger.Error("cannot store what an agent said", "agent", ss.name, "error", err)
			ss.refuse(storeRefusal(err))
		}
		if ss.ctx.Err() != nil {
			return
		}
	}
}

// nothingToFile ends the filing when nothing came meanwhile: who brings something looks afterwards whether somebody files.
func (ss *session) nothingToFile() bool {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.files = len(ss.telemetry) > 0 || len(ss.fileWake) > 0
	return !ss.files
}

func (ss *session) fileNews() error {
	ss.mu.Lock()
	st, seq, early := ss.status, ss.downAck, ss.earlyAcks
	ss.status, ss.earlyAcks = nil, nil
	ss.mu.Unlock()
	if st != nil {
		if err := ss.server.o.Store.SetStatus(ss.ctx, ss.agentID, st); err != nil {
			return err
		}
	}
	if len(early) > 0 {
		if err := ss.server.o.Store.MarkOrdersStored(ss.ctx, ss.agentID, early); err != nil {
			return err
		}
	}
	if seq == 0 {
		return nil
	}
	if err := ss.server.o.Store.MarkStored(ss.ctx, ss.agentID, seq); err != nil {
		return err
	}
	ss.mu.Lock()
	if ss.downAck == seq {
		ss.downAck = 0
	}
	ss.mu.Unlock()
	return nil
}

func (ss *session) fileReadings(b *pb.Batch) error {
	last := b.GetFirstSeq() + uint64(len(b.GetRecords())) - 1
	ack := &pb.BatchAck{Stream: b.GetStream(), Generation: b.GetGeneration(), Seq: last}
	latest := map[[2]string]int{}
	var readings []store.Reading
	for i, body := range b.GetRecords() {
		var m pb.Reading
		if err := proto.Unmarshal(body, &m); err != nil {
			ack.Verdicts = append(ack.Verdicts, &pb.Verdict{Seq: b.GetFirstSeq() + uint64(i), Kind: pb.Verdict_KIND_UNREADABLE, Reason: err.Error()})
			continue
		}
		r := store.Reading{
			Source: m.GetSource(), Tag: m.GetTag(), Value: m.GetValue(), Quality: m.GetQuality(), Equipment: m.GetEquipment(), At: m.GetAt().AsTime(),
		}
		if at, ok := latest[[2]string{r.Source, r.Tag}]; ok { // only the last of each tag is kept
			readings[at] = r
			continue
		}
		latest[[2]string{r.Source, r.Tag}] = len(readings)
		readings = append(readings, r)
	}
	if err := ss.server.o.Store.AppendReadings(ss.ctx, ss.agentID, b.GetGeneration(), last, readings); err != nil {
		return err
	}
	ss.acknowledge(ack)
	return nil
}
