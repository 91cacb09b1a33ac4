package s4

import (
	"net/http"
	"time"
)

// Through lets a test answer a connector's requests without a network.
func Through(c *Connector, t http.RoundTripper) { c.client.http.Transport = t }

// Impatient lets a test say that its requests never take as long as Timeout would let them.
func Impatient(c Config, mayTake time.Duration) Config {
	c.mayTake = mayTake
	return c
}
