package notify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/hub/inbox"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/store"
)

// Options of New; Store, Inbox and Config are needed.
type Options struct {
	Store  *store.Store
	Inbox  *inbox.Reader
	Config Config // after SetDefaults and Check
	// Currency is that of the inbox's prices; Zones are the plants', for the times in messages.
	Currency string
	Zones    map[string]*time.Location
	Now      func() time.Time
	Logger   *slog.Logger
}

// Notifier works while Run runs. Make it with New.
type Notifier struct {
	o    Options
	ways []*post
	words
	// What follows belongs to the goroutine that looks.
	told     map[subject]mark
	gathered map[heap]gathering
	ended    map[string]store.Alarm // alarms that were told, ended by themselves, and are not told to be over yet; by ref
	facts    map[string]string      // refs of postings by the keys of facts that discrepancies are about
}

type words = writer

// post is a way with the bell that is rung when there is something for it.
type post struct {
	way
	bell chan struct{}
}

// subject is an exception and who was told of it; mark what was.
type subject struct{ receiver, ref string }

type mark struct {
	since time.Time
	tier  int
}

// topic is what is told in one message.
type topic struct {
	plant  string
	tier   int
	urgent bool
	// agents are those of all plants: a cut line takes many at once. over is of what has ended, of all plants as well.
	agents, over bool
}

func topicOf(x noted) topic {
	if x.row.Kind == store.InboxAlarm && slices.Contains(store.AgentAlarms(), x.row.Code) {
		return topic{tier: x.Tier, urgent: x.Severity == reconcile.High, agents: true}
	}
	return topic{plant: x.row.Plant, tier: x.Tier, urgent: x.Severity == reconcile.High}
}

func (t topic) String() string {
	if t.over {
		return "over"
	}
	if t.agents {
		t.plant = "agents"
	}
	text := fmt.Sprintf("%s tier %d", t.plant, t.tier)
	if t.urgent {
		text += " urgent"
	}
	return text
}

// heap is what gathers for a receiver; gathering since when, and how much it was at the last look.
type heap struct {
	receiver string
	topic
}

type gathering struct {
	since, grew time.Time
	count       int
}

// noted is an exception that is open.
type noted struct {
	row store.InboxRow
	inbox.Judged
}

// New returns a notifier that does nothing until Run. Its error names a secret or a certificate that cannot be read.
func New(o Options) (*Notifier, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	ways, faults := o.Config.ways()
	for _, f := range faults {
		return nil, fmt.Errorf("notify.%s: %s (%s)", f.Where, f.Text, f.Hint)
	}
	n := &Notifier{o: o, words: writer{o.Config.Console, o.Currency, o.Zones}, gathered: map[heap]gathering{}, ended: map[string]store.Alarm{}, facts: map[string]string{}}
	for _, w := range ways {
		n.ways = append(n.ways, &post{w, make(chan struct{}, 1)})
	}
	return n, nil
}

// Run works until ctx ends. What fails is logged and done again.
func (n *Notifier) Run(ctx context.Context) error {
	for !n.keepReceivers(ctx) {
		if !pause(ctx, lookPause, nil) {
			return nil
		}
	}
	if len(n.ways) == 0 {
		return nil
	}
	var parts sync.WaitGroup
	for _, p := range n.ways {
		parts.Go(func() { n.deliver(ctx, p) })
	}
	parts.Go(func() { n.watch(ctx) })
	parts.Wait()
	return nil
}

func (n *Notifier) keepReceivers(ctx context.Context) bool {
	var names []string
	for _, p := range n.ways {
		names = append(names, p.name)
	}
	err := n.o.Store.KeepReceivers(ctx, names)
	if err != nil && ctx.Err() == nil {
		n.o.Logger.Warn("messages to receivers of before could not be looked at; they are later", "error", err)
	}
	return err == nil
}

// How often is looked: after something has changed, and when nothing has, because time passes.
const (
	lookPause = 5 * time.Second
	lookIdle  = 15 * time.Second
	keepFor   = 30 * 24 * time.Hour // messages that ended
)

