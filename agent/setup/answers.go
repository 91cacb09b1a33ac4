package setup

import (
	"errors"
	"fmt"
	"time"

	yaml "go.yaml.in/yaml/v4"
)

// Answers are everything that a person decides, as the file of --answers holds it. What is left out takes the proposal.
type Answers struct {
	Plant    string `yaml:"plant"`
	Agent    string `yaml:"agent"`
	TimeZone string `yaml:"time_zone"`
	Contact  string `yaml:"contact"`
	Listen   string `yaml:"listen"`
	DataDir  string `yaml:"data_dir"`
	Hub      Hub    `yaml:"hub"`
	// Sources are looked at in this order.
	Sources []Source `yaml:"sources"`
	// WorkOrders names the source that takes work orders; none when empty.
	WorkOrders string `yaml:"work_orders"`
	// Rules are put into the file as they are, before the proposed ones; Units and Items too.
	Rules yaml.Node `yaml:"rules"`
	Units yaml.Node `yaml:"units"`
	Items yaml.Node `yaml:"items"`
}

// Hub says where the hub is. Without an address the agent collects and stores until one is set.
type Hub struct {
	Address string `yaml:"address"`
	// Credentials is the folder that `synchub cert agent` made; its three files are named in the configuration.
	Credentials string `yaml:"credentials"`
}

// Source is one source to set up.
type Source struct {
	Name string `yaml:"name"`
	Kind string `yaml:"kind"`
	// Address is where to look: a host, host:port, a whole address, a path. Unused when Section holds all that is needed.
	Address string `yaml:"address"`
	// Offer picks among the ways that are found there: the first whose title or section contains this text. Default: the
	// first, which must be a secure one.
	Offer string `yaml:"offer"`
	// Insecure takes a way that does not encrypt, when it is the only one.
	Insecure bool `yaml:"insecure"`
	// Section are further keys of the source's configuration; they go before what the offer says.
	Section yaml.Node `yaml:"section"`
	// Trust is the SHA-256 fingerprint (or its first 8 digits or more) of the server certificate to trust.
	Trust string `yaml:"trust"`
	// Wait is how long to try again when the source is not ready or does not trust the agent yet; default 1m.
	Wait time.Duration `yaml:"wait"`
	// Pick are globs over the paths of what the source offers, such as "Objects/*/Good"; or whole elements of the list of tags,
	// as they stand in a configuration.
	Pick []yaml.Node `yaml:"pick"`
	// Rules is propose (default) or none.
	Rules string `yaml:"rules"`
	// WorkCenter is the ISA-95 work centre of the tags whose path names none.
	WorkCenter string `yaml:"work_center"`
	// Unit is the Rec 20 code of what is counted; default C62, pieces.
	Unit string `yaml:"unit"`
}

// ReadAnswers reads a file of answers; unknown keys are refused.
func ReadAnswers(raw []byte) (*Answers, error) {
	var a Answers
	if err := yaml.Load(raw, &a, yaml.WithKnownFields(), yaml.WithUniqueKeys()); err != nil {
		return nil, err
	}
	return &a, a.check()
}

func (a *Answers) check() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if a.Plant == "" || a.Agent == "" {
		fault("plant and agent are needed: the site's name and this installation's")
	}
	names := map[string]bool{}
	for i, s := range a.Sources {
		if s.Name == "" || s.Kind == "" {
			fault("sources[%d] needs a name and a kind", i)
		}
		if names[s.Name] {
			fault("source %q is named twice", s.Name)
		}
		names[s.Name] = true
		if s.Rules != "" && s.Rules != "propose" && s.Rules != "none" {
			fault("source %q: rules is %q: write propose or none", s.Name, s.Rules)
		}
		if s.Address == "" && s.Section.Kind == 0 {
			fault("source %q needs an address to look at, or a section", s.Name)
		}
	}
	if len(a.Sources) == 0 {
		fault("no source is named: what shall the agent read?")
	}
	if a.WorkOrders != "" && !names[a.WorkOrders] {
		fault("work_orders names source %q, which is not among the sources", a.WorkOrders)
	}
	return errors.Join(errs...)
}
