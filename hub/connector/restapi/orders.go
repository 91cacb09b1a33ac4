package restapi

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/generic"
)

// cursor is where one reading of changes stands. From is what {cursor} was at its beginning, High the newest change seen in it.
type cursor struct {
	From string `json:"from,omitempty"`
	High string `json:"high,omitempty"`
	// Next is the address of the next page. Offset is where it begins, and Last the order that must stand there.
	Next   string `json:"next,omitempty"`
	Offset int    `json:"offset,omitempty"`
	Last   string `json:"last,omitempty"`
	// Again: the address of a next page was refused in this reading already, and the reading was begun anew.
	Again bool `json:"again,omitempty"`
}

// ListChanged reads a page of changed orders.
func (c *Connector) ListChanged(ctx context.Context, from string) (connector.Changes, error) {
	var cur cursor
	if from != "" {
		if err := json.Unmarshal([]byte(from), &cur); err != nil {
			return connector.Changes{}, fmt.Errorf("list changed orders: cursor %.60q is damaged; clear it to read all orders again: %w", from, err)
		}
	}
	changes, err := c.page(ctx, cur)
	if err != nil {
		return connector.Changes{}, fmt.Errorf("list changed orders: %w", err)
	}
	return changes, nil
}

// sheet is one page as it was read.
type sheet struct {
	rows []any
	vars map[string]any
	at   *url.URL
}

func (c *Connector) page(ctx context.Context, cur cursor) (out connector.Changes, err error) {
	s, err := c.read(ctx, cur)
	var u *unhappy
	if cur.Next != "" && !cur.Again && errors.As(err, &u) && (u.status == http.StatusBadRequest || u.status == http.StatusNotFound || u.status == http.StatusGone) {
		out.More = true // addresses of pages may end
		out.Cursor, err = encode(cursor{From: cur.From, Again: true})
		return out, err
	}
	if err != nil {
		return out, err
	}
	rows := s.rows
	if cur.Last != "" { // by offset: the page begins with the last order of the one before
		if len(rows) == 0 || c.print(rows[0]) != cur.Last {
			out.More = true // something moved meanwhile: what moved to the front could have been left out
			out.Cursor, err = encode(cursor{From: cur.From})
			return out, err
		}
		rows = rows[1:]
	}
	high := cur.High
	for _, row := range rows {
		w, err := c.orders.Read(row)
		if err != nil {
			no := c.orders.Number(row)
			out.Unreadable = append(out.Unreadable, connector.Unreadable{OrderNo: no, ERPKey: no, Reason: fmt.Sprintf("Order %s: %v.", cmp.Or(no, "without a number"), err)})
		} else {
			out.Orders = append(out.Orders, w)
		}
		changed, err := c.orders.Changed(row)
		if text, ok := generic.Text(changed); err == nil && ok && text != "" {
			if high, err = c.later(high, text); err != nil {
				return out, err
			}
		}
	}
	next, err := c.onward(cur, s, len(rows), high, &out)
	if err != nil {
		return out, err
	}
	out.Cursor, err = encode(next)
	return out, err
}

func encode(cur cursor) (string, error) {
	b, err := json.Marshal(cur)
	return string(b), err
}

// read asks for a page.
func (c *Connector) read(ctx context.Context, cur cursor) (s sheet, err error) {
	vars := map[string]any{"cursor": cmp.Or(cur.From, c.cfg.Orders.First), "offset": cur.Offset, "page_size": c.cfg.Orders.PageSize, "order_no": nil}
	if c.list.byChange() && cur.High != "" {
		vars["cursor"] = cur.High
	}
	address := cur.Next
	if address == "" {
		if address, err = c.list.url.Fill(vars, escape); err != nil {
			return s, err
		}
	}
	return c.readList(ctx, address, c.list.at, vars)
}

// readList asks for a list and takes it out of the answer.
func (c *Connector) readList(ctx context.Context, address string, at generic.Expr, vars map[string]any) (s sheet, err error) {
	full, err := c.client.address(address, nil)
	if err == nil {
		s.at, err = url.Parse(full)
	}
	if err != nil {
		return s, err
	}
	a, err := c.client.get(ctx, full)
	if err != nil {
		return s, err
	}
	if a.status < 200 || a.status > 299 || !a.json {
		return s, &unhappy{"read the list", a}
	}
	s.vars = a.vars(vars)
	v, err := at.Value(s.vars)
	if err != nil {
		return s, fmt.Errorf("at: %w; the answer is %s", err, a.words())
	}
	rows, ok := v.([]any)
	if !ok && v != nil { // some write null for an empty list
		return s, fmt.Errorf("at: %q gives no list; the answer is %s", at, a.words())
	}
	s.rows = rows
	return s, nil
}

