package mqtt

import (
	"fmt"
	"regexp"
	"strings"
)

// pattern is a topic of the configuration, taken apart.
type pattern struct {
	filter    string   // what the broker is asked for
	levels    []string // of the filter, without the group of a shared subscription
	named     map[string]int
	shared    bool
	equipment template
}

var nameForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// parsePattern reads a filter in which {name} stands for one level.
func parsePattern(s string) (pattern, error) {
	p := pattern{named: map[string]int{}}
	group, inner := "", s
	if strings.HasPrefix(s, "$share/") {
		p.shared = true
		parts := strings.SplitN(s, "/", 3)
		if len(parts) < 3 || parts[1] == "" || strings.ContainsAny(parts[1], "+#{}") {
			return p, fmt.Errorf("topic %q: a shared subscription is written $share/group/filter", s)
		}
		group, inner = "$share/"+parts[1]+"/", parts[2]
	}
	p.levels = strings.Split(inner, "/")
	for i, l := range p.levels {
		if !strings.ContainsAny(l, "{}") {
			continue
		}
		name := strings.TrimSuffix(strings.TrimPrefix(l, "{"), "}")
		if len(l) != len(name)+2 || !nameForm.MatchString(name) {
			return p, fmt.Errorf("topic %q: {name} must fill a whole level; a name has letters, digits and _", s)
		}
		if _, twice := p.named[name]; twice {
			return p, fmt.Errorf("topic %q names two levels {%s}", s, name)
		}
		p.named[name] = i
		p.levels[i] = "+"
	}
	inner = strings.Join(p.levels, "/")
	p.filter = group + inner
	return p, validateFilter(inner)
}

func validateFilter(f string) error {
	if f == "" || strings.ContainsRune(f, 0) || len(f) > 65535 {
		return fmt.Errorf("topic %q is empty or too long", f)
	}
	levels := strings.Split(f, "/")
	for i, l := range levels {
		if l == "#" && i < len(levels)-1 || len(l) > 1 && strings.ContainsAny(l, "+#") {
			return fmt.Errorf("topic %q: + and # must fill a whole level, # only the last", f)
		}
	}
	return nil
}

// labels are the named levels of a topic that the pattern covers.
func (p *pattern) labels(topic string) map[string]string {
	if len(p.named) == 0 && len(p.equipment) == 0 {
		return nil
	}
	levels := strings.Split(topic, "/")
	out := make(map[string]string, len(p.named)+1)
	for name, i := range p.named {
		if i < len(levels) {
			out[name] = levels[i]
		}
	}
	if len(p.equipment) > 0 {
		out["equipment"] = p.equipment.fill(out)
	}
	return out
}

// template is a text with {names}: pieces of text and names in turn.
type template []string

var placeholder = regexp.MustCompile(`\{[^{}]*\}`)

func parseTemplate(s string) (template, error) {
	if s == "" {
		return nil, nil
	}
	var t template
	end := 0
	for _, at := range placeholder.FindAllStringIndex(s, -1) {
		name := s[at[0]+1 : at[1]-1]
		if !nameForm.MatchString(name) {
			return nil, fmt.Errorf("%q: {%s} is no name", s, name)
		}
		t = append(t, s[end:at[0]], name)
		end = at[1]
	}
	t = append(t, s[end:])
	for i := 0; i < len(t); i += 2 {
		if strings.ContainsAny(t[i], "{}") {
			return nil, fmt.Errorf("%q: a brace is not closed", s)
		}
	}
	return t, nil
}

func (t template) names() []string {
	var out []string
	for i := 1; i < len(t); i += 2 {
		out = append(out, t[i])
	}
	return out
}

func (t template) fill(values map[string]string) string {
	var b strings.Builder
	for i, piece := range t {
		if i%2 == 0 {
			b.WriteString(piece)
		} else {
			b.WriteString(values[piece])
		}
	}
	return b.String()
}
