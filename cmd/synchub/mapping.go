package main

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/linekeeper/linekeeper/hub/api"
	"github.com/linekeeper/linekeeper/hub/mapping"
)

// mappingCmd is what people do with mapping sets: how the words of plants and ERPs relate.
type mappingCmd struct {
	List    mappingListCmd    `cmd:"" help:"List the mapping sets and what is in force."`
	Show    mappingShowCmd    `cmd:"" help:"Show a set's versions and audit trail, or one version with what it changes."`
	Export  mappingExportCmd  `cmd:"" help:"Print one version as a file."`
	Check   mappingCheckCmd   `cmd:"" help:"Name the faults of a file and run its tests, without a hub."`
	Propose mappingProposeCmd `cmd:"" help:"Store a file as a new version and put it up for approval."`
	DryRun  mappingDryRunCmd  `cmd:"" name:"dry-run" help:"Print what a version would have changed of recent facts."`
	Approve mappingApproveCmd `cmd:"" help:"Bring a version into force that somebody else proposed."`
	Reject  mappingRejectCmd  `cmd:"" help:"End a version that is not approved."`
	Return  mappingReturnCmd  `cmd:"" help:"Urgent: bring the content before back into force at once."`
}

func (mappingListCmd) Help() string { return "Example: synchub mapping list --json" }

func (mappingShowCmd) Help() string {
	return "Example: synchub mapping show sap-units --version 4"
}

func (mappingExportCmd) Help() string {
	return "Example: synchub mapping export sap-units 4 --format csv > sap-units.csv"
}

func (mappingCheckCmd) Help() string {
	return "Example: synchub mapping check sap-units.yaml\n\nA file ends in .yaml, .yml or .csv. Exit code: 0 without faults, 1 with some."
}

func (mappingProposeCmd) Help() string {
	return "Example: synchub mapping propose sap-units.yaml --base 4 --note \"boxes of 4711 hold 12\"\n\n" +
		"--base is the latest version that you have seen (mapping list shows it): the hub refuses when somebody was faster."
}

func (mappingDryRunCmd) Help() string {
	return "Example: synchub mapping dry-run sap-units 5 --days 30\n\nNothing is changed. Exit code: 0 without warnings (and always with --json), 1 with some: whoever\napproves must name each of them."
}

func (mappingApproveCmd) Help() string {
	return "Example: synchub mapping approve sap-units 5 --note \"seen with purchasing\" --acknowledge ratio:KGM:GRM:1000\n\n" +
		"Neither who made nor who proposed the version can approve it: the names of the tokens count."
}

func (mappingRejectCmd) Help() string {
	return "Example: synchub mapping reject sap-units 5 --note \"the box holds 10\""
}

func (mappingReturnCmd) Help() string {
	return "Example: synchub mapping return sap-units --base 5 --note \"kilograms became grams\"\n\n" +
		"A new version gets the content of the approved one before, and counts from when the wrong one did. One person is enough here: two have\n" +
		"approved that content before. What was sent stays as it was sent; what waits goes out by the version that counts now."
}

// noted is the reason that stays in the audit trail.
type noted struct {
	Note string `required:"" help:"Why; it stays in the audit trail." placeholder:"TEXT"`
}

// versioned names a version.
type versioned struct {
	Name    string `arg:"" help:"Name of the set."`
	Version int    `arg:"" help:"Number of the version."`
}

func (v versioned) path(rest string) string {
	return fmt.Sprintf("/v1/mappings/%s/versions/%d%s", url.PathEscape(v.Name), v.Version, rest)
}

type mappingListCmd struct{ remote }

