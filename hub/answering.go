package hub

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/linekeeper/linekeeper/hub/posting"
	"github.com/linekeeper/linekeeper/hub/store"
)

const (
	answeringEvery = 5 * time.Second
	silentFor      = 20 * time.Second // before there is an alarm: a person hears of it within a minute
	answersFor     = time.Minute      // before it is over: one that comes and goes is one alarm
)

// answering makes an alarm of an ERP that does not answer, so that it stands in the inbox and its owner is told. Postings wait
// meanwhile and are no exceptions themselves.
type answering struct {
	store  *store.Store
	names  []string
	health func() map[string]posting.Health
	log    *slog.Logger

	open   map[string]bool
	silent map[string]time.Time // since when
	well   map[string]time.Time // since when
}

func (a *answering) run(ctx context.Context) error {
	tick := time.NewTicker(answeringEvery)
	defer tick.Stop()
	for {
		if err := a.look(ctx, time.Now()); err != nil && ctx.Err() == nil {
			a.log.Warn("it could not be seen whether the ERPs answer; it is later", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// look sees how the ERPs are now.
func (a *answering) look(ctx context.Context, now time.Time) error {
	if err := a.begin(ctx); err != nil {
		return err
	}
	troubles, err := a.troubles(ctx)
	if err != nil {
		return err
	}
	for _, name := range a.names {
		trouble := troubles[name]
		if trouble == "" {
			delete(a.silent, name)
			if a.well[name].IsZero() {
				a.well[name] = now
			}
		} else {
			delete(a.well, name)
			if a.silent[name].IsZero() {
				a.silent[name] = now
			}
		}
		switch {
		case trouble != "" && !a.open[name] && now.Sub(a.silent[name]) >= silentFor:
			err = a.set(ctx, name, true, func(tx *store.Tx) error {
				return tx.RaiseAlarm(name, store.AlarmERPSilent, trouble, "look whether the ERP runs and can be reached from the hub, and whether the hub's account is still good; what waits goes on by itself")
			})
		case trouble == "" && a.open[name] && now.Sub(a.well[name]) >= answersFor:
			err = a.settle(ctx, name, store.EndedAnswers)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// begin reads once which alarms are open, and ends those of ERPs that are not configured any more.
func (a *answering) begin(ctx context.Context) error {
	if a.open != nil {
		return nil
	}
	open, err := a.store.OpenAlarms(ctx, store.AlarmERPSilent, "")
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, name := range a.names {
		_, known[name] = open[name]
	}
	for name := range open {
		if _, ok := known[name]; !ok {
			if err := a.settle(ctx, name, store.EndedUnknown); err != nil {
				return err
			}
		}
	}
	a.open, a.silent, a.well = known, map[string]time.Time{}, map[string]time.Time{}
	return nil
}

// troubles are why ERPs do not answer, of those that do not.
func (a *answering) troubles(ctx context.Context) (map[string]string, error) {
	cursors, err := a.store.Cursors(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, c := range cursors {
		if !c.FailedAt.IsZero() {
			out[c.ERP] = "changed work orders cannot be read: " + c.Error
		}
	}
	for name, h := range a.health() {
		if !h.OK {
			out[name] = "postings wait: " + h.Reason
		}
	}
	return out, nil
}

func (a *answering) settle(ctx context.Context, name, note string) error {
	return a.set(ctx, name, false, func(tx *store.Tx) error { return tx.SettleAlarm(name, store.AlarmERPSilent, note) })
}

func (a *answering) set(ctx context.Context, name string, open bool, change func(tx *store.Tx) error) error {
	if err := a.store.Update(ctx, change); err != nil {
		return fmt.Errorf("note whether ERP %q answers: %w", name, err)
	}
	if a.open != nil {
		a.open[name] = open
	}
	return nil
}
