package store

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// A database has one owner at a time: the hub that may write. Two things guard that.
//
// The lock on a file keeps a second hub out as long as both mean the same file. It fails when somebody deletes the file, or
// when the database is reached by two paths. So the owner is also written into the database, with a mark of the lock file by
// which it was taken. Who holds that very lock knows that the owner before is dead. Who holds another asks the owner through
// the database, and is refused when it answers.
//
// An owner that cannot answer (a stopped process, a frozen machine) is taken for dead. When it wakes up all the same, its next
// write transaction finds another owner and fails with ErrTakenOver: each write transaction looks first.

// ErrTakenOver says that another hub has become the owner of the database. This one must end: nothing it writes is stored.
var ErrTakenOver = errors.New("another hub has taken the database over")

const (
	answerEvery = 2 * time.Second // how often an owner looks whether it is asked
	answerTime  = 8 * time.Second // how long an owner may take to answer
)

// owner is what the database says of its owner. Session is different each time that a hub opens the database.
type owner struct {
	Session string    `json:"session"`
	Lock    string    `json:"lock"`
	Host    string    `json:"host"`
	Process int       `json:"process"`
	Since   time.Time `json:"since"`
}

func (o owner) String() string {
	return fmt.Sprintf("process %d on %q, since %s", o.Process, o.Host, o.Since.Format(time.RFC3339))
}

// own makes this store the owner, after it has asked another one that may be alive. Nothing else is written yet.
func (s *Store) own(ctx context.Context, lockMark string) error {
	host, _ := os.Hostname() // only shown
	me := owner{Session: rand.Text(), Lock: lockMark, Host: host, Process: os.Getpid(), Since: s.now().UTC().Truncate(time.Second)}
	text, err := json.Marshal(me)
	if err != nil {
		return err
	}
	silent := "" // the owner that was asked and did not answer
	for {
		var before string
		err := s.Update(ctx, func(tx *Tx) (err error) {
			if before, err = tx.metaText("owner"); err != nil {
				return err
			}
			if before == "" || before == silent || ownerOf(before).Lock == lockMark {
				before = ""
				return tx.setMeta("owner", string(text))
			}
			return tx.setMeta("question", me.Session)
		})
		if err != nil {
			return err
		}
		if before == "" {
			s.session = string(text)
			return nil
		}
		answered, err := s.answered(ctx, me.Session)
		if err != nil {
			return err
		}
		if answered {
			return fmt.Errorf("%w: %s, answers although its lock file is not this one (was the file deleted, or is the database reached by two paths?)",
				ErrLocked, ownerOf(before))
		}
		silent = before
	}
}

func ownerOf(text string) (o owner) {
	json.Unmarshal([]byte(text), &o) // what cannot be read has no lock's mark, and is asked
	return o
}

// answered waits for the owner's answer to a question.
func (s *Store) answered(ctx context.Context, question string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	tick := time.NewTicker(answerTime / 40)
	defer tick.Stop()
	for {
		answer, err := metaText(ctx, s, "answer")
		switch {
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			return false, nil
		case err != nil:
			return false, err
		case answer == question:
			return true, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return false, ctx.Err()
			}
		}
	}
}

// Guard answers other hubs that ask whether this one is alive, until ctx ends. It returns ErrTakenOver when another hub
// has become the owner all the same: then this one must end at once.
func (s *Store) Guard(ctx context.Context) error {
	tick := time.NewTicker(answerEvery)
	defer tick.Stop()
	last := ""
	for {
		err := s.guard(ctx, &last)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, ErrTakenOver) || errors.Is(err, ErrClosed) {
			return err
		}
		// Any other failure is the database's: who writes will see it, and the next round asks again.
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *Store) guard(ctx context.Context, last *string) error {
	texts, err := collect(ctx, s, scanValue[string], "SELECT value FROM meta WHERE name IN ('owner', 'question') ORDER BY name")
	if err != nil || len(texts) == 0 {
		return err
	}
	if texts[0] != s.session {
		return fmt.Errorf("%w: %s", ErrTakenOver, ownerOf(texts[0]))
	}
	if len(texts) == 1 || texts[1] == *last {
		return nil
	}
	question := texts[1]
	err = s.Update(ctx, func(tx *Tx) error { return tx.setMeta("answer", question) })
	if err == nil {
		*last = question
	}
	return err
}

// stillOwner is asked at the start of each write transaction, which keeps others from writing until its end.
func (tx *Tx) stillOwner() error {
	if tx.s.session == "" {
		return nil // about to become it
	}
	now, err := tx.metaText("owner")
	if err == nil && now != tx.s.session {
		err = fmt.Errorf("%w: %s", ErrTakenOver, ownerOf(now))
	}
	return err
}

func (tx *Tx) metaText(name string) (string, error) { return metaText(tx.ctx, tx, name) }

// metaText reads a text of the table meta, empty when it is not there.
func metaText(ctx context.Context, db querier, name string) (string, error) {
	text, err := lookup(ctx, db, scanValue[string], "SELECT value FROM meta WHERE name = $1", name)
	if errors.Is(err, ErrNotFound) {
		return "", nil
	}
	return text, err
}

func (tx *Tx) setMeta(name, value string) error {
	_, err := tx.exec("INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value", name, value)
	return err
}

// markLock returns the mark in a lock file, which is written when there is none: a file that was deleted and made again has
// another one.
func markLock(f *os.File) (string, error) {
	mark := make([]byte, 26)
	n, err := f.ReadAt(mark, 1) // the first byte is what Windows locks
	if n == len(mark) {
		return string(mark), nil
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the mark in lock file %q: %w", f.Name(), err)
	}
	text := "\n" + rand.Text()
	if _, err := f.WriteAt([]byte(text), 0); err != nil {
		return "", fmt.Errorf("mark lock file %q: %w", f.Name(), err)
	}
	if err := f.Sync(); err != nil {
		return "", fmt.Errorf("mark lock file %q: %w", f.Name(), err)
	}
	return text[1:], nil
}
