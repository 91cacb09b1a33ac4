package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/wire"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// Trader is what the API needs of who writes business objects.
type Trader interface {
	// Submit stores what somebody wants; known: the same was wanted before. Errors wrap ErrInvalid and ErrConflict.
	Submit(ctx context.Context, w store.Write) (stored store.Write, known bool, err error)
	// Replay takes up a parked write; accept are codes of warnings that a person has seen.
	Replay(ctx context.Context, key factkey.Key, accept []string, by string) error
	// Settle ends a parked write by a person's decision.
	Settle(ctx context.Context, key factkey.Key, document, note, by string) error
	// WriteAgain makes a write due that nobody could tell about: a person vouches that the system does not have it.
	WriteAgain(ctx context.Context, key factkey.Key, note, by string) error
}

// ErrInvalid marks errors of a Trader that say that the write cannot be meant.
var ErrInvalid = errors.New("not valid")

func (s *server) writeRoutes(api huma.API) {
	huma.Register(api, huma.Operation{OperationID: "submit-write", Method: http.MethodPost, Path: "/v1/writes", MaxBodyBytes: 4 << 20, DefaultStatus: http.StatusAccepted,
		Summary: "Bring a business object into an outside system, or move one on, once: the answer comes when that is stored, GET /v1/writes/{key} says how far it is"}, s.submit)
	get(api, "list-writes", "/v1/writes", "Writes of business objects, newest first", s.listWrites)
	get(api, "get-write", "/v1/writes/{key}", "A write's whole life with times, and what was said with the outside system", s.getWrite)
	post(api, "replay-write", "/v1/writes/{key}/replay", "Take a parked write up again: what may have happened is looked up first", s.replayWrite)
	post(api, "settle-write", "/v1/writes/{key}/settle", "Settle a parked write: a person says which document has the effect, or that there shall be none", s.settleWrite)
	post(api, "write-again", "/v1/writes/{key}/write-again", "Write what nobody could tell about: a person vouches that the outside system does not have it", s.writeAgain)
}

// Write is a business object as somebody wants it to be, and how far that is.
type Write struct {
	Key         string    `json:"key" doc:"16 base32 characters; it stands with the object in the outside system where that keeps it"`
	ERP         string    `json:"erp"`
	Kind        string    `json:"kind"`
	State       string    `json:"state" enum:"due,sending,in_doubt,posted,verified,parked,settled" doc:"verified: read back and found equal, and still so unless code is write_missing or write_differs; parked: waits for a person"`
	Class       string    `json:"class,omitempty" doc:"Of a parked write: correctable, fatal, retryable, cannot_tell or mismatch; of one in doubt: gone, when it was verified and is written anew"`
	Code        string    `json:"code,omitempty"`
	Reason      string    `json:"reason,omitempty"`
	NextStep    string    `json:"next_step,omitempty"`
	Document    string    `json:"document,omitempty" doc:"The number of the object in the outside system"`
	DocumentKey string    `json:"document_key,omitempty" doc:"Its technical key there"`
	By          string    `json:"by" doc:"Whose token wanted it"`
	MadeAt      time.Time `json:"made_at"`
	Since       time.Time `json:"since" doc:"Of the present state"`
	Attempt     int       `json:"attempt" doc:"How often it was sent"`
	PostingDate string    `json:"posting_date,omitempty"`
	Accept      []string  `json:"accept,omitempty"`
	Object      Content   `json:"object"`
}

func writeView(w store.Write) Write {
	return Write{Key: w.Key.String(), ERP: w.ERP, Kind: string(w.Want.Kind), State: string(w.State), Class: w.Class, Code: w.Code, Reason: w.Reason, NextStep: w.NextStep,
		Document: w.Document, DocumentKey: w.DocumentID, By: w.By, MadeAt: w.MadeAt, Since: w.Since, Attempt: w.Attempt, PostingDate: w.PostingDate, Accept: w.Accept, Object: Content{w.Want}}
}

// WriteLife is a write with everything that happened to it.
type WriteLife struct {
	Write
	Life []LifeStep `json:"life" nullable:"false"`
	Said []Exchange `json:"said" nullable:"false" doc:"The last exchanges with the outside system, without secrets and cut to a size"`
}

const (
	leastKey, longestKey = 8, 200
)

// writeKey reads a key: 16 base32 characters are a key as facts have it, any other text is made one.
func writeKey(text string) (k factkey.Key, err error) {
	if raw, err := factkey.Parse(text); err == nil && len(text) == 16 {
		copy(k[:], raw)
		return k, nil
	}
	if len(text) < leastKey || len(text) > longestKey {
		return k, huma.Error422UnprocessableEntity(fmt.Sprintf("the key %q has %d characters; want %d to %d that nobody uses for another write, such as mes1/purchase/4711", text, len(text), leastKey, longestKey))
	}
	return factkey.Of(factkey.Position("write", text)), nil
}

type submitInput struct {
	IdempotencyKey string `header:"Idempotency-Key" doc:"Makes the write happen once, however often it is sent: minted by whoever first wants it, and kept. 16 base32 characters, or 8 to 200 others"`
	Body           struct {
		Key         string   `json:"key,omitempty" doc:"In place of the header"`
		ERP         string   `json:"erp,omitempty" doc:"May be absent where one system only is written to"`
		Object      Content  `json:"object" doc:"As it shall be, and as far as its state says. With a number or an erp_key it is that object, which is moved on; without lines its content is left alone. Without either the system makes a new one, or takes the one that it made of what the lines name"`
		PostingDate string   `json:"posting_date,omitempty" doc:"For the books; without it the system's own"`
		Accept      []string `json:"accept,omitempty" doc:"Codes of warnings that a person has seen and accepts"`
	}
}

