package s4

import (
	"cmp"
	"fmt"
	"strings"
)

// rec20 are units whose ISO code in SAP is the code of UN/ECE Recommendation 20.
const rec20 = " C62 H87 EA KGM GRM MGM TNE LBR ONZ LTR MLT HLT MTQ DMQ CMQ MTR CMT MMT KMT FOT INH MTK CMK MMK FTK SEC MIN HUR DAY PR DZN SET KWH MTS "

// units translates between SAP's codes and Recommendation 20.
type units struct {
	to   map[string]string
	back map[string][]string
}

func newUnits(configured map[string]string) units {
	u := units{to: map[string]string{}, back: map[string][]string{}}
	for _, code := range strings.Fields(rec20) {
		u.to[code] = code
	}
	for code, unit := range configured {
		u.to[code] = unit
	}
	for code, unit := range configured {
		u.back[unit] = append(u.back[unit], code)
	}
	return u
}

// known translates an ISO code, or the commercial code where there is none. It never guesses.
func (u units) known(iso, commercial string) (string, error) {
	code := cmp.Or(iso, commercial)
	if unit, ok := u.to[code]; ok && code != "" {
		return unit, nil
	}
	return "", fmt.Errorf("unit %q of SAP is not mapped: add it to units", code)
}

// iso is the ISO code for a unit of ours where nothing in SAP says which it uses: only one that is clear.
func (u units) iso(unit string) (string, error) {
	codes := u.back[unit]
	if len(codes) == 0 && u.to[unit] == unit {
		return unit, nil
	}
	var iso []string
	for _, c := range codes {
		if len(c) == 3 { // ISO codes have three letters
			iso = append(iso, c)
		}
	}
	switch {
	case len(iso) == 1:
		return iso[0], nil
	case u.to[unit] == unit:
		return unit, nil
	case len(iso) > 1:
		return "", fmt.Errorf("unit %q has several codes in SAP (%s): the item must be a component of the order", unit, strings.Join(iso, ", "))
	}
	return "", fmt.Errorf("unit %q is not mapped to a code of SAP: add it to units", unit)
}
