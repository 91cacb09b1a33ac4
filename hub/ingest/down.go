package ingest

import (
	"fmt"
	"slices"
	"time"

	"github.com/linekeeper/linekeeper/hub/store"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
	"github.com/linekeeper/linekeeper/proto/pace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const (
	deliveriesUnder = 200 // sent down in their turn and not yet acknowledged
	ordersEarly     = 50  // work orders sent ahead of their turn and not yet acknowledged
)

// downPace keeps what waits on the way to an agent near half a second of its line, so that acknowledgements and work orders do not
// wait behind a backlog of receipts.
var downPace = pace.Config{Least: 8 << 10, First: 8 << 10, Most: 1 << 20, Queue: time.Second / 2}

// sentDown is a delivery that is under way.
type sentDown struct {
	seq    int64
	parcel pace.Parcel
}

// sendDeliveries sends what there is room for, in its turn. If something has to wait, work orders that stand behind it go
// ahead. Acknowledgements make room and wake the caller.
func (ss *session) sendDeliveries() error {
	waits, err := ss.sendInTurn()
	if err != nil || !waits || !ss.takesAhead {
		return err
	}
	return ss.sendEarly()
}

func (ss *session) sendInTurn() (waits bool, err error) {
	read := ss.server.o.Store.DeliveriesAfter
	if !ss.all {
		read = ss.server.o.Store.NeededAfter
	}
	room := ss.downRoom()
	if room <= 0 {
		return true, nil
	}
	list, err := read(ss.ctx, ss.agentID, ss.sent, room)
	if err != nil {
		return false, ss.readable(err)
	}
	orders := false
	for i, d := range list {
		if i > 0 && ss.downRoom() <= 0 {
			list = list[:i]
			waits = true
			break
		}
		if err := ss.put(d, false); err != nil {
			return false, err
		}
		ss.sent = d.Seq
		orders = orders || d.Kind == store.DeliverWorkOrder
	}
	if orders {
		if err := ss.server.o.Store.MarkSent(ss.ctx, ss.agentID, ss.sent); err != nil {
			return waits, ss.readable(err)
		}
	}
	return waits || len(list) == room, nil
}

// downRoom returns how many deliveries may be sent in their turn, 0 when the line to the agent is full.
func (ss *session) downRoom() int {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if !ss.pace.Room() {
		return 0
	}
	return deliveriesUnder - len(ss.under)
}

// sendEarly sends work orders ahead of their turn. They come again in it: the agent's position must pass them, too.
func (ss *session) sendEarly() error {
	ss.mu.Lock()
	room := ordersEarly - len(ss.early)
	ss.mu.Unlock()
	if room <= 0 {
		return nil
	}
	list, upTo, err := ss.server.o.Store.OrdersAfter(ss.ctx, ss.agentID, max(ss.sent, ss.looked), room)
	if err != nil {
		return ss.readable(err)
	}
	ss.looked = upTo
	var seqs []int64
	for _, d := range list {
		if err := ss.put(d, true); err != nil {
			return err
		}
		seqs = append(seqs, d.Seq)
	}
	if len(seqs) == 0 {
		return nil
	}
	return ss.readable(ss.server.o.Store.MarkOrdersSent(ss.ctx, ss.agentID, seqs))
}

// put puts a delivery on the stream.
func (ss *session) put(d store.Delivery, early bool) error {
	m, err := delivery(d)
	if err != nil {
		return status.Error(codes.DataLoss, err.Error())
	}
	m.Ahead = early
	if !early {
		ss.server.hand(ss.agentID, d.Seq)
	}
	ss.mu.Lock()
	sent := sentDown{d.Seq, ss.pace.Send(time.Now(), len(d.Body))}
	if early {
		ss.early = append(ss.early, sent)
	} else {
		ss.under = append(ss.under, sent)
	}
	ss.mu.Unlock()
	return ss.stream.Send(&pb.Down{Kind: &pb.Down_Delivery{Delivery: m}})
}

// readable logs a store that cannot be read: the stream stays, the next poll tries again.
func (ss *session) readable(err error) error {
	if err != nil && ss.ctx.Err() == nil {
		ss.server.o.Logger.Error("cannot read deliveries", "agent", ss.name, "error", err)
	}
	return nil
}

func delivery(d store.Delivery) (*pb.Delivery, error) {
	m := &pb.Delivery{Seq: d.Seq}
	var err error
	switch d.Kind {
	case store.DeliverWorkOrder:
		o := &pb.WorkOrder{}
		err = proto.Unmarshal(d.Body, o)
		m.Kind = &pb.Delivery_WorkOrder{WorkOrder: o}
	case store.DeliverReceipt:
		r := &pb.Receipt{}
		err = proto.Unmarshal(d.Body, r)
		m.Kind = &pb.Delivery_Receipt{Receipt: r}
	default:
		err = fmt.Errorf("kind %q is not known", d.Kind)
	}
	if err != nil {
		return nil, fmt.Errorf("read delivery %d of %q: %w", d.Seq, d.Ref, err)
	}
	return m, nil
}

// delivered takes the agent's word that it has stored something.
func (ss *session) delivered(a *pb.DownAck) {
	now := time.Now()
	ss.mu.Lock()
	ss.downAck = max(ss.downAck, a.GetSeq())
	ss.under = slices.DeleteFunc(ss.under, func(s sentDown) bool {
		if s.seq > a.GetSeq() {
			return false
		}
		ss.pace.Arrived(now, s.parcel)
		return true
	})
	ss.early = slices.DeleteFunc(ss.early, func(s sentDown) bool {
		if !slices.Contains(a.GetAhead(), s.seq) {
			return false
		}
		ss.pace.Arrived(now, s.parcel)
		ss.earlyAcks = append(ss.earlyAcks, s.seq)
		return true
	})
	ss.mu.Unlock()
	ss.fileSoon()
	ss.sendSoon(true) // there may be room for others
}
