-- +goose Up
-- What was said of one operation is not said of its order. Steps from before say it of the order: so they were taken.
ALTER TABLE order_steps ADD COLUMN operation TEXT NOT NULL DEFAULT '';
