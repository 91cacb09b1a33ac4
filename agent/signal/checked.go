package signal

import "slices"

// CheckedFields are the fields of a work order that an OrderChecker can look up.
var CheckedFields = []string{"item", "unit", "work_center", "operation", "component"}

// Values are an order's values of one of CheckedFields, each once and sorted; what the order leaves empty is not among them.
func (o *WorkOrder) Values(field string) []string {
	var out []string
	switch field {
	case "item":
		out = []string{o.Item}
	case "unit":
		out = []string{o.Unit}
	case "work_center":
		out = []string{o.WorkCenter}
		for _, x := range o.Operations {
			out = append(out, x.WorkCenter)
		}
	case "operation":
		for _, x := range o.Operations {
			out = append(out, x.Operation)
		}
	case "component":
		for _, x := range o.Components {
			out = append(out, x.Item)
		}
	}
	slices.Sort(out)
	return slices.DeleteFunc(slices.Compact(out), func(v string) bool { return v == "" })
}
