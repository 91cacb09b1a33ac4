package d365

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

// Config says where D365 is, what of it concerns the plants, and what it can be trusted with. URL, TokenURL, ClientID, a secret
// and Company are necessary.
type Config struct {
	// Name is what work orders call this ERP; "d365" when empty.
	Name string `yaml:"name"`
	// URL is scheme and host; TokenURL is the tenant's token endpoint.
	URL      string `yaml:"url"`
	TokenURL string `yaml:"token_url"`
	// ClientID is an app registration of the connector's own. Its secret is ClientSecret, or the first line of ClientSecretFile.
	ClientID         string `yaml:"client_id"`
	ClientSecret     string `yaml:"client_secret"`
	ClientSecretFile string `yaml:"client_secret_file"`
	// Company is the legal entity.
	Company string `yaml:"company"`
	// Sites maps a production site to the site that routing knows; unmapped ones keep their code.
	Sites map[string]string `yaml:"sites"`
	// Units maps D365's unit symbols to UN/ECE Recommendation 20.
	Units map[string]string `yaml:"units"`
	// JournalName is the JournalNameId; D365's default when empty.
	JournalName string `yaml:"journal_name"`
	// KeyField is the extension field for the fact's key; empty means that there is none.
	KeyField string `yaml:"key_field"`
	// SingleWriter says that nobody else posts on the orders.
	SingleWriter bool `yaml:"single_writer"`
	// Entities names OData entities that are called otherwise: orders, bom, messages, finished, picking.
	Entities map[string]string `yaml:"entities"`
	// AbsentAfter is how long after its sending a message that left no trace is taken for lost; 15 min when 0; below zero it is
	// left to a person.
	AbsentAfter time.Duration `yaml:"absent_after"`
	// Settle is how long the journals of a processed message may take until they can be read; 2 min when 0.
	Settle time.Duration `yaml:"settle"`
	// Overlap is how far ListChanged goes back behind the newest change seen; 5 min when 0, and never less.
	Overlap time.Duration `yaml:"overlap"`
	// Timeout of one request; 60 s when 0.
	Timeout time.Duration `yaml:"timeout"`
	// PageSize is how many orders are read at once, 1 to 100; 50 when 0.
	PageSize int `yaml:"page_size"`
}

// entities are the assumed names.
var entities = map[string]string{"orders": "ProductionOrderHeaders", "bom": "ProductionOrderBOMLines", "messages": "SysMessages",
	"finished": "ReportAsFinishedJournalLines", "picking": "PickingListJournalLines"}

func (c *Config) entity(name string) string { return cmp.Or(c.Entities[name], entities[name]) }

// withDefaults fills in what zero means and checks the rest; the secret is read from its file.
func (c Config) withDefaults() (Config, error) {
	wrong := func(format string, args ...any) (Config, error) {
		return c, fmt.Errorf("configure D365: "+format, args...)
	}
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || strings.Trim(u.Path, "/") != "" || (u.Scheme != "http" && u.Scheme != "https") {
		return wrong("url %q is not scheme and host; write it like https://example.operations.dynamics.com", c.URL)
	}
	if u, err := url.Parse(c.TokenURL); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return wrong("token_url %q is not an address; write the tenant's token endpoint", c.TokenURL)
	}
	c.URL = strings.TrimRight(c.URL, "/")
	if c.ClientSecretFile != "" {
		if c.ClientSecret, err = secret.FirstLine(c.ClientSecretFile); err != nil {
			return wrong("read client_secret_file: %w", err)
		}
	}
	c.Name, c.PageSize = cmp.Or(c.Name, "d365"), cmp.Or(c.PageSize, 50)
	c.AbsentAfter, c.Settle = cmp.Or(c.AbsentAfter, 15*time.Minute), cmp.Or(c.Settle, 2*time.Minute)
	c.Timeout, c.Overlap = cmp.Or(c.Timeout, time.Minute), max(c.Overlap, 5*time.Minute)
	switch {
	case c.ClientID == "" || c.ClientSecret == "":
		return wrong("client_id or the secret is empty; register an app of the hub's own and set client_secret_file")
	case c.Company == "":
		return wrong("company is empty; name the legal entity")
	case c.PageSize < 1 || c.PageSize > 100:
		return wrong("page_size %d is out of range; use 1 to 100", c.PageSize)
	case c.Settle < 0 || c.Timeout < 0:
		return wrong("settle and timeout must be above zero")
	}
	for name := range c.Entities {
		if entities[name] == "" {
			return wrong("entities: %q is not known; use orders, bom, messages, finished or picking", name)
		}
	}
	return c, nil
}
