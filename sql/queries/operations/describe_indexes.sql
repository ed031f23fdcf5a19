-- The indexes of the schema's tables that belong to no constraint. Parameters: none.
SELECT c.relname AS table_name, pg_get_indexdef(i.indexrelid, 0, true) AS definition,
       obj_description(i.indexrelid, 'pg_class') AS comment
  FROM pg_index AS i
  JOIN pg_class AS c ON c.oid = i.indrelid
  JOIN pg_class AS n ON n.oid = i.indexrelid
 WHERE c.relnamespace = current_schema()::text::regnamespace AND c.relkind = 'r'
   AND NOT EXISTS (SELECT FROM pg_constraint AS k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))
 ORDER BY c.relname COLLATE "C", n.relname COLLATE "C"
