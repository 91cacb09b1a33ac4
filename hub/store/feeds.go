package store

import (
	"context"
	"fmt"
)

// recentFacts is how far back in a plant's facts is looked for what a source does.
const recentFacts = 5000

// SourceWorkCenters returns the work centres of the orders that a source of an agent has counted for or sent facts of, as far as
// the ledger and the plant's latest facts tell. An empty text among them is an order without one, or one that the hub does not
// know; no row at all means that nothing is known of the source.
func (s *Store) SourceWorkCenters(ctx context.Context, a Agent, source string) ([]string, error) {
	centers, err := collect(ctx, s, scanValue[string], `
		SELECT DISTINCT COALESCE((SELECT MAX(w.work_center) FROM work_orders w WHERE w.order_no = o.order_no), '') FROM (
			SELECT order_no FROM ledger WHERE agent_id = $1 AND source = $2 AND order_no <> ''
			UNION
			SELECT order_no FROM (SELECT agent_id, source, order_no FROM fact_index WHERE plant = $3 ORDER BY fact_id DESC LIMIT $4) AS latest
			WHERE agent_id = $1 AND source = $2 AND order_no <> ''
		) AS o ORDER BY 1`, a.ID, source, a.Plant, recentFacts)
	if err != nil {
		return nil, fmt.Errorf("find the work centres of source %q of agent %q: %w", source, a.Name(), err)
	}
	return centers, nil
}
