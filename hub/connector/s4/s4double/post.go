package s4double

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"
)

// post does one creation or function.
func (s *System) post(service, resource string, q url.Values, ifMatch string, body []byte) (int, any, *failure) {
	switch service + "/" + resource {
	case confService + "/ProdnOrdConf2":
		return created(s.confirm(body))
	case confService + "/CancelProdnOrdConf":
		r, err := s.cancelConf(q)
		return http.StatusOK, r, err
	case docService + "/A_MaterialDocumentHeader":
		return created(s.createDoc(body))
	case docService + "/Cancel", docService + "/CancelItem":
		r, err := s.cancelDoc(q)
		return http.StatusOK, r, err
	}
	if service == orderService {
		if f, ok := orderFunctions[resource]; ok {
			r, err := s.orderFunction(resource, f, q, ifMatch)
			return http.StatusOK, r, err
		}
	}
	return 0, nil, notFound(resource)
}

func created(r any, err *failure) (int, any, *failure) { return http.StatusCreated, r, err }

// literal takes a parameter of a function out of its quotes and prefix.
func literal(q url.Values, name string) string {
	_, text, ok := strings.Cut(q.Get(name), "'")
	if !ok {
		return ""
	}
	return strings.ReplaceAll(strings.TrimSuffix(text, "'"), "''", "'")
}

func parse(body []byte, sch *Schema, nav string, items *Schema) (map[string]any, []map[string]any, *failure) {
	var in map[string]any
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, nil, malformed("The request is not JSON")
	}
	if err := sch.check(in, nav); err != nil {
		return nil, nil, malformed(err.Error())
	}
	list, isList := in[nav].([]any)
	if wrapped, ok := in[nav].(map[string]any); ok {
		list, isList = wrapped["results"].([]any)
	}
	if in[nav] != nil && !isList {
		return nil, nil, malformed("Inline entries of " + nav + " are not a list")
	}
	delete(in, nav)
	var children []map[string]any
	for _, v := range list {
		child, ok := v.(map[string]any)
		if !ok {
			return nil, nil, malformed("An entry of " + nav + " is not an object")
		}
		if err := items.check(child); err != nil {
			return nil, nil, malformed(err.Error())
		}
		children = append(children, child)
	}
	return in, children, nil
}

func text(in map[string]any, name string) string {
	v, _ := in[name].(string)
	return v
}

func number(in map[string]any, name string) decimal.Decimal {
	d, err := decimal.NewFromString(text(in, name))
	if err != nil {
		return decimal.Zero
	}
	return d
}

// open finds an order and says why nothing can be posted on it.
func (s *System) open(number string) (*Order, *failure) {
	o := s.orders[number]
	switch {
	case o == nil:
		return nil, fail("CO/017", "Order %s not found (check entry)", number)
	case s.locks[number] != "":
		return nil, fail("CO/469", "Order %s is already being processed by %s", number, s.locks[number])
	case !o.Released, o.TechnicallyComplete, o.Closed, o.DeletionMarked, o.Locked:
		return nil, fail("RU/013", "Status of order %s does not allow confirmations or goods movements", number)
	}
	return o, nil
}

func (s *System) periodClosed(day string) *failure {
	if len(day) >= 7 && s.closed[day[:7]] {
		return fail("M7/053", "Posting only possible in periods that are open in company code 1710; %s is closed", day[:7])
	}
	return nil
}

