package mqtt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/mqttlink"
	"github.com/linekeeper/linekeeper/drivers/payload"
)

// decode appends the signals of a message: one, or one for each record of a CSV text. t is nil when no subscription of the
// configuration covers the topic.
func decode(out []signal.Signal, m *mqttlink.Message, t *Topic) []signal.Signal {
	s := signal.Signal{Topic: m.Topic, Payload: m.Payload, ReceivedTime: m.Received}
	if m.Retained {
		s.Status = "retained"
	}
	if t == nil {
		s.Tag = m.Topic
		s.Problem = &signal.Problem{Code: "unexpected_topic", Item: m.Topic,
			Reason:   "the broker delivered a message of a topic that the configuration does not name",
			NextStep: "add the topic to the source, or discard the entry when the topic was removed on purpose"}
		return append(out, s)
	}
	s.Tag, s.Labels = t.Tag, t.pattern.labels(m.Topic)
	if len(m.Payload) > t.MaxSize {
		s.Payload = bytes.Clone(m.Payload[:t.MaxSize]) // lets go of the rest
		s.Problem = &signal.Problem{Code: "too_large", Item: m.Topic,
			Reason:   fmt.Sprintf("the message has %d bytes, more than max_size %d; only the beginning is kept", len(m.Payload), t.MaxSize),
			NextStep: fmt.Sprintf("raise max_size of topic rule %q, or make the sender write smaller messages", t.Tag)}
		return append(out, s)
	}
	switch t.Format {
	case "csv":
		return decodeCSV(out, s, m, t)
	case "bytes":
		s.Value = m.Payload
	case "text":
		s.Value, s.Problem = decodeText(m)
	case "number":
		s.Value, s.Problem = decodeNumber(m, t.Number)
	default:
		s.Value, s.Problem = decodeJSON(m)
	}
	t.wrap(&s, m)
	return append(out, s)
}

// wrap puts the properties beside the value, where the configuration wants them.
func (t *Topic) wrap(s *signal.Signal, m *mqttlink.Message) {
	if t.Properties && s.Problem == nil {
		s.Value = map[string]any{"payload": s.Value, "properties": properties(m.Properties)}
	}
}

func properties(p *mqttlink.Properties) map[string]any {
	out := map[string]any{}
	if p == nil {
		return out
	}
	if p.ContentType != "" {
		out["content_type"] = p.ContentType
	}
	if p.ResponseTopic != "" {
		out["response_topic"] = p.ResponseTopic
	}
	if p.Correlation != nil {
		out["correlation"] = p.Correlation
		if utf8.Valid(p.Correlation) {
			out["correlation"] = string(p.Correlation)
		}
	}
	if p.Expiry > 0 {
		out["expiry_s"] = signal.Number(fmt.Sprint(int64(p.Expiry.Seconds())))
	}
	user := map[string]any{}
	for _, u := range p.User {
		switch before := user[u.Name].(type) {
		case nil:
			user[u.Name] = u.Value
		case string:
			user[u.Name] = []any{before, u.Value}
		case []any:
			user[u.Name] = append(before, u.Value)
		}
	}
	if len(user) > 0 {
		out["user"] = user
	}
	return out
}

// decodeCSV makes a signal of each record, so that a bad one leaves its neighbours alone.
func decodeCSV(out []signal.Signal, s signal.Signal, m *mqttlink.Message, t *Topic) []signal.Signal {
	records := payload.CSV(bytes.NewReader(m.Payload), t.CSV)
	before := len(out)
	for {
		r, err := records.Next()
		one := s
		var fault *payload.Fault
		switch {
		case errors.Is(err, io.EOF) && len(out) > before:
			return out
		case errors.Is(err, io.EOF):
			one.Problem = &signal.Problem{Code: "bad_csv", Item: m.Topic, Reason: "the message holds no record",
				NextStep: "make the sender write at least one line beside the header; or set csv: {header: false} with columns"}
		case errors.As(err, &fault):
			one.Problem = &fault.Problem
		case err != nil:
			one.Problem = &signal.Problem{Code: "bad_csv", Item: m.Topic, Reason: err.Error(), NextStep: "correct the sender"}
		default:
			one.Payload, one.Value, one.Problem = r.Raw, r.Value, r.Problem
		}
		if one.Problem == nil {
			t.wrap(&one, m)
		}
		out = append(out, one)
		if err != nil {
			return out
		}
	}
}

func decodeText(m *mqttlink.Message) (any, *signal.Problem) {
	if !utf8.Valid(m.Payload) {
		return nil, &signal.Problem{Code: "bad_text", Item: m.Topic, Reason: "the message is not valid UTF-8 text",
			NextStep: "make the sender write UTF-8, or set format: bytes"}
	}
	return string(m.Payload), nil
}

func decodeNumber(m *mqttlink.Message, l payload.Locale) (any, *signal.Problem) {
	v, err := payload.Column{Name: "value", Type: "number", Required: true}.Value(strings.ToValidUTF8(string(m.Payload), "?"), l)
	if err != nil {
		return nil, &signal.Problem{Code: "bad_number", Item: m.Topic, Reason: "the message " + err.Error(),
			NextStep: "correct the sender, or number: {decimal, thousands} of this topic, or set format: text"}
	}
	return v, nil
}

func decodeJSON(m *mqttlink.Message) (any, *signal.Problem) {
	v, err := payload.JSON(m.Payload)
	if err != nil {
		return nil, &signal.Problem{Code: "bad_json", Item: m.Topic, Reason: err.Error(),
			NextStep: "correct the sender, then replay or discard the entry; or set format: text or bytes for this topic"}
	}
	return v, nil
}
