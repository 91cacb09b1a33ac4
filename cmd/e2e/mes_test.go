package e2e

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

// mes plays the manufacturing execution system and the people at the machines: it takes work orders from the staging
// table, runs them on the plant's machines, books consumption as rows and as messages, and answers. It survives restarts of
// everything around it without booking twice, and remembers what really happened.
type mes struct {
	t      testing.TB
	db     *sql.DB
	plant  *realparts.Plant
	broker mqtt.Client
	rng    *rand.Rand
	// pieces is the pause between two counts of a machine.
	pace time.Duration

	// calm is held for reading by machines while they change orders: whoever restarts the OPC UA server takes it for
	// writing, because a real machine does not take a new order while its own server starts.
	calm sync.RWMutex

	mu       sync.Mutex
	queue    []*job
	jobs     map[string]*job
	consumed map[string]map[string]decimal.Decimal // order, item
	made     int
	finished int
}

// job is a work order at the MES.
type job struct {
	order    string
	quantity int
	state    string
}

const mesSchema = `
CREATE TABLE mes_consumption (
  id bigserial PRIMARY KEY, ref text UNIQUE NOT NULL, order_no text NOT NULL, item text NOT NULL,
  quantity numeric(12,3) NOT NULL, unit text NOT NULL, booked_at timestamptz NOT NULL DEFAULT now()
)`

func newMES(t testing.TB, db *sql.DB, plant *realparts.Plant, broker *realparts.Broker, seed uint64) *mes {
	t.Helper()
	m := &mes{t: t, db: db, plant: plant, rng: rand.New(rand.NewPCG(seed, 1)), pace: 800 * time.Millisecond,
		jobs: map[string]*job{}, consumed: map[string]map[string]decimal.Decimal{}}
	o := mqtt.NewClientOptions().AddBroker(broker.URL()).SetUsername("linekeeper").SetPassword("broker-secret").SetClientID("mes").SetCleanSession(false).SetAutoReconnect(true).
		SetConnectRetry(true).SetMaxReconnectInterval(time.Second).SetConnectRetryInterval(200 * time.Millisecond)
	m.broker = mqtt.NewClient(o)
	if tok := m.broker.Connect(); !tok.WaitTimeout(30*time.Second) || tok.Error() != nil {
		t.Fatalf("connect the MES to the broker: %v", tok.Error())
	}
	t.Cleanup(func() { m.broker.Disconnect(100) })
	return m
}

