-- A refresh token, locked: of two that present it at once, the second sees what the first has done. It is spent from its
-- second use on, or from 10 s after its first: two tabs of a browser may refresh at once. It is revoked if any of its
-- family is: its reuse may have ended the family at the moment in which this one was made. Parameters: token_hash.
SELECT t.user_id, t.family_id, t.expires_at <= now() AS is_expired,
       t.used_at IS NOT NULL AND (t.used_again_at IS NOT NULL OR t.used_at <= now() - interval '10 seconds') AS is_spent,
       t.revoked_at IS NOT NULL OR EXISTS (
           SELECT FROM refresh_tokens AS f WHERE f.family_id = t.family_id AND f.revoked_at IS NOT NULL) AS is_revoked
  FROM refresh_tokens AS t
 WHERE t.token_hash = %(token_hash)s
   FOR UPDATE OF t
