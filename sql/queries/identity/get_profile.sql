-- What an account says of itself. Parameters: user_id.
SELECT name, time_zone FROM users WHERE id = %(user_id)s
