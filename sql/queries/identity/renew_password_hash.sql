-- Replaces the hash of a password by one of the same password with today's parameters, unless the password was changed
-- meanwhile. Parameters: user_id, known_hash, password_hash.
-- Private: known_hash, password_hash.
UPDATE users SET password_hash = %(password_hash)s WHERE id = %(user_id)s AND password_hash = %(known_hash)s
