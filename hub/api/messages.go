package api

import (
	"context"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/linekeeper/linekeeper/hub/store"
)

func (s *server) messageRoutes(api huma.API) {
	get(api, "list-messages", "/v1/messages", "What receivers were told of exceptions, newest first: whether it arrived, what they said, and why not", s.listMessages)
}

// Message is something said to a receiver of the configuration.
type Message struct {
	ID        int64      `json:"id"`
	MessageID string     `json:"message_id" doc:"By which the receiver knows a message that comes again"`
	Receiver  string     `json:"receiver"`
	Title     string     `json:"title"`
	Count     int        `json:"count" doc:"How many exceptions it tells of"`
	MadeAt    time.Time  `json:"made_at"`
	State     string     `json:"state" enum:"due,delivered,dropped"`
	Tries     int        `json:"tries"`
	NextAt    *time.Time `json:"next_at,omitempty" doc:"When it is tried again"`
	EndedAt   *time.Time `json:"ended_at,omitempty"`
	Reason    string     `json:"reason,omitempty" doc:"Why it did not arrive"`
	Answer    string     `json:"answer,omitempty" doc:"What the receiver said last"`
}

type messagesInput struct {
	PageInput
	Receiver string `query:"receiver"`
	State    string `query:"state" enum:"due,delivered,dropped"`
}

func (s *server) listMessages(ctx context.Context, in *messagesInput) (*list[Message], error) {
	rows, err := s.store.Messages(ctx, store.MessageFilter{Receiver: in.Receiver, State: in.State}, in.page())
	if err != nil {
		return nil, fail(err, "the list of messages")
	}
	return paged(rows, in.Limit, func(m store.Message) int64 { return m.ID }, func(m store.Message) Message {
		v := Message{ID: m.ID, MessageID: m.MessageID, Receiver: m.Receiver, Title: m.Subject, Count: m.Entries, MadeAt: m.MadeAt, State: string(m.State), Tries: m.Tries,
			EndedAt: when(m.EndedAt), Reason: m.Reason, Answer: m.Answer}
		if m.State == store.MessageDue {
			v.NextAt = when(m.NextAt)
		}
		return v
	}), nil
}
