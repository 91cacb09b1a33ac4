package s4double

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/shopspring/decimal"
)

var setsOf = map[string][]string{
	orderService: {"A_ProductionOrder_2", "A_ProductionOrderItem_2", "A_ProductionOrderOperation_2", "A_ProductionOrderComponent_2",
		"A_ProductionOrderComponent_3", "A_ProductionOrderStatus_2"},
	confService:  {"ProdnOrdConf2", "ProdnOrdConfMatlDocItm"},
	docService:   {"A_MaterialDocumentHeader", "A_MaterialDocumentItem"},
	stockService: {"A_MatlStkInAcctMod"},
}

// date is a calendar day at UTC midnight, as OData V2 writes it.
func date(t time.Time) string {
	return fmt.Sprintf("/Date(%d)/", time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC).UnixMilli())
}

func clock(t time.Time) string {
	return fmt.Sprintf("PT%02dH%02dM%02dS", t.Hour(), t.Minute(), t.Second())
}

// day reads /Date(ms)/ as 2026-03-01; anything else is empty.
func day(text string) string {
	ms, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(text, "/Date("), ")/"), 10, 64)
	if err != nil {
		return ""
	}
	return time.UnixMilli(ms).UTC().Format(time.DateOnly)
}

func dayDate(day string) string {
	t, _ := time.Parse(time.DateOnly, day)
	return date(t)
}

// show writes a quantity with the decimals of the material's unit, or with more when it has them.
func (s *System) show(material string, q decimal.Decimal) string {
	return q.StringFixed(max(s.materials[material].Decimals, -min(q.Exponent(), 0)))
}

func flag(on bool) string {
	if on {
		return "X"
	}
	return ""
}

func meta(service, set, key, etag string) row {
	uri := root + service + "/" + set + "(" + key + ")"
	m := row{"id": uri, "uri": uri, "type": service + "." + Schemas[set].Name}
	if etag != "" {
		m["etag"] = etag
	}
	return m
}

func deferred(parent row, names ...string) {
	uri := parent["__metadata"].(row)["uri"].(string)
	for _, n := range names {
		parent[n] = row{"__deferred": row{"uri": uri + "/" + n}}
	}
}

func stamp(t time.Time) string { return t.UTC().Format("20060102150405") }

func etag(o *Order) string { return `W/"'` + stamp(o.changed) + `'"` }

func (s *System) orderRow(o *Order) row {
	r := orderSchema.blank()
	m := s.materials[o.Material]
	maps.Copy(r, row{
		"ManufacturingOrder": o.Number, "ManufacturingOrderCategory": "10", "ManufacturingOrderType": o.Type, "Material": o.Material,
		"OrderIsCreated": flag(!o.Released), "OrderIsReleased": flag(o.Released && !o.TechnicallyComplete && !o.Closed),
		"OrderIsConfirmed": flag(o.Confirmed), "OrderIsPartiallyConfirmed": flag(o.PartiallyConfirmed && !o.Confirmed),
		"OrderIsDelivered": flag(o.Delivered), "OrderIsTechnicallyCompleted": flag(o.TechnicallyComplete), "OrderIsClosed": flag(o.Closed),
		"OrderIsMarkedForDeletion": flag(o.DeletionMarked), "OrderIsLocked": flag(o.Locked), "OrderIsPreCosted": "X",
		"OrderIsPartiallyDelivered": flag(o.received.IsPositive() && !o.Delivered),
		"MfgOrderCreationDate":      date(o.created), "MfgOrderCreationTime": clock(o.created), "LastChangeDateTime": stamp(o.changed),
		"StorageLocation": o.StorageLocation, "OrderInternalBillOfOperations": fmt.Sprint(o.routing), "ProductionPlant": o.Plant, "Plant": o.Plant,
		"MRPArea": o.Plant, "CompanyCode": "1710", "BasicSchedulingType": "1", "ProductionUnit": m.Unit, "ProductionUnitISOCode": m.UnitISO,
		"ProductionUnitSAPCode": m.Unit, "TotalQuantity": s.show(o.Material, o.Quantity), "MfgOrderConfirmedYieldQty": s.show(o.Material, o.yield),
		"MfgOrderPlannedScrapQty": s.show(o.Material, decimal.Zero), "MaterialGoodsReceiptDuration": "0", "SalesOrderItem": "0",
		"MfgOrderPlannedStartDate": date(o.created), "MfgOrderPlannedEndDate": date(o.created.AddDate(0, 0, 2)),
		"MfgOrderScheduledStartDate": date(o.created), "MfgOrderScheduledStartTime": "PT07H00M00S", "MfgOrderScheduledEndDate": date(o.created.AddDate(0, 0, 1)),
		"MfgOrderScheduledEndTime": "PT10H22M30S", "__metadata": meta(orderService, "A_ProductionOrder_2", "'"+o.Number+"'", etag(o)),
	})
	if s.traps.NoStampAtCreation && o.changed.Equal(o.created) {
		r["LastChangeDateTime"] = ""
	}
	deferred(r, "to_ProductionOrderComponent", "to_ProductionOrderComponentExt", "to_ProductionOrderItem", "to_ProductionOrderOperation", "to_ProductionOrderStatus")
	return r
}

