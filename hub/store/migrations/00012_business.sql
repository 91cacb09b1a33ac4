-- +goose Up
-- Business objects as outside systems hold them. object_key is the system's technical key, or the number where it has none. body
-- is JSON (package wire), hash that of what it says; seq is the row of its newest revision. sweep is the last reading from the
-- beginning in which it was listed, gone_at when one ended without it, 0 while it is there.
CREATE TABLE business_objects (
  id         INTEGER PRIMARY KEY,
  erp        TEXT NOT NULL,
  kind       TEXT NOT NULL,
  object_key TEXT NOT NULL,
  number     TEXT NOT NULL,
  reference  TEXT NOT NULL,
  partner    TEXT NOT NULL,
  state      TEXT NOT NULL,
  revision   BIGINT NOT NULL,
  seq        BIGINT NOT NULL,
  hash       BLOB NOT NULL,
  body       TEXT NOT NULL,
  revised_at BIGINT NOT NULL,
  changed_at BIGINT NOT NULL,
  sweep      BIGINT NOT NULL,
  gone_at    BIGINT NOT NULL DEFAULT 0,
  UNIQUE (erp, kind, object_key)
);
CREATE INDEX business_objects_seq ON business_objects (kind, seq);
CREATE INDEX business_objects_number ON business_objects (kind, number);
CREATE INDEX business_objects_reference ON business_objects (kind, reference) WHERE reference <> '';
CREATE INDEX business_objects_there ON business_objects (erp, kind, sweep) WHERE gone_at = 0;

CREATE TABLE business_revisions (
  seq       INTEGER PRIMARY KEY,
  object_id BIGINT NOT NULL,
  revision  BIGINT NOT NULL,
  state     TEXT NOT NULL,
  body      TEXT NOT NULL,
  at        BIGINT NOT NULL,
  UNIQUE (object_id, revision)
);

-- What an object names: the order of a receipt, the receipts of an invoice.
CREATE TABLE business_links (
  object_id BIGINT NOT NULL,
  erp       TEXT NOT NULL,
  kind      TEXT NOT NULL,
  number    TEXT NOT NULL,
  PRIMARY KEY (object_id, kind, number)
);
CREATE INDEX business_links_to ON business_links (erp, kind, number);

-- How far the hub has read one kind of a system. sweep counts the readings from the beginning, whole_at is when the last one ended.
CREATE TABLE business_cursors (
  erp        TEXT NOT NULL,
  kind       TEXT NOT NULL,
  cursor     TEXT NOT NULL DEFAULT '',
  changed_at BIGINT NOT NULL DEFAULT 0,
  ok_at      BIGINT NOT NULL DEFAULT 0,
  failed_at  BIGINT NOT NULL DEFAULT 0,
  error      TEXT NOT NULL DEFAULT '',
  sweep      BIGINT NOT NULL DEFAULT 0,
  whole_at   BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (erp, kind)
);

-- Business objects as somebody wants them to be. The key is known by its 16 characters, here and in the outside system. lane is
-- the thread of objects that belong together, in which one write goes after the other; object is the one that a write moves on,
-- empty for a new one. want is the hash of everything that was asked for.
CREATE TABLE business_writes (
  id           INTEGER PRIMARY KEY,
  key          TEXT NOT NULL UNIQUE,
  key_bytes    BLOB NOT NULL,
  erp          TEXT NOT NULL,
  kind         TEXT NOT NULL,
  lane         TEXT NOT NULL,
  object       TEXT NOT NULL,
  body         TEXT NOT NULL,
  hash         BLOB NOT NULL,
  posting_date TEXT NOT NULL,
  accept       TEXT NOT NULL,
  by_whom      TEXT NOT NULL,
  made_at      BIGINT NOT NULL,
  state        TEXT NOT NULL,
  class        TEXT NOT NULL DEFAULT '',
  code         TEXT NOT NULL DEFAULT '',
  reason       TEXT NOT NULL DEFAULT '',
  next_step    TEXT NOT NULL DEFAULT '',
  document     TEXT NOT NULL DEFAULT '',
  document_id  TEXT NOT NULL DEFAULT '',
  intent       BLOB,
  attempt      BIGINT NOT NULL DEFAULT 0,
  tries        BIGINT NOT NULL DEFAULT 0,
  since        BIGINT NOT NULL,
  next_at      BIGINT NOT NULL
);
CREATE INDEX business_writes_lane ON business_writes (erp, lane, id) WHERE state NOT IN ('verified', 'settled');
CREATE INDEX business_writes_open ON business_writes (state, id) WHERE state NOT IN ('verified', 'settled');
CREATE INDEX business_writes_document ON business_writes (erp, kind, document) WHERE document <> '';
CREATE INDEX business_writes_document_id ON business_writes (erp, kind, document_id) WHERE document_id <> '';

CREATE TABLE business_write_steps (
  id       INTEGER PRIMARY KEY,
  write_id BIGINT NOT NULL,
  at       BIGINT NOT NULL,
  step     TEXT NOT NULL,
  attempt  BIGINT NOT NULL,
  code     TEXT NOT NULL,
  reason   TEXT NOT NULL,
  document TEXT NOT NULL,
  by_whom  TEXT NOT NULL
);
CREATE INDEX business_write_steps_of ON business_write_steps (write_id, id);

-- The last exchange with the outside system about a write, by what it was for; see exchanges.
CREATE TABLE business_exchanges (
  write_id BIGINT NOT NULL,
  purpose  TEXT NOT NULL,
  at       BIGINT NOT NULL,
  body     TEXT NOT NULL,
  PRIMARY KEY (write_id, purpose)
);
CREATE INDEX business_exchanges_at ON business_exchanges (at);
