package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/linekeeper/linekeeper/agent/localui"
)

type tokenCmd struct{}

func (tokenCmd) Help() string {
	return examples("Whoever may read the agent's data folder may pick tags and trust certificates on its page (http://127.0.0.1:8480/admin).", "plantagent token -c plantagent.yaml")
}

// Run prints the token that the running agent made.
func (tokenCmd) Run(e *env) error {
	token, err := adminToken(e.cli.Config)
	if err != nil {
		return err
	}
	fmt.Fprintln(e.out, token)
	return nil
}

// adminToken reads the token of the agent that a configuration is of.
func adminToken(path string) (string, error) {
	cfg, err := load(path)
	if err != nil {
		return "", err
	}
	cfg.Check(nil) // fills the data folder's default
	raw, err := os.ReadFile(localui.TokenFile(cfg.DataDir))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("there is no admin token in %s yet: the agent makes it at its first start", cfg.DataDir)
	case err != nil:
		return "", fmt.Errorf("read the admin token: %w (use the agent's own account)", err)
	}
	return strings.TrimSpace(string(raw)), nil
}
