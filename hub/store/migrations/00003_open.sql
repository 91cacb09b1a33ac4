-- +goose Up
-- What is open among much that is settled: it is looked for each few seconds.
CREATE INDEX exceptions_open ON exceptions (id) WHERE closed_at = 0;
CREATE INDEX work_orders_unroutable ON work_orders (id) WHERE unroutable <> '';
