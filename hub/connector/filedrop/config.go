package filedrop

import (
	"cmp"
	_ "embed"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector/generic"
	"github.com/linekeeper/linekeeper/hub/object"
)

// Sample is the commented section of a configuration file.
//
//go:embed sample.yaml
var Sample string

// Config says where the folders are and what their files hold. The texts that are named so are expressions (CEL).
type Config struct {
	// Name is what work orders call this ERP; "files" when empty.
	Name string `yaml:"name"`
	// SFTP is the server of all folders but sent and state; nil means this computer, or a share that it has.
	SFTP *SFTP `yaml:"sftp"`

	Out     Out      `yaml:"out"`
	Answers *Answers `yaml:"answers"`
	Orders  *Orders  `yaml:"orders"`

	// Units maps the system's units to UN/ECE Recommendation 20, one to one; States its order states to ours.
	Units  map[string]string `yaml:"units"`
	States map[string]string `yaml:"states"`
	// Site of all orders where no expression says it. TimeZone is that of times that carry none (IANA); UTC when empty.
	Site     string `yaml:"site"`
	TimeZone string `yaml:"time_zone"`
	// Scale is how many decimals the system keeps; 3 when nil, -1 for any. A quantity with more is refused, never rounded.
	Scale *int32 `yaml:"scale"`
	// Timeout of one exchange with a server; 30 s when 0.
	Timeout time.Duration `yaml:"timeout"`
}

// Out is where files for the other side go.
type Out struct {
	Folder string `yaml:"folder"`
	// Taken are the folders in which the other side keeps what it took, if any.
	Taken []string `yaml:"taken"`
	// Sent is a folder of this computer that keeps a copy of each file.
	Sent string `yaml:"sent"`
	// HandoverIsEffect: a fact is posted when its file was handed over; with answers, when none came within the time.
	HandoverIsEffect bool `yaml:"handover_is_effect"`
	// Postings by kind of fact: production_confirmation, material_consumption, quality_status, order_state.
	Postings map[string]*Posting `yaml:"postings"`
	// Wait is how long a posting waits for its answer; 2 s when 0.
	Wait time.Duration `yaml:"wait"`
}

// Posting is the file of one kind of fact. Expressions may use the names of a fact (see the package generic) and ref, the file's
// reference.
type Posting struct {
	// Name of the file, with {ref} in it; what has no place in a name becomes _.
	Name string `yaml:"name"`
	// Format is json (with Body), csv (with Columns) or xml (with Template, into which expressions in braces are written escaped).
	Format   string   `yaml:"format"`
	Body     any      `yaml:"body"`
	Columns  []Column `yaml:"columns"`
	Template string   `yaml:"template"`
	// Delimiter of csv; a semicolon when empty. NoHeader leaves the line with the names out.
	Delimiter string `yaml:"delimiter"`
	NoHeader  bool   `yaml:"no_header"`
	// States are those of the shop floor that are told, for order_state only; STARTED and FINISHED when empty. Operations: the
	// system keeps them of a single operation too (fact.operation); fact.closes_order tells the end of an operation from the order's.
	States     []string `yaml:"states"`
	Operations bool     `yaml:"operations"`
}

// Column is one field of a line.
type Column struct {
	Name  string `yaml:"name"`
	Value string `yaml:"value"`
}

// Answers are the files by which the other side says what became of one. Expressions may use the names of a fact, ref, name (of the answer),
// answer (what it holds: JSON, the first line of CSV by its header, else nil) and text.
type Answers struct {
	Folder string `yaml:"folder"`
	// Name is a pattern with {ref} where the reference stands, and * for anything.
	Name string `yaml:"name"`
	// Format is json (default), csv or text.
	Format    string `yaml:"format"`
	Delimiter string `yaml:"delimiter"`
	// Accepted says that it was booked; Number gives the document, the reference when empty.
	Accepted string         `yaml:"accepted"`
	Number   string         `yaml:"number"`
	Rejected []generic.Rule `yaml:"rejected"`
	// Equal names by an expression what the answer should say, and by another what it says.
	Equal map[string]string `yaml:"equal"`
	// Within is when a person is asked about a file without an answer; 24 h when 0.
	Within time.Duration `yaml:"within"`
}

