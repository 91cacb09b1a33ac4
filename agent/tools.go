package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v4"

	"github.com/linekeeper/linekeeper/agent/localui"
	"github.com/linekeeper/linekeeper/agent/propose"
	"github.com/linekeeper/linekeeper/agent/signal"
)

// AdminOptions are what an admin can do on the page beside looking around; each may be nil.
type AdminOptions struct {
	// Adopt writes a proposal into the configuration file and says what to do for it to take effect.
	Adopt func(p localui.Proposal) (note string, err error)
	// Refused are the certificates in a source's folder that wait for a decision; Trust trusts one.
	Refused func(kind, dir string) ([]localui.Refused, error)
	Trust   func(kind, dir, fingerprint string) error
}

// adminTools are the page's tools for this agent.
func (a *Agent) adminTools(o AdminOptions) localui.Tools {
	t := localui.Tools{Browse: a.browse, Find: a.find, Propose: a.propose, Adopt: o.Adopt}
	t.Trace, t.StartRecording, t.StopRecording, t.Recording = a.Trace, a.StartRecording, a.StopRecording, a.Recording
	for _, s := range a.sources {
		if _, ok := s.driver.(signal.Browser); ok {
			t.Sources = append(t.Sources, s.name)
		}
	}
	if o.Refused != nil && o.Trust != nil {
		t.Certificates = func() (all []localui.Refused, err error) {
			for _, s := range a.sources {
				list, err := o.Refused(s.kind, a.cfg.sourceDir(s.name))
				if err != nil {
					return all, fmt.Errorf("source %q: %w", s.name, err)
				}
				for _, r := range list {
					r.Source = s.name
					all = append(all, r)
				}
			}
			return all, nil
		}
		t.Trust = func(name, fingerprint string) error {
			s, err := a.source(name)
			if err != nil {
				return err
			}
			a.log.Info("an admin trusts a certificate", "source", name, "fingerprint", fingerprint)
			return o.Trust(s.kind, a.cfg.sourceDir(name), fingerprint)
		}
	}
	return t
}

func (a *Agent) source(name string) (source, error) {
	i := slices.IndexFunc(a.sources, func(s source) bool { return s.name == name })
	if i < 0 {
		return source{}, fmt.Errorf("there is no source %q", name)
	}
	return a.sources[i], nil
}

func (a *Agent) browser(name string) (signal.Browser, error) {
	s, err := a.source(name)
	if err != nil {
		return nil, err
	}
	b, ok := s.driver.(signal.Browser)
	if !ok {
		return nil, fmt.Errorf("a source of kind %q cannot be browsed", s.kind)
	}
	return b, nil
}

func (a *Agent) browse(ctx context.Context, source, at, page string, limit int) ([]signal.Entry, string, error) {
	b, err := a.browser(source)
	if err != nil {
		return nil, "", err
	}
	return b.Browse(ctx, at, page, limit)
}

func (a *Agent) find(ctx context.Context, source, glob string, limit int) (list []signal.Entry, more bool, err error) {
	b, err := a.browser(source)
	if err != nil {
		return nil, false, err
	}
	err = b.Find(ctx, "", glob, func(e signal.Entry) bool {
		if more = len(list) == limit; !more {
			list = append(list, e)
		}
		return !more
	})
	return list, more, err
}

// propose makes configuration text of picked entries.
func (a *Agent) propose(ctx context.Context, name string, picked []signal.Entry) (localui.Proposal, error) {
	p := localui.Proposal{Source: name}
	b, err := a.browser(name)
	if err != nil {
		return p, err
	}
	var tags []propose.Tag
	var errs []error
	for _, e := range picked {
		t, err := propose.FromEntry(e)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if e.Children {
			if t.Fields, _, err = b.Browse(ctx, e.ID, "", 500); err != nil {
				errs = append(errs, err)
			}
		}
		tags = append(tags, t)
	}
	tags = propose.Merge(tags)
	propose.Unique(tags)
	list := &yaml.Node{Kind: yaml.SequenceNode}
	for _, t := range tags {
		list.Content = append(list.Content, t.Element)
	}
	raw, err := yaml.Dump(list, yaml.WithIndent(2))
	if err != nil {
		return p, fmt.Errorf("write the tags: %w", err)
	}
	p.Tags = string(raw)
	var rules strings.Builder
	for i, r := range propose.Rules(propose.Source{Name: name}, tags) {
		if i > 0 {
			rules.WriteByte('\n')
		}
		fmt.Fprintf(&rules, "# Proposed, because %s.\n- %s\n", r.Why, strings.Join(r.Lines, "\n  "))
	}
	p.Rules = rules.String()
	return p, errors.Join(errs...)
}
