package mqtt

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/mqttlink"
	"github.com/linekeeper/linekeeper/drivers/payload"
)

// answer is what a receiver said of an order.
type answer struct {
	id             string // of the journal's entry; empty when it names none that waits
	status, reason string
}

// answer reads an answer to a work order and completes its signal.
func (d *driver) answer(s *signal.Signal, m *mqttlink.Message) answer {
	row, _ := s.Value.(map[string]any)
	id := text(row["id"])
	if id == "" && m.Properties != nil {
		id = string(m.Properties.Correlation)
	}
	orderNo, revision := text(row["order_no"]), text(row["revision"])
	if cut := strings.LastIndexByte(id, '/'); cut > 0 {
		if orderNo == "" {
			orderNo = id[:cut]
		}
		if revision == "" && orderNo == id[:cut] {
			revision = id[cut+1:]
		}
	}
	status := text(row["status"])
	if row == nil || orderNo == "" || status == "" {
		s.Value = nil
		s.Problem = &signal.Problem{Code: "bad_answer", Item: m.Topic, Reason: "the answer to a work order names no order, or no status",
			NextStep: `make the receiver answer with {"id": "<the order's id>", "status": "accepted"}`}
		return answer{}
	}
	number, err := strconv.ParseInt(revision, 10, 64)
	if err != nil || number < 0 {
		number = 0
	}
	a := answer{id: messageID(orderNo, number), status: d.config.WorkOrders.word(status), reason: text(row["reason"])}
	if number == 0 {
		a.id = d.orders.newest(orderNo)
		if e := d.orders.find(a.id); e != nil {
			number = e.Revision
		}
	}
	row["order_no"], row["revision"], row["status"] = orderNo, signal.Number(fmt.Sprint(number)), a.status
	row["reason"] = a.reason
	s.Position = position(s, row, orderNo, number, a.status, d.env.Zone)
	return a
}

// position tells repeated answers from new ones, where the receiver says enough; and completes the time of the answer.
func position(s *signal.Signal, row map[string]any, orderNo string, revision int64, status string, zone *time.Location) string {
	at, ok := payload.Time(text(row["changed_at"]), zone)
	row["changed_at"] = nil
	if ok {
		row["changed_at"], s.SourceTime = at, at
	}
	switch own := text(row["answer_id"]); {
	case own != "":
		return own
	case ok:
		return fmt.Sprintf("%s/%d/%s/%s", orderNo, revision, status, at.UTC().Format(time.RFC3339Nano))
	}
	return ""
}

func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case signal.Number:
		return v.String()
	}
	return ""
}

// note makes durable how orders were answered.
func (d *driver) note(answers []answer) error {
	for _, a := range answers {
		outcome, reason := signal.AnswerAccepted, ""
		switch a.status {
		case signal.AnswerRejected:
			outcome, reason = signal.AnswerRejected, a.reason
			if reason == "" {
				reason = "its receiver rejected it and gave no reason"
			}
		case signal.AnswerAccepted, signal.AnswerStarted, signal.AnswerHeld, signal.AnswerFinished, signal.AnswerCancelled:
		default:
			continue // a word that only the rules know
		}
		if a.id == "" {
			continue
		}
		d.warnLate(a, outcome)
		if err := d.orders.settle(a.id, outcome, reason); err != nil {
			return err
		}
	}
	return nil
}

// warnLate shows that a receiver took an order that was given up.
func (d *driver) warnLate(a answer, outcome string) {
	e := d.orders.find(a.id)
	if e == nil || e.Outcome != expired || outcome != signal.AnswerAccepted {
		return
	}
	d.env.Reporter.Problem("late:"+a.id, &signal.Problem{Code: "order_taken_late", Item: a.id,
		Reason:   fmt.Sprintf("the receiver says %q of an order that had expired at %s and was refused", a.status, e.Expires.Format(time.RFC3339)),
		NextStep: "stop the order at the machine or send it again; let the receiver heed expires_at of each order"})
}