func (s *System) itemRow(o *Order) row {
	r := itemSchema.blank()
	m := s.materials[o.Material]
	maps.Copy(r, row{"ManufacturingOrder": o.Number, "ManufacturingOrderItem": "1", "ManufacturingOrderCategory": "10", "ManufacturingOrderType": o.Type,
		"IsCompletelyDelivered": o.Delivered, "Material": o.Material, "ProductionPlant": o.Plant, "Plant": o.Plant, "MRPArea": o.Plant,
		"StorageLocation": o.StorageLocation, "Batch": o.Batch, "ProductionUnit": m.Unit, "ProductionUnitISOCode": m.UnitISO, "ProductionUnitSAPCode": m.Unit,
		"MfgOrderItemPlannedTotalQty": s.show(o.Material, o.Quantity), "MfgOrderItemGoodsReceiptQty": s.show(o.Material, o.received),
		"__metadata": meta(orderService, "A_ProductionOrderItem_2", "ManufacturingOrder='"+o.Number+"',ManufacturingOrderItem='1'", "")})
	return r
}

func (s *System) operationRow(o *Order, i int) row {
	op, r, m := o.Operations[i], operationSchema.blank(), s.materials[o.Material]
	maps.Copy(r, row{"OrderInternalBillOfOperations": fmt.Sprint(o.routing), "OrderIntBillOfOperationsItem": fmt.Sprint(i + 1), "ManufacturingOrder": o.Number,
		"ManufacturingOrderSequence": "0", "ManufacturingOrderOperation": op.Number, "ManufacturingOrderCategory": "10", "ManufacturingOrderType": o.Type,
		"MfgOrderOperationText": op.Text, "OperationIsReleased": flag(o.Released), "OperationIsPartiallyConfirmed": flag(op.count > 0 && !op.final), "OperationIsConfirmed": flag(op.final),
		"ProductionPlant": o.Plant, "WorkCenterTypeCode": "A", "WorkCenter": op.WorkCenter, "OperationControlProfile": "YBP1", "OperationUnit": m.Unit,
		"OperationUnitISOCode": m.UnitISO, "OperationUnitSAPCode": m.Unit, "OpPlannedTotalQuantity": s.show(o.Material, o.Quantity),
		"OpTotalConfirmedYieldQty": s.show(o.Material, op.yield), "LastChangeDateTime": stamp(o.partsChanged()),
		"__metadata": meta(orderService, "A_ProductionOrderOperation_2",
			fmt.Sprintf("OrderInternalBillOfOperations='%d',OrderIntBillOfOperationsItem='%d'", o.routing, i+1), etag(o))})
	return r
}

