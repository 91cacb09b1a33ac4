package propose

import (
	"strings"
	"testing"

	yaml "go.yaml.in/yaml/v4"

	"github.com/linekeeper/linekeeper/agent/signal"
)

func tagOf(t *testing.T, name, path, kind string, fields ...string) Tag {
	t.Helper()
	var doc yaml.Node
	if err := yaml.Load([]byte("{tag: "+name+", node: x}"), &doc); err != nil {
		t.Fatal(err)
	}
	made, err := NewTag(doc.Content[0], signal.Entry{Path: path, Type: kind})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fields {
		made.Fields = append(made.Fields, signal.Entry{Name: f})
	}
	return made
}

func TestRulesAreProposedByNameAndType(t *testing.T) {
	for _, c := range []struct {
		name, path, kind string
		want             string
	}{
		{"Good", "Objects/Press1/Good", "UInt32", "counts: yield"},
		{"NotGood", "Objects/Press1/NotGood", "UInt32", "counts: scrap"},
		{"Ausschuss", "Objects/Press1/Ausschuss", "Int64", "counts: scrap"},
		{"Order", "Objects/Press1/Order", "String", "rule: state"},
		{"OrderNumber", "Objects/Press1/OrderNumber", "String", "rule: state"},
		{"Good", "Objects/Press1/Good", "Double", "rule: reading"},
		{"Temperature", "Objects/Press1/Temperature", "Float", "rule: reading"},
		{"Count", "Objects/Press1/Count", "UInt16", "work_center: Press1"},
	} {
		got := Rules(Source{Name: "press"}, []Tag{tagOf(t, c.name, c.path, c.kind)})
		if len(got) != 1 || !strings.Contains(strings.Join(got[0].Lines, "\n"), c.want) {
			t.Errorf("%s (%s): proposed %+v, want %q", c.path, c.kind, got, c.want)
		}
	}
}

func TestATableWithOrderAndQuantityIsAConfirmation(t *testing.T) {
	got := Rules(Source{Name: "mes"}, []Tag{tagOf(t, "conf", "mes.conf", "", "id", "order_no", "Gut Menge", "scrap", "uom", "booked_at")})
	text := strings.Join(got[0].Lines, "\n")
	for _, want := range []string{"fact: production_confirmation", "order_no: payload.order_no", `yield: payload["Gut Menge"]`, "scrap: payload.scrap", "unit: payload.uom", "finished_at: payload.booked_at"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if got := Rules(Source{Name: "mes"}, []Tag{tagOf(t, "people", "mes.people", "", "id", "name")}); len(got) != 0 {
		t.Errorf("a table that says nothing of production got %+v", got)
	}
}

func TestTagsOfEqualNamesAreToldApartByTheLevelAbove(t *testing.T) {
	tags := []Tag{tagOf(t, "Good", "Objects/Press1/Good", ""), tagOf(t, "Good", "Objects/Press2/Good", ""), tagOf(t, "Good", "Lager/Press2/Good", ""), tagOf(t, "Scrap", "Objects/Press1/Scrap", "")}
	Unique(tags)
	var names []string
	for _, x := range tags {
		names = append(names, x.Name)
		if x.Element.Content[1].Value != x.Name {
			t.Errorf("the configuration says %q, the rules %q", x.Element.Content[1].Value, x.Name)
		}
	}
	if got := strings.Join(names, " "); got != "Press1.Good Press2.Good Good.2 Scrap" {
		t.Error(got)
	}
}

func TestColumnsOfOneTableAreOneTag(t *testing.T) {
	column := func(name string) Tag {
		x := tagOf(t, "conf", "conf/"+name, "text")
		x.Entry.Name = name
		return x
	}
	tags := Merge([]Tag{column("order_no"), column("good"), tagOf(t, "Temperature", "Objects/Temperature", "Float")})
	if len(tags) != 2 || len(tags[0].Fields) != 2 || tags[1].Fields != nil {
		t.Fatalf("%+v", tags)
	}
	whole := tagOf(t, "conf", "conf", "", "order_no", "good", "id")
	whole.Entry.Children = true
	if tags := Merge([]Tag{column("good"), whole, column("id")}); len(tags) != 1 || len(tags[0].Fields) != 3 {
		t.Errorf("%+v", tags)
	}
	if got := Rules(Source{Name: "mes"}, Merge([]Tag{column("order_no"), column("good")})); len(got) != 1 || !strings.Contains(strings.Join(got[0].Lines, "\n"), "yield: payload.good") {
		t.Errorf("%+v", got)
	}
}
