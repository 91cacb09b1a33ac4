package inbox

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/status"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// Store makes deliveries durable in one transaction, in their order. What is stored already has no second effect. An epoch
// other than the last one starts from zero: the hub numbers anew, and what it sends again is known. What is sent ahead of
// its turn moves no position. What cannot be used is put aside with its reason and counts as stored. After an error it must
// come again, and Position says so; after one of the disk some of it may be stored all the same.
func (in *Inbox) Store(epoch string, deliveries []*pb.Delivery) error {
	known, _ := in.Position()
	if len(deliveries) == 0 && epoch == known {
		return nil
	}
	defer in.news.Add(1)
	return in.update(func(c *change) error {
		seq := int64(0)
		if meta := c.tx.Bucket(buckets.meta); epoch == known {
			v, _ := unseal(meta.Get([]byte("seq")))
			seq = int64(number(v))
		}
		for _, d := range deliveries {
			if err := c.take(d); err != nil {
				return fmt.Errorf("store delivery %d: %w", d.GetSeq(), err)
			}
			if !d.GetAhead() {
				seq = max(seq, d.GetSeq())
			}
		}
		meta := c.tx.Bucket(buckets.meta)
		return errors.Join(meta.Put([]byte("epoch"), seal([]byte(epoch))), meta.Put([]byte("seq"), seal(bytesOf(uint64(seq)))))
	})
}

func (c *change) take(d *pb.Delivery) error {
	switch k := d.GetKind().(type) {
	case *pb.Delivery_WorkOrder:
		if n := len(k.WorkOrder.GetOrderNo()); n == 0 || n > 1000 || k.WorkOrder.GetRevision() < 0 {
			return c.putAside(d, "work order without a usable number or with a negative revision")
		}
		return c.takeOrder(k.WorkOrder)
	case *pb.Delivery_Receipt:
		if _, err := factkey.FromBytes(k.Receipt.GetFactKey()); err != nil {
			return c.putAside(d, err.Error())
		}
		return c.takeReceipt(k.Receipt)
	}
	return c.putAside(d, "a kind of delivery that this version does not know")
}

// putAside keeps what cannot be used, the newest keepAside of it.
func (c *change) putAside(d *pb.Delivery, reason string) error {
	body, err := proto.Marshal(d)
	if err != nil {
		return err
	}
	b := c.tx.Bucket(buckets.aside)
	if err := b.Put(bytesOf(uint64(d.GetSeq())), seal(append([]byte(reason+"\n"), body...))); err != nil {
		return err
	}
	cur := b.Cursor()
	for n := b.Stats().KeyN; n > keepAside; n-- {
		if k, _ := cur.First(); k == nil {
			break
		}
		if err := cur.Delete(); err != nil {
			return err
		}
	}
	return nil
}

func (c *change) takeOrder(o *pb.WorkOrder) error {
	no := o.GetOrderNo()
	r := c.order(no)
	if r == nil {
		r = newRecord(c.arrivals + 1)
		if v := c.tx.Bucket(buckets.past).Get([]byte(no)); v != nil {
			trace, err := unseal(v)
			if err != nil || len(trace) < 9 {
				return fmt.Errorf("trace of work order %q: %w", no, errors.Join(err, errors.New("is damaged")))
			}
			past := int64(number(trace))
			if o.GetRevision() <= past {
				return nil
			}
			if trace[8] == 1 {
				r.Tried, r.Delivered = past, past
			}
			if err := c.tx.Bucket(buckets.past).Delete([]byte(no)); err != nil {
				return err
			}
		}
		c.arrivals++
	} else if o.GetRevision() <= r.Revision {
		return r.compareRevision(o)
	}
	if err := r.revise(o, c.now); err != nil {
		return err
	}
	c.orders[no] = r
	return nil
}