// watch looks again and again. It takes a tenth of the time at most, however much is open.
func (n *Notifier) watch(ctx context.Context) {
	changed, end := n.o.Store.Watch(store.TopicPostings, store.TopicFacts, store.TopicAgents)
	defer end()
	trimmed := time.Time{}
	for {
		begin := time.Now()
		if err := n.look(ctx); err != nil && ctx.Err() == nil {
			n.o.Logger.Warn("exceptions could not be told of; they are later", "error", err)
		}
		if begin.Sub(trimmed) > time.Hour {
			if err := n.o.Store.TrimMessages(ctx, n.o.Now().Add(-keepFor), 10_000); err == nil {
				trimmed = begin
			}
		}
		rest := max(lookPause, 10*time.Since(begin))
		if !pause(ctx, rest, nil) {
			return
		}
		if len(n.gathered) == 0 && !pause(ctx, lookIdle-lookPause, changed) {
			return
		}
	}
}

// pause waits, or until something has changed; false when ctx ends before.
func pause(ctx context.Context, d time.Duration, changed <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-changed:
	case <-ctx.Done():
		return false
	}
	return true
}

// look makes messages of what is open and was not told.
func (n *Notifier) look(ctx context.Context) error {
	if err := n.remember(ctx); err != nil {
		return err
	}
	open, err := n.open(ctx)
	if err != nil {
		return err
	}
	if err := n.forget(ctx, open); err != nil {
		return err
	}
	news := n.news(open)
	paced, err := n.o.Store.Paced(ctx, n.o.Now().Add(-max(time.Hour, n.o.Config.Digest)))
	if err != nil {
		return err
	}
	over := n.over()
	for h := range n.gathered {
		if len(news[h])+len(over[h]) == 0 {
			delete(n.gathered, h)
		}
	}
	for h, all := range news {
		if n.ripe(h, len(all), paced) {
			if err := n.tell(ctx, h, all); err != nil {
				return err
			}
		}
	}
	for h, all := range over {
		if n.calm(h, len(all), paced) {
			if err := n.tellOver(ctx, h, all, open); err != nil {
				return err
			}
		}
	}
	return nil
}

// remember reads once what was told before.
func (n *Notifier) remember(ctx context.Context) error {
	if n.told != nil {
		return nil
	}
	all, err := n.o.Store.Notices(ctx)
	if err != nil {
		return err
	}
	n.told = make(map[subject]mark, len(all))
	for _, x := range all {
		n.told[subject{x.Receiver, x.Ref}] = mark{x.Since, x.Tier}
	}
	return nil
}

// open lists what waits for a person, oldest first. What is being done without one is left out until its time has passed.
func (n *Notifier) open(ctx context.Context) ([]noted, error) {
	rows, err := n.o.Store.Inbox(ctx, store.InboxFilter{}, store.InboxPlace{}, math.MaxInt32)
	if err != nil {
		return nil, err
	}
	differ, err := n.discrepancies(ctx, rows)
	if err != nil {
		return nil, err
	}
	postings := map[string]bool{}
	for _, r := range rows {
		if r.Kind == store.InboxPosting {
			postings[r.Ref()] = true
		}
	}
	var all []noted
	for _, r := range rows {
		j, ok := n.o.Inbox.Judge(r)
		if !ok {
			d, known := differ[r.ID]
			beside, err := n.beside(ctx, d, postings)
			if err != nil {
				return nil, err
			}
			if !known || beside {
				continue
			}
			j = inbox.Judged{Owner: string(d.Owner), Severity: d.Severity, Due: d.Due, Tier: d.Tier}
			if r.Owner != "" {
				j.Owner = r.Owner
			}
		}
		if j.Tier == 0 && (r.Kind == store.InboxPosting && r.State == string(store.PostingInDoubt) || r.State == string(reconcile.Healing)) {
			continue
		}
		all = append(all, noted{r, j})
	}
	return all, nil
}

// discrepancies reads those that are live, when there are some.
func (n *Notifier) discrepancies(ctx context.Context, rows []store.InboxRow) (map[int64]reconcile.Discrepancy, error) {
	if !slices.ContainsFunc(rows, func(r store.InboxRow) bool { return r.Kind == store.InboxDiscrepancy }) {
		return nil, nil
	}
	all := map[int64]reconcile.Discrepancy{}
	for page := (store.Page{Limit: 1000}); ; {
		some, err := n.o.Store.Discrepancies(ctx, store.DiscrepancyFilter{Live: true}, page)
		if err != nil || len(some) == 0 {
			return all, err
		}
		for _, d := range some {
			all[d.ID] = d
		}
		page.Before = some[len(some)-1].ID
	}
}

