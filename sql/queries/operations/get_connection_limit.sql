-- How many connections our role may have at once: by its own limit, the database's and the server's, whichever is lowest.
-- Parameters: none.
SELECT least(
           nullif(r.rolconnlimit, -1),
           nullif(d.datconnlimit, -1),
           current_setting('max_connections')::integer
               - current_setting('superuser_reserved_connections')::integer
               - coalesce(current_setting('reserved_connections', true)::integer, 0)
       ) AS connections
  FROM pg_roles AS r, pg_database AS d
 WHERE r.rolname = current_user
   AND d.datname = current_database()
