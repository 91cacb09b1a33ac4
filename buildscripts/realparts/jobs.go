package realparts

import (
	"encoding/json"
	"net/http"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// JobOptions say what kind of machines NodeOPCUAJobs starts.
type JobOptions struct {
	// Dir keeps what the machines were told; a temporary folder when empty. The same folder again is the same machines again.
	Dir string
	// Machines are their names; "Press1" when empty. Each has a job order receiver (ns=2;s=Press1.JobOrderReceiver), a
	// job response provider, and nodes for an order that is written: Order, Revision, Item, Quantity, Due, Cancelled, Strobe
	// and Echo (ns=2;s=Press1.Order).
	Machines []string
	// AcceptTwice makes a second Store of one job order a second job, as careless receivers do.
	AcceptTwice bool
	// ForgetParameters makes them list jobs without parameters.
	ForgetParameters bool
}

// JobMachine is the truth about one machine.
type JobMachine struct {
	Jobs []struct {
		ID       string          `json:"id"`
		Revision string          `json:"revision"`
		State    string          `json:"state"`
		Order    json.RawMessage `json:"order"`
	} `json:"jobs"`
	// Effects are the calls that did something.
	Effects []struct {
		Method   string `json:"method"`
		ID       string `json:"id"`
		Revision string `json:"revision"`
		Comment  string `json:"comment"`
	} `json:"effects"`
	// Setups are the orders that were written and taken.
	Setups []struct {
		Order     string  `json:"order"`
		Revision  int64   `json:"revision"`
		Item      string  `json:"item"`
		Quantity  float64 `json:"quantity"`
		Cancelled bool    `json:"cancelled"`
		Strobe    uint32  `json:"strobe"`
	} `json:"setups"`
}

// JobsNamespace is the namespace of the machines' nodes.
const JobsNamespace = "urn:plant:machines"

// NodeOPCUAJobs starts machines that take orders and stops them when the test ends. Post and Get reach its control port;
// buildscripts/nodeopcua/jobs.js lists what it can do.
func NodeOPCUAJobs(t testing.TB, o JobOptions) *Plant {
	t.Helper()
	node, home := needNodeOPCUA(t)
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if len(o.Machines) == 0 {
		o.Machines = []string{"Press1"}
	}
	p := &Plant{Port: FreePort(t), Control: FreePort(t), Dir: o.Dir}
	cert, key := plantCertificate(t, o.Dir, CertificateOptions{})
	seedStores(t, o.Dir)
	options, err := json.Marshal(map[string]any{
		"dir": o.Dir, "port": p.Port, "controlPort": p.Control, "machines": o.Machines, "acceptTwice": o.AcceptTwice,
		"forgetParameters": o.ForgetParameters, "applicationUri": PlantURI, "certificateFile": cert, "privateKeyFile": key,
	})
	if err != nil {
		t.Fatalf("encode the machines' options: %v", err)
	}
	p.Process = &Process{
		Name:     "node-opcua jobs",
		Command:  func() *exec.Cmd { return exec.Command(node, filepath.Join(home, "jobs.js"), string(options)) },
		Ready:    func() error { return p.call(http.MethodGet, "/ready", nil, nil) },
		Patience: 90 * time.Second,
	}
	p.Start(t)
	return p
}

// JobMachines returns the truth about all machines, and how many calls had their request or reply lost.
func (p *Plant) JobMachines(t testing.TB) (machines map[string]JobMachine, lost int) {
	t.Helper()
	var truth struct {
		Machines map[string]JobMachine `json:"machines"`
		Lost     int                   `json:"lost"`
	}
	p.Get(t, "/machines", &truth)
	return truth.Machines, truth.Lost
}
