package setup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	yaml "go.yaml.in/yaml/v4"

	"github.com/linekeeper/linekeeper/agent/propose"
	"github.com/linekeeper/linekeeper/agent/signal"
)

// most is how many tags one glob may pick: more is a slip.
const most = 20_000

// pick fills the source's tags from the answers, or lets a person choose them.
func (s *setup) pick(ctx context.Context, f *found) error {
	d, err := s.driver(f)
	if err != nil {
		return err
	}
	browser, _ := d.(signal.Browser)
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for _, p := range f.Pick {
		if p.Kind == yaml.MappingNode {
			t, err := propose.NewTag(&p, signal.Entry{})
			if err != nil {
				return err
			}
			f.tags = append(f.tags, t)
			continue
		}
		n, err := s.glob(ctx, f, browser, p.Value)
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("nothing that can be read matches %q: look with `plantagent browse`", p.Value)
		}
	}
	if s.person != nil && len(f.Pick) == 0 && browser != nil {
		if err := s.pickByHand(ctx, f, browser); err != nil {
			return err
		}
	}
	if len(f.tags) == 0 && f.value(f.kind.Tags) == nil {
		return errors.New("no tag was picked: give globs or tags under pick")
	}
	f.tags = propose.Merge(f.tags)
	propose.Unique(f.tags)
	f.list()
	s.say("  %d %s", len(f.tags), plural(len(f.tags), "tag"))
	return nil
}

// list puts the tags into the section, after what stood there.
func (f *found) list() {
	if len(f.tags) == 0 {
		return
	}
	seq := f.value(f.kind.Tags)
	if seq == nil {
		seq = &yaml.Node{Kind: yaml.SequenceNode}
		f.set(f.kind.Tags, seq)
	}
	for _, t := range f.tags {
		seq.Content = append(seq.Content, t.Element)
	}
}

func (s *setup) glob(ctx context.Context, f *found, browser signal.Browser, glob string) (n int, err error) {
	if browser == nil {
		return 0, fmt.Errorf("a source of kind %q cannot be searched: write whole tags under pick", f.Kind)
	}
	known := map[string]bool{}
	for _, t := range f.tags {
		known[t.Entry.ID] = true
	}
	var failed error
	err = browser.Find(ctx, "", glob, func(e signal.Entry) bool {
		if known[e.ID] {
			n++
			return true
		}
		var t propose.Tag
		if t, failed = propose.FromEntry(e); failed != nil {
			return false
		}
		if n++; n > most {
			failed = fmt.Errorf("%q matches more than %d: choose a narrower one", glob, most)
			return false
		}
		f.tags = append(f.tags, t)
		return true
	})
	if err = cmp.Or(failed, err); err != nil {
		return n, err
	}
	return n, s.lookInto(ctx, f, browser)
}

// lookInto lists the columns of tables and the fields of messages, for the rules.
func (s *setup) lookInto(ctx context.Context, f *found, browser signal.Browser) error {
	for i := range f.tags {
		t := &f.tags[i]
		if !t.Entry.Children || t.Fields != nil {
			continue
		}
		fields, _, err := browser.Browse(ctx, t.Entry.ID, "", 500)
		if err != nil {
			return fmt.Errorf("look into %q: %w", t.Entry.Path, err)
		}
		t.Fields = fields
	}
	return nil
}

// pickByHand lets a person walk through what the source offers.
func (s *setup) pickByHand(ctx context.Context, f *found, browser signal.Browser) error {
	s.say("Pick what to read. Type a number to open a level or to take a value, a glob such as Objects/*/Good to take all that")
	s.say("matches (* within a level, ** across levels), .. to go up, and an empty line when it is all.")
	type level struct{ id, path string }
	trail := []level{{}}
	for {
		here := trail[len(trail)-1]
		entries, next, err := browser.Browse(ctx, here.id, "", 100)
		if err != nil {
			return err
		}
		for i, e := range entries {
			s.say("  %3d  %-40s %-10s %s %s", i+1, e.Name, e.Kind, e.Type, e.Value)
		}
		if next != "" {
			s.say("       ... and more: type a glob to find them")
		}
		answer, err := s.person.ask(fmt.Sprintf("%s (%d taken)", cmp.Or(here.path, "/"), len(f.tags)), "", nil)
		switch {
		case err != nil:
			return err
		case answer == "":
			return nil
		case answer == "..":
			trail = trail[:max(1, len(trail)-1)]
			continue
		}
		var number int
		if _, err := fmt.Sscanf(answer+" ", "%d ", &number); err != nil || strings.ContainsAny(answer, "*?/") {
			n, err := s.glob(ctx, f, browser, answer)
			if err != nil {
				s.say("  %v", err)
				continue
			}
			s.say("  %d match", n)
			continue
		}
		if number < 1 || number > len(entries) {
			s.say("  there is no number %d", number)
			continue
		}
		e := entries[number-1]
		if e.Readable {
			t, err := propose.FromEntry(e)
			if err != nil {
				s.say("  %v", err)
				continue
			}
			f.tags = append(f.tags, t)
			if err := s.lookInto(ctx, f, browser); err != nil {
				return err
			}
			s.say("  takes %s", e.Path)
		} else if e.Children {
			trail = append(trail, level{e.ID, e.Path})
		}
	}
}

func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}
