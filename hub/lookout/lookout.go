package lookout

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/hub/store"
)

// Limits say how long something must last before it is an alarm. Zero: it is none.
type Limits struct {
	// AgentAway is for an agent that was not heard of, AgentUnwell for what an agent says of itself.
	AgentAway, AgentUnwell time.Duration
	// OrderWaits is for a work order that nobody gets, and for facts whose order does not come.
	OrderWaits time.Duration
}

// Options of New; Store, Known and Heard are needed.
type Options struct {
	Store *store.Store
	// Known reports whether an agent is configured, Heard when those that are connected said something last, by "plant/agent".
	Known  func(plant, agent string) bool
	Heard  func() map[string]time.Time
	Limits Limits
	// Zones are the plants', for times in reasons. Now is the clock by which it was stored since when facts wait; time.Now.
	Zones  map[string]*time.Location
	Now    func() time.Time
	Logger *slog.Logger
}

// Lookout works while Run runs. Make it with New.
type Lookout struct {
	o      Options
	agents *watch
	orders *watch
	tracks map[string]*track // of agents, by name
}

const (
	agentsEvery = 5 * time.Second
	ordersEvery = 20 * time.Second
)

// New returns a lookout that does nothing until Run.
func New(o Options) *Lookout {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Lookout{
		o: o, tracks: map[string]*track{},
		agents: newWatch(o.Store, store.AgentAlarms(), agentsEvery), orders: newWatch(o.Store, store.OrderAlarms(), ordersEvery),
	}
}

// Run looks again and again until ctx ends. What fails is logged and done again.
func (l *Lookout) Run(ctx context.Context) error {
	var parts sync.WaitGroup
	parts.Go(func() { l.repeat(ctx, l.agents, l.lookAtAgents) })
	parts.Go(func() { l.repeat(ctx, l.orders, l.lookAtOrders) })
	parts.Wait()
	return nil
}

// repeat takes a tenth of the time at most, however much there is to look at.
func (l *Lookout) repeat(ctx context.Context, w *watch, look func(context.Context, time.Time) error) {
	for {
		begin := time.Now()
		if err := look(ctx, begin); err != nil && ctx.Err() == nil {
			l.o.Logger.Warn("it could not be seen who is silent; it is later", "error", err)
		}
		timer := time.NewTimer(max(w.every, 10*time.Since(begin)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// clock writes a time as the plant reads it.
func (l *Lookout) clock(plant string, t time.Time) string {
	zone := l.o.Zones[plant]
	if zone == nil {
		zone = time.UTC
	}
	return t.In(zone).Format("2006-01-02 15:04 MST")
}
