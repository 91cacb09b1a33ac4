package mqtt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/mqttlink"
)

// WorkOrders says how work orders are published and answered.
type WorkOrders struct {
	// Topic has names of the order in braces: {order_no}, {revision}, {work_center}, {item}, {plant}.
	Topic string `yaml:"topic"`
	// AckTopic is where the receiver answers; the same names stand for one level each.
	AckTopic string `yaml:"ack_topic"`
	// Ack is "receiver" (default) or "none": then an order counts as delivered when the broker has it.
	Ack string `yaml:"ack"`
	// Expiry is how long the receiver has to answer; zero is for ever.
	Expiry time.Duration `yaml:"expiry"`
	// Repeat publishes again, under the same id, when no answer came for so long; default 1m.
	Repeat time.Duration `yaml:"repeat"`
	// Tag of the answers' signals; default signal.AnswerTag. Words translates the receiver's words of status.
	Tag   string            `yaml:"tag"`
	Words map[string]string `yaml:"words"`

	topic template
}

// ackPatience is how long one delivery waits for its answer; the agent's next attempt finds what came later. It is shorter in
// tests only.
var ackPatience = 3 * time.Second

var orderNames = []string{"order_no", "revision", "work_center", "item", "plant"}

var answerWords = []string{signal.AnswerAccepted, signal.AnswerRejected, signal.AnswerStarted, signal.AnswerHeld, signal.AnswerFinished, signal.AnswerCancelled}

func (w *WorkOrders) fill() {
	if w.Ack == "" {
		w.Ack = "receiver"
	}
	if w.Repeat == 0 {
		w.Repeat = time.Minute
	}
	if w.Tag == "" {
		w.Tag = signal.AnswerTag
	}
}

func (w *WorkOrders) answersTopic() (Topic, bool) {
	return Topic{Tag: w.Tag, Topic: w.AckTopic, answers: true}, w.AckTopic != ""
}

func (w *WorkOrders) validate() (err error) {
	if w.topic, err = parseTemplate(w.Topic); err != nil {
		return fmt.Errorf("topic: %w", err)
	}
	ack, err := parseTemplate(w.AckTopic)
	if err != nil {
		return fmt.Errorf("ack_topic: %w", err)
	}
	for _, name := range append(w.topic.names(), ack.names()...) {
		if !slices.Contains(orderNames, name) {
			return fmt.Errorf("{%s} is none of {%s}", name, strings.Join(orderNames, "}, {"))
		}
	}
	for from, to := range w.Words {
		if !slices.Contains(answerWords, to) {
			return fmt.Errorf("words: %q stands for %q, which is none of %s", from, to, strings.Join(answerWords, ", "))
		}
	}
	switch {
	case w.Topic == "" || strings.ContainsAny(w.Topic, "+#\x00"):
		return fmt.Errorf("topic %q: a topic to publish on is needed, without + and #", w.Topic)
	case w.Ack != "receiver" && w.Ack != "none":
		return fmt.Errorf("ack %q is neither receiver nor none", w.Ack)
	case w.Ack == "receiver" && w.AckTopic == "":
		return errors.New("ack_topic is missing: name the topic on which the receiver answers, or set ack: none, and an order counts as delivered when the broker has it")
	case w.Expiry < 0 || w.Expiry > 0 && w.Expiry < time.Second:
		return fmt.Errorf("expiry %s is below 1s", w.Expiry)
	case w.Repeat < time.Second:
		return fmt.Errorf("repeat %s is below 1s", w.Repeat)
	}
	return nil
}

// word is the status that a word of the receiver stands for. One that nobody has translated stays as it is, for the rules.
func (w *WorkOrders) word(status string) string {
	if word, ok := w.Words[status]; ok {
		return word
	}
	if word := strings.ToLower(strings.TrimSpace(status)); slices.Contains(answerWords, word) {
		return word
	}
	return status
}

