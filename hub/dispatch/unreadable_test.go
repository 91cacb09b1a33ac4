package dispatch_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
)

func (w *world) alarms(closed bool) []store.Alarm {
	w.t.Helper()
	all, err := w.s.Alarms(context.Background(), closed, store.Page{Limit: 100})
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// An order that its connector cannot put into our words is shown, stops no neighbour, and goes down once the cause is mended, though
// nothing changes in the order.
func TestOrderThatCannotBeReadIsShownUntilItCan(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.erp.cannotRead("WO-1", `unit "Karton" is mapped to nothing`)
		w.say(order("WO-1", object.OrderReleased))
		w.say(order("WO-2", object.OrderReleased))
		w.want("ulm", "edge1", "WO-2/1 RELEASED 100")
		all := w.alarms(false)
		if len(all) != 1 || all[0].Code != "order_unreadable" || all[0].Subject != "erp/WO-1" || !strings.Contains(all[0].Reason, "Karton") || all[0].NextStep == "" {
			t.Fatalf("alarms are %+v", all)
		}
		w.pass(time.Hour)
		if all := w.alarms(false); len(all) != 1 || all[0].Times != 1 {
			t.Fatalf("an hour later alarms are %+v", all)
		}
		w.stop()
		w.start()
		w.pass(time.Minute)
		if all := w.alarms(false); len(all) != 1 {
			t.Fatalf("after a restart alarms are %+v", all)
		}
		w.erp.cannotRead("WO-1", "")
		w.pass(11 * time.Minute)
		w.want("ulm", "edge1", "WO-2/1 RELEASED 100, WO-1/1 RELEASED 100")
		if all := w.alarms(true); len(all) != 1 || all[0].ClosedAt.IsZero() || all[0].Note == "" {
			t.Fatalf("at the end alarms are %+v", all)
		}
	})
}

func TestOrderThatIsListedReadableClosesItsAlarm(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.erp.cannotRead("WO-1", "no unit")
		w.say(order("WO-1", object.OrderReleased))
		if all := w.alarms(false); len(all) != 1 {
			t.Fatalf("alarms are %+v", all)
		}
		w.erp.cannotRead("WO-1", "")
		w.say(order("WO-1", object.OrderReleased))
		w.want("ulm", "edge1", "WO-1/1 RELEASED 100")
		if all := w.alarms(false); len(all) != 0 {
			t.Fatalf("alarms are %+v", all)
		}
	})
}
