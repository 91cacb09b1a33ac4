package webhook_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/webhook"
)

var (
	at   = time.Unix(1_790_000_000, 0)
	body = []byte(`{"a":1}`)
)

func mac(secret, text string) []byte {
	m := hmac.New(sha256.New, []byte(secret))
	m.Write([]byte(text))
	return m.Sum(nil)
}

func TestSignatureIsThatOfStandardWebhooks(t *testing.T) {
	h := http.Header{}
	webhook.Sign(h, []byte("secret"), "m1", at, body)
	want := "v1," + base64.StdEncoding.EncodeToString(mac("secret", `m1.1790000000.{"a":1}`))
	if h.Get("webhook-id") != "m1" || h.Get("webhook-timestamp") != "1790000000" || h.Get("webhook-signature") != want {
		t.Errorf("%v, want %s", h, want)
	}
}

func TestSignatureCountsOnlyForItsBodySecretAndTime(t *testing.T) {
	signed := func() http.Header {
		h := http.Header{}
		webhook.Sign(h, []byte("secret"), "m1", at, body)
		return h
	}
	header := func(name, value string) http.Header {
		h := http.Header{}
		h.Set(name, value)
		return h
	}
	changed := func(name, value string) http.Header {
		h := signed()
		h.Set(name, value)
		return h
	}
	theirs := signed().Get("webhook-signature")
	for name, x := range map[string]struct {
		h    http.Header
		now  time.Time
		body string
		want string // part of the error, empty for none
	}{
		"good":                   {signed(), at.Add(4 * time.Minute), string(body), ""},
		"one of several":         {changed("webhook-signature", "v1,AAAA v2,xx "+theirs), at, string(body), ""},
		"old":                    {signed(), at.Add(6 * time.Minute), string(body), "clocks"},
		"from the future":        {signed(), at.Add(-6 * time.Minute), string(body), "clocks"},
		"another body":           {signed(), at, `{"a":2}`, "does not fit"},
		"another id":             {changed("webhook-id", "m2"), at, string(body), "does not fit"},
		"another time":           {changed("webhook-timestamp", "1790000001"), at, string(body), "does not fit"},
		"no time":                {changed("webhook-timestamp", ""), at, string(body), "webhook-timestamp"},
		"no id":                  {changed("webhook-id", ""), at, string(body), "webhook-id"},
		"no base64":              {changed("webhook-signature", "v1,*"), at, string(body), "does not fit"},
		"another version":        {changed("webhook-signature", strings.Replace(theirs, "v1", "v2", 1)), at, string(body), "does not fit"},
		"hex":                    {header("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac("secret", string(body)))), at, string(body), ""},
		"hex of another secret":  {header("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac("other", string(body)))), at, string(body), "does not fit"},
		"base64":                 {header("X-Frappe-Webhook-Signature", base64.StdEncoding.EncodeToString(mac("secret", string(body)))), at, string(body), ""},
		"base64 of another body": {header("X-Frappe-Webhook-Signature", base64.StdEncoding.EncodeToString(mac("secret", "x"))), at, string(body), "does not fit"},
		"nothing":                {http.Header{}, at, string(body), "does not fit"},
		"an older one beside a bad": {func() http.Header {
			h := changed("webhook-signature", "v1,AAAA")
			h.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac("secret", string(body))))
			return h
		}(), at, string(body), "does not fit"},
	} {
		t.Run(name, func(t *testing.T) {
			err := webhook.Verify(x.h, []byte("secret"), x.now, []byte(x.body))
			if x.want == "" && err != nil || x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want)) {
				t.Errorf("%v, want %q", err, x.want)
			}
		})
	}
}

func TestSecretIsTheKeyOrBase64OfIt(t *testing.T) {
	for secret, want := range map[string]string{"secret": "secret", "whsec_c2VjcmV0": "secret"} {
		if key, err := webhook.Key(secret); err != nil || string(key) != want {
			t.Errorf("%s: %q %v", secret, key, err)
		}
	}
	for _, secret := range []string{"whsec_*", "whsec_"} {
		if _, err := webhook.Key(secret); err == nil {
			t.Errorf("%s was taken", secret)
		}
	}
}