// order is what is published.
type order struct {
	ID           string        `json:"id"`
	OrderNo      string        `json:"order_no"`
	Revision     int64         `json:"revision"`
	Action       string        `json:"action"` // CREATE, CHANGE, CANCEL
	WorkCenter   string        `json:"work_center,omitempty"`
	Item         string        `json:"item,omitempty"`
	Description  string        `json:"description,omitempty"`
	Quantity     signal.Number `json:"quantity,omitempty"`
	Unit         string        `json:"unit,omitempty"`
	Priority     int32         `json:"priority,omitempty"`
	Lot          string        `json:"lot,omitempty"`
	PlannedStart *time.Time    `json:"planned_start,omitempty"`
	PlannedEnd   *time.Time    `json:"planned_end,omitempty"`
	Operations   []operation   `json:"operations,omitempty"`
	Components   []component   `json:"components,omitempty"`
	SentAt       time.Time     `json:"sent_at"`
	ExpiresAt    *time.Time    `json:"expires_at,omitempty"`
	AckTopic     string        `json:"ack_topic,omitempty"`
}

type operation struct {
	Operation   string        `json:"operation"`
	Description string        `json:"description,omitempty"`
	WorkCenter  string        `json:"work_center,omitempty"`
	Quantity    signal.Number `json:"quantity,omitempty"`
	Unit        string        `json:"unit,omitempty"`
}

type component struct {
	Item        string        `json:"item"`
	Description string        `json:"description,omitempty"`
	Required    signal.Number `json:"required,omitempty"`
	Unit        string        `json:"unit,omitempty"`
	Operation   string        `json:"operation,omitempty"`
	Reservation string        `json:"reservation,omitempty"`
	Backflush   bool          `json:"backflush"`
}

// TakesOrders implements signal.OrderReceiver.
func (d *driver) TakesOrders() bool { return d.orders != nil }

// Deliver implements signal.OrderReceiver: it publishes the revision under its id, and returns nil when the receiver accepted
// it. The same revision is published with the same bytes, so a receiver that keeps ids takes it once.
func (d *driver) Deliver(ctx context.Context, o signal.WorkOrder) error {
	if d.orders == nil {
		return &signal.Refused{Reason: "source " + d.env.Source + " is not configured to take work orders"}
	}
	e, err := d.orders.begin(o, func(known bool) (*entry, error) { return d.entry(o, known) })
	if err != nil {
		return err
	}
	if done, err := e.result(); done {
		return err
	}
	now := time.Now()
	if !e.Expires.IsZero() && now.After(e.Expires) {
		// The answer may wait at the broker, or behind other messages.
		if at := d.settled.Load(); at == nil || now.Sub(*at) < ackPatience || d.behind() {
			return fmt.Errorf("order %q revision %d has expired, unless an answer waits at the broker: it is looked for", o.OrderNo, o.Revision)
		}
		reason := fmt.Sprintf("expired: its receiver has not answered on %q within %s", e.AckTopic, d.config.WorkOrders.Expiry)
		if err := d.orders.settle(e.ID, expired, reason); err != nil {
			return err
		}
		return &signal.Refused{Reason: reason}
	}
	fresh := e.lastTry.IsZero()
	if fresh || now.Sub(e.lastTry) >= d.config.WorkOrders.Repeat || !e.Published {
		if err := d.publishOrder(ctx, e); err != nil {
			return fmt.Errorf("publish order %q revision %d on %q: %w", o.OrderNo, o.Revision, e.Topic, err)
		}
	}
	if fresh {
		if e = d.orders.await(ctx, e.ID, ackPatience); e != nil {
			return e.mustResult()
		}
	} else if e = d.orders.find(e.ID); e != nil {
		if done, err := e.result(); done {
			return err
		}
	}
	return d.unanswered(o)
}

func (d *driver) unanswered(o signal.WorkOrder) error {
	e := d.orders.find(messageID(o.OrderNo, o.Revision))
	until := ""
	if e != nil && !e.Expires.IsZero() {
		until = "; it has until " + e.Expires.In(zoneOf(d.env.Zone)).Format(time.RFC3339)
	}
	return fmt.Errorf("the broker has order %q revision %d, and its receiver has not answered on %q yet%s", o.OrderNo, o.Revision, d.config.WorkOrders.AckTopic, until)
}

