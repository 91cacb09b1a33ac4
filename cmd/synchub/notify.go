package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub"
	"github.com/linekeeper/linekeeper/hub/notify"
)

// notifyCmd is about the messages that tell people of exceptions.
type notifyCmd struct {
	Test notifyTestCmd `cmd:"" help:"Send a test message to the receivers of the configuration, and print what they say."`
}

// notifyTestCmd needs no running hub.
type notifyTestCmd struct {
	Receiver string `help:"Only to this one of notify.receivers." placeholder:"NAME"`
}

// Run implements the command.
func (c notifyTestCmd) Run(e *env) error {
	cfg, err := load(e.cli.Config)
	if err != nil {
		return err
	}
	n := cfg.Notify
	n.SetDefaults(filepath.Dir(e.cli.Config))
	var plants []string
	for _, p := range cfg.Plants {
		plants = append(plants, p.Plant)
	}
	if faults := n.Check(plants); len(faults) > 0 {
		var lines []string
		for _, f := range faults {
			lines = append(lines, e.cli.Config+": "+hub.Fault{Where: f.Where, Text: f.Text, Hint: f.Hint}.String())
		}
		return fmt.Errorf("%w is not valid\n%s", hub.ErrConfig, strings.Join(lines, "\n"))
	}
	said, err := notify.Test(context.Background(), n, c.Receiver, time.Now())
	if err != nil {
		return err
	}
	failed := 0
	for _, s := range said {
		if s.Err == nil {
			fmt.Fprintf(e.out, "%s took it: %s\n", s.Receiver, s.Answer)
			continue
		}
		failed++
		fmt.Fprintf(e.out, "%s did not take it: %s\n", s.Receiver, s.Err)
		if s.NextStep != "" {
			fmt.Fprintf(e.out, "  next step: %s\n", s.NextStep)
		}
	}
	if failed > 0 {
		return errors.New("not every receiver took the test message")
	}
	return nil
}
