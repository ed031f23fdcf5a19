-- Gives an account another password; a token for a reset is of no more use. Parameters: user_id, password_hash.
-- Private: password_hash.
WITH unused AS (
    DELETE FROM password_resets WHERE user_id = %(user_id)s
)
UPDATE users SET password_hash = %(password_hash)s::text, updated_at = now() WHERE id = %(user_id)s