func (s *System) componentRow(o *Order, i int, sch *Schema, set string) row {
	c, r := o.Components[i], sch.blank()
	m := s.materials[c.Material]
	key := fmt.Sprintf("Reservation='%d',ReservationItem='%s'", o.reservation, c.Item)
	maps.Copy(r, row{"Reservation": fmt.Sprint(o.reservation), "ReservationItem": c.Item, "Material": c.Material, "Plant": o.Plant, "ManufacturingOrderCategory": "10",
		"ManufacturingOrderType": o.Type, "ManufacturingOrder": o.Number, "ManufacturingOrderSequence": "0", "ManufacturingOrderOperation": c.Operation,
		"ProductionPlant": o.Plant, "OrderInternalBillOfOperations": fmt.Sprint(o.routing), "ReservationIsFinallyIssued": c.final,
		"MatlCompIsMarkedForBackflush": c.Backflush, "BOMItemCategory": "L", "BillOfMaterialItemNumber": "0010", "StorageLocation": c.StorageLocation,
		"GoodsMovementType": c.MovementType, "BaseUnit": m.Unit, "BaseUnitISOCode": m.UnitISO, "BaseUnitSAPCode": m.Unit,
		"RequiredQuantity": s.show(c.Material, c.Required), "WithdrawnQuantity": s.show(c.Material, c.withdrawn), "EntryUnit": m.Unit,
		"EntryUnitISOCode": m.UnitISO, "EntryUnitSAPCode": m.Unit, "GoodsMovementEntryQty": s.show(c.Material, c.Required)})
	tag := ""
	if sch == component3Schema {
		r["LastChangeDateTime"], tag = stamp(o.partsChanged()), etag(o)
		key += ",ReservationRecordType=''"
	}
	r["__metadata"] = meta(orderService, set, key, tag)
	return r
}

func (s *System) statusRows(o *Order) (rows []row) {
	for _, st := range []struct {
		on         bool
		code, word string
	}{{!o.Released, "I0001", "CRTD"}, {o.Released && !o.TechnicallyComplete, "I0002", "REL"}, {o.PartiallyConfirmed && !o.Confirmed, "I0010", "PCNF"}, {o.Confirmed, "I0009", "CNF"},
		{o.Delivered, "I0012", "DLV"}, {o.Locked, "I0043", "LKD"}, {o.TechnicallyComplete, "I0045", "TECO"}, {o.Closed, "I0046", "CLSD"}, {o.DeletionMarked, "I0076", "DLFL"}} {
		if st.on {
			r := statusSchema.blank()
			maps.Copy(r, row{"ManufacturingOrder": o.Number, "StatusCode": st.code, "StatusShortName": st.word,
				"__metadata": meta(orderService, "A_ProductionOrderStatus_2", "ManufacturingOrder='"+o.Number+"',StatusCode='"+st.code+"'", "")})
			rows = append(rows, r)
		}
	}
	return rows
}

func (s *System) confRow(c *confirmation) row {
	r := confSchema.blank()
	maps.Copy(r, c.values)
	r["IsReversed"], r["IsReversal"] = c.reversed, c.reversal
	r["__metadata"] = meta(confService, "ProdnOrdConf2", fmt.Sprintf("ConfirmationGroup='%d',ConfirmationCount='%d'", c.group, c.count), "")
	deferred(r, "to_ProdnOrdConfMatlDocItm")
	return r
}

