package mes

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/polling"
)

// byID finds new rows by a number that the database counts up. The numbers up to High are settled but for the gaps: every
// other one was emitted. A gap is a number whose transaction may still commit, or never existed. It is looked up until it
// is too old, by the database's clock and, where the database tells, until all transactions of its time have ended.
type byID struct {
	High int64 `json:"high"`
	Gaps []gap `json:"gaps,omitempty"` // in ascending order
}

// gap is a range of numbers without rows.
type gap struct {
	From  int64 `json:"f"`
	To    int64 `json:"t"`
	Since int64 `json:"s"` // the database's clock when it was first seen, in milliseconds since 1970
	// Open is the first transaction that was certainly not there when the gap was first seen; 0 when not asked yet.
	Open uint64 `json:"o,omitempty"`
	next int64  // when to look again, like Since
}

const (
	maxGaps     = 10_000
	gapsAtATime = 200    // in one statement
	slowestLook = 10_000 // milliseconds
	// A gap so wide is no rolled back transaction: somebody wrote a number by hand, and the counter goes on below it. It is
	// looked up for ever.
	wideGap = 100_000
)

func newByID(ctx context.Context, p *poller, known bool) (finder, error) {
	if c := p.column(p.query.Key[0]); c < 0 {
		return nil, fmt.Errorf("no column %q", p.query.Key[0])
	}
	if p.state.ID != nil {
		return p.state.ID, nil
	}
	f := &byID{}
	key := p.dialect.quoteOne(p.query.Key[0])
	aggregate := "MIN"
	if p.query.Start == "end" {
		aggregate = "MAX"
	}
	texts, err := p.texts(ctx, 1, fmt.Sprintf("SELECT %s FROM %s", fmt.Sprintf(p.dialect.text, aggregate+"("+key+")"), p.dialect.quote(p.query.Table)))
	if err != nil {
		return nil, err
	}
	if texts[0] != "" {
		if f.High, err = strconv.ParseInt(texts[0], 10, 64); err != nil {
			return nil, notInteger(p, texts[0])
		}
		if p.query.Start != "end" {
			f.High--
		}
	}
	if p.query.Start != "end" {
		f.High = min(f.High, 0) // what commits late may be lower than the lowest that is there
	}
	p.state.ID = f
	return f, p.book.Commit(ctx, p.query.Tag, p.state, nil)
}

func notInteger(p *poller, value string) error {
	return &polling.ProblemError{Problem: signal.Problem{Code: "key_not_integer", Item: p.query.Key[0],
		Reason:   fmt.Sprintf("key %q has the value %q, change: id needs an integer that the database counts up", p.query.Key[0], value),
		NextStep: "set change: version and name a version column, or change: mark"}}
}

// clock is what the database says of its time and its transactions.
type clock struct {
	now          int64
	oldest, next uint64 // transactions; 0 when the database does not tell
}

func (p *poller) clock(ctx context.Context) (c clock, err error) {
	if p.dialect.clock == "" {
		now, err := p.now(ctx)
		return clock{now: now.UnixMilli()}, err
	}
	texts, err := p.texts(ctx, 3, p.dialect.clock)
	if err != nil {
		return c, err
	}
	now, err := clockTime(texts[0])
	if err != nil {
		return c, err
	}
	c.now = now.UnixMilli()
	if c.oldest, err = strconv.ParseUint(texts[1], 10, 64); err != nil {
		return c, err
	}
	c.next, err = strconv.ParseUint(texts[2], 10, 64)
	return c, err
}

func (f *byID) find(ctx context.Context, p *poller) ([]row, bool, error) {
	c, err := p.clock(ctx) // before the look-up: what ended by then is seen by it
	if err != nil {
		return nil, false, err
	}
	rows, err := f.lookUp(ctx, p, c)
	if err != nil {
		return nil, false, err
	}
	if len(f.Gaps) >= maxGaps {
		return rows, false, f.tooMany(p, rows)
	}
	s := p.selectRows()
	key := p.col(p.query.Key[0])
	s.add(" WHERE %s > %s ORDER BY %s ", key, s.arg(f.High), key).add(p.dialect.limit, p.limit())
	fresh, err := p.fetch(ctx, s, 0)
	if err != nil {
		return nil, false, err
	}
	for _, r := range fresh {
		id, err := idOf(p, r)
		if err != nil {
			return nil, false, err
		}
		if id > f.High+1 {
			f.Gaps = append(f.Gaps, gap{From: f.High + 1, To: id - 1, Since: c.now})
		}
		f.High = id
	}
	more := len(fresh) == p.limit()
	if len(rows) == 0 {
		return fresh, more, nil
	}
	return append(rows, fresh...), more, nil
}

