package generic

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// rec20 are codes of UN/ECE Recommendation 20 that need no entry.
var rec20 = strings.Fields("C62 H87 EA KGM GRM MGM TNE LBR ONZ LTR MLT HLT MTQ MTR CMT MMT KMT MTK SEC MIN HUR DAY PR SET KWH")

// Units translates between a system's units and those of UN/ECE Recommendation 20, one to one.
type Units struct{ ours, theirs map[string]string }

// NewUnits reads a map from theirs to ours; usual codes of the recommendation need no entry.
func NewUnits(configured map[string]string) (Units, error) {
	u := Units{map[string]string{}, map[string]string{}}
	back := map[string]string{}
	for _, from := range slices.Sorted(maps.Keys(configured)) {
		to := configured[from]
		if other, twice := back[to]; twice || to == "" {
			return u, fmt.Errorf("units: %q and %q both mean %q; it must be clear which one to write", other, from, to)
		}
		back[to] = from
	}
	for _, code := range rec20 {
		u.ours[code], u.theirs[code] = code, code
	}
	for from, to := range configured {
		u.ours[from], u.theirs[to] = to, from
	}
	return u, nil
}

// Ours is a unit of the system in our words.
func (u Units) Ours(theirs string) (string, error) {
	if ours, ok := u.ours[theirs]; ok {
		return ours, nil
	}
	return "", fmt.Errorf("unit %q is not mapped: add it to units", theirs)
}

// Theirs is a unit of ours in the system's words, empty when there is none.
func (u Units) Theirs(ours string) string { return u.theirs[ours] }
