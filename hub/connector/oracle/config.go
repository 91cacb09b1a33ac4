package oracle

import (
	"cmp"
	_ "embed"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/secret"
)

// Sample is the commented section of a configuration file.
//
//go:embed sample.yaml
var Sample string

// The ways of Lookup.
const (
	byReference = "reference"
	byTotals    = "totals"
)

// Config says where Oracle Fusion is, what of it concerns the plants, and what it can be trusted with. URL, User, a password and
// SourceSystem are necessary.
type Config struct {
	// Name is what work orders call this ERP; "oracle" when empty.
	Name string `yaml:"name"`
	// URL is scheme and host: https://example.fa.ocs.oraclecloud.com.
	URL string `yaml:"url"`
	// User is an integration user of the connector's own. Its password is Password, or the first line of PasswordFile.
	User         string `yaml:"user"`
	Password     string `yaml:"password"`
	PasswordFile string `yaml:"password_file"`
	// SourceSystem is the code under which the hub is registered as a source system; at most 30 characters.
	SourceSystem string `yaml:"source_system"`
	// Organizations limits work orders to these; empty means all.
	Organizations []string `yaml:"organizations"`
	// Sites maps an organization to the site that routing knows; unmapped ones keep their code.
	Sites map[string]string `yaml:"sites"`
	// Units maps Oracle's unit codes to UN/ECE Recommendation 20.
	Units map[string]string `yaml:"units"`
	// Lookup is "reference" (default) or "totals".
	Lookup string `yaml:"lookup"`
	// ReferenceField and ReferenceAttribute name the reference in requests and in completed transactions; both
	// "TransactionReference" when empty.
	ReferenceField     string `yaml:"reference_field"`
	ReferenceAttribute string `yaml:"reference_attribute"`
	// CompletedResource is the resource of completed inventory transactions, SourceAttribute what the work order's number is called
	// in it; "inventoryCompletedTransactions" and "TransactionSourceName" when empty.
	CompletedResource string `yaml:"completed_resource"`
	SourceAttribute   string `yaml:"source_attribute"`
	// SingleWriter says that nobody else posts on the operations of the orders.
	SingleWriter bool `yaml:"single_writer"`
	// AbsentAfter is how long after its sending a request that left no trace is taken for lost: longer than any request may
	// live on the way. 15 min when 0; below zero it is left to a person.
	AbsentAfter time.Duration `yaml:"absent_after"`
	// Settle is how long a booked transaction may take until it can be read; 1 min when 0.
	Settle time.Duration `yaml:"settle"`
	// Overlap is how far ListChanged goes back behind the newest change seen; 5 min when 0, and never less.
	Overlap time.Duration `yaml:"overlap"`
	// Timeout of one request; 60 s when 0.
	Timeout time.Duration `yaml:"timeout"`
	// PageSize is how many orders are read at once, 1 to 499; 100 when 0.
	PageSize int `yaml:"page_size"`
	// FrameworkVersion is the REST-Framework-Version, 2 to 9; 4 when 0.
	FrameworkVersion int `yaml:"framework_version"`
	// Messages adds to what is known of Oracle's messages: retryable, correctable or fatal.
	Messages map[string]string `yaml:"messages"`
}

// withDefaults fills in what zero means and checks the rest; the password is read from its file.
func (c Config) withDefaults() (Config, error) {
	wrong := func(format string, args ...any) (Config, error) {
		return c, fmt.Errorf("configure Oracle Fusion: "+format, args...)
	}
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || strings.Trim(u.Path, "/") != "" || (u.Scheme != "http" && u.Scheme != "https") {
		return wrong("url %q is not scheme and host; write it like https://example.fa.ocs.oraclecloud.com", c.URL)
	}
	c.URL = strings.TrimRight(c.URL, "/")
	if c.PasswordFile != "" {
		if c.Password, err = secret.FirstLine(c.PasswordFile); err != nil {
			return wrong("read password_file: %w", err)
		}
	}
	c.Name, c.Lookup = cmp.Or(c.Name, "oracle"), cmp.Or(c.Lookup, byReference)
	c.ReferenceField, c.ReferenceAttribute = cmp.Or(c.ReferenceField, "TransactionReference"), cmp.Or(c.ReferenceAttribute, "TransactionReference")
	c.CompletedResource, c.SourceAttribute = cmp.Or(c.CompletedResource, "inventoryCompletedTransactions"), cmp.Or(c.SourceAttribute, "TransactionSourceName")
	c.AbsentAfter, c.Settle = cmp.Or(c.AbsentAfter, 15*time.Minute), cmp.Or(c.Settle, time.Minute)
	c.Timeout, c.Overlap = cmp.Or(c.Timeout, time.Minute), max(c.Overlap, 5*time.Minute)
	c.PageSize, c.FrameworkVersion = cmp.Or(c.PageSize, 100), cmp.Or(c.FrameworkVersion, 4)
	switch {
	case c.User == "" || c.Password == "":
		return wrong("user or password is empty; give the connector an integration user of its own and set password_file")
	case c.SourceSystem == "" || len(c.SourceSystem) > 30:
		return wrong("source_system %q does not have 1 to 30 characters; use the code that is registered in Oracle", c.SourceSystem)
	case c.Lookup != byReference && c.Lookup != byTotals:
		return wrong("lookup %q is not known; use reference or totals", c.Lookup)
	case c.PageSize < 1 || c.PageSize > 499:
		return wrong("page_size %d is out of range; use 1 to 499", c.PageSize)
	case c.FrameworkVersion < 2 || c.FrameworkVersion > 9:
		return wrong("framework_version %d is out of range; use 2 to 9", c.FrameworkVersion)
	case c.Settle < 0 || c.Timeout < 0:
		return wrong("settle and timeout must be above zero")
	case c.AbsentAfter > 0 && c.AbsentAfter < c.Settle:
		return wrong("absent_after %s is shorter than settle %s; use a longer one", c.AbsentAfter, c.Settle)
	}
	for code, class := range c.Messages {
		if _, ok := classes[class]; !ok {
			return wrong("messages: %q of %q is not known; use retryable, correctable or fatal", class, code)
		}
	}
	return c, nil
}

var classes = map[string]connector.Class{"retryable": connector.Retryable, "correctable": connector.Correctable, "fatal": connector.Fatal}
