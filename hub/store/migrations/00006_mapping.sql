-- +goose Up
-- Definitions of how the words of plants and outside systems relate. A version's content and its steps are written once.
CREATE TABLE mapping_sets (
  id      INTEGER PRIMARY KEY,
  name    TEXT NOT NULL UNIQUE,
  kind    TEXT NOT NULL,
  erp     TEXT NOT NULL,
  plant   TEXT NOT NULL,
  made_at BIGINT NOT NULL
);
-- Which of two sets counts must be clear; code lists are asked for by name.
CREATE UNIQUE INDEX mapping_sets_place ON mapping_sets (kind, erp, plant) WHERE kind NOT IN ('list', 'movement');

-- life is who did what and when, as JSON; the columns beside it are those that are searched.
CREATE TABLE mapping_versions (
  set_id  BIGINT NOT NULL,
  number  BIGINT NOT NULL,
  state   TEXT NOT NULL,
  from_at BIGINT NOT NULL DEFAULT 0,
  content TEXT NOT NULL,
  life    TEXT NOT NULL,
  PRIMARY KEY (set_id, number)
);

CREATE TABLE mapping_steps (
  id      INTEGER PRIMARY KEY,
  set_id  BIGINT NOT NULL,
  number  BIGINT NOT NULL,
  at      BIGINT NOT NULL,
  step    TEXT NOT NULL,
  by_whom TEXT NOT NULL,
  note    TEXT NOT NULL
);
CREATE INDEX mapping_steps_of ON mapping_steps (set_id, id);

CREATE TABLE mapping_dry_runs (
  id      INTEGER PRIMARY KEY,
  set_id  BIGINT NOT NULL,
  number  BIGINT NOT NULL,
  at      BIGINT NOT NULL,
  by_whom TEXT NOT NULL,
  body    TEXT NOT NULL
);
CREATE INDEX mapping_dry_runs_of ON mapping_dry_runs (set_id, number, id);

-- How a posting is said in the outside system's words, and which versions made that so.
CREATE TABLE posting_maps (fact_id INTEGER PRIMARY KEY, body TEXT NOT NULL);

-- What rounding left over of quantities that go out in another unit: rest is a fraction in to_unit, own the same in the
-- unit of the facts as far as decimals go, which is what the tally has not seen posted.
CREATE TABLE mapped_residues (
  erp       TEXT NOT NULL,
  order_no  TEXT NOT NULL,
  operation TEXT NOT NULL,
  item      TEXT NOT NULL,
  kind      TEXT NOT NULL,
  unit      TEXT NOT NULL,
  to_item   TEXT NOT NULL,
  to_unit   TEXT NOT NULL,
  rest      TEXT NOT NULL,
  own       TEXT NOT NULL,
  PRIMARY KEY (erp, order_no, operation, item, kind, unit, to_item, to_unit)
);
