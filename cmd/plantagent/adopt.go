package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	yaml "go.yaml.in/yaml/v4"

	"github.com/linekeeper/linekeeper/agent"
	"github.com/linekeeper/linekeeper/agent/localui"
	sig "github.com/linekeeper/linekeeper/agent/signal"
)

// adopt writes a proposal of the page into the configuration file at path. The file's own lines stay as they are; it is replaced
// only when the result is valid, and kept beside it with the ending .bak.
func adopt(path string, p localui.Proposal) (note string, err error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read configuration: %w", err)
	}
	text, err := insertTags(string(raw), p)
	if err != nil {
		return "", err
	}
	if text, err = insertRules(text, p.Rules); err != nil {
		return "", err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		return "", fmt.Errorf("write configuration: %w", err)
	}
	defer os.Remove(tmp) // once it took its place this finds nothing
	cfg, err := load(tmp)
	if err != nil {
		return "", fmt.Errorf("with these lines the configuration cannot be read; nothing was changed: %w", err)
	}
	if faults := cfg.Check(drivers()); len(faults) > 0 {
		return "", fmt.Errorf("with these lines the configuration has faults; nothing was changed: %w", agent.Faults(faults))
	}
	if err := os.WriteFile(path+".bak", raw, 0o600); err != nil {
		return "", fmt.Errorf("keep the old configuration: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return "", fmt.Errorf("replace configuration: %w", err)
	}
	return fmt.Sprintf("Written to %s; the old one is in %s.bak. It takes effect when the agent starts again: plantagent stop && plantagent start.", path, path), nil
}

func insertTags(text string, p localui.Proposal) (string, error) {
	if strings.TrimSpace(p.Tags) == "" {
		return text, nil
	}
	root, err := parse(text)
	if err != nil {
		return "", err
	}
	section := sourceNode(root, p.Source)
	if section == nil {
		return "", fmt.Errorf("the configuration has no source %q", p.Source)
	}
	var kind sig.Kind
	for _, k := range drivers() {
		if n := child(section, "kind"); n != nil && n.Value == k.Name {
			kind = k
		}
	}
	return extend(text, root, section, kind.Tags, p.Tags)
}

func insertRules(text, rules string) (string, error) {
	if strings.TrimSpace(rules) == "" {
		return text, nil
	}
	root, err := parse(text)
	if err != nil {
		return "", err
	}
	if child(root, "rules") == nil {
		return strings.TrimRight(text, "\n") + "\n\nrules:\n" + indent(rules, 2), nil
	}
	return extend(text, root, root, "rules", rules)
}

func parse(text string) (*yaml.Node, error) {
	var doc yaml.Node
	if err := yaml.Load([]byte(text), &doc); err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("the configuration is empty")
	}
	return doc.Content[0], nil
}

func child(n *yaml.Node, key string) *yaml.Node {
	for i := 0; n != nil && n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

func sourceNode(root *yaml.Node, name string) *yaml.Node {
	sources := child(root, "sources")
	if sources == nil {
		return nil
	}
	for _, s := range sources.Content {
		if n := child(s, "name"); n != nil && n.Value == name {
			return s
		}
	}
	return nil
}

// extend puts elements behind the last one of a list in a mapping, as lines of the text.
func extend(text string, root, in *yaml.Node, key, elements string) (string, error) {
	list := child(in, key)
	if list == nil || list.Kind != yaml.SequenceNode || len(list.Content) == 0 || list.Style&yaml.FlowStyle != 0 {
		return "", fmt.Errorf("the configuration has no list %q with a line for each element there: write the first one by hand", key)
	}
	lines := strings.SplitAfter(text, "\n")
	first := lines[list.Content[0].Line-1]
	dash := strings.IndexByte(first, '-')
	if dash < 0 || strings.TrimSpace(first[:dash]) != "" {
		return "", fmt.Errorf("the list %q is written in a way that lines cannot be added to: copy them by hand", key)
	}
	end := lastLine(list)
	if next := nextLine(root, end); next > 0 { // a text of several lines may reach further than its node says
		for end = next - 1; end > 0 && blankOrComment(lines[end-1]); {
			end--
		}
	} else {
		for end = len(lines); end > 0 && blankOrComment(lines[end-1]); {
			end--
		}
	}
	before := strings.Join(lines[:end], "")
	if !strings.HasSuffix(before, "\n") {
		before += "\n"
	}
	return before + indent(elements, dash) + strings.Join(lines[end:], ""), nil
}

func blankOrComment(line string) bool {
	line = strings.TrimSpace(line)
	return line == "" || line[0] == '#'
}

// lastLine is the last line that a node or a part of it begins in.
func lastLine(n *yaml.Node) int {
	last := n.Line
	for _, c := range n.Content {
		last = max(last, lastLine(c))
	}
	return last
}

// nextLine is the first line after a line that a node begins in; 0 when there is none.
func nextLine(n *yaml.Node, after int) int {
	next := 0
	if n.Line > after {
		next = n.Line
	}
	for _, c := range n.Content {
		if l := nextLine(c, after); l > 0 && (next == 0 || l < next) {
			next = l
		}
	}
	return next
}

func indent(text string, by int) string {
	var b strings.Builder
	for l := range strings.Lines(strings.TrimRight(text, "\n") + "\n") {
		if strings.TrimSpace(l) != "" {
			b.WriteString(strings.Repeat(" ", by))
		}
		b.WriteString(strings.TrimRight(l, "\r\n") + "\n")
	}
	return b.String()
}
