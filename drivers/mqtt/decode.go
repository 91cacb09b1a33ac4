package mqtt

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/mqttlink"
	"github.com/linekeeper/linekeeper/drivers/payload"
)

// decode makes a signal of a message. t is nil when no subscription of the configuration covers the topic.
func decode(m *mqttlink.Message, t *Topic) signal.Signal {
	s := signal.Signal{Topic: m.Topic, Payload: m.Payload, ReceivedTime: m.Received}
	if m.Retained {
		s.Status = "retained"
	}
	if t == nil {
		s.Tag = m.Topic
		s.Problem = &signal.Problem{Code: "unexpected_topic", Item: m.Topic,
			Reason:   "the broker delivered a message of a topic that the configuration does not name",
			NextStep: "add the topic to the source, or discard the entry when the topic was removed on purpose"}
		return s
	}
	s.Tag = t.Tag
	if len(m.Payload) > t.MaxSize {
		s.Payload = bytes.Clone(m.Payload[:t.MaxSize]) // lets go of the rest
		s.Problem = &signal.Problem{Code: "too_large", Item: m.Topic,
			Reason:   fmt.Sprintf("the message has %d bytes, more than max_size %d; only the beginning is kept", len(m.Payload), t.MaxSize),
			NextStep: fmt.Sprintf("raise max_size of topic rule %q, or make the sender write smaller messages", t.Tag)}
		return s
	}
	switch t.Format {
	case "bytes":
		s.Value = m.Payload
	case "text":
		s.Value, s.Problem = decodeText(m)
	default:
		s.Value, s.Problem = decodeJSON(m)
	}
	return s
}

func decodeText(m *mqttlink.Message) (any, *signal.Problem) {
	if !utf8.Valid(m.Payload) {
		return nil, &signal.Problem{Code: "bad_text", Item: m.Topic, Reason: "the message is not valid UTF-8 text",
			NextStep: "make the sender write UTF-8, or set format: bytes"}
	}
	return string(m.Payload), nil
}

func decodeJSON(m *mqttlink.Message) (any, *signal.Problem) {
	v, err := payload.JSON(m.Payload)
	if err != nil {
		return nil, &signal.Problem{Code: "bad_json", Item: m.Topic, Reason: err.Error(),
			NextStep: "correct the sender, then replay or discard the entry; or set format: text or bytes for this topic"}
	}
	return v, nil
}
