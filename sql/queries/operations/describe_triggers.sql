-- The triggers of the schema's tables, and the function that each runs. Parameters: none.
SELECT g.tgfoid::regprocedure::text AS function_name, pg_get_triggerdef(g.oid, true) AS definition,
       obj_description(g.oid, 'pg_trigger') AS comment
  FROM pg_trigger AS g
  JOIN pg_class AS c ON c.oid = g.tgrelid
 WHERE c.relnamespace = current_schema()::text::regnamespace AND NOT g.tgisinternal
 ORDER BY c.relname COLLATE "C", g.tgname COLLATE "C"
