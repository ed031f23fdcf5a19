-- The answer under a key that claim_idempotency_key has taken. Parameters: user_id, key, status, location, body.
UPDATE idempotency_keys
   SET status = %(status)s, location = %(location)s, body = %(body)s
 WHERE user_id = %(user_id)s AND key = %(key)s
