-- +goose Up
-- What reconciliation has found. body is the whole discrepancy as JSON; the columns beside it are those that are searched.
CREATE TABLE discrepancies (
  id         INTEGER PRIMARY KEY,
  type       TEXT NOT NULL,
  subject    TEXT NOT NULL,
  plant      TEXT NOT NULL,
  erp        TEXT NOT NULL,
  order_no   TEXT NOT NULL,
  state      TEXT NOT NULL,
  first_at   BIGINT NOT NULL,
  last_at    BIGINT NOT NULL,
  due_at     BIGINT NOT NULL,
  closed_at  BIGINT NOT NULL DEFAULT 0,
  body       TEXT NOT NULL
);
-- Never two open discrepancies for one type and subject.
CREATE UNIQUE INDEX discrepancies_live ON discrepancies (type, subject) WHERE closed_at = 0;
CREATE INDEX discrepancies_order ON discrepancies (order_no, id);
CREATE INDEX discrepancies_state ON discrepancies (state, id);

CREATE TABLE discrepancy_steps (
  id             INTEGER PRIMARY KEY,
  discrepancy_id BIGINT NOT NULL,
  at             BIGINT NOT NULL,
  step           TEXT NOT NULL,
  by_whom        TEXT NOT NULL,
  note           TEXT NOT NULL
);
CREATE INDEX discrepancy_steps_of ON discrepancy_steps (discrepancy_id, id);

-- What was done without a person. made is the document that a heal has made; undone_at tells a wrong one.
CREATE TABLE heals (
  id             INTEGER PRIMARY KEY,
  discrepancy_id BIGINT NOT NULL,
  order_no       TEXT NOT NULL,
  at             BIGINT NOT NULL,
  books          BIGINT NOT NULL,
  action         TEXT NOT NULL,
  made           TEXT NOT NULL DEFAULT '',
  undone_at      BIGINT NOT NULL DEFAULT 0,
  undone_by      TEXT NOT NULL DEFAULT '',
  note           TEXT NOT NULL DEFAULT ''
);
CREATE INDEX heals_of ON heals (discrepancy_id, id);
CREATE INDEX heals_order ON heals (order_no, id);
CREATE INDEX heals_at ON heals (at);

CREATE TABLE reconciliations (
  id            INTEGER PRIMARY KEY,
  kind          TEXT NOT NULL,
  plant         TEXT NOT NULL,
  started_at    BIGINT NOT NULL,
  ended_at      BIGINT NOT NULL DEFAULT 0,
  orders        BIGINT NOT NULL DEFAULT 0,
  facts         BIGINT NOT NULL DEFAULT 0,
  documents     BIGINT NOT NULL DEFAULT 0,
  found         BIGINT NOT NULL DEFAULT 0,
  begun         BIGINT NOT NULL DEFAULT 0,
  unasked       BIGINT NOT NULL DEFAULT 0,
  error         TEXT NOT NULL DEFAULT ''
);
