package setup

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	yaml "go.yaml.in/yaml/v4"

	"github.com/linekeeper/linekeeper/agent/propose"
	"github.com/linekeeper/linekeeper/agent/signal"
)

// found is a source that was looked at.
type found struct {
	Source
	kind    signal.Kind
	section *yaml.Node // its keys, tags among them at the end
	tags    []propose.Tag
	dir     string
}

// setUp goes the whole way of one source: find it, get in, pick tags.
func (s *setup) setUp(ctx context.Context, src Source) (*found, error) {
	kind, err := s.kind(src.Kind)
	if err != nil {
		return nil, err
	}
	f := &found{Source: src, kind: kind, dir: filepath.Join(s.dataDir(), "sources", src.Name)}
	s.say("\n%s (%s)", src.Name, src.Kind)
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder of source %q: %w", src.Name, err)
	}
	if err := s.discover(ctx, f); err != nil {
		return nil, fmt.Errorf("source %q: %w", src.Name, err)
	}
	if s.person != nil {
		if err := s.askSection(f); err != nil {
			return nil, err
		}
	}
	if err := s.getIn(ctx, f); err != nil {
		return nil, fmt.Errorf("source %q: %w", src.Name, err)
	}
	if err := s.pick(ctx, f); err != nil {
		return nil, fmt.Errorf("source %q: %w", src.Name, err)
	}
	return f, nil
}

func (s *setup) kind(name string) (signal.Kind, error) {
	var names []string
	for _, k := range s.deps.Kinds {
		if k.Name == name {
			return k, nil
		}
		names = append(names, k.Name)
	}
	return signal.Kind{}, fmt.Errorf("kind %q is unknown: write one of %s", name, strings.Join(names, ", "))
}

