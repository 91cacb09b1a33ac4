package store

import (
	"context"
	"fmt"
	"strings"
)

// OrdersAfter returns up to limit work orders with numbers above seq that an agent has not stored, in their order, and up
// to which number it looked: the next call can begin there.
func (s *Store) OrdersAfter(ctx context.Context, agentID, seq int64, limit int) (list []Delivery, upTo int64, err error) {
	// Read first: what is delivered meanwhile is looked at by the next call.
	upTo, err = first(ctx, s, scanValue[int64], "SELECT delivery_last FROM agents WHERE id = $1", agentID)
	if err != nil || upTo <= seq {
		return nil, seq, err
	}
	list, err = collect(ctx, s, scanDelivery, deliveryColumns+` WHERE agent_id = $1 AND seq > $2 AND kind = 'work_order' AND stored_at = 0
		ORDER BY seq LIMIT $3`, agentID, seq, limit)
	if err != nil {
		return nil, seq, err
	}
	switch n := len(list); {
	case n == limit:
		upTo = list[n-1].Seq
	case n > 0:
		upTo = max(upTo, list[n-1].Seq) // one that came between the two reads is in the list already
	}
	return list, upTo, nil
}

// MarkOrdersSent records that work orders were put on the stream ahead of their turn.
func (s *Store) MarkOrdersSent(ctx context.Context, agentID int64, seqs []int64) error {
	return s.Update(ctx, func(tx *Tx) error { return tx.markSent(ordersOf(agentID, seqs)) })
}

// MarkOrdersStored records that work orders that were sent ahead of their turn are stored at the agent.
func (s *Store) MarkOrdersStored(ctx context.Context, agentID int64, seqs []int64) error {
	return s.Update(ctx, func(tx *Tx) error { return tx.markStored(ordersOf(agentID, seqs)) })
}

func ordersOf(agentID int64, seqs []int64) chosen {
	marks, args := make([]string, len(seqs)), []any{agentID}
	for i, seq := range seqs {
		marks[i] = fmt.Sprintf("$%d", i+2)
		args = append(args, seq)
	}
	return chosen{"agent_id = $1 AND seq IN (" + strings.Join(marks, ", ") + ") AND kind = 'work_order'", args}
}
