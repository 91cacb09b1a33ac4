-- +goose Up
-- Sums over the facts that the planner has seen, kept in the transactions that change them: what is asked of the tally must
-- not read every fact there ever was. A row is one line of the ledger in one state of its postings; see tally.go.
CREATE TABLE tally (
  id        INTEGER PRIMARY KEY,
  order_no  TEXT NOT NULL,
  plant     TEXT NOT NULL,
  operation TEXT NOT NULL,
  item      TEXT NOT NULL,
  kind      TEXT NOT NULL,
  unit      TEXT NOT NULL,
  state     TEXT NOT NULL,
  code      TEXT NOT NULL,
  reason    TEXT NOT NULL,
  facts     BIGINT NOT NULL,
  received  TEXT NOT NULL,
  posted    TEXT NOT NULL,
  settled   TEXT NOT NULL,
  UNIQUE (order_no, plant, operation, item, kind, unit, state, code, reason)
);

-- How many postings there are of each kind; n may be 0.
CREATE TABLE posting_counts (
  erp   TEXT NOT NULL,
  state TEXT NOT NULL,
  code  TEXT NOT NULL,
  n     BIGINT NOT NULL,
  PRIMARY KEY (erp, state, code)
);

-- The oldest of a kind, and the few of a rare kind.
CREATE INDEX postings_kind ON postings (state, code, erp, since) WHERE state NOT IN ('verified', 'not_posted', 'settled');
