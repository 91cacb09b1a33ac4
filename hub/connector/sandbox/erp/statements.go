package erp

import (
	"context"
	"database/sql"
	"errors"
	"sync"
)

// statements runs statements on a database or a connection and keeps them: to parse one costs more than to run it.
type statements struct {
	on interface {
		PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
	}
	known sync.Map // text to *sql.Stmt
}

func (s *statements) prepare(query string) (*sql.Stmt, error) {
	if st, ok := s.known.Load(query); ok {
		return st.(*sql.Stmt), nil
	}
	st, err := s.on.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, err
	}
	if other, met := s.known.LoadOrStore(query, st); met {
		st.Close()
		st = other.(*sql.Stmt)
	}
	return st, nil
}

// Query runs a statement that returns rows.
func (s *statements) Query(query string, args ...any) (*sql.Rows, error) {
	st, err := s.prepare(query)
	if err != nil {
		return nil, err
	}
	return st.Query(args...)
}

// Exec runs a statement that returns none.
func (s *statements) Exec(query string, args ...any) (sql.Result, error) {
	st, err := s.prepare(query)
	if err != nil {
		return nil, err
	}
	return st.Exec(args...)
}

// inTx runs work in one transaction that the end of a request cannot cut in half.
func (e *ERP) inTx(work func(tx *statements) error) error {
	e.writing.Lock()
	defer e.writing.Unlock()
	if _, err := e.write.Exec("begin immediate"); err != nil {
		return err
	}
	err := work(&e.write)
	if err == nil {
		_, err = e.write.Exec("commit")
	}
	if err != nil {
		_, undo := e.write.Exec("rollback")
		err = errors.Join(err, undo)
	}
	return err
}

// change runs one statement in a transaction of its own.
func (e *ERP) change(query string, args ...any) error {
	return e.inTx(func(tx *statements) error {
		_, err := tx.Exec(query, args...)
		return err
	})
}

// querier is what reading needs of a database or of a transaction.
type querier interface {
	Query(query string, args ...any) (*sql.Rows, error)
}

type scanner interface{ Scan(dest ...any) error }

func collect[T any](q querier, scan func(scanner) (T, error), query string, args ...any) ([]T, error) {
	rows, err := q.Query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := []T{}
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}

// first reads the first row; sql.ErrNoRows when there is none.
func first[T any](q querier, scan func(scanner) (T, error), query string, args ...any) (v T, err error) {
	all, err := collect(q, scan, query, args...)
	if err == nil && len(all) == 0 {
		err = sql.ErrNoRows
	}
	if err == nil {
		v = all[0]
	}
	return v, err
}

func scanValue[T any](row scanner) (v T, err error) { return v, row.Scan(&v) }
