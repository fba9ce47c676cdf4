-- Ids of the keys that masked the newest rows and sealed the newest open dead letters: by them a worker that starts sees whether it has
-- the keysets of those that write here. It may read no masked value and nothing sealed; with the owner's rights this gives it ids alone.
-- A token says its key: base64url of 0x01 and the key's id, four bytes. What doesn't look like one is passed over: rows that are older
-- than the stream, fields that are masked in another way.
-- Its text is made here since psql puts its variables into no body of a function.
SELECT set_config('login_stream.schema', :'schema', false);
DO $$
BEGIN
    EXECUTE format($create$
        CREATE FUNCTION %1$I.keys_in_use() RETURNS TABLE (field text, key_id bigint)
        LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
        #variable_conflict use_column
        BEGIN
            RETURN QUERY
            WITH login AS MATERIALIZED (
                SELECT masked_ip, masked_device_id FROM %1$I.user_logins WHERE sent_at IS NOT NULL ORDER BY sent_at DESC LIMIT 100
            ), letter AS MATERIALIZED (
                SELECT substring(sealed FROM 1 FOR 5) AS beginning, resolution FROM %1$I.dead_letters
                ORDER BY failed_at DESC, message_id DESC LIMIT 100
            ), token AS (
                SELECT 'ip' AS field, masked_ip::text AS text FROM login
                UNION ALL SELECT 'device_id', masked_device_id::text FROM login
            ), prefix AS (
                SELECT token.field, decode(translate(left(token.text, 8), '-_', '+/'), 'base64') AS bytes
                FROM token WHERE token.text ~ '^A[Q-Za-f][A-Za-z0-9_-]{32,}$'
                UNION ALL SELECT 'dead letter', beginning FROM letter
                WHERE resolution IS NULL AND length(beginning) = 5 AND get_byte(beginning, 0) = 1
            )
            SELECT DISTINCT prefix.field, ('x' || encode(substring(prefix.bytes FROM 2 FOR 4), 'hex'))::bit(32)::bigint FROM prefix;
        END
        $body$
    $create$, current_setting('login_stream.schema'));
END
$$;

REVOKE EXECUTE ON FUNCTION :"schema".keys_in_use FROM PUBLIC;
GRANT EXECUTE ON FUNCTION :"schema".keys_in_use TO stream_writer;
