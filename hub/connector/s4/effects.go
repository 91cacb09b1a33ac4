package s4

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
	"github.com/shopspring/decimal"
)

var _ connector.EffectReader = (*Connector)(nil)

// books is what SAP holds of one order, as it was read: its confirmations, and the material documents that none of them made.
type books struct {
	order sapOrder
	confs []sapConfirmation
	docs  []sapDocument
	// items are all of the order's items of material documents, by number, year and item, those of confirmations among them.
	items map[string]sapDocItem
}

// Effects implements connector.EffectReader. A document is a confirmation with its goods movements, or a material document that
// no confirmation made. The receipt of a confirmation that was posted as a document of its own belongs to the confirmation.
//
// The list of failed movements cannot be read. A movement that one of our confirmations must have and that is not there is
// shown as failed.
func (c *Connector) Effects(ctx context.Context, orderNo string) (connector.Effects, error) {
	out := connector.Effects{AsOf: time.Now().UTC()}
	b, err := c.books(ctx, orderNo)
	if err == nil {
		out.Order, err = c.workOrder(b.order)
	}
	if err == nil {
		var l *ledger
		if l, err = c.ledger(b); err == nil {
			out.Documents = l.all()
		}
	}
	if err != nil {
		return connector.Effects{}, fmt.Errorf("list documents of order %q: %w", orderNo, err)
	}
	return out, nil
}

// books reads everything of an order. The items of material documents are read before the confirmations, so that none of them is
// taken for a document of its own because its confirmation came in between.
func (c *Connector) books(ctx context.Context, orderNo string) (b books, err error) {
	if b.order, err = c.order(ctx, orderNo); err != nil {
		return b, err
	}
	number := b.order.ManufacturingOrder
	if b.items, err = c.docItems(ctx, number); err != nil {
		return b, err
	}
	if b.confs, err = c.confirmationsOf(ctx, number); err != nil {
		return b, err
	}
	made := map[string]bool{} // documents that confirmations made
	for _, x := range b.confs {
		for _, m := range x.Moves.Results {
			made[m.document()] = true
		}
	}
	var alone []string
	for _, i := range b.items {
		if doc := i.document(); !made[doc] {
			made[doc] = true // once
			alone = append(alone, doc)
		}
	}
	slices.Sort(alone)
	b.docs, err = c.documents(ctx, alone)
	return b, err
}

func sameOrder(a, b string) bool { return strings.TrimLeft(a, "0") == strings.TrimLeft(b, "0") }

func (c *Connector) docItems(ctx context.Context, order string) (map[string]sapDocItem, error) {
	all := map[string]sapDocItem{}
	q := url.Values{"$filter": {"ManufacturingOrder eq " + quote(order)}, "$inlinecount": {"allpages"}, "$orderby": {"MaterialDocumentYear,MaterialDocument,MaterialDocumentItem"}}
	err := pages(ctx, c.client, docService, "A_MaterialDocumentItem", q, func(i sapDocItem) {
		if sameOrder(i.ManufacturingOrder, order) { // a system that does not filter must not make us believe
			all[i.number()] = i
		}
	})
	return all, err
}

func (c *Connector) confirmationsOf(ctx context.Context, order string) ([]sapConfirmation, error) {
	var all []sapConfirmation
	seen, cut := map[string]bool{}, ""
	q := url.Values{"$filter": {"OrderID eq " + quote(order)}, "$expand": {"to_ProdnOrdConfMatlDocItm"}, "$inlinecount": {"allpages"}, "$orderby": {"ConfirmationGroup,ConfirmationCount"}}
	err := pages(ctx, c.client, confService, "ProdnOrdConf2", q, func(x sapConfirmation) {
		if x.Moves.Next != "" {
			cut = x.number()
		}
		if sameOrder(x.OrderID, order) && !seen[x.number()] { // one that was added meanwhile moves others to the next page
			seen[x.number()] = true
			all = append(all, x)
		}
	})
	if err == nil && cut != "" {
		err = fmt.Errorf("goods movements of confirmation %s are cut off", cut)
	}
	slices.SortStableFunc(all, func(a, b sapConfirmation) int {
		return cmp.Or(compareNumbers(a.ConfirmationGroup, b.ConfirmationGroup), compareNumbers(a.ConfirmationCount, b.ConfirmationCount))
	})
	return all, err
}

func compareNumbers(a, b string) int {
	x, err1 := strconv.ParseUint(a, 10, 64)
	y, err2 := strconv.ParseUint(b, 10, 64)
	if err1 != nil || err2 != nil {
		return strings.Compare(a, b)
	}
	return cmp.Compare(x, y)
}

