-- Work orders for the MES. The agent inserts rows and writes answered and answer_seq; the MES reads new rows and writes
-- status, error_text and changed_at. Nobody deletes a row before its order is finished. Numbers and times are text, since
-- SQLite would make floating point numbers of decimals; times are RFC 3339.
CREATE TABLE IF NOT EXISTS lk_work_order (
    message_id    TEXT NOT NULL PRIMARY KEY,                      -- <order_no>/<revision>
    order_no      TEXT NOT NULL,
    revision      INTEGER NOT NULL,                               -- grows with every change of the order
    action        TEXT NOT NULL,                                  -- CREATE, CHANGE, CANCEL
    work_center   TEXT NOT NULL,
    item          TEXT NOT NULL,
    description   TEXT NOT NULL,
    quantity      TEXT,
    unit          TEXT NOT NULL,
    priority      INTEGER NOT NULL,                               -- 0 when the ERP gave none
    lot           TEXT NOT NULL,
    planned_start TEXT,
    planned_end   TEXT,
    operations    TEXT NOT NULL,                                  -- JSON list
    components    TEXT NOT NULL,                                  -- JSON list
    created_at    TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    status        TEXT NOT NULL DEFAULT 'NEW',                    -- ACCEPTED, REJECTED, STARTED, HELD, FINISHED, CANCELLED
    error_text    TEXT,                                           -- why it was rejected
    changed_at    TEXT,                                           -- when the MES changed status
    answered      TEXT,                                           -- the last status that the agent has taken
    answer_seq    INTEGER NOT NULL DEFAULT 0                      -- how many it has taken
);
