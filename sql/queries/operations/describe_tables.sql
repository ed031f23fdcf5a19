-- The tables of the schema that names without a schema are looked up in, but for those of extensions. Parameters: none.
SELECT c.relname AS name, array_to_string(c.reloptions, ', ') AS options, obj_description(c.oid, 'pg_class') AS comment
  FROM pg_class AS c
 WHERE c.relnamespace = current_schema()::text::regnamespace AND c.relkind = 'r' AND c.relpersistence = 'p'
   AND NOT EXISTS (SELECT FROM pg_depend AS d
                    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
 ORDER BY c.relname COLLATE "C"
