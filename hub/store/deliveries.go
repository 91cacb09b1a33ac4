package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/wire"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
	"google.golang.org/protobuf/proto"
)

// The kinds of deliveries.
const (
	DeliverWorkOrder = "work_order"
	DeliverReceipt   = "receipt"
)

// Delivery is one thing that must be stored at an agent.
type Delivery struct {
	AgentID   int64
	Seq       int64
	Kind      string
	Ref       string // order number, or the fact's 16-character key
	Revision  int64
	Body      []byte // an encoded pb.WorkOrder or pb.Receipt
	CreatedAt time.Time
	SentAt    time.Time
	StoredAt  time.Time
}

// DeliverOrder queues a revision of a work order for an agent.
func (tx *Tx) DeliverOrder(agentID int64, o object.WorkOrder) error {
	body, err := proto.Marshal(wire.WorkOrderToProto(o))
	if err != nil {
		return fmt.Errorf("encode work order %q: %w", o.OrderNo, err)
	}
	return tx.deliver(Delivery{AgentID: agentID, Kind: DeliverWorkOrder, Ref: o.OrderNo, Revision: o.Revision, Body: body})
}

// DeliverReceipt queues a receipt for an agent; key is the fact's 16-character key.
func (tx *Tx) DeliverReceipt(agentID int64, key string, m *pb.Receipt) error {
	d, err := receiptTo(agentID, key, m)
	if err != nil {
		return err
	}
	return tx.deliver(d)
}

func receiptTo(agentID int64, key string, m *pb.Receipt) (Delivery, error) {
	body, err := proto.Marshal(m)
	if err != nil {
		return Delivery{}, fmt.Errorf("encode receipt of %q: %w", key, err)
	}
	return Delivery{AgentID: agentID, Kind: DeliverReceipt, Ref: key, Body: body}, nil
}

// deliver numbers deliveries, of each agent in their order, and stores them.
func (tx *Tx) deliver(all ...Delivery) error {
	count := map[int64]int64{}
	for i := range all {
		count[all[i].AgentID]++
	}
	next := make(map[int64]int64, len(count))
	for id, n := range count {
		last, err := first(tx.ctx, tx, scanValue[int64], "UPDATE agents SET delivery_last = delivery_last + $1 WHERE id = $2 RETURNING delivery_last", n, id)
		if err != nil {
			return fmt.Errorf("number deliveries to agent %d: %w", id, err)
		}
		next[id] = last - n + 1
		tx.touch(TopicDeliveries)
		tx.touch(DeliveriesTo(id))
	}
	rows := make([][]any, len(all))
	for i, d := range all {
		rows[i] = []any{d.AgentID, next[d.AgentID], d.Kind, d.Ref, d.Revision, d.Body, us(tx.now)}
		next[d.AgentID]++
	}
	return tx.insertRows("deliveries (agent_id, seq, kind, ref, revision, body, created_at)", rows)
}

const deliveryColumns = "SELECT agent_id, seq, kind, ref, revision, body, created_at, sent_at, stored_at FROM deliveries"

func scanDelivery(r *sql.Rows) (d Delivery, err error) {
	var created, sent, stored int64
	err = r.Scan(&d.AgentID, &d.Seq, &d.Kind, &d.Ref, &d.Revision, &d.Body, &created, &sent, &stored)
	d.CreatedAt, d.SentAt, d.StoredAt = at(created), at(sent), at(stored)
	return d, err
}

// DeliveriesAfter returns up to limit deliveries to an agent with numbers above seq, in their order.
func (s *Store) DeliveriesAfter(ctx context.Context, agentID, seq int64, limit int) ([]Delivery, error) {
	return collect(ctx, s, scanDelivery, deliveryColumns+" WHERE agent_id = $1 AND seq > $2 ORDER BY seq LIMIT $3", agentID, seq, limit)
}

// NeededAfter is DeliveriesAfter for an agent that lost its inbox: it leaves out the receipts that were stored once.
func (s *Store) NeededAfter(ctx context.Context, agentID, seq int64, limit int) ([]Delivery, error) {
	return collect(ctx, s, scanDelivery, deliveryColumns+` WHERE agent_id = $1 AND seq > $2 AND (kind <> 'receipt' OR stored_at = 0)
		ORDER BY seq LIMIT $3`, agentID, seq, limit)
}

// MarkSent records that deliveries up to seq were put on the stream, and notes it on the timelines of their orders.
func (s *Store) MarkSent(ctx context.Context, agentID, seq int64) error {
	return s.Update(ctx, func(tx *Tx) error {
		c, err := tx.unmarked(agentID, seq)
		if err != nil {
			return err
		}
		return tx.markSent(c)
	})
}

