// Command plantagent is Linekeeper's plant agent: it reads the sources of one plant, keeps every business fact safe and
// streams it to the hub.
//
// It owns flags, signals, exit codes and the list of drivers. It promises exit codes that scripts can use: 0 done, 1
// failed, 64 wrong usage, 78 wrong configuration; "status" has its own. It never holds logic of the agent itself.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	_ "time/tzdata" // Windows has no zone database of its own

	"github.com/alecthomas/kong"

	"github.com/linekeeper/linekeeper/agent"
	sig "github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/cmd/config"
	"github.com/linekeeper/linekeeper/drivers/files"
	"github.com/linekeeper/linekeeper/drivers/mes"
	"github.com/linekeeper/linekeeper/drivers/mqtt"
	"github.com/linekeeper/linekeeper/drivers/opcua"
	"github.com/linekeeper/linekeeper/drivers/rest"
	"github.com/linekeeper/linekeeper/drivers/sparkplug"
)

var version = "dev"

// drivers is every driver in this binary.
func drivers() []sig.Kind {
	return []sig.Kind{opcua.Kind, mqtt.Kind, mes.Kind, rest.Kind, sparkplug.Kind, files.Kind}
}

// Exit codes of every command but status.
const (
	exitFailed = 1
	exitUsage  = 64
	exitConfig = 78
)

type cli struct {
	Config string `short:"c" default:"${config}" env:"PLANTAGENT_CONFIG" help:"Configuration file." placeholder:"FILE"`

	Init      initCmd     `cmd:"" help:"Lead from nothing to a first fact: ask, look at the sources, write the configuration, try it."`
	Run       runCmd      `cmd:"" help:"Run the agent in this window until Ctrl-C."`
	Check     checkCmd    `cmd:"" help:"Check the configuration without touching the network."`
	Status    statusCmd   `cmd:"" help:"Say how the running agent is. Exit code: 0 ok, 1 degraded, 2 offline and buffering, 3 losing data, 4 not running."`
	Doctor    doctorCmd   `cmd:"" help:"Go the way to each source and to the hub step by step and say which side refuses, and why. Exit code: 0 all works, 1 something does not."`
	Discover  discoverCmd `cmd:"" help:"Ask what is at an address how it can be reached, and print the configuration for it."`
	Browse    browseCmd   `cmd:"" help:"List what a source has to offer: nodes, tables, topics."`
	Trust     trustCmd    `cmd:"" help:"List the OPC UA server certificates that were refused, or trust one by its fingerprint."`
	Token     tokenCmd    `cmd:"" help:"Print the token for the admin's part of the agent's page."`
	Trace     traceCmd    `cmd:"" help:"Show live what the rules make of each value, and why."`
	Record    recordCmd   `cmd:"" help:"Let the agent record what its rules are given, to try a change of the rules on it."`
	Replay    replayCmd   `cmd:"" help:"Run a recording through changed rules and print how the facts differ. Exit code: 0 they do not, 1 they do."`
	Drill     drillCmd    `cmd:"" help:"Show that nothing is lost and nothing doubled: run the agent through disasters on a copy of the configuration."`
	Buffer    bufferCmd   `cmd:"" help:"Look into the buffer, check it, and carry its records to the hub by hand."`
	Salvage   salvageCmd  `cmd:"" name:"salvage-segment" hidden:"" passthrough:"" help:"Read a damaged buffer file; the agent starts it."`
	Drilled   drilledCmd  `cmd:"" name:"drill-agent" hidden:"" help:"The agent that a drill runs."`
	Sample    sampleCmd   `cmd:"" help:"Print a commented configuration to start from."`
	Install   installCmd  `cmd:"" help:"Install the agent as a service of this machine."`
	Start     startCmd    `cmd:"" help:"Start the service."`
	Stop      stopCmd     `cmd:"" help:"Stop the service."`
	Uninstall removeCmd   `cmd:"" help:"Stop and remove the service; configuration and data stay."`
	Service   runSvcCmd   `cmd:"" hidden:"" help:"Run under the service manager."`
	Version   versionCmd  `cmd:"" help:"Print the version."`
}

