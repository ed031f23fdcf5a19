-- A refresh token begins its life; each one that is added deletes two expired ones of anybody, twice as many as it adds.
-- What has expired is refused whether it is known or not. Parameters: user_id, family_id, token_hash, lifetime_seconds.
WITH expired AS (
    SELECT t.id
      FROM refresh_tokens AS t
     WHERE t.expires_at <= now()
     ORDER BY t.expires_at
     LIMIT 2
       FOR UPDATE SKIP LOCKED
), deleted AS (
    DELETE FROM refresh_tokens AS t USING expired AS e WHERE t.id = e.id
)
INSERT INTO refresh_tokens (user_id, family_id, token_hash, expires_at)
VALUES (%(user_id)s, %(family_id)s, %(token_hash)s, now() + make_interval(secs => %(lifetime_seconds)s))
