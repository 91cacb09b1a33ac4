package inbox

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

// Noted is a fact that a receipt may be about, with its number in the buffer: the buffer lets go of what the hub has.
type Noted struct {
	Seq     uint64    `json:"-"`
	Key     string    `json:"key"`
	OrderNo string    `json:"order_no,omitempty"`
	What    string    `json:"what"`
	At      time.Time `json:"at"`
}

// keepFacts is how many facts are kept: the newest.
const keepFacts = 500

// NoteFacts keeps facts for the page. It is no promise: the facts themselves are the buffer's.
func (in *Inbox) NoteFacts(facts []Noted) error {
	if len(facts) == 0 {
		return nil
	}
	err := in.update(func(c *change) error {
		b := c.tx.Bucket(buckets.facts)
		for _, f := range facts[max(0, len(facts)-keepFacts):] {
			text, err := json.Marshal(f)
			if err != nil {
				return err
			}
			if err := b.Put(binary.BigEndian.AppendUint64(nil, f.Seq), seal(text)); err != nil {
				return err
			}
		}
		return trimFacts(b)
	})
	if err != nil {
		return fmt.Errorf("note facts: %w", err)
	}
	return nil
}

func trimFacts(b *bbolt.Bucket) error {
	var old [][]byte
	n := 0
	cur := b.Cursor()
	for k, _ := cur.Last(); k != nil; k, _ = cur.Prev() {
		if n++; n > keepFacts {
			old = append(old, k)
		}
	}
	for _, k := range old {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// Facts returns the facts that were noted, oldest first.
func (in *Inbox) Facts() (all []Noted) {
	err := in.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(buckets.facts).ForEach(func(k, v []byte) error {
			f, err := readNoted(k, v)
			all = append(all, f)
			return err
		})
	})
	if err != nil {
		return nil
	}
	return all
}

func readNoted(k, v []byte) (f Noted, err error) {
	body, err := unseal(v)
	if err == nil && len(k) != 8 {
		err = errors.New("its number is no number")
	}
	if err != nil {
		return f, fmt.Errorf("read a noted fact: %w", err)
	}
	f.Seq = binary.BigEndian.Uint64(k)
	return f, json.Unmarshal(body, &f)
}
