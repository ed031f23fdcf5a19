-- Whether any migration was ever applied here. Parameters: none.
SELECT to_regclass('schema_migrations') IS NOT NULL AS has_migrations
