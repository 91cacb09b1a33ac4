package files

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/b2mml"
	"github.com/linekeeper/linekeeper/drivers/payload"
)

// Config is a source's section. Zero values mean the defaults that the sample names.
type Config struct {
	SFTP       *SFTP       `yaml:"sftp"` // nil: folders of this computer, and shares it has mounted
	Root       string      `yaml:"root"` // where relative folders start; default: the configuration's own folder, or that of the login
	Zone       string      `yaml:"zone"` // IANA name; default: the plant's
	Feeds      []Feed      `yaml:"feeds"`
	WorkOrders *WorkOrders `yaml:"work_orders"`
}

// Feed is one folder and how its files become records.
type Feed struct {
	Tag        string        `yaml:"tag"`
	Folder     string        `yaml:"folder"`
	Files      []string      `yaml:"files"`      // globs; default: all
	Ignore     []string      `yaml:"ignore"`     // globs; default: the usual names of files that are not complete
	Ready      string        `yaml:"ready"`      // "stable" (default), "marker", "renamed"
	Marker     string        `yaml:"marker"`     // default .ok
	Scan       time.Duration `yaml:"scan"`       // default 5s
	Settle     time.Duration `yaml:"settle"`     // default 2s
	Processing string        `yaml:"processing"` // default processing, below folder
	Done       string        `yaml:"done"`       // default done
	Error      string        `yaml:"error"`      // default error
	Keep       bool          `yaml:"keep"`
	Retention  time.Duration `yaml:"retention"` // 0: done files are kept for ever
	Remember   int           `yaml:"remember"`  // contents; default 100000
	Identity   string        `yaml:"identity"`  // "content" (default), "name_and_content"
	OnError    string        `yaml:"on_error"`  // "skip_record" (default), "reject_file"
	Batch      int           `yaml:"batch"`     // records; default 500
	MaxSize    int64         `yaml:"max_size"`  // bytes; default 4 GiB

	Format string               `yaml:"format"` // csv, fixed, xml, json, jsonl, b2mml
	CSV    payload.CSVOptions   `yaml:"csv"`
	Fixed  payload.FixedOptions `yaml:"fixed"`
	XML    payload.XMLOptions   `yaml:"xml"`
	JSON   JSON                 `yaml:"json"`
	B2MML  B2MML                `yaml:"b2mml"`

	Where map[string]string `yaml:"where"` // only records whose fields have these texts
	Key   []string          `yaml:"key"`   // fields that identify a record, whatever file it comes in
	Time  string            `yaml:"time"`  // field that says when it happened
}

// JSON says how JSON texts become records.
type JSON struct {
	Encoding string `yaml:"encoding"`
	Record   string `yaml:"record"` // path of the list of records, such as data.rows; default: the document, or its elements
}

// B2MML says how B2MML documents are read.
type B2MML struct {
	Encoding    string            `yaml:"encoding"`
	Verbs       []string          `yaml:"verbs"`
	Actions     []string          `yaml:"actions"`
	MaterialUse map[string]string `yaml:"material_use"`
}

// WorkOrders says where and how work orders are laid down.
type WorkOrders struct {
	Folder  string       `yaml:"folder"`
	Format  string       `yaml:"format"` // b2mml (default), json, csv
	B2MML   b2mml.Format `yaml:"b2mml"`
	CSV     OrderCSV     `yaml:"csv"`
	Holds   bool         `yaml:"holds"`
	Answers *Answers     `yaml:"answers"`
}

// OrderCSV is how a work order is written as CSV: one line for each component, or one without any.
type OrderCSV struct {
	Delimiter string   `yaml:"delimiter"` // default ;
	Columns   []string `yaml:"columns"`   // default: all
	Decimal   string   `yaml:"decimal"`   // default .
}

// Answers is the folder in which the receiver answers to work orders.
type Answers struct {
	Feed     `yaml:",inline"`
	Map      map[string]string `yaml:"map"`      // our word: the receiver's field
	Statuses map[string]string `yaml:"statuses"` // the receiver's word: ours
}

const (
	identityContent = "content"
	identityName    = "name_and_content"
	onErrorSkip     = "skip_record"
	onErrorReject   = "reject_file"
	readyStable     = "stable"
	readyMarker     = "marker"
	readyRenamed    = "renamed"
)

