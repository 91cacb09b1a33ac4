package s4

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/shopspring/decimal"
)

// list is a set as OData V2 writes it: results, and where the next page is.
type list[T any] struct {
	Results []T    `json:"results"`
	Next    string `json:"__next"`
	// Count is how many there are on all pages, where $inlinecount asked for it: a text, or a number.
	Count any `json:"__count"`
}

type sapOrder struct {
	ManufacturingOrder, LastChangeDateTime, Material, StorageLocation, ProductionPlant string
	ProductionUnit, ProductionUnitISOCode                                              string
	TotalQuantity                                                                      quantity
	MfgOrderCreationDate                                                               string
	MfgOrderScheduledStartDate, MfgOrderScheduledEndDate                               string
	MfgOrderScheduledStartTime, MfgOrderScheduledEndTime                               string

	OrderIsReleased, OrderIsPartiallyReleased, OrderIsConfirmed, OrderIsPartiallyConfirmed, OrderIsDelivered, OrderIsDeleted,
	OrderIsLocked, OrderIsTechnicallyCompleted, OrderIsClosed, OrderIsMarkedForDeletion string

	Items      list[sapItem]      `json:"to_ProductionOrderItem"`
	Operations list[sapOperation] `json:"to_ProductionOrderOperation"`
	Components list[sapComponent] `json:"to_ProductionOrderComponent"`
}

type sapItem struct {
	ManufacturingOrderItem, StorageLocation, Batch string
	// Nil where the system does not say: these are not among the fields of the order's item that were read.
	OverdelivTolrtdLmtRatioInPct   *quantity
	UnlimitedOverdeliveryIsAllowed bool
}

type sapOperation struct {
	ManufacturingOrder, LastChangeDateTime                                                  string
	ManufacturingOrderSequence, ManufacturingOrderOperation, ManufacturingOrderSubOperation string
	MfgOrderOperationText, WorkCenter, OperationUnitISOCode, OperationIsDeleted             string
	OperationIsConfirmed                                                                    string
	OpPlannedTotalQuantity                                                                  quantity
}

// confirmed reports that an operation was confirmed finally.
func (o *sapOperation) confirmed() bool { return o.OperationIsConfirmed != "" }

type sapComponent struct {
	ManufacturingOrder, LastChangeDateTime, Reservation, ReservationItem, Material, Plant, StorageLocation, GoodsMovementType string
	ManufacturingOrderSequence, ManufacturingOrderOperation, BOMItemDescription                                               string
	BaseUnit, BaseUnitISOCode, EntryUnit, EntryUnitISOCode                                                                    string
	RequiredQuantity                                                                                                          quantity
	MatlCompIsMarkedForBackflush, MatlCompIsMarkedForDeletion, MaterialComponentIsPhantomItem                                 bool
}

type sapConfirmation struct {
	ConfirmationGroup, ConfirmationCount, OrderID, OrderOperation, Sequence, ExternalSystemConfirmation, PostingDate string
	ConfirmationUnit, ConfirmationUnitISOCode, OrderSuboperation, ConfirmationText, EnteredByUser                    string
	ConfirmationEntryDate, ConfirmationEntryTime                                                                     string
	ConfirmationYieldQuantity, ConfirmationScrapQuantity, ConfirmationReworkQuantity                                 quantity
	IsReversed, IsReversal, IsFinalConfirmation                                                                      bool
	Moves                                                                                                            list[sapMove] `json:"to_ProdnOrdConfMatlDocItm"`
}

// number is the confirmation as people write it: group and count.
func (c *sapConfirmation) number() string { return c.ConfirmationGroup + "/" + c.ConfirmationCount }

type sapMove struct {
	MaterialDocument, MaterialDocumentYear, MaterialDocumentItem, MaterialDocumentItemText string
	Material, GoodsMovementType, EntryUnit, Batch, Plant, StorageLocation                  string
	InventorySpecialStockType                                                              string
	QuantityInEntryUnit                                                                    quantity
}

func (m *sapMove) document() string { return m.MaterialDocument + "/" + m.MaterialDocumentYear }
func (m *sapMove) number() string   { return m.document() + "/" + m.MaterialDocumentItem }

type sapDocument struct {
	MaterialDocument, MaterialDocumentYear, ReferenceDocument, PostingDate string
	CreationDate, CreationTime, CreatedByUser                              string
	Items                                                                  list[sapDocItem] `json:"to_MaterialDocumentItem"`
}

// number is the document as people write it: number and year.
func (d *sapDocument) number() string { return d.MaterialDocument + "/" + d.MaterialDocumentYear }

// cancels reports a document that the function Cancel made.
func (d *sapDocument) cancels() bool {
	if len(d.Items.Results) == 0 {
		return false
	}
	_, cancels := d.Items.Results[0].cancels()
	return cancels
}

