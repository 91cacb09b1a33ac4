// Package plant is a small plant in one process: machines that count over OPC UA, scales that report over MQTT, and an MES
// that takes work orders and books material in a SQLite database.
//
// It owns the machines, the broker, the MES database, and the truth: what was really counted and consumed. It promises
// that each piece is counted once, that a machine shows its order before it counts and until it has counted the last
// piece, and that nothing is produced before somebody listens. All chance comes from one seed. It knows nothing of
// the agent, the hub or an ERP, and it forgets its counters when it ends.
package plant

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/cmd/demo/plant/uaserver"
	"github.com/shopspring/decimal"
)

// How a client of the OPC UA server logs in, and the namespace of the machines' tags. The broker asks for nothing.
const (
	User      = "agent"
	Password  = "demo-plant"
	Namespace = "urn:linekeeper:demo:plant"
)

// Options of a plant. Zero means the default.
type Options struct {
	// Dir keeps the MES database and the OPC UA server's certificate. It should be new for each plant.
	Dir string
	// Machines is how many machines there are, press1 and so on; 3.
	Machines int
	// Rate is how many pieces a machine makes in a second; 4.
	Rate float64
	// Scrap is the share of bad pieces; 0.04. Negative means none.
	Scrap float64
	// Settle is the pause between an order's change and the counts; 400 ms.
	Settle time.Duration
	// Seed of all chance; 0 draws one.
	Seed uint64
	// Zone of the times in the MES; UTC when nil.
	Zone *time.Location
	// OPCUAPort and MQTTPort on the loopback interface; 0 takes free ones.
	OPCUAPort, MQTTPort int
	// Logger says what the plant does; nil is silent.
	Logger *slog.Logger
}

func (o *Options) complete() {
	set := func(zero bool, apply func()) {
		if zero {
			apply()
		}
	}
	set(o.Machines == 0, func() { o.Machines = 3 })
	set(o.Rate == 0, func() { o.Rate = 4 })
	set(o.Scrap == 0, func() { o.Scrap = 0.04 })
	set(o.Settle == 0, func() { o.Settle = 400 * time.Millisecond })
	set(o.Seed == 0, func() { o.Seed = rand.Uint64() })
	set(o.Zone == nil, func() { o.Zone = time.UTC })
	set(o.Logger == nil, func() { o.Logger = slog.New(slog.DiscardHandler) })
}

// Plant is a running plant. Its methods may be called from any goroutine.
type Plant struct {
	o      Options
	ua     *uaserver.Server
	broker *broker
	mes    *mes

	machines []*machine
	stop     func()
	done     sync.WaitGroup
	working  sync.WaitGroup // the machines
	quiesce  chan struct{}  // closed when the machines shall stop

	mu       sync.Mutex
	quiesced bool
	truth    Truth
	orders   map[string]*job
}

// Truth is what really happened.
type Truth struct {
	// Orders by number.
	Orders map[string]OrderTruth
	// Good and Scrap are the sums of all orders, in pieces.
	Good, Scrap int64
	// MESRows and MQTTMessages count the bookings of material.
	MESRows, MQTTMessages int64
}

// OrderTruth is what happened to one order: pieces, and material by item as it was booked in the MES and by message.
type OrderTruth struct {
	Item, Machine, State string
	Good, Scrap          int64
	MES, MQTT            map[string]decimal.Decimal
}

// Start starts a plant that waits for work orders. The end of ctx stops it, Close waits until it has.
func Start(ctx context.Context, o Options) (*Plant, error) {
	o.complete()
	p := &Plant{o: o, quiesce: make(chan struct{}), orders: map[string]*job{}, truth: Truth{Orders: map[string]OrderTruth{}}}
	ctx, p.stop = context.WithCancel(ctx)
	if err := p.open(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start plant: %w", err), p.Close())
	}
	for i := range o.Machines {
		m := newMachine(p, fmt.Sprintf("press%d", i+1), rand.New(rand.NewPCG(o.Seed, uint64(i))))
		p.machines = append(p.machines, m)
		p.working.Go(func() { m.run(ctx) })
	}
	p.done.Go(func() { p.broker.run(ctx) })
	p.done.Go(func() { p.takeOrders(ctx) })
	o.Logger.Info("plant started", "seed", o.Seed, "opcua", p.OPCUAEndpoint(), "mqtt", p.MQTTAddr(), "mes", p.MESPath())
	return p, nil
}

func (p *Plant) open(ctx context.Context) (err error) {
	if p.mes, err = openMES(p.MESPath(), p.o.Zone); err != nil {
		return err
	}
	if p.broker, err = startBroker(p.o.MQTTPort); err != nil {
		return err
	}
	p.ua, err = uaserver.Start(ctx, uaserver.Config{Dir: filepath.Join(p.o.Dir, "opcua"), URI: Namespace, User: User, Password: Password, Port: p.o.OPCUAPort})
	return err
}

// OPCUAEndpoint is the machines' address, such as opc.tcp://127.0.0.1:4840. It takes Basic256Sha256 with SignAndEncrypt.
func (p *Plant) OPCUAEndpoint() string { return p.ua.Endpoint() }

// OPCUACertificate is the machines' certificate in DER, which a careful client wants to trust first.
func (p *Plant) OPCUACertificate() []byte { return p.ua.Certificate() }

