package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/agent/recording"
	"github.com/linekeeper/linekeeper/agent/translate"
)

type replayCmd struct {
	File    string `arg:"" help:"Recording made with plantagent record." placeholder:"FILE"`
	Against string `help:"Configuration to compare with. Default: the rules that were in force when it was recorded." placeholder:"FILE"`
	All     bool   `help:"List every difference, not only the first 50 of each kind."`
	JSON    bool   `help:"Print JSON."`
}

func (replayCmd) Help() string {
	return examples("Gives what was recorded to the rules of the configuration, and prints how their facts differ from those of the rules before. Nothing is sent anywhere. Exit code: 0 no difference, 1 differences, 78 a configuration has faults.",
		"plantagent replay press1.jsonl.gz -c changed.yaml", "plantagent replay press1.jsonl.gz -c changed.yaml --against plantagent.yaml --json")
}

// Run compares two sets of rules over a recording.
func (c replayCmd) Run(e *env) error {
	f, err := os.Open(c.File)
	if err != nil {
		return fmt.Errorf("open the recording: %w", err)
	}
	defer f.Close()
	h, events, cut, err := recording.Read(f)
	if err != nil {
		return fmt.Errorf("read %q: %w", c.File, err)
	}
	recorded, err := h.Config()
	if err != nil {
		return fmt.Errorf("read %q: %w", c.File, err)
	}
	after, err := rulesOf(e.cli.Config, recorded)
	if err != nil {
		return err
	}
	before := recorded
	if c.Against != "" {
		if before, err = rulesOf(c.Against, recorded); err != nil {
			return err
		}
	}
	d, err := recording.Compare(&h, events, before, after)
	if err != nil {
		return configError{err}
	}
	if cut {
		fmt.Fprintf(e.err, "warning: %s was cut off; what is whole of it was replayed\n", c.File)
	}
	if c.JSON {
		enc := json.NewEncoder(e.out)
		enc.SetIndent("", "  ")
		err = enc.Encode(d)
	} else {
		most := 50
		if c.All {
			most = len(d.Missing) + len(d.Added) + len(d.Changed)
		}
		printDifference(e.out, d, most)
	}
	if err == nil && !d.Equal() {
		return exitError(exitFailed)
	}
	return err
}

// rulesOf reads the rules of a configuration file. Plant, agent and hub are no rules: those of the recording count, so that a file
// that is tried at a desk makes the same keys.
func rulesOf(path string, recorded translate.Config) (translate.Config, error) {
	cfg, err := load(path)
	if err != nil {
		return translate.Config{}, err
	}
	rules := cfg.TranslateConfig()
	rules.Plant, rules.Agent, rules.AwaitHub = recorded.Plant, recorded.Agent, recorded.AwaitHub
	var names []string
	for _, s := range cfg.Sources {
		names = append(names, s.Name)
	}
	if len(names) == 0 {
		names = nil // a file of rules alone
	}
	if faults := rules.Validate(names); len(faults) > 0 {
		return rules, configError{fmt.Errorf("%s: %w", path, errors.Join(faults...))}
	}
	return rules, nil
}

func printDifference(w io.Writer, d *recording.Difference, most int) {
	fmt.Fprintf(w, "recorded from %s to %s: %d events, %d values\n", d.From.Local().Format(time.DateTime), d.To.Local().Format(time.DateTime), d.Events, d.Signals)
	fmt.Fprintf(w, "facts: %d before, %d after; %d the same, %d changed, %d missing, %d added\n", d.FactsBefore, d.FactsAfter, d.Same, len(d.Changed), len(d.Missing), len(d.Added))
	if d.Equal() {
		fmt.Fprintln(w, "no difference")
		return
	}
	for _, c := range d.Changed[:min(most, len(d.Changed))] {
		fmt.Fprintf(w, "changed  %s%s\n", c.Before.What, ofOrder(c.Before))
		for _, name := range c.Fields {
			was, is := c.Before.Fields[name], c.After.Fields[name]
			if name == "key" {
				was, is = c.Before.Key, c.After.Key
			}
			fmt.Fprintf(w, "         %s: %s -> %s\n", name, shown(was), shown(is))
		}
	}
	more(w, "changed", len(d.Changed), most)
	for _, f := range d.Missing[:min(most, len(d.Missing))] {
		fmt.Fprintf(w, "missing  %s%s [%s]\n", f.What, ofOrder(f), f.Key)
	}
	more(w, "missing", len(d.Missing), most)
	for _, f := range d.Added[:min(most, len(d.Added))] {
		fmt.Fprintf(w, "added    %s%s [%s]\n", f.What, ofOrder(f), f.Key)
	}
	more(w, "added", len(d.Added), most)
	for _, s := range d.Sums {
		was, _ := decimal.NewFromString(s.Before)
		is, _ := decimal.NewFromString(s.After)
		change := is.Sub(was).String()
		if is.GreaterThan(was) {
			change = "+" + change
		}
		fmt.Fprintf(w, "sum      order %s, item %s, %s: %s -> %s %s (%s)\n", shown(s.OrderNo), shown(s.Item), s.Kind, s.Before, s.After, s.Unit, change)
	}
}

func ofOrder(f recording.Fact) string {
	if f.OrderNo == "" {
		return ""
	}
	return ", order " + f.OrderNo
}

func shown(text string) string {
	if text == "" {
		return "(none)"
	}
	return text
}

func more(w io.Writer, word string, n, most int) {
	if n > most {
		fmt.Fprintf(w, "         ... and %d more %s; --all lists them\n", n-most, word)
	}
}
