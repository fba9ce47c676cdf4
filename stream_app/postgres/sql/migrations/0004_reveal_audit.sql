-- Who asked for how many masked values of which field, and why; append-only.
CREATE TABLE :"schema".reveal_audit (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    revealed_at timestamptz NOT NULL DEFAULT now(),
    who         text        NOT NULL DEFAULT session_user,
    reason      text        NOT NULL CONSTRAINT reveal_audit_reason_given CHECK (reason ~ '[^[:space:]]'),
    field       text        NOT NULL,
    tokens      integer     NOT NULL CONSTRAINT reveal_audit_tokens_counted CHECK (tokens > 0)
);

COMMENT ON COLUMN :"schema".reveal_audit.who IS 'the login user, as the server knows it';
COMMENT ON COLUMN :"schema".reveal_audit.tokens IS 'how many tokens were asked for';

CREATE FUNCTION :"schema".reveal_audit_refuse_change() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE insufficient_privilege USING MESSAGE = format('%s is append-only: %s is refused', TG_TABLE_NAME, TG_OP);
END
$$;

CREATE TRIGGER reveal_audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON :"schema".reveal_audit
    FOR EACH STATEMENT EXECUTE FUNCTION :"schema".reveal_audit_refuse_change();
