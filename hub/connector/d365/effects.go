package d365

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
)

var _ connector.EffectReader = (*Connector)(nil)

// errNoKey says why nothing is listed without an extension field.
var errNoKey = errors.New("the journals carry no key of a fact, so none of them can be told from another: add the extension field and name it in key_field")

// Effects implements connector.EffectReader. A document is a line of a journal; a message that is not processed yet is a pending
// one. It needs key_field. Messages are read before the journals that they become, so that none is in neither.
func (c *Connector) Effects(ctx context.Context, orderNo string) (connector.Effects, error) {
	out := connector.Effects{AsOf: time.Now().UTC()}
	fail := func(err error) (connector.Effects, error) {
		return connector.Effects{}, fmt.Errorf("list journals of order %q: %w", orderNo, err)
	}
	if c.cfg.KeyField == "" {
		return fail(errNoKey)
	}
	o, err := c.order(ctx, orderNo)
	if err != nil {
		return fail(err)
	}
	if out.Order, err = c.workOrder(o); err != nil {
		return fail(err)
	}
	waiting, err := c.waiting(ctx, o)
	if err != nil {
		return fail(err)
	}
	for _, entity := range []string{"finished", "picking"} {
		lines, err := c.readAll(ctx, entity, "ProductionOrderNumber eq "+quote(o.number()), "JournalNumber")
		if err != nil {
			return fail(err)
		}
		for _, l := range lines {
			if l.text("ProductionOrderNumber") != o.number() { // a system that does not filter must not make us believe
				continue
			}
			e, err := c.journal(o, entity, l)
			if err != nil {
				return fail(fmt.Errorf("journal %s: %w", l.text("JournalNumber"), err))
			}
			for n := 2; slices.ContainsFunc(out.Documents, func(x object.Effect) bool { return x.Number == e.Number }); n++ {
				e.Number = fmt.Sprintf("%s/%d", l.text("JournalNumber"), n)
			}
			out.Documents = append(out.Documents, e)
		}
	}
	for _, w := range waiting {
		if !slices.ContainsFunc(out.Documents, func(e object.Effect) bool { return e.Key == w.Key && w.Key != "" }) { // processed meanwhile
			out.Documents = append(out.Documents, w)
		}
	}
	return out, nil
}

// waiting are the messages of an order that are not processed yet. What has failed has no effect.
func (c *Connector) waiting(ctx context.Context, o order) (all []object.Effect, err error) {
	found, err := c.readAll(ctx, "messages", fmt.Sprintf("MessageQueue eq %s and MessageContent eq %s", quote(queue), quote("*"+o.number()+"*")), "MessageId")
	if err != nil {
		return nil, err
	}
	pending, _, _ := sorted(found)
	for _, m := range pending {
		var content struct {
			Order    string `json:"ProductionOrderNumber"`
			Finished []row  `json:"ReportFinishedLines"`
			Picking  []row  `json:"PickingListLines"`
		}
		d := json.NewDecoder(strings.NewReader(m.text("MessageContent")))
		d.UseNumber()
		if err := d.Decode(&content); err != nil || content.Order != o.number() {
			continue // of another order, or nobody's
		}
		for i, l := range append(content.Finished, content.Picking...) {
			e := object.Effect{Number: m.text("MessageId"), Key: l.text(c.cfg.KeyField), Kind: object.KindConfirmation, OrderNo: o.number(), State: object.EffectPending, PostingDate: l.text("ReportAsFinishedDate")}
			if i > 0 {
				e.Number = fmt.Sprintf("%s/%d", e.Number, i+1)
			}
			if i < len(content.Finished) {
				err = c.add(&e, o, l, map[string]string{"ReportedGoodQuantity": good, "ReportedErrorQuantity": bad})
			} else {
				e.Kind, e.PostingDate = object.KindConsumption, l.text("ConsumptionDate")
				err = c.add(&e, o, l, map[string]string{"ConsumptionBOMQuantity": consumed})
			}
			if err != nil {
				return nil, fmt.Errorf("message %s: %w", m.text("MessageId"), err)
			}
			all = append(all, e)
		}
	}
	return all, nil
}

// What a field of a line counts.
const (
	good     = "good"
	bad      = "bad"
	consumed = "consumed"
)

// journal makes an effect of a line. A field that the entity does not have at all is an error: its names differ in this version.
func (c *Connector) journal(o order, entity string, l row) (object.Effect, error) {
	e := object.Effect{Number: l.text("JournalNumber"), Kind: object.KindConfirmation, OrderNo: o.number(), State: object.EffectBooked, Key: l.text(c.cfg.KeyField)}
	e.PostingDate, _, _ = strings.Cut(l.text("PostedDate"), "T")
	fields := map[string]string{"GoodQuantity": good, "ErrorQuantity": bad}
	if entity == "picking" {
		e.Kind, fields = object.KindConsumption, map[string]string{"ConsumptionQuantity": consumed}
	}
	for _, name := range append([]string{c.cfg.KeyField, "ItemNumber"}, keys(fields)...) {
		if _, has := l[name]; !has {
			return e, fmt.Errorf("entity %s has no field %q: look for its name in $metadata", c.cfg.entity(entity), name)
		}
	}
	return e, c.add(&e, o, l, fields)
}

func keys(m map[string]string) (names []string) {
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// add adds the quantities of a line to its effect.
func (c *Connector) add(e *object.Effect, o order, l row, fields map[string]string) error {
	for _, name := range keys(fields) {
		if l.text(name) == "" {
			continue
		}
		v, err := exact(l.text(name))
		if err != nil {
			return fmt.Errorf("%s %q is not a number", name, l.text(name))
		}
		item, kind := cmp.Or(l.text("ItemNumber"), o.head.text("ItemNumber")), object.Yield
		symbol, flushed := o.head.text("UnitSymbol"), false
		switch {
		case v.IsZero():
			continue
		case fields[name] == bad:
			kind = object.Scrap
		case fields[name] == consumed:
			if symbol, flushed, err = o.component(item, l); err != nil {
				return err
			}
			if kind = object.Consumed; v.IsNegative() { // a line below zero gives back
				kind, v = object.Returned, v.Neg()
			}
		}
		unit, known := c.cfg.Units[symbol]
		if !known {
			return fmt.Errorf("unit %q of item %q is not mapped: add it to units", symbol, item)
		}
		q := object.Quantity{Value: v, Unit: unit}
		e.Quantities = append(e.Quantities, object.EffectQuantity{Kind: kind, Item: item, Quantity: q})
		if kind != object.Scrap {
			e.Movements = append(e.Movements, object.EffectMovement{Kind: kind, Item: item, Quantity: q, Backflush: flushed && e.Key == ""})
		}
	}
	return nil
}

// component says in which unit an item is taken, and whether D365 takes it by itself.
func (o *order) component(item string, line row) (symbol string, flushed bool, err error) {
	for _, l := range o.bom {
		if l.text("ItemNumber") == item {
			principle := l.text("FlushingPrinciple")
			return l.text("UnitSymbol"), principle != "" && principle != "Manual", nil
		}
	}
	if symbol = line.text("UnitSymbol"); symbol == "" {
		return "", false, fmt.Errorf("item %q is no component of order %s, so its unit is not known", item, o.number())
	}
	return symbol, false, nil
}
