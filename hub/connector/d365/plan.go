package d365

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

// The message types that are sent, and the queue.
const (
	queue    = "JmgMES3P"
	finished = "ProdProductionOrderReportFinished"
	picking  = "ProdProductionOrderPickingList"
)

// intent is what Prepare found out for Post, Lookup and Verify: the message itself, and what was there before it.
type intent struct {
	// At is when it was made, by the hub's clock.
	At      time.Time `json:"at"`
	Order   string    `json:"order"`
	Item    string    `json:"item"`
	Type    string    `json:"type"`
	Content string    `json:"content"`
	// Known are the messages of this key or content that were there before; Before are the journals' sums, nil when the effect
	// was there already.
	Known  []string `json:"known,omitempty"`
	Before *sums    `json:"before,omitempty"`
}

// sums are of an order's journals: of all its reports as finished, or of its picking lists of one item.
type sums struct {
	Good  decimal.Decimal `json:"good"`
	Bad   decimal.Decimal `json:"bad"`
	Taken decimal.Decimal `json:"taken"`
}

func (s sums) plus(d sums) sums {
	return sums{s.Good.Add(d.Good), s.Bad.Add(d.Bad), s.Taken.Add(d.Taken)}
}

func (s sums) equal(o sums) bool {
	return s.Good.Equal(o.Good) && s.Bad.Equal(o.Bad) && s.Taken.Equal(o.Taken)
}

func (s sums) String() string {
	return fmt.Sprintf("%s good, %s in error, %s taken", s.Good, s.Bad, s.Taken)
}

// change is what a posting adds to the sums.
func change(p connector.Posting) (d sums) {
	if f := p.Fact.Confirmation; f != nil {
		d.Good, d.Bad = f.Yield, f.Scrap
	}
	if f := p.Fact.Consumption; f != nil {
		if d.Taken = f.Quantity.Value; f.Movement == object.Return {
			d.Taken = d.Taken.Neg()
		}
	}
	return d
}

// reject makes a rejection. Nothing has happened in D365 when it is given.
func reject(class connector.Class, code, next, reason string, args ...any) *connector.Outcome {
	return &connector.Outcome{Result: connector.Rejected, Class: class, Code: code, Reason: fmt.Sprintf(reason, args...), NextStep: next}
}

// unsuitable refuses what the messages have no place for, before anything is read.
func unsuitable(p connector.Posting) *connector.Outcome {
	f := &p.Fact
	switch {
	case f.Confirmation == nil && f.Consumption == nil:
		return reject(connector.Fatal, "NOT_SUPPORTED", "Do not route this kind of fact to this ERP.", "D365 gets no message here for a fact of kind %s.", f.Kind)
	case !f.Reverses.IsZero():
		return reject(connector.Fatal, "NOT_SUPPORTED", "Take it back in D365, then accept this fact.", "There is no message that takes back what fact %s did.", f.Reverses)
	case f.OrderNo() == "":
		return reject(connector.Fatal, "NO_ORDER", "Find the order that ran at that time, then send the fact again with it.", "Fact %s names no order.", f.Key)
	case f.Confirmation != nil && (f.Confirmation.Rework.IsPositive() || f.Confirmation.Serial != ""):
		return reject(connector.Fatal, "NOT_SUPPORTED", "Post it by hand in D365, then accept the fact.", "The message has no field for rework or a serial number, which fact %s carries.", f.Key)
	case f.Confirmation != nil && !f.Confirmation.Yield.IsPositive() && !f.Confirmation.Scrap.IsPositive():
		return reject(connector.Fatal, "NOTHING", "Correct the rule of the source.", "Fact %s confirms neither yield nor scrap.", f.Key)
	}
	return nil
}

func unitWrong(item, order, have, want string) *connector.Outcome {
	return reject(connector.Fatal, "UNIT", "Correct the unit in the rule of the source, or units in the configuration.",
		"Item %q of order %s is kept in unit %q of D365, the fact is in %q.", item, order, have, want)
}

