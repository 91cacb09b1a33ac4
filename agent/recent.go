package agent

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/linekeeper/linekeeper/agent/buffer"
	"github.com/linekeeper/linekeeper/agent/inbox"
	"github.com/linekeeper/linekeeper/agent/status"
	"github.com/linekeeper/linekeeper/agent/translate"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// recent remembers the newest facts for the page: where each of them is, and what a receipt is about. At start it takes them from
// what was noted in the inbox, and from the buffer.
type recent struct {
	mu   sync.Mutex
	list []stored
	next int
	// noted is the number up to which facts are where a restart finds them.
	noted uint64
}

// stored is a fact with its number in the buffer. Facts come by the hundred thousand and the page is seldom looked at: what it
// shows of one is made when it is asked for.
type stored struct {
	key     factkey.Key // of one that was noted, what its written form carries
	orderNo string
	what    string // of one that was noted
	body    []byte // of every other
	at      time.Time
	seq     uint64
}

// words say what it is.
func (s *stored) words() string {
	var f pb.Fact
	if s.body == nil || proto.Unmarshal(s.body, &f) != nil {
		return s.what
	}
	what, _ := translate.What(&f)
	return what
}

func newRecent(n int) *recent { return &recent{list: make([]stored, 0, n)} }

func (r *recent) add(facts []translate.Fact, seqs []uint64, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := max(0, len(facts)-cap(r.list)); i < len(facts); i++ {
		f := &facts[i]
		r.put(stored{key: f.Key, orderNo: f.OrderNo, body: f.Body, at: at, seq: seqs[i]})
	}
}

func (r *recent) put(e stored) {
	if len(r.list) < cap(r.list) {
		r.list = append(r.list, e)
		return
	}
	r.list[r.next] = e
	r.next = (r.next + 1) % len(r.list)
}

// load takes the newest facts that were noted, and those that are in the buffer's files and were not noted any more. What cannot be
// read is left to those who hand it over.
func (r *recent) load(noted []inbox.Noted, b *buffer.Buffer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := b.Stats().LastSeq
	for _, n := range noted {
		prefix, err := factkey.Parse(n.Key)
		if n.Seq > last || err != nil { // it is of a buffer that is not there any more, or nothing of ours
			continue
		}
		e := stored{orderNo: n.OrderNo, what: n.What, at: n.At, seq: n.Seq}
		copy(e.key[:], prefix)
		r.put(e)
		r.noted = n.Seq
	}
	for _, e := range b.Newest(cap(r.list)) {
		var f pb.Fact
		if e.Seq <= r.noted || proto.Unmarshal(e.Body, &f) != nil {
			continue
		}
		key, err := factkey.FromBytes(f.GetKey())
		if err != nil {
			continue
		}
		what, order := translate.What(&f)
		r.put(stored{key: key, orderNo: order, what: what, at: e.StoredAt, seq: e.Seq})
	}
}

// unnoted returns the remembered facts that were not noted yet, in the order of their numbers.
func (r *recent) unnoted() (all []inbox.Noted) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.list {
		if e.seq > r.noted {
			all = append(all, inbox.Noted{Seq: e.seq, Key: e.key.String(), OrderNo: e.orderNo, What: e.words(), At: e.at})
		}
	}
	slices.SortFunc(all, func(a, b inbox.Noted) int { return cmp.Compare(a.Seq, b.Seq) })
	return all
}

// note keeps the newest facts where a restart finds them: the buffer lets go of what the hub has.
func (a *Agent) note() {
	r := a.pipe.recent
	facts := r.unnoted()
	if len(facts) == 0 {
		return
	}
	if err := a.inbox.NoteFacts(facts); err != nil {
		a.log.Warn("note the newest facts for the page", "err", err)
		return
	}
	r.mu.Lock()
	r.noted = max(r.noted, facts[len(facts)-1].Seq)
	r.mu.Unlock()
}

// noteEvery is how often: what was stored since, handed over and forgotten by a power cut comes back to the page with its receipt.
const noteEvery = time.Second

func (a *Agent) runNotes(ctx context.Context) {
	tick := time.NewTicker(noteEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			a.note()
			return
		case <-tick.C:
			a.note()
		}
	}
}

// all returns the remembered facts, the newest first.
func (r *recent) all() []stored {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := slices.Clone(r.list)
	slices.SortFunc(list, func(a, b stored) int { return cmp.Compare(b.seq, a.seq) })
	return list
}

// receipt is what is known of a fact without the hub's word; those up to number acked are there. What it is about is left out.
func (s *stored) receipt(key string, acked uint64) status.Receipt {
	r := status.Receipt{Key: key, OrderNo: s.orderNo, StoredAt: s.at, Outcome: "buffered", At: s.at}
	if s.seq <= acked {
		r.Outcome = "received"
	}
	return r
}
