package mqtt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// journal keeps which orders were published and how they were answered, in a file that is replaced as a whole. An order is in
// it before it is published, so that whatever happens the same bytes go out under the same id.
type journal struct {
	env  signal.Env
	path string

	mu      sync.Mutex
	loaded  bool
	entries map[string]*entry
	changed chan struct{} // closed and replaced at each change
}

// entry is one revision of an order.
type entry struct {
	ID        string          `json:"id"`
	OrderNo   string          `json:"order_no"`
	Revision  int64           `json:"revision"`
	Topic     string          `json:"topic"`
	AckTopic  string          `json:"ack_topic,omitempty"`
	Payload   json.RawMessage `json:"payload,omitempty"` // until it is settled
	At        time.Time       `json:"at"`
	Expires   time.Time       `json:"expires,omitzero"`
	Published bool            `json:"published,omitempty"` // the broker has it
	Outcome   string          `json:"outcome,omitempty"`   // accepted, rejected or expired
	Reason    string          `json:"reason,omitempty"`

	lastTry time.Time // of this run
}

const (
	expired      = "expired"
	maxSettled   = 2000 // so many of the newest settled entries stay
	journalName  = "mqtt-orders.json"
	journalGoing = journalName + ".new"
)

func newOrders(env signal.Env, _ *WorkOrders) *journal {
	return &journal{env: env, path: filepath.Join(env.Dir, journalName), entries: map[string]*entry{}, changed: make(chan struct{})}
}

// result is what a delivery of the entry answers; done is false while its receiver has not answered.
func (e *entry) result() (done bool, err error) {
	switch e.Outcome {
	case "":
		return false, nil
	case signal.AnswerAccepted:
		return true, nil
	}
	return true, &signal.Refused{Reason: e.Reason}
}

func (e *entry) mustResult() error {
	_, err := e.result()
	return err
}

// begin returns a copy of the entry of an order's revision, made and stored first when it is not there.
func (j *journal) begin(o signal.WorkOrder, make func(known bool) (*entry, error)) (*entry, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.load(); err != nil {
		return nil, err
	}
	if e := j.entries[messageID(o.OrderNo, o.Revision)]; e != nil {
		return e.copy(), nil
	}
	known := false
	for _, e := range j.entries {
		if e.OrderNo != o.OrderNo {
			continue
		}
		known = true
		if e.Revision > o.Revision {
			return nil, &signal.Refused{Reason: fmt.Sprintf("a newer revision (%d) of order %q was delivered before revision %d", e.Revision, o.OrderNo, o.Revision)}
		}
	}
	e, err := make(known)
	if err != nil {
		return nil, err
	}
	j.entries[e.ID] = e
	if err := j.save(); err != nil {
		delete(j.entries, e.ID)
		return nil, err
	}
	return e.copy(), nil
}

func (e *entry) copy() *entry { c := *e; return &c }

// find returns a copy of an entry, or nil.
func (j *journal) find(id string) *entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	if e := j.entries[id]; e != nil {
		return e.copy()
	}
	return nil
}

// published notes that the broker has an order.
func (j *journal) published(id string, at time.Time) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	e := j.entries[id]
	if e == nil {
		return nil
	}
	e.lastTry = at
	if e.Published {
		return nil
	}
	e.Published = true
	if err := j.save(); err != nil {
		e.Published = false
		return err
	}
	return nil
}

// settle notes how an order ended. The first outcome stands.
func (j *journal) settle(id, outcome, reason string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.load(); err != nil {
		return err
	}
	e := j.entries[id]
	if e == nil || e.Outcome != "" {
		return nil
	}
	before := *e
	e.Outcome, e.Reason, e.Payload = outcome, reason, nil
	j.prune()
	if err := j.save(); err != nil {
		*e = before
		return err
	}
	close(j.changed)
	j.changed = make(chan struct{})
	return nil
}

// newest returns the id of the newest revision of an order that waits for its answer; empty when none does.
func (j *journal) newest(orderNo string) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.load() // an unreadable journal knows of none
	var found *entry
	for _, e := range j.entries {
		if e.OrderNo == orderNo && e.Outcome == "" && (found == nil || e.Revision > found.Revision) {
			found = e
		}
	}
	if found == nil {
		return ""
	}
	return found.ID
}

// await returns the entry when it is settled; nil when that takes longer.
func (j *journal) await(ctx context.Context, id string, patience time.Duration) *entry {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		j.mu.Lock()
		e, changed := j.entries[id], j.changed
		if e != nil && e.Outcome != "" {
			defer j.mu.Unlock()
			return e.copy()
		}
		j.mu.Unlock()
		select {
		case <-changed:
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// prune forgets the oldest settled entries beyond a number; the caller holds the lock.
func (j *journal) prune() {
	var settled []*entry
	for _, e := range j.entries {
		if e.Outcome != "" {
			settled = append(settled, e)
		}
	}
	if len(settled) <= maxSettled {
		return
	}
	slices.SortFunc(settled, func(a, b *entry) int { return a.At.Compare(b.At) })
	for _, e := range settled[:len(settled)-maxSettled] {
		delete(j.entries, e.ID)
	}
}

// load reads the file once; the caller holds the lock. One that cannot be understood is set aside: ids keep its orders from
// being taken twice.
func (j *journal) load() error {
	if j.loaded {
		return nil
	}
	raw, err := os.ReadFile(j.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the journal of work orders: %w", err)
	}
	var all []*entry
	if err == nil {
		if err := json.Unmarshal(raw, &all); err != nil {
			aside := fmt.Sprintf("%s.damaged-%d", j.path, time.Now().Unix())
			if err := os.Rename(j.path, aside); err != nil {
				return fmt.Errorf("set the damaged journal of work orders aside: %w", err)
			}
			j.env.Logger.Error("the journal of work orders was damaged and set aside", "source", j.env.Source, "file", aside, "err", err)
			all = nil
		}
	}
	for _, e := range all {
		j.entries[e.ID] = e
	}
	j.loaded = true
	return nil
}

// save replaces the file; the caller holds the lock.
func (j *journal) save() error {
	all := make([]*entry, 0, len(j.entries))
	for _, e := range j.entries {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b *entry) int { return a.At.Compare(b.At) })
	raw, err := json.Marshal(all)
	if err != nil {
		return fmt.Errorf("write the journal of work orders: %w", err)
	}
	going := filepath.Join(filepath.Dir(j.path), journalGoing)
	if err := writeSynced(going, raw); err != nil {
		return fmt.Errorf("write the journal of work orders: %w", err)
	}
	if err := os.Rename(going, j.path); err != nil {
		return fmt.Errorf("write the journal of work orders: %w", err)
	}
	if dir, err := os.Open(filepath.Dir(j.path)); err == nil { // where a folder can be synced
		dir.Sync()
		dir.Close()
	}
	return nil
}

func writeSynced(path string, raw []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.Write(raw); err != nil {
		f.Close()
		return err
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