// incomplete are names under which programs write what is not complete yet.
var incomplete = []string{"*.tmp", "*.temp", "*.part", "*.partial", "*.filepart", "*.crdownload", "~*", ".*", "*.swp", "*.lock", "*~", "*.writing"}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (c *Config) fill(env signal.Env) error {
	if c.SFTP == nil && c.Root != "" && !filepath.IsAbs(c.Root) {
		c.Root = filepath.Join(env.ConfigDir, c.Root)
	}
	resolve := func(p *string) {
		switch {
		case *p == "":
		case c.SFTP != nil:
			*p = (&remote{}).join(c.Root, *p)
		case c.Root != "":
			*p = local{}.join(c.Root, *p)
		default:
			*p = local{}.join(env.ConfigDir, *p)
		}
	}
	for i := range c.Feeds {
		resolve(&c.Feeds[i].Folder)
		c.Feeds[i].fill()
	}
	if w := c.WorkOrders; w != nil {
		resolve(&w.Folder)
		setDefault(&w.Format, "b2mml")
		setDefault(&w.CSV.Delimiter, ";")
		setDefault(&w.CSV.Decimal, ".")
		if err := w.B2MML.Fill(); err != nil {
			return fmt.Errorf("work_orders: b2mml: %w", err)
		}
		if a := w.Answers; a != nil {
			resolve(&a.Folder)
			setDefault(&a.Tag, signal.AnswerTag)
			setDefault(&a.Format, w.Format)
			a.fill()
		}
	}
	if c.SFTP != nil {
		return c.SFTP.fill(env)
	}
	return nil
}

func (f *Feed) fill() {
	setDefault(&f.Ready, readyStable)
	setDefault(&f.Marker, ".ok")
	setDefault(&f.Scan, 5*time.Second)
	setDefault(&f.Settle, 2*time.Second)
	setDefault(&f.Processing, "processing")
	setDefault(&f.Done, "done")
	setDefault(&f.Error, "error")
	setDefault(&f.Remember, 100_000)
	setDefault(&f.Identity, identityContent)
	setDefault(&f.OnError, onErrorSkip)
	setDefault(&f.Batch, 500)
	setDefault(&f.MaxSize, 4<<30)
	if f.Files == nil {
		f.Files = []string{"*"}
	}
	if f.Ignore == nil {
		f.Ignore = incomplete
	}
}

func (c *Config) validate() error {
	if len(c.Feeds) == 0 && c.WorkOrders == nil {
		return errors.New("neither feeds nor work_orders are configured: there is nothing to do")
	}
	tags := map[string]bool{}
	folders := map[string][]*Feed{}
	for _, f := range c.feeds() {
		if f.Tag == "" || tags[f.Tag] {
			return fmt.Errorf("feeds: tag %q is empty or used twice", f.Tag)
		}
		tags[f.Tag] = true
		if err := f.validate(); err != nil {
			return fmt.Errorf("feed %q: %w", f.Tag, err)
		}
		for _, other := range folders[path.Clean(f.Folder)] {
			if !f.Keep || !other.Keep {
				if shared(f.Files, other.Files) {
					return fmt.Errorf("feeds %q and %q take the same files %v of folder %s: give each other files, or set keep: true in both", other.Tag, f.Tag, f.Files, f.Folder)
				}
			}
		}
		folders[path.Clean(f.Folder)] = append(folders[path.Clean(f.Folder)], f)
	}
	if w := c.WorkOrders; w != nil {
		return w.validate()
	}
	return nil
}

// feeds are all folders that are read, the answers' too.
func (c *Config) feeds() []*Feed {
	var out []*Feed
	for i := range c.Feeds {
		out = append(out, &c.Feeds[i])
	}
	if c.WorkOrders != nil && c.WorkOrders.Answers != nil {
		out = append(out, &c.WorkOrders.Answers.Feed)
	}
	return out
}

func shared(a, b []string) bool {
	return slices.ContainsFunc(a, func(x string) bool { return x == "*" || slices.Contains(b, x) }) || slices.Contains(b, "*")
}

var folderName = regexp.MustCompile(`^[^\x00-\x1f]+$`)

