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
	typeOver     = "linekeeper.exceptions.over"
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
	Plant string `json:"plant,omitempty"` // empty for the hub itself, and for several
	// Plants are those of a message about the agents of several.
	Plants []string `json:"plants,omitempty"`
	// Tier is the escalation: 0 for news, 1 and 2 for what has outlasted its time once and twice.
	Tier   int       `json:"tier"`
	Count  int       `json:"count"`
	Oldest time.Time `json:"oldest,omitzero"`
	Groups []group   `json:"groups,omitempty"`
	// Exceptions are the oldest, ten at most.
	Exceptions []exception `json:"exceptions,omitempty"`
	// Over are alarms that have ended by themselves, ten at most; Still is how many of their sort have not.
	Over  []ended `json:"over,omitempty"`
	Still int     `json:"still,omitempty"`
	Link  string  `json:"link,omitempty"`
}

// ended is an alarm that is over.
type ended struct {
	Ref   string    `json:"ref"`
	What  string    `json:"what"`
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	Note  string    `json:"note"`
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
	c := content{Plant: t.plant, Tier: t.tier, Count: len(all), Oldest: all[0].row.Since, Groups: groups(all)}
	if t.agents {
		c.Plant, c.Plants = places(all)
	}
	c.Link = w.link("/inbox", "plant", c.Plant)
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

// places are the plants of exceptions: the one, or all.
func places(all []noted) (one string, several []string) {
	for _, x := range all {
		several = append(several, x.row.Plant)
	}
	slices.Sort(several)
	several = slices.Compact(several)
	if len(several) == 1 {
		return several[0], nil
	}
	return "", several
}

// overMessage says what has ended. still is how much of the same sort has not.
func (w writer) overMessage(receiver string, t topic, all []store.Alarm, still int, now time.Time) (store.Message, error) {
	c := content{Count: len(all), Still: still, Oldest: all[0].FirstAt, Link: w.link("/inbox", "plant", "")}
	counts := map[string]int{}
	var codes []string
	for _, a := range all {
		if counts[a.Code]++; counts[a.Code] == 1 {
			codes = append(codes, a.Code)
		}
		if a.FirstAt.Before(c.Oldest) {
			c.Oldest = a.FirstAt
		}
		if len(c.Over) < mostShown {
			c.Over = append(c.Over, ended{store.InboxRow{Kind: store.InboxAlarm, ID: a.ID}.Ref(), oneLine(a.Subject + ": " + strings.ReplaceAll(a.Code, "_", " ")), a.FirstAt, a.ClosedAt, a.Note})
		}
	}
	what := c.Over[0].What + ", after " + ago(all[0].ClosedAt.Sub(all[0].FirstAt))
	if len(all) > 1 {
		var parts []string
		for _, code := range codes {
			parts = append(parts, sort(group{Kind: store.InboxAlarm, Code: code, Count: counts[code]}))
		}
		what = strings.Join(parts, "; ")
	}
	if still > 0 {
		what += fmt.Sprintf(" (%s still open)", count(still))
	}
	c.Title = oneLine("[hub] Over: " + what)
	c.Text = w.overText(c)
	m, err := w.pack(receiver, typeOver, c, now)
	m.Topic, m.Entries = t.String(), len(all)
	return m, err
}

func (w writer) overText(c content) string {
	clock := func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	if c.Count == 1 {
		line("An alarm that you were told of is over by itself; nothing is to be done.")
	} else {
		line("%s alarms that you were told of are over by themselves; nothing is to be done about them.", count(c.Count))
	}
	if c.Still > 0 {
		line("%s of the same sort are still open.", count(c.Still))
	}
	for _, x := range c.Over {
		line("")
		line("%s", x.What)
		line("  %s", x.Note)
		line("  from %s to %s (%s)", clock(x.Since), clock(x.Until), ago(x.Until.Sub(x.Since)))
	}
	c.foot(line, len(c.Over), "are over as well")
	return b.String()
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
	where := cmp.Or(c.Plant, "hub")
	if len(c.Plants) > 0 {
		where = count(len(c.Plants)) + " plants"
	}
	return oneLine(fmt.Sprintf("[%s] %s%s (%s)", where, again, what, lasts))
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
	} else if len(c.Plants) > 0 {
		of = fmt.Sprintf(" of %s plants", count(len(c.Plants)))
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
		if len(c.Plants) > 0 {
			line("- plants: %s", strings.Join(c.Plants, ", "))
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
	c.foot(line, len(c.Exceptions), "are in the inbox")
	return b.String()
}

// foot ends a text that shows so many: how many more there are, and where.
func (c content) foot(line func(string, ...any), shown int, are string) {
	if more := c.Count - shown; more > 0 {
		line("")
		line("%s more %s.", count(more), are)
	}
	if c.Link != "" {
		line("")
		line("Inbox: %s", c.Link)
	}
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
