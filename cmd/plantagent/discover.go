package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/linekeeper/linekeeper/agent"
	sig "github.com/linekeeper/linekeeper/agent/signal"
)

type discoverCmd struct {
	Kind    string        `arg:"" help:"Kind of the source, such as opcua."`
	Address string        `arg:"" help:"Where it is: a host, host:port, a whole address or a path."`
	Name    string        `help:"Name that the source shall have." default:"source1"`
	JSON    bool          `help:"Print JSON."`
	Timeout time.Duration `default:"30s" help:"How long it may take."`
}

func (discoverCmd) Help() string {
	return examples("Asks what is at an address how it can be reached, and prints the configuration for each way, the best and safest first. No password is sent, and nothing is trusted.",
		"plantagent discover opcua 192.168.10.20", "plantagent discover mqtt broker.plant.example --json")
}

// Run needs no configuration; where there is one, the source gets its plant's and agent's names.
func (d discoverCmd) Run(e *env) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, d.Timeout)
	defer cancel()
	kind, err := discoverable(d.Kind)
	if err != nil {
		return err
	}
	cfg := agent.Config{Plant: "plant", Agent: "agent", TimeZone: "UTC", Path: e.cli.Config}
	if found, err := load(e.cli.Config); err == nil {
		found.Check(nil) // fills the defaults
		cfg = found
	}
	dir, err := os.MkdirTemp("", "linekeeper-discover-")
	if err != nil {
		return fmt.Errorf("make a temporary folder: %w", err)
	}
	defer os.RemoveAll(dir)
	offers, err := kind.Discover(ctx, sourceEnv(cfg, d.Name, dir), d.Address)
	if err != nil {
		return fmt.Errorf("discover %s at %q: %w", d.Kind, d.Address, err)
	}
	if d.JSON {
		if offers == nil {
			offers = []sig.Offer{}
		}
		return printJSON(e.out, offers)
	}
	d.print(e.out, offers)
	return nil
}

// discoverable is the kind of a name, one that can be discovered.
func discoverable(name string) (sig.Kind, error) {
	kinds := slices.DeleteFunc(drivers(), func(k sig.Kind) bool { return k.Discover == nil })
	var names []string
	for _, k := range kinds {
		if k.Name == name {
			return k, nil
		}
		names = append(names, k.Name)
	}
	return sig.Kind{}, fmt.Errorf("kind %q cannot be discovered: these can: %s", name, strings.Join(names, ", "))
}

func (d discoverCmd) print(w io.Writer, offers []sig.Offer) {
	if len(offers) == 0 {
		fmt.Fprintln(w, "nothing was found")
		return
	}
	for i, o := range offers {
		mark := "not safe"
		if o.Secure {
			mark = "safe"
		}
		fmt.Fprintf(w, "%d. %s (%s)\n", i+1, o.Title, mark)
		for _, n := range o.Notes {
			fmt.Fprintf(w, "   # %s\n", n)
		}
		fmt.Fprintf(w, "   - name: %s\n     kind: %s\n", d.Name, d.Kind)
		for _, line := range strings.Split(strings.TrimRight(o.Section, "\n"), "\n") {
			fmt.Fprintf(w, "     %s\n", line)
		}
		fmt.Fprintln(w)
	}
}