// confirm is the creation of ProdnOrdConf2.
func (s *System) confirm(body []byte) (any, *failure) {
	in, children, err := parse(body, confSchema, "to_ProdnOrdConfMatlDocItm", confMoveSchema)
	if err != nil {
		return nil, err
	}
	o, err := s.open(text(in, "OrderID"))
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(o.Operations, func(op Operation) bool { return op.Number == text(in, "OrderOperation") })
	if i < 0 {
		return nil, fail("RU/002", "Operation %s of order %s does not exist", text(in, "OrderOperation"), o.Number)
	}
	unit := s.materials[o.Material]
	if iso, u := text(in, "ConfirmationUnitISOCode"), text(in, "ConfirmationUnit"); (iso != "" && iso != unit.UnitISO) || (u != "" && u != unit.Unit) {
		return nil, fail("BM/302", "Unit %s%s of order %s cannot be converted to %s", iso, u, o.Number, unit.Unit)
	}
	c := &confirmation{order: o.Number, operation: o.Operations[i].Number, yield: number(in, "ConfirmationYieldQuantity"), scrap: number(in, "ConfirmationScrapQuantity"), values: row(in)}
	if q := s.traps.OtherQuantity; q != "" {
		c.yield = decimal.RequireFromString(q)
	}
	if _, ok := in["PostingDate"].(string); !ok {
		in["PostingDate"] = date(s.now())
	}
	if err := s.periodClosed(day(text(in, "PostingDate"))); err != nil && !s.traps.PeriodFailsMovements {
		return nil, err
	}
	moves, err := s.confMoves(o, i, c, in, children)
	if err != nil {
		return nil, err
	}
	s.complete(o, i, c)
	if s.traps.UpdateFails {
		return s.confRow(c), nil
	}
	s.keep(o, i, c)
	s.bookLater(c, moves)
	r := s.confRow(c)
	r["to_ProdnOrdConfMatlDocItm"] = row{"results": s.movesOf(c)}
	return r, nil
}

// complete gives a confirmation its number and what the system knows of it.
func (s *System) complete(o *Order, i int, c *confirmation) {
	op, now := &o.Operations[i], s.now()
	op.count++
	c.group, c.count, c.entered, c.visible = op.group, op.count, now, now.Add(s.traps.VisibleAfter)
	unit := s.materials[o.Material]
	maps.Copy(c.values, row{"ConfirmationGroup": fmt.Sprint(c.group), "ConfirmationCount": fmt.Sprint(c.count), "OrderID": o.Number, "OrderOperation": op.Number,
		"Sequence": "0", "OrderType": o.Type, "OrderOperationInternalID": fmt.Sprint(i + 1), "Material": o.Material, "OrderPlannedTotalQty": s.show(o.Material, o.Quantity),
		"ProductionUnit": unit.Unit, "OrderConfirmationRecordType": "L40", "ConfirmationEntryDate": date(now), "ConfirmationEntryTime": clock(now),
		"EnteredByUser": s.options.User, "Plant": o.Plant, "WorkCenterTypeCode": "A", "WorkCenter": op.WorkCenter, "ConfirmationUnit": unit.Unit,
		"ConfirmationUnitISOCode": unit.UnitISO, "ConfirmationYieldQuantity": s.show(o.Material, c.yield), "ConfirmationScrapQuantity": s.show(o.Material, c.scrap)})
}

// keep puts a confirmation into the books.
func (s *System) keep(o *Order, i int, c *confirmation) {
	sign := decimal.NewFromInt(1)
	if c.reversal {
		sign = sign.Neg()
	}
	s.confs = append(s.confs, c)
	key := strings.ToLower(text(c.values, "ExternalSystemConfirmation"))
	if key == "" {
		key = noGUID
	}
	s.confByKey[key] = append(s.confByKey[key], c)
	o.Operations[i].yield = o.Operations[i].yield.Add(c.yield.Mul(sign))
	final, _ := c.values["IsFinalConfirmation"].(bool)
	if final {
		o.Operations[i].final = !c.reversal
	}
	if i == len(o.Operations)-1 {
		o.yield = o.yield.Add(c.yield.Mul(sign))
		o.Confirmed = final && !c.reversal
	}
	o.PartiallyConfirmed, o.changed = true, s.now()
}