// headersAtOnce keeps the address of a question short.
const headersAtOnce = 20

// documents reads material documents by their numbers. One that does not come is an error.
func (c *Connector) documents(ctx context.Context, numbers []string) (all []sapDocument, err error) {
	for some := range slices.Chunk(numbers, headersAtOnce) {
		var parts []string
		for _, n := range some {
			number, year, _ := strings.Cut(n, "/")
			parts = append(parts, fmt.Sprintf("(MaterialDocumentYear eq %s and MaterialDocument eq %s)", quote(year), quote(number)))
		}
		q := url.Values{"$filter": {strings.Join(parts, " or ")}, "$expand": {"to_MaterialDocumentItem"}}
		var cut []string
		err := pages(ctx, c.client, docService, "A_MaterialDocumentHeader", q, func(d sapDocument) {
			if d.Items.Next != "" {
				cut = append(cut, d.number())
			}
			if slices.Contains(some, d.number()) {
				all = append(all, d)
			}
		})
		switch {
		case err != nil:
			return nil, err
		case len(cut) > 0:
			return nil, fmt.Errorf("items of material document %s are cut off", cut[0])
		}
	}
	read := map[string]bool{}
	for _, d := range all {
		read[d.number()] = true
	}
	for _, n := range numbers {
		if !read[n] {
			return nil, fmt.Errorf("material document %s has items of the order, and cannot be read", n)
		}
	}
	slices.SortStableFunc(all, func(a, b sapDocument) int { return strings.Compare(a.number(), b.number()) })
	return all, nil
}

// ledger makes effects of books.
type ledger struct {
	c       *Connector
	b       books
	last    sapOperation
	hasLast bool
	confs   []object.Effect
	docs    []object.Effect
	// receipts are the documents of their own that belong to a confirmation, by its number.
	receipts map[string]string
	papers   map[string]sapDocument // by number
	// backflushed are movements that SAP made by itself, by number, year and item.
	backflushed map[string]bool
}

func (l *ledger) all() []object.Effect { return append(slices.Clone(l.confs), l.docs...) }

