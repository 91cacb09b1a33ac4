package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	yaml "go.yaml.in/yaml/v4"

	"github.com/linekeeper/linekeeper/agent"
	"github.com/linekeeper/linekeeper/agent/localui"
	"github.com/linekeeper/linekeeper/agent/setup"
	"github.com/linekeeper/linekeeper/cmd/config"
	"github.com/linekeeper/linekeeper/drivers/opcua"
)

type initCmd struct {
	Answers string        `help:"File with the answers; nothing is asked then." placeholder:"FILE" type:"existingfile"`
	Force   bool          `help:"Replace a configuration that exists; the old one is kept beside it."`
	Try     time.Duration `default:"3m" help:"How long to run the agent until a first fact is there; 0 only writes the file."`
}

func (initCmd) Help() string {
	return examples("Asks for plant, hub and sources, looks at each source, lets you pick tags, proposes rules, writes the configuration and runs the agent until a first fact is there. Nothing is changed at any source. With --answers the same goes by itself, for many plants.",
		"plantagent init -c plantagent.yaml", "plantagent init -c plantagent.yaml --answers answers.yaml")
}

// Run asks or reads the answers, and leads to a first fact.
func (i initCmd) Run(e *env) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(e.err, &slog.HandlerOptions{Level: slog.LevelError}))
	deps := setup.Deps{
		Kinds: drivers(), Out: e.out, Logger: log, Load: load, Trust: trustCertificate, Rejected: rejectedCertificates,
		Decode:  func(section *yaml.Node, into any) error { return config.Strict(section, into) },
		Options: agent.Options{Version: version, Logger: log, Kinds: drivers(), Salvager: salvager()},
	}
	path, err := filepath.Abs(e.cli.Config)
	if err != nil {
		return err
	}
	o := setup.Options{Path: path, Force: i.Force, Try: i.Try}
	if i.Answers == "" {
		deps.In = os.Stdin
		return setup.Run(ctx, deps, o)
	}
	raw, err := os.ReadFile(i.Answers)
	if err != nil {
		return fmt.Errorf("read answers: %w", err)
	}
	if o.Answers, err = setup.ReadAnswers(raw); err != nil {
		return configError{fmt.Errorf("%s: %w", i.Answers, err)}
	}
	return setup.Run(ctx, deps, o)
}

// trustCertificate and rejectedCertificates work on the trust list in a source's folder.
func trustCertificate(kind, dir, fingerprint string) error {
	if kind != opcua.Kind.Name {
		return fmt.Errorf("a source of kind %q has no trust list: name its certificate authority in the configuration", kind)
	}
	return opcua.Trust(dir, fingerprint)
}

// adminOptions are what an admin can do on the page.
func adminOptions(path string) agent.AdminOptions {
	return agent.AdminOptions{
		Adopt: func(p localui.Proposal) (string, error) { return adopt(path, p) },
		Trust: trustCertificate,
		Refused: func(kind, dir string) (list []localui.Refused, err error) {
			found, err := rejectedCertificates(kind, dir)
			for _, c := range found {
				list = append(list, localui.Refused{Fingerprint: c.Fingerprint, About: c.About})
			}
			return list, err
		},
	}
}

func rejectedCertificates(kind, dir string) ([]setup.Certificate, error) {
	if kind != opcua.Kind.Name {
		return nil, nil
	}
	found, err := opcua.ListRejected(dir)
	if err != nil {
		return nil, err
	}
	var list []setup.Certificate
	for _, c := range found {
		list = append(list, setup.Certificate{Fingerprint: c.Fingerprint,
			About: fmt.Sprintf("%s, valid until %s", cmp.Or(c.Subject, c.ApplicationURI), c.NotAfter.Local().Format(time.DateOnly))})
	}
	return list, nil
}
