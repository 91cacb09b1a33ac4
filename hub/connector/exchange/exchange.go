// Package exchange makes one HTTP exchange with an outside system, for connectors that speak HTTP.
//
// It promises to tell the two failures apart on which posting exactly once rests: that nothing was sent, and that something may
// have taken effect; and to record, where the context asks for it, what was sent and answered, without secrets. It never tries
// again and never judges an answer.
package exchange

import (
	"io"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"sync/atomic"
	"time"
)

// maxAnswer bounds an answer, in bytes; what is longer is cut off and so is not the system's own.
const maxAnswer = 64 << 20

// Do sends req and reads the whole answer; the response's body is closed. An error as it came says that nothing was sent, one made
// by lost that the request may have arrived. From the moment there is a connection a request counts as sent.
func Do(client *http.Client, req *http.Request, lost func(cause error) error) (*http.Response, []byte, error) {
	var connected atomic.Bool
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }}
	resp, err := client.Do(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
	if err != nil && !connected.Load() {
		return nil, nil, err
	}
	if err != nil {
		noteHTTP(req, nil, nil, err)
		return nil, nil, lost(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	noteHTTP(req, resp, body, err)
	if err != nil {
		return nil, nil, lost(err)
	}
	return resp, body, nil
}

// RetryAfter reads the header of that name: seconds or a date (RFC 9110, 10.2.3), a day at most; zero when it is neither.
func RetryAfter(h http.Header) time.Duration {
	text := h.Get("Retry-After")
	if s, err := strconv.Atoi(text); err == nil && s > 0 {
		return time.Duration(min(s, 86_400)) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(time.Until(at), 0), 24*time.Hour)
	}
	return 0
}
