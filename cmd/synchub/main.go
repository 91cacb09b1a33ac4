// Command synchub is Linekeeper's sync hub: it stores what plant agents send, posts it to the ERP once, and brings work
// orders to the plants.
//
// It owns flags, signals, exit codes and the list of connectors. It promises exit codes that scripts can use: 0 done, 1
// failed, 64 wrong usage, 75 another hub has the store, 78 wrong configuration. It never holds logic of the hub itself.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	_ "time/tzdata" // Windows has no zone database of its own

	"github.com/alecthomas/kong"

	"github.com/linekeeper/linekeeper/cmd/config"
	"github.com/linekeeper/linekeeper/hub"
	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/d365"
	"github.com/linekeeper/linekeeper/hub/connector/erpnext"
	"github.com/linekeeper/linekeeper/hub/connector/filedrop"
	"github.com/linekeeper/linekeeper/hub/connector/idoc"
	"github.com/linekeeper/linekeeper/hub/connector/odoo"
	"github.com/linekeeper/linekeeper/hub/connector/oracle"
	"github.com/linekeeper/linekeeper/hub/connector/restapi"
	"github.com/linekeeper/linekeeper/hub/connector/s4"
	"github.com/linekeeper/linekeeper/hub/connector/sandbox"
	"github.com/linekeeper/linekeeper/hub/connector/sqltables"
	"github.com/linekeeper/linekeeper/hub/connector/tryton"
	"github.com/linekeeper/linekeeper/hub/store"
)

var version = "dev"

// connectors is every connector in this binary.
func connectors() []hub.ConnectorKind {
	return []hub.ConnectorKind{
		{Name: "tryton", Sample: trytonSample, New: func(name, dir string, decode func(any) error) (connector.Connector, error) {
			cfg := tryton.Config{Name: name}
			if err := decode(&cfg); err != nil {
				return nil, err
			}
			cfg.PasswordFile = beside(dir, cfg.PasswordFile)
			return tryton.New(cfg)
		}},
		{Name: "s4", Sample: s4.Sample, New: func(name, dir string, decode func(any) error) (connector.Connector, error) {
			cfg := s4.Config{Name: name}
			if err := decode(&cfg); err != nil {
				return nil, err
			}
			cfg.PasswordFile, cfg.CAFile = beside(dir, cfg.PasswordFile), beside(dir, cfg.CAFile)
			return s4.New(cfg)
		}},
		{Name: "idoc", Sample: idoc.Sample, New: func(name, dir string, decode func(any) error) (connector.Connector, error) {
			cfg := idoc.Config{Name: name}
			if err := decode(&cfg); err != nil {
				return nil, err
			}
			for _, folder := range []*string{&cfg.In, &cfg.Answers, &cfg.Out, &cfg.Sent} {
				*folder = beside(dir, *folder)
			}
			return idoc.New(cfg)
		}},
		{Name: "sql", Sample: sqltables.Sample, New: func(name, dir string, decode func(any) error) (connector.Connector, error) {
			cfg := sqltables.Config{Name: name}
			if err := decode(&cfg); err != nil {
				return nil, err
			}
			cfg.DSNFile = beside(dir, cfg.DSNFile)
			return sqltables.New(cfg)
		}},
		{Name: "rest", Sample: restapi.Sample, New: func(name, dir string, decode func(any) error) (connector.Connector, error) {
			cfg := restapi.Config{Name: name}
			if err := decode(&cfg); err != nil {
				return nil, err
			}
			for _, file := range cfg.Files() {
				*file = beside(dir, *file)
			}
			return restapi.New(cfg)
		}},
		{Name: "files", Sample: filedrop.Sample, New: func(name, dir string, decode func(any) error) (connector.Connector, error) {
			cfg := filedrop.Config{Name: name}
			if err := decode(&cfg); err != nil {
				return nil, err
			}
			for _, file := range cfg.Local() {
				*file = beside(dir, *file)
			}
			return filedrop.New(cfg)
		}},
		{Name: "d365", Sample: d365.Sample, New: func(name, dir string, decode func(any) error) (connector.Connector, error) {
			cfg := d365.Config{Name: name}
			if err := decode(&cfg); err != nil {
				return nil, err
			}
			cfg.ClientSecretFile = beside(dir, cfg.ClientSecretFile)
			return d365.New(cfg)
		}},
		{Name: "oracle", Sample: oracle.Sample, New: func(name, dir string, decode func(any) error) (connector.Connector, error) {
			cfg := oracle.Config{Name: name}
			if err := decode(&cfg); err != nil {
				return nil, err
			}
			cfg.PasswordFile = beside(dir, cfg.PasswordFile)
			return oracle.New(cfg)
		}},
		{Name: "erpnext", Sample: erpnext.Sample, New: func(name, dir string, decode func(any) error) (connector.Connector, error) {
			cfg := erpnext.Config{Name: name}
			if err := decode(&cfg); err != nil {
				return nil, err
			}
			cfg.PasswordFile = beside(dir, cfg.PasswordFile)
			return erpnext.New(cfg)
		}},
		{Name: "odoo", Sample: odoo.Sample, New: func(name, dir string, decode func(any) error) (connector.Connector, error) {
			cfg := odoo.Config{Name: name}
			if err := decode(&cfg); err != nil {
				return nil, err
			}
			cfg.PasswordFile = beside(dir, cfg.PasswordFile)
			return odoo.New(cfg)
		}},
		{Name: "sandbox", Sample: sandboxSample, New: func(name, dir string, decode func(any) error) (connector.Connector, error) {
			cfg := sandbox.Config{Name: name}
			if err := decode(&cfg); err != nil {
				return nil, err
			}
			cfg.PasswordFile = beside(dir, cfg.PasswordFile)
			return sandbox.New(cfg)
		}},
	}
}

