package b2mml

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// Format says which documents Write makes.
type Format struct {
	// Version is V0401, V0600 or V0700 (default).
	Version string `yaml:"version"`
	// Model is operations (OperationsSchedule; default of V0600 and V0700), work (WorkSchedule with job orders; V0600, V0700)
	// or production (ProductionSchedule; V0401).
	Model string `yaml:"model"`
	// Envelope is process (default), sync, or none: the schedule alone.
	Envelope string `yaml:"envelope"`
	// Sender is the envelope's LogicalID.
	Sender string `yaml:"sender"`
}

var spaces = map[string]string{"V0401": "http://www.wbf.org/xml/B2MML-V0401", "V0600": "http://www.mesa.org/xml/B2MML-V0600", "V0700": "http://www.mesa.org/xml/B2MML"}

// Fill puts defaults in and reports what is not possible.
func (f *Format) Fill() error {
	if f.Version == "" {
		f.Version = "V0700"
	}
	models := map[string][]string{"V0401": {"production"}, "V0600": {"operations", "work", "production"}, "V0700": {"operations", "work"}}[f.Version]
	if models == nil {
		return fmt.Errorf("version %q is none of V0401, V0600, V0700", f.Version)
	}
	if f.Model == "" {
		f.Model = models[0]
	}
	if !slices.Contains(models, f.Model) {
		return fmt.Errorf("model %q does not exist in %s: choose one of %v", f.Model, f.Version, models)
	}
	if f.Envelope == "" {
		f.Envelope = "process"
	}
	if f.Envelope != "process" && f.Envelope != "sync" && f.Envelope != "none" {
		return fmt.Errorf("envelope %q is none of process, sync, none", f.Envelope)
	}
	return nil
}

// Write makes the document of one revision of a work order; created is the time that it carries. A cancelled order becomes a
// Cancel transaction (or, with envelope sync, one with the action Delete) whose request has the state Cancelled; that of a held one is Held. One segment
// stands for each operation: the last one makes the item, and each consumes its own components.
func Write(o signal.WorkOrder, f Format, created time.Time) ([]byte, error) {
	if err := f.Fill(); err != nil {
		return nil, err
	}
	w := &writer{f: f, o: o, created: created}
	noun := map[string]string{"operations": "OperationsSchedule", "work": "WorkSchedule", "production": "ProductionSchedule"}[f.Model]
	w.b.WriteString(xml.Header)
	if f.Envelope == "none" {
		w.schedule(noun, fmt.Sprintf(" xmlns=%q", spaces[f.Version]))
		return w.b.Bytes(), nil
	}
	verb := map[string]string{"process": "Process", "sync": "Sync"}[f.Envelope]
	if o.Cancelled && verb == "Process" {
		verb = "Cancel"
	}
	w.in(verb+noun, fmt.Sprintf(" xmlns=%q releaseID=%q", spaces[f.Version], f.Version), func() {
		w.in("ApplicationArea", "", func() {
			if f.Sender != "" {
				w.in("Sender", "", func() { w.leaf("LogicalID", f.Sender) })
			}
			w.leaf("CreationDateTime", w.time(created))
			w.leaf("BODID", MessageID(o.OrderNo, o.Revision))
		})
		w.in("DataArea", "", func() {
			w.verb(verb, noun)
			w.schedule(noun, "")
		})
	})
	return w.b.Bytes(), nil
}

type writer struct {
	f       Format
	o       signal.WorkOrder
	created time.Time
	b       bytes.Buffer
	depth   int
}

func (w *writer) line(parts ...string) {
	for range w.depth {
		w.b.WriteString("  ")
	}
	for _, p := range parts {
		w.b.WriteString(p)
	}
	w.b.WriteByte('\n')
}

func (w *writer) in(name, attributes string, content func()) {
	w.line("<", name, attributes, ">")
	w.depth++
	content()
	w.depth--
	w.line("</", name, ">")
}

// leaf writes an element with a text; an empty one is left out.
func (w *writer) leaf(name, text string) {
	if text != "" {
		w.line("<", name, ">", escaped(text), "</", name, ">")
	}
}

func escaped(text string) string {
	var b bytes.Buffer
	xml.EscapeText(&b, []byte(text)) // a buffer takes everything
	return b.String()
}

// time carries its zone.
func (w *writer) time(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format(time.RFC3339)
}

