package lookout

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/linekeeper/linekeeper/hub/store"
)

const (
	wellFor  = time.Minute // before an alarm is over
	together = time.Minute // what began within so long is raised with the first, though a little early
)

// key names an alarm.
type key struct{ subject, code string }

// finding is something that is wrong now.
type finding struct {
	key
	reason, next string
	after        time.Duration // how long it must last
	// since is where the watch's clock stood when it began; seenNow: it begins when it is seen first.
	since time.Duration
	// from is when the cause began, by the clock of what is stored; zero when that is not known.
	from time.Time
	// counts: the reason tells how many, and is told anew in the alarm when that changes.
	counts bool
}

const seenNow time.Duration = -1

// watch makes alarms of findings.
type watch struct {
	store *store.Store
	codes []string
	every time.Duration

	// ran is how long this hub has looked: its clock. A step is bounded, because nothing was looked at meanwhile.
	ran    time.Duration
	looked time.Time

	open   map[key]bool          // raised, and not seen to be over; nil before the first look. A person may have closed it
	closed map[key]time.Time     // when a person did, under a hub before
	seen   map[key]time.Duration // since when it is wrong
	well   map[key]time.Duration // since when it is not
}

func newWatch(s *store.Store, codes []string, every time.Duration) *watch {
	return &watch{store: s, codes: codes, every: every}
}

// tick moves the clock. now has a monotonic part, so that nobody sets it.
func (w *watch) tick(now time.Time) {
	if !w.looked.IsZero() {
		w.ran += min(max(now.Sub(w.looked), 0), 3*w.every)
	}
	w.looked = now
}

// begin reads once what was raised before.
func (w *watch) begin(ctx context.Context) error {
	if w.open != nil {
		return nil
	}
	all, err := w.store.LatestAlarms(ctx, w.codes)
	if err != nil {
		return err
	}
	w.open, w.closed, w.seen, w.well = map[key]bool{}, map[key]time.Time{}, map[key]time.Duration{}, map[key]time.Duration{}
	for _, a := range all {
		if k := (key{a.Subject, a.Code}); a.ClosedAt.IsZero() {
			w.open[k] = true
		} else if !a.EndedItself() {
			w.closed[k] = a.ClosedAt
		}
	}
	return nil
}

// settle makes the alarms as the findings are. unclear are those of which nothing is known now: they stay as they are. ended is the note
// of one that is over.
func (w *watch) settle(ctx context.Context, found []finding, unclear func(key) bool, ended func(key) string) error {
	here := make(map[key]bool, len(found))
	for i, f := range found {
		here[f.key] = true
		delete(w.well, f.key)
		if at, was := w.closed[f.key]; was {
			delete(w.closed, f.key)
			if !f.from.IsZero() && !f.from.After(at) {
				w.open[f.key] = true // the same cause still: a person has said what there is to say
			}
		}
		since, known := w.seen[f.key]
		switch {
		case f.since != seenNow:
			w.seen[f.key] = f.since
		case known:
			found[i].since = since
		default:
			w.seen[f.key], found[i].since = w.ran, w.ran
		}
	}
	for k := range w.seen {
		if !here[k] {
			delete(w.seen, k)
		}
	}
	if err := w.raise(ctx, found); err != nil {
		return err
	}
	return w.end(ctx, here, unclear, ended)
}

func (w *watch) raise(ctx context.Context, found []finding) error {
	ripe := func(f finding, early time.Duration) bool { return !w.open[f.key] && w.ran-f.since >= f.after-early }
	var due []finding
	if slices.ContainsFunc(found, func(f finding) bool { return ripe(f, 0) }) {
		for _, f := range found {
			if ripe(f, min(together, f.after/10)) {
				due = append(due, f)
			}
		}
	}
	again, err := w.changed(ctx, found)
	if err != nil || len(due)+len(again) == 0 {
		return err
	}
	err = w.store.Update(ctx, func(tx *store.Tx) error {
		for _, f := range due {
			if err := tx.RaiseAlarm(f.subject, f.code, f.reason, f.next); err != nil {
				return err
			}
		}
		for _, f := range again {
			if err := tx.RestateAlarm(f.subject, f.code, f.reason, f.next); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("raise alarms about what is silent: %w", err)
	}
	for _, f := range due {
		w.open[f.key] = true
	}
	return nil
}

// changed are the findings whose open alarm tells another number.
func (w *watch) changed(ctx context.Context, found []finding) ([]finding, error) {
	told := map[string]map[string]string{} // reasons by code and subject
	var out []finding
	for _, f := range found {
		if !f.counts || !w.open[f.key] {
			continue
		}
		if told[f.code] == nil {
			open, err := w.store.OpenAlarms(ctx, f.code, "")
			if err != nil {
				return nil, err
			}
			told[f.code] = open
		}
		if reason, is := told[f.code][f.subject]; is && reason != f.reason {
			out = append(out, f)
		}
	}
	return out, nil
}

// end closes the alarms whose cause is away.
func (w *watch) end(ctx context.Context, here map[key]bool, unclear func(key) bool, ended func(key) string) error {
	var over []key
	for k := range w.open {
		if here[k] || unclear(k) {
			delete(w.well, k)
			continue
		}
		since, known := w.well[k]
		if !known {
			w.well[k], since = w.ran, w.ran
		}
		if w.ran-since >= wellFor {
			over = append(over, k)
		}
	}
	if len(over) == 0 {
		return nil
	}
	err := w.store.Update(ctx, func(tx *store.Tx) error {
		for _, k := range over {
			if err := tx.SettleAlarm(k.subject, k.code, ended(k)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("end alarms about what was silent: %w", err)
	}
	for _, k := range over {
		delete(w.open, k)
		delete(w.well, k)
	}
	return nil
}
