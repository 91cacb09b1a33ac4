package inbox

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

type fixture struct {
	*Inbox
	t    *testing.T
	path string
	seq  int64
}

func open(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, path: filepath.Join(t.TempDir(), "inbox.db")}
	f.reopen()
	t.Cleanup(func() { f.Close() })
	return f
}

func (f *fixture) reopen() {
	f.t.Helper()
	if f.Inbox != nil {
		f.Close()
	}
	in, err := Open(f.path)
	if err != nil {
		f.t.Fatal(err)
	}
	f.Inbox = in
}

func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func order(no string, revision int64, state pb.WorkOrder_State) *pb.WorkOrder {
	return &pb.WorkOrder{
		OrderNo: no, Revision: revision, State: state, Plant: "ulm", WorkCenter: "press1", Item: "A-100",
		Quantity: &pb.Quantity{Value: "1200", Unit: "C62"}, RevisedAt: timestamppb.New(noon),
	}
}

func receipt(n int, outcome pb.Receipt_Outcome, at time.Time) *pb.Receipt {
	key := make([]byte, 16)
	binary.BigEndian.PutUint64(key, uint64(n)*0x9e3779b97f4a7c15)
	return &pb.Receipt{FactKey: key, Outcome: outcome, OrderNo: "1001", Document: fmt.Sprintf("DOC%d", n), At: timestamppb.New(at)}
}

// come stores things as the next deliveries.
func (f *fixture) come(things ...any) {
	f.t.Helper()
	f.must(f.Store("e1", f.number(things...)))
}

func (f *fixture) number(things ...any) []*pb.Delivery {
	var ds []*pb.Delivery
	for _, thing := range things {
		f.seq++
		d := &pb.Delivery{Seq: f.seq}
		switch v := thing.(type) {
		case *pb.WorkOrder:
			d.Kind = &pb.Delivery_WorkOrder{WorkOrder: v}
		case *pb.Receipt:
			d.Kind = &pb.Delivery_Receipt{Receipt: v}
		}
		ds = append(ds, d)
	}
	return ds
}

