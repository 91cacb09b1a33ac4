package trading

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
)

// A write that is brought forward is as safe from a hub that dies as a new one, also where nothing but looking up keeps it from doubling.
func TestHubThatDiesAtAnyStepOfBringingForwardWritesOnce(t *testing.T) {
	for _, step := range []string{"renewing", "renewed", "looking up", "looked up", "storing absent", "saved absent", "asking", "prepared", "storing sending", "saved sending", "sending",
		"written", "storing posted", "saved posted", "reading back", "read back", "storing verified", "saved verified",
		"storing in_doubt", "saved in_doubt", "storing found", "saved found"} {
		t.Run(step, func(t *testing.T) {
			simulate(t, func(t *testing.T, w *world) {
				w.erp.Forgetful = true
				w.start()
				restore := w.erp.Snapshot()
				w.submit("po", purchase(object.PurchaseSent))
				w.pass(time.Minute)
				w.want("po", store.PostingVerified, "", 1)
				restore()
				w.stop()

				dead := false
				w.crash = func(s string) error {
					if s == "write: "+step {
						dead = true
					}
					// The lane may be at its step before Renew returns: that is no failure of Renew, whose work is stored.
					if dead && (s != "write: renewed" || step == "renewed") {
						return errDies
					}
					return nil
				}
				if step == "storing in_doubt" || step == "saved in_doubt" || step == "storing found" || step == "saved found" {
					w.mishapOnce("write", connectortest.Loses)
				}
				w.start()
				ctx := context.Background()
				err := w.tr.Renew(ctx, key("po"), "it is gone", "test")
				if refused := step == "renewing" || step == "renewed"; (err != nil) != refused {
					t.Fatal(err)
				}
				w.pass(time.Hour)
				if !dead {
					t.Fatalf("step %q never came", step)
				}
				w.stop()
				w.crash = func(string) error { return nil }
				w.s.Close()
				w.open()
				w.start()
				if err := w.tr.Renew(ctx, key("po"), "it is gone", "test"); err != nil && !errors.Is(err, ErrNotVerified) { // somebody asks again
					t.Fatal(err)
				}
				w.pass(time.Hour)
				w.want("po", store.PostingVerified, "", 2) // one of them is gone
				if n := w.erp.Carry(key("po")); n != 1 {
					t.Errorf("the purchase stands %d times in the books", n)
				}
			})
		})
	}
}

func TestWriteThatIsBroughtForwardOutlivesThatItsSystemMayNotBeWrittenTo(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.erp.Forgetful = true
		w.start()
		w.submit("po", purchase(object.PurchaseSent))
		w.pass(time.Minute)
		w.erp.Mishaps(func(c string, _ connector.Write) connectortest.Mishap {
			return map[string]connectortest.Mishap{"find": connectortest.Down}[c]
		})
		if err := w.tr.Renew(context.Background(), key("po"), "taken for gone", "test"); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Second)
		w.want("po", store.PostingInDoubt, "unreachable", 1)
		w.stop()
		w.barred = true
		w.start()
		w.pass(time.Minute)
		w.want("po", store.PostingParked, "no_connector", 1)
		w.stop()
		w.erp.Mishaps(nil)
		w.barred = false
		w.start()
		w.pass(time.Minute)
		w.want("po", store.PostingVerified, "", 1)
	})
}