// behind reports whether messages wait to be stored.
func (d *driver) behind() bool {
	s := d.session.Load()
	return s == nil || s.Waiting() > 0
}

func zoneOf(z *time.Location) *time.Location {
	if z == nil {
		return time.UTC
	}
	return z
}

// publishOrder gives an order to the broker and notes that.
func (d *driver) publishOrder(ctx context.Context, e *entry) error {
	s := d.session.Load()
	if s == nil {
		return errors.New("there is no connection to the broker; it is being made again")
	}
	p := mqttlink.Publication{Topic: e.Topic, Payload: e.Payload, QoS: 1, Properties: mqttlink.Properties{
		ContentType: "application/json", ResponseTopic: e.AckTopic, Correlation: []byte(e.ID)}}
	if !e.Expires.IsZero() {
		p.Properties.Expiry = time.Until(e.Expires)
	}
	if err := s.Publish(ctx, p); err != nil {
		return err
	}
	if d.config.WorkOrders.Ack == "none" {
		return d.orders.settle(e.ID, signal.AnswerAccepted, "")
	}
	return d.orders.published(e.ID, time.Now())
}

// entry makes what the journal keeps of an order; known says that an earlier revision was published.
func (d *driver) entry(o signal.WorkOrder, known bool) (*entry, error) {
	w := d.config.WorkOrders
	values := map[string]string{"order_no": o.OrderNo, "revision": fmt.Sprint(o.Revision), "work_center": o.WorkCenter, "item": o.Item, "plant": o.Plant}
	ackTemplate, err := parseTemplate(w.AckTopic)
	if err != nil {
		return nil, err
	}
	for _, name := range append(w.topic.names(), ackTemplate.names()...) {
		if v := values[name]; v == "" || strings.ContainsAny(v, "/+#\x00") {
			return nil, &signal.Refused{Reason: fmt.Sprintf("%s %q of order %q cannot stand in the topic %q: it is empty, or has one of / + #", name, v, o.OrderNo, w.Topic)}
		}
	}
	now := time.Now().Truncate(time.Millisecond)
	e := &entry{ID: messageID(o.OrderNo, o.Revision), OrderNo: o.OrderNo, Revision: o.Revision, Topic: w.topic.fill(values), AckTopic: ackTemplate.fill(values), At: now}
	if strings.ContainsAny(e.AckTopic, "+#") {
		e.AckTopic = "" // the receiver must know by itself where it answers
	}
	p := order{ID: e.ID, OrderNo: o.OrderNo, Revision: o.Revision, Action: "CREATE", WorkCenter: o.WorkCenter, Item: o.Item, Description: o.Description,
		Quantity: o.Quantity, Unit: o.Unit, Priority: o.Priority, Lot: o.Lot, PlannedStart: d.timeOf(o.PlannedStart), PlannedEnd: d.timeOf(o.PlannedEnd),
		SentAt: *d.timeOf(now), AckTopic: e.AckTopic}
	switch {
	case o.Cancelled:
		p.Action = "CANCEL"
	case known:
		p.Action = "CHANGE"
	}
	for _, x := range o.Operations {
		p.Operations = append(p.Operations, operation(x))
	}
	for _, x := range o.Components {
		p.Components = append(p.Components, component(x))
	}
	if w.Expiry > 0 {
		e.Expires = now.Add(w.Expiry)
		p.ExpiresAt = d.timeOf(e.Expires)
	}
	if e.Payload, err = json.Marshal(p); err != nil {
		return nil, &signal.Refused{Reason: fmt.Sprintf("order %q cannot be written as JSON: %v", o.OrderNo, err)}
	}
	return e, nil
}

func (d *driver) timeOf(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.In(zoneOf(d.env.Zone))
	return &t
}

func messageID(orderNo string, revision int64) string { return fmt.Sprintf("%s/%d", orderNo, revision) }