// beside reports whether a discrepancy is about a fact whose posting waits as well: that one is told.
func (n *Notifier) beside(ctx context.Context, d reconcile.Discrepancy, postings map[string]bool) (bool, error) {
	if len(d.Facts) != 1 || d.Subject != "fact "+d.Facts[0] {
		return false, nil
	}
	ref, ok := n.facts[d.Facts[0]]
	if !ok {
		f, err := n.o.Store.FactByKey(ctx, d.Facts[0])
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return false, err
		}
		ref = store.InboxRow{Kind: store.InboxPosting, ID: f.ID}.Ref()
		n.facts[d.Facts[0]] = ref
	}
	return postings[ref], nil
}

// forget lets go of what was told of exceptions that are settled.
func (n *Notifier) forget(ctx context.Context, open []noted) error {
	refs := make(map[string]bool, len(open))
	for _, x := range open {
		refs[x.row.Ref()] = true
	}
	gone := map[string]bool{}
	for s := range n.told {
		if !refs[s.ref] {
			gone[s.ref] = true
		}
	}
	if err := n.end(ctx, gone); err != nil {
		return err
	}
	if len(gone) == 0 {
		return nil
	}
	list := slices.Collect(maps.Keys(gone))
	if err := n.o.Store.ForgetNotices(ctx, list); err != nil {
		n.told = nil // read again: some may be gone
		return err
	}
	for s := range n.told {
		if gone[s.ref] {
			delete(n.told, s)
		}
	}
	clear(n.facts)
	return nil
}

// end takes out of gone the alarms that have ended by themselves: their notices stay until it is told that they are over.
func (n *Notifier) end(ctx context.Context, gone map[string]bool) error {
	maps.DeleteFunc(n.ended, func(ref string, _ store.Alarm) bool { return !gone[ref] })
	var ids []int64
	for ref := range gone {
		if _, known := n.ended[ref]; known {
			continue
		}
		if kind, id, err := store.ParseRef(ref); err == nil && kind == store.InboxAlarm {
			ids = append(ids, id)
		}
	}
	if len(ids) > 0 {
		all, err := n.o.Store.AlarmsByID(ctx, ids)
		if err != nil {
			return err
		}
		for _, a := range all {
			if a.EndedItself() {
				n.ended[store.InboxRow{Kind: store.InboxAlarm, ID: a.ID}.Ref()] = a
			}
		}
	}
	maps.DeleteFunc(gone, func(ref string, _ bool) bool { _, ended := n.ended[ref]; return ended })
	return nil
}

// over are the alarms that each receiver was told of and that have ended by themselves, in the order of their ends.
func (n *Notifier) over() map[heap][]store.Alarm {
	out := map[heap][]store.Alarm{}
	for s := range n.told {
		if a, ok := n.ended[s.ref]; ok {
			h := heap{s.receiver, topic{over: true}}
			out[h] = append(out[h], a)
		}
	}
	for _, all := range out {
		slices.SortFunc(all, func(a, b store.Alarm) int { return cmp.Or(a.ClosedAt.Compare(b.ClosedAt), cmp.Compare(a.ID, b.ID)) })
	}
	return out
}

// news are what each receiver was not told yet, oldest first.
func (n *Notifier) news(open []noted) map[heap][]noted {
	out := map[heap][]noted{}
	for _, x := range open {
		for _, p := range n.ways {
			if !n.concerns(p, x) {
				continue
			}
			m, known := n.told[subject{p.name, x.row.Ref()}]
			if known && m.since.Equal(x.row.Since) && m.tier >= x.Tier {
				continue
			}
			h := heap{p.name, topicOf(x)}
			out[h] = append(out[h], x)
		}
	}
	return out
}

// concerns reports whether a rule tells a receiver of an exception. Nobody is told that he himself cannot be reached.
func (n *Notifier) concerns(p *post, x noted) bool {
	if x.row.Kind == store.InboxAlarm && x.row.Code == store.AlarmNotDelivered && x.row.Agent == store.ReceiverSubject(p.name) {
		return false
	}
	return slices.ContainsFunc(n.o.Config.Rules, func(r RuleConfig) bool {
		return slices.Contains(r.Tell, p.receiver) && r.fits(x.row.Plant, x.Owner, x.Severity, x.Tier)
	})
}

// What makes the next message of a topic a digest: one that told of so many, or so many messages within an hour.
const (
	largeMessage = 25
	manyMessages = 4
)

