package posting

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/store"
)

// brittle is a system whose connector breaks down on the facts of one order, in one of its methods.
type brittle struct {
	*modelERP
	order, method string
}

func (b *brittle) breakIn(method string, p connector.Posting) {
	if p.Order.OrderNo == b.order && b.method == method {
		panic("index out of range")
	}
}

func (b *brittle) Prepare(ctx context.Context, p connector.Posting) ([]byte, *connector.Outcome, error) {
	b.breakIn("prepare", p)
	return b.modelERP.Prepare(ctx, p)
}

func (b *brittle) Post(ctx context.Context, p connector.Posting, intent []byte) connector.Outcome {
	out := b.modelERP.Post(ctx, p, intent)
	b.breakIn("post", p)
	return out
}

func (b *brittle) Lookup(ctx context.Context, p connector.Posting, intent []byte) (connector.Finding, error) {
	b.breakIn("lookup", p)
	return b.modelERP.Lookup(ctx, p, intent)
}

func (b *brittle) Verify(ctx context.Context, p connector.Posting, intent []byte, doc connector.Document) (connector.Verification, error) {
	b.breakIn("verify", p)
	return b.modelERP.Verify(ctx, p, intent, doc)
}

func (b *brittle) VerifyMany(ctx context.Context, all []connector.ToVerify) ([]connector.Verification, error) {
	for _, q := range all {
		b.breakIn("verify", q.Posting)
	}
	return b.modelERP.VerifyMany(ctx, all)
}

func TestConnectorThatBreaksDownOnAFactStopsNoNeighbour(t *testing.T) {
	for method, want := range map[string]struct {
		state store.PostingState
		code  string
	}{
		"prepare": {store.PostingParked, CodeConnectorBroke}, "post": {store.PostingVerified, ""}, // looked up and found
		"lookup": {store.PostingParked, CodeCannotTell}, "verify": {store.PostingParked, CodeDiffers},
	} {
		t.Run(method, func(t *testing.T) {
			simulate(t, func(t *testing.T, w *world) {
				w.opts.Connectors["erp"] = &brittle{w.erp, "WO-1", method}
				w.order("WO-1")
				w.order("WO-2")
				if method == "lookup" {
					w.erp.set(trouble{lostReply: 100})
				}
				w.start()
				poison, other := confirm("WO-1", 1, "5"), confirm("WO-2", 1, "7")
				w.deliver(poison, other)
				w.pass(10 * time.Minute)
				p := w.want(poison, want.state, want.code)
				if want.state == store.PostingParked && (!strings.Contains(p.Reason, "broke down") || p.NextStep == "") {
					t.Errorf("reason %q, next step %q", p.Reason, p.NextStep)
				}
				w.want(other, store.PostingVerified, "")
				if n := w.erp.called("post"); n > 2 {
					t.Errorf("%d posts of two facts", n)
				}
			})
		})
	}
}

// A posting that is not any more what its lane saw in it is not acted on: the outside system is not asked.
func TestWhatChangedSinceTheLaneLookedIsLookedAtAgain(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.order("WO-1")
		w.start()
		f := confirm("WO-1", 1, "5")
		w.deliver(f)
		w.pass(10 * time.Minute)
		p := w.want(f, store.PostingVerified, "")
		calls := func() int { return w.erp.called("prepare") + w.erp.called("post") + w.erp.called("verify") }
		before := calls()
		now, lane := store.Waiting{FactID: p.FactID, State: p.State, NextAt: p.NextAt}, store.Lane{ERP: "erp", OrderNo: "WO-1"}
		due, earlier := now, now
		due.State, earlier.NextAt = store.PostingDue, time.Now()
		for name, seen := range map[string]struct {
			lane store.Lane
			as   store.Waiting
		}{
			"another state": {lane, due}, "another time": {lane, earlier}, "another order": {store.Lane{ERP: "erp", OrderNo: "WO-2"}, now},
		} {
			if again, err := w.e.permitted(t.Context(), seen.lane, seen.as, w.e.post); err != nil || !again.IsZero() {
				t.Errorf("%s: %v, %v", name, again, err)
			}
		}
		if n := calls() - before; n != 0 {
			t.Errorf("the system was called %d times", n)
		}
		if c, err := w.e.prepareCall(t.Context(), lane, now); err != nil || c == nil {
			t.Errorf("what did not change is not acted on: %v", err)
		}
		w.want(f, store.PostingVerified, "")
	})
}
