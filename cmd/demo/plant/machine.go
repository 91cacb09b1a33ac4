package plant

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/shopspring/decimal"
)

// The values of a machine's State tag.
const (
	stateIdle    = int32(0)
	stateSetup   = int32(1)
	stateRunning = int32(2)
	stateStopped = int32(3)
)

const (
	// batch is after how many pieces material is booked.
	batch = 5
	// scale is the number of decimals of booked material.
	scale = 3
)

// job is one work order in the plant.
type job struct {
	order string
	item  string
	// show is held while a state is decided on and written, so that a row never shows an older one.
	show sync.Mutex

	mu         sync.Mutex
	messageID  string // of the revision that counts
	revision   int64
	quantity   decimal.Decimal
	state      string
	components []component
	booked     []decimal.Decimal // by component
}

func newJob(r row) *job {
	return &job{order: r.order, item: r.item, messageID: r.messageID, revision: r.revision, quantity: r.quantity, state: Accepted,
		components: r.components, booked: make([]decimal.Decimal, len(r.components))}
}

// revise takes a row for the order and says what becomes of the row.
func (j *job) revise(r row, known bool) (state, reason string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case r.action == "CANCEL" && !known:
		return Cancelled, ""
	case r.action == "CANCEL" && j.state == Started:
		return Rejected, "the order runs on a machine"
	case r.action == "CANCEL" && j.state == Finished:
		return Rejected, "the order is finished"
	case r.action == "CANCEL":
		j.state, j.messageID, j.revision = Cancelled, r.messageID, r.revision
		return Cancelled, ""
	case !known || r.revision <= j.revision:
		return j.state, ""
	case j.state == Finished || j.state == Cancelled:
		return Rejected, "the order is " + j.state
	}
	// What was booked stays: the new ratio counts from the whole on.
	j.messageID, j.revision, j.quantity = r.messageID, r.revision, r.quantity
	if len(r.components) == len(j.components) {
		j.components = r.components
	}
	return j.state, ""
}

// advance moves the job to a state unless it was cancelled, and returns the row that shows it.
func (j *job) advance(state string) (messageID string, ok bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.state == Cancelled {
		return "", false
	}
	j.state = state
	return j.messageID, true
}

func (j *job) wanted() decimal.Decimal {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.quantity
}

// booking is material that is to be booked.
type booking struct {
	component
	inMES bool
	take  decimal.Decimal
}

// consume works out what the pieces made so far need and was not booked yet. What it returns counts as booked.
func (j *job) consume(pieces int64) (all []booking) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i, c := range j.components {
		if c.Backflush || !j.quantity.IsPositive() {
			continue
		}
		take := c.Required.Mul(decimal.NewFromInt(pieces)).DivRound(j.quantity, scale).Sub(j.booked[i])
		if take.IsPositive() {
			j.booked[i] = j.booked[i].Add(take)
			all = append(all, booking{c, i%2 == 0, take})
		}
	}
	return all
}

// machine makes pieces, one order after the other.
type machine struct {
	p           *Plant
	name        string
	dice        *rand.Rand
	good, scrap uint32 // counters that are never reset

	mu    sync.Mutex
	queue []*job
	busy  bool
	wake  chan struct{}
}

func newMachine(p *Plant, name string, dice *rand.Rand) *machine {
	m := &machine{p: p, name: name, dice: dice, good: 1000 + dice.Uint32N(9000), scrap: dice.Uint32N(500), wake: make(chan struct{}, 1)}
	p.ua.AddTag(name+".Good", m.good)
	p.ua.AddTag(name+".Scrap", m.scrap)
	p.ua.AddTag(name+".Order", "")
	p.ua.AddTag(name+".State", stateIdle)
	return m
}

func (m *machine) push(j *job) {
	m.mu.Lock()
	m.queue = append(m.queue, j)
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// waiting counts the orders that the machine has still to do, the running one included.
func (m *machine) waiting() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := len(m.queue)
	if m.busy {
		n++
	}
	return n
}

func (m *machine) next() *job {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.busy = len(m.queue) > 0
	if !m.busy {
		return nil
	}
	j := m.queue[0]
	m.queue = m.queue[1:]
	return j
}

// run makes the orders of the queue until ctx ends or the plant is quiesced.
func (m *machine) run(ctx context.Context) {
	for m.goesOn(ctx) {
		if j := m.next(); j != nil {
			m.make(ctx, j)
			continue
		}
		select {
		case <-ctx.Done():
		case <-m.p.quiesce:
		case <-m.wake:
		}
	}
	m.p.ua.Set(m.name+".State", stateStopped)
}