// Orders is where files with work orders come from.
type Orders struct {
	Folder  string `yaml:"folder"`
	Archive string `yaml:"archive"`
	Errors  string `yaml:"errors"`
	// State is a folder of this computer that keeps the latest record of each order.
	State string `yaml:"state"`
	// Files is a pattern of names; * when empty.
	Files string `yaml:"files"`
	// Format is json, csv or b2mml. At gives the list in a JSON document, over body; the document itself when empty.
	Format    string `yaml:"format"`
	At        string `yaml:"at"`
	Delimiter string `yaml:"delimiter"` // of csv; a semicolon when empty
	// Ready says when a file is whole: renamed (default; it appears whole), stable (size and time have stayed the same for StableFor,
	// 10 s when 0), or marker (a file of the same name with Marker behind it is there; .done when empty).
	Ready     string        `yaml:"ready"`
	StableFor time.Duration `yaml:"stable_for"`
	Marker    string        `yaml:"marker"`
	// Map says what a record holds; it may be left out for b2mml.
	Map generic.OrderMap `yaml:"map"`
	// PageSize is how many orders are handed over at once; 200 when 0.
	PageSize int `yaml:"page_size"`
}

// Local are the fields that name files and folders of this computer, for whoever knows where relative names begin.
func (c *Config) Local() []*string {
	all := []*string{&c.Out.Sent}
	if c.Orders != nil {
		all = append(all, &c.Orders.State)
	}
	if s := c.SFTP; s != nil {
		return append(all, &s.PasswordFile, &s.KeyFile, &s.PassphraseFile)
	}
	all = append(all, &c.Out.Folder)
	for i := range c.Out.Taken {
		all = append(all, &c.Out.Taken[i])
	}
	if c.Answers != nil {
		all = append(all, &c.Answers.Folder)
	}
	if c.Orders != nil {
		all = append(all, &c.Orders.Folder, &c.Orders.Archive, &c.Orders.Errors)
	}
	return all
}

func wrong(format string, args ...any) error { return fmt.Errorf("configure files: "+format, args...) }

// withDefaults fills in what zero means and checks the rest. What the caller gave stays as it was.
func (c Config) withDefaults() (Config, error) {
	c.Name, c.TimeZone, c.Timeout = cmp.Or(c.Name, "files"), cmp.Or(c.TimeZone, "UTC"), cmp.Or(c.Timeout, 30*time.Second)
	c.Out.Wait = cmp.Or(c.Out.Wait, 2*time.Second)
	if c.Scale == nil {
		three := int32(3)
		c.Scale = &three
	}
	switch {
	case *c.Scale < -1 || *c.Scale > 12:
		return c, wrong("scale %d is out of range; use 0 to 12, or -1 for any", *c.Scale)
	case c.Timeout < 0 || c.Out.Wait < 0:
		return c, wrong("timeout and out.wait must not be below zero")
	case c.Out.Folder == "" || c.Out.Sent == "":
		return c, wrong("out.folder or out.sent is empty; name the folder for the other side, and one of this computer that keeps the copies")
	case len(c.Out.Postings) == 0:
		return c, wrong("out.postings is empty; name at least one kind of fact, such as production_confirmation")
	case c.Answers == nil && !c.Out.HandoverIsEffect:
		return c, wrong("answers is missing: say where the other side answers, or set out.handover_is_effect: true when the hand-over is all there is")
	}
	if c.SFTP != nil {
		if err := c.SFTP.check(); err != nil {
			return c, err
		}
	}
	if err := c.checkAnswers(); err != nil {
		return c, err
	}
	if err := c.checkOrders(); err != nil {
		return c, err
	}
	return c, c.checkFolders()
}

