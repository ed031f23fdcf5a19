-- A refresh token of a family begins its life. Parameters: user_id, family_id, token_hash, lifetime_seconds.
INSERT INTO refresh_tokens (user_id, family_id, token_hash, expires_at)
VALUES (%(user_id)s, %(family_id)s, %(token_hash)s, now() + make_interval(secs => %(lifetime_seconds)s))
