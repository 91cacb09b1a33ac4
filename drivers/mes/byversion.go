package mes

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/polling"
)

// byVer finds new versions of rows by a column that grows with each change. All rows up to Mark, in the order of (version,
// key), are settled. Behind it lies the overlap, which is read again and again, because a change may be committed after
// later ones; Seen has what was emitted there. The overlap begins at the floor: the highest version of the table or the
// database's clock, whichever is lower (one row from the future must not hide the others), minus the configured span.
type byVer struct {
	Mark *place   `json:"mark,omitempty"` // nil: the beginning
	Seen []uint64 `json:"seen,omitempty"` // hashes of places

	seen    map[uint64]bool
	number  bool              // the version is a number, not a time
	settled func(string) bool // whether a version is below the floor
	front   *place            // where the last reading ended
	pass    map[uint64]bool   // what was met since the reading began at Mark; nil when it has reached the end
	dueAt   time.Time         // when to begin at Mark again, by the agent's clock: this is about load only
}

// place is a position in the order of (version, key). The version is text as the database writes it.
type place struct {
	Version string `json:"v"`
	Key     []any  `json:"k"`
}

// maxSeen bounds the memory and the cursor. Beyond it the overlap is cut short, which is reported.
const maxSeen = 50_000

func newByVersion(ctx context.Context, p *poller, known bool) (finder, error) {
	f := p.state.Version
	if f == nil {
		f = &byVer{}
		p.state.Version = f
	}
	f.seen = map[uint64]bool{}
	for _, h := range f.Seen {
		f.seen[h] = true
	}
	c := p.columns[p.column(p.query.Version)]
	f.number = c.kind == kindNumber || c.kind == kindPlain
	if p.config.Driver == "sqlite" && c.kind == kindPlain { // a column's declared type says little there
		texts, err := p.texts(ctx, 1, fmt.Sprintf("SELECT typeof(MAX(%s)) FROM %s", p.dialect.quoteOne(p.query.Version), p.dialect.quote(p.query.Table)))
		if err != nil {
			return nil, err
		}
		f.number = texts[0] == "integer"
	}
	if !known && p.query.Start == "end" {
		return f, f.skipAll(ctx, p)
	}
	return f, nil
}

// skipAll takes what is there now for emitted.
func (f *byVer) skipAll(ctx context.Context, p *poller) error {
	for more := true; more; {
		var err error
		if _, more, err = f.find(ctx, p); err != nil {
			return err
		}
	}
	f.export()
	return p.book.Commit(ctx, p.query.Tag, p.state, nil)
}

func (f *byVer) find(ctx context.Context, p *poller) ([]row, bool, error) {
	started := time.Now()
	if f.pass == nil && !started.Before(f.dueAt) {
		if err := f.measure(ctx, p); err != nil {
			return nil, false, err
		}
		f.front, f.pass = f.Mark, map[uint64]bool{}
	}
	again := f.pass != nil
	var fresh []row
	for {
		rows, err := f.read(ctx, p)
		if err != nil {
			return nil, false, err
		}
		for _, r := range rows {
			if f.note(p, r) {
				fresh = append(fresh, r)
			}
		}
		if len(rows) < p.limit() {
			break
		}
		if len(fresh) > 0 {
			f.export()
			return fresh, true, nil
		}
	}
	if again {
		f.seen, f.pass = f.pass, nil
		f.dueAt = time.Now().Add(10 * time.Since(started)) // a tenth of the time at most
	}
	f.export()
	return fresh, false, nil
}

func (f *byVer) export() {
	f.Seen = f.Seen[:0]
	for h := range f.seen {
		f.Seen = append(f.Seen, h)
	}
	slices.Sort(f.Seen)
}

// note moves front and mark behind a row and reports whether the row was not emitted before. Rows come in order.
func (f *byVer) note(p *poller, r row) bool {
	at := place{Version: r.version, Key: r.key}
	h := at.hash()
	known := f.seen[h]
	f.front = &at
	if !f.settled(at.Version) && len(f.seen) < maxSeen {
		f.seen[h] = true
		if f.pass != nil {
			f.pass[h] = true
		}
		return !known
	}
	if !f.settled(at.Version) {
		p.env.Reporter.Problem("overlap:"+p.query.Tag, &signal.Problem{Code: "overlap_shortened", Item: p.query.Table,
			Reason:   fmt.Sprintf("more than %d rows changed within the overlap: a change that is committed late may be missed", maxSeen),
			NextStep: "shorten overlap to the longest time that a transaction of the MES stays open"})
		clear(f.seen)
		clear(f.pass)
	}
	f.Mark = &at
	delete(f.seen, h)
	return !known
}

