-- Whose new password a token is for, unless it has expired. Parameters: token_hash.
SELECT user_id FROM password_resets WHERE token_hash = %(token_hash)s AND expires_at > now()
