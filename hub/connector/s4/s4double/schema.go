package s4double

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/shopspring/decimal"
)

// field is one property as the metadata declare it.
type field struct {
	name          string
	kind          string // "" is a string, else decimal, date, time, bool, guid, int
	length, scale int
}

// Schema is one entity type: its properties in order.
type Schema struct {
	Name   string
	fields []field
	byName map[string]field
}

// schema reads "Name/12" as a string of at most 12, "Name/13.3" as a decimal, "Name/date" and so on as that type.
func schema(name, text string) *Schema {
	s := &Schema{Name: name, byName: map[string]field{}}
	for _, word := range strings.Fields(text) {
		f := field{}
		var kind string
		f.name, kind, _ = strings.Cut(word, "/")
		switch digits, decimals, isDecimal := strings.Cut(kind, "."); {
		case isDecimal:
			f.kind = "decimal"
			f.length, _ = strconv.Atoi(digits)
			f.scale, _ = strconv.Atoi(decimals)
		case kind != "" && kind[0] >= '0' && kind[0] <= '9':
			f.length, _ = strconv.Atoi(kind)
		default:
			f.kind = kind
		}
		s.fields = append(s.fields, f)
		s.byName[f.name] = f
	}
	return s
}

// Has reports whether the entity has a property of that name.
func (s *Schema) Has(name string) bool { _, ok := s.byName[name]; return ok }

// row is one entity on its way out.
type row map[string]any

const noGUID = "00000000-0000-0000-0000-000000000000"

// blank is an entity in which nothing is set, as the original writes it.
func (s *Schema) blank() row {
	r := make(row, len(s.fields)+4)
	for _, f := range s.fields {
		switch f.kind {
		case "decimal":
			r[f.name] = "0"
			if f.scale > 0 {
				r[f.name] = decimal.Zero.StringFixed(int32(f.scale))
			}
		case "date":
			r[f.name] = nil
		case "time":
			r[f.name] = "PT00H00M00S"
		case "bool":
			r[f.name] = false
		case "guid":
			r[f.name] = noGUID
		case "int":
			r[f.name] = 0
		default:
			r[f.name] = ""
		}
	}
	return r
}

var (
	datePattern = regexp.MustCompile(`^/Date\(-?\d{1,15}\)/$`)
	timePattern = regexp.MustCompile(`^PT\d{1,2}H\d{1,2}M\d{1,2}S$`)
	guidPattern = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
)

// check refuses what the original refuses before anything is looked at: properties that do not exist, wrong types, too long
// texts, too many digits. JSON numbers are refused for decimals, which travel as text.
func (s *Schema) check(in map[string]any, nav ...string) error {
	for name, v := range in {
		f, ok := s.byName[name]
		if !ok {
			if isNav(name, nav) {
				continue
			}
			return fmt.Errorf("property %s is invalid for entity type %s", name, s.Name)
		}
		if v == nil {
			continue
		}
		if err := f.check(v); err != nil {
			return err
		}
	}
	return nil
}

func isNav(name string, nav []string) bool {
	for _, n := range nav {
		if n == name {
			return true
		}
	}
	return false
}

func (f field) check(v any) error {
	bad := func(why string) error {
		return fmt.Errorf("invalid value %v for property %s: %s", v, f.name, why)
	}
	if _, isBool := v.(bool); (f.kind == "bool") != isBool {
		return bad("wrong type")
	}
	if f.kind == "bool" || f.kind == "int" {
		return nil
	}
	text, ok := v.(string)
	if !ok {
		return bad("a text is expected")
	}
	switch f.kind {
	case "decimal":
		d, err := decimal.NewFromString(text)
		if err != nil || len(text) > 40 {
			return bad("not a decimal")
		}
		if !d.Equal(d.Truncate(int32(f.scale))) {
			return bad(fmt.Sprintf("more than %d decimals", f.scale))
		}
		if d.Abs().GreaterThanOrEqual(decimal.New(1, int32(f.length-f.scale))) {
			return bad(fmt.Sprintf("more than %d digits", f.length))
		}
	case "date":
		if !datePattern.MatchString(text) {
			return bad("a date is written /Date(ms)/")
		}
	case "time":
		if !timePattern.MatchString(text) {
			return bad("a time is written PTnHnMnS")
		}
	case "guid":
		if !guidPattern.MatchString(text) {
			return bad("not a GUID")
		}
	default:
		if utf8.RuneCountInString(text) > f.length {
			return bad(fmt.Sprintf("longer than %d characters", f.length))
		}
	}
	return nil
}

