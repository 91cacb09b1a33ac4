package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/linekeeper/linekeeper/agent"
	"github.com/linekeeper/linekeeper/agent/buffer"
	sig "github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/status"
	"github.com/linekeeper/linekeeper/agent/uplink"
)

type doctorCmd struct {
	Source  string        `arg:"" optional:"" help:"Name of the source to look at; without it everything is looked at."`
	JSON    bool          `help:"Print JSON."`
	Timeout time.Duration `default:"1m" help:"How long each part may take."`
}

func (doctorCmd) Help() string {
	return examples("Goes the way to each source and to the hub step by step and says which side refuses, why, and what to do. It may be used while the agent runs: it changes nothing at a source, and only opens a session of its own there for a moment. Exit code: 0 when nothing keeps the agent from working, 1 when something does.",
		"plantagent doctor -c plantagent.yaml", "plantagent doctor press1", "plantagent doctor --json")
}

// part is one thing that the doctor looked at.
type part struct {
	Name  string     `json:"name"`
	Kind  string     `json:"kind"`
	OK    bool       `json:"ok"`
	Steps []stepJSON `json:"steps"`
}

// stepJSON is a step with the problem's keys as they are everywhere in JSON.
type stepJSON struct {
	Name     string `json:"name"`
	Detail   string `json:"detail,omitempty"`
	Result   string `json:"result"` // "ok", "warning", "failed"
	Code     string `json:"code,omitempty"`
	Item     string `json:"item,omitempty"`
	Reason   string `json:"reason,omitempty"`
	NextStep string `json:"next_step,omitempty"`
}

func newPart(name, kind string, steps []sig.Step) part {
	p := part{Name: name, Kind: kind, OK: true, Steps: []stepJSON{}}
	for _, s := range steps {
		j := stepJSON{Name: s.Name, Detail: s.Detail, Result: "ok"}
		if s.Problem != nil {
			j.Code, j.Item, j.Reason, j.NextStep = s.Problem.Code, s.Problem.Item, s.Problem.Reason, s.Problem.NextStep
			j.Result = "warning"
			if !s.Warning {
				j.Result, p.OK = "failed", false
			}
		}
		p.Steps = append(p.Steps, j)
	}
	return p
}

// Run looks at the parts side by side, because each may wait for somebody who does not answer, and tells them in their order.
func (d doctorCmd) Run(e *env) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg, err := load(e.cli.Config)
	if err != nil {
		return err
	}
	faults := cfg.Check(drivers())
	if d.Source != "" {
		if _, err := pick(cfg, d.Source); err != nil {
			return err
		}
	}
	var looks []func(context.Context) part
	if d.Source == "" {
		looks = append(looks, func(context.Context) part {
			return newPart("configuration", "file", faultSteps(e.cli.Config, cfg, faults))
		},
			func(context.Context) part { return newPart("computer", "agent", computer(cfg)) })
	}
	for _, s := range cfg.Sources {
		if d.Source == "" || d.Source == s.Name {
			looks = append(looks, func(ctx context.Context) part { return newPart(s.Name, s.Kind, probe(ctx, cfg, s)) })
		}
	}
	if d.Source == "" {
		looks = append(looks, func(ctx context.Context) part { return newPart("hub", "hub", hub(ctx, cfg)) })
	}
	return d.tell(e, d.look(ctx, looks))
}

// look starts all of them and returns a channel for each.
func (d doctorCmd) look(ctx context.Context, looks []func(context.Context) part) []chan part {
	list := make([]chan part, len(looks))
	for i, f := range looks {
		list[i] = make(chan part, 1)
		go func() {
			ctx, cancel := context.WithTimeout(ctx, d.Timeout)
			defer cancel()
			list[i] <- f(ctx)
		}()
	}
	return list
}

