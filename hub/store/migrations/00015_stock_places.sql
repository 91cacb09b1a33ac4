-- +goose Up
-- What an order has moved is kept by the place where it was moved. What was read before does not say that: it is read anew, and the
-- watched stocks are opened anew with it.
DROP TABLE stock_moved;
CREATE TABLE stock_moved (
  erp      TEXT NOT NULL,
  order_no TEXT NOT NULL,
  item     TEXT NOT NULL,
  lot      TEXT NOT NULL,
  unit     TEXT NOT NULL,
  site     TEXT NOT NULL,
  storage  TEXT NOT NULL,
  moved    TEXT NOT NULL,
  PRIMARY KEY (erp, order_no, item, lot, unit, site, storage)
);
CREATE INDEX stock_moved_item ON stock_moved (erp, item);
DELETE FROM stock_openings;
