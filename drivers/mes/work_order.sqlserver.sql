-- Work orders for the MES. The agent inserts rows and writes answered and answer_seq; the MES reads new rows and writes
-- status, error_text and changed_at. Nobody deletes a row before its order is finished.
IF OBJECT_ID(N'lk_work_order', N'U') IS NULL
CREATE TABLE lk_work_order (
    message_id    nvarchar(200) COLLATE Latin1_General_BIN2 NOT NULL PRIMARY KEY, -- <order_no>/<revision>
    order_no      nvarchar(100) NOT NULL,
    revision      bigint NOT NULL,                                -- grows with every change of the order
    action        nvarchar(10) NOT NULL,                          -- CREATE, CHANGE, CANCEL
    work_center   nvarchar(100) NOT NULL,
    item          nvarchar(100) NOT NULL,
    description   nvarchar(500) NOT NULL,
    quantity      decimal(28, 9),
    unit          nvarchar(20) NOT NULL,
    priority      integer NOT NULL,                               -- 0 when the ERP gave none
    lot           nvarchar(100) NOT NULL,
    planned_start datetimeoffset,
    planned_end   datetimeoffset,
    operations    nvarchar(max) NOT NULL,                         -- JSON list
    components    nvarchar(max) NOT NULL,                         -- JSON list
    created_at    datetimeoffset NOT NULL DEFAULT SYSDATETIMEOFFSET(),
    status        nvarchar(20) NOT NULL DEFAULT N'NEW',           -- ACCEPTED, REJECTED, STARTED, HELD, FINISHED, CANCELLED
    error_text    nvarchar(1000),                                 -- why it was rejected
    changed_at    datetimeoffset,                                 -- when the MES changed status
    answered      nvarchar(20),                                   -- the last status that the agent has taken
    answer_seq    bigint NOT NULL DEFAULT 0                       -- how many it has taken
);
