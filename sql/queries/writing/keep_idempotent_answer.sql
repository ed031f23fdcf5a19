-- The answer under a key that claim_idempotency_key has taken, and which cache keys the write made stale.
-- Parameters: user_id, key, status, location, body, stale.
UPDATE idempotency_keys
   SET status = %(status)s, location = %(location)s, body = %(body)s, stale = %(stale)s::text[]
 WHERE user_id = %(user_id)s AND key = %(key)s
