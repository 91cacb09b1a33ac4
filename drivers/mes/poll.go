package mes

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/polling"
)

// poller reads one table. One goroutine uses it.
type poller struct {
	*source
	book  *polling.Book
	query *Query

	used        []signal.Signal // whose room can be used again
	reading     *reading        // what polls on while a portion is made durable
	read        int             // bytes that were read of the columns
	large       int             // how many times the rows of a usual poll the next one may find; 0 is once
	triggersDue time.Time       // when to look whether the table is still watched, by the agent's clock: this is about load only
	answers     *Answers        // the rows are answers to work orders; nil for others
	spare       []row           // for the rows of the next statement
	text        []byte          // positions of a portion's rows, one after the other, and where each ends
	ends        []int
	ready       bool // the table was looked at and the stored state read
	columns     []column
	into        *scanner // takes the rows of the columns
	finder      finder
	state       state
}

// state is a query's part of the cursor.
type state struct {
	Change   string    `json:"change"`
	ID       *byID     `json:"id,omitempty"`
	Version  *byVer    `json:"version,omitempty"`
	Horizon  *byHor    `json:"horizon,omitempty"`
	Outbox   *byOutbox `json:"outbox,omitempty"`
	Call     *byCall   `json:"call,omitempty"`
	Unmarked [][]any   `json:"unmarked,omitempty"` // keys of durable rows whose mark is perhaps not written
}

// finder finds the rows that are new. find returns them with the position after them already noted in the state; an error
// or a commit that fails must be followed by reset.
type finder interface {
	find(ctx context.Context, p *poller) (rows []row, more bool, err error)
}

// row is one row: its key, its version, and all values by column name.
type row struct {
	key     []any
	version string
	values  any      // a *signal.Row, or a map of the same
	extra   []string // the texts that were asked for in front of the columns
	// problem and payload are set when the row could not be read.
	problem *signal.Problem
	payload []byte
}

// value is what a column holds; nil without such a column.
func (r *row) value(column string) (v any, ok bool) {
	switch values := r.values.(type) {
	case *signal.Row:
		return values.Get(column)
	case map[string]any:
		v, ok = values[column]
	}
	return v, ok
}

// room is where the rows of a statement go: that of the last poll, whose rows are signals by now.
func (p *poller) room() []row {
	out := p.spare
	p.spare = nil
	return out
}

// step does one poll.
func (p *poller) step(ctx context.Context) (more bool, err error) {
	if !p.ready {
		if err := p.prepare(ctx); err != nil {
			return false, err
		}
		p.ready = true
	}
	defer func() {
		if err != nil {
			p.halt()
			p.ready = false // the durable state decides where to go on
		}
		if p.reading == nil && !more {
			p.used, p.spare = nil, nil // at rest nothing is held
		}
	}()
	if p.reading != nil {
		f := p.reading.take(p.used)
		p.used = nil
		if f.last() {
			p.halt()
		}
		return p.store(ctx, f)
	}
	if err := p.settle(ctx); err != nil {
		return false, err
	}
	f := &portion{}
	p.look(ctx, f)
	return p.store(ctx, f)
}

// store makes a portion durable. Where nothing has to be told to the database afterwards, it is polled on meanwhile; should that
// fail, or this portion, what was found behind the failure is forgotten.
func (p *poller) store(ctx context.Context, f *portion) (more bool, err error) {
	if len(f.signals) == 0 {
		return f.more, f.err
	}
	if p.reading == nil && !f.last() && p.query.Mark == nil && p.query.Change != "outbox" && p.query.Change != "call" {
		p.reading = p.readOn(ctx)
	}
	if err := p.book.CommitEncoded(ctx, p.query.Tag, f.state, f.signals); err != nil {
		return false, err
	}
	if f.err != nil {
		return false, f.err
	}
	if p.reading != nil {
		p.used = f.signals
		return true, nil
	}
	return f.more, p.settle(ctx)
}

// settle tells the database what is durable, where the query's way of finding changes needs that.
func (p *poller) settle(ctx context.Context) error {
	switch f := p.finder.(type) {
	case *byOutbox:
		return f.takeAway(ctx, p)
	case *byCall:
		return f.confirm(ctx, p)
	}
	return p.writeMarks(ctx)
}

