-- +goose Up
-- What a person or a heal changed of a posting: the fact itself stays as it came. old_ and new_ are what was and what is posted
-- from then on; key is the key that it is posted under from then on, null for the fact's own.
CREATE TABLE corrections (
  id               INTEGER PRIMARY KEY,
  fact_id          BIGINT NOT NULL,
  at               BIGINT NOT NULL,
  by_whom          TEXT NOT NULL,
  note             TEXT NOT NULL,
  key              BLOB,
  old_order_no     TEXT NOT NULL,
  old_item         TEXT NOT NULL,
  old_lot          TEXT NOT NULL,
  old_posting_date TEXT NOT NULL,
  new_order_no     TEXT NOT NULL,
  new_item         TEXT NOT NULL,
  new_lot          TEXT NOT NULL,
  new_posting_date TEXT NOT NULL
);
CREATE INDEX corrections_fact ON corrections (fact_id, id);
CREATE INDEX corrections_order ON corrections (new_order_no, fact_id);
CREATE INDEX corrections_from ON corrections (old_order_no, fact_id);

-- The last exchange with the outside system about a posting, redacted and bounded, by what it was for. body is JSON.
CREATE TABLE exchanges (
  fact_id BIGINT NOT NULL,
  purpose TEXT NOT NULL,
  at      BIGINT NOT NULL,
  body    TEXT NOT NULL,
  PRIMARY KEY (fact_id, purpose)
);
CREATE INDEX exchanges_at ON exchanges (at);

-- Whose an exception is, where that is not whoever has the role by the rules. ref is "posting:12", "alarm:3" and so on.
CREATE TABLE inbox_owners (
  ref    TEXT PRIMARY KEY,
  owner  TEXT NOT NULL,
  person TEXT NOT NULL,
  at     BIGINT NOT NULL
);
CREATE TABLE inbox_steps (
  id      INTEGER PRIMARY KEY,
  ref     TEXT NOT NULL,
  at      BIGINT NOT NULL,
  step    TEXT NOT NULL,
  by_whom TEXT NOT NULL,
  note    TEXT NOT NULL
);
CREATE INDEX inbox_steps_of ON inbox_steps (ref, id);

-- Parked postings that are taken up again one after the other. after_id is the last one that was; next_at is not before.
CREATE TABLE replays (
  id         INTEGER PRIMARY KEY,
  at         BIGINT NOT NULL,
  by_whom    TEXT NOT NULL,
  note       TEXT NOT NULL,
  filter     TEXT NOT NULL,
  per_minute BIGINT NOT NULL,
  state      TEXT NOT NULL,
  total      BIGINT NOT NULL,
  last_id    BIGINT NOT NULL,
  after_id   BIGINT NOT NULL DEFAULT 0,
  taken      BIGINT NOT NULL DEFAULT 0,
  skipped    BIGINT NOT NULL DEFAULT 0,
  next_at    BIGINT NOT NULL DEFAULT 0,
  ended_at   BIGINT NOT NULL DEFAULT 0,
  reason     TEXT NOT NULL DEFAULT ''
);
CREATE INDEX replays_state ON replays (state, id);

-- What a person began counts no limit, and is counted with the others when it was wrong.
ALTER TABLE heals ADD COLUMN by_whom TEXT NOT NULL DEFAULT '';
