package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/linekeeper/linekeeper/agent"
	"github.com/linekeeper/linekeeper/agent/drill"
)

// drillCmd runs the agent through disasters on a copy of the configuration.
type drillCmd struct {
	What     []string `arg:"" enum:"all,outage,powercut,corrupt,snapshot,clone,slowlink,proxy,diskfull" help:"Drills: all, outage, powercut, corrupt, snapshot, clone, slowlink, proxy, diskfull."`
	Report   string   `placeholder:"FILE" help:"Write the report to this file, too."`
	JSON     bool     `help:"Print the report as JSON."`
	Long     bool     `help:"Longer disasters, and the agent's own time-outs: about a quarter of an hour."`
	Seed     uint64   `help:"Repeat the times of an earlier drill; its report names the seed."`
	Scratch  string   `placeholder:"FOLDER" help:"Work in a new folder below this one. It should lie on the disk that the agent uses. Default: the system's folder for temporary files."`
	Quiet    bool     `short:"q" help:"Say nothing until the report."`
	Sabotage string   `hidden:"" enum:",source-acked-early,hub-acks-early,hub-forgets-keys" default:"" help:"Break a part on purpose, to see that the drill notices."`
}

func (drillCmd) Help() string {
	return examples("The agent runs on a copy of the configuration, in a scratch folder, with generated counts and a receiver of the drill's own. "+
		"The live data folder, hub and sources are not touched, and the live agent may go on. The exit code is 0 only if every drill passed.",
		"plantagent drill all --config /etc/linekeeper/plantagent.yaml --report drill.txt")
}

func (d drillCmd) Run(e *env) error {
	cfg, err := load(e.cli.Config)
	if err != nil {
		return err
	}
	if faults := cfg.Check(drivers()); len(faults) > 0 {
		for _, f := range faults {
			fmt.Fprintln(e.err, strings.ReplaceAll(f.At(e.cli.Config), "\n", "\n  "))
		}
		return exitError(exitConfig)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program to start it again: %w", err)
	}
	scratch, err := os.MkdirTemp(d.Scratch, "linekeeper-drill-")
	if err != nil {
		return fmt.Errorf("make a scratch folder: %w (name another one with --scratch)", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	rep, err := drill.Run(ctx, d.options(e, cfg, self, scratch), d.What)
	if err != nil {
		return fmt.Errorf("%w (what is left of it lies in %q)", err, scratch)
	}
	return d.finish(e, rep, scratch)
}

func (d drillCmd) options(e *env, cfg agent.Config, self, scratch string) drill.Options {
	o := drill.Options{
		Config: cfg, ConfigFile: e.cli.Config, Load: load, Version: version, Command: []string{self, "drill-agent"},
		Scratch: scratch, Seed: d.Seed, Long: d.Long, Sabotage: d.Sabotage,
	}
	if o.Seed == 0 {
		o.Seed = rand.Uint64N(1 << 32)
	}
	if !d.Quiet {
		o.Say = func(line string) { fmt.Fprintln(e.err, line) }
	}
	return o
}

// finish writes the report. What a failed drill left stays for whoever looks into it.
func (d drillCmd) finish(e *env, rep *drill.Report, scratch string) error {
	text := rep.Text()
	if d.Report != "" {
		if err := os.WriteFile(d.Report, []byte(text), 0o644); err != nil {
			return fmt.Errorf("write the report: %w", err)
		}
	}
	if d.JSON {
		enc := json.NewEncoder(e.out)
		enc.SetIndent("", "  ")
		if err := enc.Encode(rep); err != nil {
			return fmt.Errorf("write the report: %w", err)
		}
	} else {
		fmt.Fprint(e.out, text)
	}
	if !rep.Pass {
		fmt.Fprintf(e.err, "the scratch folder was kept: %s\n", scratch)
		return exitError(exitFailed)
	}
	if err := os.RemoveAll(scratch); err != nil {
		fmt.Fprintf(e.err, "warning: remove the scratch folder: %v\n", err)
	}
	return nil
}

// drilledCmd is the process that a drill starts, cuts off and kills.
type drilledCmd struct {
	Orders string `arg:"" help:"What the drill wrote for it."`
}

func (drilledCmd) Help() string {
	return examples("A drill starts it by itself; it ends with its standard input.", "plantagent drill-agent ORDERS.json")
}

func (c drilledCmd) Run(e *env) error {
	if filepath.Ext(c.Orders) != ".json" || strings.HasPrefix(c.Orders, "-") {
		return fmt.Errorf("%q is not a drill's orders", c.Orders)
	}
	return drill.RunAgent(c.Orders, agent.Options{Version: version, Salvager: salvager()}, load, os.Stdin, e.out, e.err)
}
