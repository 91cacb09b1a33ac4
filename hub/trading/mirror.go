package trading

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/wire"
)

// CodeUnreadable is the alarm of an object that a system has and that cannot be put into our words.
const CodeUnreadable = "object_unreadable"

// askAgain is how often such objects are read again: what was wrong may be mended without a change of the object.
const askAgain = 10 * time.Minute

// reading is one kind of one system. One goroutine uses it.
type reading struct {
	t    *Trader
	m    Mirror
	kind object.BusinessKind
	from connector.BusinessReader
	wake chan struct{}
	// alone holds one token for all kinds of a system: one is read at a time, so that postings have the other calls.
	alone chan struct{}

	// sweeping: the kind is read from its beginning, and is at this place. A hub that starts again begins again.
	sweeping bool
	at       string

	unreadable map[string]string // reasons by name; nil before the first look
	again      time.Time

	failing time.Time // since when the kind cannot be read, zero while it can
	well    bool      // there is no alarm about that
}

// CodeNotRead is the alarm of a kind that cannot be read though its system answers otherwise.
const CodeNotRead = "objects_not_read"

// failsFor is how long a kind must have failed before there is an alarm: a person hears of it within a minute.
const failsFor = 20 * time.Second

func (r *reading) run(ctx context.Context) {
	failures := 0
	for ctx.Err() == nil {
		more, err := r.step(ctx)
		pause := r.m.Every
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			failures++
			pause = r.m.Every/2 + rand.N(min(r.m.Every<<min(failures, 10), r.t.o.Backoff))
			r.failed(ctx, err)
		case more:
			failures, pause = 0, 0
		default:
			failures = 0
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-r.wake:
			sleep(ctx, min(r.m.Every, wokenAfter)) // many writes end at once
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// wokenAfter is how long after a write a kind is read that may have changed by it.
const wokenAfter = time.Second

func (r *reading) failed(ctx context.Context, err error) {
	r.t.o.Logger.Warn("cannot read changed business objects", "erp", r.m.ERP, "kind", r.kind, "error", err)
	if err := r.t.o.Store.SetBusinessCursorError(ctx, r.m.ERP, r.kind, err.Error()); err != nil && ctx.Err() == nil {
		r.t.o.Logger.Error("cannot record that business objects could not be read", "erp", r.m.ERP, "kind", r.kind, "error", err)
	}
	if r.failing.IsZero() {
		r.failing = time.Now()
	}
	if time.Since(r.failing) < failsFor {
		return
	}
	if c, err := r.t.o.Store.Cursor(ctx, r.m.ERP); err != nil || !c.FailedAt.IsZero() { // of a system that does not answer at all there is one alarm
		return
	}
	r.well = false
	told := r.t.o.Store.Update(ctx, func(tx *store.Tx) error {
		return tx.RaiseAlarm(r.m.ERP+"/"+string(r.kind), CodeNotRead, fmt.Sprintf("%s of %q cannot be read: %v", words(r.kind), r.m.ERP, err),
			"look whether the hub's account may read them; what changed meanwhile comes by itself then")
	})
	if told != nil && ctx.Err() == nil {
		r.t.o.Logger.Error("cannot record that business objects could not be read", "erp", r.m.ERP, "kind", r.kind, "error", told)
	}
}

// step takes one page.
func (r *reading) step(ctx context.Context) (more bool, err error) {
	if err := r.readAgain(ctx); err != nil {
		return false, err
	}
	c, err := r.t.o.Store.BusinessCursor(ctx, r.m.ERP, r.kind)
	if err != nil {
		return false, fmt.Errorf("read the cursor of %s of %q: %w", r.kind, r.m.ERP, err)
	}
	if !r.sweeping && (c.WholeAt.IsZero() || r.t.o.Now().Sub(c.WholeAt).Abs() >= r.m.Whole) {
		if err := r.t.o.Store.Update(ctx, func(tx *store.Tx) error { return tx.BeginSweep(r.m.ERP, r.kind) }); err != nil {
			return false, err
		}
		r.sweeping, r.at = true, ""
	}
	from := c.Cursor
	if r.sweeping {
		from = r.at
	}
	page, err := r.list(ctx, from)
	if err != nil {
		return false, err
	}
	return page.More, r.take(ctx, page)
}

func (r *reading) list(ctx context.Context, cursor string) (page connector.BusinessChanges, err error) {
	return page, r.ask(ctx, func(ctx context.Context) (err error) {
		page, err = r.from.ListBusiness(ctx, r.kind, cursor)
		return err
	})
}

// ask makes one call that only reads.
func (r *reading) ask(ctx context.Context, call func(context.Context) error) (err error) {
	select {
	case <-r.alone:
		defer func() { r.alone <- struct{}{} }()
	case <-ctx.Done():
		return ctx.Err()
	}
	return r.t.question(ctx, r.m.ERP, r.kind, call)
}

// question makes one call that only reads, within what the system may be asked. It says nothing of the system's health: what is refused
// here may be granted to postings.
func (t *Trader) question(ctx context.Context, erp string, kind object.BusinessKind, call func(context.Context) error) (err error) {
	v, err := t.visit(ctx, erp)
	if err != nil {
		return err
	}
	defer v.Quit()
	if err := v.Turn(ctx, false); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, t.o.CallTimeout)
	defer cancel()
	defer func() {
		if problem := recover(); problem != nil {
			t.o.Logger.Error("a connector broke down", "erp", erp, "kind", kind, "problem", problem, "stack", string(debug.Stack()))
			err = fmt.Errorf("the connector of %q broke down while it read %s: %v (report this with the hub's version and log)", erp, kind, problem)
		}
	}()
	return call(ctx)
}

// take stores a page with the cursor behind it.
func (r *reading) take(ctx context.Context, page connector.BusinessChanges) error {
	page = sorted(page)
	ends := r.sweeping && !page.More
	gone := int64(0)
	err := r.t.o.Store.Update(ctx, func(tx *store.Tx) (err error) {
		for _, b := range page.Objects {
			if err := r.put(tx, b); err != nil {
				return err
			}
		}
		for _, x := range page.Unreadable {
			if err := r.note(tx, x); err != nil {
				return err
			}
		}
		if !r.well {
			if err := tx.SettleAlarm(r.m.ERP+"/"+string(r.kind), CodeNotRead, "it can be read again"); err != nil {
				return err
			}
		}
		if r.sweeping && page.More {
			return nil
		}
		if ends {
			if gone, err = tx.EndSweep(r.m.ERP, r.kind); err != nil {
				return err
			}
		}
		return tx.SetBusinessCursor(r.m.ERP, r.kind, page.Cursor)
	})
	if err != nil {
		return fmt.Errorf("store %s of %q: %w", r.kind, r.m.ERP, err)
	}
	if gone > 0 {
		r.t.o.Logger.Info("business objects are gone from their system", "erp", r.m.ERP, "kind", r.kind, "count", gone)
	}
	r.failing, r.well = time.Time{}, true
	r.at, r.sweeping = page.Cursor, r.sweeping && page.More
	for _, b := range page.Objects {
		delete(r.unreadable, nameOf(b.Names().Number, b.Names().ERPKey))
	}
	for _, x := range page.Unreadable {
		r.unreadable[nameOf(x.OrderNo, x.ERPKey)] = x.Reason
	}
	return nil
}

// sorted puts what the store could not give back among what cannot be read: it must not stop its page.
func sorted(page connector.BusinessChanges) connector.BusinessChanges {
	var good []object.Business
	for _, b := range page.Objects {
		if err := fit(b); err != nil {
			n := b.Names()
			page.Unreadable = append(page.Unreadable, connector.Unreadable{OrderNo: n.Number, ERPKey: n.ERPKey, Reason: err.Error()})
			continue
		}
		good = append(good, b)
	}
	page.Objects = good
	return page
}

func fit(b object.Business) error {
	raw, err := wire.EncodeBusiness(b)
	if err == nil {
		_, err = wire.DecodeBusiness(raw)
	}
	if n := b.Names(); err == nil && n.Number == "" && n.ERPKey == "" {
		err = errors.New("it has neither a number nor a key in the system")
	}
	return err
}

func (r *reading) put(tx *store.Tx, b object.Business) error {
	name := nameOf(b.Names().Number, b.Names().ERPKey)
	b.Held().ERP = r.m.ERP
	if _, err := tx.PutBusiness(r.m.ERP, b); err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	if _, was := r.unreadable[name]; !was {
		return nil
	}
	return tx.SettleAlarm(r.subject(name), CodeUnreadable, "it can be read now")
}

// nameOf is an object's number; without one, its key in the system behind a mark.
func nameOf(number, erpKey string) string {
	if number == "" {
		return withoutNumber + erpKey
	}
	return number
}

const withoutNumber = "#"

func (r *reading) subject(name string) string {
	return r.m.ERP + "/" + string(r.kind) + "/" + name
}

// note raises an alarm for an object that cannot be read. What the hub had of it stays.
func (r *reading) note(tx *store.Tx, x connector.Unreadable) error {
	if err := tx.SeenBusiness(r.m.ERP, r.kind, cmp.Or(x.ERPKey, x.OrderNo)); err != nil {
		return err
	}
	name := nameOf(x.OrderNo, x.ERPKey)
	if old, is := r.unreadable[name]; is && old == x.Reason {
		return nil // told already; a connector lists it again as long as it stands in its overlap
	}
	return tx.RaiseAlarm(r.subject(name), CodeUnreadable, fmt.Sprintf("%s %q of %q cannot be read: %s", words(r.kind), name, r.m.ERP, x.Reason),
		fmt.Sprintf("mend it in the system or in the hub's configuration; it is read again every %s, when it changes and when the hub starts", askAgain))
}

func words(kind object.BusinessKind) string { return strings.ReplaceAll(string(kind), "_", " ") }

// readAgain reads what could not be read anew, at the start and then from time to time. One that still cannot be, or that the system
// does not give now, stops nothing.
func (r *reading) readAgain(ctx context.Context) error {
	if r.unreadable != nil && time.Now().Before(r.again) {
		return nil
	}
	told, err := r.t.o.Store.OpenAlarms(ctx, CodeUnreadable, r.subject(""))
	if err != nil {
		return err
	}
	r.unreadable, r.again = map[string]string{}, time.Now().Add(askAgain)
	for subject := range told {
		name := strings.TrimPrefix(subject, r.subject(""))
		r.unreadable[name] = "" // its reason is told anew when the system lists it
		if err := r.readOne(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

func (r *reading) readOne(ctx context.Context, name string) error {
	var b object.Business
	err := r.ask(ctx, func(ctx context.Context) (err error) {
		b, err = r.from.GetBusiness(ctx, r.kind, strings.TrimPrefix(name, withoutNumber))
		return err
	})
	gone := errors.Is(err, connector.ErrNotFound)
	if err == nil {
		err = fit(b)
	}
	if err != nil && !gone {
		return ctx.Err()
	}
	err = r.t.o.Store.Update(ctx, func(tx *store.Tx) error {
		if gone {
			return tx.SettleAlarm(r.subject(name), CodeUnreadable, "the system does not have it any more")
		}
		return errors.Join(r.put(tx, b), tx.SettleAlarm(r.subject(name), CodeUnreadable, "it can be read now"))
	})
	if err == nil {
		delete(r.unreadable, name)
	}
	return err
}
