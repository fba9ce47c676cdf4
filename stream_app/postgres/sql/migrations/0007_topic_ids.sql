-- Which topic a position belongs to, by the id that Kafka gave it: one of the same name that was made anew has another. Null until the
-- next claim of the partition, which takes the topic that is there.
ALTER TABLE :"schema".stream_positions ADD COLUMN topic_id text;

COMMENT ON COLUMN :"schema".stream_positions.topic_id
    IS 'Kafka''s id of the topic that the position belongs to; null: of the one that is there';

GRANT UPDATE (topic_id) ON :"schema".stream_positions TO stream_writer, stream_operator;