// prepare reads the stored state and the table's columns.
func (p *poller) prepare(ctx context.Context) error {
	p.state = state{}
	known, err := p.book.Part(p.query.Tag, &p.state)
	if err != nil {
		return err
	}
	if known && p.state.Change != p.query.Change {
		return &polling.ProblemError{Problem: signal.Problem{Code: "change_changed", Item: p.query.Tag,
			Reason:   fmt.Sprintf("the query was read with change: %s until now, its position means nothing for change: %s", p.state.Change, p.query.Change),
			NextStep: "set change back, or give the query another tag (and start: end, when the old rows must not be read again)"}}
	}
	p.state.Change = p.query.Change
	if p.query.Change == "call" { // the columns come with the rows
		p.finder, err = newByCall(p)
		return err
	}
	if err := p.readColumns(ctx); err != nil {
		return err
	}
	switch p.query.Change {
	case "outbox":
		p.triggersDue = time.Time{}
		p.finder, err = newByOutbox(p)
	case "id":
		p.finder, err = newByID(ctx, p, known)
	case "version":
		p.finder, err = newByVersion(ctx, p, known)
	case "mark":
		p.finder = byMark{}
	default:
		p.finder, err = newByHorizon(ctx, p, known)
	}
	return err
}

// readColumns asks the database for the table's columns and their types.
func (p *poller) readColumns(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, statementPatience)
	defer cancel()
	list := "*"
	if len(p.query.Columns) > 0 {
		list = p.list(p.wanted())
	}
	rows, err := p.db().QueryContext(ctx, fmt.Sprintf("SELECT %s FROM %s WHERE 1 = 0", list, p.dialect.quote(p.query.Table)))
	if err != nil {
		return err
	}
	defer rows.Close()
	types, err := rows.ColumnTypes()
	if err != nil {
		return err
	}
	p.shape(types)
	for _, name := range p.wanted() {
		if p.column(name) < 0 {
			return &polling.ProblemError{Problem: signal.Problem{Code: "column_missing", Item: p.query.Table,
				Reason:   fmt.Sprintf("table %q has no column %q (upper and lower case count)", p.query.Table, name),
				NextStep: "compare key, columns, version, time_column and mark with the table's columns"}}
		}
	}
	return rows.Err()
}

// wanted lists the columns that are read whatever the configuration says, and those it names.
func (p *poller) wanted() []string {
	names := slices.Clone(p.query.Columns)
	extra := slices.Clone(p.query.Key)
	if p.query.TimeColumn != "" {
		extra = append(extra, p.query.TimeColumn)
	}
	if p.query.Version != "" {
		extra = append(extra, p.query.Version)
	}
	for _, n := range extra {
		if !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

func (p *poller) list(names []string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = p.dialect.quoteOne(n)
	}
	return strings.Join(quoted, ", ")
}

func (p *poller) column(name string) int {
	return slices.IndexFunc(p.columns, func(c column) bool { return c.name == name })
}

// selectRows begins a statement: the expressions in extra, then all columns of the table.
func (p *poller) selectRows(extra ...string) *statement {
	var list []string
	for i, e := range extra {
		list = append(list, fmt.Sprintf("%s AS lk_extra_%d", e, i))
	}
	for _, c := range p.columns {
		name := p.col(c.name)
		if p.config.Driver == "sqlite" {
			name = "+" + name // an expression has no declared type: the text comes as it is stored
		}
		list = append(list, name)
	}
	s := &statement{d: p.dialect}
	return s.add("SELECT %s FROM %s AS lk", strings.Join(list, ", "), p.dialect.quote(p.query.Table))
}

// col names a column of the table in a statement of selectRows. Without the alias an ORDER BY could mean the text that the
// statement returns under the same name.
func (p *poller) col(name string) string { return "lk." + p.dialect.quoteOne(name) }

// cols is col for many.
func (p *poller) cols(names []string) string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = p.col(n)
	}
	return strings.Join(out, ", ")
}