// beside finds a file whose relative name starts at the configuration's folder.
func beside(dir, file string) string {
	if file == "" || filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(dir, file)
}

// Exit codes.
const (
	exitFailed = 1
	exitUsage  = 64
	exitLocked = 75
	exitConfig = 78
)

type cli struct {
	Config string `short:"c" default:"hub.yaml" env:"SYNCHUB_CONFIG" help:"Configuration file." placeholder:"FILE"`

	Serve     serveCmd     `cmd:"" help:"Run the hub until Ctrl-C."`
	Check     checkCmd     `cmd:"" help:"Check the configuration without touching the network."`
	Sample    sampleCmd    `cmd:"" help:"Print a commented configuration to start from."`
	Cert      certCmd      `cmd:"" help:"Make the hub's certificate authority and certificates."`
	Token     tokenCmd     `cmd:"" help:"Make a token for the API: prints the secret once, and what to put into the configuration."`
	Agents    agentsCmd    `cmd:"" help:"List the plant agents and how they are."`
	Fact      factCmd      `cmd:"" help:"Show a fact's whole life by its key."`
	Inbox     inboxCmd     `cmd:"" help:"List everything that a person must see to: whose it is, what it is worth, what is proposed."`
	Replay    replayCmd    `cmd:"" help:"Take up parked postings again, after what was wrong has been mended."`
	Reconcile reconcileCmd `cmd:"" help:"Print what plant and ERP say of the same orders, from the sums down to the single counter range and document."`
	Mapping   mappingCmd   `cmd:"" help:"Units, items, sites and codes of plants and ERPs: versions, dry run, approval by somebody else, return."`
	Notify    notifyCmd    `cmd:"" help:"Messages to people about exceptions: send a test message."`
	Import    importCmd    `cmd:"" help:"Take facts of a plant without a line, which plantagent buffer export wrote, and write the answer."`
	Version   versionCmd   `cmd:"" help:"Print the version."`
}

