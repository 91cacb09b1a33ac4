package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/mapping"
)

// Tx is a write transaction. It is valid inside the function that Update was given and in no other goroutine.
type Tx struct {
	s       *Store
	ctx     context.Context
	now     time.Time
	touched map[Topic]struct{}
	changed []orderID
	counts  map[postingKind]int64 // to be stored with the commit

	// What was read and is asked for again and again by a transaction that plans many facts.
	orders   map[orderOf]foundOrder
	residues map[residueOf]decimal.Decimal
	rules    *mapping.Rules
}

// update is a function that waits for its turn in a write transaction.
type update struct {
	fn     func(*Tx) error
	again  bool // fn may be called again after its work was undone
	check  bool // only finds out whether the disk takes writes
	calm   bool // may wait for others
	tx     *Tx
	err    error
	failed bool // err is fn's own
	done   chan struct{}
}

const (
	updatesAtOnce = 64 // in one transaction

	// What Unhurried waits for: so many others, or so long: about as long as a commit takes.
	companySize = 16
	companyTime = 2 * time.Millisecond
)

// Update runs fn in a write transaction: all of it is committed, or none when fn or the commit returns an error. Functions
// that wait at the same time share one commit: each is undone alone when it fails, and all fail together when the commit
// does. Update waits for other writers as long as ctx allows; once begun it is not cut short by ctx. fn must use its Tx for
// reading too where it wants to see what it has written, and may run on another goroutine than the caller's.
func (s *Store) Update(ctx context.Context, fn func(*Tx) error) error {
	return s.wait(ctx, &update{fn: fn})
}

// Repeat is Update for a function that writes much and that may be called again after its work was undone: it must set
// whatever it fills outside of itself anew at its start. That saves keeping each page that it changes as it was before.
func (s *Store) Repeat(ctx context.Context, fn func(*Tx) error) error {
	return s.wait(ctx, &update{fn: fn, again: true})
}

// Unhurried is Update for one of many that go on side by side: before it begins it waits a moment for others to share its
// commit, which costs more than what most of them write. Whoever is in a hurry takes it along at once.
func (s *Store) Unhurried(ctx context.Context, fn func(*Tx) error) error {
	return s.wait(ctx, &update{fn: fn, calm: true})
}

func (s *Store) wait(ctx context.Context, u *update) error {
	u.done = make(chan struct{})
	u.tx = &Tx{s: s, ctx: context.WithoutCancel(ctx), touched: map[Topic]struct{}{}}
	s.join(u)
	select {
	case <-u.done:
	case _, open := <-s.write: // now this goroutine writes, for all that wait
		if !open && u.isDone() {
			return u.err
		}
		if !open {
			return ErrClosed
		}
		for !u.isDone() {
			s.gather()
			s.writeGroup()
		}
		s.write <- struct{}{}
	case <-ctx.Done():
		if s.withdraw(u) {
			return fmt.Errorf("wait for the store's writer: %w", ctx.Err())
		}
		<-u.done
	}
	return u.err
}

func (s *Store) join(u *update) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append(s.queue, u)
	if s.company != nil && !s.calm() {
		close(s.company)
		s.company = nil
	}
}

// calm reports that those who wait are few and in no hurry; s.mu is held.
func (s *Store) calm() bool {
	return len(s.queue) < companySize && !slices.ContainsFunc(s.queue, func(u *update) bool { return !u.calm })
}

// gather lets those who are in no hurry wait for others.
func (s *Store) gather() {
	s.mu.Lock()
	if !s.calm() {
		s.mu.Unlock()
		return
	}
	enough := make(chan struct{})
	s.company = enough
	s.mu.Unlock()
	timer := time.NewTimer(s.companyTime)
	defer timer.Stop()
	select {
	case <-enough:
		return
	case <-timer.C:
	}
	s.mu.Lock()
	s.company = nil
	s.mu.Unlock()
}

func (u *update) isDone() bool {
	select {
	case <-u.done:
		return true
	default:
		return false
	}
}

// withdraw takes an update out of the queue; false when a writer has it already.
func (s *Store) withdraw(u *update) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.queue, u)
	if i >= 0 {
		s.queue = slices.Delete(s.queue, i, i+1)
	}
	return i >= 0
}

