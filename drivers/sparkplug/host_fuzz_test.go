package sparkplug

import (
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/drivers/sparkplug/payload"
)

// Whatever comes in whatever order, the host neither fails nor holds without bound, and a value handed on once as history
// never comes out twice.
func FuzzHost(f *testing.F) {
	f.Add([]byte{0, 0, 1, 1, 2, 2, 3, 1, 0, 9})
	f.Add([]byte("the quick brown fox jumps over the lazy dog"))
	f.Fuzz(func(t *testing.T, script []byte) {
		b := newBench(t, func(s *hostSettings) { s.historyWait = time.Second })
		kinds := []string{"NBIRTH", "NDATA", "DBIRTH", "DDATA", "NDEATH", "DDEATH", "NDATA", "NDATA"}
		history := map[string]int{}
		for len(script) >= 2 {
			op, arg := script[0], script[1]
			script = script[2:]
			kind := kinds[op%8]
			device := ""
			if kind[0] == 'D' {
				device = "d"
			}
			metrics := []payload.Metric{bdSeq(uint64(op >> 6)), aliased("Good", 1, int32(arg)), historical(by(uint64(op>>5), int32(arg>>4)), b.now.Add(-time.Duration(arg)*time.Second))}
			b.send(kind, device, int(arg), metrics...)
			if op&8 != 0 {
				b.wait(time.Duration(arg) * 50 * time.Millisecond)
			}
		}
		b.h.disconnected(b.now)
		b.gather()
		for _, s := range b.out.signals {
			if s.Status == "historical" && s.Problem == nil {
				history[s.Position]++
			}
		}
		for p, n := range history {
			if n > 1 {
				t.Errorf("history %q came out %d times", p, n)
			}
		}
		for _, n := range b.h.nodes {
			if len(n.waiting) > 0 || len(n.held) > 0 || len(n.parked) > maxParked {
				t.Errorf("%d messages wait, %d are held, %d parked", len(n.waiting), len(n.held), len(n.parked))
			}
		}
	})
}
