package ingest

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/proto/bundle"
)

// ErrGap says that a bundle begins behind records that the hub does not have: the one before must be imported first.
var ErrGap = errors.New("records before it are missing")

// Imported is what became of a bundle.
type Imported struct {
	Records    uint64 `json:"records"`
	Stored     uint64 `json:"stored"`
	Duplicates uint64 `json:"duplicates"`
	Conflicts  uint64 `json:"conflicts"`
	Unreadable uint64 `json:"unreadable"`
	// Held is up to where the hub now has all records of the bundle's generation.
	Held uint64 `json:"held"`
}

// Import stores the facts of a bundle the way a stream's are stored: each key once, and the agent's position moves with
// them. Who may bring it is the caller's question. Importing again changes nothing. A bundle that begins behind a gap is
// refused with ErrGap, and nothing of it is stored: an answer says up to where everything is here.
func Import(ctx context.Context, st *store.Store, b *bundle.Bundle) (done Imported, err error) {
	name := b.Plant + "/" + b.Agent
	var id int64
	err = st.Update(ctx, func(tx *store.Tx) error {
		a, err := tx.AgentByName(b.Plant, b.Agent)
		if err != nil {
			return err
		}
		p, err := tx.Position(a.ID, store.Business, b.Generation)
		if err != nil {
			return err
		}
		id, done.Held = a.ID, p.Seq
		if b.First > max(p.Seq, b.Acked)+1 {
			return fmt.Errorf("%w: it begins with record %d, the hub has those up to %d; import the bundle before it first", ErrGap, b.First, max(p.Seq, b.Acked))
		}
		return nil
	})
	if err != nil {
		return done, fmt.Errorf("import bundle %d of %q: %w", b.Number, name, err)
	}
	s := &session{plant: b.Plant, name: name} // for check
	batch := store.Batch{AgentID: id, Agent: name, Generation: b.Generation}
	flush := func() error {
		err := done.append(ctx, st, batch)
		batch.Records = nil
		return err
	}
	err = b.Each(func(seq uint64, body []byte) error {
		if n := uint64(len(batch.Records)); n > 0 && (batch.FirstSeq+n != seq || n >= importBatch) {
			if err := flush(); err != nil {
				return err
			}
		}
		if len(batch.Records) == 0 {
			batch.FirstSeq = seq
		}
		batch.Records = append(batch.Records, s.check(append([]byte(nil), body...)))
		return nil
	})
	if err == nil {
		err = flush()
	}
	if err == nil {
		// The end may be a gap, of records that were lost at the plant.
		batch.FirstSeq = b.Last + 1
		err = done.append(ctx, st, batch)
	}
	if err != nil {
		return done, fmt.Errorf("import bundle %d of %q: %w", b.Number, name, err)
	}
	done.Held = max(done.Held, b.Last)
	return done, nil
}

// importBatch is how many records of a bundle are stored in one transaction, answerStep how many deliveries are read at once.
const (
	importBatch = 1024
	answerStep  = 200
)

// append stores a batch; one without records moves the position only.
func (d *Imported) append(ctx context.Context, st *store.Store, b store.Batch) error {
	verdicts, err := st.AppendFacts(ctx, []store.Batch{b})
	if err != nil {
		return err
	}
	d.Records += uint64(len(b.Records))
	d.Stored += uint64(len(b.Records) - len(verdicts[0]))
	for _, v := range verdicts[0] {
		switch v.Kind {
		case store.Duplicate:
			d.Duplicates++
		case store.Conflict:
			d.Conflicts++
		case store.Unreadable:
			d.Unreadable++
		}
	}
	return nil
}

// AnswerTo returns what is to be said to a bundle, as header and records of another one: up to where the hub has all records
// of its generation, and the deliveries that the agent does not have.
func AnswerTo(ctx context.Context, st *store.Store, b *bundle.Bundle) (h bundle.Header, records map[uint64][]byte, err error) {
	h = bundle.Header{
		Kind: bundle.Answer, Plant: b.Plant, Agent: b.Agent, Generation: b.Generation, Number: b.Number, Previous: b.SHA256,
	}
	var a store.Agent
	err = st.Update(ctx, func(tx *store.Tx) error {
		if a, err = tx.AgentByName(b.Plant, b.Agent); err != nil {
			return err
		}
		p, err := tx.Position(a.ID, store.Business, b.Generation)
		h.Acked = p.Seq
		return err
	})
	if err != nil {
		return h, nil, fmt.Errorf("answer bundle of \"%s/%s\": %w", b.Plant, b.Agent, err)
	}
	h.DeliveryEpoch = a.DeliveryEpoch
	after, read := b.DeliverySeq, st.DeliveriesAfter
	if b.DeliveryEpoch != a.DeliveryEpoch || b.DeliverySeq > a.DeliveryLast {
		after, read = 0, st.NeededAfter
	} else if err := st.MarkStored(ctx, a.ID, b.DeliverySeq); err != nil {
		return h, nil, err
	}
	records = map[uint64][]byte{}
	for {
		list, err := read(ctx, a.ID, after, answerStep)
		if err != nil || len(list) == 0 {
			return h, records, err
		}
		for _, d := range list {
			m, err := delivery(d)
			if err != nil {
				return h, nil, err
			}
			if records[uint64(d.Seq)], err = proto.Marshal(m); err != nil {
				return h, nil, err
			}
			after = d.Seq
		}
	}
}
