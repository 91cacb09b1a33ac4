package posting

import (
	"github.com/linekeeper/linekeeper/hub/connector/exchange"
	"github.com/linekeeper/linekeeper/hub/store"
)

// purposes are what an exchange was for, by the step that came of it.
var purposes = map[string]string{
	"posted": "post", "rejected": "post", "retry": "post", "in_doubt": "post", "absent": "look up", "not found yet": "look up", "cannot tell": "look up", "differs": "read back",
}

// saidAt is what was said with the outside system, as evidence, at the step that came of it. What only confirms what is known, or
// failed before anything was sent, is nothing. Secrets are removed here: no transaction waits for that.
func (c *call) saidAt(step string) (purpose string, all []store.Exchange) {
	purpose = purposes[step]
	if c.said == nil || purpose == "" {
		return "", nil
	}
	if c.looksUp && purpose == "post" {
		purpose = "look up"
	}
	return purpose, Exchanges(c.said)
}

// Exchanges are what was recorded, as it is stored, without secrets.
func Exchanges(said *exchange.Recorder) (all []store.Exchange) {
	for _, r := range said.Records() {
		all = append(all, store.Exchange{At: r.At, Method: r.Method, Address: r.Address, Request: r.Request, Status: r.Status, Answer: r.Answer, Cut: r.Cut})
	}
	return all
}
