package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent"
	sig "github.com/linekeeper/linekeeper/agent/signal"
)

// quiet is a page that nobody looks at.
type quiet struct{}

func (quiet) State(sig.State, string)      {}
func (quiet) Problem(string, *sig.Problem) {}

// sourceKind is the driver of a source.
func sourceKind(s agent.SourceConfig) (sig.Kind, error) {
	kinds := drivers()
	i := slices.IndexFunc(kinds, func(k sig.Kind) bool { return k.Name == s.Kind })
	if i < 0 {
		return sig.Kind{}, fmt.Errorf("source %q: kind %q is not known", s.Name, s.Kind)
	}
	return kinds[i], nil
}

// openSource makes a source's driver beside the one that a running agent may have. It works in the same folder, so that a
// certificate which it makes or meets is the agent's; close gives what it made there to whom the folder belongs.
func openSource(cfg agent.Config, s agent.SourceConfig) (d sig.Driver, close func(), err error) {
	kind, err := sourceKind(s)
	if err != nil {
		return nil, nil, err
	}
	dir := filepath.Join(cfg.DataDir, "sources", s.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("source %q: %w (run this as the user that the agent runs as, or as administrator)", s.Name, err)
	}
	d, err = kind.New(sourceEnv(cfg, s.Name, dir), s.Decode)
	if err != nil {
		return nil, nil, configError{fmt.Errorf("source %q: %w", s.Name, err)}
	}
	return d, func() { giveBack(cfg.DataDir) }, nil
}

// sourceEnv is what a driver is given by a command.
func sourceEnv(cfg agent.Config, name, dir string) sig.Env {
	zone, err := time.LoadLocation(cfg.TimeZone)
	if err != nil {
		zone = time.UTC // Check tells it
	}
	return sig.Env{Plant: cfg.Plant, Agent: cfg.Agent, Source: name, Dir: dir, ConfigDir: filepath.Dir(cfg.Path), Zone: zone,
		Reporter: quiet{}, Logger: slog.New(slog.DiscardHandler)} // what it would say stands in its answers
}

// pick returns the source of a name, or the only one there is.
func pick(cfg agent.Config, name string) (agent.SourceConfig, error) {
	var names []string
	for _, s := range cfg.Sources {
		if s.Name == name {
			return s, nil
		}
		names = append(names, s.Name)
	}
	if len(names) == 0 {
		return agent.SourceConfig{}, configError{errors.New("the configuration has no sources")}
	}
	return agent.SourceConfig{}, fmt.Errorf("there is no source %q: there are %s", name, strings.Join(names, ", "))
}