func (d doctorCmd) tell(e *env, coming []chan part) error {
	all := struct {
		OK    bool   `json:"ok"`
		Parts []part `json:"parts"`
	}{OK: true}
	for _, c := range coming {
		p := <-c
		all.OK = all.OK && p.OK
		all.Parts = append(all.Parts, p)
		if !d.JSON {
			p.print(e.out)
		}
	}
	if d.JSON {
		if err := printJSON(e.out, all); err != nil {
			return err
		}
	}
	if !all.OK {
		return exitError(exitFailed)
	}
	return nil
}

func (p part) print(w io.Writer) {
	fmt.Fprintf(w, "%s (%s)\n", p.Name, p.Kind)
	for _, s := range p.Steps {
		mark := map[string]string{"ok": "ok  ", "warning": "warn", "failed": "FAIL"}[s.Result]
		line := s.Name
		if s.Detail != "" {
			line += ": " + s.Detail
		}
		fmt.Fprintf(w, "  %s  %s\n", mark, line)
		if s.Reason != "" {
			fmt.Fprintf(w, "        %s\n", strings.ReplaceAll(s.Reason, "\n", "\n        "))
		}
		if s.NextStep != "" {
			fmt.Fprintf(w, "        next step: %s\n", s.NextStep)
		}
	}
	fmt.Fprintln(w)
}

func failed(name, code, item, reason, next string) sig.Step {
	return sig.Step{Name: name, Problem: &sig.Problem{Code: code, Item: item, Reason: reason, NextStep: next}}
}

func faultSteps(path string, cfg agent.Config, faults []agent.Fault) []sig.Step {
	if len(faults) == 0 {
		return []sig.Step{{Name: path + " is valid", Detail: fmt.Sprintf("plant %s, agent %s, %d %s, %d %s", cfg.Plant, cfg.Agent,
			len(cfg.Sources), plural(len(cfg.Sources), "source"), len(cfg.Rules), plural(len(cfg.Rules), "rule"))}}
	}
	var steps []sig.Step
	for _, f := range faults {
		steps = append(steps, failed("the configuration is valid", "config", path, f.At(path), "correct the file; `plantagent check` looks at it again"))
	}
	return steps
}

// probe goes the way to a source.
func probe(ctx context.Context, cfg agent.Config, s agent.SourceConfig) []sig.Step {
	const name = "the source can be tried"
	d, done, err := openSource(cfg, s)
	if err != nil {
		return []sig.Step{failed(name, "config", s.Name, err.Error(), "correct the source's section in the configuration")}
	}
	defer done()
	p, ok := d.(sig.Prober)
	if !ok {
		step := failed(name, "no_probe", s.Name, fmt.Sprintf("a source of kind %s cannot be tried from here yet", s.Kind), "look at the running agent's page: it shows how the source is")
		step.Warning = true
		return []sig.Step{step}
	}
	steps := p.Probe(ctx)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		steps = append(steps, failed("the source answers in time", "timeout", s.Name, "the doctor's time is over", "try again with a longer --timeout"))
	}
	return steps
}

// hub goes the way to the hub.
func hub(ctx context.Context, cfg agent.Config) []sig.Step {
	if cfg.Hub.Address == "" {
		step := failed("there is a hub", "no_hub", "hub", "the configuration names no hub: the agent collects and keeps everything here", "name one under hub, when there is one")
		step.Warning = true
		return []sig.Step{step}
	}
	return uplink.Probe(ctx, cfg.Hub)
}

// computer looks at what the agent stands on: its process, its folder, its disk, its clock.
func computer(cfg agent.Config) []sig.Step {
	snap, _, err := ask(cfg.Listen)
	var steps []sig.Step
	if err != nil {
		step := failed("the agent is running", "not_running", cfg.Listen, err.Error(), "start it with `plantagent start` or `plantagent run`")
		step.Warning = true
		steps = append(steps, step)
	} else {
		steps = append(steps, running(snap))
	}
	steps = append(steps, folder(cfg.DataDir), disk(cfg), clock(cfg, snap))
	if in, err := buffer.Inspect(bufferDir(cfg.DataDir, false)); err == nil {
		steps = append(steps, bufferStep(in))
	} else if !errors.Is(err, fs.ErrNotExist) {
		steps = append(steps, failed("the buffer can be read", "buffer", cfg.DataDir, err.Error(), "run this as the user that the agent runs as"))
	}
	return steps
}

