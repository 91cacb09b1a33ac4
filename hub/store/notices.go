package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Notice is what a receiver was told of an exception.
type Notice struct {
	Receiver, Ref string
	Since         time.Time // of the exception when it was told
	Tier          int
	At            time.Time
	Message       string
}

// MessageState is where a message stands.
type MessageState string

// The states of a message.
const (
	MessageDue       MessageState = "due"
	MessageDelivered MessageState = "delivered"
	MessageDropped   MessageState = "dropped" // given up, or its receiver is not configured any more
)

// Message is something said to a receiver. Body never changes.
type Message struct {
	ID        int64
	MessageID string // by which the receiver knows one that comes again
	Receiver  string
	Topic     string // what messages are gathered by; "" for one by itself
	Subject   string
	Entries   int // exceptions that it tells of
	Body      string
	MadeAt    time.Time
	State     MessageState
	Tries     int
	NextAt    time.Time
	EndedAt   time.Time
	Reason    string // of the last failure
	Answer    string // what the receiver said
}

const messageColumns = "SELECT id, message_id, receiver, topic, subject, entries, body, made_at, state, tries, next_at, ended_at, reason, answer FROM messages"

func scanMessage(r *sql.Rows) (m Message, err error) {
	var made, next, ended int64
	err = r.Scan(&m.ID, &m.MessageID, &m.Receiver, &m.Topic, &m.Subject, &m.Entries, &m.Body, &made, &m.State, &m.Tries, &next, &ended, &m.Reason, &m.Answer)
	m.MadeAt, m.NextAt, m.EndedAt = at(made), at(next), at(ended)
	return m, err
}

// Notices reads what was told of everything.
func (s *Store) Notices(ctx context.Context) ([]Notice, error) {
	return s.notices(ctx, "")
}

// NoticesOf reads what was told of one exception, oldest first.
func (s *Store) NoticesOf(ctx context.Context, ref string) ([]Notice, error) {
	return s.notices(ctx, " WHERE ref = $1 ORDER BY at, receiver", ref)
}

func (s *Store) notices(ctx context.Context, which string, args ...any) ([]Notice, error) {
	all, err := collect(ctx, s, func(r *sql.Rows) (n Notice, err error) {
		var since, told int64
		err = r.Scan(&n.Receiver, &n.Ref, &since, &n.Tier, &told, &n.Message)
		n.Since, n.At = at(since), at(told)
		return n, err
	}, "SELECT receiver, ref, since, tier, at, message_id FROM notices"+which, args...)
	if err != nil {
		return nil, fmt.Errorf("read what was told of exceptions: %w", err)
	}
	return all, nil
}

// AddMessage stores a message and what it tells, in one transaction: news are of exceptions that its receiver was told nothing of,
// again of others, over the refs of those that it says have ended. It fills in ID, MadeAt, State and NextAt.
func (s *Store) AddMessage(ctx context.Context, m *Message, news, again []Notice, over []string) error {
	err := s.Update(ctx, func(tx *Tx) error {
		m.MadeAt, m.NextAt, m.State = tx.now, tx.now, MessageDue
		res, err := tx.exec(`INSERT INTO messages (message_id, receiver, topic, subject, entries, body, made_at, state, next_at) VALUES ($1, $2, $3, $4, $5, $6, $7, 'due', $7)`,
			m.MessageID, m.Receiver, m.Topic, m.Subject, m.Entries, m.Body, us(tx.now))
		if err != nil {
			return err
		}
		if m.ID, err = res.LastInsertId(); err != nil {
			return err
		}
		gone := slices.Clone(over)
		for _, n := range again {
			gone = append(gone, n.Ref)
		}
		for _, ref := range gone {
			if _, err := tx.exec("DELETE FROM notices WHERE receiver = $1 AND ref = $2", m.Receiver, ref); err != nil {
				return err
			}
		}
		rows := make([][]any, 0, len(news)+len(again))
		for _, n := range slices.Concat(news, again) {
			rows = append(rows, []any{m.Receiver, n.Ref, us(n.Since), n.Tier, us(tx.now), m.MessageID})
		}
		return tx.insertRows("notices (receiver, ref, since, tier, at, message_id)", rows)
	})
	if err != nil {
		return fmt.Errorf("store a message to %q: %w", m.Receiver, err)
	}
	return nil
}

