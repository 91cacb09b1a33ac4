package sandbox_test

import (
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/sandbox/erp"
)

func TestCompletedOrderIsReopenedAndRestoredHoweverOftenItIsAsked(t *testing.T) {
	for _, o := range []struct {
		state string
		bring func(e *erp.ERP, no string) error
	}{
		{"COMPLETED", func(e *erp.ERP, no string) error { return e.CompleteOrder(t.Context(), no) }},
		{"FINISHED", func(e *erp.ERP, no string) error {
			_, err := e.Post(t.Context(), erp.Request{Kind: erp.KindStatus, OrderNo: no, State: erp.Finished})
			return err
		}},
	} {
		t.Run(o.state, func(t *testing.T) {
			e, c := start(t, erp.Options{FinishCloses: true}, time.Second)
			no := release(t, e)
			if err := o.bring(e, no); err != nil {
				t.Fatal(err)
			}
			p := confirmation(no, "late", "5", "0")
			if out := post(t, c, p); out.Result != connector.Rejected {
				t.Fatalf("outcome %+v", out)
			}
			lock, err := c.Shut(t.Context(), no)
			if err != nil || !lock.Shut || lock.Final || lock.State != o.state {
				t.Fatalf("lock %+v, %v", lock, err)
			}
			for range 2 {
				if err := c.Reopen(t.Context(), no); err != nil {
					t.Fatal(err)
				}
			}
			if out := post(t, c, p); out.Result != connector.Posted {
				t.Fatalf("outcome %+v", out)
			}
			for range 2 {
				if err := c.Restore(t.Context(), no, lock.State); err != nil {
					t.Fatal(err)
				}
			}
			if now, err := c.Shut(t.Context(), no); err != nil || now != lock {
				t.Errorf("lock %+v, %v; want %+v", now, err, lock)
			}
		})
	}
	e, c := start(t, erp.Options{}, time.Second)
	no := release(t, e)
	if err := e.CloseOrder(t.Context(), no); err != nil {
		t.Fatal(err)
	}
	if lock, err := c.Shut(t.Context(), no); err != nil || !lock.Final {
		t.Errorf("lock of a closed order %+v, %v", lock, err)
	}
	if err := c.Reopen(t.Context(), no); err == nil {
		t.Error("a closed order was reopened")
	}
}

// post takes a posting through Prepare and Post.
func post(t *testing.T, c connector.Connector, p connector.Posting) connector.Outcome {
	t.Helper()
	intent, early, err := c.Prepare(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	if early != nil {
		return *early
	}
	return c.Post(t.Context(), p, intent)
}
