// Package webhook signs what the hub tells others over HTTP, and checks what others sign toward it.
//
// It owns the signatures: HMAC-SHA256 as Standard Webhooks puts it (webhook-id, webhook-timestamp, webhook-signature), and the two older
// manners, without a time, that outside systems have. It promises that a signature is compared in constant time and that one with a time
// is good for five minutes. It never sends anything and never reads a body.
package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The headers of a signature with a time, and the two without one: hex behind "sha256=", and base64 as Frappe and ERPNext have it.
const (
	HeaderID        = "Webhook-Id"
	HeaderTimestamp = "Webhook-Timestamp"
	HeaderSignature = "Webhook-Signature"
	headerHex       = "X-Hub-Signature-256"
	headerFrappe    = "X-Frappe-Webhook-Signature"
)

// Tolerance is how far the time of a signature may be from ours, in both directions.
const Tolerance = 5 * time.Minute

// Prefix of a secret that is base64 of the key, as Standard Webhooks writes it. Any other secret is the key as it stands.
const Prefix = "whsec_"

// Key is what a secret signs with. Its error says that a secret with Prefix is no base64.
func Key(secret string) ([]byte, error) {
	text, encoded := strings.CutPrefix(secret, Prefix)
	if !encoded {
		return []byte(secret), nil
	}
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(key) == 0 {
		return nil, errors.New("what stands behind whsec_ is not base64")
	}
	return key, nil
}

// Sign sets the headers of a message. The id stays the same when the message is sent again; the time does not.
func Sign(h http.Header, key []byte, id string, at time.Time, body []byte) {
	stamp := strconv.FormatInt(at.Unix(), 10)
	h.Set(HeaderID, id)
	h.Set(HeaderTimestamp, stamp)
	h.Set(HeaderSignature, "v1,"+base64.StdEncoding.EncodeToString(sum(key, id, ".", stamp, ".", string(body))))
}

// Signed reports whether there is a signature of a manner that Verify knows.
func Signed(h http.Header) bool {
	return h.Get(HeaderSignature) != "" || h.Get(headerHex) != "" || h.Get(headerFrappe) != ""
}

// Verify returns nil when the body was signed with the key, and what is wrong otherwise. Where there is a signature with a time, no
// other counts.
func Verify(h http.Header, key []byte, now time.Time, body []byte) error {
	if h.Get(HeaderSignature) != "" {
		return verifyTimed(h, key, now, body)
	}
	own := sum(key, string(body))
	if text, ok := strings.CutPrefix(h.Get(headerHex), "sha256="); ok {
		if theirs, err := hex.DecodeString(text); err == nil && hmac.Equal(theirs, own) {
			return nil
		}
	}
	if theirs, err := base64.StdEncoding.DecodeString(h.Get(headerFrappe)); err == nil && hmac.Equal(theirs, own) {
		return nil
	}
	return errors.New("the signature does not fit the body and the secret")
}

func verifyTimed(h http.Header, key []byte, now time.Time, body []byte) error {
	id, stamp := h.Get(HeaderID), h.Get(HeaderTimestamp)
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil || id == "" {
		return errors.New("webhook-id or webhook-timestamp is missing or not well formed")
	}
	own := sum(key, id, ".", stamp, ".", string(body))
	for text := range strings.FieldsSeq(h.Get(HeaderSignature)) {
		text, known := strings.CutPrefix(text, "v1,")
		theirs, err := base64.StdEncoding.DecodeString(text)
		if !known || err != nil || !hmac.Equal(theirs, own) {
			continue
		}
		if now.Sub(time.Unix(seconds, 0)).Abs() > Tolerance {
			return errors.New("the signature is older or newer than five minutes: set the clocks of both sides")
		}
		return nil
	}
	return errors.New("the signature does not fit the body and the secret")
}

func sum(key []byte, parts ...string) []byte {
	mac := hmac.New(sha256.New, key)
	for _, p := range parts {
		mac.Write([]byte(p))
	}
	return mac.Sum(nil)
}
