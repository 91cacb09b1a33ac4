-- +goose Up
-- The two values of a counter that went back, as JSON; empty where an exception is about something else.
ALTER TABLE exceptions ADD COLUMN step TEXT NOT NULL DEFAULT '';
CREATE INDEX exceptions_steps ON exceptions (id) WHERE closed_at = 0 AND step <> '';

-- Records of an agent that never came, or that a restored hub has no more. after_fact is the last fact that the hub held then. What
-- became a discrepancy has its number; closed_at says that the records have come after all.
CREATE TABLE gaps (
  id             INTEGER PRIMARY KEY,
  agent_id       BIGINT NOT NULL,
  generation     TEXT NOT NULL,
  first_seq      BIGINT NOT NULL,
  last_seq       BIGINT NOT NULL,
  code           TEXT NOT NULL,
  reason         TEXT NOT NULL,
  at             BIGINT NOT NULL,
  after_fact     BIGINT NOT NULL,
  discrepancy_id BIGINT NOT NULL DEFAULT 0,
  closed_at      BIGINT NOT NULL DEFAULT 0,
  UNIQUE (agent_id, generation, first_seq, last_seq)
);
CREATE INDEX gaps_open ON gaps (id) WHERE closed_at = 0;

-- The last stock of a watched item that both sides agreed on, in sum since based_at. moved is what the documents of all orders had moved
-- by then. doubt is a difference that was seen once, accepted the last discrepancy whose acceptance is in held.
CREATE TABLE stock_openings (
  erp      TEXT NOT NULL,
  site     TEXT NOT NULL,
  storage  TEXT NOT NULL,
  item     TEXT NOT NULL,
  lot      TEXT NOT NULL,
  unit     TEXT NOT NULL,
  held     TEXT NOT NULL,
  moved    TEXT NOT NULL,
  as_of    BIGINT NOT NULL,
  based_at BIGINT NOT NULL,
  doubt    TEXT NOT NULL DEFAULT '',
  doubt_at BIGINT NOT NULL DEFAULT 0,
  accepted BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (erp, site, storage, item, lot)
);

-- What the documents of an order have moved of an item, as they were read last. A row without an item says that the order was read.
CREATE TABLE stock_moved (
  erp      TEXT NOT NULL,
  order_no TEXT NOT NULL,
  item     TEXT NOT NULL,
  lot      TEXT NOT NULL,
  unit     TEXT NOT NULL,
  site     TEXT NOT NULL,
  moved    TEXT NOT NULL,
  PRIMARY KEY (erp, order_no, item, lot, unit)
);
CREATE INDEX stock_moved_item ON stock_moved (erp, item);

-- What quality says of a lot is looked up for each order that used it.
CREATE INDEX fact_index_quality ON fact_index (plant, item, fact_id) WHERE kind = 'quality_status';

-- What an agent tells again and again is looked for among all discrepancies of its subject.
CREATE INDEX discrepancies_subject ON discrepancies (type, subject, id);
