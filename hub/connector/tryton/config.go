package tryton

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector/secret"
)

// Config says where Tryton is and how its words map to ours. Only URL, User and a password are necessary.
type Config struct {
	// Name is what work orders call this ERP; "tryton" when empty.
	Name string `yaml:"name"`
	// URL is the JSON-RPC address with the database: https://erp.example.com/plant/.
	URL string `yaml:"url"`
	// User is the account, one of the connector's own. Its password is Password, or the first line of PasswordFile.
	User         string `yaml:"user"`
	Password     string `yaml:"password"`
	PasswordFile string `yaml:"password_file"`
	// Sites maps a warehouse's code (its name where it has no code) to the site that routing knows; unmapped ones keep
	// their code.
	Sites map[string]string `yaml:"sites"`
	// Units maps Tryton's unit symbols to UN/ECE Recommendation 20 codes; it adds to and overrides the built-in map.
	Units map[string]string `yaml:"units"`
	// ScrapLocation is the code of the location that scrap goes to; when empty it is the warehouse's only waste location.
	ScrapLocation string `yaml:"scrap_location"`
	// ReworkLocation is the code of a storage location in the warehouse for pieces to be reworked. Tryton knows no rework:
	// when empty, confirmations with rework are refused.
	ReworkLocation string `yaml:"rework_location"`
	// FinishWorks finishes, when an order is finished, the works of its routing of which the shop floor reported nothing, with
	// no time on them. Otherwise Tryton's refusal to finish such an order is shown to a person.
	FinishWorks bool `yaml:"finish_works"`
	// CheckStock refuses a consumption that the book stock does not cover; otherwise Tryton lets stock go negative.
	CheckStock bool `yaml:"check_stock"`
	// Overlap is how far ListChanged looks back for changes that were committed late: longer than the ERP's longest
	// transaction; 60s when zero, and never less.
	Overlap time.Duration `yaml:"overlap"`
	// Parallel is the number of requests at a time; 2 when zero.
	Parallel int `yaml:"parallel"`
	// Timeout of one request; 60s when zero.
	Timeout time.Duration `yaml:"timeout"`
	// PageSize is the number of orders that ListChanged returns at a time; 100 when zero.
	PageSize int `yaml:"page_size"`
}

// builtInUnits are the units that a Tryton comes with. "wd", a working day, has no code: it means something else everywhere.
var builtInUnits = map[string]string{
	"u": "C62", "kg": "KGM", "g": "GRM", "c": "CTM", "lb": "LBR", "oz": "ONZ",
	"s": "SEC", "min": "MIN", "h": "HUR", "d": "DAY",
	"m": "MTR", "km": "KMT", "cm": "CMT", "mm": "MMT", "ft": "FOT", "yd": "YRD", "in": "INH", "mi": "SMI",
	"m³": "MTQ", "l": "LTR", "cm³": "CMQ", "in³": "INQ", "ft³": "FTQ", "gal": "GLL",
	"m²": "MTK", "cm²": "CMK", "a": "ARE", "ha": "HAR", "in²": "INK", "ft²": "FTK", "yd²": "YDK",
}

// withDefaults fills in what zero means and checks the rest; the password is read from its file.
func (c Config) withDefaults() (Config, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || strings.Trim(u.Path, "/") == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return c, fmt.Errorf("configure Tryton: url %q is not the address of a database; write it like https://erp.example.com/plant/", c.URL)
	}
	c.URL = strings.TrimRight(c.URL, "/") + "/"
	if c.User == "" {
		return c, fmt.Errorf("configure Tryton: user is empty; give the connector an account of its own with the groups Stock and Production")
	}
	if c.PasswordFile != "" {
		if c.Password, err = secret.FirstLine(c.PasswordFile); err != nil {
			return c, fmt.Errorf("configure Tryton: read password_file: %w", err)
		}
	}
	if c.Password == "" {
		return c, fmt.Errorf("configure Tryton: user %q has no password; set password_file", c.User)
	}
	if c.Name == "" {
		c.Name = "tryton"
	}
	c.Overlap = max(c.Overlap, time.Minute)
	if c.Parallel <= 0 {
		c.Parallel = 2
	}
	if c.Timeout <= 0 {
		c.Timeout = time.Minute
	}
	if c.PageSize <= 0 {
		c.PageSize = 100
	}
	return c, nil
}