func (s *System) confMoveRow(c *confirmation, ref docRef) row {
	d, m, r := ref.doc, ref.doc.items[ref.item], confMoveSchema.blank()
	maps.Copy(r, row{"ConfirmationGroup": fmt.Sprint(c.group), "ConfirmationCount": fmt.Sprint(c.count), "MaterialDocument": d.number,
		"MaterialDocumentItem": fmt.Sprint(ref.item + 1), "MaterialDocumentYear": d.year, "OrderType": "YBM1", "OrderID": m.order, "OrderItem": "0",
		"ManufacturingOrderCategory": "10", "Material": m.material, "Plant": m.plant, "Reservation": orZero(m.reservation),
		"ReservationItem": orZero(m.reservationItem), "StorageLocation": m.location, "Batch": m.batch, "GoodsMovementType": m.kind,
		"GoodsMovementRefDocType": m.refType, "MaterialDocumentItemText": m.text, "EntryUnit": m.unit, "QuantityInEntryUnit": s.show(m.material, m.quantity),
		"__metadata": meta(confService, "ProdnOrdConfMatlDocItm", fmt.Sprintf("ConfirmationGroup='%d',ConfirmationCount='%d',MaterialDocument='%s',MaterialDocumentItem='%d',MaterialDocumentYear='%s'",
			c.group, c.count, d.number, ref.item+1, d.year), "")})
	if kind := standard(m.kind); kind == "101" || kind == "102" {
		r["OrderItem"] = "1"
	}
	return r
}

func orZero(text string) string {
	if text == "" {
		return "0"
	}
	return text
}

func (s *System) headerRow(d *document) row {
	r := headerSchema.blank()
	maps.Copy(r, row{"MaterialDocumentYear": d.year, "MaterialDocument": d.number, "InventoryTransactionType": "WA", "DocumentDate": dayDate(d.documents),
		"PostingDate": dayDate(d.posting), "CreationDate": date(d.entered), "CreationTime": clock(d.entered), "CreatedByUser": s.options.User,
		"MaterialDocumentHeaderText": d.text, "ReferenceDocument": d.ref, "GoodsMovementCode": d.code,
		"__metadata": meta(docService, "A_MaterialDocumentHeader", fmt.Sprintf("MaterialDocumentYear='%s',MaterialDocument='%s'", d.year, d.number), "")})
	deferred(r, "to_MaterialDocumentItem")
	return r
}

func (s *System) docItemRow(d *document, i int) row {
	m, r := d.items[i], docItemSchema.blank()
	unit, at := s.materials[m.material], s.place(m)
	maps.Copy(r, row{"MaterialDocumentYear": d.year, "MaterialDocument": d.number, "MaterialDocumentItem": fmt.Sprint(i + 1), "Material": m.material, "Plant": m.plant,
		"StorageLocation": m.location, "Batch": m.batch, "GoodsMovementType": m.kind, "ManufacturingOrder": m.order, "GoodsMovementRefDocType": m.refType,
		"MaterialBaseUnit": unit.Unit, "MaterialBaseUnitISOCode": unit.UnitISO, "MaterialBaseUnitSAPCode": unit.Unit, "QuantityInBaseUnit": s.show(m.material, m.quantity),
		"EntryUnit": unit.Unit, "EntryUnitISOCode": unit.UnitISO, "EntryUnitSAPCode": unit.Unit, "QuantityInEntryUnit": s.show(m.material, m.quantity),
		"MaterialDocumentItemText": m.text, "Reservation": orZero(m.reservation), "ReservationItem": orZero(m.reservationItem), "FiscalYear": d.year,
		"FiscalYearPeriod": d.year + "0" + d.posting[5:7], "GoodsMovementIsCancelled": m.cancelled, "ReversedMaterialDocumentYear": orZero(m.reversedYear),
		"ReversedMaterialDocument": m.reversedDoc, "ReversedMaterialDocumentItem": orZero(m.reversedItem), "DebitCreditCode": debit(m.kind),
		"InventoryStockType": at.kind, "InventorySpecialStockType": at.special,
		"__metadata": meta(docService, "A_MaterialDocumentItem", fmt.Sprintf("MaterialDocumentYear='%s',MaterialDocument='%s',MaterialDocumentItem='%d'", d.year, d.number, i+1), "")})
	if e := m.entered; e != nil {
		maps.Copy(r, row{"EntryUnit": e.Unit, "EntryUnitISOCode": e.UnitISO, "EntryUnitSAPCode": e.Unit, "QuantityInEntryUnit": e.Quantity.StringFixed(3)})
	}
	return r
}

func debit(kind string) string {
	if direction(kind) > 0 {
		return "S"
	}
	return "H"
}

