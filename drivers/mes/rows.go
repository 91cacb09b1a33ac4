package mes

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// shape takes the columns of a result.
func (p *poller) shape(types []*sql.ColumnType) {
	columns := make([]column, len(types))
	for i, t := range types {
		columns[i] = column{name: t.Name(), kind: kindOf(p.config.Driver, t.DatabaseTypeName())}
	}
	if p.into != nil && slices.Equal(columns, p.columns) {
		return
	}
	p.columns, p.into = columns, newScanner(p, columns)
}

// fetch runs a statement of selectRows whose first extra expressions are texts.
func (p *poller) fetch(ctx context.Context, s *statement, extra int) ([]row, error) {
	ctx, cancel := context.WithTimeout(ctx, statementPatience)
	defer cancel()
	if p.config.Driver == "postgres" {
		return p.fetchPostgres(ctx, s, extra)
	}
	rows, err := p.db().QueryContext(ctx, s.text.String(), s.args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := p.room()
	scan := p.into.scan(rows, extra)
	for rows.Next() {
		r, err := scan()
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, rows.Err()
}

// binaryFormats are the types whose text may lose something, and those that cost the server more to write than all else of a row;
// all others come as the text that the server writes.
var binaryFormats = pgx.QueryResultFormatsByOID{
	pgtype.Float4OID: pgx.BinaryFormatCode, pgtype.Float8OID: pgx.BinaryFormatCode, pgtype.ByteaOID: pgx.BinaryFormatCode,
	pgtype.Int2OID: pgx.BinaryFormatCode, pgtype.Int4OID: pgx.BinaryFormatCode, pgtype.Int8OID: pgx.BinaryFormatCode,
	pgtype.TimestampOID: pgx.BinaryFormatCode, pgtype.TimestamptzOID: pgx.BinaryFormatCode,
}

// fetchPostgres is fetch below database/sql, whose values for each cell cost more than all that is done with them.
func (p *poller) fetchPostgres(ctx context.Context, s *statement, extra int) (out []row, err error) {
	out = p.room()
	conn, err := p.db().Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	err = conn.Raw(func(c any) error {
		own := c.(*stdlib.Conn).Conn()
		if own.IsClosed() {
			return driver.ErrBadConn
		}
		rows, err := own.Query(ctx, s.text.String(), append([]any{binaryFormats}, s.args...)...)
		if err != nil {
			return err
		}
		defer rows.Close()
		types := rows.FieldDescriptions()
		for rows.Next() {
			r, err := p.into.take(rows.RawValues(), types, extra)
			if err != nil {
				return err
			}
			out = append(out, r)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// scanner makes rows of what a database returns. One goroutine uses it.
type scanner struct {
	*poller
	columns *signal.Columns
	kinds   []column
	key     []int // where the key's columns are
	said    []said
	// keyIn says that the key is a part of the row as it stands, from the column key[0] on.
	keyIn bool
	// Room for the rows to come: they are made many at a time.
	values, keys []any
	rows         []signal.Row
}

func newScanner(p *poller, columns []column) *scanner {
	x := &scanner{poller: p, kinds: columns, said: make([]said, len(columns))}
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.name
	}
	x.columns = signal.NewColumns(names)
	for _, k := range p.query.Key {
		x.key = append(x.key, slices.Index(names, k))
	}
	x.keyIn = len(x.key) > 0 && x.key[0] >= 0
	for i, at := range x.key {
		x.keyIn = x.keyIn && at == x.key[0]+i
	}
	return x
}

const rowsAtOnce = 128

// next is a row without values.
func (x *scanner) next() (r row, values []any) {
	n := len(x.kinds)
	if len(x.rows) == 0 {
		x.rows, x.values = make([]signal.Row, rowsAtOnce), make([]any, rowsAtOnce*n)
	}
	of := &x.rows[0]
	*of = signal.Row{Columns: x.columns, Values: x.values[:n:n]}
	x.rows, x.values = x.rows[1:], x.values[n:]
	return row{values: of}, of.Values
}

// withKey completes a row that has its values.
func (x *scanner) withKey(r row, values []any) row {
	k := len(x.key)
	if x.keyIn {
		r.key = values[x.key[0] : x.key[0]+k : x.key[0]+k]
		return r
	}
	if len(x.keys) < k {
		x.keys = make([]any, rowsAtOnce*k)
	}
	r.key, x.keys = x.keys[:k:k], x.keys[k:]
	for i, at := range x.key {
		if at >= 0 {
			r.key[i] = values[at]
		}
	}
	return r
}

// scan returns what reads the row at which rows stand.
func (x *scanner) scan(rows *sql.Rows, extra int) func() (row, error) {
	raw, texts := make([]any, len(x.kinds)), make([]sql.NullString, extra)
	into := make([]any, 0, extra+len(raw))
	for i := range texts {
		into = append(into, &texts[i])
	}
	for i := range raw {
		into = append(into, &raw[i])
	}
	return func() (row, error) {
		if err := rows.Scan(into...); err != nil {
			return row{}, err
		}
		r, values := x.next()
		for _, t := range texts {
			r.extra = append(r.extra, t.String)
		}
		for i, c := range x.kinds {
			x.read += size(raw[i])
			var err error
			if values[i], err = c.value(raw[i], x.zone); err != nil {
				return row{}, err
			}
		}
		return x.withKey(r, values), nil
	}
}

// size is about how many bytes a value takes.
func size(raw any) int {
	switch v := raw.(type) {
	case string:
		return len(v)
	case []byte:
		return len(v)
	}
	return 8
}

// take reads a row of PostgreSQL as it came over the line.
func (x *scanner) take(raw [][]byte, types []pgconn.FieldDescription, extra int) (row, error) {
	if len(raw) != extra+len(x.kinds) {
		return row{}, fmt.Errorf("the server returned %d columns, %d were asked for", len(raw), extra+len(x.kinds))
	}
	r, values := x.next()
	for _, t := range raw[:extra] {
		r.extra = append(r.extra, string(t))
	}
	for i, b := range raw[extra:] {
		if b == nil {
			continue
		}
		x.read += len(b)
		v, ok := x.said[i].find(b)
		if !ok {
			var err error
			if v, err = x.kinds[i].postgres(b, types[extra+i].DataTypeOID, x.zone); err != nil {
				return row{}, err
			}
			x.said[i].keep(b, v)
		}
		values[i] = v
	}
	return x.withKey(r, values), nil
}

// postgres turns what the server wrote, in the formats of binaryFormats, into a signal's value.
func (c column) postgres(b []byte, oid uint32, zone *time.Location) (any, error) {
	switch oid {
	case pgtype.BoolOID:
		return string(b) == "t", nil
	case pgtype.OIDOID, pgtype.XIDOID, pgtype.CIDOID:
		return signal.Number(b), nil
	case pgtype.Int2OID:
		if len(b) == 2 {
			return signal.Number(strconv.Itoa(int(int16(binary.BigEndian.Uint16(b))))), nil
		}
	case pgtype.Int4OID:
		if len(b) == 4 {
			return signal.Number(strconv.Itoa(int(int32(binary.BigEndian.Uint32(b))))), nil
		}
	case pgtype.Int8OID:
		if len(b) == 8 {
			return signal.Number(strconv.FormatInt(int64(binary.BigEndian.Uint64(b)), 10)), nil
		}
	case pgtype.TimestampOID, pgtype.TimestamptzOID:
		if len(b) == 8 {
			return c.microseconds(int64(binary.BigEndian.Uint64(b)), zone), nil
		}
	case pgtype.Float4OID:
		if len(b) == 4 {
			return float(float64(math.Float32frombits(binary.BigEndian.Uint32(b))), 32), nil
		}
	case pgtype.Float8OID:
		if len(b) == 8 {
			return float(math.Float64frombits(binary.BigEndian.Uint64(b)), 64), nil
		}
	case pgtype.ByteaOID:
		return bytes.Clone(b), nil
	default:
		return c.text(string(b), zone)
	}
	return nil, fmt.Errorf("column %q has a number or a time of %d bytes", c.name, len(b))
}

// PostgreSQL counts the microseconds since then, and has two values for what lies beyond all times.
const (
	postgresEpoch  = 946_684_800_000_000 // 2000-01-01, in microseconds since 1970
	infiniteFuture = math.MaxInt64
	infinitePast   = math.MinInt64
)

// microseconds makes a time of PostgreSQL's. One that this agent has no time for becomes the text that the server writes for it: an
// infinite one must not stop the whole table.
func (c column) microseconds(n int64, zone *time.Location) any {
	switch n {
	case infiniteFuture:
		return "infinity"
	case infinitePast:
		return "-infinity"
	}
	t := time.UnixMicro(n).Add(postgresEpoch * time.Microsecond).UTC()
	if t.Year() < 1 || t.Year() > 9999 {
		return postgresText(t, c.kind == kindTime)
	}
	if c.kind == kindLocal {
		return c.time(t, zone)
	}
	return t
}

// postgresText is a time as PostgreSQL writes it in UTC.
func postgresText(t time.Time, zoned bool) string {
	year, era := t.Year(), ""
	if year < 1 {
		year, era = 1-year, " BC"
	}
	text := fmt.Sprintf("%04d-%s", year, t.Format("01-02 15:04:05.999999"))
	if zoned {
		text += "+00"
	}
	return text + era
}

// said remembers what the texts of a column were read as: the rows of a table say the same things again and again, and then
// neither text nor value has to be made anew.
type said struct {
	last  string
	value any
	// known has more of them, as long as the column has few; asked and found tell whether that is so.
	known        map[string]any
	asked, found int
}

const (
	saidLongest = 64
	saidMost    = 2048
	saidTrial   = 1024 // values after which a column in which less than half was known is left alone
)

// various reports that the column mostly says something new.
func (s *said) various() bool { return s.asked > saidTrial && s.found < s.asked/2 }

func (s *said) find(text []byte) (v any, ok bool) {
	if s.value != nil && string(text) == s.last {
		return s.value, true
	}
	if s.various() {
		s.known = nil
		return nil, false
	}
	s.asked++
	if v, ok = s.known[string(text)]; ok {
		s.found++
	}
	return v, ok
}

// keep remembers a value that nobody can change.
func (s *said) keep(text []byte, v any) {
	if len(text) > saidLongest {
		return
	}
	switch v := v.(type) {
	case string:
		s.last = v
	case signal.Number:
		s.last = string(v)
	case time.Time, bool:
	default:
		return
	}
	if s.last != string(text) { // the value is no copy of it
		s.last = string(text)
	}
	s.value = v
	if s.various() {
		return
	}
	if s.known == nil || len(s.known) >= saidMost {
		s.known = map[string]any{}
	}
	s.known[s.last] = v
}
