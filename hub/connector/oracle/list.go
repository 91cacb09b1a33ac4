package oracle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
)

// cursor is where the reading of changes stands. Oracle stamps a change before it commits it, so a change can appear behind a
// newer one: each sweep starts an overlap before the newest stamp, and Seen keeps what the overlap has shown already from being
// reported again.
type cursor struct {
	// From and After are where the next page begins: behind order After of stamp From, or with stamp From itself.
	From  string          `json:"from"`
	After string          `json:"after,omitempty"`
	High  string          `json:"high"`
	Seen  map[string]seen `json:"seen,omitempty"`
}

// seen is what an order said and the stamp with which it said it.
type seen struct {
	Hash  string `json:"h"`
	Stamp string `json:"s"`
}

// maxSeen bounds the cursor. Beyond it orders are reported again, which does no harm.
const maxSeen = 2000

// ListChanged reads one page of changed orders.
func (c *Connector) ListChanged(ctx context.Context, text string) (connector.Changes, error) {
	cur := cursor{}
	if text != "" {
		if err := json.Unmarshal([]byte(text), &cur); err != nil {
			return connector.Changes{}, fmt.Errorf("list changed orders: cursor %.100q was not made by this connector: clear it to read all orders again: %w", text, err)
		}
	}
	if cur.Seen == nil {
		cur.Seen = map[string]seen{}
	}
	q := url.Values{"orderBy": {"LastUpdateDate,WorkOrderId"}, "expand": {orderParts}, "limit": {fmt.Sprint(c.cfg.PageSize)}}
	if question := c.mine(cur.question()); question != "" {
		q.Set("q", question)
	}
	found, err := get[order](ctx, c, "workOrders", q)
	if err != nil {
		return connector.Changes{}, fmt.Errorf("list changed orders: %w", err)
	}
	changes := connector.Changes{More: *found.HasMore && len(found.Items) > 0}
	for i := range found.Items {
		o := &found.Items[i]
		cur.From, cur.After, cur.High = o.LastUpdateDate, string(o.WorkOrderID), max(cur.High, o.LastUpdateDate)
		c.report(&changes, &cur, o)
	}
	cur.advance(changes.More, c.cfg.Overlap)
	next, err := json.Marshal(cur)
	changes.Cursor = string(next)
	return changes, err
}

func (cur *cursor) question() string {
	switch {
	case cur.After != "":
		return fmt.Sprintf("(LastUpdateDate > %s or (LastUpdateDate = %s and WorkOrderId > %s))", quote(cur.From), quote(cur.From), cur.After)
	case cur.From != "":
		return "LastUpdateDate >= " + quote(cur.From)
	}
	return ""
}

// report adds an order to the changes unless it says what it said before.
func (c *Connector) report(changes *connector.Changes, cur *cursor, o *order) {
	w, err := c.workOrder(o)
	said := w
	said.RevisedAt = time.Time{}
	text, _ := json.Marshal(said)
	if err != nil {
		text = []byte(err.Error())
	}
	sum := sha256.Sum256(text)
	now := seen{Hash: hex.EncodeToString(sum[:8]), Stamp: o.LastUpdateDate}
	before, known := cur.Seen[string(o.WorkOrderID)]
	cur.Seen[string(o.WorkOrderID)] = now
	switch {
	case known && before.Hash == now.Hash:
	case err != nil:
		changes.Unreadable = append(changes.Unreadable, connector.Unreadable{OrderNo: o.WorkOrderNumber, ERPKey: string(o.WorkOrderID),
			Reason: fmt.Sprintf("Order %s: %v.", o.WorkOrderNumber, err)})
	default:
		changes.Orders = append(changes.Orders, w)
	}
}

// advance ends a sweep unless there is more of it, and forgets what no later sweep can show.
func (cur *cursor) advance(more bool, overlap time.Duration) {
	if more || cur.High == "" {
		return
	}
	low := cur.High
	if t, err := time.Parse(time.RFC3339Nano, cur.High); err == nil {
		low = t.UTC().Add(-overlap).Format("2006-01-02T15:04:05.000+00:00")
	}
	cur.From, cur.After = low, ""
	for id, s := range cur.Seen {
		if s.Stamp < low {
			delete(cur.Seen, id)
		}
	}
	if len(cur.Seen) > maxSeen {
		clear(cur.Seen)
	}
}
