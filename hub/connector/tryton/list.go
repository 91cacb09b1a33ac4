package tryton

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
)

// cursor is how far ListChanged has come: on the orders themselves, and on moves that others changed without touching the
// order. It travels as JSON.
type cursor struct {
	Orders feed `json:"orders"`
	Moves  feed `json:"moves"`
}

// feed is a position in the changes of one model. Tryton stamps a change with the start of its transaction and shows it at
// the commit, so changes appear behind the newest one seen; everything since Since minus the overlap is asked for again,
// and Seen tells what is not new.
type feed struct {
	Since int64            `json:"since"` // microseconds since 1970
	Seen  map[string]int64 `json:"seen,omitempty"`
}

// change is a record and when it changed.
type change struct {
	ID    int
	Stamp string
	raw   map[string]json.RawMessage // the fields that were asked for besides
	at    int64
}

// UnmarshalJSON reads a record of any model.
func (x *change) UnmarshalJSON(b []byte) error {
	if err := json.Unmarshal(b, &x.raw); err != nil {
		return err
	}
	return errors.Join(json.Unmarshal(x.raw["id"], &x.ID), json.Unmarshal(x.raw["_timestamp"], &x.Stamp))
}

// ListChanged implements connector.Connector.
func (c *Connector) ListChanged(ctx context.Context, text string) (connector.Changes, error) {
	at, err := c.position(ctx, text)
	if err != nil {
		return connector.Changes{}, err
	}
	orders, moreOrders, err := c.changes(ctx, "production", &at.Orders, nil)
	if err != nil {
		return connector.Changes{}, err
	}
	moves, moreMoves, err := c.movedByOthers(ctx, &at.Moves)
	if err != nil {
		return connector.Changes{}, err
	}
	page := connector.Changes{More: moreOrders || moreMoves}
	if err := c.translate(ctx, parents(orders, moves), &page); err != nil {
		return connector.Changes{}, err
	}
	b, err := json.Marshal(at)
	if err != nil {
		return connector.Changes{}, fmt.Errorf("write the cursor of Tryton's orders: %w", err)
	}
	page.Cursor = string(b)
	return page, nil
}

// position reads a cursor. From the beginning, all orders come by themselves, so changed moves count from now on.
func (c *Connector) position(ctx context.Context, text string) (cursor, error) {
	var at cursor
	if text != "" {
		if err := json.Unmarshal([]byte(text), &at); err != nil {
			return at, fmt.Errorf("read the cursor %q of Tryton's orders: %w; start again with an empty one", text, err)
		}
		return at, nil
	}
	var err error
	at.Moves, err = c.newest(ctx, "stock.move")
	return at, err
}

// movedByOthers lists changes of moves of orders, but for those that this connector made itself.
func (c *Connector) movedByOthers(ctx context.Context, f *feed) ([]change, bool, error) {
	uid, err := c.client.uid(ctx)
	if err != nil {
		return nil, false, err
	}
	ofOrder := []any{"OR", []any{"production_input", "!=", nil}, []any{"production_output", "!=", nil}}
	byOthers := []any{"OR",
		[]any{[]any{"write_date", "!=", nil}, []any{"write_uid", "!=", uid}},
		[]any{[]any{"write_date", "=", nil}, []any{"create_uid", "!=", uid}}}
	return c.changes(ctx, "stock.move", f, []any{ofOrder, byOthers}, "production_input", "production_output")
}

// changes returns a page of records that changed since the feed's position, oldest first, and moves the position on.
func (c *Connector) changes(ctx context.Context, model string, f *feed, domain []any, fields ...string) ([]change, bool, error) {
	// At most len(f.Seen) of the rows are old ones, so a limit above it always reaches new ones.
	limit := c.config.PageSize + len(f.Seen)
	from := wireTimeOf(time.UnixMicro(f.Since).Add(-c.config.Overlap))
	var rows []change
	capped, bound := false, int64(0)
	for _, by := range []struct {
		field  string
		domain []any
	}{
		{"write_date", []any{[]any{"write_date", ">=", from}}},
		{"create_date", []any{[]any{"write_date", "=", nil}, []any{"create_date", ">=", from}}},
	} {
		var part []change
		err := c.client.call(ctx, &part, nil, model+".search_read", append(by.domain, domain...), 0, limit,
			[][]string{{by.field, "ASC"}, {"id", "ASC"}}, append([]string{"_timestamp"}, fields...))
		if err != nil {
			return nil, false, err
		}
		for i := range part {
			if part[i].at, err = microseconds(part[i].Stamp); err != nil {
				return nil, false, err
			}
		}
		if len(part) == limit { // there may be more behind the last: nothing later counts yet
			last := part[limit-1].at
			if !capped || last < bound {
				capped, bound = true, last
			}
		}
		rows = append(rows, part...)
	}
	rows = slices.DeleteFunc(rows, func(x change) bool {
		return capped && x.at > bound || f.Seen[strconv.Itoa(x.ID)] == x.at
	})
	slices.SortFunc(rows, func(a, b change) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.ID, b.ID)) })
	more := capped
	if len(rows) > c.config.PageSize {
		rows, more = rows[:c.config.PageSize], true
	}
	f.advance(rows, c.config.Overlap)
	return rows, more, nil
}

// advance takes over what is returned and forgets what will not be asked for again.
func (f *feed) advance(rows []change, overlap time.Duration) {
	f.Seen = maps.Clone(f.Seen)
	if f.Seen == nil {
		f.Seen = map[string]int64{}
	}
	for _, x := range rows {
		f.Since = max(f.Since, x.at)
		f.Seen[strconv.Itoa(x.ID)] = x.at
	}
	maps.DeleteFunc(f.Seen, func(_ string, at int64) bool { return at < f.Since-overlap.Microseconds() })
}

// parents returns the orders to read: each once, in the order of their changes.
func parents(orders, moves []change) []int {
	var ids []int
	add := func(id int) {
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	for _, x := range orders {
		add(x.ID)
	}
	for _, x := range moves {
		for _, field := range []string{"production_input", "production_output"} {
			for _, r := range refs(x.raw[field]) {
				add(r.id)
			}
		}
	}
	return ids
}

// translate reads the orders and puts them into our words. One that cannot be is named, and stops no other.
func (c *Connector) translate(ctx context.Context, ids []int, page *connector.Changes) error {
	if len(ids) == 0 {
		return nil
	}
	fields, err := c.fields(ctx)
	if err != nil {
		return err
	}
	var rows []production
	err = c.client.call(ctx, &rows, nil, "production.search_read", []any{idsIn(ids)}, 0, nil, nil, fields)
	if err != nil {
		return err
	}
	slices.SortFunc(rows, func(a, b production) int { return cmp.Compare(slices.Index(ids, a.ID), slices.Index(ids, b.ID)) })
	for _, row := range rows {
		o, err := c.workOrder(ctx, row)
		var broken *callError
		switch {
		case errors.As(err, &broken):
			return err
		case err != nil:
			page.Unreadable = append(page.Unreadable, connector.Unreadable{OrderNo: o.OrderNo, ERPKey: o.ERPKey, Reason: err.Error()})
		default:
			page.Orders = append(page.Orders, o)
		}
	}
	return nil
}

// microseconds reads a record's timestamp, seconds with a fraction, without rounding.
func microseconds(stamp string) (int64, error) {
	seconds, fraction, _ := strings.Cut(stamp, ".")
	fraction = (fraction + "000000")[:6]
	n, err := strconv.ParseInt(seconds+fraction, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read Tryton's timestamp %q: %w", stamp, err)
	}
	return n, nil
}
