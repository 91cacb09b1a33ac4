package sandbox

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
)

// cursor is where the reading of changes stands. The ERP stamps changes with whole seconds before it commits them, so a
// change can appear behind a newer one: each sweep starts Overlap before the newest change, and Seen keeps what the overlap
// has shown already from being reported again.
type cursor struct {
	// From and After are where the next page begins: behind order After of second From, or with second From itself.
	From  int64  `json:"from"`
	After string `json:"after,omitempty"`
	// High is the newest change time seen.
	High int64 `json:"high"`
	// Seen holds version and change time of each order in the overlap.
	Seen map[string][2]int64 `json:"seen,omitempty"`
}

// maxSeen bounds the cursor. Beyond it orders are reported again, which does no harm.
const maxSeen = 2000

// ListChanged reads one page of changed orders.
func (c *Connector) ListChanged(ctx context.Context, text string) (connector.Changes, error) {
	cur := cursor{}
	if text != "" {
		if err := json.Unmarshal([]byte(text), &cur); err != nil {
			return connector.Changes{}, fmt.Errorf("list changed orders: cursor %q was not made by this connector: clear it to read all orders again: %w", text, err)
		}
	}
	if cur.Seen == nil {
		cur.Seen = map[string][2]int64{}
	}
	orders, err := c.client.changed(ctx, time.Unix(cur.From, 0), cur.After, c.cfg.Sites, c.cfg.PageSize)
	if err != nil {
		return connector.Changes{}, fmt.Errorf("list changed orders: %w", err)
	}
	changes := connector.Changes{More: len(orders) == c.cfg.PageSize}
	for _, o := range orders {
		at := o.ChangedAt.Unix()
		cur.From, cur.After, cur.High = at, o.No, max(cur.High, at)
		if seen, ok := cur.Seen[o.No]; !ok || seen[0] != o.Version {
			changes.Orders = append(changes.Orders, c.workOrder(o))
		}
		cur.Seen[o.No] = [2]int64{o.Version, at}
	}
	cur.advance(changes.More, c.cfg.Overlap)
	next, err := json.Marshal(cur)
	changes.Cursor = string(next)
	return changes, err
}

// advance ends a sweep unless there is more of it, and forgets what no later sweep can show.
func (cur *cursor) advance(more bool, overlap time.Duration) {
	low := cur.High - int64(overlap/time.Second)
	if !more {
		cur.From, cur.After = max(low, 0), ""
	}
	for no, seen := range cur.Seen {
		if seen[1] < low {
			delete(cur.Seen, no)
		}
	}
	if len(cur.Seen) > maxSeen {
		clear(cur.Seen)
	}
}
