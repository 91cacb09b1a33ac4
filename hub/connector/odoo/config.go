package odoo

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

// The protocols.
const (
	json2   = "json2"
	jsonRPC = "jsonrpc"
)

// Config says where Odoo is and how it is set up. URL, Database, a password and OperationType are necessary, User with jsonrpc, and Units for
// any order to be read.
type Config struct {
	// Name is what work orders call this ERP; "odoo" when empty.
	Name string `yaml:"name"`
	// URL is scheme, host and port of the server.
	URL string `yaml:"url"`
	// API is json2 (default; Odoo 19 and later) or jsonrpc (before).
	API string `yaml:"api"`
	// Database is the database's name. With json2 it may be empty where the server has only one.
	Database string `yaml:"database"`
	// User is the log-in of a user of the connector's own; jsonrpc needs it. Password is an API key of that user, or the first line of PasswordFile.
	User         string `yaml:"user"`
	Password     string `yaml:"password"`
	PasswordFile string `yaml:"password_file"`
	// KeyField is the field of Transfer (stock.picking) that holds a fact's key: a custom field, x_fact_key when empty, or origin, which
	// needs no set-up and which a person may change.
	KeyField string `yaml:"key_field"`
	// OperationType is the name of an operation type of the connector's own, of type internal transfer, in each company.
	OperationType string `yaml:"operation_type"`
	// ScrapLocation is the full name of the location that takes scrap, such as Virtual Locations/Scrap; without it scrap is refused.
	ScrapLocation string `yaml:"scrap_location"`
	// Units maps Odoo's units, by English name or id, to UN/ECE Recommendation 20, such as Units: C62. An unknown unit stops its order.
	Units map[string]string `yaml:"units"`
	// Companies limits ListChanged and the search for orders; empty means all. Sites maps the location of an order's components, or its company, to a
	// site; an unmapped order has its company as site.
	Companies []string          `yaml:"companies"`
	Sites     map[string]string `yaml:"sites"`
	// Locations are those whose stock is read, and compared with what orders have moved there, by full name; all internal ones when empty.
	Locations []string `yaml:"locations"`
	// StartWorkOrders makes STARTED start the order's first open work order. Odoo then fills in the quantities that it expects.
	StartWorkOrders bool `yaml:"start_work_orders"`
	// OnlyReady takes a confirmed order for released only when its material is reserved.
	OnlyReady bool `yaml:"only_ready"`
	// Precision is how many decimals the database keeps of a quantity, 1 to 9; 2 when 0.
	Precision int32 `yaml:"precision"`
	// ReadDelay is how far reading may lag behind writing, where the server reads from a replica; 0 when it does not.
	ReadDelay time.Duration `yaml:"read_delay"`
	// Overlap is how far ListChanged goes back behind the newest change seen; 5 min when 0, never less than 1 min.
	Overlap time.Duration `yaml:"overlap"`
	// Timeout of one request; 60 s when 0.
	Timeout time.Duration `yaml:"timeout"`
	// PageSize is how many changes or quants are listed at once, 1 to 500; 100 when 0.
	PageSize int `yaml:"page_size"`
}

// withDefaults fills in what zero means and checks the rest; the password is read from its file.
func (c Config) withDefaults() (Config, error) {
	wrong := func(format string, args ...any) error { return fmt.Errorf("configure Odoo: "+format, args...) }
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
	c.Name, c.API, c.KeyField = cmp.Or(c.Name, "odoo"), cmp.Or(c.API, json2), cmp.Or(c.KeyField, "x_fact_key")
	c.Precision, c.PageSize = cmp.Or(c.Precision, 2), cmp.Or(c.PageSize, 100)
	c.Overlap, c.Timeout = cmp.Or(c.Overlap, 5*time.Minute), cmp.Or(c.Timeout, time.Minute)
	switch {
	case c.API != json2 && c.API != jsonRPC:
		return c, wrong("api %q is not known; use json2 (Odoo 19 and later) or jsonrpc", c.API)
	case c.Password == "":
		return c, wrong("password is empty; make an API key for the connector's user (Preferences, Account Security) and put it in password_file")
	case c.API == jsonRPC && (c.Database == "" || c.User == ""):
		return c, wrong("database or user is empty; jsonrpc needs the database's name and the log-in that the key belongs to")
	case c.OperationType == "":
		return c, wrong("operation_type is empty; create an operation type of type Internal Transfer in Odoo, such as Shop Floor, and name it here")
	case c.Precision < 1 || c.Precision > 9:
		return c, wrong("precision %d is out of range; use 1 to 9", c.Precision)
	case c.PageSize < 1 || c.PageSize > 500:
		return c, wrong("page_size %d is out of range; use 1 to 500", c.PageSize)
	case c.Overlap < time.Minute:
		return c, wrong("overlap %s is out of range; use 1m or more", c.Overlap)
	case c.ReadDelay < 0 || c.ReadDelay > time.Hour:
		return c, wrong("read_delay %s is out of range; use 0 to 1h", c.ReadDelay)
	case c.Timeout < 0:
		return c, wrong("timeout must be above zero")
	}
	return c, nil
}