func (w *writer) v0700() bool { return w.f.Version == "V0700" }

func (w *writer) verb(verb, noun string) {
	switch {
	case verb == "Process":
		w.line(`<Process acknowledgeCode="Always"/>`)
	case verb == "Sync":
		code := "Add"
		if w.o.Cancelled {
			code = "Delete"
		}
		w.in("Sync", "", func() {
			w.in("ActionCriteria", "", func() {
				w.line(`<ActionExpression actionCode="`, code, `">/`, noun, `</ActionExpression>`)
			})
		})
	default:
		w.line("<", verb, "/>")
	}
}

func (w *writer) state() string {
	switch {
	case w.o.Cancelled:
		return "Cancelled"
	case w.o.Held:
		return "Held"
	}
	return "Released"
}

func (w *writer) priority() string {
	if w.o.Priority == 0 {
		return ""
	}
	return strconv.Itoa(int(w.o.Priority))
}

// scope says where; each version has its own words for the levels.
func (w *writer) scope(center string) {
	if center == "" {
		return
	}
	name, level := "HierarchyScope", "WorkCenter"
	if w.f.Model == "production" {
		name, level = "Location", "WorkCell"
	}
	w.in(name, "", func() {
		w.leaf("EquipmentID", center)
		w.leaf("EquipmentElementLevel", level)
	})
}

// schedule writes the noun with its one request. Each version has an order of elements of its own.
func (w *writer) schedule(noun, attributes string) {
	w.in(noun, attributes, func() {
		w.leaf("ID", MessageID(w.o.OrderNo, w.o.Revision))
		switch {
		case w.f.Model == "production":
			w.leaf("PublishedDate", w.time(w.created))
			w.productionRequest()
		case w.f.Model == "work":
			w.leaf("WorkType", "Production")
			w.leaf("ScheduleState", w.state())
			w.leaf("PublishedDate", w.time(w.created))
			w.workRequest()
		case w.v0700():
			w.leaf("Version", strconv.FormatInt(w.o.Revision, 10))
			w.leaf("PublishedDate", w.time(w.created))
			w.leaf("OperationsType", "Production")
			w.leaf("ScheduleState", w.state())
			w.operationsRequest()
		default:
			w.leaf("OperationsType", "Production")
			w.leaf("ScheduleState", w.state())
			w.leaf("PublishedDate", w.time(w.created))
			w.operationsRequest()
		}
	})
}

func (w *writer) times() {
	w.leaf("StartTime", w.time(w.o.PlannedStart))
	w.leaf("EndTime", w.time(w.o.PlannedEnd))
}

func (w *writer) operationsRequest() {
	w.in("OperationsRequest", "", func() {
		w.leaf("ID", w.o.OrderNo)
		w.leaf("Description", w.o.Description)
		if w.v0700() {
			w.leaf("Version", strconv.FormatInt(w.o.Revision, 10))
			w.times()
		}
		w.scope(w.o.WorkCenter)
		w.leaf("OperationsType", "Production")
		if !w.v0700() {
			w.times()
		}
		w.leaf("Priority", w.priority())
		if w.v0700() {
			w.leaf("RequestState", w.state())
			w.leaf("OperationsDefinitionID", w.o.Item)
		} else {
			w.leaf("OperationsDefinitionID", w.o.Item)
			w.leaf("RequestState", w.state())
		}
		for i, op := range w.operations() {
			w.in("SegmentRequirement", "", func() { w.operationsSegment(i, op) })
		}
	})
}

// operations are those of the order, or the order itself as its only one.
func (w *writer) operations() []signal.Operation {
	if len(w.o.Operations) > 0 {
		return w.o.Operations
	}
	return []signal.Operation{{Operation: w.o.OrderNo, WorkCenter: w.o.WorkCenter}}
}

func (w *writer) operationsSegment(i int, op signal.Operation) {
	w.leaf("ID", op.Operation)
	w.leaf("Description", op.Description)
	w.scope(op.WorkCenter)
	w.leaf("OperationsType", "Production")
	w.leaf("ProcessSegmentID", op.Operation)
	if w.v0700() { // both are required there
		w.leaf("OperationsDefinitionID", orElse(w.o.Item, w.o.OrderNo))
		w.leaf("OperationsSegmentID", op.Operation)
	}
	w.quantityParameter("SegmentParameter", op)
	w.materials(i)
}

