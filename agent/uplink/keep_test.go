package uplink

import (
	"context"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/buffer"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// disk is a Source whose acknowledgements become durable with an Update.
type disk struct {
	*memory
	durable uint64
	stuck   chan struct{} // Update waits for it
	most    uint64        // records that a power cut would have made the agent send again, at most
}

func (d *disk) Update(ctx context.Context, fn func(*buffer.Tx) error) error {
	d.mu.Lock()
	acked := d.acked
	d.mu.Unlock()
	select {
	case <-d.stuck:
	case <-ctx.Done():
		return ctx.Err()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.durable = acked
	return nil
}

// TestPowerCutInADrainRepeatsNoMoreThanTheWindow: nothing new comes while a backlog drains, so nothing else makes the
// acknowledgements durable. With a disk that hangs the line stops at a window's worth.
func TestPowerCutInADrainRepeatsNoMoreThanTheWindow(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		const window, batch, backlog = 8, 10, 5000
		d := &disk{memory: w.business, stuck: make(chan struct{})}
		w.hub.onHello = func(_ int, _ *pb.Hello, a *pb.HelloAck) *pb.Refusal { a.Window = window; return nil }
		w.hub.onBatch = func(_ <-chan struct{}, b *pb.Batch) bool {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.most = max(d.most, b.FirstSeq+uint64(len(b.Records))-1-d.durable)
			return true
		}
		w.cfg.BatchRecords = batch
		w.deps.Business = d
		w.business.append(records(0, backlog, 100)...)
		defer w.start(t)()
		until(t, time.Minute, "a window is at the hub", func() bool { return w.hub.count() >= window*batch/2 })
		pause(t.Context(), time.Minute)
		if n := w.hub.count(); n > window*batch {
			t.Errorf("%d records at the hub, and none durably acknowledged: more than a window of %d", n, window*batch)
		}
		close(d.stuck)
		until(t, 10*time.Minute, "all is acknowledged", func() bool { return w.business.pending() == 0 })
		if d.most > window*batch {
			t.Errorf("a power cut would have repeated %d records, the window holds %d", d.most, window*batch)
		}
	})
}
