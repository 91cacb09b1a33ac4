package e2e

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// bookkeeper is an ERP whose books are counted after a run. As an http.Handler it is the ERP itself, without trouble.
type bookkeeper interface {
	http.Handler
	// section is the hub's configuration of this ERP, reached at url; files that it names are put into dir.
	section(dir, url string) string
	// effect reports whether a request makes something when it is done, made whether an answer says that it did.
	effect(r *http.Request, body []byte) bool
	made(answer *httptest.ResponseRecorder) bool
	// admit lets a request in that is done late.
	admit(r *http.Request)
	// release makes an order for very much and returns its number.
	release() string
	// words are the item, its unit, and the component and its unit, of every order.
	words() (item, unit, component, componentUnit string)
	// day is when all facts happened, in UTC.
	day() time.Time
	// spoil makes of a confirmation one that the ERP can never take, the nth of them, and returns the code of its refusal.
	spoil(c *object.Confirmation, n int) (code string)
	// disturb makes some trouble that people and the ERP itself make, and returns what ends it.
	disturb(random *rand.Rand, order string) (end func())
	// period opens or closes the books of day; closed is the code of what is refused then.
	period(open bool)
	closed() string
	// keysOf is which keys the ERP's documents carry of a fact, and how many documents each.
	keysOf(f object.Fact) map[string]int
	// keys counts the documents that carry each key, read past the connector.
	keys() map[string]int
	// book sums up the documents of an order, read past the connector.
	book(order string) page
}

// page is what the books hold of one order.
type page struct {
	yield, scrap, issued decimal.Decimal
	finished             bool
}

func (p page) String() string {
	return fmt.Sprintf("yield %s, scrap %s, %s issued, finished %t", p.yield, p.scrap, p.issued, p.finished)
}

func (p page) same(q page) bool {
	return p.yield.Equal(q.yield) && p.scrap.Equal(q.scrap) && p.issued.Equal(q.issued) && p.finished == q.finished
}

// share is how much of the traffic goes wrong.
type share struct {
	lost  float64 // of the answers to requests that made something
	late  float64 // of the requests that make something: they come up to lateBy after the hub was hung up on
	asked float64 // of the answers to questions
}

var usual = share{lost: 0.10, late: 0.02, asked: 0.01}

// lateBy is longer than the hub's first pause before it looks up, and shorter than what the connectors wait before they take
// a request for lost.
const lateBy = 4 * time.Second

// front stands between hub and ERP and makes the traffic go wrong. It lives in another process than the hub.
type front struct {
	books bookkeeper
	share share
	late  sync.WaitGroup

	mu            sync.Mutex
	random        *rand.Rand
	lost, delayed int
	until         int // requests with an effect until the hub dies
	die           func()
}

// killAfter lets the hub die at the nth request with an effect from now: before it, after it, or a little later.
func (f *front) killAfter(n int, die func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.until, f.die = n, die
}

func (f *front) calm() {
	f.mu.Lock()
	f.share = share{}
	f.mu.Unlock()
	f.late.Wait()
}

// fate is what happens to one request.
type fate struct {
	lost          bool
	late          time.Duration
	before, after func()
}

func (f *front) draw(effect bool) (x fate) {
	f.mu.Lock()
	defer f.mu.Unlock()
	x.before, x.after = func() {}, func() {}
	if !effect {
		x.lost = f.random.Float64() < f.share.asked
		return x
	}
	switch p := f.random.Float64(); {
	case p < f.share.lost:
		x.lost = true
	case p < f.share.lost+f.share.late:
		x.late = time.Duration(f.random.Int64N(int64(lateBy)))
	}
	if f.until--; f.until == 0 {
		switch f.random.IntN(3) {
		case 0:
			x.before = f.die
		case 1:
			x.after = f.die
		default:
			time.AfterFunc(time.Duration(f.random.IntN(100))*time.Millisecond, f.die)
		}
	}
	return x
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the hub died
	}
	effect := f.books.effect(r, body)
	x := f.draw(effect)
	x.before()
	forward := r.Clone(context.WithoutCancel(r.Context()))
	forward.Body = io.NopCloser(bytes.NewReader(body))
	if x.late > 0 {
		f.late.Go(func() {
			timer := time.NewTimer(x.late)
			<-timer.C
			f.books.admit(forward)
			if f.books.made(f.serve(forward)) {
				f.mu.Lock()
				f.delayed++
				f.mu.Unlock()
			}
		})
		x.after() // the hub dies at a request that comes late, too
		panic(http.ErrAbortHandler)
	}
	answer := f.serve(forward)
	x.after()
	if x.lost {
		if effect && f.books.made(answer) {
			f.mu.Lock()
			f.lost++
			f.mu.Unlock()
		}
		panic(http.ErrAbortHandler)
	}
	maps.Copy(w.Header(), answer.Header())
	w.WriteHeader(answer.Code)
	w.Write(answer.Body.Bytes())
}

