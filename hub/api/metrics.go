package api

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/store"
)

// collector reads the store when Prometheus asks; nothing is counted twice. Orders and items are never labels.
type collector struct {
	store   *store.Store
	version string
	now     func() time.Time
	health  func() map[string]ERPHealth
}

var (
	agentUp       = desc("linekeeper_agent_connected", "1 while the agent has a stream open", "plant", "agent")
	agentPending  = desc("linekeeper_agent_pending_facts", "facts that the agent had not handed over when it last said so", "plant", "agent")
	agentSeen     = desc("linekeeper_agent_seen_age_seconds", "seconds since the agent came, went, or said how it is", "plant", "agent")
	agentAge      = desc("linekeeper_agent_status_age_seconds", "seconds since the agent said how it is", "plant", "agent")
	postings      = desc("linekeeper_postings", "postings by state", "erp", "state", "code")
	postingOldest = desc("linekeeper_posting_oldest_seconds", "age of the oldest posting in a state", "erp", "state", "code")
	writes        = desc("linekeeper_writes", "writes of business objects that are not settled, by state", "erp", "state", "code")
	writeOldest   = desc("linekeeper_write_oldest_seconds", "age of the oldest write in a state", "erp", "state", "code")
	erpUp         = desc("linekeeper_erp_up", "1 while the ERP answers", "erp")
	erpPosting    = desc("linekeeper_erp_posting_up", "1 while the last call about a posting was answered", "erp")
	hubInfo       = desc("linekeeper_hub_info", "always 1; names the hub's version", "version")
	openAlarms    = desc("linekeeper_open_alarms", "alarms that wait for a person")
	alarmsOf      = desc("linekeeper_alarms", "alarms that wait for a person, by what they are about; those of agents, orders and ERPs that are silent are always there", "code")
	ordersNobody  = desc("linekeeper_orders_unrouted", "released work orders that reach no plant", "erp")
	discrepancies = desc("linekeeper_discrepancies", "discrepancies that are not settled", "type")
	healsMade     = desc("linekeeper_heals_total", "actions that were carried out about discrepancies")
	messages      = desc("linekeeper_messages", "messages about exceptions, by receiver and whether they arrived (due, delivered, dropped)", "receiver", "state")
	messageOldest = desc("linekeeper_message_oldest_seconds", "age of the oldest message that did not arrive yet", "receiver")
	healsWrong    = desc("linekeeper_heals_wrong_total", "heals that were wrong and were taken back")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{agentUp, agentPending, agentSeen, agentAge, postings, postingOldest, writes, writeOldest, erpUp, erpPosting, hubInfo, openAlarms, alarmsOf, ordersNobody, discrepancies, healsMade, healsWrong, messages, messageOldest} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(hubInfo, 1, c.version)
	report := func(d *prometheus.Desc, err error) { ch <- prometheus.NewInvalidMetric(d, err) }
	agents, err := c.store.Agents(ctx)
	if err != nil {
		report(agentUp, err)
	}
	for _, a := range agents {
		gauge(agentUp, yes(a.Connected()), a.Plant, a.Agent)
		gauge(agentPending, float64(a.Status.GetBusinessPending()), a.Plant, a.Agent)
		if !a.SeenAt.IsZero() {
			gauge(agentSeen, c.now().Sub(a.SeenAt).Seconds(), a.Plant, a.Agent)
		}
		if !a.StatusAt.IsZero() {
			gauge(agentAge, c.now().Sub(a.StatusAt).Seconds(), a.Plant, a.Agent)
		}
	}
	counts, err := c.store.PostingCounts(ctx)
	if err != nil {
		report(postings, err)
	}
	for _, n := range counts {
		gauge(postings, float64(n.Count), n.ERP, string(n.State), n.Code)
		if !n.State.Settled() {
			gauge(postingOldest, c.now().Sub(n.Oldest).Seconds(), n.ERP, string(n.State), n.Code)
		}
	}
	if counts, err = c.store.WriteCounts(ctx); err != nil {
		report(writes, err)
	}
	for _, n := range counts {
		gauge(writes, float64(n.Count), n.ERP, string(n.State), n.Code)
		gauge(writeOldest, c.now().Sub(n.Oldest).Seconds(), n.ERP, string(n.State), n.Code)
	}
	cursors, err := c.store.Cursors(ctx)
	if err != nil {
		report(erpUp, err)
	}
	for _, e := range cursors {
		gauge(erpUp, yes(e.FailedAt.IsZero()), e.ERP)
	}
	for name, h := range c.health() {
		gauge(erpPosting, yes(h.OK), name)
	}
	alarms, err := c.store.Alarms(ctx, false, store.Page{Limit: 1000})
	if err != nil {
		report(openAlarms, err)
		return
	}
	gauge(openAlarms, float64(len(alarms)))
	c.silent(ctx, ch, cursors)
	c.heals(ctx, ch)
	c.told(ctx, ch)
}

func (c *collector) silent(ctx context.Context, ch chan<- prometheus.Metric, erps []store.Cursor) {
	open, err := c.store.AlarmCounts(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(alarmsOf, err)
		return
	}
	for _, code := range append(append(store.AgentAlarms(), store.OrderAlarms()...), store.AlarmERPSilent) {
		open[code] += 0
	}
	for code, n := range open {
		ch <- prometheus.MustNewConstMetric(alarmsOf, prometheus.GaugeValue, float64(n), code)
	}
	unrouted, err := c.store.Unrouted(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(ordersNobody, err)
		return
	}
	byERP := map[string]int64{}
	for _, e := range erps {
		byERP[e.ERP] = 0
	}
	for _, u := range unrouted {
		byERP[u.ERP] += u.Count
	}
	for erp, n := range byERP {
		ch <- prometheus.MustNewConstMetric(ordersNobody, prometheus.GaugeValue, float64(n), erp)
	}
}

func (c *collector) told(ctx context.Context, ch chan<- prometheus.Metric) {
	all, err := c.store.MessageCounts(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(messages, err)
	}
	for _, n := range all {
		ch <- prometheus.MustNewConstMetric(messages, prometheus.GaugeValue, float64(n.Count), n.Receiver, string(n.State))
		if n.State == store.MessageDue {
			ch <- prometheus.MustNewConstMetric(messageOldest, prometheus.GaugeValue, c.now().Sub(n.Oldest).Seconds(), n.Receiver)
		}
	}
}

func (c *collector) heals(ctx context.Context, ch chan<- prometheus.Metric) {
	live, err := c.store.LiveDiscrepancies(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(discrepancies, err)
	}
	for _, t := range append(reconcile.Types(), reconcile.SumsDiffer) {
		ch <- prometheus.MustNewConstMetric(discrepancies, prometheus.GaugeValue, float64(live[string(t)]), string(t))
	}
	n, err := c.store.CountHeals(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(healsMade, err)
		return
	}
	ch <- prometheus.MustNewConstMetric(healsMade, prometheus.CounterValue, float64(n.Made))
	ch <- prometheus.MustNewConstMetric(healsWrong, prometheus.CounterValue, float64(n.Undone))
}

func yes(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
