package notify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector/exchange"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/webhook"
)

// hook is a receiver of CloudEvents over HTTP.
type hook struct {
	url  string
	key  []byte
	http *http.Client
}

const mostAnswer = 300 // bytes of what a receiver says are kept

func (h *hook) send(ctx context.Context, m store.Message) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url, strings.NewReader(m.Body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/cloudevents+json; charset=utf-8")
	req.Header.Set("User-Agent", "Linekeeper")
	webhook.Sign(req.Header, h.key, m.MessageID, time.Now(), []byte(m.Body))
	res, err := h.http.Do(req)
	if err != nil {
		return "", refuse(false, "look whether the receiver runs and can be reached from the hub; it is tried again by itself", "%w", withoutURL(err))
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(res.Body, mostAnswer))
	answer := strings.TrimSpace(res.Status + " " + oneLine(string(text)))
	switch code := res.StatusCode; {
	case code >= 200 && code < 300:
		return answer, nil
	case code == http.StatusTooManyRequests || code >= 500:
		r := &refusal{err: fmt.Errorf("the receiver said %s", answer), next: "look at the receiver; it is tried again by itself", after: exchange.RetryAfter(res.Header)}
		return answer, r
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return answer, refuse(true, "compare the secret, and the clocks, of both sides", "the receiver said %s", answer)
	case code >= 300 && code < 400:
		return answer, refuse(true, "write the address that it leads to into notify.receivers", "the receiver said %s: a message is not taken elsewhere", answer)
	default:
		return answer, refuse(true, "compare the address in notify.receivers with what the receiver expects", "the receiver said %s", answer)
	}
}

// withoutURL is an error of the client without the address, which may hold a key.
func withoutURL(err error) error {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		return u.Err
	}
	return err
}

// oneLine makes text fit for a log, a subject and a table.
func oneLine(text string) string {
	return strings.Join(strings.FieldsFunc(strings.ToValidUTF8(text, "\uFFFD"), func(r rune) bool { return r < ' ' || r == 0x7f }), " ")
}
