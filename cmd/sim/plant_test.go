package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"strconv"
	"sync"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// line is one line of the ledger, as machines see it.
type line struct{ order, item, kind, unit string }

func (l line) String() string { return fmt.Sprintf("%s %s %s %s", l.order, l.item, l.kind, l.unit) }

// station is what one agent reads: a PLC with counters, an MES with rows, a broker with messages. It outlives the agent.
type station struct {
	name string
	mu   sync.Mutex
	rng  *rand.Rand

	// The PLC shows good as it is, scrap and shots modulo 65536; they had a value before anybody counted.
	order                string
	good, scrap, strokes int64 // strokes are counted from zero: 0.25 kg each
	shots                int64 // of a tool whose shots two items share, 2 to 1
	goodBase, scrapBase  int64
	resting              bool // nobody works
	watched              bool // the counters were read once: from then on they move
	rows                 []row
	queue                []message // published and not acknowledged
	published, confirmed int
	truth                map[line]decimal.Decimal
	owner                *process      // whose session the broker has
	came                 chan struct{} // closed when there are new messages
}

type row struct {
	tag   string
	value map[string]any
}

type message struct {
	id    int
	value map[string]any
}

func newStation(name string, rng *rand.Rand) *station {
	s := &station{name: name, rng: rng, order: "WO-" + name + "-1", truth: map[line]decimal.Decimal{}, came: make(chan struct{})}
	s.goodBase, s.scrapBase = rng.Int64N(1_000_000), 65536-rng.Int64N(30)-1
	s.good, s.scrap, s.shots = s.goodBase, s.scrapBase, s.scrapBase
	return s
}

// source is the name of one of its sources; a plant has each name once.
func (s *station) source(kind string) string { return s.name + "-" + kind }

func (s *station) orderNo(n int) string { return fmt.Sprintf("WO-%s-%d", s.name, n) }

// orders are the work orders that the station works on.
func (s *station) orders() []string {
	return []string{s.orderNo(1), s.orderNo(2), s.orderNo(3)}
}

// serve gives the broker's session to a process.
func (s *station) serve(p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owner = p
}

func (s *station) serves(p *process) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.owner == p
}

// rest lets nobody work, or lets them again.
func (s *station) rest(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resting = on
}

// produce lets the station work until ctx ends.
func (s *station) produce(ctx context.Context) {
	for {
		s.mu.Lock()
		wait := 50*time.Millisecond + time.Duration(s.rng.IntN(1600))*time.Millisecond
		s.mu.Unlock()
		if pause(ctx, wait) != nil {
			return
		}
		s.mu.Lock()
		if s.resting {
			s.mu.Unlock()
			continue
		}
		switch s.rng.IntN(4) {
		case 0:
			s.insert()
		case 1:
			s.publish()
		default:
			s.count()
		}
		s.mu.Unlock()
	}
}

// made adds to the truth. mu is held.
func (s *station) made(l line, n int64) { s.truth[l] = s.truth[l].Add(decimal.NewFromInt(n)) }

// count moves the counters. mu is held.
func (s *station) count() {
	if !s.watched {
		return
	}
	n := int64(1 + s.rng.IntN(3))
	s.good += n
	s.made(line{s.order, "FG-1", "yield", "C62"}, n)
	if s.rng.IntN(6) == 0 {
		s.scrap++
		s.made(line{s.order, "FG-1", "scrap", "C62"}, 1)
	}
	for range n {
		s.shoot()
	}
	if s.rng.IntN(2) == 0 {
		s.strokes += n
		l := line{s.order, "RM-1", "consumed", "KGM"}
		s.truth[l] = s.truth[l].Add(decimal.New(25*n, -2))
	}
}

// shoot makes one shot: of each three that the counter shows, the second is the other item's. mu is held.
func (s *station) shoot() {
	item := "FG-4"
	if s.shots%65536%3 == 1 {
		item = "FG-5"
	}
	s.shots++
	s.made(line{s.order, item, "yield", "C62"}, 2)
}

// insert adds a row to the MES. mu is held.
func (s *station) insert() {
	n := int64(1 + s.rng.IntN(9))
	order := s.orderNo(2 + s.rng.IntN(2))
	v := map[string]any{"order": order, "qty": signal.Number(strconv.FormatInt(n, 10)), "at": right()}
	if s.rng.IntN(3) == 0 {
		v["item"] = "RM-7"
		s.rows = append(s.rows, row{"issues", v})
		s.made(line{order, "RM-7", "consumed", "KGM"}, n)
		return
	}
	v["item"] = "FG-2"
	s.rows = append(s.rows, row{"rows", v})
	s.made(line{order, "FG-2", "yield", "C62"}, n)
}

var digits = regexp.MustCompile(`\d+`)

// rowOf returns the number of the row that a fact's position names, 0 when it names none.
func (s *station) rowOf(position string) int {
	// It ends with "rows|17|1", escaped: the last number but one is the row.
	numbers := digits.FindAllString(position, -1)
	if len(numbers) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(numbers[len(numbers)-2])
	return n
}

// edit makes the quantity of a row smaller.
func (s *station) edit(n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n < 1 || n > len(s.rows) || s.rows[n-1].value["qty"] == nil {
		return false
	}
	was, _ := strconv.Atoi(string(s.rows[n-1].value["qty"].(signal.Number)))
	if was < 2 {
		return false
	}
	changed := maps.Clone(s.rows[n-1].value)
	changed["qty"] = signal.Number(strconv.Itoa(was - 1))
	s.rows[n-1].value = changed
	return true
}

