package idoc

import (
	"cmp"
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Sample is the commented section of a configuration file.
//
//go:embed sample.yaml
var Sample string

// Config says where the folders are and how the IDocs are addressed.
type Config struct {
	// Name is what work orders call this ERP; "idoc" when empty.
	Name string `yaml:"name"`
	// In holds LOIPRO files, Answers ALEAUD files, both written by SAP's side. Out takes the IDocs for SAP; Sent keeps a copy of
	// each. All are needed.
	In      string `yaml:"in"`
	Answers string `yaml:"answers"`
	Out     string `yaml:"out"`
	Sent    string `yaml:"sent"`
	// Control is what the control records carry beside what is fixed: MANDT, SNDPOR, SNDPRT, SNDPRN, RCVPOR, RCVPRT, RCVPRN.
	Control map[string]string `yaml:"control"`
	// Confirmation is the IDoc type of confirmations, CONF32 when empty; ConfirmationMessage its message type, CONF when
	// empty; ConfirmationSegment its segment, E1CONF2 when empty. Movement is the type of goods movements; MBGMCR03 when empty.
	Confirmation        string `yaml:"confirmation"`
	ConfirmationMessage string `yaml:"confirmation_message"`
	ConfirmationSegment string `yaml:"confirmation_segment"`
	Movement            string `yaml:"movement"`
	// Partial and Final are the record types (SATZA); L20 and L40 when empty.
	Partial string `yaml:"partial"`
	Final   string `yaml:"final"`
	// MaterialLength is to how many digits numbers of materials are padded: 18 when 0, or 40.
	MaterialLength int `yaml:"material_length"`
	// Units maps SAP's unit codes to UN/ECE Recommendation 20, one to one. Sites maps a plant to the site that routing knows.
	Units map[string]string `yaml:"units"`
	Sites map[string]string `yaml:"sites"`
	// ScrapReasons maps reasons of the shop floor to SAP's variance reasons (4 characters).
	ScrapReasons map[string]string `yaml:"scrap_reasons"`
	// StorageLocations is, by plant, where material is taken from.
	StorageLocations map[string]string `yaml:"storage_locations"`
	// TimeZone is the zone of dates and times (IANA); UTC when empty.
	TimeZone string `yaml:"time_zone"`
	// Wait is how long Post waits for an answer; 2 s when 0. AnswerWithin is when a person is asked about an IDoc that was
	// not answered; 24 h when 0.
	Wait         time.Duration `yaml:"wait"`
	AnswerWithin time.Duration `yaml:"answer_within"`

	zone *time.Location
}

func wrong(format string, args ...any) error {
	return fmt.Errorf("configure IDoc files: "+format, args...)
}

// controlFields may be configured; the others are fixed or belong to one IDoc.
var controlFields = []string{"MANDT", "SNDPOR", "SNDPRT", "SNDPRN", "RCVPOR", "RCVPRT", "RCVPRN"}

func (c Config) withDefaults() (Config, error) {
	c.Name, c.TimeZone = cmp.Or(c.Name, "idoc"), cmp.Or(c.TimeZone, "UTC")
	c.Confirmation, c.ConfirmationMessage = cmp.Or(c.Confirmation, "CONF32"), cmp.Or(c.ConfirmationMessage, "CONF")
	c.ConfirmationSegment, c.Movement = cmp.Or(c.ConfirmationSegment, "E1CONF2"), cmp.Or(c.Movement, "MBGMCR03")
	c.Partial, c.Final, c.MaterialLength = cmp.Or(c.Partial, "L20"), cmp.Or(c.Final, "L40"), cmp.Or(c.MaterialLength, 18)
	c.Wait, c.AnswerWithin = cmp.Or(c.Wait, 2*time.Second), cmp.Or(c.AnswerWithin, 24*time.Hour)
	var err error
	if c.zone, err = time.LoadLocation(c.TimeZone); err != nil {
		return c, wrong("time_zone %q is not known; use an IANA name such as Europe/Berlin", c.TimeZone)
	}
	seen := map[string]string{}
	for _, f := range [][2]string{{"in", c.In}, {"answers", c.Answers}, {"out", c.Out}, {"sent", c.Sent}} {
		if f[1] == "" {
			return c, wrong("%s is empty; name a folder", f[0])
		}
		if other := seen[f[1]]; other != "" && (f[0] != "answers" || other != "in") {
			return c, wrong("%s and %s are the same folder; give each its own", other, f[0])
		}
		seen[f[1]] = f[0]
	}
	if c.MaterialLength != 18 && c.MaterialLength != 40 {
		return c, wrong("material_length %d is out of range; use 18 or 40", c.MaterialLength)
	}
	if c.Wait < 0 || c.AnswerWithin < 0 {
		return c, wrong("wait and answer_within must not be below zero")
	}
	for field := range c.Control {
		if !slices.Contains(controlFields, field) {
			return c, wrong("control: %q is not known; use some of %v", field, controlFields)
		}
	}
	back := map[string]string{}
	for _, from := range slices.Sorted(maps.Keys(c.Units)) {
		if other, twice := back[c.Units[from]]; twice || c.Units[from] == "" {
			return c, wrong("units: %q and %q both mean %q; it must be clear which one to write", other, from, c.Units[from])
		}
		back[c.Units[from]] = from
	}
	for _, name := range []string{c.Confirmation, c.ConfirmationMessage, c.ConfirmationSegment, c.Movement} {
		if !nameOf.MatchString(name) {
			return c, wrong("%q is not the name of an IDoc type, message or segment", name)
		}
	}
	return c, nil
}
