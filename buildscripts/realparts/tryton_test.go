package realparts

import (
	"syscall"
	"testing"
	"time"
)

func TestTrytonHoldsItsSeedAndComesBack(t *testing.T) {
	start := time.Now()
	e := Tryton(t)
	t.Logf("up in %s", time.Since(start))
	order := e.CreateProductionOrder(t, TrytonOrder{Item: "FG-GEAR", Quantity: "40"})
	if got := e.OrderState(t, order); got != "waiting" {
		t.Errorf("order %s is %q, want waiting", order, got)
	}
	if got := e.Effects(t, order, "RM-STEEL"); got.Open != 1 || got.Done != 0 {
		t.Errorf("a released order has steel moves %+v, want one open", got)
	}
	e.ChangeQuantity(t, order, "50")
	e.Kill(syscall.SIGKILL)
	if err := e.Run(); err != nil {
		t.Fatal(err)
	}
	e.CancelOrder(t, order)
	if got := e.OrderState(t, order); got != "cancelled" {
		t.Errorf("order %s is %q after it was cancelled", order, got)
	}
	start = time.Now()
	e.Reset(t)
	t.Logf("reset in %s", time.Since(start))
	again := e.CreateProductionOrder(t, TrytonOrder{Item: "FG-GEAR", Quantity: "40"})
	if again != order {
		t.Errorf("after a reset the first order is %s, want %s again", again, order)
	}
}