func (f *front) serve(r *http.Request) *httptest.ResponseRecorder {
	answer := httptest.NewRecorder()
	f.books.ServeHTTP(answer, r)
	return answer
}

// bigRun takes very many facts through a hub that is killed again and again.
type bigRun struct {
	*soleHub
	books    bookkeeper
	front    *front
	random   *rand.Rand
	postings int
	kills    int
	env      []string

	facts    []object.Fact
	orders   []string
	want     map[string]page   // by order
	wantKeys map[string]int    // documents by key
	spoilt   map[string]string // the code of the refusal by fact key

	shut     bool // the period
	replayed int
	wrong    []string // what was found wrong in the end
}

// outcome is what came of a run.
type outcome struct {
	postings, lost, delayed, kills, missing, doubled, parked, replayed int
	took                                                               time.Duration
}

func (o outcome) String() string {
	return fmt.Sprintf("postings=%d lost_replies=%d delayed=%d kills=%d missing=%d doubled=%d parked=%d replayed=%d seconds=%.0f",
		o.postings, o.lost, o.delayed, o.kills, o.missing, o.doubled, o.parked, o.replayed, o.took.Seconds())
}

// numberFrom reads a number from the environment, so that a run can be longer, or be had again.
func numberFrom(t *testing.T, name string, def int64) int64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return def
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n <= 0 {
		t.Fatalf("read %s=%q: it is no number above zero", name, text)
	}
	return n
}

func newBigRun(t *testing.T, program string, books bookkeeper, postings int, s share) *bigRun {
	seed := uint64(numberFrom(t, "LINEKEEPER_SEED", time.Now().UnixNano()%1_000_000_000))
	t.Logf("LINEKEEPER_SEED=%d: %d postings", seed, postings)
	b := &bigRun{books: books, random: rand.New(rand.NewPCG(seed, 1)), postings: postings, kills: max(1, min(20, postings/250)),
		want: map[string]page{}, wantKeys: map[string]int{}, spoilt: map[string]string{}}
	b.front = &front{books: books, share: s, random: rand.New(rand.NewPCG(seed, 2))}
	server := httptest.NewServer(b.front)
	t.Cleanup(server.Close)
	t.Cleanup(b.front.calm)
	b.soleHub = newSoleHub(t, program, func(dir string) string {
		return books.section(dir, server.URL) + `
routes:
  - {erp: erp, plant: ulm, agent: line1}
dispatch: {every: 10s}
posting: {workers: 8, quiet: 1ms, close_after: 1ms}
log: {level: error}
`
	})
	b.invent()
	return b
}

const (
	active     = 256 // orders that are worked on at a time
	spoiltOf   = 20  // one order in so many has a fact that can never be posted, and is not finished
	consumedOf = 10  // one fact in so many is a consumption, beside the confirmations
)

// invent makes up all facts in the order of their happening, and what the books must hold in the end.
func (b *bigRun) invent() {
	each := max(5, min(50, b.postings/400)) // confirmations of an order
	var open []string
	left := map[string]int{}
	for {
		for len(open) < active && len(b.orders)*each < b.postings {
			no := b.books.release()
			b.want[no] = page{finished: len(b.orders)%spoiltOf != spoiltOf/2}
			if !b.want[no].finished {
				b.addSpoilt(no)
			}
			b.orders, open, left[no] = append(b.orders, no), append(open, no), each
		}
		if len(open) == 0 {
			return
		}
		i := b.random.IntN(len(open))
		no := open[i]
		if b.random.IntN(consumedOf) == 0 {
			b.add(b.consumption(no))
			continue
		}
		b.add(b.confirmation(no))
		if left[no]--; left[no] > 0 {
			continue
		}
		open = slices.Delete(open, i, i+1)
		if b.want[no].finished {
			f := b.newFact(no, object.KindOrderState)
			f.OrderState = &object.ShopFloorState{OrderNo: no, Revision: 1, State: object.FloorFinished}
			b.add(f)
		}
	}
}

func (b *bigRun) newFact(order string, kind object.Kind) object.Fact {
	position := factkey.Position("test", order, fmt.Sprint(len(b.facts)))
	return object.Fact{Key: factkey.Of(position), Kind: kind, Plant: "ulm", Source: "test", TimeZone: "UTC", Position: position, OccurredAt: b.books.day(), RecordedAt: b.books.day()}
}

