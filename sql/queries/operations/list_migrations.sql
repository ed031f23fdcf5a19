-- The names of the migrations that were applied. Parameters: none.
SELECT name FROM schema_migrations
