-- A refresh token, locked: of two that present it at once, the second sees it spent. Parameters: token_hash.
SELECT user_id, family_id, used_at IS NOT NULL AS is_spent, revoked_at IS NOT NULL AS is_revoked,
       expires_at <= now() AS is_expired
  FROM refresh_tokens
 WHERE token_hash = %(token_hash)s
   FOR UPDATE
