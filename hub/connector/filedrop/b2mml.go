package filedrop

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/linekeeper/linekeeper/hub/connector/generic"
)

// scheduleMap reads the records that schedules makes.
func scheduleMap() generic.OrderMap {
	return generic.OrderMap{OrderNo: "row.id", Item: "row.item", Description: "row.description", Quantity: "row.quantity", Unit: "row.unit", State: "row.state",
		WorkCenter: "row.work_center", Site: "row.site", Lot: "row.lot", Priority: "row.priority", PlannedStart: "row.start", PlannedEnd: "row.end", Changed: "row.published == '' ? null : row.published",
		Operations: &generic.OperationMap{Each: "row.segments", Operation: "line.id", Description: "line.description", WorkCenter: "line.work_center", Quantity: "line.quantity"},
		Components: &generic.ComponentMap{Each: "row.consumed", Item: "line.item", Description: "line.description", Quantity: "line.quantity", Unit: "line.unit",
			Operation: "line.segment", Reservation: "line.reservation", Backflush: "line.backflush"}}
}

// element is one of XML, its names without prefixes.
type element struct {
	name, text string
	attrs      map[string]string
	kids       []*element
}

// Bounds of a document.
const (
	maxElements = 2_000_000
	maxDepth    = 64
)

// readXML reads a document as a tree. A document type declaration is refused: it could name other files.
func readXML(data []byte) (*element, error) {
	d := xml.NewDecoder(bytes.NewReader(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))))
	top := &element{}
	stack, count := []*element{top}, 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("it is no XML: %w", err)
		}
		at := stack[len(stack)-1]
		switch t := token.(type) {
		case xml.Directive:
			if bytes.HasPrefix(bytes.ToUpper(bytes.TrimSpace(t)), []byte("DOCTYPE")) {
				return nil, errors.New("it has a document type declaration (DOCTYPE), which is never read")
			}
		case xml.StartElement:
			if count++; count > maxElements || len(stack) > maxDepth {
				return nil, fmt.Errorf("it has more than %d elements, or more than %d inside of each other", maxElements, maxDepth)
			}
			e := &element{name: t.Name.Local, attrs: map[string]string{}}
			for _, a := range t.Attr {
				e.attrs[a.Name.Local] = strings.TrimSpace(a.Value)
			}
			at.kids, stack = append(at.kids, e), append(stack, e)
		case xml.EndElement:
			at.text = strings.TrimSpace(at.text)
			stack = stack[:len(stack)-1]
		case xml.CharData:
			if len(at.text)+len(t) < 1<<20 {
				at.text += string(t)
			}
		}
	}
	if len(top.kids) != 1 {
		return nil, errors.New("it has no root element, or several")
	}
	return top.kids[0], nil
}

func (e *element) all(names ...string) (out []*element) {
	for _, k := range e.kids {
		if slices.Contains(names, k.name) {
			out = append(out, k)
		}
	}
	return out
}

// get is the text of the first child of one of the names that is not empty; a path goes down through first children.
func (e *element) get(names ...string) string {
	for _, name := range names {
		first, rest, deeper := strings.Cut(name, "/")
		for _, k := range e.all(first) {
			if deeper {
				if text := k.get(rest); text != "" {
					return text
				}
			} else if k.text != "" {
				return k.text
			}
		}
	}
	return ""
}

// find returns the outermost elements of the names, at any depth.
func (e *element) find(names ...string) (out []*element) {
	for _, k := range e.kids {
		if slices.Contains(names, k.name) {
			out = append(out, k)
		} else {
			out = append(out, k.find(names...)...)
		}
	}
	return out
}

// schedules reads the orders of a B2MML schedule, V0401 Production*, V0600 and V0700 Operations* and Work*, with and without an
// envelope. Each is a record with id, item, quantity, unit, state (in our words), published, start, end, ..., segments and consumed.
func schedules(data []byte) ([]any, error) {
	root, err := readXML(data)
	if err != nil {
		return nil, err
	}
	wrap := &element{kids: []*element{root}}
	plans := wrap.find("ProductionSchedule", "OperationsSchedule", "WorkSchedule")
	if len(plans) == 0 {
		return nil, fmt.Errorf("it is no B2MML schedule: its root is %q", root.name)
	}
	cancelled, err := verb(root)
	if err != nil {
		return nil, err
	}
	created := ""
	for _, area := range root.all("ApplicationArea") {
		created = area.get("CreationDateTime")
	}
	rows := []any{}
	for _, plan := range plans {
		published := cmp.Or(plan.get("PublishedDate"), created)
		for _, r := range plan.all("ProductionRequest", "OperationsRequest", "WorkRequest") {
			rows = append(rows, request(plan, r, published, cancelled))
		}
	}
	if len(rows) == 0 {
		return nil, errors.New("it is a B2MML schedule without any request")
	}
	return rows, nil
}

// verb reports that an envelope takes its orders back. One that only asks or answers is refused.
func verb(root *element) (cancelled bool, err error) {
	if len(root.all("DataArea")) == 0 {
		return false, nil
	}
	for _, no := range []string{"Get", "Acknowledge", "Confirm"} {
		if strings.HasPrefix(root.name, no) {
			return false, fmt.Errorf("it is a transaction %s, which sends no orders", root.name)
		}
	}
	for _, e := range root.find("ActionExpression") {
		cancelled = cancelled || strings.EqualFold(e.attrs["actionCode"], "Delete")
	}
	return cancelled || strings.HasPrefix(root.name, "Cancel"), nil
}

