package d365double

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/shopspring/decimal"
)

// attempts is how often a message is tried before it has failed.
const attempts = 3

// settle processes what is due, in the order it came; a message waits for those of its order before it.
func (s *System) settle() {
	now := time.Now()
	waits := map[string]bool{}
	for _, m := range s.messages {
		if m.status != "Queued" && m.status != "Processing" {
			continue
		}
		var c content
		err := json.Unmarshal([]byte(m.content), &c)
		for !waits[c.ProductionOrderNumber] && m.status != "Failed" && m.status != "Processed" && !m.due.After(now) {
			if err == nil {
				err = s.process(m, &c)
			}
			m.attempts++
			switch {
			case err == nil:
				m.status, m.err = "Processed", ""
			case m.attempts >= attempts:
				m.status, m.err = "Failed", err.Error()
			default:
				m.status, m.due, err = "Processing", m.due.Add(s.traps.Delay), nil
			}
		}
		if m.status == "Queued" || m.status == "Processing" {
			waits[c.ProductionOrderNumber] = true
		}
	}
}

type content struct {
	ProductionOrderNumber string
	ReportFinishedLines   []map[string]any
	PickingListLines      []map[string]any
}

func amount(line map[string]any, name string) decimal.Decimal {
	d, _ := decimal.NewFromString(fmt.Sprint(line[name]))
	return d
}

func text(line map[string]any, name string) string {
	t, _ := line[name].(string)
	return t
}

// process books a message whole, or not at all.
func (s *System) process(m *message, _ *content) error {
	var c content
	d := json.NewDecoder(strings.NewReader(m.content))
	d.UseNumber()
	if err := d.Decode(&c); err != nil {
		return err
	}
	var o *Order
	for _, x := range s.orders {
		if x.Number == c.ProductionOrderNumber && x.Company == m.company {
			o = x
		}
	}
	switch {
	case s.traps.FailWith != "":
		return errors.New(s.traps.FailWith)
	case o == nil:
		return fmt.Errorf("production order %s does not exist", c.ProductionOrderNumber)
	case o.Status != "Released" && o.Status != "StartedUp":
		return fmt.Errorf("production order %s has the status %s", o.Number, o.Status)
	case s.traps.OnlyClaimed:
		return nil
	}
	var all []*journal
	for _, line := range append(c.ReportFinishedLines, c.PickingListLines...) {
		s.next++
		j := &journal{number: fmt.Sprintf("J%07d", s.next), order: o.Number, item: text(line, "ItemNumber"), visible: time.Now().Add(s.traps.VisibleAfter), key: text(line, s.traps.KeyField)}
		switch m.kind {
		case "ProdProductionOrderReportFinished":
			j.date, j.good, j.bad = text(line, "ReportAsFinishedDate"), amount(line, "ReportedGoodQuantity"), amount(line, "ReportedErrorQuantity")
			if rule := text(line, "AutomaticBOMConsumptionRule"); rule != "Never" {
				all = append(all, s.flush(o, j, rule)...)
			}
			if s.traps.OtherQuantity != "" {
				j.good = decimal.RequireFromString(s.traps.OtherQuantity)
			}
		case "ProdProductionOrderPickingList":
			j.picking, j.date, j.consumed = true, text(line, "ConsumptionDate"), amount(line, "ConsumptionBOMQuantity")
			if held, known := s.stock[j.item]; !known || held.LessThan(j.consumed) {
				return fmt.Errorf("item %s: the quantity is not available", j.item)
			}
		default:
			return fmt.Errorf("message type %s is not known here", m.kind)
		}
		if len(j.date) < 7 || s.shut[j.date[:7]] {
			return fmt.Errorf("the period of %s is not open", j.date)
		}
		all = append(all, j)
	}
	for _, j := range all {
		s.stock[j.item] = s.stock[j.item].Add(j.good).Sub(j.consumed)
	}
	o.Status, s.journals = "StartedUp", append(s.journals, all...)
	return nil
}

// flush is what D365 takes by itself at a report as finished: twice, where the plant reports it too.
func (s *System) flush(o *Order, j *journal, rule string) (all []*journal) {
	for _, c := range o.Components {
		if rule == "Always" || c.Flushing == "Finish" {
			s.next++
			all = append(all, &journal{number: fmt.Sprintf("J%07d", s.next), order: o.Number, item: c.Item, picking: true, visible: j.visible, date: j.date,
				consumed: c.Required.Mul(j.good).Div(o.Quantity)})
		}
	}
	return all
}