var orderSchema = schema("A_ProductionOrder_2Type", `ManufacturingOrder/12 ManufacturingOrderCategory/2 ManufacturingOrderType/4 OrderLongText/9999
ManufacturingOrderImportance/1 OrderIsCreated/1 OrderIsReleased/1 OrderIsPrinted/1 OrderIsConfirmed/1 OrderIsPartiallyConfirmed/1 OrderIsDelivered/1
OrderIsDeleted/1 OrderIsPreCosted/1 SettlementRuleIsCreated/1 OrderIsPartiallyReleased/1 OrderIsLocked/1 OrderIsTechnicallyCompleted/1 OrderIsClosed/1
OrderIsPartiallyDelivered/1 OrderIsMarkedForDeletion/1 SettlementRuleIsCrtedManually/1 OrderIsScheduled/1 OrderHasGeneratedOperations/1
OrderIsToBeHandledInBatches/1 MaterialAvailyIsNotChecked/1 MfgOrderCreationDate/date MfgOrderCreationTime/time LastChangeDateTime/14 Material/40
StorageLocation/4 GoodsRecipientName/12 UnloadingPointName/25 InventoryUsabilityCode/1 MaterialGoodsReceiptDuration/3.0 QuantityDistributionKey/4
StockSegment/40 OrderInternalBillOfOperations/10 ProductionPlant/4 Plant/4 MRPArea/10 MRPController/3 ProductionSupervisor/3 ProductionVersion/4
PlannedOrder/10 SalesOrder/10 SalesOrderItem/6 BasicSchedulingType/1 ManufacturingObject/22 ProductConfiguration/18 OrderSequenceNumber/14
BusinessArea/4 CompanyCode/4 ProfitCenter/10 ActualCostsCostingVariant/4 PlannedCostsCostingVariant/4 FunctionalArea/16 MfgOrderPlannedStartDate/date
MfgOrderPlannedStartTime/time MfgOrderPlannedEndDate/date MfgOrderPlannedEndTime/time MfgOrderScheduledStartDate/date MfgOrderScheduledStartTime/time
MfgOrderScheduledEndDate/date MfgOrderScheduledEndTime/time MfgOrderActualReleaseDate/date ProductionUnit/3 ProductionUnitISOCode/3
ProductionUnitSAPCode/3 TotalQuantity/13.3 MfgOrderPlannedScrapQty/13.3 MfgOrderConfirmedYieldQty/13.3 CustomerName/80 WBSElementExternalID/24`)

var itemSchema = schema("A_ProductionOrderItem_2Type", `ManufacturingOrder/12 ManufacturingOrderItem/4 ManufacturingOrderCategory/2
ManufacturingOrderType/4 IsCompletelyDelivered/bool Material/40 ProductionPlant/4 Plant/4 MRPArea/10 QuantityDistributionKey/4
MaterialGoodsReceiptDuration/3.0 StorageLocation/4 Batch/10 InventoryUsabilityCode/1 GoodsRecipientName/12 UnloadingPointName/25 StockSegment/40
MfgOrderItemPlndDeliveryDate/date MfgOrderItemActualDeliveryDate/date ProductionUnit/3 ProductionUnitISOCode/3 ProductionUnitSAPCode/3
MfgOrderItemPlannedTotalQty/13.3 MfgOrderItemPlannedScrapQty/13.3 MfgOrderItemGoodsReceiptQty/13.3 MfgOrderItemActualDeviationQty/13.3`)

