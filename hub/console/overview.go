package console

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/linekeeper/linekeeper/hub/api"
)

// task is something that a person must see to: what, since when, why, and what to do.
type task struct {
	What  string
	Since time.Time
	Why   string
	Next  string
	Tone  string
	Link  string // a page that shows more
	// Code and ERP of parked postings that can be replayed together.
	Code, ERP string
	// Settle is the kind of an entry that is settled with a note, ID its number.
	Settle string
	ID     int64
}

type overview struct {
	Tasks  []task
	Agents []api.Agent
	ERPs   []api.ERP
	Orders []api.WorkOrder
	Tally  api.Tally
	// Held are postings that go on by themselves and say why they do not yet; HeldCount is how many there are at least.
	Held []api.Fact
	// Due and Doubt count what is on its way into the ERP, Pending what the plants have not handed over.
	Due, Doubt int64
	Pending    uint64
}

const heldShown = 10

func (c *console) overview(r *http.Request) (view, error) {
	var o overview
	var agents list[api.Agent]
	var erps list[api.ERP]
	var orders, unroutable list[api.WorkOrder]
	var counts list[api.PostingCount]
	var due, doubt list[api.Fact]
	var exceptions list[api.Exception]
	var conflicts, unreadable list[api.Aside]
	var alarms list[api.Alarm]
	var kinds list[api.ObjectKind]
	var writes list[api.Write]
	for _, q := range []struct {
		path string
		into any
	}{
		{"/v1/agents", &agents}, {"/v1/erps", &erps}, {"/v1/work-orders?limit=10", &orders}, {"/v1/work-orders?limit=20&unroutable=true", &unroutable},
		{"/v1/postings/counts", &counts}, {"/v1/postings?state=in_doubt&limit=20", &doubt}, {"/v1/postings?state=due&limit=100", &due},
		{"/v1/exceptions?limit=20", &exceptions}, {"/v1/asides?kind=conflict&limit=20", &conflicts}, {"/v1/asides?kind=unreadable&limit=20", &unreadable},
		{"/v1/alarms?limit=50", &alarms}, {"/v1/tally", &o.Tally}, {"/v1/objects", &kinds}, {"/v1/writes?state=parked&limit=20", &writes},
	} {
		if err := c.ask(r, http.MethodGet, q.path, nil, q.into); err != nil {
			return view{}, err
		}
	}
	o.Agents, o.ERPs, o.Orders = agents.Items, erps.Items, orders.Items
	for _, f := range append(doubt.Items, due.Items...) {
		if f.Posting.Reason != "" && len(o.Held) < heldShown {
			o.Held = append(o.Held, f)
		}
	}
	for _, a := range o.Agents {
		o.Pending += a.Pending
	}
	o.Tasks = unexplained(o.Tally)
	o.Tasks = append(o.Tasks, alarmTasks(alarms.Items)...)
	for _, n := range counts.Items {
		switch n.State {
		case "parked":
			t, err := c.parkedTask(r, n)
			if err != nil {
				return view{}, err
			}
			o.Tasks = append(o.Tasks, t)
		case "in_doubt":
			o.Doubt += n.Count
		case "due", "sending":
			o.Due += n.Count
		}
	}
	o.Tasks = append(o.Tasks, erpTasks(erps.Items)...)
	o.Tasks = append(o.Tasks, tradeTasks(kinds.Items, writes.Items)...)
	o.Tasks = append(o.Tasks, agentTasks(agents.Items)...)
	o.Tasks = append(o.Tasks, asideTasks(conflicts.Items, unreadable.Items)...)
	o.Tasks = append(o.Tasks, exceptionTasks(exceptions.Items)...)
	for _, w := range unroutable.Items {
		if !slices.Contains([]string{"COMPLETED", "CLOSED", "CANCELLED"}, w.State) {
			o.Tasks = append(o.Tasks, task{
				What: "Work order " + w.OrderNo + " goes to no plant", Since: w.ChangedAt, Why: w.Unroutable, Tone: "warn",
				Next: "add a route to the hub's configuration, or correct the order in the ERP", Link: "/orders/" + url.PathEscape(w.OrderNo),
			})
		}
	}
	return view{Title: "Overview", Refresh: 5, Data: o}, nil
}

func unexplained(t api.Tally) (out []task) {
	for _, d := range t.Differences {
		if d.Reason == "missing" || d.Reason == "doubled" {
			what := "missing"
			if d.Reason == "doubled" {
				what = "counted twice"
			}
			out = append(out, task{
				What: fmt.Sprintf("%s %s %s of %s: %s", d.Quantity, unit(d.Unit), d.Kind, d.Item, what), Since: t.At, Why: d.Text, Tone: "bad",
				Next: "compare the records of the order with the ERP's documents", Link: "/orders/" + url.PathEscape(d.OrderNo),
			})
		}
	}
	return out
}

func alarmTasks(all []api.Alarm) (out []task) {
	for _, a := range all {
		why := a.Reason
		if a.Times > 1 {
			why += fmt.Sprintf(" (%d times, last %s)", a.Times, ago(time.Since(a.LastAt)))
		}
		out = append(out, task{What: a.Subject + ": " + words(a.Code), Since: a.FirstAt, Why: why, Next: a.NextStep, Tone: "bad", Settle: "alarm", ID: a.ID})
	}
	return out
}

