package translate

import (
	"maps"
	"slices"
)

// Feeds returns the sources, and with them those that say what their counts are booked on: which order runs on the same work
// centres, and the tags of other sources that their rules look at. What is counted can only be counted again with all of them.
func (t *Translator) Feeds(sources []string) []string {
	all := map[string]bool{}
	for _, s := range sources {
		all[s] = true
	}
	for n := 0; n < len(all); {
		n = len(all)
		centers := map[string]bool{}
		for _, r := range t.rules {
			if !all[r.source] {
				continue
			}
			centers[r.center] = r.center != ""
			for _, center := range r.centers {
				centers[center] = true
			}
			for _, from := range t.fedBy[r.source] {
				all[from] = true
			}
		}
		for _, r := range t.rules {
			if r.fact == factOrderState && (r.kind == kindState || r.kind == kindRecord) && centers[r.center] {
				all[r.source] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(all))
}
