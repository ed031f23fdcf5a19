-- Marks a refresh token as exchanged, once or for the second time. Parameters: token_hash.
UPDATE refresh_tokens
   SET used_at = coalesce(used_at, now()), used_again_at = CASE WHEN used_at IS NOT NULL THEN now() END
 WHERE token_hash = %(token_hash)s