// confMoves are the goods movements of a confirmation: the ones it brings, none when it says so, else the automatic ones.
func (s *System) confMoves(o *Order, i int, c *confirmation, in map[string]any, children []map[string]any) (moves []*movement, err *failure) {
	none, _ := in["APIConfHasNoGoodsMovements"].(bool)
	if none && len(children) > 0 {
		return nil, fail("RU/512", "Goods movements were given for order %s, and that there are none", o.Number)
	}
	for _, child := range children {
		m, err := s.movementOf(child, o.Number)
		if err != nil {
			return nil, err
		}
		if q := s.traps.OtherQuantity; q != "" && m.kind == "101" {
			m.quantity = decimal.RequireFromString(q)
		}
		moves = append(moves, m)
	}
	if (none || len(children) > 0) && !s.traps.AlwaysBackflush {
		return moves, nil
	}
	if len(children) == 0 && i == len(o.Operations)-1 && o.AutomaticReceipt && c.yield.IsPositive() {
		moves = append(moves, &movement{kind: "101", material: o.Material, plant: o.Plant, location: o.StorageLocation, batch: o.Batch, order: o.Number, quantity: c.yield, refType: "F"})
	}
	for _, comp := range o.Components {
		first := comp.Operation == "" && i == 0
		if !comp.Backflush || !(first || comp.Operation == o.Operations[i].Number) || !o.Quantity.IsPositive() {
			continue
		}
		need := comp.Required.Mul(c.yield.Add(c.scrap)).DivRound(o.Quantity, 3)
		if need.IsPositive() {
			moves = append(moves, &movement{kind: comp.MovementType, material: comp.Material, plant: o.Plant, location: comp.StorageLocation, order: o.Number, quantity: need,
				reservation: fmt.Sprint(o.reservation), reservationItem: comp.Item})
		}
	}
	return moves, nil
}

// movementOf reads one goods movement of a request.
func (s *System) movementOf(in map[string]any, order string) (*movement, *failure) {
	m := &movement{kind: text(in, "GoodsMovementType"), material: text(in, "Material"), plant: text(in, "Plant"), location: text(in, "StorageLocation"), batch: text(in, "Batch"),
		order: order, quantity: number(in, "QuantityInEntryUnit"), reservation: text(in, "Reservation"), reservationItem: text(in, "ReservationItem"),
		text: text(in, "MaterialDocumentItemText"), refType: text(in, "GoodsMovementRefDocType")}
	if o := text(in, "ManufacturingOrder"); o != "" {
		m.order = o
	}
	mat, ok := s.materials[m.material]
	switch {
	case !ok:
		return nil, fail("M3/305", "Material %s does not exist or is not activated", m.material)
	case direction(m.kind) == 0:
		return nil, fail("M7/001", "Check table T156: entry %s does not exist", m.kind)
	case m.location == "":
		return nil, fail("M7/018", "Enter Storage Location for material %s", m.material)
	case m.plant == "":
		return nil, fail("M7/017", "Enter Plant for material %s", m.material)
	case !m.quantity.IsPositive():
		return nil, fail("M7/002", "Enter a quantity for material %s", m.material)
	}
	if iso, u := text(in, "EntryUnitISOCode"), text(in, "EntryUnit"); (iso != "" && iso != mat.UnitISO) || (u != "" && u != mat.Unit) || iso+u == "" {
		return nil, fail("BM/302", "Unit %s%s of material %s cannot be converted to %s", iso, u, m.material, mat.Unit)
	}
	return m, nil
}

