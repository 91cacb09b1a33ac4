-- +goose Up
-- Times are microseconds since 1970 UTC, 0 for "never". Quantities are decimal text.

CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);

CREATE TABLE agents (
  id              INTEGER PRIMARY KEY,
  plant           TEXT NOT NULL,
  agent           TEXT NOT NULL,
  version         TEXT NOT NULL DEFAULT '',
  instance        TEXT NOT NULL DEFAULT '',
  connected_at    BIGINT NOT NULL DEFAULT 0,
  disconnected_at BIGINT NOT NULL DEFAULT 0,
  seen_at         BIGINT NOT NULL DEFAULT 0,
  status          BLOB,
  status_at       BIGINT NOT NULL DEFAULT 0,
  delivery_epoch  TEXT NOT NULL,
  delivery_last   BIGINT NOT NULL DEFAULT 0,
  delivery_stored BIGINT NOT NULL DEFAULT 0,
  UNIQUE (plant, agent)
);

-- Where each buffer of each agent stands: one row for each generation that was ever seen.
CREATE TABLE positions (
  id         INTEGER PRIMARY KEY,
  agent_id   BIGINT NOT NULL,
  stream     BIGINT NOT NULL,
  generation TEXT NOT NULL,
  seq        BIGINT NOT NULL,
  changed_at BIGINT NOT NULL,
  UNIQUE (agent_id, stream, generation)
);

-- The only table that ingest writes for an ordinary fact. key is the first 10 bytes, by which hub and ERP know it.
CREATE TABLE facts (
  id          INTEGER PRIMARY KEY,
  key         BLOB NOT NULL UNIQUE,
  position_id BIGINT NOT NULL,
  seq         BIGINT NOT NULL,
  received_at BIGINT NOT NULL,
  body        BLOB NOT NULL
);

CREATE TABLE conflicts (
  id          INTEGER PRIMARY KEY,
  key         BLOB NOT NULL,
  hash        BLOB NOT NULL,
  agent_id    BIGINT NOT NULL,
  seq         BIGINT NOT NULL,
  received_at BIGINT NOT NULL,
  body        BLOB NOT NULL,
  closed_at   BIGINT NOT NULL DEFAULT 0,
  note        TEXT NOT NULL DEFAULT '',
  UNIQUE (key, hash)
);

CREATE TABLE unreadable (
  id          INTEGER PRIMARY KEY,
  hash        BLOB NOT NULL,
  agent_id    BIGINT NOT NULL,
  position_id BIGINT NOT NULL,
  seq         BIGINT NOT NULL,
  received_at BIGINT NOT NULL,
  reason      TEXT NOT NULL,
  body        BLOB NOT NULL,
  closed_at   BIGINT NOT NULL DEFAULT 0,
  note        TEXT NOT NULL DEFAULT '',
  UNIQUE (agent_id, hash)
);

