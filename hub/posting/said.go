package posting

import (
	"github.com/linekeeper/linekeeper/hub/store"
)

// purposes are what an exchange was for, by the step that came of it.
var purposes = map[string]string{
	"posted": "post", "rejected": "post", "retry": "post", "in_doubt": "post", "absent": "look up", "not found yet": "look up", "cannot tell": "look up", "differs": "read back",
}

// keepSaid keeps what was said with the outside system, as evidence, with the step that came of it. What only confirms what is
// known, or failed before anything was sent, is not kept.
func keepSaid(tx *store.Tx, c *call, step string) error {
	purpose := purposes[step]
	if c.said == nil || purpose == "" {
		return nil
	}
	if c.looksUp && purpose == "post" {
		purpose = "look up"
	}
	records := c.said.Records()
	if len(records) == 0 {
		return nil
	}
	all := make([]store.Exchange, len(records))
	for i, r := range records {
		all[i] = store.Exchange{At: r.At, Method: r.Method, Address: r.Address, Request: r.Request, Status: r.Status, Answer: r.Answer, Cut: r.Cut}
	}
	return tx.PutExchanges(c.p.FactID, purpose, all)
}
