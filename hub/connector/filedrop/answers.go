package filedrop

import (
	"bytes"
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"unicode/utf8"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/generic"
)

// known is an answer as it was read, of a file of that size and time.
type known struct {
	entry
	ref, text string
	value     any
	why       string // it cannot be read
}

// said is what the other side says of one file: booked, or refused, or something that is not understood.
type said struct {
	name     string
	booked   bool
	refusal  *connector.Outcome
	document connector.Document
	why      string
	vars     map[string]any
}

// answer returns the strongest answer to a file: booked, then refused, then one that is not understood. Nil when there is none.
func (c *Connector) answer(p connector.Posting, in intent) (*said, error) {
	if c.cfg.Answers == nil {
		return nil, nil
	}
	ref := reference(p.Fact.Key, in.Try)
	all, err := c.answers(ref)
	var best *said
	for _, k := range all {
		s := c.judge(p, in, k)
		if best == nil || s.booked || s.refusal != nil && !best.booked {
			best = s
		}
	}
	return best, err
}

// answers reads the answers to a reference. What was read once is kept while it lies there unchanged.
func (c *Connector) answers(ref string) ([]known, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	found, err := c.store.list(c.cfg.Answers.Folder)
	if err != nil {
		return nil, fmt.Errorf("read answers: %w", err)
	}
	kept := make(map[string]known, len(found)) // what was taken away is forgotten
	var out []known
	for _, e := range found {
		m := c.answerName.FindStringSubmatch(e.name)
		if m == nil {
			continue
		}
		k, read := c.known[e.name]
		if !read || k.size != e.size || !k.at.Equal(e.at) {
			if m[1] != ref {
				continue // it is read when it is asked for
			}
			data, err := c.store.read(c.store.join(c.cfg.Answers.Folder, e.name))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			var large *tooLarge
			if err != nil && !errors.As(err, &large) {
				return nil, fmt.Errorf("read answer %s: %w", e.name, err)
			}
			k = known{entry: e, ref: m[1]}
			if large != nil {
				k.why = large.Error()
			} else {
				c.decode(&k, data)
			}
		}
		kept[e.name] = k
		if k.ref == ref {
			out = append(out, k)
		}
	}
	c.known = kept
	return out, nil
}

// decode reads what an answer holds.
func (c *Connector) decode(k *known, data []byte) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if !utf8.Valid(data) {
		k.why = "it is not written in UTF-8"
		return
	}
	k.text = strings.TrimSpace(string(data))
	var err error
	switch c.cfg.Answers.Format {
	case "json":
		k.value, err = generic.ReadJSON(data)
	case "csv":
		var rows []any
		if rows, err = readCSV(data, c.cfg.Answers.Delimiter); err == nil && len(rows) > 0 {
			k.value = rows[0]
		}
	}
	if err != nil {
		k.why = fmt.Sprintf("it cannot be read: %v", err)
	}
}

// judge says what an answer means. Only what the configuration recognises counts.
func (c *Connector) judge(p connector.Posting, in intent, k known) *said {
	s := &said{name: k.name, why: k.why}
	if k.why != "" {
		return s
	}
	s.vars = c.vars(p, in)
	s.vars["name"], s.vars["answer"], s.vars["text"] = k.name, k.value, k.text
	for _, r := range c.rejected {
		if r.When.True(s.vars) {
			s.refusal = r.Outcome(generic.OrderNo(p), "REFUSED", cmp.Or(short(k.text), "no reason given"), s.vars)
			break
		}
	}
	booked := c.accepted.True(s.vars)
	switch {
	case booked && s.refusal != nil:
		s.refusal, s.why = nil, "it accepts and refuses at once"
	case booked:
		number, err := c.number.Text(s.vars)
		if err != nil {
			s.why = err.Error()
			break
		}
		s.booked, s.document = true, connector.Document{Number: cmp.Or(number, k.ref), ID: k.ref}
	case s.refusal == nil:
		s.why = fmt.Sprintf("it holds %q", short(k.text))
	}
	return s
}

func short(text string) string {
	if r := []rune(text); len(r) > 200 {
		return string(r[:200]) + " ..."
	}
	return text
}

// unequal says what an answer says otherwise than the fact.
func (c *Connector) unequal(_ connector.Posting, _ intent, a *said) (wrong []string) {
	for _, e := range c.equal {
		if text := e.Different(a.vars, *c.cfg.Scale); text != "" {
			wrong = append(wrong, text)
		}
	}
	return wrong
}

// readCSV reads lines by the names in the first.
func readCSV(data []byte, delimiter string) ([]any, error) {
	r := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))))
	r.Comma, _ = utf8.DecodeRuneInString(delimiter)
	lines, err := r.ReadAll()
	if err != nil {
		return nil, err
	}
	if len(lines) == 0 {
		return nil, errors.New("there is no line with names")
	}
	rows := []any{}
	for _, line := range lines[1:] {
		row := map[string]any{}
		for i, name := range lines[0] {
			row[strings.TrimSpace(name)] = strings.TrimSpace(line[i])
		}
		rows = append(rows, row)
	}
	return rows, nil
}
