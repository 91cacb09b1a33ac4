package trading

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/posting"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/wire"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

var (
	// ErrInvalid says that a write cannot be meant; the text names the field.
	ErrInvalid = errors.New("write is not valid")
	// ErrOther says that a key has another write already.
	ErrOther = errors.New("the key belongs to another write")
	// ErrNotParked says that a write is not one that a person can decide about now.
	ErrNotParked = errors.New("write is not parked")
)

// Submit stores what somebody wants: Key, ERP, Want, PostingDate, Accept and By of w. The same write again is the one that is
// stored, and known then. The ERP may be empty where one system only is written to. Errors wrap ErrInvalid and ErrOther.
func (t *Trader) Submit(ctx context.Context, w store.Write) (stored store.Write, known bool, err error) {
	if w.ERP == "" && len(t.writers) == 1 {
		w.ERP = slices.Collect(maps.Keys(t.writers))[0]
	}
	if err := t.check(w); err != nil {
		return w, false, err
	}
	if w.Hash, err = askedFor(w); err != nil {
		return w, false, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	err = t.o.Store.Update(ctx, func(tx *store.Tx) error {
		stored, known, err = tx.Write(w.Key)
		if err != nil {
			return err
		}
		if known && !bytes.Equal(stored.Hash, w.Hash) {
			return fmt.Errorf("%w: key %s is that of a write of %s for %q, by %s at %s, which asks for something else: use a new key for another wish",
				ErrOther, w.Key, words(stored.Want.Kind), stored.ERP, stored.By, stored.MadeAt.Format(time.RFC3339))
		}
		if known {
			return nil
		}
		if err := renamed(tx, w); err != nil {
			return err
		}
		stored = w
		if stored.Lane, stored.Object, err = laneOf(tx, w); err != nil {
			return err
		}
		if err := tx.AddWrite(&stored); err != nil {
			return err
		}
		return t.crash("write: submitting")
	})
	if err != nil {
		return w, false, fmt.Errorf("store write %s: %w", w.Key, err)
	}
	if !known {
		t.poke(store.WriteLane{ERP: stored.ERP, Lane: stored.Lane})
	}
	return stored, known, nil
}

// check names what cannot be meant.
func (t *Trader) check(w store.Write) error {
	invalid := func(field, format string, args ...any) error {
		return fmt.Errorf("%w: %w", ErrInvalid, &wire.FieldError{Field: field, Problem: fmt.Sprintf(format, args...)})
	}
	writer, ok := t.writers[w.ERP]
	if !ok {
		names := slices.Sorted(maps.Keys(t.writers))
		if len(names) == 0 {
			return invalid("erp", "no system may be written to: allow one in hub.yaml (business: [{erp: ..., write: true}])")
		}
		return invalid("erp", "%q takes no business objects; name one of %s", w.ERP, strings.Join(names, ", "))
	}
	if w.Key.IsZero() {
		return invalid("key", "is missing: it makes the write happen once")
	}
	states, ok := writer.WritesBusiness()[w.Want.Kind]
	if !ok {
		return invalid("object.kind", "%q cannot be written to %q", w.Want.Kind, w.ERP)
	}
	if err := w.Want.Shape(); err != nil {
		return invalid("object", "%v", err)
	}
	field := "object." + string(w.Want.Kind)
	n := w.Want.Names()
	if !slices.Contains(states, n.State) {
		return invalid(field+".state", "%q cannot be reached in %q through here; want one of %s", n.State, w.ERP, strings.Join(states, ", "))
	}
	if named := n.Number != "" || n.ERPKey != ""; !named || w.Want.Lines() > 0 {
		if err := w.Want.Check(); err != nil {
			return invalid(field, "%v", err)
		}
	}
	if _, err := time.Parse(time.DateOnly, w.PostingDate); w.PostingDate != "" && err != nil {
		return invalid("posting_date", "is %q; want a date such as 2026-11-26", w.PostingDate)
	}
	for _, code := range w.Accept {
		if code == "" || strings.ContainsAny(code, " \t\n") {
			return invalid("accept", "%q is no code of a warning", code)
		}
	}
	return nil
}

// AcceptRenamed is the code that a write accepts which names an object by a number that one of ours had before the system was put back,
// and means the one that has it now.
const AcceptRenamed = "renamed"

// renamed refuses a write that names an object as it was called before it was brought forward: another may have that name now.
func renamed(tx *store.Tx, w store.Write) error {
	if slices.Contains(w.Accept, AcceptRenamed) {
		return nil
	}
	n := w.Want.Names()
	all := w.Want.Links()
	for _, own := range []string{n.Number, n.ERPKey} {
		if own != "" {
			all = append(all, object.Link{Kind: w.Want.Kind, Number: own})
		}
	}
	for _, l := range all {
		now, ok, err := tx.Renamed(w.ERP, l.Kind, l.Number)
		if err != nil {
			return err
		}
		if ok {
			return fmt.Errorf("%w: %w", ErrInvalid, &wire.FieldError{Field: "object", Problem: fmt.Sprintf(
				"%s %q is %q since %q was put back to a copy and it was brought forward: name it so, or accept %q where you mean the one that has the old name now",
				words(l.Kind), l.Number, cmp.Or(now.Document, now.DocumentID), w.ERP, AcceptRenamed)})
		}
	}
	return nil
}

func askedFor(w store.Write) ([]byte, error) {
	body, err := wire.EncodeBusiness(w.Want)
	sum := sha256.Sum256([]byte(strings.Join([]string{w.ERP, w.PostingDate, strings.Join(w.Accept, " "), string(body)}, "\x00")))
	return sum[:], err
}

// laneOf finds the thread that a write belongs to, and the object that it moves on.
func laneOf(tx *store.Tx, w store.Write) (lane, about string, err error) {
	n := w.Want.Names()
	name := n.ERPKey
	if name == "" {
		name = n.Number
	}
	var others []object.Link
	if name != "" {
		key, err := tx.BusinessKey(w.ERP, w.Want.Kind, name)
		if err != nil {
			return "", "", err
		}
		if key != "" { // one object under both of its names
			name = key
		}
		about = string(w.Want.Kind) + "/" + name
		others = append(others, object.Link{Kind: w.Want.Kind, Number: name})
	}
	for _, l := range append(others, w.Want.Links()...) {
		made, err := tx.LaneOf(w.ERP, l.Kind, l.Number)
		if err != nil || made != "" {
			return made, about, err
		}
		key, err := tx.BusinessKey(w.ERP, l.Kind, l.Number)
		if err != nil {
			return "", "", err
		}
		if key == "" {
			key = l.Number
		}
		if lane == "" {
			lane = string(l.Kind) + "/" + key
		}
	}
	if lane == "" {
		lane = "new/" + w.Key.String()
	}
	return lane, about, nil
}

// Replay takes up a parked write: what was rejected becomes due again, what nobody could tell is looked up again, what differed is
// compared again. It never doubles an effect. accept are codes of warnings that a person has seen and accepts; by names the person.
func (t *Trader) Replay(ctx context.Context, key factkey.Key, accept []string, by string) error {
	return t.decide(ctx, "replay", key, func(tx *store.Tx, w *store.Write) error {
		for _, code := range accept {
			if !slices.Contains(w.Accept, code) {
				w.Accept = append(w.Accept, code)
			}
		}
		switch w.Class {
		case posting.ClassCannotTell:
			doubt(w, tx.Now(), "asked for by a person")
			w.NextAt = tx.Now()
			forward, err := tx.BroughtForward(w.ID)
			if err != nil {
				return err
			}
			if forward && len(w.Intent) == 0 { // it was still being looked for
				w.Class = ClassGone
			}
		case posting.ClassMismatch:
			w.State, w.Class, w.Code, w.Reason, w.NextStep = store.PostingPosted, "", "", "", ""
			w.Since, w.Tries, w.NextAt = tx.Now(), 0, tx.Now()
		default:
			due(w, tx.Now())
		}
		return tx.PutWrite(*w, "replayed", by)
	})
}

// Settle ends a parked write by a person's decision: with the number of the document that has the effect, or without one when there
// shall be none. note says why.
func (t *Trader) Settle(ctx context.Context, key factkey.Key, document, note, by string) error {
	return t.decide(ctx, "settle", key, func(tx *store.Tx, w *store.Write) error {
		if document != "" {
			w.Document, w.DocumentID = document, ""
		}
		w.State, w.Class, w.Code, w.Reason, w.NextStep = store.PostingSettled, "", posting.CodeAccepted, note, ""
		w.Intent, w.Since, w.Tries = nil, tx.Now(), 0
		return tx.PutWrite(*w, "accepted", by)
	})
}

// WriteAgain makes a write due that nobody could tell about, or whose object was wrong and has been taken back: the person vouches
// that the outside system does not have it. note says how that is known.
func (t *Trader) WriteAgain(ctx context.Context, key factkey.Key, note, by string) error {
	return t.decide(ctx, "write again", key, func(tx *store.Tx, w *store.Write) error {
		due(w, tx.Now())
		w.Reason, w.Document, w.DocumentID = note, "", ""
		return tx.PutWrite(*w, "replayed", by)
	})
}

// decide changes a parked write.
func (t *Trader) decide(ctx context.Context, what string, key factkey.Key, change func(*store.Tx, *store.Write) error) error {
	lane, err := t.change(ctx, what, key, store.PostingParked, ErrNotParked, change)
	if err == nil {
		t.poke(lane)
	}
	return err
}

// change changes a write that is in a state; otherwise is the error that says that it is in another. The lane that it returns has to look at it.
func (t *Trader) change(ctx context.Context, what string, key factkey.Key, in store.PostingState, otherwise error, change func(*store.Tx, *store.Write) error) (store.WriteLane, error) {
	var taken store.Write
	err := t.o.Store.Update(ctx, func(tx *store.Tx) error {
		w, ok, err := tx.Write(key)
		switch {
		case err != nil:
			return err
		case !ok:
			return store.ErrNotFound
		case w.State != in:
			return fmt.Errorf("%w: it is %q", otherwise, w.State)
		}
		err = change(tx, &w)
		taken = w
		return err
	})
	if err != nil {
		return store.WriteLane{}, fmt.Errorf("%s write %s: %w", what, key, err)
	}
	return store.WriteLane{ERP: taken.ERP, Lane: taken.Lane}, nil
}
