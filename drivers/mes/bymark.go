package mes

import "context"

// byMark finds the rows whose mark column says that they are pending. The database itself remembers what was taken; the
// cursor holds only the keys of durable rows whose mark is perhaps not written, and those are written before the next
// look.
type byMark struct{}

func (byMark) find(ctx context.Context, p *poller) ([]row, bool, error) {
	m := p.query.Mark
	s := p.selectRows()
	s.add(" WHERE %s = %s", p.col(m.Column), s.arg(m.Pending))
	s.add(" ORDER BY %s ", p.cols(p.query.Key)).add(p.dialect.limit, p.limit())
	rows, err := p.fetch(ctx, s, 0)
	for i := range rows {
		if v, ok := rows[i].value(p.query.Version); ok && p.query.Version != "" {
			rows[i].version = keyText([]any{v})
		}
	}
	return rows, len(rows) == p.limit(), err
}
