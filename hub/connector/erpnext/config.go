package erpnext

import (
	"cmp"
	_ "embed"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector/secret"
)

// Sample is the commented section of a configuration file.
//
//go:embed sample.yaml
var Sample string

// Config says where ERPNext is and how it is set up. URL, User and a password are necessary, and Units for any order to be read.
type Config struct {
	// Name is what work orders call this ERP; "erpnext" when empty.
	Name string `yaml:"name"`
	// URL is scheme, host and port of the site.
	URL string `yaml:"url"`
	// User is the API key of a user of the connector's own. Its API secret is Password, or the first line of PasswordFile.
	User         string `yaml:"user"`
	Password     string `yaml:"password"`
	PasswordFile string `yaml:"password_file"`
	// Units maps ERPNext's units to UN/ECE Recommendation 20, such as Nos: C62. An unknown unit stops its order.
	Units map[string]string `yaml:"units"`
	// Companies limits ListChanged; empty means all. Sites maps a warehouse of finished goods, or a company, to a site; an
	// unmapped order has its company as site.
	Companies []string          `yaml:"companies"`
	Sites     map[string]string `yaml:"sites"`
	// KeyField, ReversalField and OrderField are custom fields of Stock Entry; linekeeper_key, linekeeper_reversed_by and
	// linekeeper_order when empty. The first two have to be unique.
	KeyField      string `yaml:"key_field"`
	ReversalField string `yaml:"reversal_field"`
	OrderField    string `yaml:"order_field"`
	// ScrapWarehouse takes scrap without yield of orders that name none.
	ScrapWarehouse string `yaml:"scrap_warehouse"`
	// Warehouses are those whose stock is read, and compared with what orders have moved there; all when empty.
	Warehouses []string `yaml:"warehouses"`
	// API is v1 (default) or v2.
	API string `yaml:"api"`
	// Precision is how many decimals the site keeps of a quantity, 1 to 9; 3 when 0.
	Precision int32 `yaml:"precision"`
	// TimeZone is the site's zone (IANA); UTC when empty.
	TimeZone string `yaml:"time_zone"`
	// Overlap is how far ListChanged goes back behind the newest change seen; 5 min when 0, never less than 1 min.
	Overlap time.Duration `yaml:"overlap"`
	// Timeout of one request; 60 s when 0.
	Timeout time.Duration `yaml:"timeout"`
	// PageSize is how many orders, entries or bins are listed at once, 1 to 500; 100 when 0.
	PageSize int `yaml:"page_size"`

	zone *time.Location
}

// withDefaults fills in what zero means and checks the rest; the password is read from its file.
func (c Config) withDefaults() (Config, error) {
	wrong := func(format string, args ...any) error { return fmt.Errorf("configure ERPNext: "+format, args...) }
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || strings.Trim(u.Path, "/") != "" || (u.Scheme != "http" && u.Scheme != "https") {
		return c, wrong("url %q is not scheme, host and port; write it like https://erp.example.com", c.URL)
	}
	c.URL = strings.TrimRight(c.URL, "/")
	if c.PasswordFile != "" {
		if c.Password, err = secret.FirstLine(c.PasswordFile); err != nil {
			return c, wrong("read password_file: %w", err)
		}
		c.Password = strings.TrimSpace(c.Password)
	}
	if c.User == "" || c.Password == "" || strings.Contains(c.User, ":") {
		return c, wrong("user or password is empty; generate API keys for the connector's user, put the API key in user and the API secret in password_file")
	}
	c.Name, c.API, c.TimeZone = cmp.Or(c.Name, "erpnext"), cmp.Or(c.API, "v1"), cmp.Or(c.TimeZone, "UTC")
	c.KeyField, c.ReversalField, c.OrderField = cmp.Or(c.KeyField, "linekeeper_key"), cmp.Or(c.ReversalField, "linekeeper_reversed_by"), cmp.Or(c.OrderField, "linekeeper_order")
	c.Precision, c.PageSize = cmp.Or(c.Precision, 3), cmp.Or(c.PageSize, 100)
	c.Overlap, c.Timeout = cmp.Or(c.Overlap, 5*time.Minute), cmp.Or(c.Timeout, time.Minute)
	if c.zone, err = time.LoadLocation(c.TimeZone); err != nil {
		return c, wrong("time_zone %q is not known; use an IANA name such as Europe/Berlin", c.TimeZone)
	}
	switch {
	case c.API != "v1" && c.API != "v2":
		return c, wrong("api %q is not known; use v1 or v2", c.API)
	case c.Precision < 1 || c.Precision > 9:
		return c, wrong("precision %d is out of range; use 1 to 9", c.Precision)
	case c.PageSize < 1 || c.PageSize > 500:
		return c, wrong("page_size %d is out of range; use 1 to 500", c.PageSize)
	case c.Overlap < time.Minute:
		return c, wrong("overlap %s is out of range; use 1m or more", c.Overlap)
	case c.Timeout < 0:
		return c, wrong("timeout must be above zero")
	}
	return c, nil
}