func (c *Connector) ledger(b books) (*ledger, error) {
	l := &ledger{c: c, b: b, receipts: map[string]string{}, papers: map[string]sapDocument{}, backflushed: map[string]bool{}}
	l.last, l.hasLast = b.order.last()
	for i := range b.confs {
		e, err := l.confirmation(&b.confs[i])
		if err != nil {
			return nil, fmt.Errorf("confirmation %s: %w", b.confs[i].number(), err)
		}
		l.confs = append(l.confs, e)
	}
	for i := range b.docs {
		e, err := l.document(&b.docs[i])
		if err != nil {
			return nil, fmt.Errorf("material document %s: %w", b.docs[i].number(), err)
		}
		l.papers[e.Number] = b.docs[i]
		if !l.belongs(e) {
			l.docs = append(l.docs, e)
		}
	}
	if err := l.pairConfirmations(); err != nil {
		return nil, err
	}
	l.docs = slices.DeleteFunc(l.docs, l.cancelsReceipt)
	l.pairDocuments()
	for i := range l.confs {
		if err := l.missing(i); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// keyOf is the fact's key of a confirmation. Its GUID carries too few bits of it, so one of the texts has to say it whole.
func keyOf(guid string, texts ...string) string {
	have, err := factkey.Parse(guid)
	if err != nil {
		return ""
	}
	for _, text := range texts {
		word, _, _ := strings.Cut(text, " ")
		if prefix, err := factkey.Parse(strings.ToUpper(word)); err == nil && len(word) == 16 && strings.HasPrefix(string(prefix), string(have)) {
			return strings.ToUpper(word)
		}
	}
	return ""
}

func (l *ledger) confirmation(x *sapConfirmation) (object.Effect, error) {
	texts := []string{x.ConfirmationText}
	for _, m := range x.Moves.Results {
		texts = append(texts, m.MaterialDocumentItemText)
	}
	e := object.Effect{Number: x.number(), Key: keyOf(x.ExternalSystemConfirmation, texts...), Stock: []object.StockMovement{}, Kind: object.KindConfirmation, OrderNo: l.b.order.ManufacturingOrder,
		Operation: operationName(x.Sequence, x.OrderOperation), State: object.EffectBooked, User: x.EnteredByUser, PostingDate: dayOf(x.PostingDate),
		BookedAt: at(x.ConfirmationEntryDate, x.ConfirmationEntryTime, l.c.cfg.zone)}
	e.Interim = x.OrderSuboperation != "" || l.hasLast && e.Operation != operationName(l.last.ManufacturingOrderSequence, l.last.ManufacturingOrderOperation)
	unit, err := l.c.units.known(cmp.Or(x.ConfirmationUnitISOCode, l.isoOf(x.ConfirmationUnit)), x.ConfirmationUnit)
	if err != nil {
		return e, err
	}
	for _, q := range []struct {
		kind object.QuantityKind
		v    decimal.Decimal
	}{{object.Yield, x.ConfirmationYieldQuantity.Decimal}, {object.Scrap, x.ConfirmationScrapQuantity.Decimal}, {object.Rework, x.ConfirmationReworkQuantity.Decimal}} {
		if v := signed(q.v, x.IsReversal); !v.IsZero() {
			e.Quantities = append(e.Quantities, object.EffectQuantity{Kind: q.kind, Item: l.b.order.Material, Quantity: object.Quantity{Value: v, Unit: unit}})
		}
	}
	for _, m := range x.Moves.Results {
		move, err := l.move(m, x)
		if err != nil {
			return e, fmt.Errorf("goods movement %s: %w", m.number(), err)
		}
		e.Movements = append(e.Movements, move)
		item, read := l.b.items[m.number()]
		if !read { // it came after the items were read
			item = sapDocItem{Plant: m.Plant, StorageLocation: m.StorageLocation, InventorySpecialStockType: m.InventorySpecialStockType}
		}
		l.stockOf(&e, item, move)
	}
	return e, nil
}

// isoOf is the ISO code of the order's unit where a confirmation names the same unit by its commercial code only.
func (l *ledger) isoOf(commercial string) string {
	if commercial == l.b.order.ProductionUnit {
		return l.b.order.ProductionUnitISOCode
	}
	return ""
}

// signed is below zero for what takes back; which sign SAP gives it there was not seen.
func signed(v decimal.Decimal, takesBack bool) decimal.Decimal {
	if takesBack {
		return v.Abs().Neg()
	}
	return v
}

func dayOf(date string) string {
	day, ok := readDate(date)
	if !ok {
		return ""
	}
	return day.Format(time.DateOnly)
}

// move is a goods movement of a confirmation. What neither receives nor carries our text was made by SAP from the parts list.
func (l *ledger) move(m sapMove, x *sapConfirmation) (object.EffectMovement, error) {
	item := l.b.items[m.number()] // says the unit's ISO code, and whether somebody took it back alone
	unit, err := l.c.units.known(item.EntryUnitISOCode, m.EntryUnit)
	if err != nil {
		return object.EffectMovement{}, err
	}
	item.GoodsMovementType, item.Material, item.QuantityInEntryUnit = m.GoodsMovementType, m.Material, m.QuantityInEntryUnit
	kind, q, err := l.moved(item, x.IsReversal)
	out := object.EffectMovement{Kind: kind, Item: m.Material, Lot: m.Batch, Quantity: object.Quantity{Value: q, Unit: unit}}
	if kind != object.Yield && keyOf(x.ExternalSystemConfirmation, m.MaterialDocumentItemText) == "" {
		out.Backflush, l.backflushed[m.number()] = true, true
		if !x.IsReversal && !x.IsReversed && !item.GoodsMovementIsCancelled {
			out.Document = m.number()
		}
	}
	return out, err
}

// moved says what an item counts. What a reversal moves back is the original's kind below zero. A movement type of the customer's
// own is known by the side of the books on which it stands.
func (l *ledger) moved(i sapDocItem, reversal bool) (object.QuantityKind, decimal.Decimal, error) {
	q, out, made := i.QuantityInEntryUnit.Abs(), false, i.Material == l.b.order.Material
	switch {
	case i.GoodsMovementType == "101", i.GoodsMovementType == "102":
		made, out = true, i.GoodsMovementType == "102"
	case i.GoodsMovementType == "261", i.GoodsMovementType == "532":
		made, out = false, true
	case i.GoodsMovementType == "262", i.GoodsMovementType == "531":
		made = false
	case i.DebitCreditCode == "H", i.DebitCreditCode == "S":
		out = i.DebitCreditCode == "H"
	default:
		return "", q, fmt.Errorf("movement type %q is not known here", i.GoodsMovementType)
	}
	switch {
	case made && out:
		return object.Yield, q.Neg(), nil
	case made:
		return object.Yield, q, nil
	case out && reversal:
		return object.Returned, q.Neg(), nil
	case out:
		return object.Consumed, q, nil
	case reversal:
		return object.Consumed, q.Neg(), nil
	}
	return object.Returned, q, nil
}

func (l *ledger) document(d *sapDocument) (object.Effect, error) {
	e := object.Effect{Number: d.number(), Stock: []object.StockMovement{}, Kind: object.KindConsumption, OrderNo: l.b.order.ManufacturingOrder, State: object.EffectBooked, User: d.CreatedByUser,
		PostingDate: dayOf(d.PostingDate), BookedAt: at(d.CreationDate, d.CreationTime, l.c.cfg.zone)}
	if _, err := factkey.Parse(d.ReferenceDocument); err == nil && len(d.ReferenceDocument) == 16 {
		e.Key = d.ReferenceDocument
	}
	for _, i := range d.Items.Results {
		if !sameOrder(i.ManufacturingOrder, l.b.order.ManufacturingOrder) {
			continue // another order's, in one document of a person's
		}
		old, cancels := i.cancels()
		if key, ours := strings.CutPrefix(i.MaterialDocumentItemText, backWord); cancels {
			e.Reverses = old.document()
		} else if ours {
			e.Reverses = ofFact + key
		}
		unit, err := l.c.units.known(i.EntryUnitISOCode, i.EntryUnit)
		if err != nil {
			return e, err
		}
		kind, v, err := l.moved(i, e.Reverses != "")
		if err != nil {
			return e, err
		}
		q := object.Quantity{Value: v, Unit: unit}
		if kind != object.Yield { // what was made is what was confirmed; this only brings it into stock
			e.Quantities = append(e.Quantities, object.EffectQuantity{Kind: kind, Item: i.Material, Quantity: q})
		}
		m := object.EffectMovement{Kind: kind, Item: i.Material, Lot: i.Batch, Quantity: q, Backflush: l.backflushed[old.number()]}
		e.Movements = append(e.Movements, m)
		l.stockOf(&e, i, m)
	}
	return e, nil
}

// belongs adds a receipt that is a document of its own to the confirmation with the same key, one to each.
func (l *ledger) belongs(e object.Effect) bool {
	cancels := e.Reverses != "" && !strings.HasPrefix(e.Reverses, ofFact) // by SAP's own function, which copies the reference
	if e.Key == "" || cancels || len(e.Movements) != 1 || e.Movements[0].Kind != object.Yield {
		return false
	}
	receives := func(m object.EffectMovement) bool { return m.Kind == object.Yield }
	for i := range l.confs {
		if x := &l.confs[i]; x.Key == e.Key && !slices.ContainsFunc(x.Movements, receives) {
			x.Movements, x.Stock = append(x.Movements, e.Movements[0]), append(x.Stock, e.Stock...)
			l.receipts[x.Number] = e.Number
			return true
		}
	}
	return false
}

// pairConfirmations finds for each cancelled confirmation what cancelled it: by our text, and where a person did it by the same
// group and quantities. One without the other means that not everything was read.
func (l *ledger) pairConfirmations() error {
	pair := func(reversal int, is func(i int) bool) bool {
		for i := range l.confs {
			old := &l.confs[i]
			if x := l.b.confs[i]; x.IsReversed && !x.IsReversal && old.ReversedBy == "" && x.ConfirmationGroup == l.b.confs[reversal].ConfirmationGroup && is(i) {
				old.ReversedBy, l.confs[reversal].Reverses = l.confs[reversal].Number, old.Number
				return true
			}
		}
		return false
	}
	var left []int
	for r := range l.confs {
		if !l.b.confs[r].IsReversal {
			continue
		}
		_, what, ours := strings.Cut(l.b.confs[r].ConfirmationText, cancelWord)
		if !ours || !pair(r, func(i int) bool { return what == l.confs[i].Key || what == l.confs[i].Number }) {
			left = append(left, r)
		}
	}
	for _, r := range left {
		if !pair(r, func(i int) bool { return opposite(l.confs[i], l.confs[r]) }) {
			return fmt.Errorf("confirmation %s cancels another, which cannot be read", l.confs[r].Number)
		}
	}
	for i, x := range l.b.confs {
		if x.IsReversed && !x.IsReversal && l.confs[i].ReversedBy == "" {
			return fmt.Errorf("confirmation %s is cancelled, and what cancelled it cannot be read", l.confs[i].Number)
		}
	}
	return nil
}

// cancelsReceipt adds the cancellation of a confirmation's receipt to what cancelled the confirmation.
func (l *ledger) cancelsReceipt(e object.Effect) bool {
	for i := range l.confs {
		if receipt := l.receipts[l.confs[i].Number]; receipt == "" || receipt != e.Reverses {
			continue
		}
		for j := range l.confs {
			if l.confs[j].Number == l.confs[i].ReversedBy {
				l.confs[j].Movements, l.confs[j].Stock = append(l.confs[j].Movements, e.Movements...), append(l.confs[j].Stock, e.Stock...)
				return true
			}
		}
	}
	return false
}

func opposite(a, b object.Effect) bool {
	return slices.EqualFunc(a.Quantities, b.Quantities, func(x, y object.EffectQuantity) bool {
		return x.Kind == y.Kind && x.Unit == y.Unit && x.Value.Equal(y.Value.Neg())
	})
}

// ofFact stands before the key of a fact whose document is taken back, until that document is found.
const ofFact = "fact "

// pairDocuments links material documents with what takes them back: SAP's own cancellation, or the opposite movement of one of
// our facts. What cancels only one of several items leaves the document as it is.
func (l *ledger) pairDocuments() {
	for i := range l.docs {
		e := &l.docs[i]
		for j := range l.docs {
			old := &l.docs[j]
			is := e.Reverses == old.Number || e.Reverses == ofFact+old.Key
			if e.Reverses != "" && is && i != j && old.ReversedBy == "" && old.Reverses == "" && len(old.Movements) <= len(e.Movements) {
				old.ReversedBy, e.Reverses = e.Number, old.Number
				break
			}
		}
	}
}

// missing adds to one of our confirmations the movements that it must have and has not.
func (l *ledger) missing(n int) error {
	x, e := l.b.confs[n], &l.confs[n]
	if e.Key == "" || x.IsReversal || x.IsReversed {
		return nil
	}
	lack := func(kind object.QuantityKind, item, unit string, q decimal.Decimal) {
		e.Movements = append(e.Movements, object.EffectMovement{Kind: kind, Item: item, Quantity: object.Quantity{Value: q, Unit: unit}, Backflush: kind != object.Yield, Failed: true, Code: "COGI",
			Reason: "it is not in the books: look for it among the order's failed goods movements (transaction COGI)"})
	}
	if yield := x.ConfirmationYieldQuantity.Sub(l.received(n)); !e.Interim && x.ConfirmationYieldQuantity.IsPositive() && yield.IsPositive() {
		lack(object.Yield, l.b.order.Material, e.Quantities[0].Unit, yield)
	}
	if l.c.cfg.Movements != movementsSAP || !l.b.order.TotalQuantity.IsPositive() {
		return nil
	}
	made := x.ConfirmationYieldQuantity.Add(x.ConfirmationScrapQuantity.Decimal)
	for _, m := range l.toTake(e.Operation) {
		taken := slices.ContainsFunc(e.Movements, func(have object.EffectMovement) bool { return have.Item == m.Material && have.Kind == object.Consumed })
		if taken || !made.IsPositive() {
			continue
		}
		unit, err := l.c.units.known(m.BaseUnitISOCode, m.BaseUnit)
		if err != nil {
			return fmt.Errorf("component %q: %w", m.Material, err)
		}
		lack(object.Consumed, m.Material, unit, m.RequiredQuantity.Mul(made).DivRound(l.b.order.TotalQuantity.Decimal, scale))
	}
	return nil
}

// received is what the receipts of a confirmation brought that nobody has cancelled alone.
func (l *ledger) received(n int) (sum decimal.Decimal) {
	add := func(i sapDocItem) {
		if kind, q, err := l.moved(i, false); err == nil && kind == object.Yield && q.IsPositive() && !i.GoodsMovementIsCancelled {
			sum = sum.Add(q)
		}
	}
	for _, m := range l.b.confs[n].Moves.Results {
		i := l.b.items[m.number()]
		i.GoodsMovementType, i.Material, i.QuantityInEntryUnit = m.GoodsMovementType, m.Material, m.QuantityInEntryUnit
		add(i)
	}
	for _, i := range l.papers[l.receipts[l.confs[n].Number]].Items.Results {
		add(i)
	}
	return sum
}

// toTake are the components that SAP takes by itself at an operation.
func (l *ledger) toTake(name string) (all []sapComponent) {
	for _, op := range l.b.order.operations() {
		if operationName(op.ManufacturingOrderSequence, op.ManufacturingOrderOperation) != name {
			continue
		}
		items := backflushed(&l.b.order, op)
		for _, m := range l.b.order.Components.Results {
			if i := slices.Index(items, m.Material); i >= 0 && m.GoodsMovementType != "531" {
				all = append(all, m)
				items = slices.Delete(items, i, i+1)
			}
		}
	}
	return all
}