func (s *System) stockRows() (rows []row) {
	places := slices.Collect(maps.Keys(s.stock))
	sort.Slice(places, func(i, j int) bool { return fmt.Sprint(places[i]) < fmt.Sprint(places[j]) })
	for _, p := range places {
		r := stockSchema.blank()
		maps.Copy(r, row{"Material": p.material, "Plant": p.plant, "StorageLocation": p.location, "Batch": p.batch, "InventoryStockType": p.kind,
			"InventorySpecialStockType": p.special,
			"MaterialBaseUnit":          s.materials[p.material].Unit, "MatlWrhsStkQtyInMatlBaseUnit": s.show(p.material, s.stock[p]),
			"__metadata": meta(stockService, "A_MatlStkInAcctMod", fmt.Sprintf("Material='%s',Plant='%s',StorageLocation='%s',Batch='%s',InventoryStockType='%s',InventorySpecialStockType='%s'", p.material, p.plant, p.location, p.batch, p.kind, p.special), "")})
		rows = append(rows, r)
	}
	return rows
}

// candidates are the rows of a set that can match a filter; the keys that a filter pins down spare a look at everything.
func (s *System) candidates(set string, f filter) (rows []row) {
	pin := func(name string) ([]string, bool) {
		if f == nil {
			return nil, false
		}
		return f.pinned(name)
	}
	switch set {
	case "ProdnOrdConf2", "ProdnOrdConfMatlDocItm":
		confs := s.confs
		if keys, ok := pin("ExternalSystemConfirmation"); ok {
			confs = under(s.confByKey, keys, strings.ToLower, func(a, b *confirmation) int {
				return cmp.Or(cmp.Compare(a.group, b.group), cmp.Compare(a.count, b.count))
			})
		}
		for _, c := range confs {
			if s.now().Before(c.visible) {
				continue
			}
			if set == "ProdnOrdConf2" {
				rows = append(rows, s.confRow(c))
				continue
			}
			rows = append(rows, s.movesOf(c)...)
		}
		return rows
	case "A_MaterialDocumentHeader", "A_MaterialDocumentItem":
		docs := s.docs
		byNumber := func(a, b *document) int { return cmp.Compare(a.number, b.number) }
		if refs, ok := pin("ReferenceDocument"); ok {
			docs = under(s.docByRef, refs, strings.Clone, byNumber)
		}
		if numbers, ok := pin("MaterialDocument"); ok {
			docs = nil
			for _, no := range numbers {
				if d := s.docByNo[no]; d != nil && !slices.Contains(docs, d) {
					docs = append(docs, d)
				}
			}
			slices.SortFunc(docs, byNumber)
		}
		orders, ofOrder := pin("ManufacturingOrder")
		for _, d := range docs {
			if s.now().Before(d.visible) {
				continue
			}
			if set == "A_MaterialDocumentHeader" {
				rows = append(rows, s.headerRow(d))
				continue
			}
			for i, m := range d.items {
				if !ofOrder || slices.Contains(orders, m.order) {
					rows = append(rows, s.docItemRow(d, i))
				}
			}
		}
		return rows
	case "A_MatlStkInAcctMod":
		return s.stockRows()
	}
	return s.orderRows(set)
}

// under is what is kept under some keys, each once and in the order in which it was made.
func under[T any](kept map[string][]T, keys []string, spell func(string) string, older func(a, b T) int) (all []T) {
	spelt := map[string]bool{}
	for _, key := range keys {
		spelt[spell(key)] = true
	}
	for key := range spelt {
		all = append(all, kept[key]...)
	}
	slices.SortFunc(all, older)
	return all
}

func (s *System) orderRows(set string) (rows []row) {
	for _, no := range slices.Sorted(maps.Keys(s.orders)) {
		o := s.orders[no]
		switch set {
		case "A_ProductionOrder_2":
			rows = append(rows, s.orderRow(o))
		default:
			rows = append(rows, s.partsOf(o, set)...)
		}
	}
	return rows
}