// ForgetNotices lets go of what was told of exceptions that are settled.
func (s *Store) ForgetNotices(ctx context.Context, refs []string) error {
	for part := range slices.Chunk(refs, 500) {
		err := s.Update(ctx, func(tx *Tx) error {
			for _, ref := range part {
				if _, err := tx.exec("DELETE FROM notices WHERE ref = $1", ref); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("forget what was told of settled exceptions: %w", err)
		}
	}
	return nil
}

// NextMessage is the message to a receiver whose turn comes first. ErrNotFound when there is none.
func (s *Store) NextMessage(ctx context.Context, receiver string) (Message, error) {
	m, err := first(ctx, s, scanMessage, messageColumns+" WHERE receiver = $1 AND state = 'due' ORDER BY next_at, id LIMIT 1", receiver)
	if err != nil && !errors.Is(err, ErrNotFound) {
		err = fmt.Errorf("look for messages to %q: %w", receiver, err)
	}
	return m, err
}

// Paced are the messages since a time, and those that are due, without their bodies, oldest first.
func (s *Store) Paced(ctx context.Context, since time.Time) ([]Message, error) {
	all, err := collect(ctx, s, func(r *sql.Rows) (m Message, err error) {
		var made int64
		err = r.Scan(&m.Receiver, &m.Topic, &m.State, &m.Entries, &made)
		m.MadeAt = at(made)
		return m, err
	}, `SELECT receiver, topic, state, entries, made_at FROM messages WHERE made_at >= $1
		UNION ALL SELECT receiver, topic, state, entries, made_at FROM messages WHERE state = 'due' AND made_at < $1 ORDER BY made_at`, us(since))
	if err != nil {
		return nil, fmt.Errorf("read the latest messages: %w", err)
	}
	return all, nil
}

// PutMessage stores what became of a message. With an alarm text it is visible in the inbox that the receiver cannot be reached, with
// settled that it can.
func (s *Store) PutMessage(ctx context.Context, m Message, alarm, nextStep string, settled bool) error {
	err := s.Update(ctx, func(tx *Tx) error {
		if m.State != MessageDue {
			m.EndedAt = tx.now
		}
		_, err := tx.exec("UPDATE messages SET state = $2, tries = $3, next_at = $4, ended_at = $5, reason = $6, answer = $7 WHERE id = $1",
			m.ID, string(m.State), m.Tries, us(m.NextAt), us(m.EndedAt), m.Reason, m.Answer)
		switch {
		case err != nil:
			return err
		case alarm != "":
			return tx.RaiseAlarm(ReceiverSubject(m.Receiver), AlarmNotDelivered, alarm, nextStep)
		case settled:
			return tx.SettleAlarm(ReceiverSubject(m.Receiver), AlarmNotDelivered, "a message was delivered")
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("store what became of message %s to %q: %w", m.MessageID, m.Receiver, err)
	}
	return nil
}

// AlarmNotDelivered is the code of the alarm about a receiver that cannot be reached.
const AlarmNotDelivered = "not_delivered"

// ReceiverSubject is the subject of alarms about a receiver.
func ReceiverSubject(receiver string) string { return "receiver " + receiver }

// KeepReceivers drops what waits for receivers that are not configured any more, and what they were told, and their alarms.
func (s *Store) KeepReceivers(ctx context.Context, names []string) error {
	known := make([]any, len(names))
	for i, n := range names {
		known[i] = n
	}
	err := s.Update(ctx, func(tx *Tx) error {
		gone, err := collect(tx.ctx, tx, scanValue[string], `SELECT DISTINCT receiver FROM notices WHERE receiver NOT IN (`+in(0, len(known))+`)
			UNION SELECT DISTINCT receiver FROM messages WHERE state = 'due' AND receiver NOT IN (`+in(0, len(known))+`)`, known...)
		for _, name := range gone {
			if err == nil {
				_, err = tx.exec("UPDATE messages SET state = 'dropped', ended_at = $2, reason = 'the receiver is not configured any more' WHERE receiver = $1 AND state = 'due'", name, us(tx.now))
			}
			if err == nil {
				_, err = tx.exec("DELETE FROM notices WHERE receiver = $1", name)
			}
			if err == nil {
				err = tx.SettleAlarm(ReceiverSubject(name), AlarmNotDelivered, "the receiver is not configured any more")
			}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("let go of receivers that are not configured: %w", err)
	}
	return nil
}

// TrimMessages deletes messages that ended before a time, at most limit.
func (s *Store) TrimMessages(ctx context.Context, before time.Time, limit int) error {
	err := s.Update(ctx, func(tx *Tx) error {
		_, err := tx.exec("DELETE FROM messages WHERE id IN (SELECT id FROM messages WHERE made_at < $1 AND state <> 'due' ORDER BY made_at LIMIT $2)", us(before), limit)
		return err
	})
	if err != nil {
		return fmt.Errorf("let go of old messages: %w", err)
	}
	return nil
}

// MessageFilter chooses messages; empty fields choose all.
type MessageFilter struct{ Receiver, State string }

// Messages lists messages, newest first.
func (s *Store) Messages(ctx context.Context, f MessageFilter, page Page) ([]Message, error) {
	var w where
	w.and("id < ?", page.before())
	w.andText("receiver = ?", f.Receiver)
	w.andText("state = ?", f.State)
	all, err := collect(ctx, s, scanMessage, messageColumns+w.String()+" ORDER BY id DESC LIMIT "+fmt.Sprint(page.limit()), w.args...)
	if err != nil {
		return nil, fmt.Errorf("list messages: %w", err)
	}
	return all, nil
}

// MessageCount is how many messages to a receiver are in a state.
type MessageCount struct {
	Receiver string
	State    MessageState
	Count    int64
	Oldest   time.Time
}

// MessageCounts counts messages of the time for which they are kept.
func (s *Store) MessageCounts(ctx context.Context) ([]MessageCount, error) {
	all, err := collect(ctx, s, func(r *sql.Rows) (c MessageCount, err error) {
		var made int64
		err = r.Scan(&c.Receiver, &c.State, &c.Count, &made)
		c.Oldest = at(made)
		return c, err
	}, "SELECT receiver, state, COUNT(*), MIN(made_at) FROM messages GROUP BY receiver, state ORDER BY receiver, state")
	if err != nil {
		return nil, fmt.Errorf("count messages: %w", err)
	}
	return all, nil
}