func (b *bigRun) consumption(order string) object.Fact {
	_, _, component, unit := b.books.words()
	f, p := b.newFact(order, object.KindConsumption), b.want[order]
	q := decimal.New(1+b.random.Int64N(999), -2)
	f.Consumption = &object.Consumption{OrderNo: order, Item: component, Movement: object.Issue, Quantity: object.Quantity{Value: q, Unit: unit}}
	p.issued = p.issued.Add(q)
	b.want[order] = p
	return f
}

func (b *bigRun) confirmation(order string) object.Fact {
	item, unit, _, _ := b.books.words()
	f, p := b.newFact(order, object.KindConfirmation), b.want[order]
	c := &object.Confirmation{OrderNo: order, Item: item, Unit: unit, Yield: decimal.NewFromInt(1 + b.random.Int64N(9))}
	if b.random.IntN(5) == 0 {
		c.Scrap = decimal.NewFromInt(1 + b.random.Int64N(3))
	}
	f.Confirmation, p.yield, p.scrap = c, p.yield.Add(c.Yield), p.scrap.Add(c.Scrap)
	b.want[order] = p
	return f
}

func (b *bigRun) add(f object.Fact) {
	b.facts = append(b.facts, f)
	for key, n := range b.books.keysOf(f) {
		b.wantKeys[key] += n
	}
}

// addSpoilt adds a fact that can never be posted and must stop no neighbour.
func (b *bigRun) addSpoilt(order string) {
	item, unit, _, _ := b.books.words()
	f := b.newFact(order, object.KindConfirmation)
	f.Confirmation = &object.Confirmation{OrderNo: order, Item: item, Unit: unit, Yield: decimal.NewFromInt(1)}
	b.spoilt[f.Key.String()] = b.books.spoil(f.Confirmation, len(b.spoilt))
	b.facts = append(b.facts, f)
}

// run feeds the hub portion by portion, kills it in each but the last, and counts the books in the end.
func (b *bigRun) run() outcome {
	b.t.Helper()
	began := time.Now()
	over := make(chan struct{})
	var people sync.WaitGroup
	random := rand.New(rand.NewPCG(b.random.Uint64(), 3))
	people.Go(func() { b.disturb(random, over) })
	defer people.Wait()
	defer close(over)
	portion := (len(b.facts) + b.kills) / (b.kills + 1)
	left := b.facts
	for i := range b.kills + 1 {
		n := min(portion, len(left))
		b.put(left[:n])
		left = left[n:]
		p := b.start(b.env...)
		b.closePeriod(i == b.kills/2 && i < b.kills)
		if i == b.kills {
			b.settled(p)
			break
		}
		b.front.killAfter(n/2+b.random.IntN(n/3), func() { p.Process.Kill() })
		b.untilDead(p)
		b.t.Logf("%4.0f s: killed, %d of %d facts are in the hub", time.Since(began).Seconds(), len(b.facts)-len(left), len(b.facts))
	}
	b.front.calm()
	x := b.count()
	x.took = time.Since(began)
	return x
}

// disturb makes one trouble after the other until over is closed, and leaves none behind.
func (b *bigRun) disturb(random *rand.Rand, over <-chan struct{}) {
	for {
		end := b.books.disturb(random, b.orders[random.IntN(len(b.orders))])
		timer := time.NewTimer(100 * time.Millisecond)
		select {
		case <-timer.C:
			end()
		case <-over:
			timer.Stop()
			end()
			return
		}
	}
}

func (b *bigRun) closePeriod(now bool) {
	if now != b.shut {
		b.books.period(!now)
		b.shut = now
	}
}

// untilDead waits until the hub was killed. Meanwhile people open the period that was closed by mistake, and replay what was
// refused for it.
func (b *bigRun) untilDead(p *hubProcess) {
	b.t.Helper()
	patience := time.NewTimer(20 * time.Minute)
	defer patience.Stop()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-p.ended:
			if s := p.ProcessState.String(); s != "signal: killed" {
				b.t.Fatalf("the hub ended by itself: %s", s)
			}
			return
		case <-tick.C:
			b.openPeriod()
			b.replay()
		case <-patience.C:
			b.t.Fatal("the hub has not come to the moment of its death")
		}
	}
}

// openPeriod opens the books again when enough was refused.
func (b *bigRun) openPeriod() {
	var refused struct{ Count int }
	err := b.call("POST", "/v1/postings/replay", map[string]any{"code": b.books.closed(), "dry_run": true}, &refused)
	if err == nil && refused.Count >= max(10, b.postings/b.kills/20) {
		b.closePeriod(false)
	}
}

func (b *bigRun) replay() {
	if b.shut {
		return
	}
	var done struct{ Count int }
	if b.call("POST", "/v1/postings/replay", map[string]any{"code": b.books.closed()}, &done) == nil { // else there is none, or the hub is gone
		b.replayed += done.Count
	}
}

