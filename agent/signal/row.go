package signal

// Columns are the names of a table's columns, shared by the rows of a table.
type Columns struct {
	names []string
	at    map[string]int
}

// NewColumns takes names, each once, in the order in which rows have their values.
func NewColumns(names []string) *Columns {
	c := &Columns{names: names, at: make(map[string]int, len(names))}
	for i, n := range names {
		c.at[n] = i
	}
	return c
}

// Row is a row of a table: what a map of its columns says, without a map for each of many rows. Nobody changes it.
type Row struct {
	*Columns
	// Values has a value of Signal's vocabulary for each column.
	Values []any
}

// Place is where a column stands among the values; -1 without such a column.
func (c *Columns) Place(name string) int {
	if i, ok := c.at[name]; ok {
		return i
	}
	return -1
}

// Get is a column's value; nil, false without such a column.
func (r *Row) Get(name string) (v any, ok bool) {
	i, ok := r.at[name]
	if !ok {
		return nil, false
	}
	return r.Values[i], true
}

// Map is the row as a map of its own.
func (r *Row) Map() map[string]any {
	m := make(map[string]any, len(r.Values))
	for i, v := range r.Values {
		m[r.names[i]] = v
	}
	return m
}

// Whole returns the map that a *Row stands for, and every other value as it is: for whoever treats rows like any structured
// message.
func Whole(v any) any {
	if r, ok := v.(*Row); ok {
		return r.Map()
	}
	return v
}
