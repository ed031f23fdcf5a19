-- Uses up a user's token for a new password, if it is this one and has not expired. Parameters: user_id, token_hash.
DELETE FROM password_resets WHERE user_id = %(user_id)s AND token_hash = %(token_hash)s AND expires_at > now()