// tooMany stops reading ahead until gaps are settled; what was found goes on.
func (f *byID) tooMany(p *poller, found []row) error {
	if len(found) > 0 {
		return nil
	}
	return &polling.ProblemError{Problem: signal.Problem{Code: "too_many_gaps", Item: p.query.Table,
		Reason:   fmt.Sprintf("%d ranges of numbers are missing in key %q and may still be filled; no further rows are read until they are settled", len(f.Gaps), p.query.Key[0]),
		NextStep: "shorten gap_wait to the longest time that a transaction of the MES stays open, or use change: version"}}
}

func idOf(p *poller, r row) (int64, error) {
	n, ok := r.key[0].(signal.Number)
	if ok {
		if id, err := n.Int64(); err == nil {
			return id, nil
		}
	}
	return 0, notInteger(p, fmt.Sprint(r.key[0]))
}

// lookUp looks for rows in the gaps that are due, and drops gaps that can no longer be filled.
func (f *byID) lookUp(ctx context.Context, p *poller, c clock) ([]row, error) {
	var due []gap
	for i := range f.Gaps {
		g := &f.Gaps[i]
		if g.Open == 0 {
			g.Open = c.next
		}
		if g.next <= c.now {
			due = append(due, *g)
			g.next = c.now + min((c.now-g.Since)/10, slowestLook) // nearly all late rows come within seconds
		}
	}
	var found []row
	settled := map[int64]bool{} // gaps that were looked up completely, by their first number
	for len(due) > 0 {
		n := min(gapsAtATime, len(due))
		rows, err := f.fetchGaps(ctx, p, due[:n])
		if err != nil {
			return nil, err
		}
		found = append(found, rows...)
		if len(rows) == p.limit() {
			break // more may be there: the rest comes with the next look
		}
		for _, g := range due[:n] {
			settled[g.From] = true
		}
		due = due[n:]
	}
	if len(due) > 0 {
		for i := range f.Gaps {
			f.Gaps[i].next = min(f.Gaps[i].next, c.now)
		}
	}
	return found, f.close(p, c, found, settled)
}

func (f *byID) fetchGaps(ctx context.Context, p *poller, gaps []gap) ([]row, error) {
	key := p.col(p.query.Key[0])
	s := p.selectRows()
	conditions := make([]string, len(gaps))
	for i, g := range gaps {
		conditions[i] = fmt.Sprintf("%s BETWEEN %s AND %s", key, s.arg(g.From), s.arg(g.To))
	}
	s.add(" WHERE (%s) ORDER BY %s ", strings.Join(conditions, " OR "), key).add(p.dialect.limit, p.limit())
	return p.fetch(ctx, s, 0)
}

// close takes found rows out of the gaps, and drops gaps that were looked up and are too old.
func (f *byID) close(p *poller, c clock, found []row, settled map[int64]bool) error {
	var ids []int64
	for _, r := range found {
		id, err := idOf(p, r)
		if err != nil {
			return err
		}
		ids = append(ids, id)
	}
	slices.Sort(ids)
	var left []gap
	for _, g := range f.Gaps {
		old := time.Duration(c.now-g.Since)*time.Millisecond >= p.query.GapWait && c.oldest >= g.Open
		if settled[g.From] && old && g.To-g.From < wideGap {
			continue // what was in it is in found
		}
		left = append(left, g.without(ids, c.now)...)
	}
	f.Gaps = left
	return nil
}

// without splits a gap at the numbers that were found, which are in ascending order. What lies above a found number is
// young again: it may be filled from below.
func (g gap) without(ids []int64, now int64) []gap {
	var out []gap
	keep := func(from, to int64) {
		if from <= to {
			part := g
			part.From, part.To = from, to
			out = append(out, part)
		}
	}
	from := g.From
	first, _ := slices.BinarySearch(ids, g.From)
	for _, id := range ids[first:] {
		if id > g.To {
			break
		}
		keep(from, id-1)
		from = id + 1
		g.Since, g.Open, g.next = now, 0, 0
	}
	keep(from, g.To)
	return out
}
