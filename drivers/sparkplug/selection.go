package sparkplug

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Metrics says which metrics become signals of which tag. A glob's * stands for anything within a level, ** for anything
// across levels, ? for one character.
type Metrics struct {
	Tag     string `yaml:"tag"`     // may hold {group}, {node}, {device} and {metric}
	Group   string `yaml:"group"`   // glob; default *
	Node    string `yaml:"node"`    // glob; default *
	Device  string `yaml:"device"`  // glob; default any device and the node itself; "none" is the node itself
	Metric  string `yaml:"metric"`  // glob
	Reports string `yaml:"reports"` // "value" (default) or "event"
}

const (
	reportsValue = "value"
	reportsEvent = "event"
	noDevice     = "none"
)

func (m *Metrics) fill() {
	for _, f := range []*string{&m.Group, &m.Node} {
		if *f == "" {
			*f = "*"
		}
	}
	if m.Reports == "" {
		m.Reports = reportsValue
	}
}

func (m *Metrics) validate() error {
	switch {
	case m.Tag == "":
		return fmt.Errorf("metrics: %q has no tag: name it as rules will refer to it", m.Metric)
	case m.Metric == "":
		return fmt.Errorf("metrics: tag %q names no metric: write its name, a glob such as \"Line 1/*\", or \"**\" for all", m.Tag)
	case m.Reports != reportsValue && m.Reports != reportsEvent:
		return fmt.Errorf("metrics: tag %q: reports %q is neither value nor event", m.Tag, m.Reports)
	}
	rest := strings.NewReplacer("{group}", "", "{node}", "", "{device}", "", "{metric}", "").Replace(m.Tag)
	if strings.ContainsAny(rest, "{}") {
		return fmt.Errorf("metrics: tag %q: only {group}, {node}, {device} and {metric} can stand in braces", m.Tag)
	}
	return nil
}

// address names one metric of the plant. Device is empty for a metric of the node itself.
type address struct{ group, node, device, metric string }

func (a address) String() string {
	if a.device == "" {
		return a.group + "/" + a.node + "/" + a.metric
	}
	return a.group + "/" + a.node + "/" + a.device + "/" + a.metric
}

func (a address) labels() map[string]string {
	l := map[string]string{"group": a.group, "node": a.node, "metric": a.metric}
	if a.device != "" {
		l["device"] = a.device
	}
	return l
}

// protocol metrics are for the session between node and host, not for the plant.
func (a address) protocol() bool {
	return a.metric == bdSeqName || strings.HasPrefix(a.metric, "Node Control/") || strings.HasPrefix(a.metric, "Device Control/")
}

// selection finds the entry that a metric belongs to: the first that matches.
type selection []Metrics

// find returns the entry and the tag, nil when no entry wants the metric.
func (s selection) find(a address) (*Metrics, string) {
	if a.protocol() {
		return nil, ""
	}
	for i := range s {
		m := &s[i]
		if match(m.Group, a.group) && match(m.Node, a.node) && m.matchDevice(a.device) && match(m.Metric, a.metric) {
			return m, m.tagOf(a)
		}
	}
	return nil, ""
}

func (m *Metrics) matchDevice(device string) bool {
	switch m.Device {
	case "":
		return true
	case noDevice:
		return device == ""
	}
	return device != "" && match(m.Device, device)
}

func (m *Metrics) tagOf(a address) string {
	if !strings.Contains(m.Tag, "{") {
		return m.Tag
	}
	return strings.NewReplacer("{group}", a.group, "{node}", a.node, "{device}", a.device, "{metric}", a.metric).Replace(m.Tag)
}

// match compares a text with a glob. When it gets stuck it lets the last * take one character more, and when that may not,
// the last **; it need never go back further than those, so it ends soon whatever the glob.
func match(glob, text string) bool {
	type mark struct{ glob, text int } // where a star's rest begins, and where its text ended
	var one, all mark
	hasOne, hasAll := false, false
	g, t := 0, 0
	for t < len(text) {
		switch {
		case strings.HasPrefix(glob[g:], "**"):
			for g < len(glob) && glob[g] == '*' {
				g++
			}
			all, hasAll, hasOne = mark{g, t}, true, false
			continue
		case strings.HasPrefix(glob[g:], "*"):
			g++
			one, hasOne = mark{g, t}, true
			continue
		case g < len(glob) && glob[g] == '?' && text[t] != '/':
			g, t = g+1, t+size(text[t:])
			continue
		case g < len(glob) && glob[g] != '?' && glob[g] == text[t]:
			g, t = g+1, t+1
			continue
		}
		switch {
		case hasOne && text[one.text] != '/':
			one.text += size(text[one.text:])
			g, t = one.glob, one.text
		case hasAll:
			all.text += size(text[all.text:])
			g, t, hasOne = all.glob, all.text, false
		default:
			return false
		}
	}
	return strings.Trim(glob[g:], "*") == ""
}

// size is the number of bytes of a text's first character.
func size(text string) int {
	_, n := utf8.DecodeRuneInString(text)
	return n
}
