-- Takes an Idempotency-Key for this transaction, or gives what was answered under it; an answer has a status, a key that
-- is now ours has none. Waits for the transaction that holds the key. A key lives for 24 hours; each claim deletes two
-- expired ones of anybody, twice as many as it adds. Parameters: user_id, key, fingerprint.
WITH expired AS (
    SELECT k.user_id, k.key
      FROM idempotency_keys AS k
     WHERE k.created_at <= now() - interval '24 hours'
       AND (k.user_id, k.key) <> (%(user_id)s, %(key)s)
     ORDER BY k.created_at
     LIMIT 2
       FOR UPDATE SKIP LOCKED
), deleted AS (
    DELETE FROM idempotency_keys AS k USING expired AS e WHERE k.user_id = e.user_id AND k.key = e.key
)
INSERT INTO idempotency_keys AS k (user_id, key, fingerprint)
VALUES (%(user_id)s, %(key)s, %(fingerprint)s)
    ON CONFLICT (user_id, key) DO UPDATE
   SET (fingerprint, status, location, body, stale, created_at) = (
       SELECT excluded.fingerprint, NULL::smallint, NULL::text, NULL::bytea, '{}'::text[], excluded.created_at
        WHERE k.created_at <= now() - interval '24 hours'
        UNION ALL
       SELECT k.fingerprint, k.status, k.location, k.body, k.stale, k.created_at
        WHERE k.created_at > now() - interval '24 hours')
RETURNING k.fingerprint, k.status, k.location, k.body, k.stale
