package inbox

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"google.golang.org/protobuf/proto"

	"github.com/linekeeper/linekeeper/agent/buffer"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// How many settled orders and unusable deliveries are kept; orders that are not settled are all kept.
const (
	keepSettledOrders = 2000
	keepAside         = 200
)

// Inbox is an open file. Its methods may be called from any goroutine.
type Inbox struct {
	db        *bbolt.DB
	recovered string
	changed   chan struct{}
	news      atomic.Uint64

	writing  sync.Mutex // one writer; held around transactions
	doubtful bool       // the last commit failed; the writer's own

	mu       sync.Mutex // what follows is what the file holds
	epoch    string
	seq      int64
	arrivals uint64
	orders   map[string]*record
	listed   map[string]int // receipts in each list
}

// ErrInUse says that another process has the file open.
var ErrInUse = errors.New("inbox is in use by another process")

// Open opens the file, or makes it. A damaged file is renamed and a new one begun; Recovered then tells.
func Open(path string) (*Inbox, error) {
	in, damage, err := openChecked(path)
	if err != nil {
		return nil, err
	}
	if damage == nil {
		return in, nil
	}
	aside := path + ".damaged-" + time.Now().UTC().Format("20060102T150405.000Z")
	if err := os.Rename(path, aside); err != nil {
		return nil, fmt.Errorf("set damaged inbox %q aside: %w", path, err)
	}
	in, again, err := openChecked(path)
	if err = errors.Join(err, again); err != nil {
		return nil, fmt.Errorf("begin a new inbox: %w", err)
	}
	in.recovered = fmt.Sprintf("the inbox was damaged (%v) and begun anew: the hub sends its work orders and receipts again; the old file is %q", damage, aside)
	return in, nil
}

// Recovered says in one sentence what Open had to do about a damaged file; empty when there was none.
func (in *Inbox) Recovered() string { return in.recovered }

// Close closes the file.
func (in *Inbox) Close() error {
	in.writing.Lock()
	defer in.writing.Unlock()
	return in.db.Close()
}

// openChecked opens a file and reads all of it. damage is why the file cannot be used; err is a fault that a new file would
// not mend. A file cut short or scribbled over makes the mapped memory fault: that becomes damage, too.
func openChecked(path string) (in *Inbox, damage, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	var db *bbolt.DB
	defer func() {
		if r := recover(); r != nil {
			in, damage, err = nil, fmt.Errorf("reading it failed: %v", r), nil
		}
		if in == nil && db != nil {
			db.Close()
		}
	}()
	db, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: 2 * time.Second, FreelistType: bbolt.FreelistMapType})
	var file *os.PathError
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, nil, fmt.Errorf("open inbox %q: %w", path, ErrInUse)
	case errors.As(err, &file):
		return nil, nil, fmt.Errorf("open %w", explain(path, err))
	case err != nil:
		return nil, err, nil
	}
	if err := checkLength(db, path); err != nil {
		return nil, err, nil
	}
	if err := buffer.CheckFile(path); err != nil { // before bbolt walks pages that could keep it for ever
		return nil, err, nil
	}
	in = &Inbox{db: db, changed: make(chan struct{}, 1), orders: map[string]*record{}, listed: map[string]int{}}
	if err := in.load(); err != nil {
		in = nil
		return nil, err, nil
	}
	if err := db.Update(makeBuckets); err != nil {
		in = nil
		return nil, nil, fmt.Errorf("open %w", explain(path, err))
	}
	return in, nil, nil
}

// checkLength finds a file that was cut short before its missing pages are touched.
func checkLength(db *bbolt.DB, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return db.View(func(tx *bbolt.Tx) error {
		if tx.Size() > info.Size() {
			return fmt.Errorf("it has %d bytes and should have %d", info.Size(), tx.Size())
		}
		return nil
	})
}

var buckets = struct{ meta, orders, past, receipts, aside, facts []byte }{
	[]byte("meta"), []byte("orders"), []byte("past"), []byte("receipts"), []byte("aside"), []byte("facts"),
}

func makeBuckets(tx *bbolt.Tx) error {
	for _, name := range [][]byte{buckets.meta, buckets.orders, buckets.past, buckets.receipts, buckets.aside, buckets.facts, []byte(listTrouble), []byte(listOpen), []byte(listSettled)} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	return nil
}

// load reads and checks everything that the file holds.
func (in *Inbox) load() error {
	return in.db.View(func(tx *bbolt.Tx) error {
		err := tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			return b.ForEach(func(k, v []byte) error {
				body, err := unseal(v)
				if err != nil {
					return fmt.Errorf("%s %q: %w", name, k, err)
				}
				return in.loadEntry(string(name), k, body)
			})
		})
		if err != nil {
			return err
		}
		var found error
		for err := range tx.Check() { // to its end, or its goroutine stays
			found = errors.Join(found, err)
		}
		return found
	})
}

