package config

import (
	"fmt"

	yaml "go.yaml.in/yaml/v4"
)

// Lines maps each key of a file to its line: "listen", "buffer.segment_size", "rules[2].unit". A file that cannot be read
// as YAML has none.
func Lines(raw []byte) map[string]int {
	var root yaml.Node
	lines := map[string]int{}
	if err := yaml.Load(raw, &root); err != nil || len(root.Content) == 0 {
		return lines
	}
	walk(root.Content[0], "", lines)
	return lines
}

func walk(node *yaml.Node, path string, lines map[string]int) {
	switch node.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			key := node.Content[i]
			at := key.Value
			if path != "" {
				at = path + "." + at
			}
			lines[at] = key.Line
			walk(node.Content[i+1], at, lines)
		}
	case yaml.SequenceNode:
		for i, item := range node.Content {
			at := fmt.Sprintf("%s[%d]", path, i)
			lines[at] = item.Line
			walk(item, at, lines)
		}
	}
}
