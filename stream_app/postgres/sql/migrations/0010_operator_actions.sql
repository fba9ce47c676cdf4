-- What operators have done, and why; append-only. And a right for `positions adopt`.
CREATE TABLE :"schema".operator_actions (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    acted_at timestamptz NOT NULL DEFAULT now(),
    who      text        NOT NULL DEFAULT session_user,
    action   text        NOT NULL,
    target   text        NOT NULL,
    details  jsonb       NOT NULL DEFAULT '{}',
    reason   text        NOT NULL CONSTRAINT operator_actions_reason_given CHECK (reason ~ '[^[:space:]]'),
    CONSTRAINT operator_actions_printable CHECK (who || action || target || reason !~ '[\x01-\x1f\x7f-\x9f]')
);

COMMENT ON COLUMN :"schema".operator_actions.who IS 'the login user, as the server knows it';
COMMENT ON COLUMN :"schema".operator_actions.action IS 'the command';
COMMENT ON COLUMN :"schema".operator_actions.target IS 'what it was done to';
COMMENT ON COLUMN :"schema".operator_actions.details IS 'from what to what, how many; no value of a record';

CREATE TRIGGER operator_actions_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON :"schema".operator_actions
    FOR EACH STATEMENT EXECUTE FUNCTION :"schema".reveal_audit_refuse_change();

-- Not the columns who and acted_at: those are the server's word.
GRANT SELECT, INSERT (action, target, details, reason) ON :"schema".operator_actions TO stream_operator;
GRANT INSERT (consumer_group, topic, partition, next_offset, epoch, owner, topic_id) ON :"schema".stream_positions TO stream_operator;
