package translate

// UnitCode returns the Rec 20 code of a unit's text by a units table, and whether it is a known one.
func UnitCode(table map[string]string, text string) (code string, known bool) {
	return (&Translator{units: table}).unit(text)
}

// LooksLikeUnitCode reports whether a text has the form of a Rec 20 code, known or not.
func LooksLikeUnitCode(text string) bool { return unitCode(text) }
