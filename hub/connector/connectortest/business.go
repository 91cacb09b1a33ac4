package connectortest

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
)

// BusinessHarness is a system under test that holds business objects.
type BusinessHarness struct {
	// Connect makes a connector that is a BusinessReader and a BusinessWriter. A second one is a hub that started again.
	Connect func(t testing.TB) connector.Connector
	// Faults stands between the connector and the system. Optional. Changes tells requests that may change something from mere
	// questions: only those go wrong, because the loss of a question changes nothing, and there are many.
	Faults  *Proxy
	Changes func(body []byte) bool
	Cases   []BusinessCase
}

// BusinessCase is one way to write.
type BusinessCase struct {
	Name string
	// New prepares the ground in the system (an order to be received) and returns a write that settles.
	New func(t testing.TB) connector.Write
	// Held counts in the system's own books what a write made: 1 when it took effect once.
	Held func(t testing.TB, w connector.Write) int
	// Alike says that it goes the way of another case in everything that can be lost.
	Alike bool
	// Change makes of a write one whose content differs: Verify must see it.
	Change func(w *connector.Write)
}

// RunBusiness runs every case against every promise of BusinessReader and BusinessWriter.
func RunBusiness(t *testing.T, h BusinessHarness) {
	for _, c := range h.Cases {
		b := &business{h, c}
		t.Run(c.Name, func(t *testing.T) {
			t.Run("TakesEffectOnceAndIsReadBack", b.once)
			if !c.Alike {
				t.Run("ManyWorkersOneObject", b.workers)
			}
			if !c.Alike && h.Faults != nil {
				t.Run("ThoughExchangesAreLost", b.lost)
			}
		})
	}
}

type business struct {
	BusinessHarness
	BusinessCase
}

// writes lets a writer be driven as a connector is.
type writes struct {
	connector.Connector
	to connector.BusinessWriter
	w  connector.Write
}

func (x writes) Prepare(ctx context.Context, p connector.Posting) ([]byte, *connector.Outcome, error) {
	x.w.Attempt = p.Attempt
	return x.to.PrepareBusiness(ctx, x.w)
}

func (x writes) Post(ctx context.Context, p connector.Posting, intent []byte) connector.Outcome {
	x.w.Attempt = p.Attempt
	return x.to.WriteBusiness(ctx, x.w, intent)
}

func (x writes) Lookup(ctx context.Context, _ connector.Posting, intent []byte) (connector.Finding, error) {
	return x.to.LookupBusiness(ctx, x.w, intent)
}

func (x writes) Verify(ctx context.Context, _ connector.Posting, intent []byte, doc connector.Document) (connector.Verification, error) {
	return x.to.VerifyBusiness(ctx, x.w, intent, doc)
}

// DriveBusiness is Drive for a write.
func DriveBusiness(ctx context.Context, c connector.Connector, w connector.Write, patience time.Duration) Settlement {
	return driveBusiness(ctx, c, w, patience, func() {})
}

func driveBusiness(ctx context.Context, c connector.Connector, w connector.Write, patience time.Duration, absent func()) Settlement {
	return drive(ctx, writes{c, c.(connector.BusinessWriter), w}, connector.Posting{}, patience, absent)
}

func (b *business) settle(t testing.TB, c connector.Connector, w connector.Write) Settlement {
	t.Helper()
	return b.settleThough(t, c, w, func() {})
}

func (b *business) settleThough(t testing.TB, c connector.Connector, w connector.Write, absent func()) Settlement {
	t.Helper()
	x := driveBusiness(t.Context(), c, w, patience, absent)
	if x.End != Settled {
		t.Fatalf("write of %s ended %s:\n  %s", w.Want.Kind, x.End, strings.Join(x.Why, "\n  "))
	}
	return x
}

func (b *business) holdsOne(t testing.TB, w connector.Write) {
	t.Helper()
	if n := b.Held(t, w); n != 1 {
		t.Errorf("the system holds %d of %s with key %s, want 1", n, w.Want.Kind, w.Key)
	}
}

// listed pages to the end and returns what was listed, by its key in the system.
func listed(t testing.TB, c connector.Connector, kind object.BusinessKind, cursor string) (map[string]object.Business, string) {
	t.Helper()
	seen := map[string]object.Business{}
	for range 1000 {
		page, err := c.(connector.BusinessReader).ListBusiness(t.Context(), kind, cursor)
		if err != nil {
			t.Fatalf("list %s: %v", kind, err)
		}
		for _, o := range page.Objects {
			seen[o.Names().ERPKey] = o
		}
		if cursor = page.Cursor; !page.More {
			return seen, cursor
		}
	}
	t.Fatalf("list %s: still more after 1000 pages", kind)
	return nil, ""
}