// quantityParameter is how many pieces an operation has to do, where that is said.
func (w *writer) quantityParameter(name string, op signal.Operation) {
	if op.Quantity == "" {
		return
	}
	w.in(name, "", func() {
		w.leaf("ID", "Quantity")
		w.value(string(op.Quantity), "decimal", op.Unit)
	})
}

func (w *writer) value(text, kind, unit string) {
	w.in("Value", "", func() {
		w.leaf("ValueString", text)
		w.leaf("DataType", kind)
		w.leaf("UnitOfMeasure", unit)
	})
}

// materials writes what the i-th operation makes and takes.
func (w *writer) materials(i int) {
	ops := w.operations()
	if i == len(ops)-1 && w.o.Item != "" {
		w.material(1, signal.Component{Item: w.o.Item, Required: w.o.Quantity, Unit: w.o.Unit}, w.o.Lot, "Produced")
	}
	known := map[string]bool{}
	for _, op := range ops {
		known[op.Operation] = true
	}
	for n, c := range w.o.Components {
		if c.Operation == ops[i].Operation || i == 0 && !known[c.Operation] {
			w.material(n+2, c, "", "Consumed")
		}
	}
}

func (w *writer) material(n int, c signal.Component, lot, use string) {
	w.in("MaterialRequirement", "", func() {
		if w.v0700() {
			w.leaf("ID", strconv.Itoa(n))
		}
		w.leaf("MaterialDefinitionID", c.Item)
		w.leaf("MaterialLotID", lot)
		w.leaf("Description", c.Description)
		w.leaf("MaterialUse", use)
		if c.Required != "" {
			w.in("Quantity", "", func() {
				w.leaf("QuantityString", string(c.Required))
				w.leaf("DataType", "decimal")
				w.leaf("UnitOfMeasure", c.Unit)
			})
		}
		w.property("Reservation", c.Reservation)
		if c.Backflush {
			w.property("Backflush", "true")
		}
	})
}

func (w *writer) property(id, text string) {
	if text == "" {
		return
	}
	kind := "string"
	if id == "Backflush" {
		kind = "boolean"
	}
	w.in("MaterialRequirementProperty", "", func() {
		w.leaf("ID", id)
		w.value(text, kind, "")
	})
}

func (w *writer) productionRequest() {
	w.in("ProductionRequest", "", func() {
		w.leaf("ID", w.o.OrderNo)
		w.leaf("Description", w.o.Description)
		w.scope(w.o.WorkCenter)
		w.times()
		w.leaf("Priority", w.priority())
		for i, op := range w.operations() {
			w.in("SegmentRequirement", "", func() {
				w.leaf("ID", op.Operation)
				w.leaf("ProcessSegmentID", op.Operation)
				w.leaf("Description", op.Description)
				w.scope(op.WorkCenter)
				if op.Quantity != "" {
					w.in("ProductionParameter", "", func() { w.quantityParameter("Parameter", op) })
				}
				w.materials(i)
			})
		}
		if state := w.state(); state != "Released" {
			w.leaf("RequestState", state)
		}
	})
}

func (w *writer) workRequest() {
	w.in("WorkRequest", "", func() {
		w.leaf("ID", w.o.OrderNo)
		w.leaf("Description", w.o.Description)
		w.scope(w.o.WorkCenter)
		w.times()
		w.leaf("Priority", w.priority())
		if w.v0700() {
			w.leaf("RequestState", w.state())
		}
		for i, op := range w.operations() {
			w.in("JobOrder", "", func() { w.jobOrder(i, op) })
		}
	})
}

// jobSeparator stands between order and operation in a job order's ID. Order numbers often hold a slash, hardly ever this.
const jobSeparator = "#"

func (w *writer) jobOrder(i int, op signal.Operation) {
	id := w.o.OrderNo
	if op.Operation != id {
		id += jobSeparator + op.Operation
	}
	w.leaf("ID", id)
	w.leaf("Description", op.Description)
	w.scope(orElse(op.WorkCenter, w.o.WorkCenter))
	w.leaf("WorkType", "Production")
	w.leaf("WorkMasterID", w.o.Item)
	w.times()
	w.leaf("Priority", w.priority())
	status := w.state()
	if status == "Released" {
		status = "Waiting"
	}
	w.leaf("DispatchStatus", status)
	w.quantityParameter("JobOrderParameter", op)
	w.materials(i)
}
