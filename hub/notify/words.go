package notify

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/inbox"
	"github.com/linekeeper/linekeeper/hub/store"
)

// The types of events.
const (
	typeNews     = "linekeeper.exceptions"
	typeReminder = "linekeeper.exceptions.reminder"
	typeTest     = "linekeeper.test"
)

// event is a CloudEvent 1.0.
type event struct {
	SpecVersion string    `json:"specversion"`
	ID          string    `json:"id"`
	Source      string    `json:"source"`
	Type        string    `json:"type"`
	Subject     string    `json:"subject,omitempty"` // the plant
	Time        time.Time `json:"time"`
	ContentType string    `json:"datacontenttype"`
	Data        content   `json:"data"`
}

// content is what is told: what, since when, how much, whose, what is proposed, and where it is seen to. Nobody's name and nothing that
// was received stands in it.
type content struct {
	Title string `json:"title"`
	Text  string `json:"text"`
	Plant string `json:"plant,omitempty"` // empty for the hub itself
	// Tier is the escalation: 0 for news, 1 and 2 for what has outlasted its time once and twice.
	Tier   int       `json:"tier"`
	Count  int       `json:"count"`
	Oldest time.Time `json:"oldest,omitzero"`
	Groups []group   `json:"groups,omitempty"`
	// Exceptions are the oldest, ten at most.
	Exceptions []exception `json:"exceptions,omitempty"`
	Link       string      `json:"link,omitempty"`
}

// group is how many exceptions of a sort there are.
type group struct {
	Kind   string    `json:"kind"`
	Code   string    `json:"code,omitempty"`
	ERP    string    `json:"erp,omitempty"`
	Owner  string    `json:"owner"`
	Count  int       `json:"count"`
	Oldest time.Time `json:"oldest"`
}

// exception is one of them.
type exception struct {
	Ref      string    `json:"ref"`
	What     string    `json:"what"`
	Since    time.Time `json:"since"`
	Due      time.Time `json:"due"`
	ERP      string    `json:"erp,omitempty"`
	OrderNo  string    `json:"order_no,omitempty"`
	Code     string    `json:"code,omitempty"`
	Owner    string    `json:"owner"`
	Severity string    `json:"severity"`
	Amounts  []amount  `json:"amounts,omitempty"`
	Worth    string    `json:"worth,omitempty"`
	Currency string    `json:"currency,omitempty"`
	Why      string    `json:"why,omitempty"`
	Proposed string    `json:"proposed"`
	Link     string    `json:"link,omitempty"`
}

type amount struct {
	Item     string `json:"item"`
	Kind     string `json:"kind,omitempty"`
	Quantity string `json:"quantity"`
	Unit     string `json:"unit,omitempty"`
}

const (
	mostShown = 10  // exceptions that a message describes; the others it counts
	mostWords = 300 // bytes of a reason
)

// writer makes messages.
type writer struct {
	console  string
	currency string
	zones    map[string]*time.Location
}

// message says what waits. shown are the oldest of all, described.
func (w writer) message(receiver string, t topic, all []noted, shown []inbox.Entry, now time.Time) (store.Message, error) {
	c := content{Plant: t.plant, Tier: t.tier, Count: len(all), Oldest: all[0].row.Since, Groups: groups(all), Link: w.link("/inbox", "plant", t.plant)}
	for _, e := range shown {
		c.Exceptions = append(c.Exceptions, w.exception(e))
	}
	c.Title = w.title(c, now)
	c.Text = w.text(c, now)
	kind := typeNews
	if t.tier > 0 {
		kind = typeReminder
	}
	m, err := w.pack(receiver, kind, c, now)
	m.Topic, m.Entries = t.String(), len(all)
	return m, err
}

// test is a message that only shows that the way works.
func (w writer) test(receiver string, now time.Time) (store.Message, error) {
	c := content{Title: "[hub] test message", Link: w.link("/inbox", "plant", ""), Text: "This is a test of Linekeeper's messages. Nothing has happened and nothing is to be done.\n"}
	return w.pack(receiver, typeTest, c, now)
}

func (w writer) pack(receiver, kind string, c content, now time.Time) (store.Message, error) {
	e := event{SpecVersion: "1.0", ID: "msg_" + rand.Text(), Source: cmp.Or(w.console, "/linekeeper/hub"), Type: kind, Subject: c.Plant, Time: now.UTC(), ContentType: "application/json", Data: c}
	body, err := json.Marshal(e)
	return store.Message{MessageID: e.ID, Receiver: receiver, Subject: c.Title, Body: string(body), MadeAt: now}, err
}

func (w writer) link(path, key, value string) string {
	if w.console == "" {
		return ""
	}
	if value != "" {
		path += "?" + url.Values{key: {value}}.Encode()
	}
	return strings.TrimSuffix(w.console, "/") + path
}