// ripe reports whether what has gathered is told now.
func (n *Notifier) ripe(h heap, count int, paced []store.Message) bool {
	now := n.o.Now()
	var last store.Message
	messages := 0
	for _, m := range paced {
		if m.Receiver != h.receiver || m.Topic != h.topic.String() {
			continue
		}
		if m.State == store.MessageDue {
			return false // it goes into the next one
		}
		last = m
		messages++
	}
	if (last.Entries > largeMessage || messages >= manyMessages) && now.Sub(last.MadeAt).Abs() < n.o.Config.Digest {
		return false
	}
	g, ok := n.gathered[h]
	if !ok {
		g.since = now
	}
	grows := count > g.count
	g.count = count
	n.gathered[h] = g
	age := now.Sub(g.since)
	return age < 0 || age >= n.o.Config.Collect && !grows || age >= 4*n.o.Config.Collect
}

// How long what has ended is gathered: agents come back one after the other, and nothing is urgent about it.
const (
	overCalm   = 30 * time.Second // nothing more has ended
	overAtMost = 5 * time.Minute
)

// calm reports whether it is told now what has ended. It overtakes no message that tells of the beginning.
func (n *Notifier) calm(h heap, count int, paced []store.Message) bool {
	if slices.ContainsFunc(paced, func(m store.Message) bool { return m.Receiver == h.receiver && m.State == store.MessageDue }) {
		return false
	}
	now := n.o.Now()
	g, ok := n.gathered[h]
	if !ok {
		g.since = now
	}
	if count > g.count {
		g.grew = now
	}
	g.count = count
	n.gathered[h] = g
	age := now.Sub(g.since)
	return age < 0 || now.Sub(g.grew) >= overCalm || age >= overAtMost
}

// tellOver stores a message about what has ended, and lets go of what was told of it. open is what has not.
func (n *Notifier) tellOver(ctx context.Context, h heap, all []store.Alarm, open []noted) error {
	still := 0
	for _, x := range open {
		_, told := n.told[subject{h.receiver, x.row.Ref()}]
		if told && x.row.Kind == store.InboxAlarm && slices.ContainsFunc(all, func(a store.Alarm) bool { return a.Code == x.row.Code }) {
			still++
		}
	}
	m, err := n.overMessage(h.receiver, h.topic, all, still, n.o.Now())
	if err != nil {
		return err
	}
	refs := make([]string, len(all))
	for i, a := range all {
		refs[i] = store.InboxRow{Kind: store.InboxAlarm, ID: a.ID}.Ref()
	}
	if err := n.o.Store.AddMessage(ctx, &m, nil, nil, refs); err != nil {
		n.told = nil // read again: it may have been stored all the same
		return err
	}
	for _, ref := range refs {
		delete(n.told, subject{h.receiver, ref})
	}
	delete(n.gathered, h)
	n.ringFor(h.receiver)
	return nil
}

// tell stores a message with the note of what it tells.
func (n *Notifier) tell(ctx context.Context, h heap, all []noted) error {
	var shown []inbox.Entry
	for _, x := range all {
		if len(shown) == mostShown {
			break
		}
		e, ok, err := n.o.Inbox.Entry(ctx, x.row)
		if err != nil {
			return fmt.Errorf("describe %s: %w", x.row.Ref(), err)
		}
		if ok {
			shown = append(shown, e)
		}
	}
	if len(shown) == 0 {
		return nil // it was settled just now
	}
	m, err := n.message(h.receiver, h.topic, all, shown, n.o.Now())
	if err != nil {
		return err
	}
	var news, again []store.Notice
	for _, x := range all {
		note := store.Notice{Ref: x.row.Ref(), Since: x.row.Since, Tier: x.Tier}
		if _, known := n.told[subject{h.receiver, note.Ref}]; known {
			again = append(again, note)
		} else {
			news = append(news, note)
		}
	}
	if err := n.o.Store.AddMessage(ctx, &m, news, again, nil); err != nil {
		n.told = nil // read again: it may have been stored all the same
		return err
	}
	for _, x := range all {
		n.told[subject{h.receiver, x.row.Ref()}] = mark{x.row.Since, x.Tier}
	}
	delete(n.gathered, h)
	n.ringFor(h.receiver)
	return nil
}

func (n *Notifier) ringFor(receiver string) {
	if i := slices.IndexFunc(n.ways, func(p *post) bool { return p.name == receiver }); i >= 0 {
		n.ways[i].ring()
	}
}

func (p *post) ring() {
	select {
	case p.bell <- struct{}{}:
	default:
	}
}
