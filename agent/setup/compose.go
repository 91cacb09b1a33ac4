package setup

import (
	"cmp"
	"fmt"
	"path/filepath"
	"strings"

	yaml "go.yaml.in/yaml/v4"

	"github.com/linekeeper/linekeeper/agent/propose"
)

// compose writes the whole file.
func (s *setup) compose(sources []*found) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	a := s.answers
	line("# Linekeeper plant agent. Written by `plantagent init`; change it as you like, and check it with: plantagent check -c FILE")
	line("# `plantagent sample` explains every key. A relative file name starts at this file's own folder.")
	line("")
	line("plant: %s   # the ISA-95 site; part of every fact's key: never change it later", propose.Scalar(a.Plant))
	line("agent: %s", propose.Scalar(a.Agent))
	line("time_zone: %s", propose.Scalar(cmp.Or(a.TimeZone, "UTC")))
	for _, o := range [][2]string{{"data_dir", a.DataDir}, {"listen", a.Listen}, {"contact", a.Contact}} {
		if o[1] != "" {
			line("%s: %s", o[0], propose.Scalar(o[1]))
		}
	}
	line("")
	if a.Hub.Address == "" {
		line("# Without a hub the agent collects and stores.")
		line("# hub: {address: hub.example.com:9443, ca_file: ca.pem, cert_file: agent.pem, key_file: agent.key}")
	} else {
		line("hub:")
		line("  address: %s", propose.Scalar(a.Hub.Address))
		for _, f := range [][2]string{{"ca_file", "ca.pem"}, {"cert_file", "agent.pem"}, {"key_file", "agent.key"}} {
			line("  %s: %s", f[0], propose.Scalar(filepath.ToSlash(filepath.Join(a.Hub.Credentials, f[1]))))
		}
	}
	if a.WorkOrders != "" {
		line("\nwork_orders:\n  receiver: %s", propose.Scalar(a.WorkOrders))
	}
	line("\nsources:")
	for _, f := range sources {
		line("  - name: %s\n    kind: %s", propose.Scalar(f.Name), f.Kind)
		indented(&b, dump(f.section), "    ")
	}
	for _, extra := range []struct {
		key  string
		node yaml.Node
	}{{"units", a.Units}, {"items", a.Items}} {
		if extra.node.Kind != 0 {
			line("\n%s:", extra.key)
			indented(&b, dump(&extra.node), "  ")
		}
	}
	line("\n# What the tags mean. Look at what a value becomes with: plantagent trace --source NAME")
	line("rules:")
	if a.Rules.Kind == yaml.SequenceNode {
		indented(&b, dump(&a.Rules), "  ")
	}
	for _, f := range sources {
		if f.Rules == "none" {
			continue
		}
		for _, r := range propose.Rules(propose.Source{Name: f.Name, WorkCenter: f.WorkCenter, Unit: f.Unit}, f.tags) {
			line("\n  # Proposed, because %s.", r.Why)
			for i, l := range r.Lines {
				line("  %s%s", map[bool]string{true: "- ", false: "  "}[i == 0], l)
			}
		}
	}
	return b.String()
}

// dump writes a mapping or list as lines of a block, however it was written before.
func dump(n *yaml.Node) string {
	n.Style &^= yaml.FlowStyle
	raw, err := yaml.Dump(n, yaml.WithIndent(2))
	if err != nil {
		return fmt.Sprintf("# %v", err)
	}
	return string(raw)
}

func indented(b *strings.Builder, text, by string) {
	for l := range strings.Lines(text) {
		if strings.TrimSpace(l) != "" {
			b.WriteString(by)
		}
		b.WriteString(l)
	}
}
