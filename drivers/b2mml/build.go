package b2mml

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// builder makes one record.
type builder struct {
	*reader
	m       map[string]any
	problem *signal.Problem
}

func (b *builder) fail(code, item, reason, next string) {
	if b.problem == nil {
		b.problem = &signal.Problem{Code: code, Item: item, Reason: reason, NextStep: next}
	}
}

// requestIDs name the order, the more telling first.
var requestIDs = []string{"ProductionRequestID", "OperationsRequestID", "WorkRequestID"}

// head fills what says which order and which step it is, and when.
func (b *builder) head(n *node, p place) {
	var path []any
	for _, s := range p.segments {
		path = append(path, s.get("ID", "ProcessSegmentID", "ProductSegmentID", "JobOrderID"))
	}
	kind := map[string]string{"S": "segment", "J": "job"}[n.name[:1]]
	if len(p.segments) == 0 {
		kind = "response"
	}
	orders, from := b.orders(p)
	order := ""
	if len(orders) == 1 { // what several orders share cannot be split here
		order = orders[0].(string)
	}
	_, job, _ := strings.Cut(n.get("JobOrderID"), jobSeparator)
	state := n.kid("SegmentState", "JobState", "ResponseState").word()
	b.m = map[string]any{
		"document": b.document(), "kind": kind, "order_no": order, "order_nos": orders, "order_from": from,
		"performance_id": p.performance.get("ID"), "schedule_id": orElse(p.response.get("ProductionScheduleID"), p.performance.get("ProductionScheduleID", "OperationsScheduleID", "WorkScheduleID")),
		"response_id": p.response.get("ID"), "response_state": p.response.kid("ResponseState").word(),
		"segment_id": "", "segment_path": path, "state": state, "description": n.get("Description"),
		"process_segment": n.get("ProcessSegmentID", "ProductSegmentID", "OperationsSegmentID"), "segment_requirement": n.get("SegmentRequirementID"),
		"operation":  orElse(n.get("ProcessSegmentID", "ProductSegmentID", "OperationsSegmentID", "SegmentRequirementID"), job),
		"definition": n.get("OperationsDefinitionID", "WorkMasterID", "WorkDirectiveID", "ProductProductionRuleID"), "job_order": n.get("JobOrderID"),
		"hierarchy": hierarchy(n, p),
	}
	if len(path) > 0 {
		b.m["segment_id"] = path[len(path)-1]
	}
	for key, names := range map[string][]string{"started_at": {"ActualStartTime", "StartTime"}, "finished_at": {"ActualEndTime", "EndTime", "Endtime"},
		"posted_at": {"PostingDate"}, "published_at": {"PublishedDate"}} {
		b.m[key] = b.when(n, names)
	}
}

