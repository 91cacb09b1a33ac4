package ingest_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/ingest/ingestbench"
	"github.com/linekeeper/linekeeper/hub/store/faultvfs"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// random returns a generator whose seed is printed, and taken from LINEKEEPER_SEED when that is set.
func random(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("LINEKEEPER_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Printf("%s: LINEKEEPER_SEED=%d\n", t.Name(), seed)
	return rand.New(rand.NewPCG(seed, seed))
}

// newFaultyHub is a hub on a disk that forgets what was not synced.
func newFaultyHub(t *testing.T, rng *rand.Rand) (*hub, *faultvfs.FS) {
	t.Helper()
	disk, err := faultvfs.New(rng)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := disk.Close(); err != nil {
			t.Error(err)
		}
	})
	ca, err := ingestbench.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := ca.Server()
	if err != nil {
		t.Fatal(err)
	}
	h := &hub{t: t, ca: ca, tls: cfg, path: filepath.Join(t.TempDir(), "hub.db"), vfs: disk.Name(), clock: &clock{}}
	h.start()
	t.Cleanup(func() { h.stop() })
	return h, disk
}

// powerCut is what is known at the moment at which the power failed.
type powerCut struct {
	mu    sync.Mutex
	left  int    // operations on the disk until then; 0 when it fails instead
	acks  int    // acknowledgements until then, the last of which does not reach the agent
	acked uint64 // what the agent has been told so far
	image string // what the cut left; empty while there is power
	told  uint64 // acked at the cut
}

// has says whether the power failed.
func (c *powerCut) has() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.image != ""
}

// heard takes an acknowledgement, unless the power failed before it reached the agent.
func (c *powerCut) heard(seq uint64, crash func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.acks--; c.acks == 0 && c.image == "" {
		crash()
		return
	}
	c.acked = max(c.acked, seq)
}

// The hub's power fails at any operation of its disk: before a commit, within it, and between the commit and its
// acknowledgement. What was acknowledged is there afterwards, nothing is there twice, and the agent goes on from what the
// hub says that it holds.
func TestPowerCutOfTheHubLosesNothingThatWasAcknowledged(t *testing.T) {
	rng := random(t)
	h, disk := newFaultyHub(t, rng)
	next, unheard := 1, 0
	cut := &powerCut{}
	for n := range 12 {
		cut.left, cut.acks = 20+rng.IntN(60), 0
		if n%3 == 0 {
			cut.left, cut.acks = 0, 1+rng.IntN(8)
		}
		crash := func() {
			cut.image, cut.told = t.TempDir(), cut.acked
			if err := disk.Crash(rng, h.path, cut.image); err != nil {
				t.Error(err)
			}
		}
		disk.Before(func(op faultvfs.Op, _ string) faultvfs.Code {
			cut.mu.Lock()
			defer cut.mu.Unlock()
			if op == faultvfs.Read || cut.image != "" {
				return faultvfs.OK
			}
			if cut.left--; cut.left == 0 {
				crash()
			}
			return faultvfs.OK
		})
		sendUntil(h, cut, &next, crash)
		disk.Before(nil)
		h.stop()
		told := cut.told
		h.path, cut.image = filepath.Join(cut.image, "hub.db"), ""
		h.start()
		held := position(t, h)
		if facts := h.facts(); held < told || uint64(facts) != held || held >= uint64(next) {
			t.Fatalf("cut %d: the hub holds %d facts and says %d; %d were acknowledged, %d sent", n, facts, held, told, next-1)
		}
		if held > told {
			unheard++
		}
		cut.acked, next = held, int(held)+1
	}
	t.Logf("12 power cuts, %d facts; %d times the hub held more than it had acknowledged", next-1, unheard)
	if next < 20 || unheard == 0 {
		t.Error("the test did not test")
	}
}

// sendUntil sends batches as an agent does until the power fails.
func sendUntil(h *hub, cut *powerCut, next *int, crash func()) {
	h.t.Helper()
	l := h.dial("ulm/edge1")
	defer l.close()
	if err := l.stream.Send(&pb.Up{Kind: &pb.Up_Hello{Hello: hello("a", business("g1", uint64(*next-1), 0))}}); err != nil {
		h.t.Fatal(err)
	}
	for !cut.has() {
		down, err := l.stream.Recv()
		if err != nil {
			h.t.Fatal(err)
		}
		if r := down.GetRefusal(); r != nil {
			h.t.Fatalf("refused: %v", r)
		}
		if a := down.GetBatchAck(); a != nil {
			if len(a.GetVerdicts()) > 0 {
				h.t.Fatalf("verdicts %v: nothing was sent twice", a.GetVerdicts())
			}
			cut.heard(a.GetSeq(), crash)
		} else if down.GetHelloAck() == nil {
			continue
		}
		first := *next
		var records [][]byte
		for range 1 + first%5 {
			records = append(records, fact(*next, 5))
			*next++
		}
		l.batch("g1", uint64(first), records...)
	}
}

// position is what the hub says that it holds.
func position(t *testing.T, h *hub) uint64 {
	t.Helper()
	agent, err := h.store.Agent(context.Background(), "ulm", "edge1")
	if err != nil {
		return 0 // the cut came before it was ever heard of
	}
	all, err := h.store.Positions(context.Background(), agent.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if p.Generation == "g1" {
			return p.Seq
		}
	}
	return 0
}

// While the hub's disk is full nothing is acknowledged: the agent is refused and keeps its facts. When there is room again the
// running hub takes them.
func TestFullDiskOfTheHubIsRefusedAndThenTakenUp(t *testing.T) {
	h, disk := newFaultyHub(t, random(t))
	l, _ := h.connect(hello("a", business("g1", 2, 0)))
	l.batch("g1", 1, fact(1, 5))
	if a := l.ack(); a.GetSeq() != 1 {
		t.Fatalf("acknowledgement %v", a)
	}
	disk.Fail(faultvfs.FullDisk, "-wal", faultvfs.Write)
	l.batch("g1", 2, fact(2, 5))
	if r := l.recv().GetRefusal(); r.GetCode() != pb.Refusal_CODE_HUB_STORE || r.GetNextStep() == "" {
		t.Fatalf("on a full disk the hub says %v", r)
	}
	l.close()
	disk.Before(nil)
	l, _ = h.connect(hello("a", business("g1", 2, 1)))
	l.batch("g1", 2, fact(2, 5))
	if a := l.ack(); a.GetSeq() != 2 || len(a.GetVerdicts()) > 0 {
		t.Fatalf("when there is room again: %v", a)
	}
	if n := h.facts(); n != 2 {
		t.Fatalf("%d facts stored, want 2", n)
	}
}
