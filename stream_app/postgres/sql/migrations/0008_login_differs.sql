-- Whether a message's row holds something else than this: what the worker asks of a message that came again, without a right to read
-- any row's content. With the owner's rights, therefore, and answering yes or no only.
-- Its text is made here since psql puts its variables into no body of a function. Quoted, and not BEGIN ATOMIC: that would keep the
-- table's owner from ever changing a column's type.
SELECT set_config('login_stream.schema', :'schema', false);
DO $$
BEGIN
    EXECUTE format($create$
        CREATE FUNCTION %1$I.login_differs(
            sent_at timestamptz, message_id uuid, user_id text, device_type text, masked_ip text, masked_device_id text, locale text,
            app_version integer
        ) RETURNS boolean
        LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
        -- Tokens of two keys can't be compared: only those that begin alike, with a key's id.
        BEGIN
            RETURN (
                SELECT NOT bool_or(
                    known.user_id IS NOT DISTINCT FROM login_differs.user_id
                    AND known.device_type IS NOT DISTINCT FROM login_differs.device_type
                    AND known.locale IS NOT DISTINCT FROM login_differs.locale
                    AND known.app_version IS NOT DISTINCT FROM login_differs.app_version
                    AND coalesce(known.masked_ip = login_differs.masked_ip
                                 OR left(known.masked_ip, 6) <> left(login_differs.masked_ip, 6), true)
                    AND coalesce(known.masked_device_id = login_differs.masked_device_id
                                 OR left(known.masked_device_id, 6) <> left(login_differs.masked_device_id, 6), true)
                )
                FROM %1$I.user_logins AS known
                WHERE known.sent_at = login_differs.sent_at AND known.message_id = login_differs.message_id
            );
        END
        $body$
    $create$, current_setting('login_stream.schema'));
END
$$;

REVOKE EXECUTE ON FUNCTION :"schema".login_differs FROM PUBLIC;
GRANT EXECUTE ON FUNCTION :"schema".login_differs TO stream_writer;