func (m *machine) goesOn(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-m.p.quiesce:
		return false
	default:
		return true
	}
}

// make makes one order: it is shown before the first count and until after the last.
func (m *machine) make(ctx context.Context, j *job) {
	if !m.awaitListener(ctx) {
		return
	}
	if !m.advance(ctx, j, Started, func() {
		m.p.ua.Set(m.name+".Order", j.order)
		m.p.ua.Set(m.name+".State", stateSetup)
	}) {
		m.p.record(j.order, func(_ *Truth, o *OrderTruth) { o.State = Cancelled })
		return
	}
	m.settle(ctx)
	m.p.ua.Set(m.name+".State", stateRunning)
	finished := m.produce(ctx, j)
	m.settle(ctx)
	m.p.ua.Set(m.name+".Order", "")
	m.p.ua.Set(m.name+".State", stateIdle)
	if finished {
		m.advance(ctx, j, Finished, func() {})
	}
}

// advance moves an order to a state: on the machine first, then in the MES. It reports false for a cancelled order.
func (m *machine) advance(ctx context.Context, j *job, state string, onMachine func()) bool {
	j.show.Lock()
	defer j.show.Unlock()
	messageID, ok := j.advance(state)
	if !ok {
		return false
	}
	onMachine()
	m.p.record(j.order, func(_ *Truth, o *OrderTruth) { o.State = state })
	if err := m.p.mes.answer(ctx, messageID, state, ""); err != nil {
		m.p.o.Logger.Error("MES cannot show an order's state", "order", j.order, "state", state, "error", err)
	}
	return true
}

// awaitListener waits until somebody reads the counters: what nobody ever listened to cannot be counted.
func (m *machine) awaitListener(ctx context.Context) bool {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !(m.p.ua.Watched(m.name+".Good") && m.p.ua.Watched(m.name+".Scrap") && m.p.ua.Watched(m.name+".Order")) {
		select {
		case <-ctx.Done():
			return false
		case <-m.p.quiesce:
			return false
		case <-tick.C:
		}
	}
	return true
}

func (m *machine) settle(ctx context.Context) {
	t := time.NewTimer(m.p.o.Settle)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// produce counts pieces until the order's quantity is good, and books their material. It reports whether the order is done.
func (m *machine) produce(ctx context.Context, j *job) bool {
	tick := time.NewTicker(time.Duration(float64(time.Second) / m.p.o.Rate))
	defer tick.Stop()
	var good, scrap int64
	defer func() { m.book(ctx, j, good+scrap) }()
	for decimal.NewFromInt(good).LessThan(j.wanted()) {
		select {
		case <-ctx.Done():
			return false
		case <-m.p.quiesce:
			return false
		case <-tick.C:
		}
		if m.piece(j) {
			good++
		} else {
			scrap++
		}
		if (good+scrap)%batch == 0 {
			m.book(ctx, j, good+scrap)
		}
	}
	return true
}

// piece makes one piece and reports whether it is good.
func (m *machine) piece(j *job) bool {
	good := m.dice.Float64() >= m.p.o.Scrap
	m.p.record(j.order, func(t *Truth, o *OrderTruth) {
		if good {
			t.Good++
			o.Good++
		} else {
			t.Scrap++
			o.Scrap++
		}
	})
	if good {
		m.good++
		m.p.ua.Set(m.name+".Good", m.good)
	} else {
		m.scrap++
		m.p.ua.Set(m.name+".Scrap", m.scrap)
	}
	return good
}

// book books the material of the pieces made so far: the first component, the third and so on in the MES, the others by
// message.
func (m *machine) book(ctx context.Context, j *job, pieces int64) {
	for _, b := range j.consume(pieces) {
		if !b.inMES {
			m.p.record(j.order, func(t *Truth, o *OrderTruth) {
				t.MQTTMessages++
				o.MQTT[b.Item] = o.MQTT[b.Item].Add(b.take)
			})
			m.p.broker.enqueue(m.name, j.order, b, time.Now().In(m.p.o.Zone))
			continue
		}
		if err := m.p.mes.consume(ctx, j.order, b); err != nil {
			m.p.o.Logger.Error("MES cannot book material", "order", j.order, "item", b.Item, "error", err)
			continue
		}
		m.p.record(j.order, func(t *Truth, o *OrderTruth) {
			t.MESRows++
			o.MES[b.Item] = o.MES[b.Item].Add(b.take)
		})
	}
}