type stateCounts struct {
	Items []struct {
		State, Code string
		Count       int
	} `json:"items"`
}

// settled waits until nothing is open but what can never be posted, or what waits for something that should not be parked.
func (b *bigRun) settled(p *hubProcess) {
	b.t.Helper()
	const patience = 5 * time.Minute // without anything that happens
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	var last stateCounts
	for changed := time.Now(); time.Since(changed) < patience; {
		select {
		case <-p.ended:
			b.t.Fatal("the hub ended by itself")
		case <-tick.C:
		}
		b.replay()
		var now stateCounts
		if b.call("GET", "/v1/postings/counts", nil, &now) != nil {
			continue
		}
		if !slices.Equal(now.Items, last.Items) {
			changed, last = time.Now(), now
		}
		if b.atRest(now) {
			return
		}
	}
	b.t.Fatalf("nothing has happened for %s: %+v", patience, last.Items)
}

func (b *bigRun) atRest(counts stateCounts) bool {
	verified, parked, waiting := 0, 0, 0
	for _, n := range counts.Items {
		switch {
		case n.State == "verified":
			verified += n.Count
		case n.State == "parked" && n.Code != b.books.closed():
			parked += n.Count
		case n.State == "due" && n.Code == "waits_for": // a finish
			waiting += n.Count
		}
	}
	return verified+parked+waiting == len(b.facts) && (waiting == 0 || parked > len(b.spoilt))
}

// count compares the books, key by key and order by order, with what was intended, and the parked postings with those that
// can never be posted.
func (b *bigRun) count() outcome {
	b.t.Helper()
	x := outcome{postings: len(b.facts) - len(b.spoilt), lost: b.front.lost, delayed: b.front.delayed, kills: b.kills, replayed: b.replayed}
	got := b.books.keys()
	for key, want := range b.wantKeys {
		x.missing += max(want-got[key], 0)
	}
	for key, n := range got {
		x.doubled += max(n-b.wantKeys[key], 0)
	}
	for _, no := range b.orders {
		if page := b.books.book(no); !page.same(b.want[no]) {
			b.wrong = append(b.wrong, fmt.Sprintf("order %s holds %s; want %s", no, page, b.want[no]))
		}
	}
	x.parked = b.explain()
	return x
}

// explain wants each parked posting to be one that can never be posted, with its reason, and returns how many there are.
func (b *bigRun) explain() int {
	b.t.Helper()
	parked := map[string]postingRow{}
	for cursor := ""; ; {
		var list struct {
			Items []postingRow `json:"items"`
			Next  int64        `json:"next"`
		}
		if err := b.call("GET", "/v1/postings?state=parked&limit=500"+cursor, nil, &list); err != nil {
			b.t.Fatal(err)
		}
		for _, r := range list.Items {
			parked[r.Key] = r
		}
		if list.Next == 0 {
			break
		}
		cursor = fmt.Sprintf("&before=%d", list.Next)
	}
	reasons := map[string]int{}
	for key, r := range parked {
		if b.spoilt[key] != r.Posting.Code || r.Posting.Reason == "" {
			b.wrong = append(b.wrong, fmt.Sprintf("fact %s is parked as %q (%s), and should be %q", key, r.Posting.Code, r.Posting.Reason, cmp.Or(b.spoilt[key], "posted")))
		}
		reasons[r.Posting.Code]++
		if reasons[r.Posting.Code] == 1 {
			b.t.Logf("parked: fact %s, %s: %s", key, r.Posting.Code, r.Posting.Reason)
		}
	}
	for key, code := range b.spoilt {
		if _, ok := parked[key]; !ok {
			b.wrong = append(b.wrong, fmt.Sprintf("fact %s is not parked, though it can only be refused as %q", key, code))
		}
	}
	b.t.Logf("parked by code: %v", reasons)
	return len(parked)
}

// passed prints the line of a run, and wants it to have had all the trouble that it is for and to have kept every promise.
func (b *bigRun) passed(system string, x outcome) {
	b.t.Helper()
	fmt.Printf("erp: system=%s %s\n", system, x)
	if x.missing > 0 || x.doubled > 0 || len(b.wrong) > 0 {
		b.t.Errorf("%d documents are missing, %d are doubled:\n%.4000s", x.missing, x.doubled, strings.Join(b.wrong, "\n"))
	}
	if x.lost == 0 || x.delayed == 0 || x.replayed == 0 || x.parked != len(b.spoilt) || len(b.spoilt) == 0 {
		b.t.Errorf("the run had too little trouble to say much: %s", x)
	}
}