// takeReceipt keeps the newest word on a fact. A replay of older news changes nothing.
func (c *change) takeReceipt(rc *pb.Receipt) error {
	key := rc.GetFactKey()
	all := c.tx.Bucket(buckets.receipts)
	if old, arrival, err := readReceipt(all.Get(key)); err != nil {
		return err
	} else if old != nil {
		if rc.GetAt().AsTime().Before(old.GetAt().AsTime()) || proto.Equal(old, rc) {
			return nil
		}
		if err := c.unlist(old, arrival); err != nil {
			return err
		}
	}
	body, err := proto.Marshal(rc)
	if err != nil {
		return err
	}
	c.arrivals++
	if err := all.Put(key, seal(append(bytesOf(c.arrivals), body...))); err != nil {
		return err
	}
	list := listOf(rc)
	c.listed[list]++
	if err := c.tx.Bucket([]byte(list)).Put(bytesOf(c.arrivals), seal(key)); err != nil {
		return err
	}
	return c.trim(list)
}

func (c *change) unlist(rc *pb.Receipt, arrival uint64) error {
	list := listOf(rc)
	c.listed[list]--
	return c.tx.Bucket([]byte(list)).Delete(bytesOf(arrival))
}

// trim lets the oldest receipts of a list go.
func (c *change) trim(list string) error {
	for c.listed[list] > keepReceipts[list] {
		cur := c.tx.Bucket([]byte(list)).Cursor()
		k, v := cur.First()
		if k == nil {
			return nil
		}
		key, err := unseal(v)
		if err != nil {
			return err
		}
		key = slices.Clone(key)
		if err := errors.Join(cur.Delete(), c.tx.Bucket(buckets.receipts).Delete(key)); err != nil {
			return err
		}
		c.listed[list]--
	}
	return nil
}

// The lists of receipts: those that need a person, those that need more news, the others.
const (
	listTrouble = "trouble"
	listOpen    = "open"
	listSettled = "settled"
)

// keepReceipts bounds each list. What is not settled is bounded only so that nothing grows for ever: the hub has it all.
var keepReceipts = map[string]int{listTrouble: 100_000, listOpen: 100_000, listSettled: 5000}

func listOf(rc *pb.Receipt) string {
	switch rc.GetOutcome() {
	case pb.Receipt_OUTCOME_REJECTED, pb.Receipt_OUTCOME_IN_DOUBT:
		return listTrouble
	case pb.Receipt_OUTCOME_POSTED, pb.Receipt_OUTCOME_VERIFIED, pb.Receipt_OUTCOME_NOT_POSTED:
		return listSettled
	}
	return listOpen
}

// readReceipt reads a value of the bucket "receipts"; nil is no receipt.
func readReceipt(v []byte) (rc *pb.Receipt, arrival uint64, err error) {
	if v == nil {
		return nil, 0, nil
	}
	body, err := unseal(v)
	if err != nil || len(body) < 8 {
		return nil, 0, fmt.Errorf("read receipt: %w", errors.Join(err, errors.New("it is damaged")))
	}
	rc = &pb.Receipt{}
	if err := proto.Unmarshal(body[8:], rc); err != nil {
		return nil, 0, fmt.Errorf("read receipt: %w", err)
	}
	return rc, number(body), nil
}

// MarkTried notes that the receiver at a place is about to be offered a revision as an order for a work centre. It must be
// called before: should the outcome be lost in a crash, a later cancellation still goes to that place, which may have the
// order.
func (in *Inbox) MarkTried(orderNo string, revision int64, place, center string) error {
	return in.mark(orderNo, func(r *record, _ time.Time) bool {
		if r.Tried >= revision && r.Place == place && r.Center == center {
			return false
		}
		r.Tried, r.Place, r.Center = max(r.Tried, revision), place, center
		return true
	})
}

// Place says which receiver has, or may have, some revision of an order, and as an order for which work centre; an empty place
// is none.
func (in *Inbox) Place(orderNo string) (place, center string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if r := in.orders[orderNo]; r != nil && r.touched() {
		return r.Place, r.Center
	}
	return "", ""
}

// MarkDelivered notes that the receiver durably has a revision.
func (in *Inbox) MarkDelivered(orderNo string, revision int64) error {
	return in.mark(orderNo, func(r *record, now time.Time) bool { return r.delivered(revision, now) })
}

