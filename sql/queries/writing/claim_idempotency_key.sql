-- Takes an Idempotency-Key for this transaction, or gives what was answered under it (see the function in
-- sql/schema.sql). Parameters: user_id, key, fingerprint.
SELECT fingerprint, status, location, body, stale
  FROM claim_idempotency_key(%(user_id)s, %(key)s, %(fingerprint)s)