func orElse(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// orders are the numbers of the orders that a segment belongs to, mostly one, and the element that says so.
func (b *builder) orders(p place) (numbers []any, from string) {
	nodes := slices.Clone(p.segments)
	slices.Reverse(nodes)
	nodes = append(nodes, p.response)
	for _, name := range append(requestIDs, "JobOrderID") {
		for _, n := range nodes {
			for _, k := range n.all(name) {
				id := k.text
				if name == "JobOrderID" { // one of ours carries the operation
					id, _, _ = strings.Cut(id, jobSeparator)
				}
				if id != "" && !slices.Contains(numbers, any(id)) {
					numbers = append(numbers, id)
				}
			}
			if numbers != nil {
				return numbers, name
			}
		}
	}
	if id := p.response.get("ID"); id != "" { // as V0401 senders do that name no request
		return []any{id}, "response_id"
	}
	return []any{}, ""
}

func (b *builder) when(n *node, names []string) any {
	text := n.get(names...)
	if text == "" {
		return nil
	}
	t, ok := b.time(text)
	if !ok {
		b.fail("bad_time", names[0], fmt.Sprintf("line %d: %s is %q, which is no time", n.line, names[0], excerpt(text)), "correct the sender: a time is written 2006-01-02T15:04:05+01:00")
		return nil
	}
	return t
}

func excerpt(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

// hierarchy is the path of equipment that a segment names, or else its response.
func hierarchy(n *node, p place) string {
	for _, at := range []*node{n, p.response, p.performance} {
		var ids []string
		for scope := at.kid("HierarchyScope", "Location"); scope != nil; scope = scope.kid("HierarchyScope", "HierarchyScopeChild", "Location") {
			if id := scope.get("EquipmentID"); id != "" {
				ids = append(ids, id)
			}
		}
		if len(ids) > 0 {
			return strings.Join(ids, "/")
		}
	}
	return ""
}

// resources fills what went in and came out, who and what did it, and the data.
func (b *builder) resources(n *node) {
	materials, byUse := []any{}, map[string][]any{}
	for _, k := range n.all("MaterialActual", "MaterialProducedActual", "MaterialConsumedActual", "ConsumableActual") {
		m := b.material(k)
		materials = append(materials, m)
		byUse[m["use"].(string)] = append(byUse[m["use"].(string)], m)
	}
	b.m["materials"] = materials
	for key, use := range map[string]string{"produced": UseProduced, "consumed": UseConsumed, "scrapped": UseScrap, "reworked": UseRework, "by_products": UseByProduct} {
		b.m[key] = append([]any{}, byUse[use]...)
	}
	b.actuals(n, "equipment", "EquipmentActual", "EquipmentID", "EquipmentClassID", "EquipmentUse")
	b.actuals(n, "person", "PersonnelActual", "PersonID", "PersonnelClassID", "PersonnelUse")
	b.actuals(n, "asset", "PhysicalAssetActual", "PhysicalAssetID", "PhysicalAssetClassID", "PhysicalAssetUse")
	data := map[string]any{}
	for _, k := range n.all("SegmentData", "ProductionData", "JobResponseData", "JobResponsetData") { // the last one is V0600's own spelling
		b.parameter(data, k, "")
	}
	b.m["data"] = data
}

// parameter adds a value under its ID; those inside of it stand under ID/ID.
func (b *builder) parameter(data map[string]any, n *node, prefix string) {
	id := prefix + n.get("ID")
	if values := b.values(n); values != nil {
		addTo(data, id, values)
	}
	for _, k := range n.kids {
		if k.name == n.name || strings.HasSuffix(k.name, "DataChild") || k.name == "Parameter" {
			b.parameter(data, k, id+"/")
		}
	}
}

// values of an element: one is itself, several are a list.
func (b *builder) values(n *node) any {
	var out []any
	for _, v := range n.all("Value") {
		out = append(out, b.value(v))
	}
	for _, q := range n.all("Quantity") {
		number, unit := b.quantity(q)
		out = append(out, map[string]any{"quantity": number, "unit": unit})
	}
	if len(out) == 1 {
		return out[0]
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// value is of the type that the document itself says; digits without a type stay text.
func (b *builder) value(n *node) any {
	text := n.get("ValueString")
	if n.kid("ValueString") == nil {
		text = n.text
	}
	switch strings.ToLower(n.kid("DataType").word()) {
	case "decimal", "double", "float", "integer", "int", "long", "short", "byte", "numeric", "quantity", "measure", "amount", "unsignedint", "unsignedlong",
		"unsignedshort", "unsignedbyte", "positiveinteger", "nonnegativeinteger", "negativeinteger", "nonpositiveinteger":
		if v, ok := number(text); ok {
			return v
		}
	case "boolean", "indicator":
		switch strings.ToLower(text) {
		case "true", "1":
			return true
		case "false", "0":
			return false
		}
	case "datetime":
		if t, ok := b.time(text); ok {
			return t
		}
	}
	return text
}

// quantity reads a Quantity, whose text is a number whatever it says of its type.
func (b *builder) quantity(n *node) (any, string) {
	text := n.get("QuantityString")
	if n.kid("QuantityString") == nil {
		text = n.text
	}
	if text == "" {
		return nil, n.get("UnitOfMeasure")
	}
	v, ok := number(text)
	if !ok {
		b.fail("bad_number", "QuantityString", fmt.Sprintf("line %d: QuantityString is %q, which is no number", n.line, excerpt(text)), "correct the sender: a number is written 12.5, without groups of thousands")
		return nil, ""
	}
	return v, n.get("UnitOfMeasure")
}

var materialKnown = []string{"ID", "MaterialClassID", "MaterialDefinitionID", "MaterialLotID", "MaterialSubLotID", "Description", "MaterialUse", "StorageLocation", "Location",
	"Quantity", "AssemblyActual", "AssemblyType", "AssemblyRelationship", "HierarchyScope", "MaterialActualProperty", "MaterialProducedActualProperty", "MaterialConsumedActualProperty",
	"ConsumableActualProperty", "RequiredByRequestedSegmentResponse"}

func (b *builder) material(n *node) map[string]any {
	word := n.kid("MaterialUse").word()
	m := map[string]any{"item": n.get("MaterialDefinitionID"), "lot": n.get("MaterialLotID"), "sublot": n.get("MaterialSubLotID"), "class": n.get("MaterialClassID"),
		"id": n.get("ID"), "description": n.get("Description"), "use_word": word, "use": b.use(n.name, word), "location": location(n), "quantity": nil, "unit": ""}
	for i, q := range n.all("Quantity") {
		v, unit := b.quantity(q)
		if i == 0 {
			m["quantity"], m["unit"] = v, unit
		}
		addTo(m, "quantities", map[string]any{"quantity": v, "unit": unit, "key": q.get("Key")})
	}
	if one, ok := m["quantities"].(map[string]any); ok {
		m["quantities"] = []any{one}
	}
	for key, name := range map[string]string{"items": "MaterialDefinitionID", "lots": "MaterialLotID", "sublots": "MaterialSubLotID"} {
		if ids := n.all(name); len(ids) > 1 {
			for _, id := range ids {
				addTo(m, key, id.text)
			}
		}
	}
	m["properties"] = b.properties(n)
	for _, k := range n.all("AssemblyActual") {
		part := b.material(k)
		list, _ := m["assembly"].([]any)
		m["assembly"] = append(list, part)
	}
	if extra := extras(n, materialKnown); len(extra) > 0 {
		m["extensions"] = extra
	}
	return m
}

func location(n *node) string {
	at := n.kid("StorageLocation", "Location", "HierarchyScope")
	if at == nil {
		return ""
	}
	return orElse(orElse(at.get("EquipmentID"), at.get("Location")), at.text)
}

func (b *builder) properties(n *node) map[string]any {
	out := map[string]any{}
	for _, k := range n.kids {
		if strings.HasSuffix(k.name, "ActualProperty") || strings.HasSuffix(k.name, "ActualPropertyChild") {
			if v := b.values(k); v != nil {
				addTo(out, k.get("ID"), v)
			}
		}
	}
	return out
}

// use is what a material's use means.
func (b *builder) use(element, word string) string {
	for own, use := range b.o.MaterialUse {
		if strings.EqualFold(own, word) {
			return use
		}
	}
	w := strings.ToLower(word)
	switch {
	case strings.Contains(w, "scrap"), strings.Contains(w, "reject"), strings.Contains(w, "waste"):
		return UseScrap
	case strings.Contains(w, "rework"):
		return UseRework
	case strings.Contains(w, "by-product"), strings.Contains(w, "byproduct"):
		return UseByProduct
	case strings.Contains(w, "sample"):
		return UseSample
	case strings.Contains(w, "consum"):
		return UseConsumed
	case strings.Contains(w, "produced"), w == "yield", w == "production", w == "good":
		return UseProduced
	case w == "" && element == "MaterialProducedActual":
		return UseProduced
	case w == "" && (element == "MaterialConsumedActual" || element == "ConsumableActual"):
		return UseConsumed
	}
	return UseOther
}

// actuals lists equipment, people or assets, and names the first.
func (b *builder) actuals(n *node, key, element, id, class, use string) {
	list := []any{}
	first := ""
	for _, k := range n.all(element) {
		name := k.get(id)
		first = orElse(first, name)
		m := map[string]any{"id": name, "class": k.get(class), "use": k.kid(use).word(), "description": k.get("Description"), "properties": b.properties(k), "quantity": nil, "unit": ""}
		if q := k.kid("Quantity"); q != nil {
			m["quantity"], m["unit"] = b.quantity(q)
		}
		if extra := extras(k, actualKnown(id, class, use)); len(extra) > 0 {
			m["extensions"] = extra
		}
		list = append(list, m)
	}
	b.m[key] = first
	b.m[key+"_actuals"] = list
}

// sums fills yield, scrap and rework, when everything that came out is one item in one unit.
func (b *builder) sums() {
	for _, key := range []string{"yield", "scrap", "rework"} {
		b.m[key] = nil
	}
	b.m["item"], b.m["unit"], b.m["lot"] = "", "", ""
	if b.problem != nil {
		return
	}
	var first map[string]any
	lots, totals := map[string]bool{}, map[string]decimal.Decimal{}
	for key, list := range map[string]string{"yield": "produced", "scrap": "scrapped", "rework": "reworked"} {
		for _, v := range b.m[list].([]any) {
			m := v.(map[string]any)
			if first == nil {
				first = m
			}
			if m["item"] != first["item"] || m["unit"] != first["unit"] {
				return
			}
			if key == "yield" {
				lots[m["lot"].(string)] = true
			}
			text, ok := m["quantity"].(signal.Number)
			if !ok {
				continue
			}
			n, err := decimal.NewFromString(string(text))
			if err != nil || n.Exponent() > 30 || n.Exponent() < -30 {
				return // an exponent that no quantity has
			}
			totals[key] = totals[key].Add(n)
		}
	}
	if first == nil {
		return
	}
	b.m["item"], b.m["unit"] = first["item"], first["unit"]
	if len(lots) == 1 {
		for lot := range lots {
			b.m["lot"] = lot
		}
	}
	for key, n := range totals {
		b.m[key] = signal.Number(n.String())
	}
}

var segmentKnown = []string{"ID", "Description", "PublishedDate", "PostingDate", "ActualStartTime", "ActualEndTime", "StartTime", "EndTime", "Endtime", "HierarchyScope", "Location",
	"OperationsType", "WorkType", "Version", "ProcessSegmentID", "ProductSegmentID", "OperationsSegmentID", "ProductionRequestID", "ProductionScheduleID", "OperationsRequestID", "WorkRequestID",
	"SegmentRequirementID", "OperationsDefinitionID", "WorkMasterID", "WorkDirectiveID", "ProductProductionRuleID", "JobOrderID", "SegmentState", "JobState", "ResponseState",
	"SegmentData", "ProductionData", "JobResponseData", "JobResponsetData", "PersonnelActual", "EquipmentActual", "PhysicalAssetActual", "MaterialActual", "MaterialProducedActual",
	"MaterialConsumedActual", "ConsumableActual", "SegmentResponse", "SegmentResponseChild", "JobResponse", "JobResponseChild", "RequiredByRequestedSegmentResponse"}

// actualKnown are the elements of an actual that have a place.
func actualKnown(own ...string) []string {
	return append(own, "ID", "Description", "Quantity", "HierarchyScope", "Location", "RequiredByRequestedSegmentResponse")
}

var responseKnown = append([]string{"ProductionResponse", "OperationsResponse", "WorkResponse", "PerformanceState", "OperationsScheduleID", "WorkScheduleID"}, segmentKnown...)

// extensions keeps what has no place in the record.
func (b *builder) extensions(n *node, p place) {
	b.m["extensions"] = extras(n, segmentKnown)
	b.m["response_extensions"] = extras(p.response, responseKnown)
	b.m["performance_extensions"] = extras(p.performance, responseKnown)
}

func extras(n *node, known []string) map[string]any {
	out := map[string]any{}
	if n == nil {
		return out
	}
	for _, k := range n.kids {
		if !slices.Contains(known, k.name) && !strings.HasSuffix(k.name, "ActualProperty") && !strings.HasSuffix(k.name, "ActualPropertyChild") {
			addTo(out, k.name, k.generic())
		}
	}
	return out
}