// publish sends a message to the broker. mu is held.
func (s *station) publish() {
	n := int64(1 + s.rng.IntN(9))
	order := s.orderNo(2)
	s.published++
	s.queue = append(s.queue, message{s.published, map[string]any{
		"id": fmt.Sprintf("%s-%d", s.name, s.published), "order": order, "item": "FG-3", "qty": signal.Number(strconv.FormatInt(n, 10)), "at": right(),
	}})
	s.made(line{order, "FG-3", "yield", "C62"}, n)
	close(s.came)
	s.came = make(chan struct{})
}

// finish says in the MES that all orders are finished.
func (s *station) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, no := range s.orders() {
		s.rows = append(s.rows, row{"states", map[string]any{"order": no, "state": "finished", "at": right()}})
	}
}

// kind makes the drivers of one process of the agent.
func (s *station) kind(p *process) signal.Kind {
	return signal.Kind{Name: "sim", New: func(env signal.Env, _ func(any) error) (signal.Driver, error) {
		d := driver{s: s, p: p, report: env.Reporter}
		switch env.Source {
		case s.source("plc"):
			return &plc{d}, nil
		case s.source("mes"):
			return &mes{d}, nil
		}
		return &broker{d}, nil
	}}
}

// driver is what the drivers share.
type driver struct {
	s      *station
	p      *process
	report signal.Reporter
}

// hand gives a batch to the agent until it is durable; false: the driver shall end.
func (d *driver) hand(ctx context.Context, emit signal.Emit, b signal.Batch) bool {
	for ctx.Err() == nil {
		if d.p.pass("emit") != nil {
			return false
		}
		if err := emit(ctx, b); err == nil {
			return d.p.pass("emitted") == nil
		}
		if pause(ctx, time.Second) != nil {
			return false
		}
	}
	return false
}

// plc reads counters.
type plc struct{ driver }

func (d *plc) Run(ctx context.Context, _ []byte, emit signal.Emit) error {
	d.report.State(signal.StateOK, "")
	for pause(ctx, 400*time.Millisecond) == nil {
		s := d.s
		s.mu.Lock()
		good, scrap, strokes, shots, order := s.good, s.scrap%65536, s.strokes, s.shots%65536, s.order
		s.mu.Unlock()
		now := d.p.clock.now()
		number := func(tag string, n int64) signal.Signal {
			return signal.Signal{Tag: tag, Value: signal.Number(strconv.FormatInt(n, 10)), ReceivedTime: now}
		}
		b := signal.Batch{Signals: []signal.Signal{
			{Tag: "order", Value: order, ReceivedTime: now}, number("good", good), number("scrap", scrap), number("strokes", strokes), number("shots", shots), number("temperature", 20+good%7),
		}}
		if !d.hand(ctx, emit, b) {
			return nil
		}
		s.mu.Lock()
		s.watched = true
		s.mu.Unlock()
	}
	return nil
}

// mes reads rows after a cursor.
type mes struct{ driver }

func (d *mes) Run(ctx context.Context, cursor []byte, emit signal.Emit) error {
	d.report.State(signal.StateOK, "")
	at := 0
	if cursor != nil {
		if err := json.Unmarshal(cursor, &at); err != nil {
			return err
		}
	}
	for pause(ctx, 700*time.Millisecond) == nil {
		b := signal.Batch{}
		s := d.s
		s.mu.Lock()
		for n := at; n < len(s.rows) && n < at+20; n++ {
			r := s.rows[n]
			b.Signals = append(b.Signals, signal.Signal{
				Tag: r.tag, Position: fmt.Sprintf("%s|%d|1", r.tag, n+1), Value: r.value, ReceivedTime: d.p.clock.now(),
			})
		}
		s.mu.Unlock()
		if len(b.Signals) == 0 {
			continue
		}
		next := at + len(b.Signals)
		b.Cursor, _ = json.Marshal(next)
		if !d.hand(ctx, emit, b) {
			return nil
		}
		at = next
	}
	return nil
}

// broker takes messages, which come again until they are acknowledged.
type broker struct{ driver }

func (d *broker) Run(ctx context.Context, _ []byte, emit signal.Emit) error {
	d.report.State(signal.StateOK, "")
	seen := 0 // a broker sends each message once on one connection
	for ctx.Err() == nil {
		s := d.s
		if !s.serves(d.p) {
			if pause(ctx, time.Second) != nil { // the broker has another session under this name
				return nil
			}
			continue
		}
		s.mu.Lock()
		var take []message
		for _, m := range s.queue {
			if m.id > seen && len(take) < 15 {
				take = append(take, m)
			}
		}
		came := s.came
		s.mu.Unlock()
		if len(take) == 0 {
			select {
			case <-came:
			case <-ctx.Done():
			}
			continue
		}
		b := signal.Batch{}
		for _, m := range take {
			b.Signals = append(b.Signals, signal.Signal{Tag: "packs", Topic: "packs", Value: m.value, ReceivedTime: d.p.clock.now()})
		}
		if !d.hand(ctx, emit, b) {
			return nil
		}
		for _, m := range take {
			if d.p.pass("ack") != nil {
				return nil
			}
			s.acknowledge(m.id)
			seen = m.id
		}
	}
	return nil
}

// acknowledge takes a message off the broker for ever.
func (s *station) acknowledge(id int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, m := range s.queue {
		if m.id == id {
			s.queue = append(s.queue[:i:i], s.queue[i+1:]...)
			s.confirmed++
			return
		}
	}
}