var operationSchema = schema("A_ProductionOrderOperation_2Type", `OrderInternalBillOfOperations/10 OrderIntBillOfOperationsItem/8 ManufacturingOrder/12
ManufacturingOrderSequence/6 MfgOrderSequenceText/40 ManufacturingOrderOperation/4 ManufacturingOrderSubOperation/4 ManufacturingOrderCategory/2
ManufacturingOrderType/4 MfgOrderOperationText/40 OrderOperationLongText/9999 OperationIsCreated/1 OperationIsReleased/1 OperationIsPrinted/1
OperationIsConfirmed/1 OperationIsPartiallyConfirmed/1 OperationIsDeleted/1 OperationIsTechlyCompleted/1 OperationIsClosed/1 OperationIsScheduled/1
OperationIsPartiallyDelivered/1 OperationIsDelivered/1 ProductionPlant/4 WorkCenterInternalID/8 WorkCenterTypeCode/1 WorkCenter/8
OperationControlProfile/4 OpErlstSchedldExecStrtDte/date OpErlstSchedldExecStrtTme/time OpErlstSchedldExecEndDte/date OpErlstSchedldExecEndTme/time
OpActualExecutionStartDate/date OpActualExecutionStartTime/time OpActualExecutionEndDate/date OpActualExecutionEndTime/time OperationUnit/3
OperationUnitISOCode/3 OperationUnitSAPCode/3 OpPlannedTotalQuantity/13.3 OpTotalConfirmedYieldQty/13.3 LastChangeDateTime/14`)

const componentFields = `Reservation/10 ReservationItem/4 MaterialGroup/9 Material/40 Plant/4 ManufacturingOrderCategory/2 ManufacturingOrderType/4
ManufacturingOrder/12 ManufacturingOrderSequence/6 ManufacturingOrderOperation/4 ProductionPlant/4 OrderInternalBillOfOperations/10
MatlCompRequirementDate/date MatlCompRequirementTime/time ReservationIsFinallyIssued/bool MatlCompIsMarkedForDeletion/bool
IsBulkMaterialComponent/bool MatlCompIsMarkedForBackflush/bool MaterialCompIsCostRelevant/1 OrderComponentLongText/9999 SalesOrder/10
SalesOrderItem/6 BillOfMaterialCategory/1 BOMItem/8 BOMItemCategory/1 BillOfMaterialItemNumber/4 BOMItemDescription/40 StorageLocation/4
Batch/10 BatchSplitType/1 GoodsMovementType/3 SupplyArea/10 GoodsRecipientName/12 UnloadingPointName/25 MaterialCompIsAlternativeItem/bool
AlternativeItemGroup/2 MaterialComponentIsPhantomItem/bool QuantityIsFixed/bool IsNetScrap/bool ComponentScrapInPercent/5.2
OperationScrapInPercent/5.2 BaseUnit/3 BaseUnitISOCode/3 BaseUnitSAPCode/3 RequiredQuantity/13.3 WithdrawnQuantity/13.3
ConfirmedAvailableQuantity/15.3 MaterialCompOriginalQuantity/13.3 EntryUnit/3 EntryUnitISOCode/3 EntryUnitSAPCode/3 GoodsMovementEntryQty/13.3`

var componentSchema = schema("A_ProductionOrderComponent_2Type", componentFields)
var component3Schema = schema("A_ProductionOrderComponent_3Type", componentFields+" ReservationRecordType/1 LastChangeDateTime/14")

var statusSchema = schema("A_ProductionOrderStatus_2Type", `ManufacturingOrder/12 StatusCode/5 IsUserStatus/bool StatusShortName/4 StatusName/30`)

