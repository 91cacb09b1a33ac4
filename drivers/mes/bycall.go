package mes

import (
	"context"
	"fmt"
	"strings"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/polling"
)

// byCall finds rows by calling a procedure of the MES with the place where the last call ended. The procedure decides what is
// new; it promises to return rows in the order of the cursor column and to leave none out whose transaction is open.
type byCall struct {
	Cursor *string `json:"cursor,omitempty"` // nil: the beginning
	Done   bool    `json:"done,omitempty"`   // rows up to Cursor are durable and `done` was perhaps not called
}

func newByCall(p *poller) (finder, error) {
	if p.state.Call == nil {
		p.state.Call = &byCall{}
	}
	return p.state.Call, nil
}

func (f *byCall) find(ctx context.Context, p *poller) ([]row, bool, error) {
	s := &statement{d: p.dialect}
	p.call(s, p.query.Call, p.arguments(s, p.query.Arguments, f.Cursor))
	rows, err := p.fetchCall(ctx, s)
	if err != nil || len(rows) == 0 {
		return nil, false, err
	}
	last := p.query.Version
	for i := range rows {
		at, _ := rows[i].value(last)
		rows[i].version = cursorText(at)
	}
	next := rows[len(rows)-1].version
	if f.Cursor != nil && next == *f.Cursor {
		// The procedure gives the last rows again, as one by time may: nothing is behind them yet.
		return nil, false, nil
	}
	f.Cursor, f.Done = &next, p.query.Done != ""
	return rows, true, nil
}

func cursorText(v any) string { return keyPart(v) }

// arguments writes the arguments of a call: {cursor} and {limit} are put in, anything else is passed as text.
func (p *poller) arguments(s *statement, list []string, cursor *string) []string {
	out := make([]string, len(list))
	for i, a := range list {
		switch a {
		case "{cursor}":
			if cursor == nil {
				if p.query.First == "" {
					out[i] = "NULL"
					continue
				}
				cursor = &p.query.First
			}
			out[i] = s.arg(*cursor)
		case "{limit}":
			out[i] = fmt.Sprint(p.limit())
		default:
			out[i] = s.arg(a)
		}
	}
	return out
}

// call writes the statement that calls a procedure (in PostgreSQL, a function) which returns rows.
func (s *source) call(to *statement, name string, arguments []string) {
	list := strings.Join(arguments, ", ")
	switch s.config.Driver {
	case "postgres":
		to.add("SELECT * FROM %s(%s)", s.dialect.quote(name), list)
	case "sqlserver":
		to.add("EXEC %s %s", s.dialect.quote(name), list)
	default:
		to.add("CALL %s(%s)", s.dialect.quote(name), list)
	}
}

// fetchCall runs a call. The columns are those of the first rows that it returns.
func (p *poller) fetchCall(ctx context.Context, s *statement) ([]row, error) {
	ctx, cancel := context.WithTimeout(ctx, statementPatience)
	defer cancel()
	rows, err := p.db().QueryContext(ctx, s.text.String(), s.args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	types, err := rows.ColumnTypes()
	if err != nil {
		return nil, err
	}
	p.shape(types)
	for _, name := range append([]string{p.query.Version}, p.query.Key...) {
		if p.column(name) < 0 {
			return nil, &polling.ProblemError{Problem: signal.Problem{Code: "column_missing", Item: p.query.Call,
				Reason:   fmt.Sprintf("procedure %q returns no column %q (upper and lower case count)", p.query.Call, name),
				NextStep: "compare key and version with the columns that the procedure returns"}}
		}
	}
	out := p.room()
	scan := p.into.scan(rows, 0)
	for rows.Next() {
		r, err := scan()
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	for rows.NextResultSet() { // an error may stand behind the rows
	}
	return out, rows.Err()
}

// confirm tells the procedure that rows up to the cursor are safe. It may be called twice with the same.
func (f *byCall) confirm(ctx context.Context, p *poller) error {
	if !f.Done || f.Cursor == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, statementPatience)
	defer cancel()
	s := &statement{d: p.dialect}
	p.call(s, p.query.Done, []string{s.arg(*f.Cursor)})
	if _, err := p.db().ExecContext(ctx, s.text.String(), s.args...); err != nil {
		return fmt.Errorf("call %q: %w", p.query.Done, err)
	}
	f.Done = false
	return nil
}
