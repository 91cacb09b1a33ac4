-- Work orders for the MES. The agent inserts rows and writes answered and answer_seq; the MES reads new rows and writes
-- status, error_text and changed_at. Nobody deletes a row before its order is finished. Times are in the zone of the source.
CREATE TABLE IF NOT EXISTS lk_work_order (
    message_id    varchar(200) NOT NULL PRIMARY KEY,              -- <order_no>/<revision>
    order_no      varchar(100) NOT NULL,
    revision      bigint NOT NULL,                                -- grows with every change of the order
    action        varchar(10) NOT NULL,                           -- CREATE, CHANGE, CANCEL
    work_center   varchar(100) NOT NULL,
    item          varchar(100) NOT NULL,
    description   varchar(500) NOT NULL,
    quantity      decimal(28, 9),
    unit          varchar(20) NOT NULL,
    priority      integer NOT NULL,                               -- 0 when the ERP gave none
    lot           varchar(100) NOT NULL,
    planned_start datetime(6),
    planned_end   datetime(6),
    operations    longtext NOT NULL,                              -- JSON list
    components    longtext NOT NULL,                              -- JSON list
    created_at    timestamp(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    status        varchar(20) NOT NULL DEFAULT 'NEW',             -- ACCEPTED, REJECTED, STARTED, HELD, FINISHED, CANCELLED
    error_text    varchar(1000),                                  -- why it was rejected
    changed_at    datetime(6),                                    -- when the MES changed status
    answered      varchar(20),                                    -- the last status that the agent has taken
    answer_seq    bigint NOT NULL DEFAULT 0                       -- how many it has taken
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
