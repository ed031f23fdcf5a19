-- The constraints of the schema's tables: keys first, then what refers to other tables, then checks; and the table that is
-- referred to. NOT NULL stands at its column, and a constraint trigger is a trigger. Parameters: none.
SELECT c.relname AS table_name, quote_ident(k.conname) AS name, pg_get_constraintdef(k.oid, true) AS definition,
       r.relname AS referenced_table, obj_description(k.oid, 'pg_constraint') AS comment
  FROM pg_constraint AS k
  JOIN pg_class AS c ON c.oid = k.conrelid
  LEFT JOIN pg_class AS r ON r.oid = k.confrelid
 WHERE c.relnamespace = current_schema()::text::regnamespace AND c.relkind = 'r' AND k.contype IN ('p', 'u', 'x', 'f', 'c')
 ORDER BY c.relname COLLATE "C", array_position('{p,u,x,f,c}'::"char"[], k.contype), k.conname COLLATE "C"