func (c mappingListCmd) Run(e *env) error {
	var list struct{ Items []api.Mapping }
	if err := c.call(e, "GET", "/v1/mappings", nil, &list); err != nil || c.JSON {
		return err
	}
	w := tabwriter.NewWriter(e.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tKIND\tERP\tPLANT\tIN FORCE\tSINCE\tLATEST\tWAITING")
	for _, m := range list.Items {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%d\t%d\n", m.Name, m.Kind, m.ERP, m.Plant, m.InForce, minute(m.Since), m.Latest, m.Waiting)
	}
	return w.Flush()
}

func minute(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.Format("2006-01-02 15:04 -07:00")
}

type mappingShowCmd struct {
	Name    string `arg:"" help:"Name of the set."`
	Version int    `help:"One version with its rows and changes." placeholder:"N"`
	remote
}

func (c mappingShowCmd) Run(e *env) error {
	if c.Version > 0 {
		return c.one(e)
	}
	var m api.MappingLife
	if err := c.call(e, "GET", "/v1/mappings/"+url.PathEscape(c.Name), nil, &m); err != nil || c.JSON {
		return err
	}
	fmt.Fprintf(e.out, "%s: %s, ERP %q, plant %q; in force: %d\n", m.Name, m.Kind, m.ERP, m.Plant, m.InForce)
	w := tabwriter.NewWriter(e.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "VERSION\tSTATE\tFROM\tROWS\tMADE BY\tDECIDED BY\tNOTE")
	for _, v := range m.Versions {
		note := v.Note
		if v.Returns > 0 {
			note = fmt.Sprintf("returns to %d: %s", v.Returns, note)
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%d\t%s\t%s\t%s\n", v.Number, v.State, minute(v.From), v.Rows, v.MadeBy, v.DecidedBy, note)
	}
	fmt.Fprintln(w, "\nTIME\tVERSION\tSTEP\tBY\tNOTE")
	for _, x := range m.Trail {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", minute(&x.At), x.Number, x.Step, x.By, x.Note)
	}
	return w.Flush()
}

func (c mappingShowCmd) one(e *env) error {
	var m api.MappingContent
	if err := c.call(e, "GET", versioned{c.Name, c.Version}.path(""), nil, &m); err != nil || c.JSON {
		return err
	}
	fmt.Fprintf(e.out, "%s version %d: %s\n", m.Name, m.Version.Number, m.Version.State)
	for _, r := range m.Content.Rows {
		fmt.Fprintln(e.out, " ", mapping.Row(r))
	}
	if len(m.Faults) > 0 {
		fmt.Fprintln(e.out, "faults:")
		for _, f := range m.Faults {
			fmt.Fprintln(e.out, " ", mapping.Fault(f))
		}
	}
	fmt.Fprintf(e.out, "changes against version %d:\n", m.Against)
	for _, x := range m.Changes {
		fmt.Fprintf(e.out, "  %q became %q\n", x.Before, x.After)
	}
	return nil
}

type mappingExportCmd struct {
	versioned
	Format string `enum:"yaml,csv" default:"yaml" help:"yaml or csv."`
	remote
}

func (c mappingExportCmd) Run(e *env) error {
	res, err := c.stream(e, c.path("/file?format="+c.Format))
	if err != nil {
		return err
	}
	defer res.Close()
	_, err = io.Copy(e.out, res)
	return err
}

// mappingFile is a file with a set.
type mappingFile struct {
	File string `arg:"" help:"File that ends in .yaml, .yml or .csv." type:"existingfile"`
}

// read returns the file's text and its format.
func (f mappingFile) read() (text, format string, err error) {
	switch strings.ToLower(filepath.Ext(f.File)) {
	case ".yaml", ".yml":
		format = "yaml"
	case ".csv":
		format = "csv"
	default:
		return "", "", usage(fmt.Sprintf("file %q must end in .yaml, .yml or .csv", f.File))
	}
	raw, err := os.ReadFile(f.File)
	return string(raw), format, err
}

type mappingCheckCmd struct{ mappingFile }

func (c mappingCheckCmd) Run(e *env) error {
	text, format, err := c.read()
	if err != nil {
		return err
	}
	read := mapping.ReadYAML
	if format == "csv" {
		read = mapping.ReadCSV
	}
	f, err := read([]byte(text))
	if err != nil {
		return fmt.Errorf("%s: %w", c.File, err)
	}
	faults := mapping.Check(f.Set, f.Content)
	for _, x := range faults {
		fmt.Fprintf(e.out, "%s: %s\n", c.File, x)
	}
	if len(faults) > 0 {
		return fmt.Errorf("%s: faults: %d", c.File, len(faults))
	}
	fmt.Fprintf(e.out, "%s is sound: %d rows, %d tests passed\n", c.File, len(f.Rows), len(f.Tests))
	return nil
}

type mappingProposeCmd struct {
	mappingFile
	Base  int  `help:"Number of the latest version that you have seen; 0 for a new set." default:"0" placeholder:"N"`
	Draft bool `help:"Only store it; faults are allowed then."`
	noted
	remote
}

func (c mappingProposeCmd) Run(e *env) error {
	text, format, err := c.read()
	if err != nil {
		return err
	}
	body := map[string]any{"format": format, "text": text, "base": c.Base, "note": c.Note, "propose": !c.Draft}
	return c.change(e, "/v1/mappings", body)
}

// change asks for something and prints what the version is now.
func (r remote) change(e *env, path string, body map[string]any) error {
	var v api.MappingVersion
	if err := r.call(e, "POST", path, body, &v); err != nil || r.JSON {
		return err
	}
	fmt.Fprintf(e.out, "version %d is %s", v.Number, v.State)
	if v.From != nil {
		fmt.Fprintf(e.out, " from %s", minute(v.From))
	}
	fmt.Fprintln(e.out)
	return nil
}

type mappingDryRunCmd struct {
	versioned
	Days  int    `default:"30" help:"Facts of the last so many days."`
	Plant string `help:"Only facts of this plant." placeholder:"PLANT"`
	Order string `help:"Only facts of this work order." placeholder:"NUMBER"`
	remote
}

// errWarned makes the command end with a failure.
var errWarned = errors.New("the dry run warns: whoever approves must name each warning with --acknowledge")

func (c mappingDryRunCmd) Run(e *env) error {
	body := map[string]any{"days": c.Days}
	for name, text := range map[string]string{"plant": c.Plant, "order_no": c.Order} {
		if text != "" {
			body[name] = text
		}
	}
	var d api.MappingDryRun
	if err := c.call(e, "POST", c.path("/dry-run"), body, &d); err != nil || c.JSON {
		return err
	}
	fmt.Fprintf(e.out, "facts since %s: %d, said otherwise: %d, would stop: %d, would go on: %d (compared with version %d)\n", minute(&d.Since), d.Facts, d.Changed, d.Stops, d.Goes, d.Against)
	fmt.Fprintf(e.out, "open work orders: %d, told otherwise: %d, would stop: %d\n", d.Orders, d.OrdersChanged, d.OrdersStop)
	for _, o := range d.OrderExamples {
		fmt.Fprintf(e.out, "order %s: %s; then %s\n", o.OrderNo, o.Before, o.After)
	}
	w := tabwriter.NewWriter(e.out, 0, 0, 2, ' ', 0)
	if len(d.Sums) > 0 {
		fmt.Fprintln(w, "COUNTED\tTODAY\tTHEN\tFACTS")
	}
	for _, s := range d.Sums {
		fmt.Fprintf(w, "%s %s\t%s\t%s\t%d\n", s.Counted, s.Unit, amountIn(s.Before, s.UnitBefore), amountIn(s.After, s.UnitAfter), s.Facts)
	}
	for _, x := range d.Examples {
		fmt.Fprintf(w, "%s\t%s\t%s\n", x.Fact, x.Before, x.After)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, x := range d.Warnings {
		fmt.Fprintf(e.out, "warning %s: %s (facts: %d, such as %s)\n", x.Name, x.Text, x.Facts, x.Example)
	}
	if len(d.Warnings) > 0 {
		return errWarned
	}
	return nil
}

func amountIn(value, unit string) string {
	if unit == "" {
		return "stops"
	}
	return value + " " + unit
}

// effective is when a version begins to count.
type effective struct {
	From string `help:"Facts that occurred at or after are said by it: 2026-11-26, or with a time and a zone." placeholder:"TIME"`
}

func (f effective) add(body map[string]any) error {
	if f.From == "" {
		return nil
	}
	at, err := time.Parse(time.RFC3339, f.From)
	if err != nil {
		if at, err = time.Parse(time.DateOnly, f.From); err != nil {
			return usage(fmt.Sprintf("--from %q is no time: write 2026-11-26 (midnight UTC) or 2026-11-26T06:00:00+01:00", f.From))
		}
	}
	body["effective_from"] = at.Format(time.RFC3339)
	return nil
}

type mappingApproveCmd struct {
	versioned
	effective
	Acknowledge []string `help:"Name of a warning of the dry run; repeat for more." placeholder:"NAME"`
	Days        int      `default:"30" help:"Of the dry run that is made for it."`
	noted
	remote
}

func (c mappingApproveCmd) Run(e *env) error {
	body := map[string]any{"note": c.Note, "days": c.Days}
	if len(c.Acknowledge) > 0 {
		body["acknowledge"] = c.Acknowledge
	}
	if err := c.add(body); err != nil {
		return err
	}
	return c.change(e, c.path("/approve"), body)
}

type mappingRejectCmd struct {
	versioned
	noted
	remote
}

func (c mappingRejectCmd) Run(e *env) error {
	return c.change(e, c.path("/reject"), map[string]any{"note": c.Note})
}

type mappingReturnCmd struct {
	Name string `arg:"" help:"Name of the set."`
	Base int    `required:"" help:"Number of the latest version that you have seen." placeholder:"N"`
	To   int    `help:"Number of an approved version; default: the one before." placeholder:"N"`
	effective
	noted
	remote
}

func (c mappingReturnCmd) Run(e *env) error {
	body := map[string]any{"base": c.Base, "note": c.Note}
	if c.To > 0 {
		body["to"] = c.To
	}
	if err := c.add(body); err != nil {
		return err
	}
	return c.change(e, "/v1/mappings/"+url.PathEscape(c.Name)+"/return", body)
}
