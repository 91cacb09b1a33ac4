package notify

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/linekeeper/linekeeper/hub/store"
)

// How a message that was not delivered is tried again.
const (
	sendTime     = 30 * time.Second // for one try
	firstBackoff = 5 * time.Second
	lastBackoff  = 10 * time.Minute
	lastingPause = 10 * time.Minute // after what is the same again soon
	giveUp       = 7 * 24 * time.Hour
	triesToAlarm = 2
	idleAtMost   = time.Minute // the clock may be set
)

// deliver brings the messages to one receiver until ctx ends. Messages that fail wait for their next turn and hold up no other.
func (n *Notifier) deliver(ctx context.Context, p *post) {
	defer p.rest()
	first := true
	for ctx.Err() == nil {
		m, err := n.o.Store.NextMessage(ctx, p.name)
		wait := idleAtMost
		switch {
		case err == nil:
			wait = min(m.NextAt.Sub(n.o.Now()), idleAtMost)
		case !errors.Is(err, store.ErrNotFound) && ctx.Err() == nil:
			n.o.Logger.Warn("messages could not be read; they are later", "receiver", p.name, "error", err)
			wait = lookPause
		}
		if wait > 0 || err != nil {
			if !pause(ctx, wait, p.bell) {
				return
			}
			continue
		}
		if !n.try(ctx, p, m, first) && !pause(ctx, lookPause, nil) {
			return
		}
		first = false
	}
}

// try sends a message and stores what became of it. It is stored afterwards: after a crash in between the message is sent once more,
// with the same id. false: it could not be stored.
func (n *Notifier) try(ctx context.Context, p *post, m store.Message, settle bool) bool {
	call, cancel := context.WithTimeout(ctx, sendTime)
	answer, err := p.send(call, m)
	cancel()
	if err != nil && ctx.Err() != nil {
		return true // the hub stops: it is not known, and tried again
	}
	m.Tries++
	m.Answer = short(answer)
	alarm, next := "", ""
	if err == nil {
		settle = settle || m.Tries > 1
		m.State, m.Reason = store.MessageDelivered, ""
	} else {
		settle = false
		alarm, next = n.failed(&m, err)
	}
	if err := n.o.Store.PutMessage(ctx, m, alarm, next, settle); err != nil {
		if ctx.Err() == nil {
			n.o.Logger.Warn("it could not be stored that a message was sent; it may be sent again", "receiver", p.name, "message", m.MessageID, "error", err)
		}
		return false
	}
	return true
}

// failed says when a message is tried again, and what is shown of it, empty while it is early.
func (n *Notifier) failed(m *store.Message, err error) (alarm, next string) {
	now := n.o.Now()
	r := &refusal{err: err, next: "look at the hub's log; it is tried again by itself"}
	errors.As(err, &r)
	n.o.Logger.Warn("a message was not delivered", "receiver", m.Receiver, "message", m.MessageID, "tries", m.Tries, "error", err)
	m.Reason = short(err.Error())
	limit := min(firstBackoff<<min(m.Tries-1, 10), lastBackoff)
	if r.lasting {
		limit = lastingPause
	}
	m.NextAt = now.Add(max(limit/2+rand.N(limit/2), min(r.after, time.Hour)))
	if now.Sub(m.MadeAt) >= giveUp {
		m.State = store.MessageDropped
		r.next = cmp.Or(r.next, "look at the receiver") + "; the message was given up after a week, what it told is in the inbox"
	}
	if m.Tries < triesToAlarm && !r.lasting {
		return "", ""
	}
	return "messages do not arrive: " + m.Reason, r.next
}

// Said is what became of a test message.
type Said struct {
	Receiver, Answer string
	Err              error
	NextStep         string
}

// Test sends a test message to each receiver, or to one by name, and returns what they said. It needs no store.
func Test(ctx context.Context, c Config, name string, now time.Time) ([]Said, error) {
	ways, faults := c.ways()
	for _, f := range faults {
		return nil, errors.New("notify." + f.Where + ": " + f.Text)
	}
	var all []Said
	for _, w := range ways {
		if name != "" && w.receiver != name && w.name != name {
			continue
		}
		m, err := writer{console: c.Console}.test(w.name, now)
		if err != nil {
			return nil, err
		}
		call, cancel := context.WithTimeout(ctx, sendTime)
		said := Said{Receiver: w.name}
		said.Answer, said.Err = w.send(call, m)
		cancel()
		w.rest()
		var r *refusal
		if errors.As(said.Err, &r) {
			said.NextStep = r.next
		}
		all = append(all, said)
	}
	if len(all) == 0 {
		return nil, errors.New("no receiver of that name is configured under notify.receivers")
	}
	return all, nil
}
