package setup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/linekeeper/linekeeper/agent"
	"github.com/linekeeper/linekeeper/agent/status"
)

// errNoFact says that the configuration is written and no fact came while it was tried.
var errNoFact = errors.New("no fact has come yet")

// try runs the agent with the new configuration until a first fact is durable, and with a hub until the hub has it. What it
// collects stays: the service goes on where it ends.
func (s *setup) try(ctx context.Context) error {
	if s.o.Try <= 0 {
		return nil
	}
	cfg, err := s.deps.Load(s.o.Path)
	if err != nil {
		return err
	}
	a, err := agent.New(cfg, s.deps.Options)
	if err != nil {
		return fmt.Errorf("start the agent to try it: %w", err)
	}
	s.say("\nrunning the agent until a first fact is there (at most %s; a confirmation closes after a minute unless its rule says otherwise)", s.o.Try)
	ctx, cancel := context.WithTimeout(ctx, s.o.Try)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	w := &watcher{setup: s, url: "http://" + a.Addr() + "/api/v1/status", hub: cfg.Hub.Address != ""}
	first, watching := w.watch(ctx)
	cancel()
	if err := <-ended; err != nil {
		return fmt.Errorf("run the agent: %w", err)
	}
	if watching != nil {
		return watching
	}
	s.say("first fact: %s, key %s: %s", first.What, first.Key, first.Outcome)
	s.say("\nThe agent stops here and keeps what it has. Let it run for good with: plantagent install -c %s && plantagent start", s.o.Path)
	return nil
}

// watcher looks at the page of the agent that is tried.
type watcher struct {
	setup *setup
	url   string
	hub   bool
	said  map[string]string
}

// watch waits for the first fact.
func (w *watcher) watch(ctx context.Context) (status.Receipt, error) {
	w.said = map[string]string{}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	var last status.Snapshot
	for {
		select {
		case <-ctx.Done():
			return status.Receipt{}, w.why(last)
		case <-tick.C:
		}
		snap, err := w.look(ctx)
		if err != nil {
			continue
		}
		last = snap
		w.tell(snap)
		for _, r := range snap.Receipts {
			if !w.hub || r.Outcome != "buffered" {
				return r, nil
			}
		}
	}
}

func (w *watcher) look(ctx context.Context) (snap status.Snapshot, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url, nil)
	if err != nil {
		return snap, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return snap, err
	}
	defer res.Body.Close()
	return snap, json.NewDecoder(res.Body).Decode(&snap)
}

// tell says what changed.
func (w *watcher) tell(snap status.Snapshot) {
	news := func(key, text string) {
		if w.said[key] != text {
			w.said[key] = text
			w.setup.say("  %s", text)
		}
	}
	for _, s := range snap.Sources {
		news(s.Name, fmt.Sprintf("source %s is %s%s", s.Name, s.State, aside(s.Reason)))
		for _, p := range s.Problems {
			news(s.Name+p.Key, fmt.Sprintf("source %s: %s: %s (%s)", s.Name, p.Item, p.Reason, p.NextStep))
		}
	}
	if w.hub {
		news("hub", fmt.Sprintf("hub is %s%s", snap.Uplink.State, aside(snap.Uplink.Reason)))
	}
	for _, l := range snap.Ledger {
		key := l.Kind + " of " + l.Source
		if w.said[key] == "" {
			news(key, "counts "+key)
		}
	}
}

// why says why no fact came.
func (w *watcher) why(last status.Snapshot) error {
	for _, s := range last.Sources {
		if s.State != "ok" {
			return fmt.Errorf("%w: source %s is %s%s; the configuration is written", errNoFact, s.Name, s.State, aside(s.Reason))
		}
	}
	if w.hub && last.Uplink.State != "connected" {
		return fmt.Errorf("%w at the hub: the line is %s%s; the configuration is written, facts wait here", errNoFact, last.Uplink.State, aside(last.Uplink.Reason))
	}
	return fmt.Errorf("%w: nothing was made while it ran; the configuration is written and works: let a machine count, or look with `plantagent trace`", errNoFact)
}
