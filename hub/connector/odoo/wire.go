package odoo

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/shopspring/decimal"
)

// ref is a many2one: [id, "name"], an id alone, or false.
type ref struct {
	ID   int
	Name string
}

func (r *ref) UnmarshalJSON(b []byte) error {
	*r = ref{}
	if string(b) == "false" || string(b) == "null" {
		return nil
	}
	if len(b) > 0 && b[0] != '[' {
		return json.Unmarshal(b, &r.ID)
	}
	var pair []json.RawMessage
	if err := json.Unmarshal(b, &pair); err != nil || len(pair) != 2 {
		return fmt.Errorf("%.80q is not a reference of Odoo's", b)
	}
	if err := json.Unmarshal(pair[0], &r.ID); err != nil {
		return err
	}
	var name text
	err := json.Unmarshal(pair[1], &name)
	r.Name = string(name)
	return err
}

// text is a text, false where there is none.
type text string

func (t *text) UnmarshalJSON(b []byte) error {
	*t = ""
	if string(b) == "false" || string(b) == "null" {
		return nil
	}
	return json.Unmarshal(b, (*string)(t))
}

// amount is a decimal read from the exact text of a JSON number. Odoo computes with floats, so it may have exponents and more digits than
// were meant.
type amount struct{ decimal.Decimal }

func (a *amount) UnmarshalJSON(b []byte) error {
	if string(b) == "false" || string(b) == "null" {
		a.Decimal = decimal.Zero
		return nil
	}
	d, err := decimal.NewFromString(string(b))
	if err != nil || len(b) > 60 || d.Exponent() < -60 || d.Exponent() > 30 {
		return fmt.Errorf("%.80q is not a quantity of Odoo's", b)
	}
	a.Decimal = d
	return nil
}

// exact writes a decimal as a JSON number, digit by digit.
func exact(d decimal.Decimal) json.Number { return json.Number(d.String()) }

// Odoo stores microseconds and shows whole seconds, in UTC and without saying so.
const stamp = time.DateTime

// instant reads a time; the zero time when there is none.
func instant(t text) time.Time {
	at, err := time.Parse(stamp, strings.TrimSpace(string(t)))
	if err != nil {
		return time.Time{}
	}
	return at
}

// later moves a stamp.
func later(t string, by time.Duration) string {
	at, err := time.Parse(stamp, t)
	if err != nil {
		return t
	}
	return at.Add(by).Format(stamp)
}

// production is one manufacturing order: all of an order, or what of it was split off.
type production struct {
	ID          int    `json:"id"`
	Name        text   `json:"name"`
	State       string `json:"state"`
	Sequence    int    `json:"backorder_sequence"`
	Product     ref    `json:"product_id"`
	Quantity    amount `json:"product_qty"`
	Unit        ref    `json:"product_uom_id"`
	Made        amount `json:"qty_produced"`
	Ready       text   `json:"reservation_state"`
	Priority    text   `json:"priority"`
	Company     ref    `json:"company_id"`
	Type        ref    `json:"picking_type_id"`
	Source      ref    `json:"location_src_id"`
	Destination ref    `json:"location_dest_id"`
	Floor       ref    `json:"production_location_id"`
	Written     text   `json:"write_date"`
	// The fields whose names differ between versions.
	Group      ref
	Start, End text
	Lot        text
}

// move is a stock.move.
type move struct {
	ID       int    `json:"id"`
	State    string `json:"state"`
	Product  ref    `json:"product_id"`
	Unit     ref    `json:"product_uom"`
	Demand   amount `json:"product_uom_qty"`
	From     ref    `json:"location_id"`
	To       ref    `json:"location_dest_id"`
	Transfer ref    `json:"picking_id"`
	RawOf    ref    `json:"raw_material_production_id"`
	MadeIn   ref    `json:"production_id"`
	Returns  ref    `json:"origin_returned_move_id"`
	Date     text   `json:"date"`
	User     ref    `json:"write_uid"`
	// Done is quantity or quantity_done.
	Done amount
}

// transfer is a stock.picking.
type transfer struct {
	ID      int    `json:"id"`
	Name    text   `json:"name"`
	State   string `json:"state"`
	Origin  text   `json:"origin"`
	Written text   `json:"write_date"`
	User    ref    `json:"write_uid"`
	Key     string
	Moves   []move
}

type product struct {
	ID       int    `json:"id"`
	Code     text   `json:"default_code"`
	Name     text   `json:"display_name"`
	Unit     ref    `json:"uom_id"`
	Tracking string `json:"tracking"`
}

type workOrder struct {
	ID         int    `json:"id"`
	Name       text   `json:"name"`
	State      string `json:"state"`
	Production ref    `json:"production_id"`
	Center     ref    `json:"workcenter_id"`
}