func (s *System) partsOf(o *Order, set string) (rows []row) {
	switch set {
	case "A_ProductionOrderItem_2":
		return []row{s.itemRow(o)}
	case "A_ProductionOrderStatus_2":
		return s.statusRows(o)
	case "A_ProductionOrderOperation_2":
		for i := range o.Operations {
			rows = append(rows, s.operationRow(o, i))
		}
	case "A_ProductionOrderComponent_2", "A_ProductionOrderComponent_3":
		for i := range o.Components {
			rows = append(rows, s.componentRow(o, i, Schemas[set], set))
		}
	}
	return rows
}

func (s *System) movesOf(c *confirmation) []row {
	rows := []row{}
	for _, ref := range c.items {
		if !s.now().Before(ref.doc.visible) {
			rows = append(rows, s.confMoveRow(c, ref))
		}
	}
	return rows
}

// byKey reads one entity by the text between the parentheses.
func (s *System) byKey(set, key string) ([]row, *failure) {
	text := "'" + strings.Trim(key, "'") + "'"
	if strings.Contains(key, "=") {
		text = key
	} else {
		text = Schemas[set].fields[0].name + "=" + text
	}
	text = strings.ReplaceAll(strings.ReplaceAll(text, "',", "' and "), "=", " eq ")
	f, err := parseFilter(text, Schemas[set])
	if err != nil {
		return nil, malformed(err.Error())
	}
	if numbers, ok := f.pinned("ManufacturingOrder"); ok && set == "A_ProductionOrder_2" {
		if o := s.orders[numbers[0]]; o != nil {
			return []row{s.orderRow(o)}, nil
		}
		return nil, notFound(set)
	}
	for _, r := range s.candidates(set, f) {
		if f.match(r) {
			return []row{r}, nil
		}
	}
	return nil, notFound(set)
}

var navSets = map[string]string{"to_ProductionOrderOperation": "A_ProductionOrderOperation_2", "to_ProductionOrderComponent": "A_ProductionOrderComponent_2",
	"to_ProductionOrderComponentExt": "A_ProductionOrderComponent_3", "to_ProductionOrderItem": "A_ProductionOrderItem_2", "to_ProductionOrderStatus": "A_ProductionOrderStatus_2"}

// related are the rows behind a navigation property of an entity; ok is false when there is no such property.
func (s *System) related(set string, r row, nav string) (rows []row, ok bool) {
	switch {
	case set == "A_ProductionOrder_2" && navSets[nav] != "":
		rows = s.partsOf(s.orders[r["ManufacturingOrder"].(string)], navSets[nav])
	case set == "ProdnOrdConf2" && nav == "to_ProdnOrdConfMatlDocItm":
		for _, c := range s.confByKey[strings.ToLower(r["ExternalSystemConfirmation"].(string))] {
			if fmt.Sprint(c.group) == r["ConfirmationGroup"] && fmt.Sprint(c.count) == r["ConfirmationCount"] {
				rows = s.movesOf(c)
			}
		}
	case set == "A_MaterialDocumentHeader" && nav == "to_MaterialDocumentItem":
		d := s.docByNo[r["MaterialDocument"].(string)]
		for i := range d.items {
			rows = append(rows, s.docItemRow(d, i))
		}
	default:
		return nil, false
	}
	if rows == nil {
		rows = []row{}
	}
	return rows, true
}

func (s *System) expand(set string, rows []row, names string) {
	for _, nav := range strings.Split(names, ",") {
		for _, r := range rows {
			if more, ok := s.related(set, r, nav); ok {
				r[nav] = row{"results": more}
			}
		}
	}
}

func (s *System) navigate(service, entity, nav string) (any, *failure) {
	set, key, _ := strings.Cut(entity, "(")
	if !contains(setsOf[service], set) {
		return nil, notFound(set)
	}
	rows, err := s.byKey(set, key)
	if err != nil {
		return nil, err
	}
	more, ok := s.related(set, rows[0], nav)
	if !ok {
		return nil, notFound(nav)
	}
	return row{"results": more}, nil
}