func (f *Feed) validate() error {
	switch {
	case !folderName.MatchString(f.Folder):
		return fmt.Errorf("folder %q is empty or no path", f.Folder)
	case !slices.Contains([]string{readyStable, readyMarker, readyRenamed}, f.Ready):
		return fmt.Errorf("ready %q is none of stable, marker, renamed", f.Ready)
	case f.OnError != onErrorSkip && f.OnError != onErrorReject:
		return fmt.Errorf("on_error %q is neither skip_record nor reject_file", f.OnError)
	case f.Identity != identityContent && f.Identity != identityName:
		return fmt.Errorf("identity %q is neither content nor name_and_content", f.Identity)
	case f.Scan < time.Millisecond || f.Settle < 0 || f.Retention < 0:
		return errors.New("scan must be at least 1ms, settle and retention not negative")
	case f.Remember < 1000 || f.Remember > 5_000_000:
		return fmt.Errorf("remember %d must be from 1000 to 5000000", f.Remember)
	case f.Batch < 1 || f.Batch > 10_000 || f.MaxSize < 1:
		return errors.New("batch must be from 1 to 10000, max_size at least 1")
	case f.Ready == readyMarker && (len(f.Marker) < 2 || f.Marker[0] != '.'):
		return fmt.Errorf("marker %q is no ending such as .ok", f.Marker)
	case f.Ready == readyMarker && f.Keep:
		return errors.New("ready: marker has no use with keep: true, which takes no marker away: use ready: stable")
	case f.Keep && f.Retention != 0:
		return errors.New("retention has no use with keep: true, which moves no file to done")
	}
	for _, g := range slices.Concat(f.Files, f.Ignore) {
		if _, err := path.Match(g, "x"); err != nil || strings.Contains(g, "/") {
			return fmt.Errorf("pattern %q is no glob of a file name", g)
		}
	}
	seen := map[string]string{"": "folder", ".": "folder"}
	for key, dir := range map[string]string{"processing": f.Processing, "done": f.Done, "error": f.Error} {
		if other, twice := seen[path.Clean(dir)]; twice {
			return fmt.Errorf("%s and %s are the same folder", key, other)
		}
		seen[path.Clean(dir)] = key
	}
	return f.validateFormat()
}

func (f *Feed) validateFormat() error {
	switch f.Format {
	case "csv":
		return f.CSV.Validate()
	case "fixed":
		return f.Fixed.Validate()
	case "xml":
		return f.XML.Validate()
	case "json", "jsonl":
		if !payload.KnownEncoding(f.JSON.Encoding) {
			return fmt.Errorf("json: encoding %q is none of %s", f.JSON.Encoding, strings.Join(payload.Encodings(), ", "))
		}
		return nil
	case "b2mml":
		for word, use := range f.B2MML.MaterialUse {
			if !slices.Contains(b2mml.Uses, use) {
				return fmt.Errorf("b2mml: material_use: %q means %q, which is none of %s", word, use, strings.Join(b2mml.Uses, ", "))
			}
		}
		if !payload.KnownEncoding(f.B2MML.Encoding) {
			return fmt.Errorf("b2mml: encoding %q is none of %s", f.B2MML.Encoding, strings.Join(payload.Encodings(), ", "))
		}
		return nil
	}
	return fmt.Errorf("format %q is none of csv, fixed, xml, json, jsonl, b2mml", f.Format)
}

func (w *WorkOrders) validate() error {
	switch {
	case !folderName.MatchString(w.Folder):
		return fmt.Errorf("work_orders: folder %q is empty or no path", w.Folder)
	case !slices.Contains([]string{"b2mml", "json", "csv"}, w.Format):
		return fmt.Errorf("work_orders: format %q is none of b2mml, json, csv", w.Format)
	case len(w.CSV.Delimiter) != 1 || w.CSV.Decimal != "." && w.CSV.Decimal != "," || w.CSV.Delimiter == w.CSV.Decimal:
		return fmt.Errorf("work_orders: csv: delimiter %q is one character, decimal %q is . or , and they differ", w.CSV.Delimiter, w.CSV.Decimal)
	}
	for _, c := range w.CSV.Columns {
		if !slices.Contains(orderColumns, c) {
			return fmt.Errorf("work_orders: csv: column %q is none of %s", c, strings.Join(orderColumns, ", "))
		}
	}
	a := w.Answers
	if a == nil {
		return nil
	}
	if a.Folder == "" {
		return errors.New("work_orders: answers: folder is empty")
	}
	if a.Format != "b2mml" && (a.Map["order_no"] == "" && a.Map["message_id"] == "" || a.Map["status"] == "") {
		return errors.New("work_orders: answers: map needs status, and order_no or message_id: the receiver's names of these fields")
	}
	for ours := range a.Map {
		if !slices.Contains(answerFields, ours) {
			return fmt.Errorf("work_orders: answers: map: %q is none of %s", ours, strings.Join(answerFields, ", "))
		}
	}
	for word, ours := range a.Statuses {
		if !slices.Contains(answerWords, ours) {
			return fmt.Errorf("work_orders: answers: statuses: %q means %q, which is none of %s", word, ours, strings.Join(answerWords, ", "))
		}
	}
	return nil
}
