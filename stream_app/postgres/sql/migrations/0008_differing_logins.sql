-- Which of these messages' rows hold something else than this: what the worker asks of messages that came again, without a right to
-- read any row's content. With the owner's rights, therefore, and it answers with ids that the worker knows.
-- Its text is made here since psql puts its variables into no body of a function. Quoted, and not BEGIN ATOMIC: that would keep the
-- table's owner from ever changing a column's type.
SELECT set_config('login_stream.schema', :'schema', false);
DO $$
BEGIN
    EXECUTE format($create$
        CREATE FUNCTION %1$I.differing_logins(
            sent_at timestamptz[], message_id uuid[], user_id text[], device_type text[], masked_ip text[], masked_device_id text[],
            locale text[], app_version integer[]
        ) RETURNS uuid[]
        LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
        #variable_conflict use_column
        -- Tokens of two keys can't be compared: only those that begin alike, with a key's id.
        BEGIN
            RETURN (
                SELECT array_agg(came.message_id)
                FROM unnest($1, $2, $3, $4, $5, $6, $7, $8) AS came (
                    sent_at, message_id, user_id, device_type, masked_ip, masked_device_id, locale, app_version
                )
                JOIN %1$I.user_logins AS known ON known.sent_at = came.sent_at AND known.message_id = came.message_id
                WHERE known.user_id IS DISTINCT FROM came.user_id
                   OR known.device_type IS DISTINCT FROM came.device_type
                   OR known.locale IS DISTINCT FROM came.locale
                   OR known.app_version IS DISTINCT FROM came.app_version
                   OR (known.masked_ip <> came.masked_ip AND left(known.masked_ip, 6) = left(came.masked_ip, 6))
                   OR (known.masked_device_id <> came.masked_device_id
                       AND left(known.masked_device_id, 6) = left(came.masked_device_id, 6))
            );
        END
        $body$
    $create$, current_setting('login_stream.schema'));
END
$$;

REVOKE EXECUTE ON FUNCTION :"schema".differing_logins FROM PUBLIC;
GRANT EXECUTE ON FUNCTION :"schema".differing_logins TO stream_writer;