func (w writer) exception(e inbox.Entry) exception {
	x := exception{Ref: e.Ref, What: oneLine(e.What), Since: e.Since, Due: e.Due, ERP: e.ERP, OrderNo: e.OrderNo, Code: e.Code, Owner: e.Owner, Severity: string(e.Severity),
		Why: short(e.Why), Proposed: short(e.Proposed), Link: w.link("/inbox/"+url.PathEscape(e.Ref), "", "")}
	for _, s := range e.Stock {
		x.Amounts = append(x.Amounts, amount{s.Item, s.Kind, s.Quantity.String(), s.Unit})
	}
	if e.Priced {
		x.Worth, x.Currency = e.Money.String(), w.currency
	}
	return x
}

func short(text string) string {
	text = oneLine(text)
	if len(text) > mostWords {
		text = strings.ToValidUTF8(text[:mostWords], "") + " ..."
	}
	return text
}

// groups counts what is told by its sort, the most first.
func groups(all []noted) []group {
	at := map[group]int{}
	var out []group
	for _, n := range all {
		g := group{Kind: n.row.Kind, Code: n.row.Code, ERP: n.row.ERP, Owner: n.Owner}
		i, ok := at[g]
		if !ok {
			i = len(out)
			at[g] = i
			g.Oldest = n.row.Since // they come oldest first
			out = append(out, g)
		}
		out[i].Count++
	}
	slices.SortStableFunc(out, func(a, b group) int { return cmp.Compare(b.Count, a.Count) })
	return out[:min(len(out), mostShown)]
}

// title says plant, what and how long.
func (w writer) title(c content, now time.Time) string {
	what := fmt.Sprintf("%s exceptions", count(c.Count))
	if c.Count == 1 && len(c.Exceptions) == 1 {
		what = c.Exceptions[0].What
	} else if len(c.Groups) == 1 {
		what = sort(c.Groups[0])
	}
	lasts := "for " + ago(now.Sub(c.Oldest))
	if c.Count > 1 {
		lasts = "the oldest " + lasts
	}
	again := [...]string{"", "Reminder: ", "Second reminder: "}[min(c.Tier, 2)]
	return oneLine(fmt.Sprintf("[%s] %s%s (%s)", cmp.Or(c.Plant, "hub"), again, what, lasts))
}

// sort says how many of a sort there are: "10,000 postings wait (period_closed, ERP s4)".
func sort(g group) string {
	name := map[string]string{store.InboxPosting: "posting", store.InboxDiscrepancy: "discrepancy", store.InboxException: "input without a fact", store.InboxConflict: "conflict of keys",
		store.InboxUnreadable: "unreadable record", store.InboxAlarm: "alarm", store.InboxWrite: "write"}[g.Kind]
	if many := map[string]string{store.InboxDiscrepancy: "discrepancies", store.InboxException: "inputs without a fact", store.InboxConflict: "conflicts of keys"}[g.Kind]; g.Count > 1 {
		name = cmp.Or(many, name+"s")
	}
	var about []string
	if g.Code != "" && g.Code != g.Kind {
		about = append(about, strings.ReplaceAll(g.Code, "_", " "))
	}
	if g.ERP != "" {
		about = append(about, "ERP "+g.ERP)
	}
	text := count(g.Count) + " " + name
	if len(about) > 0 {
		text += ": " + strings.Join(about, ", ")
	}
	return text
}

func (w writer) text(c content, now time.Time) string {
	zone := w.zones[c.Plant]
	if zone == nil {
		zone = time.UTC
	}
	clock := func(t time.Time) string { return t.In(zone).Format("2006-01-02 15:04 MST") }
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	of := ""
	if c.Plant != "" {
		of = " of plant " + c.Plant
	}
	one := c.Count == 1
	switch {
	case one:
		line("An exception%s waits since %s (%s).", of, clock(c.Oldest), ago(now.Sub(c.Oldest)))
	default:
		line("%s exceptions%s wait, the oldest since %s (%s).", count(c.Count), of, clock(c.Oldest), ago(now.Sub(c.Oldest)))
	}
	if c.Tier > 0 {
		line("%s", [...]string{"", "The time to settle them has passed.", "The time to settle them has passed twice: stop what it concerns until it is settled."}[min(c.Tier, 2)])
	}
	if !one {
		line("")
		for _, g := range c.Groups {
			line("- %s (%s)", sort(g), g.Owner)
		}
	}
	for _, x := range c.Exceptions {
		line("")
		line("%s", x.What)
		if x.OrderNo != "" {
			line("  order: %s", x.OrderNo)
		}
		line("  since: %s, settle by %s", clock(x.Since), clock(x.Due))
		line("  whose: %s, severity %s", x.Owner, x.Severity)
		if x.Worth != "" {
			line("  worth: %s %s", x.Worth, x.Currency)
		}
		if x.Why != "" {
			line("  why: %s", x.Why)
		}
		line("  next step: %s", x.Proposed)
		if x.Link != "" {
			line("  %s", x.Link)
		}
	}
	if more := c.Count - len(c.Exceptions); more > 0 {
		line("")
		line("%s more are in the inbox.", count(more))
	}
	if c.Link != "" {
		line("")
		line("Inbox: %s", c.Link)
	}
	return b.String()
}

// count groups the digits of a number.
func count(n int) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// ago says a length of time in its largest unit.
func ago(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}
