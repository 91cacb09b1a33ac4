package s4

import (
	"cmp"
	"crypto/x509"
	_ "embed"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector/secret"
)

// Sample is the commented section of a configuration file.
//
//go:embed sample.yaml
var Sample string

// The ways of Movements.
const (
	movementsExplicit = "explicit"
	movementsSeparate = "separate"
	movementsSAP      = "sap"
)

// The ways of Finish.
const (
	finishComplete = "technically_complete"
	finishNothing  = "none"
	finishConfirm  = "confirm" // of an operation
)

// Config says where S/4HANA is, what of it concerns the plants, and what it can be trusted with. Only URL, User and a password
// are necessary.
type Config struct {
	// Name is what work orders call this ERP; "s4" when empty.
	Name string `yaml:"name"`
	// URL is scheme, host and port: https://s4.example.com. The services are looked for under /sap/opu/odata/sap/.
	URL string `yaml:"url"`
	// Client is the SAP client, such as "100"; the system's default when empty. Language is fixed, because texts and
	// commercial units depend on it: "EN" when empty.
	Client   string `yaml:"client"`
	Language string `yaml:"language"`
	// User is a technical user of the connector's own. Its password is Password, or the first line of PasswordFile.
	User         string `yaml:"user"`
	Password     string `yaml:"password"`
	PasswordFile string `yaml:"password_file"`
	// CAFile holds the certificates (PEM) that SAP's own is signed with, where the operating system does not know them.
	CAFile string `yaml:"ca_file"`
	// Plants limits ListChanged to orders of these production plants; empty means all.
	Plants []string `yaml:"plants"`
	// Sites maps a production plant to the site that routing knows; unmapped ones keep their code.
	Sites map[string]string `yaml:"sites"`
	// Units maps SAP's ISO and commercial unit codes to UN/ECE Recommendation 20, such as PCE: C62. Codes that are
	// Recommendation 20 already need no entry.
	Units map[string]string `yaml:"units"`
	// ScrapReasons maps reasons of the shop floor to variance reason codes (4 characters). When empty, the reason goes into
	// the confirmation's text.
	ScrapReasons map[string]string `yaml:"scrap_reasons"`
	// StorageLocations is, by plant, where material is taken from that no component of the order names.
	StorageLocations map[string]string `yaml:"storage_locations"`
	// Movements says who moves stock at a confirmation. "explicit" (default): the confirmation carries the receipt of the yield
	// of the last operation, and SAP moves nothing by itself: the plant reports all consumption. "separate": the same as a
	// confirmation without movements and a material document. "sap": SAP's own automatic receipt and backflush; consumption
	// of components marked for backflush is refused then, since SAP takes it already.
	Movements string `yaml:"movements"`
	// Finish is what the end of an order on the shop floor does: "technically_complete" (default) or "none".
	Finish string `yaml:"finish"`
	// FinishOperations is what the end of one operation does that leaves its order open: "none" (default), or "confirm": a final
	// confirmation of the operation without quantities.
	FinishOperations string `yaml:"finish_operations"`
	// Repeatable says that the system honours RequestID with RepeatabilityCreation (it has to be configured in SAP Gateway). A
	// request that is sent twice then has one effect.
	Repeatable bool `yaml:"repeatable"`
	// AbsentAfter is how long after its sending a request that left no trace is taken for lost, where Repeatable is not set:
	// longer than any request may run or wait in a gateway. 15 min when 0; below zero it is left to a person.
	AbsentAfter time.Duration `yaml:"absent_after"`
	// Settle is how long an effect may take to appear: update tasks and goods movements that are processed later. 2 min
	// when 0. It should be longer than Timeout. What is missing is called different only after Settle and two times Timeout.
	Settle time.Duration `yaml:"settle"`
	// Overlap is how far ListChanged goes back behind the newest change seen; 5 min when 0, and never less.
	Overlap time.Duration `yaml:"overlap"`
	// Timeout of one request; 60 s when 0.
	Timeout time.Duration `yaml:"timeout"`
	// Sessions is how many requests run side by side, each in a session of its own; 4 when 0.
	Sessions int `yaml:"sessions"`
	// PageSize is how many orders are read at once, 1 to 1000; 100 when 0.
	PageSize int `yaml:"page_size"`
	// TimeZone is the zone of the system's time stamps and of the orders' dates (IANA); UTC when empty.
	TimeZone string `yaml:"time_zone"`
	// Messages adds to what is known of SAP's messages: "CO/469": retryable, correctable or fatal.
	Messages map[string]string `yaml:"messages"`

	zone *time.Location
	// roots are the certificates of CAFile, nil for the operating system's.
	roots *x509.CertPool
	// mayTake is how long after its intent a request can still be under way: Post takes no older intent than Timeout, and
	// waits no longer than Timeout for the answer.
	mayTake time.Duration
}

