package setup

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v4"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// tag is one picked tag on its way into the configuration.
type tag struct {
	name    string
	element *yaml.Node // of the list of tags
	entry   signal.Entry
	fields  []signal.Entry // of a table or a structured message
}

// newTag reads an element of a list of tags.
func newTag(element *yaml.Node, e signal.Entry) (tag, error) {
	for i := 0; element.Kind == yaml.MappingNode && i+1 < len(element.Content); i += 2 {
		if element.Content[i].Value == "tag" && element.Content[i+1].Value != "" {
			return tag{name: element.Content[i+1].Value, element: element, entry: e}, nil
		}
	}
	return tag{}, fmt.Errorf("%q names no tag: write it as in a configuration, with a key \"tag\"", cmp.Or(e.Path, element.Value))
}

// rename gives a tag another name.
func (t *tag) rename(name string) {
	t.name = name
	for i := 0; i+1 < len(t.element.Content); i += 2 {
		if t.element.Content[i].Value == "tag" {
			t.element.Content[i+1].SetString(name)
		}
	}
}

// unique renames tags of equal names after the level above them: Press1.Good and Press2.Good.
func unique(tags []tag) {
	count := map[string]int{}
	for _, t := range tags {
		count[t.name]++
	}
	used := map[string]bool{}
	for i := range tags {
		t := &tags[i]
		name := t.name
		if parent := path.Base(path.Dir(t.entry.Path)); count[name] > 1 && parent != "." && parent != "/" {
			name = parent + "." + name
		}
		for n := 2; used[name]; n++ {
			name = fmt.Sprintf("%s.%d", t.name, n)
		}
		if used[name] = true; name != t.name {
			t.rename(name)
		}
	}
}

// What words in the name of a tag or a column mean. The first that fits counts, so scrap stands before good: "not good".
var meanings = []struct {
	meaning string
	words   []string
}{
	{"scrap", []string{"scrap", "reject", "bad", "nok", "notgood", "ausschuss", "waste", "defect"}},
	{"rework", []string{"rework", "nacharbeit"}},
	{"order_no", []string{"orderno", "ordernumber", "workorder", "joborder", "productionorder", "auftrag", "order"}},
	{"operation", []string{"operation", "opno", "step", "vorgang"}},
	{"yield", []string{"good", "yield", "gutteile", "gut", "produced", "parts", "pieces", "count", "counter", "qty", "quantity", "stueck", "total"}},
	{"item", []string{"item", "material", "article", "artikel", "product", "sku"}},
	{"unit", []string{"unit", "uom", "einheit"}},
	{"lot", []string{"lot", "batch", "charge"}},
	{"finished_at", []string{"finishedat", "bookedat", "createdat", "changedat", "timestamp", "endtime", "ts"}},
}

// meaning says what a name is about; empty when nothing is known.
func meaning(name string) string {
	plain := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' {
			return r
		}
		return -1
	}, strings.ToLower(name))
	for _, m := range meanings {
		for _, w := range m.words {
			if len(w) <= 2 && plain == w || len(w) > 2 && strings.Contains(plain, w) {
				return m.meaning
			}
		}
	}
	return ""
}

var integerTypes = []string{"sbyte", "byte", "int16", "uint16", "int32", "uint32", "int64", "uint64", "int8", "uint8", "integer", "bigint", "smallint"}

// rule is one proposed rule, as its lines stand in the file, and why it was proposed.
type rule struct {
	why   string
	lines []string
}

// propose makes rules for the tags of a source. What it does not understand becomes a reading: it is shown and forwarded, and
// never booked.
func propose(s Source, tags []tag) (rules []rule) {
	for _, t := range tags {
		if r, ok := proposeRecord(s, t); ok {
			rules = append(rules, r)
			continue
		}
		if len(t.fields) > 0 {
			continue // its fields say nothing that could be booked
		}
		rules = append(rules, proposeTag(s, t))
	}
	return rules
}

// center is the work centre that a tag belongs to: the level above it in its path.
func (s Source) center(t tag) string {
	if s.WorkCenter != "" {
		return s.WorkCenter
	}
	if parent := path.Base(path.Dir(t.entry.Path)); parent != "." && parent != "/" && parent != "" {
		return parent
	}
	return s.Name
}

func proposeTag(s Source, t tag) rule {
	about, integer := meaning(t.name[strings.LastIndexByte(t.name, '.')+1:]), slices.Contains(integerTypes, strings.ToLower(t.entry.Type))
	head := []string{"name: " + scalar(s.Name+" "+t.name)}
	from := []string{"source: " + scalar(s.Name), "tag: " + scalar(t.name)}
	switch {
	case integer && (about == "yield" || about == "scrap" || about == "rework"):
		return rule{
			why: fmt.Sprintf("%q is a whole number and its name sounds like a count of %s", t.entry.Path, about),
			lines: slices.Concat(head, []string{"rule: counter"}, from, []string{
				"counts: " + about, "work_center: " + scalar(s.center(t)),
				"unit: " + scalar(cmp.Or(s.Unit, "C62")) + "              # UN/ECE Rec 20; C62 is pieces",
				"# modulus: 65536       # the first value that the counter cannot show, if it rolls over",
				"# max_per_second: 5    # what is physically possible: tells a rollover from a reset",
			}),
		}
	case about == "order_no":
		return rule{
			why:   fmt.Sprintf("the name of %q sounds like the number of the order that runs", t.entry.Path),
			lines: slices.Concat(head, []string{"rule: state"}, from, []string{"work_center: " + scalar(s.center(t))}),
		}
	}
	return rule{
		why:   fmt.Sprintf("%q is forwarded as a reading and never booked", cmp.Or(t.entry.Path, t.name)),
		lines: slices.Concat(head, []string{"rule: reading"}, from),
	}
}

// proposeRecord makes a confirmation of a table or message that names an order and a quantity.
func proposeRecord(s Source, t tag) (rule, bool) {
	found := map[string]string{}
	for _, f := range t.fields {
		if m := meaning(f.Name); m != "" && found[m] == "" {
			found[m] = f.Name
		}
	}
	if found["order_no"] == "" || found["yield"] == "" && found["scrap"] == "" {
		return rule{}, false
	}
	lines := []string{"name: " + scalar(s.Name+" "+t.name), "rule: record", "source: " + scalar(s.Name), "tag: " + scalar(t.name),
		"fact: production_confirmation", "fields:"}
	for _, name := range []string{"order_no", "operation", "item", "yield", "scrap", "rework", "unit", "lot", "finished_at"} {
		if column := found[name]; column != "" {
			lines = append(lines, "  "+name+": "+scalar("payload"+member(column)))
		}
	}
	if found["unit"] == "" {
		lines = append(lines, "  unit: "+scalar("'"+cmp.Or(s.Unit, "C62")+"'"))
	}
	return rule{why: fmt.Sprintf("%q has an order and a quantity", cmp.Or(t.entry.Path, t.name)), lines: lines}, true
}

// member is the way to a key of a message in an expression.
func member(name string) string {
	for i, r := range name {
		if r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (i == 0 || r < '0' || r > '9') {
			return fmt.Sprintf("[%q]", name)
		}
	}
	return "." + name
}

// scalar writes a text as YAML does in one line, quoted where it has to be.
func scalar(text string) string {
	raw, err := yaml.Dump(text)
	out := strings.TrimSuffix(string(raw), "\n")
	if err != nil || strings.Contains(out, "\n") {
		return fmt.Sprintf("%q", text)
	}
	return out
}
