package mqtt

import (
	"fmt"
	"strings"
	"testing"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/signal/drivertest"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

// conforming is a broker with a machine that publishes, for the suite.
type conforming struct {
	t       testing.TB
	broker  *realparts.Broker
	machine *machine
	version string
}

func (c *conforming) Section() string {
	return fmt.Sprintf("broker: %s\nversion: %s\nbatch: 20\ntopics: [{tag: counts, topic: line/+/counts}]\n", c.broker.URL(), c.version)
}

func (c *conforming) Produce(n int) { c.machine.publish("line/1/counts", n) }

func (c *conforming) Spoil() { c.machine.send("line/1/counts", 1, false, `{"n": `) }

func (c *conforming) Number(s signal.Signal) (int, bool) {
	row, ok := s.Value.(map[string]any)
	if !ok {
		return 0, false
	}
	n, ok := row["n"].(signal.Number)
	if !ok {
		return 0, false
	}
	i, err := n.Int64()
	return int(i), err == nil
}

func (c *conforming) Restart() {
	c.broker.Kill(15)
	if err := c.broker.Run(); err != nil {
		c.t.Fatalf("start the broker again: %v", err)
	}
}

func TestDriverKeepsItsContract(t *testing.T) {
	for _, version := range []string{"5", "3.1.1"} {
		t.Run(version, func(t *testing.T) {
			drivertest.Run(t, drivertest.Options{Kind: Kind, OnlyRunning: true,
				Start: func(t testing.TB) drivertest.Source {
					b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
					return &conforming{t: t, broker: b, machine: newMachine(t, b, nil), version: version}
				},
				Identity: func(s signal.Signal) string { return strings.TrimSpace(string(s.Payload)) }, // the number in it
			})
		})
	}
}
