package erpnext

import (
	"fmt"
	"strings"
	"time"

	"github.com/shopspring/decimal"
)

// The document types and the purposes of stock entries.
const (
	workOrder  = "Work Order"
	stockEntry = "Stock Entry"
	settings   = "Manufacturing Settings" // one document of its own name

	manufacture = "Manufacture"
	consume     = "Material Consumption for Manufacture"
	receipt     = "Material Receipt"
)

type order struct {
	Name           string   `json:"name"`
	Modified       string   `json:"modified"`
	Docstatus      int      `json:"docstatus"`
	Status         string   `json:"status"`
	Company        string   `json:"company"`
	Item           string   `json:"production_item"`
	ItemName       string   `json:"item_name"`
	Unit           string   `json:"stock_uom"`
	BOM            string   `json:"bom_no"`
	Quantity       quantity `json:"qty"`
	Produced       quantity `json:"produced_qty"`
	SkipTransfer   flag     `json:"skip_transfer"`
	FromWIP        flag     `json:"from_wip_warehouse"`
	WIP            string   `json:"wip_warehouse"`
	Finished       string   `json:"fg_warehouse"`
	Scrap          string   `json:"scrap_warehouse"`
	Source         string   `json:"source_warehouse"`
	PlannedStart   string   `json:"planned_start_date"`
	PlannedEnd     string   `json:"planned_end_date"`
	ExpectedOn     string   `json:"expected_delivery_date"`
	RequiredItems  []need   `json:"required_items"`
	WorkOperations []struct {
		Operation   string `json:"operation"`
		Workstation string `json:"workstation"`
		Description string `json:"description"`
	} `json:"operations"`
}

type need struct {
	Item      string   `json:"item_code"`
	Name      string   `json:"item_name"`
	Required  quantity `json:"required_qty"`
	Unit      string   `json:"stock_uom"`
	Source    string   `json:"source_warehouse"`
	Operation string   `json:"operation"`
}

type item struct {
	Name string `json:"name"`
	Unit string `json:"stock_uom"`
}

// entry is a stock entry as it is read back. The custom fields have names of the site's own and are read from Fields.
type entry struct {
	Name        string     `json:"name"`
	Modified    string     `json:"modified"`
	Docstatus   int        `json:"docstatus"`
	Purpose     string     `json:"purpose"`
	WorkOrder   string     `json:"work_order"`
	PostingDate string     `json:"posting_date"`
	Loss        quantity   `json:"process_loss_qty"`
	Rows        []entryRow `json:"items"`
}

type entryRow struct {
	Item        string   `json:"item_code"`
	Quantity    quantity `json:"qty"`
	Unit        string   `json:"uom"`
	InStockUnit quantity `json:"transfer_qty"`
	StockUnit   string   `json:"stock_uom"`
	Finished    flag     `json:"is_finished_item"`
	From        string   `json:"s_warehouse"`
	To          string   `json:"t_warehouse"`
	Batch       string   `json:"batch_no"`
}

type bin struct {
	Name      string   `json:"name"`
	Item      string   `json:"item_code"`
	Warehouse string   `json:"warehouse"`
	Quantity  quantity `json:"actual_qty"`
	Unit      string   `json:"stock_uom"`
}

// flag is a check box: 0, 1, or true and false in later versions.
type flag bool

func (f *flag) UnmarshalJSON(b []byte) error {
	*f = string(b) == "1" || string(b) == "true" || string(b) == `"1"`
	return nil
}

// quantity is a decimal read from the exact text of a JSON number; ERPNext computes with floats, so it may have exponents and
// more digits than were meant.
type quantity struct{ decimal.Decimal }

func (q *quantity) UnmarshalJSON(b []byte) error {
	text := strings.Trim(string(b), `"`)
	if text == "" || text == "null" {
		q.Decimal = decimal.Zero
		return nil
	}
	d, err := decimal.NewFromString(text)
	if err != nil || len(text) > 60 || d.Exponent() < -60 || d.Exponent() > 30 {
		return fmt.Errorf("%.80q is not a quantity of ERPNext's", text)
	}
	q.Decimal = d
	return nil
}

const stamp = "2006-01-02 15:04:05.999999"

// instant reads a time of the site's; the zero time when it is none.
func instant(text string, zone *time.Location) time.Time {
	for _, layout := range []string{stamp, time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, zone); err == nil {
			return t
		}
	}
	return time.Time{}
}

// earlier takes a span off a stamp as it is written. It is a text of wall clock time, and stays one.
func earlier(text string, by time.Duration) string {
	t, err := time.Parse(stamp, text)
	if err != nil {
		return text
	}
	return t.Add(-by).Format("2006-01-02 15:04:05.000000")
}