// parkedTask tells of all postings that are parked with one code, with the newest one's words.
func (c *console) parkedTask(r *http.Request, n api.PostingCount) (task, error) {
	q := url.Values{"state": {"parked"}, "code": {n.Code}, "erp": {n.ERP}}
	var example list[api.Fact]
	if err := c.ask(r, http.MethodGet, "/v1/postings?limit=1&"+q.Encode(), nil, &example); err != nil {
		return task{}, err
	}
	t := task{What: plural(n.Count, "posting waits", "postings wait") + " for a person: " + words(n.Code), Tone: "bad", Link: "/facts?" + q.Encode(), Code: n.Code, ERP: n.ERP}
	if n.Oldest != nil {
		t.Since = *n.Oldest
	}
	if len(example.Items) > 0 {
		f := example.Items[0]
		t.Why, t.Next = f.Posting.Reason, f.Posting.NextStep
		if n.Count == 1 {
			t.Link = "/facts/" + f.Key
		}
	}
	return t, nil
}

func erpTasks(all []api.ERP) (out []task) {
	for _, e := range all {
		if p := e.Posting; p != nil && !p.OK && p.PausedUntil != nil && e.FailedAt == nil {
			out = append(out, task{
				What: "ERP " + e.Name + " takes no postings", Since: *p.Since, Why: p.Reason, Tone: "warn",
				Next: "see to it that the ERP answers; postings then go on by themselves",
			})
		}
		if e.FailedAt == nil {
			continue
		}
		since := *e.FailedAt
		if e.OKAt != nil {
			since = *e.OKAt
		}
		out = append(out, task{
			What: "ERP " + e.Name + " cannot be read", Since: since, Why: e.Error, Tone: "warn",
			Next: "see to it that the ERP answers; orders and postings then go on by themselves",
		})
	}
	return out
}

// tradeTasks are business objects that cannot be read, and writes that wait for a person.
func tradeTasks(kinds []api.ObjectKind, writes []api.Write) (out []task) {
	for _, w := range writes {
		out = append(out, task{What: heading(w.Kind) + " to " + w.ERP + " waits for a person: " + words(w.Code), Since: w.Since, Why: w.Reason, Next: w.NextStep, Tone: "bad", Link: "/writes/" + w.Key})
	}
	for _, k := range kinds {
		if k.FailedAt == nil {
			continue
		}
		t := task{What: "Of ERP " + k.ERP + " no " + words(k.Kind) + " can be read", Since: *k.FailedAt, Why: k.Error, Tone: "warn",
			Next: "see to it that the ERP answers and the account may read them; what changed meanwhile then comes by itself", Link: "/objects"}
		if k.OKAt != nil {
			t.Since = *k.OKAt
		}
		out = append(out, t)
	}
	return out
}

func agentTasks(all []api.Agent) (out []task) {
	for _, a := range all {
		name := "Agent " + a.Plant + "/" + a.Agent
		switch {
		case !a.Connected && a.ConnectedAt == nil:
			out = append(out, task{
				What: name + " has never connected", Why: plural(a.DeliveriesWaiting, "message waits", "messages wait") + " for it here", Tone: "warn",
				Next: "install it at the plant with its certificate, or lead its orders elsewhere", Link: "/agents",
			})
		case !a.Connected:
			t := task{
				What: name + " is not connected", Why: "it goes on collecting at the plant and hands over later what it holds", Tone: "warn",
				Next: "check the plant's network, and ask the agent there with: plantagent status", Link: "/agents",
			}
			if a.DisconnectedAt != nil {
				t.Since = *a.DisconnectedAt
			}
			out = append(out, t)
		case a.State != "" && a.State != "ok":
			t := task{What: name + " is " + words(a.State), Why: a.Reason, Tone: "warn", Next: "see its sources", Link: "/agents"}
			if a.State == "losing" {
				t.What, t.Tone = name+" is losing data", "bad"
			}
			for _, s := range a.Sources {
				if s.State != "ok" && s.Since != nil && (t.Since.IsZero() || s.Since.Before(t.Since)) {
					t.Since = *s.Since
				}
			}
			out = append(out, t)
		}
	}
	return out
}

func asideTasks(conflicts, unreadable []api.Aside) (out []task) {
	for _, a := range conflicts {
		out = append(out, task{
			What: "Another fact came under the key of " + a.Key, Since: a.ReceivedAt, Why: "the first one counts, the second from " + a.Agent + " is kept aside", Tone: "bad",
			Next: "find out at the source which one is right", Link: "/facts/" + a.Key, Settle: "conflict", ID: a.ID,
		})
	}
	for _, a := range unreadable {
		out = append(out, task{
			What: "A record from " + a.Agent + " cannot be read", Since: a.ReceivedAt, Why: a.Reason, Tone: "bad",
			Next: "upgrade the hub and read it again; it is kept until then", Settle: "unreadable", ID: a.ID,
		})
	}
	return out
}

func exceptionTasks(all []api.Exception) (out []task) {
	for _, e := range all {
		why := e.Reason
		if e.Payload != "" {
			why += "; received: " + e.Payload
		}
		out = append(out, task{
			What: fmt.Sprintf("Input of source %s at %s did not become a fact: %s %s", e.Source, e.Agent, words(e.Code), e.Item), Since: e.OccurredAt, Why: why, Tone: "warn",
			Next: e.NextStep, Settle: "exception", ID: e.ID,
		})
	}
	return out
}

// Lost reports that a quantity is missing or counted twice.
func (o overview) Lost() bool { return o.Tally.Sum.Missing != "0" || o.Tally.Sum.Doubled != "0" }
