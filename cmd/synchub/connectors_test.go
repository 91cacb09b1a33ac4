package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/hub"
	"github.com/linekeeper/linekeeper/hub/connector"
)

// tables reads the tables of CONNECTORS.md: by connector, then by column. Each has a row for each connector.
func tables(t *testing.T) (all []map[string]map[string]string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(realparts.Root(), "CONNECTORS.md"))
	if err != nil {
		t.Fatal(err)
	}
	var columns []string
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "|") {
			columns = nil
			continue
		}
		var cells []string
		for cell := range strings.SplitSeq(strings.Trim(strings.TrimSpace(line), "|"), "|") {
			cells = append(cells, strings.TrimSpace(cell))
		}
		switch {
		case columns == nil:
			columns, all = cells, append(all, map[string]map[string]string{})
		case strings.HasPrefix(line, "|---"):
		case len(cells) != len(columns):
			t.Errorf("this line of CONNECTORS.md has %d cells instead of %d: %s", len(cells), len(columns), line)
		default:
			row := map[string]string{}
			for i, c := range columns {
				row[c] = cells[i]
				if cells[i] == "" {
					t.Errorf("CONNECTORS.md says nothing of %q of connector %s", c, cells[0])
				}
			}
			all[len(all)-1][cells[0]] = row
		}
	}
	return all
}

// sampled makes a connector of its sample, with settings over it.
func sampled(t *testing.T, k hub.ConnectorKind, settings string) connector.Connector {
	t.Helper()
	dir := t.TempDir()
	for _, name := range regexp.MustCompile(`file: ([\w.-]+)`).FindAllStringSubmatch(k.Sample, -1) {
		secret := "secret\n"
		if name[1] == "erp-database.txt" {
			secret = "postgres://erp@127.0.0.1:1/erp\n"
		}
		save(t, filepath.Join(dir, name[1]), secret)
	}
	c, err := k.New(k.Name, dir, func(into any) error {
		if err := yaml.Unmarshal([]byte(k.Sample), into); err != nil {
			return err
		}
		return yaml.Unmarshal([]byte(settings), into)
	})
	if err != nil {
		t.Fatalf("make connector %s of its sample and %q: %v", k.Name, settings, err)
	}
	if closer, ok := c.(interface{ Close() error }); ok {
		t.Cleanup(func() { closer.Close() })
	}
	return c
}

var setting = regexp.MustCompile("^by `([^`]+)`")

// CONNECTORS.md says of each connector in the program what it can prove, and the program agrees.
func TestConnectorsTableIsTrue(t *testing.T) {
	all := tables(t)
	if len(all) != 2 {
		t.Fatalf("CONNECTORS.md has %d tables, want 2", len(all))
	}
	var names []string
	for _, k := range connectors() {
		names = append(names, k.Name)
		for i, table := range all {
			if table[k.Name] == nil {
				t.Errorf("connector %q is in cmd/synchub and has no row in table %d of CONNECTORS.md: add one that says what the system can and cannot prove", k.Name, i+1)
			}
		}
		if row := all[0][k.Name]; row != nil {
			t.Run(k.Name, func(t *testing.T) { compare(t, k, row) })
		}
	}
	for i, table := range all {
		for name := range table {
			if !slices.Contains(names, name) {
				t.Errorf("table %d of CONNECTORS.md has a row for %q, which is no connector of cmd/synchub: take it out", i+1, name)
			}
		}
	}
}

func compare(t *testing.T, k hub.ConnectorKind, row map[string]string) {
	c := sampled(t, k, "")
	_, lots := c.(connector.LotStockReader)
	if says := row["reads stock"]; lots != strings.Contains(says, "lot") {
		t.Errorf("CONNECTORS.md says that it reads stock: %q, and that it keeps lots apart is %v", says, lots)
	}
	for column, has := range map[string]func(connector.Connector) bool{
		"key kept":              func(c connector.Connector) bool { return c.Capabilities().ExternalKey },
		"tied to what was read": func(c connector.Connector) bool { return c.Capabilities().CompareAndSet },
		"takes facts back":      func(c connector.Connector) bool { return len(c.Capabilities().Reverses) > 0 },
		"takes one document back": func(c connector.Connector) bool {
			_, ok := c.(connector.DocumentReverser)
			return ok
		},
		"reads many back by one call": func(c connector.Connector) bool {
			_, ok := c.(connector.ManyVerifier)
			return ok
		},
		"movement types":  func(c connector.Connector) bool { return c.Capabilities().MovementTypes },
		"lists documents": func(c connector.Connector) bool { _, ok := c.(connector.EffectReader); return ok },
		"reads stock":     func(c connector.Connector) bool { _, ok := c.(connector.StockReader); return ok },
	} {
		says, known := row[column]
		by := setting.FindStringSubmatch(says)
		word := regexp.MustCompile(`^[a-z]*`).FindString(says)
		switch {
		case !known:
			t.Errorf("the first table of CONNECTORS.md has no column %q", column)
		case by != nil:
			if before, after := has(c), has(sampled(t, k, by[1])); before == after {
				t.Errorf("CONNECTORS.md says that %s turns %q of connector %s round, and it is %t with it and without", by[1], column, k.Name, after)
			}
		case word != "yes" && word != "no":
			t.Errorf("CONNECTORS.md says %q of %q of connector %s: begin with yes, no, or by and a setting between backquotes", says, column, k.Name)
		case (word == "yes") != has(c):
			t.Errorf("CONNECTORS.md says %q of %q of connector %s, and the connector says %t: correct the row", says, column, k.Name, has(c))
		}
	}
	want := time.Duration(0)
	if says := row["settles within"]; says != "none" {
		var err error
		if want, err = time.ParseDuration(says); err != nil {
			t.Errorf("CONNECTORS.md says %q of \"settles within\" of connector %s: write none, or a time such as 2m", says, k.Name)
		}
	}
	if have := c.Capabilities().Settle; have != want {
		t.Errorf("CONNECTORS.md says that connector %s settles within %s, and it says %s", k.Name, want, have)
	}
}
