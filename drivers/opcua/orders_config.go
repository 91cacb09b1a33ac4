package opcua

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// OrdersConfig says how the server's machines take work orders: as job orders, or written into nodes.
type OrdersConfig struct {
	// JobControl hands orders to receivers of ISA-95 Job Control (OPC 10031-4, version 2).
	JobControl *JobControl `yaml:"job_control"`
	// Write writes orders into nodes, for machines without job control.
	Write []OrderBlock `yaml:"write"`
}

// JobControl are the machines with job control. One of Receiver and Receivers names them.
type JobControl struct {
	// Receiver is the node of the only receiver, or "auto" to look for it: it must then be the only one.
	Receiver string `yaml:"receiver"`
	// Receivers are several ones; the first whose work centre fits takes an order.
	Receivers []Receiver `yaml:"receivers"`
	// Start is "store" (default: an operator or the machine starts the job) or "store_and_start" (it may start at once).
	Start string `yaml:"start"`
	// CancelRunning is what happens when an order is cancelled whose job runs: "refuse" (default: the ERP is told that it is
	// too late), "stop" (the job ends, what was made counts) or "abort".
	CancelRunning string `yaml:"cancel_running"`
	// Clear removes jobs from the machine's list once their end is known here.
	Clear bool `yaml:"clear"`
	// Comment travels with each call; "from the ERP" when empty.
	Comment string `yaml:"comment"`
	// Events listens to the server's events of jobs as well, through a second session: they tell of states that last less than
	// Poll.
	Events bool `yaml:"events"`
	// Poll is how often the list of jobs is read; 1 s when zero.
	Poll time.Duration `yaml:"poll"`
}

// Receiver is one machine with job control.
type Receiver struct {
	// WorkCenter is the work centre that the machine is; it may end in "*". Empty fits each order.
	WorkCenter string `yaml:"work_center"`
	// Node is the receiver object.
	Node string `yaml:"node"`
}

// OrderBlock is one machine that takes orders from nodes.
type OrderBlock struct {
	// WorkCenter is as in Receiver.
	WorkCenter string `yaml:"work_center"`
	// Nodes are what is written, by the name of the order's field.
	Nodes map[string]string `yaml:"nodes"`
	// Strobe counts up after the block stands: the machine then takes it. Echo is the node to which the machine copies Strobe
	// when it has taken the order; without one, reading the block back is enough.
	Strobe string `yaml:"strobe"`
	Echo   string `yaml:"echo"`
	// Within is how long the machine may take to echo; 10 s when zero.
	Within time.Duration `yaml:"within"`
}

// blockFields are the fields of an order that can be written into a node.
var blockFields = []string{"order_no", "revision", "cancelled", "item", "description", "quantity", "unit", "priority", "lot",
	"work_center", "operation", "planned_start", "planned_end"}

const (
	refuseCancel, stopCancel, abortCancel = "refuse", "stop", "abort"
	onlyStore, storeAndStart              = "store", "store_and_start"
	autoReceiver                          = "auto"
)

func (c *OrdersConfig) setDefaults() {
	if j := c.JobControl; j != nil {
		for text, to := range map[*string]string{&j.Start: onlyStore, &j.CancelRunning: refuseCancel, &j.Comment: "from the ERP"} {
			if *text == "" {
				*text = to
			}
		}
		setDefault(&j.Poll, time.Second)
		if len(j.Receivers) == 0 && j.Receiver == "" {
			j.Receiver = autoReceiver
		}
	}
	for i := range c.Write {
		setDefault(&c.Write[i].Within, 10*time.Second)
	}
}

// Validate says what in the section can never work.
func (c *OrdersConfig) Validate() error {
	if c.JobControl == nil && len(c.Write) == 0 {
		return fmt.Errorf("work_orders is empty: write job_control: or write: in it, or leave it out")
	}
	if c.JobControl != nil {
		if err := c.JobControl.validate(); err != nil {
			return err
		}
	}
	for i := range c.Write {
		if err := c.Write[i].validate(); err != nil {
			return fmt.Errorf("work_orders: write %d: %w", i+1, err)
		}
	}
	return nil
}

func (j *JobControl) validate() error {
	const where = "work_orders.job_control: "
	for _, w := range []struct {
		key, value string
		known      []string
	}{
		{"start", j.Start, []string{onlyStore, storeAndStart}},
		{"cancel_running", j.CancelRunning, []string{refuseCancel, stopCancel, abortCancel}},
	} {
		if !slices.Contains(w.known, w.value) {
			return fmt.Errorf(where+"%s %q is unknown: write %s", w.key, w.value, strings.Join(w.known, ", "))
		}
	}
	if j.Poll < 100*time.Millisecond || j.Poll > time.Minute {
		return fmt.Errorf(where+"poll %s is out of range: choose 100ms to 1m", j.Poll)
	}
	if j.Receiver != "" && len(j.Receivers) > 0 {
		return fmt.Errorf(where + "receiver and receivers exclude each other: remove one of them")
	}
	if j.Receiver != "" && j.Receiver != autoReceiver {
		if _, err := parseNode(j.Receiver); err != nil {
			return fmt.Errorf(where+"receiver: %w", err)
		}
	}
	for i, r := range j.Receivers {
		if _, err := parseNode(r.Node); err != nil {
			return fmt.Errorf(where+"receivers %d: %w", i+1, err)
		}
	}
	return nil
}

func (b *OrderBlock) validate() error {
	for field, node := range b.Nodes {
		if !slices.Contains(blockFields, field) {
			return fmt.Errorf("nodes: field %q is unknown: use %s", field, strings.Join(blockFields, ", "))
		}
		if _, err := parseNode(node); err != nil {
			return fmt.Errorf("nodes: %s: %w", field, err)
		}
	}
	for _, field := range []string{"order_no", "revision"} {
		if b.Nodes[field] == "" {
			return fmt.Errorf("nodes has no %s: without it nobody can tell whether the machine has an order already", field)
		}
	}
	if b.Echo != "" && b.Strobe == "" {
		return fmt.Errorf("echo needs a strobe that the machine echoes")
	}
	for _, n := range []struct{ key, node string }{{"strobe", b.Strobe}, {"echo", b.Echo}} {
		if n.node == "" {
			continue
		}
		if _, err := parseNode(n.node); err != nil {
			return fmt.Errorf("%s: %w", n.key, err)
		}
	}
	if b.Within < 100*time.Millisecond || b.Within > time.Minute {
		return fmt.Errorf("within %s is out of range: choose 100ms to 1m", b.Within)
	}
	return nil
}

// fits reports whether a work centre is the pattern's; either may be a full path.
func fits(pattern, center string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(center, prefix) || strings.HasPrefix(center[strings.LastIndex(center, "/")+1:], prefix)
	}
	return pattern == "" || pattern == center || strings.HasSuffix(center, "/"+pattern) || strings.HasSuffix(pattern, "/"+center) && center != ""
}