// usage is a mistake in the command line that the parser cannot see.
type usage string

func (u usage) Error() string { return string(u) }

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
		kong.Name("synchub"),
		kong.Description("Linekeeper sync hub. Example: synchub check -c hub.yaml && synchub serve -c hub.yaml"),
		kong.Writers(out, errOut),
		kong.Exit(func(n int) { code = n }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
	if err != nil {
		fmt.Fprintln(errOut, "synchub:", err)
		return exitFailed
	}
	k, err := parser.Parse(args)
	if code >= 0 {
		return code // help was printed
	}
	if err != nil {
		fmt.Fprintln(errOut, "synchub:", err)
		fmt.Fprintln(errOut, "Run synchub --help to see the commands.")
		return exitUsage
	}
	if err := k.Run(&env{cli: &c, out: out, err: errOut}); err != nil {
		fmt.Fprintln(errOut, "synchub:", err)
		var f *config.Faults
		var u usage
		if errors.As(err, &u) {
			return exitUsage
		}
		if errors.Is(err, hub.ErrConfig) || errors.As(err, &f) || errors.Is(err, os.ErrNotExist) {
			return exitConfig
		}
		if errors.Is(err, store.ErrLocked) || errors.Is(err, store.ErrTakenOver) {
			return exitLocked
		}
		return exitFailed
	}
	return 0
}

// file is the configuration file: the hub's own keys, and ERPs whose keys belong to their connectors.
type file struct {
	hub.Config `yaml:",inline"`
	ERPs       []config.Section `yaml:"erps"`
}

func load(path string) (hub.Config, error) {
	var f file
	if err := config.Read(path, &f); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return hub.Config{}, fmt.Errorf("%w (name it with --config, or start from `synchub sample`)", err)
		}
		return hub.Config{}, err
	}
	cfg := f.Config
	cfg.Path = path
	for _, s := range f.ERPs {
		cfg.ERPs = append(cfg.ERPs, hub.ERPConfig{Name: s.Name, Kind: s.Kind, Line: s.Line, Decode: s.Decode})
	}
	return cfg, nil
}

type serveCmd struct{}

func (serveCmd) Run(e *env) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The live heap of a small hub is some ten megabytes, which a busy line would have collected many times a second. Memory that
	// is never touched, and so never taken, lets 40 MB of garbage gather first; a large fleet's heap grows no more by it.
	ballast := make([]byte, 32<<20)
	defer runtime.KeepAlive(ballast)
	cfg, err := load(e.cli.Config)
	if err != nil {
		return err
	}
	h, err := hub.New(ctx, cfg, hub.Options{Version: version, Logger: logger(cfg.Log, e.err), Kinds: connectors()})
	if err != nil {
		return err
	}
	fmt.Fprintf(e.out, "console and API: %s\nagents: %s\n", h.URL(), h.GRPCAddr())
	return h.Run(ctx)
}

func logger(c hub.LogConfig, w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo
	}
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

type checkCmd struct{}

func (checkCmd) Run(e *env) error {
	cfg, err := load(e.cli.Config)
	if err != nil {
		return err
	}
	faults := cfg.Check(connectors())
	if len(faults) == 0 {
		fmt.Fprintf(e.out, "%s is valid. Plants: %d, ERPs: %d, routes: %d\n", e.cli.Config, len(cfg.Plants), len(cfg.ERPs), len(cfg.Routes))
		return nil
	}
	lines := make([]string, len(faults))
	for i, f := range faults {
		at := e.cli.Config
		if f.Line > 0 {
			at = fmt.Sprintf("%s:%d", at, f.Line)
		}
		lines[i] = at + ": " + f.String()
	}
	return fmt.Errorf("%w is not valid\n%s", hub.ErrConfig, strings.Join(lines, "\n"))
}

type versionCmd struct{}

func (versionCmd) Run(e *env) error {
	fmt.Fprintln(e.out, version)
	return nil
}
