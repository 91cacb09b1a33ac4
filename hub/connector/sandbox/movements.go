package sandbox

import (
	"context"
	"net/url"

	"github.com/linekeeper/linekeeper/hub/connector"
)

var _ connector.MovementPoster = (*Connector)(nil)

// PostMovements implements connector.MovementPoster: the ERP keeps the movements that failed with their document, and books each once.
func (c *Connector) PostMovements(ctx context.Context, _ connector.Posting, doc connector.Document) (connector.Outcome, error) {
	a, err := c.client.call(ctx, "POST", "/api/documents/"+url.PathEscape(doc.Number)+"/movements", map[string]any{})
	out := c.outcome(a, err)
	out.Document = connector.Document{} // no document of its own is made
	return out, nil
}