func (b *business) once(t *testing.T) {
	c := b.Connect(t)
	reader := c.(connector.BusinessReader)
	w := b.New(t)
	if !slices.Contains(reader.ReadsBusiness(), w.Want.Kind) {
		t.Fatalf("%s is written and not among what can be read: %v", w.Want.Kind, reader.ReadsBusiness())
	}
	_, cursor := listed(t, c, w.Want.Kind, "")
	first := b.settle(t, c, w)
	b.holdsOne(t, w)
	again := b.Connect(t) // a hub that forgot
	if second := b.settle(t, again, w); second.Document != first.Document {
		t.Errorf("the second time the document is %+v, the first time %+v", second.Document, first.Document)
	}
	b.holdsOne(t, w)
	held, err := reader.GetBusiness(t.Context(), w.Want.Kind, first.Document.ID)
	if err != nil {
		t.Fatalf("get %s: %v", first.Document.ID, err)
	}
	if says := w.Want.Difference(held); says != "" || held.Check() != nil {
		t.Errorf("what was written is read otherwise: %s, %v", says, held.Check())
	}
	for _, text := range []string{w.Key.String(), w.Want.Names().Reference} {
		if text == "" {
			continue
		}
		found, err := reader.FindBusiness(t.Context(), w.Want.Kind, text)
		if err != nil || len(found) != 1 || found[0].Names().ERPKey != held.Names().ERPKey {
			t.Errorf("%q finds %d objects, %v; want the one that was written", text, len(found), err)
		}
	}
	other := w
	b.Change(&other)
	v, err := c.(connector.BusinessWriter).VerifyBusiness(t.Context(), other, nil, first.Document)
	if err != nil || v.Matches || v.NotYet || v.Difference == "" {
		t.Errorf("an object that differs is verified as %+v, %v", v, err)
	}
	seen, _ := listed(t, again, w.Want.Kind, cursor) // the cursor must mean the same to a hub that started again
	if o, ok := seen[held.Names().ERPKey]; !ok || o.Names().State != held.Names().State {
		t.Errorf("what was written is listed as %q, %t; want %q", o.Names().State, ok, held.Names().State)
	}
}

// workers are hubs of which each prepared before any wrote; two of them share an intent.
func (b *business) workers(t *testing.T) {
	w := b.New(t)
	writers := make([]connector.BusinessWriter, 3)
	intents := make([][]byte, len(writers))
	for i := range writers {
		writers[i] = b.Connect(t).(connector.BusinessWriter)
		intent, early, err := writers[i].PrepareBusiness(t.Context(), w)
		if err != nil || early != nil {
			t.Fatalf("prepare: %+v, %v", early, err)
		}
		intents[i] = intent
	}
	intents[1] = slices.Clone(intents[0])
	outcomes := make([]connector.Outcome, len(writers))
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() { outcomes[i] = writers[i].WriteBusiness(t.Context(), w, intents[i]) })
	}
	wg.Wait()
	for _, out := range outcomes {
		if out.Result == connector.Rejected && out.Class != connector.Retryable {
			t.Errorf("one of the workers was told %+v", out)
		}
	}
	b.settle(t, b.Connect(t), w)
	b.holdsOne(t, w)
}

// lost makes one request of each write go wrong that changes something, each time a later one and in another way. The first, which
// makes the object or takes it, arrives late and arrives twice.
func (b *business) lost(t *testing.T) {
	if !b.lose(t, DelayRequest, 1) {
		t.Fatal("the fault never happened: the connector changes nothing through Faults")
	}
	b.lose(t, SendTwice, 1)
	ways := []Fault{LoseReply, SendTwice, DelayRequest}
	if b.Faults.EndSessions != nil {
		ways = append(ways, EndSession)
	}
	for nth := 2; nth <= 40; nth++ {
		if !b.lose(t, ways[nth%len(ways)], nth) {
			t.Logf("a write makes %d requests that change something", nth-1)
			return
		}
	}
	t.Fatal("a write makes more than 40 requests that change something")
}

// lose loses the nth such request of a new write and reports whether there was one.
func (b *business) lose(t *testing.T, f Fault, nth int) bool {
	t.Helper()
	c, w := b.Connect(t), b.New(t)
	seen := 0
	b.Faults.Watch(func(body []byte) {
		if !b.Changes(body) {
			return
		}
		if seen++; seen == nth {
			b.Faults.Arm(f, 1)
		}
	})
	x := b.settleThough(t, c, w, b.Faults.Deliver) // the worst moment for a late request: nothing is there, and it is made again
	b.Faults.Watch(nil)
	b.Faults.Fired() // disarms
	b.Faults.Deliver()
	b.holdsOne(t, w)
	if t.Failed() {
		t.Fatalf("%s at change %d:\n  %s", f, nth, strings.Join(x.Why, "\n  "))
	}
	return seen >= nth
}
