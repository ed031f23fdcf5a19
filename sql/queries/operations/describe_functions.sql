-- The functions of the schema, but for those of extensions; without the schema's name. Parameters: none.
SELECT p.oid::regprocedure::text AS name,
       'CREATE FUNCTION ' || substr(
           pg_get_functiondef(p.oid),
           length('CREATE OR REPLACE FUNCTION ' || quote_ident(current_schema()) || '.') + 1) AS definition,
       obj_description(p.oid, 'pg_proc') AS comment
  FROM pg_proc AS p
 WHERE p.pronamespace = current_schema()::text::regnamespace AND p.prokind = 'f'
   AND NOT EXISTS (SELECT FROM pg_depend AS d
                    WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
 ORDER BY p.oid::regprocedure::text COLLATE "C"