// writeGroup runs the next waiting functions in one transaction and tells them how it went.
func (s *Store) writeGroup() {
	s.mu.Lock()
	n := min(len(s.queue), updatesAtOnce)
	group := slices.Clone(s.queue[:n])
	s.queue = slices.Delete(s.queue, 0, n)
	s.mu.Unlock()
	if n == 0 {
		return
	}
	err := runGroup(group, s.now())
	touched := map[Topic]struct{}{}
	for _, u := range group {
		if err != nil && u.err == nil {
			u.err = err
		}
		if u.err == nil {
			maps.Copy(touched, u.tx.touched)
		}
		s.latest.forget(u.tx.changed)
	}
	s.judge(group)
	s.announce(touched)
	for _, u := range group {
		close(u.done)
	}
}

// runGroup returns the error that concerns all of the group, and leaves in each what concerns it alone.
//
// Functions that may be called again come first and are not guarded: when one fails, all is undone and the others start
// over without it. Then each of the rest is guarded by a savepoint, because the work before it must not be lost with it.
func runGroup(group []*update, now time.Time) error {
	slices.SortStableFunc(group, func(a, b *update) int {
		switch {
		case a.again == b.again:
			return 0
		case a.again:
			return -1
		}
		return 1
	})
	tx := group[0].tx
	rest, err := tx.openingPart(group, now)
	if err != nil {
		return err
	}
	kept := slices.ContainsFunc(group, func(u *update) bool { return u.again && !u.failed })
	for _, u := range rest {
		u.tx.now = now
		run := u.run
		if len(rest) == 1 && !kept {
			run = u.alone
		}
		if broken, err := run(); broken {
			_, undo := tx.exec("ROLLBACK")
			return errors.Join(err, undo)
		}
		kept = kept || !u.failed
	}
	if !kept {
		if _, err := tx.exec("ROLLBACK"); err != nil {
			return fmt.Errorf("roll back transaction: %w", err)
		}
		return nil
	}
	if err := tx.storeCounts(group); err != nil {
		_, undo := tx.exec("ROLLBACK")
		return errors.Join(err, undo)
	}
	if _, err := tx.exec("COMMIT"); err != nil {
		_, undo := tx.exec("ROLLBACK")
		return errors.Join(fmt.Errorf("commit transaction: %w", err), undo)
	}
	return nil
}

// openingPart begins the transaction with the functions that may be called again, and returns those that may not.
func (tx *Tx) openingPart(group []*update, now time.Time) (rest []*update, err error) {
	for {
		if _, err := tx.exec(beginWrite); err != nil {
			return nil, fmt.Errorf("begin transaction: %w", err)
		}
		if err := tx.stillOwner(); err != nil {
			_, undo := tx.exec("ROLLBACK")
			return nil, errors.Join(err, undo)
		}
		i := 0
		for ; i < len(group) && group[i].again; i++ {
			u := group[i]
			if u.failed {
				continue
			}
			u.tx.now = now
			clear(u.tx.touched)
			u.tx.orders, u.tx.residues, u.tx.rules, u.tx.counts = nil, nil, nil, nil
			if u.alone(); u.failed {
				break
			}
		}
		if i == len(group) || !group[i].again {
			return group[i:], nil
		}
		if _, err := tx.exec("ROLLBACK"); err != nil {
			return nil, fmt.Errorf("roll back transaction: %w", err)
		}
	}
}

// alone calls the function where nothing is lost when all is undone.
func (u *update) alone() (broken bool, err error) {
	u.err = u.fn(u.tx)
	u.failed = u.err != nil
	return false, u.err
}

// run calls the function and undoes what it did when it fails; broken says that this did not work.
func (u *update) run() (broken bool, err error) {
	if _, err := u.tx.exec("SAVEPOINT one"); err != nil {
		return true, fmt.Errorf("begin part of a transaction: %w", err)
	}
	if u.alone(); u.failed {
		if _, err := u.tx.exec("ROLLBACK TO one"); err != nil {
			return true, errors.Join(u.err, fmt.Errorf("undo part of a transaction: %w", err))
		}
	}
	if _, err := u.tx.exec("RELEASE one"); err != nil {
		return true, fmt.Errorf("end part of a transaction: %w", err)
	}
	return false, u.err
}

