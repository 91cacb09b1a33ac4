package ingest_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
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