var confSchema = schema("ProdnOrdConf2Type", `ConfirmationGroup/10 ConfirmationCount/8 OrderID/12 Sequence/6 OrderOperation/4 OrderSuboperation/4 OrderType/4
OrderOperationInternalID/8 ConfirmationText/40 Language/2 Material/40 OrderPlannedTotalQty/13.3 ProductionUnit/3 FinalConfirmationType/1
IsFinalConfirmation/bool OpenReservationsIsCleared/bool IsReversed/bool IsReversal/bool APIConfHasNoGoodsMovements/bool OrderConfirmationRecordType/3
ConfirmationEntryDate/date ConfirmationEntryTime/time EnteredByUser/12 LastChangeDate/date LastChangedByUser/12 ConfirmationExternalEntryDate/date
ConfirmationExternalEntryTime/time EnteredByExternalUser/12 ExternalSystemConfirmation/guid Plant/4 WorkCenterTypeCode/2 WorkCenter/8
CapacityCategoryCode/3 CapacityRequirementSplit/int Personnel/8 TimeRecording/8 EmployeeWageType/4 EmployeeWageGroup/3 BreakDurationUnit/3
BreakDurationUnitISOCode/3 ConfirmedBreakDuration/9.3 EmployeeSuitability/2 NumberOfEmployees/5.2 PostingDate/date ConfirmedExecutionStartDate/date
ConfirmedExecutionStartTime/time ConfirmedSetupEndDate/date ConfirmedSetupEndTime/time ConfirmedProcessingStartDate/date
ConfirmedProcessingStartTime/time ConfirmedProcessingEndDate/date ConfirmedProcessingEndTime/time ConfirmedTeardownStartDate/date
ConfirmedTeardownStartTime/time ConfirmedExecutionEndDate/date ConfirmedExecutionEndTime/time ConfirmationUnit/3 ConfirmationUnitISOCode/3
ConfirmationYieldQuantity/13.3 ConfirmationScrapQuantity/13.3 ConfirmationReworkQuantity/13.3 VarianceReasonCode/4 `+
	works()+`BusinessProcessEntryUnit/3 BusProcessEntrUnitISOCode/3 BusinessProcessConfirmedQty/13.3 NoFurtherBusinessProcQtyIsExpd/bool`)

// works is the six activities of an operation, whose fields are numbered.
func works() string {
	var b strings.Builder
	for i := 1; i <= 6; i++ {
		fmt.Fprintf(&b, "OpWorkQuantityUnit%d/3 WorkQuantityUnit%dISOCode/3 OpConfirmedWorkQuantity%d/13.3 NoFurtherOpWorkQuantity%dIsExpd/bool ", i, i, i, i)
	}
	return b.String()
}

var confMoveSchema = schema("ProdnOrdConfMatlDocItmType", `ConfirmationGroup/10 ConfirmationCount/8 MaterialDocument/10 MaterialDocumentItem/4
MaterialDocumentYear/4 OrderType/4 OrderID/12 OrderItem/4 ManufacturingOrderCategory/2 Material/40 Plant/4 Reservation/10 ReservationItem/4
StorageLocation/4 ProductionSupplyArea/10 Batch/10 InventoryValuationType/10 GoodsMovementType/3 GoodsMovementRefDocType/1 InventoryUsabilityCode/1
InventorySpecialStockType/1 SalesOrder/10 SalesOrderItem/6 WBSElementExternalID/24 Supplier/10 Customer/10 ReservationIsFinallyIssued/bool
IsCompletelyDelivered/bool ShelfLifeExpirationDate/date ManufactureDate/date StorageType/3 StorageBin/10 MaterialDocumentItemText/50 EntryUnit/3
QuantityInEntryUnit/13.3`)