// print tells an order of a list from others and from itself before a change.
func (c *Connector) print(row any) string {
	changed, _ := c.orders.Changed(row)
	return fmt.Sprintf("%s %v", c.orders.Number(row), changed)
}

// onward is the cursor after a page of n new orders, and says whether there is more.
func (c *Connector) onward(cur cursor, s sheet, n int, high string, out *connector.Changes) (cursor, error) {
	l := c.list
	done := func() (cursor, error) {
		from, err := c.back(high)
		return cursor{From: cmp.Or(from, cur.From)}, err
	}
	switch {
	case l.next.IsSet():
		text, err := l.next.Text(s.vars)
		if err != nil || text == "" {
			return onlyWithout(err, "orders.next", done)
		}
		next, err := c.client.address(text, s.at)
		if err == nil && next == s.at.String() {
			err = fmt.Errorf("orders.next leads to the same page %q again", text)
		}
		out.More = true
		return cursor{From: cur.From, High: high, Next: next, Again: cur.Again}, err
	case l.cursor.IsSet():
		text, err := l.cursor.Text(s.vars)
		if err != nil {
			return cur, fmt.Errorf("orders.cursor: %w", err)
		}
		out.More = l.more.True(s.vars) || !l.more.IsSet() && text != "" && n > 0
		if out.More && (text == "" || text == cur.From) {
			return cur, errors.New("orders.cursor: the answer says that there is more and gives no new cursor")
		}
		return cursor{From: cmp.Or(text, cur.From)}, nil
	case l.url.Uses("offset"):
		if n == 0 {
			return done()
		}
		out.More = true
		return cursor{From: cur.From, High: high, Offset: cur.Offset + len(s.rows) - 1, Last: c.print(s.rows[len(s.rows)-1])}, nil
	}
	asked := s.vars["cursor"].(string)
	on := high != "" // the system may give fewer than page_size: only a page without anything newer is the last
	if on {
		order, err := c.compare(asked, high)
		if err != nil {
			return cur, fmt.Errorf("%w; orders.first must be of the same form", err)
		}
		on = order < 0
	}
	switch {
	case on:
	case len(s.rows) >= c.cfg.Orders.PageSize:
		return cur, fmt.Errorf("a whole page of %d orders has the same change %q: raise orders.page_size, or list by {offset}", len(s.rows), asked)
	default:
		return done()
	}
	out.More = true
	return cursor{From: cur.From, High: high}, nil
}

func onlyWithout(err error, place string, do func() (cursor, error)) (cursor, error) {
	if err != nil {
		return cursor{}, fmt.Errorf("%s: %w", place, err)
	}
	return do()
}

// later returns the later of two changed values, which are numbers or times.
func (c *Connector) later(a, b string) (string, error) {
	if a == "" {
		return b, nil
	}
	order, err := c.compare(a, b)
	if order < 0 {
		return b, err
	}
	return a, err
}

func (c *Connector) compare(a, b string) (int, error) {
	x, errX := generic.Decimal(a)
	y, errY := generic.Decimal(b)
	if errX == nil && errY == nil {
		return x.Cmp(y), nil
	}
	s, _, errS := generic.ReadTime(a, c.zone)
	t, _, errT := generic.ReadTime(b, c.zone)
	if errS != nil || errT != nil {
		return cmp.Compare(a, b), fmt.Errorf("orders.map.changed: %.40q and %.40q are neither two numbers nor two times", a, b)
	}
	return s.Compare(t), nil
}

// back takes a changed value back by the overlap, in its own form; empty stays empty.
func (c *Connector) back(high string) (string, error) {
	if high == "" {
		return "", nil
	}
	by := c.list.back
	if t, layout, err := generic.ReadTime(high, c.zone); err == nil && (by.span > 0 || strings.ContainsAny(high, "-:")) {
		if by.span == 0 && !by.number.IsZero() {
			return "", fmt.Errorf("orders.overlap is a number, and the changed value %.40q is a time: write a duration such as 5m", high)
		}
		if layout == time.DateOnly {
			return t.Add(-by.span).Format(time.DateOnly), nil
		}
		return t.Add(-by.span).Format(layout), nil
	}
	n, err := generic.Decimal(high)
	if err != nil {
		return "", fmt.Errorf("orders.map.changed: %.40q is neither a number nor a time", high)
	}
	if by.span > 0 {
		return "", fmt.Errorf("orders.overlap is a duration, and the changed value %.40q is a number: write how many such as \"1000\"", high)
	}
	return n.Sub(by.number).String(), nil
}
