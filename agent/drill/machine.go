package drill

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// machine is the scratch plant. It goes on while the agent is dead, as a plant does, and it is the truth that everything is
// compared with.
type machine struct {
	plan *plan
	rand *rand.Rand
	ln   net.Listener
	wg   sync.WaitGroup

	mu      sync.Mutex
	conns   map[net.Conn]bool
	running bool
	held    bool // messages rest: see holdMessages
	pace    float64
	meters  []*meter
	sources map[string]*shelf
	began   time.Time
	done    chan struct{}
}

// meter is one counter.
type meter struct {
	d      *driven
	total  int64 // steps made
	part   float64
	read   bool  // the agent holds a first value: from here on steps count
	stored int64 // steps that the agent acknowledged
}

// entry is one row or message.
type entry struct {
	d      *driven
	sig    wireSignal
	keys   []factkey.Key
	stored bool
}

// shelf is what one source holds for the agent.
type shelf struct {
	entries []*entry // rows and messages in order; a row's cursor is its index + 1
	part    float64
	next    int // which tag has its turn
	tags    []*driven
	unread  int // the first message that is not acknowledged
}

// entriesPerSecond is how many entries all sources make together: a plant of many sources must not take longer to drill.
const entriesPerSecond = 100

func newMachine(p *plan, seed uint64) (*machine, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open the scratch plant: %w", err)
	}
	m := &machine{plan: p, rand: rand.New(rand.NewPCG(seed, 1)), ln: ln, conns: map[net.Conn]bool{}, pace: 1,
		sources: map[string]*shelf{}, began: time.Now(), done: make(chan struct{})}
	for _, d := range p.tags {
		if m.sources[d.Source] == nil {
			m.sources[d.Source] = &shelf{}
		}
		switch d.Kind {
		case "counter":
			m.meters = append(m.meters, &meter{d: d})
		case "row", "message":
			s := m.sources[d.Source]
			s.tags = append(s.tags, d)
		}
	}
	m.wg.Go(m.serve)
	m.wg.Go(m.produce)
	return m, nil
}

func (m *machine) addr() string { return m.ln.Addr().String() }

func (m *machine) close() {
	close(m.done)
	m.ln.Close()
	m.mu.Lock()
	for c := range m.conns {
		c.Close()
	}
	m.mu.Unlock()
	m.wg.Wait()
}

// run lets the machines work, at pace times their usual speed.
func (m *machine) run(pace float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running, m.pace = true, pace
}

func (m *machine) halt() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running = false
}

// holdMessages keeps the broker silent while counters and rows go on.
func (m *machine) holdMessages(held bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held = held
}

// produce makes counts and entries until close.
func (m *machine) produce() {
	tick := time.NewTicker(40 * time.Millisecond)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-m.done:
			return
		case now := <-tick.C:
			m.make(min(now.Sub(last), time.Second), now)
			last = now
		}
	}
}

func (m *machine) make(span time.Duration, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.running {
		return
	}
	for _, c := range m.meters {
		if c.read {
			c.part += c.d.rate() * span.Seconds() * (0.5 + m.rand.Float64())
			whole := int64(c.part)
			c.total, c.part = c.total+whole, c.part-float64(whole)
		}
	}
	making := 0
	for _, s := range m.sources {
		making += min(len(s.tags), 1)
	}
	for _, s := range m.sources {
		m.makeEntries(s, span.Seconds()*entriesPerSecond*m.pace/float64(max(making, 1)), now)
	}
}

func (m *machine) makeEntries(s *shelf, count float64, now time.Time) {
	if len(s.tags) == 0 {
		return
	}
	for s.part += count; s.part >= 1; s.part-- {
		d := s.tags[s.next%len(s.tags)]
		s.next++
		if d.Kind == "message" && m.held {
			continue
		}
		d.seen++
		sig := d.entrySignal(d.seen, now)
		keys, _ := m.plan.keys(d.Source, sig)
		s.entries = append(s.entries, &entry{d: d, sig: pack(sig), keys: keys})
	}
}

// ask is what the drilled agent's stand-in driver says, answer what it gets.
type ask struct {
	Source string `json:"source"`
	Cursor int    `json:"cursor"` // rows up to here are durable
	Stored bool   `json:"stored"` // what the last answer gave is durable
}

type answer struct {
	Signals []wireSignal `json:"signals"`
	Cursor  int          `json:"cursor"`
}

// given is what an answer gave, to be acknowledged.
type given struct {
	entries []*entry
	meters  []*meter
	steps   []int64
}

func (m *machine) serve() {
	for {
		c, err := m.ln.Accept()
		if err != nil {
			return
		}
		m.mu.Lock()
		m.conns[c] = true
		m.mu.Unlock()
		m.wg.Go(func() {
			defer func() {
				c.Close()
				m.mu.Lock()
				delete(m.conns, c)
				m.mu.Unlock()
			}()
			m.talk(c)
		})
	}
}

// talk serves one connection: what it was given and did not acknowledge is given out again to the next.
func (m *machine) talk(c io.ReadWriter) {
	in, out := json.NewDecoder(c), json.NewEncoder(c)
	var last given
	told := map[*meter]int64{} // what this connection was told: the first look at a counter always tells it
	for {
		var q ask
		if err := in.Decode(&q); err != nil {
			return
		}
		if q.Stored {
			m.acknowledge(last)
			last = given{}
			if err := out.Encode(answer{}); err != nil {
				return
			}
			continue
		}
		var a answer
		a, last = m.give(q, told)
		if err := out.Encode(a); err != nil {
			return
		}
	}
}