func (c *Config) checkAnswers() error {
	if c.Answers == nil {
		return nil
	}
	a := *c.Answers
	a.Format, a.Within, a.Delimiter = cmp.Or(a.Format, "json"), cmp.Or(a.Within, 24*time.Hour), cmp.Or(a.Delimiter, ";")
	c.Answers = &a
	switch {
	case a.Folder == "":
		return wrong("answers.folder is empty; name the folder in which the other side answers")
	case strings.Count(a.Name, "{ref}") != 1 || strings.ContainsAny(a.Name, `/\`):
		return wrong("answers.name %q is no pattern with one {ref}; write it like {ref}.ack", a.Name)
	case !slices.Contains([]string{"json", "csv", "text"}, a.Format):
		return wrong("answers.format %q is not known; use json, csv or text", a.Format)
	case len(a.Delimiter) != 1:
		return wrong("answers.delimiter %q is not one character", a.Delimiter)
	case a.Within < 0:
		return wrong("answers.within must not be below zero")
	}
	return nil
}

func (c *Config) checkOrders() error {
	if c.Orders == nil {
		return nil
	}
	o := *c.Orders
	o.Files, o.Ready, o.Marker, o.Delimiter = cmp.Or(o.Files, "*"), cmp.Or(o.Ready, "renamed"), cmp.Or(o.Marker, ".done"), cmp.Or(o.Delimiter, ";")
	o.StableFor, o.PageSize, o.At = cmp.Or(o.StableFor, 10*time.Second), cmp.Or(o.PageSize, 200), cmp.Or(o.At, "body")
	if o.Format == "b2mml" && o.Map == (generic.OrderMap{}) {
		o.Map = scheduleMap()
	}
	c.Orders = &o
	_, badPattern := path.Match(o.Files, "x")
	switch {
	case o.Folder == "" || o.Archive == "" || o.Errors == "" || o.State == "":
		return wrong("orders: folder, archive, errors and state are needed; name four folders, state on this computer")
	case !slices.Contains([]string{"json", "csv", "b2mml"}, o.Format):
		return wrong("orders.format %q is not known; use json, csv or b2mml", o.Format)
	case !slices.Contains([]string{"renamed", "stable", "marker"}, o.Ready):
		return wrong("orders.ready %q is not known; use renamed, stable or marker", o.Ready)
	case badPattern != nil:
		return wrong("orders.files %q is no pattern such as *.json", o.Files)
	case len(o.Delimiter) != 1:
		return wrong("orders.delimiter %q is not one character", o.Delimiter)
	case o.StableFor < 0 || o.PageSize < 1 || o.PageSize > 10_000:
		return wrong("orders: stable_for must not be below zero, and page_size from 1 to 10000")
	case strings.ContainsAny(o.Marker, `/\`):
		return wrong("orders.marker %q is no ending of a name such as .done", o.Marker)
	}
	return nil
}

// checkFolders refuses folders with two meanings.
func (c *Config) checkFolders() error {
	type folder struct{ key, name string }
	all := []folder{{"out.folder", c.Out.Folder}}
	local := []folder{{"out.sent", c.Out.Sent}}
	for i, f := range c.Out.Taken {
		all = append(all, folder{fmt.Sprintf("out.taken[%d]", i), f})
	}
	if c.Answers != nil {
		all = append(all, folder{"answers.folder", c.Answers.Folder})
	}
	if o := c.Orders; o != nil {
		all = append(all, folder{"orders.folder", o.Folder}, folder{"orders.archive", o.Archive}, folder{"orders.errors", o.Errors})
		local = append(local, folder{"orders.state", o.State})
	}
	if c.SFTP == nil {
		all, local = append(all, local...), nil
	}
	for _, side := range [][]folder{all, local} {
		seen := map[string]string{}
		for _, f := range side {
			name := filepath.Clean(f.name)
			if other := seen[name]; other != "" {
				return wrong("%s and %s are the same folder; give each its own", other, f.key)
			}
			seen[name] = f.key
		}
	}
	return nil
}

var kinds = []object.Kind{object.KindConfirmation, object.KindConsumption, object.KindQuality, object.KindOrderState}

// checkKinds checks the keys of postings and the states.
func (c *Config) checkKinds() error {
	for _, k := range slices.Sorted(maps.Keys(c.Out.Postings)) {
		p := c.Out.Postings[k]
		switch {
		case !slices.Contains(kinds, object.Kind(k)):
			return wrong("out.postings: %q is not known; use some of %v", k, kinds)
		case p == nil:
			return wrong("out.postings.%s is empty; write name and format", k)
		case len(p.States) > 0 && object.Kind(k) != object.KindOrderState:
			return wrong("out.postings.%s.states is for order_state only", k)
		case p.Operations && object.Kind(k) != object.KindOrderState:
			return wrong("out.postings.%s.operations is for order_state only", k)
		}
		for _, s := range p.States {
			if !slices.Contains([]object.FloorState{object.FloorStarted, object.FloorHeld, object.FloorFinished, object.FloorCancelled}, object.FloorState(s)) {
				return wrong("out.postings.%s.states: %q is not known; use STARTED, HELD, FINISHED or CANCELLED", k, s)
			}
		}
	}
	return nil
}

// makeFolders makes the local folders that are the connector's own.
func (c *Config) makeFolders() error {
	own := []string{c.Out.Sent}
	if c.Orders != nil {
		own = append(own, c.Orders.State)
	}
	for _, f := range own {
		if err := os.MkdirAll(f, 0o700); err != nil {
			return fmt.Errorf("make folder %s: %w", f, err)
		}
	}
	return nil
}