func running(s *status.Snapshot) sig.Step {
	step := sig.Step{Name: "the agent is running", Detail: fmt.Sprintf("version %s since %s, state %s", s.Version, s.StartedAt.Local().Format(time.DateTime), s.State)}
	if s.State != status.OK {
		step.Problem = &sig.Problem{Code: s.State, Item: "agent", Reason: s.Reason, NextStep: s.NextStep}
		step.Warning = true // its parts are looked at one by one
	}
	return step
}

// folder tries whether the data folder can be written to.
func folder(dir string) sig.Step {
	const name = "the data folder can be written to"
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return sig.Step{Name: name, Detail: dir + " is made at the first start"}
	}
	f, err := os.CreateTemp(dir, ".doctor-")
	if err != nil {
		return failed(name, "data_dir", dir, err.Error(), "run this as the user that the agent runs as, or give that user the folder")
	}
	f.Close()
	os.Remove(f.Name())
	return sig.Step{Name: name, Detail: dir}
}

func disk(cfg agent.Config) sig.Step {
	const name = "the disk has room"
	dir := cfg.DataDir
	for { // the folder may not be there yet
		if _, err := os.Stat(dir); err == nil || filepath.Dir(dir) == dir {
			break
		}
		dir = filepath.Dir(dir)
	}
	free, err := buffer.FreeDisk(dir)
	if err != nil {
		return failed(name, "disk", dir, err.Error(), "check the disk and the folder's rights")
	}
	reserve := int64(cfg.Buffer.DiskReserve)
	if reserve == 0 {
		reserve = buffer.DefaultDiskReserve
	}
	detail := fmt.Sprintf("%d MiB are free", free>>20)
	if free < reserve {
		return failed(name, "disk_full", dir, fmt.Sprintf("%s, and %d MiB are to stay free: the sources are held back", detail, reserve>>20),
			"free some of the disk, or give the agent another one (data_dir)")
	}
	return sig.Step{Name: name, Detail: detail}
}

// clock looks for signs that this computer's clock is wrong: the hub's word where the agent has it, else files from the future.
func clock(cfg agent.Config, snap *status.Snapshot) sig.Step {
	const name = "the clock is right"
	if snap != nil && snap.HubClockSkew != "" {
		skew, err := time.ParseDuration(snap.HubClockSkew)
		if err == nil && skew.Abs() < time.Minute {
			return sig.Step{Name: name, Detail: "it differs from the hub's by " + snap.HubClockSkew}
		}
		return failed(name, "clock", "clock", "it differs from the hub's by "+snap.HubClockSkew, "set this computer's clock by a time server")
	}
	for _, path := range []string{cfg.Path, cfg.DataDir} {
		if info, err := os.Stat(path); err == nil && time.Until(info.ModTime()) > time.Hour {
			return failed(name, "clock", "clock", fmt.Sprintf("it says %s, but %s was changed later, at %s", time.Now().Format(time.DateTime), path, info.ModTime().Format(time.DateTime)),
				"set this computer's clock by a time server")
		}
	}
	return sig.Step{Name: name, Detail: "it says " + time.Now().Format(time.RFC3339)}
}

func bufferStep(in *buffer.Inspection) sig.Step {
	step := sig.Step{Name: "the buffer is whole", Detail: fmt.Sprintf("%d facts wait for the hub, %d inputs in quarantine", in.Pending, in.Quarantined)}
	if len(in.Faults) > 0 {
		step.Problem = &sig.Problem{Code: "buffer_fault", Item: in.Faults[0].File, Reason: in.Faults[0].Reason, NextStep: "run `plantagent buffer verify` with the agent stopped"}
	}
	if len(in.Damage) > 0 {
		step.Problem = &sig.Problem{Code: "buffer_damage", Item: in.Dir, Reason: in.Damage[len(in.Damage)-1].String(), NextStep: "see the agent's page for what was lost; replace the disk if it happens again"}
		step.Warning = true
	}
	return step
}
