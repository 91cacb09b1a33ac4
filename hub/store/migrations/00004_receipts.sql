-- +goose Up
-- A receipt is made in the transaction of a step of its fact's life, and found by that time. An index over the keys of facts,
-- which come in no order, would change a page of its own for each receipt.
DROP INDEX deliveries_ref;
CREATE INDEX deliveries_made ON deliveries (agent_id, created_at);