// discover looks at the address and takes one of the ways that are found there.
func (s *setup) discover(ctx context.Context, f *found) error {
	f.section = &yaml.Node{Kind: yaml.MappingNode}
	if f.Source.Section.Kind == yaml.MappingNode {
		own := f.Source.Section
		f.section.Content = slices.Clone(own.Content)
	}
	if f.Address == "" {
		return nil
	}
	if f.kind.Discover == nil {
		return fmt.Errorf("a source of kind %q cannot be looked for: give its keys under section", f.Kind)
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var offers []signal.Offer
	err := s.patiently(ctx, f, func() error {
		var err error
		if offers, err = f.kind.Discover(ctx, s.env(f), f.Address); err == nil && len(offers) == 0 {
			err = fmt.Errorf("nothing of kind %q answers at %q", f.Kind, f.Address)
		}
		return err
	})
	if err != nil {
		return err
	}
	offer, err := s.chooseOffer(f, offers)
	if err != nil {
		return err
	}
	s.say("  takes %s", offer.Title)
	for _, n := range offer.Notes {
		s.say("  note: %s", n)
	}
	return f.merge(offer.Section)
}

func (s *setup) chooseOffer(f *found, offers []signal.Offer) (signal.Offer, error) {
	if s.person != nil && f.Offer == "" {
		var titles []string
		for _, o := range offers {
			if title := o.Title; o.Secure {
				titles = append(titles, title)
			} else {
				titles = append(titles, title+"   (not encrypted)")
			}
		}
		i, err := s.person.choose("Which way shall the agent take?", titles, 0)
		if err != nil {
			return signal.Offer{}, err
		}
		return offers[i], nil
	}
	var titles []string
	for _, o := range offers {
		if f.Offer != "" && !strings.Contains(o.Title, f.Offer) && !strings.Contains(o.Section, f.Offer) {
			titles = append(titles, o.Title)
			continue
		}
		if f.Offer == "" && !o.Secure && !f.Insecure {
			return o, fmt.Errorf("the best way at %q does not encrypt (%s): write insecure: true to take it", f.Address, o.Title)
		}
		return o, nil
	}
	return signal.Offer{}, fmt.Errorf("no way at %q is called %q; there are: %s", f.Address, f.Offer, strings.Join(titles, "; "))
}

// merge adds the keys of a section as YAML that are not there yet.
func (f *found) merge(text string) error {
	var doc yaml.Node
	if err := yaml.Load([]byte(text), &doc); err != nil {
		return fmt.Errorf("read the section of an offer: %w", err)
	}
	if len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode {
		return nil
	}
	for i, add := 0, doc.Content[0].Content; i+1 < len(add); i += 2 {
		if f.value(add[i].Value) == nil {
			f.section.Content = append(f.section.Content, add[i], add[i+1])
		}
	}
	return nil
}

func (f *found) value(key string) *yaml.Node {
	for i := 0; i+1 < len(f.section.Content); i += 2 {
		if f.section.Content[i].Value == key {
			return f.section.Content[i+1]
		}
	}
	return nil
}

// set puts a key into the section, in place of what it was.
func (f *found) set(key string, value *yaml.Node) {
	for i := 0; i+1 < len(f.section.Content); i += 2 {
		if f.section.Content[i].Value == key {
			f.section.Content[i+1] = value
			return
		}
	}
	k := &yaml.Node{}
	k.SetString(key)
	f.section.Content = append(f.section.Content, k, value)
}

// askSection lets a person add keys, such as the user: what there is stands in the sample.
func (s *setup) askSection(f *found) error {
	s.say("Further keys of this source as YAML, one a line (for example \"user: {name: agent, password_file: press.secret}\" or")
	s.say("\"anonymous: true\"); `plantagent sample` explains all of them. An empty line ends.")
	for {
		line, err := s.person.ask(" ", "", func(text string) error {
			if text == "" {
				return nil
			}
			var doc yaml.Node
			if err := yaml.Load([]byte(text), &doc); err != nil {
				return fmt.Errorf("that is no YAML: %w", err)
			}
			if len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode {
				return errors.New("write a key, a colon and its value")
			}
			return nil
		})
		if err != nil || line == "" {
			return err
		}
		var doc yaml.Node
		if err := yaml.Load([]byte(line), &doc); err != nil {
			return err
		}
		for i, add := 0, doc.Content[0].Content; i+1 < len(add); i += 2 {
			f.set(add[i].Value, add[i+1])
		}
	}
}

func (s *setup) env(f *found) signal.Env {
	zone, err := time.LoadLocation(cmp.Or(s.answers.TimeZone, "UTC"))
	if err != nil {
		zone = time.UTC // the check of the whole file names it
	}
	return signal.Env{Plant: s.answers.Plant, Agent: s.answers.Agent, Source: f.Name, Dir: f.dir, ConfigDir: s.dir(), Zone: zone,
		Reporter: deaf{}, Logger: s.deps.Logger.With("source", f.Name)}
}

// deaf takes reports that nobody looks at.
type deaf struct{}

func (deaf) State(signal.State, string)      {}
func (deaf) Problem(string, *signal.Problem) {}

// driver makes the driver as far as its section goes.
func (s *setup) driver(f *found) (signal.Driver, error) {
	make := f.kind.Explore
	if make == nil {
		make = f.kind.New
	}
	return make(s.env(f), func(into any) error { return s.deps.Decode(f.section, into) })
}

// getIn tries the source step by step until every step goes well.
func (s *setup) getIn(ctx context.Context, f *found) error {
	d, err := s.driver(f)
	if err != nil {
		return err
	}
	prober, ok := d.(signal.Prober)
	if !ok {
		return nil
	}
	trusted := f.Trust == ""
	return s.patiently(ctx, f, func() error {
		var failed *signal.Step
		var said bytes.Buffer
		for _, step := range prober.Probe(ctx) {
			switch {
			case step.Problem == nil:
				fmt.Fprintf(&said, "  ok       %s%s\n", step.Name, aside(step.Detail))
			case step.Warning:
				fmt.Fprintf(&said, "  warning  %s: %s\n", step.Name, step.Problem.Reason)
			default:
				fmt.Fprintf(&said, "  failed   %s: %s\n           %s\n", step.Name, step.Problem.Reason, step.Problem.NextStep)
				failed = &step
			}
		}
		s.tried(f, said.String())
		if failed == nil {
			return nil
		}
		if !trusted {
			if err := s.deps.Trust(f.kind.Name, f.dir, f.Trust); err == nil {
				trusted = true
				s.say("  trusts the server's certificate %s", f.Trust)
				return errAgain
			}
		}
		if s.person != nil {
			if again, err := s.help(f); err != nil || again {
				return cmp.Or(err, errAgain)
			}
		}
		return fmt.Errorf("%s: %s (%s)", failed.Name, failed.Problem.Reason, failed.Problem.NextStep)
	})
}

// help shows a person the certificates that wait for a decision, and waits until it is tried again.
func (s *setup) help(f *found) (again bool, err error) {
	waiting, err := s.deps.Rejected(f.kind.Name, f.dir)
	if err != nil {
		return false, err
	}
	for _, c := range waiting {
		s.say("  This source showed a certificate that nobody trusts yet: %s", c.About)
		s.say("  Its SHA-256 fingerprint is %s", c.Fingerprint)
		yes, err := s.person.yes("  Compare it with the one that the machine shows. Trust it?", false)
		if err != nil {
			return false, err
		}
		if yes {
			return true, s.deps.Trust(f.kind.Name, f.dir, c.Fingerprint)
		}
	}
	return s.person.yes("  Try again?", true)
}

func aside(text string) string {
	if text == "" {
		return ""
	}
	return ": " + text
}

// tried prints what became of a try, unless it is the same as before.
func (s *setup) tried(f *found, text string) {
	if s.last[f.Name] != text {
		s.last[f.Name] = text
		fmt.Fprint(s.deps.Out, text)
	}
}

// errAgain asks for another try at once.
var errAgain = errors.New("try again")

// patiently tries something until it goes well or the source's time is over.
func (s *setup) patiently(ctx context.Context, f *found, try func() error) error {
	deadline := time.Now().Add(cmp.Or(f.Wait, time.Minute))
	for {
		err := try()
		switch {
		case err == nil, errors.Is(err, errNoAnswer):
			return err
		case errors.Is(err, errAgain):
			continue
		case s.person != nil || ctx.Err() != nil || time.Now().After(deadline):
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}