func (m *machine) acknowledge(g given) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range g.entries {
		e.stored = true
	}
	for i, c := range g.meters {
		c.read = true
		c.stored = max(c.stored, g.steps[i])
	}
	for _, s := range m.sources {
		for s.unread < len(s.entries) && s.entries[s.unread].stored {
			s.unread++
		}
	}
}

// entriesAtOnce bounds one answer.
const entriesAtOnce = 40

func (m *machine) give(q ask, told map[*meter]int64) (a answer, g given) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range m.plan.tags { // context first
		if d.Source == q.Source && (d.Kind == "order" || d.Kind == "reading") {
			a.Signals = append(a.Signals, m.context(d, now))
		}
	}
	context := len(a.Signals)
	for _, c := range m.meters {
		if before, known := told[c]; c.d.Source == q.Source && (!known || c.total > before) {
			a.Signals = append(a.Signals, pack(c.d.counterSignal(c.d.base()+c.total, now)))
			told[c] = c.total
			g.meters, g.steps = append(g.meters, c), append(g.steps, c.total)
		}
	}
	a.Cursor = q.Cursor
	if s := m.sources[q.Source]; s != nil {
		m.giveEntries(s, q, &a, &g)
	}
	if len(a.Signals) == context {
		a.Signals = nil // context alone is not worth a batch
	}
	return a, g
}

func (m *machine) giveEntries(s *shelf, q ask, a *answer, g *given) {
	for i := min(q.Cursor, s.unread); i < len(s.entries) && len(g.entries) < entriesAtOnce; i++ {
		e := s.entries[i]
		if e.d.Kind == "row" && i < q.Cursor {
			e.stored = true // the agent's durable cursor says so, even where its acknowledgement was lost
			continue
		}
		if e.d.Kind == "message" && e.stored {
			continue // acknowledged and gone
		}
		a.Signals = append(a.Signals, e.sig)
		g.entries = append(g.entries, e)
		a.Cursor = max(a.Cursor, i+1)
	}
}

// context is the order that runs, or a reading.
func (m *machine) context(d *driven, now time.Time) wireSignal {
	if d.Kind == "order" {
		return pack(d.orderSignal(int(time.Since(m.began)/(5*time.Second)), now))
	}
	return pack(signal.Signal{Tag: d.Tag, Value: signal.Number(fmt.Sprint(now.UnixMilli() % 1000)), SourceTime: now})
}

// backlog is how many entries and steps the agent has not acknowledged.
func (m *machine) backlog() (n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.meters {
		if !c.read {
			n++
		}
		n += c.total - c.stored
	}
	for _, s := range m.sources {
		for _, e := range s.entries[s.unread:] {
			if !e.stored {
				n++
			}
		}
	}
	return n
}

// made is how many entries and steps there are.
func (m *machine) made() (n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.meters {
		n += c.total
	}
	for _, s := range m.sources {
		n += int64(len(s.entries))
	}
	return n
}

// driver is the stand-in for a live driver: it reads the scratch plant.
type driver struct {
	source, machine string
	early           bool // sabotage: acknowledge before emit
	report          signal.Reporter
}

func (d *driver) Run(ctx context.Context, cursor []byte, emit signal.Emit) error {
	at := 0
	if cursor != nil {
		if err := json.Unmarshal(cursor, &at); err != nil {
			return fmt.Errorf("read cursor: %w", err)
		}
	}
	for ctx.Err() == nil {
		err := d.session(ctx, &at, emit)
		if err != nil && ctx.Err() == nil {
			d.report.State(signal.StateFailed, err.Error())
		}
		wait(ctx, 100*time.Millisecond)
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func (d *driver) session(ctx context.Context, at *int, emit signal.Emit) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", d.machine)
	if err != nil {
		return err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	d.report.State(signal.StateOK, "")
	in, out := json.NewDecoder(c), json.NewEncoder(c)
	call := func(q ask) (a answer, err error) {
		if err = out.Encode(q); err == nil {
			err = in.Decode(&a)
		}
		return a, err
	}
	for {
		a, err := call(ask{Source: d.source, Cursor: *at})
		if err != nil {
			return err
		}
		if len(a.Signals) == 0 {
			if wait(ctx, 50*time.Millisecond); ctx.Err() != nil {
				return nil
			}
			continue
		}
		if err := d.batch(ctx, a, at, emit, func() error { _, err := call(ask{Source: d.source, Stored: true}); return err }); err != nil {
			return err
		}
	}
}

// batch makes an answer durable and then acknowledges it.
func (d *driver) batch(ctx context.Context, a answer, at *int, emit signal.Emit, stored func() error) error {
	now := time.Now()
	b := signal.Batch{Source: d.source}
	for _, w := range a.Signals {
		s, err := unpack(w, now)
		if err != nil {
			return err
		}
		b.Signals = append(b.Signals, s)
	}
	cursor, err := json.Marshal(a.Cursor)
	if err != nil {
		return err
	}
	b.Cursor = cursor
	if d.early {
		if err := stored(); err != nil {
			return err
		}
		wait(ctx, 200*time.Millisecond)
	}
	if err := emit(ctx, b); err != nil {
		return err
	}
	*at = a.Cursor
	if d.early {
		return nil
	}
	return stored()
}

// kind is the stand-in for every live kind.
func kind(s spec) signal.Kind {
	return signal.Kind{Name: kindName, New: func(env signal.Env, _ func(any) error) (signal.Driver, error) {
		return &driver{source: env.Source, machine: s.Machine, early: s.Sabotage == AckBeforeStored, report: env.Reporter}, nil
	}}
}
