-- The cache keys that a write has made stale. A worker that dies between its commit and its word to Redis leaves what is
-- cached as it was; its client sends the request again, and the repeat says that word.
ALTER TABLE idempotency_keys ADD COLUMN stale text[] NOT NULL DEFAULT '{}';
