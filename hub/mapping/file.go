package mapping

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"

	"go.yaml.in/yaml/v4"
)

// File is a set with the content of one version, as people keep it in a file.
type File struct {
	Set     `yaml:",inline"`
	Content `yaml:",inline"`
}

// YAML writes a set as YAML.
func (f File) YAML() ([]byte, error) {
	out, err := yaml.Dump(f, yaml.WithIndent(2))
	if err != nil {
		return nil, fmt.Errorf("write mapping set %q: %w", f.Name, err)
	}
	return out, nil
}

// ReadYAML reads what YAML wrote. Keys that it does not know are errors.
func ReadYAML(raw []byte) (f File, err error) {
	if err := yaml.Load(raw, &f, yaml.WithKnownFields(), yaml.WithUniqueKeys()); err != nil {
		return f, fmt.Errorf("read mapping set: %w", err)
	}
	return f, nil
}

// columns of the CSV form. A line is the set itself, a row or a test; what it does not need is empty.
var columns = []string{"line", "name", "kind", "erp", "plant", "unlisted", "from", "to", "factor", "item", "dimension", "direction", "scale", "from_scale", "text", "value", "want", "missing"}

// CSV writes a set as CSV: the set in the first line after the header, then its rows and its tests.
func (f File) CSV() ([]byte, error) {
	var out bytes.Buffer
	w := csv.NewWriter(&out)
	line := func(fields map[string]string) {
		row := make([]string, len(columns))
		for i, c := range columns {
			row[i] = fields[c]
		}
		w.Write(row) // its error is kept
	}
	w.Write(columns)
	line(map[string]string{"line": "set", "name": f.Name, "kind": string(f.Kind), "erp": f.ERP, "plant": f.Plant, "unlisted": f.Unlisted, "scale": scaleText(f.Scale)})
	for _, r := range f.Rows {
		from := ""
		if r.FromScale != 0 {
			from = fmt.Sprint(r.FromScale)
		}
		line(map[string]string{"line": "row", "from": r.From, "to": r.To, "factor": r.Factor, "item": r.Item, "dimension": r.Dimension, "direction": string(r.Direction),
			"scale": scaleText(r.Scale), "from_scale": from, "text": r.Text})
	}
	for _, t := range f.Tests {
		missing := ""
		if t.Missing {
			missing = "true"
		}
		line(map[string]string{"line": "test", "from": t.From, "to": t.To, "item": t.Item, "direction": string(t.Direction), "value": t.Value, "want": t.Want, "missing": missing})
	}
	w.Flush()
	if err := w.Error(); err != nil {
		return nil, fmt.Errorf("write mapping set %q: %w", f.Name, err)
	}
	return out.Bytes(), nil
}

func scaleText(s *int32) string {
	if s == nil {
		return ""
	}
	return fmt.Sprint(*s)
}

// ReadCSV reads what CSV wrote, with the columns in any order. An error names the line.
func ReadCSV(raw []byte) (f File, err error) {
	in := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(raw, []byte("\xef\xbb\xbf"))))
	header, err := in.Read()
	if err != nil {
		return f, fmt.Errorf("read mapping set: the header: %w", err)
	}
	place := map[string]int{}
	for i, name := range header {
		place[name] = i
	}
	for _, name := range []string{"line", "from", "to"} {
		if _, ok := place[name]; !ok {
			return f, fmt.Errorf("read mapping set: there is no column %q; the columns are %v", name, columns)
		}
	}
	sets := 0
	for {
		fields, err := in.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return f, fmt.Errorf("read mapping set: %w", err)
		}
		n, _ := in.FieldPos(0)
		get := func(name string) string {
			if i, ok := place[name]; ok {
				return fields[i]
			}
			return ""
		}
		if get("line") == "set" {
			sets++
		}
		if err := f.take(get); err != nil {
			return f, fmt.Errorf("read mapping set: line %d: %w", n, err)
		}
	}
	if sets != 1 {
		return f, fmt.Errorf("read mapping set: %d lines are the set itself (line: set, name, kind): write one", sets)
	}
	return f, nil
}

func (f *File) take(get func(string) string) error {
	scale, err := number(get("scale"))
	if err != nil {
		return err
	}
	from, err := number(get("from_scale"))
	if err != nil {
		return err
	}
	switch get("line") {
	case "set":
		f.Set = Set{get("name"), Kind(get("kind")), get("erp"), get("plant")}
		f.Unlisted, f.Scale = get("unlisted"), scale
	case "row":
		r := Row{From: get("from"), To: get("to"), Factor: get("factor"), Item: get("item"), Dimension: get("dimension"), Direction: Direction(get("direction")), Scale: scale, Text: get("text")}
		if from != nil {
			r.FromScale = *from
		}
		f.Rows = append(f.Rows, r)
	case "test":
		missing := get("missing")
		if missing != "" && missing != "true" && missing != "false" {
			return fmt.Errorf("missing is %q: write true or nothing", missing)
		}
		f.Tests = append(f.Tests, Test{Direction: Direction(get("direction")), From: get("from"), Item: get("item"), Value: get("value"), To: get("to"), Want: get("want"), Missing: missing == "true"})
	default:
		return fmt.Errorf("it is a %q: the first column says set, row or test", get("line"))
	}
	return nil
}

func number(text string) (*int32, error) {
	if text == "" {
		return nil, nil
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("scale %q is no number", text)
	}
	v := int32(n)
	return &v, nil
}
