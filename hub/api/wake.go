package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/linekeeper/linekeeper/hub/webhook"
)

// An outside system that says "something has changed" is asked at once instead of at the next turn. What it says is never read as
// data: orders come from the question alone.

const (
	wakeBody  = 64 << 10 // bytes of an event at most
	wakeRate  = 50       // events a second and system that are answered, over some time
	wakeBurst = 200
)

func (s *server) wakeRoute(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "wake-erp", Method: "POST", Path: "/v1/erps/{erp}/wake", DefaultStatus: http.StatusAccepted, MaxBodyBytes: wakeBody,
		Summary: "Ask an outside system for changed work orders at once: it says that something has changed. A body, such as a CloudEvent, is taken and not read but for its type; " +
			"many calls are one question. A token with wake, or a signature (webhook-signature, X-Hub-Signature-256, X-Frappe-Webhook-Signature), is enough",
	}, s.wake)
}

// WakeInput is an event that is not believed.
type WakeInput struct {
	ERP  string `path:"erp" doc:"Name of the outside system in the hub's configuration"`
	Type string `header:"ce-type" doc:"Type of a CloudEvent in binary mode; it is logged"`
}

// Resolve finds the type of an event in structured mode. Whatever else there is in the body is no fault.
func (in *WakeInput) Resolve(ctx huma.Context) []error {
	body, err := io.ReadAll(io.LimitReader(ctx.BodyReader(), wakeBody))
	var event struct{ Type string }
	if err == nil && in.Type == "" && json.Unmarshal(body, &event) == nil {
		in.Type = event.Type
	}
	in.Type = strings.ToValidUTF8(in.Type[:min(len(in.Type), 100)], "")
	return nil
}

// Woken says that the system is asked.
type Woken struct {
	ERP string `json:"erp"`
}

func (s *server) wake(ctx context.Context, in *WakeInput) (*struct{ Body Woken }, error) {
	if s.o.Wake == nil || !slices.Contains(s.o.ERPs, in.ERP) {
		return nil, huma.Error404NotFound(fmt.Sprintf("ERP %q is not configured: use a name of erps in the hub's configuration", in.ERP))
	}
	if pause := s.wakes.take(in.ERP, time.Now()); pause > 0 {
		return nil, huma.ErrorWithHeaders(huma.Error429TooManyRequests(fmt.Sprintf("ERP %q was woken too often: it is asked all the same, one call a second is plenty", in.ERP)),
			http.Header{"Retry-After": {strconv.Itoa(int(pause/time.Second) + 1)}})
	}
	s.o.Wake(in.ERP)
	s.o.Logger.Debug("an outside system says that something has changed", "erp", in.ERP, "event", in.Type, "by", caller(ctx))
	return one(Woken{in.ERP}), nil
}

// wakeTarget is the system that a request wants to wake.
func wakeTarget(r *http.Request) (erp string, ok bool) {
	erp, ok = strings.CutPrefix(r.URL.Path, "/v1/erps/")
	if ok {
		erp, ok = strings.CutSuffix(erp, "/wake")
	}
	return erp, ok && erp != "" && !strings.Contains(erp, "/")
}

// handshake answers those who ask before they send events whether they may (CloudEvents' web hook). It gives no right: each event
// needs its token or signature.
func handshake(w http.ResponseWriter, r *http.Request) bool {
	origin := r.Header.Get("WebHook-Request-Origin")
	if _, ok := wakeTarget(r); !ok || r.Method != http.MethodOptions || origin == "" {
		return false
	}
	w.Header().Set("Allow", "POST")
	w.Header().Set("WebHook-Allowed-Origin", origin)
	w.Header().Set("WebHook-Allowed-Rate", strconv.Itoa(wakeRate*60))
	w.WriteHeader(http.StatusOK)
	return true
}

// signed lets in a system that can only sign. tried is false when the request is not of that kind.
func (s *server) signed(w http.ResponseWriter, r *http.Request) (name, problem string, tried bool) {
	erp, ok := wakeTarget(r)
	if !ok || r.Method != http.MethodPost || r.Header.Get("Authorization") != "" || !webhook.Signed(r.Header) {
		return "", "", false
	}
	key := s.o.WakeKeys[erp]
	if len(key) == 0 {
		return "", fmt.Sprintf("no secret is known for signatures of ERP %q: name it in api.wake_secrets", erp), true
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, wakeBody))
	if err != nil {
		return "", "the body cannot be read, or is longer than 64 KiB", true
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	if err := webhook.Verify(r.Header, key, s.o.Now(), body); err != nil {
		return "", err.Error(), true
	}
	return "signature of ERP " + erp, "", true
}

// buckets bound how often each system is answered.
type buckets struct {
	mu  sync.Mutex
	all map[string]*bucket
}

type bucket struct {
	left float64
	at   time.Time
}

// take returns zero when there is one left, and how long until then otherwise.
func (b *buckets) take(erp string, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	x := b.all[erp]
	if x == nil {
		if b.all == nil {
			b.all = map[string]*bucket{}
		}
		x = &bucket{left: wakeBurst, at: now}
		b.all[erp] = x
	}
	x.left = min(wakeBurst, x.left+max(now.Sub(x.at).Seconds(), 0)*wakeRate)
	x.at = now
	if x.left < 1 {
		return time.Duration((1 - x.left) / wakeRate * float64(time.Second))
	}
	x.left--
	return 0
}
