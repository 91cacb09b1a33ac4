package opcua

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

func TestCallersWaitForTheNextSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b lobby
		got := make(chan *live, 3)
		for range 3 {
			go func() {
				l, err := b.wait(t.Context())
				if err != nil {
					t.Error(err)
				}
				got <- l
			}()
		}
		synctest.Wait()
		if len(got) != 0 || b.present() != nil {
			t.Fatal("there is a session before one was made")
		}
		first := &live{}
		b.open(first)
		for range 3 {
			if l := <-got; l != first {
				t.Errorf("got %v", l)
			}
		}
		b.close()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if l, err := b.wait(ctx); l != nil || !errors.Is(err, context.Canceled) {
			t.Errorf("after the end: %v, %v", l, err)
		}
		second := &live{}
		b.open(second)
		if l, err := b.wait(t.Context()); l != second || err != nil {
			t.Errorf("the next: %v, %v", l, err)
		}
	})
}