CREATE TABLE alarms (
  id         INTEGER PRIMARY KEY,
  subject    TEXT NOT NULL,
  code       TEXT NOT NULL,
  reason     TEXT NOT NULL,
  next_step  TEXT NOT NULL,
  first_at   BIGINT NOT NULL,
  last_at    BIGINT NOT NULL,
  times      BIGINT NOT NULL DEFAULT 1,
  closed_at  BIGINT NOT NULL DEFAULT 0,
  note       TEXT NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX alarms_open ON alarms (subject, code) WHERE closed_at = 0;

CREATE TABLE ledger (
  agent_id  BIGINT NOT NULL,
  source    TEXT NOT NULL,
  order_no  TEXT NOT NULL,
  operation TEXT NOT NULL,
  item      TEXT NOT NULL,
  kind      TEXT NOT NULL,
  unit      TEXT NOT NULL,
  counted   TEXT NOT NULL,
  stored    TEXT NOT NULL,
  PRIMARY KEY (agent_id, source, order_no, operation, item, kind, unit)
);
CREATE INDEX ledger_order ON ledger (order_no);

CREATE TABLE readings (
  agent_id  BIGINT NOT NULL,
  source    TEXT NOT NULL,
  tag       TEXT NOT NULL,
  value     TEXT NOT NULL,
  quality   TEXT NOT NULL,
  equipment TEXT NOT NULL,
  at        BIGINT NOT NULL,
  PRIMARY KEY (agent_id, source, tag)
);

-- What must be stored at an agent. ref is "order_no" or the fact's 16-character key.
CREATE TABLE deliveries (
  agent_id   BIGINT NOT NULL,
  seq        BIGINT NOT NULL,
  kind       TEXT NOT NULL,
  ref        TEXT NOT NULL,
  revision   BIGINT NOT NULL DEFAULT 0,
  body       BLOB NOT NULL,
  created_at BIGINT NOT NULL,
  sent_at    BIGINT NOT NULL DEFAULT 0,
  stored_at  BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (agent_id, seq)
);
CREATE INDEX deliveries_ref ON deliveries (ref);

CREATE TABLE work_orders (
  id           INTEGER PRIMARY KEY,
  erp          TEXT NOT NULL,
  order_no     TEXT NOT NULL,
  plant        TEXT NOT NULL,
  agent        TEXT NOT NULL,
  revision     BIGINT NOT NULL,
  sent         BIGINT NOT NULL DEFAULT 0,
  state        TEXT NOT NULL,
  item         TEXT NOT NULL,
  work_center  TEXT NOT NULL,
  planned_start BIGINT NOT NULL,
  content      BLOB NOT NULL,
  body         TEXT NOT NULL,
  unroutable   TEXT NOT NULL DEFAULT '',
  changed_at   BIGINT NOT NULL,
  UNIQUE (erp, order_no)
);
CREATE INDEX work_orders_no ON work_orders (order_no);
CREATE INDEX work_orders_state ON work_orders (state, id);

CREATE TABLE order_revisions (
  erp      TEXT NOT NULL,
  order_no TEXT NOT NULL,
  revision BIGINT NOT NULL,
  body     TEXT NOT NULL,
  at       BIGINT NOT NULL,
  PRIMARY KEY (erp, order_no, revision)
);

-- The timeline of an order: what the ERP said, what was sent and stored, what the shop floor answered.
CREATE TABLE order_steps (
  id       INTEGER PRIMARY KEY,
  order_no TEXT NOT NULL,
  step     TEXT NOT NULL,
  revision BIGINT NOT NULL,
  at       BIGINT NOT NULL,
  origin   TEXT NOT NULL,
  fact_id  BIGINT NOT NULL DEFAULT 0,
  reason   TEXT NOT NULL DEFAULT ''
);
CREATE INDEX order_steps_order ON order_steps (order_no, id);

CREATE TABLE erp_cursors (
  erp        TEXT PRIMARY KEY,
  cursor     TEXT NOT NULL DEFAULT '',
  changed_at BIGINT NOT NULL DEFAULT 0,
  ok_at      BIGINT NOT NULL DEFAULT 0,
  failed_at  BIGINT NOT NULL DEFAULT 0,
  error      TEXT NOT NULL DEFAULT ''
);

-- What the planner read out of each fact, written in the order of facts.id. Quantities are what counts: without what an
-- overlapping counter range repeated.
CREATE TABLE fact_index (
  fact_id     INTEGER PRIMARY KEY,
  agent_id    BIGINT NOT NULL,
  plant       TEXT NOT NULL,
  source      TEXT NOT NULL,
  kind        TEXT NOT NULL,
  order_no    TEXT NOT NULL,
  operation   TEXT NOT NULL,
  item        TEXT NOT NULL,
  unit        TEXT NOT NULL,
  yield       TEXT NOT NULL DEFAULT '0',
  scrap       TEXT NOT NULL DEFAULT '0',
  rework      TEXT NOT NULL DEFAULT '0',
  consumed    TEXT NOT NULL DEFAULT '0',
  returned    TEXT NOT NULL DEFAULT '0',
  occurred_at BIGINT NOT NULL,
  planned_at  BIGINT NOT NULL,
  trimmed     TEXT NOT NULL DEFAULT ''
);
CREATE INDEX fact_index_order ON fact_index (order_no, fact_id);
CREATE INDEX fact_index_plant ON fact_index (plant, fact_id);

-- The counter values that the hub knows, as merged intervals "0-1250,1300-1400"; counter_to is the highest.
CREATE TABLE marks (
  plant      TEXT NOT NULL,
  source     TEXT NOT NULL,
  tag        TEXT NOT NULL,
  epoch      TEXT NOT NULL,
  agent_id   BIGINT NOT NULL,
  counter_to TEXT NOT NULL,
  covered    TEXT NOT NULL,
  changed_at BIGINT NOT NULL,
  PRIMARY KEY (plant, source, tag, epoch)
);

-- What rounding to the ERP's decimals left over, to be added to the next posting of the same thing.
CREATE TABLE residues (
  erp       TEXT NOT NULL,
  order_no  TEXT NOT NULL,
  operation TEXT NOT NULL,
  item      TEXT NOT NULL,
  kind      TEXT NOT NULL,
  unit      TEXT NOT NULL,
  value     TEXT NOT NULL,
  PRIMARY KEY (erp, order_no, operation, item, kind, unit)
);

CREATE TABLE postings (
  fact_id    INTEGER PRIMARY KEY,
  erp        TEXT NOT NULL,
  order_no   TEXT NOT NULL,
  plant      TEXT NOT NULL,
  closing    BIGINT NOT NULL DEFAULT 0,
  state      TEXT NOT NULL,
  class      TEXT NOT NULL DEFAULT '',
  code       TEXT NOT NULL DEFAULT '',
  reason     TEXT NOT NULL DEFAULT '',
  next_step  TEXT NOT NULL DEFAULT '',
  yield      TEXT NOT NULL DEFAULT '',
  scrap      TEXT NOT NULL DEFAULT '',
  rework     TEXT NOT NULL DEFAULT '',
  quantity   TEXT NOT NULL DEFAULT '',
  attempt    BIGINT NOT NULL DEFAULT 0,
  tries      BIGINT NOT NULL DEFAULT 0,
  intent     BLOB,
  document   TEXT NOT NULL DEFAULT '',
  document_id TEXT NOT NULL DEFAULT '',
  since      BIGINT NOT NULL,
  next_at    BIGINT NOT NULL DEFAULT 0,
  changed_at BIGINT NOT NULL
);
CREATE INDEX postings_due ON postings (erp, order_no, closing, fact_id) WHERE state = 'due';
CREATE INDEX postings_doubt ON postings (erp, order_no, fact_id) WHERE state IN ('sending', 'in_doubt');
CREATE INDEX postings_posted ON postings (erp, order_no, next_at, fact_id) WHERE state = 'posted';
CREATE INDEX postings_open ON postings (order_no, fact_id) WHERE state NOT IN ('verified', 'not_posted', 'settled');
CREATE INDEX postings_state ON postings (state, fact_id);

CREATE TABLE posting_steps (
  id       INTEGER PRIMARY KEY,
  fact_id  BIGINT NOT NULL,
  at       BIGINT NOT NULL,
  step     TEXT NOT NULL,
  attempt  BIGINT NOT NULL,
  code     TEXT NOT NULL DEFAULT '',
  reason   TEXT NOT NULL DEFAULT '',
  document TEXT NOT NULL DEFAULT '',
  by_whom  TEXT NOT NULL DEFAULT ''
);
CREATE INDEX posting_steps_fact ON posting_steps (fact_id, id);

CREATE TABLE exceptions (
  id          INTEGER PRIMARY KEY,
  fact_id     BIGINT NOT NULL UNIQUE,
  agent_id    BIGINT NOT NULL,
  source      TEXT NOT NULL,
  code        TEXT NOT NULL,
  item        TEXT NOT NULL,
  reason      TEXT NOT NULL,
  next_step   TEXT NOT NULL,
  excerpt     BLOB,
  occurred_at BIGINT NOT NULL,
  closed_at   BIGINT NOT NULL DEFAULT 0,
  note        TEXT NOT NULL DEFAULT ''
);