// MarkStored records that deliveries up to seq are stored at the agent, and notes it on the timelines of their orders.
func (s *Store) MarkStored(ctx context.Context, agentID, seq int64) error {
	return s.Update(ctx, func(tx *Tx) error { return tx.MarkStored(agentID, seq) })
}

// MarkStored is Store.MarkStored inside a transaction.
func (tx *Tx) MarkStored(agentID, seq int64) error {
	c, err := tx.unmarked(agentID, seq)
	if err != nil {
		return err
	}
	if err := tx.markStored(c); err != nil {
		return err
	}
	_, err = tx.exec(`UPDATE agents SET delivery_stored = $1, seen_at = $2
		WHERE id = $3 AND delivery_stored < $1 AND delivery_last >= $1`, seq, us(tx.now), agentID)
	return err
}

// chosen are the deliveries that meet a condition.
type chosen struct {
	condition string
	args      []any
}

// unmarked chooses an agent's deliveries up to seq that may not be marked yet. The numbers are given out in order and marked
// cumulatively, so that only the unmarked end has to be looked at.
func (tx *Tx) unmarked(agentID, seq int64) (chosen, error) {
	from, err := first(tx.ctx, tx, scanValue[int64], "SELECT delivery_stored FROM agents WHERE id = $1", agentID)
	return chosen{"agent_id = $1 AND seq > $2 AND seq <= $3", []any{agentID, from, seq}}, err
}

// markSent notes what was put on the stream. Of what is stored that is known.
func (tx *Tx) markSent(c chosen) error {
	c.condition += " AND sent_at = 0 AND stored_at = 0"
	orders, err := tx.ordersAmong(c)
	if err != nil {
		return err
	}
	for _, o := range orders {
		if err := tx.noteDelivery("sent", o, tx.now); err != nil {
			return err
		}
	}
	return tx.setDeliveries("sent_at = $%[1]d", c)
}

// markStored notes what is stored at the agent. That was sent, whether or not it was noted: the acknowledgement can overtake the
// note, and a crash can prevent it. So both are noted together, and a clock that was set back does not turn them around.
func (tx *Tx) markStored(c chosen) error {
	tx.touch(TopicDeliveries)
	c.condition += " AND stored_at = 0"
	orders, err := tx.ordersAmong(c)
	if err != nil {
		return err
	}
	for _, o := range orders {
		when := tx.now
		if o.SentAt.IsZero() {
			err = tx.noteDelivery("sent", o, when)
		} else if o.SentAt.After(when) {
			when = o.SentAt
		}
		if err == nil {
			err = tx.noteDelivery("stored", o, when)
		}
		if err != nil {
			return err
		}
	}
	return tx.setDeliveries(`stored_at = CASE WHEN sent_at > $%[1]d THEN sent_at ELSE $%[1]d END,
		sent_at = CASE WHEN sent_at = 0 AND kind = 'work_order' THEN $%[1]d ELSE sent_at END`, c)
}

func (tx *Tx) ordersAmong(c chosen) ([]Delivery, error) {
	return collect(tx.ctx, tx, scanDelivery, deliveryColumns+" WHERE "+c.condition+" AND kind = 'work_order' ORDER BY seq", c.args...)
}

func (tx *Tx) noteDelivery(step string, d Delivery, when time.Time) error {
	return tx.AddOrderStep(OrderStep{OrderNo: d.Ref, Step: step, Revision: d.Revision, At: when, Origin: "hub"})
}

// setDeliveries sets columns of deliveries; %[1]d in set is the number of the argument that is the transaction's time.
func (tx *Tx) setDeliveries(set string, c chosen) error {
	_, err := tx.exec("UPDATE deliveries SET "+fmt.Sprintf(set, len(c.args)+1)+" WHERE "+c.condition, append(c.args, us(tx.now))...)
	return err
}

// lookAtNumbers notes how far deliveries are numbered, before this store numbers any.
func (tx *Tx) lookAtNumbers() error {
	all, err := collect(tx.ctx, tx, scanAgent, agentColumns)
	tx.s.numbered = make(map[int64]int64, len(all))
	for _, a := range all {
		tx.s.numbered[a.ID] = a.DeliveryLast
	}
	return err
}

// NumberedBefore returns up to which number there were deliveries to an agent when the store was opened. An agent that has one
// above, and did not get it since, got it of a hub whose database was newer.
func (s *Store) NumberedBefore(agentID int64) int64 { return s.numbered[agentID] }

// NewDeliveryEpoch gives the agent a new epoch: it will be sent everything that it needs from the first number on.
func (tx *Tx) NewDeliveryEpoch(agentID int64) (string, error) {
	epoch := randomText()
	_, err := tx.exec("UPDATE agents SET delivery_epoch = $1, delivery_stored = 0 WHERE id = $2", epoch, agentID)
	return epoch, err
}