// signals makes signals of rows, in the room of out. Their positions are what the table guarantees of each row's identity: table,
// key and version.
func (p *poller) signals(rows []row, out []signal.Signal) []signal.Signal {
	now, table := time.Now(), cmp.Or(p.query.Table, p.query.Call)
	p.text, p.ends = p.text[:0], p.ends[:0]
	for i := range rows {
		p.text = append(append(p.text, table...), '|')
		p.text = appendKey(p.text, rows[i].key)
		p.text = append(append(p.text, '|'), escape(rows[i].version)...)
		p.ends = append(p.ends, len(p.text))
	}
	positions, from := string(p.text), 0
	for i := range rows {
		r, s := &rows[i], signal.Signal{Tag: p.query.Tag, ReceivedTime: now, Position: positions[from:p.ends[i]]}
		from = p.ends[i]
		if r.problem != nil {
			s.Payload, s.Problem = r.payload, r.problem
			out = append(out, s)
			continue
		}
		if p.answers != nil {
			r.values = p.answers.complete(signal.Whole(r.values).(map[string]any))
		}
		s.Value = r.values
		if p.query.TimeColumn != "" {
			at, _ := r.value(p.query.TimeColumn)
			s.SourceTime, _ = at.(time.Time)
		}
		out = append(out, s)
	}
	return out
}

// texts runs a statement that returns one row of texts; NULL is empty.
func (p *poller) texts(ctx context.Context, n int, text string, args ...any) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, statementPatience)
	defer cancel()
	values := make([]sql.NullString, n)
	into := make([]any, n)
	for i := range values {
		into[i] = &values[i]
	}
	if err := p.db().QueryRowContext(ctx, text, args...).Scan(into...); err != nil {
		return nil, err
	}
	out := make([]string, n)
	for i, v := range values {
		out[i] = v.String
	}
	return out, nil
}

// now is the database's clock.
func (p *poller) now(ctx context.Context) (time.Time, error) {
	texts, err := p.texts(ctx, 1, p.dialect.now)
	if err != nil {
		return time.Time{}, err
	}
	return clockTime(texts[0])
}

func clockTime(text string) (time.Time, error) {
	t, ok := parseTime(text, time.UTC)
	if !ok {
		return t, fmt.Errorf("read the database's clock: %q is no time", text)
	}
	return t, nil
}

// parameter makes a key value of the cursor or of a row one that the database compares in the column's own type.
func parameter(v any) any {
	switch v := v.(type) {
	case signal.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		return string(v)
	}
	return v
}

// writeMarks writes the marks of durable rows. The keys stay in the state until that is done, so that it is repeated
// after a crash.
func (p *poller) writeMarks(ctx context.Context) error {
	m := p.query.Mark
	if m == nil || len(p.state.Unmarked) == 0 {
		p.state.Unmarked = nil
		return nil
	}
	for part := range slices.Chunk(p.state.Unmarked, marksAtATime) {
		if err := p.writeSome(ctx, part); err != nil {
			return fmt.Errorf("write marks: %w", err)
		}
	}
	p.state.Unmarked = nil
	return nil
}

const marksAtATime = 100 // rows that one statement marks

// writeSome marks rows in one statement. It may be repeated: a row that is marked is not pending any more.
func (p *poller) writeSome(ctx context.Context, keys [][]any) error {
	m, s := p.query.Mark, &statement{d: p.dialect}
	s.add("UPDATE %s SET %s = %s WHERE (", p.dialect.quote(p.query.Table), p.dialect.quoteOne(m.Column), s.arg(m.Value))
	for i, key := range keys {
		if i > 0 {
			s.add(" OR ")
		}
		s.add("%s", p.sameKey(s, key))
	}
	s.add(")")
	if m.Pending != "" {
		s.add(" AND %s = %s", p.dialect.quoteOne(m.Column), s.arg(m.Pending))
	}
	return p.exec(ctx, s)
}

// exec runs one statement; on a slow line each has its own time.
func (p *poller) exec(ctx context.Context, s *statement) error {
	ctx, cancel := context.WithTimeout(ctx, statementPatience)
	defer cancel()
	_, err := p.db().ExecContext(ctx, s.text.String(), s.args...)
	return err
}

func (p *poller) sameKey(s *statement, key []any) string {
	parts := make([]string, len(p.query.Key))
	for i, k := range p.query.Key {
		parts[i] = fmt.Sprintf("%s = %s", p.dialect.quoteOne(k), s.arg(parameter(key[i])))
	}
	return strings.Join(parts, " AND ")
}