type env struct {
	cli *cli
	out io.Writer
	err io.Writer
}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, out, errOut io.Writer) int {
	var c cli
	code := -1
	parser, err := kong.New(&c,
		kong.Name("plantagent"),
		kong.Description("Linekeeper plant agent. Example: plantagent init -c plantagent.yaml leads to a first fact, then plantagent run -c plantagent.yaml"),
		kong.Vars{"config": defaultConfigPath()},
		kong.Writers(out, errOut),
		kong.Exit(func(n int) { code = n }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
	if err != nil {
		fmt.Fprintln(errOut, "plantagent:", err)
		return exitFailed
	}
	k, err := parser.Parse(args)
	if code >= 0 {
		return code // help was printed
	}
	if err != nil {
		fmt.Fprintln(errOut, "plantagent:", err)
		fmt.Fprintln(errOut, "Run plantagent --help to see the commands.")
		return exitUsage
	}
	err = k.Run(&env{cli: &c, out: out, err: errOut})
	var own exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &own):
		return int(own)
	case isConfig(err):
		fmt.Fprintln(errOut, "plantagent:", err)
		return exitConfig
	}
	fmt.Fprintln(errOut, "plantagent:", err)
	return exitFailed
}

// examples are the part of a command's help that shows how it is called, and what else is worth knowing.
func examples(about string, lines ...string) string {
	text := "Example:\n\n    " + strings.Join(lines, "\n    ") // an indented block keeps its lines
	if about != "" {
		text += "\n\n" + about
	}
	return text
}

// exitError ends the command with a code of its own; everything was said already.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// configError is a fault of the configuration.
type configError struct{ error }

func (e configError) Unwrap() error { return e.error }

func isConfig(err error) bool {
	var own configError
	return errors.Is(err, agent.ErrConfig) || errors.As(err, &own)
}

// file is the configuration file: the agent's own keys, and sources whose keys belong to their drivers.
type file struct {
	agent.Config `yaml:",inline"`
	Sources      []config.Section `yaml:"sources"`
}

func load(path string) (agent.Config, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return agent.Config{}, configError{fmt.Errorf("read configuration: %w (name it with --config, or start from `plantagent sample`)", err)}
	}
	var f file
	if err := config.Parse(path, raw, &f); err != nil {
		return agent.Config{}, configError{err}
	}
	cfg := f.Config
	cfg.Path, cfg.Lines = path, config.Lines(raw)
	for _, s := range f.Sources {
		cfg.Sources = append(cfg.Sources, agent.SourceConfig{Name: s.Name, Kind: s.Kind, Line: s.Line, Decode: decoder(s)})
	}
	return cfg, nil
}

// decoder gives the faults of a source's section their lines in the agent's words.
func decoder(s config.Section) func(into any) error {
	return func(into any) error {
		err := s.Decode(into)
		var found *config.Faults
		if !errors.As(err, &found) {
			return err
		}
		var list agent.Faults
		for _, f := range found.List {
			list = append(list, agent.Fault{Line: f.Line, Text: f.Text, Hint: f.Hint})
		}
		return list
	}
}

func logger(c agent.LogConfig, w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo // it is empty: Check has seen to the others
	}
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

type runCmd struct{}

func (runCmd) Help() string { return examples("", "plantagent run -c plantagent.yaml") }

func (runCmd) Run(e *env) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return e.work(ctx)
}

