package mes

import (
	"context"
	"fmt"
)

// byHor finds new versions of rows by the transaction that wrote them, for databases that can tell below which transaction
// nothing is open any more. Rows below that horizon are final, so one place is all there is to remember.
type byHor struct {
	Mark *place `json:"mark,omitempty"` // nil: the beginning
}

func newByHorizon(ctx context.Context, p *poller, known bool) (finder, error) {
	if p.state.Horizon != nil {
		return p.state.Horizon, nil
	}
	f := &byHor{}
	p.state.Horizon = f
	if p.query.Start != "end" {
		return f, nil
	}
	s := f.statement(p, true)
	rows, err := p.fetch(ctx, s.add(p.dialect.limit, 1), 1)
	if err != nil {
		return nil, err
	}
	if len(rows) > 0 {
		f.Mark = &place{Version: rows[0].extra[0], Key: rows[0].key}
	}
	return f, p.book.Commit(ctx, p.query.Tag, p.state, nil)
}

func (p *poller) horizon() (h horizon, column string) {
	if p.query.Change == "xmin" {
		return p.dialect.horizons["xmin"], "lk.xmin"
	}
	return p.dialect.horizons[p.query.Change], p.col(p.query.Version)
}

// statement selects the final rows behind the mark in order, or all of them the other way round.
func (f *byHor) statement(p *poller, fromEnd bool) *statement {
	h, column := p.horizon()
	s := p.selectRows(fmt.Sprintf(h.number, column))
	s.add(" WHERE %s", fmt.Sprintf(h.below, column))
	if f.Mark != nil {
		s.add(" AND (%s", fmt.Sprintf(h.after, column, s.arg(f.Mark.Version)))
		s.add(" OR %s AND ", fmt.Sprintf(h.same, column, s.arg(f.Mark.Version)))
		p.behindKey(s, f.Mark.Key)
		s.add(")")
	}
	direction := ""
	if fromEnd {
		direction = " DESC"
	}
	s.add(" ORDER BY %s%s", fmt.Sprintf(h.order, column), direction)
	for _, k := range p.query.Key {
		s.add(", %s%s", p.col(k), direction)
	}
	return s.add(" ")
}

func (f *byHor) find(ctx context.Context, p *poller) ([]row, bool, error) {
	rows, err := p.fetch(ctx, f.statement(p, false).add(p.dialect.limit, p.limit()), 1)
	if err != nil {
		return nil, false, err
	}
	for i := range rows {
		rows[i].version = rows[i].extra[0]
		f.Mark = &place{Version: rows[i].version, Key: rows[i].key}
	}
	return rows, len(rows) == p.limit(), nil
}
