package setup

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	yaml "go.yaml.in/yaml/v4"

	"github.com/linekeeper/linekeeper/agent"
	"github.com/linekeeper/linekeeper/agent/signal"
)

// Certificate is one that was refused and waits for a decision.
type Certificate struct{ Fingerprint, About string }

// Deps are what the command hands in.
type Deps struct {
	Kinds []signal.Kind
	// In is where a person types; nil when there are answers only. Out is where everything is said.
	In     io.Reader
	Out    io.Writer
	Logger *slog.Logger
	// Decode fills a driver's configuration from its section, refusing unknown keys.
	Decode func(section *yaml.Node, into any) error
	// Load reads a configuration file.
	Load func(path string) (agent.Config, error)
	// Trust and Rejected work on the trust list in a source's folder.
	Trust    func(kind, dir, fingerprint string) error
	Rejected func(kind, dir string) ([]Certificate, error)
	// Options of the agent that is tried at the end.
	Options agent.Options
}

// Options of Run.
type Options struct {
	// Path is the file to write; Force writes it over one that exists, which is kept beside it with the ending .bak.
	Path  string
	Force bool
	// Answers that are known; nil asks for all. With Deps.In they are proposals for the rest.
	Answers *Answers
	// Try is how long to run the agent until a first fact is there; zero does not run it.
	Try time.Duration
}

// setup is one run.
type setup struct {
	deps    Deps
	o       Options
	answers Answers
	person  *person
	last    map[string]string // what was said of a source's last try
}

// Run leads to a configuration and, when it is to try, to a first fact. Whatever fails before the file is written leaves no file.
func Run(ctx context.Context, deps Deps, o Options) error {
	s := &setup{deps: deps, o: o, last: map[string]string{}}
	if deps.In != nil {
		s.person = &person{in: bufio.NewScanner(deps.In), out: deps.Out}
	}
	if o.Answers != nil {
		s.answers = *o.Answers
	}
	if _, err := os.Stat(o.Path); err == nil && !o.Force {
		return fmt.Errorf("%s exists: move it away, name another file with --config, or say --force to replace it (the old one is kept)", o.Path)
	}
	if s.person != nil {
		if err := s.askPlant(); err != nil {
			return err
		}
	}
	if err := cmp.Or(s.answers.checkPlant(), os.MkdirAll(s.dir(), 0o755)); err != nil {
		return err
	}
	var sources []*found
	for _, src := range s.answers.Sources {
		f, err := s.setUp(ctx, src)
		if err != nil {
			return err
		}
		sources = append(sources, f)
	}
	for s.person != nil {
		src, err := s.askSource(len(sources))
		if err != nil {
			return err
		}
		if src.Name == "" {
			break
		}
		f, err := s.setUp(ctx, src)
		if errors.Is(err, errNoAnswer) {
			return err
		}
		if err != nil {
			s.say("  %v", err)
			continue
		}
		sources = append(sources, f)
	}
	if len(sources) == 0 {
		return errors.New("no source was set up: nothing was written")
	}
	if err := s.write(s.compose(sources)); err != nil {
		return err
	}
	return s.try(ctx)
}

func (s *setup) say(format string, args ...any) { fmt.Fprintf(s.deps.Out, format+"\n", args...) }

func (s *setup) dir() string { return filepath.Dir(s.o.Path) }

func (s *setup) dataDir() string {
	dir := cmp.Or(s.answers.DataDir, "data")
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(s.dir(), dir)
	}
	return dir
}

func (s *setup) askPlant() error {
	a := &s.answers
	s.say("This asks a few questions, looks at your sources, and writes %s. Nothing is changed at any source.", s.o.Path)
	for _, q := range []struct {
		into               *string
		question, proposal string
		ok                 func(string) error
	}{
		{&a.Plant, "Plant (the ISA-95 site; part of every fact's key, never to be changed later)", "", needed},
		{&a.Agent, "Name of this installation", "line1", needed},
		{&a.TimeZone, "Time zone of the plant", localZone(), func(text string) error {
			_, err := time.LoadLocation(text)
			return err
		}},
		{&a.Hub.Address, "Address of the hub, host:port (empty: none yet)", "", nil},
	} {
		if *q.into != "" {
			continue
		}
		var err error
		if *q.into, err = s.person.ask(q.question, q.proposal, q.ok); err != nil {
			return err
		}
	}
	if a.Hub.Address == "" || a.Hub.Credentials != "" {
		return nil
	}
	var err error
	a.Hub.Credentials, err = s.person.ask("Folder with ca.pem, agent.pem and agent.key (made by `synchub cert agent`)", ".", nil)
	return err
}

// localZone is this computer's zone by its name, as far as it has one.
func localZone() string {
	if name := time.Local.String(); name != "Local" {
		return name
	}
	if to, err := filepath.EvalSymlinks("/etc/localtime"); err == nil {
		if _, name, ok := strings.Cut(filepath.ToSlash(to), "zoneinfo/"); ok {
			return name
		}
	}
	return "UTC"
}

func (s *setup) askSource(n int) (src Source, err error) {
	kinds := []string{"no more sources"}
	for _, k := range s.deps.Kinds {
		kinds = append(kinds, k.Name)
	}
	s.say("")
	i, err := s.person.choose("What shall be read?", kinds, min(1, 1-min(n, 1)))
	if err != nil || i == 0 {
		return Source{}, err
	}
	src.Kind = kinds[i]
	if src.Name, err = s.person.ask("A name for it", fmt.Sprintf("%s%d", src.Kind, n+1), needed); err != nil {
		return src, err
	}
	src.Address, err = s.person.ask("Its address (a host, host:port, a whole address, a path)", "", needed)
	return src, err
}

func (a *Answers) checkPlant() error {
	if a.Plant == "" || a.Agent == "" {
		return errors.New("plant and agent are needed")
	}
	return nil
}

// write puts the file there in one step, after it was checked like any configuration.
func (s *setup) write(text string) error {
	tmp := s.o.Path + ".new"
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	cfg, err := s.deps.Load(tmp)
	if err != nil {
		return fmt.Errorf("what was put together is no configuration; it stays in %s: %w", tmp, err)
	}
	if faults := cfg.Check(s.deps.Kinds); len(faults) > 0 {
		var list []error
		for _, f := range faults {
			list = append(list, errors.New(f.At(tmp)))
		}
		return fmt.Errorf("the configuration has faults; mend them in %s: %w", tmp, errors.Join(list...))
	}
	if _, err := os.Stat(s.o.Path); err == nil {
		if err := os.Rename(s.o.Path, s.o.Path+".bak"); err != nil {
			return fmt.Errorf("keep the old configuration: %w", err)
		}
	}
	if err := os.Rename(tmp, s.o.Path); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	s.say("\nwrote %s: %d %s, %d %s", s.o.Path, len(cfg.Sources), plural(len(cfg.Sources), "source"), len(cfg.Rules), plural(len(cfg.Rules), "rule"))
	return nil
}
