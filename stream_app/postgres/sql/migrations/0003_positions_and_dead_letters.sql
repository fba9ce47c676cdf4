-- Where each partition stands, and the records that can't become rows.
CREATE TABLE :"schema".stream_positions (
    consumer_group text        NOT NULL,
    topic          text        NOT NULL,
    partition      integer     NOT NULL,
    next_offset    bigint      NOT NULL,
    epoch          bigint      NOT NULL,
    owner          text        NOT NULL,
    updated_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer_group, topic, partition)
) WITH (fillfactor = 50);

COMMENT ON COLUMN :"schema".stream_positions.next_offset IS 'the next offset to read';
COMMENT ON COLUMN :"schema".stream_positions.epoch IS 'raised by each claim: a write with an older epoch is refused';

CREATE TABLE :"schema".dead_letters (
    consumer_group text        NOT NULL,
    topic          text        NOT NULL,
    partition      integer     NOT NULL,
    record_offset  bigint      NOT NULL,
    message_id     uuid        NOT NULL,
    sent_at        timestamptz NOT NULL,
    reason         text        NOT NULL,
    field          text,
    sealed         bytea       NOT NULL,
    failed_at      timestamptz NOT NULL DEFAULT now(),
    resolution     text,
    PRIMARY KEY (sent_at, message_id)
);

ALTER TABLE :"schema".dead_letters ALTER COLUMN sealed SET STORAGE EXTERNAL;

COMMENT ON COLUMN :"schema".dead_letters.record_offset
    IS 'the offset of its first delivery; a message that comes again adds no dead letter';
COMMENT ON COLUMN :"schema".dead_letters.resolution IS 'what became of it; null while it is open';

CREATE INDEX dead_letters_failed_at ON :"schema".dead_letters (failed_at, message_id);
