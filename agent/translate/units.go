package translate

import "strings"

// rec20 are the codes of UN/ECE Recommendation 20 (and package codes of Recommendation 21) that shop floors use. Any other
// code has to be named in the units table: an unknown unit stops, it is never taken for "each".
var rec20 = func() map[string]bool {
	m := map[string]bool{}
	for _, code := range strings.Fields(`
		C62 H87 EA PR SET DZN NMP TPR MIL CEN GRO NAR NPR RO ST BG LEF
		KGM GRM MGM TNE DTN HGM LBR ONZ STN LTN
		LTR MLT CLT DLT HLT MTQ CMQ DMQ MMQ FTQ INQ GLL GLI OZA
		MTR CMT DMT MMT KMT INH FOT YRD 4H
		MTK CMK DMK MMK FTK INK HAR
		SEC MIN HUR DAY WEE MON ANN C26
		KWH WHR MWH JOU KJO GV KWT WTT
		CEL KEL FAH BAR PAL KPA MPA
		AMP VLT OHM HTZ P1 1I E48 ZZ
		XBX XPX XCT XBG XPK XRO XDR XCR XPA XPC XBA XCA XST`) {
		m[code] = true
	}
	return m
}()

// unit returns the Rec 20 code of a source's unit text.
func (t *Translator) unit(text string) (code string, ok bool) {
	if code, ok = t.units[text]; ok {
		return code, true
	}
	return text, rec20[text]
}

// spoken is how a unit code reads on the operator's page.
func spoken(code string) string {
	switch code {
	case "C62", "H87", "EA":
		return "pcs"
	case "KGM":
		return "kg"
	case "GRM":
		return "g"
	case "TNE":
		return "t"
	case "LTR":
		return "l"
	case "MTR":
		return "m"
	}
	return code
}

// whole tells the units that count things: a fraction of them is a fault of the source.
func whole(code string) bool {
	switch code {
	case "C62", "H87", "EA", "PR", "SET", "NAR":
		return true
	}
	return false
}