type submitted struct {
	Status int
	Body   Write
}

func (s *server) submit(ctx context.Context, in *submitInput) (*submitted, error) {
	b := in.Body
	if b.Key != "" && in.IdempotencyKey != "" && b.Key != in.IdempotencyKey {
		return nil, huma.Error422UnprocessableEntity("the header Idempotency-Key and the body's key differ: give one of them")
	}
	text := cmp.Or(b.Key, in.IdempotencyKey)
	if text == "" {
		return nil, huma.Error422UnprocessableEntity("a key is needed, as the header Idempotency-Key or in the body: it makes the write happen once, however often it is sent")
	}
	key, err := writeKey(text)
	if err != nil {
		return nil, err
	}
	if s.o.Trader == nil {
		return nil, huma.Error422UnprocessableEntity("no configured system takes business objects")
	}
	w, known, err := s.o.Trader.Submit(ctx, store.Write{Key: key, ERP: b.ERP, Want: b.Object.Business, PostingDate: b.PostingDate, Accept: b.Accept, By: caller(ctx)})
	if errors.Is(err, ErrInvalid) {
		return nil, invalid(err)
	}
	if err != nil {
		return nil, refusal(err, "write "+key.String())
	}
	out := &submitted{Status: http.StatusAccepted, Body: writeView(w)}
	if known {
		out.Status = http.StatusOK
	}
	return out, nil
}

// invalid names the field that is wrong.
func invalid(err error) error {
	var f *wire.FieldError
	if !errors.As(err, &f) {
		return huma.Error422UnprocessableEntity(err.Error())
	}
	return huma.Error422UnprocessableEntity(f.Error(), &huma.ErrorDetail{Location: "body." + f.Field, Message: f.Problem})
}

type writesInput struct {
	PageInput
	ERP   string `query:"erp"`
	Kind  string `query:"kind" enum:"item,party,purchase_order,sales_order,shipment,invoice,cycle_count,inventory_movement"`
	State string `query:"state" enum:"due,sending,in_doubt,posted,verified,parked,settled"`
	By    string `query:"by" doc:"Only of this token"`
}

func (s *server) listWrites(ctx context.Context, in *writesInput) (*list[Write], error) {
	rows, err := s.store.Writes(ctx, store.WriteFilter{ERP: in.ERP, Kind: in.Kind, By: in.By, State: store.PostingState(in.State)}, in.page())
	if err != nil {
		return nil, fail(err, "the list of writes")
	}
	return paged(rows, in.Limit, func(w store.Write) int64 { return w.ID }, writeView), nil
}

// WriteInput names a write.
type WriteInput struct {
	Key string `path:"key" doc:"As it was given when the write was wanted, or as the write shows it"`
}

func (s *server) getWrite(ctx context.Context, in *WriteInput) (*struct{ Body WriteLife }, error) {
	key, err := writeKey(in.Key)
	if err != nil {
		return nil, err
	}
	v, err := s.writeLife(ctx, key)
	if err != nil {
		return nil, fail(err, fmt.Sprintf("write %q", in.Key))
	}
	return one(v), nil
}

func (s *server) writeLife(ctx context.Context, key factkey.Key) (WriteLife, error) {
	w, steps, said, err := s.store.WriteLife(ctx, key)
	if err != nil {
		return WriteLife{}, err
	}
	v := WriteLife{Write: writeView(w), Life: []LifeStep{}, Said: []Exchange{}}
	for _, x := range steps {
		v.Life = append(v.Life, LifeStep(x))
	}
	for _, x := range said {
		v.Said = append(v.Said, Exchange(x))
	}
	return v, nil
}

// decideWrite does what a person decided about a write.
func (s *server) decideWrite(text string, do func(Trader, factkey.Key) error) (*struct{ Body Done }, error) {
	key, err := writeKey(text)
	if err != nil {
		return nil, err
	}
	if s.o.Trader == nil {
		return nil, huma.Error409Conflict("no configured system takes business objects")
	}
	if err := do(s.o.Trader, key); err != nil {
		return nil, refusal(err, fmt.Sprintf("write %q", text))
	}
	return one(Done{Count: 1}), nil
}

type replayWriteInput struct {
	WriteInput
	Body struct {
		Accept []string `json:"accept,omitempty" doc:"Codes of warnings that a person has seen and accepts: the code of the rejection"`
	}
}

func (s *server) replayWrite(ctx context.Context, in *replayWriteInput) (*struct{ Body Done }, error) {
	return s.decideWrite(in.Key, func(t Trader, k factkey.Key) error { return t.Replay(ctx, k, in.Body.Accept, caller(ctx)) })
}

type settleWriteInput struct {
	WriteInput
	Body struct {
		Document string `json:"document,omitempty" doc:"The number of the document that has the effect; without one there shall be none"`
		Note     string `json:"note" minLength:"3" doc:"Why; it stays with the write"`
	}
}

func (s *server) settleWrite(ctx context.Context, in *settleWriteInput) (*struct{ Body Done }, error) {
	return s.decideWrite(in.Key, func(t Trader, k factkey.Key) error {
		return t.Settle(ctx, k, in.Body.Document, in.Body.Note, caller(ctx))
	})
}

type writeAgainInput struct {
	WriteInput
	Body struct {
		Note string `json:"note" minLength:"3" doc:"How it is known that the outside system does not have it"`
	}
}

func (s *server) writeAgain(ctx context.Context, in *writeAgainInput) (*struct{ Body Done }, error) {
	return s.decideWrite(in.Key, func(t Trader, k factkey.Key) error { return t.WriteAgain(ctx, k, in.Body.Note, caller(ctx)) })
}
