package trading

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

var (
	// ErrNotVerified says that a write is not one that was read back and found equal.
	ErrNotVerified = errors.New("write is not verified")
	// ErrCannotSearch says that a system is not one that can be searched by key.
	ErrCannotSearch = errors.New("the system cannot be searched by key")
)

// Searchable reports whether what was written to a system can be looked for by key.
func (t *Trader) Searchable(erp string) bool {
	_, reads := t.o.Connectors[erp].(connector.BusinessReader)
	_, writes := t.writers[erp]
	return reads && writes
}

// Find returns the objects of a system that carry a write's key, or have a reference. It keeps to what the system may be asked; an
// error says that it was not asked, or did not answer: nothing is known then.
func (t *Trader) Find(ctx context.Context, erp string, kind object.BusinessKind, reference string) (all []object.Business, err error) {
	err = t.ask(ctx, erp, kind, func(ctx context.Context, r connector.BusinessReader) (err error) {
		all, err = r.FindBusiness(ctx, kind, reference)
		return err
	})
	return all, err
}

// Get returns an object by its number or its technical key, nil when the system does not have it.
func (t *Trader) Get(ctx context.Context, erp string, kind object.BusinessKind, number string) (found *object.Business, err error) {
	err = t.ask(ctx, erp, kind, func(ctx context.Context, r connector.BusinessReader) error {
		b, err := r.GetBusiness(ctx, kind, number)
		if errors.Is(err, connector.ErrNotFound) {
			return nil
		}
		found = &b
		return err
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

func (t *Trader) ask(ctx context.Context, erp string, kind object.BusinessKind, question func(context.Context, connector.BusinessReader) error) error {
	r, ok := t.o.Connectors[erp].(connector.BusinessReader)
	if !ok {
		return fmt.Errorf("ask %q: %w", erp, ErrCannotSearch)
	}
	if h := t.o.Posting.Health()[erp]; h.PausedUntil.After(time.Now()) { // whoever compares comes again, and does not wait for it
		return fmt.Errorf("ask %q: it is left in peace until %s: %s", erp, h.PausedUntil.Format(time.TimeOnly), h.Reason)
	}
	return t.question(ctx, erp, kind, func(ctx context.Context) error { return question(ctx, r) })
}

// Renew brings a write forward that was verified and is gone from its system, as after that was put back to a copy: it is in doubt,
// and so is looked for by its key, and written anew only when it is certainly not there. reason says how it is known; by is who wants
// it. Errors wrap ErrNotVerified and ErrCannotSearch.
func (t *Trader) Renew(ctx context.Context, key factkey.Key, reason, by string) error {
	lane, err := t.change(ctx, "renew", key, store.PostingVerified, ErrNotVerified, func(tx *store.Tx, w *store.Write) error {
		if !t.Searchable(w.ERP) {
			return fmt.Errorf("%w: look in %q, and write it under a new key", ErrCannotSearch, w.ERP)
		}
		if err := tx.KeepFormer(*w); err != nil {
			return err
		}
		doubt(w, tx.Now(), reason)
		w.Class, w.Intent, w.NextAt = ClassGone, nil, tx.Now()
		if err := tx.PutWrite(*w, "renewed", by); err != nil {
			return err
		}
		return t.crash("write: renewing")
	})
	if err != nil {
		return err
	}
	if err := t.crash("write: renewed"); err != nil {
		return err
	}
	t.poke(lane)
	return nil
}

// ClassGone is the class of a write in doubt that was not just sent: it was verified once, and is gone. Nothing of it is under way, so
// that a search by its key says what is there.
const ClassGone = "gone"

// search looks for a write by its key alone. What carries the key is read back, however it is: writing does not mend what differs.
func (c *call) search(ctx context.Context, from connector.Connector) (f connector.Finding, err error) {
	defer c.erp.broke(c.want, func(reason string) { f, err = connector.Finding{Presence: connector.CannotTell, Reason: reason}, nil })
	r, ok := from.(connector.BusinessReader)
	if !ok {
		return connector.Finding{Presence: connector.CannotTell, Reason: ErrCannotSearch.Error()}, nil
	}
	found, err := r.FindBusiness(ctx, c.w.Want.Kind, c.w.Key.String())
	if err != nil || len(found) == 0 {
		return connector.Finding{Presence: connector.Absent}, err
	}
	n := found[0].Names()
	for _, b := range found[1:] {
		if b.Names().ERPKey == c.w.DocumentID { // of several, the one that it was
			n = b.Names()
		}
	}
	return connector.Finding{Presence: connector.Found, Document: connector.Document{Number: cmp.Or(n.Number, n.ERPKey), ID: cmp.Or(n.ERPKey, n.Number)}}, nil
}
