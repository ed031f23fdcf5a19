-- Marks a refresh token as exchanged. Parameters: token_hash.
UPDATE refresh_tokens SET used_at = now() WHERE token_hash = %(token_hash)s
