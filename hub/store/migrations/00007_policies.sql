-- +goose Up
-- The date for the books of a posting that does not have its fact's own, and who approved what a policy holds.
CREATE TABLE posting_dates (
  fact_id     INTEGER PRIMARY KEY,
  date        TEXT NOT NULL,
  event_date  TEXT NOT NULL,
  reason      TEXT NOT NULL,
  approved_by TEXT NOT NULL DEFAULT ''
);

-- The last month, such as 2026-10, that a system was found to have closed for a plant.
CREATE TABLE closed_periods (
  erp        TEXT NOT NULL,
  plant      TEXT NOT NULL,
  month      TEXT NOT NULL,
  learned_at BIGINT NOT NULL,
  PRIMARY KEY (erp, plant)
);

-- Orders that the hub has had reopened, with the state to restore. times counts since first_at.
CREATE TABLE reopenings (
  erp        TEXT NOT NULL,
  order_no   TEXT NOT NULL,
  state      TEXT NOT NULL,
  was        TEXT NOT NULL,
  times      BIGINT NOT NULL,
  first_at   BIGINT NOT NULL,
  changed_at BIGINT NOT NULL,
  PRIMARY KEY (erp, order_no)
);

-- Postings that are made as one document. The key is empty until the aggregate is sealed: then it never changes any more.
CREATE TABLE aggregates (
  id        INTEGER PRIMARY KEY,
  erp       TEXT NOT NULL,
  order_no  TEXT NOT NULL,
  line      TEXT NOT NULL,
  key       BLOB,
  opened_at BIGINT NOT NULL,
  seal_at   BIGINT NOT NULL,
  members   BIGINT NOT NULL DEFAULT 0,
  quantity  TEXT NOT NULL DEFAULT '0'
);
CREATE UNIQUE INDEX aggregates_open ON aggregates (erp, order_no, line) WHERE key IS NULL;
CREATE UNIQUE INDEX aggregates_key ON aggregates (key) WHERE key IS NOT NULL;

CREATE TABLE aggregate_members (
  fact_id      INTEGER PRIMARY KEY,
  aggregate_id BIGINT NOT NULL
);
CREATE INDEX aggregate_members_of ON aggregate_members (aggregate_id, fact_id);
