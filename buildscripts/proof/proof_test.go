// Package proof holds the check that PROOF.md tells the truth about what exists.
//
// It owns nothing but that test. It promises that a test, a drill or a promise that PROOF.md names exists, and that every
// drill and every promise is named there. It runs none of them.
package proof

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/linekeeper/linekeeper/agent/drill"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

var (
	named   = regexp.MustCompile("`([a-z0-9/]+) ((?:Test|Fuzz)[A-Za-z0-9]+)`")
	promise = regexp.MustCompile(`(?m)^([0-9]+)\. `)
)

// row is one line of a table in PROOF.md.
type row struct {
	disaster, promises, tests, drill string
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(realparts.Root(), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func rows(t *testing.T) (list []row) {
	t.Helper()
	for line := range strings.Lines(read(t, "PROOF.md")) {
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|---") || strings.HasPrefix(line, "| disaster |") {
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 4 {
			t.Errorf("this line has %d cells instead of 4: %s", len(cells), line)
			continue
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		list = append(list, row{cells[0], cells[1], cells[2], cells[3]})
	}
	if len(list) == 0 {
		t.Fatal("PROOF.md has no table")
	}
	return list
}

// testsOf lists the tests and fuzz targets in a package's folder.
func testsOf(t *testing.T, pkg string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(realparts.Root(), filepath.FromSlash(pkg), "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil {
				found[fn.Name.Name] = true
			}
		}
	}
	return found
}

func TestEveryTestThatIsNamedExists(t *testing.T) {
	known := map[string]map[string]bool{}
	for _, r := range rows(t) {
		tests := named.FindAllStringSubmatch(r.tests, -1)
		if len(tests) == 0 || len(tests) != strings.Count(r.tests, "`")/2 {
			t.Errorf("%q names no test, or one that is not written as `package Test`: %s", r.disaster, r.tests)
		}
		for _, m := range tests {
			if known[m[1]] == nil {
				known[m[1]] = testsOf(t, m[1])
			}
			if !known[m[1]][m[2]] {
				t.Errorf("%q names %s of package %s, which does not exist", r.disaster, m[2], m[1])
			}
		}
	}
}

func TestEveryDrillIsNamedAndExists(t *testing.T) {
	words := append(drill.Words(), "all")
	used := map[string]bool{}
	for _, r := range rows(t) {
		if r.drill != "" && !slices.Contains(words, r.drill) {
			t.Errorf("%q names the drill %q; there are %s", r.disaster, r.drill, strings.Join(words, ", "))
		}
		used[r.drill] = true
	}
	for _, w := range words {
		if !used[w] {
			t.Errorf("no line names the drill %q", w)
		}
	}
}

func TestEveryPromiseIsNamedAndExists(t *testing.T) {
	_, text, ok := strings.Cut(read(t, "ARCHITECTURE.md"), "\n## Guaranteed")
	text, _, _ = strings.Cut(text, "\n## ")
	given := map[string]bool{}
	for _, m := range promise.FindAllStringSubmatch(text, -1) {
		given[m[1]] = true
	}
	if !ok || len(given) == 0 {
		t.Fatal("ARCHITECTURE.md guarantees nothing")
	}
	used := map[string]bool{}
	for _, r := range rows(t) {
		for p := range strings.SplitSeq(r.promises, ",") {
			if p = strings.TrimSpace(p); !given[p] {
				t.Errorf("%q names promise %q, which ARCHITECTURE.md does not give", r.disaster, p)
			}
			used[p] = true
		}
	}
	for p := range given {
		if !used[p] {
			t.Errorf("nothing is shown for promise %s", p)
		}
	}
}

// The check is worth something only if it can fail.
func TestWhatDoesNotExistIsNotFound(t *testing.T) {
	tests := testsOf(t, "buildscripts/proof")
	if !tests["TestWhatDoesNotExistIsNotFound"] || tests["TestThatNobodyWrote"] || len(testsOf(t, "no/such/package")) > 0 {
		t.Errorf("found %v", tests)
	}
}
