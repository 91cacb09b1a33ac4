package mes

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
)

const (
	commits  = 10_000
	sessions = 20
)

// Twenty sessions commit ten thousand transactions in another order than they began them, some a good while later, and roll
// others back; the driver is killed at random meanwhile. Every way of finding changes that promises it sees each committed row
// once: nothing skipped, nothing doubled.
func testTenThousand(t *testing.T, l *lab) {
	if l.driver == "sqlite" {
		t.Log("SQLite has one writer at a time: nothing can be committed out of order")
		return
	}
	l.booking(t, "booking")
	l.exec(t, fmt.Sprintf("CREATE TABLE interface (id %s, n INT NOT NULL, state VARCHAR(10) NOT NULL DEFAULT 'NEW')", l.serial()))
	l.exec(t, "CREATE INDEX interface_state ON interface (state, id)")
	l.exec(t, "CREATE INDEX booking_at ON booking (at, id)")
	var queries []string
	tags := []string{"outbox", "mark"}
	for change, more := range l.modes() {
		tags = append(tags, change)
		if change == "xmin" {
			more = "poll: 300ms" // it reads the whole table
		}
		queries = append(queries, strings.Replace(l.query("booking", change, more), "poll: 10ms, poll", "poll", 1))
	}
	queries = append(queries, l.query("booking", "outbox", "outbox: {create: true}"),
		l.query("interface", "mark", "mark: {column: state, value: TAKEN, pending: NEW}"))
	section := l.section("queries:\n" + strings.Join(queries, "\n"))
	p := newPlant(t)
	stop := p.start(l.outboxQuery("booking", ""))
	p.await("state ok", func() bool { return p.state == signal.StateOK }) // so the triggers are there
	stop()
	p.cursor = nil
	stop = p.start(section)
	r := dice(t)
	w := &workload{t: t, l: l, seed: r.Uint64(), committed: map[string]int{}}
	begin := time.Now()
	done := make(chan struct{})
	go func() { w.run(); close(done) }()
	for kills := 0; ; kills++ {
		select {
		case <-done:
		case <-time.After(time.Duration(200+r.IntN(600)) * time.Millisecond):
			stop()
			emit := p.emit
			if kills%2 == 0 {
				emit = p.dying(r.IntN(20), r.IntN(2) == 0)
			}
			stop = p.run(p.make(section), emit)
			continue
		}
		t.Logf("%d commits of %d sessions in %s, %d rolled back, %d out of order, %d kills", len(w.committed), sessions,
			time.Since(begin).Round(time.Millisecond), w.rolledBack, w.outOfOrder(), kills)
		break
	}
	stop()
	p.start(section)
	for _, tag := range tags {
		p.await(tag+" has everything", func() bool { return p.distinct(tag) >= len(w.committed) })
	}
	t.Logf("all read %s after the first commit", time.Since(begin).Round(time.Millisecond))
	if len(w.committed) < commits || w.outOfOrder() < commits/20 {
		t.Errorf("%d commits, %d out of order: too few to prove anything", len(w.committed), w.outOfOrder())
	}
	for _, tag := range tags {
		p.compareTag(tag, w.committed)
	}
}

// distinct counts the numbers of a tag's signals. It needs the lock.
func (p *plant) distinct(tag string) int {
	seen := map[any]bool{}
	for _, s := range p.signals {
		if s.Tag == tag {
			seen[signal.Whole(s.Value).(map[string]any)["n"]] = true
		}
	}
	return len(seen)
}

func (p *plant) compareTag(tag string, committed map[string]int) {
	p.t.Helper()
	of := &plant{t: p.t}
	for _, s := range p.all() {
		if s.Tag == tag {
			of.signals = append(of.signals, s)
		}
	}
	p.t.Logf("change: %s", tag)
	of.compare(committed)
}

// workload is what the sessions do.
type workload struct {
	t    *testing.T
	l    *lab
	seed uint64
	next atomic.Int64

	mu         sync.Mutex
	committed  map[string]int
	order      []int64 // ids in the order of their commits
	rolledBack int
}

func (w *workload) run() {
	var group sync.WaitGroup
	for i := range sessions {
		group.Go(func() {
			if err := w.session(rand.New(rand.NewPCG(w.seed, uint64(i)))); err != nil {
				w.t.Errorf("session %d: %v", i, err)
			}
		})
	}
	group.Wait()
}

// session commits until enough is committed. A part of its transactions stays open while the other sessions go on.
func (w *workload) session(r *rand.Rand) error {
	ctx := context.Background()
	conn, err := w.l.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	for {
		n := w.next.Add(1)
		if n > commits+commits/10 {
			return nil
		}
		rollBack := n%11 == 0
		if err := w.one(ctx, conn, r, int(n), rollBack); err != nil {
			return err
		}
	}
}

func (w *workload) one(ctx context.Context, conn *sql.Conn, r *rand.Rand, n int, rollBack bool) error {
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	var id int64
	if w.l.driver == "postgres" {
		err = tx.QueryRow(fmt.Sprintf("INSERT INTO booking (at, n) VALUES (%s, %d) RETURNING id", w.l.now(), n)).Scan(&id)
	} else {
		var res sql.Result
		if res, err = tx.Exec(fmt.Sprintf("INSERT INTO booking (at, n) VALUES (%s, %d)", w.l.now(), n)); err == nil {
			id, err = res.LastInsertId()
		}
	}
	if err != nil {
		return err
	}
	if _, err := tx.Exec(fmt.Sprintf("INSERT INTO interface (n) VALUES (%d)", n)); err != nil {
		return err
	}
	switch {
	case r.IntN(200) == 0:
		time.Sleep(time.Duration(r.IntN(300)) * time.Millisecond) // a transaction that a person holds open
	case r.IntN(10) == 0:
		time.Sleep(time.Duration(r.IntN(10)) * time.Millisecond)
	}
	if rollBack {
		err = tx.Rollback()
	} else {
		err = tx.Commit()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if rollBack {
		w.rolledBack++
	} else if err == nil {
		w.committed[fmt.Sprint(n)]++
		w.order = append(w.order, id)
	}
	return err
}

// outOfOrder counts the commits that came after one with a higher number.
func (w *workload) outOfOrder() int {
	n, high := 0, int64(0)
	for _, id := range w.order {
		if id < high {
			n++
		}
		high = max(high, id)
	}
	return n
}