// requestStates are ISA-95's states of a request in our words.
var requestStates = map[string]string{"": "RELEASED", "Forecast": "PLANNED", "Released": "RELEASED", "Waiting": "RELEASED", "Ready": "RELEASED", "Pending": "RELEASED",
	"Dispatched": "RELEASED", "Running": "IN_PROGRESS", "Held": "HELD", "Suspended": "HELD", "Completed": "COMPLETED", "Closed": "CLOSED", "Cancelled": "CANCELLED",
	"Canceled": "CANCELLED", "Aborted": "CANCELLED"}

func request(plan, r *element, published string, cancelled bool) map[string]any {
	said := cmp.Or(r.get("RequestState"), plan.get("ScheduleState"))
	state, known := requestStates[said]
	if !known {
		state = said // for the map of states
	}
	if cancelled {
		state = "CANCELLED"
	}
	row := map[string]any{"id": r.get("ID"), "description": r.get("Description"), "priority": r.get("Priority"), "start": r.get("StartTime"), "end": r.get("EndTime", "Endtime"),
		"state": state, "published": published, "definition": r.get("OperationsDefinitionID", "ProductProductionRuleID", "WorkMasterID"), "work_center": place(r), "site": "", "item": "", "quantity": nil, "unit": "",
		"lot": "", "segments": []any{}, "consumed": []any{}, "other": []any{}}
	steps(row, r)
	for _, s := range row["segments"].([]any) { // where a step says no quantity it is the order's
		if x := s.(map[string]any); x["quantity"] == nil {
			x["quantity"] = row["quantity"]
		}
	}
	return row
}

// steps files the segments or job orders below an element, also those inside of each other.
func steps(row map[string]any, in *element) {
	for _, s := range in.all("SegmentRequirement", "SegmentRequirementChild", "JobOrder", "JobOrderChild") {
		row["work_center"] = cmp.Or(row["work_center"].(string), place(s))
		id := s.get("ID")
		if _, op, has := strings.Cut(id, "#"); strings.HasPrefix(s.name, "Job") && has {
			id = op
		} else if strings.HasPrefix(s.name, "Segment") {
			id = cmp.Or(s.get("ProcessSegmentID", "OperationsSegmentID"), id)
		}
		if id != row["id"] { // a segment named like its order, or a job order that is the whole order, is no operation of its own
			row["segments"] = append(row["segments"].([]any), map[string]any{"id": id, "description": s.get("Description"), "work_center": place(s), "quantity": step(s)})
		}
		row["definition"] = cmp.Or(row["definition"].(string), s.get("WorkMasterID", "OperationsDefinitionID"))
		for _, m := range s.all("MaterialRequirement", "MaterialProducedRequirement", "MaterialConsumedRequirement") {
			material(row, m, id)
		}
		steps(row, s)
	}
}

// place is the equipment at which something is made.
func place(e *element) string {
	for _, p := range e.all("HierarchyScope", "Location", "EquipmentRequirement") {
		if id := p.get("EquipmentID"); id != "" {
			return id
		}
	}
	return ""
}

// step is how much a segment makes, nil where it does not say.
func step(s *element) any {
	own := append(s.all("SegmentParameter", "JobOrderParameter"), (&element{kids: s.all("ProductionParameter")}).find("Parameter")...)
	for _, p := range own {
		if strings.EqualFold(p.get("ID"), "Quantity") {
			if text := p.get("Value/ValueString"); text != "" {
				return text
			}
		}
	}
	return nil
}

// material files what a segment makes or takes. What several segments take of an item stays apart.
func material(row map[string]any, m *element, segment string) {
	item, q, unit := m.get("MaterialDefinitionID"), m.get("Quantity/QuantityString"), m.get("Quantity/UnitOfMeasure")
	use := m.get("MaterialUse")
	switch {
	case use == "Produced" || use == "Yield Produced" || use == "" && m.name == "MaterialProducedRequirement":
		if row["item"] == "" {
			row["item"], row["unit"], row["lot"] = item, unit, m.get("MaterialLotID")
			if q != "" {
				row["quantity"] = q
			}
			return
		}
		use = "other"
	case use == "Consumed" || use == "" && m.name == "MaterialConsumedRequirement":
		properties := map[string]string{}
		for _, p := range m.find("MaterialRequirementProperty", "MaterialConsumedRequirementProperty") {
			properties[p.get("ID")] = p.get("Value/ValueString")
		}
		row["consumed"] = append(row["consumed"].([]any), map[string]any{"item": item, "description": m.get("Description"), "quantity": q, "unit": unit, "segment": segment,
			"reservation": properties["Reservation"], "backflush": properties["Backflush"] == "true", "lot": m.get("MaterialLotID")})
		return
	}
	row["other"] = append(row["other"].([]any), map[string]any{"item": item, "quantity": q, "unit": unit, "use": use, "segment": segment})
}
