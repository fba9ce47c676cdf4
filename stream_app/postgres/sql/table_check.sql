-- name: look_at_table
-- What stands in the catalog of the three tables that the worker writes, as one JSON text for table_check.py, and whether the time zone
-- is one of this server's (an error, if not). Everything has its schema, since the worker asks it in the first second of a session.
WITH ours AS (
    SELECT c.oid, c.relname, c.relkind, c.relrowsecurity
    FROM pg_catalog.pg_class AS c
    WHERE c.relnamespace = (SELECT n.oid FROM pg_catalog.pg_namespace AS n WHERE n.nspname = :'schema')
      AND c.relname IN ('user_logins', 'stream_positions', 'dead_letters') AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
), writer AS (
    SELECT r.oid FROM pg_catalog.pg_roles AS r WHERE r.rolname = 'stream_writer'
), columns AS (
    SELECT ours.relname AS table_name, a.attnum,
           pg_catalog.json_build_object(
               'table', ours.relname,
               'name', a.attname,
               'type', pg_catalog.format_type(a.atttypid, a.atttypmod),
               'required', a.attnotnull OR t.typnotnull,
               'filled', a.atthasdef OR a.attidentity <> '' OR t.typdefault IS NOT NULL,
               'given', a.attgenerated <> '' OR a.attidentity = 'a',
               'takes', (
                   SELECT pg_catalog.json_agg(pg_catalog.format_type(c.castsource, NULL))
                   FROM pg_catalog.pg_cast AS c
                   WHERE c.casttarget = coalesce(nullif(t.typbasetype, 0), t.oid) AND c.castcontext <> 'e'
               ),
               'base', pg_catalog.format_type(coalesce(nullif(t.typbasetype, 0), t.oid), NULL),
               'text', t.typcategory = 'S',
               'locked_sequences', (
                   SELECT pg_catalog.json_agg(d.refobjid::pg_catalog.regclass::pg_catalog.text)
                   FROM pg_catalog.pg_attrdef AS ad
                   JOIN pg_catalog.pg_depend AS d
                       ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = ad.oid
                       AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                   JOIN pg_catalog.pg_class AS s ON s.oid = d.refobjid
                   WHERE ad.adrelid = a.attrelid AND ad.adnum = a.attnum
                     AND CASE s.relkind  -- an error for anything else, so not beside it
                         WHEN 'S' THEN NOT pg_catalog.has_sequence_privilege((SELECT oid FROM writer), s.oid, 'USAGE')
                     END
               )
           ) AS fact
    FROM ours
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = ours.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
), indexes AS (
    SELECT ours.relname AS table_name, i.indexrelid,
           pg_catalog.json_build_object(
               'table', ours.relname,
               'name', x.relname,
               'whole', i.indpred IS NULL AND i.indexprs IS NULL AND i.indimmediate,
               'columns', (
                   SELECT pg_catalog.json_agg(a.attname ORDER BY a.attnum)
                   FROM pg_catalog.unnest(i.indkey::pg_catalog.int2[]) WITH ORDINALITY AS k (attnum, place)
                   JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
                   WHERE k.place <= i.indnkeyatts
               )
           ) AS fact
    FROM ours
    JOIN pg_catalog.pg_index AS i ON i.indrelid = ours.oid AND i.indisunique AND i.indisvalid
    JOIN pg_catalog.pg_class AS x ON x.oid = i.indexrelid
), triggers AS (
    SELECT g.oid,
           pg_catalog.json_build_object(
               'table', ours.relname,
               'name', g.tgname,
               'function', g.tgfoid::pg_catalog.regprocedure::pg_catalog.text,
               'fills', (g.tgtype::pg_catalog.int4 & 7) = 7
           ) AS fact
    FROM ours
    JOIN pg_catalog.pg_trigger AS g ON g.tgrelid = ours.oid
    WHERE NOT g.tgisinternal AND g.tgenabled IN ('O', 'A')
      AND (g.tgtype::pg_catalog.int4 & CASE ours.relname WHEN 'stream_positions' THEN 20 ELSE 4 END) <> 0
), constraints AS (
    SELECT k.oid, k.contype,
           pg_catalog.json_build_object(
               'table', ours.relname, 'name', k.conname, 'references', k.confrelid::pg_catalog.regclass::pg_catalog.text
           ) AS fact
    FROM ours
    JOIN pg_catalog.pg_constraint AS k ON k.conrelid = ours.oid
    WHERE ours.relname = 'user_logins' AND k.contype IN ('c', 'f', 'x')
)
SELECT pg_catalog.json_build_object(
    'tables', (SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
        'name', relname, 'kind', relkind, 'row_security', relrowsecurity,
        'may_insert', pg_catalog.has_any_column_privilege((SELECT oid FROM writer), ours.oid, 'INSERT')
    ) ORDER BY relname) FROM ours),
    'columns', (SELECT pg_catalog.json_agg(fact ORDER BY table_name, attnum) FROM columns),
    'unique_indexes', (SELECT pg_catalog.json_agg(fact ORDER BY table_name, indexrelid) FROM indexes),
    'triggers', (SELECT pg_catalog.json_agg(fact ORDER BY oid) FROM triggers),
    'checks', (SELECT pg_catalog.json_agg(fact ORDER BY oid) FROM constraints WHERE contype = 'c'),
    'foreign_keys', (SELECT pg_catalog.json_agg(fact ORDER BY oid) FROM constraints WHERE contype = 'f'),
    'exclusions', (SELECT pg_catalog.json_agg(fact ORDER BY oid) FROM constraints WHERE contype = 'x'),
    'elsewhere', (
        SELECT pg_catalog.json_agg(n.nspname ORDER BY n.nspname)
        FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.relname = 'user_logins' AND c.relkind IN ('r', 'p') AND n.nspname <> :'schema' AND n.nspname !~ '^pg_'
    )
)::pg_catalog.text,
pg_catalog.timezone(%(time_zone)s, pg_catalog.now()) IS NOT NULL;