var headerSchema = schema("A_MaterialDocumentHeaderType", `MaterialDocumentYear/4 MaterialDocument/10 InventoryTransactionType/2 DocumentDate/date
PostingDate/date CreationDate/date CreationTime/time CreatedByUser/12 MaterialDocumentHeaderText/25 ReferenceDocument/16 VersionForPrintingSlip/1
ManualPrintIsTriggered/1 CtrlPostgForExtWhseMgmtSyst/1 GoodsMovementCode/2`)

var docItemSchema = schema("A_MaterialDocumentItemType", `MaterialDocumentYear/4 MaterialDocument/10 MaterialDocumentItem/4 Material/40 Plant/4
StorageLocation/4 Batch/10 BatchBySupplier/15 GoodsMovementType/3 InventoryStockType/2 InventoryValuationType/10 InventorySpecialStockType/1 Supplier/10
Customer/10 SalesOrder/10 SalesOrderItem/6 SalesOrderScheduleLine/4 PurchaseOrder/10 PurchaseOrderItem/5 WBSElement/24 ManufacturingOrder/12
ManufacturingOrderItem/4 GoodsMovementRefDocType/1 GoodsMovementReasonCode/4 Delivery/10 DeliveryItem/6 AccountAssignmentCategory/1 CostCenter/10
ControllingArea/4 CostObject/12 GLAccount/10 FunctionalArea/16 ProfitabilitySegment/10 ProfitCenter/10 MaterialBaseUnitISOCode/3
MaterialBaseUnitSAPCode/3 MaterialBaseUnit/3 QuantityInBaseUnit/13.3 EntryUnitISOCode/3 EntryUnitSAPCode/3 EntryUnit/3 QuantityInEntryUnit/13.3
CompanyCodeCurrency/5 FiscalYear/4 FiscalYearPeriod/7 IssgOrRcvgMaterial/40 IssgOrRcvgBatch/10 IssuingOrReceivingPlant/4
IssuingOrReceivingStorageLoc/4 IssuingOrReceivingStockType/2 IssgOrRcvgSpclStockInd/1 IssuingOrReceivingValType/10 IsCompletelyDelivered/bool
MaterialDocumentItemText/50 UnloadingPointName/25 ShelfLifeExpirationDate/date ManufactureDate/date SerialNumbersAreCreatedAutomly/bool Reservation/10
ReservationItem/4 ReservationItemRecordType/1 ReservationIsFinallyIssued/bool IsAutomaticallyCreated/1 GoodsMovementIsCancelled/bool
ReversedMaterialDocumentYear/4 ReversedMaterialDocument/10 ReversedMaterialDocumentItem/4 ReferenceDocumentFiscalYear/4 InvtryMgmtRefDocumentItem/4
InvtryMgmtReferenceDocument/10 MaterialDocumentPostingType/1 InventoryUsabilityCode/1 DebitCreditCode/1`)

var stockSchema = schema("A_MatlStkInAcctModType", `Material/40 Plant/4 StorageLocation/4 Batch/10 Supplier/10 Customer/10 WBSElementInternalID/24
SDDocument/10 SDDocumentItem/6 InventorySpecialStockType/1 InventoryStockType/2 WBSElementExternalID/24 MaterialBaseUnit/3
MatlWrhsStkQtyInMatlBaseUnit/31.14`)

// Schemas is every entity type by the name of its set.
var Schemas = map[string]*Schema{
	"A_ProductionOrder_2": orderSchema, "A_ProductionOrderItem_2": itemSchema, "A_ProductionOrderOperation_2": operationSchema,
	"A_ProductionOrderComponent_2": componentSchema, "A_ProductionOrderComponent_3": component3Schema, "A_ProductionOrderStatus_2": statusSchema,
	"ProdnOrdConf2": confSchema, "ProdnOrdConfMatlDocItm": confMoveSchema,
	"A_MaterialDocumentHeader": headerSchema, "A_MaterialDocumentItem": docItemSchema, "A_MatlStkInAcctMod": stockSchema,
}
