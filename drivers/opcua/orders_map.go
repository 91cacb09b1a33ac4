package opcua

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/gopcua/opcua/ua"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/opcua/jobcontrol"
)

// jobOrder is a work order in the words of job control.
func jobOrder(o signal.WorkOrder) *jobcontrol.Order {
	priority := int16(max(-1<<15, min(int64(o.Priority), 1<<15-1)))
	j := &jobcontrol.Order{ID: o.OrderNo, Description: texts(o.Description), Start: o.PlannedStart, End: o.PlannedEnd}
	if o.Priority != 0 {
		j.Priority = &priority
	}
	if o.Item != "" {
		j.WorkMasters = []jobcontrol.WorkMaster{{ID: o.Item, Description: jobcontrol.Text{Text: o.Description}}}
		j.Materials = append(j.Materials, jobcontrol.Material{Definition: o.Item, Lot: o.Lot, Description: texts(o.Description), Use: "Produced",
			Quantity: string(o.Quantity), Unit: jobcontrol.UnitOf(o.Unit)})
	}
	add := func(id, value string) {
		if value != "" {
			j.Parameters = append(j.Parameters, jobcontrol.Parameter{ID: id, Value: ua.MustVariant(value)})
		}
	}
	j.Parameters = []jobcontrol.Parameter{{ID: revisionParameter, Value: ua.MustVariant(o.Revision)}}
	add("Quantity", string(o.Quantity))
	add("Unit", o.Unit)
	add("Lot", o.Lot)
	add("WorkCenter", o.WorkCenter)
	for _, op := range o.Operations {
		p := jobcontrol.Parameter{ID: "Operation", Value: ua.MustVariant(op.Operation), Description: texts(op.Description)}
		for _, part := range [][2]string{{"WorkCenter", op.WorkCenter}, {"Quantity", string(op.Quantity)}, {"Unit", op.Unit}} {
			if part[1] != "" {
				p.Parts = append(p.Parts, jobcontrol.Parameter{ID: part[0], Value: ua.MustVariant(part[1])})
			}
		}
		j.Parameters = append(j.Parameters, p)
	}
	for _, c := range o.Components {
		p := jobcontrol.Material{Definition: c.Item, Description: texts(c.Description), Use: "Consumed", Quantity: string(c.Required), Unit: jobcontrol.UnitOf(c.Unit)}
		for _, property := range [][2]string{{"Operation", c.Operation}, {"Reservation", c.Reservation}} {
			if property[1] != "" {
				p.Properties = append(p.Properties, jobcontrol.Parameter{ID: property[0], Value: ua.MustVariant(property[1])})
			}
		}
		j.Materials = append(j.Materials, p)
	}
	return j
}

// revisionParameter carries the order's revision, by which a job is recognised.
const revisionParameter = "Revision"

func texts(s string) []jobcontrol.Text {
	if s == "" {
		return nil
	}
	return []jobcontrol.Text{{Text: s}}
}

// revisionOf reads the revision that a job carries; none when the machine does not keep it.
func revisionOf(o *jobcontrol.Order) int64 {
	p := o.Parameter(revisionParameter)
	if p == nil {
		return none
	}
	text, _ := valueText(p.Value)
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return none
	}
	return n
}

// sameJob compares what two orders ask of a machine, but for their revision. What the machine does not keep is not compared.
func sameJob(want, has *jobcontrol.Order) bool {
	same := func(a, b time.Time) bool { return a.Sub(b).Abs() < time.Millisecond } // as fine as machines keep it
	if !same(want.Start, has.Start) || !same(want.End, has.End) || len(want.WorkMasters) != len(has.WorkMasters) {
		return false
	}
	for i := range want.WorkMasters {
		if want.WorkMasters[i].ID != has.WorkMasters[i].ID {
			return false
		}
	}
	material := func(a, b jobcontrol.Material) bool {
		return a.Definition == b.Definition && a.Quantity == b.Quantity && a.Lot == b.Lot && a.Use == b.Use
	}
	if !slices.EqualFunc(want.Materials, has.Materials, material) {
		return false
	}
	if len(has.Parameters) == 0 {
		return true
	}
	parameter := func(a, b jobcontrol.Parameter) bool {
		x, _ := valueText(a.Value)
		y, _ := valueText(b.Value)
		return a.ID == b.ID && (a.ID == revisionParameter || x == y)
	}
	return slices.EqualFunc(want.Parameters, has.Parameters, parameter)
}

// valueText is a single value as text, a number in its shortest form; structures, arrays and what is no number have none.
func valueText(v *ua.Variant) (string, bool) {
	if v == nil {
		return "", false
	}
	switch x := v.Value().(type) {
	case string:
		return x, true
	case bool, int8, uint8, int16, uint16, int32, uint32, int64, uint64:
		return fmt.Sprint(x), true
	case float32:
		return floatText(float64(x), 32)
	case float64:
		return floatText(x, 64)
	case time.Time:
		return x.UTC().Format(time.RFC3339Nano), true
	case *ua.LocalizedText:
		return x.Text, true
	}
	return "", false
}

func floatText(f float64, bits int) (string, bool) {
	return strconv.FormatFloat(f, 'f', -1, bits), !math.IsNaN(f) && !math.IsInf(f, 0)
}
