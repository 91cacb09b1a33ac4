package s4

// Impatient lets a test's AbsentAfter be shorter than a request may take.
func Impatient(c Config) Config {
	c.impatient = true
	return c
}