// NodeID names a tag (Good, Scrap, Order, State) of a machine.
func (p *Plant) NodeID(machine, tag string) string { return p.ua.NodeID(machine + "." + tag) }

// MQTTAddr is the broker's address, such as 127.0.0.1:1883. It takes everybody.
func (p *Plant) MQTTAddr() string { return p.broker.addr }

// MESPath is the MES's SQLite database.
func (p *Plant) MESPath() string { return filepath.Join(p.o.Dir, "mes.db") }

// Machines are the names of the machines, which are also their work centres.
func (p *Plant) Machines() []string {
	names := make([]string, len(p.machines))
	for i, m := range p.machines {
		names[i] = m.name
	}
	return names
}

// Seed is the seed of all chance.
func (p *Plant) Seed() uint64 { return p.o.Seed }

// Unsent counts the OPC UA values that no client has acknowledged yet.
func (p *Plant) Unsent() int { return p.ua.Unsent() }

// Truth returns what has happened until now.
func (p *Plant) Truth() Truth {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.truth
	t.Orders = map[string]OrderTruth{}
	for no, o := range p.truth.Orders {
		o.MES, o.MQTT = maps.Clone(o.MES), maps.Clone(o.MQTT)
		t.Orders[no] = o
	}
	return t
}

// record changes the truth of an order.
func (p *Plant) record(no string, change func(t *Truth, o *OrderTruth)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := p.truth.Orders[no]
	if o.MES == nil {
		o.MES, o.MQTT = map[string]decimal.Decimal{}, map[string]decimal.Decimal{}
	}
	change(&p.truth, &o)
	p.truth.Orders[no] = o
}

// Quiesce stops the machines after the piece they are making, and returns when their last counts are shown and the last
// rows and messages are with the MES and the broker. Orders that are not finished stay so. It may be called again.
func (p *Plant) Quiesce(ctx context.Context) error {
	p.mu.Lock()
	if !p.quiesced {
		p.quiesced = true
		close(p.quiesce)
	}
	p.mu.Unlock()
	stopped := make(chan struct{})
	go func() { p.working.Wait(); close(stopped) }() // ends with the machines, at the latest in Close
	select {
	case <-stopped:
	case <-ctx.Done():
		return fmt.Errorf("quiesce plant: machines still run: %w", ctx.Err())
	}
	if err := p.broker.drain(ctx); err != nil {
		return fmt.Errorf("quiesce plant: messages still wait for a subscriber: %w", err)
	}
	return nil
}

// Close stops everything and waits for it, up to 10 s for OPC UA clients that are still connected. What the broker holds for absent clients is lost.
func (p *Plant) Close() error {
	p.stop()
	p.working.Wait()
	p.done.Wait()
	var errs []error
	if p.broker != nil {
		errs = append(errs, p.broker.close())
	}
	if p.ua != nil {
		errs = append(errs, p.ua.Close())
	}
	if p.mes != nil {
		errs = append(errs, p.mes.db.Close())
	}
	return errors.Join(errs...)
}

// takeOrders reads new work orders from the MES's staging table until ctx ends.
func (p *Plant) takeOrders(ctx context.Context) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		rows, err := p.mes.newOrders(ctx)
		if err != nil && ctx.Err() == nil {
			p.o.Logger.Warn("MES cannot read work orders", "error", err)
		}
		for _, r := range rows {
			if err := p.takeOrder(ctx, r); err != nil && ctx.Err() == nil {
				p.o.Logger.Warn("MES cannot answer a work order", "order", r.order, "error", err)
			}
		}
	}
}

// takeOrder decides on one revision of an order and answers in its row.
func (p *Plant) takeOrder(ctx context.Context, r row) error {
	if r.problem != "" {
		return p.mes.answer(ctx, r.messageID, Rejected, r.problem)
	}
	p.mu.Lock()
	j := p.orders[r.order]
	known := j != nil
	if !known {
		j = newJob(r)
		if r.action != "CANCEL" {
			p.orders[r.order] = j
		}
	}
	p.mu.Unlock()
	state, reason, err := p.revise(ctx, j, r, known)
	if err != nil {
		return err
	}
	p.o.Logger.Info("MES took a work order", "order", r.order, "revision", r.revision, "action", r.action, "state", state, "reason", reason)
	if !known && r.action != "CANCEL" {
		m := p.machineFor(r.workCenter)
		p.record(r.order, func(_ *Truth, o *OrderTruth) { o.Item, o.Machine, o.State = r.item, m.name, Accepted })
		m.push(j)
	}
	return nil
}

func (p *Plant) revise(ctx context.Context, j *job, r row, known bool) (state, reason string, err error) {
	j.show.Lock()
	defer j.show.Unlock()
	state, reason = j.revise(r, known)
	return state, reason, p.mes.answer(ctx, r.messageID, state, reason)
}

// machineFor is the machine that a work centre names, else the one with the least to do.
func (p *Plant) machineFor(workCenter string) *machine {
	name := workCenter[strings.LastIndex(workCenter, "/")+1:]
	best := p.machines[0]
	for _, m := range p.machines {
		if strings.EqualFold(m.name, name) {
			return m
		}
		if m.waiting() < best.waiting() {
			best = m
		}
	}
	return best
}
