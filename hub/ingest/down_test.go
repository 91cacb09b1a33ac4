package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
	"google.golang.org/grpc"
)

// receipts queues n receipts for the agent in one transaction.
func (h *hub) receipts(n int) {
	h.t.Helper()
	err := h.store.Update(context.Background(), func(tx *store.Tx) error {
		a, err := tx.AgentByName("ulm", "edge1")
		if err != nil {
			return err
		}
		for range n {
			key := factkey.Random()
			if err := tx.DeliverReceipt(a.ID, key.String(), &pb.Receipt{FactKey: key[:], Outcome: pb.Receipt_OUTCOME_POSTED, Document: "0000812/00000017"}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *hub) order(no string) {
	h.t.Helper()
	err := h.store.Update(context.Background(), func(tx *store.Tx) error {
		a, err := tx.AgentByName("ulm", "edge1")
		if err != nil {
			return err
		}
		o := object.WorkOrder{OrderNo: no, Revision: 1, ERP: "erp", Plant: "ulm", Item: "P", State: object.OrderReleased}
		if err := tx.PutOrder(store.Order{Order: o, Agent: "edge1", Sent: 1, Content: []byte("c")}, true); err != nil {
			return err
		}
		return tx.DeliverOrder(a.ID, o)
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *hub) steps(no string, want ...string) {
	h.t.Helper()
	realparts.Eventually(h.t, 10*time.Second, "timeline of the order", func() error {
		_, _, steps, err := h.store.OrderTimeline(context.Background(), "", no)
		if err != nil {
			return err
		}
		got := []string{}
		for _, s := range steps {
			got = append(got, s.Step)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("steps %v, want %v", got, want)
		}
		return nil
	})
}

// A backlog of receipts must not delay a work order, nor the word that it is stored; and it is marked once.
func TestWorkOrderGoesAheadOfABacklogOfReceipts(t *testing.T) {
	h := newHub(t)
	h.receipts(3000)
	m := hello("a")
	m.TakesAhead = true
	l, _ := h.connect(m)
	before := 0
	h.order("WO-1")
	var early *pb.Delivery
	for early == nil {
		d := l.recv().GetDelivery() // nothing is acknowledged: the backlog stands
		if d.GetAhead() {
			early = d
			continue
		}
		before++
	}
	if early.GetWorkOrder().GetOrderNo() != "WO-1" || early.GetSeq() != 3001 || before > 200 {
		t.Fatalf("after %d receipts came %v", before, early)
	}
	l.send(&pb.Up{Kind: &pb.Up_DownAck{DownAck: &pb.DownAck{Ahead: []int64{3001}}}})
	h.steps("WO-1", "sent", "stored")

	// The backlog drains in its order, and the order comes again in its turn.
	last := int64(before)
	l.send(&pb.Up{Kind: &pb.Up_DownAck{DownAck: &pb.DownAck{Seq: last}}})
	for last < 3001 {
		d := l.recv().GetDelivery()
		if d.GetAhead() || d.GetSeq() != last+1 {
			t.Fatalf("after %d came %v", last, d)
		}
		last = d.GetSeq()
		l.send(&pb.Up{Kind: &pb.Up_DownAck{DownAck: &pb.DownAck{Seq: last}}})
	}
	h.steps("WO-1", "sent", "stored")
	t.Logf("receipts=3000 before the order=%d missing=0 doubled=0", before)
}

func TestAgentThatTakesNothingAheadGetsEverythingInTurn(t *testing.T) {
	h := newHub(t)
	h.receipts(500)
	h.order("WO-1")
	l, _ := h.connect(hello("a"))
	for last := int64(0); last < 501; {
		d := l.recv().GetDelivery()
		if d.GetAhead() || d.GetSeq() != last+1 {
			t.Fatalf("after %d came %v", last, d)
		}
		last = d.GetSeq()
		l.send(&pb.Up{Kind: &pb.Up_DownAck{DownAck: &pb.DownAck{Seq: last}}})
	}
	h.steps("WO-1", "sent", "stored")
}

// after is a stream that calls a function with each message that is on its way.
type after struct {
	grpc.ServerStream
	sent func(*pb.Down) error
}

func (a after) SendMsg(m any) error {
	if err := a.ServerStream.SendMsg(m); err != nil {
		return err
	}
	return a.sent(m.(*pb.Down))
}

func (h *hub) afterSending(sent func(*pb.Down) error) {
	h.t.Helper()
	h.stop()
	h.options = []grpc.ServerOption{grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
		return handle(srv, after{ss, sent})
	})}
	h.start()
}

// The agent may have stored an order and said so before the hub has noted that it is under way.
func TestAnAcknowledgementThatOvertakesTheNoteOfSendingImpliesIt(t *testing.T) {
	for name, early := range map[string]bool{"in its turn": false, "ahead of its turn": true} {
		t.Run(name, func(t *testing.T) {
			h := newHub(t)
			seq := int64(1)
			if early {
				seq = 301
			}
			acknowledged := make(chan struct{})
			h.afterSending(func(m *pb.Down) error {
				if m.GetDelivery().GetSeq() == seq {
					<-acknowledged
				}
				return nil
			})
			release := sync.OnceFunc(func() { close(acknowledged) })
			t.Cleanup(release) // before the hub stops
			h.receipts(int(seq) - 1)
			h.order("WO-1")
			m := hello("a")
			m.TakesAhead = true
			l, _ := h.connect(m)
			d := l.recv().GetDelivery()
			for d.GetSeq() != seq {
				d = l.recv().GetDelivery()
			}
			if d.GetAhead() != early {
				t.Fatalf("the order came as %v", d)
			}
			ack := &pb.DownAck{Seq: seq}
			if early {
				ack = &pb.DownAck{Ahead: []int64{seq}}
			}
			l.send(&pb.Up{Kind: &pb.Up_DownAck{DownAck: ack}})
			h.steps("WO-1", "sent", "stored")

			release()
			h.order("WO-2") // goes down behind the note that was held
			for d := l.recv().GetDelivery(); d.GetSeq() != seq+1; {
				d = l.recv().GetDelivery()
			}
			h.steps("WO-1", "sent", "stored")
		})
	}
}

// The line breaks behind an order, before that is noted, and with it goes the agent's word that it is stored. The agent says where
// it stands when it comes back.
func TestAnOrderWhoseAcknowledgementWasLostIsMarkedWhenItsAgentComesBack(t *testing.T) {
	h := newHub(t)
	h.afterSending(func(m *pb.Down) error {
		if m.GetDelivery() != nil {
			return errors.New("the line breaks")
		}
		return nil
	})
	h.order("WO-1")
	l, ack := h.connect(hello("a"))
	if d := l.recv().GetDelivery(); d.GetSeq() != 1 {
		t.Fatalf("delivery %v", d)
	}
	if _, err := l.stream.Recv(); err == nil {
		t.Fatal("the stream goes on")
	}
	h.steps("WO-1")
	again := hello("a")
	again.DeliveryEpoch, again.DeliverySeq = ack.GetDeliveryEpoch(), 1
	h.connect(again)
	h.steps("WO-1", "sent", "stored")
	if a, err := h.store.Agent(context.Background(), "ulm", "edge1"); err != nil || a.DeliveryStored != 1 {
		t.Errorf("%d deliveries are stored, %v", a.DeliveryStored, err)
	}
}

// A hub that was put back to its backup gives numbers out again, for other orders, before an agent comes that has stored the first
// ones. That it is not ahead of the hub any more must not hide it.
func TestAPutBackHubBelievesNoPositionThatItNeverGaveOut(t *testing.T) {
	h := newHub(t)
	h.order("WO-1")
	l, ack := h.connect(hello("a"))
	take := func(want ...string) {
		t.Helper()
		for _, no := range want {
			d := l.recv().GetDelivery()
			if d.GetWorkOrder().GetOrderNo() != no {
				t.Fatalf("delivery %v, want order %s", d, no)
			}
			l.send(&pb.Up{Kind: &pb.Up_DownAck{DownAck: &pb.DownAck{Seq: d.GetSeq()}}})
		}
	}
	take("WO-1")
	h.steps("WO-1", "sent", "stored")
	l.close()
	h.stop()
	backup, err := os.ReadFile(h.path)
	if err != nil {
		t.Fatal(err)
	}
	h.start()
	at := func(seq int64) *pb.Hello {
		m := hello("a")
		m.DeliveryEpoch, m.DeliverySeq = ack.GetDeliveryEpoch(), seq
		return m
	}
	l, _ = h.connect(at(1))
	h.order("WO-2")
	h.order("WO-3")
	take("WO-2", "WO-3")
	h.steps("WO-3", "sent", "stored")
	l.close()
	h.stop()
	for _, ending := range []string{"-wal", "-shm"} {
		if err := os.Remove(h.path + ending); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(h.path, backup, 0o600); err != nil {
		t.Fatal(err)
	}
	h.start()
	for _, no := range []string{"WO-4", "WO-5", "WO-6"} {
		h.order(no)
	}
	before := ack.GetDeliveryEpoch()
	l, ack = h.connect(at(3))
	if ack.GetDeliveryEpoch() == before {
		t.Error("the hub goes on in the epoch whose numbers it has given out twice")
	}
	take("WO-1", "WO-4", "WO-5", "WO-6")
	h.steps("WO-4", "sent", "stored")
	h.steps("WO-1", "sent", "stored")
	l.close()
	l, _ = h.connect(at(4)) // what it got of this hub is believed
	h.order("WO-7")
	take("WO-7")
}
