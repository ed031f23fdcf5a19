-- The account with an id. Parameters: user_id.
SELECT id, email, password_hash, name, role, plan, time_zone, deactivated_at, created_at
  FROM users
 WHERE id = %(user_id)s
