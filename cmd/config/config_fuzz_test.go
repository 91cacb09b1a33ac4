package config_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/cmd/config"
)

// FuzzParse reads anything as a configuration file: what is refused names its faults, each with a line that the file has.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"plant: ulm\nlimits: {a: 1, b: [2, 3]}\nwait: 5s\n", "plant: [1]\n", "plnt: ulm\n", "plant: a\nplant: b\n", "wait: soon\n",
		"a: &x [*x]\n", "a: &a [1]\nb: *a\n", "<<: {plant: x}\n", "\xff\xfe", "---\n---\n", "? [a]\n: b\n", "# nothing\n",
	} {
		f.Add([]byte(s))
	}
	type inner struct {
		Name string `yaml:"name"`
		Size int    `yaml:"size"`
	}
	type file struct {
		Plant  string            `yaml:"plant"`
		Limits map[string]any    `yaml:"limits"`
		Names  map[string]string `yaml:"names"`
		List   []inner           `yaml:"list"`
		Wait   time.Duration     `yaml:"wait"`
		Rest   []config.Section  `yaml:"rest"`
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var into file
		err := config.Parse("f.yaml", raw, &into)
		config.Lines(raw)
		if err == nil {
			return
		}
		var faults *config.Faults
		if !errors.As(err, &faults) || len(faults.List) == 0 {
			t.Fatalf("%v names no fault", err)
		}
		last := strings.Count(strings.ReplaceAll(string(raw), "\r", "\n"), "\n") + 2 // its end counts as a line of its own
		for _, x := range faults.List {
			if strings.TrimSpace(x.Text) == "" || x.Line < 0 || x.Line > last {
				t.Fatalf("fault %+v in a file of %d lines", x, last)
			}
		}
	})
}