// cancelConf is the function CancelProdnOrdConf: a new confirmation of the same group that says what it cancels.
func (s *System) cancelConf(q url.Values) (any, *failure) {
	group, count := literal(q, "ConfirmationGroup"), literal(q, "ConfirmationCount")
	j := slices.IndexFunc(s.confs, func(c *confirmation) bool { return fmt.Sprint(c.group) == group && fmt.Sprint(c.count) == count })
	if j < 0 {
		return nil, fail("RU/122", "Confirmation %s counter %s does not exist", group, count)
	}
	old := s.confs[j]
	o, err := s.open(old.order)
	if err != nil {
		return nil, err
	}
	if old.reversed || old.reversal {
		return nil, fail("RU/016", "Confirmation %s counter %s has already been cancelled", group, count)
	}
	posting := literal(q, "PostingDate")
	if len(posting) < 10 {
		posting = s.now().Format(time.DateOnly)
	}
	if err := s.periodClosed(posting); err != nil {
		return nil, err
	}
	i := slices.IndexFunc(o.Operations, func(op Operation) bool { return op.Number == old.operation })
	c := &confirmation{order: o.Number, operation: old.operation, yield: old.yield, scrap: old.scrap, reversal: true, values: maps.Clone(old.values)}
	delete(c.values, "ExternalSystemConfirmation")
	if key := literal(q, "ExternalSystemConfirmation"); key != "" {
		c.values["ExternalSystemConfirmation"] = key
	}
	c.values["PostingDate"], c.values["ConfirmationText"] = dayDate(posting[:10]), literal(q, "ConfirmationText")
	s.complete(o, i, c)
	old.reversed = true
	s.keep(o, i, c)
	s.failed = slices.DeleteFunc(s.failed, func(m *movement) bool { return m.conf == old })
	var moves []*movement
	for _, ref := range old.items {
		m := *ref.doc.items[ref.item]
		m.kind, m.reopens = opposite[m.kind], true
		m.reversedDoc, m.reversedYear, m.reversedItem = ref.doc.number, ref.doc.year, fmt.Sprint(ref.item+1)
		ref.doc.items[ref.item].cancelled = true
		moves = append(moves, &m)
	}
	s.bookFor(c, moves)
	return s.confRow(c), nil
}

var orderFunctions = map[string]func(*System, *Order) *failure{
	"ReleaseOrder": func(_ *System, o *Order) *failure { o.Released = true; return nil },
	"TechlyCmpltOrder": func(s *System, o *Order) *failure {
		switch {
		case !o.Released:
			return fail("CO/101", "Order %s is not released", o.Number)
		case s.failedOf(o.Number) > 0:
			return fail("CO/688", "Order %s still has incorrect goods movements or future change records", o.Number)
		}
		o.TechnicallyComplete = true
		return nil
	},
	"CloseOrder":             func(_ *System, o *Order) *failure { o.Closed = true; return nil },
	"DeletionFlagOrder":      func(_ *System, o *Order) *failure { o.DeletionMarked = true; return nil },
	"DeliveryCompletedOrder": func(_ *System, o *Order) *failure { o.Delivered = true; return nil },
}

// orderFunction does one function on an order. Refusals by the business are a message inside of a success.
func (s *System) orderFunction(name string, f func(*System, *Order) *failure, q url.Values, ifMatch string) (any, *failure) {
	o := s.orders[literal(q, "ManufacturingOrder")]
	if o == nil {
		return nil, fail("CO/017", "Order %s not found (check entry)", literal(q, "ManufacturingOrder"))
	}
	switch ifMatch {
	case "", "*", etag(o):
	default:
		return nil, &failure{status: http.StatusPreconditionFailed, code: "/IWBEP/CM_MGW_RT/412", text: "Precondition failed"}
	}
	message := row{"SystemMessageType": "S", "SystemMessageIdentification": "CO", "SystemMessageNumber": "100", "SystemMessageLongText": name + " done for order " + o.Number}
	var err *failure
	if user := s.locks[o.Number]; user != "" {
		err = fail("CO/469", "Order %s is already being processed by %s", o.Number, user)
	} else {
		err = f(s, o)
	}
	if err != nil {
		class, no, _ := strings.Cut(err.code, "/")
		message = row{"SystemMessageType": "E", "SystemMessageIdentification": class, "SystemMessageNumber": no, "SystemMessageLongText": err.text}
	} else {
		o.changed = s.now()
	}
	return row{name: message}, nil
}
