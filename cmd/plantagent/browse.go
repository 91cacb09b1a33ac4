package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"

	sig "github.com/linekeeper/linekeeper/agent/signal"
)

type browseCmd struct {
	Source string `arg:"" help:"Name of the source."`
	At     string `arg:"" optional:"" help:"Where to look: an id or a path as an earlier listing shows it, or a pattern such as 'Plant/**/Good' (* within a level, ** across levels, ? one character)."`
	JSON   bool   `help:"Print JSON."`
	Tags   bool   `help:"Print what the configuration would say to read each entry, to be pasted into the source's section."`
	Limit  int    `default:"200" help:"How many entries to print at most."`
	Page   string `help:"Go on where the last page ended; it printed what to write here." placeholder:"PAGE"`
}

func (browseCmd) Help() string {
	return examples("Lists what a source has to offer: the nodes of an OPC UA server, the tables of a database, the topics of a broker. It reads only.",
		"plantagent browse press1", "plantagent browse press1 Plant/Press1", "plantagent browse press1 'Plant/**/Good' --tags")
}

// listing is what is printed.
type listing struct {
	Entries []entryJSON `json:"entries"`
	// Next goes on behind the last entry; empty at the end.
	Next string `json:"next,omitempty"`
}

// entryJSON is an entry with its quality as a word.
type entryJSON struct {
	sig.Entry
	QualityWord string `json:"quality,omitempty"`
}

// Run lists one level, or searches when a pattern is given.
func (b browseCmd) Run(e *env) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg, err := load(e.cli.Config)
	if err != nil {
		return err
	}
	cfg.Check(nil) // fills the data folder's default
	s, err := pick(cfg, b.Source)
	if err != nil {
		return err
	}
	d, done, err := openSource(cfg, s)
	if err != nil {
		return err
	}
	defer done()
	browser, ok := d.(sig.Browser)
	if !ok {
		return fmt.Errorf("source %q: a source of kind %s cannot be browsed", s.Name, s.Kind)
	}
	if b.Limit < 1 {
		return errors.New("--limit must be at least 1")
	}
	list, err := b.list(ctx, browser)
	if err != nil {
		return fmt.Errorf("browse %q: %w", s.Name, err)
	}
	return b.print(e.out, list)
}

func (b browseCmd) list(ctx context.Context, browser sig.Browser) (list listing, err error) {
	list.Entries = []entryJSON{}
	add := func(x sig.Entry) {
		word := ""
		if x.Quality != sig.Good {
			word = x.Quality.String()
		}
		list.Entries = append(list.Entries, entryJSON{x, word})
	}
	if strings.ContainsAny(b.At, "*?") {
		err = browser.Find(ctx, "", b.At, func(x sig.Entry) bool {
			add(x)
			return len(list.Entries) < b.Limit
		})
		return list, err
	}
	for page := b.Page; ; page = list.Next {
		entries, next, err := browser.Browse(ctx, b.At, page, b.Limit-len(list.Entries))
		if err != nil {
			return list, err
		}
		for _, x := range entries {
			add(x)
		}
		if list.Next = next; next == "" || len(list.Entries) >= b.Limit {
			return list, nil
		}
	}
}

func (b browseCmd) print(w io.Writer, list listing) error {
	switch {
	case b.JSON:
		return printJSON(w, list)
	case b.Tags:
		return printTags(w, list)
	case len(list.Entries) == 0:
		fmt.Fprintln(w, "there is nothing")
		return nil
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "PATH\tKIND\tTYPE\tVALUE\tID")
	for _, x := range list.Entries {
		path, value := x.Path, strings.TrimSpace(x.Value+" "+x.Unit)
		if x.Children {
			path += "/"
		}
		if x.QualityWord != "" {
			value = strings.TrimSpace(value + " (" + x.QualityWord + ")")
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", path, x.Kind, dash(x.Type), dash(value), x.ID)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if list.Next != "" {
		at := ""
		if b.At != "" {
			at = " " + shellWord(b.At)
		}
		fmt.Fprintf(w, "\nThere is more: plantagent browse %s%s --page %s\n", b.Source, at, list.Next)
	} else if len(list.Entries) >= b.Limit {
		fmt.Fprintf(w, "\nThere may be more: raise --limit\n")
	}
	return nil
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// shellWord is a word as a shell takes it.
func shellWord(s string) string {
	if strings.ContainsAny(s, " ;&<>|\"'$`*?()") {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return s
}

// printTags prints the elements of a list of nodes, topics or queries.
func printTags(w io.Writer, list listing) error {
	for _, x := range list.Entries {
		for i, line := range strings.Split(strings.TrimRight(x.Tag, "\n"), "\n") {
			switch {
			case x.Tag == "":
			case i == 0:
				fmt.Fprintf(w, "  - %s\n", line)
			default:
				fmt.Fprintf(w, "    %s\n", line)
			}
		}
	}
	return nil
}