func (p place) hash() uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s|%s", p.Version, keyText(p.Key))
	return h.Sum64()
}

// read returns the next rows behind the front, in order.
func (f *byVer) read(ctx context.Context, p *poller) ([]row, error) {
	version := p.col(p.query.Version)
	s := p.selectRows(fmt.Sprintf(p.dialect.text, version))
	if f.front == nil {
		s.add(" WHERE %s IS NOT NULL", version)
	} else {
		at := f.front
		s.add(" WHERE (%s > %s OR (%s = %s AND ", version, f.argument(s, at), version, f.argument(s, at))
		p.behindKey(s, at.Key)
		s.add("))")
	}
	order := append([]string{p.query.Version}, p.query.Key...)
	s.add(" ORDER BY %s ", p.cols(order)).add(p.dialect.limit, p.limit())
	rows, err := p.fetch(ctx, s, 1)
	for i := range rows {
		rows[i].version = rows[i].extra[0]
	}
	return rows, err
}

// behindKey adds the condition that the key columns come after the given values, spelled out for databases that cannot
// compare rows.
func (p *poller) behindKey(s *statement, key []any) {
	for i, name := range p.query.Key {
		column, value := p.col(name), parameter(key[i])
		if i == len(key)-1 {
			s.add("%s > %s", column, s.arg(value))
			break
		}
		s.add("(%s > %s OR %s = %s AND ", column, s.arg(value), column, s.arg(value))
	}
	for range len(key) - 1 {
		s.add(")")
	}
}

func (f *byVer) argument(s *statement, at *place) string {
	if n, err := strconv.ParseInt(at.Version, 10, 64); err == nil && f.number {
		return s.arg(n)
	}
	return s.arg(at.Version)
}

// measure asks the database where the floor is now.
func (f *byVer) measure(ctx context.Context, p *poller) error {
	version := p.dialect.quoteOne(p.query.Version)
	texts, err := p.texts(ctx, 1, fmt.Sprintf("SELECT %s FROM %s", fmt.Sprintf(p.dialect.text, "MAX("+version+")"), p.dialect.quote(p.query.Table)))
	if err != nil {
		return err
	}
	highest := texts[0]
	if highest == "" {
		f.settled = func(string) bool { return false }
		return nil
	}
	if f.number {
		return f.measureNumber(p, highest)
	}
	return f.measureTime(ctx, p, highest)
}

func (f *byVer) measureNumber(p *poller, highest string) error {
	top, err := strconv.ParseInt(highest, 10, 64)
	if err != nil {
		return notVersion(p, highest)
	}
	f.settled = func(v string) bool {
		n, err := strconv.ParseInt(v, 10, 64)
		return err == nil && n <= top-p.query.OverlapRows
	}
	return nil
}

func (f *byVer) measureTime(ctx context.Context, p *poller, highest string) error {
	zone := p.zone
	if p.columns[p.column(p.query.Version)].kind == kindTime {
		zone = time.UTC
	}
	top, ok := parseTime(highest, zone)
	if !ok {
		return notVersion(p, highest)
	}
	now, err := p.now(ctx)
	if err != nil {
		return err
	}
	if now.Before(top) {
		top = now
	}
	floor := top.Add(-p.query.Overlap)
	f.settled = func(v string) bool {
		t, ok := parseTime(v, zone)
		return ok && !t.After(floor)
	}
	return nil
}

func notVersion(p *poller, value string) error {
	return &polling.ProblemError{Problem: signal.Problem{Code: "version_unusable", Item: p.query.Version,
		Reason:   fmt.Sprintf("version column %q holds %q, which is neither a time nor a whole number", p.query.Version, value),
		NextStep: "name a column with the time of the change or a number that grows with each change"}}
}
