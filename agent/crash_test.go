package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/uplink"
)

// What the plant of the crash test makes.
const (
	crashRows  = 1500
	crashParts = 3000
)

// childMain is an agent in a process of its own, to be killed. The MES hands out rows and notes which were acknowledged;
// the machine counts by the clock, so that it goes on while the agent is down.
func childMain() {
	var base int64
	fmt.Sscan(os.Getenv("AGENT_TEST_BASE"), &base)
	dir := os.Getenv("AGENT_TEST_CHILD")
	acked, err := os.OpenFile(filepath.Join(dir, "acknowledged"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	fs := fakes{
		"mes": {run: func(ctx context.Context, cursor []byte, emit signal.Emit) error {
			n := 0
			fmt.Sscan(string(cursor), &n)
			for n < crashRows {
				next := min(n+1+rand.IntN(4), crashRows)
				if err := emit(ctx, signal.Batch{Signals: rowsOf(n, next), Cursor: fmt.Append(nil, next)}); err != nil {
					return err
				}
				n = next
				fmt.Fprintln(acked, n)
			}
			<-ctx.Done()
			return nil
		}},
		"press": {run: func(ctx context.Context, _ []byte, emit signal.Emit) error {
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for {
				parts := min(int(time.Since(time.UnixMilli(base)).Milliseconds()), crashParts)
				if err := emit(ctx, signal.Batch{Signals: []signal.Signal{count(parts, time.Now())}}); err != nil {
					return err
				}
				select {
				case <-ctx.Done():
					return nil
				case <-tick.C:
				}
			}
		}},
	}
	cfg := testConfig(dir, fs)
	cfg.Hub = uplink.Config{
		Address: os.Getenv("AGENT_TEST_HUB"), ServerName: "hub.test", CAFile: os.Getenv("AGENT_TEST_CERT"),
		CertFile: os.Getenv("AGENT_TEST_CERT"), KeyFile: os.Getenv("AGENT_TEST_KEY"), BackoffMax: 50 * time.Millisecond,
	}
	a, err := New(cfg, Options{Version: "test", Logger: newDiscard(), Kinds: fs.kinds()})
	if err == nil {
		err = a.Run(context.Background())
	}
	panic(err)
}

func TestKilledAgainAndAgainLosesNothingAndDoublesNothing(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("AGENT_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("seed: AGENT_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	h, baseTime := serveHub(t), time.Now()
	dir := t.TempDir()
	child := func() (kill func()) {
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), "AGENT_TEST_CHILD="+dir, "AGENT_TEST_HUB="+h.address, "AGENT_TEST_CERT="+h.files.CertFile, "AGENT_TEST_KEY="+h.files.KeyFile,
			fmt.Sprintf("AGENT_TEST_BASE=%d", baseTime.UnixMilli()))
		var out strings.Builder
		c.Stderr = &out
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		return func() {
			c.Process.Kill()
			if c.Wait(); out.Len() > 0 {
				t.Errorf("the agent ended by itself: %s", out.String())
			}
		}
	}

	file := filepath.Join(dir, "acknowledged")
	for range 8 {
		kill := child()
		// It lives until it has acknowledged some more, or has nothing more to do.
		more := int64(1 + random.IntN(300))
		before := sizeOf(file)
		eventually(t, "the source is acknowledged", func() error {
			if size := sizeOf(file); size < before+more && lastAcknowledged(t, file) < crashRows {
				return errors.New("too little")
			}
			return nil
		})
		kill()
		if got, min := cursorOf(t, testConfig(dir, nil), "mes"), lastAcknowledged(t, file); atoi(got) < min {
			t.Errorf("the source was acknowledged up to %d, but the durable cursor is %q", min, got)
		}
	}
	kill := child()
	defer kill()
	eventually(t, "the hub has every row and part", func() error {
		if got := h.counted("press"); got != fmt.Sprint(crashParts) {
			return fmt.Errorf("%s parts of %d", got, crashParts)
		}
		return h.holds(crashRows)
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.hellos < 2 {
		t.Errorf("%d hellos: the kills did not work", h.hellos)
	}
}

func sizeOf(file string) int64 {
	info, err := os.Stat(file)
	if err != nil {
		return 0
	}
	return info.Size()
}

func lastAcknowledged(t *testing.T, file string) int {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(raw[:strings.LastIndexByte(string(raw), '\n')+1]))
	if len(fields) == 0 {
		return 0
	}
	return atoi(fields[len(fields)-1])
}

func atoi(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}
