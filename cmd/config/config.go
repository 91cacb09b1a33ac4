// Package config reads the YAML files of the commands strictly.
//
// It owns the way from a file to the packages' own Config structs. It promises that an unknown key, a wrong type or a
// duplicate is refused with its line and, where a known key is near, a hint. It never fills a default and never reads the
// environment: each package's Config does the first, nobody the second.
package config

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"sort"
	"strings"

	yaml "go.yaml.in/yaml/v4"
)

// Fault is one fault in a file.
type Fault struct {
	Line int // 0 when it concerns the whole file
	Text string
	Hint string // the next step; may be empty
}

// Faults is everything wrong with a file, in the order of its lines.
type Faults struct {
	File string
	List []Fault
}

func (f *Faults) Error() string {
	lines := make([]string, len(f.List))
	for i, x := range f.List {
		where := f.File
		if x.Line > 0 {
			where = fmt.Sprintf("%s:%d", f.File, x.Line)
		}
		lines[i] = where + ": " + x.Text
		if x.Hint != "" {
			lines[i] += " (" + x.Hint + ")"
		}
	}
	return strings.Join(lines, "\n")
}

// Read parses a file and fills into, whose fields carry "yaml" tags. The error is a *Faults unless the file cannot be read.
func Read(path string, into any) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, raw, into)
}

// Parse is Read for bytes; name stands for the file in faults.
func Parse(name string, raw []byte, into any) error {
	var root yaml.Node
	if err := yaml.Load(raw, &root); err != nil && !blank(raw) {
		return &Faults{File: name, List: faults(err, into)}
	}
	if root.Kind == 0 || len(root.Content) == 0 {
		return &Faults{File: name, List: []Fault{{Text: "the file is empty", Hint: "start from the commented sample"}}}
	}
	if err := Strict(root.Content[0], into); err != nil {
		var f *Faults
		if errors.As(err, &f) {
			f.File = name
		}
		return err
	}
	return nil
}

// blank reports that a file holds nothing but comments.
func blank(raw []byte) bool {
	for line := range strings.Lines(string(raw)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			return false
		}
	}
	return true
}

// Strict fills into from one node, refusing what it does not know. The error is a *Faults.
func Strict(node *yaml.Node, into any) error {
	err := node.Load(into, yaml.WithKnownFields(), yaml.WithUniqueKeys())
	if err == nil {
		return nil
	}
	return &Faults{List: faults(err, into)}
}

// Section is one entry of a list whose keys belong to the thing that a "kind" names: the common keys are read here, the
// rest is decoded by whoever knows the kind.
type Section struct {
	Name string
	Kind string
	Line int
	rest *yaml.Node
}

// UnmarshalYAML takes name and kind out of the mapping and keeps the rest for Decode.
func (s *Section) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: expected a mapping with name and kind", node.Line)
	}
	s.Line = node.Line
	rest := *node
	rest.Content = nil
	for i := 0; i+1 < len(node.Content); i += 2 {
		switch k, v := node.Content[i], node.Content[i+1]; k.Value {
		case "name":
			s.Name = v.Value
		case "kind":
			s.Kind = v.Value
		default:
			rest.Content = append(rest.Content, k, v)
		}
	}
	s.rest = &rest
	return nil
}

// Decode fills into from the section's own keys.
func (s *Section) Decode(into any) error { return Strict(s.rest, into) }

var unknownField = regexp.MustCompile(`field (\S+) not found in type (\S+)`)

func faults(err error, into any) []Fault {
	known := keys(reflect.TypeOf(into), map[reflect.Type]bool{})
	var list []Fault
	for _, e := range split(err) {
		f := Fault{Line: e.Mark.Line, Text: strings.ReplaceAll(e.Message, "!!", "")}
		if m := unknownField.FindStringSubmatch(f.Text); m != nil {
			f.Text = fmt.Sprintf("unknown key %q", m[1])
			if near := nearest(m[1], known); near != "" {
				f.Hint = fmt.Sprintf("did you mean %q?", near)
			}
		}
		list = append(list, f)
	}
	sort.SliceStable(list, func(i, j int) bool { return list[i].Line < list[j].Line })
	return list
}

func split(err error) []*yaml.LoadError {
	var many *yaml.LoadErrors
	if errors.As(err, &many) {
		return many.Errors
	}
	var one *yaml.LoadError
	if errors.As(err, &one) {
		return []*yaml.LoadError{one}
	}
	return []*yaml.LoadError{{Message: err.Error()}}
}

// keys collects every "yaml" key that can occur below a type.
func keys(t reflect.Type, seen map[reflect.Type]bool) []string {
	for t != nil && (t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map) {
		t = t.Elem()
	}
	if t == nil || t.Kind() != reflect.Struct || seen[t] {
		return nil
	}
	seen[t] = true
	var out []string
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if name != "" && name != "-" {
			out = append(out, name)
		}
		out = append(out, keys(f.Type, seen)...)
	}
	return out
}

// nearest returns the known key with the fewest edits, if it is near enough to be a slip of the finger.
func nearest(got string, known []string) string {
	best, at := "", len(got)/2+1
	for _, k := range known {
		if d := edits(got, k); d < at {
			best, at = k, d
		}
	}
	return best
}

func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := diagonal
			if a[i-1] != b[j-1] {
				change++
			}
			diagonal = row[j]
			row[j] = min(change, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
