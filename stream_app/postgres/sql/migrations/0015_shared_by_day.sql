-- The usual questions of analysts: which devices, which addresses have several users shared on one day. Functions with two times, and no
-- views: a view reads the whole table for them, and keeps the table's owner from changing a column's type. They have their caller's
-- rights, and read the part of the table that the index on sent_at gives them: the plan is made for the two times each time, and rows that
-- were sent together lie together, which Postgres doesn't count on for an index of two columns (hence random_page_cost).
-- Their text is made here since psql puts its variables into no body of a function.
SELECT set_config('login_stream.schema', :'schema', false);
DO $$
BEGIN
    EXECUTE format($create$
        CREATE FUNCTION %1$I.shared_devices_by_day(since timestamptz, until timestamptz DEFAULT 'infinity')
        RETURNS TABLE (day date, masked_device_id text, logins bigint, users bigint)
        LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan
        SET random_page_cost = 1.1 AS $body$
        #variable_conflict use_column
        BEGIN
            RETURN QUERY
            SELECT one.create_date::date, one.token, sum(one.logins)::bigint, count(*)
            FROM (
                SELECT login.create_date, login.masked_device_id::text AS token, login.user_id, count(*) AS logins
                FROM %1$I.user_logins AS login
                WHERE login.sent_at >= $1 AND login.sent_at < $2 AND login.masked_device_id IS NOT NULL
                GROUP BY 1, 2, 3
            ) AS one
            GROUP BY 1, 2 HAVING count(*) > 1;
        END
        $body$
    $create$, current_setting('login_stream.schema'));
    EXECUTE format($create$
        CREATE FUNCTION %1$I.shared_addresses_by_day(since timestamptz, until timestamptz DEFAULT 'infinity')
        RETURNS TABLE (day date, masked_ip text, logins bigint, users bigint)
        LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan
        SET random_page_cost = 1.1 AS $body$
        #variable_conflict use_column
        BEGIN
            RETURN QUERY
            SELECT one.create_date::date, one.token, sum(one.logins)::bigint, count(*)
            FROM (
                SELECT login.create_date, login.masked_ip::text AS token, login.user_id, count(*) AS logins
                FROM %1$I.user_logins AS login
                WHERE login.sent_at >= $1 AND login.sent_at < $2 AND login.masked_ip IS NOT NULL
                GROUP BY 1, 2, 3
            ) AS one
            GROUP BY 1, 2 HAVING count(*) > 1;
        END
        $body$
    $create$, current_setting('login_stream.schema'));
END
$$;

COMMENT ON FUNCTION :"schema".shared_devices_by_day
    IS 'devices of several users on one day, of logins sent at or after since and before until';
COMMENT ON FUNCTION :"schema".shared_addresses_by_day
    IS 'addresses of several users on one day, of logins sent at or after since and before until';

REVOKE EXECUTE ON FUNCTION :"schema".shared_devices_by_day FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION :"schema".shared_addresses_by_day FROM PUBLIC;
GRANT EXECUTE ON FUNCTION :"schema".shared_devices_by_day TO stream_analyst;
GRANT EXECUTE ON FUNCTION :"schema".shared_addresses_by_day TO stream_analyst;