// Now is the time of the transaction: everything written in it carries the same.
func (tx *Tx) Now() time.Time { return tx.now }

// querier is what reading needs: a Tx sees its own writes, a Store what is committed.
type querier interface {
	query(ctx context.Context, q string, args ...any) (*sql.Rows, error)
}

func (tx *Tx) stmt(q string) (*sql.Stmt, error) {
	if st := tx.s.stmts[q]; st != nil {
		return st, nil
	}
	st, err := tx.s.conn.PrepareContext(tx.ctx, unnamed(q))
	if err == nil {
		tx.s.stmts[q] = st
	}
	return st, err
}

func (tx *Tx) exec(q string, args ...any) (sql.Result, error) {
	st, err := tx.stmt(q)
	if err != nil {
		return nil, err
	}
	return st.ExecContext(tx.ctx, args...)
}

func (tx *Tx) query(_ context.Context, q string, args ...any) (*sql.Rows, error) {
	st, err := tx.stmt(q)
	if err != nil {
		return nil, err
	}
	return st.QueryContext(tx.ctx, args...)
}

// query keeps the statements of the readers: parsing one costs as much as running it. There are few texts, because filters
// only combine a few conditions.
func (s *Store) query(ctx context.Context, q string, args ...any) (*sql.Rows, error) {
	st, err := s.reader(ctx, q)
	if err != nil {
		return nil, err
	}
	return st.QueryContext(ctx, args...)
}

func (s *Store) reader(ctx context.Context, q string) (*sql.Stmt, error) {
	if st, ok := s.reads.Load(q); ok {
		return st.(*sql.Stmt), nil
	}
	st, err := s.ro.PrepareContext(ctx, unnamed(q))
	if err != nil {
		return nil, err
	}
	if other, loaded := s.reads.LoadOrStore(q, st); loaded {
		st.Close()
		st = other.(*sql.Stmt)
	}
	return st, nil
}

// collect reads all rows of a query.
func collect[T any](ctx context.Context, db querier, scan func(*sql.Rows) (T, error), q string, args ...any) ([]T, error) {
	rows, err := db.query(ctx, q, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}

// first reads the first row of a query; ErrNotFound when there is none.
func first[T any](ctx context.Context, db querier, scan func(*sql.Rows) (T, error), q string, args ...any) (T, error) {
	all, err := collect(ctx, db, scan, q, args...)
	if err == nil && len(all) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		var zero T
		return zero, err
	}
	return all[0], nil
}

// lookup is first for a question that an index answers at once. Once asked it is not cut short by ctx: to be ready for that, the
// driver and its pool run two goroutines for each question, which costs more than such an answer.
func lookup[T any](ctx context.Context, db querier, scan func(*sql.Rows) (T, error), q string, args ...any) (v T, err error) {
	if err := ctx.Err(); err != nil {
		return v, err
	}
	return first(context.WithoutCancel(ctx), db, scan, q, args...)
}

func scanValue[T any](r *sql.Rows) (v T, err error) { return v, r.Scan(&v) }

// Page cuts a list that is ordered newest first. Before is the id of the last row of the page before, 0 for the first page;
// Limit is 100 when 0 and never above 1,000.
type Page struct {
	Before int64
	Limit  int
}

func (p Page) before() int64 {
	if p.Before <= 0 {
		return 1<<63 - 1
	}
	return p.Before
}

func (p Page) limit() int {
	if p.Limit <= 0 {
		return 100
	}
	return min(p.Limit, 1000)
}

// where collects the conditions of a query with numbered arguments.
type where struct {
	text string
	args []any
}

func (w *where) and(condition string, args ...any) {
	for _, a := range args {
		w.args = append(w.args, a)
		condition = strings.Replace(condition, "?", fmt.Sprintf("$%d", len(w.args)), 1)
	}
	if w.text != "" {
		w.text += " AND "
	}
	w.text += condition
}

// andText adds the condition only for a filter that is set.
func (w *where) andText(condition, value string) {
	if value != "" {
		w.and(condition, value)
	}
}

func (w *where) String() string {
	if w.text == "" {
		return ""
	}
	return " WHERE " + w.text
}