func names(list []signal.WorkOrder) string {
	var out []string
	for _, o := range list {
		s := fmt.Sprintf("%s/%d", o.OrderNo, o.Revision)
		if o.Cancelled {
			s += "x"
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

func (f *fixture) wantPending(want string) {
	f.t.Helper()
	if got := names(f.Pending()); got != want {
		f.t.Errorf("pending is %q, want %q", got, want)
	}
}

func (f *fixture) wantState(no, state, reason string) {
	f.t.Helper()
	for _, o := range f.Orders() {
		if o.OrderNo == no {
			if o.State != state || !strings.Contains(o.Reason, reason) || reason == "" && o.Reason != "" {
				f.t.Errorf("order %s is %q (%q), want %q (%q)", no, o.State, o.Reason, state, reason)
			}
			return
		}
	}
	f.t.Errorf("order %s is not known", no)
}

func (f *fixture) history(no string) string {
	for _, o := range f.Orders() {
		if o.OrderNo == no {
			var out []string
			for _, s := range o.History {
				out = append(out, fmt.Sprintf("%s/%d", s.State, s.Revision))
			}
			return strings.Join(out, " ")
		}
	}
	return ""
}

const (
	released  = pb.WorkOrder_STATE_RELEASED
	cancelled = pb.WorkOrder_STATE_CANCELLED
)

func TestStoredDeliveriesAreThereAfterARestart(t *testing.T) {
	f := open(t)
	f.come(order("1001", 1, released), receipt(1, pb.Receipt_OUTCOME_POSTED, noon))
	f.reopen()
	if epoch, seq := f.Position(); epoch != "e1" || seq != 2 {
		t.Errorf("position is %q %d, want e1 2", epoch, seq)
	}
	f.wantPending("1001/1")
	rs := f.Receipts(10)
	if len(rs) != 1 || rs[0].Document != "DOC1" || rs[0].Outcome != "posted" {
		t.Errorf("receipts are %+v", rs)
	}
}

func TestWorkOrderArrivesAtItsReceiverWhole(t *testing.T) {
	f := open(t)
	start := noon.Add(time.Hour)
	o := order("1001", 3, released)
	o.ItemDescription, o.Priority, o.Lot, o.PlannedStart = "bracket", 7, "L1", timestamppb.New(start)
	o.Operations = []*pb.Operation{{Operation: "0010", Description: "press", WorkCenter: "press1", Quantity: &pb.Quantity{Value: "1200.5", Unit: "C62"}}}
	o.Components = []*pb.Component{{Item: "STEEL", Required: &pb.Quantity{Value: "12.750", Unit: "KGM"}, Operation: "0010", Reservation: "R7", Backflush: true}}
	f.come(o)
	want := []signal.WorkOrder{{
		OrderNo: "1001", Revision: 3, Plant: "ulm", WorkCenter: "press1", Item: "A-100", Description: "bracket", Quantity: "1200", Unit: "C62",
		Priority: 7, Lot: "L1", PlannedStart: start,
		Operations: []signal.Operation{{Operation: "0010", Description: "press", WorkCenter: "press1", Quantity: "1200.5", Unit: "C62"}},
		Components: []signal.Component{{Item: "STEEL", Required: "12.750", Unit: "KGM", Operation: "0010", Reservation: "R7", Backflush: true}},
	}}
	if diff := cmp.Diff(want, f.Pending()); diff != "" {
		t.Error(diff)
	}
}

func TestOnlyTheNewestRevisionIsOfferedAndTheFirstOrderFirst(t *testing.T) {
	f := open(t)
	f.come(order("1002", 1, released), order("1001", 1, released), order("1002", 2, released), order("1002", 1, released))
	f.wantPending("1002/2 1001/1")
	if got, want := f.history("1002"), "sent/1 stored/1 superseded/1 sent/2 stored/2"; got != want {
		t.Errorf("history is %q, want %q", got, want)
	}
	f.must(f.MarkDelivered("1002", 2))
	f.must(f.MarkDelivered("1002", 2))
	f.wantPending("1001/1")
	f.wantState("1002", "delivered", "")
	f.wantState("1001", "stored", "")
	f.must(f.MarkRefused("1001", 1, "unknown item"))
	f.wantPending("")
	f.wantState("1001", "rejected", "unknown item")
	f.come(order("1001", 2, released)) // the ERP mended it
	f.wantPending("1001/2")
	f.wantState("1001", "stored", "")
}

func TestCancellationGoesToWhoeverMayHaveTheOrderAndToNobodyElse(t *testing.T) {
	for _, c := range []struct {
		name    string
		before  func(f *fixture)
		pending string
		state   string
		reason  string
	}{
		{"never delivered", func(*fixture) {}, "", "cancelled", ""},
		{"delivered", func(f *fixture) { f.must(f.MarkDelivered("1001", 1)) }, "1001/2x", "cancelled", "does not know yet"},
		{"tried, outcome lost", func(f *fixture) { f.must(f.MarkTried("1001", 1, "mes", "")) }, "1001/2x", "cancelled", "does not know yet"},
		{"tried and refused", func(f *fixture) { f.must(f.MarkTried("1001", 1, "mes", "")); f.must(f.MarkRefused("1001", 1, "no")) }, "", "cancelled", ""},
		{"started", func(f *fixture) {
			f.must(f.MarkDelivered("1001", 1))
			f.must(f.Apply(&pb.OrderState{OrderNo: "1001", State: pb.OrderState_STATE_STARTED}, noon))
		}, "1001/2x", "cancelled", "does not know yet"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := open(t)
			f.come(order("1001", 1, released))
			c.before(f)
			f.come(order("1001", 2, cancelled))
			f.reopen()
			f.wantPending(c.pending)
			f.wantState("1001", c.state, c.reason)
			if c.pending == "" {
				return
			}
			f.must(f.MarkDelivered("1001", 2))
			f.wantPending("")
			f.wantState("1001", "cancelled", "")
			if len(f.Open()) != 0 {
				t.Errorf("open orders are %v", f.Open())
			}
		})
	}
}

func TestOrdersThatAreNotReleasedOrAreClosedStayAway(t *testing.T) {
	f := open(t)
	f.come(order("1", 1, pb.WorkOrder_STATE_PLANNED), order("2", 1, pb.WorkOrder_STATE_HELD), order("3", 1, pb.WorkOrder_STATE_CLOSED),
		order("4", 1, pb.WorkOrder_STATE_IN_PROGRESS), order("5", 1, pb.WorkOrder_STATE_UNSPECIFIED))
	f.wantPending("4/1 5/1")
	f.wantState("1", "stored", "not released")
	f.wantState("2", "stored", "held in the ERP")
	f.wantState("3", "finished", "completed in the ERP")
	f.come(order("1", 2, released))
	f.wantPending("1/2 4/1 5/1")
	if got := names(f.Open()); got != "1/2 2/1 4/1 5/1" {
		t.Errorf("open orders are %q", got)
	}
}

func TestNewsOfTheShopFloorMayComeTwiceLateAndInAnyOrder(t *testing.T) {
	news := []struct {
		state pb.OrderState_State
		at    int
	}{
		{pb.OrderState_STATE_ACCEPTED, 1}, {pb.OrderState_STATE_STARTED, 2}, {pb.OrderState_STATE_HELD, 3}, {pb.OrderState_STATE_STARTED, 4},
		{pb.OrderState_STATE_FINISHED, 5},
	}
	const want = "sent/1 stored/1 delivered/1 accepted/0 started/0 held/0 started/0 finished/0"
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("INBOX_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("seed: INBOX_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 15 {
		f := open(t)
		f.come(order("1001", 1, released))
		f.must(f.MarkDelivered("1001", 1))
		for range 1 + rng.IntN(2) { // everything once or twice
			for _, i := range rng.Perm(len(news)) {
				at := noon.Add(time.Duration(news[i].at) * time.Minute)
				f.must(f.Apply(&pb.OrderState{OrderNo: "1001", State: news[i].state}, at))
			}
		}
		if got := f.history("1001"); got != want {
			t.Fatalf("history is %q, want %q", got, want)
		}
		f.wantState("1001", "finished", "")
		f.wantPending("")
	}
}

func TestRefusalByTheShopFloorShowsUntilItThinksBetter(t *testing.T) {
	f := open(t)
	f.come(order("1001", 1, released))
	f.must(f.MarkDelivered("1001", 1))
	now := time.Now()
	f.must(f.Apply(&pb.OrderState{OrderNo: "1001", State: pb.OrderState_STATE_REJECTED, Reason: "no tool"}, now.Add(time.Minute)))
	f.wantState("1001", "rejected", "no tool")
	f.must(f.Apply(&pb.OrderState{OrderNo: "1001", State: pb.OrderState_STATE_STARTED}, now.Add(2*time.Minute)))
	f.wantState("1001", "started", "")
	f.must(f.Apply(&pb.OrderState{OrderNo: "none", State: pb.OrderState_STATE_STARTED}, now))
	f.come(order("1001", 2, released))
	f.wantState("1001", "started", "revision 2 is not delivered yet")
}

func TestStateWithoutARevisionMeansTheOneThatWasOffered(t *testing.T) {
	f := open(t)
	f.come(order("1001", 1, released))
	f.must(f.MarkTried("1001", 1, "mes", ""))
	f.come(order("1001", 2, released))
	f.must(f.Apply(&pb.OrderState{OrderNo: "1001", State: pb.OrderState_STATE_DELIVERED}, noon))
	f.wantPending("1001/2")
}

func TestNewEpochStartsFromZeroWithoutLosingOrOfferingAnythingAgain(t *testing.T) {
	f := open(t)
	f.come(order("1001", 1, released), order("1002", 1, released), receipt(1, pb.Receipt_OUTCOME_VERIFIED, noon))
	f.must(f.MarkDelivered("1001", 1))
	f.seq = 0
	again := order("1001", 1, released)
	again.RevisedAt = timestamppb.New(noon.Add(time.Hour)) // the restored hub saw it later
	f.must(f.Store("e2", f.number(again, receipt(1, pb.Receipt_OUTCOME_RECEIVED, noon.Add(-time.Minute)))))
	if epoch, seq := f.Position(); epoch != "e2" || seq != 2 {
		t.Errorf("position is %q %d, want e2 2", epoch, seq)
	}
	f.wantPending("1002/1")
	f.wantState("1001", "delivered", "")
	if rs := f.Receipts(5); len(rs) != 1 || rs[0].Outcome != "verified" {
		t.Errorf("receipts are %+v, want the newest word", rs)
	}
}

func TestSameRevisionWithOtherContentIsShownAndNotTaken(t *testing.T) {
	f := open(t)
	f.come(order("1001", 1, released))
	other := order("1001", 1, released)
	other.Quantity.Value = "99"
	f.come(other)
	if p := f.Pending(); len(p) != 1 || p[0].Quantity != "1200" {
		t.Errorf("pending is %+v", p)
	}
	f.wantState("1001", "stored", "other content")
}

func TestUselessDeliveriesDoNotStopTheirNeighbours(t *testing.T) {
	f := open(t)
	bad := order("1009", 1, released)
	bad.RevisedAt = &timestamppb.Timestamp{Seconds: 1 << 60} // no calendar has this year
	f.come(order("", 1, released), order(strings.Repeat("9", 40_000), 1, released), &pb.Receipt{FactKey: []byte("short")}, nil, bad, order("1001", 1, released))
	if _, seq := f.Position(); seq != 6 {
		t.Errorf("position is %d, want 6", seq)
	}
	f.wantPending("1009/1 1001/1")
	for range keepAside + 50 {
		f.come(order("", 1, released))
	}
	f.reopen()
	f.wantPending("1009/1 1001/1")
}

func TestReceiptsAreBoundedAndTheUnsettledStay(t *testing.T) {
	f := open(t)
	f.come(receipt(1, pb.Receipt_OUTCOME_IN_DOUBT, noon), receipt(2, pb.Receipt_OUTCOME_RECEIVED, noon), receipt(3, pb.Receipt_OUTCOME_REJECTED, noon))
	total := keepReceipts[listSettled] + 3000
	for n := 10; n < 10+total; n += 1000 {
		var batch []any
		for i := n; i < n+1000; i++ {
			batch = append(batch, receipt(i, pb.Receipt_OUTCOME_POSTED, noon.Add(time.Duration(i)*time.Second)))
		}
		f.come(batch...)
	}
	f.reopen()
	rs := f.Receipts(100_000)
	if want := keepReceipts[listSettled] + 3; len(rs) != want {
		t.Fatalf("%d receipts, want %d", len(rs), want)
	}
	if rs[0].Outcome != "rejected" || rs[1].Outcome != "in_doubt" {
		t.Errorf("first are %q and %q, want those that need a person", rs[0].Outcome, rs[1].Outcome)
	}
	if rs[2].Document != fmt.Sprintf("DOC%d", 10+total-1) {
		t.Errorf("newest is %q", rs[2].Document)
	}
	f.come(receipt(1, pb.Receipt_OUTCOME_VERIFIED, noon.Add(time.Hour))) // the doubt is gone
	if rs := f.Receipts(3); rs[1].Outcome != "verified" {
		t.Errorf("second is %+v", rs[1])
	}
}

func TestThousandsOfReceiptsTakeOneSync(t *testing.T) {
	f := open(t)
	var batch []any
	for i := range 4000 {
		batch = append(batch, receipt(i, pb.Receipt_OUTCOME_POSTED, noon))
	}
	before := f.db.Stats()
	f.come(batch...)
	after := f.db.Stats()
	diff := after.Sub(&before)
	if n := diff.TxStats.GetWrite(); n > 2000 {
		t.Errorf("%d page writes for 4,000 receipts", n)
	}
}

func TestSettledOrdersAreBoundedAndDoNotComeBack(t *testing.T) {
	f := open(t)
	f.come(order("open", 1, released), order("cancelled early", 1, released))
	f.must(f.MarkDelivered("cancelled early", 1))
	f.come(order("cancelled early", 2, pb.WorkOrder_STATE_CLOSED))
	const total = keepSettledOrders + keepSettledOrders/2
	var batch []any
	for i := range total {
		batch = append(batch, order(fmt.Sprintf("c%05d", i), 1, pb.WorkOrder_STATE_CLOSED))
	}
	f.come(batch...)
	f.reopen()
	if n := len(f.Orders()); n < keepSettledOrders || n > keepSettledOrders+keepSettledOrders/10+1 {
		t.Errorf("%d orders are kept", n)
	}
	f.wantPending("open/1")
	f.seq = 0
	f.must(f.Store("e2", f.number(order("c00000", 1, released), order("cancelled early", 1, released), order("c00001", 2, released), order("cancelled early", 3, cancelled))))
	f.wantPending("open/1 c00001/2 cancelled early/3x")
}

func TestDamagedFileIsSetAsideAndANewOneBegun(t *testing.T) {
	for _, c := range []struct {
		name string
		hurt func(b []byte) []byte
	}{
		{"cut in the middle", func(b []byte) []byte { return b[:len(b)/2/4096*4096] }},
		{"cut to one page", func(b []byte) []byte { return b[:4096] }},
		{"cut inside a page", func(b []byte) []byte { return b[:len(b)/2-1000] }},
		{"not a database", func(b []byte) []byte { return []byte(strings.Repeat("hello ", 3000)) }},
		{"zeros from the third page on", func(b []byte) []byte { clear(b[8192:]); return b }},
		{"noise from the third page on", func(b []byte) []byte {
			rng := rand.New(rand.NewPCG(1, 1))
			for i := 8192; i < len(b); i++ {
				b[i] = byte(rng.Uint32())
			}
			return b
		}},
		{"one flipped bit in each order", func(b []byte) []byte {
			return []byte(strings.ReplaceAll(string(b), `"revision":1`, `"revision":3`))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := open(t)
			for i := 0; i < 300; i += 50 {
				var batch []any
				for j := i; j < i+50; j++ {
					batch = append(batch, order(fmt.Sprint(j), 1, released), receipt(j, pb.Receipt_OUTCOME_POSTED, noon))
				}
				f.come(batch...)
			}
			f.Close()
			b, err := os.ReadFile(f.path)
			f.must(err)
			hurt := c.hurt(b)
			f.must(os.WriteFile(f.path, hurt, 0o600))
			f.reopen()
			if epoch, seq := f.Position(); epoch != "" || seq != 0 || f.Recovered() == "" {
				t.Fatalf("position is %q %d, recovered %q", epoch, seq, f.Recovered())
			}
			aside, _ := filepath.Glob(f.path + ".damaged-*")
			if len(aside) != 1 {
				t.Fatalf("set aside are %v", aside)
			}
			if kept, _ := os.ReadFile(aside[0]); len(kept) != len(hurt) {
				t.Errorf("the file set aside has %d bytes, want %d", len(kept), len(hurt))
			}
			f.seq = 0
			f.come(order("1001", 1, released))
			f.reopen()
			f.wantPending("1001/1")
			if f.Recovered() != "" {
				t.Errorf("recovered again: %s", f.Recovered())
			}
		})
	}
}

func TestRandomScribblesNeverStopTheStart(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("INBOX_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("seed: INBOX_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	f := open(t)
	for i := range 100 {
		f.come(order(fmt.Sprint(i), 1, released), receipt(i, pb.Receipt_OUTCOME_POSTED, noon))
	}
	f.Close()
	whole, err := os.ReadFile(f.path)
	f.must(err)
	dir := t.TempDir()
	recovered := 0
	for n := range 150 {
		b := append([]byte(nil), whole...)
		for range 1 + rng.IntN(20) {
			at, size := rng.IntN(len(b)), 1+rng.IntN(64)
			for i := at; i < min(at+size, len(b)); i++ {
				b[i] = byte(rng.Uint32())
			}
		}
		path := filepath.Join(dir, fmt.Sprintf("%d.db", n))
		f.must(os.WriteFile(path, b, 0o600))
		in, err := Open(path)
		if err != nil {
			t.Fatalf("run %d: %v", n, err)
		}
		if in.Recovered() != "" {
			recovered++
		}
		if err := in.Store("e1", []*pb.Delivery{{Seq: 1000, Kind: &pb.Delivery_WorkOrder{WorkOrder: order("new", 1, released)}}}); err != nil {
			t.Errorf("run %d: store after the start: %v", n, err)
		}
		in.Close()
	}
	t.Logf("%d of 150 files were set aside", recovered)
	if recovered == 0 {
		t.Error("no scribble was noticed")
	}
}

func TestFileInUseIsAnErrorNotDamage(t *testing.T) {
	f := open(t)
	if _, err := Open(f.path); err == nil || !strings.Contains(err.Error(), ErrInUse.Error()) {
		t.Errorf("second open says %v", err)
	}
	if aside, _ := filepath.Glob(f.path + ".damaged-*"); len(aside) != 0 {
		t.Errorf("a file in use was set aside: %v", aside)
	}
}

func TestChangedTellsOfWhatCame(t *testing.T) {
	f := open(t)
	f.come(order("1001", 1, released))
	select {
	case <-f.Changed():
	default:
		t.Error("nothing was told")
	}
}

func TestPagesAndReceiversCannotChangeWhatIsKept(t *testing.T) {
	f := open(t)
	f.come(order("1001", 1, released))
	before := f.Orders()
	f.Orders()[0].History[0].State = "scribbled"
	if !reflect.DeepEqual(before, f.Orders()) {
		t.Error("a reader changed the inbox")
	}
}

// bbolt would follow the claim for hours: the agent would never start.
func TestAPageThatClaimsPagesItDoesNotHaveDoesNotKeepTheInboxFromOpening(t *testing.T) {
	f := open(t)
	f.come(order("WO-1", 1, pb.WorkOrder_STATE_RELEASED))
	f.must(f.Close())
	content, err := os.ReadFile(f.path)
	f.must(err)
	for at := 2 * os.Getpagesize(); at+16 <= len(content); at += os.Getpagesize() {
		copy(content[at+12:], []byte{0xff, 0xff, 0xff, 0x7f}) // the page's overflow
	}
	f.must(os.WriteFile(f.path, content, 0o600))
	f.Inbox, err = Open(f.path)
	f.must(err)
	if f.Recovered() == "" {
		t.Error("the inbox does not say that it was damaged")
	}
}

func TestOrderUnderAnotherOrdersNumberIsDamage(t *testing.T) {
	f := open(t)
	f.come(order("WO-1", 1, pb.WorkOrder_STATE_RELEASED))
	f.must(f.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(buckets.orders)
		v := bytes.Clone(b.Get([]byte("WO-1")))
		return errors.Join(b.Delete([]byte("WO-1")), b.Put([]byte("WO-3"), v))
	}))
	f.reopen()
	if f.Recovered() == "" || len(f.Orders()) != 0 {
		t.Errorf("recovered %q, orders %v", f.Recovered(), f.Orders())
	}
}

// What the page says of an order with operations must be true of the order: it is started until all of it is finished, or until the
// hub says that the ERP has completed it.
func TestEndOfAnOperationIsNotTheOrders(t *testing.T) {
	f := open(t)
	two := order("1001", 1, released)
	two.Operations = []*pb.Operation{{Operation: "10"}, {Operation: "20"}}
	f.come(two, order("1002", 1, released))
	say := func(no, operation string, s pb.OrderState_State, minute int) {
		t.Helper()
		f.must(f.Apply(&pb.OrderState{OrderNo: no, State: s, Operation: operation}, noon.Add(time.Duration(minute)*time.Minute)))
	}
	for range 2 { // everything comes twice
		say("1001", "10", pb.OrderState_STATE_STARTED, 1)
		say("1001", "20", pb.OrderState_STATE_FINISHED, 4)
		say("1001", "10", pb.OrderState_STATE_FINISHED, 2)
		say("1001", "20", pb.OrderState_STATE_STARTED, 3)
	}
	f.wantState("1001", "started", "")
	if got, want := f.history("1001"), "sent/1 stored/1 started/0 operation 10 finished/0 started/0 operation 20 finished/0"; got != want {
		t.Errorf("history is %q, want %q", got, want)
	}
	if got := names(f.Open()); got != "1001/1 1002/1" {
		t.Errorf("open orders are %q", got)
	}
	done := order("1001", 2, pb.WorkOrder_STATE_COMPLETED)
	done.Operations = two.Operations
	f.come(done)
	f.wantState("1001", "finished", "completed in the ERP")
	f.wantPending("1002/1")
	say("1002", "10", pb.OrderState_STATE_FINISHED, 5) // the hub lists no operations: the plant's word is all there is
	f.wantState("1002", "finished", "")
}

// A refusal that a person at the hub has taken up again is no trouble any more: not after a restart, and not when the hub sends the old
// refusal once more.
func TestRefusalThatIsPostedAgainIsNoTroubleAnyMore(t *testing.T) {
	f := open(t)
	key := factkey.Of("fact")
	receipt := func(o pb.Receipt_Outcome, reason string, minute int) *pb.Delivery {
		return &pb.Delivery{Seq: int64(minute), Kind: &pb.Delivery_Receipt{Receipt: &pb.Receipt{FactKey: key[:], OrderNo: "1001", Outcome: o, Reason: reason,
			At: timestamppb.New(noon.Add(time.Duration(minute) * time.Minute))}}}
	}
	refused, again := receipt(pb.Receipt_OUTCOME_REJECTED, "period is closed", 1), receipt(pb.Receipt_OUTCOME_RECEIVED, "is being posted again", 2)
	shows := func(outcome, reason string) {
		t.Helper()
		if got := f.Receipts(10); len(got) != 1 || got[0].Outcome != outcome || got[0].Reason != reason {
			t.Fatalf("the page shows %+v, want %s: %s", got, outcome, reason)
		}
	}
	f.must(f.Store("e1", []*pb.Delivery{refused}))
	shows("rejected", "period is closed")
	f.must(f.Store("e1", []*pb.Delivery{again}))
	shows("received", "is being posted again")
	f.reopen()
	shows("received", "is being posted again")
	f.must(f.Store("e2", []*pb.Delivery{refused, again})) // the hub numbers anew
	shows("received", "is being posted again")
	f.must(f.Store("e2", []*pb.Delivery{refused}))
	shows("received", "is being posted again")
	f.must(f.Store("e2", []*pb.Delivery{receipt(pb.Receipt_OUTCOME_VERIFIED, "", 3)}))
	f.reopen()
	shows("verified", "")
}
