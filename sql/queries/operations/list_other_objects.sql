-- What the schema has besides tables, indexes, functions and triggers, but for what belongs to these or to extensions.
-- Parameters: none.
SELECT kind, name
  FROM (SELECT 'pg_class'::regclass AS catalog, c.oid,
               CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence'
                              WHEN 'f' THEN 'foreign table' WHEN 'p' THEN 'partitioned table' WHEN 'c' THEN 'type'
                              ELSE 'unlogged table' END AS kind,
               c.relname::text AS name
          FROM pg_class AS c
         WHERE c.relnamespace = current_schema()::text::regnamespace AND c.relkind IN ('v', 'm', 'S', 'f', 'p', 'c', 'r')
           AND NOT (c.relkind = 'r' AND c.relpersistence = 'p')
         UNION ALL
        SELECT 'pg_proc'::regclass, p.oid,
               CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'window function' END,
               p.oid::regprocedure::text
          FROM pg_proc AS p
         WHERE p.pronamespace = current_schema()::text::regnamespace AND p.prokind <> 'f'
         UNION ALL
        SELECT 'pg_type'::regclass, t.oid,
               CASE t.typtype WHEN 'e' THEN 'enum' WHEN 'd' THEN 'domain' ELSE 'range' END, t.typname::text
          FROM pg_type AS t
         WHERE t.typnamespace = current_schema()::text::regnamespace AND t.typtype IN ('e', 'd', 'r')) AS others
 WHERE NOT EXISTS (SELECT FROM pg_depend AS d
                    WHERE d.classid = others.catalog AND d.objid = others.oid AND d.deptype IN ('e', 'i'))
 ORDER BY kind COLLATE "C", name COLLATE "C"
