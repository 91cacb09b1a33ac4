// Package propose makes tags and rules out of what a source offers.
//
// It owns what names and types of an industrial plant usually mean. It promises a proposal for everything: what it does not
// understand is shown and forwarded, and never booked. It is pure, and never decides: a person reads the proposal first.
package propose

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v4"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// Tag is one picked tag on its way into the configuration.
type Tag struct {
	Name string
	// Element is its element of the list of tags in the source's section.
	Element *yaml.Node
	// Entry is what it was picked from; Fields are the columns of a table or the keys of a message.
	Entry  signal.Entry
	Fields []signal.Entry
}

// Source is what is known of the source that the tags are of.
type Source struct {
	Name string
	// WorkCenter is that of tags whose path names none; by default the level above the tag.
	WorkCenter string
	// Unit is the Rec 20 code of what is counted; C62, pieces, when empty.
	Unit string
}

// Rule is a proposed rule: the lines of its mapping, and why it was proposed.
type Rule struct {
	Why   string
	Lines []string
}

// FromEntry makes a tag of what a source offers.
func FromEntry(e signal.Entry) (Tag, error) {
	var doc yaml.Node
	if err := yaml.Load([]byte(e.Tag), &doc); err != nil || len(doc.Content) == 0 {
		return Tag{}, fmt.Errorf("%q cannot become a tag: its driver says %q", e.Path, e.Tag)
	}
	element := doc.Content[0]
	if element.Kind == yaml.SequenceNode && len(element.Content) == 1 { // written as an element of a list
		element = element.Content[0]
	}
	return NewTag(element, e)
}

// NewTag reads an element of a list of tags.
func NewTag(element *yaml.Node, e signal.Entry) (Tag, error) {
	for i := 0; element.Kind == yaml.MappingNode && i+1 < len(element.Content); i += 2 {
		if element.Content[i].Value == "tag" && element.Content[i+1].Value != "" {
			return Tag{Name: element.Content[i+1].Value, Element: element, Entry: e}, nil
		}
	}
	return Tag{}, fmt.Errorf("%q names no tag: write it as in a configuration, with a key \"tag\"", cmp.Or(e.Path, element.Value))
}

// Merge makes one tag of those that say the same in the configuration, such as the columns of one table: they become its
// fields.
func Merge(tags []Tag) []Tag {
	at := map[string]int{}
	var merged []Tag
	for _, t := range tags {
		raw, err := yaml.Dump(t.Element)
		i, again := at[string(raw)]
		switch {
		case err != nil || !again:
			at[string(raw)] = len(merged)
			if t.Fields == nil && !t.Entry.Children {
				t.Fields = []signal.Entry{t.Entry}
			}
			merged = append(merged, t)
		case t.Entry.Children: // the whole, after some of its parts
			merged[i].Entry, merged[i].Fields = t.Entry, t.Fields
		case !merged[i].Entry.Children:
			merged[i].Fields = append(merged[i].Fields, t.Entry)
		}
	}
	for i := range merged {
		if t := &merged[i]; len(t.Fields) == 1 && !t.Entry.Children {
			t.Fields = nil // a value of its own
		}
	}
	return merged
}

// rename gives a tag another name.
func (t *Tag) rename(name string) {
	t.Name = name
	for i := 0; i+1 < len(t.Element.Content); i += 2 {
		if t.Element.Content[i].Value == "tag" {
			t.Element.Content[i+1].SetString(name)
		}
	}
}