type sapDocItem struct {
	MaterialDocument, MaterialDocumentYear, Material, Batch, GoodsMovementType, ManufacturingOrder, EntryUnit, EntryUnitISOCode       string
	MaterialDocumentItemText, ReversedMaterialDocument, Plant, StorageLocation, Reservation, ReservationItem, GoodsMovementRefDocType string
	MaterialDocumentItem, ReversedMaterialDocumentYear, ReversedMaterialDocumentItem, DebitCreditCode                                 string
	MaterialBaseUnit, MaterialBaseUnitISOCode, InventorySpecialStockType                                                              string
	QuantityInEntryUnit, QuantityInBaseUnit                                                                                           quantity
	GoodsMovementIsCancelled                                                                                                          bool
}

func (i *sapDocItem) document() string { return i.MaterialDocument + "/" + i.MaterialDocumentYear }
func (i *sapDocItem) number() string   { return i.document() + "/" + i.MaterialDocumentItem }

// cancels says which item the function Cancel or CancelItem took back with this one.
func (i *sapDocItem) cancels() (old sapDocItem, ok bool) {
	old = sapDocItem{MaterialDocument: i.ReversedMaterialDocument, MaterialDocumentYear: i.ReversedMaterialDocumentYear, MaterialDocumentItem: i.ReversedMaterialDocumentItem}
	return old, strings.Trim(i.ReversedMaterialDocument, "0") != ""
}

type sapStock struct {
	sapShelf
	MaterialBaseUnit             string
	MatlWrhsStkQtyInMatlBaseUnit quantity
}

// sapShelf is the key of a stock.
type sapShelf struct {
	Material, Plant, StorageLocation, Batch, InventoryStockType, InventorySpecialStockType, Supplier, Customer, WBSElementInternalID string
	SDDocument, SDDocumentItem                                                                                                       string
}

// quantity is a decimal that travels as text. An empty one is zero; exponents, which SAP never writes, are refused.
type quantity struct{ decimal.Decimal }

// mostDigits bounds a quantity: SAP's widest has 31.
const mostDigits = 60

func (q *quantity) UnmarshalJSON(b []byte) error {
	text := strings.TrimSpace(strings.Trim(string(b), `"`))
	if text == "" || text == "null" {
		q.Decimal = decimal.Zero
		return nil
	}
	if len(text) > mostDigits || strings.ContainsAny(text, "eE") {
		return fmt.Errorf("%.80q is not a quantity of SAP's", text)
	}
	d, err := decimal.NewFromString(text)
	if err != nil {
		return fmt.Errorf("%.80q is not a quantity of SAP's", text)
	}
	q.Decimal = d
	return nil
}

// sapDate writes a calendar date at UTC midnight, which is how OData V2 carries dates.
func sapDate(t time.Time) string {
	return fmt.Sprintf("/Date(%d)/", time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC).UnixMilli())
}

func sapTime(t time.Time) string {
	return fmt.Sprintf("PT%02dH%02dM%02dS", t.Hour(), t.Minute(), t.Second())
}

// readDate reads /Date(ms)/ as a calendar date; it never shifts it by a zone. Also /Date(ms+0000)/ is written by some.
func readDate(text string) (time.Time, bool) {
	digits, ok := strings.CutPrefix(text, "/Date(")
	digits, ok2 := strings.CutSuffix(digits, ")/")
	if i := strings.LastIndexAny(digits, "+-"); i > 0 {
		digits = digits[:i]
	}
	ms, err := strconv.ParseInt(digits, 10, 64)
	if !ok || !ok2 || err != nil || ms < -62135596800000 || ms > 253402300799999 {
		return time.Time{}, false
	}
	return time.UnixMilli(ms).UTC(), true
}

// readTime reads PTnHnMnS, each part optional, as a duration since midnight.
func readTime(text string) (time.Duration, bool) {
	rest, ok := strings.CutPrefix(text, "PT")
	if !ok || len(text) > 12 {
		return 0, false
	}
	d, err := time.ParseDuration(strings.ToLower(cmp.Or(rest, "0S")))
	return d, err == nil && d >= 0 && d <= 24*time.Hour
}

// at joins a date and a time of day in a zone; the zero time when there is no date.
func at(date, clock string, zone *time.Location) time.Time {
	day, ok := readDate(date)
	if !ok {
		return time.Time{}
	}
	since, _ := readTime(clock)
	s := int(since / time.Second)
	return time.Date(day.Year(), day.Month(), day.Day(), s/3600, s/60%60, s%60, 0, zone)
}

const stampLayout = "20060102150405"

// quote writes a text as an OData literal.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
