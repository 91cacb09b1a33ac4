-- +goose Up
-- What a receiver was told of an exception that is open: a row goes when the exception does. since and tier are of the time when it was
-- told; ref is "posting:12" and so on.
CREATE TABLE notices (
  receiver   TEXT NOT NULL,
  ref        TEXT NOT NULL,
  since      BIGINT NOT NULL,
  tier       BIGINT NOT NULL,
  at         BIGINT NOT NULL,
  message_id TEXT NOT NULL,
  PRIMARY KEY (receiver, ref)
);
CREATE INDEX notices_ref ON notices (ref);

-- What is said to a receiver. body never changes, so that a message which comes twice is the same; topic is what messages are gathered by.
CREATE TABLE messages (
  id         INTEGER PRIMARY KEY,
  message_id TEXT NOT NULL UNIQUE,
  receiver   TEXT NOT NULL,
  topic      TEXT NOT NULL,
  subject    TEXT NOT NULL,
  entries    BIGINT NOT NULL,
  body       TEXT NOT NULL,
  made_at    BIGINT NOT NULL,
  state      TEXT NOT NULL,
  tries      BIGINT NOT NULL DEFAULT 0,
  next_at    BIGINT NOT NULL DEFAULT 0,
  ended_at   BIGINT NOT NULL DEFAULT 0,
  reason     TEXT NOT NULL DEFAULT '',
  answer     TEXT NOT NULL DEFAULT ''
);
CREATE INDEX messages_due ON messages (receiver, next_at) WHERE state = 'due';
CREATE INDEX messages_made ON messages (made_at);
