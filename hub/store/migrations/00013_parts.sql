-- +goose Up
-- Facts that take back a part of another's effect. taken is what they take of what was posted, counted of what counted of it (JSON). own: by
-- a document of their own; otherwise document is the one that is taken back whole for it, and ended says that what is left of that
-- was made due with it, under key.
CREATE TABLE part_reversals (
  fact_id     BIGINT PRIMARY KEY,
  original_id BIGINT NOT NULL,
  taken       TEXT NOT NULL,
  counted     TEXT NOT NULL,
  own         BOOLEAN NOT NULL,
  document    TEXT NOT NULL DEFAULT '',
  ended       BOOLEAN NOT NULL DEFAULT FALSE,
  key         BLOB
);
CREATE INDEX part_reversals_original ON part_reversals (original_id);
