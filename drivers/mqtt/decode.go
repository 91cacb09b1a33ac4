package mqtt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// decode makes a signal of a message. t is nil when no subscription of the configuration covers the topic.
func decode(m *message, t *Topic) signal.Signal {
	s := signal.Signal{Topic: m.topic, Payload: m.payload, ReceivedTime: m.received}
	if m.retained {
		s.Status = "retained"
	}
	if t == nil {
		s.Tag = m.topic
		s.Problem = &signal.Problem{Code: "unexpected_topic", Item: m.topic,
			Reason:   "the broker delivered a message of a topic that the configuration does not name",
			NextStep: "add the topic to the source, or discard the entry when the topic was removed on purpose"}
		return s
	}
	s.Tag = t.Tag
	if len(m.payload) > t.MaxSize {
		s.Payload = bytes.Clone(m.payload[:t.MaxSize]) // lets go of the rest
		s.Problem = &signal.Problem{Code: "too_large", Item: m.topic,
			Reason:   fmt.Sprintf("the message has %d bytes, more than max_size %d; only the beginning is kept", len(m.payload), t.MaxSize),
			NextStep: fmt.Sprintf("raise max_size of topic rule %q, or make the sender write smaller messages", t.Tag)}
		return s
	}
	switch t.Format {
	case "bytes":
		s.Value = m.payload
	case "text":
		s.Value, s.Problem = decodeText(m)
	default:
		s.Value, s.Problem = decodeJSON(m)
	}
	return s
}

func decodeText(m *message) (any, *signal.Problem) {
	if !utf8.Valid(m.payload) {
		return nil, &signal.Problem{Code: "bad_text", Item: m.topic, Reason: "the message is not valid UTF-8 text",
			NextStep: "make the sender write UTF-8, or set format: bytes"}
	}
	return string(m.payload), nil
}

func decodeJSON(m *message) (any, *signal.Problem) {
	if v, ok := parseJSON(m.payload); ok {
		return v, nil
	}
	dec := json.NewDecoder(bytes.NewReader(m.payload))
	dec.UseNumber()
	var v any
	err := dec.Decode(&v)
	at := dec.InputOffset()
	if err == nil {
		if _, end := dec.Token(); end == io.EOF {
			return v, nil
		}
		err = errors.New("more text follows after the end of the value")
	}
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		at = syntax.Offset
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		err, at = errors.New("the message ends too early"), int64(len(m.payload))
	}
	return nil, &signal.Problem{Code: "bad_json", Item: m.topic,
		Reason:   fmt.Sprintf("not valid JSON at byte %d: %s", at, strings.TrimPrefix(err.Error(), "json: ")),
		NextStep: "correct the sender, then replay or discard the entry; or set format: text or bytes for this topic"}
}