// plan makes the message of a posting.
func (c *Connector) plan(p connector.Posting, o order) (in intent, no *connector.Outcome) {
	in = intent{At: time.Now().UTC(), Order: o.number(), Item: o.head.text("ItemNumber"), Type: finished}
	var line map[string]any
	list := "ReportFinishedLines"
	if p.Fact.Confirmation != nil {
		line, no = c.confirm(p, o)
	} else {
		in.Type, in.Item, list = picking, p.Fact.Consumption.Item, "PickingListLines"
		line, no = c.consume(p, o)
	}
	if no != nil {
		return in, no
	}
	if c.cfg.JournalName != "" {
		line["JournalNameId"] = c.cfg.JournalName
	}
	if c.cfg.KeyField != "" {
		line[c.cfg.KeyField] = p.Fact.Key.String()
	}
	text, err := json.Marshal(map[string]any{"ProductionOrderNumber": in.Order, list: []any{line}})
	if err != nil {
		panic(err) // only our own maps of texts are encoded
	}
	in.Content = string(text)
	return in, nil
}

func number(d decimal.Decimal) json.Number { return json.Number(d.String()) }

func day(p connector.Posting) string {
	if p.PostingDate.IsZero() {
		return p.Fact.OccurredAt.Format(time.DateOnly)
	}
	return p.PostingDate.Format(time.DateOnly)
}

func (c *Connector) confirm(p connector.Posting, o order) (map[string]any, *connector.Outcome) {
	f, item, symbol := p.Fact.Confirmation, o.head.text("ItemNumber"), o.head.text("UnitSymbol")
	switch {
	case f.Item != "" && f.Item != item:
		return nil, reject(connector.Fatal, "ITEM", "Check which order ran on the machine.", "Order %s makes item %q, not %q.", o.number(), item, f.Item)
	case c.cfg.Units[symbol] == "" || c.cfg.Units[symbol] != f.Unit:
		return nil, unitWrong(item, o.number(), symbol, f.Unit)
	}
	line := map[string]any{"ItemNumber": item, "ReportedGoodQuantity": number(f.Yield), "ReportedErrorQuantity": number(f.Scrap), "ReportAsFinishedDate": day(p),
		"AutomaticBOMConsumptionRule": "Never", "ErrorCause": "None"} // the plant reports what it takes: else it is taken twice
	if f.Lot != "" {
		line["ItemBatchNumber"] = f.Lot
	}
	return line, nil
}

func (c *Connector) consume(p connector.Posting, o order) (map[string]any, *connector.Outcome) {
	f := p.Fact.Consumption
	var found []row
	for _, l := range o.bom {
		if l.text("ItemNumber") == f.Item {
			found = append(found, l)
		}
	}
	if len(found) != 1 {
		return nil, reject(connector.Fatal, "COMPONENT", "Correct the item in the rule of the source, or add the line to the order in D365.",
			"Order %s plans item %q %d times, wanted once.", o.number(), f.Item, len(found))
	}
	symbol := found[0].text("UnitSymbol")
	if c.cfg.Units[symbol] == "" || c.cfg.Units[symbol] != f.Quantity.Unit {
		return nil, unitWrong(f.Item, o.number(), symbol, f.Quantity.Unit)
	}
	line := map[string]any{"ItemNumber": f.Item, "ConsumptionBOMQuantity": number(change(p).Taken), "BOMUnitSymbol": symbol, "ConsumptionDate": day(p)}
	if f.Lot != "" {
		line["ItemBatchNumber"] = f.Lot
	}
	if f.Operation != "" {
		line["OperationNumber"] = json.Number(cmp.Or(strings.TrimLeft(f.Operation, "0"), "0"))
		if _, err := decimal.NewFromString(f.Operation); err != nil {
			return nil, reject(connector.Fatal, "OPERATION", "Correct the operation in the rule of the source.", "Operation %q of order %s is not a number.", f.Operation, o.number())
		}
	}
	return line, nil
}
