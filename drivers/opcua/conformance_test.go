package opcua

import (
	"fmt"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/signal/drivertest"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

// counter is one node of a real server that counts: its records are its values.
type counter struct {
	t        testing.TB
	plant    *realparts.Plant
	node     string
	password string
	last     int
}

func (c *counter) Section() string {
	return fmt.Sprintf("endpoint: %s\nuser: {name: operator, password_file: %q}\npublishing_interval: 50ms\nkeep_alive: 1s\nnodes:\n"+
		"  - {tag: count, node: \"ns=2;s=%s\", sampling: 0s}\n", c.plant.Endpoint(), c.password, c.node)
}

func (c *counter) Produce(n int) {
	c.t.Helper()
	for range n {
		c.last++
		c.plant.Post(c.t, "/change", map[string]any{"node": c.node, "value": c.last})
	}
}

func (c *counter) Number(s signal.Signal) (int, bool) {
	n, ok := s.Value.(signal.Number)
	if !ok {
		return 0, false
	}
	v, err := n.Int64()
	return int(v), err == nil && v > 0
}

func (c *counter) Restart() {
	c.t.Helper()
	c.plant.Kill(syscall.SIGTERM)
	if err := c.plant.Run(); err != nil {
		c.t.Fatal(err)
	}
}

// Spoil shows a value that the server itself says is none.
func (c *counter) Spoil() {
	c.t.Helper()
	c.plant.Post(c.t, "/set", map[string]any{"node": c.node, "type": "UInt32", "value": 0, "status": "BadSensorFailure"})
}

// The suite looks for goroutines that were left behind, so that it must not run beside other drivers.
func TestConformance(t *testing.T) {
	const cases = 20
	plant := realparts.NodeOPCUA(t, realparts.PlantOptions{Counters: cases})
	password := filepath.Join(t.TempDir(), "password.txt")
	realparts.WriteFile(t, password, "secret\n")
	next := 0
	trusting := Kind
	trusting.New = func(env signal.Env, decode func(into any) error) (signal.Driver, error) {
		prepareDir(t, env.Dir, plant)
		return Kind.New(env, decode)
	}
	drivertest.Run(t, drivertest.Options{
		Kind: trusting,
		Start: func(t testing.TB) drivertest.Source {
			next++
			return &counter{t: t, plant: plant, node: fmt.Sprintf("Count.%d", next-1), password: password}
		},
		// The server's times have milliseconds, in which it counts several times.
		Identity:    func(s signal.Signal) string { return fmt.Sprint(s.Tag, " ", s.Value) },
		OnlyRunning: true,
	})
}
