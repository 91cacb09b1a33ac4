package object

import (
	"errors"
	"fmt"

	"github.com/shopspring/decimal"
)

// InvoiceState is how far an invoice is.
type InvoiceState string

// The states of an invoice.
const (
	InvoiceReceived  InvoiceState = "RECEIVED"
	InvoiceValidated InvoiceState = "VALIDATED"
	InvoiceDuplicate InvoiceState = "DUPLICATE"
	InvoiceMatching  InvoiceState = "MATCHING"
	InvoiceMatched   InvoiceState = "MATCHED"
	InvoiceBlocked   InvoiceState = "BLOCKED"
	InvoiceApproved  InvoiceState = "APPROVED"
	InvoicePosted    InvoiceState = "POSTED"
	InvoicePaid      InvoiceState = "PAID"
	InvoiceReversed  InvoiceState = "REVERSED"
	InvoiceCredited  InvoiceState = "CREDITED"
	InvoiceCancelled InvoiceState = "CANCELLED" // before it was posted
)

// InvoiceKind says what an invoice asks for.
type InvoiceKind string

// The kinds of invoices. Quantities and amounts of a credit are above zero, too.
const (
	InvoiceDebit      InvoiceKind = "INVOICE"
	InvoiceCredit     InvoiceKind = "CREDIT"
	InvoiceSubsequent InvoiceKind = "SUBSEQUENT_DEBIT"
)

// Block says why a line of an invoice cannot be paid; empty when it can.
type Block string

// The reasons for a block.
const (
	BlockQuantity  Block = "QTY"
	BlockPrice     Block = "PRICE"
	BlockNoReceipt Block = "NO_RECEIPT"
	BlockDate      Block = "DATE"
	BlockAmount    Block = "AMOUNT"
	BlockMaster    Block = "MASTER_DATA"
)

// Invoice is what somebody is to pay.
type Invoice struct {
	Number string // the system's own; empty until it is posted
	// Reference is the other side's number: that of the supplier's invoice.
	Reference string
	Direction Direction // Inbound: a supplier's; Outbound: to a customer
	Kind      InvoiceKind
	Partner   string // party
	// InvoiceDate is on the paper, PostingDate in the books: 2026-11-26.
	InvoiceDate, PostingDate string
	Currency                 string // ISO 4217
	Lines                    []InvoiceLine
	Net, Tax, Gross          decimal.Decimal
	State                    InvoiceState
	Held
}

// InvoiceLine is one item or charge of an invoice.
type InvoiceLine struct {
	LineNo string
	// OrderNo and OrderLine are the purchase or sales order; Receipts the shipments that brought or took the goods: with the
	// order they are the three ways of a match.
	OrderNo, OrderLine string
	Receipts           []string
	Item               string // empty for a charge
	Description        string
	Quantity           Quantity
	Price              UnitPrice
	Amount             decimal.Decimal // net, in the invoice's currency
	Block              Block
}

// Check names what is wrong with an invoice. Totals that are all zero were not stated.
func (v Invoice) Check() error {
	who := fmt.Sprintf("invoice %q", v.Number)
	if v.Number == "" {
		who = fmt.Sprintf("invoice %q of %q", v.Reference, v.Partner)
	}
	if v.Direction != Inbound && v.Direction != Outbound {
		return fmt.Errorf("%s has the direction %q; want %s or %s", who, v.Direction, Inbound, Outbound)
	}
	switch v.Kind {
	case InvoiceDebit, InvoiceCredit, InvoiceSubsequent:
	default:
		return fmt.Errorf("%s has the unknown kind %q", who, v.Kind)
	}
	if v.Partner == "" {
		return fmt.Errorf("%s names no partner", who)
	}
	if len(v.Lines) == 0 {
		return fmt.Errorf("%s has no lines", who)
	}
	if err := (Money{Currency: v.Currency}).Check(); err != nil {
		return fmt.Errorf("%s: %w", who, err)
	}
	seen := map[string]bool{}
	for i, l := range v.Lines {
		where := fmt.Sprintf("line %s of %s", nameOf(l.LineNo, i), who)
		if l.Item == "" && l.Description == "" {
			return fmt.Errorf("%s names neither an item nor a charge", where)
		}
		if l.OrderLine != "" && l.OrderNo == "" {
			return fmt.Errorf("%s names line %q of no order", where, l.OrderLine)
		}
		if err := errors.Join(checkQuantity(where, l.Quantity), unique(where, seen, l.LineNo)); err != nil {
			return err
		}
		if err := l.Price.Check(); err != nil {
			return fmt.Errorf("%s: %w", where, err)
		}
		if l.Price.Price.Currency != v.Currency {
			return fmt.Errorf("%s is priced in %s, the invoice is in %s", where, l.Price.Price.Currency, v.Currency)
		}
	}
	return errors.Join(checkDates(who, v.InvoiceDate, v.PostingDate), v.checkTotals(who))
}

func (v Invoice) checkTotals(who string) error {
	if v.Net.IsZero() && v.Tax.IsZero() && v.Gross.IsZero() {
		return nil
	}
	if !v.Net.Add(v.Tax).Equal(v.Gross) {
		return fmt.Errorf("%s: net %s and tax %s are not gross %s", who, v.Net, v.Tax, v.Gross)
	}
	return nil
}
