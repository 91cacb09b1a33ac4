package opcua

import (
	"fmt"
	"strings"
	"testing"
)

func TestWorkOrdersSectionSaysWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"{}":                                                             "is empty",
		"{job_control: {}, write: [{}]}":                                 "order_no",
		"{job_control: {start: now}}":                                    "store_and_start",
		"{job_control: {cancel_running: maybe}}":                         "abort",
		"{job_control: {poll: 1h}}":                                      "100ms to 1m",
		"{job_control: {receiver: press}}":                               "node id",
		"{job_control: {receivers: [{node: x}]}}":                        "receivers 1",
		"{job_control: {receiver: auto, receivers: [{node: i=1}]}}":      "exclude",
		"{write: [{nodes: {order: i=1}}]}":                               "unknown",
		"{write: [{nodes: {order_no: i=1}}]}":                            "no revision",
		"{write: [{nodes: {order_no: i=1, revision: i=2}, echo: i=3}]}":  "strobe",
		"{write: [{nodes: {order_no: i=1, revision: i=2}, strobe: x}]}":  "strobe",
		"{write: [{nodes: {order_no: i=1, revision: x}}]}":               "revision",
		"{write: [{nodes: {order_no: i=1, revision: i=2}, within: 2m}]}": "out of range",
		"{write: [{nodes: {order_no: i=1, revision: i=2}, wait: 2m}]}":   "wait",
	} {
		_, err := Kind.New(newBench(t).env(), decodeYAML(fmt.Sprintf(quickOrders, "opc.tcp://h:1", text)))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// What stands commented out in the sample is valid too.
func TestSamplesOfWorkOrdersAreValid(t *testing.T) {
	var found int
	for _, part := range strings.Split(sample, "# work_orders:\n")[1:] {
		text := "endpoint: opc.tcp://h:1\nanonymous: true\nwork_orders:\n"
		for line := range strings.Lines(part) {
			line, ok := strings.CutPrefix(line, "# ")
			if !ok || !strings.HasPrefix(line, "  ") {
				break
			}
			text += line
		}
		d, err := Kind.New(newBench(t).env(), decodeYAML(text))
		if err != nil {
			t.Errorf("%v\n%s", err, text)
			continue
		}
		found += len(d.(*orderDriver).orders.machines)
	}
	if found != 2 {
		t.Errorf("%d machines in the sample", found)
	}
}