// Unique renames tags of equal names after the level above them: Press1.Good and Press2.Good.
func Unique(tags []Tag) {
	count := map[string]int{}
	for _, t := range tags {
		count[t.Name]++
	}
	used := map[string]bool{}
	for i := range tags {
		t := &tags[i]
		name := t.Name
		if parent := path.Base(path.Dir(t.Entry.Path)); count[name] > 1 && parent != "." && parent != "/" {
			name = parent + "." + name
		}
		for n := 2; used[name]; n++ {
			name = fmt.Sprintf("%s.%d", t.Name, n)
		}
		if used[name] = true; name != t.Name {
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

// Rules makes rules for the tags of a source. What it does not understand becomes a reading: it is shown and forwarded, and
// never booked.
func Rules(s Source, tags []Tag) (rules []Rule) {
	for _, t := range tags {
		if r, ok := proposeRecord(s, t); ok {
			rules = append(rules, r)
			continue
		}
		if len(t.Fields) > 0 {
			continue // its fields say nothing that could be booked
		}
		rules = append(rules, proposeTag(s, t))
	}
	return rules
}

// center is the work centre that a tag belongs to: the level above it in its path.
func (s Source) center(t Tag) string {
	if s.WorkCenter != "" {
		return s.WorkCenter
	}
	if parent := path.Base(path.Dir(t.Entry.Path)); parent != "." && parent != "/" && parent != "" {
		return parent
	}
	return s.Name
}

func proposeTag(s Source, t Tag) Rule {
	about, integer := meaning(t.Name[strings.LastIndexByte(t.Name, '.')+1:]), slices.Contains(integerTypes, strings.ToLower(t.Entry.Type))
	head := []string{"name: " + Scalar(s.Name+" "+t.Name)}
	from := []string{"source: " + Scalar(s.Name), "tag: " + Scalar(t.Name)}
	switch {
	case integer && (about == "yield" || about == "scrap" || about == "rework"):
		return Rule{
			Why: fmt.Sprintf("%q is a whole number and its name sounds like a count of %s", t.Entry.Path, about),
			Lines: slices.Concat(head, []string{"rule: counter"}, from, []string{
				"counts: " + about, "work_center: " + Scalar(s.center(t)),
				"unit: " + Scalar(cmp.Or(s.Unit, "C62")) + "              # UN/ECE Rec 20; C62 is pieces",
				"# modulus: 65536       # the first value that the counter cannot show, if it rolls over",
				"# max_per_second: 5    # what is physically possible: tells a rollover from a reset",
			}),
		}
	case about == "order_no":
		return Rule{
			Why:   fmt.Sprintf("the name of %q sounds like the number of the order that runs", t.Entry.Path),
			Lines: slices.Concat(head, []string{"rule: state"}, from, []string{"work_center: " + Scalar(s.center(t))}),
		}
	}
	return Rule{
		Why:   fmt.Sprintf("%q is forwarded as a reading and never booked", cmp.Or(t.Entry.Path, t.Name)),
		Lines: slices.Concat(head, []string{"rule: reading"}, from),
	}
}

// proposeRecord makes a confirmation of a table or message that names an order and a quantity.
func proposeRecord(s Source, t Tag) (Rule, bool) {
	found := map[string]string{}
	for _, f := range t.Fields {
		if m := meaning(f.Name); m != "" && found[m] == "" {
			found[m] = f.Name
		}
	}
	if found["order_no"] == "" || found["yield"] == "" && found["scrap"] == "" {
		return Rule{}, false
	}
	lines := []string{"name: " + Scalar(s.Name+" "+t.Name), "rule: record", "source: " + Scalar(s.Name), "tag: " + Scalar(t.Name),
		"fact: production_confirmation", "fields:"}
	for _, name := range []string{"order_no", "operation", "item", "yield", "scrap", "rework", "unit", "lot", "finished_at"} {
		if column := found[name]; column != "" {
			lines = append(lines, "  "+name+": "+Scalar("payload"+member(column)))
		}
	}
	if found["unit"] == "" {
		lines = append(lines, "  unit: "+Scalar("'"+cmp.Or(s.Unit, "C62")+"'"))
	}
	return Rule{Why: fmt.Sprintf("%q has an order and a quantity", cmp.Or(t.Entry.Path, t.Name)), Lines: lines}, true
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

// Scalar writes a text as YAML does in one line, quoted where it has to be.
func Scalar(text string) string {
	raw, err := yaml.Dump(text)
	out := strings.TrimSuffix(string(raw), "\n")
	if err != nil || strings.Contains(out, "\n") {
		return fmt.Sprintf("%q", text)
	}
	return out
}