func (in *Inbox) loadEntry(bucket string, k, body []byte) error {
	switch bucket {
	case "meta":
		switch string(k) {
		case "epoch":
			in.epoch = string(body)
		case "seq":
			in.seq = int64(number(body))
		case "arrivals":
			in.arrivals = number(body)
		}
	case "orders":
		r := &record{}
		if err := json.Unmarshal(body, r); err != nil {
			return fmt.Errorf("order %q: %w", k, err)
		}
		r.order = &pb.WorkOrder{}
		if err := proto.Unmarshal(r.Order, r.order); err != nil {
			return fmt.Errorf("order %q: %w", k, err)
		}
		if r.order.GetOrderNo() != string(k) { // the checksum is of the value alone
			return fmt.Errorf("order %q stands under %q", r.order.GetOrderNo(), k)
		}
		in.orders[string(k)] = r
	case listTrouble, listOpen, listSettled:
		in.listed[bucket]++
	}
	return nil
}

// Position returns the last delivery stored and the hub's epoch that it belongs to.
func (in *Inbox) Position() (epoch string, seq int64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.epoch, in.seq
}

// Changed receives after something came in or was marked; bursts are merged into one.
func (in *Inbox) Changed() <-chan struct{} { return in.changed }

// News counts the deliveries that came down since the start: whoever works through a list of orders sees by it that there is
// a newer list.
func (in *Inbox) News() uint64 { return in.news.Load() }

func (in *Inbox) touch() {
	select {
	case in.changed <- struct{}{}:
	default:
	}
}

// change is one transaction on the way: what it read from memory and what it will write there after the commit.
type change struct {
	in       *Inbox
	tx       *bbolt.Tx
	now      time.Time
	orders   map[string]*record
	gone     []string
	arrivals uint64
	listed   map[string]int
}

// update runs f in one durable transaction; memory follows only when the file has it.
func (in *Inbox) update(f func(c *change) error) error {
	in.writing.Lock()
	defer in.writing.Unlock()
	if in.doubtful {
		if err := in.settle(); err != nil {
			return fmt.Errorf("store in %w; the agent goes on by itself when the disk is well", explain(in.db.Path(), err))
		}
	}
	c := &change{in: in, now: time.Now(), orders: map[string]*record{}}
	in.mu.Lock()
	c.arrivals, c.listed = in.arrivals, maps.Clone(in.listed)
	in.mu.Unlock()
	var epoch string
	var seq int64
	in.doubtful = true
	err := in.db.Update(func(tx *bbolt.Tx) error {
		c.tx = tx
		err := f(c)
		if err == nil {
			err = c.flush()
		}
		if err != nil {
			in.doubtful = false // nothing was written
			return err
		}
		meta := tx.Bucket(buckets.meta)
		e, _ := unseal(meta.Get([]byte("epoch")))
		s, _ := unseal(meta.Get([]byte("seq")))
		epoch, seq = string(e), int64(number(s))
		return nil
	})
	if err != nil && in.doubtful {
		return fmt.Errorf("store in %w; the agent goes on by itself when the disk is well", explain(in.db.Path(), err))
	}
	if err != nil {
		return err
	}
	in.doubtful = false
	in.mu.Lock()
	in.epoch, in.seq = epoch, seq
	in.arrivals, in.listed = c.arrivals, c.listed
	for no, r := range c.orders {
		in.orders[no] = r
	}
	for _, no := range c.gone {
		delete(in.orders, no)
	}
	in.mu.Unlock()
	in.touch()
	return nil
}

// order returns the record to change, nil when there is none.
func (c *change) order(no string) *record {
	if r := c.orders[no]; r != nil {
		return r
	}
	c.in.mu.Lock()
	r := c.in.orders[no]
	c.in.mu.Unlock()
	if r == nil {
		return nil
	}
	r = r.clone()
	c.orders[no] = r
	return r
}

func (c *change) flush() error {
	b := c.tx.Bucket(buckets.orders)
	for no, r := range c.orders {
		body, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("write down work order %q: %w", no, err)
		}
		if err := b.Put([]byte(no), seal(body)); err != nil {
			return fmt.Errorf("store work order %q: %w", no, err)
		}
	}
	if err := c.prune(); err != nil {
		return err
	}
	return c.tx.Bucket(buckets.meta).Put([]byte("arrivals"), seal(bytesOf(c.arrivals)))
}

// prune lets the oldest settled orders go; a trace remains so that an old delivery does not bring them back.
func (c *change) prune() error {
	var settled []*record
	count := func(no string, r *record) {
		if r.settled() {
			settled = append(settled, r)
		}
	}
	c.in.mu.Lock()
	for no, r := range c.in.orders {
		if c.orders[no] == nil {
			count(no, r)
		}
	}
	c.in.mu.Unlock()
	for no, r := range c.orders {
		count(no, r)
	}
	if len(settled) <= keepSettledOrders+keepSettledOrders/10 {
		return nil // in batches: each pruning writes many pages
	}
	slices.SortFunc(settled, func(a, b *record) int { return compare(a.Arrival, b.Arrival) })
	for _, r := range settled[:len(settled)-keepSettledOrders] {
		no := []byte(r.order.GetOrderNo())
		trace := append(bytesOf(uint64(r.Revision)), 0)
		if r.touched() {
			trace[8] = 1
		}
		if err := errors.Join(c.tx.Bucket(buckets.past).Put(no, seal(trace)), c.tx.Bucket(buckets.orders).Delete(no)); err != nil {
			return fmt.Errorf("prune work order %q: %w", no, err)
		}
		delete(c.orders, string(no))
		c.gone = append(c.gone, string(no))
	}
	return nil
}

func compare(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func bytesOf(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func number(b []byte) uint64 {
	if len(b) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}