// withDefaults fills in what zero means and checks the rest; the password is read from its file.
func (c Config) withDefaults() (Config, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || strings.Trim(u.Path, "/") != "" || (u.Scheme != "http" && u.Scheme != "https") {
		return c, fmt.Errorf("configure S/4HANA: url %q is not scheme, host and port; write it like https://s4.example.com", c.URL)
	}
	c.URL = strings.TrimRight(c.URL, "/")
	if c.PasswordFile != "" {
		if c.Password, err = secret.FirstLine(c.PasswordFile); err != nil {
			return c, fmt.Errorf("configure S/4HANA: read password_file: %w", err)
		}
	}
	if c.CAFile != "" {
		text, err := os.ReadFile(c.CAFile)
		if err != nil {
			return c, fmt.Errorf("configure S/4HANA: read ca_file: %w", err)
		}
		if c.roots = x509.NewCertPool(); !c.roots.AppendCertsFromPEM(text) {
			return c, fmt.Errorf("configure S/4HANA: ca_file %q holds no certificate; it begins with -----BEGIN CERTIFICATE-----", c.CAFile)
		}
	}
	if c.User == "" || c.Password == "" {
		return c, fmt.Errorf("configure S/4HANA: user or password is empty; give the connector a technical user of its own and set password_file")
	}
	c.Name, c.Language, c.TimeZone = cmp.Or(c.Name, "s4"), cmp.Or(c.Language, "EN"), cmp.Or(c.TimeZone, "UTC")
	c.Movements, c.Finish = cmp.Or(c.Movements, movementsExplicit), cmp.Or(c.Finish, finishComplete)
	c.FinishOperations = cmp.Or(c.FinishOperations, finishNothing)
	c.AbsentAfter, c.Settle = cmp.Or(c.AbsentAfter, 15*time.Minute), cmp.Or(c.Settle, 2*time.Minute)
	c.Timeout, c.Overlap = cmp.Or(c.Timeout, time.Minute), max(c.Overlap, 5*time.Minute)
	c.mayTake = cmp.Or(c.mayTake, 2*c.Timeout)
	c.Sessions, c.PageSize = cmp.Or(c.Sessions, 4), cmp.Or(c.PageSize, 100)
	return c, c.check()
}

func (c *Config) check() (err error) {
	wrong := func(format string, args ...any) error { return fmt.Errorf("configure S/4HANA: "+format, args...) }
	if c.zone, err = time.LoadLocation(c.TimeZone); err != nil {
		return wrong("time_zone %q is not known; use an IANA name such as Europe/Berlin", c.TimeZone)
	}
	switch {
	case c.Movements != movementsExplicit && c.Movements != movementsSeparate && c.Movements != movementsSAP:
		return wrong("movements %q is not known; use explicit, separate or sap", c.Movements)
	case c.Finish != finishComplete && c.Finish != finishNothing:
		return wrong("finish %q is not known; use technically_complete or none", c.Finish)
	case c.FinishOperations != finishConfirm && c.FinishOperations != finishNothing:
		return wrong("finish_operations %q is not known; use confirm or none", c.FinishOperations)
	case c.PageSize < 1 || c.PageSize > 1000:
		return wrong("page_size %d is out of range; use 1 to 1000", c.PageSize)
	case c.Sessions < 1 || c.Sessions > 64:
		return wrong("sessions %d is out of range; use 1 to 64", c.Sessions)
	case c.Settle < 0 || c.Timeout < 0:
		return wrong("settle and timeout must be above zero")
	case !c.Repeatable && c.AbsentAfter > 0 && c.AbsentAfter < c.Settle+c.mayTake:
		return wrong("absent_after %s is shorter than settle and two times timeout: a request that is still under way would be taken for lost; use at least %s",
			c.AbsentAfter, c.Settle+c.mayTake)
	}
	for reason, code := range c.ScrapReasons {
		if len(code) > 4 || code == "" {
			return wrong("scrap_reasons: code %q of %q does not have 1 to 4 characters", code, reason)
		}
	}
	for code, class := range c.Messages {
		if _, ok := classes[class]; !ok {
			return wrong("messages: %q of %q is not known; use retryable, correctable or fatal", class, code)
		}
	}
	return nil
}