// work runs the agent until ctx ends.
func (e *env) work(ctx context.Context) error {
	// The live heap is a few megabytes: collecting it half as often takes a fifth of the processor off a busy line and some
	// ten megabytes more while it is busy, none at rest.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(200)
	}
	cfg, err := load(e.cli.Config)
	if err != nil {
		return err
	}
	a, err := agent.New(cfg, agent.Options{Version: version, Logger: logger(cfg.Log, e.err), Kinds: drivers(), Salvager: salvager(), Admin: adminOptions(e.cli.Config)})
	if err != nil {
		return err
	}
	fmt.Fprintf(e.out, "operator's page: http://%s\n", a.Addr())
	forgetStart()
	return a.Run(ctx)
}

type runSvcCmd struct{}

func (runSvcCmd) Help() string {
	return examples("", "plantagent service --config /etc/linekeeper/plantagent.yaml")
}

func (runSvcCmd) Run(e *env) error { return runService(e.work) }

type checkCmd struct{}

func (checkCmd) Help() string {
	return examples("Each fault stands on a line of its own with file, line and what to do; the exit code is then 78.", "plantagent check -c plantagent.yaml")
}

func (checkCmd) Run(e *env) error {
	cfg, err := load(e.cli.Config)
	if err != nil {
		return err
	}
	faults := cfg.Check(drivers())
	for _, f := range faults {
		fmt.Fprintln(e.err, strings.ReplaceAll(f.At(e.cli.Config), "\n", "\n  "))
	}
	if len(faults) > 0 {
		fmt.Fprintf(e.err, "%d %s\n", len(faults), plural(len(faults), "fault"))
		return exitError(exitConfig)
	}
	e.noteMissing(cfg)
	fmt.Fprintf(e.out, "%s is valid: plant %s, agent %s, %d %s, %d %s\n", e.cli.Config, cfg.Plant, cfg.Agent,
		len(cfg.Sources), plural(len(cfg.Sources), "source"), len(cfg.Rules), plural(len(cfg.Rules), "rule"))
	return nil
}

// noteMissing warns of files that the line to the hub needs. It is no fault: the agent collects without them and reads them
// at each connect.
func (e *env) noteMissing(cfg agent.Config) {
	for _, f := range []struct{ key, path string }{{"ca_file", cfg.Hub.CAFile}, {"cert_file", cfg.Hub.CertFile}, {"key_file", cfg.Hub.KeyFile}} {
		if f.path == "" {
			continue
		}
		if _, err := os.Stat(f.path); err != nil {
			fmt.Fprintf(e.err, "warning: hub.%s: %v: the agent will collect, but not reach the hub\n", f.key, err)
		}
	}
}

func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

type versionCmd struct {
	JSON bool `help:"Print JSON."`
}

func (versionCmd) Help() string { return examples("", "plantagent version --json") }

func (v versionCmd) Run(e *env) error {
	if v.JSON {
		return json.NewEncoder(e.out).Encode(map[string]string{"version": version, "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH})
	}
	fmt.Fprintf(e.out, "plantagent %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return nil
}

type (
	installCmd struct{}
	startCmd   struct{}
	stopCmd    struct{}
	removeCmd  struct{}
)

func (installCmd) Help() string {
	return examples("", "plantagent install --config /etc/linekeeper/plantagent.yaml")
}
func (startCmd) Help() string  { return examples("", "plantagent start") }
func (stopCmd) Help() string   { return examples("", "plantagent stop") }
func (removeCmd) Help() string { return examples("", "plantagent uninstall") }

// Run refuses to install a configuration that cannot work: the service would only fail later, unseen.
func (installCmd) Run(e *env) error {
	if err := (checkCmd{}).Run(e); err != nil {
		return err
	}
	cfg, err := load(e.cli.Config)
	if err != nil {
		return err
	}
	cfg.Check(nil) // fills the data folder's default
	return control(e.cli.Config, cfg.DataDir, "install", e.out)
}
func (startCmd) Run(e *env) error  { return control(e.cli.Config, "", "start", e.out) }
func (stopCmd) Run(e *env) error   { return control(e.cli.Config, "", "stop", e.out) }
func (removeCmd) Run(e *env) error { return control(e.cli.Config, "", "uninstall", e.out) }
