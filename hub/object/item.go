package object

import (
	"errors"
	"fmt"
	"time"
)

// Held says which outside system holds a business object, under what technical key, and when it last changed there.
type Held struct {
	ERP, ERPKey string
	RevisedAt   time.Time
}

// Item is what is made, bought, kept or sold.
type Item struct {
	Item        string
	Description string
	GTINs       []string
	BaseUnit    string // UN/ECE Recommendation 20
	Conversions []UnitConversion
	// LotControlled and SerialControlled items are moved only with a lot or with serial numbers.
	LotControlled, SerialControlled bool
	ShelfLifeDays                   int   // 0 when it does not expire
	Scale                           int32 // decimals of a quantity in BaseUnit
	Active                          bool
	Held
}

// UnitConversion says how many base units one Unit is: Numerator/Denominator, exactly.
type UnitConversion struct {
	Unit                   string
	Numerator, Denominator int64
}

// Check names what is wrong with an item.
func (i Item) Check() error {
	if i.Item == "" {
		return errors.New("item has no number")
	}
	if i.BaseUnit == "" {
		return fmt.Errorf("item %q has no base unit", i.Item)
	}
	for _, c := range i.Conversions {
		if c.Unit == "" || c.Unit == i.BaseUnit || c.Numerator <= 0 || c.Denominator <= 0 {
			return fmt.Errorf("item %q: one %q is %d/%d %s; want another unit and a factor above zero", i.Item, c.Unit, c.Numerator, c.Denominator, i.BaseUnit)
		}
	}
	return nil
}

// PartyRole is what a party is to us.
type PartyRole string

// The roles of a party.
const (
	Buyer          PartyRole = "buyer"
	Supplier       PartyRole = "supplier"
	Customer       PartyRole = "customer"
	ShipTo         PartyRole = "ship_to"
	CarrierParty   PartyRole = "carrier"
	WarehouseParty PartyRole = "warehouse"
)

// Party is somebody who buys, sells, carries or keeps.
type Party struct {
	Party string
	Name  string
	Roles []PartyRole
	// GLN, DUNS and SCAC are the numbers by which others know it; EDI the addresses that it is sent messages at.
	GLN, DUNS, SCAC string
	EDI             []EDIAddress
	TaxIDs          []string
	Address         Address
	TimeZone        string // IANA
	Active          bool
	Held
}

// EDIAddress is a qualified name in an interchange, such as ("14", "4012345000009").
type EDIAddress struct{ Qualifier, ID string }

// Address is a place that a carrier finds. Country is ISO 3166-1 alpha-2.
type Address struct {
	Street, PostalCode, City, Region, Country string
}

// Check names what is wrong with a party.
func (p Party) Check() error {
	if p.Party == "" {
		return fmt.Errorf("party %q has no number", p.Name)
	}
	if p.Address.Country != "" && len(p.Address.Country) != 2 {
		return fmt.Errorf("party %q is in the country %q; want the two letters of ISO 3166-1", p.Party, p.Address.Country)
	}
	return nil
}