// MarkRefused notes that the receiver will never take a revision.
func (in *Inbox) MarkRefused(orderNo string, revision int64, reason string) error {
	return in.mark(orderNo, func(r *record, now time.Time) bool { return r.refused(revision, reason, now) })
}

// mark changes one order in a transaction, if f says that it changed something.
func (in *Inbox) mark(orderNo string, f func(r *record, now time.Time) bool) error {
	in.mu.Lock()
	r := in.orders[orderNo]
	in.mu.Unlock()
	if r == nil {
		return fmt.Errorf("mark work order %q: it is not known", orderNo)
	}
	if !f(r.clone(), time.Now()) {
		return nil // saves a disk sync
	}
	return in.update(func(c *change) error {
		if r := c.order(orderNo); r != nil {
			f(r, c.now)
		}
		return nil
	})
}

// Apply notes how far the shop floor is with an order. The same news twice, and news that come late, do no harm; of an
// order that is not known nothing is noted.
func (in *Inbox) Apply(s *pb.OrderState, at time.Time) error {
	in.mu.Lock()
	known := in.orders[s.GetOrderNo()] != nil
	in.mu.Unlock()
	if !known {
		return nil
	}
	return in.mark(s.GetOrderNo(), func(r *record, _ time.Time) bool { return r.apply(s, at) })
}

// Pending returns the newest revision of each order that its receiver has yet to be offered, the order that came first
// first.
func (in *Inbox) Pending() []signal.WorkOrder { return in.list((*record).pending) }

// Holding returns the held revisions of orders that their receivers may have and were not told to hold, the order that came
// first first.
func (in *Inbox) Holding() []signal.WorkOrder { return in.list((*record).holding) }

// Open returns the newest revision of each order that is not finished or cancelled, the order that came first first.
func (in *Inbox) Open() []signal.WorkOrder {
	return in.list(func(r *record) bool { return !r.settled() })
}

func (in *Inbox) list(want func(*record) bool) []signal.WorkOrder {
	var out []signal.WorkOrder
	for _, r := range in.records() {
		if want(r) {
			out = append(out, convert(r.order))
		}
	}
	return out
}

// records returns all records by arrival. A record is never changed once it is in the map.
func (in *Inbox) records() []*record {
	in.mu.Lock()
	defer in.mu.Unlock()
	all := make([]*record, 0, len(in.orders))
	for _, r := range in.orders {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b *record) int { return compare(a.Arrival, b.Arrival) })
	return all
}

// Orders returns all orders for the page: those that are not settled first, the newest first in each group.
func (in *Inbox) Orders() []status.Order {
	all := in.records()
	slices.Reverse(all)
	out := make([]status.Order, 0, len(all))
	for _, settled := range []bool{false, true} {
		for _, r := range all {
			if r.settled() == settled {
				out = append(out, r.view())
			}
		}
	}
	return out
}

// Receipts returns up to n receipts for the page: those that are rejected or in doubt first, then the newest. Nil means
// that the file cannot be read; it is checked when it is opened.
func (in *Inbox) Receipts(n int) []status.Receipt {
	var trouble, rest []arrived
	err := in.db.View(func(tx *bbolt.Tx) error {
		var open, settled []arrived
		var errs [3]error
		trouble, errs[0] = newestReceipts(tx, []byte(listTrouble), n)
		open, errs[1] = newestReceipts(tx, []byte(listOpen), n)
		settled, errs[2] = newestReceipts(tx, []byte(listSettled), n)
		rest = append(open, settled...)
		return errors.Join(errs[:]...)
	})
	if err != nil {
		return nil
	}
	slices.SortFunc(rest, func(a, b arrived) int { return compare(b.arrival, a.arrival) })
	out := make([]status.Receipt, 0, min(n, len(trouble)+len(rest)))
	for _, a := range append(trouble, rest...) {
		if len(out) < n {
			out = append(out, viewReceipt(a.receipt))
		}
	}
	return out
}