// run works until ctx ends.
func (m *mes) run(ctx context.Context, machines int) {
	var wg sync.WaitGroup
	wg.Go(func() { m.takeOrders(ctx) })
	for i := 1; i <= machines; i++ {
		seed := m.rng.Uint64()
		wg.Go(func() { m.machine(ctx, fmt.Sprintf("Press%d", i), rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	wg.Wait()
}

// every calls f at once and then each d until ctx ends.
func every(ctx context.Context, d time.Duration, f func()) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		f()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// insist repeats what fails because something is being restarted.
func (m *mes) insist(ctx context.Context, what string, f func() error) {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			m.t.Logf("MES gave up to %s: %v", what, err)
			return
		case <-ticker.C:
		}
	}
}

type staged struct {
	id, order, action string
	quantity          string
}

func (m *mes) takeOrders(ctx context.Context) {
	every(ctx, 200*time.Millisecond, func() {
		rows, err := m.db.QueryContext(ctx, "SELECT message_id, order_no, action, quantity::text FROM lk_work_order WHERE status = 'NEW' ORDER BY created_at, message_id")
		if err != nil {
			return // the table is not there yet, or the database is being restarted
		}
		var list []staged
		for rows.Next() {
			var s staged
			if rows.Scan(&s.id, &s.order, &s.action, &s.quantity) == nil {
				list = append(list, s)
			}
		}
		rows.Close()
		for _, s := range list {
			m.take(ctx, s)
		}
	})
}

func (m *mes) take(ctx context.Context, s staged) {
	q, err := decimal.NewFromString(s.quantity)
	if err != nil {
		m.t.Errorf("work order %s has quantity %q", s.order, s.quantity)
		return
	}
	m.mu.Lock()
	j := m.jobs[s.order]
	answer := "ACCEPTED"
	switch {
	case j == nil && s.action == "CANCEL":
		answer = "CANCELLED"
	case j == nil:
		j = &job{order: s.order, quantity: int(q.IntPart()), state: "ACCEPTED"}
		m.jobs[s.order] = j
		m.queue = append(m.queue, j)
	case s.action == "CANCEL" && j.state == "ACCEPTED":
		j.state, answer = "CANCELLED", "CANCELLED"
	case s.action == "CANCEL":
		answer = "REJECTED"
	default:
		j.quantity = int(q.IntPart())
		answer = j.state
	}
	m.mu.Unlock()
	m.answer(ctx, s.id, answer)
}

func (m *mes) answer(ctx context.Context, message, state string) {
	m.insist(ctx, "answer "+message, func() error {
		_, err := m.db.ExecContext(ctx, "UPDATE lk_work_order SET status = $2, changed_at = now() WHERE message_id = $1", message, state)
		return err
	})
}

// setState answers for the newest revision of an order.
func (m *mes) setState(ctx context.Context, order, state string) {
	m.insist(ctx, "set "+order+" to "+state, func() error {
		_, err := m.db.ExecContext(ctx, `UPDATE lk_work_order SET status = $2, changed_at = now()
			WHERE message_id = (SELECT message_id FROM lk_work_order WHERE order_no = $1 ORDER BY revision DESC LIMIT 1)`, order, state)
		return err
	})
}

func (m *mes) next() *job {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.queue) > 0 {
		j := m.queue[0]
		m.queue = m.queue[1:]
		if j.state == "ACCEPTED" {
			j.state = "STARTED"
			return j
		}
	}
	return nil
}

func (m *mes) machine(ctx context.Context, name string, rng *rand.Rand) {
	every(ctx, m.pace, func() {
		if j := m.next(); j != nil {
			m.make(ctx, name, j, rng)
		}
	})
}

// tell makes the plant do something, also while it is being restarted.
func (m *mes) tell(ctx context.Context, path string, body map[string]any) {
	m.insist(ctx, "tell the plant "+path, func() error { return m.plant.TryPost(path, body) })
}

func (m *mes) make(ctx context.Context, machine string, j *job, rng *rand.Rand) {
	m.setState(ctx, j.order, "STARTED")
	m.calm.RLock()
	m.tell(ctx, "/order", map[string]any{"machine": machine, "order": j.order})
	m.calm.RUnlock()
	pause := time.NewTicker(m.pace)
	defer pause.Stop()
	made := 0 // not booked as consumption yet
	for done := 0; ; {
		// A machine shows its order before it counts, and until it has counted the last piece.
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		m.mu.Lock()
		left := j.quantity - done
		m.mu.Unlock()
		if left <= 0 {
			if made > 0 { // the quantity was lowered meanwhile
				m.consumeRow(ctx, j.order, "RM-SCREW", int64(8*made))
				m.consumeMessage(ctx, machine, j.order, "RM-STEEL", decimal.New(25*int64(made), -1), fmt.Sprintf("%s-%d", j.order, done))
			}
			break
		}
		n := min(1+rng.IntN(3), left)
		scrap := 0
		if rng.IntN(8) == 0 {
			scrap = 1
		}
		m.calm.RLock() // a count must not be asked for twice because the answer was lost in a restart
		m.tell(ctx, "/count", map[string]any{"machine": machine, "good": n, "scrap": scrap})
		m.calm.RUnlock()
		done += n
		made += n + scrap
		if made >= 15 || done >= j.quantity {
			m.consumeRow(ctx, j.order, "RM-SCREW", int64(8*made))
			m.consumeMessage(ctx, machine, j.order, "RM-STEEL", decimal.New(25*int64(made), -1), fmt.Sprintf("%s-%d", j.order, done))
			made = 0
		}
		m.mu.Lock()
		m.made += n + scrap
		m.mu.Unlock()
	}
	m.calm.RLock()
	m.tell(ctx, "/order", map[string]any{"machine": machine, "order": ""})
	m.calm.RUnlock()
	m.setState(ctx, j.order, "FINISHED")
	m.mu.Lock()
	j.state = "FINISHED"
	m.finished++
	m.mu.Unlock()
}

func (m *mes) book(order, item string, q decimal.Decimal) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.consumed[order] == nil {
		m.consumed[order] = map[string]decimal.Decimal{}
	}
	m.consumed[order][item] = m.consumed[order][item].Add(q)
	return m.made
}

func (m *mes) consumeRow(ctx context.Context, order, item string, n int64) {
	q := decimal.NewFromInt(n)
	ref := fmt.Sprintf("%s-%s-%d-%d", order, item, m.book(order, item, q), m.rand())
	m.insist(ctx, "book "+ref, func() error {
		_, err := m.db.ExecContext(ctx, "INSERT INTO mes_consumption (ref, order_no, item, quantity, unit) VALUES ($1, $2, $3, $4::numeric, 'Stk') ON CONFLICT (ref) DO NOTHING",
			ref, order, item, q.String())
		return err
	})
}

func (m *mes) rand() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rng.Uint64()
}

// consumeMessage publishes until the broker has it; a message that is sent again carries the same id.
func (m *mes) consumeMessage(ctx context.Context, machine, order, item string, q decimal.Decimal, id string) {
	m.book(order, item, q)
	payload := fmt.Sprintf(`{"id":%q,"order":%q,"item":%q,"qty":%s,"unit":"kg","ts":%q}`, id, order, item, q, time.Now().UTC().Format(time.RFC3339Nano))
	m.insist(ctx, "publish "+id, func() error {
		tok := m.broker.Publish("plant/ulm/"+machine+"/consumption", 1, false, payload)
		if !tok.WaitTimeout(5 * time.Second) {
			return fmt.Errorf("no answer of the broker")
		}
		return tok.Error()
	})
}

// progress is how many pieces were made and orders finished.
func (m *mes) progress() (made, finished int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.made, m.finished
}
