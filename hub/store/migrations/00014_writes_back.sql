-- +goose Up
-- The names that written objects had before their system was put back and they were brought forward: whoever named one then meant that
-- write, whatever has the name now.
CREATE TABLE business_write_former (
  write_id    BIGINT NOT NULL,
  erp         TEXT NOT NULL,
  kind        TEXT NOT NULL,
  document    TEXT NOT NULL,
  document_id TEXT NOT NULL,
  at          BIGINT NOT NULL
);
CREATE INDEX business_write_former_of ON business_write_former (write_id);
CREATE INDEX business_write_former_document ON business_write_former (erp, kind, document) WHERE document <> '';
CREATE INDEX business_write_former_document_id ON business_write_former (erp, kind, document_id) WHERE document_id <> '';
-- Writes are read back for a while after they were verified, thread by thread.
CREATE INDEX business_writes_verified ON business_writes (since) WHERE state = 'verified';
CREATE INDEX business_writes_thread ON business_writes (erp, lane, id);
ALTER TABLE reconciliations ADD COLUMN writes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE reconciliations ADD COLUMN unasked_writes BIGINT NOT NULL DEFAULT 0;
