// Package desk works off what people have asked for and does not happen at once: parked postings that are taken up again, not
// faster than they said.
//
// It promises that a replay goes on where it was after a restart, that it can be cancelled at any moment, that it takes nothing that
// was parked after it began, and that evidence of settled postings is let go after its time and no other. It decides nothing about a
// posting: what a replay means is the posting engine's.
package desk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/linekeeper/linekeeper/hub/store"
)

// Books is what is needed of the posting engine.
type Books interface {
	// ReplayFact takes up a parked posting again; it never doubles an effect.
	ReplayFact(ctx context.Context, key, by string) error
}

// Options of a Desk; zero fields mean the documented default.
type Options struct {
	Store *store.Store
	Books Books
	// Poll is how often new replays are looked for; 2 s. Keep is how long the exchanges of settled postings are kept; 14 days.
	Poll, Keep time.Duration
	Now        func() time.Time
	Logger     *slog.Logger
}

// Desk works while Run runs. Make it with New.
type Desk struct {
	o       Options
	trimmed time.Time
}

// New returns a desk that does nothing until Run.
func New(o Options) *Desk {
	if o.Poll <= 0 {
		o.Poll = 2 * time.Second
	}
	if o.Keep <= 0 {
		o.Keep = 14 * 24 * time.Hour
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Desk{o: o}
}

// Run works until ctx ends. What fails is logged and done again.
func (d *Desk) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		next, err := d.Step(ctx)
		if err != nil && ctx.Err() == nil {
			d.o.Logger.Warn("replays could not go on; they do later", "error", err)
		}
		d.trim(ctx)
		timer.Reset(next)
	}
}

// Step takes up what is due now of each replay, one posting each, and returns how long nothing is to be done.
func (d *Desk) Step(ctx context.Context) (time.Duration, error) {
	running, err := d.o.Store.RunningReplays(ctx)
	if err != nil {
		return d.o.Poll, fmt.Errorf("look for replays: %w", err)
	}
	wait := d.o.Poll
	for _, r := range running {
		if err := d.one(ctx, &r); err != nil {
			return d.o.Poll, fmt.Errorf("replay %d: %w", r.ID, err)
		}
		if r.State == store.ReplayRunning {
			wait = min(wait, max(r.NextAt.Sub(d.o.Now()), 0))
		}
	}
	return wait, nil
}

// one takes up the next posting of a replay when its time has come. It is stored afterwards: a posting that is taken up twice
// because of a crash in between is looked up before anything is sent.
func (d *Desk) one(ctx context.Context, r *store.Replay) error {
	now := d.o.Now()
	pause := time.Minute / time.Duration(max(r.PerMinute, 1))
	if r.NextAt.After(now) && r.NextAt.Sub(now) <= pause { // farther away is a clock that was set back
		return nil
	}
	id, key, err := d.o.Store.NextParked(ctx, *r)
	switch {
	case errors.Is(err, store.ErrNotFound):
		r.State = store.ReplayDone
	case err != nil:
		return err
	default:
		if err := d.o.Books.ReplayFact(ctx, key.String(), r.By); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			r.Skipped, r.Reason = r.Skipped+1, err.Error()
		} else {
			r.Taken++
		}
		r.AfterID, r.NextAt = id, now.Add(pause)
	}
	err = d.o.Store.PutReplay(ctx, *r)
	if errors.Is(err, store.ErrNotFound) {
		r.State = store.ReplayCancelled
		return nil
	}
	return err
}

// trim lets old evidence go, once an hour, a little at a time.
func (d *Desk) trim(ctx context.Context) {
	now := d.o.Now()
	if now.Sub(d.trimmed).Abs() < time.Hour {
		return
	}
	n, err := d.o.Store.TrimExchanges(ctx, now.Add(-d.o.Keep), trimAtOnce)
	if err == nil {
		var writes int64
		writes, err = d.o.Store.TrimWriteExchanges(ctx, now.Add(-d.o.Keep), trimAtOnce)
		n = max(n, writes)
	}
	if err != nil && ctx.Err() == nil {
		d.o.Logger.Warn("old exchanges could not be let go; they are later", "error", err)
	}
	if err != nil || n < trimAtOnce {
		d.trimmed = now
	}
}

const trimAtOnce = 500
