-- A one-time token by which a user chooses a new password; it replaces the one before. Parameters: user_id, token_hash,
-- lifetime_seconds.
INSERT INTO password_resets AS r (user_id, token_hash, expires_at)
VALUES (%(user_id)s, %(token_hash)s, now() + make_interval(secs => %(lifetime_seconds)s))
    ON CONFLICT (user_id) DO UPDATE SET token_hash = excluded.token_hash, expires_at = excluded.expires_at
RETURNING r.expires_at
